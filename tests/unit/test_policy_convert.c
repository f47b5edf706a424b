/* policy_convert: what has no counterpart is an error at its place and nothing comes out; what
 * comes out decides as its source does (tests/data/convert: policies, and what is expected of
 * them). */
#include <postern/policy_convert.h>
#include <postern/policy_tools.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { TEXT_MAX = 1 << 20 };

/* --- what is refused -------------------------------------------------------------------------- */
#define META "metadata: {name: p, namespace: n}\n"
#define AP "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n" META
#define PA "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n" META
#define NP "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n" META
#define POD(name, account, labels)                                                                 \
    "---\napiVersion: v1\nkind: Pod\nmetadata: {name: " name ", namespace: n, labels: {" labels    \
    "}}\nspec: {serviceAccountName: " account                                                      \
    ", containers: [{ports: [{name: web, containerPort: 80}]}]}\n"
#define SOURCE(fields) AP "spec: {rules: [{from: [{source: {" fields "}}]}]}\n"
#define TO(fields) AP "spec: {rules: [{to: [{operation: {" fields "}}]}]}\n"
#define WHEN(key) AP "spec: {rules: [{when: [{key: \"" key "\", values: [x]}]}]}\n"
#define INGRESS(fields) NP "spec: {podSelector: {}, ingress: [{" fields "}]}\n"

