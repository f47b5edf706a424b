/* HTTP/1.1 inbound, client -> workload: reading a request, judging it, sending it on. */
#include "http_priv.h"

#include <stdio.h>
#include <string.h>

/* --- judging ---------------------------------------------------------------------------------- */

/* verdict NULL: a denial that no policy has made; reason says why, also where policy had allowed
 * it.
 */
static void audit(struct conn *c, const struct policy_verdict *verdict, const char *reason)
{
    struct conn_http *h = c->http;
    const struct http_facts f = http_facts_get(h);
    bool near = verdict == NULL || !verdict->allow;
    conn_audit_request(c, &(const struct conn_audit){.verdict = verdict,
                                                     .protocol = "http1",
                                                     .method = f.method,
                                                     .host = f.host,
                                                     .path = f.path,
                                                     .decision = h->decision,
                                                     .near_miss = near ? h->near_miss : NULL,
                                                     .reason = reason,
                                                     .refused = reason != NULL && !near});
}

/* --- one request ------------------------------------------------------------------------------ */

static void begin(struct conn *c)
{
    struct conn_http *h = c->http;
    const struct stream *down = &conn_downstream(c)->s;
    h->req = c->worker->request->info;
    h->began_ms = loop_now_ms(c->worker->loop);
    h->up_mark = down->bytes_read;
    h->down_mark = down->bytes_written;
    h->status = 0;
    h->discarded = 0;
    h->n_interim = 0;
    c->sys_errno = 0;
    h->body_bytes = 0;
    http1_body_init(&h->body, (enum http1_framing)h->req.framing, h->req.length);
    bool empty = h->req.framing == HTTP1_BODY_NONE ||
                 (h->req.framing == HTTP1_BODY_LENGTH && h->req.length == 0);
    h->req_phase = empty ? REQ_DONE : REQ_BODY;
    http_time_begin(c);
}

static void deny(struct conn *c, unsigned status, const char *reason, const char *what)
{
    struct conn_http *h = c->http;
    char text[96];
    if (h->decision[0] == '\0') {
        conn_decision_new(c->worker, h->decision);
    }
    snprintf(text, sizeof(text), "%s; decision %s", what, h->decision);
    /* A client that waits for 100 may or may not send the body now: there is no safe next request.
     */
    bool end = h->req.expects_100 || !h->req.keep_alive;
    if (h->req_phase == REQ_BODY) {
        h->req_phase = REQ_DISCARD;
    }
    http_answer(c, status, reason, text, end ? CONN_CLOSE_ANSWERED : CONN_CLOSE_DONE);
}

/* RFC 9110 7.6.3: the version is that of the message as it came. */
static struct str via_of(const struct conn *c, unsigned minor)
{
    if (conn_conf(c)->http.via == CONF_VIA_OFF) {
        return STR_NONE;
    }
    return minor == 0 ? STR_LIT("1.0 postern") : STR_LIT("1.1 postern");
}

/* The generator is the worker's own: an id that is guessed does no harm, and no call is made. */
struct str http_trace_begin(const struct conn *c, char text[HTTP1_TRACEPARENT_LEN + 1])
{
    if (c->worker->request->traceparent.n > 0 || conn_conf(c)->http.traces != CONF_TRACES_BEGIN) {
        return STR_NONE;
    }
    uint64_t random[3];
    for (unsigned i = 0; i < 3; i++) {
        random[i] = balance_random(&c->worker->random);
    }
    random[0] |= random[0] == 0;
    random[2] |= random[2] == 0;
    http1_traceparent_begin(random, text);
    return (struct str){text, HTTP1_TRACEPARENT_LEN};
}

/* RFC 9110 9.2.2: what may be sent twice. A body would have to be kept for it. */
static bool may_repeat(const struct conn_http *h)
{
    return h->req.framing == HTTP1_BODY_NONE &&
           (h->req.method == HTTP1_GET || h->req.method == HTTP1_HEAD ||
            h->req.method == HTTP1_OPTIONS);
}

/* A URI that an ordinary CA has signed may look like a SPIFFE ID and is none: applications are told
 * of those that are, and of DNS names. */
