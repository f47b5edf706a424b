/* policy: the attack cases of docs/authorization.md, and random policies against a second
 * evaluator. */
#include <postern/policy.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy_ref.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- building policies by hand -----------------------------------------------------------------*/

enum { LIST_MAX = 6 };

/* One rule as a table row: lists end at NULL (or port 0). */
struct row {
    const char *name;
    enum conf_action action;
    const char *target[LIST_MAX];
    bool from, to;
    const char *principals[LIST_MAX], *not_principals[LIST_MAX];
    const char *domains[LIST_MAX], *not_domains[LIST_MAX];
    const char *blocks[LIST_MAX], *not_blocks[LIST_MAX];
    uint16_t ports[LIST_MAX], not_ports[LIST_MAX];
    const char *methods[LIST_MAX], *not_methods[LIST_MAX];
    const char *hosts[LIST_MAX], *not_hosts[LIST_MAX];
    const char *paths[LIST_MAX], *not_paths[LIST_MAX];
};

__attribute__((returns_nonnull)) static void *must(void *p)
{
    if (p == NULL) {
        abort();
    }
    return p;
}

static struct conf_strings strings_of(const char *const *items)
{
    struct conf_strings s = {.items = must(calloc(LIST_MAX, sizeof(char *)))};
    while (s.n < LIST_MAX && items[s.n] != NULL) {
        s.items[s.n] = must(strdup(items[s.n]));
        s.n++;
    }
    return s;
}

static struct conf_cidr cidr_of(const char *text)
{
    char address[64];
    struct conf_cidr c = {.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET};
    snprintf(address, sizeof(address), "%s", text);
    char *slash = strchr(address, '/');
    unsigned long len = c.family == AF_INET6 ? 128 : 32;
    if (slash != NULL) {
        *slash = '\0';
        len = strtoul(slash + 1, NULL, 10);
    }
    assert_int_equal(inet_pton(c.family, address, c.addr), 1);
    c.prefix_len = (uint8_t)len;
    return c;
}

static struct conf_cidrs cidrs_of(const char *const *items)
{
    struct conf_cidrs s = {.items = must(calloc(LIST_MAX, sizeof(struct conf_cidr)))};
    while (s.n < LIST_MAX && items[s.n] != NULL) {
        s.items[s.n] = cidr_of(items[s.n]);
        s.n++;
    }
    return s;
}

static uint16_t *ports_of(const uint16_t *items, size_t *ret_n)
{
    uint16_t *ports = must(calloc(LIST_MAX, sizeof(uint16_t)));
    while (*ret_n < LIST_MAX && items[*ret_n] != 0) {
        ports[*ret_n] = items[*ret_n];
        (*ret_n)++;
    }
    return ports;
}

static struct conf_policy_from from_of(const struct row *r)
{
    return (struct conf_policy_from){
        .principals = strings_of(r->principals),
        .not_principals = strings_of(r->not_principals),
        .trust_domains = strings_of(r->domains),
        .not_trust_domains = strings_of(r->not_domains),
        .ip_blocks = cidrs_of(r->blocks),
        .not_ip_blocks = cidrs_of(r->not_blocks),
    };
}

static struct conf_policy_to to_of(const struct row *r)
{
    struct conf_policy_to t = {
        .methods = strings_of(r->methods),
        .not_methods = strings_of(r->not_methods),
        .hosts = strings_of(r->hosts),
        .not_hosts = strings_of(r->not_hosts),
        .paths = strings_of(r->paths),
        .not_paths = strings_of(r->not_paths),
    };
    t.ports = ports_of(r->ports, &t.n_ports);
    t.not_ports = ports_of(r->not_ports, &t.n_not_ports);
    return t;
}

/* Rows of one name, one after the other, are one rule: each adds its from and its to entry. */
static struct conf_policy *conf_of(const struct row *rows, size_t n)
{
    struct conf_policy *c = must(calloc(1, sizeof(*c)));
    c->path = must(strdup("test.yaml"));
    c->rules = must(calloc(n > 0 ? n : 1, sizeof(c->rules[0])));
    for (size_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        struct conf_rule *rule = c->n_rules > 0 ? &c->rules[c->n_rules - 1] : NULL;
        if (rule == NULL || strcmp(rule->name, r->name) != 0) {
            rule = &c->rules[c->n_rules++];
            rule->name = must(strdup(r->name));
            rule->line = (unsigned)i + 1;
            rule->action = r->action;
            rule->target_principals = strings_of(r->target);
        }
        if (r->from) {
            rule->from = must(realloc(rule->from, (rule->n_from + 1) * sizeof(rule->from[0])));
            rule->from[rule->n_from++] = from_of(r);
        }
        if (r->to) {
            rule->to = must(realloc(rule->to, (rule->n_to + 1) * sizeof(rule->to[0])));
            rule->to[rule->n_to++] = to_of(r);
        }
    }
    return c;
}

static void strings_free(struct conf_strings *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->items[i]);
    }
    free(s->items);
}

static void conf_free(struct conf_policy *c)
{
    for (size_t i = 0; i < c->n_rules; i++) {
        struct conf_rule *r = &c->rules[i];
        for (size_t k = 0; k < r->n_from; k++) {
            strings_free(&r->from[k].principals);
            strings_free(&r->from[k].not_principals);
            strings_free(&r->from[k].trust_domains);
            strings_free(&r->from[k].not_trust_domains);
            free(r->from[k].ip_blocks.items);
            free(r->from[k].not_ip_blocks.items);
        }
        for (size_t k = 0; k < r->n_to; k++) {
            free(r->to[k].ports);
            free(r->to[k].not_ports);
            strings_free(&r->to[k].methods);
            strings_free(&r->to[k].not_methods);
            strings_free(&r->to[k].hosts);
            strings_free(&r->to[k].not_hosts);
            strings_free(&r->to[k].paths);
            strings_free(&r->to[k].not_paths);
        }
        strings_free(&r->target_principals);
        free(r->name);
        free(r->from);
        free(r->to);
    }
    free(c->rules);
    free(c->path);
    free(c);
}

