/*
 * postern-agent-service: the process of an agent that speaks gRPC with the node's workloads. It has
 * no privileges and no CA key; who a caller is, the attestor knows, and what a caller may have, the
 * keeper. docs/workload-api.md says what it serves, docs/privilege-separation.md what it may do.
 *
 * One thread, one loop. A call goes like this: methods.c (metadata) -> watch.c or sign.c (what is
 * wanted) -> job.c (attest, list, issue: questions by channel.c) -> answer. Tokens: jwt_svid.c asks
 * for them after a job that only lists; jwt_bundle.c has the keys, jwt_validate.c judges by them.
 */
#ifndef POSTERN_SERVICE_PRIV_H
#define POSTERN_SERVICE_PRIV_H

#include <postern/admin.h>
#include <postern/agent_docs.h>
#include <postern/agent_ipc.h>
#include <postern/buf.h>
#include <postern/grpc.h>
#include <postern/hardening.h>
#include <postern/log.h>
#include <postern/loop.h>
#include <postern/metrics.h>
#include <postern/readiness.h>
#include <postern/rollout.h>
#include <postern/x509.h>

enum {
    SERVICE_ANSWER_MAX = STATE_MESSAGE_MAX, /* unsent bytes of a call */
    SERVICE_REQUEST_MAX = 65536,            /* bytes of a request message */
    SERVICE_FDS_MAX = 16384,
    SERVICE_JOB_TIMEOUT_MS = 10000, /* without an answer of attestor or keeper */
    SERVICE_WAIT_MS = 30000,        /* for its turn */
    SERVICE_TRIM_MS = 3000,
    SERVICE_UID_JOBS = 4, /* of one uid at once */
    SERVICE_JOB_ASKS = 4, /* questions of one job at once */
    SERVICE_CALLER_BUCKETS = 4096,
    SERVICE_ACCOUNT_BUCKETS = 1024,
    SERVICE_STOP_MS = 2000, /* for callers to take their last words */
};

struct service;

/* --- questions to the attestor and the keeper (channel.c) --------------------------------------
 */
/* answer: as it came, borrowed. */
typedef void (*service_answer_fn)(void *arg, const union agent_msg *answer);
struct service_ask; /* one question on its way; owned by its channel */
struct service_channel {
    struct service *s;
    int fd;
    struct loop_io *io;
    enum agent_way way; /* of what is received */
    const char *peer;
    struct service_ask *first, *last; /* in order; those that were sent stand first */
    struct service_ask *unsent;       /* the first that was not; NULL: none */
    size_t n_outstanding;
    uint64_t last_id;
    bool lost; /* the process is about to end */
    void (*on_push)(struct service *s, const union agent_msg *msg, int fd);
};
void service_channel_init(struct service_channel *ch, struct service *s, int fd, enum agent_way way,
                          const char *peer,
                          void (*on_push)(struct service *s, const union agent_msg *msg, int fd));
void service_channel_deinit(struct service_channel *ch);
/* msg: made with agent_ipc_init (the id is filled in here), copied. fn gets the answer, of
 * answer_type; NULL: there is none. */
struct service_ask *service_channel_ask(struct service_channel *ch, void *msg,
                                        enum agent_msg_type answer_type, service_answer_fn fn,
                                        void *arg);
/* Sends what there is room for now, and not from the loop: last words. */
void service_channel_flush(struct service_channel *ch);
/* The answer is no longer wanted. Takes NULL. */
void service_ask_forget(struct service_ask *ask);

/* --- callers: one a connection (callers.c) ------------------------------------------------------
 */
