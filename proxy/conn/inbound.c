/* Mesh -> workload: handshake, who is it, may it, dial the workload. A relay then shakes hands
 * there as well, or goes on by a session. */
#include "conn_priv.h"

#include <postern/os.h>

const struct conf_port *conn_declared_port(const struct conf_listener *l, uint16_t port)
{
    for (size_t i = 0; i < l->n_ports; i++) {
        if (l->ports[i].port == port) {
            return &l->ports[i];
        }
    }
    return NULL;
}

bool conn_find_port(struct conn *c)
{
    if (snapshot_is_own_port(conn_snapshot(c)->files, &c->original, true)) {
        conn_close(c, CONN_CLOSE_LOOP);
        return false;
    }
    c->upstream = c->original;
    const struct conf_listener *l = conn_listener(c)->conf;
    const struct conf_port *p = conn_declared_port(l, net_addr_port(&c->original));
    if (p != NULL) {
        c->protocol = p->protocol;
        c->proxy_protocol = (uint8_t)p->proxy_protocol;
        if (p->local_address.len > 0 && net_addr_from((const struct sockaddr *)&p->local_address.ss,
                                                      p->local_address.len, &c->upstream)) {
            net_addr_set_port(&c->upstream, net_addr_port(&c->original));
        }
    }
    c->undeclared = p == NULL && l->undeclared == CONF_UNDECLARED_DETECT;
    return true;
}

/* Where a session was made to: what its streams may ask for is there. */
static bool find_session(struct conn *c)
{
    if (c->carrier == NULL && conn_carrier_new(c) == NULL) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    c->target = NULL; /* its streams have one */
    c->ends_ms = 0;
    if (!net_original_dst(c->peer.s.fd, &c->original) &&
        !net_local_addr(c->peer.s.fd, &c->original)) {
        conn_close(c, CONN_CLOSE_DOWNSTREAM_RESET);
        return false;
    }
    return true;
}

/* Where the client wanted to go, and where that is here. False: closed. */
static bool find_workload(struct conn *c)
{
    const struct conf_listener *conf = conn_listener(c)->conf;
    if (conf->capture == CONF_HBONE || conf->takes_hbone) {
        return find_session(c);
    }
    if (c->target != NULL) {
        c->original = c->upstream = c->target->address;
        return true;
    }
    int fd = c->peer.s.fd;
    const struct snapshot_listener *l = conn_listener(c);
    if (l->conf->transparent ? !net_transparent_dst(fd, net_addr_port(&l->address), &c->original)
                             : !net_original_dst(fd, &c->original)) {
        conn_close(c, CONN_CLOSE_NOT_REDIRECTED);
        return false;
    }
    if (conn_canary_took(c)) {
        return false;
    }
    if (net_addr_is_loopback(&c->original)) {
        conn_close(c, CONN_CLOSE_LOOPBACK);
        return false;
    }
    return conn_find_port(c);
}

static void connected(struct conn *c);

void conn_inbound_start(struct conn *c)
{
    if (conn_told_wanted(c)) {
        conn_told_start(c);
        return;
    }
    if (conn_hello_wanted(c)) {
        conn_hello_start(c);
        return;
    }
    if (c->original.len == 0 && !find_workload(c)) {
        return;
    }
    if (!conn_hold(c, true)) {
        return;
    }
    if (conn_quarantined(c)) {
        conn_close_denied(c, CONN_CLOSE_QUARANTINED);
        return;
    }
    if (c->passthrough) {
        if (conn_dial(c, &c->app)) {
            connected(c);
        }
        return;
    }
    if (conn_plain_wanted(c)) {
        conn_plain_start(c);
    } else {
        conn_inbound_handshake(c);
    }
}

void conn_inbound_handshake(struct conn *c)
{
    conn_set_state(c, CONN_HANDSHAKE);
    loop_timer_arm(&c->timer, conn_handshake_ms(c));
    if (conn_tls_accept(c, &c->peer)) {
        conn_inbound_step(c); /* the client speaks first, and mostly has by now */
    }
}

