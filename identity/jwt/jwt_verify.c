/*
 * Judging a token (JWT-SVID.md sections 2 to 5). The order is the point: form and header first, so
 * that an algorithm that is none is refused before anything else is looked at; then whose keys
 * count, by the subject's trust domain; then the signature; and only what is signed is believed.
 */
#include "jwt_priv.h"

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNATURE_MAX = 1024, DER_MAX = 256 };
static const double NUMERIC_DATE_MAX = 99999999999.0; /* the year 5138 */

MEM_DEFINE_CLEANUP(BIGNUM, BN_free)
MEM_DEFINE_CLEANUP(ECDSA_SIG, ECDSA_SIG_free)
MEM_DEFINE_CLEANUP(EVP_MD_CTX, EVP_MD_CTX_free)
MEM_DEFINE_CLEANUP(json_t, json_decref)

struct jwt_token *jwt_token_free(struct jwt_token *t)
{
    if (t == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < t->n_audiences; i++) {
        free(t->audiences[i]);
    }
    free(t->audiences);
    free(t->kid);
    free(t->spiffe_id);
    json_decref(t->claims);
    free(t);
    return NULL;
}

/* --- form and header -------------------------------------------------------------------------- */
int jwt_split(struct str token, struct jwt_parts *ret, struct err *err)
{
    const char *first = token.n > 0 ? memchr(token.p, '.', token.n) : NULL;
    const char *end = token.p + token.n;
    const char *second = NULL;

    if (token.n > JWT_TOKEN_MAX) {
        return err_set(err, ERR_LIMIT, "a token of more than %d bytes", JWT_TOKEN_MAX);
    }
    if (first != NULL) {
        second = memchr(first + 1, '.', (size_t)(end - first - 1));
    }
    if (second == NULL || memchr(second + 1, '.', (size_t)(end - second - 1)) != NULL) {
        err_set(err, ERR_PROTOCOL, "not a compact JWS");
        return err_expected(err, "three parts joined by dots");
    }
    ret->header = (struct str){token.p, (size_t)(first - token.p)};
    ret->claims = (struct str){first + 1, (size_t)(second - first - 1)};
    ret->signature = (struct str){second + 1, (size_t)(end - second - 1)};
    ret->signed_text = (struct str){token.p, (size_t)(second - token.p)};
    return 0;
}

int jwt_decode_object(struct str part, const char *name, json_t **ret, struct err *err)
{
    mem_autofree uint8_t *text = NULL;
    size_t n;

    if (!jwt_base64_decode(part, &text, &n)) {
        err_set(err, ERR_PROTOCOL, "the %s is not base64url", name);
        return err_expected(err, "base64url without padding");
    }
    *ret = jwt_json_parse((struct str){(const char *)text, n}, err);
    return *ret != NULL ? 0 : err_prefix(err, "the %s", name);
}

static struct str text_of(const json_t *v)
{
    return json_is_string(v) ? (struct str){json_string_value(v), json_string_length(v)} : STR_NONE;
}

/* Section 2: alg, kid and typ, and nothing else. */
static int take_header(const json_t *header, struct jwt_token *t, struct err *err)
{
    const json_t *alg = json_object_get(header, "alg");
    const json_t *kid = json_object_get(header, "kid");
    const json_t *typ = json_object_get(header, "typ");
    size_t known = (alg != NULL ? 1U : 0U) + (kid != NULL ? 1U : 0U) + (typ != NULL ? 1U : 0U);

    if (!jwt_alg_find(text_of(alg), &t->alg)) {
        err_set(err, ERR_PROTOCOL, "the algorithm is not one that a JWT-SVID may have");
        return err_expected(err, "RS, ES or PS with 256, 384 or 512");
    }
    if (json_object_size(header) != known) {
        err_set(err, ERR_PROTOCOL, "the header says more than it may");
        return err_expected(err, "alg, kid and typ");
    }
    if (typ != NULL && !str_eq(text_of(typ), STR_LIT("JWT")) &&
        !str_eq(text_of(typ), STR_LIT("JOSE"))) {
        err_set(err, ERR_PROTOCOL, "the type is another one");
        return err_expected(err, "JWT or JOSE");
    }
    if (kid != NULL && (text_of(kid).n == 0 || text_of(kid).n > JWT_KID_MAX)) {
        return err_set(err, ERR_PROTOCOL, "the key's name is empty, too long or no text");
    }
    t->kid = kid != NULL ? mem_must_strndup(text_of(kid).p, text_of(kid).n) : NULL;
    return 0;
}

/* --- claims ----------------------------------------------------------------------------------- */
static int take_subject(struct jwt_token *t, struct spiffe_id *ret, struct err *err)
{
    struct str sub = text_of(json_object_get(t->claims, "sub"));

    if (sub.n == 0) {
        err_set(err, ERR_PROTOCOL, "the subject is missing");
        return err_expected(err, "a SPIFFE ID in 'sub'");
    }
    if (spiffe_id_parse(sub, ret, err) == -1) {
        return err_prefix(err, "the subject");
    }
    if (ret->path.n == 0) {
        err_set(err, ERR_PROTOCOL, "the subject is a trust domain");
        return err_expected(err, "a SPIFFE ID with a path");
    }
    t->spiffe_id = mem_must_strndup(sub.p, sub.n);
    return spiffe_id_parse(str_of(t->spiffe_id), ret, err); /* views of what stays */
}

