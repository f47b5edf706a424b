/* policy: level 2 of the language, from the text of a file to a verdict: the attack cases of
 * docs/authorization.md. */
#include <postern/policy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants these first */
#include <cmocka.h>

enum { NOW = 1800000000 };

/* A question: of a GET for /x from spiffe://td/ns/a/sa/b, but for what it says. */
struct question {
    const char *peer, *method, *path, *query; /* NULL: as above, and no query */
    bool no_peer, grpc;
    const char *headers[4][2];
    const char *claims[4][2]; /* [0][0] NULL: there is no token */
};

static const struct row {
    const char *rule; /* behind its action */
    struct question q;
    bool allow, deny; /* whether ALLOW lets it in, and DENY keeps it out */
} rows[] = {
/* globs */
#define GLOB "from: [{principals: ['spiffe://td/ns/*/sa/web']}]"
    {GLOB, {.peer = "spiffe://td/ns/x/sa/web"}, true, true},
    {GLOB, {.peer = "spiffe://td/ns/x/y/sa/web"}, false, false},
    {GLOB, {.peer = "spiffe://evil/ns/x/sa/web"}, false, false},
    {GLOB, {.peer = "uri:spiffe://td/ns/x/sa/web"}, false, false},
    {"from: [{principals: ['spiffe://td/a/**']}]", {.peer = "spiffe://td/a/b/c"}, true, true},
    {"from: [{principals: ['spiffe://td/a/**']}]", {.peer = "spiffe://td/a"}, true, true},
    {"from: [{principals: ['spiffe://td/a/**']}]", {.peer = "spiffe://td/ab"}, false, false},
/* namespaces */
#define PROD "from: [{namespaces: [prod]}]"
#define NOT_PROD "from: [{not_namespaces: [prod]}]"
    {PROD, {.peer = "spiffe://td/ns/prod/sa/web"}, true, true},
    {PROD, {.peer = "spiffe://td/ns/prod/sa/web/extra"}, false, false},
    {PROD, {.peer = "spiffe://td/x/ns/prod/sa/web"}, false, false},
    {PROD, {.peer = "spiffe://td/ns/product/sa/web"}, false, false},
    {PROD, {.no_peer = true}, false, false},
    {NOT_PROD, {.peer = "spiffe://td/ns/test/sa/web"}, true, true},
    {NOT_PROD, {.peer = "spiffe://td/other"}, false, true},
    {NOT_PROD, {.no_peer = true}, false, true},
    {"from: [{service_accounts: ['we*']}]", {.peer = "spiffe://td/ns/a/sa/web"}, true, true},
    {"from: [{service_accounts: ['we*']}]", {.peer = "spiffe://td/ns/web/sa/a"}, false, false},
/* templates */
#define ORDER "to: [{paths: ['/orders/{}']}]"
    {ORDER, {.path = "/orders/7"}, true, true},
    {ORDER, {.path = "/orders/"}, false, false},
    {ORDER, {.path = "/orders//x"}, false, false},
    {ORDER, {.path = "/orders/a/b"}, false, false},
    {"to: [{paths: ['/orders/{**}']}]", {.path = "/orders/a/b"}, true, true},
    {"to: [{paths: ['/files/{**}']}]", {.path = "/files"}, false, false},
    {"to: [{paths: ['/files/{**}']}]", {.path = "/files/"}, true, true},
    {"to: [{paths: ['/a/{}/{**}/z']}]", {.path = "/a/1/2/3/z"}, true, true},
    {"to: [{paths: ['/a/{}/{**}/z']}]", {.path = "/a/z"}, false, false},
/* headers */
#define ROLE "to: [{headers: [{name: x-role, values: [user, 'ops-*']}]}]"
#define NOT_ROLE "to: [{not_headers: [{name: x-role, values: [user]}]}]"
    {ROLE, {.headers = {{"x-role", "user"}}}, true, true},
    {ROLE, {.headers = {{"x-role", "user"}, {"x-role", "admin"}}}, false, true},
    {ROLE, {.headers = {{"x-role", "user"}, {"x-role", "ops-1"}}}, true, true},
    {ROLE, {.headers = {{"x-role", "user, ops-1"}}}, false, false},
    {ROLE, {.headers = {{"x-rolex", "user"}}}, false, false},
    {ROLE, {.method = NULL}, false, false},
    {NOT_ROLE, {.headers = {{"x-role", "admin"}}}, true, true},
    {NOT_ROLE, {.headers = {{"x-role", "user"}}}, false, false},
    {NOT_ROLE, {.headers = {{"x-role", "user"}, {"x-role", "admin"}}}, false, true},
    {NOT_ROLE, {.method = NULL}, false, true},
    {"to: [{headers: [{name: a, present: true}]}]", {.headers = {{"a", ""}}}, true, true},
    {"to: [{headers: [{name: a, present: true}]}]", {.method = NULL}, false, false},
    {"to: [{not_headers: [{name: a, present: true}]}]", {.method = NULL}, true, true},
    {"to: [{not_headers: [{name: a, present: true}]}]", {.headers = {{"a", ""}}}, false, false},
    {"to: [{headers: [{name: a, present: true}, {name: b, values: ['1']}]}]",
     {.headers = {{"a", ""}, {"b", "2"}}},
     false,
     false},
    {"to: [{headers: [{name: a, present: true}, {name: b, values: ['1']}]}]",
     {.headers = {{"a", ""}, {"b", "1"}}},
     true,
     true},
/* parameters */
#define DEBUG "to: [{query: [{name: debug, values: ['1']}]}]"
    {DEBUG, {.query = "debug=1"}, true, true},
    {DEBUG, {.query = "a=b&debug=1&c"}, true, true},
    {DEBUG, {.query = "debug=0&debug=1"}, false, true},
    {DEBUG, {.query = "d%65bug=%31"}, true, true},
    {DEBUG, {.query = "debug=1;a=2"}, false, true},
    {DEBUG, {.query = "a=%&b=1"}, false, true},
    {DEBUG, {.query = "a=%zz"}, false, true},
    {DEBUG, {.query = "xdebug=1&debug=11"}, false, false},
    {DEBUG, {.method = NULL}, false, false},
    {"to: [{query: [{name: 'a b', values: ['c d']}]}]", {.query = "a+b=c%20d"}, true, true},
    {"to: [{query: [{name: a, values: ['*']}]}]", {.query = "a"}, true, true},
/* gRPC */
#define DROP "to: [{grpc: [admin.Users/Drop]}]"
    {DROP, {.method = "POST", .path = "/admin.Users/Drop", .grpc = true}, true, true},
    {DROP, {.method = "POST", .path = "/admin.Users/Drop"}, false, true},
    {DROP, {.method = "POST", .path = "/admin.Users/Dropx", .grpc = true}, false, false},
    {DROP, {.method = "POST", .path = "/x/admin.Users/Drop", .grpc = true}, false, false},
    {"to: [{grpc: ['admin.Users/*']}]",
     {.method = "POST", .path = "/admin.Users/Drop", .grpc = true},
     true,
     true},
    {"to: [{grpc: ['admin.Users/*']}]",
     {.method = "POST", .path = "/admin.Users2/Drop", .grpc = true},
     false,
     false},
    {"to: [{not_grpc: ['admin.Users/*']}]", {.path = "/index.html"}, false, true},
/* claims */
#define IDP "from: [{claims: [{name: iss, values: ['https://idp']}]}]"
#define NOT_IDP "from: [{not_claims: [{name: iss, values: ['https://idp']}]}]"
    {IDP, {.claims = {{"iss", "https://idp"}}}, true, true},
    {IDP, {.claims = {{"iss", "https://idp/"}}}, false, false},
    {IDP, {.method = NULL}, false, false},
    {NOT_IDP, {.claims = {{"iss", "https://other"}}}, true, true},
    {NOT_IDP, {.claims = {{"sub", "x"}}}, false, true},
    {NOT_IDP, {.method = NULL}, false, true},
    {"from: [{claims: [{name: groups, values: [admin]}]}]",
     {.claims = {{"groups", "dev"}, {"groups", "admin"}}},
     true,
     true},
    {"from: [{not_claims: [{name: groups, values: [admin]}]}]",
     {.claims = {{"groups", "dev"}, {"groups", "admin"}}},
     false,
     false},
    {"from: [{claims: [{name: a.b, values: [x]}]}]", {.claims = {{"a.b", "x"}}}, true, true},
    {"from: [{claims: [{name: a.b, values: [x]}]}]", {.claims = {{"a\\.b", "x"}}}, false, false},
    {"from: [{claims: [{name: 'a\\.b', values: [x]}]}]", {.claims = {{"a\\.b", "x"}}}, true, true},
    /* how a rule counts */
    {"mode: dry-run", {.method = NULL}, false, false},
    {"expires: 2027-01-15T08:00:00Z", {.method = NULL}, false, false}, /* NOW itself */
    {"expires: 2027-01-15T08:00:01Z", {.method = NULL}, true, true},
    {"role: q", {.path = "/role"}, true, true},
    {"role: q", {.path = "/x"}, false, false},
    {"role: q, to: [{methods: [PUT]}]", {.path = "/role"}, false, false},
};

