/* The authority of a CONNECT: an address and a port, and no other spelling of them. */
#include <postern/hbone.h>

#include <arpa/inet.h>

enum { TEXT_MAX = INET6_ADDRSTRLEN };

static bool take_port(struct str s, uint16_t *ret)
{
    uint64_t port;
    if (s.n == 0 || s.n > 5 || s.p[0] == '0' || !str_to_u64(s, 65535, &port)) {
        return false;
    }
    *ret = (uint16_t)port;
    return true;
}

bool hbone_authority_parse(struct str authority, struct net_addr *ret)
{
    size_t colon = authority.n;
    while (colon > 0 && authority.p[colon - 1] != ':') {
        colon--;
    }
    uint16_t port;
    if (colon < 2 || !take_port((struct str){authority.p + colon, authority.n - colon}, &port)) {
        return false;
    }
    struct str host = {authority.p, colon - 1};
    bool v6 = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (v6) {
        host = (struct str){host.p + 1, host.n - 2};
    }
    char text[TEXT_MAX];
    if (host.n >= sizeof(text) || memchr(host.p, '\0', host.n) != NULL) {
        return false;
    }
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (v6) {
        return inet_pton(AF_INET6, text, &in6.sin6_addr) == 1 &&
               net_addr_from((const struct sockaddr *)&in6, sizeof(in6), ret);
    }
    return inet_pton(AF_INET, text, &in4.sin_addr) == 1 &&
           net_addr_from((const struct sockaddr *)&in4, sizeof(in4), ret);
}
