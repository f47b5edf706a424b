/*
 * HTTP/2 on an inbound connection (docs/http2.md): what h2.c (flow, the end), h2_time.c (until
 * when), h2_exchange.c (an exchange: a request and its response), h2_judge.c (asking the policy),
 * h2_request.c and h2_response.c (its two directions), h2_answer.c (answers of ours, the log),
 * h2_fields.c (heads as fields) and h2_upstream.c (the workload's connection) share. Of a relay
 * "the workload" is the next hop, which is spoken to in TLS, or by a stream of a session.
 *
 * A session with the client, one with the workload, and an exchange for each request: a stream of
 * either. Bodies are kept nowhere but in a stream that the other side's window stops.
 */
#ifndef POSTERN_CONN_H2_PRIV_H
#define POSTERN_CONN_H2_PRIV_H

#include "claims_priv.h"
#include "conn_priv.h"

#include <postern/http2.h>

enum {
    /* Exchanges: streams that the client may have, and as many that it has reset and the workload
     * has not been told of yet. */
    H2_OPEN_MAX = 2 * HTTP2_STREAMS,
    H2_SPARE_MAX = 8,      /* exchanges that are kept for the next requests */
    H2_LEAVE_MS = 1000,    /* from the first GOAWAY to the one that counts */
    H2_STATUS_UNSAID = -1, /* of gRPC */
};

enum h2_upstream {
    H2_UP_NONE,
    H2_UP_OPENING,
    H2_UP_DIALING,
    H2_UP_TUNNEL,
    H2_UP_HANDSHAKE,
    H2_UP_OPEN,
};

struct h2_exchange {
    struct h2_exchange *prev, *next;
    struct conn *conn;
    struct http2_stream down, up;
    struct buf head; /* as HTTP/1.1, and behind it the host and the path that were judged */
    uint32_t head_len;
    uint16_t method_len, host_len, path_len;
    int32_t id; /* the client's */
    struct http1_request_info req;
    struct policy_verdict verdict;
    struct conn_claims claims; /* of its token */
    char decision[CONN_DECISION_TEXT];
    const char *reason; /* static; NULL: none */
    unsigned status;    /* 0: none was sent */
    int grpc_status;
    uint64_t began_ms, active_ms, bytes_up, bytes_down;
    uint64_t sent_ms;                       /* its end was passed on */
    uint64_t body_look_ms, body_look_bytes; /* h2_time.c */
    unsigned n_interim;
    unsigned busy; /* is being worked with: not to be ended */
    bool te_trailers, https, grpc;
    bool judged, in_flight; /* in flight: allowed, and not answered by us */
    bool head_passed;       /* a final head went to the client */
    bool req_ended, res_ended;
    bool given_up; /* it took too long, and was reset */
    bool recorded;
};

struct conn_http2 {
    struct http2_session *down, *up; /* owned */
    enum h2_upstream up_state;
    struct h2_exchange *open, *spare;
    size_t n_open, n_spare;
    unsigned hold; /* the list is walked: exchanges end behind it */
    uint64_t total;
    struct loop_deferred turn;
    struct conn *conn;
    uint64_t up_deadline_ms; /* of making it; 0: none */
    uint64_t idle_since_ms;
    uint64_t leave_ms; /* when the next GOAWAY is due; 0: none is */
    uint8_t leaving;   /* how many were said */
    /* Of the connection, as headers want them. */
    char peer_hash[65];
    char source_ip[NET_ADDR_TEXT_MAX];
};

static inline bool h2_is_over(const struct conn *c)
{
    return c->state != CONN_HTTP2;
}

/* --- h2.c ------------------------------------------------------------------------------------- */
void h2_wake(struct conn *c);
/* Of struct http2_ops. */
void h2_on_wake(void *arg);
/* It has no streams, and had none for long: a last word, and the end. */
void h2_close_idle(struct conn *c);

/* --- h2_time.c -------------------------------------------------------------------------------- */
void h2_arm(struct conn *c);
/* A request's head was taken, or its end passed on: it may have to be looked at earlier. */
void h2_time_begin(struct h2_exchange *x);
void h2_time_sent(struct h2_exchange *x);
/* The workload's connection stands: its time to answer begins. */
void h2_time_stands(struct conn *c);

