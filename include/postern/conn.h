/*
 * conn: the life of connections. A worker is a thread with a loop, listening sockets, connections,
 * counters and a log ring of its own; this header is what the main thread may do with one.
 *
 * Made and started by the main thread; after conn_worker_start only the functions that say so may
 * be called while it runs. Nothing on a worker takes a lock or blocks.
 */
#ifndef POSTERN_CONN_H
#define POSTERN_CONN_H

#include <postern/audit.h>
#include <postern/detect.h>
#include <postern/err.h>
#include <postern/limit.h>
#include <postern/log.h>
#include <postern/permissive.h>
#include <postern/rate.h>
#include <postern/service_manager.h>
#include <postern/snapshot.h>
#include <postern/tls.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- states and ends, as tables ----------------------------------------------------------------
 */

/* name, what happens in it */
#define CONN_STATES(X)                                                                             \
    X(NEW, "new")                   /* accepted, nothing decided */                                \
    X(PROXY_HEADER, "proxy_header") /* reads a header that says whom the peer speaks for */        \
    X(FIRST_BYTES, "first_bytes")   /* of a permissive port: waits whether TLS comes */            \
    X(HELLO, "hello")               /* reads the client's first message, to choose by its name */  \
    X(HELD, "held")                 /* waits for the first identity */                             \
    X(ASKED, "asked")               /* reads until it may say whether the proxy is ready */        \
    X(DIAL, "dial")                 /* connects to the next hop */                                 \
    X(TUNNEL, "tunnel")             /* asks an HTTP proxy for a way on */                          \
    X(HANDSHAKE, "handshake")       /* TLS with the peer */                                        \
    X(SESSION, "session")           /* carries streams, each a connection */                       \
    X(OPENING, "opening")           /* is, or will be, a stream that was not answered */           \
    X(UPSTREAM_HANDSHAKE, "upstream_handshake") /* of a relay: TLS with the next hop */            \
    X(DETECT, "detect")                         /* reads whether a request comes */                \
    X(HTTP, "http")                             /* requests, one after the other */                \
    X(HTTP2, "http2")                           /* requests, each a stream */                      \
    X(PUMP, "pump")                             /* bytes both ways */                              \
    X(LINGER, "linger")                         /* said why, waits for the peer to have read it */ \
    X(CLOSED, "closed")                         /* freed at the end of the turn */

enum conn_state {
#define CONN_STATE_ENUM(name, text) CONN_##name,
    CONN_STATES(CONN_STATE_ENUM)
#undef CONN_STATE_ENUM
        CONN_STATE_COUNT
};
const char *conn_state_name(enum conn_state s);
/* Whether there is an edge. Nothing leads back to NEW, nothing leaves CLOSED. */
bool conn_state_may_follow(enum conn_state from, enum conn_state to);

/* How the end looks to both sides: in order, by reset, or in order after a last word. */
enum conn_end { CONN_END_ORDER, CONN_END_RESET, CONN_END_LINGER };

