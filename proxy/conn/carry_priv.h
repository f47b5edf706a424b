/*
 * Connections that go as streams of others (docs/hbone.md), part of conn_priv.h:
 *
 *   session.c    a connection that carries streams       stream.c   one that is a stream
 *   pool.c       which session a stream takes            transport.c  direct or HBONE, and why
 *   learned.c    who takes HBONE                      early.c    bytes before its answer
 *   onward.c     what becomes of a relay's way on by a session, where it carries requests
 */
#ifndef POSTERN_CONN_CARRY_PRIV_H
#define POSTERN_CONN_CARRY_PRIV_H

#include <postern/conn.h>
#include <postern/hbone.h>
#include <postern/loop.h>

struct conn;
struct conn_carrier;

/* A connection's place among those that a session carries, or will carry. */
struct conn_ride {
    struct conn *conn;
    struct conn_carrier *of; /* NULL: it has no session */
    struct conn_ride *prev, *next;
};

/* What has become of it, where requests go on by it. */
enum conn_onward_news {
    ONWARD_NO_NEWS,
    ONWARD_FAILED,   /* it does not come to be */
    ONWARD_DIRECTLY, /* there is no session where it leads, and it may go without */
    ONWARD_LOST,     /* it stood */
};

/* A relay's way on, to its next hop. */
struct conn_onward {
    struct conn_ride ride;
    struct conn *conn;
    struct loop_deferred told; /* news are looked at when nobody else works with the connection */
    enum conn_onward_news news;
    enum conn_reason why; /* of ONWARD_FAILED */
};

/* What a connection has that carries others. */
struct conn_carrier {
    struct conn *conn;
    struct hbone_session *hbone; /* owned; NULL: it does not stand yet */
    struct loop_deferred turn;
    struct conn_ride *users; /* those that are its streams, or wait to be */
    size_t n_users;
    size_t n_counted; /* of these, at their identity's limits */
    uint64_t total;   /* of them, ever */
    uint64_t idle_since_ms;
    uint64_t leave_ms; /* when the next GOAWAY is due; 0: none is */
    uint8_t leaving;   /* how many were said */
    bool idle;         /* it leaves since it had no streams */
    bool told;         /* what the try of it has shown */
    /* Outbound: its place in the pool. */
    bool pooled;
    struct conn_carrier *pool_prev, *pool_next;
    struct tls_party *party; /* a reference: what it was made by */
    struct route route;      /* with identities of its own */
};

/* --- session.c ---------------------------------------------------------------------------------
 */
struct conn_carrier *conn_carrier_new(struct conn *c); /* NULL: no memory */
/* Its streams end, and its session. */
void conn_carrier_end(struct conn *c, enum conn_reason reason);
void conn_carrier_free(struct conn *c);
void conn_ride_begin(struct conn *c, struct conn_ride *r, struct conn_carrier *k);
/* Takes one that has none. */
void conn_ride_end(struct conn_ride *r);
/* After its handshake. */
void conn_session_start(struct conn *c);
void conn_session_step(struct conn *c);
void conn_session_tick(struct conn *c);
/* Says GOAWAY after that time, and ends with its last stream. */
void conn_session_leave(struct conn *c, uint64_t delay_ms);
/* All of them; inbound ones spread over the time, so that their peers do not come back at once. */
void worker_sessions_drain(struct conn_worker *w, uint32_t spread_ms);

/* --- stream.c ----------------------------------------------------------------------------------
 */
bool conn_is_stream(const struct conn *c);
void conn_stream_new(struct conn *carrier, int32_t id, struct str authority);
void conn_stream_start(struct conn *c);
/* 200, if it is one that waits for it. */
void conn_stream_answer(struct conn *c);
/* It closes: another status, by its reason, if it was not answered. */
void conn_stream_refuse(struct conn *c);
/* The rest: a way on by a session, of outbound connections and of relays. */
struct conn_ride *conn_ride_on(struct conn *c);
void conn_opening_start(struct conn *c);
void conn_opening_begin(struct conn *c);
void conn_opening_step(struct conn *c);
void conn_opening_timeout(struct conn *c);
/* There is no session for it. True: it goes another way. */
bool conn_opening_fall_back(struct conn *c, enum conn_why outcome);
/* Its session to an endpoint did not come to be: true if it waits for one to another. */
bool conn_opening_again(struct conn *c, enum conn_reason reason);
/* Its session is lost before its answer: true if another is asked, once. Not if bytes of the
 * application may have been read. */
