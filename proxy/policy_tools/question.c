/* question: what people write down of a request, read as a proxy would read it off the wire: by the
 * HTTP reader, which refuses what servers read in two ways and decodes a path once. */
#include <postern/policy_question.h>

#include <stdlib.h>
#include <string.h>

enum { HEAD_MAX = 256 * 1024 };

/* A control byte would make a line of its own. */
static bool is_clean(const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool all_clean(const struct conf_policy_request *r)
{
    bool clean = is_clean(r->method) && is_clean(r->host) && is_clean(r->path) && is_clean(r->grpc);
    for (size_t i = 0; i < r->n_headers; i++) {
        clean = clean && is_clean(r->headers[i].name) && is_clean(r->headers[i].value);
    }
    return clean;
}

static bool write_head(const struct conf_policy_request *r, struct buf *out)
{
    bool grpc = r->grpc != NULL;
    bool ok = buf_printf(out, "%s %s%s HTTP/1.%d\r\n", grpc ? "POST" : r->method, grpc ? "/" : "",
                         grpc ? r->grpc : r->path, r->host != NULL ? 1 : 0);
    if (r->host != NULL) {
        ok = ok && buf_printf(out, "host: %s\r\n", r->host);
    }
    if (grpc) {
        ok = ok && buf_printf(out, "content-type: application/grpc\r\n");
    }
    for (size_t i = 0; i < r->n_headers; i++) {
        ok = ok && buf_printf(out, "%s: %s\r\n", r->headers[i].name, r->headers[i].value);
    }
    return ok && buf_printf(out, "\r\n");
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Their names in lower case, into the room behind `texts`. */
static void take_headers(struct policy_question *q)
{
    const struct http1_request *r = &q->request;
    size_t room = 1;
    for (unsigned i = 0; i < r->n_headers; i++) {
        room += r->headers[i].name.n;
    }
    q->header_items = mem_must_calloc(r->n_headers + 1, sizeof(*q->header_items));
    q->texts = mem_must_calloc(1, room);
    char *at = q->texts;
    for (unsigned i = 0; i < r->n_headers; i++) {
        const struct http1_header *h = &r->headers[i];
        for (size_t k = 0; k < h->name.n; k++) {
            at[k] = lower(h->name.p[k]);
        }
        q->header_items[i] = (struct policy_header){{at, h->name.n}, h->value};
        at += h->name.n;
    }
    q->headers = (struct policy_headers){r->n_headers, q->header_items};
    q->query.headers = &q->headers;
}

static bool is_grpc(const struct policy_question *q)
{
    static const struct str type = {"application/grpc", 16};
    struct str said = http1_request_header(&q->request, "content-type");
    return str_eq(q->query.method, STR_LIT("POST")) && said.n >= type.n &&
           str_eq_nocase((struct str){said.p, type.n}, type);
}

static void take_request(struct policy_question *q, const struct conf_policy_request *r)
{
    static const struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    struct http1_error error = {0};
    q->query.http = true;
    if (!all_clean(r)) {
        q->refused = HTTP1_CONTROL_BYTE;
        return;
    }
    if (!write_head(r, &q->head)) {
        q->refused = HTTP1_HEAD_LONG;
        return;
    }
    if (http1_request_read(&q->scan, buf_head(&q->head), buf_len(&q->head), &limits, &q->request,
                           &error) != HTTP1_DONE) {
        q->refused = error.reason != HTTP1_NONE ? error.reason : HTTP1_REQUEST_LINE;
        return;
    }
    q->query.method = q->request.method;
    q->query.host = q->request.host;
    q->query.path = q->request.judged_path;
    q->query.query = q->request.has_query ? q->request.query : STR_LIT("");
    take_headers(q);
    q->query.grpc = is_grpc(q);
}

struct policy_question *policy_question_of(const struct conf_policy_request *r, int64_t now_s)
{
    struct policy_question *q = mem_must_new(struct policy_question);
    q->head.max = HEAD_MAX;
    q->query = (struct policy_query){
        .target = str_of(r->target),
        .peer = str_of(r->peer),
        .port = r->port,
        .now_s = r->time_s != 0 ? r->time_s : now_s,
    };
    if (r->source.len > 0) {
        q->query.source = (const struct sockaddr *)&r->source.ss;
    }
    if (r->method != NULL || r->grpc != NULL) {
        take_request(q, r);
    }
    if (r->n_claims > 0 && q->query.http) {
        q->claim_items = mem_must_calloc(r->n_claims, sizeof(*q->claim_items));
        for (size_t i = 0; i < r->n_claims; i++) {
            q->claim_items[i] =
                (struct policy_header){str_of(r->claims[i].name), str_of(r->claims[i].value)};
        }
        q->claims = (struct policy_claims){r->n_claims, q->claim_items};
        q->query.claims = &q->claims;
    }
    return q;
}

struct policy_question *policy_question_free(struct policy_question *q)
{
    if (q != NULL) {
        buf_reset(&q->head);
        free(q->header_items);
        free(q->claim_items);
        free(q->texts);
        free(q);
    }
    return NULL;
}
