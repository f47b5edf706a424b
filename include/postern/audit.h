/*
 * audit: the audit log: one JSON line a decision. docs/audit.md says what is in it, what is kept
 * and what is lost.
 *
 * A worker puts decisions into a ring of its own (audit_put: one bounded copy, no lock, no
 * allocation, no system call but a wake-up of a writer that sleeps). One thread, made here, takes
 * them out, makes lines of them and writes these. When it cannot, the rings fill and decisions are
 * counted instead; the log itself says which.
 *
 * audit_new to audit_start and audit_stop to audit_free: the main thread. audit_put: the worker
 * whose ring it is. audit_get_figures: any thread.
 */
#ifndef POSTERN_AUDIT_H
#define POSTERN_AUDIT_H

#include <postern/err.h>
#include <postern/net.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    AUDIT_HASH_SIZE = 32,          /* SHA-256 */
    AUDIT_TEXT_MAX = 2048,         /* bytes of one value; what is longer is cut */
    AUDIT_LINE_MAX = 48 * 1024,    /* with its newline */
    AUDIT_RING_BYTES = 256 * 1024, /* pages are touched as decisions come */
};

enum audit_kind { AUDIT_CONNECTION, AUDIT_REQUEST, AUDIT_ENDED };

/* What is said of a decision. Texts are lent; empty: it does not apply. */
struct audit_decision {
    enum audit_kind kind;
    bool allow, outbound, hbone, resumed;
    uint16_t port;
    uint32_t sampled;       /* one of so many; below 2: it stands for itself */
    uint32_t worker;        /* filled in by the ring */
    uint64_t number, ts_ms; /* likewise: how many-th of the worker; since the epoch */
    uint64_t conn, generation, state_generation;
    struct net_addr source, via; /* len 0: none */
    struct str decision, listener, own_id, peer_id, protocol, method, host, path, reason, rule,
        rule_reason, near_miss, audit_rule, shadow, shadow_rule;
};

struct audit;
struct audit_ring;

enum audit_to { AUDIT_TO_STDOUT, AUDIT_TO_FILE, AUDIT_TO_UNIX };
struct audit_options {
    enum audit_to to;
    int stdout_fd;     /* AUDIT_TO_STDOUT; borrowed */
    const char *path;  /* copied */
    uint64_t max_size; /* of a file */
    uint32_t keep;
    bool chain;
    const char *name, *role; /* of the process, for its first line; copied */
    size_t ring_bytes;       /* a power of two; 0: AUDIT_RING_BYTES */
    int log_fd;              /* where audit_failed and the like are told; -1: nowhere; borrowed */
};

/* Opens the file, before the sandbox closes. For as many workers. */
int audit_new(const struct audit_options *o, unsigned n_rings, struct audit **ret, struct err *err);
struct audit_ring *audit_ring(struct audit *a, unsigned i);
int audit_start(struct audit *a, struct err *err);
/* The workers have ended: writes what can be written within two seconds. */
void audit_stop(struct audit *a);
struct audit *audit_free(struct audit *a);

/* Never waits. */
void audit_put(struct audit_ring *r, const struct audit_decision *d);
/* An allow that was left out, for the count. */
void audit_skip(struct audit_ring *r);

struct audit_figures {
    uint64_t lines, decisions, skipped, lost, failures, rotations, seq;
    uint8_t head[AUDIT_HASH_SIZE]; /* of line `seq` */
    bool writing;                  /* the last try took it */
    char error[400];               /* why not */
};
void audit_get_figures(struct audit *a, struct audit_figures *ret);

#endif