static const struct {
    const char *text, *where, *what;
} refused[] = {
    {"[\n", ":2:1", "not valid YAML"},
    {"a: 1\na: 2\n", ":2:1", "duplicate key"},
    {"x\n", ":1:1", "not an object"},
    {"kind: Policy\n", ":1:1", "not an object"},
    {AP "spec: {rulez: []}\n", ":4:8", "'rulez'"},
    {AP "spec: {\"ru\\x1b\\nles\": []}\n", ":4:8", "'ru??les'"},
    {AP "spec: {action: CUSTOM, rules: []}\n", ":4:16", "action"},
    {AP "spec: {provider: {name: x}, rules: []}\n", ":4:8", "'provider'"},
    {AP "spec: {targetRefs: []}\n", ":4:8", "'targetRefs'"},
    {AP "spec: {selector: {matchLabels: {a: b}}}\n", ":4:18", "select no workload"},
    {AP "spec: {selector: {matchExpressions: []}}\n", ":4:19", "'matchExpressions'"},
    {AP "spec: {selector: {matchLabels: {a: b}}}\n" POD("x", "s", "a: b") POD("y", "s", "a: c"),
     ":4:18", "Pod n/y"},
    {AP "spec: {rules: x}\n", ":4:15", "no list"},
    {AP "spec: {rules: [x]}\n", ":4:16", "no mapping"},
    {AP "spec: {rules: [{form: []}]}\n", ":4:17", "'form'"},
    {AP "spec: {rules: [{from: []}]}\n", ":4:23", "empty"},
    {AP "spec: {rules: [{from: [{}]}]}\n", ":4:24", "empty 'source'"},
    {AP "spec: {rules: [{from: [{source: {}}]}]}\n", ":4:33", "empty 'source'"},
    {AP "spec: {rules: [{to: [{operation: {}}]}]}\n", ":4:34", "empty 'operation'"},
    {SOURCE("remoteIpBlocks: [10.0.0.0/8]"), ":4:34", "'remoteIpBlocks'"},
    {SOURCE("principals: [spiffe://a/b]"), ":4:47", "spiffe://"},
    {SOURCE("principals: [\"a*b\"]"), ":4:47", "principals"},
    {SOURCE("principals: [\"clus*\"]"), ":4:47", "principals"},
    {SOURCE("principals: [\"\"]"), ":4:47", "without content"},
    {SOURCE("principals: []"), ":4:46", "empty"},
    {SOURCE("principals: cluster.local/ns/a/sa/b"), ":4:46", "no list"},
    {SOURCE("ipBlocks: [10.0.0.0/33]"), ":4:45", "ip_blocks"},
    {SOURCE("serviceAccounts: [\"a/*\"]"), ":4:52", "service account"},
    {SOURCE("requestPrincipals: [issuer]"), ":4:54", "subject"},
    {SOURCE("users: [x]"), ":4:34", "'users'"},
    {TO("hosts: [\"a.example:8080\"]"), ":4:43", "port"},
    {TO("hosts: [\"*.a.example:*\", x]"), ":4:43", "hosts"},
    {TO("methods: [\"P*\"]"), ":4:45", "pattern for methods"},
    {TO("methods: [get]"), ":4:45", "capitals"},
    {TO("paths: [\"/a?b\"]"), ":4:43", "query"},
    {TO("paths: [\"/{**}/{*}\"]"), ":4:43", "{**}"},
    {TO("paths: [\"/a{*}\"]"), ":4:43", "segments"},
    {TO("ports: [http]"), ":4:43", "no port"},
    {TO("ports: [\"0\"]"), ":4:43", "no port"},
    {TO("clusters: [x]"), ":4:35", "'clusters'"},
    {WHEN("remote.ip"), ":4:30", "'remote.ip'"},
    {WHEN("destination.ip"), ":4:30", "'destination.ip'"},
    {WHEN("connection.sni"), ":4:30", "'connection.sni'"},
    {WHEN("experimental.envoy.filters.a[b]"), ":4:30", "experimental"},
    {WHEN("request.headers[cookie]"), ":4:66", "headers"},
    {WHEN("request.headers[a"), ":4:30", "brackets"},
    {WHEN("request.headers[a][b]"), ":4:30", "brackets"},
    {WHEN("request.auth.claims"), ":4:30", "brackets"},
    {AP "spec: {rules: [{when: [{key: source.ip}]}]}\n", ":4:24", "not a condition"},
    {AP "spec: {rules: [{from: [{source: {namespaces: [a]}}], when: [{key: source.namespace, "
        "values: [b]}]}]}\n",
     ":4:93", "second time"},
    {"apiVersion: security.istio.io/v1alpha1\nkind: AuthorizationPolicy\n" META, ":1:13",
     "version"},
    {"apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n" META, ":2:7",
     "RequestAuthentication"},
    {"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n" META, ":2:7", "CiliumNetworkPolicy"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: \"a b\"}\n", ":3:18", "name"},
    {PA "spec: {mtls: {mode: DISABLE}}\n", ":4:21", "DISABLE"},
    {PA "spec: {mtls: {mode: STRIKT}}\n", ":4:21", "no mode"},
    {PA "spec: {portLevelMtls: {80: {mode: STRICT}}}\n", ":4:8", "'portLevelMtls'"},
    {PA "spec: {mtls: {mode: PERMISSIVE}}\n", ":1:1", "none is given"},
    {PA "spec: {mtls: {mode: STRICT}}\n---\n" PA "spec: {}\n" POD("x", "s", "a: b"), ":6:1",
     "speaks of workload"},
    {NP, ":1:1", "without content"},
    {NP "spec: {podSelector: {}, egress: []}\n", ":4:25", "'egress'"},
    {NP "spec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n", ":4:48", "'egress'"},
    {NP "spec: {podSelector: {matchLabels: {a: b}}, ingress: []}\n", ":4:21", "select no"},
    {NP "spec: {podSelector: {matchExpressions: [{key: a, operator: Near}]}}\n", ":4:41",
     "expression"},
    {NP "spec: {podSelector: {}, ingress: x}\n", ":4:34", "no list"},
    {INGRESS("from: x"), ":4:42", "no list"},
    {INGRESS("from: [{}]"), ":4:43", "not a peer"},
    {INGRESS("from: [{ipBlock: {cidr: x}}]"), ":4:60", "ip_blocks"},
    {INGRESS("from: [{ipBlock: {cidr: 10.0.0.0/8, except: x}}]"), ":4:80", "no list"},
    {INGRESS("from: [{namespaceSelector: {matchLabels: {a: b}}}]"), ":4:63", "no namespace"},
    {INGRESS("ports: [{port: 53, protocol: UDP}]"), ":4:65", "protocol"},
    {INGRESS("ports: [{port: web}]"), ":4:51", "of this name"},
    {INGRESS("ports: [{port: 1, endPort: 60000}]"), ":4:63", "range"},
    {INGRESS("ports: [{}]"), ":4:44", "no port"},
    {NP "spec: {podSelector: {}, ingress: []}\n---\n" AP "spec: {}\n", ":1:1", "each has to allow"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        const struct policy_convert_options o = {.tcp_ports_known = true};
        struct policy_convert *c = policy_convert_new(&o);
        struct buf out = BUF_INIT(TEXT_MAX);
        struct err err = ERR_INIT;
        policy_convert_add(c, "f", str_of(refused[i].text));
        assert_int_equal(policy_converted_print(c, &out, &err), -1);
        assert_int_equal(buf_len(&out), 0);
        if (conf_diag_count(policy_convert_errors(c)) == 0) {
            fail_msg("%s: no error", refused[i].text);
        }
        const struct err *e = conf_diag_get(policy_convert_errors(c), 0);
        if (strcmp(e->where + 1, refused[i].where) != 0 ||
            (strstr(e->what, refused[i].what) == NULL)) {
            fail_msg("%s%s: %s, and not %s: %s", refused[i].text, e->where, e->what,
                     refused[i].where, refused[i].what);
        }
        policy_convert_free(c);
    }
}

