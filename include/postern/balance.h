/*
 * balance: which endpoint of a service a connection goes to, which are left out for a while, and
 * how many connections a service has. docs/outbound.md.
 *
 * What is counted of an endpoint or service outlives snapshots: a registry of the main thread holds
 * the records, and each snapshot has a balance_state, immutable but for the records' atomic
 * numbers, that says which of them a route leads to. Workers share the records and take no lock.
 * The clock and the random numbers are handed in.
 *
 * Thread: balance_new, _free, _build: main. The rest: any.
 */
#ifndef POSTERN_BALANCE_H
#define POSTERN_BALANCE_H

#include <postern/mem.h>
#include <postern/net.h>
#include <postern/resolve.h>
#include <postern/route.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BALANCE_TRIES_MAX = 4 }; /* endpoints of one connection */

struct balance_endpoint {
    _Atomic unsigned refs;
    struct balance_endpoint *next; /* in the registry */
    char *service;                 /* owned */
    struct net_addr address;       /* port 0: the one that was dialled */
    _Atomic uint32_t open;         /* connections, those that connect included */
    _Atomic uint32_t failures;     /* in a row */
    _Atomic uint32_t ejections;    /* shortly one after the other */
    _Atomic uint64_t ejected_until_ms, ejected_for_ms; /* of the last one; 0: never was */
    _Atomic uint64_t n_failures, n_ejections;          /* ever */
};

struct balance_service {
    _Atomic unsigned refs;
    struct balance_service *next; /* in the registry */
    char *name;                   /* owned */
    _Atomic uint32_t open;
    _Atomic uint64_t n_refused, n_panics;
};

/* What a route leads to. */
struct balance_set {
    const struct route *route;
    struct balance_service *service;     /* a reference */
    struct balance_endpoint **endpoints; /* owned, with references; each once */
    size_t n;
    bool named; /* some of them come and go with a name's addresses */
};

struct balance_state {
    _Atomic unsigned refs;
    struct balance_set *sets; /* owned; of every route that has endpoints or a limit */
    size_t n_sets;
};

struct balance; /* the registry */
struct balance *balance_new(void);
struct balance *balance_free(struct balance *b);
/* The routes are lent as long as the state lives; a table may be NULL, as may one of the routes
 * that are in no table (explicit listeners'). Records that nobody has any more are forgotten unless
 * they are ejected. */
struct balance_from {
    const struct route_table *const *tables;
    size_t n_tables;
    const struct route *const *routes;
    size_t n_routes;
    const struct resolve_state *resolved;
};
struct balance_state *balance_build(struct balance *b, const struct balance_from *from,
                                    uint64_t now_ms);
struct balance_state *balance_state_ref(struct balance_state *s);
struct balance_state *balance_state_unref(struct balance_state *s);
/* NULL: it has neither endpoints nor a limit. Takes a NULL state. */
const struct balance_set *balance_find(const struct balance_state *s, const struct route *route);
MEM_DEFINE_CLEANUP(struct balance_state, balance_state_unref)

/* --- choosing (choose.c) --- */
/* One that is not among `tried`: of two at random the one with fewer connections. Those that are
 * left out come into question only if they are more than half of all. NULL: none is left. */
struct balance_endpoint *balance_choose(const struct balance_set *s,
                                        struct balance_endpoint *const *tried, size_t n_tried,
                                        uint64_t now_ms, uint64_t *random);
/* A connection to it begins, and ends. Holds a reference meanwhile. */
void balance_take(struct balance_endpoint *e);
void balance_give(struct balance_endpoint *e);
/* It failed (a connect, a handshake): true if it is left out from now on. */
bool balance_failed(const struct balance_set *s, struct balance_endpoint *e, uint64_t now_ms);
void balance_succeeded(struct balance_endpoint *e, uint64_t now_ms);
bool balance_is_ejected(const struct balance_endpoint *e, uint64_t now_ms);
/* The next of a sequence, for `random`. */
uint64_t balance_random(uint64_t *state);

/* False: `max` (not 0) are open already. Holds a reference until it is given back. */
bool balance_service_take(struct balance_service *s, uint32_t max);
void balance_service_give(struct balance_service *s);
struct balance_service *balance_service_unref(struct balance_service *s);
struct balance_endpoint *balance_endpoint_unref(struct balance_endpoint *e);

#endif
