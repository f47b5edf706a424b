/* Destinations that are no service's, and are let through all the same. The list is short, and
 * asked once a connection: it is gone through. */
#include "route_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

void passes_fill(struct passes *p, const struct conf_mesh *mesh)
{
    if (mesh == NULL) {
        return;
    }
    p->unlisted = mesh->unlisted;
    p->entries =
        (struct pass_entry *)mem_must_calloc(mesh->n_allow_unlisted + 1, sizeof(*p->entries));
    for (; p->n_entries < mesh->n_allow_unlisted; p->n_entries++) {
        const struct conf_unlisted_entry *c = &mesh->allow_unlisted[p->n_entries];
        struct pass_entry *e = &p->entries[p->n_entries];
        e->name = mem_must_strdup(c->name);
        e->by_block = (struct route_pass){.name = e->name, .preset = c->preset};
        e->by_host = (struct route_pass){.name = e->name, .preset = c->preset, .by_host = true};
        e->blocks = (struct conf_cidr *)mem_must_calloc(c->addresses.n + 1, sizeof(*e->blocks));
        e->n_blocks = c->addresses.n;
        if (e->n_blocks > 0) {
            memcpy(e->blocks, c->addresses.items, e->n_blocks * sizeof(*e->blocks));
        }
        e->ports = (uint16_t *)mem_must_calloc(c->n_ports + 1, sizeof(*e->ports));
        e->n_ports = c->n_ports;
        if (e->n_ports > 0) {
            memcpy(e->ports, c->ports, e->n_ports * sizeof(*e->ports));
        }
        e->hosts = (char **)mem_must_calloc(c->hosts.n + 1, sizeof(char *));
        for (; e->n_hosts < c->hosts.n; e->n_hosts++) {
            e->hosts[e->n_hosts] = mem_must_strdup(c->hosts.items[e->n_hosts]);
        }
    }
}

void passes_clear(struct passes *p)
{
    for (size_t i = 0; i < p->n_entries; i++) {
        struct pass_entry *e = &p->entries[i];
        for (size_t k = 0; k < e->n_hosts; k++) {
            free(e->hosts[k]);
        }
        free((void *)e->hosts);
        free(e->ports);
        free(e->blocks);
        free(e->name);
    }
    free(p->entries);
    *p = (struct passes){.unlisted = CONF_UNLISTED_DENY};
}

void passes_hosts(const struct passes *p, void (*fn)(void *arg, const char *host), void *arg)
{
    for (size_t i = 0; i < p->n_entries; i++) {
        for (size_t k = 0; k < p->entries[i].n_hosts; k++) {
            fn(arg, p->entries[i].hosts[k]);
        }
    }
}

/* --- asking ----------------------------------------------------------------------------------- */

static bool has_port(const struct pass_entry *e, uint16_t port)
{
    for (size_t i = 0; i < e->n_ports; i++) {
        if (e->ports[i] == port) {
            return true;
        }
    }
    return e->n_ports == 0;
}

static bool is_in(const struct conf_cidr *c, int family, const uint8_t *addr)
{
    size_t whole = c->prefix_len / 8U;
    unsigned rest = c->prefix_len % 8U;
    return c->family == family && memcmp(c->addr, addr, whole) == 0 &&
           (rest == 0 || ((c->addr[whole] ^ addr[whole]) & (0xff << (8 - rest))) == 0);
}

static bool in_blocks(const struct pass_entry *e, int family, const uint8_t *addr, bool metadata)
{
    for (size_t i = 0; i < e->n_blocks; i++) {
        const struct conf_cidr *c = &e->blocks[i];
        bool named = e->by_block.preset == CONF_UNLISTED_METADATA ||
                     c->prefix_len == (family == AF_INET ? 32 : 128);
        if ((!metadata || named) && is_in(c, family, addr)) {
            return true;
        }
    }
    return false;
}

static bool among_hosts(const struct pass_entry *e, const struct net_addr *dst,
                        const struct resolve_state *resolved)
{
    for (size_t i = 0; i < e->n_hosts; i++) {
        const struct resolve_host *h = resolve_state_find(resolved, e->hosts[i]);
        for (size_t k = 0; h != NULL && k < h->n_addrs; k++) {
            if (net_addr_same_host(&h->addrs[k], dst)) {
                return true;
            }
        }
    }
    return false;
}

/* Whether it was let through by a name of this very entry. */
static bool had_it(const struct pass_entry *e, const struct route_pass *before)
{
    return before != NULL && before->by_host && e->n_hosts > 0 &&
           strcmp(e->name, before->name) == 0;
}

const struct route_pass *passes_find(const struct passes *p, const struct net_addr *dst,
                                     const struct resolve_state *resolved,
                                     const struct route_pass *before)
{
    if (p->unlisted == CONF_UNLISTED_DENY || dst->len == 0 || net_addr_is_unix(dst)) {
        return NULL;
    }
    int family = dst->sa.sa_family;
    const uint8_t *addr = family == AF_INET ? (const uint8_t *)&dst->in4.sin_addr
                                            : (const uint8_t *)&dst->in6.sin6_addr;
    bool metadata = conf_is_metadata(family, addr);
    bool by_host = !metadata && !net_addr_is_loopback(dst) && !net_addr_is_any(dst);
    for (size_t i = 0; i < p->n_entries; i++) {
        const struct pass_entry *e = &p->entries[i];
        if (!has_port(e, net_addr_port(dst))) {
            continue;
        }
        if (in_blocks(e, family, addr, metadata)) {
            return &e->by_block;
        }
        if (by_host && (had_it(e, before) || among_hosts(e, dst, resolved))) {
            return &e->by_host;
        }
    }
    return p->unlisted == CONF_UNLISTED_PASS && !metadata ? &p->all : NULL;
}