/* name, token for logs and counters, how it ends, level of its line, text for people */
#define CONN_REASONS(X)                                                                            \
    X(DONE, "done", ORDER, INFO, "both sides ended it")                                            \
    X(DOWNSTREAM_RESET, "downstream_reset", RESET, INFO, "the side that opened it reset it")       \
    X(UPSTREAM_RESET, "upstream_reset", RESET, INFO, "the side that was called reset it")          \
    X(TRUNCATED, "truncated", RESET, WARN, "TCP ended without the end of TLS")                     \
    X(DENIED, "policy_denied", RESET, WARN, "the policy does not allow it")                        \
    X(NOT_HTTP, "not_http", RESET, WARN,                                                           \
      "the policy judges by request on this port, and what came is no HTTP")                       \
    X(PROTOCOL_UNKNOWN, "protocol_unknown", RESET, WARN,                                           \
      "the policy judges by request on this port, and no request came in time")                    \
    X(POLICY_CHANGED, "policy_changed", RESET, WARN, "no longer allowed after a change")           \
    X(TRUST_CHANGED, "trust_changed", RESET, WARN, "its peer is no longer vouched for")            \
    X(ROUTE_CHANGED, "route_changed", RESET, WARN, "its route no longer leads to this peer")       \
    X(UNLISTED, "unlisted", RESET, WARN, "the destination is not in the mesh map")                 \
    X(NOT_REDIRECTED, "not_redirected", RESET, WARN,                                               \
      "made to the listener itself and not brought by the kernel's redirection")                   \
    X(LOOPBACK, "loopback", RESET, WARN,                                                           \
      "the destination is one of loopback's, which nobody named")                                  \
    X(LOOP, "loop", RESET, WARN, "the destination is a listener of this proxy")                    \
    X(HANDSHAKE_FAILED, "handshake_failed", LINGER, WARN, "the TLS handshake failed")              \
    X(HANDSHAKE_TIMEOUT, "handshake_timeout", RESET, WARN, "no TLS handshake in time")             \
    X(UPSTREAM_HANDSHAKE_FAILED, "upstream_handshake_failed", RESET, WARN,                         \
      "the TLS handshake with the next hop failed")                                                \
    X(UPSTREAM_HANDSHAKE_TIMEOUT, "upstream_handshake_timeout", RESET, WARN,                       \
      "no TLS handshake with the next hop in time")                                                \
    X(CONNECT_REFUSED, "connect_refused", RESET, WARN, "the next hop refused the connection")      \
    X(CONNECT_FAILED, "connect_failed", RESET, WARN, "the next hop cannot be reached")             \
    X(CONNECT_TIMEOUT, "connect_timeout", RESET, WARN, "the next hop did not answer in time")      \
    X(NO_IDENTITY, "no_identity", RESET, WARN, "there is no identity yet, and it waited its time") \
    X(NO_ADDRESS, "no_address", RESET, WARN,                                                       \
      "the target's name has no address yet, and it waited its time")                              \
    X(BAD_PROXY_HEADER, "bad_proxy_header", RESET, WARN,                                           \
      "it comes from who has to say whom it speaks for, and did not")                              \
    X(TLS_TOO_LATE, "tls_too_late", RESET, WARN,                                                   \
      "it said nothing for so long that it was taken for plaintext, and then TLS came")            \
    X(BAD_HELLO, "bad_hello", RESET, WARN, "what came is no TLS that could be read")               \
    X(NO_SNI_ROUTE, "no_sni_route", RESET, WARN,                                                   \
      "no route is for the server name that it asks for")                                          \
    X(TUNNEL_REFUSED, "tunnel_refused", RESET, WARN, "the HTTP proxy gave no tunnel")              \
    X(NO_STATE, "no_state", RESET, WARN,                                                           \
      "the agent has not told yet what is allowed, and it waited its time")                        \
    X(QUARANTINED, "quarantined", RESET, WARN, "its peer, or this proxy itself, is quarantined")   \
    X(HOLD_LIMIT, "hold_limit", RESET, WARN, "there is no identity yet, and too many wait")        \
    X(DESTINATION_LIMIT, "destination_limit", RESET, INFO,                                         \
      "the service has as many connections as this proxy may open")                                \
    X(IDENTITY_LIMIT, "identity_limit", RESET, INFO,                                               \
      "its peer's identity has as many connections as one may have")                               \
    X(IDENTITY_RATE, "identity_rate", RESET, INFO,                                                 \
      "its peer's identity opens connections faster than one may")                                 \
    X(LIFETIME, "lifetime", ORDER, INFO, "it was open for as long as its listener lets one be")    \
    X(CERTIFICATE_EXPIRED, "certificate_expired", RESET, INFO,                                     \
      "the certificates that it was made under end")                                               \
    X(CANARY, "canary", ORDER, DEBUG, "made to see whether it is captured: it is")                 \
    X(IDLE, "idle", ORDER, INFO, "nothing happened for the idle time")                             \
    X(BAD_REQUEST, "bad_request", LINGER, WARN, "what came is not acceptable HTTP/1.1")            \
    X(BAD_HTTP2, "bad_http2", LINGER, WARN, "what came is not acceptable HTTP/2")                  \
    X(REQUEST_TIMEOUT, "request_timeout", LINGER, INFO, "no whole request head in time")           \
    X(BAD_RESPONSE, "bad_response", LINGER, WARN, "the workload's answer was not usable")          \
    X(ANSWERED, "answered", LINGER, INFO, "closed after an answer that ends the connection")       \
    X(DRAINED, "drained", RESET, INFO, "still open when the drain time was over")                  \
    X(STOPPED, "stopped", RESET, INFO, "the proxy stopped")                                        \
    X(BAD_AUTHORITY, "bad_authority", RESET, WARN,                                                 \
      "the stream asks for another address than its session was made to")                          \
    X(STREAM_REFUSED, "stream_refused", RESET, WARN, "the other proxy refused the stream")         \
    X(SESSION_LOST, "session_lost", RESET, WARN, "the session that carried it is gone")            \
    X(SESSION_SILENT, "session_silent", RESET, WARN, "no answer to a PING")                        \
    X(SESSION_ABUSED, "session_abused", RESET, WARN, "what came is no acceptable HTTP/2")          \
    X(SESSION_NOT_H2, "session_not_h2", RESET, WARN, "the other side did not agree to HTTP/2")     \
    X(SESSION_SPENT, "session_spent", ORDER, INFO,                                                 \
      "its certificate or trust is out of date, or it was told to leave, and its last stream "     \
      "ended")                                                                                     \
    X(NO_MEMORY, "no_memory", RESET, ERROR, "out of memory or descriptors")

