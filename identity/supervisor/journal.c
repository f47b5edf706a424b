#include "supervisor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/dir_walk.h>
#include <postern/journal.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The journal's directory (docs/journal.md). The keeper writes, by descriptors; which file that is,
 * and how many are kept, is settled here. Nothing of what is in them is believed. */

static int fail(const struct supervisor *s, const char *name, const char *what, struct err *err)
{
    err_sys(err, "%s", what);
    err_where(err, "%s/%s%s%s", s->conf->state_dir, JOURNAL_DIR, name[0] != '\0' ? "/" : "", name);
    return err_advise(err, "make room there, make it writable, or name another state_dir");
}

static int open_dir(const struct supervisor *s, int *ret, struct err *err)
{
    int dir;

    POSTERN_ASSERT(s->state.dir_fd != -1);
    if (mkdirat(s->state.dir_fd, JOURNAL_DIR, 0700) == -1 && errno != EEXIST) {
        return fail(s, "", "the journal's directory cannot be made", err);
    }
    dir = openat(s->state.dir_fd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir == -1) {
        return fail(s, "", "the journal's directory cannot be opened", err);
    }
    *ret = dir;
    return 0;
}

struct ends {
    uint64_t first, last;
};

static int take_number(void *arg, const char *name)
{
    struct ends *e = arg;
    uint64_t n;

    if (journal_file_number(str_of(name), &n)) {
        e->first = e->first == 0 || n < e->first ? n : e->first;
        e->last = n > e->last ? n : e->last;
    }
    return 0;
}

/* The lowest and the highest number there; 0: there is none. */
static int find_ends(const struct supervisor *s, int dir, uint64_t *ret_first, uint64_t *ret_last,
                     struct err *err)
{
    struct ends found = {0, 0};

    POSTERN_ASSERT(dir != -1);
    if (dir_walk(dir, take_number, &found) == -1) {
        return fail(s, "", "the journal's directory cannot be read", err);
    }
    *ret_first = found.first;
    *ret_last = found.last;
    return 0;
}

static int open_file(const struct supervisor *s, int dir, uint64_t number, int flags, int *ret,
                     struct err *err)
{
    char name[32];
    int fd;

    POSTERN_ASSERT(dir != -1);
    journal_file_name(number, name, sizeof(name));
    fd = openat(dir, name, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0600);
    if (fd == -1) {
        return fail(s, name, "a journal file cannot be opened", err);
    }
    *ret = fd;
    return 0;
}

/* A file that an agent was killed over before its first line was whole has nothing to go on from.
 * It stays, under another name. */
static bool has_a_line(int fd)
{
    char text[JOURNAL_LINE_MAX];
    ssize_t n = pread(fd, text, sizeof(text), 0);

    return n > 0 && memchr(text, '\n', (size_t)n) != NULL;
}

static void put_aside(struct supervisor *s, int dir, uint64_t number)
{
    char name[32], aside[48];

    journal_file_name(number, name, sizeof(name));
    (void)snprintf(aside, sizeof(aside), "%s.torn", name);
    if (renameat(dir, name, dir, aside) == 0) {
        log_msg(s->log, LOG_WARN, "journal_put_aside",
                "journal file %s has no whole line: it is %s now", name, aside);
    }
}

/* The last file that has something to go on from, or a first one. */
static int open_last(struct supervisor *s, int dir, uint64_t *ret_number, int *ret, struct err *err)
{
    uint64_t first = 0, last = 0;

    if (find_ends(s, dir, &first, &last, err) == -1) {
        return -1;
    }
    while (last > 0) {
        os_autofd int fd = -1;

        if (open_file(s, dir, last, 0, &fd, err) == -1) {
            return -1;
        }
        POSTERN_ASSERT(fd != -1);
        if (has_a_line(fd) || (last == 1 && lseek(fd, 0, SEEK_END) == 0)) {
            *ret_number = last;
            *ret = fd;
            fd = -1;
            return 0;
        }
        put_aside(s, dir, last);
        if (last == first) {
            break;
        }
        last--;
    }
    *ret_number = last > 0 ? last : 1;
    if (open_file(s, dir, *ret_number, O_CREAT | O_EXCL, ret, err) == -1) {
        return -1;
    }
    return fsync(dir) == -1 ? fail(s, "", "the journal's directory cannot be synced", err) : 0;
}

