/*
 * HTTP/1.1 on an inbound connection: what http.c (flow), http_request.c (client -> workload),
 * http_response.c (workload -> client) and http_upstream.c (the workload's connection) share. Of a
 * relay "the workload" is the next hop, which is spoken to in TLS, or by a stream of a session.
 *
 * One exchange at a time. Bytes at rest: `in` holds a head that is not complete yet, or what came
 * behind the request that is being answered; `rin` holds an incomplete response head; `held` what
 * goes upstream once that stands. Bodies are passed on as they come and kept nowhere but in a
 * blocked stream.
 */
#ifndef POSTERN_CONN_HTTP_PRIV_H
#define POSTERN_CONN_HTTP_PRIV_H

#include "claims_priv.h"
#include "conn_priv.h"

enum http_request_phase {
    REQ_HEAD,
    REQ_BODY,
    REQ_DISCARD, /* its answer does not need it: read away, bounded */
    REQ_DONE,
};

enum http_response_phase {
    RES_NONE, /* no request is waiting for one */
    RES_HEAD,
    RES_BODY,
};

enum http_upstream { UP_NONE, UP_OPENING, UP_DIALING, UP_TUNNEL, UP_HANDSHAKE, UP_OPEN };

enum {
    HTTP_DISCARD_MAX =
        256 * 1024,             /* of a body behind an answer of ours; more ends the connection */
    HTTP_AHEAD_MAX = 16 * 1024, /* what a client may send ahead while it is answered */
    HTTP_INTERIM_MAX = 32,      /* interim answers (1xx) to one request */
    HTTP_JOIN_MAX = 16 * 1024,  /* body bytes that are copied behind a head for one write */
};

struct conn_http {
    struct buf in, rin, held;
    struct http1_scan scan, rscan;
    struct http1_request_info req;
    struct http1_response_info res;
    struct http1_body body, rbody;
    enum http_request_phase req_phase;
    enum http_response_phase res_phase;
    enum http_upstream up;
    bool preface;      /* what came first is HTTP/2's, and is in `in` */
    bool in_looked_at; /* `in` is incomplete: wait for more */
    bool down_eof;     /* the client ended its direction */
    bool head_sent;    /* of the response, at least in part */
    bool close_said;   /* Connection: close went out */
    bool up_broken;    /* writing to the workload failed; its answer may still be readable */
    bool up_used;      /* this upstream connection has answered before */
    bool pinned;       /* it may be authenticated as a connection: it is this client's alone */
    uint64_t idle_end_ms;
    bool in_flight; /* a request is being served, allowed, and will be logged */
    uint32_t discarded;
    uint32_t n_interim;
    uint64_t deadline_ms;                   /* 0: none */
    uint64_t began_ms, sent_ms;             /* the request: its head came, its end was passed on */
    uint64_t body_look_ms, body_look_bytes; /* http_time.c */
    uint64_t body_bytes;                    /* of the request's, chunk lines included */
    uint64_t requests;

    /* The facts of the request in flight, for the log and for judging again. */
    struct buf facts; /* method, host and path, one after the other */
    size_t method_len, host_len, path_len, other_len, query_len;
    bool query_known, headers_known, grpc;
    struct conn_claims claims; /* of its token */
    struct buf retry;          /* its head, if it may be sent once more on a fresh connection */
    struct policy_verdict verdict;
    char decision[CONN_DECISION_TEXT];
    char near_miss[240];
    const char *reason; /* static; NULL: none */
    unsigned status;
    uint64_t up_mark, down_mark; /* bytes of the connection when the request began */

    /* Of the connection, as headers want them. */
    char peer_hash[65];
    char source_ip[NET_ADDR_TEXT_MAX];
};

/* --- http.c ----------------------------------------------------------------------------------- */
/* The hash of the peer's certificate and the address that it comes from, as headers want them;
 * empty where there is none. Both begin as "". */
void http_peer_texts(const struct conn *c, char ret_hash[65], char ret_source[NET_ADDR_TEXT_MAX]);
void http_limits(const struct conn *c, struct http1_limits *ret);
void http_set_deadline(struct conn *c, uint64_t delay_ms);
/* Writes what is in the worker's `emit` to a leg; false: it failed. */
bool http_send_emit(struct conn *c, struct conn_leg *leg);
/* Body bytes: joined to what is in `emit` if small, else behind it. */
bool http_send(struct conn *c, struct conn_leg *leg, const uint8_t *p, size_t n);
/* Answers by ourselves. `end` is the reason to close with after it, or CONN_CLOSE_DONE to go on
 * with the next request. */
