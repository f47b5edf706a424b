#include "service_priv.h"

#include <postern/agent_child.h>
/* All that the service does after its start. It opens no file and makes no socket: what it reads
 * from was handed to it. memfd_secret, ftruncate and mlock are for keys on their way to a caller.
 */
static const char *const SYSCALLS[] = {
    /* callers, channels, admin */
    "recvfrom", "recvmsg", "sendto", "sendmsg", "accept4", "getsockopt", "shutdown", "read",
    "pread64", "write", "writev", "close", "fcntl", "poll", "ppoll",
    /* loop */
    "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2",
    /* memory, keys */
    "brk", "munmap", "mremap", "madvise", "memfd_secret", "ftruncate", "mlock", "munlock",
    "getrandom",
    /* libc */
    "futex", "clock_gettime", "gettimeofday", "time", "getpid", "gettid", "sched_yield",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "exit",
    "exit_group", NULL};

int service_drop_privileges(const struct agent_msg_start_service *start,
                            struct agent_msg_report *ret_report, struct err *err)
{
    struct agent_confine c = {.role = AGENT_ROLE_SERVICE,
                              .uid = start->run_uid,
                              .gid = start->run_gid,
                              .keep_caps = 0,
                              .max_fds = SERVICE_FDS_MAX,
                              .no_files = true,
                              .syscalls = SYSCALLS,
                              .some = SANDBOX_DATA_MEMORY | SANDBOX_ASKING | SANDBOX_OWN_SIGNALS,
                              .count = true};
    return agent_confine(&c, ret_report, err);
}
