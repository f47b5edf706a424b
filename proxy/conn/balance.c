/* An outbound connection among the endpoints of its service: which it tries, what is told of how
 * they turned out, and how many connections the service has. */
#include "conn_priv.h"

#include <stdlib.h>
#include <string.h>

static uint64_t now_ms(const struct conn *c)
{
    return loop_now_ms(c->worker->loop);
}

bool conn_is_listed(const struct conn *c)
{
    return c->target != NULL && c->target->conf->kind == CONF_TARGET_LIST;
}

static const struct balance_set *endpoints(const struct conn *c)
{
    if (conn_is_listed(c)) {
        return snapshot_listed(conn_snapshot(c), conn_listener(c));
    }
    return c->target == NULL && c->direction == CONF_OUTBOUND
               ? snapshot_endpoints(conn_snapshot(c), c->route, &c->original)
               : NULL;
}

bool conn_balance_has_address(const struct conn *c)
{
    const struct balance_set *s = endpoints(c);
    return s == NULL ? !conn_is_listed(c) : s->n > 0;
}

size_t conn_balance_tries(const struct conn *c)
{
    const struct balance_set *s = c->balance != NULL ? endpoints(c) : NULL;
    size_t n = s != NULL ? s->n : 1;
    return n < BALANCE_TRIES_MAX ? n : BALANCE_TRIES_MAX;
}

/* --- the endpoint in use ---------------------------------------------------------------------- */

static struct balance_endpoint *in_use(const struct conn *c)
{
    const struct conn_balance *b = c->balance;
    return b != NULL && b->in_use ? b->tried[b->n_tried - 1] : NULL;
}

struct net_addr conn_balance_address(const struct conn *c)
{
    const struct balance_endpoint *e = in_use(c);
    struct net_addr a = e != NULL           ? e->address
                        : c->target != NULL ? c->target->address
                                            : c->original;
    if (net_addr_port(&a) == 0) {
        net_addr_set_port(&a, net_addr_port(&c->original));
    }
    return a;
}

static void leave(struct conn *c)
{
    struct balance_endpoint *e = in_use(c);
    if (e != NULL) {
        c->balance->in_use = false;
        atomic_fetch_sub_explicit(&e->open, 1, memory_order_relaxed);
    }
}

/* Those that were tried are remembered until the end: no address becomes another's meanwhile. */
static void forget(struct conn *c)
{
    struct conn_balance *b = c->balance;
    leave(c);
    for (size_t i = 0; i < b->n_tried; i++) {
        balance_endpoint_unref(b->tried[i]);
    }
    b->n_tried = 0;
}

static bool choose(struct conn *c, const struct balance_set *s)
{
    struct conn_balance *b = c->balance;
    if (b->n_tried == BALANCE_TRIES_MAX) {
        return false;
    }
    struct balance_endpoint *e =
        balance_choose(s, b->tried, b->n_tried, now_ms(c), &c->worker->random);
    if (e == NULL) {
        return false;
    }
    balance_take(e);
    b->tried[b->n_tried++] = e;
    b->in_use = true;
    b->told = false;
    c->upstream = conn_balance_address(c);
    return true;
}

static void log_ejected(struct conn *c, const struct balance_endpoint *e, bool in_handshake)
{
    char text[NET_ADDR_TEXT_MAX];
    struct log_line l;
    log_begin(&l, c->worker->log, LOG_WARN, "endpoint_ejected");
    log_str(&l, "service", e->service);
    log_str(&l, "upstream", net_addr_text(&c->upstream, text));
    log_uint(&l, "for_ms", atomic_load_explicit(&e->ejected_for_ms, memory_order_relaxed));
    log_str(&l, "step", in_handshake ? "handshake" : "connect");
    log_end(&l);
}

static void failed(struct conn *c, bool in_handshake)
{
    struct balance_endpoint *e = in_use(c);
    const struct balance_set *s = endpoints(c);
    if (e == NULL || c->balance->told) {
        return;
    }
    c->balance->told = true;
    if (s != NULL && balance_failed(s, e, now_ms(c))) {
        log_ejected(c, e, in_handshake);
    }
}

bool conn_balance_next(struct conn *c, bool in_handshake)
{
    const struct balance_set *s = endpoints(c);
    failed(c, in_handshake);
    leave(c);
    return s != NULL && choose(c, s);
}

void conn_balance_succeeded(struct conn *c)
{
    struct balance_endpoint *e = in_use(c);
    if (e != NULL) {
        c->balance->told = true;
        balance_succeeded(e, now_ms(c));
    }
}

bool conn_balance_handshake(enum conn_reason r)
{
    return r == CONN_CLOSE_HANDSHAKE_FAILED || r == CONN_CLOSE_HANDSHAKE_TIMEOUT ||
           r == CONN_CLOSE_SESSION_NOT_H2 || r == CONN_CLOSE_UPSTREAM_HANDSHAKE_FAILED ||
           r == CONN_CLOSE_UPSTREAM_HANDSHAKE_TIMEOUT;
}

/* What the application breaks off, or we have no means for, is no failure of an endpoint's. */
void conn_balance_ended(struct conn *c, enum conn_reason why)
{
    bool connect = why == CONN_CLOSE_CONNECT_REFUSED || why == CONN_CLOSE_CONNECT_FAILED ||
                   why == CONN_CLOSE_CONNECT_TIMEOUT;
    bool handshake = conn_balance_handshake(why);
    if ((connect || handshake) && c->balance != NULL) {
        failed(c, handshake);
    }
}

void conn_balance_leave(struct conn *c)
{
    leave(c);
}

/* --- the service ------------------------------------------------------------------------------ */

