/*
 * seal: how a keeper's state stands in its file: plain, or sealed under a key made from a
 * passphrase (docs/authority.md, "The key at rest").
 *
 *   8 bytes "PSTNCA01", u8 kind, u8 log2 N, u8 r, u8 p, 16 bytes salt, 12 bytes nonce,
 *   u32 length of the payload (big-endian), the payload, and
 *   sealed: 16 bytes AES-256-GCM tag, everything before the payload authenticated with it
 *   plain:  32 bytes SHA-256 of everything before, against torn files (and nobody's malice)
 *
 * Pure functions of their arguments, but for the randomness of salts and nonces. One thread.
 */
#ifndef KEEPER_SEAL_H
#define KEEPER_SEAL_H

#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KEEPER_SEAL_SALT = 16,
    KEEPER_SEAL_KEY = 32,
    KEEPER_SEAL_FILE_MAX = (1 << 19) + 128, /* KEEPER_PAYLOAD_MAX and what is around it */
    KEEPER_PASSPHRASE_MAX = 1024,
};

/* How to write: sealed if there is a key. */
struct keeper_seal {
    uint8_t *key; /* owned: mem_secret, KEEPER_SEAL_KEY bytes; NULL: plain */
    uint8_t salt[KEEPER_SEAL_SALT];
};
/* The key of a passphrase, which takes 4 MiB and some tenths of a second. salt NULL: a new one. */
int keeper_seal_derive(struct str passphrase, const uint8_t *salt, struct keeper_seal *ret,
                       struct err *err);
void keeper_seal_deinit(struct keeper_seal *seal);

/* The file's bytes for a payload; mem_secret, the caller's. */
int keeper_seal_close(const struct keeper_seal *seal, struct str payload, uint8_t **ret,
                      size_t *ret_len, struct err *err);

/* What can be said of a file without a key. */
struct keeper_seal_head {
    bool sealed;
    uint8_t salt[KEEPER_SEAL_SALT]; /* sealed only */
    size_t payload_len;
};
int keeper_seal_read_head(struct str file, struct keeper_seal_head *ret, struct err *err);
/* The payload, mem_secret and the caller's. seal: of the file's salt; NULL for a plain one. A wrong
 * key and a changed file cannot be told apart. */
int keeper_seal_open(const struct keeper_seal *seal, struct str file, uint8_t **ret,
                     size_t *ret_len, struct err *err);

#endif
