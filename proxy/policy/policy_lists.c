/* The lists of a parsed rule by clause, which of them fail, and facts as items. */
#include "policy_lists.h"

#include <arpa/inet.h>
#include <postern/mem.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *not_name;
    enum dim dim;
} clauses[POLICY_CLAUSE_NONE] = {
    [POLICY_CLAUSE_TARGET] = {"target principals", "", DIM_TARGET},
    [POLICY_CLAUSE_PRINCIPALS] = {"principals", "not_principals", DIM_PRINCIPAL},
    [POLICY_CLAUSE_NAMESPACES] = {"namespaces", "not_namespaces", DIM_NAMESPACE},
    [POLICY_CLAUSE_SERVICE_ACCOUNTS] = {"service_accounts", "not_service_accounts", DIM_ACCOUNT},
    [POLICY_CLAUSE_TRUST_DOMAINS] = {"trust_domains", "not_trust_domains", DIM_DOMAIN},
    [POLICY_CLAUSE_IP_BLOCKS] = {"ip_blocks", "not_ip_blocks", DIM_SOURCE},
    [POLICY_CLAUSE_CLAIMS] = {"claims", "not_claims", DIM_CLAIM},
    [POLICY_CLAUSE_PORTS] = {"ports", "not_ports", DIM_PORT},
    [POLICY_CLAUSE_METHODS] = {"methods", "not_methods", DIM_METHOD},
    [POLICY_CLAUSE_HOSTS] = {"hosts", "not_hosts", DIM_HOST},
    [POLICY_CLAUSE_PATHS] = {"paths", "not_paths", DIM_PATH},
    [POLICY_CLAUSE_QUERY] = {"query", "not_query", DIM_QUERY},
    [POLICY_CLAUSE_HEADERS] = {"headers", "not_headers", DIM_HEADER},
    [POLICY_CLAUSE_GRPC] = {"grpc", "not_grpc", DIM_GRPC},
};

const char *policy_clause_name(enum policy_clause clause, bool negative)
{
    return negative ? clauses[clause].not_name : clauses[clause].name;
}

enum dim policy_clause_dim(enum policy_clause c)
{
    return clauses[c].dim;
}

static struct policy_list list_of_from(struct conf_policy_from *f, enum policy_clause c, bool neg)
{
    struct policy_list l = {.strings = NULL};
    switch ((int)c) {
    case POLICY_CLAUSE_PRINCIPALS:
        l.strings = neg ? &f->not_principals : &f->principals;
        break;
    case POLICY_CLAUSE_NAMESPACES:
        l.strings = neg ? &f->not_namespaces : &f->namespaces;
        break;
    case POLICY_CLAUSE_SERVICE_ACCOUNTS:
        l.strings = neg ? &f->not_service_accounts : &f->service_accounts;
        break;
    case POLICY_CLAUSE_TRUST_DOMAINS:
        l.strings = neg ? &f->not_trust_domains : &f->trust_domains;
        break;
    case POLICY_CLAUSE_IP_BLOCKS:
        l.blocks = neg ? &f->not_ip_blocks : &f->ip_blocks;
        break;
    default:
        l.values = neg ? &f->not_claims : &f->claims;
        break;
    }
    return l;
}

static struct policy_list list_of_to(struct conf_policy_to *t, enum policy_clause c, bool neg)
{
    struct policy_list l = {.strings = NULL};
    switch ((int)c) {
    case POLICY_CLAUSE_PORTS:
        l.ports = neg ? &t->not_ports : &t->ports;
        l.n_ports = neg ? &t->n_not_ports : &t->n_ports;
        break;
    case POLICY_CLAUSE_METHODS:
        l.strings = neg ? &t->not_methods : &t->methods;
        break;
    case POLICY_CLAUSE_HOSTS:
        l.strings = neg ? &t->not_hosts : &t->hosts;
        break;
    case POLICY_CLAUSE_PATHS:
        l.strings = neg ? &t->not_paths : &t->paths;
        break;
    case POLICY_CLAUSE_QUERY:
        l.values = neg ? &t->not_query : &t->query;
        break;
    case POLICY_CLAUSE_HEADERS:
        l.values = neg ? &t->not_headers : &t->headers;
        break;
    default:
        l.strings = neg ? &t->not_grpc : &t->grpc;
        break;
    }
    return l;
}

