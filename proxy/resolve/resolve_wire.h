/*
 * What the resolver's helper and its asker say to each other: one fixed-size message for each
 * question and each answer, over a SOCK_SEQPACKET pair. Both ends check all of it.
 */
#ifndef POSTERN_RESOLVE_WIRE_H
#define POSTERN_RESOLVE_WIRE_H

#include <postern/resolve.h>

enum { RESOLVE_FD_ASKER = 3, RESOLVE_VERSION = 1 };

struct resolve_question {
    uint32_t version;
    uint32_t id; /* comes back with the answer */
    uint32_t host_len;
    char host[RESOLVE_HOST_MAX + 3]; /* lower case, letters, digits, `-`, `_` and `.` */
};

enum resolve_result {
    RESOLVE_OK,
    RESOLVE_NO_NAME,    /* the name does not exist */
    RESOLVE_NO_ADDRESS, /* it exists, without addresses */
    RESOLVE_FAILURE,    /* no name server answered usefully */
    RESOLVE_BROKEN,     /* the question, or the machine's files, could not be read */
    RESOLVE_N_RESULTS,
};

struct resolve_address {
    uint8_t family; /* 4 or 6 */
    uint8_t bytes[16];
};

struct resolve_answer {
    uint32_t version;
    uint32_t id;
    uint32_t result;
    uint32_t ttl_s;
    uint32_t n;
    struct resolve_address addrs[RESOLVE_ADDRS_MAX];
};

/* A DNS name that can be looked up: what a question may hold. */
bool resolve_host_ok(struct str host);

#endif
