/* One generation of an own identity as two SSL_CTX, and how strict they are. */
#include <postern/tls.h>

#include "tls_priv.h"

#include <openssl/err.h>
#include <postern/mem.h>
#include <stdio.h>

enum {
    MAX_CHAIN_BYTES = 32 * 1024, /* of a peer, as sent: OpenSSL's own default is three times this */
};

/* AES-128 first: the hardware's fastest, and no weaker where it counts. */
static const char SUITES[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/* OpenSSL 3.5 knows the hybrid group and the `*` (send a key share): both shares go out, so that
 * a peer with an older library needs no second round trip. Older ones refuse the list whole. */
static const char GROUPS_HYBRID[] = "*X25519MLKEM768:*X25519:P-256";
static const char GROUPS[] = "X25519:P-256";
static const uint8_t ALPN[] = {9, 'p', 'o', 's', 't', 'e', 'r', 'n', '/', '1'};

/* The macro casts const away, which clang minds; this is what it does. */
static bool set_groups(SSL_CTX *c, const char *list)
{
    char copy[64];
    snprintf(copy, sizeof(copy), "%s", list);
    return SSL_CTX_ctrl(c, SSL_CTRL_SET_GROUPS_LIST, 0, copy) == 1;
}

static int crypto_failed(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    return err_set(err, ERR_CRYPTO, "%s: %s", what, reason != NULL ? reason : "unknown reason");
}

/* Ours if the client offers it; anything else, or nothing, is left unanswered: a plain TLS client
 * with a valid SVID is welcome, what it says is the port's business. */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                       const unsigned char *in, unsigned int inlen, void *arg)
{
    (void)ssl;
    (void)arg;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, outlen, ALPN, sizeof(ALPN), in, inlen) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int set_identity(SSL_CTX *c, const struct x509_svid *svid, struct err *err)
{
    if (SSL_CTX_use_cert_and_key(c, svid->leaf, svid->key, svid->intermediates, 1) != 1) {
        return crypto_failed(err, "cannot use the own certificate and key for TLS");
    }
    return 0;
}

static SSL_CTX *make(const struct x509_svid *svid, bool server, struct err *err)
{
    ERR_clear_error();
    SSL_CTX *c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (c == NULL) {
        crypto_failed(err, "cannot make a TLS context");
        return NULL;
    }
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* Idle connections give their record buffers back; chains are sent as the agent made them. */
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(c, MAX_CHAIN_BYTES);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(c, tls_verify_callback, NULL);
    SSL_CTX_set_info_callback(c, tls_info_callback);
    bool ok = SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_ciphersuites(c, SUITES) == 1 && SSL_CTX_set_num_tickets(c, 0) == 1 &&
              SSL_CTX_set_max_early_data(c, 0) == 1 &&
              (set_groups(c, GROUPS_HYBRID) || set_groups(c, GROUPS));
    if (ok && server) {
        SSL_CTX_set_alpn_select_cb(c, select_alpn, NULL);
    } else if (ok) {
        ok = SSL_CTX_set_alpn_protos(c, ALPN, sizeof(ALPN)) == 0;
    }
    if (!ok) {
        crypto_failed(err, "this OpenSSL cannot do TLS 1.3 as Postern needs it");
    }
    if (!ok || set_identity(c, svid, err) == -1) {
        SSL_CTX_free(c);
        return NULL;
    }
    return c;
}

int tls_ctx_new(const struct x509_svid *svid, struct tls_ctx **ret, struct err *err)
{
    struct tls_ctx *ctx = mem_must_new(struct tls_ctx);
    ctx->server = make(svid, true, err);
    ctx->client = ctx->server != NULL ? make(svid, false, err) : NULL;
    if (ctx->client == NULL) {
        tls_ctx_free(ctx);
        return -1;
    }
    ERR_clear_error(); /* the refused list of groups has left its mark */
    *ret = ctx;
    return 0;
}

struct tls_ctx *tls_ctx_free(struct tls_ctx *ctx)
{
    if (ctx != NULL) {
        SSL_CTX_free(ctx->server);
        SSL_CTX_free(ctx->client);
        free(ctx);
    }
    return NULL;
}
