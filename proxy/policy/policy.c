/*
 * Compiling a policy and asking it. The tree is built in policy_build.c, values become keys in
 * policy_keys.c; what a clause means when its fact is missing is here and nowhere else.
 */
#include <postern/policy.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "policy_priv.h"

/* --- clauses -----------------------------------------------------------------------------------*/

const struct clause *policy_from_clause(const struct from *f, enum dim dim)
{
    return dim == DIM_PRINCIPAL ? &f->principal : dim == DIM_DOMAIN ? &f->domain : &f->source;
}

const struct clause *policy_to_clause(const struct to *t, enum dim dim)
{
    return dim == DIM_PORT   ? &t->port
           : dim == DIM_PATH ? &t->path
           : dim == DIM_HOST ? &t->host
                             : &t->method;
}

bool policy_list_holds(struct ask *a, enum dim dim, const struct run *pos, enum conf_action action)
{
    if (pos->n == 0) {
        return true;
    }
    if (dim_is_request(dim) && !a->query->http) {
        return false;
    }
    const struct match *m = policy_ask_match(a, dim);
    if (m->missing) {
        /* No identity is known to be not this one; anything else that is missing may be it. */
        return action == CONF_DENY && !dim_is_identity(dim);
    }
    return policy_match_meets(a->policy, m, pos);
}

bool policy_not_list_holds(struct ask *a, enum dim dim, const struct run *neg,
                           enum conf_action action)
{
    if (neg->n == 0) {
        return true;
    }
    if (dim_is_request(dim) && !a->query->http) {
        return false;
    }
    const struct match *m = policy_ask_match(a, dim);
    return m->missing ? action == CONF_DENY : !policy_match_meets(a->policy, m, neg);
}

static bool clause_holds(struct ask *a, enum dim dim, const struct clause *c,
                         enum conf_action action)
{
    return policy_list_holds(a, dim, &c->pos, action) &&
           policy_not_list_holds(a, dim, &c->neg, action);
}

static bool to_holds(struct ask *a, const struct to *t, enum conf_action action)
{
    return clause_holds(a, DIM_PORT, &t->port, action) &&
           clause_holds(a, DIM_PATH, &t->path, action) &&
           clause_holds(a, DIM_HOST, &t->host, action) &&
           clause_holds(a, DIM_METHOD, &t->method, action);
}

/* --- asking ------------------------------------------------------------------------------------*/

/* What the edges to this leaf did not say of the atom. */
static bool atom_holds(struct ask *a, const struct atom *atom, enum dim leaf_dim,
                       enum conf_action action)
{
    const struct policy *p = a->policy;
    unsigned open = (1U << DIM_COUNT) - (1U << leaf_dim);
    for (unsigned left = atom->check | (atom->filed & open); left != 0; left &= left - 1) {
        enum dim dim = (enum dim)__builtin_ctz(left);
        const struct clause *c;
        if (dim == DIM_TARGET) {
            c = &p->rules[atom->rule].target;
        } else if (dim == DIM_PRINCIPAL || dim == DIM_DOMAIN || dim == DIM_SOURCE) {
            c = policy_from_clause(&p->from[atom->from], dim);
        } else {
            c = policy_to_clause(&p->to[atom->to], dim);
        }
        if (!clause_holds(a, dim, c, action)) {
            return false;
        }
    }
    if (atom->to == ENTRY_EACH) {
        const struct rule *r = &p->rules[atom->rule];
        for (uint32_t i = 0; i < r->n_to; i++) {
            if (to_holds(a, &p->to[r->to_at + i], action)) {
                return true;
            }
        }
        return false;
    }
    return true;
}

static uint32_t child_of(const struct policy *p, uint32_t at, const struct node *node, uint32_t key)
{
    if (!node->hashed) {
        for (uint32_t i = 0; i < node->n; i++) {
            if (p->edges[node->first + i].key == key) {
                return p->edges[node->first + i].child;
            }
        }
        return 0;
    }
    uint32_t i = policy_edge_hash(at, key) & p->edge_mask;
    while (p->edge_slots[i].child != 0) {
        if (p->edge_slots[i].node == at && p->edge_slots[i].key == key) {
            return p->edge_slots[i].child;
        }
        i = (i + 1) & p->edge_mask;
    }
    return 0;
}

/* Lowers a->best to the first rule of the file below this node that matches. As deep as there are
 * dimensions. */
