/* keeper_index: how entries are found by a caller's facts. What match.c and entries.c share. */
#ifndef POSTERN_KEEPER_INDEX_H
#define POSTERN_KEEPER_INDEX_H

#include <postern/keeper.h>

enum { KEEPER_SEEN_SIZE = 2 * AGENT_IDENTITIES_MAX }; /* a power of two */

struct keeper_index {
    uint64_t mask;   /* of the table's size, a power of two */
    uint32_t *first; /* by hash: a place + 1, or 0 */
    uint32_t *next;  /* by place: likewise */
    uint64_t *hash;  /* by place: of the selector that it is filed under */
    uint32_t *found; /* room for one search */
    uint64_t *stamp; /* by place: the last search that found it */
    uint64_t n_searches;
    uint32_t *by_id; /* places, sorted by the entries' ids */
    /* Identities of the search that is going on: a place + 1 by hash, of the search of the stamp.
     */
    uint32_t seen[KEEPER_SEEN_SIZE];
    uint64_t seen_stamp[KEEPER_SEEN_SIZE];
    /* What the last search found: a caller's identities are asked for one at a time. */
    uint64_t last_state; /* of the facts; 0: nothing is remembered */
    size_t n_last;
    uint32_t last[AGENT_IDENTITIES_MAX];
};

struct keeper_index *keeper_index_new(struct keeper_entry *items, size_t n);
struct keeper_index *keeper_index_free(struct keeper_index *ix);

#endif
