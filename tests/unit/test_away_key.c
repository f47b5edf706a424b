/* Handshakes with keys that are elsewhere: here, behind a callback with the real one. */
#include <postern/away_key.h>

#include "certs.h"
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The holder of a key. */
struct holder {
    EVP_PKEY *key; /* lent */
    enum { HONEST, REFUSES, LIES, SHORT } how;
    unsigned n_asked, n_released;
    struct away_ask last;
    struct away_handshake last_handshake;
};

static size_t raw_ecdsa(const uint8_t *der, size_t n, size_t half, uint8_t *ret)
{
    const unsigned char *p = der;
    ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &p, (long)n);
    assert_non_null(s);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(s), ret, (int)half), half);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(s), ret + half, (int)half), half);
    ECDSA_SIG_free(s);
    return 2 * half;
}

static int sign(void *arg, const struct away_ask *ask, uint8_t ret[AWAY_SIGNATURE_MAX],
                size_t *ret_len)
{
    static const char *const hashes[] = {"SHA256", "SHA384", "SHA512"};
    struct holder *h = arg;
    h->n_asked++;
    h->last = *ask;
    if (h->how == REFUSES) {
        return -1;
    }
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(h->key, NULL);
    uint8_t sig[AWAY_SIGNATURE_MAX];
    size_t n = sizeof(sig);
    EVP_MD *md = EVP_MD_fetch(NULL, hashes[ask->hash], NULL);
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    if (ask->scheme != AWAY_ECDSA) {
        bool pss = ask->scheme == AWAY_RSA_PSS;
        assert_int_equal(
            EVP_PKEY_CTX_set_rsa_padding(ctx, pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING), 1);
        assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, md), 1);
        if (pss) {
            assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, (int)ask->salt_len), 1);
        }
    }
    assert_int_equal(EVP_PKEY_sign(ctx, sig, &n, ask->digest, ask->digest_len), 1);
    if (ask->scheme == AWAY_ECDSA) {
        n = raw_ecdsa(sig, n, (size_t)(EVP_PKEY_get_bits(h->key) + 7) / 8, ret);
    } else {
        memcpy(ret, sig, n);
    }
    ret[n / 2] ^= h->how == LIES ? 1 : 0;
    *ret_len = h->how == SHORT ? n - 2 : n;
    EVP_MD_free(md);
    EVP_PKEY_CTX_free(ctx);
    return 0;
}

static void release(void *arg)
{
    struct holder *h = arg;
    h->n_released++;
}

/* Bytes both ways until both are done or one has failed. */
static bool shake(SSL *client, SSL *server)
{
    BIO *to_server = BIO_new(BIO_s_mem()), *to_client = BIO_new(BIO_s_mem());
    BIO_up_ref(to_server);
    BIO_up_ref(to_client);
    SSL_set_bio(client, to_client, to_server);
    SSL_set_bio(server, to_server, to_client);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    for (int i = 0; i < 10; i++) {
        (void)SSL_do_handshake(client);
        (void)SSL_do_handshake(server);
    }
    bool ok = SSL_is_init_finished(client) == 1 && SSL_is_init_finished(server) == 1;
    ERR_clear_error();
    return ok;
}

static bool handshake(EVP_PKEY *key, X509 *cert, X509 *root, int version)
{
    SSL_CTX *s = SSL_CTX_new(TLS_server_method()), *c = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_cert_and_key(s, cert, key, NULL, 1), 1);
    SSL_CTX_set_max_proto_version(s, version);
    SSL_CTX_set_min_proto_version(s, version);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(c), root);
    X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(c), CERTS_NOW);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
    SSL *server = SSL_new(s), *client = SSL_new(c);
    bool ok = shake(client, server);
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(s);
    SSL_CTX_free(c);
    return ok;
}

