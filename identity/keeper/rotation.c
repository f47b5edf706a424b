#include "rotation.h"

#include <postern/os.h>

enum {
    HOUR_S = 3600,
    DAY_S = 24 * HOUR_S,
    PREPARE_MAX_S = 30 * DAY_S,
    ACTIVATE_MAX_S = 7 * DAY_S,
    LEARN_MAX_S = HOUR_S, /* for peers to learn what was prepared, before it signs */
    GRACE_MAX_S = HOUR_S, /* after the last of what it signed */
};

static int64_t part(const struct keeper_record *r, int64_t n, int64_t max_s)
{
    int64_t life_s = r->not_after_s > r->created_s ? r->not_after_s - r->created_s : 0;

    return life_s / n < max_s ? life_s / n : max_s;
}

static int64_t prepare_at_s(const struct keeper_record *active)
{
    return active->not_after_s - part(active, 2, PREPARE_MAX_S);
}

/* Late in the active one's life, but not before peers had time to learn the next; at its end in any
 * case. */
static int64_t activate_at_s(const struct keeper_record *active,
                             const struct keeper_record *prepared)
{
    int64_t at_s = active->not_after_s - part(active, 6, ACTIVATE_MAX_S);
    int64_t learnt_s = prepared->changed_s + part(active, 12, LEARN_MAX_S);

    at_s = at_s > learnt_s ? at_s : learnt_s;
    return at_s < active->not_after_s ? at_s : active->not_after_s;
}

static int64_t retire_at_s(const struct keeper_record *r)
{
    int64_t end_s = r->signed_until_s != 0 ? r->signed_until_s : r->changed_s;

    return end_s + part(r, 6, GRACE_MAX_S);
}

static bool retires(const struct keeper_record *r, enum keeper_kind kind)
{
    return r->kind == kind && (r->state == KEEPER_OLD || r->state == KEEPER_TAINTED);
}

/* --- the schedule ----------------------------------------------------------------------------- */
/* The step on the active and prepared ones, and when. */
static enum keeper_step next_exchange(const struct keeper_store *store, enum keeper_kind kind,
                                      int64_t *ret_at_s, const struct keeper_record **ret)
{
    const struct keeper_record *active = keeper_store_find(store, kind, KEEPER_ACTIVE);
    const struct keeper_record *prepared = keeper_store_find(store, kind, KEEPER_PREPARED);

    if (active == NULL) {
        return KEEPER_STEP_NONE;
    }
    if (prepared == NULL) {
        *ret_at_s = prepare_at_s(active);
        return KEEPER_STEP_PREPARE;
    }
    *ret_at_s = activate_at_s(active, prepared);
    *ret = prepared;
    return KEEPER_STEP_ACTIVATE;
}

/* A key for tokens has no beginning, so another one does no harm whatever the clock says; and
 * without one there are no tokens. */
static bool tokens_stopped(const struct keeper_store *store, enum keeper_kind kind, int64_t now_s)
{
    const struct keeper_record *active = keeper_store_find(store, kind, KEEPER_ACTIVE);

    return kind == KEEPER_JWT && active != NULL && active->not_after_s <= now_s;
}

enum keeper_step keeper_rotation_due(const struct keeper_store *store, enum keeper_kind kind,
                                     int64_t now_s, bool steady, const struct keeper_record **ret)
{
    const struct keeper_record *record = NULL;
    const struct keeper_record *prepared = keeper_store_find(store, kind, KEEPER_PREPARED);
    int64_t at_s = INT64_MAX;
    enum keeper_step step = next_exchange(store, kind, &at_s, &record);

    if (prepared != NULL && prepared->not_after_s <= now_s) { /* nobody was there to activate it */
        record = prepared;
        at_s = now_s;
        step = KEEPER_STEP_RETIRE;
    }
    if (step != KEEPER_STEP_NONE && now_s >= at_s &&
        (steady || tokens_stopped(store, kind, now_s))) {
        *ret = record;
        return step;
    }
    for (size_t i = 0; steady && i < store->n; i++) {
        const struct keeper_record *r = &store->records[i];

        if (retires(r, kind) && now_s >= retire_at_s(r)) {
            *ret = r;
            return KEEPER_STEP_RETIRE;
        }
    }
    return KEEPER_STEP_NONE;
}

int64_t keeper_rotation_next_s(const struct keeper_store *store, enum keeper_kind kind,
                               enum keeper_step *ret)
{
    const struct keeper_record *record = NULL;
    int64_t at_s = INT64_MAX;
    enum keeper_step step = next_exchange(store, kind, &at_s, &record);

    for (size_t i = 0; i < store->n; i++) {
        const struct keeper_record *r = &store->records[i];

        if (retires(r, kind) && retire_at_s(r) < at_s) {
            at_s = retire_at_s(r);
            step = KEEPER_STEP_RETIRE;
        }
    }
    *ret = step;
    return at_s;
}

/* --- changes ---------------------------------------------------------------------------------- */
int keeper_rotation_may_prepare(const struct keeper_store *store, enum keeper_kind kind,
                                struct err *err)
{
    const struct keeper_record *prepared = keeper_store_find(store, kind, KEEPER_PREPARED);

