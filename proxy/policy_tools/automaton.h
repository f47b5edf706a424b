/*
 * automaton: which texts a set of patterns can tell apart. All patterns are followed at once, over
 * every text there could be, and for each combination of patterns that some text is held by one
 * such text is found, a shortest one. Exact: what is not found does not exist (but for texts that
 * their domain forbids, where that is said). Bounded.
 */
#ifndef POSTERN_POLICY_AUTOMATON_H
#define POSTERN_POLICY_AUTOMATON_H

#include <postern/str.h>

enum element_kind {
    ELEMENT_CHAR,
    ELEMENT_ONE, /* one byte that is no slash */
    ELEMENT_SEG, /* any number of these */
    ELEMENT_ANY, /* any number of bytes */
    ELEMENT_END,
};

struct element {
    uint8_t kind;
    uint8_t c;      /* CHAR */
    uint32_t which; /* END: the caller's number of the pattern */
};

struct automaton {
    struct element *items; /* owned: one pattern behind the other, each with its END */
    uint32_t *starts;      /* owned */
    size_t n, cap, n_starts, cap_starts;
};

void automaton_deinit(struct automaton *a);
/* A pattern is a call of begin, of the others in its order, and of end. */
void automaton_begin(struct automaton *a);
void automaton_put(struct automaton *a, enum element_kind kind);
void automaton_put_text(struct automaton *a, struct str text);
void automaton_end(struct automaton *a, uint32_t which);

/* Which texts there are. */
enum automaton_domain {
    AUTOMATON_TEXT,   /* any that is not empty */
    AUTOMATON_SPIFFE, /* what follows spiffe:// */
    AUTOMATON_PATH,   /* what follows the first slash */
};

/* text: terminated; which: ascending, the patterns that hold it. */
typedef void (*automaton_fn)(void *arg, const char *text, const uint32_t *which, size_t n);
/* Texts that begin with `start` and go on as the domain has it. false: there is more to it than is
 * looked at. */
bool automaton_run(const struct automaton *a, enum automaton_domain domain, const char *start,
                   automaton_fn on_text, void *arg);

#endif
