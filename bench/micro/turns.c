/*
 * turns: how long the turns of a process's event loops are, but for its first thread's, in CPU time
 * of their own threads, so that whatever else a machine does does not count. Preloaded
 * (LD_PRELOAD); the figures are in the file PID in the directory that POSTERN_COUNT_DIR names,
 * opened and mapped before main, so that no sandbox stands in the way: the longest turn since
 * somebody wrote a 0 there, how many were longer than a millisecond, and how many there were. For
 * tests/handles/revoke.
 */
#include "preloaded.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

struct turns {
    _Atomic uint64_t longest_ns, over_ms, n;
};

static _Atomic(struct turns *) turns;
static int (*next_wait)(int, struct epoll_event *, int, int);
static _Thread_local uint64_t began_ns;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static __attribute__((constructor)) void begin(void)
{
    *(void **)&next_wait = dlsym(RTLD_NEXT, "epoll_wait");
    atomic_store(&turns, (struct turns *)preloaded_counters(sizeof(struct turns)));
}

static void turn_ends(void)
{
    struct turns *to = atomic_load_explicit(&turns, memory_order_relaxed);
    if (to == NULL || began_ns == 0 || gettid() == getpid()) {
        return;
    }
    uint64_t took_ns = now_ns() - began_ns;
    uint64_t longest_ns = atomic_load_explicit(&to->longest_ns, memory_order_relaxed);
    while (took_ns > longest_ns &&
           !atomic_compare_exchange_weak(&to->longest_ns, &longest_ns, took_ns)) {
    }
    atomic_fetch_add_explicit(&to->n, 1, memory_order_relaxed);
    if (took_ns > 1000000) {
        atomic_fetch_add_explicit(&to->over_ms, 1, memory_order_relaxed);
    }
}

PUBLIC int epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    turn_ends();
    int n = next_wait(fd, events, max, timeout_ms);
    began_ns = now_ns();
    return n;
}
