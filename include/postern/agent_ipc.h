/*
 * agent_ipc: what the processes of an agent say to each other.
 *
 * Supervisor, keeper, attestor, service, on a node of Kubernetes kubelet (which asks the node's),
 * where the root's key lives in a token signer, and (for a moment) loader are processes, joined by
 * SOCK_SEQPACKET pairs of <postern/ipc.h>. A
 * message is one struct of this header, sent and received whole; the table in agent_ipc.c says for
 * each type which way it may go, its exact size and whether a descriptor comes with it. Who may ask
 * what is in docs/privilege-separation.md.
 *
 *   supervisor <-> keeper, attestor, service: control; descriptor 3 of each child
 *   attestor   ->  keeper                   : descriptor 4 of both
 *   service    <-> attestor                 : descriptor 4 of the service
 *   service    <-> keeper                   : descriptor 5 of the service
 *   kubelet    <-> supervisor               : control; descriptor 3 of the kubelet
 *   kubelet    <-> keeper                   : descriptor 4 of the kubelet
 *   signer     <-> supervisor               : control; descriptor 3 of the signer
 *   signer     <-> keeper                   : descriptor 4 of the signer
 *   loader     ->  supervisor               : descriptor 3 of the loader; 4 is the entry file
 *
 * The receiver believes nothing: agent_ipc_recv gives a message only if type, direction, size,
 * descriptor and every text of it are in order, else IPC_BAD, and the receiver ends the asker (the
 * keeper closes that channel and lives on). A descriptor of a bad message is closed.
 *
 * Attested before issued, by cause and not by luck. The attestor queues ATTESTED (or UPDATED, or
 * GONE) to the keeper *before* it says CONNECTION (or REATTESTED, or GONE) to the service. The
 * keeper first takes one message from the service, then everything that is pending from the
 * attestor, and only then acts on the service's message. So whatever the service could have heard
 * about a handle, the keeper knows by the time it judges.
 *
 * A full queue is back pressure, never loss: a process whose peer's queue is full (IPC_AGAIN) stops
 * reading what makes it send, and waits for POLLOUT. For that the service has at most
 * AGENT_PIPELINE_MAX questions outstanding with each of keeper and attestor: every question has
 * exactly one answer, with the question's request_id, in order. Pushes (CHANGED, GONE) come
 * between and have request_id 0.
 *
 * Times: seconds since the epoch for certificates, os_now_ms elsewhere. Texts are not terminated.
 */
#ifndef POSTERN_AGENT_IPC_H
#define POSTERN_AGENT_IPC_H

#include <postern/err.h>
#include <postern/ipc.h>
#include <postern/log.h>
#include <postern/sandbox.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    AGENT_FD_CONTROL = 3,          /* of keeper, attestor and service: to the supervisor */
    AGENT_FD_KEEPER_ATTESTOR = 4,  /* of the keeper */
    AGENT_FD_ATTESTOR_KEEPER = 4,  /* of the attestor */
    AGENT_FD_ATTESTOR_LISTEN = 5,  /* of the attestor: the listening socket */
    AGENT_FD_SERVICE_ATTESTOR = 4, /* of the service */
    AGENT_FD_SERVICE_KEEPER = 5,   /* of the service */
    AGENT_FD_KUBELET_KEEPER = 4,   /* of the kubelet */
    AGENT_FD_SIGNER_KEEPER = 4,    /* of the signer */
    AGENT_FD_LOADER_FILE = 4,      /* of the loader */
};

enum {
    AGENT_ID_MAX = 2048,            /* a SPIFFE ID */
    AGENT_TRUST_DOMAIN_MAX = 255,   /* a trust domain's name */
    AGENT_PATH_MAX = 4095,          /* an executable's path */
    AGENT_HINT_MAX = 1024,          /* a hint (Workload API) */
    AGENT_NAME_MAX = 256,           /* an entry's id */
    AGENT_DNS_NAME_MAX = 253,       /* one DNS name */
    AGENT_DNS_NAMES_MAX = 16,       /* of an entry */
    AGENT_ENTRIES_MAX = 4096,       /* of a file */
    AGENT_IDENTITIES_MAX = 2048,    /* of one caller; the first ones of the file count */
    AGENT_LEAF_MAX = 8192,          /* DER of a leaf */
    AGENT_CHAIN_MAX = 8192,         /* DER of the intermediates */
    AGENT_BUNDLE_MAX = 16384,       /* DER of the roots, one after another */
    AGENT_TOKEN_MAX = 16384,        /* a JWT-SVID */
    AGENT_AUDIENCES_MAX = 16,       /* of a token */
    AGENT_AUDIENCES_BYTES = 4096,   /* of all of them */
    AGENT_JWKS_MAX = 16384,         /* the public keys for tokens */
    AGENT_CA_ID_MAX = 64,           /* an authority's id */
    AGENT_CA_TEXT_MAX = 12288,      /* authorities as JSON */
    AGENT_POINT_SIZE = 65,          /* an uncompressed P-256 point */
    AGENT_REASON_MAX = 256,         /* why something is quarantined */
    AGENT_DENY_MAX = 4096,          /* things that are quarantined */
    AGENT_DOC_ITEMS_MAX = 131072,   /* rules of a policy, services of a mesh map */
    AGENT_DOC_PART_MAX = 8192,      /* bytes of a document in one message */
    AGENT_UIDS_MAX = 32,            /* that may use the admin socket */
    AGENT_SELECTORS_MAX = 24,       /* of an entry */
    AGENT_SELECTOR_TEXT_MAX = 8192, /* all texts of an entry's selectors together */
    AGENT_GROUPS_MAX = 64,          /* supplementary groups of a caller that are looked at */
    AGENT_SHA256_SIZE = 32,
    AGENT_CONTAINER_ID_MAX = 64,    /* hexadecimal */
    AGENT_POD_UID_MAX = 64,         /* with dashes; of a static pod 32 hexadecimal digits */
    AGENT_UNIT_MAX = 255,           /* a systemd unit's name */
    AGENT_HOST_MAX = 64,            /* an address with its port, as text */
    AGENT_PODS_MAX = 1024,          /* of a node */
    AGENT_POD_CONTAINERS_MAX = 64,  /* of a pod */
    AGENT_POD_NAME_MAX = 253,       /* a name in Kubernetes */
    AGENT_POD_LABELS_MAX = 8192,    /* bytes of a pod's labels, "key=value\n" each */
    AGENT_CONTAINER_NAME_MAX = 63,  /* in its pod */
    AGENT_IMAGE_MAX = 1023,         /* an image, or its id */
    AGENT_PIPELINE_MAX = 8,         /* questions without an answer yet */
    AGENT_TOKEN_LABEL_MAX = 32,     /* of a PKCS#11 token */
    AGENT_TOKEN_KEY_MAX = 64,       /* of a key in it */
    AGENT_TOKEN_WORDS_MAX = 4096,   /* bytes of its paths, of its environment */
    AGENT_FACTS_MAX_AGE_MS = 10000, /* older facts are AGENT_STALE_FACTS: ask REATTEST first */
};

