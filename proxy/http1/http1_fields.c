/*
 * Header fields by meaning: which ones frame the message, which go one hop only, which say who is
 * calling, and what Connection, Upgrade and TE ask for (RFC 9110 7.6, 7.8, 10.1.4; RFC 9112 6).
 */
#include <postern/http1.h>

#include "http1_priv.h"

/* A Connection with more options than this is nobody's honest one, and each costs a search. */
enum { CONNECTION_OPTIONS_MAX = 32 };

/* Names in lower case. `loose`: a name that equals this one once every byte that is neither letter
 * nor digit counts as '-' is treated alike (identity) or refused (framing). */
static const struct {
    struct str name;
    enum http1_field field;
    bool prefix;
    bool loose;
} known[] = {
    {NAME_OF("content-length"), HTTP1_FIELD_CONTENT_LENGTH, false, true},
    {NAME_OF("transfer-encoding"), HTTP1_FIELD_TRANSFER_ENCODING, false, true},
    {NAME_OF("host"), HTTP1_FIELD_HOST, false, false},
    {NAME_OF("connection"), HTTP1_FIELD_CONNECTION, false, false},
    {NAME_OF("upgrade"), HTTP1_FIELD_UPGRADE, false, false},
    {NAME_OF("te"), HTTP1_FIELD_TE, false, false},
    {NAME_OF("expect"), HTTP1_FIELD_EXPECT, false, false},
    {NAME_OF("keep-alive"), HTTP1_FIELD_HOP, false, false},
    {NAME_OF("proxy-connection"), HTTP1_FIELD_HOP, false, false},
    {NAME_OF("proxy-authenticate"), HTTP1_FIELD_HOP, false, false},
    {NAME_OF("proxy-authorization"), HTTP1_FIELD_HOP, false, false},
    {NAME_OF("http2-settings"), HTTP1_FIELD_HOP, false, false},
    {NAME_OF("x-forwarded"), HTTP1_FIELD_IDENTITY, true, true},
    {NAME_OF("forwarded"), HTTP1_FIELD_IDENTITY, false, true},
    {NAME_OF("x-real-ip"), HTTP1_FIELD_IDENTITY, false, true},
    {NAME_OF("client-cert"), HTTP1_FIELD_IDENTITY, false, true},
    {NAME_OF("client-cert-chain"), HTTP1_FIELD_IDENTITY, false, true},
    {NAME_OF("l5d-client-id"), HTTP1_FIELD_IDENTITY, false, true},
    {NAME_OF("x-postern-"), HTTP1_FIELD_OURS, true, true},
    {NAME_OF("authorization"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("cookie"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("set-cookie"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("cache-control"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("content-"), HTTP1_FIELD_SERVER, true, false},
    {NAME_OF("location"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("www-authenticate"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("max-forwards"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("range"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("if-match"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("if-none-match"), HTTP1_FIELD_SERVER, false, false},
    {NAME_OF("trailer"), HTTP1_FIELD_TRAILER, false, false},
    {NAME_OF("traceparent"), HTTP1_FIELD_TRACEPARENT, false, false},
    {NAME_OF("tracestate"), HTTP1_FIELD_TRACESTATE, false, false},
};

/* Folds at most HTTP1_FOLD_MAX bytes into lower case with '-' for every mark; tells whether that
 * changed a mark. */
static bool fold(struct str name, char out[HTTP1_FOLD_MAX])
{
    bool exact = true;
    for (size_t i = 0; i < name.n && i < HTTP1_FOLD_MAX; i++) {
        out[i] = (char)http1_fold_byte((uint8_t)name.p[i]);
        exact = exact && (http1_is((uint8_t)name.p[i], HTTP1_ALNUM) || name.p[i] == '-');
    }
    return exact;
}

enum http1_field http1_field_of_folded(const char *folded, size_t n, bool exact)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        struct str name = known[i].name;
        if (folded[0] != name.p[0] || n < name.n || (n > name.n && !known[i].prefix) ||
            memcmp(folded, name.p, name.n) != 0) {
            continue;
        }
        if (exact) {
            return known[i].field;
        }
        if (!known[i].loose) {
            return HTTP1_FIELD_OTHER;
        }
        bool framing = known[i].field == HTTP1_FIELD_CONTENT_LENGTH ||
                       known[i].field == HTTP1_FIELD_TRANSFER_ENCODING;
        return framing ? HTTP1_FIELD_LOOKALIKE : known[i].field;
    }
    return HTTP1_FIELD_OTHER;
}

/* By name, any case. Bytes that some servers fold into '-' (RFC 3875 4.1.18 makes all names
 * variables; '_' and '-' then meet) count as '-' where that would let a header through. */
static enum http1_field field_of(struct str name)
{
    char folded[HTTP1_FOLD_MAX];
    if (name.n == 0) {
        return HTTP1_FIELD_OTHER;
    }
    bool exact = fold(name, folded);
    return http1_field_of_folded(folded, name.n, exact);
}

/* --- lists -------------------------------------------------------------------------------------*/

bool http1_list_next(struct str *rest, struct str *ret_element)
{
    while (rest->n > 0) {
        const char *comma = memchr(rest->p, ',', rest->n);
        struct str e = {rest->p, comma != NULL ? (size_t)(comma - rest->p) : rest->n};
        size_t taken = comma != NULL ? e.n + 1 : e.n;
        rest->p += taken;
        rest->n -= taken;
        while (e.n > 0 && (e.p[0] == ' ' || e.p[0] == '\t')) {
            e.p++;
            e.n--;
        }
        while (e.n > 0 && (e.p[e.n - 1] == ' ' || e.p[e.n - 1] == '\t')) {
            e.n--;
        }
        if (e.n > 0) {
            *ret_element = e;
            return true;
        }
    }
    return false;
}

bool http1_is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!http1_is((uint8_t)s.p[i], HTTP1_TOKEN)) {
            return false;
        }
    }
    return s.n > 0;
}

bool http1_str_eq_lower(struct str s, const char *lower)
{
    size_t i = 0;
    for (; i < s.n && lower[i] != '\0'; i++) {
        if (http1_lower((uint8_t)s.p[i]) != (uint8_t)lower[i]) {
            return false;
        }
    }
    return i == s.n && lower[i] == '\0';
}

static bool str_eq_any_case(struct str a, struct str b)
{
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (http1_lower((uint8_t)a.p[i]) != http1_lower((uint8_t)b.p[i])) {
            return false;
        }
    }
    return true;
}

/* --- framing -----------------------------------------------------------------------------------*/

/* "Name:value" or "Name: value" and not one blank more: the two fields that frame a message are
 * forwarded as they came, and trimming is where parsers differ. */
static bool written_plainly(const struct http1_header *h)
{
    const char *colon = h->name.p + h->name.n;
    bool before = h->value.p == colon + 1 || (h->value.p == colon + 2 && colon[1] == ' ');
    return before && h->value.p[h->value.n] == '\r';
}

static enum http1_reason read_length(const struct http1_header *h, uint64_t *ret)
{
    /* RFC 9110 8.6: 1*DIGIT. Leading zeros are octal to some. 18 digits always fit. */
    struct str v = h->value;
    uint64_t n = 0;
    if (!written_plainly(h) || v.n == 0 || v.n > 18 || (v.n > 1 && v.p[0] == '0')) {
        return HTTP1_LENGTH_MALFORMED;
    }
    for (size_t i = 0; i < v.n; i++) {
        if (!http1_is((uint8_t)v.p[i], HTTP1_DIGIT)) {
            return HTTP1_LENGTH_MALFORMED;
        }
        n = n * 10 + (uint64_t)(v.p[i] - '0');
    }
    *ret = n;
    return HTTP1_NONE;
}

/* RFC 9112 6.1 to 6.3. A message with both fields is refused whatever they say, and so is a coding
 * but plain `chunked`: a body that we forward has to end where everyone thinks that it ends. */
static enum http1_reason read_framing(struct http1_fields *f, unsigned minor,
                                      const struct http1_header **ret_at)
{
    if (f->transfer_encoding != NULL) {
        *ret_at = f->transfer_encoding;
        if (f->content_length != NULL) {
            return HTTP1_LENGTH_WITH_CODING;
        }
        if (minor == 0) {
            return HTTP1_CODING_HTTP10;
        }
        if (!http1_str_eq_lower(f->transfer_encoding->value, "chunked") ||
            !written_plainly(f->transfer_encoding)) {
            return HTTP1_CODING_MALFORMED;
        }
    }
    if (f->content_length != NULL) {
        *ret_at = f->content_length;
        return read_length(f->content_length, &f->length);
    }
    return HTTP1_NONE;
}

/* --- Connection, Upgrade, TE -------------------------------------------------------------------*/

/* A field that Connection may not name: removing it would change what the server makes of the
 * message (RFC 9110 7.6.1: no option for a field that is intended for all recipients). */
static bool meant_for_server(enum http1_field field)
{
    switch (field) {
    case HTTP1_FIELD_CONTENT_LENGTH:
    case HTTP1_FIELD_TRANSFER_ENCODING:
    case HTTP1_FIELD_HOST:
    case HTTP1_FIELD_EXPECT:
    case HTTP1_FIELD_IDENTITY:
    case HTTP1_FIELD_OURS:
    case HTTP1_FIELD_SERVER:
    case HTTP1_FIELD_LOOKALIKE:
    case HTTP1_FIELD_TRACEPARENT:
    case HTTP1_FIELD_TRACESTATE:
        return true;
    case HTTP1_FIELD_OTHER:
    case HTTP1_FIELD_CONNECTION:
    case HTTP1_FIELD_UPGRADE:
    case HTTP1_FIELD_TE:
    case HTTP1_FIELD_HOP:
    case HTTP1_FIELD_TRAILER:
        break;
    }
    return false;
}

static enum http1_reason read_option(struct str option, struct http1_header *headers, unsigned n,
                                     struct http1_fields *f)
{
    if (!http1_is_token(option)) {
        return HTTP1_CONNECTION_MALFORMED;
    }
    if (http1_str_eq_lower(option, "close")) {
        f->close = true;
        return HTTP1_NONE;
    }
    if (http1_str_eq_lower(option, "keep-alive")) {
        f->keep_alive = true;
        return HTTP1_NONE;
    }
    if (http1_str_eq_lower(option, "upgrade")) {
        f->wants_upgrade = true;
        return HTTP1_NONE;
    }
    if (meant_for_server(field_of(option))) {
        return HTTP1_CONNECTION_LISTS;
    }
    for (unsigned i = 0; i < n; i++) {
        headers[i].drop = headers[i].drop || str_eq_any_case(headers[i].name, option);
    }
    return HTTP1_NONE;
}

static enum http1_reason read_connection(struct str list, struct http1_header *headers, unsigned n,
                                         struct http1_fields *f, unsigned *n_options)
{
    struct str option;
    while (http1_list_next(&list, &option)) {
        if (++*n_options > CONNECTION_OPTIONS_MAX) {
            return HTTP1_CONNECTION_MALFORMED;
        }
        enum http1_reason reason = read_option(option, headers, n, f);
        if (reason != HTTP1_NONE) {
            return reason;
        }
    }
    return HTTP1_NONE;
}

/* protocol-name ["/" protocol-version] (RFC 9110 7.8). */
static bool is_protocol(struct str s)
{
    const char *slash = memchr(s.p, '/', s.n);
    if (slash == NULL) {
        return http1_is_token(s);
    }
    size_t name = (size_t)(slash - s.p);
    return http1_is_token((struct str){s.p, name}) &&
           http1_is_token((struct str){slash + 1, s.n - name - 1});
}

static enum http1_reason read_upgrade(const struct http1_header *h, unsigned *n_protocols)
{
    struct str list = h->value;
    struct str protocol;
    while (http1_list_next(&list, &protocol)) {
        ++*n_protocols;
        if (!is_protocol(protocol)) {
            return HTTP1_UPGRADE_MALFORMED;
        }
    }
    return HTTP1_NONE;
}

/* Of TE only `trailers` is passed on: any other coding is between the peer and us. */
static void read_te(struct str list, struct http1_fields *f)
{
    struct str coding;
    while (http1_list_next(&list, &coding)) {
        f->te_trailers = f->te_trailers || http1_str_eq_lower(coding, "trailers");
    }
}

/* --- all together ------------------------------------------------------------------------------*/

static enum http1_reason set_once(const struct http1_header **slot, const struct http1_header *h,
                                  enum http1_reason duplicate)
{
    if (*slot != NULL) {
        return duplicate;
    }
    *slot = h;
    return HTTP1_NONE;
}

/* What one header is, and whether it goes further. */
static enum http1_reason classify(struct http1_header *h, enum http1_kind kind,
                                  struct http1_fields *f, unsigned *n_protocols, bool *traces)
{
    bool request = kind == HTTP1_KIND_REQUEST;
    h->id = (uint8_t)field_of(h->name);
    switch ((enum http1_field)h->id) {
    case HTTP1_FIELD_CONTENT_LENGTH:
        return set_once(&f->content_length, h, HTTP1_LENGTH_DUPLICATE);
    case HTTP1_FIELD_TRANSFER_ENCODING:
        return set_once(&f->transfer_encoding, h, HTTP1_CODING_DUPLICATE);
    case HTTP1_FIELD_HOST:
        return request ? set_once(&f->host, h, HTTP1_HOST_DUPLICATE) : HTTP1_NONE;
    case HTTP1_FIELD_EXPECT:
        return request ? set_once(&f->expect, h, HTTP1_EXPECT_UNKNOWN) : HTTP1_NONE;
    case HTTP1_FIELD_UPGRADE:
        h->drop = true;
        f->upgrade = h;
        return read_upgrade(h, n_protocols);
    case HTTP1_FIELD_TE:
        h->drop = true;
        read_te(h->value, f);
        return HTTP1_NONE;
    case HTTP1_FIELD_IDENTITY:
        h->drop = request;
        return HTTP1_NONE;
    case HTTP1_FIELD_CONNECTION:
    case HTTP1_FIELD_HOP:
    case HTTP1_FIELD_OURS:
        h->drop = true;
        return HTTP1_NONE;
    case HTTP1_FIELD_LOOKALIKE:
        return HTTP1_HEADER_LOOKALIKE;
    case HTTP1_FIELD_TRACEPARENT:
    case HTTP1_FIELD_TRACESTATE:
        *traces = *traces || request;
        break;
    case HTTP1_FIELD_OTHER:
    case HTTP1_FIELD_SERVER:
    case HTTP1_FIELD_TRAILER:
        break;
    }
    return HTTP1_NONE;
}

/* W3C Trace Context 3.2, 3.3: a traceparent that is not valid, or not the only one, is as none, and
 * without one tracestate says nothing. */
static void read_trace(struct http1_header *headers, unsigned n, struct http1_fields *f)
{
    unsigned n_parents = 0;
    for (unsigned i = 0; i < n; i++) {
        if (headers[i].id == HTTP1_FIELD_TRACEPARENT) {
            n_parents++;
            f->traceparent = http1_traceparent_valid(headers[i].value) ? &headers[i] : NULL;
        }
    }
    if (n_parents == 1 && f->traceparent != NULL) {
        return;
    }
    f->traceparent = NULL;
    for (unsigned i = 0; i < n; i++) {
        headers[i].drop = headers[i].drop || headers[i].id == HTTP1_FIELD_TRACEPARENT ||
                          headers[i].id == HTTP1_FIELD_TRACESTATE;
    }
}

enum http1_reason http1_fields_read(const uint8_t *data, struct http1_header *headers, unsigned n,
                                    enum http1_kind kind, unsigned minor, struct http1_fields *ret,
                                    size_t *ret_offset)
{
    unsigned n_options = 0;
    unsigned n_protocols = 0;
    bool traces = false;
    enum http1_reason reason = HTTP1_NONE;
    const struct http1_header *at = NULL;
    *ret = (struct http1_fields){0};
    for (unsigned i = 0; i < n && reason == HTTP1_NONE; i++) {
        at = &headers[i];
        reason = classify(&headers[i], kind, ret, &n_protocols, &traces);
    }
    if (reason == HTTP1_NONE) {
        reason = read_framing(ret, minor, &at);
    }
    for (unsigned i = 0; i < n && reason == HTTP1_NONE; i++) {
        if (headers[i].id == HTTP1_FIELD_CONNECTION) {
            at = &headers[i];
            reason = read_connection(headers[i].value, headers, n, ret, &n_options);
        }
    }
    if (reason != HTTP1_NONE) {
        *ret_offset = (size_t)((const uint8_t *)at->name.p - data);
        return reason;
    }
    if (n_protocols != 1) {
        ret->upgrade = NULL;
    }
    if (traces) {
        read_trace(headers, n, ret);
    }
    return HTTP1_NONE;
}
