/* metrics: what does not fit is told, blocks add up, a name is announced once. */
#include <postern/metrics.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { CLOSED_DONE, CLOSED_DENIED, OPEN, N_ROWS };
static const struct metric table[N_ROWS] = {
    [CLOSED_DONE] = {"t_closed", METRIC_COUNTER, "Closed.", "reason=\"done\""},
    [CLOSED_DENIED] = {"t_closed", METRIC_COUNTER, "Closed.", "reason=\"denied\""},
    [OPEN] = {"t_open", METRIC_GAUGE, "Open.", ""},
};
static const char want[] = "# TYPE t_closed counter\n"
                           "# HELP t_closed Closed.\n"
                           "t_closed_total{reason=\"done\"} 7\n"
                           "t_closed_total{reason=\"denied\"} 0\n"
                           "# TYPE t_open gauge\n"
                           "# HELP t_open Open.\n"
                           "t_open -1\n"
                           "# TYPE t_left_seconds gauge\n"
                           "# HELP t_left_seconds Left.\n"
                           "t_left_seconds{id=\"a\"} 1764000000\n"
                           "t_left_seconds{id=\"b\"} 0.5\n"
                           "# EOF\n";

static bool write_all(struct metrics_block *const *blocks, struct buf *out)
{
    return metrics_write(table, N_ROWS, blocks, 2, out) &&
           metrics_write_value(out, "t_left_seconds", METRIC_GAUGE, "Left.", "id=\"a\"",
                               1764000000) &&
           metrics_write_value(out, "t_left_seconds", METRIC_GAUGE, NULL, "id=\"b\"", 0.5) &&
           metrics_write_end(out);
}

static void test_text(void **state)
{
    (void)state;
    struct metrics_block *blocks[] = {metrics_block_new(N_ROWS), metrics_block_new(N_ROWS)};
    metrics_add(blocks[0], CLOSED_DONE, 5);
    metrics_add(blocks[1], CLOSED_DONE, 2);
    metrics_add(blocks[0], OPEN, 1);
    metrics_set(blocks[1], OPEN, -2);
    /* In a buffer of any size: whole, or said to have failed. */
    for (size_t max = 0; max <= sizeof(want); max++) {
        struct buf out = BUF_INIT(max);
        bool ok = write_all(blocks, &out);
        assert_int_equal(ok, max >= sizeof(want) - 1);
        if (ok) {
            assert_true(str_eq(buf_str(&out), STR_LIT(want)));
        }
        buf_reset(&out);
    }
    metrics_block_free(blocks[0]);
    metrics_block_free(blocks[1]);
    assert_null(metrics_block_free(NULL));
}

enum { ROUNDS = 200000 };

static void *count_up(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        metrics_add(arg, OPEN, 1);
    }
    return NULL;
}

/* Read while they count: never more than there can be, never less than before, all at the end. */
static void test_threads(void **state)
{
    (void)state;
    struct metrics_block *blocks[] = {metrics_block_new(N_ROWS), metrics_block_new(N_ROWS)};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, blocks[i]), 0);
    }
    int64_t before = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t now = metrics_sum(blocks, 2, OPEN);
        assert_true(now >= before && now <= 2 * (int64_t)ROUNDS);
        before = now;
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_true(metrics_sum(blocks, 2, OPEN) == 2 * (int64_t)ROUNDS);
    metrics_block_free(blocks[0]);
    metrics_block_free(blocks[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
