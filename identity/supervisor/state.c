#include "supervisor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* The layout is in docs/privilege-separation.md: a whole ca/ or none, and in it a whole state. */
static const char *const DIR_NAME = "ca", *const NEW_DIR_NAME = "ca.new";
static const char *const FILE_NAME = "state", *const NEW_FILE_NAME = "state.new";
/* of releases before this one */
static const char *const KEY_NAME = "root.key", *const CERT_NAME = "root.crt";

static const char *const RESTORE_ADVICE = "restore the ca directory from a backup, or move it "
                                          "away: the next start then makes a new root, "
                                          "which every peer has to learn";

static int fail(struct err *err, const struct supervisor_state *st, const char *name,
                const char *what)
{
    int saved = errno;

    err_sys(err, "%s", what);
    err_where(err, "%s%s%s", st->path, name[0] != 0 ? "/" : "", name);
    if (saved == EROFS || saved == EACCES || saved == EPERM) {
        return err_advise(err, "the agent has to write its state directory: mount it writable, or "
                               "name another one as state_dir");
    }
    if (saved == ENOSPC || saved == EDQUOT) {
        return err_advise(err, "make room on its file system and start again");
    }
    if (saved == ENOENT) {
        return err_advise(err, "make its parent directory, or name another one as state_dir");
    }
    return -1;
}