struct service_turn;
struct service_stream;
/* What one uid, or one container, has open. */
struct service_account {
    struct service_account *next;
    uint64_t id; /* agent_account */
    struct grpc_account memory;
    size_t n_conns, n_calls;
    size_t n_turns;                                    /* jobs that are running */
    struct service_turn *first_waiting, *last_waiting; /* and those that wait for one to end */
};
struct service_caller {
    struct service_caller *next; /* of its bucket */
    struct service *s;
    uint64_t handle;
    uint32_t uid, gid;
    int32_t pid;
    struct grpc_conn *conn;
    struct service_account *account;
    struct service_stream *streams;
    bool gone; /* its process has ended */
};
void service_on_attestor_push(struct service *s, const union agent_msg *msg, int fd);
void service_on_conn_closed(void *arg, void *conn_context);
/* Counts a call; false: the uid or the service has too many. */
bool service_caller_charge(struct service_caller *c);
void service_caller_discharge(struct service_caller *c);
void service_accounts_deinit(struct service *s);

/* --- whose turn it is (turns.c) ----------------------------------------------------------------
 */
struct service_turn {
    struct service_turn *prev, *next; /* while it waits */
    struct service_account *account;  /* NULL: it is over */
    bool running;
    void (*begin)(struct service_turn *t);
};
/* begin is called when it is this one's turn: perhaps at once, from within this, else from within
 * another's service_turn_give. */
void service_turn_take(struct service_turn *t, struct service_account *a,
                       void (*begin)(struct service_turn *t));
/* Over, or no longer wanted; also twice. */
void service_turn_give(struct service_turn *t);

/* --- memory for keys on their way (secrets.c) ---------------------------------------------------
 */
/* Regions of secret memory cost system calls: some small ones are kept, wiped, for the next. */
enum { SERVICE_SECRETS = 64, SERVICE_SECRET_SIZE = 4096 };
struct service_secrets {
    uint8_t *bytes; /* mem_secret: all of them */
    uint64_t taken; /* a bit each */
};
struct service_secret {
    uint8_t *bytes; /* NULL: none */
    size_t n;
    bool own; /* a region of its own */
};
/* False: there is no memory. */
bool service_secret_take(struct service *s, size_t n, struct service_secret *ret);
/* Wipes. Also what was never taken. */
void service_secret_give(struct service *s, struct service_secret *secret);
void service_secrets_deinit(struct service *s);

/* --- attest, list, issue (job.c) ----------------------------------------------------------------
 */
struct service_identity {
    char *spiffe_id, *hint; /* owned; hint NULL: none */
    uint32_t entry, ttl_s;
    uint64_t dns_digest;
    bool wanted;    /* a certificate for it */
    uint8_t *pkcs8; /* X509_PKCS8_LEN, in the job's `keys`; NULL: the caller's own key */
    uint8_t *chain; /* owned: leaf and intermediates, DER */
    size_t n_chain;
    int64_t not_before_s, not_after_s;
};
/* Sets `wanted` of the identities in the job's list, which is whole; false: the request cannot be
 * met, InvalidArgument with the text. */
struct service_job;
typedef bool (*service_choose_fn)(void *arg, struct service_job *job, char *ret_text, size_t size);
enum { SERVICE_CHOOSE_TEXT = 256 };
struct service_job {
    struct service *s;
    struct service_account *account; /* of its caller, which outlives it */
    struct service_turn turn;
    uint64_t handle;
    bool issue;               /* for what is wanted; else only attest and list */
    bool given_key;           /* for the key of `point`; else keys are made here */
    char *wanted_id;          /* given_key: owned; NULL: the first */
    service_choose_fn choose; /* NULL: all of them, or wanted_id */
    void *choose_arg;
    char choose_text[SERVICE_CHOOSE_TEXT];
    uint8_t point[AGENT_POINT_SIZE];
    struct service_identity *list; /* owned */
    struct service_secret keys;    /* of those that are wanted */
    uint32_t n_keys;
    uint32_t n, total;
    uint32_t at;    /* the identity that is being issued */
    uint32_t asked; /* positions or identities that were asked for */
    uint64_t generation, facts;
    unsigned restarts;
    struct service_ask *asks[SERVICE_JOB_ASKS]; /* on their way; their answers come in order */
    unsigned first_ask, n_asks;
    struct loop_timer timer;
    struct loop_timer pending; /* to ask again for a caller whose pod is not known yet */
    void (*done)(void *arg, struct service_job *job, enum grpc_status status, const char *text);
    void *arg;
};
typedef void (*service_done_fn)(void *arg, struct service_job *job, enum grpc_status status,
                                const char *text);
