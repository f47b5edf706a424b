/* policy: the attack cases of docs/authorization.md, limits and explanations. */
#include <postern/policy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_ref.h"
#include "policy_rows.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- one rule, one question --------------------------------------------------------------------*/

/* Does this one row match? With action DENY an ALLOW for everyone stands behind it. */
static bool row_matches(const struct row *row, const struct question *question)
{
    struct row rows[2] = {*row, {.name = "all", .action = CONF_ALLOW}};
    rows[0].name = "row";
    struct conf_policy *conf = policy_rows_conf(rows, row->action == CONF_DENY ? 2 : 1);
    struct err err = ERR_INIT;
    struct policy *p = policy_new(conf, &err);
    assert_non_null(p);
    struct sockaddr_storage source;
    struct policy_query q = policy_rows_query(question, &source);
    struct policy_verdict v = {0};
    struct policy_verdict ref = {0};
    policy_decide(p, &q, &v);
    policy_ref_decide(conf, &q, &ref);
    policy_rows_same_verdict(&v, &ref);
    bool matches = v.rule != NULL && strcmp(v.rule, "row") == 0;
    policy_free(p);
    policy_rows_free(conf);
    return matches;
}

#define ALLOW .action = CONF_ALLOW
#define DENY .action = CONF_DENY
#define FROM .from = true
#define TO .to = true

static const struct {
    struct row row;
    struct question q;
    bool matches;
} clause_cases[] = {
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

    /* peers of an ordinary CA: the name that let them in, and no SPIFFE ID */
    {{ALLOW, FROM, .principals = {"spiffe://a.b/ops"}}, {.peer = "uri:spiffe://a.b/ops"}, false},
    {{ALLOW, FROM, .principals = {"*/ops"}}, {.peer = "uri:spiffe://a.b/ops"}, false},
    {{ALLOW, FROM, .domains = {"a.b"}}, {.peer = "uri:spiffe://a.b/ops"}, false},
    {{ALLOW, FROM, .not_domains = {"a.b"}}, {.peer = "uri:spiffe://c.d/ops"}, false},
    {{DENY, FROM, .not_domains = {"a.b"}}, {.peer = "uri:spiffe://a.b/ops"}, true},
    {{ALLOW, FROM, .principals = {"uri:spiffe://a.b/ops"}}, {.peer = "spiffe://a.b/ops"}, false},
    {{ALLOW, FROM, .principals = {"uri:spiffe://a.b/ops"}}, {.peer = "uri:spiffe://a.b/ops"}, true},
    {{ALLOW, FROM, .principals = {"dns:*"}}, {.peer = "dns:db.example"}, true},
    {{ALLOW, FROM, .principals = {"dns:*"}}, {.peer = "cn:dns:db"}, false},
    {{ALLOW, FROM, .principals = {"*"}}, {.peer = "cn:Anna"}, true},

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
    {{ALLOW, FROM, .blocks = {"10.0.0.0/8"}}, {.peer = PEER, .source = "::ffff:10.1.2.3"}, true},
    {{ALLOW, FROM, .blocks = {"::ffff:10.0.0.0/104"}}, {.peer = PEER, .source = "10.1.2.3"}, true},
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
    {{DENY, TO, .hosts = {"admin.internal"}}, {.peer = PEER, .method = "GET", .path = "/"}, true},
    {{DENY, TO, .not_hosts = {"orders"}}, {.peer = PEER, .method = "GET", .path = "/"}, true},
    {{ALLOW, TO, .hosts = {"*"}}, {.peer = PEER, .method = "GET", .path = "/"}, false},
    {{ALLOW, TO, .not_hosts = {"admin"}}, {.peer = PEER, .method = "GET", .path = "/"}, false},

    /* paths */
    {{DENY, TO, .paths = {"/admin*"}}, {.peer = PEER, .method = "GET", .path = "/ADMIN"}, false},
    {{DENY, TO, .paths = {"/admin*"}}, {.peer = PEER, .method = "GET", .path = "/adminx"}, true},
    {{DENY, TO, .paths = {"/admin*"}}, {.peer = PEER, .method = "GET", .path = "/admin"}, true},
    {{DENY, TO, .paths = {"/admin/*"}}, {.peer = PEER, .method = "GET", .path = "/admin"}, false},
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
    {{ALLOW, TO, .paths = {"*.html"}}, {.peer = PEER, .method = "GET", .path = "/x.html"}, true},
    {{ALLOW, TO, .paths = {"*.html"}}, {.peer = PEER, .method = "GET", .path = ".htm"}, false},
    {{ALLOW, TO, .paths = {"/*"}}, {.peer = PEER, .method = "OPTIONS", .path = "*"}, false},
    {{ALLOW, TO, .paths = {"*"}}, {.peer = PEER, .method = "OPTIONS", .path = "*"}, true},
};

