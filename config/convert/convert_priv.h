/*
 * What the files of policy_convert share. A conversion owns a arena; everything that is made on the
 * way lives in it and goes with it.
 *
 *   convert.c    files -> objects by kind; the whole order of events
 *   arena.c      texts, lists, entries: how they are put together
 *   fields.c     reading objects: keys that are known, lists of texts, items that a policy takes
 *   workloads.c  manifests -> who has which labels; labels -> identities
 *   own.c        the one workload that a proxy reads for
 *   istio.c  istio_source.c  istio_operation.c  istio_when.c   AuthorizationPolicy
 *   peer_auth.c  PeerAuthentication; peer_own.c: held against the ports of one workload
 *   network.c    NetworkPolicy
 *   implied.c    what is allowed because nothing is said of it
 *   write.c      rules -> text
 *   source.c  source_own.c  source_text.c   a policy out of a file, ours or theirs; who reads it,
 *                and that as a text
 */
#ifndef POSTERN_CONVERT_PRIV_H
#define POSTERN_CONVERT_PRIV_H

#include <postern/conf_tree.h>
#include <postern/policy_convert.h>

enum {
    CONVERT_OBJECTS_MAX = 20000,
    CONVERT_ENTRIES_MAX = 2000,    /* of one rule */
    CONVERT_LIST_MAX = 2000,       /* items of one list */
    CONVERT_PORTS_MAX = 1000,      /* of one range */
    CONVERT_MEMORY_MAX = 64 << 20, /* of what alternatives take */
    CONVERT_TEXT_MAX = 8 << 20,    /* twice of what a file can be */
};

/* --- the arena and what is in it ---------------------------------------------------------------
 */
struct arena_block;
struct arena {
    struct arena_block *blocks;
    size_t taken;
};
void *arena_take(struct arena *p, size_t n) __attribute__((returns_nonnull));
char *arena_text(struct arena *p, struct str s) __attribute__((returns_nonnull));
char *arena_printf(struct arena *p, const char *fmt, ...)
    __attribute__((returns_nonnull, format(printf, 2, 3)));
void arena_deinit(struct arena *p);

/* Adding never changes what another list may share of an array, so lists are copied by assignment.
 */
struct texts {
    const char *const *items;
    size_t n;
};
void texts_add(struct arena *p, struct texts *t, const char *text);
/* Not twice. */
void texts_add_new(struct arena *p, struct texts *t, const char *text);
bool texts_have(const struct texts *t, const char *text);

enum list_key {
    LIST_PRINCIPALS, /* of `from` */
    LIST_NOT_PRINCIPALS,
    LIST_NAMESPACES,
    LIST_NOT_NAMESPACES,
    LIST_SERVICE_ACCOUNTS,
    LIST_TRUST_DOMAINS,
    LIST_IP_BLOCKS,
    LIST_NOT_IP_BLOCKS,
    LIST_PORTS, /* of `to` */
    LIST_NOT_PORTS,
    LIST_METHODS,
    LIST_NOT_METHODS,
    LIST_HOSTS,
    LIST_NOT_HOSTS,
    LIST_PATHS,
    LIST_NOT_PATHS,
    N_LISTS
};
enum named_key { NAMED_CLAIMS, NAMED_NOT_CLAIMS, NAMED_HEADERS, NAMED_NOT_HEADERS, N_NAMED };
struct key_info {
    const char *name;
    bool from, negative, request;
};
extern const struct key_info list_keys[N_LISTS];
extern const struct key_info named_keys[N_NAMED];

struct named {
    const char *name;
    struct texts values; /* none: that it is there */
};
struct named_list {
    const struct named *items;
    size_t n;
};
/* All that is in it has to hold; of `from` or of `to`. */
struct entry {
    struct texts lists[N_LISTS];
    struct named_list named[N_NAMED];
};
/* One of them is enough. */
struct entries {
    const struct entry *items;
    size_t n;
};
struct entries entries_all(struct arena *p); /* one entry that asks for nothing */
struct entries entries_list(struct arena *p, enum list_key key, const struct texts *items);
struct entries entries_named(struct arena *p, enum named_key key, const char *name,
                             const struct texts *values);
