/* What a rotation daemon does after a change: wires the room `actions` to outputs, log, documents
 * and the supervised child. */
#include "rotate_priv.h"

#include <postern/metrics.h>
#include <postern/os.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_STARTED = 127, ASK_MS = 2000, DOCUMENT_MAX = 16 << 20 };

/* --- the log ---------------------------------------------------------------------------------- */
static void on_try(void *arg, const struct actions_try *t)
{
    struct rotate *r = (struct rotate *)arg;
    bool bad = actions_state_is_bad(t->state);
    struct log_line l;
    log_begin(&l, r->log,
              bad                                 ? LOG_ERROR
              : t->state == ACTIONS_STATE_WAITING ? LOG_WARN
                                                  : LOG_INFO,
              "action");
    log_str(&l, "output", t->output->name);
    log_uint(&l, "generation", t->generation);
    log_str(&l, "action", conf_after_kind_name(t->action->kind));
    log_str(&l, "target", conf_after_target(t->action));
    log_str(&l, "state", actions_state_name(t->state));
    log_uint(&l, "attempt", t->attempt);
    if (t->state == ACTIONS_STATE_WAITING) {
        log_uint(&l, "again_ms", t->again_ms);
    }
    if (t->exit_status != -1) {
        log_int(&l, "exit_status", t->exit_status);
    }
    if (t->http_status != 0) {
        log_uint(&l, "status", t->http_status);
    }
    log_str(&l, "message", t->text[0] != '\0' ? t->text : NULL);
    log_end(&l);
}

static void on_output(void *arg, const struct conf_rotate_output *output,
                      const struct conf_after *action, struct str line, uint32_t lost)
{
    struct rotate *r = (struct rotate *)arg;
    struct log_line l;
    log_begin(&l, r->log, LOG_INFO, "action_output");
    log_str(&l, "output", output->name);
    log_str(&l, "target", conf_after_target(action));
    if (lost > 0) {
        log_uint(&l, "lost", lost);
    } else {
        log_strn(&l, "line", line);
    }
    log_end(&l);
}

static void hex(const uint8_t *bytes, size_t n, char *ret)
{
    for (size_t i = 0; i < n; i++) {
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
    }
}

static void on_verified(void *arg, const struct conf_rotate_output *output,
                        const struct actions_verified *v)
{
    struct rotate *r = (struct rotate *)arg;
    char seen[2 * ACTIONS_SHA256_SIZE + 1] = "";
    struct log_line l;
    log_begin(&l, r->log, v->verdict == ACTIONS_SERVED ? LOG_INFO : LOG_ERROR, "verified");
    log_str(&l, "output", output->name);
    log_uint(&l, "generation", v->generation);
    log_str(&l, "target", output->verify.url_text);
    log_str(&l, "verdict", actions_verdict_name(v->verdict));
    log_uint(&l, "took_ms", v->took_ms);
    log_uint(&l, "attempt", v->tries);
    if (v->has_seen && v->verdict != ACTIONS_SERVED) {
        hex(v->seen, sizeof(v->seen), seen);
        log_str(&l, "seen_sha256", seen);
    }
    log_str(&l, "message", v->text[0] != '\0' ? v->text : NULL);
    log_end(&l);
}

/* --- the ends --------------------------------------------------------------------------------- */
static void on_idle(void *arg)
{
    rotate_look_for_end((struct rotate *)arg);
}

static void on_child(void *arg, int pid, int status, const char *text)
{
    struct rotate *r = (struct rotate *)arg;
    struct log_line l;
    r->child_pid = pid;
    log_begin(&l, r->log, pid != 0 || status != -1 ? LOG_INFO : LOG_ERROR,
              pid != 0 ? "child_started" : "child_ended");
    log_str(&l, "target", r->child_argv[0]);
    if (pid != 0) {
        log_int(&l, "pid", pid);
    } else if (status != -1) {
        log_int(&l, "exit_status", status);
    }
    log_str(&l, "message", text[0] != '\0' ? text : NULL);
    log_end(&l);
    if (pid == 0) {
        r->stopping = true;
        r->exit_status = status != -1 ? status : NOT_STARTED;
        service_manager_stopping(&r->manager, NULL);
        loop_stop(r->loop);
    }
}

