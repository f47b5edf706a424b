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
    VALUE_SHOWN = 120, /* bytes of what a peer sent or is */
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

/* What a peer sent is escaped and cut. */
static void print_value(struct str s, struct buf *out)
{
    for (size_t i = 0; i < s.n && i < VALUE_SHOWN; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c < 0x21 || c > 0x7e || c == '\\' || c == '"') {
            buf_printf(out, "\\x%02x", c);
        } else {
            buf_append(out, &c, 1);
        }
    }
    if (s.n > VALUE_SHOWN) {
        buf_printf(out, "...");
    }
}

static bool print_source(const struct sockaddr *sa, struct buf *out)
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
    return buf_printf(out, "%s", text[0] != '\0' ? text : "an unknown address");
}

static void print_fact(const struct policy_query *q, enum dim dim, struct buf *out)
{
    switch (dim) {
    case DIM_TARGET:
        print_value(q->target, out);
        break;
    case DIM_PORT:
        buf_printf(out, "%u", q->port);
        break;
    case DIM_PRINCIPAL:
    case DIM_DOMAIN:
        print_value(q->peer, out);
        break;
    case DIM_SOURCE:
        print_source(q->source, out);
        break;
    case DIM_PATH:
        print_value(q->path, out);
        break;
    case DIM_HOST:
        print_value(q->host, out);
        break;
    case DIM_METHOD:
        print_value(q->method, out);
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

struct failure {
    enum dim dim;
    bool negative;
    struct run list;
};

enum { FAILURES_MAX = 2 * DIM_COUNT };

/* What fails of a rule, for the pair of entries that comes nearest. */
struct failures {
    struct failure items[FAILURES_MAX];
    unsigned n;
    unsigned weight;
};

static void note(struct failures *f, enum dim dim, bool negative, struct run list)
{
    f->items[f->n++] = (struct failure){dim, negative, list};
    f->weight += dim == DIM_PORT ? WEIGHT_PORT : 1;
}

static void check_clause(struct ask *a, enum dim dim, const struct clause *c, struct failures *f)
{
    if (!policy_list_holds(a, dim, c->pos, CONF_ALLOW)) {
        note(f, dim, false, c->pos);
    }
    if (!policy_not_list_holds(a, dim, c->neg, CONF_ALLOW)) {
        note(f, dim, true, c->neg);
    }
}

static void append_failures(struct failures *f, const struct failures *more)
{
    for (unsigned i = 0; i < more->n; i++) {
        f->items[f->n++] = more->items[i];
    }
    f->weight += more->weight;
}

static void check_rule(struct ask *a, const struct rule *r, struct failures *ret)
{
    const struct policy *p = a->policy;
    struct failures best = {.n = 0};
    *ret = (struct failures){.n = 0};
    for (uint32_t i = 0; i < r->n_from && i < ENTRIES_LOOKED_AT; i++) {
        struct failures f = {.n = 0};
        for (unsigned d = 0; d < FROM_CLAUSES; d++) {
            const struct from *from = &p->from[r->from_at + i];
            check_clause(a, from_dims[d], policy_from_clause(from, from_dims[d]), &f);
        }
        if (i == 0 || f.weight < best.weight) {
            best = f;
        }
    }
    append_failures(ret, &best);
    best = (struct failures){.n = 0};
    for (uint32_t i = 0; i < r->n_to && i < ENTRIES_LOOKED_AT; i++) {
        struct failures f = {.n = 0};
        for (unsigned d = 0; d < TO_CLAUSES; d++) {
            const struct to *to = &p->to[r->to_at + i];
            check_clause(a, to_dims[d], policy_to_clause(to, to_dims[d]), &f);
        }
        if (i == 0 || f.weight < best.weight) {
            best = f;
        }
    }
    append_failures(ret, &best);
}

static void print_failure(struct ask *a, const struct failure *f, struct buf *out)
{
    const struct policy *p = a->policy;
    buf_printf(out, "%s [", clause_names[f->dim][f->negative ? 1 : 0]);
    for (uint32_t i = 0; i < f->list.n && i < ITEMS_SHOWN; i++) {
        buf_printf(out, "%s", i > 0 ? ", " : "");
        policy_key_print(&p->table, p->pool[f->list.at + i], out);
    }
    if (f->list.n > ITEMS_SHOWN) {
        buf_printf(out, ", and %u more", f->list.n - ITEMS_SHOWN);
    }
    if (dim_is_request(f->dim) && !a->query->http) {
        buf_printf(out, "] speaks of requests, and this is a connection");
    } else if (policy_ask_match(a, f->dim)->missing) {
        buf_printf(out, "]: %s", missing_text(f->dim));
    } else {
        buf_printf(out, "] %s ", f->negative ? "holds" : "does not hold");
        print_fact(a->query, f->dim, out);
    }
}

/* --- the nearest rule --------------------------------------------------------------------------*/

struct nearest {
    uint32_t rule; /* UINT32_MAX: no ALLOW rule speaks of the target */
    struct failures failures;
    uint32_t looked_at;
    bool more; /* there are more rules than were looked at */
};

/* The ALLOW rules that speak of the target are those of its keys and those without target: runs in
 * the order of the file, read side by side. */
static void find_nearest(struct ask *a, struct nearest *ret)
{
    const struct policy *p = a->policy;
    const struct match *m = policy_ask_match(a, DIM_TARGET);
    struct run runs[MATCH_MAX + 1];
    uint32_t n_runs = 0;
    runs[n_runs++] = p->allow_any_target;
    for (uint32_t i = 0; i < m->n; i++) {
        runs[n_runs++] = p->allow_by_key[m->keys[i]];
    }
    *ret = (struct nearest){.rule = UINT32_MAX};
    for (;;) {
        uint32_t next = UINT32_MAX;
        for (uint32_t i = 0; i < n_runs; i++) {
            if (runs[i].n > 0 && p->pool[runs[i].at] < next) {
                next = p->pool[runs[i].at];
            }
        }
        if (next == UINT32_MAX) {
            return;
        }
        for (uint32_t i = 0; i < n_runs; i++) {
            if (runs[i].n > 0 && p->pool[runs[i].at] == next) {
                runs[i].at++;
                runs[i].n--;
            }
        }
        if (ret->looked_at == RULES_LOOKED_AT) {
            ret->more = true;
            return;
        }
        ret->looked_at++;
        struct failures f;
        check_rule(a, &p->rules[next], &f);
        POSTERN_ASSERT(f.n > 0); /* or it would have allowed */
        if (ret->rule == UINT32_MAX || f.weight < ret->failures.weight) {
            ret->rule = next;
            ret->failures = f;
        }
    }
}

/* --- texts -------------------------------------------------------------------------------------*/

static void print_near_miss(struct ask *a, const struct nearest *near, struct buf *out)
{
    const struct policy *p = a->policy;
    if (near->rule == UINT32_MAX) {
        buf_printf(out, "no ALLOW rule speaks of target ");
        print_value(a->query->target, out);
        return;
    }
    buf_printf(out, "rule \"%s\": ", p->rules[near->rule].name);
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
        print_value(q->peer, out);
    } else {
        buf_printf(out, "a peer without identity");
    }
    buf_printf(out, " from ");
    print_source(q->source, out);
    buf_printf(out, " to ");
    print_value(q->target, out);
    buf_printf(out, " port %u, ", q->port);
    if (!q->http) {
        buf_printf(out, "a connection\n");
        return;
    }
    print_value(q->method, out);
    buf_printf(out, " ");
    print_value(q->path, out);
    buf_printf(out, " at host ");
    print_value(q->host.n > 0 ? q->host : STR_LIT("(none)"), out);
    buf_printf(out, "\n");
}

static void print_nearest(struct ask *a, struct buf *out)
{
    struct nearest near;
    find_nearest(a, &near);
    if (near.rule == UINT32_MAX) {
        buf_printf(out, "  ");
        print_near_miss(a, &near, out);
        buf_printf(out, "\n");
        return;
    }
    const struct rule *r = &a->policy->rules[near.rule];
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