static struct policy *compile(const char *action, const char *rule)
{
    char text[1000], said[1200] = "";
    struct conf_policy *conf = NULL;
    struct conf_diag *diag = conf_diag_new();
    struct err err = ERR_INIT;
    int n = snprintf(text, sizeof(text),
                     "kind: Policy\nlevel: 2\nroles: [{name: q, to: [{paths: [/role]}]}]\nrules:\n"
                     "- {name: r, action: %s, %s}\n%s",
                     action, rule,
                     strcmp(action, "ALLOW") == 0 ? "" : "- {name: all, action: ALLOW}\n");
    if (conf_parse_policy("p", text, (size_t)n, diag, &conf) != 0) {
        fail_msg("%s: %s", text, err_text(conf_diag_get(diag, 0), said, sizeof(said)));
    }
    struct policy *p = policy_new(conf, &err);
    if (p == NULL) {
        fail_msg("%s: %s", text, err.what);
    }
    conf_policy_free(conf);
    conf_diag_free(diag);
    return p;
}

static size_t fill(const char *const from[4][2], struct policy_header to[4])
{
    size_t n = 0;
    for (; n < 4 && from[n][0] != NULL; n++) {
        to[n] = (struct policy_header){str_of(from[n][0]), str_of(from[n][1])};
    }
    return n;
}

