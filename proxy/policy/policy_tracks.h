/* policy_tracks: a search on its way through the lines, and the sets that it goes by. For
 * policy_search.c and policy_tracks.c. */
#ifndef POSTERN_POLICY_TRACKS_H
#define POSTERN_POLICY_TRACKS_H

#include "policy_priv.h"

enum track_mode {
    MODE_SETS,  /* as the keys say */
    MODE_NONE,  /* only atoms that ask for nothing (exclude nothing) there */
    MODE_EVERY, /* nothing is said by it */
};

/* The sets of a fact's keys. */
struct track {
    uint8_t mode;
    bool grouped;
    uint32_t first, n; /* in ask.ops */
    uint32_t parts;    /* bits of those in which it may have something; of what excludes: that it
                        * excludes as a whole */
};

/* Facts stay open from part to part: lines only grow. */
struct search {
    struct ask *ask;
    bool grants;
    bool inexact;                  /* some set was left out: what is found has to be looked at */
    uint32_t end_of_all;           /* no line from here on is looked at */
    uint32_t first_line, end_line; /* of the part */
    uint32_t rows, rows_full, negs;
    uint32_t rows_ready, negs_ready; /* bits: the track is */
    struct track row_tracks[ROW_COUNT], neg_tracks[DIM_COUNT];
};

/* Turns a fact into sets. */
void policy_track_open_row(struct search *s, unsigned row);
void policy_track_open_neg(struct search *s, enum dim dim);
/* To the first line from `line` on in which the set has something. */
void policy_op_seek(const struct policy *p, struct op *op, uint32_t line);
/* The united sets of a track in this line, added to l. */
void policy_track_unite(struct search *s, const struct track *t, uint32_t line, struct line *l);

static inline struct track *search_row(struct search *s, unsigned row)
{
    if ((s->rows_ready >> row & 1U) == 0) {
        policy_track_open_row(s, row);
    }
    return &s->row_tracks[row];
}

static inline struct track *search_neg(struct search *s, enum dim dim)
{
    if ((s->negs_ready >> dim & 1U) == 0) {
        policy_track_open_neg(s, dim);
    }
    return &s->neg_tracks[dim];
}

#endif
