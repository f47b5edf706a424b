/* HTTP/1.1 inbound: the workload's connection, which is made when the first request wants it. */
#include "http_priv.h"

#include <errno.h>
#include <string.h>

void http_close_upstream(struct conn *c, bool reset)
{
    struct conn_leg *up = conn_upstream(c);
    if (stream_is_open(&up->s)) {
        conn_leg_end(up, reset);
    }
    conn_onward_leave(c);
    conn_balance_leave(c);
    c->http->up = UP_NONE;
    c->http->up_used = false;
    c->http->up_broken = false;
    buf_reset(&c->http->rin);
    buf_reset(&c->http->held);
}

static void answer_unreachable(struct conn *c, enum conn_reason why, int sys_errno)
{
    bool late = why == CONN_CLOSE_CONNECT_TIMEOUT || why == CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT;
    c->sys_errno = sys_errno;
    conn_balance_ended(c, why);
    /* A peer that is refused is told so by TLS. */
    http_close_upstream(c, why != CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED);
    /* What is left of the request cannot be sent anywhere. */
    bool rest = c->http->req_phase != REQ_DONE;
    c->http->res_phase = RES_NONE;
    http_answer(c, late ? 504 : 503, conn_reason_token(why), NULL,
                rest ? CONN_CLOSE_BAD_RESPONSE : CONN_CLOSE_DONE);
}

/* --- it stands -------------------------------------------------------------------------------- */

static void stands(struct conn *c)
{
    struct conn_http *h = c->http;
    struct conn_leg *up = conn_upstream(c);
    h->up = UP_OPEN;
    conn_balance_succeeded(c);
    http_time_next(c);
    up->ready |= LOOP_WRITE; /* of a plain one the head waits in its stream */
    if (h->held.len > 0) {
        struct buf held = h->held;
        h->held = (struct buf)BUF_INIT(held.max);
        if (!http_send(c, up, buf_head(&held), buf_len(&held)) || !http_send_emit(c, up)) {
            h->up_broken = true;
        }
        buf_reset(&held);
    }
}

