/* Decisions as bounded records, from a worker to the thread that writes. */
#include "audit_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A record has their lengths in this order, then the bytes. */
#define TEXTS(x)                                                                                   \
    {&(x)->decision,    &(x)->listener,  &(x)->own_id,     &(x)->peer_id, &(x)->protocol,          \
     &(x)->method,      &(x)->host,      &(x)->path,       &(x)->reason,  &(x)->rule,              \
     &(x)->rule_reason, &(x)->near_miss, &(x)->audit_rule, &(x)->shadow,  &(x)->shadow_rule}
enum { N_TEXTS = 15 };

/* What is in a record before its texts. */
struct fixed {
    uint8_t kind;
    bool allow, outbound, hbone, resumed;
    uint16_t port;
    uint32_t sampled;
    uint64_t number, ts_ms, conn, generation, state_generation;
    struct net_addr source, via;
    /* One more than may be: it was cut. */
    uint16_t lengths[N_TEXTS];
};

/* --- life ------------------------------------------------------------------------------------- */

void audit_ring_init(struct audit_ring *r, size_t size, unsigned worker, struct audit_wake *wake)
{
    POSTERN_ASSERT(size >= AUDIT_RECORD_MAX && (size & (size - 1)) == 0);
    r->data = (uint8_t *)mem_must_calloc(size, 1);
    r->size = size;
    r->worker = worker;
    r->wake = wake;
}

void audit_ring_deinit(struct audit_ring *r)
{
    free(r->data);
    r->data = NULL;
}

/* --- the worker's side ------------------------------------------------------------------------ */

static size_t put(struct audit_ring *r, size_t at, const void *p, size_t n)
{
    size_t from = at & (r->size - 1);
    size_t first = n < r->size - from ? n : r->size - from;
    if (n > 0) { /* a text that does not apply may be nowhere */
        memcpy(r->data + from, p, first);
        memcpy(r->data, (const uint8_t *)p + first, n - first);
    }
    return at + n;
}

static size_t fill(const struct audit_decision *d, uint64_t number, struct fixed *ret)
{
    const struct str *const texts[N_TEXTS] = TEXTS(d);
    size_t n = 0;
    memset(ret, 0, sizeof(*ret)); /* padding as well: it is copied */
    ret->kind = (uint8_t)d->kind;
    ret->allow = d->allow;
    ret->outbound = d->outbound;
    ret->hbone = d->hbone;
    ret->resumed = d->resumed;
    ret->port = d->port;
    ret->sampled = d->sampled;
    ret->number = number;
    ret->ts_ms = os_wall_ms();
    ret->conn = d->conn;
    ret->generation = d->generation;
    ret->state_generation = d->state_generation;
    ret->source = d->source;
    ret->via = d->via;
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t len = texts[i]->n;
        len = len > AUDIT_TEXT_MAX ? AUDIT_TEXT_MAX + 1 : len;
        ret->lengths[i] = (uint16_t)len;
        n += len;
    }
    return n;
}

static void wake(struct audit_wake *w)
{
    const uint64_t one = 1;
    ssize_t ignored = write(w->fd, &one, sizeof(one)); /* a full eventfd wakes as well */
    (void)ignored;
}

void audit_put(struct audit_ring *r, const struct audit_decision *d)
{
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    size_t used = head - atomic_load_explicit(&r->tail, memory_order_acquire);
    uint64_t number = atomic_load_explicit(&r->number, memory_order_relaxed) + 1;
    const struct str *const texts[N_TEXTS] = TEXTS(d);
    struct fixed f;
    uint32_t len = (uint32_t)(sizeof(f) + fill(d, number, &f));
    if (sizeof(len) + len > r->size - used) {
        /* The hole in the numbers is the count. */
        atomic_store_explicit(&r->number, number, memory_order_release);
        return;
    }
    size_t at = put(r, head, &len, sizeof(len));
    at = put(r, at, &f, sizeof(f));
    for (size_t i = 0; i < N_TEXTS; i++) {
        at = put(r, at, texts[i]->p, f.lengths[i]);
    }
    atomic_store_explicit(&r->head, at, memory_order_seq_cst);
    atomic_store_explicit(&r->number, number, memory_order_release);
    bool half = used < r->size / 2 && at - head + used >= r->size / 2;
    bool idle = atomic_load_explicit(&r->wake->idle, memory_order_seq_cst) &&
                atomic_exchange_explicit(&r->wake->idle, false, memory_order_seq_cst);
    if (idle || half) {
        wake(r->wake);
    }
}

void audit_skip(struct audit_ring *r)
{
    uint64_t n = atomic_load_explicit(&r->skipped, memory_order_relaxed);
    atomic_store_explicit(&r->skipped, n + 1, memory_order_relaxed);
}

/* --- the thread's side ------------------------------------------------------------------------ */

bool audit_ring_empty(const struct audit_ring *r)
{
    return atomic_load_explicit(&r->head, memory_order_seq_cst) ==
               atomic_load_explicit(&r->tail, memory_order_relaxed) &&
           atomic_load_explicit(&r->number, memory_order_acquire) <= r->seen;
}

static void get(const struct audit_ring *r, size_t at, void *p, size_t n)
{
    size_t from = at & (r->size - 1);
    size_t first = n < r->size - from ? n : r->size - from;
    memcpy(p, r->data + from, first);
    memcpy((uint8_t *)p + first, r->data, n - first);
}

bool audit_record_read(const uint8_t *p, size_t n, struct audit_decision *ret)
{
    struct fixed f;
    if (n < sizeof(f)) {
        return false;
    }
    memcpy(&f, p, sizeof(f));
    *ret = (struct audit_decision){.kind = (enum audit_kind)f.kind,
                                   .allow = f.allow,
                                   .outbound = f.outbound,
                                   .hbone = f.hbone,
                                   .resumed = f.resumed,
                                   .port = f.port,
                                   .sampled = f.sampled,
                                   .number = f.number,
                                   .ts_ms = f.ts_ms,
                                   .conn = f.conn,
                                   .generation = f.generation,
                                   .state_generation = f.state_generation,
                                   .source = f.source,
                                   .via = f.via};
    struct str *const texts[N_TEXTS] = TEXTS(ret);
    p += sizeof(f);
    n -= sizeof(f);
    for (size_t i = 0; i < N_TEXTS; i++) {
        if (f.lengths[i] > n) {
            return false;
        }
        *texts[i] = (struct str){(const char *)p, f.lengths[i]};
        p += f.lengths[i];
        n -= f.lengths[i];
    }
    return n == 0;
}

bool audit_ring_take(struct audit_ring *r, uint8_t *space, struct audit_decision *ret,
                     uint64_t *ret_lost)
{
    /* In this order: what is numbered up to here was put before, or never will be. */
    uint64_t number = atomic_load_explicit(&r->number, memory_order_acquire);
    size_t head = atomic_load_explicit(&r->head, memory_order_seq_cst);
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    uint32_t len;
    if (head == tail) {
        *ret_lost = number > r->seen ? number - r->seen : 0;
        r->seen += *ret_lost;
        return false;
    }
    get(r, tail, &len, sizeof(len));
    POSTERN_ASSERT(len <= AUDIT_RECORD_MAX);
    get(r, tail + sizeof(len), space, len);
    bool ok = audit_record_read(space, len, ret);
    POSTERN_ASSERT(ok);
    ret->worker = r->worker;
    *ret_lost = ret->number - r->seen - 1;
    r->seen = ret->number;
    atomic_store_explicit(&r->tail, tail + sizeof(len) + len, memory_order_release);
    return true;
}
