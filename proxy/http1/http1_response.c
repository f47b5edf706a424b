/*
 * A response head from the workload, read against the request that it answers (RFC 9112 4, 6.3,
 * RFC 9110 6.4.1, 15). A response that two readers could cut differently is as dangerous as such a
 * request: the rest of it would be taken for the answer to somebody else's.
 */
#include <postern/http1.h>

#include "http1_priv.h"

#include <postern/err.h>

struct reading {
    struct http1_response *res;
    const struct http1_request_info *request;
    const uint8_t *data;
    struct http1_fields fields;
    enum http1_reason reason;
    size_t offset;
};

static bool refuse(struct reading *r, enum http1_reason reason, const struct http1_header *at)
{
    r->reason = reason;
    r->offset = at != NULL ? (size_t)((const uint8_t *)at->name.p - r->data) : 0;
    return false;
}

/* The scanner has made sure of "HTTP/1.minor SP 3DIGIT [SP reason] CR LF". */
static size_t split_status_line(struct http1_response *res, const uint8_t *data, size_t head_len)
{
    size_t line = http1_head_first_line(data, head_len);
    const size_t fixed = sizeof("HTTP/1.1 200") - 1;
    POSTERN_ASSERT(line >= fixed + 2);
    res->info.minor = (uint8_t)(data[7] - '0');
    res->info.status = (uint16_t)((data[9] - '0') * 100 + (data[10] - '0') * 10 + (data[11] - '0'));
    size_t reason = data[fixed] == ' ' ? fixed + 1 : fixed;
    res->reason = (struct str){(const char *)data + reason, line - 2 - reason};
    return line;
}

static bool read_framing(struct reading *r)
{
    struct http1_response_info *info = &r->res->info;
    const struct http1_fields *f = &r->fields;
    /* RFC 9110 9.3.6: behind a 2xx to CONNECT begins the tunnel. */
    bool tunnel = r->request->method == HTTP1_CONNECT && info->status / 100 == 2;
    bool bodiless = info->status < 200 || info->status == 204 || tunnel;
    if (bodiless && f->transfer_encoding != NULL) {
        /* RFC 9112 6.1: MUST NOT be sent with 1xx and 204, nor with such a 2xx. */
        return refuse(r, HTTP1_BODY_FORBIDDEN, f->transfer_encoding);
    }
    if (bodiless && f->content_length != NULL && f->length > 0) {
        /* RFC 9110 8.6: nor may Content-Length; a 0 is common and says the same. */
        return refuse(r, HTTP1_BODY_FORBIDDEN, f->content_length);
    }
    if (f->transfer_encoding != NULL && r->request->minor == 0) {
        /* RFC 9112 6.1: MUST NOT be sent unless the request was HTTP/1.1. */
        return refuse(r, HTTP1_CODING_HTTP10, f->transfer_encoding);
    }
    if (bodiless || info->status == 304 || r->request->method == HTTP1_HEAD) {
        info->framing = HTTP1_BODY_NONE;
    } else if (f->transfer_encoding != NULL) {
        info->framing = HTTP1_BODY_CHUNKED;
    } else if (f->content_length != NULL) {
        info->framing = HTTP1_BODY_LENGTH;
        info->length = f->length;
    } else {
        info->framing = HTTP1_BODY_UNTIL_CLOSE;
    }
    return true;
}

/* 101 only as an answer to a request for that protocol (RFC 9110 15.2.2). 426 names the protocols
 * that would do (15.5.22). Anything else has no use for Upgrade. */
static bool read_switch(struct reading *r)
{
    struct http1_response_info *info = &r->res->info;
    const struct http1_header *h = r->fields.upgrade;
    if (info->status == 426) {
        for (unsigned i = 0; i < r->res->n_headers; i++) {
            struct http1_header *any = &r->res->headers[i];
            any->drop = any->drop && any->id != HTTP1_FIELD_UPGRADE;
        }
        return true;
    }
    if (info->status != 101) {
        info->switching = r->request->method == HTTP1_CONNECT && info->status / 100 == 2;
        return true;
    }
    struct str list = h != NULL ? h->value : STR_NONE;
    struct str protocol;
    if (r->request->upgrade[0] == '\0' || !http1_list_next(&list, &protocol) ||
        !http1_str_eq_lower(protocol, r->request->upgrade)) {
        return refuse(r, HTTP1_UPGRADE_UNASKED, h);
    }
    r->res->headers[h - r->res->headers].drop = false;
    info->switching = true;
    return true;
}

static bool read_head(struct reading *r, size_t head_len, bool composed)
{
    struct http1_response *res = r->res;
    res->info = (struct http1_response_info){0};
    res->head_len = head_len;
    res->data = r->data;
    size_t start = split_status_line(res, r->data, head_len);
    res->n_headers = http1_head_split(r->data, head_len, start, res->headers);
    r->reason = http1_fields_read(r->data, res->headers, res->n_headers, HTTP1_KIND_RESPONSE,
                                  res->info.minor, &r->fields, &r->offset);
    if (r->reason != HTTP1_NONE || !read_framing(r) || !read_switch(r)) {
        return false;
    }
    struct http1_response_info *info = &res->info;
    const struct http1_fields *f = &r->fields;
    info->interim = info->status < 200 && info->status != 101;
    /* RFC 9112 9.3: 1.0 persists only if it says so. */
    info->keep_alive = !f->close && (info->minor != 0 || f->keep_alive) &&
                       info->framing != HTTP1_BODY_UNTIL_CLOSE && !info->switching;
    bool agreed = composed || http1_second_response(res, f, r->data);
    return agreed ? true : refuse(r, HTTP1_SECOND_READING, NULL);
}

enum http1_result http1_response_read(struct http1_scan *scan, const uint8_t *data, size_t len,
                                      const struct http1_limits *limits,
                                      const struct http1_request_info *request,
                                      struct http1_response *ret_response,
                                      struct http1_error *ret_error)
{
    struct reading r = {.res = ret_response, .request = request, .data = data};
    size_t head_len = 0;
    enum http1_result result =
        http1_head_scan(scan, HTTP1_KIND_RESPONSE, data, len, limits, &head_len, ret_error);
    if (result == HTTP1_DONE && !read_head(&r, head_len, limits->composed)) {
        result = http1_refuse(ret_error, r.reason, r.offset);
    }
    if (result == HTTP1_ERROR) {
        ret_error->status = 502;
    }
    return result;
}

bool http1_keeps_alive(const struct http1_request_info *request,
                       const struct http1_response_info *response)
{
    return request->keep_alive && response->framing != HTTP1_BODY_UNTIL_CLOSE &&
           !response->switching;
}

struct str http1_response_header(const struct http1_response *response, const char *name)
{
    for (unsigned i = 0; i < response->n_headers; i++) {
        if (http1_str_eq_lower(response->headers[i].name, name)) {
            return response->headers[i].value;
        }
    }
    return STR_NONE;
}
