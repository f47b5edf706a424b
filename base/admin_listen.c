/* Opening the listening sockets: who may replace them, who may connect, what a dead process left.
 */
#include <postern/admin.h>

#include "admin_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int admin_unix_address(const char *path, struct sockaddr_un *ret, struct err *err)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    /* An empty path would make an abstract socket, which no file mode guards. */
    if (path[0] != '/' || strlen(path) >= sizeof(ret->sun_path)) {
        err_set(err, ERR_CONFIG, "not a usable socket path");
        err_where(err, "%s", path);
        return err_expected(err, "an absolute path of at most %zu bytes",
                            sizeof(ret->sun_path) - 1);
    }
    memcpy(ret->sun_path, path, strlen(path) + 1);
    return 0;
}

/* Whoever may write to the directory can put a socket of its own in our socket's place. */
static int check_directory(const char *path, struct err *err)
{
    char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    POSTERN_ASSERT(os_parent_dir(path, dir, sizeof(dir))); /* its length was checked */
    struct stat st;
    if (stat(dir, &st) != 0) {
        err_sys(err, "cannot use the admin socket's directory");
        err_where(err, "%s", dir);
        return err_advise(err, "make it, writable for uid %u", geteuid());
    }
    bool others_write = (st.st_mode & (S_IWGRP | S_IWOTH)) != 0 && (st.st_mode & S_ISVTX) == 0;
    if ((st.st_uid != geteuid() && st.st_uid != 0) || others_write) {
        err_set(err, ERR_DENIED,
                "others could replace the admin socket: its directory belongs to uid %u, mode %04o",
                st.st_uid, st.st_mode & 07777U);
        err_where(err, "%s", dir);
        err_expected(err, "a directory of uid %u or 0 that nobody else may write to", geteuid());
        return err_advise(err, "give the socket a directory of its own, mode 0700 or 0755");
    }
    return 0;
}

/* A socket on which the kernel says that nobody listens was left by a process that was killed. Any
 * other answer, a full queue as well, means that somebody is there. */
static int remove_stale(const struct sockaddr_un *addr, struct err *err)
{
    const char *path = addr->sun_path;
    struct stat st;
    if (lstat(path, &st) != 0) {
        return 0;
    }
    if (!S_ISSOCK(st.st_mode)) {
        err_set(err, ERR_CONFIG, "there is something that is not a socket");
        return err_where(err, "%s", path);
    }
    os_autofd int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe == -1) {
        return err_sys(err, "cannot make a socket");
    }
    int rc = connect(probe, (const struct sockaddr *)addr, sizeof(*addr));
    if (rc == 0 || errno == EAGAIN) {
        err_set(err, ERR_UNAVAILABLE, "another process answers on this socket");
        err_where(err, "%s", path);
        return err_advise(err, "end it, or name another socket");
    }
    if (errno == ENOENT) {
        return 0; /* removed by its owner just now */
    }
    if (errno != ECONNREFUSED) {
        err_sys(err, "cannot tell whether a process answers on this socket");
        err_where(err, "%s", path);
        return err_advise(err, "remove it if it is left over, or name another socket");
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        err_sys(err, "cannot remove a socket that was left over");
        return err_where(err, "%s", path);
    }
    return 0;
}

static bool allows_others(const uid_t *uids, size_t n_uids)
{
    for (size_t i = 0; i < n_uids; i++) {
        if (uids[i] != geteuid() && uids[i] != 0) {
            return true;
        }
    }
    return false;
}

int admin_open_socket(const char *path, const uid_t *allow_uids, size_t n_allow_uids, int *ret_fd,
                      struct err *err)
{
    struct sockaddr_un addr;
    if (admin_unix_address(path, &addr, err) != 0 || check_directory(path, err) != 0 ||
        remove_stale(&addr, err) != 0) {
        return -1;
    }
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* The file takes the socket's own mode when it is bound: at no time is it wider. */
    if (fd == -1 || fchmod(fd, 0600) != 0) {
        return err_sys(err, "cannot make a socket");
    }
    if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        err_sys(err, "cannot bind the admin socket");
        err_where(err, "%s", addr.sun_path);
        return err_advise(err, "make its directory writable for uid %u", geteuid());
    }
    /* connect() needs write permission; who is served then is decided by uid. */
    if ((allows_others(allow_uids, n_allow_uids) && chmod(addr.sun_path, 0666) != 0) ||
        listen(fd, ADMIN_CLIENTS_MAX) != 0) {
        err_sys(err, "cannot listen on the admin socket");
        err_where(err, "%s", addr.sun_path);
        unlink(addr.sun_path);
        return -1;
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int admin_open_http(const struct sockaddr *addr, socklen_t len, int *ret_fd, struct err *err)
{
    os_autofd int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, addr, len) != 0 || listen(fd, ADMIN_CLIENTS_MAX) != 0) {
        err_sys(err, "cannot listen for metrics");
        return err_advise(err, "name an address of this machine that is free, or leave it out");
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}
