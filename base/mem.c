#include <postern/mem.h>

#include <postern/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

void *mem_must_calloc(size_t count, size_t size)
{
    void *p = calloc(count, size != 0 ? size : 1);
    if (p == NULL) {
        err_panic(__FILE__, __LINE__, "memory", "%zu times %zu bytes", count, size);
    }
    return p;
}

void *mem_must_realloc(void *p, size_t size)
{
    void *q = realloc(p, size != 0 ? size : 1);
    if (q == NULL) {
        err_panic(__FILE__, __LINE__, "memory", "%zu bytes", size);
    }
    return q;
}

char *mem_must_strndup(const char *s, size_t n)
{
    char *p = mem_must_calloc(n + 1, 1);
    if (n > 0) {
        memcpy(p, s, n);
    }
    return p;
}

char *mem_must_strdup(const char *s)
{
    return mem_must_strndup(s, strlen(s));
}

char *mem_must_printf(const char *fmt, ...)
{
    char *p = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&p, fmt, ap);
    va_end(ap);
    if (n < 0 || p == NULL) {
        err_panic(__FILE__, __LINE__, "memory", "for text");
    }
    return p;
}

void mem_wipe(void *p, size_t n)
{
    if (n > 0) {
        explicit_bzero(p, n);
    }
}

int mem_compare_secret(const void *a, const void *b, size_t n)
{
    const volatile uint8_t *x = a;
    const volatile uint8_t *y = b;
    uint8_t diff = 0;
    for (size_t i = 0; i < n; i++) {
        diff = (uint8_t)(diff | (x[i] ^ y[i]));
    }
    return diff;
}

/* A region is one page of bookkeeping in front of the caller's pages. */
struct secret_head {
    size_t total;
    enum mem_secret_kind kind;
};

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void *map_memfd(size_t total)
{
    int fd = (int)syscall(SYS_memfd_secret, 0);
    if (fd == -1) {
        return MAP_FAILED;
    }
    void *p = MAP_FAILED;
    if (ftruncate(fd, (off_t)total) == 0) {
        p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    return p;
}

void *mem_secret_alloc(size_t size)
{
    size_t page = page_size();
    if (size > SIZE_MAX - 3 * page) {
        return NULL;
    }
    size_t total = page + (size + page - 1) / page * page;
    enum mem_secret_kind kind = MEM_SECRET_MEMFD;
    void *p = map_memfd(total);
    if (p == MAP_FAILED) {
        p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            return NULL;
        }
        kind = mlock(p, total) == 0 ? MEM_SECRET_LOCKED : MEM_SECRET_PLAIN;
        madvise(p, total, MADV_DONTDUMP);
        madvise(p, total, MADV_WIPEONFORK);
    }
    struct secret_head *head = p;
    head->total = total;
    head->kind = kind;
    return (uint8_t *)p + page;
}

void *mem_secret_free(void *p)
{
    if (p != NULL) {
        uint8_t *base = (uint8_t *)p - page_size();
        size_t total = ((struct secret_head *)(void *)base)->total;
        mem_wipe(base, total);
        munmap(base, total);
    }
    return NULL;
}

enum mem_secret_kind mem_secret_kind_of(const void *p)
{
    const uint8_t *base = (const uint8_t *)p - page_size();
    return ((const struct secret_head *)(const void *)base)->kind;
}

void mem_free_cleanup(void *pp)
{
    void *p;
    memcpy(&p, pp, sizeof(p));
    free(p);
}
