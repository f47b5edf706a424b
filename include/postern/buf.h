/*
 * buf: a growing byte queue with a hard maximum. Bytes are appended at the end and consumed at the
 * front. A zeroed struct with `max` set is a valid empty buffer; it allocates on first use and
 * buf_reset gives its memory back. Owned by whoever embeds it; one thread at a time.
 */
#ifndef POSTERN_BUF_H
#define POSTERN_BUF_H

#include <postern/str.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* owned */
    size_t start;  /* first unread byte */
    size_t len;    /* unread bytes */
    size_t cap;    /* allocated */
    size_t max;    /* never hold more unread bytes than this */
};

#define BUF_INIT(max_bytes) {.max = (max_bytes)}

static inline const uint8_t *buf_head(const struct buf *b)
{
    return b->data + b->start;
}
static inline size_t buf_len(const struct buf *b)
{
    return b->len;
}
static inline struct str buf_str(const struct buf *b)
{
    return (struct str){b->len > 0 ? (const char *)b->data + b->start : NULL, b->len};
}

/* Room for n more bytes at the tail: a pointer to write at, or NULL if that would pass max or there
 * is no memory. Follow with buf_commit(n written). */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);
/* All or nothing; false if max would be passed or there is no memory. */
bool buf_append(struct buf *b, const void *p, size_t n);
bool buf_append_str(struct buf *b, struct str s);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Drops n unread bytes from the front; n must not exceed len. */
void buf_consume(struct buf *b, size_t n);
/* Frees the memory; the buffer is empty and usable again. */
void buf_reset(struct buf *b);
/* As buf_reset, wiping first: for anything that may have held a secret. */
void buf_reset_secret(struct buf *b);

#endif
