/* When connections end with their certificates: the clock, the plan and the heap. */
#include <expiry_priv.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WALL_S = 1800000000, DAY_S = 86400 };

/* A wall clock that is set does not end, and does not prolong; one that stays so is believed. */
static void test_clock(void **state)
{
    (void)state;
    static const int64_t steps_s[] = {365 * DAY_S, -365 * DAY_S, 3600, -3600, 3};
    for (size_t i = 0; i < sizeof(steps_s) / sizeof(steps_s[0]); i++) {
        struct expiry_clock k = {.running = false};
        uint64_t boot = 1000;
        int64_t offset = WALL_S;
        assert_false(expiry_clock_tick(&k, boot, offset + 1));
        uint64_t before = expiry_clock_boot_ms(&k, WALL_S + 600);
        /* for less than a minute, twice: each time anew */
        for (int round = 0; round < 2; round++) {
            for (int s = 0; s < 59; s++) {
                boot += 1000;
                assert_false(
                    expiry_clock_tick(&k, boot, offset + steps_s[i] + (int64_t)(boot / 1000)));
            }
            boot += 1000;
            assert_false(expiry_clock_tick(&k, boot, offset + (int64_t)(boot / 1000)));
            assert_int_equal(expiry_clock_boot_ms(&k, WALL_S + 600), before);
        }
        /* for good */
        bool believed = false;
        unsigned ticks = 0;
        for (; !believed && ticks < 100; ticks++) {
            boot += 1000;
            believed = expiry_clock_tick(&k, boot, offset + steps_s[i] + (int64_t)(boot / 1000));
        }
        assert_in_range(ticks, 60, 62);
        assert_int_equal(k.offset_s, offset + steps_s[i]);
        boot += 1000;
        assert_false(expiry_clock_tick(&k, boot, k.offset_s + (int64_t)(boot / 1000)));
    }
    /* What the two round differently is no step, however long. */
    struct expiry_clock k = {.running = false};
    for (uint64_t boot = 1000; boot < 200000; boot += 1000) {
        assert_false(expiry_clock_tick(
            &k, boot, WALL_S + (int64_t)(boot / 1000) + (int64_t)(boot / 1000 % 3)));
    }
    /* A clock that wanders is none that stands. */
    for (uint64_t boot = 200000; boot < 400000; boot += 1000) {
        assert_false(expiry_clock_tick(&k, boot, WALL_S + (int64_t)(boot / 50)));
    }
    assert_int_equal(expiry_clock_boot_ms(&k, 0), 0);
    assert_int_equal(expiry_clock_boot_ms(&k, INT64_MAX), INT64_MAX);
    k.offset_s = -1;
    assert_int_equal(expiry_clock_boot_ms(&k, INT64_MAX), INT64_MAX);
}

static void test_spread(void **state)
{
    (void)state;
    static const struct {
        struct conf_expiry conf;
        uint64_t left_ms, end_min, end_max, grace_max;
    } cases[] = {
        {{CONF_EXPIRY_DRAIN, 120, 300}, 1800000, 1500000, 1800000, 120000},
        {{CONF_EXPIRY_DRAIN, 120, 300}, 60000, 38571, 60000, 8572}, /* both shrink alike */
        {{CONF_EXPIRY_DRAIN, 0, 300}, 60000, 30000, 60000, 0},
        {{CONF_EXPIRY_DRAIN, 86400, 0}, 10000, 10000, 10000, 5000},
        {{CONF_EXPIRY_CUT, 120, 300}, 1800000, 1500000, 1800000, 0},
        {{CONF_EXPIRY_WARN, 120, 300}, 1800000, 1800000, 1800000, 0},
        {{CONF_EXPIRY_DRAIN, 120, 300}, 0, 0, 0, 0},
        {{CONF_EXPIRY_DRAIN, 86400, 86400},
         UINT64_C(3153600000000),
         UINT64_C(3153513600000),
         UINT64_C(3153600000000),
         86400000},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t first = UINT64_MAX, last = 0;
        for (uint64_t chance = 0; chance <= UINT32_MAX; chance += UINT32_MAX / 64) {
            struct expiry_plan p = expiry_plan(&cases[i].conf, cases[i].left_ms, (uint32_t)chance);
            assert_in_range(p.end_ms, cases[i].end_min, cases[i].end_max);
            assert_true(p.drain_ms <= p.end_ms);
            assert_true(p.end_ms - p.drain_ms <= cases[i].grace_max);
            assert_true(p.drain_ms >= cases[i].left_ms / 2 || cases[i].left_ms == 0);
            first = p.end_ms < first ? p.end_ms : first;
            last = p.end_ms > last ? p.end_ms : last;
        }
        assert_int_equal(last, cases[i].end_max); /* chance 0 */
        assert_true(first - cases[i].end_min <= (cases[i].end_max - cases[i].end_min) / 50 + 1);
    }
}

