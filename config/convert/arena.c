/* arena: what a conversion makes on its way, and the small algebra of entries: a rule's `from` is
 * true if one of its entries is, an entry if all of its clauses are. */
#include "convert_priv.h"

#include <postern/mem.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- the arena ---------------------------------------------------------------------------------
 */
struct arena_block {
    struct arena_block *next;
    size_t used, size;
    _Alignas(16) char data[];
};

void *arena_take(struct arena *p, size_t n)
{
    enum { BLOCK = 32 * 1024 };
    n = (n + 15) & ~(size_t)15;
    if (p->blocks == NULL || p->blocks->size - p->blocks->used < n) {
        size_t size = n > BLOCK ? n : BLOCK;
        struct arena_block *b = mem_must_calloc(1, sizeof(*b) + size);
        b->size = size;
        b->next = p->blocks;
        p->blocks = b;
    }
    void *taken = p->blocks->data + p->blocks->used;
    p->blocks->used += n;
    p->taken += n;
    return taken;
}

/* Room for `more` behind n items, which stay as they are for every list that shares them: in place
 * for the one whose end is the array's, else in a new array. */
struct array {
    size_t used, cap;
    _Alignas(16) char data[];
};

static void *array_grow(struct arena *p, const void *items, size_t n, size_t more, size_t size)
{
    struct array *a = NULL;
    if (items != NULL) {
        a = (struct array *)((uintptr_t)items - offsetof(struct array, data));
    }
    if (a == NULL || a->used != n || a->cap - n < more) {
        size_t cap = n + more < 2 ? n + more : 2 * (n + more);
        struct array *next = arena_take(p, sizeof(*next) + cap * size);
        if (items != NULL && n > 0) {
            memcpy(next->data, items, n * size);
        }
        next->cap = cap;
        a = next;
    }
    a->used = n + more;
    return a->data;
}

char *arena_text(struct arena *p, struct str s)
{
    char *text = arena_take(p, s.n + 1);
    if (s.n > 0) {
        memcpy(text, s.p, s.n);
    }
    text[s.n] = '\0';
    return text;
}

char *arena_printf(struct arena *p, const char *fmt, ...)
{
    struct buf out = BUF_INIT(CONVERT_TEXT_MAX);
    va_list ap;
    va_start(ap, fmt);
    bool fits = buf_vprintf(&out, fmt, ap);
    va_end(ap);
    POSTERN_ASSERT(fits); /* a text of a file, and a file is no longer */
    char *text = arena_text(p, buf_str(&out));
    buf_reset(&out);
    return text;
}

void arena_deinit(struct arena *p)
{
    while (p->blocks != NULL) {
        struct arena_block *next = p->blocks->next;
        free(p->blocks);
        p->blocks = next;
    }
}

/* --- lists of texts --------------------------------------------------------------------------- */
void texts_add(struct arena *p, struct texts *t, const char *text)
{
    const char **items = array_grow(p, t->items, t->n, 1, sizeof(*items));
    items[t->n] = text;
    *t = (struct texts){items, t->n + 1};
}

bool texts_have(const struct texts *t, const char *text)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

void texts_add_new(struct arena *p, struct texts *t, const char *text)
{
    if (!texts_have(t, text)) {
        texts_add(p, t, text);
    }
}

/* --- entries ---------------------------------------------------------------------------------- */
const struct key_info list_keys[N_LISTS] = {
    [LIST_PRINCIPALS] = {"principals", true, false, false},
    [LIST_NOT_PRINCIPALS] = {"not_principals", true, true, false},
    [LIST_NAMESPACES] = {"namespaces", true, false, false},
    [LIST_NOT_NAMESPACES] = {"not_namespaces", true, true, false},
    [LIST_SERVICE_ACCOUNTS] = {"service_accounts", true, false, false},
    [LIST_TRUST_DOMAINS] = {"trust_domains", true, false, false},
    [LIST_IP_BLOCKS] = {"ip_blocks", true, false, false},
    [LIST_NOT_IP_BLOCKS] = {"not_ip_blocks", true, true, false},
    [LIST_PORTS] = {"ports", false, false, false},
    [LIST_NOT_PORTS] = {"not_ports", false, true, false},
    [LIST_METHODS] = {"methods", false, false, true},
    [LIST_NOT_METHODS] = {"not_methods", false, true, true},
    [LIST_HOSTS] = {"hosts", false, false, true},
    [LIST_NOT_HOSTS] = {"not_hosts", false, true, true},
    [LIST_PATHS] = {"paths", false, false, true},
    [LIST_NOT_PATHS] = {"not_paths", false, true, true},
};
const struct key_info named_keys[N_NAMED] = {
    [NAMED_CLAIMS] = {"claims", true, false, true},
    [NAMED_NOT_CLAIMS] = {"not_claims", true, true, true},
    [NAMED_HEADERS] = {"headers", false, false, true},
    [NAMED_NOT_HEADERS] = {"not_headers", false, true, true},
};