static int take_audiences(struct jwt_token *t, struct err *err)
{
    const json_t *aud = json_object_get(t->claims, "aud");
    size_t n = json_is_array(aud) ? json_array_size(aud) : json_is_string(aud);

    if (n == 0) {
        err_set(err, ERR_PROTOCOL, "the audience is missing or empty");
        return err_expected(err, "a text or a list of texts in 'aud'");
    }
    t->audiences = mem_must_calloc(n, sizeof(*t->audiences));
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(aud) ? json_array_get(aud, i) : aud;

        if (!json_is_string(one)) {
            return err_set(err, ERR_PROTOCOL, "an audience is no text");
        }
        t->audiences[t->n_audiences++] =
            mem_must_strndup(json_string_value(one), json_string_length(one));
    }
    return 0;
}

/* A NumericDate (RFC 7519 section 2), cut to whole seconds. */
static int take_time(const json_t *claims, const char *name, int64_t *ret, struct err *err)
{
    const json_t *v = json_object_get(claims, name);
    double s = json_number_value(v);

    if (v == NULL) {
        *ret = INT64_MIN;
        return 0;
    }
    if (!json_is_number(v) || !(s >= 0 && s <= NUMERIC_DATE_MAX)) {
        err_set(err, ERR_PROTOCOL, "'%s' is no time", name);
        return err_expected(err, "seconds since 1970");
    }
    *ret = (int64_t)s;
    return 0;
}

int jwt_take_claims(struct jwt_token *t, struct err *err)
{
    if (take_audiences(t, err) == -1 || take_time(t->claims, "exp", &t->expires_s, err) == -1 ||
        take_time(t->claims, "nbf", &t->not_before_s, err) == -1 ||
        take_time(t->claims, "iat", &t->issued_s, err) == -1) {
        return -1;
    }
    if (t->expires_s == INT64_MIN) {
        err_set(err, ERR_PROTOCOL, "the token does not say when it ends");
        return err_expected(err, "a time in 'exp'");
    }
    return 0;
}

int jwt_check_times(const struct jwt_token *t, int64_t now_s, struct err *err)
{
    if (t->expires_s + JWT_LEEWAY_S <= now_s) {
        return err_set(err, ERR_DENIED, "the token has expired, %lld s ago",
                       (long long)(now_s - t->expires_s));
    }
    if (t->not_before_s != INT64_MIN && t->not_before_s - JWT_LEEWAY_S > now_s) {
        return err_set(err, ERR_DENIED, "the token is not valid yet, for another %lld s",
                       (long long)(t->not_before_s - now_s));
    }
    return 0;
}

int jwt_check_audience(const struct jwt_token *t, const char *const *wanted, size_t n,
                       struct err *err)
{
    for (size_t i = 0; i < t->n_audiences; i++) {
        for (size_t k = 0; k < n; k++) {
            if (strcmp(wanted[k], t->audiences[i]) == 0) {
                return 0;
            }
        }
    }
    return err_set(err, ERR_DENIED, "the token is for another audience");
}

static bool has_audience(const struct jwt_token *t, struct str audience)
{
    for (size_t i = 0; i < t->n_audiences; i++) {
        if (str_eq(audience, str_of(t->audiences[i]))) {
            return true;
        }
    }
    return false;
}

/* --- signature -------------------------------------------------------------------------------- */
/* r and s to DER; 0: not of the curve's width. */
static size_t der_signature(const uint8_t *raw, size_t n, size_t width, uint8_t *ret)
{
    mem_auto(ECDSA_SIG_free) ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r, *s;
    int len;

    if (n != 2 * width || sig == NULL) {
        return 0;
    }
    r = BN_bin2bn(raw, (int)width, NULL);
    s = BN_bin2bn(raw + width, (int)width, NULL);
    if (r == NULL || s == NULL || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        return 0;
    }
    len = i2d_ECDSA_SIG(sig, NULL);
    return len > 0 && len <= DER_MAX && i2d_ECDSA_SIG(sig, &ret) == len ? (size_t)len : 0;
}

static bool signed_by(EVP_PKEY *key, enum jwt_alg alg, struct str text, const uint8_t *sig,
                      size_t n)
{
    const struct jwt_alg_info *info = jwt_alg_info(alg);
    mem_auto(EVP_MD_CTX_free) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL; /* of ctx */
    uint8_t der[DER_MAX];
    bool ok;

    if (info->kind == JWT_KIND_EC) {
        n = der_signature(sig, n, info->width, der);
        sig = der;
    } else if (n != (size_t)EVP_PKEY_get_size(key)) {
        return false;
    }
    ok = n > 0 && ctx != NULL &&
         EVP_DigestVerifyInit_ex(ctx, &pctx, info->digest, NULL, NULL, key, NULL) == 1;
    if (ok && info->kind == JWT_KIND_RSA_PSS) { /* RFC 7518 section 3.5 */
        ok = EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1;
    }
    ok = ok && EVP_DigestVerify(ctx, sig, n, (const uint8_t *)text.p, text.n) == 1;
    ERR_clear_error();
    return ok;
}

