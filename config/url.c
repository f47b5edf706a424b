/* url: the few forms of a place that `after` and `verify` may name. No percent-decoding, no user
 * information, no fragment: what is not of these forms is refused. */
#include <postern/conf_after.h>

#include <arpa/inet.h>
#include <string.h>

static const struct {
    const char *prefix;
    enum conf_url_scheme scheme;
    uint16_t port; /* 0: has to be named */
} SCHEMES[] = {
    {"tls://", CONF_URL_TLS, 0},
    {"tls+postgres://", CONF_URL_TLS_POSTGRES, 5432},
    {"tls+mysql://", CONF_URL_TLS_MYSQL, 3306},
    {"http://", CONF_URL_HTTP, 80},
    {"https://", CONF_URL_HTTPS, 443},
};
enum { N_SCHEMES = sizeof(SCHEMES) / sizeof(SCHEMES[0]) };

bool conf_url_is_http(const struct conf_url *url)
{
    return url->scheme == CONF_URL_HTTP || url->scheme == CONF_URL_HTTPS;
}

static struct str cut(struct str s, size_t n)
{
    return (struct str){s.p + n, s.n - n};
}

static bool copy(struct str s, char *ret, size_t size)
{
    if (s.n >= size) {
        return false;
    }
    if (s.n > 0) {
        memcpy(ret, s.p, s.n);
    }
    ret[s.n] = '\0';
    return true;
}

/* Letters, digits, dashes and dots; an address is one of these too. */
static bool is_host_name(struct str s)
{
    bool edge = true; /* a label begins and ends with a letter or digit */
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && (c != '-' && c != '_' && c != '.')) {
            return false;
        }
        if (c == '.' && edge) {
            return false;
        }
        edge = c == '.';
    }
    return s.n > 0 && !edge && s.p[0] != '-';
}

static bool is_address6(struct str s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    return copy(s, text, sizeof(text)) && inet_pton(AF_INET6, text, &addr) == 1;
}

/* HOST[:PORT]; an IPv6 address stands in brackets. */
static const char *parse_host(struct str s, uint16_t port, struct conf_url *url)
{
    const char *end = NULL;
    struct str host, rest;
    uint64_t number = port;

    if (s.n > 0 && s.p[0] == '[') {
        end = memchr(s.p, ']', s.n);
        host = end != NULL ? (struct str){s.p + 1, (size_t)(end - s.p) - 1} : STR_NONE;
        if (!is_address6(host)) {
            return "which has no IPv6 address in its brackets";
        }
        rest = cut(s, host.n + 2);
    } else {
        end = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;
        host = (struct str){s.p, end != NULL ? (size_t)(end - s.p) : s.n};
        if (!is_host_name(host)) {
            return "which names no host";
        }
        rest = cut(s, host.n);
    }
    if (str_eq(host, STR_LIT("unix"))) {
        return "whose host 'unix' is the word for a socket's path";
    }
    if (rest.n > 0 && (rest.p[0] != ':' || !str_to_u64(cut(rest, 1), 65535, &number))) {
        return "whose port is no number up to 65535";
    }
    if (number == 0) {
        return "which names no port";
    }
    url->port = (uint16_t)number;
    return copy(host, url->host, sizeof(url->host)) ? NULL : "whose host is too long";
}

static const char *parse_unix(struct str s, struct conf_url *url)
{
    if (s.n < 2 || s.p[0] != '/' || memchr(s.p, ':', s.n) != NULL) {
        return "whose socket is no absolute path";
    }
    return copy(s, url->unix_path, sizeof(url->unix_path)) ? NULL
                                                           : "whose socket's path is too long";
}

static const char *parse_request_path(struct str s, struct conf_url *url)
{
    if (s.n == 0) {
        s = STR_LIT("/");
    }
    if (memchr(s.p, '#', s.n) != NULL) {
        return "which has a fragment";
    }
    return copy(s, url->path, sizeof(url->path)) ? NULL : "whose path is too long";
}

static const char *parse_place(struct str s, uint16_t port, struct conf_url *url)
{
    bool http = conf_url_is_http(url);
    bool local = str_has_prefix(s, STR_LIT("unix:"));
    const char *end;
    struct str place = local ? cut(s, 5) : s;
    const char *why;

    if (!http) {
        if (!local && memchr(place.p, '/', place.n) != NULL) {
            return "which has a path";
        }
        return local ? parse_unix(place, url) : parse_host(place, port, url);
    }
    end = memchr(place.p, local ? ':' : '/', place.n);
    if (local && (end == NULL || end + 1 == place.p + place.n || end[1] != '/')) {
        return "which has no ':/path' behind the socket";
    }
    struct str where = {place.p, end != NULL ? (size_t)(end - place.p) : place.n};
    why = local ? parse_unix(where, url) : parse_host(where, port, url);
    return why != NULL ? why : parse_request_path(cut(place, where.n + (local ? 1 : 0)), url);
}

const char *conf_url_parse(struct str text, struct conf_url *ret)
{
    struct conf_url url = {.port = 0};
    size_t i = 0;
    const char *why;

    for (size_t k = 0; k < text.n; k++) {
        if (text.p[k] <= ' ' || text.p[k] >= 0x7f) {
            return "which holds spaces, control characters or what is not ASCII";
        }
    }
    while (i < N_SCHEMES && !str_has_prefix(text, str_of(SCHEMES[i].prefix))) {
        i++;
    }
    if (i == N_SCHEMES) {
        return "which begins with none of tls://, tls+postgres://, tls+mysql://, http://, https://";
    }
    url.scheme = SCHEMES[i].scheme;
    text = cut(text, strlen(SCHEMES[i].prefix));
    why = text.n > 0 ? parse_place(text, SCHEMES[i].port, &url) : "which names no host";
    if (why == NULL) {
        *ret = url;
    }
    return why;
}
