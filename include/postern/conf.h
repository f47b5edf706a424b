/*
 * conf: what a configuration file says, as plain structs.
 *
 * A file is parsed strictly and whole: either a conf_* is returned, complete and checked, with
 * every default filled in, or nothing is and the diagnostics hold every error of the file, each
 * with file:line:column. The result is immutable, owned by the caller, and freed with conf_*_free.
 * It holds no pointer into the file. Relative file names in it are made absolute against the
 * directory of the file that names them.
 *
 * Units: milliseconds for *_ms, seconds for *_s. Thread: any; no global state.
 * Lists are {items, n}; an absent list is n == 0 (and `has_*` where absent and empty differ).
 * What the kinds of file share is in conf_lists.h and conf_common.h; what a Policy, Agent or
 * Entries file says in a header of its own.
 */
#ifndef POSTERN_CONF_H
#define POSTERN_CONF_H

#include <netinet/in.h>
#include <postern/buf.h>
#include <postern/conf_agent.h>
#include <postern/conf_audit.h>
#include <postern/conf_common.h>
#include <postern/conf_entries.h>
#include <postern/conf_http.h>
#include <postern/conf_jwt.h>
#include <postern/conf_lists.h>
#include <postern/conf_permissive.h>
#include <postern/conf_policy.h>
#include <postern/conf_policy_context.h>
#include <postern/err.h>
#include <postern/log.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* The feature level that this binary understands; a file that asks for more is refused. */
enum { CONF_LEVEL = 2 };

/* --- diagnostics ------------------------------------------------------------------------------ */
struct conf_diag; /* errors by file and position; at most 100, then "and N more" */
struct conf_diag *conf_diag_new(void);
struct conf_diag *conf_diag_free(struct conf_diag *d);
size_t conf_diag_count(const struct conf_diag *d);
/* The i-th error as a struct err (where = file:line:column); lent. */
const struct err *conf_diag_get(const struct conf_diag *d, size_t i);
/* All of them, one line each. */
bool conf_diag_print(const struct conf_diag *d, struct buf *out);

/* --- Proxy ------------------------------------------------------------------------------------ */
enum conf_direction { CONF_OUTBOUND, CONF_INBOUND };
enum conf_capture { CONF_INTERCEPTED, CONF_EXPLICIT, CONF_HBONE };
enum conf_key_mode { CONF_KEY_AUTO, CONF_KEY_CSR, CONF_KEY_AGENT };
enum conf_key_isolation { CONF_KEY_HERE, CONF_KEY_PROCESS };

/* The header that the target gets before the client's first byte. */
enum conf_proxy_protocol {
    CONF_PROXY_PROTOCOL_NONE,
    CONF_PROXY_PROTOCOL_V1,
    CONF_PROXY_PROTOCOL_V2,
    CONF_PROXY_PROTOCOL_V2_TLS,
    CONF_PROXY_PROTOCOL_V2_TLS_FULL,
};

/* How inbound ports that are not declared are taken: docs/detection.md. */
enum conf_undeclared { CONF_UNDECLARED_DETECT, CONF_UNDECLARED_TCP };
/* What happens to a connection at the end of the certificates that it was made under. */
enum conf_on_expiry { CONF_EXPIRY_DRAIN, CONF_EXPIRY_CUT, CONF_EXPIRY_WARN };
struct conf_expiry {
    enum conf_on_expiry on;
    uint32_t grace_s, spread_s;
    bool on_said, grace_said, spread_said; /* in the file; else defaults, or of no meaning */
};
/* What is said nearer to a connection counts. */
void conf_expiry_narrow(struct conf_expiry *e, const struct conf_expiry *narrower);

struct conf_port {
    uint16_t port;
    enum conf_protocol protocol;
    struct conf_sockaddr local_address;      /* port 0; not set: the original address */
    enum conf_proxy_protocol proxy_protocol; /* towards the workload */
    struct conf_expiry expiry;               /* what is not said is the listener's or service's */
    struct conf_http http;                   /* of a listener's port with protocol http */
    struct conf_permissive permissive;       /* of a port of an intercepted listener */
};

