/*
 * policy_roles: what can be called, by a name. A rule's roles become part of its `to` when the file
 * is loaded, so that whoever judges knows entries of `to` and nothing else.
 */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_priv.h"

enum {
    ENTRIES_MAX = 4096,           /* that the roles of one rule make */
    BYTES_MAX = 64 * 1024 * 1024, /* that those of a file make */
};

/* --- the table -------------------------------------------------------------------------------- */
static void check_role(struct context *c, const struct node *map, void *value)
{
    struct conf_role *role = value;
    (void)c;
    role->line = map->line;
}

static const struct field fields_role[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .required = true,
     AT(struct conf_role, name),
     .doc = "Unique among the roles of the file."},
    {.name = "to",
     .type = TYPE_MAP,
     .table = &table_policy_to,
     .required = true,
     LIST_AT(struct conf_role, to, n_to),
     .empty_advice = "name what the role may call",
     .doc = "What is called."},
};
const struct table table_policy_role = {
    .name = "a role",
    .doc = "A name for things that can be called together.",
    .size = sizeof(struct conf_role),
    FIELDS(fields_role),
    .check = check_role,
};

/* --- lists that are put together -------------------------------------------------------------- */
#define MEMBER(key, negative) {#key, offsetof(struct conf_policy_to, key), negative}
static const struct member {
    const char *key;
    size_t at;
    bool negative;
} strings[] =
    {
        MEMBER(methods, false),  MEMBER(not_methods, true), MEMBER(hosts, false),
        MEMBER(not_hosts, true), MEMBER(paths, false),      MEMBER(not_paths, true),
        MEMBER(grpc, false),     MEMBER(not_grpc, true),
},
  values[] = {
      MEMBER(query, false),
      MEMBER(not_query, true),
      MEMBER(headers, false),
      MEMBER(not_headers, true),
};
enum {
    N_STRINGS = sizeof(strings) / sizeof(strings[0]),
    N_VALUES = sizeof(values) / sizeof(values[0])
};

static const struct conf_strings *strings_of(const struct conf_policy_to *t, const struct member *m)
{
    return (const struct conf_strings *)(const void *)((const char *)t + m->at);
}

static const struct conf_policy_values *values_of(const struct conf_policy_to *t,
                                                  const struct member *m)
{
    return (const struct conf_policy_values *)(const void *)((const char *)t + m->at);
}

static void copy_strings(struct conf_strings *out, const struct conf_strings *in, size_t *bytes)
{
    if (in->n == 0) {
        return;
    }
    out->items = mem_must_realloc(out->items, (out->n + in->n) * sizeof(out->items[0]));
    for (size_t i = 0; i < in->n; i++) {
        out->items[out->n++] = mem_must_strdup(in->items[i]);
        *bytes += strlen(in->items[i]) + 32;
    }
}

static void copy_values(struct conf_policy_values *out, const struct conf_policy_values *in,
                        size_t *bytes)
{
    if (in->n == 0) {
        return;
    }
    out->items = mem_must_realloc(out->items, (out->n + in->n) * sizeof(out->items[0]));
    for (size_t i = 0; i < in->n; i++) {
        struct conf_policy_value *v = &out->items[out->n++];
        *v = (struct conf_policy_value){.name = mem_must_strdup(in->items[i].name),
                                        .present = in->items[i].present};
        copy_strings(&v->values, &in->items[i].values, bytes);
        *bytes += strlen(v->name) + sizeof(*v);
    }
}

static void copy_ports(uint16_t **out, size_t *out_n, const uint16_t *in, size_t n)
{
    if (n > 0) {
        *out = mem_must_realloc(*out, (*out_n + n) * sizeof((*out)[0]));
        memcpy(*out + *out_n, in, n * sizeof(in[0]));
        *out_n += n;
    }
}

/* Adds to `out` what `in` asks for besides. */
static void copy_entry(struct conf_policy_to *out, const struct conf_policy_to *in, size_t *bytes)
{
    copy_ports(&out->ports, &out->n_ports, in->ports, in->n_ports);
    copy_ports(&out->not_ports, &out->n_not_ports, in->not_ports, in->n_not_ports);
    *bytes += sizeof(*out) + (in->n_ports + in->n_not_ports) * sizeof(in->ports[0]);
    for (size_t i = 0; i < N_STRINGS; i++) {
        copy_strings((struct conf_strings *)(void *)((char *)out + strings[i].at),
                     strings_of(in, &strings[i]), bytes);
    }
    for (size_t i = 0; i < N_VALUES; i++) {
        copy_values((struct conf_policy_values *)(void *)((char *)out + values[i].at),
                    values_of(in, &values[i]), bytes);
    }
}

/* Two lists of which each has to hold are no list, unless they are of things that must not be. */
static const char *clash(const struct conf_policy_to *a, const struct conf_policy_to *b)
{
    if (a->n_ports > 0 && b->n_ports > 0) {
        return "ports";
    }
    for (size_t i = 0; i < N_STRINGS; i++) {
        if (!strings[i].negative && strings_of(a, &strings[i])->n > 0 &&
            strings_of(b, &strings[i])->n > 0) {
            return strings[i].key;
        }
    }
    for (size_t i = 0; i < N_VALUES; i++) {
        if (!values[i].negative && values_of(a, &values[i])->n > 0 &&
            values_of(b, &values[i])->n > 0) {
            return values[i].key;
        }
    }
    return NULL;
}

