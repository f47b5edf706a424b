/* Question and answer between a process that shakes hands and postern-token. Fixed size, one at a
 * time; an answer that nobody waits for any more is dropped by its id. */
#ifndef POSTERN_SIGNER_TOKEN_WIRE_H
#define POSTERN_SIGNER_TOKEN_WIRE_H

#include <postern/away_key.h>

enum { TOKEN_WIRE_VERSION = 1, TOKEN_FD_ASKER = 3, TOKEN_PUBLIC_MAX = 1024 };
/* Its exit statuses. */
enum { TOKEN_EXIT_FAILED = 1, TOKEN_EXIT_PIN = 3 };

struct token_question {
    uint32_t version, scheme, hash, digest_len, salt_len, public_len;
    uint64_t id, until_ms; /* of os_now_ms: later nobody waits for it */
    uint8_t digest[AWAY_HASH_MAX];
    uint8_t public_key[TOKEN_PUBLIC_MAX]; /* the uncompressed point, or the modulus */
};
struct token_answer {
    uint32_t version, len;
    uint64_t id;
    struct err error; /* code NONE: signed */
    uint8_t signature[AWAY_SIGNATURE_MAX];
};

#endif
