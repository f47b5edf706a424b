/*
 * swap: the change. A generation is made whole beside the present one, and then one rename of a
 * link makes it the present one; docs/rotation.md has the order and why. Every system call that
 * changes something is a step, so that tests can have each of them fail or be the last.
 */
#include "rotate_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int step_failed(const struct rotate_dir *d, struct err *err, const char *what,
                       const char *name)
{
    err_sys(err, "cannot %s '%.250s'", what, name);
    return err_where(err, "%s", d->path);
}

/* --- one file ----------------------------------------------------------------------------------
 */
/* Owner, group and mode as they have to be; before anything leads to it. */
static int give_away(const struct rotate_dir *d, int fd, const char *name, mode_t mode, bool owner,
                     struct err *err)
{
    const struct conf_rotate_output *o = d->of;
    uid_t uid = owner && o->has_owner && o->uid != geteuid() ? o->uid : (uid_t)-1;
    if (!rotate_step(d, "fchmod") || fchmod(fd, mode) == -1) {
        return step_failed(d, err, "set the mode of", name);
    }
    if ((uid != (uid_t)-1 || o->has_group) &&
        (!rotate_step(d, "fchown") || fchown(fd, uid, o->has_group ? o->gid : (gid_t)-1) == -1)) {
        step_failed(d, err, "give to its owner and group", name);
        return err_advise(err,
                          "run as root or with CAP_CHOWN, or name a group of the daemon's own");
    }
    return 0;
}

/* What the file system made of it: some have no modes and owners. */
static int check_file(const struct rotate_dir *d, int fd, const char *name, mode_t mode,
                      struct err *err)
{
    const struct conf_rotate_output *o = d->of;
    struct stat st;
    if (fstat(fd, &st) == -1) {
        return step_failed(d, err, "look at", name);
    }
    uid_t uid = o->has_owner ? o->uid : geteuid();
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (st.st_mode & 07777) != mode ||
        st.st_uid != uid || (o->has_group && st.st_gid != o->gid)) {
        err_set(err, ERR_DENIED,
                "'%.200s' became mode %04o of %u:%u with %u links, not mode %04o of %u", name,
                (unsigned)(st.st_mode & 07777), (unsigned)st.st_uid, (unsigned)st.st_gid,
                (unsigned)st.st_nlink, (unsigned)mode, (unsigned)uid);
        err_advise(err, "use a file system that keeps owners and modes");
        return err_where(err, "%s", d->path);
    }
    return 0;
}

static int write_file(const struct rotate_dir *d, int gen_fd, const struct rotate_file *f,
                      struct err *err)
{
    mode_t mode = f->secret ? d->of->mode : d->of->public_mode;
    int open_flags = O_WRONLY | O_CREAT | O_EXCL;
    os_autofd int fd =
        rotate_step(d, "open") ? rotate_open_beneath(gen_fd, f->name, open_flags, 0600) : -1;
    if (fd == -1) {
        return step_failed(d, err, "make", f->name);
    }
    if (!rotate_step(d, "write") || os_write_all(fd, f->data, f->len) == -1) {
        return step_failed(d, err, "write", f->name);
    }
    if (give_away(d, fd, f->name, mode, true, err) == -1 ||
        check_file(d, fd, f->name, mode, err) == -1) {
        return -1;
    }
    if (!rotate_step(d, "fsync") || fsync(fd) == -1) {
        return step_failed(d, err, "write to the disk", f->name);
    }
    return 0;
}

/* --- a generation ------------------------------------------------------------------------------
 */
static int write_set_file(const struct rotate_dir *d, int gen_fd, const struct rotate_set *set,
                          struct err *err)
{
    struct buf text = BUF_INIT(256 * 1024);
    int rc = -1;
    if (!rotate_set_write(set, &text)) {
        err_set(err, ERR_LIMIT, "no room for what the set says");
    } else {
        const struct rotate_file f = {
            .name = ROTATE_SET_FILE, .data = buf_head(&text), .len = buf_len(&text)};
        rc = write_file(d, gen_fd, &f, err);
    }
    buf_reset(&text);
    return rc;
}

static int fill_generation(const struct rotate_dir *d, const char *name, int gen_fd,
                           const struct rotate_files *files, const struct rotate_set *set,
                           struct err *err)
{
    for (size_t i = 0; i < rotate_files_count(files); i++) {
        struct rotate_file f = rotate_files_get(files, i);
        if (write_file(d, gen_fd, &f, err) == -1) {
            return -1;
        }
    }
    if (write_set_file(d, gen_fd, set, err) == -1 ||
        give_away(d, gen_fd, name, rotate_dir_mode(d->of), false, err) == -1) {
        return -1;
    }
    if (!rotate_step(d, "fsync") || fsync(gen_fd) == -1 || !rotate_step(d, "fsync") ||
        fsync(d->fd) == -1) {
        return step_failed(d, err, "write to the disk", name);
    }
    return 0;
}

