/*
 * The route table: a hash of (prefix length, masked address) to the services of that block, and a
 * list of the prefix lengths in use, longest first. A lookup probes once a length: the cost grows
 * with how many different lengths a map uses (a handful), not with its size.
 */
#include <postern/route.h>

#include "route_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

struct service {
    struct route route;
    struct str *identities; /* owned, with their text behind them */
    struct conf_port *ports;
    size_t n_ports;                   /* 0: every port */
    char *name;                       /* owned */
    struct route_endpoint *endpoints; /* owned, as are their hosts */
    size_t n_endpoints;
};

struct block {
    int family;
    uint8_t prefix_len;
    uint8_t addr[16];
    const struct service **services; /* owned array, in file order */
    size_t n_services;
    struct block *next; /* in the bucket */
};

struct route_table {
    struct passes passes;
    struct service *services;
    size_t n_services;
    struct block **buckets; /* a power of two */
    size_t n_buckets;
    uint8_t lengths4[33], lengths6[129]; /* in use, longest first */
    size_t n_lengths4, n_lengths6;
};

static size_t addr_len(int family)
{
    return family == AF_INET ? 4 : 16;
}

static void mask(const uint8_t *addr, size_t len, uint8_t prefix_len, uint8_t ret[16])
{
    memset(ret, 0, 16);
    size_t whole = prefix_len / 8;
    memcpy(ret, addr, whole < len ? whole : len);
    if (prefix_len % 8 != 0 && whole < len) {
        ret[whole] = (uint8_t)(addr[whole] & (0xff << (8 - prefix_len % 8)));
    }
}

static size_t hash(const struct route_table *t, int family, uint8_t prefix_len,
                   const uint8_t addr[16])
{
    /* FNV-1a: the keys are the operator's own, not an attacker's. */
    uint64_t h = 0xcbf29ce484222325ULL;
    h = (h ^ (family == AF_INET ? 4U : 6U)) * 0x100000001b3ULL;
    h = (h ^ prefix_len) * 0x100000001b3ULL;
    for (size_t i = 0; i < 16; i++) {
        h = (h ^ addr[i]) * 0x100000001b3ULL;
    }
    return (size_t)(h ^ (h >> 32)) & (t->n_buckets - 1);
}

static struct block *find(const struct route_table *t, int family, uint8_t prefix_len,
                          const uint8_t addr[16])
{
    struct block *b = t->buckets[hash(t, family, prefix_len, addr)];
    while (b != NULL &&
           (b->family != family || b->prefix_len != prefix_len || memcmp(b->addr, addr, 16) != 0)) {
        b = b->next;
    }
    return b;
}

static bool serves(const struct service *s, uint16_t port)
{
    for (size_t i = 0; i < s->n_ports; i++) {
        if (s->ports[i].port == port) {
            return true;
        }
    }
    return s->n_ports == 0;
}

static bool overlap(const struct service *a, const struct service *b, uint16_t *ret_port)
{
    *ret_port = 0;
    if (a->n_ports == 0 || b->n_ports == 0) {
        if (a->n_ports != b->n_ports) {
            return false; /* listed ports are more specific than "every port" */
        }
        return true;
    }
    for (size_t i = 0; i < a->n_ports; i++) {
        if (serves(b, a->ports[i].port)) {
            *ret_port = a->ports[i].port;
            return true;
        }
    }
    return false;
}

static void note_length(uint8_t *lengths, size_t *n, uint8_t len)
{
    size_t i = 0;
    while (i < *n && lengths[i] > len) {
        i++;
    }
    if (i < *n && lengths[i] == len) {
        return;
    }
    memmove(lengths + i + 1, lengths + i, *n - i);
    lengths[i] = len;
    ++*n;
}

static int add_block(struct route_table *t, const struct conf_cidr *c, const struct service *s,
                     struct err *err)
{
    uint8_t masked[16];
    mask(c->addr, addr_len(c->family), c->prefix_len, masked);
    struct block *b = find(t, c->family, c->prefix_len, masked);
    if (b == NULL) {
        b = mem_must_new(struct block);
        b->family = c->family;
        b->prefix_len = c->prefix_len;
        memcpy(b->addr, masked, sizeof(masked));
        size_t slot = hash(t, c->family, c->prefix_len, masked);
        b->next = t->buckets[slot];
        t->buckets[slot] = b;
        if (c->family == AF_INET) {
            note_length(t->lengths4, &t->n_lengths4, c->prefix_len);
        } else {
            note_length(t->lengths6, &t->n_lengths6, c->prefix_len);
        }
    }
    for (size_t i = 0; i < b->n_services; i++) {
        uint16_t port;
        if (b->services[i] == s) {
            return 0; /* the same block twice in one service */
        }
        if (overlap(b->services[i], s, &port)) {
            err_set(err, ERR_CONFIG, "services %s and %s both claim port %u of one address block",
                    b->services[i]->name, s->name, port);
            return err_advise(err, "give each its own ports or addresses");
        }
    }
    b->services = (const struct service **)mem_must_realloc(
        b->services, (b->n_services + 1) * sizeof(const struct service *));
    b->services[b->n_services++] = s;
    return 0;
}

