/*
 * transparent: sockets with somebody else's address. A listener that TPROXY hands connections to,
 * and connections that are made from a client's address, so that the workload sees its client and
 * not us.
 */
#include <postern/net.h>

#include <errno.h>
#include <postern/os.h>
#include <unistd.h>

/* The client's own port is taken, by the client: with it, the workload's socket and the client's
 * connection to us would be the same four numbers. So one is chosen above those that Linux clients
 * choose from, by the client's, and a few further ones (with these numbers never the client's own);
 * then the kernel chooses. */
enum { PORT_FIRST = 61000, PORT_COUNT = 65536 - PORT_FIRST, TRIES = 8, STRIDE = 571 };

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

static int allow_foreign(int fd, int family)
{
    int one = 1;
    return family == AF_INET6 ? setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &one, sizeof(one))
                              : setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one));
}

int net_listen_transparent(int fd, struct err *err)
{
    struct net_addr local;
    struct sockaddr_storage ss = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) == -1 || !net_local_addr(fd, &local)) {
        return err_sys(err, "cannot ask a listening socket for its address");
    }
    if (allow_foreign(fd, ss.ss_family) == -1) {
        int e = errno;
        char text[NET_ADDR_TEXT_MAX];
        err_sys(err, "cannot make %s transparent", net_addr_text(&local, text));
        if (e == EPERM) {
            err_advise(err, "it needs CAP_NET_RAW: AmbientCapabilities= of a unit, NET_RAW of a "
                            "container that starts as root; or leave `transparent` out");
        }
        return -1;
    }
    return 0;
}

bool net_transparent_dst(int fd, uint16_t own_port, struct net_addr *ret)
{
    struct net_addr local;
    if (!net_local_addr(fd, &local) || net_addr_port(&local) == own_port) {
        return false;
    }
    *ret = local;
    return true;
}

/* -1 with errno. EADDRINUSE, EADDRNOTAVAIL: the next port may do. */
static int dial_from_port(const struct net_addr *from, uint16_t port, const struct net_addr *to,
                          bool *ret_done)
{
    struct net_addr source = *from;
    int one = 1;
    net_addr_set_port(&source, port);
    os_autofd int fd = net_socket(to->sa.sa_family);
    if (fd == -1 || allow_foreign(fd, to->sa.sa_family) == -1 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == -1) {
        return -1;
    }
    if (port == 0 && to->sa.sa_family == AF_INET) {
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    }
    if (bind(fd, &source.sa, source.len) == -1 || net_connect(fd, to, ret_done) == -1) {
        return -1;
    }
    int taken = fd;
    fd = -1;
    return taken;
}

int net_dial_from(const struct net_addr *from, const struct net_addr *to, bool *ret_done)
{
    if (from->len == 0 || from->sa.sa_family != to->sa.sa_family) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    for (uint32_t i = 0; i < TRIES; i++) {
        uint32_t port = PORT_FIRST + (net_addr_port(from) + i * STRIDE) % PORT_COUNT;
        int fd = dial_from_port(from, (uint16_t)port, to, ret_done);
        if (fd != -1 || (errno != EADDRINUSE && errno != EADDRNOTAVAIL)) {
            return fd;
        }
    }
    return dial_from_port(from, 0, to, ret_done);
}
