/*
 * What the files of conn share: the worker, the connection, and who does what.
 *
 *   worker.c    the thread, its mail, snapshots, drain          listener.c  accepting
 *   state.c     states, reasons, the one way out                inbound.c   mesh -> workload
 *   pump.c      bytes both ways                                 outbound.c  workload -> mesh
 *   judge.c     asking the policy, again after a change         http.c      requests (http_*.c)
 *   record.c    log lines                                       dial.c      connecting upstream
 *   leg.c       an end of a connection, of any kind             rejudge.c   whom a change concerns
 *   h2.c        requests over HTTP/2 (h2_*.c)
 *   index.c     who is connected (index_*.c)                    expiry.c    the end of certificates
 *   tls_leg.c   handshakes of both sides                        hello.c     choosing by server name
 *   carry_priv.h: connections as streams of others: session.c and more
 *   prelude.c   before the first byte                           tunnel.c    HTTP CONNECT
 *   detect.c    which protocol an undeclared port carries       told.c      whom a peer speaks for
 *   audit.c     decisions for the audit log       plain.c     plaintext beside mTLS
 */
#ifndef POSTERN_CONN_PRIV_H
#define POSTERN_CONN_PRIV_H

#include <postern/conn.h>

#include "carry_priv.h"
#include "expiry_priv.h"
#include "index_priv.h"
#include <postern/denials.h>
#include <postern/hbone.h>
#include <postern/http1.h>
#include <postern/loop.h>
#include <pthread.h>

enum {
    CONN_HELD_MAX = 1024,      /* connections that a worker holds before the first identity */
    CONN_ACCEPT_BATCH = 32,    /* of one listener in one turn */
    CONN_LINGER_MS = 2000,     /* for the peer to read our last word */
    CONN_LINGER_BYTES = 65536, /* and what we read away meanwhile */
    CONN_DECISION_TEXT = 33,
    CONN_POOL_BUCKETS = 64,
    CONN_TRY_MS = 1000, /* that a connection waits for HBONE which it does not know to be there */
};

struct conn;

/* A worker's use of a snapshot. */
struct worker_snapshot {
    struct snapshot *snapshot; /* one atomic reference */
    unsigned uses;             /* connections, and the worker itself for the current one */
};

struct worker_listener {
    struct conn_worker *worker;
    size_t index; /* into snapshot.files.listeners */
    int fd;       /* owned */
    struct loop_io *io;
    char *activated; /* owned; the service manager's name for it; NULL: it did not open it */
};

struct learned;

/* http_pool.c */
struct http_kept;
struct http_pool {
    struct http_kept *newest, *oldest;
    size_t n;
    struct loop_timer timer;
};

struct conn_worker {
    unsigned index, n_workers;
    struct conn_shared *shared;
    pthread_t thread;
    bool started;
    struct loop *loop;
    struct log *log;
    struct conn_counters counters;
    struct net_scratch scratch;
    struct tls_worker tls;

    struct worker_snapshot *current;
    struct worker_listener
        *listeners; /* those of the files in order; a listener may have several */
    size_t n_listeners;
    bool accepting;                 /* listeners are watched */
    struct loop_timer accept_timer; /* on again, after a shortage */

    struct conn *conns; /* newest first */
    size_t n_conns, n_held;
    uint64_t next_id;
    struct learned *learned;           /* owned; who takes HBONE; NULL: nothing was learned */
    uint32_t dial_turn;                /* which address of several comes first */
    uint64_t random;                   /* for balance_random: chances, and no secrets */
    uint64_t retry_credit, retry_ms;   /* http_rate.c */
    struct http_pool kept;             /* connections to workloads, without a client */
    uint64_t limit_told_ms, n_limited; /* when a limit was last told of, and how often not */
    uint64_t decision_prefix, decision_count;
    struct permissive_book *book; /* owned */
    struct audit_ring *audit;     /* lent; NULL: decisions are not recorded */
    uint64_t audit_random;        /* for those that are sampled; never 0 */
    struct denials *denials;      /* owned; the last ones */

    struct live_index *live; /* owned: all connections, and who of them has to be looked at */
    struct loop_timer rejudge_timer;
    struct loop_timer resume_timer;               /* while held ones wait for their turn */
    struct conn_carrier *pool[CONN_POOL_BUCKETS]; /* outbound sessions, by address */
    uint64_t windows_grown;                       /* of all sessions: hbone.h */
    uint64_t full_told_ms;                        /* when a stream beyond the limit was told of */
    struct expiry_heap expiry;                    /* those that end with their certificates */
    struct expiry_clock expiry_clock;
    struct loop_timer expiry_timer; /* while there are any */
    struct loop_timer age_timer;    /* while there are connections with an end (ends_ms) */
    bool ageing;

