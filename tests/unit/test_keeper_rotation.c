/* How authorities take over from one another (identity/keeper/rotation.c), with a clock that the
 * test moves. */
#include "rotation.h"

#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { HOUR = 3600, DAY = 86400, YEAR = 365 * DAY };
static const int64_t T0 = 1700000000;

static struct keeper_record *add(struct keeper_store *s, enum keeper_state state, const char *id,
                                 int64_t created_s, int64_t life_s)
{
    struct keeper_record *r = keeper_store_add(s, KEEPER_X509, state);

    assert_non_null(r);
    (void)snprintf(r->id, sizeof(r->id), "%s", id);
    r->created_s = r->changed_s = created_s;
    r->not_after_s = created_s + life_s;
    return r;
}

static void fill(struct keeper_store *s)
{
    keeper_store_init(s, STR_LIT("example.org"));
    add(s, KEEPER_ACTIVE, "active", T0, YEAR);
}

static enum keeper_step due(const struct keeper_store *s, int64_t now_s, bool steady)
{
    const struct keeper_record *r = NULL;

    return keeper_rotation_due(s, KEEPER_X509, now_s, steady, &r);
}

/* --- what must not be --------------------------------------------------------------------------
 */
static void test_refused(void **state)
{
    static const struct keeper_use unused = {.n_callers = 0};
    struct keeper_use callers = {.n_callers = 3}, gone = {.until_s = T0 + HOUR};
    struct keeper_store s;
    struct err err = ERR_INIT;

    (void)state;
    fill(&s);
    /* activate without prepare */
    assert_int_equal(keeper_rotation_activate(&s, KEEPER_X509, T0, T0, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    assert_int_equal(s.records[0].state, KEEPER_ACTIVE);
    /* taint and retire of the active one, by name and by guess */
    assert_int_equal(keeper_rotation_taint(&s, KEEPER_X509, STR_LIT("active"), T0, &err), -1);
    assert_int_equal(keeper_rotation_taint(&s, KEEPER_X509, STR_NONE, T0, &err), -1);
    assert_int_equal(keeper_rotation_taint(&s, KEEPER_X509, STR_LIT("nobody"), T0, &err), -1);
    assert_int_equal(keeper_rotation_retire(&s, &s.records[0], &unused, T0, true, &err), -1);
    assert_null(keeper_rotation_pick(&s, KEEPER_X509, STR_NONE, &err));
    assert_null(keeper_rotation_pick(&s, KEEPER_JWT, STR_LIT("active"), &err));
    /* a second prepared one */
    add(&s, KEEPER_PREPARED, "next", T0, YEAR);
    assert_int_equal(keeper_rotation_may_prepare(&s, KEEPER_X509, &err), -1);
    assert_int_equal(keeper_rotation_may_prepare(&s, KEEPER_JWT, &err), 0);
    /* a prepared one: not tainted, and dropped by force only */
    assert_int_equal(keeper_rotation_taint(&s, KEEPER_X509, STR_LIT("next"), T0, &err), -1);
    assert_int_equal(keeper_rotation_retire(&s, &s.records[1], &unused, T0, false, &err), -1);
    /* one that ended while it was prepared: refused, and dropped by schedule */
    assert_int_equal(due(&s, T0 + YEAR, true), KEEPER_STEP_RETIRE);
    assert_int_equal(keeper_rotation_activate(&s, KEEPER_X509, T0 + YEAR, T0, &err), -1);
    /* in use */
    assert_int_equal(keeper_rotation_activate(&s, KEEPER_X509, T0, T0 + HOUR, &err), 0);
    assert_int_equal(keeper_rotation_retire(&s, &s.records[0], &callers, T0, false, &err), -1);
    assert_non_null(strstr(err.what, "3 SVIDs"));
    assert_int_equal(keeper_rotation_retire(&s, &s.records[0], &gone, T0, false, &err), -1);
    assert_int_equal(s.n, 2);
    /* and not any more, or by force */
    assert_int_equal(keeper_rotation_retire(&s, &s.records[0], &gone, T0 + HOUR, false, &err), 0);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.records[0].id, "next");
    keeper_store_deinit(&s);
}

static void test_force(void **state)
{
    struct keeper_use callers = {.n_callers = 1, .until_s = T0 + HOUR};
    struct keeper_store s;

    (void)state;
    fill(&s);
    add(&s, KEEPER_PREPARED, "next", T0, YEAR);
    assert_int_equal(keeper_rotation_activate(&s, KEEPER_X509, T0, T0, NULL), 0);
    assert_int_equal(keeper_rotation_taint(&s, KEEPER_X509, STR_NONE, T0, NULL), 0);
    assert_int_equal(s.records[0].state, KEEPER_TAINTED);
    /* once is enough */
    assert_int_equal(keeper_rotation_taint(&s, KEEPER_X509, STR_LIT("active"), T0, NULL), -1);
    assert_int_equal(keeper_rotation_retire(&s, &s.records[0], &callers, T0, true, NULL), 0);
    assert_int_equal(s.n, 1);
    keeper_store_deinit(&s);
}

static void test_two_old_ones(void **state)
{
    struct keeper_store s;
    struct err err = ERR_INIT;

    (void)state;
    fill(&s);
    add(&s, KEEPER_OLD, "older", T0 - YEAR, YEAR)->changed_s = T0;
    assert_string_equal(keeper_rotation_pick(&s, KEEPER_X509, STR_NONE, &err)->id, "older");
    add(&s, KEEPER_OLD, "old", T0 - YEAR, YEAR)->changed_s = T0 + 1;
    assert_null(keeper_rotation_pick(&s, KEEPER_X509, STR_NONE, &err));
    assert_string_equal(keeper_rotation_pick(&s, KEEPER_X509, STR_LIT("old"), &err)->id, "old");
    /* tainted without a name is the one that signed last */
    assert_int_equal(keeper_rotation_taint(&s, KEEPER_X509, STR_NONE, T0 + 2, &err), 0);
    assert_int_equal(keeper_store_find_id(&s, KEEPER_X509, STR_LIT("old"))->state, KEEPER_TAINTED);
    keeper_store_deinit(&s);
}

/* --- what happens by schedule ------------------------------------------------------------------
 */
static void test_schedule(void **state)
{
    struct keeper_store s;
    struct keeper_record *next;
    const struct keeper_record *r = NULL;
    enum keeper_step step = KEEPER_STEP_NONE;
    int64_t prepare_s = T0 + YEAR - 30 * DAY, activate_s = T0 + YEAR - 7 * DAY;

    (void)state;
    fill(&s);
    assert_int_equal(due(&s, T0, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, prepare_s - 1, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, prepare_s, true), KEEPER_STEP_PREPARE);
    assert_int_equal(keeper_rotation_next_s(&s, KEEPER_X509, &step), prepare_s);
    assert_int_equal(step, KEEPER_STEP_PREPARE);
    next = add(&s, KEEPER_PREPARED, "next", prepare_s, YEAR);
    assert_int_equal(due(&s, activate_s - 1, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, activate_s, true), KEEPER_STEP_ACTIVATE);
    /* prepared late: peers have an hour to learn it, as far as the old one's end allows */
    next->changed_s = activate_s;
    assert_int_equal(due(&s, activate_s + HOUR - 1, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, activate_s + HOUR, true), KEEPER_STEP_ACTIVATE);
    next->changed_s = T0 + YEAR - 60;
    assert_int_equal(due(&s, T0 + YEAR - 1, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, T0 + YEAR, true), KEEPER_STEP_ACTIVATE);
    /* retired an hour after the last of what it signed, and never before */
    assert_int_equal(keeper_rotation_activate(&s, KEEPER_X509, activate_s, activate_s + DAY, NULL),
                     0);
    assert_int_equal(s.records[0].signed_until_s, activate_s + DAY);
    assert_int_equal(due(&s, activate_s + DAY + HOUR - 1, true), KEEPER_STEP_NONE);
    assert_int_equal(keeper_rotation_due(&s, KEEPER_X509, activate_s + DAY + HOUR, true, &r),
                     KEEPER_STEP_RETIRE);
    assert_string_equal(r->id, "active");
    keeper_store_deinit(&s);
}

/* Lives of minutes have the same order. */
static void test_short_life(void **state)
{
    struct keeper_store s;

    (void)state;
    keeper_store_init(&s, STR_LIT("example.org"));
    add(&s, KEEPER_ACTIVE, "active", T0, 60);
    assert_int_equal(due(&s, T0 + 29, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, T0 + 30, true), KEEPER_STEP_PREPARE);
    add(&s, KEEPER_PREPARED, "next", T0 + 30, 600);
    assert_int_equal(due(&s, T0 + 49, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, T0 + 50, true), KEEPER_STEP_ACTIVATE);
    /* what it signed ends with it at the latest */
    assert_int_equal(keeper_rotation_activate(&s, KEEPER_X509, T0 + 50, T0 + 500, NULL), 0);
    assert_int_equal(s.records[0].signed_until_s, T0 + 60);
    assert_int_equal(due(&s, T0 + 69, true), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, T0 + 70, true), KEEPER_STEP_RETIRE);
    keeper_store_deinit(&s);
}

