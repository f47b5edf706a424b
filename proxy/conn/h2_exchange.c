/* HTTP/2: one request and its response, between a stream of the client and one of the workload. */
#include "h2_priv.h"

#include "http_priv.h"

#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- birth and death -------------------------------------------------------------------------- */

static struct h2_exchange *exchange_new(struct conn *c, int32_t id)
{
    struct conn_http2 *h = c->h2;
    struct h2_exchange *x = h->spare;
    if (x != NULL) {
        h->spare = x->next;
        h->n_spare--;
    } else if ((x = (struct h2_exchange *)calloc(1, sizeof(*x))) == NULL) {
        return NULL;
    }
    struct buf head = x->head, kept[4] = {x->down.out, x->down.tail, x->up.out, x->up.tail};
    *x = (struct h2_exchange){.conn = c,
                              .next = h->open,
                              .head = head,
                              .id = id,
                              .grpc_status = H2_STATUS_UNSAID,
                              .down = {.out = kept[0], .tail = kept[1]},
                              .up = {.out = kept[2], .tail = kept[3]}};
    buf_consume(&x->head, x->head.len);
    x->head.max = (size_t)2 * conn_conf(c)->limits.request_head_bytes + HTTP1_MAX_TARGET;
    x->began_ms = x->active_ms = loop_now_ms(c->worker->loop);
    if (h->open != NULL) {
        h->open->prev = x;
    }
    h->open = x;
    h->n_open++;
    h->total++;
    return x;
}

static void memory_free(struct h2_exchange *x)
{
    conn_claims_drop(&x->claims);
    buf_reset(&x->head);
    buf_reset(&x->down.out);
    buf_reset(&x->down.tail);
    buf_reset(&x->up.out);
    buf_reset(&x->up.tail);
    free(x);
}

void h2_exchange_finish(struct h2_exchange *x)
{
    struct conn *c = x->conn;
    struct conn_http2 *h = c->h2;
    if (x->busy > 0 || h->hold > 0 || x->down.id != 0 || x->up.id != 0) {
        return;
    }
    h2_record(x, NULL);
    conn_claims_drop(&x->claims);
    http2_stream_drop(&x->down);
    http2_stream_drop(&x->up);
    *(x->prev != NULL ? &x->prev->next : &h->open) = x->next;
    if (x->next != NULL) {
        x->next->prev = x->prev;
    }
    x->prev = NULL;
    h->n_open--;
    if (h->n_open == 0) {
        h->idle_since_ms = loop_now_ms(c->worker->loop);
        h2_wake(c); /* it may have waited for that */
    }
    if (h->n_spare < H2_SPARE_MAX) {
        x->next = h->spare;
        h->spare = x;
        h->n_spare++;
    } else {
        memory_free(x);
    }
}

void h2_hold(struct conn *c)
{
    c->h2->hold++;
}

void h2_release(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    if (--h->hold > 0) {
        return;
    }
    for (struct h2_exchange *x = h->open, *next; x != NULL; x = next) {
        next = x->next;
        h2_exchange_finish(x);
    }
}

void h2_exchanges_free(struct conn_http2 *h)
{
    struct h2_exchange *lists[2] = {h->open, h->spare};
    for (size_t i = 0; i < 2; i++) {
        for (struct h2_exchange *x = lists[i], *next; x != NULL; x = next) {
            next = x->next;
            memory_free(x);
        }
    }
    h->open = h->spare = NULL;
    h->n_open = h->n_spare = 0;
}

static void on_wake(void *arg)
{
    h2_wake((struct conn *)arg);
}

static bool is_over(const struct conn *c)
{
    return c->state != CONN_HTTP2;
}

static void moved(struct h2_exchange *x)
{
    x->active_ms = loop_now_ms(x->conn->worker->loop);
}

/* --- judging ---------------------------------------------------------------------------------- */

/* What the workload does not get is not there. */
static size_t headers_of(const struct http1_request *r, struct policy_header *items)
{
    size_t n = 0;
    for (unsigned i = 0; i < r->n_headers; i++) {
        if (r->headers[i].drop) {
            continue;
        }
        bool host = str_eq_nocase(r->headers[i].name, STR_LIT("host"));
        items[n++] = (struct policy_header){host ? STR_LIT("host") : r->headers[i].name,
                                            r->headers[i].value};
    }
    return n;
}