static void address_of(const char *text, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (strchr(text, ':') != NULL) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
        in6->sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &in->sin_addr), 1);
    }
}

/* --- one rule, one question --------------------------------------------------------------------*/

#define ORDERS "spiffe://a.b/orders"
#define PEER "spiffe://a.b/ns/pay/sa/x"

struct question {
    const char *peer, *source, *method, *host, *path; /* method NULL: a connection */
    uint16_t port;                                    /* 0: 8080 */
    const char *target;                               /* NULL: ORDERS */
};

static struct policy_query query_of(const struct question *q, struct sockaddr_storage *source)
{
    struct policy_query r = {
        .target = str_of(q->target != NULL ? q->target : ORDERS),
        .peer = str_of(q->peer),
        .port = q->port != 0 ? q->port : 8080,
        .http = q->method != NULL,
        .method = str_of(q->method),
        .host = str_of(q->host),
        .path = str_of(q->path),
    };
    if (q->source != NULL) {
        address_of(q->source, source);
        r.source = (const struct sockaddr *)source;
    }
    return r;
}

static void assert_same_verdict(const struct policy_verdict *a, const struct policy_verdict *b)
{
    assert_int_equal(a->allow, b->allow);
    assert_int_equal(a->reason, b->reason);
    assert_int_equal(a->rule_line, b->rule_line);
    if (a->rule == NULL || b->rule == NULL) {
        assert_true(a->rule == b->rule);
    } else {
        assert_string_equal(a->rule, b->rule);
    }
}

/* Does this one row match? With action DENY an ALLOW for everyone stands behind it. */
static bool row_matches(const struct row *row, const struct question *question)
{
    struct row rows[2] = {*row, {.name = "all", .action = CONF_ALLOW}};
    rows[0].name = "row";
    struct conf_policy *conf = conf_of(rows, row->action == CONF_DENY ? 2 : 1);
    struct err err = ERR_INIT;
    struct policy *p = policy_new(conf, &err);
    assert_non_null(p);
    struct sockaddr_storage source;
    struct policy_query q = query_of(question, &source);
    struct policy_verdict v = {0};
    struct policy_verdict ref = {0};
    policy_decide(p, &q, &v);
    policy_ref_decide(conf, &q, &ref);
    assert_same_verdict(&v, &ref);
    bool matches = v.rule != NULL && strcmp(v.rule, "row") == 0;
    policy_free(p);
    conf_free(conf);
    return matches;
}

#define ALLOW .action = CONF_ALLOW
#define DENY .action = CONF_DENY
#define FROM .from = true
#define TO .to = true