bool conn_opening_lost(struct conn *c);

/* --- onward.c ----------------------------------------------------------------------------------
 * A connection is its one way on, and ends with it. Requests want a way on as they come, and what
 * becomes of it is an answer to them. */
/* When a relay is to go on: true: by a session. False: directly; or, unless *ret_why is DONE, it
 * cannot, or is closed. */
bool conn_onward_by_session(struct conn *c, enum conn_reason *ret_why);
/* NULL: no memory. */
struct conn_onward *conn_onward_new(struct conn *c);
/* Whether its stream is being asked for. */
bool conn_onward_is_sought(const struct conn *c);
/* How long that may take from now on. */
void conn_onward_deadline(struct conn *c, uint64_t ms);
/* What became of it. The connection may be closed afterwards. */
void conn_onward_stands(struct conn *c);
void conn_onward_directly(struct conn *c);
void conn_onward_failed(struct conn *c, enum conn_reason why);
/* Its session has ended: true if that is not the end of the connection. */
bool conn_onward_survives(struct conn *c, enum conn_reason why);
/* It is given up. Takes one that has none. */
void conn_onward_leave(struct conn *c);
/* The two that carry requests, http_upstream.c and h2_upstream.c: whether it is being asked for,
 * how long that may take, that it stands, and news. */
bool conn_http_seeks_onward(const struct conn *c);
void conn_http_onward_ms(struct conn *c, uint64_t ms);
void conn_http_onward_stands(struct conn *c);
void conn_http_onward(struct conn *c, enum conn_onward_news news, enum conn_reason why);
bool conn_h2_seeks_onward(const struct conn *c);
void conn_h2_onward_ms(struct conn *c, uint64_t ms);
void conn_h2_onward_stands(struct conn *c);
void conn_h2_onward(struct conn *c, enum conn_onward_news news, enum conn_reason why);

/* --- early.c ----------------------------------------------------------------------------------
 */
/* Its stream has been asked for, or asked for again. False: that failed. */
bool conn_early_begin(struct conn *c);
/* After an event, while the answer has not come. The connection may be closed afterwards. */
void conn_early_step(struct conn *c);
/* Inbound, of one that was read before it was known where it goes: what goes first. */
bool conn_early_keep(struct conn *c, const uint8_t *p, size_t n); /* false: no memory */
struct str conn_early_kept(const struct conn *c);
/* Whether bytes of the application went out. */
bool conn_early_said(const struct conn *c);
void conn_early_free(struct conn *c);

/* --- pool.c ------------------------------------------------------------------------------------
 */
/* Finds or makes the session by which a connection goes on. It may be closed afterwards. */
void pool_take(struct conn *c);
void pool_remove(struct conn_carrier *k);
/* Whether it would still be taken. */
bool pool_is_current(const struct conn_carrier *k);
void pool_route_deinit(struct route *r);

/* --- transport.c ------------------------------------------------------------------------------
 */
/* By its route, and what was learned of where it goes (upstream): transport and transport_why. */
void conn_transport_choose(struct conn *c);
/* How long it may wait for a session that is not known to come to be; 0: as long as any handshake
 * may take. After that: conn_transport_fall_back(c, CONN_WHY_SILENT). */
uint32_t conn_transport_try_ms(const struct conn *c);
/* There is no HBONE where it goes: REFUSED, SILENT or NOT_HBONE (no TLS, or not h2). True: it goes
 * on directly instead. False: its route takes HBONE only. Never to be called when somebody was
 * there who is not the expected peer, or who refused us or the stream: that is an answer. */
bool conn_transport_fall_back(struct conn *c, enum conn_why outcome);
/* What a try has shown of address and HBONE port: TRIED: a CONNECT was answered there (with
 * whatever status); else as above. */
void conn_transport_tell(struct conn_worker *w, const struct net_addr *at, enum conn_why outcome);
/* It carries bytes from now on. */
void conn_transport_count(struct conn *c);
/* What the log says; NULL: nothing. */
const char *conn_transport_text(const struct conn *c);
/* Of a relay, by which it goes on. */
const char *conn_transport_onward_text(const struct conn *c);

#endif
