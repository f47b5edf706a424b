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
 * What is not known never helps: a clause about it is false in ALLOW, positive or `not`, and true
 * in DENY. A peer without identity is known to have none: positive clauses about it are false in
 * both. Claims without a verified token, and a header, query parameter or claim that is not there,
 * are taken like such an identity; `present` alone asks whether it is there. AUDIT counts as DENY.
 *
 * `query`, `headers` and `claims` are lists of clauses, each with a name: every one has to hold, by
 * any of its values. A header or parameter that comes several times: ALLOW wants all of them to be
 * among the values and none among a `not`; DENY is content with one. A claim is a set, signed as a
 * whole: one value that matches is enough, and one is too much for a `not`.
 *
 * A rule that has ended is not there. A dry-run rule never decides: `shadow` says what would have
 * been if it did. AUDIT never decides either: `audit` names it.
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

struct policy_header {
    struct str name, value; /* a name in lower case; a value without outer white space */
};
/* As they came, the same name as often as it came. */
struct policy_headers {
    size_t n;
    const struct policy_header *items;
};
/* Of a token that was verified. A nested claim's name is its path ("realm_access.roles"); a list is
 * one item an element, under the same name; numbers and booleans are text. */
struct policy_claims {
    size_t n;
    const struct policy_header *items;
};

struct policy_query {
    struct str target;             /* own SPIFFE ID: whose policy this is */
    struct str peer;               /* verified SPIFFE ID, empty: none */
    const struct sockaddr *source; /* of the connection as seen here; NULL: unknown */
    uint16_t port;                 /* the workload's port */
    int64_t now_s;                 /* by the clock of the wall; 0: not known */
    bool http;                     /* those below are set */
    bool grpc;                     /* POST, with a content-type that begins with application/grpc */
    struct str method;
    struct str host;  /* without port; a final dot and case do not count */
    struct str path;  /* without query, decoded once: http1's judged_path */
    struct str query; /* as it came, without its "?"; p NULL: not known, "" is none */
    const struct policy_headers *headers; /* NULL: not known */
    const struct policy_claims *claims;   /* NULL: there is no verified token */
};

enum policy_reason {
    POLICY_ALLOWED,        /* by an ALLOW rule */
    POLICY_DENIED_BY_RULE, /* a DENY rule matched */
    POLICY_NO_RULE,        /* nothing allowed it */
    POLICY_NONE_LOADED,    /* there is no policy at all */
};

/* What would have been if dry-run rules decided. */
enum policy_shadow {
    POLICY_SHADOW_SAME,
    POLICY_SHADOW_ALLOW, /* denied, and would have been allowed by shadow_rule */
    POLICY_SHADOW_DENY,  /* allowed, and would have been denied by shadow_rule */
};

/* Texts live as long as the policy. */
struct policy_verdict {
    bool allow;
    enum policy_reason reason;
    const char *rule; /* the rule that decided; NULL: none */
    unsigned rule_line;
    const char *rule_reason; /* its `reason`; NULL: it has none */
    uint64_t rule_key;       /* of what it says, wherever it stands; 0: none */
    uint64_t narrowed_key;   /* of a second policy's that narrows (snapshot_decide) */
    const char *audit;       /* the first AUDIT rule that matched; NULL: none */
    enum policy_shadow shadow;
    const char *shadow_rule; /* NULL: POLICY_SHADOW_SAME */
};

/* The whole is built before it is returned; conf is not kept. Owned by the caller; shared by const
 * pointer. */
struct policy *policy_new(const struct conf_policy *conf, struct err *err);
struct policy *policy_free(struct policy *p);

/* policy NULL: POLICY_NONE_LOADED. */
void policy_decide(const struct policy *p, const struct policy_query *q,
                   struct policy_verdict *ret);
/* When the next rule ends, by the clock of the wall: later than now_s; 0: none does. */
int64_t policy_next_expiry(const struct policy *p, int64_t now_s);
/* What of a request rules ask about at all: what no rule asks about need not be gathered. */
struct policy_needs {
    bool query, headers, claims;
};
struct policy_needs policy_needs(const struct policy *p);
/* Whether any rule that can concern this target and port has a request clause (claims are one). */
bool policy_wants_requests(const struct policy *p, struct str target, uint16_t port);

/* --- what differs between two (policy_compare.c) ------------------------------------------------
 * For connections that `before` allowed: whoever is not concerned is allowed by `now` too. */
enum policy_who_form { POLICY_WHO_EXACTLY, POLICY_WHO_PREFIX, POLICY_WHO_SUFFIX };
/* What of an identity. */
enum policy_who_part {
    POLICY_WHO_ID,
    POLICY_WHO_DOMAIN,
    POLICY_WHO_NAMESPACE,
    POLICY_WHO_ACCOUNT,
};
struct policy_who {
    enum policy_who_form form;
    enum policy_who_part part;
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
/* Adds the ALLOW rules that have ended since `before_s`, up to `now_s`. */
void policy_compare_time(const struct policy *p, int64_t before_s, int64_t now_s,
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
