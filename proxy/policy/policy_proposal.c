/*
 * The smallest change that turns a verdict.
 *
 * A denial by a DENY rule: an exception in that rule, or the rule goes. A denial because nothing
 * allows: what the nearest ALLOW rule lacks, or a rule of its own. One after the other until it is
 * allowed, since several DENY rules can match. An allowed one: what the rule names literally goes,
 * if that is enough, or a DENY rule of its own. The changed policy is asked each time, so what is
 * proposed does what it says.
 */
#include "policy_proposal.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

#include "policy_lists.h"

enum {
    COST_ITEM = 2,
    COST_CLAUSE = 3, /* a condition that goes, rather than an item that comes */
    COST_RULE = 7,
    COST_NEVER = 1000000,
};

struct work {
    const struct conf_policy *conf;
    const struct policy_query *q;
    struct policy_edit *edits;
    size_t n, cap;
};

static void add_edit(struct work *w, struct policy_edit edit)
{
    MEM_GROW(w->edits, w->n, w->cap, 8);
    w->edits[w->n++] = edit;
}

void policy_edit_deinit(struct policy_edit *edit)
{
    struct conf_rule *r = edit->new_rule;
    free(edit->item);
    if (r != NULL) {
        for (enum policy_clause c = 0; c < POLICY_CLAUSE_NONE; c++) {
            struct policy_list l = policy_list_of(r, c, false, 0);
            for (size_t i = 0; l.strings != NULL && i < l.strings->n; i++) {
                free(l.strings->items[i]);
            }
            if (l.strings != NULL) {
                free(l.strings->items);
            } else if (l.ports != NULL) {
                free(*l.ports);
            } else if (l.blocks != NULL) {
                free(l.blocks->items);
            }
        }
        free(r->from);
        free(r->to);
        free(r->name);
        free(r);
    }
    *edit = (struct policy_edit){.kind = edit->kind};
}

/* --- a rule of its own -------------------------------------------------------------------------*/