struct world {
    struct away_keys *keys;
    struct certs_pair root;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct certs_spec spec = certs_ca(NULL);
    spec.uris[0] = STR_NONE;
    w->root = certs_make(&spec, NULL);
    struct err err = ERR_INIT;
    w->keys = away_keys_new(&err);
    if (w->keys == NULL) {
        fail_msg("%s", err.what);
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    certs_free(&w->root);
    away_keys_free(w->keys);
    free(w);
    return 0;
}

static struct certs_pair leaf_of(const struct world *w, enum certs_key kind)
{
    struct certs_spec spec = certs_leaf(NULL);
    spec.uris[0] = STR_NONE;
    spec.dns = STR_LIT("a.b");
    spec.key = kind;
    return certs_make(&spec, &w->root);
}

static EVP_PKEY *away(const struct world *w, const struct certs_pair *leaf, struct holder *h)
{
    struct err err = ERR_INIT;
    const struct away_signer signer = {.sign = sign, .release = release, .arg = h};
    EVP_PKEY *key = away_key_new(w->keys, X509_get0_pubkey(leaf->cert), &signer, &err);
    if (key == NULL) {
        fail_msg("%s", err.what);
    }
    return key;
}

static void test_kinds_that_cannot_be(void **state)
{
    struct world *w = *state;
    static const enum certs_key kinds[] = {CERTS_ED25519, CERTS_RSA1024};
    for (size_t i = 0; i < 2; i++) {
        EVP_PKEY *key = certs_key_new(kinds[i]);
        struct err err = ERR_INIT;
        const struct away_signer signer = {.sign = sign};
        assert_null(away_key_new(w->keys, key, &signer, &err));
        assert_int_equal(err.code, ERR_UNSUPPORTED);
        EVP_PKEY_free(key);
    }
}

/* A holder that does not answer, or whose answer is wrong, ends in a failed handshake. */
static void test_bad_holders(void **state)
{
    struct world *w = *state;
    static const enum certs_key kinds[] = {CERTS_P256, CERTS_RSA2048};
    for (size_t i = 0; i < 2; i++) {
        struct certs_pair leaf = leaf_of(w, kinds[i]);
        struct holder h = {.key = leaf.key};
        EVP_PKEY *key = away(w, &leaf, &h);
        for (int how = REFUSES; how <= SHORT; how++) {
            h.how = how;
            assert_false(handshake(key, leaf.cert, w->root.cert, TLS1_3_VERSION));
        }
        assert_int_equal(h.n_asked, 3);
        h.how = HONEST;
        assert_true(handshake(key, leaf.cert, w->root.cert, TLS1_3_VERSION));
        assert_int_equal(h.n_released, 0);
        EVP_PKEY_free(key);
        assert_int_equal(h.n_released, 1);
        certs_free(&leaf);
    }
}

static void test_handshakes(void **state)
{
    struct world *w = *state;
    static const struct {
        enum certs_key kind;
        int version;
        enum away_scheme scheme;
    } cases[] = {
        {CERTS_P256, TLS1_3_VERSION, AWAY_ECDSA},      {CERTS_P384, TLS1_3_VERSION, AWAY_ECDSA},
        {CERTS_RSA2048, TLS1_3_VERSION, AWAY_RSA_PSS}, {CERTS_P256, TLS1_2_VERSION, AWAY_ECDSA},
        {CERTS_RSA2048, TLS1_2_VERSION, AWAY_RSA_PSS},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct certs_pair leaf = leaf_of(w, cases[i].kind);
        struct holder h = {.key = leaf.key};
        EVP_PKEY *key = away(w, &leaf, &h);
        if (!handshake(key, leaf.cert, w->root.cert, cases[i].version)) {
            fail_msg("case %zu: asked %u times", i, h.n_asked);
        }
        assert_int_equal(h.n_asked, 1);
        assert_int_equal(h.last.scheme, cases[i].scheme);
        EVP_PKEY_free(key);
        certs_free(&leaf);
    }
}

/* --- keys for handshakes of TLS 1.3 alone ------------------------------------------------------
 */
/* Signs what it builds itself, as the process does that has the key. */
static int sign_handshake(void *arg, const struct away_handshake *what,
                          uint8_t ret[AWAY_SIGNATURE_MAX], size_t *ret_len)
{
    struct holder *h = arg;
    uint8_t content[AWAY_HANDSHAKE_MAX];
    size_t n = away_handshake_write(what, content);
    h->n_asked++;
    h->last_handshake = *what;
    if (h->how == REFUSES) {
        return -1;
    }
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    *ret_len = AWAY_SIGNATURE_MAX;
    assert_int_equal(
        EVP_DigestSignInit(c, NULL, EVP_PKEY_get_bits(h->key) == 256 ? EVP_sha256() : EVP_sha384(),
                           NULL, h->key),
        1);
    assert_int_equal(EVP_DigestSign(c, ret, ret_len, content, n), 1);
    EVP_MD_CTX_free(c);
    ret[*ret_len / 2] ^= h->how == LIES ? 1 : 0;
    *ret_len = h->how == SHORT ? 0 : *ret_len;
    return 0;
}

static EVP_PKEY *away_for_handshakes(const struct world *w, const struct certs_pair *leaf,
                                     struct holder *h)
{
    const struct away_signer signer = {
        .sign = sign, .sign_handshake = sign_handshake, .release = release, .arg = h};
    EVP_PKEY *key = away_key_new(w->keys, X509_get0_pubkey(leaf->cert), &signer, NULL);
    assert_non_null(key);
    return key;
}

/* What such a key does with a text. */
static bool signs(EVP_PKEY *key, const EVP_MD *md, const uint8_t *text, size_t n)
{
    uint8_t sig[AWAY_SIGNATURE_MAX];
    size_t len = sizeof(sig);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = EVP_DigestSignInit(c, NULL, md, NULL, key) == 1 &&
              EVP_DigestSign(c, sig, &len, text, n) == 1;
    EVP_MD_CTX_free(c);
    ERR_clear_error();
    return ok;
}

/* Another text, another hash, a digest, a request, TLS 1.2: refused, and nobody was asked. */
static void test_handshakes_only(void **state)
{
    struct world *w = *state;
    struct certs_pair leaf = leaf_of(w, CERTS_P256);
    struct holder h = {.key = leaf.key};
    EVP_PKEY *key = away_for_handshakes(w, &leaf, &h);
    struct away_handshake what = {.role = AWAY_SERVER, .transcript_len = 32};
    uint8_t content[AWAY_HANDSHAKE_MAX + 1] = {0};
    size_t n = away_handshake_write(&what, content);
    assert_true(signs(key, EVP_sha256(), content, n));
    assert_int_equal(h.n_asked, 1);
    for (size_t i = 0; i < n - 32; i++) { /* each byte before the hash counts */
        content[i] ^= 1;
        assert_false(signs(key, EVP_sha256(), content, n));
        content[i] ^= 1;
    }
    for (size_t len = 0; len <= sizeof(content); len++) {
        assert_true(len == n || len == n + 16 || !signs(key, EVP_sha256(), content, len));
    }
    assert_false(signs(key, EVP_sha384(), content, n));
    assert_false(signs(key, EVP_sha1(), content, n));
    assert_false(signs(key, EVP_sha256(), (const uint8_t *)"text", 4));
    h.n_asked = 0;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    uint8_t sig[AWAY_SIGNATURE_MAX];
    size_t len = sizeof(sig);
    assert_true(ctx == NULL || EVP_PKEY_sign_init(ctx) != 1 ||
                EVP_PKEY_sign(ctx, sig, &len, content, 32) != 1);
    EVP_PKEY_CTX_free(ctx);
    X509_REQ *req = X509_REQ_new();
    assert_int_equal(X509_REQ_set_pubkey(req, leaf.key), 1);
    assert_int_equal(X509_REQ_sign(req, key, EVP_sha256()), 0);
    X509_REQ_free(req);
    ERR_clear_error();
    assert_false(handshake(key, leaf.cert, w->root.cert, TLS1_2_VERSION));
    assert_int_equal(h.n_asked, 0);
    EVP_PKEY_free(key);
    assert_int_equal(h.n_released, 1);
    certs_free(&leaf);
}

static void test_handshakes_of_tls_1_3(void **state)
{
    struct world *w = *state;
    static const enum certs_key kinds[] = {CERTS_P256, CERTS_P384};
    for (size_t i = 0; i < 2; i++) {
        struct certs_pair leaf = leaf_of(w, kinds[i]);
        struct holder h = {.key = leaf.key};
        EVP_PKEY *key = away_for_handshakes(w, &leaf, &h);
        assert_int_equal(X509_check_private_key(leaf.cert, key), 1);
        for (int how = REFUSES; how <= SHORT; how++) {
            h.how = how;
            assert_false(handshake(key, leaf.cert, w->root.cert, TLS1_3_VERSION));
        }
        h.how = HONEST;
        h.n_asked = 0;
        assert_true(handshake(key, leaf.cert, w->root.cert, TLS1_3_VERSION));
        assert_int_equal(h.n_asked, 1);
        assert_int_equal(h.last_handshake.role, AWAY_SERVER);
        assert_true(h.last_handshake.transcript_len == 32 || h.last_handshake.transcript_len == 48);
        EVP_PKEY_free(key);
        certs_free(&leaf);
    }
}

/* There is no way for an RSA key: its signature in TLS 1.3 has a salt, which is not asked for. */
static void test_handshakes_not_rsa(void **state)
{
    struct world *w = *state;
    struct certs_pair leaf = leaf_of(w, CERTS_RSA2048);
    struct holder h = {.key = leaf.key};
    EVP_PKEY *key = away_for_handshakes(w, &leaf, &h);
    assert_false(handshake(key, leaf.cert, w->root.cert, TLS1_3_VERSION));
    assert_int_equal(h.n_asked, 0);
    EVP_PKEY_free(key);
    certs_free(&leaf);
}

/* It is the certificate's, and no other's; there is no way to the private half. */
static void test_fits(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_of(w, CERTS_P256), b = leaf_of(w, CERTS_P256);
    struct holder h = {.key = a.key};
    EVP_PKEY *key = away(w, &a, &h);
    assert_int_equal(X509_check_private_key(a.cert, key), 1);
    assert_int_equal(X509_check_private_key(b.cert, key), 0);
    ERR_clear_error();
    OSSL_PARAM *params = NULL;
    assert_int_equal(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &params), 0);
    assert_null(params);
    ERR_clear_error();
    EVP_PKEY_free(key);
    certs_free(&a);
    certs_free(&b);
}

/* Others' keys of the process are as they were: the provider is not found by them. */
static void test_others(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    assert_non_null(key);
    const OSSL_PROVIDER *prov = EVP_PKEY_get0_provider(key);
    assert_non_null(prov);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint8_t sig[100];
    size_t n = sizeof(sig);
    assert_int_equal(EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestSign(md, sig, &n, (const uint8_t *)"x", 1), 1);
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds_that_cannot_be, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_holders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handshakes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handshakes_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handshakes_of_tls_1_3, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handshakes_not_rsa, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
