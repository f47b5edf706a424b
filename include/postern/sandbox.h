/*
 * sandbox: what a process may still do once it has started. Each step says whether it took effect,
 * and `postern status` prints the report as it is. docs/hardening.md says which role takes which.
 *
 * Order, always: open what is needed, sandbox_drop_user, sandbox_secure_bits, sandbox_drop_caps,
 * sandbox_limits, sandbox_landlock, sandbox_seccomp (which sets no_new_privs), and only then the
 * first byte from outside. sandbox_enter takes the last five in that order. Thread: before any
 * other thread is started.
 *
 * The one state of this module that outlives a call is the count of refused system calls: like the
 * filter itself it belongs to the process, and a signal handler writes it.
 */
#ifndef POSTERN_SANDBOX_H
#define POSTERN_SANDBOX_H

#include <postern/buf.h>
#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* --- user, capabilities, limits --------------------------------------------------------------- */
/* setgroups(0), setresgid, setresuid, secure bits; keeps the capabilities in `keep` (bit mask of
 * CAP_*) permitted and effective across it, and those alone in the bounding set. Not root: does
 * nothing and leaves the ids as they are. */
int sandbox_drop_user(uid_t uid, gid_t gid, uint64_t keep, struct err *err);
/* A uid 0 no longer brings capabilities, not by exec and not by a change of user, for good. Needs
 * CAP_SETPCAP: without it nothing happens (nor is there anything to gain then). Not for a process
 * that starts children which need capabilities. */
void sandbox_secure_bits(void);
/* Reduces permitted, effective, inheritable, ambient and bounding sets to `keep`. */
int sandbox_drop_caps(uint64_t keep, struct err *err);
/* Core dumps off, not dumpable, umask 077, descriptors close-on-exec; without `allow_fork` no new
 * process either. */
int sandbox_limits(bool allow_fork, struct err *err);

/* --- files and ports: Landlock ---------------------------------------------------------------- */
enum sandbox_right {
    SANDBOX_READ,   /* files and lists of directories */
    SANDBOX_REMOVE, /* only take names away: a socket's, at the end */
    SANDBOX_WRITE,  /* make, change, rename, remove; no devices, nothing executable */
    SANDBOX_EXECUTE /* read and run: for processes that start programs */
};

/* What a role needs from outside itself, as its configuration says. Grown by the functions below,
 * which take NULL and "" for "nothing". Owned by the caller. */
struct sandbox_plan;
struct sandbox_plan *sandbox_plan_new(void);
struct sandbox_plan *sandbox_plan_free(struct sandbox_plan *plan);
/* A file, or a directory with what is below it. What is not there needs no permission, and gets
 * none later. */
void sandbox_plan_path(struct sandbox_plan *plan, enum sandbox_right right, const char *path);
/* The directory that a file is in (and the one that it is in really, behind links): editors, tools
 * and Kubernetes put a new file in an old one's place. Of a file in / only that file. */
void sandbox_plan_directory_of(struct sandbox_plan *plan, enum sandbox_right right,
                               const char *file);
/* TCP ports to connect to. Nothing said: none. Unix sockets are not ports: their files' modes
 * decide. */
void sandbox_plan_connect(struct sandbox_plan *plan, uint16_t port);
/* Anywhere, and why, in a few words for people ("destinations are what was intercepted"). `why` is
 * a constant. */
void sandbox_plan_connect_any(struct sandbox_plan *plan, const char *why);
/* TCP ports to bind after the start. Nothing said: none; sockets that are bound already stay. */
enum { SANDBOX_PORT_OF_THE_KERNEL = 0 }; /* whichever it chooses */
void sandbox_plan_bind(struct sandbox_plan *plan, uint16_t port);
void sandbox_plan_bind_any(struct sandbox_plan *plan, const char *why);
/* Lets it speak to abstract Unix sockets of processes outside (NOTIFY_SOCKET=@...), or signal
 * them. */
void sandbox_plan_allow_abstract(struct sandbox_plan *plan);
void sandbox_plan_allow_signals(struct sandbox_plan *plan);
/* Whether a process that is confined by `have` can do all of `want`: asked before a new
 * configuration is taken. False: err says which path or port is not in it, or was not there when
 * `have` was enforced and is now. */
bool sandbox_plan_covers(const struct sandbox_plan *have, const struct sandbox_plan *want,
                         struct err *err);

/* What took effect. Plain data. */
struct sandbox_landlock {
    int32_t abi;               /* of the kernel (or what a test lets it be); 0: it has none */
    uint32_t n_connect_ports;  /* allowed */
    uint32_t n_bind_ports;     /* allowed */
    bool files, connect, bind; /* handled: what is not allowed is refused */
    bool abstract, signals;    /* handled: kept within this process */
    char connect_why[64];      /* why connects are not restricted, or "" */
    char missing[120];         /* what was wanted and this kernel cannot, for people, or "" */
};

enum { SANDBOX_ABI_OF_KERNEL = 1000 };
/* Enforces as much of the plan as the kernel knows (and at most max_abi of it: tests pretend to be
 * on older ones). Less than all is not a failure: ret->missing says what, and the role says it
 * loudly (sandbox_landlock_log in hardening.h). Marks what is not there in the plan. */
int sandbox_landlock(struct sandbox_plan *plan, int max_abi, struct sandbox_landlock *ret,
                     struct err *err);