enum agent_role {
    AGENT_ROLE_SUPERVISOR,
    AGENT_ROLE_KEEPER,
    AGENT_ROLE_ATTESTOR,
    AGENT_ROLE_SERVICE,
    AGENT_ROLE_LOADER,
    AGENT_ROLE_KUBELET,
    AGENT_ROLE_SIGNER,
    AGENT_N_ROLES,
};
const char *agent_role_name(enum agent_role role);

enum agent_msg_type {
    AGENT_MSG_NONE,
    /* child -> supervisor */
    AGENT_MSG_REPORT, /* agent_msg_report: sandboxed, says what is in force; its first message */
    AGENT_MSG_READY,  /* agent_msg_plain: doing its work; the service: it answers on connections */
    AGENT_MSG_FAILED, /* agent_msg_failed: cannot go on; the child then exits with 1 */
    /* supervisor <-> keeper */
    AGENT_MSG_START_KEEPER,    /* agent_msg_start_keeper */
    AGENT_MSG_CA_FILE,         /* agent_msg_ca_file + the file; three of them, in their order */
    AGENT_MSG_KEY_SOURCE,      /* agent_msg_key_source + the file with a passphrase */
    AGENT_MSG_STATE_KEY,       /* agent_msg_state + the key file of the old layout */
    AGENT_MSG_STATE_CERT,      /* agent_msg_state + its certificate file */
    AGENT_MSG_STATE_FILE,      /* agent_msg_state + the state file, or an empty one to write */
    AGENT_MSG_STATE_WANTED,    /* agent_msg_plain, keeper's: an empty one is wanted */
    AGENT_MSG_STATE_WRITTEN,   /* agent_msg_plain, keeper's: it is written and synced */
    AGENT_MSG_STATE_PLACED,    /* agent_msg_state_placed: and is the state file now, or not */
    AGENT_MSG_CA_ORDER,        /* agent_msg_ca_order: root's, request_id is the control client's */
    AGENT_MSG_CA_ANSWER,       /* agent_msg_ca_answer, when it is done, or not */
    AGENT_MSG_ENTRIES_BEGIN,   /* agent_msg_entries_begin: drops an unfinished set */
    AGENT_MSG_ENTRY,           /* agent_msg_entry; also loader -> supervisor */
    AGENT_MSG_ENTRIES_COMMIT,  /* agent_msg_entries_begin, the same again: applies whole or not */
    AGENT_MSG_ENTRIES_APPLIED, /* agent_msg_entries_applied, keeper's answer */
    /* supervisor -> keeper and attestor: the service's new end; the old one is dropped */
    AGENT_MSG_SERVICE, /* agent_msg_plain + the channel */
    /* supervisor -> attestor */
    AGENT_MSG_START_ATTESTOR, /* agent_msg_start_attestor */
    AGENT_MSG_ATTEST_OPTIONS, /* agent_msg_attest_options */
    /* supervisor -> service */
    AGENT_MSG_START_SERVICE, /* agent_msg_start_service: its first message */
    AGENT_MSG_LISTENER,      /* agent_msg_listener + a listening socket */
    AGENT_MSG_PROCESS,       /* agent_msg_process: for `postern status`; on every change */
    AGENT_MSG_ENTRIES_STATE, /* agent_msg_entries_state: for status and metrics */
    AGENT_MSG_DOCS_BEGIN,    /* agent_msg_docs: drops an unfinished set */
    AGENT_MSG_DOC_PART,      /* agent_msg_doc_part; also loader -> supervisor */
    AGENT_MSG_DOCS_COMMIT,   /* agent_msg_docs, the same again: applies it whole */
    AGENT_MSG_DOCS_STATE,    /* agent_msg_docs_state: for status and metrics */
    AGENT_MSG_STOP,          /* agent_msg_plain: end orderly; closing the channel means the same */
    /* loader -> supervisor: ENTRY... or DOC_PART..., or DIAGNOSTIC..., then LOADED */
    AGENT_MSG_DIAGNOSTIC, /* agent_msg_failed: one error of the file */
    AGENT_MSG_LOADED,     /* agent_msg_loaded: the end */
    /* kubelet <-> supervisor, for each question: KUBELET_WANT; then KUBELET_FILE... and last
     * KUBELET_CONNECTION, or KUBELET_REFUSED instead */
    AGENT_MSG_START_KUBELET,      /* agent_msg_start_kubelet: its first message */
    AGENT_MSG_KUBELET_WANT,       /* agent_msg_plain */
    AGENT_MSG_KUBELET_FILE,       /* agent_msg_kubelet_file + the file, opened now */
    AGENT_MSG_KUBELET_CONNECTION, /* agent_msg_plain + a socket that connects */
    AGENT_MSG_KUBELET_REFUSED,    /* agent_msg_failed: why there is none */
    AGENT_MSG_KUBELET_STATE, /* agent_msg_kubelet_state; the supervisor hands it to the service */
    /* supervisor -> keeper: the kubelet's new end; the old one is dropped */
    AGENT_MSG_KUBELET, /* agent_msg_plain + the channel */
    /* kubelet -> keeper: the pods of this node, whole or not at all: BEGIN, each POD with its
     * CONTAINERs behind it, COMMIT */
    AGENT_MSG_PODS_BEGIN,  /* agent_msg_pods_begin: drops an unfinished set */
    AGENT_MSG_POD,         /* agent_msg_pod */
    AGENT_MSG_CONTAINER,   /* agent_msg_container */
    AGENT_MSG_PODS_COMMIT, /* agent_msg_pods_begin, the same again */
    /* keeper -> kubelet: somebody called whom the last set does not know */
    AGENT_MSG_PODS_WANTED, /* agent_msg_plain */
    /* attestor -> keeper; GONE also attestor -> service */
    AGENT_MSG_ATTESTED, /* agent_msg_caller + the pidfd */
    AGENT_MSG_UPDATED,  /* agent_msg_caller: facts read again (they may be the same) */
    AGENT_MSG_GONE,     /* agent_msg_handle: process ended or released; the handle never returns */
    /* attestor <-> service */
    AGENT_MSG_CONNECTION, /* agent_msg_connection + the accepted socket */
    AGENT_MSG_REATTEST,   /* agent_msg_ask */
    AGENT_MSG_REATTESTED, /* agent_msg_reattested: its answer */
    AGENT_MSG_RELEASE,    /* agent_msg_handle: the connection is closed; no answer */
    /* service <-> keeper */
    AGENT_MSG_IDENTITY_GET, /* agent_msg_identity_get */
    AGENT_MSG_IDENTITY,     /* agent_msg_identity: its answer */
    AGENT_MSG_ISSUE,        /* agent_msg_issue */
    AGENT_MSG_ISSUED,       /* agent_msg_issued: its answer */
    AGENT_MSG_BUNDLE_GET,   /* agent_msg_ask, handle 0 */
    AGENT_MSG_BUNDLE,       /* agent_msg_bundle: its answer */
    AGENT_MSG_CHANGED,      /* agent_msg_changed: keeper's push, and its first message */
    /* supervisor -> keeper and service: what is quarantined, whole */
    AGENT_MSG_DENY_BEGIN,   /* agent_msg_deny_begin: drops an unfinished set */
    AGENT_MSG_DENY_ITEM,    /* agent_msg_deny_item */
    AGENT_MSG_DENY_COMMIT,  /* agent_msg_deny_begin, the same again: applies it */
    AGENT_MSG_DENY_APPLIED, /* agent_msg_deny_begin: keeper's answer, with the request_id */
    AGENT_MSG_JWT_SIGN,     /* agent_msg_jwt_sign */
    AGENT_MSG_JWT_SIGNED,   /* agent_msg_jwt_signed: its answer */
    AGENT_MSG_JWKS_GET,     /* agent_msg_ask, handle 0 */
    AGENT_MSG_JWKS,         /* agent_msg_jwks: its answer */
    AGENT_MSG_DENY_NOTE,    /* agent_msg_deny_note: one change, to the keeper for the journal */
    /* supervisor <-> keeper: the journal's files */
    AGENT_MSG_JOURNAL_FILE, /* agent_msg_journal + the file: before the state, and when asked for */
    AGENT_MSG_JOURNAL_HEAD, /* agent_msg_plain + the file `head`: before the first of these */
    AGENT_MSG_JOURNAL_NEXT, /* agent_msg_journal_next: the keeper asks for the next one */
    /* supervisor -> signer */
    AGENT_MSG_START_SIGNER, /* agent_msg_start_signer: its first message */
    AGENT_MSG_SIGNER_PIN,   /* agent_msg_signer_pin + the file with the PIN: its second */
    /* supervisor -> keeper: the signer's new end; the old one is dropped */
    AGENT_MSG_SIGNER, /* agent_msg_plain + the channel */
    /* keeper <-> signer: one question at a time */
    AGENT_MSG_SIGNER_KEY,    /* agent_msg_signer_key */
    AGENT_MSG_SIGNER_KEY_IS, /* agent_msg_signer_key_is: its answer */
    AGENT_MSG_SIGNER_SIGN,   /* agent_msg_signer_sign */
    AGENT_MSG_SIGNER_SIGNED, /* agent_msg_signer_signed: its answer */
    AGENT_N_MSGS,
};
const char *agent_msg_name(uint32_t type);

