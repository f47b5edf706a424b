/* The entries that slots of the index share. */
#include "index_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS_MIN = 16 };

/* Identities come from authorities that are trusted: a flood of chosen ones is bounded by the limit
 * of connections all the same. */
static uint32_t hash_bytes(const char *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325U;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (uint8_t)p[i]) * 0x100000001b3U;
    }
    return (uint32_t)(h ^ h >> 32);
}

/* --- peers ------------------------------------------------------------------------------------ */

struct index_peer *index_peer(const struct index_peers *t, uint32_t i)
{
    return t->items[i];
}

static struct str id_of(const struct index_peer *p)
{
    return (struct str){p->id, p->id_len};
}

static void link_peer(struct index_peers *t, uint32_t i)
{
    struct index_peer *p = t->items[i];
    uint32_t *by_id = &t->by_id[hash_bytes(p->id, p->id_len) & (t->n_buckets - 1)];
    uint32_t *by_serial =
        &t->by_serial[hash_bytes(p->serial, strlen(p->serial)) & (t->n_buckets - 1)];
    p->next_id = *by_id;
    *by_id = i;
    p->next_serial = *by_serial;
    *by_serial = i;
}

static void grow_peers(struct index_peers *t)
{
    t->n_buckets = t->n_buckets > 0 ? t->n_buckets * 2 : BUCKETS_MIN;
    free(t->by_id);
    free(t->by_serial);
    t->by_id = mem_must_calloc(t->n_buckets, sizeof(uint32_t));
    t->by_serial = mem_must_calloc(t->n_buckets, sizeof(uint32_t));
    for (uint32_t i = 1; i < t->n_items; i++) {
        if (t->items[i] != NULL) {
            link_peer(t, i);
        }
    }
}

static uint32_t same_id(const struct index_peers *t, uint32_t i, struct str id)
{
    while (i != 0 && !str_eq(id_of(t->items[i]), id)) {
        i = t->items[i]->next_id;
    }
    return i;
}

static uint32_t same_serial(const struct index_peers *t, uint32_t i, struct str serial)
{
    while (i != 0 && !str_eq(str_of(t->items[i]->serial), serial)) {
        i = t->items[i]->next_serial;
    }
    return i;
}

uint32_t index_peer_by_id(const struct index_peers *t, struct str id)
{
    return t->n_buckets == 0
               ? 0
               : same_id(t, t->by_id[hash_bytes(id.p, id.n) & (t->n_buckets - 1)], id);
}

uint32_t index_peer_same_id(const struct index_peers *t, uint32_t i)
{
    return same_id(t, t->items[i]->next_id, id_of(t->items[i]));
}

uint32_t index_peer_by_serial(const struct index_peers *t, struct str serial)
{
    return t->n_buckets == 0
               ? 0
               : same_serial(t, t->by_serial[hash_bytes(serial.p, serial.n) & (t->n_buckets - 1)],
                             serial);
}

uint32_t index_peer_same_serial(const struct index_peers *t, uint32_t i)
{
    return same_serial(t, t->items[i]->next_serial, str_of(t->items[i]->serial));
}

static bool same_issuers(const struct index_peer *p, const struct live_peer_facts *f)
{
    return p->n_issuers == f->n_issuers &&
           (p->n_issuers == 0 ||
            memcmp(p->issuers, f->issuers, p->n_issuers * sizeof(p->issuers[0])) == 0);
}

static uint32_t free_item(struct index_peers *t)
{
    uint32_t i = t->hint > 0 ? t->hint : 1; /* there is no free one below */
    while (i < t->n_items && t->items[i] != NULL) {
        i++;
    }
    if (i >= t->n_items) {
        uint32_t n = t->n_items > 0 ? t->n_items * 2 : BUCKETS_MIN;
        t->items = mem_must_realloc(t->items, n * sizeof(struct index_peer *));
        memset(t->items + t->n_items, 0, (n - t->n_items) * sizeof(struct index_peer *));
        t->n_items = n;
    }
    t->hint = i + 1;
    return i;
}

