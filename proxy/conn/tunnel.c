/* Asking an HTTP proxy for a tunnel, before TLS begins with whoever is at its other end. */
#include "conn_priv.h"

#include <postern/http_connect.h>
#include <stdlib.h>

bool conn_tunnel_wanted(const struct conn *c)
{
    return conn_listener(c)->connect_proxy != NULL && !c->passthrough;
}

enum stream_outcome conn_tunnel_start(struct conn *c, struct conn_leg *leg)
{
    const struct snapshot_connect_proxy *p = conn_listener(c)->connect_proxy;
    char target[300];
    struct buf out = BUF_INIT(4096);
    if (c->tunnel == NULL) {
        c->tunnel = (struct conn_tunnel *)calloc(1, sizeof(*c->tunnel));
    }
    if (c->tunnel == NULL || p == NULL) {
        return STREAM_FAILED;
    }
    buf_reset(&c->tunnel->in);
    c->tunnel->in = (struct buf)BUF_INIT(HTTP_CONNECT_ANSWER_MAX);
    snapshot_target_text(c->target, target, sizeof(target));
    bool ok = http_connect_request(str_of(target), p->credentials, &out) &&
              stream_write(&leg->s, buf_head(&out), buf_len(&out)) != STREAM_FAILED;
    buf_reset_secret(&out);
    if (!ok) {
        c->sys_errno = leg->s.sys_errno;
        return STREAM_FAILED;
    }
    conn_leg_want(leg, LOOP_READ | (stream_blocked(&leg->s) ? LOOP_WRITE : 0U));
    return STREAM_AGAIN;
}

/* What the proxy said in place of a tunnel. */
static enum stream_outcome refused(struct conn *c, const char *why, unsigned status)
{
    struct log_line l;
    log_begin(&l, c->worker->log, LOG_WARN, "tunnel_refused");
    conn_record_common(&l, c);
    log_str(&l, "step", why);
    if (status != 0) {
        log_uint(&l, "status", status);
    }
    log_end(&l);
    return STREAM_FAILED;
}

enum stream_outcome conn_tunnel_step(struct conn *c, struct conn_leg *leg)
{
    struct buf *in = &c->tunnel->in;
    unsigned status = 0;
    size_t used = 0;
    size_t n = 0;
    leg->ready = 0;
    if (stream_blocked(&leg->s) && stream_flush(&leg->s) == STREAM_FAILED) {
        c->sys_errno = leg->s.sys_errno;
        return refused(c, "closed", 0);
    }
    switch (stream_read(&leg->s, c->worker->scratch.plain, in->max - buf_len(in), &n)) {
    case STREAM_OK:
        break;
    case STREAM_AGAIN:
        conn_leg_want(leg, LOOP_READ | (stream_blocked(&leg->s) ? LOOP_WRITE : 0U));
        return STREAM_AGAIN;
    case STREAM_EOF:
    case STREAM_FAILED:
        c->sys_errno = leg->s.sys_errno;
        return refused(c, "closed", 0);
    }
    if (!buf_append(in, c->worker->scratch.plain, n)) {
        return STREAM_FAILED;
    }
    switch (http_connect_answer(buf_head(in), buf_len(in), &status, &used)) {
    case HTTP_CONNECT_MORE:
        conn_leg_want(leg, LOOP_READ);
        return STREAM_AGAIN;
    case HTTP_CONNECT_OPEN:
        if (used < buf_len(in)) {
            return refused(c, "spoke_first", status);
        }
        buf_reset(in);
        return STREAM_OK;
    case HTTP_CONNECT_REFUSED:
        return refused(c, "status", status);
    case HTTP_CONNECT_BAD:
        break;
    }
    return refused(c, "malformed", 0);
}

void conn_tunnel_free(struct conn *c)
{
    if (c->tunnel != NULL) {
        buf_reset(&c->tunnel->in);
        free(c->tunnel);
        c->tunnel = NULL;
    }
}
