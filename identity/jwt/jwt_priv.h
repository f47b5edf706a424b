/* What the files of jwt share. */
#ifndef POSTERN_JWT_PRIV_H
#define POSTERN_JWT_PRIV_H

#include <postern/jwt.h>

/* err_set with ERR_CRYPTO and OpenSSL's own reason; empties its queue. */
int jwt_err_crypto(struct err *err, const char *what);

/* --- jwt_alg.c --- */
enum jwt_kind { JWT_KIND_RSA, JWT_KIND_RSA_PSS, JWT_KIND_EC };
struct jwt_alg_info {
    const char *name;
    enum jwt_kind kind;
    const char *digest;
    const char *crv;   /* EC: as a JWK has it */
    const char *group; /* EC: as OpenSSL has it */
    size_t width;      /* EC: bytes of a coordinate, and of r and s */
};
const struct jwt_alg_info *jwt_alg_info(enum jwt_alg alg);
bool jwt_alg_find(struct str name, enum jwt_alg *ret);
/* The curve's name as OpenSSL has it; false: no elliptic curve. */
bool jwt_group_of(EVP_PKEY *key, char *ret, size_t size);

/* --- jwt_base64.c: base64url without padding, RFC 4648 section 5 --- */
bool jwt_base64_append(struct buf *out, const void *p, size_t n);
/* Strict: nothing but the alphabet, and the unused bits of the last character are zero, so that
 * there is one text for each run of bytes. *ret is the caller's to free (n + 1 bytes, terminated).
 */
bool jwt_base64_decode(struct str text, uint8_t **ret, size_t *ret_len);

/* --- jwt_json.c --- */
/* One JSON object, nothing after it; no key twice, no NUL, depth bounded. */
struct json_t *jwt_json_parse(struct str text, struct err *err);

/* --- jwt_verify.c: the steps of judging, each of which is the last where it says -1 --- */
struct jwt_parts {
    struct str header, claims, signature; /* views */
    struct str signed_text;               /* "header.claims" */
};
int jwt_split(struct str token, struct jwt_parts *ret, struct err *err);
int jwt_decode_object(struct str part, const char *name, struct json_t **ret, struct err *err);
int jwt_check_signature(const struct jwt_token *t, const struct jwt_parts *p,
                        const struct jwt_keys *keys, struct err *err);
/* Only after that: audiences and times out of t->claims. */
int jwt_take_claims(struct jwt_token *t, struct err *err);
int jwt_check_times(const struct jwt_token *t, int64_t now_s, struct err *err);
int jwt_check_audience(const struct jwt_token *t, const char *const *wanted, size_t n,
                       struct err *err);
/* jwt_verify but for the audience. */
int jwt_verify_svid(struct str token, const struct jwt_bundle *bundles, size_t n_bundles,
                    int64_t now_s, struct jwt_token **ret, struct err *err);

/* --- jwt_keys.c --- */
/* Fitting keys of a set, in order: those with this name (NULL: any) that can be of this algorithm.
 */
EVP_PKEY *jwt_keys_next(const struct jwt_keys *keys, const char *kid, enum jwt_alg alg, size_t *at);
bool jwt_keys_has(const struct jwt_keys *keys, const char *kid);

#endif
