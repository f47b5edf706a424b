/*
 * The data plane's process, of the roles proxy and gateway: wires configuration, identity, workers,
 * admin socket and signals. The main thread owns all of these; workers get immutable snapshots by
 * mail.
 */
#include "proxy_priv.h"
#include "roles_priv.h"

#include <malloc.h>
#include <openssl/ssl.h>
#include <postern/audit.h>
#include <postern/heir_check.h>
#include <postern/mem.h>
#include <postern/mem_pages.h>
#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    WORKERS_AUTO_MAX = 2,       /* a sidecar is a guest on its node */
    DRAIN_ACCEPT_MAX_MS = 1000, /* how long accepting goes on while endpoints propagate */
    DRAIN_POLL_MS = 20,
    TIDY_MS = 1000,          /* after a change that took much memory for a moment */
    IDENTITY_PLACES = 16384, /* of limits of an identity; pages that are never used cost nothing */
};

/* --- snapshots -------------------------------------------------------------------------------- */

/* What the routes that are in force lead to. */
static struct balance_state *endpoints(const struct proxy *p)
{
    return snapshot_balance(p->balance, p->files, p->state, p->resolved, os_now_ms());
}

void proxy_publish(struct proxy *p)
{
    mem_auto(balance_state_unref) struct balance_state *balance = endpoints(p);
    proxy_tickets_renew(p);
    struct snapshot *next = snapshot_new(
        ++p->generation, &(const struct snapshot_parts){.files = p->files,
                                                        .balance = balance,
                                                        .identity = p->identity,
                                                        .parties = p->parties,
                                                        .resolved = p->resolved,
                                                        .state = p->state,
                                                        .tickets = p->tickets,
                                                        .claims = proxy_claims_keys(p),
                                                        .quarantined = p->quarantined,
                                                        .strict = proxy_permissive_strict(p),
                                                        .before = p->snapshot});
    for (unsigned i = 0; i < p->n_workers; i++) {
        conn_worker_post_snapshot(p->workers[i], next);
    }
    proxy_snapshots_use(p, next);
    if (p->serving) {
        proxy_targets_use(p);
    }
    proxy_restart_check(p);
}

static void on_identity(void *arg, const struct identity_state *state)
{
    struct proxy *p = (struct proxy *)arg;
    struct snapshot_identity *next = NULL;
    struct err err = ERR_INIT;
    if ((state != NULL && snapshot_identity_new(state->svid, state->trust, &p->files->conf->tls,
                                                &next, &err) == -1) ||
        proxy_parties_renew(p, state, &err) == -1) {
        snapshot_identity_unref(next);
        log_failure(p->log, LOG_ERROR, "identity_unusable", &err);
        return; /* the old one stays */
    }
    bool first = p->identity == NULL && next != NULL;
    snapshot_identity_unref(p->identity);
    p->identity = next;
    proxy_publish(p);
    loop_timer_arm(&p->tidy_timer, TIDY_MS);
    struct log_line l;
    log_begin(&l, p->log, next != NULL ? LOG_INFO : LOG_ERROR,
              next == NULL ? "identity_withdrawn"
              : first      ? "ready"
                           : "identity_renewed");
    if (next != NULL) {
        char text[32];
        os_time_text(next->not_after_s, text, sizeof(text));
        log_str(&l, "own_id", next->own_id);
        log_str(&l, "serial", next->serial);
        log_str(&l, "not_after", text);
    } else {
        log_str(&l, "message", "no valid identity: new connections wait, then are reset");
    }
    log_uint(&l, "generation", p->generation);
    log_end(&l);
}

/* What starting, a new identity or a reload took for a moment goes back, where nobody waits for it:
 * a process may never do so again. */
static void on_tidy(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    mem_stack_trim();
    if (atomic_load_explicit(&p->shared.open, memory_order_relaxed) == 0) {
        (void)malloc_trim(0);
    }
}

