/* nghttp2 counts resets too, without knowing which of them are honest (conn.c does): a client with
 * thousands of streams may leave them all at once. */
#include "grpc_priv.h"

void grpc_option_resets(nghttp2_option *o)
{
    enum { MANY = 1 << 30 };
    nghttp2_option_set_stream_reset_rate_limit(o, MANY, MANY);
}
