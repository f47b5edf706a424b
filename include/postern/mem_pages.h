/*
 * mem_pages: memory that is given back where it is not used, by whole pages.
 *
 * Thread: any; the stack is the main thread's. Failure: there is no memory at all, which panics.
 */
#ifndef POSTERN_MEM_PAGES_H
#define POSTERN_MEM_PAGES_H

#include <stddef.h>

/* Zeroed pages for one large thing that is seldom used: each costs memory from its first use on.
 * Clearing gives that memory back: all is zero again. Freeing takes NULL, and returns it. */
void *mem_must_pages(size_t size) __attribute__((malloc, returns_nonnull));
void mem_pages_clear(void *p, size_t size);
void *mem_pages_free(void *p, size_t size);
/* Gives back what deep calls have left below the caller on the main thread's stack. */
void mem_stack_trim(void);

#endif
