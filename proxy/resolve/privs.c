/* All that postern-resolver may do, and its children with it. */
#include "resolver_priv.h"

#include <postern/sandbox.h>
#include <stdlib.h>

static const char *const SYSCALLS[] = {
    /* the channel, children */
    "recvmsg", "sendmsg", "poll", "ppoll", "clone", "clone3", "fork", "alarm", "setitimer", "exit",
    "exit_group", "set_robust_list", "rseq",
    /* hosts file and resolv.conf */
    "openat", "open", "read", "close", "fstat", "newfstatat", "stat", "statx", "lseek", "pread64",
    /* name servers */
    "socket", "connect", "bind", "sendto", "sendmmsg", "recvfrom", "setsockopt", "getsockopt",
    "getsockname", "getpeername", "ioctl", "fcntl", "uname", "writev", "write",
    /* libc */
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "getrandom", "clock_gettime",
    "gettimeofday", "time", "getpid", "gettid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sigaltstack", "restart_syscall", "tgkill", "sched_yield", "prctl",
    /* a child gives up the rest of the file system */
    "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", NULL};

int resolver_confine(struct err *err)
{
    bool kill_all = secure_getenv("POSTERN_SANDBOX_KILL") != NULL;
    if (sandbox_drop_caps(0, err) == -1 || sandbox_limits(true, err) == -1) {
        return -1;
    }
    return sandbox_seccomp("resolver", SYSCALLS, kill_all, err);
}

/* By each child and not once, because both files may be replaced by others at any time. */
int resolver_confine_child(struct err *err)
{
    static const char *const read[] = {"/etc/hosts", "/etc/resolv.conf", NULL};
    static const char *const write[] = {NULL};
    return sandbox_landlock(read, write, err);
}
