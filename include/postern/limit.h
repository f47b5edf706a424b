/*
 * limit: how many things of one key are open at once, and how often one may come; counted by
 * threads together without a lock, in a table that does not grow.
 *
 * A key may stand in eight places of the table, which a secret chooses, so that nobody can choose
 * keys that meet. A place is free again when nothing of its key is open and its rate has recovered.
 * Where all eight are others' the answer is no. Two keys are taken for one with a chance of 2^-40.
 *
 * Thread: limit_table_new and _free the owner; the rest any.
 */
#ifndef POSTERN_LIMIT_H
#define POSTERN_LIMIT_H

#include <postern/str.h>
#include <stddef.h>
#include <stdint.h>

enum limit_outcome {
    LIMIT_OK,
    LIMIT_OPEN,    /* as many are open as may be */
    LIMIT_RATE,    /* too soon */
    LIMIT_NO_ROOM, /* no place for one more key */
};

struct limit_table;
/* places: a power of two, at least 8. */
struct limit_table *limit_table_new(size_t places);
struct limit_table *limit_table_free(struct limit_table *t);
/* max_open, per_second: 0: any number. The burst is twice per_second. LIMIT_OK: *ret_place (not 0)
 * has to be given back. `space` keeps equal keys apart. */
enum limit_outcome limit_take(struct limit_table *t, uint32_t space, struct str key,
                              uint32_t max_open, uint32_t per_second, uint64_t now_us,
                              uint32_t *ret_place);
/* One of `burst` things at a time that come `per_second`, nothing of which stays open. Not of keys
 * that limit_take is called with. */
enum limit_outcome limit_rate(struct limit_table *t, uint32_t space, struct str key,
                              uint32_t per_second, uint32_t burst, uint64_t now_us);
void limit_give(struct limit_table *t, uint32_t place);

#endif