static void test_clauses(void **state)
{
    (void)state;
    static const struct {
        struct row row;
        struct question q;
        bool matches;
    } cases[] = {
        /* identity: trust domains and exact IDs are compared whole, patterns are text */
        {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = "spiffe://a.bc/x"}, false},
        {{ALLOW, FROM, .domains = {"a.bc"}}, {.peer = "spiffe://a.b/x"}, false},
        {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = "spiffe://x.a.b/x"}, false},
        {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = "spiffe://a.b/x"}, true},
        {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = "spiffe://a.b"}, true},
        {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = "SPIFFE://a.b/x"}, false},
        {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = "a.b"}, false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b"}}, {.peer = "spiffe://a.bc/x"}, false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b"}}, {.peer = "spiffe://a.b/x"}, false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/x"}}, {.peer = "spiffe://a.b/xy"}, false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/xy"}}, {.peer = "spiffe://a.b/x"}, false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/x"}}, {.peer = "spiffe://a.b/X"}, false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/x"}}, {.peer = "spiffe://a.b/x"}, true},
        {{ALLOW, FROM, .principals = {"spiffe://a.b*"}}, {.peer = "spiffe://a.bc/x"}, true},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/*"}}, {.peer = "spiffe://a.bc/x"}, false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/ns/pay*"}}, {.peer = PEER}, true},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/ns/pay*"}},
         {.peer = "spiffe://a.b/ns/payroll/sa/x"},
         true},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/ns/pay/*"}},
         {.peer = "spiffe://a.b/ns/payroll/sa/x"},
         false},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/ns/pay/*"}},
         {.peer = "spiffe://a.b/ns/pay"},
         false},
        {{ALLOW, FROM, .principals = {"*/sa/ops"}}, {.peer = "spiffe://other/evil/sa/ops"}, true},
        {{ALLOW, FROM, .principals = {"*/sa/ops"}, .domains = {"a.b"}},
         {.peer = "spiffe://other/evil/sa/ops"},
         false},
        {{ALLOW, FROM, .principals = {"*/sa/ops"}}, {.peer = "spiffe://a.b/sa/oops"}, false},
        {{ALLOW, FROM, .principals = {"*"}}, {.peer = PEER}, true},
        {{ALLOW, FROM, .not_principals = {PEER}}, {.peer = PEER}, false},
        {{ALLOW, FROM, .not_principals = {PEER}}, {.peer = "spiffe://a.b/y"}, true},
        {{ALLOW, FROM, .principals = {"spiffe://a.b/*"}, .not_principals = {"*/x"}},
         {.peer = PEER},
         false},

        /* no identity */
        {{ALLOW}, {.peer = NULL}, true},
        {{ALLOW, FROM, .principals = {"*"}}, {.peer = NULL}, false},
        {{ALLOW, FROM, .not_principals = {"*/evil"}}, {.peer = NULL}, false},
        {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = NULL}, false},
        {{ALLOW, FROM, .not_domains = {"a.b"}}, {.peer = NULL}, false},
        {{DENY, FROM, .principals = {"*"}}, {.peer = NULL}, false},
        {{DENY, FROM, .not_principals = {"*/operator"}}, {.peer = NULL}, true},
        {{DENY, FROM, .not_principals = {"*"}}, {.peer = NULL}, true},
        {{DENY, FROM, .domains = {"a.b"}}, {.peer = NULL}, false},
        {{DENY, FROM, .not_domains = {"a.b"}}, {.peer = NULL}, true},
        {{DENY, FROM, .principals = {"*/x"}, .not_domains = {"a.b"}}, {.peer = NULL}, false},

        /* target */
        {{ALLOW, .target = {"spiffe://a.b/order"}}, {.peer = PEER}, false},
        {{ALLOW, .target = {ORDERS}}, {.peer = PEER}, true},
        {{ALLOW, .target = {"*/orders"}}, {.peer = PEER}, true},
        {{ALLOW, .target = {"*"}}, {.peer = PEER, .target = ""}, false},
        {{DENY, .target = {ORDERS}}, {.peer = PEER, .target = ""}, true},

        /* source */
        {{ALLOW, FROM, .blocks = {"10.0.0.0/8"}}, {.peer = PEER}, false},
        {{ALLOW, FROM, .not_blocks = {"10.0.0.0/8"}}, {.peer = PEER}, false},
        {{DENY, FROM, .blocks = {"10.0.0.0/8"}}, {.peer = PEER}, true},
        {{DENY, FROM, .not_blocks = {"10.0.0.0/8"}}, {.peer = PEER}, true},
        {{ALLOW, FROM, .blocks = {"10.0.0.0/8"}}, {.peer = PEER, .source = "11.0.0.1"}, false},
        {{ALLOW, FROM, .blocks = {"10.0.0.0/8"}}, {.peer = PEER, .source = "10.255.0.1"}, true},
        {{ALLOW, FROM, .blocks = {"10.0.0.0/8"}},
         {.peer = PEER, .source = "::ffff:10.1.2.3"},
         true},
        {{ALLOW, FROM, .blocks = {"::ffff:10.0.0.0/104"}},
         {.peer = PEER, .source = "10.1.2.3"},
         true},
        {{DENY, FROM, .blocks = {"10.1.2.3"}}, {.peer = PEER, .source = "::ffff:10.1.2.3"}, true},
        {{ALLOW, FROM, .not_blocks = {"10.0.0.0/8"}},
         {.peer = PEER, .source = "::ffff:10.1.2.3"},
         false},
        {{ALLOW, FROM, .blocks = {"::/0"}}, {.peer = PEER, .source = "10.1.2.3"}, false},
        {{ALLOW, FROM, .blocks = {"::/0"}}, {.peer = PEER, .source = "::ffff:10.1.2.3"}, false},
        {{ALLOW, FROM, .blocks = {"::/0"}}, {.peer = PEER, .source = "fd00::1"}, true},
        {{ALLOW, FROM, .blocks = {"0.0.0.0/0"}}, {.peer = PEER, .source = "fd00::1"}, false},
        {{ALLOW, FROM, .blocks = {"0.0.0.0/0"}}, {.peer = PEER, .source = "1.2.3.4"}, true},
        {{ALLOW, FROM, .blocks = {"fd00::/127"}}, {.peer = PEER, .source = "fd00::2"}, false},
        {{ALLOW, FROM, .blocks = {"fd00::/127"}}, {.peer = PEER, .source = "fd00::1"}, true},
        {{ALLOW, FROM, .blocks = {"10.0.0.7"}}, {.peer = PEER, .source = "10.0.0.6"}, false},

        /* ports */
        {{ALLOW, TO, .ports = {80}}, {.peer = PEER}, false},
        {{ALLOW, TO, .ports = {80, 8080}}, {.peer = PEER}, true},
        {{ALLOW, TO, .not_ports = {8080}}, {.peer = PEER}, false},
        {{ALLOW, TO, .ports = {8080}}, {.peer = PEER, .method = "GET", .path = "/"}, true},

        /* request clauses at connection time, positive and not */
        {{ALLOW, TO, .paths = {"*"}}, {.peer = PEER}, false},
        {{ALLOW, TO, .methods = {"GET"}}, {.peer = PEER}, false},
        {{ALLOW, TO, .not_methods = {"GET"}}, {.peer = PEER}, false},
        {{ALLOW, TO, .not_hosts = {"x"}}, {.peer = PEER}, false},
        {{DENY, TO, .paths = {"/admin*"}}, {.peer = PEER}, false},
        {{DENY, TO, .not_paths = {"/public*"}}, {.peer = PEER}, false},

        /* methods */
        {{ALLOW, TO, .methods = {"GET"}}, {.peer = PEER, .method = "get", .path = "/"}, false},
        {{ALLOW, TO, .methods = {"GET"}}, {.peer = PEER, .method = "HEAD", .path = "/"}, false},
        {{ALLOW, TO, .methods = {"GET"}}, {.peer = PEER, .method = "GETX", .path = "/"}, false},
        {{ALLOW, TO, .methods = {"GET"}}, {.peer = PEER, .method = "GET", .path = "/"}, true},

        /* hosts */
        {{ALLOW, TO, .hosts = {"orders"}},
         {.peer = PEER, .method = "GET", .path = "/", .host = "orders.evil.example"},
         false},
        {{DENY, TO, .hosts = {"orders"}},
         {.peer = PEER, .method = "GET", .path = "/", .host = "ORDERS."},
         true},
        {{DENY, TO, .hosts = {"Orders."}},
         {.peer = PEER, .method = "GET", .path = "/", .host = "oRDERS"},
         true},
        {{ALLOW, TO, .hosts = {"*.Example.org"}},
         {.peer = PEER, .method = "GET", .path = "/", .host = "a.eXample.ORG."},
         true},
        {{ALLOW, TO, .hosts = {"*.example.org"}},
         {.peer = PEER, .method = "GET", .path = "/", .host = "example.org"},
         false},
        {{ALLOW, TO, .hosts = {"orders*"}},
         {.peer = PEER, .method = "GET", .path = "/", .host = "orders.evil.example"},
         true},
        {{DENY, TO, .hosts = {"admin.internal"}},
         {.peer = PEER, .method = "GET", .path = "/"},
         true},
        {{DENY, TO, .not_hosts = {"orders"}}, {.peer = PEER, .method = "GET", .path = "/"}, true},
        {{ALLOW, TO, .hosts = {"*"}}, {.peer = PEER, .method = "GET", .path = "/"}, false},
        {{ALLOW, TO, .not_hosts = {"admin"}}, {.peer = PEER, .method = "GET", .path = "/"}, false},

        /* paths */
        {{DENY, TO, .paths = {"/admin*"}},
         {.peer = PEER, .method = "GET", .path = "/ADMIN"},
         false},
        {{DENY, TO, .paths = {"/admin*"}},
         {.peer = PEER, .method = "GET", .path = "/adminx"},
         true},
        {{DENY, TO, .paths = {"/admin*"}}, {.peer = PEER, .method = "GET", .path = "/admin"}, true},
        {{DENY, TO, .paths = {"/admin/*"}},
         {.peer = PEER, .method = "GET", .path = "/admin"},
         false},
        {{DENY, TO, .paths = {"/admin*"}},
         {.peer = PEER, .method = "GET", .path = "/orders/../admin"},
         false},
        {{ALLOW, TO, .paths = {"/orders/*"}},
         {.peer = PEER, .method = "GET", .path = "/orders/../admin"},
         true},
        {{DENY, TO, .paths = {"/secret%20files*"}},
         {.peer = PEER, .method = "GET", .path = "/secret files/1"},
         true},
        {{DENY, TO, .paths = {"/secret files*"}},
         {.peer = PEER, .method = "GET", .path = "/secret files/1"},
         true},
        {{ALLOW, TO, .paths = {"/a"}}, {.peer = PEER, .method = "GET", .path = "/%61"}, false},
        {{ALLOW, TO, .paths = {"/100%25"}}, {.peer = PEER, .method = "GET", .path = "/100%"}, true},
        {{ALLOW, TO, .paths = {"*.html"}},
         {.peer = PEER, .method = "GET", .path = "/x.html"},
         true},
        {{ALLOW, TO, .paths = {"*.html"}}, {.peer = PEER, .method = "GET", .path = ".htm"}, false},
        {{ALLOW, TO, .paths = {"/*"}}, {.peer = PEER, .method = "OPTIONS", .path = "*"}, false},
        {{ALLOW, TO, .paths = {"*"}}, {.peer = PEER, .method = "OPTIONS", .path = "*"}, true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (row_matches(&cases[i].row, &cases[i].q) != cases[i].matches) {
            fail_msg("case %zu: expected %s", i, cases[i].matches ? "a match" : "no match");
        }
    }
}

