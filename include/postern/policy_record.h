/*
 * policy_record: one decision out of a log of ours: docs/logs.md (`connection` and `request` lines
 * of inbound listeners) or docs/audit.md. Pure; a line is somebody's file, so all of it is checked.
 */
#ifndef POSTERN_POLICY_RECORD_H
#define POSTERN_POLICY_RECORD_H

#include <jansson.h>
#include <postern/policy.h>

struct policy_record {
    json_t *line;              /* owned; everything else is lent from it */
    struct policy_query query; /* of logs without query, headers and claims: they have none */
    struct policy_headers
        headers; /* what a proxy tells of a denial has those that rules ask about */
    struct policy_claims claims;
    struct policy_header *header_items, *claim_items; /* owned */
    bool allowed;
    bool path_cut;        /* the log has its beginning only */
    const char *rule;     /* that decided then; NULL: none */
    const char *decision; /* its id; NULL: none is written */
    const char *ts;
    struct sockaddr_storage source;
};

enum policy_record_kind {
    POLICY_RECORD_DECISION,
    POLICY_RECORD_OTHER, /* a line of ours, or of somebody else's, that is no decision of a policy
                          */
    POLICY_RECORD_BAD,   /* no JSON, or a decision without what makes one */
};

/* DECISION: *ret is filled, and policy_record_deinit is due. */
enum policy_record_kind policy_record_parse(struct str line, struct policy_record *ret);
void policy_record_deinit(struct policy_record *r);

#endif
