/* HTTP/2 inbound: the flow between client and workload, and its end. */
#include "h2_priv.h"

#include "http_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

static void turn(struct loop_deferred *d);

void h2_wake(struct conn *c)
{
    if (c->state == CONN_HTTP2) {
        loop_defer(c->worker->loop, &c->h2->turn);
    }
}

void h2_on_wake(void *arg)
{
    h2_wake((struct conn *)arg);
}

/* --- beginning -------------------------------------------------------------------------------- */

static bool h2_new(struct conn *c)
{
    struct conn_http2 *h = (struct conn_http2 *)calloc(1, sizeof(*h));
    if (h == NULL) {
        return false;
    }
    c->h2 = h;
    h->conn = c;
    h->turn.fn = turn;
    h->idle_since_ms = loop_now_ms(c->worker->loop);
    http_peer_texts(c, h->peer_hash, h->source_ip);
    const struct http2_spec spec = {.server = true,
                                    .ops = &h2_down_ops,
                                    .arg = c,
                                    .head_bytes = conn_conf(c)->limits.request_head_bytes,
                                    .head_ms = conn_conf(c)->timeouts.request_head_ms,
                                    .grown = &c->worker->windows_grown,
                                    .now_ms = h->idle_since_ms};
    h->down = http2_session_new(&spec);
    return h->down != NULL;
}

