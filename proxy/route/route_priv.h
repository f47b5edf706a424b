/* What the files of route share: services are route.c's, what is let through without being one is
 * pass.c's. */
#ifndef POSTERN_ROUTE_PRIV_H
#define POSTERN_ROUTE_PRIV_H

#include <postern/route.h>

struct pass_entry {
    struct route_pass by_block, by_host; /* what is said of it */
    char *name;                          /* owned */
    struct conf_cidr *blocks;            /* owned, as are the others */
    size_t n_blocks;
    char **hosts;
    size_t n_hosts;
    uint16_t *ports; /* none: every port */
    size_t n_ports;
};

struct passes {
    enum conf_unlisted unlisted;
    struct route_pass all; /* with CONF_UNLISTED_PASS */
    struct pass_entry *entries;
    size_t n_entries;
};

/* Of a zeroed one; mesh NULL: nothing is let through. */
void passes_fill(struct passes *p, const struct conf_mesh *mesh);
void passes_clear(struct passes *p);
void passes_hosts(const struct passes *p, void (*fn)(void *arg, const char *host), void *arg);
const struct route_pass *passes_find(const struct passes *p, const struct net_addr *dst,
                                     const struct resolve_state *resolved,
                                     const struct route_pass *before);

#endif
