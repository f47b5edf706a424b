/* policy_tools: expectations. A request is read as a proxy reads it; what fails says why. */
#include <postern/policy_question.h>
#include <postern/policy_tools.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define POLICY                                                                                     \
    "kind: Policy\nlevel: 1\nrules:\n"                                                             \
    "  - {name: read, action: ALLOW, from: [{principals: [\"spiffe://a.b/x\"]}],\n"                \
    "     to: [{ports: [80], methods: [GET], paths: [\"/a/*\", \"/b%20c\"]}]}\n"                   \
    "  - {name: tcp, action: ALLOW, from: [{principals: [\"spiffe://a.b/x\"]}], to: [{ports: "     \
    "[81]}]}\n"                                                                                    \
    "  - {name: no, action: DENY, to: [{paths: [\"/a/secret*\"]}]}\n"

#define ASK "{target: \"spiffe://a.b/t\", peer: \"spiffe://a.b/x\", "
#define TESTS "kind: PolicyTest\nlevel: 1\ntests:\n"

struct world {
    struct conf_policy *conf;
    struct policy *policy;
    struct conf_policy_test *test;
    struct policy_test_result *results;
};

static struct world make(const char *tests)
{
    struct world w = {.conf = NULL};
    struct conf_diag *diag = conf_diag_new();
    assert_int_equal(conf_parse_policy("p", POLICY, strlen(POLICY), diag, &w.conf), 0);
    w.policy = policy_new(w.conf, NULL);
    assert_non_null(w.policy);
    if (conf_parse_policy_test("t.yaml", tests, strlen(tests), diag, &w.test) != 0) {
        fail_msg("%s", conf_diag_get(diag, 0)->what);
    }
    w.results = policy_test_run(w.test, w.conf, w.policy, 1000);
    conf_diag_free(diag);
    return w;
}

static void unmake(struct world *w)
{
    policy_test_results_free(w->results, w->test->n_cases);
    conf_policy_test_free(w->test);
    policy_free(w->policy);
    conf_policy_free(w->conf);
}

static void print(const struct world *w, enum policy_test_form form, char *ret, size_t size)
{
    struct buf out = BUF_INIT(1 << 20);
    assert_true(policy_test_print(w->test, w->results, form, &out));
    assert_true(buf_len(&out) < size);
    memcpy(ret, buf_head(&out), buf_len(&out));
    ret[buf_len(&out)] = '\0';
    buf_reset(&out);
}

static void test_refused_files(void **state)
{
    (void)state;
    static const char *const texts[] = {
        TESTS "  - {name: a, request: {port: 80}, expect: allow}\n",
        TESTS "  - {name: a, request: " ASK "port: 80, method: GET}, expect: allow}\n",
        TESTS "  - {name: a, request: " ASK "port: 80, host: h}, expect: allow}\n",
        TESTS "  - {name: a, request: " ASK "port: 80, grpc: S/M, path: /}, expect: allow}\n",
        TESTS "  - {name: a, request: " ASK "port: 80}, expect: perhaps}\n",
        TESTS "  - {name: a, request: " ASK "port: 80}, expect: deny}\n"
              "  - {name: a, request: " ASK "port: 80}, expect: deny}\n",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct conf_diag *diag = conf_diag_new();
        struct conf_policy_test *test = NULL;
        assert_int_equal(conf_parse_policy_test("t", texts[i], strlen(texts[i]), diag, &test), -1);
        assert_true(conf_diag_count(diag) > 0);
        conf_diag_free(diag);
    }
}

/* Each row holds as it is written, and with the other word it does not. */
static void test_verdicts(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "port: 80, method: GET, path: /a/b, host: h}, expect: allow, rule: read",
        "port: 80, method: GET, path: /b%20c?x=1, host: h}, expect: allow, rule: read",
        "port: 80, method: POST, path: /a/b, host: h}, expect: deny",
        "port: 80, method: GET, path: /a/secret/1, host: h}, expect: deny, rule: 'no'",
        "port: 80, method: GET, path: /a/b}, expect: allow", /* HTTP/1.0, no host */
        "port: 80}, expect: deny",                           /* a connection */
        "port: 81}, expect: allow, rule: tcp",
        /* what the reader refuses never comes to a workload */
        "port: 80, method: GET, path: /a/%2e%2e/b, host: h}, expect: deny",
        "port: 80, method: GET, path: /a/b, host: h, headers: [{name: x, value: \"a\\r\\nb: "
        "c\"}]}, "
        "expect: deny",
        "port: 80, method: 'GET /a/b HTTP/1.1', path: /, host: h}, expect: deny",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[2000];
        snprintf(text, sizeof(text), TESTS "  - {name: a, request: " ASK "%s}\n", rows[i]);
        struct world w = make(text);
        if (!w.results[0].ok) {
            fail_msg("%s: %s", rows[i], w.results[0].said);
        }
        unmake(&w);
        char *word = strstr(text, "expect: ");
        assert_non_null(word);
        bool allow = word[8] == 'a';
        char other[2000];
        snprintf(other, sizeof(other), "%.*sexpect: %s%s", (int)(word - text), text,
                 allow ? "deny" : "allow", word + 8 + (allow ? 5 : 4));
        w = make(other);
        assert_false(w.results[0].ok);
        assert_non_null(w.results[0].said);
        unmake(&w);
    }
}

