/*
 * value: one scalar of a file to one value, by type. A value is taken exactly as written or not at
 * all: no rounding, no guessing of units, no names looked up on a network.
 */
#include <postern/conf.h>

#include <arpa/inet.h>
#include <grp.h>
#include <postern/mem.h>
#include <postern/spiffe.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

/* --- small parts ------------------------------------------------------------------------------ */
static void fail(struct context *c, const struct field *f, const struct node *n, const char *advice,
                 const char *why)
{
    struct shown s;
    char expected[200];
    value_expected(f, expected, sizeof(expected));
    report(c, n, expected, advice, "'%s' is %s, %s", f->name, show(&s, n->text), why);
}

/* An unsigned number of the field's width at dst. */
static void store_uint(const struct field *f, void *dst, uint64_t v)
{
    switch (f->size) {
    case 0:
        return;
    case 1:
        *(uint8_t *)dst = (uint8_t)v;
        return;
    case 2:
        *(uint16_t *)dst = (uint16_t)v;
        return;
    case 4:
        *(uint32_t *)dst = (uint32_t)v;
        return;
    default:
        POSTERN_ASSERT(f->size == 8);
        *(uint64_t *)dst = v;
    }
}

static void store_text(const struct field *f, void *dst, struct str text)
{
    if (f->size > 0) {
        *(char **)dst = mem_must_strndup(text.p, text.n);
    }
}

static uint64_t field_max(const struct field *f)
{
    if (f->max != 0) {
        return f->max;
    }
    if (f->type == TYPE_UNIX) {
        return CONFIG_SOCKET_PATH_MAX;
    }
    if (f->type == TYPE_TEXT || f->type == TYPE_PATH) {
        return 4095;
    }
    if (f->type == TYPE_NAME) {
        return 128;
    }
    return f->type == TYPE_PORT ? 65535 : UINT32_MAX;
}

static uint64_t field_min(const struct field *f)
{
    return f->min == 0 && f->type == TYPE_PORT ? 1 : f->min;
}

static bool in_range(struct context *c, const struct field *f, const struct node *n, uint64_t v)
{
    if (v < field_min(f) || v > field_max(f)) {
        fail(c, f, n, NULL, v > field_max(f) ? "too much" : "too little");
        return false;
    }
    return true;
}

/* --- text ------------------------------------------------------------------------------------- */
static bool parse_text(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    uint64_t max = field_max(f);
    if (n->text.n == 0 || n->text.n > max) {
        struct shown s;
        char expected[200];
        value_expected(f, expected, sizeof(expected));
        if (n->text.n == 0) {
            report(c, n, expected, NULL, "'%s' is empty", f->name);
        } else {
            report(c, n, expected, NULL, "'%s' is %s, longer than %llu bytes", f->name,
                   show(&s, n->text), (unsigned long long)max);
        }
        return false;
    }
    if (f->check != NULL && !f->check(c, f, n)) {
        return false;
    }
    store_text(f, dst, n->text);
    return true;
}

static bool parse_name(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    for (size_t i = 0; i < n->text.n; i++) {
        char ch = n->text.p[i];
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || memchr("._-:/", ch, 5) != NULL;
        if (!ok) {
            fail(c, f, n, NULL, "which holds other characters");
            return false;
        }
    }
    return parse_text(c, f, n, dst);
}

static bool parse_bool(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    bool yes = str_eq(n->text, STR_LIT("true"));
    if (n->quoted || (!yes && !str_eq(n->text, STR_LIT("false")))) {
        fail(c, f, n, NULL, n->quoted ? "which is text in quotes" : "neither true nor false");
        return false;
    }
    store_uint(f, dst, yes ? 1 : 0);
    return true;
}

static const char *word_at(const void *set, size_t i)
{
    return ((const char *const *)set)[i];
}

