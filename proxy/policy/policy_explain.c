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
    [DIM_DOMAIN] = {"trust_domains", "not_trust_domains"},
    [DIM_SOURCE] = {"ip_blocks", "not_ip_blocks"},
    [DIM_PATH] = {"paths", "not_paths"},
    [DIM_HOST] = {"hosts", "not_hosts"},
    [DIM_METHOD] = {"methods", "not_methods"},
};

/* In the order in which a rule is read. */
static const enum dim from_dims[FROM_CLAUSES] = {DIM_PRINCIPAL, DIM_DOMAIN, DIM_SOURCE};
static const enum dim to_dims[TO_CLAUSES] = {DIM_PORT, DIM_METHOD, DIM_HOST, DIM_PATH};

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
    buf_printf(out, "%s", k->form == FORM_ANY || k->form == FORM_SUFFIX ? "*" : "");
    print_text((enum dim)k->dim, (struct str){k->text, k->len}, max, out);
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
    case DIM_DOMAIN:
        print_text(DIM_PRINCIPAL, q->peer, VALUE_SHOWN, out);
        break;
    case DIM_SOURCE:
        print_source(q->source, out);
        break;
    case DIM_PATH:
        print_text(DIM_PATH, q->path, VALUE_SHOWN, out);
        break;
    case DIM_HOST:
        print_text(DIM_HOST, q->host, VALUE_SHOWN, out);
        break;
    case DIM_METHOD:
        print_text(DIM_METHOD, q->method, VALUE_SHOWN, out);
        break;
    case DIM_COUNT:
        break;
    }
}

