/*
 * jsonl: one flat JSON object a line: writing it, and reading what was so written. For our own
 * files (journal, quarantine, rollout) in processes that link no JSON library.
 *
 * Form: {"key":value,...} without blanks; keys are of a-z, 0-9 and _, each once; values are strings
 * (escapes \" \\ \u00XX, no other control bytes), decimal integers, true and false. Reading is a
 * pure function of the bytes; nothing is allocated, fields lend from the line. Thread: any.
 */
#ifndef POSTERN_JSONL_H
#define POSTERN_JSONL_H

#include <postern/buf.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- writing ---------------------------------------------------------------------------------- */
/* Into space of the caller's. What does not fit makes `full`, and the line is not to be used. */
struct jsonl_writer {
    char *text;
    size_t len, size;
    bool full;
};
void jsonl_begin(struct jsonl_writer *w, char *space, size_t size);
/* Strings are cut at max bytes with "..." behind; an empty one is written as "". */
void jsonl_put_text(struct jsonl_writer *w, const char *key, struct str value, size_t max);
void jsonl_put_hex(struct jsonl_writer *w, const char *key, const uint8_t *bytes, size_t n);
void jsonl_put_base64(struct jsonl_writer *w, const char *key, const uint8_t *bytes, size_t n);
void jsonl_put_uint(struct jsonl_writer *w, const char *key, uint64_t value);
void jsonl_put_int(struct jsonl_writer *w, const char *key, int64_t value);
void jsonl_put_bool(struct jsonl_writer *w, const char *key, bool value);
/* Closes the object; no newline. false: it did not fit. */
bool jsonl_end(struct jsonl_writer *w);
/* As jsonl_end, and puts the line with its newline behind what out has; false as well if out is
 * full. */
bool jsonl_end_in(struct jsonl_writer *w, struct buf *out);

/* --- reading ---------------------------------------------------------------------------------- */
enum { JSONL_FIELDS_MAX = 48 };
struct jsonl_field {
    struct str key, value; /* value: as it stands in the line; of a string what is inside quotes */
    bool is_text;
    size_t at; /* where the field's comma or brace stands in the line */
};
struct jsonl {
    struct jsonl_field fields[JSONL_FIELDS_MAX];
    size_t n;
};
/* A line without its newline; false if it is not of that form. */
bool jsonl_parse(struct str line, struct jsonl *ret);
/* Takes the next line off rest, and parses it; false at the end, or if it is no whole one. */
bool jsonl_next(struct str *rest, struct jsonl *ret);
/* NULL: there is none. */
const struct jsonl_field *jsonl_find(const struct jsonl *l, const char *key);
/* A string without its escapes, terminated; false if there is none, or it is too long or holds a
 * NUL. */
bool jsonl_get_text(const struct jsonl *l, const char *key, char *ret, size_t size);
/* Whether the string is exactly this (which needs no escapes). */
bool jsonl_is(const struct jsonl *l, const char *key, const char *value);
bool jsonl_get_uint(const struct jsonl *l, const char *key, uint64_t *ret);
bool jsonl_get_int(const struct jsonl *l, const char *key, int64_t *ret);
/* Exactly n bytes in lower-case hex. */
bool jsonl_get_hex(const struct jsonl *l, const char *key, uint8_t *ret, size_t n);
bool jsonl_get_base64(const struct jsonl *l, const char *key, uint8_t *ret, size_t size,
                      size_t *ret_len);

#endif