static void on_gone(void *arg)
{
    struct rotate *r = (struct rotate *)arg;
    log_msg(r->log, LOG_ERROR, "runner_gone",
            "postern-rotate-run has ended: nothing would be done "
            "after a change any more");
    r->stopping = true;
    r->exit_status = 1;
    loop_stop(r->loop);
}

static const struct actions_events events = {on_try,  on_output, on_verified,
                                             on_idle, on_child,  on_gone};

/* --- the start, and changes ------------------------------------------------------------------- */
/* What the servers show until the first change, as far as it is known. */
static void note_leaves(struct rotate *r)
{
    for (size_t i = 0; i < r->conf->n_outputs; i++) {
        struct rotate_set set;
        if (rotate_published_read(&r->conf->outputs[i], r->conf->warn_before_expiry, os_wall_s(),
                                  &set, NULL) != ROTATE_MISSING &&
            set.has_leaf) {
            actions_note_leaf(r->actions, i, set.leaf_sha256);
        }
    }
}

/* As process 1 of a container: whoever lost his parent is ours to reap. */
static void on_orphan(void *arg, int signo)
{
    (void)arg;
    (void)signo;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int rotate_actions_start(struct rotate *r, struct err *err)
{
    if (r->child_argv == NULL && !actions_needed(r->conf)) {
        return 0;
    }
    r->actions = actions_new(r->loop, r->conf, r->child_argv, &events, r, err);
    if (r->actions == NULL) {
        return -1;
    }
    note_leaves(r);
    return getpid() == 1 ? loop_signal(r->loop, SIGCHLD, on_orphan, r, err) : 0;
}

int rotate_actions_reload(struct rotate *r, const struct conf_rotate *conf, struct err *err)
{
    if (r->actions != NULL) {
        return actions_reload(r->actions, conf, err);
    }
    if (r->conf == NULL || !actions_needed(conf)) {
        return 0; /* the start, or nothing to do as before */
    }
    err_set(err, ERR_CONFIG, "'after' and 'verify' cannot come while the daemon runs");
    return err_advise(err, "restart it: it was started without a process that does such things");
}

void rotate_actions_change(struct rotate *r, const struct rotate_output *out,
                           const struct rotate_change *change)
{
    for (size_t i = 0; r->actions != NULL && i < r->n_outputs; i++) {
        if (r->outputs[i] == out) {
            actions_run(r->actions, i, change->set->generation,
                        change->set->has_leaf ? change->set->leaf_sha256 : NULL);
        }
    }
}

/* Not before the actions of the very first change: they are not for a child that starts with it. */
static void start_child(struct loop_deferred *d)
{
    struct rotate *r = (struct rotate *)(void *)((char *)d - offsetof(struct rotate, start_child));
    actions_child_start(r->actions);
}

void rotate_actions_ready(struct rotate *r)
{
    if (r->actions != NULL) {
        r->start_child.fn = start_child;
        loop_defer(r->loop, &r->start_child);
    }
}

bool rotate_actions_over(const struct rotate *r, bool *ret_well)
{
    *ret_well = r->actions == NULL || actions_all_well(r->actions);
    return r->actions == NULL || actions_idle(r->actions);
}

bool rotate_actions_forward(struct rotate *r, int signo)
{
    if (r->actions == NULL || r->child_pid == 0) {
        return false;
    }
    actions_child_signal(r->actions, signo);
    return true;
}

/* --- documents -------------------------------------------------------------------------------- */
/* It need not be UTF-8: it is what the log would show. */
static json_t *strangers_text(const char *s)
{
    char text[6 * ACTIONS_TEXT_MAX + 2] = "\"";
    size_t len = 1 + log_json_escape(str_of(s), text + 1, sizeof(text) - 2);
    text[len] = '"';
    json_t *j = s[0] != '\0' ? json_loadb(text, len + 1, JSON_DECODE_ANY, NULL) : NULL;
    return j != NULL ? j : json_null();
}

static json_t *one_action(const struct conf_after *a, const struct actions_result *result)
{
    json_t *o = json_object();
    json_object_set_new(o, "action", json_string(conf_after_kind_name(a->kind)));
    json_object_set_new(o, "target", json_string(conf_after_target(a)));
    json_object_set_new(o, "state", json_string(actions_state_name(result->state)));
    json_object_set_new(o, "generation", json_integer((json_int_t)result->generation));
    json_object_set_new(o, "at", report_time_or_null(result->at_s));
    json_object_set_new(o, "tries", json_integer(result->tries));
    json_object_set_new(o, "error", strangers_text(result->text));
    return o;
}

static json_t *verified(const struct conf_rotate_output *o, const struct actions_verified *v)
{
    char seen[2 * ACTIONS_SHA256_SIZE + 1] = "";
    json_t *j = json_object();
    if (v->has_seen) {
        hex(v->seen, sizeof(v->seen), seen);
    }
    json_object_set_new(j, "target", json_string(o->verify.url_text));
    json_object_set_new(j, "verdict",
                        v->known ? json_string(actions_verdict_name(v->verdict)) : json_null());
    json_object_set_new(j, "generation",
                        v->known ? json_integer((json_int_t)v->generation) : json_null());
    json_object_set_new(j, "at", report_time_or_null(v->at_s));
    json_object_set_new(j, "took_ms",
                        v->known ? json_integer((json_int_t)v->took_ms) : json_null());
    json_object_set_new(j, "seen_sha256", report_text_or_null(seen));
    json_object_set_new(j, "error", strangers_text(v->text));
    return j;
}

void rotate_actions_report(const struct rotate *r, size_t output, json_t *o)
{
    const struct conf_rotate_output *c = &r->conf->outputs[output];
    struct actions_status st;
    if (r->actions == NULL) {
        return;
    }
    actions_get_status(r->actions, output, &st);
    json_t *list = json_array();
    for (size_t i = 0; i < st.n_actions; i++) {
        json_array_append_new(list, one_action(&c->after[i], &st.actions[i]));
    }
    json_object_set_new(o, "after", list);
    json_object_set_new(o, "verify", c->verify.present ? verified(c, &st.verified) : json_null());
}

bool rotate_actions_metrics(const struct rotate *r, struct buf *out)
{
    char labels[160];
    bool first = true;
    if (r->actions == NULL) {
        return true;
    }
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct actions_status st;
        actions_get_status(r->actions, i, &st);
        for (unsigned s = ACTIONS_STATE_DONE; s < ACTIONS_N_STATES; s++, first = false) {
            snprintf(labels, sizeof(labels), "output=\"%s\",state=\"%s\"", r->conf->outputs[i].name,
                     actions_state_name((enum actions_state)s));
            (void)metrics_write_value(out, "postern_rotate_actions", METRIC_COUNTER,
                                      first ? "Actions after a change, by how they ended." : NULL,
                                      labels, (double)st.n_by_state[s]);
        }
    }
    first = true;
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct actions_status st;
        if (!r->conf->outputs[i].verify.present) {
            continue;
        }
        actions_get_status(r->actions, i, &st);
        for (unsigned v = 0; v < ACTIONS_N_VERDICTS; v++, first = false) {
            snprintf(labels, sizeof(labels), "output=\"%s\",verdict=\"%s\"",
                     r->conf->outputs[i].name, actions_verdict_name((enum actions_verdict)v));
            (void)metrics_write_value(out, "postern_rotate_verified", METRIC_COUNTER,
                                      first ? "What was served after a change, when it was looked."
                                            : NULL,
                                      labels, (double)st.n_by_verdict[v]);
        }
    }
    first = true;
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct actions_status st;
        if (!r->conf->outputs[i].verify.present) {
            continue;
        }
        actions_get_status(r->actions, i, &st);
        snprintf(labels, sizeof(labels), "output=\"%s\"", r->conf->outputs[i].name);
        (void)metrics_write_value(
            out, "postern_rotate_served", METRIC_GAUGE,
            first ? "Whether the present certificate was seen served: 1, or 0." : NULL, labels,
            st.verified.known && st.verified.verdict == ACTIONS_SERVED ? 1 : 0);
        first = false;
    }
    return true;
}

