/* As much of HTTP/2 (RFC 9113) as load needs to ask for small answers over streams: no library, no
 * sockets. A client's side; it takes what the other side may send to one, and nothing else. */
#ifndef LOAD_H2_H
#define LOAD_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { H2_STREAMS_MAX = 64, H2_OUT_MAX = 1 << 15 };

struct h2 {
    uint8_t head[9]; /* of the frame that is read */
    size_t head_len;
    uint8_t type, flags;
    uint32_t stream, left;
    bool status_seen; /* of the block of fields that is read */
    uint8_t ping[8];
    uint32_t next_stream;
    struct h2_asked {
        uint32_t id;
        uint64_t due_ns;
    } asked[H2_STREAMS_MAX];
    unsigned n_asked;
    uint64_t taken; /* bytes of bodies since the last WINDOW_UPDATE */
    uint8_t out[H2_OUT_MAX];
    size_t out_len; /* for the caller to send, and to set to 0 */
};

/* The preface, and windows that small answers do not fill. */
void h2_begin(struct h2 *h);

/* The fields of GET PATH. Returns their length, 0: they do not fit. */
size_t h2_fields(const char *path, uint8_t *ret, size_t size);

/* False: too many at once. */
bool h2_ask(struct h2 *h, const uint8_t *fields, size_t len, uint64_t due_ns);

enum h2_event { H2_MORE, H2_ANSWER, H2_BAD };
/* Takes from *p up to *n bytes, and no more than the end of the next answer; H2_ANSWER: when it was
 * due. H2_BAD: not what was asked for. */
enum h2_event h2_take(struct h2 *h, const uint8_t **p, size_t *n, uint64_t *ret_due_ns);

#endif
