/*
 * agent_msg_service: supervisor -> service, and what the loader gives the supervisor of it:
 * sockets, the state of the other processes, documents for proxies.
 */
#ifndef POSTERN_AGENT_MSG_SERVICE_H
#define POSTERN_AGENT_MSG_SERVICE_H

#include <postern/agent_msg.h>
#include <postern/buf.h>
#include <postern/err.h>
#include <postern/sandbox.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
    uint32_t n_warnings;              /* of the one in force; they are in the log */
    int64_t loaded_s;                 /* when the one in force was; 0: none yet */
    struct err error;                 /* of the last load, code ERR_NONE if it was good */
};
struct agent_msg_docs_state {
    struct agent_msg_head head;
    uint64_t generation; /* 0: nothing to tell yet, a file has not been good so far */
    struct agent_doc_state documents[AGENT_N_DOCUMENTS];
};

/* What the service keeps of permissive ports, in parts: bytes that the supervisor puts into a file
 * and does not read. */
struct agent_msg_history {
    struct agent_msg_head head;
    uint32_t total,
        at; /* bytes of all of it; where this part begins, 0: what came before is void */
    uint32_t bytes_len;
    uint8_t bytes[AGENT_DOC_PART_MAX];
};
/* The next part of all of it, from *at on; false: there is no more. Nothing at all is one part. */
bool agent_history_part(struct str all, size_t *at, struct agent_msg_history *ret);
/* Takes a part; false: it is out of order, or too large. *ret_whole: that was the last one. */
bool agent_history_take(struct buf *b, const struct agent_msg_history *m, bool *ret_whole);

/* --- loader -> supervisor --------------------------------------------------------------------- */
struct agent_msg_loaded {
    struct agent_msg_head head;
    uint32_t n_entries;     /* or items of a document */
    uint32_t n_diagnostics; /* 0: the file is good */
};

#endif