/* Who started a container, by the shape of its cgroup's name. OTHER: the name does not say. */
enum agent_runtime {
    AGENT_RUNTIME_NONE,
    AGENT_RUNTIME_OTHER,
    AGENT_RUNTIME_CONTAINERD,
    AGENT_RUNTIME_CRIO,
    AGENT_RUNTIME_DOCKER,
    AGENT_RUNTIME_PODMAN,
    AGENT_N_RUNTIMES,
};
const char *agent_runtime_name(uint32_t runtime);

/* What an entry may ask of its caller. USER and GROUP are numbers by now, but unlike UID and GID
 * they hold only in the agent's own mount and user namespaces, where the name means the same.
 * docs/attestation.md has the words. */
enum agent_selector_type {
    AGENT_SELECTOR_UNIX_UID, /* number */
    AGENT_SELECTOR_UNIX_USER,
    AGENT_SELECTOR_UNIX_GID,
    AGENT_SELECTOR_UNIX_GROUP,
    AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID,
    AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP,
    AGENT_SELECTOR_UNIX_PATH,   /* text: absolute */
    AGENT_SELECTOR_UNIX_SHA256, /* text: 64 hexadecimal digits, lower case */
    AGENT_SELECTOR_SYSTEMD_ID,  /* text: a unit of the system manager */
    AGENT_SELECTOR_CONTAINER_ID,
    AGENT_SELECTOR_CONTAINER_RUNTIME, /* number: enum agent_runtime */
    AGENT_SELECTOR_K8S_NS,            /* text, as all below */
    AGENT_SELECTOR_K8S_SA,
    AGENT_SELECTOR_K8S_POD_NAME,
    AGENT_SELECTOR_K8S_POD_UID,
    AGENT_SELECTOR_K8S_POD_LABEL, /* KEY:VALUE */
    AGENT_SELECTOR_K8S_NODE_NAME,
    AGENT_SELECTOR_K8S_CONTAINER_NAME,
    AGENT_SELECTOR_K8S_CONTAINER_IMAGE, /* image or image id, as the kubelet reports them */
    AGENT_SELECTOR_K8S_IMAGE_DIGEST,    /* sha256:HEX */
    AGENT_N_SELECTORS,
};
/* "unix:uid" and so on, a constant; "unknown" beyond the last. */
const char *agent_selector_name(uint32_t type);

/* Every message begins with this. Fill with agent_ipc_init. */
struct agent_msg_head {
    uint32_t type; /* enum agent_msg_type */
    uint32_t size; /* of the whole struct */
    uint64_t request_id;
};

struct agent_msg_plain {
    struct agent_msg_head head;
};
/* A handle is a number of the attestor's: never 0, never used twice in the life of an agent. */
struct agent_msg_handle {
    struct agent_msg_head head;
    uint64_t handle;
};
struct agent_msg_ask {
    struct agent_msg_head head;
    uint64_t handle;
};

enum agent_jwt_algorithm { AGENT_JWT_ES256, AGENT_JWT_ES384, AGENT_JWT_RS256 };

