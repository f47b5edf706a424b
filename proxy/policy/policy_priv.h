/*
 * policy_priv: the compiled form, shared by the files of this room.
 *
 * Every item of every list ("spiffe://td/x", "/orders/" + star, 10.0.0.0/8, 8080) is a *key*: a
 * number, the same for equal items of one dimension. A question is turned into the keys that it
 * matches, dimension by dimension and only when a dimension is reached. An *atom* is one
 * conjunction of a rule: its target, one of its from entries, one of its to entries. Of each key it
 * is known, as a set of bits, which atoms ask for it and which exclude it; who wants to know which
 * atoms hold unites the sets of the keys that match, fact by fact, and intersects the facts, 512
 * atoms (a *line*) at a time.
 */
#ifndef POSTERN_POLICY_PRIV_H
#define POSTERN_POLICY_PRIV_H

#include <postern/policy.h>

/* In the order in which facts are asked for: what tells most rules apart comes first. */
enum dim {
    DIM_TARGET,
    DIM_PRINCIPAL,
    DIM_PORT,
    DIM_SOURCE,
    DIM_ACCOUNT,
    DIM_NAMESPACE,
    DIM_DOMAIN,
    DIM_PATH,
    DIM_GRPC,
    DIM_HOST,
    DIM_METHOD,
    DIM_PLAIN_COUNT, /* those before have one value, those behind have values by name */
    DIM_CLAIM = DIM_PLAIN_COUNT,
    DIM_QUERY,
    DIM_HEADER,
    DIM_COUNT,
    DIM_NAMED_COUNT = DIM_COUNT - DIM_PLAIN_COUNT,
};

enum form {
    FORM_EXACT,
    FORM_PREFIX, /* of a block: its first prefix_len bits */
    FORM_SUFFIX,
    FORM_ANY,   /* "*": whatever is there */
    FORM_SHAPE, /* by segments: a glob or a template */
    FORM_NAME,  /* of a header, parameter or claim, whatever its value is */
};

enum {
    KEY_NONE = 0,
    /* The keys that one value can match in one dimension: exact, "*", patterns that contain each
     * other, and one a shape. More is refused at load. */
    NESTING_MAX = 46,
    SHAPES_MAX = 64, /* of one dimension */
    MATCH_MAX = NESTING_MAX + 2 + SHAPES_MAX,
    SEGMENTS_MAX = 64, /* of a glob or template */
    KEY_ALIGN = 4,
    SOURCE_LEN = 17, /* family and 16 bytes of address */
    /* Of one question: a request with more is not known. */
    NAMED_VALUES_MAX = 64,
    NAMED_KEYS_MAX = 192,
    QUERY_ROOM = 4096, /* decoded parameters of which rules speak */
};

/* A set of atoms: one (n is SET_ONE, `at` its position), or the lines that are not empty, in
 * policy.set_lines and policy.set_bits. A position is line * LINE_BITS + bit. */
struct set {
    uint32_t at, n;
};
enum { SET_ONE = 0x7fffffff };
enum { SET_POS, SET_POS_SECOND, SET_NEG, SETS_A_KEY };

/* A key's number is where it stands in key_table.bytes, in units of KEY_ALIGN: what a look-up finds
 * in a slot leads to dimension, form, text and sets at once, in one or two cache lines. */
