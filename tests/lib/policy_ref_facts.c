/* What a fact is, and whether a list holds it: docs/authorization.md, "The language". */
#include "policy_ref_facts.h"

#include <string.h>

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool same(const char *a, const char *b, size_t n, bool nocase)
{
    for (size_t i = 0; i < n; i++) {
        if ((nocase ? fold(a[i]) : a[i]) != (nocase ? fold(b[i]) : b[i])) {
            return false;
        }
    }
    return true;
}

/* "*", "exact", "prefix*", "*suffix". */
static bool pattern_matches(struct str pattern, struct str text, bool nocase)
{
    if (pattern.n == 1 && pattern.p[0] == '*') {
        return true;
    }
    if (pattern.n > 0 && pattern.p[pattern.n - 1] == '*') {
        return text.n >= pattern.n - 1 && same(pattern.p, text.p, pattern.n - 1, nocase);
    }
    if (pattern.n > 0 && pattern.p[0] == '*') {
        size_t n = pattern.n - 1;
        return text.n >= n && same(pattern.p + 1, text.p + (text.n - n), n, nocase);
    }
    return pattern.n == text.n && same(pattern.p, text.p, text.n, nocase);
}

static struct str cut_final_dot(struct str s)
{
    if (s.n > 1 && s.p[s.n - 1] == '.') {
        s.n--;
    }
    return s;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = fold(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static struct str decode(struct str s, char *room, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n && n < size; i++) {
        if (s.p[i] == '%' && s.n - i > 2) {
            room[n++] = (char)(hex(s.p[i + 1]) * 16 + hex(s.p[i + 2]));
            i += 2;
        } else {
            room[n++] = s.p[i];
        }
    }
    return (struct str){room, n};
}

/* --- by segments -------------------------------------------------------------------------------*/

enum { SEGMENTS = 512 };

static size_t split(struct str s, struct str *segments)
{
    size_t n = 0;
    size_t from = 0;
    for (size_t i = 0; i <= s.n && n < SEGMENTS; i++) {
        if (i == s.n || s.p[i] == '/') {
            segments[n++] = (struct str){s.p + from, i - from};
            from = i + 1;
        }
    }
    return n;
}

struct words {
    struct str one, rest;
    bool path;
};

static bool segments_match(const struct words *w, const struct str *p, size_t n_p,
                           const struct str *t, size_t n_t)
{
    char room[8192];
    if (n_p == 0) {
        return n_t == 0;
    }
    if (str_eq(p[0], w->rest)) {
        if (n_p == 1) {
            return n_t > 0 || !w->path;
        }
        for (size_t k = 0; k <= n_t; k++) {
            if (segments_match(w, p + 1, n_p - 1, t + k, n_t - k)) {
                return true;
            }
        }
        return false;
    }
    if (n_t == 0) {
        return false;
    }
    bool same = str_eq(p[0], w->one) ? t[0].n > 0
                : w->path            ? str_eq(decode(p[0], room, sizeof(room)), t[0])
                                     : str_eq(p[0], t[0]);
    return same && segments_match(w, p + 1, n_p - 1, t + 1, n_t - 1);
}

static bool shape_matches(const struct words *w, struct str begin, struct str pattern,
                          struct str text)
{
    struct str p[SEGMENTS], t[SEGMENTS];
    if (!str_has_prefix(text, begin) || !str_has_prefix(pattern, begin)) {
        return false;
    }
    size_t n_p = split((struct str){pattern.p + begin.n, pattern.n - begin.n}, p);
    size_t n_t = split((struct str){text.p + begin.n, text.n - begin.n}, t);
    return segments_match(w, p, n_p, t, n_t);
}

static bool principal_matches(const char *item, struct str id)
{
    const struct words w = {STR_LIT("*"), STR_LIT("**"), false};
    return conf_is_glob(item) ? shape_matches(&w, STR_LIT("spiffe://"), str_of(item), id)
                              : pattern_matches(str_of(item), id, false);
}

static bool path_matches(const char *item, struct str path)
{
    const struct words w = {STR_LIT("{}"), STR_LIT("{**}"), true};
    char room[8192];
    return conf_is_template(item)
               ? shape_matches(&w, STR_LIT("/"), str_of(item), path)
               : pattern_matches(decode(str_of(item), room, sizeof(room)), path, false);
}

/* --- lists -------------------------------------------------------------------------------------*/

bool policy_ref_any_text(const struct conf_strings *list, struct str text)
{
    for (size_t i = 0; i < list->n; i++) {
        if (pattern_matches(str_of(list->items[i]), text, false)) {
            return true;
        }
    }
    return false;
}

bool policy_ref_any_target(const struct conf_strings *list, struct str id)
{
    for (size_t i = 0; i < list->n; i++) {
        if (principal_matches(list->items[i], id)) {
            return true;
        }
    }
    return false;
}

/* How a SPIFFE ID ends says nothing of another name that ends alike. */
bool policy_ref_any_principal(const struct conf_strings *list, struct str id)
{
    for (size_t i = 0; i < list->n; i++) {
        struct str p = str_of(list->items[i]);
        bool suffix = p.n > 1 && p.p[0] == '*';
        if ((!suffix || str_has_prefix(id, STR_LIT("spiffe://"))) &&
            principal_matches(list->items[i], id)) {
            return true;
        }
    }
    return false;
}

bool policy_ref_any_exact(const struct conf_strings *list, struct str text)
{
    for (size_t i = 0; i < list->n; i++) {
        if (str_eq(str_of(list->items[i]), text)) {
            return true;
        }
    }
    return false;
}

bool policy_ref_any_host(const struct conf_strings *list, struct str host)
{
    for (size_t i = 0; i < list->n; i++) {
        if (pattern_matches(cut_final_dot(str_of(list->items[i])), cut_final_dot(host), true)) {
            return true;
        }
    }
    return false;
}

bool policy_ref_any_path(const struct conf_strings *list, struct str path)
{
    for (size_t i = 0; i < list->n; i++) {
        if (path_matches(list->items[i], path)) {
            return true;
        }
    }
    return false;
}

bool policy_ref_any_port(const uint16_t *ports, size_t n, uint16_t port)
{
    for (size_t i = 0; i < n; i++) {
        if (ports[i] == port) {
            return true;
        }
    }
    return false;
}

/* The trust domain of "spiffe://td/path"; empty if there is none. */
struct str policy_ref_trust_domain_of(struct str id)
{
    struct str scheme = STR_LIT("spiffe://");
    if (!str_has_prefix(id, scheme)) {
        return STR_NONE;
    }
    struct str td = {id.p + scheme.n, id.n - scheme.n};
    const char *slash = td.n > 0 ? memchr(td.p, '/', td.n) : NULL;
    if (slash != NULL) {
        td.n = (size_t)(slash - td.p);
    }
    return td;
}

/* "spiffe://td/ns/NS/sa/SA" and nothing else. */
bool policy_ref_kubernetes_of(struct str id, struct str *ret_ns, struct str *ret_account)
{
    struct str s[SEGMENTS];
    struct str scheme = STR_LIT("spiffe://");
    if (!str_has_prefix(id, scheme)) {
        return false;
    }
    size_t n = split((struct str){id.p + scheme.n, id.n - scheme.n}, s);
    if (n != 5 || s[0].n == 0 || !str_eq(s[1], STR_LIT("ns")) || !str_eq(s[3], STR_LIT("sa")) ||
        s[2].n == 0 || s[4].n == 0) {
        return false;
    }
    *ret_ns = s[2];
    *ret_account = s[4];
    return true;
}

static struct ref_address canonical(int family, const uint8_t *bytes, unsigned prefix_len)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct ref_address a = {.family = family, .prefix_len = prefix_len};
    if (family == AF_INET6 && prefix_len >= 96 && memcmp(bytes, mapped, 12) == 0) {
        a.family = AF_INET;
        a.prefix_len -= 96;
        memcpy(a.bytes, bytes + 12, 4);
    } else {
        memcpy(a.bytes, bytes, family == AF_INET ? 4 : 16);
    }
    return a;
}

