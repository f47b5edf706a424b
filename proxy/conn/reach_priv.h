/*
 * Connecting to the other side, part of conn_priv.h:
 *
 *   dial.c     addresses, one after the other      balance.c   endpoints of a service
 *   identity_limit.c   how many an identity may have
 */
#ifndef POSTERN_CONN_REACH_PRIV_H
#define POSTERN_CONN_REACH_PRIV_H

#include <postern/balance.h>
#include <postern/conn.h>
#include <postern/snapshot.h>

struct conn;
struct conn_leg;

/* Which endpoints a connection has tried, and where it is counted. */
struct conn_balance {
    struct balance_endpoint *tried[BALANCE_TRIES_MAX]; /* the last is the one in use; references */
    uint8_t n_tried, n_services;
    bool told; /* how the last one turned out */
    bool in_use;
    struct balance_service *services[SNAPSHOT_SETS_MAX]; /* taken */
};

/* --- dial.c ----------------------------------------------------------------------------------- */
/* A descriptor that connects to the connection's upstream, as net_dial gives it. */
int conn_dial_fd(struct conn *c, bool *ret_done);
/* Before the first try: which addresses there are, and until when. */
void conn_dial_begin(struct conn *c);
/* How long the try that was begun may take. */
uint32_t conn_dial_ms(const struct conn *c);
void conn_dial_timeout(struct conn *c);
const struct snapshot_target *conn_next_hop(const struct conn *c);
/* False: a name that is not resolved yet. */
bool conn_has_address(const struct conn *c);
/* Starts to dial on a leg: true when connected. False: it waits (state DIAL), or closed. */
bool conn_dial(struct conn *c, struct conn_leg *leg);
/* After an event in DIAL: true when connected. */
bool conn_dial_step(struct conn *c, struct conn_leg *leg);
/* Its handshake with an endpoint came to nothing: dials another one, as conn_dial does. False if
 * there is none to try, or no time: *ret_connected is of no meaning then. */
bool conn_dial_another(struct conn *c, struct conn_leg *leg, bool *ret_connected);
/* How long the handshake that begins may take. */
uint32_t conn_dial_handshake_ms(const struct conn *c);
enum conn_reason conn_dial_reason(int sys_errno);

/* --- balance.c: endpoints and limits of services (docs/outbound.md) ----------------------------
 */
/* Once the route is known: counts it, and chooses an endpoint, which is c->upstream from then on,
 * before the transport is chosen. Without endpoints upstream stays. False: closed, too many. */
bool conn_balance_begin(struct conn *c);
/* False: no endpoint has an address yet. */
bool conn_balance_has_address(const struct conn *c);
/* How many endpoints may be tried. */
size_t conn_balance_tries(const struct conn *c);
/* Where its service's connection goes: the endpoint in use, else the original destination. */
struct net_addr conn_balance_address(const struct conn *c);
/* The one in use failed, in its handshake or before: another one is upstream now. False: there is
 * none left to try. */
bool conn_balance_next(struct conn *c, bool in_handshake);
/* Whether it is said of an endpoint that came to its handshake, and not through it. */
bool conn_balance_handshake(enum conn_reason r);
/* The one in use is who it should be. */
void conn_balance_succeeded(struct conn *c);
/* Its upstream side is given up: if it is the endpoint that failed, that counts. */
void conn_balance_ended(struct conn *c, enum conn_reason why);
/* Whether its listener's target is a list. */
bool conn_is_listed(const struct conn *c);
/* Of a relay, which may connect upstream several times: if it has none in use, forgets what it
 * tried, and chooses. False: no memory. */
bool conn_balance_again(struct conn *c);
/* Its connection upstream has ended, and it goes on. */
void conn_balance_leave(struct conn *c);
/* Is not counted any more. */
void conn_balance_end(struct conn *c);
void conn_balance_free(struct conn *c);
/* After a change, of one without TLS: whether the map leads to its upstream still. */
bool conn_balance_holds(const struct conn *c);
/* After a change, of one that stays: counts it where the map says now that it is. */
void conn_balance_recount(struct conn *c);

/* --- identity_limit.c ------------------------------------------------------------------------- */
/* Inbound, once it is known who the peer is, of everything that is a connection: false, closed, if
 * this identity has too many. */
bool conn_identity_enter(struct conn *c);
void conn_identity_leave(struct conn *c);
/* Of a stream that leaves its session: the session counts in its place, if it is the last. */
void conn_identity_hand_back(struct conn *c);
/* Closes, and tells it once a second at most. */
void conn_limit_refuse(struct conn *c, enum conn_reason reason);

#endif