static void test_forms(void **state)
{
    (void)state;
    char text[8000];
    struct world w =
        make(TESTS "  - {name: 'a # \\ <b>', request: " ASK "port: 81}, expect: deny}\n"
                   "  - {name: b, request: " ASK "port: 81}, expect: allow}\n"
                   "  - {name: c, request: " ASK "port: 81}, expect: allow, rule: read}\n"
                   "  - {name: d, request: " ASK
                   "port: 80, method: GET, path: /a//b, host: h}, expect: allow}\n");
    assert_int_equal(policy_test_failed(w.results, w.test->n_cases), 3);
    print(&w, POLICY_TEST_TEXT, text, sizeof(text));
    assert_non_null(strstr(text, "FAIL  a # \\ <b> (line 4)\n      expected deny; it is allow by "
                                 "rule \"tcp\" (line 6)\n"));
    assert_non_null(strstr(text, "ok    b\n"));
    assert_non_null(strstr(text, "expected allow by rule \"read\"; it is allow by rule \"tcp\""));
    assert_non_null(strstr(text, "refused by the HTTP reader (path_ambiguous: "));
    assert_non_null(strstr(text, "4 tests, 3 failed\n"));
    print(&w, POLICY_TEST_TAP, text, sizeof(text));
    assert_int_equal(strncmp(text, "TAP version 13\n1..4\nnot ok 1 - a \\# \\\\ <b>\n  ---\n", 44),
                     0);
    assert_non_null(strstr(text, "\nok 2 - b\n"));
    print(&w, POLICY_TEST_JUNIT, text, sizeof(text));
    assert_non_null(strstr(text, "tests=\"4\" failures=\"3\">"));
    assert_non_null(strstr(text,
                           "name=\"a # \\ &lt;b&gt;\">\n    <failure message=\"expected deny; "
                           "it is allow by rule &quot;tcp&quot;"));
    unmake(&w);
}

/* Why, and the change that turns it, for a denial. */
static void test_explained(void **state)
{
    (void)state;
    struct world w = make(TESTS "  - {name: a, request: " ASK
                                "port: 80, method: POST, path: /a/b, host: h}, expect: allow}\n");
    assert_non_null(strstr(w.results[0].explanation, "denied: no rule allows it\n"));
    assert_non_null(strstr(w.results[0].explanation,
                           "  ALLOW \"read\" (line 4): methods [GET] does not hold POST\n"));
    assert_non_null(strstr(w.results[0].explanation, "the smallest change that turns it:\n"));
    mem_auto(policy_question_free) struct policy_question *q =
        policy_question_of(&w.test->cases[0].request, 1000);
    struct buf out = BUF_INIT(1 << 20);
    assert_true(policy_tools_explain(w.conf, w.policy, &q->query, true, &out));
    json_t *doc = json_loadb((const char *)buf_head(&out), buf_len(&out), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(doc, "verdict")), "deny");
    assert_true(json_is_true(json_object_get(doc, "turns")));
    assert_true(json_array_size(json_object_get(doc, "change")) > 0);
    json_decref(doc);
    buf_reset(&out);
    unmake(&w);
}

static void test_grpc(void **state)
{
    (void)state;
    static char target[] = "spiffe://a.b/t";
    static char grpc[] = "pkg.Service/Method";
    static char name[] = "X-Thing";
    static char value[] = " v ";
    struct conf_policy_said header = {name, value};
    struct conf_policy_request r = {
        .target = target, .port = 80, .grpc = grpc, .headers = &header, .n_headers = 1};
    mem_auto(policy_question_free) struct policy_question *q = policy_question_of(&r, 7);
    assert_int_equal(q->refused, HTTP1_NONE);
    assert_true(q->query.http && q->query.grpc);
    assert_true(str_eq(q->query.method, STR_LIT("POST")));
    assert_true(str_eq(q->query.path, STR_LIT("/pkg.Service/Method")));
    assert_int_equal(q->query.headers->n, 2);
    assert_true(str_eq(q->query.headers->items[1].name, STR_LIT("x-thing")));
    assert_true(str_eq(q->query.headers->items[1].value, STR_LIT("v")));
    assert_int_equal(q->query.now_s, 7);
    assert_null(q->query.claims);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_files), cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_forms),         cmocka_unit_test(test_explained),
        cmocka_unit_test(test_grpc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
