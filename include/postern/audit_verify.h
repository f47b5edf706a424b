/*
 * audit_verify: whether lines are those that an audit log wrote, in their order and none missing.
 * docs/audit.md says what that proves. Pure: lines are fed in. Thread: any.
 */
#ifndef POSTERN_AUDIT_VERIFY_H
#define POSTERN_AUDIT_VERIFY_H

#include <postern/audit.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stdint.h>

struct audit_verify {
    bool any;          /* a line was good */
    bool chained;      /* the last one named the one before */
    bool fork;         /* the last line was of a file that another process took over */
    bool torn_waiting; /* bytes that no line has owned up to yet, */
    uint64_t torn_bytes;
    uint8_t torn_hash[AUDIT_HASH_SIZE];
    uint64_t lines, decisions, denied, lost, begins, torn;
    uint64_t first_seq, seq; /* of the first line, and of the last */
    uint8_t head[AUDIT_HASH_SIZE];
    /* A head that must be there; head_seq 0: none. */
    uint64_t want_seq;
    uint8_t want[AUDIT_HASH_SIZE];
    bool found;
    /* The lines of the file before, for one that a take-over began. */
    uint8_t (*hashes)[AUDIT_HASH_SIZE]; /* owned */
    size_t n_hashes, room;
    uint64_t hashes_from; /* seq of the first */
    bool fresh;           /* no line of this file was seen */
};

#define AUDIT_VERIFY_INIT {.fresh = true}

/* The next file begins. */
void audit_verify_file(struct audit_verify *v);
/* A line without its newline; `ended`: it has one. NULL: it fits; else what is wrong, a constant.
 */
const char *audit_verify_line(struct audit_verify *v, struct str line, bool ended);
/* After the last file. NULL: good. */
const char *audit_verify_end(const struct audit_verify *v);
void audit_verify_deinit(struct audit_verify *v);

#endif
