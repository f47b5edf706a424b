/*
 * http2: whatever a peer says, to a server and to a client. The first byte chooses which, and how
 * large the pieces are. Heads that come out read as one HTTP/1.1 head and nothing behind it, or are
 * refused; what is held stays within the windows; a session that is over stays over.
 */
#include <postern/http1.h>
#include <postern/http2.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAMS = HTTP2_STREAMS + 1, HEAD_BYTES = 4096 };

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct world {
    struct http2_session *s;
    struct http2_stream streams[STREAMS];
    unsigned n;
};

static void on_wake(void *arg)
{
    (void)arg;
}

static void look_at_request(const struct http2_head *h)
{
    static struct http1_request request;
    struct http1_scan scan = {0};
    struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    struct http1_error e;
    limits.composed = true;
    enum http1_result r =
        http1_request_read(&scan, (const uint8_t *)h->text.p, h->text.n, &limits, &request, &e);
    MUST(r != HTTP1_MORE);
    MUST(r != HTTP1_DONE || request.head_len == h->text.n);
}

static void look_at_lines(const struct http2_head *h)
{
    MUST(h->text.n >= 2 && memcmp(h->text.p + h->text.n - 2, "\r\n", 2) == 0);
    MUST(h->text.n == 2 || memmem(h->text.p, h->text.n - 1, "\r\n\r", 3) != NULL);
}

static const struct http2_field STATUS[] = {{{":status", 7}, {"200", 3}, false}};

static void on_request(void *arg, int32_t id, const struct http2_head *h)
{
    struct world *w = (struct world *)arg;
    if (!h->too_long) {
        look_at_request(h);
    }
    for (size_t i = 0; i < STREAMS; i++) {
        struct http2_stream *st = &w->streams[i];
        if (st->session == NULL) {
            http2_stream_accept(w->s, id, st, w);
            if (w->n++ % 2 == 0) {
                MUST(http2_stream_head(st, STATUS, 1, false, false));
                MUST(http2_stream_send(st, (const uint8_t *)"some bytes", 10));
            }
            return;
        }
    }
    MUST(false); /* more than it may have */
}

static void on_response(struct http2_stream *st, const struct http2_head *h)
{
    (void)st;
    look_at_lines(h);
}

static void on_data(struct http2_stream *st, const uint8_t *p, size_t n)
{
    (void)p;
    if (st->id % 4 == 1) {
        http2_stream_consumed(st, n);
    }
    MUST(st->unread <= st->window);
}

static void on_ended(struct http2_stream *st)
{
    http2_stream_end(st);
}

static void on_data_last(struct http2_stream *st, const uint8_t *p, size_t n)
{
    MUST(n > 0 && st->remote_ended);
    on_data(st, p, n);
    on_ended(st);
}

static void on_taken(struct http2_stream *st, size_t n)
{
    (void)st;
    (void)n;
}

static void on_closed(struct http2_stream *st, uint32_t code)
{
    (void)code;
    http2_stream_drop(st);
}

static const struct http2_ops OPS = {
    .wake = on_wake,
    .request = on_request,
    .response = on_response,
    .data = on_data,
    .data_last = on_data_last,
    .trailers = on_response,
    .ended = on_ended,
    .taken = on_taken,
    .closed = on_closed,
};

static void ask(struct world *w)
{
    static const struct http2_field fields[] = {{{":method", 7}, {"GET", 3}, false},
                                                {{":scheme", 7}, {"http", 4}, false},
                                                {{":authority", 10}, {"a", 1}, false},
                                                {{":path", 5}, {"/", 1}, false}};
    for (size_t i = 0; i < 4; i++) {
        MUST(http2_stream_open(w->s, &w->streams[i], w, fields, 4, i % 2 == 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    if (size == 0) {
        return 0;
    }
    memset(&w, 0, sizeof(w));
    struct http2_spec spec = {.server = (data[0] & 1) == 0,
                              .ops = &OPS,
                              .arg = &w,
                              .head_bytes = HEAD_BYTES,
                              .head_ms = 1000,
                              .now_ms = 1};
    size_t piece = (data[0] >> 1) == 0 ? size : data[0] >> 1;
    w.s = http2_session_new(&spec);
    MUST(w.s != NULL);
    if (!spec.server) {
        ask(&w);
    }
    bool on = true;
    for (size_t at = 1; at < size; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        bool now = http2_session_feed(w.s, data + at, n, at);
        MUST(on || !now);
        on = now && http2_session_make(w.s);
        buf_consume(http2_session_out(w.s), http2_session_out(w.s)->len);
        MUST(http2_session_held(w.s) <= HTTP2_WINDOW_SESSION);
    }
    (void)http2_session_tick(w.s, 100000);
    http2_session_goaway(w.s);
    (void)http2_session_make(w.s);
    for (size_t i = 0; i < STREAMS; i++) {
        http2_stream_drop(&w.streams[i]);
        buf_reset(&w.streams[i].out);
        buf_reset(&w.streams[i].tail);
    }
    http2_session_free(w.s);
    return 0;
}
