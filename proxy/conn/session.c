/*
 * A connection that carries others: mTLS, and in it a session (hbone.h) of which each stream is a
 * connection of its own, with its own state, verdict, log line and counters. Here is the carrier:
 * its session between the socket and the streams, keep-alive, leaving, the end. What a stream does
 * is in stream.c, which carrier an outbound one takes in pool.c.
 *
 * The carrier is judged like any connection as far as its peer's certificate goes; what is allowed
 * is asked of each stream. When it ends all of its streams end, and with the same reason where that
 * is one of ours.
 */
#include "conn_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum {
    LEAVE_MS = 1000, /* from the first GOAWAY to the one that counts */
};

static struct conn_carrier *carrier_of(struct loop_deferred *d)
{
    return (struct conn_carrier *)((char *)d - offsetof(struct conn_carrier, turn));
}

/* --- its streams ------------------------------------------------------------------------------ */

void conn_ride_begin(struct conn *c, struct conn_ride *r, struct conn_carrier *k)
{
    *r = (struct conn_ride){.conn = c, .of = k, .next = k->users};
    if (k->users != NULL) {
        k->users->prev = r;
    }
    k->users = r;
    k->n_users++;
    k->total++;
}

void conn_ride_end(struct conn_ride *r)
{
    struct conn_carrier *k = r->of;
    if (k == NULL) {
        return;
    }
    struct conn *c = r->conn;
    if (r == &c->via) {
        conn_identity_hand_back(c);
    }
    *(r->prev != NULL ? &r->prev->next : &k->users) = r->next;
    if (r->next != NULL) {
        r->next->prev = r->prev;
    }
    *r = (struct conn_ride){.of = NULL};
    k->n_users--;
    if (k->n_users == 0) {
        k->idle_since_ms = loop_now_ms(c->worker->loop);
        if (k->conn->state == CONN_SESSION) {
            loop_defer(c->worker->loop, &k->turn); /* it may have waited for that */
        }
    }
}

/* What a stream that is lost with its carrier says. */
static enum conn_reason inherited(enum conn_reason r)
{
    static const bool lost[CONN_REASON_COUNT] = {
        [CONN_CLOSE_DONE] = true,           [CONN_CLOSE_IDLE] = true,
        [CONN_CLOSE_TRUNCATED] = true,      [CONN_CLOSE_DOWNSTREAM_RESET] = true,
        [CONN_CLOSE_UPSTREAM_RESET] = true, [CONN_CLOSE_SESSION_SILENT] = true,
        [CONN_CLOSE_SESSION_ABUSED] = true,
    };
    return lost[r] ? CONN_CLOSE_SESSION_LOST : r;
}

/* Its relay's side is another one. */
static enum conn_reason said_of(const struct conn *user, const struct conn *carrier,
                                enum conn_reason r)
{
    bool onward = user->direction != carrier->direction;
    r = inherited(r);
    return onward && r == CONN_CLOSE_HANDSHAKE_FAILED    ? CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED
           : onward && r == CONN_CLOSE_HANDSHAKE_TIMEOUT ? CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT
                                                         : r;
}

/* What a session that did not come to be says of its place; NONE: whoever is there has answered. */
static enum conn_why outcome_of(const struct conn *c, enum conn_reason r)
{
    enum { NO_APPLICATION_PROTOCOL = 120 };
    static const enum conn_why outcomes[CONN_REASON_COUNT] = {
        [CONN_CLOSE_CONNECT_REFUSED] = CONN_WHY_REFUSED,
        [CONN_CLOSE_CONNECT_FAILED] = CONN_WHY_REFUSED,
        [CONN_CLOSE_CONNECT_TIMEOUT] = CONN_WHY_SILENT,
        [CONN_CLOSE_HANDSHAKE_TIMEOUT] = CONN_WHY_SILENT,
        [CONN_CLOSE_SESSION_NOT_H2] = CONN_WHY_NOT_HBONE,
    };
    const struct tls_failure *f = c->peer.kind == CONN_LEG_TLS ? c->peer.tls.failure : NULL;
    if (r != CONN_CLOSE_HANDSHAKE_FAILED || f == NULL) {
        return outcomes[r];
    }
    bool nobody =
        f->shown_id[0] == '\0' && c->peer.tls.peer == NULL &&
        (f->step == TLS_STEP_HELLO || f->step == TLS_STEP_CLOSED || f->step == TLS_STEP_PROTOCOL);
    return nobody || f->alert_received == NO_APPLICATION_PROTOCOL ? CONN_WHY_NOT_HBONE
                                                                  : CONN_WHY_NONE;
}