/* --- whole policies ----------------------------------------------------------------------------*/

static const struct row example[] = {
    {.name = "frontend-reads-orders",
     ALLOW,
     FROM,
     TO,
     .target = {ORDERS},
     .principals = {"spiffe://a.b/frontend"},
     .blocks = {"10.0.0.0/8"},
     .ports = {8080},
     .methods = {"GET", "HEAD"},
     .hosts = {"orders", "orders.example.org"},
     .paths = {"/orders", "/orders/*"}},
    {.name = "ticker", ALLOW, FROM, TO, .target = {ORDERS}, .domains = {"a.b"}, .ports = {7000}},
    {.name = "nobody-touches-admin",
     DENY,
     FROM,
     TO,
     .not_principals = {"spiffe://a.b/operator", "spiffe://a.b/ops/*"},
     .paths = {"/admin*"}},
    {.name = "operator", ALLOW, FROM, .principals = {"spiffe://a.b/operator"}},
};

static struct policy *example_policy(void)
{
    struct conf_policy *conf = conf_of(example, COUNT(example));
    struct err err = ERR_INIT;
    struct policy *p = policy_new(conf, &err);
    assert_non_null(p);
    conf_free(conf); /* nothing of it is kept */
    return p;
}

static void decide(const struct policy *p, const struct question *question,
                   struct policy_verdict *ret)
{
    struct sockaddr_storage source;
    struct policy_query q = query_of(question, &source);
    policy_decide(p, &q, ret);
}

static void test_order(void **state)
{
    (void)state;
    static const struct {
        struct question q;
        enum policy_reason reason;
        const char *rule;
    } cases[] = {
        {{"spiffe://a.b/ledger", "10.0.0.1", "GET", "orders", "/orders", 8080, NULL},
         POLICY_NO_RULE,
         NULL},
        {{"spiffe://a.b/frontend", "10.0.0.1", "GET", "orders", "/orders/1", 8080, NULL},
         POLICY_ALLOWED,
         "frontend-reads-orders"},
        {{"spiffe://a.b/frontend", "11.0.0.1", "GET", "orders", "/orders/1", 8080, NULL},
         POLICY_NO_RULE,
         NULL},
        {{"spiffe://a.b/frontend", "10.0.0.1", NULL, NULL, NULL, 8080, NULL}, POLICY_NO_RULE, NULL},
        {{"spiffe://a.b/ledger", "10.0.0.1", NULL, NULL, NULL, 7000, NULL},
         POLICY_ALLOWED,
         "ticker"},
        {{"spiffe://a.b/operator", NULL, "GET", "x", "/admin", 1, "spiffe://a.b/other"},
         POLICY_ALLOWED,
         "operator"},
        {{"spiffe://a.b/frontend", "10.0.0.1", "GET", "orders", "/admin", 8080, NULL},
         POLICY_DENIED_BY_RULE,
         "nobody-touches-admin"},
        {{NULL, "10.0.0.1", "GET", "orders", "/admin", 7000, NULL},
         POLICY_DENIED_BY_RULE,
         "nobody-touches-admin"},
    };
    struct policy *p = example_policy();
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct policy_verdict v = {0};
        decide(p, &cases[i].q, &v);
        assert_int_equal(v.reason, cases[i].reason);
        assert_int_equal(v.allow, v.reason == POLICY_ALLOWED);
        if (cases[i].rule == NULL) {
            assert_null(v.rule);
        } else {
            assert_string_equal(v.rule, cases[i].rule);
        }
    }
    policy_free(p);
}

