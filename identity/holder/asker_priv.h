/* What the files of the asker's side share; a test stands in for the other side. */
#ifndef POSTERN_HOLDER_ASKER_PRIV_H
#define POSTERN_HOLDER_ASKER_PRIV_H

#include "holder_wire.h"

#include <postern/key_holder.h>
#include <stdatomic.h>

/* A channel: whoever has set `taken` has it to himself. */
struct holder_channel {
    atomic_bool taken;
    int fd; /* owned; -1: the other side closed it */
    uint64_t last_id;
};

struct holder_asker {
    struct holder_channel *channels; /* owned */
    size_t n_channels;
    int wake_fd; /* owned: an eventfd, of timeouts */
    _Atomic uint64_t refused_until_ms;
    _Atomic uint64_t signatures, refused, timeouts;
};

/* Takes fds. */
struct holder_asker *holder_asker_new(const int *fds, size_t n, struct err *err);
struct holder_asker *holder_asker_free(struct holder_asker *a);
/* Sends q, with an id of its own, and waits for the answer of ret_size bytes. */
int holder_asker_ask(struct holder_asker *a, uint32_t deadline_ms, struct holder_question *q,
                     void *ret, size_t ret_size, struct err *err);
/* An EVP_PKEY of what was made. */
EVP_PKEY *holder_asker_key(struct holder_asker *a, struct away_keys *keys,
                           const struct holder_made *made, struct err *err);

/* key_holder_start without its start. Takes descriptor and asker, also on failure. */
struct key_holder *key_holder_new(struct loop *loop, int control_fd, struct holder_asker *asker,
                                  const struct key_holder_events *events, void *arg,
                                  struct err *err);

#endif