/* Attests the caller, lists its identities, lets them be chosen and issues for what is wanted, with
 * keys made here. done is called once, never from within this; it owns the job then
 * (service_job_free), and the text may be the job's. */
struct service_job *service_job_new(struct service_caller *caller, bool issue,
                                    service_choose_fn choose, void *choose_arg,
                                    service_done_fn done, void *arg);
/* For one identity (none: the first) and a key that is the caller's own; job->at says which. */
struct service_job *service_job_new_sign(struct service_caller *caller, struct str wanted_id,
                                         const uint8_t point[AGENT_POINT_SIZE],
                                         service_done_fn done, void *arg);
/* Also before it is done. Takes NULL, returns NULL. */
struct service_job *service_job_free(struct service_job *job);

/* --- streams (streams.c) ------------------------------------------------------------------------
 */
struct service_stream_ops {
    /* Entries or roots are others than before. Does not end the stream. */
    void (*changed)(struct service_stream *st);
    /* Finishes the call and frees it. */
    void (*end)(struct service_stream *st, enum grpc_status status, const char *text);
};
/* Embedded in what each kind of stream knows. */
struct service_stream {
    struct service_stream *prev, *next;               /* of the service */
    struct service_stream *caller_prev, *caller_next; /* of the caller */
    struct service *s;
    struct service_caller *caller;
    struct grpc_call *call;
    const struct service_stream_ops *ops;
};
/* The call was charged to the caller before; deinit discharges it. */
void service_stream_init(struct service_stream *st, struct grpc_call *call,
                         const struct service_stream_ops *ops);
void service_stream_deinit(struct service_stream *st);
/* Entries or roots are others than before: every stream looks. */
void service_streams_changed(struct service *s);
/* Ends the streams of one caller (NULL: all). */
void service_streams_end(struct service *s, const struct service_caller *c, enum grpc_status status,
                         const char *text);

/* --- streams of what the caller has (watch.c), and what they carry (fetch.c, pack.c) -------------
 */
enum { SERVICE_LISTING_DIGEST = 32 };
struct service_watch;
struct service_watch_kind {
    service_choose_fn choose; /* with the watch's data; NULL: certificates for all identities */
    /* Sends the message, from a job that is issued. */
    enum grpc_send (*send)(struct service_watch *w, struct service_job *job);
    void (*free_data)(void *data); /* NULL: it is nobody's to free */
    /* Of what stands in every message beside the identities; NULL: of the X.509 bundle. */
    uint64_t (*generation)(const struct service *s);
    unsigned metric; /* enum service_metric: counts messages */
};
struct service_watch {
    struct service_stream stream; /* first: the service knows it by this */
    struct service *s;
    const struct service_watch_kind *kind;
    void *data;
    struct service_job *job;                 /* owned; NULL: none is running */
    struct loop_timer timer;                 /* renewal, or another try */
    bool sent;                               /* the first message has gone out */
    bool look;                               /* something may have changed: list again */
    bool renew;                              /* send again, whatever the list says */
    bool last;                               /* the next message is the last one: then OK */
    uint8_t listing[SERVICE_LISTING_DIGEST]; /* of what was sent last, for comparison */
    uint64_t generation;                     /* of what was sent last */
    int64_t expires_s; /* the first of what was sent last; INT64_MAX: nothing that expires */
    uint64_t renew_ms; /* when to send anew; 0: never */
    int64_t renew_s;   /* the same by the wall clock, which may be set */
    unsigned failures;
};
/* The call is the watch's from here on: grpc_call_data is the watch. */
struct service_watch *service_watch_start(struct grpc_call *call,
                                          const struct service_watch_kind *kind, void *data);
