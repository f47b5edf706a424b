/*
 * The tree: from compiled rules to what a question walks along.
 *
 * A rule with several from and to entries is as many atoms; an atom with several keys in a
 * dimension hangs on as many edges. Both multiply, so both have a bound: what goes beyond it is
 * checked at the leaf instead. A few atoms make a leaf at once, whatever they still ask for: that
 * is also what a small policy is, one leaf.
 */
#include <postern/policy.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "policy_priv.h"

enum {
    LEAF_ATOMS = 4,      /* at most so many are checked one by one rather than told apart */
    EDGES_SCANNED = 8,   /* a node with more finds them by hash */
    MULTIPLY_FREE = 256, /* edges that an atom may take in any case */
    ENTRIES_FREE = 4096, /* atoms that a rule may take in any case */
};

static void *grow(void *items, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap) {
        return items;
    }
    *cap = *cap > 0 ? *cap * 2 : 16;
    return mem_must_realloc(items, *cap * size);
}

/* --- atoms -------------------------------------------------------------------------------------*/

static const struct clause *atom_clause(const struct policy *p, const struct atom *a, enum dim dim)
{
    static const struct clause nothing;
    if (dim == DIM_TARGET) {
        return &p->rules[a->rule].target;
    }
    if (dim == DIM_PRINCIPAL || dim == DIM_DOMAIN || dim == DIM_SOURCE) {
        return a->from >= 0 ? policy_from_clause(&p->from[a->from], dim) : &nothing;
    }
    return a->to >= 0 ? policy_to_clause(&p->to[a->to], dim) : &nothing;
}

/* Whether DENY must also be found for a question in which this fact is missing. */
static bool absent_counts(enum tree tree, enum dim dim)
{
    return tree != TREE_ALLOW && dim != DIM_PORT && !dim_is_identity(dim);
}

/* Decides which dimensions are told by edges: the short lists first, as long as the product of
 * their lengths stays in proportion to the text that they are written in. */
static void file_atom(const struct policy *p, enum tree tree, struct atom *a, unsigned dims)
{
    uint64_t sizes[DIM_COUNT] = {0};
    uint64_t sum = 0;
    for (enum dim d = 0; d < DIM_COUNT; d++) {
        const struct clause *c = atom_clause(p, a, d);
        if ((dims & 1U << d) == 0) {
            continue;
        }
        if (c->neg.n > 0) {
            a->check |= (uint8_t)(1U << d);
        }
        if (c->pos.n > 0) {
            a->asks |= (uint8_t)(1U << d);
            sizes[d] = c->pos.n + (absent_counts(tree, d) ? 1U : 0U);
            sum += sizes[d];
        }
    }
    uint64_t cap = 2 * sum > MULTIPLY_FREE ? 2 * sum : MULTIPLY_FREE;
    uint64_t product = 1;
    for (unsigned left = a->asks; left != 0;) {
        unsigned least = DIM_COUNT;
        for (unsigned d = 0; d < DIM_COUNT; d++) {
            if ((left & 1U << d) != 0 && (least == DIM_COUNT || sizes[d] < sizes[least])) {
                least = d;
            }
        }
        left &= ~(1U << least);
        if (sizes[least] <= cap / product) {
            product *= sizes[least];
            a->filed |= (uint8_t)(1U << least);
        } else {
            a->check |= (uint8_t)(1U << least);
        }
    }
}

static void add_atom(struct policy *p, enum tree tree, uint32_t rule, int32_t from, int32_t to)
{
    static const unsigned target_and_port = 1U << DIM_TARGET | 1U << DIM_PORT;
    p->atoms = grow(p->atoms, p->n_atoms, &p->cap_atoms, sizeof(p->atoms[0]));
    struct atom *a = &p->atoms[p->n_atoms++];
    *a = (struct atom){.rule = rule, .from = from, .to = to};
    file_atom(p, tree, a, tree == TREE_REQUESTS ? target_and_port : (1U << DIM_COUNT) - 1);
}

