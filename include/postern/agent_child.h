/*
 * agent_child: what a process of the agent does before its first byte from outside, and its first
 * words with the supervisor.
 */
#ifndef POSTERN_AGENT_CHILD_H
#define POSTERN_AGENT_CHILD_H

#include <postern/agent_ipc.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stdint.h>

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