/* The ids as str, their text in the same allocation. */
static struct str *copy_ids(const struct conf_strings *ids)
{
    size_t bytes = 0;
    for (size_t i = 0; i < ids->n; i++) {
        bytes += strlen(ids->items[i]) + 1;
    }
    struct str *out = (struct str *)mem_must_calloc(1, ids->n * sizeof(struct str) + bytes + 1);
    char *text = (char *)(out + ids->n);
    for (size_t i = 0; i < ids->n; i++) {
        size_t n = strlen(ids->items[i]);
        memcpy(text, ids->items[i], n + 1);
        out[i] = (struct str){text, n};
        text += n + 1;
    }
    return out;
}

/* Owned by the caller, as are their hosts. */
static struct route_endpoint *make_endpoints(const struct conf_target *targets, size_t n)
{
    struct route_endpoint *list = (struct route_endpoint *)mem_must_calloc(n + 1, sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        const struct conf_target *t = &targets[i];
        struct route_endpoint *e = &list[i];
        e->port = t->port;
        if (t->kind == CONF_TARGET_HOST) {
            e->host = mem_must_strdup(t->host);
        } else if (net_addr_from((const struct sockaddr *)&t->address.ss, t->address.len,
                                 &e->address)) {
            e->port = net_addr_port(&e->address);
        }
    }
    return list;
}

static void free_endpoints(const struct route_endpoint *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free((void *)(uintptr_t)list[i].host);
    }
    free((void *)(uintptr_t)list);
}

void route_set_endpoints(struct route *r, const struct conf_target *targets, size_t n,
                         const struct conf_ejection *ejection)
{
    free_endpoints(r->endpoints, r->n_endpoints);
    r->endpoints = make_endpoints(targets, n);
    r->n_endpoints = n;
    r->ejection = *ejection;
}

void route_set_transport(struct route *r, enum conf_transport transport, uint16_t hbone_port)
{
    r->transport = transport;
    r->hbone_port = hbone_port != 0 ? hbone_port : CONF_HBONE_PORT;
    r->hbone_declared = hbone_port != 0;
}

/* The operator wrote both: they are to be told apart by accident only. */
static uint64_t key_of(const struct conf_service *c)
{
    uint64_t h = 0xcbf29ce484222325ULL ^ (uint64_t)c->transport;
    for (size_t i = 0; i <= c->identities.n; i++) {
        const char *p = i == 0 ? c->name : c->identities.items[i - 1];
        do {
            h = (h ^ (uint8_t)*p) * 0x100000001b3ULL;
            h ^= h >> 29;
        } while (*p++ != '\0');
    }
    return h;
}

static void fill_service(struct service *s, const struct conf_service *c)
{
    s->name = mem_must_strdup(c->name);
    s->identities = copy_ids(&c->identities);
    s->n_ports = c->n_ports;
    if (c->n_ports > 0) {
        s->ports = (struct conf_port *)mem_must_calloc(c->n_ports, sizeof(*s->ports));
        memcpy(s->ports, c->ports, c->n_ports * sizeof(*s->ports));
    }
    s->endpoints = make_endpoints(c->endpoints, c->n_endpoints);
    s->n_endpoints = c->n_endpoints;
    s->route = (struct route){.service = s->name,
                              .identities = s->identities,
                              .n_identities = c->identities.n,
                              .key = key_of(c),
                              .expiry = c->expiry,
                              .ports = s->ports,
                              .n_ports = s->n_ports,
                              .endpoints = s->endpoints,
                              .n_endpoints = s->n_endpoints,
                              .ejection = c->ejection,
                              .max_connections = c->limits.connections};
    route_set_transport(&s->route, c->transport, c->hbone_port);
}

int route_table_new(const struct conf_mesh *mesh, struct route_table **ret, struct err *err)
{
    struct route_table *t = mem_must_new(struct route_table);
    size_t n_blocks = 0;
    size_t n = mesh != NULL ? mesh->n_services : 0;
    for (size_t i = 0; i < n; i++) {
        n_blocks += mesh->services[i].addresses.n;
    }
    t->n_buckets = 16;
    while (t->n_buckets < n_blocks * 2) {
        t->n_buckets *= 2;
    }
    t->buckets = (struct block **)mem_must_calloc(t->n_buckets, sizeof(*t->buckets));
    t->services = (struct service *)mem_must_calloc(n + 1, sizeof(*t->services));
    passes_fill(&t->passes, mesh);
    for (size_t i = 0; i < n; i++) {
        const struct conf_service *c = &mesh->services[i];
        fill_service(&t->services[i], c);
        t->n_services++;
        for (size_t k = 0; k < c->addresses.n; k++) {
            if (add_block(t, &c->addresses.items[k], &t->services[i], err) == -1) {
                err_where(err, "%s", mesh->path != NULL ? mesh->path : "mesh");
                route_table_free(t);
                return -1;
            }
        }
    }
    *ret = t;
    return 0;
}