/* --- a rule's roles --------------------------------------------------------------------------- */
struct applying {
    struct context *c;
    struct conf_policy *policy;
    const struct conf_role **sorted; /* by name */
    size_t bytes;
};

static int compare_roles(const void *pa, const void *pb)
{
    return strcmp((*(const struct conf_role *const *)pa)->name,
                  (*(const struct conf_role *const *)pb)->name);
}

static const struct conf_role *find_role(const struct applying *a, const char *name)
{
    struct conf_role key = {.name = (char *)(uintptr_t)name};
    const struct conf_role *wanted = &key;
    const struct conf_role **found =
        bsearch(&wanted, a->sorted, a->policy->n_roles, sizeof(a->sorted[0]), compare_roles);
    return found != NULL ? *found : NULL;
}

static const char *role_name_at(const void *set, size_t i)
{
    const struct conf_policy *p = set;
    return i < p->n_roles ? p->roles[i].name : NULL;
}

static void report_no_role(const struct applying *a, const struct node *at, const char *name)
{
    struct shown s;
    char advice[200];
    const char *near = nearest_word(str_of(name), role_name_at, a->policy);
    if (near != NULL) {
        snprintf(advice, sizeof(advice), "did you mean '%s'?", near);
    }
    report(a->c, at, "a name of 'roles'", near != NULL ? advice : NULL, "no such role %s",
           show(&s, str_of(name)));
}

/* The node of the rule's i-th role. */
static const struct node *role_node(const struct node *rule, size_t i)
{
    const struct node *n = node_get(rule, "role");
    if (n->kind != NODE_LIST) {
        return n;
    }
    n = n->child;
    for (; i > 0; i--) {
        n = n->next;
    }
    return n;
}

/* False: reported. */
static bool check_rule_roles(const struct applying *a, const struct node *node,
                             const struct conf_rule *rule, size_t *ret_n)
{
    size_t n = 0;
    size_t before = diag_total(a->c->diag);
    for (size_t i = 0; i < rule->roles.n; i++) {
        const struct conf_role *role = find_role(a, rule->roles.items[i]);
        if (role == NULL) {
            report_no_role(a, role_node(node, i), rule->roles.items[i]);
            continue;
        }
        n += role->n_to;
        for (size_t k = 0; k < role->n_to * rule->n_to; k++) {
            const char *key = clash(&role->to[k / rule->n_to], &rule->to[k % rule->n_to]);
            struct shown s;
            if (key != NULL) {
                report(a->c, role_node(node, i), NULL, "say it in one of the two",
                       "'%s' stands in role %s and in 'to' of the rule", key,
                       show(&s, str_of(role->name)));
                break;
            }
        }
    }
    n *= rule->n_to > 0 ? rule->n_to : 1;
    if (n > ENTRIES_MAX) {
        report(a->c, node_get(node, "role")->key, NULL, "make the role's lists longer instead",
               "makes %zu entries, more than %d", n, ENTRIES_MAX);
    }
    *ret_n = n;
    return diag_total(a->c->diag) == before;
}

static void apply(struct applying *a, const struct node *node, struct conf_rule *rule)
{
    size_t n = 0, at = 0;
    if (!check_rule_roles(a, node, rule, &n)) {
        return;
    }
    struct conf_policy_to *to = mem_must_calloc(n, sizeof(*to));
    for (size_t i = 0; i < rule->roles.n; i++) {
        const struct conf_role *role = find_role(a, rule->roles.items[i]);
        for (size_t k = 0; k < role->n_to; k++) {
            for (size_t j = 0; j < (rule->n_to > 0 ? rule->n_to : 1); j++) {
                copy_entry(&to[at], &role->to[k], &a->bytes);
                if (rule->n_to > 0) {
                    copy_entry(&to[at], &rule->to[j], &a->bytes);
                }
                at++;
            }
        }
    }
    for (size_t i = 0; i < rule->n_to; i++) {
        schema_clear(&table_policy_to, &rule->to[i]);
    }
    free(rule->to);
    rule->to = to;
    rule->n_to = n;
}

void policy_apply_roles(struct context *c, const struct node *file, struct conf_policy *p)
{
    const struct node *list = node_get(file, "rules");
    struct applying a = {.c = c, .policy = p};
    if (diag_total(c->diag) > 0 || list == NULL) {
        return; /* half of a role is none */
    }
    a.sorted = mem_must_calloc(p->n_roles + 1, sizeof(a.sorted[0]));
    for (size_t i = 0; i < p->n_roles; i++) {
        a.sorted[i] = &p->roles[i];
    }
    qsort(a.sorted, p->n_roles, sizeof(a.sorted[0]), compare_roles);
    const struct node *node = list->child;
    for (size_t i = 0; i < p->n_rules && node != NULL; i++, node = node->next) {
        if (p->rules[i].roles.n > 0) {
            apply(&a, node, &p->rules[i]);
        }
        if (a.bytes > BYTES_MAX) {
            report(c, node, NULL, "make the roles' lists shorter, or use them less often",
                   "what roles say becomes more than %d MiB", BYTES_MAX >> 20);
            break;
        }
    }
    free(a.sorted);
}
