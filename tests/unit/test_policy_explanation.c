/* policy_explanation: what is said of a verdict is so, and what is proposed turns it, by the
 * reference evaluator as well. */
#include <postern/policy_explanation.h>

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

#define ALLOW .action = CONF_ALLOW
#define DENY .action = CONF_DENY

/* --- one by one --------------------------------------------------------------------------------*/

static const struct row rows[] = {
    {.name = "read",
     ALLOW,
     .from = true,
     .to = true,
     .target = {ORDERS},
     .principals = {"spiffe://a.b/frontend", "spiffe://a.b/web"},
     .ports = {8080},
     .methods = {"GET", "HEAD"},
     .paths = {"/orders/{}"}},
    {.name = "no-admin",
     DENY,
     .from = true,
     .to = true,
     .not_principals = {"spiffe://a.b/operator"},
     .paths = {"/admin*"}},
    {.name = "env",
     ALLOW,
     .to = true,
     .target = {ORDERS},
     .ports = {9090},
     .headers = {{.name = "x-env", .values = {"test"}}},
     .not_blocks = {NULL}},
};

struct explained {
    struct conf_policy *conf;
    struct policy *policy;
    struct policy_explanation *e;
};

static void explain(struct explained *x, const struct question *question)
{
    struct sockaddr_storage source;
    struct policy_query q = policy_rows_query(question, &source);
    x->conf = policy_rows_conf(rows, sizeof(rows) / sizeof(rows[0]));
    x->policy = policy_new(x->conf, NULL);
    assert_non_null(x->policy);
    x->e = policy_explanation_new(x->conf, x->policy, &q);
    assert_true(x->e->turns);
}

static void explained_deinit(struct explained *x)
{
    policy_explanation_free(x->e);
    policy_free(x->policy);
    policy_rows_free(x->conf);
}

static void assert_edit(const struct explained *x, size_t i, const char *text)
{
    struct buf out = BUF_INIT(1024);
    assert_true(i < x->e->n_edits);
    assert_true(policy_edit_text(x->conf, &x->e->edits[i], &out));
    assert_true(buf_append(&out, "", 1));
    assert_string_equal((const char *)buf_head(&out), text);
    buf_reset(&out);
}

static void test_nothing_allows(void **state)
{
    (void)state;
    struct explained x;
    explain(&x, &(struct question){"spiffe://a.b/web", "10.0.0.1", "PUT", "h", "/orders/1", 8080});
    assert_int_equal(x.e->verdict.reason, POLICY_NO_RULE);
    assert_int_equal(x.e->n_looks, 3);
    const struct policy_look *look = &x.e->looks[0];
    assert_false(look->matched);
    assert_int_equal(look->n_failures, 1);
    assert_int_equal(look->failures[0].clause, POLICY_CLAUSE_METHODS);
    assert_false(look->failures[0].negative);
    assert_int_equal(look->failures[0].n_items, 2);
    assert_string_equal(look->failures[0].items[1], "HEAD");
    assert_string_equal(look->failures[0].actual, "PUT");
    assert_int_equal(x.e->looks[1].failures[0].clause, POLICY_CLAUSE_PATHS);
    assert_string_equal(policy_clause_name(POLICY_CLAUSE_PATHS, true), "not_paths");
    assert_int_equal(x.e->n_edits, 1);
    assert_edit(&x, 0, "add PUT to methods of to[0] of rule read (line 1)");
    explained_deinit(&x);
}

static void test_denied_by_rule(void **state)
{
    (void)state;
    struct explained x;
    explain(&x, &(struct question){"spiffe://a.b/web", "10.0.0.1", "GET", "h", "/admin/x", 8080});
    assert_int_equal(x.e->verdict.reason, POLICY_DENIED_BY_RULE);
    assert_true(x.e->looks[1].decided);
    assert_true(x.e->looks[1].matched);
    assert_int_equal(x.e->n_edits, 2);
    assert_edit(&x, 0,
                "add spiffe://a.b/web to not_principals of from[0] of rule no-admin (line 2)");
    assert_edit(&x, 1, "add /admin/x to paths of to[0] of rule read (line 1)");
    explained_deinit(&x);
}