/* --- child -> supervisor ---------------------------------------------------------------------- */
struct agent_msg_report {
    struct agent_msg_head head;
    uint32_t role;        /* enum agent_role */
    uint32_t secret_kind; /* keeper: enum mem_secret_kind of its keys */
    struct sandbox_report report;
    bool memory_locked; /* keeper: its heap stays out of swap */
};
struct agent_msg_failed {
    struct agent_msg_head head;
    struct err error; /* every text of it is terminated */
};

/* --- supervisor <-> keeper -------------------------------------------------------------------- */
struct agent_msg_start_keeper {
    struct agent_msg_head head;
    uint32_t root_ttl_s, node_ttl_s, svid_ttl_s;
    uint32_t outage_warn_s;
    uint32_t jwt_ttl_s, jwt_key_ttl_s;
    uint32_t jwt_algorithm;    /* enum agent_jwt_algorithm, of new keys */
    uint32_t log_level;        /* enum log_level */
    uint32_t max_handles;      /* bounds of what attested callers may make us hold */
    uint32_t max_uid_handles;  /* of one uid */
    uint32_t uid_issue_burst;  /* certificates for one uid: so many at once ... */
    uint32_t uid_issue_per_s;  /* ... and so many a second after that */
    uint32_t run_uid, run_gid; /* what to become, if started by root */
    uint16_t trust_domain_len;
    char trust_domain[AGENT_TRUST_DOMAIN_MAX];
};
/* At the start: the old layout's two files, if there are such, and then the state file. fresh: it
 * is empty, there is no state yet. Later: the answer to STATE_WANTED, always fresh. */
struct agent_msg_state {
    struct agent_msg_head head;
    uint32_t owner_uid; /* whose the file has to be */
    bool fresh;
};
/* `ca.source: disk`: before the state file, and again when they change. */
enum agent_ca_file {
    AGENT_CA_FILE_CERT,
    AGENT_CA_FILE_KEY,
    AGENT_CA_FILE_BUNDLE,
    AGENT_N_CA_FILES
};
struct agent_msg_ca_file {
    struct agent_msg_head head;
    uint32_t which;     /* enum agent_ca_file; the last one has them taken */
    uint32_t owner_uid; /* whose the key file has to be */
};
/* Before the state file: what it is sealed under, or was until now. None: it is plain. */
struct agent_msg_key_source {
    struct agent_msg_head head;
    uint32_t owner_uid; /* whose the file has to be */
    bool old;           /* opens, and is not written with */
};
/* The answer to STATE_WRITTEN; to STATE_WANTED, when no file can be made. */
struct agent_msg_state_placed {
    struct agent_msg_head head;
    bool ok;
    struct err error; /* if not ok: what was there stays */
};
enum agent_ca_verb {
    AGENT_CA_SHOW,
    AGENT_CA_PREPARE,
    AGENT_CA_ACTIVATE,
    AGENT_CA_TAINT,
    AGENT_CA_RETIRE,
    AGENT_N_CA_VERBS,
};
struct agent_msg_ca_order {
    struct agent_msg_head head;
    uint32_t verb; /* enum agent_ca_verb */
    bool jwt;      /* else X.509 */
    bool force;
    uint16_t id_len;
    char id[AGENT_CA_ID_MAX]; /* of the authority; empty: the one that can be meant */
};
struct agent_msg_ca_answer {
    struct agent_msg_head head;
    struct err error; /* code ERR_NONE: done */
    uint32_t text_len;
    uint8_t text[AGENT_CA_TEXT_MAX]; /* JSON: the authorities as they are now */
};
struct agent_msg_entries_begin {
    struct agent_msg_head head;
    uint64_t generation; /* of the supervisor's: grows with every set */
    uint32_t n_entries;
};
struct agent_dns_name {
    uint16_t len;
    char text[AGENT_DNS_NAME_MAX];
};
struct agent_selector {
    uint32_t type;     /* enum agent_selector_type */
    uint32_t number;   /* of those that are numbers */
    uint16_t text_len; /* of those that are texts: it follows the previous one's */
};
/* All selectors have to hold. spiffe_id may be a template: {k8s.ns} and the like. */
struct agent_msg_entry {
    struct agent_msg_head head;
    uint32_t index;     /* its turn among a caller's identities, from 0: the order of the file */
    uint32_t line;      /* where it begins there, for messages only */
    uint32_t ttl_s;     /* 0: the agent's default */
    uint32_t jwt_ttl_s; /* the same */
    uint16_t n_dns_names, n_selectors;
    uint16_t id_len, spiffe_id_len, selector_text_len, hint_len;
    char id[AGENT_NAME_MAX];
    char spiffe_id[AGENT_ID_MAX];
    char selector_text[AGENT_SELECTOR_TEXT_MAX];
    char hint[AGENT_HINT_MAX];
    struct agent_selector selectors[AGENT_SELECTORS_MAX];
    struct agent_dns_name dns_names[AGENT_DNS_NAMES_MAX];
};
struct agent_msg_entries_applied {
    struct agent_msg_head head;
    uint64_t generation; /* now in force */
    bool ok;
    uint32_t n_entries, n_added, n_removed, n_changed; /* by id */
    struct err error;                                  /* if not ok: the old set stays */
};

/* --- quarantine: supervisor -> keeper, service ------------------------------------------------ */
/* docs/quarantine.md. The service gets a set only after the keeper has applied it. Ends are the
 * supervisor's business: when one is over there is a new set. */
struct agent_msg_deny_begin {
    struct agent_msg_head head;
    uint64_t version; /* grows with every change, also over restarts */
    uint32_t n_items;
};
enum agent_deny_kind { AGENT_DENY_SPIFFE_ID, AGENT_DENY_SERIAL, AGENT_DENY_IMAGE_DIGEST };
struct agent_msg_deny_item {
    struct agent_msg_head head;
    uint32_t index;
    uint32_t kind;     /* enum agent_deny_kind, the numbers of <postern/quarantine.h> */
    int64_t until_s;   /* 0: until it is removed. For people only */
    uint16_t text_len; /* spellings: <postern/quarantine.h> */
    char text[AGENT_ID_MAX];
};

enum agent_deny_change { AGENT_DENY_ADDED, AGENT_DENY_REMOVED, AGENT_DENY_OVER };
struct agent_msg_deny_note {
    struct agent_msg_head head;
    uint64_t version;
    uint32_t change, kind;
    int64_t until_s;
    uint16_t text_len, reason_len;
    char text[AGENT_ID_MAX];
    char reason[AGENT_REASON_MAX];
};

