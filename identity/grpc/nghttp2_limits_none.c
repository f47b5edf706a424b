/* An nghttp2 that does not count resets. */
#include "grpc_priv.h"

void grpc_option_resets(nghttp2_option *o)
{
    (void)o;
}