/* The atoms of one rule for the tree of its action. */
static void add_rule(struct policy *p, enum tree tree, uint32_t rule)
{
    const struct rule *r = &p->rules[rule];
    uint64_t bound = ENTRIES_FREE + 16 * ((uint64_t)r->n_from + r->n_to);
    bool each = (uint64_t)r->n_from * r->n_to > bound;
    for (uint32_t i = 0; i < (r->n_from > 0 ? r->n_from : 1); i++) {
        int32_t from = r->n_from > 0 ? (int32_t)(r->from_at + i) : ENTRY_NONE;
        if (each || r->n_to == 0) {
            add_atom(p, tree, rule, from, each ? ENTRY_EACH : ENTRY_NONE);
            continue;
        }
        for (uint32_t j = 0; j < r->n_to; j++) {
            add_atom(p, tree, rule, from, (int32_t)(r->to_at + j));
        }
    }
}

/* Its entries with request clauses, for policy_wants_requests. */
static void add_requests(struct policy *p, uint32_t rule)
{
    const struct rule *r = &p->rules[rule];
    for (uint32_t j = r->to_at; j < r->to_at + r->n_to; j++) {
        const struct to *t = &p->to[j];
        uint32_t n = t->path.pos.n + t->path.neg.n + t->host.pos.n + t->host.neg.n +
                     t->method.pos.n + t->method.neg.n;
        if (n > 0) {
            add_atom(p, TREE_REQUESTS, rule, ENTRY_NONE, (int32_t)j);
        }
    }
}

/* --- nodes -------------------------------------------------------------------------------------*/

struct pair {
    uint32_t key, atom;
};

static int compare_pairs(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->atom < y->atom ? -1 : x->atom > y->atom;
}

static uint32_t add_node(struct policy *p)
{
    if (p->n_nodes == 0) {
        p->nodes = grow(p->nodes, 0, &p->cap_nodes, sizeof(p->nodes[0]));
        p->nodes[p->n_nodes++] = (struct node){.leaf = true, .min_rule = UINT32_MAX};
    }
    p->nodes = grow(p->nodes, p->n_nodes, &p->cap_nodes, sizeof(p->nodes[0]));
    p->nodes[p->n_nodes] = (struct node){0};
    return p->n_nodes++;
}

static uint32_t add_leaf(struct policy *p, const uint32_t *list, uint32_t n, enum dim dim)
{
    uint32_t at = add_node(p);
    p->nodes[at] = (struct node){.first = p->n_leaf_atoms,
                                 .min_rule = p->atoms[list[0]].rule,
                                 .dim = (uint8_t)dim,
                                 .leaf = true};
    unsigned open = (1U << DIM_COUNT) - (1U << dim);
    for (uint32_t i = 0; i < n; i++) {
        const struct atom *a = &p->atoms[list[i]];
        p->leaf_atoms =
            grow(p->leaf_atoms, p->n_leaf_atoms, &p->cap_leaf_atoms, sizeof(p->leaf_atoms[0]));
        p->leaf_atoms[p->n_leaf_atoms++] = *a;
        p->nodes[at].n++;
        if (a->check == 0 && (a->filed & open) == 0 && a->to != ENTRY_EACH) {
            break; /* holds for whoever comes here: no later one is ever named */
        }
    }
    return at;
}

static bool any_filed(const struct policy *p, const uint32_t *list, uint32_t n, unsigned dim)
{
    for (uint32_t i = 0; i < n; i++) {
        if ((p->atoms[list[i]].filed & 1U << dim) != 0) {
            return true;
        }
    }
    return false;
}

static uint32_t build_node(struct policy *p, enum tree tree, const uint32_t *list, uint32_t n,
                           unsigned dim);

