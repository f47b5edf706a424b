/*
 * Finding a text among the keys, and values cut into segments or addresses cut
 * to a length.
 *
 * One hash table holds the items of all dimensions. A value is looked up whole
 * for exact items; for prefixes the same running hash is tried at each length
 * at which the policy has a prefix, for suffixes likewise from the end, for
 * blocks at each prefix length, and for globs and templates once a shape: which
 * segments are fixed. So a look-up costs by the value's length and the number
 * of different lengths and shapes, whatever the number of items. The items come
 * from the policy's author, values from anyone: a value can only miss, so the
 * hash needs no secret.
 */
#include "policy_hash.h"

#include <string.h>

static bool key_is(const struct key *k, enum dim dim, enum form form, uint8_t prefix_len,
                   struct str name, const uint8_t *text, size_t len)
{
    size_t before = name.n > 0 ? name.n + 1 : 0;
    if (k->dim != dim || k->form != form || k->prefix_len != prefix_len || k->len != before + len ||
        k->name_len != name.n) {
        return false;
    }
    if (name.n > 0 && memcmp(k->text, name.p, name.n) != 0) {
        return false;
    }
    if (dim == DIM_HOST) {
        for (size_t i = 0; i < len; i++) {
            if ((uint8_t)k->text[i] != policy_fold(text[i])) {
                return false;
            }
        }
        return true;
    }
    return len == 0 || memcmp(k->text + before, text, len) == 0;
}

uint32_t policy_keys_find(const struct key_table *t, enum dim dim, enum form form,
                          uint8_t prefix_len, struct str name, const uint8_t *text, size_t len,
                          uint64_t running)
{
    uint64_t hash = policy_hash_finish(running, dim, form);
    if (t->slots == NULL || !policy_keys_may_have(t, hash)) {
        return KEY_NONE;
    }
    for (uint32_t i = (uint32_t)hash & t->mask; t->slots[i].key != KEY_NONE;
         i = (i + 1) & t->mask) {
        if (t->slots[i].tag == (uint32_t)(hash >> 32) &&
            key_is(policy_key(t, t->slots[i].key), dim, form, prefix_len, name, text, len)) {
            return t->slots[i].key;
        }
    }
    return KEY_NONE;
}

/* --- segments
 * ----------------------------------------------------------------------------------*/

bool policy_segments_split(enum dim dim, struct str value, struct segments *ret)
{
    struct str begin = dim == DIM_PATH ? STR_LIT("/") : STR_LIT("spiffe://");
    if (!str_has_prefix(value, begin)) {
        return false;
    }
    const char *p = value.p + begin.n;
    const char *end = value.p + value.n;
    for (ret->n = 0;; ret->n++) {
        const char *slash = p < end ? memchr(p, '/', (size_t)(end - p)) : NULL;
        struct str segment = {p, (size_t)((slash != NULL ? slash : end) - p)};
        ret->last[ret->n % SEGMENTS_MAX] = segment;
        if (ret->n < SEGMENTS_MAX) {
            ret->first[ret->n] = segment;
        }
        if (slash == NULL) {
            ret->n++;
            return true;
        }
        p = slash + 1;
    }
}

static struct str fixed_segment(const struct shape *s, const struct segments *v, unsigned i)
{
    return i < s->n_before ? v->first[i]
                           : v->last[(v->n - s->n_after + (i - s->n_before)) % SEGMENTS_MAX];
}

static bool is_wild(const struct shape *s, unsigned i)
{
    return i < s->n_before && (s->wild >> i & 1U) != 0;
}

uint64_t policy_shape_hash(const struct shape *s, const struct segments *v)
{
    uint64_t h = policy_hash_start;
    for (unsigned i = 0; i < (unsigned)s->n_before + s->n_after; i++) {
        if (!is_wild(s, i)) {
            h = policy_hash_segment(h, fixed_segment(s, v, i));
        }
    }
    return h;
}

bool policy_shape_key_is(const struct key *k, const struct shape *s, const struct segments *v)
{
    const char *p = k->text;
    const char *end = k->text + k->len;
    for (unsigned i = 0; i < (unsigned)s->n_before + s->n_after; i++) {
        if (is_wild(s, i)) {
            continue;
        }
        struct str segment = fixed_segment(s, v, i);
        if ((size_t)(end - p) < segment.n + 1 || memcmp(p, segment.p, segment.n) != 0 ||
            p[segment.n] != '/') {
            return false;
        }
        p += segment.n + 1;
    }
    return p == end;
}

/* --- addresses
 * ---------------------------------------------------------------------------------*/

uint64_t policy_address_hash(const uint8_t *bytes, uint8_t prefix_len)
{
    uint64_t high = 0;
    uint64_t low = 0;
    memcpy(&high, bytes + 1, 8);
    memcpy(&low, bytes + 9, 8);
    uint64_t h = (high ^ (uint64_t)bytes[0] << 8 ^ prefix_len) * 0x9e3779b97f4a7c15U;
    return (h ^ h >> 29 ^ low) * 0xbf58476d1ce4e5b9U;
}

void policy_address_set(struct address *a, int family, const uint8_t *bytes, uint8_t prefix_len)
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

void policy_address_cut(struct address *a, uint8_t prefix_len)
{
    size_t whole = prefix_len / 8;
    if (whole < SOURCE_LEN - 1) {
        a->bytes[1 + whole] &= (uint8_t)(0xff00U >> (prefix_len % 8));
        memset(a->bytes + 2 + whole, 0, SOURCE_LEN - 2 - whole);
    }
    a->prefix_len = prefix_len;
}

bool policy_address_of(const struct sockaddr *sa, struct address *ret)
{
    if (sa != NULL && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        policy_address_set(ret, AF_INET, (const uint8_t *)&in.sin_addr, 32);
        return true;
    }
    if (sa != NULL && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        policy_address_set(ret, AF_INET6, in6.sin6_addr.s6_addr, 128);
        return true;
    }
    return false;
}
