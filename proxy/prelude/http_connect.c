/* HTTP CONNECT, the client's side. */
#include <postern/http_connect.h>

#include <postern/mem.h>
#include <string.h>

/* --- the request ------------------------------------------------------------------------------ */

/* RFC 4648, with padding. */
static bool put_base64(struct buf *out, struct str in)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = (const uint8_t *)in.p;
    bool ok = true;
    for (size_t i = 0; ok && i < in.n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < in.n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < in.n ? (uint32_t)p[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63],
                        i + 1 < in.n ? digits[v >> 6 & 63] : '=',
                        i + 2 < in.n ? digits[v & 63] : '='};
        ok = buf_append(out, four, sizeof(four));
        mem_wipe(four, sizeof(four));
    }
    return ok;
}

bool http_connect_request(struct str authority, struct str credentials, struct buf *out)
{
    bool ok = buf_printf(out, "CONNECT %.*s HTTP/1.1\r\nHost: %.*s\r\n", STR_ARG(authority),
                         STR_ARG(authority));
    if (credentials.n > 0) {
        ok = ok && buf_append_str(out, STR_LIT("Proxy-Authorization: Basic ")) &&
             put_base64(out, credentials) && buf_append_str(out, STR_LIT("\r\n"));
    }
    return ok && buf_append_str(out, STR_LIT("\r\n"));
}

/* --- the answer ------------------------------------------------------------------------------- */

/* RFC 9112 section 4: "HTTP/1.1 200 reason"; the reason may be empty, and its blank then missing.
 */
static bool take_status(struct str line, unsigned *ret_status)
{
    uint64_t status;
    if (!str_has_prefix(line, STR_LIT("HTTP/1.1 ")) &&
        !str_has_prefix(line, STR_LIT("HTTP/1.0 "))) {
        return false;
    }
    struct str rest = {line.p + 9, line.n - 9};
    if (rest.n < 3 || (rest.n > 3 && rest.p[3] != ' ') ||
        !str_to_u64((struct str){rest.p, 3}, 599, &status) || status < 100) {
        return false;
    }
    *ret_status = (unsigned)status;
    return true;
}

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* A name and a colon; no folded line, no blank before the colon. The value may be anything but
 * controls, which next_line has refused. */
static bool is_field(struct str line)
{
    size_t n = 0;
    while (n < line.n && is_token_char(line.p[n])) {
        n++;
    }
    return n > 0 && n < line.n && line.p[n] == ':';
}

enum line { LINE_MORE, LINE_OK, LINE_BAD };

/* A line and its CR LF; other controls than tabs have no place in a head. */
static enum line next_line(const uint8_t *data, size_t len, size_t *at, struct str *ret)
{
    for (size_t i = *at; i < len; i++) {
        if (data[i] == '\r') {
            if (i + 1 == len) {
                return LINE_MORE;
            }
            if (data[i + 1] != '\n') {
                return LINE_BAD;
            }
            *ret = (struct str){(const char *)data + *at, i - *at};
            *at = i + 2;
            return LINE_OK;
        }
        if ((data[i] < ' ' && data[i] != '\t') || data[i] == 127) {
            return LINE_BAD;
        }
    }
    return LINE_MORE;
}

/* One head, from *at on. OPEN here means: it is whole. */
static enum http_connect_result take_head(const uint8_t *data, size_t len, size_t *at,
                                          unsigned *ret_status)
{
    struct str line;
    bool first = true;
    for (;;) {
        switch (next_line(data, len, at, &line)) {
        case LINE_MORE:
            return HTTP_CONNECT_MORE;
        case LINE_BAD:
            return HTTP_CONNECT_BAD;
        case LINE_OK:
            break;
        }
        if (first) {
            if (!take_status(line, ret_status)) {
                return HTTP_CONNECT_BAD;
            }
            first = false;
        } else if (line.n == 0) {
            return HTTP_CONNECT_OPEN;
        } else if (!is_field(line)) {
            return HTTP_CONNECT_BAD;
        }
    }
}

enum http_connect_result http_connect_answer(const uint8_t *data, size_t len, unsigned *ret_status,
                                             size_t *ret_used)
{
    size_t most = HTTP_CONNECT_ANSWER_MAX;
    size_t look = len < most ? len : most;
    size_t at = 0;
    unsigned status = 0;
    do {
        enum http_connect_result r = take_head(data, look, &at, &status);
        if (r == HTTP_CONNECT_MORE) {
            return look == most ? HTTP_CONNECT_BAD : r;
        }
        if (r == HTTP_CONNECT_BAD) {
            return r;
        }
    } while (status < 200 && status != 101);
    *ret_status = status;
    *ret_used = at;
    return status >= 200 && status < 300 ? HTTP_CONNECT_OPEN : HTTP_CONNECT_REFUSED;
}