static bool parse_word(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    for (size_t i = 0; f->words[i] != NULL; i++) {
        if (str_eq(n->text, str_of(f->words[i]))) {
            store_uint(f, dst, i);
            return true;
        }
    }
    char advice[100];
    const char *near = nearest_word(n->text, word_at, f->words);
    if (near != NULL) {
        snprintf(advice, sizeof(advice), "did you mean '%s'?", near);
    }
    fail(c, f, n, near != NULL ? advice : NULL, "no such value");
    return false;
}

/* --- numbers ---------------------------------------------------------------------------------- */
static bool parse_uint(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    if (f->zero_word != NULL && str_eq(n->text, str_of(f->zero_word))) {
        store_uint(f, dst, 0);
        return true;
    }
    uint64_t v;
    if (n->quoted || !str_to_u64(n->text, UINT64_MAX, &v)) {
        fail(c, f, n, n->quoted ? "remove the quotes" : NULL, "not a number");
        return false;
    }
    if (!in_range(c, f, n, v)) {
        return false;
    }
    store_uint(f, dst, v);
    return true;
}

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* Digits and one of the units; false: it is not of that form, or too large for 64 bits. */
static bool number_with_unit(struct str text, const struct unit *units, uint64_t *ret,
                             bool *ret_bare)
{
    size_t digits = 0;
    while (digits < text.n && text.p[digits] >= '0' && text.p[digits] <= '9') {
        digits++;
    }
    uint64_t v;
    *ret_bare = digits > 0 && digits == text.n;
    if (!str_to_u64((struct str){text.p, digits}, UINT64_MAX, &v)) {
        return false;
    }
    struct str suffix = {text.p + digits, text.n - digits};
    for (; units->suffix != NULL; units++) {
        if (str_eq(suffix, str_of(units->suffix))) {
            return !__builtin_mul_overflow(v, units->factor, ret);
        }
    }
    return false;
}

static const struct unit units_time_ms[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {NULL, 0}};
static const struct unit units_time_s[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {NULL, 0}};
static const struct unit units_size[] = {
    {"", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}, {"GiB", 1024 * 1024 * 1024}, {NULL, 0}};

static const struct unit *units_of(const struct field *f)
{
    return f->type == TYPE_SIZE          ? units_size
           : f->type == TYPE_DURATION_MS ? units_time_ms
                                         : units_time_s;
}

static bool parse_with_unit(struct context *c, const struct field *f, const struct node *n,
                            void *dst)
{
    uint64_t v;
    bool bare;
    if (!number_with_unit(n->text, units_of(f), &v, &bare)) {
        fail(c, f, n, NULL,
             f->type == TYPE_SIZE ? "not a size"
             : bare               ? "a number without a unit"
                                  : "not a duration");
        return false;
    }
    if (!in_range(c, f, n, v)) {
        return false;
    }
    store_uint(f, dst, v);
    return true;
}

/* The largest unit that divides it: 90000 ms is "90s". */
static void unit_text(uint64_t v, const struct unit *units, char *ret_text, size_t size)
{
    if (v == 0 && units == units_time_ms) {
        units++; /* "0s" reads better than "0ms" */
    }
    const struct unit *best = units;
    for (const struct unit *u = units; u->suffix != NULL; u++) {
        if (v >= u->factor && v % u->factor == 0) {
            best = u;
        }
    }
    snprintf(ret_text, size, "%llu%s", (unsigned long long)(v / best->factor), best->suffix);
}

/* --- addresses -------------------------------------------------------------------------------- */
/* An IP address without port or brackets; the length of its family's address, or 0. */
static size_t parse_ip(struct str text, int *ret_family, uint8_t ret_addr[16])
{
    char z[INET6_ADDRSTRLEN];
    if (text.n == 0 || text.n >= sizeof(z)) {
        return 0;
    }
    memcpy(z, text.p, text.n);
    z[text.n] = '\0';
    if (inet_pton(AF_INET, z, ret_addr) == 1) {
        *ret_family = AF_INET;
        return 4;
    }
    if (inet_pton(AF_INET6, z, ret_addr) == 1) {
        *ret_family = AF_INET6;
        return 16;
    }
    return 0;
}