static void test_clauses(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(clause_cases); i++) {
        if (row_matches(&clause_cases[i].row, &clause_cases[i].q) != clause_cases[i].matches) {
            fail_msg("case %zu: expected %s", i, clause_cases[i].matches ? "a match" : "no match");
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
    struct conf_policy *conf = policy_rows_conf(example, COUNT(example));
    struct err err = ERR_INIT;
    struct policy *p = policy_new(conf, &err);
    assert_non_null(p);
    policy_rows_free(conf); /* nothing of it is kept */
    return p;
}

static void decide(const struct policy *p, const struct question *question,
                   struct policy_verdict *ret)
{
    struct sockaddr_storage source;
    struct policy_query q = policy_rows_query(question, &source);
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

    struct conf_policy *conf = policy_rows_conf(NULL, 0);
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    v.allow = true;
    decide(p, &q, &v);
    assert_false(v.allow);
    assert_int_equal(v.reason, POLICY_NO_RULE);
    assert_null(policy_free(p));
    assert_null(policy_free(NULL));
    policy_rows_free(conf);
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
    struct conf_policy *conf = policy_rows_conf(rows, COUNT(rows));
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
    policy_rows_free(conf);
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
        struct conf_policy *conf = policy_rows_conf(&cases[i].row, 1);
        struct err err = ERR_INIT;
        assert_null(policy_new(conf, &err));
        assert_non_null(strstr(err.what, cases[i].words));
        assert_string_equal(err.where, "test.yaml:1");
        policy_rows_free(conf);
    }
}

/* Patterns that contain each other: as many as a question can hold, and one more. */
static void test_nesting_limit(void **state)
{
    (void)state;
    for (size_t n = 40; n <= 50; n += 10) {
        struct row *rows = policy_rows_must(calloc(n, sizeof(*rows)));
        char(*texts)[64] = policy_rows_must(calloc(n, sizeof(*texts)));
        char(*names)[16] = policy_rows_must(calloc(n, sizeof(*names)));
        for (size_t i = 0; i < n; i++) {
            memset(texts[i], '/', i + 1);
            texts[i][i + 1] = '*';
            snprintf(names[i], sizeof(names[i]), "r%zu", i);
            rows[i] = (struct row){.name = names[i], ALLOW, TO, .paths = {texts[i]}};
        }
        struct conf_policy *conf = policy_rows_conf(rows, n);
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
        policy_rows_free(conf);
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
        {{"spiffe://a.b/frontend", "10.0.0.1", NULL, NULL, NULL, 8080, NULL},
         "rule \"frontend-reads-orders\": methods [GET, HEAD] speaks of requests, and this is a "
         "connection: is the port declared http?"},
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
        struct policy_query q = policy_rows_query(&cases[i].q, &source);
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
    struct conf_policy *conf = policy_rows_conf(only, 1);
    p = policy_new(conf, NULL);
    policy_near_miss(p, &(struct policy_query){.target = STR_LIT(ORDERS)}, text, sizeof(text));
    assert_string_equal(text, "no ALLOW rule speaks of target " ORDERS);
    policy_free(p);
    policy_rows_free(conf);
}

/* A rule with more pairs of entries, and lists, than are multiplied out. */
static void test_large_rule(void **state)
{
    (void)state;
    enum { N = 1500 };
    char(*texts)[40] = policy_rows_must(calloc(N, sizeof(texts[0])));
    struct conf_policy_from *from = policy_rows_must(calloc(N, sizeof(*from)));
    struct conf_policy_to *to = policy_rows_must(calloc(N, sizeof(*to)));
    char **items = policy_rows_must(calloc(N, sizeof(*items)));
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
        cmocka_unit_test(test_clauses),        cmocka_unit_test(test_order),
        cmocka_unit_test(test_none_and_empty), cmocka_unit_test(test_wants_requests),
        cmocka_unit_test(test_bad_items),      cmocka_unit_test(test_nesting_limit),
        cmocka_unit_test(test_explain),        cmocka_unit_test(test_large_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
