/* When keys for tokens take over from each other: a store, and times that are handed in. */
#include "keeper_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { T0 = 1800000000, LIFE = 6000, TTL = 300 };

struct run {
    struct keeper_jwt jwt;
    struct keeper_store store;
};

static int setup(void **state)
{
    struct run *r = mem_must_new(struct run);
    keeper_jwt_init(&r->jwt, JWT_ES256, TTL, LIFE);
    keeper_store_init(&r->store, STR_LIT("example.org"));
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct run *r = *state;
    keeper_store_deinit(&r->store);
    keeper_jwt_deinit(&r->jwt);
    free(r);
    return 0;
}

static int add(struct run *r, enum keeper_state state, int64_t now_s)
{
    return keeper_jwt_make(&r->jwt, keeper_store_add(&r->store, KEEPER_JWT, state), now_s, NULL);
}

/* What the keeper does when it is due (orders.c), without the file. */
static bool step(struct run *r, int64_t now_s)
{
    const struct keeper_record *about = NULL;
    enum keeper_step due;
    bool changed = keeper_store_find(&r->store, KEEPER_JWT, KEEPER_ACTIVE) == NULL;

    if (changed) {
        assert_int_equal(add(r, KEEPER_ACTIVE, now_s), 0);
    }
    while ((due = keeper_rotation_due(&r->store, KEEPER_JWT, now_s, true, &about)) !=
           KEEPER_STEP_NONE) {
        changed = true;
        if (due == KEEPER_STEP_PREPARE) {
            assert_int_equal(add(r, KEEPER_PREPARED, now_s), 0);
        } else if (due == KEEPER_STEP_ACTIVATE) {
            assert_int_equal(
                keeper_rotation_activate(&r->store, KEEPER_JWT, now_s, now_s + TTL, NULL), 0);
        } else {
            keeper_store_remove(&r->store, about);
        }
    }
    assert_int_equal(keeper_jwt_take(&r->jwt, &r->store, NULL), 0);
    return changed;
}

static int64_t due_s(const struct run *r)
{
    enum keeper_step step = KEEPER_STEP_NONE;

    return keeper_rotation_next_s(&r->store, KEEPER_JWT, &step);
}

static const char *kid_of(const struct run *r, enum keeper_state state)
{
    const struct keeper_record *rec = keeper_store_find(&r->store, KEEPER_JWT, state);
    return rec != NULL ? rec->id : NULL;
}

static bool in_set(const struct run *r, const char *kid)
{
    return strstr(r->jwt.set, kid) != NULL;
}

static void test_overlap(void **state)
{
    struct run *r = *state;
    char first[KEEPER_RECORD_ID_MAX + 1], second[KEEPER_RECORD_ID_MAX + 1];

    assert_true(step(r, T0));
    assert_int_equal(r->jwt.generation, 1);
    (void)snprintf(first, sizeof(first), "%s", kid_of(r, KEEPER_ACTIVE));
    assert_int_equal(due_s(r), T0 + LIFE / 2);
    assert_false(step(r, T0 + LIFE / 2 - 1));
    assert_int_equal(r->jwt.generation, 1);

    /* the next one is told at half of the life */
    assert_true(step(r, T0 + LIFE / 2));
    assert_int_equal(r->jwt.generation, 2);
    (void)snprintf(second, sizeof(second), "%s", kid_of(r, KEEPER_PREPARED));
    assert_string_not_equal(first, second);
    assert_string_equal(kid_of(r, KEEPER_ACTIVE), first);
    assert_true(in_set(r, first) && in_set(r, second));
    assert_int_equal(due_s(r), T0 + LIFE - LIFE / 6);
    assert_false(step(r, T0 + LIFE - LIFE / 6 - 1));

    /* it signs when a sixth is left; peers see both still */
    assert_true(step(r, T0 + LIFE - LIFE / 6));
    assert_string_equal(kid_of(r, KEEPER_ACTIVE), second);
    assert_string_equal(kid_of(r, KEEPER_OLD), first);
    assert_true(in_set(r, first) && in_set(r, second));
    assert_int_equal(due_s(r), T0 + LIFE); /* for the one after it */
    step(r, T0 + LIFE + TTL - 1);
    assert_true(in_set(r, first));

    /* the old one goes some time after the last token that it signed has ended */
    assert_true(step(r, T0 + LIFE + TTL));
    assert_null(kid_of(r, KEEPER_OLD));
    assert_false(in_set(r, first));
    assert_true(in_set(r, second));
}