static void test_none_and_empty(void **state)
{
    (void)state;
    struct question q = {.peer = PEER};
    struct policy_verdict v = {.allow = true};
    decide(NULL, &q, &v);
    assert_false(v.allow);
    assert_int_equal(v.reason, POLICY_NONE_LOADED);
    assert_false(policy_wants_requests(NULL, STR_LIT(ORDERS), 80));

    struct conf_policy *conf = conf_of(NULL, 0);
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    v.allow = true;
    decide(p, &q, &v);
    assert_false(v.allow);
    assert_int_equal(v.reason, POLICY_NO_RULE);
    assert_null(policy_free(p));
    assert_null(policy_free(NULL));
    conf_free(conf);
}

static void test_wants_requests(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {.name = "a", ALLOW, TO, .target = {ORDERS}, .ports = {8080}, .methods = {"GET"}},
        {.name = "b", ALLOW, TO, .ports = {7000}},
        {.name = "c", DENY, TO, .target = {"*/ledger"}, .not_ports = {9000}, .not_paths = {"/x"}},
        /* one rule, two entries: only the second wants requests */
        {.name = "d", ALLOW, TO, .target = {"*/mixed"}, .ports = {1}},
        {.name = "d", ALLOW, TO, .target = {"*/mixed"}, .ports = {2}, .hosts = {"h"}},
    };
    struct conf_policy *conf = conf_of(rows, COUNT(rows));
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    assert_true(policy_wants_requests(p, STR_LIT(ORDERS), 8080));
    assert_false(policy_wants_requests(p, STR_LIT(ORDERS), 7000));
    assert_false(policy_wants_requests(p, STR_LIT("spiffe://a.b/other"), 8080));
    assert_true(policy_wants_requests(p, STR_LIT("spiffe://a.b/ledger"), 1));
    assert_false(policy_wants_requests(p, STR_LIT("spiffe://a.b/ledger"), 9000));
    assert_false(policy_wants_requests(p, STR_LIT("spiffe://a.b/mixed"), 1));
    assert_true(policy_wants_requests(p, STR_LIT("spiffe://a.b/mixed"), 2));
    assert_true(policy_wants_requests(p, STR_NONE, 8080));
    /* entry by entry at the connection as well */
    struct policy_verdict v;
    decide(p, &(struct question){.peer = PEER, .port = 1, .target = "spiffe://a.b/mixed"}, &v);
    assert_true(v.allow);
    decide(p, &(struct question){.peer = PEER, .port = 2, .target = "spiffe://a.b/mixed"}, &v);
    assert_false(v.allow);
    policy_free(p);
    conf_free(conf);
}

