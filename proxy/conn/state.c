/* A connection's states and its one way out. */
#include "conn_priv.h"

#include <errno.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const state_names[CONN_STATE_COUNT] = {
#define STATE_NAME(name, text) [CONN_##name] = text,
    CONN_STATES(STATE_NAME)
#undef STATE_NAME
};

static const struct reason {
    const char *token;
    enum conn_end end;
    enum log_level level;
    const char *text;
} reasons[CONN_REASON_COUNT] = {
#define REASON_ROW(name, token, end, level, text)                                                  \
    [CONN_CLOSE_##name] = {token, CONN_END_##end, LOG_##level, text},
    CONN_REASONS(REASON_ROW)
#undef REASON_ROW
};

#define TO(s) (1U << CONN_##s)
/* From each state, where it may go. */
static const unsigned edges[CONN_STATE_COUNT] = {
    [CONN_NEW] = TO(PROXY_HEADER) | TO(FIRST_BYTES) | TO(HELLO) | TO(HELD) | TO(ASKED) |
                 TO(HANDSHAKE) | TO(DIAL) | TO(OPENING) | TO(CLOSED),
    [CONN_PROXY_HEADER] = TO(FIRST_BYTES) | TO(HELLO) | TO(HELD) | TO(ASKED) | TO(HANDSHAKE) |
                          TO(DIAL) | TO(OPENING) | TO(CLOSED),
    [CONN_FIRST_BYTES] = TO(HANDSHAKE) | TO(DIAL) | TO(DETECT) | TO(HTTP) | TO(CLOSED),
    [CONN_ASKED] = TO(CLOSED),
    [CONN_HELLO] = TO(HELD) | TO(HANDSHAKE) | TO(DIAL) | TO(CLOSED),
    [CONN_HELD] = TO(FIRST_BYTES) | TO(HELLO) | TO(HANDSHAKE) | TO(DIAL) | TO(OPENING) | TO(CLOSED),
    [CONN_DIAL] = TO(TUNNEL) | TO(HANDSHAKE) | TO(UPSTREAM_HANDSHAKE) | TO(PUMP) | TO(CLOSED),
    [CONN_TUNNEL] = TO(HANDSHAKE) | TO(UPSTREAM_HANDSHAKE) | TO(CLOSED),
    [CONN_HANDSHAKE] = TO(DIAL) | TO(OPENING) | TO(DETECT) | TO(SESSION) | TO(HTTP) | TO(HTTP2) |
                       TO(PUMP) | TO(LINGER) | TO(CLOSED),
    [CONN_SESSION] = TO(CLOSED),
    [CONN_OPENING] = TO(DIAL) | TO(DETECT) | TO(HTTP) | TO(PUMP) | TO(CLOSED),
    [CONN_UPSTREAM_HANDSHAKE] = TO(DIAL) | TO(PUMP) | TO(CLOSED),
    [CONN_DETECT] = TO(DIAL) | TO(HTTP) | TO(HTTP2) | TO(CLOSED),
    [CONN_HTTP] = TO(HTTP2) | TO(PUMP) | TO(LINGER) | TO(CLOSED),
    [CONN_HTTP2] = TO(LINGER) | TO(CLOSED),
    [CONN_PUMP] = TO(CLOSED),
    [CONN_LINGER] = TO(CLOSED),
    [CONN_CLOSED] = 0,
};
#undef TO

const char *conn_state_name(enum conn_state s)
{
    return state_names[s];
}

bool conn_state_may_follow(enum conn_state from, enum conn_state to)
{
    return (edges[from] & (1U << to)) != 0;
}

const char *conn_reason_token(enum conn_reason r)
{
    return reasons[r].token;
}

const char *conn_reason_text(enum conn_reason r)
{
    return reasons[r].text;
}

static void count_state(struct conn *c, enum conn_state s, uint64_t n)
{
    counter_add(&c->worker->counters.states[c->direction][s], n);
}

void conn_set_state(struct conn *c, enum conn_state next)
{
    if (!conn_state_may_follow(c->state, next)) {
        err_panic(__FILE__, __LINE__, "edge", "connection %u-%llu: %s -> %s", c->worker->index,
                  (unsigned long long)c->number, state_names[c->state], state_names[next]);
    }
    if (log_enabled(c->worker->log, LOG_DEBUG)) {
        struct log_line l;
        log_begin(&l, c->worker->log, LOG_DEBUG, "connection_state");
        log_fmt(&l, "conn", "%u-%llu", c->worker->index, (unsigned long long)c->number);
        log_str(&l, "from", state_names[c->state]);
        log_str(&l, "to", state_names[next]);
        log_end(&l);
    }
    loop_timer_disarm(&c->timer);
    if (c->state == CONN_HELD) {
        c->worker->n_held--;
    }
    count_state(c, c->state, UINT64_MAX); /* one less */
    c->state = next;
    if (next == CONN_HELD) {
        c->worker->n_held++;
    } else if (next == CONN_PUMP && c->balance != NULL) {
        conn_balance_succeeded(c);
    }
    if (next != CONN_CLOSED) {
        count_state(c, next, 1);
    }
    bool http = next == CONN_HTTP || next == CONN_HTTP2;
    if (next == CONN_DIAL || http || next == CONN_PUMP) {
        conn_live_known(c);
    }
    if (http || next == CONN_PUMP) {
        conn_live_allowed(c);
    }
}

/* --- birth and death -------------------------------------------------------------------------- */

void conn_release_snapshot(struct conn_worker *w, struct worker_snapshot *s)
{
    (void)w;
    POSTERN_ASSERT(s->uses > 0);
    if (--s->uses == 0) {
        snapshot_unref(s->snapshot);
        free(s);
    }
}

void conn_use_current(struct conn *c)
{
    struct worker_snapshot *old = c->snap;
    c->snap = c->worker->current;
    c->snap->uses++;
    conn_place(c);
    if (old != NULL) {
        conn_release_snapshot(c->worker, old);
    }
}

static void free_now(struct loop_deferred *d)
{
    struct conn *c = (struct conn *)((char *)d - offsetof(struct conn, free_later));
    struct conn_worker *w = c->worker;
    conn_leg_close(&c->app, false);
    conn_leg_close(&c->peer, false);
    conn_http_free(c);
    conn_h2_free(c);
    conn_told_free(c);
    conn_hello_free(c);
    conn_plain_free(c);
    conn_tunnel_free(c);
    conn_early_free(c);
    conn_carrier_free(c);
    conn_balance_free(c);
    free(c->onward);
    free(c->denial);
    conn_release_snapshot(w, c->snap);
    free(c);
}

static void on_timer(void *arg);

static struct conn *make(struct conn_worker *w, size_t listener, enum conf_direction direction,
                         int fd, const struct net_addr *source)
{
    struct conn *c = (struct conn *)calloc(1, sizeof(*c));
    if (c == NULL) {
        net_reset(fd);
        return NULL;
    }
    c->worker = w;
    c->listener = listener;
    c->source = *source;
    c->number = w->next_id++;
    c->free_later.fn = free_now;
    conn_use_current(c);
    const struct conf_listener *conf = conn_listener(c)->conf;
    c->direction = direction;
    c->protocol = conf->protocol;
    c->proxy_protocol = (uint8_t)conf->proxy_protocol;
    c->relay = conf->type == CONF_LISTENER_RELAY && direction == CONF_INBOUND;
    c->opened_ms = c->active_ms = loop_now_ms(w->loop);
    if (conf->limits.lifetime_s > 0) {
        c->ends_ms = c->opened_ms + conf->limits.lifetime_s * UINT64_C(1000);
        worker_watch_age(w);
    }
    loop_timer_init(&c->timer, w->loop, on_timer, c);
    c->app.s.fd = c->peer.s.fd = -1;
    if (fd != -1) {
        stream_plain_init(&conn_downstream(c)->s, &w->scratch, fd);
    }
    c->next = w->conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    w->conns = c;
    w->n_conns++;
    c->live = live_add(w->live, c, (uint16_t)listener, c->direction == CONF_OUTBOUND);
    atomic_fetch_add_explicit(&w->shared->open, 1, memory_order_relaxed);
    if (w->shared->listeners != NULL) {
        struct conn_shared_listener *l = &w->shared->listeners[listener];
        atomic_fetch_add_explicit(&l->open, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&l->accepted, 1, memory_order_relaxed);
    }
    counter_add(&w->counters.accepted[c->direction], 1);
    count_state(c, CONN_NEW, 1);
    return c;
}

struct conn *conn_new(struct conn_worker *w, size_t listener, int fd, const struct net_addr *source)
{
    const struct snapshot_files *files = w->current->snapshot->files;
    return make(w, listener, files->listeners[listener].conf->direction, fd, source);
}

/* It was not accepted by its listener, and is nobody's connection there. */
static void uncount(struct conn *c)
{
    if (c->worker->shared->listeners != NULL) {
        struct conn_shared_listener *l = &c->worker->shared->listeners[c->listener];
        atomic_fetch_sub_explicit(&l->open, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&l->accepted, 1, memory_order_relaxed);
        c->uncounted = true;
    }
}

struct conn *conn_new_session(struct conn_worker *w, size_t listener)
{
    const struct net_addr nobody = {.len = 0};
    struct conn *c = make(w, listener, CONF_OUTBOUND, -1, &nobody);
    if (c != NULL) {
        c->target = NULL;
        c->passthrough = false;
        c->ends_ms = 0;
        uncount(c);
    }
    return c;
}

static void unlist(struct conn *c)
{
    struct conn_worker *w = c->worker;
    conn_expiry_end(c);
    live_remove(w->live, c->live);
    c->verdict.rule = NULL;
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        w->conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    w->n_conns--;
    conn_balance_end(c);
    conn_identity_leave(c);
    atomic_fetch_sub_explicit(&w->shared->open, 1, memory_order_relaxed);
    if (w->shared->listeners != NULL && !c->uncounted) {
        struct conn_shared_listener *l = &w->shared->listeners[c->listener];
        atomic_fetch_sub_explicit(&l->open, 1, memory_order_relaxed);
        if (c->reason == CONN_CLOSE_DENIED || c->reason == CONN_CLOSE_NOT_HTTP ||
            c->reason == CONN_CLOSE_PROTOCOL_UNKNOWN || c->reason == CONN_CLOSE_HANDSHAKE_FAILED) {
            atomic_fetch_add_explicit(&l->denied, 1, memory_order_relaxed);
        }
    }
}

/* Our last word is said: end our direction and read away what still comes, for a while, so that the
 * kernel does not answer late bytes with a reset that would overtake it. */
static void begin_linger(struct conn *c)
{
    conn_leg_end(conn_upstream(c), c->reason != CONN_CLOSE_ANSWERED);
    struct conn_leg *down = conn_downstream(c);
    conn_set_state(c, CONN_LINGER);
    loop_timer_arm(&c->timer, CONN_LINGER_MS);
    (void)stream_shut(&down->s);
    if (!stream_blocked(&down->s) && down->kind != CONN_LEG_STREAM) {
        (void)shutdown(down->s.fd, SHUT_WR);
    }
    conn_leg_want(down, LOOP_READ | (stream_blocked(&down->s) ? LOOP_WRITE : 0U));
}

void conn_close(struct conn *c, enum conn_reason reason)
{
    if (c->state == CONN_CLOSED) {
        return;
    }
    bool first = !c->closing;
    if (first) {
        c->closing = true;
        c->reason = reason;
        conn_count_bytes(c);
        conn_detect_end(c);
        conn_balance_ended(c, reason);
        counter_add(&c->worker->counters.closed[c->direction][reason], 1);
        if (c->carrier != NULL) {
            conn_carrier_end(c, reason);
        }
        if (c->h2 != NULL) {
            conn_h2_end(c, reason);
        }
        conn_record_close(c);
        conn_http_leave(c);
        if (reasons[reason].end == CONN_END_LINGER && c->direction == CONF_INBOUND &&
            (c->state == CONN_HANDSHAKE || c->state == CONN_HTTP || c->state == CONN_HTTP2)) {
            begin_linger(c);
            return;
        }
    }
    bool lingered = c->state == CONN_LINGER;
    conn_stream_refuse(c);
    conn_set_state(c, CONN_CLOSED);
    /* A side whose alert or last answer was not waited for gets it in order. */
    bool reset = reasons[c->reason].end != CONN_END_ORDER && !lingered;
    bool alerted = c->reason == CONN_CLOSE_HANDSHAKE_FAILED && c->peer.kind == CONN_LEG_TLS;
    bool alerted_up =
        c->reason == CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED && c->app.kind == CONN_LEG_TLS;
    conn_leg_end(&c->app, reset && !alerted_up);
    conn_leg_end(&c->peer, reset && !alerted);
    conn_ride_end(&c->via);
    conn_onward_leave(c);
    unlist(c);
    loop_defer(c->worker->loop, &c->free_later);
    worker_conn_gone(c->worker);
}

/* False: there is nothing more to come. */
static bool read_away(struct conn *c, struct conn_leg *down)
{
    size_t got = 0;
    if (down->kind == CONN_LEG_STREAM) {
        enum stream_outcome o = stream_read(&down->s, c->worker->scratch.plain, NET_READ_MIN, &got);
        c->linger_bytes += (uint32_t)got;
        return o == STREAM_OK || o == STREAM_AGAIN;
    }
    ssize_t n = recv(down->s.fd, c->worker->scratch.raw, NET_READ_MIN, 0);
    c->linger_bytes += n > 0 ? (uint32_t)n : 0;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

void conn_cut(struct conn *c, enum conn_reason reason)
{
    conn_close(c, reason);
    if (c->state == CONN_LINGER) {
        conn_close(c, reason);
    }
}

void conn_linger_step(struct conn *c)
{
    struct conn_leg *down = conn_downstream(c);
    if (stream_blocked(&down->s)) {
        enum stream_outcome o = stream_flush(&down->s);
        if (o == STREAM_OK && down->kind != CONN_LEG_STREAM) {
            (void)shutdown(down->s.fd, SHUT_WR);
        } else if (o == STREAM_FAILED) {
            conn_close(c, c->reason);
            return;
        }
    }
    if ((down->ready & LOOP_READ) != 0) {
        if (!read_away(c, down) || c->linger_bytes > CONN_LINGER_BYTES) {
            conn_close(c, c->reason);
            return;
        }
    }
    down->ready = 0;
    conn_leg_want(down, LOOP_READ | (stream_blocked(&down->s) ? LOOP_WRITE : 0U));
}

/* --- the driver ------------------------------------------------------------------------------- */

/* After a change a connection is judged before it goes on, though its turn to be looked at has not
 * come: whoever is to be cut moves no byte from the moment of the change. */
static bool is_up_to_date(struct conn *c)
{
    bool asleep = c->state == CONN_NEW || c->state == CONN_HELD || c->state == CONN_LINGER ||
                  c->state == CONN_CLOSED;
    return asleep || conn_catch_up(c);
}

void conn_drive(struct conn *c)
{
    if (!is_up_to_date(c)) {
        return;
    }
    switch (c->state) {
    case CONN_PROXY_HEADER:
        conn_told_step(c);
        break;
    case CONN_FIRST_BYTES:
        conn_plain_step(c);
        break;
    case CONN_HELLO:
        conn_hello_step(c);
        break;
    case CONN_ASKED:
        conn_asked_step(c);
        break;
    case CONN_DIAL:
    case CONN_TUNNEL:
    case CONN_HANDSHAKE:
    case CONN_UPSTREAM_HANDSHAKE:
        if (c->direction == CONF_INBOUND) {
            conn_inbound_step(c);
        } else {
            conn_outbound_step(c);
        }
        break;
    case CONN_DETECT:
        conn_detect_step(c);
        break;
    case CONN_HTTP:
        conn_http_step(c);
        break;
    case CONN_HTTP2:
        conn_h2_step(c);
        break;
    case CONN_PUMP:
        conn_pump_step(c);
        break;
    case CONN_LINGER:
        conn_linger_step(c);
        break;
    case CONN_SESSION:
        conn_session_step(c);
        break;
    case CONN_OPENING:
        if (c->direction == CONF_INBOUND && c->onward == NULL) {
            conn_stream_start(c);
        } else {
            conn_opening_step(c);
        }
        break;
    case CONN_NEW:
    case CONN_HELD:
    case CONN_CLOSED:
    case CONN_STATE_COUNT:
        break;
    }
}

static void on_idle(struct conn *c)
{
    uint64_t idle = loop_now_ms(c->worker->loop) - c->active_ms;
    uint64_t limit = conn_conf(c)->timeouts.idle_tcp_ms;
    if (c->app.s.broken || c->peer.s.broken) { /* its last words have had their time */
        conn_close(c, conn_downstream(c)->s.broken ? CONN_CLOSE_DOWNSTREAM_RESET
                                                   : CONN_CLOSE_UPSTREAM_RESET);
    } else if (idle >= limit) {
        conn_close(c, CONN_CLOSE_IDLE);
    } else {
        loop_timer_arm(&c->timer, limit - idle);
    }
}

static void on_timer(void *arg)
{
    struct conn *c = (struct conn *)arg;
    switch (c->state) {
    case CONN_HELD:
        if (c->resume) { /* its turn has not come, though what it waits for may have */
            conn_resume(c);
        }
        if (c->state != CONN_HELD) {
            break;
        }
        conn_close(c, !conn_identity_there(c) ? CONN_CLOSE_NO_IDENTITY
                      : !conn_has_address(c)  ? CONN_CLOSE_NO_ADDRESS
                                              : CONN_CLOSE_NO_STATE);
        break;
    case CONN_ASKED:
        conn_close(c, CONN_CLOSE_CANARY);
        break;
    case CONN_DIAL:
        conn_dial_timeout(c);
        break;
    case CONN_OPENING:
        conn_opening_timeout(c);
        break;
    case CONN_TUNNEL:
        c->sys_errno = ETIMEDOUT;
        conn_close(c, CONN_CLOSE_CONNECT_TIMEOUT);
        break;
    case CONN_PROXY_HEADER:
        conn_told_timeout(c);
        break;
    case CONN_FIRST_BYTES:
        conn_plain_timeout(c);
        break;
    case CONN_HELLO:
        conn_close(c, CONN_CLOSE_HANDSHAKE_TIMEOUT);
        break;
    case CONN_HANDSHAKE:
    case CONN_UPSTREAM_HANDSHAKE:
        conn_record_handshake_timeout(c, c->state == CONN_HANDSHAKE ? &c->peer : &c->app);
        if (conn_outbound_another(c) || conn_inbound_another(c)) {
            break;
        }
        conn_close(c, c->state == CONN_HANDSHAKE ? CONN_CLOSE_HANDSHAKE_TIMEOUT
                                                 : CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT);
        break;
    case CONN_DETECT:
        conn_detect_timeout(c);
        break;
    case CONN_SESSION:
        conn_session_tick(c);
        break;
    case CONN_HTTP:
        conn_http_timeout(c);
        break;
    case CONN_HTTP2:
        conn_h2_timeout(c);
        break;
    case CONN_PUMP:
        on_idle(c);
        break;
    case CONN_LINGER:
        conn_close(c, c->reason);
        break;
    case CONN_NEW:
    case CONN_CLOSED:
    case CONN_STATE_COUNT:
        break;
    }
}
