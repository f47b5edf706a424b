/*
 * token_key: a private key in a PKCS#11 token, for handshakes. The module is somebody else's code:
 * it runs in a helper process (postern-token) that holds nothing else, and is never loaded here.
 *
 * Started before this process gives up starting programs. The helper reads the PIN, logs in, and
 * starts itself anew where the module fails or hangs. A signature is one question and one answer
 * over a channel, with a deadline; while one waits, other threads wait behind it. After a deadline
 * has passed everybody is refused at once for a while, so that a token that hangs costs a worker
 * little of its time.
 *
 * Thread: start, get and unref the main thread; signing any.
 */
#ifndef POSTERN_TOKEN_KEY_H
#define POSTERN_TOKEN_KEY_H

#include <postern/away_key.h>
#include <postern/err.h>
#include <stddef.h>

enum {
    TOKEN_SIGN_MS = 1000,  /* for a handshake */
    TOKEN_PAUSE_MS = 5000, /* after that was not enough */
    TOKEN_LOAD_MS = 15000, /* for the first signature, before a credential is taken */
};

struct token_key_spec {
    const char *module, *label, *key, *pin_file;
    const char *const *paths; /* files of the token: read and written; NULL-terminated */
    const char *const *env;   /* NAME=VALUE for the module; NULL-terminated */
};

struct token_key;
struct token_key *token_key_start(const struct token_key_spec *spec, struct err *err);
/* Keys of it go on working until they are freed; the helper ends with the last of them. */
struct token_key *token_key_unref(struct token_key *t);
/* The private half of that public key, proved by a signature. EVP_PKEY_free. */
EVP_PKEY *token_key_get(struct token_key *t, struct away_keys *keys, EVP_PKEY *public_key,
                        struct err *err);

#endif