uint32_t index_peer_get(struct index_peers *t, const struct live_peer_facts *f)
{
    for (uint32_t i = index_peer_by_id(t, f->id); i != 0; i = index_peer_same_id(t, i)) {
        if (strcmp(t->items[i]->serial, f->serial) == 0 && same_issuers(t->items[i], f)) {
            return i;
        }
    }
    size_t serial_len = strlen(f->serial);
    struct index_peer *p = mem_must_calloc(1, sizeof(*p) + f->id.n + serial_len + 2);
    p->id_len = f->id.n;
    if (f->id.n > 0) {
        memcpy(p->id, f->id.p, f->id.n);
    }
    p->serial = p->id + f->id.n + 1;
    memcpy(p->serial, f->serial, serial_len);
    p->n_issuers = (uint32_t)f->n_issuers;
    if (f->n_issuers > 0) {
        p->issuers = mem_must_calloc(f->n_issuers, sizeof(p->issuers[0]));
        memcpy(p->issuers, f->issuers, f->n_issuers * sizeof(p->issuers[0]));
    }
    uint32_t i = free_item(t);
    t->items[i] = p;
    t->n++;
    if (t->n > t->n_buckets) {
        grow_peers(t); /* links this one too */
    } else {
        link_peer(t, i);
    }
    return i;
}

void index_peer_remove(struct index_peers *t, uint32_t i)
{
    struct index_peer *p = t->items[i];
    uint32_t *at = &t->by_id[hash_bytes(p->id, p->id_len) & (t->n_buckets - 1)];
    while (*at != i) {
        at = &t->items[*at]->next_id;
    }
    *at = p->next_id;
    at = &t->by_serial[hash_bytes(p->serial, strlen(p->serial)) & (t->n_buckets - 1)];
    while (*at != i) {
        at = &t->items[*at]->next_serial;
    }
    *at = p->next_serial;
    t->items[i] = NULL;
    t->n--;
    t->hint = i < t->hint ? i : t->hint;
    free(p->issuers);
    free(p);
    if (t->n == 0) {
        index_peers_deinit(t);
    }
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct x509_key_id));
}

bool index_peer_has_issuer(const struct index_peer *p, const struct x509_key_id *ids, size_t n)
{
    for (uint32_t i = 0; i < p->n_issuers; i++) {
        if (bsearch(&p->issuers[i], ids, n, sizeof(ids[0]), compare_ids) != NULL) {
            return true;
        }
    }
    return p->n_issuers == 0;
}

size_t index_peers_memory(const struct index_peers *t)
{
    size_t n = t->n_items * sizeof(struct index_peer *) + (size_t)t->n_buckets * 8;
    for (uint32_t i = 1; i < t->n_items; i++) {
        const struct index_peer *p = t->items[i];
        n += p != NULL ? sizeof(*p) + p->id_len + strlen(p->serial) + 2 +
                             p->n_issuers * sizeof(p->issuers[0])
                       : 0;
    }
    return n;
}

void index_peers_deinit(struct index_peers *t)
{
    for (uint32_t i = 1; i < t->n_items; i++) {
        if (t->items[i] != NULL) {
            free(t->items[i]->issuers);
            free(t->items[i]);
        }
    }
    free(t->items);
    free(t->by_id);
    free(t->by_serial);
    *t = (struct index_peers){.n = 0};
}

/* --- bases ------------------------------------------------------------------------------------ */

struct index_basis *index_basis(const struct index_bases *t, uint32_t i)
{
    return &t->items[i];
}

static uint32_t *bucket(const struct index_bases *t, enum live_by by, uint64_t key, uint64_t key2)
{
    uint64_t h = (key ^ (key2 << 1 | key2 >> 63) ^ (uint64_t)by) * 0x9e3779b97f4a7c15U;
    return &t->buckets[(uint32_t)(h >> 32) & (t->n_buckets - 1)];
}

