#include <postern/metrics.h>

#include <postern/err.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE = 64 };

struct metrics_block *metrics_block_new(size_t n)
{
    struct metrics_block *b = mem_must_new(struct metrics_block);
    size_t bytes = (n * sizeof(*b->values) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    b->n = n;
    b->values = aligned_alloc(CACHE_LINE, bytes > 0 ? bytes : CACHE_LINE);
    POSTERN_ASSERT(b->values != NULL);
    for (size_t i = 0; i < n; i++) {
        atomic_init(&b->values[i], 0);
    }
    return b;
}

struct metrics_block *metrics_block_free(struct metrics_block *b)
{
    if (b != NULL) {
        free(b->values);
        free(b);
    }
    return NULL;
}

int64_t metrics_sum(struct metrics_block *const *blocks, size_t n_blocks, size_t row)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n_blocks; i++) {
        sum += atomic_load_explicit(&blocks[i]->values[row], memory_order_relaxed);
    }
    return sum;
}

static bool write_head(struct buf *out, const char *name, enum metric_type type, const char *help)
{
    return buf_printf(out, "# TYPE %s %s\n# HELP %s %s\n", name,
                      type == METRIC_COUNTER ? "counter" : "gauge", name, help);
}

static bool write_name(struct buf *out, const char *name, enum metric_type type, const char *labels)
{
    bool has = labels != NULL && labels[0] != '\0';
    return buf_printf(out, "%s%s%s%s%s ", name, type == METRIC_COUNTER ? "_total" : "",
                      has ? "{" : "", has ? labels : "", has ? "}" : "");
}

bool metrics_write(const struct metric *table, size_t n, struct metrics_block *const *blocks,
                   size_t n_blocks, struct buf *out)
{
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        const struct metric *m = &table[i];
        if (i == 0 || strcmp(m->name, table[i - 1].name) != 0) {
            ok = write_head(out, m->name, m->type, m->help);
        }
        ok = ok && write_name(out, m->name, m->type, m->labels) &&
             buf_printf(out, "%lld\n", (long long)metrics_sum(blocks, n_blocks, i));
    }
    return ok;
}

bool metrics_write_value(struct buf *out, const char *name, enum metric_type type, const char *help,
                         const char *labels, double value)
{
    return (help == NULL || write_head(out, name, type, help)) &&
           write_name(out, name, type, labels) && buf_printf(out, "%.15g\n", value);
}

bool metrics_write_end(struct buf *out)
{
    return buf_append_str(out, STR_LIT("# EOF\n"));
}
