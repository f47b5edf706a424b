/* After a change: which connections it concerns, and looking at them, a slice of time after
 * another. docs/lifetimes.md. */
#include "conn_priv.h"

#include <postern/os.h>

enum {
    SLICE_MS = 1, /* of looking, then the others have their turn */
    PAUSE_MS = 1,
    MOVES_A_LOOK = 16, /* so many that only take the snapshot between two looks at the clock */
};

/* --- what the index knows of a connection ------------------------------------------------------
 */

static void tell_peer(struct conn *c)
{
    struct live_index *x = c->worker->live;
    const struct conn_leg *leg = conn_leg_peer(&c->peer) != NULL ? &c->peer : &c->app;
    const struct tls_stream *tls = conn_leg_tls(leg);
    const struct tls_peer *p = conn_leg_peer(leg);
    char serial[48] = "";
    if (p == NULL || c->known) {
        return;
    }
    c->known = true;
    live_set_peer(x, c->live,
                  &(const struct live_peer_facts){.id = {p->id, p->id_len},
                                                  .serial = p->serial,
                                                  .issuers = p->issuers,
                                                  .n_issuers = p->n_issuers});
    if (tls != NULL) {
        tls_own_serial(tls, serial);
        live_set_own(x, c->live, serial);
    }
}

void conn_live_known(struct conn *c)
{
    tell_peer(c);
    conn_expiry_begin(c);
}

void conn_live_allowed(struct conn *c)
{
    struct live_index *x = c->worker->live;
    if (c->relay) {
        live_set_unsure(x, c->live);
    }
    if (c->http != NULL || c->protocol == CONF_PROTOCOL_HTTP) {
        live_set_by(x, c->live, LIVE_BY_REQUEST, 0, 0, NULL);
    } else if (c->judged) {
        /* Its name is the index's from now on: the policy goes with its snapshot. */
        c->verdict.rule = live_set_by(x, c->live, LIVE_BY_RULE, c->verdict.rule_key,
                                      c->verdict.narrowed_key, c->verdict.rule);
    } else if (c->direction == CONF_OUTBOUND && c->route != NULL) {
        live_set_by(x, c->live, LIVE_BY_ROUTE, c->route->key, 0, NULL);
    } else {
        live_set_by(x, c->live, LIVE_BY_NO_ONE, 0, 0, NULL);
    }
}

/* --- whom a change concerns ------------------------------------------------------------------- */

static void mark_policy(struct live_index *x, const struct policy_change *c)
{
    live_mark_keys(x, LIVE_BY_RULE, c->gone, c->n_gone, LIVE_CHANGED);
    if (c->n_gone > 0 || c->everybody) {
        live_mark_by(x, LIVE_BY_REQUEST, LIVE_CHANGED);
    }
    if (c->everybody || c->requests) {
        live_mark_by(x, LIVE_BY_RULE, LIVE_CHANGED);
    }
    for (size_t i = 0; i < c->n_denied; i++) {
        live_mark_who(x, &c->denied[i], LIVE_CHANGED);
    }
}

void live_mark_change(struct live_index *x, const struct snapshot_change *c, uint64_t since)
{
    bool follows = c != NULL && c->since == since;
    if (c != NULL && c->own_quarantined) {
        live_mark_all(x, LIVE_QUARANTINED);
    }
    for (size_t i = 0; follows && i < c->denied_ids.n; i++) {
        live_mark_id(x, str_of(c->denied_ids.items[i]), LIVE_QUARANTINED);
    }
    for (size_t i = 0; follows && i < c->denied_serials.n; i++) {
        live_mark_serial(x, str_of(c->denied_serials.items[i]), LIVE_QUARANTINED);
    }
    if (!follows || c->all) {
        live_mark_all(x, LIVE_CHANGED);
        return;
    }
    if (c->n_gone > 0) {
        live_mark_issuers(x, c->gone, c->n_gone, LIVE_TRUST);
    }
    mark_policy(x, &c->policy[0]);
    mark_policy(x, &c->policy[1]);
    live_mark_keys(x, LIVE_BY_ROUTE, c->routes, c->n_routes, LIVE_CHANGED);
    for (size_t i = 0; i < c->n_listeners; i++) {
        live_mark_listener(x, c->listeners[i], LIVE_CHANGED);
    }
    live_mark_unsure(x, LIVE_CHANGED);
    if (c->outbound) {
        live_mark_direction(x, true, LIVE_MAYBE);
    }
    live_mark_all(x, LIVE_MOVE);
}

/* --- looking ---------------------------------------------------------------------------------- */

/* True: it was cut. */
static bool look(struct conn *c, enum live_rank rank)
{
    struct conn_worker *w = c->worker;
    if (c->snap == w->current || (rank == LIVE_MOVE && conn_move(c))) {
        return false;
    }
    counter_add(&w->counters.rejudged, 1);
    enum conn_reason reason = conn_rejudge(c);
    if (reason == CONN_CLOSE_DONE) {
        conn_detect_review(c);
        return false;
    }
    counter_add(&w->counters.rejudged_closed, 1);
    conn_audit_ended(c, reason);
    conn_cut(c, reason);
    return true;
}

bool conn_catch_up(struct conn *c)
{
    if (c->snap != c->worker->current) {
        (void)look(c, live_take(c->worker->live, c->live));
    }
    return !c->closing;
}

void worker_rejudge(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    uint64_t began = os_now_ms();
    enum live_rank rank = LIVE_MOVE;
    unsigned moves = 0;
    unsigned cuts = 0;
    struct conn *c;
    while ((c = (struct conn *)live_next(w->live, &rank)) != NULL) {
        cuts += look(c, rank);
        bool timed = rank != LIVE_MOVE || ++moves % MOVES_A_LOOK == 0;
        if (cuts == CONN_CUTS_A_TURN || (timed && os_now_ms() - began >= SLICE_MS)) {
            loop_timer_arm(&w->rejudge_timer, PAUSE_MS);
            return;
        }
    }
}

void worker_concern(struct conn_worker *w, uint64_t since)
{
    live_mark_change(w->live, w->current->snapshot->change, since);
    worker_rejudge(w);
}
