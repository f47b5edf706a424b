/* policy_values: facts by name that a request can have several times or not at all: parameters of
 * its query, headers, claims of its token. */
#include <postern/conf.h>

#include <stdio.h>
#include <string.h>

#include "policy_priv.h"

static const char *const expected_value = "text, or text with a * at its beginning or end";

/* --- names ------------------------------------------------------------------------------------ */
/* Headers that are not, or not as they came, what the workload gets; and such as have a key of
 * their own. */
static const struct {
    const char *name, *advice;
} no_headers[] = {
    {"host", "write 'hosts'"},
    {"cookie", NULL},
    {"x-forwarded-client-cert", "write 'principals'"},
    {"connection", NULL},
    {"keep-alive", NULL},
    {"proxy-connection", NULL},
    {"te", NULL},
    {"trailer", NULL},
    {"transfer-encoding", NULL},
    {"content-length", NULL},
    {"upgrade", NULL},
};

/* RFC 9110, 5.1: a field's name is a token. */
static bool check_header_name(struct context *c, const struct field *f, const struct node *n)
{
    for (size_t i = 0; i < n->text.n; i++) {
        char ch = n->text.p[i];
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || memchr("!#$%&'*+-.^_`|~", ch, 15) != NULL;
        if (!ok || ch == '*') {
            return pattern_refuse(c, f, n, NULL, "which no header's name can be");
        }
    }
    for (size_t i = 0; i < sizeof(no_headers) / sizeof(no_headers[0]); i++) {
        if (str_eq_nocase(n->text, str_of(no_headers[i].name))) {
            return pattern_refuse(c, f, n, no_headers[i].advice,
                                  "which says nothing that rules can rely on");
        }
    }
    return true;
}

static bool check_query_name(struct context *c, const struct field *f, const struct node *n)
{
    if (memchr(n->text.p, '*', n->text.n) != NULL) {
        return pattern_refuse(c, f, n, NULL, "which is no pattern here");
    }
    return pattern_check_text(c, f, n);
}

/* Keys from the outside in, none empty. */
static bool check_claim_name(struct context *c, const struct field *f, const struct node *n)
{
    size_t depth = 1;
    bool empty = true;
    for (size_t i = 0; i < n->text.n; i++) {
        unsigned char ch = (unsigned char)n->text.p[i];
        if (ch == '\\') {
            char next = i + 1 < n->text.n ? n->text.p[i + 1] : '\0';
            if (next != '.' && next != '\\') {
                return pattern_refuse(c, f, n, "a \\ itself is \\\\",
                                      "with a \\ before no . or \\");
            }
            i++;
        } else if (ch == '.') {
            if (empty) {
                break;
            }
            depth++;
            empty = true;
            continue;
        } else if (ch < 0x20 || ch == 0x7f) {
            return pattern_refuse(c, f, n, NULL, "with a control character");
        }
        empty = false;
    }
    if (empty) {
        return pattern_refuse(c, f, n, "a . that is part of a claim's name is \\.",
                              "with an empty name between its dots");
    }
    if (depth > 8) {
        return pattern_refuse(c, f, n, NULL, "deeper than 8 names");
    }
    return true;
}

/* --- values ----------------------------------------------------------------------------------- */
static bool check_header_value(struct context *c, const struct field *f, const struct node *n)
{
    const char *p = n->text.p;
    if (memchr(" \t", p[0], 2) != NULL || memchr(" \t", p[n->text.n - 1], 2) != NULL) {
        return pattern_refuse(c, f, n, NULL,
                              "where the value of a header has no blank at its ends");
    }
    return pattern_check_text(c, f, n);
}

