/* Read it beside docs/authorization.md: one function a sentence, no cleverness. */
#include "policy_ref.h"

#include <limits.h>
#include <string.h>

#include "policy_ref_facts.h"

/* What a clause comes to: true, false, or about a fact that is missing. */
enum truth { NO, YES, MISSING };

/* What is not known: false in ALLOW, true in DENY. */
static bool settle(enum truth t, enum conf_action action)
{
    return t == MISSING ? action != CONF_ALLOW : t == YES;
}

/* One clause and its not_ form; counts the failed ones. An absent clause holds. */
static unsigned count_failed(bool has, enum truth holds, bool has_not, enum truth not_holds,
                             enum conf_action action)
{
    unsigned failed = 0;
    failed += has && !settle(holds, action);
    failed += has_not && !settle(not_holds == MISSING ? MISSING
                                 : not_holds == YES   ? NO
                                                      : YES,
                                 action);
    return failed;
}

static enum truth truth(bool b)
{
    return b ? YES : NO;
}

/* --- named values ------------------------------------------------------------------------------*/

/* All values of one name. */
struct said {
    bool known;  /* it is known what the request has */
    bool absent; /* it is known to have none of the kind at all */
    size_t n, matching;
};

static struct said say(const struct conf_policy_value *v, const struct policy_header *items,
                       size_t n)
{
    struct said s = {.known = true};
    for (size_t i = 0; i < n; i++) {
        if (str_eq(items[i].name, str_of(v->name))) {
            s.n++;
            s.matching += policy_ref_any_text(&v->values, items[i].value);
        }
    }
    return s;
}

/* The table of docs/authorization.md, "Named values", and for claims that of "Claims". */
static bool named_holds(const struct conf_policy_value *v, const struct said *s, bool negative,
                        bool claim, enum conf_action action)
{
    bool allow = action == CONF_ALLOW;
    if (!s->known) {
        return !allow;
    }
    if (s->absent) {
        return negative && !allow;
    }
    if (v->present) {
        return negative ? s->n == 0 : s->n > 0;
    }
    if (s->n == 0) {
        return negative && !allow;
    }
    bool every = s->matching == s->n;
    bool one = s->matching > 0;
    if (claim) {
        return negative ? !one : one;
    }
    if (negative) {
        return allow ? !one : !every;
    }
    return allow ? every : one;
}

static unsigned list_failed(const struct conf_policy_values *list, const struct policy_header *have,
                            size_t n_have, bool known, bool absent, bool negative, bool claim,
                            enum conf_action action)
{
    unsigned failed = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct said s = say(&list->items[i], have, n_have);
        s.known = known;
        s.absent = absent;
        failed += !named_holds(&list->items[i], &s, negative, claim, action);
    }
    return failed;
}

static unsigned claims_failed(const struct conf_policy_from *f, const struct policy_query *q,
                              enum conf_action action)
{
    if (!q->http) {
        return (unsigned)(f->claims.n + f->not_claims.n);
    }
    bool none = q->claims == NULL;
    const struct policy_header *have = none ? NULL : q->claims->items;
    size_t n = none ? 0 : q->claims->n;
    return list_failed(&f->claims, have, n, true, none, false, true, action) +
           list_failed(&f->not_claims, have, n, true, none, true, true, action);
}

static unsigned headers_failed(const struct conf_policy_to *t, const struct policy_query *q,
                               enum conf_action action)
{
    bool known = q->headers != NULL;
    const struct policy_header *have = known ? q->headers->items : NULL;
    size_t n = known ? q->headers->n : 0;
    return list_failed(&t->headers, have, n, known, false, false, false, action) +
           list_failed(&t->not_headers, have, n, known, false, true, false, action);
}

enum { PARAMETERS = 256 };

static unsigned query_failed(const struct conf_policy_to *t, const struct policy_query *q,
                             enum conf_action action)
{
    char room[8192];
    struct policy_header have[PARAMETERS] = {0};
    size_t used = 0, n = 0, from = 0;
    bool known = q->query.p != NULL && q->query.n < sizeof(room);
    for (size_t i = 0; known && i <= q->query.n && n < PARAMETERS; i++) {
        if (i < q->query.n && q->query.p[i] != '&') {
            continue;
        }
        struct str one = {q->query.p + from, i - from};
        const char *eq = one.n > 0 ? memchr(one.p, '=', one.n) : NULL;
        struct str name = {one.p, eq != NULL ? (size_t)(eq - one.p) : one.n};
        struct str value = {eq != NULL ? eq + 1 : one.p, eq != NULL ? one.n - name.n - 1 : 0};
        known = policy_ref_decode_parameter(name, room, &used, &have[n].name) &&
                policy_ref_decode_parameter(value, room, &used, &have[n].value);
        n++;
        from = i + 1;
    }
    return list_failed(&t->query, have, n, known, false, false, false, action) +
           list_failed(&t->not_query, have, n, known, false, true, false, action);
}

