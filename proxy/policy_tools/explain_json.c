/*
 * explain as a document: what docs/policy-tools.md says of `--json`.
 *
 * A change is told as what to do to the file, so that a program can do it: which rule by its name,
 * which of its entries, which list, which item. Texts may be a caller's: what is no UTF-8 becomes
 * the characters U+0080 to U+00FF, and nothing but ASCII is written.
 */
#include "explain_priv.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <postern/mem.h>
#include <postern/policy_tools.h>
#include <stdlib.h>
#include <string.h>

static json_t *text_json(const char *text)
{
    json_t *j = json_string(text);
    if (j != NULL || text == NULL) {
        return j;
    }
    size_t n = 0;
    mem_autofree char *wide = mem_must_calloc(2 * strlen(text) + 1, 1);
    for (const char *p = text; *p != '\0'; p++) {
        uint8_t c = (uint8_t)*p;
        if (c >= 0x80) {
            wide[n++] = (char)(0xc0 | c >> 6);
            c = 0x80 | (c & 0x3fU);
        }
        wide[n++] = (char)c;
    }
    return json_string(wide);
}

static void set_text(json_t *o, const char *key, const char *text)
{
    if (text != NULL) {
        json_object_set_new(o, key, text_json(text));
    }
}

/* --- rules that were looked at ---------------------------------------------------------------- */

static json_t *failure_json(const struct policy_failure *f)
{
    static const char *const why[] = {
        [POLICY_WHY_OTHER] = "other",
        [POLICY_WHY_MISSING] = "missing",
        [POLICY_WHY_NO_REQUEST] = "no_request",
    };
    json_t *o = json_object();
    json_t *items = json_array();
    for (size_t i = 0; i < f->n_items; i++) {
        json_array_append_new(items, text_json(f->items[i]));
    }
    set_text(o, "clause", policy_clause_name(f->clause, f->negative));
    set_text(o, "name", f->name);
    json_object_set_new(o, "items", items);
    set_text(o, "why", why[f->why]);
    set_text(o, "actual", f->actual);
    return o;
}

static json_t *look_json(const struct conf_policy *conf, const struct policy_look *l)
{
    const struct conf_rule *r = &conf->rules[l->rule];
    json_t *failures = json_array();
    for (size_t i = 0; i < l->n_failures; i++) {
        json_array_append_new(failures, failure_json(&l->failures[i]));
    }
    return json_pack("{s:o, s:i, s:s, s:b, s:b, s:b, s:o}", "rule", text_json(r->name), "line",
                     (int)r->line, "action", explain_action_word(r->action), "ended", l->ended,
                     "matched", l->matched, "decided", l->decided, "failures", failures);
}

/* --- the change ------------------------------------------------------------------------------- */

static bool is_of_from(enum policy_clause c)
{
    return c >= POLICY_CLAUSE_PRINCIPALS && c <= POLICY_CLAUSE_CLAIMS;
}

static json_t *list_json(const struct conf_strings *list)
{
    json_t *a = json_array();
    for (size_t i = 0; i < list->n; i++) {
        json_array_append_new(a, text_json(list->items[i]));
    }
    return a;
}

static void set_list(json_t *o, const char *key, const struct conf_strings *list)
{
    if (list->n > 0) {
        json_object_set_new(o, key, list_json(list));
    }
}

static json_t *block_json(const struct conf_cidr *b)
{
    char text[INET6_ADDRSTRLEN] = "";
    inet_ntop(b->family, b->addr, text, sizeof(text));
    return json_string(text); /* of one address: a proposal knows no other */
}

static json_t *from_json(const struct conf_policy_from *f)
{
    json_t *o = json_object();
    set_list(o, "principals", &f->principals);
    if (f->ip_blocks.n > 0) {
        json_object_set_new(o, "ip_blocks", json_pack("[o]", block_json(&f->ip_blocks.items[0])));
    }
    return o;
}

static json_t *to_json(const struct conf_policy_to *t)
{
    json_t *o = json_object();
    if (t->n_ports > 0) {
        json_object_set_new(o, "ports", json_pack("[i]", (int)t->ports[0]));
    }
    set_list(o, "methods", &t->methods);
    set_list(o, "paths", &t->paths);
    return o;
}

