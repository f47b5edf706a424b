/*
 * A connection that is a stream of a session. Inbound: what the CONNECT asks for has to be the very
 * address that the session was made to; then it takes the way of any inbound connection, and is
 * answered 200 once that leads somewhere. Outbound: it waits until its session stands and the other
 * side has said 200. Nothing else that a CONNECT says (forwarded, baggage, traceparent) is kept.
 */
#include "conn_priv.h"

#include <errno.h>
#include <stdlib.h>

/* --- inbound ---------------------------------------------------------------------------------- */

/* As many connections as there may be. Others wait in the kernel's queue; a stream is refused. */
static void tell_full(const struct conn *carrier)
{
    enum { TELL_MS = 1000 };
    struct conn_worker *w = carrier->worker;
    uint64_t now = loop_now_ms(w->loop);
    counter_add(&w->counters.streams_full, 1);
    if (w->full_told_ms == 0 || now - w->full_told_ms >= TELL_MS) {
        struct log_line l;
        w->full_told_ms = now;
        log_begin(&l, w->log, LOG_WARN, "stream_refused");
        conn_record_common(&l, carrier);
        log_str(&l, "step", "limits.connections");
        log_uint(&l, "status", 503);
        log_end(&l);
    }
}

/* Only makes it: it is driven when the session tells its streams. */
void conn_stream_new(struct conn *carrier, int32_t id, struct str authority)
{
    struct conn_worker *w = carrier->worker;
    if (listener_is_full(w) || listener_has_all(w, carrier->listener)) {
        tell_full(carrier);
        return;
    }
    struct conn *c = conn_new(w, carrier->listener, -1, &carrier->source);
    if (c == NULL) {
        return;
    }
    if (!hbone_authority_parse(authority, &c->original)) {
        c->original = (struct net_addr){.len = 0};
    }
    conn_set_state(c, CONN_OPENING);
    c->peer.kind = CONN_LEG_STREAM;
    hbone_stream_accept(carrier->carrier->hbone, id, &c->peer.hs, c);
    conn_ride_begin(c, &c->via, carrier->carrier);
    counter_add(&w->counters.streams[CONF_INBOUND], 1);
}

bool conn_is_stream(const struct conn *c)
{
    return c->peer.kind == CONN_LEG_STREAM;
}

/* Its session was perhaps not judged yet by what the stream itself goes by. */
static bool session_holds(struct conn *c)
{
    const struct conn *carrier = c->via.of->conn;
    const struct tls_party *now = conn_party(c, conn_snapshot(c), false);
    return carrier->snap == c->snap ||
           (now != NULL && tls_peer_judge(conn_leg_peer(&c->peer), now) == X509_OK);
}

/* As a connection that was redirected there: what listens on loopback only is for this machine. A
 * listener that itself stands there is reached from nowhere else, and so names it. */
static bool is_unnamed_loopback(const struct conn *c)
{
    return net_addr_is_loopback(&c->original) && !net_addr_is_loopback(&conn_listener(c)->address);
}

/* A gateway's listener leads to its target whatever is asked for; so what is asked for has to be
 * what the policy is asked about, and nothing else. */
static bool find_place(struct conn *c)
{
    if (c->target == NULL) {
        return conn_find_port(c);
    }
    if (net_addr_port(&c->original) != conn_port(c)) {
        conn_close(c, CONN_CLOSE_BAD_AUTHORITY);
        return false;
    }
    c->upstream = c->target->address;
    return true;
}

void conn_stream_start(struct conn *c)
{
    const struct conn *carrier = c->via.of->conn;
    if (c->original.len == 0 || !net_addr_same_host(&c->original, &carrier->original)) {
        conn_close(c, CONN_CLOSE_BAD_AUTHORITY);
    } else if (c->target == NULL && is_unnamed_loopback(c)) {
        conn_close(c, CONN_CLOSE_LOOPBACK);
    } else if (!find_place(c)) {
        return;
    } else if (conn_quarantined(c)) {
        conn_close_denied(c, CONN_CLOSE_QUARANTINED);
    } else if (!session_holds(c)) {
        conn_close(c, CONN_CLOSE_TRUST_CHANGED);
    } else {
        conn_inbound_verified(c);
    }
}

