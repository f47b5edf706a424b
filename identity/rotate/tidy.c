/* tidy: what may go. Generations that were never led to, at start; old ones, when no reader needs
 * them any more; links to files that are no longer in the set. */
#include "rotate_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <postern/mem_grow.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OLD_MS = 60 * 1000, /* out of use for so long, then nobody reads it */
    OLD_MAX = 1000,     /* however fast they come, no more than these */
};

static int failed(const struct rotate_dir *d, struct err *err, const char *what, const char *name)
{
    err_sys(err, "cannot %s '%.250s'", what, name);
    return err_where(err, "%s", d->path);
}

/* --- one generation ----------------------------------------------------------------------------
 */
/* A file that was given away is taken back first: only its owner may write to it. */
static int open_to_wipe(int gen_fd, const char *name)
{
    int fd = rotate_open_beneath(gen_fd, name, O_WRONLY, 0);
    if (fd == -1 && errno == EACCES &&
        fchownat(gen_fd, name, geteuid(), (gid_t)-1, AT_SYMLINK_NOFOLLOW) == 0 &&
        fchmodat(gen_fd, name, 0600, 0) == 0) {
        fd = rotate_open_beneath(gen_fd, name, O_WRONLY, 0);
    }
    return fd;
}

/* Best effort: file systems that copy on write keep the old blocks for a while. */
static void wipe(int gen_fd, const char *name, off_t size)
{
    static const uint8_t zeros[4096];
    os_autofd int fd = open_to_wipe(gen_fd, name);
    if (fd == -1) {
        return;
    }
    for (off_t at = 0; at < size; at += (off_t)sizeof(zeros)) {
        size_t n = size - at < (off_t)sizeof(zeros) ? (size_t)(size - at) : sizeof(zeros);
        if (os_write_all(fd, zeros, n) == -1) {
            return;
        }
    }
    (void)fdatasync(fd);
}

