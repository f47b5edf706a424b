/*
 * One GET of /pods over one connection, and the end. It waits in poll for the socket and for
 * whatever else may end it; nothing in it opens a file or makes a socket.
 */
#include <postern/kubelet.h>

#include <errno.h>
#include <jansson.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_SIZE = 16384, ROOTS_MAX = 256 };

MEM_DEFINE_CLEANUP(SSL_CTX, SSL_CTX_free)
MEM_DEFINE_CLEANUP(SSL, SSL_free)
MEM_DEFINE_CLEANUP(BIO, BIO_free)

struct exchange {
    const struct kubelet_request *request;
    SSL *ssl; /* NULL: plaintext */
    uint64_t until_ms;
};

/* --- failures --------------------------------------------------------------------------------- */
static int fail_ssl(struct err *err, const char *what)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(e);

    return err_set(err, ERR_CRYPTO, "%s: %s", what, reason != NULL ? reason : "no reason given");
}

static int fail_handshake(struct exchange *x, struct err *err)
{
    long verdict = SSL_get_verify_result(x->ssl);

    if (verdict != X509_V_OK && !x->request->insecure) {
        err_set(err, ERR_DENIED, "the kubelet's certificate is not believed: %s",
                X509_verify_cert_error_string(verdict));
        return err_expected(err, "a certificate for %s below kubelet.ca_file",
                            x->request->server_name);
    }
    return fail_ssl(err, "the TLS handshake with the kubelet failed");
}

/* --- waiting ---------------------------------------------------------------------------------- */
static int wait_socket(struct exchange *x, short events, struct err *err)
{
    struct pollfd fds[2] = {{.fd = x->request->socket, .events = events},
                            {.fd = x->request->also, .events = POLLIN}};

    for (;;) {
        uint64_t now_ms = os_now_ms();
        int r;

        if (now_ms >= x->until_ms) {
            return err_set(err, ERR_UNAVAILABLE, "the kubelet did not answer within %u ms",
                           x->request->timeout_ms);
        }
        r = poll(fds, 2, (int)(x->until_ms - now_ms));
        if (r == -1 && errno != EINTR) {
            return err_sys(err, "poll");
        }
        if (r > 0 && fds[1].revents != 0) {
            return err_set(err, ERR_UNAVAILABLE, "the exchange with the kubelet was given up");
        }
        if (r > 0) {
            return 0;
        }
    }
}

static int wait_connected(struct exchange *x, struct err *err)
{
    socklen_t len = sizeof(errno);
    int failed = 0;

    if (wait_socket(x, POLLOUT, err) == -1) {
        return -1;
    }
    if (getsockopt(x->request->socket, SOL_SOCKET, SO_ERROR, &failed, &len) == -1) {
        return err_sys(err, "the connection to the kubelet");
    }
    if (failed != 0) {
        errno = failed;
        return err_sys(err, "no connection to the kubelet");
    }
    return 0;
}

/* After a call of OpenSSL's that did not succeed: 0 when it is to be made again. */
static int wait_tls(struct exchange *x, int result, struct err *err)
{
    switch (SSL_get_error(x->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return wait_socket(x, POLLIN, err);
    case SSL_ERROR_WANT_WRITE:
        return wait_socket(x, POLLOUT, err);
    case SSL_ERROR_ZERO_RETURN:
        return err_set(err, ERR_PROTOCOL, "the kubelet ended the connection before its answer");
    case SSL_ERROR_SYSCALL:
        return errno != 0 ? err_sys(err, "the connection to the kubelet")
                          : err_set(err, ERR_PROTOCOL, "the kubelet cut the connection");
    default:
        return fail_ssl(err, "TLS with the kubelet failed");
    }
}

/* --- TLS -------------------------------------------------------------------------------------- */
/* A file of certificates; each is added. */
static int add_roots(SSL_CTX *ctx, struct str pem, struct err *err)
{
    mem_auto(BIO_free) BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
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
    if (n == 0 || n > ROOTS_MAX) {
        err_set(err, ERR_CONFIG, "no certificate to judge the kubelet by, or too many");
        return err_expected(err, "1 to %d certificates in kubelet.ca_file", ROOTS_MAX);
    }
    ERR_clear_error(); /* the end of the file is told as an error */
    return 0;
}

static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* The first certificate is ours, the rest goes with it. */
static int use_certificate(SSL_CTX *ctx, struct str cert_pem, struct str key_pem, struct err *err)
{
    mem_auto(BIO_free) BIO *certs = BIO_new_mem_buf(cert_pem.p, (int)cert_pem.n);
    mem_auto(BIO_free) BIO *keys = BIO_new_mem_buf(key_pem.p, (int)key_pem.n);
    X509 *cert = certs != NULL ? PEM_read_bio_X509(certs, NULL, NULL, NULL) : NULL;
    EVP_PKEY *key = keys != NULL ? PEM_read_bio_PrivateKey(keys, NULL, no_passphrase, NULL) : NULL;
    bool ok = cert != NULL && key != NULL && SSL_CTX_use_certificate(ctx, cert) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, key) == 1;
    X509 *next;

    X509_free(cert);
    EVP_PKEY_free(key);
    for (int n = 0; ok && n < ROOTS_MAX; n++) {
        next = PEM_read_bio_X509(certs, NULL, NULL, NULL);
        if (next == NULL) {
            break;
        }
        ok = SSL_CTX_add0_chain_cert(ctx, next) == 1;
        if (!ok) {
            X509_free(next);
        }
    }
    if (!ok) {
        return fail_ssl(err, "kubelet.cert_file and kubelet.key_file cannot be used");
    }
    ERR_clear_error();
    return 0;
}

