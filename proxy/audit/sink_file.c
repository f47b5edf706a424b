/* The audit log's file: what it may be, where its lines go on, another one in its place. */
#include "audit_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/dir_walk.h>
#include <postern/jsonl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TAIL = 2 * AUDIT_LINE_MAX, /* of the file that is there: its last line is in it */
    NAME_SIZE = 300,
    DIGITS = 8,
    NUMBER_TRIES = 1000,
    REMOVE_MAX = 64, /* files at a rotation */
    FILE_MODE = 0640,
};

static void name_of(const struct audit_sink *s, uint64_t number, char ret[NAME_SIZE])
{
    (void)snprintf(ret, NAME_SIZE, "%s.%0*llu", s->base, DIGITS, (unsigned long long)number);
}

/* --- what it may be --------------------------------------------------------------------------- */

static int open_directory(struct audit_sink *s, struct err *err)
{
    char dir[4096];
    struct stat st;
    const char *slash = strrchr(s->path, '/');
    s->base = slash != NULL ? slash + 1 : s->path;
    if (s->base[0] == '\0' || strlen(s->base) > NAME_SIZE - 32 ||
        !os_parent_dir(s->path, dir, sizeof(dir))) {
        err_set(err, ERR_CONFIG, "the audit log's path names no file");
        return err_where(err, "%s", s->path);
    }
    s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd == -1 || fstat(s->dir_fd, &st) == -1) {
        err_sys(err, "cannot open the audit log's directory");
        err_where(err, "%s", dir);
        return err_advise(err, "make it, owned by the user that the process runs as");
    }
    if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022) != 0) {
        err_set(err, ERR_DENIED, "others may write to the audit log's directory");
        err_where(err, "%s", dir);
        err_expected(err, "owned by root or uid %u, written to by nobody else",
                     (unsigned)geteuid());
        return err_advise(err, "chmod go-w it, or name another one");
    }
    return 0;
}

/* Opens one to append to. -1 with err set: it is something that it must not be. */
static int open_to_append(const struct audit_sink *s, const char *name, int more, struct err *err)
{
    struct stat st;
    int fd = openat(s->dir_fd, name,
                    O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | more,
                    FILE_MODE);
    if (fd == -1 || fstat(fd, &st) == -1) {
        err_sys(err, "cannot open the audit log");
    } else if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != geteuid()) {
        err_set(err, ERR_DENIED, "what stands in the place of the audit log is not its file");
        err_expected(err, "a regular file with one name, owned by uid %u", (unsigned)geteuid());
        err_advise(err, "look at who made it, and remove it");
    } else {
        if (st.st_size == 0) {
            (void)fchmod(fd, FILE_MODE); /* whatever the umask is */
        }
        return fd;
    }
    err_where(err, "%s", s->path);
    if (fd != -1) {
        close(fd);
    }
    return -1;
}

/* --- where it goes on ------------------------------------------------------------------------- */

struct numbers {
    const struct audit_sink *sink;
    uint64_t max;
};

static int take_number(void *arg, const char *name)
{
    struct numbers *of = arg;
    const struct audit_sink *s = of->sink;
    size_t len = strlen(s->base);
    char again[NAME_SIZE];
    uint64_t n;
    if (strncmp(name, s->base, len) == 0 && name[len] == '.' && strlen(name) > len + DIGITS &&
        str_to_u64(str_of(name + len + 1), 999999999999, &n)) {
        name_of(s, n, again);
        of->max = strcmp(again, name) == 0 && n > of->max ? n : of->max;
    }
    return 0;
}

/* The highest number that a renamed one has; 0: there is none. */
static uint64_t last_number(const struct audit_sink *s)
{
    struct numbers found = {.sink = s};
    POSTERN_ASSERT(s->dir_fd >= 0);
    (void)dir_walk(s->dir_fd, take_number, &found);
    return found.max;
}

static bool hash(const struct audit_chain *c, const void *p, size_t n, uint8_t ret[AUDIT_HASH_SIZE])
{
    unsigned len = AUDIT_HASH_SIZE;
    return EVP_DigestInit_ex2(c->digest, c->md, NULL) == 1 &&
           EVP_DigestUpdate(c->digest, p, n) == 1 && EVP_DigestFinal_ex(c->digest, ret, &len) == 1;
}