static void test_bad_items(void **state)
{
    (void)state;
    static const struct {
        struct row row;
        const char *words;
    } cases[] = {
        {{.name = "r", ALLOW, TO, .paths = {"/a*b"}}, "no pattern"},
        {{.name = "r", ALLOW, TO, .paths = {"*a*"}}, "no pattern"},
        {{.name = "r", ALLOW, TO, .paths = {"**"}}, "no pattern"},
        {{.name = "r", ALLOW, TO, .paths = {""}}, "no pattern"},
        {{.name = "r", ALLOW, TO, .paths = {"/a%"}}, "stands for no byte"},
        {{.name = "r", ALLOW, TO, .paths = {"/a%4"}}, "stands for no byte"},
        {{.name = "r", ALLOW, TO, .paths = {"/a%4*"}}, "stands for no byte"},
        {{.name = "r", ALLOW, TO, .paths = {"/a%zz"}}, "stands for no byte"},
        {{.name = "r", ALLOW, TO, .hosts = {"*."}}, "final dot"},
        {{.name = "r", ALLOW, TO, .methods = {"G*"}}, "no pattern"},
        {{.name = "r", ALLOW, TO, .methods = {"*"}}, "no pattern"},
        {{.name = "r", ALLOW, FROM, .domains = {"*.b"}}, "no pattern"},
        {{.name = "r", ALLOW, FROM, .principals = {"spiffe://*/x"}}, "no pattern"},
        {{.name = "r", ALLOW, .target = {"a*b*"}}, "no pattern"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct conf_policy *conf = conf_of(&cases[i].row, 1);
        struct err err = ERR_INIT;
        assert_null(policy_new(conf, &err));
        assert_non_null(strstr(err.what, cases[i].words));
        assert_string_equal(err.where, "test.yaml:1");
        conf_free(conf);
    }
}

/* Patterns that contain each other: as many as a question can hold, and one more. */
static void test_nesting_limit(void **state)
{
    (void)state;
    for (size_t n = 40; n <= 50; n += 10) {
        struct row *rows = must(calloc(n, sizeof(*rows)));
        char(*texts)[64] = must(calloc(n, sizeof(*texts)));
        char(*names)[16] = must(calloc(n, sizeof(*names)));
        for (size_t i = 0; i < n; i++) {
            memset(texts[i], '/', i + 1);
            texts[i][i + 1] = '*';
            snprintf(names[i], sizeof(names[i]), "r%zu", i);
            rows[i] = (struct row){.name = names[i], ALLOW, TO, .paths = {texts[i]}};
        }
        struct conf_policy *conf = conf_of(rows, n);
        struct err err = ERR_INIT;
        struct policy *p = policy_new(conf, &err);
        if (n == 40) {
            struct policy_verdict v;
            assert_non_null(p);
            char path[64];
            memset(path, '/', sizeof(path));
            struct policy_query q = {
                .http = true, .method = STR_LIT("GET"), .path = {path, sizeof(path)}};
            policy_decide(p, &q, &v);
            assert_string_equal(v.rule, "r0");
        } else {
            assert_null(p);
            assert_int_equal(err.code, ERR_LIMIT);
        }
        policy_free(p);
        conf_free(conf);
        free(rows);
        free(texts);
        free(names);
    }
}

static void test_explain(void **state)
{
    (void)state;
    static const struct {
        struct question q;
        const char *near;
    } cases[] = {
        {{"spiffe://a.b/frontend", "10.0.0.1", "POST", "orders", "/orders", 8080, NULL},
         "rule \"frontend-reads-orders\": methods [GET, HEAD] does not hold POST"},
        {{"spiffe://a.b/ledger", "10.0.0.1", "GET", "orders", "/orders", 8080, NULL},
         "rule \"frontend-reads-orders\": principals [spiffe://a.b/frontend] does not hold "
         "spiffe://a.b/ledger"},
        {{"spiffe://a.b/frontend", "192.168.0.1", "GET", "orders", "/orders", 8080, NULL},
         "rule \"frontend-reads-orders\": ip_blocks [10.0.0.0/8] does not hold 192.168.0.1"},
        {{"spiffe://c/x", "10.0.0.1", NULL, NULL, NULL, 7000, NULL},
         "rule \"ticker\": trust_domains [a.b] does not hold spiffe://c/x"},
        {{NULL, "10.0.0.1", NULL, NULL, NULL, 7000, NULL},
         "rule \"ticker\": trust_domains [a.b]: the peer has no identity"},
        {{"spiffe://a.b/frontend", "10.0.0.1", "GET", NULL, "/orders", 8080, NULL},
         "rule \"frontend-reads-orders\": hosts [orders, orders.example.org]: the request names no "
         "host"},
        {{"spiffe://a.b/frontend", "10.0.0.1", "GET", "orders", "/x y\"\n", 8080, NULL},
         "rule \"frontend-reads-orders\": paths [/orders, /orders/*] does not hold "
         "/x%20y%22%0A"},
        {{"spiffe://a.b/operator", "10.0.0.1", "GET", "x", "/x", 8080, NULL},
         "allowed by rule \"operator\" (line 4)"},
        {{"spiffe://a.b/x", "10.0.0.1", "GET", "x", "/admin", 8080, NULL},
         "denied by rule \"nobody-touches-admin\" (line 3)"},
    };
    struct policy *p = example_policy();
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sockaddr_storage source;
        struct policy_query q = query_of(&cases[i].q, &source);
        char text[400];
        policy_near_miss(p, &q, text, sizeof(text));
        assert_string_equal(text, cases[i].near);
        char cut[10];
        policy_near_miss(p, &q, cut, sizeof(cut));
        assert_int_equal(strlen(cut), 9);
        assert_memory_equal(cut, text, 9);
        struct buf out = BUF_INIT(8192);
        assert_true(policy_explain(p, &q, &out));
        assert_true(buf_append(&out, "", 1));
        const char *explained = (const char *)buf_head(&out);
        const char *after = strchr(text, ':') != NULL ? strchr(text, ':') + 1 : text;
        if (strncmp(text, "rule", 4) == 0) {
            assert_non_null(strstr(explained, after + 1));
        } else {
            assert_non_null(strstr(explained, text));
        }
        buf_reset(&out);
        struct buf small = BUF_INIT(16);
        assert_false(policy_explain(p, &q, &small));
        assert_int_equal(buf_len(&small), 0);
        buf_reset(&small);
    }
    char text[200];
    policy_near_miss(NULL, &(struct policy_query){0}, text, sizeof(text));
    assert_string_equal(text, "denied: no policy is loaded");
    policy_free(p);

    static const struct row only[] = {{.name = "r", ALLOW, .target = {"*/ledger"}}};
    struct conf_policy *conf = conf_of(only, 1);
    p = policy_new(conf, NULL);
    policy_near_miss(p, &(struct policy_query){.target = STR_LIT(ORDERS)}, text, sizeof(text));
    assert_string_equal(text, "no ALLOW rule speaks of target " ORDERS);
    policy_free(p);
    conf_free(conf);
}

/* --- at random ---------------------------------------------------------------------------------*/

static uint64_t rng_state;

static uint32_t below(uint32_t n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 33) % n;
}

/* Few and alike, so that they meet. */
static const char *const ids[] = {
    "spiffe://a.b/x",      "spiffe://a.b/xy",    "spiffe://a.b/x/y", "spiffe://a.bc/x",
    "spiffe://a.b/ns/pay", "spiffe://a.b/ns/pa", "spiffe://c/x",     "spiffe://c/ns/pay/sa/x",
    "spiffe://a.b/orders", "spiffe://a.b",       "spiffe://",        "x",
};
static const char *const id_patterns[] = {
    "*",      "spiffe://a.b/*",    "spiffe://a.b*",       "spiffe://*", "*/x",   "*x",
    "*/sa/x", "spiffe://a.b/ns/*", "spiffe://a.b/ns/pa*", "*y",         "*/pay",
};
static const char *const domains[] = {"a.b", "a.bc", "c", "a", "b"};
static const char *const methods[] = {"GET", "HEAD", "POST", "get"};
static const char *const hosts[] = {"orders", "ORDERS", "orders.", "orders.example.org",
                                    "a.b.c.", "B.C",    "[::1]"};
