/*
 * What the files of conn share: the worker, the connection, and who does what.
 *
 *   worker.c    the thread, its mail, snapshots, drain          listener.c  accepting
 *   state.c     states, reasons, the one way out                inbound.c   mesh -> workload
 *   pump.c      bytes both ways                                 outbound.c  workload -> mesh
 *   leg.c       an end of a connection, of any kind             record.c    log lines
 *   tls_leg.c   handshakes of both sides                        expiry.c    the end of certificates
 *
 *   before_priv.h    what is read or said before it is known what a connection is
 *   reach_priv.h     connecting upstream: which endpoint, how many may
 *   carry_priv.h     connections as streams of others: session.c and more
 *   judge_priv.h     asking the policy, again after a change, and who is told
 *   requests_priv.h  what has requests: http.c, h2.c, and finding that out
 *   index_priv.h     who is connected (index_*.c)
 */
#ifndef POSTERN_CONN_PRIV_H
#define POSTERN_CONN_PRIV_H

#include <postern/conn.h>

#include "before_priv.h"
#include "carry_priv.h"
#include "expiry_priv.h"
#include "index_priv.h"
#include "judge_priv.h"
#include "reach_priv.h"
#include "requests_priv.h"
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
    uint64_t first_began_ms;       /* of the reader of first bytes, if there is one */
    uint32_t first_used_ms;        /* of the handshake's time, by all of them */
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
