/*
 * policy_question: a question to a policy, with room for all that it borrows: one that somebody
 * made up, or one out of a log. Owned by whoever made it; thread: any.
 */
#ifndef POSTERN_POLICY_QUESTION_H
#define POSTERN_POLICY_QUESTION_H

#include <postern/conf_policy_test.h>
#include <postern/http1.h>
#include <postern/mem.h>
#include <postern/policy.h>

struct policy_question {
    struct policy_query query;
    enum http1_reason refused; /* not HTTP1_NONE: a proxy refuses it before it asks any policy */

    /* Private. */
    struct buf head;
    struct http1_request request;
    struct http1_scan scan;
    struct policy_headers headers;
    struct policy_claims claims;
    struct policy_header *header_items, *claim_items; /* owned */
    struct sockaddr_storage source;
    char *texts; /* owned */
};

/* The request lives longer. Its head is read as a proxy reads it. */
struct policy_question *policy_question_of(const struct conf_policy_request *r, int64_t now_s);
struct policy_question *policy_question_free(struct policy_question *q);
MEM_DEFINE_CLEANUP(struct policy_question, policy_question_free)

#endif