static void test_nothing_there(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "# nothing\n", "---\n---\n", POD("x", "s", "a: b")};
    for (size_t i = 0; i < COUNT(texts); i++) {
        const struct policy_convert_options o = {.trust_domain = NULL};
        struct policy_convert *c = policy_convert_new(&o);
        struct buf out = BUF_INIT(TEXT_MAX);
        struct err err = ERR_INIT;
        policy_convert_add(c, "f", str_of(texts[i]));
        assert_int_equal(policy_converted_print(c, &out, &err), -1);
        assert_int_not_equal(err.code, ERR_NONE);
        policy_convert_free(c);
    }
}

/* --- what comes out --------------------------------------------------------------------------- */
static char *read_data(const char *name, const char *suffix, size_t *ret_len)
{
    char path[500];
    char *text = NULL;
    struct err err = ERR_INIT;
    snprintf(path, sizeof(path), CONVERT_DIR "/%s%s", name, suffix);
    if (os_read_file(path, TEXT_MAX, false, &text, ret_len, &err) != 0) {
        fail_msg("%s: %s", path, err.what);
    }
    return text;
}

static void hold_against(const char *name, struct conf_policy *conf)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy_test *test = NULL;
    size_t len = 0;
    char *text = read_data(name, "-test.yaml", &len);
    if (conf_parse_policy_test(name, text, len, diag, &test) != 0) {
        fail_msg("%s: %s", conf_diag_get(diag, 0)->where, conf_diag_get(diag, 0)->what);
    }
    struct err err = ERR_INIT;
    struct policy *p = policy_new(conf, &err);
    assert_non_null(p);
    struct policy_test_result *results = policy_test_run(test, conf, p, os_wall_s());
    for (size_t i = 0; i < test->n_cases; i++) {
        if (!results[i].ok) {
            fail_msg("%s: %s: %s\n%s", name, test->cases[i].name, results[i].said,
                     results[i].explanation);
        }
    }
    assert_true(test->n_cases > 0);
    policy_test_results_free(results, test->n_cases);
    policy_free(p);
    conf_policy_test_free(test);
    conf_diag_free(diag);
    free(text);
}

