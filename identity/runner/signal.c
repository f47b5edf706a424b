/* signal: to the process that is meant, or to nobody. What a number in a file may be worth:
 * docs/rotation-actions.md. */
#include "runner_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <postern/os.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PID_TEXT_MAX = 32, PID_MAX = 4194304, START_SLACK_S = 5 };

static enum actions_outcome refuse(char *ret_text, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static enum actions_outcome refuse(char *ret_text, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(ret_text, ACTIONS_TEXT_MAX, fmt, ap);
    va_end(ap);
    return ACTIONS_REFUSED;
}

/* --- the pid file ----------------------------------------------------------------------------- */
struct pid_file {
    pid_t pid;
    uid_t owner;
    bool others_write; /* its group may write to it */
    int64_t written_s;
};

/* The first line is a number, maybe with blanks around it. */
static bool parse_pid(const char *text, size_t len, pid_t *ret)
{
    const char *end = len > 0 ? memchr(text, '\n', len) : NULL;
    struct str s = {text, end != NULL ? (size_t)(end - text) : len};
    uint64_t pid = 0;

    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t' || s.p[s.n - 1] == '\r')) {
        s.n--;
    }
    if ((end == NULL && len >= PID_TEXT_MAX) || !str_to_u64(s, PID_MAX, &pid) || pid == 0) {
        return false;
    }
    *ret = (pid_t)pid;
    return true;
}

static enum actions_outcome read_pid_file(const char *path, struct pid_file *ret, char *ret_text)
{
    os_autofd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    char text[PID_TEXT_MAX];
    struct stat st;
    ssize_t n;

    if (fd == -1) {
        return errno == ELOOP
                   ? refuse(ret_text, "the pid file is a link")
                   : refuse(ret_text, "the pid file cannot be opened: %s", strerrordesc_np(errno));
    }
    if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode)) {
        return refuse(ret_text, "the pid file is no regular file");
    }
    if (st.st_nlink != 1) {
        return refuse(ret_text, "the pid file has %u names", (unsigned)st.st_nlink);
    }
    if ((st.st_mode & S_IWOTH) != 0) {
        return refuse(ret_text, "everybody may write to the pid file (mode %04o)",
                      (unsigned)st.st_mode & 07777);
    }
    n = read(fd, text, sizeof(text));
    if (n <= 0 || !parse_pid(text, (size_t)n, &ret->pid)) {
        return refuse(ret_text, "the pid file does not begin with a process's number");
    }
    if (ret->pid == 1) {
        return refuse(ret_text, "the pid file names process 1: say 'pid: 1' if that is meant");
    }
    ret->owner = st.st_uid;
    ret->others_write = (st.st_mode & S_IWGRP) != 0;
    ret->written_s = st.st_mtim.tv_sec;
    return ACTIONS_OK;
}

/* Whoever may write the file chooses among processes: any of them only if it is root or we
 * ourselves, else his own. */
static enum actions_outcome check_owner(const struct pid_file *file, uint32_t process_uid,
                                        char *ret_text)
{
    bool ours = file->owner == 0 || file->owner == geteuid();

    if (!file->others_write && (ours || file->owner == process_uid)) {
        return ACTIONS_OK;
    }
    /* A server's own group, as MariaDB does it. */
    if (file->others_write && file->owner != 0 && file->owner == process_uid) {
        return ACTIONS_OK;
    }
    if (file->others_write) {
        return refuse(ret_text, "a group may write to the pid file, and its process is uid %u's",
                      process_uid);
    }
    return refuse(ret_text, "the pid file is uid %u's, its process uid %u's", (unsigned)file->owner,
                  process_uid);
}

/* --- the process ------------------------------------------------------------------------------ */
/* Seconds since the epoch, of a start in clock ticks since boot. */
static int64_t start_wall_s(uint64_t start_ticks)
{
    long hz = sysconf(_SC_CLK_TCK);
    uint64_t since_boot_s = os_now_ms() / 1000;
    uint64_t start_s = start_ticks / (uint64_t)(hz > 0 ? hz : 100);

    return os_wall_s() -
           (int64_t)(since_boot_s - (start_s < since_boot_s ? start_s : since_boot_s));
}

/* The path that the kernel shows, and whether its file was replaced since. */
static struct str seen_path(const struct attest_process *p, char *space, size_t size,
                            bool *ret_replaced)
{
    static const char deleted[] = " (deleted)";
    ssize_t n = readlinkat(p->dir_fd, "exe", space, size);
    struct str path = {space, n > 0 && (size_t)n < size ? (size_t)n : 0};

    *ret_replaced = str_has_suffix(path, STR_LIT(deleted));
    path.n -= *ret_replaced ? sizeof(deleted) - 1 : 0;
    return path;
}

