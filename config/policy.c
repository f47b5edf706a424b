/* policy: the table of a Policy file, and which patterns its clauses take. A pattern that could
 * never match, or would match more than it reads like, is refused here: nobody finds it later. */
#include <postern/conf.h>

#include <postern/spiffe.h>
#include <stdio.h>
#include <string.h>

#include "config_priv.h"

static const char *const words_action[] = {"ALLOW", "DENY", NULL};

#define LEAVE_OUT "leave the key out where it does not matter: an empty list would match nothing"

/* --- patterns --------------------------------------------------------------------------------- */
enum pattern_kind { PATTERN_EXACT, PATTERN_PREFIX, PATTERN_SUFFIX, PATTERN_ANY, PATTERN_BAD };

/* Where the star stands; *ret_rest is the text without it. */
static enum pattern_kind split_pattern(struct str text, struct str *ret_rest)
{
    size_t stars = 0;
    for (size_t i = 0; i < text.n; i++) {
        stars += text.p[i] == '*';
    }
    *ret_rest = text;
    if (stars == 0) {
        return PATTERN_EXACT;
    }
    bool leading = text.p[0] == '*';
    if (stars > 1 || (!leading && text.p[text.n - 1] != '*')) {
        return PATTERN_BAD;
    }
    *ret_rest = (struct str){text.p + (leading ? 1 : 0), text.n - 1};
    return text.n == 1 ? PATTERN_ANY : leading ? PATTERN_SUFFIX : PATTERN_PREFIX;
}

static bool refuse(struct context *c, const struct field *f, const struct node *n,
                   const char *advice, const char *why)
{
    struct shown s;
    report(c, n, f->expected, advice, "'%s' holds %s, %s", f->name, show(&s, n->text), why);
    return false;
}

static bool refuse_star(struct context *c, const struct field *f, const struct node *n)
{
    return refuse(c, f, n, NULL, "where one * may stand at the beginning or at the end only");
}

static bool check_prefix_id(struct context *c, const struct field *f, const struct node *n,
                            struct str prefix)
{
    char text[2200];
    struct spiffe_id id;
    struct err err = ERR_INIT;
    if (prefix.n > 2048) {
        return refuse(c, f, n, NULL, "longer than a SPIFFE ID can be");
    }
    /* Any ID with this prefix is as good as one that goes on with a letter. */
    int len = snprintf(text, sizeof(text), "%.*sx", (int)prefix.n, prefix.p);
    if (spiffe_id_parse((struct str){text, (size_t)len}, &id, &err) != 0) {
        return refuse(c, f, n, NULL, err.what);
    }
    if (id.path.n == 0) {
        return refuse(c, f, n,
                      "write 'trust_domains' for a whole trust domain, or put a / before the *",
                      "which matches trust domains that only begin alike");
    }
    return true;
}

static bool check_principal(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    struct spiffe_id id;
    struct err err = ERR_INIT;
    switch (split_pattern(n->text, &rest)) {
    case PATTERN_ANY:
        return true;
    case PATTERN_BAD:
        return refuse_star(c, f, n);
    case PATTERN_EXACT:
        if (spiffe_id_parse(rest, &id, &err) != 0) {
            return refuse(c, f, n, NULL, err.what);
        }
        if (id.path.n == 0) {
            return refuse(c, f, n, "write 'trust_domains' for all of its workloads",
                          "the trust domain itself and no workload");
        }
        return true;
    case PATTERN_PREFIX:
        return check_prefix_id(c, f, n, rest);
    case PATTERN_SUFFIX:
        for (size_t i = 0; i < rest.n; i++) {
            char ch = rest.p[i];
            bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                      (ch >= '0' && ch <= '9') || memchr("._-/", ch, 4) != NULL;
            if (!ok) {
                return refuse(c, f, n, NULL, "which no SPIFFE ID can end with");
            }
        }
        if (rest.p[rest.n - 1] == '/') {
            return refuse(c, f, n, NULL, "which no SPIFFE ID can end with");
        }
        return true;
    }
    return false;
}

/* Names that a gateway's ordinary authorities vouch for, as x509_peers.h writes them. */
static bool is_other_name(struct str text, struct str *ret_kind)
{
    static const struct str kinds[] = {{"dns:", 4}, {"uri:", 4}, {"cn:", 3},
                                       {"ou:", 3},  {"ip:", 3},  {"x509:", 5}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (str_has_prefix(text, kinds[i])) {
            *ret_kind = kinds[i];
            return true;
        }
    }
    return false;
}

