/*
 * snapshot: all that a worker decides by, as one immutable whole: own identity, trust, policy,
 * routes, listeners, timeouts.
 *
 * It has three parts, each shared by the snapshots that did not change it: what the files say, the
 * identity that the agent gives, and the state that the agent tells (policy, mesh map, who is
 * quarantined), if it is asked for one. The main thread builds the new whole before anything old is
 * touched, then hands it to the workers by mail. A worker takes one (atomic) reference and counts
 * its connections' uses plainly below that; the last one frees it, on whichever thread that is.
 */
#ifndef POSTERN_SNAPSHOT_H
#define POSTERN_SNAPSHOT_H

#include <postern/balance.h>
#include <postern/claims.h>
#include <postern/client_hello.h>
#include <postern/conf.h>
#include <postern/deny.h>
#include <postern/policy.h>
#include <postern/resolve.h>
#include <postern/route.h>
#include <postern/tls.h>
#include <postern/x509.h>
#include <stdatomic.h>
#include <stdint.h>

/* Where an explicit listener's connections go. */
struct snapshot_target {
    const struct conf_target *conf; /* of the same files */
    struct net_addr address;        /* CONF_TARGET_ADDRESS */
    uint16_t port;                  /* of an address or host; 0: a Unix socket has none */
};

/* An HTTP proxy that is asked for a tunnel. */
struct snapshot_connect_proxy {
    struct snapshot_target target;
    struct conf_target conf; /* what target speaks of; its host is the one below */
    char *host;              /* owned */
    struct str credentials;  /* lent by the configuration; empty: none */
};

struct snapshot_listener {
    const struct conf_listener *conf; /* of the same files */
    struct net_addr address;          /* none: a Unix socket, or one that is handed to us */
    struct snapshot_target target;    /* explicit only */
    struct route *explicit_route;     /* explicit outbound, relays: who must be there; owned */
    /* Of a gateway. */
    struct snapshot_target *routes;        /* owned: of each route of `sni`, in its order */
    struct client_hello_pattern *patterns; /* owned: their names */
    size_t n_patterns;
    struct snapshot_connect_proxy *connect_proxy; /* owned; NULL: none */
    struct snapshot_target *targets;              /* owned: of a list, in its order */
    size_t n_targets;                             /* 0: `to` is one, or none */
};

/* What the files say. */
struct snapshot_files {
    _Atomic unsigned refs;
    uint64_t generation;                 /* 1 at start, one more for each reload that took effect */
    struct conf_proxy *conf;             /* owned */
    struct policy *policy;               /* owned; NULL: none, everything is denied */
    size_t n_rules;                      /* of the policy */
    struct conf_diag *policy_doubts;     /* owned; of a policy that is not ours */
    struct claims_keys *claims;          /* a reference; NULL: no token is looked for */
    struct route_table *routes;          /* owned */
    struct snapshot_listener *listeners; /* owned; in the order of the file */
    size_t n_listeners;
};

/* Loads the mesh and the policy that conf names, and compiles them. Takes conf, also on failure.
 * Fails with every error of the files in diag. */
int snapshot_files_new(struct conf_proxy *conf, uint64_t generation, struct conf_diag *diag,
                       struct snapshot_files **ret, struct err *err);
struct snapshot_files *snapshot_files_ref(struct snapshot_files *f);
struct snapshot_files *snapshot_files_unref(struct snapshot_files *f);
/* Whether `next` can take the place of `now` in a running process: 0, or -1 with what would need a
 * restart (listeners, workers, sockets). */
int snapshot_files_compatible(const struct snapshot_files *now, const struct snapshot_files *next,
                              struct err *err);

/* What the agent says. */
struct snapshot_identity {
    _Atomic unsigned refs;
    struct tls_party *server,
        *client;              /* references: what all listeners go by that say nothing else */
    struct x509_trust *trust; /* a reference of ours */
    char *own_id;             /* owned */
    struct str own;           /* the same */
    int64_t not_before_s, not_after_s;
    char serial[48];
};

/* svid is not kept, trust is referenced. tls NULL: the defaults. */
int snapshot_identity_new(const struct x509_svid *svid, const struct x509_trust *trust,
                          const struct conf_tls *tls, struct snapshot_identity **ret,
                          struct err *err);
