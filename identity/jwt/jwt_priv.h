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

/* --- jwt_keys.c --- */
/* Fitting keys of a set, in order: those with this name (NULL: any) that can be of this algorithm.
 */
EVP_PKEY *jwt_keys_next(const struct jwt_keys *keys, const char *kid, enum jwt_alg alg, size_t *at);
bool jwt_keys_has(const struct jwt_keys *keys, const char *kid);

#endif
