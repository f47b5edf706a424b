/* Unix sockets that are listened on: their files. */
#include <postern/net.h>

#include <errno.h>
#include <grp.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,      /* the kernel caps it at net.core.somaxconn */
    NAMES_SPACE = 16384, /* of one entry of the user database */
};

/* --- whose it is ------------------------------------------------------------------------------ */
static int find_user(const char *name, uid_t *ret, struct err *err)
{
    char space[NAMES_SPACE];
    struct passwd pw;
    struct passwd *found = NULL;
    uint64_t number;
    if (name == NULL) {
        *ret = (uid_t)-1;
    } else if (str_to_u64(str_of(name), UINT32_MAX - 1, &number)) {
        *ret = (uid_t)number;
    } else if (getpwnam_r(name, &pw, space, sizeof(space), &found) == 0 && found != NULL) {
        *ret = found->pw_uid;
    } else {
        return err_set(err, ERR_CONFIG, "the machine knows no user '%s'", name);
    }
    return 0;
}

static int find_group(const char *name, gid_t *ret, struct err *err)
{
    char space[NAMES_SPACE];
    struct group gr;
    struct group *found = NULL;
    uint64_t number;
    if (name == NULL) {
        *ret = (gid_t)-1;
    } else if (str_to_u64(str_of(name), UINT32_MAX - 1, &number)) {
        *ret = (gid_t)number;
    } else if (getgrnam_r(name, &gr, space, sizeof(space), &found) == 0 && found != NULL) {
        *ret = found->gr_gid;
    } else {
        return err_set(err, ERR_CONFIG, "the machine knows no group '%s'", name);
    }
    return 0;
}

/* --- what is there already -------------------------------------------------------------------- */
static int make_address(const char *path, struct sockaddr_un *ret, struct err *err)
{
    size_t n = strlen(path);
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (n >= sizeof(ret->sun_path)) {
        return err_set(err, ERR_CONFIG, "the name of a socket is too long: %s", path);
    }
    memcpy(ret->sun_path, path, n);
    return 0;
}

/* 0 if the name is free, or (*ret_stale) that of a socket which nobody listens on. */
static int check_place(const struct sockaddr_un *un, bool *ret_stale, struct err *err)
{
    const char *path = un->sun_path;
    struct stat st;
    if (lstat(path, &st) == -1) {
        return errno == ENOENT ? 0 : err_sys(err, "cannot look at %s", path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        err_set(err, ERR_CONFIG, "%s is there and is no socket", path);
        return err_advise(err, "remove it, or name another place");
    }
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return err_sys(err, "cannot make a socket");
    }
    if (connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 || errno == EAGAIN) {
        errno = EADDRINUSE;
        err_sys(err, "cannot listen on %s", path);
        return err_advise(err, "another process listens there: `ss -lxp` shows which");
    }
    /* ENOENT: gone meanwhile. EPROTOTYPE: one of another kind, maybe in use. */
    if (errno != ECONNREFUSED && errno != ENOENT) {
        return err_sys(err, "cannot tell whether somebody listens on %s", path);
    }
    *ret_stale = errno == ECONNREFUSED;
    return 0;
}

/* --- making one ------------------------------------------------------------------------------- */
/* It has its mode from birth, and refuses everybody until it listens. */
static int bind_at(const struct sockaddr_un *un, mode_t mode, int fd, struct err *err)
{
    mode_t before = umask(0777 & ~mode);
    int r = bind(fd, (const struct sockaddr *)un, sizeof(*un));
    int e = errno;
    umask(before);
    errno = e;
    return r == -1 ? err_sys(err, "cannot listen on %s", un->sun_path) : 0;
}

/* The mode first: who is given the file may exchange it for a link, in a directory like /tmp too,
 * and chmod would follow that. It is only asked where the directory has rules of its own (ACLs). */
static int finish(const struct net_unix_spec *spec, uid_t uid, gid_t gid, const struct stat *st,
                  int fd, struct err *err)
{
    bool given = spec->owner != NULL || spec->group != NULL;
    if ((st->st_mode & 07777) != spec->mode && chmod(spec->path, spec->mode) == -1) {
        return err_sys(err, "cannot give %s its mode", spec->path);
    }
    if (given && lchown(spec->path, uid, gid) == -1) {
        return err_sys(err, "cannot give %s its owner", spec->path);
    }
    return listen(fd, BACKLOG) == -1 ? err_sys(err, "cannot listen on %s", spec->path) : 0;
}

int net_listen_unix(const struct net_unix_spec *spec, int *ret_fd, struct net_unix_file *ret,
                    struct err *err)
{
    struct sockaddr_un un;
    struct stat st;
    uid_t uid = (uid_t)-1; /* stays as it is */
    gid_t gid = (gid_t)-1;
    bool stale = false;
    if (make_address(spec->path, &un, err) == -1 || find_user(spec->owner, &uid, err) == -1 ||
        find_group(spec->group, &gid, err) == -1 || check_place(&un, &stale, err) == -1) {
        return -1;
    }
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return err_sys(err, "cannot make a socket for %s", spec->path);
    }
    if (stale && unlink(spec->path) == -1 && errno != ENOENT) {
        return err_sys(err, "cannot replace %s, which nobody listens on", spec->path);
    }
    if (bind_at(&un, spec->mode, fd, err) == -1) {
        return -1;
    }
    int r = lstat(spec->path, &st) == -1 ? err_sys(err, "cannot look at %s", spec->path)
                                         : finish(spec, uid, gid, &st, fd, err);
    if (r == -1) {
        (void)unlink(spec->path);
        return -1;
    }
    *ret = (struct net_unix_file){mem_must_strdup(spec->path), st.st_dev, st.st_ino, st.st_mtim};
    *ret_fd = fd;
    fd = -1;
    return 0;
}

void net_unix_file_of(const char *path, struct net_unix_file *ret)
{
    struct stat st;
    *ret = (struct net_unix_file){.path = NULL};
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        *ret = (struct net_unix_file){mem_must_strdup(path), st.st_dev, st.st_ino, st.st_mtim};
    }
}

void net_unix_file_deinit(struct net_unix_file *f, bool remove)
{
    struct stat st;
    if (remove && f->path != NULL && lstat(f->path, &st) == 0 && st.st_dev == f->dev &&
        st.st_ino == f->ino && st.st_mtim.tv_sec == f->made.tv_sec &&
        st.st_mtim.tv_nsec == f->made.tv_nsec) {
        (void)unlink(f->path);
    }
    free(f->path);
    *f = (struct net_unix_file){.path = NULL};
}
