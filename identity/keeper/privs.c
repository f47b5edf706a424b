#include "keeper_priv.h"

#include <sys/mman.h>
#include <sys/resource.h>

/* All that the keeper does after its start. No open, no socket, no exec, no fork: descriptors come
 * from the supervisor and the attestor, or not at all. */
static const char *const SYSCALLS[] = {
    /* channels, log, state files */
    "recvmsg", "sendmsg", "poll", "ppoll", "write", "writev", "pread64", "read", "lseek", "fstat",
    "newfstatat", "fsync", "close", "fcntl",
    /* memory; memfd_secret and what it needs hold key bytes */
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "memfd_secret", "ftruncate", "mlock",
    "munlock",
    /* libcrypto, libc */
    "getrandom", "futex", "clock_gettime", "gettimeofday", "time", "prctl", "getpid", "gettid",
    "sched_yield", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    "restart_syscall", "tgkill", "exit", "exit_group", NULL};

/* The copies of keys inside libcrypto are on the heap: keep all of it out of swap, if the limit on
 * locked memory can be lifted; with the usual one, later allocations would fail instead. */
static bool lock_memory(void)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

    return setrlimit(RLIMIT_MEMLOCK, &all) == 0 &&
           mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
}

int keeper_drop_privileges(const struct agent_msg_start_keeper *start,
                           struct agent_msg_report *ret_report, struct err *err)
{
    struct agent_confine c = {.role = AGENT_ROLE_KEEPER,
                              .uid = start->run_uid,
                              .gid = start->run_gid,
                              .max_fds = start->max_handles + 64,
                              .no_files = true,
                              .syscalls = SYSCALLS};
    bool locked = lock_memory();

    if (agent_confine(&c, ret_report, err) == -1) {
        return -1;
    }
    ret_report->memory_locked = locked;
    return 0;
}
