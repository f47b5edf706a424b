/* tally: things counted by a text that names them, in the order in which they came first. */
#ifndef POSTERN_POLICY_TALLY_H
#define POSTERN_POLICY_TALLY_H

#include <postern/str.h>

struct tally {
    struct tally_item {
        char *key; /* owned, terminated */
        size_t n;  /* its length: it may hold NUL */
        void *of;  /* the caller's */
    } *items;
    size_t n, cap;
    size_t *slots; /* item and 1; 0: free */
    size_t n_slots;
};

enum { TALLY_MAX = 1000000 };

/* Its place, made if it is new; SIZE_MAX: there are too many. */
size_t tally_take(struct tally *t, struct str key);
void tally_deinit(struct tally *t);

#endif
