/*
 * Outbound HBONE: the application's first bytes go with the CONNECT and do not wait for the answer,
 * so that a new connection costs no round trip more than the application's own. The session's
 * peer has been verified by then, and it alone gets them; what it refuses it throws away, and the
 * connection is reset. They are kept until the answer, for a stream that is tried once more.
 */
#include "conn_priv.h"

#include <stdlib.h>

/* A request or a ClientHello. Whoever sends more waits for the answer with the rest. */
enum { EARLY_MAX = 4096 };

struct conn_early {
    bool ended; /* and that was all */
    size_t n;
    uint8_t bytes[];
};

static bool send_kept(struct conn *c)
{
    struct conn_early *e = c->early;
    return stream_write(&c->peer.s, e->bytes, e->n) != STREAM_FAILED &&
           (!e->ended || stream_shut(&c->peer.s) != STREAM_FAILED);
}

bool conn_early_begin(struct conn *c)
{
    if (c->relay) {
        return true; /* its client's bytes wait where they are */
    }
    if (c->early != NULL) {
        return send_kept(c);
    }
    conn_leg_want(&c->app, LOOP_READ);
    return true;
}

void conn_early_step(struct conn *c)
{
    uint8_t *plain = c->worker->scratch.plain;
    size_t n = 0;
    if (c->relay || (c->app.ready & LOOP_READ) == 0) {
        return;
    }
    if (c->early != NULL) {
        conn_leg_want(&c->app, 0); /* more has come; it stays in the kernel */
        return;
    }
    c->app.ready = 0;
    enum stream_outcome o = stream_read(&c->app.s, plain, EARLY_MAX, &n);
    if (o == STREAM_AGAIN) {
        return;
    }
    if (o == STREAM_FAILED) {
        c->sys_errno = c->app.s.sys_errno;
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
        return;
    }
    if (!conn_early_keep(c, plain, n)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    c->early->ended = o == STREAM_EOF;
    if (!send_kept(c)) {
        conn_leg_want(&c->app, 0); /* why, the stream itself will say */
    }
}

bool conn_early_keep(struct conn *c, const uint8_t *p, size_t n)
{
    c->early = (struct conn_early *)malloc(sizeof(*c->early) + n);
    if (c->early == NULL) {
        return false;
    }
    c->early->ended = false;
    c->early->n = n;
    if (n > 0) {
        memcpy(c->early->bytes, p, n);
    }
    return true;
}

struct str conn_early_kept(const struct conn *c)
{
    return c->early != NULL ? (struct str){(const char *)c->early->bytes, c->early->n} : STR_NONE;
}

bool conn_early_said(const struct conn *c)
{
    return c->early != NULL && c->early->n > 0;
}

void conn_early_free(struct conn *c)
{
    free(c->early);
    c->early = NULL;
}
