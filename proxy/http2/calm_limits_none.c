/* An nghttp2 that does not count resets. */
#include <postern/http2_calm.h>

#include <nghttp2/nghttp2.h>

void http2_calm_option(struct nghttp2_option *o)
{
    nghttp2_option_set_max_outbound_ack(o, HTTP2_CALM_BURST);
}
