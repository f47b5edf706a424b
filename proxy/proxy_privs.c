/* All that a proxy may do once it is set up, in one list. */
#include "proxy_priv.h"

#include <arpa/inet.h>
#include <linux/capability.h>
#include <postern/dir_watch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const SYSCALLS[] = {
    /* connections */
    "accept4", "connect", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt",
    "recvfrom", "recvmsg", "read", "write", "readv", "writev", "close", "fcntl", "poll", "ppoll",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl",
    /* configuration read again, hardening looked at, the admin socket's file removed */
    "newfstatat", "fstat", "stat", "statx", "lseek", "pread64", "readlink", "readlinkat", "unlink",
    "unlinkat", "getcwd", "capget", "geteuid", "getegid", "getuid", "getgid",
    "landlock_create_ruleset",
    /* credentials watched and read again: keys in memory for secrets */
    "inotify_add_watch", "inotify_rm_watch", "memfd_secret", "ftruncate", "mlock", "munlock",
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

/* A client's address is taken by bind, and so is a canary's port; neither is ever listened at:
 * there is no `listen` in the list. */
enum { N_SYSCALLS = sizeof(SYSCALLS) / sizeof(SYSCALLS[0]), N_MORE = 4 };
static const char *const BIND_SYSCALL = "bind";
/* A file of the audit log put in another one's place. */
static const char *const AUDIT_SYSCALLS[] = {"flock", "renameat2", "fchmod"};

static bool is_transparent(const struct conf_proxy *conf)
{
    for (size_t i = 0; i < conf->n_listeners; i++) {
        if (conf->listeners[i].transparent) {
            return true;
        }
    }
    return false;
}

static bool has_canary(const struct conf_proxy *conf)
{
    return conf->interception.canary != CONF_CANARY_OFF;
}

/* What each socket with a client's address is asked for. The lesser one, where there is a choice.
 */
static uint64_t kept_capabilities(const struct conf_proxy *conf)
{
    struct sandbox_report have;
    if (!is_transparent(conf)) {
        return 0;
    }
    sandbox_get_report(-1, &have);
    uint64_t raw = have.caps & (UINT64_C(1) << CAP_NET_RAW);
    return raw != 0 ? raw : have.caps & (UINT64_C(1) << CAP_NET_ADMIN);
}

/* NULL: there is none. */
static const char *audit_file(const struct conf_proxy *conf)
{
    return conf->audit.configured && conf->audit.to == CONF_AUDIT_FILE ? conf->audit.path : NULL;
}

static uint16_t port_of(const struct conf_sockaddr *a)
{
    if (a->len > 0 && a->ss.ss_family == AF_INET) {
        return ntohs(((const struct sockaddr_in *)(const void *)&a->ss)->sin_port);
    }
    return a->len > 0 && a->ss.ss_family == AF_INET6
               ? ntohs(((const struct sockaddr_in6 *)(const void *)&a->ss)->sin6_port)
               : 0;
}

/* --- the plan: files to read again, sockets to remove, ports -----------------------------------
 */
static void plan_target(struct sandbox_plan *plan, const struct conf_target *to)
{
    if (to->kind == CONF_TARGET_ADDRESS) {
        sandbox_plan_connect(plan, port_of(&to->address));
    } else if (to->kind == CONF_TARGET_HOST) {
        sandbox_plan_connect(plan, to->port);
    }
}

static void plan_url(struct sandbox_plan *plan, const char *url)
{
    struct conf_connect_proxy proxy;

    if (url != NULL && conf_connect_proxy_parse(str_of(url), &proxy)) {
        sandbox_plan_connect(plan, proxy.port);
    }
}

static void plan_listener(struct sandbox_plan *plan, const struct conf_listener *l)
{
    if (l->transparent) {
        sandbox_plan_bind_any(plan, "transparent: clients' addresses, with ports of ours");
    }
    if (l->capture != CONF_EXPLICIT) {
        sandbox_plan_connect_any(plan, "destinations are what was asked for by connections");
        return;
    }
    if (l->transport == CONF_TRANSPORT_HBONE || l->transport == CONF_TRANSPORT_AUTO) {
        sandbox_plan_connect(plan, l->hbone_port != 0 ? l->hbone_port : CONF_HBONE_PORT);
    }
    if (l->transport != CONF_TRANSPORT_HBONE) {
        plan_target(plan, &l->to);
        for (size_t i = 0; i < l->n_targets; i++) {
            plan_target(plan, &l->targets[i]);
        }
    }
    plan_url(plan, l->upstream.connect_proxy);
    for (size_t i = 0; i < l->n_sni; i++) {
        plan_target(plan, &l->sni[i].to);
    }
    if (l->bind.kind == CONF_BIND_UNIX) {
        sandbox_plan_directory_of(plan, SANDBOX_REMOVE, l->bind.path);
    }
}