/* Whether this OpenSSL can do what a file demands. */
int snapshot_tls_check(const struct conf_proxy *conf, struct err *err);
/* What a file says of TLS, for a party. */
void snapshot_tls_fill(const struct conf_tls *tls, struct tls_party_spec *ret);
struct snapshot_identity *snapshot_identity_ref(struct snapshot_identity *i);
struct snapshot_identity *snapshot_identity_unref(struct snapshot_identity *i);

/* --- parties of a gateway (snapshot_parties.c) --- */
/* Of one listener. NULL: it has no such leg, or something of it is not there yet. */
struct snapshot_leg {
    struct tls_party *downstream, *upstream; /* references */
    struct tls_party **routes;               /* owned, with references: of each SNI route */
    size_t n_routes;
    char *own_id; /* owned: the SPIFFE ID that it shows to callers; NULL: an ordinary certificate */
};
/* One generation, of exactly one snapshot_files: a leg a listener, in its order. */
struct snapshot_parties {
    _Atomic unsigned refs;
    struct snapshot_leg *legs; /* owned */
    size_t n_legs;
};
/* What they are made of. By name; lent; NULL: not there yet. */
struct snapshot_material {
    const struct x509_svid *(*own)(void *arg, const char *name);
    const struct x509_peers *(*peers)(void *arg, const char *name);
    void *arg;
    const struct x509_svid *identity; /* of the section `identity`; NULL: none (yet) */
    const struct x509_trust *identity_trust;
};
/* Keeps references, none of `from`. Fails where what there is cannot be used for TLS. */
int snapshot_parties_new(const struct snapshot_files *files, const struct snapshot_material *from,
                         struct snapshot_parties **ret, struct err *err);
struct snapshot_parties *snapshot_parties_ref(struct snapshot_parties *p);
struct snapshot_parties *snapshot_parties_unref(struct snapshot_parties *p);

/* What the agent tells by its State stream: docs/state-stream.md. */
struct snapshot_state {
    _Atomic unsigned refs;
    uint64_t generation, deny_version;
    bool has_policy, has_mesh;  /* else these are the files' alone */
    struct policy *policy;      /* owned; NULL: has_policy is false */
    size_t n_rules;             /* of the policy */
    struct route_table *routes; /* owned; NULL: has_mesh is false */
    bool no_plaintext;          /* no plaintext is sent, whatever a map says */
    struct deny_set *deny;      /* owned */
    uint8_t policy_sha256[32];  /* of its text; zeros: none */
    char *policy_text; /* owned, for who asks what it is; NULL: it is long, or there is none */
    size_t policy_text_len;
    uint8_t documents_digest[32]; /* of policy, mesh map and modes as they were told */
    uint8_t digest[32];           /* and of who is denied: the same content has the same */
    struct snapshot_state
        *documents; /* a reference: whose policy and routes these are; NULL: own */
};

enum { SNAPSHOT_POLICY_TEXT_MAX = 1 << 20 };
struct snapshot_text {
    const char *source; /* for messages; NULL: this document is absent */
    struct str text;
};
struct snapshot_told {
    uint64_t generation, deny_version;
    struct snapshot_text policy, mesh, modes;
    const struct deny_item *deny;
    size_t n_deny;
};
/* Of its documents: those of a state that has the same are these. */
void snapshot_told_digest(const struct snapshot_told *told, uint8_t ret[32]);
/* Parses as strictly as files are, and compiles. Fails with every error in diag. */
int snapshot_state_new(const struct snapshot_told *told, struct conf_diag *diag,
                       struct snapshot_state **ret, struct err *err);
/* What `before` says, but for who is quarantined. Cannot fail. */
struct snapshot_state *snapshot_state_new_deny(struct snapshot_state *before, uint64_t deny_version,
                                               const struct deny_item *deny, size_t n_deny);
struct snapshot_state *snapshot_state_ref(struct snapshot_state *s);
struct snapshot_state *snapshot_state_unref(struct snapshot_state *s);

/* --- what differs from the one before (snapshot_change.c) ---
 * Whom of the live connections it can concern. */
