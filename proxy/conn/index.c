/* The index of live connections: slots, and the entries that they share. */
#include "index_priv.h"

#include "index_look.h"
#include "index_table.h"
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 256 };

struct slot {
    void *owner; /* NULL: free; then peer_next is the next free one */
    uint32_t peer, peer_prev, peer_next;
    uint32_t basis, basis_prev, basis_next;
    uint32_t queue_prev, queue_next;
    uint16_t listener;
    uint16_t own; /* number of an own certificate; 0: none, or not known */
    uint8_t rank; /* enum live_rank */
    bool outbound : 1;
    bool unsure : 1;
};

struct queue {
    uint32_t first, last;
    size_t n;
};

struct live_index {
    struct slot **chunks; /* owned; slots do not move */
    uint32_t n_slots;     /* in chunks; slot 0 is not used */
    uint32_t free;        /* 0: none */
    size_t n;
    struct queue queues[LIVE_RANKS];
    struct index_peers peers;
    struct index_bases bases;
    struct index_owns owns;
};

static struct slot *at(const struct live_index *x, uint32_t slot)
{
    return &x->chunks[slot / CHUNK][slot % CHUNK];
}

struct live_index *live_index_new(void)
{
    return mem_must_new(struct live_index);
}

static void free_slots(struct live_index *x)
{
    for (uint32_t i = 0; i < x->n_slots / CHUNK; i++) {
        free(x->chunks[i]);
    }
    free(x->chunks);
    x->chunks = NULL;
    x->n_slots = x->free = 0;
}

struct live_index *live_index_free(struct live_index *x)
{
    if (x != NULL) {
        free_slots(x);
        index_peers_deinit(&x->peers);
        index_bases_deinit(&x->bases);
        index_owns_deinit(&x->owns);
        free(x);
    }
    return NULL;
}

size_t live_count(const struct live_index *x)
{
    return x->n;
}

size_t live_memory(const struct live_index *x)
{
    return sizeof(*x) + (size_t)x->n_slots * sizeof(struct slot) +
           (size_t)x->n_slots / CHUNK * sizeof(struct slot *) + index_peers_memory(&x->peers) +
           index_bases_memory(&x->bases);
}

/* --- queues ----------------------------------------------------------------------------------- */

static void unqueue(struct live_index *x, uint32_t i)
{
    struct slot *s = at(x, i);
    struct queue *q;
    if (s->rank == LIVE_RANKS) {
        return;
    }
    q = &x->queues[s->rank];
    *(s->queue_prev != 0 ? &at(x, s->queue_prev)->queue_next : &q->first) = s->queue_next;
    *(s->queue_next != 0 ? &at(x, s->queue_next)->queue_prev : &q->last) = s->queue_prev;
    q->n--;
    s->queue_prev = s->queue_next = 0;
    s->rank = LIVE_RANKS;
}

/* Into a more urgent queue than it stands in, if it is one. */
static void enqueue(struct live_index *x, uint32_t i, enum live_rank rank)
{
    struct slot *s = at(x, i);
    struct queue *q = &x->queues[rank];
    if (s->rank <= rank) {
        return;
    }
    unqueue(x, i);
    s->rank = (uint8_t)rank;
    s->queue_prev = q->last;
    *(q->last != 0 ? &at(x, q->last)->queue_next : &q->first) = i;
    q->last = i;
    q->n++;
}

void *live_next(struct live_index *x, enum live_rank *ret_rank)
{
    for (unsigned r = 0; r < LIVE_RANKS; r++) {
        uint32_t i = x->queues[r].first;
        if (i != 0) {
            unqueue(x, i);
            *ret_rank = (enum live_rank)r;
            return at(x, i)->owner;
        }
    }
    return NULL;
}

enum live_rank live_take(struct live_index *x, uint32_t slot)
{
    enum live_rank was = (enum live_rank)at(x, slot)->rank;
    unqueue(x, slot);
    return was;
}

enum live_rank live_rank_of(const struct live_index *x, uint32_t slot)
{
    return (enum live_rank)at(x, slot)->rank;
}

size_t live_queued(const struct live_index *x, enum live_rank rank)
{
    return x->queues[rank].n;
}

/* --- slots ------------------------------------------------------------------------------------ */

