/* The books of all workers as one: what the main thread tells of them. */
#include <postern/permissive.h>
#include <stdlib.h>
#include <string.h>

static uint64_t load(const _Atomic uint64_t *v)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)v, memory_order_relaxed);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static int by_key(const void *a, const void *b)
{
    const struct permissive_seen *x = (const struct permissive_seen *)a;
    const struct permissive_seen *y = (const struct permissive_seen *)b;
    if (x->key.listener != y->key.listener) {
        return x->key.listener < y->key.listener ? -1 : 1;
    }
    if (x->key.port != y->key.port) {
        return x->key.port < y->key.port ? -1 : 1;
    }
    return memcmp(&x->key.who, &y->key.who, sizeof(x->key) - offsetof(struct permissive_key, who));
}

static void take_row(const struct permissive_row *r, struct permissive_seen *ret)
{
    *ret = (struct permissive_seen){.key = r->key,
                                    .connections = load(&r->connections),
                                    .allowed = load(&r->allowed),
                                    .denied = load(&r->denied),
                                    .open = load(&r->open),
                                    .first_ms = load(&r->first_ms),
                                    .last_ms = load(&r->last_ms),
                                    .last_allowed_ms = load(&r->last_allowed_ms)};
}

static void join(struct permissive_seen *to, const struct permissive_seen *s)
{
    to->connections += s->connections;
    to->allowed += s->allowed;
    to->denied += s->denied;
    to->open += s->open;
    to->first_ms = earlier(to->first_ms, s->first_ms);
    to->last_ms = later(to->last_ms, s->last_ms);
    to->last_allowed_ms = later(to->last_allowed_ms, s->last_allowed_ms);
}

void permissive_tally_init(struct permissive_tally *t, const struct permissive_book *const *books,
                           size_t n_books)
{
    size_t n = 0;
    *t = (struct permissive_tally){.items = NULL};
    for (size_t i = 0; i < n_books; i++) {
        n += permissive_book_count(books[i]);
        t->lost_ms = later(t->lost_ms, permissive_book_lost_ms(books[i]));
    }
    t->items = (struct permissive_seen *)mem_must_calloc(n + 1, sizeof(*t->items));
    size_t got = 0;
    for (size_t i = 0; i < n_books; i++) {
        const struct permissive_row *r;
        for (size_t k = 0; got < n && (r = permissive_book_row(books[i], k)) != NULL; k++) {
            take_row(r, &t->items[got++]);
        }
    }
    qsort(t->items, got, sizeof(*t->items), by_key);
    for (size_t i = 0; i < got; i++) {
        if (t->n > 0 && by_key(&t->items[t->n - 1], &t->items[i]) == 0) {
            join(&t->items[t->n - 1], &t->items[i]);
        } else {
            t->items[t->n++] = t->items[i];
        }
    }
}

void permissive_tally_deinit(struct permissive_tally *t)
{
    free(t->items);
    *t = (struct permissive_tally){.items = NULL};
}

const struct permissive_seen *permissive_tally_port(const struct permissive_tally *t,
                                                    uint16_t listener, uint16_t port, size_t *ret_n)
{
    size_t i = 0;
    while (i < t->n && (t->items[i].key.listener != listener || t->items[i].key.port != port)) {
        i++;
    }
    size_t end = i;
    while (end < t->n && t->items[end].key.listener == listener && t->items[end].key.port == port) {
        end++;
    }
    *ret_n = end - i;
    return t->items + i;
}

/* Whole seconds; what was is never 0. */
static int64_t seconds(uint64_t ms)
{
    return ms == 0 ? 0 : ms < 1000 ? 1 : (int64_t)(ms / 1000);
}

void permissive_tally_facts(const struct permissive_tally *t, uint16_t listener, uint16_t port,
                            uint64_t since_ms, struct permissive_facts *ret)
{
    size_t n = 0;
    const struct permissive_seen *s = permissive_tally_port(t, listener, port, &n);
    uint64_t allowed = t->lost_ms, mtls = 0, open = 0;
    for (size_t i = 0; i < n; i++) {
        allowed = later(allowed, s[i].last_allowed_ms);
        open += s[i].open;
        if (s[i].key.who == PERMISSIVE_MTLS) {
            mtls = later(mtls, s[i].last_ms);
        }
    }
    *ret = (struct permissive_facts){.watched_since_s = seconds(since_ms),
                                     .last_allowed_s = seconds(allowed),
                                     .last_mtls_s = seconds(mtls),
                                     .open = open};
}