/* The last whole line into the chain, what is behind it into `begin`. False: there is none. */
static bool read_tail(const struct audit_sink *s, const char *name, struct audit_chain *c,
                      struct audit_begin *begin)
{
    mem_autofree char *tail = mem_must_calloc(1, TAIL);
    struct stat st;
    struct jsonl line;
    uint64_t seq;
    os_autofd int fd = openat(s->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd == -1 || fstat(fd, &st) == -1 || !S_ISREG(st.st_mode)) {
        return false;
    }
    size_t want = (uint64_t)st.st_size < TAIL ? (size_t)st.st_size : (size_t)TAIL;
    ssize_t got = pread(fd, tail, want, st.st_size - (off_t)want);
    if (got < 0 || (size_t)got != want) {
        return false;
    }
    const char *last = memrchr(tail, '\n', want);
    if (last == NULL) {
        return false;
    }
    size_t end = (size_t)(last - tail);
    const char *before = end > 0 ? memrchr(tail, '\n', end) : NULL;
    size_t from = before != NULL ? (size_t)(before - tail) + 1 : 0;
    if ((before == NULL && (uint64_t)st.st_size > want) ||
        !jsonl_parse((struct str){tail + from, end - from}, &line) ||
        !jsonl_get_uint(&line, "seq", &seq) || !hash(c, tail + from, end - from, c->head)) {
        return false;
    }
    c->seq = seq;
    begin->torn = want - end - 1;
    return begin->torn == 0 || hash(c, last + 1, begin->torn, begin->torn_hash);
}

/* --- another one in its place ----------------------------------------------------------------- */

/* The one that stands there gets the next free number, and a new one its name. */
static int exchange(struct audit_sink *s, struct err *err)
{
    char fresh[NAME_SIZE], numbered[NAME_SIZE];
    struct stat st;
    (void)snprintf(fresh, sizeof(fresh), "%s.new", s->base);
    (void)unlinkat(s->dir_fd, fresh, 0); /* of a process that was killed at this point */
    int fd = open_to_append(s, fresh, O_EXCL, err);
    if (fd == -1) {
        return -1;
    }
    int tries = 0, r = -1;
    do {
        name_of(s, s->number, numbered);
        r = renameat2(s->dir_fd, s->base, s->dir_fd, numbered, RENAME_NOREPLACE);
    } while (r == -1 && errno == EEXIST && ++tries < NUMBER_TRIES && ++s->number > 0);
    if (r == 0) {
        r = renameat2(s->dir_fd, fresh, s->dir_fd, s->base, RENAME_NOREPLACE);
    }
    if (r == -1 || fstat(fd, &st) == -1 || flock(fd, LOCK_EX | LOCK_NB) == -1) {
        err_sys(err, "cannot put a new audit log in the old one's place");
        err_where(err, "%s", s->path);
        close(fd);
        (void)unlinkat(s->dir_fd, fresh, 0);
        return -1;
    }
    if (s->fd != -1) {
        close(s->fd);
    }
    s->fd = fd;
    s->size = 0;
    s->inode = st.st_ino;
    s->number++;
    return 0;
}

static void remove_oldest(const struct audit_sink *s)
{
    char name[NAME_SIZE];
    for (uint64_t i = 0; i < REMOVE_MAX && s->number > s->keep + i; i++) {
        name_of(s, s->number - s->keep - i, name);
        if (unlinkat(s->dir_fd, name, 0) == -1) {
            return;
        }
    }
}

bool audit_file_is_full(const struct audit_sink *s)
{
    return s->to == AUDIT_TO_FILE && s->size >= s->max_size;
}

int audit_file_rotate(struct audit_sink *s, struct err *err)
{
    struct stat st;
    if (fstatat(s->dir_fd, s->base, &st, AT_SYMLINK_NOFOLLOW) == -1 || st.st_ino != s->inode) {
        s->max_size = UINT64_MAX; /* another process goes on there: ours stays what it is */
        err_set(err, ERR_UNAVAILABLE, "another file stands in the place of the audit log");
        return err_where(err, "%s", s->path);
    }
    if (exchange(s, err) == -1) {
        return -1;
    }
    remove_oldest(s);
    return 0;
}

int audit_file_open(struct audit_sink *s, struct audit_chain *c, struct audit_begin *begin,
                    struct err *err)
{
    char name[NAME_SIZE];
    struct stat st;
    begin->why = "start";
    if (open_directory(s, err) == -1) {
        return -1;
    }
    s->number = last_number(s) + 1;
    s->fd = open_to_append(s, s->base, 0, err);
    if (s->fd == -1) {
        return -1;
    }
    bool ours = flock(s->fd, LOCK_EX | LOCK_NB) == 0;
    if (fstat(s->fd, &st) == -1) {
        err_sys(err, "cannot look at the audit log");
        return err_where(err, "%s", s->path);
    }
    s->size = (uint64_t)st.st_size;
    s->inode = st.st_ino;
    bool goes_on = s->size > 0 && read_tail(s, s->base, c, begin);
    if (!ours || (s->size > 0 && !goes_on)) {
        begin->torn = 0; /* its own writer ends it, or nobody could tell what it was */
        begin->why = ours ? "start" : "taken_over";
        if (exchange(s, err) == -1) {
            return -1;
        }
    } else if (s->size == 0 && s->number > 1) {
        struct audit_begin unused = {.torn = 0};
        name_of(s, s->number - 1, name);
        (void)read_tail(s, name, c, &unused);
    }
    begin->file = s->number;
    return 0;
}
