/*
 * classes: which values of a fact policies can tell apart. Of each fact a list of values such that
 * any other value is judged like one of them, by every rule of every policy that they were made of.
 * Names of headers, parameters and claims are a fact each. Of these, values that come several
 * times: every combination if there are at most CLASSES_EACH, else two at most.
 */
#ifndef POSTERN_POLICY_CLASSES_OF_H
#define POSTERN_POLICY_CLASSES_OF_H

#include <postern/policy.h>

enum { CLASSES_EACH = 6, CLASSES_FACTS_MAX = 96, CLASSES_POLICIES_MAX = 2 };

enum fact_kind {
    FACT_TARGET,
    FACT_PORT,
    FACT_PEER, /* with all that principals, namespaces, accounts and trust domains say of it */
    FACT_SOURCE,
    FACT_METHOD,
    FACT_HOST,
    FACT_PATH, /* and whether it is gRPC */
    FACT_QUERY,
    FACT_HEADER,
    FACT_CLAIM,
};
static inline bool fact_is_request(enum fact_kind k)
{
    return k >= FACT_METHOD;
}

enum class_kind {
    CLASS_EXACT,   /* this very value is written somewhere */
    CLASS_PATTERN, /* stands for all that patterns hold alike; `like` is the narrowest */
    CLASS_OTHER,   /* stands for all that nothing written holds */
    CLASS_MISSING,
    /* Of each fact of its kind at once: a query that servers read in two ways; no token at all. */
    CLASS_UNKNOWN,
};
struct class_value {
    enum class_kind kind;
    bool grpc;   /* FACT_PATH */
    char *value; /* owned; NULL: missing; of named facts: values, each ended by a newline */
    char *like;  /* owned; NULL: of the other kinds */
    uint16_t port;
    struct sockaddr_storage source;
};
struct fact {
    enum fact_kind kind;
    char *name; /* owned; NULL: it has none */
    struct class_value *classes;
    size_t n, cap;
};
struct classes {
    struct fact facts[CLASSES_FACTS_MAX];
    size_t n;
};

/* NULL: it is more than is looked at; err says what. */
struct classes *classes_new(const struct conf_policy *const *confs, size_t n, struct err *err);
struct classes *classes_free(struct classes *c);

/* A question: choice[i] is the class of fact i. It borrows from the room, which is reused. */
struct class_room {
    struct buf text;
    struct policy_header headers[CLASSES_FACTS_MAX * 8], claims[CLASSES_FACTS_MAX * 8];
    struct policy_headers header_list;
    struct policy_claims claim_list;
};
void classes_question(const struct classes *c, const size_t *choice, bool http,
                      struct class_room *room, struct policy_query *ret);

#endif
