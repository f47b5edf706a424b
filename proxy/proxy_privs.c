/* All that a proxy may do once it is set up, in one list. */
#include "proxy_priv.h"

#include <limits.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const SYSCALLS[] = {
    /* connections */
    "accept4", "socket", "connect", "shutdown", "getsockname", "getpeername", "getsockopt",
    "setsockopt", "recvfrom", "sendto", "recvmsg", "sendmsg", "read", "write", "readv", "writev",
    "close", "fcntl", "poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl",
    /* configuration read again, hardening looked at, the admin socket's file removed */
    "openat", "open", "newfstatat", "fstat", "stat", "statx", "lseek", "pread64", "readlink",
    "readlinkat", "unlink", "unlinkat", "getcwd", "prctl", "capget", "geteuid", "getegid", "getuid",
    "getgid", "landlock_create_ruleset",
    /* threads and memory */
    "clone", "clone3", "set_robust_list", "rseq", "sched_yield", "futex", "brk", "mmap", "munmap",
    "mremap", "mprotect", "madvise", "sched_getaffinity",
    /* libc and libcrypto */
    "getrandom", "clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "getpid",
    "gettid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    "tgkill", "sysinfo", "uname", "prlimit64", "getrlimit", "exit", "exit_group", NULL};

enum { PATHS_MAX = 8 };

struct paths {
    char text[PATHS_MAX][PATH_MAX];
    const char *list[PATHS_MAX + 1];
    size_t n;
};

/* The directory, not the file: editors and tools put a new file in its place. */
static void allow_directory_of(struct paths *paths, const char *file)
{
    if (file == NULL || paths->n == PATHS_MAX) {
        return;
    }
    const char *slash = strrchr(file, '/');
    int n = slash == NULL ? 1 : slash == file ? 1 : (int)(slash - file);
    snprintf(paths->text[paths->n], PATH_MAX, "%.*s", n, slash == NULL ? "." : file);
    paths->list[paths->n] = paths->text[paths->n];
    paths->n++;
}

int proxy_confine(const struct proxy *p, struct err *err)
{
    const struct conf_proxy *conf = p->files->conf;
    struct paths *read = mem_must_new(struct paths);
    struct paths *write = mem_must_new(struct paths);
    allow_directory_of(read, conf->path);
    allow_directory_of(read, conf->mesh_path);
    allow_directory_of(read, conf->policy_path);
    allow_directory_of(write, conf->admin.socket);
    bool ok =
        sandbox_drop_caps(0, err) == 0 && sandbox_limits(true, err) == 0 &&
        sandbox_landlock(read->list, write->list, err) == 0 &&
        sandbox_seccomp("proxy", SYSCALLS, secure_getenv("POSTERN_SANDBOX_KILL") != NULL, err) == 0;
    free(read);
    free(write);
    return ok ? 0 : -1;
}