/* --- journal: supervisor <-> keeper ----------------------------------------------------------- */
struct agent_msg_journal {
    struct agent_msg_head head;
    uint64_t number;   /* of the file */
    uint64_t oldest;   /* that is kept beside it */
    uint64_t max_size; /* beyond it the keeper asks for another */
};
struct agent_msg_journal_next {
    struct agent_msg_head head;
    uint64_t number; /* of the one that is full */
};

/* --- signer ----------------------------------------------------------------------------------- */
/* docs/authority.md, "A token". Words are texts one after another, each ended by a NUL. */
struct agent_msg_start_signer {
    struct agent_msg_head head;
    uint32_t log_level;
    uint32_t run_uid, run_gid;       /* what to become, if started by root */
    uint32_t root_ttl_s, node_ttl_s; /* no certificate that it signs lives longer */
    uint16_t trust_domain_len, module_len, token_len, key_len;
    char trust_domain[AGENT_TRUST_DOMAIN_MAX];
    char module[AGENT_PATH_MAX];
    char token[AGENT_TOKEN_LABEL_MAX]; /* its label */
    char key[AGENT_TOKEN_KEY_MAX];     /* its label; others begin with it and a dash */
    uint32_t environment_len, paths_len;
    uint8_t environment[AGENT_TOKEN_WORDS_MAX]; /* NAME=VALUE */
    uint8_t paths[AGENT_TOKEN_WORDS_MAX];       /* that the module may write to */
};
struct agent_msg_signer_pin {
    struct agent_msg_head head;
    uint32_t owner_uid; /* whose the file has to be */
};
struct agent_msg_signer_key {
    struct agent_msg_head head;
    bool another; /* a new one; else the one with the label itself, made if there is none */
};
struct agent_msg_signer_key_is {
    struct agent_msg_head head;
    struct err error; /* code ERR_NONE: there is one */
    bool made;        /* just now */
    uint8_t point[AGENT_POINT_SIZE];
};
enum agent_signer_purpose { AGENT_SIGNER_ROOT, AGENT_SIGNER_NODE, AGENT_N_SIGNER_PURPOSES };
/* Fields and never bytes: the signer builds the certificate itself. */
struct agent_msg_signer_sign {
    struct agent_msg_head head;
    uint32_t purpose; /* enum agent_signer_purpose */
    int64_t not_before_s, not_after_s;
    uint8_t key[AGENT_POINT_SIZE];   /* which key signs */
    uint8_t point[AGENT_POINT_SIZE]; /* NODE: whose certificate it is; ROOT: the same again */
};
struct agent_msg_signer_signed {
    struct agent_msg_head head;
    struct err error; /* code ERR_NONE: here it is */
    uint32_t cert_len;
    uint8_t cert[AGENT_LEAF_MAX]; /* DER */
};

/* --- supervisor -> attestor ------------------------------------------------------------------- */
struct agent_msg_start_attestor {
    struct agent_msg_head head;
    uint32_t log_level;
    uint32_t max_handles, max_uid_handles;
    uint32_t run_uid, run_gid; /* what to become, if started by root */
    uint64_t hash_max_bytes;   /* larger executables have no digest; 0: no entry asks for any */
    bool force_fallback;       /* behave as a kernel without SO_PEERPIDFD (tests) */
};
/* After a reload: whether some entry asks for the digest of an executable. */
struct agent_msg_attest_options {
    struct agent_msg_head head;
    uint64_t hash_max_bytes;
};

/* --- supervisor -> service -------------------------------------------------------------------- */
struct agent_msg_start_service {
    struct agent_msg_head head;
    uint32_t log_level;
    uint32_t svid_ttl_s;
    uint32_t restarts;         /* how often the service has been started again */
    uint32_t max_calls;        /* open at once, of all callers; this and what follows: not 0 */
    uint32_t max_uid_calls;    /* of one uid */
    uint32_t max_conn_calls;   /* of one connection */
    uint32_t max_uid_bytes;    /* that we hold for one uid */
    uint32_t run_uid, run_gid; /* what to become, if started by root */
    uint16_t trust_domain_len;
    char trust_domain[AGENT_TRUST_DOMAIN_MAX];
};
enum agent_listener { AGENT_LISTENER_ADMIN, AGENT_LISTENER_METRICS };
struct agent_msg_listener {
    struct agent_msg_head head;
    uint32_t which; /* enum agent_listener */
    uint32_t n_uids;
    uint32_t uids[AGENT_UIDS_MAX]; /* admin: who may ask */
};
struct agent_msg_process {
    struct agent_msg_head head;
    uint32_t role;
    int32_t pid;
    uint32_t restarts;
    uint32_t secret_kind; /* keeper's */
    bool memory_locked;   /* keeper's */
    bool separated;       /* false: not started by root, all processes share one uid */
    int64_t started_s;
    struct sandbox_report report;
};
struct agent_msg_entries_state {
    struct agent_msg_head head;
    uint64_t generation;
    uint32_t n_entries;
    uint32_t n_loads, n_failed_loads; /* since the start */
    int64_t loaded_s;                 /* when the set in force was */
    struct err error;                 /* of the last load, code ERR_NONE if it was good */
};

