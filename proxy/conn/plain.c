/*
 * Ports that take plaintext beside mTLS, where the configuration names them: the first bytes are
 * read, and what can be no TLS is a peer without an identity from then on. What looks like TLS goes
 * to the handshake, and nothing leads from there back to plaintext. docs/permissive.md.
 */
#include "conn_priv.h"

#include <stdlib.h>

/* The port by which the configuration knows it: 0 for a listener of one destination. */
static uint16_t port_of(const struct conn *c)
{
    return c->target != NULL ? 0 : conn_port(c);
}

static const struct conf_permissive *rules(const struct conn *c)
{
    return snapshot_permissive(conn_snapshot(c), c->listener, port_of(c));
}

bool conn_plain_wanted(const struct conn *c)
{
    return c->carrier == NULL && !conn_is_stream(c) && (c->plain == NULL || !c->plain->done) &&
           rules(c) != NULL;
}

bool conn_plain_holds(const struct conn *c)
{
    return !c->plaintext || rules(c) != NULL;
}

struct str conn_plain_take(struct conn *c)
{
    struct conn_plain *p = c->plain;
    if (p == NULL) {
        return STR_NONE;
    }
    struct str all = {(const char *)p->bytes, p->n};
    p->n = 0;
    return all;
}

/* --- telling ---------------------------------------------------------------------------------- */

/* On a port whose clients speak first in any case, silence says nothing. */
static bool silence_tells(const struct conn *c)
{
    return c->protocol == CONF_PROTOCOL_TCP && !conn_detect_wanted(c);
}

void conn_plain_start(struct conn *c)
{
    c->plain =
        (struct conn_plain *)conn_first_begin(c, &c->peer, CONN_FIRST_BYTES, sizeof(*c->plain));
    if (c->plain == NULL) {
        return;
    }
    if (silence_tells(c) && rules(c)->wait_ms < conn_handshake_ms(c)) {
        loop_timer_arm(&c->timer, rules(c)->wait_ms);
    }
    conn_plain_step(c);
}

static void known(struct conn *c)
{
    c->plain->done = true;
    conn_first_done(c, &c->peer);
}

static void is_tls(struct conn *c)
{
    known(c);
    conn_inbound_handshake(c);
}

/* The port may have turned strict meanwhile: then it is what a strict port makes of it. */
static void is_plaintext(struct conn *c)
{
    struct conn_plain *p = c->plain;
    known(c);
    if (!conn_catch_up(c)) {
        return;
    }
    if (rules(c) == NULL) {
        conn_inbound_handshake(c);
        return;
    }
    c->plaintext = true;
    p->port = port_of(c);
    p->unheard = p->n == 0;
    p->class = (uint8_t)permissive_class(p->bytes, p->n);
    counter_add(&c->worker->counters.plaintext_permissive, 1);
    conn_inbound_verified(c);
}

void conn_plain_step(struct conn *c)
{
    struct conn_plain *p = c->plain;
    struct conn_leg *leg = &c->peer;
    size_t n = 0;
    if (!conn_first_wanted(leg)) {
        return;
    }
    enum stream_outcome o = stream_read(&leg->s, p->bytes + p->n, sizeof(p->bytes) - p->n, &n);
    if (o == STREAM_EOF && p->n == 0) {
        conn_close(c, CONN_CLOSE_DONE); /* it wanted nothing */
        return;
    }
    if (!conn_first_got(c, leg, o)) { /* or is the beginning of a record, and no more than that */
        return;
    }
    p->n = (uint8_t)(p->n + n);
    switch (permissive_first(p->bytes, p->n)) {
    case PERMISSIVE_TLS:
        is_tls(c);
        break;
    case PERMISSIVE_PLAIN:
        is_plaintext(c);
        break;
    case PERMISSIVE_MORE:
        conn_leg_want(leg, LOOP_READ);
        break;
    }
}

/* Whatever may be the beginning of a handshake is one. */
void conn_plain_timeout(struct conn *c)
{
    if (c->plain->n > 0) {
        is_tls(c);
    } else if (silence_tells(c)) {
        is_plaintext(c);
    } else {
        conn_record_handshake_timeout(c, &c->peer);
        conn_close(c, CONN_CLOSE_HANDSHAKE_TIMEOUT);
    }
}

bool conn_plain_heard(struct conn *c, const uint8_t *data, size_t n)
{
    c->plain->unheard = false;
    if (permissive_first(data, n) == PERMISSIVE_PLAIN) {
        return true;
    }
    conn_close(c, CONN_CLOSE_TLS_TOO_LATE); /* the workload is to see nothing of it */
    return false;
}

/* --- counting --------------------------------------------------------------------------------- */

void conn_plain_decided(struct conn *c, bool allowed)
{
    if (c->plaintext) {
        permissive_book_decided(c->worker->book, &c->plain->visit, (uint16_t)c->listener,
                                c->plain->port, &c->source, (enum permissive_class)c->plain->class,
                                allowed, loop_now_ms(c->worker->loop));
    }
}

/* A stream's session came to another listener than the port's plaintext does. */
void conn_plain_not(struct conn *c)
{
    const struct snapshot *s = conn_snapshot(c);
    size_t i = c->listener;
    uint16_t port = port_of(c);
    if (conn_is_stream(c)) {
        for (i = 0; i < s->files->n_listeners && snapshot_permissive(s, i, port) == NULL; i++) {
        }
    }
    if (i < s->files->n_listeners && snapshot_permissive(s, i, port) != NULL) {
        permissive_book_mtls(c->worker->book, (uint16_t)i, port, loop_now_ms(c->worker->loop));
    }
}

void conn_plain_free(struct conn *c)
{
    if (c->plaintext) {
        permissive_book_left(c->worker->book, &c->plain->visit, (uint16_t)c->listener,
                             c->plain->port, &c->source, (enum permissive_class)c->plain->class,
                             loop_now_ms(c->worker->loop));
    }
    free(c->plain);
    c->plain = NULL;
}
