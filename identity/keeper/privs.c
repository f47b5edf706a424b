#include "keeper_priv.h"

#include <limits.h>
#include <malloc.h>
#include <postern/agent_child.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* All that the keeper does after its start. No open, no socket, no exec, no fork: descriptors come
 * from the supervisor and the attestor, or not at all. */
static const char *const SYSCALLS[] = {
    /* channels, log, state files, journal */
    "recvmsg", "sendmsg", "poll", "ppoll", "write", "writev", "pread64", "pwrite64", "read",
    "lseek", "fstat", "newfstatat", "fsync", "fdatasync", "close", "fcntl",
    /* memory; memfd_secret and what it needs hold key bytes */
    "brk", "munmap", "mremap", "madvise", "memfd_secret", "ftruncate", "mlock", "munlock",
    /* libcrypto, libc (qsort asks for the size of memory) */
    "getrandom", "futex", "timerfd_settime", "clock_gettime", "gettimeofday", "time", "getpid",
    "gettid", "sched_yield", "sysinfo", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sigaltstack", "restart_syscall", "exit", "exit_group", NULL};

/* Scrypt takes 4 MiB of it for a moment (seal.c). */
enum { HEAP_LOCKED = 6 << 20 };

/* Makes the heap large enough for keys, entries and callers of a usual node, and locks it page by
 * page as it is touched. Fits the limit on locked memory that systems give to everybody (8 MiB). */
static bool lock_heap(void)
{
    mem_autofree char *maps = NULL;
    unsigned long from = 0, to = 0;
    size_t len = 0;
    const char *name, *line;

    /* One thread. NOLINTBEGIN(concurrency-mt-unsafe) */
    (void)mallopt(M_TOP_PAD, HEAP_LOCKED);
    (void)mallopt(M_TRIM_THRESHOLD, INT_MAX);
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_LOCKED);
    /* NOLINTEND(concurrency-mt-unsafe) */
    free(mem_must_calloc(1, HEAP_LOCKED / 8)); /* the heap grows by that and the pad */
    if (os_read_file("/proc/self/maps", 1 << 20, false, &maps, &len, NULL) == -1) {
        return false;
    }
    name = strstr(maps, "[heap]");
    if (name == NULL) {
        return false;
    }
    for (line = name; line > maps && line[-1] != '\n'; line--) {
    }
    /* The kernel's own text. NOLINTNEXTLINE(cert-err34-c) */
    return sscanf(line, "%lx-%lx", &from, &to) == 2 && to > from &&
           mlock2((const void *)from, to - from, MLOCK_ONFAULT) == 0;
}

/* The copies of keys inside libcrypto are on the heap: keep it out of swap. All of memory, if the
 * limit on locked memory can be lifted (with the usual one later allocations would fail); else the
 * heap, as far as it has grown now. */
static bool lock_memory(void)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

    return (setrlimit(RLIMIT_MEMLOCK, &all) == 0 &&
            mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) ||
           lock_heap();
}

int keeper_drop_privileges(const struct agent_msg_start_keeper *start,
                           struct agent_msg_report *ret_report, struct err *err)
{
    struct agent_confine c = {.role = AGENT_ROLE_KEEPER,
                              .uid = start->run_uid,
                              .gid = start->run_gid,
                              .max_fds = start->max_handles + 64,
                              .no_files = true,
                              .syscalls = SYSCALLS,
                              .some = SANDBOX_DATA_MEMORY | SANDBOX_ASKING | SANDBOX_OWN_SIGNALS};
    bool locked = lock_memory();

    if (agent_confine(&c, ret_report, err) == -1) {
        return -1;
    }
    ret_report->memory_locked = locked;
    return 0;
}
