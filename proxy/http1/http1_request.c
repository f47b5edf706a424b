/* A request head: its target, its host and its framing (RFC 9112 3, RFC 9110 4, 7, RFC 3986). */
#include <postern/http1.h>

#include "http1_priv.h"

#include <arpa/inet.h>
#include <postern/err.h>
#include <stdio.h>

/* What is being read, and where it went wrong. */
struct reading {
    struct http1_request *req;
    const uint8_t *data;
    struct http1_fields fields;
    enum http1_reason reason;
    size_t offset;
};

static bool refuse(struct reading *r, enum http1_reason reason, const char *at)
{
    r->reason = reason;
    r->offset = (size_t)((const uint8_t *)at - r->data);
    return false;
}

/* --- host --------------------------------------------------------------------------------------*/

struct authority {
    struct str host;
    uint32_t port; /* 80 if it has none: the scheme is http */
};

static bool is_ipv6_literal(struct str s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    if (s.n < 4 || s.p[0] != '[' || s.p[s.n - 1] != ']' || s.n - 2 >= sizeof(text)) {
        return false;
    }
    memcpy(text, s.p + 1, s.n - 2);
    text[s.n - 2] = '\0';
    return inet_pton(AF_INET6, text, &addr) == 1;
}

/* Letters, digits, '-', '_' and '~' in labels of at least one byte. Of RFC 3986's reg-name the
 * percent-encoded and the sub-delims are left out: no name that resolves has them, and every parser
 * takes them differently. */
static bool is_reg_name(struct str s)
{
    bool in_label = false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c == '.') {
            if (!in_label) {
                return false;
            }
            in_label = false;
        } else if (http1_is(c, HTTP1_ALNUM) || c == '-' || c == '_' || c == '~') {
            in_label = true;
        } else {
            return false;
        }
    }
    return s.n > 0;
}

static bool read_port(struct str s, uint32_t *ret)
{
    uint32_t port = 0;
    if (s.n == 0 || s.n > 5) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!http1_is((uint8_t)s.p[i], HTTP1_DIGIT)) {
            return false;
        }
        port = port * 10 + (uint32_t)(s.p[i] - '0');
    }
    *ret = port;
    return port >= 1 && port <= 65535;
}

/* uri-host [":" port], without userinfo (RFC 9110 4.2.4 wants it treated as an error). */
static bool read_authority(struct str s, struct authority *ret)
{
    struct authority a = {s, 80};
    const char *bracket = s.n > 0 && s.p[0] == '[' ? memchr(s.p, ']', s.n) : NULL;
    size_t from = bracket != NULL ? (size_t)(bracket - s.p) : 0;
    const char *colon = s.n > from ? memchr(s.p + from, ':', s.n - from) : NULL;
    if (colon != NULL) {
        a.host.n = (size_t)(colon - s.p);
        if (!read_port((struct str){colon + 1, s.n - a.host.n - 1}, &a.port)) {
            return false;
        }
    }
    if (a.host.n > HTTP1_MAX_HOST || !(is_reg_name(a.host) || is_ipv6_literal(a.host))) {
        return false;
    }
    if (a.host.p[a.host.n - 1] == '.') {
        a.host.n--;
    }
    *ret = a;
    return true;
}

static void keep_host(struct http1_request *req, struct str host)
{
    bool same = true;
    for (size_t i = 0; i < host.n; i++) {
        req->host_text[i] = (char)http1_lower((uint8_t)host.p[i]);
        same = same && req->host_text[i] == host.p[i];
    }
    req->host_text[host.n] = '\0';
    req->host = same ? host : (struct str){req->host_text, host.n};
}

/* What CONNECT is judged by: host and port, however they were written. */
static bool keep_authority(struct reading *r, const struct authority *a)
{
    struct http1_request *req = r->req;
    size_t n = a->host.n;
    for (size_t i = 0; i < n; i++) {
        req->host_text[i] = (char)http1_lower((uint8_t)a->host.p[i]);
    }
    int port = snprintf(req->host_text + n, sizeof(req->host_text) - n, ":%u", (unsigned)a->port);
    if (port < 0 || (size_t)port >= sizeof(req->host_text) - n) {
        return refuse(r, HTTP1_HOST_MALFORMED, a->host.p);
    }
    req->host = (struct str){req->host_text, n + (size_t)port};
    return true;
}

