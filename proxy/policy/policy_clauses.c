/*
 * What a clause means, one after the other: where the sets do not say all, and for explanations.
 * What holds when a fact is missing is here, and once more in the sets' words in policy_search.c.
 */
#include "policy_priv.h"

static bool is_from(enum dim dim)
{
    return dim == DIM_PRINCIPAL || dim == DIM_NAMESPACE || dim == DIM_ACCOUNT ||
           dim == DIM_DOMAIN || dim == DIM_SOURCE || dim == DIM_CLAIM;
}

const struct clause *policy_from_clause(const struct from *f, enum dim dim)
{
    return dim == DIM_PRINCIPAL   ? &f->principal
           : dim == DIM_NAMESPACE ? &f->ns
           : dim == DIM_ACCOUNT   ? &f->account
           : dim == DIM_DOMAIN    ? &f->domain
                                  : &f->source;
}

const struct clause *policy_to_clause(const struct to *t, enum dim dim)
{
    return dim == DIM_PORT   ? &t->port
           : dim == DIM_PATH ? &t->path
           : dim == DIM_HOST ? &t->host
           : dim == DIM_GRPC ? &t->grpc
                             : &t->method;
}

const struct named *policy_to_named(const struct to *t, enum dim dim)
{
    return dim == DIM_QUERY ? &t->query : &t->headers;
}

bool policy_to_is_request(const struct to *t)
{
    return t->method.pos.n + t->method.neg.n + t->host.pos.n + t->host.neg.n + t->path.pos.n +
               t->path.neg.n + t->grpc.pos.n + t->grpc.neg.n + t->query.pos.n + t->query.neg.n +
               t->headers.pos.n + t->headers.neg.n >
           0;
}

const struct clause *policy_atom_clause(const struct policy *p, const struct atom *a, enum dim dim)
{
    static const struct clause nothing;
    if (dim == DIM_TARGET) {
        return a->to >= 0 && a->from == ENTRY_EACH ? &nothing : &p->rules[a->rule].target;
    }
    if (is_from(dim)) {
        return a->from >= 0 ? policy_from_clause(&p->from[a->from], dim) : &nothing;
    }
    return a->to >= 0 ? policy_to_clause(&p->to[a->to], dim) : &nothing;
}

const struct named *policy_atom_named(const struct policy *p, const struct atom *a, enum dim dim)
{
    static const struct named nothing;
    if (dim == DIM_CLAIM) {
        return a->from >= 0 ? &p->from[a->from].claims : &nothing;
    }
    return a->to >= 0 ? policy_to_named(&p->to[a->to], dim) : &nothing;
}

/* --- one value ---------------------------------------------------------------------------------*/

/* Who says that a request is gRPC must mean it in ALLOW; in DENY the path is enough, since some
 * servers go by it alone. */
static bool grpc_is_unclear(const struct ask *a, enum dim dim)
{
    return dim == DIM_GRPC && !a->query->grpc;
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
    if (m->known != KNOWN) {
        return m->known == NOT_KNOWN && !action_grants(action);
    }
    if (grpc_is_unclear(a, dim) && action_grants(action)) {
        return false;
    }
    return policy_keys_meet(a->policy, m->keys, m->n, pos);
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
    if (m->known != KNOWN || grpc_is_unclear(a, dim)) {
        return !action_grants(action);
    }
    return !policy_keys_meet(a->policy, m->keys, m->n, neg);
}

/* --- values by name ----------------------------------------------------------------------------*/

struct counted {
    unsigned there, matching; /* values of the name, and those among the item's */
};

static struct counted count_values(struct ask *a, const struct named_match *m,
                                   const struct named_item *item)
{
    struct counted c = {0};
    for (uint32_t i = 0; i < m->n_values; i++) {
        const struct named_value *v = &m->values[i];
        if (v->name == item->name) {
            c.there++;
            c.matching +=
                item->present || policy_keys_meet(a->policy, m->keys + v->at, v->n, &item->values);
        }
    }
    return c;
}

bool policy_item_holds(struct ask *a, enum dim dim, const struct named_item *item, bool negative,
                       enum conf_action action)
{
    if (!a->query->http) {
        return false;
    }
    const struct named_match *m = policy_ask_named(a, dim);
    bool grants = action_grants(action);
    if (m->known == NOT_KNOWN) {
        return !grants;
    }
    if (m->known == NOT_THERE) {
        return negative && !grants;
    }
    struct counted c = count_values(a, m, item);
    /* Of a claim any value is enough, and too much for a `not`. Of what a caller writes, ALLOW is
     * content if all match (none do), DENY if one does (one does not). */
    bool all = dim != DIM_CLAIM && c.there > 0 && c.matching == c.there;
    bool any = c.matching > 0;
    bool strict = dim != DIM_CLAIM && grants;
    if (!negative) {
        return strict ? all : any;
    }
    if (item->present) {
        return c.there == 0;
    }
    if (c.there == 0) {
        return !grants;
    }
    return dim == DIM_CLAIM || grants ? !any : !all;
}

/* All of a list with names. */
static bool named_holds(struct ask *a, enum dim dim, const struct named *c, enum conf_action action)
{
    const struct named_item *items = a->policy->items;
    for (uint32_t i = 0; i < c->pos.n; i++) {
        if (!policy_item_holds(a, dim, &items[c->pos.at + i], false, action)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < c->neg.n; i++) {
        if (!policy_item_holds(a, dim, &items[c->neg.at + i], true, action)) {
            return false;
        }
    }
    return true;
}

/* --- atoms -------------------------------------------------------------------------------------*/

/* A rule that ends somewhen has ended, for ALLOW, where the time is not known. */
bool policy_has_ended(const struct rule *r, const struct policy_query *q)
{
    if (r->expires_s == 0) {
        return false;
    }
    return q->now_s > 0 ? q->now_s >= r->expires_s : action_grants((enum conf_action)r->action);
}

bool policy_atom_holds(struct ask *a, const struct atom *atom)
{
    const struct policy *p = a->policy;
    enum conf_action action = (enum conf_action)p->rules[atom->rule].action;
    for (enum dim d = 0; d < DIM_PLAIN_COUNT; d++) {
        const struct clause *c = policy_atom_clause(p, atom, d);
        if (!policy_list_holds(a, d, &c->pos, action) ||
            !policy_not_list_holds(a, d, &c->neg, action)) {
            return false;
        }
    }
    for (enum dim d = DIM_PLAIN_COUNT; d < DIM_COUNT; d++) {
        if (!named_holds(a, d, policy_atom_named(p, atom, d), action)) {
            return false;
        }
    }
    return true;
}
