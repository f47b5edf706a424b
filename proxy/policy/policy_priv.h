/*
 * policy_priv: the compiled form, shared by the files of this room.
 *
 * Every item of every list ("spiffe://td/x", "/orders/" + star, 10.0.0.0/8, 8080) is a *key*: a
 * number, the same for equal items of one dimension. A question is turned into the keys that it
 * matches, dimension by dimension and only when a dimension is reached. An *atom* is one
 * conjunction of a rule: its target, one of its from entries, one of its to entries. Atoms hang at
 * the leaves of a tree with one level a dimension and an edge for each key that an atom asks for
 * there, or for "asks for nothing".
 */
#ifndef POSTERN_POLICY_PRIV_H
#define POSTERN_POLICY_PRIV_H

#include <postern/policy.h>

/* In the order of the tree's levels: what tells most rules apart for the least work first. */
enum dim {
    DIM_TARGET,
    DIM_PORT,
    DIM_PRINCIPAL,
    DIM_DOMAIN,
    DIM_SOURCE,
    DIM_PATH,
    DIM_HOST,
    DIM_METHOD,
    DIM_COUNT
};

enum form {
    FORM_EXACT,
    FORM_PREFIX, /* of a block: its first prefix_len bits */
    FORM_SUFFIX,
    FORM_ANY,    /* "*": whatever is there */
    FORM_ABSENT, /* not written by people: what DENY is filed under for a fact that is missing */
};

enum {
    KEY_NONE = 0,
    /* The keys that one value can match in one dimension: exact, "*", and patterns that contain
     * each other. More is refused at load. */
    MATCH_MAX = 48,
    KEY_ALIGN = 4,
    SOURCE_LEN = 17, /* family and 16 bytes of address */
};

/* A key's number is where it stands in key_table.bytes, in units of KEY_ALIGN: what a look-up finds
 * in a slot leads to dimension, form and text at once, in one or two cache lines. */
struct key {
    uint32_t hash; /* lower half of the hash of dimension, form and text */
    uint32_t len;
    uint8_t dim;
    uint8_t form;
    uint8_t prefix_len; /* DIM_SOURCE */
    uint8_t spare;
    char text[]; /* a pattern without its star; hosts in lower case; terminated */
};

struct slot {
    uint32_t tag; /* upper half of the key's hash */
    uint32_t key; /* KEY_NONE: free */
};

/* The lengths at which a dimension has prefixes (or suffixes), ascending. */
struct lengths {
    uint32_t *items;
    uint32_t n, cap;
};

struct key_table {
    uint8_t *bytes; /* of struct key; the first unit is unused */
    size_t len, cap;
    uint32_t n; /* keys */
    struct slot *slots;
    uint32_t mask;
    struct lengths prefixes[DIM_COUNT], suffixes[DIM_COUNT];
    struct lengths blocks[2]; /* prefix lengths in bits: IPv4, IPv6 */
    uint32_t any[DIM_COUNT], absent[DIM_COUNT];
    bool has_exact[DIM_COUNT];
};

/* --- rules -------------------------------------------------------------------------------------*/
/* A list of keys, ascending: one key in place, more in policy.pool (see policy_run_keys). */
struct run {
    uint32_t at, n;
};

/* A part of policy.pool. */
struct span {
    uint32_t at, n;
};

/* A list and its not_ list, as keys in ascending order. */
struct clause {
    struct run pos, neg;
};

enum { FROM_CLAUSES = 3, TO_CLAUSES = 4 };
struct from {
    struct clause principal, domain, source;
};
struct to {
    struct clause port, path, host, method;
};

struct rule {
    char *name;   /* owned */
    uint64_t key; /* policy_key_of_rule */
    unsigned line;
    uint8_t action; /* enum conf_action */
    struct clause target;
    uint32_t from_at, n_from; /* in policy.from */
    uint32_t to_at, n_to;
};

enum { ENTRY_NONE = -1, ENTRY_EACH = -2 };

/* One conjunction. `from` and `to` are entries of the policy, ENTRY_NONE if the rule has none, or
 * (to only) ENTRY_EACH: too many to multiply out, tried one after the other at the leaf. */
struct atom {
    uint32_t rule;
    int32_t from, to;
    uint8_t filed; /* dimensions (bits) in which it hangs on its own keys' edges */
    uint8_t check; /* dimensions with something that the edges do not say */
    uint8_t asks;  /* dimensions with positive clauses */
};

enum tree { TREE_DENY, TREE_ALLOW, TREE_REQUESTS, TREE_COUNT };

/* A leaf holds atoms, in the order of the file. Any other node
 * decides dimension `dim`. */
