/* What the files of tls share. */
#ifndef POSTERN_TLS_PRIV_H
#define POSTERN_TLS_PRIV_H

#include <postern/tls.h>
#include <stdatomic.h>

enum { TLS_PARTY_ID_LEN = 16 };

struct tls_party {
    atomic_uint refs;
    uint8_t id[TLS_PARTY_ID_LEN]; /* random: no other party, before or after, has the same */
    bool server;
    SSL_CTX **ctx; /* owned; one an own certificate, the first is the default; at least one */
    size_t n_ctx;
    X509 **leaves; /* references: of each ctx, for choosing by name; NULL: no own certificate */
    struct x509_peers *peers; /* a reference; NULL: no certificate is asked for */
    struct x509_names *names; /* a reference; NULL: not asked about */
    struct str *expected;     /* owned, with their texts */
    size_t n_expected;
    uint8_t alpn[TLS_ALPN_BYTES]; /* as on the wire */
    size_t alpn_len;
    bool alpn_required;
    char *server_name; /* owned; NULL: none */
    bool resumption;
};

/* For SSL_CTX_set_cert_verify_callback: judges the peer of the stream that the SSL belongs to. */
int tls_verify_callback(X509_STORE_CTX *store, void *arg);
/* Remembers alerts. */
void tls_info_callback(const SSL *ssl, int where, int ret);

/* Whether whoever was verified once would be let in now: time, quarantine, expectation. Fills the
 * stream's failure if not. */
bool tls_peer_holds_now(struct tls_stream *s, const struct tls_peer *peer);

/* --- tls_groups.c --- */
/* ordinary: certificates may have keys of P-384. */
bool tls_groups_set(SSL_CTX *c, enum tls_min_group min, bool ordinary);

/* --- tls_tickets.c, tls_sessions.c, tls_resume.c --- */
enum { TLS_TICKETS_NAME_LEN = 16 };
/* What a stream has to do with resumption; only where its party has any. */
struct tls_resume {
    uint8_t key[32];                 /* client: where its sessions are kept */
    uint8_t server_name[32];         /* server: hash of what this hello says; zeros: none */
    uint8_t party[TLS_PARTY_ID_LEN]; /* by which `peer` was judged */
    struct tls_peer *peer;           /* a reference: whose session was offered or accepted */
};
struct tls_resume *tls_resume_free(struct tls_resume *r);
/* Of a party's context. */
bool tls_resume_set_up(SSL_CTX *c, const struct tls_party *p);
bool tls_tickets_set_up(SSL_CTX *c, const struct tls_party *p);
const uint8_t *tls_tickets_name(const struct tls_tickets *t);
/* Takes the reference: the session of this peer is the one that is offered, or accepted. */
void tls_resume_take(struct tls_stream *s, struct tls_peer *peer);
/* The end of a handshake. False: it was resumed, and must not be. */
bool tls_resume_finish(struct tls_stream *s);
struct tls_sessions;
struct tls_sessions *tls_sessions_free(struct tls_sessions *s);
size_t tls_sessions_count(const struct tls_sessions *s);
/* Takes the session if true; makes *at when needed. */
bool tls_sessions_keep(struct tls_sessions **at, const uint8_t key[32], SSL_SESSION *session,
                       struct tls_peer *peer);
/* Both are the caller's; NULL: there is none. */
SSL_SESSION *tls_sessions_take(struct tls_sessions *s, const uint8_t key[32],
                               struct tls_peer **ret_peer);

/* --- tls_peer.c --- */
/* SHA-256 of the certificates' DER, one after another. */
bool tls_chain_hash(STACK_OF(X509) * chain, uint8_t ret[32]);
/* Of a chain that was judged to be `peer`. NULL: no memory. */
struct tls_peer *tls_peer_new(STACK_OF(X509) * chain, const uint8_t sha256[32],
                              const struct x509_peer *peer);
/* The peer of a party that asks for no certificate. */
struct tls_peer *tls_peer_new_unknown(void);

/* --- tls_chains.c --- */
struct tls_chains;
struct tls_chains *tls_chains_new(void);
struct tls_chains *tls_chains_free(struct tls_chains *c);
size_t tls_chains_count(const struct tls_chains *c);
/* What x509_peers_verify says by this party, which asks for certificates. Of X509_OK *ret is the
 * caller's reference, and *ret_shown may be empty; else that is what was shown. ask->chain is all
 * that was sent, leaf first; ask->again is not for this one. */
enum x509_verdict tls_chains_judge(struct tls_chains *c, const struct tls_party *party,
                                   const struct x509_ask *ask, struct tls_peer **ret,
                                   struct x509_peer *ret_shown, struct err *err);
/* Who sent that chain, if it was verified by this party and holds now; lent; else NULL. */
struct tls_peer *tls_chains_find(struct tls_chains *c, const struct tls_party *party,
                                 const uint8_t sha256[32], int64_t now_s);

/* Drops what can't be found any more: those that have expired, and those that nobody sent for a
 * while, as of a party that is gone. Others do it as they are added. */
void tls_chains_tidy(struct tls_chains *c, int64_t now_s);

/* Fills s->failure (once: the first story is the true one) from what is known and OpenSSL's queue.
 */
void tls_explain(struct tls_stream *s, bool peer_gone);
struct tls_failure *tls_failure_get(struct tls_stream *s);

BIO *tls_bio_new(struct tls_worker *w, struct tls_stream *s);

#endif