/* 10.0.0.1 as ::ffff:10.0.0.1 would match in one place and not in another. */
static bool is_mapped(int family, const uint8_t addr[16])
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return family == AF_INET6 && memcmp(addr, prefix, sizeof(prefix)) == 0;
}

static void set_sockaddr(struct conf_sockaddr *a, int family, const uint8_t addr[16], uint16_t port)
{
    memset(a, 0, sizeof(*a));
    if (family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&in.sin_addr, addr, 4);
        memcpy(&a->ss, &in, sizeof(in));
        a->len = sizeof(in);
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        memcpy(&in6.sin6_addr, addr, 16);
        memcpy(&a->ss, &in6, sizeof(in6));
        a->len = sizeof(in6);
    }
}

static bool parse_address(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct str text = n->text;
    struct str host = text;
    struct str port = STR_NONE;
    const char *colon = memrchr(text.p, ':', text.n);
    bool bracketed = text.n > 0 && text.p[0] == '[';
    if (colon != NULL) {
        host.n = (size_t)(colon - text.p);
        port = (struct str){colon + 1, text.n - host.n - 1};
    }
    if (bracketed && host.n >= 2 && host.p[host.n - 1] == ']') {
        host = (struct str){host.p + 1, host.n - 2};
    }
    int family = AF_UNSPEC;
    uint8_t addr[16];
    uint64_t number;
    if (colon == NULL || parse_ip(host, &family, addr) == 0) {
        bool plain = parse_ip(text, &family, addr) != 0;
        fail(c, f, n, plain ? NULL : "host names are not looked up",
             plain ? "which has no port" : "not an address with a port");
        return false;
    }
    if (bracketed != (family == AF_INET6)) {
        fail(c, f, n, NULL, bracketed ? "brackets around IPv4" : "IPv6 without brackets");
        return false;
    }
    if (!str_to_u64(port, 65535, &number) || number == 0) {
        fail(c, f, n, "ports go from 1 to 65535", "not a port at the end");
        return false;
    }
    if (is_mapped(family, addr)) {
        fail(c, f, n, "write it as IPv4", "an IPv4 address in IPv6");
        return false;
    }
    if (f->size > 0) {
        set_sockaddr(dst, family, addr, (uint16_t)number);
    }
    return true;
}

static bool parse_plain_ip(struct context *c, const struct field *f, const struct node *n,
                           void *dst)
{
    int family;
    uint8_t addr[16];
    if (parse_ip(n->text, &family, addr) == 0 || is_mapped(family, addr)) {
        fail(c, f, n, NULL, "not an IP address");
        return false;
    }
    set_sockaddr(dst, family, addr, 0);
    return true;
}

/* Clears the bits beyond the prefix; true if any was set. */
static bool mask_host_bits(uint8_t *addr, size_t len, unsigned prefix_len)
{
    bool any = false;
    for (size_t i = 0; i < len; i++) {
        unsigned keep = prefix_len >= 8 * (i + 1) ? 8
                        : prefix_len > 8 * i      ? prefix_len - 8 * (unsigned)i
                                                  : 0;
        uint8_t mask = (uint8_t)(0xff00u >> keep);
        any = any || (addr[i] & ~mask) != 0;
        addr[i] &= mask;
    }
    return any;
}

static bool parse_cidr(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct conf_cidr cidr = {0};
    struct str ip = n->text;
    const char *slash = memchr(n->text.p, '/', n->text.n);
    if (slash != NULL) {
        ip.n = (size_t)(slash - n->text.p);
    }
    size_t len = parse_ip(ip, &cidr.family, cidr.addr);
    if (len == 0 || is_mapped(cidr.family, cidr.addr)) {
        fail(c, f, n, len == 0 ? NULL : "write it as IPv4", "not an address or address block");
        return false;
    }
    uint64_t prefix_len = len * 8;
    if (slash != NULL &&
        !str_to_u64((struct str){slash + 1, n->text.n - ip.n - 1}, len * 8, &prefix_len)) {
        fail(c, f, n, NULL, "with a prefix length that cannot be");
        return false;
    }
    cidr.prefix_len = (uint8_t)prefix_len;
    if (mask_host_bits(cidr.addr, len, (unsigned)prefix_len)) {
        char text[INET6_ADDRSTRLEN];
        char advice[100];
        inet_ntop(cidr.family, cidr.addr, text, sizeof(text));
        snprintf(advice, sizeof(advice), "did you mean '%s/%u'?", text, (unsigned)prefix_len);
        fail(c, f, n, advice, "which has bits beyond its prefix");
        return false;
    }
    *(struct conf_cidr *)dst = cidr;
    return true;
}

