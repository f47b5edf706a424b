/*
 * Why it is so, for people. Asked for denials only, and bounded all the same: whoever is denied
 * often must not cost more than whoever is served. So the nearest rule is looked for among the
 * first ALLOW rules that speak of the target, and of each no more than a number of entries.
 */
#include <postern/policy.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "policy_priv.h"

enum {
    RULES_LOOKED_AT = 256,
    ENTRIES_LOOKED_AT = 64, /* of each part of a rule */
    ITEMS_SHOWN = 4,
    VALUE_SHOWN = 120, /* bytes of an item, and of what a peer sent or is */
    TEXT_MAX = 16384,
    /* A rule about another port is about another door: it is nearest only if there is no other. */
    WEIGHT_PORT = 16,
};

static const char *const clause_names[DIM_COUNT][2] = {
    [DIM_TARGET] = {"target principals", ""},
    [DIM_PORT] = {"ports", "not_ports"},
    [DIM_PRINCIPAL] = {"principals", "not_principals"},
    [DIM_NAMESPACE] = {"namespaces", "not_namespaces"},
    [DIM_ACCOUNT] = {"service_accounts", "not_service_accounts"},
    [DIM_DOMAIN] = {"trust_domains", "not_trust_domains"},
    [DIM_SOURCE] = {"ip_blocks", "not_ip_blocks"},
    [DIM_PATH] = {"paths", "not_paths"},
    [DIM_HOST] = {"hosts", "not_hosts"},
    [DIM_METHOD] = {"methods", "not_methods"},
    [DIM_GRPC] = {"grpc", "not_grpc"},
    [DIM_CLAIM] = {"claims", "not_claims"},
    [DIM_QUERY] = {"query", "not_query"},
    [DIM_HEADER] = {"headers", "not_headers"},
};

/* In the order in which a rule is read. */
static const enum dim from_dims[] = {DIM_PRINCIPAL, DIM_NAMESPACE, DIM_ACCOUNT,
                                     DIM_DOMAIN,    DIM_SOURCE,    DIM_CLAIM};
static const enum dim to_dims[] = {DIM_PORT, DIM_METHOD, DIM_HOST,  DIM_PATH,
                                   DIM_GRPC, DIM_QUERY,  DIM_HEADER};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- values ------------------------------------------------------------------------------------*/

/* Escaped as its dimension has it (%XX in paths, \x elsewhere), and cut at max bytes. */
static void print_text(enum dim dim, struct str text, size_t max, struct buf *out)
{
    for (size_t i = 0; i < text.n && i < max; i++) {
        uint8_t c = (uint8_t)text.p[i];
        bool plain = c > 0x20 && c < 0x7f && c != '"';
        if (plain && c != (dim == DIM_PATH ? '%' : '\\')) {
            buf_append(out, &c, 1);
        } else {
            buf_printf(out, dim == DIM_PATH ? "%%%02X" : "\\x%02x", c);
        }
    }
    if (text.n > max) {
        buf_printf(out, "...");
    }
}

/* Its free segments and, where they belong, the fixed ones. */
static void print_shape(const struct shape *s, const struct key *k, struct buf *out)
{
    bool path = s->dim == DIM_PATH;
    const char *p = k->text;
    unsigned n = (unsigned)s->n_before + s->n_after;
    buf_printf(out, path ? "/" : "spiffe://");
    for (unsigned i = 0; i <= n; i++) {
        if (s->rest && i == s->n_before) {
            buf_printf(out, "%s%s", i > 0 ? "/" : "", path ? "{**}" : "**");
        }
        if (i == n) {
            break;
        }
        buf_printf(out, "%s", i > 0 || (s->rest && s->n_before == 0) ? "/" : "");
        if (i < s->n_before && (s->wild >> i & 1U) != 0) {
            buf_printf(out, path ? "{}" : "*");
            continue;
        }
        size_t len = strcspn(p, "/");
        print_text((enum dim)s->dim, (struct str){p, len}, VALUE_SHOWN, out);
        p += len + 1;
    }
}

