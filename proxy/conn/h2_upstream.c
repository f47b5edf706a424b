/* HTTP/2: the workload's connection, which is made when the first request wants it. */
#include "h2_priv.h"

#include <errno.h>
#include <string.h>

static void close_leg(struct conn *c, bool reset)
{
    struct conn_leg *up = conn_upstream(c);
    if (stream_is_open(&up->s)) {
        conn_leg_end(up, reset);
    }
    conn_onward_leave(c);
    conn_balance_leave(c);
    c->h2->up_state = H2_UP_NONE;
    c->h2->up_deadline_ms = 0;
}

/* Its session is gone before anybody is told, so that nobody can use it. */
void h2_upstream_lost(struct conn *c, unsigned status, const char *reason, bool reset)
{
    struct conn_http2 *h = c->h2;
    close_leg(c, reset);
    h->up = http2_session_free(h->up);
    h2_hold(c);
    for (struct h2_exchange *x = h->open; x != NULL; x = x->next) {
        if (x->in_flight) {
            h2_exchange_lost(x, status, reason);
        }
    }
    h2_release(c);
}

static void unreachable(struct conn *c, enum conn_reason why, int sys_errno)
{
    bool late = why == CONN_CLOSE_CONNECT_TIMEOUT || why == CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT;
    c->sys_errno = sys_errno;
    conn_balance_ended(c, why);
    /* A peer that is refused is told so by TLS. */
    h2_upstream_lost(c, late ? 504 : 503, conn_reason_token(why),
                     why != CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED);
}

static void set_deadline(struct conn *c, uint64_t delay_ms)
{
    c->h2->up_deadline_ms = loop_now_ms(c->worker->loop) + delay_ms;
    h2_arm(c);
}

/* --- it stands -------------------------------------------------------------------------------- */

static void stands(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    c->h2->up_state = H2_UP_OPEN;
    c->h2->up_deadline_ms = 0;
    h2_time_stands(c);
    conn_balance_succeeded(c);
    up->ready |= LOOP_WRITE;
    h2_wake(c);
}

/* Whoever agreed to nothing may speak it all the same: behind a port that carries bytes. */
static void agreed(struct conn *c)
{
    struct str alpn = tls_alpn(&conn_upstream(c)->tls);
    if (alpn.n > 0 && !str_eq(alpn, tls_alpn_h2)) {
        h2_upstream_lost(c, 502, "upstream_not_http2", false);
    } else {
        stands(c);
    }
}

