/*
 * What differs between two policies, as far as it can matter to a connection that was allowed by
 * the first: rules compared by what they say, whatever they are called and wherever they stand.
 */
#include <postern/policy.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "policy_priv.h"

/* --- a rule's key ----------------------------------------------------------------------------- */

static void mix(uint64_t *h, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++) {
        *h = (*h ^ bytes[i]) * 0x100000001b3U;
        *h ^= *h >> 29;
    }
}

static void mix_count(uint64_t *h, size_t n)
{
    uint64_t v = n;
    mix(h, &v, sizeof(v));
}

static void mix_strings(uint64_t *h, const struct conf_strings *list)
{
    mix_count(h, list->n);
    for (size_t i = 0; i < list->n; i++) {
        mix(h, list->items[i], strlen(list->items[i]) + 1);
    }
}

static void mix_values(uint64_t *h, const struct conf_policy_values *list)
{
    mix_count(h, list->n);
    for (size_t i = 0; i < list->n; i++) {
        mix(h, list->items[i].name, strlen(list->items[i].name) + 1);
        mix_count(h, list->items[i].present);
        mix_strings(h, &list->items[i].values);
    }
}

static void mix_blocks(uint64_t *h, const struct conf_cidrs *list)
{
    mix_count(h, list->n);
    for (size_t i = 0; i < list->n; i++) {
        const struct conf_cidr *c = &list->items[i];
        mix_count(h, (size_t)c->family << 8 | c->prefix_len);
        mix(h, c->addr, sizeof(c->addr));
    }
}

static void mix_ports(uint64_t *h, const uint16_t *ports, size_t n)
{
    mix_count(h, n);
    mix(h, ports, n * sizeof(ports[0]));
}

/* The operator wrote both rules: it has to tell them apart by accident only. */
uint64_t policy_key_of_rule(const struct conf_rule *r)
{
    uint64_t h = 0xcbf29ce484222325U;
    mix_count(&h, r->action);
    mix_count(&h, r->mode);
    mix_count(&h, (size_t)r->expires_s);
    mix_strings(&h, &r->target_principals);
    mix_count(&h, r->n_from);
    for (size_t i = 0; i < r->n_from; i++) {
        const struct conf_policy_from *f = &r->from[i];
        mix_strings(&h, &f->principals);
        mix_strings(&h, &f->not_principals);
        mix_strings(&h, &f->namespaces);
        mix_strings(&h, &f->not_namespaces);
        mix_strings(&h, &f->service_accounts);
        mix_strings(&h, &f->not_service_accounts);
        mix_strings(&h, &f->trust_domains);
        mix_strings(&h, &f->not_trust_domains);
        mix_blocks(&h, &f->ip_blocks);
        mix_blocks(&h, &f->not_ip_blocks);
        mix_values(&h, &f->claims);
        mix_values(&h, &f->not_claims);
    }
    mix_count(&h, r->n_to);
    for (size_t i = 0; i < r->n_to; i++) {
        const struct conf_policy_to *t = &r->to[i];
        mix_ports(&h, t->ports, t->n_ports);
        mix_ports(&h, t->not_ports, t->n_not_ports);
        mix_strings(&h, &t->methods);
        mix_strings(&h, &t->not_methods);
        mix_strings(&h, &t->hosts);
        mix_strings(&h, &t->not_hosts);
        mix_strings(&h, &t->paths);
        mix_strings(&h, &t->not_paths);
        mix_strings(&h, &t->grpc);
        mix_strings(&h, &t->not_grpc);
        mix_values(&h, &t->query);
        mix_values(&h, &t->not_query);
        mix_values(&h, &t->headers);
        mix_values(&h, &t->not_headers);
    }
    return h != 0 ? h : 1;
}

/* --- who may be concerned --------------------------------------------------------------------- */

static bool has_form(enum policy_who_form form, struct str value, struct str text)
{
    switch (form) {
    case POLICY_WHO_EXACTLY:
        return str_eq(value, text);
    case POLICY_WHO_PREFIX:
        return str_has_prefix(value, text);
    case POLICY_WHO_SUFFIX:
        return str_has_suffix(value, text);
    }
    return true;
}

bool policy_who_has(const struct policy_who *who, struct str id)
{
    static const enum dim dims[] = {
        [POLICY_WHO_ID] = DIM_PRINCIPAL,
        [POLICY_WHO_DOMAIN] = DIM_DOMAIN,
        [POLICY_WHO_NAMESPACE] = DIM_NAMESPACE,
        [POLICY_WHO_ACCOUNT] = DIM_ACCOUNT,
    };
    return has_form(who->form, policy_identity_part(id, dims[who->part]), str_of(who->text));
}

static void add_who(struct policy_change *ret, struct policy_who who)
{
    ret->denied = mem_must_realloc(ret->denied, (ret->n_denied + 1) * sizeof(ret->denied[0]));
    ret->denied[ret->n_denied++] = who;
}

/* A glob: whoever begins like it. */
static char *beginning_of(const struct shape *s, const struct key *k)
{
    unsigned fixed = 0;
    while (fixed < s->n_before && (s->wild >> fixed & 1U) == 0) {
        fixed++;
    }
    const char *p = k->text;
    for (unsigned i = 0; i < fixed; i++) {
        p += strcspn(p, "/") + 1;
    }
    /* Without the last slash: there need be no further segment. */
    size_t n = (size_t)(p - k->text);
    return mem_must_printf("spiffe://%.*s", (int)(n > 0 ? n - 1 : 0), k->text);
}

