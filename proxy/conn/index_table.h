/*
 * The entries that slots of the index share: a peer's certificate, what allowed connections, own
 * certificates. Each is named by a number, found by a hash, and gone with its last slot.
 */
#ifndef POSTERN_CONN_INDEX_TABLE_H
#define POSTERN_CONN_INDEX_TABLE_H

#include "index_priv.h"
#include <postern/mem.h>

/* --- peers ------------------------------------------------------------------------------------ */
/* One certificate of one identity. */
struct index_peer {
    uint32_t first;                /* slot */
    uint32_t next_id, next_serial; /* in the buckets */
    uint32_t n_issuers;
    char *serial;                /* behind id */
    struct x509_key_id *issuers; /* owned */
    size_t id_len;
    char id[];
};
struct index_peers {
    struct index_peer **items; /* owned; [0] is not used; NULL: free */
    uint32_t n_items, n, hint;
    uint32_t *by_id, *by_serial; /* owned; buckets, a power of two */
    uint32_t n_buckets;
};
uint32_t index_peer_get(struct index_peers *t, const struct live_peer_facts *facts);
void index_peer_remove(struct index_peers *t, uint32_t i);
struct index_peer *index_peer(const struct index_peers *t, uint32_t i);
/* The first, and the next of the same identity or serial; 0: none. */
uint32_t index_peer_by_id(const struct index_peers *t, struct str id);
uint32_t index_peer_same_id(const struct index_peers *t, uint32_t i);
uint32_t index_peer_by_serial(const struct index_peers *t, struct str serial);
uint32_t index_peer_same_serial(const struct index_peers *t, uint32_t i);
/* One of the (ascending) ids; or it has none, and nothing can be said. */
bool index_peer_has_issuer(const struct index_peer *p, const struct x509_key_id *ids, size_t n);
size_t index_peers_memory(const struct index_peers *t);
void index_peers_deinit(struct index_peers *t);

/* --- bases ------------------------------------------------------------------------------------ */
struct index_basis {
    uint64_t key, key2;
    uint32_t first; /* slot; 0: free, then next is the next free one */
    uint32_t next;  /* in the bucket */
    enum live_by by;
    char *name; /* owned; NULL: none */
};
struct index_bases {
    struct index_basis *items; /* owned; [0] is not used */
    uint32_t n_items, cap, n, free;
    uint32_t *buckets; /* owned */
    uint32_t n_buckets;
};
/* A new one is there without a slot: the caller gives it one at once. */
uint32_t index_basis_get(struct index_bases *t, enum live_by by, uint64_t key, uint64_t key2,
                         const char *name);
void index_basis_remove(struct index_bases *t, uint32_t i);
struct index_basis *index_basis(const struct index_bases *t, uint32_t i);
size_t index_bases_memory(const struct index_bases *t);
void index_bases_deinit(struct index_bases *t);

/* --- own certificates, a few ------------------------------------------------------------------ */
/* That connections are open under at once: three weeks of renewals each half an hour. */
enum { INDEX_OWNS_MAX = 1024 };
struct index_own {
    unsigned refs; /* 0: free */
    char serial[48];
};
struct index_owns {
    struct index_own *items; /* owned; [0] is not used */
    size_t n;
};
/* 0: there is no serial, or there are too many. */
uint16_t index_own_get(struct index_owns *t, const char *serial);
uint16_t index_own_find(const struct index_owns *t, struct str serial);
void index_own_unref(struct index_owns *t, uint16_t own);
void index_owns_deinit(struct index_owns *t);

#endif
