/* explain: why a verdict is what it is, for people. What a caller or a log says may be anything, so
 * no control character of it is printed. */
#include "explain_priv.h"

#include <postern/mem.h>
#include <postern/policy_tools.h>
#include <string.h>

enum { ITEMS_SHOWN = 6 };

const char *explain_action_word(enum conf_action a)
{
    return a == CONF_ALLOW ? "ALLOW" : a == CONF_DENY ? "DENY" : "AUDIT";
}

/* A stranger's text on one line, with a ? for each control character. */
static bool put_outside(struct buf *out, struct str s)
{
    bool ok = true;
    for (size_t i = 0, control; ok && i < s.n; i += control > 0 ? control : 1) {
        control = str_control(s, i);
        ok = buf_append(out, control > 0 ? "?" : s.p + i, 1);
    }
    return ok;
}

static void put_verdict(const struct policy_verdict *v, struct buf *out)
{
    buf_printf(out, "%s", v->allow ? "allowed" : "denied");
    if (v->rule != NULL) {
        buf_printf(out, " by rule \"%s\" (line %u)", v->rule, v->rule_line);
    } else {
        buf_printf(out, ": no rule allows it");
    }
    if (v->rule_reason != NULL) {
        buf_printf(out, ": %s", v->rule_reason);
    }
    buf_printf(out, "\n");
    if (v->shadow_rule != NULL) {
        buf_printf(out, "rule \"%s\" in dry-run would turn it\n", v->shadow_rule);
    }
    if (v->audit != NULL) {
        buf_printf(out, "marked by rule \"%s\"\n", v->audit);
    }
}

static void put_failure(const struct policy_failure *f, struct buf *out)
{
    buf_printf(out, "%s", policy_clause_name(f->clause, f->negative));
    if (f->name != NULL) {
        buf_printf(out, " %s", f->name);
    }
    buf_printf(out, " [");
    for (size_t i = 0; i < f->n_items && i < ITEMS_SHOWN; i++) {
        buf_printf(out, "%s", i > 0 ? ", " : "");
        put_outside(out, str_of(f->items[i]));
    }
    buf_printf(out, "%s] ", f->n_items > ITEMS_SHOWN ? ", ..." : "");
    if (f->why == POLICY_WHY_NO_REQUEST) {
        buf_printf(out, "speaks of requests, and this is a connection");
    } else if (f->actual == NULL) {
        buf_printf(out, "does not hold: it is missing, or not known");
    } else {
        buf_printf(out, "%s ", f->negative ? "holds" : "does not hold");
        put_outside(out, str_of(f->actual));
    }
}

static void put_look(const struct conf_policy *conf, const struct policy_look *l, struct buf *out)
{
    const struct conf_rule *r = &conf->rules[l->rule];
    buf_printf(out, "  %s \"%s\" (line %u%s): ", explain_action_word(r->action), r->name, r->line,
               r->mode == CONF_DRY_RUN ? ", dry-run" : "");
    if (l->ended) {
        buf_printf(out, "has ended");
    } else if (l->matched) {
        buf_printf(out, l->decided ? "matches, and decides" : "matches");
    } else if (l->n_failures > 0) {
        put_failure(&l->failures[0], out);
        if (l->n_failures > 1) {
            buf_printf(out, ", and %zu more", l->n_failures - 1);
        }
    } else {
        buf_printf(out, "does not match");
    }
    buf_printf(out, "\n");
}

static bool put_text(const struct conf_policy *conf, const struct policy_explanation *e,
                     struct buf *out)
{
    put_verdict(&e->verdict, out);
    if (e->n_looks > 0) {
        buf_printf(out, "rules that speak of this target%s:\n", e->more ? ", the first" : "");
    }
    for (size_t i = 0; i < e->n_looks; i++) {
        put_look(conf, &e->looks[i], out);
    }
    if (e->n_edits == 0 || !e->turns) {
        return buf_printf(out, "no small change is known that turns it\n");
    }
    buf_printf(out, "the smallest change that turns it:\n");
    bool ok = true;
    for (size_t i = 0; ok && i < e->n_edits; i++) {
        struct buf line = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
        ok = policy_edit_text(conf, &e->edits[i], &line) && buf_printf(out, "  ") &&
             put_outside(out, buf_str(&line)) && buf_printf(out, "\n");
        buf_reset(&line);
    }
    return ok;
}

bool policy_tools_explain(const struct conf_policy *conf, const struct policy *p,
                          const struct policy_query *q, bool json, struct buf *out)
{
    struct policy_explanation *e = policy_explanation_new(conf, p, q);
    bool ok = json ? explain_put_json(conf, e, out) : put_text(conf, e, out);
    policy_explanation_free(e);
    return ok;
}
