#include "loader_priv.h"

#include <postern/agent_child.h>
#include <stdlib.h>

/* All that it does after its start. openat is for /etc/passwd and /etc/group (Landlock lets nothing
 * else through); the libc asks a name service first where one is configured, and is refused. */
static const char *const SYSCALLS[] = {
    "read",        "pread64",         "fstat",        "newfstatat",     "lseek",
    "close",       "sendmsg",         "poll",         "ppoll",          "write",
    "brk",         "munmap",          "mremap",       "madvise",        "getrandom",
    "futex",       "clock_gettime",   "gettimeofday", "time",           "getpid",
    "gettid",      "sched_yield",     "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sigaltstack", "restart_syscall", "fcntl",        "exit",           "exit_group",
    NULL};
static const char *const NAME_FILES[] = {"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", NULL};

int loader_drop_privileges(uint32_t uid, uint32_t gid, struct agent_msg_report *ret_report,
                           struct err *err)
{
    struct agent_confine c = {.role = AGENT_ROLE_LOADER,
                              .uid = uid,
                              .gid = gid,
                              .max_fds = 16,
                              .read_files = NAME_FILES,
                              .syscalls = SYSCALLS,
                              .some = SANDBOX_DATA_MEMORY | SANDBOX_ASKING | SANDBOX_OWN_SIGNALS |
                                      SANDBOX_OPEN_READ};

    /* Looking up a user, the libc tries a socket first: it has to be refused, not killed. */
    (void)unsetenv("POSTERN_SANDBOX_KILL"); /* NOLINT(concurrency-mt-unsafe): one thread */
    return agent_confine(&c, ret_report, err);
}