struct policy_list policy_list_of(struct conf_rule *r, enum policy_clause c, bool negative,
                                  long entry)
{
    if (c == POLICY_CLAUSE_TARGET) {
        return (struct policy_list){.strings = negative ? NULL : &r->target_principals};
    }
    bool from = policy_clause_is_from(c);
    if (entry < 0 || (size_t)entry >= (from ? r->n_from : r->n_to)) {
        return (struct policy_list){.strings = NULL};
    }
    return from ? list_of_from(&r->from[entry], c, negative)
                : list_of_to(&r->to[entry], c, negative);
}

/* --- what fails --------------------------------------------------------------------------------*/

struct reading {
    struct ask *ask;
    enum conf_action action;
    policy_failed_fn *fn; /* NULL: counted only */
    void *arg;
    unsigned n;
};

static void fail(struct reading *r, enum policy_clause c, bool negative, long entry,
                 const struct conf_policy_value *value)
{
    r->n++;
    if (r->fn != NULL) {
        r->fn(r->arg, c, negative, entry, value);
    }
}

static void read_plain(struct reading *r, enum policy_clause c, const struct clause *clause,
                       long entry)
{
    enum dim dim = policy_clause_dim(c);
    if (!policy_list_holds(r->ask, dim, &clause->pos, r->action)) {
        fail(r, c, false, entry, NULL);
    }
    if (!policy_not_list_holds(r->ask, dim, &clause->neg, r->action)) {
        fail(r, c, true, entry, NULL);
    }
}

static void read_named(struct reading *r, enum policy_clause c, const struct span *list,
                       const struct conf_policy_values *values, bool negative, long entry)
{
    for (uint32_t i = 0; i < list->n; i++) {
        const struct named_item *item = &r->ask->policy->items[list->at + i];
        if (!policy_item_holds(r->ask, policy_clause_dim(c), item, negative, r->action)) {
            fail(r, c, negative, entry, &values->items[i]);
        }
    }
}

static void read_from(struct reading *r, const struct from *f, const struct conf_policy_from *conf,
                      long entry)
{
    for (enum policy_clause c = POLICY_CLAUSE_PRINCIPALS; c < POLICY_CLAUSE_CLAIMS; c++) {
        read_plain(r, c, policy_from_clause(f, policy_clause_dim(c)), entry);
    }
    read_named(r, POLICY_CLAUSE_CLAIMS, &f->claims.pos, &conf->claims, false, entry);
    read_named(r, POLICY_CLAUSE_CLAIMS, &f->claims.neg, &conf->not_claims, true, entry);
}

static void read_to(struct reading *r, const struct to *t, const struct conf_policy_to *conf,
                    long entry)
{
    for (enum policy_clause c = POLICY_CLAUSE_PORTS; c <= POLICY_CLAUSE_PATHS; c++) {
        read_plain(r, c, policy_to_clause(t, policy_clause_dim(c)), entry);
    }
    read_named(r, POLICY_CLAUSE_QUERY, &t->query.pos, &conf->query, false, entry);
    read_named(r, POLICY_CLAUSE_QUERY, &t->query.neg, &conf->not_query, true, entry);
    read_named(r, POLICY_CLAUSE_HEADERS, &t->headers.pos, &conf->headers, false, entry);
    read_named(r, POLICY_CLAUSE_HEADERS, &t->headers.neg, &conf->not_headers, true, entry);
    read_plain(r, POLICY_CLAUSE_GRPC, &t->grpc, entry);
}

/* The entry in which the fewest fail. */
static size_t nearest_from(struct ask *a, const struct rule *r, const struct conf_rule *conf)
{
    size_t best = 0;
    unsigned least = UINT32_MAX;
    for (uint32_t i = 0; i < r->n_from && least > 0; i++) {
        struct reading reading = {.ask = a, .action = (enum conf_action)r->action};
        read_from(&reading, &a->policy->from[r->from_at + i], &conf->from[i], (long)i);
        if (reading.n < least) {
            least = reading.n;
            best = i;
        }
    }
    return best;
}

