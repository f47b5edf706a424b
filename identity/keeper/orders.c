/* Changes of authorities: root's orders, which come by the supervisor, and the schedule's. Both
 * make the change in a copy, build what would be in force, and go the way of change.c. */
#include "keeper_priv.h"

#include <postern/buf.h>
#include <postern/os.h>
#include <string.h>

enum { RETRY_MS = 30000 };

static const char *const WHAT[] = {
    [AGENT_CA_SHOW] = "show",          [AGENT_CA_PREPARE] = "prepared",
    [AGENT_CA_ACTIVATE] = "activated", [AGENT_CA_TAINT] = "tainted",
    [AGENT_CA_RETIRE] = "retired",
};

/* --- what is in use ----------------------------------------------------------------------------
 */
static int64_t longest_ttl_s(const struct keeper *k, enum keeper_kind kind)
{
    uint32_t ttl_s = kind == KEEPER_JWT ? k->jwt.ttl_s : k->svid_ttl_s;

    for (size_t i = 0; k->entries != NULL && i < k->entries->n; i++) {
        const struct keeper_entry *e = &k->entries->items[i];
        uint32_t own_s = kind == KEEPER_JWT ? e->jwt_ttl_s : e->ttl_s;

        ttl_s = own_s > ttl_s ? own_s : ttl_s;
    }
    return kind == KEEPER_JWT || ttl_s < k->authority.node_ttl_s ? ttl_s : k->authority.node_ttl_s;
}

/* Nothing that this agent has signed is valid after. Of what it signed before its start nobody
 * knows but that lives were as they are now. */
static int64_t signed_until_s(const struct keeper *k, enum keeper_kind kind, int64_t now_s)
{
    int64_t until_s = now_s + longest_ttl_s(k, kind);

    return kind == KEEPER_JWT || until_s > k->leaf_until_s ? until_s : k->leaf_until_s;
}

static struct keeper_use use_of(const struct keeper *k, const struct keeper_record *r,
                                int64_t now_s)
{
    struct keeper_use use = keeper_uses_of(k->uses, keeper_use_tag(r->id), now_s);
    int64_t until_s = k->start_s + longest_ttl_s(k, r->kind);

    if (use.inherited && until_s > use.until_s) {
        use.until_s = until_s;
    }
    if (r->kind == KEEPER_JWT) { /* tokens are not followed one by one */
        use.until_s = r->signed_until_s;
    }
    return use;
}

void keeper_uses_start(struct keeper *k)
{
    const struct keeper_store *store = &k->authority.force->store;

    k->start_s = keeper_clock_wall_s(&k->clock);
    for (size_t i = 0; i < store->n; i++) {
        const struct keeper_record *r = &store->records[i];

        if (r->state == KEEPER_OLD || r->state == KEEPER_TAINTED) {
            keeper_uses_assume(k->uses, keeper_use_tag(r->id), r->signed_until_s);
        } else if (r->state == KEEPER_ACTIVE && !k->new_root) {
            keeper_uses_inherit(k->uses, keeper_use_tag(r->id));
        }
    }
}

/* --- the document ------------------------------------------------------------------------------
 */
static bool put_time(struct buf *out, const char *key, int64_t wall_s)
{
    char text[32];

    if (wall_s <= 0 || wall_s == INT64_MAX) {
        return buf_printf(out, ",\"%s\":null", key);
    }
    os_time_text(wall_s, text, sizeof(text));
    return buf_printf(out, ",\"%s\":\"%s\"", key, text);
}

static bool put_record(const struct keeper *k, const struct keeper_record *r, bool first,
                       struct buf *out)
{
    struct keeper_use use = use_of(k, r, keeper_clock_wall_s(&k->clock));

    return buf_printf(out, "%s{\"kind\":\"%s\",\"id\":\"%s\",\"state\":\"%s\"", first ? "" : ",",
                      keeper_kind_name(r->kind), r->id, keeper_state_name(r->state)) &&
           put_time(out, "created", r->created_s) && put_time(out, "since", r->changed_s) &&
           put_time(out, "not_after", r->not_after_s) &&
           put_time(out, "signed_until", r->signed_until_s) &&
           buf_printf(out, ",\"svids_in_use\":%zu", use.n_callers) &&
           put_time(out, "others_until", use.until_s) && buf_printf(out, "}");
}

static bool put_next(const struct keeper *k, enum keeper_kind kind, bool first, struct buf *out)
{
    static const char *const STEPS[] = {
        [KEEPER_STEP_PREPARE] = "prepare",
        [KEEPER_STEP_ACTIVATE] = "activate",
        [KEEPER_STEP_RETIRE] = "retire",
    };
    enum keeper_step step = KEEPER_STEP_NONE;
    int64_t at_s = keeper_rotation_next_s(&k->authority.force->store, kind, &step);

    return step == KEEPER_STEP_NONE || !keeper_makes(k, kind) ||
           (buf_printf(out, "%s{\"kind\":\"%s\",\"step\":\"%s\"", first ? "" : ",",
                       keeper_kind_name(kind), STEPS[step]) &&
            put_time(out, "at", at_s) && buf_printf(out, "}"));
}