static void plan_credentials(struct sandbox_plan *plan, const struct conf_proxy *conf)
{
    for (size_t i = 0; i < conf->n_credentials; i++) {
        const struct conf_credential *c = &conf->credentials[i];

        sandbox_plan_directory_of(plan, SANDBOX_READ, c->cert);
        sandbox_plan_directory_of(plan, SANDBOX_READ, c->key);
        sandbox_plan_directory_of(plan, SANDBOX_READ, c->pkcs12);
        sandbox_plan_directory_of(plan, SANDBOX_READ, c->passphrase_file);
        sandbox_plan_directory_of(plan, SANDBOX_READ, c->token.pin_file);
        if (c->passphrase_credential != NULL || c->token.pin_credential != NULL) {
            sandbox_plan_path(plan, SANDBOX_READ, secure_getenv("CREDENTIALS_DIRECTORY"));
        }
    }
    for (size_t i = 0; i < conf->n_trust; i++) {
        const struct conf_trust *t = &conf->trust[i];

        sandbox_plan_directory_of(plan, SANDBOX_READ, t->ca);
        sandbox_plan_directory_of(plan, SANDBOX_READ, t->crl);
        for (size_t k = 0; k < t->n_bundles; k++) {
            sandbox_plan_directory_of(plan, SANDBOX_READ, t->bundles[k].path);
        }
    }
}

static struct sandbox_plan *plan_of(const struct conf_proxy *conf)
{
    struct sandbox_plan *plan = sandbox_plan_new();

    sandbox_plan_directory_of(plan, SANDBOX_READ, conf->path);
    sandbox_plan_directory_of(plan, SANDBOX_READ, conf->mesh_path);
    sandbox_plan_directory_of(plan, SANDBOX_READ, conf->policy_path);
    for (size_t i = 0; i < conf->jwt.n; i++) {
        sandbox_plan_directory_of(plan, SANDBOX_READ, conf->jwt.items[i].jwks_file);
    }
    sandbox_plan_directory_of(plan, SANDBOX_REMOVE, conf->admin.socket);
    sandbox_plan_directory_of(plan, SANDBOX_WRITE, audit_file(conf));
    plan_credentials(plan, conf);
    for (size_t i = 0; i < conf->n_listeners; i++) {
        plan_listener(plan, &conf->listeners[i]);
    }
    if (has_canary(conf)) {
        sandbox_plan_bind(plan, SANDBOX_PORT_OF_THE_KERNEL);
    }
    for (size_t i = 0; i < conf->probes.n; i++) { /* a kubelet's, asked of the application */
        sandbox_plan_connect(plan, conf->probes.items[i].port);
    }
    return plan;
}

/* Of links on the way to a file that is watched. */
static void plan_directory(void *plan, const char *dir)
{
    sandbox_plan_path((struct sandbox_plan *)plan, SANDBOX_READ, dir);
}

int proxy_become_user(struct proxy *p, struct err *err)
{
    const struct conf_proxy *conf = p->files->conf;
    if (conf->run_as == 0 || geteuid() != 0) {
        return 0;
    }
    if (sandbox_drop_user(conf->run_as, conf->run_as, kept_capabilities(conf), err) == -1) {
        err_prefix(err, "run_as");
        return err_advise(err, "it needs CAP_SETUID and CAP_SETGID; or start it as that user");
    }
    return 0;
}

int proxy_confine(struct proxy *p, struct err *err)
{
    struct sandbox_plan *plan = plan_of(p->files->conf);

    if (p->credentials != NULL) {
        credentials_directories(p->credentials, NULL, plan_directory, plan);
    }
    const struct conf_jwts *jwt = &p->files->conf->jwt;
    for (size_t i = 0; i < jwt->n; i++) {
        if (jwt->items[i].jwks_file != NULL) {
            dir_watch_path_dirs(jwt->items[i].jwks_file, plan_directory, plan);
        }
    }
    struct sandbox_filter filter = FILTER;
    const char *calls[N_SYSCALLS + N_MORE];
    size_t n = N_SYSCALLS - 1;
    memcpy(calls, SYSCALLS, sizeof(SYSCALLS));
    if (is_transparent(p->files->conf) || has_canary(p->files->conf)) {
        calls[n++] = BIND_SYSCALL;
    }
    if (audit_file(p->files->conf) != NULL) {
        memcpy(&calls[n], AUDIT_SYSCALLS, sizeof(AUDIT_SYSCALLS));
        n += sizeof(AUDIT_SYSCALLS) / sizeof(AUDIT_SYSCALLS[0]);
        filter.some |= SANDBOX_OPEN_APPEND;
    }
    calls[n] = NULL;
    filter.calls = calls;
    if (hardening_enter(p->hardening, plan, &filter, kept_capabilities(p->files->conf), err) ==
        -1) {
        return -1;
    }
    if (!p->key_heap.locked) {
        hardening_degraded(p->hardening, "private keys are not in locked memory",
                           "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a unit), or lower "
                           "limits.connections");
    }
    return 0;
}

int proxy_plan_covers(const struct proxy *p, const struct conf_proxy *next, struct err *err)
{
    if (p->key_heap.bytes > 0 && (size_t)next->limits.connections * 2 > p->key_heap.legs) {
        err_set(err, ERR_CONFIG, "`limits.connections` cannot grow so far while running");
        err_where(err, "%s", next->path);
        err_expected(err, "at most %zu: for so many there is locked memory", p->key_heap.legs / 2);
        return err_advise(err, "restart the process for this change");
    }
    return hardening_covers(p->hardening, plan_of(next), next->path, err);
}