enum conn_reason {
#define CONN_REASON_ENUM(name, token, end, level, text) CONN_CLOSE_##name,
    CONN_REASONS(CONN_REASON_ENUM)
#undef CONN_REASON_ENUM
        CONN_REASON_COUNT
};
const char *conn_reason_token(enum conn_reason r);
const char *conn_reason_text(enum conn_reason r);

/* Why an outbound connection goes the way it goes (docs/transport.md). */
enum conn_why {
    CONN_WHY_NONE,
    CONN_WHY_DECLARED,  /* the mesh map or the listener says so */
    CONN_WHY_TRIED,     /* nothing was known: HBONE was tried and taken */
    CONN_WHY_LEARNED,   /* by what an earlier try has shown */
    CONN_WHY_REFUSED,   /* direct, since its own try found nobody, */
    CONN_WHY_SILENT,    /* no answer in time, */
    CONN_WHY_NOT_HBONE, /* or something else */
    CONN_WHY_COUNT
};
const char *conn_why_token(enum conn_why why);

/* --- counters ----------------------------------------------------------------------------------
 * Written by their worker alone (relaxed, no lock prefix), read by main at any time. The first
 * index is enum conf_direction. */
enum { CONN_TLS_STEPS = TLS_STEP_PROTOCOL + 1, CONN_STATUS_CLASSES = 6 };

struct conn_counters {
    _Atomic uint64_t accepted[2];
    _Atomic uint64_t states[2][CONN_STATE_COUNT]; /* a gauge: how many are in it now */
    _Atomic uint64_t closed[2][CONN_REASON_COUNT];
    _Atomic uint64_t handshakes[2];
    _Atomic uint64_t handshakes_resumed[2]; /* of these */
    _Atomic uint64_t handshake_groups[2][TLS_N_GROUPS];
    _Atomic uint64_t handshake_failures[2][CONN_TLS_STEPS];
    _Atomic uint64_t bytes_up[2];   /* from the side that opened towards the other */
    _Atomic uint64_t bytes_down[2]; /* and back */
    _Atomic uint64_t plaintext_disabled, plaintext_passthrough; /* outbound connections */
    _Atomic uint64_t transports[2][CONN_WHY_COUNT]; /* outbound, mTLS: direct, HBONE; and why */
    _Atomic uint64_t learned[2]; /* a gauge: destinations that take HBONE; that do not */
    /* Outbound to what is no service's: refused, let through; by class. */
    _Atomic uint64_t unlisted[2][CONF_N_UNLISTED_CLASSES];
    _Atomic uint64_t plaintext_sni;                 /* inbound: passed through by name */
    _Atomic uint64_t plaintext_permissive;          /* inbound: on a permissive port */
    _Atomic uint64_t requests[CONN_STATUS_CLASSES]; /* by the answer's class; 0: none was sent */
    _Atomic uint64_t requests_denied;
    _Atomic uint64_t requests_limited;         /* by rate: 429 */
    _Atomic uint64_t retries, retries_refused; /* refused: beyond the budget */
    _Atomic uint64_t upstream_kept, upstream_reused, upstream_unclean;  /* http_pool.c */
    _Atomic uint64_t detected[DETECT_PROTOCOL_COUNT][DETECT_HOW_COUNT]; /* inbound connections */
    _Atomic uint64_t sessions[2], streams[2];                           /* HBONE: that began */
    _Atomic uint64_t streams_full; /* HBONE: refused, at limits.connections */
    _Atomic uint64_t streams_bad;  /* HBONE: requests that were no CONNECT */
    _Atomic uint64_t rejudged, rejudged_closed;
    _Atomic uint64_t expiry_drained, expiry_warned; /* by the end of certificates */
    _Atomic uint64_t expiring;                      /* connections that have one: a gauge */
    _Atomic uint64_t expiry_next_ms;                /* os_now_ms of the nearest; 0: none */
    _Atomic uint64_t accept_errors;
    _Atomic uint64_t generation; /* of the snapshot that it runs: a gauge */
};

