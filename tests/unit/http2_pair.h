/*
 * Two sessions whose bytes the test carries, or one and the test's own bytes. What the owners saw
 * is written down in words.
 */
#ifndef POSTERN_TEST_HTTP2_PAIR_H
#define POSTERN_TEST_HTTP2_PAIR_H

#include <postern/http2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE_STREAMS = 128, HEAD_MAX = 4096, HEAD_MS = 1000 };

struct h2_side {
    struct http2_session *s;
    struct http2_stream streams[SIDE_STREAMS];
    size_t n_streams;
    struct http2_stream *by_id[2 * SIDE_STREAMS]; /* of those that were accepted or opened */
    char said[65536];                             /* what happened, in words */
    uint64_t got, taken, never;                   /* never: bits of the last head */
    bool lazy, deaf;                              /* does not consume; does not accept */
    unsigned n_requests, n_malformed, n_last;
};

struct pair {
    struct h2_side server, client;
    uint64_t now;
};

static inline void saw(struct h2_side *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static inline void saw(struct h2_side *e, const char *fmt, ...)
{
    size_t n = strlen(e->said);
    va_list ap;
    va_start(ap, fmt);
    if (n < sizeof(e->said) - 1) {
        vsnprintf(e->said + n, sizeof(e->said) - n, fmt, ap);
    }
    va_end(ap);
}

static inline void on_wake(void *arg)
{
    (void)arg;
}

static inline void saw_head(struct h2_side *e, const char *what, int32_t id,
                            const struct http2_head *h)
{
    e->never = h->never_indexed[0];
    saw(e, "%s %d%s%s%s%s%s\n%.*s", what, id, h->ends ? " ends" : "", h->too_long ? " long" : "",
        h->te_trailers ? " te" : "", h->host_mismatch ? " mismatch" : "",
        h->bad_scheme ? " scheme" : "", STR_ARG(h->text));
}

static inline void on_request(void *arg, int32_t id, const struct http2_head *h)
{
    struct h2_side *e = (struct h2_side *)arg;
    e->n_requests++;
    saw_head(e, "request", id, h);
    if (!e->deaf) {
        struct http2_stream *st = &e->streams[e->n_streams++ % SIDE_STREAMS];
        http2_stream_drop(st);
        http2_stream_accept(e->s, id, st, e);
        e->by_id[id % (2 * SIDE_STREAMS)] = st;
    }
}

static inline void on_malformed(void *arg, int32_t id)
{
    struct h2_side *e = (struct h2_side *)arg;
    e->n_malformed++;
    saw(e, "malformed %d\n", id);
}

static inline void on_response(struct http2_stream *st, const struct http2_head *h)
{
    saw_head((struct h2_side *)st->arg, "response", st->id, h);
}

static inline void on_data(struct http2_stream *st, const uint8_t *p, size_t n)
{
    struct h2_side *e = (struct h2_side *)st->arg;
    e->got += n;
    if (n <= 32) {
        saw(e, "data %d %.*s\n", st->id, (int)n, (const char *)p);
    }
    if (!e->lazy) {
        http2_stream_consumed(st, n);
    }
}

static inline void on_ended(struct http2_stream *st)
{
    saw((struct h2_side *)st->arg, "ended %d\n", st->id);
}

static inline void on_data_last(struct http2_stream *st, const uint8_t *p, size_t n)
{
    ((struct h2_side *)st->arg)->n_last++;
    on_data(st, p, n);
    on_ended(st);
}

static inline void on_trailers(struct http2_stream *st, const struct http2_head *h)
{
    saw_head((struct h2_side *)st->arg, "trailers", st->id, h);
}

static inline void on_taken(struct http2_stream *st, size_t n)
{
    ((struct h2_side *)st->arg)->taken += n;
}

static inline void on_closed(struct http2_stream *st, uint32_t code)
{
    saw((struct h2_side *)st->arg, "closed %u\n", code);
}

static const struct http2_ops OPS = {
    .wake = on_wake,
    .request = on_request,
    .malformed = on_malformed,
    .response = on_response,
    .data = on_data,
    .data_last = on_data_last,
    .trailers = on_trailers,
    .ended = on_ended,
    .taken = on_taken,
    .closed = on_closed,
};

static inline void side_new(struct h2_side *e, bool server, uint64_t now)
{
    const struct http2_spec spec = {.server = server,
                                    .ops = &OPS,
                                    .arg = e,
                                    .head_bytes = server ? HEAD_MAX : 65536,
                                    .head_ms = HEAD_MS,
                                    .now_ms = now};
    e->s = http2_session_new(&spec);
    assert_non_null(e->s);
}

static inline void side_free(struct h2_side *e)
{
    for (size_t i = 0; i < SIDE_STREAMS; i++) {
        http2_stream_drop(&e->streams[i]);
        buf_reset(&e->streams[i].out);
        buf_reset(&e->streams[i].tail);
    }
    e->s = http2_session_free(e->s);
}

/* Makes and carries; how much that was. */
static inline size_t carry(struct h2_side *from, struct h2_side *to, uint64_t now)
{
    size_t all = 0, n;
    do {
        (void)http2_session_make(from->s);
        struct buf *out = http2_session_out(from->s);
        n = out->len;
        if (n > 0 && to != NULL) {
            (void)http2_session_feed(to->s, buf_head(out), n, now);
        }
        buf_consume(out, n);
        all += n;
    } while (n > 0);
    return all;
}

static inline void pair_run(struct pair *p)
{
    while (carry(&p->client, &p->server, p->now) + carry(&p->server, &p->client, p->now) > 0) {
    }
}

static inline struct pair *pair_new(void)
{
    struct pair *p = (struct pair *)calloc(1, sizeof(*p));
    assert_non_null(p);
    p->now = 1000;
    side_new(&p->server, true, p->now);
    side_new(&p->client, false, p->now);
    pair_run(p);
    return p;
}

static inline void pair_free(struct pair *p)
{
    side_free(&p->client);
    side_free(&p->server);
    free(p);
}

static inline void expect(struct h2_side *e, const char *text)
{
    if (strstr(e->said, text) == NULL) {
        fail_msg("expected: %s\nsaw: %s", text, e->said);
    }
}

static inline void expect_not(struct h2_side *e, const char *text)
{
    if (strstr(e->said, text) != NULL) {
        fail_msg("not expected: %s\nsaw: %s", text, e->said);
    }
}

/* --- the test's own bytes --------------------------------------------------------------------- */

struct raw {
    uint8_t bytes[1 << 18];
    size_t n;
};

static inline void raw_bytes(struct raw *r, const void *p, size_t n)
{
    assert_true(n <= sizeof(r->bytes) - r->n);
    memcpy(r->bytes + r->n, p, n);
    r->n += n;
}

static inline void raw_frame(struct raw *r, uint8_t type, uint8_t flags, uint32_t id, const void *p,
                             size_t n)
{
    uint8_t head[9] = {
        (uint8_t)(n >> 16),  (uint8_t)(n >> 8),   (uint8_t)n,         type,       flags,
        (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    raw_bytes(r, head, sizeof(head));
    if (n > 0) {
        raw_bytes(r, p, n);
    }
}

/* A literal field that is not indexed, without Huffman. */
static inline size_t raw_field(uint8_t *at, const char *name, const char *value)
{
    size_t n = strlen(name), v = strlen(value), i = 0;
    assert_true(n < 127 && v < 127);
    at[i++] = 0;
    at[i++] = (uint8_t)n;
    memcpy(at + i, name, n);
    i += n;
    at[i++] = (uint8_t)v;
    memcpy(at + i, value, v);
    return i + v;
}

static inline void raw_preface(struct raw *r)
{
    raw_bytes(r, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    raw_frame(r, 4, 0, 0, NULL, 0);
}

enum { END_STREAM = 1, END_HEADERS = 4 };

/* fields: "name\0value\0 ... \0\0" as an array of pairs, ended by NULL. */
static inline void raw_head(struct raw *r, uint32_t id, uint8_t flags, const char *const *fields)
{
    uint8_t block[8192];
    size_t n = 0;
    for (size_t i = 0; fields[i] != NULL; i += 2) {
        n += raw_field(block + n, fields[i], fields[i + 1]);
    }
    raw_frame(r, 1, flags, id, block, n);
}

static inline void raw_say(struct h2_side *e, struct raw *r, uint64_t now)
{
    (void)http2_session_feed(e->s, r->bytes, r->n, now);
    r->n = 0;
}

#endif
