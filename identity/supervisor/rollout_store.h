/* The files of pushed policies, in STATE_DIR/policies. Descriptors and errors as everywhere. */
#ifndef POSTERN_SUPERVISOR_ROLLOUT_STORE_H
#define POSTERN_SUPERVISOR_ROLLOUT_STORE_H

#include <postern/rollout.h>

struct rollout_store {
    int dir_fd; /* -1: there is none yet */
    char *path; /* owned: of the directory */
};

/* Reads the index, if there is one, and removes what it does not name. */
int rollout_store_open(struct rollout_store *s, const char *state_dir, struct rollout *ret,
                       struct err *err);
void rollout_store_close(struct rollout_store *s);
/* Writes the index whole, and waits for the disk. */
int rollout_store_save(struct rollout_store *s, const struct rollout *r, struct err *err);
/* The file of a generation; the text is the caller's. */
char *rollout_store_name(const struct rollout_store *s, uint64_t generation);
/* Copies a regular file, from its beginning, to the generation's place, and waits for the disk. */
int rollout_store_copy(struct rollout_store *s, int file, uint64_t generation,
                       char ret_sha256[ROLLOUT_SHA256_TEXT], struct err *err);
/* Whether what is kept is what was pushed. */
int rollout_store_check(struct rollout_store *s, const struct rollout_item *item, struct err *err);
void rollout_store_remove(struct rollout_store *s, uint64_t generation);

#endif