void service_watch_poke(struct service_watch *w);
/* What is wanted is other than before: whatever is under way begins again. */
void service_watch_again(struct service_watch *w);
/* Ends after what is under way or due. */
void service_watch_end_soon(struct service_watch *w);
void service_watch_finish(struct service_watch *w, enum grpc_status status, const char *text);
void service_watch_drained(struct grpc_call *call);
void service_watch_cancel(struct grpc_call *call);

void service_fetch_svids(struct grpc_call *call, void *arg, struct str message);
void service_fetch_bundles(struct grpc_call *call, void *arg, struct str message);
/* No certificates: a caller without any identity has been refused already. */
bool service_choose_none(void *arg, struct service_job *job, char *ret_text, size_t size);

enum grpc_send service_send_svids(struct grpc_call *call, struct service *s,
                                  struct service_job *job);
enum grpc_send service_send_bundles(struct grpc_call *call, const struct service *s);

/* --- tainted authorities (tainted.c) -----------------------------------------------------------
 */
void service_tainted_start(struct grpc_call *call, void *arg, struct str message);
void service_tainted_drained(struct grpc_call *call, void *arg);
void service_tainted_cancel(struct grpc_call *call);

/* --- unary (sign.c) ----------------------------------------------------------------------------
 */
void service_sign_request(struct grpc_call *call, void *arg, struct str message);
void service_sign_cancel(struct grpc_call *call);

/* --- JWT-SVIDs (jwt_svid.c, jwt_bundle.c, jwt_validate.c) ---------------------------------------
 */
struct jwt_keys;
struct service_jwt {
    struct jwt_keys *keys; /* owned; NULL: none yet, and so nothing of this is served */
    struct buf set;        /* the same, as text */
    uint64_t generation;
    struct service_ask *ask;
};
/* The keeper says that its keys are others. */
void service_jwt_changed(struct service *s);
void service_jwt_deinit(struct service *s);
void service_fetch_jwt_bundles(struct grpc_call *call, void *arg, struct str message);
void service_jwt_svid_request(struct grpc_call *call, void *arg, struct str message);
void service_jwt_svid_cancel(struct grpc_call *call);
void service_jwt_validate_request(struct grpc_call *call, void *arg, struct str message);
void service_jwt_validate_cancel(struct grpc_call *call);

/* --- messages that nest (wire.c) ----------------------------------------------------------------
 */
struct service_wire {
    const uint8_t *p;
    size_t n;
    bool bad; /* final */
    uint32_t field;
    bool is_bytes;
    uint64_t number;  /* of a varint */
    struct str bytes; /* of a string, a message; borrowed from the message */
};
struct service_wire service_wire_of(struct str message);
/* The next field; false at the end, or if it is no message. */
bool service_wire_next(struct service_wire *w);
/* Appends a field of bytes. */
bool service_wire_put(struct buf *out, uint32_t field, struct str bytes);

/* --- secrets for Envoy (sds.c), health and reflection -------------------------------------------
 */
void service_sds_stream_request(struct grpc_call *call, void *arg, struct str message);
void service_sds_stream_end(struct grpc_call *call, void *arg);
void service_sds_fetch(struct grpc_call *call, void *arg, struct str message);

void service_health_check(struct grpc_call *call, void *arg, struct str message);
void service_health_list(struct grpc_call *call, void *arg, struct str message);
void service_health_watch(struct grpc_call *call, void *arg, struct str message);
void service_health_cancel(struct grpc_call *call);

/* A ServerReflectionRequest to its response; false: it is none, or the answer is too large. A pure
 * function of the bytes. */
bool service_reflect(struct str request, struct buf *out);
void service_reflect_request(struct grpc_call *call, void *arg, struct str message);
void service_reflect_end(struct grpc_call *call, void *arg);

