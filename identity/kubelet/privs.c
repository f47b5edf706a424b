#include "kubelet_priv.h"

#include <postern/agent_child.h>
/* All that it does after its start: no open, no socket, no connect, no exec. What it reads from and
 * writes to was handed to it. */
static const char *const SYSCALLS[] = {
    /* channels, files, the connection */
    "recvmsg", "sendmsg", "poll", "ppoll", "read", "pread64", "write", "sendto", "recvfrom",
    "getsockopt", "fstat", "newfstatat", "close", "fcntl", "shutdown",
    /* memory; memfd_secret and what it needs hold token and key */
    "brk", "munmap", "mremap", "madvise", "memfd_secret", "ftruncate", "mlock", "munlock",
    /* libssl, libc */
    "getrandom", "futex", "clock_gettime", "gettimeofday", "time", "getpid", "gettid",
    "sched_yield", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    "restart_syscall", "exit", "exit_group", NULL};

int fetcher_drop_privileges(const struct agent_msg_start_kubelet *start,
                            struct agent_msg_report *ret_report, struct err *err)
{
    struct agent_confine c = {.role = AGENT_ROLE_KUBELET,
                              .uid = start->run_uid,
                              .gid = start->run_gid,
                              .max_fds = 32,
                              .no_files = true,
                              .syscalls = SYSCALLS,
                              .some = SANDBOX_DATA_MEMORY | SANDBOX_ASKING | SANDBOX_OWN_SIGNALS};

    return agent_confine(&c, ret_report, err);
}
