/*
 * agent_msg_keeper: supervisor <-> keeper: its state and authorities, entries, what is quarantined
 * (which the service hears too), the journal.
 */
#ifndef POSTERN_AGENT_MSG_KEEPER_H
#define POSTERN_AGENT_MSG_KEEPER_H

#include <postern/agent_msg.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stdint.h>

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

#endif
