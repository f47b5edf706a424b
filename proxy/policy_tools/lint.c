/* lint: what is doubtful about a policy, with the place where it stands. */
#include "lint_priv.h"

#include <jansson.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

const char *policy_finding_name(enum policy_finding_code code)
{
    static const char *const names[POLICY_FINDING_COUNT] = {
        [POLICY_FINDING_EXPIRED] = "expired",
        [POLICY_FINDING_DEAD] = "dead",
        [POLICY_FINDING_CONTRADICTORY] = "contradictory",
        [POLICY_FINDING_SHADOWED] = "shadowed",
        [POLICY_FINDING_TCP_PORT] = "tcp-port",
        [POLICY_FINDING_ANYONE] = "anyone",
        [POLICY_FINDING_WIDE_PATTERN] = "wide-pattern",
        [POLICY_FINDING_DENY_ENDS] = "deny-ends",
        [POLICY_FINDING_UNKNOWN_DOMAIN] = "unknown-domain",
        [POLICY_FINDING_UNUSED_ROLE] = "unused-role",
        [POLICY_FINDING_NOT_KNOWN] = "not-known",
    };
    return names[code];
}

/* --- places ------------------------------------------------------------------------------------
 */
static const struct fmt_entry *key_of(const struct fmt_node *map, const char *key)
{
    for (size_t i = 0; map != NULL && map->kind == FMT_MAP && i < map->n; i++) {
        if (str_eq(map->entries[i]->key, str_of(key))) {
            return map->entries[i];
        }
    }
    return NULL;
}

static const struct fmt_entry *item_of(const struct fmt_node *list, size_t i)
{
    return list != NULL && list->kind == FMT_LIST && i < list->n ? list->entries[i] : NULL;
}

/* The nearest thing that the file has: entries that came by a role are not in the rule. */
static const struct fmt_entry *find(const struct lint *l, const struct lint_place *at)
{
    const struct fmt_entry *e = key_of(l->doc.root, "rules");
    const struct fmt_entry *near = e != NULL ? item_of(e->value, at->rule) : NULL;
    bool by_role = l->conf->rules[at->rule].roles.n > 0;
    if (near == NULL || at->section == NULL || (by_role && strcmp(at->section, "to") == 0)) {
        return near;
    }
    e = key_of(near->value, at->section);
    if (e != NULL && e->value->kind == FMT_LIST) {
        near = e;
        e = item_of(e->value, at->entry);
    }
    near = e != NULL ? e : near;
    e = e != NULL && at->key != NULL ? key_of(e->value, at->key) : NULL;
    near = e != NULL ? e : near;
    e = e != NULL ? item_of(e->value, at->item) : NULL;
    return e != NULL ? e : near;
}

static unsigned column_of(struct str text, size_t at)
{
    unsigned column = 1;
    for (; at > 0 && text.p[at - 1] != '\n'; at--) {
        column += ((uint8_t)text.p[at - 1] & 0xc0U) != 0x80;
    }
    return column;
}

void lint_add(struct lint *l, enum policy_finding_code code, bool error,
              const struct lint_place *at, char *advice, char *what)
{
    struct policy_findings *f = l->found;
    const struct fmt_entry *e = at != NULL && l->doc.root != NULL ? find(l, at) : NULL;
    MEM_GROW(f->items, f->n, f->cap, 16);
    f->items[f->n++] = (struct policy_finding){
        .code = code,
        .error = error,
        .rule = at != NULL ? l->conf->rules[at->rule].name : NULL,
        .line = e != NULL    ? e->line + 1
                : at != NULL ? l->conf->rules[at->rule].line
                             : 0,
        .column = e != NULL ? column_of(l->text, e->start) : 0,
        .what = what,
        .advice = advice,
    };
}

/* --- lint --------------------------------------------------------------------------------------
 */
static int compare_findings(const void *pa, const void *pb)
{
    const struct policy_finding *a = pa;
    const struct policy_finding *b = pb;
    if (a->line != b->line) {
        return a->line < b->line ? -1 : 1;
    }
    if (a->column != b->column) {
        return a->column < b->column ? -1 : 1;
    }
    return a->code < b->code ? -1 : a->code > b->code;
}

void policy_lint(const struct conf_policy *conf, struct str text,
                 const struct policy_lint_options *o, struct policy_findings *ret)
{
    struct lint l = {.conf = conf, .options = o, .text = text, .found = ret};
    *ret = (struct policy_findings){.items = NULL};
    if (fmt_read("", text, &l.doc, NULL) != 0) {
        l.doc = (struct fmt_doc){.root = NULL}; /* lines are known all the same */
    }
    lint_texts(&l);
    lint_cover(&l);
    if (ret->n > 0) {
        qsort(ret->items, ret->n, sizeof(*ret->items), compare_findings);
    }
    fmt_doc_deinit(&l.doc);
}

void policy_findings_deinit(struct policy_findings *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->items[i].what);
        free(f->items[i].advice);
    }
    free(f->items);
    *f = (struct policy_findings){.items = NULL};
}

/* --- telling -----------------------------------------------------------------------------------
 */
static bool print_one(const struct policy_finding *f, const char *file, struct buf *out)
{
    bool ok = buf_printf(out, "%s:", file);
    if (f->line > 0) {
        ok = ok && buf_printf(out, "%u:", f->line);
    }
    if (f->column > 0) {
        ok = ok && buf_printf(out, "%u:", f->column);
    }
    ok = ok && buf_printf(out, " %s", f->error ? "error: " : "");
    if (f->rule != NULL) {
        ok = ok && buf_printf(out, "rule '%s': ", f->rule);
    }
    ok = ok && buf_printf(out, "%s", f->what);
    if (f->advice != NULL) {
        ok = ok && buf_printf(out, "; %s", f->advice);
    }
    return ok && buf_printf(out, " (%s)\n", policy_finding_name(f->code));
}

static int write_json(const char *text, size_t n, void *out)
{
    return buf_append(out, text, n) ? 0 : -1;
}

bool policy_findings_print(const struct policy_findings *f, const char *file, bool json,
                           struct buf *out)
{
    bool ok = true;
    if (!json) {
        for (size_t i = 0; ok && i < f->n; i++) {
            ok = print_one(&f->items[i], file, out);
        }
        return ok;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < f->n; i++) {
        const struct policy_finding *x = &f->items[i];
        json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:s, s:s, s:s*, s:s, s:s*}", "file",
                                              file, "line", (int)x->line, "column", (int)x->column,
                                              "code", policy_finding_name(x->code), "severity",
                                              x->error ? "error" : "warning", "rule", x->rule,
                                              "what", x->what, "advice", x->advice));
    }
    ok = json_dump_callback(list, write_json, out, JSON_INDENT(2)) == 0 && buf_printf(out, "\n");
    json_decref(list);
    return ok;
}