static bool check_peer(struct context *c, const struct field *f, const struct node *n)
{
    struct str kind = STR_NONE, rest;
    if (!is_other_name(n->text, &kind)) {
        return check_principal(c, f, n);
    }
    if (n->text.n == kind.n) {
        return refuse(c, f, n, "put a * behind it for every name of the kind",
                      "a kind and no name");
    }
    if (split_pattern(n->text, &rest) == PATTERN_BAD) {
        return refuse_star(c, f, n);
    }
    for (size_t i = 0; i < n->text.n; i++) {
        char ch = n->text.p[i];
        if ((unsigned char)ch < 0x20 || ch == 0x7f) {
            return refuse(c, f, n, NULL, "with a control character, which no name has");
        }
        if (kind.p[0] == 'd' && ch >= 'A' && ch <= 'Z') {
            return refuse(c, f, n, NULL, "where DNS names are told in lower case");
        }
    }
    return true;
}

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
        return refuse(c, f, n, "leave the key out for every method", "which is no pattern here");
    }
    for (size_t i = 0; i < n->text.n; i++) {
        if (!is_token_char(n->text.p[i])) {
            return refuse(c, f, n, NULL, "which no method can be");
        }
    }
    for (size_t i = 0; known[i] != NULL; i++) {
        if (!str_eq(n->text, str_of(known[i])) && str_eq_nocase(n->text, str_of(known[i]))) {
            char advice[60];
            snprintf(advice, sizeof(advice), "did you mean '%s'?", known[i]);
            return refuse(c, f, n, advice, "and methods are in capitals");
        }
    }
    return true;
}

static bool check_host(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    if (split_pattern(n->text, &rest) == PATTERN_BAD) {
        return refuse_star(c, f, n);
    }
    bool literal = rest.n > 2 && rest.p[0] == '[' && rest.p[rest.n - 1] == ']'; /* IPv6 */
    for (size_t i = literal ? 1 : 0; i < rest.n - (literal ? 1 : 0); i++) {
        char ch = rest.p[i];
        if (ch == ':' && !literal) {
            return refuse(c, f, n, "ports are a key of their own", "with a port");
        }
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || memchr("._-:", ch, 4) != NULL;
        if (!ok) {
            return refuse(c, f, n, ch == '/' ? "paths are a key of their own" : NULL,
                          "which no host name can be");
        }
    }
    return true;
}

static bool is_hex(char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

static bool check_path_pattern(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    enum pattern_kind kind = split_pattern(n->text, &rest);
    if (kind == PATTERN_BAD) {
        return refuse_star(c, f, n);
    }
    if ((kind == PATTERN_EXACT || kind == PATTERN_PREFIX) && rest.p[0] != '/') {
        return refuse(c, f, n, NULL, "which does not begin with /");
    }
    for (size_t i = 0; i < rest.n; i++) {
        char ch = rest.p[i];
        if (ch == '?' || ch == '#') {
            return refuse(c, f, n, NULL, "but paths are judged without their query");
        }
        if (ch <= ' ' || ch > '~') {
            return refuse(c, f, n, "write other bytes as %XX, as requests do",
                          "which no path can be");
        }
        if (ch == '%' && (rest.n - i < 3 || !is_hex(rest.p[i + 1]) || !is_hex(rest.p[i + 2]))) {
            return refuse(c, f, n, "a % itself is %25", "with a % that stands for no byte");
        }
    }
    return true;
}

/* --- tables ----------------------------------------------------------------------------------- */
#define STRINGS(key, type_name, struct_name, ...)                                                  \
    {.name = #key,                                                                                 \
     .type = type_name,                                                                            \
     LIST_AT(struct struct_name, key.items, key.n),                                                \
     .empty_advice = LEAVE_OUT,                                                                    \
     __VA_ARGS__}
#define PRINCIPAL                                                                                  \
    .max = 2049, .check = check_principal, .type_doc = "SPIFFE ID, `*`, `prefix*` or `*suffix`",   \
    .expected = "a SPIFFE ID, *, or one with a * at its beginning or end"
#define PEER                                                                                       \
    .max = 2049, .check = check_peer,                                                              \
    .type_doc = "SPIFFE ID, name such as `dns:a.example`, `*`, `prefix*` or `*suffix`",            \
    .expected = "a SPIFFE ID, *, or one with a * at its beginning or end"
#define HOST                                                                                       \
    .max = 254, .check = check_host, .type_doc = "host name, `prefix*` or `*suffix`",              \
    .expected = "a host name, or one with a * at its beginning or end"
#define METHOD                                                                                     \
    .max = 64, .check = check_method, .type_doc = "method", .expected = "a method such as GET"
#define PATTERN_OF_PATH                                                                            \
    .max = 4096, .check = check_path_pattern, .type_doc = "path, `prefix*` or `*suffix`",          \
    .expected = "a path such as /orders, /orders/* or *.html"

static const struct field fields_target[] = {
    {.name = "principals",
     .type = TYPE_TEXT,
     .required = true,
     LIST_AT(struct conf_rule, target_principals.items, target_principals.n),
     .empty_advice = "leave 'target' out to speak of every workload",
     PRINCIPAL,
     .doc = "The workloads, by their own SPIFFE ID."},
};
static const struct table table_target = {.name = "target", FIELDS(fields_target)};

static const struct field fields_from[] = {
    STRINGS(principals, TYPE_TEXT, conf_policy_from, PEER,
            .doc = "Who calls. Names with their kind (`dns:`, `uri:`, `cn:`, `ou:`, `ip:`, "
                   "`x509:`) are those "
                   "of peers by ordinary CAs, at a gateway."),
    STRINGS(not_principals, TYPE_TEXT, conf_policy_from, PEER, .doc = "Anyone but these."),
    STRINGS(trust_domains, TYPE_TRUST_DOMAIN, conf_policy_from,
            .doc = "The trust domain of who calls."),
    STRINGS(not_trust_domains, TYPE_TRUST_DOMAIN, conf_policy_from, .doc = "Any but these."),
    {.name = "ip_blocks",
     .type = TYPE_CIDR,
     LIST_AT(struct conf_policy_from, ip_blocks.items, ip_blocks.n),
     .empty_advice = LEAVE_OUT,
     .doc = "The source address of the connection."},
    {.name = "not_ip_blocks",
     .type = TYPE_CIDR,
     LIST_AT(struct conf_policy_from, not_ip_blocks.items, not_ip_blocks.n),
     .empty_advice = LEAVE_OUT,
     .doc = "Any but these."},
};
static const struct table table_from = {
    .name = "an element of 'from'",
    .doc = "All keys of one element must hold; one element is enough.",
    .size = sizeof(struct conf_policy_from),
    FIELDS(fields_from),
    .empty_advice = "leave 'from' out to speak of every caller",
};

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
};
static const struct table table_to = {
    .name = "an element of 'to'",
    .doc = "All keys of one element must hold; one element is enough. Methods, hosts and paths "
           "exist in HTTP requests only: a rule that names them says nothing about other "
           "connections.",
    .size = sizeof(struct conf_policy_to),
    FIELDS(fields_to),
    .empty_advice = "leave 'to' out to speak of everything",
};

