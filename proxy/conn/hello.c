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
    c->hello = (struct conn_hello *)conn_first_begin(c, &c->peer, CONN_HELLO, sizeof(*c->hello));
    if (c->hello != NULL) {
        c->hello->in = (struct buf)BUF_INIT(CLIENT_HELLO_WIRE_MAX);
        conn_hello_step(c);
    }
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
    conn_place(c);
    conn_first_done(c, &c->peer);
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
    if (!conn_first_wanted(leg) || !conn_first_got(c, leg,
                                                   stream_read(&leg->s, c->worker->scratch.plain,
                                                               h->in.max - buf_len(&h->in), &n))) {
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
