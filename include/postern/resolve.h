/*
 * resolve: names of targets and their addresses.
 *
 * Nothing on the data path looks a name up. A helper process (postern-resolver) does, in a child of
 * its own for each question; the main thread asks it on a schedule and makes an immutable
 * resolve_state of what it said, which reaches the workers in their snapshot.
 *
 * What it looks into is what every resolver without plug-ins does: /etc/hosts, then the name
 * servers and search domains of /etc/resolv.conf, for IPv6 and IPv4. It asks again when the
 * answer's time to live is over, 5 s at the least and 5 min at the most. A failure, and an empty
 * answer, leave the last good addresses in place.
 *
 * Thread: resolve_state any (immutable, counted); resolver the main thread's loop.
 */
#ifndef POSTERN_RESOLVE_H
#define POSTERN_RESOLVE_H

#include <postern/err.h>
#include <postern/loop.h>
#include <postern/mem.h>
#include <postern/net.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RESOLVE_HOST_MAX = 253,
    RESOLVE_ADDRS_MAX = 32, /* of one name; further ones are not used */
    RESOLVE_NAMES_MAX = 1024,
};

/* --- what is known ---------------------------------------------------------------------------- */
struct resolve_host {
    char *host;             /* owned */
    struct net_addr *addrs; /* owned; without a port; the family that is reached best comes first */
    size_t n_addrs;         /* 0: never resolved */
    size_t n_preferred;     /* how many of the first ones are of one family: equally good */
};

struct resolve_state {
    _Atomic unsigned refs;
    struct resolve_host *hosts; /* sorted by name */
    size_t n_hosts;
};

struct resolve_state *resolve_state_ref(struct resolve_state *s);
struct resolve_state *resolve_state_unref(struct resolve_state *s);
/* NULL: not among them. Takes a NULL state. */
const struct resolve_host *resolve_state_find(const struct resolve_state *s, const char *host);
/* Whether every name has an address. */
bool resolve_state_complete(const struct resolve_state *s);
MEM_DEFINE_CLEANUP(struct resolve_state, resolve_state_unref)

/* --- finding out ------------------------------------------------------------------------------ */
struct resolver;

enum resolver_notice {
    RESOLVER_FAILED,    /* a name, for the first time in a row: err says why */
    RESOLVER_RECOVERED, /* a name that had failed */
    RESOLVER_CHANGED,   /* a name's addresses are others than before */
    RESOLVER_GONE,      /* the helper ended: every name keeps what it has */
};
const char *resolver_notice_name(enum resolver_notice n);

struct resolver_events {
    /* A reference of the caller's own has to be taken. */
    void (*on_state)(void *arg, struct resolve_state *state);
    /* host is NULL for RESOLVER_GONE; why may be NULL. */
    void (*on_notice)(void *arg, enum resolver_notice notice, const char *host,
                      const struct err *why);
};

/* Starts the helper. Before the process gives up execve. */
struct resolver *resolver_new(struct loop *loop, const struct resolver_events *events, void *arg,
                              struct err *err);
/* The same with a helper that somebody else plays at the other end of fd (taken). */
struct resolver *resolver_new_on(struct loop *loop, int fd, const struct resolver_events *events,
                                 void *arg, struct err *err);
/* Ends the helper. Takes NULL. */
struct resolver *resolver_free(struct resolver *r);
/* The names that are needed from now on (lent, may repeat); what is known of those that were there
 * before stays. Gives a state at once. */
void resolver_set_names(struct resolver *r, const char *const *names, size_t n);

struct resolver_status {
    const char *host; /* lent */
    size_t n_addrs;
    unsigned failures_in_row;
    uint64_t next_ms; /* of os_now_ms: when it is asked about again */
    char error[200];  /* of the last failure; empty: none in a row */
};
bool resolver_alive(const struct resolver *r);
size_t resolver_count(const struct resolver *r);
void resolver_get_status(const struct resolver *r, size_t i, struct resolver_status *ret);

#endif
