/*
 * jwt_bundles: the key sets that verify JWT-SVIDs, as an agent tells them: FetchJWTBundles
 * (SPIFFE_Workload_API.md, 6.2.2), a stream on a connection of its own, for as long as the process
 * lives.
 *
 * Each message is the whole: what it does not hold is withdrawn. While the agent is away the last
 * one stays; PermissionDenied withdraws all. Retries go on with exponential backoff, 100 ms to 10 s
 * with jitter.
 *
 * Thread: the client lives on one loop; reading is pure.
 */
#ifndef POSTERN_JWT_BUNDLES_H
#define POSTERN_JWT_BUNDLES_H

#include <postern/err.h>
#include <postern/loop.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>

/* --- what an agent says ----------------------------------------------------------------------- */
struct jwt_key_set {
    struct str trust_domain;
    struct str json; /* sound, and of `use` jwt-svid or of none */
};
struct jwt_key_sets {
    struct jwt_key_set *items; /* owned, texts too; each trust domain once */
    size_t n;
};
/* A JWTBundlesResponse. A key set that cannot be read, or stands under a name that is no trust
 * domain's, is left out and told in *ret_warning (ERR_NONE: there is none). */
int jwt_key_sets_read(struct str message, struct jwt_key_sets *ret, struct err *ret_warning,
                      struct err *err);
/* Order does not count. */
bool jwt_key_sets_equal(const struct jwt_key_sets *a, const struct jwt_key_sets *b);
void jwt_key_sets_reset(struct jwt_key_sets *sets);

/* --- the client ------------------------------------------------------------------------------- */
struct jwt_bundles_events {
    /* What it says first, and others than before; lent. Empty: there are none, or not any more. */
    void (*on_sets)(void *arg, const struct jwt_key_sets *sets);
    /* The first failure of a row, or a warning; NULL: all is well again. */
    void (*on_trouble)(void *arg, const struct err *why);
};
struct jwt_bundles_options {
    const char *socket; /* as identity_socket_path takes it */
    bool check_agent;   /* connect by identity_agent_connect only */
};
struct jwt_bundles;
/* Begins at once; callbacks come from the loop, never from within this. options are copied, events
 * is borrowed. */
struct jwt_bundles *jwt_bundles_new(struct loop *loop, const struct jwt_bundles_options *options,
                                    const struct jwt_bundles_events *events, void *arg,
                                    struct err *err);
/* Takes NULL. Not from within a callback of the client's own. */
struct jwt_bundles *jwt_bundles_free(struct jwt_bundles *b);
/* What it said last; lent. Empty: nothing yet, or it was withdrawn. */
const struct jwt_key_sets *jwt_bundles_get(const struct jwt_bundles *b);
/* Whether it has said anything yet: a message that could be read, or that there are none, for us
 * (PermissionDenied) or at all (Unimplemented). Stays true. */
bool jwt_bundles_answered(const struct jwt_bundles *b);
/* Asks again now: for SIGHUP. */
void jwt_bundles_renew(struct jwt_bundles *b);

#endif
