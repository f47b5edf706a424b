/* Connecting to the other side. A name may have several addresses: they are tried in turn, the
 * first one another than last time, within one deadline. */
#include "conn_priv.h"

#include <errno.h>

enum { TRIES_MAX = 4 };

enum conn_reason conn_dial_reason(int sys_errno)
{
    switch (sys_errno) {
    case ECONNREFUSED:
    case EAGAIN: /* a Unix socket whose queue is full */
        return CONN_CLOSE_CONNECT_REFUSED;
    case ETIMEDOUT:
        return CONN_CLOSE_CONNECT_TIMEOUT;
    case ELOOP:
        return CONN_CLOSE_LOOP;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return CONN_CLOSE_NO_MEMORY;
    default:
        return CONN_CLOSE_CONNECT_FAILED;
    }
}

/* Whom it connects to first: the target, or a proxy that is asked for a tunnel there. Of a list it
 * is none of them: which one, balance.c says. */
const struct snapshot_target *conn_next_hop(const struct conn *c)
{
    return conn_tunnel_wanted(c) ? &conn_listener(c)->connect_proxy->target : c->target;
}

bool conn_has_address(const struct conn *c)
{
    if (c->target == NULL || conn_is_listed(c)) {
        return conn_balance_has_address(c);
    }
    return snapshot_has_address(conn_snapshot(c), conn_next_hop(c));
}

void conn_dial_begin(struct conn *c)
{
    c->dial_left = 1;
    c->dial_at = c->dial_tried = 0;
    c->dial_end_ms = loop_now_ms(c->worker->loop) + conn_conf(c)->timeouts.connect_ms;
    c->tries_end_ms = c->dial_end_ms + conn_conf(c)->timeouts.handshake_ms;
    if (conn_is_listed(c) && c->relay && !conn_balance_again(c)) {
        c->dial_left = 0;
        return;
    }
    if (c->target == NULL || conn_is_listed(c)) {
        c->dial_left = (uint8_t)conn_balance_tries(c);
        return;
    }
    if (conn_next_hop(c)->conf->kind != CONF_TARGET_HOST) {
        return;
    }
    struct net_addr addrs[RESOLVE_ADDRS_MAX];
    size_t preferred;
    size_t n = snapshot_addresses(conn_snapshot(c), conn_next_hop(c), addrs, RESOLVE_ADDRS_MAX,
                                  &preferred);
    c->dial_left = (uint8_t)(n < TRIES_MAX ? n : TRIES_MAX);
    c->dial_at = (uint8_t)(preferred > 0 ? c->worker->dial_turn++ % preferred : 0);
}

/* The address of the next try: those of the best family in a circle, then the others. */
static bool next_address(struct conn *c)
{
    bool chosen = c->target == NULL || conn_is_listed(c);
    const struct snapshot_target *t = chosen ? NULL : conn_next_hop(c);
    if (t == NULL) { /* of several endpoints the first is chosen already */
        return c->upstream.len > 0 &&
               (c->balance == NULL || c->dial_tried == 0 || conn_balance_next(c, false));
    }
    struct net_addr addrs[RESOLVE_ADDRS_MAX];
    size_t preferred;
    size_t n = snapshot_addresses(conn_snapshot(c), t, addrs, RESOLVE_ADDRS_MAX, &preferred);
    if (n == 0) {
        return false;
    }
    size_t tried = c->dial_tried;
    size_t at = tried < preferred ? (c->dial_at + tried) % preferred : tried % n;
    c->upstream = addrs[at];
    return true;
}

/* A name that has come to mean a listener of this very process: that of an address is refused in
 * the file. */
static bool leads_back(const struct conn *c)
{
    bool named = c->target != NULL && !conn_is_listed(c)
                     ? conn_next_hop(c)->conf->kind == CONF_TARGET_HOST
                     : c->balance != NULL;
    return named && snapshot_is_own_port(conn_snapshot(c)->files, &c->upstream, false);
}

