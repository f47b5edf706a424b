/* gateway_health: what a Gateway file says about its targets' health and its own, and the proxy
 * that it may have to ask for a tunnel. */
#include <postern/conf.h>

#include <arpa/inet.h>
#include <string.h>

#include "config_priv.h"

enum { PATH_MAX_LEN = 1024, CREDENTIALS_MAX_LEN = 512 };

static const char *const words_check[] = {"none", "tcp", "tls", "http", NULL};

/* --- how a target is checked ------------------------------------------------------------------ */
static bool is_path(struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] <= ' ' || text.p[i] >= 0x7f || text.p[i] == '#') {
            return false;
        }
    }
    return text.n > 0 && text.p[0] == '/';
}

static bool check_path(struct context *c, const struct field *f, const struct node *n)
{
    if (!is_path(n->text)) {
        value_fail(c, f, n, NULL, "which is not the path of a URL");
        return false;
    }
    return true;
}

static void check_target_check(struct context *c, const struct node *map, void *value);

static const struct field fields_check[] = {
    {.name = "kind",
     .type = TYPE_WORD,
     .words = words_check,
     .required = true,
     AT(struct conf_target_check, kind),
     .doc = "`none`; `tcp`: it accepts a connection; `tls`: also, the handshake succeeds and the "
            "peer is who it must be (client and relay); `http`: also, GET of `path` is answered "
            "with `status`."},
    {.name = "path",
     .type = TYPE_TEXT,
     .max = PATH_MAX_LEN,
     .check = check_path,
     .expected = "a path such as /healthz",
     AT(struct conf_target_check, path),
     .def_doc = "`/`",
     .doc = "`http` only."},
    {.name = "host",
     .type = TYPE_DNS_NAME,
     AT(struct conf_target_check, host),
     .def_doc = "`localhost`",
     .doc = "`http` only: the Host field."},
    {.name = "status",
     .type = TYPE_UINT,
     .min = 200,
     .max = 599,
     AT(struct conf_target_check, status),
     .def = "200",
     .doc = "`http` only: the answer that is good."},
};
const struct table table_target_check = {.name = "check",
                                         .size = sizeof(struct conf_target_check),
                                         FIELDS(fields_check),
                                         .check = check_target_check};

static void check_target_check(struct context *c, const struct node *map, void *value)
{
    const struct conf_target_check *k = value;
    if (k->kind != CONF_CHECK_HTTP && node_get(map, "kind") != NULL) {
        schema_refuse_key(c, map, "path", "a check that is not http", NULL);
        schema_refuse_key(c, map, "host", "a check that is not http", NULL);
        schema_refuse_key(c, map, "status", "a check that is not http", NULL);
    }
}

static const struct field fields_targets[] = {
    {.name = "check",
     .type = TYPE_WORD,
     .words = words_check,
     AT(struct conf_proxy, targets.check),
     .def = "tcp",
     .doc = "How the target of each listener is checked that does not say `check` itself. `tls` is "
            "`tcp` where the target speaks in the clear."},
    {.name = "interval",
     .type = TYPE_DURATION_MS,
     .min = 100,
     .max = 3600000,
     AT(struct conf_proxy, targets.interval_ms),
     .def = "5s",
     .doc = "Between two checks of a target."},
    {.name = "timeout",
     .type = TYPE_DURATION_MS,
     .min = 10,
     .max = 600000,
     AT(struct conf_proxy, targets.timeout_ms),
     .def = "3s",
     .doc = "For one check in all."},
};
const struct table table_gateway_targets = {.name = "targets", FIELDS(fields_targets)};

static const struct field fields_health[] = {
    {.name = "address",
     .type = TYPE_ADDRESS,
     .required = true,
     .offset = 0,
     .size = sizeof(struct conf_sockaddr),
     .doc = "Where GET /healthz and GET /readyz are answered, and nothing else."},
};
const struct table table_health = {
    .name = "health", .size = sizeof(struct conf_sockaddr), FIELDS(fields_health)};

void gateway_finish_check(struct context *c, const struct node *map, const struct conf_proxy *p,
                          bool configured, struct conf_listener *l)
{
    bool said = node_get(map, "check") != NULL;
    bool clear = l->type == CONF_LISTENER_SERVER;
    if (!said && configured) {
        l->check.kind = p->targets.check;
        l->check.status = 200;
        if (l->check.kind == CONF_CHECK_TLS && clear) {
            l->check.kind = CONF_CHECK_TCP;
        }
    }
    if (said && l->check.kind == CONF_CHECK_TLS && clear) {
        report(c, node_get(map, "check"), "none, tcp or http", NULL,
               "the target of a server listener speaks in the clear");
    }
}

/* --- connect_proxy ---------------------------------------------------------------------------- */

static bool take_port(struct str text, uint16_t *ret)
{
    uint64_t n;
    if (!str_to_u64(text, 65535, &n) || n == 0) {
        return false;
    }
    *ret = (uint16_t)n;
    return true;
}

/* HOST:PORT, where an IPv6 address stands in brackets. */
static bool take_host_port(struct str text, struct conf_connect_proxy *ret)
{
    char address[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    const char *colon = text.n > 0 ? (const char *)memrchr(text.p, ':', text.n) : NULL;
    if (colon == NULL ||
        !take_port((struct str){colon + 1, text.n - 1 - (size_t)(colon - text.p)}, &ret->port)) {
        return false;
    }
    struct str host = {text.p, (size_t)(colon - text.p)};
    bool bracketed = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (bracketed) {
        host = (struct str){host.p + 1, host.n - 2};
    }
    ret->host = host;
    ret->family = AF_UNSPEC;
    if (host.n < sizeof(address)) {
        memcpy(address, host.p, host.n);
        address[host.n] = '\0';
        ret->family = inet_pton(AF_INET, address, bytes) == 1    ? AF_INET
                      : inet_pton(AF_INET6, address, bytes) == 1 ? AF_INET6
                                                                 : AF_UNSPEC;
    }
    return bracketed ? ret->family == AF_INET6
                     : ret->family == AF_INET ||
                           (ret->family == AF_UNSPEC && value_is_lower_dns_name(host));
}

bool conf_connect_proxy_parse(struct str url, struct conf_connect_proxy *ret)
{
    const struct str scheme = STR_LIT("http://");
    struct conf_connect_proxy found = {.port = 0};
    if (!str_has_prefix(url, scheme)) {
        return false;
    }
    struct str rest = {url.p + scheme.n, url.n - scheme.n};
    if (rest.n > 0 && rest.p[rest.n - 1] == '/') {
        rest.n--;
    }
    const char *at = rest.n > 0 ? (const char *)memrchr(rest.p, '@', rest.n) : NULL;
    if (at != NULL) {
        found.credentials = (struct str){rest.p, (size_t)(at - rest.p)};
        rest = (struct str){at + 1, rest.n - found.credentials.n - 1};
        /* RFC 7617: a user name has no colon, so the first one ends it; no controls in either. */
        if (found.credentials.n == 0 || found.credentials.n > CREDENTIALS_MAX_LEN ||
            memchr(found.credentials.p, ':', found.credentials.n) == NULL) {
            return false;
        }
        for (size_t i = 0; i < found.credentials.n; i++) {
            uint8_t b = (uint8_t)found.credentials.p[i];
            if (b < ' ' || b == 0x7f) {
                return false;
            }
        }
    }
    if (!take_host_port(rest, &found)) {
        return false;
    }
    *ret = found;
    return true;
}
