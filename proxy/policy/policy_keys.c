/*
 * Items to keys, and values to the keys that they match.
 *
 * One hash table holds the items of all dimensions. A value is looked up whole for exact items; for
 * prefixes the same running hash is tried at each length at which the policy has a prefix, for
 * suffixes likewise from the end, and for blocks at each prefix length. So a look-up costs by the
 * value's length and the number of different lengths, whatever the number of items. The items come
 * from the policy's author, values from anyone: a value can only miss, so the hash needs no secret.
 */
#include <postern/policy.h>

#include <arpa/inet.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_priv.h"

static const uint64_t hash_start = 0xcbf29ce484222325U;

static inline uint64_t hash_byte(uint64_t h, uint8_t c)
{
    return (h ^ c) * 0x100000001b3U; /* FNV-1a: any prefix of the text gives its hash on the way */
}

static inline uint64_t hash_finish(uint64_t h, enum dim dim, enum form form)
{
    h += ((uint64_t)dim << 3 | form) * 0x9e3779b97f4a7c15U;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93U;
    return h ^ h >> 32;
}

static inline uint8_t fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* --- the table ---------------------------------------------------------------------------------*/

static bool key_is(const struct key *k, enum dim dim, enum form form, uint8_t prefix_len,
                   const uint8_t *text, size_t len)
{
    if (k->dim != dim || k->form != form || k->prefix_len != prefix_len || k->len != len) {
        return false;
    }
    if (dim == DIM_HOST) {
        for (size_t i = 0; i < len; i++) {
            if ((uint8_t)k->text[i] != fold(text[i])) {
                return false;
            }
        }
        return true;
    }
    return memcmp(k->text, text, len) == 0;
}

static uint32_t find(const struct key_table *t, enum dim dim, enum form form, uint8_t prefix_len,
                     const uint8_t *text, size_t len, uint64_t running)
{
    uint64_t hash = hash_finish(running, dim, form);
    if (t->slots == NULL) {
        return KEY_NONE;
    }
    for (uint32_t i = (uint32_t)hash & t->mask; t->slots[i].key != KEY_NONE;
         i = (i + 1) & t->mask) {
        if (t->slots[i].tag == (uint32_t)(hash >> 32) &&
            key_is(policy_key(t, t->slots[i].key), dim, form, prefix_len, text, len)) {
            return t->slots[i].key;
        }
    }
    return KEY_NONE;
}

static void put(struct slot *slots, uint32_t mask, uint32_t hash, struct slot slot)
{
    uint32_t i = hash & mask;
    while (slots[i].key != KEY_NONE) {
        i = (i + 1) & mask;
    }
    slots[i] = slot;
}

/* At most half full: a miss, which is the common answer, ends after a probe or two. */
static void make_slots(struct key_table *t)
{
    if (t->slots != NULL && t->n < t->mask / 2) {
        return;
    }
    uint32_t size = t->slots == NULL ? 64 : (t->mask + 1) * 2;
    struct slot *slots = mem_must_calloc(size, sizeof(slots[0]));
    for (uint32_t i = 0; t->slots != NULL && i <= t->mask; i++) {
        if (t->slots[i].key != KEY_NONE) {
            put(slots, size - 1, policy_key(t, t->slots[i].key)->hash, t->slots[i]);
        }
    }
    free(t->slots);
    t->slots = slots;
    t->mask = size - 1;
}

/* How much room a key with a text of this length takes. */
static size_t key_size(size_t len)
{
    return (sizeof(struct key) + len + 1 + KEY_ALIGN - 1) / KEY_ALIGN * KEY_ALIGN;
}

static uint32_t make_key(struct key_table *t, size_t len)
{
    size_t at = t->len > 0 ? t->len : KEY_ALIGN;
    POSTERN_ASSERT(at / KEY_ALIGN < UINT32_MAX / 2);
    while (t->cap < at + key_size(len)) {
        t->cap = t->cap > 0 ? t->cap * 2 : 1024;
        t->bytes = mem_must_realloc(t->bytes, t->cap);
    }
    memset(t->bytes + at, 0, key_size(len));
    t->len = at + key_size(len);
    t->n++;
    return (uint32_t)(at / KEY_ALIGN);
}

