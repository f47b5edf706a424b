/* HTTP/1.1 inbound: the flow between client and workload, one exchange after the other. */
#include "http_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void http_limits(const struct conn *c, struct http1_limits *ret)
{
    *ret = (struct http1_limits)HTTP1_LIMITS_DEFAULT;
    const struct conf_http *http = http_conf(c);
    ret->max_head = conn_conf(c)->limits.request_head_bytes;
    ret->max_headers = conn_conf(c)->limits.request_headers;
    ret->max_body = conn_conf(c)->limits.request_body_bytes;
    ret->allow_paths = http->allow_paths;
    ret->connect = http->n_connect > 0;
}

/* The timer is left where it is if it fires early enough: a kept connection costs no timer
 * operation a request. */
void http_set_deadline(struct conn *c, uint64_t delay_ms)
{
    struct conn_http *h = c->http;
    if (delay_ms == 0) {
        h->deadline_ms = 0;
        return;
    }
    h->deadline_ms = loop_now_ms(c->worker->loop) + delay_ms;
    if (c->timer.due_ms == 0 || c->timer.due_ms > h->deadline_ms) {
        loop_timer_arm(&c->timer, delay_ms);
    }
}

void http_peer_texts(const struct conn *c, char ret_hash[65], char ret_source[NET_ADDR_TEXT_MAX])
{
    const struct tls_peer *peer = conn_leg_peer(&c->peer);
    for (size_t i = 0; i < 32 && peer != NULL && peer->id_len > 0; i++) {
        snprintf(ret_hash + 2 * i, 3, "%02x", peer->cert_sha256[i]);
    }
    /* The address alone: "1.2.3.4" of "1.2.3.4:5", "fd00::1" of "[fd00::1]:5". */
    char text[NET_ADDR_TEXT_MAX];
    net_addr_text(&c->source, text);
    char *colon = strrchr(text, ':');
    if (colon != NULL && conn_source(c) != NULL) {
        bool bracket = text[0] == '[';
        colon[bracket ? -1 : 0] = '\0';
        snprintf(ret_source, NET_ADDR_TEXT_MAX, "%s", text + (bracket ? 1 : 0));
    }
}

bool conn_http_start(struct conn *c)
{
    struct conn_http *h = (struct conn_http *)calloc(1, sizeof(*h));
    if (h == NULL) {
        return false;
    }
    c->http = h;
    h->in = (struct buf)BUF_INIT(NET_SCRATCH_SIZE + conn_conf(c)->limits.request_head_bytes);
    h->rin = h->in;
    h->retry = (struct buf)BUF_INIT(NET_SCRATCH_SIZE);
    h->facts = (struct buf)BUF_INIT(2 * (HTTP1_MAX_TARGET + CONF_REQUEST_HEAD_MAX));
    h->held = (struct buf)BUF_INIT(2 * NET_SCRATCH_SIZE + CONF_REQUEST_HEAD_MAX);
    http_peer_texts(c, h->peer_hash, h->source_ip);
    conn_downstream(c)->ready |= LOOP_READ;
    http_set_deadline(c, conn_conf(c)->timeouts.request_head_ms);
    return buf_append_str(&h->in, conn_plain_take(c));
}