static void check_rule(struct context *c, const struct node *map, void *value);

static const struct field fields_rule[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .required = true,
     AT(struct conf_rule, name),
     .doc = "Unique in the file; named by every decision."},
    {.name = "action",
     .type = TYPE_WORD,
     .words = words_action,
     .required = true,
     AT(struct conf_rule, action),
     .doc = "A `DENY` that matches wins over every `ALLOW`. What nothing allows is denied."},
    {.name = "target",
     .type = TYPE_MAP,
     .table = &table_target,
     .def_doc = "every workload",
     .doc = "Which workloads the rule speaks of."},
    {.name = "from",
     .type = TYPE_MAP,
     .table = &table_from,
     LIST_AT(struct conf_rule, from, n_from),
     .def_doc = "anyone",
     .empty_advice = "leave 'from' out to speak of every caller",
     .doc = "Who calls; absent, callers without an identity are meant too."},
    {.name = "to",
     .type = TYPE_MAP,
     .table = &table_to,
     LIST_AT(struct conf_rule, to, n_to),
     .def_doc = "anything",
     .empty_advice = "leave 'to' out to speak of everything",
     .doc = "What is called."},
};
static const struct table table_rule = {
    .name = "a rule",
    .doc = "Within a rule each list means \"any of\", and all keys must hold.",
    .size = sizeof(struct conf_rule),
    FIELDS(fields_rule),
    .check = check_rule,
};

static void check_policy(struct context *c, const struct node *map, void *value);

static const struct field fields_policy[] = {
    KIND_FIELDS("Policy"),
    {.name = "rules",
     .type = TYPE_MAP,
     .table = &table_rule,
     .required = true,
     .may_be_empty = true,
     LIST_AT(struct conf_policy, rules, n_rules),
     .doc = "In any order; `[]` denies everything."},
};
const struct table table_policy = {
    .name = "the file",
    .doc = "Who may do what. Named by `policy` in a Proxy; one file can serve a whole mesh, since "
           "rules select their targets.",
    .size = sizeof(struct conf_policy),
    FIELDS(fields_policy),
    .check = check_policy,
};

static void check_rule(struct context *c, const struct node *map, void *value)
{
    struct conf_rule *rule = value;
    (void)c;
    rule->line = map->line;
}

static void check_policy(struct context *c, const struct node *map, void *value)
{
    (void)value;
    schema_check_unique(c, node_get(map, "rules"), "name", "rule");
}