static void search(struct ask *a, uint32_t at, enum conf_action action)
{
    const struct policy *p = a->policy;
    const struct node *node = &p->nodes[at];
    if (at == 0 || node->min_rule >= a->best) {
        return;
    }
    if (node->leaf) {
        for (uint32_t i = 0; i < node->n; i++) {
            const struct atom *atom = &p->leaf_atoms[node->first + i];
            if (atom->rule >= a->best) {
                return;
            }
            if (atom_holds(a, atom, (enum dim)node->dim, action)) {
                a->best = atom->rule;
                return;
            }
        }
        return;
    }
    const struct match *m = policy_ask_match(a, (enum dim)node->dim);
    for (uint32_t i = 0; i < m->n; i++) {
        search(a, child_of(p, at, node, m->keys[i]), action);
    }
    search(a, node->any, action);
}

void policy_decide(const struct policy *p, const struct policy_query *q, struct policy_verdict *ret)
{
    if (p == NULL) {
        *ret = (struct policy_verdict){.reason = POLICY_NONE_LOADED};
        return;
    }
    struct ask a __attribute__((uninitialized));
    policy_ask_init(&a, p, q);
    enum policy_reason reason = POLICY_DENIED_BY_RULE;
    search(&a, p->roots[TREE_DENY], CONF_DENY);
    if (a.best == UINT32_MAX) {
        reason = POLICY_ALLOWED;
        search(&a, p->roots[TREE_ALLOW], CONF_ALLOW);
    }
    if (a.best == UINT32_MAX) {
        *ret = (struct policy_verdict){.reason = POLICY_NO_RULE};
        return;
    }
    *ret = (struct policy_verdict){
        .allow = reason == POLICY_ALLOWED,
        .reason = reason,
        .rule = p->rules[a.best].name,
        .rule_line = p->rules[a.best].line,
        .rule_key = p->rules[a.best].key,
    };
}

bool policy_wants_requests(const struct policy *p, struct str target, uint16_t port)
{
    if (p == NULL) {
        return false;
    }
    struct policy_query q = {.target = target, .port = port};
    struct ask a __attribute__((uninitialized));
    policy_ask_init(&a, p, &q);
    /* A target that is not known may be any: judged as in DENY. */
    search(&a, p->roots[TREE_REQUESTS], CONF_DENY);
    return a.best != UINT32_MAX;
}

/* No clause asks about them, and no rule ends, yet. */
struct policy_needs policy_needs(const struct policy *p)
{
    (void)p;
    return (struct policy_needs){.query = false};
}

int64_t policy_next_expiry(const struct policy *p, int64_t now_s)
{
    (void)p;
    (void)now_s;
    return 0;
}

/* --- compiling ---------------------------------------------------------------------------------*/

struct compiler {
    struct policy *p;
    const struct conf_policy *conf;
    uint32_t *keys; /* of the list at hand */
    uint32_t n, cap;
    struct err *err;
};

static void push(struct compiler *c, uint32_t key)
{
    if (c->n == c->cap) {
        c->cap = c->cap > 0 ? c->cap * 2 : 64;
        c->keys = mem_must_realloc(c->keys, c->cap * sizeof(c->keys[0]));
    }
    c->keys[c->n++] = key;
}

static int compare_keys(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The list at hand becomes a run: ascending, each key once. */
static struct run take_run(struct compiler *c)
{
    struct policy *p = c->p;
    if (c->n > 1) {
        qsort(c->keys, c->n, sizeof(c->keys[0]), compare_keys);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        if (i == 0 || c->keys[i] != c->keys[i - 1]) {
            c->keys[n++] = c->keys[i];
        }
    }
    c->n = 0;
    if (n <= 1) {
        return (struct run){.at = n == 1 ? c->keys[0] : 0, .n = n};
    }
    struct run run = {.at = p->n_pool, .n = n};
    while (p->cap_pool - p->n_pool < n) {
        p->cap_pool = p->cap_pool > 0 ? p->cap_pool * 2 : 256;
        p->pool = mem_must_realloc(p->pool, p->cap_pool * sizeof(p->pool[0]));
    }
    memcpy(p->pool + p->n_pool, c->keys, n * sizeof(c->keys[0]));
    p->n_pool += n;
    return run;
}

static int compile_strings(struct compiler *c, enum dim dim, const struct conf_strings *list,
                           struct run *ret)
{
    for (size_t i = 0; i < list->n; i++) {
        uint32_t key = KEY_NONE;
        if (policy_key_of_pattern(&c->p->table, dim, list->items[i], &key, c->err) != 0) {
            return -1;
        }
        push(c, key);
    }
    *ret = take_run(c);
    return 0;
}

static struct run compile_ports(struct compiler *c, const uint16_t *ports, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        push(c, policy_key_of_port(&c->p->table, ports[i]));
    }
    return take_run(c);
}

static struct run compile_blocks(struct compiler *c, const struct conf_cidrs *list)
{
    for (size_t i = 0; i < list->n; i++) {
        push(c, policy_key_of_block(&c->p->table, &list->items[i]));
    }
    return take_run(c);
}

