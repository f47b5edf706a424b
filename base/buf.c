#include <postern/buf.h>

#include <postern/err.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_FIRST = 256 };

uint8_t *buf_reserve(struct buf *b, size_t n)
{
    if (b->len > b->max || n > b->max - b->len) {
        return NULL;
    }
    if (b->cap - b->start - b->len >= n && b->data != NULL) {
        return b->data + b->start + b->len;
    }
    if (b->data != NULL && b->start > 0 && b->cap - b->len >= n) {
        memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
        return b->data + b->len;
    }
    size_t want = b->len + n;
    size_t cap = b->cap > 0 ? b->cap : BUF_FIRST;
    while (cap < want) {
        cap = cap > SIZE_MAX / 2 ? want : cap * 2;
    }
    uint8_t *data = malloc(cap);
    if (data == NULL) {
        return NULL;
    }
    if (b->data != NULL && b->len > 0) {
        memcpy(data, b->data + b->start, b->len);
    }
    free(b->data);
    b->data = data;
    b->start = 0;
    b->cap = cap;
    return data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
    POSTERN_ASSERT(n <= b->cap - b->start - b->len);
    b->len += n;
}

bool buf_append(struct buf *b, const void *p, size_t n)
{
    uint8_t *to = buf_reserve(b, n);
    if (to == NULL) {
        return false;
    }
    if (n > 0) {
        memcpy(to, p, n);
    }
    b->len += n;
    return true;
}

bool buf_append_str(struct buf *b, struct str s)
{
    return buf_append(b, s.p, s.n);
}

bool buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    bool ok = false;
    if (n >= 0) {
        /* vsnprintf writes a terminator that is not part of the content: room for it too. */
        size_t max = b->max;
        b->max = max < SIZE_MAX ? max + 1 : max;
        uint8_t *to =
            b->len <= max && (size_t)n <= max - b->len ? buf_reserve(b, (size_t)n + 1) : NULL;
        b->max = max;
        if (to != NULL) {
            vsnprintf((char *)to, (size_t)n + 1, fmt, again);
            b->len += (size_t)n;
            ok = true;
        }
    }
    va_end(again);
    return ok;
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    bool ok = buf_vprintf(b, fmt, ap);
    va_end(ap);
    return ok;
}

void buf_consume(struct buf *b, size_t n)
{
    POSTERN_ASSERT(n <= b->len);
    b->len -= n;
    b->start = b->len == 0 ? 0 : b->start + n;
}

void buf_reset(struct buf *b)
{
    free(b->data);
    b->data = NULL;
    b->start = b->len = b->cap = 0;
}

void buf_reset_secret(struct buf *b)
{
    if (b->data != NULL) {
        mem_wipe(b->data, b->cap);
    }
    buf_reset(b);
}
