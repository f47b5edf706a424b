/* Asking a policy: what is found in which kind of rules makes the verdict. */
#include "policy_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

static const struct rule *rule_of(const struct policy *p, uint32_t atom)
{
    return atom != UINT32_MAX ? &p->rules[p->atoms[atom].rule] : NULL;
}

static const struct rule *find(struct ask *a, enum section section)
{
    return rule_of(a->policy, policy_search(a, section));
}

/* What would have been if dry-run rules decided. */
static void shadow(struct ask *a, struct policy_verdict *v)
{
    if (v->reason == POLICY_DENIED_BY_RULE) {
        return;
    }
    const struct rule *r = find(a, SECTION_DRY_DENY);
    if (v->allow && r != NULL) {
        v->shadow = POLICY_SHADOW_DENY;
        v->shadow_rule = r->name;
    }
    if (!v->allow && r == NULL) {
        r = find(a, SECTION_DRY_ALLOW);
        if (r != NULL) {
            v->shadow = POLICY_SHADOW_ALLOW;
            v->shadow_rule = r->name;
        }
    }
}

static void decide(struct ask *a, struct policy_verdict *ret)
{
    const struct rule *deny = find(a, SECTION_DENY);
    const struct rule *r = deny != NULL ? deny : find(a, SECTION_ALLOW);
    *ret = (struct policy_verdict){.reason = POLICY_NO_RULE};
    if (r != NULL) {
        *ret = (struct policy_verdict){
            .allow = deny == NULL,
            .reason = deny == NULL ? POLICY_ALLOWED : POLICY_DENIED_BY_RULE,
            .rule = r->name,
            .rule_line = r->line,
            .rule_reason = r->reason,
            .rule_key = r->key,
        };
    }
    const struct rule *audit = find(a, SECTION_AUDIT);
    ret->audit = audit != NULL ? audit->name : NULL;
    shadow(a, ret);
}

/* A frame of its own: policies without such clauses do with a small one. */
__attribute__((noinline)) static void
decide_named(const struct policy *p, const struct policy_query *q, struct policy_verdict *ret)
{
    struct ask_named named __attribute__((uninitialized));
    struct ask a __attribute__((uninitialized));
    policy_ask_init(&a, &named, p, q);
    decide(&a, ret);
}

__attribute__((noinline)) static void
decide_plain(const struct policy *p, const struct policy_query *q, struct policy_verdict *ret)
{
    struct ask a __attribute__((uninitialized));
    policy_ask_init(&a, NULL, p, q);
    decide(&a, ret);
}

void policy_decide(const struct policy *p, const struct policy_query *q, struct policy_verdict *ret)
{
    if (p == NULL) {
        *ret = (struct policy_verdict){.reason = POLICY_NONE_LOADED};
    } else if (policy_asks_named(p)) {
        decide_named(p, q, ret);
    } else {
        decide_plain(p, q, ret);
    }
}

bool policy_wants_requests(const struct policy *p, struct str target, uint16_t port)
{
    if (p == NULL) {
        return false;
    }
    struct policy_query q = {.target = target, .port = port};
    struct ask a __attribute__((uninitialized));
    policy_ask_init(&a, NULL, p, &q);
    /* A target that is not known may be any: judged as in DENY. Rules that have ended count. */
    return policy_search(&a, SECTION_REQUESTS) != UINT32_MAX;
}

struct policy_needs policy_needs(const struct policy *p)
{
    if (p == NULL) {
        return (struct policy_needs){.query = false};
    }
    return (struct policy_needs){
        .query = p->asks[DIM_QUERY], .headers = p->asks[DIM_HEADER], .claims = p->asks[DIM_CLAIM]};
}

int64_t policy_next_expiry(const struct policy *p, int64_t now_s)
{
    for (uint32_t i = 0; p != NULL && i < p->n_ends; i++) {
        if (p->ends[i] > now_s) {
            return p->ends[i];
        }
    }
    return 0;
}

struct policy *policy_new(const struct conf_policy *conf, struct err *err)
{
    struct policy *p = mem_must_new(struct policy);
    if (policy_compile_rules(p, conf, err) != 0) {
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
        free(p->rules[i].reason);
    }
    policy_keys_deinit(&p->table);
    free(p->rules);
    free(p->from);
    free(p->to);
    free(p->items);
    free(p->pool);
    free(p->atoms);
    free(p->parts);
    free(p->each);
    free(p->set_lines);
    free(p->set_bits);
    free(p->set_runs);
    free(p->valid);
    for (unsigned i = 0; i < ROW_COUNT; i++) {
        free(p->none[i]);
    }
    for (unsigned i = 0; i < DIM_COUNT; i++) {
        free(p->negs[i]);
    }
    free(p->requests);
    free(p->ends);
    free(p);
    return NULL;
}