/* --- workers -----------------------------------------------------------------------------------
 */
/* Shared by the workers of a process; outlives them. */
struct conn_shared_listener {
    _Atomic unsigned open; /* downstream connections, for its limits.connections */
    _Atomic uint64_t accepted, denied;
    struct rate rate; /* of new ones, for its limits.connect_rate */
    _Atomic uint64_t over_rate;
};
/* Connections that are no more than a question whether they are captured (canary.c). Who makes one
 * says first from which port; the worker that gets it notes it, and closes it. Others' leave no
 * trace in either place, however many they are. Each by direction and family (1: IPv6). */
struct conn_canary {
    _Atomic uint32_t expected[2][2]; /* the port that one is under way from; 0: none is */
    _Atomic uint32_t came[2][2];
    _Atomic bool ready;            /* what who asks from outside is told */
    _Atomic uint64_t from_outside; /* to the inbound one, by somebody else */
    _Atomic uint64_t last_outside_ms;
};
/* Before it is made, one at a time of a direction and family. One thread. */
void conn_canary_expect(struct conn_canary *k, enum conf_direction d, int family, uint16_t port);
/* Whether the one that was expected last came. Any thread. */
bool conn_canary_seen(const struct conn_canary *k, enum conf_direction d, int family);

struct conn_shared {
    _Atomic unsigned open;                  /* downstream connections, for limits.connections */
    struct conn_canary *canary;             /* NULL: there is none */
    struct conn_shared_listener *listeners; /* in their order; NULL: not counted apart */
    struct limit_table *identities; /* inbound connections by identity; NULL: no limit for one */
    struct limit_table *rates; /* requests, by limit and identity; NULL: they are not limited */
};

struct conn_worker;

struct conn_worker_spec {
    unsigned index;
    unsigned n_workers;
    struct conn_shared *shared;
    struct snapshot *first;                  /* a reference is taken */
    const char *role;                        /* of its log lines; static */
    int log_wake_fd;                         /* borrowed; signalled when the log ring has lines */
    struct audit_ring *audit;                /* lent; NULL: decisions are not recorded */
    const struct service_sockets *inherited; /* lent; listening sockets that there are already */
};

/* Binds the listeners, or takes copies of inherited ones (docs/restart.md); allocates everything.
 * Before the sandbox closes. */
int conn_worker_new(const struct conn_worker_spec *spec, struct conn_worker **ret, struct err *err);
/* After conn_worker_stop, or never started. Takes NULL. */
struct conn_worker *conn_worker_free(struct conn_worker *w);
int conn_worker_start(struct conn_worker *w, struct err *err);
/* Ends its connections, and waits for the thread. */
void conn_worker_stop(struct conn_worker *w);

/* While it runs: */
/* Takes a reference. It is in force at the worker's next turn; connections are judged again. */
void conn_worker_post_snapshot(struct conn_worker *w, struct snapshot *snapshot);
/* Begins to drain: goes on accepting for accept_ms, answers with Connection: close, and cuts what
 * is left after drain_ms. */
void conn_worker_post_drain(struct conn_worker *w, uint32_t accept_ms, uint32_t drain_ms);
/* Another process has the same sockets and accepts now: stops accepting at once, and drains for
 * drain_ms. */
void conn_worker_post_handed_over(struct conn_worker *w, uint32_t drain_ms);
/* Asks for a sign of life; conn_worker_alive tells whether the last one was answered. */
void conn_worker_post_ask(struct conn_worker *w);
bool conn_worker_alive(const struct conn_worker *w);
struct conn_listening {
    size_t listener; /* index in the files */
    int fd;
    const char *activated; /* the service manager's name for it; NULL: it did not open it */
};
/* The i-th of its listening sockets, false: there are no more. Lent, and only while neither drain
 * nor hand-over nor stop was ordered. */
bool conn_worker_listening(const struct conn_worker *w, size_t i, struct conn_listening *ret);
/* True once draining has ended and nothing is open. */
bool conn_worker_drained(const struct conn_worker *w);
const struct conn_counters *conn_worker_counters(const struct conn_worker *w);
/* Who came in plaintext; to be read at any time. */
const struct permissive_book *conn_worker_book(const struct conn_worker *w);
/* Whom it has denied last; to be read at any time. */
struct denials;
const struct denials *conn_worker_denials(const struct conn_worker *w);
/* Its log ring, for log_drain. */
struct log *conn_worker_log(struct conn_worker *w);

#endif