void conn_carrier_end(struct conn *c, enum conn_reason reason)
{
    struct conn_carrier *k = c->carrier;
    enum conn_why outcome = c->direction == CONF_OUTBOUND ? outcome_of(c, reason) : CONN_WHY_NONE;
    bool lost = c->direction == CONF_OUTBOUND && inherited(reason) == CONN_CLOSE_SESSION_LOST &&
                reason != CONN_CLOSE_SESSION_ABUSED;
    pool_remove(k);
    while (k->users != NULL) {
        struct conn *user = k->users->conn;
        if (outcome != CONN_WHY_NONE && conn_opening_fall_back(user, outcome)) {
            continue;
        }
        if (c->direction == CONF_OUTBOUND && conn_opening_again(user, reason)) {
            continue;
        }
        if (lost && conn_opening_lost(user)) {
            continue;
        }
        enum conn_reason said = said_of(user, c, reason);
        if (c->direction == CONF_OUTBOUND && conn_onward_survives(user, said)) {
            continue;
        }
        conn_close(user, said);
        conn_close(user, said); /* one that lingers: nothing more can be said to it */
    }
    if (k->hbone != NULL) {
        hbone_session_goaway(k->hbone);
        hbone_session_goaway(k->hbone);
        (void)hbone_session_turn(k->hbone);
        hbone_session_stop(k->hbone);
    }
}

void conn_carrier_free(struct conn *c)
{
    struct conn_carrier *k = c->carrier;
    if (k != NULL) {
        hbone_session_free(k->hbone);
        tls_party_unref(k->party);
        pool_route_deinit(&k->route);
        free(k);
        c->carrier = NULL;
    }
}

/* --- what the session tells ------------------------------------------------------------------- */

static void on_wake(void *arg)
{
    struct conn *c = (struct conn *)arg;
    loop_defer(c->worker->loop, &c->carrier->turn);
}

static void on_request(void *arg, int32_t id, struct str authority)
{
    conn_stream_new((struct conn *)arg, id, authority);
}

static void on_bad_request(void *arg)
{
    struct conn *c = (struct conn *)arg;
    struct log_line l;
    counter_add(&c->worker->counters.streams_bad, 1);
    log_begin(&l, c->worker->log, LOG_WARN, "stream_refused");
    conn_record_common(&l, c);
    log_str(&l, "step", "not_a_connect");
    log_uint(&l, "status", 400);
    log_end(&l);
}

static struct conn_leg *leg_of(struct conn *c, const struct hbone_stream *st)
{
    return st == &c->peer.hs ? &c->peer : &c->app;
}

/* Straight to the other side, where nothing waits before it. What fails is kept, and fails again
 * where it is looked at. A stream of another session wants room before what it is given. */
static bool on_data(struct hbone_stream *st, const uint8_t *p, size_t n)
{
    struct conn *c = (struct conn *)st->arg;
    struct conn_leg *to = conn_other(c, leg_of(c, st));
    return c->state == CONN_PUMP && c->snap == c->worker->current && !c->detecting &&
           to->kind != CONN_LEG_STREAM && stream_is_open(&to->s) && !to->s.failed &&
           !stream_blocked(&to->s) && n <= NET_SCRATCH_SIZE &&
           stream_write(&to->s, p, n) != STREAM_FAILED;
}

static void on_ready(struct hbone_stream *st, unsigned ready)
{
    struct conn *c = (struct conn *)st->arg;
    leg_of(c, st)->ready |= ready;
    conn_drive(c);
}

static const struct hbone_ops OPS = {
    .wake = on_wake,
    .request = on_request,
    .bad_request = on_bad_request,
    .data = on_data,
    .ready = on_ready,
};

/* --- running it ------------------------------------------------------------------------------- */