/* Whether it is the path's, though not its file: the file was replaced under a process that lives
 * with our mounts, or it lives with others and that may be. */
static bool has_path(struct attest_view *view, const struct attest_process *p,
                     const struct attest_facts *facts, const struct runner_target *target)
{
    char space[PATH_MAX], resolved[PATH_MAX];
    bool replaced = false;
    struct str path = seen_path(p, space, sizeof(space), &replaced);
    bool ours = facts->own_view && attest_mounts_has(&view->mounts, facts->exe_mount);

    if (!(ours && replaced) && !(target->any_mounts && !facts->own_view)) {
        return false;
    }
    return str_eq(path, str_of(target->executable)) ||
           (ours && realpath(target->executable, resolved) != NULL &&
            str_eq(path, str_of(resolved)));
}

static enum actions_outcome check_executable(struct attest_view *view,
                                             const struct attest_process *p,
                                             const struct attest_facts *facts,
                                             const struct runner_target *target, char *ret_text)
{
    struct statx st;
    bool there = statx(AT_FDCWD, target->executable, 0, STATX_BASIC_STATS, &st) == 0;

    if (!facts->has_exe) {
        return refuse(ret_text,
                      "the executable of process %d cannot be seen: run as root or as "
                      "its user",
                      (int)p->pid);
    }
    if (there && ((uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor) == facts->exe.dev &&
        st.stx_ino == facts->exe.ino) {
        return ACTIONS_OK;
    }
    if (has_path(view, p, facts, target)) {
        return ACTIONS_OK;
    }
    return refuse(ret_text, "process %d runs %.200s, and not %.100s", (int)p->pid,
                  facts->path[0] != '\0' ? facts->path : "what has no path here",
                  target->executable);
}

enum actions_outcome runner_signal_look(struct attest_view *view,
                                        const struct runner_target *target, int *ret_pidfd,
                                        char ret_text[ACTIONS_TEXT_MAX])
{
    struct pid_file file = {.pid = target->pid};
    struct attest_process p;
    struct attest_facts facts;
    const char *why = NULL;
    enum actions_outcome outcome = ACTIONS_OK;

    if (target->pid_file != NULL) {
        outcome = read_pid_file(target->pid_file, &file, ret_text);
    }
    for (size_t i = 0; outcome == ACTIONS_OK && i < target->n_own; i++) {
        if (file.pid == target->own[i]) {
            outcome = refuse(ret_text, "process %d is our own", (int)file.pid);
        }
    }
    if (outcome != ACTIONS_OK) {
        return outcome;
    }
    if (attest_process_open_pid(view, file.pid, &p, &facts, &why) != AGENT_ATTEST_OK) {
        return refuse(ret_text, "process %d: %s", (int)file.pid, why);
    }
    outcome = check_executable(view, &p, &facts, target, ret_text);
    if (outcome == ACTIONS_OK && target->pid_file != NULL) {
        outcome = check_owner(&file, facts.uid, ret_text);
    }
    if (outcome == ACTIONS_OK && target->pid_file != NULL &&
        start_wall_s(facts.start_time) > file.written_s + START_SLACK_S) {
        outcome = refuse(ret_text,
                         "process %d began after the pid file was written: the number is "
                         "another's by now, or the clock was set",
                         (int)file.pid);
    }
    if (outcome == ACTIONS_OK) {
        *ret_pidfd = p.pidfd;
        p.pidfd = -1;
    }
    attest_process_close(&p);
    return outcome;
}

enum actions_outcome runner_signal_send(int pidfd, int signo, char ret_text[ACTIONS_TEXT_MAX])
{
    if (syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) == -1) {
        (void)snprintf(ret_text, ACTIONS_TEXT_MAX, "the signal was not sent: %s",
                       strerrordesc_np(errno));
        return ACTIONS_FAILED;
    }
    return ACTIONS_OK;
}

enum actions_outcome runner_signal(struct attest_view *view, const struct runner_target *target,
                                   char ret_text[ACTIONS_TEXT_MAX])
{
    os_autofd int pidfd = -1;
    enum actions_outcome outcome = runner_signal_look(view, target, &pidfd, ret_text);

    return outcome == ACTIONS_OK ? runner_signal_send(pidfd, target->signo, ret_text) : outcome;
}
