/*
 * What the files of config/ share: positions, the tree of a YAML file, and the schema engine.
 *
 *   yaml.c    bytes -> struct tree       strict YAML with line and column on every node
 *   schema.c  struct tree -> C structs   driven by struct table; defaults, freeing
 *   value.c   one scalar -> one value    the types; address.c, target.c and selector.c hold some
 *   proxy.c gateway*.c mesh.c policy.c agent*.c kubernetes.c entries.c modes.c   the tables and
 *                                        what they cannot say
 *   load.c    files; kinds; the public functions
 *   split.c   struct tree -> JSON, part by part
 *   documents.c  files that are not ours -> struct tree, for whoever reads them
 *   reference.c  tables -> Markdown
 *   json_schema.c  tables -> JSON Schema
 *
 * Everything here runs on one thread and owns nothing beyond the call but what the tables fill in.
 */
#ifndef POSTERN_CONFIG_PRIV_H
#define POSTERN_CONFIG_PRIV_H

#include <postern/conf.h>
#include <postern/conf_tree.h>
#include <postern/str.h>

/* --- bounds ----------------------------------------------------------------------------------- */
enum {
    CONFIG_FILE_MAX = CONF_FILE_MAX,
    CONFIG_DEPTH_MAX = 32,
    CONFIG_NODES_MAX = 200000,
    /* Of a Policy file: one may serve a mesh, with 100,000 rules. */
    CONFIG_POLICY_FILE_MAX = CONF_POLICY_FILE_MAX,
    CONFIG_POLICY_NODES_MAX = 4000000,
    CONFIG_ERRORS_MAX = 100,
    CONFIG_SOCKET_PATH_MAX = 107, /* sun_path, less its NUL */
};

/* --- the tree --------------------------------------------------------------------------------- */
struct tree;
struct context;

/* Reports every error into the context; NULL when the text gives no tree at all. A tree with
 * errors may be returned: look at the context's count. */
struct tree *tree_parse(struct context *c, const char *text, size_t len);
/* The same of any number of documents: the root is a list of them. */
struct tree *tree_parse_documents(struct context *c, const char *text, size_t len);
struct tree *tree_free(struct tree *t);
const struct node *tree_root(const struct tree *t);
size_t tree_count(const struct tree *t); /* its values, keys included */

/* As conf_parse_policy, and what it was read from: the caller's. */
int conf_parse_policy_tree(const char *name, const char *text, size_t len, struct conf_diag *diag,
                           struct conf_policy **ret, struct tree **ret_tree);

/* --- diagnostics ------------------------------------------------------------------------------ */
/* How large a file may be; 0: as files are, CONFIG_*_MAX. */
struct bounds {
    size_t bytes, nodes;
};

/* One file being read. */
struct context {
    struct bounds bounds;
    struct conf_diag *diag;
    const char *file; /* as messages name it */
    const char *dir;  /* what relative file names in it stand against; absolute */
    unsigned file_no; /* files keep the order in which they were opened */
    unsigned level;   /* that the file says it needs; keys of a higher one are refused */
};

unsigned diag_next_file(struct conf_diag *d);
/* All errors so far, those beyond the limit included. */
size_t diag_total(const struct conf_diag *d);
void diag_add(struct conf_diag *d, unsigned file_no, unsigned line, unsigned column,
              const struct err *err);

