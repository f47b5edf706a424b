/* classes_priv: what the files of classes share. */
#ifndef POSTERN_POLICY_CLASSES_OF_PRIV_H
#define POSTERN_POLICY_CLASSES_OF_PRIV_H

#include "automaton.h"
#include "classes.h"

/* Patterns of one fact, and how a file says each. */
struct shapes {
    struct automaton automaton;
    struct shape {
        const char *item; /* lent; of those that are only there to be told apart NULL */
        bool exact;
        size_t weight; /* bytes that are given */
    } *items;
    size_t n, cap;
};
void shapes_deinit(struct shapes *s);

/* classes_shape.c: items of a file as patterns of an automaton. */
void shape_text(struct shapes *s, const char *item, bool lower);
void shape_principal(struct shapes *s, const char *item);
void shape_namespace(struct shapes *s, const char *item, bool account);
void shape_domain(struct shapes *s, const char *item);
void shape_path(struct shapes *s, const char *item);
void shape_grpc(struct shapes *s, const char *item);
/* Any path that can be a method of gRPC: what it is told apart from is what cannot. */
void shape_method_path(struct shapes *s);

/* Texts of the domain that begin with `start`, as classes of the fact. */
bool shapes_run(const struct shapes *s, enum automaton_domain domain, const char *start,
                struct fact *f);
struct class_value *fact_add(struct fact *f, enum class_kind kind, const char *value,
                             const char *like);

/* classes_source.c */
int classes_sources(struct fact *f, const struct conf_policy *const *confs, size_t n);

#endif
