/*
 * What the readers of first bytes share (told.c, hello.c, plain.c): how they begin, what a read has
 * brought, and their time. That is the handshake's: what they take is not there for it any more.
 * What a connection waits for the agent (HELD) is nobody's.
 */
#include "conn_priv.h"

#include <stdlib.h>

void *conn_first_begin(struct conn *c, struct conn_leg *leg, enum conn_state state, size_t size)
{
    void *reader = calloc(1, size);
    if (reader == NULL || !conn_leg_watch(c, leg)) {
        free(reader);
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return NULL;
    }
    conn_set_state(c, state);
    loop_timer_arm(&c->timer, conn_handshake_ms(c));
    c->first_began_ms = loop_now_ms(c->worker->loop);
    leg->ready = LOOP_READ; /* it speaks first, and mostly has by now */
    return reader;
}

bool conn_first_wanted(struct conn_leg *leg)
{
    bool wanted = (leg->ready & LOOP_READ) != 0;
    if (wanted) {
        leg->ready = 0;
    }
    return wanted;
}

bool conn_first_got(struct conn *c, struct conn_leg *leg, enum stream_outcome o)
{
    if (o == STREAM_AGAIN) {
        conn_leg_want(leg, LOOP_READ);
    } else if (o != STREAM_OK) {
        c->sys_errno = leg->s.sys_errno;
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
    }
    return o == STREAM_OK;
}

void conn_first_done(struct conn *c, struct conn_leg *leg)
{
    c->first_used_ms += (uint32_t)(loop_now_ms(c->worker->loop) - c->first_began_ms);
    conn_leg_want(leg, 0); /* what comes next waits in the kernel */
}

uint64_t conn_handshake_ms(const struct conn *c)
{
    uint64_t all = conn_conf(c)->timeouts.handshake_ms;
    return c->first_used_ms < all ? all - c->first_used_ms : 1;
}