/* Splits the list by the keys that its atoms ask for in this dimension. *ret_pairs is sorted. */
static uint32_t split(struct policy *p, enum tree tree, const uint32_t *list, uint32_t n,
                      enum dim dim, uint32_t *ret_rest, uint32_t *ret_n_rest,
                      struct pair **ret_pairs)
{
    struct pair *pairs = NULL;
    uint32_t n_pairs = 0;
    uint32_t cap = 0;
    uint32_t n_rest = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct atom *a = &p->atoms[list[i]];
        if ((a->filed & 1U << dim) == 0) {
            ret_rest[n_rest++] = list[i];
            continue;
        }
        const struct run *run = &atom_clause(p, a, dim)->pos;
        for (uint32_t k = 0; k < run->n; k++) {
            pairs = grow(pairs, n_pairs, &cap, sizeof(pairs[0]));
            pairs[n_pairs++] = (struct pair){policy_run_keys(p, run)[k], list[i]};
        }
        if (absent_counts(tree, dim)) {
            pairs = grow(pairs, n_pairs, &cap, sizeof(pairs[0]));
            pairs[n_pairs++] = (struct pair){policy_key_of_absent(&p->table, dim), list[i]};
        }
    }
    if (n_pairs > 1) {
        qsort(pairs, n_pairs, sizeof(pairs[0]), compare_pairs);
    }
    *ret_n_rest = n_rest;
    *ret_pairs = pairs;
    return n_pairs;
}

static void build_edges(struct policy *p, enum tree tree, uint32_t at, const struct pair *pairs,
                        uint32_t n_pairs, enum dim dim)
{
    uint32_t n_edges = 0;
    for (uint32_t i = 0; i < n_pairs; i++) {
        n_edges += i == 0 || pairs[i].key != pairs[i - 1].key;
    }
    uint32_t first = p->n_edges;
    for (uint32_t i = 0; i < n_edges; i++) {
        p->edges = grow(p->edges, p->n_edges, &p->cap_edges, sizeof(p->edges[0]));
        p->edges[p->n_edges++] = (struct edge){0};
    }
    uint32_t *list = mem_must_calloc(n_pairs, sizeof(list[0]));
    uint32_t edge = 0;
    for (uint32_t i = 0; i < n_pairs;) {
        uint32_t key = pairs[i].key;
        uint32_t n = 0;
        for (; i < n_pairs && pairs[i].key == key; i++) {
            list[n++] = pairs[i].atom;
        }
        uint32_t child = build_node(p, tree, list, n, dim + 1U);
        p->edges[first + edge++] = (struct edge){key, child};
    }
    free(list);
    p->nodes[at].first = first;
    p->nodes[at].n = n_edges;
    p->nodes[at].hashed = n_edges > EDGES_SCANNED;
}

static uint32_t build_node(struct policy *p, enum tree tree, const uint32_t *list, uint32_t n,
                           unsigned dim)
{
    if (n == 0) {
        return 0;
    }
    if (n <= LEAF_ATOMS) {
        return add_leaf(p, list, n, (enum dim)dim);
    }
    while (dim < DIM_COUNT && !any_filed(p, list, n, dim)) {
        dim++;
    }
    if (dim == DIM_COUNT) {
        return add_leaf(p, list, n, DIM_COUNT);
    }
    uint32_t at = add_node(p);
    uint32_t min_rule = p->atoms[list[0]].rule; /* lists are in the order of the file */
    mem_autofree uint32_t *rest = mem_must_calloc(n, sizeof(rest[0]));
    mem_autofree struct pair *pairs = NULL;
    uint32_t n_rest = 0;
    uint32_t n_pairs = split(p, tree, list, n, (enum dim)dim, rest, &n_rest, &pairs);
    build_edges(p, tree, at, pairs, n_pairs, (enum dim)dim);
    uint32_t any = build_node(p, tree, rest, n_rest, dim + 1);
    struct node *node = &p->nodes[at];
    node->any = any;
    node->min_rule = min_rule;
    node->dim = (uint8_t)dim;
    return at;
}

