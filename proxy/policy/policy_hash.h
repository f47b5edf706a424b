/*
 * policy_hash: the running hash by which texts become keys. Eight bytes a step:
 * the hash of a beginning is that of its whole words, which any longer text
 * gives on the way, with what is left.
 */
#ifndef POSTERN_POLICY_HASH_H
#define POSTERN_POLICY_HASH_H

#include "policy_priv.h"

#include <endian.h>
#include <string.h>

static const uint64_t policy_hash_start = 0xcbf29ce484222325U;
enum { HASH_STEP = 8 };

static inline uint64_t policy_hash_mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15U;
    return h ^ h >> 32;
}

static inline uint64_t policy_hash_finish(uint64_t h, enum dim dim, enum form form)
{
    h += ((uint64_t)dim << 3 | form) * 0x9e3779b97f4a7c15U;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93U;
    return h ^ h >> 32;
}

static inline uint8_t policy_fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* policy_fold of each byte. */
static inline uint64_t policy_fold_word(uint64_t w)
{
    const uint64_t each = 0x0101010101010101U;
    uint64_t low = w & 0x7f * each;
    uint64_t from_a = low + (0x80 - 'A') * each;
    uint64_t behind_z = low + (0x7f - 'Z') * each;
    return w | (~w & (from_a ^ behind_z) & 0x80 * each) >> 2;
}

/* A text as it is gone through: from its end for suffixes. */
struct hash_text {
    const uint8_t *text;
    size_t len;
    bool backwards, nocase;
};

/* n bytes (1 to 8) behind the first `at`. */
static inline uint64_t policy_hash_word(const struct hash_text *t, size_t at, size_t n)
{
    const uint8_t *p = t->backwards ? t->text + (t->len - at - n) : t->text + at;
    uint64_t word = 0;
    if (at < HASH_STEP && n < HASH_STEP) {
        for (size_t i = 0; i < n; i++) {
            word |= (uint64_t)p[i] << 8 * i;
        }
    } else { /* there are as many bytes before, of which none counts */
        memcpy(&word, t->backwards ? p : p + n - HASH_STEP, HASH_STEP);
        word = le64toh(word);
        word = t->backwards ? word << 8 * (HASH_STEP - n) : word >> 8 * (HASH_STEP - n);
    }
    return t->nocase ? policy_fold_word(word) : word;
}

/* The words from *at to the last one that ends before `to`. */
static inline uint64_t policy_hash_words(uint64_t h, const struct hash_text *t, size_t *at,
                                         size_t to)
{
    for (; to - *at >= HASH_STEP; *at += HASH_STEP) {
        h = policy_hash_mix(h, policy_hash_word(t, *at, HASH_STEP));
    }
    return h;
}

/* What is behind the words, and the length. */
static inline uint64_t policy_hash_rest(uint64_t h, const struct hash_text *t, size_t at, size_t to)
{
    if (to == 0) {
        return h; /* the name alone */
    }
    uint64_t word = to > at ? policy_hash_word(t, at, to - at) : 0;
    return policy_hash_mix(h + to * 0xbf58476d1ce4e5b9U, word);
}

static inline uint64_t policy_hash_whole(uint64_t h, const struct hash_text *t)
{
    size_t at = 0;
    h = policy_hash_words(h, t, &at, t->len);
    return policy_hash_rest(h, t, at, t->len);
}

/* With what the hash of a value begins: its name, or nothing. */
static inline uint64_t policy_hash_name(struct str name)
{
    const struct hash_text t = {.text = (const uint8_t *)name.p, .len = name.n};
    return name.n > 0 ? policy_hash_whole(policy_hash_start, &t) : policy_hash_start;
}

static inline struct hash_text policy_hash_text(enum dim dim, enum form form, const uint8_t *text,
                                                size_t len)
{
    return (struct hash_text){text, len, form == FORM_SUFFIX, dim == DIM_HOST};
}

/* Of a shape's fixed segments. */
static inline uint64_t policy_hash_segment(uint64_t h, struct str segment)
{
    const struct hash_text t = {.text = (const uint8_t *)segment.p, .len = segment.n};
    return policy_hash_whole(h, &t);
}
/* A parameter's name or value as servers read it: %XX is a byte, + a space (policy_named.c). False:
 * what servers read in more than one way. */
bool policy_query_decode(struct str in, char *room, size_t size, size_t *used, struct str *ret);

#endif
