/* What the files of tls share. */
#ifndef POSTERN_TLS_PRIV_H
#define POSTERN_TLS_PRIV_H

#include <postern/tls.h>

struct tls_ctx {
    SSL_CTX *server; /* owned */
    SSL_CTX *client; /* owned */
};

/* For SSL_CTX_set_cert_verify_callback: judges the peer of the stream that the SSL belongs to. */
int tls_verify_callback(X509_STORE_CTX *store, void *arg);
/* Remembers alerts. */
void tls_info_callback(const SSL *ssl, int where, int ret);

/* Fills s->failure (once: the first story is the true one) from what is known and OpenSSL's queue.
 */
void tls_explain(struct tls_stream *s, bool peer_gone);
struct tls_failure *tls_failure_get(struct tls_stream *s);

BIO *tls_bio_new(struct tls_worker *w, struct tls_stream *s);

#endif
