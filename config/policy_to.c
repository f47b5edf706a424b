/* policy_to: what is called, as a Policy file says it. A pattern that could never match, or would
 * match more than it reads like, is refused here: nobody finds it later. */
#include <postern/conf.h>

#include <stdio.h>
#include <string.h>

#include "policy_priv.h"

static bool is_token_char(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
           memchr("!#$%&'*+-.^_`|~", ch, 15) != NULL;
}

/* RFC 9110, 9.1: a method is a token, and case counts. */
static bool check_method(struct context *c, const struct field *f, const struct node *n)
{
    static const char *const known[] = {"GET",    "HEAD",    "POST",    "PUT",   "PATCH",
                                        "DELETE", "OPTIONS", "CONNECT", "TRACE", NULL};
    if (memchr(n->text.p, '*', n->text.n) != NULL) {
        return pattern_refuse(c, f, n, "leave the key out for every method",
                              "which is no pattern here");
    }
    for (size_t i = 0; i < n->text.n; i++) {
        if (!is_token_char(n->text.p[i])) {
            return pattern_refuse(c, f, n, NULL, "which no method can be");
        }
    }
    for (size_t i = 0; known[i] != NULL; i++) {
        if (!str_eq(n->text, str_of(known[i])) && str_eq_nocase(n->text, str_of(known[i]))) {
            char advice[60];
            snprintf(advice, sizeof(advice), "did you mean '%s'?", known[i]);
            return pattern_refuse(c, f, n, advice, "and methods are in capitals");
        }
    }
    return true;
}

static bool check_host(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    if (pattern_split(n->text, &rest) == PATTERN_BAD) {
        return pattern_refuse_star(c, f, n);
    }
    bool literal = rest.n > 2 && rest.p[0] == '[' && rest.p[rest.n - 1] == ']'; /* IPv6 */
    for (size_t i = literal ? 1 : 0; i < rest.n - (literal ? 1 : 0); i++) {
        char ch = rest.p[i];
        if (ch == ':' && !literal) {
            return pattern_refuse(c, f, n, "ports are a key of their own", "with a port");
        }
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || memchr("._-:", ch, 4) != NULL;
        if (!ok) {
            return pattern_refuse(c, f, n, ch == '/' ? "paths are a key of their own" : NULL,
                                  "which no host name can be");
        }
    }
    return true;
}

