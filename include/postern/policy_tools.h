/*
 * policy_tools: what people do with policies before a proxy has them: format, look for what is
 * doubtful, hold against expectations, compare, try on what was logged, and make from it.
 *
 * Pure: bytes and parsed files in, text out through a buf; no file is opened here, nothing is
 * asked. A command's output, exit status and limits: docs/policy-tools.md. Everything is bounded,
 * and where a bound is reached the answer is "not known", never "no difference" or "nothing found".
 * Thread: any. Failures fill a struct err.
 */
#ifndef POSTERN_POLICY_TOOLS_H
#define POSTERN_POLICY_TOOLS_H

#include <postern/buf.h>
#include <postern/conf_policy_test.h>
#include <postern/err.h>
#include <postern/policy.h>
#include <postern/policy_convert.h>
#include <postern/policy_record.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>

enum { POLICY_TOOLS_TEXT_MAX = 64 << 20 };

/* --- fmt ---------------------------------------------------------------------------------------
 */
/* The canonical form of a Policy file that conf_parse_policy has taken: means the same, has the
 * same comments, and is its own canonical form. -1: it cannot be had without losing something. */
int policy_fmt(const char *name, struct str text, struct buf *out, struct err *err);

/* --- convert -----------------------------------------------------------------------------------
 */
/* policy_convert_write, in the canonical form and proved by the engine. */
int policy_converted_print(struct policy_convert *c, struct buf *out, struct err *err);

/* --- test --------------------------------------------------------------------------------------
 */
enum policy_test_form { POLICY_TEST_TEXT, POLICY_TEST_TAP, POLICY_TEST_JUNIT };
struct policy_test_result {
    bool ok;
    char *said;        /* owned: what was expected, and what came; NULL: ok */
    char *explanation; /* owned: why it came, in lines; NULL: ok */
};
/* One a case, in their order; freed with policy_test_results_free. p is what conf was made into. */
struct policy_test_result *policy_test_run(const struct conf_policy_test *test,
                                           const struct conf_policy *conf, const struct policy *p,
                                           int64_t now_s);
void policy_test_results_free(struct policy_test_result *results, size_t n);
size_t policy_test_failed(const struct policy_test_result *results, size_t n);
/* False: it does not fit. */
bool policy_test_print(const struct conf_policy_test *test,
                       const struct policy_test_result *results, enum policy_test_form form,
                       struct buf *out);

/* --- explain -----------------------------------------------------------------------------------
 */
/* Rules that speak of the target, the first clause that failed in each, the one that decided, and
 * the smallest change that turns it. False: it does not fit. */
bool policy_tools_explain(const struct conf_policy *conf, const struct policy *p,
                          const struct policy_query *q, bool json, struct buf *out);

/* --- lint --------------------------------------------------------------------------------------
 */
struct policy_lint_options {
    int64_t now_s;
    const struct conf_proxy *proxy; /* or gateway, whose ports it is for; NULL: not known */
    const struct conf_mesh *mesh;   /* NULL: not known */
};
enum policy_finding_code {
    POLICY_FINDING_EXPIRED,       /* the rule has ended */
    POLICY_FINDING_DEAD,          /* no question is held by it */
    POLICY_FINDING_CONTRADICTORY, /* an ALLOW of which DENY rules take everything */
    POLICY_FINDING_SHADOWED,      /* other rules say it already */
    POLICY_FINDING_TCP_PORT,      /* it asks about requests on a port that is declared tcp */
    POLICY_FINDING_ANYONE,        /* it allows whoever comes */
    POLICY_FINDING_WIDE_PATTERN,  /* a star that takes more than it looks like */
    POLICY_FINDING_DENY_ENDS,     /* what is denied today is not from some day on */
    POLICY_FINDING_UNKNOWN_DOMAIN,
    POLICY_FINDING_UNUSED_ROLE,
    POLICY_FINDING_NOT_KNOWN, /* too large to look for dead and shadowed rules */
    POLICY_FINDING_COUNT,
};
const char *policy_finding_name(enum policy_finding_code code);
struct policy_finding {
    enum policy_finding_code code;
    bool error;            /* else a doubt */
    const char *rule;      /* lent from conf; NULL: of the file */
    unsigned line, column; /* 0: not known */
    char *what, *advice;   /* owned; advice NULL: none */
};
struct policy_findings {
    struct policy_finding *items; /* owned, in the order of the file */
    size_t n, cap;
};
/* text is what conf was read from, for the places. */
void policy_lint(const struct conf_policy *conf, struct str text,
                 const struct policy_lint_options *o, struct policy_findings *ret);
void policy_findings_deinit(struct policy_findings *f);
bool policy_findings_print(const struct policy_findings *f, const char *file, bool json,
                           struct buf *out);

/* --- diff --------------------------------------------------------------------------------------
 */
struct policy_diff_options {
    int64_t now_s;
    size_t max; /* so many differences are told, the others are counted */
    bool json;
};
/* Who gains and who loses what from `before` to `now`, as verdicts, also of a later time when rules
 * have ended. *ret_differences 0: no question is answered differently. -1: it is more than can be
 * looked at, and nothing is known. */
int policy_diff(const struct conf_policy *before, const struct conf_policy *now,
                const struct policy_diff_options *o, struct buf *out, size_t *ret_differences,
                struct err *err);

/* --- replay ------------------------------------------------------------------------------------
 */
struct policy_replay;
/* conf and p live longer; p is what conf was made into. NULL: err says why. */
struct policy_replay *policy_replay_new(const struct conf_policy *conf, const struct policy *p,
                                        int64_t now_s, struct err *err);
struct policy_replay *policy_replay_free(struct policy_replay *r);
void policy_replay_add(struct policy_replay *r, const struct policy_record *record);
/* How many decisions were added, and how many of them the policy would make otherwise, or may. */
struct policy_replay_count {
    size_t decisions, changed, maybe;
    bool too_many; /* edges beyond the bound are counted and not told apart */
};
void policy_replay_counts(const struct policy_replay *r, struct policy_replay_count *ret);
bool policy_replay_print(const struct policy_replay *r, bool json, struct buf *out);

/* --- suggest -----------------------------------------------------------------------------------
 */
struct policy_suggest_options {
    bool paths;  /* say which paths, with {} for what looks like an ID or takes many values */
    bool denied; /* what was denied is wanted too */
};
struct policy_suggest;
struct policy_suggest *policy_suggest_new(const struct policy_suggest_options *o);
struct policy_suggest *policy_suggest_free(struct policy_suggest *s);
void policy_suggest_add(struct policy_suggest *s, const struct policy_record *r);
struct policy_suggest_count {
    size_t taken, denied;
    size_t no_identity; /* no ALLOW rule can speak of these alone */
    size_t unspeakable; /* whose name is no exact principal */
    bool too_many;      /* what came last is left out */
};
void policy_suggest_counts(const struct policy_suggest *s, struct policy_suggest_count *ret);
/* A Policy file. It allows what was added and counted as taken and, by identity, port and method,
 * nothing else. -1: it would be larger than a file may be. */
int policy_suggest_write(const struct policy_suggest *s, struct buf *out, struct err *err);

#endif
