/*
 * policy_ref: a second evaluator of policies, slow and plain, written from docs/authorization.md
 * over the parsed file. What proxy/policy answers must be what this answers.
 */
#ifndef TESTS_POLICY_REF_H
#define TESTS_POLICY_REF_H

#include <postern/policy.h>

/* The verdict; rule and line of the rule that decides are lent from conf. */
void policy_ref_decide(const struct conf_policy *conf, const struct policy_query *q,
                       struct policy_verdict *ret);
bool policy_ref_wants_requests(const struct conf_policy *conf, struct str target, uint16_t port);
/* How many clauses of this rule fail for its best pair of entries; 0: it matches. */
unsigned policy_ref_failed_clauses(const struct conf_rule *rule, const struct policy_query *q);

#endif
