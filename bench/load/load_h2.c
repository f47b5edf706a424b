#include "load_h2.h"

#include <string.h>

enum { DATA, HEADERS, RST_STREAM = 3, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITY = 32 };
enum { STATUS_200 = 0x88, WINDOW_GIVEN = 1 << 30 };

static void put(struct h2 *h, const void *p, size_t n)
{
    if (h->out_len + n <= sizeof(h->out)) {
        memcpy(h->out + h->out_len, p, n);
        h->out_len += n;
    }
}

static void put_32(struct h2 *h, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    put(h, b, sizeof(b));
}

static void put_head(struct h2 *h, size_t len, uint8_t type, uint8_t flags, uint32_t stream)
{
    uint8_t b[5] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags};
    put(h, b, sizeof(b));
    put_32(h, stream);
}

static void put_window(struct h2 *h, uint32_t more)
{
    put_head(h, 4, WINDOW_UPDATE, 0, 0);
    put_32(h, more);
}

void h2_begin(struct h2 *h)
{
    static const uint8_t settings[] = {0, 2, 0,    0,    0,    0,     /* no push */
                                       0, 4, 0x7f, 0xff, 0xff, 0xff}; /* a stream's window */
    memset(h, 0, sizeof(*h));
    h->next_stream = 1;
    put(h, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_head(h, sizeof(settings), SETTINGS, 0, 0);
    put(h, settings, sizeof(settings));
    put_window(h, WINDOW_GIVEN);
}

size_t h2_fields(const char *path, uint8_t *ret, size_t size)
{
    static const char authority[] = "bench";
    size_t n = strlen(path);
    if (n >= 127 || size < n + sizeof(authority) + 8) {
        return 0;
    }
    uint8_t *p = ret;
    *p++ = 0x82; /* :method GET */
    *p++ = 0x86; /* :scheme http */
    *p++ = 0x04; /* :path, not indexed */
    *p++ = (uint8_t)n;
    memcpy(p, path, n);
    p += n;
    *p++ = 0x01; /* :authority, not indexed */
    *p++ = sizeof(authority) - 1;
    memcpy(p, authority, sizeof(authority) - 1);
    return (size_t)(p - ret) + sizeof(authority) - 1;
}

bool h2_ask(struct h2 *h, const uint8_t *fields, size_t len, uint64_t due_ns)
{
    if (h->n_asked == H2_STREAMS_MAX || h->out_len + 9 + len > sizeof(h->out)) {
        return false;
    }
    put_head(h, len, HEADERS, END_STREAM | END_HEADERS, h->next_stream);
    put(h, fields, len);
    h->asked[h->n_asked++] = (struct h2_asked){h->next_stream, due_ns};
    h->next_stream += 2;
    return true;
}

static bool is_asked(const struct h2 *h)
{
    unsigned i = 0;
    while (i < h->n_asked && h->asked[i].id != h->stream) {
        i++;
    }
    return i < h->n_asked;
}

/* The head is whole. False: nobody may send that. */
static bool frame_begins(struct h2 *h)
{
    const uint8_t *b = h->head;
    h->left = (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2];
    h->type = b[3];
    h->flags = b[4];
    h->stream =
        ((uint32_t)b[5] << 24 | (uint32_t)b[6] << 16 | (uint32_t)b[7] << 8 | b[8]) & 0x7fffffffU;
    h->status_seen = false;
    /* A reset may follow an answer: of what was asked that is not wanted any more. */
    return (h->type != RST_STREAM || !is_asked(h)) && h->type != GOAWAY &&
           h->type != PUSH_PROMISE && (h->type != PING || h->left == sizeof(h->ping));
}

/* Of a head's block: whether it begins with status 200, behind changes of the table's size. */
static bool status_ok(struct h2 *h, const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (!h->status_seen && i < n && (p[i] & 0xe0) == 0x20) {
        bool longer = p[i++] == 0x3f; /* a number that goes on */
        while (longer && i < n) {
            longer = (p[i++] & 0x80) != 0;
        }
    }
    bool ok = h->status_seen || i == n || p[i] == STATUS_200;
    h->status_seen = h->status_seen || i < n;
    return ok;
}

/* Some of the frame's payload. */
static bool frame_part(struct h2 *h, const uint8_t *p, size_t n)
{
    if (h->type == PING) {
        memcpy(h->ping + sizeof(h->ping) - h->left, p, n);
    } else if (h->type == HEADERS) {
        return (h->flags & (PADDED | PRIORITY)) == 0 && status_ok(h, p, n);
    } else if (h->type == DATA) {
        h->taken += n;
    }
    return true;
}

static enum h2_event answered(struct h2 *h, uint64_t *ret_due_ns)
{
    for (unsigned i = 0; i < h->n_asked; i++) {
        if (h->asked[i].id == h->stream) {
            *ret_due_ns = h->asked[i].due_ns;
            h->asked[i] = h->asked[--h->n_asked];
            return H2_ANSWER;
        }
    }
    return H2_BAD;
}

static enum h2_event frame_ends(struct h2 *h, uint64_t *ret_due_ns)
{
    h->head_len = 0;
    if (h->type == SETTINGS && (h->flags & ACK) == 0) {
        put_head(h, 0, SETTINGS, ACK, 0);
    } else if (h->type == PING && (h->flags & ACK) == 0) {
        put_head(h, sizeof(h->ping), PING, ACK, 0);
        put(h, h->ping, sizeof(h->ping));
    }
    if (h->taken >= WINDOW_GIVEN / 2) {
        put_window(h, (uint32_t)h->taken);
        h->taken = 0;
    }
    bool ends = (h->type == DATA || h->type == HEADERS) && (h->flags & END_STREAM) != 0;
    return ends ? answered(h, ret_due_ns) : H2_MORE;
}

enum h2_event h2_take(struct h2 *h, const uint8_t **p, size_t *n, uint64_t *ret_due_ns)
{
    while (*n > 0) {
        if (h->head_len < sizeof(h->head)) {
            h->head[h->head_len++] = *(*p)++;
            (*n)--;
            if (h->head_len < sizeof(h->head)) {
                continue;
            }
            if (!frame_begins(h)) {
                return H2_BAD;
            }
        } else {
            size_t part = *n < h->left ? *n : h->left;
            if (!frame_part(h, *p, part)) {
                return H2_BAD;
            }
            *p += part;
            *n -= part;
            h->left -= (uint32_t)part;
        }
        if (h->left == 0) {
            enum h2_event e = frame_ends(h, ret_due_ns);
            if (e != H2_MORE) {
                return e;
            }
        }
    }
    return H2_MORE;
}