/* --- of another process ----------------------------------------------------------------------- */
json_t *rotate_actions_ask(const struct conf_rotate *conf)
{
    struct buf text = BUF_INIT(DOCUMENT_MAX);
    json_t *doc = NULL;
    if (conf->admin.socket != NULL &&
        admin_ask(conf->admin.socket, "status", ASK_MS, &text, NULL) == 0) {
        doc = json_loadb((const char *)buf_head(&text), buf_len(&text), 0, NULL);
    }
    buf_reset(&text);
    return doc;
}

json_t *rotate_actions_find(json_t *doc, const char *output)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(doc, "outputs"), i, o)
    {
        const char *name = json_string_value(json_object_get(o, "name"));
        if (name != NULL && strcmp(name, output) == 0) {
            return o;
        }
    }
    return NULL;
}

/* Waiting: the last try has failed. */
static bool is_bad(const char *state)
{
    for (unsigned s = 0; s < ACTIONS_N_STATES; s++) {
        if (strcmp(state, actions_state_name((enum actions_state)s)) == 0) {
            return s == ACTIONS_STATE_WAITING || actions_state_is_bad((enum actions_state)s);
        }
    }
    return false;
}

bool rotate_actions_known(const struct conf_rotate_output *o, const json_t *output)
{
    return (o->n_after == 0 || json_is_array(json_object_get(output, "after"))) &&
           (!o->verify.present || json_is_object(json_object_get(output, "verify")));
}

