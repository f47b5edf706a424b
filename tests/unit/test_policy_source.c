/* policy_source: policies of Istio and Kubernetes, read in place of ours: which a file is, what its
 * reader has to know, what counts for one workload, and that nothing is ever wider than there. The
 * cases of docs/policy-convert.md, "Read in place of a Policy". */
#include <postern/policy.h>
#include <postern/policy_source.h>

#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define AP(ns, name)                                                                               \
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"                                \
    "metadata: {name: " name ", namespace: " ns "}\n"
#define PA(ns, name)                                                                               \
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"                                 \
    "metadata: {name: " name ", namespace: " ns "}\n"
#define NP(ns, name)                                                                               \
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"                                      \
    "metadata: {name: " name ", namespace: " ns "}\n"
#define GET_ONLY "spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n"
#define FOR_WEB                                                                                    \
    "spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {methods: "             \
    "[GET]}}]}]}\n"
#define DENY_ADMIN "spec: {action: DENY, rules: [{to: [{operation: {paths: [\"/admin*\"]}}]}]}\n"

/* --- a reader --------------------------------------------------------------------------------- */
#define PROXY                                                                                      \
    "kind: Proxy\nlevel: 1\n"                                                                      \
    "listeners: [{name: in, direction: inbound, capture: intercepted, "                            \
    "address: '127.0.0.1:15006'%s}]\n%s"

struct read {
    struct conf_diag *errors, *doubts;
    struct conf_policy *conf;
    struct policy *policy;
};

static void read_deinit(struct read *r)
{
    policy_free(r->policy);
    conf_policy_free(r->conf);
    conf_diag_free(r->errors);
    conf_diag_free(r->doubts);
}

static void read_by(struct policy_source *s, const char *text, struct read *ret)
{
    struct err err = ERR_INIT;
    *ret = (struct read){.errors = conf_diag_new(), .doubts = conf_diag_new()};
    int rc = policy_source_parse(s, "/p", str_of(text), ret->errors, ret->doubts, &ret->conf);
    assert_int_equal(rc == 0, ret->conf != NULL);
    assert_int_equal(rc == 0, conf_diag_count(ret->errors) == 0);
    if (rc == 0) {
        ret->policy = policy_new(ret->conf, &err);
        assert_non_null(ret->policy);
    }
    policy_source_deinit(s);
}

/* As a proxy with these keys, and these of its listener; over another process and back. */
static void read_as(const char *listener, const char *keys, const char *text, struct read *ret)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    struct policy_source first, second;
    struct buf line = BUF_INIT(65536);
    mem_autofree char *file = mem_must_printf(PROXY, listener, keys);
    if (conf_parse_proxy("/proxy", file, strlen(file), diag, &conf) != 0) {
        fail_msg("%s: %s", file, conf_diag_get(diag, 0)->what);
    }
    policy_source_of_proxy(conf, &first);
    assert_true(policy_source_write(&first, &line));
    assert_true(policy_source_read(buf_str(&line), &second));
    policy_source_deinit(&first);
    conf_proxy_free(conf);
    conf_diag_free(diag);
    buf_reset(&line);
    read_by(&second, text, ret);
}

static bool allowed(const struct read *r, const char *target, const char *peer, uint16_t port,
                    const char *method, const char *path)
{
    struct policy_query q = {.target = str_of(target), .peer = str_of(peer), .port = port};
    struct policy_verdict v;
    if (method != NULL) {
        q.http = true;
        q.method = str_of(method);
        q.path = str_of(path);
    }
    policy_decide(r->policy, &q, &v);
    return v.allow;
}

#define OWN "spiffe://td/ns/shop/sa/web"
#define PEER "spiffe://td/ns/other/sa/x"
#define CONTEXT(more) "policy_context: {trust_domain: td, namespace: shop" more "}\n"

