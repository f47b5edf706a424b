/* HTTP/1.1 inbound, client -> workload: reading a request, judging it, sending it on. */
#include "http_priv.h"

#include <string.h>

static bool keep_facts(struct conn_http *h, const struct http1_request *r)
{
    buf_consume(&h->facts, buf_len(&h->facts));
    h->method_len = r->method.n;
    h->host_len = r->host.n;
    h->path_len = r->judged_path.n;
    return buf_append_str(&h->facts, r->method) && buf_append_str(&h->facts, r->host) &&
           buf_append_str(&h->facts, r->judged_path);
}

static void query(const struct conn *c, struct policy_query *ret)
{
    const struct conn_http *h = c->http;
    const char *facts = (const char *)buf_head(&h->facts);
    *ret = (struct policy_query){
        .target = conn_own_id(c),
        .peer = conn_peer_id(c),
        .source = conn_source(c),
        .port = conn_port(c),
        .http = true,
        .method = {facts, h->method_len},
        .host = {facts + h->method_len, h->host_len},
        .path = {facts + h->method_len + h->host_len, h->path_len},
    };
}

bool http_judge(struct conn *c)
{
    struct conn_http *h = c->http;
    const struct policy *policy = NULL;
    struct policy_query q;
    query(c, &q);
    snapshot_decide(conn_snapshot(c), &q, &h->verdict, &policy);
    if (!h->verdict.allow) {
        policy_near_miss(policy, &q, h->near_miss, sizeof(h->near_miss));
    }
    return h->verdict.allow;
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
    c->sys_errno = 0;
    http_set_deadline(c, conn_conf(c)->timeouts.idle_tcp_ms);
    http1_body_init(&h->body, (enum http1_framing)h->req.framing, h->req.length);
    bool empty = h->req.framing == HTTP1_BODY_NONE ||
                 (h->req.framing == HTTP1_BODY_LENGTH && h->req.length == 0);
    h->req_phase = empty ? REQ_DONE : REQ_BODY;
}

static void deny(struct conn *c)
{
    struct conn_http *h = c->http;
    conn_decision_new(c->worker, h->decision);
    counter_add(&c->worker->counters.requests_denied, 1);
    char text[96] = "denied; decision ";
    memcpy(text + strlen(text), h->decision, CONN_DECISION_TEXT);
    /* A client that waits for 100 may or may not send the body now: there is no safe next request.
     */
    bool end = h->req.expects_100 || !h->req.keep_alive;
    if (h->req_phase == REQ_BODY) {
        h->req_phase = REQ_DISCARD;
    }
    http_answer(c, 403, "policy_denied", text, end ? CONN_CLOSE_ANSWERED : CONN_CLOSE_DONE);
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
static void put_peer(const struct conn *c, struct http1_forward *fwd)
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
    struct http1_forward fwd = {
        .own_id = conn_own_id(c),
        .peer_hash = str_of(h->peer_hash),
        .source = str_of(h->source_ip),
        .proto = STR_LIT("https"),
    };
    put_peer(c, &fwd);
    if (!http_upstream_ensure(c)) {
        return;
    }
    h->in_flight = true;
    h->res_phase = RES_HEAD;
    memset(&h->rscan, 0, sizeof(h->rscan));
    if (!http1_request_emit(c->worker->request, &fwd, &c->worker->emit)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    if (h->up_used && may_repeat(h)) {
        (void)buf_append(&h->retry, buf_head(&c->worker->emit), buf_len(&c->worker->emit));
    }
}

bool http_request_again(struct conn *c)
{
    struct conn_http *h = c->http;
    if (h->retry.len == 0) {
        return false;
    }
    http_close_upstream(c, true);
    if (http_upstream_ensure(c)) {
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
    begin(c);
    if (!keep_facts(c->http, c->worker->request)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    if (http_judge(c)) {
        forward(c);
    } else {
        deny(c);
    }
}

static void refuse(struct conn *c, const struct http1_error *e)
{
    struct conn_http *h = c->http;
    h->req = (struct http1_request_info){.method = HTTP1_OTHER};
    h->began_ms = loop_now_ms(c->worker->loop);
    buf_consume(&h->facts, buf_len(&h->facts));
    http_answer(c, e->status, http1_reason_token(e->reason), http1_reason_text(e->reason),
                CONN_CLOSE_BAD_REQUEST);
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
        refuse(c, &e);
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
    enum http1_result r = http1_body_feed(&h->body, data, len, &used, &e);
    if (h->req_phase == REQ_DISCARD) {
        h->discarded += (uint32_t)used;
        if (h->discarded > HTTP_DISCARD_MAX) {
            conn_close(c, CONN_CLOSE_ANSWERED);
            return used;
        }
    } else if (!h->up_broken && !http_send(c, conn_upstream(c), data, used)) {
        h->up_broken = true;
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
