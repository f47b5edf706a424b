#include "supervisor_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { START_MS = 30000, HANGUP_MS = 1000 };

/* --- signals ---------------------------------------------------------------------------------- */
static int open_signals(struct supervisor *s, struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    errno = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (errno != 0) {
        return err_sys(err, "the signal mask");
    }
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd == -1 ? err_sys(err, "signalfd") : 0;
}

static void take_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;

    while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP) {
            supervisor_manager_reloading(s);
            supervisor_watch_all_changed(s);
        } else if (!s->stopping) {
            s->stopping = true;
            log_msg(s->log, LOG_INFO, "stopping", "asked to end by %s",
                    info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        }
    }
}

/* --- watching --------------------------------------------------------------------------------- */
/* Whether one more start is within bounds: a service that dies at once would else do so for ever.
 */
static bool may_restart(struct supervisor *s)
{
    uint64_t now_ms = os_now_ms();
    size_t kept = 0;

    for (size_t i = 0; i < s->n_restarts; i++) {
        if (now_ms - s->restart_ms[i] < SUPERVISOR_RESTARTS_WINDOW_MS) {
            s->restart_ms[kept++] = s->restart_ms[i];
        }
    }
    s->n_restarts = kept;
    if (kept == SUPERVISOR_RESTARTS_MAX) {
        return false;
    }
    s->restart_ms[s->n_restarts++] = now_ms;
    return true;
}

/* A child that ends because another did says so; then the other is the one to tell about. */
static void find_cause(struct supervisor *s, struct err *err)
{
    for (size_t i = 0; i < AGENT_N_ROLES; i++) {
        struct supervisor_child *c = &s->children[i];
        struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
        struct err own = ERR_INIT;

        if (c->pidfd == -1 || poll(&p, 1, 100) != 1) {
            continue;
        }
        supervisor_reap(s, c, &own);
        if (own.code != ERR_UNAVAILABLE) {
            *err = own;
            return;
        }
    }
}

static int on_ended(struct supervisor *s, struct supervisor_child *c, struct err *err)
{
    supervisor_reap(s, c, err);
    if (c->role == AGENT_ROLE_KUBELET) {
        supervisor_kubelet_ended(s, err);
        *err = (struct err)ERR_INIT;
        return 0;
    }
    if (c->role == AGENT_ROLE_SIGNER && s->running) {
        supervisor_signer_ended(s, err);
        *err = (struct err)ERR_INIT;
        return 0;
    }
    if (c->role != AGENT_ROLE_SERVICE || !s->running) {
        return -1;
    }
    log_failure(s->log, LOG_ERROR, "process_ended", err);
    if (!may_restart(s)) {
        return err_prefix(err, "the service ends again and again, it is not restarted");
    }
    *err = (struct err)ERR_INIT;
    c->restarts++;
    log_msg(s->log, LOG_WARN, "service_restarted",
            "a new service is started (%u so far); callers have to connect again", c->restarts);
    return supervisor_spawn_service(s, err);
}

/* A child that closes its channel is about to end, or pretends to. */
static void on_hangup(struct supervisor *s, struct supervisor_child *c)
{
    struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
    struct err why = ERR_INIT;

    if (poll(&p, 1, HANGUP_MS) == 0) {
        err_set(&why, ERR_PROTOCOL, "the %s closed its channel and goes on",
                agent_role_name(c->role));
        supervisor_kill(s, c, &why);
        (void)poll(&p, 1, HANGUP_MS);
    }
}

static int on_readable(struct supervisor *s, struct supervisor_child *c, struct err *err)
{
    int r = supervisor_hear(s, c, err);

    if (r == 1) {
        on_hangup(s, c);
    }
    if (r != -1) {
        return 0;
    }
    if (c->role != AGENT_ROLE_SERVICE && c->role != AGENT_ROLE_KUBELET &&
        c->role != AGENT_ROLE_SIGNER) {
        return -1;
    }
    supervisor_kill(s, c, err);
    *err = (struct err)ERR_INIT;
    return 0;
}

