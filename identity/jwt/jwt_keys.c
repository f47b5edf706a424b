/*
 * JWK sets (RFC 7517, 7518; SPIFFE_Trust_Domain_and_Bundle.md section 4). What is of no use to us
 * is skipped; what says that it is a key for us and is none refuses the whole set, so that nobody
 * goes on with half of a bundle.
 */
#include "jwt_priv.h"

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, RSA_E_BYTES_MAX = 8, COORDINATE_MAX = 66 };

MEM_DEFINE_CLEANUP(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
MEM_DEFINE_CLEANUP(OSSL_PARAM_BLD, OSSL_PARAM_BLD_free)
MEM_DEFINE_CLEANUP(OSSL_PARAM, OSSL_PARAM_free)
MEM_DEFINE_CLEANUP(BIGNUM, BN_free)
MEM_DEFINE_CLEANUP(json_t, json_decref)

struct key {
    char *kid;          /* owned */
    EVP_PKEY *pkey;     /* owned */
    bool any_alg;       /* the JWK names no algorithm */
    enum jwt_alg alg;   /* else this one only */
    enum jwt_kind kind; /* JWT_KIND_RSA or JWT_KIND_EC */
    const char *crv;    /* EC */
    char text[32];
};

struct jwt_keys {
    struct key *items; /* owned */
    size_t n;
};

struct jwt_keys *jwt_keys_free(struct jwt_keys *keys)
{
    if (keys == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < keys->n; i++) {
        free(keys->items[i].kid);
        EVP_PKEY_free(keys->items[i].pkey);
    }
    free(keys->items);
    free(keys);
    return NULL;
}

size_t jwt_keys_count(const struct jwt_keys *keys)
{
    return keys->n;
}

const char *jwt_keys_kid(const struct jwt_keys *keys, size_t i)
{
    return keys->items[i].kid;
}

const char *jwt_keys_kind(const struct jwt_keys *keys, size_t i)
{
    return keys->items[i].text;
}

/* --- choosing --------------------------------------------------------------------------------- */
static bool fits(const struct key *k, enum jwt_alg alg)
{
    const struct jwt_alg_info *info = jwt_alg_info(alg);

    if (!k->any_alg && k->alg != alg) {
        return false;
    }
    return info->kind == JWT_KIND_EC ? k->kind == JWT_KIND_EC && strcmp(k->crv, info->crv) == 0
                                     : k->kind == JWT_KIND_RSA;
}

EVP_PKEY *jwt_keys_next(const struct jwt_keys *keys, const char *kid, enum jwt_alg alg, size_t *at)
{
    while (*at < keys->n) {
        const struct key *k = &keys->items[(*at)++];

        if ((kid == NULL || strcmp(kid, k->kid) == 0) && fits(k, alg)) {
            return k->pkey;
        }
    }
    return NULL;
}

bool jwt_keys_has(const struct jwt_keys *keys, const char *kid)
{
    for (size_t i = 0; i < keys->n; i++) {
        if (strcmp(kid, keys->items[i].kid) == 0) {
            return true;
        }
    }
    return false;
}

/* --- one key ---------------------------------------------------------------------------------- */
static struct str member(const json_t *jwk, const char *name)
{
    const json_t *v = json_object_get(jwk, name);

    return json_is_string(v) ? (struct str){json_string_value(v), json_string_length(v)} : STR_NONE;
}

/* A member in base64url. */
static int bytes_of(const json_t *jwk, const char *name, uint8_t **ret, size_t *ret_len,
                    struct err *err)
{
    struct str text = member(jwk, name);

    if (text.n == 0 || !jwt_base64_decode(text, ret, ret_len)) {
        err_set(err, ERR_PROTOCOL, "'%s' is missing or not base64url", name);
        return err_expected(err, "base64url without padding");
    }
    return 0;
}

static EVP_PKEY *key_from(const char *type, OSSL_PARAM *params)
{
    mem_auto(EVP_PKEY_CTX_free) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;

    if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        return NULL;
    }
    return key;
}

/* Of EC keys only: what OpenSSL asks of an RSA modulus is asked at random, so that the same set
 * would be taken once and refused another time. */
static bool on_curve(EVP_PKEY *key)
{
    mem_auto(EVP_PKEY_CTX_free) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);

    return ctx != NULL && EVP_PKEY_public_check(ctx) == 1;
}