/* --- kubelet <-> supervisor, keeper ----------------------------------------------------------- */
struct agent_msg_start_kubelet {
    struct agent_msg_head head;
    uint32_t log_level;
    uint32_t poll_ms, timeout_ms;
    uint32_t run_uid, run_gid; /* what to become, if started by root */
    bool insecure, plaintext;
    uint16_t host_len, server_name_len, node_name_len;
    char host[AGENT_HOST_MAX];
    char server_name[AGENT_POD_NAME_MAX]; /* that the certificate must have */
    char node_name[AGENT_POD_NAME_MAX];   /* empty: any */
};
enum agent_kubelet_file {
    AGENT_KUBELET_CA,
    AGENT_KUBELET_TOKEN,
    AGENT_KUBELET_CERT,
    AGENT_KUBELET_KEY,
    AGENT_N_KUBELET_FILES,
};
struct agent_msg_kubelet_file {
    struct agent_msg_head head;
    uint32_t which; /* enum agent_kubelet_file */
};
struct agent_msg_kubelet_state {
    struct agent_msg_head head;
    uint64_t n_asked, n_failed;                /* since the process's start */
    int64_t fetched_s;                         /* when the last good list came; 0: never */
    uint32_t n_pods, n_containers, n_left_out; /* of the last good list */
    uint32_t restarts;                         /* of the process; the supervisor fills it in */
    bool configured, insecure, plaintext;      /* likewise */
    struct err error;    /* of the last question, code ERR_NONE if it was good */
    struct err left_out; /* the first pod that was left out, and why */
};
struct agent_msg_pods_begin {
    struct agent_msg_head head;
    uint32_t n_pods;
};
/* Texts may be empty where the kubelet does not tell; uid, ns and name are not. */
struct agent_msg_pod {
    struct agent_msg_head head;
    uint32_t n_containers;
    uint16_t uid_len, ns_len, name_len, sa_len, node_len, labels_len;
    char uid[AGENT_POD_UID_MAX]; /* as in cgroups */
    char ns[AGENT_POD_NAME_MAX];
    char name[AGENT_POD_NAME_MAX];
    char sa[AGENT_POD_NAME_MAX];
    char node[AGENT_POD_NAME_MAX];
    char labels[AGENT_POD_LABELS_MAX];
};
struct agent_msg_container {
    struct agent_msg_head head;
    uint16_t id_len, name_len, image_len, image_id_len, digest_len;
    char id[AGENT_CONTAINER_ID_MAX];
    char name[AGENT_CONTAINER_NAME_MAX];
    char image[AGENT_IMAGE_MAX];
    char image_id[AGENT_IMAGE_MAX];
    char digest[AGENT_IMAGE_MAX]; /* "sha256:HEX", the end of image_id */
};

/* --- documents for proxies: loader -> supervisor -> service ----------------------------------- */
/* docs/state-stream.md; <postern/agent_docs.h> puts them together. */
enum agent_document {
    AGENT_DOCUMENT_POLICY,
    AGENT_DOCUMENT_MESH,
    AGENT_DOCUMENT_MODES,
    AGENT_N_DOCUMENTS,
};
/* To the service alone: the policy that some proxies get in place of the other. */
enum {
    AGENT_DOCUMENT_STAGED = AGENT_N_DOCUMENTS,
    AGENT_N_DOC_PLACES = AGENT_DOCUMENT_STAGED + 1,
    AGENT_STAGE_MAX = 2047,
};
const char *agent_document_name(uint32_t document);
/* In this order: SOURCE, HEAD, TEXT..., and for each item ITEM, TEXT..., TARGET... */
enum agent_doc_part_kind {
    AGENT_DOC_SOURCE, /* the name of the file */
    AGENT_DOC_HEAD,   /* all but the list: the inside of a JSON object */
    AGENT_DOC_ITEM,   /* begins a rule or a service: its line, and its first bytes */
    AGENT_DOC_TARGET, /* one target principal of it; none: it is for every workload */
    AGENT_DOC_TEXT,   /* more bytes of it, or of the head */
};
struct agent_msg_docs {
    struct agent_msg_head head;
    uint64_t generation; /* grows with every other content, also over restarts of the agent */
    uint32_t n_parts;    /* of all documents; 0: proxies are told of none */
    uint64_t policy;     /* the number of the policy in force, where it was pushed; 0: the file */
    uint64_t staged;     /* of the one that is staged; 0: none */
    uint16_t stage_len;
    char stage[AGENT_STAGE_MAX]; /* for whom, <postern/rollout.h> */
};
struct agent_msg_doc_part {
    struct agent_msg_head head;
    uint32_t document; /* enum agent_document */
    uint32_t kind;     /* enum agent_doc_part_kind */
    uint32_t line;     /* ITEM: where it begins in the file, from 1 */
    uint16_t text_len;
    char text[AGENT_DOC_PART_MAX];
};
struct agent_doc_state {
    bool configured;
    uint32_t n_items;
    uint32_t n_loads, n_failed_loads; /* since the start */
    int64_t loaded_s;                 /* when the one in force was; 0: none yet */
    struct err error;                 /* of the last load, code ERR_NONE if it was good */
};
struct agent_msg_docs_state {
    struct agent_msg_head head;
    uint64_t generation; /* 0: nothing to tell yet, a file has not been good so far */
    struct agent_doc_state documents[AGENT_N_DOCUMENTS];
};

/* --- loader -> supervisor --------------------------------------------------------------------- */
struct agent_msg_loaded {
    struct agent_msg_head head;
    uint32_t n_entries;     /* or items of a document */
    uint32_t n_diagnostics; /* 0: the file is good */
};

/* --- attestor -> keeper, service -------------------------------------------------------------- */
struct agent_msg_caller {
    struct agent_msg_head head;
    uint64_t handle;
    uint64_t read_ms;    /* os_now_ms when the facts were read */
    uint64_t start_time; /* of the process, clock ticks since boot */
    int32_t pid;         /* for logs only */
    uint32_t uid, gid;   /* effective, as the agent's user namespace counts them */
    uint32_t n_groups;
    uint32_t groups[AGENT_GROUPS_MAX]; /* supplementary */
    uint32_t runtime;                  /* enum agent_runtime */
    bool groups_truncated;             /* there are more: they count as not there */
    bool own_view;   /* it is in the agent's own mount and user namespaces: names mean the same */
    bool contained;  /* its cgroup is a container's, or a namespace is none of ours: entries of unix
                        selectors alone don't hold */
    bool has_sha256; /* of the executable that it runs */
    uint8_t sha256[AGENT_SHA256_SIZE];
    uint16_t path_len; /* 0: unknown, or not in the agent's own mount namespace */
    uint16_t container_id_len, pod_uid_len, unit_len; /* 0: none, or not to be believed */
    char path[AGENT_PATH_MAX];
    char container_id[AGENT_CONTAINER_ID_MAX];
    char pod_uid[AGENT_POD_UID_MAX];
    char unit[AGENT_UNIT_MAX]; /* of the system manager, such as nginx.service */
};
/* Whom the bounds of a caller count for: the uid of a process of the node's own; the container as a
 * whole of one that is in one, whatever uids it takes (root in there may take any, and containers
 * that have nothing to do with one another are all root's), or the unit; and all together that are
 * in something unknown. */
uint64_t agent_account(bool contained, struct str container_id, struct str unit, uint32_t uid);
struct agent_msg_connection {
    struct agent_msg_head head;
    uint64_t handle;
    uint64_t account; /* agent_account */
    int32_t pid;      /* for logs only */
    uint32_t uid, gid;
};
enum agent_attest {
    AGENT_ATTEST_OK,     /* the keeper has fresh facts */
    AGENT_ATTEST_GONE,   /* the process ended, or no such handle: close the connection */
    AGENT_ATTEST_FAILED, /* its facts could not be read: Unavailable */
};
struct agent_msg_reattested {
    struct agent_msg_head head;
    uint64_t handle;
    uint32_t outcome; /* enum agent_attest */
    bool changed;     /* some fact is another than before */
};

