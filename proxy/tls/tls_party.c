/*
 * One generation of what a side of a leg goes by, as an SSL_CTX for each own certificate, and how
 * strict they are. OpenSSL's callbacks find the stream by the SSL and the party by the stream, so
 * that no SSL_CTX points at a party that is gone.
 */
#include <postern/tls.h>

#include "tls_priv.h"

#include <openssl/err.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_CHAIN_BYTES = 32 * 1024, /* of a peer, as sent: OpenSSL's own default is three times this */
};

/* AES-128 first: the hardware's fastest, and no weaker where it counts. */
static const char SUITES[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/* TLS 1.2: forward secrecy and AEAD, nothing else. */
static const char SUITES_12[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                                "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
const struct str tls_alpn_postern = {"postern/1", 9};
const struct str tls_alpn_h2 = {"h2", 2};

static int crypto_failed(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    return err_set(err, ERR_CRYPTO, "%s: %s", what, reason != NULL ? reason : "unknown reason");
}

/* RFC 7301: each with its length before it. */
static int select_only(struct str only, const unsigned char **out, unsigned char *outlen,
                       const unsigned char *in, unsigned int inlen)
{
    for (unsigned at = 0; at < inlen && in[at] < inlen - at; at += 1U + in[at]) {
        if (str_eq(only, (struct str){(const char *)in + at + 1, in[at]})) {
            *out = (const unsigned char *)only.p;
            *outlen = (unsigned char)only.n;
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static const struct str *only_of(SSL *ssl)
{
    return ((const struct tls_stream *)SSL_get_app_data(ssl))->alpn_only;
}

/* The port speaks HTTP: what the workload speaks is not known, so HTTP/1.1 first. */
static int select_http(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                       const unsigned char *in, unsigned int inlen)
{
    static const unsigned char offers[] = "\x08http/1.1\x02h2";
    unsigned char *chosen = NULL;
    if (!((const struct tls_stream *)SSL_get_app_data(ssl))->alpn_http ||
        SSL_select_next_proto(&chosen, outlen, offers, sizeof(offers) - 1, in, inlen) !=
            OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static const struct tls_party *party_of(SSL *ssl)
{
    return ((const struct tls_stream *)SSL_get_app_data(ssl))->party;
}

/* Ours if the client offers it; anything else, or nothing, is left unanswered: a plain TLS client
 * with a valid SVID is welcome, what it says is the port's business. Where a list was configured,
 * a client that offers only others is refused. */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                       const unsigned char *in, unsigned int inlen, void *arg)
{
    const struct tls_party *p = party_of(ssl);
    unsigned char *chosen = NULL;
    const struct str *only = only_of(ssl);
    (void)arg;
    if (only != NULL) {
        return select_only(*only, out, outlen, in, inlen);
    }
    if (SSL_select_next_proto(&chosen, outlen, p->alpn, (unsigned)p->alpn_len, in, inlen) !=
        OPENSSL_NPN_NEGOTIATED) {
        return p->alpn_required ? SSL_TLSEXT_ERR_ALERT_FATAL
                                : select_http(ssl, out, outlen, in, inlen);
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Exactly, then by wildcard, else the default. */
static int choose_by_name(SSL *ssl, int *alert, void *arg)
{
    const struct tls_party *p = party_of(ssl);
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    (void)arg;
    for (int exact = 1; name != NULL && p->n_ctx > 1 && exact >= 0; exact--) {
        for (size_t i = 0; i < p->n_ctx; i++) {
            if (x509_cert_has_host(p->leaves[i], str_of(name), exact == 1)) {
                (void)SSL_set_SSL_CTX(ssl, p->ctx[i]);
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    return name != NULL ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* --- making ----------------------------------------------------------------------------------- */
static bool set_strictness(SSL_CTX *c, const struct tls_party_spec *spec)
{
    bool ordinary = spec->peers == NULL || x509_peers_trust(spec->peers) == NULL;
    for (size_t i = 0; i < spec->n_own; i++) {
        ordinary = ordinary || spec->own[i]->spiffe_id == NULL;
    }
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* Idle connections give their record buffers back; chains are sent as the agent made them. */
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(c, MAX_CHAIN_BYTES);
    bool ok = SSL_CTX_set_min_proto_version(c, spec->min == TLS_MIN_1_2 ? TLS1_2_VERSION
                                                                        : TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_ciphersuites(c, SUITES) == 1 && SSL_CTX_set_num_tickets(c, 0) == 1 &&
              SSL_CTX_set_max_early_data(c, 0) == 1 &&
              (spec->min != TLS_MIN_1_2 || SSL_CTX_set_cipher_list(c, SUITES_12) == 1);
    return ok && tls_groups_set(c, spec->min_group, ordinary);
}

static bool set_callbacks(SSL_CTX *c, const struct tls_party *p)
{
    SSL_CTX_set_info_callback(c, tls_info_callback);
    if (p->peers == NULL) {
        SSL_CTX_set_verify(c, SSL_VERIFY_NONE, NULL);
    } else {
        SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        SSL_CTX_set_cert_verify_callback(c, tls_verify_callback, NULL);
    }
    if (!p->server) {
        return p->alpn_len == 0 || SSL_CTX_set_alpn_protos(c, p->alpn, (unsigned)p->alpn_len) == 0;
    }
    if (p->alpn_len > 0) {
        SSL_CTX_set_alpn_select_cb(c, select_alpn, NULL);
    }
    SSL_CTX_set_tlsext_servername_callback(c, choose_by_name);
    return true;
}

static int use(SSL_CTX *c, const struct x509_svid *own, struct err *err)
{
    if (SSL_CTX_use_cert_and_key(c, own->leaf, own->key, own->intermediates, 1) != 1) {
        return crypto_failed(err, "cannot use the own certificate and key for TLS");
    }
    return 0;
}

static bool same_kind(const struct x509_svid *a, const struct x509_svid *b)
{
    return EVP_PKEY_get_base_id(a->key) == EVP_PKEY_get_base_id(b->key) ||
           EVP_PKEY_is_a(a->key, EVP_PKEY_get0_type_name(b->key)) == 1;
}

/* The own certificate, and such of the others as stand for the same names with another kind of key.
 */
static int use_all(SSL_CTX *c, const struct tls_party_spec *spec, size_t at, struct err *err)
{
    const struct x509_svid *used[TLS_OWN_MAX];
    size_t n = 0;
    used[n++] = spec->own[at];
    if (use(c, spec->own[at], err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < spec->n_own; i++) {
        const struct x509_svid *other = spec->own[i];
        bool wanted = i != at && x509_cert_covers_names(other->leaf, spec->own[at]->leaf);
        for (size_t k = 0; k < n; k++) {
            wanted = wanted && !same_kind(used[k], other);
        }
        if (wanted) {
            used[n++] = other;
            if (use(c, other, err) == -1) {
                return -1;
            }
        }
    }
    return 0;
}

static SSL_CTX *make(const struct tls_party *p, const struct tls_party_spec *spec, size_t at,
                     struct err *err)
{
    ERR_clear_error();
    SSL_CTX *c = SSL_CTX_new(spec->server ? TLS_server_method() : TLS_client_method());
    if (c == NULL) {
        crypto_failed(err, "cannot make a TLS context");
        return NULL;
    }
    bool ok = set_strictness(c, spec) && set_callbacks(c, p) &&
              (!p->resumption || tls_resume_set_up(c, p));
    if (!ok) {
        crypto_failed(err, "this OpenSSL cannot do TLS as Postern needs it");
    }
    if (!ok || (at < spec->n_own && use_all(c, spec, at, err) == -1)) {
        SSL_CTX_free(c);
        return NULL;
    }
    ERR_clear_error(); /* the refused list of groups has left its mark */
    return c;
}

static int take_alpn(struct tls_party *p, const struct tls_party_spec *spec, struct err *err)
{
    for (size_t i = 0; i < spec->n_alpn; i++) {
        struct str one = spec->alpn[i];
        if (one.n == 0 || one.n > 255 || p->alpn_len + 1 + one.n > sizeof(p->alpn)) {
            return err_set(err, ERR_CONFIG, "the list of application protocols is too long");
        }
        p->alpn[p->alpn_len] = (uint8_t)one.n;
        memcpy(p->alpn + p->alpn_len + 1, one.p, one.n);
        p->alpn_len += 1 + one.n;
    }
    p->alpn_required = spec->alpn_required;
    return 0;
}

static void take_judgement(struct tls_party *p, const struct tls_party_spec *spec)
{
    p->peers = spec->peers != NULL ? x509_peers_ref(spec->peers) : NULL;
    p->names = spec->names != NULL ? x509_names_ref(spec->names) : NULL;
    p->expected = (struct str *)mem_must_calloc(spec->n_expected + 1, sizeof(*p->expected));
    for (size_t i = 0; i < spec->n_expected; i++) {
        p->expected[p->n_expected++] =
            str_of(mem_must_strndup(spec->expected[i].p, spec->expected[i].n));
    }
}

int tls_party_new(const struct tls_party_spec *spec, struct tls_party **ret, struct err *err)
{
    POSTERN_ASSERT(spec->n_own <= TLS_OWN_MAX && (!spec->server || spec->n_own > 0));
    POSTERN_ASSERT(spec->server || spec->peers != NULL);
    mem_auto(tls_party_unref) struct tls_party *p = mem_must_new(struct tls_party);
    atomic_init(&p->refs, 1);
    os_random(p->id, sizeof(p->id));
    p->server = spec->server;
    p->resumption = spec->resumption && spec->peers != NULL && spec->min == TLS_MIN_1_3;
    p->server_name = spec->server_name != NULL ? mem_must_strdup(spec->server_name) : NULL;
    if (take_alpn(p, spec, err) == -1) {
        return -1;
    }
    take_judgement(p, spec);
    if (tls_min_group_check(spec->min_group, err) == -1) {
        return -1;
    }
    /* A client shows its first certificate; it has nothing to choose by. */
    size_t n = spec->server ? spec->n_own : 1;
    p->ctx = (SSL_CTX **)mem_must_calloc(n, sizeof(SSL_CTX *));
    p->leaves = (X509 **)mem_must_calloc(n, sizeof(X509 *));
    for (size_t i = 0; i < n; i++) {
        p->ctx[i] = make(p, spec, i, err);
        if (p->ctx[i] == NULL) {
            return -1;
        }
        p->n_ctx++;
        if (i < spec->n_own) {
            X509_up_ref(spec->own[i]->leaf);
            p->leaves[i] = spec->own[i]->leaf;
        }
    }
    *ret = p;
    p = NULL;
    return 0;
}

struct tls_party *tls_party_ref(const struct tls_party *p)
{
    struct tls_party *mine = (struct tls_party *)(uintptr_t)p; /* all but the count is immutable */
    POSTERN_ASSERT(atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed) > 0);
    return mine;
}

struct tls_party *tls_party_unref(struct tls_party *p)
{
    if (p == NULL || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1) {
        return NULL;
    }
    for (size_t i = 0; i < p->n_ctx; i++) {
        SSL_CTX_free(p->ctx[i]);
        X509_free(p->leaves[i]);
    }
    free(p->ctx);
    free(p->leaves);
    for (size_t i = 0; i < p->n_expected; i++) {
        free((char *)(uintptr_t)p->expected[i].p);
    }
    free(p->expected);
    x509_peers_unref(p->peers);
    x509_names_unref(p->names);
    free(p->server_name);
    free(p);
    return NULL;
}

const struct x509_peers *tls_party_peers(const struct tls_party *p)
{
    return p->peers;
}

bool tls_party_judges_alike(const struct tls_party *a, const struct tls_party *b)
{
    if (a == b) {
        return true;
    }
    bool alike = (a->peers == b->peers ||
                  (a->peers != NULL && b->peers != NULL && x509_peers_equal(a->peers, b->peers))) &&
                 x509_names_equal(a->names, b->names) && a->n_expected == b->n_expected;
    for (size_t i = 0; alike && i < a->n_expected; i++) {
        alike = str_eq(a->expected[i], b->expected[i]);
    }
    return alike;
}
