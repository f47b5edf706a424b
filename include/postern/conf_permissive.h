/*
 * conf_permissive: what a port's configuration says of plaintext beside mTLS (docs/permissive.md).
 * Part of conf.h's results. Pure data; thread: any.
 */
#ifndef POSTERN_CONF_PERMISSIVE_H
#define POSTERN_CONF_PERMISSIVE_H

#include <stdint.h>

enum conf_mode { CONF_MODE_STRICT, CONF_MODE_PERMISSIVE };

enum {
    CONF_PERMISSIVE_PORTS_MAX = 64,            /* of one listener */
    CONF_STRICT_AFTER_MAX_S = 365 * 24 * 3600, /* of strict_after */
};

struct conf_permissive {
    enum conf_mode mode;
    uint32_t wait_ms;        /* until silence means a plaintext client */
    uint32_t strict_after_s; /* without plaintext that is allowed; 0: never by itself */
};

#endif
