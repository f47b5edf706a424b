/*
 * keeper: the process that holds the CA keys of an agent. What its files share.
 *
 * main.c      its start, as a list
 * privs.c     all that it may do
 * clock.c     the time, handed in
 * store.c     records of authorities, and as bytes
 * seal.c      those bytes in a file, plain or sealed; rest.c: under which passphrase
 * entries.c   its own copy of who may have which identity; match.c whom an entry fits, template.c
 *             what its identity then is: a library, <postern/keeper.h>
 * deny.c      what is quarantined: nothing is issued for it
 * callers.c   attested handles and their limits; facts.c what is known of them
 * pods.c      its own copy of the node's pods; kubelet.c the channel that they come by
 * disk.c      an authority from files
 * root.c      roots of the agent's own, and the files of earlier releases
 * signer.c    the channel to the process that uses the token
 * start.c     state files -> something in force
 * journal.c   the record of what was issued: its file; journal_events.c: its lines
 * change.c    a new state: built, written, put in place, and only then in force
 * authority.c what is in force: the node's intermediate, the bundle, and signing
 * jwt.c       keys for tokens, and tokens; jwt_answer.c  what the service may ask about them
 * rotation.c  what is due of authorities, and changes of them; orders.c: by order and by schedule
 * use.c       under which authority the SVIDs are that are out there
 * tick.c      what time brings; budget.c: how long it lasts without what is above
 * dispatch.c  the messages: who may say what, and what happens then
 *
 * One thread, no allocation that a workload can make grow past the limits of its start message.
 */
#ifndef POSTERN_KEEPER_PRIV_H
#define POSTERN_KEEPER_PRIV_H

#include "pods.h"
#include "rotation.h"
#include "seal.h"
#include "store.h"
#include <postern/agent_ipc.h>
#include <postern/journal.h>
#include <postern/jwt.h>
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
enum { KEEPER_BACKDATE_S = 10 }; /* for peers whose clock is a little behind */

/* What is in force: made whole, and exchanged whole. */
struct keeper_force {
    struct keeper_store store; /* what of it is in the state file */
    /* the authority above the node's intermediate */
    char issuer_id[KEEPER_RECORD_ID_MAX + 1];
    EVP_PKEY *issuer_key; /* owned, as all below */
    bool issuer_in_token; /* of issuer_key there is the public half only */
    X509 *issuer;
    int64_t issuer_not_before_s, issuer_not_after_s;
    /* the node's intermediate */
    EVP_PKEY *node_key;
    X509 *node;
    struct x509_signer *signer;
    uint8_t *chain; /* DER: what goes with a leaf */
    size_t chain_len;
    int64_t node_not_before_s, node_not_after_s;
    int64_t node_renew_s; /* when half of its life is over */
    /* what peers trust */
    uint8_t *bundle; /* DER of the roots, one after another */
    size_t bundle_len;
    int64_t bundle_not_after_s; /* of the root that lasts longest */
    uint32_t bundle_tainted;    /* bit i: what is under the i-th root is to be replaced at once */
};

/* An authority from files. */
struct keeper_disk {
    char id[KEEPER_RECORD_ID_MAX + 1];
    EVP_PKEY *key;  /* owned, as all below */
    X509 *cert;     /* its own */
    uint8_t *chain; /* DER: that and those above it, without the root */
    size_t chain_len;
    int64_t not_before_s, not_after_s; /* of the whole chain */
    bool has_room;                     /* for the node's intermediate below it */
    uint8_t *bundle;                   /* DER */
    size_t bundle_len;
    int64_t bundle_not_after_s;
};

