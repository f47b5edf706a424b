/* istio: an AuthorizationPolicy. Each of its rules becomes one of ours: `from`, `to` and `when` are
 * lists of alternatives, `when` a list of conditions, and all of it is and-ed. What has to do with
 * requests does not exist on ports that carry something else; there Istio drops an ALLOW rule that
 * has it, as a Policy does, and takes a DENY or AUDIT rule without it, which is a rule of its own
 * here. */
#include "convert_priv.h"

#include <stdio.h>
#include <string.h>

bool istio_and(const struct istio_rule *r, const struct node *at, struct entries *e,
               const struct entries *other)
{
    const char *key = NULL;
    switch (entries_and(&r->c->arena, e, other, &key)) {
    case ENTRIES_OK:
        return true;
    case ENTRIES_TWICE:
        convert_fail(r->object, at, NULL, "put what both take into one of them",
                     "it asks a second time for what is '%s' in a policy, and both would have to "
                     "hold",
                     key);
        return false;
    case ENTRIES_TOO_MANY:
        convert_fail(r->object, at, NULL, "divide the rule",
                     "more than %d alternatives in a rule, or too many in all",
                     CONVERT_ENTRIES_MAX);
        return false;
    }
    return false;
}

static bool istio_or(const struct istio_rule *r, const struct node *at, struct entries *e,
                     const struct entries *other)
{
    if (entries_or(&r->c->arena, e, other) != ENTRIES_OK) {
        convert_fail(r->object, at, NULL, "divide the rule",
                     "more than %d alternatives in a rule, or too many in all",
                     CONVERT_ENTRIES_MAX);
        return false;
    }
    return true;
}

/* --- one rule --------------------------------------------------------------------------------- */
/* `from` and `to` are lists of mappings with one key each. */
static bool read_list(struct istio_rule *r, const struct node *list, const char *what,
                      const char *inner,
                      bool (*read)(struct istio_rule *, const struct node *, struct entries *),
                      struct entries *ret)
{
    const char *const keys[] = {inner, NULL};
    struct entries any = {NULL, 0};
    if (!field_is_list(r->object, list, what)) {
        return false;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        if (!field_is_map(r->object, n, what) || !field_only(r->object, n, what, keys)) {
            return false;
        }
        const struct node *one = field_get(n, inner);
        struct entries e = entries_all(&r->c->arena);
        if (one == NULL || one->kind != NODE_MAP || one->n == 0) {
            convert_fail(r->object, one != NULL ? one : n, NULL,
                         "leave the list out where it does not matter", "an empty '%s'", inner);
            return false;
        }
        if (!read(r, one, &e) || !istio_or(r, one, &any, &e)) {
            return false;
        }
    }
    *ret = any;
    return true;
}

/* Whether this one and nothing else makes it a matter of requests. */
static bool wants_request(const struct entries *e)
{
    for (size_t i = 0; i < e->n; i++) {
        if (entry_wants_request(&e->items[i])) {
            return true;
        }
    }
    return false;
}

static struct entry without_requests(const struct entry *e)
{
    struct entry left = *e;
    for (size_t k = 0; k < N_LISTS; k++) {
        left.lists[k].n = list_keys[k].request ? 0 : left.lists[k].n;
    }
    for (size_t k = 0; k < N_NAMED; k++) {
        left.named[k].n = 0;
    }
    return left;
}

/* The ports that carry no HTTP, of those that the entry is about; entries_all for all of them, and
 * none where there are none. */
