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
};

/* For SSL_CTX_set_cert_verify_callback: judges the peer of the stream that the SSL belongs to. */
int tls_verify_callback(X509_STORE_CTX *store, void *arg);
/* Remembers alerts. */
void tls_info_callback(const SSL *ssl, int where, int ret);

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

/* Fills s->failure (once: the first story is the true one) from what is known and OpenSSL's queue.
 */
void tls_explain(struct tls_stream *s, bool peer_gone);
struct tls_failure *tls_failure_get(struct tls_stream *s);

BIO *tls_bio_new(struct tls_worker *w, struct tls_stream *s);

#endif
