/*
 * The chains that a worker has verified, and who they are. Found by party and hash of all that the
 * peer sent; what depends on time is asked at each hit. docs/handshakes.md says why a hit gives
 * what a verification would give.
 */
#include <postern/tls.h>

#include "tls_priv.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHAINS_MAX = 256,
    BYTES_MAX = 512 * 1024, /* of certificates as sent; decoded they are some times this */
    BUCKETS = 64,
    UNUSED_S = 600, /* its party or its peer is gone: each is another when a certificate is */
};

struct known {
    struct known *next;          /* in its bucket */
    struct known *newer, *older; /* by last use */
    uint8_t party[TLS_PARTY_ID_LEN];
    struct tls_peer *peer; /* a reference */
    int64_t judged_s, used_s;
    size_t bytes;
};

struct tls_chains {
    struct known *buckets[BUCKETS];
    struct known *newest, *oldest;
    size_t n, bytes;
};

struct tls_chains *tls_chains_new(void)
{
    return (struct tls_chains *)calloc(1, sizeof(struct tls_chains));
}

static struct known **bucket(struct tls_chains *c, const uint8_t sha256[32])
{
    return &c->buckets[sha256[0] % BUCKETS];
}

static void unlist(struct tls_chains *c, struct known *k)
{
    if (k->newer != NULL) {
        k->newer->older = k->older;
    } else {
        c->newest = k->older;
    }
    if (k->older != NULL) {
        k->older->newer = k->newer;
    } else {
        c->oldest = k->newer;
    }
}

static void list(struct tls_chains *c, struct known *k)
{
    k->newer = NULL;
    k->older = c->newest;
    *(c->newest != NULL ? &c->newest->newer : &c->oldest) = k;
    c->newest = k;
}

static void drop(struct tls_chains *c, struct known *k)
{
    struct known **at = bucket(c, k->peer->chain_sha256);
    while (*at != k) {
        at = &(*at)->next;
    }
    *at = k->next;
    unlist(c, k);
    c->n--;
    c->bytes -= k->bytes;
    tls_peer_unref(k->peer);
    free(k);
}

static void drop_oldest(struct tls_chains *c)
{
    POSTERN_ASSERT(c->oldest != NULL && c->oldest->older == NULL);
    drop(c, c->oldest);
}

struct tls_chains *tls_chains_free(struct tls_chains *c)
{
    if (c != NULL) {
        while (c->newest != NULL) {
            drop(c, c->newest);
        }
        free(c);
    }
    return NULL;
}

size_t tls_chains_count(const struct tls_chains *c)
{
    return c->n;
}

static struct known *find(struct tls_chains *c, const struct tls_party *party,
                          const uint8_t sha256[32])
{
    for (struct known *k = *bucket(c, sha256); k != NULL; k = k->next) {
        if (memcmp(k->peer->chain_sha256, sha256, 32) == 0 &&
            memcmp(k->party, party->id, sizeof(k->party)) == 0) {
            return k;
        }
    }
    return NULL;
}

/* Whether what was found then holds now: the path's time, the lists' time, and a clock that has not
 * gone back behind what was asked then. */
static bool holds(const struct known *k, const struct tls_party *party, int64_t now_s)
{
    int64_t lists_end_s = x509_peers_crl_end_s(party->peers);
    return now_s >= k->judged_s && now_s >= k->peer->not_before_s && now_s < k->peer->not_after_s &&
           (lists_end_s == 0 || now_s < lists_end_s);
}

struct tls_peer *tls_chains_find(struct tls_chains *c, const struct tls_party *party,
                                 const uint8_t sha256[32], int64_t now_s)
{
    struct known *k = party->peers != NULL ? find(c, party, sha256) : NULL;
    if (k == NULL) {
        return NULL;
    }
    if (!holds(k, party, now_s)) {
        drop(c, k);
        return NULL;
    }
    k->used_s = now_s;
    unlist(c, k);
    list(c, k);
    return k->peer;
}

static size_t size_of(STACK_OF(X509) * chain)
{
    size_t n = 0;
    for (int i = 0; i < sk_X509_num(chain); i++) {
        int one = i2d_X509(sk_X509_value(chain, i), NULL);
        n += one > 0 ? (size_t)one : 0;
    }
    return n;
}

void tls_chains_tidy(struct tls_chains *c, int64_t now_s)
{
    struct known *older;
    for (struct known *k = c->newest; k != NULL; k = older) {
        older = k->older;
        if (now_s >= k->peer->not_after_s || now_s - k->used_s > UNUSED_S) {
            drop(c, k);
        }
    }
}

/* Without memory it is not kept, and verified again next time. */
static void keep(struct tls_chains *c, const struct tls_party *party, struct tls_peer *peer,
                 int64_t now_s)
{
    size_t bytes = size_of(peer->chain);
    struct known *k = bytes <= BYTES_MAX ? (struct known *)calloc(1, sizeof(*k)) : NULL;
    if (k == NULL) {
        return;
    }
    tls_chains_tidy(c, now_s); /* nothing beside the verification that went before */
    while (c->n == CHAINS_MAX || c->bytes + bytes > BYTES_MAX) {
        drop_oldest(c);
    }
    memcpy(k->party, party->id, sizeof(k->party));
    k->peer = tls_peer_ref(peer);
    k->judged_s = k->used_s = now_s;
    k->bytes = bytes;
    struct known **at = bucket(c, peer->chain_sha256);
    k->next = *at;
    *at = k;
    list(c, k);
    c->n++;
    c->bytes += bytes;
}

enum x509_verdict tls_chains_judge(struct tls_chains *c, const struct tls_party *party,
                                   const struct x509_ask *ask, struct tls_peer **ret,
                                   struct x509_peer *ret_shown, struct err *err)
{
    uint8_t sha256[32];
    ret_shown->id_len = 0;
    bool hashed = ask->chain != NULL && tls_chain_hash(ask->chain, sha256);
    struct tls_peer *known = hashed ? tls_chains_find(c, party, sha256, ask->now_s) : NULL;
    if (known != NULL) {
        *ret = tls_peer_ref(known);
        return X509_OK;
    }
    enum x509_verdict v = x509_peers_verify(party->peers, party->names, ask, ret_shown, err);
    if (v != X509_OK) {
        return v;
    }
    struct tls_peer *peer = hashed ? tls_peer_new(ask->chain, sha256, ret_shown) : NULL;
    if (peer == NULL) {
        err_set(err, ERR_SYSTEM, "no memory");
        return X509_NO_CERTIFICATE;
    }
    keep(c, party, peer, ask->now_s);
    *ret = peer;
    return X509_OK;
}