struct node {
    uint32_t first; /* edge, or leaf atom */
    uint32_t n;
    uint32_t any;      /* node for atoms without a clause here; 0: none */
    uint32_t min_rule; /* the first rule below */
    uint8_t dim;
    bool leaf;
    bool hashed; /* its edges are in edge_slots */
};

struct edge {
    uint32_t key, child;
};

struct edge_slot {
    uint32_t node, key, child; /* child 0: free */
};

/* The ALLOW rules whose target holds this key; KEY_NONE: those without target. */
struct allow_span {
    uint32_t key;
    struct span rules;
};

struct policy {
    struct key_table table;
    struct rule *rules;
    uint32_t n_rules;
    struct from *from;
    struct to *to;
    uint32_t n_from, n_to;
    uint32_t *pool; /* keys of all clauses */
    uint32_t n_pool, cap_pool;
    struct atom *atoms; /* while the trees are built */
    uint32_t n_atoms, cap_atoms;
    struct node *nodes; /* nodes[0] is unused */
    uint32_t n_nodes, cap_nodes;
    struct edge *edges;
    uint32_t n_edges, cap_edges;
    struct atom *leaf_atoms;
    uint32_t n_leaf_atoms, cap_leaf_atoms;
    struct edge_slot *edge_slots;
    uint32_t edge_mask;
    uint32_t roots[TREE_COUNT];     /* 0: no atoms */
    struct allow_span *allow_spans; /* for explanations; ascending by key */
    uint32_t n_allow_spans;
};

/* --- keys (policy_keys.c) ----------------------------------------------------------------------*/
/* The key of an item, made if it is new. -1: it is no pattern. */
int policy_key_of_pattern(struct key_table *t, enum dim dim, const char *item, uint32_t *ret,
                          struct err *err);
uint32_t policy_key_of_port(struct key_table *t, uint16_t port);
uint32_t policy_key_of_block(struct key_table *t, const struct conf_cidr *block);
uint32_t policy_key_of_absent(struct key_table *t, enum dim dim);
/* After the last key: -1 if patterns contain each other more deeply than a question can hold. */
int policy_keys_finish(struct key_table *t, struct err *err);
void policy_keys_deinit(struct key_table *t);
static inline const struct key *policy_key(const struct key_table *t, uint32_t key)
{
    return (const struct key *)(const void *)(t->bytes + (size_t)key * KEY_ALIGN);
}
static inline const uint32_t *policy_run_keys(const struct policy *p, const struct run *r)
{
    return r->n == 1 ? &r->at : p->pool + r->at;
}

/* What a question matches in one dimension. */
struct match {
    uint32_t keys[MATCH_MAX];
    uint32_t n;
    bool ready;
    bool missing; /* the fact is not known */
};

/* A question on its way; on the asker's stack. */
struct ask {
    const struct policy *policy;
    const struct policy_query *query;
    uint32_t best; /* the first rule found so far; UINT32_MAX: none */
    struct match matches[DIM_COUNT];
};

void policy_ask_init(struct ask *a, const struct policy *p, const struct policy_query *q);
const struct match *policy_ask_match(struct ask *a, enum dim dim);
/* Whether a value's keys and a list have one in common. */
bool policy_match_meets(const struct policy *p, const struct match *m, const struct run *list);

/* --- clauses (policy.c) ------------------------------------------------------------------------*/
static inline bool dim_is_request(enum dim dim)
{
    return dim == DIM_PATH || dim == DIM_HOST || dim == DIM_METHOD;
}
static inline bool dim_is_identity(enum dim dim)
{
    return dim == DIM_PRINCIPAL || dim == DIM_DOMAIN;
}
const struct clause *policy_from_clause(const struct from *f, enum dim dim);
const struct clause *policy_to_clause(const struct to *t, enum dim dim);
/* docs/authorization.md, "What is not known", for each of the two lists. An absent list holds. */
bool policy_list_holds(struct ask *a, enum dim dim, const struct run *pos, enum conf_action action);
bool policy_not_list_holds(struct ask *a, enum dim dim, const struct run *neg,
                           enum conf_action action);

/* --- what a rule says, as a number (policy_compare.c) */
uint64_t policy_key_of_rule(const struct conf_rule *r);

/* --- what cannot be compiled yet (policy_pending.c) */
int policy_check_pending(const struct conf_policy *conf, struct err *err);

/* --- the tree (policy_build.c) -----------------------------------------------------------------*/
void policy_build(struct policy *p);
uint32_t policy_edge_hash(uint32_t node, uint32_t key);

#endif
