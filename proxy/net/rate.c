/* A token bucket in one number. */
#include <postern/rate.h>

enum { SECOND_US = 1000000 };

bool rate_take(struct rate *r, uint64_t now_us, uint32_t per_second, uint32_t burst)
{
    uint64_t one = SECOND_US / per_second > 0 ? SECOND_US / per_second : 1;
    uint64_t room = one * burst;
    uint64_t full_at = atomic_load_explicit(&r->full_at_us, memory_order_relaxed);
    uint64_t next;
    do {
        uint64_t from = full_at > now_us ? full_at : now_us;
        if (from - now_us + one > room) {
            return false;
        }
        next = from + one;
    } while (!atomic_compare_exchange_weak_explicit(&r->full_at_us, &full_at, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}