void conn_http_free(struct conn *c)
{
    struct conn_http *h = c->http;
    if (h != NULL) {
        http_facts_drop(h);
        buf_reset(&h->in);
        buf_reset(&h->rin);
        buf_reset(&h->held);
        buf_reset(&h->facts);
        buf_reset(&h->retry);
        free(h);
        c->http = NULL;
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

static bool send_all(struct conn *c, struct conn_leg *leg, const uint8_t *p, size_t n)
{
    if (leg == conn_upstream(c) && http_upstream_holds(c)) {
        return buf_append(&c->http->held, p, n);
    }
    while (n > 0) {
        size_t part = n < NET_SCRATCH_SIZE ? n : NET_SCRATCH_SIZE;
        if (stream_write(&leg->s, p, part) == STREAM_FAILED) {
            return false;
        }
        p += part;
        n -= part;
    }
    return true;
}

bool http_send_emit(struct conn *c, struct conn_leg *leg)
{
    struct buf *emit = &c->worker->emit;
    bool ok = send_all(c, leg, buf_head(emit), buf_len(emit));
    buf_consume(emit, buf_len(emit));
    return ok;
}

bool http_send(struct conn *c, struct conn_leg *leg, const uint8_t *p, size_t n)
{
    struct buf *emit = &c->worker->emit;
    if (emit->len == 0) {
        return send_all(c, leg, p, n);
    }
    if (n <= HTTP_JOIN_MAX && buf_append(emit, p, n)) {
        return true;
    }
    return http_send_emit(c, leg) && send_all(c, leg, p, n);
}

void http_answer(struct conn *c, unsigned status, const char *reason, const char *text,
                 enum conn_reason end)
{
    struct conn_http *h = c->http;
    struct buf *emit = &c->worker->emit;
    buf_consume(emit, buf_len(emit));
    if (h->head_sent) {
        conn_close(c, CONN_CLOSE_UPSTREAM_RESET); /* too late for an answer of ours */
        return;
    }
    if (h->decision[0] == '\0') {
        conn_decision_new(c->worker, h->decision);
    }
    bool close = end != CONN_CLOSE_DONE || conn_drains(c) || !h->req.keep_alive;
    h->status = status;
    h->reason = reason;
    h->close_said = close;
    struct http1_answer a = {.status = status,
                             .reason = reason,
                             .decision_id = str_of(h->decision),
                             .text = text,
                             .retry_after_s = status == 429 ? 1 : 0,
                             .head = h->req.method == HTTP1_HEAD,
                             .close = close};
    bool ok = http1_answer_emit(&a, emit) && http_send_emit(c, conn_downstream(c));
    http_record(c);
    h->in_flight = false;
    if (!ok) {
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
    } else if (end != CONN_CLOSE_DONE) {
        conn_close(c, end);
    } else if (h->req_phase == REQ_DONE) {
        http_exchange_end(c);
    }
}

/* --- the end of an exchange ------------------------------------------------------------------- */

void http_exchange_end(struct conn *c)
{
    struct conn_http *h = c->http;
    if (h->in_flight) {
        http_record(c);
        h->in_flight = false;
    }
    conn_count_bytes(c);
    if (h->close_said || h->down_eof || h->req_phase != REQ_DONE) {
        conn_close(c, CONN_CLOSE_ANSWERED);
        return;
    }
    h->requests++;
    h->req_phase = REQ_HEAD;
    h->res_phase = RES_NONE;
    h->head_sent = false;
    h->in_looked_at = false;
    h->decision[0] = h->near_miss[0] = '\0';
    h->reason = NULL;
    memset(&h->scan, 0, sizeof(h->scan));
    http_facts_drop(h);
    buf_consume(&h->retry, buf_len(&h->retry));
    if (h->in.len == 0) {
        buf_reset(&h->in);
        http_set_deadline(c, http_pool_idle_ms(c));
    } else {
        http_set_deadline(c, conn_conf(c)->timeouts.request_head_ms);
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool wants_downstream(struct conn *c)
{
    const struct conn_http *h = c->http;
    if (h->down_eof || stream_blocked(&conn_downstream(c)->s)) {
        return false;
    }
    switch (h->req_phase) {
    case REQ_HEAD:
    case REQ_DISCARD:
        return true;
    case REQ_BODY:
        return !stream_blocked(&conn_upstream(c)->s) && !http_upstream_holds(c);
    case REQ_DONE:
        return h->in.len < HTTP_AHEAD_MAX; /* to see that the client went away */
    }
    return false;
}

/* Feeds what is at hand, and keeps what was not used. */
static void feed_downstream(struct conn *c, const uint8_t *data, size_t n)
{
    struct conn_http *h = c->http;
    if (h->in.len == 0) {
        size_t used = http_request_feed(c, data, n);
        if (c->state == CONN_HTTP && used < n && !buf_append(&h->in, data + used, n - used)) {
            conn_close(c, CONN_CLOSE_NO_MEMORY);
        }
    } else {
        if (n > 0 && !buf_append(&h->in, data, n)) {
            conn_close(c, CONN_CLOSE_NO_MEMORY);
            return;
        }
        size_t used = http_request_feed(c, buf_head(&h->in), buf_len(&h->in));
        if (c->http != NULL) {
            buf_consume(&h->in, used);
        }
    }
    h->in_looked_at = true;
}

static void downstream_ended(struct conn *c, bool in_order)
{
    struct conn_http *h = c->http;
    bool idle = h->req_phase == REQ_HEAD && h->in.len == 0;
    if (idle && (in_order || conn_downstream(c)->s.truncated)) {
        conn_close(c, CONN_CLOSE_DONE); /* between messages, every end is one */
    } else if (in_order && h->req_phase == REQ_DONE) {
        h->down_eof = true; /* it still wants its answer */
    } else {
        c->sys_errno = conn_downstream(c)->s.sys_errno;
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
    }
}

static void read_downstream(struct conn *c)
{
    struct conn_http *h = c->http;
    struct conn_leg *down = conn_downstream(c);
    size_t n = 0;
    down->ready &= ~(unsigned)LOOP_READ;
    switch (stream_read(&down->s, c->worker->scratch.plain, NET_SCRATCH_SIZE, &n)) {
    case STREAM_OK:
        if (h->req_phase == REQ_HEAD && h->in.len == 0) {
            http_set_deadline(c, conn_conf(c)->timeouts.request_head_ms);
        }
        feed_downstream(c, c->worker->scratch.plain, n);
        break;
    case STREAM_AGAIN:
        break;
    case STREAM_EOF:
        downstream_ended(c, true);
        break;
    case STREAM_FAILED:
        downstream_ended(c, false);
        break;
    }
}

static void read_upstream(struct conn *c)
{
    struct conn_http *h = c->http;
    struct conn_leg *up = conn_upstream(c);
    const uint8_t *data = c->worker->scratch.plain;
    size_t n = 0;
    up->ready &= ~(unsigned)LOOP_READ;
    switch (stream_read(&up->s, c->worker->scratch.plain, NET_SCRATCH_SIZE, &n)) {
    case STREAM_OK:
        break;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
        http_response_eof(c, true);
        return;
    case STREAM_FAILED:
        if (!http_upstream_refused(c)) {
            http_response_eof(c, false);
        }
        return;
    }
    if (h->rin.len == 0) {
        size_t used = http_response_feed(c, data, n);
        if (c->state == CONN_HTTP && h->up != UP_NONE && used < n &&
            !buf_append(&h->rin, data + used, n - used)) {
            conn_close(c, CONN_CLOSE_NO_MEMORY);
        }
        return;
    }
    if (!buf_append(&h->rin, data, n)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    size_t used = http_response_feed(c, buf_head(&h->rin), buf_len(&h->rin));
    if (c->state == CONN_HTTP && h->up != UP_NONE) {
        buf_consume(&h->rin, used);
        if (h->rin.len == 0) {
            buf_reset(&h->rin);
        }
    }
}

static bool flush_leg(struct conn_leg *leg)
{
    bool ok = true;
    if ((leg->ready & LOOP_WRITE) != 0 && stream_is_open(&leg->s) && stream_blocked(&leg->s)) {
        ok = stream_flush(&leg->s) != STREAM_FAILED;
    }
    leg->ready &= ~(unsigned)LOOP_WRITE;
    return ok;
}

/* One round; false: nothing more to do now. */
static bool advance(struct conn *c)
{
    struct conn_http *h = c->http;
    struct conn_leg *down = conn_downstream(c);
    struct conn_leg *up = conn_upstream(c);
    if (h->req_phase != REQ_DONE && h->in.len > 0 && !h->in_looked_at &&
        !stream_blocked(&down->s)) {
        feed_downstream(c, NULL, 0);
        return true;
    }
    if (((down->ready & LOOP_READ) != 0 || stream_has_input(&down->s)) && wants_downstream(c)) {
        read_downstream(c);
        return true;
    }
    if (h->up == UP_OPEN && ((up->ready & LOOP_READ) != 0 || stream_has_input(&up->s)) &&
        !stream_blocked(&down->s)) {
        read_upstream(c);
        return true;
    }
    return false;
}

void conn_http_step(struct conn *c)
{
    struct conn_http *h = c->http;
    struct conn_leg *down = conn_downstream(c);
    struct conn_leg *up = conn_upstream(c);
    c->active_ms = loop_now_ms(c->worker->loop);
    if ((h->up != UP_NONE && h->up != UP_OPEN) && up->ready != 0) {
        http_upstream_step(c, 0);
    }
    if (c->state == CONN_HTTP && !flush_leg(down)) {
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
    }
    if (c->state == CONN_HTTP && !flush_leg(up)) {
        h->up_broken = true;
    }
    while (c->state == CONN_HTTP && !h->preface && advance(c)) {
    }
    if (c->state == CONN_HTTP && h->preface) {
        conn_h2_from_http(c);
        return;
    }
    if (c->state != CONN_HTTP) {
        return;
    }
    conn_leg_want(down, (wants_downstream(c) ? LOOP_READ : 0U) |
                            (stream_blocked(&down->s) ? LOOP_WRITE : 0U));
    if (h->up == UP_OPEN || h->up == UP_DIALING) { /* a handshake watches for itself */
        bool read = h->up == UP_OPEN && !stream_blocked(&down->s);
        bool write = h->up == UP_DIALING || (stream_blocked(&up->s) && !h->up_broken);
        conn_leg_want(up, (read ? LOOP_READ : 0U) | (write ? LOOP_WRITE : 0U));
    }
}

/* --- time, drain, judging again --------------------------------------------------------------- */

void conn_http_timeout(struct conn *c)
{
    struct conn_http *h = c->http;
    uint64_t now = loop_now_ms(c->worker->loop);
    if (h->deadline_ms == 0) {
        return;
    }
    if (now < h->deadline_ms) {
        loop_timer_arm(&c->timer, h->deadline_ms - now);
        return;
    }
    if (h->up != UP_NONE && h->up != UP_OPEN) {
        http_upstream_step(c, ETIMEDOUT);
        if (c->state == CONN_HTTP) {
            conn_http_step(c); /* another address, or what stands behind in `in` */
        }
    } else if (h->in_flight || h->req_phase != REQ_HEAD) {
        http_time_check(c);
    } else if (h->req_phase == REQ_HEAD && h->in.len > 0) {
        h->req = (struct http1_request_info){.method = HTTP1_OTHER};
        http_answer(c, 408, "request_timeout", NULL, CONN_CLOSE_REQUEST_TIMEOUT);
    } else if (now < h->idle_end_ms) {
        http_pool_give(c); /* an idle client has no connection to the workload */
        http_set_deadline(c, h->idle_end_ms - now);
    } else if (h->requests == 0) {
        conn_close(c, CONN_CLOSE_REQUEST_TIMEOUT);
    } else {
        conn_close(c, CONN_CLOSE_ANSWERED);
    }
}

bool conn_http_rejudge(struct conn *c)
{
    const struct conn_http *h = c->http;
    if (!h->in_flight && !c->upgraded) {
        return true; /* the next request is judged by the new policy anyway */
    }
    if (h->req.method == HTTP1_CONNECT && !http_connect_listed(c, http_facts_get(h).host)) {
        return false;
    }
    /* Its token too: its key may have been withdrawn. One that holds no more says nothing. */
    (void)http_facts_claims(c, NULL);
    return http_judge(c);
}

void conn_http_drain(struct conn *c)
{
    struct conn_http *h = c->http;
    if (c->state == CONN_HTTP2) {
        conn_h2_drain(c, 0);
        return;
    }
    if ((c->state == CONN_HTTP || c->state == CONN_DETECT) && h->req_phase == REQ_HEAD &&
        h->in.len == 0) {
        conn_close(c, CONN_CLOSE_ANSWERED);
    }
}

/* --- the log ---------------------------------------------------------------------------------- */

/* Also without an answer. */
static bool is_refused(const struct conn_http *h)
{
    return h->reason != NULL && (h->status >= 400 || h->status == 0);
}

static bool wants_line(const struct conn *c)
{
    bool refused = is_refused(c->http);
    if (conn_conf(c)->access_log == CONF_ACCESS_DENIED && !refused) {
        return false;
    }
    return log_enabled(c->worker->log, refused ? LOG_WARN : LOG_INFO);
}

void http_record(struct conn *c)
{
    struct conn_http *h = c->http;
    unsigned class = h->status / 100;
    counter_add(&c->worker->counters.requests[class < CONN_STATUS_CLASSES ? class : 0], 1);
    if (!wants_line(c)) {
        return;
    }
    struct log_line l;
    log_begin(&l, c->worker->log, is_refused(h) ? LOG_WARN : LOG_INFO, "request");
    conn_record_common(&l, c);
    struct http_facts facts = http_facts_get(h);
    if (facts.method.n > 0) {
        log_strn(&l, "method", facts.method);
        log_strn(&l, "host", facts.host);
        log_strn(&l, "path", facts.path);
        log_str(&l, "verdict", h->verdict.allow ? "allow" : "deny");
        log_str(&l, "rule", h->verdict.rule);
    }
    log_uint(&l, "status", h->status);
    log_str(&l, "reason", h->reason);
    log_str(&l, "decision", h->decision[0] != '\0' ? h->decision : NULL);
    log_str(&l, "near_miss", h->near_miss[0] != '\0' ? h->near_miss : NULL);
    if (c->sys_errno != 0 && h->reason != NULL) {
        log_str(&l, "error", strerrordesc_np(c->sys_errno));
    }
    const struct stream *down = &conn_downstream(c)->s;
    log_uint(&l, "bytes_up", down->bytes_read - h->up_mark);
    log_uint(&l, "bytes_down", down->bytes_written - h->down_mark);
    log_uint(&l, "duration_ms", loop_now_ms(c->worker->loop) - h->began_ms);
    log_end(&l);
}
