/*
 * http2_calm: what the peer of an HTTP/2 session may cost that brings nothing: resets of streams
 * that were not answered yet, PINGs and SETTINGS (each is answered), empty DATA, heads in pieces,
 * tiny window updates, malformed and refused requests, and header blocks larger than any honest
 * one. Used by hbone (streams that are connections) and http2 (streams that are requests). Pure;
 * embedded by its session; time is handed in.
 */
#ifndef POSTERN_HTTP2_CALM_H
#define POSTERN_HTTP2_CALM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP2_CALM_BURST = 1000, /* frames that cost us something and bring nothing ... */
    HTTP2_CALM_RATE = 100,   /* ... and how many more a second */
    /* A WINDOW_UPDATE or PING is free for so many bytes of DATA that we sent: peers give windows
     * back by stream and by session, many at once, and measure the way while they read. */
    HTTP2_CALM_WORTH = 512,
    HTTP2_CALM_SENT_MAX = 1 << 24, /* that is counted at once */
};

/* A bucket of tokens; one is a thousand of `milli`. */
struct http2_calm {
    uint64_t milli, at_ms;
    uint64_t sent;        /* DATA bytes of ours that no WINDOW_UPDATE or PING has used up */
    uint32_t block_bytes; /* of the header block that is being read */
    uint32_t block_max;   /* no block may have more, as it is on the wire */
};

enum http2_calm_says { HTTP2_CALM, HTTP2_CALM_TOO_MANY, HTTP2_CALM_BOMB };

/* The head of a frame that came. */
struct http2_calm_frame {
    uint8_t type, flags;
    size_t length;
    bool brought; /* of HEADERS and RST_STREAM, by their owner: it costs nothing */
};

void http2_calm_init(struct http2_calm *c, uint32_t block_max, uint64_t now_ms);
/* Something that costs. False: that was too much. */
bool http2_calm_pay(struct http2_calm *c, uint64_t now_ms);
/* DATA of ours went out. */
void http2_calm_sent(struct http2_calm *c, size_t n);
/* It brought something: that many are forgiven. */
void http2_calm_earn(struct http2_calm *c, unsigned n);
enum http2_calm_says http2_calm_frame(struct http2_calm *c, const struct http2_calm_frame *f,
                                      uint64_t now_ms);
/* What nghttp2 has to be told for it. */
struct nghttp2_option;
void http2_calm_option(struct nghttp2_option *o);

#endif
