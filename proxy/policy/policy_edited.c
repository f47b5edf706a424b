/* A parsed policy with a few changes. It lends what did not change, and keeps what did. */
#include "policy_lists.h"

#include <arpa/inet.h>
#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct policy_edited {
    struct conf_policy conf;
    void **owned;
    size_t n, cap;
};

/* --- memory ------------------------------------------------------------------------------------*/

static void *keep(struct policy_edited *e, void *p)
{
    MEM_GROW(e->owned, e->n, e->cap, 16);
    e->owned[e->n++] = p;
    return p;
}

/* A copy of an array with room for one more. */
static void *copy(struct policy_edited *e, const void *items, size_t n, size_t size)
{
    void *p = keep(e, mem_must_calloc(n + 1, size));
    if (n > 0) {
        memcpy(p, items, n * size);
    }
    return p;
}

/* --- lists -------------------------------------------------------------------------------------*/

static void edit_strings(struct policy_edited *e, struct conf_strings *list, const char *item,
                         bool add)
{
    char **items = copy(e, list->items, list->n, sizeof(items[0]));
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        if (add || strcmp(items[i], item) != 0) {
            items[n++] = items[i];
        }
    }
    if (add) {
        items[n++] = keep(e, mem_must_strdup(item));
    }
    *list = (struct conf_strings){items, n};
}

static void edit_ports(struct policy_edited *e, const struct policy_list *l, const char *item,
                       bool add)
{
    uint64_t port = 0;
    uint16_t *ports = copy(e, *l->ports, *l->n_ports, sizeof(ports[0]));
    size_t n = 0;
    POSTERN_ASSERT(str_to_u64(str_of(item), 65535, &port));
    for (size_t i = 0; i < *l->n_ports; i++) {
        if (add || ports[i] != port) {
            ports[n++] = ports[i];
        }
    }
    if (add) {
        ports[n++] = (uint16_t)port;
    }
    *l->ports = ports;
    *l->n_ports = n;
}

static bool parse_block(const char *item, struct conf_cidr *ret)
{
    char text[64];
    uint64_t len = 0;
    *ret = (struct conf_cidr){.family = strchr(item, ':') != NULL ? AF_INET6 : AF_INET};
    uint64_t max = ret->family == AF_INET ? 32 : 128;
    if (strlen(item) >= sizeof(text)) {
        return false;
    }
    memcpy(text, item, strlen(item) + 1);
    char *slash = strchr(text, '/');
    if (slash != NULL) {
        *slash = '\0';
        if (!str_to_u64(str_of(slash + 1), max, &len)) {
            return false;
        }
    }
    ret->prefix_len = (uint8_t)(slash != NULL ? len : max);
    return inet_pton(ret->family, text, ret->addr) == 1;
}

static void edit_blocks(struct policy_edited *e, struct conf_cidrs *list, const char *item,
                        bool add)
{
    struct conf_cidr block;
    struct conf_cidr *items = copy(e, list->items, list->n, sizeof(items[0]));
    size_t n = 0;
    POSTERN_ASSERT(parse_block(item, &block));
    for (size_t i = 0; i < list->n; i++) {
        bool same = items[i].family == block.family && items[i].prefix_len == block.prefix_len &&
                    memcmp(items[i].addr, block.addr, sizeof(block.addr)) == 0;
        if (add || !same) {
            items[n++] = items[i];
        }
    }
    if (add) {
        items[n++] = block;
    }
    *list = (struct conf_cidrs){items, n};
}

/* Removing without an item takes every element of the name. */
static void edit_values(struct policy_edited *e, struct conf_policy_values *list,
                        const struct policy_edit *edit, bool add)
{
    struct conf_policy_value *items = copy(e, list->items, list->n, sizeof(items[0]));
    size_t n = 0;
    bool done = false;
    for (size_t i = 0; i < list->n; i++) {
        struct conf_policy_value v = items[i];
        if (strcmp(v.name, edit->name) == 0) {
            if (!add && edit->item == NULL) {
                continue;
            }
            if (edit->item != NULL && !v.present && !edit->negative) {
                edit_strings(e, &v.values, edit->item, add);
                done = true;
            }
            if (!v.present && v.values.n == 0) {
                continue;
            }
        }
        items[n++] = v;
    }
    if (add && !done) {
        struct conf_policy_value v = {.name = keep(e, mem_must_strdup(edit->name)),
                                      .present = edit->item == NULL};
        if (edit->item != NULL) {
            edit_strings(e, &v.values, edit->item, true);
        }
        items[n++] = v;
    }
    *list = (struct conf_policy_values){items, n};
}

/* --- edits -------------------------------------------------------------------------------------*/

/* Its entries become its own; a rule without any gets one if it is to be changed. */
static void own_entries(struct policy_edited *e, struct conf_rule *r, const struct policy_edit *d)
{
    r->from = copy(e, r->from, r->n_from, sizeof(r->from[0]));
    r->to = copy(e, r->to, r->n_to, sizeof(r->to[0]));
    if (d->clause == POLICY_CLAUSE_TARGET || d->entry != POLICY_ENTRY_NONE) {
        return;
    }
    if (policy_clause_is_from(d->clause) && r->n_from == 0) {
        r->n_from = 1;
    } else if (!policy_clause_is_from(d->clause) && r->n_to == 0) {
        r->n_to = 1;
    }
}