static struct entries tcp_ports_of(struct istio_rule *r, const struct entry *e)
{
    struct arena *arena = &r->c->arena;
    const struct policy_convert_options *o = &r->c->options;
    const struct policy_convert_ports *known = o->tcp_rest ? &o->http_ports : &o->tcp_ports;
    struct texts listed = {NULL, 0}, ports = {NULL, 0};
    for (size_t i = 0; i < known->n; i++) {
        texts_add_new(arena, &listed, arena_printf(arena, "%u", known->items[i]));
    }
    if (o->tcp_rest && e->lists[LIST_PORTS].n == 0) { /* all but HTTP's */
        struct entry rest = {.lists = {[LIST_NOT_PORTS] = e->lists[LIST_NOT_PORTS]}};
        for (size_t i = 0; i < listed.n; i++) {
            texts_add_new(arena, &rest.lists[LIST_NOT_PORTS], listed.items[i]);
        }
        return entry_is_empty(&rest)
                   ? entries_all(arena)
                   : entries_list(arena, LIST_NOT_PORTS, &rest.lists[LIST_NOT_PORTS]);
    }
    const struct texts *from = o->tcp_rest ? &e->lists[LIST_PORTS] : &listed;
    for (size_t i = 0; i < from->n; i++) {
        const char *port = from->items[i];
        bool tcp = !o->tcp_rest || !texts_have(&listed, port);
        bool asked = e->lists[LIST_PORTS].n == 0 || texts_have(&e->lists[LIST_PORTS], port);
        if (tcp && asked && !texts_have(&e->lists[LIST_NOT_PORTS], port)) {
            texts_add_new(arena, &ports, port);
        }
    }
    return ports.n > 0 ? entries_list(arena, LIST_PORTS, &ports) : (struct entries){NULL, 0};
}

/* What a DENY or AUDIT rule says where there are no requests. */
static void add_tcp_rule(struct istio_rule *r, const struct node *at, const struct rule *rule)
{
    struct policy_convert *c = r->c;
    struct rule tcp = *rule;
    if (!wants_request(&rule->from) && !wants_request(&rule->to)) {
        return;
    }
    if (!c->options.tcp_ports_known) {
        convert_doubt(r->object, at,
                      c->options.strict ? "say 'policy_context.tcp_ports', or none"
                                        : "say --tcp-ports LIST, or none",
                      "on a port that carries no HTTP Istio %s by what else this rule asks for; "
                      "which these are is not known, so nothing is said of them",
                      rule->action == CONF_DENY ? "denies" : "marks");
        return;
    }
    tcp.from = (struct entries){NULL, 0};
    tcp.to = (struct entries){NULL, 0};
    for (size_t i = 0; i < rule->from.n; i++) {
        struct entry e = without_requests(&rule->from.items[i]);
        (void)entries_or(&c->arena, &tcp.from, &(struct entries){&e, 1}); /* no more than before */
    }
    for (size_t i = 0; i < rule->to.n; i++) {
        struct entries e = tcp_ports_of(r, &rule->to.items[i]);
        (void)entries_or(&c->arena, &tcp.to, &e);
    }
    if (tcp.to.n > 0) {
        tcp.name = arena_printf(&c->arena, "%s:tcp", rule->name);
        tcp.comment = arena_printf(&c->arena, "%s, where there is no HTTP", rule->comment);
        convert_rule(c, &tcp);
    }
}

static void read_rule(struct istio_rule *r, const struct node *n, size_t number, struct rule *rule)
{
    static const char *const keys[] = {"from", "to", "when", NULL};
    const struct node *from = field_get(n, "from");
    const struct node *to = field_get(n, "to");
    const struct node *when = field_get(n, "when");
    if (!field_is_map(r->object, n, "a rule") || !field_only(r->object, n, "a rule", keys)) {
        return;
    }
    rule->from = entries_all(&r->c->arena);
    rule->to = entries_all(&r->c->arena);
    if ((from != NULL && !read_list(r, from, "from", "source", istio_source, &rule->from)) ||
        (to != NULL && !read_list(r, to, "to", "operation", istio_operation, &rule->to)) ||
        (when != NULL && !field_is_list(r->object, when, "when"))) {
        return;
    }
    for (const struct node *w = when != NULL ? when->child : NULL; w != NULL; w = w->next) {
        if (!istio_when(r, w, &rule->from, &rule->to)) {
            return;
        }
    }
    rule->name = convert_rule_name(r->c, r->object, number);
    rule->comment = convert_comment(r->c, r->object, n);
    rule->reason = convert_reason(r->c, r->object, number, n);
    rule->line = n->line;
    convert_rule(r->c, rule);
    if (rule->action != CONF_ALLOW) {
        add_tcp_rule(r, n, rule);
    }
}

