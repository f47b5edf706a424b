/*
 * journal: the record of what an agent issued. docs/journal.md has the format and what it proves.
 *
 * Two libraries. The lines (journal_line.c: hashing and reading one, pure functions) are for the
 * keeper too, which writes them; walking files, verifying and choosing (journal_walk.c,
 * journal_verify.c) are for commands. Thread: any.
 */
#ifndef POSTERN_JOURNAL_H
#define POSTERN_JOURNAL_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/jsonl.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    JOURNAL_LINE_MAX = 16384, /* with its newline */
    JOURNAL_HASH_SIZE = 32,   /* SHA-256 */
    JOURNAL_HEAD_SIZE = 2048, /* of the file `head`: one line, filled up with blanks */
    JOURNAL_FILE_DIGITS = 8,  /* 00000001.jsonl */
};
/* In the state directory, and in that directory. */
static const char JOURNAL_DIR[] = "journal";
static const char JOURNAL_HEAD_FILE[] = "head";
/* What a head's signature is over: this, then the line up to the comma before "signature". No
 * certificate's bytes begin so. */
static const char JOURNAL_HEAD_PREFIX[] = "postern journal head 1\n";

/* --- one line --------------------------------------------------------------------------------- */
struct journal_line {
    uint64_t seq;
    uint8_t prev[JOURNAL_HASH_SIZE]; /* hash of the line before */
    struct str event;
    struct jsonl fields;
};
/* Of a line without its newline. */
void journal_hash(struct str line, uint8_t ret[JOURNAL_HASH_SIZE]);
/* false: it is no line of a journal. Lends from it. */
bool journal_line_parse(struct str line, struct journal_line *ret);
/* The name of file n, "00000001.jsonl"; size at least 32. */
void journal_file_name(uint64_t n, char *ret, size_t size);
/* The number in such a name; false: another name. */
bool journal_file_number(struct str name, uint64_t *ret);

/* --- walking ---------------------------------------------------------------------------------- */
struct journal_place {
    uint64_t file;
    uint64_t number; /* of the line in the file, from 1 */
    uint64_t offset; /* of the line in the file */
};
/* Numbers of the files in a directory, ascending; the caller's to free(). */
int journal_list(const char *dir, uint64_t **ret, size_t *ret_n, struct err *err);
/* One file whole, mapped. */
struct journal_file {
    uint64_t number;
    const char *data;
    size_t len;
};
int journal_file_open(const char *dir, uint64_t number, struct journal_file *ret, struct err *err);
void journal_file_close(struct journal_file *f);

/* Appends the serials of certificates that are still valid and that callers whose container runs
 * this image (sha256:HEX) got, each with a comma behind. */
int journal_serials_of_image(const char *dir, const char *digest, int64_t now_s, struct buf *out,
                             size_t *ret_n, struct err *err);

/* --- verifying -------------------------------------------------------------------------------- */
struct journal_verify_options {
    const char *dir;
    struct str roots;  /* DER, one after another; empty: those that the journal names itself */
    uint64_t head_seq; /* a head that must be there; 0: none */
    uint8_t head_hash[JOURNAL_HASH_SIZE];
};
struct journal_verdict {
    bool good;
    bool unfinished;  /* the bad line has no end: an agent may be writing it this moment */
    struct err error; /* the first bad line: where is FILE:LINE */
    uint64_t n_files, n_lines, n_issued, n_heads;
    uint64_t first_seq, last_seq;
    uint64_t signed_seq; /* of the last head; what comes behind is chained, not yet signed */
    uint8_t signed_hash[JOURNAL_HASH_SIZE];
    uint64_t n_torn; /* torn lines that are accounted for */
    uint64_t n_lost; /* lines that a full disk cost, as the journal itself says */
    bool own_roots;  /* not judged against roots from elsewhere */
};
/* -1: it could not be read at all. Else 0, and what is to be said in *ret. */
int journal_verify(const struct journal_verify_options *o, struct journal_verdict *ret,
                   struct err *err);

#endif
