/* Why a verdict is what it is, as data: the rules that speak of the target, what fails in each, and
 * what would turn it. */
#include <postern/policy_explanation.h>

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>

#include "policy_lists.h"
#include "policy_proposal.h"

enum { LOOKS_MAX = 256 };

char *policy_block_text(const struct conf_cidr *block)
{
    char text[INET6_ADDRSTRLEN] = "";
    inet_ntop(block->family, block->addr, text, sizeof(text));
    return block->prefix_len == (block->family == AF_INET ? 32 : 128)
               ? mem_must_strdup(text)
               : mem_must_printf("%s/%u", text, block->prefix_len);
}

/* --- failures ----------------------------------------------------------------------------------*/

struct looking {
    struct ask *ask;
    const struct conf_policy *conf;
    struct policy_look *look;
};

static void add_item(struct policy_failure *f, char *item)
{
    f->items = mem_must_realloc(f->items, (f->n_items + 1) * sizeof(f->items[0]));
    f->items[f->n_items++] = item;
}

static void fill_items(struct policy_failure *f, const struct policy_list *l,
                       const struct conf_policy_value *value)
{
    const struct conf_strings *strings = value != NULL ? &value->values : l->strings;
    for (size_t i = 0; strings != NULL && i < strings->n; i++) {
        add_item(f, mem_must_strdup(strings->items[i]));
    }
    for (size_t i = 0; value == NULL && l->ports != NULL && i < *l->n_ports; i++) {
        add_item(f, mem_must_printf("%u", (*l->ports)[i]));
    }
    for (size_t i = 0; value == NULL && l->blocks != NULL && i < l->blocks->n; i++) {
        add_item(f, policy_block_text(&l->blocks->items[i]));
    }
}

static enum policy_why why_plain(struct ask *a, enum dim dim)
{
    bool unclear = dim == DIM_GRPC && !a->query->grpc;
    return unclear || policy_ask_match(a, dim)->known != KNOWN ? POLICY_WHY_MISSING
                                                               : POLICY_WHY_OTHER;
}

/* All that the request says under this name, one behind the other; NULL: nothing. */
static char *said_of(const struct policy_query *q, enum policy_clause c, const char *name)
{
    const struct policy_header *items = NULL;
    size_t n = 0;
    struct buf text = BUF_INIT(8192);
    if (c == POLICY_CLAUSE_HEADERS && q->headers != NULL) {
        items = q->headers->items;
        n = q->headers->n;
    } else if (c == POLICY_CLAUSE_CLAIMS && q->claims != NULL) {
        items = q->claims->items;
        n = q->claims->n;
    } else if (c == POLICY_CLAUSE_QUERY && q->query.n > 0) {
        return mem_must_strndup(q->query.p, q->query.n);
    }
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        if (str_eq(items[i].name, str_of(name))) {
            buf_printf(&text, "%s", found ? ", " : "");
            buf_append_str(&text, items[i].value);
            found = true;
        }
    }
    struct str s = buf_str(&text);
    char *said = found ? mem_must_strndup(s.n > 0 ? s.p : "", s.n) : NULL;
    buf_reset(&text);
    return said;
}

static void take_failure(void *arg, enum policy_clause c, bool negative, long entry,
                         const struct conf_policy_value *value)
{
    struct looking *l = arg;
    struct policy_look *look = l->look;
    const struct policy_query *q = l->ask->query;
    struct policy_list list = policy_list_of(&l->conf->rules[look->rule], c, negative, entry);
    look->failures =
        mem_must_realloc(look->failures, (look->n_failures + 1) * sizeof(look->failures[0]));
    struct policy_failure *f = &look->failures[look->n_failures++];
    *f = (struct policy_failure){.clause = c, .negative = negative, .entry = entry};
    fill_items(f, &list, value);
    if (dim_is_request(policy_clause_dim(c)) && !q->http) {
        f->why = POLICY_WHY_NO_REQUEST;
        f->name = value != NULL ? value->name : NULL;
    } else if (value != NULL) {
        f->name = value->name;
        f->actual = said_of(q, c, value->name);
        f->why = f->actual != NULL ? POLICY_WHY_OTHER : POLICY_WHY_MISSING;
    } else {
        f->why = why_plain(l->ask, policy_clause_dim(c));
        f->actual = f->why == POLICY_WHY_OTHER ? policy_fact_item(q, c) : NULL;
    }
}

/* --- rules -------------------------------------------------------------------------------------*/

static void look_at_rule(struct policy_explanation *e, struct ask *a,
                         const struct conf_policy *conf, uint32_t rule)
{
    const struct rule *r = &a->policy->rules[rule];
    if (!policy_list_holds(a, DIM_TARGET, &r->target.pos, (enum conf_action)r->action)) {
        return;
    }
    bool decided = r->name == e->verdict.rule;
    if (e->n_looks >= LOOKS_MAX && !decided) {
        e->more = true;
        return;
    }
    struct policy_look *look = &e->looks[e->n_looks++];
    *look = (struct policy_look){
        .rule = rule, .ended = policy_has_ended(r, a->query), .decided = decided};
    if (!look->ended) {
        struct looking looking = {.ask = a, .conf = conf, .look = look};
        look->matched = policy_each_failure(a, conf, rule, take_failure, &looking) == 0;
    }
}

struct policy_explanation *policy_explanation_new(const struct conf_policy *conf,
                                                  const struct policy *p,
                                                  const struct policy_query *q)
{
    struct policy_explanation *e = mem_must_new(struct policy_explanation);
    struct ask_named *named = mem_must_new(struct ask_named);
    struct ask *a = mem_must_new(struct ask);
    POSTERN_ASSERT(conf->n_rules == p->n_rules);
    policy_decide(p, q, &e->verdict);
    e->looks = mem_must_calloc(LOOKS_MAX + 1, sizeof(e->looks[0]));
    policy_ask_init(a, policy_asks_named(p) ? named : NULL, p, q);
    for (uint32_t i = 0; i < p->n_rules; i++) {
        look_at_rule(e, a, conf, i);
    }
    e->turns = policy_propose(conf, p, q, &e->verdict, &e->edits, &e->n_edits);
    free(a);
    free(named);
    return e;
}

struct policy_explanation *policy_explanation_free(struct policy_explanation *e)
{
    if (e == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < e->n_looks; i++) {
        for (size_t k = 0; k < e->looks[i].n_failures; k++) {
            struct policy_failure *f = &e->looks[i].failures[k];
            for (size_t n = 0; n < f->n_items; n++) {
                free(f->items[n]);
            }
            free(f->items);
            free(f->actual);
        }
        free(e->looks[i].failures);
    }
    for (size_t i = 0; i < e->n_edits; i++) {
        policy_edit_deinit(&e->edits[i]);
    }
    free(e->looks);
    free(e->edits);
    free(e);
    return NULL;
}