static void add_chunk(struct live_index *x)
{
    uint32_t n = x->n_slots / CHUNK;
    x->chunks = mem_must_realloc(x->chunks, (n + 1) * sizeof(struct slot *));
    x->chunks[n] = mem_must_calloc(CHUNK, sizeof(struct slot));
    x->n_slots += CHUNK;
    for (uint32_t i = x->n_slots - 1; i >= n * CHUNK && i > 0; i--) {
        at(x, i)->peer_next = x->free;
        x->free = i;
    }
}

uint32_t live_add(struct live_index *x, void *owner, uint16_t listener, bool outbound)
{
    if (x->free == 0) {
        add_chunk(x);
    }
    uint32_t i = x->free;
    struct slot *s = at(x, i);
    x->free = s->peer_next;
    *s = (struct slot){
        .owner = owner, .listener = listener, .outbound = outbound, .rank = LIVE_RANKS};
    x->n++;
    live_set_by(x, i, LIVE_BY_NOTHING, 0, 0, NULL);
    return i;
}

static void leave_peer(struct live_index *x, uint32_t i)
{
    struct slot *s = at(x, i);
    if (s->peer == 0) {
        return;
    }
    struct index_peer *p = index_peer(&x->peers, s->peer);
    *(s->peer_prev != 0 ? &at(x, s->peer_prev)->peer_next : &p->first) = s->peer_next;
    if (s->peer_next != 0) {
        at(x, s->peer_next)->peer_prev = s->peer_prev;
    }
    if (p->first == 0) {
        index_peer_remove(&x->peers, s->peer);
    }
    s->peer = s->peer_prev = s->peer_next = 0;
}

static void leave_basis(struct live_index *x, uint32_t i)
{
    struct slot *s = at(x, i);
    struct index_basis *b = index_basis(&x->bases, s->basis);
    *(s->basis_prev != 0 ? &at(x, s->basis_prev)->basis_next : &b->first) = s->basis_next;
    if (s->basis_next != 0) {
        at(x, s->basis_next)->basis_prev = s->basis_prev;
    }
    if (b->first == 0) {
        index_basis_remove(&x->bases, s->basis);
    }
    s->basis = s->basis_prev = s->basis_next = 0;
}

void live_remove(struct live_index *x, uint32_t slot)
{
    struct slot *s = at(x, slot);
    unqueue(x, slot);
    leave_peer(x, slot);
    leave_basis(x, slot);
    index_own_unref(&x->owns, s->own);
    *s = (struct slot){.owner = NULL, .peer_next = x->free};
    x->free = slot;
    if (--x->n == 0) {
        free_slots(x);
    }
}

void live_set_peer(struct live_index *x, uint32_t slot, const struct live_peer_facts *peer)
{
    struct slot *s = at(x, slot);
    leave_peer(x, slot);
    s->peer = index_peer_get(&x->peers, peer);
    struct index_peer *p = index_peer(&x->peers, s->peer);
    s->peer_next = p->first;
    if (p->first != 0) {
        at(x, p->first)->peer_prev = slot;
    }
    p->first = slot;
}

void live_set_own(struct live_index *x, uint32_t slot, const char *serial)
{
    struct slot *s = at(x, slot);
    uint16_t before = s->own;
    s->own = index_own_get(&x->owns, serial);
    s->unsure = s->unsure || (s->own == 0 && serial[0] != '\0'); /* too many: not to be found */
    index_own_unref(&x->owns, before);
}

const char *live_set_by(struct live_index *x, uint32_t slot, enum live_by by, uint64_t key,
                        uint64_t key2, const char *name)
{
    struct slot *s = at(x, slot);
    uint32_t next = index_basis_get(&x->bases, by, key, key2, name);
    if (next == s->basis) {
        return index_basis(&x->bases, next)->name;
    }
    if (s->basis != 0) {
        leave_basis(x, slot);
    }
    struct index_basis *b = index_basis(&x->bases, next);
    s->basis = next;
    s->basis_next = b->first;
    if (b->first != 0) {
        at(x, b->first)->basis_prev = slot;
    }
    b->first = slot;
    return b->name;
}

void live_set_unsure(struct live_index *x, uint32_t slot)
{
    at(x, slot)->unsure = true;
}

/* --- marking ---------------------------------------------------------------------------------- */

