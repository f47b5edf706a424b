/*
 * intercept: which rules redirect a network namespace's TCP to a sidecar.
 *
 * Pure functions: a command line becomes options, options become one nftables ruleset as text. The
 * executable postern-intercept loads, compares and removes it; this part touches no kernel.
 *
 * The ruleset is one table, `inet postern`, replaced as a whole:
 *   outbound     what local processes open goes to the outbound listener, but for what stays on
 * this machine, what the proxy itself opens, and what was excluded inbound      what arrives for
 * this machine goes to the inbound listener, but for what was excluded; redirected, or (TPROXY)
 * with both its addresses as they are transparent  TPROXY only: the workload's answers to its
 * clients' addresses go to the proxy guard        what arrives and was not captured is reset, also
 * at the listeners' own ports egress       if asked for: what leaves and was not captured is
 * refused UDP and everything else that is not TCP is left alone, unless it is to be refused.
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

enum {
    INTERCEPT_RANGES_MAX = 512,
    INTERCEPT_UIDS_MAX = 64,
    INTERCEPT_CGROUP_MAX = 1024,
    INTERCEPT_TEXT_MAX = 256 * 1024,
};

/* What the proxy dials to see whether it is captured: the rules of these stand before the proxy's
 * own exemption. Both are addresses of loopback, so that nothing leaves the machine where they are
 * not. The inbound one is a port of every address: captured like any other (over loopback with
 * TPROXY only), and the proxy takes note of it and no more. */
#define INTERCEPT_CANARY_4 "127.15.0.9"
#define INTERCEPT_CANARY_6 "::1"
enum { INTERCEPT_CANARY_PORT = 15009, INTERCEPT_INBOUND_CANARY_PORT = 15010 };

enum intercept_action {
    INTERCEPT_APPLY,
    INTERCEPT_WATCH, /* apply, and again whenever the rules are others */
    INTERCEPT_CHECK,
    INTERCEPT_REMOVE,
    INTERCEPT_PRINT,
};
enum intercept_mode { INTERCEPT_REDIRECT, INTERCEPT_TPROXY };

/* Inclusive. */
struct intercept_range {
    uint32_t first, last;
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
    enum intercept_mode mode; /* of what comes in */
    uint32_t tproxy_mark; /* of packets that are routed to this machine; also the table's rule */
    uint32_t watch_s;     /* between two looks at the rules that nothing called for */
    uint16_t outbound_port, inbound_port;
    uint16_t hbone_port; /* left alone: a listener takes sessions there; 0: none does */
    bool has_uid;
    uid_t proxy_uid;
    char proxy_cgroup[INTERCEPT_CGROUP_MAX]; /* as given; empty: none */
    /* Sorted, without overlap. */
    struct intercept_range exclude_inbound[INTERCEPT_RANGES_MAX];
    size_t n_exclude_inbound;
    struct intercept_range exclude_outbound[INTERCEPT_RANGES_MAX];
    size_t n_exclude_outbound;
    struct intercept_block exclude_blocks[INTERCEPT_RANGES_MAX];
    size_t n_exclude_blocks;
    struct intercept_range exclude_uids[INTERCEPT_UIDS_MAX];
    size_t n_exclude_uids;
    /* Both empty: all that is not excluded. */
    struct intercept_range include_outbound[INTERCEPT_RANGES_MAX];
    size_t n_include_outbound;
    struct intercept_block include_blocks[INTERCEPT_RANGES_MAX];
    size_t n_include_blocks;
    bool udp_drop, drop_all;
    struct intercept_range udp_ports[INTERCEPT_RANGES_MAX]; /* that leave all the same */
    size_t n_udp_ports;
    bool has_udp_ports; /* said, and not the default */
};

/* Fills *ret from a whole command line (argv[0] is skipped). */
int intercept_options_parse(int argc, char **argv, struct intercept_options *ret, struct err *err);
/* Whether the exclusions hold the outbound canary. */
bool intercept_excludes_canary(const struct intercept_options *o);
/* Whether answers to clients need a way of their own. */
static inline bool intercept_needs_routes(const struct intercept_options *o)
{
    return o->inbound && o->mode == INTERCEPT_TPROXY;
}
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