static void build_tree(struct policy *p, enum tree tree)
{
    uint32_t first = p->n_atoms;
    for (uint32_t i = 0; i < p->n_rules; i++) {
        if (tree == TREE_REQUESTS) {
            add_requests(p, i);
        } else if ((p->rules[i].action == CONF_DENY) == (tree == TREE_DENY)) {
            add_rule(p, tree, i);
        }
    }
    uint32_t n = p->n_atoms - first;
    mem_autofree uint32_t *list = mem_must_calloc(n > 0 ? n : 1, sizeof(list[0]));
    for (uint32_t i = 0; i < n; i++) {
        list[i] = first + i;
    }
    p->roots[tree] = build_node(p, tree, list, n, 0);
}

/* --- edges by hash -----------------------------------------------------------------------------*/

uint32_t policy_edge_hash(uint32_t node, uint32_t key)
{
    uint64_t h = ((uint64_t)node << 32 | key) * 0x9e3779b97f4a7c15U;
    return (uint32_t)(h >> 32);
}

static void hash_edges(struct policy *p)
{
    uint32_t n = 0;
    for (uint32_t i = 1; i < p->n_nodes; i++) {
        n += p->nodes[i].hashed ? p->nodes[i].n : 0;
    }
    if (n == 0) {
        return;
    }
    uint32_t size = 64;
    while (size < n * 2) {
        size *= 2;
    }
    p->edge_slots = mem_must_calloc(size, sizeof(p->edge_slots[0]));
    p->edge_mask = size - 1;
    for (uint32_t i = 1; i < p->n_nodes; i++) {
        const struct node *node = &p->nodes[i];
        for (uint32_t e = 0; node->hashed && e < node->n; e++) {
            const struct edge *edge = &p->edges[node->first + e];
            uint32_t at = policy_edge_hash(i, edge->key) & p->edge_mask;
            while (p->edge_slots[at].child != 0) {
                at = (at + 1) & p->edge_mask;
            }
            p->edge_slots[at] = (struct edge_slot){i, edge->key, edge->child};
        }
    }
}

/* --- ALLOW rules by target ---------------------------------------------------------------------*/

static void index_targets(struct policy *p)
{
    mem_autofree struct pair *pairs = NULL;
    uint32_t n = 0;
    uint32_t cap = 0;
    for (uint32_t i = 0; i < p->n_rules; i++) {
        const struct run *run = &p->rules[i].target.pos;
        if (p->rules[i].action != CONF_ALLOW) {
            continue;
        }
        for (uint32_t k = 0; k < (run->n > 0 ? run->n : 1); k++) {
            pairs = grow(pairs, n, &cap, sizeof(pairs[0]));
            uint32_t key = run->n > 0 ? policy_run_keys(p, run)[k] : KEY_NONE;
            pairs[n++] = (struct pair){key, i};
        }
    }
    if (n > 1) {
        qsort(pairs, n, sizeof(pairs[0]), compare_pairs);
    }
    p->allow_spans = mem_must_calloc(n > 0 ? n : 1, sizeof(p->allow_spans[0]));
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0 || pairs[i].key != pairs[i - 1].key) {
            p->allow_spans[p->n_allow_spans++] =
                (struct allow_span){.key = pairs[i].key, .rules.at = p->n_pool};
        }
        p->allow_spans[p->n_allow_spans - 1].rules.n++;
        p->pool = grow(p->pool, p->n_pool, &p->cap_pool, sizeof(p->pool[0]));
        p->pool[p->n_pool++] = pairs[i].atom;
    }
}

void policy_build(struct policy *p)
{
    for (enum tree t = 0; t < TREE_COUNT; t++) {
        build_tree(p, t);
    }
    free(p->atoms);
    p->atoms = NULL;
    hash_edges(p);
    index_targets(p);
}
