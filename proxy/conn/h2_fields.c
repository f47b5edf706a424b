/* HTTP/2: heads that the writer of HTTP/1.1 heads has made, as fields. */
#include "h2_priv.h"

#include <string.h>

static uint8_t lower(uint8_t c)
{
    return (uint8_t)(c | (unsigned)(c >= 'A' && c <= 'Z') << 5);
}

/* What the writer adds for one hop of HTTP/1.1. */
static bool is_for_one_hop(struct str name)
{
    return str_eq(name, STR_LIT("connection")) || str_eq(name, STR_LIT("te"));
}

/* A value that no other message has: in the tables of HPACK it would find a place, which costs both
 * ends more than its text does, and each search for it goes over all that were before. */
static bool is_new_each_time(struct str name)
{
    return str_eq(name, STR_LIT("traceparent")) || str_eq(name, STR_LIT("x-request-id"));
}

static struct http2_field line_of(uint8_t *line, size_t len)
{
    const uint8_t *colon = (const uint8_t *)memchr(line, ':', len);
    size_t n = colon != NULL ? (size_t)(colon - line) : len;
    for (size_t i = 0; i < n; i++) {
        line[i] = lower(line[i]);
    }
    const char *text = (const char *)line;
    size_t at = n + 1;
    while (at < len && text[at] == ' ') {
        at++;
    }
    at = at < len ? at : len;
    return (struct http2_field){{text, n}, {text + at, len - at}, false};
}

size_t h2_fields_add(uint8_t *head, size_t len, bool skip_host, const uint64_t *never,
                     struct http2_field fields[HTTP2_FIELDS_MAX], size_t n)
{
    uint8_t *at = (uint8_t *)memchr(head, '\n', len);
    size_t line = 0;
    while (at != NULL) {
        at++;
        uint8_t *end = (uint8_t *)memchr(at, '\n', len - (size_t)(at - head));
        if (end == NULL || end - at < 2) {
            break; /* the empty one */
        }
        struct http2_field f = line_of(at, (size_t)(end - at) - 1);
        bool out = is_for_one_hop(f.name) || (skip_host && str_eq(f.name, STR_LIT("host")));
        if (!out && n == HTTP2_FIELDS_MAX) {
            return HTTP2_FIELDS_MAX + 1;
        }
        if (!out) {
            bool said = never != NULL && line < 128 && (never[line / 64] >> (line % 64) & 1) != 0;
            f.never_indexed = said || is_new_each_time(f.name);
            fields[n++] = f;
        }
        line++;
        at = end;
    }
    return n;
}

struct http2_field h2_status_field(const uint8_t *head)
{
    /* "HTTP/1.1 200 " */
    return (struct http2_field){STR_LIT(":status"), {(const char *)head + 9, 3}, false};
}

struct str h2_field_value(const struct http2_field *fields, size_t n, struct str name)
{
    for (size_t i = 0; i < n && i < HTTP2_FIELDS_MAX; i++) {
        if (str_eq(fields[i].name, name)) {
            return fields[i].value;
        }
    }
    return STR_NONE;
}

/* Read as what follows the last chunk of HTTP/1.1: there is one rule. */
const char *h2_trailers_refused(struct str text)
{
    static const uint8_t last_chunk[] = "0\r\n";
    struct http1_body body;
    struct http1_error e;
    size_t used = 0;
    http1_body_init(&body, HTTP1_BODY_CHUNKED, 0);
    if (http1_body_feed(&body, last_chunk, 3, &used, &e) != HTTP1_MORE) {
        return "trailer_forbidden";
    }
    switch (http1_body_feed(&body, (const uint8_t *)text.p, text.n, &used, &e)) {
    case HTTP1_DONE:
        return used == text.n ? NULL : "trailer_forbidden";
    case HTTP1_MORE:
        break;
    case HTTP1_ERROR:
        return http1_reason_token(e.reason);
    }
    return "trailer_forbidden";
}