/* Where a listener takes connections. */
enum conf_bind_kind { CONF_BIND_ADDRESS, CONF_BIND_UNIX, CONF_BIND_SYSTEMD };
struct conf_bind {
    enum conf_bind_kind kind;
    struct conf_sockaddr address; /* ADDRESS */
    char *path;                   /* UNIX: absolute */
    char *activation;             /* SYSTEMD: the name of the descriptor; NULL: the listener's */
};

/* Where it connects. */
enum conf_target_kind {
    CONF_TARGET_NONE,
    CONF_TARGET_ADDRESS,
    CONF_TARGET_HOST,
    CONF_TARGET_UNIX,
    CONF_TARGET_LIST, /* a listener's `targets`, of which each connection goes to one */
};
struct conf_target {
    enum conf_target_kind kind;
    struct conf_sockaddr address; /* ADDRESS */
    char *host;                   /* HOST: a DNS name in lower case, without a dot at the end */
    uint16_t port;                /* HOST; LIST: what all of them have, 0: they differ */
    char *path;                   /* UNIX: absolute */
};

/* When an endpoint that fails is left out, and for how long: docs/outbound.md. */
struct conf_ejection {
    uint32_t after; /* failures in a row; 0: never */
    uint32_t time_ms, max_time_ms;
};

enum { CONF_ENDPOINTS_MAX = 256 }; /* of one service, or of one listener */

/* Names that a certificate of an ordinary CA may show: one that matches is enough. */
struct conf_names {
    struct conf_strings cn, ou, dns, uri; /* `*` and `**` in uri: docs/gateway.md */
    bool any;                             /* whoever the CA vouches for; then the lists are empty */
    char *host; /* verify: the certificate is for this host as well; NULL: not asked */
};

enum conf_tls_min { CONF_TLS_1_2, CONF_TLS_1_3 };
enum conf_resumption { CONF_RESUMPTION_OFF, CONF_RESUMPTION_ON };
/* The weakest group for the exchange of keys that is taken, in order of strength. */
enum conf_tls_group { CONF_GROUP_X25519, CONF_GROUP_P384, CONF_GROUP_X25519MLKEM768 };
struct conf_tls {
    enum conf_tls_min min;
    enum conf_tls_group min_group;
    enum conf_resumption resumption;
    struct conf_strings alpn; /* in order of preference; none: as the protocol says */
};

enum conf_transport {
    CONF_TRANSPORT_DIRECT,
    CONF_TRANSPORT_DISABLE,
    CONF_TRANSPORT_HBONE,
    CONF_TRANSPORT_AUTO, /* direct or hbone: never a connection's own, which has chosen */
    CONF_TRANSPORT_COUNT
};
enum { CONF_HBONE_PORT = 15008 };

/* What one TLS leg of a gateway's listener shows and expects. */
struct conf_tls_side {
    struct conf_strings credentials; /* names; none: `identity` or, if said so, no certificate */
    bool no_credentials;             /* upstream only: no certificate is sent */
    char *trust;                     /* a name; NULL: the bundles that come with `identity` */
    struct conf_tls tls;
    enum conf_transport transport;  /* of a Gateway's listener; downstream: DIRECT or HBONE */
    uint16_t hbone_port;            /* upstream only; 0: not named */
    struct conf_names allow;        /* downstream only */
    char *server_name;              /* the rest: upstream only. The SNI; NULL: none is sent */
    struct conf_strings identities; /* peers by SPIFFE bundles: any of these */
    struct conf_names verify;       /* peers by ordinary CAs: an IP address may stand in dns */
    char *connect_proxy;            /* http://[USER:PASSWORD@]HOST:PORT; NULL: none */
};

/* A route by the ClientHello's server name. */
struct conf_sni_route {
    struct conf_strings names;       /* lower case; exact, or `*.` and a domain */
    struct conf_target to;           /* NONE: the listener's */
    struct conf_strings credentials; /* none: the listener's */
    bool passthrough;                /* not terminated here; then there are no credentials */
};