int conn_dial_fd(struct conn *c, bool *ret_done)
{
    int fd = -1;
    errno = EHOSTUNREACH;
    while (fd == -1 && c->dial_left > 0) {
        c->dial_left--;
        if (c->target != NULL && conn_next_hop(c)->conf->kind == CONF_TARGET_UNIX) {
            fd = net_dial_unix(c->target->conf->path, ret_done);
        } else if (!next_address(c)) {
            errno = EHOSTUNREACH;
        } else if (leads_back(c)) {
            errno = ELOOP;
        } else if (conn_listener(c)->conf->transparent) {
            fd = net_dial_from(&c->source, &c->upstream, ret_done);
        } else {
            fd = net_dial(&c->upstream, ret_done);
        }
        c->dial_tried++;
        if (fd == -1 && conn_dial_reason(errno) == CONN_CLOSE_NO_MEMORY) {
            c->dial_left = 0; /* our own want is nobody else's failure */
        }
    }
    return fd;
}

uint32_t conn_dial_ms(const struct conn *c)
{
    uint64_t now = loop_now_ms(c->worker->loop);
    uint64_t left = c->dial_end_ms > now ? c->dial_end_ms - now : 0;
    uint64_t one = left / (1U + c->dial_left);
    return one > 0 ? (uint32_t)one : 1;
}

/* True when connected. False: it waits, or the connection is closed. */
static bool try_next(struct conn *c, struct conn_leg *leg)
{
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
    loop_timer_arm(&c->timer, conn_dial_ms(c));
    if (!conn_leg_watch(c, leg)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    /* The other side waits meanwhile: what it sends stays in the kernel. */
    conn_leg_want(conn_other(c, leg), 0);
    conn_leg_want(leg, LOOP_WRITE);
    return false;
}

bool conn_dial(struct conn *c, struct conn_leg *leg)
{
    conn_set_state(c, CONN_DIAL);
    conn_dial_begin(c);
    return try_next(c, leg);
}

uint32_t conn_dial_handshake_ms(const struct conn *c)
{
    uint32_t ms = conn_conf(c)->timeouts.handshake_ms;
    uint64_t now = loop_now_ms(c->worker->loop);
    uint64_t left = c->tries_end_ms > now ? c->tries_end_ms - now : 1;
    uint64_t one = left / (1U + c->dial_left);
    return c->balance == NULL || one >= ms ? ms : one > 0 ? (uint32_t)one : 1;
}

/* Whoever is there was told nothing but that it is not right: its alert goes out. */
bool conn_dial_another(struct conn *c, struct conn_leg *leg, bool *ret_connected)
{
    uint64_t now = loop_now_ms(c->worker->loop);
    uint64_t end = now + conn_conf(c)->timeouts.connect_ms;
    if (c->balance == NULL || c->dial_left == 0 || now >= c->tries_end_ms ||
        !conn_balance_next(c, true)) {
        return false;
    }
    conn_leg_end(leg, false);
    c->dial_tried = 0; /* it is chosen already */
    c->dial_end_ms = end < c->tries_end_ms ? end : c->tries_end_ms;
    conn_set_state(c, CONN_DIAL);
    *ret_connected = try_next(c, leg);
    return true;
}

static bool failed(struct conn *c, struct conn_leg *leg, int sys_errno)
{
    if (c->dial_left > 0) {
        conn_leg_close(leg, true);
        return try_next(c, leg);
    }
    c->sys_errno = sys_errno;
    conn_close(c, conn_dial_reason(sys_errno));
    return false;
}

bool conn_dial_step(struct conn *c, struct conn_leg *leg)
{
    if (leg->ready == 0) {
        return false;
    }
    leg->ready = 0;
    int e = net_dial_error(leg->s.fd);
    return e == 0 || failed(c, leg, e);
}

void conn_dial_timeout(struct conn *c)
{
    struct conn_leg *leg = conn_upstream(c);
    if (failed(c, leg, ETIMEDOUT)) {
        leg->ready = LOOP_WRITE; /* the next address was there at once */
        conn_drive(c);
    }
}
