#include "policy_rows.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void *policy_rows_must(void *p)
{
    if (p == NULL) {
        abort();
    }
    return p;
}

static struct conf_strings strings_of(const char *const *items)
{
    struct conf_strings s = {.items = policy_rows_must(calloc(LIST_MAX, sizeof(char *)))};
    while (s.n < LIST_MAX && items[s.n] != NULL) {
        s.items[s.n] = policy_rows_must(strdup(items[s.n]));
        s.n++;
    }
    return s;
}

static struct conf_cidr cidr_of(const char *text)
{
    char address[64];
    struct conf_cidr c = {.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET};
    snprintf(address, sizeof(address), "%s", text);
    char *slash = strchr(address, '/');
    unsigned long len = c.family == AF_INET6 ? 128 : 32;
    if (slash != NULL) {
        *slash = '\0';
        len = strtoul(slash + 1, NULL, 10);
    }
    assert_int_equal(inet_pton(c.family, address, c.addr), 1);
    c.prefix_len = (uint8_t)len;
    return c;
}

static struct conf_cidrs cidrs_of(const char *const *items)
{
    struct conf_cidrs s = {.items = policy_rows_must(calloc(LIST_MAX, sizeof(struct conf_cidr)))};
    while (s.n < LIST_MAX && items[s.n] != NULL) {
        s.items[s.n] = cidr_of(items[s.n]);
        s.n++;
    }
    return s;
}

static uint16_t *ports_of(const uint16_t *items, size_t *ret_n)
{
    uint16_t *ports = policy_rows_must(calloc(LIST_MAX, sizeof(uint16_t)));
    while (*ret_n < LIST_MAX && items[*ret_n] != 0) {
        ports[*ret_n] = items[*ret_n];
        (*ret_n)++;
    }
    return ports;
}

static struct conf_policy_values values_of(const struct row_value *items)
{
    struct conf_policy_values s = {
        .items = policy_rows_must(calloc(NAMED_MAX, sizeof(struct conf_policy_value)))};
    while (s.n < NAMED_MAX && items[s.n].name != NULL) {
        const struct row_value *in = &items[s.n];
        struct conf_policy_value *v = &s.items[s.n++];
        v->name = policy_rows_must(strdup(in->name));
        v->present = in->present;
        v->values.items = policy_rows_must(calloc(NAMED_VALUES, sizeof(char *)));
        while (!in->present && v->values.n < NAMED_VALUES && in->values[v->values.n] != NULL) {
            v->values.items[v->values.n] = policy_rows_must(strdup(in->values[v->values.n]));
            v->values.n++;
        }
    }
    return s;
}

static struct conf_policy_from from_of(const struct row *r)
{
    return (struct conf_policy_from){
        .principals = strings_of(r->principals),
        .not_principals = strings_of(r->not_principals),
        .trust_domains = strings_of(r->domains),
        .not_trust_domains = strings_of(r->not_domains),
        .ip_blocks = cidrs_of(r->blocks),
        .not_ip_blocks = cidrs_of(r->not_blocks),
        .namespaces = strings_of(r->namespaces),
        .not_namespaces = strings_of(r->not_namespaces),
        .service_accounts = strings_of(r->accounts),
        .not_service_accounts = strings_of(r->not_accounts),
        .claims = values_of(r->claims),
        .not_claims = values_of(r->not_claims),
    };
}

static struct conf_policy_to to_of(const struct row *r)
{
    struct conf_policy_to t = {
        .methods = strings_of(r->methods),
        .not_methods = strings_of(r->not_methods),
        .hosts = strings_of(r->hosts),
        .not_hosts = strings_of(r->not_hosts),
        .paths = strings_of(r->paths),
        .not_paths = strings_of(r->not_paths),
        .grpc = strings_of(r->grpc),
        .not_grpc = strings_of(r->not_grpc),
        .query = values_of(r->query),
        .not_query = values_of(r->not_query),
        .headers = values_of(r->headers),
        .not_headers = values_of(r->not_headers),
    };
    t.ports = ports_of(r->ports, &t.n_ports);
    t.not_ports = ports_of(r->not_ports, &t.n_not_ports);
    return t;
}