static void shake_hands(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    switch (conn_tls_step(c, up)) {
    case STREAM_OK:
        stands(c);
        return;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    conn_record_handshake(c, up, NULL, NULL);
    answer_unreachable(c, CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED, 0);
}

static void shake_hands_first(struct conn *c);

static void tunnel(struct conn *c, enum stream_outcome o)
{
    if (o == STREAM_OK) {
        shake_hands_first(c);
    } else if (o != STREAM_AGAIN) {
        answer_unreachable(c, CONN_CLOSE_TUNNEL_REFUSED, c->sys_errno);
    }
}

static void connected(struct conn *c)
{
    if (!c->relay) {
        stands(c);
    } else if (conn_tunnel_wanted(c)) {
        c->http->up = UP_TUNNEL;
        http_set_deadline(c, conn_conf(c)->timeouts.connect_ms);
        tunnel(c, conn_tunnel_start(c, conn_upstream(c)));
    } else {
        shake_hands_first(c);
    }
}

static void shake_hands_first(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    c->http->up = UP_HANDSHAKE;
    http_set_deadline(c, conn_conf(c)->timeouts.handshake_ms);
    if (conn_tls_connect(c, up)) {
        shake_hands(c);
    }
}

/* --- making it -------------------------------------------------------------------------------- */

/* The next address; what was written already is kept for it. */
static void dial_again(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    struct buf kept = up->s.out;
    bool done = false;
    up->s.out = (struct buf)BUF_INIT(kept.max);
    conn_leg_close(up, true);
    int fd = conn_dial_fd(c, &done);
    if (fd == -1) {
        int e = errno;
        buf_reset(&kept);
        answer_unreachable(c, conn_dial_reason(e), e);
        return;
    }
    stream_plain_init(&up->s, &c->worker->scratch, fd);
    up->s.out = kept;
    if (!conn_leg_watch(c, up)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
    } else if (done) {
        connected(c);
    } else {
        http_set_deadline(c, conn_dial_ms(c));
    }
}

static void timed_out(struct conn *c)
{
    if (c->http->up == UP_DIALING && c->dial_left > 0) {
        dial_again(c);
        return;
    }
    if (c->http->up == UP_DIALING || c->http->up == UP_TUNNEL) {
        answer_unreachable(c, CONN_CLOSE_CONNECT_TIMEOUT, ETIMEDOUT);
        return;
    }
    conn_record_handshake_timeout(c, conn_upstream(c));
    answer_unreachable(c, CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT, ETIMEDOUT);
}

void http_upstream_step(struct conn *c, int sys_errno)
{
    struct conn_leg *up = conn_upstream(c);
    if (c->http->up == UP_OPENING && sys_errno == ETIMEDOUT) {
        conn_opening_timeout(c);
    } else if (c->http->up == UP_OPENING) {
        conn_opening_step(c);
    } else if (sys_errno == ETIMEDOUT) {
        timed_out(c);
    } else if (c->http->up == UP_HANDSHAKE) {
        shake_hands(c);
    } else if (c->http->up == UP_TUNNEL) {
        tunnel(c, conn_tunnel_step(c, up));
    } else {
        int e = up->s.failed ? up->s.sys_errno : net_dial_error(up->s.fd);
        bool whole = !up->s.failed && !c->http->up_broken; /* nothing of the request is lost */
        if (e != 0 && c->dial_left > 0 && whole) {
            dial_again(c);
        } else if (e != 0) {
            answer_unreachable(c, conn_dial_reason(e), e);
        } else {
            connected(c);
        }
    }
}

/* False: answered. */
static bool dial(struct conn *c)
{
    struct conn_http *h = c->http;
    struct conn_leg *up = conn_upstream(c);
    bool done = false;
    conn_dial_begin(c);
    int fd = conn_dial_fd(c, &done);
    if (fd == -1) {
        answer_unreachable(c, conn_dial_reason(errno), errno);
        return false;
    }
    stream_plain_init(&up->s, &c->worker->scratch, fd);
    h->up = UP_DIALING;
    if (!conn_leg_watch(c, up)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    if (!c->relay && !conn_prelude_send(c, up)) {
        h->up_broken = true; /* what it says to that is still read */
    }
    if (!done) {
        http_set_deadline(c, conn_dial_ms(c));
    } else if (c->relay) {
        connected(c);
    } else {
        h->up = UP_OPEN;
    }
    return c->state == CONN_HTTP && h->up != UP_NONE;
}

bool http_upstream_ensure(struct conn *c, bool fresh)
{
    struct conn_http *h = c->http;
    enum conn_reason why;
    if (h->up != UP_NONE || (!fresh && http_pool_take(c))) {
        return true;
    }
    if (conn_onward_by_session(c, &why)) {
        c->sys_errno = 0;
        c->stream_again = false;
        h->up = UP_OPENING;
        conn_opening_start(c);
        return c->state == CONN_HTTP && h->up != UP_NONE;
    }
    if (why == CONN_CLOSE_DONE) {
        return dial(c);
    }
    if (c->state == CONN_HTTP) {
        answer_unreachable(c, why, 0);
    }
    return false;
}

/* --- by a session ----------------------------------------------------------------------------- */

bool conn_http_seeks_onward(const struct conn *c)
{
    return c->http->up == UP_OPENING;
}

void conn_http_onward_ms(struct conn *c, uint64_t ms)
{
    http_set_deadline(c, ms);
}

void conn_http_onward_stands(struct conn *c)
{
    conn_live_known(c);
    stands(c);
}

void conn_http_onward(struct conn *c, enum conn_onward_news news, enum conn_reason why)
{
    if (news == ONWARD_FAILED) {
        answer_unreachable(c, why, c->sys_errno);
    } else if (news == ONWARD_DIRECTLY) {
        (void)dial(c);
    } else {
        conn_upstream(c)->ready |= LOOP_READ; /* it reads as reset */
    }
    if (c->state == CONN_HTTP) {
        conn_http_step(c);
    }
}

bool http_upstream_refused(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    if (up->kind != CONN_LEG_TLS || up->tls.failure == NULL || up->s.bytes_read > 0) {
        return false;
    }
    conn_record_handshake(c, up, NULL, NULL);
    answer_unreachable(c, CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED, 0);
    return true;
}
