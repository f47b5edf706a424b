/* policy_proposal: the smallest change that turns a verdict. */
#ifndef POSTERN_POLICY_PROPOSAL_H
#define POSTERN_POLICY_PROPOSAL_H

#include <postern/policy_explanation.h>

/* *ret is owned; each is ended with policy_edit_deinit. False: the changed policy says the same. */
bool policy_propose(const struct conf_policy *conf, const struct policy *p,
                    const struct policy_query *q, const struct policy_verdict *v,
                    struct policy_edit **ret, size_t *ret_n);
void policy_edit_deinit(struct policy_edit *edit);

#endif