void http_answer(struct conn *c, unsigned status, const char *reason, const char *text,
                 enum conn_reason end);
/* The response is out: logs, and goes on or closes. */
void http_exchange_end(struct conn *c);
void http_record(struct conn *c);

/* --- http_upstream.c -------------------------------------------------------------------------- */
/* A standing connection, or one being made: writes are kept until it stands. `fresh`: not one that
 * has served before. False: answered. */
bool http_upstream_ensure(struct conn *c, bool fresh);
/* After an event, or its time (ETIMEDOUT), while it is being made. */
void http_upstream_step(struct conn *c, int sys_errno);
/* Whether what is written now is kept by us and not by its stream. */
static inline bool http_upstream_holds(const struct conn *c)
{
    return c->relay && c->http->up != UP_OPEN;
}
/* The next hop refused our certificate in place of its first bytes: says so. */
bool http_upstream_refused(struct conn *c);
void http_close_upstream(struct conn *c, bool reset);

/* --- http_request.c --------------------------------------------------------------------------- */
/* Takes bytes of the client; returns how many are used up. The connection may be closed after. */
size_t http_request_feed(struct conn *c, const uint8_t *data, size_t len);
/* The workload ended a kept connection just as a request was sent on it: sends that once more on a
 * new one, if it is one that may be repeated and had no body. False: it cannot be. */
bool http_request_again(struct conn *c);
/* Of the worker's request, where it has none and traces are begun here; into text. */
struct str http_trace_begin(const struct conn *c, char text[HTTP1_TRACEPARENT_LEN + 1]);
/* Who the peer is, as headers want it. */
void http_put_peer(const struct conn *c, struct http1_forward *fwd);

/* --- http_facts.c ----------------------------------------------------------------------------- */
struct http_facts {
    struct str method, host, path, other_path, query;
    struct str headers; /* as they are kept */
};
bool http_is_grpc(const struct http1_request *r);
/* False: no memory. */
bool http_facts_keep(struct conn *c, const struct http1_request *r);
void http_facts_drop(struct conn_http *h);
/* Takes the claims of its token, if it has one. False: that does not hold. */
bool http_facts_claims(struct conn *c, struct err *err);
/* All empty: there is no request. */
struct http_facts http_facts_get(const struct conn_http *h);
bool http_judge(struct conn *c);
/* It is denied, and not by policy: kept for whoever asks why. */
void http_facts_denied(struct conn *c, const char *reason);

/* --- http_rate.c: also for others than HTTP/1 --------------------------------------------------
 */
/* What is said of the port, or the destination. Lent by the snapshot. */
const struct conf_http *http_conf(const struct conn *c);
/* Whether one more request may come, by every limit that it is about; false: it is counted, and to
 * be answered with 429 (rate_limited). */
bool http_rate_take(struct conn *c, struct str method, struct str path);
/* A request was sent; one may be sent once more. */
void http_retry_earn(struct conn_worker *w, uint32_t percent);
bool http_retry_take(struct conn_worker *w, uint32_t percent);
/* Whether CONNECT may ask for that (host:port, lower case), as far as the port is concerned. */
bool http_connect_listed(const struct conn *c, struct str target);

/* --- http_pool.c ------------------------------------------------------------------------------ */
/* If its upstream connection is fit for it, it is kept by the worker, and the client's no more. */
void http_pool_give(struct conn *c);
/* One that was kept is its upstream: true. */
bool http_pool_take(struct conn *c);
/* Between two requests: until something is to be done. */
uint64_t http_pool_idle_ms(struct conn *c);
/* Whether a field of that name (lower case) authenticates connections. */
bool http_pool_pins(const struct http1_header *headers, unsigned n, const char *name);

/* --- http_time.c ------------------------------------------------------------------------------ */
/* A request's head was read; its end was passed on; anything else changed what is waited for. */
void http_time_begin(struct conn *c);
void http_time_sent(struct conn *c);
void http_time_next(struct conn *c);
/* The timer has fired during an exchange. */
void http_time_check(struct conn *c);

/* --- http_response.c -------------------------------------------------------------------------- */
size_t http_response_feed(struct conn *c, const uint8_t *data, size_t len);
/* The workload ended or broke its connection. */
void http_response_eof(struct conn *c, bool in_order);

#endif