static struct entries entries_of(struct arena *p, const struct entry *e)
{
    struct entry *copy = array_grow(p, NULL, 0, 1, sizeof(*copy));
    *copy = *e;
    return (struct entries){copy, 1};
}

struct entries entries_all(struct arena *p)
{
    const struct entry empty = {.lists = {{NULL, 0}}};
    return entries_of(p, &empty);
}

struct entries entries_list(struct arena *p, enum list_key key, const struct texts *items)
{
    struct entry e = {.lists = {{NULL, 0}}};
    e.lists[key] = *items;
    return entries_of(p, &e);
}

struct entries entries_named(struct arena *p, enum named_key key, const char *name,
                             const struct texts *values)
{
    struct entry e = {.lists = {{NULL, 0}}};
    struct named *item = arena_take(p, sizeof(*item));
    *item = (struct named){.name = name};
    if (values != NULL) {
        item->values = *values;
    }
    e.named[key] = (struct named_list){item, 1};
    return entries_of(p, &e);
}

enum entries_outcome entries_or(struct arena *p, struct entries *e, const struct entries *other)
{
    if (e->n + other->n > CONVERT_ENTRIES_MAX || p->taken > CONVERT_MEMORY_MAX) {
        return ENTRIES_TOO_MANY;
    }
    struct entry *items = array_grow(p, e->items, e->n, other->n, sizeof(*items));
    if (other->n > 0) {
        memcpy(items + e->n, other->items, other->n * sizeof(*items));
    }
    *e = (struct entries){items, e->n + other->n};
    return ENTRIES_OK;
}

static bool has_name(const struct named_list *l, const char *name, enum named_key key)
{
    for (size_t i = 0; i < l->n; i++) {
        if (key == NAMED_HEADERS ? str_eq_nocase(str_of(l->items[i].name), str_of(name))
                                 : strcmp(l->items[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool and_named(struct arena *p, struct named_list *l, const struct named_list *other,
                      enum named_key key)
{
    if (other->n == 0) {
        return true;
    }
    struct named *items = arena_take(p, (l->n + other->n) * sizeof(*items));
    if (l->n > 0) {
        memcpy(items, l->items, l->n * sizeof(*items));
    }
    for (size_t i = 0; i < other->n; i++) {
        if (!named_keys[key].negative && has_name(l, other->items[i].name, key)) {
            return false;
        }
        items[l->n + i] = other->items[i];
    }
    *l = (struct named_list){items, l->n + other->n};
    return true;
}

/* NULL, or the key of which both have a positive list. */
static const char *and_entry(struct arena *p, struct entry *e, const struct entry *other)
{
    for (size_t k = 0; k < N_LISTS; k++) {
        const struct texts *more = &other->lists[k];
        if (more->n > 0 && e->lists[k].n > 0 && !list_keys[k].negative) {
            return list_keys[k].name;
        }
        if (e->lists[k].n == 0) {
            e->lists[k] = *more;
            continue;
        }
        for (size_t i = 0; i < more->n; i++) {
            texts_add_new(p, &e->lists[k], more->items[i]);
        }
    }
    for (size_t k = 0; k < N_NAMED; k++) {
        if (!and_named(p, &e->named[k], &other->named[k], (enum named_key)k)) {
            return named_keys[k].name;
        }
    }
    return NULL;
}

enum entries_outcome entries_and(struct arena *p, struct entries *e, const struct entries *other,
                                 const char **ret_key)
{
    size_t n = e->n * other->n; /* each at most CONVERT_ENTRIES_MAX */
    if (n > CONVERT_ENTRIES_MAX || p->taken > CONVERT_MEMORY_MAX) {
        return ENTRIES_TOO_MANY;
    }
    struct entry *items = array_grow(p, NULL, 0, n, sizeof(*items));
    for (size_t i = 0; i < n; i++) {
        items[i] = e->items[i / other->n];
        const char *twice = and_entry(p, &items[i], &other->items[i % other->n]);
        if (twice != NULL) {
            *ret_key = twice;
            return ENTRIES_TWICE;
        }
    }
    *e = (struct entries){items, n};
    return ENTRIES_OK;
}

bool entry_is_empty(const struct entry *e)
{
    size_t n = 0;
    for (size_t k = 0; k < N_LISTS; k++) {
        n += e->lists[k].n;
    }
    for (size_t k = 0; k < N_NAMED; k++) {
        n += e->named[k].n;
    }
    return n == 0;
}

bool entry_wants_request(const struct entry *e)
{
    size_t n = 0;
    for (size_t k = 0; k < N_LISTS; k++) {
        n += list_keys[k].request ? e->lists[k].n : 0;
    }
    for (size_t k = 0; k < N_NAMED; k++) {
        n += e->named[k].n;
    }
    return n > 0;
}
