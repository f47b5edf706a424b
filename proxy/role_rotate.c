/*
 * The rotate role: wires configuration, outputs, admin socket, service manager and signals. The
 * work is in identity/rotate.
 */
#include "role_options.h"
#include "roles_priv.h"
#include "rotate_priv.h"

#include <openssl/crypto.h>
#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ONCE_TIMEOUT_S = 60, TIMEOUT_MAX_S = 86400 };

/* --- what outputs tell -------------------------------------------------------------------------
 */
static const struct conf_rotate_output *conf_of(const struct rotate_output *out)
{
    struct rotate_output_status st;
    rotate_output_get_status(out, &st);
    return st.output;
}

static bool all_complete(const struct rotate *r)
{
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct rotate_output_status st;
        rotate_output_get_status(r->outputs[i], &st);
        if (!st.complete) {
            return false;
        }
    }
    return true;
}

/* Whoever waits for the first sets is told. */
static void look_for_readiness(struct rotate *r)
{
    if (!r->told_ready && rotate_is_ready(r)) {
        r->told_ready = true;
        log_msg(r->log, LOG_INFO, "ready", "every set is there");
        service_manager_ready(&r->manager, "every set is there");
        rotate_actions_ready(r);
    }
}

void rotate_look_for_end(struct rotate *r)
{
    bool well = true;
    if (r->once && all_complete(r) && rotate_actions_over(r, &well)) {
        r->exit_status = well ? 0 : 1;
        loop_stop(r->loop);
    }
}

static void on_change(void *arg, struct rotate_output *out, const struct rotate_change *change)
{
    struct rotate *r = (struct rotate *)arg;
    const struct rotate_set *set = change->set;
    int64_t ends_s = rotate_set_ends_s(set);
    char text[32];
    struct log_line l;
    (void)out;
    log_begin(&l, r->log, LOG_INFO, "set_changed");
    log_str(&l, "output", change->output->name);
    log_uint(&l, "generation", set->generation);
    log_str(&l, "own_id", set->spiffe_id[0] != '\0' ? set->spiffe_id : NULL);
    log_str(&l, "serial", set->has_leaf ? set->serial : NULL);
    if (ends_s != 0) {
        os_time_text(ends_s, text, sizeof(text));
        log_str(&l, "not_after", text);
    }
    log_end(&l);
    look_for_readiness(r);
    rotate_actions_change(r, out, change);
    rotate_look_for_end(r);
}

static void on_freshness(void *arg, struct rotate_output *out, enum rotate_freshness freshness)
{
    struct rotate *r = (struct rotate *)arg;
    bool fresh = freshness == ROTATE_FRESH;
    struct log_line l;
    log_begin(&l, r->log,
              fresh                         ? LOG_INFO
              : freshness == ROTATE_EXPIRED ? LOG_ERROR
                                            : LOG_WARN,
              fresh ? "set_fresh" : "set_stale");
    log_str(&l, "output", conf_of(out)->name);
    log_str(&l, "state", rotate_freshness_name(freshness));
    if (!fresh) {
        log_str(&l, "message",
                freshness == ROTATE_EXPIRED ? "its certificate or a token has ended"
                                            : "it should have been renewed by now");
    }
    log_end(&l);
    look_for_readiness(r);
}

static void on_notice(void *arg, struct rotate_output *out, enum rotate_notice notice,
                      const struct err *why)
{
    struct rotate *r = (struct rotate *)arg;
    struct log_line l;
    bool error = notice == ROTATE_WRITE_FAILED || notice == ROTATE_DENIED ||
                 notice == ROTATE_NOT_RENEWED || notice == ROTATE_GAVE_UP;
    log_begin(&l, r->log,
              notice == ROTATE_AGENT_BACK ? LOG_INFO
              : error                     ? LOG_ERROR
                                          : LOG_WARN,
              "rotation");
    log_str(&l, "output", conf_of(out)->name);
    log_str(&l, "notice", rotate_notice_name(notice));
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

static const struct rotate_output_events output_events = {on_change, on_freshness, on_notice};

bool rotate_is_ready(const struct rotate *r)
{
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct rotate_output_status st;
        rotate_output_get_status(r->outputs[i], &st);
        if (st.freshness == ROTATE_MISSING || st.freshness == ROTATE_EXPIRED) {
            return false;
        }
    }
    return !r->stopping;
}

/* --- outputs of a configuration ----------------------------------------------------------------
 */
