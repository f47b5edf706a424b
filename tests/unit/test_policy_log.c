/* policy_tools: decisions out of logs; what another policy would have said; a policy made of them,
 * which allows them and, by identity, port and method, nothing else. */
#include <postern/policy_tools.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define AT "\"direction\":\"inbound\",\"source\":\"10.0.0.1:5\",\"own_id\":\"spiffe://a.b/t\","
#define PEER "\"peer_id\":\"spiffe://a.b/x\","

static enum policy_record_kind parse(const char *line, struct policy_record *ret)
{
    return policy_record_parse(str_of(line), ret);
}

static void test_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum policy_record_kind kind;
    } cases[] = {
        {"", POLICY_RECORD_OTHER},
        {"{", POLICY_RECORD_BAD},
        {"[]", POLICY_RECORD_BAD},
        {"{\"event\":\"ready\"}", POLICY_RECORD_OTHER},
        {"{\"event\":\"connection\"," AT PEER "\"port\":1}", POLICY_RECORD_OTHER},
        {"{\"event\":\"connection\"," AT PEER "\"port\":1,\"verdict\":\"allow\"}",
         POLICY_RECORD_DECISION},
        {"{\"event\":\"connection\"," AT PEER "\"port\":1,\"verdict\":\"perhaps\"}",
         POLICY_RECORD_BAD},
        {"{\"event\":\"connection\"," AT PEER "\"port\":70000,\"verdict\":\"deny\"}",
         POLICY_RECORD_BAD},
        {"{\"event\":\"connection\"," PEER "\"port\":1,\"verdict\":\"deny\"}", POLICY_RECORD_BAD},
        {"{\"event\":\"connection\"," AT "\"port\":1,\"verdict\":\"deny\","
         "\"reason\":\"quarantined\"}",
         POLICY_RECORD_OTHER},
        {"{\"event\":\"ended\"," AT PEER "\"port\":1,\"verdict\":\"deny\"}", POLICY_RECORD_OTHER},
        {"{\"event\":\"request\"," AT PEER "\"port\":1,\"verdict\":\"deny\"}", POLICY_RECORD_BAD},
        {"{\"event\":\"request\"," AT PEER
         "\"port\":1,\"verdict\":\"deny\",\"method\":\"GET\",\"path\":\"/\"}",
         POLICY_RECORD_DECISION},
        {"{\"event\":\"connection\",\"direction\":\"outbound\",\"port\":1,\"verdict\":\"allow\"}",
         POLICY_RECORD_OTHER},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct policy_record r;
        enum policy_record_kind kind = parse(cases[i].line, &r);
        if (kind != cases[i].kind) {
            fail_msg("%s: %d", cases[i].line, kind);
        }
        if (kind == POLICY_RECORD_DECISION) {
            assert_non_null(r.query.source);
            policy_record_deinit(&r);
        }
    }
}

/* --- at random ---------------------------------------------------------------------------------
 */
static uint64_t rng_state = 88172645463325252U;
static unsigned below(unsigned n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (unsigned)(rng_state >> 33) % n;
}

enum { N_TARGETS = 2, N_PEERS = 5, N_PORTS = 3, N_METHODS = 3 };
static const char *const targets[N_TARGETS] = {"spiffe://a.b/t", "spiffe://a.b/u"};
static const char *const peers[N_PEERS] = {"spiffe://a.b/x", "spiffe://a.b/xy", "spiffe://a.b/x/t",
                                           "dns:db.example", "spiffe://c/x"};
static const char *const methods[N_METHODS] = {NULL, "GET", "POST"}; /* NULL: a connection */
static const char *const paths[] = {"/", "/a/1", "/a/2", "/a/b*", "/x/{}/y", "/a b/\\u00e9", "*"};

static void make_line(char *line, size_t size, unsigned t, unsigned p, unsigned o, unsigned m,
                      const char *path)
{
    char request[200] = "";
    if (methods[m] != NULL) {
        snprintf(request, sizeof(request), ",\"method\":\"%s\",\"path\":\"%s\",\"host\":\"h\"",
                 methods[m], path);
    }
    snprintf(line, size,
             "{\"event\":\"%s\",\"direction\":\"inbound\",\"source\":\"[::1]:7\",\"own_id\":\"%s\","
             "\"peer_id\":\"%s\",\"port\":%u,\"verdict\":\"allow\"%s}",
             methods[m] != NULL ? "request" : "connection", targets[t], peers[p], 80 + o, request);
}

struct made {
    struct conf_policy *conf;
    struct policy *policy;
};

