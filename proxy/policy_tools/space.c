/* space: the atoms of policies, and for which classes of each fact they hold. */
#include "space_priv.h"

#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

#include "tally.h"

enum {
    ATOMS_MAX = 100000,
    SETS_MAX = 400000,
    CLASSES_MAX = 100000,              /* of one fact */
    QUESTIONS_MAX = 300 * 1000 * 1000, /* to the engine */
};

struct making {
    struct space *space;
    struct class_room *room;
    struct tally asked; /* a clause as text; of: the set's number and 1 */
    struct tally known; /* the bits of a set */
    uint64_t questions;
    struct err *err;
};

/* --- one clause --------------------------------------------------------------------------------
 */
/* A rule of one clause's keys about one fact, and the same as a text. */
struct probe {
    struct conf_rule rule;
    struct conf_policy_from from;
    struct conf_policy_to to;
    struct conf_policy_values values[2]; /* the elements about one name */
    struct buf text;
    bool any;
};

static void say_strings(struct probe *p, const char *key, const struct conf_strings *list)
{
    if (list->n > 0) {
        p->any = true;
        buf_printf(&p->text, "\n%s", key);
        for (size_t i = 0; i < list->n; i++) {
            buf_printf(&p->text, "\n%s", list->items[i]);
        }
    }
}

static void say_cidrs(struct probe *p, const char *key, const struct conf_cidrs *list)
{
    if (list->n > 0) {
        p->any = true;
        buf_printf(&p->text, "\n%s", key);
        for (size_t i = 0; i < list->n; i++) {
            const struct conf_cidr *c = &list->items[i];
            buf_printf(&p->text, "\n%d/%u ", c->family, c->prefix_len);
            buf_append(&p->text, c->addr, sizeof(c->addr));
        }
    }
}

static void say_ports(struct probe *p, const char *key, const uint16_t *ports, size_t n)
{
    if (n > 0) {
        p->any = true;
        buf_printf(&p->text, "\n%s", key);
        for (size_t i = 0; i < n; i++) {
            buf_printf(&p->text, "\n%u", ports[i]);
        }
    }
}

/* The elements of this name only; their array is the probe's. */
static void take_values(struct probe *p, const char *key, const struct conf_policy_values *list,
                        const char *name, struct conf_policy_values *room,
                        struct conf_policy_values *ret)
{
    room->items = mem_must_calloc(list->n + 1, sizeof(*room->items));
    room->n = 0;
    for (size_t i = 0; i < list->n; i++) {
        const struct conf_policy_value *v = &list->items[i];
        if (name != NULL && strcmp(v->name, name) == 0) {
            room->items[room->n++] = *v;
            buf_printf(&p->text, "\n%s %s %d", key, name, v->present);
            say_strings(p, "=", &v->values);
            p->any = true;
        }
    }
    *ret = *room;
}

/* What `from` and `to` say of one fact. */
static void probe_from(struct probe *p, const struct fact *f, const struct conf_policy_from *from)
{
    struct conf_policy_from *to = &p->from;
    if (f->kind == FACT_PEER) {
        to->principals = from->principals;
        to->not_principals = from->not_principals;
        to->namespaces = from->namespaces;
        to->not_namespaces = from->not_namespaces;
        to->service_accounts = from->service_accounts;
        to->not_service_accounts = from->not_service_accounts;
        to->trust_domains = from->trust_domains;
        to->not_trust_domains = from->not_trust_domains;
        say_strings(p, "p", &to->principals);
        say_strings(p, "!p", &to->not_principals);
        say_strings(p, "n", &to->namespaces);
        say_strings(p, "!n", &to->not_namespaces);
        say_strings(p, "s", &to->service_accounts);
        say_strings(p, "!s", &to->not_service_accounts);
        say_strings(p, "t", &to->trust_domains);
        say_strings(p, "!t", &to->not_trust_domains);
    } else if (f->kind == FACT_SOURCE) {
        to->ip_blocks = from->ip_blocks;
        to->not_ip_blocks = from->not_ip_blocks;
        say_cidrs(p, "i", &to->ip_blocks);
        say_cidrs(p, "!i", &to->not_ip_blocks);
    } else if (f->kind == FACT_CLAIM) {
        take_values(p, "c", &from->claims, f->name, &p->values[0], &to->claims);
        take_values(p, "!c", &from->not_claims, f->name, &p->values[1], &to->not_claims);
    }
}