/* --- service <-> keeper ----------------------------------------------------------------------- */
enum agent_outcome {
    AGENT_OK,
    AGENT_NO_HANDLE,        /* never attested, or its process has ended: PermissionDenied */
    AGENT_STALE_FACTS,      /* REATTEST, then ask again */
    AGENT_STALE_GENERATION, /* entries changed: list again */
    AGENT_NOT_ENTITLED,     /* no such entry for this caller (or no identity at all) */
    AGENT_BAD_AUDIENCE,     /* empty, too long or no text: InvalidArgument */
    AGENT_BAD_KEY,          /* the point is not on the curve: InvalidArgument */
    AGENT_LIMITED,          /* too many issuances of this caller: Unavailable */
    AGENT_UNAVAILABLE,      /* cannot sign now (clock, expired root): Unavailable */
    AGENT_QUARANTINED,      /* the identity or the caller's image is: PermissionDenied */
    AGENT_PENDING,          /* the kubelet has not told of its pod or container yet: ask again */
    AGENT_N_OUTCOMES,
};
const char *agent_outcome_name(uint32_t outcome);

/* The identities of a caller, one at a time: position 0, 1, ... until `total`. If generation or
 * facts differ between two answers, begin again at 0. */
struct agent_msg_identity_get {
    struct agent_msg_head head;
    uint64_t handle;
    uint32_t position;
};
struct agent_msg_identity {
    struct agent_msg_head head;
    uint64_t handle;
    uint64_t generation; /* of the entries */
    uint64_t facts;      /* counts the changes of this caller's facts */
    uint64_t dns_digest; /* other DNS names of the entry have another one */
    uint32_t outcome;    /* the rest counts only if AGENT_OK */
    uint32_t position, total;
    uint32_t entry; /* for ISSUE, together with generation */
    uint32_t ttl_s;
    uint32_t n_dns_names;
    uint16_t spiffe_id_len, hint_len;
    char spiffe_id[AGENT_ID_MAX];
    char hint[AGENT_HINT_MAX];
};
struct agent_msg_issue {
    struct agent_msg_head head;
    uint64_t handle;
    uint64_t generation; /* of the entries, as listed */
    uint32_t entry;
    uint8_t point[AGENT_POINT_SIZE]; /* the subject's key: 0x04, X, Y */
};
struct agent_msg_issued {
    struct agent_msg_head head;
    uint64_t handle;
    int64_t not_before_s, not_after_s; /* of the leaf */
    uint32_t outcome;                  /* the rest counts only if AGENT_OK */
    uint32_t leaf_len, chain_len;
    uint8_t serial[16]; /* of the leaf */
    uint8_t leaf[AGENT_LEAF_MAX];
    uint8_t chain[AGENT_CHAIN_MAX];
};
struct agent_msg_bundle {
    struct agent_msg_head head;
    uint64_t generation; /* grows when the roots change, or one is tainted */
    uint32_t tainted;    /* bit i: what is under the i-th root is to be replaced at once */
    uint32_t roots_len;
    uint8_t roots[AGENT_BUNDLE_MAX]; /* DER, one after another */
};
/* A token for one of the caller's entries. Header and claims are the keeper's. */
struct agent_msg_jwt_sign {
    struct agent_msg_head head;
    uint64_t handle;
    uint64_t generation; /* of the entries, as listed */
    uint32_t entry;
    uint32_t n_audiences;
    uint16_t lens[AGENT_AUDIENCES_MAX]; /* of each; together they are audiences_len */
    uint32_t audiences_len;
    uint8_t audiences[AGENT_AUDIENCES_BYTES]; /* one after another */
};
struct agent_msg_jwt_signed {
    struct agent_msg_head head;
    uint64_t handle;
    int64_t issued_s, expires_s;
    uint32_t outcome; /* the rest counts only if AGENT_OK */
    uint32_t token_len;
    uint8_t token[AGENT_TOKEN_MAX];
};
struct agent_msg_jwks {
    struct agent_msg_head head;
    uint64_t generation; /* grows when the keys change */
    uint32_t jwks_len;
    uint8_t jwks[AGENT_JWKS_MAX]; /* a JWK set, without `use` */
};
/* What ends first of what this node cannot replace by itself. */
enum agent_outage {
    AGENT_OUTAGE_ROOT,
    AGENT_OUTAGE_AUTHORITY,
    AGENT_OUTAGE_BUNDLE,
    AGENT_OUTAGE_TOKEN, /* the intermediate, when the token with the key above it stays away */
    AGENT_N_OUTAGES,
};
const char *agent_outage_name(uint32_t outage);
/* Whether the root's key lives in a token, and the last question to it was answered. */
enum agent_token { AGENT_TOKEN_NONE, AGENT_TOKEN_OK, AGENT_TOKEN_AWAY, AGENT_N_TOKENS };
const char *agent_token_name(uint32_t token);
struct agent_msg_changed {
    struct agent_msg_head head;
    uint64_t entries_generation;
    uint64_t bundle_generation;
    uint64_t deny_version;                      /* of what is quarantined: streams look again */
    uint64_t pods_generation;                   /* grows when the pods of the node change */
    int64_t root_not_after_s, node_not_after_s; /* for status and metrics */
    int64_t outage_until_s;                     /* this node goes on by itself until then */
    uint32_t outage_by;                         /* enum agent_outage */
    uint64_t n_issued, n_refused;               /* since the keeper's start */
    uint64_t jwks_generation;                   /* 0: there is no key for tokens yet */
    uint64_t n_jwt_issued;                      /* since the keeper's start */
    uint64_t journal_file, journal_seq;         /* 0: there is none */
    uint64_t journal_lost;                      /* lines that were not written, since the start */
    bool journal_failing;                       /* the last one was not */
    uint32_t token;                             /* enum agent_token */
    uint64_t n_token_failed;                    /* questions to it, since the start */
};

