/* Counting by key. A place is one number, the key's tag above how many are open, so that both
 * change at once: whoever takes a free place for another key loses to whoever counts one more in
 * it. */
#include <postern/limit.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/rate.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { WAYS = 8, COUNT_BITS = 24, RETRIES = 8 };
#define COUNT_MASK ((UINT64_C(1) << COUNT_BITS) - 1)

struct place {
    _Atomic uint64_t word; /* tag, count; 0: never used */
    struct rate rate;
};

struct limit_table {
    size_t n;
    uint64_t secret[2];
    struct place *places;
};

struct limit_table *limit_table_new(size_t places)
{
    POSTERN_ASSERT(places >= WAYS && (places & (places - 1)) == 0);
    struct limit_table *t = mem_must_new(struct limit_table);
    os_random(t->secret, sizeof(t->secret));
    t->n = places;
    t->places = (struct place *)mem_must_calloc(places, sizeof(*t->places));
    return t;
}

struct limit_table *limit_table_free(struct limit_table *t)
{
    if (t != NULL) {
        free(t->places);
        free(t);
    }
    return NULL;
}

/* --- SipHash-2-4 ------------------------------------------------------------------------------ */

static uint64_t rotl(uint64_t v, unsigned by)
{
    return (v << by) | (v >> (64 - by));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

/* The space is one word ahead of the key. */
static uint64_t hash(const uint64_t secret[2], uint32_t space, struct str key)
{
    uint64_t v[4] = {
        secret[0] ^ UINT64_C(0x736f6d6570736575), secret[1] ^ UINT64_C(0x646f72616e646f6d),
        secret[0] ^ UINT64_C(0x6c7967656e657261), secret[1] ^ UINT64_C(0x7465646279746573)};
    uint64_t word = 0;
    sip_word(v, space);
    for (size_t i = 0; i < key.n; i++) {
        word |= (uint64_t)(uint8_t)key.p[i] << (8 * (i % 8));
        if (i % 8 == 7) {
            sip_word(v, word);
            word = 0;
        }
    }
    sip_word(v, word | (uint64_t)(key.n + 8) << 56);
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 4; i++) {
        sip_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* --- places ----------------------------------------------------------------------------------- */

/* What one call is about. */
struct asked {
    struct place *first; /* of its eight */
    uint64_t tag;        /* in its bits, not 0 */
    uint32_t max_open, per_second, burst;
    uint64_t now_us;
};

static bool recovered(const struct place *p, uint64_t now_us)
{
    return atomic_load(&((struct place *)(uintptr_t)p)->rate.full_at_us) <= now_us;
}

/* One more in a place that is the key's. LIMIT_NO_ROOM: it is not, any more. */
static enum limit_outcome count_in(const struct asked *a, struct place *p)
{
    uint64_t word = atomic_load(&p->word);
    do {
        if ((word & ~COUNT_MASK) != a->tag) {
            return LIMIT_NO_ROOM;
        }
        uint64_t open = word & COUNT_MASK;
        if (open == COUNT_MASK || (a->max_open > 0 && open >= a->max_open)) {
            return LIMIT_OPEN;
        }
    } while (!atomic_compare_exchange_weak(&p->word, &word, word + 1));
    if (a->per_second > 0 && !rate_take(&p->rate, a->now_us, a->per_second, a->burst)) {
        atomic_fetch_sub(&p->word, 1);
        return LIMIT_RATE;
    }
    return LIMIT_OK;
}

/* How many of the eight places say the key; the first of them. */
static unsigned find(const struct asked *a, struct place **ret)
{
    unsigned n = 0;
    for (unsigned i = 0; i < WAYS; i++) {
        if ((atomic_load(&a->first[i].word) & ~COUNT_MASK) == a->tag) {
            if (n++ == 0) {
                *ret = &a->first[i];
            }
        }
    }
    return n;
}

/* Makes a free place the key's, with nothing open. False: there is none. */
static bool settle(const struct asked *a, struct place **ret)
{
    for (unsigned i = 0; i < WAYS; i++) {
        struct place *p = &a->first[i];
        uint64_t word = atomic_load(&p->word);
        if ((word & COUNT_MASK) == 0 && recovered(p, a->now_us) &&
            atomic_compare_exchange_strong(&p->word, &word, a->tag)) {
            *ret = p;
            return true;
        }
    }
    return false;
}

static enum limit_outcome take(struct limit_table *t, uint64_t h, struct asked a,
                               uint32_t *ret_place)
{
    a.first = &t->places[(h & (t->n / WAYS - 1)) * WAYS];
    a.tag = h & ~COUNT_MASK;
    a.tag = a.tag != 0 ? a.tag : COUNT_MASK + 1;
    for (unsigned i = 0; i < RETRIES; i++) {
        struct place *p = NULL;
        struct place *made = NULL;
        if (find(&a, &p) == 0 && !settle(&a, &made)) {
            return LIMIT_NO_ROOM;
        }
        if (made != NULL && find(&a, &p) > 1) {
            /* Another thread settled the same key: both go, if nobody counts there yet. */
            uint64_t empty = a.tag;
            (void)atomic_compare_exchange_strong(&made->word, &empty, 0);
            continue;
        }
        p = made != NULL ? made : p;
        enum limit_outcome o = count_in(&a, p);
        if (o == LIMIT_OK) {
            *ret_place = (uint32_t)(p - t->places) + 1;
        }
        if (o != LIMIT_NO_ROOM) {
            return o;
        }
    }
    return LIMIT_NO_ROOM;
}

enum limit_outcome limit_take(struct limit_table *t, uint32_t space, struct str key,
                              uint32_t max_open, uint32_t per_second, uint64_t now_us,
                              uint32_t *ret_place)
{
    return take(t, hash(t->secret, space, key),
                (struct asked){.max_open = max_open,
                               .per_second = per_second,
                               .burst = 2 * per_second,
                               .now_us = now_us},
                ret_place);
}

enum limit_outcome limit_rate(struct limit_table *t, uint32_t space, struct str key,
                              uint32_t per_second, uint32_t burst, uint64_t now_us)
{
    uint32_t place = 0;
    enum limit_outcome o =
        take(t, hash(t->secret, space, key),
             (struct asked){.per_second = per_second, .burst = burst, .now_us = now_us}, &place);
    if (o == LIMIT_OK) {
        limit_give(t, place);
    }
    return o;
}

void limit_give(struct limit_table *t, uint32_t place)
{
    POSTERN_ASSERT(place > 0 && place <= t->n);
    POSTERN_ASSERT((atomic_fetch_sub(&t->places[place - 1].word, 1) & COUNT_MASK) > 0);
}
