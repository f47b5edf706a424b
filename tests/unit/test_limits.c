/* limit: open and rate by key, a table that is full, threads that meet. */
#include <postern/limit.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants these first */
#include <cmocka.h>

#define A STR_LIT("spiffe://t/a")
#define B STR_LIT("spiffe://t/b")

static void test_open(void **state)
{
    struct limit_table *t = limit_table_new(64);
    uint32_t a[3];
    uint32_t b = 0;
    uint32_t no = 77;
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(limit_take(t, 0, A, 3, 0, 1, &a[i]), LIMIT_OK);
    }
    assert_int_equal(limit_take(t, 0, A, 3, 0, 1, &no), LIMIT_OPEN);
    assert_int_equal(no, 77);                                      /* untouched */
    assert_int_equal(limit_take(t, 0, B, 3, 0, 1, &b), LIMIT_OK);  /* others go on */
    assert_int_equal(limit_take(t, 1, A, 1, 0, 1, &no), LIMIT_OK); /* and another listener */
    limit_give(t, no);
    limit_give(t, a[1]);
    assert_int_equal(limit_take(t, 0, A, 3, 0, 1, &a[1]), LIMIT_OK);
    assert_int_equal(limit_take(t, 0, A, 3, 0, 1, &no), LIMIT_OPEN);
    assert_int_equal(limit_take(t, 0, A, 0, 0, 1, &no), LIMIT_OK); /* any number */
    limit_give(t, no);
    for (size_t i = 0; i < 3; i++) {
        limit_give(t, a[i]);
    }
    limit_give(t, b);
    limit_table_free(t);
    assert_null(limit_table_free(NULL));
}

static void test_rate(void **state)
{
    struct limit_table *t = limit_table_new(64);
    uint64_t now = 1000000000;
    uint32_t p = 0;
    (void)state;
    /* Ten a second: twenty at once, then one each tenth, though none stays open. */
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(limit_take(t, 0, A, 0, 10, now, &p), LIMIT_OK);
        limit_give(t, p);
    }
    assert_int_equal(limit_take(t, 0, A, 0, 10, now, &p), LIMIT_RATE);
    assert_int_equal(limit_take(t, 0, B, 0, 10, now, &p), LIMIT_OK);
    limit_give(t, p);
    now += 100000;
    assert_int_equal(limit_take(t, 0, A, 0, 10, now, &p), LIMIT_OK);
    limit_give(t, p);
    assert_int_equal(limit_take(t, 0, A, 0, 10, now, &p), LIMIT_RATE);
    now += 10000000;
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(limit_take(t, 0, A, 0, 10, now, &p), LIMIT_OK);
        limit_give(t, p);
    }
    /* What was refused for its rate is not counted as open. */
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(limit_take(t, 0, A, 1, 10, now, &p), LIMIT_RATE);
    }
    now += 10000000;
    assert_int_equal(limit_take(t, 0, A, 1, 10, now, &p), LIMIT_OK);
    limit_give(t, p);
    limit_table_free(t);
}

/* Identities without end: those that are counted stay counted, the rest is refused. */
static void test_full(void **state)
{
    struct limit_table *t = limit_table_new(8);
    uint32_t places[8];
    uint32_t no = 0;
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key-%zu", i);
        assert_int_equal(limit_take(t, 0, str_of(key), 1, 0, 1, &places[i]), LIMIT_OK);
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(places[i], places[k]);
        }
    }
    assert_int_equal(limit_take(t, 0, A, 1, 0, 1, &no), LIMIT_NO_ROOM);
    assert_int_equal(limit_take(t, 0, STR_LIT("key-0"), 1, 0, 1, &no), LIMIT_OPEN);
    limit_give(t, places[3]);
    assert_int_equal(limit_take(t, 0, A, 1, 0, 1, &places[3]), LIMIT_OK);
    assert_int_equal(limit_take(t, 0, A, 1, 0, 1, &no), LIMIT_OPEN);
    for (size_t i = 0; i < 8; i++) {
        limit_give(t, places[i]);
    }
    /* A place whose rate has not recovered is not another's yet. */
    for (size_t i = 0; i < 8; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key-%zu", i);
        assert_int_equal(limit_take(t, 0, str_of(key), 0, 1, 1000000, &no), LIMIT_OK);
        limit_give(t, no);
    }
    assert_int_equal(limit_take(t, 0, B, 0, 1, 1000000, &no), LIMIT_NO_ROOM);
    assert_int_equal(limit_take(t, 0, B, 0, 1, 9000000, &no), LIMIT_OK);
    limit_give(t, no);
    limit_table_free(t);
}

/* --- threads ---------------------------------------------------------------------------------- */
enum { THREADS = 4, ROUNDS = 20000, MAX = 3, KEYS = 12 };

struct meeting {
    struct limit_table *table;
    _Atomic int open[KEYS], most[KEYS];
    _Atomic uint32_t seed;
};

static void *meet(void *arg)
{
    struct meeting *m = (struct meeting *)arg;
    uint32_t x = atomic_fetch_add(&m->seed, 1) * 2654435761U + 1;
    for (int i = 0; i < ROUNDS; i++) {
        x = x * 1664525U + 1013904223U;
        size_t k = (x >> 16) % KEYS;
        char key[16];
        uint32_t place = 0;
        snprintf(key, sizeof(key), "k%zu", k);
        if (limit_take(m->table, 0, str_of(key), MAX, 0, 1, &place) == LIMIT_OK) {
            int open = atomic_fetch_add(&m->open[k], 1) + 1;
            int most = atomic_load(&m->most[k]);
            while (open > most && !atomic_compare_exchange_weak(&m->most[k], &most, open)) {
            }
            atomic_fetch_sub(&m->open[k], 1);
            limit_give(m->table, place);
        }
    }
    return NULL;
}

/* More keys than places, so that places change hands all the time. */
static void test_threads(void **state)
{
    struct meeting m = {.table = limit_table_new(8)};
    pthread_t threads[THREADS];
    uint32_t places[MAX];
    uint32_t no = 0;
    (void)state;
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, meet, &m), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (size_t i = 0; i < KEYS; i++) {
        assert_true(atomic_load(&m.most[i]) <= 2 * MAX); /* docs/outbound.md: at the worst */
    }
    /* Nothing is left counted. */
    for (size_t k = 0; k < MAX; k++) {
        assert_int_equal(limit_take(m.table, 0, STR_LIT("k0"), MAX, 0, 1, &places[k]), LIMIT_OK);
    }
    assert_int_equal(limit_take(m.table, 0, STR_LIT("k0"), MAX, 0, 1, &no), LIMIT_OPEN);
    for (size_t k = 0; k < MAX; k++) {
        limit_give(m.table, places[k]);
    }
    limit_table_free(m.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