static void add_length(struct lengths *l, uint32_t len)
{
    uint32_t i = 0;
    while (i < l->n && l->items[i] < len) {
        i++;
    }
    if (i < l->n && l->items[i] == len) {
        return;
    }
    if (l->n == l->cap) {
        l->cap = l->cap > 0 ? l->cap * 2 : 8;
        l->items = mem_must_realloc(l->items, l->cap * sizeof(l->items[0]));
    }
    memmove(&l->items[i + 1], &l->items[i], (l->n - i) * sizeof(l->items[0]));
    l->items[i] = len;
    l->n++;
}

static uint64_t hash_text(enum dim dim, enum form form, const uint8_t *text, size_t len)
{
    uint64_t h = hash_start;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = form == FORM_SUFFIX ? text[len - 1 - i] : text[i];
        h = hash_byte(h, dim == DIM_HOST ? fold(c) : c);
    }
    return h;
}

/* Family, address and prefix length. */
static inline uint64_t hash_address(const uint8_t *bytes, uint8_t prefix_len)
{
    uint64_t high = 0;
    uint64_t low = 0;
    memcpy(&high, bytes + 1, 8);
    memcpy(&low, bytes + 9, 8);
    uint64_t h = (high ^ (uint64_t)bytes[0] << 8 ^ prefix_len) * 0x9e3779b97f4a7c15U;
    return (h ^ h >> 29 ^ low) * 0xbf58476d1ce4e5b9U;
}

static uint32_t intern(struct key_table *t, enum dim dim, enum form form, uint8_t prefix_len,
                       const uint8_t *text, size_t len)
{
    uint64_t running = dim == DIM_SOURCE && form == FORM_PREFIX ? hash_address(text, prefix_len)
                                                                : hash_text(dim, form, text, len);
    uint32_t key = find(t, dim, form, prefix_len, text, len, running);
    if (key != KEY_NONE) {
        return key;
    }
    make_slots(t);
    key = make_key(t, len);
    uint64_t hash = hash_finish(running, dim, form);
    struct key *k = (struct key *)(void *)(t->bytes + (size_t)key * KEY_ALIGN);
    *k = (struct key){
        .hash = (uint32_t)hash,
        .len = (uint32_t)len,
        .dim = (uint8_t)dim,
        .form = (uint8_t)form,
        .prefix_len = prefix_len,
    };
    for (size_t i = 0; i < len; i++) {
        k->text[i] = (char)(dim == DIM_HOST ? fold(text[i]) : text[i]);
    }
    put(t->slots, t->mask, k->hash, (struct slot){.tag = (uint32_t)(hash >> 32), .key = key});
    return key;
}

/* --- items -------------------------------------------------------------------------------------*/

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char l = (char)fold((uint8_t)c);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

/* %XX stands for that byte, as in a request. In place; false: a % without two digits. */
static bool decode_percent(char *text, size_t *len)
{
    size_t n = 0;
    for (size_t i = 0; i < *len; i++) {
        char c = text[i];
        if (c == '%') {
            if (*len - i < 3 || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0) {
                return false;
            }
            c = (char)(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2]));
            i += 2;
        }
        text[n++] = c;
    }
    *len = n;
    return true;
}