/* --- system calls: seccomp -------------------------------------------------------------------- */
/* Calls that are allowed with certain arguments only; not to be in the list as well. */
enum sandbox_some {
    SANDBOX_THREADS = 1 << 0,         /* clone for a thread of this process; no clone3 (ENOSYS) */
    SANDBOX_DATA_MEMORY = 1 << 1,     /* mmap, mprotect: nothing executable */
    SANDBOX_OPEN_READ = 1 << 2,       /* open, openat: nothing made, nothing written */
    SANDBOX_STREAM_SOCKETS = 1 << 3,  /* socket: TCP and Unix; sendto, sendmsg: no TCP fast open,
                                       * which would connect past Landlock */
    SANDBOX_OWN_SIGNALS = 1 << 4,     /* tgkill: this process only */
    SANDBOX_ASKING = 1 << 5,          /* prctl: questions, and a thread's name */
    SANDBOX_OPEN_APPEND = 1 << 7,     /* openat: to append to, or make; cuts nothing off */
    SANDBOX_NETLINK_SOCKETS = 1 << 6, /* socket: to the kernel about packet filters and routes */
};
enum sandbox_unlisted {
    SANDBOX_REFUSE, /* EPERM; the kernel's audit log has it */
    SANDBOX_COUNT,  /* EPERM, and counted (see below); threads must not block SIGSYS */
};
struct sandbox_filter {
    const char *name; /* for messages and the report */
    const char *const
        *calls;    /* NULL-terminated; names this architecture does not have are skipped */
    unsigned some; /* enum sandbox_some */
    enum sandbox_unlisted unlisted;
};
/* Loads it, for all threads. Dangerous calls (execve, ptrace, bpf, mount, ...) that are not listed
 * kill the process, calls of another architecture too; other unlisted ones fail with EPERM, or kill
 * if `kill_all`. */
int sandbox_seccomp(const struct sandbox_filter *filter, bool kill_all, struct err *err);
/* POSTERN_SANDBOX_KILL in the environment: tests and CI. */
bool sandbox_kill_all(void);

/* --- calls that were refused ------------------------------------------------------------------ */
enum { SANDBOX_CALLS_MAX = 512 }; /* higher numbers are counted as the last one */
/* An eventfd (borrowed, non-blocking) that becomes readable when a call was refused; -1: none. */
void sandbox_refused_wake(int fd);
uint64_t sandbox_refused_total(void);
/* The first call number from `from` on that was refused, -1 if none; and how often. */
int sandbox_refused_next(int from, uint64_t *ret_count);
/* Its name, or "#NUMBER"; always terminated. */
void sandbox_call_name(int number, char *out, size_t size);

/* {"NAME":COUNT,...} of this process. */
bool sandbox_refused_write(struct buf *out);

/* --- all of it -------------------------------------------------------------------------------- */
/* Secure bits, no capability, limits (threads may be started), files and ports, system calls. */
int sandbox_enter(struct sandbox_plan *plan, const struct sandbox_filter *filter,
                  struct sandbox_landlock *ret_landlock, struct err *err);
/* The same, but for these capabilities (bit mask of CAP_*). */
int sandbox_enter_keeping(struct sandbox_plan *plan, const struct sandbox_filter *filter,
                          uint64_t keep, struct sandbox_landlock *ret_landlock, struct err *err);

/* --- what is in force ------------------------------------------------------------------------- */
struct sandbox_report {
    uid_t uid;
    gid_t gid;
    bool no_new_privs;
    bool dumpable;
    bool core_dumps;         /* RLIMIT_CORE is not 0 */
    bool secure_bits;        /* uid 0 brings no capability, locked */
    bool seccomp;            /* a filter is loaded */
    char seccomp_name[32];   /* which list; left to the caller, the kernel does not know names */
    uint32_t n_filters;      /* 0: not to be told (kernels before 5.9) */
    int32_t landlock_abi;    /* 0: not in force, or not to be told from here */
    uint64_t caps;           /* permitted, as a bit mask */
    uint64_t caps_effective; /* and the other sets */
    uint64_t caps_inheritable, caps_bounding, caps_ambient;
    uint64_t locked_bytes; /* memory that is kept out of swap */
};
/* What is in force for this process now, asked of the kernel and not remembered. status_fd: of
 * sandbox_status_open, or -1 (then caps_*, n_filters and locked_bytes are not told). A role's
 * filter must allow prctl, capget, geteuid, getegid, prlimit64 and pread64 (and openat, where
 * Landlock is to be shown). */
void sandbox_get_report(int status_fd, struct sandbox_report *ret);
/* The same where not even the try to open a file is allowed: landlock_abi stays 0. */
void sandbox_get_report_shut(struct sandbox_report *ret);
/* /proc/self/status, opened before the sandbox shuts it out; -1: there is no /proc. */
int sandbox_status_open(void);
/* What it says now, into the report's other fields. */
bool sandbox_status_read(int status_fd, struct sandbox_report *report);
/* The kernel's text of it: a pure function. Fills what it finds. */
void sandbox_status_parse(const char *text, size_t len, struct sandbox_report *ret);
/* As the inside of a JSON object, without braces; landlock may be NULL. */
bool sandbox_report_write_more(const struct sandbox_report *r, struct buf *out); /* ,"KEY":... */
bool sandbox_report_write(const struct sandbox_report *r, const struct sandbox_landlock *landlock,
                          struct buf *out);

#endif
