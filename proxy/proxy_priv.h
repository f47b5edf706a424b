/*
 * The state of a data plane's process, which the roles proxy and gateway share: its wiring
 * (dataplane.c), what it may do (proxy_privs.c) and what it tells (proxy_report.c,
 * proxy_listeners.c). Main thread only.
 */
#ifndef POSTERN_PROXY_PRIV_H
#define POSTERN_PROXY_PRIV_H

#include "report_priv.h"
#include "role_options.h"

#include <postern/admin.h>
#include <postern/conn.h>
#include <postern/credential.h>
#include <postern/handover.h>
#include <postern/hardening.h>
#include <postern/identity_client.h>
#include <postern/key_heap.h>
#include <postern/loop.h>
#include <postern/probes.h>
#include <postern/state_client.h>
#include <postern/target_check.h>

/* The running process's side of a take-over (proxy_take_over.c). */
struct proxy_heir {
    int fd; /* the connection of whoever takes over; -1: nobody does */
    pid_t pid;
    struct loop_io *io;
    struct loop_timer timer;
    unsigned worker, n_sent; /* what comes next */
    size_t socket;
    bool all_sent;
};

/* The command line of both. */
struct proxy_options {
    bool take_over;
    const char *env; /* the variable that holds what a file would; NULL: there is a file */
};
enum { PROXY_N_LINE = 2 };
extern const struct role_option proxy_line[PROXY_N_LINE]; /* into struct proxy_options */

/* What the roles differ in. */
struct proxy_role {
    const char *name;
    const struct role_use *use; /* into struct proxy_options */
    int (*load)(const char *path, struct conf_diag *diag, struct conf_proxy **ret);
    int (*parse)(const char *name, const char *text, size_t len, struct conf_diag *diag,
                 struct conf_proxy **ret);
};

struct audit;

struct proxy {
    const struct proxy_role *role;
    const char *path; /* of the configuration, or for people where it stands */
    const char *env;  /* the variable that holds it; NULL: the file does */
    struct loop *loop;
    struct log *log;
    struct snapshot_files *files;
    struct snapshot_identity *identity; /* NULL: none (yet, or any more) */
    struct snapshot_state *state;       /* likewise; with state.from: agent only */
    bool quarantined;                   /* the agent says that our identity is */
    struct snapshot *snapshot;          /* what the workers were told last */
    uint64_t generation;

    struct conn_shared shared;
    struct conn_worker **workers;
    unsigned n_workers;
    struct net_unix_file *unix_files; /* owned; of listeners, removed at the end */
    size_t n_unix_files;
    int log_wake_fd;
    struct loop_io *log_io;
    uint64_t log_lines_lost;
    struct audit *audit; /* NULL: decisions are not recorded (proxy_audit.c) */

    struct resolver *resolver;      /* NULL: nobody looks names up */
    struct resolve_state *resolved; /* addresses of names; NULL: none is needed */
    bool told_unresolved;           /* that nobody does, and there are some */
    struct balance *balance;        /* endpoints and services, of all generations */

    /* A gateway's; NULL: a sidecar. */
    struct credentials *credentials;
    struct snapshot_parties *parties; /* of `files` and what is in force */
    struct proxy_targets *targets;    /* names and checks (proxy_targets.c) */
    struct proxy_claims *claims;      /* keys of requests' tokens (proxy_claims.c) */
    struct proxy_token *tokens;       /* where keys are that are not here; NULL: none */
    struct proxy_holder *holder;      /* of the identity's key; NULL: it is in this process */

    struct tls_tickets *tickets; /* keys in force (proxy_tickets.c); NULL: nothing is resumed */
    struct loop_timer tickets_timer;
    struct snapshot **retired; /* owned, with references: workers may use them yet */
    size_t n_retired;
    struct loop_timer retired_timer, expiry_timer;

