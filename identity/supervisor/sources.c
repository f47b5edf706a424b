/* Opening a file that says what the agent does: root's (or the agent's own), and nobody else's to
 * write. Whoever may write to it could make himself anybody. */
#include "supervisor_priv.h"

#include <fcntl.h>
#include <postern/os.h>
#include <unistd.h>

static int check_owner(const struct stat *st, struct err *err)
{
    bool group_is_ours = st->st_gid == 0 || st->st_gid == getegid();
    bool foreign = st->st_uid != 0 && st->st_uid != geteuid();
    bool open_to_others =
        (st->st_mode & S_IWOTH) != 0 || ((st->st_mode & S_IWGRP) != 0 && !group_is_ours);

    if (!foreign && !open_to_others) {
        return 0;
    }
    err_set(err, ERR_CONFIG, "others may write to this file: owner %u, group %u, mode %04o",
            (unsigned)st->st_uid, (unsigned)st->st_gid, (unsigned)(st->st_mode & 07777));
    err_expected(err, geteuid() == 0 ? "a file of root's that nobody else may write to"
                                     : "a file of root's or of the agent's own user that nobody "
                                       "else may write to");
    return err_advise(err, foreign ? "chown it to root" : "chmod go-w");
}

int supervisor_source_open(const char *path, const char *what, int *ret_fd, struct err *err)
{
    os_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;

    if (fd == -1 || fstat(fd, &st) == -1) {
        err_sys(err, "%s cannot be opened", what);
        return err_where(err, "%s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(err, ERR_CONFIG, "this is no regular file");
        return err_where(err, "%s", path);
    }
    if (check_owner(&st, err) == -1) {
        return err_where(err, "%s", path);
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}