static void on_notice(void *arg, enum identity_notice notice, const struct err *why)
{
    struct proxy *p = (struct proxy *)arg;
    if (notice == IDENTITY_RENEWED) {
        p->svid_renewals++;
    }
    if (notice == IDENTITY_RENEWED || notice == IDENTITY_TRUST_CHANGED) {
        return; /* on_identity tells it */
    }
    struct log_line l;
    log_begin(&l, p->log, notice == IDENTITY_AGENT_BACK ? LOG_INFO : LOG_WARN, "identity");
    log_str(&l, "notice", identity_notice_name(notice));
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

/* An agent that called our question wrong is not asked again by itself; a person may have mended
 * it since. */
static void ask_again(struct proxy *p)
{
    struct identity_status st;
    if (p->client == NULL) {
        return;
    }
    identity_client_get_status(p->client, &st);
    if (st.gave_up) {
        identity_client_renew(p->client);
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

static void on_drain_poll(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    bool done = true;
    for (unsigned i = 0; i < p->n_workers; i++) {
        done = done && conn_worker_drained(p->workers[i]);
    }
    if (done) {
        loop_stop(p->loop);
    } else {
        loop_timer_arm(&p->drain_timer, DRAIN_POLL_MS);
    }
}

static void drain_begin(struct proxy *p)
{
    p->draining = true;
    proxy_canary_rest(p);
    p->drain_end_ms = os_now_ms() + p->files->conf->timeouts.drain_ms;
    loop_timer_arm(&p->drain_timer, DRAIN_POLL_MS);
}

void proxy_drain_handed_over(struct proxy *p)
{
    proxy_unix_stop(p, false); /* the other one's now */
    drain_begin(p);
    for (unsigned i = 0; i < p->n_workers; i++) {
        conn_worker_post_handed_over(p->workers[i], p->files->conf->timeouts.drain_ms);
    }
}

void proxy_drain(struct proxy *p)
{
    uint32_t drain_ms = p->files->conf->timeouts.drain_ms;
    uint32_t accept_ms = drain_ms / 4 < DRAIN_ACCEPT_MAX_MS ? drain_ms / 4 : DRAIN_ACCEPT_MAX_MS;
    struct log_line l;
    log_begin(&l, p->log, LOG_INFO, "draining");
    log_uint(&l, "accept_ms", accept_ms);
    log_uint(&l, "drain_ms", drain_ms);
    log_end(&l);
    for (unsigned i = 0; i < p->n_workers; i++) {
        conn_worker_post_drain(p->workers[i], accept_ms, drain_ms);
    }
    drain_begin(p);
    service_manager_stopping(&p->manager, "Draining");
}

static void on_signal(void *arg, int signo)
{
    struct proxy *p = (struct proxy *)arg;
    if (signo == SIGHUP) {
        proxy_reload(p);
        if (p->credentials != NULL) {
            credentials_read_again(p->credentials);
        }
        ask_again(p);
    } else if (p->draining || !p->serving) {
        loop_stop(p->loop); /* asked twice, or nothing is open: now */
    } else {
        proxy_drain(p);
    }
}

/* --- logs ------------------------------------------------------------------------------------- */

static void drain_logs(struct proxy *p)
{
    for (unsigned i = 0; i < p->n_workers; i++) {
        p->log_lines_lost += log_drain(conn_worker_log(p->workers[i]), STDERR_FILENO);
    }
}

static void on_log_wake(void *arg, unsigned ready)
{
    struct proxy *p = (struct proxy *)arg;
    uint64_t n;
    (void)ready;
    if (read(p->log_wake_fd, &n, sizeof(n)) == sizeof(n)) {
        drain_logs(p);
    }
}

/* --- set-up ----------------------------------------------------------------------------------- */

static int start_workers(struct proxy *p, struct err *err)
{
    unsigned n = p->files->conf->workers;
    if (n == 0) {
        n = os_cpu_count();
        n = n > WORKERS_AUTO_MAX ? WORKERS_AUTO_MAX : n;
    }
    p->workers = (struct conn_worker **)mem_must_calloc(n, sizeof(struct conn_worker *));
    if (proxy_audit_open(p, n, err) == -1) {
        return -1;
    }
    for (unsigned i = 0; i < n; i++) {
        struct conn_worker_spec spec = {.index = i,
                                        .n_workers = n,
                                        .shared = &p->shared,
                                        .role = p->role->name,
                                        .first = p->snapshot,
                                        .log_wake_fd = p->log_wake_fd,
                                        .audit = p->audit != NULL ? audit_ring(p->audit, i) : NULL,
                                        .inherited = &p->inherited};
        if (conn_worker_new(&spec, &p->workers[i], err) == -1) {
            return -1;
        }
        p->n_workers++;
    }
    return 0;
}

static int start_identity(struct proxy *p, struct err *err)
{
    static const enum identity_key_mode modes[] = {[CONF_KEY_AUTO] = IDENTITY_KEY_AUTO,
                                                   [CONF_KEY_CSR] = IDENTITY_KEY_CSR,
                                                   [CONF_KEY_AGENT] = IDENTITY_KEY_AGENT};
    static const struct identity_client_events events = {.on_state = on_identity,
                                                         .on_notice = on_notice};
    const struct conf_proxy *conf = p->files->conf;
    if (conf->no_identity) {
        return 0;
    }
    struct identity_client_options o = {.socket = conf->identity.socket,
                                        .spiffe_id = conf->identity.spiffe_id,
                                        .key = modes[conf->identity.key],
                                        .check_agent = conf->state.from == CONF_STATE_AGENT,
                                        .keys = proxy_holder_keys(p)};
    p->client = identity_client_new(p->loop, &o, &events, p, err);
    return p->client != NULL ? 0 : -1;
}

static int start_admin(struct proxy *p, struct err *err)
{
    static const struct admin_document documents[] = {{"status", proxy_report_status},
                                                      {"metrics", proxy_report_metrics},
                                                      {"ready", proxy_report_ready},
                                                      {"readiness", proxy_report_readiness},
                                                      {"denials", proxy_report_denials},
                                                      {"policies", proxy_report_policies},
                                                      {"denial/", .named = proxy_report_denial}};
    const struct conf_proxy *conf = p->files->conf;
    struct admin_options o = {
        .socket_path = conf->admin.socket,
        .allow_uids = conf->admin.allow_uids,
        .n_allow_uids = conf->admin.n_allow_uids,
        .http = conf->metrics.len > 0 ? (const struct sockaddr *)&conf->metrics.ss : NULL,
        .http_len = conf->metrics.len,
        .documents = documents,
        .n_documents = sizeof(documents) / sizeof(documents[0]),
        .inherited = &p->inherited,
        .paused = true, /* until the workers run */
        .channel_name = HANDOVER_REQUEST,
        .channel = proxy_take_over_asked,
        .arg = p};
    p->admin = admin_new(p->loop, &o, err);
    return p->admin != NULL ? 0 : -1;
}

/* What the kubelet asks of the workload; read once, since the address is. */
static int start_probes(struct proxy *p, struct err *err)
{
    if (p->files->conf->probes.n == 0) {
        return 0;
    }
    p->probes_from = snapshot_files_ref(p->files);
    p->probes = probes_new(p->loop, p->probes_from->conf, err);
    return p->probes != NULL ? 0 : -1;
}

/* As many descriptors as we may have: two a connection. */
static void raise_descriptors(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

static int set_up(struct proxy *p, struct err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL); /* a peer that is gone is an errno */
    raise_descriptors();
    /* Before its first key: one leg may be TLS on either side of a connection. */
    key_heap_open((size_t)p->files->conf->limits.connections * 2, &p->key_heap);
    /* While files may still be opened: OpenSSL reads its configuration once. */
    OPENSSL_init_ssl(0, NULL);
    p->loop = loop_new(err);
    if (p->loop == NULL) {
        return -1;
    }
    proxy_tickets_init(p);
    proxy_snapshots_init(p);
    proxy_permissive_init(p);
    p->hardening = hardening_new(p->loop, p->log, err);
    if (p->hardening == NULL) {
        return -1;
    }
    loop_timer_init(&p->drain_timer, p->loop, on_drain_poll, p);
    loop_timer_init(&p->tidy_timer, p->loop, on_tidy, p);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (loop_signal(p->loop, signals[i], on_signal, p, err) == -1) {
            return -1;
        }
    }
    p->log_wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->log_wake_fd == -1) {
        return err_sys(err, "cannot make an eventfd");
    }
    p->log_io = loop_io_new(p->loop, p->log_wake_fd, on_log_wake, p);
    if (p->log_io == NULL) {
        return err_set(err, ERR_SYSTEM, "no memory");
    }
    loop_io_want(p->log_io, LOOP_READ);
    if (proxy_credentials_start(p, err) == -1 || proxy_claims_start(p, err) == -1) {
        return -1;
    }
    p->balance = balance_new();
    p->shared.identities = limit_table_new(IDENTITY_PLACES);
    p->shared.rates = limit_table_new(IDENTITY_PLACES);
    mem_auto(balance_state_unref) struct balance_state *balance = endpoints(p);
    proxy_snapshots_use(
        p, snapshot_new(++p->generation, &(const struct snapshot_parts){.files = p->files,
                                                                        .parties = p->parties,
                                                                        .balance = balance}));
    if (p->files->conf->gateway) {
        p->shared.listeners = (struct conn_shared_listener *)mem_must_calloc(
            p->files->n_listeners + 1, sizeof(*p->shared.listeners));
    }
    proxy_canary_init(p);
    if (proxy_unix_start(p, err) == -1 || start_workers(p, err) == -1 ||
        start_admin(p, err) == -1 || start_probes(p, err) == -1 ||
        proxy_holder_start(p, err) == -1 || proxy_take_over_start(p, err) == -1 ||
        start_identity(p, err) == -1 || proxy_state_start(p, err) == -1 ||
        proxy_targets_start(p, err) == -1 || proxy_names_start(p, err) == -1 ||
        proxy_confine(p, err) == -1) {
        return -1;
    }
    return proxy_restart_set_up(p, err);
}

static void tear_down(struct proxy *p)
{
    proxy_restart_deinit(p);
    admin_free(p->admin);
    probes_free(p->probes);
    snapshot_files_unref(p->probes_from);
    proxy_targets_stop(p);
    proxy_names_stop(p);
    proxy_reload_stop(p);
    state_client_free(p->state_client);
    identity_client_free(p->client);
    proxy_credentials_stop(p);
    proxy_claims_stop(p);
    for (unsigned i = 0; i < p->n_workers; i++) {
        conn_worker_stop(p->workers[i]);
    }
    if (p->log != NULL) {
        drain_logs(p);
    }
    for (unsigned i = 0; i < p->n_workers; i++) {
        conn_worker_free(p->workers[i]);
    }
    proxy_audit_stop(p); /* after the workers, which write to it */
    proxy_unix_stop(p, true);
    proxy_canary_free(p); /* after the workers, which write to it */
    free(p->shared.listeners);
    limit_table_free(p->shared.identities);
    free(p->workers);
    p->log_io = loop_io_free(p->log_io);
    if (p->log_wake_fd != -1) {
        close(p->log_wake_fd);
    }
    heir_check_free(p->heir_check);
    hardening_free(p->hardening);
    proxy_tickets_deinit(p);
    proxy_snapshots_deinit(p);
    proxy_permissive_free(p);
    proxy_holder_leave_loop(p);
    loop_free(p->loop);
    snapshot_unref(p->snapshot);
    balance_free(p->balance);
    snapshot_identity_unref(p->identity);
    snapshot_state_unref(p->state);
    snapshot_files_unref(p->files);
    proxy_holder_stop(p);
    proxy_token_stop(p); /* after the last use of its keys */
    log_free(p->log);
}

/* The files, with every error of all of them. */
static int load(struct proxy *p, struct err *err)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    int r = proxy_read_conf(p, diag, &conf);
    if (r == 0) {
        r = snapshot_files_new(conf, 1, diag, &p->files, err);
    }
    role_print_diag(diag);
    if (r == -1 && conf_diag_count(diag) == 0) {
        char text[1024];
        fprintf(stderr, "postern: %s\n", err_text(err, text, sizeof(text)));
    }
    conf_diag_free(diag);
    return r;
}

