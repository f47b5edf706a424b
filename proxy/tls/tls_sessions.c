/*
 * Sessions that a worker's clients may resume, each once. Found by a hash of all that must be the
 * same: ticket generation, party, expected identities, destination.
 */
#include <postern/tls.h>

#include "tls_priv.h"

#include <stdlib.h>
#include <string.h>

enum { SESSIONS_MAX = 128, OF_ONE_MAX = 8 };

struct kept {
    uint8_t key[32];
    SSL_SESSION *session;  /* owned */
    struct tls_peer *peer; /* a reference: who proved to be there */
};

struct tls_sessions {
    struct kept items[SESSIONS_MAX]; /* the oldest first */
    size_t n;
};

static void take_out(struct tls_sessions *s, size_t at)
{
    s->n--;
    memmove(&s->items[at], &s->items[at + 1], (s->n - at) * sizeof(s->items[0]));
}

static void drop(struct tls_sessions *s, size_t at)
{
    SSL_SESSION_free(s->items[at].session);
    tls_peer_unref(s->items[at].peer);
    take_out(s, at);
}

struct tls_sessions *tls_sessions_free(struct tls_sessions *s)
{
    while (s != NULL && s->n > 0) {
        drop(s, s->n - 1);
    }
    free(s);
    return NULL;
}

size_t tls_sessions_count(const struct tls_sessions *s)
{
    return s != NULL ? s->n : 0;
}

bool tls_sessions_keep(struct tls_sessions **at, const uint8_t key[32], SSL_SESSION *session,
                       struct tls_peer *peer)
{
    size_t same = 0, oldest = 0;
    if (*at == NULL) {
        *at = (struct tls_sessions *)calloc(1, sizeof(**at));
    }
    struct tls_sessions *s = *at;
    if (s == NULL) {
        return false;
    }
    for (size_t i = s->n; i > 0; i--) {
        if (memcmp(s->items[i - 1].key, key, 32) == 0) {
            oldest = i - 1;
            same++;
        }
    }
    if (same >= OF_ONE_MAX) {
        drop(s, oldest);
    } else if (s->n == SESSIONS_MAX) {
        drop(s, 0);
    }
    struct kept *k = &s->items[s->n++];
    memcpy(k->key, key, sizeof(k->key));
    k->session = session;
    k->peer = tls_peer_ref(peer);
    return true;
}

SSL_SESSION *tls_sessions_take(struct tls_sessions *s, const uint8_t key[32],
                               struct tls_peer **ret_peer)
{
    for (size_t i = s != NULL ? s->n : 0; i > 0; i--) {
        if (memcmp(s->items[i - 1].key, key, 32) == 0) {
            SSL_SESSION *session = s->items[i - 1].session;
            *ret_peer = s->items[i - 1].peer;
            take_out(s, i - 1);
            return session;
        }
    }
    return NULL;
}