static int open_dir(struct supervisor_state *st, struct log *log, struct err *err)
{
    struct stat s;

    if (mkdir(st->path, 0700) == -1 && errno != EEXIST) {
        return fail(err, st, "", "the state directory cannot be made");
    }
    st->dir_fd = open(st->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (st->dir_fd == -1 || fstat(st->dir_fd, &s) == -1) {
        return fail(err, st, "", "the state directory cannot be opened");
    }
    if (s.st_uid != geteuid()) {
        err_set(err, ERR_SYSTEM, "the state directory belongs to uid %u", (unsigned)s.st_uid);
        err_where(err, "%s", st->path);
        err_expected(err, "uid %u, whom the agent runs as", (unsigned)geteuid());
        return err_advise(err, "chown it if nobody else had it, or name another one as state_dir");
    }
    if ((s.st_mode & 022) != 0) {
        err_set(err, ERR_SYSTEM, "others may write to the state directory (mode %04o)",
                (unsigned)(s.st_mode & 07777));
        err_where(err, "%s", st->path);
        err_expected(err, "mode 0700");
        return err_advise(err, "chmod it if nobody put anything there, or name another one");
    }
    if ((s.st_mode & 077) != 0) {
        if (fchmod(st->dir_fd, 0700) == -1) {
            return fail(err, st, "", "the state directory cannot be closed to others");
        }
        log_msg(log, LOG_WARN, "state_dir_closed", "%s was open to others and is 0700 now",
                st->path);
    }
    return 0;
}

static int take_lock(struct supervisor_state *st, struct err *err)
{
    POSTERN_ASSERT(st->dir_fd != -1);
    st->lock_fd = openat(st->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (st->lock_fd == -1) {
        return fail(err, st, "lock", "the lock cannot be made");
    }
    if (flock(st->lock_fd, LOCK_EX | LOCK_NB) == -1) {
        if (errno != EWOULDBLOCK) {
            return fail(err, st, "lock", "the lock cannot be taken");
        }
        err_set(err, ERR_UNAVAILABLE, "another agent uses this state directory");
        err_where(err, "%s", st->path);
        return err_advise(err, "end it first, or give this one a state_dir of its own");
    }
    return 0;
}

/* Left by an agent that was killed before its first state was in place. */
static int remove_new_dir(struct supervisor_state *st, struct log *log, struct err *err)
{
    int dir = openat(st->dir_fd, NEW_DIR_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (dir == -1) {
        return errno == ENOENT ? 0 : fail(err, st, NEW_DIR_NAME, "a left-over cannot be opened");
    }
    (void)unlinkat(dir, KEY_NAME, 0);
    (void)unlinkat(dir, CERT_NAME, 0);
    (void)unlinkat(dir, FILE_NAME, 0);
    close(dir);
    if (unlinkat(st->dir_fd, NEW_DIR_NAME, AT_REMOVEDIR) == -1) {
        return fail(err, st, NEW_DIR_NAME, "a left-over cannot be removed");
    }
    log_msg(log, LOG_WARN, "state_cleaned",
            "a root that was never finished is removed; a new one is made");
    return 0;
}

/* An empty file for the keeper: beside the one in force, or in a directory beside the one to be. */
static int make_file(struct supervisor_state *st, int *ret_fd, struct err *err)
{
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    const char *name = st->ca_fd == -1 ? FILE_NAME : NEW_FILE_NAME;
    os_autofd int new_dir = -1;
    int dir = st->ca_fd;

    if (dir == -1) {
        if (mkdirat(st->dir_fd, NEW_DIR_NAME, 0700) == -1 && errno != EEXIST) {
            return fail(err, st, NEW_DIR_NAME, "no place for a new root");
        }
        new_dir = openat(st->dir_fd, NEW_DIR_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (new_dir == -1) {
            return fail(err, st, NEW_DIR_NAME, "no place for a new root");
        }
        dir = new_dir;
    }
    if (unlinkat(dir, name, 0) == -1 && errno != ENOENT) {
        return fail(err, st, DIR_NAME, "a left-over cannot be removed");
    }
    *ret_fd = openat(dir, name, flags, 0600);
    return *ret_fd == -1 ? fail(err, st, DIR_NAME, "no place for a new state") : 0;
}

static int open_old_layout(struct supervisor_state *st, struct err *err)
{
    st->key_fd = openat(st->ca_fd, KEY_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (st->key_fd == -1 && errno == ENOENT) {
        fail(err, st, "ca/state", "the state cannot be opened");
        return err_advise(err, "%s", RESTORE_ADVICE);
    }
    if (st->key_fd == -1) {
        fail(err, st, "ca/root.key", "the root's key cannot be opened");
        return err_advise(err, "%s", RESTORE_ADVICE);
    }
    st->cert_fd = openat(st->ca_fd, CERT_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (st->cert_fd == -1) {
        fail(err, st, "ca/root.crt", "the root's certificate cannot be opened");
        return err_advise(err, "%s", RESTORE_ADVICE);
    }
    st->fresh = true;
    return make_file(st, &st->file_fd, err);
}

static int open_files(struct supervisor_state *st, struct err *err)
{
    st->ca_fd = openat(st->dir_fd, DIR_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (st->ca_fd == -1) {
        st->fresh = true;
        return errno == ENOENT ? make_file(st, &st->file_fd, err)
                               : fail(err, st, DIR_NAME, "the root's directory cannot be opened");
    }
    st->file_fd = openat(st->ca_fd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (st->file_fd == -1) {
        if (errno == ENOENT) {
            return open_old_layout(st, err);
        }
        fail(err, st, "ca/state", "the state cannot be opened");
        return err_advise(err, "%s", RESTORE_ADVICE);
    }
    /* Left by one that was killed in the middle of a change, or before the old layout was gone. */
    (void)unlinkat(st->ca_fd, NEW_FILE_NAME, 0);
    (void)unlinkat(st->ca_fd, KEY_NAME, 0);
    (void)unlinkat(st->ca_fd, CERT_NAME, 0);
    return 0;
}

int supervisor_state_open(struct supervisor_state *st, const char *path, struct log *log,
                          struct err *err)
{
    *st = (struct supervisor_state){.path = path,
                                    .dir_fd = -1,
                                    .lock_fd = -1,
                                    .ca_fd = -1,
                                    .file_fd = -1,
                                    .key_fd = -1,
                                    .cert_fd = -1};
    if (open_dir(st, log, err) == -1 || take_lock(st, err) == -1 ||
        remove_new_dir(st, log, err) == -1) {
        return -1;
    }
    return open_files(st, err);
}

int supervisor_state_make_file(struct supervisor_state *st, int *ret_fd, struct err *err)
{
    return make_file(st, ret_fd, err);
}

/* The first one: the directory is renamed, and so is whole or not there. */
static int commit_dir(struct supervisor_state *st, struct err *err)
{
    int dir = openat(st->dir_fd, NEW_DIR_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (dir == -1 || fsync(dir) == -1 ||
        renameat(st->dir_fd, NEW_DIR_NAME, st->dir_fd, DIR_NAME) == -1 || fsync(st->dir_fd) == -1) {
        fail(err, st, DIR_NAME, "the new root cannot be put in place");
        if (dir != -1) {
            close(dir);
        }
        return -1;
    }
    st->ca_fd = dir;
    return 0;
}

int supervisor_state_commit(struct supervisor_state *st, struct err *err)
{
    if (st->ca_fd == -1) {
        return commit_dir(st, err);
    }
    if (renameat(st->ca_fd, NEW_FILE_NAME, st->ca_fd, FILE_NAME) == -1 || fsync(st->ca_fd) == -1) {
        return fail(err, st, "ca/state", "the new state cannot be put in place");
    }
    /* The old layout, of which the new state holds everything. */
    if (unlinkat(st->ca_fd, KEY_NAME, 0) == 0 && unlinkat(st->ca_fd, CERT_NAME, 0) == 0) {
        (void)fsync(st->ca_fd);
    }
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd != -1) {
        close(*fd);
        *fd = -1;
    }
}

void supervisor_state_close_files(struct supervisor_state *st)
{
    close_fd(&st->file_fd);
    close_fd(&st->key_fd);
    close_fd(&st->cert_fd);
}

void supervisor_state_close(struct supervisor_state *st)
{
    supervisor_state_close_files(st);
    close_fd(&st->ca_fd);
    close_fd(&st->lock_fd);
    close_fd(&st->dir_fd);
}