bool policy_ref_source_address(const struct sockaddr *sa, struct ref_address *ret)
{
    if (sa != NULL && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        *ret = canonical(AF_INET, (const uint8_t *)&in.sin_addr, 32);
        return true;
    }
    if (sa != NULL && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        *ret = canonical(AF_INET6, in6.sin6_addr.s6_addr, 128);
        return true;
    }
    return false;
}

bool policy_ref_any_block(const struct conf_cidrs *list, const struct ref_address *a)
{
    for (size_t i = 0; i < list->n; i++) {
        struct ref_address block =
            canonical(list->items[i].family, list->items[i].addr, list->items[i].prefix_len);
        bool in = block.family == a->family;
        for (unsigned bit = 0; in && bit < block.prefix_len; bit++) {
            unsigned mask = 0x80U >> (bit % 8);
            in = (block.bytes[bit / 8] & mask) == (a->bytes[bit / 8] & mask);
        }
        if (in) {
            return true;
        }
    }
    return false;
}

/* False: servers read it in more than one way. */
bool policy_ref_decode_parameter(struct str in, char *room, size_t *used, struct str *ret)
{
    size_t from = *used;
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == ';') {
            return false;
        }
        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            if (in.n - i <= 2 || hex(in.p[i + 1]) < 0 || hex(in.p[i + 2]) < 0) {
                return false;
            }
            c = (char)(hex(in.p[i + 1]) * 16 + hex(in.p[i + 2]));
            i += 2;
        }
        room[(*used)++] = c;
    }
    *ret = (struct str){room + from, *used - from};
    return true;
}

/* "/pkg.Service/Method". */
bool policy_ref_grpc_of(struct str path, struct str *ret)
{
    struct str s[SEGMENTS];
    if (path.n == 0 || path.p[0] != '/') {
        return false;
    }
    *ret = (struct str){path.p + 1, path.n - 1};
    return split(*ret, s) == 2 && s[0].n > 0 && s[1].n > 0;
}
