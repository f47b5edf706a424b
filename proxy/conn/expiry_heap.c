/* The clock, the plan and the heap of ends. */
#include "expiry_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

/* --- the clock -------------------------------------------------------------------------------- */

static bool near(int64_t a, int64_t b)
{
    return a - b <= EXPIRY_JITTER_S && b - a <= EXPIRY_JITTER_S;
}

bool expiry_clock_tick(struct expiry_clock *k, uint64_t boot_ms, int64_t wall_s)
{
    int64_t offset_s = wall_s - (int64_t)(boot_ms / 1000);
    if (!k->running) {
        *k = (struct expiry_clock){.running = true, .offset_s = offset_s};
        return false;
    }
    if (near(offset_s, k->offset_s)) {
        k->since_ms = 0;
        return false;
    }
    if (k->since_ms == 0 || !near(offset_s, k->seen_s)) {
        k->seen_s = offset_s;
        k->since_ms = boot_ms > 0 ? boot_ms : 1;
        return false;
    }
    if (boot_ms - k->since_ms < EXPIRY_BELIEVE_MS) {
        return false;
    }
    k->offset_s = offset_s;
    k->since_ms = 0;
    return true;
}

uint64_t expiry_clock_boot_ms(const struct expiry_clock *k, int64_t wall_s)
{
    int64_t s = 0;
    if (__builtin_sub_overflow(wall_s, k->offset_s, &s) || s > INT64_MAX / 1000) {
        return INT64_MAX; /* never */
    }
    return s > 0 ? (uint64_t)s * 1000 : 0;
}

/* --- the plan --------------------------------------------------------------------------------- */

struct expiry_plan expiry_plan(const struct conf_expiry *conf, uint64_t left_ms, uint32_t chance)
{
    uint64_t grace = conf->on == CONF_EXPIRY_DRAIN ? conf->grace_s * UINT64_C(1000) : 0;
    uint64_t spread = conf->on != CONF_EXPIRY_WARN ? conf->spread_s * UINT64_C(1000) : 0;
    uint64_t most = left_ms / 2;
    if (grace + spread > most) {
        grace = (uint64_t)((double)most * (double)grace / (double)(grace + spread));
        spread = most - grace < spread ? most - grace : spread;
    }
    struct expiry_plan p;
    p.end_ms = left_ms - (spread * (uint64_t)chance >> 32);
    p.drain_ms = p.end_ms > grace ? p.end_ms - grace : 0;
    return p;
}

/* --- the heap --------------------------------------------------------------------------------- */

static void place(struct expiry_heap *h, size_t i, struct expiry_item item)
{
    h->items[i] = item;
    item.e->at = (uint32_t)i + 1;
}

static void sift_up(struct expiry_heap *h, size_t i)
{
    struct expiry_item item = h->items[i];
    while (i > 0 && h->items[(i - 1) / 2].due_ms > item.due_ms) {
        place(h, i, h->items[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, item);
}

static void sift_down(struct expiry_heap *h, size_t i)
{
    struct expiry_item item = h->items[i];
    for (size_t child = 2 * i + 1; child < h->n; child = 2 * i + 1) {
        if (child + 1 < h->n && h->items[child + 1].due_ms < h->items[child].due_ms) {
            child++;
        }
        if (h->items[child].due_ms >= item.due_ms) {
            break;
        }
        place(h, i, h->items[child]);
        i = child;
    }
    place(h, i, item);
}

void expiry_heap_set(struct expiry_heap *h, struct expiry *e, uint64_t due_ms)
{
    if (e->at == 0) {
        if (h->n == h->cap) {
            h->cap = h->cap > 0 ? h->cap * 2 : 64;
            h->items = mem_must_realloc(h->items, h->cap * sizeof(h->items[0]));
        }
        place(h, h->n++, (struct expiry_item){due_ms, e});
    }
    size_t i = e->at - 1;
    h->items[i].due_ms = due_ms;
    sift_up(h, i);
    sift_down(h, e->at - 1);
}

void expiry_heap_remove(struct expiry_heap *h, struct expiry *e)
{
    if (e->at == 0) {
        return;
    }
    size_t i = e->at - 1;
    struct expiry_item last = h->items[--h->n];
    e->at = 0;
    if (last.e != e) {
        place(h, i, last);
        sift_up(h, i);
        sift_down(h, last.e->at - 1);
    }
    if (h->n == 0) {
        expiry_heap_deinit(h);
    }
}

struct expiry *expiry_heap_take(struct expiry_heap *h, uint64_t now_ms)
{
    if (h->n == 0 || h->items[0].due_ms > now_ms) {
        return NULL;
    }
    struct expiry *e = h->items[0].e;
    expiry_heap_remove(h, e);
    return e;
}

void expiry_heap_believe(struct expiry_heap *h, const struct expiry_clock *k)
{
    for (size_t i = 0; i < h->n; i++) {
        struct expiry_item *item = &h->items[i];
        uint64_t over_ms = expiry_clock_boot_ms(k, item->e->not_after_s);
        item->e->ends_ms = over_ms < item->e->ends_ms ? over_ms : item->e->ends_ms;
        item->due_ms = over_ms < item->due_ms ? over_ms : item->due_ms;
    }
    for (size_t i = h->n / 2; i-- > 0;) {
        sift_down(h, i);
    }
}

void expiry_heap_deinit(struct expiry_heap *h)
{
    free(h->items);
    *h = (struct expiry_heap){.n = 0};
}
