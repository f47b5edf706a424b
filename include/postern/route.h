/*
 * route: which workload lives at an address, and how to reach it. Compiled from the mesh map into
 * an immutable table that any number of threads ask without a lock; no I/O.
 *
 * The most specific address block that holds the address decides alone: if it does not serve the
 * port, the destination is unlisted, even where a wider block would serve it. So a wide block (a
 * plaintext one, say) never speaks for a workload that has an entry of its own. Services that share
 * a block are asked in the order of the file.
 */
#ifndef POSTERN_ROUTE_H
#define POSTERN_ROUTE_H

#include <postern/conf.h>
#include <postern/net.h>
#include <postern/resolve.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>

struct route {
    const char *service; /* its name in the mesh map, or the explicit listener's */
    enum conf_transport transport;
    uint16_t hbone_port;          /* where its addresses take HBONE */
    bool hbone_declared;          /* the map names that port: with auto it does take HBONE there */
    const struct str *identities; /* the set that the peer must be of; empty: plaintext only */
    size_t n_identities;
    uint64_t key; /* of all that a live connection is judged by: the same says the same */
    struct conf_expiry expiry; /* of the service; what is not said is the listener's */
    const struct conf_port *ports;
    size_t n_ports;
    /* Where its connections go instead of the address that was dialled; none: there. Lent by the
     * table, immutable: which of them is chosen is the business of balance.h. */
    const struct route_endpoint *endpoints;
    size_t n_endpoints;
    struct conf_ejection ejection;
    uint32_t max_connections; /* open ones of the process; 0: any */
};

struct route_endpoint {
    const char *host;        /* NULL: address says it */
    struct net_addr address; /* port 0: the one that was dialled */
    uint16_t port;           /* the same, also of a host */
};

/* What lets a destination through that is no service's. */
struct route_pass {
    const char *name; /* of its entry; NULL: all are let through */
    enum conf_unlisted_class preset;
    bool by_host; /* because a name of the entry resolves to it */
};

struct route_table;
/* mesh NULL: an empty table, where nothing is listed. The mesh is not kept. Fails only on a table
 * that cannot be meant (two services for the same block and port). */
int route_table_new(const struct conf_mesh *mesh, struct route_table **ret, struct err *err);
struct route_table *route_table_free(struct route_table *t);

/* NULL: unlisted. What is returned lives as long as the table. */
const struct route *route_lookup(const struct route_table *t, const struct net_addr *dst);
size_t route_count(const struct route_table *t);
/* The i-th, in the order of the file. */
const struct route *route_at(const struct route_table *t, size_t i);
/* Names that have to be resolved, of endpoints and of unlisted destinations; some maybe twice. */
void route_hosts(const struct route_table *t, void (*fn)(void *arg, const char *host), void *arg);

/* --- unlisted destinations (pass.c) ---
 * Asked of those that route_lookup does not know. Instance metadata is let through only where it is
 * named: by an address of full length, or the preset. By a name never, nor is loopback: who answers
 * for a name would choose them. */
enum conf_unlisted route_unlisted(const struct route_table *t);
/* What lets it through as plain TCP; NULL: nothing does. `before` is what did when the connection
 * was made, under whichever table, or NULL: an entry that had it by name has it still, whatever the
 * name means by now. */
const struct route_pass *route_pass(const struct route_table *t, const struct net_addr *dst,
                                    const struct resolve_state *resolved,
                                    const struct route_pass *before);

/* Whether what was said of one transport holds for the other: both are plaintext, or both are forms
 * of mTLS, which demand the same identities. */
bool route_transports_alike(enum conf_transport a, enum conf_transport b);
/* Whether two routes lead to the same: a live connection made by one may stay under the other if
 * `peer` (empty: plaintext) is still among the expected. It stays by the transport that it has. */
bool route_still_allows(const struct route *now, enum conf_transport transport, struct str peer);

/* Narrows *e, which is the listener's, by what service and port say. */
void route_expiry(const struct route *r, uint16_t port, struct conf_expiry *e);

/* A route of an explicit listener; owned by the caller. */
struct route *route_new_explicit(const char *name, const struct conf_strings *identities);
/* Where the connections of an explicit listener go, one of them each. */
void route_set_endpoints(struct route *r, const struct conf_target *targets, size_t n,
                         const struct conf_ejection *ejection);
/* By which transport a route goes; port 0: not named. */
void route_set_transport(struct route *r, enum conf_transport transport, uint16_t hbone_port);
struct route *route_free_explicit(struct route *r);

#endif