    if (prepared != NULL) {
        err_set(err, ERR_USAGE, "%s is prepared already", prepared->id);
        return err_advise(err, "activate it, or retire it with --force");
    }
    return 0;
}

int keeper_rotation_activate(struct keeper_store *store, enum keeper_kind kind, int64_t now_s,
                             int64_t signed_until_s, struct err *err)
{
    struct keeper_record *active = keeper_store_find(store, kind, KEEPER_ACTIVE);
    struct keeper_record *prepared = keeper_store_find(store, kind, KEEPER_PREPARED);

    if (prepared == NULL) {
        err_set(err, ERR_USAGE, "no %s authority is prepared", keeper_kind_name(kind));
        return err_advise(err, "prepare one and let peers learn it first");
    }
    if (prepared->not_after_s <= now_s) {
        err_set(err, ERR_USAGE, "%s was prepared, and has ended since", prepared->id);
        return err_advise(err, "retire it with --force and prepare another");
    }
    if (active != NULL) {
        active->state = KEEPER_OLD;
        active->changed_s = now_s;
        if (signed_until_s > active->not_after_s) {
            signed_until_s = active->not_after_s; /* nothing outlives what signed it */
        }
        if (signed_until_s > active->signed_until_s) {
            active->signed_until_s = signed_until_s;
        }
    }
    prepared->state = KEEPER_ACTIVE;
    prepared->changed_s = now_s;
    return 0;
}

int keeper_rotation_taint(struct keeper_store *store, enum keeper_kind kind, struct str id,
                          int64_t now_s, struct err *err)
{
    struct keeper_record *record = NULL;

    if (id.n > 0) {
        record = keeper_store_find_id(store, kind, id);
    } else {
        for (size_t i = 0; i < store->n; i++) {
            struct keeper_record *r = &store->records[i];

            if (r->kind == kind && r->state == KEEPER_OLD &&
                (record == NULL || r->changed_s >= record->changed_s)) {
                record = r;
            }
        }
    }
    if (record == NULL) {
        err_set(err, ERR_USAGE, id.n > 0 ? "there is no such authority" : "none is old");
        return err_advise(err, "see `postern ca show`; one that is active has to be replaced "
                               "first: prepare, activate, taint");
    }
    if (record->state != KEEPER_OLD) {
        err_set(err, ERR_USAGE, "%s is %s", record->id, keeper_state_name(record->state));
        err_expected(err, "one that is old");
        return record->state == KEEPER_ACTIVE
                   ? err_advise(err, "prepare and activate another one first")
                   : err_advise(err, "see `postern ca show`");
    }
    record->state = KEEPER_TAINTED;
    record->changed_s = now_s;
    return 0;
}

const struct keeper_record *keeper_rotation_pick(const struct keeper_store *store,
                                                 enum keeper_kind kind, struct str id,
                                                 struct err *err)
{
    const struct keeper_record *found = NULL;

    if (id.n > 0) {
        found = keeper_store_find_id(store, kind, id);
        if (found == NULL) {
            err_set(err, ERR_USAGE, "there is no %s authority '%.*s'", keeper_kind_name(kind),
                    STR_ARG(id));
            err_advise(err, "see `postern ca show`");
        }
        return found;
    }
    for (size_t i = 0; i < store->n; i++) {
        if (!retires(&store->records[i], kind)) {
            continue;
        }
        if (found != NULL) {
            err_set(err, ERR_USAGE, "both %s and %s may be meant", found->id, store->records[i].id);
            err_advise(err, "name one");
            return NULL;
        }
        found = &store->records[i];
    }
    if (found == NULL) {
        err_set(err, ERR_USAGE, "no %s authority is old or tainted", keeper_kind_name(kind));
        err_advise(err, "see `postern ca show`");
    }
    return found;
}

static int refuse_use(const struct keeper_record *record, const struct keeper_use *use,
                      struct err *err)
{
    char when[32];

    if (use->n_callers > 0) {
        err_set(err, ERR_USAGE, "%zu SVIDs under %s are in use", use->n_callers, record->id);
        return err_advise(err, "taint it, so that they are replaced at once, and try again; or "
                               "--force, and their connections are refused");
    }
    os_time_text(use->until_s, when, sizeof(when));
    err_set(err, ERR_USAGE,
            "what %s signed for callers that are gone, or before this agent's start, is valid "
            "until %s",
            record->id, when);
    return err_advise(err, "wait until then; or --force, if nobody uses it or nobody should");
}

int keeper_rotation_retire(struct keeper_store *store, const struct keeper_record *record,
                           const struct keeper_use *use, int64_t now_s, bool force, struct err *err)
{
    if (record->state == KEEPER_ACTIVE) {
        err_set(err, ERR_USAGE, "%s is active", record->id);
        return err_advise(err, "prepare and activate another one first");
    }
    if (!force && record->state == KEEPER_PREPARED) {
        err_set(err, ERR_USAGE, "%s is prepared, and was never active", record->id);
        return err_advise(err, "activate it; or --force, to drop it");
    }
    if (!force && (use->n_callers > 0 || use->until_s > now_s)) {
        return refuse_use(record, use, err);
    }
    keeper_store_remove(store, record);
    return 0;
}