/* "/orders/" + star, 10.0.0.0/8: as people write it. */
static void print_key(const struct key_table *t, uint32_t key, size_t max, struct buf *out)
{
    const struct key *k = policy_key(t, key);
    if (k->dim == DIM_PORT) {
        buf_printf(out, "%u", (unsigned)((uint8_t)k->text[0] << 8 | (uint8_t)k->text[1]));
        return;
    }
    if (k->dim == DIM_SOURCE) {
        char text[INET6_ADDRSTRLEN] = "";
        bool v4 = k->text[0] == 4;
        inet_ntop(v4 ? AF_INET : AF_INET6, k->text + 1, text, sizeof(text));
        buf_printf(out, "%s", text);
        if (k->prefix_len != (v4 ? 32 : 128)) {
            buf_printf(out, "/%u", k->prefix_len);
        }
        return;
    }
    if (k->form == FORM_SHAPE) {
        print_shape(&t->shapes[k->prefix_len], k, out);
        return;
    }
    size_t before = k->name_len > 0 ? (size_t)k->name_len + 1 : 0;
    buf_printf(out, "%s", k->form == FORM_ANY || k->form == FORM_SUFFIX ? "*" : "");
    print_text((enum dim)k->dim, (struct str){k->text + before, k->len - before}, max, out);
    buf_printf(out, "%s", k->form == FORM_PREFIX ? "*" : "");
}

static void print_source(const struct sockaddr *sa, struct buf *out)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (sa != NULL && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
    } else if (sa != NULL && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr);
        inet_ntop(mapped ? AF_INET : AF_INET6, in6.sin6_addr.s6_addr + (mapped ? 12 : 0), text,
                  sizeof(text));
    }
    buf_printf(out, "%s", text[0] != '\0' ? text : "an unknown address");
}

static void print_fact(const struct policy_query *q, enum dim dim, struct buf *out)
{
    switch (dim) {
    case DIM_TARGET:
        print_text(DIM_TARGET, q->target, VALUE_SHOWN, out);
        break;
    case DIM_PORT:
        buf_printf(out, "%u", q->port);
        break;
    case DIM_PRINCIPAL:
    case DIM_NAMESPACE:
    case DIM_ACCOUNT:
    case DIM_DOMAIN:
        print_text(DIM_PRINCIPAL, q->peer, VALUE_SHOWN, out);
        break;
    case DIM_SOURCE:
        print_source(q->source, out);
        break;
    case DIM_PATH:
    case DIM_GRPC:
        print_text(DIM_PATH, q->path, VALUE_SHOWN, out);
        break;
    case DIM_HOST:
        print_text(DIM_HOST, q->host, VALUE_SHOWN, out);
        break;
    case DIM_METHOD:
        print_text(DIM_METHOD, q->method, VALUE_SHOWN, out);
        break;
    case DIM_CLAIM: /* values stay out of logs */
    case DIM_QUERY:
    case DIM_HEADER:
    case DIM_COUNT:
        break;
    }
}

static const char *missing_text(const struct policy_query *q, enum dim dim)
{
    switch (dim) {
    case DIM_TARGET:
        return "the own identity is not known";
    case DIM_PRINCIPAL:
        return "the peer has no identity";
    case DIM_NAMESPACE:
    case DIM_ACCOUNT:
    case DIM_DOMAIN:
        return q->peer.n > 0 ? "the peer has no identity of this form" : "the peer has no identity";
    case DIM_SOURCE:
        return "the source address is not known";
    case DIM_HOST:
        return "the request names no host";
    case DIM_GRPC:
        return "the request is not gRPC";
    case DIM_CLAIM:
        return "there is no verified token";
    case DIM_PORT:
    case DIM_PATH:
    case DIM_METHOD:
    case DIM_QUERY:
    case DIM_HEADER:
    case DIM_COUNT:
        break;
    }
    return "the request has none";
}

/* --- failures ----------------------------------------------------------------------------------*/

/* A rule as near as it comes: its lightest pair of entries. */
struct miss {
    uint32_t rule; /* UINT32_MAX: no ALLOW rule speaks of the target */
    uint32_t from; /* which entry; of no meaning if the rule has none */
    uint32_t to;
    unsigned weight; /* of what fails */
};

static unsigned clause_weight(struct ask *a, enum dim dim, const struct clause *c)
{
    unsigned each = dim == DIM_PORT ? WEIGHT_PORT : 1;
    return (policy_list_holds(a, dim, &c->pos, CONF_ALLOW) ? 0 : each) +
           (policy_not_list_holds(a, dim, &c->neg, CONF_ALLOW) ? 0 : each);
}

static unsigned named_weight(struct ask *a, enum dim dim, const struct named *c)
{
    const struct named_item *items = a->policy->items;
    unsigned weight = 0;
    for (uint32_t i = 0; i < c->pos.n; i++) {
        weight += !policy_item_holds(a, dim, &items[c->pos.at + i], false, CONF_ALLOW);
    }
    for (uint32_t i = 0; i < c->neg.n; i++) {
        weight += !policy_item_holds(a, dim, &items[c->neg.at + i], true, CONF_ALLOW);
    }
    return weight;
}