/* The one of the files, as if it were a record. */
static bool put_files(const struct keeper *k, struct buf *out)
{
    const struct keeper_disk *d = k->authority.disk;
    struct keeper_record r = {.kind = KEEPER_X509,
                              .state = KEEPER_ACTIVE,
                              .created_s = d->not_before_s,
                              .changed_s = d->not_before_s,
                              .not_after_s = d->not_after_s};

    memcpy(r.id, d->id, sizeof(r.id));
    return put_record(k, &r, true, out);
}

static bool put_document(const struct keeper *k, struct buf *out)
{
    const struct keeper_store *store = &k->authority.force->store;
    bool files = k->authority.disk != NULL, first = !files;
    bool ok = buf_printf(out,
                         "{\"trust_domain\":\"%s\",\"change\":%llu,\"bundle_generation\":%llu,"
                         "\"authorities\":[",
                         k->trust_domain, (unsigned long long)store->sequence,
                         (unsigned long long)k->bundle_generation);

    ok = ok && (!files || put_files(k, out));
    for (size_t i = 0; ok && i < store->n; i++) {
        if (keeper_makes(k, store->records[i].kind)) { /* others of the state are in no use */
            ok = put_record(k, &store->records[i], first, out);
            first = false;
        }
    }
    ok = ok && buf_printf(out, "],\"schedule\":[") && put_next(k, KEEPER_X509, true, out) &&
         put_next(k, KEEPER_JWT, !keeper_makes(k, KEEPER_X509), out);
    return ok && buf_printf(out, "]}\n");
}

static int answer(struct keeper *k, uint64_t ticket, const struct err *failure, struct err *err)
{
    static struct agent_msg_ca_answer msg; /* one thread; too large for the stack */
    struct buf out = BUF_INIT(AGENT_CA_TEXT_MAX);

    agent_ipc_init(&msg, AGENT_MSG_CA_ANSWER, ticket);
    if (failure != NULL) {
        msg.error = *failure;
    } else if (put_document(k, &out)) {
        memcpy(msg.text, buf_head(&out), buf_len(&out));
        msg.text_len = (uint32_t)buf_len(&out);
    } else {
        err_set(&msg.error, ERR_LIMIT, "the answer is too long");
    }
    buf_reset(&out);
    return keeper_tell(k, &msg, err);
}

/* --- changes -----------------------------------------------------------------------------------
 */
static void log_change(struct keeper *k, const struct err *failure)
{
    const struct keeper_order *o = &k->order;
    struct log_line l;
    char text[1200];

    log_begin(&l, k->log, failure == NULL ? LOG_WARN : LOG_ERROR,
              failure == NULL ? "authority_changed" : "authority_change_failed");
    log_str(&l, "kind", keeper_kind_name(o->kind));
    log_str(&l, "change", WHAT[o->verb]);
    log_str(&l, "authority", o->id);
    log_str(&l, "by", o->ticket != 0 ? "order" : "schedule");
    if (failure != NULL) {
        log_str(&l, "reason", err_text(failure, text, sizeof(text)));
    }
    log_end(&l);
}

static void on_done(struct keeper *k, const struct err *failure)
{
    struct err err = ERR_INIT;

    log_change(k, failure);
    if (failure == NULL) {
        keeper_journal_change(k, keeper_kind_name(k->order.kind), WHAT[k->order.verb], k->order.id,
                              k->order.ticket != 0);
    } else {
        k->rotation_retry_ms = keeper_clock_now_ms(&k->clock) + RETRY_MS;
    }
    if (k->order.ticket != 0 && answer(k, k->order.ticket, failure, &err) == -1) {
        k->start_failure = err; /* the supervisor is gone: there is no going on */
    }
    k->order = (struct keeper_order){.ticket = 0};
}

static int prepare(struct keeper *k, struct keeper_store *next, struct keeper_order *o,
                   int64_t now_s, struct err *err)
{
    struct keeper_record *r;

    if (keeper_rotation_may_prepare(next, o->kind, err) == -1) {
        return -1;
    }
    r = keeper_store_add(next, o->kind, KEEPER_PREPARED);
    if (r == NULL) {
        err_set(err, ERR_LIMIT, "there are %d %s authorities", KEEPER_RECORDS_MAX,
                keeper_kind_name(o->kind));
        return err_advise(err, "retire old ones first");
    }
    if (keeper_make(k, r, now_s, err) == -1) {
        return -1;
    }
    memcpy(o->id, r->id, sizeof(o->id));
    return 0;
}

static void name_record(struct keeper_order *o, const struct keeper_store *store,
                        enum keeper_state state)
{
    const struct keeper_record *found = NULL;

    for (size_t i = 0; i < store->n; i++) {
        const struct keeper_record *r = &store->records[i];

        if (r->kind == o->kind && r->state == state &&
            (found == NULL || r->changed_s >= found->changed_s)) {
            found = r;
        }
    }
    if (found != NULL) {
        memcpy(o->id, found->id, sizeof(o->id));
    }
}

