/*
 * policy: a peer without an identity, as docs/permissive.md says it: each positive clause about who
 * it is is false; a not_ form is false in ALLOW and true otherwise. Said once more here by taking
 * these clauses out of a random policy; what is left speaks of no identity and has to decide alike,
 * for nobody and for anybody, by the engine and by the reference. test_policy_nobody [SEED]
 */
#include <postern/policy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy_gen.h"
#include "policy_ref.h"
#include "policy_rows.h"

static uint64_t seed = 20261127; /* or the first argument */

/* --- without identities ------------------------------------------------------------------------*/

/* Whether an entry can hold for nobody; then its clauses about identities are gone. */
static bool strip_from(struct conf_policy_from *f, enum conf_action action)
{
    size_t positive =
        f->principals.n + f->namespaces.n + f->service_accounts.n + f->trust_domains.n;
    size_t negative = f->not_principals.n + f->not_namespaces.n + f->not_service_accounts.n +
                      f->not_trust_domains.n;
    if (positive > 0 || (negative > 0 && action == CONF_ALLOW)) {
        return false;
    }
    f->not_principals.n = f->not_namespaces.n = f->not_service_accounts.n = f->not_trust_domains.n =
        0;
    return true;
}

struct stripped {
    struct conf_policy conf;
    struct conf_policy_from **from; /* owned, each; of the rules */
    size_t n_from, changed;
};

static void strip(const struct conf_policy *conf, struct stripped *s)
{
    *s = (struct stripped){.conf = *conf};
    s->conf.rules = policy_rows_must(calloc(conf->n_rules + 1, sizeof(conf->rules[0])));
    s->from = policy_rows_must(calloc(conf->n_rules + 1, sizeof(struct conf_policy_from *)));
    s->conf.n_rules = 0;
    for (size_t i = 0; i < conf->n_rules; i++) {
        struct conf_rule r = conf->rules[i];
        struct conf_policy_from *from =
            policy_rows_must(calloc(r.n_from + 1, sizeof(struct conf_policy_from)));
        s->from[s->n_from++] = from;
        size_t n = 0;
        for (size_t k = 0; k < r.n_from; k++) {
            from[n] = r.from[k];
            n += strip_from(&from[n], r.action) ? 1 : 0;
        }
        s->changed += r.n_from - n;
        if (r.n_from == 0 || n > 0) { /* a rule whose every entry is false is none */
            r.from = from;
            r.n_from = n;
            s->conf.rules[s->conf.n_rules++] = r;
        }
    }
}

static void strip_deinit(struct stripped *s)
{
    for (size_t i = 0; i < s->n_from; i++) {
        free(s->from[i]);
    }
    free(s->from);
    free(s->conf.rules);
}

/* --- the comparison ----------------------------------------------------------------------------*/

static void same(const struct policy_verdict *a, const struct policy_verdict *b, const char *who)
{
    if (a->allow != b->allow || a->rule_line != b->rule_line || a->shadow != b->shadow ||
        (a->audit == NULL) != (b->audit == NULL)) {
        fail_msg("seed %llu, %s: %s by %s, and %s by %s", (unsigned long long)seed, who,
                 a->allow ? "allow" : "deny", a->rule != NULL ? a->rule : "none",
                 b->allow ? "allow" : "deny", b->rule != NULL ? b->rule : "none");
    }
}

static void test_nobody(void **state)
{
    enum { CASES = 60000, CASES_EACH = 30, BUDGET_S = 2 };
    struct policy_gen gen = {seed};
    clock_t end = clock() + (clock_t)BUDGET_S * CLOCKS_PER_SEC;
    unsigned done = 0, allowed = 0, by_rule = 0;
    size_t changed = 0;
    (void)state;
    while (done < CASES && clock() < end) {
        struct conf_policy *conf = policy_gen_conf(&gen);
        struct stripped s;
        strip(conf, &s);
        struct policy *p = policy_new(conf, NULL);
        struct policy *without = policy_new(&s.conf, NULL);
        assert_non_null(p);
        assert_non_null(without);
        for (unsigned i = 0; i < CASES_EACH; i++, done++) {
            struct policy_gen_room room;
            struct question somebody = policy_gen_question(&gen, &room), nobody = somebody;
            struct sockaddr_storage source;
            struct policy_verdict is = {0}, ref = {0}, want = {0}, any = {0};
            nobody.peer = NULL;
            struct policy_query q = policy_rows_query(&nobody, &source);
            policy_decide(p, &q, &is);
            policy_ref_decide(conf, &q, &ref);
            policy_decide(without, &q, &want);
            q = policy_rows_query(&somebody, &source);
            policy_decide(without, &q, &any);
            same(&is, &ref, "engine and reference");
            same(&is, &want, "nobody, with and without clauses about identities");
            same(&want, &any, "without such clauses, nobody and somebody");
            allowed += is.allow;
            by_rule += is.reason == POLICY_DENIED_BY_RULE;
        }
        changed += s.changed;
        policy_free(p);
        policy_free(without);
        strip_deinit(&s);
        policy_rows_free(conf);
    }
    /* Both happen often, and there was something to take out. */
    assert_true(allowed > done / 200);
    assert_true(by_rule > done / 200);
    assert_true(changed > done / CASES_EACH / 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nobody)};
    if (argc > 1 && (!str_to_u64(str_of(argv[1]), UINT64_MAX, &seed) || seed == 0)) {
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