static unsigned from_weight(struct ask *a, const struct from *f)
{
    unsigned weight = named_weight(a, DIM_CLAIM, &f->claims);
    for (unsigned d = 0; d < COUNT(from_dims); d++) {
        if (from_dims[d] != DIM_CLAIM) {
            weight += clause_weight(a, from_dims[d], policy_from_clause(f, from_dims[d]));
        }
    }
    return weight;
}

static unsigned to_weight(struct ask *a, const struct to *t)
{
    unsigned weight = clause_weight(a, DIM_PORT, &t->port);
    unsigned requests = 0;
    for (unsigned d = 0; d < COUNT(to_dims); d++) {
        if (dim_is_named(to_dims[d])) {
            requests += named_weight(a, to_dims[d], policy_to_named(t, to_dims[d]));
        } else if (dim_is_request(to_dims[d])) {
            requests += clause_weight(a, to_dims[d], policy_to_clause(t, to_dims[d]));
        }
    }
    /* That there is no request is one thing that fails, in however many clauses. */
    return weight + (!a->query->http && requests > 1 ? 1 : requests);
}

static struct miss rule_miss(struct ask *a, uint32_t rule)
{
    const struct policy *p = a->policy;
    const struct rule *r = &p->rules[rule];
    struct miss m = {.rule = rule};
    unsigned best = r->n_from > 0 ? UINT32_MAX : 0;
    for (uint32_t i = 0; i < r->n_from && i < ENTRIES_LOOKED_AT && best > 0; i++) {
        unsigned weight = from_weight(a, &p->from[r->from_at + i]);
        if (weight < best) {
            best = weight;
            m.from = r->from_at + i;
        }
    }
    m.weight = best;
    best = r->n_to > 0 ? UINT32_MAX : 0;
    for (uint32_t i = 0; i < r->n_to && i < ENTRIES_LOOKED_AT && best > 0; i++) {
        unsigned weight = to_weight(a, &p->to[r->to_at + i]);
        if (weight < best) {
            best = weight;
            m.to = r->to_at + i;
        }
    }
    m.weight += best;
    return m;
}

struct failure {
    enum dim dim;
    bool negative;
    const struct run *list;
    const struct named_item *item; /* dimensions with names; NULL: others */
};

enum { FAILURES_MAX = 2 * DIM_PLAIN_COUNT + 8 }; /* of many with names the first are enough */

struct failures {
    struct failure items[FAILURES_MAX];
    unsigned n;
};

static void add_failure(struct failures *f, struct failure failure)
{
    if (f->n < FAILURES_MAX) {
        f->items[f->n++] = failure;
    }
}

static void add_plain(struct ask *a, enum dim dim, const struct clause *c, struct failures *f)
{
    if (!policy_list_holds(a, dim, &c->pos, CONF_ALLOW)) {
        add_failure(f, (struct failure){.dim = dim, .list = &c->pos});
    }
    if (!policy_not_list_holds(a, dim, &c->neg, CONF_ALLOW)) {
        add_failure(f, (struct failure){.dim = dim, .negative = true, .list = &c->neg});
    }
}

static void add_named(struct ask *a, enum dim dim, const struct named *c, struct failures *f)
{
    for (unsigned negative = 0; negative < 2; negative++) {
        const struct span *list = negative == 1 ? &c->neg : &c->pos;
        for (uint32_t i = 0; i < list->n; i++) {
            const struct named_item *item = &a->policy->items[list->at + i];
            if (!policy_item_holds(a, dim, item, negative == 1, CONF_ALLOW)) {
                add_failure(f, (struct failure){.dim = dim,
                                                .negative = negative == 1,
                                                .list = &item->values,
                                                .item = item});
            }
        }
    }
}

/* What fails, in the order in which the rule is read. */
static void list_failures(struct ask *a, const struct miss *m, struct failures *ret)
{
    const struct policy *p = a->policy;
    const struct rule *r = &p->rules[m->rule];
    ret->n = 0;
    for (unsigned d = 0; r->n_from > 0 && d < COUNT(from_dims); d++) {
        const struct from *f = &p->from[m->from];
        if (from_dims[d] == DIM_CLAIM) {
            add_named(a, DIM_CLAIM, &f->claims, ret);
        } else {
            add_plain(a, from_dims[d], policy_from_clause(f, from_dims[d]), ret);
        }
    }
    for (unsigned d = 0; r->n_to > 0 && d < COUNT(to_dims); d++) {
        const struct to *t = &p->to[m->to];
        if (dim_is_named(to_dims[d])) {
            add_named(a, to_dims[d], policy_to_named(t, to_dims[d]), ret);
        } else {
            add_plain(a, to_dims[d], policy_to_clause(t, to_dims[d]), ret);
        }
    }
}