int policy_key_of_pattern(struct key_table *t, enum dim dim, const char *item, uint32_t *ret,
                          struct err *err)
{
    mem_autofree char *text = mem_must_strdup(item);
    size_t len = strlen(text);
    size_t at = 0;
    enum form form = FORM_EXACT;
    bool patterns = dim != DIM_DOMAIN && dim != DIM_METHOD;
    if (len == 1 && text[0] == '*') {
        form = FORM_ANY;
        len = 0;
    } else if (len > 1 && text[len - 1] == '*') {
        form = FORM_PREFIX;
        len--;
    } else if (len > 1 && text[0] == '*') {
        form = FORM_SUFFIX;
        at = 1;
        len--;
    }
    bool star_left = memchr(text + at, '*', len) != NULL;
    if ((len == 0 && form != FORM_ANY) || star_left || (form != FORM_EXACT && !patterns)) {
        err_set(err, ERR_CONFIG, "'%s' is no pattern", item);
        return err_expected(err, patterns ? "text, *, or text with one * at its beginning or end"
                                          : "text without *");
    }
    if (dim == DIM_PATH && !decode_percent(text + at, &len)) {
        err_set(err, ERR_CONFIG, "path '%s' has a %% that stands for no byte", item);
        return err_expected(err, "%%XX with two hexadecimal digits; a %% itself is %%25");
    }
    if (dim == DIM_HOST && len > 0 && form != FORM_PREFIX && text[at + len - 1] == '.') {
        len--; /* one final dot, as in a question */
        if (len == 0) {
            err_set(err, ERR_CONFIG, "host '%s' is empty but for its final dot", item);
            return err_expected(err, "a host name");
        }
    }
    uint32_t key = intern(t, dim, form, 0, (const uint8_t *)text + at, len);
    if (form == FORM_ANY) {
        t->any[dim] = key;
    } else if (form == FORM_PREFIX) {
        add_length(&t->prefixes[dim], (uint32_t)len);
    } else if (form == FORM_SUFFIX) {
        add_length(&t->suffixes[dim], (uint32_t)len);
    } else {
        t->has_exact[dim] = true;
    }
    *ret = key;
    return 0;
}

uint32_t policy_key_of_port(struct key_table *t, uint16_t port)
{
    uint8_t text[2] = {(uint8_t)(port >> 8), (uint8_t)port};
    t->has_exact[DIM_PORT] = true;
    return intern(t, DIM_PORT, FORM_EXACT, 0, text, sizeof(text));
}

uint32_t policy_key_of_absent(struct key_table *t, enum dim dim)
{
    if (t->absent[dim] == KEY_NONE) {
        t->absent[dim] = intern(t, dim, FORM_ABSENT, 0, (const uint8_t *)"", 0);
    }
    return t->absent[dim];
}

/* --- addresses ---------------------------------------------------------------------------------*/

/* Family and address, the bits behind prefix_len cleared. IPv4 written as IPv6 becomes IPv4. */
struct address {
    uint8_t bytes[SOURCE_LEN]; /* 4 or 6, then the address */
    uint8_t prefix_len;
};

static void address_set(struct address *a, int family, const uint8_t *bytes, uint8_t prefix_len)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memset(a, 0, sizeof(*a));
    if (family == AF_INET6 && prefix_len >= 96 && memcmp(bytes, mapped, sizeof(mapped)) == 0) {
        family = AF_INET;
        bytes += sizeof(mapped);
        prefix_len = (uint8_t)(prefix_len - 96);
    }
    a->bytes[0] = family == AF_INET ? 4 : 6;
    memcpy(a->bytes + 1, bytes, family == AF_INET ? 4 : 16);
    a->prefix_len = prefix_len;
}

static void address_cut(struct address *a, uint8_t prefix_len)
{
    size_t whole = prefix_len / 8;
    if (whole < SOURCE_LEN - 1) {
        a->bytes[1 + whole] &= (uint8_t)(0xff00U >> (prefix_len % 8));
        memset(a->bytes + 2 + whole, 0, SOURCE_LEN - 2 - whole);
    }
    a->prefix_len = prefix_len;
}

uint32_t policy_key_of_block(struct key_table *t, const struct conf_cidr *block)
{
    struct address a;
    address_set(&a, block->family, block->addr, block->prefix_len);
    address_cut(&a, a.prefix_len);
    add_length(&t->blocks[a.bytes[0] == 4 ? 0 : 1], a.prefix_len);
    return intern(t, DIM_SOURCE, FORM_PREFIX, a.prefix_len, a.bytes, SOURCE_LEN);
}

static bool address_of(const struct sockaddr *sa, struct address *ret)
{
    if (sa != NULL && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        address_set(ret, AF_INET, (const uint8_t *)&in.sin_addr, 32);
        return true;
    }
    if (sa != NULL && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        address_set(ret, AF_INET6, in6.sin6_addr.s6_addr, 128);
        return true;
    }
    return false;
}

/* --- limits ------------------------------------------------------------------------------------*/

