/*
 * sandbox: what a process may still do once it has started. Each step says whether it took effect,
 * and `postern status` prints the report as it is.
 *
 * Order, always: open what is needed, sandbox_drop_user, sandbox_drop_caps, sandbox_limits,
 * sandbox_landlock, sandbox_seccomp (which sets no_new_privs), and only then the first byte from
 * outside. Thread: before any other thread is started.
 */
#ifndef POSTERN_SANDBOX_H
#define POSTERN_SANDBOX_H

#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sandbox_report {
    uid_t uid;
    gid_t gid;
    bool no_new_privs;
    bool dumpable;
    bool seccomp;          /* a filter is loaded */
    char seccomp_name[32]; /* which list; left to the caller, the kernel does not know names */
    int landlock_abi;      /* 0: not in force, or not to be told from here */
    uint64_t caps;         /* permitted, as a bit mask */
};

/* setgroups(0), setresgid, setresuid; keeps the capabilities in `keep` (bit mask of CAP_*)
 * permitted and effective across it. Not root: does nothing and leaves the ids as they are. */
int sandbox_drop_user(uid_t uid, gid_t gid, uint64_t keep, struct err *err);
/* Reduces permitted, effective, inheritable, ambient and bounding sets to `keep`. */
int sandbox_drop_caps(uint64_t keep, struct err *err);
/* Core dumps off, not dumpable, RLIMIT_NPROC as given (0: leave). */
int sandbox_limits(bool allow_fork, struct err *err);
/* Restricts the file system to these paths (read-only or read-write); NULL-terminated lists.
 * A kernel without Landlock is not a failure: the report shows it. */
int sandbox_landlock(const char *const *read_paths, const char *const *write_paths,
                     struct err *err);
/* Loads a filter that allows exactly `syscalls` (NULL-terminated names; names this architecture
 * does not have are skipped). Dangerous ones (execve, ptrace, bpf, mount, ...) kill the process;
 * other unlisted ones fail with EPERM, or kill too if `kill_all` (tests and CI). `name` is for the
 * report. */
int sandbox_seccomp(const char *name, const char *const *syscalls, bool kill_all, struct err *err);

/* What is in force for this process now, asked of the kernel and not remembered. A role's filter
 * must allow prctl, capget, geteuid, getegid (and openat, where Landlock is to be shown). */
void sandbox_get_report(struct sandbox_report *ret);

#endif
