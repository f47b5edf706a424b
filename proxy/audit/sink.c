/* Where lines go: standard output, a file, a Unix socket. Nothing here waits. */
#include "audit_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    RETRY_FIRST_MS = 100,
    RETRY_MAX_MS = 5000,
    PIPE_PIECE = 4096, /* PIPE_BUF: what a pipe takes at once when it is writable */
};

int audit_sink_open(struct audit_sink *s, const struct audit_options *o, struct err *err)
{
    *s = (struct audit_sink){.to = o->to,
                             .fd = o->to == AUDIT_TO_STDOUT ? o->stdout_fd : -1,
                             .dir_fd = -1,
                             .max_size = o->max_size,
                             .keep = o->keep};
    if (o->to == AUDIT_TO_STDOUT) {
        return 0;
    }
    const struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (o->to == AUDIT_TO_UNIX && strlen(o->path) >= sizeof(un.sun_path)) {
        err_set(err, ERR_CONFIG, "the path of the audit log's socket is too long");
        err_where(err, "%s", o->path);
        return err_expected(err, "at most %zu bytes", sizeof(un.sun_path) - 1);
    }
    s->path = mem_must_strdup(o->path);
    return 0;
}

void audit_sink_close(struct audit_sink *s)
{
    if (s->to != AUDIT_TO_STDOUT && s->fd != -1) {
        close(s->fd);
    }
    if (s->dir_fd != -1) {
        close(s->dir_fd);
    }
    s->fd = s->dir_fd = -1;
    free(s->path);
    s->path = NULL;
}

/* --- a socket --------------------------------------------------------------------------------- */

static void hang_up(struct audit_sink *s)
{
    uint64_t wait = RETRY_FIRST_MS;
    for (unsigned i = 0; i < s->n_failed && wait < RETRY_MAX_MS; i++) {
        wait *= 2;
    }
    s->n_failed++;
    s->connect_after_ms = os_now_ms() + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS);
    if (s->fd != -1) {
        close(s->fd);
        s->fd = -1;
    }
}

/* A full queue of the listener's is a failure like any: EAGAIN has no end that could be waited for.
 */
static bool connect_again(struct audit_sink *s)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (os_now_ms() < s->connect_after_ms) {
        errno = ENOTCONN;
        return false;
    }
    memcpy(un.sun_path, s->path, strlen(s->path));
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd == -1 || connect(s->fd, (const struct sockaddr *)&un, sizeof(un)) == -1) {
        int e = errno == EAGAIN ? ECONNREFUSED : errno;
        hang_up(s);
        errno = e;
        return false;
    }
    return true;
}

static ssize_t to_socket(struct audit_sink *s, const uint8_t *p, size_t n)
{
    if (s->fd == -1 && !connect_again(s)) {
        return -1;
    }
    ssize_t took = send(s->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (took < 0 && errno != EAGAIN && errno != EINTR) {
        int e = errno;
        hang_up(s);
        errno = e;
        return -1;
    }
    if (took >= 0) {
        s->n_failed = 0;
    }
    return took;
}

/* --- standard output -------------------------------------------------------------------------- */

/* Its flags are shared with others, so it is not made non-blocking: what is writable takes a piece.
 */
static ssize_t to_stdout(struct audit_sink *s, const uint8_t *p, size_t n)
{
    ssize_t took = send(s->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (took >= 0 || errno != ENOTSOCK) {
        return took;
    }
    struct pollfd f = {.fd = s->fd, .events = POLLOUT};
    int r = poll(&f, 1, 0);
    if (r <= 0) {
        errno = r == 0 ? EAGAIN : errno;
        return -1;
    }
    return write(s->fd, p, n < PIPE_PIECE ? n : PIPE_PIECE);
}

ssize_t audit_sink_write(struct audit_sink *s, const uint8_t *p, size_t n)
{
    switch (s->to) {
    case AUDIT_TO_UNIX:
        return to_socket(s, p, n);
    case AUDIT_TO_FILE: {
        ssize_t took = write(s->fd, p, n);
        s->size += took > 0 ? (uint64_t)took : 0;
        return took;
    }
    case AUDIT_TO_STDOUT:
        break;
    }
    return to_stdout(s, p, n);
}
