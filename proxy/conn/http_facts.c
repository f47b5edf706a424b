/* What is known of a request while it is served, and judging by it: when it comes, and again after
 * a change. Kept flat in one buffer: method, host, path, the path's other reading, query, headers.
 */
#include "http_priv.h"

#include <string.h>

/* --- keeping ---------------------------------------------------------------------------------- */

/* What rules ask about beside method, host and path. What is not kept is not known to a policy that
 * comes later and asks: it then helps nobody. */
static struct policy_needs needs_of(const struct conn *c)
{
    const struct policy *first = NULL;
    const struct policy *second = NULL;
    if (snapshot_policies(conn_snapshot(c), &first, &second)) {
        return (struct policy_needs){.query = false};
    }
    struct policy_needs a = policy_needs(first);
    struct policy_needs b = policy_needs(second);
    return (struct policy_needs){.query = a.query || b.query,
                                 .headers = a.headers || b.headers || conn_claims_wanted(c)};
}

/* Each as two lengths, the name in lower case, and the value. */
static bool keep_header(struct buf *out, const struct http1_header *h)
{
    uint32_t lengths[2] = {(uint32_t)h->name.n, (uint32_t)h->value.n};
    uint8_t *at = buf_reserve(out, sizeof(lengths) + h->name.n + h->value.n);
    if (at == NULL) {
        return false;
    }
    memcpy(at, lengths, sizeof(lengths));
    at += sizeof(lengths);
    for (size_t i = 0; i < h->name.n; i++) {
        char c = h->name.p[i];
        *at++ = (uint8_t)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    if (h->value.n > 0) {
        memcpy(at, h->value.p, h->value.n);
    }
    buf_commit(out, sizeof(lengths) + h->name.n + h->value.n);
    return true;
}

/* One content-type, or nobody knows which the workload takes. */
bool http_is_grpc(const struct http1_request *r)
{
    struct str type = STR_NONE;
    unsigned n = 0;
    for (unsigned i = 0; i < r->n_headers; i++) {
        if (str_eq_nocase(r->headers[i].name, STR_LIT("content-type"))) {
            type = r->headers[i].value;
            n++;
        }
    }
    return n == 1 && str_eq(r->method, STR_LIT("POST")) &&
           str_has_prefix(type, STR_LIT("application/grpc"));
}

bool http_facts_keep(struct conn *c, const struct http1_request *r)
{
    struct conn_http *h = c->http;
    struct policy_needs needs = needs_of(c);
    http_facts_drop(h);
    h->method_len = r->method.n;
    h->host_len = r->host.n;
    h->path_len = r->judged_path.n;
    h->other_len = r->other_path.n;
    h->query_len = needs.query ? r->query.n : 0;
    h->query_known = needs.query;
    h->headers_known = needs.headers;
    h->grpc = http_is_grpc(r);
    bool ok = buf_append_str(&h->facts, r->method) && buf_append_str(&h->facts, r->host) &&
              buf_append_str(&h->facts, r->judged_path) &&
              buf_append_str(&h->facts, r->other_path) &&
              (!needs.query || buf_append_str(&h->facts, r->query));
    for (unsigned i = 0; i < r->n_headers && needs.headers && ok; i++) {
        /* What the workload does not get is not there. */
        ok = r->headers[i].drop || keep_header(&h->facts, &r->headers[i]);
    }
    return ok;
}

void http_facts_drop(struct conn_http *h)
{
    buf_consume(&h->facts, buf_len(&h->facts));
    conn_claims_drop(&h->claims);
}

/* --- reading ---------------------------------------------------------------------------------- */

struct http_facts http_facts_get(const struct conn_http *h)
{
    const char *p = (const char *)buf_head(&h->facts);
    struct http_facts f = {.method = {p, h->method_len}};
    if (h->facts.len == 0) {
        return (struct http_facts){.method = STR_NONE};
    }
    f.host = (struct str){f.method.p + f.method.n, h->host_len};
    f.path = (struct str){f.host.p + f.host.n, h->path_len};
    f.other_path = (struct str){f.path.p + f.path.n, h->other_len};
    f.query = (struct str){f.other_path.p + f.other_path.n, h->query_len};
    f.headers = (struct str){f.query.p + f.query.n, 0};
    f.headers.n = h->facts.len - (size_t)(f.headers.p - p);
    return f;
}

static size_t read_headers(struct str kept, struct policy_header items[HTTP1_MAX_HEADERS])
{
    size_t n = 0;
    while (kept.n > 0 && n < HTTP1_MAX_HEADERS) {
        uint32_t lengths[2];
        memcpy(lengths, kept.p, sizeof(lengths));
        const char *name = kept.p + sizeof(lengths);
        items[n++] = (struct policy_header){{name, lengths[0]}, {name + lengths[0], lengths[1]}};
        size_t all = sizeof(lengths) + lengths[0] + lengths[1];
        kept = (struct str){kept.p + all, kept.n - all};
    }
    return n;
}

/* --- judging ---------------------------------------------------------------------------------- */

static void on_claims_end(void *arg)
{
    struct conn *c = arg;
    if (!conn_http_rejudge(c)) {
        conn_cut(c, CONN_CLOSE_POLICY_CHANGED);
    }
}

bool http_facts_claims(struct conn *c, struct err *err)
{
    struct conn_http *h = c->http;
    struct policy_header items[HTTP1_MAX_HEADERS] __attribute__((uninitialized));
    struct policy_headers headers = {0, items};
    if (!conn_claims_wanted(c)) {
        return true;
    }
    headers.n = read_headers(http_facts_get(h).headers, items);
    return conn_claims_take(&h->claims, c, &headers, on_claims_end, c, err);
}

static void fill_query(struct conn *c, struct policy_header items[HTTP1_MAX_HEADERS],
                       struct policy_headers *headers, struct policy_query *ret)
{
    struct conn_http *h = c->http;
    struct http_facts f = http_facts_get(h);
    *headers = (struct policy_headers){0, items};
    if (h->headers_known) {
        headers->n = read_headers(f.headers, items);
    }
    conn_query(c, ret);
    ret->http = true;
    ret->grpc = h->grpc;
    ret->method = f.method;
    ret->host = f.host;
    ret->path = f.path;
    ret->query = h->query_known ? f.query : STR_NONE;
    ret->headers = h->headers_known ? headers : NULL;
    ret->claims = conn_claims_list(&h->claims);
}

bool http_judge(struct conn *c)
{
    struct conn_http *h = c->http;
    struct policy_header items[HTTP1_MAX_HEADERS] __attribute__((uninitialized));
    struct policy_headers headers;
    struct policy_query q;
    fill_query(c, items, &headers, &q);
    return conn_judge_request(
        c, &(const struct conn_question){.query = &q,
                                         .other_path = http_facts_get(h).other_path,
                                         .protocol = "http1",
                                         .verdict = &h->verdict,
                                         .decision = h->decision,
                                         .near_miss = h->near_miss,
                                         .near_miss_size = sizeof(h->near_miss)});
}

void http_facts_denied(struct conn *c, const char *reason)
{
    struct conn_http *h = c->http;
    struct policy_header items[HTTP1_MAX_HEADERS] __attribute__((uninitialized));
    struct policy_headers headers;
    struct policy_query q;
    fill_query(c, items, &headers, &q);
    conn_denied(c, &(const struct conn_denied){.query = &q,
                                               .verdict = &h->verdict,
                                               .decision = h->decision,
                                               .protocol = "http1",
                                               .reason = reason});
}