static int remove_entry(const struct rotate_dir *d, int gen_fd, const char *name, struct err *err)
{
    struct stat st;
    if (fstatat(gen_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        (st.st_mode & 0004) == 0 && rotate_step(d, "wipe")) {
        wipe(gen_fd, name, st.st_size);
    }
    if (!rotate_step(d, "unlink") || unlinkat(gen_fd, name, 0) == -1) {
        return failed(d, err, "remove", name);
    }
    return 0;
}

/* Calls fn with each name; names may be removed meanwhile. */
static int each_name(const struct rotate_dir *d, int fd, struct err *err,
                     int (*fn)(void *arg, const char *name, struct err *err), void *arg)
{
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again != -1 ? fdopendir(again) : NULL;
    if (dir == NULL) {
        if (again != -1) {
            close(again);
        }
        return failed(d, err, "read", ".");
    }
    int rc = 0;
    const struct dirent *e;
    /* The stream is ours alone. */
    while (rc == 0 && (e = readdir(dir)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            rc = fn(arg, e->d_name, err);
        }
    }
    closedir(dir);
    return rc;
}

struct removal {
    const struct rotate_dir *d;
    int gen_fd;
};

static int on_file(void *arg, const char *name, struct err *err)
{
    const struct removal *r = arg;
    return remove_entry(r->d, r->gen_fd, name, err);
}

int rotate_remove_generation(struct rotate_dir *d, const char *name, struct err *err)
{
    POSTERN_ASSERT(strcmp(name, d->present) != 0);
    os_autofd int gen_fd = rotate_open_beneath(d->fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (gen_fd == -1) {
        return errno == ENOENT ? 0 : failed(d, err, "open", name);
    }
    struct removal r = {.d = d, .gen_fd = gen_fd};
    if (each_name(d, gen_fd, err, on_file, &r) == -1) {
        return -1;
    }
    if (!rotate_step(d, "rmdir") || unlinkat(d->fd, name, AT_REMOVEDIR) == -1) {
        return failed(d, err, "remove", name);
    }
    return 0;
}

/* --- all of them -------------------------------------------------------------------------------
 */
struct generation {
    uint64_t seq, made_ms;
    char name[ROTATE_GENERATION_LEN];
};
struct list {
    struct generation *items; /* owned */
    size_t n, cap;
};

static int on_name(void *arg, const char *name, struct err *err)
{
    struct list *l = arg;
    struct generation g = {0};
    (void)err;
    if (strlen(name) >= sizeof(g.name) ||
        !rotate_generation_parse(str_of(name), &g.seq, &g.made_ms)) {
        return 0;
    }
    MEM_GROW(l->items, l->n, l->cap, 16);
    memcpy(g.name, name, strlen(name) + 1);
    l->items[l->n++] = g;
    return 0;
}

static int newest_first(const void *pa, const void *pb)
{
    const struct generation *a = pa;
    const struct generation *b = pb;
    return a->seq != b->seq ? (a->seq > b->seq ? -1 : 1) : strcmp(b->name, a->name);
}

static int list_generations(const struct rotate_dir *d, struct list *l, struct err *err)
{
    if (each_name(d, d->fd, err, on_name, l) == -1) {
        return -1;
    }
    if (l->n > 1) {
        qsort(l->items, l->n, sizeof(*l->items), newest_first);
    }
    return 0;
}

/* Whose turn it was after this one, and for how long it has been out of use. */
static bool is_old(const struct rotate_dir *d, const struct list *l, size_t i, size_t n_older,
                   uint64_t now_ms)
{
    uint64_t ended_ms = l->items[i - 1].made_ms;
    if (n_older <= d->of->keep) {
        return false;
    }
    return n_older > OLD_MAX || (now_ms > ended_ms && now_ms - ended_ms >= OLD_MS);
}

int rotate_dir_tidy(struct rotate_dir *d, uint64_t now_ms, struct err *err)
{
    struct list l = {0};
    int rc = list_generations(d, &l, err);
    size_t n_older = 0;
    for (size_t i = 1; rc == 0 && i < l.n; i++) {
        if (l.items[i].seq >= d->generation) {
            continue;
        }
        n_older++;
        if (is_old(d, &l, i, n_older, now_ms)) {
            rc = rotate_remove_generation(d, l.items[i].name, err);
        }
    }
    free(l.items);
    return rc;
}

/* --- start -------------------------------------------------------------------------------------
 */
/* The generation that ..data leads to; what else it may lead to is nobody's that we know. */
static int read_present(struct rotate_dir *d, struct err *err)
{
    char target[PATH_MAX];
    uint64_t seq = 0;
    uint64_t ms = 0;
    ssize_t n = readlinkat(d->fd, ROTATE_DATA, target, sizeof(target));
    if (n == -1 && errno == ENOENT) {
        return 0;
    }
    if (n == -1 || n >= ROTATE_GENERATION_LEN ||
        !rotate_generation_parse((struct str){target, (size_t)n}, &seq, &ms)) {
        err_set(err, ERR_DENIED, "'%s' is there, and is not of this daemon's making", ROTATE_DATA);
        err_advise(err, "give the output a directory of its own");
        return err_where(err, "%s", d->path);
    }
    target[n] = '\0';
    d->last_seq = seq;
    os_autofd int fd = rotate_open_beneath(d->fd, target, O_RDONLY | O_DIRECTORY, 0);
    if (fd != -1) {
        memcpy(d->present, target, (size_t)n + 1);
        d->generation = seq;
    }
    return 0;
}

int rotate_recover(struct rotate_dir *d, struct err *err)
{
    struct list l = {0};
    if (read_present(d, err) == -1) {
        return -1;
    }
    (void)unlinkat(d->fd, ROTATE_NEW_LINK, 0);
    int rc = list_generations(d, &l, err);
    for (size_t i = 0; rc == 0 && i < l.n; i++) {
        bool visible = d->generation != 0 && l.items[i].seq <= d->generation;
        if (l.items[i].seq > d->last_seq) {
            d->last_seq = l.items[i].seq;
        }
        if (!visible) {
            rc = rotate_remove_generation(d, l.items[i].name, err);
        }
    }
    free(l.items);
    return rc;
}

/* --- links -------------------------------------------------------------------------------------
 */
static bool in_set(const struct conf_rotate_output *o, const char *name)
{
    for (size_t i = 0; i < o->n_files; i++) {
        if (strcmp(o->files[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static int on_link(void *arg, const char *name, struct err *err)
{
    const struct rotate_dir *d = arg;
    char target[PATH_MAX];
    ssize_t n = readlinkat(d->fd, name, target, sizeof(target));
    if (n == -1 || in_set(d->of, name) ||
        !str_has_prefix((struct str){target, (size_t)n}, STR_LIT(ROTATE_DATA "/"))) {
        return 0;
    }
    return unlinkat(d->fd, name, 0) == 0 ? 0 : failed(d, err, "remove the link", name);
}

int rotate_remove_stale_links(struct rotate_dir *d, struct err *err)
{
    return each_name(d, d->fd, err, on_link, d);
}
