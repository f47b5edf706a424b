/* lint_cover: rules that hold for no question, and rules that say what others say already. What is
 * reported can be removed, all of it at once, and no verdict changes: a rule that covers another is
 * not reported for being covered by that one. */
#include "lint_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "space_priv.h"

enum { STEPS_MAX = 40 * 1000 * 1000, COVERING_NAMED = 3 };

struct cover {
    struct lint *lint;
    const struct space *space;
    bool *gone; /* rules that were reported, or do not decide */
    uint32_t *rest;
    size_t n_rest;
    /* of the rule that is looked at */
    size_t rule;
    bool covered, by_deny_only;
    size_t by[COVERING_NAMED];
    size_t n_by;
};

static const struct conf_rule *rule_at(const struct cover *c, size_t i)
{
    return &c->space->confs[0]->rules[i];
}

static void note(struct cover *c, size_t by)
{
    for (size_t i = 0; i < c->n_by && i < COVERING_NAMED; i++) {
        if (c->by[i] == by) {
            return;
        }
    }
    if (c->n_by < COVERING_NAMED) {
        c->by[c->n_by] = by;
    }
    c->n_by++;
}

/* At the end of a branch in which the rule holds: does another say as much? */
static bool on_end(void *arg, const struct space_end *e)
{
    struct cover *c = arg;
    bool deny = rule_at(c, c->rule)->action == CONF_DENY;
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < e->n_live[0]; i++) {
        const struct space_atom *a = &e->space->atoms[e->live[0][i]];
        if (a->rule == c->rule) {
            continue;
        }
        if (a->action == CONF_DENY) {
            note(c, a->rule);
            return true;
        }
        found = !deny && found == SIZE_MAX ? a->rule : found;
    }
    c->by_deny_only = false;
    if (found == SIZE_MAX) {
        c->covered = false;
        return false;
    }
    note(c, found);
    return true;
}

/* A rule that ends sooner cannot stand in for one that stays. */
static bool outlives(const struct conf_rule *other, const struct conf_rule *r)
{
    return other->expires_s == 0 || (r->expires_s != 0 && other->expires_s >= r->expires_s);
}

static char *say_by(const struct cover *c)
{
    struct buf out = BUF_INIT(4096);
    for (size_t i = 0; i < c->n_by && i < COVERING_NAMED; i++) {
        buf_printf(&out, "%srule '%s'", i > 0 ? ", " : "", rule_at(c, c->by[i])->name);
    }
    if (c->n_by > COVERING_NAMED) {
        buf_printf(&out, " and others");
    }
    char *text = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    buf_reset(&out);
    return text;
}

static void report(struct cover *c)
{
    const struct lint_place at = {.rule = c->rule};
    bool allow = rule_at(c, c->rule)->action == CONF_ALLOW;
    mem_autofree char *by = say_by(c);
    if (allow && c->by_deny_only) {
        lint_add(c->lint, POLICY_FINDING_CONTRADICTORY, false, &at,
                 mem_must_strdup("remove it, or make what denies narrower"),
                 mem_must_printf("allows nothing: all of it is denied by %s", by));
    } else {
        lint_add(c->lint, POLICY_FINDING_SHADOWED, false, &at, mem_must_strdup("remove it"),
                 mem_must_printf("%s nothing that is not %s by %s already",
                                 allow ? "allows" : "denies", allow ? "decided" : "denied", by));
    }
}

/* false: it gave up. */
static bool look_at(struct cover *c, size_t first, size_t n)
{
    const struct space *s = c->space;
    c->rule = s->atoms[first].rule;
    const struct conf_rule *r = rule_at(c, c->rule);
    uint32_t *focus = mem_must_calloc(n + 1, sizeof(*focus));
    size_t n_focus = 0;
    for (size_t i = 0; i < n; i++) {
        if (!s->atoms[first + i].dead) {
            focus[n_focus++] = (uint32_t)(first + i);
        }
    }
    if (n_focus == 0) {
        const struct lint_place at = {.rule = c->rule};
        lint_add(c->lint, POLICY_FINDING_DEAD, false, &at,
                 mem_must_strdup("remove it, or one of the clauses"),
                 mem_must_strdup("can never match: no entry's clauses hold together"));
        c->gone[c->rule] = true;
    }
    bool decides = r->action != CONF_AUDIT && r->mode == CONF_ENFORCE;
    if (n_focus == 0 || !decides) {
        free(focus);
        return true;
    }
    c->n_rest = 0;
    for (size_t i = 0; i < s->n_atoms; i++) {
        size_t other = s->atoms[i].rule;
        bool self = other == c->rule;
        bool takes_part = rule_at(c, other)->action != CONF_AUDIT &&
                          rule_at(c, other)->mode == CONF_ENFORCE && !c->gone[other] &&
                          outlives(rule_at(c, other), r);
        if (self || takes_part) {
            c->rest[c->n_rest++] = (uint32_t)i;
        }
    }
    struct space_walk w = {
        .space = s,
        .atoms = {c->rest, NULL},
        .n_atoms = {c->n_rest, 0},
        .focus = focus,
        .n_focus = n_focus,
        .steps_left = STEPS_MAX,
        .on_end = on_end,
        .arg = c,
    };
    c->covered = c->by_deny_only = true;
    c->n_by = 0;
    bool whole = space_walk(&w);
    free(focus);
    if (whole && c->covered) {
        report(c);
        c->gone[c->rule] = true;
    }
    return whole || !c->covered;
}

static void say_not_known(struct lint *l, const struct err *err)
{
    lint_add(l, POLICY_FINDING_NOT_KNOWN, false, NULL, NULL,
             mem_must_printf("whether rules are dead or shadowed is not known: %s", err->what));
}

void lint_cover(struct lint *l)
{
    struct err err = ERR_INIT;
    const struct conf_policy *confs[1] = {l->conf};
    if (l->conf->n_rules == 0) {
        return;
    }
    mem_auto(space_free) struct space *s = space_new(confs, 1, &err);
    if (s == NULL) {
        say_not_known(l, &err);
        return;
    }
    struct cover c = {.lint = l, .space = s};
    mem_autofree bool *gone = mem_must_calloc(l->conf->n_rules, sizeof(*gone));
    mem_autofree uint32_t *rest = mem_must_calloc(s->n_atoms + 1, sizeof(*rest));
    c.gone = gone;
    c.rest = rest;
    for (size_t i = 0; i < l->conf->n_rules; i++) {
        gone[i] =
            l->conf->rules[i].expires_s != 0 && l->conf->rules[i].expires_s <= l->options->now_s;
    }
    /* From the end: of two that say the same the first one stays. */
    for (size_t end = s->n_atoms; end > 0;) {
        size_t first = end - 1;
        while (first > 0 && s->atoms[first - 1].rule == s->atoms[end - 1].rule) {
            first--;
        }
        if (!gone[s->atoms[first].rule] && !look_at(&c, first, end - first)) {
            err_set(&err, ERR_LIMIT, "rule '%s' overlaps with others in too many ways",
                    rule_at(&c, s->atoms[first].rule)->name);
            say_not_known(l, &err);
            return;
        }
        end = first;
    }
}
