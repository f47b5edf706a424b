/* HTTP/1.1 inbound, workload -> client: reading the response and passing it on. */
#include "http_priv.h"

#include <string.h>

static void bad_response(struct conn *c, const char *reason)
{
    http_close_upstream(c, true);
    c->http->res_phase = RES_NONE;
    bool rest = c->http->req_phase != REQ_DONE;
    http_answer(c, 502, reason, NULL, rest ? CONN_CLOSE_BAD_RESPONSE : CONN_CLOSE_DONE);
}

/* RFC 9110 7.6.3: of a gateway's answers it may be said. */
static struct str via_of(const struct conn *c)
{
    if (conn_conf(c)->http.via != CONF_VIA_BOTH) {
        return STR_NONE;
    }
    return c->http->res.minor == 0 ? STR_LIT("1.0 postern") : STR_LIT("1.1 postern");
}

/* After 101 the connection is a pipe. What either side sent early goes first. */
static void switch_protocols(struct conn *c, const uint8_t *rest, size_t n)
{
    struct conn_http *h = c->http;
    struct conn_leg *down = conn_downstream(c);
    struct conn_leg *up = conn_upstream(c);
    bool ok = http_send(c, down, rest, n) && http_send_emit(c, down);
    if (ok && h->in.len > 0) {
        ok = stream_write(&up->s, buf_head(&h->in), buf_len(&h->in)) != STREAM_FAILED;
    }
    h->status = h->res.status;
    http_record(c);
    h->in_flight = false;
    buf_reset(&h->in);
    if (!ok) {
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
        return;
    }
    c->upgraded = true;
    up->ready |= LOOP_READ;
    conn_pump_start(c);
}

/* False: the rest of the bytes is spoken for, or the connection is closed. */
static bool take_head(struct conn *c, const uint8_t *rest, size_t n)
{
    struct conn_http *h = c->http;
    struct buf *emit = &c->worker->emit;
    h->res = c->worker->response->info;
    h->pinned = h->pinned || (h->res.status == 401 &&
                              http_pool_pins(c->worker->response->headers,
                                             c->worker->response->n_headers, "www-authenticate"));
    if (h->res.interim && ++h->n_interim > HTTP_INTERIM_MAX) {
        bad_response(c, "interim_many");
        return false;
    }
    if (!h->res.interim) {
        bool keep = http1_keeps_alive(&h->req, &h->res) && !conn_drains(c) && !h->down_eof;
        h->close_said = !keep;
    }
    h->head_sent = h->head_sent || !h->res.interim;
    if (!http1_response_emit(c->worker->response, &h->req, h->close_said && !h->res.interim,
                             via_of(c), emit)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    memset(&h->rscan, 0, sizeof(h->rscan));
    if (h->res.interim) {
        return true;
    }
    h->status = h->res.status;
    if (h->res.switching) {
        switch_protocols(c, rest, n);
        return false;
    }
    http1_body_init(&h->rbody, (enum http1_framing)h->res.framing, h->res.length);
    h->res_phase = RES_BODY;
    return true;
}

static void response_done(struct conn *c)
{
    struct conn_http *h = c->http;
    h->res_phase = RES_NONE;
    if (!http_send_emit(c, conn_downstream(c))) {
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
        return;
    }
    h->up_used = true;
    /* An answer that came before the end of the request leaves a workload that may still be
     * reading it: neither side is usable afterwards. */
    if (!h->res.keep_alive || h->req_phase != REQ_DONE || h->up_broken) {
        http_close_upstream(c, h->req_phase != REQ_DONE);
    }
    http_exchange_end(c);
}

static size_t feed_head(struct conn *c, const uint8_t *data, size_t len, bool *ret_more)
{
    struct conn_http *h = c->http;
    struct http1_limits limits;
    struct http1_error e;
    http_limits(c, &limits);
    switch (http1_response_read(&h->rscan, data, len, &limits, &h->req, c->worker->response, &e)) {
    case HTTP1_DONE:
        break;
    case HTTP1_MORE:
        *ret_more = true;
        return 0;
    case HTTP1_ERROR:
        bad_response(c, http1_reason_token(e.reason));
        return len;
    }
    size_t used = c->worker->response->head_len;
    if (!take_head(c, data + used, len - used)) {
        return len;
    }
    return used;
}

static size_t feed_body(struct conn *c, const uint8_t *data, size_t len, bool *ret_more)
{
    struct conn_http *h = c->http;
    struct http1_error e;
    size_t used = 0;
    enum http1_result r = http1_body_feed(&h->rbody, data, len, &used, &e);
    if (!http_send(c, conn_downstream(c), data, used)) {
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
        return len;
    }
    switch (r) {
    case HTTP1_ERROR:
        http_send_emit(c, conn_downstream(c));
        h->reason = http1_reason_token(e.reason);
        http_record(c);
        conn_close(c, CONN_CLOSE_UPSTREAM_RESET);
        return len;
    case HTTP1_MORE:
        *ret_more = true;
        break;
    case HTTP1_DONE:
        response_done(c);
        break;
    }
    return used;
}

static bool over(const struct conn_http *h)
{
    return h->res.framing == HTTP1_BODY_NONE ||
           (h->res.framing == HTTP1_BODY_LENGTH && h->res.length == 0);
}

size_t http_response_feed(struct conn *c, const uint8_t *data, size_t len)
{
    struct conn_http *h = c->http;
    size_t off = 0;
    bool more = false;
    while (c->state == CONN_HTTP && !more && h->up != UP_NONE && h->res_phase != RES_NONE &&
           (off < len || (h->res_phase == RES_BODY && over(h)))) {
        off += h->res_phase == RES_HEAD ? feed_head(c, data + off, len - off, &more)
                                        : feed_body(c, data + off, len - off, &more);
    }
    if (c->state != CONN_HTTP) {
        return len;
    }
    if (c->worker->emit.len > 0 && !http_send_emit(c, conn_downstream(c))) {
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
        return len;
    }
    if (off < len && h->res_phase == RES_NONE && h->up != UP_NONE) {
        http_close_upstream(c, true); /* bytes that answer nothing: its framing cannot be trusted */
        return len;
    }
    return off;
}

void http_response_eof(struct conn *c, bool in_order)
{
    struct conn_http *h = c->http;
    c->sys_errno = conn_upstream(c)->s.sys_errno;
    if (h->res_phase == RES_NONE) {
        http_close_upstream(c, false); /* it was idle: the next request dials again */
        return;
    }
    if (h->res_phase == RES_BODY && in_order && http1_body_ends_at_eof(&h->rbody)) {
        h->res.keep_alive = false;
        h->close_said = true;
        response_done(c);
        return;
    }
    if (h->res_phase == RES_HEAD) {
        if (h->rin.len > 0 || !http_request_again(c)) {
            bad_response(c, "upstream_closed");
        }
        return;
    }
    h->reason = "upstream_truncated";
    http_record(c);
    conn_close(c, CONN_CLOSE_UPSTREAM_RESET);
}