static void grow_bases(struct index_bases *t)
{
    t->n_buckets = t->n_buckets > 0 ? t->n_buckets * 2 : BUCKETS_MIN;
    free(t->buckets);
    t->buckets = mem_must_calloc(t->n_buckets, sizeof(uint32_t));
    for (uint32_t i = 1; i < t->n_items; i++) {
        struct index_basis *b = &t->items[i];
        if (b->first != 0) {
            uint32_t *at = bucket(t, b->by, b->key, b->key2);
            b->next = *at;
            *at = i;
        }
    }
}

uint32_t index_basis_get(struct index_bases *t, enum live_by by, uint64_t key, uint64_t key2,
                         const char *name)
{
    if (t->n >= t->n_buckets) {
        grow_bases(t);
    }
    uint32_t *in = bucket(t, by, key, key2);
    for (uint32_t i = *in; i != 0; i = t->items[i].next) {
        if (t->items[i].by == by && t->items[i].key == key && t->items[i].key2 == key2) {
            return i;
        }
    }
    uint32_t i = t->free;
    if (i != 0) {
        t->free = t->items[i].next;
    } else {
        if (t->n_items == t->cap) {
            t->cap = t->cap > 0 ? t->cap * 2 : BUCKETS_MIN;
            t->items = mem_must_realloc(t->items, t->cap * sizeof(t->items[0]));
        }
        t->n_items = t->n_items > 0 ? t->n_items : 1;
        i = t->n_items++;
    }
    t->items[i] = (struct index_basis){.by = by,
                                       .key = key,
                                       .key2 = key2,
                                       .next = *in,
                                       .name = name != NULL ? mem_must_strdup(name) : NULL};
    *in = i;
    t->n++;
    return i;
}

void index_basis_remove(struct index_bases *t, uint32_t i)
{
    struct index_basis *b = &t->items[i];
    uint32_t *at = bucket(t, b->by, b->key, b->key2);
    while (*at != i) {
        at = &t->items[*at].next;
    }
    *at = b->next;
    free(b->name);
    *b = (struct index_basis){.next = t->free};
    t->free = i;
    t->n--;
}

size_t index_bases_memory(const struct index_bases *t)
{
    return t->cap * sizeof(t->items[0]) + t->n_buckets * sizeof(uint32_t);
}

void index_bases_deinit(struct index_bases *t)
{
    for (uint32_t i = 1; i < t->n_items; i++) {
        free(t->items[i].name);
    }
    free(t->items);
    free(t->buckets);
    *t = (struct index_bases){.n = 0};
}

/* --- own certificates ------------------------------------------------------------------------- */

uint16_t index_own_find(const struct index_owns *t, struct str serial)
{
    for (size_t i = 1; i < t->n; i++) {
        if (t->items[i].refs > 0 && str_eq(str_of(t->items[i].serial), serial)) {
            return (uint16_t)i;
        }
    }
    return 0;
}

uint16_t index_own_get(struct index_owns *t, const char *serial)
{
    uint16_t own = index_own_find(t, str_of(serial));
    if (serial[0] == '\0') {
        return 0;
    }
    for (size_t i = 1; own == 0 && i < t->n; i++) {
        own = t->items[i].refs == 0 ? (uint16_t)i : 0;
    }
    if (own == 0 && t->n <= INDEX_OWNS_MAX) {
        size_t n = t->n > 0 ? t->n + 1 : 2;
        t->items = mem_must_realloc(t->items, n * sizeof(t->items[0]));
        memset(t->items + t->n, 0, (n - t->n) * sizeof(t->items[0]));
        own = (uint16_t)(n - 1);
        t->n = n;
    }
    if (own != 0 && t->items[own].refs++ == 0) {
        snprintf(t->items[own].serial, sizeof(t->items[own].serial), "%s", serial);
    }
    return own;
}

void index_own_unref(struct index_owns *t, uint16_t own)
{
    if (own != 0) {
        t->items[own].refs--;
    }
}

void index_owns_deinit(struct index_owns *t)
{
    free(t->items);
    *t = (struct index_owns){.n = 0};
}
