#include "probe_priv.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void place_close(struct place *p)
{
    if (p->fd != -1) {
        close(p->fd);
        p->fd = -1;
    }
}

int place_wait(struct place *p, short events, struct err *err)
{
    struct pollfd f = {.fd = p->fd, .events = events};

    for (;;) {
        uint64_t now_ms = os_now_ms();
        int r;

        if (now_ms >= p->until_ms) {
            return err_set(err, ERR_UNAVAILABLE, "no answer in time");
        }
        r = poll(&f, 1, (int)(p->until_ms - now_ms));
        if (r > 0) {
            return 0;
        }
        if (r == -1 && errno != EINTR) {
            return err_sys(err, "poll");
        }
    }
}

static int connect_to(struct place *p, const struct sockaddr *sa, socklen_t len, struct err *err)
{
    int failed = 0;
    socklen_t size = sizeof(failed);

    p->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (p->fd == -1) {
        return err_sys(err, "no socket");
    }
    if (connect(p->fd, sa, len) == 0) {
        return 0;
    }
    if (errno == EINPROGRESS) {
        if (place_wait(p, POLLOUT, err) == -1) {
            return -1;
        }
        if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &failed, &size) == 0 && failed == 0) {
            return 0;
        }
        errno = failed;
    }
    return err_sys(err, "no connection");
}

static int connect_unix(struct place *p, struct err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};

    memcpy(sa.sun_path, p->url->unix_path, strlen(p->url->unix_path) + 1);
    return connect_to(p, (const struct sockaddr *)&sa, sizeof(sa), err);
}

int place_connect(struct place *p, struct err *err)
{
    char port[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct addrinfo *list = NULL;
    int rc;

    if (p->url->unix_path[0] != '\0') {
        return connect_unix(p, err);
    }
    (void)snprintf(port, sizeof(port), "%u", (unsigned)p->url->port);
    rc = getaddrinfo(p->url->host, port, &hints, &list);
    if (rc == EAI_NONAME) {
        hints.ai_flags = AI_NUMERICSERV;
        rc = getaddrinfo(p->url->host, port, &hints, &list);
    }
    if (rc != 0) {
        return err_set(err, ERR_UNAVAILABLE, "no address for %s: %s", p->url->host,
                       gai_strerror(rc));
    }
    rc = -1;
    for (const struct addrinfo *a = list; a != NULL && rc == -1; a = a->ai_next) {
        place_close(p);
        rc = connect_to(p, a->ai_addr, a->ai_addrlen, err);
    }
    freeaddrinfo(list);
    return rc;
}

int place_send(struct place *p, const void *bytes, size_t n, struct err *err)
{
    const char *at = bytes;

    while (n > 0) {
        ssize_t r = send(p->fd, at, n, MSG_NOSIGNAL);

        if (r > 0) {
            at += r;
            n -= (size_t)r;
        } else if (r == -1 && errno != EAGAIN && errno != EINTR) {
            return err_sys(err, "the connection broke");
        } else if (place_wait(p, POLLOUT, err) == -1) {
            return -1;
        }
    }
    return 0;
}

int place_recv(struct place *p, void *bytes, size_t n, size_t *ret_n, struct err *err)
{
    for (;;) {
        ssize_t r = recv(p->fd, bytes, n, 0);

        if (r >= 0) {
            *ret_n = (size_t)r;
            return 0;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return err_sys(err, "the connection broke");
        }
        if (place_wait(p, POLLIN, err) == -1) {
            return -1;
        }
    }
}
