/* policy_lists: the lists of a parsed rule by the clause that they are. */
#ifndef POSTERN_POLICY_LISTS_H
#define POSTERN_POLICY_LISTS_H

#include <postern/policy_explanation.h>

#include "policy_priv.h"

/* One of them is set; none: the rule has no such entry. */
struct policy_list {
    struct conf_strings *strings;
    uint16_t **ports;
    size_t *n_ports;
    struct conf_cidrs *blocks;
    struct conf_policy_values *values;
};

static inline bool policy_clause_is_from(enum policy_clause c)
{
    return c >= POLICY_CLAUSE_PRINCIPALS && c <= POLICY_CLAUSE_CLAIMS;
}
enum dim policy_clause_dim(enum policy_clause c);
struct policy_list policy_list_of(struct conf_rule *r, enum policy_clause c, bool negative,
                                  long entry);
/* What of an entry fails: positive, or its not_ list; named ones one element after the other. */
typedef void policy_failed_fn(void *arg, enum policy_clause c, bool negative, long entry,
                              const struct conf_policy_value *value);
/* Of the rule's nearest entries, in the order of reading. Returns how many fail. */
unsigned policy_each_failure(struct ask *a, const struct conf_policy *conf, size_t rule,
                             policy_failed_fn *fn, void *arg);

/* The fact as an item of the clause that holds it and nothing else; owned; NULL: there is none, or
 * it cannot be written. Of ports and addresses as well. */
char *policy_fact_item(const struct policy_query *q, enum policy_clause c);
char *policy_block_text(const struct conf_cidr *block); /* owned */

#endif