/* One time of work for a token with `kid`, the fitting keys in turn for one without. */
int jwt_check_signature(const struct jwt_token *t, const struct jwt_parts *p,
                        const struct jwt_keys *keys, struct err *err)
{
    mem_autofree uint8_t *sig = NULL;
    EVP_PKEY *key;
    size_t n = 0, at = 0, n_tried = 0;

    if (!jwt_base64_decode(p->signature, &sig, &n) || n == 0 || n > SIGNATURE_MAX) {
        return err_set(err, ERR_PROTOCOL, "the signature is missing or not base64url");
    }
    if (t->kid != NULL && !jwt_keys_has(keys, t->kid)) {
        return err_set(err, ERR_DENIED, "the token's key is not in the trust domain's bundle");
    }
    while ((key = jwt_keys_next(keys, t->kid, t->alg, &at)) != NULL) {
        n_tried++;
        if (signed_by(key, t->alg, p->signed_text, sig, n)) {
            return 0;
        }
    }
    return n_tried > 0 ? err_set(err, ERR_DENIED, "the signature is wrong")
                       : err_set(err, ERR_DENIED, "no key of the trust domain's bundle fits %s",
                                 jwt_alg_name(t->alg));
}

static const struct jwt_keys *keys_of(const struct jwt_bundle *bundles, size_t n,
                                      const struct spiffe_id *id)
{
    for (size_t i = 0; i < n; i++) {
        if (spiffe_id_member_of(id, bundles[i].trust_domain)) {
            return bundles[i].keys;
        }
    }
    return NULL;
}

/* --- both ways -------------------------------------------------------------------------------- */
/* Up to the subject, which says whose keys count. */
static int begin(struct str token, struct jwt_parts *ret_parts, struct jwt_token *t,
                 struct spiffe_id *ret_id, struct err *err)
{
    mem_auto(json_decref) json_t *header = NULL;

    return jwt_split(token, ret_parts, err) == -1 ||
                   jwt_decode_object(ret_parts->header, "header", &header, err) == -1 ||
                   take_header(header, t, err) == -1 ||
                   jwt_decode_object(ret_parts->claims, "claims", &t->claims, err) == -1 ||
                   take_subject(t, ret_id, err) == -1
               ? -1
               : 0;
}

int jwt_verify_svid(struct str token, const struct jwt_bundle *bundles, size_t n_bundles,
                    int64_t now_s, struct jwt_token **ret, struct err *err)
{
    mem_auto(jwt_token_free) struct jwt_token *t = mem_must_new(struct jwt_token);
    struct jwt_parts parts = {{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
    struct spiffe_id id;
    const struct jwt_keys *keys;

    if (begin(token, &parts, t, &id, err) == -1) {
        return -1;
    }
    keys = keys_of(bundles, n_bundles, &id);
    if (keys == NULL) {
        return err_set(err, ERR_DENIED, "there is no bundle for trust domain '%.*s'",
                       STR_ARG(id.trust_domain));
    }
    if (jwt_check_signature(t, &parts, keys, err) == -1 || jwt_take_claims(t, err) == -1 ||
        jwt_check_times(t, now_s, err) == -1) {
        return -1;
    }
    *ret = t;
    t = NULL;
    return 0;
}

int jwt_verify(struct str token, const struct jwt_bundle *bundles, size_t n_bundles,
               struct str audience, int64_t now_s, struct jwt_token **ret, struct err *err)
{
    mem_auto(jwt_token_free) struct jwt_token *t = NULL;

    if (audience.n == 0) {
        return err_set(err, ERR_USAGE, "no audience to judge the token by");
    }
    if (jwt_verify_svid(token, bundles, n_bundles, now_s, &t, err) == -1) {
        return -1;
    }
    if (!has_audience(t, audience)) {
        return err_set(err, ERR_DENIED, "the token is for another audience");
    }
    *ret = t;
    t = NULL;
    return 0;
}

int jwt_read(struct str token, struct jwt_token **ret, struct err *err)
{
    mem_auto(jwt_token_free) struct jwt_token *t = mem_must_new(struct jwt_token);
    struct jwt_parts parts = {{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
    struct spiffe_id id;

    if (begin(token, &parts, t, &id, err) == -1 || jwt_take_claims(t, err) == -1) {
        return -1;
    }
    *ret = t;
    t = NULL;
    return 0;
}

char *jwt_claims_text(const struct jwt_token *t)
{
    return json_dumps(t->claims, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_PRESERVE_ORDER);
}