/* Of a rule that is proposed: it has no more than this. */
static json_t *rule_json(const struct conf_rule *r)
{
    json_t *o = json_pack("{s:o, s:s}", "name", text_json(r->name), "action",
                          explain_action_word(r->action));
    if (r->target_principals.n > 0) {
        json_object_set_new(o, "target",
                            json_pack("{s:o}", "principals", list_json(&r->target_principals)));
    }
    if (r->n_from > 0) {
        json_object_set_new(o, "from", json_pack("[o]", from_json(&r->from[0])));
    }
    if (r->n_to > 0) {
        json_object_set_new(o, "to", json_pack("[o]", to_json(&r->to[0])));
    }
    return o;
}

static json_t *place_json(const struct policy_edit *d)
{
    bool target = d->clause == POLICY_CLAUSE_TARGET;
    const char *in = target ? "target" : is_of_from(d->clause) ? "from" : "to";
    json_t *o = json_pack("{s:s, s:s}", "in", in, "list",
                          target ? "principals" : policy_clause_name(d->clause, d->negative));
    if (!target) {
        json_object_set_new(o, "entry", d->entry >= 0 ? json_integer(d->entry) : json_null());
    }
    set_text(o, "name", d->name);
    if (d->item != NULL) {
        json_object_set_new(o, "item",
                            d->clause == POLICY_CLAUSE_PORTS
                                ? json_integer(strtol(d->item, NULL, 10))
                                : text_json(d->item));
    }
    return o;
}

static json_t *edit_json(const struct conf_policy *conf, const struct policy_edit *d)
{
    static const char *const words[] = {
        [POLICY_EDIT_ADD_ITEM] = "add_item",
        [POLICY_EDIT_REMOVE_ITEM] = "remove_item",
        [POLICY_EDIT_ADD_RULE] = "add_rule",
        [POLICY_EDIT_REMOVE_RULE] = "remove_rule",
    };
    struct buf text = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    json_t *o = json_pack("{s:s}", "do", words[d->kind]);
    if (d->kind == POLICY_EDIT_ADD_RULE) {
        json_object_set_new(o, "rule", rule_json(d->new_rule));
    } else {
        set_text(o, "rule", conf->rules[d->rule].name);
        json_object_set_new(o, "line", json_integer(conf->rules[d->rule].line));
    }
    if (d->kind == POLICY_EDIT_ADD_ITEM || d->kind == POLICY_EDIT_REMOVE_ITEM) {
        json_t *place = place_json(d);
        json_object_update(o, place);
        json_decref(place);
    }
    if (policy_edit_text(conf, d, &text) && buf_append(&text, "", 1)) {
        set_text(o, "text", (const char *)buf_head(&text));
    }
    buf_reset(&text);
    return o;
}

/* --- the document ----------------------------------------------------------------------------- */

static int write_json(const char *text, size_t n, void *out)
{
    return buf_append(out, text, n) ? 0 : -1;
}

bool explain_put_json(const struct conf_policy *conf, const struct policy_explanation *e,
                      struct buf *out)
{
    const struct policy_verdict *v = &e->verdict;
    json_t *doc = json_object();
    json_t *looks = json_array();
    json_t *edits = json_array();
    for (size_t i = 0; i < e->n_looks; i++) {
        json_array_append_new(looks, look_json(conf, &e->looks[i]));
    }
    for (size_t i = 0; i < e->n_edits; i++) {
        json_array_append_new(edits, edit_json(conf, &e->edits[i]));
    }
    set_text(doc, "verdict", v->allow ? "allow" : "deny");
    set_text(doc, "rule", v->rule);
    set_text(doc, "reason", v->rule_reason);
    set_text(doc, "audit", v->audit);
    set_text(doc, "shadow_rule", v->shadow_rule);
    json_object_set_new(doc, "rules", looks);
    json_object_set_new(doc, "more", json_boolean(e->more));
    json_object_set_new(doc, "change", edits);
    json_object_set_new(doc, "turns", json_boolean(e->turns));
    bool ok = json_dump_callback(doc, write_json, out, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0 &&
              buf_printf(out, "\n");
    json_decref(doc);
    return ok;
}