/* Whether nobody uses it, and nobody will. */
static bool is_spent(const struct conn *c)
{
    const struct conn_carrier *k = c->carrier;
    if (k->n_users > 0) {
        return false;
    }
    return k->leaving > 1 ||
           (c->direction == CONF_OUTBOUND && (c->worker->draining || !pool_is_current(k)));
}

static enum conn_reason spent_reason(const struct conn *c)
{
    return c->carrier->idle ? CONN_CLOSE_IDLE : CONN_CLOSE_SESSION_SPENT;
}

static void over(struct conn *c)
{
    const struct conn_carrier *k = c->carrier;
    enum hbone_abuse why = hbone_session_why(k->hbone);
    k->conn->sys_errno = c->peer.s.sys_errno;
    switch (why) {
    case HBONE_SILENT:
        conn_close(c, CONN_CLOSE_SESSION_SILENT);
        return;
    case HBONE_TOO_MANY_FRAMES:
    case HBONE_HEADER_BOMB:
    case HBONE_PROTOCOL:
        conn_record_session(c, hbone_abuse_name(why));
        conn_close(c, CONN_CLOSE_SESSION_ABUSED);
        return;
    case HBONE_NO_MEMORY:
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    case HBONE_OK:
    case HBONE_LOST:
        break;
    }
    if (c->peer.kind == CONN_LEG_TLS && c->peer.tls.failure != NULL && c->peer.s.bytes_read == 0) {
        conn_record_handshake(c, &c->peer, NULL, NULL); /* our certificate was refused */
        conn_close(c, CONN_CLOSE_HANDSHAKE_FAILED);
    } else if (c->peer.s.eof || !c->peer.s.failed) { /* after its last GOAWAY it reads no more */
        conn_close(c, !c->peer.s.eof && is_spent(c) ? spent_reason(c) : CONN_CLOSE_DONE);
    } else {
        conn_close(c, c->peer.s.truncated            ? CONN_CLOSE_TRUNCATED
                      : c->direction == CONF_INBOUND ? CONN_CLOSE_DOWNSTREAM_RESET
                                                     : CONN_CLOSE_UPSTREAM_RESET);
    }
}

static void turn(struct loop_deferred *d)
{
    struct conn_carrier *k = carrier_of(d);
    struct conn *c = k->conn;
    if (c->state != CONN_SESSION) {
        return;
    }
    if (!hbone_session_turn(k->hbone)) {
        over(c);
        return;
    }
    if (k->pooled && !hbone_session_usable(k->hbone)) {
        pool_remove(k);
        conn_record_leave(c, "peer");
    }
    if (is_spent(c)) {
        conn_close(c, spent_reason(c));
        return;
    }
    conn_leg_want(&c->peer, LOOP_READ | (stream_blocked(&c->peer.s) ? LOOP_WRITE : 0U));
}

void conn_session_step(struct conn *c)
{
    struct conn_carrier *k = c->carrier;
    bool read = (c->peer.ready & LOOP_READ) != 0 || stream_has_input(&c->peer.s);
    bool ok = true;
    c->peer.ready = 0;
    c->active_ms = loop_now_ms(c->worker->loop);
    while (ok && read) {
        ok = hbone_session_receive(k->hbone, c->active_ms);
        read = ok && stream_has_input(&c->peer.s);
    }
    if (ok) {
        loop_defer(c->worker->loop, &k->turn);
    } else {
        over(c);
    }
}

struct conn_carrier *conn_carrier_new(struct conn *c)
{
    struct conn_carrier *k = (struct conn_carrier *)calloc(1, sizeof(*k));
    if (k != NULL) {
        k->conn = c;
        k->turn.fn = turn;
        c->carrier = k;
    }
    return k;
}

/* How long it is kept without streams: an outbound one for half of the time, so that mostly it is
 * the client who ends it. */
static uint64_t idle_ms(const struct conn *c)
{
    return conn_conf(c)->timeouts.idle_session_ms / (c->direction == CONF_OUTBOUND ? 2U : 1U);
}

static uint64_t sooner(uint64_t ms, uint64_t at_ms, uint64_t now)
{
    uint64_t left = at_ms > now ? at_ms - now : 0;
    return left < ms ? left : ms;
}