static void shake_hands(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    switch (conn_tls_step(c, up)) {
    case STREAM_OK:
        agreed(c);
        return;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    conn_record_handshake(c, up, NULL, NULL);
    unreachable(c, CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED, 0);
}

static void shake_hands_first(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    c->h2->up_state = H2_UP_HANDSHAKE;
    set_deadline(c, conn_conf(c)->timeouts.handshake_ms);
    if (conn_tls_connect(c, up)) {
        shake_hands(c);
    }
}

static void tunnel(struct conn *c, enum stream_outcome o)
{
    if (o == STREAM_OK) {
        shake_hands_first(c);
    } else if (o != STREAM_AGAIN) {
        unreachable(c, CONN_CLOSE_TUNNEL_REFUSED, c->sys_errno);
    }
}

static void connected(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    if (!c->relay) {
        stands(c);
    } else if (conn_tunnel_wanted(c)) {
        c->h2->up_state = H2_UP_TUNNEL;
        set_deadline(c, conn_conf(c)->timeouts.connect_ms);
        tunnel(c, conn_tunnel_start(c, up));
    } else {
        shake_hands_first(c);
    }
}

/* --- making it -------------------------------------------------------------------------------- */

/* True: a descriptor connects, or is connected. */
static bool dial(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    bool done = false;
    int fd = conn_dial_fd(c, &done);
    if (fd == -1) {
        unreachable(c, conn_dial_reason(errno), errno);
        return false;
    }
    stream_plain_init(&up->s, &c->worker->scratch, fd);
    c->h2->up_state = H2_UP_DIALING;
    if (!conn_leg_watch(c, up)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    if (!c->relay && !conn_prelude_send(c, up)) {
        unreachable(c, CONN_CLOSE_CONNECT_FAILED, up->s.sys_errno);
        return false;
    }
    if (done) {
        connected(c);
    } else {
        set_deadline(c, conn_dial_ms(c));
        conn_leg_want(up, LOOP_WRITE);
    }
    return c->state == CONN_HTTP2 && c->h2->up_state != H2_UP_NONE;
}

static void dial_again(struct conn *c)
{
    conn_leg_close(conn_upstream(c), true);
    (void)dial(c);
}

static void timed_out(struct conn *c)
{
    enum h2_upstream at = c->h2->up_state;
    if (at == H2_UP_DIALING && c->dial_left > 0) {
        dial_again(c);
        return;
    }
    if (at == H2_UP_DIALING || at == H2_UP_TUNNEL) {
        unreachable(c, CONN_CLOSE_CONNECT_TIMEOUT, ETIMEDOUT);
        return;
    }
    conn_record_handshake_timeout(c, conn_upstream(c));
    unreachable(c, CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT, ETIMEDOUT);
}

void h2_upstream_step(struct conn *c, int sys_errno)
{
    struct conn_leg *up = conn_upstream(c);
    if (c->h2->up_state == H2_UP_OPENING && sys_errno == ETIMEDOUT) {
        conn_opening_timeout(c);
        return;
    }
    if (sys_errno == ETIMEDOUT) {
        timed_out(c);
        return;
    }
    switch (c->h2->up_state) {
    case H2_UP_OPENING:
        conn_opening_step(c);
        return;
    case H2_UP_HANDSHAKE:
        shake_hands(c);
        return;
    case H2_UP_TUNNEL:
        tunnel(c, conn_tunnel_step(c, up));
        return;
    case H2_UP_DIALING:
        break;
    case H2_UP_NONE:
    case H2_UP_OPEN:
        return;
    }
    int e = up->s.failed ? up->s.sys_errno : net_dial_error(up->s.fd);
    if (e == 0) {
        connected(c);
    } else if (c->dial_left > 0) {
        dial_again(c);
    } else {
        unreachable(c, conn_dial_reason(e), e);
    }
}

bool h2_upstream_ensure(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    if (h->up != NULL) {
        return true;
    }
    const struct http2_spec spec = {.ops = &h2_up_ops,
                                    .arg = c,
                                    .head_bytes = conn_conf(c)->limits.request_head_bytes,
                                    .grown = &c->worker->windows_grown,
                                    .now_ms = loop_now_ms(c->worker->loop)};
    h->up = http2_session_new(&spec);
    if (h->up == NULL) {
        h2_upstream_lost(c, 503, "no_memory", true);
        return false;
    }
    enum conn_reason why;
    if (conn_onward_by_session(c, &why)) {
        c->sys_errno = 0;
        c->stream_again = false;
        h->up_state = H2_UP_OPENING;
        conn_opening_start(c);
        return c->state == CONN_HTTP2 && h->up_state != H2_UP_NONE;
    }
    if (why == CONN_CLOSE_DONE) {
        conn_dial_begin(c);
        return dial(c);
    }
    if (c->state == CONN_HTTP2) {
        unreachable(c, why, 0);
    }
    return false;
}

/* --- by a session ----------------------------------------------------------------------------- */

bool conn_h2_seeks_onward(const struct conn *c)
{
    return c->h2->up_state == H2_UP_OPENING;
}

void conn_h2_onward_ms(struct conn *c, uint64_t ms)
{
    set_deadline(c, ms);
}

void conn_h2_onward_stands(struct conn *c)
{
    conn_live_known(c);
    stands(c);
}

void conn_h2_onward(struct conn *c, enum conn_onward_news news, enum conn_reason why)
{
    if (news == ONWARD_FAILED) {
        unreachable(c, why, c->sys_errno);
    } else if (news == ONWARD_DIRECTLY) {
        conn_dial_begin(c);
        (void)dial(c);
    } else {
        conn_upstream(c)->ready |= LOOP_READ; /* it reads as reset */
    }
    if (c->state == CONN_HTTP2) {
        conn_h2_step(c);
    }
}