/* RFC 9112 3.2: exactly one valid Host with 1.1. With an absolute target both have to say the same;
 * that RFC 9112 3.2.2 lets the target win is how a proxy and a server come to differ. */
static bool read_host(struct reading *r, struct str target_authority)
{
    const struct http1_header *h = r->fields.host;
    struct authority host = {STR_NONE, 80};
    struct authority target;
    bool connect = r->req->form == HTTP1_AUTHORITY_FORM;
    if (h != NULL && !read_authority(h->value, &host)) {
        return refuse(r, HTTP1_HOST_MALFORMED, h->name.p);
    }
    if (h == NULL && (r->req->info.minor != 0 || target_authority.p != NULL)) {
        return refuse(r, HTTP1_HOST_MISSING, r->req->method.p);
    }
    keep_host(r->req, host.host);
    if (target_authority.p == NULL) {
        return true;
    }
    if (!read_authority(target_authority, &target)) {
        return refuse(r, HTTP1_HOST_MALFORMED, target_authority.p);
    }
    if (!str_eq_nocase(target.host, host.host) || target.port != host.port) {
        return refuse(r, HTTP1_HOST_MISMATCH, target_authority.p);
    }
    if (connect) { /* RFC 9110 9.3.6: there is no port but the one that is said */
        if (target.host.p + target.host.n >= target_authority.p + target_authority.n) {
            return refuse(r, HTTP1_TARGET_FORM, target_authority.p);
        }
        return keep_authority(r, &target);
    }
    return true;
}

/* --- path --------------------------------------------------------------------------------------*/

static bool check_percent(struct reading *r, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            continue;
        }
        if (s.n - i < 3 || !http1_is((uint8_t)s.p[i + 1], HTTP1_HEXDIG) ||
            !http1_is((uint8_t)s.p[i + 2], HTTP1_HEXDIG)) {
            return refuse(r, HTTP1_TARGET_PERCENT, s.p + i);
        }
        i += 2;
    }
    return true;
}

static bool read_path(struct reading *r, uint32_t allow)
{
    struct http1_request *req = r->req;
    struct http1_path p;
    const char *at = NULL;
    enum http1_reason reason =
        http1_path_read(req->path, allow, req->path_text, req->other_text, &p, &at);
    if (reason != HTTP1_NONE) {
        return refuse(r, reason, at);
    }
    req->judged_path = p.judged;
    req->other_path = p.other;
    return true;
}

/* --- target ------------------------------------------------------------------------------------*/

/* RFC 9112 3.2: origin-form, absolute-form of the scheme http, or '*' for OPTIONS. */
static bool split_target(struct reading *r, struct str *ret_authority, struct str *ret_path_query)
{
    struct http1_request *req = r->req;
    struct str t = req->target;
    static const char scheme[] = "http://";
    *ret_authority = STR_NONE;
    *ret_path_query = t;
    if (req->info.method == HTTP1_CONNECT) {
        req->form = HTTP1_AUTHORITY_FORM;
        *ret_authority = t;
        *ret_path_query = (struct str){t.p + t.n, 0};
        return true;
    }
    if (t.p[0] == '/') {
        req->form = HTTP1_ORIGIN_FORM;
        return true;
    }
    if (str_eq(t, STR_LIT("*"))) {
        req->form = HTTP1_ASTERISK_FORM;
        return req->info.method == HTTP1_OPTIONS ? true : refuse(r, HTTP1_TARGET_FORM, t.p);
    }
    if (t.n < sizeof(scheme) ||
        !http1_str_eq_lower((struct str){t.p, sizeof(scheme) - 1}, scheme)) {
        return refuse(r, HTTP1_TARGET_FORM, t.p);
    }
    req->form = HTTP1_ABSOLUTE_FORM;
    size_t i = sizeof(scheme) - 1;
    while (i < t.n && t.p[i] != '/' && t.p[i] != '?') {
        i++;
    }
    *ret_authority = (struct str){t.p + sizeof(scheme) - 1, i - (sizeof(scheme) - 1)};
    *ret_path_query = (struct str){t.p + i, t.n - i};
    return true;
}