/* Room for any message. */
union agent_msg {
    struct agent_msg_head head;
    struct agent_msg_plain plain;
    struct agent_msg_handle handle;
    struct agent_msg_ask ask;
    struct agent_msg_report report;
    struct agent_msg_failed failed;
    struct agent_msg_start_keeper start_keeper;
    struct agent_msg_ca_file ca_file;
    struct agent_msg_key_source key_source;
    struct agent_msg_state state;
    struct agent_msg_state_placed state_placed;
    struct agent_msg_ca_order ca_order;
    struct agent_msg_ca_answer ca_answer;
    struct agent_msg_entries_begin entries_begin;
    struct agent_msg_entry entry;
    struct agent_msg_entries_applied entries_applied;
    struct agent_msg_start_attestor start_attestor;
    struct agent_msg_attest_options attest_options;
    struct agent_msg_start_service start_service;
    struct agent_msg_listener listener;
    struct agent_msg_process process;
    struct agent_msg_entries_state entries_state;
    struct agent_msg_docs docs;
    struct agent_msg_doc_part doc_part;
    struct agent_msg_docs_state docs_state;
    struct agent_msg_loaded loaded;
    struct agent_msg_start_kubelet start_kubelet;
    struct agent_msg_kubelet_file kubelet_file;
    struct agent_msg_kubelet_state kubelet_state;
    struct agent_msg_pods_begin pods_begin;
    struct agent_msg_pod pod;
    struct agent_msg_container container;
    struct agent_msg_caller caller;
    struct agent_msg_connection connection;
    struct agent_msg_reattested reattested;
    struct agent_msg_identity_get identity_get;
    struct agent_msg_identity identity;
    struct agent_msg_issue issue;
    struct agent_msg_issued issued;
    struct agent_msg_bundle bundle;
    struct agent_msg_changed changed;
    struct agent_msg_deny_begin deny_begin;
    struct agent_msg_deny_item deny_item;
    struct agent_msg_jwt_sign jwt_sign;
    struct agent_msg_jwt_signed jwt_signed;
    struct agent_msg_jwks jwks;
    struct agent_msg_deny_note deny_note;
    struct agent_msg_journal journal;
    struct agent_msg_journal_next journal_next;
    struct agent_msg_start_signer start_signer;
    struct agent_msg_signer_pin signer_pin;
    struct agent_msg_signer_key signer_key;
    struct agent_msg_signer_key_is signer_key_is;
    struct agent_msg_signer_sign signer_sign;
    struct agent_msg_signer_signed signer_signed;
};

/* --- sending and receiving -------------------------------------------------------------------- */
/* Which way a message goes. */
enum agent_way {
    AGENT_WAY_SUPERVISOR_KEEPER,
    AGENT_WAY_KEEPER_SUPERVISOR,
    AGENT_WAY_SUPERVISOR_ATTESTOR,
    AGENT_WAY_ATTESTOR_SUPERVISOR,
    AGENT_WAY_SUPERVISOR_SERVICE,
    AGENT_WAY_SERVICE_SUPERVISOR,
    AGENT_WAY_LOADER_SUPERVISOR,
    AGENT_WAY_SUPERVISOR_KUBELET,
    AGENT_WAY_KUBELET_SUPERVISOR,
    AGENT_WAY_KUBELET_KEEPER,
    AGENT_WAY_KEEPER_KUBELET,
    AGENT_WAY_SUPERVISOR_SIGNER,
    AGENT_WAY_SIGNER_SUPERVISOR,
    AGENT_WAY_KEEPER_SIGNER,
    AGENT_WAY_SIGNER_KEEPER,
    AGENT_WAY_ATTESTOR_KEEPER,
    AGENT_WAY_ATTESTOR_SERVICE,
    AGENT_WAY_SERVICE_ATTESTOR,
    AGENT_WAY_SERVICE_KEEPER,
    AGENT_WAY_KEEPER_SERVICE,
    AGENT_N_WAYS,
};

/* Zeroes the message of this type (its whole struct) and fills the head. The space is the caller's:
 * a struct agent_msg_* of the type, or a union agent_msg. */
void agent_ipc_init(void *msg, enum agent_msg_type type, uint64_t request_id);
/* Sends a message made with agent_ipc_init; fd_to_pass (borrowed) exactly if the type wants one. */
enum ipc_outcome agent_ipc_send(int fd, const void *msg, int fd_to_pass)
    __attribute__((warn_unused_result));
/* Receives and checks one message that came that way. *ret_fd is the caller's, or -1. On anything
 * but IPC_OK *ret_msg is undefined. */
enum ipc_outcome agent_ipc_recv(int fd, enum agent_way way, union agent_msg *ret_msg, int *ret_fd)
    __attribute__((warn_unused_result));
/* The check alone, a pure function of the bytes: for agent_ipc_recv and its fuzzer. */
bool agent_ipc_check(enum agent_way way, const void *msg, size_t len, bool has_fd);
/* Copies s into a text of `max` bytes; false, and nothing done, if it is longer. */
bool agent_ipc_put(char *text, size_t max, uint16_t *ret_len, struct str s);

/* --- what each child does before its first byte from outside ---------------------------------- */
struct agent_confine {
    enum agent_role role;
    uint32_t uid, gid;              /* what to become, if this is root */
    uint64_t keep_caps;             /* bit mask of CAP_*, of those that it has */
    uint32_t max_fds;               /* soft limit of descriptors, as far as the hard one lets */
    bool no_files;                  /* Landlock without a single path */
    const char *const *read_files;  /* Landlock with these, for reading; NULL: none */
    const char *const *write_files; /* likewise, for writing too; only beside read_files */
    const char *const *syscalls;    /* NULL-terminated: all that it calls from here on */
    unsigned some; /* enum sandbox_some: what it calls with certain arguments only */
    bool count;    /* refused calls are counted (its threads don't block SIGSYS) */
};
/* In the order of <postern/sandbox.h>, and signals: SIGINT and SIGHUP of a terminal are the
 * supervisor's; SIGKILL comes when the supervisor dies. Fills the message for the supervisor.
 * With POSTERN_SANDBOX_KILL in the environment every call that is not listed kills (tests). */
int agent_confine(const struct agent_confine *c, struct agent_msg_report *ret_report,
                  struct err *err);

/* --- its first words with the supervisor, over AGENT_FD_CONTROL ------------------------------- */
/* Waits for the first message, which has to be of this type. */
int agent_child_wait_start(enum agent_way way, enum agent_msg_type type, const char *executable,
                           union agent_msg *ret, struct err *err);
/* What is said at the start finds room: nothing is waited for. */
int agent_child_tell(const void *msg, struct err *err);
/* Why it ends; on standard error if nobody hears it. */
void agent_child_tell_failure(const char *executable, const struct err *err);

#endif
