/*
 * Keys, JWKs and tokens of our own. The text is built by hand: the keeper, which does this, has no
 * JSON library, and of all that is written here only an audience can hold a character that has to
 * be escaped.
 */
#include "jwt_priv.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

enum { RSA_BITS = 2048, POINT_MAX = 1 + 2 * 66, JWK_MAX = 8192, RSA_BYTES_MAX = 1024 };

MEM_DEFINE_CLEANUP(BIGNUM, BN_free)
MEM_DEFINE_CLEANUP(EVP_MD_CTX, EVP_MD_CTX_free)
MEM_DEFINE_CLEANUP(ECDSA_SIG, ECDSA_SIG_free)

/* --- keys ------------------------------------------------------------------------------------- */
EVP_PKEY *jwt_key_new(enum jwt_alg alg, struct err *err)
{
    EVP_PKEY *key = NULL;

    ERR_clear_error();
    if (alg == JWT_ES256 || alg == JWT_ES384) {
        key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", jwt_alg_info(alg)->crv);
    } else if (alg == JWT_RS256) {
        key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)RSA_BITS);
    } else {
        err_set(err, ERR_UNSUPPORTED, "no key is made for %s", jwt_alg_name(alg));
        return NULL;
    }
    if (key == NULL) {
        jwt_err_crypto(err, "cannot make a key for tokens");
    }
    return key;
}

bool jwt_key_alg(EVP_PKEY *key, enum jwt_alg *ret)
{
    char group[32] = "";
    enum jwt_alg alg;

    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) >= RSA_BITS) {
        alg = JWT_RS256;
    } else if (!jwt_group_of(key, group, sizeof(group))) {
        return false;
    } else if (strcmp(group, jwt_alg_info(JWT_ES256)->group) == 0) {
        alg = JWT_ES256;
    } else if (strcmp(group, jwt_alg_info(JWT_ES384)->group) == 0) {
        alg = JWT_ES384;
    } else {
        return false;
    }
    *ret = alg;
    return true;
}

/* The members of a thumbprint in its order (RFC 7638 section 3.2): of EC keys crv, kty, x, y, of
 * RSA keys e, kty, n. Coordinates have the curve's width, leading zeros kept. */
static bool append_ec(struct buf *out, EVP_PKEY *key, const struct jwt_alg_info *info)
{
    uint8_t point[POINT_MAX];
    size_t len = 0;

    return EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point),
                                           &len) == 1 &&
           len == 1 + 2 * info->width && point[0] == POINT_CONVERSION_UNCOMPRESSED &&
           buf_printf(out, "\"crv\":\"%s\",\"kty\":\"EC\",\"x\":\"", info->crv) &&
           jwt_base64_append(out, point + 1, info->width) && buf_append(out, "\",\"y\":\"", 7) &&
           jwt_base64_append(out, point + 1 + info->width, info->width) && buf_append(out, "\"", 1);
}

static bool append_number(struct buf *out, EVP_PKEY *key, const char *param)
{
    mem_auto(BN_free) BIGNUM *n = NULL;
    uint8_t bytes[RSA_BYTES_MAX];
    int len;

    if (EVP_PKEY_get_bn_param(key, param, &n) != 1 || BN_num_bytes(n) > RSA_BYTES_MAX) {
        return false;
    }
    len = BN_bn2bin(n, bytes);
    return len > 0 && jwt_base64_append(out, bytes, (size_t)len);
}

static bool append_rsa(struct buf *out, EVP_PKEY *key)
{
    return buf_append(out, "\"e\":\"", 5) && append_number(out, key, OSSL_PKEY_PARAM_RSA_E) &&
           buf_append(out, "\",\"kty\":\"RSA\",\"n\":\"", 19) &&
           append_number(out, key, OSSL_PKEY_PARAM_RSA_N) && buf_append(out, "\"", 1);
}

static int append_members(struct buf *out, EVP_PKEY *key, struct err *err)
{
    enum jwt_alg alg;

    ERR_clear_error();
    if (!jwt_key_alg(key, &alg)) {
        return err_set(err, ERR_UNSUPPORTED, "a key of a kind that is not written as a JWK");
    }
    if (!(alg == JWT_RS256 ? append_rsa(out, key) : append_ec(out, key, jwt_alg_info(alg)))) {
        return jwt_err_crypto(err, "public key to a JWK");
    }
    return 0;
}

