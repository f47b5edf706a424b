/* tls: a client that either wants to see a certificate, whoever's, or to speak with a server whose
 * certificate leads to a CA. */
#include "probe_priv.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <postern/mem.h>
#include <string.h>

enum { ROOTS_MAX = 256 };

static int fail_ssl(struct err *err, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    return err_set(err, ERR_PROTOCOL, "%s: %s", what, reason != NULL ? reason : "no reason given");
}

/* --- the leaf --------------------------------------------------------------------------------- */
static void note_leaf(struct probe_tls *t, const X509 *leaf)
{
    unsigned n = 0;

    t->has_leaf = leaf != NULL && X509_digest(leaf, EVP_sha256(), t->leaf, &n) == 1 &&
                  n == ACTIONS_SHA256_SIZE;
}

/* Sees the certificate before any step that may fail behind it. */
static int on_certificate(X509_STORE_CTX *store, void *arg)
{
    note_leaf(arg, X509_STORE_CTX_get0_cert(store));
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

/* --- the context ------------------------------------------------------------------------------ */
static int add_roots(SSL_CTX *ctx, struct str pem, struct err *err)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    int n = 0;

    while (bio != NULL && n <= ROOTS_MAX) {
        X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        int added = cert != NULL ? X509_STORE_add_cert(store, cert) : 0;

        X509_free(cert);
        if (added != 1) {
            break;
        }
        n++;
    }
    BIO_free(bio);
    ERR_clear_error(); /* the end of the file is told as an error */
    if (n == 0 || n > ROOTS_MAX) {
        return err_set(err, ERR_CONFIG, "ca_file holds no certificate, or more than %d", ROOTS_MAX);
    }
    return 0;
}

int probe_tls_init(struct probe_tls *t, struct str ca, struct err *err)
{
    SSL *first;

    *t = (struct probe_tls){.ctx = NULL};
    /* No configuration file of OpenSSL's: it could load code. */
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS, NULL) != 1) {
        return fail_ssl(err, "libssl does not start");
    }
    t->ctx = SSL_CTX_new(TLS_client_method());
    if (t->ctx == NULL || SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION) != 1) {
        return fail_ssl(err, "no TLS");
    }
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER, NULL);
    if (ca.n > 0) {
        if (add_roots(t->ctx, ca, err) == -1) {
            return -1;
        }
    } else {
        /* Nothing is believed, so nothing is too weak to be looked at. */
        SSL_CTX_set_security_level(t->ctx, 0);
        SSL_CTX_set_cert_verify_callback(t->ctx, on_certificate, t);
    }
    /* What libssl would look for at its first use, as long as there are files. */
    first = SSL_new(t->ctx);
    SSL_free(first);
    return first != NULL ? 0 : fail_ssl(err, "no TLS");
}

void probe_tls_deinit(struct probe_tls *t)
{
    SSL_free(t->ssl);
    SSL_CTX_free(t->ctx);
    *t = (struct probe_tls){.ctx = NULL};
}

/* --- a connection ----------------------------------------------------------------------------- */
/* After a call that did not succeed: 0 when it is to be made again. */
static int wait_tls(struct probe_tls *t, struct place *p, int result, struct err *err)
{
    long verdict;

    switch (SSL_get_error(t->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return place_wait(p, POLLIN, err);
    case SSL_ERROR_WANT_WRITE:
        return place_wait(p, POLLOUT, err);
    case SSL_ERROR_ZERO_RETURN:
        return err_set(err, ERR_PROTOCOL, "the connection was ended");
    case SSL_ERROR_SYSCALL:
        return errno != 0 ? err_sys(err, "the connection broke")
                          : err_set(err, ERR_PROTOCOL, "the connection was cut");
    default:
        verdict = SSL_get_verify_result(t->ssl);
        if (verdict != X509_V_OK) {
            return err_set(err, ERR_DENIED, "the certificate is not believed: %s",
                           X509_verify_cert_error_string(verdict));
        }
        return fail_ssl(err, "TLS failed");
    }
}

static bool is_address(const char *name)
{
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(name);

    ASN1_OCTET_STRING_free(ip);
    ERR_clear_error();
    return ip != NULL;
}

static bool set_name(struct probe_tls *t, const char *name, bool believe)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);

    if (is_address(name)) {
        return !believe || X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    }
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(t->ssl, name) == 1 &&
           (!believe || X509_VERIFY_PARAM_set1_host(param, name, 0) == 1);
}

int probe_tls_connect(struct probe_tls *t, struct place *p, const char *name, struct err *err)
{
    bool believe = p->url->scheme == CONF_URL_HTTPS;

    probe_tls_close(t);
    t->has_leaf = false;
    t->ssl = SSL_new(t->ctx);
    if (t->ssl == NULL || SSL_set_fd(t->ssl, p->fd) != 1 ||
        (name != NULL && !set_name(t, name, believe))) {
        return fail_ssl(err, "no TLS");
    }
    for (;;) {
        int r;

        ERR_clear_error();
        errno = 0;
        r = SSL_connect(t->ssl);
        if (r == 1) {
            return 0;
        }
        if (wait_tls(t, p, r, err) == -1) {
            return -1;
        }
    }
}

int probe_tls_send(struct probe_tls *t, struct place *p, const void *bytes, size_t n,
                   struct err *err)
{
    size_t done = 0;

    while (n > 0) {
        int r;

        ERR_clear_error();
        errno = 0;
        r = SSL_write_ex(t->ssl, bytes, n, &done);
        if (r == 1) {
            return 0; /* all of it: partial writes were not asked for */
        }
        if (wait_tls(t, p, r, err) == -1) {
            return -1;
        }
    }
    return 0;
}

int probe_tls_recv(struct probe_tls *t, struct place *p, void *bytes, size_t n, size_t *ret_n,
                   struct err *err)
{
    for (;;) {
        int r;

        ERR_clear_error();
        errno = 0;
        r = SSL_read_ex(t->ssl, bytes, n, ret_n);
        if (r == 1) {
            return 0;
        }
        if (SSL_get_error(t->ssl, r) == SSL_ERROR_ZERO_RETURN) {
            *ret_n = 0;
            return 0;
        }
        if (wait_tls(t, p, r, err) == -1) {
            return -1;
        }
    }
}

/* In order, as far as one write goes: a server's log is not to fill with cut connections. */
void probe_tls_close(struct probe_tls *t)
{
    if (t->ssl != NULL) {
        ERR_clear_error();
        if (SSL_is_init_finished(t->ssl) == 1) {
            (void)SSL_shutdown(t->ssl);
        }
        SSL_free(t->ssl);
        t->ssl = NULL;
        ERR_clear_error();
    }
}
