/* Signing with a key that is elsewhere: what is to be signed is hashed here, the rest is the
 * callback's. Only what TLS needs. */
#include "keyprov_priv.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

struct context {
    struct keyprov_key *key; /* a reference */
    EVP_MD_CTX *md;          /* owned */
    enum away_hash hash;
    bool pss;
    int salt_len; /* RSA_PSS_SALTLEN_DIGEST, or a number */
    /* Of a key for handshakes alone, in the place of md: the message itself, as long as it may be
     * one. */
    bool too_long;
    size_t content_len;
    uint8_t content[AWAY_HANDSHAKE_MAX];
};

static void *new_context(void *provctx, const char *properties)
{
    struct context *c = (struct context *)calloc(1, sizeof(*c));
    (void)provctx;
    (void)properties;
    if (c != NULL) {
        c->salt_len = RSA_PSS_SALTLEN_DIGEST;
    }
    return c;
}

static void free_context(void *context)
{
    struct context *c = (struct context *)context;
    if (c != NULL) {
        keyprov_key_unref(c->key);
        EVP_MD_CTX_free(c->md);
        free(c);
    }
}

static bool hash_of(const char *name, enum away_hash *ret)
{
    static const struct {
        const char *names[3];
        enum away_hash hash;
    } hashes[] = {{{"SHA256", "SHA2-256", "SHA-256"}, AWAY_SHA256},
                  {{"SHA384", "SHA2-384", "SHA-384"}, AWAY_SHA384},
                  {{"SHA512", "SHA2-512", "SHA-512"}, AWAY_SHA512}};
    for (size_t i = 0; name != NULL && i < sizeof(hashes) / sizeof(hashes[0]); i++) {
        for (size_t k = 0; k < 3; k++) {
            if (OPENSSL_strcasecmp(name, hashes[i].names[k]) == 0) {
                *ret = hashes[i].hash;
                return true;
            }
        }
    }
    return false;
}

/* --- parameters ------------------------------------------------------------------------------- */
static const OSSL_PARAM *settable(void *context, void *provctx)
{
    static const OSSL_PARAM PARAMS[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0), OSSL_PARAM_END};
    (void)context;
    (void)provctx;
    return PARAMS;
}

static bool take_padding(struct context *c, const OSSL_PARAM *p)
{
    int mode = 0;
    if (p->data_type == OSSL_PARAM_UTF8_STRING) {
        const char *name = (const char *)p->data;
        mode = strcmp(name, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0       ? RSA_PKCS1_PSS_PADDING
               : strcmp(name, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) == 0 ? RSA_PKCS1_PADDING
                                                                   : 0;
    } else if (OSSL_PARAM_get_int(p, &mode) != 1) {
        return false;
    }
    c->pss = mode == RSA_PKCS1_PSS_PADDING;
    return c->key != NULL && c->key->rsa && (c->pss || mode == RSA_PKCS1_PADDING);
}

static bool take_salt(struct context *c, const OSSL_PARAM *p)
{
    if (p->data_type == OSSL_PARAM_UTF8_STRING) {
        const char *name = (const char *)p->data;
        if (strcmp(name, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST) == 0) {
            c->salt_len = RSA_PSS_SALTLEN_DIGEST;
            return true;
        }
        return false; /* TLS says "digest", as a word or as a number */
    }
    return OSSL_PARAM_get_int(p, &c->salt_len) == 1 &&
           (c->salt_len == RSA_PSS_SALTLEN_DIGEST ||
            (c->salt_len >= 0 && c->salt_len <= AWAY_HASH_MAX));
}

static int set_params(void *context, const OSSL_PARAM params[])
{
    struct context *c = (struct context *)context;
    const OSSL_PARAM *p;
    enum away_hash mgf1;
    if (params == NULL) {
        return 1;
    }
    if ((p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE)) != NULL &&
        !take_padding(c, p)) {
        return 0;
    }
    if ((p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN)) != NULL &&
        !take_salt(c, p)) {
        return 0;
    }
    if ((p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_MGF1_DIGEST)) != NULL &&
        (p->data_type != OSSL_PARAM_UTF8_STRING || !hash_of((const char *)p->data, &mgf1) ||
         mgf1 != c->hash)) {
        return 0;
    }
    return 1;
}

/* --- signing ---------------------------------------------------------------------------------- */
static bool take_key(struct context *c, struct keyprov_key *k)
{
    if (k != c->key) {
        keyprov_key_unref(c->key);
        c->key = keyprov_key_ref(k);
    }
    return true;
}

/* Nothing is hashed: the message has to be seen whole. RFC 8446, 4.2.3: a curve goes with a hash.
 */
static int handshake_init(struct context *c, struct keyprov_key *k, const OSSL_PARAM params[])
{
    int bits = EVP_PKEY_get_bits(k->public_key);
    c->too_long = false;
    c->content_len = 0;
    return !k->rsa &&
           ((bits == 256 && c->hash == AWAY_SHA256) || (bits == 384 && c->hash == AWAY_SHA384)) &&
           take_key(c, k) && set_params(c, params);
}

