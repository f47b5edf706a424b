/* Asking the policy about a connection, and again after a change. */
#include "conn_priv.h"

#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

/* Unique and not repeated after a restart; it has to be found in a log, not to be guessed at. */
void conn_decision_new(struct conn_worker *w, char ret_text[CONN_DECISION_TEXT])
{
    snprintf(ret_text, CONN_DECISION_TEXT, "%016llx%016llx", (unsigned long long)w->decision_prefix,
             (unsigned long long)++w->decision_count);
}

static struct str id_of(const struct conn_leg *leg)
{
    const struct tls_peer *p = conn_leg_peer(leg);
    return p != NULL ? (struct str){p->id, p->id_len} : STR_NONE;
}

struct str conn_peer_id(const struct conn *c)
{
    return id_of(&c->peer);
}

struct str conn_upstream_id(const struct conn *c)
{
    return id_of(&c->app);
}

struct str conn_own_id(const struct conn *c)
{
    const struct snapshot *s = conn_snapshot(c);
    if (s->parties != NULL && s->parties->legs[c->listener].own_id != NULL) {
        return str_of(s->parties->legs[c->listener].own_id);
    }
    return s->parties == NULL && s->identity != NULL ? s->identity->own : STR_NONE;
}

uint16_t conn_port(const struct conn *c)
{
    if (c->target != NULL) {
        return c->target->port != 0 ? c->target->port : net_addr_port(&conn_listener(c)->address);
    }
    return net_addr_port(c->original.len > 0 ? &c->original : &c->upstream);
}

const struct sockaddr *conn_source(const struct conn *c)
{
    return c->source.len > 0 && !net_addr_is_unix(&c->source) ? &c->source.sa : NULL;
}

void conn_query(const struct conn *c, struct policy_query *ret)
{
    *ret = (struct policy_query){
        .target = conn_own_id(c),
        .peer = conn_peer_id(c),
        .source = conn_source(c),
        .port = conn_port(c),
        .now_s = os_wall_s(),
    };
}

static bool is_denied(const struct conn *c, const struct conn_leg *leg)
{
    const struct tls_peer *p = conn_leg_peer(leg);
    return p != NULL && snapshot_denies(conn_snapshot(c), id_of(leg), p->serial);
}

/* The certificate that was shown on this leg, which may not be the current one any more. */
static bool is_own_denied(const struct conn *c, const struct conn_leg *leg)
{
    const struct tls_stream *tls = conn_leg_tls(leg);
    char serial[48];
    if (tls == NULL || deny_set_count(conn_deny(c)) == 0) {
        return false;
    }
    tls_own_serial(tls, serial);
    return snapshot_denies(conn_snapshot(c), STR_NONE, serial);
}

bool conn_quarantined(const struct conn *c)
{
    return conn_snapshot(c)->own_quarantined || is_denied(c, &c->peer) || is_denied(c, &c->app) ||
           is_own_denied(c, &c->peer) || is_own_denied(c, &c->app);
}

struct conn_denial *conn_denial_new(struct conn *c)
{
    if (c->denial == NULL) {
        c->denial = (struct conn_denial *)calloc(1, sizeof(*c->denial));
    }
    if (c->denial != NULL) {
        conn_decision_new(c->worker, c->denial->decision);
    }
    return c->denial;
}

bool conn_judge(struct conn *c)
{
    const struct policy *policy = NULL;
    struct policy_query q;
    conn_query(c, &q);
    snapshot_decide(conn_snapshot(c), &q, &c->verdict, &policy);
    c->judged = true;
    if (c->verdict.allow) {
        conn_live_allowed(c);
    } else {
        struct conn_denial *denial = conn_denial_new(c);
        if (denial != NULL) {
            policy_near_miss(policy, &q, denial->near_miss, sizeof(denial->near_miss));
            conn_denied(c, &(const struct conn_denied){.query = &q,
                                                       .verdict = &c->verdict,
                                                       .decision = denial->decision,
                                                       .protocol = "tcp"});
        }
    }
    return c->verdict.allow;
}

