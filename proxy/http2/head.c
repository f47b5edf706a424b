/*
 * A head, written down as the HTTP/1.1 head that means the same, so that one piece of code reads
 * both. nghttp2 has made sure of names, of pseudo fields and their order, and of the bytes of
 * values; that no value can end its line is looked at here once more, since everything hangs on it.
 */
#include "http2_priv.h"

unsigned http2_grpc_status(unsigned http_status)
{
    enum { RESOURCE_EXHAUSTED = 8, PERMISSION_DENIED = 7, INTERNAL = 13, UNAVAILABLE = 14 };
    switch (http_status) {
    case 401:
    case 403:
        return PERMISSION_DENIED;
    case 429:
        return RESOURCE_EXHAUSTED;
    case 502:
    case 503:
    case 504:
        return UNAVAILABLE;
    default:
        return INTERNAL;
    }
}

enum http2_code http2_code_across(uint32_t code)
{
    switch (code) {
    case HTTP2_NO_ERROR:
    case HTTP2_REFUSED_STREAM:
    case HTTP2_CANCEL:
    case HTTP2_ENHANCE_YOUR_CALM:
    case HTTP2_HTTP_1_1_REQUIRED:
        return (enum http2_code)code;
    default:
        return HTTP2_INTERNAL_ERROR;
    }
}

void http2_compose_begin(struct compose *c, enum compose_kind kind, uint32_t max)
{
    struct buf pseudo = c->pseudo, text = c->text, cookie = c->cookie;
    *c = (struct compose){.kind = kind, .pseudo = pseudo, .text = text, .cookie = cookie};
    c->pseudo.max = c->text.max = c->cookie.max = max;
    buf_consume(&c->pseudo, c->pseudo.len);
    buf_consume(&c->text, c->text.len);
    buf_consume(&c->cookie, c->cookie.len);
}

void http2_compose_deinit(struct compose *c)
{
    buf_reset(&c->pseudo);
    buf_reset(&c->text);
    buf_reset(&c->cookie);
}

static bool has_control(struct str s)
{
    uint8_t found = 0;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t b = (uint8_t)s.p[i];
        found = (uint8_t)(found | ((b < 0x20) & (b != '\t')) | (b == 0x7f));
    }
    return found != 0;
}

static void put(struct compose *c, struct str s)
{
    c->failed = c->failed || !buf_append(&c->text, s.p, s.n);
}

static void put_line(struct compose *c, struct str name, struct str value, bool never)
{
    uint8_t *at = buf_reserve(&c->text, name.n + value.n + 4);
    if (at == NULL) {
        c->failed = true;
        return;
    }
    memcpy(at, name.p, name.n);
    memcpy(at + name.n, ": ", 2);
    if (value.n > 0) {
        memcpy(at + name.n + 2, value.p, value.n);
    }
    memcpy(at + name.n + 2 + value.n, "\r\n", 2);
    buf_commit(&c->text, name.n + value.n + 4);
    if (never && c->n_lines < 128) {
        c->head.never_indexed[c->n_lines / 64] |= UINT64_C(1) << (c->n_lines % 64);
    }
    c->n_lines++;
}

static struct str piece(const struct compose *c, struct piece p)
{
    return p.n > 0 ? (struct str){(const char *)buf_head(&c->pseudo) + p.at, p.n} : STR_NONE;
}

static void keep(struct compose *c, struct str value, struct piece *ret)
{
    *ret = (struct piece){(uint32_t)c->pseudo.len, (uint32_t)value.n, true};
    c->failed = c->failed || !buf_append(&c->pseudo, value.p, value.n);
}

static void begin_lines(struct compose *c)
{
    if (c->line_written || c->kind != COMPOSE_REQUEST) {
        return;
    }
    c->line_written = true;
    put(c, piece(c, c->method));
    put(c, STR_LIT(" "));
    put(c, piece(c, c->path));
    put(c, STR_LIT(" HTTP/1.1\r\n"));
    if (c->authority.there) {
        put_line(c, STR_LIT("Host"), piece(c, c->authority), false);
    }
}

static void take_pseudo(struct compose *c, struct str name, struct str value)
{
    if (str_eq(name, STR_LIT(":method"))) {
        keep(c, value, &c->method);
    } else if (str_eq(name, STR_LIT(":path"))) {
        keep(c, value, &c->path);
    } else if (str_eq(name, STR_LIT(":authority"))) {
        keep(c, value, &c->authority);
    } else if (str_eq(name, STR_LIT(":scheme"))) {
        c->head.https = str_eq_nocase(value, STR_LIT("https"));
        c->head.bad_scheme = !c->head.https && !str_eq_nocase(value, STR_LIT("http"));
    } else if (str_eq(name, STR_LIT(":status"))) {
        put(c, STR_LIT("HTTP/1.1 "));
        put(c, value);
        put(c, STR_LIT(" \r\n"));
    }
}

static void take_cookie(struct compose *c, struct str value, bool never)
{
    c->cookie_never = c->cookie_never || never;
    bool ok = (c->cookie.len == 0 || buf_append(&c->cookie, "; ", 2)) &&
              buf_append(&c->cookie, value.p, value.n);
    c->failed = c->failed || !ok;
}

static void take_ordinary(struct compose *c, struct str name, struct str value, bool never)
{
    begin_lines(c);
    bool request = c->kind == COMPOSE_REQUEST;
    if (request && str_eq(name, STR_LIT("cookie"))) {
        take_cookie(c, value, never);
    } else if (request && str_eq(name, STR_LIT("te"))) {
        c->head.te_trailers = true; /* nghttp2 takes nothing else */
    } else if (request && str_eq(name, STR_LIT("host")) && c->authority.there) {
        c->head.host_mismatch =
            c->head.host_mismatch || !str_eq_nocase(value, piece(c, c->authority));
    } else {
        put_line(c, name, value, never);
    }
}

bool http2_compose_field(struct compose *c, struct str name, struct str value, bool never,
                         uint32_t limit)
{
    c->bytes += (uint32_t)(name.n + value.n) + FIELD_OVERHEAD;
    if (has_control(value)) {
        c->control = true;
        return false;
    }
    c->head.too_long = c->head.too_long || c->bytes > limit;
    if (c->head.too_long) {
        return true;
    }
    if (name.n > 0 && name.p[0] == ':') {
        take_pseudo(c, name, value);
    } else {
        take_ordinary(c, name, value, never);
    }
    return true;
}

const struct http2_head *http2_compose_end(struct compose *c)
{
    begin_lines(c);
    if (c->cookie.len > 0) {
        put_line(c, STR_LIT("cookie"), buf_str(&c->cookie), c->cookie_never);
    }
    put(c, STR_LIT("\r\n"));
    c->head.text = buf_str(&c->text);
    return c->failed ? NULL : &c->head;
}
