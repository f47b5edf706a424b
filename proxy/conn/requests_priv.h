/*
 * What has requests, part of conn_priv.h:
 *
 *   http.c     HTTP/1.1 (http_*.c)                 h2.c        HTTP/2 (h2_*.c)
 *   detect.c   which protocol an undeclared port carries
 */
#ifndef POSTERN_CONN_REQUESTS_PRIV_H
#define POSTERN_CONN_REQUESTS_PRIV_H

#include <postern/conn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn_worker;

struct conn;
struct conn_leg;

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

#endif
