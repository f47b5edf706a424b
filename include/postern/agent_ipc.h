/*
 * agent_ipc: what the processes of an agent say to each other.
 *
 * Supervisor, keeper, attestor, service, on a node of Kubernetes kubelet (which asks the node's),
 * where the root's key lives in a token signer, and (for a moment) loader are processes, joined by
 * SOCK_SEQPACKET pairs of <postern/ipc.h>. A message is one struct agent_msg_*, each in the header
 * of its channel, sent and received whole; the table in agent_rules.c says for each type which way
 * it may go, its exact size and whether a descriptor comes with it. Who may ask what is in
 * docs/privilege-separation.md.
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

#include <postern/agent_msg.h>
#include <postern/agent_msg_caller.h>
#include <postern/agent_msg_keeper.h>
#include <postern/agent_msg_kubelet.h>
#include <postern/agent_msg_service.h>
#include <postern/agent_msg_signer.h>
#include <postern/ipc.h>
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
    AGENT_MSG_HISTORY,       /* agent_msg_history; also service -> supervisor, to be kept */
    AGENT_MSG_STOP,          /* agent_msg_plain: end orderly; closing the channel means the same */
    /* loader -> supervisor: ENTRY... or DOC_PART... and DOUBT..., or DIAGNOSTIC..., then LOADED */
    AGENT_MSG_DIAGNOSTIC, /* agent_msg_failed: one error of the file */
    AGENT_MSG_DOUBT,      /* agent_msg_failed: one warning about a file that is taken */
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
    struct agent_msg_history history;
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

#endif