void http_put_peer(const struct conn *c, struct http1_forward *fwd)
{
    const struct str dns = STR_LIT("dns:");
    struct str id = conn_peer_id(c);
    if (str_has_prefix(id, STR_LIT("spiffe://"))) {
        fwd->peer_id = id;
    } else if (str_has_prefix(id, dns)) {
        fwd->peer_dns = (struct str){id.p + dns.n, id.n - dns.n};
    }
}

static void forward(struct conn *c)
{
    struct conn_http *h = c->http;
    char trace[HTTP1_TRACEPARENT_LEN + 1];
    struct http1_forward fwd = {
        .own_id = conn_own_id(c),
        .peer_hash = str_of(h->peer_hash),
        .source = str_of(h->source_ip),
        .proto = c->plaintext ? STR_LIT("http") : STR_LIT("https"),
        .via = via_of(c, h->req.minor),
        .traceparent = http_trace_begin(c, trace),
    };
    http_put_peer(c, &fwd);
    h->pinned = h->pinned || http_pool_pins(c->worker->request->headers,
                                            c->worker->request->n_headers, "authorization");
    if (!http_upstream_ensure(c, false)) {
        return;
    }
    h->in_flight = true;
    h->res_phase = RES_HEAD;
    http_retry_earn(c->worker, conn_conf(c)->http.retry_percent);
    memset(&h->rscan, 0, sizeof(h->rscan));
    conn_claims_withhold(&h->claims, c->worker->request);
    if (!http1_request_emit(c->worker->request, &fwd, &c->worker->emit)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    if (h->up == UP_OPEN) {
        http_time_next(c); /* else when it stands */
    }
    if (h->up_used && may_repeat(h)) {
        (void)buf_append(&h->retry, buf_head(&c->worker->emit), buf_len(&c->worker->emit));
    }
}

bool http_request_again(struct conn *c)
{
    struct conn_http *h = c->http;
    if (h->retry.len == 0 || !http_retry_take(c->worker, conn_conf(c)->http.retry_percent)) {
        return false;
    }
    http_close_upstream(c, true);
    if (http_upstream_ensure(c, true)) {
        if (!http_send(c, conn_upstream(c), buf_head(&h->retry), buf_len(&h->retry)) ||
            !http_send_emit(c, conn_upstream(c))) {
            h->up_broken = true;
        }
        buf_consume(&h->retry, buf_len(&h->retry));
    }
    return true;
}

/* The head is read: whose is it, may it, where to. */
static void take_head(struct conn *c)
{
    const struct http1_request *r = c->worker->request;
    struct err err = ERR_INIT;
    begin(c);
    if (!http_facts_keep(c, r)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
    } else if (!http_facts_claims(c, &err)) {
        counter_add(&c->worker->counters.requests_denied, 1);
        snprintf(c->http->near_miss, sizeof(c->http->near_miss), "token: %.200s", err.what);
        c->http->verdict =
            (struct policy_verdict){.allow = false}; /* the one before is no answer */
        http_facts_denied(c, "token_refused");
        audit(c, NULL, "token_refused");
        deny(c, 401, "token_refused", "a token that does not hold");
    } else if (r->form == HTTP1_AUTHORITY_FORM && !http_connect_listed(c, r->host)) {
        counter_add(&c->worker->counters.requests_denied, 1);
        c->http->verdict = (struct policy_verdict){.allow = false};
        http_facts_denied(c, "connect_target");
        audit(c, NULL, "connect_target");
        deny(c, 403, "connect_target", "a target that this port does not take");
    } else if (!http_judge(c)) {
        counter_add(&c->worker->counters.requests_denied, 1);
        audit(c, &c->http->verdict, NULL);
        deny(c, 403, "policy_denied", "denied");
    } else if (!http_rate_take(c, r->method, r->judged_path)) {
        http_facts_denied(c, "rate_limited");
        audit(c, &c->http->verdict, "rate_limited");
        deny(c, 429, "rate_limited", "too many requests");
    } else {
        audit(c, &c->http->verdict, NULL);
        forward(c);
    }
}

static void refuse(struct conn *c, const struct http1_error *e)
{
    struct conn_http *h = c->http;
    h->req = (struct http1_request_info){.method = HTTP1_OTHER};
    h->began_ms = loop_now_ms(c->worker->loop);
    http_facts_drop(h);
    http_answer(c, e->status, http1_reason_token(e->reason), http1_reason_text(e->reason),
                CONN_CLOSE_BAD_REQUEST);
}

/* Whether what came first is HTTP/1 at all, malformed or not: words of which the first is no method
 * and none the protocol are not. */
static bool is_http1(const uint8_t *data, size_t len, enum http1_reason reason)
{
    const uint8_t *end = (const uint8_t *)memchr(data, '\n', len);
    return reason != HTTP1_METHOD_UNKNOWN ||
           memmem(data, end != NULL ? (size_t)(end - data) : len, " HTTP/", 6) != NULL;
}

/* It may have been meant as HTTP/2's preface: no answer would be understood (RFC 9113 3.4). */
static void refuse_unheard(struct conn *c, const struct http1_error *e)
{
    struct conn_http *h = c->http;
    h->began_ms = loop_now_ms(c->worker->loop);
    h->status = 0;
    h->reason = http1_reason_token(e->reason);
    http_record(c);
    conn_close(c, CONN_CLOSE_BAD_REQUEST);
}

static size_t feed_head(struct conn *c, const uint8_t *data, size_t len, bool *ret_more)
{
    struct conn_http *h = c->http;
    struct http1_limits limits;
    struct http1_error e;
    http_limits(c, &limits);
    switch (http1_request_read(&h->scan, data, len, &limits, c->worker->request, &e)) {
    case HTTP1_DONE:
        break;
    case HTTP1_MORE:
        *ret_more = true;
        return 0;
    case HTTP1_ERROR:
        if (e.reason == HTTP1_HTTP2_PREFACE && h->requests == 0 && conn_h2_may_follow(c)) {
            h->preface = *ret_more = true; /* HTTP/2 from here on */
            return 0;
        }
        if (h->requests == 0 && conn_h2_may_follow(c) && !is_http1(data, len, e.reason)) {
            refuse_unheard(c, &e);
        } else {
            refuse(c, &e);
        }
        return len;
    }
    size_t used = c->worker->request->head_len;
    if (conn_catch_up(c)) { /* each request is judged by what holds when it comes */
        take_head(c);
    }
    return used;
}

static size_t feed_body(struct conn *c, const uint8_t *data, size_t len, bool *ret_more)
{
    struct conn_http *h = c->http;
    struct http1_error e;
    size_t used = 0;
    uint64_t most = conn_conf(c)->limits.request_body_bytes;
    enum http1_result r = http1_body_feed(&h->body, data, len, &used, &e);
    h->body_bytes += used;
    if (most > 0 && h->body_bytes > most && h->req.framing == HTTP1_BODY_CHUNKED) {
        r = HTTP1_ERROR;
        e = (struct http1_error){HTTP1_BODY_LONG, http1_reason_status(HTTP1_BODY_LONG), 0};
    } else if (h->req_phase == REQ_DISCARD) {
        h->discarded += (uint32_t)used;
        if (h->discarded > HTTP_DISCARD_MAX) {
            conn_close(c, CONN_CLOSE_ANSWERED);
            return used;
        }
    } else if (!h->up_broken && !http_send(c, conn_upstream(c), data, used)) {
        h->up_broken = true;
    }
    if (r == HTTP1_ERROR && h->req_phase == REQ_DISCARD) {
        conn_close(c, CONN_CLOSE_ANSWERED); /* it has its answer */
        return len;
    }
    if (r == HTTP1_ERROR) {
        http_close_upstream(c, true);
        refuse(c, &e);
        return len;
    }
    *ret_more = r == HTTP1_MORE;
    if (r == HTTP1_DONE) {
        bool discarded = h->req_phase == REQ_DISCARD;
        h->req_phase = REQ_DONE;
        if (discarded) {
            http_exchange_end(c); /* it was answered before */
        } else {
            http_time_sent(c);
        }
    }
    return used;
}

size_t http_request_feed(struct conn *c, const uint8_t *data, size_t len)
{
    struct conn_http *h = c->http;
    size_t off = 0;
    bool more = false;
    while (c->state == CONN_HTTP && !more && off < len && h->req_phase != REQ_DONE) {
        off += h->req_phase == REQ_HEAD ? feed_head(c, data + off, len - off, &more)
                                        : feed_body(c, data + off, len - off, &more);
    }
    if (c->state == CONN_HTTP && c->worker->emit.len > 0 && !http_send_emit(c, conn_upstream(c))) {
        h->up_broken = true;
    }
    return off;
}
