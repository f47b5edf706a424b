/* HTTP/2, client -> workload: reading a request, judging it, sending it on. */
#include "h2_priv.h"

#include "http_priv.h"

#include <stdio.h>
#include <string.h>

/* --- a head --------------------------------------------------------------------------------- */

static bool keep_head(struct h2_exchange *x, const struct http2_head *head)
{
    x->head_len = (uint32_t)head->text.n;
    uint8_t *at = buf_reserve(&x->head, 2 * head->text.n); /* twice, for the facts */
    if (at == NULL) {
        return false;
    }
    memcpy(at, head->text.p, head->text.n);
    buf_commit(&x->head, head->text.n);
    return true;
}

/* What the log says of it, behind the head. There is room for it: the request's views are into the
 * head, which may not move. */
static void keep_facts(struct h2_exchange *x)
{
    const struct http1_request *r = x->conn->worker->request;
    x->req = r->info;
    x->method_len = (uint16_t)r->method.n;
    x->host_len = (uint16_t)r->host.n;
    x->path_len = (uint16_t)r->judged_path.n;
    (void)buf_append_str(&x->head, r->host);
    (void)buf_append_str(&x->head, r->judged_path);
}

/* The bits of the lines that are left. */
static void left_of(const struct http1_request *r, const uint64_t before[2], uint64_t ret[2])
{
    unsigned line = 0;
    ret[0] = ret[1] = 0;
    for (unsigned i = 0; i < r->n_headers && (before[0] | before[1]) != 0; i++) {
        if (!r->headers[i].drop) {
            ret[line / 64] |= (before[i / 64] >> (i % 64) & 1) << (line % 64);
            line++;
        }
    }
}

static size_t request_fields(struct h2_exchange *x, const uint64_t never[2],
                             struct http2_field fields[HTTP2_FIELDS_MAX])
{
    const struct conn *c = x->conn;
    const struct http1_request *r = c->worker->request;
    struct buf *emit = &c->worker->emit;
    uint64_t left[2];
    size_t n = 0;
    fields[n++] = (struct http2_field){STR_LIT(":method"), r->method, false};
    fields[n++] = (struct http2_field){STR_LIT(":scheme"),
                                       x->https ? STR_LIT("https") : STR_LIT("http"), false};
    fields[n++] =
        (struct http2_field){STR_LIT(":authority"), http1_request_header(r, "host"), false};
    fields[n++] = (struct http2_field){STR_LIT(":path"), r->target, false};
    left_of(r, never, left);
    n = h2_fields_add(emit->data + emit->start, emit->len, true, left, fields, n);
    if (x->te_trailers && n < HTTP2_FIELDS_MAX) {
        fields[n++] = (struct http2_field){STR_LIT("te"), STR_LIT("trailers"), false};
    }
    return n;
}

static void refuse(struct h2_exchange *x, unsigned status, const char *reason, const char *text)
{
    http2_session_charge(x->conn->h2->down);
    h2_answer(x, status, reason, text, NULL);
}

_Static_assert(HTTP2_FIELDS_MAX >= HTTP1_MAX_HEADERS + 16, "with the pseudo fields and ours");

