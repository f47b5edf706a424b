/* http: what Proxy and Gateway files say of requests: of one port or destination what it lets
 * through, of the process what is added and kept. */
#include <postern/conf.h>

#include <postern/mem.h>
#include <string.h>

#include "config_priv.h"

enum { PATTERN_LEN_MAX = 1024, RATE_LIMITS_MAX = 64, CONNECT_MAX = 256 };

/* In the order of the bits of enum http1_path_allow. */
static const char *const words_paths[] = {
    "encoded_slash", "encoded_backslash", "semicolon", "double_slash", "dot_segments",
    "encoded_plain", "double_encoding",   "overlong",  NULL,
};
static const char *const words_per[] = {"identity", "route", NULL};
static const char *const words_via[] = {"off", "requests", "both", NULL};
static const char *const words_traces[] = {"begin", "keep", NULL};
static const char *const words_pool[] = {"off", "per_client", "shared", NULL};

/* --- rates ------------------------------------------------------------------------------------ */
static bool check_method(struct context *c, const struct field *f, const struct node *n)
{
    for (size_t i = 0; i < n->text.n; i++) {
        char ch = n->text.p[i];
        if (!((ch >= 'A' && ch <= 'Z') || ch == '-')) {
            value_fail(c, f, n, NULL, "which is no method");
            return false;
        }
    }
    return true;
}

static bool check_path(struct context *c, const struct field *f, const struct node *n)
{
    struct str t = n->text;
    bool leading = t.n > 0 && t.p[0] == '*';
    bool trailing = t.n > 1 && t.p[t.n - 1] == '*';
    struct str inner = {t.p + (leading ? 1 : 0), t.n - (leading ? 1U : 0U) - (trailing ? 1U : 0U)};
    bool stars = inner.n > 0 && memchr(inner.p, '*', inner.n) != NULL;
    if (t.n == 0 || stars || (leading && trailing) || (!leading && t.p[0] != '/')) {
        value_fail(c, f, n, NULL, "which is no path, and no path with one * at an end");
        return false;
    }
    return true;
}

static const struct field fields_rate_limit[] = {
    {.name = "methods",
     .type = TYPE_TEXT,
     .max = 32,
     .check = check_method,
     .expected = "a method in capitals such as POST",
     LIST_AT(struct conf_rate_limit, methods, n_methods),
     .def_doc = "all",
     .empty_advice = "leave it out to count all of them",
     .doc = "Which requests count, by method."},
    {.name = "paths",
     .type = TYPE_TEXT,
     .max = PATTERN_LEN_MAX,
     .check = check_path,
     .expected = "a path such as /orders, /orders/* or *.pdf",
     LIST_AT(struct conf_rate_limit, paths, n_paths),
     .def_doc = "all",
     .empty_advice = "leave it out to count all of them",
     .doc = "And by path, as policy judges it."},
    {.name = "per",
     .type = TYPE_WORD,
     .words = words_per,
     AT(struct conf_rate_limit, per),
     .def = "identity",
     .doc =
         "`identity`: each peer's requests are counted by themselves; of a peer without one, its "
         "address's. `route`: all of them together."},
    {.name = "rate",
     .type = TYPE_UINT,
     .min = 1,
     .max = 1000000,
     .required = true,
     AT(struct conf_rate_limit, rate),
     .doc = "Requests a second, of the whole process. What is beyond is answered with 429."},
    {.name = "burst",
     .type = TYPE_UINT,
     .min = 1,
     .max = 1000000,
     AT(struct conf_rate_limit, burst),
     .def_doc = "`rate`",
     .doc = "How many may come at once after a quiet time."},
};
const struct table table_http_rate_limit = {
    .name = "a rate limit", .size = sizeof(struct conf_rate_limit), FIELDS(fields_rate_limit)};

/* --- paths ------------------------------------------------------------------------------------ */
static const struct field fields_paths[] = {
    {.name = "allow",
     .type = TYPE_WORD,
     .words = words_paths,
     LIST_AT(struct conf_http, path_words, n_path_words),
     .required = true,
     .empty_advice = "leave 'paths' out to refuse all of it",
     .doc = "What is not refused of ambiguous paths (docs/http.md): `encoded_slash` (%2F), "
            "`encoded_backslash` (%5C), `semicolon`, `double_slash`, `dot_segments`, "
            "`encoded_plain` (letters, digits, dots), `double_encoding`, `overlong`. A request "
            "then has to be allowed by both readings of its path."},
};
static void check_paths(struct context *c, const struct node *map, void *value)
{
    (void)c;
    (void)map;
    struct conf_http *h = value;
    for (size_t i = 0; i < h->n_path_words; i++) {
        h->allow_paths |= UINT32_C(1) << h->path_words[i];
    }
}
const struct table table_http_paths = {
    .name = "paths", .size = sizeof(struct conf_http), FIELDS(fields_paths), .check = check_paths};