static bool count(struct conn *c, const struct balance_set *const *sets, size_t n)
{
    struct conn_balance *b = c->balance;
    while (b->n_services < n) {
        const struct balance_set *s = sets[b->n_services];
        if (!balance_service_take(s->service, s->route->max_connections)) {
            conn_limit_refuse(c, CONN_CLOSE_DESTINATION_LIMIT);
            return false;
        }
        b->services[b->n_services++] = s->service;
    }
    return true;
}

/* False: c->reason is to be NO_MEMORY, or it is closed for a limit. */
static bool begin(struct conn *c, const struct route *route)
{
    const struct balance_set *sets[SNAPSHOT_SETS_MAX];
    size_t n = snapshot_sets(conn_snapshot(c), route, &c->original, sets);
    if (c->balance != NULL) { /* it was held meanwhile, and the map may be another */
        conn_balance_end(c);
        forget(c);
    }
    if (n == 0) {
        return true;
    }
    if (c->balance == NULL) {
        c->balance = (struct conn_balance *)calloc(1, sizeof(*c->balance));
    }
    if (c->balance == NULL || !count(c, sets, n)) {
        return false;
    }
    const struct balance_set *leads = endpoints(c);
    if (leads != NULL) {
        (void)choose(c, leads); /* none: it waits for an address */
    }
    return true;
}

bool conn_balance_begin(struct conn *c)
{
    if (!begin(c, c->route)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY); /* if it is not closed */
        return false;
    }
    return true;
}

bool conn_balance_again(struct conn *c)
{
    return in_use(c) != NULL || begin(c, conn_listener(c)->explicit_route);
}

void conn_balance_end(struct conn *c)
{
    struct conn_balance *b = c->balance;
    if (b == NULL) {
        return;
    }
    leave(c);
    while (b->n_services > 0) {
        balance_service_give(b->services[--b->n_services]);
    }
}

void conn_balance_free(struct conn *c)
{
    if (c->balance != NULL) {
        conn_balance_end(c);
        forget(c);
        free(c->balance);
        c->balance = NULL;
    }
}

/* --- after a change --------------------------------------------------------------------------- */

/* The endpoint that is reached at this address; NULL: none is. */
static struct balance_endpoint *find(const struct conn *c, const struct balance_set *s,
                                     const struct net_addr *at)
{
    for (size_t i = 0; s != NULL && i < s->n; i++) {
        const struct net_addr *a = &s->endpoints[i]->address;
        uint16_t port = net_addr_port(a) != 0 ? net_addr_port(a) : net_addr_port(&c->original);
        if (net_addr_same_host(a, at) && port == net_addr_port(at)) {
            return s->endpoints[i];
        }
    }
    return NULL;
}

bool conn_balance_holds(const struct conn *c)
{
    if (c->target != NULL || c->transport != CONF_TRANSPORT_DISABLE) {
        return true; /* who is there has been proved */
    }
    const struct balance_set *s = endpoints(c);
    if (s == NULL) {
        return net_addr_equal(&c->upstream, &c->original);
    }
    return find(c, s, &c->upstream) != NULL || (s->named && c->balance != NULL);
}

static bool same_services(const struct conn_balance *b, const struct balance_set *const *sets,
                          size_t n)
{
    bool same = b->n_services == n;
    for (size_t i = 0; same && i < n; i++) {
        same = b->services[i] == sets[i]->service;
    }
    return same;
}

/* Beyond a limit, too: it is open already. */
static void recount_services(struct conn_balance *b, const struct balance_set *const *sets,
                             size_t n)
{
    struct balance_service *before[SNAPSHOT_SETS_MAX];
    size_t n_before = b->n_services;
    memcpy(before, b->services, n_before * sizeof(before[0]));
    for (size_t i = 0; i < n; i++) {
        (void)balance_service_take(sets[i]->service, 0);
        b->services[i] = sets[i]->service;
    }
    b->n_services = (uint8_t)n;
    for (size_t i = 0; i < n_before; i++) {
        balance_service_give(before[i]);
    }
}

/* Where it went, counted there or not. */
static struct net_addr went_to(const struct conn *c)
{
    const struct conn_balance *b = c->balance;
    struct net_addr a = b->n_tried > 0 ? b->tried[b->n_tried - 1]->address : c->original;
    if (net_addr_port(&a) == 0) {
        net_addr_set_port(&a, net_addr_port(&c->original));
    }
    return a;
}

/* One that is not listed any more may be listed again, by its service's name. */
static void recount_endpoint(struct conn *c, const struct balance_set *s)
{
    struct conn_balance *b = c->balance;
    struct balance_endpoint *was = in_use(c);
    struct net_addr at = went_to(c);
    struct balance_endpoint *now = find(c, s, &at);
    if (now == NULL) {
        if (was != NULL && (s == NULL || strcmp(was->service, s->route->service) != 0)) {
            leave(c);
        }
    } else if (now != was) {
        balance_take(now);
        forget(c);
        b->tried[b->n_tried++] = now;
        b->in_use = b->told = true;
    }
}

void conn_balance_recount(struct conn *c)
{
    const struct balance_set *sets[SNAPSHOT_SETS_MAX];
    if (c->target != NULL || c->carrier != NULL || c->state != CONN_PUMP) {
        return; /* a listener's list is the same service; one that connects tells of its own */
    }
    size_t n = snapshot_sets(conn_snapshot(c), c->route, &c->original, sets);
    if (c->balance == NULL && n > 0) {
        c->balance = (struct conn_balance *)calloc(1, sizeof(*c->balance));
    }
    if (c->balance == NULL) {
        return;
    }
    if (!same_services(c->balance, sets, n)) {
        recount_services(c->balance, sets, n);
    }
    recount_endpoint(c, endpoints(c));
}
