/*
 * The second reading: llhttp goes over a head that our validator has passed, and has to find the
 * same method, headers and framing. It decides nothing by itself; what it does is to catch a
 * mistake of ours, since one byte of disagreement refuses the message.
 *
 * llhttp 8.1 must be built with LLHTTP_STRICT_MODE, for the library and here. It knows a few
 * methods less than we do: those are read as POST, on which nothing in a head depends.
 */
#include <postern/http1.h>

#include "http1_priv.h"

#include <llhttp.h>

struct second {
    const struct http1_header *headers;
    unsigned n_headers;
    unsigned seen; /* headers that agreed */
    const char *name_from, *name_to;
    const char *value_from, *value_to;
    bool complete;
    bool differs;
};

static void span_add(const char **from, const char **to, const char *at, size_t n)
{
    if (*from == NULL) {
        *from = at;
    }
    *to = at + n;
}

static int on_name(llhttp_t *parser, const char *at, size_t n)
{
    struct second *s = parser->data;
    span_add(&s->name_from, &s->name_to, at, n);
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t n)
{
    struct second *s = parser->data;
    span_add(&s->value_from, &s->value_to, at, n);
    return 0;
}

static int on_value_complete(llhttp_t *parser)
{
    struct second *s = parser->data;
    const struct http1_header *h = &s->headers[s->seen];
    const char *to = s->value_to;
    if (s->seen >= s->n_headers) {
        s->differs = true;
        return HPE_USER;
    }
    while (s->value_from != NULL && to > s->value_from && (to[-1] == ' ' || to[-1] == '\t')) {
        to--;
    }
    /* An empty value may come without a span. */
    bool value = h->value.n == 0 ? to == s->value_from
                                 : s->value_from == h->value.p && to == h->value.p + h->value.n;
    if (s->name_from != h->name.p || s->name_to != h->name.p + h->name.n || !value) {
        s->differs = true;
        return HPE_USER;
    }
    s->seen++;
    s->name_from = s->name_to = s->value_from = s->value_to = NULL;
    return 0;
}

static int on_head_complete(llhttp_t *parser)
{
    struct second *s = parser->data;
    s->complete = true;
    return HPE_PAUSED;
}

static void settings_init(llhttp_settings_t *settings)
{
    llhttp_settings_init(settings);
    settings->on_header_field = on_name;
    settings->on_header_value = on_value;
    settings->on_header_value_complete = on_value_complete;
    settings->on_headers_complete = on_head_complete;
}

/* Whether llhttp stopped at the end of the head, having agreed to every header. */
static bool agrees(llhttp_t *parser, const uint8_t *data, size_t from, size_t head_len)
{
    const struct second *s = parser->data;
    enum llhttp_errno result = llhttp_execute(parser, (const char *)data + from, head_len - from);
    return result == HPE_PAUSED && s->complete && !s->differs && s->seen == s->n_headers;
}

static bool same_framing(const llhttp_t *parser, bool chunked, bool has_length, uint64_t length)
{
    return ((parser->flags & F_CHUNKED) != 0) == chunked &&
           ((parser->flags & F_CONTENT_LENGTH) != 0) == has_length &&
           (!has_length || parser->content_length == length);
}

bool http1_second_request(const struct http1_request *request, const uint8_t *data)
{
    llhttp_t parser;
    llhttp_settings_t settings;
    struct second s = {.headers = request->headers, .n_headers = request->n_headers};
    size_t from = 0;
    bool known = false;
    settings_init(&settings);
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = &s;
    if (request->info.method == HTTP1_CONNECT) {
        known = true; /* and its target is read by another rule */
    } else if (!http1_method_known(request->method, &known) || !known) {
        if (llhttp_execute(&parser, "POST", 4) != HPE_OK) {
            return false;
        }
        from = request->method.n;
    }
    if (!agrees(&parser, data, from, request->head_len)) {
        return false;
    }
    const struct http1_request_info *info = &request->info;
    const char *method = llhttp_method_name((llhttp_method_t)parser.method);
    return (!known || str_eq(str_of(method), request->method)) && parser.http_major == 1 &&
           parser.http_minor == info->minor &&
           same_framing(&parser, info->framing == HTTP1_BODY_CHUNKED,
                        info->framing == HTTP1_BODY_LENGTH, info->length);
}

bool http1_second_response(const struct http1_response *response, const struct http1_fields *fields,
                           const uint8_t *data)
{
    llhttp_t parser;
    llhttp_settings_t settings;
    struct second s = {.headers = response->headers, .n_headers = response->n_headers};
    settings_init(&settings);
    llhttp_init(&parser, HTTP_RESPONSE, &settings);
    parser.data = &s;
    return agrees(&parser, data, 0, response->head_len) && parser.http_major == 1 &&
           parser.http_minor == response->info.minor &&
           parser.status_code == response->info.status &&
           same_framing(&parser, fields->transfer_encoding != NULL, fields->content_length != NULL,
                        fields->length);
}