/* False: the clause names nobody in particular. */
static bool take_who(const struct policy *p, const struct run *run, enum policy_who_part part,
                     struct policy_change *ret)
{
    for (uint32_t i = 0; i < run->n; i++) {
        const struct key *k = policy_key(&p->table, policy_run_keys(p, run)[i]);
        struct policy_who who = {.part = part};
        switch ((enum form)k->form) {
        case FORM_EXACT:
        case FORM_PREFIX:
        case FORM_SUFFIX:
            who.form = k->form == FORM_EXACT    ? POLICY_WHO_EXACTLY
                       : k->form == FORM_SUFFIX ? POLICY_WHO_SUFFIX
                                                : POLICY_WHO_PREFIX;
            who.text = mem_must_strndup(k->text, k->len);
            break;
        case FORM_SHAPE:
            who.form = POLICY_WHO_PREFIX;
            who.text = beginning_of(&p->table.shapes[k->prefix_len], k);
            break;
        case FORM_ANY:
        case FORM_NAME:
            return false;
        }
        add_who(ret, who);
    }
    return true;
}

/* Whom a DENY rule that came can be about. */
static void add_denied(const struct policy *p, const struct rule *r, struct policy_change *ret)
{
    bool all = r->n_from == 0;
    for (uint32_t i = 0; i < r->n_from && !all; i++) {
        const struct from *f = &p->from[r->from_at + i];
        if (f->principal.pos.n > 0) {
            all = !take_who(p, &f->principal.pos, POLICY_WHO_ID, ret);
        } else if (f->account.pos.n > 0) {
            all = !take_who(p, &f->account.pos, POLICY_WHO_ACCOUNT, ret);
        } else if (f->ns.pos.n > 0) {
            all = !take_who(p, &f->ns.pos, POLICY_WHO_NAMESPACE, ret);
        } else {
            all = f->domain.pos.n == 0 || !take_who(p, &f->domain.pos, POLICY_WHO_DOMAIN, ret);
        }
    }
    ret->everybody = ret->everybody || all;
}

/* --- comparing -------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t *keys_of(const struct policy *p)
{
    uint64_t *keys = mem_must_calloc((size_t)p->n_rules + 1, sizeof(keys[0]));
    for (uint32_t i = 0; i < p->n_rules; i++) {
        keys[i] = p->rules[i].key;
    }
    qsort(keys, p->n_rules, sizeof(keys[0]), compare_keys);
    return keys;
}

static bool has(const uint64_t *keys, size_t n, uint64_t key)
{
    return bsearch(&key, keys, n, sizeof(keys[0]), compare_keys) != NULL;
}

static bool is_by_request(const struct policy *p, const struct rule *r)
{
    bool found = false;
    for (uint32_t i = 0; i < r->n_from && !found; i++) {
        const struct named *claims = &p->from[r->from_at + i].claims;
        found = claims->pos.n + claims->neg.n > 0;
    }
    for (uint32_t i = 0; i < r->n_to && !found; i++) {
        found = policy_to_is_request(&p->to[r->to_at + i]);
    }
    return found;
}

static bool decides(const struct rule *r, enum conf_action action)
{
    return r->action == action && r->mode == CONF_ENFORCE;
}

void policy_compare(const struct policy *before, const struct policy *now,
                    struct policy_change *ret)
{
    *ret = (struct policy_change){.everybody = (before == NULL) != (now == NULL)};
    if (before == now || before == NULL || now == NULL) {
        return;
    }
    mem_autofree uint64_t *old = keys_of(before);
    mem_autofree uint64_t *new = keys_of(now);
    ret->gone = mem_must_calloc((size_t)before->n_rules + 1, sizeof(ret->gone[0]));
    for (uint32_t i = 0; i < before->n_rules; i++) {
        const struct rule *r = &before->rules[i];
        if (decides(r, CONF_ALLOW) && !has(new, now->n_rules, r->key)) {
            ret->gone[ret->n_gone++] = r->key;
        }
    }
    qsort(ret->gone, ret->n_gone, sizeof(ret->gone[0]), compare_keys);
    for (uint32_t i = 0; i < now->n_rules; i++) {
        const struct rule *r = &now->rules[i];
        if (has(old, before->n_rules, r->key) || r->mode == CONF_DRY_RUN ||
            r->action == CONF_AUDIT) {
            continue;
        }
        ret->requests = ret->requests || is_by_request(now, r);
        if (r->action == CONF_DENY && !ret->everybody) {
            add_denied(now, r, ret);
        }
    }
}

void policy_compare_time(const struct policy *p, int64_t before_s, int64_t now_s,
                         struct policy_change *ret)
{
    if (p == NULL || p->n_ends == 0) {
        return;
    }
    for (uint32_t i = 0; i < p->n_rules; i++) {
        const struct rule *r = &p->rules[i];
        if (decides(r, CONF_ALLOW) && r->expires_s != 0 && r->expires_s > before_s &&
            r->expires_s <= now_s) {
            ret->gone = mem_must_realloc(ret->gone, (ret->n_gone + 1) * sizeof(ret->gone[0]));
            ret->gone[ret->n_gone++] = r->key;
        }
    }
    if (ret->n_gone > 1) {
        qsort(ret->gone, ret->n_gone, sizeof(ret->gone[0]), compare_keys);
    }
}

void policy_change_deinit(struct policy_change *c)
{
    for (size_t i = 0; i < c->n_denied; i++) {
        free(c->denied[i].text);
    }
    free(c->denied);
    free(c->gone);
    *c = (struct policy_change){.everybody = false};
}