void conn_stream_answer(struct conn *c)
{
    if (conn_is_stream(c) && c->direction == CONF_INBOUND && !c->peer.hs.answered) {
        hbone_stream_answer(&c->peer.hs);
    }
}

/* What the client is told of a stream that comes to nothing: as ztunnel says it. */
static unsigned status_of(enum conn_reason r)
{
    static const uint16_t said[CONN_REASON_COUNT] = {
        [CONN_CLOSE_BAD_AUTHORITY] = 400,  [CONN_CLOSE_DENIED] = 401,
        [CONN_CLOSE_QUARANTINED] = 401,    [CONN_CLOSE_TRUST_CHANGED] = 401,
        [CONN_CLOSE_POLICY_CHANGED] = 401, [CONN_CLOSE_LOOPBACK] = 400,
    };
    return said[r] != 0 ? said[r] : 503;
}

void conn_stream_refuse(struct conn *c)
{
    if (conn_is_stream(c) && c->direction == CONF_INBOUND && !c->peer.hs.answered &&
        hbone_stream_is_open(&c->peer.hs)) {
        hbone_stream_refuse(&c->peer.hs, status_of(c->reason));
        c->peer.kind = CONN_LEG_PLAIN;
    }
}

/* --- a way on by a session: outbound connections and relays ----------------------------------- */

struct conn_ride *conn_ride_on(struct conn *c)
{
    return c->relay ? &c->onward->ride : &c->via;
}

/* Whether its stream has been asked for. */
static bool goes_by_stream(struct conn *c)
{
    return conn_upstream(c)->kind == CONN_LEG_STREAM;
}

static uint64_t opening_ms(const struct conn *c)
{
    const struct conf_proxy *conf = conn_conf(c);
    return (uint64_t)conf->timeouts.connect_ms + conf->timeouts.handshake_ms;
}

void conn_opening_start(struct conn *c)
{
    bool requests = c->http != NULL || c->h2 != NULL;
    if (c->state != CONN_OPENING && !requests) { /* a stream that a relay sends on is in it */
        conn_set_state(c, CONN_OPENING);
    }
    uint32_t try_ms = conn_transport_try_ms(c);
    conn_onward_deadline(c, try_ms > 0 ? try_ms : opening_ms(c));
    if ((c->relay && conn_onward_new(c) == NULL) || !conn_leg_watch(c, conn_downstream(c))) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    if (!requests) {
        conn_leg_want(conn_downstream(c), 0);
    }
    pool_take(c);
}

bool conn_opening_fall_back(struct conn *c, enum conn_why outcome)
{
    bool tries = conn_transport_try_ms(c) > 0;
    if (!conn_onward_is_sought(c) || goes_by_stream(c) || !tries) {
        return false;
    }
    struct conn_carrier *k = conn_ride_on(c)->of;
    if (!k->told) {
        k->told = true;
        conn_transport_tell(c->worker, &k->conn->upstream, outcome);
    }
    conn_ride_end(conn_ride_on(c));
    (void)conn_transport_fall_back(c, outcome);
    c->upstream = conn_balance_address(c);
    conn_onward_directly(c);
    return true;
}

/* Another stream in place of the one that it has, if it has one. */
static void take_another(struct conn *c)
{
    if (goes_by_stream(c)) {
        conn_leg_close(conn_upstream(c), true);
        if (c->state == CONN_OPENING) {
            conn_leg_want(conn_downstream(c), 0); /* until it has a stream again */
        }
    }
    conn_ride_end(conn_ride_on(c));
    pool_take(c);
}

