/*
 * deny: which peers are quarantined: a set of SPIFFE IDs and of serials, as the agent tells it.
 *
 * Built once, then immutable and asked by any number of threads without a lock; by binary search,
 * so that asking costs next to nothing beside a handshake. docs/quarantine.md.
 */
#ifndef POSTERN_DENY_H
#define POSTERN_DENY_H

#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>

enum deny_kind { DENY_SPIFFE_ID, DENY_SERIAL, DENY_N_KINDS };

struct deny_item {
    enum deny_kind kind;
    struct str text; /* a serial: lower-case hex, as x509_serial_text writes it */
};

struct deny_set;
/* Copies. NULL with n == 0 is an empty set. */
struct deny_set *deny_set_new(const struct deny_item *items, size_t n);
struct deny_set *deny_set_free(struct deny_set *set);
/* What `now` has and `before` has not. Either may be NULL. */
void deny_set_added(const struct deny_set *before, const struct deny_set *now,
                    void (*fn)(void *arg, enum deny_kind kind, const char *text), void *arg);
size_t deny_set_count(const struct deny_set *set);
/* Whether a certificate with this ID and serial (either may be empty) is meant. set NULL: no. */
bool deny_set_has(const struct deny_set *set, struct str id, struct str serial);

#endif