static int sign_init(void *context, const char *hash_name, void *key, const OSSL_PARAM params[])
{
    struct context *c = (struct context *)context;
    struct keyprov_key *k = key != NULL ? (struct keyprov_key *)key : c->key;
    if (k == NULL || !k->has_signer || !hash_of(hash_name, &c->hash)) {
        return 0;
    }
    if (k->signer.sign_handshake != NULL) {
        return handshake_init(c, k, params);
    }
    EVP_MD *md = EVP_MD_fetch(NULL, hash_name, NULL);
    EVP_MD_CTX_free(c->md);
    c->md = EVP_MD_CTX_new();
    bool ok = md != NULL && c->md != NULL && EVP_DigestInit_ex2(c->md, md, NULL) == 1;
    EVP_MD_free(md);
    return ok && take_key(c, k) && set_params(c, params);
}

static bool for_handshakes(const struct context *c)
{
    return c->key != NULL && c->key->signer.sign_handshake != NULL;
}

static int sign_update(void *context, const unsigned char *data, size_t n)
{
    struct context *c = (struct context *)context;
    if (!for_handshakes(c)) {
        return c->md != NULL && EVP_DigestUpdate(c->md, data, n) == 1;
    }
    c->too_long = c->too_long || n > sizeof(c->content) - c->content_len;
    if (c->too_long) {
        return 0;
    }
    memcpy(c->content + c->content_len, data, n);
    c->content_len += n;
    return 1;
}

/* r and s to DER, as signatures are in TLS. */
static int put_ecdsa(const uint8_t *rs, size_t n, unsigned char *sig, size_t *sig_len, size_t size)
{
    ECDSA_SIG *s = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(rs, (int)(n / 2), NULL);
    BIGNUM *t = BN_bin2bn(rs + n / 2, (int)(n / 2), NULL);
    int len = 0;
    if (s == NULL || r == NULL || t == NULL || ECDSA_SIG_set0(s, r, t) != 1) {
        BN_free(r);
        BN_free(t);
    } else {
        len = i2d_ECDSA_SIG(s, NULL);
        if (len > 0 && (size_t)len <= size) {
            len = i2d_ECDSA_SIG(s, &sig);
        } else {
            len = 0;
        }
    }
    ECDSA_SIG_free(s);
    *sig_len = len > 0 ? (size_t)len : 0;
    return len > 0;
}

static int handshake_final(struct context *c, unsigned char *sig, size_t *sig_len, size_t size)
{
    struct away_handshake what;
    uint8_t out[AWAY_SIGNATURE_MAX];
    size_t n = 0;
    if (c->too_long || !away_handshake_parse(c->content, c->content_len, &what) ||
        c->key->signer.sign_handshake(c->key->signer.arg, &what, out, &n) == -1 || n == 0 ||
        n > sizeof(out) || n > size) {
        return 0;
    }
    memcpy(sig, out, n);
    *sig_len = n;
    return 1;
}

static int sign_final(void *context, unsigned char *sig, size_t *sig_len, size_t size)
{
    struct context *c = (struct context *)context;
    size_t most = (size_t)EVP_PKEY_get_size(c->key->public_key);
    struct away_ask ask = {.scheme = !c->key->rsa ? AWAY_ECDSA
                                     : c->pss     ? AWAY_RSA_PSS
                                                  : AWAY_RSA_PKCS1,
                           .hash = c->hash};
    uint8_t out[AWAY_SIGNATURE_MAX];
    size_t n = 0;
    unsigned digest_len = 0;
    if (sig == NULL) {
        *sig_len = most;
        return 1;
    }
    if (for_handshakes(c)) {
        return handshake_final(c, sig, sig_len, size);
    }
    if (c->md == NULL || EVP_DigestFinal_ex(c->md, ask.digest, &digest_len) != 1) {
        return 0;
    }
    ask.digest_len = digest_len;
    ask.salt_len = c->salt_len == RSA_PSS_SALTLEN_DIGEST ? digest_len : (size_t)c->salt_len;
    if (c->key->signer.sign(c->key->signer.arg, &ask, out, &n) == -1 || n > sizeof(out)) {
        return 0;
    }
    if (!c->key->rsa) {
        return n >= 2 && n % 2 == 0 && put_ecdsa(out, n, sig, sig_len, size);
    }
    if (n != most || n > size) {
        return 0;
    }
    memcpy(sig, out, n);
    *sig_len = n;
    return 1;
}

static int sign_whole(void *context, unsigned char *sig, size_t *sig_len, size_t size,
                      const unsigned char *data, size_t n)
{
    return (sig == NULL || sign_update(context, data, n) == 1) &&
           sign_final(context, sig, sig_len, size) == 1;
}

typedef void (*any_fn)(void);
const OSSL_DISPATCH keyprov_signature[] = {
    {OSSL_FUNC_SIGNATURE_NEWCTX, (any_fn)new_context},
    {OSSL_FUNC_SIGNATURE_FREECTX, (any_fn)free_context},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, (any_fn)sign_init},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, (any_fn)sign_update},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, (any_fn)sign_final},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, (any_fn)sign_whole},
    {OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, (any_fn)set_params},
    {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, (any_fn)settable},
    {0, NULL}};