static void test_what_is_missing(void **state)
{
    (void)state;
    struct explained x;
    const struct policy_headers none = {0};
    explain(&x, &(struct question){NULL, "10.0.0.1", "GET", "h", "/x", 9090, .headers = &none});
    const struct policy_failure *f = &x.e->looks[2].failures[0];
    assert_int_equal(f->clause, POLICY_CLAUSE_HEADERS);
    assert_string_equal(f->name, "x-env");
    assert_int_equal(f->why, POLICY_WHY_MISSING);
    assert_null(f->actual);
    assert_edit(&x, 0, "remove x-env from headers of to[0] of rule env (line 3)");
    explained_deinit(&x);
    /* as a connection nothing but a rule of its own helps */
    explain(&x, &(struct question){NULL, "10.0.0.1", NULL, NULL, NULL, 8080});
    assert_int_equal(x.e->looks[0].failures[1].why, POLICY_WHY_NO_REQUEST);
    assert_int_equal(x.e->edits[0].kind, POLICY_EDIT_ADD_RULE);
    assert_edit(&x, 0,
                "add a rule proposed-1: ALLOW, target principals [" ORDERS
                "], ip_blocks [10.0.0.1], ports [8080]");
    explained_deinit(&x);
}

static void test_allowed(void **state)
{
    (void)state;
    struct explained x;
    explain(&x, &(struct question){"spiffe://a.b/web", "10.0.0.1", "GET", "h", "/orders/1", 8080});
    assert_true(x.e->verdict.allow);
    assert_true(x.e->looks[0].decided);
    assert_int_equal(x.e->n_edits, 1);
    assert_edit(&x, 0, "remove spiffe://a.b/web from principals of from[0] of rule read (line 1)");
    explained_deinit(&x);
}

/* --- at random ---------------------------------------------------------------------------------*/

static uint64_t seed = 20240607; /* or the first argument */

static void check_looks(const struct conf_policy *conf, const struct policy_query *q,
                        const struct policy_explanation *e)
{
    bool decided = e->verdict.rule == NULL;
    for (size_t i = 0; i < e->n_looks; i++) {
        const struct policy_look *l = &e->looks[i];
        unsigned failed = policy_ref_failed_clauses(&conf->rules[l->rule], q);
        assert_true(l->ended || l->matched == (failed == 0));
        assert_true(l->ended || l->n_failures == failed);
        decided = decided || l->decided;
    }
    assert_true(decided);
}

static void test_proposals_turn(void **state)
{
    (void)state;
    enum { CASES = 20000, CASES_EACH = 4, BUDGET_S = 2 };
    clock_t end = clock() + (clock_t)BUDGET_S * CLOCKS_PER_SEC;
    struct policy_gen gen = {seed};
    unsigned done = 0, denials = 0, small = 0;
    while (done < CASES && clock() < end) {
        struct conf_policy *conf = policy_gen_conf(&gen);
        struct policy *p = policy_new(conf, NULL);
        assert_non_null(p);
        for (unsigned i = 0; i < CASES_EACH; i++, done++) {
            struct policy_gen_room room;
            struct question question = policy_gen_question(&gen, &room);
            struct sockaddr_storage source;
            struct policy_query q = policy_rows_query(&question, &source);
            struct policy_explanation *e = policy_explanation_new(conf, p, &q);
            check_looks(conf, &q, e);
            struct policy_edited *edited = policy_edited_new(conf, e->edits, e->n_edits);
            struct policy_verdict v = {0};
            policy_ref_decide(policy_edited_conf(edited), &q, &v);
            if (!e->turns || v.allow == e->verdict.allow) {
                fail_msg("seed %llu, case %u: %zu edits do not turn it", (unsigned long long)seed,
                         done, e->n_edits);
            }
            denials += !e->verdict.allow;
            small += e->n_edits == 1;
            policy_edited_free(edited);
            policy_explanation_free(e);
        }
        policy_free(p);
        policy_rows_free(conf);
    }
    print_message("seed %llu: %u cases, %u denials, %u turned by one edit\n",
                  (unsigned long long)seed, done, denials, small);
    assert_true(denials > done / 10 && denials < done && small > done / 10);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_allows),  cmocka_unit_test(test_denied_by_rule),
        cmocka_unit_test(test_what_is_missing), cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_proposals_turn),
    };
    if (argc > 1 && (!str_to_u64(str_of(argv[1]), UINT64_MAX, &seed) || seed == 0)) {
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
