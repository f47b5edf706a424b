/* http: one request of HTTP/1.1 (RFC 9112), and of its answer the status. No length in the answer
 * is looked at, since nothing behind its head is read. */
#include "probe_priv.h"

#include <string.h>

static bool is_line_text(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* "HTTP/1.1 200 OK"; the reason may be missing, and the space before it with it. */
static bool parse_status_line(struct str line, unsigned *ret)
{
    uint64_t status = 0;

    if (line.n < 12 || (!str_has_prefix(line, STR_LIT("HTTP/1.1 ")) &&
                        !str_has_prefix(line, STR_LIT("HTTP/1.0 ")))) {
        return false;
    }
    if (!str_to_u64((struct str){line.p + 9, 3}, 599, &status) || status < 100 ||
        (line.n > 12 && line.p[12] != ' ')) {
        return false;
    }
    *ret = (unsigned)status;
    return true;
}

/* The line at the front, without its end; false: there is no whole one. */
static enum http_head take_line(struct str *rest, struct str *ret)
{
    const char *end = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
    size_t n = end != NULL ? (size_t)(end - rest->p) : 0;

    if (end == NULL) {
        return HTTP_HEAD_MORE;
    }
    if (n == 0 || rest->p[n - 1] != '\r' || !is_line_text((struct str){rest->p, n - 1})) {
        return HTTP_HEAD_BAD;
    }
    *ret = (struct str){rest->p, n - 1};
    *rest = (struct str){end + 1, rest->n - n - 1};
    return HTTP_HEAD_OK;
}

static enum http_head take_head(struct str *rest, unsigned *ret_status)
{
    static const char prefix[] = "HTTP/1.";
    size_t seen = rest->n < sizeof(prefix) - 1 ? rest->n : sizeof(prefix) - 1;
    struct str line;
    enum http_head got;

    if (seen > 0 && memcmp(rest->p, prefix, seen) != 0) {
        return HTTP_HEAD_BAD; /* at once: whoever it is may never end a line */
    }
    got = take_line(rest, &line);
    if (got != HTTP_HEAD_OK) {
        return got;
    }
    if (!parse_status_line(line, ret_status)) {
        return HTTP_HEAD_BAD;
    }
    do {
        got = take_line(rest, &line);
    } while (got == HTTP_HEAD_OK && line.n > 0);
    return got;
}

enum http_head http_head_parse(const char *bytes, size_t n, unsigned *ret_status)
{
    struct str rest = {bytes, n};
    unsigned status = 0;

    for (int i = 0; i <= HTTP_INTERIM_MAX; i++) {
        enum http_head got = take_head(&rest, &status);

        if (got == HTTP_HEAD_OK && (status >= 200 || status == 101)) {
            *ret_status = status;
            return HTTP_HEAD_OK;
        }
        if (got == HTTP_HEAD_MORE && n >= HTTP_HEAD_MAX) {
            return HTTP_HEAD_BAD;
        }
        if (got != HTTP_HEAD_OK) {
            return got;
        }
    }
    return HTTP_HEAD_BAD;
}

bool http_request_write(const struct probe_question *q, struct buf *out)
{
    bool six = strchr(q->url.host, ':') != NULL;
    uint16_t usual = q->url.scheme == CONF_URL_HTTPS ? 443 : 80;
    bool ok =
        buf_printf(out, "%s %s HTTP/1.1\r\nHost: %s%s%s", q->method, q->url.path, six ? "[" : "",
                   q->url.unix_path[0] != '\0' ? "localhost" : q->url.host, six ? "]" : "");

    if (q->url.port != 0 && q->url.port != usual) {
        ok = ok && buf_printf(out, ":%u", (unsigned)q->url.port);
    }
    ok = ok &&
         buf_printf(out, "\r\nUser-Agent: postern-rotate\r\nAccept: */*\r\n"
                         "Connection: close\r\n") &&
         buf_append(out, q->headers, q->headers_len);
    /* A method with a meaning for a body says how long it is, also that there is none. */
    if (q->body_len > 0 || strcmp(q->method, "GET") != 0) {
        ok = ok && buf_printf(out, "Content-Length: %u\r\n", (unsigned)q->body_len);
    }
    return ok && buf_append(out, "\r\n", 2) && buf_append(out, q->body, q->body_len);
}
