/* space_gen: policies at random, few and alike so that they meet, as texts that can be shuffled;
 * and questions to them. */
#ifndef POSTERN_TEST_SPACE_GEN_H
#define POSTERN_TEST_SPACE_GEN_H

#include <postern/conf.h>
#include <postern/policy.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct space_gen {
    uint64_t state; /* a seed, not 0 */
};
unsigned space_gen_below(struct space_gen *g, unsigned n);

enum { SPACE_RULES_MAX = 8 };
struct space_rules {
    char *items[SPACE_RULES_MAX * 2]; /* owned */
    unsigned n;
};
struct space_rules space_gen_rules(struct space_gen *g);
void space_rules_free(struct space_rules *r);
/* If shuffled: in a random order, some of them twice under another name. *ret_text (may be NULL) is
 * the file, the caller's. */
struct conf_policy *space_gen_conf(struct space_gen *g, const struct space_rules *r, bool shuffled,
                                   char **ret_text);

/* What a question borrows. */
struct space_gen_room {
    struct sockaddr_storage source;
    struct policy_header items[2][4];
    struct policy_headers headers;
    struct policy_claims claims;
};
struct policy_query space_gen_question(struct space_gen *g, struct space_gen_room *room,
                                       int64_t now_s);

#endif