static void test_long_sleep(void **state)
{
    struct run *r = *state;
    char first[KEEPER_RECORD_ID_MAX + 1];

    step(r, T0);
    (void)snprintf(first, sizeof(first), "%s", kid_of(r, KEEPER_ACTIVE));
    step(r, T0 + LIFE / 2);
    /* everything has ended meanwhile: a new one, at once */
    assert_true(step(r, T0 + 10 * LIFE));
    assert_string_not_equal(kid_of(r, KEEPER_ACTIVE), first);
    assert_null(kid_of(r, KEEPER_PREPARED));
    assert_false(in_set(r, first));
    assert_int_equal(r->jwt.key_not_after_s, T0 + 11 * LIFE);
}

/* The schedule touches no other kind, and no state that is not its own to change. */
static void test_leaves_others(void **state)
{
    struct run *r = *state;
    struct keeper_record *x = keeper_store_add(&r->store, KEEPER_X509, KEEPER_ACTIVE);
    struct keeper_record *tainted;

    (void)snprintf(x->id, sizeof(x->id), "root");
    x->not_after_s = T0 + 10;
    step(r, T0);
    tainted = keeper_store_add(&r->store, KEEPER_JWT, KEEPER_TAINTED);
    assert_int_equal(keeper_jwt_make(&r->jwt, tainted, T0, NULL), 0);
    tainted->signed_until_s = T0 + LIFE;
    step(r, T0 + LIFE / 2);
    assert_non_null(keeper_store_find(&r->store, KEEPER_X509, KEEPER_ACTIVE));
    assert_non_null(kid_of(r, KEEPER_TAINTED));
    assert_true(in_set(r, kid_of(r, KEEPER_TAINTED)));
}

static void test_token_ends_with_its_key(void **state)
{
    struct run *r = *state;
    const struct str id = STR_LIT("spiffe://example.org/e");
    struct str audience = STR_LIT("a");
    static const struct {
        int64_t now_s;
        uint32_t ttl_s;
        int64_t life_s;
    } rows[] = {{T0, 0, 300}, {T0, 20, 20}, {T0 + LIFE - 100, 0, 100}, {T0 + LIFE - 1, 86400, 1}};

    struct keeper_token t;
    assert_int_equal(keeper_jwt_sign(&r->jwt, id, 0, &audience, 1, T0, &t, NULL),
                     -1); /* no key yet */
    step(r, T0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(
            keeper_jwt_sign(&r->jwt, id, rows[i].ttl_s, &audience, 1, rows[i].now_s, &t, NULL), 0);
        assert_int_equal(t.expires_s - t.issued_s, rows[i].life_s);
        free(t.text);
    }
    assert_int_equal(keeper_jwt_sign(&r->jwt, id, 0, &audience, 1, T0 + LIFE, &t, NULL), -1);
}

/* A record whose name is not that of its key is not put in force; what was stays. */
static void test_wrong_record(void **state)
{
    struct run *r = *state;
    struct err err = ERR_INIT;

    step(r, T0);
    struct keeper_record *rec = keeper_store_add(&r->store, KEEPER_JWT, KEEPER_PREPARED);
    assert_int_equal(keeper_jwt_make(&r->jwt, rec, T0, NULL), 0);
    rec->id[0] = rec->id[0] == 'A' ? 'B' : 'A';
    assert_int_equal(keeper_jwt_take(&r->jwt, &r->store, &err), -1);
    assert_int_equal(r->jwt.generation, 1);
    assert_non_null(r->jwt.key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_sleep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leaves_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_token_ends_with_its_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_record, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
