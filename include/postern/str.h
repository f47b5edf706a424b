/*
 * str: a borrowed run of bytes. It owns nothing; whoever hands one out says how long it lasts.
 * Not terminated, may hold any byte. Thread: any. Pure functions, no failure.
 */
#ifndef POSTERN_STR_H
#define POSTERN_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p; /* may be NULL only if n is 0 */
    size_t n;
};

#define STR_LIT(s) ((struct str){(s), sizeof(s) - 1})
#define STR_NONE ((struct str){NULL, 0})
/* For printf("%.*s", STR_ARG(s)); cuts at 4096. */
#define STR_ARG(s) ((int)((s).n > 4096 ? 4096 : (s).n)), ((s).p != NULL ? (s).p : "")

static inline struct str str_of(const char *z)
{
    return (struct str){z, z != NULL ? strlen(z) : 0};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_has_prefix(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

static inline bool str_has_suffix(struct str s, struct str suffix)
{
    return s.n >= suffix.n &&
           (suffix.n == 0 || memcmp(s.p + (s.n - suffix.n), suffix.p, suffix.n) == 0);
}

/* ASCII only, no locale. */
bool str_eq_nocase(struct str a, struct str b);
bool str_has_prefix_nocase(struct str s, struct str prefix);
/* Decimal digits only, no sign, no blanks, no overflow, at most max; false if anything else. */
bool str_to_u64(struct str s, uint64_t max, uint64_t *ret);
/* How many bytes at s.p[at] are a control character, which a terminal may obey: 1, 2 of U+0080 to
 * U+009F in UTF-8, or 0: it is none. */
size_t str_control(struct str s, size_t at);

#endif