static bool read_target(struct reading *r, struct str *ret_authority)
{
    struct http1_request *req = r->req;
    struct str rest;
    if (!split_target(r, ret_authority, &rest) || !check_percent(r, req->target)) {
        return false;
    }
    const char *mark = rest.n > 0 ? memchr(rest.p, '?', rest.n) : NULL;
    req->has_query = mark != NULL;
    req->query = STR_NONE;
    req->path = rest;
    if (mark != NULL) {
        req->path.n = (size_t)(mark - rest.p);
        req->query = (struct str){mark + 1, rest.n - req->path.n - 1};
    }
    if (req->path.n == 0 && req->form != HTTP1_AUTHORITY_FORM) {
        /* RFC 9112 3.2.1 and 3.2.4: what an absolute target without a path is sent on as. */
        bool all = req->info.method == HTTP1_OPTIONS && !req->has_query;
        req->path = all ? STR_LIT("*") : STR_LIT("/");
    }
    return true;
}

/* --- head --------------------------------------------------------------------------------------*/

static enum http1_method method_of(struct str m)
{
    if (str_eq(m, STR_LIT("GET"))) {
        return HTTP1_GET;
    }
    if (str_eq(m, STR_LIT("HEAD"))) {
        return HTTP1_HEAD;
    }
    if (str_eq(m, STR_LIT("OPTIONS"))) {
        return HTTP1_OPTIONS;
    }
    if (str_eq(m, STR_LIT("TRACE"))) {
        return HTTP1_TRACE;
    }
    return str_eq(m, STR_LIT("CONNECT")) ? HTTP1_CONNECT : HTTP1_OTHER;
}

/* The scanner has made sure of "method SP target SP HTTP/1.minor CR LF". */
static size_t split_request_line(struct http1_request *req, const uint8_t *data, size_t head_len)
{
    size_t line = http1_head_first_line(data, head_len);
    const uint8_t *space = memchr(data, ' ', line);
    POSTERN_ASSERT(space != NULL);
    const char *target = (const char *)space + 1;
    const uint8_t *end = memchr(target, ' ', line - (size_t)(space + 1 - data));
    POSTERN_ASSERT(end != NULL);
    req->method = (struct str){(const char *)data, (size_t)(space - data)};
    req->target = (struct str){target, (size_t)((const char *)end - target)};
    req->info.method = (uint8_t)method_of(req->method);
    req->info.minor = (uint8_t)(data[line - 3] - '0');
    return line;
}

static bool read_body(struct reading *r, uint64_t max_body)
{
    struct http1_request_info *info = &r->req->info;
    const struct http1_fields *f = &r->fields;
    if (f->transfer_encoding != NULL) {
        info->framing = HTTP1_BODY_CHUNKED;
    } else if (f->content_length != NULL) {
        info->framing = HTTP1_BODY_LENGTH;
        info->length = f->length;
    }
    bool has_body = info->framing == HTTP1_BODY_CHUNKED || info->length > 0;
    if (info->method == HTTP1_CONNECT && info->framing != HTTP1_BODY_NONE) {
        /* RFC 9110 9.3.6: its content has no meaning, and what follows is the tunnel's. */
        return refuse(r, HTTP1_BODY_FORBIDDEN, r->req->method.p);
    }
    if (f->content_length != NULL && max_body > 0 && info->length > max_body) {
        return refuse(r, HTTP1_BODY_LONG, f->content_length->name.p);
    }
    if (info->method == HTTP1_TRACE && has_body) {
        /* RFC 9110 9.3.8: a client MUST NOT send content in a TRACE request. */
        return refuse(r, HTTP1_BODY_FORBIDDEN, r->req->method.p);
    }
    if (f->expect == NULL) {
        return true;
    }
    if (!http1_str_eq_lower(f->expect->value, "100-continue")) {
        return refuse(r, HTTP1_EXPECT_UNKNOWN, f->expect->name.p);
    }
    /* RFC 9110 10.1.1: from HTTP/1.0 it is ignored. */
    r->req->headers[f->expect - r->req->headers].drop = info->minor == 0;
    info->expects_100 = has_body && info->minor != 0;
    return true;
}

