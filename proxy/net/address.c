/* Addresses: one form for IPv4 however it came, text, comparison. */
#include <postern/net.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

bool net_addr_from(const struct sockaddr *sa, socklen_t len, struct net_addr *ret)
{
    if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        *ret = (struct net_addr){.len = sizeof(struct sockaddr_in)};
        memcpy(&ret->in4, sa, sizeof(ret->in4));
        return true;
    }
    if (sa->sa_family != AF_INET6 || len < sizeof(struct sockaddr_in6)) {
        return false;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, sa, sizeof(in6));
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        *ret = (struct net_addr){.len = sizeof(struct sockaddr_in)};
        ret->in4.sin_family = AF_INET;
        ret->in4.sin_port = in6.sin6_port;
        memcpy(&ret->in4.sin_addr, in6.sin6_addr.s6_addr + 12, 4);
        return true;
    }
    *ret = (struct net_addr){.len = sizeof(struct sockaddr_in6)};
    ret->in6 = in6;
    return true;
}

uint16_t net_addr_port(const struct net_addr *a)
{
    if (a->len == 0 || a->sa.sa_family == AF_UNIX) {
        return 0;
    }
    return ntohs(a->sa.sa_family == AF_INET ? a->in4.sin_port : a->in6.sin6_port);
}

void net_addr_set_port(struct net_addr *a, uint16_t port)
{
    if (a->sa.sa_family == AF_INET) {
        a->in4.sin_port = htons(port);
    } else {
        a->in6.sin6_port = htons(port);
    }
}

bool net_addr_same_host(const struct net_addr *a, const struct net_addr *b)
{
    if (a->len == 0 || b->len == 0 || a->sa.sa_family != b->sa.sa_family ||
        a->sa.sa_family == AF_UNIX) {
        return false;
    }
    if (a->sa.sa_family == AF_INET) {
        return a->in4.sin_addr.s_addr == b->in4.sin_addr.s_addr;
    }
    return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
}

bool net_addr_equal(const struct net_addr *a, const struct net_addr *b)
{
    return net_addr_same_host(a, b) && net_addr_port(a) == net_addr_port(b);
}

bool net_addr_is_loopback(const struct net_addr *a)
{
    if (a->len == 0 || a->sa.sa_family == AF_UNIX) {
        return false;
    }
    if (a->sa.sa_family == AF_INET) {
        return (ntohl(a->in4.sin_addr.s_addr) >> 24) == 127;
    }
    return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

bool net_addr_is_any(const struct net_addr *a)
{
    if (a->len == 0 || a->sa.sa_family == AF_UNIX) {
        return false;
    }
    if (a->sa.sa_family == AF_INET) {
        return a->in4.sin_addr.s_addr == INADDR_ANY;
    }
    return IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

const char *net_addr_text(const struct net_addr *a, char ret_text[NET_ADDR_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN] = "-";
    if (a->len == 0) {
        memcpy(ret_text, "-", 2);
    } else if (a->sa.sa_family == AF_UNIX) {
        snprintf(ret_text, NET_ADDR_TEXT_MAX, "unix:uid=%u,gid=%u,pid=%d", (unsigned)a->local.uid,
                 (unsigned)a->local.gid, (int)a->local.pid);
    } else if (a->sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->in4.sin_addr, ip, sizeof(ip));
        snprintf(ret_text, NET_ADDR_TEXT_MAX, "%s:%u", ip, net_addr_port(a));
    } else {
        inet_ntop(AF_INET6, &a->in6.sin6_addr, ip, sizeof(ip));
        snprintf(ret_text, NET_ADDR_TEXT_MAX, "[%s]:%u", ip, net_addr_port(a));
    }
    return ret_text;
}

/* Connecting a datagram socket sends nothing, and makes the kernel choose a source address: for an
 * address of this host that is the address itself, or a loopback one. */
bool net_addr_is_local(const struct net_addr *a)
{
    if (net_addr_is_loopback(a) || net_addr_is_any(a)) {
        return true;
    }
    int fd = socket(a->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return true; /* cannot tell: the caller refuses, which is the safe side */
    }
    bool local = false;
    struct net_addr mine;
    if (connect(fd, &a->sa, a->len) == 0 && net_local_addr(fd, &mine)) {
        local = net_addr_same_host(&mine, a) || net_addr_is_loopback(&mine);
    }
    close(fd);
    return local;
}
