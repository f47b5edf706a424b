#include "supervisor_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096 /* a node's workloads may all come at once, and a full one is EAGAIN */ };

/* Who may write to the directory may put a socket of its own in the place of ours. In a sticky one
 * (/tmp) only owners remove, and bind() refuses a name that is taken. */
static int check_directory(const char *path, bool sticky_ok, struct err *err)
{
    char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct stat st;

    if (path[0] != '/' || !os_parent_dir(path, dir, sizeof(dir))) {
        return err_set(err, ERR_CONFIG, "the socket's path is not absolute");
    }
    if (mkdir(dir, 0755) == -1 && errno != EEXIST) {
        err_sys(err, "the directory of the socket cannot be made");
        err_where(err, "%s", dir);
        return err_advise(err, "make it, or name another socket");
    }
    if (stat(dir, &st) == -1) {
        err_sys(err, "the directory of the socket");
        return err_where(err, "%s", dir);
    }
    if ((st.st_uid != 0 && st.st_uid != geteuid()) ||
        ((st.st_mode & 022) != 0 && !(sticky_ok && (st.st_mode & S_ISVTX) != 0))) {
        err_set(err, ERR_SYSTEM,
                "others could exchange the socket: its directory has mode %04o and owner %u",
                (unsigned)(st.st_mode & 07777), (unsigned)st.st_uid);
        err_where(err, "%s", dir);
        err_expected(err, "mode 0755 or less, owned by root or by the agent's own user");
        return err_advise(err, "put the socket into a directory of its own");
    }
    return 0;
}

static int remove_stale(const struct sockaddr_un *addr, int type, struct err *err)
{
    struct stat st;
    os_autofd int probe = -1;

    if (lstat(addr->sun_path, &st) == -1) {
        return errno == ENOENT ? 0 : err_sys(err, "%s", addr->sun_path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        err_set(err, ERR_SYSTEM, "there is something else than a socket");
        err_where(err, "%s", addr->sun_path);
        return err_advise(err, "move it away, or name another socket");
    }
    probe = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe == -1) {
        return err_sys(err, "socket");
    }
    if (connect(probe, (const struct sockaddr *)addr, sizeof(*addr)) == 0 ||
        errno != ECONNREFUSED) {
        err_set(err, ERR_UNAVAILABLE, "somebody answers on this socket already");
        err_where(err, "%s", addr->sun_path);
        return err_advise(err, "end the other agent, or name another socket");
    }
    if (unlink(addr->sun_path) == -1) {
        err_sys(err, "a stale socket cannot be removed");
        return err_where(err, "%s", addr->sun_path);
    }
    return 0;
}

static int open_unix(struct supervisor_socket *s, const char *path, int type, mode_t mode,
                     struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    os_autofd int fd = -1;

    if (strlen(path) >= sizeof(addr.sun_path)) {
        err_set(err, ERR_CONFIG, "the socket's path is too long");
        err_where(err, "%s", path);
        return err_expected(err, "at most %zu bytes", sizeof(addr.sun_path) - 1);
    }
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (check_directory(path, type == SOCK_STREAM, err) == -1 ||
        remove_stale(&addr, type, err) == -1) {
        return -1;
    }
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1) {
        err_sys(err, "the socket cannot be made");
        return err_where(err, "%s", path);
    }
    /* Listening comes last: before, whoever connects is refused. */
    if (chmod(path, mode) == -1 || lstat(path, &s->file) == -1 || listen(fd, BACKLOG) == -1) {
        err_sys(err, "the socket cannot be opened to others");
        (void)unlink(path);
        return err_where(err, "%s", path);
    }
    s->path = path;
    s->fd = fd;
    fd = -1;
    return 0;
}

/* A listening Unix socket. Makes the last directory of its path; one that others may write to is
 * refused. A stale socket is removed only if nobody answers on it. */
static int open_socket(struct supervisor_socket *s, const char *path, mode_t mode, struct err *err)
{
    return open_unix(s, path, SOCK_STREAM, mode, err);
}

int supervisor_socket_open_control(struct supervisor_socket *s, const char *path, struct err *err)
{
    return open_unix(s, path, SOCK_SEQPACKET, 0600, err);
}

static int open_tcp(struct supervisor_socket *s, const struct conf_sockaddr *addr, struct err *err)
{
    const int on = 1;
    os_autofd int fd =
        socket(addr->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);

    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
        bind(fd, (const struct sockaddr *)&addr->ss, addr->len) == -1 || listen(fd, 64) == -1) {
        err_sys(err, "the metrics' address cannot be opened");
        return err_advise(err, "another process may have it: change metrics.address");
    }
    s->path = NULL;
    s->fd = fd;
    fd = -1;
    return 0;
}

/* True: there is one, and it is used. */
static bool take(struct supervisor_socket *s, const struct service_sockets *from,
                 const struct sockaddr *addr, socklen_t len)
{
    size_t i;
    struct service_socket *found = service_sockets_find(from, 0, addr, len, &i);

    if (found == NULL) {
        return false;
    }
    s->path = NULL;
    s->fd = found->fd;
    found->fd = -1;
    found->used = true;
    return true;
}

int supervisor_socket_take_or_open(struct supervisor_socket *s, const struct service_sockets *from,
                                   const char *path, mode_t mode, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (strlen(path) < sizeof(addr.sun_path)) {
        (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
        if (take(s, from, (const struct sockaddr *)&addr, sizeof(addr))) {
            return check_directory(path, true, err);
        }
    }
    return open_socket(s, path, mode, err);
}

int supervisor_socket_take_or_open_tcp(struct supervisor_socket *s,
                                       const struct service_sockets *from,
                                       const struct conf_sockaddr *addr, struct err *err)
{
    return take(s, from, (const struct sockaddr *)&addr->ss, addr->len) ? 0
                                                                        : open_tcp(s, addr, err);
}

void supervisor_socket_close(struct supervisor_socket *s)
{
    struct stat now;

    if (s->fd == -1) {
        return;
    }
    close(s->fd);
    s->fd = -1;
    if (s->path != NULL && lstat(s->path, &now) == 0 && now.st_dev == s->file.st_dev &&
        now.st_ino == s->file.st_ino) {
        (void)unlink(s->path);
    }
}