int jwt_key_id(EVP_PKEY *key, char ret_kid[JWT_KID_SIZE], struct err *err)
{
    struct buf members = BUF_INIT(JWK_MAX), text = BUF_INIT(JWT_KID_SIZE);
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int r = -1;

    if (!buf_append(&members, "{", 1)) {
        r = err_set(err, ERR_LIMIT, "no memory for a JWK");
    } else if (append_members(&members, key, err) == 0) {
        if (buf_append(&members, "}", 1) &&
            EVP_Digest(buf_head(&members), buf_len(&members), hash, &n, EVP_sha256(), NULL) == 1 &&
            jwt_base64_append(&text, hash, n) && buf_len(&text) == JWT_KID_SIZE - 1) {
            memcpy(ret_kid, buf_head(&text), JWT_KID_SIZE - 1);
            ret_kid[JWT_KID_SIZE - 1] = '\0';
            r = 0;
        } else {
            r = jwt_err_crypto(err, "a key's thumbprint");
        }
    }
    buf_reset(&members);
    buf_reset(&text);
    return r;
}

int jwt_key_write(EVP_PKEY *key, bool use, struct buf *out, struct err *err)
{
    char kid[JWT_KID_SIZE];

    if (jwt_key_id(key, kid, err) == -1) {
        return -1;
    }
    if (!buf_printf(out, "{%s\"kid\":\"%s\",", use ? "\"use\":\"jwt-svid\"," : "", kid)) {
        return err_set(err, ERR_LIMIT, "the key set is too large");
    }
    if (append_members(out, key, err) == -1) {
        return -1;
    }
    return buf_append(out, "}", 1) ? 0 : err_set(err, ERR_LIMIT, "the key set is too large");
}

/* x5c is not base64url (RFC 7517 section 4.7). */
int jwt_authority_write(EVP_PKEY *key, struct str der, struct buf *out, struct err *err)
{
    mem_autofree char *text = mem_must_calloc(der.n / 3 * 4 + 8, 1);

    (void)EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)der.p, (int)der.n);
    if (!buf_append_str(out, STR_LIT("{\"use\":\"x509-svid\","))) {
        return err_set(err, ERR_LIMIT, "the bundle is too large");
    }
    if (append_members(out, key, err) == -1) {
        return -1;
    }
    return buf_printf(out, ",\"x5c\":[\"%s\"]}", text)
               ? 0
               : err_set(err, ERR_LIMIT, "the bundle is too large");
}

/* --- claims ----------------------------------------------------------------------------------- */
/* How long the UTF-8 character at p is; 0: it is none (too long a form, a surrogate, above 10FFFF).
 */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    uint8_t c = p[0];
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

    if (len > n) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
        (c == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    return len;
}

bool jwt_audience_ok(struct str audience)
{
    const uint8_t *p = (const uint8_t *)audience.p;

    if (audience.n == 0 || audience.n > JWT_AUDIENCE_MAX) {
        return false;
    }
    for (size_t i = 0; i < audience.n;) {
        size_t len = utf8_len(p + i, audience.n - i);

        if (len == 0 || p[i] < 0x20 || p[i] == 0x7f) {
            return false;
        }
        i += len;
    }
    return true;
}

/* A checked text: only the quote and the backslash have to be escaped. */
static bool append_text(struct buf *out, struct str text)
{
    bool ok = buf_append(out, "\"", 1);

    for (size_t i = 0; ok && i < text.n; i++) {
        ok = (text.p[i] != '"' && text.p[i] != '\\') || buf_append(out, "\\", 1);
        ok = ok && buf_append(out, text.p + i, 1);
    }
    return ok && buf_append(out, "\"", 1);
}

