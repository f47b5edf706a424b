/* What the files of postern-key-holder share. */
#ifndef POSTERN_HOLDER_PRIV_H
#define POSTERN_HOLDER_PRIV_H

#include "holder_wire.h"

#include <postern/err.h>
#include <postern/log.h>

/* --- question.c: pure --- */
/* Whether the bytes are a sound question. */
bool holder_question_ok(const void *data, size_t len, bool has_fd, struct holder_question *ret);

/* --- keys.c --- */
struct holder_key {
    uint32_t number; /* 0: the place is free */
    EVP_PKEY *key;   /* owned */
};
struct holder_keys {
    uint32_t last;
    struct holder_key keys[HOLDER_KEYS_MAX];
};
void holder_keys_deinit(struct holder_keys *k);
/* A new key, and its request; the oldest goes if there is no place. */
int holder_keys_make(struct holder_keys *k, struct holder_made *ret, struct err *err);
/* NULL: there is none of that number. Lent. */
EVP_PKEY *holder_keys_find(const struct holder_keys *k, uint32_t number);
void holder_keys_drop(struct holder_keys *k, uint32_t number);
unsigned holder_keys_count(const struct holder_keys *k);
/* The signature over the content that is built of it. */
int holder_sign(EVP_PKEY *key, const struct away_handshake *what, uint8_t ret[HOLDER_SIGNATURE_MAX],
                uint32_t *ret_len, struct err *err);

/* --- serve.c: the process that holds keys --- */
struct holder {
    uint32_t number;              /* which holder this is */
    uint32_t roles;               /* enum holder_role */
    int fds[HOLDER_CHANNELS_MAX]; /* -1: ended */
    size_t n_fds;
    struct holder_keys keys;
    struct sandbox_landlock landlock;
    bool all_locked, keys_locked; /* out of swap: all memory; that of keys */
    uint64_t signatures, refused;
    struct log *log;         /* lent; NULL: none */
    uint64_t quiet_until_ms; /* of lines about refusals */
    uint64_t refused_unsaid;
};
/* Answers until every asker is gone. */
void holder_serve(struct holder *h);

/* --- privs.c --- */
int holder_confine_watcher(struct err *err);
/* Of the one with the keys; says what took effect. */
int holder_confine(struct holder *h, struct err *err);

#endif