static struct policy_verdict decide(const struct policy *p, const struct question *q)
{
    struct policy_header headers[4], claims[4];
    const struct policy_headers h = {fill(q->headers, headers), headers};
    const struct policy_claims c = {fill(q->claims, claims), claims};
    struct policy_verdict v;
    const struct policy_query query = {
        .target = STR_LIT("spiffe://td/own"),
        .peer = q->no_peer        ? STR_NONE
                : q->peer != NULL ? str_of(q->peer)
                                  : STR_LIT("spiffe://td/ns/a/sa/b"),
        .port = 80,
        .now_s = NOW,
        .http = true,
        .grpc = q->grpc,
        .method = q->method != NULL ? str_of(q->method) : STR_LIT("GET"),
        .host = STR_LIT("h"),
        .path = q->path != NULL ? str_of(q->path) : STR_LIT("/x"),
        .query = str_of(q->query != NULL ? q->query : ""),
        .headers = &h,
        .claims = c.n > 0 ? &c : NULL,
    };
    policy_decide(p, &query, &v);
    return v;
}

static void test_rows(void **state)
{
    bool ok = true;
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct policy *allow = compile("ALLOW", rows[i].rule);
        struct policy *deny = compile("DENY", rows[i].rule);
        bool in = decide(allow, &rows[i].q).allow;
        bool out = !decide(deny, &rows[i].q).allow;
        if (in != rows[i].allow || out != rows[i].deny) {
            print_error("case %zu, %s: allowed %d, denied %d\n", i, rows[i].rule, in, out);
            ok = false;
        }
        policy_free(allow);
        policy_free(deny);
    }
    assert_true(ok);
}

/* AUDIT marks, and decides nothing; on trial it marks nothing. */
static void test_audit(void **state)
{
    const struct question q = {.path = "/x"};
    (void)state;
    struct policy *p = compile("AUDIT", "to: [{paths: [/x]}]");
    struct policy_verdict v = decide(p, &q);
    assert_true(v.allow);
    assert_string_equal(v.rule, "all");
    assert_string_equal(v.audit, "r");
    policy_free(p);
    p = compile("AUDIT", "to: [{paths: [/y]}]");
    assert_null(decide(p, &q).audit);
    policy_free(p);
    p = compile("AUDIT", "mode: dry-run, to: [{paths: [/x]}]");
    assert_null(decide(p, &q).audit);
    policy_free(p);
}

/* What a rule on trial would have said, and what a rule is for. */
static void test_shadow(void **state)
{
    const struct question q = {.path = "/x"};
    (void)state;
    struct policy *p = compile("DENY", "mode: dry-run, reason: why");
    struct policy_verdict v = decide(p, &q);
    assert_true(v.allow);
    assert_int_equal(v.shadow, POLICY_SHADOW_DENY);
    assert_string_equal(v.shadow_rule, "r");
    policy_free(p);
    p = compile("ALLOW", "reason: why");
    v = decide(p, &q);
    assert_true(v.allow);
    assert_string_equal(v.rule_reason, "why");
    assert_int_equal(v.shadow, POLICY_SHADOW_SAME);
    policy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_audit),
        cmocka_unit_test(test_shadow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