static const char *const host_patterns[] = {"*", "*.org", "Orders*", "*.C", "*c.", "*.b.c", "o*"};
static const char *const paths[] = {"/",       "/a",   "/a/", "/a/b",   "/admin",
                                    "/adminx", "/a b", "*",   "/x.html"};
static const char *const path_patterns[] = {"*",   "/*",      "/a*",    "/a/*", "*.html",
                                            "*/b", "/admin*", "/a%20*", "*min", "/%61"};
static const char *const blocks[] = {"10.0.0.0/8",          "10.1.0.0/16", "10.1.2.3",
                                     "0.0.0.0/0",           "::/0",        "fd00::/8",
                                     "::ffff:10.1.0.0/112", "fd00::1"};
static const char *const addresses[] = {
    "10.1.2.3", "10.2.0.1", "::ffff:10.1.2.3", "11.0.0.1", "::ffff:10.2.0.1", "fd00::1", "fe80::1"};

static const char *pick(const char *const *a, size_t n_a, const char *const *b, size_t n_b)
{
    uint32_t i = below((uint32_t)(n_a + n_b));
    return i < n_a ? a[i] : b[i - n_a];
}

#define PICK(a, b) pick(a, COUNT(a), b, COUNT(b))

/* 0 to 3 items, most often none. */
static void pick_list(const char **list, const char *const *a, size_t n_a, const char *const *b,
                      size_t n_b, uint32_t rarity)
{
    uint32_t n = below(rarity) == 0 ? 1 + below(3) : 0;
    for (uint32_t i = 0; i < n; i++) {
        list[i] = pick(a, n_a, b, n_b);
    }
}

static void random_row(struct row *r, uint32_t density)
{
    pick_list(r->principals, ids, COUNT(ids), id_patterns, COUNT(id_patterns), density);
    pick_list(r->not_principals, ids, COUNT(ids), id_patterns, COUNT(id_patterns), 8);
    pick_list(r->domains, domains, COUNT(domains), NULL, 0, 4);
    pick_list(r->not_domains, domains, COUNT(domains), NULL, 0, 10);
    pick_list(r->blocks, blocks, COUNT(blocks), NULL, 0, 4);
    pick_list(r->not_blocks, blocks, COUNT(blocks), NULL, 0, 10);
    pick_list(r->methods, methods, COUNT(methods), NULL, 0, 4);
    pick_list(r->not_methods, methods, COUNT(methods), NULL, 0, 10);
    pick_list(r->hosts, hosts, COUNT(hosts), host_patterns, COUNT(host_patterns), 4);
    pick_list(r->not_hosts, hosts, COUNT(hosts), host_patterns, COUNT(host_patterns), 10);
    pick_list(r->paths, paths, COUNT(paths), path_patterns, COUNT(path_patterns), density);
    pick_list(r->not_paths, paths, COUNT(paths), path_patterns, COUNT(path_patterns), 10);
    for (uint32_t i = 0, n = below(3) == 0 ? 1 + below(3) : 0; i < n; i++) {
        r->ports[i] = (uint16_t)(80 + below(4));
    }
    if (below(10) == 0) {
        r->not_ports[0] = (uint16_t)(80 + below(4));
    }
    r->from = below(5) > 0;
    r->to = below(5) > 0;
}

static struct conf_policy *random_conf(void)
{
    enum { ROWS_MAX = 60 };
    static struct row rows[ROWS_MAX];
    static char names[ROWS_MAX][16];
    uint32_t n = below(4) == 0 ? below(ROWS_MAX) : below(8);
    uint32_t density = 1 + below(4);
    memset(rows, 0, sizeof(rows));
    for (uint32_t i = 0; i < n; i++) {
        bool same = i > 0 && below(4) == 0;
        random_row(&rows[i], density);
        if (same) {
            rows[i].name = rows[i - 1].name;
            continue;
        }
        snprintf(names[i], sizeof(names[i]), "r%u", i);
        rows[i].name = names[i];
        rows[i].action = below(4) == 0 ? CONF_DENY : CONF_ALLOW;
        pick_list(rows[i].target, ids, COUNT(ids), id_patterns, COUNT(id_patterns), 3);
    }
    return conf_of(rows, n);
}

static struct question random_question(void)
{
    return (struct question){
        .peer = below(8) == 0 ? NULL : PICK(ids, ids),
        .source = below(8) == 0 ? NULL : PICK(addresses, addresses),
        .method = below(3) == 0 ? NULL : PICK(methods, methods),
        .host = below(8) == 0 ? NULL : PICK(hosts, hosts),
        .path = PICK(paths, paths),
        .port = (uint16_t)(79 + below(6)),
        .target = below(10) == 0 ? "" : PICK(ids, ids),
    };
}

static const struct conf_rule *rule_named(const struct conf_policy *conf, const char *text)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        char start[40];
        snprintf(start, sizeof(start), "rule \"%s\":", conf->rules[i].name);
        if (strncmp(text, start, strlen(start)) == 0) {
            return &conf->rules[i];
        }
    }
    return NULL;
}

