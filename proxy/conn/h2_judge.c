/* HTTP/2: asking the policy about a request, when it comes and again after a change. */
#include "h2_priv.h"

#include "http_priv.h"

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

/* Of the worker's request. */
static void fill_query(struct h2_exchange *x, struct policy_header items[HTTP1_MAX_HEADERS],
                       struct policy_headers *headers, struct policy_query *ret)
{
    const struct conn *c = x->conn;
    const struct http1_request *r = c->worker->request;
    *headers = (struct policy_headers){headers_of(r, items), items};
    conn_query(c, ret);
    ret->http = true;
    ret->grpc = x->grpc;
    ret->method = r->method;
    ret->host = r->host;
    ret->path = r->judged_path;
    ret->query = r->has_query ? r->query : STR_LIT("");
    ret->headers = headers;
    ret->claims = conn_claims_list(&x->claims);
}

/* The worker's request is this one. */
bool h2_judge(struct h2_exchange *x, char *near_miss, size_t size)
{
    struct policy_header items[HTTP1_MAX_HEADERS] __attribute__((uninitialized));
    struct policy_headers headers;
    struct policy_query q;
    fill_query(x, items, &headers, &q);
    x->judged = true;
    return conn_judge_request(
        x->conn, &(const struct conn_question){.query = &q,
                                               .other_path = x->conn->worker->request->other_path,
                                               .protocol = "http2",
                                               .verdict = &x->verdict,
                                               .decision = x->decision,
                                               .near_miss = near_miss,
                                               .near_miss_size = size});
}

void h2_denied(struct h2_exchange *x, const char *reason)
{
    struct policy_header items[HTTP1_MAX_HEADERS] __attribute__((uninitialized));
    struct policy_headers headers;
    struct policy_query q;
    fill_query(x, items, &headers, &q);
    conn_denied(x->conn, &(const struct conn_denied){.query = &q,
                                                     .verdict = &x->verdict,
                                                     .decision = x->decision,
                                                     .protocol = "http2",
                                                     .reason = reason});
}

void h2_audit(struct h2_exchange *x, const struct policy_verdict *verdict, const char *near_miss,
              const char *reason)
{
    const struct http1_request *r = x->conn->worker->request;
    const char *why = verdict != NULL ? reason : NULL;
    conn_audit_request(x->conn,
                       &(const struct conn_audit){.verdict = verdict,
                                                  .protocol = "http2",
                                                  .method = r->method,
                                                  .host = r->host,
                                                  .path = r->judged_path,
                                                  .decision = x->decision,
                                                  .near_miss = near_miss,
                                                  .reason = reason,
                                                  .ended = why != NULL && !verdict->allow,
                                                  .refused = why != NULL && verdict->allow});
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

bool h2_claims_take(struct h2_exchange *x, struct err *err)
{
    struct policy_header items[HTTP1_MAX_HEADERS] __attribute__((uninitialized));
    if (!conn_claims_wanted(x->conn)) {
        return true;
    }
    const struct policy_headers headers = {headers_of(x->conn->worker->request, items), items};
    return conn_claims_take(&x->claims, x->conn, &headers, on_claims_end, x, err);
}

enum http1_result h2_head_read(struct h2_exchange *x, struct http1_error *ret)
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

/* Its token too: its key may have been withdrawn. One that holds no more says nothing. */
static bool judge_again(struct h2_exchange *x, char *near_miss, size_t size)
{
    (void)h2_claims_take(x, NULL);
    return h2_judge(x, near_miss, size);
}

bool h2_exchange_rejudge(struct h2_exchange *x)
{
    struct http1_error e;
    char near_miss[240] = "";
    if (!x->in_flight) {
        x->verdict.rule = NULL; /* the snapshot that lent it goes */
        return true;
    }
    if (h2_head_read(x, &e) != HTTP1_DONE) { /* it was read by limits that are no more */
        x->verdict = (struct policy_verdict){.allow = false, .reason = POLICY_NO_RULE};
        facts_again(x, x->conn->worker->request);
    } else if (judge_again(x, near_miss, sizeof(near_miss))) {
        return true;
    }
    h2_audit(x, &x->verdict, near_miss, "policy_changed");
    counter_add(&x->conn->worker->counters.requests_denied, 1);
    if (x->head_passed) {
        h2_cut(x, "policy_changed", near_miss);
    } else {
        h2_answer(x, 403, "policy_changed", NULL, near_miss);
    }
    return false;
}