static struct made suggest(const struct policy_suggest *s)
{
    struct made m = {.conf = NULL};
    struct buf out = BUF_INIT(1 << 22);
    struct err err = ERR_INIT;
    struct conf_diag *diag = conf_diag_new();
    if (policy_suggest_write(s, &out, &err) != 0) {
        fail_msg("%s: %s", err.where, err.what);
    }
    if (conf_parse_policy("s", (const char *)buf_head(&out), buf_len(&out), diag, &m.conf) != 0) {
        fail_msg("%s\n%.*s", conf_diag_get(diag, 0)->what, (int)buf_len(&out),
                 (const char *)buf_head(&out));
    }
    m.policy = policy_new(m.conf, &err);
    if (m.policy == NULL) {
        fail_msg("%s", err.what);
    }
    conf_diag_free(diag);
    buf_reset(&out);
    return m;
}

static bool allows(const struct policy *p, const char *line)
{
    struct policy_record r;
    struct policy_verdict v;
    assert_int_equal(parse(line, &r), POLICY_RECORD_DECISION);
    policy_decide(p, &r.query, &v);
    policy_record_deinit(&r);
    return v.allow;
}

/* All that was seen, and of the whole product nothing that was not. A port that was seen as a
 * connection is open for every method: the language has no narrower word. */
static void run_suggest(bool with_paths)
{
    bool seen[N_TARGETS][N_PEERS][N_PORTS][N_METHODS] = {0};
    struct policy_suggest_options o = {.paths = with_paths};
    struct policy_suggest *s = policy_suggest_new(&o);
    char lines[40][600];
    unsigned n = below(40);
    for (unsigned i = 0; i < n; i++) {
        unsigned t = below(N_TARGETS), p = below(N_PEERS), q = below(N_PORTS), m = below(N_METHODS);
        const char *path = paths[below(sizeof(paths) / sizeof(paths[0]) - !with_paths)];
        struct policy_record r;
        make_line(lines[i], sizeof(lines[i]), t, p, q, m, path);
        assert_int_equal(parse(lines[i], &r), POLICY_RECORD_DECISION);
        policy_suggest_add(s, &r);
        policy_record_deinit(&r);
        seen[t][p][q][m] = true;
    }
    struct policy_suggest_count count;
    policy_suggest_counts(s, &count);
    assert_int_equal(count.taken, n);
    struct made made = suggest(s);
    for (unsigned i = 0; i < n; i++) {
        if (!allows(made.policy, lines[i])) {
            fail_msg("not allowed: %s", lines[i]);
        }
    }
    for (unsigned i = 0; i < N_TARGETS * N_PEERS * N_PORTS * N_METHODS; i++) {
        unsigned m = i % N_METHODS, q = i / N_METHODS % N_PORTS;
        unsigned p = i / N_METHODS / N_PORTS % N_PEERS, t = i / N_METHODS / N_PORTS / N_PEERS;
        char line[600];
        bool want = seen[t][p][q][m] || seen[t][p][q][0];
        make_line(line, sizeof(line), t, p, q, m, "/elsewhere/entirely");
        bool got = allows(made.policy, line);
        if (got && !want) {
            fail_msg("allowed, and never seen: %s", line);
        }
        assert_true(got || !want || with_paths);
    }
    policy_free(made.policy);
    conf_policy_free(made.conf);
    policy_suggest_free(s);
}

static void test_suggest_is_exact(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        run_suggest(i % 2 == 1);
    }
}

static void add(struct policy_suggest *s, const char *line)
{
    struct policy_record r;
    assert_int_equal(parse(line, &r), POLICY_RECORD_DECISION);
    policy_suggest_add(s, &r);
    policy_record_deinit(&r);
}

/* What no rule can say is counted, and never said more widely. */
static void test_suggest_leaves_out(void **state)
{
    (void)state;
    struct policy_suggest_options o = {.paths = false};
    struct policy_suggest *s = policy_suggest_new(&o);
    add(s, "{\"event\":\"connection\"," AT "\"port\":1,\"verdict\":\"allow\"}");
    add(s, "{\"event\":\"connection\"," AT PEER "\"port\":1,\"verdict\":\"deny\"}");
    add(s, "{\"event\":\"connection\"," AT
           "\"peer_id\":\"dns:*.a.example\",\"port\":1,\"verdict\":\"allow\"}");
    add(s, "{\"event\":\"connection\"," AT
           "\"peer_id\":\"cn:a\\\", \\\"*\",\"port\":1,\"verdict\":\"allow\"}");
    struct policy_suggest_count count;
    policy_suggest_counts(s, &count);
    assert_int_equal(count.taken, 0);
    assert_int_equal(count.no_identity, 1);
    assert_int_equal(count.denied, 1);
    assert_int_equal(count.unspeakable, 2);
    struct made made = suggest(s);
    assert_int_equal(made.conf->n_rules, 0);
    policy_free(made.policy);
    conf_policy_free(made.conf);
    policy_suggest_free(s);
}

