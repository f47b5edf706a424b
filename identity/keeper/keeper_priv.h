/*
 * keeper: the process that holds the CA keys of an agent. What its files share.
 *
 * main.c      its start, as a list
 * privs.c     all that it may do
 * clock.c     the time, handed in
 * store.c     records of authorities, and as bytes
 * seal.c      those bytes in a file, plain or sealed
 * authority.c the root, the node's intermediate, and signing
 * entries.c   its own copy of who may have which identity; match.c whom an entry fits, template.c
 *             what its identity then is: a library, <postern/keeper.h>
 * callers.c   attested handles and their limits; facts.c what is known of them
 * dispatch.c  the messages: who may say what, and what happens then
 *
 * One thread, no allocation that a workload can make grow past the limits of its start message.
 */
#ifndef POSTERN_KEEPER_PRIV_H
#define POSTERN_KEEPER_PRIV_H

#include "seal.h"
#include "store.h"
#include <postern/agent_ipc.h>
#include <postern/keeper.h>
#include <postern/log.h>
#include <postern/x509.h>
#include <stdbool.h>
#include <stdint.h>

/* --- clock ------------------------------------------------------------------------------------ */
/* Every time that a judgement depends on comes from here, so that tests can move it. */
struct keeper_clock {
    int64_t (*wall_s)(void *arg);  /* seconds since the epoch: may jump */
    uint64_t (*now_ms)(void *arg); /* milliseconds of CLOCK_BOOTTIME: never jumps */
    void *arg;
};
/* The machine's own. */
struct keeper_clock keeper_clock_os(void);
int64_t keeper_clock_wall_s(const struct keeper_clock *c);
uint64_t keeper_clock_now_ms(const struct keeper_clock *c);

/* --- authority -------------------------------------------------------------------------------- */
struct keeper_authority {
    char trust_domain_id[SPIFFE_ID_MAX + 1]; /* "spiffe://td" */
    uint32_t root_ttl_s, node_ttl_s;
    EVP_PKEY *root_key; /* owned, as all below */
    X509 *root;
    EVP_PKEY *node_key;
    X509 *node;
    uint8_t *root_der, *node_der;
    size_t root_der_len, node_der_len;
    int64_t node_renew_s; /* when half of the intermediate's life is over */
    uint32_t secret_kind; /* how the root key's bytes were held, enum mem_secret_kind */
};

/* One certificate made for a caller. */
struct keeper_leaf {
    uint8_t *der; /* owned */
    size_t len;
    uint8_t serial[16];
    int64_t not_before_s, not_after_s;
};

void keeper_authority_init(struct keeper_authority *a, struct str trust_domain, uint32_t root_ttl_s,
                           uint32_t node_ttl_s);
void keeper_authority_deinit(struct keeper_authority *a);
/* Makes a new root and writes it to two empty files, synced. */
int keeper_authority_create(struct keeper_authority *a, int key_fd, int cert_fd, int64_t now_s,
                            struct err *err);
/* Reads the root from its files, which must be owner's, private, whole and fit each other. */
int keeper_authority_load(struct keeper_authority *a, int key_fd, int cert_fd, uid_t owner,
                          int64_t now_s, struct err *err);
/* A new intermediate with a key of its own. On failure the old one stays. */
int keeper_authority_renew_node(struct keeper_authority *a, int64_t now_s, struct err *err);
/* what->not_before_s and not_after_s are set here, from ttl_s. */
int keeper_authority_issue(struct keeper_authority *a, struct x509_issue *what, uint32_t ttl_s,
                           int64_t now_s, struct keeper_leaf *ret, struct err *err);

/* The subject's key must be an uncompressed point on the curve. */
bool keeper_point_ok(const uint8_t point[AGENT_POINT_SIZE]);

/* --- callers ---------------------------------------------------------------------------------- */
/* Signatures are bounded by a bucket per uid: so many at once, then so many a second. A fresh
 * connection asks for all of its identities at once; many connections of one uid (pods whose
 * proxies share it) come together after a reload. What one uid asks does not delay another's: the
 * service asks for them in turn. */