    struct state_client *state_client; /* NULL: state.from is not the agent */
    struct identity_client *client;
    uint64_t svid_renewals;
    struct admin *admin;
    struct probes *probes;               /* NULL: none are configured */
    struct snapshot_files *probes_from;  /* their configuration, referenced */
    struct proxy_canary *canary;         /* NULL: off */
    struct proxy_permissive *permissive; /* NULL: not yet (proxy_permissive.c) */
    struct report_reload reload;
    struct proxy_reloading *reloading; /* the files are read again just now; NULL: they are not */

    struct hardening *hardening;
    struct key_heap_status key_heap;
    struct service_manager manager;
    struct loop_timer alive_timer;    /* signs of life */
    bool told_ready;                  /* the manager was */
    struct service_sockets inherited; /* until the set-up is done */
    struct handover before;           /* whose place we take; fd -1: nobody's */
    struct heir_check *heir_check;    /* NULL: what an heir runs is not asked about */
    struct loop_timer serve_timer;    /* the end of waiting to be ready */
    bool serving;                     /* the workers run */
    struct proxy_heir heir;

    bool draining;
    struct loop_timer drain_timer;
    struct loop_timer tidy_timer; /* what a change has left behind */
    uint64_t drain_end_ms;
    int64_t started_s;
    int exit_status;
};

/* The configuration, from where it stands (proxy_source.c). */
int proxy_read_conf(const struct proxy *p, struct conf_diag *diag, struct conf_proxy **ret);

/* Reads it again, on a thread of its own, and takes it if it can be (proxy_reload.c). */
void proxy_reload(struct proxy *p);
void proxy_reload_stop(struct proxy *p); /* before the loop is freed */
/* What of the configuration in force is doubtful. */
void proxy_warn(const struct proxy *p);

/* Root becomes `run_as`, if there is one. */
int proxy_become_user(struct proxy *p, struct err *err);
/* The last step of the set-up: capabilities, limits, file system, system calls. */
int proxy_confine(struct proxy *p, struct err *err);
/* Whether the sandbox, which cannot be widened any more, lets the next configuration work. */
int proxy_plan_covers(const struct proxy *p, const struct conf_proxy *next, struct err *err);

/* The role's process, from its command line to its exit status. */
int proxy_run(const struct proxy_role *role, int argc, char **argv);
/* Whether there is what the listeners need to know themselves by. */
bool proxy_has_identity(const struct proxy *p);

/* Snapshots and time (proxy_snapshots.c): `next` is in force, the one before is freed once nobody
 * uses it. */
void proxy_snapshots_init(struct proxy *p);
void proxy_snapshots_use(struct proxy *p, struct snapshot *next);
void proxy_snapshots_deinit(struct proxy *p);

/* Keys of session tickets (proxy_tickets.c): renewed before each snapshot. */
void proxy_tickets_init(struct proxy *p);
void proxy_tickets_renew(struct proxy *p);
void proxy_tickets_deinit(struct proxy *p);

/* Unix sockets of listeners (proxy_unix.c): before the workers; with `remove` their files go. */
int proxy_unix_start(struct proxy *p, struct err *err);
void proxy_unix_stop(struct proxy *p, bool remove);

/* Names, of a gateway's targets and of the mesh map (proxy_names.c). Started before the process
 * gives up execve, if there are any or it is said so. */
int proxy_names_start(struct proxy *p, struct err *err);
void proxy_names_stop(struct proxy *p);
/* The names that are needed now: once the workers run, and after every change. */
void proxy_names_tell(struct proxy *p);
/* Whether names of the next configuration can be looked up. */
int proxy_names_cover(const struct proxy *p, const struct snapshot_files *next, struct err *err);
void proxy_names_metrics(const struct proxy *p, struct buf *out);

/* Endpoints and limits, for status and metrics (proxy_endpoints.c). */
struct json_t;
struct json_t *proxy_endpoints_status(const struct proxy *p);
void proxy_endpoints_metrics(const struct proxy *p, struct buf *out);

/* Checks of targets, health (proxy_targets.c). Each does nothing for a sidecar. Started
 * before the process gives up execve; served once the workers run. */