static int tell_file(struct supervisor *s, uint64_t number, uint64_t oldest, int fd,
                     struct err *err)
{
    struct agent_msg_journal m;

    agent_ipc_init(&m, AGENT_MSG_JOURNAL_FILE, 0);
    m.number = number;
    m.oldest = oldest;
    m.max_size = s->conf->journal_max_size;
    return supervisor_tell(s, AGENT_ROLE_KEEPER, &m, fd, err);
}

int supervisor_journal_start(struct supervisor *s, struct err *err)
{
    struct agent_msg_plain head;
    os_autofd int dir = -1, file = -1, head_file = -1;
    uint64_t number = 0;

    if (open_dir(s, &dir, err) == -1 || open_last(s, dir, &number, &file, err) == -1) {
        return -1;
    }
    head_file = openat(dir, JOURNAL_HEAD_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (head_file == -1) {
        return fail(s, JOURNAL_HEAD_FILE, "the journal's head cannot be opened", err);
    }
    agent_ipc_init(&head, AGENT_MSG_JOURNAL_HEAD, 0);
    if (supervisor_tell(s, AGENT_ROLE_KEEPER, &head, head_file, err) == -1) {
        return -1;
    }
    return tell_file(s, number, 0, file, err);
}

/* Those beyond what is kept; returns the oldest that is left. */
static uint64_t remove_old(struct supervisor *s, int dir, uint64_t first, uint64_t last)
{
    char name[32];

    while (first > 0 && last - first + 1 > s->conf->journal_keep) {
        journal_file_name(first, name, sizeof(name));
        if (unlinkat(dir, name, 0) == -1 && errno != ENOENT) {
            struct err err = ERR_INIT;

            fail(s, name, "an old journal file cannot be removed", &err);
            log_failure(s->log, LOG_WARN, "journal_not_removed", &err);
            break;
        }
        first++;
    }
    return first;
}

/* The keeper does not take a next file while the end of the one before is torn, as on a full disk:
 * the one that was made for it is there when it asks again. */
static bool is_unused(const struct supervisor *s, int dir, uint64_t number)
{
    os_autofd int fd = -1;

    return open_file(s, dir, number, 0, &fd, NULL) == 0 && fd != -1 && lseek(fd, 0, SEEK_END) == 0;
}

static int next_file(struct supervisor *s, uint64_t number, uint64_t *ret_oldest, int *ret,
                     struct err *err)
{
    os_autofd int dir = -1;
    uint64_t first = 0, last = 0;

    if (open_dir(s, &dir, err) == -1 || find_ends(s, dir, &first, &last, err) == -1) {
        return -1;
    }
    if (number != last && (last != number + 1 || !is_unused(s, dir, last))) {
        return err_set(err, ERR_PROTOCOL, "the journal's last file is %llu, and not %llu",
                       (unsigned long long)last, (unsigned long long)number);
    }
    if (open_file(s, dir, number + 1, number == last ? O_CREAT | O_EXCL : 0, ret, err) == -1) {
        return -1;
    }
    *ret_oldest = remove_old(s, dir, first, number + 1);
    (void)fsync(dir);
    return 0;
}

int supervisor_journal_next(struct supervisor *s, uint64_t number, struct err *err)
{
    struct err failure = ERR_INIT;
    os_autofd int file = -1;
    uint64_t oldest = 0;

    if (next_file(s, number, &oldest, &file, &failure) == -1) {
        err_advise(&failure, "the journal goes on in its old file; this is tried again");
        log_failure(s->log, LOG_ERROR, "journal_next_failed", &failure);
        return 0;
    }
    return tell_file(s, number + 1, oldest, file, err);
}