static void free_outputs(struct rotate_output **outputs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rotate_output_free(outputs[i]);
    }
    free((void *)outputs);
}

static struct rotate_output **make_outputs(struct rotate *r, const struct conf_rotate *conf,
                                           struct err *err)
{
    struct rotate_output **outputs =
        (struct rotate_output **)mem_must_calloc(conf->n_outputs, sizeof(struct rotate_output *));
    for (size_t i = 0; i < conf->n_outputs; i++) {
        outputs[i] = rotate_output_new(r->loop, conf, &conf->outputs[i], &output_events, r, err);
        if (outputs[i] == NULL) {
            free_outputs(outputs, i);
            return NULL;
        }
    }
    return outputs;
}

static void close_dirs(struct rotate_dir **dirs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rotate_dir_close(dirs[i]);
    }
    free((void *)dirs);
}

/* The index of the running output with that directory; n_outputs: none. */
static size_t find_directory(const struct rotate *r, const char *directory)
{
    size_t i = 0;
    while (i < r->n_outputs && strcmp(r->conf->outputs[i].directory, directory) != 0) {
        i++;
    }
    return i;
}

/* Those that no running output has; the others stay NULL. */
static struct rotate_dir **open_dirs(const struct rotate *r, const struct conf_rotate *conf,
                                     struct err *err)
{
    struct rotate_dir **dirs =
        (struct rotate_dir **)mem_must_calloc(conf->n_outputs, sizeof(struct rotate_dir *));
    for (size_t i = 0; i < conf->n_outputs; i++) {
        if (find_directory(r, conf->outputs[i].directory) < r->n_outputs) {
            continue;
        }
        dirs[i] = rotate_dir_open(&conf->outputs[i], err);
        if (dirs[i] == NULL) {
            close_dirs(dirs, i);
            return NULL;
        }
    }
    return dirs;
}

/* Nothing can fail any more: the new takes the place of the old. */
static void exchange(struct rotate *r, struct conf_rotate *conf, struct rotate_output **outputs,
                     struct rotate_dir **dirs)
{
    for (size_t i = 0; i < conf->n_outputs; i++) {
        size_t old = find_directory(r, conf->outputs[i].directory);
        if (dirs[i] == NULL) {
            POSTERN_ASSERT(old < r->n_outputs);
            dirs[i] = rotate_output_take_dir(r->outputs[old]);
        }
        rotate_output_give_dir(outputs[i], dirs[i]);
    }
    free((void *)dirs);
    if (r->outputs != NULL) {
        free_outputs(r->outputs, r->n_outputs);
    }
    conf_rotate_free(r->conf);
    r->conf = conf;
    r->outputs = outputs;
    r->n_outputs = conf->n_outputs;
}

/* Takes conf over if it returns 0. */
static int apply(struct rotate *r, struct conf_rotate *conf, struct err *err)
{
    struct rotate_dir **dirs = open_dirs(r, conf, err);
    if (dirs == NULL) {
        return -1;
    }
    struct rotate_output **outputs = make_outputs(r, conf, err);
    if (outputs == NULL) {
        close_dirs(dirs, conf->n_outputs);
        return -1;
    }
    if (rotate_actions_reload(r, conf, err) == -1) {
        free_outputs(outputs, conf->n_outputs);
        close_dirs(dirs, conf->n_outputs);
        return -1;
    }
    exchange(r, conf, outputs, dirs);
    return 0;
}

/* --- reload ------------------------------------------------------------------------------------
 */
/* As a whole or not at all; all sets are renewed with it. */
static void reload(struct rotate *r)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    struct err err = ERR_INIT;
    r->reload.at_s = os_wall_s();
    if (r->told_ready) {
        service_manager_reloading(&r->manager);
    }
    if (conf_load_rotate(r->path, diag, &conf) == -1 || !rotate_covers(r, conf, &err) ||
        apply(r, conf, &err) == -1) {
        conf_rotate_free(conf);
        report_reload_failed(&r->reload, r->log, diag, &err);
    } else {
        struct log_line l;
        r->reload.ok++;
        r->reload.last_failed = false;
        r->reload.error[0] = '\0';
        log_set_level(r->log, conf->log_level);
        log_begin(&l, r->log, LOG_INFO, "reloaded");
        log_uint(&l, "outputs", r->n_outputs);
        log_end(&l);
    }
    conf_diag_free(diag);
    if (r->told_ready) {
        service_manager_ready(&r->manager, NULL);
    }
}

