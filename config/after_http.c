/* after: an action that makes an HTTP request. docs/rotation-actions.md. */
#include <postern/conf.h>

#include <stdio.h>
#include <string.h>

#include "after_priv.h"
#include "config_priv.h"

enum {
    HEADERS_MAX = 32,
    HEADERS_BYTES_MAX = 4096,
    BODY_MAX = 4096,
};

static const char *const words_method[] = {"POST", "GET", "PUT", "PATCH", "DELETE", NULL};

const char *conf_http_method_name(uint32_t method)
{
    POSTERN_ASSERT(method < sizeof(words_method) / sizeof(words_method[0]) - 1);
    return words_method[method];
}

static bool is_field_name(struct str s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool alnum =
            (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        if (!alnum && strchr(others, ch) == NULL) {
            return false;
        }
    }
    return s.n > 0;
}

static bool check_header(struct context *c, const struct field *f, const struct node *n)
{
    static const char *const ours[] = {"host", "content-length", "transfer-encoding", "connection",
                                       NULL};
    const char *colon = n->text.n > 0 ? memchr(n->text.p, ':', n->text.n) : NULL;
    struct str name = {n->text.p, colon != NULL ? (size_t)(colon - n->text.p) : 0};

    if (!is_field_name(name)) {
        value_fail(c, f, n, NULL, "which is no 'Name: value'");
        return false;
    }
    for (size_t i = 0; i < n->text.n; i++) {
        if ((unsigned char)n->text.p[i] < ' ' || n->text.p[i] == 0x7f) {
            value_fail(c, f, n, NULL, "which holds control characters");
            return false;
        }
    }
    for (size_t i = 0; ours[i] != NULL; i++) {
        if (str_eq_nocase(name, str_of(ours[i]))) {
            value_fail(c, f, n, NULL, "which is set by itself");
            return false;
        }
    }
    return true;
}

static bool parse_range(struct str s, struct conf_status_range *ret)
{
    uint64_t v;
    if (s.n == 3 && s.p[0] >= '1' && s.p[0] <= '5' && s.p[1] == 'x' && s.p[2] == 'x') {
        ret->first = (uint16_t)((s.p[0] - '0') * 100);
        ret->last = (uint16_t)(ret->first + 99);
        return true;
    }
    if (s.n != 3 || !str_to_u64(s, 599, &v) || v < 100) {
        return false;
    }
    ret->first = ret->last = (uint16_t)v;
    return true;
}

static bool check_expect(struct context *c, const struct field *f, const struct node *n)
{
    struct conf_status_range range;
    if (!parse_range(n->text, &range)) {
        value_fail(c, f, n, "such as 2xx or 204", "which is no status");
        return false;
    }
    return true;
}

static void check_http_url(struct context *c, const struct node *map, struct conf_after *a)
{
    const struct node *url = node_get(map, "url");
    const struct node *ca = node_get(map, "ca_file");

    if (url == NULL || a->http.url_text == NULL ||
        conf_url_parse(str_of(a->http.url_text), &a->http.url) != NULL) {
        return; /* reported */
    }
    if (!conf_url_is_http(&a->http.url)) {
        report(c, url, "http:// or https://", NULL, "'url' of an HTTP request");
        return;
    }
    bool https = a->http.url.scheme == CONF_URL_HTTPS;
    if (https && a->http.url.unix_path[0] != '\0') {
        report(c, url, "http://unix:", NULL, "https over a Unix socket");
    } else if (https && ca == NULL) {
        report(c, map, "ca_file: the CA of the server's certificate", NULL,
               "'http' asks over https and names nobody to believe");
    } else if (!https && ca != NULL) {
        report(c, ca->key, NULL, "remove it, or ask over https", "'ca_file' without https");
    }
}

static void check_http(struct context *c, const struct node *map, void *value)
{
    struct conf_after *a = value;
    const struct conf_words *expect = &a->http.expect_words;

    a->http.present = true;
    check_http_url(c, map, a);
    if (a->http.headers.n > HEADERS_MAX || after_words_size(&a->http.headers) > HEADERS_BYTES_MAX) {
        report(c, node_get(map, "headers"), NULL, NULL, "more than %d headers, or %d bytes",
               HEADERS_MAX, HEADERS_BYTES_MAX);
    }
    if (expect->n > CONF_EXPECT_MAX) {
        report(c, node_get(map, "expect"), NULL, NULL, "more than %d statuses", CONF_EXPECT_MAX);
        return;
    }
    for (size_t i = 0; i < expect->n; i++) {
        if (expect->items[i] != NULL &&
            parse_range(str_of(expect->items[i]), &a->http.expect[a->http.n_expect])) {
            a->http.n_expect++;
        }
    }
    if (expect->n == 0) {
        (void)parse_range(STR_LIT("2xx"), &a->http.expect[a->http.n_expect++]);
    }
}

static const struct field fields_http[] = {
    {.name = "method",
     .type = TYPE_WORD,
     .words = words_method,
     AT(struct conf_after, http.method),
     .def = "POST",
     .doc = "The request's method."},
    {.name = "url",
     .type = TYPE_TEXT,
     .required = true,
     .max = 2048,
     .check = after_check_url,
     .expected = "http://HOST[:PORT]/PATH, https://..., or http://unix:/SOCKET:/PATH",
     AT(struct conf_after, http.url_text),
     .doc = "`http://HOST[:PORT]/PATH`, `https://…`, or `http://unix:/SOCKET:/PATH`."},
    {.name = "headers",
     .type = TYPE_TEXT,
     .max = 4096,
     .check = check_header,
     .secret = true,
     LIST_AT(struct conf_after, http.headers.items, http.headers.n),
     .def_doc = "none",
     .doc = "Further lines of the request's head, `Name: value` each."},
    {.name = "body",
     .type = TYPE_TEXT,
     .max = BODY_MAX,
     .secret = true,
     AT(struct conf_after, http.body),
     .def_doc = "none",
     .doc = "The request's body."},
    {.name = "expect",
     .type = TYPE_TEXT,
     .max = 3,
     .check = check_expect,
     LIST_AT(struct conf_after, http.expect_words.items, http.expect_words.n),
     .def_doc = "`2xx`",
     .doc = "The statuses that mean success: `204`, or a class such as `2xx`."},
    {.name = "ca_file",
     .type = TYPE_PATH,
     AT(struct conf_after, http.ca_file),
     .doc = "PEM: whom the server's certificate has to lead to. A must with https."},
};
const struct table table_after_http = {.name = "http", FIELDS(fields_http), .check = check_http};