/* How many of the same form contain this key's pattern, itself included. */
static uint32_t nesting(const struct key_table *t, const struct key *k)
{
    bool suffix = k->form == FORM_SUFFIX;
    const struct lengths *l = suffix ? &t->suffixes[k->dim] : &t->prefixes[k->dim];
    const uint8_t *text = (const uint8_t *)k->text;
    uint64_t h = hash_start;
    uint32_t count = 0;
    for (uint32_t i = 0, pos = 0; i < l->n && l->items[i] <= k->len; i++) {
        uint32_t len = l->items[i];
        for (; pos < len; pos++) {
            h = hash_byte(h, suffix ? text[k->len - 1 - pos] : text[pos]);
        }
        const uint8_t *part = suffix ? text + (k->len - len) : text;
        count += find(t, k->dim, k->form, 0, part, len, h) != KEY_NONE;
    }
    return count;
}

int policy_keys_finish(struct key_table *t, struct err *err)
{
    uint32_t deepest[DIM_COUNT][2] = {0};
    for (size_t at = KEY_ALIGN; at < t->len;) {
        const struct key *k = policy_key(t, (uint32_t)(at / KEY_ALIGN));
        at += key_size(k->len);
        if (k->dim == DIM_SOURCE || (k->form != FORM_PREFIX && k->form != FORM_SUFFIX)) {
            continue;
        }
        uint32_t n = nesting(t, k);
        uint32_t *d = &deepest[k->dim][k->form == FORM_SUFFIX];
        *d = n > *d ? n : *d;
        if (deepest[k->dim][0] + deepest[k->dim][1] + 2 > MATCH_MAX) {
            err_set(err, ERR_LIMIT, "pattern '%.200s' is contained in too many others", k->text);
            err_expected(err, "at most %d patterns that contain each other", MATCH_MAX - 2);
            return err_advise(err, "leave out what a wider pattern of the file already says");
        }
    }
    for (int family = 0; family < 2; family++) {
        if (t->blocks[family].n > MATCH_MAX) {
            err_set(err, ERR_LIMIT, "address blocks of %u different lengths", t->blocks[family].n);
            return err_expected(err, "at most %d different prefix lengths of a family", MATCH_MAX);
        }
    }
    return 0;
}

void policy_keys_deinit(struct key_table *t)
{
    for (int d = 0; d < DIM_COUNT; d++) {
        free(t->prefixes[d].items);
        free(t->suffixes[d].items);
    }
    free(t->blocks[0].items);
    free(t->blocks[1].items);
    free(t->bytes);
    free(t->slots);
    *t = (struct key_table){0};
}

/* --- values ------------------------------------------------------------------------------------*/

static inline void add(struct match *m, uint32_t key)
{
    if (key != KEY_NONE && m->n < MATCH_MAX) {
        m->keys[m->n++] = key;
    }
}

static bool is_spiffe_id(struct str id)
{
    return str_has_prefix(id, (struct str){"spiffe://", 9});
}

static void match_text(const struct key_table *t, enum dim dim, struct str value, struct match *m)
{
    const uint8_t *text = (const uint8_t *)value.p;
    const bool nocase = dim == DIM_HOST;
    add(m, t->any[dim]);
    const struct lengths *l = &t->prefixes[dim];
    uint64_t h = hash_start;
    size_t pos = 0;
    for (uint32_t i = 0; i < l->n && l->items[i] <= value.n; i++) {
        for (; pos < l->items[i]; pos++) {
            h = hash_byte(h, nocase ? fold(text[pos]) : text[pos]);
        }
        add(m, find(t, dim, FORM_PREFIX, 0, text, pos, h));
    }
    if (t->has_exact[dim]) {
        for (; pos < value.n; pos++) {
            h = hash_byte(h, nocase ? fold(text[pos]) : text[pos]);
        }
        add(m, find(t, dim, FORM_EXACT, 0, text, pos, h));
    }
    if (dim == DIM_PRINCIPAL && !is_spiffe_id(value)) {
        return; /* how an ID ends says nothing of a name that ends alike */
    }
    l = &t->suffixes[dim];
    h = hash_start;
    pos = 0;
    for (uint32_t i = 0; i < l->n && l->items[i] <= value.n; i++) {
        for (; pos < l->items[i]; pos++) {
            uint8_t c = text[value.n - 1 - pos];
            h = hash_byte(h, nocase ? fold(c) : c);
        }
        add(m, find(t, dim, FORM_SUFFIX, 0, text + (value.n - pos), pos, h));
    }
}