static bool is_hex(char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

static bool check_query_value(struct context *c, const struct field *f, const struct node *n)
{
    for (size_t i = 0; i + 2 < n->text.n; i++) {
        if (n->text.p[i] == '%' && is_hex(n->text.p[i + 1]) && is_hex(n->text.p[i + 2])) {
            return pattern_refuse(c, f, n, "write the sign itself",
                                  "where values are compared as decoded");
        }
    }
    return pattern_check_text(c, f, n);
}

/* --- tables ----------------------------------------------------------------------------------- */
static void check_value(struct context *c, const struct node *map, void *value)
{
    const struct conf_policy_value *v = value;
    const struct node *values = node_get(map, "values");
    const struct node *present = node_get(map, "present");
    if (values != NULL && present != NULL) {
        report(c, present->key, NULL, "remove one of them", "both 'values' and 'present'");
    } else if (values == NULL && present == NULL) {
        report(c, map, "values, or present: true", NULL, "neither 'values' nor 'present'");
    } else if (present != NULL && present->kind == NODE_SCALAR && !v->present) {
        report(c, present, "true", "use the not_ form of the list for what is absent",
               "'present' is not true");
    }
}

static void check_header(struct context *c, const struct node *map, void *value)
{
    struct conf_policy_value *v = value;
    for (char *p = v->name; p != NULL && *p != '\0'; p++) {
        if (*p >= 'A' && *p <= 'Z') {
            *p = (char)(*p - 'A' + 'a');
        }
    }
    check_value(c, map, value);
}

#define VALUE_FIELDS(name_check, name_expected, name_doc, value_check, value_doc)                  \
    {.name = "name",                                                                               \
     .type = TYPE_TEXT,                                                                            \
     .max = 256,                                                                                   \
     .required = true,                                                                             \
     .check = (name_check),                                                                        \
     .expected = (name_expected),                                                                  \
     AT(struct conf_policy_value, name),                                                           \
     .doc = (name_doc)},                                                                           \
        {.name = "values",                                                                         \
         .type = TYPE_TEXT,                                                                        \
         .max = 1024,                                                                              \
         .check = (value_check),                                                                   \
         .type_doc = "text, `*`, `prefix*` or `*suffix`",                                          \
         .expected = expected_value,                                                               \
         .empty_advice = LEAVE_OUT,                                                                \
         LIST_AT(struct conf_policy_value, values.items, values.n),                                \
         .doc = (value_doc)},                                                                      \
        {.name = "present",                                                                        \
         .type = TYPE_BOOL,                                                                        \
         AT(struct conf_policy_value, present),                                                    \
         .doc = "`true`, instead of `values`: that it is there, whatever it says."}

static const struct field fields_query[] = {
    VALUE_FIELDS(check_query_name, "a parameter's name", "Of the parameter, as decoded.",
                 check_query_value, "What it may be, as decoded."),
};
const struct table table_policy_query = {
    .name = "an element of 'query'",
    .size = sizeof(struct conf_policy_value),
    FIELDS(fields_query),
    .check = check_value,
};

static const struct field fields_header[] = {
    VALUE_FIELDS(check_header_name, "a header's name", "Of the header; case does not count.",
                 check_header_value, "What it may be."),
};
const struct table table_policy_header = {
    .name = "an element of 'headers'",
    .size = sizeof(struct conf_policy_value),
    FIELDS(fields_header),
    .check = check_header,
};

static const struct field fields_claim[] = {
    VALUE_FIELDS(check_claim_name, "a claim's name such as sub, or realm_access.roles",
                 "Of the claim; `.` leads into an object, `\\.` is a dot of a name.",
                 pattern_check_text, "What it may be; of a list, one is enough."),
};
const struct table table_policy_claim = {
    .name = "an element of 'claims'",
    .size = sizeof(struct conf_policy_value),
    FIELDS(fields_claim),
    .check = check_value,
};

void policy_check_values(struct context *c, const struct node *list,
                         const struct conf_policy_values *values, bool unique)
{
    if (values->n > CONF_POLICY_VALUES_MAX) {
        report(c, list, NULL, NULL, "%zu elements, more than %d", values->n,
               CONF_POLICY_VALUES_MAX);
        return;
    }
    const struct node *e = list != NULL ? list->child : NULL;
    for (size_t i = 0; unique && e != NULL && i < values->n; i++, e = e->next) {
        for (size_t k = 0; k < i; k++) {
            const char *a = values->items[i].name;
            const char *b = values->items[k].name;
            if (a != NULL && b != NULL && strcmp(a, b) == 0) {
                struct shown s;
                report(c, e, NULL, "put what it may be into one list of 'values'",
                       "%s stands twice, where all elements have to hold", show(&s, str_of(a)));
                return;
            }
        }
    }
}
