/*
 * rotate: sets of certificate files on disk, each changed as a whole. docs/rotation.md says what
 * may go wrong and what holds then.
 *
 * A set lives in a directory of its own. In it, "..gen-SEQ-MS" is one generation, plain files that
 * are complete and on disk before anything leads there; "..data" is a link to the present
 * generation, and moving it is the change; NAME is a link to ..data/NAME, which stays as it is.
 *
 * Thread: one loop's. Functions that touch the disk block: the daemon has nothing else to do.
 */
#ifndef POSTERN_ROTATE_H
#define POSTERN_ROTATE_H

#include <postern/buf.h>
#include <postern/conf_rotate.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stdint.h>

/* --- after a change --------------------------------------------------------------------------- */
/* What has changed, for those who are told about it. Lent for the call. */
struct rotate_change {
    const struct conf_rotate_output *output;
    uint64_t generation;     /* of the directory: grows with each change, over restarts too */
    bool has_leaf;           /* an output of tokens and bundles alone has none */
    uint8_t leaf_sha256[32]; /* of the leaf's DER: what a server has to show from now on */
    int64_t not_after_s;     /* the earliest end of what is in the set; 0: nothing in it ends */
};

#endif
