/*
 * store: what of an agent's authorities outlives the keeper, and how it stands in its file.
 *
 * A store is a list of records, one an authority: an X.509 root or a JWT signing key, with its
 * state, its times and its key. docs/authority.md says what the states mean. The file is written
 * whole (see authority_save in keeper_priv.h): a change is made on a copy, the copy is written, and
 * only when the supervisor has put it in place it is in force.
 *
 * A key is PKCS#8 DER in mem_secret memory; it is empty where the key lives in a token and the
 * record's id names it there. Everything here is a pure function of its arguments: no clock, no
 * I/O. One thread.
 */
#ifndef KEEPER_STORE_H
#define KEEPER_STORE_H

#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of both enums stand in files: never change one. */
enum keeper_kind { KEEPER_X509 = 1, KEEPER_JWT = 2 };

enum keeper_state {
    KEEPER_PREPARED = 1, /* in the bundle, signs nothing yet */
    KEEPER_ACTIVE = 2,   /* signs */
    KEEPER_OLD = 3,      /* in the bundle: what it signed is still out there */
    KEEPER_TAINTED = 4, /* as old; what it signed is replaced at once, and it is never used again */
};
const char *keeper_kind_name(enum keeper_kind kind);    /* "x509", "jwt" */
const char *keeper_state_name(enum keeper_state state); /* "prepared", ... */

enum {
    KEEPER_RECORDS_MAX = 16, /* of one kind */
    KEEPER_RECORD_ID_MAX = 64,
    KEEPER_KEY_MAX = 4096,  /* PKCS#8 of RSA 4096 is 2.4 kB */
    KEEPER_CERT_MAX = 8192, /* DER */
    KEEPER_PAYLOAD_MAX = 1 << 19,
};

struct keeper_record {
    enum keeper_kind kind;
    enum keeper_state state;
    char id[KEEPER_RECORD_ID_MAX + 1]; /* of [A-Za-z0-9_-]; one of its kind. JWT: the kid */
    int64_t created_s;
    int64_t changed_s;      /* when it got into its state */
    int64_t not_after_s;    /* its own end */
    int64_t signed_until_s; /* nothing that it signed is valid after; 0: it never signed */
    uint8_t *key;           /* owned: mem_secret, PKCS#8 DER; NULL: in a token */
    size_t key_len;
    uint8_t *cert; /* owned: DER of the root; NULL for JWT */
    size_t cert_len;
};

struct keeper_store {
    char *trust_domain;            /* owned; the bare name */
    uint64_t sequence;             /* grows with every state that was written */
    struct keeper_record *records; /* owned, in the order in which they were made */
    size_t n;
};

void keeper_store_init(struct keeper_store *store, struct str trust_domain);
/* Wipes and frees; a zeroed store too. It is zeroed afterwards. */
void keeper_store_deinit(struct keeper_store *store);
/* A copy with keys of its own. -1 only if there is no memory for secrets. */
int keeper_store_copy(const struct keeper_store *store, struct keeper_store *ret, struct err *err);

/* A new record at the end, zeroed but for these; NULL: too many of its kind. Lent, until the next
 * add or remove. Fill in id and times, and give it a key with keeper_record_set_key. */
struct keeper_record *keeper_store_add(struct keeper_store *store, enum keeper_kind kind,
                                       enum keeper_state state);
void keeper_store_remove(struct keeper_store *store, const struct keeper_record *record);
/* The first of that kind and state, or NULL. Lent. */
struct keeper_record *keeper_store_find(const struct keeper_store *store, enum keeper_kind kind,
                                        enum keeper_state state);
struct keeper_record *keeper_store_find_id(const struct keeper_store *store, enum keeper_kind kind,
                                           struct str id);
/* Both copy. False: empty, too long, or no memory for secrets. */
bool keeper_record_set_key(struct keeper_record *record, const void *der, size_t len);
bool keeper_record_set_cert(struct keeper_record *record, const void *der, size_t len);

/* --- as bytes ---------------------------------------------------------------------------------
 */
/* The payload of a state file, in mem_secret memory (the caller's). */
int keeper_store_encode(const struct keeper_store *store, uint8_t **ret, size_t *ret_len,
                        struct err *err);
/* *ret is initialized here. Refuses what no agent writes: two active ones of a kind, an id twice,
 * unknown kinds and states, bytes left over. Keys and certificates are not looked into. */
int keeper_store_decode(struct str payload, struct keeper_store *ret, struct err *err);

#endif