static void mark_peer(struct live_index *x, const struct index_peer *p, enum live_rank rank)
{
    for (uint32_t i = p->first; i != 0; i = at(x, i)->peer_next) {
        enqueue(x, i, rank);
    }
}

static void mark_basis(struct live_index *x, const struct index_basis *b, enum live_rank rank)
{
    for (uint32_t i = b->first; i != 0; i = at(x, i)->basis_next) {
        enqueue(x, i, rank);
    }
}

void live_mark_id(struct live_index *x, struct str id, enum live_rank rank)
{
    for (uint32_t p = index_peer_by_id(&x->peers, id); p != 0;
         p = index_peer_same_id(&x->peers, p)) {
        mark_peer(x, index_peer(&x->peers, p), rank);
    }
}

static void mark_own(struct live_index *x, uint16_t own, enum live_rank rank)
{
    for (uint32_t i = 1; own != 0 && i < x->n_slots; i++) {
        if (at(x, i)->owner != NULL && at(x, i)->own == own) {
            enqueue(x, i, rank);
        }
    }
}

void live_mark_serial(struct live_index *x, struct str serial, enum live_rank rank)
{
    for (uint32_t p = index_peer_by_serial(&x->peers, serial); p != 0;
         p = index_peer_same_serial(&x->peers, p)) {
        mark_peer(x, index_peer(&x->peers, p), rank);
    }
    mark_own(x, index_own_find(&x->owns, serial), rank);
}

void live_mark_issuers(struct live_index *x, const struct x509_key_id *ids, size_t n,
                       enum live_rank rank)
{
    for (uint32_t p = 1; p < x->peers.n_items; p++) {
        const struct index_peer *peer = index_peer(&x->peers, p);
        if (peer != NULL && index_peer_has_issuer(peer, ids, n)) {
            mark_peer(x, peer, rank);
        }
    }
}

void live_mark_who(struct live_index *x, const struct policy_who *who, enum live_rank rank)
{
    if (who->form == POLICY_WHO_EXACTLY && who->part == POLICY_WHO_ID) {
        live_mark_id(x, str_of(who->text), rank);
        return;
    }
    for (uint32_t p = 1; p < x->peers.n_items; p++) {
        const struct index_peer *peer = index_peer(&x->peers, p);
        if (peer != NULL && policy_who_has(who, str_of(peer->id))) {
            mark_peer(x, peer, rank);
        }
    }
}

static bool has_key(const uint64_t *keys, size_t n, uint64_t key)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (keys[mid] < key) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < n && keys[low] == key;
}

void live_mark_keys(struct live_index *x, enum live_by by, const uint64_t *keys, size_t n,
                    enum live_rank rank)
{
    for (uint32_t i = 1; i < x->bases.n_items; i++) {
        const struct index_basis *b = index_basis(&x->bases, i);
        if (b->first != 0 && b->by == by &&
            (has_key(keys, n, b->key) || (b->key2 != 0 && has_key(keys, n, b->key2)))) {
            mark_basis(x, b, rank);
        }
    }
}

void live_mark_by(struct live_index *x, enum live_by by, enum live_rank rank)
{
    for (uint32_t i = 1; i < x->bases.n_items; i++) {
        const struct index_basis *b = index_basis(&x->bases, i);
        if (b->first != 0 && b->by == by) {
            mark_basis(x, b, rank);
        }
    }
}

#define MARK_WHERE(x, rank, condition)                                                             \
    for (uint32_t i = 1; i < (x)->n_slots; i++) {                                                  \
        const struct slot *s = at((x), i);                                                         \
        if (s->owner != NULL && (condition)) {                                                     \
            enqueue((x), i, (rank));                                                               \
        }                                                                                          \
    }

void live_mark_listener(struct live_index *x, uint16_t listener, enum live_rank rank)
{
    MARK_WHERE(x, rank, s->listener == listener)
}

void live_mark_direction(struct live_index *x, bool outbound, enum live_rank rank)
{
    MARK_WHERE(x, rank, s->outbound == outbound)
}

void live_mark_unsure(struct live_index *x, enum live_rank rank)
{
    live_mark_by(x, LIVE_BY_NOTHING, rank);
    MARK_WHERE(x, rank, s->unsure)
}

void live_mark_all(struct live_index *x, enum live_rank rank)
{
    MARK_WHERE(x, rank, true)
}
