#include <postern/jsonl.h>

#include <inttypes.h>
#include <postern/log.h>
#include <stdio.h>
#include <string.h>

static const char HEX[] = "0123456789abcdef";
static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* --- writing ---------------------------------------------------------------------------------- */
static void put(struct jsonl_writer *w, const char *p, size_t n)
{
    if (w->full || n > w->size - w->len) {
        w->full = true;
        return;
    }
    memcpy(w->text + w->len, p, n);
    w->len += n;
}

void jsonl_begin(struct jsonl_writer *w, char *space, size_t size)
{
    *w = (struct jsonl_writer){.text = space, .size = size};
    put(w, "{", 1);
}

static void put_key(struct jsonl_writer *w, const char *key)
{
    if (w->len > 1) {
        put(w, ",", 1);
    }
    put(w, "\"", 1);
    put(w, key, strlen(key));
    put(w, "\":", 2);
}

void jsonl_put_text(struct jsonl_writer *w, const char *key, struct str value, size_t max)
{
    put_key(w, key);
    put(w, "\"", 1);
    while (!w->full && value.n > 0) {
        char piece[6 * 64];
        struct str some = {value.p, value.n < 64 ? value.n : 64};

        if (max == 0) {
            put(w, "...", 3);
            break;
        }
        while (some.n < value.n && some.n > 61 && ((uint8_t)value.p[some.n] & 0xc0) == 0x80) {
            some.n--; /* a character stays whole, or it would be told as bytes */
        }
        some.n = some.n < max ? some.n : max;
        put(w, piece, log_json_escape(some, piece, sizeof(piece)));
        value = (struct str){value.p + some.n, value.n - some.n};
        max -= some.n;
    }
    put(w, "\"", 1);
}

void jsonl_put_hex(struct jsonl_writer *w, const char *key, const uint8_t *bytes, size_t n)
{
    put_key(w, key);
    put(w, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        const char two[] = {HEX[bytes[i] >> 4], HEX[bytes[i] & 15]};

        put(w, two, 2);
    }
    put(w, "\"", 1);
}

void jsonl_put_base64(struct jsonl_writer *w, const char *key, const uint8_t *bytes, size_t n)
{
    put_key(w, key);
    put(w, "\"", 1);
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                     (left > 2 ? bytes[i + 2] : 0);
        const char four[] = {BASE64[v >> 18], BASE64[v >> 12 & 63],
                             left > 1 ? BASE64[v >> 6 & 63] : '=', left > 2 ? BASE64[v & 63] : '='};

        put(w, four, 4);
    }
    put(w, "\"", 1);
}

void jsonl_put_uint(struct jsonl_writer *w, const char *key, uint64_t value)
{
    char text[24];

    put_key(w, key);
    put(w, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, value));
}

void jsonl_put_int(struct jsonl_writer *w, const char *key, int64_t value)
{
    char text[24];

    put_key(w, key);
    put(w, text, (size_t)snprintf(text, sizeof(text), "%" PRId64, value));
}

void jsonl_put_bool(struct jsonl_writer *w, const char *key, bool value)
{
    put_key(w, key);
    put(w, value ? "true" : "false", value ? 4 : 5);
}

bool jsonl_end(struct jsonl_writer *w)
{
    put(w, "}", 1);
    return !w->full;
}

bool jsonl_end_in(struct jsonl_writer *w, struct buf *out)
{
    return jsonl_end(w) && buf_append(out, w->text, w->len) && buf_append(out, "\n", 1);
}