/* --- what is refused -------------------------------------------------------------------------- */
static const struct {
    const char *listener, *keys, *text, *where, *what, *advice;
} refused[] = {
    {"", "", AP("shop", "a") GET_ONLY, ":1:1", "trust domain", "policy_context.trust_domain"},
    {"", "policy_context: {trust_domain: td}\n",
     "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\n" GET_ONLY,
     ":3:11", "whose namespace", "policy_context.namespace"},
    {"", CONTEXT(""), AP("shop", "a") FOR_WEB, ":4:18", "select no workload",
     "policy_context.labels"},
    {"", CONTEXT(""), NP("shop", "a") "spec: {podSelector: {matchLabels: {a: b}}}\n", ":4:21",
     "select no workload", "policy_context.labels"},
    {"", CONTEXT(", labels: [app=web]"),
     NP("shop", "a") "spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: "
                     "{app: x}}}]}]}\n",
     ":4:57", "select no workload", "manifests"},
    {"", CONTEXT(""), NP("shop", "a") "spec: {podSelector: {}, egress: []}\n", ":4:25", "'egress'",
     "policy_context.ignore_egress"},
    /* Also of a policy that is about somebody else. */
    {"", CONTEXT(", labels: [app=x]"),
     AP("shop", "a") "spec: {action: CUSTOM, selector: {matchLabels: {app: web}}, rules: [{}]}\n",
     ":4:16", "action", ""},
    {"", CONTEXT(", labels: [app=x]"),
     AP("shop", "a") "spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: "
                     "{methods: [\"P*\"]}}]}]}\n",
     ":4:82", "pattern", ""},
    {"", CONTEXT(""), AP("shop", "a") GET_ONLY "---\nkind: Policy\nlevel: 1\nrules: []\n", ":6:1",
     "not an object", ""},
    {"", CONTEXT(""), "kind: Policy\nlevel: 1\nrules: []\n---\n" AP("shop", "a") GET_ONLY, ":4:1",
     "second document", ""},
    {"", CONTEXT(""), "kind: Policy\nlevel: 1\napiVersion: v1\nrules: []\n", ":1:1", "no policy",
     ""},
    {"", CONTEXT(""), AP("shop", "a") "spec: {\n", ":5:1", "YAML", ""},
    {"", CONTEXT(""), PA("shop", "a") "spec: {mtls: {mode: STRICT}}\n", ":1:1", "no policy", ""},
    {"", CONTEXT(""),
     AP("shop", "a") GET_ONLY "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
                              "metadata: {name: a, namespace: shop}\n",
     ":7:7", "RequestAuthentication", "'jwt'"},
    /* STRICT there, and open here. */
    {", ports: [{port: 80, protocol: http, mode: permissive}]", CONTEXT(""),
     AP("shop", "a") GET_ONLY "---\n" PA("shop", "p") "spec: {mtls: {mode: STRICT}}\n", ":6:1",
     "STRICT", "permissive"},
    {", ports: [{port: 80, protocol: http, mode: permissive}]", CONTEXT(", labels: [app=web]"),
     AP("shop", "a") GET_ONLY "---\n" PA(
         "istio-system",
         "p") "spec: {mtls: {mode: STRICT}}\n"
              "---\n" PA(
                  "shop",
                  "q") "spec: {selector: {matchLabels: {app: api}}, mtls: {mode: PERMISSIVE}}\n",
     ":6:1", "STRICT", "permissive"},
    {", ports: [{port: 80, protocol: http, mode: permissive}]",
     "policy_context: {trust_domain: td}\n",
     AP("shop", "a") GET_ONLY "---\n" PA("shop", "p") "spec: {mtls: {mode: STRICT}}\n", ":6:1",
     "own workload", "policy_context.namespace"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct read r;
        read_as(refused[i].listener, refused[i].keys, refused[i].text, &r);
        if (conf_diag_count(r.errors) == 0) {
            fail_msg("%zu: no error", i);
        }
        const struct err *e = conf_diag_get(r.errors, 0);
        if (strcmp(e->where + 2, refused[i].where) != 0 ||
            strstr(e->what, refused[i].what) == NULL ||
            strstr(e->advice, refused[i].advice) == NULL) {
            fail_msg("%zu: %s: %s; %s", i, e->where, e->what, e->advice);
        }
        read_deinit(&r);
    }
}

