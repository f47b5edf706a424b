/*
 * A gateway's targets, as its main thread sees them: the checks of whether they can be reached, and
 * what /healthz and /readyz say of it all. A sidecar has none of this. Their names: proxy_names.c.
 */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/mem.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIVE_ASK_MS = 1000, ALIVE_MAX_MS = 5000 };

struct proxy_targets {
    struct target_checks *checks;
    struct admin *health; /* NULL: no `health` */
    struct loop_timer alive_timer;
    uint64_t alive_ms; /* when every worker had last answered */
};

/* --- checks ----------------------------------------------------------------------------------- */

static void on_target(void *arg, const struct target_status *now)
{
    const struct proxy *p = (const struct proxy *)arg;
    bool up = now->state == TARGET_UP;
    struct log_line l;
    log_begin(&l, p->log, up ? LOG_INFO : LOG_WARN, "target");
    log_str(&l, "listener", now->listener);
    log_str(&l, "target", now->target);
    log_str(&l, "notice", target_state_name(now->state));
    if (!up) {
        log_str(&l, "error", now->error);
    }
    log_end(&l);
}

void proxy_targets_use(struct proxy *p)
{
    struct err err = ERR_INIT;
    if (p->targets == NULL) {
        return;
    }
    if (target_checks_use(p->targets->checks, p->snapshot, &err) == -1) {
        log_failure(p->log, LOG_ERROR, "target", &err);
    }
}

/* --- whether it lives, whether it is ready ---------------------------------------------------- */

static void on_alive(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    bool all = true;
    for (unsigned i = 0; i < p->n_workers; i++) {
        all = all && conn_worker_alive(p->workers[i]);
    }
    if (all) {
        p->targets->alive_ms = os_now_ms();
        for (unsigned i = 0; i < p->n_workers; i++) {
            conn_worker_post_ask(p->workers[i]);
        }
    }
    loop_timer_arm(&p->targets->alive_timer, ALIVE_ASK_MS);
}

static bool workers_turn(const struct proxy *p)
{
    return os_now_ms() - p->targets->alive_ms <= ALIVE_MAX_MS;
}

static bool all_resolved(const struct proxy *p)
{
    return resolve_state_complete(p->resolved);
}

bool proxy_targets_ready(const struct proxy *p)
{
    return p->targets == NULL || (all_resolved(p) && target_checks_all_up(p->targets->checks));
}

static bool dump(json_t *o, struct buf *out)
{
    char *text = json_dumps(o, JSON_INDENT(2));
    bool ok = text != NULL && buf_printf(out, "%s\n", text);
    free(text);
    json_decref(o);
    return ok;
}

static bool report_healthz(void *arg, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    bool good = workers_turn(p);
    json_t *o = json_object();
    json_object_set_new(o, "ok", json_boolean(good));
    json_object_set_new(o, "workers", json_integer(p->n_workers));
    json_object_set_new(o, "workers_turn", json_boolean(good));
    return dump(o, out) && good;
}

json_t *proxy_targets_status(const struct proxy *p)
{
    json_t *a = json_array();
    size_t n = p->targets != NULL ? target_checks_count(p->targets->checks) : 0;
    for (size_t i = 0; i < n; i++) {
        struct target_status st;
        target_checks_get(p->targets->checks, i, &st);
        static const char *const kinds[] = {[CONF_CHECK_NONE] = "none",
                                            [CONF_CHECK_TCP] = "tcp",
                                            [CONF_CHECK_TLS] = "tls",
                                            [CONF_CHECK_HTTP] = "http"};
        json_t *o = json_object();
        json_object_set_new(o, "listener", json_string(st.listener));
        json_object_set_new(o, "target", json_string(st.target));
        json_object_set_new(o, "check", json_string(kinds[st.kind]));
        json_object_set_new(o, "state", json_string(target_state_name(st.state)));
        json_object_set_new(o, "for_s",
                            json_integer((json_int_t)((os_now_ms() - st.since_ms) / 1000)));
        json_object_set_new(o, "took_ms", json_integer(st.took_ms));
        json_object_set_new(o, "checks", json_integer((json_int_t)st.checks));
        json_object_set_new(o, "failures", json_integer((json_int_t)st.failures));
        json_object_set_new(o, "error", st.error[0] != '\0' ? json_string(st.error) : json_null());
        json_array_append_new(a, o);
    }
    return a;
}