static void print_list(const struct policy *p, const struct failure *f, struct buf *out)
{
    if (f->item != NULL) {
        const struct key *name = policy_key(&p->table, f->item->name);
        print_text(f->dim, (struct str){name->text, name->name_len}, VALUE_SHOWN, out);
        buf_printf(out, f->item->present ? " present" : ": ");
    }
    for (uint32_t i = 0; i < f->list->n && i < ITEMS_SHOWN; i++) {
        buf_printf(out, "%s", i > 0 ? ", " : "");
        print_key(&p->table, policy_run_keys(p, f->list)[i], VALUE_SHOWN, out);
    }
    if (f->list->n > ITEMS_SHOWN) {
        buf_printf(out, ", and %u more", f->list->n - ITEMS_SHOWN);
    }
}

/* What a caller wrote into a header or parameter stays out of the log: it may be a secret. */
static void print_named_fact(struct ask *a, const struct failure *f, struct buf *out)
{
    const struct named_match *m = policy_ask_named(a, f->dim);
    unsigned n = 0;
    for (uint32_t i = 0; i < m->n_values; i++) {
        n += m->values[i].name == f->item->name;
    }
    if (m->known == NOT_THERE) {
        buf_printf(out, "]: %s", missing_text(a->query, f->dim));
    } else if (m->known == NOT_KNOWN) {
        buf_printf(out, "]: what the request has is not known");
    } else if (n == 0) {
        buf_printf(out, "]: it is not there");
    } else {
        buf_printf(out, "] %s %s", f->negative ? "holds" : "does not hold",
                   n == 1 ? "what is there" : "all of what is there");
    }
}

static void print_failure(struct ask *a, const struct failure *f, struct buf *out)
{
    buf_printf(out, "%s [", clause_names[f->dim][f->negative ? 1 : 0]);
    print_list(a->policy, f, out);
    if (dim_is_request(f->dim) && !a->query->http) {
        buf_printf(out,
                   "] speaks of requests, and this is a connection: is the port declared http?");
    } else if (f->item != NULL) {
        print_named_fact(a, f, out);
    } else if (policy_ask_match(a, f->dim)->known != KNOWN ||
               (f->dim == DIM_GRPC && !a->query->grpc)) {
        buf_printf(out, "]: %s", missing_text(a->query, f->dim));
    } else {
        buf_printf(out, "] %s ", f->negative ? "holds" : "does not hold");
        print_fact(a->query, f->dim, out);
    }
}

/* --- the nearest rule --------------------------------------------------------------------------*/

struct nearest {
    struct ask *ask;
    struct miss miss;
    struct failures failures;
    uint32_t last; /* rule: its atoms stand side by side */
    uint32_t looked_at;
    bool more; /* there are more rules than were looked at */
};

static bool look_at(void *arg, const struct atom *atom)
{
    struct nearest *n = arg;
    const struct rule *r = &n->ask->policy->rules[atom->rule];
    if (atom->rule == n->last || policy_has_ended(r, n->ask->query)) {
        return true;
    }
    if (n->looked_at == RULES_LOOKED_AT) {
        n->more = true;
        return false;
    }
    n->last = atom->rule;
    n->looked_at++;
    struct miss miss = rule_miss(n->ask, atom->rule);
    POSTERN_ASSERT(miss.weight > 0); /* or it would have allowed */
    if (n->miss.rule == UINT32_MAX || miss.weight < n->miss.weight) {
        n->miss = miss;
    }
    return true;
}

static void find_nearest(struct ask *a, struct nearest *ret)
{
    *ret = (struct nearest){.ask = a, .miss.rule = UINT32_MAX, .last = UINT32_MAX};
    policy_search_target(a, SECTION_ALLOW, look_at, ret);
    if (ret->miss.rule != UINT32_MAX) {
        list_failures(a, &ret->miss, &ret->failures);
    }
}

/* --- texts -------------------------------------------------------------------------------------*/