struct conf_policy *policy_rows_conf(const struct row *rows, size_t n)
{
    struct conf_policy *c = policy_rows_must(calloc(1, sizeof(*c)));
    c->path = policy_rows_must(strdup("test.yaml"));
    c->rules = policy_rows_must(calloc(n > 0 ? n : 1, sizeof(c->rules[0])));
    for (size_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        struct conf_rule *rule = c->n_rules > 0 ? &c->rules[c->n_rules - 1] : NULL;
        if (rule == NULL || strcmp(rule->name, r->name) != 0) {
            rule = &c->rules[c->n_rules++];
            rule->name = policy_rows_must(strdup(r->name));
            rule->line = (unsigned)i + 1;
            rule->action = r->action;
            rule->mode = r->mode;
            rule->expires_s = r->expires_s;
            rule->target_principals = strings_of(r->target);
        }
        if (r->from) {
            rule->from =
                policy_rows_must(realloc(rule->from, (rule->n_from + 1) * sizeof(rule->from[0])));
            rule->from[rule->n_from++] = from_of(r);
        }
        if (r->to) {
            rule->to = policy_rows_must(realloc(rule->to, (rule->n_to + 1) * sizeof(rule->to[0])));
            rule->to[rule->n_to++] = to_of(r);
        }
    }
    return c;
}

static void strings_free(struct conf_strings *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->items[i]);
    }
    free(s->items);
}

static void values_free(struct conf_policy_values *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->items[i].name);
        strings_free(&s->items[i].values);
    }
    free(s->items);
}

static void from_free(struct conf_policy_from *f)
{
    strings_free(&f->principals);
    strings_free(&f->not_principals);
    strings_free(&f->trust_domains);
    strings_free(&f->not_trust_domains);
    strings_free(&f->namespaces);
    strings_free(&f->not_namespaces);
    strings_free(&f->service_accounts);
    strings_free(&f->not_service_accounts);
    values_free(&f->claims);
    values_free(&f->not_claims);
    free(f->ip_blocks.items);
    free(f->not_ip_blocks.items);
}

static void to_free(struct conf_policy_to *t)
{
    free(t->ports);
    free(t->not_ports);
    strings_free(&t->methods);
    strings_free(&t->not_methods);
    strings_free(&t->hosts);
    strings_free(&t->not_hosts);
    strings_free(&t->paths);
    strings_free(&t->not_paths);
    strings_free(&t->grpc);
    strings_free(&t->not_grpc);
    values_free(&t->query);
    values_free(&t->not_query);
    values_free(&t->headers);
    values_free(&t->not_headers);
}

void policy_rows_free(struct conf_policy *c)
{
    for (size_t i = 0; i < c->n_rules; i++) {
        struct conf_rule *r = &c->rules[i];
        for (size_t k = 0; k < r->n_from; k++) {
            from_free(&r->from[k]);
        }
        for (size_t k = 0; k < r->n_to; k++) {
            to_free(&r->to[k]);
        }
        strings_free(&r->target_principals);
        free(r->name);
        free(r->from);
        free(r->to);
    }
    free(c->rules);
    free(c->path);
    free(c);
}

static void address_of(const char *text, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (strchr(text, ':') != NULL) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
        in6->sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &in->sin_addr), 1);
    }
}

struct policy_query policy_rows_query(const struct question *q, struct sockaddr_storage *source)
{
    struct policy_query r = {
        .target = str_of(q->target != NULL ? q->target : ORDERS),
        .peer = str_of(q->peer),
        .port = q->port != 0 ? q->port : 8080,
        .http = q->method != NULL,
        .method = str_of(q->method),
        .host = str_of(q->host),
        .path = str_of(q->path),
        .query = str_of(q->query),
        .grpc = q->grpc,
        .headers = q->headers,
        .claims = q->claims,
        .now_s = q->now_s,
    };
    if (q->source != NULL) {
        address_of(q->source, source);
        r.source = (const struct sockaddr *)source;
    }
    return r;
}

static void same_name(const char *a, const char *b)
{
    if (a == NULL || b == NULL) {
        assert_true(a == b);
    } else {
        assert_string_equal(a, b);
    }
}

void policy_rows_same_verdict(const struct policy_verdict *a, const struct policy_verdict *b)
{
    assert_int_equal(a->allow, b->allow);
    assert_int_equal(a->reason, b->reason);
    assert_int_equal(a->rule_line, b->rule_line);
    same_name(a->rule, b->rule);
    same_name(a->audit, b->audit);
    assert_int_equal(a->shadow, b->shadow);
    same_name(a->shadow_rule, b->shadow_rule);
}
