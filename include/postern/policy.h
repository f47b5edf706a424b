/*
 * policy: may this peer do this thing here?
 *
 * A policy is compiled once from its file into an immutable structure and then asked by any number
 * of threads without a lock: nothing is allocated and nothing is written while deciding. Default
 * deny: a DENY rule that matches wins, else an ALLOW rule that matches, else it is denied.
 *
 * A connection can be judged before a request is known (`http` false). A rule with request clauses
 * (methods, hosts, paths) is then about something that is not there: it neither allows nor denies;
 * policy_wants_requests tells the caller that the port must be judged by request.
 *
 * A clause about an identity that the peer does not have is false, positive or `not`, in ALLOW; in
 * DENY a `not` clause is true for a peer without one, so that leaving out a certificate never
 * helps.
 *
 * Bytes are judged as they are: the caller passes what the HTTP reader made for judging (host and
 * judged_path of http1), and refuses ambiguous requests before asking.
 *
 * The whole language, who may do what, and the attack cases: docs/authorization.md.
 */
#ifndef POSTERN_POLICY_H
#define POSTERN_POLICY_H

#include <netinet/in.h>
#include <postern/conf.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct policy;

struct policy_query {
    struct str target;             /* own SPIFFE ID: whose policy this is */
    struct str peer;               /* verified SPIFFE ID, empty: none */
    const struct sockaddr *source; /* of the connection as seen here; NULL: unknown */
    uint16_t port;                 /* the workload's port */
    bool http;                     /* the three below are set */
    struct str method;
    struct str host; /* without port; a final dot and case do not count */
    struct str path; /* without query, decoded once: http1's judged_path */
};

enum policy_reason {
    POLICY_ALLOWED,        /* by an ALLOW rule */
    POLICY_DENIED_BY_RULE, /* a DENY rule matched */
    POLICY_NO_RULE,        /* nothing allowed it */
    POLICY_NONE_LOADED,    /* there is no policy at all */
};

struct policy_verdict {
    bool allow;
    enum policy_reason reason;
    const char *rule; /* the rule that decided; NULL: none. Lives as long as the policy. */
    unsigned rule_line;
    uint64_t rule_key;     /* of what it says, wherever it stands; 0: none */
    uint64_t narrowed_key; /* of a second policy's that narrows (snapshot_decide) */
};

/* The whole is built before it is returned; conf is not kept. Owned by the caller; shared by const
 * pointer. */
struct policy *policy_new(const struct conf_policy *conf, struct err *err);
struct policy *policy_free(struct policy *p);

/* policy NULL: POLICY_NONE_LOADED. */
void policy_decide(const struct policy *p, const struct policy_query *q,
                   struct policy_verdict *ret);
/* Whether any rule that can concern this target and port has a request clause. */
bool policy_wants_requests(const struct policy *p, struct str target, uint16_t port);

/* --- what differs between two (policy_compare.c) ------------------------------------------------
 * For connections that `before` allowed: whoever is not concerned is allowed by `now` too. */
enum policy_who_form { POLICY_WHO_EXACTLY, POLICY_WHO_PREFIX, POLICY_WHO_SUFFIX };
/* Principals, or (domain) those of trust domains. */
struct policy_who {
    enum policy_who_form form;
    bool domain;
    char *text; /* owned */
};
bool policy_who_has(const struct policy_who *who, struct str id);
struct policy_change {
    bool everybody; /* it cannot be said of whom */
    bool requests;  /* a rule with request clauses came, of either kind: ports may be judged by
                     * request now that were not (policy_wants_requests) */
    uint64_t *gone; /* owned, ascending: ALLOW rules that are no more, by rule_key */
    size_t n_gone;
    struct policy_who *denied; /* owned: whom DENY rules that came can be about */
    size_t n_denied;
};
/* Either may be NULL. */
void policy_compare(const struct policy *before, const struct policy *now,
                    struct policy_change *ret);
void policy_change_deinit(struct policy_change *c);

/* Why it is so, for people: the deciding rule, or the nearest ALLOW rule and its first clause that
 * failed. A few lines of text. Off the data path (denials only); allocates in `out`. */
bool policy_explain(const struct policy *p, const struct policy_query *q, struct buf *out);
/* The one-clause near miss ("rule R: principal is not among ..."), for the log line; cut to size.
 */
void policy_near_miss(const struct policy *p, const struct policy_query *q, char *ret_text,
                      size_t size);

#endif
