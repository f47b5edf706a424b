/* nghttp2 counts resets too, without knowing which of them are honest: calm.c does. */
#include "hbone_priv.h"

void hbone_option_resets(nghttp2_option *o)
{
    enum { MANY = 1 << 30 };
    nghttp2_option_set_stream_reset_rate_limit(o, MANY, MANY);
}
