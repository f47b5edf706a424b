/* All that a proxy may do once it is set up, in one list. */
#include "proxy_priv.h"

#include <arpa/inet.h>

static const char *const SYSCALLS[] = {
    /* connections */
    "accept4", "connect", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt",
    "recvfrom", "recvmsg", "read", "write", "readv", "writev", "close", "fcntl", "poll", "ppoll",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl",
    /* configuration read again, hardening looked at, the admin socket's file removed */
    "newfstatat", "fstat", "stat", "statx", "lseek", "pread64", "readlink", "readlinkat", "unlink",
    "unlinkat", "getcwd", "capget", "geteuid", "getegid", "getuid", "getgid",
    "landlock_create_ruleset",
    /* threads and memory */
    "set_robust_list", "rseq", "sched_yield", "futex", "brk", "munmap", "mremap", "madvise",
    "sched_getaffinity",
    /* libc and libcrypto */
    "getrandom", "clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "getpid",
    "gettid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    "sysinfo", "uname", "prlimit64", "getrlimit", "exit", "exit_group", NULL};

static const struct sandbox_filter FILTER = {
    .name = "proxy",
    .calls = SYSCALLS,
    .some = SANDBOX_THREADS | SANDBOX_DATA_MEMORY | SANDBOX_OPEN_READ | SANDBOX_STREAM_SOCKETS |
            SANDBOX_OWN_SIGNALS | SANDBOX_ASKING,
    .unlisted = SANDBOX_COUNT,
};

static uint16_t port_of(const struct conf_sockaddr *a)
{
    if (a->len > 0 && a->ss.ss_family == AF_INET) {
        return ntohs(((const struct sockaddr_in *)(const void *)&a->ss)->sin_port);
    }
    return a->len > 0 && a->ss.ss_family == AF_INET6
               ? ntohs(((const struct sockaddr_in6 *)(const void *)&a->ss)->sin6_port)
               : 0;
}

/* What the configuration makes us need: files to read again, the admin socket to remove, ports. */
static struct sandbox_plan *plan_of(const struct conf_proxy *conf)
{
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_directory_of(plan, SANDBOX_READ, conf->path);
    sandbox_plan_directory_of(plan, SANDBOX_READ, conf->mesh_path);
    sandbox_plan_directory_of(plan, SANDBOX_READ, conf->policy_path);
    sandbox_plan_directory_of(plan, SANDBOX_REMOVE, conf->admin.socket);
    for (size_t i = 0; i < conf->n_listeners; i++) {
        const struct conf_listener *l = &conf->listeners[i];

        if (l->capture == CONF_INTERCEPTED) {
            sandbox_plan_connect_any(plan, "destinations are what was intercepted");
        } else {
            sandbox_plan_connect(plan, port_of(&l->to));
        }
    }
    return plan;
}

int proxy_confine(struct proxy *p, struct err *err)
{
    p->plan = plan_of(p->files->conf);
    return sandbox_enter(p->plan, &FILTER, &p->landlock, err);
}

int proxy_plan_covers(const struct proxy *p, const struct conf_proxy *next, struct err *err)
{
    struct sandbox_plan *plan = plan_of(next);
    bool covered = sandbox_plan_covers(p->plan, plan, err);

    sandbox_plan_free(plan);
    if (covered) {
        return 0;
    }
    err_where(err, "%s", next->path);
    err_expected(err, "only directories and ports of the configuration that it was started with");
    return err_advise(err, "restart the process: what it may reach was fixed when it started");
}
