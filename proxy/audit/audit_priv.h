/*
 * What the files of audit share: a ring of records (ring.c), the lines that records become
 * (line.c), where lines go (sink.c; sink_file.c), the thread (audit.c).
 */
#ifndef POSTERN_AUDIT_PRIV_H
#define POSTERN_AUDIT_PRIV_H

#include <postern/audit.h>

#include <openssl/evp.h>
#include <postern/buf.h>
#include <stdatomic.h>
#include <sys/types.h>

/* --- ring.c -----------------------------------------------------------------------------------
 */
/* The writer sleeps, and how it is woken. */
struct audit_wake {
    _Atomic bool idle;
    int fd; /* an eventfd */
};

/* One writer (its worker) and one reader (the thread). Positions only grow. A record is a length
 * and what audit_record_write makes; it is published by one store to head. */
struct audit_ring {
    uint8_t *data;
    size_t size; /* power of two */
    unsigned worker;
    struct audit_wake *wake;
    _Atomic size_t head;
    _Atomic uint64_t number; /* of the last decision, put or lost */
    _Atomic uint64_t skipped;
    _Alignas(64) _Atomic size_t tail;
    uint64_t seen; /* the thread's: the last number that came out, or was told as lost */
};

enum { AUDIT_RECORD_MAX = 32 * 1024 };

void audit_ring_init(struct audit_ring *r, size_t size, unsigned worker, struct audit_wake *wake);
void audit_ring_deinit(struct audit_ring *r);
/* What is in it. */
bool audit_ring_empty(const struct audit_ring *r);
/* The next record into space (AUDIT_RECORD_MAX); *ret lends from it. False: there is none.
 * *ret_lost: how many decisions are missing before it, or, where there is none, up to now. */
bool audit_ring_take(struct audit_ring *r, uint8_t *space, struct audit_decision *ret,
                     uint64_t *ret_lost);
/* Bytes to a decision; false: they are none. Lends. */
bool audit_record_read(const uint8_t *p, size_t n, struct audit_decision *ret);

/* --- line.c ------------------------------------------------------------------------------------
 * Numbers lines and chains them. A line goes into space of AUDIT_LINE_MAX; its length with the
 * newline comes back. */
struct audit_chain {
    bool on;
    uint64_t seq; /* of the last line; 0: there is none */
    uint8_t head[AUDIT_HASH_SIZE];
    EVP_MD *md;         /* owned */
    EVP_MD_CTX *digest; /* owned */
};
int audit_chain_init(struct audit_chain *c, bool on, struct err *err);
void audit_chain_deinit(struct audit_chain *c);

size_t audit_line_decision(struct audit_chain *c, const struct audit_decision *d, char *space);
struct audit_lost {
    unsigned worker;
    uint64_t count, first;
};
size_t audit_line_lost(struct audit_chain *c, const struct audit_lost *lost, char *space);
struct audit_begin {
    const char *why, *name, *role;
    uint64_t file; /* 0: it is none */
    size_t torn;   /* bytes of a line that was never ended, and their hash */
    uint8_t torn_hash[AUDIT_HASH_SIZE];
};
size_t audit_line_begin(struct audit_chain *c, const struct audit_begin *b, char *space);

/* --- sink.c ------------------------------------------------------------------------------------
 */
struct audit_sink {
    enum audit_to to;
    int fd;     /* -1: not connected */
    char *path; /* owned */
    uint64_t connect_after_ms;
    unsigned n_failed; /* in a row */
    /* Of a file. */
    int dir_fd;
    const char *base; /* in path */
    uint64_t size, number, max_size;
    uint32_t keep;
    ino_t inode;
};
int audit_sink_open(struct audit_sink *s, const struct audit_options *o, struct err *err);
void audit_sink_close(struct audit_sink *s);
/* How many bytes were taken, or -1 with errno. EAGAIN: wait until it is writable. A connection that
 * broke is closed: then whole lines have to be said again. */
ssize_t audit_sink_write(struct audit_sink *s, const uint8_t *p, size_t n);

/* --- sink_file.c ------------------------------------------------------------------------------ */
/* Opens it, and reads from where its lines go on. `begin` (with why) says what its next line says.
 */
int audit_file_open(struct audit_sink *s, struct audit_chain *c, struct audit_begin *begin,
                    struct err *err);
/* Another file in its place; on failure it goes on in the one that it has. */
int audit_file_rotate(struct audit_sink *s, struct err *err);
bool audit_file_is_full(const struct audit_sink *s);

#endif
