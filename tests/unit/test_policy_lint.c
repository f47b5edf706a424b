/* policy_tools: doubts about a policy: each with its place, and none where there is nothing. That
 * what is reported can be removed is held at random in test_policy_space. */
#include <postern/policy_tools.h>

#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "kind: Policy\nlevel: 2\nrules:\n"
#define FROM "from: [{principals: [\"spiffe://a.b/x\"]}]"
#define NOW 1790000000 /* in 2026 */

struct beside {
    struct conf_proxy *proxy;
    struct conf_mesh *mesh;
};

static void lint(const char *text, const struct beside *b, bool json, char *ret, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct policy_lint_options o = {.now_s = NOW};
    struct policy_findings found;
    struct buf out = BUF_INIT(1 << 20);
    if (b != NULL) {
        o.proxy = b->proxy;
        o.mesh = b->mesh;
    }
    if (conf_parse_policy("p.yaml", text, strlen(text), diag, &conf) != 0) {
        fail_msg("%s: %s", text, conf_diag_get(diag, 0)->what);
    }
    policy_lint(conf, str_of(text), &o, &found);
    assert_true(policy_findings_print(&found, "p.yaml", json, &out));
    snprintf(ret, size, "%.*s", (int)buf_len(&out),
             buf_len(&out) > 0 ? (const char *)buf_head(&out) : "");
    policy_findings_deinit(&found);
    conf_policy_free(conf);
    conf_diag_free(diag);
    buf_reset(&out);
}

static void test_doubts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *said; /* the whole; NULL: nothing */
    } cases[] = {
        {HEAD "  - {name: a, action: ALLOW, " FROM "}\n", NULL},
        {HEAD "  - {name: a, action: ALLOW}\n",
         "p.yaml:4:5: rule 'a': allows anyone, callers without an identity included; say in 'from' "
         "who may call; a path of health checks may be meant for everybody (anyone)\n"},
        {HEAD "  - name: a\n    action: ALLOW\n    from:\n      - principals: [\"*\"]\n",
         "p.yaml:7:9: rule 'a': allows every identity that is trusted at all; name trust domains, "
         "namespaces or workloads (anyone)\n"},
        {HEAD "  - {name: a, action: DENY}\n", NULL},
        {HEAD "  - {name: a, action: ALLOW, from: [{principals: [\"spiffe://a.b/ns/pay*\"]}]}\n",
         "p.yaml:4:51: rule 'a': 'spiffe://a.b/ns/pay*' allows every name that goes on in any way, "
         "'spiffe://a.b/ns/payx' too; write 'spiffe://a.b/ns/pay/*', or the whole names "
         "(wide-pattern)\n"},
        {HEAD "  - {name: a, action: ALLOW, from: [{principals: [\"spiffe://a.b/ns/pay/*\"]}]}\n",
         NULL},
        {HEAD "  - {name: a, action: ALLOW, from: [{principals: [\"*/sa/ops\"]}]}\n",
         "p.yaml:4:51: rule 'a': '*/sa/ops' allows workloads of every trust domain that is "
         "trusted; "
         "put 'trust_domains' beside it (wide-pattern)\n"},
        {HEAD "  - {name: a, action: ALLOW, from: [{principals: [\"*/sa/ops\"], trust_domains: "
              "[a.b]}]}\n",
         NULL},
        {HEAD "  - {name: a, action: DENY, to: [{paths: [\"/admin*\"]}]}\n", NULL},
        {HEAD "  - {name: a, action: ALLOW, " FROM ", expires: 2026-01-01}\n",
         "p.yaml:4:5: rule 'a': ended at 2026-01-02T00:00:00Z: it is not there; remove it "
         "(expired)\n"},
        {HEAD "  - {name: a, action: DENY, " FROM ", expires: 2030-01-01}\n",
         "p.yaml:4:5: rule 'a': denies until 2030-01-02T00:00:00Z: what it denies may be allowed "
         "then; let the ALLOW rules end instead, if something is to be closed (deny-ends)\n"},
        {HEAD
         "  - {name: a, action: ALLOW, from: [{principals: [\"spiffe://a.b/x\"], trust_domains: "
         "[c]}]}\n",
         "p.yaml:4:5: rule 'a': can never match: no entry's clauses hold together; remove it, or "
         "one of the clauses (dead)\n"},
        {HEAD "  - {name: a, action: ALLOW, " FROM "}\n"
              "  - {name: d, action: DENY, " FROM "}\n",
         "p.yaml:4:5: rule 'a': allows nothing: all of it is denied by rule 'd'; remove it, or "
         "make "
         "what denies narrower (contradictory)\n"},
        {HEAD "  - {name: a, action: ALLOW, " FROM "}\n"
              "  - {name: b, action: ALLOW, " FROM ", to: [{ports: [80]}]}\n",
         "p.yaml:5:5: rule 'b': allows nothing that is not decided by rule 'a' already; remove it "
         "(shadowed)\n"},
        /* one that ends covers none that stays */
        {HEAD "  - {name: a, action: ALLOW, " FROM ", expires: 2030-01-01}\n"
              "  - {name: b, action: ALLOW, " FROM ", to: [{ports: [80]}]}\n",
         NULL},
        {HEAD "  - {name: a, action: ALLOW, " FROM ", mode: dry-run}\n"
              "  - {name: b, action: ALLOW, " FROM ", to: [{ports: [80]}]}\n",
         NULL},
        {"kind: Policy\nlevel: 2\nroles:\n  - {name: r, to: [{ports: [80]}]}\nrules: []\n",
         "p.yaml:4: no rule has the role 'r'; remove it (unused-role)\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char said[4000];
        lint(cases[i].text, NULL, false, said, sizeof(said));
        assert_string_equal(said, cases[i].said != NULL ? cases[i].said : "");
    }
}