/* For whoever asks why; with an id, if it has none yet. */
static void keep_denial(struct conn *c, enum conn_reason reason)
{
    struct conn_denial *denial = c->denial != NULL ? c->denial : conn_denial_new(c);
    const struct policy_verdict none = {.reason = POLICY_NO_RULE};
    struct policy_query q;
    conn_query(c, &q);
    if (denial != NULL) {
        conn_denied(c, &(const struct conn_denied){.query = &q,
                                                   .verdict = &none,
                                                   .decision = denial->decision,
                                                   .protocol = "tcp",
                                                   .reason = conn_reason_token(reason)});
    }
}

void conn_close_denied(struct conn *c, enum conn_reason reason)
{
    keep_denial(c, reason);
    conn_audit_connection(c, conn_reason_token(reason));
    conn_close(c, reason);
}

/* A route without identities is one where the party alone says who may be there. */
static bool is_expected(const struct route *r, enum conf_transport transport, struct str id)
{
    return (r->n_identities == 0 && transport == CONF_TRANSPORT_DIRECT) ||
           route_still_allows(r, transport, id);
}

/* An outbound connection stays if the route still leads to the peer that it has. `listed`: it had a
 * route before, and was not passed through. */
static bool route_holds(struct conn *c, bool listed, const struct route_pass *before)
{
    if (c->carrier != NULL) {
        c->route = &c->carrier->route;
        loop_defer(c->worker->loop, &c->carrier->turn); /* it may be out of date */
        return true;                                    /* its streams are asked */
    }
    const struct snapshot_listener *l = conn_listener(c);
    c->pass = NULL;
    c->route = l->explicit_route != NULL
                   ? l->explicit_route
                   : snapshot_route(conn_snapshot(c), &c->original, before, &c->pass);
    if (!listed) {
        return c->route == NULL
                   ? c->pass != NULL
                   : c->route->transport == CONF_TRANSPORT_DISABLE && conn_balance_holds(c);
    }
    if (c->route == NULL || !route_transports_alike(c->route->transport, c->transport) ||
        !conn_balance_holds(c)) {
        return false;
    }
    if (c->state != CONN_PUMP && conn_peer_id(c).n == 0) {
        return true; /* the handshake will judge */
    }
    return is_expected(c->route, c->transport, conn_peer_id(c));
}

/* Whoever answered a relay upstream is still expected there, if somebody has. */
static bool relay_holds(const struct conn *c)
{
    struct str id = conn_upstream_id(c);
    return !c->relay || id.n == 0 ||
           is_expected(conn_listener(c)->explicit_route, CONF_TRANSPORT_DIRECT, id);
}

/* An explicit listener that now leads elsewhere takes its connections there anew. */
static bool same_target(const struct conn *c, const struct snapshot *next)
{
    if (c->target == NULL) {
        return true;
    }
    struct conn_place p = conn_place_in(c, &next->files->listeners[c->listener]);
    return p.passthrough == c->passthrough && snapshot_target_equal(c->target, p.target);
}

/* Of both sides, what their peers have to be right by. */
static bool judges_alike(const struct conn *c, const struct snapshot *next)
{
    for (unsigned upstream = 0; upstream < 2; upstream++) {
        const struct tls_party *before = conn_party(c, conn_snapshot(c), upstream);
        const struct tls_party *now = conn_party(c, next, upstream);
        bool used = c->relay || upstream == (c->direction == CONF_OUTBOUND);
        if (used && now != NULL && (before == NULL || !tls_party_judges_alike(before, now))) {
            return false;
        }
    }
    return true;
}

static bool rebase_handshake(struct conn *c)
{
    if (c->state == CONN_HANDSHAKE) {
        return conn_tls_rebase(c, &c->peer);
    }
    bool handshake = c->relay && c->app.kind == CONN_LEG_TLS && !c->app.tls.established;
    return !handshake || conn_tls_rebase(c, &c->app);
}

static enum conn_reason rejudge_inbound(struct conn *c)
{
    bool ok = c->h2 != NULL     ? conn_h2_rejudge(c)
              : c->http != NULL ? conn_http_rejudge(c)
                                : !c->judged || (conn_detect_holds(c) && conn_judge(c));
    return ok ? CONN_CLOSE_DONE : CONN_CLOSE_POLICY_CHANGED;
}

