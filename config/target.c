/* target: where a gateway's listener listens and connects, and the names that it knows: addresses,
 * host names, Unix sockets. Names are checked here and looked up elsewhere. */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

enum { HOST_MAX = 253, LABEL_MAX = 63, ACTIVATION_MAX = 255 };

/* --- names ------------------------------------------------------------------------------------ */
static bool is_label_char(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
           ch == '-' || ch == '_';
}

/* Labels of letters, digits, hyphens and (as hosts do have them) underscores. A name whose last
 * label is a number would be taken for an address somewhere. */
static bool is_dns_name(struct str text)
{
    size_t begin = 0;
    bool number = false;
    if (text.n == 0 || text.n > HOST_MAX) {
        return false;
    }
    for (size_t i = 0; i <= text.n; i++) {
        if (i < text.n && text.p[i] != '.') {
            if (!is_label_char(text.p[i])) {
                return false;
            }
            number = (i == begin || number) && text.p[i] >= '0' && text.p[i] <= '9';
            continue;
        }
        if (i == begin || i - begin > LABEL_MAX || text.p[begin] == '-' || text.p[i - 1] == '-') {
            return false;
        }
        begin = i + 1;
    }
    return !number;
}

static char *lower_dup(struct str text)
{
    char *z = mem_must_strndup(text.p, text.n);
    for (char *p = z; *p != '\0'; p++) {
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    }
    return z;
}

bool value_is_lower_dns_name(struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] >= 'A' && text.p[i] <= 'Z') {
            return false;
        }
    }
    return is_dns_name(text);
}

bool value_parse_dns_name(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    if (!is_dns_name(n->text)) {
        value_fail(c, f, n, NULL, "not a DNS name");
        return false;
    }
    *(char **)dst = lower_dup(n->text);
    return true;
}

bool value_parse_dns_pattern(struct context *c, const struct field *f, const struct node *n,
                             void *dst)
{
    struct str name = n->text;
    bool wildcard = str_has_prefix(name, STR_LIT("*."));
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] >= 'A' && name.p[i] <= 'Z') {
            value_fail(c, f, n, "case does not count in names: write it in lower case",
                       "with capitals");
            return false;
        }
    }
    if (wildcard) {
        name = (struct str){name.p + 2, name.n - 2};
    }
    if (!is_dns_name(name) || n->text.n > HOST_MAX) {
        value_fail(c, f, n,
                   wildcard || memchr(n->text.p, '*', n->text.n) == NULL
                       ? NULL
                       : "'*' stands alone in front of the first dot",
                   "not a DNS name");
        return false;
    }
    *(char **)dst = lower_dup(n->text);
    return true;
}

/* --- where it listens, where it connects ------------------------------------------------------ */
bool value_parse_listen(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct conf_bind *b = dst;
    struct field address = *f;
    struct str path;
    if (value_is_unix(n->text)) {
        if (!value_take_unix(c, f, n, &path)) {
            return false;
        }
        b->kind = CONF_BIND_UNIX;
        b->path = mem_must_strndup(path.p, path.n);
        return true;
    }
    if (str_eq(n->text, STR_LIT("systemd"))) {
        b->kind = CONF_BIND_SYSTEMD;
        return true;
    }
    if (str_has_prefix(n->text, STR_LIT("systemd:"))) {
        struct str name = {n->text.p + 8, n->text.n - 8};
        bool ok = name.n > 0 && name.n <= ACTIVATION_MAX;
        for (size_t i = 0; ok && i < name.n; i++) {
            ok = name.p[i] > ' ' && name.p[i] < 0x7f && name.p[i] != ':';
        }
        if (!ok) {
            value_fail(c, f, n, "it is what FileDescriptorName= says in the socket unit",
                       "without the name of a descriptor");
            return false;
        }
        b->kind = CONF_BIND_SYSTEMD;
        b->activation = mem_must_strndup(name.p, name.n);
        return true;
    }
    address.size = sizeof(b->address);
    return value_parse_address(c, &address, n, &b->address);
}

/* Digits, dots, colons and brackets: an address, or one mistyped. */
static bool looks_like_address(struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (memchr("0123456789.:[]%", text.p[i], 15) == NULL) {
            const char *colon = memchr(text.p, ':', text.n);
            return text.p[0] == '[' ||
                   (colon != NULL &&
                    memchr(colon + 1, ':', text.n - (size_t)(colon - text.p) - 1) != NULL);
        }
    }
    return true;
}

/* A name, and behind a colon its port. */
static bool parse_host_port(struct context *c, const struct field *f, const struct node *n,
                            bool port_needed, struct conf_target *t)
{
    struct str text = n->text;
    uint64_t port = 0;
    const char *colon = memchr(text.p, ':', text.n);
    struct str host = {text.p, colon != NULL ? (size_t)(colon - text.p) : text.n};
    if (!is_dns_name(host)) {
        value_fail(c, f, n, NULL, "not an address and not a host's name");
        return false;
    }
    if (colon == NULL ? port_needed
                      : !str_to_u64((struct str){colon + 1, text.n - host.n - 1}, 65535, &port) ||
                            port == 0) {
        value_fail(c, f, n, colon != NULL ? "ports go from 1 to 65535" : NULL,
                   colon != NULL ? "not a port at the end" : "which has no port");
        return false;
    }
    t->kind = CONF_TARGET_HOST;
    t->host = lower_dup(host);
    t->port = (uint16_t)port;
    return true;
}

/* An address without a port has no brackets, so one that has is meant to have a port as well. */
static bool has_port(struct str text)
{
    const char *colon = memchr(text.p, ':', text.n);
    return text.p[0] == '[' ||
           (colon != NULL && memchr(colon + 1, ':', text.n - (size_t)(colon - text.p) - 1) == NULL);
}

bool value_parse_endpoint(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct conf_target *t = dst;
    struct field address = *f;
    address.size = sizeof(t->address);
    if (n->text.n == 0 || !looks_like_address(n->text)) {
        return parse_host_port(c, f, n, false, t);
    }
    if (has_port(n->text) ? !value_parse_address(c, &address, n, &t->address)
                          : !value_parse_ip(c, &address, n, &t->address)) {
        return false;
    }
    t->kind = CONF_TARGET_ADDRESS;
    return true;
}

bool value_parse_target(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct conf_target *t = dst;
    struct str text = n->text;
    struct str path;
    if (value_is_unix(text)) {
        if (!value_take_unix(c, f, n, &path)) {
            return false;
        }
        t->kind = CONF_TARGET_UNIX;
        t->path = mem_must_strndup(path.p, path.n);
        return true;
    }
    if (looks_like_address(text)) {
        struct field address = *f;
        address.size = sizeof(t->address);
        if (!value_parse_address(c, &address, n, &t->address)) {
            return false;
        }
        t->kind = CONF_TARGET_ADDRESS;
        return true;
    }
    return parse_host_port(c, f, n, true, t);
}
