/* dir: one output's directory: opened without following a link, checked, locked. All that is done
 * later is done beneath its descriptor. */
#include "rotate_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- system calls ------------------------------------------------------------------------------
 */
/* openat2 is of Linux 5.6, and some sandboxes refuse it. Every name here is a single component in a
 * directory of our own, for which O_NOFOLLOW comes to the same: the last component is all there is.
 */
int rotate_open_beneath(int fd, const char *name, int flags, mode_t mode)
{
    POSTERN_ASSERT(strchr(name, '/') == NULL && strcmp(name, "..") != 0);
    const struct open_how how = {.flags = (uint32_t)(flags | O_CLOEXEC | O_NOFOLLOW),
                                 .mode = (flags & O_CREAT) != 0 ? mode : 0,
                                 .resolve =
                                     RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    long rc = syscall(SYS_openat2, fd, name, &how, sizeof(how));
    if (rc == -1 && (errno == ENOSYS || errno == EPERM)) {
        rc = openat(fd, name, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    }
    return (int)rc;
}

bool rotate_step(const struct rotate_dir *d, const char *what)
{
    return d->step == NULL || d->step(d->step_arg, what);
}

mode_t rotate_dir_mode(const struct conf_rotate_output *o)
{
    mode_t mode = 0700;
    if (o->has_owner || o->has_group || ((o->mode | o->public_mode) & 0040) != 0) {
        mode |= 0050;
    }
    if ((o->public_mode & 0004) != 0) {
        mode |= 0005;
    }
    return mode;
}

/* --- opening -----------------------------------------------------------------------------------
 */
/* "/a/b" to "/a" and "b"; slashes at the end do not count. */
static int split(const char *path, char **ret_parent, char **ret_name, struct err *err)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    size_t at = n;
    while (at > 0 && path[at - 1] != '/') {
        at--;
    }
    struct str name = {path + at, n - at};
    if (path[0] != '/' || name.n == 0 || str_eq(name, STR_LIT(".")) ||
        str_eq(name, STR_LIT(".."))) {
        return err_set(err, ERR_CONFIG, "'%.300s' is not the absolute path of a directory", path);
    }
    *ret_parent = mem_must_strndup(path, at);
    *ret_name = mem_must_strndup(name.p, name.n);
    return 0;
}

static int sys_failed(const struct rotate_dir *d, struct err *err, const char *what)
{
    err_sys(err, "%s", what);
    return err_where(err, "%s", d->path);
}

/* Where we may write, and nobody else. */
static int check_ours(const struct rotate_dir *d, const struct stat *st, struct err *err)
{
    if (st->st_uid != geteuid()) {
        err_set(err, ERR_DENIED, "the directory belongs to uid %u, and this daemon runs as %u",
                (unsigned)st->st_uid, (unsigned)geteuid());
        err_advise(err, "chown it to uid %u, or name one that is not there yet",
                   (unsigned)geteuid());
        return err_where(err, "%s", d->path);
    }
    if ((st->st_mode & 0022) != 0) {
        err_set(err, ERR_DENIED, "others may write in the directory (mode %04o)",
                (unsigned)(st->st_mode & 07777));
        err_advise(err, "chmod go-w it");
        return err_where(err, "%s", d->path);
    }
    return 0;
}

static int open_fd(struct rotate_dir *d, const char *name, struct err *err)
{
    struct stat st;
    bool made = mkdirat(d->parent_fd, name, 0700) == 0;
    if (!made && errno != EEXIST) {
        int saved = errno;
        /* It may be there all the same, where we may not make one. */
        if (faccessat(d->parent_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == -1) {
            errno = saved;
            return sys_failed(d, err, "cannot make the directory");
        }
    }
    d->fd = rotate_open_beneath(d->parent_fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (d->fd == -1) {
        if (errno == ELOOP || errno == ENOTDIR) {
            err_set(err, ERR_DENIED, "a link or a file stands where the directory should be");
            err_advise(err, "name the directory that is meant");
            return err_where(err, "%s", d->path);
        }
        return sys_failed(d, err, "cannot open the directory");
    }
    if (fstat(d->fd, &st) == -1) {
        return sys_failed(d, err, "cannot look at the directory");
    }
    if (check_ours(d, &st, err) == -1) {
        return -1;
    }
    if (flock(d->fd, LOCK_EX | LOCK_NB) == -1) {
        if (errno != EWOULDBLOCK) {
            return sys_failed(d, err, "cannot lock the directory");
        }
        err_set(err, ERR_UNAVAILABLE, "another daemon keeps this directory");
        err_advise(err, "end it, or give each its own directory");
        return err_where(err, "%s", d->path);
    }
    return 0;
}

/* Group and mode of the directory itself follow the configuration. */
int rotate_let_in(const struct rotate_dir *d, struct err *err)
{
    const struct conf_rotate_output *o = d->of;
    struct stat st;
    POSTERN_ASSERT(d->fd != -1);
    if (fstat(d->fd, &st) == -1) {
        return sys_failed(d, err, "cannot look at the directory");
    }
    if (o->has_group && st.st_gid != o->gid && fchown(d->fd, (uid_t)-1, o->gid) == -1) {
        err_sys(err, "cannot give the directory to group %u", (unsigned)o->gid);
        err_advise(err, "run as root or with CAP_CHOWN, or name a group of the daemon's own");
        return err_where(err, "%s", d->path);
    }
    mode_t mode = rotate_dir_mode(o);
    if ((st.st_mode & 07777) != mode && fchmod(d->fd, mode) == -1) {
        return sys_failed(d, err, "cannot set the directory's mode");
    }
    return 0;
}

struct rotate_dir *rotate_dir_open(const struct conf_rotate_output *o, struct err *err)
{
    mem_auto(rotate_dir_close) struct rotate_dir *d = mem_must_new(struct rotate_dir);
    mem_autofree char *parent = NULL;
    d->of = o;
    d->path = mem_must_strdup(o->directory);
    d->fd = -1;
    d->parent_fd = -1;
    if (split(o->directory, &parent, &d->name, err) == -1 || parent == NULL) {
        return NULL;
    }
    d->parent_fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (d->parent_fd == -1) {
        err_sys(err, "cannot open the directory above");
        err_where(err, "%s", parent);
        return NULL;
    }
    if (open_fd(d, d->name, err) == -1 || rotate_let_in(d, err) == -1 ||
        rotate_recover(d, err) == -1) {
        return NULL;
    }
    struct rotate_dir *ret = d;
    d = NULL;
    return ret;
}

struct rotate_dir *rotate_dir_close(struct rotate_dir *d)
{
    if (d != NULL) {
        if (d->fd != -1) {
            close(d->fd);
        }
        if (d->parent_fd != -1) {
            close(d->parent_fd);
        }
        free(d->path);
        free(d->name);
        free(d);
    }
    return NULL;
}

void rotate_dir_set_step(struct rotate_dir *d, rotate_step_fn step, void *arg)
{
    d->step = step;
    d->step_arg = arg;
}

void rotate_dir_use(struct rotate_dir *d, const struct conf_rotate_output *o)
{
    POSTERN_ASSERT(strcmp(d->path, o->directory) == 0);
    d->of = o;
}

uint64_t rotate_dir_generation(const struct rotate_dir *d)
{
    return d->generation;
}

int rotate_check_place(const struct rotate_dir *d, struct err *err)
{
    struct stat here;
    struct stat there;
    if (fstat(d->fd, &here) == -1) {
        return sys_failed(d, err, "cannot look at the directory");
    }
    if (fstatat(d->parent_fd, d->name, &there, AT_SYMLINK_NOFOLLOW) == -1 ||
        there.st_dev != here.st_dev || there.st_ino != here.st_ino) {
        err_set(err, ERR_DENIED, "the directory was taken away, and its name leads elsewhere");
        err_advise(err, "put it back, or restart the daemon for a new one");
        return err_where(err, "%s", d->path);
    }
    return check_ours(d, &here, err);
}