bool proxy_has_identity(const struct proxy *p)
{
    return (p->files->conf->no_identity || p->identity != NULL) &&
           (p->credentials == NULL || credentials_complete(p->credentials));
}

/* What a file says and a reader of the log should know. */
void proxy_warn(const struct proxy *p)
{
    proxy_policy_warn(p);
    for (size_t i = 0; i < p->files->n_listeners; i++) {
        const struct conf_listener *c = p->files->listeners[i].conf;
        if (c->client_certificate == CONF_CLIENT_CERTIFICATE_NONE) {
            struct log_line l;
            log_begin(&l, p->log, LOG_WARN, "anonymous_clients");
            log_str(&l, "listener", c->name);
            log_str(&l, "message",
                    "clients are not asked for a certificate: whoever reaches this "
                    "listener comes in without an identity");
            log_end(&l);
        }
    }
}

/* What is let in where no file says it. */
static const char *policy_message(const struct proxy *p)
{
    if (p->state_client != NULL) {
        return "what is allowed comes from the agent";
    }
    if (p->files->policy != NULL) {
        return NULL;
    }
    return p->files->conf->gateway
               ? "no policy: whoever a listener's `allow` names comes in, and may do anything there"
               : "no policy: every inbound connection is denied; name one under `policy:`";
}

