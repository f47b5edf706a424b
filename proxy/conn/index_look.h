/* What tests ask of an index (index_priv.h), and nobody else. */
#ifndef POSTERN_CONN_INDEX_LOOK_H
#define POSTERN_CONN_INDEX_LOOK_H

#include "index_priv.h"

size_t live_count(const struct live_index *x);
/* Bytes that it holds. */
size_t live_memory(const struct live_index *x);
enum live_rank live_rank_of(const struct live_index *x, uint32_t slot);
size_t live_queued(const struct live_index *x, enum live_rank rank);

#endif