static bool is_hex(char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

/* {} and {**} as segments, and what stands between them. */
static bool check_template(struct context *c, const struct field *f, const struct node *n)
{
    bool any = false;
    for (size_t i = 0; i < n->text.n;) {
        const char *slash = memchr(n->text.p + i, '/', n->text.n - i);
        size_t len = slash != NULL ? (size_t)(slash - (n->text.p + i)) : n->text.n - i;
        struct str segment = {n->text.p + i, len};
        bool one = str_eq(segment, STR_LIT("{}"));
        bool rest = str_eq(segment, STR_LIT("{**}"));
        if (any && (one || rest)) {
            return pattern_refuse(c, f, n, NULL, "where nothing of the kind may follow {**}");
        }
        for (size_t k = 0; !one && !rest && k < len; k++) {
            if (memchr("{}*", segment.p[k], 3) != NULL) {
                return pattern_refuse(c, f, n, "write %2A, %7B and %7D for the signs themselves",
                                      "where {} and {**} stand for whole segments, and * for none");
            }
        }
        any = any || rest;
        i += len + 1;
    }
    return true;
}

static bool check_path_pattern(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    bool template = conf_is_template(n->text.p);
    if (template && c->level < 2) {
        return pattern_refuse_level(c, f, n, "a template");
    }
    enum pattern_kind kind = PATTERN_EXACT;
    if (!template) {
        kind = pattern_split(n->text, &rest);
    } else if (check_template(c, f, n)) {
        rest = n->text;
    } else {
        return false;
    }
    if (kind == PATTERN_BAD) {
        return pattern_refuse_star(c, f, n);
    }
    if ((kind == PATTERN_EXACT || kind == PATTERN_PREFIX) && rest.p[0] != '/') {
        return pattern_refuse(c, f, n, NULL, "which does not begin with /");
    }
    for (size_t i = 0; i < rest.n; i++) {
        char ch = rest.p[i];
        if (ch == '?' || ch == '#') {
            return pattern_refuse(c, f, n, NULL, "but paths are judged without their query");
        }
        if (!template && c->level >= 2 && (ch == '{' || ch == '}')) {
            return pattern_refuse(c, f, n, "write %7B and %7D for the signs themselves",
                                  "where {} and {**} stand for whole segments");
        }
        if (ch <= ' ' || ch > '~') {
            return pattern_refuse(c, f, n, "write other bytes as %XX, as requests do",
                                  "which no path can be");
        }
        if (ch == '%' && (rest.n - i < 3 || !is_hex(rest.p[i + 1]) || !is_hex(rest.p[i + 2]))) {
            return pattern_refuse(c, f, n, "a % itself is %25", "with a % that stands for no byte");
        }
    }
    return true;
}

/* pkg.Service/Method, as in the request's path without its first sign. */
static bool check_grpc(struct context *c, const struct field *f, const struct node *n)
{
    const char *slash = memchr(n->text.p, '/', n->text.n);
    if (slash == NULL || slash == n->text.p || slash + 1 == n->text.p + n->text.n) {
        bool first = slash == n->text.p;
        return pattern_refuse(c, f, n,
                              first ? "leave the / at its beginning out"
                                    : "write SERVICE/* for all of a service",
                              "which names no service and method");
    }
    struct str method = {slash + 1, n->text.n - (size_t)(slash + 1 - n->text.p)};
    bool all = str_eq(method, STR_LIT("*"));
    for (const char *p = n->text.p; p < n->text.p + n->text.n; p++) {
        char ch = *p;
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || ch == '_' || (ch == '.' && p < slash) || p == slash ||
                  (all && p > slash);
        if (!ok) {
            return pattern_refuse(c, f, n, NULL, "which is no service and method");
        }
    }
    return true;
}

static void check_to(struct context *c, const struct node *map, void *value)
{
    const struct conf_policy_to *to = value;
    policy_check_values(c, node_get(map, "query"), &to->query, true);
    policy_check_values(c, node_get(map, "not_query"), &to->not_query, false);
    policy_check_values(c, node_get(map, "headers"), &to->headers, true);
    policy_check_values(c, node_get(map, "not_headers"), &to->not_headers, false);
}

/* --- the table -------------------------------------------------------------------------------- */
#define HOST                                                                                       \
    .max = 254, .check = check_host, .type_doc = "host name, `prefix*` or `*suffix`",              \
    .expected = "a host name, or one with a * at its beginning or end"
#define METHOD                                                                                     \
    .max = 64, .check = check_method, .type_doc = "method", .expected = "a method such as GET"
#define PATTERN_OF_PATH                                                                            \
    .max = 4096, .check = check_path_pattern,                                                      \
    .type_doc = "path, `prefix*`, `*suffix`, or one with `{}` and `{**}` for segments",            \
    .expected = "a path such as /orders, /orders/* or *.html"
#define GRPC                                                                                       \
    .max = 512, .level = 2, .check = check_grpc,                                                   \
    .type_doc = "`pkg.Service/Method` or `pkg.Service/*`",                                         \
    .expected = "a service and a method such as pkg.Service/Method, or pkg.Service/*"

static const struct field fields_to[] = {
    {.name = "ports",
     .type = TYPE_PORT,
     LIST_AT(struct conf_policy_to, ports, n_ports),
     .empty_advice = LEAVE_OUT,
     .doc = "The workload's port."},
    {.name = "not_ports",
     .type = TYPE_PORT,
     LIST_AT(struct conf_policy_to, not_ports, n_not_ports),
     .empty_advice = LEAVE_OUT,
     .doc = "Any but these."},
    STRINGS(methods, TYPE_TEXT, conf_policy_to, METHOD, .doc = "The method of the request."),
    STRINGS(not_methods, TYPE_TEXT, conf_policy_to, METHOD, .doc = "Any but these."),
    STRINGS(hosts, TYPE_TEXT, conf_policy_to, HOST,
            .doc = "The host that it asks for, without port; case does not count."),
    STRINGS(not_hosts, TYPE_TEXT, conf_policy_to, HOST, .doc = "Any but these."),
    STRINGS(paths, TYPE_TEXT, conf_policy_to, PATTERN_OF_PATH,
            .doc = "Its path, without query; `%XX` stands for that byte, as in a request."),
    STRINGS(not_paths, TYPE_TEXT, conf_policy_to, PATTERN_OF_PATH, .doc = "Any but these."),
    VALUES(query, conf_policy_to, table_policy_query,
           .doc = "Parameters of its query: all of these hold."),
    VALUES(not_query, conf_policy_to, table_policy_query, .doc = "None of these holds."),
    VALUES(headers, conf_policy_to, table_policy_header, .doc = "Its headers: all of these hold."),
    VALUES(not_headers, conf_policy_to, table_policy_header, .doc = "None of these holds."),
    STRINGS(grpc, TYPE_TEXT, conf_policy_to, GRPC, .doc = "The gRPC method that it calls."),
    STRINGS(not_grpc, TYPE_TEXT, conf_policy_to, GRPC, .doc = "Any but these."),
};
const struct table table_policy_to = {
    .name = "an element of 'to'",
    .doc = "All keys of one element must hold; one element is enough. All but ports "
           "exists in HTTP requests only: an element that names such a thing says nothing about "
           "other connections.",
    .size = sizeof(struct conf_policy_to),
    FIELDS(fields_to),
    .empty_advice = "leave 'to' out to speak of everything",
    .check = check_to,
};