bool sockaddr_is_loopback(const struct conf_sockaddr *a)
{
    if (a->ss.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &a->ss, sizeof(in));
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &a->ss, sizeof(in6));
    return a->ss.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

bool sockaddr_is_any(const struct conf_sockaddr *a)
{
    if (a->ss.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &a->ss, sizeof(in));
        return in.sin_addr.s_addr == 0;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &a->ss, sizeof(in6));
    return a->ss.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
}

uint16_t sockaddr_port(const struct conf_sockaddr *a)
{
    /* sin_port and sin6_port stand at the same place. */
    struct sockaddr_in in;
    memcpy(&in, &a->ss, sizeof(in));
    return ntohs(in.sin_port);
}

bool sockaddr_equal(const struct conf_sockaddr *a, const struct conf_sockaddr *b)
{
    return a->len == b->len && memcmp(&a->ss, &b->ss, a->len) == 0;
}

/* --- identities, paths, selectors ------------------------------------------------------------- */
static bool parse_spiffe_id(struct context *c, const struct field *f, const struct node *n,
                            void *dst)
{
    struct spiffe_id id;
    struct err err = ERR_INIT;
    if (spiffe_id_parse(n->text, &id, &err) != 0) {
        fail(c, f, n, err.advice[0] != '\0' ? err.advice : NULL, err.what);
        return false;
    }
    if (id.path.n == 0) {
        fail(c, f, n, NULL, "the trust domain itself and no workload");
        return false;
    }
    store_text(f, dst, n->text);
    return true;
}

static bool parse_trust_domain(struct context *c, const struct field *f, const struct node *n,
                               void *dst)
{
    if (!spiffe_trust_domain_ok(n->text)) {
        bool url = str_has_prefix(n->text, STR_LIT("spiffe://"));
        fail(c, f, n, url ? "leave 'spiffe://' and any path out" : NULL, "not a trust domain");
        return false;
    }
    store_text(f, dst, n->text);
    return true;
}

static bool parse_path(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    if (n->text.n == 0) {
        fail(c, f, n, NULL, "empty");
        return false;
    }
    bool absolute = n->text.p[0] == '/';
    mem_autofree char *path = absolute ? mem_must_strndup(n->text.p, n->text.n)
                                       : mem_must_printf("%s/%s", c->dir, n->text.p);
    if (strlen(path) > field_max(f)) {
        char why[80];
        snprintf(why, sizeof(why), "a path of %zu bytes where %llu are possible", strlen(path),
                 (unsigned long long)field_max(f));
        fail(c, f, n, absolute ? NULL : "relative names stand against the directory of the file",
             why);
        return false;
    }
    store_text(f, dst, str_of(path));
    return true;
}

static bool parse_unix(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct str path = n->text;
    if (str_has_prefix(path, STR_LIT("unix://"))) {
        path = (struct str){path.p + 7, path.n - 7};
    } else if (str_has_prefix(path, STR_LIT("unix:"))) {
        path = (struct str){path.p + 5, path.n - 5};
    } else {
        fail(c, f, n, NULL, "which does not begin with unix:");
        return false;
    }
    if (path.n < 2 || path.p[0] != '/' || path.n > field_max(f)) {
        fail(c, f, n, NULL,
             path.n > field_max(f) ? "longer than a socket's name can be" : "not an absolute path");
        return false;
    }
    store_text(f, dst, path);
    return true;
}

