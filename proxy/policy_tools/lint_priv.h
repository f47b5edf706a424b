/* lint_priv: what the files of lint share: lint.c (the order of things, and telling), lint_text.c
 * (what is doubtful as it stands there), lint_cover.c (what no question, or no other, is held by).
 */
#ifndef POSTERN_POLICY_LINT_PRIV_H
#define POSTERN_POLICY_LINT_PRIV_H

#include <postern/policy_tools.h>

#include "fmt_priv.h"

struct lint {
    const struct conf_policy *conf;
    const struct policy_lint_options *options;
    struct str text;
    struct fmt_doc doc; /* root NULL: no places */
    struct policy_findings *found;
};

/* Where something stands: in a rule, and there maybe in a list of an entry. */
struct lint_place {
    size_t rule;         /* in conf->rules */
    const char *section; /* "from", "to", "target"; NULL: the rule */
    size_t entry;
    const char *key; /* "principals"; NULL: the entry */
    size_t item;     /* SIZE_MAX: the list */
};
void lint_add(struct lint *l, enum policy_finding_code code, bool error,
              const struct lint_place *at, char *advice, char *what);

void lint_texts(struct lint *l);
void lint_cover(struct lint *l);

#endif