enum entries_outcome { ENTRIES_OK, ENTRIES_TOO_MANY, ENTRIES_TWICE };
enum entries_outcome entries_or(struct arena *p, struct entries *e, const struct entries *other);
/* Both hold. TWICE: *ret_key is what both ask for, which one entry cannot. */
enum entries_outcome entries_and(struct arena *p, struct entries *e, const struct entries *other,
                                 const char **ret_key);
bool entry_is_empty(const struct entry *e);
bool entry_wants_request(const struct entry *e);

struct rule {
    const char *name;
    const char *comment; /* one line */
    const char *reason;  /* likewise, and short: for logs */
    unsigned line;       /* of what it was made from; 0: of nothing in the file */
    enum conf_action action;
    bool dry_run;
    struct texts targets; /* none: every workload */
    struct entries from, to;
};

/* --- objects ---------------------------------------------------------------------------------- */
struct object {
    const struct conf_documents *docs;
    const struct node *map;
    const char *kind, *name, *ns;
};
struct objects {
    struct object *items; /* owned */
    size_t n, cap;
};

struct pod_port {
    const char *name; /* NULL: none */
    uint16_t port;
    struct pod_port *next;
};
struct workload {
    const struct object *object;
    const char *ns, *account, *id;
    const struct node *labels; /* NULL: none */
    struct pod_port *ports;
};

/* Which workloads are spoken of. */
struct scope {
    bool all;
    bool none;        /* one workload reads, and it is not selected */
    const char *ns;   /* not NULL: all of this namespace */
    struct texts ids; /* else these */
};

/* Of one kind of policy: what restricts whom, so that what is left can be told. */
struct coverage {
    bool all, any;
    struct texts namespaces, ids;
};

struct policy_convert {
    struct policy_convert_options options;
    struct conf_diag *errors, *doubts;         /* of the options, or own_* */
    struct conf_diag *own_errors, *own_doubts; /* owned */
    struct arena arena;
    struct conf_documents **docs; /* owned */
    size_t n_docs;
    struct objects istio, peers, network, others; /* by kind */
    struct workload *workloads;                   /* owned */
    size_t n_workloads;
    struct texts namespaces; /* that anything speaks of */
    struct coverage coverage;
    const struct node *own_labels; /* of the one workload that reads; NULL: not known */
    struct rule *rules;            /* owned */
    size_t n_rules, cap_rules;
    struct texts head; /* comments before the policy, lines */
};

/* An error, or a doubt, about a node of an object. */
#define convert_fail(o, at, expected, advice, ...)                                                 \
    conf_documents_report((o)->docs, CONF_ERROR, (at), (expected), (advice), __VA_ARGS__)
#define convert_doubt(o, at, advice, ...)                                                          \
    conf_documents_report((o)->docs, CONF_DOUBT, (at), NULL, (advice), __VA_ARGS__)

void convert_rule(struct policy_convert *c, const struct rule *rule);
/* For every name of several rules: NAMESPACE/NAME, with a number from the second on. */
const char *convert_rule_name(struct policy_convert *c, const struct object *o, size_t number);
const char *convert_comment(struct policy_convert *c, const struct object *o,
                            const struct node *at);
const char *convert_reason(struct policy_convert *c, const struct object *o, size_t number,
                           const struct node *at);

/* --- fields ----------------------------------------------------------------------------------- */
/* The value under a key, NULL where it is not there or null. */
const struct node *field_get(const struct node *map, const char *key);
const char *field_text(const struct node *map, const char *key); /* NULL: no text */
/* It is a mapping, else that was reported. */
bool field_is_map(const struct object *o, const struct node *n, const char *what);
bool field_is_list(const struct object *o, const struct node *n, const char *what);
/* And no longer than CONVERT_LIST_MAX. */
bool field_is_short_list(const struct object *o, const struct node *n, const char *what);
/* The first element of a list that may be empty or not there; what is no list is reported, and
 * *sound is false then. */
const struct node *field_first(const struct object *o, const struct node *n, const char *what,
                               bool *sound);
/* Reports every key that is not among the names, which end at NULL; true if there is none. */
bool field_only(const struct object *o, const struct node *map, const char *what,
                const char *const *names);
/* Whether a policy takes the text as an item of this list; else that was reported at the node. */
bool field_item(const struct object *o, const struct node *at, enum list_key key, const char *text);
bool field_named(const struct object *o, const struct node *at, enum named_key key,
                 const char *name, const char *text);
