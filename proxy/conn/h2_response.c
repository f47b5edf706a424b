/* HTTP/2, workload -> client: reading a response and passing it on. */
#include "h2_priv.h"

#include "http_priv.h"

#include <string.h>

void h2_exchange_lost(struct h2_exchange *x, unsigned status, const char *reason)
{
    if (x->res_ended) {
        h2_exchange_finish(x);
    } else if (!x->head_passed) {
        h2_answer(x, status, reason, NULL, NULL);
    } else {
        h2_break(x, status, reason);
    }
}

static void bad_response(struct h2_exchange *x, const char *reason)
{
    x->busy++;
    http2_stream_reset(&x->up, HTTP2_PROTOCOL_ERROR);
    POSTERN_ASSERT(x->busy > 0); /* so it is not freed before the last line */
    h2_exchange_lost(x, 502, reason);
    x->busy--;
    h2_exchange_finish(x);
}

static void take_grpc_status(struct h2_exchange *x, struct str value)
{
    uint64_t n;
    if (x->grpc && value.n > 0 && str_to_u64(value, 999, &n)) {
        x->grpc_status = (int)n;
    }
}

static bool pass_head(struct h2_exchange *x, const struct http2_head *head)
{
    struct conn *c = x->conn;
    const struct http1_response *r = c->worker->response;
    struct buf *emit = &c->worker->emit;
    struct http2_field fields[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    buf_consume(emit, emit->len);
    bool via = conn_conf(c)->http.via == CONF_VIA_BOTH;
    if (!http1_response_emit(r, &x->req, false, via ? STR_LIT("2 postern") : STR_NONE, emit)) {
        return false;
    }
    fields[0] = h2_status_field(buf_head(emit));
    size_t n =
        h2_fields_add(emit->data + emit->start, emit->len, false, head->never_indexed, fields, 1);
    take_grpc_status(x, h2_field_value(fields, n, STR_LIT("grpc-status")));
    bool ok = http2_stream_head(&x->down, fields, n, r->info.interim, head->ends);
    buf_consume(emit, emit->len);
    return ok;
}

static void on_response(struct http2_stream *st, const struct http2_head *head)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    struct conn *c = x->conn;
    struct http1_scan scan = {0};
    struct http1_limits limits;
    struct http1_error e;
    if (h2_is_over(c) || x->res_ended) {
        return;
    }
    h2_exchange_moved(x);
    http_limits(c, &limits);
    limits.composed = true;
    if (head->too_long) {
        bad_response(x, http1_reason_token(HTTP1_HEAD_LONG));
        return;
    }
    if (http1_response_read(&scan, (const uint8_t *)head->text.p, head->text.n, &limits, &x->req,
                            c->worker->response, &e) != HTTP1_DONE) {
        bad_response(x, http1_reason_token(e.reason));
        return;
    }
    if (c->worker->response->info.interim && ++x->n_interim > HTTP_INTERIM_MAX) {
        bad_response(x, "interim_many");
        return;
    }
    if (!pass_head(x, head)) {
        bad_response(x, "no_memory");
        return;
    }
    if (!c->worker->response->info.interim) {
        x->status = c->worker->response->info.status;
        x->head_passed = true;
        x->res_ended = head->ends;
    }
}

static void take_data(struct http2_stream *st, const uint8_t *p, size_t n, bool last)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    if (h2_is_over(x->conn) || x->res_ended || !http2_stream_is_live(&x->down)) {
        http2_stream_consumed(st, n);
        return;
    }
    h2_exchange_moved(x);
    x->bytes_down += n;
    x->res_ended = last;
    if (!(last ? http2_stream_send_last : http2_stream_send)(&x->down, p, n)) {
        x->res_ended = false;
        bad_response(x, "no_memory");
    }
}

static void up_data(struct http2_stream *st, const uint8_t *p, size_t n)
{
    take_data(st, p, n, false);
}

static void up_data_last(struct http2_stream *st, const uint8_t *p, size_t n)
{
    take_data(st, p, n, true);
}

static void up_trailers(struct http2_stream *st, const struct http2_head *t)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    struct http2_field fields[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    (void)st;
    if (h2_is_over(x->conn) || x->res_ended) {
        return;
    }
    const char *refused = t->too_long ? "trailer_long" : h2_trailers_refused(t->text);
    if (refused != NULL) {
        bad_response(x, refused);
        return;
    }
    struct buf *emit = &x->conn->worker->emit;
    buf_consume(emit, emit->len);
    bool ok = buf_append(emit, "\n", 1) && buf_append_str(emit, t->text);
    size_t n = ok ? h2_fields_add(emit->data + emit->start, emit->len, false, NULL, fields, 0) : 0;
    take_grpc_status(x, h2_field_value(fields, n, STR_LIT("grpc-status")));
    x->res_ended = true;
    if (!ok || !http2_stream_end_with(&x->down, fields, n)) {
        http2_stream_reset(&x->down, HTTP2_INTERNAL_ERROR);
    }
    buf_consume(emit, emit->len);
}

static void up_ended(struct http2_stream *st)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    if (!h2_is_over(x->conn) && !x->res_ended) {
        x->res_ended = true;
        http2_stream_end(&x->down);
    }
}

static void up_taken(struct http2_stream *st, size_t n)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    h2_exchange_moved(x);
    http2_stream_consumed(&x->down, n);
}

static void up_closed(struct http2_stream *st, uint32_t code)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    (void)st;
    if (h2_is_over(x->conn)) {
        return;
    }
    x->busy++;
    if (x->res_ended) {
        x->down.unwanted = true; /* if it goes on sending */
    } else if (!http2_stream_is_live(&x->down)) {
        x->reason = x->reason != NULL ? x->reason : "upstream_reset";
    } else if (code == HTTP2_REFUSED_STREAM && !x->head_passed) {
        x->reason = "upstream_refused";
        http2_stream_reset(&x->down, HTTP2_REFUSED_STREAM);
    } else if (!x->head_passed) {
        h2_answer(x, 502, "upstream_reset", NULL, NULL);
    } else {
        x->reason = x->reason != NULL ? x->reason : "upstream_reset";
        http2_stream_reset(&x->down,
                           code != HTTP2_NO_ERROR ? http2_code_across(code) : HTTP2_INTERNAL_ERROR);
    }
    x->busy--;
    h2_exchange_finish(x);
}

const struct http2_ops h2_up_ops = {
    .wake = h2_on_wake,
    .response = on_response,
    .data = up_data,
    .data_last = up_data_last,
    .trailers = up_trailers,
    .ended = up_ended,
    .taken = up_taken,
    .closed = up_closed,
};