/* Against a list that is looked through. */
static void test_heap(void **state)
{
    (void)state;
    enum { N = 300, ROUNDS = 20000 };
    static struct expiry all[N];
    static uint64_t due[N]; /* 0: not in */
    struct expiry_heap h = {.n = 0};
    uint64_t now = 1;
    srand(7);
    memset(all, 0, sizeof(all));
    for (int round = 0; round < ROUNDS; round++) {
        size_t i = (size_t)rand() % N;
        if (rand() % 3 > 0) {
            due[i] = now + 1 + (uint64_t)rand() % 500;
            expiry_heap_set(&h, &all[i], due[i]);
        } else {
            due[i] = 0;
            expiry_heap_remove(&h, &all[i]);
        }
        if (rand() % 20 == 0) {
            now += (uint64_t)rand() % 100;
            size_t n = 0;
            for (struct expiry *e; (e = expiry_heap_take(&h, now)) != NULL; n++) {
                size_t at = (size_t)(e - all);
                assert_int_equal(e->at, 0);
                assert_true(due[at] != 0 && due[at] <= now);
                due[at] = 0;
            }
            for (size_t k = 0; k < N; k++) {
                assert_true(due[k] == 0 || due[k] > now);
                assert_int_equal(due[k] != 0, all[k].at != 0);
            }
        }
    }
    for (size_t i = 0; i < N; i++) {
        expiry_heap_remove(&h, &all[i]);
    }
    assert_int_equal(h.n, 0);
    assert_null(h.items);
}

/* A clock that was wrong when some were made: their ends come earlier, nobody's later. */
static void test_believe(void **state)
{
    (void)state;
    struct expiry_heap h = {.n = 0};
    struct expiry_clock k = {.running = true, .offset_s = WALL_S};
    struct expiry early = {.not_after_s = WALL_S + 1000, .ends_ms = 900000};
    struct expiry late = {.not_after_s = WALL_S + 5000, .ends_ms = 4900000};
    expiry_heap_set(&h, &late, 4800000);
    expiry_heap_set(&h, &early, 800000);
    k.offset_s = WALL_S + 3000; /* the clock was 50 minutes slow */
    expiry_heap_believe(&h, &k);
    assert_ptr_equal(expiry_heap_take(&h, 1), &early);
    assert_int_equal(early.ends_ms, 0);
    assert_null(expiry_heap_take(&h, 1999999));
    assert_ptr_equal(expiry_heap_take(&h, 2000000), &late);
    assert_int_equal(late.ends_ms, 2000000);
    expiry_heap_set(&h, &late, 1900000);
    k.offset_s = WALL_S - 3000;
    expiry_heap_believe(&h, &k);
    assert_int_equal(late.ends_ms, 2000000);
    assert_ptr_equal(expiry_heap_take(&h, 1900000), &late);
    expiry_heap_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_heap),
        cmocka_unit_test(test_believe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