static void edit_list(struct policy_edited *e, const struct policy_edit *d)
{
    struct conf_rule *r = &e->conf.rules[d->rule];
    own_entries(e, r, d);
    struct policy_list l = policy_list_of(r, d->clause, d->negative, d->entry >= 0 ? d->entry : 0);
    bool add = d->kind == POLICY_EDIT_ADD_ITEM;
    if (l.strings != NULL) {
        edit_strings(e, l.strings, d->item, add);
    } else if (l.ports != NULL) {
        edit_ports(e, &l, d->item, add);
    } else if (l.blocks != NULL) {
        edit_blocks(e, l.blocks, d->item, add);
    } else if (l.values != NULL) {
        edit_values(e, l.values, d, add);
    }
}

/* A rule that is removed stays in its place, so that numbers stay what they are: as one on trial of
 * a kind that marks nothing. */
static void remove_rule(struct policy_edited *e, size_t rule)
{
    e->conf.rules[rule].action = CONF_AUDIT;
    e->conf.rules[rule].mode = CONF_DRY_RUN;
}

struct policy_edited *policy_edited_new(const struct conf_policy *conf,
                                        const struct policy_edit *edits, size_t n)
{
    struct policy_edited *e = mem_must_new(struct policy_edited);
    e->conf = *conf;
    e->conf.rules = keep(e, mem_must_calloc(conf->n_rules + n + 1, sizeof(conf->rules[0])));
    if (conf->n_rules > 0) {
        memcpy(e->conf.rules, conf->rules, conf->n_rules * sizeof(conf->rules[0]));
    }
    for (size_t i = 0; i < n; i++) {
        switch (edits[i].kind) {
        case POLICY_EDIT_ADD_ITEM:
        case POLICY_EDIT_REMOVE_ITEM:
            edit_list(e, &edits[i]);
            break;
        case POLICY_EDIT_ADD_RULE:
            e->conf.rules[e->conf.n_rules++] = *edits[i].new_rule;
            break;
        case POLICY_EDIT_REMOVE_RULE:
            remove_rule(e, edits[i].rule);
            break;
        }
    }
    return e;
}

const struct conf_policy *policy_edited_conf(const struct policy_edited *e)
{
    return &e->conf;
}

struct policy_edited *policy_edited_free(struct policy_edited *e)
{
    if (e != NULL) {
        for (size_t i = 0; i < e->n; i++) {
            free(e->owned[i]);
        }
        free(e->owned);
        free(e);
    }
    return NULL;
}

/* --- for people --------------------------------------------------------------------------------*/

static void print_entry(const struct policy_edit *d, struct buf *out)
{
    if (d->clause == POLICY_CLAUSE_TARGET) {
        return;
    }
    const char *part = policy_clause_is_from(d->clause) ? "from" : "to";
    if (d->entry < 0) {
        buf_printf(out, " of a new entry in its '%s'", part);
    } else {
        buf_printf(out, " of %s[%ld]", part, d->entry);
    }
}

static void print_new_rule(const struct conf_rule *r, struct buf *out)
{
    static const enum policy_clause shown[] = {POLICY_CLAUSE_TARGET, POLICY_CLAUSE_PRINCIPALS,
                                               POLICY_CLAUSE_METHODS, POLICY_CLAUSE_PATHS};
    struct conf_rule rule = *r;
    buf_printf(out, "add a rule %s: %s", r->name, r->action == CONF_ALLOW ? "ALLOW" : "DENY");
    for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
        struct policy_list l = policy_list_of(&rule, shown[i], false, 0);
        if (l.strings != NULL && l.strings->n > 0) {
            buf_printf(out, ", %s [%s]", policy_clause_name(shown[i], false), l.strings->items[0]);
        }
    }
    if (r->n_from > 0 && r->from[0].ip_blocks.n > 0) {
        char text[INET6_ADDRSTRLEN] = "";
        inet_ntop(r->from[0].ip_blocks.items[0].family, r->from[0].ip_blocks.items[0].addr, text,
                  sizeof(text));
        buf_printf(out, ", ip_blocks [%s]", text);
    }
    if (r->n_to > 0 && r->to[0].n_ports > 0) {
        buf_printf(out, ", ports [%u]", r->to[0].ports[0]);
    }
}

bool policy_edit_text(const struct conf_policy *conf, const struct policy_edit *edit,
                      struct buf *out)
{
    size_t before = buf_len(out);
    if (edit->kind == POLICY_EDIT_ADD_RULE) {
        print_new_rule(edit->new_rule, out);
        return buf_len(out) > before;
    }
    const struct conf_rule *r = &conf->rules[edit->rule];
    if (edit->kind == POLICY_EDIT_REMOVE_RULE) {
        buf_printf(out, "remove rule %s (line %u)", r->name, r->line);
        return buf_len(out) > before;
    }
    bool add = edit->kind == POLICY_EDIT_ADD_ITEM;
    buf_printf(out, "%s ", add ? "add" : "remove");
    if (edit->name != NULL) {
        buf_printf(out, "%s%s%s", edit->name, edit->item != NULL ? ": " : "",
                   edit->item == NULL && add ? " present" : "");
    }
    buf_printf(out, "%s %s %s", edit->item != NULL ? edit->item : "", add ? "to" : "from",
               policy_clause_name(edit->clause, edit->negative));
    print_entry(edit, out);
    buf_printf(out, " of rule %s (line %u)", r->name, r->line);
    return buf_len(out) > before;
}
