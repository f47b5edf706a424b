/* policy: random policies and questions against a second evaluator; as few and as alike names as
 * make them meet. test_policy_random [SEED] */
#include <postern/policy.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy_ref.h"
#include "policy_rows.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- at random ---------------------------------------------------------------------------------*/

static uint64_t seed = 20240607; /* or the first argument */
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
    return i < n_a || b == NULL ? a[i % n_a] : b[i - n_a];
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
    return policy_rows_conf(rows, n);
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
    rng_state = seed;
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
            struct policy_query q = policy_rows_query(&question, &source);
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
            policy_rows_same_verdict(&v, &ref);
            assert_int_equal(policy_wants_requests(p, q.target, q.port),
                             policy_ref_wants_requests(conf, q.target, q.port));
            outcomes[v.reason]++;
            if (v.reason == POLICY_NO_RULE && i % 4 == 0) {
                check_near_miss(conf, p, &q);
            }
        }
        policy_free(p);
        policy_rows_free(conf);
    }
    print_message("seed %llu: %u cases: %u allowed, %u denied by rule, %u by none\n",
                  (unsigned long long)seed, done, outcomes[POLICY_ALLOWED],
                  outcomes[POLICY_DENIED_BY_RULE], outcomes[POLICY_NO_RULE]);
    /* All three happen often, or the comparison compares nothing. */
    assert_true(outcomes[POLICY_ALLOWED] > done / 50);
    assert_true(outcomes[POLICY_DENIED_BY_RULE] > done / 50);
    assert_true(outcomes[POLICY_NO_RULE] > done / 50);
}

/* Threads share a policy without a lock: the thread sanitizer watches, the verdicts are the same.
 */
enum { THREADS = 3, SHARED_QUESTIONS = 2000 };

struct shared {
    const struct policy *policy;
    struct question questions[SHARED_QUESTIONS];
    struct policy_verdict verdicts[SHARED_QUESTIONS];
    unsigned differ[THREADS];
};

struct asker {
    struct shared *shared;
    unsigned number;
};

static void *ask_all(void *arg)
{
    struct asker *a = arg;
    for (size_t i = 0; i < SHARED_QUESTIONS; i++) {
        struct sockaddr_storage source;
        struct policy_query q = policy_rows_query(&a->shared->questions[i], &source);
        struct policy_verdict v = {0};
        char text[512];
        policy_decide(a->shared->policy, &q, &v);
        policy_near_miss(a->shared->policy, &q, text, sizeof(text));
        const struct policy_verdict *want = &a->shared->verdicts[i];
        a->shared->differ[a->number] += v.allow != want->allow || v.rule != want->rule;
    }
    return NULL;
}

static void test_threads_share_a_policy(void **state)
{
    (void)state;
    rng_state = seed;
    struct shared *s = policy_rows_must(calloc(1, sizeof(*s)));
    struct conf_policy *conf = random_conf();
    while (conf->n_rules < 20) {
        policy_rows_free(conf);
        conf = random_conf();
    }
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    s->policy = p;
    for (size_t i = 0; i < SHARED_QUESTIONS; i++) {
        struct sockaddr_storage source;
        s->questions[i] = random_question();
        struct policy_query q = policy_rows_query(&s->questions[i], &source);
        policy_decide(p, &q, &s->verdicts[i]);
    }
    pthread_t threads[THREADS];
    struct asker askers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        askers[i] = (struct asker){s, i};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all, &askers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(s->differ[i], 0);
    }
    policy_free(p);
    policy_rows_free(conf);
    free(s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_threads_share_a_policy),
    };
    if (argc > 1 && (!str_to_u64(str_of(argv[1]), UINT64_MAX, &seed) || seed == 0)) {
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