bool rotate_actions_well(const json_t *output)
{
    const json_t *after = json_object_get(output, "after");
    const char *verdict =
        json_string_value(json_object_get(json_object_get(output, "verify"), "verdict"));
    for (size_t i = 0; i < json_array_size(after); i++) {
        const char *state = json_string_value(json_object_get(json_array_get(after, i), "state"));
        if (state != NULL && is_bad(state)) {
            return false;
        }
    }
    return verdict == NULL || strcmp(verdict, actions_verdict_name(ACTIONS_SERVED)) == 0;
}

void rotate_actions_print(const json_t *output, void (*put)(const char *text))
{
    const json_t *after = json_object_get(output, "after");
    const json_t *verify = json_object_get(output, "verify");
    for (size_t i = 0; i < json_array_size(after); i++) {
        const json_t *a = json_array_get(after, i);
        const char *error = json_string_value(json_object_get(a, "error"));
        const char *parts[] = {json_string_value(json_object_get(a, "action")),
                               json_string_value(json_object_get(a, "target")),
                               json_string_value(json_object_get(a, "state"))};
        printf("  after ");
        for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++) {
            printf(k == 0 ? "" : " ");
            put(parts[k] != NULL ? parts[k] : "?");
        }
        if (error != NULL) {
            printf(": ");
            put(error);
        }
        printf("\n");
    }
    if (json_is_object(verify)) {
        const char *target = json_string_value(json_object_get(verify, "target"));
        const char *verdict = json_string_value(json_object_get(verify, "verdict"));
        const char *error = json_string_value(json_object_get(verify, "error"));
        printf("  verify ");
        put(target != NULL ? target : "?");
        printf(" ");
        put(verdict != NULL ? verdict : "not known yet");
        if (error != NULL) {
            printf(": ");
            put(error);
        }
        printf("\n");
    }
}