/* A name of any kind that a certificate can have: an address is one too. */
static bool expect_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1) {
        return true;
    }
    return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
           SSL_set_tlsext_host_name(ssl, name) == 1;
}

static int open_tls(struct exchange *x, SSL **ret, struct err *err)
{
    const struct kubelet_request *q = x->request;
    mem_auto(SSL_CTX_free) SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    mem_auto(SSL_free) SSL *ssl = NULL;

    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        return fail_ssl(err, "no TLS");
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ctx, q->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if ((!q->insecure && add_roots(ctx, q->ca, err) == -1) ||
        (q->cert.n > 0 && use_certificate(ctx, q->cert, q->key, err) == -1)) {
        return -1;
    }
    ssl = SSL_new(ctx);
    if (ssl == NULL || SSL_set_fd(ssl, q->socket) != 1 ||
        (!q->insecure && !expect_name(ssl, q->server_name))) {
        return fail_ssl(err, "no TLS");
    }
    *ret = ssl;
    ssl = NULL;
    return 0;
}

static int shake_hands(struct exchange *x, struct err *err)
{
    for (;;) {
        int r, why;

        ERR_clear_error();
        errno = 0;
        r = SSL_connect(x->ssl);
        if (r == 1) {
            return 0;
        }
        why = SSL_get_error(x->ssl, r);
        if (why == SSL_ERROR_SSL) {
            return fail_handshake(x, err);
        }
        if (wait_tls(x, r, err) == -1) {
            return -1;
        }
    }
}

/* --- bytes ------------------------------------------------------------------------------------ */
static int write_all(struct exchange *x, const char *p, size_t n, struct err *err)
{
    while (n > 0) {
        size_t done = 0;

        errno = 0;
        if (x->ssl == NULL) {
            ssize_t r = send(x->request->socket, p, n, MSG_NOSIGNAL);

            if (r == -1 && errno != EAGAIN && errno != EINTR) {
                return err_sys(err, "the connection to the kubelet");
            }
            done = r > 0 ? (size_t)r : 0;
            if (r == -1 && wait_socket(x, POLLOUT, err) == -1) {
                return -1;
            }
        } else {
            int r;

            ERR_clear_error();
            r = SSL_write_ex(x->ssl, p, n, &done);
            if (r != 1 && wait_tls(x, r, err) == -1) {
                return -1;
            }
        }
        p += done;
        n -= done;
    }
    return 0;
}

/* 0 in *ret_n: to be asked again. */
static int read_some(struct exchange *x, char *p, size_t size, size_t *ret_n, struct err *err)
{
    *ret_n = 0;
    errno = 0;
    if (x->ssl == NULL) {
        ssize_t r = recv(x->request->socket, p, size, 0);

        if (r == 0) {
            return err_set(err, ERR_PROTOCOL, "the kubelet cut the connection");
        }
        if (r > 0) {
            *ret_n = (size_t)r;
            return 0;
        }
        return errno == EAGAIN || errno == EINTR ? wait_socket(x, POLLIN, err)
                                                 : err_sys(err, "the connection to the kubelet");
    }
    ERR_clear_error();
    {
        int r = SSL_read_ex(x->ssl, p, size, ret_n);

        if (r == 1) {
            return 0;
        }
        *ret_n = 0;
        return wait_tls(x, r, err);
    }
}

/* Keeps the loop from outliving its time where bytes trickle in without a wait. */
static int in_time(const struct exchange *x, struct err *err)
{
    return os_now_ms() < x->until_ms
               ? 0
               : err_set(err, ERR_UNAVAILABLE, "the kubelet did not answer within %u ms",
                         x->request->timeout_ms);
}

