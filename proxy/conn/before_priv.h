/*
 * What is read or said before it is known what a connection is, part of conn_priv.h:
 *
 *   told.c     whom a peer speaks for              hello.c     choosing by server name
 *   plain.c    plaintext beside mTLS               canary.c    whether traffic is captured
 *   prelude.c  before the target's first byte      tunnel.c    HTTP CONNECT
 *   first.c    what the readers of first bytes share
 */
#ifndef POSTERN_CONN_BEFORE_PRIV_H
#define POSTERN_CONN_BEFORE_PRIV_H

#include <postern/buf.h>
#include <postern/client_hello.h>
#include <postern/conf.h>
#include <postern/conn.h>
#include <postern/net.h>
#include <postern/permissive.h>
#include <postern/snapshot.h>

struct conn;
struct conn_leg;

/* What a PROXY protocol header says: docs/proxy-protocol.md. */
struct conn_told {
    struct buf in; /* what came so far, later the TLVs that go on */
    bool done;
    struct net_addr via;         /* who said it; none: that is the source itself */
    struct net_addr destination; /* whom the source connected to; none: not told */
};

/* A client's first message, where the listener chooses by server name. */
struct conn_hello {
    struct client_hello_scan scan;
    struct buf in; /* what came so far; gone when it was handed on */
    struct client_hello said;
    bool done;
};

/* What a permissive port got first. */
struct conn_plain {
    uint8_t bytes[PERMISSIVE_BYTES]; /* not handed on yet */
    uint8_t n;
    bool done;     /* it is known what it is */
    bool unheard;  /* plaintext by silence, and the client has still said nothing */
    uint8_t class; /* enum permissive_class */
    uint16_t port; /* as the configuration knows it */
    struct permissive_visit visit;
};

struct conn_tunnel {
    struct buf in; /* the proxy's answer */
};

/* Where a connection goes by a listener's target and routes. */
struct conn_place {
    long route;                           /* of its `sni`; -1: none */
    const struct snapshot_target *target; /* NULL: not explicit */
    bool passthrough;
};

/* --- first.c ----------------------------------------------------------------------------------
 */
/* Zeroed memory of a reader, in its state, with what is left of the handshake's time. NULL: closed.
 */
void *conn_first_begin(struct conn *c, struct conn_leg *leg, enum conn_state state, size_t size);
/* Whether something may have come; that is used up then. */
bool conn_first_wanted(struct conn_leg *leg);
/* False: it waits, or is closed: more bytes are wanted than come. */
bool conn_first_got(struct conn *c, struct conn_leg *leg, enum stream_outcome o);
void conn_first_done(struct conn *c, struct conn_leg *leg);
/* What is left for the handshake. */
uint64_t conn_handshake_ms(const struct conn *c);

/* --- plain.c: plaintext beside mTLS (docs/permissive.md) ---------------------------------------
 */
/* Whether its first bytes have to be seen, before it is known what it is. */
bool conn_plain_wanted(const struct conn *c);
void conn_plain_start(struct conn *c);
void conn_plain_step(struct conn *c); /* FIRST_BYTES */
void conn_plain_timeout(struct conn *c);
/* What was read for it, to whoever reads on. */
struct str conn_plain_take(struct conn *c);
/* Of a pump: what its client said first. False: closed, it is TLS. */
bool conn_plain_heard(struct conn *c, const uint8_t *data, size_t n);
/* Whether plaintext, if it is that, would be taken still. */
bool conn_plain_holds(const struct conn *c);
/* It, or a request in it, was judged. */
void conn_plain_decided(struct conn *c, bool allowed);
/* It came with a certificate. */
void conn_plain_not(struct conn *c);
void conn_plain_free(struct conn *c);

/* --- told.c, hello.c, prelude.c, tunnel.c ------------------------------------------------------
 */
/* Whether it has to be read first, of whom this one speaks. */
bool conn_told_wanted(const struct conn *c);
void conn_told_start(struct conn *c);
void conn_told_step(struct conn *c);
void conn_told_timeout(struct conn *c);
void conn_told_free(struct conn *c);
struct conn_place conn_place_in(const struct conn *c, const struct snapshot_listener *l);
/* By the connection's snapshot: target and passthrough. */
void conn_place(struct conn *c);
bool conn_hello_wanted(const struct conn *c);
void conn_hello_start(struct conn *c);
void conn_hello_step(struct conn *c);
void conn_hello_free(struct conn *c);
/* What the target gets before the client's first byte; false: the leg failed. */
bool conn_prelude_send(struct conn *c, struct conn_leg *leg);
bool conn_tunnel_wanted(const struct conn *c);
/* STREAM_OK: it stands. STREAM_AGAIN: the leg is watched. STREAM_FAILED: there is none. */
enum stream_outcome conn_tunnel_start(struct conn *c, struct conn_leg *leg);
enum stream_outcome conn_tunnel_step(struct conn *c, struct conn_leg *leg);
void conn_tunnel_free(struct conn *c);

/* What the listener says of a port of the workload; NULL: nothing. */
const struct conf_port *conn_declared_port(const struct conf_listener *l, uint16_t port);

/* --- canary.c --------------------------------------------------------------------------------- */
/* Whether its original destination is a canary's: then it is noted and closed, or answered. */
bool conn_canary_took(struct conn *c);
void conn_asked_step(struct conn *c); /* ASKED */
/* Whether the empty line after an HTTP head is among these bytes; *at is 0 at first, and kept. */
bool conn_asked_whole(uint8_t *at, const uint8_t *p, size_t n);

#endif