static void upstream_handshake(struct conn *c)
{
    switch (conn_tls_step(c, &c->app)) {
    case STREAM_OK:
        if (conn_catch_up(c)) {
            if (c->transport_why != CONN_WHY_NONE) {
                conn_transport_count(c);
            }
            conn_stream_answer(c);
            conn_pump_start(c);
        }
        return;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    conn_record_handshake(c, &c->app, NULL, NULL);
    if (!conn_inbound_another(c)) {
        conn_close(c, CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED);
    }
}

static void start_upstream(struct conn *c)
{
    conn_set_state(c, CONN_UPSTREAM_HANDSHAKE);
    loop_timer_arm(&c->timer, conn_dial_handshake_ms(c));
    if (conn_tls_connect(c, &c->app)) {
        upstream_handshake(c);
    }
}

static void tunnel(struct conn *c, enum stream_outcome o)
{
    if (o == STREAM_OK) {
        start_upstream(c);
    } else if (o != STREAM_AGAIN) {
        conn_close(c, CONN_CLOSE_TUNNEL_REFUSED);
    }
}

static void connected(struct conn *c)
{
    if (!conn_leg_watch(c, &c->app)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
    } else if (c->relay && !c->passthrough) {
        conn_leg_want(&c->peer, 0);
        if (conn_tunnel_wanted(c)) {
            conn_set_state(c, CONN_TUNNEL);
            loop_timer_arm(&c->timer, conn_conf(c)->timeouts.connect_ms);
            tunnel(c, conn_tunnel_start(c, &c->app));
        } else {
            start_upstream(c);
        }
    } else if (!conn_prelude_send(c, &c->app)) {
        conn_close(c, CONN_CLOSE_UPSTREAM_RESET);
    } else {
        if (c->passthrough) {
            counter_add(&c->worker->counters.plaintext_sni, 1);
        }
        conn_stream_answer(c);
        conn_pump_start(c);
    }
}

void conn_inbound_dial(struct conn *c)
{
    if (conn_dial(c, &c->app)) {
        connected(c);
    }
}

/* By a session, if its listener says so and nothing that was learned says otherwise. */
static void go_on(struct conn *c)
{
    enum conn_reason why;
    if (conn_onward_by_session(c, &why)) {
        conn_opening_start(c);
    } else if (why == CONN_CLOSE_DONE) {
        conn_inbound_dial(c);
    } else {
        conn_close(c, why);
    }
}

/* Of a relay's several targets. */
bool conn_inbound_another(struct conn *c)
{
    bool there = false;
    if (c->state != CONN_UPSTREAM_HANDSHAKE || c->balance == NULL) {
        return false;
    }
    if (!conn_catch_up(c)) {
        return true;
    }
    if (!conn_dial_another(c, &c->app, &there)) {
        return false;
    }
    if (there) {
        connected(c);
    }
    return true;
}

void conn_inbound_step(struct conn *c)
{
    if (c->state == CONN_DIAL) {
        if (conn_dial_step(c, &c->app)) {
            connected(c);
        }
        return;
    }
    if (c->state == CONN_TUNNEL) {
        tunnel(c, conn_tunnel_step(c, &c->app));
        return;
    }
    if (c->state == CONN_UPSTREAM_HANDSHAKE) {
        upstream_handshake(c);
        return;
    }
    if (!conn_handshake(c)) {
        return;
    }
    if (c->carrier == NULL) {
        conn_inbound_verified(c);
    } else if (conn_identity_enter(c)) {
        conn_session_start(c);
    }
}

void conn_inbound_verified(struct conn *c)
{
    if (!conn_identity_enter(c)) {
        return;
    }
    if (!c->plaintext) {
        conn_plain_not(c);
    }
    if (conn_detect_wanted(c)) {
        conn_stream_answer(c); /* what it says is read, and it may wait for that */
        conn_detect_start(c);
        return;
    }
    conn_detect_declared(c);
    if (c->protocol == CONF_PROTOCOL_HTTP && conn_h2_wanted(c)) {
        conn_h2_start(c, NULL, 0);
        return;
    }
    if (c->protocol == CONF_PROTOCOL_HTTP) {
        conn_set_state(c, CONN_HTTP);
        conn_stream_answer(c); /* each request is judged, and dials the workload if it may */
        if (conn_http_start(c)) {
            conn_http_step(c);
        } else {
            conn_close(c, CONN_CLOSE_NO_MEMORY);
        }
        return;
    }
    conn_inbound_judge(c);
}

void conn_inbound_judge(struct conn *c)
{
    bool allowed = conn_judge(c);
    conn_audit_connection(c, NULL);
    if (!allowed) {
        conn_close(c, CONN_CLOSE_DENIED);
    } else {
        go_on(c);
    }
}
