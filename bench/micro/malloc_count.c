/*
 * malloc_count: how often a process allocates, counted from outside of it. Preloaded (LD_PRELOAD);
 * two counts of eight bytes, of all callers and of the program's own code without its libraries,
 * are in the file PID in the directory that POSTERN_COUNT_DIR names, which is opened and mapped
 * before main, so that no sandbox stands in the way. For bench/counts.
 */
#include "preloaded.h"

#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* glibc's own, under the names that nobody replaces. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

#define PUBLIC __attribute__((visibility("default")))

struct counts {
    _Atomic uint64_t all, own;
};

static _Atomic(struct counts *) counts;
static uintptr_t program_begin, program_end;

static void add(const void *caller)
{
    struct counts *to = atomic_load_explicit(&counts, memory_order_relaxed);
    uintptr_t at = (uintptr_t)caller;
    if (to == NULL) {
        return; /* before main */
    }
    atomic_fetch_add_explicit(&to->all, 1, memory_order_relaxed);
    if (at >= program_begin && at < program_end) {
        atomic_fetch_add_explicit(&to->own, 1, memory_order_relaxed);
    }
}
#define ADD() add(__builtin_return_address(0))

/* The first is the program itself. */
static int find_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type == PT_LOAD && (h->p_flags & PF_X) != 0) {
            program_begin = info->dlpi_addr + h->p_vaddr;
            program_end = program_begin + h->p_memsz;
        }
    }
    return 1;
}

static __attribute__((constructor)) void begin(void)
{
    void *p = preloaded_counters(sizeof(struct counts));
    if (p != NULL) {
        (void)dl_iterate_phdr(find_program, NULL);
        atomic_store(&counts, (struct counts *)p);
    }
}

PUBLIC void *malloc(size_t n)
{
    ADD();
    return __libc_malloc(n);
}

PUBLIC void *calloc(size_t n, size_t size)
{
    ADD();
    return __libc_calloc(n, size);
}

PUBLIC void *realloc(void *p, size_t n)
{
    ADD();
    return __libc_realloc(p, n);
}

PUBLIC void *aligned_alloc(size_t alignment, size_t n)
{
    ADD();
    return __libc_memalign(alignment, n);
}

PUBLIC int posix_memalign(void **ret, size_t alignment, size_t n)
{
    ADD();
    *ret = __libc_memalign(alignment, n);
    return *ret != NULL ? 0 : 12; /* ENOMEM */
}