enum conf_listener_type {
    CONF_LISTENER_SIDECAR, /* of a Proxy: direction and capture say the rest */
    CONF_LISTENER_SERVER,  /* mTLS in, plain out */
    CONF_LISTENER_CLIENT,  /* plain in, mTLS out */
    CONF_LISTENER_RELAY,   /* mTLS in, mTLS out */
};
enum conf_client_certificate { CONF_CLIENT_CERTIFICATE_REQUIRED, CONF_CLIENT_CERTIFICATE_NONE };

/* How a target is checked, beside the traffic. */
enum conf_check { CONF_CHECK_NONE, CONF_CHECK_TCP, CONF_CHECK_TLS, CONF_CHECK_HTTP };
struct conf_target_check {
    enum conf_check kind;
    char *path, *host; /* HTTP; NULL: `/`, `localhost` */
    uint16_t status;   /* HTTP */
};

struct conf_listener {
    char *name;
    enum conf_listener_type type;
    enum conf_direction direction; /* also of a Gateway: inbound is server and relay */
    enum conf_capture capture;     /* of a Gateway: explicit */
    struct conf_bind bind;         /* of a Proxy: an address */
    struct conf_port *ports;       /* intercepted inbound only */
    size_t n_ports;
    bool transparent;                /* intercepted inbound only: the client's address is kept */
    enum conf_undeclared undeclared; /* intercepted inbound only */
    struct conf_target to;           /* explicit only; of a Proxy: an address. Of a Gateway: lent by
                                        targets, where there is one of them */
    struct conf_strings identities;  /* of a Proxy: explicit outbound only, at least one there */
    struct conf_expiry expiry;       /* whole */
    enum conf_protocol protocol;     /* explicit only */
    struct conf_http http;           /* likewise, with protocol http */
    enum conf_transport transport;   /* by which it dials; explicit outbound, relay; not DISABLE */
    uint16_t hbone_port;             /* likewise; 0: not named */

    /* PROXY protocol: out (explicit inbound, server), in (explicit), and what of it goes on. */
    enum conf_proxy_protocol proxy_protocol;
    struct conf_cidrs proxy_protocol_from;
    uint16_t *proxy_protocol_pass; /* types of TLVs */
    size_t n_proxy_protocol_pass;

    /* The rest: of a Gateway only. */
    struct conf_target *targets; /* what `to` says */
    size_t n_targets;
    struct conf_ejection ejection;   /* of several */
    bool takes_hbone;                /* server, relay: clients come as streams, and not otherwise */
    struct conf_tls_side downstream; /* server, relay */
    struct conf_tls_side upstream;   /* client, relay */
    enum conf_client_certificate client_certificate; /* server, relay */
    struct conf_sni_route *sni;                      /* server, relay */
    size_t n_sni;
    bool allow_remote_clients; /* client */
    struct {
        mode_t mode;
        char *owner, *group; /* names or numbers; NULL: the process's own */
    } socket;                /* a Unix socket that it listens on */
    struct {
        uint32_t connections;   /* open at once; 0: as many as the process takes */
        uint32_t connect_rate;  /* new ones a second; 0: any */
        uint32_t connect_burst; /* 0: connect_rate */
        uint32_t lifetime_s;    /* of a connection; 0: any */
        /* Of one peer's identity, likewise; also of a Proxy, inbound. */
        uint32_t per_identity_connections, per_identity_rate;
    } limits;
    uint16_t proxy_protocol_id_tlv; /* of the peer's SPIFFE ID; 0: the usual one */
    struct conf_target_check check;
    struct conf_permissive permissive; /* explicit inbound, server */
};

