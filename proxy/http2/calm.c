/*
 * The frames that bring nothing. A peer has proven who it is, and may still be taken over or
 * broken. Streams are bounded by their number, bytes by windows; an honest session never comes near
 * what is limited here.
 */
#include <postern/http2_calm.h>

#include <nghttp2/nghttp2.h>

enum { MILLI = 1000 };

static const uint64_t FULL = (uint64_t)HTTP2_CALM_BURST * MILLI;

void http2_calm_init(struct http2_calm *c, uint32_t block_max, uint64_t now_ms)
{
    *c = (struct http2_calm){.milli = FULL, .at_ms = now_ms, .block_max = block_max};
}

bool http2_calm_pay(struct http2_calm *c, uint64_t now_ms)
{
    if (now_ms > c->at_ms) {
        uint64_t passed = now_ms - c->at_ms;
        uint64_t earned = passed > FULL ? FULL : passed * HTTP2_CALM_RATE;
        c->milli = c->milli + earned > FULL ? FULL : c->milli + earned;
        c->at_ms = now_ms;
    }
    if (c->milli < MILLI) {
        return false;
    }
    c->milli -= MILLI;
    return true;
}

void http2_calm_earn(struct http2_calm *c, unsigned n)
{
    uint64_t earned = (uint64_t)n * MILLI;
    c->milli = c->milli + earned > FULL ? FULL : c->milli + earned;
}

void http2_calm_sent(struct http2_calm *c, size_t n)
{
    uint64_t room = HTTP2_CALM_SENT_MAX - c->sent;
    c->sent += n < room ? n : room;
}

static bool costs(struct http2_calm *c, const struct http2_calm_frame *f)
{
    switch (f->type) {
    case NGHTTP2_DATA: /* padding is nothing too */
        return (f->flags & NGHTTP2_FLAG_END_STREAM) == 0 &&
               (f->length == 0 || (f->flags & NGHTTP2_FLAG_PADDED) != 0);
    case NGHTTP2_WINDOW_UPDATE:
    case NGHTTP2_PING:
        if (c->sent < HTTP2_CALM_WORTH) {
            return true;
        }
        c->sent -= HTTP2_CALM_WORTH;
        return false;
    case NGHTTP2_HEADERS:
    case NGHTTP2_RST_STREAM:
        return !f->brought;
    default:
        return true;
    }
}

static bool block_is_small(struct http2_calm *c, const struct http2_calm_frame *f)
{
    if (f->type != NGHTTP2_HEADERS && f->type != NGHTTP2_CONTINUATION) {
        return true;
    }
    c->block_bytes = f->type == NGHTTP2_HEADERS ? 0 : c->block_bytes;
    if (f->length > c->block_max - c->block_bytes) {
        return false;
    }
    c->block_bytes += (uint32_t)f->length;
    return true;
}

enum http2_calm_says http2_calm_frame(struct http2_calm *c, const struct http2_calm_frame *f,
                                      uint64_t now_ms)
{
    if (!block_is_small(c, f)) {
        return HTTP2_CALM_BOMB;
    }
    return costs(c, f) && !http2_calm_pay(c, now_ms) ? HTTP2_CALM_TOO_MANY : HTTP2_CALM;
}