/* A clock that was set years ahead: a root made now would not have begun when it is set back. */
static void test_clock_ahead(void **state)
{
    struct keeper_store s;
    const struct keeper_record *r = NULL;

    (void)state;
    fill(&s);
    add(&s, KEEPER_OLD, "old", T0 - YEAR, YEAR)->signed_until_s = T0 + YEAR;
    assert_int_equal(due(&s, T0 + 20 * (int64_t)YEAR, false), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, T0 + 20 * (int64_t)YEAR, true), KEEPER_STEP_PREPARE);
    add(&s, KEEPER_PREPARED, "next", T0, 30 * (int64_t)YEAR);
    assert_int_equal(due(&s, T0 + 20 * (int64_t)YEAR, false), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, T0 + 20 * (int64_t)YEAR, true), KEEPER_STEP_ACTIVATE);
    /* and back: as if nothing had been */
    assert_int_equal(due(&s, T0 + 1, false), KEEPER_STEP_NONE);
    assert_int_equal(due(&s, T0 - 20 * (int64_t)YEAR, true), KEEPER_STEP_NONE);
    /* a key for tokens that has ended is replaced whatever the clock does; one that has not, not */
    for (size_t i = 0; i < s.n; i++) {
        s.records[i].kind = KEEPER_JWT;
    }
    assert_int_equal(keeper_rotation_due(&s, KEEPER_JWT, T0 + YEAR - 1, false, &r),
                     KEEPER_STEP_NONE);
    assert_int_equal(keeper_rotation_due(&s, KEEPER_JWT, T0 + YEAR, false, &r),
                     KEEPER_STEP_ACTIVATE);
    keeper_store_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_force),
        cmocka_unit_test(test_two_old_ones), cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_short_life),   cmocka_unit_test(test_clock_ahead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
