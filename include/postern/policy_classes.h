/*
 * policy_classes: which values of a fact policies can tell apart.
 *
 * Of each fact, a list of values such that any other value is judged like one of them, by every
 * rule of every policy that the classes were made of: what is written, what patterns and blocks
 * hold beside that, anything else, and the fact that is missing. Whoever asks all policies about
 * all combinations has asked about everything; how to walk through the product without seeing all
 * of it is the caller's business. Header, query and claim names are a fact each.
 */
#ifndef POSTERN_POLICY_CLASSES_H
#define POSTERN_POLICY_CLASSES_H

#include <postern/policy_explanation.h>

struct policy_classes;

enum policy_class_kind {
    POLICY_CLASS_EXACT,   /* this very value is written somewhere */
    POLICY_CLASS_PATTERN, /* stands for all that patterns hold alike; `like` is the narrowest */
    POLICY_CLASS_OTHER,   /* stands for all that nothing written holds */
    POLICY_CLASS_MISSING,
};
struct policy_class {
    enum policy_class_kind kind;
    const char *value; /* for a question; NULL: missing. A port or address is text. */
    const char *like;  /* the pattern, as a file says it; NULL: of the other kinds */
};

/* One fact: `name` of a header, parameter or claim, else NULL. The peer is one fact, with all that
 * principals, namespaces, service accounts and trust domains say of it (clause PRINCIPALS). */
struct policy_fact {
    enum policy_clause clause;
    const char *name;
    const struct policy_class *classes;
    size_t n_classes;
};

/* confs are lent until it is freed. */
struct policy_classes *policy_classes_new(const struct conf_policy *const *confs, size_t n);
struct policy_classes *policy_classes_free(struct policy_classes *c);
size_t policy_classes_count(const struct policy_classes *c);
const struct policy_fact *policy_classes_fact(const struct policy_classes *c, size_t i);

/* A question of one class of each fact: choice[i] is of fact i. `room` holds what the question
 * borrows, and lives as long. */
struct policy_class_question;
struct policy_class_question *policy_class_question_new(const struct policy_classes *c);
struct policy_class_question *policy_class_question_free(struct policy_class_question *room);
/* http: a request; else a connection, of which facts of requests are no part. */
void policy_class_question_fill(struct policy_class_question *room, const size_t *choice, bool http,
                                struct policy_query *ret);

#endif