struct keeper_signer;
struct keeper_authority {
    struct keeper_signer *signer;            /* lent; NULL: no token is configured */
    struct keeper_disk *disk;                /* owned; NULL: roots of the agent's own */
    char trust_domain_id[SPIFFE_ID_MAX + 1]; /* "spiffe://td" */
    uint32_t root_ttl_s, node_ttl_s;
    struct keeper_force *force; /* owned; NULL: nothing yet */
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
/* From a store, which it takes in any case; with a new intermediate if the authority above it is
 * another than the one in force. NULL: nothing was changed. */
struct keeper_force *keeper_force_build(const struct keeper_authority *a,
                                        struct keeper_store *store, int64_t now_s, struct err *err);
struct keeper_force *keeper_force_free(struct keeper_force *f);
/* Puts it in force; true: the bundle is another than before. */
bool keeper_authority_take(struct keeper_authority *a, struct keeper_force *f);
/* A new intermediate with a key of its own. On failure the old one stays. */
int keeper_force_renew_node(const struct keeper_authority *a, struct keeper_force *f, int64_t now_s,
                            struct err *err);
/* what->not_before_s and not_after_s are set here, from ttl_s. */
int keeper_authority_issue(const struct keeper_authority *a, struct x509_issue *what,
                           uint32_t ttl_s, int64_t now_s, struct keeper_leaf *ret, struct err *err);

/* --- an authority from files (disk.c) --------------------------------------------------------- */
struct keeper_disk *keeper_disk_free(struct keeper_disk *d);
int keeper_disk_key_check(const struct keeper_disk *d, struct err *err);
/* Adds what an operator has to know to why it cannot be used. */
int keeper_disk_refuse(struct err *err);
/* Whether what it signs would be taken by peers. */
int keeper_disk_check(const struct keeper_authority *a, struct keeper_force *f, int64_t now_s,
                      struct err *err);
struct keeper;
/* One of the three files, in their order. */
int keeper_on_ca_file(struct keeper *k, const struct agent_msg_ca_file *msg, int fd,
                      struct err *err);
/* Puts k->disk_next in force, or says why not. Not while a change is under way. */
void keeper_disk_apply(struct keeper *k);

/* --- a root's key in a token (signer.c) ------------------------------------------------------- */
struct keeper_signer {
    int fd;       /* -1: it is away */
    bool failing; /* the last question had no answer */
    uint64_t n_asked, n_failed;
    uint64_t n_told; /* of those that failed: so many the service knows of */
};
struct keeper;
void keeper_signer_open(struct keeper *k, int fd); /* takes fd; the one of before is dropped */
/* Sees that it is gone. */
void keeper_signer_turn(struct keeper *k);
enum agent_token keeper_signer_state(const struct keeper *k);
/* A root with the key that has the configured label, or with a new one. */
int keeper_signer_root(struct keeper_signer *s, bool another, int64_t not_before_s,
                       int64_t not_after_s, uint8_t ret_point[AGENT_POINT_SIZE], X509 **ret,
                       struct err *err);
/* The node's intermediate: what->point and what's times count. */
int keeper_signer_node(struct keeper_signer *s, EVP_PKEY *root_key, const struct x509_issue *what,
                       X509 **ret, struct err *err);

/* --- roots of our own (root.c) ---------------------------------------------------------------- */
extern const char *const keeper_root_advice; /* for whoever finds one that cannot be used */
/* Fills a new record, but for its state; where there is a token, with a key in it: of one that is
 * active already that with the label itself. */
int keeper_root_make(const struct keeper_authority *a, struct keeper_record *r, int64_t now_s,
                     struct err *err);
/* Key and certificate, which fit each other and are our trust domain's; times are not judged. Of a
 * key in a token *ret_key is the public half. */
int keeper_root_read(const struct keeper_authority *a, const struct keeper_record *r,
                     EVP_PKEY **ret_key, X509 **ret_cert, struct err *err);
/* Fills a new record from the two files of earlier releases. */
int keeper_root_read_old(const struct keeper_authority *a, int key_fd, int cert_fd, uid_t owner,
                         int64_t now_s, struct keeper_record *r, struct err *err);
#define KEEPER_ANY_OWNER ((uid_t) - 1)
/* The whole of a file that is the owner's, and nobody else's to write (or read, if private), into
 * mem_secret memory. */
int keeper_file_read(int fd, const char *name, uid_t owner, bool private, size_t max, uint8_t **ret,
                     size_t *ret_len, struct err *err);

/* --- changes of the state (change.c) ---------------------------------------------------------- */
struct keeper;
/* One change at a time: what is to come, until the supervisor has put its file in place. */
struct keeper_change {
    enum keeper_change_phase {
        KEEPER_CHANGE_NONE,
        KEEPER_CHANGE_WANTED,  /* an empty file was asked for */
        KEEPER_CHANGE_WRITTEN, /* it is written and synced: the supervisor puts it in place */
    } phase;
    struct keeper_force *next; /* owned */
    /* What to do when it is in force, or not (then with the reason). */
    void (*done)(struct keeper *k, const struct err *failure);
};
/* Asks for a file. Takes next in any case. */
int keeper_change_begin(struct keeper *k, struct keeper_force *next,
                        void (*done)(struct keeper *k, const struct err *failure), struct err *err);
/* The file has come: writes. Not the caller's any more. -1: the keeper cannot go on. */
int keeper_change_write(struct keeper *k, int fd, struct err *err);
int keeper_change_placed(struct keeper *k, const struct agent_msg_state_placed *msg,
                         struct err *err);

/* --- which authority is in use (use.c) -------------------------------------------------------- */
struct keeper_uses; /* opaque to the others */
struct keeper_uses *keeper_uses_new(void);
struct keeper_uses *keeper_uses_free(struct keeper_uses *u);
uint64_t keeper_use_tag(const char *text); /* of an authority's id, of a SPIFFE ID */
/* The newest SVID of that identity of that handle. */
void keeper_uses_note(struct keeper_uses *u, uint64_t handle, uint64_t identity, uint64_t authority,
                      int64_t until_s);
/* The handle is gone; what it had may be in use elsewhere. */
void keeper_uses_gone(struct keeper_uses *u, uint64_t handle);
/* Something under it may be in use until then. */
void keeper_uses_assume(struct keeper_uses *u, uint64_t authority, int64_t until_s);
/* It signed before this process began. */
void keeper_uses_inherit(struct keeper_uses *u, uint64_t authority);
struct keeper_use keeper_uses_of(const struct keeper_uses *u, uint64_t authority, int64_t now_s);
/* What is known at the start. */
void keeper_uses_start(struct keeper *k);

/* --- exchanging authorities (orders.c) -------------------------------------------------------- */
struct keeper_order {
    uint64_t ticket; /* whose answer is due; 0: by schedule */
    enum agent_ca_verb verb;
    enum keeper_kind kind;
    bool force;
    char id[KEEPER_RECORD_ID_MAX + 1]; /* "": the one that can be meant */
};
int keeper_on_order(struct keeper *k, const struct agent_msg_ca_order *msg, struct err *err);
void keeper_rotate_if_due(struct keeper *k);

/* --- the outage budget (budget.c) ------------------------------------------------------------- */
struct keeper_budget {
    int64_t until_s; /* until when this node can issue and verify by itself */
    int64_t life_s;  /* of what ends first */
    enum agent_outage ends_first;
};
struct keeper_budget keeper_budget_get(const struct keeper *k);
/* A log line at each crossing of the threshold. */
void keeper_budget_watch(struct keeper *k);

/* --- time (tick.c) ---------------------------------------------------------------------------- */
/* Both clocks at one moment, to see when one of them is set. */
struct keeper_pace {
    int64_t wall_s;
    uint64_t ms;
    uint64_t steady_ms; /* since when the wall clock has run evenly */
};
void keeper_pace_start(struct keeper *k);
/* 0: it has for long enough */
uint64_t keeper_steady_in_ms(const struct keeper *k, enum keeper_kind kind);
void keeper_tick(struct keeper *k);
int keeper_wake_ms(const struct keeper *k);
/* A descriptor that is readable when keeper_tick is due. */
int keeper_timer_new(struct err *err);
void keeper_timer_arm(struct keeper *k, bool fired);

/* --- the key at rest (rest.c) ----------------------------------------------------------------- */
/* Passphrases, from their files to the state's; owned, mem_secret; NULL: there is none. */
struct keeper_rest {
    char *passphrase, *old_passphrase;
    size_t len, old_len;
};
void keeper_rest_deinit(struct keeper_rest *r);
int keeper_on_key_source(struct keeper *k, const struct agent_msg_key_source *msg, int fd,
                         struct err *err);
/* The payload of a state file. k->seal is set to how it is written from now on; *ret_reseal: not
 * as it was. */
int keeper_rest_open(struct keeper *k, struct str file, uint8_t **ret, size_t *ret_len,
                     bool *ret_reseal, struct err *err);
/* The same for a state that is yet to be written. */
int keeper_rest_begin(struct keeper *k, struct err *err);

/* --- the start (start.c) ---------------------------------------------------------------------- */
/* A state file, or one of the two of the old layout. */
int keeper_on_state(struct keeper *k, const struct agent_msg_state *msg, int fd, struct err *err);
/* Peers outside this node have to learn the next one, so somebody has to know in time. */
void keeper_warn_of_root_end(struct keeper *k);
/* Whether authorities of this kind are the keeper's own to make, and making one: fills a new
 * record, but for kind and state. */
bool keeper_makes(const struct keeper *k, enum keeper_kind kind);
int keeper_make(struct keeper *k, struct keeper_record *r, int64_t now_s, struct err *err);

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
    uint64_t
        pending_ms;  /* since when it waits for its pod and container to be told; 0: it does not */
    bool pods_known; /* they have been */
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

/* --- quarantine ------------------------------------------------------------------------------- */
struct keeper;
struct keeper_deny; /* one set; NULL: nothing is quarantined */
struct keeper_deny *keeper_deny_new(uint64_t version, size_t expected);
struct keeper_deny *keeper_deny_free(struct keeper_deny *d);
void keeper_deny_add(struct keeper_deny *d, const struct agent_msg_deny_item *msg);
/* Whether this caller may not have this identity: ask before anything is signed for it. */
bool keeper_deny_stops(const struct keeper_deny *d, const struct keeper_facts *facts,
                       const char *spiffe_id);
/* Of n places that are granted keeps those that are not stopped, in order; returns how many. */
size_t keeper_deny_filter(const struct keeper_deny *d, const struct keeper_entries *set,
                          const struct keeper_facts *facts, uint32_t *places, size_t n);
uint64_t keeper_deny_version(const struct keeper_deny *d);
/* Puts the set in force and says so. */
int keeper_deny_commit(struct keeper *k, const struct agent_msg_deny_begin *msg, struct err *err);
/* --- keys for tokens (jwt.c), and the service's questions about them (jwt_answer.c) ----------- */
struct keeper_jwt {
    enum jwt_alg alg; /* of keys to come */
    uint32_t ttl_s, key_ttl_s;
    /* what is in force, made from a store */
    EVP_PKEY *key; /* owned; NULL: none yet */
    int64_t key_not_after_s;
    char *set; /* owned: the public keys, as a JWK set */
    size_t set_len;
    uint64_t generation; /* of the set; 0: there is none */
    uint64_t n_issued;
};
void keeper_jwt_init(struct keeper_jwt *j, enum jwt_alg alg, uint32_t ttl_s, uint32_t key_ttl_s);
void keeper_jwt_deinit(struct keeper_jwt *j);
/* Fills a new record, but for its state: a new key. */
int keeper_jwt_make(const struct keeper_jwt *j, struct keeper_record *r, int64_t now_s,
                    struct err *err);
/* Puts the store's keys for tokens in force. On failure what was in force stays. */
int keeper_jwt_take(struct keeper_jwt *j, const struct keeper_store *store, struct err *err);
struct keeper_token {
    char *text; /* owned */
    char kid[JWT_KID_SIZE];
    uint8_t jti[JWT_JTI_SIZE];
    int64_t issued_s, expires_s;
};
/* ttl_s 0: the default; it never outlives the key. */
int keeper_jwt_sign(struct keeper_jwt *j, struct str spiffe_id, uint32_t ttl_s,
                    const struct str *audiences, size_t n_audiences, int64_t now_s,
                    struct keeper_token *ret, struct err *err);

void keeper_on_jwt_sign(struct keeper *k);
void keeper_on_jwks_get(struct keeper *k);

/* --- journal ---------------------------------------------------------------------------------- */
/* A line in the making: put fields between begin and end with jsonl_put_*(&l->w, ...). */
struct keeper_journal_line {
    struct jsonl_writer w;
    bool lost;                        /* it will not be written */
    char space[JOURNAL_LINE_MAX + 1]; /* a byte before it, for a newline */
};
struct keeper_journal {
    int fd, head_fd; /* owned; -1: there is no journal (tests) */
    uint64_t file, oldest, max_size, size;
    uint64_t seq; /* of the last line */
    uint8_t prev[JOURNAL_HASH_SIZE];
    uint64_t torn;        /* bytes at the end that are no whole line */
    uint64_t n_lost;      /* lines since the start that a failing disk cost */
    uint64_t n_lost_told; /* in the last push */
    uint64_t gap_lines;   /* of those, not owned up to in the file yet */
    bool failing;         /* the last write was refused */
    bool file_pending;    /* a new file's first line is still to be written */
    bool dirty;           /* lines behind the last head */
    bool next_asked;      /* the next file is on its way */
    uint64_t head_ms, head_due_ms, next_ms, logged_ms, told_ms, summed_up_ms, authority_again_ms;
    uint64_t refused[AGENT_N_OUTCOMES], n_refused; /* not in a line yet */
    uint8_t *chain; /* owned: of the authority that the file has a line for */
    size_t n_chain;
    uint8_t authority[JOURNAL_HASH_SIZE]; /* hash of its certificate */
    uint64_t bundle_generation;           /* of the roots that the file has lines for */
    struct keeper_journal_line line, gap;
};
/* An event of any kind: begin, fields, end. With k->journal.line as its space, unless one is open
 * there. false: the line is lost, which is counted and told; nothing else has to be done. */
void keeper_journal_begin(struct keeper *k, struct keeper_journal_line *l, const char *event);
bool keeper_journal_end(struct keeper *k, struct keeper_journal_line *l);
/* Before the answer goes out. */
void keeper_journal_issued_x509(struct keeper *k, const struct keeper_caller *c,
                                const struct keeper_grant *g, const struct keeper_leaf *leaf,
                                const uint8_t point[AGENT_POINT_SIZE]);
void keeper_journal_issued_jwt(struct keeper *k, const struct keeper_caller *c,
                               const struct keeper_grant *g, const char *kid,
                               const uint8_t jti[JWT_JTI_SIZE], int64_t issued_s,
                               int64_t expires_s);
/* Counted, and told in sums. */
void keeper_journal_refused(struct keeper *k, uint32_t outcome);
void keeper_journal_sum_up(struct keeper *k, uint64_t now_ms, bool now);
/* Whether the file has the line of the authority that signs now. */
bool keeper_journal_authority(struct keeper *k);
/* An authority was prepared, activated, tainted or retired, by order or by the schedule. */
void keeper_journal_change(struct keeper *k, const char *kind, const char *change, const char *id,
                           bool by_order);
void keeper_journal_quarantine(struct keeper *k, const struct agent_msg_deny_note *m);
/* A file, the first or the next; fd is taken in any case. */
int keeper_journal_on_file(struct keeper *k, const struct agent_msg_journal *msg, int fd,
                           struct err *err);
int keeper_journal_on_head_file(struct keeper *k, int fd, struct err *err);
/* What is due: authorities, sums, heads, the next file. */
int keeper_journal_turn(struct keeper *k, struct err *err);
int keeper_journal_due_ms(const struct keeper *k); /* -1: nothing is */
/* The last line and head; why: it is no orderly end. */
void keeper_journal_close(struct keeper *k, const struct err *why);

/* --- dispatch --------------------------------------------------------------------------------- */
struct keeper {
    int control, attestor, service; /* service: -1 while there is none */
    int kubelet;                    /* likewise */
    struct keeper_signer signer;
    struct keeper_pods *pods; /* owned; NULL: no kubelet is asked */
    uint64_t poked_ms;        /* when it was last asked for more */
    struct log *log;
    struct keeper_clock clock;
    struct keeper_authority authority;
    struct keeper_jwt jwt;
    struct keeper_callers *callers;
    struct keeper_entries *entries;           /* in force */
    struct keeper_entries *incoming;          /* in the making, or NULL */
    struct keeper_deny *deny, *deny_incoming; /* owned: in force, in the making; or NULL */
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
    struct keeper_journal journal;
    struct keeper_seal seal; /* how the state is written */
    struct keeper_rest rest; /* until the state is open */
    uint32_t outage_warn_s;
    bool budget_is_low;
    struct keeper_disk *disk_in, *disk_next; /* files that come; that wait for a change to end */
    bool disk_bad;                           /* one of those that come was refused */
    struct keeper_change change;
    struct keeper_order order; /* what the change is for */
    struct keeper_uses *uses;
    int64_t start_s;      /* when this process began to sign */
    bool new_root;        /* and nobody signed with this root before */
    int64_t leaf_until_s; /* the last end of what it signed */
    struct keeper_pace pace;
    uint64_t renew_retry_ms, rotation_retry_ms; /* not before: the last one failed */
    uint32_t renew_pause_ms;                    /* grows with each failure in a row */
    int timer;
    int64_t timer_s;             /* what it is armed for */
    struct err start_failure;    /* why there is no going on; ERR_NONE: there is */
    int old_key_fd, old_cert_fd; /* files of the old layout, until the state file comes; -1: none */
};

/* All that is known of a caller now: what the attestor said, and whose pod that is. Lent until the
 * next message. */
void keeper_facts_get(const struct keeper *k, const struct keeper_caller *c,
                      struct keeper_facts *ret);

/* May the caller have what this entry gives? Everything but what the asker brings along (a key, an
 * audience) and the bounds, keeper_caller_charge. What is known is filled in, also on refusal. */
enum agent_outcome keeper_judge(struct keeper *k, uint64_t handle, uint64_t generation,
                                uint32_t entry, struct keeper_caller **ret_caller,
                                struct keeper_grant *ret_grant);
/* One line, within bounds; c, and the grant's entry, may be NULL. */
void keeper_log_refusal(struct keeper *k, uint64_t handle, const struct keeper_caller *c,
                        const struct keeper_grant *g, enum agent_outcome outcome);
/* The fields of a line that say who asked. */
void keeper_log_caller(struct log_line *l, const struct keeper_caller *c);
/* --- kubelet ---------------------------------------------------------------------------------- */
void keeper_kubelet_open(struct keeper *k, int fd); /* takes fd; the one of before is dropped */
/* What its process has said; never a failure of the keeper's. */
void keeper_kubelet_turn(struct keeper *k);
/* Whether the caller's pod or container may become known in a moment, so that no answer is due
 * yet: AGENT_PENDING. Bounded for each caller; then it is answered by what is known. */
bool keeper_kubelet_pending(struct keeper *k, struct keeper_caller *c);
/* Grows with every change of the pods. */
uint64_t keeper_pods_count(const struct keeper *k);

/* Tells the supervisor, which always reads. */
int keeper_tell(struct keeper *k, const void *msg, struct err *err);
/* Runs until the supervisor closes the control channel: 0 then, -1 if it cannot go on. */
int keeper_run(struct keeper *k, struct err *err);

/* --- privs ------------------------------------------------------------------------------------ */
/* Gives up everything but what keeper_run needs; *ret_report says what took effect. */
int keeper_drop_privileges(const struct agent_msg_start_keeper *start,
                           struct agent_msg_report *ret_report, struct err *err);

#endif
