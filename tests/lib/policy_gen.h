/* policy_gen: random policies of the whole language, and questions to them, as few and as alike
 * names as make them meet. */
#ifndef TESTS_POLICY_GEN_H
#define TESTS_POLICY_GEN_H

#include "policy_rows.h"

struct policy_gen {
    uint64_t state; /* a seed, not 0 */
};
/* What a question borrows. */
struct policy_gen_room {
    struct policy_header header_items[4], claim_items[4];
    struct policy_headers headers;
    struct policy_claims claims;
};

uint32_t policy_gen_below(struct policy_gen *g, uint32_t n);
/* Freed with policy_rows_free. */
struct conf_policy *policy_gen_conf(struct policy_gen *g);
/* Of many rules that ask about few facts: alike in what they ask about, not in what they ask for.
 */
struct conf_policy *policy_gen_large(struct policy_gen *g, uint32_t n);
struct question policy_gen_question(struct policy_gen *g, struct policy_gen_room *room);

#endif
