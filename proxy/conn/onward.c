/*
 * What becomes of a way on by a session (stream.c asks for it). A connection ends with its way on,
 * or goes directly instead. Requests are answered, and the next one asks for a way on again; they
 * may be in the middle of anything when news come, so that these wait for the end of the turn.
 */
#include "conn_priv.h"

#include <stdlib.h>

bool conn_onward_by_session(struct conn *c, enum conn_reason *ret_why)
{
    *ret_why = CONN_CLOSE_DONE;
    if (!c->relay || conn_route(c)->transport == CONF_TRANSPORT_DIRECT) {
        return false;
    }
    if (conn_is_listed(c) && !conn_balance_again(c)) {
        *ret_why = CONN_CLOSE_NO_MEMORY; /* if it is not closed */
        return false;
    }
    if (!conn_has_address(c)) { /* a stream does not wait for it */
        *ret_why = CONN_CLOSE_NO_ADDRESS;
        return false;
    }
    conn_transport_choose(c);
    return c->transport == CONF_TRANSPORT_HBONE;
}

static bool carries_requests(const struct conn *c)
{
    return c->state == CONN_HTTP || c->state == CONN_HTTP2;
}

/* --- asking ----------------------------------------------------------------------------------- */

static void look(struct loop_deferred *d)
{
    struct conn_onward *o = (struct conn_onward *)((char *)d - offsetof(struct conn_onward, told));
    enum conn_onward_news news = o->news;
    o->news = ONWARD_NO_NEWS;
    if (news == ONWARD_NO_NEWS || !conn_catch_up(o->conn)) {
        return;
    }
    if (o->conn->state == CONN_HTTP) {
        conn_http_onward(o->conn, news, o->why);
    } else if (o->conn->state == CONN_HTTP2) {
        conn_h2_onward(o->conn, news, o->why);
    }
}

struct conn_onward *conn_onward_new(struct conn *c)
{
    if (c->onward == NULL) {
        c->onward = (struct conn_onward *)calloc(1, sizeof(*c->onward));
    }
    if (c->onward != NULL) {
        c->onward->conn = c;
        c->onward->told.fn = look;
        c->onward->news = ONWARD_NO_NEWS;
    }
    return c->onward;
}

static bool has_news(const struct conn *c)
{
    return c->onward != NULL && c->onward->news != ONWARD_NO_NEWS;
}

bool conn_onward_is_sought(const struct conn *c)
{
    bool requests = (c->state == CONN_HTTP && conn_http_seeks_onward(c)) ||
                    (c->state == CONN_HTTP2 && conn_h2_seeks_onward(c));
    return c->state == CONN_OPENING || (requests && !has_news(c));
}

void conn_onward_deadline(struct conn *c, uint64_t ms)
{
    if (c->state == CONN_HTTP) {
        conn_http_onward_ms(c, ms);
    } else if (c->state == CONN_HTTP2) {
        conn_h2_onward_ms(c, ms);
    } else {
        loop_timer_arm(&c->timer, ms);
    }
}

/* --- what became of it ------------------------------------------------------------------------ */

static void tell(struct conn *c, enum conn_onward_news news, enum conn_reason why)
{
    struct conn_onward *o = c->onward;
    if (o->news == ONWARD_NO_NEWS) {
        o->news = news;
        o->why = why;
        loop_defer(c->worker->loop, &o->told);
    }
}

void conn_onward_stands(struct conn *c)
{
    if (c->state == CONN_HTTP) {
        conn_http_onward_stands(c);
    } else if (c->state == CONN_HTTP2) {
        conn_h2_onward_stands(c);
    } else {
        conn_stream_answer(c);
        conn_pump_start(c);
    }
}

void conn_onward_directly(struct conn *c)
{
    if (carries_requests(c)) {
        tell(c, ONWARD_DIRECTLY, CONN_CLOSE_DONE);
    } else if (c->relay) {
        conn_inbound_dial(c);
    } else {
        conn_outbound_dial(c);
    }
}

void conn_onward_failed(struct conn *c, enum conn_reason why)
{
    if (carries_requests(c)) {
        tell(c, ONWARD_FAILED, why);
    } else {
        conn_close(c, why);
    }
}

/* Whether it is about the next hop, or the way there, and not about what may be at all. */
static bool is_of_the_way(enum conn_reason r)
{
    static const bool is[CONN_REASON_COUNT] = {
        [CONN_CLOSE_SESSION_LOST] = true,
        [CONN_CLOSE_SESSION_NOT_H2] = true,
        [CONN_CLOSE_SESSION_SPENT] = true,
        [CONN_CLOSE_CONNECT_REFUSED] = true,
        [CONN_CLOSE_CONNECT_FAILED] = true,
        [CONN_CLOSE_CONNECT_TIMEOUT] = true,
        [CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED] = true,
        [CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT] = true,
        [CONN_CLOSE_LOOP] = true,
        [CONN_CLOSE_NO_ADDRESS] = true,
        [CONN_CLOSE_NO_MEMORY] = true,
    };
    return is[r];
}

bool conn_onward_survives(struct conn *c, enum conn_reason why)
{
    if (!carries_requests(c) || c->onward == NULL || c->onward->ride.of == NULL ||
        !is_of_the_way(why)) {
        return false;
    }
    bool sought = conn_onward_is_sought(c);
    conn_ride_end(&c->onward->ride);
    tell(c, sought ? ONWARD_FAILED : ONWARD_LOST, why);
    return true;
}

void conn_onward_leave(struct conn *c)
{
    if (c->onward != NULL) {
        conn_ride_end(&c->onward->ride);
        c->onward->news = ONWARD_NO_NEWS;
    }
}
