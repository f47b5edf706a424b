/*
 * Whether what ought to be captured still is: connections that the proxy makes to itself, round
 * after round (docs/interception.md). Main thread; the workers note what came (conn/canary.c).
 *
 * outbound: to an address whose rule stands before the proxy's own exemption; it has to arrive at
 * the outbound listener.
 *
 * inbound: with TPROXY likewise, over loopback.
 *
 * guard: with REDIRECT, which the kernel does not do over loopback, a connection to the inbound
 * listener itself has to be reset. The guard that does it is what closes the way past a redirection
 * that is lost.
 */
#include "proxy_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <postern/intercept.h>
#include <postern/mem.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CHECKS_MAX = 8,
    ANSWER_MS = 2000, /* over loopback; a busy worker has its time */
    AGAIN_MS = 200,   /* after a first failure: was that one? */
    LOST_AFTER = 3,   /* failures in a row */
    BACK_MS = 5000,   /* between rounds while something is lost, at most */
    JITTER = 5,       /* a fifth of the interval, either way */
    READY_MS = 1000,  /* as old as the answer to who asks from outside may be */
};

enum expects { ARRIVES, RESET };

struct check {
    struct proxy_canary *owner;
    enum expects expects;
    enum conf_direction direction;
    struct net_addr to;

    int fd; /* -1: not under way */
    struct loop_io *io;

    bool known, ok; /* known: once there is a verdict */
    unsigned failures;
    char why[120]; /* of the last failure */
};

struct proxy_canary {
    struct proxy *proxy;
    struct conn_canary shared;
    struct check checks[CHECKS_MAX];
    size_t n_checks;
    struct loop_timer timer; /* of the next round, or of the end of this one */
    struct loop_timer ready_timer;
    bool running;              /* a round is */
    uint64_t rounds, failures; /* of checks */
};

/* --- which ------------------------------------------------------------------------------------ */
static void add(struct proxy_canary *k, enum expects expects, enum conf_direction d,
                const char *address, uint16_t port)
{
    struct net_addr a = {.len = sizeof(struct sockaddr_in)};
    a.in4.sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &a.in4.sin_addr) != 1) {
        a = (struct net_addr){.len = sizeof(struct sockaddr_in6)};
        a.in6.sin6_family = AF_INET6;
        POSTERN_ASSERT(inet_pton(AF_INET6, address, &a.in6.sin6_addr) == 1);
    }
    net_addr_set_port(&a, port);
    for (size_t i = 0; i < k->n_checks; i++) {
        if (net_addr_equal(&k->checks[i].to, &a)) {
            return;
        }
    }
    if (k->n_checks < CHECKS_MAX) {
        k->checks[k->n_checks++] =
            (struct check){.owner = k, .expects = expects, .direction = d, .to = a, .fd = -1};
    }
}

static void add_listener(struct proxy_canary *k, const struct snapshot_listener *l)
{
    bool v6 = l->address.sa.sa_family == AF_INET6;
    bool any = net_addr_is_any(&l->address);
    uint16_t port = net_addr_port(&l->address);
    char text[INET6_ADDRSTRLEN];
    if (l->conf->direction == CONF_OUTBOUND) {
        add(k, ARRIVES, CONF_OUTBOUND, v6 ? INTERCEPT_CANARY_6 : INTERCEPT_CANARY_4,
            INTERCEPT_CANARY_PORT);
    } else if (any) { /* `::` takes both */
        enum expects e = l->conf->transparent ? ARRIVES : RESET;
        uint16_t to = l->conf->transparent ? INTERCEPT_INBOUND_CANARY_PORT : port;
        add(k, e, CONF_INBOUND, "127.0.0.1", to);
        if (v6) {
            add(k, e, CONF_INBOUND, "::1", to);
        }
    } else if (!l->conf->transparent) {
        const void *host =
            v6 ? (const void *)&l->address.in6.sin6_addr : (const void *)&l->address.in4.sin_addr;
        add(k, RESET, CONF_INBOUND,
            inet_ntop(v6 ? AF_INET6 : AF_INET, host, text, sizeof(text)) != NULL ? text : "::1",
            port);
    }
}

/* --- one check -------------------------------------------------------------------------------- */
static const char *name_of(const struct check *c)
{
    return c->direction == CONF_OUTBOUND ? "outbound" : c->expects == ARRIVES ? "inbound" : "guard";
}

static const char *family_of(const struct check *c)
{
    return c->to.sa.sa_family == AF_INET6 ? "ipv6" : "ipv4";
}

static void log_verdict(const struct check *c, bool first)
{
    struct log_line l;
    char text[NET_ADDR_TEXT_MAX];
    log_begin(&l, c->owner->proxy->log, c->ok ? LOG_INFO : LOG_ERROR,
              !c->ok  ? "capture_lost"
              : first ? "capture_proven"
                      : "capture_back");
    log_str(&l, "check", name_of(c));
    log_str(&l, "family", family_of(c));
    log_str(&l, "to", net_addr_text(&c->to, text));
    if (!c->ok) {
        log_str(&l, "error", c->why);
        log_str(&l, "advice",
                "`postern intercept --check` in this network namespace says what differs; not "
                "ready until it is back");
    }
    log_end(&l);
}

