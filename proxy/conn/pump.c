/*
 * Bytes both ways between two streams. Nothing is allocated for them: a read goes into the worker's
 * scratch buffer, a write takes all of it, and what the kernel does not take stays in the
 * destination's stream, which stops the source until it is gone. One read and one write a direction
 * and wake-up; readiness is level-triggered, so whoever has more is called again after the others.
 */
#include "conn_priv.h"

void conn_count_bytes(struct conn *c)
{
    struct conn_counters *n = &c->worker->counters;
    if (c->carrier != NULL) {
        return; /* its streams count */
    }
    const struct stream *down = &conn_downstream(c)->s;
    uint64_t up_bytes = down->bytes_read;
    uint64_t down_bytes = down->bytes_written;
    counter_add(&n->bytes_up[c->direction], up_bytes - c->up_bytes);
    counter_add(&n->bytes_down[c->direction], down_bytes - c->down_bytes);
    c->up_bytes = up_bytes;
    c->down_bytes = down_bytes;
}

/* Why a side that failed did so. */
static enum conn_reason broken(struct conn *c, const struct conn_leg *leg)
{
    if (leg->kind == CONN_LEG_TLS && leg->tls.failure != NULL && leg->s.bytes_read == 0) {
        /* In TLS 1.3 a client has finished before the server judges its certificate: the refusal
         * comes as an alert in place of the first bytes. */
        conn_record_handshake(c, leg, NULL, NULL);
        return leg == &c->peer ? CONN_CLOSE_HANDSHAKE_FAILED : CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED;
    }
    if (leg->s.truncated) {
        return CONN_CLOSE_TRUNCATED;
    }
    c->sys_errno = leg->s.sys_errno;
    return leg == conn_downstream(c) ? CONN_CLOSE_DOWNSTREAM_RESET : CONN_CLOSE_UPSTREAM_RESET;
}

/* Writing to `to` failed. What it had said before that goes on to the other side still, for a
 * moment: it may be the answer that says why, and its reset has overtaken it. False: closed. */
static bool give_up_writing(struct conn *c, struct conn_leg *to)
{
    if (!to->s.broken || to->s.eof || conn_other(c, to)->s.broken) {
        conn_close(c, broken(c, to));
        return false;
    }
    c->linger_bytes = 0;
    loop_timer_arm(&c->timer, CONN_LINGER_MS);
    return true;
}

/* From one whose other side takes nothing any more: read away, so that what it is told is not
 * overtaken by a reset of ours. False: closed. */
static bool read_away(struct conn *c, struct conn_leg *from)
{
    size_t n = 0;
    enum stream_outcome o = stream_read(&from->s, c->worker->scratch.plain, NET_SCRATCH_SIZE, &n);
    c->linger_bytes += (uint32_t)n;
    if (o == STREAM_FAILED || c->linger_bytes > CONN_LINGER_BYTES) {
        conn_close(c, broken(c, o == STREAM_FAILED ? from : conn_other(c, from)));
        return false;
    }
    return true;
}

/* Moves what one read gives. False: the connection is closed. */
static bool move(struct conn *c, struct conn_leg *from, struct conn_leg *to)
{
    struct net_scratch *scratch = &c->worker->scratch;
    size_t n = 0;
    /* A stream of a session puts a header before it, and both are one write then. */
    size_t most = NET_SCRATCH_SIZE - (to->kind == CONN_LEG_STREAM ? HBONE_READ_ROOM : 0U);
    switch (stream_read(&from->s, scratch->plain, most, &n)) {
    case STREAM_OK:
        if (c->plain != NULL && c->plain->unheard && from == conn_downstream(c) &&
            !conn_plain_heard(c, scratch->plain, n)) {
            return false;
        }
        if (c->detecting) {
            conn_detect_look(c, from, scratch->plain, n);
        }
        if (stream_write(&to->s, scratch->plain, n) == STREAM_FAILED) {
            return give_up_writing(c, to);
        }
        if (stream_blocked(&to->s) && from->s.read_size > NET_READ_MIN) {
            from->s.read_size /= 2; /* a slow reader gets less kept for it */
        }
        return true;
    case STREAM_AGAIN:
        return true;
    case STREAM_EOF:
        return stream_shut(&to->s) != STREAM_FAILED || give_up_writing(c, to);
    case STREAM_FAILED:
        break;
    }
    conn_close(c, broken(c, from));
    return false;
}

/* What leg can do now, in both roles. False: the connection is closed. */
static bool serve(struct conn *c, struct conn_leg *leg)
{
    struct conn_leg *other = conn_other(c, leg);
    if ((leg->ready & LOOP_WRITE) != 0 && stream_blocked(&leg->s)) {
        if (stream_flush(&leg->s) == STREAM_FAILED && !give_up_writing(c, leg)) {
            return false;
        }
    }
    bool readable = (leg->ready & LOOP_READ) != 0 || stream_has_input(&leg->s);
    leg->ready = 0;
    if (readable && !leg->s.eof && !stream_blocked(&other->s)) {
        return other->s.broken ? read_away(c, leg) : move(c, leg, other);
    }
    return true;
}

/* One takes nothing, and has said all that it had to say; the other has heard it, and ended. */
static bool is_over(const struct conn_leg *broken, const struct conn_leg *other)
{
    return broken->s.broken && broken->s.eof && other->s.shut_done && !stream_blocked(&other->s) &&
           other->s.eof;
}

static bool ended(const struct conn_leg *from, const struct conn_leg *to)
{
    return from->s.eof && to->s.shut_done && !stream_blocked(&to->s);
}

static void want(struct conn *c, struct conn_leg *leg)
{
    unsigned events = stream_blocked(&leg->s) ? LOOP_WRITE : 0U;
    if (!leg->s.eof && !stream_blocked(&conn_other(c, leg)->s)) {
        events |= LOOP_READ;
    }
    conn_leg_want(leg, events);
}

void conn_pump_step(struct conn *c)
{
    c->active_ms = loop_now_ms(c->worker->loop);
    do {
        if (!serve(c, &c->app) || !serve(c, &c->peer)) {
            return;
        }
        /* What is already decrypted announces itself to nobody. */
    } while ((stream_has_input(&c->peer.s) && !c->peer.s.eof && !stream_blocked(&c->app.s)) ||
             (stream_has_input(&c->app.s) && !c->app.s.eof && !stream_blocked(&c->peer.s)));
    if (is_over(&c->app, &c->peer) || is_over(&c->peer, &c->app)) {
        conn_close(c, broken(c, c->app.s.broken ? &c->app : &c->peer));
        return;
    }
    if (ended(&c->app, &c->peer) && ended(&c->peer, &c->app)) {
        conn_close(c, CONN_CLOSE_DONE);
        return;
    }
    conn_count_bytes(c);
    want(c, &c->app);
    want(c, &c->peer);
}

void conn_pump_start(struct conn *c)
{
    conn_set_state(c, CONN_PUMP);
    c->detecting = c->undeclared && c->http == NULL && c->race.how == DETECT_BY_NONE;
    loop_timer_arm(&c->timer, conn_conf(c)->timeouts.idle_tcp_ms);
    /* The side that opened it has mostly sent something while we were busy. */
    conn_downstream(c)->ready |= c->early == NULL ? LOOP_READ : 0U;
    conn_early_free(c);
    conn_pump_step(c);
}
