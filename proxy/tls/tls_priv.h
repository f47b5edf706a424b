/* What the files of tls share. */
#ifndef POSTERN_TLS_PRIV_H
#define POSTERN_TLS_PRIV_H

#include <postern/tls.h>
#include <stdatomic.h>

struct tls_party {
    atomic_uint refs;
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

/* Fills s->failure (once: the first story is the true one) from what is known and OpenSSL's queue.
 */
void tls_explain(struct tls_stream *s, bool peer_gone);
struct tls_failure *tls_failure_get(struct tls_stream *s);

BIO *tls_bio_new(struct tls_worker *w, struct tls_stream *s);

#endif
