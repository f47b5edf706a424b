/*
 * rotation: how authorities take over from one another (docs/authority.md, "States"). Pure
 * functions over a store: they say what is due, and make a change in a copy that is then written.
 * The same for every kind of authority. Times are handed in. One thread.
 */
#ifndef KEEPER_ROTATION_H
#define KEEPER_ROTATION_H

#include "store.h"

enum keeper_step {
    KEEPER_STEP_NONE,
    KEEPER_STEP_PREPARE,
    KEEPER_STEP_ACTIVATE,
    KEEPER_STEP_RETIRE, /* the record that comes with it */
};

/* What is due now, and which record it is about (ACTIVATE: the prepared one). steady: the wall
 * clock has run evenly for a while; without that nothing is due but a key for tokens where the last
 * has ended. */
enum keeper_step keeper_rotation_due(const struct keeper_store *store, enum keeper_kind kind,
                                     int64_t now_s, bool steady, const struct keeper_record **ret);
/* When something is due next (it may be past), and what; INT64_MAX: nothing, ever. */
int64_t keeper_rotation_next_s(const struct keeper_store *store, enum keeper_kind kind,
                               enum keeper_step *ret);

/* Whether a new one may be prepared. */
int keeper_rotation_may_prepare(const struct keeper_store *store, enum keeper_kind kind,
                                struct err *err);
/* The prepared one becomes active, the active one old; what that one signed ends by then. */
int keeper_rotation_activate(struct keeper_store *store, enum keeper_kind kind, int64_t now_s,
                             int64_t signed_until_s, struct err *err);
/* id empty: the one that was active last. */
int keeper_rotation_taint(struct keeper_store *store, enum keeper_kind kind, struct str id,
                          int64_t now_s, struct err *err);

/* What is known of the use of an authority. */
struct keeper_use {
    size_t n_callers; /* live ones whose newest SVID is under it */
    int64_t until_s;  /* the last SVID under it of callers that are gone, or of before our start */
    bool inherited;   /* it signed before our start: until_s does not know all of that yet */
};
/* Which record a command means: of that id, or, without one, the only old or tainted one. NULL with
 * the reason. */
const struct keeper_record *keeper_rotation_pick(const struct keeper_store *store,
                                                 enum keeper_kind kind, struct str id,
                                                 struct err *err);
int keeper_rotation_retire(struct keeper_store *store, const struct keeper_record *record,
                           const struct keeper_use *use, int64_t now_s, bool force,
                           struct err *err);

#endif
