/* An nghttp2 that does not count resets. */
#include "hbone_priv.h"

void hbone_option_resets(nghttp2_option *o)
{
    (void)o;
}
