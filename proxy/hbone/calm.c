/* What a peer may cost us (http2_calm.h), of a session whose streams are connections. */
#include "hbone_priv.h"

bool hbone_calm_pay(struct hbone_session *s)
{
    if (!http2_calm_pay(&s->calm, s->now_ms)) {
        hbone_fail(s, HBONE_TOO_MANY_FRAMES);
        return false;
    }
    return true;
}

/* Each reset of a stream that was not answered made a connection begin; a head behind our last
 * GOAWAY is decoded for nothing. Any other that is refused costs when it is: hbone_refuse. */
static bool has_brought(struct hbone_session *s, const nghttp2_frame_hd *hd)
{
    if (hd->type == NGHTTP2_HEADERS) {
        return !s->server || s->goaways < 2 || hd->stream_id <= s->last_id;
    }
    if (hd->type != NGHTTP2_RST_STREAM || !s->server) {
        return true;
    }
    const struct hbone_stream *st =
        (const struct hbone_stream *)nghttp2_session_get_stream_user_data(s->ng, hd->stream_id);
    return st != NULL && st->answered;
}

bool hbone_calm_frame(struct hbone_session *s, const nghttp2_frame_hd *hd)
{
    const struct http2_calm_frame f = {
        .type = hd->type, .flags = hd->flags, .length = hd->length, .brought = has_brought(s, hd)};
    switch (http2_calm_frame(&s->calm, &f, s->now_ms)) {
    case HTTP2_CALM:
        return true;
    case HTTP2_CALM_TOO_MANY:
        hbone_fail(s, HBONE_TOO_MANY_FRAMES);
        return false;
    case HTTP2_CALM_BOMB:
        hbone_fail(s, HBONE_HEADER_BOMB);
        return false;
    }
    return false;
}
