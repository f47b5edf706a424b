/* generation: names of generations, "..gen-0000000000000017-19ad0d2b6c4": a number that grows with
 * each change, and when it was made, in milliseconds. The number orders them; clocks are set. */
#include "rotate_priv.h"

#include <inttypes.h>
#include <stdio.h>

enum { SEQ_DIGITS = 16, MS_DIGITS = 11 };

void rotate_generation_name(uint64_t seq, uint64_t wall_ms, char ret_name[ROTATE_GENERATION_LEN])
{
    snprintf(ret_name, ROTATE_GENERATION_LEN, ROTATE_GENERATION_PREFIX "%016" PRIu64 "-%011" PRIx64,
             seq, wall_ms);
}

static bool hex_to_u64(struct str s, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n < MS_DIGITS || s.n > 16) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        if (ch >= '0' && ch <= '9') {
            v = v << 4 | (uint64_t)(ch - '0');
        } else if (ch >= 'a' && ch <= 'f') {
            v = v << 4 | (uint64_t)(ch - 'a' + 10);
        } else {
            return false;
        }
    }
    *ret = v;
    return true;
}

bool rotate_generation_parse(struct str name, uint64_t *ret_seq, uint64_t *ret_wall_ms)
{
    static const struct str prefix = {ROTATE_GENERATION_PREFIX,
                                      sizeof(ROTATE_GENERATION_PREFIX) - 1};
    uint64_t seq;
    uint64_t ms;
    if (!str_has_prefix(name, prefix) || name.n < prefix.n + SEQ_DIGITS + 1 + MS_DIGITS) {
        return false;
    }
    struct str digits = {name.p + prefix.n, SEQ_DIGITS};
    struct str rest = {digits.p + SEQ_DIGITS, name.n - prefix.n - SEQ_DIGITS};
    if (rest.p[0] != '-' || !str_to_u64(digits, UINT64_MAX, &seq) ||
        !hex_to_u64((struct str){rest.p + 1, rest.n - 1}, &ms)) {
        return false;
    }
    *ret_seq = seq;
    *ret_wall_ms = ms;
    return true;
}