static int send_request(struct exchange *x, struct err *err)
{
    const struct kubelet_request *q = x->request;
    struct buf out = BUF_INIT(KUBELET_TOKEN_MAX + 1024);
    bool fits = buf_printf(&out,
                           "GET /pods HTTP/1.1\r\nHost: %s\r\nUser-Agent: postern-kubelet\r\n"
                           "Accept: application/json\r\nConnection: close\r\n",
                           q->host);
    int r;

    if (q->token.n > 0) {
        fits = fits && buf_append_str(&out, STR_LIT("Authorization: Bearer ")) &&
               buf_append_str(&out, q->token) && buf_append_str(&out, STR_LIT("\r\n"));
    }
    fits = fits && buf_append_str(&out, STR_LIT("\r\n"));
    r = fits ? write_all(x, (const char *)buf_head(&out), buf_len(&out), err)
             : err_set(err, ERR_LIMIT, "the request is too large");
    buf_reset_secret(&out);
    return r;
}

static int read_answer(struct exchange *x, struct kubelet_response *response, struct err *err)
{
    mem_autofree char *bytes = mem_must_calloc(READ_SIZE, 1);
    enum kubelet_feed fed = KUBELET_FEED_MORE;

    while (fed == KUBELET_FEED_MORE) {
        size_t n = 0;

        if (in_time(x, err) == -1 || read_some(x, bytes, READ_SIZE, &n, err) == -1) {
            return -1;
        }
        fed = kubelet_response_feed(response, bytes, n, err);
    }
    return fed == KUBELET_FEED_DONE ? 0 : -1;
}

/* A token has one line, which cannot end the header that it stands in. */
static int check_token(struct str token, struct err *err)
{
    for (size_t i = 0; i < token.n; i++) {
        if (token.p[i] <= ' ' || token.p[i] > '~') {
            err_set(err, ERR_CONFIG, "the token holds bytes that no token has");
            return err_expected(err, "one line in kubelet.token_file");
        }
    }
    return 0;
}

static int judge_status(unsigned status, struct err *err)
{
    if (status == 200) {
        return 0;
    }
    if (status == 401 || status == 403) {
        err_set(err, ERR_DENIED, "the kubelet refuses to tell its pods: status %u", status);
        return err_advise(err, status == 401
                                   ? "its token or client certificate is not accepted"
                                   : "give its user the right to get nodes/proxy, or nodes/pods");
    }
    return err_set(err, ERR_UNAVAILABLE, "the kubelet answers with status %u", status);
}

static int run(struct exchange *x, struct kubelet_response *response, struct err *err)
{
    if (check_token(x->request->token, err) == -1 || wait_connected(x, err) == -1) {
        return -1;
    }
    if (!x->request->plaintext && (open_tls(x, &x->ssl, err) == -1 || shake_hands(x, err) == -1)) {
        return -1;
    }
    return send_request(x, err) == -1 || read_answer(x, response, err) == -1
               ? -1
               : judge_status(response->status, err);
}

int kubelet_exchange(const struct kubelet_request *request, struct buf *ret_body, struct err *err)
{
    struct exchange x = {.request = request, .until_ms = os_now_ms() + request->timeout_ms};
    struct kubelet_response response;
    int r;

    kubelet_response_init(&response, KUBELET_BODY_MAX);
    r = run(&x, &response, err);
    if (r == 0) {
        buf_reset(ret_body);
        *ret_body = response.body;
        response.body = (struct buf)BUF_INIT(0);
    }
    kubelet_response_deinit(&response);
    SSL_free(x.ssl);
    if (r == -1 && err != NULL && err->where[0] == '\0') {
        err_where(err, "%s", request->host);
    }
    return r;
}

/* What libssl and jansson would otherwise look for at their first use. */
int kubelet_prepare(struct err *err)
{
    mem_auto(SSL_CTX_free) SSL_CTX *ctx = NULL;
    mem_auto(SSL_free) SSL *ssl = NULL;

    uint64_t seed = 0;

    /* Of the hash tables: whoever names labels must not know it. jansson would read /dev/urandom,
     * and takes 0 for none. */
    os_random(&seed, sizeof(seed));
    json_object_seed((size_t)seed | 1);
    /* No configuration file of OpenSSL's: it could load code. */
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS, NULL) != 1) {
        return err_set(err, ERR_CRYPTO, "libssl does not start");
    }
    ctx = SSL_CTX_new(TLS_client_method());
    ssl = ctx != NULL ? SSL_new(ctx) : NULL;
    return ssl != NULL ? 0 : fail_ssl(err, "libssl does not start");
}