/* "name" in the user or the group database; false: not there. */
static bool lookup_user(const char *name, uint32_t *ret)
{
    char space[16384];
    struct passwd pw;
    struct passwd *found = NULL;
    if (getpwnam_r(name, &pw, space, sizeof(space), &found) != 0 || found == NULL) {
        return false;
    }
    *ret = found->pw_uid;
    return true;
}

static bool lookup_group(const char *name, uint32_t *ret)
{
    char space[16384];
    struct group gr;
    struct group *found = NULL;
    if (getgrnam_r(name, &gr, space, sizeof(space), &found) != 0 || found == NULL) {
        return false;
    }
    *ret = found->gr_gid;
    return true;
}

static const char *const selector_words[] = {
    "unix:uid:", "unix:user:", "unix:gid:", "unix:group:", "unix:path:", NULL};

static bool parse_selector(struct context *c, const struct field *f, const struct node *n,
                           void *dst)
{
    size_t i = 0;
    while (selector_words[i] != NULL && !str_has_prefix(n->text, str_of(selector_words[i]))) {
        i++;
    }
    if (selector_words[i] == NULL) {
        fail(c, f, n, NULL, "no selector that this binary understands");
        return false;
    }
    size_t skip = strlen(selector_words[i]);
    struct str rest = {n->text.p + skip, n->text.n - skip};
    struct conf_selector s = {.type = i < 2   ? CONF_SELECTOR_UID
                                      : i < 4 ? CONF_SELECTOR_GID
                                              : CONF_SELECTOR_PATH};
    uint64_t v = 0;
    const char *why = NULL;
    if (i == 0 || i == 2) {
        why = str_to_u64(rest, UINT32_MAX - 1, &v) ? NULL : "not a number at the end";
        s.number = (uint32_t)v;
    } else if (i == 1) {
        why = lookup_user(rest.p, &s.number) ? NULL : "a user that this machine does not know";
    } else if (i == 3) {
        why = lookup_group(rest.p, &s.number) ? NULL : "a group that this machine does not know";
    } else if (rest.n < 2 || rest.p[0] != '/' || rest.p[rest.n - 1] == '/' || rest.n > 4095) {
        why = "not the absolute path of an executable";
    }
    if (why != NULL) {
        fail(c, f, n, NULL, why);
        return false;
    }
    if (s.type == CONF_SELECTOR_PATH) {
        s.path = mem_must_strndup(rest.p, rest.n);
    }
    *(struct conf_selector *)dst = s;
    return true;
}

/* --- the types -------------------------------------------------------------------------------- */
static const struct {
    const char *doc;      /* for the reference */
    const char *expected; /* for messages */
    bool (*parse)(struct context *c, const struct field *f, const struct node *n, void *dst);
    bool owns_text;
} types[] = {
    [TYPE_TEXT] = {"text", "text", parse_text, true},
    [TYPE_NAME] = {"name", "a name of letters, digits and . _ - : /", parse_name, true},
    [TYPE_BOOL] = {"`true` or `false`", "true or false", parse_bool, false},
    [TYPE_WORD] = {NULL, NULL, parse_word, false},
    [TYPE_UINT] = {"number", "a number", parse_uint, false},
    [TYPE_SIZE] = {"size", "a number of bytes, or with KiB, MiB or GiB", parse_with_unit, false},
    [TYPE_DURATION_MS] = {"duration", "a number with ms, s, m or h, such as 10s", parse_with_unit,
                          false},
    [TYPE_DURATION_S] = {"duration", "a number with s, m or h, such as 10m", parse_with_unit,
                         false},
    [TYPE_PORT] = {"port", "a port", parse_uint, false},
    [TYPE_ADDRESS] = {"address with port", "such as 127.0.0.1:8080 or [::1]:8080", parse_address,
                      false},
    [TYPE_IP] = {"IP address", "an IP address without a port", parse_plain_ip, false},
    [TYPE_CIDR] = {"address or block", "such as 10.0.0.7, 10.0.0.0/8 or fd00::/8", parse_cidr,
                   false},
    [TYPE_SPIFFE_ID] = {"SPIFFE ID", "a SPIFFE ID such as spiffe://example.org/orders",
                        parse_spiffe_id, true},
    [TYPE_TRUST_DOMAIN] = {"trust domain", "a trust domain such as example.org", parse_trust_domain,
                           true},
    [TYPE_PATH] = {"path", "a path", parse_path, true},
    [TYPE_UNIX] = {"Unix socket", "unix: and an absolute path", parse_unix, true},
    [TYPE_SELECTOR] = {"selector",
                       "unix:uid:N, unix:user:NAME, unix:gid:N, unix:group:NAME or unix:path:/P",
                       parse_selector, false},
};