static int make_generation(const struct rotate_dir *d, const char *name,
                           const struct rotate_files *files, const struct rotate_set *set,
                           struct err *err)
{
    if (!rotate_step(d, "mkdir") || mkdirat(d->fd, name, 0700) == -1) {
        return step_failed(d, err, "make", name);
    }
    os_autofd int gen_fd =
        rotate_step(d, "open") ? rotate_open_beneath(d->fd, name, O_RDONLY | O_DIRECTORY, 0) : -1;
    if (gen_fd == -1) {
        return step_failed(d, err, "open", name);
    }
    return fill_generation(d, name, gen_fd, files, set, err);
}

/* --- links -------------------------------------------------------------------------------------
 */
/* A link made aside and moved into place: it is there or it is not. */
static int put_link(const struct rotate_dir *d, const char *target, const char *name,
                    struct err *err)
{
    (void)unlinkat(d->fd, ROTATE_NEW_LINK, 0);
    if (!rotate_step(d, "symlink") || symlinkat(target, d->fd, ROTATE_NEW_LINK) == -1) {
        return step_failed(d, err, "make the link", name);
    }
    if (!rotate_step(d, "rename") || renameat(d->fd, ROTATE_NEW_LINK, d->fd, name) == -1) {
        step_failed(d, err, "move the link", name);
        (void)unlinkat(d->fd, ROTATE_NEW_LINK, 0);
        return -1;
    }
    return 0;
}

enum place { PLACE_RIGHT, PLACE_FREE, PLACE_TAKEN };

/* What stands under a name that has to be a link of ours. */
static enum place look(const struct rotate_dir *d, const char *name)
{
    char target[PATH_MAX];
    char want[CONF_ROTATE_NAME_MAX + 16];
    struct stat st;
    int len = snprintf(want, sizeof(want), "%s/%s", ROTATE_DATA, name);
    ssize_t n = readlinkat(d->fd, name, target, sizeof(target));
    if (n != -1) {
        if (n == len && memcmp(target, want, (size_t)n) == 0) {
            return PLACE_RIGHT;
        }
        bool ours = str_has_prefix((struct str){target, (size_t)n}, STR_LIT(ROTATE_DATA "/"));
        return ours ? PLACE_FREE : PLACE_TAKEN;
    }
    if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) == -1) {
        return errno == ENOENT ? PLACE_FREE : PLACE_TAKEN;
    }
    return S_ISREG(st.st_mode) && d->of->replace_files ? PLACE_FREE : PLACE_TAKEN;
}

/* Before anything is changed: a stranger's file under one of our names would stay in use. */
static int check_places(const struct rotate_dir *d, struct err *err)
{
    for (size_t i = 0; i < d->of->n_files; i++) {
        const char *name = d->of->files[i].name;
        if (look(d, name) == PLACE_TAKEN) {
            err_set(err, ERR_DENIED, "'%.200s' is there, and is not of this daemon's making", name);
            err_advise(err, "move it away, or set 'replace_files: true' if it is a plain file");
            return err_where(err, "%s", d->path);
        }
    }
    return 0;
}

static int put_links(const struct rotate_dir *d, struct err *err)
{
    bool any = false;
    for (size_t i = 0; i < d->of->n_files; i++) {
        const char *name = d->of->files[i].name;
        char target[CONF_ROTATE_NAME_MAX + 16];
        if (look(d, name) == PLACE_RIGHT) {
            continue;
        }
        snprintf(target, sizeof(target), "%s/%s", ROTATE_DATA, name);
        if (put_link(d, target, name, err) == -1) {
            return -1;
        }
        any = true;
    }
    if (any && (!rotate_step(d, "fsync") || fsync(d->fd) == -1)) {
        return step_failed(d, err, "write to the disk", "the links");
    }
    return 0;
}

/* --- the change --------------------------------------------------------------------------------
 */
int rotate_dir_publish(struct rotate_dir *d, const struct rotate_files *files, uint64_t now_ms,
                       uint64_t *ret_generation, struct err *err)
{
    char name[ROTATE_GENERATION_LEN];
    mem_autofree struct rotate_set *set = mem_must_new(struct rotate_set);
    if (rotate_check_place(d, err) == -1 || rotate_let_in(d, err) == -1 ||
        check_places(d, err) == -1) {
        return -1;
    }
    *set = *rotate_files_set(files);
    set->generation = ++d->last_seq;
    set->written_s = (int64_t)(now_ms / 1000);
    rotate_generation_name(set->generation, now_ms, name);
    if (make_generation(d, name, files, set, err) == -1 ||
        put_link(d, name, ROTATE_DATA, err) == -1) {
        (void)rotate_remove_generation(d, name, NULL);
        return -1;
    }
    memcpy(d->present, name, sizeof(name));
    d->generation = set->generation;
    *ret_generation = set->generation;
    if (!rotate_step(d, "fsync") || fsync(d->fd) == -1) {
        return step_failed(d, err, "write to the disk", ROTATE_DATA);
    }
    return put_links(d, err) == 0 ? rotate_remove_stale_links(d, err) : -1;
}
