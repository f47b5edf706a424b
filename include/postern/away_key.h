/*
 * away_key: private keys that are somewhere else, as EVP_PKEYs: in a token, in another process.
 * OpenSSL signs handshakes with them as with any key; what happens is a call of ours.
 *
 * A small provider in a library context of its own makes them, so that nothing else of the process
 * ever finds it. EC P-256 and P-384 (ECDSA) and RSA (PKCS#1 v1.5 and PSS); signing only.
 *
 * Signing is a synchronous call on the thread that shakes hands, with whatever wait the callback
 * has: the one exception to "a worker never blocks". The callback has to have a deadline.
 *
 * Thread: any; a key may be used by several at once, and so may its callback.
 */
#ifndef POSTERN_AWAY_KEY_H
#define POSTERN_AWAY_KEY_H

#include <openssl/evp.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum away_scheme {
    AWAY_ECDSA,     /* the signature is r and s, each as long as the curve's order */
    AWAY_RSA_PKCS1, /* over the hash with its DigestInfo */
    AWAY_RSA_PSS,   /* MGF1 with the same hash */
};
enum away_hash { AWAY_SHA256, AWAY_SHA384, AWAY_SHA512 };
enum { AWAY_HASH_MAX = 64, AWAY_SIGNATURE_MAX = 1024 };

/* What is to be signed. */
struct away_ask {
    enum away_scheme scheme;
    enum away_hash hash;
    size_t digest_len;
    uint8_t digest[AWAY_HASH_MAX];
    size_t salt_len; /* PSS only */
};

/* What a CertificateVerify of TLS 1.3 says (RFC 8446, 4.4.3). */
enum away_role { AWAY_SERVER, AWAY_CLIENT };
enum {
    AWAY_TRANSCRIPT_MAX = 48,                              /* 32 or 48: of the suite's hash */
    AWAY_HANDSHAKE_MAX = 64 + 33 + 1 + AWAY_TRANSCRIPT_MAX /* bytes of content */
};
struct away_handshake {
    enum away_role role; /* whose signature it is */
    size_t transcript_len;
    uint8_t transcript[AWAY_TRANSCRIPT_MAX];
};
/* The bytes that are signed; how many. `what` is sound. */
size_t away_handshake_write(const struct away_handshake *what, uint8_t ret[AWAY_HANDSHAKE_MAX]);
/* The reverse. False: they are anything else. A pure function. */
bool away_handshake_parse(const uint8_t *bytes, size_t len, struct away_handshake *ret);

struct away_signer {
    /* 0 and the signature; -1: no, or not in time: the handshake fails. */
    int (*sign)(void *arg, const struct away_ask *ask, uint8_t ret[AWAY_SIGNATURE_MAX],
                size_t *ret_len);
    /* In its place, for a key that signs handshakes of TLS 1.3 and nothing else: EC alone, with
     * the curve's own hash. The signature is DER, as in TLS. NULL: `sign` is asked. */
    int (*sign_handshake)(void *arg, const struct away_handshake *what,
                          uint8_t ret[AWAY_SIGNATURE_MAX], size_t *ret_len);
    /* With the last use of the key; NULL: nothing to do. */
    void (*release)(void *arg);
    void *arg;
};

/* What makes them; outlives every key. */
struct away_keys;
struct away_keys *away_keys_new(struct err *err);
struct away_keys *away_keys_free(struct away_keys *k);
/* The key whose public half this is; EVP_PKEY_free. On failure nothing is released. */
EVP_PKEY *away_key_new(struct away_keys *k, EVP_PKEY *public_key, const struct away_signer *signer,
                       struct err *err);

#endif