/* 1: a curve that no algorithm of ours has. */
static int take_ec(const json_t *jwk, struct key *k, struct err *err)
{
    const struct jwt_alg_info *info = NULL;
    mem_autofree uint8_t *x = NULL;
    mem_autofree uint8_t *y = NULL;
    uint8_t point[1 + 2 * COORDINATE_MAX];
    char group[16];
    size_t nx, ny;

    for (unsigned alg = 0; alg < JWT_N_ALGS; alg++) {
        if (jwt_alg_info(alg)->crv != NULL &&
            str_eq(member(jwk, "crv"), str_of(jwt_alg_info(alg)->crv))) {
            info = jwt_alg_info(alg);
        }
    }
    if (info == NULL) {
        return 1;
    }
    if (bytes_of(jwk, "x", &x, &nx, err) == -1 || bytes_of(jwk, "y", &y, &ny, err) == -1) {
        return -1;
    }
    if (nx != info->width || ny != info->width) {
        err_set(err, ERR_PROTOCOL, "a coordinate of %zu bytes", nx != info->width ? nx : ny);
        return err_expected(err, "%zu bytes, leading zeros kept", info->width);
    }
    point[0] = 0x04;
    memcpy(point + 1, x, nx);
    memcpy(point + 1 + nx, y, ny);
    (void)snprintf(group, sizeof(group), "%s", info->group);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + nx + ny),
        OSSL_PARAM_construct_end()};
    ERR_clear_error();
    k->pkey = key_from("EC", params);
    if (k->pkey == NULL || !on_curve(k->pkey)) {
        ERR_clear_error();
        return err_set(err, ERR_PROTOCOL, "not a point of %s", info->crv);
    }
    k->kind = JWT_KIND_EC;
    k->crv = info->crv;
    (void)snprintf(k->text, sizeof(k->text), "EC %s", info->crv);
    return 0;
}

static EVP_PKEY *rsa_from(const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len)
{
    mem_auto(OSSL_PARAM_BLD_free) OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    mem_auto(BN_free) BIGNUM *modulus = BN_bin2bn(n, (int)n_len, NULL);
    mem_auto(BN_free) BIGNUM *exponent = BN_bin2bn(e, (int)e_len, NULL);
    mem_auto(OSSL_PARAM_free) OSSL_PARAM *params = NULL;

    if (build == NULL || modulus == NULL || exponent == NULL || !BN_is_odd(exponent) ||
        BN_is_one(exponent) || !BN_is_odd(modulus) ||
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) != 1 ||
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent) != 1) {
        return NULL;
    }
    params = OSSL_PARAM_BLD_to_param(build);
    return params != NULL ? key_from("RSA", params) : NULL;
}

static int take_rsa(const json_t *jwk, struct key *k, struct err *err)
{
    mem_autofree uint8_t *n = NULL;
    mem_autofree uint8_t *e = NULL;
    size_t n_len = 0, e_len = 0;

    if (bytes_of(jwk, "n", &n, &n_len, err) == -1 || bytes_of(jwk, "e", &e, &e_len, err) == -1) {
        return -1;
    }
    if (n_len < RSA_BITS_MIN / 8 || n_len > RSA_BITS_MAX / 8 || n[0] == 0 || e_len == 0 ||
        e_len > RSA_E_BYTES_MAX || e[0] == 0) {
        err_set(err, ERR_PROTOCOL, "an RSA key of a size that is not taken");
        return err_expected(err, "%d to %d bits, a public exponent of at most %d bytes",
                            RSA_BITS_MIN, RSA_BITS_MAX, RSA_E_BYTES_MAX);
    }
    ERR_clear_error();
    k->pkey = rsa_from(n, n_len, e, e_len);
    if (k->pkey == NULL || EVP_PKEY_get_bits(k->pkey) < RSA_BITS_MIN) {
        ERR_clear_error();
        return err_set(err, ERR_PROTOCOL, "not an RSA key of at least %d bits", RSA_BITS_MIN);
    }
    k->kind = JWT_KIND_RSA;
    (void)snprintf(k->text, sizeof(k->text), "RSA %d", EVP_PKEY_get_bits(k->pkey));
    return 0;
}

/* Of which `use` keys are; of others than a bundle's, such without any count as well. */
enum use { USE_BUNDLE, USE_SVID, USE_ISSUER };