static void print_near_miss(struct ask *a, const struct nearest *near, struct buf *out)
{
    const struct policy *p = a->policy;
    if (near->miss.rule == UINT32_MAX) {
        buf_printf(out, "no ALLOW rule speaks of target ");
        print_text(DIM_TARGET, a->query->target, VALUE_SHOWN, out);
        return;
    }
    buf_printf(out, "rule \"%s\": ", p->rules[near->miss.rule].name);
    print_failure(a, &near->failures.items[0], out);
}

static void print_verdict(const struct policy_verdict *v, struct buf *out)
{
    switch (v->reason) {
    case POLICY_ALLOWED:
        buf_printf(out, "allowed by rule \"%s\" (line %u)", v->rule, v->rule_line);
        break;
    case POLICY_DENIED_BY_RULE:
        buf_printf(out, "denied by rule \"%s\" (line %u)", v->rule, v->rule_line);
        break;
    case POLICY_NO_RULE:
        buf_printf(out, "denied: no rule allows it");
        break;
    case POLICY_NONE_LOADED:
        buf_printf(out, "denied: no policy is loaded");
        break;
    }
}

static void print_question(const struct policy_query *q, struct buf *out)
{
    buf_printf(out, "  ");
    if (q->peer.n > 0) {
        print_text(DIM_PRINCIPAL, q->peer, VALUE_SHOWN, out);
    } else {
        buf_printf(out, "a peer without identity");
    }
    buf_printf(out, " from ");
    print_source(q->source, out);
    buf_printf(out, " to ");
    print_text(DIM_TARGET, q->target, VALUE_SHOWN, out);
    buf_printf(out, " port %u, ", q->port);
    if (!q->http) {
        buf_printf(out, "a connection\n");
        return;
    }
    print_text(DIM_METHOD, q->method, VALUE_SHOWN, out);
    buf_printf(out, " ");
    print_text(DIM_PATH, q->path, VALUE_SHOWN, out);
    buf_printf(out, " at host ");
    print_text(DIM_HOST, q->host.n > 0 ? q->host : STR_LIT("(none)"), VALUE_SHOWN, out);
    buf_printf(out, "\n");
}

static void print_nearest(struct ask *a, struct buf *out)
{
    struct nearest near;
    find_nearest(a, &near);
    if (near.miss.rule == UINT32_MAX) {
        buf_printf(out, "  ");
        print_near_miss(a, &near, out);
        buf_printf(out, "\n");
        return;
    }
    const struct rule *r = &a->policy->rules[near.miss.rule];
    buf_printf(out, "  nearest of %s%u ALLOW rules for this target: rule \"%s\" (line %u)\n",
               near.more ? "the first " : "", near.looked_at, r->name, r->line);
    for (unsigned i = 0; i < near.failures.n; i++) {
        buf_printf(out, "    ");
        print_failure(a, &near.failures.items[i], out);
        buf_printf(out, "\n");
    }
}

bool policy_explain(const struct policy *p, const struct policy_query *q, struct buf *out)
{
    struct policy_verdict v;
    struct buf text = BUF_INIT(TEXT_MAX);
    policy_decide(p, q, &v);
    print_verdict(&v, &text);
    buf_printf(&text, "\n");
    print_question(q, &text);
    if (v.reason == POLICY_NO_RULE) {
        struct ask_named named __attribute__((uninitialized));
        struct ask a __attribute__((uninitialized));
        policy_ask_init(&a, policy_asks_named(p) ? &named : NULL, p, q);
        print_nearest(&a, &text);
    }
    bool ok = buf_len(&text) > 0 && buf_append_str(out, buf_str(&text));
    buf_reset(&text);
    return ok;
}

void policy_near_miss(const struct policy *p, const struct policy_query *q, char *ret_text,
                      size_t size)
{
    struct policy_verdict v;
    struct buf text = BUF_INIT(TEXT_MAX);
    policy_decide(p, q, &v);
    if (v.reason == POLICY_NO_RULE) {
        struct ask_named named __attribute__((uninitialized));
        struct ask a __attribute__((uninitialized));
        struct nearest near;
        policy_ask_init(&a, policy_asks_named(p) ? &named : NULL, p, q);
        find_nearest(&a, &near);
        print_near_miss(&a, &near, &text);
    } else {
        print_verdict(&v, &text);
    }
    struct str s = buf_str(&text);
    if (size > 0) {
        size_t n = s.n < size ? s.n : size - 1;
        if (n > 0) {
            memcpy(ret_text, s.p, n);
        }
        ret_text[n] = '\0';
    }
    buf_reset(&text);
}
