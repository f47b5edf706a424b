/*
 * denials: the last denials of a worker, with what the policy looked at, so that somebody who comes
 * with an id can be told why (docs/policy-tools.md).
 *
 * A ring belongs to one worker, which alone writes: no lock, no allocation but one at the first
 * denial, nothing is waited for, the oldest one goes. Any thread may read meanwhile; what is being
 * written just then is not there for it. A denial takes DENIALS_SLOT bytes whatever it is about:
 * what does not fit is cut or left out, and the denial says so.
 *
 * What must not be kept (credentials) is not given to it: that is its writer's business. Texts are
 * strangers' bytes.
 */
#ifndef POSTERN_DENIALS_H
#define POSTERN_DENIALS_H

#include <postern/mem.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DENIALS_SLOT = 1024,
    DENIALS_FIELDS_MAX = 32, /* headers and claims together */
};

enum denial_field_kind { DENIAL_HEADER, DENIAL_CLAIM, DENIAL_PARAMETER };
struct denial_field {
    enum denial_field_kind kind; /* a parameter is one only if it is withheld: see `query` */
    struct str name, value;
    bool withheld; /* it was there, and its value is nobody's business */
};

struct denial {
    uint64_t ts_ms, conn;
    uint64_t generation;       /* of the snapshot that decided */
    uint64_t files_generation; /* of its files, and of what the agent had told; 0: nothing */
    uint64_t state_generation;
    uint16_t port;
    bool request; /* else a connection */
    bool grpc;
    bool query_known, headers_known, claims_known;
    bool other_reading;        /* `path` is how some servers would read it, and that was denied */
    bool path_cut, fields_cut; /* there was more of its texts, or of the fields, than is kept */
    struct str decision, protocol, reason, listener, own_id, peer_id, source, rule;
    struct str method, host, path;
    struct str query; /* of its parameters those that rules speak of, as they came */
    const struct denial_field *fields;
    size_t n_fields;
};

struct denials;
/* Of the last n; 0: of none. */
struct denials *denials_new(uint32_t n);
struct denials *denials_free(struct denials *d);
/* Whether it keeps any. */
bool denials_wanted(const struct denials *d);
/* Its worker only. */
void denials_put(struct denials *d, const struct denial *x);

/* --- any thread --------------------------------------------------------------------------------
 */
/* A copy, whose texts are its own. */
struct denial_copy {
    struct denial denial;
    struct denial_field fields[DENIALS_FIELDS_MAX];
    uint64_t bytes[DENIALS_SLOT / 8];
};
/* How many there may be, and the newest (0), the one before it (1), and so on. False: it is gone,
 * or not whole. */
size_t denials_count(const struct denials *d);
bool denials_read(const struct denials *d, size_t back, struct denial_copy *ret);

/* Bytes to a denial, as a slot has them; false: they are none. Lends from ret->bytes. */
bool denial_parse(struct denial_copy *ret, size_t n);

MEM_DEFINE_CLEANUP(struct denials, denials_free)

#endif