/* One look at everything. */
static int turn(struct supervisor *s, int timeout_ms, struct err *err)
{
    enum { WATCH = 1 + 2 * AGENT_N_ROLES, CONTROL };
    struct pollfd fds[CONTROL + SUPERVISOR_CONTROL_FDS];
    int dues_ms[] = {supervisor_control_due_ms(s), supervisor_quarantine_due_ms(s),
                     supervisor_watch_due_ms(s),   supervisor_kubelet_due_ms(s),
                     supervisor_signer_due_ms(s),  supervisor_manager_due_ms(s),
                     supervisor_history_due_ms(s)};

    fds[0] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    for (size_t i = 0; i < AGENT_N_ROLES; i++) {
        fds[1 + 2 * i] = (struct pollfd){.fd = s->children[i].killed ? -1 : s->children[i].control,
                                         .events = POLLIN};
        fds[2 + 2 * i] = (struct pollfd){.fd = s->children[i].pidfd, .events = POLLIN};
    }
    fds[WATCH] = (struct pollfd){.fd = supervisor_watch_fd(s), .events = POLLIN};
    supervisor_control_watch(s, &fds[CONTROL]);
    for (size_t i = 0; i < sizeof(dues_ms) / sizeof(dues_ms[0]); i++) {
        if (dues_ms[i] != -1 && (timeout_ms == -1 || dues_ms[i] < timeout_ms)) {
            timeout_ms = dues_ms[i];
        }
    }
    if (poll(fds, sizeof(fds) / sizeof(fds[0]), timeout_ms) == -1) {
        return errno == EINTR ? 0 : err_sys(err, "poll");
    }
    if (fds[0].revents != 0) {
        take_signals(s);
    }
    for (size_t i = 0; i < AGENT_N_ROLES; i++) {
        struct supervisor_child *c = &s->children[i];

        if (fds[2 + 2 * i].revents != 0) {
            if (on_ended(s, c, err) == -1) {
                return -1;
            }
        } else if (fds[1 + 2 * i].revents != 0) {
            if (on_readable(s, c, err) == -1) {
                return -1;
            }
        }
    }
    supervisor_watch_turn(s, fds[WATCH].revents != 0);
    supervisor_control_turn(s, &fds[CONTROL]);
    supervisor_quarantine_turn(s);
    supervisor_kubelet_turn(s);
    supervisor_signer_turn(s);
    supervisor_history_turn(s);
    return 0;
}

/* Until *flag is set. */
static int wait_for(struct supervisor *s, const bool *flag, const char *what, struct err *err)
{
    uint64_t until_ms = os_now_ms() + START_MS;

    while (!*flag && !s->stopping) {
        if (os_now_ms() > until_ms) {
            return err_set(err, ERR_UNAVAILABLE, "%s takes longer than %d s", what,
                           START_MS / 1000);
        }
        if (turn(s, 500, err) == -1) {
            return -1;
        }
    }
    return 0;
}

/* --- start, run, end -------------------------------------------------------------------------- */
static mode_t admin_mode(const struct conf_agent *conf)
{
    for (size_t i = 0; i < conf->admin.n_allow_uids; i++) {
        if (conf->admin.allow_uids[i] != 0 && conf->admin.allow_uids[i] != geteuid()) {
            return 0666; /* the uid is checked behind it */
        }
    }
    return 0600;
}

static int open_sockets(struct supervisor *s, struct err *err)
{
    if (supervisor_socket_take_or_open(&s->api, &s->opened, s->conf->socket, 0666, err) == -1) {
        return err_prefix(err, "the agent's socket");
    }
    if (s->conf->admin.socket != NULL &&
        supervisor_socket_take_or_open(&s->admin, &s->opened, s->conf->admin.socket,
                                       admin_mode(s->conf), err) == -1) {
        return err_prefix(err, "the admin socket");
    }
    if (supervisor_control_open(s, err) == -1) {
        return -1;
    }
    if (s->conf->metrics.len > 0 &&
        supervisor_socket_take_or_open_tcp(&s->metrics, &s->opened, &s->conf->metrics, err) == -1) {
        return -1;
    }
    if (service_sockets_unused(&s->opened) != NULL) {
        err_set(err, ERR_CONFIG,
                "the service manager opened a socket that nothing here takes: "
                "'%s'",
                service_sockets_unused(&s->opened)->name);
        return err_advise(err, "its address has to be that of `socket`, `admin.socket` or "
                               "`metrics.address`");
    }
    return 0;
}

static int start_keeper(struct supervisor *s, struct err *err)
{
    if (supervisor_signer_start(s, err) == -1 ||
        (s->conf->ca.key.token.configured &&
         wait_for(s, &s->children[AGENT_ROLE_SIGNER].ready, "starting the signer", err) == -1) ||
        s->stopping) {
        return -1;
    }
    if (supervisor_spawn_keeper(s, err) == -1 ||
        wait_for(s, &s->children[AGENT_ROLE_KEEPER].ready, "starting the keeper", err) == -1 ||
        s->stopping) {
        return -1;
    }
    supervisor_state_close_files(&s->state);
    if (supervisor_quarantine_tell_keeper(s, 0, err) == -1 ||
        supervisor_send_entries(s, err) == -1 ||
        wait_for(s, &s->applied, "handing the entries to the keeper", err) == -1) {
        return -1;
    }
    if (!s->stopping && !s->last_applied.ok) {
        *err = s->last_applied.error;
        return -1;
    }
    return 0;
}

static int start(struct supervisor *s, struct err *err)
{
    supervisor_watch_open(s);
    supervisor_watch_add(s, s->conf->entries_path, &s->reload);
    supervisor_watch_ca(s);
    supervisor_documents_open(s);
    if (open_signals(s, err) == -1 || supervisor_load_entries(s, err) == -1 ||
        supervisor_state_open(&s->state, s->conf->state_dir, s->log, err) == -1 ||
        supervisor_quarantine_open(s, err) == -1 || supervisor_rollout_open(s, err) == -1) {
        return -1;
    }
    supervisor_history_open(s);
    if (open_sockets(s, err) == -1 || start_keeper(s, err) == -1) {
        return -1;
    }
    supervisor_documents_turn(s);
    if (supervisor_kubelet_start(s, err) == -1) {
        return -1;
    }
    if (supervisor_spawn_attestor(s, err) == -1 ||
        wait_for(s, &s->children[AGENT_ROLE_ATTESTOR].ready, "starting the attestor", err) == -1) {
        return -1;
    }
    if (supervisor_spawn_service(s, err) == -1 ||
        wait_for(s, &s->children[AGENT_ROLE_SERVICE].ready, "starting the service", err) == -1) {
        return -1;
    }
    if (supervisor_drop_privileges(s, err) == -1) {
        return -1;
    }
    supervisor_tell_processes(s);
    return 0;
}

