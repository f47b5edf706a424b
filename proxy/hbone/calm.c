/*
 * What a peer may cost us. It has proven who it is, and may still be taken over or broken. Streams
 * are bounded by their number, bytes by windows; here are the frames that bring nothing: resets of
 * streams that were not answered yet (each made a connection begin), streams that we refuse (each
 * was judged, and maybe dialled for), PINGs and SETTINGS (each is answered), empty DATA, tiny
 * window updates, header blocks that are larger than any CONNECT has, or come in pieces. An honest
 * session never comes near these limits.
 */
#include "hbone_priv.h"

enum { MILLI = 1000, UPDATE_WORTH = 512 };

bool hbone_calm_pay(struct hbone_session *s)
{
    struct hbone_calm *c = &s->calm;
    const uint64_t full = (uint64_t)HBONE_CALM_BURST * MILLI;
    if (s->now_ms > c->at_ms) {
        uint64_t passed = s->now_ms - c->at_ms;
        uint64_t earned = passed > MILLI * MILLI ? full : passed * HBONE_CALM_RATE;
        c->milli = c->milli + earned > full ? full : c->milli + earned;
        c->at_ms = s->now_ms;
    }
    if (c->milli < MILLI) {
        hbone_fail(s, HBONE_TOO_MANY_FRAMES);
        return false;
    }
    c->milli -= MILLI;
    return true;
}

static bool costs(struct hbone_session *s, const nghttp2_frame_hd *hd)
{
    const struct hbone_stream *st;
    switch (hd->type) {
    case NGHTTP2_DATA:
        return hd->length == 0 && (hd->flags & NGHTTP2_FLAG_END_STREAM) == 0;
    case NGHTTP2_HEADERS:
        /* Any other that is refused costs when it is: hbone_refuse. */
        return s->server && s->goaways > 1 && hd->stream_id > s->last_id;
    case NGHTTP2_WINDOW_UPDATE: {
        bool earned = s->calm.sent >= UPDATE_WORTH;
        s->calm.sent = 0;
        return !earned;
    }
    case NGHTTP2_RST_STREAM:
        st =
            (const struct hbone_stream *)nghttp2_session_get_stream_user_data(s->ng, hd->stream_id);
        return s->server && (st == NULL || !st->answered);
    default:
        return true;
    }
}

static bool head_is_small(struct hbone_session *s, const nghttp2_frame_hd *hd)
{
    if (hd->type != NGHTTP2_HEADERS && hd->type != NGHTTP2_CONTINUATION) {
        return true;
    }
    s->calm.block_bytes = hd->type == NGHTTP2_HEADERS ? 0 : s->calm.block_bytes;
    if (hd->length > HBONE_HEADER_BYTES - s->calm.block_bytes) {
        hbone_fail(s, HBONE_HEADER_BOMB);
        return false;
    }
    s->calm.block_bytes += (uint32_t)hd->length;
    return true;
}

bool hbone_calm_frame(struct hbone_session *s, const nghttp2_frame_hd *hd)
{
    return head_is_small(s, hd) && (!costs(s, hd) || hbone_calm_pay(s));
}
