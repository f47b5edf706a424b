/*
 * detect: which protocol the two sides of a connection speak, told from their first bytes.
 *
 * Two automatons, one a side, that are fed whatever comes and look at each byte once: nothing is
 * kept or allocated, and the answer is the same whole or byte by byte. Once an answer is given it
 * never changes. DETECT_MORE is answered for what is still the beginning of something known, and
 * for no more than DETECT_BYTES_MAX bytes.
 *
 * What counts as what:
 *   client  HTTP/1 a request line up to its version (RFC 9112 section 3), HTTP/2 the preface (RFC
 *           9113 section 3.4), TLS the head of a record with a ClientHello (RFC 8446 section 5.1)
 *   server  HTTP/1 the version of a status line, HTTP/2 the head of a SETTINGS frame, TLS the head
 *           of a record with a ServerHello
 * Anything else is TCP: bytes that are nobody's business. An answer says what the bytes look like,
 * not that they are valid; whoever lets something through because of it judges every byte of it.
 *
 * Thread: any. docs/detection.md says what is done with the answer.
 */
#ifndef POSTERN_DETECT_H
#define POSTERN_DETECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DETECT_METHOD_MAX = 32,
    DETECT_BYTES_MAX = 8192, /* a request line that proxy/http1 takes is shorter */
};

/* name, word for logs and metrics */
#define DETECT_PROTOCOLS(X)                                                                        \
    X(UNKNOWN, "unknown") /* nobody said enough */                                                 \
    X(TCP, "tcp")         /* something else than the following */                                  \
    X(HTTP1, "http1")                                                                              \
    X(HTTP2, "http2")                                                                              \
    X(TLS, "tls")

enum detect_protocol {
#define DETECT_PROTOCOL_ENUM(name, word) DETECT_##name,
    DETECT_PROTOCOLS(DETECT_PROTOCOL_ENUM)
#undef DETECT_PROTOCOL_ENUM
        DETECT_PROTOCOL_COUNT
};
const char *detect_protocol_name(enum detect_protocol p);

/* How it is known. name, word */
#define DETECT_HOWS(X)                                                                             \
    X(NONE, "none") /* it is not: the connection ended before */                                   \
    X(DECLARED, "declared")                                                                        \
    X(CLIENT, "client")   /* by what the client said, before the server did */                     \
    X(SERVER, "server")   /* by what the server said, before the client did */                     \
    X(TIMEOUT, "timeout") /* it is not: nothing was said in time */

enum detect_how {
#define DETECT_HOW_ENUM(name, word) DETECT_BY_##name,
    DETECT_HOWS(DETECT_HOW_ENUM)
#undef DETECT_HOW_ENUM
        DETECT_HOW_COUNT
};
const char *detect_how_name(enum detect_how h);

enum detect_side { DETECT_SIDE_CLIENT, DETECT_SIDE_SERVER };

/* One side's automaton; zeroed at the start. */
struct detect_scan {
    uint8_t excluded; /* bits of what it can no longer be */
    uint8_t step;     /* of the reading as HTTP/1 */
    uint8_t last;     /* the byte before */
    uint16_t n;       /* bytes looked at */
};

/* Feeds the next n bytes of one side. DETECT_UNKNOWN: more are needed. Not to be called again after
 * any other answer. */
enum detect_protocol detect_feed(struct detect_scan *scan, enum detect_side side,
                                 const uint8_t *data, size_t n);

/* Both sides of one connection: the first that has an answer decides. Zeroed at the start. */
struct detect_race {
    struct detect_scan sides[2];
    uint8_t protocol; /* enum detect_protocol */
    uint8_t how;      /* enum detect_how */
};
/* True: it is decided, now or before. */
bool detect_race_feed(struct detect_race *race, enum detect_side side, const uint8_t *data,
                      size_t n);

#endif