bool value_parse(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    return types[f->type].parse(c, f, n, dst);
}

void value_clear(const struct field *f, void *dst)
{
    if (f->size == 0) {
        return;
    }
    if (types[f->type].owns_text) {
        free(*(char **)dst);
        *(char **)dst = NULL;
    } else if (f->type == TYPE_SELECTOR) {
        struct conf_selector *s = dst;
        free(s->path);
        s->path = NULL;
    }
}

static bool is_ranged(const struct field *f)
{
    return f->type == TYPE_UINT || f->type == TYPE_SIZE || f->type == TYPE_DURATION_MS ||
           f->type == TYPE_DURATION_S;
}

/* "1s to 10m"; false where the type has no range of its own. */
static bool range_text(const struct field *f, char *ret_text, size_t size)
{
    static const struct unit plain[] = {{"", 1}, {NULL, 0}};
    if (!is_ranged(f) || f->max == 0) {
        return false;
    }
    const struct unit *units = f->type == TYPE_UINT ? plain : units_of(f);
    char low[32];
    char high[32];
    unit_text(f->min, units, low, sizeof(low));
    unit_text(f->max, units, high, sizeof(high));
    if (f->min == f->max) {
        snprintf(ret_text, size, "%s", low);
    } else {
        snprintf(ret_text, size, "%s to %s", low, high);
    }
    return true;
}

void value_expected(const struct field *f, char *ret_text, size_t size)
{
    if (f->expected != NULL || f->type == TYPE_MAP) {
        snprintf(ret_text, size, "%s", f->expected != NULL ? f->expected : "a mapping");
        return;
    }
    if (f->type == TYPE_WORD) {
        size_t len = 0;
        for (size_t i = 0; f->words[i] != NULL && len < size; i++) {
            const char *sep = i == 0 ? "" : f->words[i + 1] == NULL ? " or " : ", ";
            len += (size_t)snprintf(ret_text + len, size - len, "%s%s", sep, f->words[i]);
        }
        return;
    }
    char range[80];
    if (f->type == TYPE_UINT && range_text(f, range, sizeof(range))) {
        bool one = f->min == f->max;
        snprintf(ret_text, size, "%s%s%s%s", f->zero_word != NULL ? f->zero_word : "",
                 f->zero_word != NULL ? " or " : "", one ? "" : "a number from ", range);
    } else if (range_text(f, range, sizeof(range))) {
        snprintf(ret_text, size, "%s, %s", types[f->type].expected, range);
    } else if (f->type == TYPE_PORT) {
        snprintf(ret_text, size, "a port from 1 to 65535");
    } else {
        snprintf(ret_text, size, "%s", types[f->type].expected);
    }
}

void value_type_doc(const struct field *f, struct buf *out)
{
    if (f->type_doc != NULL) {
        buf_printf(out, "%s", f->type_doc);
    } else if (f->type == TYPE_WORD) {
        for (size_t i = 0; f->words[i] != NULL; i++) {
            const char *sep = i == 0 ? "" : f->words[i + 1] == NULL ? " or " : ", ";
            buf_printf(out, "%s`%s`", sep, f->words[i]);
        }
    } else {
        char range[80];
        if (f->zero_word != NULL) {
            buf_printf(out, "`%s` or ", f->zero_word);
        }
        buf_printf(out, "%s", types[f->type].doc);
        if (range_text(f, range, sizeof(range))) {
            buf_printf(out, ", %s", range);
        }
    }
}
