/*
 * mem_grow: arrays that grow at their end, one element at a time, in set-up and control plane:
 * running out of memory panics (mem.h). What a peer makes us hold is charged and bounded instead.
 * Thread: the array's.
 */
#ifndef POSTERN_MEM_GROW_H
#define POSTERN_MEM_GROW_H

#include <postern/mem.h>

/* Makes room for one more of n in `items`, of which `cap` is how many there is room for: `first` at
 * first (more than 0), then twice as many each time. Names and members only: they are read twice.
 */
#define MEM_GROW(items, n, cap, first)                                                             \
    do {                                                                                           \
        if ((n) == (cap)) {                                                                        \
            (cap) = (cap) > 0 ? (cap) * 2 : (first);                                               \
            (items) = mem_must_realloc((void *)(items), (cap) * sizeof(*(items)));                 \
        }                                                                                          \
    } while (0)

#endif
