/* policy: rules that end, are on trial, or only mark; and what of that concerns live connections.
 */
#include <postern/policy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_rows.h"

#define ALLOW .action = CONF_ALLOW
#define DENY .action = CONF_DENY
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct policy *policy_of(const struct row *rows, size_t n)
{
    struct conf_policy *conf = policy_rows_conf(rows, n);
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    policy_rows_free(conf);
    return p;
}

static struct policy_verdict ask(const struct policy *p, const char *peer, int64_t now_s)
{
    struct policy_query q = {.target = STR_LIT(ORDERS), .peer = str_of(peer), .now_s = now_s};
    struct policy_verdict v = {0};
    policy_decide(p, &q, &v);
    return v;
}

static const struct row ending[] = {
    {.name = "a", ALLOW, .from = true, .principals = {"spiffe://a.b/a"}, .expires_s = 100},
    {.name = "all", ALLOW, .from = true, .principals = {"*"}, .expires_s = 200},
    {.name = "not-b", DENY, .from = true, .principals = {"spiffe://a.b/b"}, .expires_s = 150},
    {.name = "on-trial", ALLOW, .mode = CONF_DRY_RUN, .expires_s = 170},
};

static void test_ends(void **state)
{
    (void)state;
    struct policy *p = policy_of(ending, COUNT(ending));
    assert_string_equal(ask(p, "spiffe://a.b/a", 99).rule, "a");
    assert_string_equal(ask(p, "spiffe://a.b/a", 100).rule, "all"); /* from then on */
    assert_false(ask(p, "spiffe://a.b/a", 200).allow);
    assert_string_equal(ask(p, "spiffe://a.b/b", 149).rule, "not-b");
    assert_true(ask(p, "spiffe://a.b/b", 150).allow);
    /* a time that is not known ends what allows, and nothing that denies */
    assert_int_equal(ask(p, "spiffe://a.b/a", 0).reason, POLICY_NO_RULE);
    assert_int_equal(ask(p, "spiffe://a.b/b", 0).reason, POLICY_DENIED_BY_RULE);
    assert_int_equal(policy_next_expiry(p, 0), 100);
    assert_int_equal(policy_next_expiry(p, 100), 150);
    assert_int_equal(policy_next_expiry(p, 199), 200);
    assert_int_equal(policy_next_expiry(p, 200), 0);
    assert_int_equal(policy_next_expiry(NULL, 0), 0);
    policy_free(p);
}

/* Of whom it takes something away: ALLOW rules that ended in between. */
static void test_whom_an_end_concerns(void **state)
{
    (void)state;
    struct policy *p = policy_of(ending, COUNT(ending));
    static const struct {
        int64_t before_s, now_s;
        size_t n;
    } cases[] = {{0, 99, 0}, {99, 100, 1}, {100, 199, 0}, {50, 300, 2}, {200, 300, 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct policy_change c = {.everybody = false};
        policy_compare_time(p, cases[i].before_s, cases[i].now_s, &c);
        assert_int_equal(c.n_gone, cases[i].n);
        assert_false(c.everybody);
        for (size_t k = 1; k < c.n_gone; k++) {
            assert_true(c.gone[k - 1] < c.gone[k]);
        }
        if (c.n_gone == 1) {
            assert_true(c.gone[0] == ask(p, "spiffe://a.b/a", 99).rule_key);
        }
        policy_change_deinit(&c);
    }
    policy_free(p);
}

static void test_trial(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {.name = "in", ALLOW, .from = true, .principals = {"spiffe://a.b/a"}},
        {.name = "try-deny", DENY, .mode = CONF_DRY_RUN, .from = true, .principals = {"*/a"}},
        {.name = "try-allow", ALLOW, .mode = CONF_DRY_RUN, .from = true, .principals = {"*"}},
        {.name = "watch", .action = CONF_AUDIT, .from = true, .not_principals = {"*/c"}},
        {.name = "no", DENY, .from = true, .principals = {"*/d"}},
    };
    struct policy *p = policy_of(rows, COUNT(rows));
    struct policy_verdict v = ask(p, "spiffe://a.b/a", 1);
    assert_true(v.allow);
    assert_int_equal(v.shadow, POLICY_SHADOW_DENY);
    assert_string_equal(v.shadow_rule, "try-deny");
    assert_string_equal(v.audit, "watch");
    v = ask(p, "spiffe://a.b/c", 1);
    assert_false(v.allow);
    assert_int_equal(v.shadow, POLICY_SHADOW_ALLOW);
    assert_string_equal(v.shadow_rule, "try-allow");
    assert_null(v.audit);
    v = ask(p, "spiffe://a.b/d", 1);
    assert_int_equal(v.reason, POLICY_DENIED_BY_RULE);
    assert_int_equal(v.shadow, POLICY_SHADOW_SAME);
    v = ask(p, NULL, 1); /* what is missing is marked rather than not */
    assert_string_equal(v.audit, "watch");
    policy_free(p);
}