bool field_port(const struct object *o, const struct node *n, uint16_t *ret);
/* A text that is safe in a comment and in a message. */
const char *field_shown(struct policy_convert *c, struct str text);
/* Of a namespace or an account: what can be a segment of an identity. */
bool field_is_segment(const char *text);

/* --- workloads -------------------------------------------------------------------------------- */
void workloads_read(struct policy_convert *c);
/* False: it was reported. Only Kubernetes has expressions. */
bool selector_is_sound(const struct object *o, const struct node *selector, bool expressions);
bool selector_is_empty(const struct node *selector);
bool selector_matches(const struct node *selector, const struct node *labels);
/* The identities of the workloads that it selects in any of the namespaces (none: in every one).
 * False: none is known, or an identity is shared with a workload that is not selected. */
bool selector_ids(struct policy_convert *c, const struct object *o, const struct node *selector,
                  const struct texts *namespaces, bool target, struct texts *ret);
const char *workload_pattern(struct policy_convert *c, const char *ns); /* all of a namespace */
void scope_targets(struct policy_convert *c, const struct scope *s, struct texts *ret);
void coverage_add(struct policy_convert *c, const struct scope *s);

/* --- the one workload that reads ---------------------------------------------------------------
 */
void own_read(struct policy_convert *c);
/* Whether the labels of the one workload that reads decide about the selector; *ret is whom it is
 * about then. root: also in other namespaces than the object's. */
bool own_selects(struct policy_convert *c, const struct object *o, const struct node *selector,
                 bool root, struct scope *ret);
/* What to do where labels select nobody. */
const char *own_advice(const struct policy_convert *c, bool target);

/* --- kinds ------------------------------------------------------------------------------------ */
void istio_convert(struct policy_convert *c, const struct object *o);
struct istio_rule {
    const struct object *object;
    enum conf_action action;
    struct policy_convert *c;
};
/* And-ed to what is there; false: it was reported. */
bool istio_source(struct istio_rule *r, const struct node *source, struct entries *from);
bool istio_operation(struct istio_rule *r, const struct node *operation, struct entries *to);
bool istio_when(struct istio_rule *r, const struct node *condition, struct entries *from,
                struct entries *to);
/* One list of a source, by the name of the attribute, as `when` has it too. */
bool istio_identity(struct istio_rule *r, const struct node *list, enum list_key key,
                    struct entries *from);
bool istio_accounts(struct istio_rule *r, const struct node *list, bool negative,
                    struct entries *from);
bool istio_request_principals(struct istio_rule *r, const struct node *list, bool negative,
                              struct entries *from);
bool istio_blocks(struct istio_rule *r, const struct node *list, bool negative,
                  struct entries *from);
bool istio_ports(struct istio_rule *r, const struct node *list, bool negative, struct entries *to);
/* entries_and, with what it cannot told at the node. */
bool istio_and(const struct istio_rule *r, const struct node *at, struct entries *e,
               const struct entries *other);

void peer_auth_convert(struct policy_convert *c);
enum peer_mode { MODE_UNSET, MODE_DISABLE, MODE_PERMISSIVE, MODE_STRICT };
/* A mapping with `mode`, or NULL. False: it was reported. */
bool peer_read_mode(const struct object *o, const struct node *map, enum peer_mode *ret);
bool peer_is_sound(struct policy_convert *c, const struct object *o);
/* What counts for a port of a workload, of what is said near it: the mesh, the namespace, it. */
enum peer_mode peer_mode_of(const struct object *const levels[3]);
enum peer_mode peer_mode_of_port(const struct object *nearest, uint16_t port, enum peer_mode all);
/* False: there are two that speak of the same, which was reported. */
bool peer_find_levels(struct policy_convert *c, const char *ns, const struct node *labels,
                      const char *who, const struct object *levels[3]);
void peer_own_check(struct policy_convert *c);
void network_convert(struct policy_convert *c, const struct object *o);
void implied_allow(struct policy_convert *c);

int write_policy(struct policy_convert *c, struct buf *out, struct err *err);
/* A text in double quotes. */
bool write_quoted(struct buf *out, const char *text);

#endif
