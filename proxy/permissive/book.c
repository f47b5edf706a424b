/* Who came in plaintext: rows that only grow in number, found by a keyed hash. */
#include <netinet/in.h>
#include <postern/permissive.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2 * PERMISSIVE_ROWS };

struct permissive_rows {
    struct permissive_row rows[PERMISSIVE_ROWS];
    uint16_t slots[SLOTS]; /* number of a row; 0: none. The writer's alone */
};

struct permissive_book {
    _Atomic(struct permissive_rows *) all; /* owned; NULL: nobody came yet */
    _Atomic size_t n;                      /* that readers may look at */
    size_t n_denied;                       /* of sources that were allowed nothing */
    _Atomic uint64_t lost_ms;              /* when somebody was allowed who has no row */
    uint64_t seed;
};

struct permissive_book *permissive_book_new(uint64_t seed)
{
    struct permissive_book *b = mem_must_new(struct permissive_book);
    b->seed = seed;
    return b;
}

struct permissive_book *permissive_book_free(struct permissive_book *b)
{
    if (b != NULL) {
        free(atomic_load_explicit(&b->all, memory_order_relaxed));
        free(b);
    }
    return NULL;
}

size_t permissive_book_count(const struct permissive_book *b)
{
    return atomic_load_explicit(&((struct permissive_book *)(uintptr_t)b)->n, memory_order_acquire);
}

const struct permissive_row *permissive_book_row(const struct permissive_book *b, size_t i)
{
    if (i >= permissive_book_count(b)) {
        return NULL;
    }
    return &atomic_load_explicit(&((struct permissive_book *)(uintptr_t)b)->all,
                                 memory_order_relaxed)
                ->rows[i];
}

uint64_t permissive_book_lost_ms(const struct permissive_book *b)
{
    return atomic_load_explicit(&((struct permissive_book *)(uintptr_t)b)->lost_ms,
                                memory_order_relaxed);
}

/* --- finding ---------------------------------------------------------------------------------- */