static int retire(const struct keeper *k, struct keeper_store *next, struct keeper_order *o,
                  int64_t now_s, struct err *err)
{
    const struct keeper_record *r = keeper_rotation_pick(next, o->kind, str_of(o->id), err);
    struct keeper_use use;

    if (r == NULL) {
        return -1;
    }
    memcpy(o->id, r->id, sizeof(o->id));
    use = use_of(k, r, now_s);
    return keeper_rotation_retire(next, r, &use, now_s, o->force, err);
}

static int change_store(struct keeper *k, struct keeper_store *next, struct keeper_order *o,
                        struct err *err)
{
    int64_t now_s = keeper_clock_wall_s(&k->clock);
    int r;

    switch (o->verb) {
    case AGENT_CA_PREPARE:
        return prepare(k, next, o, now_s, err);
    case AGENT_CA_ACTIVATE:
        r = keeper_rotation_activate(next, o->kind, now_s, signed_until_s(k, o->kind, now_s), err);
        if (r == 0) {
            name_record(o, next, KEEPER_ACTIVE);
        }
        return r;
    case AGENT_CA_TAINT:
        r = keeper_rotation_taint(next, o->kind, str_of(o->id), now_s, err);
        if (r == 0 && o->id[0] == 0) {
            name_record(o, next, KEEPER_TAINTED);
        }
        return r;
    case AGENT_CA_RETIRE:
        return retire(k, next, o, now_s, err);
    case AGENT_CA_SHOW:
    case AGENT_N_CA_VERBS:
        break;
    }
    return err_set(err, ERR_USAGE, "no such order");
}

/* Takes the order up: on success it is under way. */
static int begin(struct keeper *k, struct keeper_order o, struct err *err)
{
    struct keeper_store next = {.records = NULL};
    struct keeper_force *force = NULL;

    if (k->change.phase != KEEPER_CHANGE_NONE) {
        err_set(err, ERR_UNAVAILABLE, "another change is under way");
        return err_advise(err, "try again");
    }
    if (!keeper_makes(k, o.kind)) {
        err_set(err, ERR_USAGE, "this agent does not make its %s authorities itself",
                keeper_kind_name(o.kind));
        return err_advise(err, "with `ca.source: disk`, exchange the files");
    }
    if (keeper_store_copy(&k->authority.force->store, &next, err) == -1) {
        return -1;
    }
    if (change_store(k, &next, &o, err) == -1) {
        keeper_store_deinit(&next);
        return -1;
    }
    force = keeper_force_build(&k->authority, &next, keeper_clock_wall_s(&k->clock), err);
    if (force == NULL) {
        return -1;
    }
    k->order = o;
    return keeper_change_begin(k, force, on_done, err);
}

int keeper_on_order(struct keeper *k, const struct agent_msg_ca_order *msg, struct err *err)
{
    struct keeper_order o = {.ticket = msg->head.request_id,
                             .verb = (enum agent_ca_verb)msg->verb,
                             .kind = msg->jwt ? KEEPER_JWT : KEEPER_X509,
                             .force = msg->force};
    struct err failure = ERR_INIT;

    memcpy(o.id, msg->id, msg->id_len);
    if (!k->started) {
        return err_set(err, ERR_PROTOCOL, "an order came before there was a root");
    }
    if (o.verb == AGENT_CA_SHOW) {
        return answer(k, o.ticket, NULL, err);
    }
    return begin(k, o, &failure) == 0 ? 0 : answer(k, o.ticket, &failure, err);
}

/* --- the schedule ------------------------------------------------------------------------------
 */
static void run_step(struct keeper *k, enum keeper_kind kind, enum keeper_step step,
                     const struct keeper_record *r)
{
    struct keeper_order o = {.kind = kind, .force = true};
    struct err failure = ERR_INIT;

    o.verb = step == KEEPER_STEP_PREPARE    ? AGENT_CA_PREPARE
             : step == KEEPER_STEP_ACTIVATE ? AGENT_CA_ACTIVATE
                                            : AGENT_CA_RETIRE;
    if (step == KEEPER_STEP_RETIRE) {
        memcpy(o.id, r->id, sizeof(o.id));
    }
    if (begin(k, o, &failure) == -1) {
        k->order = o;
        on_done(k, &failure);
    }
}

void keeper_rotate_if_due(struct keeper *k)
{
    static const enum keeper_kind kinds[] = {KEEPER_X509, KEEPER_JWT};
    int64_t now_s = keeper_clock_wall_s(&k->clock);

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct keeper_record *r = NULL;
        enum keeper_step step;

        if (k->change.phase != KEEPER_CHANGE_NONE || !keeper_makes(k, kinds[i]) ||
            keeper_clock_now_ms(&k->clock) < k->rotation_retry_ms) {
            continue;
        }
        step = keeper_rotation_due(&k->authority.force->store, kinds[i], now_s,
                                   keeper_steady_in_ms(k, kinds[i]) == 0, &r);
        if (step != KEEPER_STEP_NONE) {
            run_step(k, kinds[i], step, r);
        }
    }
}