static void decide(struct h2_exchange *x, struct policy_query *q, char *near_miss, size_t size)
{
    const struct policy *policy = NULL;
    snapshot_decide(conn_snapshot(x->conn), q, &x->verdict, &policy);
    near_miss[0] = '\0';
    if (!x->verdict.allow) {
        policy_near_miss(policy, q, near_miss, size);
    }
}

/* The worker's request is this one. A path that has a second reading is let in only if it would be
 * by both. */
static bool judge(struct h2_exchange *x, char *near_miss, size_t size)
{
    const struct conn *c = x->conn;
    const struct http1_request *r = c->worker->request;
    struct policy_header items[HTTP1_MAX_HEADERS];
    struct policy_headers headers = {headers_of(r, items), items};
    struct policy_query q = {.target = conn_own_id(c),
                             .peer = conn_peer_id(c),
                             .source = conn_source(c),
                             .port = conn_port(c),
                             .now_s = os_wall_s(),
                             .http = true,
                             .grpc = x->grpc,
                             .method = r->method,
                             .host = r->host,
                             .path = r->judged_path,
                             .query = r->has_query ? r->query : STR_LIT(""),
                             .headers = &headers,
                             .claims = conn_claims_list(&x->claims)};
    x->judged = true;
    decide(x, &q, near_miss, size);
    if (x->verdict.allow && r->other_path.n > 0) {
        q.path = r->other_path;
        decide(x, &q, near_miss, size);
    }
    return x->verdict.allow;
}

/* After judge, of the worker's request. reason NULL: the verdict's; else it is ended for that. */
static void audit(struct h2_exchange *x, const char *near_miss, const char *reason)
{
    const struct http1_request *r = x->conn->worker->request;
    conn_audit_request(x->conn, &(const struct conn_audit){.verdict = &x->verdict,
                                                           .protocol = "http2",
                                                           .method = r->method,
                                                           .host = r->host,
                                                           .path = r->judged_path,
                                                           .decision = x->decision,
                                                           .near_miss = near_miss,
                                                           .reason = reason,
                                                           .ended = reason != NULL});
}

/* Judged again without what the token said. */
static void on_claims_end(void *arg)
{
    struct h2_exchange *x = arg;
    struct conn *c = x->conn;
    h2_hold(c);
    if (!h2_exchange_rejudge(x)) {
        h2_wake(c);
    }
    h2_release(c);
}

/* Of the worker's request. False: its token does not hold. */
static bool take_claims(struct h2_exchange *x, struct err *err)
{
    struct policy_header items[HTTP1_MAX_HEADERS];
    if (!conn_claims_wanted(x->conn)) {
        return true;
    }
    const struct policy_headers headers = {headers_of(x->conn->worker->request, items), items};
    return conn_claims_take(&x->claims, x->conn, &headers, on_claims_end, x, err);
}

static enum http1_result read_head(struct h2_exchange *x, struct http1_error *ret)
{
    struct http1_scan scan = {0};
    struct http1_limits limits;
    http_limits(x->conn, &limits);
    limits.composed = true;
    limits.connect = false;
    limits.max_head += HTTP1_MAX_TARGET; /* HTTP/2 has its own count */
    enum http1_result r = http1_request_read(&scan, buf_head(&x->head), x->head_len, &limits,
                                             x->conn->worker->request, ret);
    if (r == HTTP1_DONE && x->conn->worker->request->head_len != x->head_len) {
        *ret = (struct http1_error){HTTP1_SECOND_READING, 400, 0};
        return HTTP1_ERROR;
    }
    return r;
}

/* What was kept of it (keep_facts). */
static void facts_again(const struct h2_exchange *x, struct http1_request *ret)
{
    const char *head = (const char *)buf_head(&x->head);
    ret->method = (struct str){head, x->method_len};
    ret->host = (struct str){head + x->head_len, x->host_len};
    ret->judged_path = (struct str){head + x->head_len + x->host_len, x->path_len};
}