static void probe_to(struct probe *p, const struct fact *f, const struct conf_policy_to *from)
{
    struct conf_policy_to *to = &p->to;
    switch (f->kind) {
    case FACT_PORT:
        to->ports = from->ports;
        to->n_ports = from->n_ports;
        to->not_ports = from->not_ports;
        to->n_not_ports = from->n_not_ports;
        say_ports(p, "o", to->ports, to->n_ports);
        say_ports(p, "!o", to->not_ports, to->n_not_ports);
        break;
    case FACT_METHOD:
        to->methods = from->methods;
        to->not_methods = from->not_methods;
        say_strings(p, "m", &to->methods);
        say_strings(p, "!m", &to->not_methods);
        break;
    case FACT_HOST:
        to->hosts = from->hosts;
        to->not_hosts = from->not_hosts;
        say_strings(p, "h", &to->hosts);
        say_strings(p, "!h", &to->not_hosts);
        break;
    case FACT_PATH:
        to->paths = from->paths;
        to->not_paths = from->not_paths;
        say_strings(p, "u", &to->paths);
        say_strings(p, "!u", &to->not_paths);
        to->grpc = from->grpc;
        to->not_grpc = from->not_grpc;
        say_strings(p, "g", &to->grpc);
        say_strings(p, "!g", &to->not_grpc);
        break;
    case FACT_QUERY:
        take_values(p, "q", &from->query, f->name, &p->values[0], &to->query);
        take_values(p, "!q", &from->not_query, f->name, &p->values[1], &to->not_query);
        break;
    case FACT_HEADER:
        take_values(p, "e", &from->headers, f->name, &p->values[0], &to->headers);
        take_values(p, "!e", &from->not_headers, f->name, &p->values[1], &to->not_headers);
        break;
    case FACT_TARGET:
    case FACT_PEER:
    case FACT_SOURCE:
    case FACT_CLAIM:
        break;
    }
}

static void probe_deinit(struct probe *p)
{
    free(p->values[0].items);
    free(p->values[1].items);
    buf_reset(&p->text);
}

/* --- sets --------------------------------------------------------------------------------------
 */
static bool is_full(const uint64_t *bits, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((bits[i / 64] >> (i % 64) & 1) == 0) {
            return false;
        }
    }
    return true;
}

/* The number of a set with these bits, which it takes. */
static uint32_t keep_set(struct making *m, size_t fact, uint64_t *bits, size_t n_classes)
{
    struct space *s = m->space;
    size_t words = (n_classes + 63) / 64;
    if (is_full(bits, n_classes)) {
        free(bits);
        return SET_ALL;
    }
    size_t size = words * sizeof(*bits);
    mem_autofree char *key = mem_must_calloc(1, size + sizeof(fact));
    memcpy(key, &fact, sizeof(fact));
    memcpy(key + sizeof(fact), bits, size);
    size_t before = m->known.n;
    size_t at = tally_take(&m->known, (struct str){key, size + sizeof(fact)});
    if (m->known.n == before) {
        free(bits);
        return (uint32_t)at + 1;
    }
    MEM_GROW(s->sets, s->n_sets, s->cap_sets, 64);
    struct space_set *set = &s->sets[s->n_sets++];
    *set = (struct space_set){.bits = bits, .none = true};
    for (size_t i = 0; i < words; i++) {
        set->none = set->none && bits[i] == 0;
    }
    return (uint32_t)at + 1;
}

/* Asks the engine about each class of the fact. -1: it failed, err is set. */
static int ask_classes(struct making *m, size_t fact, const struct probe *p, uint32_t *ret)
{
    const struct fact *f = &m->space->classes->facts[fact];
    const struct conf_policy one = {.rules = (struct conf_rule[]){p->rule}, .n_rules = 1};
    struct policy *policy = policy_new(&one, m->err);
    if (policy == NULL) {
        return -1;
    }
    m->questions += f->n;
    if (m->questions > QUESTIONS_MAX) {
        policy_free(policy);
        return err_set(m->err, ERR_LIMIT, "too many different clauses and values to compare");
    }
    uint64_t *bits = mem_must_calloc((f->n + 63) / 64, sizeof(*bits));
    size_t choice[SPACE_FACTS_MAX] = {0};
    for (size_t i = 0; i < f->n; i++) {
        struct policy_query q;
        struct policy_verdict v;
        choice[fact] = i;
        classes_question(m->space->classes, choice, true, m->room, &q);
        policy_decide(policy, &q, &v);
        bool holds = p->rule.action == CONF_ALLOW ? v.allow : v.reason == POLICY_DENIED_BY_RULE;
        bits[i / 64] |= (uint64_t)holds << (i % 64);
    }
    policy_free(policy);
    *ret = keep_set(m, fact, bits, f->n);
    return 0;
}

