/* All that postern-heir may do. No Landlock: that would forbid looking at processes. Nothing is
 * ever opened: files are asked for their numbers, links for their text. */
#include "heir_priv.h"

#include <postern/sandbox.h>

static const char *const SYSCALLS[] = {
    "recvmsg",      "sendmsg",        "poll",           "ppoll",       "close",
    "readlink",     "readlinkat",     "stat",           "lstat",       "newfstatat",
    "statx",        "pidfd_open",     /* libc */ "brk", "munmap",      "mremap",
    "madvise",      "futex",          "clock_gettime",  "getpid",      "gettid",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",   "sigaltstack", "restart_syscall",
    "write",        "exit",           "exit_group",     NULL};

static const struct sandbox_filter FILTER = {
    .name = "heir", .calls = SYSCALLS, .some = SANDBOX_DATA_MEMORY | SANDBOX_OWN_SIGNALS};

/* Capabilities stay as they are: the kernel shows a process only to one that has all of its
 * capabilities, and whoever takes over has those that we were started with. The list above leaves
 * nothing to be done with them. */
int heir_confine(struct err *err)
{
    if (sandbox_limits(false, err) == -1) {
        return -1;
    }
    return sandbox_seccomp(&FILTER, sandbox_kill_all(), err);
}
