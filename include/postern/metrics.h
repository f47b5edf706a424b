/*
 * metrics: counters and gauges, as OpenMetrics text.
 *
 * A role declares its metrics in one constant table. Each thread owns a block of values that it
 * alone writes (relaxed atomics: no lock, no shared cache line); whoever is asked for the text sums
 * the blocks. Labels are part of the table, so that the number of series is fixed and small.
 */
#ifndef POSTERN_METRICS_H
#define POSTERN_METRICS_H

#include <postern/buf.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE };

/* Rows of one name stand together. A counter's name is given without "_total". */
struct metric {
    const char *name;
    enum metric_type type;
    const char *help;
    const char *labels; /* `direction="inbound",reason="done"`, or "" */
};

struct metrics_block {
    size_t n;
    _Atomic int64_t *values; /* on cache lines of their own */
};

/* Zeroed, for a table of n rows. Owned by the caller; freed when its thread has ended. */
struct metrics_block *metrics_block_new(size_t n);
struct metrics_block *metrics_block_free(struct metrics_block *b);

/* The owning thread only. */
static inline void metrics_add(struct metrics_block *b, size_t row, int64_t delta)
{
    int64_t v = atomic_load_explicit(&b->values[row], memory_order_relaxed);
    atomic_store_explicit(&b->values[row], v + delta, memory_order_relaxed);
}
static inline void metrics_set(struct metrics_block *b, size_t row, int64_t value)
{
    atomic_store_explicit(&b->values[row], value, memory_order_relaxed);
}

/* Any thread: the sum over blocks. */
int64_t metrics_sum(struct metrics_block *const *blocks, size_t n_blocks, size_t row);

/* OpenMetrics text of a table, without the end mark; false if `out` is full. */
bool metrics_write(const struct metric *table, size_t n, struct metrics_block *const *blocks,
                   size_t n_blocks, struct buf *out);
/* A value that is worked out when asked for; NULL help: the name was written just before. */
bool metrics_write_value(struct buf *out, const char *name, enum metric_type type, const char *help,
                         const char *labels, double value);
/* "# EOF", once, last. */
bool metrics_write_end(struct buf *out);

#endif
