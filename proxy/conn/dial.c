/* Connecting to the other side. */
#include "conn_priv.h"

#include <errno.h>

enum conn_reason conn_dial_reason(int sys_errno)
{
    switch (sys_errno) {
    case ECONNREFUSED:
    case EAGAIN: /* a Unix socket whose queue is full */
        return CONN_CLOSE_CONNECT_REFUSED;
    case ETIMEDOUT:
        return CONN_CLOSE_CONNECT_TIMEOUT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return CONN_CLOSE_NO_MEMORY;
    default:
        return CONN_CLOSE_CONNECT_FAILED;
    }
}

int conn_dial_fd(const struct conn *c, bool *ret_done)
{
    if (c->target != NULL && c->target->conf->kind == CONF_TARGET_UNIX) {
        return net_dial_unix(c->target->conf->path, ret_done);
    }
    if (c->upstream.len == 0) {
        errno = EHOSTUNREACH;
        return -1;
    }
    return net_dial(&c->upstream, ret_done);
}

bool conn_dial(struct conn *c, struct conn_leg *leg)
{
    conn_set_state(c, CONN_DIAL);
    bool done = false;
    int fd = conn_dial_fd(c, &done);
    if (fd == -1) {
        c->sys_errno = errno;
        conn_close(c, conn_dial_reason(errno));
        return false;
    }
    stream_plain_init(&leg->s, &c->worker->scratch, fd);
    if (done) {
        return true;
    }
    loop_timer_arm(&c->timer, conn_conf(c)->timeouts.connect_ms);
    if (!conn_leg_watch(c, leg)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    /* The other side waits meanwhile: what it sends stays in the kernel. */
    conn_leg_want(conn_other(c, leg), 0);
    conn_leg_want(leg, LOOP_WRITE);
    return false;
}

bool conn_dial_step(struct conn *c, struct conn_leg *leg)
{
    if (leg->ready == 0) {
        return false;
    }
    leg->ready = 0;
    int e = net_dial_error(leg->s.fd);
    if (e != 0) {
        c->sys_errno = e;
        conn_close(c, conn_dial_reason(e));
        return false;
    }
    return true;
}
