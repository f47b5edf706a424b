/* All that a rotation daemon may do once it is set up, in one list. */
#include "rotate_priv.h"

#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

static const char *const SYSCALLS[] = {
    /* the agent, the admin socket, metrics, the service manager */
    "accept4", "connect", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt",
    "recvfrom", "recvmsg", "read", "write", "readv", "writev", "close", "fcntl", "poll", "ppoll",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl",
    /* sets: made, given to their readers, put on the disk, led to, removed */
    "openat2", "openat", "open", "mkdir", "mkdirat", "fchmod", "fchmodat", "fchown", "fchownat",
    "fsync", "fdatasync", "symlinkat", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
    "readlink", "readlinkat", "getdents64", "faccessat", "faccessat2", "flock",
    /* configuration read again, hardening looked at */
    "newfstatat", "fstat", "stat", "lstat", "statx", "lseek", "pread64", "getcwd", "capget",
    "geteuid", "getegid", "getuid", "getgid", "landlock_create_ruleset",
    /* the runner's end, and orphans as process 1 */
    "waitid", "wait4",
    /* memory, of which some holds keys */
    "brk", "munmap", "mremap", "madvise", "mlock", "mlock2", "munlock", "memfd_secret", "ftruncate",
    "futex", "sched_yield",
    /* libc and libcrypto */
    "getrandom", "clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "getpid",
    "gettid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    "sysinfo", "uname", "prlimit64", "getrlimit", "exit", "exit_group", NULL};

static const struct sandbox_filter FILTER = {
    .name = "rotate",
    .calls = SYSCALLS,
    .some = SANDBOX_DATA_MEMORY | SANDBOX_STREAM_SOCKETS | SANDBOX_OWN_SIGNALS | SANDBOX_ASKING,
    .unlisted = SANDBOX_COUNT,
};

/* Giving files to another user or group takes a capability, unless the group is the daemon's own.
 */
static uint64_t capabilities(const struct conf_rotate *conf)
{
    bool gives = false;
    for (size_t i = 0; i < conf->n_outputs; i++) {
        const struct conf_rotate_output *o = &conf->outputs[i];
        gives =
            gives || (o->has_owner && o->uid != geteuid()) || (o->has_group && o->gid != getegid());
    }
    return gives ? UINT64_C(1) << CAP_CHOWN : 0;
}

static struct sandbox_plan *plan_of(const struct conf_rotate *conf)
{
    struct sandbox_plan *plan = sandbox_plan_new();
    sandbox_plan_directory_of(plan, SANDBOX_READ, conf->path);
    sandbox_plan_directory_of(plan, SANDBOX_REMOVE, conf->admin.socket);
    for (size_t i = 0; i < conf->n_outputs; i++) {
        sandbox_plan_path(plan, SANDBOX_WRITE, conf->outputs[i].directory);
        sandbox_plan_directory_of(plan, SANDBOX_READ, conf->outputs[i].passphrase_file);
    }
    if (capabilities(conf) != 0) {
        sandbox_plan_path(plan, SANDBOX_READ, "/etc"); /* names of owners, at a reload */
    }
    return plan;
}

int rotate_confine(struct rotate *r, struct err *err)
{
    return hardening_enter(r->hardening, plan_of(r->conf), &FILTER, capabilities(r->conf), err);
}

/* --- another configuration ---------------------------------------------------------------------
 */
static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool needs_restart(struct err *err, const char *what)
{
    err_set(err, ERR_CONFIG, "%s cannot change while the daemon runs", what);
    err_advise(err, "restart it");
    return false;
}

bool rotate_covers(const struct rotate *r, const struct conf_rotate *want, struct err *err)
{
    const struct conf_rotate *have = r->conf;
    if (!same_text(have->admin.socket, want->admin.socket)) {
        return needs_restart(err, "'admin.socket'");
    }
    if (have->metrics.len != want->metrics.len ||
        memcmp(&have->metrics.ss, &want->metrics.ss, have->metrics.len) != 0) {
        return needs_restart(err, "'metrics.address'");
    }
    if ((capabilities(want) & ~capabilities(have)) != 0) {
        return needs_restart(err, "'owner' and 'group' from none");
    }
    return hardening_covers(r->hardening, plan_of(want), want->path, err) == 0;
}
