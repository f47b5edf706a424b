/* Permissive ports in the main thread: what proxy_permissive.c (which they are, turning strict) and
 * proxy_readiness.c (telling the agent) share. */
#ifndef POSTERN_PROXY_PERMISSIVE_H
#define POSTERN_PROXY_PERMISSIVE_H

#include "proxy_priv.h"

struct proxy_permissive_site {
    uint16_t listener, port;
    const char *name; /* of the listener; lent by the files */
    uint16_t shown;   /* the port that policies speak of */
    struct conf_permissive conf;
    uint64_t since_ms;  /* that it is watched */
    int64_t turned_s;   /* strict, by itself; 0: it is not */
    uint64_t turned_ms; /* the same by the clock that nothing sets */
    bool asked;         /* whether the agent remembers that it was strict */
};

struct proxy_permissive {
    struct proxy *proxy;
    struct loop_timer timer;
    struct proxy_permissive_site *sites; /* owned */
    size_t n;
    struct snapshot_strict strict;

    /* What the agent was told (proxy_readiness.c). */
    struct loop_timer report_timer;
    struct permissive_tally told;
    uint64_t told_ms;     /* 0: nothing yet */
    uint64_t n_snapshots; /* of its stream at that time */
    bool due;             /* at once, whatever has changed */
};

void proxy_permissive_tally(const struct proxy *p, struct permissive_tally *ret);

void proxy_readiness_init(struct proxy_permissive *m);
void proxy_readiness_deinit(struct proxy_permissive *m);
/* There is something that the agent has to hear soon. */
void proxy_readiness_due(struct proxy_permissive *m);

#endif