static int check(const struct jwt_statement *what, struct err *err)
{
    struct spiffe_id id;
    size_t bytes = 0;

    if (spiffe_id_parse(what->spiffe_id, &id, err) == -1) {
        return -1;
    }
    if (id.path.n == 0) {
        return err_set(err, ERR_USAGE, "a workload's ID has a path");
    }
    if (what->n_audiences == 0 || what->n_audiences > JWT_AUDIENCES_MAX) {
        return err_set(err, ERR_USAGE, "%zu audiences", what->n_audiences);
    }
    for (size_t i = 0; i < what->n_audiences; i++) {
        bytes += what->audiences[i].n;
        if (!jwt_audience_ok(what->audiences[i])) {
            return err_set(err, ERR_USAGE, "an audience is empty, too long or no text");
        }
    }
    if (bytes > JWT_AUDIENCE_BYTES) {
        return err_set(err, ERR_LIMIT, "%zu bytes of audiences", bytes);
    }
    if (what->issued_s < 0 || what->expires_s <= what->issued_s) {
        return err_set(err, ERR_UNAVAILABLE, "the token would end before it begins");
    }
    return 0;
}

static bool append_claims(struct buf *out, const struct jwt_statement *what)
{
    bool ok = buf_append(out, "{\"sub\":", 7) && append_text(out, what->spiffe_id) &&
              buf_append(out, ",\"aud\":[", 8);

    for (size_t i = 0; ok && i < what->n_audiences; i++) {
        ok = (i == 0 || buf_append(out, ",", 1)) && append_text(out, what->audiences[i]);
    }
    return ok &&
           buf_printf(out, "],\"exp\":%lld,\"iat\":%lld,\"jti\":\"", (long long)what->expires_s,
                      (long long)what->issued_s) &&
           jwt_base64_append(out, what->jti, sizeof(what->jti)) && buf_append(out, "\"}", 2);
}

/* --- signing ---------------------------------------------------------------------------------- */
/* DER to r and s at the curve's width (RFC 7518 section 3.4). */
static bool raw_signature(const uint8_t *der, size_t n, size_t width, uint8_t *ret)
{
    mem_auto(ECDSA_SIG_free) ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);

    return sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret, (int)width) == (int)width &&
           BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret + width, (int)width) == (int)width;
}

static int append_signature(struct buf *out, enum jwt_alg alg, EVP_PKEY *key, struct err *err)
{
    const struct jwt_alg_info *info = jwt_alg_info(alg);
    mem_auto(EVP_MD_CTX_free) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t sig[RSA_BYTES_MAX], raw[POINT_MAX];
    size_t n = sizeof(sig);
    bool ok = ctx != NULL &&
              EVP_DigestSignInit_ex(ctx, NULL, info->digest, NULL, NULL, key, NULL) == 1 &&
              EVP_DigestSign(ctx, sig, &n, buf_head(out), buf_len(out)) == 1;

    if (ok && info->kind == JWT_KIND_EC) {
        ok = raw_signature(sig, n, info->width, raw) && buf_append(out, ".", 1) &&
             jwt_base64_append(out, raw, 2 * info->width);
    } else if (ok) {
        ok = buf_append(out, ".", 1) && jwt_base64_append(out, sig, n);
    }
    return ok ? 0 : jwt_err_crypto(err, "the token cannot be signed");
}

int jwt_sign(const struct jwt_statement *what, EVP_PKEY *key, char **ret, struct err *err)
{
    struct buf claims = BUF_INIT(JWT_TOKEN_MAX), header = BUF_INIT(256),
               token = BUF_INIT(JWT_TOKEN_MAX);
    char kid[JWT_KID_SIZE];
    enum jwt_alg alg;
    int r = -1;

    if (check(what, err) == -1 || jwt_key_id(key, kid, err) == -1) {
        return -1;
    }
    POSTERN_ASSERT(jwt_key_alg(key, &alg)); /* it has a name, so it is of a kind of ours */
    if (!buf_printf(&header, "{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}", jwt_alg_name(alg),
                    kid) ||
        !append_claims(&claims, what) ||
        !jwt_base64_append(&token, buf_head(&header), buf_len(&header)) ||
        !buf_append(&token, ".", 1) ||
        !jwt_base64_append(&token, buf_head(&claims), buf_len(&claims))) {
        err_set(err, ERR_LIMIT, "the token is too long");
    } else if (append_signature(&token, alg, key, err) == 0) {
        *ret = mem_must_strndup((const char *)buf_head(&token), buf_len(&token));
        r = 0;
    }
    buf_reset(&claims);
    buf_reset(&header);
    buf_reset_secret(&token);
    return r;
}
