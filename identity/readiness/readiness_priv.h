/* readiness: what its files share. */
#ifndef POSTERN_READINESS_PRIV_H
#define POSTERN_READINESS_PRIV_H

#include <postern/readiness.h>

enum { READINESS_KIND_MAX = 15, READINESS_SOURCE_MAX = 16 };
/* No count is larger, whatever is said: JSON's readers take it, and sums of them don't wrap. */
#define READINESS_COUNT_MAX UINT64_C(1000000000000000)

struct readiness_caller {
    uint8_t source[READINESS_SOURCE_MAX];
    uint8_t n_source; /* 4, 16; 0: others */
    char kind[READINESS_KIND_MAX + 1];
    uint64_t connections, allowed, denied;
    int64_t first_s, last_s, last_allowed_s;
};

struct readiness_port {
    char *identity; /* owned */
    char listener[READINESS_LISTENER_MAX + 1];
    char name[READINESS_NAME_MAX + 1]; /* of the proxy that told last */
    uint16_t port;
    int64_t watched_s, told_s;
    int64_t strict_s;
    uint64_t strict_after_s;
    int64_t last_allowed_s;
    uint64_t mtls;
    int64_t last_mtls_s;
    struct readiness_caller callers[READINESS_CALLERS]; /* [0]: others */
    size_t n_callers;                                   /* at least 1 */
};

struct readiness {
    struct readiness_port *items[READINESS_PORTS]; /* owned */
    size_t n;
    uint64_t not_kept;
};

struct readiness_port *readiness_port_new(struct str identity, const char *listener, uint16_t port);
struct readiness_port *readiness_port_free(struct readiness_port *p);
/* Cut to what is kept; false: nothing is left, or it holds what is no text for a log or terminal.
 */
bool readiness_listener_ok(const char *text);
/* A class of first bytes, by its form: the words are the proxy's. */
bool readiness_kind_ok(const char *text);
/* Strict by itself, and no plaintext that policy allows came anywhere since. */
bool readiness_is_strict(const struct readiness_port *p);

#endif