struct key {
    uint32_t hash; /* lower half of the hash of dimension, form and text */
    uint32_t len;
    uint32_t no; /* of all keys, from 0 */
    uint8_t dim;
    uint8_t form;
    uint8_t prefix_len; /* DIM_SOURCE; FORM_SHAPE: which shape */
    uint8_t name_len;   /* dimensions with names: how much of the text is the name */
    struct set sets[SETS_A_KEY];
    /* Bits of parts (PART_BITS) in which they have something; SET_NEG: which it excludes whole. */
    uint32_t parts[SETS_A_KEY];
    /* A pattern without its star; hosts in lower case. With a name: name, NUL, pattern. Of a shape:
     * its fixed segments, each with a / behind. Terminated. */
    char text[];
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

/* Segments before a "**", of which some (wild) may be any, and fixed ones behind it. */
struct shape {
    uint64_t wild;
    uint8_t dim, n_before, n_after;
    bool rest;
};

struct key_table {
    uint8_t *bytes; /* of struct key; the first unit is unused */
    size_t len, cap;
    uint32_t n; /* keys */
    struct slot *slots;
    uint32_t mask;
    /* A bit for each tag, at most an eighth of them set: most of what is looked up is not there,
     * and this is small enough to stay near. NULL: so are the slots. */
    uint64_t *filter;
    uint32_t filter_mask; /* of bits */
    struct lengths prefixes[DIM_COUNT], suffixes[DIM_COUNT];
    struct lengths blocks[2]; /* prefix lengths in bits: IPv4, IPv6 */
    uint32_t any[DIM_PLAIN_COUNT];
    bool has_exact[DIM_COUNT];
    struct shape shapes[3 * SHAPES_MAX];
    uint32_t n_shapes;
    uint32_t n_shapes_of[DIM_PLAIN_COUNT];
    /* Of names that rules speak of: a name of another length is not looked up. */
    uint64_t name_lengths[DIM_NAMED_COUNT];
};

/* --- rules -------------------------------------------------------------------------------------*/
/* A list of keys, ascending: one key in place, more in policy.pool (see policy_run_keys). */
struct run {
    uint32_t at, n;
};
/* A part of an array. */
struct span {
    uint32_t at, n;
};
/* A list and its not_ list. */
struct clause {
    struct run pos, neg;
};
/* One element of a list with names, in policy.items. */
struct named_item {
    uint32_t name; /* key */
    struct run values;
    bool present; /* instead of values */
};
struct named {
    struct span pos, neg;
};

enum { FROM_CLAUSES = 5, TO_CLAUSES = 5 };
struct from {
    struct clause principal, ns, account, domain, source;
    struct named claims;
};
struct to {
    struct clause port, method, host, path, grpc;
    struct named query, headers;
};

struct rule {
    char *name;        /* owned */
    char *reason;      /* owned; NULL: none */
    uint64_t key;      /* policy_key_of_rule */
    int64_t expires_s; /* 0: never */
    unsigned line;
    uint8_t action; /* enum conf_action */
    uint8_t mode;   /* enum conf_rule_mode */
    struct clause target;
    uint32_t from_at, n_from; /* in policy.from */
    uint32_t to_at, n_to;
};

enum { ENTRY_NONE = -1, ENTRY_EACH = -2 };

enum {
    ATOM_EXPIRES = 1, /* the rule has an end */
    ATOM_EACH = 2,    /* its to entries are looked for on their own: too many to multiply out */
    ATOM_NAMED = 4,   /* its clauses with names are more than the sets say */
};

/* One conjunction. `from` and `to` are entries of the policy, ENTRY_NONE if the rule has none. */
struct atom {
    uint32_t rule;
    int32_t from, to; /* ENTRY_EACH: at each_span of the rule */
    uint8_t flags;
};

/* Kinds of rules that are looked for separately. Atoms stand in the order of the file in each. */
enum section {
    SECTION_DENY,
    SECTION_ALLOW,
    SECTION_AUDIT,
    SECTION_DRY_DENY,
    SECTION_DRY_ALLOW,
    SECTION_REQUESTS, /* entries with request clauses, by target and port alone */
    SECTION_EACH,     /* to entries of rules that are not multiplied out */
    SECTION_COUNT
};

enum { LINE_BITS = 512, LINE_WORDS = LINE_BITS / 64 };
struct line {
    uint64_t words[LINE_WORDS];
};

/* What the facts are matched with: a row a dimension, two where an atom can have several clauses
 * of it. */
enum {
    NAMED_SLOTS = 2,
    ROW_COUNT = DIM_PLAIN_COUNT + NAMED_SLOTS * DIM_NAMED_COUNT,
    ROWS_PLAIN = (1 << DIM_PATH) - 1, /* bits of those that are not about requests */
};

/* Atoms of one section that ask about the same facts, so that a question that none of them can
 * answer is over at once; what is left is one more. In the order of the file. */
struct part {
    uint32_t first_line, n_lines;
    uint32_t first_atom, n_atoms;
    uint32_t rows;      /* bits: some atom asks for something there */
    uint32_t rows_full; /* bits: every atom does */
    uint32_t negs;      /* bits by dimension: some atom excludes something */
};

/* Parts have bits, by which a question knows at once in which of them it need not look. A bit that
 * several parts share says of each what holds for all of them. */
enum { PART_BITS = 32 };
struct section_index {
    uint32_t parts;           /* those with atoms */
    uint32_t rows;            /* bits: some part's atoms all ask for something there */
    uint32_t full[ROW_COUNT]; /* which parts' */
    uint32_t excluded;        /* bits by dimension: some key excludes a whole part there */
    uint32_t excluded_parts[DIM_COUNT]; /* which parts */
};

/* The EACH atoms of a rule. */
struct each {
    uint32_t rule;
    uint32_t first_line, n_lines, first_atom;
};

struct policy {
    struct key_table table;
    struct rule *rules;
    uint32_t n_rules;
    struct from *from;
    struct to *to;
    uint32_t n_from, n_to;
    struct named_item *items;
    uint32_t n_items, cap_items;
    uint32_t *pool; /* keys of all clauses */
    uint32_t n_pool, cap_pool;
    struct atom *atoms;
    uint32_t n_atoms, cap_atoms;
    struct part *parts;
    uint32_t n_parts;
    struct span sections[SECTION_COUNT]; /* of parts; REQUESTS and EACH have exactly one */
    struct section_index index[SECTION_COUNT];
    struct each *each;
    uint32_t n_each, cap_each;
    uint32_t n_lines;
    uint32_t *set_lines;
    struct line *set_bits;
    uint32_t *set_runs;           /* so many lines from this one on hold all atoms that there are */
    struct line *valid;           /* where there are atoms */
    struct line *none[ROW_COUNT]; /* that ask for nothing there; NULL: no atom asks */
    struct line *negs[DIM_COUNT]; /* that exclude something there; NULL: none does */
    struct line *requests;        /* that have a clause about requests; NULL: none has */
    int64_t *ends;                /* of rules, ascending, each once */
    uint32_t n_ends;
    bool asks[DIM_COUNT]; /* some rule has a clause there */
};

/* --- keys (policy_keys.c) ----------------------------------------------------------------------*/
/* The key of an item, made if it is new. `name`: of dimensions with names. -1: it is no pattern. */
int policy_key_of_pattern(struct key_table *t, enum dim dim, const char *name, const char *item,
                          uint32_t *ret, struct err *err);
uint32_t policy_key_of_name(struct key_table *t, enum dim dim, const char *name);
uint32_t policy_key_of_port(struct key_table *t, uint16_t port);
uint32_t policy_key_of_block(struct key_table *t, const struct conf_cidr *block);
/* After the last key: -1 if patterns contain each other more deeply than a question can hold. */
int policy_keys_finish(struct key_table *t, struct str *ret_pattern, struct err *err);
void policy_keys_deinit(struct key_table *t);
/* How much room a key with a text of this length takes. */
static inline size_t policy_key_size(size_t len)
{
    return (sizeof(struct key) + len + 1 + KEY_ALIGN - 1) / KEY_ALIGN * KEY_ALIGN;
}
static inline const struct key *policy_key(const struct key_table *t, uint32_t key)
{
    return (const struct key *)(const void *)(t->bytes + (size_t)key * KEY_ALIGN);
}
static inline const uint32_t *policy_run_keys(const struct policy *p, const struct run *r)
{
    return r->n == 1 ? &r->at : p->pool + r->at;
}

/* --- hashing and segments, for keys and values (policy_hash.c) ---------------------------------*/
/* Whether a key with this hash can be there. */
static inline bool policy_keys_may_have(const struct key_table *t, uint64_t hash)
{
    uint32_t bit = (uint32_t)(hash >> 32) & t->filter_mask;
    return t->filter == NULL || (t->filter[bit / 64] >> bit % 64 & 1U) != 0;
}
uint32_t policy_keys_find(const struct key_table *t, enum dim dim, enum form form,
                          uint8_t prefix_len, struct str name, const uint8_t *text, size_t len,
                          uint64_t running);
/* A value by segments: the first ones and the last ones, however many there are. */
struct segments {
    struct str first[SEGMENTS_MAX];
    struct str last[SEGMENTS_MAX]; /* of number i: last[i % SEGMENTS_MAX] */
    size_t n;
};
/* What stands behind "/" or "spiffe://". False: it begins otherwise, and no shape holds it. */
bool policy_segments_split(enum dim dim, struct str value, struct segments *ret);
uint64_t policy_shape_hash(const struct shape *s, const struct segments *v);
bool policy_shape_key_is(const struct key *k, const struct shape *s, const struct segments *v);

struct address {
    uint8_t bytes[SOURCE_LEN]; /* 4 or 6, then the address */
    uint8_t prefix_len;
};
/* The bits behind prefix_len are not cleared. IPv4 written as IPv6 becomes IPv4. */
void policy_address_set(struct address *a, int family, const uint8_t *bytes, uint8_t prefix_len);
bool policy_address_of(const struct sockaddr *sa, struct address *ret);
void policy_address_cut(struct address *a, uint8_t prefix_len);
uint64_t policy_address_hash(const uint8_t *bytes, uint8_t prefix_len);

/* --- what a question matches (policy_match.c, policy_named.c) ----------------------------------*/
enum known {
    KNOWN,
    NOT_THERE, /* known to be none: positive clauses are false */
    NOT_KNOWN, /* may be anything */
};

struct match {
    uint32_t keys[MATCH_MAX];
    uint32_t n;
    bool ready;
    uint8_t known; /* enum known */
};

/* One value of a header, parameter or claim of which rules speak. */
struct named_value {
    uint32_t name;  /* key; values of one name stand side by side */
    uint16_t at, n; /* its keys, the name's own first */
};
struct named_match {
    struct named_value values[NAMED_VALUES_MAX];
    uint32_t keys[NAMED_KEYS_MAX];
    uint32_t n_values, n_keys;
    bool ready;
    uint8_t known;
};

/* A set on its way through the lines. */
struct op {
    uint32_t at;   /* the line in which it has something next; UINT32_MAX: none */
    uint32_t i, n; /* in policy.set_lines; n SET_ONE: i is a position */
    uint8_t group; /* 0, or OP_GROUPED and what ends with it */
};
enum { OP_GROUPED = 1, OP_VALUE_ENDS = 2, OP_NAME_ENDS = 4 };
enum { OPS_MAX = 512 };

/* What only questions to policies need that ask about values with names. */
struct ask_named {
    struct named_match matches[DIM_NAMED_COUNT];
    char query_room[QUERY_ROOM];
};

/* A question on its way; on the asker's stack. */
struct ask {
    const struct policy *policy;
    const struct policy_query *query;
    struct ask_named *named; /* lent; NULL: the policy does not ask for such */
    struct match matches[DIM_PLAIN_COUNT];
    struct op ops[OPS_MAX];
    uint32_t n_ops;
};

/* named: NULL unless policy_asks_named. */
void policy_ask_init(struct ask *a, struct ask_named *named, const struct policy *p,
                     const struct policy_query *q);
static inline bool policy_asks_named(const struct policy *p)
{
    return p->asks[DIM_CLAIM] || p->asks[DIM_QUERY] || p->asks[DIM_HEADER];
}
const struct match *policy_ask_match(struct ask *a, enum dim dim);
const struct named_match *policy_ask_named(struct ask *a, enum dim dim);
/* The keys of one text; for facts and for values with a name. */
uint32_t policy_match_text(const struct key_table *t, enum dim dim, struct str name,
                           struct str value, uint32_t *keys, uint32_t max);
uint32_t policy_match_name(const struct key_table *t, enum dim dim, struct str name);
/* The peer itself, its trust domain, namespace or account; empty: it has none. */
struct str policy_identity_part(struct str id, enum dim dim);
struct str policy_grpc_method(struct str path);
/* Of a dimension that has one, as it is looked up; empty: it is not there. */
struct str policy_fact_value(const struct policy_query *q, enum dim dim);
/* Whether a value's keys and a list have one in common. */
bool policy_keys_meet(const struct policy *p, const uint32_t *keys, uint32_t n,
                      const struct run *list);

/* --- clauses (policy_clauses.c) ----------------------------------------------------------------*/
static inline bool dim_is_request(enum dim dim)
{
    return dim >= DIM_PATH;
}
static inline bool dim_is_named(enum dim dim)
{
    return dim >= DIM_PLAIN_COUNT;
}
const struct clause *policy_from_clause(const struct from *f, enum dim dim);
const struct clause *policy_to_clause(const struct to *t, enum dim dim);
const struct named *policy_to_named(const struct to *t, enum dim dim);
bool policy_to_is_request(const struct to *t);
/* docs/authorization.md, "What is not known": whether what is missing counts as true. */
static inline bool action_grants(enum conf_action action)
{
    return action == CONF_ALLOW;
}
/* Each of the two lists of a plain dimension. An absent list holds. */
bool policy_list_holds(struct ask *a, enum dim dim, const struct run *pos, enum conf_action action);
bool policy_not_list_holds(struct ask *a, enum dim dim, const struct run *neg,
                           enum conf_action action);
/* One element of a list with names, positive or of a `not`. */
bool policy_item_holds(struct ask *a, enum dim dim, const struct named_item *item, bool negative,
                       enum conf_action action);
/* All of an atom, one clause after the other. */
bool policy_atom_holds(struct ask *a, const struct atom *atom);
bool policy_has_ended(const struct rule *r, const struct policy_query *q);

/* --- what a rule says, as a number (policy_compare.c) */
uint64_t policy_key_of_rule(const struct conf_rule *r);

/* --- compiling and sets (policy_rules.c, policy_build.c, policy_sets.c, policy_parts.c) --------*/
int policy_compile_rules(struct policy *p, const struct conf_policy *conf, struct err *err);
void policy_build(struct policy *p);
const struct clause *policy_atom_clause(const struct policy *p, const struct atom *a, enum dim dim);
const struct named *policy_atom_named(const struct policy *p, const struct atom *a, enum dim dim);
static inline struct part *policy_part(const struct policy *p, enum section section)
{
    return &p->parts[p->sections[section].at];
}
/* Fills lines, sets and rows; atoms and parts are there. */
void policy_build_sets(struct policy *p);
/* What is known of whole parts (policy_parts.c); all else is there. */
void policy_build_index(struct policy *p);

/* --- searching (policy_search.c) ---------------------------------------------------------------*/
/* The first atom of the section that holds; UINT32_MAX: none. */
uint32_t policy_search(struct ask *a, enum section section);
/* Calls fn for the atoms of the section whose targets hold, in order, until it says false. */
void policy_search_target(struct ask *a, enum section section,
                          bool (*fn)(void *arg, const struct atom *atom), void *arg);

#endif