int proxy_run(const struct proxy_role *role, int argc, char **argv)
{
    struct proxy_options o = {.env = NULL};
    int status;
    if (!role_options(role->use, &argc, argv, &o, &status)) {
        return status;
    }
    if ((argc == 2) == (o.env != NULL)) {
        return role_misuse(role->use, "expected a file, or a variable that holds what it would");
    }
    struct proxy p = {.role = role,
                      .path = o.env != NULL ? o.env : argv[1],
                      .env = o.env,
                      .log_wake_fd = -1,
                      .manager.fd = -1,
                      .before.fd = -1,
                      .heir.fd = -1,
                      .started_s = os_wall_s()};
    struct err err = ERR_INIT;
    if (load(&p, &err) == -1 || p.files == NULL) {
        return 2;
    }
    p.path = p.files->conf->path != NULL ? p.files->conf->path : p.path;
    char *path = mem_must_strdup(p.path); /* outlives the files that it came with */
    p.path = path;
    p.log = log_new_fd(STDERR_FILENO, p.files->conf->log_level, role->name);
    /* Its user first: by that its traffic is told from the workload's. */
    if (proxy_become_user(&p, &err) == -1 || proxy_restart_begin(&p, o.take_over, &err) == -1 ||
        set_up(&p, &err) == -1) {
        log_failure(p.log, LOG_ERROR, "start_failed", &err);
        p.exit_status = err.code == ERR_CONFIG || err.code == ERR_USAGE ? 2 : 1;
    } else {
        struct log_line l;
        log_begin(&l, p.log, LOG_INFO, "started");
        log_str(&l, "name", p.files->conf->name);
        log_uint(&l, "workers", p.n_workers);
        log_uint(&l, "listeners", p.files->n_listeners);
        log_uint(&l, "rules", p.files->n_rules);
        log_str(&l, "message", policy_message(&p));
        log_end(&l);
        proxy_warn(&p);
        on_tidy(&p); /* what reading the files has left */
        loop_run(p.loop);
        log_msg(p.log, LOG_INFO, "stopped", "%s", p.draining ? "drained" : "ended");
    }
    tear_down(&p);
    free(path);
    return p.exit_status;
}