/* --- the policy ------------------------------------------------------------------------------- */
static bool read_action(const struct object *o, const struct node *spec, enum conf_action *ret)
{
    static const char *const words[] = {
        [CONF_ALLOW] = "ALLOW", [CONF_DENY] = "DENY", [CONF_AUDIT] = "AUDIT"};
    const struct node *n = field_get(spec, "action");
    *ret = CONF_ALLOW;
    if (n == NULL) {
        return true;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (n->kind == NODE_SCALAR && str_eq(n->text, str_of(words[i]))) {
            *ret = (enum conf_action)i;
            return true;
        }
    }
    convert_fail(o, n, "ALLOW, DENY or AUDIT", NULL, "an action without a counterpart");
    return false;
}

/* False: it was reported. */
static bool read_scope(struct policy_convert *c, const struct object *o, const struct node *spec,
                       struct scope *ret)
{
    const struct node *selector = field_get(spec, "selector");
    bool root = strcmp(o->ns, c->options.root_namespace) == 0;
    *ret = (struct scope){.all = root, .ns = root ? NULL : o->ns};
    if (selector == NULL) {
        return true;
    }
    if (!selector_is_sound(o, selector, false)) {
        return false;
    }
    if (selector_is_empty(selector)) {
        return true;
    }
    if (own_selects(c, o, selector, root, ret)) {
        return true;
    }
    struct texts namespaces = {NULL, 0};
    if (!root) {
        texts_add(&c->arena, &namespaces, o->ns);
    }
    *ret = (struct scope){.all = false};
    return selector_ids(c, o, selector, &namespaces, true, &ret->ids);
}

static bool is_dry_run(const struct object *o)
{
    const struct node *metadata = field_get(o->map, "metadata");
    const char *text = field_text(field_get(metadata, "annotations"), "istio.io/dry-run");
    return text != NULL && strcmp(text, "true") == 0;
}

void istio_convert(struct policy_convert *c, const struct object *o)
{
    static const char *const keys[] = {"selector", "rules", "action", NULL};
    static const char *const top[] = {"apiVersion", "kind", "metadata", "spec", "status", NULL};
    const struct node *spec = field_get(o->map, "spec");
    struct scope scope;
    struct istio_rule r = {.object = o, .c = c};
    if (!field_only(o, o->map, "an AuthorizationPolicy", top) ||
        (spec != NULL && (!field_is_map(o, spec, "spec") ||
                          !field_only(o, spec, "an AuthorizationPolicy", keys))) ||
        !read_action(o, spec, &r.action) || !read_scope(c, o, spec, &scope)) {
        return;
    }
    struct rule rule = {.action = r.action, .dry_run = is_dry_run(o)};
    scope_targets(c, &scope, &rule.targets);
    if (r.action == CONF_ALLOW && !rule.dry_run && !scope.none) {
        coverage_add(c, &scope);
    }
    const struct node *rules = field_get(spec, "rules");
    if (rules == NULL || (rules->kind == NODE_LIST && rules->n == 0)) {
        texts_add(&c->arena, &c->head,
                  arena_printf(&c->arena, "%s: it has no rule, so nothing matches it%s.",
                               convert_comment(c, o, o->map),
                               r.action == CONF_ALLOW ? " and by it nothing is allowed" : ""));
        return;
    }
    if (!field_is_list(o, rules, "rules")) {
        return;
    }
    size_t number = 0;
    size_t before = c->n_rules;
    for (const struct node *n = rules->child; n != NULL; n = n->next) {
        read_rule(&r, n, ++number, &rule);
    }
    c->n_rules = scope.none ? before : c->n_rules;
}