static void forward(struct h2_exchange *x, const struct http2_head *head)
{
    struct conn *c = x->conn;
    struct buf *emit = &c->worker->emit;
    struct http2_field fields[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    char trace[HTTP1_TRACEPARENT_LEN + 1];
    struct http1_forward fwd = {.own_id = conn_own_id(c),
                                .peer_hash = str_of(c->h2->peer_hash),
                                .source = str_of(c->h2->source_ip),
                                .proto = c->plaintext ? STR_LIT("http") : STR_LIT("https"),
                                .traceparent = http_trace_begin(c, trace)};
    if (conn_conf(c)->http.via != CONF_VIA_OFF) {
        fwd.via = STR_LIT("2 postern");
    }
    http_put_peer(c, &fwd);
    x->in_flight = true;
    if (!h2_upstream_ensure(c)) {
        return; /* it was answered */
    }
    buf_consume(emit, emit->len);
    conn_claims_withhold(&x->claims, c->worker->request);
    bool ok = http1_request_emit(c->worker->request, &fwd, emit);
    size_t n = ok ? request_fields(x, head->never_indexed, fields) : 0;
    if (n > HTTP2_FIELDS_MAX) {
        x->in_flight = false;
        refuse(x, 431, http1_reason_token(HTTP1_HEADERS_MANY), NULL);
    } else if (!ok || !http2_stream_open(c->h2->up, &x->up, x, fields, n, head->ends)) {
        bool leaves = http2_session_peer_leaves(c->h2->up);
        x->in_flight = false;
        x->reason = leaves ? "upstream_leaves" : "no_memory";
        http2_stream_reset(&x->down, leaves ? HTTP2_REFUSED_STREAM : HTTP2_INTERNAL_ERROR);
    } else {
        h2_time_begin(x);
    }
    buf_consume(emit, emit->len);
}

static void deny(struct h2_exchange *x, unsigned status, const char *reason, const char *what,
                 const char *near_miss)
{
    char text[96];
    if (x->decision[0] == '\0') {
        conn_decision_new(x->conn->worker, x->decision);
    }
    snprintf(text, sizeof(text), "%s; decision %s", what, x->decision);
    h2_answer(x, status, reason, text, near_miss);
}

/* Each request is judged by what holds when it comes. */
static void take_judged(struct h2_exchange *x, const struct http2_head *head)
{
    struct conn *c = x->conn;
    struct http1_error e;
    char near_miss[240];
    x->grpc = http_is_grpc(c->worker->request);
    if (c->snap != c->worker->current) {
        x->busy++;
        bool on = conn_catch_up(c);
        x->busy--;
        if (!on) {
            return;
        }
        if (h2_head_read(x, &e) != HTTP1_DONE) { /* others were looked at meanwhile */
            refuse(x, e.status, http1_reason_token(e.reason), http1_reason_text(e.reason));
            return;
        }
    }
    const struct http1_request *r = c->worker->request;
    struct err err = ERR_INIT;
    if (!h2_claims_take(x, &err)) {
        counter_add(&c->worker->counters.requests_denied, 1);
        snprintf(near_miss, sizeof(near_miss), "token: %.200s", err.what);
        x->judged = true; /* the facts are said in the log */
        h2_denied(x, "token_refused");
        h2_audit(x, NULL, near_miss, "token_refused");
        deny(x, 401, "token_refused", "a token that does not hold", near_miss);
        return;
    }
    bool allowed = h2_judge(x, near_miss, sizeof(near_miss));
    if (allowed && !http_rate_take(c, r->method, r->judged_path)) {
        h2_denied(x, "rate_limited");
        h2_audit(x, &x->verdict, NULL, "rate_limited");
        deny(x, 429, "rate_limited", "too many requests", NULL);
        return;
    }
    h2_audit(x, &x->verdict, near_miss, NULL);
    if (!allowed) {
        counter_add(&c->worker->counters.requests_denied, 1);
        deny(x, 403, "policy_denied", "denied", near_miss);
    } else {
        forward(x, head);
    }
}

static void take_request(struct h2_exchange *x, const struct http2_head *head)
{
    struct http1_error e;
    if (head->too_long || !keep_head(x, head)) {
        refuse(x, 431, http1_reason_token(HTTP1_HEAD_LONG), NULL);
    } else if (head->bad_scheme) {
        refuse(x, 400, "scheme", "a scheme that is neither http nor https");
    } else if (head->host_mismatch) {
        refuse(x, 400, http1_reason_token(HTTP1_HOST_MISMATCH), NULL);
    } else if (h2_head_read(x, &e) != HTTP1_DONE) {
        refuse(x, e.status, http1_reason_token(e.reason), http1_reason_text(e.reason));
    } else {
        keep_facts(x);
        take_judged(x, head);
    }
}

static void on_request(void *arg, int32_t id, const struct http2_head *head)
{
    struct conn *c = (struct conn *)arg;
    struct h2_exchange *x = h2_is_over(c) ? NULL : h2_exchange_new(c, id);
    if (x == NULL) {
        return;
    }
    http2_stream_accept(c->h2->down, id, &x->down, x);
    x->req_ended = head->ends;
    x->te_trailers = head->te_trailers;
    x->https = head->https;
    c->sys_errno = 0;
    take_request(x, head);
}

static void on_malformed(void *arg, int32_t id)
{
    struct conn *c = (struct conn *)arg;
    struct log_line l;
    if (h2_is_over(c)) {
        return;
    }
    counter_add(&c->worker->counters.requests[0], 1);
    log_begin(&l, c->worker->log, LOG_WARN, "request");
    conn_record_common(&l, c);
    log_str(&l, "protocol", "http2");
    log_uint(&l, "stream", (uint64_t)id);
    log_uint(&l, "status", 0);
    log_str(&l, "reason", "malformed");
    log_end(&l);
}

/* --- client -> workload ----------------------------------------------------------------------- */

/* Of one whose length was not said; else its head was refused. */
static bool body_is_long(const struct h2_exchange *x)
{
    uint64_t most = conn_conf(x->conn)->limits.request_body_bytes;
    return most > 0 && x->bytes_up > most;
}

static void refuse_rest(struct h2_exchange *x)
{
    const char *reason = http1_reason_token(HTTP1_BODY_LONG);
    if (!x->head_passed) {
        h2_answer(x, 413, reason, http1_reason_text(HTTP1_BODY_LONG), NULL);
    } else if (!x->recorded) { /* by us it was not answered */
        x->reason = reason;
        http2_stream_reset(&x->down, HTTP2_CANCEL);
        http2_stream_reset(&x->up, HTTP2_CANCEL);
    }
}

static void take_data(struct http2_stream *st, const uint8_t *p, size_t n, bool last)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    x->bytes_up += n;
    if (h2_is_over(x->conn) || !http2_stream_is_live(&x->up)) {
        http2_stream_consumed(st, n); /* it was answered */
        return;
    }
    h2_exchange_moved(x);
    if (body_is_long(x)) {
        http2_stream_consumed(st, n);
        refuse_rest(x);
    } else if (!(last ? http2_stream_send_last : http2_stream_send)(&x->up, p, n)) {
        http2_stream_reset(&x->up, HTTP2_INTERNAL_ERROR);
    }
}