struct route_table *route_table_free(struct route_table *t)
{
    if (t == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < t->n_buckets; i++) {
        while (t->buckets[i] != NULL) {
            struct block *b = t->buckets[i];
            t->buckets[i] = b->next;
            free(b->services);
            free(b);
        }
    }
    for (size_t i = 0; i < t->n_services; i++) {
        free(t->services[i].identities);
        free(t->services[i].ports);
        free(t->services[i].name);
        free_endpoints(t->services[i].endpoints, t->services[i].n_endpoints);
    }
    passes_clear(&t->passes);
    free(t->services);
    free(t->buckets);
    free(t);
    return NULL;
}

static const struct route *in_block(const struct block *b, uint16_t port)
{
    const struct service *any = NULL;
    for (size_t i = 0; i < b->n_services; i++) {
        if (b->services[i]->n_ports == 0) {
            any = b->services[i];
        } else if (serves(b->services[i], port)) {
            return &b->services[i]->route;
        }
    }
    return any != NULL ? &any->route : NULL;
}

const struct route *route_lookup(const struct route_table *t, const struct net_addr *dst)
{
    if (dst->len == 0) {
        return NULL;
    }
    bool v4 = dst->sa.sa_family == AF_INET;
    const uint8_t *addr =
        v4 ? (const uint8_t *)&dst->in4.sin_addr : (const uint8_t *)&dst->in6.sin6_addr;
    const uint8_t *lengths = v4 ? t->lengths4 : t->lengths6;
    size_t n = v4 ? t->n_lengths4 : t->n_lengths6;
    for (size_t i = 0; i < n; i++) {
        uint8_t masked[16];
        mask(addr, v4 ? 4 : 16, lengths[i], masked);
        const struct block *b = find(t, v4 ? AF_INET : AF_INET6, lengths[i], masked);
        if (b != NULL) {
            const struct route *r = in_block(b, net_addr_port(dst));
            /* A wide block without TLS does not name what happens to lie in it. */
            bool named = r == NULL || r->transport != CONF_TRANSPORT_DISABLE ||
                         lengths[i] == (v4 ? 32 : 128) ||
                         !conf_is_metadata(dst->sa.sa_family, addr);
            return named ? r : NULL;
        }
    }
    return NULL;
}

const struct route_pass *route_pass(const struct route_table *t, const struct net_addr *dst,
                                    const struct resolve_state *resolved,
                                    const struct route_pass *before)
{
    return passes_find(&t->passes, dst, resolved, before);
}

enum conf_unlisted route_unlisted(const struct route_table *t)
{
    return t->passes.unlisted;
}

const struct route *route_at(const struct route_table *t, size_t i)
{
    POSTERN_ASSERT(i < t->n_services);
    return &t->services[i].route;
}

void route_hosts(const struct route_table *t, void (*fn)(void *arg, const char *host), void *arg)
{
    for (size_t i = 0; i < t->n_services; i++) {
        for (size_t k = 0; k < t->services[i].n_endpoints; k++) {
            if (t->services[i].endpoints[k].host != NULL) {
                fn(arg, t->services[i].endpoints[k].host);
            }
        }
    }
    passes_hosts(&t->passes, fn, arg);
}

size_t route_count(const struct route_table *t)
{
    return t->n_services;
}

bool route_transports_alike(enum conf_transport a, enum conf_transport b)
{
    return (a == CONF_TRANSPORT_DISABLE) == (b == CONF_TRANSPORT_DISABLE);
}

bool route_still_allows(const struct route *now, enum conf_transport transport, struct str peer)
{
    if (now == NULL || !route_transports_alike(now->transport, transport)) {
        return false;
    }
    if (transport == CONF_TRANSPORT_DISABLE) {
        return true;
    }
    for (size_t i = 0; i < now->n_identities; i++) {
        if (str_eq(now->identities[i], peer)) {
            return true;
        }
    }
    return false;
}

void route_expiry(const struct route *r, uint16_t port, struct conf_expiry *e)
{
    conf_expiry_narrow(e, &r->expiry);
    for (size_t i = 0; i < r->n_ports; i++) {
        if (r->ports[i].port == port) {
            conf_expiry_narrow(e, &r->ports[i].expiry);
        }
    }
}

struct route *route_new_explicit(const char *name, const struct conf_strings *identities)
{
    struct route *r = mem_must_new(struct route);
    r->service = mem_must_strdup(name);
    r->identities = copy_ids(identities);
    r->n_identities = identities->n;
    route_set_transport(r, CONF_TRANSPORT_DIRECT, 0);
    return r;
}

struct route *route_free_explicit(struct route *r)
{
    if (r != NULL) {
        free((void *)(uintptr_t)r->service);
        free((void *)(uintptr_t)r->identities);
        free_endpoints(r->endpoints, r->n_endpoints);
        free(r);
    }
    return NULL;
}
