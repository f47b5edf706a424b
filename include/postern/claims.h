/*
 * claims: tokens that requests bring, and what they say, for rules to ask. docs/claims.md.
 *
 * Keys are read by the main thread, whole, and then immutable: snapshots hold them and workers
 * share them. A set of keys that has changed makes a new whole, which shares the others. What was
 * verified is remembered by each worker for itself: a claims_cache is that worker's. Nothing here
 * logs or prints a token, nor any part of one.
 *
 * Failures of set-up fill a struct err. Why a token is refused is told as one too: for the log, not
 * for whoever sent it.
 */
#ifndef POSTERN_CLAIMS_H
#define POSTERN_CLAIMS_H

#include <postern/conf_jwt.h>
#include <postern/err.h>
#include <postern/file_mark.h>
#include <postern/jwt_bundles.h>
#include <postern/mem.h>
#include <postern/policy.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    CLAIMS_VALUES_MAX = 256,      /* of one token, as rules see them */
    CLAIMS_BYTES_MAX = 16 * 1024, /* of their names and values */
    CLAIMS_DEPTH_MAX = 8,         /* names on the way to a value */
    CLAIMS_REMEMBERED_MAX = 4096, /* tokens, of one worker */
};

/* --- keys ------------------------------------------------------------------------------------- */
struct claims_keys;
/* Reads the files; of entries that go by the agent nothing is known yet. *ret is NULL where the
 * list is empty: no token is looked for. Keeps nothing of conf. */
int claims_keys_load(const struct conf_jwts *conf, struct claims_keys **ret, struct err *err);
struct claims_keys *claims_keys_ref(struct claims_keys *keys);
struct claims_keys *claims_keys_unref(struct claims_keys *keys);
/* Whether they judge alike; either may be NULL. */
bool claims_keys_equal(const struct claims_keys *a, const struct claims_keys *b);

size_t claims_keys_count(const struct claims_keys *keys);
/* One entry; lent. */
struct claims_entry {
    const char *issuer, *trust_domain; /* one of them */
    const char *file;                  /* NULL: the agent */
    bool known;                        /* false: nothing was told yet, or it was withdrawn */
    size_t n_keys;
    struct file_mark mark; /* of the file, from before it was read */
};
void claims_keys_entry(const struct claims_keys *keys, size_t i, struct claims_entry *ret);
/* With the i-th file as it is now; the entry has one. */
int claims_keys_read_again(const struct claims_keys *keys, size_t i, struct claims_keys **ret,
                           struct err *err);
/* With what the agent tells; what it does not tell of is not known from then on. */
struct claims_keys *claims_keys_told(const struct claims_keys *keys,
                                     const struct jwt_key_sets *sets);

/* --- what a token says ------------------------------------------------------------------------ */
/* Counted plainly: of one thread. */
struct claims;
struct claims *claims_ref(struct claims *c);
struct claims *claims_unref(struct claims *c);
/* For policy_query.claims; lent. */
const struct policy_claims *claims_list(const struct claims *c);
/* The header that the workload is not to get, in lower case; lent. NULL: it gets them all. */
const char *claims_withheld(const struct claims *c);
/* From then on it counts no more, leeway included. */
int64_t claims_end_s(const struct claims *c);

/* --- asking ----------------------------------------------------------------------------------- */
struct claims_cache;
struct claims_cache *claims_cache_new(void);
struct claims_cache *claims_cache_free(struct claims_cache *cache);
size_t claims_cache_count(const struct claims_cache *cache);

/* Looks for a token in headers that are as policy_query wants them. 0: *ret is a reference for the
 * caller, or NULL: there is none. -1: there is one that does not hold, or more than one; err (may
 * be NULL) says why. keys NULL: no token is looked for. */
int claims_look(struct claims_cache *cache, const struct claims_keys *keys,
                const struct policy_headers *headers, int64_t now_s, struct claims **ret,
                struct err *err);

MEM_DEFINE_CLEANUP(struct claims_keys, claims_keys_unref)
MEM_DEFINE_CLEANUP(struct claims, claims_unref)

#endif
