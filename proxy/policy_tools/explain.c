/* explain: why a verdict is what it is, for people and as JSON; what the engine says as data. */
#include <postern/policy_explanation.h>
#include <postern/policy_tools.h>

#include <jansson.h>
#include <postern/mem.h>
#include <string.h>

enum { ITEMS_SHOWN = 6 };

static const char *action_word(enum conf_action a)
{
    return a == CONF_ALLOW ? "ALLOW" : a == CONF_DENY ? "DENY" : "AUDIT";
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
        buf_printf(out, "%s%s", i > 0 ? ", " : "", f->items[i]);
    }
    buf_printf(out, "%s] ", f->n_items > ITEMS_SHOWN ? ", ..." : "");
    if (f->why == POLICY_WHY_NO_REQUEST) {
        buf_printf(out, "speaks of requests, and this is a connection");
    } else if (f->actual == NULL) {
        buf_printf(out, "does not hold: it is missing, or not known");
    } else {
        buf_printf(out, "%s %s", f->negative ? "holds" : "does not hold", f->actual);
    }
}

static void put_look(const struct conf_policy *conf, const struct policy_look *l, struct buf *out)
{
    const struct conf_rule *r = &conf->rules[l->rule];
    buf_printf(out, "  %s \"%s\" (line %u%s): ", action_word(r->action), r->name, r->line,
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
        ok = buf_printf(out, "  ") && policy_edit_text(conf, &e->edits[i], out) &&
             buf_printf(out, "\n");
    }
    return ok;
}

static json_t *failure_json(const struct policy_failure *f)
{
    static const char *const why[] = {
        [POLICY_WHY_OTHER] = "other",
        [POLICY_WHY_MISSING] = "missing",
        [POLICY_WHY_NO_REQUEST] = "no_request",
    };
    json_t *items = json_array();
    for (size_t i = 0; i < f->n_items; i++) {
        json_array_append_new(items, json_string(f->items[i]));
    }
    return json_pack("{s:s, s:s*, s:o, s:s, s:s*}", "clause",
                     policy_clause_name(f->clause, f->negative), "name", f->name, "items", items,
                     "why", why[f->why], "actual", f->actual);
}

static json_t *look_json(const struct conf_policy *conf, const struct policy_look *l)
{
    const struct conf_rule *r = &conf->rules[l->rule];
    json_t *failures = json_array();
    for (size_t i = 0; i < l->n_failures; i++) {
        json_array_append_new(failures, failure_json(&l->failures[i]));
    }
    return json_pack("{s:s, s:i, s:s, s:b, s:b, s:b, s:o}", "rule", r->name, "line", (int)r->line,
                     "action", action_word(r->action), "ended", l->ended, "matched", l->matched,
                     "decided", l->decided, "failures", failures);
}

static int write_json(const char *text, size_t n, void *out)
{
    return buf_append(out, text, n) ? 0 : -1;
}

static bool put_json(const struct conf_policy *conf, const struct policy_explanation *e,
                     struct buf *out)
{
    json_t *looks = json_array();
    json_t *edits = json_array();
    for (size_t i = 0; i < e->n_looks; i++) {
        json_array_append_new(looks, look_json(conf, &e->looks[i]));
    }
    for (size_t i = 0; i < e->n_edits; i++) {
        struct buf text = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
        if (policy_edit_text(conf, &e->edits[i], &text) && buf_len(&text) > 0) {
            json_array_append_new(edits,
                                  json_stringn((const char *)buf_head(&text), buf_len(&text)));
        }
        buf_reset(&text);
    }
    const struct policy_verdict *v = &e->verdict;
    json_t *doc = json_pack("{s:s, s:s*, s:s*, s:s*, s:s*, s:o, s:b, s:o, s:b}", "verdict",
                            v->allow ? "allow" : "deny", "rule", v->rule, "reason", v->rule_reason,
                            "audit", v->audit, "shadow_rule", v->shadow_rule, "rules", looks,
                            "more", e->more, "change", edits, "turns", e->turns);
    bool ok =
        json_dump_callback(doc, write_json, out, JSON_INDENT(2)) == 0 && buf_printf(out, "\n");
    json_decref(doc);
    return ok;
}

bool policy_tools_explain(const struct conf_policy *conf, const struct policy *p,
                          const struct policy_query *q, bool json, struct buf *out)
{
    struct policy_explanation *e = policy_explanation_new(conf, p, q);
    bool ok = json ? put_json(conf, e, out) : put_text(conf, e, out);
    policy_explanation_free(e);
    return ok;
}