/* For which classes of a fact this atom holds. AUDIT is taken like DENY. */
static int find_set(struct making *m, size_t fact, const struct conf_rule *rule,
                    const struct conf_policy_from *from, const struct conf_policy_to *to,
                    uint32_t *ret)
{
    static char name[] = "probe";
    const struct fact *f = &m->space->classes->facts[fact];
    struct probe p = {.text = BUF_INIT(POLICY_TOOLS_TEXT_MAX)};
    p.rule = (struct conf_rule){
        .name = name, .line = 1, .action = rule->action == CONF_ALLOW ? CONF_ALLOW : CONF_DENY};
    buf_printf(&p.text, "%zu %d", fact, p.rule.action);
    if (f->kind == FACT_TARGET) {
        p.rule.target_principals = rule->target_principals;
        say_strings(&p, "@", &rule->target_principals);
    } else if (from != NULL) {
        probe_from(&p, f, from);
    }
    if (to != NULL) {
        probe_to(&p, f, to);
    }
    bool request = conf_policy_to_wants_request(&p.to);
    bool has_to = request || p.to.n_ports + p.to.n_not_ports > 0;
    p.rule.from = &p.from;
    p.rule.n_from = !has_to && p.any && f->kind != FACT_TARGET;
    p.rule.to = &p.to;
    p.rule.n_to = has_to;
    int rc = 0;
    *ret = SET_ALL;
    if (p.any) {
        size_t at = tally_take(&m->asked, buf_str(&p.text));
        if (at == SIZE_MAX) {
            rc = err_set(m->err, ERR_LIMIT, "too many different clauses to compare");
        } else if (m->asked.items[at].of != NULL) {
            *ret = (uint32_t)((uintptr_t)m->asked.items[at].of - 1);
        } else {
            rc = ask_classes(m, fact, &p, ret);
            m->asked.items[at].of = (void *)((uintptr_t)*ret + 1); /* a number */
        }
    }
    probe_deinit(&p);
    return rc;
}

/* --- atoms -------------------------------------------------------------------------------------
 */
static int add_atom(struct making *m, size_t side, size_t rule, const struct conf_policy_from *from,
                    const struct conf_policy_to *to)
{
    struct space *s = m->space;
    const struct conf_rule *r = &s->confs[side]->rules[rule];
    if (s->n_atoms == ATOMS_MAX) {
        return err_set(m->err, ERR_LIMIT, "more than %d combinations of from and to entries",
                       ATOMS_MAX);
    }
    MEM_GROW(s->atoms, s->n_atoms, s->cap_atoms, 64);
    struct space_atom *a = &s->atoms[s->n_atoms++];
    *a = (struct space_atom){
        .rule = (uint32_t)rule,
        .side = (uint8_t)side,
        .action = (uint8_t)r->action,
        .request = (from != NULL && conf_policy_from_wants_request(from)) ||
                   (to != NULL && conf_policy_to_wants_request(to)),
    };
    for (size_t f = 0; f < s->classes->n; f++) {
        if (find_set(m, f, r, from, to, &a->sets[f]) != 0) {
            return -1;
        }
        a->dead = a->dead || (a->sets[f] != SET_ALL && s->sets[a->sets[f]].none);
    }
    return 0;
}

static int add_rule(struct making *m, size_t side, size_t rule)
{
    const struct conf_rule *r = &m->space->confs[side]->rules[rule];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < (r->n_from > 0 ? r->n_from : 1); i++) {
        for (size_t k = 0; rc == 0 && k < (r->n_to > 0 ? r->n_to : 1); k++) {
            rc = add_atom(m, side, rule, r->n_from > 0 ? &r->from[i] : NULL,
                          r->n_to > 0 ? &r->to[k] : NULL);
        }
    }
    return rc;
}

struct space *space_new(const struct conf_policy *const *confs, size_t n, struct err *err)
{
    mem_auto(space_free) struct space *s = mem_must_new(struct space);
    s->n_confs = n;
    memcpy(s->confs, confs, n * sizeof(*confs));
    s->classes = classes_new(confs, n, err);
    if (s->classes == NULL) {
        return NULL;
    }
    s->sets = mem_must_calloc(1, sizeof(*s->sets)); /* SET_ALL */
    s->n_sets = s->cap_sets = 1;
    struct making m = {.space = s, .room = mem_must_new(struct class_room), .err = err};
    m.room->text.max = POLICY_TOOLS_TEXT_MAX;
    int rc = 0;
    for (size_t side = 0; rc == 0 && side < n; side++) {
        for (size_t i = 0; rc == 0 && i < confs[side]->n_rules; i++) {
            rc = add_rule(&m, side, i);
        }
    }
    buf_reset(&m.room->text);
    free(m.room);
    tally_deinit(&m.asked);
    tally_deinit(&m.known);
    if (rc != 0) {
        return NULL;
    }
    struct space *made = s;
    s = NULL;
    return made;
}

struct space *space_free(struct space *s)
{
    if (s != NULL) {
        for (size_t i = 0; i < s->n_sets; i++) {
            free(s->sets[i].bits);
        }
        free(s->sets);
        free(s->atoms);
        classes_free(s->classes);
        free(s);
    }
    return NULL;
}