    bool draining;   /* accepting goes on, answers say close */
    bool drain_last; /* inbound accepting has ended */
    struct loop_timer drain_timer;
    struct loop_timer quiet_timer;
    uint64_t drain_end_ms;
    _Atomic bool drained;
    uint64_t asked;            /* by main: signs of life that were asked for */
    _Atomic uint64_t answered; /* and the last one that was given */

    /* For HTTP, one of each a worker. */
    struct http1_request *request;
    struct claims_cache *claims; /* owned: tokens that it has verified */
    struct http1_response *response;
    struct buf emit; /* a head and what goes out with it */
};

/* What the bytes of a leg go through. */
enum conn_leg_kind {
    CONN_LEG_PLAIN,
    CONN_LEG_TLS,    /* of its own */
    CONN_LEG_STREAM, /* of a session; the TLS is that of the connection that carries it */
};

/* One end of a connection, with what watches it. */
struct conn_leg {
    union {
        struct stream s;
        struct tls_stream tls;  /* its base is s */
        struct hbone_stream hs; /* likewise */
    };
    struct loop_io *io; /* owned; goes before the stream */
    unsigned ready;     /* LOOP_*: became possible, not yet used */
    enum conn_leg_kind kind;
};

struct conn_http;
struct conn_http2;

/* A client's first message, where the listener chooses by server name. */
struct conn_hello {
    struct client_hello_scan scan;
    struct buf in; /* what came so far; gone when it was handed on */
    struct client_hello said;
    bool done;
    uint64_t took_ms;
};

/* What a PROXY protocol header says: docs/proxy-protocol.md. */
struct conn_told {
    struct buf in; /* what came so far, later the TLVs that go on */
    bool done;
    uint64_t took_ms;
    struct net_addr via;         /* who said it; none: that is the source itself */
    struct net_addr destination; /* whom the source connected to; none: not told */
};

/* What a permissive port got first. */
struct conn_plain {
    uint8_t bytes[PERMISSIVE_BYTES]; /* not handed on yet */
    uint8_t n;
    bool done;     /* it is known what it is */
    bool unheard;  /* plaintext by silence, and the client has still said nothing */
    uint8_t class; /* enum permissive_class */
    uint16_t port; /* as the configuration knows it */
    uint64_t took_ms;
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

/* Which endpoints a connection has tried, and where it is counted. */
struct conn_balance {
    struct balance_endpoint *tried[BALANCE_TRIES_MAX]; /* the last is the one in use; references */
    uint8_t n_tried, n_services;
    bool told; /* how the last one turned out */
    bool in_use;
    struct balance_service *services[SNAPSHOT_SETS_MAX]; /* taken */
};

/* What a refusal says in the log. */
struct conn_denial {
    char decision[CONN_DECISION_TEXT];
    char near_miss[240];
};

struct conn {
    struct conn_worker *worker;
    struct conn *prev, *next;
    struct loop_deferred free_later;
    struct loop_timer timer; /* of the state; while pumping, of idleness */
    uint64_t number;         /* with the worker's index, the connection's id */
    enum conn_state state;
    enum conf_direction direction;
    enum conf_protocol protocol;
    size_t listener; /* index */

    struct worker_snapshot *snap;
    const struct snapshot_target *target; /* explicit; lent by snap; NULL: upstream is all */
    const struct route *route;            /* outbound; lent by snap; NULL: passthrough */
    const struct route_pass *pass;        /* outbound without a route; lent by snap */
    enum conf_transport transport;        /* outbound; of a relay, onwards */

    struct net_addr source;   /* who opened it */
    struct net_addr original; /* where that one wanted to go; none: a target without address */
    struct net_addr upstream; /* what we dial; none: the target's path */

    struct conn_leg app;  /* the workload's side: plain; of a relay its upstream: TLS */
    struct conn_leg peer; /* the mesh's side: TLS, or plain by name */