struct snapshot_names {
    char **items; /* owned */
    size_t n;
};
struct snapshot_change {
    uint64_t since;       /* the generation of the one before */
    bool all;             /* everybody */
    bool own_quarantined; /* everybody, and this is why */
    struct snapshot_names denied_ids, denied_serials;
    struct x509_key_id *gone; /* authorities, ascending */
    size_t n_gone;
    struct policy_change policy[2]; /* of the one that decides, and of one that narrows */
    uint64_t *routes;               /* keys of services that are no more, ascending */
    size_t n_routes;
    bool outbound;       /* routes changed: each may lead elsewhere */
    uint16_t *listeners; /* that lead elsewhere, expect others, or judge otherwise */
    size_t n_listeners;
};
struct snapshot;
struct snapshot_change *snapshot_change_new(const struct snapshot *before,
                                            const struct snapshot *now);
struct snapshot_change *snapshot_change_free(struct snapshot_change *c);

/* Permissive ports that have turned strict: docs/permissive.md. */
enum { SNAPSHOT_STRICT_MAX = 256 };
struct snapshot_strict {
    struct {
        uint16_t listener, port; /* port 0: the listener has one destination */
    } items[SNAPSHOT_STRICT_MAX];
    size_t n;
};

struct snapshot {
    _Atomic unsigned refs;
    uint64_t generation;                /* every change of anything */
    struct snapshot_change *change;     /* owned; NULL: anything may differ from the one before */
    struct snapshot_files *files;       /* a reference of ours */
    struct snapshot_identity *identity; /* likewise; NULL before the first SVID */
    struct snapshot_parties *parties;   /* likewise; NULL: all go by `identity` */
    struct resolve_state *resolved;     /* likewise; NULL: no name is needed */
    struct balance_state *balance; /* likewise; of the routes of files and state; NULL: no route
                                      has endpoints or a limit */
    struct snapshot_state *state;  /* likewise; NULL: files are all there is, or it has not come */
    struct tls_tickets *tickets;   /* likewise; NULL: nothing is resumed */
    struct claims_keys *claims;    /* likewise; NULL: no token is looked for */
    int64_t at_s;                  /* by the clock of the wall: rules that ended later are in it */
    bool wants_state;              /* without one nothing is allowed */
    bool own_quarantined;          /* this process's own identity or certificate is */
    struct snapshot_strict strict;
};

/* What a snapshot is made of; all but files may be NULL. */
struct snapshot_parts {
    struct snapshot_files *files;
    struct snapshot_identity *identity;
    struct snapshot_parties *parties; /* of these files */
    struct resolve_state *resolved;
    struct balance_state *balance; /* of these files and this state */
    struct snapshot_state *state;
    struct tls_tickets *tickets;
    struct claims_keys *claims;           /* NULL: those of the files */
    bool quarantined;                     /* the agent says that our identity is */
    const struct snapshot_strict *strict; /* lent for the call; NULL: none */
    const struct snapshot *before;        /* lent for the call: the one that workers have now */
};
/* Takes references of its own. */
struct snapshot *snapshot_new(uint64_t generation, const struct snapshot_parts *parts);
struct snapshot *snapshot_ref(struct snapshot *s);
struct snapshot *snapshot_unref(struct snapshot *s);
/* Whether nobody else holds a reference any more. */
bool snapshot_is_last(struct snapshot *s);

/* --- asking (snapshot_ask.c) -------------------------------------------------------------------
 * What the agent tells is what is allowed, and a file beside it can only take away from it. */
/* *ret_by (may be NULL) is the policy that decided, lent: for policy_near_miss. */
/* Which policies are asked: the first decides, the second (NULL: none) can only say no. True: none
 * is, everything is allowed. */
bool snapshot_policies(const struct snapshot *s, const struct policy **ret_first,
                       const struct policy **ret_second);
/* When the next rule ends that decides or narrows: later than now_s; 0: none does. */
int64_t snapshot_next_expiry(const struct snapshot *s, int64_t now_s);
/* A question without a time is asked of now. */
void snapshot_decide(const struct snapshot *s, const struct policy_query *q,
                     struct policy_verdict *ret, const struct policy **ret_by);
/* Whether any of what decides has a rule about requests that can speak of this port: it is then not
 * to be judged as a connection, unless it was declared one. */