static bool name_is_taken(const struct conf_policy *conf, const char *name)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        if (strcmp(conf->rules[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void take_fact(struct conf_rule *r, const struct policy_query *q, enum policy_clause c)
{
    struct policy_list l = policy_list_of(r, c, false, 0);
    char *item = policy_fact_item(q, c);
    if (item != NULL && l.strings != NULL) {
        l.strings->items = mem_must_calloc(1, sizeof(char *));
        l.strings->items[0] = item;
        l.strings->n = 1;
    } else {
        free(item);
    }
}

static void take_source(struct conf_policy_from *f, const struct policy_query *q)
{
    struct address a;
    if (!policy_address_of(q->source, &a)) {
        return;
    }
    struct conf_cidr *block = mem_must_new(struct conf_cidr);
    block->family = a.bytes[0] == 4 ? AF_INET : AF_INET6;
    memcpy(block->addr, a.bytes + 1, sizeof(block->addr));
    block->prefix_len = a.prefix_len;
    f->ip_blocks = (struct conf_cidrs){block, 1};
}

/* Who calls, and exactly what. */
static struct conf_rule *rule_of_facts(const struct work *w, enum conf_action action)
{
    struct conf_rule *r = mem_must_new(struct conf_rule);
    for (unsigned i = 1; r->name == NULL; i++) {
        char *name = mem_must_printf("proposed-%u", i);
        if (name_is_taken(w->conf, name)) {
            free(name);
        } else {
            r->name = name;
        }
    }
    r->action = action;
    r->from = mem_must_new(struct conf_policy_from);
    r->to = mem_must_new(struct conf_policy_to);
    r->n_from = r->n_to = 1;
    take_fact(r, w->q, POLICY_CLAUSE_TARGET);
    take_fact(r, w->q, POLICY_CLAUSE_PRINCIPALS);
    if (r->from->principals.n == 0) {
        take_source(r->from, w->q);
    }
    if (r->from->principals.n == 0 && r->from->ip_blocks.n == 0) {
        r->n_from = 0; /* nothing is known of the caller */
    }
    r->to->ports = mem_must_calloc(1, sizeof(uint16_t));
    r->to->ports[0] = w->q->port;
    r->to->n_ports = 1;
    take_fact(r, w->q, POLICY_CLAUSE_METHODS);
    take_fact(r, w->q, POLICY_CLAUSE_PATHS);
    return r;
}

static void add_rule(struct work *w, enum conf_action action)
{
    add_edit(w, (struct policy_edit){.kind = POLICY_EDIT_ADD_RULE,
                                     .rule = w->conf->n_rules,
                                     .clause = POLICY_CLAUSE_NONE,
                                     .entry = POLICY_ENTRY_NONE,
                                     .new_rule = rule_of_facts(w, action)});
}

/* --- what an ALLOW rule lacks ------------------------------------------------------------------*/

struct repair {
    struct work *w;
    struct ask *ask;
    const struct conf_policy *now; /* with the edits so far */
    size_t rule;
    unsigned cost;
    bool make; /* else only the cost is counted */
};

static void propose(struct repair *r, struct policy_edit edit, unsigned cost)
{
    r->cost += cost;
    edit.rule = r->rule;
    if (r->make) {
        add_edit(r->w, edit);
    } else {
        free(edit.item);
    }
}

/* The items of a not_ list that hold the fact: each alone is asked. */
static bool item_holds_fact(const struct repair *r, enum policy_clause c, const char *item)
{
    struct key_table t = {0};
    uint32_t key = KEY_NONE;
    struct err err = ERR_INIT;
    enum dim dim = policy_clause_dim(c);
    uint32_t keys[MATCH_MAX];
    bool holds = false;
    struct str value = policy_fact_value(r->w->q, dim);
    if (policy_key_of_pattern(&t, dim, NULL, item, &key, &err) == 0) {
        holds = policy_match_text(&t, dim, STR_NONE, value, keys, MATCH_MAX) > 0;
    }
    policy_keys_deinit(&t);
    return holds;
}

static bool block_holds_fact(const struct repair *r, const struct conf_cidr *block)
{
    struct address a, b;
    if (!policy_address_of(r->w->q->source, &a)) {
        return false;
    }
    policy_address_set(&b, block->family, block->addr, block->prefix_len);
    if (a.bytes[0] != b.bytes[0]) {
        return false;
    }
    policy_address_cut(&a, b.prefix_len);
    policy_address_cut(&b, b.prefix_len);
    return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

static void remove_items(struct repair *r, struct policy_edit edit)
{
    struct policy_list l = policy_list_of(&r->now->rules[r->rule], edit.clause, true, edit.entry);
    unsigned before = r->cost;
    for (size_t i = 0; l.strings != NULL && i < l.strings->n; i++) {
        if (item_holds_fact(r, edit.clause, l.strings->items[i])) {
            edit.item = mem_must_strdup(l.strings->items[i]);
            propose(r, edit, COST_ITEM);
        }
    }
    for (size_t i = 0; l.blocks != NULL && i < l.blocks->n; i++) {
        if (block_holds_fact(r, &l.blocks->items[i])) {
            edit.item = policy_block_text(&l.blocks->items[i]);
            propose(r, edit, COST_ITEM);
        }
    }
    if (l.ports != NULL) {
        edit.item = mem_must_printf("%u", r->w->q->port);
        propose(r, edit, COST_ITEM);
    }
    if (r->cost == before) {
        r->cost += COST_NEVER;
    }
}

/* The one value that a request has of this name; false: none, or several, or no item can say it. */
static bool single_value(struct repair *r, enum policy_clause c, const char *name, struct str *ret)
{
    const struct policy_query *q = r->w->q;
    const struct policy_header *items = NULL;
    size_t n = 0, found = 0;
    if (c == POLICY_CLAUSE_HEADERS && q->headers != NULL) {
        items = q->headers->items;
        n = q->headers->n;
    } else if (c == POLICY_CLAUSE_CLAIMS && q->claims != NULL) {
        items = q->claims->items;
        n = q->claims->n;
    }
    for (size_t i = 0; i < n; i++) {
        if (str_eq(items[i].name, str_of(name))) {
            *ret = items[i].value;
            found++;
        }
    }
    return found == 1 && ret->n > 0 && memchr(ret->p, '*', ret->n) == NULL &&
           memchr(ret->p, '\0', ret->n) == NULL;
}

static void repair_value(struct repair *r, struct policy_edit edit,
                         const struct conf_policy_value *value)
{
    struct str one = STR_NONE;
    edit.name = value->name;
    if (!r->w->q->http) {
        r->cost += COST_NEVER;
    } else if (!edit.negative && !value->present && single_value(r, edit.clause, edit.name, &one)) {
        edit.kind = POLICY_EDIT_ADD_ITEM;
        edit.item = mem_must_strndup(one.p, one.n);
        propose(r, edit, COST_ITEM);
    } else {
        edit.kind = POLICY_EDIT_REMOVE_ITEM;
        propose(r, edit, COST_CLAUSE);
    }
}

static void repair_failure(void *arg, enum policy_clause c, bool negative, long entry,
                           const struct conf_policy_value *value)
{
    struct repair *r = arg;
    struct policy_edit edit = {
        .kind = POLICY_EDIT_REMOVE_ITEM, .clause = c, .negative = negative, .entry = entry};
    bool role = r->now->rules[r->rule].roles.n > 0 && !policy_clause_is_from(c);
    if (c == POLICY_CLAUSE_TARGET || (dim_is_request(policy_clause_dim(c)) && !r->w->q->http)) {
        r->cost += COST_NEVER; /* it is about something else */
    } else if (role) {
        r->cost += COST_NEVER; /* it may stand in the role, which others have too */
    } else if (value != NULL) {
        repair_value(r, edit, value);
    } else if (negative) {
        remove_items(r, edit);
    } else {
        edit.kind = POLICY_EDIT_ADD_ITEM;
        edit.item = policy_fact_item(r->w->q, c);
        if (edit.item == NULL) {
            r->cost += COST_NEVER;
        } else {
            propose(r, edit, COST_ITEM);
        }
    }
}

static void allow(struct work *w, struct ask *a, const struct conf_policy *now)
{
    struct repair best = {.cost = COST_RULE};
    bool found = false;
    for (size_t i = 0; i < w->conf->n_rules; i++) {
        const struct rule *rule = &a->policy->rules[i];
        if (rule->action != CONF_ALLOW || rule->mode != CONF_ENFORCE ||
            policy_has_ended(rule, w->q)) {
            continue;
        }
        struct repair r = {.w = w, .ask = a, .now = now, .rule = i};
        policy_each_failure(a, now, i, repair_failure, &r);
        if (r.cost > 0 && r.cost < best.cost) {
            best = r;
            found = true;
        }
    }
    if (!found) {
        add_rule(w, CONF_ALLOW);
        return;
    }
    best.make = true;
    policy_each_failure(a, now, best.rule, repair_failure, &best);
}

/* --- exceptions --------------------------------------------------------------------------------*/

static bool from_holds(struct ask *a, uint32_t rule, int32_t from)
{
    return policy_atom_holds(a, &(struct atom){.rule = rule, .from = from, .to = ENTRY_NONE});
}

static bool to_holds(struct ask *a, uint32_t rule, int32_t to)
{
    return policy_atom_holds(a, &(struct atom){.rule = rule, .from = ENTRY_NONE, .to = to});
}

/* Every entry that matches gets its exception. */
static void except(struct work *w, struct ask *a, uint32_t rule)
{
    const struct rule *r = &a->policy->rules[rule];
    char *peer = policy_fact_item(w->q, POLICY_CLAUSE_PRINCIPALS);
    bool from = peer != NULL;
    uint32_t n = from ? r->n_from : r->n_to;
    size_t before = w->n;
    struct policy_edit edit = {
        .kind = POLICY_EDIT_ADD_ITEM,
        .rule = rule,
        .clause = from ? POLICY_CLAUSE_PRINCIPALS : POLICY_CLAUSE_PORTS,
        .negative = true,
    };
    for (uint32_t i = 0; i < (n > 0 ? n : 1); i++) {
        int32_t at = (int32_t)((from ? r->from_at : r->to_at) + i);
        if (n > 0 && !(from ? from_holds(a, rule, at) : to_holds(a, rule, at))) {
            continue;
        }
        edit.entry = n > 0 ? (long)i : POLICY_ENTRY_NONE;
        edit.item = policy_fact_item(w->q, edit.clause);
        add_edit(w, edit);
    }
    free(peer);
    bool role = !from && w->conf->rules[rule].roles.n > 0; /* what others have too is left alone */
    if (!role && (w->n - before) * COST_ITEM <= COST_RULE) {
        return;
    }
    while (w->n > before) {
        policy_edit_deinit(&w->edits[--w->n]);
    }
    add_edit(w, (struct policy_edit){.kind = POLICY_EDIT_REMOVE_RULE,
                                     .rule = rule,
                                     .clause = POLICY_CLAUSE_NONE,
                                     .entry = POLICY_ENTRY_NONE});
}

/* --- asking the changed policy -----------------------------------------------------------------*/

struct changed {
    struct policy_edited *edited;
    struct policy *policy;
    struct policy_verdict verdict;
};

static void changed_deinit(struct changed *c)
{
    policy_free(c->policy);
    policy_edited_free(c->edited);
}

/* False: it can no longer be compiled. */
static bool ask_changed(const struct work *w, struct changed *ret)
{
    struct err err = ERR_INIT;
    *ret = (struct changed){.edited = policy_edited_new(w->conf, w->edits, w->n)};
    ret->policy = policy_new(policy_edited_conf(ret->edited), &err);
    if (ret->policy != NULL) {
        policy_decide(ret->policy, w->q, &ret->verdict);
    }
    return ret->policy != NULL;
}

static uint32_t deciding_rule(const struct policy *p, const struct policy_verdict *v)
{
    for (uint32_t i = 0; i < p->n_rules; i++) {
        if (p->rules[i].name == v->rule) {
            return i;
        }
    }
    return UINT32_MAX;
}

/* One step from denied towards allowed. */
static void step(struct work *w, const struct changed *c)
{
    struct ask_named *named = mem_must_new(struct ask_named);
    struct ask *a = mem_must_new(struct ask);
    policy_ask_init(a, policy_asks_named(c->policy) ? named : NULL, c->policy, w->q);
    if (c->verdict.reason == POLICY_DENIED_BY_RULE) {
        except(w, a, deciding_rule(c->policy, &c->verdict));
    } else {
        allow(w, a, policy_edited_conf(c->edited));
    }
    free(a);
    free(named);
}

static bool turn_denial(struct work *w)
{
    enum { STEPS_MAX = 64 };
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        struct changed c;
        bool ok = ask_changed(w, &c);
        bool allowed = ok && c.verdict.allow;
        if (ok && !allowed) {
            step(w, &c);
        }
        changed_deinit(&c);
        if (!ok || allowed) {
            return allowed;
        }
    }
    return false;
}

/* --- taking away -------------------------------------------------------------------------------*/

static bool list_names(const struct policy_list *l, const char *item)
{
    if (l->strings == NULL || l->strings->n < 2) {
        return false; /* a list without items would ask for nothing */
    }
    for (size_t i = 0; i < l->strings->n; i++) {
        if (strcmp(l->strings->items[i], item) == 0) {
            return true;
        }
    }
    return false;
}

static bool denies_now(const struct work *w)
{
    struct changed c;
    bool denies = ask_changed(w, &c) && !c.verdict.allow;
    changed_deinit(&c);
    return denies;
}

/* Whether one literal item less is enough. */
static bool take_item(struct work *w, size_t rule)
{
    static const enum policy_clause tried[] = {POLICY_CLAUSE_PRINCIPALS, POLICY_CLAUSE_PATHS,
                                               POLICY_CLAUSE_METHODS};
    for (size_t t = 0; t < sizeof(tried) / sizeof(tried[0]); t++) {
        mem_autofree char *item = policy_fact_item(w->q, tried[t]);
        struct conf_rule *r = &w->conf->rules[rule];
        size_t n = policy_clause_is_from(tried[t]) ? r->n_from : r->roles.n > 0 ? 0 : r->n_to;
        for (size_t i = 0; item != NULL && i < n; i++) {
            struct policy_list l = policy_list_of(r, tried[t], false, (long)i);
            if (!list_names(&l, item)) {
                continue;
            }
            add_edit(w, (struct policy_edit){.kind = POLICY_EDIT_REMOVE_ITEM,
                                             .rule = rule,
                                             .clause = tried[t],
                                             .entry = (long)i,
                                             .item = mem_must_strdup(item)});
            if (denies_now(w)) {
                return true;
            }
            policy_edit_deinit(&w->edits[--w->n]);
        }
    }
    return false;
}

bool policy_propose(const struct conf_policy *conf, const struct policy *p,
                    const struct policy_query *q, const struct policy_verdict *v,
                    struct policy_edit **ret, size_t *ret_n)
{
    struct work w = {.conf = conf, .q = q};
    bool turns;
    if (v->allow) {
        turns = take_item(&w, deciding_rule(p, v));
        if (!turns) {
            add_rule(&w, CONF_DENY);
            turns = denies_now(&w);
        }
    } else {
        turns = turn_denial(&w);
    }
    *ret = w.edits;
    *ret_n = w.n;
    return turns;
}
