/*
 * jwt: JWT-SVIDs (JWT-SVID.md) and the JWK sets that go with them (RFC 7515, 7517, 7518, 7638).
 * Pure functions over bytes and OpenSSL objects; no I/O, no clock (times are handed in), any
 * thread.
 *
 * Two libraries. Making keys, sets and tokens needs libcrypto alone: the keeper links that. Reading
 * them needs a JSON parser: the service and people's commands link that too.
 *
 * A token is a bearer token: whoever holds it is believed. Nothing here logs or prints one.
 */
#ifndef POSTERN_JWT_H
#define POSTERN_JWT_H

#include <openssl/evp.h>
#include <postern/buf.h>
#include <postern/err.h>
#include <postern/mem.h>
#include <postern/spiffe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    JWT_TOKEN_MAX = 16384,     /* bytes of a token; longer ones are refused, none is made */
    JWT_KID_SIZE = 44,         /* of the names that we give keys, with the terminator */
    JWT_KID_MAX = 256,         /* of names that others give them */
    JWT_JTI_SIZE = 16,         /* random bytes */
    JWT_AUDIENCE_MAX = 1024,   /* bytes of one audience of ours */
    JWT_AUDIENCES_MAX = 16,    /* of a token of ours */
    JWT_AUDIENCE_BYTES = 4096, /* of all of them */
    JWT_KEYS_MAX = 64,         /* of a set */
    JWT_KEYS_BYTES = 262144,   /* of a set's text */
    JWT_DEPTH_MAX = 16,        /* of JSON, of a token or a set */
    JWT_LEEWAY_S = 10,         /* for clocks that differ: a token counts that much longer */
};

/* All that JWT-SVID.md allows (section 2.1). */
enum jwt_alg {
    JWT_RS256,
    JWT_RS384,
    JWT_RS512,
    JWT_ES256,
    JWT_ES384,
    JWT_ES512,
    JWT_PS256,
    JWT_PS384,
    JWT_PS512,
    JWT_N_ALGS,
};
const char *jwt_alg_name(enum jwt_alg alg);

/* --- making them: library jwt_sign ------------------------------------------------------------ */
/* A new key for tokens of this algorithm: ES256, ES384 or RS256 (2048 bits). */
EVP_PKEY *jwt_key_new(enum jwt_alg alg, struct err *err);
/* What such a key signs with; false: it is of a kind that signs no token of ours. */
bool jwt_key_alg(EVP_PKEY *key, enum jwt_alg *ret);
/* The key's name: its thumbprint (RFC 7638, SHA-256), so that it is the same wherever it is asked.
 */
int jwt_key_id(EVP_PKEY *key, char ret_kid[JWT_KID_SIZE], struct err *err);
/* Appends the public key as a JWK. use: "jwt-svid" in it, as in a bundle document; the Workload
 * API's sets go without. */
int jwt_key_write(EVP_PKEY *key, bool use, struct buf *out, struct err *err);
/* Appends an authority as a bundle document has it: use "x509-svid", the certificate in x5c, and no
 * kid. Of keys of the same kinds. */
int jwt_authority_write(EVP_PKEY *key, struct str der, struct buf *out, struct err *err);

/* All that a token of ours says. */
struct jwt_statement {
    struct str spiffe_id;        /* with a path */
    const struct str *audiences; /* 1 to JWT_AUDIENCES_MAX */
    size_t n_audiences;
    int64_t issued_s, expires_s;
    uint8_t jti[JWT_JTI_SIZE];
};
/* UTF-8, at least one byte and at most JWT_AUDIENCE_MAX, no control characters. */
bool jwt_audience_ok(struct str audience);
/* A signed token, compact; *ret is the caller's to free. The whole of header and claims is built
 * here, from checked fields. */
int jwt_sign(const struct jwt_statement *what, EVP_PKEY *key, char **ret, struct err *err);

/* --- reading them: library jwt ---------------------------------------------------------------- */
/* Before the first of these, in a process that may open no files: the parser's hash tables are
 * seeded. Calling it again does nothing. */
void jwt_init(void);

/* A JWK set: immutable. */
struct jwt_keys;
/* Keys of `use` "jwt-svid", or, unless strict_use, without any; other uses, kinds and curves are
 * skipped (SPIFFE_Trust_Domain_and_Bundle.md 4.2). An empty set is sound and verifies nothing. */
int jwt_keys_parse(struct str json, bool strict_use, struct jwt_keys **ret, struct err *err);
/* Keys of an ordinary issuer: of `use` "sig", or without any. */
int jwt_keys_parse_issuer(struct str json, struct jwt_keys **ret, struct err *err);
struct jwt_keys *jwt_keys_free(struct jwt_keys *keys);
size_t jwt_keys_count(const struct jwt_keys *keys);
/* Of the i-th: its name, lent, and its kind for people ("EC P-256", "RSA 2048"). */
const char *jwt_keys_kid(const struct jwt_keys *keys, size_t i);
const char *jwt_keys_kind(const struct jwt_keys *keys, size_t i);

/* Of which trust domain a set is: the document does not say. Lent. */
struct jwt_bundle {
    struct str trust_domain;
    const struct jwt_keys *keys;
};

struct json_t;
struct jwt_token {
    enum jwt_alg alg;
    char *kid;        /* owned; NULL: none named */
    char *spiffe_id;  /* owned; NULL: of an ordinary issuer */
    char **audiences; /* owned */
    size_t n_audiences;
    int64_t expires_s;
    int64_t not_before_s, issued_s; /* INT64_MIN: not said */
    struct json_t *claims;          /* owned: all of them */
};
struct jwt_token *jwt_token_free(struct jwt_token *token);

/* The whole of JWT-SVID.md sections 4 and 5: form and header, algorithm, the keys of the subject's
 * own trust domain, signature, and only then the claims: expiry, not before, audience. */
int jwt_verify(struct str token, const struct jwt_bundle *bundles, size_t n_bundles,
               struct str audience, int64_t now_s, struct jwt_token **ret, struct err *err);
/* Whose tokens count: an ordinary issuer's, or JWT-SVIDs of a trust domain (the other is empty). */
struct jwt_issuer {
    struct str issuer, trust_domain;
    const struct jwt_keys *keys;  /* NULL: not known, of a trust domain; its tokens do not hold */
    const char *const *audiences; /* one of them has to be the token's */
    size_t n_audiences;
};
/* Of one of the issuers, by its `iss`, or else by the trust domain of its subject: docs/claims.md;
 * *ret_issuer is which, of one that holds. Else as jwt_verify. */
int jwt_verify_issued(struct str token, const struct jwt_issuer *issuers, size_t n, int64_t now_s,
                      struct jwt_token **ret, size_t *ret_issuer, struct err *err);
/* What it says, for people; nothing is checked but the form: NOT to be believed. */
int jwt_read(struct str token, struct jwt_token **ret, struct err *err);
/* The claims as JSON text (the caller's to free), and as google.protobuf.Struct with `aud` always a
 * list and numbers as doubles. */
char *jwt_claims_text(const struct jwt_token *token);
int jwt_claims_pack(const struct jwt_token *token, uint8_t **ret, size_t *ret_len, struct err *err);

MEM_DEFINE_CLEANUP(struct jwt_keys, jwt_keys_free)
MEM_DEFINE_CLEANUP(struct jwt_token, jwt_token_free)

#endif