static void match_source(const struct key_table *t, const struct sockaddr *source, struct match *m)
{
    struct address whole;
    if (!address_of(source, &whole)) {
        m->missing = true;
        return;
    }
    const struct lengths *l = &t->blocks[whole.bytes[0] == 4 ? 0 : 1];
    for (uint32_t i = 0; i < l->n; i++) {
        struct address a = whole;
        address_cut(&a, (uint8_t)l->items[i]);
        add(m, find(t, DIM_SOURCE, FORM_PREFIX, a.prefix_len, a.bytes, SOURCE_LEN,
                    hash_address(a.bytes, a.prefix_len)));
    }
}

/* The trust domain of a SPIFFE ID that was verified: no more than cutting it out. */
static struct str trust_domain_of(struct str id)
{
    static const struct str scheme = {"spiffe://", 9};
    if (!is_spiffe_id(id)) {
        return STR_NONE;
    }
    struct str td = {id.p + scheme.n, id.n - scheme.n};
    const char *slash = td.n > 0 ? memchr(td.p, '/', td.n) : NULL;
    if (slash != NULL) {
        td.n = (size_t)(slash - td.p);
    }
    return td;
}

static struct str value_of(const struct policy_query *q, enum dim dim)
{
    switch (dim) {
    case DIM_TARGET:
        return q->target;
    case DIM_PRINCIPAL:
        return q->peer;
    case DIM_DOMAIN:
        return trust_domain_of(q->peer);
    case DIM_PATH:
        return q->path;
    case DIM_HOST: {
        struct str host = q->host;
        if (host.n > 1 && host.p[host.n - 1] == '.') {
            host.n--;
        }
        return host;
    }
    case DIM_METHOD:
        return q->method;
    case DIM_PORT:
    case DIM_SOURCE:
    case DIM_COUNT:
        break;
    }
    return STR_NONE;
}

void policy_ask_init(struct ask *a, const struct policy *p, const struct policy_query *q)
{
    a->policy = p;
    a->query = q;
    a->best = UINT32_MAX;
    for (int d = 0; d < DIM_COUNT; d++) {
        a->matches[d].ready = false;
    }
}

static void fill_match(struct ask *a, enum dim dim, struct match *m)
{
    const struct key_table *t = &a->policy->table;
    m->n = 0;
    m->missing = false;
    m->ready = true;
    if (dim_is_request(dim) && !a->query->http) {
        return; /* there is no request: neither a value nor a missing one */
    }
    if (dim == DIM_PORT) {
        uint8_t text[2] = {(uint8_t)(a->query->port >> 8), (uint8_t)a->query->port};
        uint64_t h = hash_text(DIM_PORT, FORM_EXACT, text, sizeof(text));
        add(m, find(t, DIM_PORT, FORM_EXACT, 0, text, sizeof(text), h));
    } else if (dim == DIM_SOURCE) {
        match_source(t, a->query->source, m);
    } else {
        struct str value = value_of(a->query, dim);
        m->missing = value.n == 0;
        if (!m->missing) {
            match_text(t, dim, value, m);
        }
    }
    if (m->missing) {
        add(m, t->absent[dim]);
    }
}

const struct match *policy_ask_match(struct ask *a, enum dim dim)
{
    struct match *m = &a->matches[dim];
    if (!m->ready) {
        fill_match(a, dim, m);
    }
    return m;
}

static bool holds_key(const uint32_t *list, uint32_t n, uint32_t key)
{
    if (n <= 8) {
        for (uint32_t i = 0; i < n; i++) {
            if (list[i] == key) {
                return true;
            }
        }
        return false;
    }
    uint32_t low = 0;
    uint32_t high = n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (list[mid] < key) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < n && list[low] == key;
}

bool policy_match_meets(const struct policy *p, const struct match *m, const struct run *list)
{
    const uint32_t *keys = policy_run_keys(p, list);
    for (uint32_t i = 0; i < m->n; i++) {
        if (holds_key(keys, list->n, m->keys[i])) {
            return true;
        }
    }
    return false;
}