/* --- what counts for one workload ------------------------------------------------------------- */
static void test_selectors(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *text;
        bool get, post;
        size_t doubts;
    } cases[] = {
        /* Without a selector, of the own namespace; and of another one, which leaves it open. */
        {CONTEXT(""), AP("shop", "a") GET_ONLY, true, false, 0},
        {CONTEXT(""), AP("elsewhere", "a") GET_ONLY, true, true, 1},
        {CONTEXT(", implied_allow: false"), AP("elsewhere", "a") GET_ONLY, false, false, 1},
        {CONTEXT(""), AP("istio-system", "a") GET_ONLY, true, false, 0},
        {CONTEXT(", root_namespace: mesh"), AP("mesh", "a") GET_ONLY, true, false, 0},
        /* By labels: taken, not taken, of the mesh, of another namespace, with none. */
        {CONTEXT(", labels: [app=web, v=1]"), AP("shop", "a") FOR_WEB, true, false, 0},
        {CONTEXT(", labels: [app=api]"), AP("shop", "a") FOR_WEB, true, true, 1},
        {CONTEXT(", labels: [app=web]"), AP("istio-system", "a") FOR_WEB, true, false, 0},
        {CONTEXT(", labels: [app=web]"), AP("elsewhere", "a") FOR_WEB, true, true, 1},
        {CONTEXT(", labels: []"), AP("shop", "a") FOR_WEB, true, true, 1},
        {CONTEXT(", labels: [], implied_allow: false"), AP("shop", "a") FOR_WEB, false, false, 1},
        /* One that takes it and one that does not: rules of the first alone. */
        {CONTEXT(", labels: [app=web]"),
         AP("shop", "a") FOR_WEB
         "---\n" AP("shop", "b") "spec: {selector: {matchLabels: {app: api}}, rules: [{}]}\n",
         true, false, 0},
        /* An ALLOW without rules, one on trial, DENY alone. */
        {CONTEXT(""), AP("shop", "a") "spec: {}\n", false, false, 0},
        {CONTEXT(""),
         "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, "
         "namespace: shop, annotations: {istio.io/dry-run: \"true\"}}\n" GET_ONLY,
         true, true, 1},
        {CONTEXT(""), AP("shop", "a") DENY_ADMIN, true, true, 1},
        {CONTEXT(", labels: [app=web]"),
         AP("shop", "a") "spec: {action: DENY, selector: {matchLabels: {app: web}}, rules: [{to: "
                         "[{operation: {methods: [POST]}}]}]}\n",
         true, false, 1},
        {CONTEXT(", labels: [app=api]"),
         AP("shop", "a") "spec: {action: DENY, selector: {matchLabels: {app: web}}, rules: [{to: "
                         "[{operation: {methods: [POST]}}]}]}\n",
         true, true, 1},
        /* The namespace of the identity that the file asks for; objects without one are of it. */
        {"identity: {spiffe_id: '" OWN "'}\n",
         "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: "
         "a}\n" GET_ONLY,
         true, false, 0},
        /* A context that names somebody else's namespace allows nothing to this identity. */
        {"policy_context: {trust_domain: td, namespace: elsewhere}\n",
         AP("elsewhere", "a") GET_ONLY, false, false, 0},
        {"policy_context: {trust_domain: other, namespace: shop}\n", AP("shop", "a") GET_ONLY,
         false, false, 0},
        {CONTEXT(", labels: [app=web]"),
         NP("shop", "a") "spec: {podSelector: {matchLabels: {app: web}}, ingress: []}\n", false,
         false, 0},
        {CONTEXT(", labels: [app=api]"),
         NP("shop", "a") "spec: {podSelector: {matchExpressions: [{key: app, operator: In, values: "
                         "[web]}]}, ingress: []}\n",
         true, true, 1},
        {CONTEXT(""), NP("shop", "a") "spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}\n",
         true, true, 0},
        {CONTEXT(""), NP("shop", "a") "spec: {podSelector: {}, ingress: [{ports: [{port: 81}]}]}\n",
         false, false, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct read r;
        read_as("", cases[i].keys, cases[i].text, &r);
        if (r.policy == NULL) {
            fail_msg("%zu: %s: %s", i, conf_diag_get(r.errors, 0)->where,
                     conf_diag_get(r.errors, 0)->what);
        }
        if (allowed(&r, OWN, PEER, 80, "GET", "/") != cases[i].get ||
            allowed(&r, OWN, PEER, 80, "POST", "/") != cases[i].post ||
            conf_diag_count(r.doubts) != cases[i].doubts) {
            fail_msg("%zu: %zu doubts", i, conf_diag_count(r.doubts));
        }
        read_deinit(&r);
    }
}