void conn_h2_start(struct conn *c, const uint8_t *p, size_t n)
{
    c->protocol = CONF_PROTOCOL_HTTP;
    conn_set_state(c, CONN_HTTP2);
    if (!h2_new(c)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    if (conn_drains(c)) {
        conn_h2_drain(c, 0);
    }
    h2_arm(c);
    if (n > 0) {
        (void)http2_session_feed(c->h2->down, p, n, c->h2->idle_since_ms);
    }
    conn_downstream(c)->ready |= LOOP_READ;
    conn_h2_step(c);
}

void conn_h2_from_http(struct conn *c)
{
    struct buf in = c->http->in;
    c->http->in = (struct buf)BUF_INIT(in.max);
    conn_http_free(c);
    conn_h2_start(c, buf_head(&in), buf_len(&in));
    buf_reset(&in);
}

bool conn_h2_wanted(const struct conn *c)
{
    const struct tls_stream *tls = conn_leg_tls(&c->peer);
    return c->peer.kind == CONN_LEG_TLS && tls != NULL && str_eq(tls_alpn(tls), tls_alpn_h2);
}

bool conn_h2_may_follow(const struct conn *c)
{
    const struct tls_stream *tls = conn_leg_tls(&c->peer);
    bool http1 =
        c->peer.kind == CONN_LEG_TLS && tls != NULL && str_eq(tls_alpn(tls), STR_LIT("http/1.1"));
    return !http1;
}

void conn_h2_free(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    if (h != NULL) {
        h->down = http2_session_free(h->down);
        h->up = http2_session_free(h->up);
        h2_exchanges_free(h);
        free(h);
        c->h2 = NULL;
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

void conn_h2_end(struct conn *c, enum conn_reason reason)
{
    for (struct h2_exchange *x = c->h2->open; x != NULL; x = x->next) {
        x->reason = x->reason != NULL ? x->reason : conn_reason_token(reason);
        h2_record(x, NULL);
    }
}

static void down_over(struct conn *c)
{
    enum http2_abuse why = http2_session_why(c->h2->down);
    switch (why) {
    case HTTP2_LEFT:
        conn_close(c, c->h2->leaving > 0 ? CONN_CLOSE_SESSION_SPENT : CONN_CLOSE_DONE);
        return;
    case HTTP2_SILENT:
        conn_close(c, CONN_CLOSE_SESSION_SILENT);
        return;
    case HTTP2_NO_MEMORY:
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    case HTTP2_SLOW_HEAD:
        conn_close(c, CONN_CLOSE_REQUEST_TIMEOUT);
        return;
    case HTTP2_OK:
    case HTTP2_TOO_MANY_FRAMES:
    case HTTP2_HEADER_BOMB:
    case HTTP2_PROTOCOL:
        break;
    }
    conn_record_session(c, http2_abuse_name(why));
    conn_close(c, CONN_CLOSE_BAD_HTTP2);
}

static void up_over(struct conn *c)
{
    const struct http2_session *up = c->h2->up;
    bool spoke = http2_session_stands(up) || conn_upstream(c)->s.bytes_read == 0;
    h2_upstream_lost(c, 502, spoke ? "upstream_closed" : "upstream_not_http2",
                     http2_session_why(up) != HTTP2_LEFT);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* False: the leg failed. */
static bool write_some(struct conn_leg *leg, struct buf *out)
{
    while (out->len > 0 && !stream_blocked(&leg->s)) {
        size_t n = out->len < NET_SCRATCH_SIZE ? out->len : NET_SCRATCH_SIZE;
        if (stream_write(&leg->s, buf_head(out), n) == STREAM_FAILED) {
            return false;
        }
        buf_consume(out, n);
    }
    return true;
}

/* All that there is to send, or as much as the leg takes. False: the leg failed. ret_on false: the
 * session is over, and its last word is said. */
static bool write_all(struct conn_leg *leg, struct http2_session *s, bool *ret_on)
{
    struct buf *out = http2_session_out(s);
    do {
        *ret_on = http2_session_make(s);
        if (out->len == 0) {
            return true;
        }
        if (!write_some(leg, out)) {
            return false;
        }
    } while (*ret_on && out->len == 0);
    return true;
}

void h2_close_idle(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    bool on = true;
    http2_session_goaway(h->down);
    http2_session_goaway(h->down);
    (void)write_all(conn_downstream(c), h->down, &on);
    conn_close(c, h->total > 0 ? CONN_CLOSE_ANSWERED : CONN_CLOSE_REQUEST_TIMEOUT);
}

static void down_failed(struct conn *c)
{
    struct conn_leg *down = conn_downstream(c);
    c->sys_errno = down->s.sys_errno;
    if (c->h2->n_open == 0 && (down->s.eof || down->s.truncated)) {
        conn_close(c, CONN_CLOSE_DONE); /* between messages, every end is one */
    } else {
        conn_close(c, down->s.truncated ? CONN_CLOSE_TRUNCATED : CONN_CLOSE_DOWNSTREAM_RESET);
    }
}

static void up_failed(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    c->sys_errno = up->s.sys_errno;
    if (up->kind == CONN_LEG_TLS && up->tls.failure != NULL && up->s.bytes_read == 0) {
        /* The next hop refused our certificate in place of its first bytes. */
        conn_record_handshake(c, up, NULL, NULL);
        h2_upstream_lost(c, 503, conn_reason_token(CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED), false);
    } else {
        up_over(c);
    }
}

/* One read. False: nothing more to do now. */
static bool read_some(struct conn *c, struct conn_leg *leg, struct http2_session *s,
                      bool *ret_failed)
{
    size_t n = 0;
    if ((leg->ready & LOOP_READ) == 0 && !stream_has_input(&leg->s)) {
        return false;
    }
    leg->ready &= ~(unsigned)LOOP_READ;
    switch (stream_read(&leg->s, c->worker->scratch.plain, NET_SCRATCH_SIZE, &n)) {
    case STREAM_OK:
        (void)http2_session_feed(s, c->worker->scratch.plain, n, c->active_ms);
        return true;
    case STREAM_AGAIN:
        return false;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    *ret_failed = true;
    return false;
}

/* Writing to the workload failed: what it had said before that may be answers, and its end has
 * overtaken them. No more comes than the kernel has. */
static void up_write_failed(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    bool failed = false;
    up->ready |= LOOP_READ;
    while (up->s.broken && c->state == CONN_HTTP2 && c->h2->up_state == H2_UP_OPEN &&
           read_some(c, up, c->h2->up, &failed)) {
        up->ready |= LOOP_READ;
    }
    if (c->state == CONN_HTTP2 && c->h2->up_state == H2_UP_OPEN) {
        up_failed(c);
    }
}

/* --- a turn ----------------------------------------------------------------------------------- */

/* What the workload does not take any more the client should send elsewhere. */
static void look_at_goaway(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    if (h->up == NULL || !http2_session_peer_leaves(h->up)) {
        return;
    }
    if (http2_session_streams(h->up) == 0) {
        h2_upstream_lost(c, 502, "upstream_leaves", false); /* the next request makes another */
    } else {
        conn_h2_drain(c, 0);
    }
}

static void want(struct conn *c)
{
    struct conn_leg *down = conn_downstream(c);
    struct conn_leg *up = conn_upstream(c);
    conn_leg_want(down, LOOP_READ | (stream_blocked(&down->s) ? LOOP_WRITE : 0U));
    if (c->h2->up_state == H2_UP_OPEN) {
        conn_leg_want(up, LOOP_READ | (stream_blocked(&up->s) ? LOOP_WRITE : 0U));
    }
}

static void write_up(struct conn *c)
{
    bool on = true;
    if (c->h2->up_state != H2_UP_OPEN) {
        return;
    }
    if (!write_all(conn_upstream(c), c->h2->up, &on)) {
        up_write_failed(c);
    } else if (!on) {
        up_over(c);
    }
}

static void run(struct conn *c)
{
    bool on = true;
    look_at_goaway(c);
    write_up(c);
    if (c->state != CONN_HTTP2) {
        return;
    }
    if (!write_all(conn_downstream(c), c->h2->down, &on)) {
        down_failed(c);
    } else if (!on) {
        down_over(c);
    } else if (c->state == CONN_HTTP2 && c->h2->leaving > 1 && c->h2->n_open == 0 &&
               !stream_blocked(&conn_downstream(c)->s)) {
        conn_close(c, CONN_CLOSE_SESSION_SPENT);
    } else {
        want(c);
    }
}

static void turn(struct loop_deferred *d)
{
    struct conn_http2 *h = (struct conn_http2 *)((char *)d - offsetof(struct conn_http2, turn));
    if (h->conn->state == CONN_HTTP2) {
        run(h->conn);
    }
}

static bool flush(struct conn_leg *leg)
{
    bool ok = true;
    if ((leg->ready & LOOP_WRITE) != 0 && stream_is_open(&leg->s) && stream_blocked(&leg->s)) {
        ok = stream_flush(&leg->s) != STREAM_FAILED;
    }
    leg->ready &= ~(unsigned)LOOP_WRITE;
    return ok;
}

void conn_h2_step(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    struct conn_leg *down = conn_downstream(c);
    struct conn_leg *up = conn_upstream(c);
    bool failed = false;
    c->active_ms = loop_now_ms(c->worker->loop);
    if (h->up_state != H2_UP_NONE && h->up_state != H2_UP_OPEN && up->ready != 0) {
        h2_upstream_step(c, 0);
    }
    if (c->state == CONN_HTTP2 && !flush(down)) {
        down_failed(c);
    }
    if (c->state == CONN_HTTP2 && h->up_state == H2_UP_OPEN && !flush(up)) {
        up_write_failed(c);
    }
    while (c->state == CONN_HTTP2 && read_some(c, down, h->down, &failed)) {
    }
    if (c->state == CONN_HTTP2 && failed) {
        down_failed(c);
    }
    failed = false;
    while (c->state == CONN_HTTP2 && h->up_state == H2_UP_OPEN &&
           read_some(c, up, h->up, &failed)) {
    }
    if (c->state == CONN_HTTP2 && failed) {
        up_failed(c);
    }
    if (c->state == CONN_HTTP2) {
        h2_wake(c);
    }
}

/* --- changes ---------------------------------------------------------------------------------- */

bool conn_h2_rejudge(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    h2_hold(c);
    for (struct h2_exchange *x = h->open; x != NULL; x = x->next) {
        if (!h2_exchange_rejudge(x)) {
            h2_wake(c);
        }
    }
    h2_release(c);
    return true;
}
