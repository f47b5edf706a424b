/* A set-associative table: a destination has four places that it may stand at, so that asking and
 * telling cost the same however many there are, and nothing is ever moved. */
#include "learned_priv.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    uint8_t addr[16];
    uint16_t port;
    uint8_t family; /* 0: free */
    uint8_t way;
    uint8_t failures; /* in a row */
    uint64_t until_ms;
};

struct learned {
    struct entry sets[LEARNED_SETS][LEARNED_WAYS];
    size_t n[LEARNED_DIRECT + 1];
};

struct learned *learned_new(void)
{
    return (struct learned *)calloc(1, sizeof(struct learned));
}

struct learned *learned_free(struct learned *t)
{
    free(t);
    return NULL;
}

static bool key_of(const struct net_addr *at, struct entry *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (at->len == 0 || (at->sa.sa_family != AF_INET && at->sa.sa_family != AF_INET6)) {
        return false;
    }
    bool v4 = at->sa.sa_family == AF_INET;
    ret->family = v4 ? 4 : 6;
    ret->port = net_addr_port(at);
    if (v4) {
        memcpy(ret->addr, &at->in4.sin_addr, 4);
    } else {
        memcpy(ret->addr, &at->in6.sin6_addr, 16);
    }
    return true;
}

static bool same(const struct entry *a, const struct entry *b)
{
    return a->family == b->family && a->port == b->port &&
           memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

static size_t set_of(const struct entry *e)
{
    /* FNV-1a: only what the mesh map lists is ever asked for. */
    uint64_t h = (0xcbf29ce484222325ULL ^ e->port) * 0x100000001b3ULL;
    for (size_t i = 0; i < sizeof(e->addr); i++) {
        h = (h ^ e->addr[i]) * 0x100000001b3ULL;
    }
    return (size_t)(h ^ (h >> 32)) % LEARNED_SETS;
}

static const struct entry *find(const struct learned *t, const struct entry *key)
{
    const struct entry *set = t->sets[set_of(key)];
    for (size_t i = 0; i < LEARNED_WAYS; i++) {
        if (same(&set[i], key)) {
            return &set[i];
        }
    }
    return NULL;
}

enum learned_way learned_ask(const struct learned *t, const struct net_addr *at, uint64_t now_ms)
{
    struct entry key;
    const struct entry *e = t != NULL && key_of(at, &key) ? find(t, &key) : NULL;
    return e != NULL && e->until_ms > now_ms ? (enum learned_way)e->way : LEARNED_NOTHING;
}

/* Its own place, a free one, or that of what ends first. */
static struct entry *place_for(struct learned *t, const struct entry *key)
{
    struct entry *set = t->sets[set_of(key)];
    struct entry *worst = &set[0];
    for (size_t i = 0; i < LEARNED_WAYS; i++) {
        if (same(&set[i], key)) {
            return &set[i];
        }
        if (set[i].until_ms < worst->until_ms) {
            worst = &set[i];
        }
    }
    if (worst->family != 0) {
        t->n[worst->way]--;
    }
    *worst = *key;
    t->n[LEARNED_NOTHING]++;
    return worst;
}

uint64_t learned_tell(struct learned *t, const struct net_addr *at, enum learned_try how,
                      uint64_t now_ms, bool *ret_changed)
{
    struct entry key;
    *ret_changed = false;
    if (t == NULL || !key_of(at, &key)) {
        return 0;
    }
    struct entry *e = place_for(t, &key);
    enum learned_way way = how == LEARNED_TOOK ? LEARNED_HBONE : LEARNED_DIRECT;
    uint64_t for_ms = LEARNED_HBONE_MS;
    *ret_changed = e->way != way;
    t->n[e->way]--;
    t->n[way]++;
    if (way == LEARNED_DIRECT) {
        for_ms = (uint64_t)LEARNED_DIRECT_MS << e->failures;
        if (e->failures < LEARNED_DOUBLED_MAX) {
            e->failures++;
        }
    } else {
        e->failures = 0;
    }
    e->way = (uint8_t)way;
    e->until_ms = now_ms + for_ms;
    return for_ms;
}

size_t learned_count(const struct learned *t, enum learned_way way)
{
    return t != NULL ? t->n[way] : 0;
}
