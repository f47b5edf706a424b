/*
 * System calls that the filter refuses: the kernel sends SIGSYS instead of making the call, the
 * handler counts it by number and lets the call fail with EPERM. Only what is safe in a signal
 * handler happens here: atomic counters, and one write to an eventfd.
 */
#include "sandbox_priv.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

/* The process's own, like the filter; see the header. */
static struct {
    _Atomic uint64_t counts[SANDBOX_CALLS_MAX];
    _Atomic uint64_t total;
    _Atomic int wake_fd_and_1; /* 0: none */
} refused;

static bool set_result(ucontext_t *context, long result)
{
#if defined(__x86_64__)
    context->uc_mcontext.gregs[REG_RAX] = result;
    return true;
#elif defined(__aarch64__)
    context->uc_mcontext.regs[0] = (unsigned long long)result;
    return true;
#else
    (void)context;
    (void)result;
    return false;
#endif
}

static void on_sigsys(int signo, siginfo_t *info, void *context)
{
    int saved = errno;
    const uint64_t one = 1;
    int number = info->si_syscall;
    int fd = atomic_load_explicit(&refused.wake_fd_and_1, memory_order_relaxed) - 1;

    (void)signo;
    if (info->si_code != SYS_SECCOMP || !set_result((ucontext_t *)context, -EPERM)) {
        _exit(128 + SIGSYS); /* somebody sent it, or there is no way back */
    }
    number = number < 0 || number >= SANDBOX_CALLS_MAX ? SANDBOX_CALLS_MAX - 1 : number;
    atomic_fetch_add_explicit(&refused.counts[number], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&refused.total, 1, memory_order_relaxed);
    if (fd >= 0) {
        ssize_t ignored = write(fd, &one, sizeof(one)); /* full: it is readable already */
        (void)ignored;
    }
    errno = saved;
}

int sandbox_refused_catch(struct err *err)
{
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigset_t set;

    sigfillset(&action.sa_mask); /* the one call in the handler has to be in the list */
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    errno = pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    if (errno != 0 || sigaction(SIGSYS, &action, NULL) != 0) {
        return err_sys(err, "cannot catch refused system calls");
    }
    return 0;
}

void sandbox_refused_wake(int fd)
{
    atomic_store_explicit(&refused.wake_fd_and_1, fd + 1, memory_order_relaxed);
}

uint64_t sandbox_refused_total(void)
{
    return atomic_load_explicit(&refused.total, memory_order_relaxed);
}

int sandbox_refused_next(int from, uint64_t *ret_count)
{
    for (int i = from < 0 ? 0 : from; i < SANDBOX_CALLS_MAX; i++) {
        uint64_t n = atomic_load_explicit(&refused.counts[i], memory_order_relaxed);

        if (n > 0) {
            *ret_count = n;
            return i;
        }
    }
    return -1;
}

void sandbox_call_name(int number, char *out, size_t size)
{
    char *name = number == SANDBOX_CALLS_MAX - 1
                     ? NULL
                     : seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);

    if (name != NULL) {
        (void)snprintf(out, size, "%s", name);
    } else {
        (void)snprintf(out, size, "#%d", number);
    }
    free(name);
}