bool snapshot_wants_requests(const struct snapshot *s, struct str target, uint16_t port);
/* NULL: unlisted; *ret_pass says what lets it through as plain TCP then, NULL: nothing does.
 * `before` is for route_pass. */
const struct route *snapshot_route(const struct snapshot *s, const struct net_addr *dst,
                                   const struct route_pass *before,
                                   const struct route_pass **ret_pass);
/* Where connections by a route go, and how many there may be: the sets that have a say, that of an
 * agent's map beside a file's as well. The first one leads: its endpoints count, if it has any. */
enum { SNAPSHOT_SETS_MAX = 2 };
size_t snapshot_sets(const struct snapshot *s, const struct route *r, const struct net_addr *dst,
                     const struct balance_set *ret[SNAPSHOT_SETS_MAX]);
/* The one whose endpoints count; NULL: the destination itself does. */
const struct balance_set *snapshot_endpoints(const struct snapshot *s, const struct route *r,
                                             const struct net_addr *dst);
/* What an inbound listener says of plaintext to this port of the workload (0: the one that it has);
 * NULL: it takes none there, or none any more. */
const struct conf_permissive *snapshot_permissive(const struct snapshot *s, size_t listener,
                                                  uint16_t port);
/* Of a listener whose `to` is a list; NULL: it is not, or nothing is known of it. */
const struct balance_set *snapshot_listed(const struct snapshot *s,
                                          const struct snapshot_listener *l);
/* The endpoints and limits that there are in files and (may be NULL) state, for a snapshot of
 * them. */
struct balance_state *snapshot_balance(struct balance *b, const struct snapshot_files *files,
                                       const struct snapshot_state *state,
                                       const struct resolve_state *resolved, uint64_t now_ms);
/* Whether a peer with this identity and serial is quarantined. */
bool snapshot_denies(const struct snapshot *s, struct str id, const char *serial);

/* By what a listener's leg goes; lent; NULL: not there yet. route: of the listener's `sni`, or -1.
 */
const struct tls_party *snapshot_downstream(const struct snapshot *s, size_t listener, long route);
const struct tls_party *snapshot_upstream(const struct snapshot *s, size_t listener);
/* The same place, whatever file says it. */
bool snapshot_target_equal(const struct snapshot_target *a, const struct snapshot_target *b);

/* --- targets (snapshot_targets.c) --- */
void snapshot_target_fill(const struct conf_target *conf, struct snapshot_target *ret);
void snapshot_targets_fill(struct snapshot_listener *l);
void snapshot_targets_free(struct snapshot_listener *l);
/* Of one of its routes, or (-1) its own. */
const struct snapshot_target *snapshot_listener_target(const struct snapshot_listener *l,
                                                       long route);
/* Calls fn for every name that has to be resolved; some maybe more than once. state: what the agent
 * tells, or NULL. */
void snapshot_hosts(const struct snapshot_files *f, const struct snapshot_state *state,
                    void (*fn)(void *arg, const char *host), void *arg);
/* Where to connect, the best first; 0: a name that is not resolved, or a target without address.
 * The first *ret_preferred are equally good. */
/* Of a list nothing: which of them is chosen is the business of balance.h. */
size_t snapshot_addresses(const struct snapshot *s, const struct snapshot_target *t,
                          struct net_addr *ret, size_t max, size_t *ret_preferred);
/* False: a name that is not resolved yet. */
bool snapshot_has_address(const struct snapshot *s, const struct snapshot_target *t);
/* As the file says it. Returns ret_text. */
const char *snapshot_target_text(const struct snapshot_target *t, char *ret_text, size_t size);

/* Whether `a` is one of this process's own listeners: a destination that would be a loop. `local`
 * says that the host of `a` is known to be this one. */
bool snapshot_is_own_port(const struct snapshot_files *f, const struct net_addr *a, bool local);

MEM_DEFINE_CLEANUP(struct snapshot_files, snapshot_files_unref)
MEM_DEFINE_CLEANUP(struct snapshot_identity, snapshot_identity_unref)
MEM_DEFINE_CLEANUP(struct snapshot_parties, snapshot_parties_unref)
MEM_DEFINE_CLEANUP(struct snapshot_state, snapshot_state_unref)

#endif