/* A gateway's ports are those that its listeners lead to, or of a Unix socket their own. */
static void test_gateway_ports(void **state)
{
    (void)state;
    static const char gateway[] =
        "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/s}\npolicy: p\nlisteners:\n"
        "  - {name: a, type: server, address: 127.0.0.1:1, to: 127.0.0.1:5432}\n"
        "  - {name: b, type: server, address: \"[::1]:6379\", to: unix:/redis}\n"
        "  - {name: c, type: server, address: 127.0.0.1:3, to: 127.0.0.1:80, protocol: http}\n"
        "  - {name: d, type: server, address: 127.0.0.1:4, to: db.example:80}\n"
        "  - {name: e, type: server, address: 127.0.0.1:5, to: db.example:3306}\n"
        "  - {name: f, type: client, address: 127.0.0.1:6, to: 127.0.0.1:7, identities: "
        "[\"spiffe://a.b/x\"]}\n";
    static const struct {
        unsigned port;
        bool tcp;
    } cases[] = {{5432, true}, {6379, true}, {3306, true}, {80, false}, {1, false}, {7, false}};
    struct conf_diag *diag = conf_diag_new();
    struct beside b = {.mesh = NULL};
    if (conf_parse_gateway("/g", gateway, strlen(gateway), diag, &b.proxy) != 0) {
        fail_msg("%s: %s", conf_diag_get(diag, 0)->where, conf_diag_get(diag, 0)->what);
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1000], said[2000];
        snprintf(text, sizeof(text),
                 HEAD "  - {name: a, action: ALLOW, " FROM
                      ", to: [{ports: [%u], methods: [GET]}]}\n",
                 cases[i].port);
        lint(text, &b, false, said, sizeof(said));
        if ((strstr(said, "which the gateway's file declares 'tcp'") != NULL) != cases[i].tcp) {
            fail_msg("%u: %s", cases[i].port, said);
        }
    }
    conf_proxy_free(b.proxy);
    conf_diag_free(diag);
}

static void test_ports(void **state)
{
    (void)state;
    static const char mesh[] =
        "kind: Mesh\nlevel: 1\nservices:\n  - name: db\n    addresses: [10.0.0.1]\n"
        "    ports: [{port: 5432, protocol: tcp}, {port: 80, protocol: http}]\n"
        "    identities: [\"spiffe://a.b/db\"]\n";
    static const char head[] = HEAD "  - {name: a, action: ALLOW, target: {principals: "
                                    "[\"spiffe://a.b/%s\"]}, " FROM ", to: [{ports: [%s], "
                                    "methods: [GET]}]}\n";
    struct conf_diag *diag = conf_diag_new();
    struct beside b = {.proxy = NULL};
    char text[1000], said[2000];
    assert_int_equal(conf_parse_mesh("m", mesh, strlen(mesh), diag, &b.mesh), 0);
    snprintf(text, sizeof(text), head, "db", "5432");
    lint(text, &b, false, said, sizeof(said));
    assert_non_null(strstr(said,
                           "error: rule 'a': asks about requests on port 5432, which the mesh "
                           "map's service 'db' declares 'tcp': there it says nothing"));
    assert_non_null(strstr(said, "(tcp-port)\n"));
    snprintf(text, sizeof(text), head, "db", "80");
    lint(text, &b, false, said, sizeof(said));
    assert_string_equal(said, "");
    snprintf(text, sizeof(text), head, "other", "5432");
    lint(text, &b, false, said, sizeof(said));
    assert_string_equal(said, "");
    lint(HEAD "  - {name: a, action: ALLOW, from: [{trust_domains: [a.bc]}]}\n", &b, false, said,
         sizeof(said));
    assert_non_null(strstr(said, "no service of the mesh map is of trust domain 'a.bc'"));
    conf_mesh_free(b.mesh);
    conf_diag_free(diag);
}

static void test_json(void **state)
{
    (void)state;
    char said[4000];
    lint(HEAD "  - {name: a, action: ALLOW}\n", NULL, true, said, sizeof(said));
    assert_non_null(strstr(said, "\"code\": \"anyone\""));
    assert_non_null(strstr(said, "\"column\": 5"));
}

static void test_examples(void **state)
{
    (void)state;
    static const char *const files[] = {EXAMPLES_DIR "/policy.yaml",
                                        EXAMPLES_DIR "/policy-requests.yaml"};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char *text = NULL;
        size_t len = 0;
        char said[4000];
        assert_int_equal(os_read_file(files[i], 1 << 20, false, &text, &len, NULL), 0);
        lint(text, NULL, false, said, sizeof(said));
        assert_string_equal(said, "");
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_doubts),        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_gateway_ports), cmocka_unit_test(test_json),
        cmocka_unit_test(test_examples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
