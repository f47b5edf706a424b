/*
 * conf_http: what Proxy and Gateway files say of HTTP (docs/http.md), as conf.h fills it in. Owned
 * by the struct conf_proxy that it is part of.
 */
#ifndef POSTERN_CONF_HTTP_H
#define POSTERN_CONF_HTTP_H

#include <stddef.h>
#include <stdint.h>

/* Whom a rate is of. */
enum conf_rate_per {
    CONF_RATE_IDENTITY, /* each peer by itself */
    CONF_RATE_ROUTE,    /* all together */
};
/* How often requests may come. None of a list: any. */
struct conf_rate_limit {
    char **methods;
    size_t n_methods;
    char **paths; /* exact, prefix*, *suffix, * */
    size_t n_paths;
    enum conf_rate_per per;
    uint32_t rate, burst; /* requests a second, and at once; burst 0: as many as rate */
};

/* Of one port, or of a listener that has one destination. All zero: nothing is said. */
struct conf_http {
    unsigned *path_words; /* as written; allow_paths is what they come to */
    size_t n_path_words;
    uint32_t allow_paths; /* enum http1_path_allow */
    char **connect; /* "host:port" that CONNECT may ask for, in lower case; "*." may begin it */
    size_t n_connect;
    struct conf_rate_limit *rate_limits;
    size_t n_rate_limits;
};

enum conf_via { CONF_VIA_OFF, CONF_VIA_REQUESTS, CONF_VIA_BOTH };
enum conf_traces { CONF_TRACES_BEGIN, CONF_TRACES_KEEP };
enum conf_upstream_pool { CONF_POOL_OFF, CONF_POOL_PER_CLIENT, CONF_POOL_SHARED };
/* Of the whole process. */
struct conf_http_general {
    enum conf_via via;
    enum conf_traces traces;
    enum conf_upstream_pool upstream_pool;
    uint32_t retry_percent;
};

#endif