static size_t nearest_to(struct ask *a, const struct rule *r, const struct conf_rule *conf)
{
    size_t best = 0;
    unsigned least = UINT32_MAX;
    for (uint32_t i = 0; i < r->n_to && least > 0; i++) {
        struct reading reading = {.ask = a, .action = (enum conf_action)r->action};
        read_to(&reading, &a->policy->to[r->to_at + i], &conf->to[i], (long)i);
        if (reading.n < least) {
            least = reading.n;
            best = i;
        }
    }
    return best;
}

unsigned policy_each_failure(struct ask *a, const struct conf_policy *conf, size_t rule,
                             policy_failed_fn *fn, void *arg)
{
    const struct rule *r = &a->policy->rules[rule];
    const struct conf_rule *c = &conf->rules[rule];
    struct reading reading = {
        .ask = a, .action = (enum conf_action)r->action, .fn = fn, .arg = arg};
    read_plain(&reading, POLICY_CLAUSE_TARGET, &r->target, POLICY_ENTRY_NONE);
    if (r->n_from > 0) {
        size_t i = nearest_from(a, r, c);
        read_from(&reading, &a->policy->from[r->from_at + i], &c->from[i], (long)i);
    }
    if (r->n_to > 0) {
        size_t i = nearest_to(a, r, c);
        read_to(&reading, &a->policy->to[r->to_at + i], &c->to[i], (long)i);
    }
    return reading.n;
}

/* --- facts as items ----------------------------------------------------------------------------*/

/* %XX for whatever means something in a path of a file. */
static char *path_item(struct str path)
{
    static const char hex[] = "0123456789ABCDEF";
    char *text = mem_must_calloc(path.n * 3 + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++) {
        uint8_t c = (uint8_t)path.p[i];
        if (c <= ' ' || c >= 0x7f || memchr("%*{}?#\"\\", c, 8) != NULL) {
            text[n++] = '%';
            text[n++] = hex[c >> 4];
            text[n++] = hex[c & 15U];
        } else {
            text[n++] = (char)c;
        }
    }
    return text;
}

static char *source_item(const struct sockaddr *sa)
{
    char text[INET6_ADDRSTRLEN] = "";
    struct address a;
    if (!policy_address_of(sa, &a)) {
        return NULL;
    }
    inet_ntop(a.bytes[0] == 4 ? AF_INET : AF_INET6, a.bytes + 1, text, sizeof(text));
    return mem_must_strdup(text);
}

static char *text_item(struct str text)
{
    if (text.n == 0 || memchr(text.p, '*', text.n) != NULL ||
        memchr(text.p, '\0', text.n) != NULL) {
        return NULL; /* as an item it would mean something else */
    }
    return mem_must_strndup(text.p, text.n);
}

char *policy_fact_item(const struct policy_query *q, enum policy_clause c)
{
    switch (c) {
    case POLICY_CLAUSE_TARGET:
        return text_item(q->target);
    case POLICY_CLAUSE_PRINCIPALS:
    case POLICY_CLAUSE_NAMESPACES:
    case POLICY_CLAUSE_SERVICE_ACCOUNTS:
    case POLICY_CLAUSE_TRUST_DOMAINS:
        return text_item(policy_identity_part(q->peer, policy_clause_dim(c)));
    case POLICY_CLAUSE_IP_BLOCKS:
        return source_item(q->source);
    case POLICY_CLAUSE_PORTS:
        return mem_must_printf("%u", q->port);
    case POLICY_CLAUSE_METHODS:
        return q->http ? text_item(q->method) : NULL;
    case POLICY_CLAUSE_HOSTS:
        return q->http && !str_eq(q->host, STR_LIT(".")) ? text_item(q->host) : NULL;
    case POLICY_CLAUSE_PATHS:
        return q->http && q->path.n > 0 ? path_item(q->path) : NULL;
    case POLICY_CLAUSE_GRPC:
        return q->http && q->grpc ? text_item(policy_grpc_method(q->path)) : NULL;
    case POLICY_CLAUSE_CLAIMS:
    case POLICY_CLAUSE_QUERY:
    case POLICY_CLAUSE_HEADERS:
    case POLICY_CLAUSE_NONE:
        break;
    }
    return NULL;
}
