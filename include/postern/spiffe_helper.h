/*
 * spiffe_helper: the configuration of spiffe-helper (the SPIFFE project's), read, and said again as
 * a Rotate file.
 *
 * Its files are HCL (version 1); what is read of that language is what such a file holds: keys with
 * strings, numbers, booleans, lists and objects, blocks, comments. Every key is carried over or
 * refused by name, with the reason; if anything is refused nothing comes out, so that what comes
 * out means the same. Where it means the same and does it another way, a note says so.
 *
 * Pure: bytes in, bytes out. Thread: any.
 */
#ifndef POSTERN_SPIFFE_HELPER_H
#define POSTERN_SPIFFE_HELPER_H

#include <postern/buf.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>

enum { SPIFFE_HELPER_FILE_MAX = 1 << 20, SPIFFE_HELPER_OUT_MAX = 1 << 20 };

struct spiffe_helper_options {
    const char *name;       /* of the file, for messages */
    const char *directory;  /* what relative paths in it stand against: absolute */
    const char *executable; /* what the process of pid_file_name runs; NULL: not known */
    const char *spiffe_id;  /* in the place of a hint; NULL: none */
    unsigned key_mode;      /* in the place of key_file_mode and jwt_svid_file_mode; 0: theirs */
};
/* Told of each refusal, and of each note: one line, with the place; no control characters. */
typedef void (*spiffe_helper_tell_fn)(void *arg, bool refused, const char *text);
/* 0 and a Rotate file appended to out; -1 if anything was refused, or the text is no such file
 * (then err says why, and where). */
int spiffe_helper_convert(const char *text, size_t len, const struct spiffe_helper_options *options,
                          spiffe_helper_tell_fn tell, void *arg, struct buf *out, struct err *err);

#endif
