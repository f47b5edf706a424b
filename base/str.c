#include <postern/str.h>

static unsigned char lower(char c)
{
    unsigned char u = (unsigned char)c;
    return u >= 'A' && u <= 'Z' ? (unsigned char)(u + ('a' - 'A')) : u;
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (lower(a.p[i]) != lower(b.p[i])) {
            return false;
        }
    }
    return true;
}

bool str_has_prefix_nocase(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq_nocase((struct str){s.p, prefix.n}, prefix);
}

bool str_to_u64(struct str s, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (v > (max - digit) / 10 || digit > max) {
            return false;
        }
        v = v * 10 + digit;
    }
    *ret = v;
    return true;
}

size_t str_control(struct str s, size_t at)
{
    unsigned char c = (unsigned char)s.p[at];
    if (c == 0xc2 && at + 1 < s.n) {
        unsigned char next = (unsigned char)s.p[at + 1];
        return next >= 0x80 && next < 0xa0 ? 2 : 0;
    }
    return c < 0x20 || c == 0x7f ? 1 : 0;
}