    struct policy_verdict verdict; /* of the connection; if it allows, rule is lent by the index */
    uint8_t transport_why;         /* enum conn_why; NONE: nothing was to be chosen */
    bool judged;
    uint8_t proxy_protocol; /* enum conf_proxy_protocol: what the workload gets first */
    bool undeclared;        /* inbound, and its port is not declared: how it is judged depends */
    bool detecting;         /* pumps, and what it carries is looked at */
    struct detect_race race;
    bool relay;       /* inbound, and TLS upstream */
    bool passthrough; /* inbound, and not terminated here */
    bool plaintext;   /* inbound, by a permissive port: its peer is nobody */
    uint8_t dial_left, dial_at, dial_tried;
    uint64_t dial_end_ms, tries_end_ms; /* of connecting; of that and handshakes, wherever */
    struct conn_told *told;             /* owned; of those who say whom they speak for */
    struct conn_hello *hello;           /* owned; of listeners that choose by name */
    struct conn_plain *plain;           /* owned; of those to a permissive port */
    struct conn_tunnel *tunnel;         /* owned; of those that ask a proxy */
    struct conn_carrier *carrier;       /* owned; of one that carries streams */
    struct conn_ride via;               /* whose stream it is; outbound: or will be */
    struct conn_onward *onward;         /* owned; of a relay by HBONE: likewise, to its next hop */
    struct conn_early *early;           /* owned; until its stream is answered */
    struct conn_denial *denial;         /* owned; of a connection that was denied */
    struct conn_balance *balance;       /* owned; outbound to a service with endpoints or a limit */
    uint32_t limit_place;               /* inbound; of its identity, with limits for one; 0: none */
    enum conn_reason reason;
    bool closing;         /* reason is set */
    bool resume;          /* held, and what it waits for may have come */
    bool uncounted;       /* of a listener's connections: a session that it dials itself */
    bool upgraded;        /* pumps what an HTTP upgrade switched to */
    uint8_t asked;        /* of the empty line that it waits for: what came */
    bool stream_again;    /* its stream was refused unseen once, and tried again */
    uint16_t peer_status; /* that refused its stream; 0: none did */
    uint32_t linger_bytes;
    int sys_errno;
    uint64_t opened_ms, active_ms;
    uint64_t ends_ms;              /* by its listener's limits.lifetime; 0: never */
    struct expiry expiry;          /* of its certificates */
    uint32_t live;                 /* its place in the index */
    bool known;                    /* the index knows its peer */
    uint64_t up_bytes, down_bytes; /* already counted */
    struct conn_http *http;        /* owned; protocol http only */
    struct conn_http2 *h2;         /* owned; likewise, of a client that speaks HTTP/2 */
};

static inline const struct snapshot *conn_snapshot(const struct conn *c)
{
    return c->snap->snapshot;
}
static inline const struct conf_proxy *conn_conf(const struct conn *c)
{
    return c->snap->snapshot->files->conf;
}
/* Who is quarantined; lent by the snapshot; NULL: nobody. */
static inline const struct deny_set *conn_deny(const struct conn *c)
{
    const struct snapshot *s = c->snap->snapshot;
    return s->state != NULL ? s->state->deny : NULL;
}
/* The side that opened it, and the other. */
static inline struct conn_leg *conn_downstream(struct conn *c)
{
    return c->direction == CONF_INBOUND ? &c->peer : &c->app;
}
static inline struct conn_leg *conn_upstream(struct conn *c)
{
    return c->direction == CONF_INBOUND ? &c->app : &c->peer;
}
static inline const struct snapshot_listener *conn_listener(const struct conn *c)
{
    return &c->snap->snapshot->files->listeners[c->listener];
}
/* Where it goes on to, and who has to be there; NULL: nothing says that. */
static inline const struct route *conn_route(const struct conn *c)
{
    return c->relay ? conn_listener(c)->explicit_route : c->route;
}
static inline struct conn_leg *conn_other(struct conn *c, const struct conn_leg *leg)
{
    return leg == &c->app ? &c->peer : &c->app;
}

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    /* One writer: no locked instruction is needed. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* --- state.c ---------------------------------------------------------------------------------- */
/* Takes fd; -1: it has none yet. NULL: no memory, fd is gone. The connection is in state NEW and on
 * the worker's list.
 */
struct conn *conn_new(struct conn_worker *w, size_t listener, int fd,
                      const struct net_addr *source);
/* A session that the process dials itself, for connections of this listener. */
struct conn *conn_new_session(struct conn_worker *w, size_t listener);
/* Checks the edge, stops the timer of the old state, counts, traces. */
void conn_set_state(struct conn *c, enum conn_state next);
/* The one way out; may be called again, and the first reason stays. The connection is no more
 * usable: it is freed at the end of the turn. */
void conn_close(struct conn *c, enum conn_reason reason);
/* The same, at once: no last word is waited for. */
void conn_cut(struct conn *c, enum conn_reason reason);
/* Forgets the old use and takes the worker's current snapshot. */
void conn_use_current(struct conn *c);
void conn_release_snapshot(struct conn_worker *w, struct worker_snapshot *s);

/* The driver: runs the connection's state until it has to wait. Called with what became ready. */
void conn_drive(struct conn *c);
void conn_linger_step(struct conn *c);

/* --- leg.c -------------------------------------------------------------------------------------
 * Whatever its kind. Readiness comes as LOOP_* in leg->ready and a call of conn_drive. */
/* Before anything is wanted of it; false: no memory (what is open is the leg's in any case). */
bool conn_leg_watch(struct conn *c, struct conn_leg *leg);
/* What is wanted of each side, by state; called after every step. */
void conn_leg_want(struct conn_leg *leg, unsigned events);
void conn_leg_close(struct conn_leg *leg, bool reset);
/* The same; unless it is reset TLS is ended in order. */
void conn_leg_end(struct conn_leg *leg, bool reset);
/* The TLS that its bytes go through; NULL: none. Lent. */
const struct tls_stream *conn_leg_tls(const struct conn_leg *leg);
/* Who was verified at its other end; NULL: nobody (yet). Lent, while the leg is open. */
const struct tls_peer *conn_leg_peer(const struct conn_leg *leg);

/* --- tls_leg.c ---------------------------------------------------------------------------------
 */
/* What a side of the connection goes by, by this snapshot; NULL: it has not come yet. Lent. */
const struct tls_party *conn_party(const struct conn *c, const struct snapshot *s, bool upstream);
/* Begins TLS on a leg that is connected. False: the connection is closed. */
bool conn_tls_accept(struct conn *c, struct conn_leg *leg);
bool conn_tls_connect(struct conn *c, struct conn_leg *leg);
/* What a stream that shakes hands goes by, by the connection's snapshot. False: that was withdrawn.
 */
bool conn_tls_rebase(struct conn *c, struct conn_leg *leg);
/* One step of a handshake. STREAM_AGAIN: the leg is watched for what it waits for. */
enum stream_outcome conn_tls_step(struct conn *c, struct conn_leg *leg);
/* Whether the peer of a leg, if it has one, would be let in by the connection's snapshot too. */
bool conn_tls_holds(struct conn *c, const struct conn_leg *leg);

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
/* What is left for the handshake. */
uint64_t conn_handshake_ms(const struct conn *c);
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

/* --- inbound.c, outbound.c -------------------------------------------------------------------- */
void conn_inbound_start(struct conn *c);
void conn_inbound_handshake(struct conn *c);
/* The workload, or a relay's next hop, directly. */
void conn_inbound_dial(struct conn *c);
void conn_inbound_step(struct conn *c); /* HANDSHAKE, DIAL, UPSTREAM_HANDSHAKE */
void conn_outbound_start(struct conn *c);
void conn_outbound_step(struct conn *c); /* DIAL, HANDSHAKE */
/* Waits for what the agent has to say first, or says no. True: it is there. */
bool conn_hold(struct conn *c, bool for_identity);
/* Whether there is all that its handshakes need. */
bool conn_has_identity(const struct conn *c);
/* The same, or it needs none. */
bool conn_identity_there(const struct conn *c);
/* After a change: those that were held are looked at again, some a turn. */
void conn_resume_held(struct conn_worker *w);
void worker_resume_some(void *worker);
/* One of them, at once. */
void conn_resume(struct conn *c);
/* One step of a handshake: true when it is done. False: it waits, or the connection is closed. */
bool conn_handshake(struct conn *c);
/* The peer is known: may it, and on. */
void conn_inbound_verified(struct conn *c);
/* By itself, and not by its requests: may it, and on. */
void conn_inbound_judge(struct conn *c);
/* What is declared of the port that it wants; false: closed, it is one of our own. */
bool conn_find_port(struct conn *c);
/* Connects to `upstream`, and shakes hands there. */
void conn_outbound_dial(struct conn *c);
/* Its handshake failed, or took too long: false if nobody else can be asked, else it goes on (or is
 * closed). */
bool conn_outbound_another(struct conn *c);
bool conn_inbound_another(struct conn *c); /* likewise, a relay's with its next hop */

/* --- pump.c ----------------------------------------------------------------------------------- */
void conn_pump_start(struct conn *c);
void conn_pump_step(struct conn *c);
/* What the streams have moved since the last time, into the counters. */
void conn_count_bytes(struct conn *c);

/* --- detect.c ----------------------------------------------------------------------------------
 * What a port carries that nobody declared: docs/detection.md. */
/* Whether it has to be found out before anything is judged. */
bool conn_detect_wanted(const struct conn *c);
void conn_detect_start(struct conn *c);
void conn_detect_step(struct conn *c); /* DETECT */
void conn_detect_timeout(struct conn *c);
/* After a change: if the policy speaks of requests no more, it is a connection like any other, and
 * what it has said so far goes first. It may be closed afterwards. */
void conn_detect_review(struct conn *c);
/* What is declared needs no finding out. */
void conn_detect_declared(struct conn *c);
/* Of a pump with c->detecting: what was read from one side. */
void conn_detect_look(struct conn *c, const struct conn_leg *from, const uint8_t *data, size_t n);
/* It ends: whatever was not found out counts as such. */
void conn_detect_end(struct conn *c);
/* False: it was judged as a connection, and would not be any more. */
bool conn_detect_holds(const struct conn *c);

/* --- judge.c ---------------------------------------------------------------------------------- */
/* For what is said of a refusal; NULL: no memory. Lent. */
struct conn_denial *conn_denial_new(struct conn *c);
/* The connection by itself; fills verdict, and for a denial decision and near miss. */
bool conn_judge(struct conn *c);
void conn_decision_new(struct conn_worker *w, char ret_text[CONN_DECISION_TEXT]);
struct str conn_peer_id(const struct conn *c);
/* Of a relay: who answered upstream. */
struct str conn_upstream_id(const struct conn *c);
struct str conn_own_id(const struct conn *c);
/* The port that policies speak of. Of a target that has none it is the listener's. */
uint16_t conn_port(const struct conn *c);
/* The address likewise; NULL: it has none. */
const struct sockaddr *conn_source(const struct conn *c);
/* Whether its peer, as far as it is known, or this process itself is quarantined. */
bool conn_quarantined(const struct conn *c);
/* After a change: moves it to the current snapshot. CONN_CLOSE_DONE if it may stay, else why not.
 */
enum conn_reason conn_rejudge(struct conn *c);
/* The same of one that the change does not concern. False: it has to be judged all the same. */
bool conn_move(struct conn *c);

/* --- audit.c ----------------------------------------------------------------------------------
 * A decision for the audit log, where there is one. Each is called once a decision, when it is
 * made.
 */
struct conn_audit {
    const struct policy_verdict *verdict; /* NULL: a denial without one */
    const char *protocol;                 /* "tcp", "http1", "http2" */
    struct str method, host, path;        /* of a request, as judged */
    char *decision;                       /* CONN_DECISION_TEXT; made and filled in if it is empty
                                           * and the decision is recorded; NULL: nobody's */
    const char *near_miss;                /* of a denial; NULL: not known */
    const char *reason;                   /* NULL: the verdict's */
    bool ended;                           /* it was allowed, and is ended after a change */
    bool refused;                         /* the verdict allows it, and something else says no:
                                           * `reason` */
};
/* By c->verdict and c->denial; reason NULL: the verdict's. */
void conn_audit_connection(struct conn *c, const char *reason);
void conn_audit_request(struct conn *c, const struct conn_audit *a);
/* It was allowed, and is ended after a change. */
void conn_audit_ended(struct conn *c, enum conn_reason reason);

/* --- denied.c ----------------------------------------------------------------------------------
 * A denial, kept for whoever asks why (docs/policy-tools.md): what rules ask about, and no
 * credentials. */
struct conn_denied {
    const struct policy_query *query;
    const struct policy_verdict *verdict;
    char *decision;       /* CONN_DECISION_TEXT; made if it is empty */
    const char *protocol; /* "tcp", "http1", "http2" */
    const char *reason;   /* NULL: the verdict's */
    bool other_reading;   /* its path is the second one */
};
void conn_denied(struct conn *c, const struct conn_denied *d);
/* A request, and where its outcome goes. */
struct conn_question {
    struct policy_query *query;
    struct str other_path; /* a second reading of its path; n 0: there is none */
    const char *protocol;
    struct policy_verdict *verdict;
    char *decision;  /* CONN_DECISION_TEXT; made if it is empty and the answer is no */
    char *near_miss; /* what would have allowed it but for a clause, or "" */
    size_t near_miss_size;
};
/* A path that has a second reading has to be allowed by both. A denial is kept. */
bool conn_judge_request(struct conn *c, const struct conn_question *ask);
/* The word for a verdict in logs. */
const char *conn_verdict_word(const struct policy_verdict *v);

/* --- rejudge.c -------------------------------------------------------------------------------- */
/* Its peer is known (again): for the index, and the end of the certificates. */
void conn_live_known(struct conn *c);
/* It is allowed, and by what. */
void conn_live_allowed(struct conn *c);
/* Before what it does next is decided: by what holds now. False: it is closed. */
bool conn_catch_up(struct conn *c);
/* Marks whom it concerns; c NULL, or not of the snapshot `since`: all. */
void live_mark_change(struct live_index *x, const struct snapshot_change *c, uint64_t since);
/* After the current snapshot has become another one than that of generation `since`. */
void worker_concern(struct conn_worker *w, uint64_t since);
/* A millisecond's, and no more cuts than that: each is two resets and a line. */
enum { CONN_CUTS_A_TURN = 64 };
void worker_rejudge(void *worker);

/* --- expiry.c --------------------------------------------------------------------------------- */
void conn_expiry_begin(struct conn *c);
void conn_expiry_end(struct conn *c);
void conn_expiry_record(struct log_line *l, const struct conn *c);
void worker_expiry_tick(void *worker);
/* Answers say `Connection: close` from now on. */
static inline bool conn_drains(const struct conn *c)
{
    return c->worker->draining || c->expiry.draining;
}

/* --- record.c --------------------------------------------------------------------------------- */
void conn_record_close(struct conn *c);
void conn_record_handshake(struct conn *c, const struct conn_leg *leg, const char *step,
                           const struct err *err);
void conn_record_handshake_timeout(struct conn *c, const struct conn_leg *leg);
void conn_record_common(struct log_line *l, const struct conn *c);
/* What a session's peer did wrong. */
void conn_record_session(struct conn *c, const char *step);
/* It takes no new streams; by whom. */
void conn_record_leave(struct conn *c, const char *by);

/* --- http.c ----------------------------------------------------------------------------------- */
bool conn_http_start(struct conn *c); /* false: no memory */
void conn_http_step(struct conn *c);
void conn_http_timeout(struct conn *c);
/* False: the request in flight is no longer allowed. */
bool conn_http_rejudge(struct conn *c);
/* The worker drains: no further request on this connection. */
void conn_http_drain(struct conn *c);
void conn_http_free(struct conn *c);
/* It closes, for c->reason: what it has of the workload may be of use to others. */
void conn_http_leave(struct conn *c);
void http_pool_init(struct conn_worker *w);
void http_pool_flush(struct conn_worker *w);

/* --- h2.c: HTTP/2 (docs/http2.md) --------------------------------------------------------------
 */
/* Whether it was agreed on; whether the preface of it may come unasked. */
bool conn_h2_wanted(const struct conn *c);
bool conn_h2_may_follow(const struct conn *c);
/* With what was read already. It may be closed afterwards. */
void conn_h2_start(struct conn *c, const uint8_t *p, size_t n);
/* The same, with what the reader of HTTP/1.1 has kept; that one is gone then. */
void conn_h2_from_http(struct conn *c);
void conn_h2_step(struct conn *c);
void conn_h2_timeout(struct conn *c);
/* Streams in flight that are no longer allowed are ended: true. */
bool conn_h2_rejudge(struct conn *c);
/* Says GOAWAY after that time, and ends with its last stream. */
void conn_h2_drain(struct conn *c, uint64_t delay_ms);
/* It closes: what is in flight is told of. */
void conn_h2_end(struct conn *c, enum conn_reason reason);
void conn_h2_free(struct conn *c);

/* --- worker.c, listener.c --------------------------------------------------------------------- */
void worker_conn_gone(struct conn_worker *w);
/* Looks now and then whether a connection has come to the end of its lifetime. */
void worker_watch_age(struct conn_worker *w);
int listener_open_all(struct conn_worker *w, const struct snapshot_files *files,
                      const struct service_sockets *inherited, struct err *err);
void listener_free_all(struct conn_worker *w);
void listener_watch_all(struct conn_worker *w, bool on);
/* Whether there are as many connections as the process may have. */
bool listener_is_full(const struct conn_worker *w);
/* As many as this one may have (limits.connections of a gateway's). */
bool listener_has_all(const struct conn_worker *w, size_t listener);
enum listener_which { LISTENERS_ALL, LISTENERS_INBOUND, LISTENERS_ACTIVATED };
void listener_close(struct conn_worker *w, enum listener_which which);

#endif
