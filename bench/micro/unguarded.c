/*
 * unguarded: a process without its sandbox, for bench/instructions. valgrind works from inside of
 * the process and makes system calls that no list of ours has, and does not know some that we make:
 * these say that the kernel has them not, which costs what hangs on them and nothing else.
 * Preloaded (LD_PRELOAD), and never in anything that is installed.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

enum { LANDLOCK_FIRST = 444, LANDLOCK_LAST = 446 };

/* libseccomp's. */
PUBLIC int seccomp_load(const void *ctx);
PUBLIC int seccomp_rule_add(void *ctx, uint32_t action, int call, unsigned n, ...);
PUBLIC int seccomp_rule_add_array(void *ctx, uint32_t action, int call, unsigned n, const void *p);

int seccomp_load(const void *ctx)
{
    (void)ctx;
    return 0;
}

int seccomp_rule_add(void *ctx, uint32_t action, int call, unsigned n, ...)
{
    (void)ctx;
    (void)action;
    (void)call;
    (void)n;
    return 0;
}

int seccomp_rule_add_array(void *ctx, uint32_t action, int call, unsigned n, const void *p)
{
    (void)ctx;
    (void)action;
    (void)call;
    (void)n;
    (void)p;
    return 0;
}

static long raw(long number, const long a[6])
{
    long ret = 0;
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if (ret < 0 && ret > -4096) {
        errno = (int)-ret;
        ret = -1;
    }
    return ret;
}

PUBLIC long syscall(long number, ...)
{
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    if (number == SYS_mlock2 || (number >= LANDLOCK_FIRST && number <= LANDLOCK_LAST)) {
        errno = ENOSYS;
        return -1;
    }
    /* A process that never ends, as its descriptor tells. */
    return number == SYS_pidfd_open ? eventfd(0, EFD_CLOEXEC) : raw(number, a);
}