/* Own certificates of a Gateway that do not come with `identity`. */
enum conf_credential_kind {
    CONF_CREDENTIAL_PEM,    /* cert, and key or NULL: in the same file */
    CONF_CREDENTIAL_PKCS12, /* pkcs12 */
    CONF_CREDENTIAL_PKCS11, /* cert, token */
    CONF_CREDENTIAL_WORKLOAD_API,
};
struct conf_credential {
    char *name;
    enum conf_credential_kind kind;
    char *cert, *key, *pkcs12;
    char *passphrase_file, *passphrase_credential; /* at most one is not NULL */
    struct conf_token token;
    struct {
        char *socket;    /* NULL: from SPIFFE_ENDPOINT_SOCKET */
        char *spiffe_id; /* NULL: the first offered */
        enum conf_key_mode key;
    } workload_api;
};

/* What a peer's certificate must lead to, where that does not come with `identity`. */
struct conf_bundle_file {
    char *trust_domain, *path;
};
struct conf_trust {
    char *name;
    char *ca;  /* ordinary CAs; NULL: bundles */
    char *crl; /* NULL: none; with ca only */
    struct conf_bundle_file *bundles;
    size_t n_bundles;
};

enum conf_state_from { CONF_STATE_FILES, CONF_STATE_AGENT };
enum conf_resolve_names { CONF_RESOLVE_AUTO, CONF_RESOLVE_ON };

/* A question that a kubelet would ask of the workload. */
enum conf_probe_protocol { CONF_PROBE_TCP, CONF_PROBE_HTTP, CONF_PROBE_GRPC };
struct conf_probe {
    char *name;
    uint16_t port;
    enum conf_probe_protocol protocol;
    char *path, *host; /* http only; NULL: "/", and address with port */
    char *service;     /* grpc only; NULL: "" */
    struct conf_strings headers;
};

enum { CONF_REQUEST_HEAD_MAX = 128 * 1024 }; /* a worker's buffers are made for it */

enum conf_canary { CONF_CANARY_OFF, CONF_CANARY_ON };

/* Of a Proxy file and of a Gateway file: one data plane. */
struct conf_proxy {
    char *path; /* the file itself, absolute */
    char *name;
    bool gateway;     /* a Gateway file */
    bool no_identity; /* a Gateway that needs none: the section is absent */
    unsigned workers; /* 0: auto */
    uid_t run_as;     /* and group; 0: whoever starts it. Proxy only */
    struct {
        char *socket;    /* a path, or NULL: from SPIFFE_ENDPOINT_SOCKET */
        char *spiffe_id; /* NULL: the first offered */
        enum conf_key_mode key;
        enum conf_key_isolation key_isolation;
        uint32_t wait_ms;
    } identity;
    struct {
        enum conf_state_from from;
        uint32_t max_age_s;                /* 0: any */
        struct conf_strings labels;        /* KEY=VALUE */
    } state;                               /* where policy and mesh map come from */
    struct conf_tls tls;                   /* Proxy only: min_group and resumption */
    char *mesh_path;                       /* NULL: none */
    enum conf_resolve_names resolve_names; /* of the mesh map; of a Gateway: auto */
    char *policy_path;                     /* NULL: none, everything is denied */
    struct conf_policy_context policy_context;
    struct conf_jwts jwt;                /* whose tokens in requests count */
    struct conf_credential *credentials; /* Gateway only, as is trust */
    size_t n_credentials;
    struct conf_trust *trust;
    size_t n_trust;
    struct conf_listener *listeners;
    size_t n_listeners;
    struct {
        uint32_t connect_ms, handshake_ms, request_head_ms, idle_http_ms, idle_tcp_ms, drain_ms;
        uint32_t request_ms, request_body_ms, response_head_ms; /* 0: any time */
        uint32_t upstream_idle_ms;
        uint32_t idle_session_ms;
    } timeouts;
    struct {
        uint32_t connections, request_head_bytes, request_headers;
        uint32_t request_body_rate;  /* bytes a second */
        uint64_t request_body_bytes; /* 0: any */
        uint32_t upstream_idle;      /* connections of a worker */
    } limits;
    struct conf_http_general http;
    struct conf_admin admin;
    struct conf_sockaddr metrics;
    struct {
        enum conf_check check; /* already told to the listeners */
        uint32_t interval_ms, timeout_ms;
    } targets;                   /* Gateway only */
    struct conf_sockaddr health; /* likewise */
    struct {
        struct conf_sockaddr address; /* not set: none */
        struct conf_probe *items;
        size_t n;
    } probes; /* Proxy only */
    struct {
        enum conf_canary canary;
        uint32_t interval_ms;
    } interception; /* likewise */
    enum log_level log_level;
    enum conf_access_log access_log;
    struct conf_audit audit;
};