/* --- signals and timers ------------------------------------------------------------------------
 */
static void on_signal(void *arg, int signo)
{
    struct rotate *r = (struct rotate *)arg;
    bool forwarded = rotate_actions_forward(r, signo);
    if (signo == SIGHUP) {
        reload(r);
        return;
    }
    if (forwarded || (signo != SIGTERM && signo != SIGINT)) {
        return; /* with a child, its end is ours */
    }
    r->stopping = true;
    r->exit_status = r->once ? 1 : 0;
    service_manager_stopping(&r->manager, NULL);
    loop_stop(r->loop);
}

static void on_watchdog(void *arg)
{
    struct rotate *r = (struct rotate *)arg;
    service_manager_alive(&r->manager);
    loop_timer_arm(&r->watchdog, r->manager.watchdog_ms / 3);
}

static void on_timeout(void *arg)
{
    struct rotate *r = (struct rotate *)arg;
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct rotate_output_status st;
        rotate_output_get_status(r->outputs[i], &st);
        if (!st.complete) {
            log_msg(r->log, LOG_ERROR, "once_timeout", "output %s was not written in %llu s",
                    st.output->name, (unsigned long long)r->timeout_s);
        }
    }
    r->exit_status = 1;
    loop_stop(r->loop);
}

/* --- set-up ------------------------------------------------------------------------------------
 */
static int start_admin(struct rotate *r, struct err *err)
{
    static const struct admin_document documents[] = {{"status", rotate_report_status},
                                                      {"metrics", rotate_report_metrics},
                                                      {"ready", rotate_report_ready}};
    const struct conf_rotate *conf = r->conf;
    struct admin_options o = {
        .socket_path = conf->admin.socket,
        .allow_uids = conf->admin.allow_uids,
        .n_allow_uids = conf->admin.n_allow_uids,
        .http = conf->metrics.len > 0 ? (const struct sockaddr *)&conf->metrics.ss : NULL,
        .http_len = conf->metrics.len,
        .documents = documents,
        .n_documents = sizeof(documents) / sizeof(documents[0]),
        .arg = r};
    if (r->once || (conf->admin.socket == NULL && conf->metrics.len == 0)) {
        return 0;
    }
    r->admin = admin_new(r->loop, &o, err);
    return r->admin != NULL ? 0 : -1;
}

static int take_signals(struct rotate *r, struct err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL); /* a peer that is gone is an errno */
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (loop_signal(r->loop, signals[i], on_signal, r, err) == -1) {
            return -1;
        }
    }
    for (size_t i = 0; r->child_argv != NULL && actions_forwarded[i] != 0; i++) {
        int signo = actions_forwarded[i];
        if (signo != SIGTERM && signo != SIGINT && signo != SIGHUP &&
            loop_signal(r->loop, signo, on_signal, r, err) == -1) {
            return -1;
        }
    }
    return 0;
}

/* conf is taken over if it returns 0. */
static int set_up(struct rotate *r, struct conf_rotate *conf, struct err *err)
{
    /* While files may still be opened: OpenSSL reads its configuration once. */
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_ADD_ALL_CIPHERS |
                            OPENSSL_INIT_ADD_ALL_DIGESTS,
                        NULL);
    jwt_init();
    r->loop = loop_new(err);
    if (r->loop == NULL) {
        conf_rotate_free(conf);
        return -1;
    }
    loop_timer_init(&r->watchdog, r->loop, on_watchdog, r);
    loop_timer_init(&r->timeout, r->loop, on_timeout, r);
    if (take_signals(r, err) == -1 || apply(r, conf, err) == -1) {
        conf_rotate_free(conf);
        return -1;
    }
    r->hardening = hardening_new(r->loop, r->log, err);
    if (r->hardening == NULL || start_admin(r, err) == -1 || rotate_actions_start(r, err) == -1 ||
        rotate_confine(r, err) == -1) {
        return -1;
    }
    if (r->manager.watchdog_ms > 0) {
        loop_timer_arm(&r->watchdog, 0);
    }
    if (r->once) {
        loop_timer_arm(&r->timeout, r->timeout_s * 1000);
    }
    return 0;
}