static void test_suggest_reads_well(void **state)
{
    (void)state;
    struct policy_suggest_options o = {.paths = true};
    struct policy_suggest *s = policy_suggest_new(&o);
    struct buf out = BUF_INIT(1 << 20);
    for (unsigned i = 0; i < 6; i++) {
        char path[60], line[600];
        snprintf(path, sizeof(path), "/orders/%u", 17 + i);
        make_line(line, sizeof(line), 0, 0, 0, 1, path);
        add(s, line);
        snprintf(path, sizeof(path), "/users/name%c/mail", 'a' + (char)i);
        make_line(line, sizeof(line), 0, 0, 0, 1, path);
        add(s, line);
        make_line(line, sizeof(line), 0, 1, 1, 0, "");
        add(s, line);
        make_line(line, sizeof(line), 0, 2, 1, 0, "");
        add(s, line);
    }
    assert_int_equal(policy_suggest_write(s, &out, NULL), 0);
    static const char want[] =
        "kind: Policy\nlevel: 2\n\nrules:\n"
        "  - name: t-from-x\n    action: ALLOW\n    target:\n      principals: [spiffe://a.b/t]\n"
        "    from:\n      - principals: [spiffe://a.b/x]\n    to:\n      - ports: [80]\n"
        "        methods: [GET]\n        paths: [\"/orders/{}\", \"/users/{}/mail\"]\n\n"
        "  - name: t-from-2-callers\n    action: ALLOW\n    target:\n"
        "      principals: [spiffe://a.b/t]\n    from:\n"
        "      - principals: [spiffe://a.b/x/t, spiffe://a.b/xy]\n    to:\n"
        "      - ports: [81]\n";
    char got[2000];
    snprintf(got, sizeof(got), "%.*s", (int)buf_len(&out), (const char *)buf_head(&out));
    assert_string_equal(got, want);
    buf_reset(&out);
    policy_suggest_free(s);
}

/* --- replay ------------------------------------------------------------------------------------
 */
static void test_replay(void **state)
{
    (void)state;
    static const char text[] =
        "kind: Policy\nlevel: 1\nrules:\n  - {name: new, action: ALLOW, from: [{principals: "
        "[\"spiffe://a.b/x\"]}], to: [{ports: [80], methods: [GET]}]}\n";
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct buf out = BUF_INIT(1 << 20);
    assert_int_equal(conf_parse_policy("p", text, strlen(text), diag, &conf), 0);
    struct policy *p = policy_new(conf, NULL);
    struct policy_replay *replay = policy_replay_new(conf, p, 1000, NULL);
    assert_non_null(replay);
    for (unsigned i = 0; i < 5; i++) {
        char line[600];
        struct policy_record r;
        make_line(line, sizeof(line), 0, 0, 0, 1, "/a"); /* stays allowed */
        assert_int_equal(parse(line, &r), POLICY_RECORD_DECISION);
        policy_replay_add(replay, &r);
        r.allowed = false; /* would be allowed */
        policy_replay_add(replay, &r);
        policy_record_deinit(&r);
        make_line(line, sizeof(line), 0, 1, 0, 2, "/a"); /* would be denied */
        assert_int_equal(parse(line, &r), POLICY_RECORD_DECISION);
        policy_replay_add(replay, &r);
        policy_record_deinit(&r);
    }
    struct policy_replay_count count;
    policy_replay_counts(replay, &count);
    assert_int_equal(count.decisions, 15);
    assert_int_equal(count.changed, 10);
    assert_int_equal(count.maybe, 0);
    assert_true(policy_replay_print(replay, false, &out));
    char said[4000];
    snprintf(said, sizeof(said), "%.*s", (int)buf_len(&out), (const char *)buf_head(&out));
    assert_non_null(strstr(said,
                           "would be allowed  5  spiffe://a.b/x -> spiffe://a.b/t port 80 GET\n"
                           "    now by rule \"new\"\n    such as /a\n"));
    assert_non_null(strstr(said, "would be denied  5  spiffe://a.b/xy -> spiffe://a.b/t port 80 "
                                 "POST\n    now by none: rule \"new\": principals "));
    assert_non_null(strstr(said, "15 decisions, 10 would change, 0 may\n"));
    buf_reset(&out);
    assert_true(policy_replay_print(replay, true, &out));
    json_t *doc = json_loadb((const char *)buf_head(&out), buf_len(&out), 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(doc, "changed")), 10);
    assert_int_equal(json_array_size(json_object_get(doc, "changes")), 2);
    json_decref(doc);
    buf_reset(&out);
    policy_replay_free(replay);
    policy_free(p);
    conf_policy_free(conf);
    conf_diag_free(diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_suggest_is_exact),
        cmocka_unit_test(test_suggest_leaves_out),
        cmocka_unit_test(test_suggest_reads_well),
        cmocka_unit_test(test_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