/* An upgrade is passed on if exactly one protocol is asked for, and not another HTTP or TLS: what
 * follows 101 is not judged any more, and requests may not slip past the policy that way. Without
 * the header the request goes on as an ordinary one (RFC 9110 7.8: Upgrade may be ignored, and MUST
 * be with HTTP/1.0). */
static void read_upgrade(struct reading *r)
{
    static const char *const not_these[] = {"http", "h2", "h3", "tls"};
    struct http1_request_info *info = &r->req->info;
    const struct http1_header *h = r->fields.upgrade;
    if (h == NULL || !r->fields.wants_upgrade || info->minor == 0 ||
        info->method == HTTP1_CONNECT) {
        return;
    }
    struct str list = h->value;
    struct str protocol;
    if (!http1_list_next(&list, &protocol) || protocol.n >= sizeof(info->upgrade)) {
        return;
    }
    for (size_t i = 0; i < sizeof(not_these) / sizeof(not_these[0]); i++) {
        size_t n = strlen(not_these[i]);
        if (protocol.n >= n && http1_str_eq_lower((struct str){protocol.p, n}, not_these[i])) {
            return;
        }
    }
    for (size_t i = 0; i < protocol.n; i++) {
        info->upgrade[i] = (char)http1_lower((uint8_t)protocol.p[i]);
    }
    r->req->headers[h - r->req->headers].drop = false;
}

static bool read_head(struct reading *r, const struct http1_limits *limits, size_t head_len)
{
    struct http1_request *req = r->req;
    struct str authority;
    req->info = (struct http1_request_info){0};
    req->head_len = head_len;
    req->data = r->data;
    size_t start = split_request_line(req, r->data, head_len);
    req->n_headers = http1_head_split(r->data, head_len, start, req->headers);
    r->reason = http1_fields_read(r->data, req->headers, req->n_headers, HTTP1_KIND_REQUEST,
                                  req->info.minor, &r->fields, &r->offset);
    if (r->reason != HTTP1_NONE || !read_body(r, limits->max_body) || !read_target(r, &authority) ||
        !read_host(r, authority)) {
        return false;
    }
    if (req->path.n == 0 || req->path.p[0] == '*') {
        req->judged_path = req->path;
        req->other_path = STR_NONE;
    } else if (!read_path(r, limits->allow_paths)) {
        return false;
    }
    req->traceparent = r->fields.traceparent != NULL ? r->fields.traceparent->value : STR_NONE;
    read_upgrade(r);
    req->te_trailers = r->fields.te_trailers;
    /* RFC 9112 9.3: a proxy keeps no connection to an HTTP/1.0 client, whatever it asks for. */
    req->info.keep_alive = req->info.minor != 0 && !r->fields.close;
    if (req->info.method == HTTP1_CONNECT) {
        req->info.keep_alive = false; /* what came behind it was meant for a tunnel */
    }
    bool agreed = limits->composed || http1_second_request(req, r->data);
    return agreed ? true : refuse(r, HTTP1_SECOND_READING, req->method.p);
}

enum http1_result http1_request_read(struct http1_scan *scan, const uint8_t *data, size_t len,
                                     const struct http1_limits *limits,
                                     struct http1_request *ret_request,
                                     struct http1_error *ret_error)
{
    struct reading r = {.req = ret_request, .data = data};
    size_t head_len;
    enum http1_result result =
        http1_head_scan(scan, HTTP1_KIND_REQUEST, data, len, limits, &head_len, ret_error);
    if (result != HTTP1_DONE) {
        return result;
    }
    if (!read_head(&r, limits, head_len)) {
        return http1_refuse(ret_error, r.reason, r.offset);
    }
    return HTTP1_DONE;
}

struct str http1_request_header(const struct http1_request *request, const char *name)
{
    for (unsigned i = 0; i < request->n_headers; i++) {
        if (http1_str_eq_lower(request->headers[i].name, name)) {
            return request->headers[i].value;
        }
    }
    return STR_NONE;
}
