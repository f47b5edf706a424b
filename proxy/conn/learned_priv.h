/*
 * learned: what tries have shown of destinations, for `transport: auto`: who takes HBONE, and who
 * does not. A table of a fixed size, one a worker; the oldest knowledge gives way to new. No I/O
 * and no clock. What is in it decides about cost alone: either way is mTLS, and demands the same
 * identities (docs/transport.md).
 */
#ifndef POSTERN_LEARNED_PRIV_H
#define POSTERN_LEARNED_PRIV_H

#include <postern/net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LEARNED_SETS = 256, /* of LEARNED_WAYS places each */
    LEARNED_WAYS = 4,
    LEARNED_HBONE_MS = 10 * 60 * 1000, /* since it last took HBONE */
    LEARNED_DIRECT_MS = 30 * 1000,     /* after the first failure; doubled by each in a row */
    LEARNED_DOUBLED_MAX = 5,           /* so often: 16 minutes */
};

/* How a try to speak HBONE with a destination ended. */
enum learned_try {
    LEARNED_TOOK,      /* it speaks it */
    LEARNED_REFUSED,   /* nobody is there, or cannot be reached */
    LEARNED_SILENT,    /* no answer in time */
    LEARNED_NOT_HBONE, /* whoever is there does not speak it */
};

enum learned_way { LEARNED_NOTHING, LEARNED_HBONE, LEARNED_DIRECT };

struct learned;
/* NULL: no memory. */
struct learned *learned_new(void);
struct learned *learned_free(struct learned *t);
/* `at`: address and HBONE port. */
enum learned_way learned_ask(const struct learned *t, const struct net_addr *at, uint64_t now_ms);
/* Returns for how long that will count; *ret_changed: whether something else, or nothing, was known
 * until now. */
uint64_t learned_tell(struct learned *t, const struct net_addr *at, enum learned_try how,
                      uint64_t now_ms, bool *ret_changed);
/* How many destinations are known to be so; what is out of date counts until it is replaced. */
size_t learned_count(const struct learned *t, enum learned_way way);

#endif
