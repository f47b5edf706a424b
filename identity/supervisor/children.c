#include "supervisor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    TELL_MS = 10000, /* a child that does not read for so long has failed */
    TELL_SERVICE_MS = 2000,
    STOP_MS = 5000,  /* for the service to end its streams */
    LEAVE_MS = 3000, /* for the others to notice that we are gone */
    HANDLES_MAX = 65536,
    FDS_A_HANDLE = 2, /* of the attestor, which needs most: pidfd and /proc directory */
    FDS_SPARE = 192,  /* and what waits in the attestor to be attested */
};

/* As many callers as descriptors last for. */
static uint32_t max_handles(const struct supervisor *s)
{
    struct rlimit limit;
    uint64_t n = 1024;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max > FDS_SPARE * 2) {
        n = limit.rlim_max / FDS_A_HANDLE - FDS_SPARE;
    }
    n = n < HANDLES_MAX ? n : HANDLES_MAX;
    if (s->conf->limits.connections != 0 && s->conf->limits.connections < n) {
        n = s->conf->limits.connections;
    }
    return (uint32_t)n;
}

/* Whatever the file says, one uid does not get them all. */
static uint32_t max_uid_handles(const struct supervisor *s)
{
    uint32_t most = max_handles(s) / 4 * 3;

    return most < s->conf->limits.connections_per_uid ? most : s->conf->limits.connections_per_uid;
}

/* --- starting --------------------------------------------------------------------------------- */
/* What of our environment the children get: switches of tests, and of sanitizers. */
static void fill_env(const char *ret_env[8], char *store[8])
{
    static const char *const names[] = {"POSTERN_SANDBOX_KILL", "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    size_t n = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = secure_getenv(names[i]);

        if (value != NULL) {
            store[n] = mem_must_printf("%s=%s", names[i], value);
            ret_env[n] = store[n];
            n++;
        }
    }
    ret_env[n] = NULL;
}

static int spawn(const char *name, const char *const *argv, const int *fds, size_t n_fds,
                 pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
    char path[4096];
    const char *env[8] = {NULL};
    char *store[8] = {NULL};
    struct proc_spec spec = {
        .path = path, .argv = argv, .env = env, .n_fds = n_fds, .parent_death_signal = SIGKILL};
    int r;

    if (proc_helper_path(name, path, sizeof(path), err) == -1) {
        return -1;
    }
    memcpy(spec.fds, fds, n_fds * sizeof(*fds));
    fill_env(env, store);
    r = proc_spawn(&spec, ret_pid, ret_pidfd, err);
    for (size_t i = 0; i < 8; i++) {
        free(store[i]);
    }
    return r;
}

int supervisor_start_child(struct supervisor *s, enum agent_role role, const char *name,
                           const int *more, size_t n_more, struct err *err)
{
    struct supervisor_child *c = &s->children[role];
    const char *argv[] = {name, NULL};
    int pair[2], fds[PROC_FDS_MAX];
    int r;

    if (ipc_pair(pair, err) == -1) {
        return -1;
    }
    fds[0] = pair[1];
    memcpy(fds + 1, more, n_more * sizeof(*more));
    r = spawn(name, argv, fds, n_more + 1, &c->pid, &c->pidfd, err);
    close(pair[1]);
    if (r == -1) {
        close(pair[0]);
        return -1;
    }
    c->control = pair[0];
    c->reported = c->ready = c->killed = false;
    c->failure = (struct err)ERR_INIT;
    c->started_s = os_wall_s();
    return 0;
}

uint32_t supervisor_run_uid(const struct supervisor *s, uid_t uid)
{
    return s->separated ? (uint32_t)uid : (uint32_t)geteuid();
}

/* Each user has a group of the same number: nothing is shared by group. */
uint32_t supervisor_run_gid(const struct supervisor *s, uid_t uid)
{
    return s->separated ? (uint32_t)uid : (uint32_t)getegid();
}