/* --- the table of methods (methods.c) ----------------------------------------------------------
 */
extern const struct grpc_method service_methods[];
extern const size_t service_n_methods;
/* The services that they belong to; NULL-terminated. */
extern const char *const service_names[];
/* The text of Unavailable where grpc_call_hold says no. */
#define SERVICE_NO_ROOM "this user holds too much memory: close some calls"
/* Ends a call and counts how. */
void service_finish(struct grpc_call *call, enum grpc_status status, const char *text);

/* --- what can be asked from outside (status.c) -------------------------------------------------
 */
enum service_metric {
    SERVICE_METRIC_SVID_PUSHES,
    SERVICE_METRIC_BUNDLE_PUSHES,
    SERVICE_METRIC_SDS_PUSHES,
    SERVICE_METRIC_JWT_BUNDLE_PUSHES,
    SERVICE_METRIC_STATE_PUSHES,
    SERVICE_METRIC_SIGNED,
    SERVICE_METRIC_JWT_ISSUED,
    SERVICE_METRIC_ISSUED,
    SERVICE_METRIC_ISSUE_REFUSED,
    SERVICE_METRIC_RPC_OK,
    SERVICE_METRIC_RPC_CANCELLED,
    SERVICE_METRIC_RPC_INVALID,
    SERVICE_METRIC_RPC_DENIED,
    SERVICE_METRIC_RPC_UNAVAILABLE,
    SERVICE_METRIC_RPC_UNIMPLEMENTED,
    SERVICE_METRIC_RPC_OTHER,
    SERVICE_METRIC_CONNECTIONS,
    SERVICE_METRIC_CONNECTIONS_REFUSED,
    SERVICE_N_METRICS,
};
void service_count(struct service *s, enum service_metric which);
struct admin *service_admin_new(struct service *s, struct err *err);
/* status_kubernetes.c: their parts of the documents. */
bool service_kubernetes_status(const struct service *s, struct buf *out);
bool service_kubernetes_metrics(const struct service *s, struct buf *out);

/* --- quarantine (deny.c) -----------------------------------------------------------------------
 */
struct service_deny_item {
    uint32_t kind; /* enum agent_deny_kind */
    int64_t until_s;
    char *text; /* owned */
};
struct service_deny {
    uint64_t version;
    size_t n, expected;
    struct service_deny_item *items; /* owned */
};
/* The supervisor's DENY_BEGIN, DENY_ITEM, DENY_COMMIT; false: out of order. */
bool service_deny_take(struct service *s, const union agent_msg *msg);
void service_deny_clear(struct service_deny *d);
bool service_deny_has_id(const struct service_deny *d, const char *spiffe_id);

/* --- what proxies are told (documents.c) -------------------------------------------------------
 */
struct service_documents;
void service_documents_init(struct service *s);
void service_documents_deinit(struct service *s);
/* The supervisor's DOCS_BEGIN, DOC_PART, DOCS_COMMIT, DOCS_STATE; false: out of order. */
bool service_documents_push(struct service *s, const union agent_msg *msg);
uint64_t service_documents_generation(const struct service *s); /* 0: nothing has come */
/* Which pushed policy that proxy gets: its number, 0: the file's; and the document. */
uint64_t service_policy_for(const struct service *s, const struct rollout_proxy *p);
const struct agent_doc *service_policy(const struct service *s, uint64_t number);
void service_policies(const struct service *s, uint64_t *ret_in_force, uint64_t *ret_staged);
const struct agent_doc *service_document(const struct service *s, enum agent_document which);
const struct agent_msg_docs_state *service_documents_state(const struct service *s);

/* --- the State stream (state_stream.c) ----------------------------------------------------------
 */
