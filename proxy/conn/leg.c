/* One end of a connection: watching it, ending it, and who is there. */
#include "conn_priv.h"

static void on_app(void *arg, unsigned ready)
{
    struct conn *c = (struct conn *)arg;
    c->app.ready |= ready;
    conn_drive(c);
}

static void on_peer(void *arg, unsigned ready)
{
    struct conn *c = (struct conn *)arg;
    c->peer.ready |= ready;
    conn_drive(c);
}

bool conn_leg_watch(struct conn *c, struct conn_leg *leg)
{
    if (leg->io == NULL && leg->kind != CONN_LEG_STREAM) {
        leg->io = loop_io_new(c->worker->loop, leg->s.fd, leg == &c->app ? on_app : on_peer, c);
    }
    return leg->io != NULL || leg->kind == CONN_LEG_STREAM;
}

void conn_leg_want(struct conn_leg *leg, unsigned events)
{
    if (leg->kind == CONN_LEG_STREAM) {
        hbone_stream_want(&leg->hs, events);
    } else if (leg->io != NULL) {
        loop_io_want(leg->io, events);
    }
}

void conn_leg_close(struct conn_leg *leg, bool reset)
{
    leg->io = loop_io_free(leg->io);
    leg->ready = 0;
    if (leg->kind == CONN_LEG_STREAM) {
        hbone_stream_close(&leg->hs, reset);
    }
    stream_deinit(&leg->s, reset);
    leg->kind = CONN_LEG_PLAIN;
}

void conn_leg_end(struct conn_leg *leg, bool reset)
{
    if (!reset && leg->kind == CONN_LEG_TLS && stream_is_open(&leg->s)) {
        (void)stream_shut(&leg->s); /* without the end of TLS it would look cut short */
    }
    conn_leg_close(leg, reset);
}

const struct tls_stream *conn_leg_tls(const struct conn_leg *leg)
{
    if (leg->kind == CONN_LEG_STREAM && leg->hs.session != NULL) {
        const struct conn *carrier = (const struct conn *)hbone_session_arg(leg->hs.session);
        leg = &carrier->peer;
    }
    return leg->kind == CONN_LEG_TLS && stream_is_open(&leg->s) ? &leg->tls : NULL;
}

const struct tls_peer *conn_leg_peer(const struct conn_leg *leg)
{
    const struct tls_stream *tls = conn_leg_tls(leg);
    return tls != NULL ? tls->peer : NULL;
}