/* A rule on trial must not turn ports into such as are judged by request, nor concern anybody. */
static void test_trial_changes_nothing(void **state)
{
    (void)state;
    static const struct row before[] = {{.name = "in", ALLOW}};
    static const struct row after[] = {
        {.name = "in", ALLOW},
        {.name = "try", DENY, .mode = CONF_DRY_RUN, .to = true, .paths = {"/admin*"}},
        {.name = "watch", .action = CONF_AUDIT, .to = true, .paths = {"/admin*"}},
    };
    struct policy *a = policy_of(before, 1);
    struct policy *b = policy_of(after, COUNT(after));
    struct policy_change c;
    assert_false(policy_wants_requests(b, STR_LIT(ORDERS), 80));
    policy_compare(a, b, &c);
    assert_false(c.everybody);
    assert_false(c.requests);
    assert_int_equal(c.n_gone + c.n_denied, 0);
    policy_change_deinit(&c);
    policy_compare(b, a, &c);
    assert_int_equal(c.n_gone, 0);
    policy_change_deinit(&c);
    policy_free(a);
    policy_free(b);
}

static void test_whom_a_denial_concerns(void **state)
{
    (void)state;
    static const struct {
        struct row row;
        const char *peer, *other; /* concerned, and not; NULL: it concerns everybody */
    } cases[] = {
        {{.name = "r", DENY, .from = true, .principals = {"spiffe://a.b/ns/*/sa/x"}},
         "spiffe://a.b/ns/pay/sa/x",
         "spiffe://a.b/x"},
        {{.name = "r", DENY, .from = true, .principals = {"spiffe://a.b/x/**"}},
         "spiffe://a.b/x",
         "spiffe://a.b/y"},
        {{.name = "r", DENY, .from = true, .namespaces = {"pay"}}, PEER, "spiffe://a.b/ns/x/sa/y"},
        {{.name = "r", DENY, .from = true, .accounts = {"x*"}}, PEER, "spiffe://a.b/ns/pay/sa/y"},
        {{.name = "r", DENY, .from = true, .namespaces = {"*"}}, NULL, NULL},
        {{.name = "r", DENY, .from = true, .not_namespaces = {"pay"}}, NULL, NULL},
        {{.name = "r", DENY, .from = true, .claims = {{.name = "iss", .values = {"x"}}}},
         NULL,
         NULL},
    };
    struct policy *none = policy_of(NULL, 0);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct policy *p = policy_of(&cases[i].row, 1);
        struct policy_change c;
        policy_compare(none, p, &c);
        assert_int_equal(c.everybody, cases[i].peer == NULL);
        if (cases[i].peer != NULL) {
            assert_int_equal(c.n_denied, 1);
            assert_true(policy_who_has(&c.denied[0], str_of(cases[i].peer)));
            assert_false(policy_who_has(&c.denied[0], str_of(cases[i].other)));
        }
        policy_change_deinit(&c);
        policy_free(p);
    }
    policy_free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_whom_an_end_concerns),
        cmocka_unit_test(test_trial),
        cmocka_unit_test(test_trial_changes_nothing),
        cmocka_unit_test(test_whom_a_denial_concerns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
