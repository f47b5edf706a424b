/*
 * Choosing by server name: the client's first message is read before anything is answered. What was
 * read is then given to TLS, or sent on untouched where the route passes it through.
 */
#include "conn_priv.h"

#include <stdlib.h>

static struct str name_of(const struct conn *c)
{
    const struct conn_hello *h = c->hello;
    return h != NULL && h->done ? (struct str){h->said.server_name, h->said.server_name_len}
                                : STR_NONE;
}

struct conn_place conn_place_in(const struct conn *c, const struct snapshot_listener *l)
{
    struct conn_place p = {.route = CLIENT_HELLO_NO_ROUTE};
    if (l->conf->capture != CONF_EXPLICIT) {
        return p;
    }
    if (l->n_patterns > 0) {
        p.route = client_hello_route(l->patterns, l->n_patterns, name_of(c));
        p.passthrough = p.route >= 0 && l->conf->sni[p.route].passthrough;
    }
    p.target = snapshot_listener_target(l, p.route);
    return p;
}

void conn_place(struct conn *c)
{
    if (c->carrier != NULL) {
        c->target = NULL; /* it goes where it was sent */
        return;
    }
    struct conn_place p = conn_place_in(c, conn_listener(c));
    c->target = p.target;
    c->passthrough = p.passthrough;
}

bool conn_hello_wanted(const struct conn *c)
{
    return conn_listener(c)->n_patterns > 0 && (c->hello == NULL || !c->hello->done);
}

void conn_hello_start(struct conn *c)
{
    c->hello = (struct conn_hello *)calloc(1, sizeof(*c->hello));
    if (c->hello == NULL || !conn_leg_watch(c, &c->peer)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    c->hello->in = (struct buf)BUF_INIT(CLIENT_HELLO_WIRE_MAX);
    conn_set_state(c, CONN_HELLO);
    loop_timer_arm(&c->timer, conn_handshake_ms(c));
    c->peer.ready = LOOP_READ; /* the client speaks first, and mostly has by now */
    conn_hello_step(c);
}

/* The time for the handshake runs from the accept on. */
uint64_t conn_handshake_ms(const struct conn *c)
{
    uint64_t all = conn_conf(c)->timeouts.handshake_ms;
    uint64_t used = c->plain != NULL && c->plain->done   ? c->plain->took_ms
                    : c->hello != NULL && c->hello->done ? c->hello->took_ms
                    : c->told != NULL                    ? c->told->took_ms
                                                         : 0;
    return used < all ? all - used : 1;
}

static void refuse(struct conn *c, enum client_hello_result r)
{
    struct log_line l;
    log_begin(&l, c->worker->log, LOG_WARN, "hello_refused");
    conn_record_common(&l, c);
    log_str(&l, "step", client_hello_result_name(r));
    log_uint(&l, "bytes", buf_len(&c->hello->in));
    log_end(&l);
    conn_close(c, CONN_CLOSE_BAD_HELLO);
}

static void found(struct conn *c)
{
    c->hello->done = true;
    c->hello->took_ms = loop_now_ms(c->worker->loop) - c->opened_ms;
    conn_place(c);
    conn_leg_want(&c->peer, 0); /* what comes next waits in the kernel, also while it is held */
    if (c->target->conf->kind == CONF_TARGET_NONE) {
        conn_close(c, CONN_CLOSE_NO_SNI_ROUTE);
        return;
    }
    conn_inbound_start(c);
}

void conn_hello_step(struct conn *c)
{
    struct conn_hello *h = c->hello;
    struct conn_leg *leg = &c->peer;
    size_t n = 0;
    if ((leg->ready & LOOP_READ) == 0) {
        return;
    }
    leg->ready = 0;
    switch (stream_read(&leg->s, c->worker->scratch.plain, h->in.max - buf_len(&h->in), &n)) {
    case STREAM_OK:
        break;
    case STREAM_AGAIN:
        conn_leg_want(leg, LOOP_READ);
        return;
    case STREAM_EOF:
    case STREAM_FAILED:
        c->sys_errno = leg->s.sys_errno;
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
        return;
    }
    if (!buf_append(&h->in, c->worker->scratch.plain, n)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    enum client_hello_result r =
        client_hello_read(&h->scan, buf_head(&h->in), buf_len(&h->in), &h->said);
    if (r == CLIENT_HELLO_FOUND) {
        found(c);
    } else if (r == CLIENT_HELLO_MORE) {
        conn_leg_want(leg, LOOP_READ);
    } else {
        refuse(c, r);
    }
}

void conn_hello_free(struct conn *c)
{
    if (c->hello != NULL) {
        buf_reset(&c->hello->in);
        free(c->hello);
        c->hello = NULL;
    }
}