/* In DENY the path alone is asked; a `not` of what is no gRPC is true there. */
static unsigned grpc_failed(const struct conf_policy_to *t, const struct policy_query *q,
                            enum conf_action action)
{
    struct str method = STR_NONE;
    bool allow = action == CONF_ALLOW;
    bool by_path = policy_ref_grpc_of(q->path, &method);
    bool is = by_path && (q->grpc || !allow) && policy_ref_any_text(&t->grpc, method);
    bool is_not = by_path && q->grpc ? !policy_ref_any_text(&t->not_grpc, method) : !allow;
    return (unsigned)((t->grpc.n > 0 && !is) + (t->not_grpc.n > 0 && !is_not));
}

static unsigned from_failed(const struct conf_policy_from *f, const struct policy_query *q,
                            enum conf_action action)
{
    unsigned failed = 0;
    bool known = q->peer.n > 0;
    /* Having no identity is known and is not that identity: positive clauses are false. */
    failed += count_failed(
        f->principals.n > 0, truth(known && policy_ref_any_principal(&f->principals, q->peer)),
        f->not_principals.n > 0,
        known ? truth(policy_ref_any_principal(&f->not_principals, q->peer)) : MISSING, action);
    struct str td = policy_ref_trust_domain_of(q->peer);
    known = td.n > 0;
    failed += count_failed(
        f->trust_domains.n > 0, truth(known && policy_ref_any_exact(&f->trust_domains, td)),
        f->not_trust_domains.n > 0,
        known ? truth(policy_ref_any_exact(&f->not_trust_domains, td)) : MISSING, action);
    struct str ns = STR_NONE, account = STR_NONE;
    known = policy_ref_kubernetes_of(q->peer, &ns, &account);
    failed +=
        count_failed(f->namespaces.n > 0, truth(known && policy_ref_any_text(&f->namespaces, ns)),
                     f->not_namespaces.n > 0,
                     known ? truth(policy_ref_any_text(&f->not_namespaces, ns)) : MISSING, action);
    failed += count_failed(
        f->service_accounts.n > 0,
        truth(known && policy_ref_any_text(&f->service_accounts, account)),
        f->not_service_accounts.n > 0,
        known ? truth(policy_ref_any_text(&f->not_service_accounts, account)) : MISSING, action);
    failed += claims_failed(f, q, action);
    struct ref_address a;
    known = policy_ref_source_address(q->source, &a);
    failed += count_failed(
        f->ip_blocks.n > 0, known ? truth(policy_ref_any_block(&f->ip_blocks, &a)) : MISSING,
        f->not_ip_blocks.n > 0,
        known ? truth(policy_ref_any_block(&f->not_ip_blocks, &a)) : MISSING, action);
    return failed;
}

static bool has_request_clause(const struct conf_policy_to *t)
{
    return t->methods.n + t->not_methods.n + t->hosts.n + t->not_hosts.n + t->paths.n +
               t->not_paths.n + t->grpc.n + t->not_grpc.n + t->query.n + t->not_query.n +
               t->headers.n + t->not_headers.n >
           0;
}

static unsigned to_failed(const struct conf_policy_to *t, const struct policy_query *q,
                          enum conf_action action)
{
    unsigned failed = 0;
    failed +=
        count_failed(t->n_ports > 0, truth(policy_ref_any_port(t->ports, t->n_ports, q->port)),
                     t->n_not_ports > 0,
                     truth(policy_ref_any_port(t->not_ports, t->n_not_ports, q->port)), action);
    if (!q->http) {
        return failed +
               (unsigned)((t->methods.n > 0) + (t->not_methods.n > 0) + (t->hosts.n > 0) +
                          (t->not_hosts.n > 0) + (t->paths.n > 0) + (t->not_paths.n > 0) +
                          (t->grpc.n > 0) + (t->not_grpc.n > 0)) +
               (unsigned)(t->query.n + t->not_query.n + t->headers.n + t->not_headers.n);
    }
    failed += grpc_failed(t, q, action) + query_failed(t, q, action) + headers_failed(t, q, action);
    bool known = q->method.n > 0;
    failed += count_failed(
        t->methods.n > 0, known ? truth(policy_ref_any_exact(&t->methods, q->method)) : MISSING,
        t->not_methods.n > 0,
        known ? truth(policy_ref_any_exact(&t->not_methods, q->method)) : MISSING, action);
    known = q->host.n > 0;
    failed += count_failed(
        t->hosts.n > 0, known ? truth(policy_ref_any_host(&t->hosts, q->host)) : MISSING,
        t->not_hosts.n > 0, known ? truth(policy_ref_any_host(&t->not_hosts, q->host)) : MISSING,
        action);
    known = q->path.n > 0;
    failed += count_failed(
        t->paths.n > 0, known ? truth(policy_ref_any_path(&t->paths, q->path)) : MISSING,
        t->not_paths.n > 0, known ? truth(policy_ref_any_path(&t->not_paths, q->path)) : MISSING,
        action);
    return failed;
}

