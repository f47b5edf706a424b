/* Which authority the SVIDs stand under that are out there (identity/keeper/use.c). */
#include "keeper_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static uint64_t authority(int i)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "a%d", i);
    return keeper_use_tag(name);
}

/* What an authority signed before this process began has no end that is known here, so it stayed at
 * 0, the end of a free place: the first caller of the next authority that left took it. `retire`
 * then saw nobody who could still hold an SVID. */
static void test_inherited_stays(void **state)
{
    struct keeper_uses *u = keeper_uses_new();

    (void)state;
    keeper_uses_inherit(u, authority(0));
    for (int i = 1; i < 4 * KEEPER_RECORDS_MAX; i++) {
        keeper_uses_note(u, 7, 1, authority(i), 1000 + i);
        keeper_uses_gone(u, 7);
        assert_true(keeper_uses_of(u, authority(i), 0).until_s == 1000 + i);
        assert_true(keeper_uses_of(u, authority(0), 0).inherited);
    }
    keeper_uses_free(u);
}

/* There are never as many as this: the one that ended first makes place. */
static void test_first_end_goes_first(void **state)
{
    struct keeper_uses *u = keeper_uses_new();

    (void)state;
    for (int i = 0; i < 2 * KEEPER_RECORDS_MAX; i++) {
        keeper_uses_assume(u, authority(i), i == 5 ? 10 : 1000 + i);
    }
    keeper_uses_assume(u, authority(99), 2000);
    assert_true(keeper_uses_of(u, authority(5), 0).until_s == 0);
    assert_true(keeper_uses_of(u, authority(0), 0).until_s == 1000);
    assert_true(keeper_uses_of(u, authority(99), 0).until_s == 2000);
    keeper_uses_free(u);
}

static void test_newest_of_each_caller(void **state)
{
    struct keeper_uses *u = keeper_uses_new();

    (void)state;
    keeper_uses_note(u, 1, 1, authority(0), 100);
    keeper_uses_note(u, 1, 2, authority(0), 100);
    keeper_uses_note(u, 1025, 1, authority(0), 100); /* of the same bucket */
    assert_int_equal(keeper_uses_of(u, authority(0), 50).n_callers, 3);
    assert_int_equal(keeper_uses_of(u, authority(0), 100).n_callers, 0);
    keeper_uses_note(u, 1, 1, authority(1), 200);
    assert_int_equal(keeper_uses_of(u, authority(0), 50).n_callers, 2);
    keeper_uses_gone(u, 1);
    assert_int_equal(keeper_uses_of(u, authority(0), 50).n_callers, 1);
    assert_true(keeper_uses_of(u, authority(0), 50).until_s == 100);
    assert_true(keeper_uses_of(u, authority(1), 50).until_s == 200);
    keeper_uses_free(u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inherited_stays),
        cmocka_unit_test(test_first_end_goes_first),
        cmocka_unit_test(test_newest_of_each_caller),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