/* What is made of the file, and how many doubts there are; owned. */
static char *convert(const char *name, const struct policy_convert_options *o, size_t *ret_doubts)
{
    struct policy_convert *c = policy_convert_new(o);
    struct buf out = BUF_INIT(TEXT_MAX);
    struct err err = ERR_INIT;
    size_t len = 0;
    char *workloads = read_data("workloads", ".yaml", &len);
    policy_convert_add(c, "workloads", (struct str){workloads, len});
    free(workloads);
    char *text = read_data(name, ".yaml", &len);
    policy_convert_add(c, name, (struct str){text, len});
    free(text);
    if (policy_converted_print(c, &out, &err) != 0) {
        fail_msg("%s: %s: %s", name, err.what,
                 conf_diag_count(policy_convert_errors(c)) > 0
                     ? conf_diag_get(policy_convert_errors(c), 0)->what
                     : "");
    }
    *ret_doubts = conf_diag_count(policy_convert_doubts(c));
    char *made = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    buf_reset(&out);
    policy_convert_free(c);
    return made;
}

static void test_decides_as_its_source(void **state)
{
    (void)state;
    static uint16_t tcp[] = {9000, 9001};
    static const struct {
        const char *name;
        struct policy_convert_options options;
        size_t doubts;
    } cases[] = {
        {"allow", {.tcp_ports_known = true}, 2},
        {"nothing", {.tcp_ports_known = true}, 2},
        {"deny", {.tcp_ports_known = true}, 1},
        {"tcp", {.tcp_ports_known = true, .tcp_ports = {tcp, 2}}, 2},
        {"tokens", {.tcp_ports_known = false}, 3},
        {"values", {.trust_domain = "td.example"}, 2},
        {"trial", {.trust_domain = NULL}, 3},
        {"network", {.trust_domain = NULL}, 2},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct conf_diag *diag = conf_diag_new();
        struct conf_policy *conf = NULL;
        size_t doubts = 0;
        char *made = convert(cases[i].name, &cases[i].options, &doubts);
        if (doubts != cases[i].doubts) {
            fail_msg("%s: %zu doubts", cases[i].name, doubts);
        }
        assert_int_equal(conf_parse_policy("p", made, strlen(made), diag, &conf), 0);
        hold_against(cases[i].name, conf);
        conf_policy_free(conf);
        conf_diag_free(diag);
        free(made);
    }
}

static void test_no_implied_allow(void **state)
{
    (void)state;
    const struct policy_convert_options o = {.tcp_ports_known = true, .no_implied_allow = true};
    size_t doubts = 0;
    char *made = convert("deny", &o, &doubts);
    assert_null(strstr(made, "ALLOW"));
    assert_int_equal(doubts, 1);
    free(made);
}

/* Comments alone: a policy without rules would deny everything. */
static void test_modes(void **state)
{
    (void)state;
    const struct policy_convert_options o = {.trust_domain = NULL};
    size_t doubts = 0;
    char *made = convert("modes", &o, &doubts);
    assert_null(strstr(made, "\nkind:"));
    assert_non_null(strstr(made, "Deployment foo/httpbin (spiffe://cluster.local/ns/foo/sa/httpbin)"
                                 ": no port is permissive"));
    assert_non_null(strstr(made, "StatefulSet foo/tcp-echo (spiffe://cluster.local/ns/foo/sa/"
                                 "tcp-echo): in its Proxy file, of the inbound listener:\n"
                                 "#   ports:\n#     - {port: 9000, mode: permissive}\n"
                                 "#     - {port: 9001, mode: permissive}\n"));
    assert_non_null(strstr(made, "- {port: 5432, mode: permissive}\n"));
    assert_null(strstr(made, "port: 8000, mode"));
    assert_int_equal(doubts, 1); /* a workload that is PERMISSIVE and names no port */
    free(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nothing_there),
        cmocka_unit_test(test_decides_as_its_source),
        cmocka_unit_test(test_no_implied_allow),
        cmocka_unit_test(test_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
