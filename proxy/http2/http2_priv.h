/*
 * What the files of http2 share: session.c (nghttp2's callbacks, bytes in and out), head.c (heads
 * as HTTP/1.1 text), stream.c (what is sent), calm.c (what a peer may cost).
 */
#ifndef POSTERN_HTTP2_PRIV_H
#define POSTERN_HTTP2_PRIV_H

#include <nghttp2/nghttp2.h>
#include <postern/http2.h>

enum {
    FRAME_HEADER = 9,
    FIELD_OVERHEAD = 32,   /* RFC 9113 6.5.2 */
    EARNED_BY_REQUEST = 4, /* gRPC sends as many PINGs and window updates around a small one */
    BOMB = 4,              /* times the limit of a head, decoded: no client errs by that much */
    KEPT_MAX = 16 * 1024,  /* memory that an empty buffer of a stream keeps */
};

enum compose_kind { COMPOSE_REQUEST, COMPOSE_RESPONSE, COMPOSE_TRAILERS };

/* A piece of `pseudo`. */
struct piece {
    uint32_t at, n;
    bool there;
};

/* The head that is being read: HTTP/2 does not interleave them. */
struct compose {
    enum compose_kind kind;
    uint32_t bytes;
    uint16_t n_lines;
    bool line_written, failed, control, host_seen, cookie_never;
    struct piece method, path, authority;
    struct buf pseudo, text, cookie;
    struct http2_head head;
};

struct http2_session {
    nghttp2_session *ng; /* owned */
    const struct http2_ops *ops;
    void *arg;
    struct http2_stream *streams;
    size_t n_streams, held;
    struct buf emit;
    uint64_t grown, *all_grown, own_grown; /* beyond the streams' first windows */
    struct http2_calm calm;
    struct compose compose;
    uint32_t head_bytes, head_ms;
    uint64_t now_ms, heard_ms, ping_ms; /* 0: no PING is unanswered */
    uint64_t head_began_ms;             /* 0: none is being read */
    /* Of the frame of DATA that ends a stream: how much of it is to come, and the last that came,
     * which waits until nghttp2 has seen that the message is whole. Lent by who feeds. */
    size_t ending_left, last_n;
    const uint8_t *last;
    enum http2_abuse why;
    uint32_t said_code; /* of a GOAWAY of ours that nghttp2 made */
    int32_t last_id;    /* the last stream that the second GOAWAY leaves */
    uint8_t goaways;
    bool server, in_library, woken, peer_leaves, stands;
};

/* --- session.c --- */
void http2_wake(struct http2_session *s);
/* It is over: GOAWAY with that code is the last word. */
void http2_fail(struct http2_session *s, enum http2_abuse why, enum http2_code code);
void http2_pull(struct http2_session *s);
bool http2_pay(struct http2_session *s);
struct http2_stream *http2_find(nghttp2_session *ng, int32_t id);

/* --- head.c --- */
void http2_compose_begin(struct compose *c, enum compose_kind kind, uint32_t max);
/* False: a byte that no value may have. */
bool http2_compose_field(struct compose *c, struct str name, struct str value, bool never,
                         uint32_t limit);
/* NULL: no memory. Lent until the next one begins. */
const struct http2_head *http2_compose_end(struct compose *c);
void http2_compose_deinit(struct compose *c);

/* --- stream.c --- */
ssize_t http2_stream_peek(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length,
                          uint32_t *flags, nghttp2_data_source *source, void *arg);
int http2_stream_put(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t length,
                     nghttp2_data_source *source, void *arg);
void http2_stream_gone(struct http2_stream *st, uint32_t code);
void http2_stream_unlink(struct http2_stream *st);

#endif