static size_t slot_of(const struct permissive_book *b, const struct permissive_key *k)
{
    const uint8_t *p = (const uint8_t *)k;
    uint64_t h = b->seed;
    for (size_t i = 0; i < sizeof(*k); i++) {
        h = (h ^ p[i]) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return (size_t)(h % SLOTS);
}

static bool has_room(const struct permissive_book *b, size_t n, enum permissive_who who,
                     bool allowed)
{
    if (who != PERMISSIVE_SOURCE) {
        return n < PERMISSIVE_ROWS;
    }
    return n < PERMISSIVE_ROWS - PERMISSIVE_ROWS_LEFT &&
           (allowed || b->n_denied < PERMISSIVE_ROWS_DENIED);
}

/* NULL: there is none, and no room for one. */
static struct permissive_row *find(struct permissive_book *b, const struct permissive_key *k,
                                   bool allowed)
{
    struct permissive_rows *all = atomic_load_explicit(&b->all, memory_order_relaxed);
    size_t n = atomic_load_explicit(&b->n, memory_order_relaxed);
    if (all == NULL) {
        all = (struct permissive_rows *)calloc(1, sizeof(*all));
        if (all == NULL) {
            return NULL;
        }
        atomic_store_explicit(&b->all, all, memory_order_relaxed);
    }
    size_t at = slot_of(b, k);
    while (all->slots[at] != 0) { /* half of them are free */
        struct permissive_row *r = &all->rows[all->slots[at] - 1];
        if (memcmp(&r->key, k, sizeof(*k)) == 0) {
            return r;
        }
        at = (at + 1) % SLOTS;
    }
    if (!has_room(b, n, (enum permissive_who)k->who, allowed)) {
        return NULL;
    }
    all->rows[n].key = *k;
    all->slots[at] = (uint16_t)(n + 1);
    b->n_denied += k->who == PERMISSIVE_SOURCE && !allowed;
    atomic_store_explicit(&b->n, n + 1, memory_order_release);
    return &all->rows[n];
}

static struct permissive_key key_of(uint16_t listener, uint16_t port, const struct net_addr *source,
                                    enum permissive_class class)
{
    struct permissive_key k = {
        .listener = listener, .port = port, .class = (uint8_t)class, .who = PERMISSIVE_SOURCE};
    if (source != NULL && source->len > 0 && source->sa.sa_family == AF_INET) {
        k.family = AF_INET;
        memcpy(k.address, &source->in4.sin_addr, sizeof(source->in4.sin_addr));
    } else if (source != NULL && source->len > 0 && source->sa.sa_family == AF_INET6) {
        k.family = AF_INET6;
        memcpy(k.address, &source->in6.sin6_addr, sizeof(source->in6.sin6_addr));
    } else {
        k.who = PERMISSIVE_OTHERS;
        k.class = PERMISSIVE_OTHER;
    }
    return k;
}

/* --- writing: one writer, no locked instruction ------------------------------------------------
 */

static void put(_Atomic uint64_t *at, uint64_t value)
{
    atomic_store_explicit(at, value, memory_order_relaxed);
}

static void add(_Atomic uint64_t *at, uint64_t n)
{
    put(at, atomic_load_explicit(at, memory_order_relaxed) + n);
}

static void saw(struct permissive_row *r, uint64_t now_ms)
{
    if (atomic_load_explicit(&r->first_ms, memory_order_relaxed) == 0) {
        put(&r->first_ms, now_ms);
    }
    put(&r->last_ms, now_ms);
}

/* The row of a visit, found once: a source that was denied first and is allowed later has one. */
static bool enter(struct permissive_book *b, struct permissive_visit *v,
                  const struct permissive_key *k, bool allowed, uint64_t now_ms)
{
    if (v->row == NULL) {
        v->row = find(b, k, allowed);
        if (v->row == NULL) {
            struct permissive_key others = key_of(k->listener, k->port, NULL, PERMISSIVE_OTHER);
            v->row = find(b, &others, allowed);
        }
        if (v->row == NULL) {
            return false;
        }
        add(&v->row->connections, 1);
    }
    saw(v->row, now_ms);
    return true;
}

void permissive_book_decided(struct permissive_book *b, struct permissive_visit *v,
                             uint16_t listener, uint16_t port, const struct net_addr *source,
                             enum permissive_class class, bool allowed, uint64_t now_ms)
{
    struct permissive_key k = key_of(listener, port, source, class);
    if (!enter(b, v, &k, allowed, now_ms)) {
        if (allowed) {
            put(&b->lost_ms, now_ms);
        }
        return;
    }
    add(allowed ? &v->row->allowed : &v->row->denied, 1);
    if (allowed) {
        put(&v->row->last_allowed_ms, now_ms);
        if (!v->open) {
            v->open = true;
            add(&v->row->open, 1);
        }
    }
}

void permissive_book_left(struct permissive_book *b, struct permissive_visit *v, uint16_t listener,
                          uint16_t port, const struct net_addr *source, enum permissive_class class,
                          uint64_t now_ms)
{
    struct permissive_key k = key_of(listener, port, source, class);
    if (enter(b, v, &k, false, now_ms) && v->open) {
        put(&v->row->last_allowed_ms, now_ms); /* until now it was in use */
        add(&v->row->open, UINT64_MAX);
    }
    *v = (struct permissive_visit){NULL, false};
}

void permissive_book_mtls(struct permissive_book *b, uint16_t listener, uint16_t port,
                          uint64_t now_ms)
{
    struct permissive_key k = key_of(listener, port, NULL, PERMISSIVE_OTHER);
    k.who = PERMISSIVE_MTLS;
    struct permissive_row *r = find(b, &k, true);
    if (r != NULL) {
        add(&r->connections, 1);
        saw(r, now_ms);
    }
}
