/* All that postern-resolver may do, and its children with it. */
#include "resolver_priv.h"

#include <postern/sandbox.h>

static const char *const SYSCALLS[] = {
    /* the channel, children */
    "recvmsg", "sendmsg", "poll", "ppoll", "clone", "clone3", "fork", "alarm", "setitimer", "exit",
    "exit_group", "set_robust_list", "rseq",
    /* hosts file and resolv.conf */
    "read", "close", "fstat", "newfstatat", "stat", "statx", "lseek", "pread64",
    /* name servers */
    "socket", "connect", "bind", "sendto", "sendmmsg", "recvfrom", "setsockopt", "getsockopt",
    "getsockname", "getpeername", "ioctl", "fcntl", "uname", "writev", "write",
    /* libc */
    "brk", "munmap", "mremap", "madvise", "futex", "getrandom", "clock_gettime", "gettimeofday",
    "time", "getpid", "gettid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    "restart_syscall", "tgkill", "sched_yield", "prctl",
    /* a child gives up the rest of the file system */
    "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", NULL};

static const struct sandbox_filter FILTER = {
    .name = "resolver",
    .calls = SYSCALLS,
    .some = SANDBOX_DATA_MEMORY | SANDBOX_OPEN_READ,
};

int resolver_confine(struct err *err)
{
    sandbox_secure_bits();
    if (sandbox_drop_caps(0, err) == -1 || sandbox_limits(true, err) == -1) {
        return -1;
    }
    return sandbox_seccomp(&FILTER, sandbox_kill_all(), err);
}

/* By each child and not once, because both files may be replaced by others at any time. */
int resolver_confine_child(struct err *err)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();
    int r;

    sandbox_plan_path(plan, SANDBOX_READ, "/etc/hosts");
    sandbox_plan_path(plan, SANDBOX_READ, "/etc/resolv.conf");
    sandbox_plan_connect_any(plan, "name servers are where resolv.conf says");
    sandbox_plan_bind_any(plan, "a question has a port of its own");
    r = sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, err);
    sandbox_plan_free(plan);
    return r;
}