static bool target_holds(const struct conf_rule *rule, struct str target)
{
    if (rule->target_principals.n == 0) {
        return true;
    }
    return target.n > 0 ? policy_ref_any_target(&rule->target_principals, target)
                        : rule->action != CONF_ALLOW;
}

unsigned policy_ref_failed_clauses(const struct conf_rule *rule, const struct policy_query *q)
{
    unsigned failed = target_holds(rule, q->target) ? 0 : 1;
    unsigned best = rule->n_from > 0 ? UINT_MAX : 0;
    for (size_t i = 0; i < rule->n_from; i++) {
        unsigned n = from_failed(&rule->from[i], q, rule->action);
        best = n < best ? n : best;
    }
    failed += best;
    best = rule->n_to > 0 ? UINT_MAX : 0;
    for (size_t i = 0; i < rule->n_to; i++) {
        unsigned n = to_failed(&rule->to[i], q, rule->action);
        best = n < best ? n : best;
    }
    return failed + best;
}

/* The first rule of this kind that is there and matches. */
static const struct conf_rule *first(const struct conf_policy *conf, const struct policy_query *q,
                                     enum conf_action action, enum conf_rule_mode mode)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        const struct conf_rule *r = &conf->rules[i];
        bool ended = r->expires_s != 0 &&
                     (q->now_s > 0 ? q->now_s >= r->expires_s : r->action == CONF_ALLOW);
        if (r->action == action && r->mode == mode && !ended &&
            policy_ref_failed_clauses(r, q) == 0) {
            return r;
        }
    }
    return NULL;
}

static void shadow(const struct conf_policy *conf, const struct policy_query *q,
                   struct policy_verdict *v)
{
    const struct conf_rule *deny = first(conf, q, CONF_DENY, CONF_DRY_RUN);
    const struct conf_rule *allow = first(conf, q, CONF_ALLOW, CONF_DRY_RUN);
    if (v->reason == POLICY_ALLOWED && deny != NULL) {
        v->shadow = POLICY_SHADOW_DENY;
        v->shadow_rule = deny->name;
    } else if (v->reason == POLICY_NO_RULE && deny == NULL && allow != NULL) {
        v->shadow = POLICY_SHADOW_ALLOW;
        v->shadow_rule = allow->name;
    }
}

void policy_ref_decide(const struct conf_policy *conf, const struct policy_query *q,
                       struct policy_verdict *ret)
{
    const struct conf_rule *deny = first(conf, q, CONF_DENY, CONF_ENFORCE);
    const struct conf_rule *allow = first(conf, q, CONF_ALLOW, CONF_ENFORCE);
    const struct conf_rule *audit = first(conf, q, CONF_AUDIT, CONF_ENFORCE);
    const struct conf_rule *by = deny != NULL ? deny : allow;
    *ret = (struct policy_verdict){
        .allow = deny == NULL && allow != NULL,
        .reason = deny != NULL    ? POLICY_DENIED_BY_RULE
                  : allow != NULL ? POLICY_ALLOWED
                                  : POLICY_NO_RULE,
        .rule = by != NULL ? by->name : NULL,
        .rule_line = by != NULL ? by->line : 0,
        .audit = audit != NULL ? audit->name : NULL,
    };
    shadow(conf, q, ret);
}

/* Claims make requests of what every entry of the rule speaks of. */
static bool has_claims(const struct conf_rule *rule)
{
    for (size_t i = 0; i < rule->n_from; i++) {
        if (rule->from[i].claims.n + rule->from[i].not_claims.n > 0) {
            return true;
        }
    }
    return false;
}

bool policy_ref_wants_requests(const struct conf_policy *conf, struct str target, uint16_t port)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        const struct conf_rule *rule = &conf->rules[i];
        bool concerns = rule->target_principals.n == 0 || target.n == 0 ||
                        policy_ref_any_target(&rule->target_principals, target);
        concerns = concerns && rule->action != CONF_AUDIT && rule->mode == CONF_ENFORCE;
        if (concerns && has_claims(rule) && rule->n_to == 0) {
            return true;
        }
        for (size_t j = 0; concerns && j < rule->n_to; j++) {
            const struct conf_policy_to *t = &rule->to[j];
            if ((has_request_clause(t) || has_claims(rule)) &&
                (t->n_ports == 0 || policy_ref_any_port(t->ports, t->n_ports, port)) &&
                !policy_ref_any_port(t->not_ports, t->n_not_ports, port)) {
                return true;
            }
        }
    }
    return false;
}
