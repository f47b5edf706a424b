/* nghttp2 counts resets too, without knowing which of them are honest: calm.c does. */
#include <postern/http2_calm.h>

#include <nghttp2/nghttp2.h>

void http2_calm_option(struct nghttp2_option *o)
{
    enum { MANY = 1 << 30 };
    nghttp2_option_set_max_outbound_ack(o, HTTP2_CALM_BURST);
    nghttp2_option_set_stream_reset_rate_limit(o, MANY, MANY);
}
