/*
 * attestor: the process of an agent that accepts callers and says who they are. What its files
 * share.
 *
 * main.c     its start, as a list
 * privs.c    all that it may do
 * facts.c    what the kernel says about a process, in an order that a reused pid cannot fool
 * mounts.c   which mounts are of our own mount namespace
 * callers.c  handles, and how many a uid has
 * dispatch.c accepting, and the messages
 *
 * One thread. It parses nothing but kernel text and fixed-size messages.
 */
#ifndef POSTERN_ATTESTOR_PRIV_H
#define POSTERN_ATTESTOR_PRIV_H

#include <postern/agent_ipc.h>
#include <postern/log.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* --- mounts ----------------------------------------------------------------------------------- */
/* The mount ids of our namespace, read again when the kernel says that they changed. */
struct attestor_mounts {
    int fd; /* /proc/self/mountinfo; owned */
    bool valid;
    uint64_t *ids; /* owned, sorted */
    size_t n, cap;
};
int attestor_mounts_init(struct attestor_mounts *m, int proc_fd, struct err *err);
void attestor_mounts_deinit(struct attestor_mounts *m);
bool attestor_mounts_has(struct attestor_mounts *m, uint64_t id);

/* --- facts ------------------------------------------------------------------------------------ */
struct attestor_facts {
    uint32_t uid, gid;   /* effective */
    uint64_t start_time; /* clock ticks since boot */
    uint64_t read_ms;
    bool own_view;   /* in our mount and user namespaces */
    size_t path_len; /* 0: unknown, or of another file system view than ours */
    char path[AGENT_PATH_MAX + 1];
};

/* A process, pinned: whatever is read through dir_fd while the pidfd lives is about it. */
struct attestor_process {
    int pidfd;  /* owned */
    int dir_fd; /* /proc/PID; owned */
    pid_t pid;  /* for logs */
};

/* What is needed to look at processes. */
struct attestor_view {
    int proc_fd; /* /proc; owned */
    bool force_fallback;
    struct attestor_mounts mounts;
    char own_mount_ns[64], own_user_ns[64]; /* as readlink shows them */
};

int attestor_view_init(struct attestor_view *v, struct err *err);
void attestor_view_deinit(struct attestor_view *v);

/* The process that connected, and its facts. AGENT_ATTEST_GONE: it has ended, whoever holds the
 * socket now. On anything but OK nothing is returned; *ret_why (a constant) says why for the log.
 */
enum agent_attest attestor_process_open(struct attestor_view *v, int sock,
                                        struct attestor_process *ret,
                                        struct attestor_facts *ret_facts, const char **ret_why);
/* Reads the facts of the same process once more. */
enum agent_attest attestor_process_read(struct attestor_view *v, const struct attestor_process *p,
                                        struct attestor_facts *ret_facts, const char **ret_why);
void attestor_process_close(struct attestor_process *p);
bool attestor_facts_same(const struct attestor_facts *a, const struct attestor_facts *b);

/* The parsers of kernel text, pure functions of the bytes: for tests. */
bool attestor_parse_status(const char *text, size_t len, uint32_t *ret_uid, uint32_t *ret_gid);
bool attestor_parse_stat(const char *text, size_t len, uint64_t *ret_start_time);
bool attestor_parse_fdinfo(const char *text, size_t len, pid_t *ret_pid);

/* --- callers ---------------------------------------------------------------------------------- */
struct attestor_caller {
    struct attestor_caller *next;
    uint64_t handle;
    struct attestor_process process;
    uint32_t account_uid; /* whose connection it counts as, whatever the process became */
    uint32_t uid, gid;
    bool own_view;
    uint64_t start_time;
    char *path; /* owned, "" if unknown */
};
struct attestor_callers;
struct attestor_callers *attestor_callers_new(size_t max, size_t max_uid);
struct attestor_callers *attestor_callers_free(struct attestor_callers *cs);
size_t attestor_callers_count(const struct attestor_callers *cs);
/* Whether one more of this uid is within the bounds; if not, *ret_why says which. */
bool attestor_callers_may_add(const struct attestor_callers *cs, uint32_t uid,
                              const char **ret_why);
/* Takes the process. The handle is new and greater than all before. */
struct attestor_caller *attestor_callers_add(struct attestor_callers *cs,
                                             const struct attestor_process *p,
                                             const struct attestor_facts *facts);
struct attestor_caller *attestor_callers_find(struct attestor_callers *cs, uint64_t handle);
void attestor_callers_remove(struct attestor_callers *cs, struct attestor_caller *c);
/* Any one of them, NULL if there is none. */
struct attestor_caller *attestor_callers_any(struct attestor_callers *cs);

/* --- dispatch --------------------------------------------------------------------------------- */
struct attestor {
    int control, keeper, listen, epoll;
    int service; /* -1 while there is none: then nobody is accepted */
    struct log *log;
    struct attestor_view view;
    struct attestor_callers *callers;
    /* One message that the service's queue had no room for. While it waits nothing else is begun
     * that could make another. */
    bool waiting;
    int waiting_fd; /* owned, or -1 */
    union agent_msg waiting_msg;
    union agent_msg in;
    struct agent_msg_caller caller_msg;
    struct attestor_facts facts;
    uint64_t n_accepted, n_refused, n_refused_logged;
    uint64_t refused_ms; /* when a refusal was logged last */
};

/* Runs until the supervisor closes the control channel: 0 then, -1 if it cannot go on. */
int attestor_run(struct attestor *a, struct err *err);

/* --- privs ------------------------------------------------------------------------------------ */
int attestor_drop_privileges(const struct agent_msg_start_attestor *start,
                             struct agent_msg_report *ret_report, struct err *err);

#endif