static int tell_keeper_start(struct supervisor *s, struct err *err)
{
    struct agent_msg_start_keeper m;

    agent_ipc_init(&m, AGENT_MSG_START_KEEPER, 0);
    m.root_ttl_s = s->conf->root_ttl_s;
    m.node_ttl_s = s->conf->node_ttl_s;
    m.svid_ttl_s = s->conf->svid_ttl_s;
    m.outage_warn_s = s->conf->ca.outage_warn_s;
    m.jwt_ttl_s = s->conf->jwt_ttl_s;
    m.jwt_key_ttl_s = s->conf->jwt_key_ttl_s;
    m.jwt_algorithm = s->conf->jwt_algorithm;
    m.log_level = s->conf->log_level;
    m.max_handles = max_handles(s);
    m.max_uid_handles = max_uid_handles(s);
    m.uid_issue_burst = s->conf->limits.issue_burst_per_uid;
    m.uid_issue_per_s = s->conf->limits.issue_rate_per_uid;
    m.run_uid = supervisor_run_uid(s, s->conf->keeper_uid);
    m.run_gid = supervisor_run_gid(s, s->conf->keeper_uid);
    if (!agent_ipc_put(m.trust_domain, AGENT_TRUST_DOMAIN_MAX, &m.trust_domain_len,
                       str_of(s->conf->trust_domain))) {
        return err_set(err, ERR_CONFIG, "the trust domain's name is too long");
    }
    if (supervisor_tell(s, AGENT_ROLE_KEEPER, &m, -1, err) == -1) {
        return -1;
    }
    if (supervisor_journal_start(s, err) == -1) {
        return -1;
    }
    if (supervisor_signer_tell_keeper(s, err) == -1) {
        return -1;
    }
    return supervisor_send_state(s, err);
}

int supervisor_spawn_keeper(struct supervisor *s, struct err *err)
{
    int pair[2];
    int r;

    if (ipc_pair(pair, err) == -1) {
        return -1;
    }
    s->keeper_fd = pair[1];
    r = supervisor_start_child(s, AGENT_ROLE_KEEPER, "postern-keeper", &pair[0], 1, err);
    close(pair[0]);
    return r == -1 ? -1 : tell_keeper_start(s, err);
}

int supervisor_spawn_attestor(struct supervisor *s, struct err *err)
{
    struct agent_msg_start_attestor m;
    const int more[] = {s->keeper_fd, s->api.fd};
    int r = supervisor_start_child(s, AGENT_ROLE_ATTESTOR, "postern-attestor", more, 2, err);

    close(s->keeper_fd);
    s->keeper_fd = -1;
    if (r == -1) {
        return -1;
    }
    agent_ipc_init(&m, AGENT_MSG_START_ATTESTOR, 0);
    m.log_level = s->conf->log_level;
    m.max_handles = max_handles(s);
    m.max_uid_handles = max_uid_handles(s);
    m.run_uid = supervisor_run_uid(s, s->conf->attestor_uid);
    m.run_gid = supervisor_run_gid(s, s->conf->attestor_uid);
    m.force_fallback = s->force_fallback;
    m.hash_max_bytes = s->hash_max_bytes;
    return supervisor_tell(s, AGENT_ROLE_ATTESTOR, &m, -1, err);
}

static void tell_listener(struct supervisor *s, enum agent_listener which,
                          const struct supervisor_socket *sock)
{
    struct agent_msg_listener m;

    if (sock->fd == -1) {
        return;
    }
    agent_ipc_init(&m, AGENT_MSG_LISTENER, 0);
    m.which = which;
    for (size_t i = 0; which == AGENT_LISTENER_ADMIN && i < s->conf->admin.n_allow_uids; i++) {
        m.uids[m.n_uids++] = (uint32_t)s->conf->admin.allow_uids[i];
    }
    supervisor_tell_service(s, &m, sock->fd);
}