/* --- h2_fields.c ------------------------------------------------------------------------------ */
/* The header lines of a head that was emitted (names become lower case), behind what is in fields:
 * `skip_host` leaves that out. Returns how many fields there are then; beyond HTTP2_FIELDS_MAX:
 * they do not fit. */
size_t h2_fields_add(uint8_t *head, size_t len, bool skip_host, const uint64_t *never,
                     struct http2_field fields[HTTP2_FIELDS_MAX], size_t n);
/* The status of a response head that was emitted, as a field. */
struct http2_field h2_status_field(const uint8_t *head);
/* Whether they may be trailers (RFC 9110 6.5.1): the reason, or NULL. */
const char *h2_trailers_refused(struct str text);
struct str h2_field_value(const struct http2_field *fields, size_t n, struct str name);

/* --- h2_exchange.c ---------------------------------------------------------------------------- */
/* NULL: no memory, or there are too many. */
struct h2_exchange *h2_exchange_new(struct conn *c, int32_t id);
/* Ends it if nothing is left of it. */
void h2_exchange_finish(struct h2_exchange *x);
/* Around a walk over those that are open: what it does may end others. */
void h2_hold(struct conn *c);
void h2_release(struct conn *c);
/* Bytes of it moved. */
void h2_exchange_moved(struct h2_exchange *x);
/* It takes too long: an answer of ours if there was none, else a reset. */
void h2_exchange_give_up(struct h2_exchange *x, unsigned status, const char *reason);
void h2_exchanges_free(struct conn_http2 *h);

/* --- h2_judge.c ------------------------------------------------------------------------------- */
/* Its head, into the worker's request. */
enum http1_result h2_head_read(struct h2_exchange *x, struct http1_error *ret);
/* Of the worker's request. False: its token does not hold; err (may be NULL) says why. */
bool h2_claims_take(struct h2_exchange *x, struct err *err);
/* Of the worker's request: its verdict. */
bool h2_judge(struct h2_exchange *x, char *near_miss, size_t size);
/* It is denied, and not by policy: kept for whoever asks why. */
void h2_denied(struct h2_exchange *x, const char *reason);
/* Tells the audit log. verdict NULL: a denial that no policy has made; both: an end after a change,
 * or, where the verdict allows it, what else said no. */
void h2_audit(struct h2_exchange *x, const struct policy_verdict *verdict, const char *near_miss,
              const char *reason);
/* False: it is no longer allowed, and was ended. */
bool h2_exchange_rejudge(struct h2_exchange *x);

/* --- h2_request.c, h2_response.c ---------------------------------------------------------------
 */
extern const struct http2_ops h2_down_ops, h2_up_ops;
/* The workload's stream is lost, with its session or by a reset. */
void h2_exchange_lost(struct h2_exchange *x, unsigned status, const char *reason);

/* --- h2_answer.c ------------------------------------------------------------------------------ */
/* Answers by ourselves, and wants no more of the request. near_miss NULL: none. */
void h2_answer(struct h2_exchange *x, unsigned status, const char *reason, const char *text,
               const char *near_miss);
/* Once the response has begun: with trailers of gRPC, if it is that, else by a reset. It is no
 * longer allowed, and what waits for the client is dropped; or the rest of it will not come. */
void h2_cut(struct h2_exchange *x, const char *reason, const char *near_miss);
void h2_break(struct h2_exchange *x, unsigned status, const char *reason);
void h2_record(struct h2_exchange *x, const char *near_miss);

/* --- h2_upstream.c ---------------------------------------------------------------------------- */
/* A session that stands, or is being made. False: there is none, and all that wait were answered.
 */
bool h2_upstream_ensure(struct conn *c);
/* After an event, or its time (ETIMEDOUT), while it is being made. */
void h2_upstream_step(struct conn *c, int sys_errno);
/* It is over. */
void h2_upstream_lost(struct conn *c, unsigned status, const char *reason, bool reset);

#endif
