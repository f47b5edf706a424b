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

#include "policy_gen.h"
#include "policy_ref.h"
#include "policy_rows.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t seed = 20240607; /* or the first argument */
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
            assert_true(only_target.action != CONF_ALLOW || only_target.mode == CONF_DRY_RUN ||
                        only_target.expires_s != 0 ||
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

/* --- when they differ --------------------------------------------------------------------------*/

static bool differs_in(const struct policy_verdict *v, const struct policy_verdict *ref)
{
    return v->allow != ref->allow || v->rule_line != ref->rule_line || v->shadow != ref->shadow ||
           (v->audit == NULL) != (ref->audit == NULL) ||
           (v->audit != NULL && strcmp(v->audit, ref->audit) != 0);
}

static bool differs(const struct conf_policy *conf, const struct policy_query *q)
{
    struct policy_verdict v = {0}, ref = {0};
    struct policy *p = policy_new(conf, NULL);
    policy_decide(p, q, &v);
    policy_ref_decide(conf, q, &ref);
    policy_free(p);
    return differs_in(&v, &ref);
}

/* Leaves out of the array what does not matter: entry by entry, while they still differ. */
#define SHRINK(conf, q, array, n)                                                                  \
    for (size_t at_ = 0; at_ < (n) && (n) > 1;) {                                                  \
        __typeof__((array)[0]) gone_ = (array)[at_];                                               \
        memmove(&(array)[at_], &(array)[at_ + 1], ((n) - at_ - 1) * sizeof(gone_));                \
        (n)--;                                                                                     \
        if (!differs(conf, q)) {                                                                   \
            memmove(&(array)[at_ + 1], &(array)[at_], ((n) - at_) * sizeof(gone_));                \
            (array)[at_++] = gone_;                                                                \
            (n)++;                                                                                 \
        }                                                                                          \
    }

static void print_strings(const char *name, const struct conf_strings *list)
{
    for (size_t i = 0; i < list->n; i++) {
        print_message("    %s: %s\n", name, list->items[i]);
    }
}

static void print_values(const char *name, const struct conf_policy_values *list)
{
    for (size_t i = 0; i < list->n; i++) {
        print_message("    %s %s%s\n", name, list->items[i].name,
                      list->items[i].present ? " present" : "");
        print_strings("  value", &list->items[i].values);
    }
}

static void print_rule(const struct conf_rule *r)
{
    print_message("  rule %s: action %d, mode %d, ends %lld, %zu from, %zu to\n", r->name,
                  r->action, r->mode, (long long)r->expires_s, r->n_from, r->n_to);
    print_strings("target", &r->target_principals);
    for (size_t i = 0; i < r->n_from; i++) {
        const struct conf_policy_from *f = &r->from[i];
        print_strings("principal", &f->principals);
        print_strings("not principal", &f->not_principals);
        print_strings("domain", &f->trust_domains);
        print_strings("not domain", &f->not_trust_domains);
        print_strings("namespace", &f->namespaces);
        print_strings("not namespace", &f->not_namespaces);
        print_strings("account", &f->service_accounts);
        print_strings("not account", &f->not_service_accounts);
        print_values("claim", &f->claims);
        print_values("not claim", &f->not_claims);
        print_message("    %zu and not %zu blocks\n", f->ip_blocks.n, f->not_ip_blocks.n);
    }
    for (size_t i = 0; i < r->n_to; i++) {
        const struct conf_policy_to *t = &r->to[i];
        print_message("    %zu and not %zu ports\n", t->n_ports, t->n_not_ports);
        print_strings("method", &t->methods);
        print_strings("not method", &t->not_methods);
        print_strings("host", &t->hosts);
        print_strings("not host", &t->not_hosts);
        print_strings("path", &t->paths);
        print_strings("not path", &t->not_paths);
        print_strings("grpc", &t->grpc);
        print_strings("not grpc", &t->not_grpc);
        print_values("query", &t->query);
        print_values("not query", &t->not_query);
        print_values("header", &t->headers);
        print_values("not header", &t->not_headers);
    }
}

static void print_difference(struct conf_policy *conf, const struct policy_query *q)
{
    struct conf_rule *all = conf->rules;
    size_t n = conf->n_rules;
    conf->rules = policy_rows_must(calloc(n, sizeof(conf->rules[0])));
    memcpy(conf->rules, all, n * sizeof(all[0]));
    SHRINK(conf, q, conf->rules, conf->n_rules);
    for (size_t i = 0; i < conf->n_rules; i++) {
        SHRINK(conf, q, conf->rules[i].from, conf->rules[i].n_from);
        SHRINK(conf, q, conf->rules[i].to, conf->rules[i].n_to);
        print_rule(&conf->rules[i]);
    }
    print_message("  %.*s to %.*s, port %u, http %d, grpc %d, %.*s %.*s?%.*s, now %lld\n",
                  (int)q->peer.n, q->peer.p, (int)q->target.n, q->target.p, q->port, q->http,
                  q->grpc, (int)q->method.n, q->method.p, (int)q->path.n, q->path.p,
                  (int)q->query.n, q->query.p, (long long)q->now_s);
    for (size_t i = 0; q->headers != NULL && i < q->headers->n; i++) {
        print_message("  header %.*s: %.*s\n", (int)q->headers->items[i].name.n,
                      q->headers->items[i].name.p, (int)q->headers->items[i].value.n,
                      q->headers->items[i].value.p);
    }
}

static void test_against_reference(void **state)
{
    (void)state;
    enum { CASES = 200000, CASES_EACH = 50, BUDGET_S = 3 };
    struct policy_gen gen = {seed};
    clock_t end = clock() + (clock_t)BUDGET_S * CLOCKS_PER_SEC;
    unsigned done = 0;
    unsigned outcomes[4] = {0}, shadows = 0, audits = 0;
    while (done < CASES && clock() < end) {
        struct conf_policy *conf = policy_gen_conf(&gen);
        struct err err = ERR_INIT;
        struct policy *p = policy_new(conf, &err);
        assert_non_null(p);
        for (unsigned i = 0; i < CASES_EACH; i++, done++) {
            struct policy_gen_room room;
            struct question question = policy_gen_question(&gen, &room);
            struct sockaddr_storage source;
            struct policy_query q = policy_rows_query(&question, &source);
            struct policy_verdict v = {0};
            struct policy_verdict ref = {0};
            policy_decide(p, &q, &v);
            policy_ref_decide(conf, &q, &ref);
            if (differs_in(&v, &ref)) {
                print_difference(conf, &q);
                fail_msg("seed %llu, case %u: %s by %s, reference %s by %s",
                         (unsigned long long)seed, done, v.allow ? "allow" : "deny",
                         v.rule != NULL ? v.rule : "none", ref.allow ? "allow" : "deny",
                         ref.rule != NULL ? ref.rule : "none");
            }
            policy_rows_same_verdict(&v, &ref);
            assert_int_equal(policy_wants_requests(p, q.target, q.port),
                             policy_ref_wants_requests(conf, q.target, q.port));
            outcomes[v.reason]++;
            shadows += v.shadow != POLICY_SHADOW_SAME;
            audits += v.audit != NULL;
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
    /* All happen often, or the comparison compares nothing. */
    assert_true(outcomes[POLICY_ALLOWED] > done / 50);
    assert_true(outcomes[POLICY_DENIED_BY_RULE] > done / 50);
    assert_true(outcomes[POLICY_NO_RULE] > done / 50);
    assert_true(shadows > done / 200);
    assert_true(audits > done / 200);
}

/* So many rules that they are put together by what they ask about. */
static void test_large_against_reference(void **state)
{
    (void)state;
    enum { RULES = 6000, POLICIES = 2, QUESTIONS = 60 };
    struct policy_gen gen = {seed};
    unsigned outcomes[4] = {0};
    for (unsigned k = 0; k < POLICIES; k++) {
        struct conf_policy *conf = policy_gen_large(&gen, RULES);
        struct policy *p = policy_new(conf, NULL);
        assert_non_null(p);
        for (unsigned i = 0; i < QUESTIONS; i++) {
            struct policy_gen_room room;
            struct question question = policy_gen_question(&gen, &room);
            struct sockaddr_storage source;
            struct policy_query q = policy_rows_query(&question, &source);
            struct policy_verdict v = {0};
            struct policy_verdict ref = {0};
            policy_decide(p, &q, &v);
            policy_ref_decide(conf, &q, &ref);
            if (differs_in(&v, &ref)) {
                fail_msg("seed %llu, question %u: line %u, reference %u", (unsigned long long)seed,
                         i, v.rule_line, ref.rule_line);
            }
            outcomes[v.reason]++;
        }
        policy_free(p);
        policy_rows_free(conf);
    }
    print_message("of many rules: %u allowed, %u denied by rule, %u by none\n",
                  outcomes[POLICY_ALLOWED], outcomes[POLICY_DENIED_BY_RULE],
                  outcomes[POLICY_NO_RULE]);
    assert_true(outcomes[POLICY_ALLOWED] > 0 && outcomes[POLICY_DENIED_BY_RULE] > 0);
}

/* Threads share a policy without a lock: the thread sanitizer watches, the verdicts are the same.
 */
enum { THREADS = 3, SHARED_QUESTIONS = 2000 };

struct shared {
    const struct policy *policy;
    struct question questions[SHARED_QUESTIONS];
    struct policy_gen_room rooms[SHARED_QUESTIONS];
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
    struct policy_gen gen = {seed};
    struct shared *s = policy_rows_must(calloc(1, sizeof(*s)));
    struct conf_policy *conf = policy_gen_conf(&gen);
    while (conf->n_rules < 20) {
        policy_rows_free(conf);
        conf = policy_gen_conf(&gen);
    }
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    s->policy = p;
    for (size_t i = 0; i < SHARED_QUESTIONS; i++) {
        struct sockaddr_storage source;
        s->questions[i] = policy_gen_question(&gen, &s->rooms[i]);
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
        cmocka_unit_test(test_large_against_reference),
        cmocka_unit_test(test_threads_share_a_policy),
    };
    if (argc > 1 && (!str_to_u64(str_of(argv[1]), UINT64_MAX, &seed) || seed == 0)) {
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
