/*
 * tokens: JWTs of any shape, sound or not, made with OpenSSL alone: tests of identity/jwt don't use
 * its own signer to judge its verifier. Thread: one.
 */
#ifndef POSTERN_TEST_TOKENS_H
#define POSTERN_TEST_TOKENS_H

#include <openssl/evp.h>
#include <postern/buf.h>
#include <postern/jwt.h>

/* Of any algorithm; panics if there is none. */
EVP_PKEY *tokens_key(enum jwt_alg alg);
/* base64url without padding; the caller's to free. */
char *tokens_base64(const void *p, size_t n);
/* Header and claims as they are given, signed with the key as `alg` has it; the caller's to free.
 */
char *tokens_sign(const char *header, const char *claims, enum jwt_alg alg, EVP_PKEY *key);
/* {"keys":[...]} of n keys, named k0, k1, ...; with a use if not NULL. The caller's to free. */
char *tokens_set(EVP_PKEY *const *keys, size_t n, const char *use);

#endif