static void tear_down(struct rotate *r)
{
    admin_free(r->admin);
    actions_free(r->actions);
    if (r->outputs != NULL) {
        free_outputs(r->outputs, r->n_outputs);
    }
    conf_rotate_free(r->conf);
    hardening_free(r->hardening);
    loop_free(r->loop);
    service_manager_deinit(&r->manager);
    log_free(r->log);
    free(r->path);
}

static int run(struct rotate *r, struct conf_rotate *conf)
{
    struct err err = ERR_INIT;
    r->log = log_new_fd(STDERR_FILENO, conf->log_level, "rotate");
    r->path = mem_must_strdup(conf->path);
    if (service_manager_init(&r->manager, &err) == -1) {
        conf_rotate_free(conf);
        log_failure(r->log, LOG_ERROR, "start_failed", &err);
        r->exit_status = 1;
    } else if (set_up(r, conf, &err) == -1) {
        log_failure(r->log, LOG_ERROR, "start_failed", &err);
        r->exit_status = err.code == ERR_CONFIG || err.code == ERR_USAGE ? 2 : 1;
    } else {
        struct log_line l;
        log_begin(&l, r->log, LOG_INFO, "started");
        log_str(&l, "name", r->conf->name);
        log_uint(&l, "outputs", r->n_outputs);
        log_end(&l);
        loop_run(r->loop);
        log_msg(r->log, LOG_INFO, "stopped", "%s", r->once ? "once" : "ended");
    }
    tear_down(r);
    return r->exit_status;
}

/* --- the command line --------------------------------------------------------------------------
 */
struct options {
    bool once, status, json;
    const char *timeout;
};

static const struct role_option OPTIONS[] = {
    ROLE_FLAG("--once", struct options, once, "until each set is written once, then end"),
    ROLE_TEXT("--timeout", "SECONDS", struct options, timeout,
              "of --once: fail after so long (default 60)"),
    ROLE_FLAG("--status", struct options, status,
              "say how fresh the files are: 0 all fresh, 1 some stale,\n"
              "2 some expired or missing, or FILE is wrong"),
    ROLE_FLAG("--json", struct options, json, "of --status: as JSON"),
};
static const struct role_use USE = {
    .command = "rotate",
    .uses = ROLE_USES("rotate [--once [--timeout SECONDS]] FILE", "rotate FILE -- CMD [ARGS]",
                      "rotate --status [--json] FILE", ROTATE_IMPORT_USE),
    ROLE_OPTIONS(OPTIONS),
    .notes = "  --from-spiffe-helper FILE\n"
             "                     print a file of ours that does the same; its own options:\n"
             "                     postern rotate --from-spiffe-helper --help\n",
    .max_words = 1,
};

/* The supervised child's line is its own: what stands behind `--`. */
static const char *const *cut_child(int *argc, char **argv)
{
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            *argc = i;
            return (const char *const *)(argv + i + 1);
        }
    }
    return NULL;
}

/* 0, or the exit status after telling why. */
static int take_options(struct rotate *r, const struct options *o)
{
    if ((r->child_argv != NULL && (o->once || o->status)) || (o->status && o->once) ||
        (o->json && !o->status) || (o->timeout != NULL && !o->once)) {
        return role_misuse(&USE, "that does not go together");
    }
    r->once = o->once;
    if (o->timeout != NULL &&
        (!str_to_u64(str_of(o->timeout), TIMEOUT_MAX_S, &r->timeout_s) || r->timeout_s == 0)) {
        return role_misuse(&USE, "--timeout '%.80s': expected a number from 1 to %d", o->timeout,
                           TIMEOUT_MAX_S);
    }
    return 0;
}

int rotate_main(int argc, char **argv)
{
    struct rotate r = {.started_s = os_wall_s(), .manager.fd = -1, .timeout_s = ONCE_TIMEOUT_S};
    struct options o = {.timeout = NULL};
    int status;
    if (argc > 1 && strncmp(argv[1], "--from-spiffe-helper", 20) == 0) {
        return rotate_import(argc, argv);
    }
    r.child_argv = cut_child(&argc, argv);
    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    if (argc != 2) {
        return role_misuse(&USE, "expected a file");
    }
    status = take_options(&r, &o);
    if (status != 0) {
        return status;
    }
    if (o.status) {
        return rotate_status(argv[1], o.json);
    }
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    int rc = conf_load_rotate(argv[1], diag, &conf);
    role_print_diag(diag);
    conf_diag_free(diag);
    return rc == 0 ? run(&r, conf) : 2;
}