static bool report_readyz(void *arg, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    bool ready = proxy_is_ready(p);
    json_t *o = json_object();
    json_object_set_new(o, "ready", json_boolean(ready));
    json_object_set_new(o, "identity", json_boolean(proxy_has_identity(p)));
    json_object_set_new(o, "state", json_boolean(proxy_state_ready(p)));
    json_object_set_new(o, "token_keys", json_boolean(proxy_claims_ready(p)));
    json_object_set_new(o, "names", json_boolean(all_resolved(p)));
    json_object_set_new(o, "draining", json_boolean(p->draining));
    json_object_set_new(o, "targets", proxy_targets_status(p));
    return dump(o, out) && ready;
}

static void rate_metrics(const struct proxy *p, struct buf *out)
{
    bool first = true;
    for (size_t i = 0; i < p->files->n_listeners && p->shared.listeners != NULL; i++) {
        const struct conf_listener *l = p->files->listeners[i].conf;
        char labels[160];
        if (l->limits.connect_rate == 0) {
            continue;
        }
        snprintf(labels, sizeof(labels), "listener=\"%s\"", l->name);
        (void)metrics_write_value(
            out, "postern_connect_rate_refused", METRIC_COUNTER,
            first ? "Connections beyond a listener's limits.connect_rate." : NULL, labels,
            (double)atomic_load_explicit(&p->shared.listeners[i].over_rate, memory_order_relaxed));
        first = false;
    }
}

void proxy_targets_metrics(const struct proxy *p, struct buf *out)
{
    if (p->targets == NULL) {
        return;
    }
    rate_metrics(p, out);
    for (size_t i = 0; i < target_checks_count(p->targets->checks); i++) {
        struct target_status st;
        char labels[600];
        target_checks_get(p->targets->checks, i, &st);
        snprintf(labels, sizeof(labels), "listener=\"%s\",target=\"%s\"", st.listener, st.target);
        (void)metrics_write_value(out, "postern_target_up", METRIC_GAUGE,
                                  i == 0 ? "1 if the last check of a target succeeded." : NULL,
                                  labels, st.state == TARGET_UP ? 1 : 0);
    }
}

/* --- life ------------------------------------------------------------------------------------- */

static int start_health(struct proxy *p, struct err *err)
{
    static const struct admin_document documents[] = {{"healthz", report_healthz, .health = true},
                                                      {"readyz", report_readyz, .health = true}};
    const struct conf_proxy *conf = p->files->conf;
    struct admin_options o = {.http = (const struct sockaddr *)&conf->health.ss,
                              .http_len = conf->health.len,
                              .documents = documents,
                              .n_documents = sizeof(documents) / sizeof(documents[0]),
                              .inherited = &p->inherited,
                              .paused = true,
                              .arg = p};
    if (conf->health.len == 0) {
        return 0;
    }
    p->targets->health = admin_new(p->loop, &o, err);
    return p->targets->health != NULL ? 0 : err_prefix(err, "`health`");
}

int proxy_targets_start(struct proxy *p, struct err *err)
{
    static const struct target_events events = {.on_change = on_target};
    if (!p->files->conf->gateway) {
        return 0;
    }
    p->targets = mem_must_new(struct proxy_targets);
    p->targets->checks = target_checks_new(p->loop, &events, p);
    loop_timer_init(&p->targets->alive_timer, p->loop, on_alive, p);
    return start_health(p, err);
}

void proxy_targets_serve(struct proxy *p)
{
    if (p->targets == NULL) {
        return;
    }
    if (p->targets->health != NULL) {
        admin_start(p->targets->health);
        p->targets->alive_ms = os_now_ms();
        on_alive(p);
    }
    proxy_targets_use(p);
}

struct admin *proxy_targets_health(const struct proxy *p)
{
    return p->targets != NULL ? p->targets->health : NULL;
}

void proxy_targets_stop(struct proxy *p)
{
    struct proxy_targets *t = p->targets;
    if (t != NULL) {
        loop_timer_disarm(&t->alive_timer);
        admin_free(t->health);
        target_checks_free(t->checks);
        free(t);
        p->targets = NULL;
    }
}
