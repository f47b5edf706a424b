/* From the parsed file to rules whose lists are keys. */
#include "policy_priv.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

struct compiler {
    struct policy *p;
    const struct conf_policy *conf;
    uint32_t *keys; /* of the list at hand */
    uint32_t n, cap;
    struct err *err;
};

/* --- lists -------------------------------------------------------------------------------------*/

static void push(struct compiler *c, uint32_t key)
{
    MEM_GROW(c->keys, c->n, c->cap, 64);
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

static int compile_strings(struct compiler *c, enum dim dim, const char *name,
                           const struct conf_strings *list, struct run *ret)
{
    for (size_t i = 0; i < list->n; i++) {
        uint32_t key = KEY_NONE;
        if (policy_key_of_pattern(&c->p->table, dim, name, list->items[i], &key, c->err) != 0) {
            return -1;
        }
        push(c, key);
    }
    *ret = take_run(c);
    c->p->asks[dim] = c->p->asks[dim] || ret->n > 0;
    return 0;
}

static int compile_clause(struct compiler *c, enum dim dim, const struct conf_strings *pos,
                          const struct conf_strings *neg, struct clause *ret)
{
    return compile_strings(c, dim, NULL, pos, &ret->pos) == 0 &&
                   compile_strings(c, dim, NULL, neg, &ret->neg) == 0
               ? 0
               : -1;
}

static struct run compile_ports(struct compiler *c, const uint16_t *ports, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        push(c, policy_key_of_port(&c->p->table, ports[i]));
    }
    c->p->asks[DIM_PORT] = c->p->asks[DIM_PORT] || n > 0;
    return take_run(c);
}

static struct run compile_blocks(struct compiler *c, const struct conf_cidrs *list)
{
    for (size_t i = 0; i < list->n; i++) {
        push(c, policy_key_of_block(&c->p->table, &list->items[i]));
    }
    c->p->asks[DIM_SOURCE] = c->p->asks[DIM_SOURCE] || list->n > 0;
    return take_run(c);
}

/* --- lists with names --------------------------------------------------------------------------*/

enum { NAME_MAX_LEN = 255 };

static int compile_item(struct compiler *c, enum dim dim, const struct conf_policy_value *in,
                        struct named_item *ret)
{
    size_t len = strlen(in->name);
    if (len == 0 || len > NAME_MAX_LEN) {
        err_set(c->err, ERR_CONFIG, "the name '%.40s' is too short or too long", in->name);
        return err_expected(c->err, "1 to %d bytes", NAME_MAX_LEN);
    }
    if (!in->present && in->values.n == 0) {
        return err_set(c->err, ERR_CONFIG, "'%s' has neither values nor present", in->name);
    }
    ret->name = policy_key_of_name(&c->p->table, dim, in->name);
    ret->present = in->present;
    c->p->asks[dim] = true;
    return compile_strings(c, dim, in->name, &in->values, &ret->values);
}

static int compile_items(struct compiler *c, enum dim dim, const struct conf_policy_values *list,
                         struct span *ret)
{
    struct policy *p = c->p;
    *ret = (struct span){.at = p->n_items};
    for (size_t i = 0; i < list->n; i++) {
        struct named_item item = {.name = KEY_NONE};
        if (compile_item(c, dim, &list->items[i], &item) != 0) {
            return -1;
        }
        MEM_GROW(p->items, p->n_items, p->cap_items, 16);
        p->items[p->n_items++] = item;
        ret->n++;
    }
    return 0;
}

static int compile_named(struct compiler *c, enum dim dim, const struct conf_policy_values *pos,
                         const struct conf_policy_values *neg, struct named *ret)
{
    return compile_items(c, dim, pos, &ret->pos) == 0 && compile_items(c, dim, neg, &ret->neg) == 0
               ? 0
               : -1;
}

/* --- rules -------------------------------------------------------------------------------------*/

static int compile_from(struct compiler *c, const struct conf_policy_from *in, struct from *out)
{
    out->source.pos = compile_blocks(c, &in->ip_blocks);
    out->source.neg = compile_blocks(c, &in->not_ip_blocks);
    return compile_clause(c, DIM_PRINCIPAL, &in->principals, &in->not_principals,
                          &out->principal) == 0 &&
                   compile_clause(c, DIM_NAMESPACE, &in->namespaces, &in->not_namespaces,
                                  &out->ns) == 0 &&
                   compile_clause(c, DIM_ACCOUNT, &in->service_accounts, &in->not_service_accounts,
                                  &out->account) == 0 &&
                   compile_clause(c, DIM_DOMAIN, &in->trust_domains, &in->not_trust_domains,
                                  &out->domain) == 0 &&
                   compile_named(c, DIM_CLAIM, &in->claims, &in->not_claims, &out->claims) == 0
               ? 0
               : -1;
}

static int compile_to(struct compiler *c, const struct conf_policy_to *in, struct to *out)
{
    out->port.pos = compile_ports(c, in->ports, in->n_ports);
    out->port.neg = compile_ports(c, in->not_ports, in->n_not_ports);
    return compile_clause(c, DIM_PATH, &in->paths, &in->not_paths, &out->path) == 0 &&
                   compile_clause(c, DIM_HOST, &in->hosts, &in->not_hosts, &out->host) == 0 &&
                   compile_clause(c, DIM_METHOD, &in->methods, &in->not_methods, &out->method) ==
                       0 &&
                   compile_clause(c, DIM_GRPC, &in->grpc, &in->not_grpc, &out->grpc) == 0 &&
                   compile_named(c, DIM_QUERY, &in->query, &in->not_query, &out->query) == 0 &&
                   compile_named(c, DIM_HEADER, &in->headers, &in->not_headers, &out->headers) == 0
               ? 0
               : -1;
}