/* What is said of a denial is true: an ALLOW rule, and one that does fail. */
static void check_near_miss(const struct conf_policy *conf, const struct policy *p,
                            const struct policy_query *q)
{
    char text[2048];
    char again[2048];
    policy_near_miss(p, q, text, sizeof(text));
    policy_near_miss(p, q, again, sizeof(again));
    assert_string_equal(text, again);
    if (strncmp(text, "rule", 4) != 0) {
        assert_non_null(strstr(text, "no ALLOW rule speaks of target"));
        for (size_t i = 0; i < conf->n_rules; i++) {
            struct conf_rule only_target = conf->rules[i];
            only_target.n_from = only_target.n_to = 0;
            assert_true(only_target.action == CONF_DENY ||
                        policy_ref_failed_clauses(&only_target, q) > 0);
        }
        return;
    }
    const struct conf_rule *rule = rule_named(conf, text);
    if (rule == NULL) {
        fail_msg("no such rule: %s", text);
        return;
    }
    assert_int_equal(rule->action, CONF_ALLOW);
    assert_true(policy_ref_failed_clauses(rule, q) > 0);
}

static void test_against_reference(void **state)
{
    (void)state;
    enum { CASES = 200000, CASES_EACH = 50, BUDGET_S = 3 };
    const char *text = getenv("POSTERN_TEST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 20240607;
    rng_state = seed != 0 ? seed : 1;
    clock_t end = clock() + (clock_t)BUDGET_S * CLOCKS_PER_SEC;
    unsigned done = 0;
    unsigned outcomes[4] = {0};
    while (done < CASES && clock() < end) {
        struct conf_policy *conf = random_conf();
        struct err err = ERR_INIT;
        struct policy *p = policy_new(conf, &err);
        assert_non_null(p);
        for (unsigned i = 0; i < CASES_EACH; i++, done++) {
            struct question question = random_question();
            struct sockaddr_storage source;
            struct policy_query q = query_of(&question, &source);
            struct policy_verdict v = {0};
            struct policy_verdict ref = {0};
            policy_decide(p, &q, &v);
            policy_ref_decide(conf, &q, &ref);
            if (v.allow != ref.allow || v.rule_line != ref.rule_line) {
                fail_msg("seed %llu, case %u: %s by %s, reference %s by %s",
                         (unsigned long long)seed, done, v.allow ? "allow" : "deny",
                         v.rule != NULL ? v.rule : "none", ref.allow ? "allow" : "deny",
                         ref.rule != NULL ? ref.rule : "none");
            }
            assert_same_verdict(&v, &ref);
            assert_int_equal(policy_wants_requests(p, q.target, q.port),
                             policy_ref_wants_requests(conf, q.target, q.port));
            outcomes[v.reason]++;
            if (v.reason == POLICY_NO_RULE && i % 4 == 0) {
                check_near_miss(conf, p, &q);
            }
        }
        policy_free(p);
        conf_free(conf);
    }
    print_message("seed %llu: %u cases: %u allowed, %u denied by rule, %u by none\n",
                  (unsigned long long)seed, done, outcomes[POLICY_ALLOWED],
                  outcomes[POLICY_DENIED_BY_RULE], outcomes[POLICY_NO_RULE]);
    /* All three happen often, or the comparison compares nothing. */
    assert_true(outcomes[POLICY_ALLOWED] > done / 50);
    assert_true(outcomes[POLICY_DENIED_BY_RULE] > done / 50);
    assert_true(outcomes[POLICY_NO_RULE] > done / 50);
}

/* A rule with more pairs of entries, and lists, than are multiplied out. */
static void test_large_rule(void **state)
{
    (void)state;
    enum { N = 1500 };
    char(*texts)[40] = must(calloc(N, sizeof(texts[0])));
    struct conf_policy_from *from = must(calloc(N, sizeof(*from)));
    struct conf_policy_to *to = must(calloc(N, sizeof(*to)));
    char **items = must(calloc(N, sizeof(*items)));
    char *methods_items[2] = {(char[]){"GET"}, (char[]){"PUT"}};
    for (size_t i = 0; i < N; i++) {
        snprintf(texts[i], sizeof(texts[i]), "spiffe://a.b/%zu", i);
        items[i] = texts[i];
        from[i].principals = (struct conf_strings){&items[i], 1};
        to[i].paths = (struct conf_strings){&items[i], 1}; /* any text will do as a path */
        to[i].methods = (struct conf_strings){methods_items, 2};
    }
    struct conf_policy_from wide_from = {.principals = {items, N}};
    struct conf_policy_to wide_to = {.paths = {items, N}, .methods = {methods_items, 2}};
    struct conf_rule rules[] = {
        {.name = (char[]){"entries"}, .from = from, .n_from = N, .to = to, .n_to = N},
        {.name = (char[]){"lists"}, .from = &wide_from, .n_from = 1, .to = &wide_to, .n_to = 1},
    };
    struct policy_query q = {.target = STR_LIT(ORDERS), .http = true, .host = STR_LIT("h")};
    for (size_t r = 0; r < COUNT(rules); r++) {
        struct conf_policy conf = {.rules = &rules[r], .n_rules = 1};
        struct policy *p = policy_new(&conf, NULL);
        assert_non_null(p);
        for (size_t i = 0; i < N; i += 7) {
            struct policy_verdict v;
            q.peer = str_of(texts[i]);
            q.path = str_of(texts[N - 1 - i]);
            q.method = STR_LIT("PUT");
            policy_decide(p, &q, &v);
            assert_true(v.allow);
            q.method = STR_LIT("POST");
            policy_decide(p, &q, &v);
            assert_false(v.allow);
            q.method = STR_LIT("PUT");
            q.path = STR_LIT("spiffe://a.b/x");
            policy_decide(p, &q, &v);
            assert_false(v.allow);
        }
        policy_free(p);
    }
    free(texts);
    free(from);
    free(to);
    free(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clauses),           cmocka_unit_test(test_order),
        cmocka_unit_test(test_none_and_empty),    cmocka_unit_test(test_wants_requests),
        cmocka_unit_test(test_bad_items),         cmocka_unit_test(test_nesting_limit),
        cmocka_unit_test(test_explain),           cmocka_unit_test(test_large_rule),
        cmocka_unit_test(test_against_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