/* --- Mesh ------------------------------------------------------------------------------------- */
struct conf_service {
    char *name;
    struct conf_cidrs addresses;
    struct conf_port *ports; /* local_address unused; none: every port, tcp */
    size_t n_ports;
    struct conf_strings identities;
    enum conf_transport transport;
    struct conf_expiry expiry;     /* what is not said is the listener's */
    uint16_t hbone_port;           /* 0: not named */
    struct conf_target *endpoints; /* ADDRESS or HOST, port 0: the dialled one; none: the address
                                      that was dialled */
    size_t n_endpoints;
    struct conf_ejection ejection;
    struct {
        uint32_t connections; /* open ones of this process; 0: any */
    } limits;
};

/* Destinations that are no service's. */
enum conf_unlisted { CONF_UNLISTED_DENY, CONF_UNLISTED_PASS, CONF_UNLISTED_LIST };
enum conf_unlisted_class {
    CONF_UNLISTED_OTHER, /* an entry without a preset, or no entry */
    CONF_UNLISTED_DNS,
    CONF_UNLISTED_API_SERVER,
    CONF_UNLISTED_METADATA,
    CONF_N_UNLISTED_CLASSES,
};
const char *conf_unlisted_class_name(enum conf_unlisted_class c);
/* Whether instances of clouds are told about themselves, and given credentials, at this address
 * (4 or 16 bytes in network order). */
bool conf_is_metadata(int family, const uint8_t *addr);
/* One destination, or several, that may be reached without being a service. What its preset adds is
 * filled in. */
struct conf_unlisted_entry {
    char *name;
    enum conf_unlisted_class preset;
    struct conf_cidrs addresses;
    struct conf_strings hosts; /* DNS names in lower case: their addresses, as resolved */
    uint16_t *ports;           /* none: every port */
    size_t n_ports;
};

struct conf_mesh {
    char *path;
    enum conf_unlisted unlisted;
    struct conf_unlisted_entry *allow_unlisted;
    size_t n_allow_unlisted;
    struct conf_service *services;
    size_t n_services;
};

/* --- Modes ------------------------------------------------------------------------------------ */
enum conf_plaintext { CONF_PLAINTEXT_LISTED, CONF_PLAINTEXT_NEVER };

struct conf_modes {
    char *path;
    enum conf_plaintext plaintext;
};

/* --- loading ---------------------------------------------------------------------------------- */
/* Each reads one file of at most 4 MiB. 0 and *ret on success; -1 with at least one error in diag.
 */
int conf_load_proxy(const char *path, struct conf_diag *diag, struct conf_proxy **ret);
int conf_load_gateway(const char *path, struct conf_diag *diag, struct conf_proxy **ret);
int conf_load_mesh(const char *path, struct conf_diag *diag, struct conf_mesh **ret);
int conf_load_policy(const char *path, struct conf_diag *diag, struct conf_policy **ret);
int conf_load_agent(const char *path, struct conf_diag *diag, struct conf_agent **ret);
int conf_load_entries(const char *path, struct conf_diag *diag, struct conf_entries **ret);
int conf_load_modes(const char *path, struct conf_diag *diag, struct conf_modes **ret);
/* The same over bytes in memory: for the sandboxed loader, tests, fuzzers. `name` is for the
 * messages, and relative file names in the text stand against its directory. No file is opened,
 * but entries that name users or groups look into the machine's databases. */
