/*
 * readiness: what the proxies of a node told of ports that take plaintext beside mTLS, kept by
 * their agent, so that it outlives them (docs/permissive.md). A set of ports, each of one identity
 * and listener, with its sources of plaintext.
 *
 * What is told comes from processes that are attested as the identity, and from nobody else; what
 * they say about themselves is not believed to be sound, only bounded: so many ports of an
 * identity, so many sources of a port, the rest in sums. No I/O, no clock. Thread: one.
 * Units: *_s of the clock of the wall; 0: never.
 */
#ifndef POSTERN_READINESS_H
#define POSTERN_READINESS_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/mem.h>
#include <postern/proto.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    READINESS_PORTS = 512,         /* of the node */
    READINESS_IDENTITY_PORTS = 32, /* of one identity */
    READINESS_CALLERS = 32,        /* of a port; the first of them: others */
    READINESS_GAP_S = 300,         /* so long without a word, and watching begins anew */
    READINESS_STALE_S = 7 * 86400, /* a port of an identity makes room for others after that */
    READINESS_KEEP_S = 90 * 86400, /* and is forgotten after that */
    READINESS_LISTENER_MAX = 63,
    READINESS_NAME_MAX = 63,
    READINESS_FILE_MAX = 4 << 20,
};

struct readiness;
struct readiness *readiness_new(void);
struct readiness *readiness_free(struct readiness *r);

enum readiness_taken {
    READINESS_NOTHING, /* there was nothing in it, or no room for it */
    READINESS_NEWS,
    READINESS_TURNED, /* a port turned strict: to be kept at once */
};
/* A report of a process that is attested as `identity`; name: as it calls itself. */
enum readiness_taken readiness_take(struct readiness *r, struct str identity, struct str name,
                                    const Postern__V1__PlaintextReport *report, int64_t now_s);

/* Ports of the identity that are strict by themselves and have stayed so: the n-th of them; false:
 * there are no more. Texts are lent until the next change. */
struct readiness_strict {
    const char *listener;
    uint16_t port;
};
bool readiness_strict(const struct readiness *r, struct str identity, size_t n,
                      struct readiness_strict *ret);

/* How much there is; and of how much nothing was kept, since the start. */
struct readiness_counts {
    size_t ports;
    uint64_t not_kept;
};
void readiness_count(const struct readiness *r, struct readiness_counts *ret);

/* The answer to `postern readiness`, as a proxy's (docs/permissive.md). false: no room. */
bool readiness_write(const struct readiness *r, int64_t now_s, struct buf *out);

/* The file; what was forgotten by now is left out. false: no room. */
bool readiness_save(struct readiness *r, int64_t now_s, struct buf *out);
/* Whole or not at all; r is as it was if it fails. No bytes: nothing was kept. */
int readiness_load(struct readiness *r, struct str file, struct err *err);

MEM_DEFINE_CLEANUP(struct readiness, readiness_free)

#endif