static enum conn_reason rejudge(struct conn *c)
{
    bool listed = c->route != NULL;
    const struct route_pass *before = c->pass;
    const struct snapshot *next = c->worker->current->snapshot;
    bool trust_changed = !judges_alike(c, next);
    bool moved = !same_target(c, next);
    conn_use_current(c);
    /* What was lent by the old snapshot. */
    c->route = NULL;
    c->pass = NULL;
    c->verdict.rule = NULL;
    if (c->state == CONN_NEW || c->state == CONN_PROXY_HEADER || c->state == CONN_HELLO ||
        c->state == CONN_FIRST_BYTES || c->state == CONN_HELD || c->state == CONN_ASKED ||
        c->state == CONN_LINGER) {
        return CONN_CLOSE_DONE; /* nothing was decided yet, or nothing is left to decide */
    }
    if (conn_quarantined(c)) {
        keep_denial(c, CONN_CLOSE_QUARANTINED);
        return CONN_CLOSE_QUARANTINED;
    }
    if (!conn_plain_holds(c)) {
        return CONN_CLOSE_POLICY_CHANGED;
    }
    if (moved || !relay_holds(c) ||
        (c->direction == CONF_OUTBOUND && !route_holds(c, listed, before))) {
        return CONN_CLOSE_ROUTE_CHANGED;
    }
    if (!rebase_handshake(c)) {
        return CONN_CLOSE_TRUST_CHANGED; /* the identity was withdrawn */
    }
    if (trust_changed && (!conn_tls_holds(c, &c->peer) || !conn_tls_holds(c, &c->app))) {
        return CONN_CLOSE_TRUST_CHANGED;
    }
    if (c->direction == CONF_INBOUND) {
        return rejudge_inbound(c);
    }
    if (c->state == CONN_PUMP) {
        conn_live_allowed(c); /* maybe by another route */
        conn_balance_recount(c);
    }
    return CONN_CLOSE_DONE;
}

enum conn_reason conn_rejudge(struct conn *c)
{
    struct worker_snapshot *old = c->snap; /* what it lends is compared with */
    old->uses++;
    enum conn_reason r = rejudge(c);
    conn_release_snapshot(c->worker, old);
    return r;
}

/* Policy, routes and keys of tokens are those of before, not others that say the same. */
static bool same_documents(const struct snapshot *a, const struct snapshot *b)
{
    return a->files == b->files && a->claims == b->claims &&
           (a->state == b->state ||
            (a->state != NULL && b->state != NULL && a->state->policy == b->state->policy &&
             a->state->routes == b->state->routes));
}

bool conn_move(struct conn *c)
{
    /* What it borrows of a snapshot has to be lent by the new one too: its route, and the rule of a
     * request in flight. */
    bool borrows = c->http != NULL || c->h2 != NULL || c->direction == CONF_OUTBOUND;
    if (borrows && !same_documents(conn_snapshot(c), c->worker->current->snapshot)) {
        return false;
    }
    conn_use_current(c);
    return true;
}

/* --- requests --------------------------------------------------------------------------------- */

static bool decide(struct conn *c, const struct conn_question *ask, bool other_reading)
{
    const struct policy *policy = NULL;
    snapshot_decide(conn_snapshot(c), ask->query, ask->verdict, &policy);
    ask->near_miss[0] = '\0';
    if (!ask->verdict->allow) {
        policy_near_miss(policy, ask->query, ask->near_miss, ask->near_miss_size);
        conn_denied(c, &(const struct conn_denied){.query = ask->query,
                                                   .verdict = ask->verdict,
                                                   .decision = ask->decision,
                                                   .protocol = ask->protocol,
                                                   .other_reading = other_reading});
    }
    return ask->verdict->allow;
}

bool conn_judge_request(struct conn *c, const struct conn_question *ask)
{
    if (!decide(c, ask, false) || ask->other_path.n == 0) {
        return ask->verdict->allow;
    }
    ask->query->path = ask->other_path;
    return decide(c, ask, true);
}
