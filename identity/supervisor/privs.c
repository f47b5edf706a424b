#include "supervisor_priv.h"

#include <linux/capability.h>
#include <postern/os.h>
#include <stdio.h>
#include <unistd.h>

#define CAP(name) (1ULL << CAP_##name)

/* What is left to do after the start: starting a service or a loader again (which become somebody
 * else by themselves), ending processes of others, reading files that the operator wrote. */
static const uint64_t KEEP =
    CAP(KILL) | CAP(SETUID) | CAP(SETGID) | CAP(SETPCAP) | CAP(DAC_READ_SEARCH);

/* A filter is inherited, so this one has to let a service or loader come to life: exec, the dynamic
 * linker, and giving up its own rights behind it; each then loads its own short list on top. What
 * is not here: other namespaces and mounts, other processes' memory, modules, bpf, io_uring, keys,
 * clocks, devices. */
static const char *const SYSCALLS[] = {
    /* files */
    "open", "openat", "openat2", "close", "close_range", "read", "pread64", "readv", "write",
    "pwrite64", "writev", "lseek", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs",
    "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents64",
    "getcwd", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
    "fsync", "fdatasync", "ftruncate", "fchmod", "fchmodat", "chmod", "umask", "flock", "fcntl",
    "dup", "dup2", "dup3", "pipe", "pipe2", "ioctl",
    /* sockets, waiting */
    "socket", "socketpair", "bind", "listen", "accept", "accept4", "connect", "shutdown",
    "getsockopt", "setsockopt", "getsockname", "getpeername", "sendto", "sendmsg", "recvfrom",
    "recvmsg", "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "signalfd4", "timerfd_create",
    "timerfd_settime", "inotify_add_watch", "inotify_rm_watch",
    /* processes */
    "clone", "clone3", "fork", "vfork", "execve", "exit", "exit_group", "wait4", "waitid", "kill",
    "tgkill", "pidfd_open", "pidfd_send_signal", "getpid", "getppid", "gettid", "getpgrp",
    "getpgid", "setpgid", "setsid", "set_tid_address", "set_robust_list", "get_robust_list", "rseq",
    "arch_prctl", "prctl", "sched_yield", "sched_getaffinity", "futex",
    /* rights, to give up */
    "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "setgroups",
    "setuid", "setgid", "setresuid", "setresgid", "capget", "capset", "seccomp",
    "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "getrlimit",
    "setrlimit", "prlimit64",
    /* memory */
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "memfd_secret", "mlock", "munlock",
    "mlockall", "getrandom",
    /* time, signals, facts */
    "alarm", "setitimer", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep",
    "gettimeofday", "time", "getrusage", "sysinfo", "uname", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "sigaltstack", "restart_syscall", NULL};

int supervisor_drop_privileges(struct supervisor *s, struct err *err)
{
    struct supervisor_child *own = &s->children[AGENT_ROLE_SUPERVISOR];
    struct sandbox_report *report = &own->report.report;
    const struct sandbox_filter filter = {.name = "supervisor", .calls = SYSCALLS};
    os_autofd int status_fd = sandbox_status_open();

    sandbox_get_report(-1, report);
    if (sandbox_drop_caps(KEEP & report->caps, err) == -1 || sandbox_limits(true, err) == -1 ||
        sandbox_seccomp(&filter, sandbox_kill_all(), err) == -1) {
        return err_prefix(err, "giving up privileges");
    }
    own->role = AGENT_ROLE_SUPERVISOR;
    own->pid = getpid();
    own->reported = true;
    own->report.role = AGENT_ROLE_SUPERVISOR;
    sandbox_get_report(status_fd, report);
    (void)snprintf(report->seccomp_name, sizeof(report->seccomp_name), "supervisor");
    return 0;
}
