/*
 * attestor: the process of an agent that accepts callers and says who they are. What its files
 * share.
 *
 * main.c     its start, as a list
 * privs.c    all that it may do
 * callers.c  handles, and how many a uid or container has
 * digests.c  executables being read, and the connections that wait for it
 * dispatch.c accepting, and the messages
 *
 * What the kernel says about a process is read by identity/attest. One thread. It parses nothing
 * but kernel text and fixed-size messages.
 */
#ifndef POSTERN_ATTESTOR_PRIV_H
#define POSTERN_ATTESTOR_PRIV_H

#include <postern/agent_ipc.h>
#include <postern/attest.h>
#include <postern/log.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* --- digests of executables ------------------------------------------------------------------- */
/* What is known of an executable's digest; at first nothing. */
struct attestor_digest {
    bool known;
    bool has; /* false: it has none that counts (too large, unreadable, made up) */
    struct attest_exe_key key;
    uint8_t sha256[AGENT_SHA256_SIZE];
};
/* Bounds of what workloads can make us do: files are read a piece at a time between everything
 * else, so many wait, and so many of one account. */
enum {
    ATTESTOR_JOBS_MAX = 32,
    ATTESTOR_ACCOUNT_JOBS_MAX = 4,
    ATTESTOR_PARKED_MAX = 64,
    ATTESTOR_ACCOUNT_PARKED_MAX = 8,
};
enum attestor_digest_outcome {
    ATTESTOR_DIGEST_KNOWN,
    ATTESTOR_DIGEST_PENDING, /* it is being made */
    ATTESTOR_DIGEST_BUSY,    /* too many are being made */
};
struct attestor_digests;
struct attestor_digests *attestor_digests_new(void);
struct attestor_digests *attestor_digests_free(struct attestor_digests *ds);
/* Files larger than this have no digest; 0: nobody wants any, and what is under way is dropped. */
void attestor_digests_limit(struct attestor_digests *ds, uint64_t max_bytes);
bool attestor_digests_wanted(const struct attestor_digests *ds);
/* The digest of what the process runs, from an earlier time or begun now. */
enum attestor_digest_outcome attestor_digests_get(struct attestor_digests *ds,
                                                  const struct attest_process *p,
                                                  const struct attest_facts *facts,
                                                  struct attestor_digest *ret);
/* Whether there is something to do; one piece of it. true: a file is done, look at who waits. */
bool attestor_digests_busy(const struct attestor_digests *ds);
bool attestor_digests_step(struct attestor_digests *ds);

/* A connection that waits for the digest of its process's executable. */
struct attestor_parked {
    int sock; /* owned, as the process */
    struct attest_process process;
    uint64_t account;
    struct attest_exe_key key;
};
/* Takes both; false, and nothing taken, if too many wait. */
bool attestor_digests_park(struct attestor_digests *ds, int sock, const struct attest_process *p,
                           const struct attest_facts *facts);
/* One whose executable is no longer being read; its descriptors are the caller's. */
bool attestor_digests_unpark(struct attestor_digests *ds, struct attestor_parked *ret);
/* Closes all that wait: there is nobody to hand them to. */
void attestor_digests_drop_parked(struct attestor_digests *ds);

/* --- callers ---------------------------------------------------------------------------------- */
struct attestor_caller {
    struct attestor_caller *next;
    uint64_t handle;
    struct attest_process process;
    uint64_t account; /* whose connection it counts as, whatever the process became */
    uint64_t start_time;
    uint8_t facts_digest[AGENT_SHA256_SIZE]; /* of what the keeper was told last */
    struct attestor_digest exe;
};
struct attestor_callers;
struct attestor_callers *attestor_callers_new(size_t max, size_t max_account);
struct attestor_callers *attestor_callers_free(struct attestor_callers *cs);
uint64_t attestor_account(const struct attest_facts *facts);
/* Whether one more of this account is within the bounds; if not, *ret_why says which. */
bool attestor_callers_may_add(const struct attestor_callers *cs, uint64_t account,
                              const char **ret_why);
/* Takes the process. The handle is new and greater than all before. */
struct attestor_caller *attestor_callers_add(struct attestor_callers *cs,
                                             const struct attest_process *p,
                                             const struct attest_facts *facts);
struct attestor_caller *attestor_callers_find(struct attestor_callers *cs, uint64_t handle);
void attestor_callers_remove(struct attestor_callers *cs, struct attestor_caller *c);
/* Any one of them, NULL if there is none. */
struct attestor_caller *attestor_callers_any(struct attestor_callers *cs);

/* --- dispatch --------------------------------------------------------------------------------- */
struct attestor {
    int control, keeper, listen, epoll;
    int service; /* -1 while there is none: then nobody is accepted */
    struct log *log;
    struct attest_view view;
    struct attestor_digests *digests;
    struct attestor_callers *callers;
    /* One message that the service's queue had no room for. While it waits nothing else is begun
     * that could make another. */
    bool waiting;
    int waiting_fd; /* owned, or -1 */
    union agent_msg waiting_msg;
    union agent_msg in;
    struct agent_msg_caller caller_msg;
    struct attest_facts facts;
    uint64_t n_accepted, n_refused, n_refused_logged;
    uint64_t refused_ms; /* when a refusal was logged last */
};

/* Runs until the supervisor closes the control channel: 0 then, -1 if it cannot go on. */
int attestor_run(struct attestor *a, struct err *err);

/* --- privs ------------------------------------------------------------------------------------ */
int attestor_drop_privileges(const struct agent_msg_start_attestor *start,
                             struct agent_msg_report *ret_report, struct err *err);

#endif