static void turn_verdict(struct check *c, bool ok)
{
    bool first = !c->known;
    bool changed = first || c->ok != ok;
    c->known = true;
    c->ok = ok;
    if (changed) {
        log_verdict(c, first);
        proxy_restart_check(c->owner->proxy);
    }
}

static bool any_under_way(const struct proxy_canary *k)
{
    for (size_t i = 0; i < k->n_checks; i++) {
        if (k->checks[i].fd != -1) {
            return true;
        }
    }
    return false;
}

static void end_round(struct proxy_canary *k);

/* why NULL: as it ought to be. */
static void end_check(struct check *c, const char *why)
{
    struct proxy_canary *k = c->owner;
    c->io = loop_io_free(c->io);
    if (c->fd != -1) {
        close(c->fd);
        c->fd = -1;
    }
    c->failures = why == NULL ? 0 : c->failures + 1;
    if (why == NULL) {
        turn_verdict(c, true);
    } else {
        k->failures++;
        (void)snprintf(c->why, sizeof(c->why), "%s", why);
        if (c->failures >= LOST_AFTER) {
            turn_verdict(c, false);
        }
    }
    if (k->running && !any_under_way(k)) {
        end_round(k);
    }
}

/* The connection has come about, or has ended. */
static void judge(struct check *c, int e)
{
    const struct conn_canary *notes = &c->owner->shared;
    char byte;
    if (c->expects == RESET) {
        /* ECONNRESET is our own listener's: it had accepted. */
        bool reached = e == 0 || e == ECONNRESET;
        end_check(c, e == ECONNREFUSED ? NULL
                     : reached         ? "the inbound listener can be reached past the redirection"
                                       : strerrordesc_np(e));
        return;
    }
    if (e != 0) {
        end_check(c,
                  e == ECONNREFUSED ? "refused: not captured, or no listener" : strerrordesc_np(e));
        return;
    }
    POSTERN_ASSERT(c->fd != -1);
    if (recv(c->fd, &byte, 1, MSG_DONTWAIT) == -1 && (errno == EAGAIN || errno == EINTR)) {
        loop_io_want(c->io, LOOP_READ); /* whoever took it has not said yet */
        return;
    }
    bool seen = conn_canary_seen(notes, c->direction, c->to.sa.sa_family);
    end_check(c, seen ? NULL : "somebody else took the connection: not captured");
}

static void on_ready(void *arg, unsigned ready)
{
    struct check *c = (struct check *)arg;
    (void)ready;
    judge(c, net_dial_error(c->fd));
}

/* Its port is known to the workers before they can have taken it. */
static void begin_check(struct check *c)
{
    bool done = false;
    uint16_t port = 0;
    c->fd = net_bound_socket(c->to.sa.sa_family, &port);
    if (c->fd != -1 && c->expects == ARRIVES) {
        conn_canary_expect(&c->owner->shared, c->direction, c->to.sa.sa_family, port);
    }
    if (c->fd == -1 || net_dial_on(c->fd, &c->to, &done) == -1) {
        judge(c, errno);
        return;
    }
    c->io = loop_io_new(c->owner->proxy->loop, c->fd, on_ready, c);
    if (c->io == NULL) {
        end_check(c, "no memory");
        return;
    }
    loop_io_want(c->io, done ? LOOP_READ : LOOP_WRITE);
    if (done && c->expects == RESET) {
        judge(c, 0);
    }
}

/* --- rounds ----------------------------------------------------------------------------------- */
/* Each at another time than everybody else's of the node. */
static uint64_t next_ms(const struct proxy_canary *k)
{
    uint64_t every = k->proxy->files->conf->interception.interval_ms;
    uint64_t ms = every - every / JITTER + os_random_below(2 * every / JITTER + 1);
    for (size_t i = 0; i < k->n_checks; i++) {
        const struct check *c = &k->checks[i];
        uint64_t soon = c->failures == 0 ? ms : c->failures < LOST_AFTER ? AGAIN_MS : BACK_MS;
        ms = soon < ms ? soon : ms;
    }
    return ms;
}

static void end_round(struct proxy_canary *k)
{
    k->running = false;
    k->rounds++;
    loop_timer_arm(&k->timer, next_ms(k));
}

static void begin_round(struct proxy_canary *k)
{
    loop_timer_arm(&k->timer, ANSWER_MS);
    for (size_t i = 0; i < k->n_checks; i++) {
        k->running = i + 1 == k->n_checks; /* it ends with the last one, however soon others do */
        begin_check(&k->checks[i]);
    }
    if (k->running && !any_under_way(k)) {
        end_round(k);
    }
}

static void on_timer(void *arg)
{
    struct proxy_canary *k = (struct proxy_canary *)arg;
    if (!k->running) {
        begin_round(k);
        return;
    }
    for (size_t i = 0; i < k->n_checks; i++) {
        if (k->checks[i].fd != -1) {
            end_check(&k->checks[i], k->checks[i].expects == RESET ? "neither reset nor accepted"
                                                                   : "not taken in time");
        }
    }
}

