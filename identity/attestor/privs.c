#include "attestor_priv.h"

#include <linux/capability.h>
#include <postern/agent_child.h>

/* All that the attestor does after its start. openat is for /proc alone, but a filter cannot say
 * so, and Landlock cannot be used: it would forbid looking at processes that are not confined
 * likewise. So this is the process with the smallest input: nobody outside can send it a byte. */
static const char *const SYSCALLS[] = {
    /* callers and what the kernel says about them */
    "accept4", "getsockopt", "pidfd_open", "openat", "readlinkat", "statx", "read", "pread64",
    "lseek",
    /* channels, loop, log */
    "recvmsg", "sendmsg", "poll", "ppoll", "epoll_create1", "epoll_ctl", "epoll_wait",
    "epoll_pwait", "write", "writev", "close", "fcntl",
    /* libc */
    "brk", "munmap", "mremap", "madvise", "getrandom", "futex", "clock_gettime", "gettimeofday",
    "time", "getpid", "gettid", "sched_yield", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sigaltstack", "restart_syscall", "exit", "exit_group", NULL};

int attestor_drop_privileges(const struct agent_msg_start_attestor *start,
                             struct agent_msg_report *ret_report, struct err *err)
{
    /* To read /proc/PID/exe of other users (ptrace(2), access mode checks). */
    struct agent_confine c = {.role = AGENT_ROLE_ATTESTOR,
                              .uid = start->run_uid,
                              .gid = start->run_gid,
                              .keep_caps = 1ULL << CAP_SYS_PTRACE,
                              .max_fds = 2 * start->max_handles + 320,
                              .syscalls = SYSCALLS,
                              .some = SANDBOX_DATA_MEMORY | SANDBOX_ASKING | SANDBOX_OWN_SIGNALS};

    return agent_confine(&c, ret_report, err);
}
