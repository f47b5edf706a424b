/*
 * space_priv: all questions that policies can tell apart, and a walk through them.
 *
 * Each fact of a question (who calls, which port, which path, ...) has a few classes of values that
 * no rule tells apart (classes.h). An *atom* is one conjunction of a rule: its target, one
 * of its from entries, one of its to entries. What an atom asks of a fact is the set of classes for
 * which it holds, and that is asked of the engine itself, one clause at a time: nothing here knows
 * what a pattern means.
 *
 * The walk decides one fact after the other and keeps the atoms that still can hold. Classes that
 * keep the same atoms are one branch, and a branch in which both sides ask the same of what is left
 * has no difference: so the product of all classes is not seen.
 */
#ifndef POSTERN_POLICY_SPACE_PRIV_H
#define POSTERN_POLICY_SPACE_PRIV_H

#include <postern/mem.h>
#include <postern/policy_tools.h>

#include "classes.h"

enum { SPACE_FACTS_MAX = CLASSES_FACTS_MAX, SPACE_SIDES_MAX = CLASSES_POLICIES_MAX, SET_ALL = 0 };

/* For which classes of a fact something holds; SET_ALL: for each. */
struct space_set {
    uint64_t *bits; /* owned */
    bool none;
};

struct space_atom {
    uint32_t rule;  /* in its policy */
    uint8_t side;   /* which policy */
    uint8_t action; /* enum conf_action */
    bool request;   /* it speaks of requests only */
    bool dead;      /* no question is held by it */
    uint32_t sets[SPACE_FACTS_MAX];
};

struct space {
    const struct conf_policy *confs[SPACE_SIDES_MAX];
    size_t n_confs;
    struct classes *classes;  /* its facts are in the order of the walk */
    struct space_atom *atoms; /* of side 0, then of side 1, each in the order of the file */
    size_t n_atoms, cap_atoms;
    struct space_set *sets; /* of all facts, by number */
    size_t n_sets, cap_sets;
};

/* Rules that take part: those that are in force and not in dry-run, if `all` does not say all.
 * NULL: it is more than can be looked at; err says what. confs outlive it. */
struct space *space_new(const struct conf_policy *const *confs, size_t n, struct err *err);
struct space *space_free(struct space *s);
MEM_DEFINE_CLEANUP(struct space, space_free)

static inline bool space_set_has(const struct space *s, uint32_t set, size_t class)
{
    return set == SET_ALL || (s->sets[set].bits[class / 64] >> (class % 64) & 1) != 0;
}

/* --- the walk ----------------------------------------------------------------------------------
 */
/* What is there at the end of one branch. */
struct space_end {
    const struct space *space;
    bool http;
    const uint64_t *const *chosen;         /* of each fact: its classes in this branch; NULL: all */
    const uint32_t *live[SPACE_SIDES_MAX]; /* atoms that hold */
    size_t n_live[SPACE_SIDES_MAX];
};
struct space_walk {
    const struct space *space;
    const uint32_t *atoms[SPACE_SIDES_MAX]; /* that take part, ascending */
    size_t n_atoms[SPACE_SIDES_MAX];
    /* Not NULL: only branches in which one of these is alive (they are among the atoms of side 0)
     * are walked, and no branch is left out for being the same. */
    const uint32_t *focus;
    size_t n_focus;
    uint64_t steps_left; /* 0 at the end: it gave up */
    /* false: enough is known, stop. */
    bool (*on_end)(void *arg, const struct space_end *end);
    void *arg;
};
/* false: it gave up, or was stopped (then steps_left is not 0). */
bool space_walk(struct space_walk *w);

/* The verdict of the atoms that hold: the first DENY, or the first ALLOW; UINT32_MAX: none. */
uint32_t space_decide(const struct space *s, const uint32_t *live, size_t n);

#endif
