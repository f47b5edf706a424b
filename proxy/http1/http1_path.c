/*
 * A path, and what servers make of it (RFC 3986 2, 3.3, 6.2.2).
 *
 * It is judged as servers act on it, which is after one percent-decoding, and forwarded as it came.
 * That is sound only while decoding cannot change its structure, so whatever could is refused:
 * encoded separators and dots, empty and dot segments, parameters, double encoding, overlong UTF-8.
 * Where a port lets some of that through there are two readings, of a server that leaves it alone
 * and of one that does with it all that can be done, and both are for judging.
 */
#include <postern/http1.h>

#include "http1_priv.h"

/* Beside enum http1_path_allow: what nothing lets through. */
#define NEVER (UINT32_C(1) << 31)

/* What the three bytes "%HH" stand for. */
static uint8_t decoded(const char *p)
{
    return (uint8_t)(http1_hex((uint8_t)p[1]) << 4 | http1_hex((uint8_t)p[2]));
}

/* --- one escape --------------------------------------------------------------------------------*/

/* What lets an encoded byte through: a server may take it for structure, or no client has a reason
 * to encode it (so that the path would have two spellings). */
static uint32_t needs_of_byte(uint8_t c)
{
    switch (c) {
    case '/':
        return HTTP1_PATH_ENCODED_SLASH;
    case '\\':
        return HTTP1_PATH_ENCODED_BACKSLASH;
    case ';':
        return HTTP1_PATH_SEMICOLON;
    default:
        break;
    }
    if (c < 0x20 || c == 0x7f) {
        return NEVER;
    }
    bool plain = http1_is(c, HTTP1_ALNUM) || c == '.' || c == '-' || c == '_';
    return plain ? HTTP1_PATH_ENCODED_PLAIN : 0;
}

/* Bytes that begin no shortest-form UTF-8 sequence: overlong '/' and '.' begin with 0xC0. Latin-1
 * is not UTF-8 and yet not overlong, so it passes. */
static bool is_overlong(uint8_t c, uint8_t next)
{
    return c == 0xc0 || c == 0xc1 || c >= 0xf5 || (c == 0xe0 && next >= 0x80 && next < 0xa0) ||
           (c == 0xf0 && next >= 0x80 && next < 0x90);
}

/* Of "%25HH": whoever decodes twice sees the byte. Three times is beyond all sense. */
static uint32_t needs_of_twice(uint8_t c)
{
    if (c == '%') {
        return NEVER;
    }
    bool may_be_overlong = c == 0xc0 || c == 0xc1 || c == 0xe0 || c == 0xf0 || c >= 0xf5;
    uint32_t needs = needs_of_byte(c) | (may_be_overlong ? HTTP1_PATH_OVERLONG : 0U);
    return needs != 0 || c >= 0xc0 ? needs | HTTP1_PATH_DOUBLE_ENCODING : 0;
}

static bool is_hex_pair(const char *p)
{
    return http1_is((uint8_t)p[0], HTTP1_HEXDIG) && http1_is((uint8_t)p[1], HTTP1_HEXDIG);
}

/* One "%HH" at p, with `left` bytes from it on. */
static uint32_t needs_of_escape(const char *p, size_t left)
{
    uint8_t c = decoded(p);
    uint8_t next = left >= 6 && p[3] == '%' ? decoded(p + 3) : 0;
    if (is_overlong(c, next)) {
        return HTTP1_PATH_OVERLONG;
    }
    if (c == '%' && left >= 5 && is_hex_pair(p + 3)) {
        return needs_of_twice((uint8_t)(http1_hex((uint8_t)p[3]) << 4 | http1_hex((uint8_t)p[4])));
    }
    return needs_of_byte(c);
}

/* --- segments ----------------------------------------------------------------------------------*/

/* A segment that is empty with another behind it, "." or ".." is resolved by some and kept by
 * others. */
static uint32_t needs_of_segment(struct str s, bool last)
{
    if (s.n == 0) {
        return last ? 0 : HTTP1_PATH_DOUBLE_SLASH;
    }
    bool dots = str_eq(s, STR_LIT(".")) || str_eq(s, STR_LIT(".."));
    return dots ? HTTP1_PATH_DOT_SEGMENTS : 0;
}

/* The bytes as they came. */
static enum http1_reason look(struct str path, uint32_t allow, uint32_t *ret_needs,
                              const char **ret_at)
{
    uint32_t all = 0;
    size_t start = 1;
    for (size_t i = 0; i < path.n; i++) {
        uint8_t c = (uint8_t)path.p[i];
        uint32_t needs = 0;
        *ret_at = path.p + i;
        if (!http1_is(c, HTTP1_PATH)) {
            return HTTP1_TARGET_BYTE;
        }
        if (c == ';') {
            needs = HTTP1_PATH_SEMICOLON;
        } else if (c == '%') {
            needs = needs_of_escape(path.p + i, path.n - i);
        }
        if ((needs & ~allow) != 0) {
            return HTTP1_PATH_AMBIGUOUS;
        }
        all |= needs;
    }
    for (size_t i = 1; i <= path.n; i++) {
        if (i == path.n || path.p[i] == '/') {
            uint32_t needs = needs_of_segment((struct str){path.p + start, i - start}, i == path.n);
            if ((needs & ~allow) != 0) {
                *ret_at = path.p + start;
                return HTTP1_PATH_AMBIGUOUS;
            }
            all |= needs;
            start = i + 1;
        }
    }
    *ret_needs = all;
    return HTTP1_NONE;
}

