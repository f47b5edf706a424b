/*
 * rate: how often something may happen, shared by threads without a lock. A token bucket, kept as
 * one number: the time at which it will be full again (the generic cell rate algorithm).
 *
 * Thread: rate_take any, on one struct at once; the struct is zeroed at the start. A change of the
 * limits takes effect with the next call.
 */
#ifndef POSTERN_RATE_H
#define POSTERN_RATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct rate {
    _Atomic uint64_t full_at_us;
};

/* Takes one of `burst` tokens, of which `per_second` come back; false: there is none. `now_us` does
 * not go backwards by more than threads differ. per_second and burst are at least 1. */
bool rate_take(struct rate *r, uint64_t now_us, uint32_t per_second, uint32_t burst);

#endif