/* --- life ------------------------------------------------------------------------------------- */
static void tell_ready(void *arg)
{
    struct proxy_canary *k = (struct proxy_canary *)arg;
    atomic_store_explicit(&k->shared.ready, proxy_is_ready(k->proxy), memory_order_relaxed);
    loop_timer_arm(&k->ready_timer, READY_MS);
}

void proxy_canary_init(struct proxy *p)
{
    if (p->files->conf->interception.canary == CONF_CANARY_OFF) {
        return;
    }
    struct proxy_canary *k = mem_must_new(struct proxy_canary);
    k->proxy = p;
    for (size_t i = 0; i < p->files->n_listeners; i++) {
        if (p->files->listeners[i].conf->capture == CONF_INTERCEPTED) {
            add_listener(k, &p->files->listeners[i]);
        }
    }
    loop_timer_init(&k->timer, p->loop, on_timer, k);
    loop_timer_init(&k->ready_timer, p->loop, tell_ready, k);
    p->canary = k;
    p->shared.canary = &k->shared;
}

void proxy_canary_serve(struct proxy *p)
{
    if (p->canary != NULL && p->canary->n_checks > 0) {
        loop_timer_arm(&p->canary->timer, 0);
    }
    if (p->canary != NULL) {
        tell_ready(p->canary);
    }
}

void proxy_canary_rest(struct proxy *p)
{
    struct proxy_canary *k = p->canary;
    if (k == NULL) {
        return;
    }
    loop_timer_disarm(&k->timer);
    loop_timer_disarm(&k->ready_timer);
    atomic_store_explicit(&k->shared.ready, false, memory_order_relaxed); /* it drains, or ends */
    k->running = false;
    for (size_t i = 0; i < k->n_checks; i++) {
        struct check *c = &k->checks[i];
        c->io = loop_io_free(c->io);
        if (c->fd != -1) {
            close(c->fd);
            c->fd = -1;
        }
    }
}

void proxy_canary_free(struct proxy *p)
{
    proxy_canary_rest(p);
    free(p->canary);
    p->canary = NULL;
    p->shared.canary = NULL;
}

/* --- telling ---------------------------------------------------------------------------------- */
bool proxy_canary_ready(const struct proxy *p)
{
    for (size_t i = 0; p->canary != NULL && i < p->canary->n_checks; i++) {
        if (!p->canary->checks[i].known || !p->canary->checks[i].ok) {
            return false;
        }
    }
    return true;
}

json_t *proxy_canary_report(const struct proxy *p)
{
    const struct proxy_canary *k = p->canary;
    if (k == NULL) {
        return json_null();
    }
    json_t *o = json_object();
    json_t *checks = json_array();
    for (size_t i = 0; i < k->n_checks; i++) {
        const struct check *c = &k->checks[i];
        char text[NET_ADDR_TEXT_MAX];
        json_t *one = json_object();
        json_object_set_new(one, "check", json_string(name_of(c)));
        json_object_set_new(one, "family", json_string(family_of(c)));
        json_object_set_new(one, "to", json_string(net_addr_text(&c->to, text)));
        json_object_set_new(one, "ok", c->known ? json_boolean(c->ok) : json_null());
        json_object_set_new(one, "error", c->failures > 0 ? json_string(c->why) : json_null());
        json_array_append_new(checks, one);
    }
    uint64_t outside = atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)&k->shared.from_outside,
                                            memory_order_relaxed);
    uint64_t last = atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)&k->shared.last_outside_ms,
                                         memory_order_relaxed);
    json_object_set_new(o, "ok", json_boolean(proxy_canary_ready(p)));
    json_object_set_new(o, "checks", checks);
    json_object_set_new(o, "rounds", json_integer((json_int_t)k->rounds));
    json_object_set_new(o, "from_outside", json_integer((json_int_t)outside));
    json_object_set_new(o, "last_from_outside_s",
                        outside > 0 ? json_integer((json_int_t)((os_now_ms() - last) / 1000))
                                    : json_null());
    return o;
}

void proxy_canary_metrics(const struct proxy *p, struct buf *out)
{
    const struct proxy_canary *k = p->canary;
    if (k == NULL) {
        return;
    }
    for (size_t i = 0; i < k->n_checks; i++) {
        char labels[64];
        (void)snprintf(labels, sizeof(labels), "check=\"%s\",family=\"%s\"", name_of(&k->checks[i]),
                       family_of(&k->checks[i]));
        (void)metrics_write_value(out, "postern_capture_ok", METRIC_GAUGE,
                                  i == 0 ? "1 while the kernel's capture is in force." : NULL,
                                  labels, k->checks[i].ok ? 1 : 0);
    }
    (void)metrics_write_value(out, "postern_capture_failures", METRIC_COUNTER,
                              "Canary connections that did not end as the rules say.", "",
                              (double)k->failures);
    (void)metrics_write_value(
        out, "postern_capture_from_outside", METRIC_COUNTER,
        "Canary connections that somebody else made to the workload's address.", "",
        (double)atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)&k->shared.from_outside,
                                     memory_order_relaxed));
}
