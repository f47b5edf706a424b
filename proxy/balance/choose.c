/* Choosing and leaving out: numbers of records that workers share, no clock, no chance of its own.
 */
#include <postern/balance.h>

#include <stdlib.h>

static uint32_t load32(const _Atomic uint32_t *v)
{
    return atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)v, memory_order_relaxed);
}

static uint64_t load64(const _Atomic uint64_t *v)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)v, memory_order_relaxed);
}

bool balance_is_ejected(const struct balance_endpoint *e, uint64_t now_ms)
{
    return load64(&e->ejected_until_ms) > now_ms;
}

/* splitmix64: any state will do, 0 included. */
uint64_t balance_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static size_t count_ejected(const struct balance_set *s, uint64_t now_ms)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        n += balance_is_ejected(s->endpoints[i], now_ms);
    }
    return n;
}

/* What a connection may still be sent to. */
struct left {
    const struct balance_set *set;
    struct balance_endpoint *const *tried;
    size_t n_tried;
    uint64_t now_ms;
    bool panic; /* those that are left out as well */
};

static bool was_tried(const struct balance_endpoint *e, struct balance_endpoint *const *tried,
                      size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (tried[i] == e) {
            return true;
        }
    }
    return false;
}

/* The i-th of them, or NULL; *ret_n: how many there are up to there. */
static struct balance_endpoint *find(const struct left *l, uint64_t i, size_t *ret_n)
{
    *ret_n = 0;
    for (size_t k = 0; k < l->set->n; k++) {
        struct balance_endpoint *e = l->set->endpoints[k];
        if (!was_tried(e, l->tried, l->n_tried) &&
            (l->panic || !balance_is_ejected(e, l->now_ms)) && (*ret_n)++ == i) {
            return e;
        }
    }
    return NULL;
}

struct balance_endpoint *balance_choose(const struct balance_set *s,
                                        struct balance_endpoint *const *tried, size_t n_tried,
                                        uint64_t now_ms, uint64_t *random)
{
    struct left l = {.set = s, .tried = tried, .n_tried = n_tried, .now_ms = now_ms};
    size_t n = 0;
    size_t at = 0;
    l.panic = count_ejected(s, now_ms) * 2 > s->n;
    (void)find(&l, UINT64_MAX, &n);
    if (n == 0) {
        return NULL;
    }
    if (l.panic && n_tried == 0) {
        atomic_fetch_add_explicit(&s->service->n_panics, 1, memory_order_relaxed);
    }
    uint64_t first = balance_random(random) % n;
    uint64_t second = n > 1 ? balance_random(random) % (n - 1) : first;
    second += n > 1 && second >= first; /* another one */
    struct balance_endpoint *a = find(&l, first, &at);
    struct balance_endpoint *b = find(&l, second, &at);
    if (a == NULL || b == NULL) {
        return a != NULL ? a : b; /* others left them out meanwhile */
    }
    return load32(&b->open) < load32(&a->open) ? b : a;
}

void balance_take(struct balance_endpoint *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->open, 1, memory_order_relaxed);
}

void balance_give(struct balance_endpoint *e)
{
    POSTERN_ASSERT(atomic_fetch_sub_explicit(&e->open, 1, memory_order_relaxed) > 0);
    balance_endpoint_unref(e);
}

/* --- leaving out ------------------------------------------------------------------------------ */

static uint64_t ejection_ms(const struct conf_ejection *c, uint32_t before)
{
    uint64_t ms = c->time_ms;
    for (uint32_t i = 0; i < before && ms < c->max_time_ms; i++) {
        ms *= 2;
    }
    return ms < c->max_time_ms ? ms : c->max_time_ms;
}

bool balance_failed(const struct balance_set *s, struct balance_endpoint *e, uint64_t now_ms)
{
    const struct conf_ejection *c = &s->route->ejection;
    uint32_t failures = atomic_fetch_add_explicit(&e->failures, 1, memory_order_relaxed) + 1;
    atomic_fetch_add_explicit(&e->n_failures, 1, memory_order_relaxed);
    if (c->after == 0 || failures < c->after || balance_is_ejected(e, now_ms) ||
        (count_ejected(s, now_ms) + 1) * 2 > s->n) {
        return false;
    }
    /* Of workers that see it at once, one does it. */
    uint64_t until = load64(&e->ejected_until_ms);
    uint64_t ms = ejection_ms(c, load32(&e->ejections));
    if (until > now_ms ||
        !atomic_compare_exchange_strong_explicit(&e->ejected_until_ms, &until, now_ms + ms,
                                                 memory_order_relaxed, memory_order_relaxed)) {
        return false;
    }
    atomic_store_explicit(&e->ejected_for_ms, ms, memory_order_relaxed);
    atomic_store_explicit(&e->failures, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->ejections, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->n_ejections, 1, memory_order_relaxed);
    return true;
}

void balance_succeeded(struct balance_endpoint *e, uint64_t now_ms)
{
    if (load32(&e->failures) != 0) {
        atomic_store_explicit(&e->failures, 0, memory_order_relaxed);
    }
    /* What has been good for as long as it was left out begins anew. */
    if (load32(&e->ejections) != 0 &&
        now_ms >= load64(&e->ejected_until_ms) + load64(&e->ejected_for_ms)) {
        atomic_store_explicit(&e->ejections, 0, memory_order_relaxed);
    }
}

/* --- a service's connections ------------------------------------------------------------------ */

bool balance_service_take(struct balance_service *s, uint32_t max)
{
    uint32_t open = load32(&s->open);
    do {
        if (max > 0 && open >= max) {
            atomic_fetch_add_explicit(&s->n_refused, 1, memory_order_relaxed);
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&s->open, &open, open + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return true;
}

void balance_service_give(struct balance_service *s)
{
    POSTERN_ASSERT(atomic_fetch_sub_explicit(&s->open, 1, memory_order_relaxed) > 0);
    balance_service_unref(s);
}