struct proxy_targets;
int proxy_targets_start(struct proxy *p, struct err *err);
void proxy_targets_serve(struct proxy *p);
void proxy_targets_stop(struct proxy *p);
/* After every new snapshot. */
void proxy_targets_use(struct proxy *p);
/* Every name has an address, every target that is checked is up. */
bool proxy_targets_ready(const struct proxy *p);
/* What answers on `health`; NULL: nothing does. */
struct admin *proxy_targets_health(const struct proxy *p);
struct json_t;
struct json_t *proxy_targets_status(const struct proxy *p);
struct json_t *proxy_names_status(const struct proxy *p);
void proxy_targets_metrics(const struct proxy *p, struct buf *out);

/* Whether traffic is still captured (proxy_canary.c). Made before the workers; asks once these run,
 * and no more when others accept. Each does nothing where it is off. */
void proxy_canary_init(struct proxy *p);
void proxy_canary_serve(struct proxy *p);
void proxy_canary_rest(struct proxy *p);
void proxy_canary_free(struct proxy *p);
bool proxy_canary_ready(const struct proxy *p);
struct json_t *proxy_canary_report(const struct proxy *p);
void proxy_canary_metrics(const struct proxy *p, struct buf *out);

/* The State stream, if files are not all there is (proxy_state.c). */
int proxy_state_start(struct proxy *p, struct err *err);
/* Whether what is allowed is known, and not older than it may be. */
bool proxy_state_ready(const struct proxy *p);
/* As at SIGTERM. */
void proxy_drain(struct proxy *p);
/* Another process accepts now: what is open has its time, then the loop stops. */
void proxy_drain_handed_over(struct proxy *p);
/* Builds the new whole, then tells the workers, then lets go of the old. */
void proxy_publish(struct proxy *p);

/* --- restarts, the service manager: docs/restart.md (proxy_restart.c) --------------------------
 */
/* The environment, and what the process of before hands over if `take_over` says so and there is
 * one. Before anything else is started. */
int proxy_restart_begin(struct proxy *p, bool take_over, struct err *err);
/* The end of the set-up: starts the workers, or waits until there is what they need. */
int proxy_restart_set_up(struct proxy *p, struct err *err);
/* Something that readiness depends on is another. */
void proxy_restart_check(struct proxy *p);
/* Around a reload: the manager is told, once it was told of readiness. */
void proxy_restart_reloading(struct proxy *p);
void proxy_restart_reloaded(struct proxy *p);
void proxy_restart_deinit(struct proxy *p);

/* --- the process that takes over (proxy_take_over.c) --------------------------------------------
 */
/* For the admin socket: admin_options.channel. */
const char *proxy_take_over_asked(void *arg, int fd);
/* Starts what looks at whoever asks, where the file wants that: before execve is given up. */
int proxy_take_over_start(struct proxy *p, struct err *err);
void proxy_take_over_init(struct proxy *p);
void proxy_take_over_deinit(struct proxy *p);
/* A gateway's credentials and trusts (proxy_credentials.c). Does nothing for a sidecar. */
int proxy_credentials_start(struct proxy *p, struct err *err);
void proxy_credentials_stop(struct proxy *p);
/* What a reload makes of them: prepared whole, then taken or let go. */
struct proxy_credentials_change {
    struct credentials_set *set; /* NULL: nothing to change */
    struct snapshot_parties *parties;
};
int proxy_credentials_prepare(struct proxy *p, const struct snapshot_files *next,
                              struct proxy_credentials_change *ret, struct err *err);
void proxy_credentials_commit(struct proxy *p, struct proxy_credentials_change *change);
/* After a change of the identity that the agent gives; NULL: there is none. The old ones stay on
 * failure. */
int proxy_parties_renew(struct proxy *p, const struct identity_state *state, struct err *err);
/* For the status document, the caller's: own ones, or trusts. */
struct json_t;
struct json_t *proxy_credentials_report(const struct proxy *p, bool trust);
void proxy_credentials_metrics(const struct proxy *p, struct buf *out);
/* Keys of requests' tokens, and where they come from (proxy_claims.c). Started while files may be
 * watched; used after each reload. */