/* A file that is wrong changes nothing; only a child that is gone ends the agent. */
static int reload(struct supervisor *s, struct err *err)
{
    struct err wrong = ERR_INIT;

    s->reload = false;
    if (supervisor_load_entries(s, &wrong) == 0) {
        return supervisor_send_entries(s, err);
    }
    s->entries.n_loads++;
    s->entries.n_failed_loads++;
    if (s->entries.error.code == ERR_NONE) {
        s->entries.error = wrong;
    }
    err_advise(&wrong, "the entries of before (generation %llu) stay in force",
               (unsigned long long)s->entries.generation);
    log_failure(s->log, LOG_ERROR, "entries_kept", &wrong);
    supervisor_tell_entries(s);
    return 0;
}

static void log_ready(struct supervisor *s)
{
    struct log_line l;

    log_begin(&l, s->log, LOG_INFO, "ready");
    log_str(&l, "trust_domain", s->conf->trust_domain);
    log_str(&l, "socket", s->conf->socket);
    log_str(&l, "state_dir", s->conf->state_dir);
    log_uint(&l, "entries", s->entries.n_entries);
    log_bool(&l, "separated", s->separated);
    log_end(&l);
}

static int run(struct supervisor *s, struct err *err)
{
    if (!s->separated) {
        log_msg(s->log, LOG_WARN, "not_separated",
                "not started by root: all processes of the agent run as uid %u, so whoever takes "
                "one over can reach the CA key; and executables of other users stay unknown",
                (unsigned)geteuid());
    }
    if (start(s, err) == -1) {
        return -1;
    }
    if (!s->stopping) {
        s->running = true;
        log_ready(s);
        supervisor_manager_ready(s);
    }
    while (!s->stopping) {
        if (turn(s, -1, err) == -1) {
            /* A child that was told something while it died: its end says why. */
            return -1;
        }
        if (s->ca_changed && !s->stopping && supervisor_reload_ca(s, err) == -1) {
            return -1;
        }
        if (s->reload && s->applied && !s->stopping && reload(s, err) == -1) {
            return -1;
        }
        if (!s->stopping) {
            supervisor_documents_turn(s);
            supervisor_manager_turn(s);
        }
    }
    return 0;
}

int agent_run(const struct agent_options *options, struct log *log, struct err *err)
{
    struct supervisor *s = calloc(1, sizeof(*s));
    int r;

    if (s == NULL) {
        return err_set(err, ERR_LIMIT, "no memory");
    }
    s->conf = options->conf;
    s->log = log;
    s->force_fallback = options->force_fallback;
    s->separated = geteuid() == 0;
    s->signal_fd = s->keeper_fd = s->signer.keeper_fd = s->api.fd = s->admin.fd = s->metrics.fd =
        -1;
    s->state = (struct supervisor_state){
        .dir_fd = -1, .lock_fd = -1, .ca_fd = -1, .file_fd = -1, .key_fd = -1, .cert_fd = -1};
    for (size_t i = 0; i < AGENT_N_ROLES; i++) {
        s->children[i] = (struct supervisor_child){
            .role = (enum agent_role)i, .pidfd = -1, .control = -1, .failure = ERR_INIT};
    }
    s->children[AGENT_ROLE_SUPERVISOR].started_s = os_wall_s();
    agent_ipc_init(&s->entries, AGENT_MSG_ENTRIES_STATE, 0);
    r = service_manager_init(&s->manager, err) == 0 && service_sockets_take(&s->opened, err) == 0
            ? run(s, err)
            : -1;
    if (s->stopping) {
        r = 0;
    } else if (err->code == ERR_UNAVAILABLE) {
        find_cause(s, err);
    }
    service_manager_stopping(&s->manager, NULL);
    supervisor_stop_children(s);
    supervisor_control_close(s);
    supervisor_documents_close(s);
    supervisor_rollout_close(s);
    supervisor_history_close(s);
    supervisor_watch_close(s);
    supervisor_quarantine_close(s);
    supervisor_socket_close(&s->api);
    supervisor_socket_close(&s->admin);
    supervisor_socket_close(&s->metrics);
    supervisor_state_close(&s->state);
    if (s->keeper_fd != -1) {
        close(s->keeper_fd);
    }
    if (s->signer.keeper_fd != -1) {
        close(s->signer.keeper_fd);
    }
    if (s->signal_fd != -1) {
        close(s->signal_fd);
    }
    service_sockets_deinit(&s->opened);
    service_manager_deinit(&s->manager);
    free(s->loaded);
    free(s);
    return r;
}