struct keeper_bucket {
    uint64_t milli; /* tokens, in thousandths */
    uint64_t at_ms; /* when that was */
};

struct keeper_account;
struct keeper_caller {
    struct keeper_caller *next;
    struct keeper_account *account; /* of the uid at the time of the connection */
    uint64_t handle;
    uint64_t read_ms; /* age of the facts */
    uint64_t facts_count;
    int pidfd; /* owned */
    int32_t pid;
    struct keeper_facts facts; /* what the attestor said last; pod and container are NULL here */
    uint8_t *facts_space;      /* owned: where the texts and lists of it are */
    size_t facts_size;
};

/* Copies the facts of a message into one allocation, so that equal facts are equal bytes. */
void keeper_facts_take(const struct agent_msg_caller *msg, struct keeper_facts *ret,
                       uint8_t **ret_space, size_t *ret_size);

struct keeper_callers; /* opaque to the others */
struct keeper_callers *keeper_callers_new(const struct agent_msg_start_keeper *start);
struct keeper_callers *keeper_callers_free(struct keeper_callers *cs);
/* Takes pidfd in any case. false: the attestor broke its word (a handle used twice, too many). */
bool keeper_callers_add(struct keeper_callers *cs, const struct agent_msg_caller *msg, int pidfd,
                        uint64_t now_ms);
/* false: no such handle. */
bool keeper_callers_update(struct keeper_callers *cs, const struct agent_msg_caller *msg);
void keeper_callers_remove(struct keeper_callers *cs, uint64_t handle);
struct keeper_caller *keeper_callers_find(struct keeper_callers *cs, uint64_t handle);
/* Asks the kernel, now. */
bool keeper_caller_alive(const struct keeper_caller *c);
/* Takes one signature from the uid's bucket; false if it is empty. */
bool keeper_caller_charge(struct keeper_callers *cs, struct keeper_caller *c, uint64_t now_ms);

/* --- dispatch --------------------------------------------------------------------------------- */
struct keeper {
    int control, attestor, service; /* service: -1 while there is none */
    struct log *log;
    struct keeper_clock clock;
    struct keeper_authority authority;
    struct keeper_callers *callers;
    struct keeper_entries *entries;  /* in force */
    struct keeper_entries *incoming; /* in the making, or NULL */
    char trust_domain[AGENT_TRUST_DOMAIN_MAX + 1];
    uint32_t svid_ttl_s;
    uint64_t bundle_generation;
    uint64_t n_issued, n_refused;
    bool started;         /* there is a root: questions can be answered */
    bool answer_pending;  /* the service's queue was full: `answer` waits, nothing more is read */
    bool changed_pending; /* a push is due */
    uint64_t refusals_ms; /* window in which refusals are logged one by one */
    uint32_t n_refusals_logged;
    union agent_msg answer;
    union agent_msg in;
    struct agent_msg_report report; /* of this process; sent again when the keys are there */
    int key_fd;                     /* state file that came first; -1: none */
    struct agent_msg_state key_state;
};

/* All that is known of a caller now: what the attestor said, and whose pod that is. Lent until the
 * next message. */
void keeper_facts_get(const struct keeper *k, const struct keeper_caller *c,
                      struct keeper_facts *ret);

/* Tells the supervisor, which always reads. */
int keeper_tell(struct keeper *k, const void *msg, struct err *err);
/* Runs until the supervisor closes the control channel: 0 then, -1 if it cannot go on. */
int keeper_run(struct keeper *k, struct err *err);

/* --- privs ------------------------------------------------------------------------------------ */
/* Gives up everything but what keeper_run needs; *ret_report says what took effect. */
int keeper_drop_privileges(const struct agent_msg_start_keeper *start,
                           struct agent_msg_report *ret_report, struct err *err);

#endif