static void down_data(struct http2_stream *st, const uint8_t *p, size_t n)
{
    take_data(st, p, n, false);
}

static void down_data_last(struct http2_stream *st, const uint8_t *p, size_t n)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    x->req_ended = true;
    take_data(st, p, n, true);
    if (!h2_is_over(x->conn)) {
        h2_time_sent(x);
    }
}

static void down_trailers(struct http2_stream *st, const struct http2_head *t)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    struct http2_field fields[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    if (h2_is_over(x->conn)) {
        return;
    }
    x->req_ended = true;
    const char *refused = t->too_long ? "trailer_long" : h2_trailers_refused(t->text);
    if (refused != NULL) {
        x->reason = refused;
        x->res_ended = true; /* whatever still comes is no answer to it */
        http2_stream_reset(st, HTTP2_PROTOCOL_ERROR);
        http2_stream_reset(&x->up, HTTP2_CANCEL);
        return;
    }
    struct buf *emit = &x->conn->worker->emit;
    buf_consume(emit, emit->len);
    bool ok = buf_append(emit, "\n", 1) && buf_append_str(emit, t->text);
    size_t n = ok ? h2_fields_add(emit->data + emit->start, emit->len, false, NULL, fields, 0) : 0;
    if (!ok || !http2_stream_end_with(&x->up, fields, n)) {
        http2_stream_reset(&x->up, HTTP2_INTERNAL_ERROR);
    }
    h2_time_sent(x);
    buf_consume(emit, emit->len);
}

static void down_ended(struct http2_stream *st)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    x->req_ended = true;
    if (!h2_is_over(x->conn)) {
        http2_stream_end(&x->up);
        h2_time_sent(x);
    }
}

static void down_taken(struct http2_stream *st, size_t n)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    h2_exchange_moved(x);
    if (!x->recorded || http2_stream_is_live(&x->up)) {
        http2_stream_consumed(&x->up, n);
    }
}

static void down_closed(struct http2_stream *st, uint32_t code)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    if (h2_is_over(x->conn)) {
        return;
    }
    if (code != HTTP2_NO_ERROR || !x->res_ended) {
        x->reason = x->reason != NULL ? x->reason : "downstream_reset";
        http2_stream_reset(&x->up, code != HTTP2_NO_ERROR ? http2_code_across(code) : HTTP2_CANCEL);
    }
    h2_exchange_finish(x);
}

const struct http2_ops h2_down_ops = {
    .wake = h2_on_wake,
    .request = on_request,
    .malformed = on_malformed,
    .data = down_data,
    .data_last = down_data_last,
    .trailers = down_trailers,
    .ended = down_ended,
    .taken = down_taken,
    .closed = down_closed,
};
