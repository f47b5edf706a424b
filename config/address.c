/* address: IP addresses, with port or prefix, as a file writes them. Names are not looked up, and
 * an address has one spelling of its family only. */
#include <postern/conf.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "config_priv.h"

/* An IP address without port or brackets; the length of its family's address, or 0. */
static size_t parse_ip(struct str text, int *ret_family, uint8_t ret_addr[16])
{
    char z[INET6_ADDRSTRLEN];
    if (text.n == 0 || text.n >= sizeof(z)) {
        return 0;
    }
    memcpy(z, text.p, text.n);
    z[text.n] = '\0';
    if (inet_pton(AF_INET, z, ret_addr) == 1) {
        *ret_family = AF_INET;
        return 4;
    }
    if (inet_pton(AF_INET6, z, ret_addr) == 1) {
        *ret_family = AF_INET6;
        return 16;
    }
    return 0;
}

/* 10.0.0.1 as ::ffff:10.0.0.1 would match in one place and not in another. */
static bool is_mapped(int family, const uint8_t addr[16])
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return family == AF_INET6 && memcmp(addr, prefix, sizeof(prefix)) == 0;
}

static void set_sockaddr(struct conf_sockaddr *a, int family, const uint8_t addr[16], uint16_t port)
{
    memset(a, 0, sizeof(*a));
    if (family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&in.sin_addr, addr, 4);
        memcpy(&a->ss, &in, sizeof(in));
        a->len = sizeof(in);
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        memcpy(&in6.sin6_addr, addr, 16);
        memcpy(&a->ss, &in6, sizeof(in6));
        a->len = sizeof(in6);
    }
}

bool value_parse_address(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct str text = n->text;
    struct str host = text;
    struct str port = STR_NONE;
    const char *colon = memrchr(text.p, ':', text.n);
    bool bracketed = text.n > 0 && text.p[0] == '[';
    if (colon != NULL) {
        host.n = (size_t)(colon - text.p);
        port = (struct str){colon + 1, text.n - host.n - 1};
    }
    if (bracketed && host.n >= 2 && host.p[host.n - 1] == ']') {
        host = (struct str){host.p + 1, host.n - 2};
    }
    int family = AF_UNSPEC;
    uint8_t addr[16];
    uint64_t number;
    if (colon == NULL || parse_ip(host, &family, addr) == 0) {
        bool plain = parse_ip(text, &family, addr) != 0;
        value_fail(c, f, n, plain ? NULL : "host names are not looked up",
                   plain ? "which has no port" : "not an address with a port");
        return false;
    }
    if (bracketed != (family == AF_INET6)) {
        value_fail(c, f, n, NULL, bracketed ? "brackets around IPv4" : "IPv6 without brackets");
        return false;
    }
    if (!str_to_u64(port, 65535, &number) || number == 0) {
        value_fail(c, f, n, "ports go from 1 to 65535", "not a port at the end");
        return false;
    }
    if (is_mapped(family, addr)) {
        value_fail(c, f, n, "write it as IPv4", "an IPv4 address in IPv6");
        return false;
    }
    if (f->size > 0) {
        set_sockaddr(dst, family, addr, (uint16_t)number);
    }
    return true;
}

bool value_parse_ip(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    int family;
    uint8_t addr[16];
    if (parse_ip(n->text, &family, addr) == 0 || is_mapped(family, addr)) {
        value_fail(c, f, n, NULL, "not an IP address");
        return false;
    }
    set_sockaddr(dst, family, addr, 0);
    return true;
}

/* Clears the bits beyond the prefix; true if any was set. */
static bool mask_host_bits(uint8_t *addr, size_t len, unsigned prefix_len)
{
    bool any = false;
    for (size_t i = 0; i < len; i++) {
        unsigned keep = prefix_len >= 8 * (i + 1) ? 8
                        : prefix_len > 8 * i      ? prefix_len - 8 * (unsigned)i
                                                  : 0;
        uint8_t mask = (uint8_t)(0xff00u >> keep);
        any = any || (addr[i] & ~mask) != 0;
        addr[i] &= mask;
    }
    return any;
}

bool value_parse_cidr(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    struct conf_cidr cidr = {0};
    struct str ip = n->text;
    const char *slash = memchr(n->text.p, '/', n->text.n);
    if (slash != NULL) {
        ip.n = (size_t)(slash - n->text.p);
    }
    size_t len = parse_ip(ip, &cidr.family, cidr.addr);
    if (len == 0 || is_mapped(cidr.family, cidr.addr)) {
        value_fail(c, f, n, len == 0 ? NULL : "write it as IPv4",
                   "not an address or address block");
        return false;
    }
    uint64_t prefix_len = len * 8;
    if (slash != NULL &&
        !str_to_u64((struct str){slash + 1, n->text.n - ip.n - 1}, len * 8, &prefix_len)) {
        value_fail(c, f, n, NULL, "with a prefix length that cannot be");
        return false;
    }
    cidr.prefix_len = (uint8_t)prefix_len;
    if (mask_host_bits(cidr.addr, len, (unsigned)prefix_len)) {
        char text[INET6_ADDRSTRLEN];
        char advice[100];
        inet_ntop(cidr.family, cidr.addr, text, sizeof(text));
        snprintf(advice, sizeof(advice), "did you mean '%s/%u'?", text, (unsigned)prefix_len);
        value_fail(c, f, n, advice, "which has bits beyond its prefix");
        return false;
    }
    *(struct conf_cidr *)dst = cidr;
    return true;
}

bool sockaddr_is_loopback(const struct conf_sockaddr *a)
{
    if (a->ss.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &a->ss, sizeof(in));
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &a->ss, sizeof(in6));
    return a->ss.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

bool sockaddr_is_any(const struct conf_sockaddr *a)
{
    if (a->ss.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &a->ss, sizeof(in));
        return in.sin_addr.s_addr == 0;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &a->ss, sizeof(in6));
    return a->ss.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
}

uint16_t sockaddr_port(const struct conf_sockaddr *a)
{
    /* sin_port and sin6_port stand at the same place. */
    struct sockaddr_in in;
    memcpy(&in, &a->ss, sizeof(in));
    return ntohs(in.sin_port);
}

bool sockaddr_equal(const struct conf_sockaddr *a, const struct conf_sockaddr *b)
{
    return a->len == b->len && memcmp(&a->ss, &b->ss, a->len) == 0;
}
