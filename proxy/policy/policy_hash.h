/* policy_hash: the running hash by which texts become keys. */
#ifndef POSTERN_POLICY_HASH_H
#define POSTERN_POLICY_HASH_H

#include "policy_priv.h"

static const uint64_t policy_hash_start = 0xcbf29ce484222325U;

static inline uint64_t policy_hash_byte(uint64_t h, uint8_t c)
{
    return (h ^ c) * 0x100000001b3U; /* FNV-1a: any prefix of the text gives its hash on the way */
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

/* With what the hash of a value begins: its name, or nothing. */
static inline uint64_t policy_hash_name(struct str name)
{
    uint64_t h = policy_hash_start;
    for (size_t i = 0; i < name.n; i++) {
        h = policy_hash_byte(h, (uint8_t)name.p[i]);
    }
    return name.n > 0 ? policy_hash_byte(h, 0) : h;
}

/* text: backwards for suffixes. */
static inline uint64_t policy_hash_text(uint64_t h, enum dim dim, enum form form,
                                        const uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = form == FORM_SUFFIX ? text[len - 1 - i] : text[i];
        h = policy_hash_byte(h, dim == DIM_HOST ? policy_fold(c) : c);
    }
    return h;
}

#endif