/* --- reading ---------------------------------------------------------------------------------- */
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_digit(char c)
{
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* From behind the opening quote; *i then stands behind the closing one. */
static bool scan_text(struct str s, size_t *i)
{
    while (*i < s.n) {
        unsigned char c = (unsigned char)s.p[*i];

        if (c == '"') {
            ++*i;
            return true;
        }
        if (c < 0x20) {
            return false;
        }
        if (c != '\\') {
            ++*i;
        } else if (s.n - *i >= 2 && (s.p[*i + 1] == '"' || s.p[*i + 1] == '\\')) {
            *i += 2;
        } else if (s.n - *i >= 6 && memcmp(s.p + *i, "\\u00", 4) == 0 &&
                   hex_digit(s.p[*i + 4]) != -1 && hex_digit(s.p[*i + 5]) != -1) {
            *i += 6;
        } else {
            return false;
        }
    }
    return false;
}

static bool scan_key(struct str s, size_t *i, struct str *ret)
{
    size_t from = *i + 1;

    if (*i >= s.n || s.p[*i] != '"') {
        return false;
    }
    for (++*i;
         *i < s.n && ((s.p[*i] >= 'a' && s.p[*i] <= 'z') || is_digit(s.p[*i]) || s.p[*i] == '_');
         ++*i) {
    }
    *ret = (struct str){s.p + from, *i - from};
    if (ret->n == 0 || s.n - *i < 2 || s.p[*i] != '"' || s.p[*i + 1] != ':') {
        return false;
    }
    *i += 2;
    return true;
}

/* An integer, true or false, up to a comma or the end of the object. */
static bool scan_word(struct str s, size_t *i, struct str *ret)
{
    size_t from = *i;

    while (*i < s.n && s.p[*i] != ',' && s.p[*i] != '}') {
        ++*i;
    }
    *ret = (struct str){s.p + from, *i - from};
    if (str_eq(*ret, STR_LIT("true")) || str_eq(*ret, STR_LIT("false"))) {
        return true;
    }
    from = ret->n > 1 && ret->p[0] == '-' ? 1 : 0;
    if (ret->n == from || ret->n - from > 20 || (ret->n - from > 1 && ret->p[from] == '0')) {
        return false;
    }
    for (size_t k = from; k < ret->n; k++) {
        if (!is_digit(ret->p[k])) {
            return false;
        }
    }
    return true;
}

static bool scan_field(struct str s, size_t *i, struct jsonl *l)
{
    struct jsonl_field f = {.at = *i};

    ++*i; /* the comma, or the opening brace */
    if (l->n == JSONL_FIELDS_MAX || !scan_key(s, i, &f.key)) {
        return false;
    }
    for (size_t k = 0; k < l->n; k++) {
        if (str_eq(l->fields[k].key, f.key)) {
            return false;
        }
    }
    if (*i < s.n && s.p[*i] == '"') {
        size_t from = ++*i;

        if (!scan_text(s, i)) {
            return false;
        }
        f.is_text = true;
        f.value = (struct str){s.p + from, *i - 1 - from};
    } else if (!scan_word(s, i, &f.value)) {
        return false;
    }
    l->fields[l->n++] = f;
    return true;
}

bool jsonl_parse(struct str line, struct jsonl *ret)
{
    size_t i = 0;

    ret->n = 0;
    if (line.n < 2 || line.p[0] != '{') {
        return false;
    }
    do {
        if (!scan_field(line, &i, ret)) {
            return false;
        }
    } while (i < line.n && line.p[i] == ',');
    return line.n - i == 1 && line.p[i] == '}';
}

bool jsonl_next(struct str *rest, struct jsonl *ret)
{
    const char *end = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
    struct str line;

    if (end == NULL) {
        return false;
    }
    line = (struct str){rest->p, (size_t)(end - rest->p)};
    *rest = (struct str){end + 1, rest->n - line.n - 1};
    return jsonl_parse(line, ret);
}

const struct jsonl_field *jsonl_find(const struct jsonl *l, const char *key)
{
    for (size_t i = 0; i < l->n; i++) {
        if (str_eq(l->fields[i].key, str_of(key))) {
            return &l->fields[i];
        }
    }
    return NULL;
}

bool jsonl_get_text(const struct jsonl *l, const char *key, char *ret, size_t size)
{
    const struct jsonl_field *f = jsonl_find(l, key);
    size_t o = 0;

    if (f == NULL || !f->is_text) {
        return false;
    }
    for (size_t i = 0; i < f->value.n;) {
        char c = f->value.p[i];

        if (c == '\\' && f->value.p[i + 1] == 'u') {
            c = (char)(hex_digit(f->value.p[i + 4]) << 4 | hex_digit(f->value.p[i + 5]));
            i += 6;
        } else if (c == '\\') {
            c = f->value.p[i + 1];
            i += 2;
        } else {
            i++;
        }
        if (c == '\0' || size - o < 2) {
            return false;
        }
        ret[o++] = c;
    }
    if (size == 0) {
        return false;
    }
    ret[o] = '\0';
    return true;
}

bool jsonl_is(const struct jsonl *l, const char *key, const char *value)
{
    const struct jsonl_field *f = jsonl_find(l, key);

    return f != NULL && f->is_text && str_eq(f->value, str_of(value));
}

bool jsonl_get_uint(const struct jsonl *l, const char *key, uint64_t *ret)
{
    const struct jsonl_field *f = jsonl_find(l, key);

    return f != NULL && !f->is_text && str_to_u64(f->value, UINT64_MAX, ret);
}

bool jsonl_get_int(const struct jsonl *l, const char *key, int64_t *ret)
{
    const struct jsonl_field *f = jsonl_find(l, key);
    struct str s = f != NULL && !f->is_text ? f->value : STR_NONE;
    bool minus = s.n > 0 && s.p[0] == '-';
    uint64_t n;

    if (minus) {
        s = (struct str){s.p + 1, s.n - 1};
    }
    if (s.n == 0 || !str_to_u64(s, INT64_MAX, &n)) {
        return false;
    }
    *ret = minus ? -(int64_t)n : (int64_t)n;
    return true;
}

bool jsonl_get_hex(const struct jsonl *l, const char *key, uint8_t *ret, size_t n)
{
    const struct jsonl_field *f = jsonl_find(l, key);

    if (f == NULL || !f->is_text || f->value.n != 2 * n) {
        return false;
    }
    for (size_t i = 0; i < f->value.n; i++) {
        if (hex_digit(f->value.p[i]) == -1) {
            return false;
        }
    }
    for (size_t i = 0; i < n; i++) {
        ret[i] = (uint8_t)(hex_digit(f->value.p[2 * i]) << 4 | hex_digit(f->value.p[2 * i + 1]));
    }
    return true;
}

bool jsonl_get_base64(const struct jsonl *l, const char *key, uint8_t *ret, size_t size,
                      size_t *ret_len)
{
    const struct jsonl_field *f = jsonl_find(l, key);
    size_t o = 0;

    if (f == NULL || !f->is_text || f->value.n % 4 != 0) {
        return false;
    }
    for (size_t i = 0; i < f->value.n; i += 4) {
        uint32_t v = 0;
        size_t n = 3;

        if (i + 4 == f->value.n && f->value.p[i + 3] == '=') {
            n = f->value.p[i + 2] == '=' ? 1 : 2;
        }
        for (size_t k = 0; k < n + 1; k++) {
            const char *at = memchr(BASE64, f->value.p[i + k], sizeof(BASE64) - 1);

            if (at == NULL) {
                return false;
            }
            v |= (uint32_t)(at - BASE64) << (18 - 6 * k);
        }
        if (n > size - o || (v & ((1U << (8 * (3 - n))) - 1)) != 0) {
            return false;
        }
        for (size_t k = 0; k < n; k++) {
            ret[o++] = (uint8_t)(v >> (16 - 8 * k));
        }
    }
    *ret_len = o;
    return true;
}