static int compile_from(struct compiler *c, const struct conf_policy_from *in, struct from *out)
{
    out->source.pos = compile_blocks(c, &in->ip_blocks);
    out->source.neg = compile_blocks(c, &in->not_ip_blocks);
    if (compile_strings(c, DIM_PRINCIPAL, &in->principals, &out->principal.pos) != 0 ||
        compile_strings(c, DIM_PRINCIPAL, &in->not_principals, &out->principal.neg) != 0 ||
        compile_strings(c, DIM_DOMAIN, &in->trust_domains, &out->domain.pos) != 0 ||
        compile_strings(c, DIM_DOMAIN, &in->not_trust_domains, &out->domain.neg) != 0) {
        return -1;
    }
    return 0;
}

static int compile_to(struct compiler *c, const struct conf_policy_to *in, struct to *out)
{
    out->port.pos = compile_ports(c, in->ports, in->n_ports);
    out->port.neg = compile_ports(c, in->not_ports, in->n_not_ports);
    if (compile_strings(c, DIM_PATH, &in->paths, &out->path.pos) != 0 ||
        compile_strings(c, DIM_PATH, &in->not_paths, &out->path.neg) != 0 ||
        compile_strings(c, DIM_HOST, &in->hosts, &out->host.pos) != 0 ||
        compile_strings(c, DIM_HOST, &in->not_hosts, &out->host.neg) != 0 ||
        compile_strings(c, DIM_METHOD, &in->methods, &out->method.pos) != 0 ||
        compile_strings(c, DIM_METHOD, &in->not_methods, &out->method.neg) != 0) {
        return -1;
    }
    return 0;
}

static int compile_rule(struct compiler *c, const struct conf_rule *in)
{
    struct policy *p = c->p;
    struct rule *r = &p->rules[p->n_rules++];
    *r = (struct rule){
        .name = mem_must_strdup(in->name),
        .key = policy_key_of_rule(in),
        .line = in->line,
        .action = (uint8_t)in->action,
        .from_at = p->n_from,
        .to_at = p->n_to,
    };
    if (compile_strings(c, DIM_TARGET, &in->target_principals, &r->target.pos) != 0) {
        return -1;
    }
    for (size_t i = 0; i < in->n_from; i++) {
        if (compile_from(c, &in->from[i], &p->from[p->n_from]) != 0) {
            return -1;
        }
        p->n_from++;
        r->n_from++;
    }
    for (size_t i = 0; i < in->n_to; i++) {
        if (compile_to(c, &in->to[i], &p->to[p->n_to]) != 0) {
            return -1;
        }
        p->n_to++;
        r->n_to++;
    }
    return 0;
}

static int compile_rules(struct compiler *c)
{
    struct policy *p = c->p;
    size_t n_from = 0;
    size_t n_to = 0;
    for (size_t i = 0; i < c->conf->n_rules; i++) {
        n_from += c->conf->rules[i].n_from;
        n_to += c->conf->rules[i].n_to;
    }
    if (c->conf->n_rules > INT32_MAX / 2 || n_from > INT32_MAX / 2 || n_to > INT32_MAX / 2) {
        return err_set(c->err, ERR_LIMIT, "a policy of %zu rules is too large", c->conf->n_rules);
    }
    p->rules = mem_must_calloc(c->conf->n_rules + 1, sizeof(p->rules[0]));
    p->from = mem_must_calloc(n_from + 1, sizeof(p->from[0]));
    p->to = mem_must_calloc(n_to + 1, sizeof(p->to[0]));
    for (size_t i = 0; i < c->conf->n_rules; i++) {
        const struct conf_rule *rule = &c->conf->rules[i];
        if (compile_rule(c, rule) != 0) {
            err_prefix(c->err, "rule '%s'", rule->name);
            return err_where(c->err, "%s:%u", c->conf->path != NULL ? c->conf->path : "policy",
                             rule->line);
        }
    }
    return policy_keys_finish(&p->table, c->err);
}

struct policy *policy_new(const struct conf_policy *conf, struct err *err)
{
    struct policy *p = mem_must_new(struct policy);
    struct compiler c = {.p = p, .conf = conf, .err = err};
    int rc = policy_check_pending(conf, err);
    if (rc == 0) {
        rc = compile_rules(&c);
    }
    free(c.keys);
    if (rc != 0) {
        return policy_free(p);
    }
    policy_build(p);
    return p;
}

struct policy *policy_free(struct policy *p)
{
    if (p == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < p->n_rules; i++) {
        free(p->rules[i].name);
    }
    policy_keys_deinit(&p->table);
    free(p->rules);
    free(p->from);
    free(p->to);
    free(p->pool);
    free(p->atoms);
    free(p->nodes);
    free(p->edges);
    free(p->leaf_atoms);
    free(p->edge_slots);
    free(p->allow_spans);
    free(p);
    return NULL;
}
