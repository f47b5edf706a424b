/*
 * canary: connections that the proxy makes to itself to see whether they are captured
 * (docs/interception.md). They need no identity, no route and no policy, and go nowhere. Outside of
 * a container somebody else may dial the inbound one, by the workload's address: whoever does is
 * counted, learns by being accepted that it is captured, and, if it asks by HTTP, whether the proxy
 * is ready.
 */
#include "conn_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <postern/intercept.h>
#include <postern/os.h>
#include <string.h>
#include <sys/socket.h>

enum {
    ASKED_MS = 2000,   /* for the question to be whole, */
    ASKED_MAX = 16384, /* which has no more bytes than that */
};

/* --- the proxy's own -------------------------------------------------------------------------- */

void conn_canary_expect(struct conn_canary *k, enum conf_direction d, int family, uint16_t port)
{
    bool v6 = family == AF_INET6;
    atomic_store_explicit(&k->expected[d][v6], 0, memory_order_release);
    atomic_store_explicit(&k->came[d][v6], 0, memory_order_release);
    atomic_store_explicit(&k->expected[d][v6], port, memory_order_release);
}

bool conn_canary_seen(const struct conn_canary *k, enum conf_direction d, int family)
{
    bool v6 = family == AF_INET6;
    struct conn_canary *from = (struct conn_canary *)(uintptr_t)k;
    uint32_t port = atomic_load_explicit(&from->expected[d][v6], memory_order_acquire);
    return port != 0 && atomic_load_explicit(&from->came[d][v6], memory_order_acquire) == port;
}

/* Nobody else has that port meanwhile, on any address of this machine; from other machines nothing
 * comes from loopback. */
static void note(struct conn_canary *k, const struct conn *c)
{
    bool v6 = c->source.sa.sa_family == AF_INET6;
    uint32_t port = net_addr_port(&c->source);
    if (net_addr_is_loopback(&c->source) &&
        atomic_load_explicit(&k->expected[c->direction][v6], memory_order_acquire) == port) {
        atomic_store_explicit(&k->came[c->direction][v6], port, memory_order_release);
    }
}

static bool is_outbound_canary(const struct net_addr *a)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (net_addr_port(a) != INTERCEPT_CANARY_PORT) {
        return false;
    }
    if (a->sa.sa_family == AF_INET) {
        return inet_pton(AF_INET, INTERCEPT_CANARY_4, &v4) == 1 &&
               v4.s_addr == a->in4.sin_addr.s_addr;
    }
    return inet_pton(AF_INET6, INTERCEPT_CANARY_6, &v6) == 1 &&
           memcmp(&v6, &a->in6.sin6_addr, sizeof(v6)) == 0;
}

/* --- who asks from outside -------------------------------------------------------------------- */

bool conn_asked_whole(uint8_t *at, const uint8_t *p, size_t n)
{
    static const char end[4] = "\r\n\r\n";
    for (size_t i = 0; i < n; i++) {
        *at = p[i] == end[*at] ? (uint8_t)(*at + 1) : p[i] == '\r';
        if (*at == sizeof(end)) {
            return true;
        }
    }
    return false;
}

/* Whatever it asks for: the answer is the same. */
static void answer(struct conn *c)
{
    static const char yes[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n"
                              "Connection: close\r\n\r\nready\n";
    static const char no[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n"
                             "Content-Length: 10\r\nConnection: close\r\n\r\nnot ready\n";
    bool ready = atomic_load_explicit(&c->worker->shared->canary->ready, memory_order_relaxed);
    const char *text = ready ? yes : no;
    (void)stream_write(&c->peer.s, (const uint8_t *)text, strlen(text));
    conn_close(c, CONN_CLOSE_CANARY);
}

void conn_asked_step(struct conn *c)
{
    struct conn_leg *leg = &c->peer;
    uint8_t *raw = c->worker->scratch.raw;
    if ((leg->ready & LOOP_READ) == 0) {
        return;
    }
    leg->ready = 0;
    ssize_t n = recv(leg->s.fd, raw, NET_READ_MIN, 0);
    if (n > 0 && conn_asked_whole(&c->asked, raw, (size_t)n)) {
        answer(c);
        return;
    }
    c->linger_bytes += n > 0 ? (uint32_t)n : 0;
    bool later = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
    if (!later || c->linger_bytes > ASKED_MAX) {
        conn_close(c, CONN_CLOSE_CANARY); /* it asked whether it is captured, and nothing else */
        return;
    }
    conn_leg_want(leg, LOOP_READ);
}

static void begin_asked(struct conn *c)
{
    struct conn_canary *k = c->worker->shared->canary;
    atomic_fetch_add_explicit(&k->from_outside, 1, memory_order_relaxed);
    atomic_store_explicit(&k->last_outside_ms, os_now_ms(), memory_order_relaxed);
    if (!conn_leg_watch(c, &c->peer)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    conn_set_state(c, CONN_ASKED);
    loop_timer_arm(&c->timer, ASKED_MS);
    c->peer.ready = LOOP_READ; /* mostly it has said it by now */
    conn_asked_step(c);
}

bool conn_canary_took(struct conn *c)
{
    struct conn_canary *k = c->worker->shared->canary;
    if (k == NULL || c->original.len == 0) {
        return false;
    }
    bool inbound = c->direction == CONF_INBOUND;
    if (inbound ? net_addr_port(&c->original) != INTERCEPT_INBOUND_CANARY_PORT
                : !is_outbound_canary(&c->original)) {
        return false;
    }
    if (inbound && !net_addr_is_loopback(&c->original)) {
        begin_asked(c);
        return true;
    }
    note(k, c);
    conn_close(c, CONN_CLOSE_CANARY);
    return true;
}
