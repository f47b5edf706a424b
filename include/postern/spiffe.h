/*
 * spiffe: SPIFFE IDs (SPIFFE-ID.md of spiffe/spiffe). Pure functions over bytes, no I/O, any
 * thread.
 */
#ifndef POSTERN_SPIFFE_H
#define POSTERN_SPIFFE_H

#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>

enum { SPIFFE_ID_MAX = 2048, SPIFFE_TRUST_DOMAIN_MAX = 255 };

/* A checked ID: views into the text it was parsed from, which must outlive it. */
struct spiffe_id {
    struct str text;         /* "spiffe://td/path" */
    struct str trust_domain; /* "td" */
    struct str path;         /* "/path", or empty: the ID of the trust domain itself */
};

/* Nothing is folded or normalized; anything but the exact form is refused (section 2). */
int spiffe_id_parse(struct str text, struct spiffe_id *ret, struct err *err);
/* "td" alone, as in configuration and bundle maps. */
bool spiffe_trust_domain_ok(struct str td);
/* Compares the whole trust domain part, never a prefix. */
bool spiffe_id_member_of(const struct spiffe_id *id, struct str trust_domain);

#endif
