/*
 * malloc_count: how often a process allocates, counted from outside of it. Preloaded (LD_PRELOAD);
 * the count is in the first eight bytes of the file PID in the directory that POSTERN_COUNT_DIR
 * names, which is opened and mapped before main, so that no sandbox stands in the way. For
 * bench/counts.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* glibc's own, under the names that nobody replaces. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

#define PUBLIC __attribute__((visibility("default")))

static _Atomic uint64_t before_main;
static _Atomic(_Atomic uint64_t *) count;

static void add(void)
{
    _Atomic uint64_t *to = atomic_load_explicit(&count, memory_order_relaxed);
    atomic_fetch_add_explicit(to != NULL ? to : &before_main, 1, memory_order_relaxed);
}

static __attribute__((constructor)) void begin(void)
{
    const char *dir = getenv("POSTERN_COUNT_DIR");
    char path[200];
    if (dir == NULL || snprintf(path, sizeof(path), "%s/%d", dir, getpid()) >= (int)sizeof(path)) {
        return;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, sizeof(uint64_t)) != 0) {
        return;
    }
    /* setpriv makes it as root, and is then another program of another user. */
    (void)fchmod(fd, 0666);
    void *p = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED) {
        atomic_store(&count, (_Atomic uint64_t *)p);
    }
}

PUBLIC void *malloc(size_t n)
{
    add();
    return __libc_malloc(n);
}

PUBLIC void *calloc(size_t n, size_t size)
{
    add();
    return __libc_calloc(n, size);
}

PUBLIC void *realloc(void *p, size_t n)
{
    add();
    return __libc_realloc(p, n);
}

PUBLIC void *aligned_alloc(size_t alignment, size_t n)
{
    add();
    return __libc_memalign(alignment, n);
}

PUBLIC int posix_memalign(void **ret, size_t alignment, size_t n)
{
    add();
    *ret = __libc_memalign(alignment, n);
    return *ret != NULL ? 0 : 12; /* ENOMEM */
}
