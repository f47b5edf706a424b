#include "tally.h"

#include <postern/mem.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(struct str key)
{
    uint64_t h = 0xcbf29ce484222325U;
    for (size_t i = 0; i < key.n; i++) {
        h = (h ^ (uint8_t)key.p[i]) * 0x100000001b3U;
    }
    return h ^ h >> 32;
}

static size_t *slot_of(const struct tally *t, struct str key)
{
    size_t at = hash_of(key) & (t->n_slots - 1);
    while (t->slots[at] != 0) {
        const struct tally_item *item = &t->items[t->slots[at] - 1];
        if (str_eq((struct str){item->key, item->n}, key)) {
            break;
        }
        at = (at + 1) & (t->n_slots - 1);
    }
    return &t->slots[at];
}

static void grow(struct tally *t)
{
    t->cap = t->cap > 0 ? t->cap * 2 : 64;
    t->items = mem_must_realloc(t->items, t->cap * sizeof(*t->items));
    free(t->slots);
    t->n_slots = t->cap * 2;
    t->slots = mem_must_calloc(t->n_slots, sizeof(*t->slots));
    for (size_t i = 0; i < t->n; i++) {
        *slot_of(t, (struct str){t->items[i].key, t->items[i].n}) = i + 1;
    }
}

size_t tally_take(struct tally *t, struct str key)
{
    if (t->n == t->cap) {
        grow(t);
    }
    size_t *slot = slot_of(t, key);
    if (*slot == 0) {
        if (t->n == TALLY_MAX) {
            return SIZE_MAX;
        }
        char *copy = mem_must_calloc(1, key.n + 1);
        memcpy(copy, key.p != NULL ? key.p : "", key.n);
        t->items[t->n++] = (struct tally_item){.key = copy, .n = key.n};
        *slot = t->n;
    }
    return *slot - 1;
}

void tally_deinit(struct tally *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->items[i].key);
    }
    free(t->items);
    free(t->slots);
    *t = (struct tally){.items = NULL};
}