/* The use says whether the key is for tokens at all. */
static bool use_fits(const json_t *jwk, enum use wanted)
{
    const json_t *use = json_object_get(jwk, "use");

    return use == NULL ? wanted != USE_BUNDLE
                       : str_eq(member(jwk, "use"),
                                wanted == USE_ISSUER ? STR_LIT("sig") : STR_LIT("jwt-svid"));
}

static int take_names(const struct jwt_keys *set, const json_t *jwk, struct key *k, struct err *err)
{
    struct str kid = member(jwk, "kid");
    const json_t *alg = json_object_get(jwk, "alg");

    if (kid.n == 0 || kid.n > JWT_KID_MAX) {
        err_set(err, ERR_PROTOCOL, "'kid' is missing, no text or too long");
        return err_expected(err, "a name for each key");
    }
    if (jwt_keys_has(set, kid.p)) {
        return err_set(err, ERR_PROTOCOL, "two keys of one name");
    }
    k->any_alg = alg == NULL;
    if (alg != NULL && !jwt_alg_find(member(jwk, "alg"), &k->alg)) {
        return 1; /* for an algorithm that no token may have */
    }
    k->kid = mem_must_strndup(kid.p, kid.n);
    return 0;
}

/* 0: taken; 1: of no use to us. */
static int take_key(const struct jwt_keys *set, const json_t *jwk, enum use use, struct key *ret,
                    struct err *err)
{
    struct key k = {.kid = NULL};
    int r;
    bool ec = str_eq(member(jwk, "kty"), STR_LIT("EC"));

    if (!json_is_object(jwk)) {
        return err_set(err, ERR_PROTOCOL, "not an object");
    }
    if ((!ec && !str_eq(member(jwk, "kty"), STR_LIT("RSA"))) || !use_fits(jwk, use)) {
        return 1;
    }
    if (json_object_get(jwk, "d") != NULL) {
        err_set(err, ERR_PROTOCOL, "a private key");
        return err_advise(err, "whoever sees this set can sign tokens: replace that key");
    }
    r = take_names(set, jwk, &k, err);
    if (r == 0) {
        r = ec ? take_ec(jwk, &k, err) : take_rsa(jwk, &k, err);
    }
    if (r != 0) {
        free(k.kid);
        EVP_PKEY_free(k.pkey);
        return r;
    }
    *ret = k;
    return 0;
}

/* --- the set ---------------------------------------------------------------------------------- */
static int parse(struct str json, enum use use, struct jwt_keys **ret, struct err *err)
{
    mem_auto(json_decref) json_t *root = NULL;
    mem_auto(jwt_keys_free) struct jwt_keys *keys = NULL;
    const json_t *list;

    if (json.n > JWT_KEYS_BYTES) {
        return err_set(err, ERR_LIMIT, "a key set of %zu bytes", json.n);
    }
    root = jwt_json_parse(json, err);
    if (root == NULL) {
        return err_prefix(err, "the key set");
    }
    list = json_object_get(root, "keys");
    if (!json_is_array(list) || json_array_size(list) > 2 * (size_t)JWT_KEYS_MAX) {
        err_set(err, ERR_PROTOCOL, "the key set: no list 'keys', or too long a one");
        return err_expected(err, "{\"keys\":[...]}, with at most %d of them", JWT_KEYS_MAX);
    }
    keys = mem_must_new(struct jwt_keys);
    keys->items = mem_must_calloc(json_array_size(list) + 1, sizeof(*keys->items));
    for (size_t i = 0; i < json_array_size(list); i++) {
        int r = take_key(keys, json_array_get(list, i), use, &keys->items[keys->n], err);

        if (r == -1) {
            return err_prefix(err, "the key set: keys[%zu]", i);
        }
        if (r == 0 && ++keys->n > JWT_KEYS_MAX) {
            return err_set(err, ERR_LIMIT, "the key set: more than %d keys", JWT_KEYS_MAX);
        }
    }
    *ret = keys;
    keys = NULL;
    return 0;
}

int jwt_keys_parse(struct str json, bool strict_use, struct jwt_keys **ret, struct err *err)
{
    return parse(json, strict_use ? USE_BUNDLE : USE_SVID, ret, err);
}

int jwt_keys_parse_issuer(struct str json, struct jwt_keys **ret, struct err *err)
{
    return parse(json, USE_ISSUER, ret, err);
}
