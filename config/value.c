/*
 * value: one scalar of a file to one value, by type. A value is taken exactly as written or not at
 * all: no rounding, no guessing of units, no names looked up on a network.
 */
#include <postern/conf.h>

#include <postern/mem.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

/* --- small parts ------------------------------------------------------------------------------ */
static const char *show_value(struct shown *s, const struct field *f, const struct node *n)
{
    return f->secret ? "(not shown)" : show(s, n->text);
}

void value_fail(struct context *c, const struct field *f, const struct node *n, const char *advice,
                const char *why)
{
    struct shown s;
    char expected[200];
    value_expected(f, expected, sizeof(expected));
    report(c, n, expected, advice, "'%s' is %s, %s", f->name, show_value(&s, f, n), why);
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
        value_fail(c, f, n, NULL, v > field_max(f) ? "too much" : "too little");
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
                   show_value(&s, f, n), (unsigned long long)max);
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
            value_fail(c, f, n, NULL, "which holds other characters");
            return false;
        }
    }
    return parse_text(c, f, n, dst);
}

static bool parse_bool(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    bool yes = str_eq(n->text, STR_LIT("true"));
    if (n->quoted || (!yes && !str_eq(n->text, STR_LIT("false")))) {
        value_fail(c, f, n, NULL, n->quoted ? "which is text in quotes" : "neither true nor false");
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
    value_fail(c, f, n, near != NULL ? advice : NULL, "no such value");
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
        value_fail(c, f, n, n->quoted ? "remove the quotes" : NULL, "not a number");
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
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {NULL, 1}};
static const struct unit units_time_s[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {NULL, 1}};
static const struct unit units_size[] = {
    {"", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}, {"GiB", 1024 * 1024 * 1024}, {NULL, 1}};

static const struct unit units_percent[] = {{"%", 1}, {NULL, 1}};

static const struct unit *units_of(const struct field *f)
{
    return f->type == TYPE_SIZE          ? units_size
           : f->type == TYPE_PERCENT     ? units_percent
           : f->type == TYPE_DURATION_MS ? units_time_ms
                                         : units_time_s;
}

static bool parse_with_unit(struct context *c, const struct field *f, const struct node *n,
                            void *dst)
{
    uint64_t v;
    bool bare;
    if (!number_with_unit(n->text, units_of(f), &v, &bare)) {
        value_fail(c, f, n, NULL,
                   f->type == TYPE_SIZE      ? "not a size"
                   : f->type == TYPE_PERCENT ? "not a part in percent"
                   : bare                    ? "a number without a unit"
                                             : "not a duration");
        return false;
    }
    if (!in_range(c, f, n, v)) {
        return false;
    }
    store_uint(f, dst, v);
    return true;
}

/* "0640": permission bits in octal, quoted or not. */
static bool parse_mode(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n->text.n; i++) {
        if (n->text.p[i] < '0' || n->text.p[i] > '7' || n->text.n < 3 || n->text.n > 4) {
            value_fail(c, f, n, NULL, "not a mode");
            return false;
        }
        v = v * 8 + (uint64_t)(n->text.p[i] - '0');
    }
    if (v == 0 || v > 0777) {
        value_fail(c, f, n, NULL, "not a mode of reading, writing and executing alone");
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
        POSTERN_ASSERT(u->factor > 0);
        if (v >= u->factor && v % u->factor == 0) {
            best = u;
        }
    }
    POSTERN_ASSERT(best->factor > 0);
    snprintf(ret_text, size, "%llu%s", (unsigned long long)(v / best->factor), best->suffix);
}

/* --- identities and paths -----------------------------------------------------------------------
 */
static bool parse_spiffe_id(struct context *c, const struct field *f, const struct node *n,
                            void *dst)
{
    struct spiffe_id id;
    struct err err = ERR_INIT;
    if (spiffe_id_parse(n->text, &id, &err) != 0) {
        value_fail(c, f, n, err.advice[0] != '\0' ? err.advice : NULL, err.what);
        return false;
    }
    if (id.path.n == 0) {
        value_fail(c, f, n, NULL, "the trust domain itself and no workload");
        return false;
    }
    store_text(f, dst, n->text);
    return true;
}

static bool parse_id_template(struct context *c, const struct field *f, const struct node *n,
                              void *dst)
{
    const unsigned any =
        SPIFFE_KIND_UNIX | SPIFFE_KIND_K8S | SPIFFE_KIND_SYSTEMD | SPIFFE_KIND_CONTAINER;
    struct err err = ERR_INIT;
    struct str domain;
    if (!spiffe_template_is(n->text)) {
        return parse_spiffe_id(c, f, n, dst);
    }
    if (spiffe_template_check(n->text, any, &domain, &err) != 0) {
        value_fail(c, f, n, err.expected[0] != '\0' ? err.expected : NULL, err.what);
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
        value_fail(c, f, n, url ? "leave 'spiffe://' and any path out" : NULL,
                   "not a trust domain");
        return false;
    }
    store_text(f, dst, n->text);
    return true;
}