/* --- the reading of a server that leaves alone what it may -------------------------------------*/

static struct str decode_once(struct str path, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++) {
        if (path.p[i] != '%') {
            out[n++] = path.p[i];
            continue;
        }
        uint8_t c = decoded(path.p + i);
        i += 2;
        if (c == '/' || c == '\\') { /* data, not structure */
            memcpy(out + n, c == '/' ? "%2F" : "%5C", 3);
            n += 3;
        } else {
            out[n++] = (char)c;
        }
    }
    return (struct str){out, n};
}

/* --- the reading of one that does with it all that can be done ---------------------------------*/

static uint8_t take_byte(struct str s, size_t *i)
{
    uint8_t c = (uint8_t)s.p[*i];
    if (c == '%' && s.n - *i >= 3 && is_hex_pair(s.p + *i + 1)) {
        c = decoded(s.p + *i);
        *i += 3;
    } else {
        *i += 1;
    }
    return c;
}

/* An escape once more, if what it stands for begins one. */
static uint8_t take_twice(struct str s, size_t *i)
{
    uint8_t c = take_byte(s, i);
    if (c == '%' && s.n - *i >= 2 && is_hex_pair(s.p + *i)) {
        c = (uint8_t)(http1_hex((uint8_t)s.p[*i]) << 4 | http1_hex((uint8_t)s.p[*i + 1]));
        *i += 2;
    }
    return c;
}

/* An overlong sequence that stands for an ASCII byte, as a careless decoder takes it. */
static bool take_overlong(struct str s, size_t *i, uint8_t *ret)
{
    size_t at = *i;
    uint8_t lead = take_twice(s, &at);
    unsigned more = lead == 0xc0 || lead == 0xc1 ? 1 : lead == 0xe0 ? 2 : lead == 0xf0 ? 3 : 0;
    uint32_t value = more == 1 ? lead & 0x1fU : 0;
    for (unsigned k = 0; k < more; k++) {
        if (at >= s.n) {
            return false;
        }
        uint8_t c = take_twice(s, &at);
        if ((c & 0xc0) != 0x80) {
            return false;
        }
        value = value << 6 | (c & 0x3fU);
    }
    if (more == 0 || value >= 0x80) {
        return false;
    }
    *ret = (uint8_t)value;
    *i = at;
    return true;
}

/* False: a control byte came out of it. */
static bool decode_all(struct str path, char *out, size_t *ret_n)
{
    size_t n = 0;
    size_t i = 0;
    while (i < path.n) {
        uint8_t c;
        if (!take_overlong(path, &i, &c)) {
            c = take_twice(path, &i);
        }
        if (c < 0x20 || c == 0x7f) {
            return false;
        }
        out[n++] = (char)(c == '\\' ? '/' : c);
    }
    *ret_n = n;
    return true;
}

static struct str without_parameters(struct str segment)
{
    const char *cut = segment.n > 0 ? memchr(segment.p, ';', segment.n) : NULL;
    return (struct str){segment.p, cut != NULL ? (size_t)(cut - segment.p) : segment.n};
}

/* Cuts parameters, merges slashes and resolves dots, in place. Returns what has to be allowed for
 * that, NEVER if it climbs above the root. */
static uint32_t normalize(char *text, size_t *n)
{
    uint32_t all = 0;
    size_t out = 0;
    for (size_t i = 0; i < *n;) {
        const char *slash = memchr(text + i + 1, '/', *n - i - 1);
        size_t end = slash != NULL ? (size_t)(slash - text) : *n;
        struct str s = without_parameters((struct str){text + i + 1, end - i - 1});
        bool last = end == *n;
        bool up = str_eq(s, STR_LIT(".."));
        uint32_t needs = needs_of_segment(s, last);
        if (up && out == 0) {
            return NEVER;
        }
        all |= needs;
        if (up) {
            do {
                out--;
            } while (text[out] != '/');
        }
        if (needs == 0 || last) {
            size_t kept = needs == 0 ? s.n : 0;
            text[out++] = '/';
            memmove(text + out, s.p, kept);
            out += kept;
        }
        i = end;
    }
    *n = out;
    return all;
}

/* --- both --------------------------------------------------------------------------------------*/

enum http1_reason http1_path_read(struct str path, uint32_t allow, char *judged_text,
                                  char *other_text, struct http1_path *ret, const char **ret_at)
{
    uint32_t needs = 0;
    size_t n = 0;
    enum http1_reason reason = look(path, allow, &needs, ret_at);
    if (reason != HTTP1_NONE) {
        return reason;
    }
    bool escapes = memchr(path.p, '%', path.n) != NULL;
    struct http1_path p = {escapes ? decode_once(path, judged_text) : path, STR_NONE};
    if (needs != 0) {
        *ret_at = path.p;
        if (!decode_all(path, other_text, &n) || other_text[0] != '/' ||
            (normalize(other_text, &n) & ~allow) != 0) {
            return HTTP1_PATH_AMBIGUOUS;
        }
        if (!str_eq(p.judged, (struct str){other_text, n})) {
            p.other = (struct str){other_text, n};
        }
    }
    *ret = p;
    return HTTP1_NONE;
}