/* --- CONNECT ---------------------------------------------------------------------------------- */

/* host:port in lower case, the host a name, "*." and a name, an IPv4 address, or an IPv6 one in
 * brackets: as http1 writes what it judges. */
bool http_check_connect(struct context *c, const struct field *f, const struct node *n)
{
    struct str t = n->text;
    const char *colon = t.n > 0 ? memrchr(t.p, ':', t.n) : NULL;
    size_t host = colon != NULL ? (size_t)(colon - t.p) : 0;
    uint32_t port = 0;
    bool ok = host > 0 && host <= 253 && t.n - host - 1 <= 5 && t.n - host > 1;
    for (size_t i = host + 1; ok && i < t.n; i++) {
        ok = t.p[i] >= '0' && t.p[i] <= '9' && !(i == host + 1 && t.p[i] == '0');
        port = port * 10 + (uint32_t)(t.p[i] - '0');
    }
    bool bracket = ok && t.p[0] == '[' && t.p[host - 1] == ']';
    size_t from = host > 2 && t.p[0] == '*' && t.p[1] == '.' ? 2 : bracket ? 1 : 0;
    size_t to = bracket ? host - 1 : host;
    for (size_t i = from; ok && i < to; i++) {
        char ch = t.p[i];
        ok = (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') ||
             (bracket ? ch == ':' || ch == '.' : ch == '-' || ch == '.' || ch == '_');
    }
    if (!ok || from == to || port == 0 || port > 65535) {
        value_fail(c, f, n, NULL, "which is no target of CONNECT");
        return false;
    }
    return true;
}

/* --- of a port, or a destination -------------------------------------------------------------- */
void http_check(struct context *c, const struct node *map, const struct conf_http *h)
{
    if (!schema_word_is(map, "protocol", "http")) {
        const char *what = "what does not say 'protocol: http'";
        const char *advice = "no request is read there";
        schema_refuse_key(c, map, "paths", what, advice);
        schema_refuse_key(c, map, "connect", what, advice);
        schema_refuse_key(c, map, "rate_limits", what, advice);
        return;
    }
    if (h->n_rate_limits > RATE_LIMITS_MAX) {
        report(c, node_get(map, "rate_limits"), NULL, NULL, "more than %d rate limits",
               RATE_LIMITS_MAX);
    }
    if (h->n_connect > CONNECT_MAX) {
        report(c, node_get(map, "connect"), NULL, NULL, "more than %d targets", CONNECT_MAX);
    }
}

void http_check_port(struct context *c, const struct node *map, void *value)
{
    struct conf_port *p = value;
    expiry_check_port(c, map, value);
    http_check(c, map, &p->http);
    permissive_check(c, map, &p->permissive);
}

/* --- of the process --------------------------------------------------------------------------- */
static const struct field fields_http[] = {
    {.name = "via",
     .type = TYPE_WORD,
     .words = words_via,
     AT(struct conf_http_general, via),
     .def = "requests",
     .doc = "Where `Via: 1.1 postern` is added (RFC 9110 7.6.3)."},
    {.name = "traces",
     .type = TYPE_WORD,
     .words = words_traces,
     AT(struct conf_http_general, traces),
     .def = "begin",
     .doc = "`begin`: a request without a valid traceparent (W3C Trace Context) gets one. `keep`: "
            "it gets none. One that is not valid is removed in any case."},
    {.name = "upstream_pool",
     .type = TYPE_WORD,
     .words = words_pool,
     AT(struct conf_http_general, upstream_pool),
     .def = "per_client",
     .doc = "Which connections to the workload are kept for later requests when their client is "
            "idle or gone. `per_client`: for the same peer identity, and none that authenticates "
            "as a connection (NTLM, Negotiate). `shared`: for anybody. `off`: none."},
    {.name = "retry_budget",
     .type = TYPE_UINT,
     .max = 100,
     AT(struct conf_http_general, retry_percent),
     .def = "20",
     .doc =
         "How many requests in a hundred may be sent a second time, over a while; three a second "
         "in any case. 0: none."},
};
const struct table table_http_general = {
    .name = "http", .size = sizeof(struct conf_http_general), FIELDS(fields_http)};
