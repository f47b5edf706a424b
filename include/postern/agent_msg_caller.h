/*
 * agent_msg_caller: who calls the agent, and what is asked for them: supervisor -> attestor,
 * attestor
 * -> keeper and service, service <-> keeper.
 */
#ifndef POSTERN_AGENT_MSG_CALLER_H
#define POSTERN_AGENT_MSG_CALLER_H

#include <postern/agent_msg.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stdint.h>

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

#endif
