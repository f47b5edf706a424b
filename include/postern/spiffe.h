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

/* --- templates -------------------------------------------------------------------------------- */
/* An ID with variables, such as spiffe://example.org/ns/{k8s.ns}/sa/{k8s.sa}: in the path only, at
 * most one in a segment (a-b and c would else come to the same as a and b-c). A value goes in as it
 * is or not at all: nothing is escaped, cut or folded. */
enum spiffe_variable {
    SPIFFE_K8S_NS,
    SPIFFE_K8S_SA,
    SPIFFE_K8S_POD_NAME,
    SPIFFE_K8S_POD_UID,
    SPIFFE_K8S_CONTAINER_NAME,
    SPIFFE_K8S_NODE_NAME,
    SPIFFE_UNIX_UID,
    SPIFFE_UNIX_GID,
    SPIFFE_SYSTEMD_ID,
    SPIFFE_CONTAINER_ID,
    SPIFFE_N_VARIABLES,
};
/* What has to say something about a caller before a variable may stand for the rest of it. */
enum spiffe_kind {
    SPIFFE_KIND_UNIX = 1,
    SPIFFE_KIND_K8S = 2,
    SPIFFE_KIND_SYSTEMD = 4,
    SPIFFE_KIND_CONTAINER = 8,
};

bool spiffe_template_is(struct str text);
/* Whether every variable is known and of one of these kinds (a mask: those of the entry's
 * selectors), and what is around them is a SPIFFE ID with a path. *ret_trust_domain is a view into
 * the text. */
int spiffe_template_check(struct str text, unsigned kinds, struct str *ret_trust_domain,
                          struct err *err);
/* The ID with these values (STR_NONE: not known), terminated. false: a value is missing or is not
 * text for one segment, or the ID is too long. */
bool spiffe_template_expand(struct str text, const struct str values[SPIFFE_N_VARIABLES],
                            char ret[SPIFFE_ID_MAX + 1]);

#endif