static uint64_t next_tick_ms(const struct conn *c, uint64_t now)
{
    const struct conn_carrier *k = c->carrier;
    uint64_t next = HBONE_TICK_MS;
    if (k->leave_ms != 0 && k->leaving < 2) {
        next = sooner(next, k->leave_ms, now);
    } else if (k->leave_ms == 0 && k->n_users == 0) {
        next = sooner(next, k->idle_since_ms + idle_ms(c), now);
    }
    return next;
}

void conn_session_start(struct conn *c)
{
    struct conn_carrier *k = c->carrier;
    const struct hbone_spec spec = {.server = c->direction == CONF_INBOUND,
                                    .transport = &c->peer.s,
                                    .scratch = &c->worker->scratch,
                                    .ops = &OPS,
                                    .arg = c,
                                    .grown = &c->worker->windows_grown,
                                    .now_ms = loop_now_ms(c->worker->loop)};
    if (c->direction == CONF_OUTBOUND && !str_eq(tls_alpn(&c->peer.tls), tls_alpn_h2)) {
        conn_close(c, CONN_CLOSE_SESSION_NOT_H2);
        return;
    }
    conn_set_state(c, CONN_SESSION);
    k->hbone = hbone_session_new(&spec);
    if (k->hbone == NULL) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    k->idle_since_ms = loop_now_ms(c->worker->loop);
    counter_add(&c->worker->counters.sessions[c->direction], 1);
    loop_timer_arm(&c->timer, next_tick_ms(c, k->idle_since_ms));
    struct conn_ride *next;
    for (struct conn_ride *r = k->users; r != NULL; r = next) {
        next = r->next;
        conn_opening_begin(r->conn);
    }
    if (c->worker->draining && c->direction == CONF_INBOUND) {
        conn_session_leave(c, 0);
    }
    conn_session_step(c);
}

/* --- time and leaving ------------------------------------------------------------------------- */

void conn_session_leave(struct conn *c, uint64_t delay_ms)
{
    struct conn_carrier *k = c->carrier;
    uint64_t at = loop_now_ms(c->worker->loop) + delay_ms;
    if (c->state == CONN_SESSION && k->leaving == 0 && (k->leave_ms == 0 || at < k->leave_ms)) {
        k->leave_ms = at;
        loop_timer_arm(&c->timer, delay_ms);
    }
}

/* Two words: the first lets the peer send its new streams elsewhere, the second refuses them. */
static void leave_step(struct conn *c, uint64_t now)
{
    struct conn_carrier *k = c->carrier;
    if (k->leave_ms != 0 && now >= k->leave_ms && k->leaving < 2) {
        pool_remove(k);
        hbone_session_goaway(k->hbone);
        if (k->leaving == 0) {
            conn_record_leave(c, "us");
        }
        k->leaving = c->direction == CONF_OUTBOUND ? 2 : k->leaving + 1;
        k->leave_ms = now + LEAVE_MS;
        loop_defer(c->worker->loop, &k->turn);
    }
}

void conn_session_tick(struct conn *c)
{
    struct conn_carrier *k = c->carrier;
    uint64_t now = loop_now_ms(c->worker->loop);
    if (k->n_users == 0 && now - k->idle_since_ms >= idle_ms(c) && k->leave_ms == 0) {
        k->idle = true;
        k->leave_ms = now; /* the peer hears of it before its next stream is lost */
    }
    leave_step(c, now);
    if (!hbone_session_tick(k->hbone, now)) {
        over(c);
        return;
    }
    loop_timer_arm(&c->timer, next_tick_ms(c, now));
}

void worker_sessions_drain(struct conn_worker *w, uint32_t spread_ms)
{
    struct conn *next;
    for (struct conn *c = w->conns; c != NULL; c = next) {
        next = c->next;
        if (c->state == CONN_HTTP2) {
            conn_h2_drain(c, spread_ms > 0 ? balance_random(&w->random) % spread_ms : 0);
        } else if (c->state == CONN_SESSION) {
            bool spread = c->direction == CONF_INBOUND && spread_ms > 0;
            conn_session_leave(c, spread ? balance_random(&w->random) % spread_ms : 0);
        }
    }
}