int conf_parse_proxy(const char *name, const char *text, size_t len, struct conf_diag *diag,
                     struct conf_proxy **ret);
int conf_parse_gateway(const char *name, const char *text, size_t len, struct conf_diag *diag,
                       struct conf_proxy **ret);
int conf_parse_mesh(const char *name, const char *text, size_t len, struct conf_diag *diag,
                    struct conf_mesh **ret);
int conf_parse_agent(const char *name, const char *text, size_t len, struct conf_diag *diag,
                     struct conf_agent **ret);
int conf_parse_policy(const char *name, const char *text, size_t len, struct conf_diag *diag,
                      struct conf_policy **ret);
int conf_parse_entries(const char *name, const char *text, size_t len, struct conf_diag *diag,
                       struct conf_entries **ret);
int conf_parse_modes(const char *name, const char *text, size_t len, struct conf_diag *diag,
                     struct conf_modes **ret);

struct conf_proxy *conf_proxy_free(struct conf_proxy *c); /* of either kind */
/* By name; NULL: there is none. */
const struct conf_credential *conf_find_credential(const struct conf_proxy *c, const char *name);
const struct conf_trust *conf_find_trust(const struct conf_proxy *c, const char *name);
/* What a `connect_proxy` says; views into the text. */
struct conf_connect_proxy {
    struct str host;
    int family; /* AF_INET, AF_INET6: host is an address; AF_UNSPEC: a name */
    uint16_t port;
    struct str credentials; /* USER:PASSWORD; empty: none */
};
bool conf_connect_proxy_parse(struct str url, struct conf_connect_proxy *ret);
/* Whether peers of this leg show SVIDs; else what ordinary CAs sign. */
bool conf_trusts_spiffe(const struct conf_proxy *c, const struct conf_tls_side *side);
struct conf_mesh *conf_mesh_free(struct conf_mesh *c);
struct conf_policy *conf_policy_free(struct conf_policy *c);
/* Whether a policy's text is Istio's or Kubernetes' (its first document has an apiVersion), which
 * conf_load_policy does not read: policy_source.h. */
bool conf_policy_is_foreign(struct str text);
struct conf_agent *conf_agent_free(struct conf_agent *c);
struct conf_entries *conf_entries_free(struct conf_entries *c);
struct conf_modes *conf_modes_free(struct conf_modes *c);

/* --- documents in parts ----------------------------------------------------------------------- */
enum conf_document { CONF_DOCUMENT_POLICY, CONF_DOCUMENT_MESH, CONF_DOCUMENT_MODES };
/* First the head: every key of the file but the list, as the inside of a JSON object. Then each
 * element of `rules` or `services`, a JSON value on one line. */
struct conf_part {
    unsigned line;                      /* where it begins in the file; 0: the head */
    struct str text;                    /* lent */
    const struct conf_strings *targets; /* lent; a rule's target principals; NULL: no rule */
    const struct conf_policy *policy;   /* lent; with the head of a Policy: the whole, as parsed */
};
/* -1: stop. */
typedef int (*conf_part_fn)(void *arg, const struct conf_part *part);
/* Reads as strictly as conf_parse_*, and gives the parts of what it has read: put together they
 * are a file that means the same. 0: all parts were given. -1: errors in diag, or emit said stop.
 */
int conf_split(enum conf_document kind, const char *name, const char *text, size_t len,
               struct conf_diag *diag, conf_part_fn emit, void *arg);

/* Reads the file's `kind:` and loads it as that, files that it names included (but a policy that
 * is foreign); for `postern check`.
 * *ret_kind (may be NULL) is a constant, such as "Proxy". */
int conf_check(const char *path, struct conf_diag *diag, const char **ret_kind);

/* The reference of one kind ("Proxy", ...) as Markdown, from the schema tables; false: no such
 * kind. */
bool conf_reference(const char *kind, struct buf *out);
/* Likewise, as JSON Schema. */
bool conf_json_schema(const char *kind, struct buf *out);
const char *const *conf_kinds(void); /* NULL-terminated */

#endif
