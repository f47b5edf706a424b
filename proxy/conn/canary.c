/*
 * canary: connections that the proxy makes to itself to see whether they are captured
 * (docs/interception.md). They need no identity, no route and no policy, and go nowhere. Outside of
 * a container somebody else may dial the inbound one, by the workload's address: whoever does is
 * counted, and learns by being accepted that it is captured.
 */
#include "conn_priv.h"

#include <arpa/inet.h>
#include <postern/intercept.h>
#include <postern/os.h>
#include <string.h>

/* port, family, direction, and the time modulo what is left of 64 bits. */
enum { TIME_BITS = 46 };
#define TIME_MASK ((UINT64_C(1) << TIME_BITS) - 1)

static uint64_t note_of(enum conf_direction d, int family, uint16_t port)
{
    return (uint64_t)port << (TIME_BITS + 2) | (uint64_t)(family == AF_INET6) << (TIME_BITS + 1) |
           (uint64_t)(d == CONF_INBOUND) << TIME_BITS;
}

static void note(struct conn_canary *k, uint64_t what, uint64_t now_ms)
{
    unsigned at = atomic_fetch_add_explicit(&k->at, 1, memory_order_relaxed) % CONN_CANARY_NOTES;
    atomic_store_explicit(&k->notes[at], what | (now_ms & TIME_MASK), memory_order_release);
}

bool conn_canary_seen(const struct conn_canary *k, enum conf_direction d, int family, uint16_t port,
                      uint64_t since_ms)
{
    uint64_t want = note_of(d, family, port);
    for (size_t i = 0; i < CONN_CANARY_NOTES; i++) {
        uint64_t n =
            atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)&k->notes[i], memory_order_acquire);
        if ((n & ~TIME_MASK) == want && (n & TIME_MASK) >= (since_ms & TIME_MASK)) {
            return true;
        }
    }
    return false;
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
    uint64_t now_ms = os_now_ms();
    if (inbound && !net_addr_is_loopback(&c->original)) {
        atomic_fetch_add_explicit(&k->from_outside, 1, memory_order_relaxed);
        atomic_store_explicit(&k->last_outside_ms, now_ms, memory_order_relaxed);
    } else {
        note(k, note_of(c->direction, c->source.sa.sa_family, net_addr_port(&c->source)), now_ms);
    }
    conn_close(c, CONN_CLOSE_CANARY);
    return true;
}
