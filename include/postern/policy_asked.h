/* policy_asked: which fields of a request a policy's rules ask about, and which policy it is.
 * Thread: any; nothing is allocated. */
#ifndef POSTERN_POLICY_ASKED_H
#define POSTERN_POLICY_ASKED_H

#include <postern/policy.h>

/* Whether a rule asks about a header (its name in lower case), a claim, or a parameter (as it came)
 * of that name. p NULL: none does. */
bool policy_asks_header(const struct policy *p, struct str name);
bool policy_asks_claim(const struct policy *p, struct str name);
bool policy_asks_parameter(const struct policy *p, struct str name);
/* Cuts the first parameter off a query as it came. False: there is none left. *ret_one (may be
 * NULL) is all of it; a name without "=" has an empty value. Nothing is decoded. */
bool policy_query_take(struct str *rest, struct str *ret_one, struct str *ret_name,
                       struct str *ret_value);
/* A number that other rules, or the same at other lines or by other names, do not have but by
 * accident: for who has a file, to see whether it is this policy. */
uint64_t policy_fingerprint(const struct policy *p);

#endif
