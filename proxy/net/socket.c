/* Sockets: listening, accepting, dialling, and where a redirected connection wanted to go. */
#include <postern/net.h>

#include <errno.h>
#include <netinet/tcp.h>
#include <postern/os.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    /* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST: the kernel's headers clash with the C library's. */
    ORIGINAL_DST = 80,
    BACKLOG = 4096, /* the kernel caps it at net.core.somaxconn */
    /* A peer that vanished is noticed after two minutes, on either leg. */
    KEEPALIVE_IDLE_S = 60,
    KEEPALIVE_INTERVAL_S = 15,
    KEEPALIVE_PROBES = 4,
};

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

/* What a proxied connection wants on both legs. Failure here costs comfort, not correctness. */
static void tune(int fd)
{
    (void)set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    (void)set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    (void)set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    (void)set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    (void)set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

int net_listen(const struct net_addr *addr, int *ret_fd, struct err *err)
{
    char text[NET_ADDR_TEXT_MAX];
    os_autofd int fd =
        socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd == -1) {
        return err_sys(err, "cannot make a socket for %s", net_addr_text(addr, text));
    }
    if (set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) == -1 ||
        set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) == -1) {
        return err_sys(err, "cannot share %s among workers", net_addr_text(addr, text));
    }
    if (addr->sa.sa_family == AF_INET6) {
        (void)set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, net_addr_is_any(addr) ? 0 : 1);
    }
    tune(fd);
    if (bind(fd, &addr->sa, addr->len) == -1) {
        int e = errno;
        err_sys(err, "cannot listen on %s", net_addr_text(addr, text));
        if (e == EADDRINUSE) {
            err_advise(err, "another process listens there: `ss -ltnp` shows which");
        } else if (e == EACCES) {
            err_advise(err, "ports below 1024 need CAP_NET_BIND_SERVICE");
        }
        return -1;
    }
    if (listen(fd, BACKLOG) == -1) {
        return err_sys(err, "cannot listen on %s", net_addr_text(addr, text));
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* Clients of a Unix socket have no address, but the kernel knows who they are. */
static void unix_peer(int fd, struct net_addr *ret)
{
    struct ucred who;
    socklen_t len = sizeof(who);
    *ret = (struct net_addr){.len = 0};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0) {
        ret->local = (struct net_unix_peer){AF_UNIX, who.pid, who.uid, who.gid};
        ret->len = sizeof(ret->local);
    }
}

int net_accept(int listen_fd, struct net_addr *ret_source)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    int fd;
    do {
        fd = accept4(listen_fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (fd == -1 && (errno == EINTR || errno == ECONNABORTED));
    if (fd != -1 && !net_addr_from((struct sockaddr *)&ss, len, ret_source)) {
        unix_peer(fd, ret_source);
    }
    return fd;
}

bool net_local_addr(int fd, struct net_addr *ret)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    return getsockname(fd, (struct sockaddr *)&ss, &len) == 0 &&
           net_addr_from((struct sockaddr *)&ss, len, ret);
}

bool net_original_dst(int fd, struct net_addr *ret)
{
    struct net_addr local;
    if (!net_local_addr(fd, &local)) {
        return false;
    }
    bool v4 = local.sa.sa_family == AF_INET; /* on a dual-stack listener too */
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    if (getsockopt(fd, v4 ? SOL_IP : SOL_IPV6, ORIGINAL_DST, &ss, &len) == -1) {
        return false; /* no connection tracking here: nothing can have redirected it */
    }
    struct net_addr original;
    if (!net_addr_from((struct sockaddr *)&ss, len, &original) ||
        net_addr_equal(&original, &local)) {
        return false; /* tracked but not changed: it was made to us */
    }
    *ret = original;
    return true;
}

int net_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd != -1) {
        tune(fd);
    }
    return fd;
}

int net_connect(int fd, const struct net_addr *to, bool *ret_done)
{
    int r = connect(fd, &to->sa, to->len);
    if (r == -1 && errno == EINPROGRESS) {
        /* On this host it is decided by now, and asking again saves a turn of the loop. */
        r = connect(fd, &to->sa, to->len);
    }
    if (r == -1 && errno != EALREADY) {
        return -1;
    }
    *ret_done = r == 0;
    return 0;
}

int net_dial(const struct net_addr *to, bool *ret_done)
{
    int fd = net_socket(to->sa.sa_family);
    if (fd != -1 && net_connect(fd, to, ret_done) == -1) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

int net_bound_socket(int family, uint16_t *ret_port)
{
    struct net_addr any = {.len = family == AF_INET6 ? sizeof(any.in6) : sizeof(any.in4)};
    struct net_addr own;
    int fd = net_socket(family);
    any.sa.sa_family = (sa_family_t)family;
    if (fd != -1 && (bind(fd, &any.sa, any.len) == -1 || !net_local_addr(fd, &own))) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    if (fd != -1) {
        *ret_port = net_addr_port(&own);
    }
    return fd;
}

int net_dial_on(int fd, const struct net_addr *to, bool *ret_done)
{
    return net_connect(fd, to, ret_done);
}

int net_dial_unix(const char *path, bool *ret_done)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n >= sizeof(un.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(un.sun_path, path, n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return -1;
    }
    if (connect(fd, (const struct sockaddr *)&un, sizeof(un)) == -1) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    *ret_done = true;
    return fd;
}

int net_dial_error(int fd)
{
    int e = 0;
    socklen_t len = sizeof(e);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == -1) {
        return errno;
    }
    return e;
}

int net_reset(int fd)
{
    if (fd != -1) {
        struct linger hard = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        close(fd);
    }
    return -1;
}
