/* The registry of endpoints and services, and which of them a snapshot's routes lead to. */
#include <postern/balance.h>

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024 };
struct balance {
    struct balance_endpoint *endpoints[BUCKETS];
    struct balance_service *services[BUCKETS];
};

struct balance_endpoint *balance_endpoint_unref(struct balance_endpoint *e)
{
    if (e != NULL && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1) {
        free(e->service);
        free(e);
    }
    return NULL;
}

struct balance_service *balance_service_unref(struct balance_service *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        free(s->name);
        free(s);
    }
    return NULL;
}

struct balance *balance_new(void)
{
    return mem_must_new(struct balance);
}

struct balance *balance_free(struct balance *b)
{
    if (b == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        while (b->endpoints[i] != NULL) {
            struct balance_endpoint *e = b->endpoints[i];
            b->endpoints[i] = e->next;
            balance_endpoint_unref(e);
        }
        while (b->services[i] != NULL) {
            struct balance_service *s = b->services[i];
            b->services[i] = s->next;
            balance_service_unref(s);
        }
    }
    free(b);
    return NULL;
}

/* --- records ---------------------------------------------------------------------------------- */

/* Of a name, and of an address if there is one. The keys are the operator's own. */
static size_t bucket(const char *name, const struct net_addr *a)
{
    uint64_t h = 0xcbf29ce484222325ULL;
    const uint8_t *addr = NULL;
    size_t n = 0;
    if (a != NULL) {
        bool v4 = a->sa.sa_family == AF_INET;
        addr = v4 ? (const uint8_t *)&a->in4.sin_addr : (const uint8_t *)&a->in6.sin6_addr;
        n = v4 ? 4 : 16;
    }
    for (; *name != '\0'; name++) {
        h = (h ^ (uint8_t)*name) * 0x100000001b3ULL;
    }
    for (size_t i = 0; i < n; i++) {
        h = (h ^ addr[i]) * 0x100000001b3ULL;
    }
    return (size_t)(h ^ (h >> 32)) % BUCKETS;
}