static const char *missing_text(enum dim dim)
{
    switch (dim) {
    case DIM_TARGET:
        return "the own identity is not known";
    case DIM_PRINCIPAL:
    case DIM_DOMAIN:
        return "the peer has no identity";
    case DIM_SOURCE:
        return "the source address is not known";
    case DIM_HOST:
        return "the request names no host";
    case DIM_PORT:
    case DIM_PATH:
    case DIM_METHOD:
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

static unsigned from_weight(struct ask *a, const struct from *f)
{
    unsigned weight = 0;
    for (unsigned d = 0; d < FROM_CLAUSES; d++) {
        weight += clause_weight(a, from_dims[d], policy_from_clause(f, from_dims[d]));
    }
    return weight;
}

static unsigned to_weight(struct ask *a, const struct to *t)
{
    unsigned weight = clause_weight(a, DIM_PORT, &t->port);
    unsigned requests = 0;
    for (unsigned d = 0; d < TO_CLAUSES; d++) {
        if (dim_is_request(to_dims[d])) {
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
};

enum { FAILURES_MAX = 2 * DIM_COUNT };

static unsigned add_failures(struct ask *a, enum dim dim, const struct clause *c,
                             struct failure *items, unsigned n)
{
    if (!policy_list_holds(a, dim, &c->pos, CONF_ALLOW)) {
        items[n++] = (struct failure){dim, false, &c->pos};
    }
    if (!policy_not_list_holds(a, dim, &c->neg, CONF_ALLOW)) {
        items[n++] = (struct failure){dim, true, &c->neg};
    }
    return n;
}

/* What fails, in the order in which the rule is read. */
static unsigned list_failures(struct ask *a, const struct miss *m, struct failure *ret_items)
{
    const struct policy *p = a->policy;
    const struct rule *r = &p->rules[m->rule];
    unsigned n = 0;
    for (unsigned d = 0; r->n_from > 0 && d < FROM_CLAUSES; d++) {
        const struct clause *c = policy_from_clause(&p->from[m->from], from_dims[d]);
        n = add_failures(a, from_dims[d], c, ret_items, n);
    }
    for (unsigned d = 0; r->n_to > 0 && d < TO_CLAUSES; d++) {
        const struct clause *c = policy_to_clause(&p->to[m->to], to_dims[d]);
        n = add_failures(a, to_dims[d], c, ret_items, n);
    }
    return n;
}

static void print_failure(struct ask *a, const struct failure *f, struct buf *out)
{
    const struct policy *p = a->policy;
    buf_printf(out, "%s [", clause_names[f->dim][f->negative ? 1 : 0]);
    for (uint32_t i = 0; i < f->list->n && i < ITEMS_SHOWN; i++) {
        buf_printf(out, "%s", i > 0 ? ", " : "");
        print_key(&p->table, policy_run_keys(p, f->list)[i], VALUE_SHOWN, out);
    }
    if (f->list->n > ITEMS_SHOWN) {
        buf_printf(out, ", and %u more", f->list->n - ITEMS_SHOWN);
    }
    if (dim_is_request(f->dim) && !a->query->http) {
        buf_printf(out,
                   "] speaks of requests, and this is a connection: is the port declared http?");
    } else if (policy_ask_match(a, f->dim)->missing) {
        buf_printf(out, "]: %s", missing_text(f->dim));
    } else {
        buf_printf(out, "] %s ", f->negative ? "holds" : "does not hold");
        print_fact(a->query, f->dim, out);
    }
}

/* --- the nearest rule --------------------------------------------------------------------------*/

struct nearest {
    struct miss miss;
    struct failure failures[FAILURES_MAX];
    unsigned n_failures;
    uint32_t looked_at;
    bool more; /* there are more rules than were looked at */
};

static struct span allow_rules_of(const struct policy *p, uint32_t key)
{
    uint32_t low = 0;
    uint32_t high = p->n_allow_spans;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (p->allow_spans[mid].key < key) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    bool found = low < p->n_allow_spans && p->allow_spans[low].key == key;
    return found ? p->allow_spans[low].rules : (struct span){0};
}

/* Takes the lowest rule number from the runs; UINT32_MAX: they are empty. */
static uint32_t next_rule(const struct policy *p, struct span *runs, uint32_t n_runs)
{
    uint32_t next = UINT32_MAX;
    for (uint32_t i = 0; i < n_runs; i++) {
        if (runs[i].n > 0 && p->pool[runs[i].at] < next) {
            next = p->pool[runs[i].at];
        }
    }
    for (uint32_t i = 0; i < n_runs; i++) {
        if (runs[i].n > 0 && p->pool[runs[i].at] == next) {
            runs[i].at++;
            runs[i].n--;
        }
    }
    return next;
}

/* The ALLOW rules that speak of the target are those of its keys and those without target: runs in
 * the order of the file, read side by side. */
static void find_nearest(struct ask *a, struct nearest *ret)
{
    const struct policy *p = a->policy;
    const struct match *m = policy_ask_match(a, DIM_TARGET);
    struct span runs[MATCH_MAX + 1] = {allow_rules_of(p, KEY_NONE)};
    uint32_t n_runs = 1;
    for (uint32_t i = 0; i < m->n; i++) {
        runs[n_runs++] = allow_rules_of(p, m->keys[i]);
    }
    *ret = (struct nearest){.miss.rule = UINT32_MAX};
    for (;;) {
        uint32_t next = next_rule(p, runs, n_runs);
        if (next == UINT32_MAX || ret->looked_at == RULES_LOOKED_AT) {
            ret->more = next != UINT32_MAX;
            break;
        }
        ret->looked_at++;
        struct miss miss = rule_miss(a, next);
        POSTERN_ASSERT(miss.weight > 0); /* or it would have allowed */
        if (ret->miss.rule == UINT32_MAX || miss.weight < ret->miss.weight) {
            ret->miss = miss;
        }
    }
    if (ret->miss.rule != UINT32_MAX) {
        ret->n_failures = list_failures(a, &ret->miss, ret->failures);
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
    print_failure(a, &near->failures[0], out);
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
    for (unsigned i = 0; i < near.n_failures; i++) {
        buf_printf(out, "    ");
        print_failure(a, &near.failures[i], out);
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
        struct ask a __attribute__((uninitialized));
        policy_ask_init(&a, p, q);
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
        struct ask a __attribute__((uninitialized));
        struct nearest near;
        policy_ask_init(&a, p, q);
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