struct claims_keys;
int proxy_claims_start(struct proxy *p, struct err *err);
void proxy_claims_use(struct proxy *p);
void proxy_claims_stop(struct proxy *p);
/* Whether the agent, if it is asked for keys, has said which there are. */
bool proxy_claims_ready(const struct proxy *p);
struct claims_keys *proxy_claims_keys(const struct proxy *p); /* lent; NULL: none is looked for */
struct json_t *proxy_claims_status(const struct proxy *p);
void proxy_claims_metrics(const struct proxy *p, struct buf *out);
/* Keys in tokens (proxy_token.c). */
int proxy_token_away(struct proxy *p, const struct conf_credential *c, struct credential_away *ret,
                     struct err *err);
void proxy_token_stop(struct proxy *p);

/* The identity's key in a process of its own (proxy_holder.c). Each does nothing where the file
 * does not say so. Started before the process gives up execve, and before the identity is asked
 * for. */
int proxy_holder_start(struct proxy *p, struct err *err);
void proxy_holder_leave_loop(struct proxy *p); /* before the loop is freed */
void proxy_holder_stop(struct proxy *p);       /* after the last use of its keys */
struct identity_keys proxy_holder_keys(const struct proxy *p);
bool proxy_holder_ready(const struct proxy *p);
/* Asks it, and waits for a moment; null: there is none. */
struct json_t *proxy_holder_status(const struct proxy *p);
void proxy_holder_metrics(const struct proxy *p, struct buf *out);

/* What is told of the listeners (proxy_listeners.c); the report is the caller's. */
struct json_t;
struct json_t *proxy_listeners_report(const struct proxy *p);

/* --- proxy_policy.c: of a policy that is Istio's or Kubernetes' --- */
void proxy_policy_warn(const struct proxy *p);
struct json_t *proxy_policy_report(const struct proxy *p);
/* For whom it is read, as policy_source_read takes it. */
struct json_t *proxy_policy_for(const struct proxy *p);
void proxy_listeners_metrics(const struct proxy *p, struct buf *out);

/* The audit log (proxy_audit.c). Each does nothing where the file does not say so. Made before the
 * sandbox closes and the workers are made; started with the first of them; stopped after the last.
 */
int proxy_audit_open(struct proxy *p, unsigned n_workers, struct err *err);
int proxy_audit_start(struct proxy *p, struct err *err);
void proxy_audit_stop(struct proxy *p);
struct json_t *proxy_audit_status(const struct proxy *p); /* null: there is none */
void proxy_audit_metrics(const struct proxy *p, struct buf *out);

/* Plaintext beside mTLS (proxy_permissive.c). Made before the first snapshot; used before that of
 * each reload. */
void proxy_permissive_init(struct proxy *p);
void proxy_permissive_use(struct proxy *p);
void proxy_permissive_free(struct proxy *p);
void proxy_permissive_told(struct proxy *p); /* the agent's state has come */
const struct snapshot_strict *proxy_permissive_strict(const struct proxy *p);
struct json_t *proxy_permissive_status(const struct proxy *p);
void proxy_permissive_metrics(const struct proxy *p, struct buf *out);

/* Documents of the admin socket. */
bool proxy_report_readiness(void *arg, struct buf *out);
/* proxy_denials.c: the last denials; one of them; what the policies that decide say. */
bool proxy_report_denials(void *arg, struct buf *out);
bool proxy_report_denial(void *arg, struct str id, struct buf *out);
bool proxy_report_policies(void *arg, struct buf *out);
bool proxy_report_status(void *arg, struct buf *out);
bool proxy_report_metrics(void *arg, struct buf *out);
bool proxy_report_ready(void *arg, struct buf *out);
bool proxy_is_ready(const struct proxy *p);

#endif