static int tell_service_start(struct supervisor *s, struct err *err)
{
    struct agent_msg_start_service m;

    agent_ipc_init(&m, AGENT_MSG_START_SERVICE, 0);
    m.log_level = s->conf->log_level;
    m.svid_ttl_s = s->conf->svid_ttl_s;
    m.restarts = s->children[AGENT_ROLE_SERVICE].restarts;
    m.max_calls = s->conf->limits.calls;
    m.max_uid_calls = s->conf->limits.calls_per_uid;
    m.max_conn_calls = s->conf->limits.calls_per_connection;
    m.max_uid_bytes = (uint32_t)s->conf->limits.memory_per_uid;
    m.run_uid = supervisor_run_uid(s, s->conf->service_uid);
    m.run_gid = supervisor_run_gid(s, s->conf->service_uid);
    if (!agent_ipc_put(m.trust_domain, AGENT_TRUST_DOMAIN_MAX, &m.trust_domain_len,
                       str_of(s->conf->trust_domain))) {
        return err_set(err, ERR_CONFIG, "the trust domain's name is too long");
    }
    supervisor_tell_service(s, &m, -1);
    tell_listener(s, AGENT_LISTENER_ADMIN, &s->admin);
    tell_listener(s, AGENT_LISTENER_METRICS, &s->metrics);
    supervisor_tell_entries(s);
    supervisor_quarantine_tell_service(s);
    supervisor_history_tell(s); /* before there is anything to tell proxies */
    supervisor_tell_documents(s);
    supervisor_kubelet_tell_state(s);
    supervisor_tell_processes(s);
    return 0;
}

int supervisor_spawn_service(struct supervisor *s, struct err *err)
{
    struct agent_msg_plain m;
    int attestor[2], keeper[2];
    int r;

    if (s->conf->admin.n_allow_uids > AGENT_UIDS_MAX) {
        return err_set(err, ERR_CONFIG, "more than %d uids may use the admin socket",
                       AGENT_UIDS_MAX);
    }
    if (ipc_pair(attestor, err) == -1) {
        return -1;
    }
    if (ipc_pair(keeper, err) == -1) {
        close(attestor[0]);
        close(attestor[1]);
        return -1;
    }
    r = supervisor_start_child(s, AGENT_ROLE_SERVICE, "postern-agent-service",
                               (const int[]){attestor[1], keeper[1]}, 2, err);
    agent_ipc_init(&m, AGENT_MSG_SERVICE, 0);
    if (r == 0) {
        r = supervisor_tell(s, AGENT_ROLE_KEEPER, &m, keeper[0], err);
    }
    if (r == 0) {
        r = supervisor_tell(s, AGENT_ROLE_ATTESTOR, &m, attestor[0], err);
    }
    for (int i = 0; i < 2; i++) {
        close(attestor[i]);
        close(keeper[i]);
    }
    return r == -1 ? -1 : tell_service_start(s, err);
}

int supervisor_spawn_loader(struct supervisor *s, const struct supervisor_job *job, int file,
                            pid_t *ret_pid, int *ret_pidfd, int *ret_channel, struct err *err)
{
    char uid[16], gid[16];
    const char *argv[] = {"postern-loader",
                          supervisor_job_source(job),
                          uid,
                          gid,
                          job->name,
                          job->reader != NULL ? job->reader : "",
                          NULL};
    int pair[2];
    int r;

    (void)snprintf(uid, sizeof(uid), "%u", (unsigned)supervisor_run_uid(s, s->conf->service_uid));
    (void)snprintf(gid, sizeof(gid), "%u", (unsigned)supervisor_run_gid(s, s->conf->service_uid));
    if (ipc_pair(pair, err) == -1) {
        return -1;
    }
    r = spawn("postern-loader", argv, (const int[]){pair[1], file}, 2, ret_pid, ret_pidfd, err);
    close(pair[1]);
    if (r == -1) {
        close(pair[0]);
        return -1;
    }
    *ret_channel = pair[0];
    return 0;
}

int supervisor_tell(struct supervisor *s, enum agent_role role, const void *msg, int fd,
                    struct err *err)
{
    struct supervisor_child *c = &s->children[role];
    struct pollfd p = {.fd = c->control, .events = POLLOUT};
    uint64_t until_ms = os_now_ms() + (role == AGENT_ROLE_SERVICE ? TELL_SERVICE_MS : TELL_MS);

    for (;;) {
        switch (agent_ipc_send(c->control, msg, fd)) {
        case IPC_OK:
            return 0;
        case IPC_AGAIN:
            if (os_now_ms() > until_ms) {
                return err_set(err, ERR_UNAVAILABLE, "the %s does not read its messages",
                               agent_role_name(role));
            }
            (void)poll(&p, 1, 1000);
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            /* Its end tells more than this: it is looked at next. */
            return err_set(err, ERR_UNAVAILABLE, "the %s has ended", agent_role_name(role));
        }
    }
}

