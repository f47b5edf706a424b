#include <postern/mem_pages.h>

#include <postern/err.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t whole_pages(size_t size)
{
    size_t page = page_size();
    return (size + page - 1) / page * page;
}

void *mem_must_pages(size_t size)
{
    void *p =
        mmap(NULL, whole_pages(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        err_panic(__FILE__, __LINE__, "memory", "%zu bytes", size);
    }
    return p;
}

void mem_pages_clear(void *p, size_t size)
{
    if (madvise(p, whole_pages(size), MADV_DONTNEED) == -1) {
        memset(p, 0, size); /* locked, say */
    }
}

void *mem_pages_free(void *p, size_t size)
{
    if (p != NULL) {
        munmap(p, whole_pages(size));
    }
    return NULL;
}

/* Never a part of its caller, whose frame would then begin where this takes it to end: what a frame
 * of many pages holds would be gone. Seen: at link time it was made one, and the process crashed.
 */
__attribute__((noinline)) void mem_stack_trim(void)
{
    /* Below that stack the kernel keeps far more than this free of other mappings. The page of this
     * frame stays, and the one below it for the call. */
    enum { BELOW = 512 * 1024 };
    size_t page = page_size();
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uintptr_t end = here / page * page - page;
    (void)madvise((void *)(end - BELOW), BELOW, MADV_DONTNEED);
}
