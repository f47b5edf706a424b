/*
 * http1 requests: byte by byte is whole; llhttp never differs on what our validator passes; what is
 * emitted reads as the same request, with the identity headers that we set and no others.
 */
#include <postern/http1.h>

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds in every build: a property that fails ends the run. */
#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static const struct http1_limits limits = {
    .max_head = 16384, .max_target = 4096, .max_headers = HTTP1_MAX_HEADERS};

static const struct http1_forward forward = {
    .own_id = {"spiffe://a/own", 14},
    .peer_hash = {"0123", 4},
    .peer_id = {"spiffe://a/peer", 15},
    .source = {"10.0.0.1", 8},
    .proto = {"https", 5},
};

static bool starts_like_identity(struct str name)
{
    static const char prefix[] = "x-forwarded";
    if (name.n < sizeof(prefix) - 1) {
        return false;
    }
    for (size_t i = 0; i < sizeof(prefix) - 1; i++) {
        char c = name.p[i];
        c = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
        if (c != prefix[i] && !(prefix[i] == '-' && (c == '_' || c == '.'))) {
            return false;
        }
    }
    return true;
}

/* Every header of `again` is one that was kept, in order, or one of ours at the end. */
static void check_headers(const struct http1_request *r, const struct http1_request *again)
{
    unsigned j = 0;
    for (unsigned i = 0; i < r->n_headers; i++) {
        if (r->headers[i].drop) {
            continue;
        }
        MUST(!starts_like_identity(r->headers[i].name));
        MUST(j < again->n_headers);
        MUST(str_eq(r->headers[i].name, again->headers[j].name));
        MUST(str_eq(r->headers[i].value, again->headers[j].value));
        j++;
    }
    unsigned identity = 0;
    for (; j < again->n_headers; j++) {
        struct str name = again->headers[j].name;
        identity += starts_like_identity(name) ? 1 : 0;
        MUST(starts_like_identity(name) || str_eq(name, STR_LIT("Connection")) ||
             str_eq(name, STR_LIT("TE")));
    }
    MUST(identity == 3);
    MUST(str_eq(http1_request_header(again, "x-forwarded-client-cert"),
                STR_LIT("By=spiffe://a/own;Hash=0123;URI=spiffe://a/peer")));
}

static void check_emitted(const struct http1_request *r)
{
    static struct http1_request again;
    struct buf out = BUF_INIT(65536);
    struct http1_scan scan = {0};
    struct http1_error e;
    struct http1_limits wide = limits;
    wide.max_head = 65536;
    MUST(http1_request_emit(r, &forward, &out));
    if (r->n_headers <= HTTP1_MAX_HEADERS - 5) {
        MUST(http1_request_read(&scan, buf_head(&out), buf_len(&out), &wide, &again, &e) ==
             HTTP1_DONE);
        MUST(again.head_len == buf_len(&out));
        MUST(str_eq(again.method, r->method) && str_eq(again.path, r->path));
        MUST(str_eq(again.query, r->query) && again.has_query == r->has_query);
        MUST(str_eq(again.host, r->host) && str_eq(again.judged_path, r->judged_path));
        MUST(again.info.framing == r->info.framing && again.info.length == r->info.length);
        MUST(again.info.minor == r->info.minor);
        MUST(strcmp(again.info.upgrade, r->info.upgrade) == 0);
        MUST(again.form != HTTP1_ABSOLUTE_FORM);
        check_headers(r, &again);
    }
    buf_reset(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http1_request whole;
    static struct http1_request pieces;
    struct http1_scan scan = {0};
    struct http1_error e = {HTTP1_NONE, 0, 0};
    struct http1_error e2 = {HTTP1_NONE, 0, 0};
    enum http1_result result = http1_request_read(&scan, data, size, &limits, &whole, &e);
    MUST(result != HTTP1_ERROR || (e.reason != HTTP1_NONE && e.offset <= size));
    MUST(result != HTTP1_ERROR || e.reason != HTTP1_SECOND_READING);

    enum http1_result again = HTTP1_MORE;
    scan = (struct http1_scan){0};
    for (size_t n = 1; n <= size && again == HTTP1_MORE; n++) {
        again = http1_request_read(&scan, data, n, &limits, &pieces, &e2);
    }
    MUST(again == result && e2.reason == e.reason && e2.offset == e.offset);
    if (result == HTTP1_DONE) {
        MUST(whole.head_len == pieces.head_len && whole.head_len <= size);
        MUST(whole.n_headers == pieces.n_headers && str_eq(whole.host, pieces.host));
        MUST(whole.judged_path.n > 0 && whole.judged_path.n <= whole.target.n + 1);
        check_emitted(&whole);
    }
    return 0;
}