void supervisor_tell_service(struct supervisor *s, const void *msg, int fd)
{
    struct supervisor_child *c = &s->children[AGENT_ROLE_SERVICE];
    struct err err = ERR_INIT;

    if (c->control != -1 && supervisor_tell(s, AGENT_ROLE_SERVICE, msg, fd, &err) == -1) {
        supervisor_kill(s, c, &err);
    }
}

/* --- ending ----------------------------------------------------------------------------------- */
static void forget(struct supervisor_child *c)
{
    close(c->pidfd);
    close(c->control);
    c->pidfd = c->control = -1;
    c->ready = false;
}

static const char *signal_name(int signo)
{
    const char *name = sigabbrev_np(signo);

    return name != NULL ? name : "?";
}

void supervisor_reap(struct supervisor *s, struct supervisor_child *c, struct err *err)
{
    siginfo_t info = {.si_pid = 0};
    struct err ignored = ERR_INIT;
    const char *name = agent_role_name(c->role);

    if (!c->killed) {
        (void)supervisor_hear(s, c, &ignored); /* what it said last says why */
    }
    (void)waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED);
    if (c->failure.code != ERR_NONE) {
        *err = c->failure;
        err_prefix(err, "the %s (pid %d) has ended", name, (int)c->pid);
    } else if (info.si_code == CLD_EXITED) {
        err_set(err, ERR_SYSTEM, "the %s (pid %d) has ended with status %d", name, (int)c->pid,
                info.si_status);
    } else {
        err_set(err, ERR_SYSTEM, "the %s (pid %d) was ended by signal %d (SIG%s)", name,
                (int)c->pid, info.si_status, signal_name(info.si_status));
        if (info.si_status == SIGSYS) {
            err_advise(err, "it made a system call that it must not make: please report this");
        }
    }
    forget(c);
}

void supervisor_kill(struct supervisor *s, struct supervisor_child *c, const struct err *why)
{
    if (c->killed) {
        return;
    }
    c->killed = true;
    log_failure(s->log, LOG_ERROR, "process_killed", why);
    (void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
}

static bool running(const struct supervisor_child *c)
{
    return c->pidfd != -1;
}

/* Until it has ended or time is up. What the service said last is to be kept. */
static bool wait_end(struct supervisor *s, struct supervisor_child *c, uint64_t until_ms)
{
    struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
    struct err ignored = ERR_INIT;
    siginfo_t info;

    for (;;) {
        uint64_t now_ms = os_now_ms();
        int r = poll(&p, 1, now_ms < until_ms ? (int)(until_ms - now_ms) : 0);

        if (r == 1) {
            (void)waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED);
            if (c->role == AGENT_ROLE_SERVICE && !c->killed) {
                (void)supervisor_hear(s, c, &ignored);
            }
            forget(c);
            return true;
        }
        if (r == 0 || errno != EINTR) {
            return false;
        }
    }
}

void supervisor_stop_children(struct supervisor *s)
{
    static const enum agent_role order[] = {AGENT_ROLE_KUBELET, AGENT_ROLE_SERVICE,
                                            AGENT_ROLE_ATTESTOR, AGENT_ROLE_KEEPER,
                                            AGENT_ROLE_SIGNER};
    uint64_t until_ms = os_now_ms() + STOP_MS;

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        struct supervisor_child *c = &s->children[order[i]];

        if (!running(c)) {
            continue;
        }
        if (c->role == AGENT_ROLE_SERVICE) {
            struct agent_msg_plain stop;

            agent_ipc_init(&stop, AGENT_MSG_STOP, 0);
            (void)!agent_ipc_send(c->control, &stop, -1);
        }
        /* A closed channel is the end for every child; the service may say last words. */
        (void)shutdown(c->control, c->role == AGENT_ROLE_SERVICE ? SHUT_WR : SHUT_RDWR);
        if (!wait_end(s, c, until_ms)) {
            log_msg(s->log, LOG_WARN, "process_killed", "the %s (pid %d) did not end by itself",
                    agent_role_name(c->role), (int)c->pid);
            (void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
            (void)wait_end(s, c, os_now_ms() + LEAVE_MS);
        }
        until_ms = os_now_ms() + LEAVE_MS;
    }
}