static int compile_rule(struct compiler *c, const struct conf_rule *in)
{
    struct policy *p = c->p;
    struct rule *r = &p->rules[p->n_rules++];
    *r = (struct rule){
        .name = mem_must_strdup(in->name),
        .reason = in->reason != NULL ? mem_must_strdup(in->reason) : NULL,
        .key = policy_key_of_rule(in),
        .expires_s = in->expires_s,
        .line = in->line,
        .action = (uint8_t)in->action,
        .mode = (uint8_t)in->mode,
        .from_at = p->n_from,
        .to_at = p->n_to,
    };
    if (compile_strings(c, DIM_TARGET, NULL, &in->target_principals, &r->target.pos) != 0) {
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

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void collect_ends(struct policy *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_rules; i++) {
        n += p->rules[i].expires_s != 0;
    }
    if (n == 0) {
        return;
    }
    p->ends = mem_must_calloc(n, sizeof(p->ends[0]));
    for (uint32_t i = 0; i < p->n_rules; i++) {
        if (p->rules[i].expires_s != 0) {
            p->ends[p->n_ends++] = p->rules[i].expires_s;
        }
    }
    qsort(p->ends, n, sizeof(p->ends[0]), compare_times);
    p->n_ends = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0 || p->ends[i] != p->ends[i - 1]) {
            p->ends[p->n_ends++] = p->ends[i];
        }
    }
}

/* --- whose error it is -------------------------------------------------------------------------*/

static bool has_pattern(const struct conf_strings *list, struct str pattern)
{
    for (size_t i = 0; i < list->n; i++) {
        struct str item = str_of(list->items[i]);
        if (str_has_prefix_nocase(item, pattern) || str_has_suffix(item, pattern)) {
            return true;
        }
    }
    return false;
}

static bool values_have_pattern(const struct conf_policy_values *list, struct str pattern)
{
    bool has = false;
    for (size_t i = 0; i < list->n; i++) {
        has = has || has_pattern(&list->items[i].values, pattern);
    }
    return has;
}

static bool from_has_pattern(const struct conf_policy_from *f, struct str pattern)
{
    return has_pattern(&f->principals, pattern) || has_pattern(&f->not_principals, pattern) ||
           has_pattern(&f->namespaces, pattern) || has_pattern(&f->not_namespaces, pattern) ||
           has_pattern(&f->service_accounts, pattern) ||
           has_pattern(&f->not_service_accounts, pattern) ||
           values_have_pattern(&f->claims, pattern) || values_have_pattern(&f->not_claims, pattern);
}

static bool to_has_pattern(const struct conf_policy_to *t, struct str pattern)
{
    return has_pattern(&t->hosts, pattern) || has_pattern(&t->not_hosts, pattern) ||
           has_pattern(&t->paths, pattern) || has_pattern(&t->not_paths, pattern) ||
           has_pattern(&t->grpc, pattern) || has_pattern(&t->not_grpc, pattern) ||
           values_have_pattern(&t->query, pattern) || values_have_pattern(&t->not_query, pattern) ||
           values_have_pattern(&t->headers, pattern) ||
           values_have_pattern(&t->not_headers, pattern);
}

/* The first rule that says this pattern, for people; NULL: it is none in particular. */
static const struct conf_rule *rule_with(const struct conf_policy *conf, struct str pattern)
{
    for (size_t i = 0; pattern.n > 0 && i < conf->n_rules; i++) {
        const struct conf_rule *r = &conf->rules[i];
        bool has = has_pattern(&r->target_principals, pattern);
        for (size_t k = 0; !has && k < r->n_from; k++) {
            has = from_has_pattern(&r->from[k], pattern);
        }
        for (size_t k = 0; !has && k < r->n_to; k++) {
            has = to_has_pattern(&r->to[k], pattern);
        }
        if (has) {
            return r;
        }
    }
    return NULL;
}

static int blame(const struct compiler *c, const struct conf_rule *rule)
{
    const char *path = c->conf->path != NULL ? c->conf->path : "policy";
    if (rule == NULL) {
        return err_where(c->err, "%s", path);
    }
    err_prefix(c->err, "rule '%s'", rule->name);
    if (rule->column == 0) { /* made by a program, not read */
        return err_where(c->err, "%s:%u", path, rule->line);
    }
    return err_where(c->err, "%s:%u:%u", path, rule->line, rule->column);
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
            return blame(c, rule);
        }
    }
    collect_ends(p);
    struct str pattern = STR_NONE;
    if (policy_keys_finish(&p->table, &pattern, c->err) != 0) {
        return blame(c, rule_with(c->conf, pattern));
    }
    return 0;
}

int policy_compile_rules(struct policy *p, const struct conf_policy *conf, struct err *err)
{
    struct compiler c = {.p = p, .conf = conf, .err = err};
    int r = compile_rules(&c);
    free(c.keys);
    return r;
}
