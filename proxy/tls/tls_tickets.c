/*
 * Session tickets, the server's side. A ticket is sealed with keys that live in the snapshot, and
 * names a party, a server name and a chain; who that chain is comes out of what the worker itself
 * has verified. Whatever is missing or not so any more makes a full handshake. docs/handshakes.md.
 */
#include <postern/tls.h>

#include "tls_priv.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

/* --- keys ------------------------------------------------------------------------------------- */
struct keys {
    uint8_t cipher[32];
    uint8_t mac[32];
};

struct tls_tickets {
    atomic_uint refs;
    uint8_t name[TLS_TICKETS_NAME_LEN]; /* random; not secret */
    uint64_t made_ms;
    struct keys *keys; /* owned, secret memory */
};

struct tls_tickets *tls_tickets_new(void)
{
    struct tls_tickets *t = mem_must_new(struct tls_tickets);
    atomic_init(&t->refs, 1);
    t->keys = (struct keys *)mem_secret_alloc(sizeof(*t->keys));
    POSTERN_ASSERT(t->keys != NULL);
    os_random(t->name, sizeof(t->name));
    os_random(t->keys, sizeof(*t->keys));
    t->made_ms = os_now_ms();
    return t;
}

struct tls_tickets *tls_tickets_ref(const struct tls_tickets *t)
{
    struct tls_tickets *mine =
        (struct tls_tickets *)(uintptr_t)t; /* all but the count is immutable */
    POSTERN_ASSERT(atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed) > 0);
    return mine;
}

struct tls_tickets *tls_tickets_unref(struct tls_tickets *t)
{
    if (t != NULL && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) {
        mem_secret_free(t->keys);
        free(t);
    }
    return NULL;
}

const uint8_t *tls_tickets_name(const struct tls_tickets *t)
{
    return t->name;
}

bool tls_tickets_too_old(const struct tls_tickets *t, uint64_t now_ms)
{
    return now_ms - t->made_ms >= TLS_TICKETS_LIFE_S * UINT64_C(1000);
}

static bool use_mac(EVP_MAC_CTX *mac, const struct keys *k)
{
    char sha256[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, sha256, 0),
                           OSSL_PARAM_construct_end()};
    return EVP_MAC_init(mac, k->mac, sizeof(k->mac), params) == 1;
}

/* 1: go on; 0: a key that is not ours, so no resumption; -1: no memory. */
static int on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                  EVP_MAC_CTX *mac, int enc)
{
    const struct tls_stream *s = (const struct tls_stream *)SSL_get_app_data(ssl);
    const struct tls_tickets *t = s->tickets;
    if (enc == 1) {
        if (t == NULL || RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1) {
            return -1;
        }
        memcpy(name, t->name, sizeof(t->name));
        return EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, t->keys->cipher, iv) == 1 &&
                       use_mac(mac, t->keys)
                   ? 1
                   : -1;
    }
    if (t == NULL || memcmp(name, t->name, sizeof(t->name)) != 0 ||
        tls_tickets_too_old(t, os_now_ms())) {
        return 0;
    }
    return EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, t->keys->cipher, iv) == 1 &&
                   use_mac(mac, t->keys)
               ? 1
               : -1;
}

/* --- what a ticket says ----------------------------------------------------------------------- */
enum { SAYS_VERSION = 1 };
struct says {
    uint8_t version;
    uint8_t party[TLS_PARTY_ID_LEN];
    uint8_t server_name[32]; /* a hash; zeros: the client said none */
    uint8_t chain[32];       /* tls_peer.chain_sha256 */
};

/* Always 1: a ticket without data resumes nothing. */
static int on_issue(SSL *ssl, void *arg)
{
    struct tls_stream *s = (struct tls_stream *)SSL_get_app_data(ssl);
    struct says says = {.version = SAYS_VERSION};
    (void)arg;
    if (s->resume != NULL && s->peer != NULL && s->peer->chain != NULL) {
        memcpy(says.party, s->party->id, sizeof(says.party));
        memcpy(says.server_name, s->resume->server_name, sizeof(says.server_name));
        memcpy(says.chain, s->peer->chain_sha256, sizeof(says.chain));
        (void)SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), &says, sizeof(says));
    }
    return 1;
}

/* Who the ticket's session is, if all of what it says holds; lent; else NULL. */
static struct tls_peer *judge(const struct tls_stream *s, SSL_SESSION *session)
{
    struct says *says = NULL;
    size_t n = 0;
    X509 *leaf = SSL_SESSION_get0_peer(session);
    if (s->resume == NULL || leaf == NULL ||
        SSL_SESSION_get_protocol_version(session) != TLS1_3_VERSION ||
        SSL_SESSION_get0_ticket_appdata(session, (void **)&says, &n) != 1 || n != sizeof(*says) ||
        says->version != SAYS_VERSION ||
        memcmp(says->party, s->party->id, sizeof(says->party)) != 0 ||
        memcmp(says->server_name, s->resume->server_name, sizeof(says->server_name)) != 0) {
        return NULL;
    }
    struct tls_peer *p = tls_chains_find(s->worker->chains, s->party, says->chain, os_wall_s());
    bool right = p != NULL && X509_cmp(leaf, sk_X509_value(p->chain, 0)) == 0 &&
                 !deny_set_has(s->deny, (struct str){p->id, p->id_len}, str_of(p->serial));
    return right ? p : NULL;
}

static SSL_TICKET_RETURN on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                   size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    struct tls_stream *s = (struct tls_stream *)SSL_get_app_data(ssl);
    bool opened = status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW;
    struct tls_peer *p = opened ? judge(s, session) : NULL;
    (void)name;
    (void)name_len;
    (void)arg;
    if (p == NULL) {
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    tls_resume_take(s, tls_peer_ref(p));
    return SSL_TICKET_RETURN_USE_RENEW;
}

/* The name is needed before OpenSSL itself looks at it. */
static int on_hello(SSL *ssl, int *alert, void *arg)
{
    struct tls_stream *s = (struct tls_stream *)SSL_get_app_data(ssl);
    const unsigned char *p = NULL;
    size_t n = 0;
    (void)arg;
    if (s->resume == NULL) {
        return SSL_CLIENT_HELLO_SUCCESS;
    }
    memset(s->resume->server_name, 0, sizeof(s->resume->server_name));
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) == 1 &&
        EVP_Digest(p, n, s->resume->server_name, NULL, EVP_sha256(), NULL) != 1) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

bool tls_tickets_set_up(SSL_CTX *c, const struct tls_party *p)
{
    SSL_CTX_set_client_hello_cb(c, on_hello, NULL);
    SSL_CTX_set_timeout(c, TLS_TICKETS_LIFE_S);
    return SSL_CTX_set_session_ticket_cb(c, on_issue, on_ticket, NULL) == 1 &&
           SSL_CTX_set_tlsext_ticket_key_evp_cb(c, on_key) == 1 &&
           SSL_CTX_set_session_id_context(c, p->id, sizeof(p->id)) == 1;
}
