/*
 * policy_explanation: why a verdict is what it is, as data, and the smallest change to the file
 * that turns it.
 *
 * For tools that have the file: `conf` is what `p` was made of. It allocates and it compiles
 * changed policies, so it has no place on the data path (there: policy_near_miss). Nothing of it is
 * kept by anybody; texts that are not said to be owned are lent by conf and p, which outlive it.
 */
#ifndef POSTERN_POLICY_EXPLANATION_H
#define POSTERN_POLICY_EXPLANATION_H

#include <postern/policy.h>

/* In the order in which a rule is read. */
enum policy_clause {
    POLICY_CLAUSE_TARGET, /* its principals */
    POLICY_CLAUSE_PRINCIPALS,
    POLICY_CLAUSE_NAMESPACES,
    POLICY_CLAUSE_SERVICE_ACCOUNTS,
    POLICY_CLAUSE_TRUST_DOMAINS,
    POLICY_CLAUSE_IP_BLOCKS,
    POLICY_CLAUSE_CLAIMS,
    POLICY_CLAUSE_PORTS,
    POLICY_CLAUSE_METHODS,
    POLICY_CLAUSE_HOSTS,
    POLICY_CLAUSE_PATHS,
    POLICY_CLAUSE_QUERY,
    POLICY_CLAUSE_HEADERS,
    POLICY_CLAUSE_GRPC,
    POLICY_CLAUSE_NONE, /* and how many there are */
};
/* As it is called in the file: "principals", "not_paths". */
const char *policy_clause_name(enum policy_clause clause, bool negative);

enum policy_why {
    POLICY_WHY_OTHER,      /* the fact is there, and not what is asked for */
    POLICY_WHY_MISSING,    /* it is not there, or not known */
    POLICY_WHY_NO_REQUEST, /* the clause is about requests, and this is a connection */
};

enum { POLICY_ENTRY_NONE = -1 };

/* A clause that does not hold. */
struct policy_failure {
    enum policy_clause clause;
    bool negative;
    long entry;       /* which of the rule's `from` or `to`; POLICY_ENTRY_NONE: the target */
    const char *name; /* of the header, parameter or claim; NULL: the clause has none */
    char **items;     /* owned: what the list says, as a file would say it */
    size_t n_items;
    enum policy_why why;
    char *actual; /* owned: the fact, as a file would say it; NULL: it is missing */
};

/* A rule that was looked at. */
struct policy_look {
    size_t rule; /* in conf->rules */
    bool ended;  /* its time is over: it is not there */
    bool matched;
    bool decided;
    struct policy_failure *failures; /* owned: of its nearest entries, in the order of reading */
    size_t n_failures;               /* 0: it matched, or it has ended */
};

enum policy_edit_kind {
    POLICY_EDIT_ADD_ITEM,    /* to a list, which may be absent so far */
    POLICY_EDIT_REMOVE_ITEM, /* from a list that holds others as well; or the list with its last */
    POLICY_EDIT_ADD_RULE,
    POLICY_EDIT_REMOVE_RULE,
};

struct policy_edit {
    enum policy_edit_kind kind;
    size_t rule; /* in conf->rules; of ADD_RULE the first is n_rules, and so on */
    enum policy_clause clause;
    bool negative;
    long entry; /* of `from` or `to`; POLICY_ENTRY_NONE: of the target, or the rule has none yet */
    const char *name;           /* of the header, parameter or claim */
    char *item;                 /* owned; NULL: `present` */
    struct conf_rule *new_rule; /* ADD_RULE: owned */
};

struct policy_explanation {
    struct policy_verdict verdict;
    struct policy_look *looks; /* owned: the rules that speak of this target, as far as looked at */
    size_t n_looks;
    bool more;                 /* there are more than were looked at */
    struct policy_edit *edits; /* owned: the smallest change that turns the verdict */
    size_t n_edits;
    bool turns; /* and it does: the changed policy was asked */
};

/* Cannot fail, but for `turns`. p may not be NULL. */
struct policy_explanation *policy_explanation_new(const struct conf_policy *conf,
                                                  const struct policy *p,
                                                  const struct policy_query *q);
struct policy_explanation *policy_explanation_free(struct policy_explanation *e);
/* One line for people: what to do to the file. */
bool policy_edit_text(const struct conf_policy *conf, const struct policy_edit *edit,
                      struct buf *out);

/* What the file says with these edits: for policy_new. It lends from conf and edits what did not
 * change. */
struct policy_edited;
struct policy_edited *policy_edited_new(const struct conf_policy *conf,
                                        const struct policy_edit *edits, size_t n);
const struct conf_policy *policy_edited_conf(const struct policy_edited *e);
struct policy_edited *policy_edited_free(struct policy_edited *e);

#endif
