/* Workload -> mesh: where does it go, who has to be there; and what both directions share of
 * waiting for an identity and shaking hands. */
#include "conn_priv.h"

#include <postern/os.h>

static void count_unlisted(struct conn *c)
{
    const struct net_addr *a = &c->original;
    bool v4 = a->sa.sa_family == AF_INET;
    const void *addr = v4 ? (const void *)&a->in4.sin_addr : (const void *)&a->in6.sin6_addr;
    enum conf_unlisted_class class = c->pass != NULL ? c->pass->preset
                                     : conf_is_metadata(a->sa.sa_family, (const uint8_t *)addr)
                                         ? CONF_UNLISTED_METADATA
                                         : CONF_UNLISTED_OTHER;
    counter_add(&c->worker->counters.unlisted[c->pass != NULL][class], 1);
}

/* Where the application wanted to go, and the route there. False: closed. */
static bool find_route(struct conn *c)
{
    const struct snapshot_files *files = conn_snapshot(c)->files;
    if (c->target != NULL) {
        c->original = c->upstream = c->target->address;
        c->route = conn_listener(c)->explicit_route;
        if (conn_is_listed(c) && !conn_balance_begin(c)) {
            return false;
        }
        conn_transport_choose(c);
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
    c->route = snapshot_route(conn_snapshot(c), &c->original, NULL, &c->pass);
    if (c->route == NULL) {
        count_unlisted(c);
    }
    if (c->route == NULL && c->pass == NULL) {
        conn_close(c, CONN_CLOSE_UNLISTED);
        return false;
    }
    if (!conn_balance_begin(c)) {
        return false;
    }
    conn_transport_choose(c);
    return true;
}

static void start_handshake(struct conn *c)
{
    conn_set_state(c, CONN_HANDSHAKE);
    loop_timer_arm(&c->timer, conn_dial_handshake_ms(c));
    if (conn_tls_connect(c, &c->peer)) {
        conn_outbound_step(c);
    }
}

static void tunnel(struct conn *c, enum stream_outcome o)
{
    if (o == STREAM_OK) {
        start_handshake(c);
    } else if (o != STREAM_AGAIN) {
        conn_close(c, CONN_CLOSE_TUNNEL_REFUSED);
    }
}

static void connected(struct conn *c)
{
    bool watched = c->carrier != NULL || conn_leg_watch(c, &c->app);
    if (!watched || !conn_leg_watch(c, &c->peer)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
    } else if (conn_tunnel_wanted(c)) {
        conn_leg_want(&c->app, 0);
        conn_set_state(c, CONN_TUNNEL);
        loop_timer_arm(&c->timer, conn_conf(c)->timeouts.connect_ms);
        tunnel(c, conn_tunnel_start(c, &c->peer));
    } else if (c->transport != CONF_TRANSPORT_DISABLE) {
        start_handshake(c);
    } else {
        struct conn_counters *n = &c->worker->counters;
        counter_add(c->route != NULL ? &n->plaintext_disabled : &n->plaintext_passthrough, 1);
        conn_pump_start(c);
    }
}

void conn_outbound_start(struct conn *c)
{
    if (conn_told_wanted(c)) {
        conn_told_start(c);
        return;
    }
    if (c->target == NULL && c->worker->shared->canary != NULL && c->original.len == 0 &&
        net_original_dst(c->app.s.fd, &c->original) && conn_canary_took(c)) {
        return;
    }
    if (!conn_hold(c, false)) {
        return;
    }
    if (conn_quarantined(c)) {
        conn_close_denied(c, CONN_CLOSE_QUARANTINED);
        return;
    }
    if (!find_route(c)) {
        return;
    }
    if ((c->transport != CONF_TRANSPORT_DISABLE || !conn_has_address(c)) && !conn_hold(c, true)) {
        return;
    }
    if (c->transport == CONF_TRANSPORT_HBONE) {
        conn_opening_start(c);
    } else {
        conn_outbound_dial(c);
    }
}

void conn_outbound_dial(struct conn *c)
{
    if (conn_dial(c, &c->peer)) {
        connected(c);
    }
}

/* Nothing of the application's was said to whoever is there, so another endpoint may be asked. */
bool conn_outbound_another(struct conn *c)
{
    bool there = false;
    if (c->direction == CONF_INBOUND || c->balance == NULL) {
        return false;
    }
    if (!conn_catch_up(c)) {
        return true;
    }
    if (!conn_dial_another(c, &c->peer, &there)) {
        return false;
    }
    if (there) {
        connected(c);
    }
    return true;
}

void conn_outbound_step(struct conn *c)
{
    if (c->state == CONN_DIAL) {
        if (conn_dial_step(c, &c->peer)) {
            connected(c);
        }
        return;
    }
    if (c->state == CONN_TUNNEL) {
        tunnel(c, conn_tunnel_step(c, &c->peer));
    } else if (!conn_handshake(c)) {
        return;
    } else if (c->carrier != NULL) {
        conn_session_start(c);
    } else {
        conn_transport_count(c);
        conn_pump_start(c);
    }
}

/* --- both directions -------------------------------------------------------------------------- */

bool conn_has_identity(const struct conn *c)
{
    const struct snapshot *s = conn_snapshot(c);
    return conn_party(c, s, c->direction == CONF_OUTBOUND) != NULL &&
           (!c->relay || conn_party(c, s, true) != NULL);
}

bool conn_identity_there(const struct conn *c)
{
    bool plain =
        c->direction == CONF_OUTBOUND && c->route != NULL && c->transport == CONF_TRANSPORT_DISABLE;
    return c->passthrough || plain || conn_has_identity(c);
}

bool conn_hold(struct conn *c, bool for_identity)
{
    const struct snapshot *s = conn_snapshot(c);
    bool there = !for_identity || (conn_identity_there(c) && conn_has_address(c));
    if (there && (!s->wants_state || s->state != NULL)) {
        return true;
    }
    if (c->state == CONN_HELD) {
        return false; /* what came was not what it waits for */
    }
    if (c->worker->n_held >= CONN_HELD_MAX) {
        conn_close(c, CONN_CLOSE_HOLD_LIMIT);
        return false;
    }
    conn_set_state(c, CONN_HELD);
    loop_timer_arm(&c->timer, conn_conf(c)->identity.wait_ms);
    return false;
}

/* --- those that were held --------------------------------------------------------------------- */

enum {
    RESUME_MS = 1, /* in one turn, then the others have theirs: each may be a handshake */
    RESUME_MAX = 32,
    RESUME_PAUSE_MS = 1,
};

void conn_resume(struct conn *c)
{
    c->resume = false;
    conn_use_current(c);
    c->route = NULL; /* of a snapshot that may be gone now: both are looked for anew */
    c->pass = NULL;
    if (c->direction == CONF_INBOUND) {
        conn_inbound_start(c);
    } else {
        conn_outbound_start(c);
    }
}

void worker_resume_some(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    uint64_t began = os_now_ms();
    unsigned n = 0;
    struct conn *next;
    for (struct conn *c = w->conns; c != NULL && w->n_held > 0; c = next) {
        next = c->next;
        if (c->state != CONN_HELD || !c->resume) {
            continue;
        }
        if (n == RESUME_MAX || (n > 0 && os_now_ms() - began >= RESUME_MS)) {
            loop_timer_arm(&w->resume_timer, RESUME_PAUSE_MS);
            return;
        }
        n++;
        conn_resume(c);
    }
}

void conn_resume_held(struct conn_worker *w)
{
    for (struct conn *c = w->conns; c != NULL && w->n_held > 0; c = c->next) {
        c->resume = c->state == CONN_HELD;
    }
    worker_resume_some(w);
}

bool conn_handshake(struct conn *c)
{
    switch (conn_tls_step(c, &c->peer)) {
    case STREAM_OK:
        return conn_catch_up(c); /* it was judged in the middle, maybe by what held before */
    case STREAM_AGAIN:
        return false;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    conn_record_handshake(c, &c->peer, NULL, NULL);
    if (!conn_outbound_another(c)) {
        conn_close(c, CONN_CLOSE_HANDSHAKE_FAILED);
    }
    return false;
}
