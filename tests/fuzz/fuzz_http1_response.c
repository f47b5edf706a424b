/*
 * http1 responses: byte by byte is whole; llhttp never differs on what our validator passes; what
 * is emitted reads as the same response. The first byte chooses the request that is answered.
 */
#include <postern/http1.h>

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static const struct http1_limits limits = {
    .max_head = 16384, .max_target = 4096, .max_headers = HTTP1_MAX_HEADERS};

static void check_emitted(const struct http1_response *r, const struct http1_request_info *request,
                          bool close)
{
    static struct http1_response again;
    struct buf out = BUF_INIT(65536);
    struct http1_scan scan = {0};
    struct http1_error e;
    struct http1_limits wide = limits;
    wide.max_head = 65536;
    MUST(http1_response_emit(r, request, close, STR_NONE, &out));
    if (r->info.interim && request->minor == 0) {
        MUST(buf_len(&out) == 0);
    } else if (r->n_headers < HTTP1_MAX_HEADERS) {
        MUST(http1_response_read(&scan, buf_head(&out), buf_len(&out), &wide, request, &again,
                                 &e) == HTTP1_DONE);
        MUST(again.head_len == buf_len(&out));
        MUST(again.info.status == r->info.status && str_eq(again.reason, r->reason));
        MUST(again.info.framing == r->info.framing && again.info.length == r->info.length);
        MUST(again.info.interim == r->info.interim && again.info.switching == r->info.switching);
        bool ends = close || !http1_keeps_alive(request, &r->info);
        MUST(again.info.interim || again.info.keep_alive == !ends);
        MUST(http1_response_header(&again, "x-postern-decision").p == NULL);
    }
    buf_reset(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http1_response whole;
    static struct http1_response pieces;
    if (size == 0) {
        return 0;
    }
    struct http1_request_info request = {
        .method = (data[0] & 1) != 0 ? HTTP1_HEAD : HTTP1_GET,
        .minor = (data[0] & 2) != 0,
        .keep_alive = (data[0] & 6) == 6,
    };
    if ((data[0] & 10) == 10) {
        memcpy(request.upgrade, "websocket", sizeof("websocket"));
    }
    bool close = (data[0] & 16) != 0;
    data++;
    size--;
    struct http1_scan scan = {0};
    struct http1_error e = {HTTP1_NONE, 0, 0};
    struct http1_error e2 = {HTTP1_NONE, 0, 0};
    enum http1_result result =
        http1_response_read(&scan, data, size, &limits, &request, &whole, &e);
    MUST(result != HTTP1_ERROR || (e.status == 502 && e.offset <= size));
    MUST(result != HTTP1_ERROR || e.reason != HTTP1_SECOND_READING);

    enum http1_result again = HTTP1_MORE;
    scan = (struct http1_scan){0};
    for (size_t n = 1; n <= size && again == HTTP1_MORE; n++) {
        again = http1_response_read(&scan, data, n, &limits, &request, &pieces, &e2);
    }
    MUST(again == result && e2.reason == e.reason && e2.offset == e.offset);
    if (result == HTTP1_DONE) {
        MUST(whole.head_len == pieces.head_len && whole.head_len <= size);
        MUST(whole.n_headers == pieces.n_headers);
        check_emitted(&whole, &request, close);
    }
    return 0;
}