/* --- ports without HTTP ----------------------------------------------------------------------- */
static void test_opaque_ports(void **state)
{
    (void)state;
    static const struct {
        const char *listener;
        bool at_80, at_5432, at_9999; /* a connection, of which no request is known */
    } cases[] = {
        /* Ports that nobody declared are HTTP as soon as a rule asks for it. */
        {"", true, true, true},
        {", ports: [{port: 80, protocol: http}, {port: 5432, protocol: tcp}]", true, false, true},
        {", undeclared: tcp, ports: [{port: 80, protocol: http}]", true, false, false},
        {", undeclared: tcp", false, false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct read r;
        read_as(cases[i].listener, CONTEXT(""), AP("shop", "a") DENY_ADMIN, &r);
        assert_non_null(r.policy);
        bool at_80 = allowed(&r, OWN, PEER, 80, NULL, NULL);
        bool at_5432 = allowed(&r, OWN, PEER, 5432, NULL, NULL);
        bool at_9999 = allowed(&r, OWN, PEER, 9999, NULL, NULL);
        if (at_80 != cases[i].at_80 || at_5432 != cases[i].at_5432 || at_9999 != cases[i].at_9999) {
            fail_msg("%zu: %d %d %d", i, at_80, at_5432, at_9999);
        }
        assert_false(allowed(&r, OWN, PEER, 80, "GET", "/admin"));
        read_deinit(&r);
    }
}

/* --- names, lines and modes ------------------------------------------------------------------- */
static void test_names_and_lines(void **state)
{
    (void)state;
    static const char text[] =
        "# a list\n" AP("shop", "view") "spec:\n  rules:\n"
                                        "    - to: [{operation: {methods: [GET]}}]\n"
                                        "    - to:\n        - operation: {methods: [HEAD]}\n"
                                        "---\n" AP("elsewhere", "b") DENY_ADMIN;
    struct read r;
    read_as(", ports: [{port: 81, protocol: tcp}]", CONTEXT(""), text, &r);
    assert_non_null(r.conf);
    assert_int_equal(r.conf->n_rules, 4);
    static const struct {
        const char *name, *reason;
        unsigned line;
    } want[] = {
        {"shop/view", "AuthorizationPolicy shop/view, rule 1, line 7", 7},
        {"shop/view:2", "AuthorizationPolicy shop/view, rule 2, line 8", 8},
        {"elsewhere/b", "AuthorizationPolicy elsewhere/b, rule 1, line 14", 14},
        {"elsewhere/b:tcp", "AuthorizationPolicy elsewhere/b, rule 1, line 14", 14},
    };
    for (size_t i = 0; i < COUNT(want); i++) {
        assert_string_equal(r.conf->rules[i].name, want[i].name);
        assert_string_equal(r.conf->rules[i].reason, want[i].reason);
        assert_int_equal(r.conf->rules[i].line, want[i].line);
    }
    assert_string_equal(r.conf->path, "/p");
    read_deinit(&r);
}

struct parts {
    size_t n;
    unsigned lines[8];
};

static int on_part(void *arg, const struct conf_part *part)
{
    struct parts *p = arg;
    if (part->line != 0) {
        assert_true(p->n < COUNT(p->lines));
        p->lines[p->n++] = part->line;
    }
    return 0;
}

/* In parts, as an agent tells it: with the file's lines, in order, what is implied at the end. */
static void test_in_parts(void **state)
{
    (void)state;
    static const char file[] = "kind: Agent\nlevel: 1\ntrust_domain: td\nsocket: /s/s\n"
                               "state_dir: /d\nentries: e.yaml\n";
    static const char text[] = AP("shop", "a") DENY_ADMIN "---\n" AP("bar", "b") DENY_ADMIN;
    struct conf_diag *errors = conf_diag_new();
    struct conf_diag *doubts = conf_diag_new();
    struct conf_agent *conf = NULL;
    struct policy_source s;
    struct parts parts = {.n = 0};
    if (conf_parse_agent("/agent", file, strlen(file), errors, &conf) != 0) {
        fail_msg("%s", conf_diag_get(errors, 0)->what);
    }
    policy_source_of_agent(conf, &s);
    assert_int_equal(policy_source_split(&s, "/p", str_of(text), errors, doubts, on_part, &parts),
                     0);
    assert_int_equal(parts.n, 3);
    assert_int_equal(parts.lines[0], 4);
    assert_int_equal(parts.lines[1], 9);
    assert_int_equal(parts.lines[2], 9);
    assert_int_equal(conf_diag_count(doubts), 3); /* two about ports, one of what is implied */
    assert_int_equal(policy_source_split(&s, "/p", STR_LIT(AP("shop", "a") FOR_WEB), errors, doubts,
                                         on_part, &parts),
                     -1);
    assert_non_null(strstr(conf_diag_get(errors, 0)->advice, "manifests"));
    policy_source_deinit(&s);
    conf_agent_free(conf);
    conf_diag_free(errors);
    conf_diag_free(doubts);
}

/* What a PeerAuthentication opens is not opened; what it closes is looked for. */
static void test_modes(void **state)
{
    (void)state;
    static const char open[] = ", ports: [{port: 80, protocol: http, mode: permissive}]";
    static const struct {
        const char *listener, *keys, *text;
        size_t doubts;
    } fine[] = {
        {"", CONTEXT(""), PA("shop", "p") "spec: {mtls: {mode: STRICT}}\n", 0},
        {"", CONTEXT(""), PA("shop", "p") "spec: {mtls: {mode: PERMISSIVE}}\n", 1},
        {open, CONTEXT(""), PA("shop", "p") "spec: {mtls: {mode: PERMISSIVE}}\n", 1},
        {open, CONTEXT(""), PA("elsewhere", "p") "spec: {mtls: {mode: STRICT}}\n", 0},
        {open, CONTEXT(", labels: [app=web]"),
         PA("istio-system", "p") "spec: {mtls: {mode: STRICT}}\n---\n" PA(
             "shop", "q") "spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {80: {mode: "
                          "PERMISSIVE}}}\n",
         1},
    };
    for (size_t i = 0; i < COUNT(fine); i++) {
        struct read r;
        mem_autofree char *text =
            mem_must_printf("%s---\n%s", AP("shop", "a") GET_ONLY, fine[i].text);
        read_as(fine[i].listener, fine[i].keys, text, &r);
        if (r.policy == NULL || conf_diag_count(r.doubts) != fine[i].doubts) {
            fail_msg("%zu: %zu errors, %zu doubts", i, conf_diag_count(r.errors),
                     conf_diag_count(r.doubts));
        }
        read_deinit(&r);
    }
}

/* --- whose file it is, and who reads ---------------------------------------------------------- */
static void test_whose_file(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool foreign;
    } cases[] = {
        {"", false},
        {"kind: Policy\nlevel: 1\nrules: []\n", false},
        {"kind: Policy\nlevel: 2\nrules: [{name: apiVersion, action: DENY}]\n", false},
        {"# apiVersion: v1\nkind: Policy\nlevel: 1\nrules: []\n", false},
        {"---\n---\napiVersion: v1\n", true},
        {"{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}", true},
        {"kind: Pod\napiVersion: v1\n", true},
        {"apiVersion: v1\nkind: [\n", true},
        {"- apiVersion: v1\n", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (conf_policy_is_foreign(str_of(cases[i].text)) != cases[i].foreign) {
            fail_msg("%zu", i);
        }
    }
    /* Ours is read as ever, whoever reads. */
    struct read r;
    struct policy_source nobody = {.texts = NULL};
    read_by(&nobody, "kind: Policy\nlevel: 1\nrules: [{name: a, action: ALLOW}]\n", &r);
    assert_non_null(r.policy);
    assert_int_equal(r.conf->rules[0].line, 3);
    read_deinit(&r);
}

static void test_no_reader(void **state)
{
    (void)state;
    static const char *const texts[] = {"x",
                                        "strict=",
                                        "own=1",
                                        "trust_domain=A",
                                        "trust_domain=a trust_domain=b",
                                        "own_namespace=..",
                                        "own_namespace=a own_namespace=a",
                                        "label=",
                                        "label==x",
                                        "label=a",
                                        "label=a=\x1b",
                                        "tcp_ports=0",
                                        "tcp_ports=1,",
                                        "tcp_ports=,1",
                                        "tcp_ports=65536",
                                        "tcp_ports=1 tcp_ports=2",
                                        "http_ports=x",
                                        "plain_ports=-1"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct policy_source s;
        if (policy_source_read(str_of(texts[i]), &s)) {
            fail_msg("%s", texts[i]);
        }
    }
    struct policy_source s;
    assert_false(policy_source_read((struct str){"own\0x", 5}, &s));
    assert_true(policy_source_read(STR_NONE, &s));
    policy_source_deinit(&s);
}

/* --- bounds ----------------------------------------------------------------------------------- */
/* Alternatives times conditions, long lists, many objects: an error or a policy, and no more memory
 * or time than a file is worth. */
static void test_bounds(void **state)
{
    (void)state;
    struct buf text = BUF_INIT(4 << 20);
    struct read r;
    assert_true(buf_printf(&text, AP("shop", "a") "spec:\n  rules:\n  - from:\n"));
    for (unsigned i = 0; i < 2000; i++) {
        buf_printf(&text, "    - source: {namespaces: [n%u]}\n", i);
    }
    buf_printf(&text, "    when:\n");
    for (unsigned i = 0; i < 2000; i++) {
        buf_printf(&text, "    - {key: \"request.headers[h%u]\", values: [x]}\n", i);
    }
    buf_append(&text, "", 1);
    read_as("", CONTEXT(""), (const char *)buf_head(&text), &r);
    buf_reset(&text);
    read_deinit(&r);
    assert_true(buf_printf(&text, AP("shop", "a") "spec:\n  rules:\n  - from:\n"
                                                  "    - source:\n        namespaces: [a0"));
    for (unsigned i = 1; i <= 2000; i++) {
        buf_printf(&text, ", a%u", i);
    }
    buf_append(&text, "]\n", 3);
    read_as("", CONTEXT(""), (const char *)buf_head(&text), &r);
    assert_int_equal(conf_diag_count(r.errors), 1);
    assert_non_null(strstr(conf_diag_get(r.errors, 0)->what, "2000 items"));
    buf_reset(&text);
    read_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_selectors),
        cmocka_unit_test(test_opaque_ports), cmocka_unit_test(test_names_and_lines),
        cmocka_unit_test(test_in_parts),     cmocka_unit_test(test_modes),
        cmocka_unit_test(test_whose_file),   cmocka_unit_test(test_no_reader),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
