/* classes_source: addresses that blocks can tell apart: between any two edges of blocks they are
 * all alike. */
#include <arpa/inet.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "classes_priv.h"

enum { BLOCKS_MAX = 20000 };

struct edge {
    uint8_t addr[16];
};

struct edges {
    struct edge *items;
    size_t n;
};

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static int compare_edges(const void *pa, const void *pb)
{
    return memcmp(pa, pb, sizeof(struct edge));
}

/* The first address of a block, and the first behind it, if there is one. All in 16 bytes. */
static void add_block(struct edges *e, const uint8_t *addr, unsigned len)
{
    struct edge first;
    memcpy(first.addr, addr, 16);
    e->items[e->n++] = first;
    struct edge behind = first;
    unsigned carry = 1;
    for (unsigned i = 16; i-- > 0;) {
        unsigned bits = len >= 8 * (i + 1) ? 8 : len > 8 * i ? len - 8 * i : 0;
        unsigned unit = bits == 0 ? 0 : 1U << (8 - bits);
        if (bits == 0) {
            behind.addr[i] = 0;
            continue;
        }
        bool last = len <= 8 * (i + 1) && len > 8 * i;
        unsigned sum = behind.addr[i] + (last ? unit : carry);
        behind.addr[i] = (uint8_t)sum;
        carry = sum >> 8;
    }
    if (carry == 0) {
        e->items[e->n++] = behind;
    }
}

static void add_list(struct edges *e, const struct conf_cidrs *list)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct conf_cidr *c = &list->items[i];
        uint8_t addr[16];
        memcpy(addr, mapped, sizeof(mapped));
        if (c->family == AF_INET) {
            memcpy(addr + 12, c->addr, 4);
        } else {
            memcpy(addr, c->addr, 16);
        }
        add_block(e, addr, c->prefix_len + (c->family == AF_INET ? 96U : 0U));
    }
}

static void add_address(struct fact *f, const struct edge *e, bool other)
{
    char text[INET6_ADDRSTRLEN] = "";
    bool v4 = memcmp(e->addr, mapped, sizeof(mapped)) == 0;
    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? e->addr + 12 : e->addr, text, sizeof(text));
    mem_autofree char *like = mem_must_printf("addresses like %s", text);
    struct class_value *c = fact_add(f, other ? CLASS_OTHER : CLASS_PATTERN, text, like);
    if (v4) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, e->addr + 12, 4);
        memcpy(&c->source, &in, sizeof(in));
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        memcpy(&in6.sin6_addr, e->addr, 16);
        memcpy(&c->source, &in6, sizeof(in6));
    }
}

int classes_sources(struct fact *f, const struct conf_policy *const *confs, size_t n)
{
    size_t blocks = 0;
    for (size_t side = 0; side < n; side++) {
        for (size_t i = 0; i < confs[side]->n_rules; i++) {
            for (size_t k = 0; k < confs[side]->rules[i].n_from; k++) {
                const struct conf_policy_from *from = &confs[side]->rules[i].from[k];
                blocks += from->ip_blocks.n + from->not_ip_blocks.n;
            }
        }
    }
    if (blocks > BLOCKS_MAX) {
        return -1;
    }
    struct edges e = {.items = mem_must_calloc(2 * blocks + 8, sizeof(struct edge))};
    for (size_t side = 0; side < n; side++) {
        for (size_t i = 0; i < confs[side]->n_rules; i++) {
            for (size_t k = 0; k < confs[side]->rules[i].n_from; k++) {
                add_list(&e, &confs[side]->rules[i].from[k].ip_blocks);
                add_list(&e, &confs[side]->rules[i].from[k].not_ip_blocks);
            }
        }
    }
    uint8_t v4[16] = {0};
    memcpy(v4, mapped, sizeof(mapped));
    add_block(&e, v4, 96); /* IPv4 is apart from what is around it */
    e.items[e.n++] = (struct edge){{0}};
    qsort(e.items, e.n, sizeof(*e.items), compare_edges);
    for (size_t i = 0; i < e.n; i++) {
        if (i == 0 || compare_edges(&e.items[i], &e.items[i - 1]) != 0) {
            add_address(f, &e.items[i], blocks == 0);
        }
    }
    fact_add(f, CLASS_MISSING, NULL, NULL);
    free(e.items);
    return 0;
}