/* An error at a place of the context's file; expected and advice may be NULL. */
void report_at(struct context *c, unsigned line, unsigned column, const char *expected,
               const char *advice, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
void report(struct context *c, const struct node *at, const char *expected, const char *advice,
            const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Text of a file as a message may hold it: in quotes, control bytes replaced, cut. */
enum { SHOWN_MAX = 72 };
struct shown {
    char text[SHOWN_MAX + 8];
};
const char *show(struct shown *s, struct str text);
/* The nearest of the words if one is near enough, else NULL. `next` gives word i or NULL. */
const char *nearest_word(struct str text, const char *(*next)(const void *set, size_t i),
                         const void *set);

/* --- the schema ------------------------------------------------------------------------------- */
enum field_type {
    TYPE_TEXT,
    TYPE_NAME, /* of a thing in a file: letters, digits, and . _ - : / */
    TYPE_BOOL,
    TYPE_WORD, /* an enum */
    TYPE_UINT,
    TYPE_SIZE,
    TYPE_DURATION_MS,
    TYPE_DURATION_S,
    TYPE_PERCENT,
    TYPE_MODE, /* of a file, octal */
    TYPE_PORT,
    TYPE_ADDRESS, /* with port */
    TYPE_IP,      /* without */
    TYPE_CIDR,
    TYPE_SPIFFE_ID,
    TYPE_ID_TEMPLATE, /* a SPIFFE ID, maybe with variables */
    TYPE_TRUST_DOMAIN,
    TYPE_PATH,
    TYPE_UNIX,     /* unix:/path */
    TYPE_LISTEN,   /* struct conf_bind */
    TYPE_TARGET,   /* struct conf_target */
    TYPE_ENDPOINT, /* likewise: an address or a name, its port may be absent */
    TYPE_DNS_NAME,
    TYPE_DNS_PATTERN, /* or *. and a name */
    TYPE_SELECTOR,
    TYPE_TIME, /* a day or a moment, in UTC: int64_t seconds since the epoch */
    TYPE_MAP,
};

struct table;

/* One key. The numbers are in the unit of the type: bytes of text for the text types, milliseconds
 * or seconds for durations. */
struct field {
    const char *name;
    enum field_type type;
    bool required;
    bool list;
    bool may_be_empty;        /* a list that may be written out as [] */
    bool may_be_single;       /* a list whose one element may be written without [ ] */
    unsigned level;           /* the feature level that it came with; 0: the first */
    size_t offset, size;      /* of the value, or of one element; size 0: checked, not stored */
    size_t n_offset;          /* lists: the count */
    uint64_t min, max;        /* both 0: the type's own */
    const char *const *words; /* TYPE_WORD: value i is words[i] */
    const char *zero_word;    /* TYPE_UINT: a word for 0, such as auto */
    const char *none_word;    /* lists: a word in their place, which sets the bool at none_offset */
    size_t none_offset;
    const struct table *table;
    const char *def;                 /* default as it would be written */
    const char *def_doc;             /* where the default is no constant */
    const char *type_doc, *expected; /* where a check narrows the type */
    bool secret;                     /* what is refused of it is not shown */
    const char *empty_advice;        /* lists: what to write instead of [] */
    bool (*check)(struct context *c, const struct field *f, const struct node *n);
    /* TYPE_MAP: what a single value in its place means; value is the struct that the field is in.
     */
    bool (*scalar)(struct context *c, const struct field *f, const struct node *n, void *value);
    const char *doc;
};

struct table {
    const char *name;
    const char *doc;
    size_t size;
    const struct field *fields;
    size_t n_fields;
    const char *empty_advice; /* not NULL: a mapping without a key is an error */
    /* What no single key can say. Values of keys that failed are zero; keys are looked up in map.
     */
    void (*check)(struct context *c, const struct node *map, void *value);
};

#define MEMBER_SIZE(type, member) sizeof(((type *)NULL)->member)
#define AT(type, member) .offset = offsetof(type, member), .size = MEMBER_SIZE(type, member)
#define LIST_AT(type, items, count)                                                                \
    .list = true, .offset = offsetof(type, items), .size = sizeof(*((type *)NULL)->items),         \
    .n_offset = offsetof(type, count)
#define FIELDS(array) .fields = (array), .n_fields = sizeof(array) / sizeof((array)[0])

/* Fills the zeroed struct at value; every error is reported. */
void schema_parse(struct context *c, const struct table *t, const struct node *n, void *value);
/* Frees what the struct holds, not the struct. */
void schema_clear(const struct table *t, void *value);
/* Reports every element whose key has the text of an earlier one's. */
void schema_check_unique(struct context *c, const struct node *list, const char *key,
                         const char *what);

/* The same of any scalars. Sorts them. */
void schema_check_unique_nodes(struct context *c, const struct node **nodes, size_t n,
                               const char *what);
/* A key that means nothing here would be believed to do something. `what` has it not. */
void schema_refuse_key(struct context *c, const struct node *map, const char *key, const char *what,
                       const char *advice);
void schema_require_key(struct context *c, const struct node *map, const char *key,
                        const char *what, const char *expected);
bool schema_word_is(const struct node *map, const char *key, const char *word);

/* That what is at the node came with a later level than the file's: always false. */
bool schema_refuse_level(struct context *c, const struct node *at, unsigned level,
                         const char *what);

/* One scalar into *dst; false when it was reported. */
bool value_parse(struct context *c, const struct field *f, const struct node *n, void *dst);
void value_clear(const struct field *f, void *dst);
/* "'key' is 'value', WHY", with what the type expects. */
void value_fail(struct context *c, const struct field *f, const struct node *n, const char *advice,
                const char *why);
bool value_parse_address(struct context *c, const struct field *f, const struct node *n, void *dst);
bool value_parse_ip(struct context *c, const struct field *f, const struct node *n, void *dst);
bool value_parse_cidr(struct context *c, const struct field *f, const struct node *n, void *dst);
bool value_parse_selector(struct context *c, const struct field *f, const struct node *n,
                          void *dst);
bool value_parse_listen(struct context *c, const struct field *f, const struct node *n, void *dst);
bool value_parse_target(struct context *c, const struct field *f, const struct node *n, void *dst);
bool value_parse_endpoint(struct context *c, const struct field *f, const struct node *n,
                          void *dst);
bool value_parse_dns_name(struct context *c, const struct field *f, const struct node *n,
                          void *dst);
bool value_is_lower_dns_name(struct str text);
bool value_parse_dns_pattern(struct context *c, const struct field *f, const struct node *n,
                             void *dst);
bool value_parse_time(struct context *c, const struct field *f, const struct node *n, void *dst);
/* The path behind unix:, which is checked; false when it was reported. */
bool value_take_unix(struct context *c, const struct field *f, const struct node *n,
                     struct str *ret_path);
bool value_is_unix(struct str text);
/* enum conf_selector_type by a selector's words; -1: none. */
int selector_type(struct str text);
/* The type in words: for messages, and for the reference. */
void value_expected(const struct field *f, char *ret_text, size_t size);
void value_type_doc(const struct field *f, struct buf *out);

/* Rows of a table for a struct conf_expiry; the owner's check calls expiry_check. Defaults NULL:
 * what the wider one says, in words. */
#define EXPIRY_FIELDS(base, member, def_on, def_grace, def_spread, widely)                         \
    {.name = "on_expiry",                                                                          \
     .type = TYPE_WORD,                                                                            \
     .words = words_on_expiry,                                                                     \
     AT(base, member.on),                                                                          \
     .def = (def_on),                                                                              \
     .def_doc = (widely),                                                                          \
     .doc = "What happens at the end of the certificates, own or the peer's, that a connection "   \
            "was made under. `drain`: it is told to end, as far as its protocol has words for "    \
            "that, then reset. `cut`: reset. `warn`: a line in the log."},                         \
        {.name = "expiry_grace",                                                                   \
         .type = TYPE_DURATION_S,                                                                  \
         .max = 86400,                                                                             \
         AT(base, member.grace_s),                                                                 \
         .def = (def_grace),                                                                       \
         .def_doc = (widely),                                                                      \
         .doc = "How long before it is reset a connection is told to end."},                       \
        {.name = "expiry_spread",                                                                  \
         .type = TYPE_DURATION_S,                                                                  \
         .max = 86400,                                                                             \
         AT(base, member.spread_s),                                                                \
         .def = (def_spread),                                                                      \
         .def_doc = (widely),                                                                      \
         .doc = "Connections end up to so long before their certificates do, each at another "     \
                "moment. Grace and spread take half of a certificate's time at most."}
/* Of a listener that says nothing: an SVID of an hour, renewed at half of it, leaves a connection
 * 20 minutes at least. */
#define EXPIRY_GRACE "2m"
#define EXPIRY_SPREAD "5m"
extern const char *const words_on_expiry[];
/* What was said, and what does not go together. */
void expiry_check(struct context *c, const struct node *map, struct conf_expiry *e);
void expiry_check_port(struct context *c, const struct node *map, void *value);

/* Rows of a table for a struct conf_http; the owner's check calls http_check. */
#define HTTP_FIELDS(base, member, of)                                                              \
    {.name = "paths",                                                                              \
     .type = TYPE_MAP,                                                                             \
     .table = &table_http_paths,                                                                   \
     AT(base, member),                                                                             \
     .def_doc = "all is refused",                                                                  \
     .doc = of "`protocol: http` only: which paths that servers read in more than one way are "    \
               "let through."},                                                                    \
        {.name = "connect",                                                                        \
         .type = TYPE_TEXT,                                                                        \
         .max = 260,                                                                               \
         .check = http_check_connect,                                                              \
         .expected = "a host and port in lower case such as db.example:5432 or *.example:443",     \
         LIST_AT(base, member.connect, member.n_connect),                                          \
         .def_doc = "CONNECT is refused",                                                          \
         .empty_advice = "leave it out to refuse CONNECT",                                         \
         .doc = of "`protocol: http` only: what CONNECT may ask for, if policy allows it too, of " \
                   "a workload that is a proxy. `*.` stands for any labels."},                     \
        {.name = "rate_limits",                                                                    \
         .type = TYPE_MAP,                                                                         \
         .table = &table_http_rate_limit,                                                          \
         LIST_AT(base, member.rate_limits, member.n_rate_limits),                                  \
         .def_doc = "none",                                                                        \
         .empty_advice = "leave it out to have none",                                              \
         .doc = of "`protocol: http` only: how often requests may come."}
extern const struct table table_http_paths, table_http_rate_limit, table_http_general;
bool http_check_connect(struct context *c, const struct field *f, const struct node *n);
void http_check(struct context *c, const struct node *map, const struct conf_http *h);
void http_check_port(struct context *c, const struct node *map, void *value);

/* Rows of a table for a struct conf_permissive; the owner's check calls permissive_check. */
#define PERMISSIVE_FIELDS(base, member, of)                                                        \
    {.name = "mode",                                                                               \
     .type = TYPE_WORD,                                                                            \
     .words = words_plaintext_mode,                                                                \
     AT(base, member.mode),                                                                        \
     .def = "strict",                                                                              \
     .doc = of "`strict`: mTLS and nothing else. `permissive`: plaintext beside it, whose peers "  \
               "have no identity (docs/permissive.md). There is no word for all ports."},          \
        {.name = "plaintext_wait",                                                                 \
         .type = TYPE_DURATION_MS,                                                                 \
         .min = 10,                                                                                \
         .max = 5000,                                                                              \
         AT(base, member.wait_ms),                                                                 \
         .def = "300ms",                                                                           \
         .doc = of "`mode: permissive` only: how long a client may say nothing until it is taken " \
                   "for a plaintext one whose server speaks first. Not on HTTP ports."},           \
        {.name = "strict_after",                                                                   \
         .type = TYPE_DURATION_S,                                                                  \
         .min = 1,                                                                                 \
         .max = CONF_STRICT_AFTER_MAX_S,                                                           \
         AT(base, member.strict_after_s),                                                          \
         .def_doc = "never",                                                                       \
         .doc = of "`mode: permissive` only: the port turns strict by itself when no plaintext "   \
                   "that policy allows has come for so long."}
extern const char *const words_plaintext_mode[];
void permissive_check(struct context *c, const struct node *map, const struct conf_permissive *p);
void permissive_check_ports(struct context *c, const struct node *map,
                            const struct conf_listener *l, bool hbone);
/* Of a listener that has no such thing. */
void permissive_check_none(struct context *c, const struct node *map, const char *what,
                           const char *advice);
/* Of a gateway's. */
void permissive_check_server(struct context *c, const struct node *map,
                             const struct conf_listener *l);

bool sockaddr_is_loopback(const struct conf_sockaddr *a);
bool sockaddr_is_any(const struct conf_sockaddr *a);
uint16_t sockaddr_port(const struct conf_sockaddr *a);
bool sockaddr_equal(const struct conf_sockaddr *a, const struct conf_sockaddr *b);

/* --- the kinds -------------------------------------------------------------------------------- */
/* The first two keys of every file. */
#define KIND_FIELDS(kind_name)                                                                     \
    {.name = "kind",                                                                               \
     .type = TYPE_TEXT,                                                                            \
     .required = true,                                                                             \
     .type_doc = "`" kind_name "`",                                                                \
     .doc = "What this file is."},                                                                 \
        {.name = "level",                                                                          \
         .type = TYPE_UINT,                                                                        \
         .required = true,                                                                         \
         .min = 1,                                                                                 \
         .max = CONF_LEVEL,                                                                        \
         .doc =                                                                                    \
             "The feature level that the file needs; a binary that understands less refuses it."}

/* Limits of a listener that count each peer's identity by itself. */
#define IDENTITY_LIMIT_FIELDS                                                                      \
    {.name = "per_identity_connections",                                                           \
     .type = TYPE_UINT,                                                                            \
     .min = 1,                                                                                     \
     .max = 1000000,                                                                               \
     AT(struct conf_listener, limits.per_identity_connections),                                    \
     .def_doc = "any",                                                                             \
     .doc = "Open at once, of one peer's identity, over all workers; of an HBONE session its "     \
            "streams, or itself while it has none. Further ones are reset after the handshake."},  \
        {.name = "per_identity_rate",                                                              \
         .type = TYPE_UINT,                                                                        \
         .min = 1,                                                                                 \
         .max = 1000000,                                                                           \
         AT(struct conf_listener, limits.per_identity_rate),                                       \
         .def_doc = "any",                                                                         \
         .doc = "New ones a second, of one peer's identity; twice as many at once after a quiet "  \
                "time. Further ones are reset after the handshake."}
/* Where nobody shows an identity there is none to count. */
void listener_refuse_identity_limits(struct context *c, const struct node *map, const char *what);

extern const struct table table_proxy, table_gateway, table_mesh, table_policy, table_agent,
    table_entries, table_modes, table_rotate, table_policy_test, table_policy_context,
    table_agent_policy_context;
extern const struct table table_ca, table_token; /* of an Agent file */
extern const struct table table_admin, table_dataplane_admin, table_metrics, table_port,
    table_kubernetes, table_probes;
void probes_check(struct context *c, const struct node *map, const struct conf_proxy *p);
extern const struct table table_proxy_interception;
extern const struct table table_audit;
/* key_isolation.c */
void key_isolation_check(struct context *c, const struct node *map, const struct conf_proxy *p);
void interception_check(struct context *c, const struct node *map, const struct conf_proxy *p);
void transparent_check(struct context *c, const struct node *map, const struct conf_listener *l);

/* --- mesh.c ----------------------------------------------------------------------------------- */
extern const char *const words_transport[]; /* as enum conf_transport */
void listener_transport_check(struct context *c, const struct node *map,
                              const struct conf_listener *l);
extern const struct table table_agent_limits;
/* Sections that a Proxy and a Gateway have alike. */
extern const struct table table_proxy_identity, table_proxy_state, table_proxy_tls,
    table_proxy_timeouts, table_proxy_limits, table_proxy_log;
extern const struct table table_gateway_listener, table_credential, table_trust, table_peer_allow,
    table_peer_verify, table_leg_tls, table_target_check, table_gateway_targets,
    table_health; /* of a Gateway file */
/* gateway_to.c: what `to` says, once its keys are read; which transports go with what. */
void gateway_take_targets(struct context *c, const struct node *map, struct conf_listener *l);
/* Its one target, or a list. */
const struct conf_target *gateway_only_target(const struct conf_listener *l);
void gateway_check_takes(struct context *c, const struct node *map, struct conf_listener *l);
/* leg: the keys of the leg that dials: the listener's own, or a relay's `upstream`. */
void gateway_check_dials(struct context *c, const struct node *map, const struct node *leg,
                         struct conf_listener *l, bool trusts_spiffe);
/* The check of a listener's target where it does not say one; `configured`: the file has `targets`.
 */
void gateway_finish_check(struct context *c, const struct node *map, const struct conf_proxy *p,
                          bool configured, struct conf_listener *l);
/* Two that cannot both listen; a destination that leads back. `p` is whole, `list` its listeners.
 */
void listeners_check_addresses(struct context *c, const struct node *list,
                               const struct conf_proxy *p);
/* The name where there is none, and the rest of what has no constant as default. */
void proxy_finish(struct conf_proxy *p);
extern const char *const words_identity_key[];
extern const char *const words_key_isolation[];
/* Who may use the admin socket when the file does not say. */
void admin_finish(struct conf_admin *admin);

/* Of a Mesh file (mesh_outbound.c). */
extern const struct table table_unlisted_entry, table_ejection, table_service_limits;
void mesh_check_endpoints(struct context *c, const struct node *map, const struct conf_service *s);
void mesh_check_unlisted(struct context *c, const struct node *map, struct conf_mesh *m);

extern const char *const words_protocol[];
extern const char *const words_proxy_protocol[]; /* proxy_protocol.c */
/* What a listener's keys about the PROXY protocol must not say together. */
void proxy_protocol_check(struct context *c, const struct node *map, const struct conf_listener *l);
#define PROXY_PROTOCOL_IN_FIELDS(said)                                                             \
    {.name = "proxy_protocol_from",                                                                \
     .type = TYPE_CIDR,                                                                            \
     LIST_AT(struct conf_listener, proxy_protocol_from.items, proxy_protocol_from.n),              \
     .def_doc = "nobody",                                                                          \
     .empty_advice = "leave it out to take headers from nobody",                                   \
     .doc = said "Load balancers that say by a PROXY protocol header whom they speak for: what "   \
                 "comes from these addresses must begin with one, and is then treated as coming "  \
                 "from whom it names."},                                                           \
        {.name = "proxy_protocol_pass",                                                            \
         .type = TYPE_UINT,                                                                        \
         .min = 1,                                                                                 \
         .max = 255,                                                                               \
         LIST_AT(struct conf_listener, proxy_protocol_pass, n_proxy_protocol_pass),                \
         .def_doc = "none",                                                                        \
         .empty_advice = "leave it out to pass none on",                                           \
         .doc = "With `proxy_protocol_from` and `proxy_protocol: v2` and its like: types of TLVs " \
                "that go on to the target as they came: 5, or 224 to 247."}
/* Of a Proxy and a Gateway alike; policy_context.c. */
#define POLICY_FIELDS(none, what)                                                                  \
    {.name = "policy",                                                                             \
     .type = TYPE_PATH,                                                                            \
     AT(struct conf_proxy, policy_path),                                                           \
     .def_doc = (none),                                                                            \
     .doc = what ", a file of kind Policy, or of Istio's or Kubernetes' policies. Read again on "  \
                 "SIGHUP."},                                                                       \
        {.name = "policy_context",                                                                 \
         .type = TYPE_MAP,                                                                         \
         .table = &table_policy_context,                                                           \
         .doc = "What `policy` needs to know, where it is Istio's or Kubernetes'."}
/* jwt.c: of a Proxy and a Gateway alike. */
extern const struct table table_request_jwt;
void jwt_check(struct context *c, const struct node *map, const struct conf_proxy *p);
#define JWT_FIELD                                                                                  \
    {.name = "jwt",                                                                                \
     .type = TYPE_MAP,                                                                             \
     .table = &table_request_jwt,                                                                  \
     LIST_AT(struct conf_proxy, jwt.items, jwt.n),                                                 \
     .def_doc = "none",                                                                            \
     .empty_advice = "leave it out to look for no tokens",                                         \
     .doc = "Whose tokens in requests count, for `claims` of the policy. Read again on SIGHUP, "   \
            "its files also by themselves."}
extern const char *const words_log_level[];

bool reference_write(const char *kind, const struct table *t, struct buf *out);
bool json_schema_write(const char *kind, const struct table *t, struct buf *out);

#endif