bool h2_exchange_rejudge(struct h2_exchange *x)
{
    struct http1_error e;
    char near_miss[240] = "";
    if (!x->in_flight) {
        x->verdict.rule = NULL; /* the snapshot that lent it goes */
        return true;
    }
    if (read_head(x, &e) != HTTP1_DONE) { /* it was read by limits that are no more */
        x->verdict = (struct policy_verdict){.allow = false, .reason = POLICY_NO_RULE};
        facts_again(x, x->conn->worker->request);
    } else if (judge(x, near_miss, sizeof(near_miss))) {
        return true;
    }
    audit(x, near_miss, "policy_changed");
    counter_add(&x->conn->worker->counters.requests_denied, 1);
    if (x->head_passed) {
        h2_cut(x, "policy_changed", near_miss);
    } else {
        h2_answer(x, 403, "policy_changed", NULL, near_miss);
    }
    return false;
}

/* --- a request -------------------------------------------------------------------------------- */

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

static void forward(struct h2_exchange *x, const struct http2_head *head)
{
    struct conn *c = x->conn;
    struct buf *emit = &c->worker->emit;
    struct http2_field fields[HTTP2_FIELDS_MAX];
    char trace[HTTP1_TRACEPARENT_LEN + 1];
    struct http1_forward fwd = {.own_id = conn_own_id(c),
                                .peer_hash = str_of(c->h2->peer_hash),
                                .source = str_of(c->h2->source_ip),
                                .proto = STR_LIT("https"),
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
    bool ok = http1_request_emit(c->worker->request, &fwd, emit);
    size_t n = ok ? request_fields(x, head->never_indexed, fields) : 0;
    if (!ok || !http2_stream_open(c->h2->up, &x->up, x, fields, n, head->ends)) {
        bool leaves = http2_session_peer_leaves(c->h2->up);
        x->in_flight = false;
        x->reason = leaves ? "upstream_leaves" : "no_memory";
        http2_stream_reset(&x->down, leaves ? HTTP2_REFUSED_STREAM : HTTP2_INTERNAL_ERROR);
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

static void refuse(struct h2_exchange *x, unsigned status, const char *reason, const char *text)
{
    http2_session_charge(x->conn->h2->down);
    h2_answer(x, status, reason, text, NULL);
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
        if (read_head(x, &e) != HTTP1_DONE) { /* others were looked at meanwhile */
            refuse(x, e.status, http1_reason_token(e.reason), http1_reason_text(e.reason));
            return;
        }
    }
    const struct http1_request *r = c->worker->request;
    struct err err = ERR_INIT;
    if (!take_claims(x, &err)) {
        counter_add(&c->worker->counters.requests_denied, 1);
        snprintf(near_miss, sizeof(near_miss), "token: %.200s", err.what);
        x->judged = true; /* the facts are said in the log */
        deny(x, 401, "token_refused", "a token that does not hold", near_miss);
        return;
    }
    bool allowed = judge(x, near_miss, sizeof(near_miss));
    audit(x, near_miss, NULL);
    if (!allowed) {
        counter_add(&c->worker->counters.requests_denied, 1);
        deny(x, 403, "policy_denied", "denied", near_miss);
    } else if (!http_rate_take(c, r->method, r->judged_path)) {
        deny(x, 429, "rate_limited", "too many requests", NULL);
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
    } else if (read_head(x, &e) != HTTP1_DONE) {
        refuse(x, e.status, http1_reason_token(e.reason), http1_reason_text(e.reason));
    } else {
        keep_facts(x);
        take_judged(x, head);
    }
}

static void on_request(void *arg, int32_t id, const struct http2_head *head)
{
    struct conn *c = (struct conn *)arg;
    struct h2_exchange *x = is_over(c) ? NULL : exchange_new(c, id);
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
    if (is_over(c)) {
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

static void down_data(struct http2_stream *st, const uint8_t *p, size_t n)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    x->bytes_up += n;
    if (is_over(x->conn) || !http2_stream_is_live(&x->up)) {
        http2_stream_consumed(st, n); /* it was answered */
        return;
    }
    moved(x);
    if (body_is_long(x)) {
        http2_stream_consumed(st, n);
        refuse_rest(x);
    } else if (!http2_stream_send(&x->up, p, n)) {
        http2_stream_reset(&x->up, HTTP2_INTERNAL_ERROR);
    }
}

static void down_trailers(struct http2_stream *st, const struct http2_head *t)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    struct http2_field fields[HTTP2_FIELDS_MAX];
    if (is_over(x->conn)) {
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
    buf_consume(emit, emit->len);
}

static void down_ended(struct http2_stream *st)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    x->req_ended = true;
    if (!is_over(x->conn)) {
        http2_stream_end(&x->up);
    }
}

static void down_taken(struct http2_stream *st, size_t n)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    moved(x);
    if (!x->recorded || http2_stream_is_live(&x->up)) {
        http2_stream_consumed(&x->up, n);
    }
}

static void down_closed(struct http2_stream *st, uint32_t code)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    if (is_over(x->conn)) {
        return;
    }
    if (code != HTTP2_NO_ERROR || !x->res_ended) {
        x->reason = x->reason != NULL ? x->reason : "downstream_reset";
        http2_stream_reset(&x->up, code != HTTP2_NO_ERROR ? http2_code_across(code) : HTTP2_CANCEL);
    }
    h2_exchange_finish(x);
}

