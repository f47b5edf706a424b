/*
 * HTTP/2 inbound: until when. One timer for all that a connection waits for; when it fires it is
 * looked at what is late.
 *
 * A call of gRPC may be a stream of messages either way, and silent as long as it likes: neither
 * the pace of its body nor the time to its answer's head is measured, its deadline is the caller's.
 */
#include "h2_priv.h"

#include <errno.h>

/* --- an exchange ------------------------------------------------------------------------------ */

static uint64_t nearer(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* While the workload's connection is being made, that has a time of its own. */
static bool stands(const struct h2_exchange *x)
{
    return x->conn->h2->up_state == H2_UP_OPEN;
}

static bool body_is_timed(const struct h2_exchange *x)
{
    return stands(x) && !x->grpc && !x->req_ended && !x->head_passed &&
           conn_conf(x->conn)->timeouts.request_body_ms > 0;
}

static bool answer_is_timed(const struct h2_exchange *x)
{
    return stands(x) && !x->grpc && x->req_ended && !x->head_passed &&
           conn_conf(x->conn)->timeouts.response_head_ms > 0;
}

/* When it has to be looked at next; a limit of 0 is none. */
static uint64_t next_look(const struct h2_exchange *x)
{
    const struct conf_proxy *p = conn_conf(x->conn);
    uint64_t at = x->active_ms + p->timeouts.idle_tcp_ms;
    if (x->given_up) { /* whether its end is ever read */
        return at + p->timeouts.idle_tcp_ms;
    }
    if (!x->in_flight) { /* what is left of it is bytes */
        return at;
    }
    if (p->timeouts.request_ms > 0) {
        at = nearer(at, x->began_ms + p->timeouts.request_ms);
    }
    if (body_is_timed(x)) {
        at = nearer(at, x->body_look_ms + p->timeouts.request_body_ms);
    }
    if (answer_is_timed(x)) {
        at = nearer(at, x->sent_ms + p->timeouts.response_head_ms);
    }
    return at;
}

static uint64_t until(uint64_t now, uint64_t at)
{
    return at > now ? at - now : 0;
}

static void arm_earlier(struct conn *c, uint64_t at)
{
    uint64_t now = loop_now_ms(c->worker->loop);
    if (c->timer.due_ms == 0 || c->timer.due_ms > at) {
        loop_timer_arm(&c->timer, at > now ? at - now : 1);
    }
}

void h2_time_begin(struct h2_exchange *x)
{
    arm_earlier(x->conn, next_look(x));
}

void h2_time_sent(struct h2_exchange *x)
{
    x->sent_ms = loop_now_ms(x->conn->worker->loop);
    arm_earlier(x->conn, next_look(x));
}

void h2_time_stands(struct conn *c)
{
    for (struct h2_exchange *x = c->h2->open; x != NULL; x = x->next) {
        x->sent_ms = x->body_look_ms = loop_now_ms(c->worker->loop);
    }
    h2_arm(c);
}

/* Whether its body has come as fast as it has to, since it was looked at last. While the workload
 * is what it waits for it need not. */
static bool body_is_slow(struct h2_exchange *x, uint64_t now)
{
    const struct conf_proxy *p = conn_conf(x->conn);
    uint64_t came = x->bytes_up - x->body_look_bytes;
    uint64_t least = (uint64_t)p->limits.request_body_rate * p->timeouts.request_body_ms / 1000;
    bool waits = x->down.unread > 0;
    x->body_look_ms = now;
    x->body_look_bytes = x->bytes_up;
    return !waits && came < (least > 0 ? least : 1);
}

static void look_at(struct h2_exchange *x, uint64_t now)
{
    const struct conf_proxy *p = conn_conf(x->conn);
    if (x->given_up) {
        return;
    }
    if (now - x->active_ms >= p->timeouts.idle_tcp_ms) {
        h2_exchange_give_up(x, 504, "idle");
    } else if (!x->in_flight) {
        return;
    } else if (p->timeouts.request_ms > 0 && now >= x->began_ms + p->timeouts.request_ms) {
        h2_exchange_give_up(x, 504, "request_long");
    } else if (body_is_timed(x) && now >= x->body_look_ms + p->timeouts.request_body_ms &&
               body_is_slow(x, now)) {
        h2_exchange_give_up(x, 408, "body_slow");
    } else if (answer_is_timed(x) && now >= x->sent_ms + p->timeouts.response_head_ms) {
        h2_exchange_give_up(x, 504, "response_timeout");
    }
}

/* --- a connection ----------------------------------------------------------------------------- */

void h2_arm(struct conn *c)
{
    const struct conn_http2 *h = c->h2;
    const struct conf_proxy *conf = conn_conf(c);
    uint64_t now = loop_now_ms(c->worker->loop);
    uint64_t next = HTTP2_TICK_MS;
    next = nearer(next, conf->timeouts.request_head_ms);
    next = nearer(next, conf->timeouts.idle_tcp_ms);
    if (h->n_open == 0) {
        next = nearer(next, until(now, h->idle_since_ms + conf->timeouts.idle_http_ms));
    }
    if (h->up_deadline_ms != 0) {
        next = nearer(next, until(now, h->up_deadline_ms));
    }
    if (h->leave_ms != 0 && h->leaving < 2) {
        next = nearer(next, until(now, h->leave_ms));
    }
    for (const struct h2_exchange *x = h->open; x != NULL; x = x->next) {
        next = nearer(next, until(now, next_look(x)));
    }
    loop_timer_arm(&c->timer, next > 0 ? next : 1);
}

/* Two words: the first lets the client send its new streams elsewhere, the second refuses them. */
static void leave_step(struct conn *c, uint64_t now)
{
    struct conn_http2 *h = c->h2;
    if (h->leave_ms != 0 && now >= h->leave_ms && h->leaving < 2) {
        http2_session_goaway(h->down);
        if (h->leaving == 0) {
            conn_record_leave(c, "us");
        }
        h->leaving++;
        h->leave_ms = now + H2_LEAVE_MS;
        h2_wake(c);
    }
}

static void look_at_all(struct conn *c, uint64_t now)
{
    struct conn_http2 *h = c->h2;
    const struct conf_proxy *conf = conn_conf(c);
    uint64_t longest = 0;
    h2_hold(c);
    for (struct h2_exchange *x = h->open; x != NULL; x = x->next) {
        uint64_t idle = now - x->active_ms;
        longest = idle > longest ? idle : longest;
        look_at(x, now);
    }
    h2_release(c);
    if (longest >= 2 * (uint64_t)conf->timeouts.idle_tcp_ms) {
        conn_close(c, CONN_CLOSE_IDLE); /* not even a reset is read */
    } else if (h->n_open == 0 && now - h->idle_since_ms >= conf->timeouts.idle_http_ms) {
        h2_close_idle(c);
    }
}

void conn_h2_timeout(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    uint64_t now = loop_now_ms(c->worker->loop);
    if (h->up_deadline_ms != 0 && now >= h->up_deadline_ms) {
        h->up_deadline_ms = 0;
        h2_upstream_step(c, ETIMEDOUT);
    }
    if (c->state == CONN_HTTP2) {
        leave_step(c, now);
        (void)http2_session_tick(h->down, now); /* what it says, the turn does */
        if (h->up != NULL) {
            (void)http2_session_tick(h->up, now);
        }
        look_at_all(c, now);
    }
    if (c->state == CONN_HTTP2) {
        h2_wake(c);
        h2_arm(c);
    }
}

void conn_h2_drain(struct conn *c, uint64_t delay_ms)
{
    struct conn_http2 *h = c->h2;
    uint64_t now = loop_now_ms(c->worker->loop);
    uint64_t at = now + delay_ms;
    if (c->state == CONN_HTTP2 && h->leaving == 0 && (h->leave_ms == 0 || at < h->leave_ms)) {
        h->leave_ms = at;
        leave_step(c, now); /* not by the timer: streams may be refused from this moment on */
        h2_arm(c);
    }
}