bool conn_opening_again(struct conn *c, enum conn_reason reason)
{
    bool handshake = conn_balance_handshake(reason);
    bool unreached = handshake || reason == CONN_CLOSE_CONNECT_REFUSED ||
                     reason == CONN_CLOSE_CONNECT_FAILED || reason == CONN_CLOSE_CONNECT_TIMEOUT;
    /* A peer can refuse us after our side of the handshake: then there are streams already. */
    bool said = goes_by_stream(c) && (conn_upstream(c)->hs.status != 0 || conn_early_said(c));
    if (!unreached || said || !conn_onward_is_sought(c) || c->balance == NULL ||
        !conn_balance_next(c, handshake)) {
        return false;
    }
    take_another(c);
    return true;
}

/* Its peer has not looked at it, and so another session may have it: one that was told to leave
 * meanwhile, say, is not taken again. */
static bool is_unseen(const struct hbone_stream *st)
{
    return !st->asked || (st->reset && st->error == HBONE_ERROR_REFUSED);
}

static void once_more(struct conn *c)
{
    c->stream_again = true;
    take_another(c);
}

bool conn_opening_lost(struct conn *c)
{
    const struct hbone_stream *st = &conn_upstream(c)->hs;
    if (!conn_onward_is_sought(c) || !goes_by_stream(c) || c->stream_again || st->status != 0 ||
        !(is_unseen(st) || !conn_early_said(c))) {
        return false;
    }
    once_more(c);
    return true;
}

void conn_opening_timeout(struct conn *c)
{
    if (!conn_opening_fall_back(c, CONN_WHY_SILENT)) {
        c->sys_errno = ETIMEDOUT;
        conn_onward_failed(c, CONN_CLOSE_CONNECT_TIMEOUT);
    }
}

/* Its session stands. The route may have changed while it waited. */
void conn_opening_begin(struct conn *c)
{
    struct conn_carrier *k = conn_ride_on(c)->of;
    struct conn_leg *leg = conn_upstream(c);
    const struct route *r = conn_route(c);
    const struct tls_peer *peer = conn_leg_peer(&k->conn->peer);
    struct str id = peer != NULL ? (struct str){peer->id, peer->id_len} : STR_NONE;
    char authority[NET_ADDR_TEXT_MAX];
    if (r == NULL || !route_still_allows(r, c->transport, id)) {
        conn_close(c, CONN_CLOSE_ROUTE_CHANGED);
        return;
    }
    struct net_addr to = conn_balance_address(c);
    net_addr_text(&to, authority);
    if (!hbone_stream_open(k->hbone, str_of(authority), &leg->hs, c)) {
        conn_onward_failed(c, CONN_CLOSE_SESSION_LOST);
        return;
    }
    leg->kind = CONN_LEG_STREAM;
    /* Somebody who takes HBONE is there: that was the question, and not how soon the workload is.
     */
    conn_onward_deadline(c, opening_ms(c));
    counter_add(&c->worker->counters.streams[CONF_OUTBOUND], 1);
    conn_leg_want(leg, LOOP_READ);
    if (!conn_early_begin(c)) {
        conn_onward_failed(c, CONN_CLOSE_SESSION_LOST);
    }
}

void conn_opening_step(struct conn *c)
{
    struct conn_leg *leg = conn_upstream(c);
    const struct hbone_stream *st = &leg->hs;
    leg->ready = 0;
    if (!goes_by_stream(c)) {
        return;
    }
    if (st->status != 0 && conn_transport_try_ms(c) > 0) {
        conn_transport_tell(c->worker, &c->upstream, CONN_WHY_TRIED);
    }
    if (st->status == 200) {
        conn_transport_count(c);
        if (conn_catch_up(c)) {
            conn_onward_stands(c);
        }
    } else if (st->status != 0) {
        c->peer_status = st->status;
        conn_onward_failed(c, CONN_CLOSE_STREAM_REFUSED);
    } else if (st->reset && is_unseen(st) && !c->stream_again) {
        once_more(c);
    } else if (st->reset) {
        c->sys_errno = ECONNRESET;
        conn_onward_failed(c, st->session != NULL ? CONN_CLOSE_STREAM_REFUSED
                                                  : CONN_CLOSE_SESSION_LOST);
    } else {
        conn_leg_want(leg, LOOP_READ);
        conn_early_step(c);
    }
}
