/* Which protocol an inbound port carries that nobody declared: before anything is judged where the
 * policy speaks of requests, else on the way, for log and metrics only. docs/detection.md. */
#include "http_priv.h"

#include <stdio.h>

static void count(struct conn *c)
{
    counter_add(&c->worker->counters.detected[c->race.protocol][c->race.how], 1);
}

void conn_detect_declared(struct conn *c)
{
    if (!c->undeclared) {
        c->race.protocol = c->protocol == CONF_PROTOCOL_HTTP ? DETECT_HTTP1 : DETECT_TCP;
        c->race.how = DETECT_BY_DECLARED;
        count(c);
    }
}

bool conn_detect_wanted(const struct conn *c)
{
    return c->undeclared && snapshot_wants_requests(conn_snapshot(c), conn_own_id(c), conn_port(c));
}

bool conn_detect_holds(const struct conn *c)
{
    return !conn_detect_wanted(c);
}

/* --- before anything is judged ---------------------------------------------------------------- */

static void deny(struct conn *c, enum conn_reason reason)
{
    struct conn_denial *d = conn_denial_new(c);
    c->judged = true;
    c->verdict = (struct policy_verdict){.reason = POLICY_NO_RULE};
    if (d != NULL) {
        snprintf(d->near_miss, sizeof(d->near_miss),
                 "the policy has rules about requests on port %u, and what came is %s: declare the "
                 "port under 'ports' if it is not HTTP",
                 conn_port(c), detect_protocol_name((enum detect_protocol)c->race.protocol));
    }
    conn_close_denied(c, reason);
}

static void looked(struct conn *c, const uint8_t *data, size_t n);

void conn_detect_start(struct conn *c)
{
    conn_set_state(c, CONN_DETECT);
    if (!conn_http_start(c)) { /* sets the time for a head */
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    if (c->http->in.len > 0) { /* of plaintext: what it was told from */
        looked(c, buf_head(&c->http->in), buf_len(&c->http->in));
    }
    if (c->state == CONN_DETECT) {
        conn_detect_step(c);
    }
}

static void ended(struct conn *c, bool in_order)
{
    c->sys_errno = conn_downstream(c)->s.sys_errno;
    if (c->http->in.len == 0 && in_order) {
        conn_close(c, CONN_CLOSE_DONE); /* it wanted nothing */
    } else if (in_order) {
        deny(c, CONN_CLOSE_PROTOCOL_UNKNOWN);
    } else {
        conn_close(c, conn_downstream(c)->s.truncated ? CONN_CLOSE_TRUNCATED
                                                      : CONN_CLOSE_DOWNSTREAM_RESET);
    }
}

/* What came goes into the reader's buffer, and is judged there. */
static void found_http(struct conn *c)
{
    c->protocol = CONF_PROTOCOL_HTTP;
    conn_set_state(c, CONN_HTTP);
    http_set_deadline(c, conn_conf(c)->timeouts.request_head_ms);
    conn_http_step(c);
}

/* At what is in the reader's buffer since. */
static void looked(struct conn *c, const uint8_t *data, size_t n)
{
    if (!detect_race_feed(&c->race, DETECT_SIDE_CLIENT, data, n)) {
        conn_leg_want(conn_downstream(c),
                      LOOP_READ | (stream_blocked(&conn_downstream(c)->s) ? LOOP_WRITE : 0U));
        return;
    }
    count(c);
    if (c->race.protocol == DETECT_HTTP1) {
        found_http(c);
    } else if (c->race.protocol == DETECT_HTTP2 && conn_h2_may_follow(c)) {
        conn_h2_from_http(c);
    } else {
        deny(c, CONN_CLOSE_NOT_HTTP);
    }
}

static void took(struct conn *c, const uint8_t *data, size_t n)
{
    if (buf_append(&c->http->in, data, n)) {
        looked(c, data, n);
    } else {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
    }
}

static void read_some(struct conn *c)
{
    struct conn_leg *down = conn_downstream(c);
    size_t n = 0;
    switch (stream_read(&down->s, c->worker->scratch.plain, NET_SCRATCH_SIZE, &n)) {
    case STREAM_OK:
        took(c, c->worker->scratch.plain, n);
        break;
    case STREAM_AGAIN:
        conn_leg_want(down, LOOP_READ | (stream_blocked(&down->s) ? LOOP_WRITE : 0U));
        break;
    case STREAM_EOF:
        ended(c, true);
        break;
    case STREAM_FAILED:
        ended(c, false);
        break;
    }
}

void conn_detect_step(struct conn *c)
{
    struct conn_leg *down = conn_downstream(c);
    bool readable = (down->ready & LOOP_READ) != 0 || stream_has_input(&down->s);
    if ((down->ready & LOOP_WRITE) != 0 && stream_blocked(&down->s) &&
        stream_flush(&down->s) == STREAM_FAILED) { /* the end of our handshake */
        ended(c, false);
        return;
    }
    down->ready = 0;
    while (readable && c->state == CONN_DETECT) {
        read_some(c);
        /* What is already decrypted announces itself to nobody. */
        readable = c->state == CONN_DETECT && stream_has_input(&down->s);
    }
}

void conn_detect_timeout(struct conn *c)
{
    c->race.how = DETECT_BY_TIMEOUT;
    count(c);
    deny(c, CONN_CLOSE_PROTOCOL_UNKNOWN);
}

void conn_detect_review(struct conn *c)
{
    if (c->state != CONN_DETECT || conn_detect_wanted(c)) {
        return;
    }
    if (!conn_early_keep(c, buf_head(&c->http->in), buf_len(&c->http->in))) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    conn_http_free(c);
    conn_inbound_judge(c);
}

/* --- on the way ------------------------------------------------------------------------------- */

void conn_detect_look(struct conn *c, const struct conn_leg *from, const uint8_t *data, size_t n)
{
    bool client = from == conn_downstream(c);
    if (detect_race_feed(&c->race, client ? DETECT_SIDE_CLIENT : DETECT_SIDE_SERVER, data, n)) {
        c->detecting = false;
        count(c);
    }
}

void conn_detect_end(struct conn *c)
{
    if (c->undeclared && c->judged && c->race.how == DETECT_BY_NONE) {
        count(c);
    }
}
