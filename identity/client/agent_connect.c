/*
 * Whose the agent is that answers on a socket. What can be known: who may put names into the
 * directory, whose the socket's name is, and who called listen() on it, which is what SO_PEERCRED
 * tells of a listener and is not changed by handing the socket on: the supervisor listens as root,
 * and a service without privileges serves.
 */
#include <postern/identity_client.h>

#include <errno.h>
#include <postern/os.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool is_trusted(uid_t uid)
{
    return uid == 0 || uid == geteuid();
}

static int refuse(struct err *err, const char *path)
{
    err->code = ERR_DENIED;
    err_where(err, "%s", path);
    return err_advise(err, "an agent that others could stand in for is not believed: it belongs "
                           "into a directory of root's that nobody else may write to");
}

static int check_names(const char *path, struct err *err)
{
    char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct stat st;

    if (!os_parent_dir(path, dir, sizeof(dir))) {
        err_set(err, ERR_CONFIG, "the socket's path is not absolute");
        return err_where(err, "%s", path);
    }
    if (stat(dir, &st) == -1 || (st.st_mode & S_IFMT) != S_IFDIR) {
        err_set(err, ERR_UNAVAILABLE, "there is no directory %s", dir);
        return -1;
    }
    bool sticky = (st.st_mode & S_ISVTX) != 0;
    if (!is_trusted(st.st_uid) || ((st.st_mode & 022) != 0 && !sticky)) {
        err_set(err, ERR_DENIED,
                "others could exchange the agent's socket: its directory has mode %04o and owner "
                "%u",
                (unsigned)(st.st_mode & 07777), (unsigned)st.st_uid);
        return refuse(err, dir);
    }
    if (lstat(path, &st) == -1) {
        err_set(err, ERR_UNAVAILABLE, "no agent at %s", path);
        return -1;
    }
    if (!S_ISSOCK(st.st_mode) || !is_trusted(st.st_uid)) {
        err_set(err, ERR_DENIED, "this is no socket of root's: it has owner %u",
                (unsigned)st.st_uid);
        return refuse(err, path);
    }
    return 0;
}

static int check_listener(int fd, const char *path, struct err *err)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1) {
        return err_sys(err, "who listens on %s", path);
    }
    if (!is_trusted(cred.uid)) {
        err_set(err, ERR_DENIED, "uid %u listens there, which is neither root nor us",
                (unsigned)cred.uid);
        return refuse(err, path);
    }
    return 0;
}

int identity_agent_connect(const char *path, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    os_autofd int fd = -1;
    size_t n = strlen(path);

    if (path[0] != '/' || n >= sizeof(addr.sun_path)) {
        return err_set(err, ERR_CONFIG, "not a socket path: \"%s\"", path);
    }
    if (check_names(path, err) == -1) {
        return -1;
    }
    memcpy(addr.sun_path, path, n + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        return err_sys(err, "cannot make a socket");
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == -1) {
        int saved = errno;
        err_sys(err, "cannot connect to %s", path);
        if (saved == EAGAIN || saved == ECONNREFUSED || saved == ENOENT) {
            err->code = ERR_UNAVAILABLE;
        }
        return -1;
    }
    if (check_listener(fd, path, err) == -1) {
        return -1;
    }
    int taken = fd;
    fd = -1;
    return taken;
}