const struct http2_ops h2_down_ops = {
    .wake = on_wake,
    .request = on_request,
    .malformed = on_malformed,
    .data = down_data,
    .trailers = down_trailers,
    .ended = down_ended,
    .taken = down_taken,
    .closed = down_closed,
};

/* --- workload -> client ----------------------------------------------------------------------- */

void h2_exchange_lost(struct h2_exchange *x, unsigned status, const char *reason)
{
    if (x->res_ended) {
        h2_exchange_finish(x);
    } else if (!x->head_passed) {
        h2_answer(x, status, reason, NULL, NULL);
    } else {
        x->reason = reason;
        http2_stream_reset(&x->down, HTTP2_INTERNAL_ERROR);
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
    struct http2_field fields[HTTP2_FIELDS_MAX];
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
    if (is_over(c) || x->res_ended) {
        return;
    }
    moved(x);
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

static void up_data(struct http2_stream *st, const uint8_t *p, size_t n)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    if (is_over(x->conn) || x->res_ended || !http2_stream_is_live(&x->down)) {
        http2_stream_consumed(st, n);
        return;
    }
    moved(x);
    x->bytes_down += n;
    if (!http2_stream_send(&x->down, p, n)) {
        bad_response(x, "no_memory");
    }
}

static void up_trailers(struct http2_stream *st, const struct http2_head *t)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    struct http2_field fields[HTTP2_FIELDS_MAX];
    (void)st;
    if (is_over(x->conn) || x->res_ended) {
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
    if (!is_over(x->conn) && !x->res_ended) {
        x->res_ended = true;
        http2_stream_end(&x->down);
    }
}

static void up_taken(struct http2_stream *st, size_t n)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    moved(x);
    http2_stream_consumed(&x->down, n);
}

static void up_closed(struct http2_stream *st, uint32_t code)
{
    struct h2_exchange *x = (struct h2_exchange *)st->arg;
    (void)st;
    if (is_over(x->conn)) {
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
    .wake = on_wake,
    .response = on_response,
    .data = up_data,
    .trailers = up_trailers,
    .ended = up_ended,
    .taken = up_taken,
    .closed = up_closed,
};

/* --- time ------------------------------------------------------------------------------------- */

void h2_exchange_idle(struct h2_exchange *x)
{
    x->busy++;
    if (!x->head_passed) {
        h2_answer(x, 504, "idle", NULL, NULL);
    } else {
        x->reason = x->reason != NULL ? x->reason : "idle";
        http2_stream_reset(&x->down, HTTP2_CANCEL);
        http2_stream_reset(&x->up, HTTP2_CANCEL);
    }
    x->busy--;
    h2_exchange_finish(x);
}
