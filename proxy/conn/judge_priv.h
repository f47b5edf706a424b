/*
 * Who may, part of conn_priv.h:
 *
 *   judge.c    asking the policy, again after a change      audit.c     decisions for the audit log
 *   rejudge.c  whom a change concerns                       denied.c    denials, to be explained
 */
#ifndef POSTERN_CONN_JUDGE_PRIV_H
#define POSTERN_CONN_JUDGE_PRIV_H

#include <postern/conn.h>
#include <postern/policy.h>
#include <postern/str.h>

struct conn_worker;
struct live_index;
struct snapshot_change;

enum { CONN_DECISION_TEXT = 33 };

struct conn;
struct conn_leg;

/* What a refusal says in the log. */
struct conn_denial {
    char decision[CONN_DECISION_TEXT];
    char near_miss[240];
};

/* --- judge.c ---------------------------------------------------------------------------------- */
/* For what is said of a refusal; NULL: no memory. Lent. */
struct conn_denial *conn_denial_new(struct conn *c);
/* The connection by itself; fills verdict, and for a denial decision and near miss. */
bool conn_judge(struct conn *c);
void conn_decision_new(struct conn_worker *w, char ret_text[CONN_DECISION_TEXT]);
struct str conn_peer_id(const struct conn *c);
/* Of a relay: who answered upstream. */
struct str conn_upstream_id(const struct conn *c);
struct str conn_own_id(const struct conn *c);
/* The port that policies speak of. Of a target that has none it is the listener's. */
uint16_t conn_port(const struct conn *c);
/* The address likewise; NULL: it has none. */
const struct sockaddr *conn_source(const struct conn *c);
/* Whether its peer, as far as it is known, or this process itself is quarantined. */
bool conn_quarantined(const struct conn *c);
/* After a change: moves it to the current snapshot. CONN_CLOSE_DONE if it may stay, else why not.
 */
enum conn_reason conn_rejudge(struct conn *c);
/* The same of one that the change does not concern. False: it has to be judged all the same. */
bool conn_move(struct conn *c);

/* --- audit.c ----------------------------------------------------------------------------------
 * A decision for the audit log, where there is one. Each is called once a decision, when it is
 * made.
 */
struct conn_audit {
    const struct policy_verdict *verdict; /* NULL: a denial without one */
    const char *protocol;                 /* "tcp", "http1", "http2" */
    struct str method, host, path;        /* of a request, as judged */
    char *decision;                       /* CONN_DECISION_TEXT; made and filled in if it is empty
                                           * and the decision is recorded; NULL: nobody's */
    const char *near_miss;                /* of a denial; NULL: not known */
    const char *reason;                   /* NULL: the verdict's */
    bool ended;                           /* it was allowed, and is ended after a change */
    bool refused;                         /* the verdict allows it, and something else says no:
                                           * `reason` */
};
/* By c->verdict and c->denial; reason NULL: the verdict's. */
void conn_audit_connection(struct conn *c, const char *reason);
void conn_audit_request(struct conn *c, const struct conn_audit *a);
/* It was allowed, and is ended after a change. */
void conn_audit_ended(struct conn *c, enum conn_reason reason);

/* --- denied.c ----------------------------------------------------------------------------------
 * A denial, kept for whoever asks why (docs/policy-tools.md): what rules ask about, and no
 * credentials. */
struct conn_denied {
    const struct policy_query *query;
    const struct policy_verdict *verdict;
    char *decision;       /* CONN_DECISION_TEXT; made if it is empty */
    const char *protocol; /* "tcp", "http1", "http2" */
    const char *reason;   /* NULL: the verdict's */
    bool other_reading;   /* its path is the second one */
};
void conn_denied(struct conn *c, const struct conn_denied *d);
/* The connection is denied by something else than a rule: kept, recorded and closed with that
 * reason (judge.c). */
void conn_close_denied(struct conn *c, enum conn_reason reason);
/* What is asked of the policy about a connection; of a request there is more (judge.c). */
void conn_query(const struct conn *c, struct policy_query *ret);
/* A request, and where its outcome goes. */
struct conn_question {
    struct policy_query *query;
    struct str other_path; /* a second reading of its path; n 0: there is none */
    const char *protocol;
    struct policy_verdict *verdict;
    char *decision;  /* CONN_DECISION_TEXT; made if it is empty and the answer is no */
    char *near_miss; /* what would have allowed it but for a clause, or "" */
    size_t near_miss_size;
};
/* A path that has a second reading has to be allowed by both. A denial is kept. */
bool conn_judge_request(struct conn *c, const struct conn_question *ask);
/* The word for a verdict in logs. */
const char *conn_verdict_word(const struct policy_verdict *v);

/* --- rejudge.c -------------------------------------------------------------------------------- */
/* Its peer is known (again): for the index, and the end of the certificates. */
void conn_live_known(struct conn *c);
/* It is allowed, and by what. */
void conn_live_allowed(struct conn *c);
/* Before what it does next is decided: by what holds now. False: it is closed. */
bool conn_catch_up(struct conn *c);
/* Marks whom it concerns; c NULL, or not of the snapshot `since`: all. */
void live_mark_change(struct live_index *x, const struct snapshot_change *c, uint64_t since);
/* After the current snapshot has become another one than that of generation `since`. */
void worker_concern(struct conn_worker *w, uint64_t since);
/* A millisecond's, and no more cuts than that: each is two resets and a line. */
enum { CONN_CUTS_A_TURN = 64 };
void worker_rejudge(void *worker);

#endif