struct service_subscriber;
void service_state_request(struct grpc_call *call, void *arg, struct str message);
void service_state_request_end(struct grpc_call *call, void *arg);
/* Documents or deny list are others than before: every subscriber is told. */
void service_state_changed(struct service *s);
bool service_write_proxies(void *arg, struct buf *out);
bool service_put_state_status(const struct service *s, struct buf *out);
bool service_put_state_metrics(const struct service *s, struct buf *out);

/* --- what proxies tell of permissive ports (history.c) -----------------------------------------
 */
struct service_history;
void service_history_init(struct service *s);
/* What is not kept yet goes to the supervisor. */
void service_history_stop(struct service *s);
void service_history_deinit(struct service *s);
/* What the supervisor has kept; false: out of order. */
bool service_history_push(struct service *s, const struct agent_msg_history *m);
/* Of a stream whose caller is attested as the identity; *last_ms: the stream's, 0 at first. */
void service_history_report(struct service *s, struct str identity, struct str name,
                            const Postern__V1__PlaintextReport *report, uint64_t *last_ms);
/* The n-th port of the identity that has turned strict by itself; false: there are no more. */
bool service_history_strict(const struct service *s, struct str identity, size_t n,
                            struct readiness_strict *ret);
bool service_write_readiness(void *arg, struct buf *out);
bool service_put_history_metrics(const struct service *s, struct buf *out);

/* --- the process (main.c, control.c, privs.c) --------------------------------------------------
 */
struct service {
    struct loop *loop;
    struct log *log;
    struct hardening *hardening; /* NULL: not confined (tests) */
    struct service_channel control, attestor, keeper;
    struct grpc_server *server;
    struct admin *admin;
    struct metrics_block *metrics;
    struct loop_timer stop_timer, trim_timer, clock_timer;
    int64_t clock_wall_s; /* when it was looked at last, by both clocks */
    uint64_t clock_ms;

    struct agent_msg_start_service start;
    char *own_domain_id; /* "spiffe://td" */
    union agent_msg in;  /* being handled */

    struct service_caller *callers[SERVICE_CALLER_BUCKETS];    /* by handle */
    struct service_account *accounts[SERVICE_ACCOUNT_BUCKETS]; /* by id */
    struct service_stream *streams;
    struct service_secrets secrets;
    struct x509_keygen *keygen;
    size_t n_callers, n_calls;

    struct service_jwt jwt;
    bool have_bundle; /* and so may serve */
    bool ready_told;
    struct service_ask *bundle_ask;
    uint64_t entries_generation, bundle_generation, deny_version,
        pods_generation; /* that the keeper has said */
    uint8_t bundle[AGENT_BUNDLE_MAX];
    size_t n_bundle;
    uint32_t bundle_tainted;          /* bit i: the i-th root's */
    struct agent_msg_changed changed; /* the last one */

    struct agent_msg_process processes[AGENT_N_ROLES]; /* role known: head.type is set */
    struct agent_msg_entries_state entries_state;
    struct service_subscriber *subscribers;
    size_t n_subscribers;
    struct service_documents *documents;          /* owned */
    struct service_history *history;              /* owned */
    struct agent_msg_kubelet_state kubelet_state; /* head.type is set once it is known */
    struct service_deny deny, deny_incoming;      /* in force; in the making (expected > 0) */
    int64_t started_s, last_issued_s;
    bool stopping;
    int exit_status;
};
/* With `start`, `log` and `loop` set: everything else. The channels stay the caller's. */
int service_open(struct service *s, int control, int attestor, int keeper, struct err *err);
/* Takes a half-opened one; frees the loop too. */
void service_close(struct service *s);
int service_drop_privileges(const struct agent_msg_start_service *start,
                            struct agent_msg_report *ret_report, struct err *err);
/* Whether the wall clock was set forward since the last look: what has become due is renewed. */
void service_look_at_clock(struct service *s);
/* A channel is closed or broke its protocol. */
void service_channel_lost(struct service_channel *ch, bool bad);
/* Memory was freed, or will be: what the heap does not need goes back in a while. */
void service_trim_later(struct service *s);

#endif
