/* HTTP/1.1 inbound: until when. One timer; when it fires it is looked at what is late. */
#include "http_priv.h"

static uint64_t nearer(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What an exchange has to be looked at for next; a limit of 0 is none. */
static uint64_t next_look(const struct conn *c)
{
    const struct conn_http *h = c->http;
    const struct conf_proxy *p = conn_conf(c);
    uint64_t at = c->active_ms + p->timeouts.idle_tcp_ms;
    if (p->timeouts.request_ms > 0) {
        at = nearer(at, h->began_ms + p->timeouts.request_ms);
    }
    if (h->req_phase != REQ_DONE) {
        if (p->timeouts.request_body_ms > 0) {
            at = nearer(at, h->body_look_ms + p->timeouts.request_body_ms);
        }
    } else if (h->res_phase == RES_HEAD && p->timeouts.response_head_ms > 0) {
        at = nearer(at, h->sent_ms + p->timeouts.response_head_ms);
    }
    return at;
}

void http_time_next(struct conn *c)
{
    uint64_t now = loop_now_ms(c->worker->loop);
    uint64_t at = next_look(c);
    http_set_deadline(c, at > now ? at - now : 1);
}

void http_time_begin(struct conn *c)
{
    struct conn_http *h = c->http;
    h->body_look_ms = h->sent_ms = h->began_ms;
    h->body_look_bytes = conn_downstream(c)->s.bytes_read;
    http_time_next(c);
}

void http_time_sent(struct conn *c)
{
    c->http->sent_ms = loop_now_ms(c->worker->loop);
    http_time_next(c);
}

/* Whether the body has come as fast as it has to, since it was looked at last. While the workload
 * is what it waits for it need not. */
static bool body_is_slow(struct conn *c, uint64_t now)
{
    struct conn_http *h = c->http;
    const struct conf_proxy *p = conn_conf(c);
    uint64_t bytes = conn_downstream(c)->s.bytes_read;
    uint64_t came = bytes - h->body_look_bytes;
    uint64_t least = (uint64_t)p->limits.request_body_rate * p->timeouts.request_body_ms / 1000;
    bool waits = h->req_phase == REQ_BODY &&
                 (http_upstream_holds(c) || stream_blocked(&conn_upstream(c)->s));
    h->body_look_ms = now;
    h->body_look_bytes = bytes;
    return !waits && came < (least > 0 ? least : 1);
}

/* An answer of ours if there was none yet; else the end of both sides. */
static void give_up(struct conn *c, unsigned status, const char *reason)
{
    struct conn_http *h = c->http;
    bool rest = h->req_phase != REQ_DONE;
    if (h->req_phase == REQ_DISCARD) {
        conn_close(c, CONN_CLOSE_ANSWERED);
        return;
    }
    if (h->head_sent) {
        h->reason = reason;
        http_record(c);
        conn_close(c, CONN_CLOSE_UPSTREAM_RESET);
        return;
    }
    http_close_upstream(c, true);
    h->res_phase = RES_NONE;
    http_answer(c, status, reason, NULL,
                status == 408 ? CONN_CLOSE_REQUEST_TIMEOUT
                : rest        ? CONN_CLOSE_BAD_RESPONSE
                              : CONN_CLOSE_DONE);
}

void http_time_check(struct conn *c)
{
    struct conn_http *h = c->http;
    const struct conf_proxy *p = conn_conf(c);
    uint64_t now = loop_now_ms(c->worker->loop);
    if (p->timeouts.request_ms > 0 && now >= h->began_ms + p->timeouts.request_ms) {
        give_up(c, 504, "request_long");
    } else if (h->req_phase != REQ_DONE && p->timeouts.request_body_ms > 0 &&
               now >= h->body_look_ms + p->timeouts.request_body_ms && body_is_slow(c, now)) {
        give_up(c, 408, "body_slow");
    } else if (h->req_phase == REQ_DONE && h->res_phase == RES_HEAD &&
               p->timeouts.response_head_ms > 0 &&
               now >= h->sent_ms + p->timeouts.response_head_ms) {
        give_up(c, 504, "response_timeout");
    } else if (now - c->active_ms >= p->timeouts.idle_tcp_ms) {
        conn_close(c, CONN_CLOSE_UPSTREAM_RESET);
    } else {
        http_time_next(c);
    }
}