/* The registry's, made if need be; a reference for the caller. */
static struct balance_endpoint *endpoint(struct balance *b, const char *service,
                                         const struct net_addr *address)
{
    struct balance_endpoint **list = &b->endpoints[bucket(service, address)];
    struct balance_endpoint *e = *list;
    while (e != NULL &&
           !(net_addr_equal(&e->address, address) && strcmp(e->service, service) == 0)) {
        e = e->next;
    }
    if (e == NULL) {
        e = mem_must_new(struct balance_endpoint);
        atomic_init(&e->refs, 1);
        e->service = mem_must_strdup(service);
        e->address = *address;
        e->next = *list;
        *list = e;
    }
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

static struct balance_service *service(struct balance *b, const char *name)
{
    struct balance_service **list = &b->services[bucket(name, NULL)];
    struct balance_service *s = *list;
    while (s != NULL && strcmp(s->name, name) != 0) {
        s = s->next;
    }
    if (s == NULL) {
        s = mem_must_new(struct balance_service);
        atomic_init(&s->refs, 1);
        s->name = mem_must_strdup(name);
        s->next = *list;
        *list = s;
    }
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

static bool ours_alone(_Atomic unsigned *refs)
{
    return atomic_load_explicit(refs, memory_order_acquire) == 1;
}

static void sweep(struct balance *b, size_t i, uint64_t now_ms)
{
    struct balance_endpoint **e = &b->endpoints[i];
    while (*e != NULL) {
        struct balance_endpoint *it = *e;
        if (ours_alone(&it->refs) && !balance_is_ejected(it, now_ms)) {
            *e = it->next;
            balance_endpoint_unref(it);
        } else {
            e = &it->next;
        }
    }
    struct balance_service **s = &b->services[i];
    while (*s != NULL) {
        struct balance_service *it = *s;
        if (ours_alone(&it->refs)) {
            *s = it->next;
            balance_service_unref(it);
        } else {
            s = &it->next;
        }
    }
}

/* --- what routes lead to ---------------------------------------------------------------------- */

static void add(struct balance *b, struct balance_set *s, const struct net_addr *address,
                uint16_t port)
{
    struct net_addr a = *address;
    net_addr_set_port(&a, port);
    struct balance_endpoint *e = endpoint(b, s->route->service, &a);
    for (size_t i = 0; i < s->n; i++) {
        if (s->endpoints[i] == e) {
            balance_endpoint_unref(e);
            return;
        }
    }
    s->endpoints[s->n++] = e;
}

/* Whoever answers for a name does not get us to talk to ourselves, or to who hands out the
 * machine's credentials. */
static bool may_be_named(const struct net_addr *a)
{
    bool v4 = a->sa.sa_family == AF_INET;
    const void *addr = v4 ? (const void *)&a->in4.sin_addr : (const void *)&a->in6.sin6_addr;
    return !net_addr_is_loopback(a) && !net_addr_is_any(a) &&
           !conf_is_metadata(a->sa.sa_family, (const uint8_t *)addr);
}

/* Those of the family that is reached best: the others would be tried as often. */
static size_t count_addrs(const struct resolve_host *h)
{
    return h == NULL ? 0 : h->n_preferred;
}

static void fill(struct balance *b, struct balance_set *s, const struct route *r,
                 const struct resolve_state *resolved)
{
    size_t room = 0;
    for (size_t i = 0; i < r->n_endpoints; i++) {
        const char *host = r->endpoints[i].host;
        room += host == NULL ? 1 : count_addrs(resolve_state_find(resolved, host));
    }
    *s = (struct balance_set){.route = r, .service = service(b, r->service)};
    s->endpoints = (struct balance_endpoint **)mem_must_calloc(room + 1, sizeof(s->endpoints[0]));
    for (size_t i = 0; i < r->n_endpoints; i++) {
        const struct route_endpoint *e = &r->endpoints[i];
        if (e->host == NULL) {
            add(b, s, &e->address, e->port);
            continue;
        }
        s->named = true;
        const struct resolve_host *h = resolve_state_find(resolved, e->host);
        for (size_t k = 0; k < count_addrs(h); k++) {
            if (may_be_named(&h->addrs[k])) {
                add(b, s, &h->addrs[k], e->port);
            }
        }
    }
}

static int compare(const void *pa, const void *pb)
{
    uintptr_t a = (uintptr_t)((const struct balance_set *)pa)->route;
    uintptr_t b = (uintptr_t)((const struct balance_set *)pb)->route;
    return a < b ? -1 : a > b;
}

static bool concerns(const struct route *r)
{
    return r != NULL && (r->n_endpoints > 0 || r->max_connections > 0);
}

/* All that concern it; sets NULL: they are only counted. */
static size_t collect(struct balance *b, const struct balance_from *from, struct balance_set *sets)
{
    size_t n = 0;
    for (size_t t = 0; t < from->n_tables; t++) {
        size_t routes = from->tables[t] != NULL ? route_count(from->tables[t]) : 0;
        for (size_t i = 0; i < routes; i++) {
            const struct route *r = route_at(from->tables[t], i);
            if (concerns(r) && sets != NULL) {
                fill(b, &sets[n], r, from->resolved);
            }
            n += concerns(r);
        }
    }
    for (size_t i = 0; i < from->n_routes; i++) {
        if (concerns(from->routes[i]) && sets != NULL) {
            fill(b, &sets[n], from->routes[i], from->resolved);
        }
        n += concerns(from->routes[i]);
    }
    return n;
}

struct balance_state *balance_build(struct balance *b, const struct balance_from *from,
                                    uint64_t now_ms)
{
    struct balance_state *s = mem_must_new(struct balance_state);
    size_t room = collect(b, from, NULL);
    atomic_init(&s->refs, 1);
    s->sets = (struct balance_set *)mem_must_calloc(room + 1, sizeof(*s->sets));
    s->n_sets = collect(b, from, s->sets);
    qsort(s->sets, s->n_sets, sizeof(*s->sets), compare);
    for (size_t i = 0; i < BUCKETS; i++) {
        sweep(b, i, now_ms);
    }
    return s;
}

struct balance_state *balance_state_ref(struct balance_state *s)
{
    POSTERN_ASSERT(atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed) > 0);
    return s;
}

struct balance_state *balance_state_unref(struct balance_state *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        for (size_t i = 0; i < s->n_sets; i++) {
            for (size_t k = 0; k < s->sets[i].n; k++) {
                balance_endpoint_unref(s->sets[i].endpoints[k]);
            }
            free((void *)s->sets[i].endpoints);
            balance_service_unref(s->sets[i].service);
        }
        free(s->sets);
        free(s);
    }
    return NULL;
}

const struct balance_set *balance_find(const struct balance_state *s, const struct route *route)
{
    const struct balance_set key = {.route = route};
    if (s == NULL || s->n_sets == 0 || !concerns(route)) {
        return NULL;
    }
    return (const struct balance_set *)bsearch(&key, s->sets, s->n_sets, sizeof(*s->sets), compare);
}
