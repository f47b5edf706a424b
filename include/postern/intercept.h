/*
 * intercept: which rules redirect a network namespace's TCP to a sidecar.
 *
 * Pure functions: a command line becomes options, options become one nftables ruleset as text. The
 * executable postern-intercept loads, compares and removes it; this part touches no kernel.
 *
 * The ruleset is one table, `inet postern`, replaced as a whole:
 *   outbound  what local processes open goes to the outbound listener, but for what stays on this
 *             machine, what the proxy itself opens, and what was excluded
 *   inbound   what arrives for this machine goes to the inbound listener, but for what was excluded
 *   guard     what arrives and was not redirected is reset, also at the listeners' own ports
 * UDP and everything else that is not TCP is left alone.
 *
 * Ownership: options hold no pointer into argv. Failures fill a struct err with ERR_USAGE.
 * Thread: any.
 */
#ifndef POSTERN_INTERCEPT_H
#define POSTERN_INTERCEPT_H

#include <postern/buf.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { INTERCEPT_RANGES_MAX = 512, INTERCEPT_CGROUP_MAX = 1024, INTERCEPT_TEXT_MAX = 128 * 1024 };

enum intercept_action { INTERCEPT_APPLY, INTERCEPT_CHECK, INTERCEPT_REMOVE, INTERCEPT_PRINT };

/* Inclusive. */
struct intercept_ports {
    uint16_t first, last;
};

struct intercept_block {
    int family; /* AF_INET or AF_INET6 */
    uint8_t addr[16];
    uint8_t prefix_len;
};

struct intercept_options {
    enum intercept_action action;
    bool help;
    bool outbound, inbound, ipv4_only;
    uint16_t outbound_port, inbound_port;
    bool has_uid;
    uid_t proxy_uid;
    char proxy_cgroup[INTERCEPT_CGROUP_MAX]; /* as given; empty: none */
    /* Sorted, without overlap. */
    struct intercept_ports exclude_inbound[INTERCEPT_RANGES_MAX];
    size_t n_exclude_inbound;
    struct intercept_ports exclude_outbound[INTERCEPT_RANGES_MAX];
    size_t n_exclude_outbound;
    struct intercept_block exclude_blocks[INTERCEPT_RANGES_MAX];
    size_t n_exclude_blocks;
};

/* Fills *ret from a whole command line (argv[0] is skipped). */
int intercept_options_parse(int argc, char **argv, struct intercept_options *ret, struct err *err);
/* What --help prints. */
const char *intercept_usage(void);

/* How the proxy's own connections are known, where that is by cgroup. */
struct intercept_cgroup {
    char path[INTERCEPT_CGROUP_MAX]; /* as nftables wants it: below /sys/fs/cgroup */
    unsigned level;                  /* depth in the cgroup2 hierarchy */
};

/* The table's definition under the given name; cgroup is NULL unless the options name one. A
 * `shadow` sees no traffic and goes when the process that made it ends: it shows how the kernel
 * would list the table. `out` must take INTERCEPT_TEXT_MAX bytes. */
void intercept_table(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                     const char *name, bool shadow, struct buf *out);
/* One batch that puts the table into force, whatever was there: the old one goes and the new one
 * comes in one transaction. */
void intercept_batch(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                     struct buf *out);

#endif