static bool parse_path(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    if (n->text.n == 0) {
        value_fail(c, f, n, NULL, "empty");
        return false;
    }
    bool absolute = n->text.p[0] == '/';
    mem_autofree char *path = absolute ? mem_must_strndup(n->text.p, n->text.n)
                                       : mem_must_printf("%s/%s", c->dir, n->text.p);
    if (strlen(path) > field_max(f)) {
        char why[80];
        snprintf(why, sizeof(why), "a path of %zu bytes where %llu are possible", strlen(path),
                 (unsigned long long)field_max(f));
        value_fail(c, f, n,
                   absolute ? NULL : "relative names stand against the directory of the file", why);
        return false;
    }
    store_text(f, dst, str_of(path));
    return true;
}

bool value_is_unix(struct str text)
{
    return str_has_prefix(text, STR_LIT("unix:"));
}

bool value_take_unix(struct context *c, const struct field *f, const struct node *n,
                     struct str *ret_path)
{
    struct str path = n->text;
    if (str_has_prefix(path, STR_LIT("unix://"))) {
        path = (struct str){path.p + 7, path.n - 7};
    } else if (value_is_unix(path)) {
        path = (struct str){path.p + 5, path.n - 5};
    } else {
        value_fail(c, f, n, NULL, "which does not begin with unix:");
        return false;
    }
    if (path.n < 2 || path.p[0] != '/' || path.n > CONFIG_SOCKET_PATH_MAX) {
        value_fail(c, f, n, NULL,
                   path.n > CONFIG_SOCKET_PATH_MAX ? "longer than a socket's name can be"
                                                   : "not an absolute path");
        return false;
    }
    *ret_path = path;
    return true;
}

static bool parse_unix(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct str path;
    if (!value_take_unix(c, f, n, &path)) {
        return false;
    }
    store_text(f, dst, path);
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
    [TYPE_PERCENT] = {"percent", "a number with %, such as 50%", parse_with_unit, false},
    [TYPE_MODE] = {"file mode", "a file's mode in octal, such as 0640", parse_mode, false},
    [TYPE_PORT] = {"port", "a port", parse_uint, false},
    [TYPE_ADDRESS] = {"address with port", "such as 127.0.0.1:8080 or [::1]:8080",
                      value_parse_address, false},
    [TYPE_IP] = {"IP address", "an IP address without a port", value_parse_ip, false},
    [TYPE_CIDR] = {"address or block", "such as 10.0.0.7, 10.0.0.0/8 or fd00::/8", value_parse_cidr,
                   false},
    [TYPE_SPIFFE_ID] = {"SPIFFE ID", "a SPIFFE ID such as spiffe://example.org/orders",
                        parse_spiffe_id, true},
    [TYPE_ID_TEMPLATE] = {"SPIFFE ID", "a SPIFFE ID such as spiffe://example.org/orders",
                          parse_id_template, true},
    [TYPE_TRUST_DOMAIN] = {"trust domain", "a trust domain such as example.org", parse_trust_domain,
                           true},
    [TYPE_PATH] = {"path", "a path", parse_path, true},
    [TYPE_UNIX] = {"Unix socket", "unix: and an absolute path", parse_unix, true},
    [TYPE_LISTEN] = {"address with port, Unix socket, or `systemd`",
                     "such as 0.0.0.0:8443, unix:/run/app.sock, systemd or systemd:NAME",
                     value_parse_listen, false},
    [TYPE_TARGET] = {"address with port, host with port, or Unix socket",
                     "such as 127.0.0.1:8080, db.example:5432 or unix:/run/app.sock",
                     value_parse_target, false},
    [TYPE_ENDPOINT] = {"address or host, maybe with port",
                       "such as 10.0.0.2, 10.0.0.2:8080, [fd00::2]:8080 or orders.internal:8080",
                       value_parse_endpoint, false},
    [TYPE_DNS_NAME] = {"DNS name", "a DNS name such as db.example", value_parse_dns_name, true},
    [TYPE_DNS_PATTERN] = {"DNS name, or `*.` and one",
                          "a DNS name such as db.example or *.db.example", value_parse_dns_pattern,
                          true},
    [TYPE_SELECTOR] =
        {"selector", "a selector such as unix:uid:1001, unix:path:/P, systemd:id:UNIT or k8s:ns:NS",
         value_parse_selector, false},
    [TYPE_TIME] = {"day or time in UTC", "such as 2027-01-31, its end, or 2027-01-31T18:00:00Z",
                   value_parse_time, false},
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
        free(s->written);
        free(s->text);
        s->written = s->text = NULL;
    } else if (f->type == TYPE_LISTEN) {
        struct conf_bind *b = dst;
        free(b->path);
        free(b->activation);
        b->path = b->activation = NULL;
    } else if (f->type == TYPE_TARGET || f->type == TYPE_ENDPOINT) {
        struct conf_target *t = dst;
        free(t->host);
        free(t->path);
        t->host = t->path = NULL;
    }
}

static bool is_ranged(const struct field *f)
{
    return f->type == TYPE_UINT || f->type == TYPE_SIZE || f->type == TYPE_DURATION_MS ||
           f->type == TYPE_DURATION_S || f->type == TYPE_PERCENT;
}

/* "1s to 10m"; false where the type has no range of its own. */
static bool range_text(const struct field *f, char *ret_text, size_t size)
{
    static const struct unit plain[] = {{"", 1}, {NULL, 1}};
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
