/* All that postern-key-holder may do: the watcher, which starts the holder anew, and the holder. */
#include "holder_priv.h"

#include <openssl/crypto.h>
#include <postern/key_heap.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define HOLDER_CALLS                                                                               \
    /* channels, log, and what `postern status` asks */                                            \
    "recvmsg", "sendmsg", "poll", "ppoll", "write", "close", "shutdown", "capget", "geteuid",      \
        "getegid", "prlimit64", "getrlimit", /* memory */ "brk", "munmap", "mremap", "madvise",    \
        /* libcrypto, libc */ "getrandom", "futex", "clock_gettime", "gettimeofday", "time",       \
        "getpid", "gettid", "sched_yield", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",       \
        "sigaltstack", "restart_syscall", "exit", "exit_group"

/* A filter is inherited: this one has the holder's calls too, and those by which it becomes it. */
static const char *const WATCHER[] = {HOLDER_CALLS,
                                      "clone",
                                      "clone3",
                                      "fork",
                                      "set_robust_list",
                                      "rseq",
                                      "wait4",
                                      "waitid",
                                      "pidfd_open",
                                      "kill",
                                      "getppid",
                                      "fcntl",
                                      "prctl",
                                      "seccomp",
                                      "setrlimit",
                                      "mlock",
                                      "mlock2",
                                      "mlockall",
                                      "munlock",
                                      "capset",
                                      "umask",
                                      "close_range",
                                      "landlock_create_ruleset",
                                      "landlock_add_rule",
                                      "landlock_restrict_self",
                                      NULL};

static const char *const HOLDER[] = {HOLDER_CALLS, NULL};

static const struct sandbox_filter WATCHER_FILTER = {.name = "key_holder_watcher",
                                                     .calls = WATCHER,
                                                     .some =
                                                         SANDBOX_DATA_MEMORY | SANDBOX_OWN_SIGNALS};
static const struct sandbox_filter HOLDER_FILTER = {.name = "key_holder",
                                                    .calls = HOLDER,
                                                    .some = SANDBOX_DATA_MEMORY |
                                                            SANDBOX_OWN_SIGNALS | SANDBOX_ASKING};

static int shut_files(struct sandbox_landlock *ret, struct err *err)
{
    struct sandbox_plan *plan = sandbox_plan_new();
    int r = sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, ret, err);
    sandbox_plan_free(plan);
    return r;
}

int holder_confine_watcher(struct err *err)
{
    struct sandbox_landlock took;
    sandbox_secure_bits();
    if (sandbox_drop_caps(0, err) == -1 || sandbox_limits(true, err) == -1 ||
        shut_files(&took, err) == -1) {
        return -1;
    }
    return sandbox_seccomp(&WATCHER_FILTER, sandbox_kill_all(), err);
}

/* Keys are on libcrypto's secure heap. What passes through other memory stays out of swap as well,
 * where the limit may be lifted. */
static bool lock_memory(struct key_heap_status *ret)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    key_heap_open(HOLDER_KEYS_MAX, ret);
    return setrlimit(RLIMIT_MEMLOCK, &all) == 0 &&
           mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
}

int holder_confine(struct holder *h, struct err *err)
{
    struct key_heap_status heap;
    h->all_locked = lock_memory(&heap);
    h->keys_locked = heap.locked || h->all_locked;
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) {
        return err_set(err, ERR_CRYPTO, "libcrypto cannot be used");
    }
    if (sandbox_limits(false, err) == -1 || shut_files(&h->landlock, err) == -1) {
        return -1;
    }
    return sandbox_seccomp(&HOLDER_FILTER, sandbox_kill_all(), err);
}
