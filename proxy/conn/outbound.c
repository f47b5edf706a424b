/* Workload -> mesh: where does it go, who has to be there; and what both directions share of
 * waiting for an identity, dialling and shaking hands. */
#include "conn_priv.h"

#include <errno.h>
#include <postern/os.h>
#include <unistd.h>

/* Where the application wanted to go, and the route there. False: closed. */
static bool find_route(struct conn *c)
{
    const struct snapshot_files *files = conn_snapshot(c)->files;
    const struct snapshot_listener *l = &files->listeners[c->listener];
    if (l->conf->capture == CONF_EXPLICIT) {
        c->original = c->upstream = l->to;
        c->route = l->explicit_route;
        c->transport = CONF_TRANSPORT_DIRECT;
        return true;
    }
    if (c->original.len == 0 && !net_original_dst(c->app.s.fd, &c->original)) {
        conn_close(c, CONN_CLOSE_NOT_REDIRECTED);
        return false;
    }
    c->upstream = c->original;
    if (snapshot_is_own_port(files, &c->original, false)) {
        conn_close(c, CONN_CLOSE_LOOP);
        return false;
    }
    bool passthrough = false;
    c->route = snapshot_route(conn_snapshot(c), &c->original, &passthrough);
    if (c->route == NULL && !passthrough) {
        conn_close(c, CONN_CLOSE_UNLISTED);
        return false;
    }
    c->transport = c->route != NULL ? c->route->transport : CONF_TRANSPORT_DISABLE;
    return true;
}

static void start_handshake(struct conn *c)
{
    const struct snapshot_identity *own = conn_snapshot(c)->identity;
    int fd = c->peer.s.fd;
    c->peer.is_tls = true;
    conn_set_state(c, CONN_HANDSHAKE);
    loop_timer_arm(&c->timer, conn_conf(c)->timeouts.handshake_ms);
    if (tls_stream_init_client(&c->peer.tls, &c->worker->tls, own->client, c->route->identities,
                               c->route->n_identities, fd) == -1) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    c->peer.tls.deny = conn_deny(c);
    conn_outbound_step(c);
}

static void connected(struct conn *c)
{
    if (!conn_leg_watch(c, &c->app) || !conn_leg_watch(c, &c->peer)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
    } else if (c->transport == CONF_TRANSPORT_DIRECT) {
        start_handshake(c);
    } else {
        struct conn_counters *n = &c->worker->counters;
        counter_add(c->route != NULL ? &n->plaintext_disabled : &n->plaintext_passthrough, 1);
        conn_pump_start(c);
    }
}

void conn_outbound_start(struct conn *c)
{
    if (!conn_hold(c, false)) {
        return;
    }
    if (conn_quarantined(c)) {
        conn_close(c, CONN_CLOSE_QUARANTINED);
        return;
    }
    if (!find_route(c)) {
        return;
    }
    if (c->transport == CONF_TRANSPORT_DIRECT && !conn_hold(c, true)) {
        return;
    }
    if (conn_dial(c, &c->peer, &c->upstream)) {
        connected(c);
    }
}

void conn_outbound_step(struct conn *c)
{
    if (c->state == CONN_DIAL) {
        if (conn_dial_step(c, &c->peer)) {
            connected(c);
        }
        return;
    }
    if (conn_handshake(c)) {
        conn_pump_start(c);
    }
}

/* --- both directions -------------------------------------------------------------------------- */

bool conn_hold(struct conn *c, bool for_identity)
{
    const struct snapshot *s = conn_snapshot(c);
    if ((!for_identity || s->identity != NULL) && (!s->wants_state || s->state != NULL)) {
        return true;
    }
    if (c->worker->n_held >= CONN_HELD_MAX) {
        conn_close(c, CONN_CLOSE_HOLD_LIMIT);
        return false;
    }
    conn_set_state(c, CONN_HELD);
    loop_timer_arm(&c->timer, conn_conf(c)->identity.wait_ms);
    return false;
}

void conn_resume_held(struct conn_worker *w)
{
    struct conn *next;
    for (struct conn *c = w->conns; c != NULL && w->n_held > 0; c = next) {
        next = c->next;
        if (c->state != CONN_HELD) {
            continue;
        }
        conn_use_current(c);
        if (c->direction == CONF_INBOUND) {
            conn_inbound_start(c);
        } else {
            conn_outbound_start(c);
        }
    }
}

bool conn_handshake(struct conn *c)
{
    struct conn_leg *leg = &c->peer;
    leg->ready = 0;
    if (stream_blocked(&leg->s) && stream_flush(&leg->s) == STREAM_FAILED) {
        leg->s.failed = true;
    }
    switch (tls_handshake(&leg->tls)) {
    case STREAM_OK:
        counter_add(&c->worker->counters.handshakes[c->direction], 1);
        leg->tls.party = NULL;
        leg->tls.deny = NULL;
        leg->tls.expected = NULL;
        leg->tls.n_expected = 0;
        return true;
    case STREAM_AGAIN:
        conn_leg_want(leg, LOOP_READ | (stream_blocked(&leg->s) ? LOOP_WRITE : 0U));
        return false;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    conn_record_handshake(c, NULL, NULL);
    conn_close(c, CONN_CLOSE_HANDSHAKE_FAILED);
    return false;
}

enum conn_reason conn_dial_reason(int sys_errno)
{
    switch (sys_errno) {
    case ECONNREFUSED:
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

bool conn_dial(struct conn *c, struct conn_leg *leg, const struct net_addr *to)
{
    conn_set_state(c, CONN_DIAL);
    bool done = false;
    int fd = net_dial(to, &done);
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
