/*
 * mem: allocation, wiping and memory for secrets.
 *
 * Two families, chosen by who can make us allocate:
 *  - mem_must_*: set-up and control plane. Running out there is no state we can go on from, so
 *    they panic and never return NULL.
 *  - plain calloc/malloc/realloc: whatever a peer's connection makes us hold. The caller handles
 * NULL.
 *
 * Secrets (private keys, tokens) live in mem_secret: locked into memory, left out of core dumps
 * and wiped when freed. Nothing prints them.
 * Thread: any.
 */
#ifndef POSTERN_MEM_H
#define POSTERN_MEM_H

#include <stddef.h>
#include <stdint.h>

void *mem_must_calloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *mem_must_realloc(void *p, size_t size) __attribute__((returns_nonnull));
char *mem_must_strdup(const char *s) __attribute__((malloc, returns_nonnull));
char *mem_must_strndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *mem_must_printf(const char *fmt, ...)
    __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));
#define mem_must_new(type) ((type *)mem_must_calloc(1, sizeof(type)))

/* Overwrites n bytes in a way that the compiler keeps. */
void mem_wipe(void *p, size_t n);
/* Compares n bytes in a time that does not depend on where they differ; 0 means equal. */
int mem_compare_secret(const void *a, const void *b, size_t n);

enum mem_secret_kind {
    MEM_SECRET_MEMFD,  /* memfd_secret: not mapped in the kernel's own address space */
    MEM_SECRET_LOCKED, /* mlock'd anonymous pages, left out of dumps */
    MEM_SECRET_PLAIN,  /* neither was to be had: RLIMIT_MEMLOCK is used up; `status` says so */
};

/* A page-rounded, zeroed region; NULL when there is no memory at all. Free wipes; takes NULL. */
void *mem_secret_alloc(size_t size);
void *mem_secret_free(void *p);
/* How the most recent region of this process was protected (for `postern status`). */
enum mem_secret_kind mem_secret_kind_of(const void *p);

/* Cleanup attributes: on every early return the thing is released; set the local to NULL (or -1)
 * after handing it on. Modules define their own with MEM_DEFINE_CLEANUP. */
#define MEM_DEFINE_CLEANUP(type, fn)                                                               \
    static inline void fn##_cleanup(type **p)                                                      \
    {                                                                                              \
        if (*p != NULL) {                                                                          \
            fn(*p);                                                                                \
        }                                                                                          \
    }
#define mem_auto(fn) __attribute__((cleanup(fn##_cleanup)))
void mem_free_cleanup(void *pp); /* for: __attribute__((cleanup(mem_free_cleanup))) char *s */
#define mem_autofree __attribute__((cleanup(mem_free_cleanup)))

#endif
