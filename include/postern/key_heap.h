/*
 * key_heap: where libcrypto keeps private keys: long-lived ones, and the ephemeral one of each
 * connection, which it holds as long as the connection lives. Locked into memory as it is touched,
 * between guard pages, left out of core dumps, wiped when freed.
 *
 * Once a process, before its first key and before its sandbox (mlock2); the heap belongs to
 * libcrypto and is never given back. Thread: before others are started; asking: any.
 */
#ifndef POSTERN_KEY_HEAP_H
#define POSTERN_KEY_HEAP_H

#include <stdbool.h>
#include <stddef.h>

struct key_heap_status {
    size_t bytes; /* 0: there is none, keys are on the common heap */
    size_t legs;  /* TLS connections that it has room for */
    bool locked;
};

/* For so many TLS connections at once. Libcrypto fails where it is full, rather than take other
 * memory, so be generous. Whatever takes effect is in the status: no failure is told. */
void key_heap_open(size_t n_legs, struct key_heap_status *ret);
/* As many bytes as are in use now. */
size_t key_heap_used(void);

#endif
