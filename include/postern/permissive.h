/*
 * permissive: ports that take plaintext beside mTLS for a while, and who still needs them to
 * (docs/permissive.md): telling the two apart, a bounded record of plaintext's sources, and a
 * verdict whether a port may turn strict.
 *
 * A book belongs to one worker, which alone writes; anybody may read it meanwhile: rows are
 * published when they are whole and never go, what changes in them are atomic numbers. No lock.
 * Units: *_ms of os_now_ms, which no setting of a clock moves; *_s of the clock of the wall.
 */
#ifndef POSTERN_PERMISSIVE_H
#define POSTERN_PERMISSIVE_H

#include <postern/mem.h>
#include <postern/net.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- telling apart ----------------------------------------------------------------------------
 * Of everything that came so far. Pure. */
enum permissive_first {
    PERMISSIVE_MORE,  /* the beginning of a TLS record, or nothing: at the end of all waiting, TLS
                       * unless nothing came */
    PERMISSIVE_TLS,   /* RFC 8446 5.1: it goes to the handshake, which fails or does not */
    PERMISSIVE_PLAIN, /* it can be no TLS any more */
};
enum permissive_first permissive_first(const uint8_t *bytes, size_t n);

enum { PERMISSIVE_BYTES = 64 }; /* that a class is told from */

/* name, word for logs and metrics */
#define PERMISSIVE_CLASSES(X)                                                                      \
    X(SILENCE, "silence") /* the server speaks first */                                            \
    X(HTTP1, "http1")                                                                              \
    X(HTTP2, "http2")     /* by prior knowledge */                                                 \
    X(OLD_TLS, "old_tls") /* an SSL 2 hello: not TLS any more */                                   \
    X(SSH, "ssh")                                                                                  \
    X(POSTGRES, "postgres")                                                                        \
    X(REDIS, "redis")                                                                              \
    X(MONGODB, "mongodb")                                                                          \
    X(PROXY, "proxy_protocol")                                                                     \
    X(OTHER, "other")

enum permissive_class {
#define PERMISSIVE_CLASS_ENUM(name, word) PERMISSIVE_##name,
    PERMISSIVE_CLASSES(PERMISSIVE_CLASS_ENUM)
#undef PERMISSIVE_CLASS_ENUM
        PERMISSIVE_CLASS_COUNT
};
const char *permissive_class_name(enum permissive_class c);
/* n 0: silence. What the bytes look like, for people; nothing is decided by it. */
enum permissive_class permissive_class(const uint8_t *bytes, size_t n);

/* --- the book ---------------------------------------------------------------------------------
 * A row a port, source address and class. */
enum {
    PERMISSIVE_ROWS = 1024,      /* all of them */
    PERMISSIVE_ROWS_LEFT = 192,  /* of these, for what a port has once: others, and mTLS */
    PERMISSIVE_ROWS_DENIED = 512 /* that sources may take which were never allowed anything */
};

enum permissive_who {
    PERMISSIVE_SOURCE, /* one address */
    PERMISSIVE_OTHERS, /* for whom there was no room, or without an address */
    PERMISSIVE_MTLS,   /* everybody who came with a certificate */
};

struct permissive_key {
    uint16_t listener; /* index */
    uint16_t port;
    uint8_t who;   /* enum permissive_who */
    uint8_t class; /* enum permissive_class; of a source */
    uint8_t family;
    uint8_t zero;
    uint8_t address[16]; /* of a source */
};
struct permissive_row {
    struct permissive_key key;
    _Atomic uint64_t connections;
    _Atomic uint64_t allowed, denied; /* decisions: of connections, or of requests */
    _Atomic uint64_t open;            /* now, of those that were allowed something */
    _Atomic uint64_t first_ms, last_ms;
    _Atomic uint64_t last_allowed_ms; /* 0: never */
};

struct permissive_book;
/* Takes its memory at the first row. seed: nobody outside knows it. */
struct permissive_book *permissive_book_new(uint64_t seed);
struct permissive_book *permissive_book_free(struct permissive_book *b);

/* One connection of plaintext; zeroed at the start. */
struct permissive_visit {
    struct permissive_row *row; /* lent by the book */
    bool open;
};
/* What was decided about it, or about a request in it. source NULL, or of no address: others. */
void permissive_book_decided(struct permissive_book *b, struct permissive_visit *v,
                             uint16_t listener, uint16_t port, const struct net_addr *source,
                             enum permissive_class class, bool allowed, uint64_t now_ms);
/* It ends, decided or not. */
void permissive_book_left(struct permissive_book *b, struct permissive_visit *v, uint16_t listener,
                          uint16_t port, const struct net_addr *source, enum permissive_class class,
                          uint64_t now_ms);
/* One that came with a certificate. */
void permissive_book_mtls(struct permissive_book *b, uint16_t listener, uint16_t port,
                          uint64_t now_ms);

/* Any thread: rows 0 to n - 1 are there. NULL: there is no such row. */
size_t permissive_book_count(const struct permissive_book *b);
const struct permissive_row *permissive_book_row(const struct permissive_book *b, size_t i);
/* When somebody was allowed for whom there was no row at all, on any port; 0: never. */
uint64_t permissive_book_lost_ms(const struct permissive_book *b);

/* --- all workers' books together; numbers as of about now ---------------------------------------
 */
struct permissive_seen {
    struct permissive_key key;
    uint64_t connections, allowed, denied, open;
    uint64_t first_ms, last_ms, last_allowed_ms;
};
struct permissive_tally {
    struct permissive_seen *items; /* owned; by listener and port */
    size_t n;
    uint64_t lost_ms; /* of permissive_book_lost_ms, the last */
};
void permissive_tally_init(struct permissive_tally *t, const struct permissive_book *const *books,
                           size_t n_books);
void permissive_tally_deinit(struct permissive_tally *t);
/* The rows of one port; lent. */
const struct permissive_seen *permissive_tally_port(const struct permissive_tally *t,
                                                    uint16_t listener, uint16_t port,
                                                    size_t *ret_n);

/* --- a port's verdict -------------------------------------------------------------------------
 * Only callers that policy allows hold a port open: whoever may do nothing could do that much by
 * knocking. Pure; all times by one clock. */
struct permissive_facts {
    int64_t watched_since_s;
    int64_t last_allowed_s; /* of plaintext; 0: never */
    int64_t last_mtls_s;    /* likewise */
    uint64_t open;          /* connections of plaintext that were allowed */
};
enum permissive_verdict {
    PERMISSIVE_READY,
    PERMISSIVE_NOT_READY,
    PERMISSIVE_UNKNOWN_YET,   /* not watched for as long as that */
    PERMISSIVE_UNKNOWN_NOBODY /* nobody came at all in that time */
};
const char *
permissive_verdict_name(enum permissive_verdict v); /* "ready", "not_ready", "unknown" */
enum permissive_verdict permissive_verdict(const struct permissive_facts *f, int64_t now_s,
                                           int64_t window_s);
/* Whether a port that is asked to turns strict by itself: quiet for the window, and watched. */
bool permissive_may_arm(const struct permissive_facts *f, int64_t now_s, int64_t window_s);

/* Of one port; its times are seconds of os_now_ms then. */
void permissive_tally_facts(const struct permissive_tally *t, uint16_t listener, uint16_t port,
                            uint64_t since_ms, struct permissive_facts *ret);

MEM_DEFINE_CLEANUP(struct permissive_book, permissive_book_free)

#endif
