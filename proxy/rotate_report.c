/* What a running rotation daemon tells: the status document, the metrics, whether it is ready. */
#include "rotate_priv.h"

#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool rotate_report_ready(void *arg, struct buf *out)
{
    return rotate_is_ready((const struct rotate *)arg) && buf_printf(out, "ready\n");
}

/* --- status ------------------------------------------------------------------------------------
 */
void rotate_report_set(json_t *o, const struct rotate_set *set, enum rotate_freshness freshness,
                       int64_t now_s)
{
    int64_t ends_s = set != NULL ? rotate_set_ends_s(set) : 0;
    json_object_set_new(o, "state", json_string(rotate_freshness_name(freshness)));
    json_object_set_new(o, "spiffe_id", report_text_or_null(set != NULL ? set->spiffe_id : NULL));
    json_object_set_new(o, "serial", report_text_or_null(set != NULL ? set->serial : NULL));
    json_object_set_new(o, "generation",
                        set != NULL ? json_integer((json_int_t)set->generation) : json_null());
    json_object_set_new(o, "written", report_time_or_null(set != NULL ? set->written_s : 0));
    json_object_set_new(o, "not_after", report_time_or_null(ends_s));
    json_object_set_new(o, "expires_in_s",
                        ends_s != 0 ? json_integer(ends_s - now_s) : json_null());
}

static json_t *output(const struct rotate *r, size_t index)
{
    const struct rotate_output *out = r->outputs[index];
    struct rotate_output_status st;
    char error[1200] = "";
    rotate_output_get_status(out, &st);
    if (st.write_error != NULL) {
        err_text(st.write_error, error, sizeof(error));
    }
    json_t *o = json_object();
    json_object_set_new(o, "write_error", report_text_or_null(error));
    if (error[0] == '\0' && (st.x509.failures_in_row > 0 || st.x509.denied || st.x509.gave_up)) {
        err_text(&st.x509.last_error, error, sizeof(error));
    }
    json_object_set_new(o, "name", json_string(st.output->name));
    json_object_set_new(o, "directory", json_string(st.output->directory));
    rotate_report_set(o, st.set, st.freshness, os_wall_s());
    json_object_set_new(o, "changes", json_integer((json_int_t)st.n_changes));
    json_object_set_new(o, "write_failures", json_integer((json_int_t)st.n_write_failures));
    json_object_set_new(o, "agent_connected",
                        st.needs_x509 ? json_boolean(st.x509.connected) : json_null());
    json_object_set_new(o, "last_error", report_text_or_null(error));
    rotate_actions_report(r, index, o);
    return o;
}

bool rotate_report_status(void *arg, struct buf *out)
{
    const struct rotate *r = (const struct rotate *)arg;
    json_t *o = json_object();
    json_object_set_new(o, "role", json_string("rotate"));
    json_object_set_new(o, "name", report_text_or_null(r->conf->name));
    json_object_set_new(o, "pid", json_integer(getpid()));
    json_object_set_new(o, "uptime_s", json_integer(os_wall_s() - r->started_s));
    json_object_set_new(o, "ready", json_boolean(rotate_is_ready(r)));
    json_t *outputs = json_array();
    for (size_t i = 0; i < r->n_outputs; i++) {
        json_array_append_new(outputs, output(r, i));
    }
    json_object_set_new(o, "outputs", outputs);
    json_object_set_new(o, "child_pid",
                        r->child_pid != 0 ? json_integer(r->child_pid) : json_null());
    json_object_set_new(o, "last_reload", report_reload(&r->reload));
    json_object_set_new(o, "hardening", report_hardening(r->hardening));
    char *text = json_dumps(o, JSON_INDENT(2));
    bool ok = text != NULL && buf_printf(out, "%s\n", text);
    free(text);
    json_decref(o);
    return ok;
}

/* --- metrics -----------------------------------------------------------------------------------
 */
static void states(const struct rotate *r, struct buf *out)
{
    unsigned n[ROTATE_MISSING + 1] = {0};
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct rotate_output_status st;
        rotate_output_get_status(r->outputs[i], &st);
        n[st.freshness]++;
    }
    for (unsigned f = 0; f <= ROTATE_MISSING; f++) {
        char labels[40];
        snprintf(labels, sizeof(labels), "state=\"%s\"",
                 rotate_freshness_name((enum rotate_freshness)f));
        (void)metrics_write_value(out, "postern_rotate_sets", METRIC_GAUGE,
                                  f == 0 ? "Sets of files, by how fresh they are." : NULL, labels,
                                  n[f]);
    }
}

/* One row an output. */
static void per_output(const struct rotate *r, struct buf *out, const char *name,
                       enum metric_type type, const char *help,
                       double (*value)(const struct rotate_output_status *st))
{
    for (size_t i = 0; i < r->n_outputs; i++) {
        struct rotate_output_status st;
        char labels[100];
        rotate_output_get_status(r->outputs[i], &st);
        snprintf(labels, sizeof(labels), "output=\"%s\"", st.output->name);
        (void)metrics_write_value(out, name, type, i == 0 ? help : NULL, labels, value(&st));
    }
}

static double changes(const struct rotate_output_status *st)
{
    return (double)st->n_changes;
}
static double failures(const struct rotate_output_status *st)
{
    return (double)st->n_write_failures;
}
static double ends(const struct rotate_output_status *st)
{
    return st->set != NULL ? (double)rotate_set_ends_s(st->set) : 0;
}
static double last_change(const struct rotate_output_status *st)
{
    return (double)st->last_change_s;
}

bool rotate_report_metrics(void *arg, struct buf *out)
{
    const struct rotate *r = (const struct rotate *)arg;
    states(r, out);
    per_output(r, out, "postern_rotate_changes", METRIC_COUNTER,
               "How often a set was written and put in force.", changes);
    per_output(r, out, "postern_rotate_write_failures", METRIC_COUNTER,
               "How often that failed; the old files stayed.", failures);
    per_output(r, out, "postern_rotate_not_after_seconds", METRIC_GAUGE,
               "The earliest end of what is in a set, in seconds since 1970; 0: nothing ends.",
               ends);
    per_output(r, out, "postern_rotate_last_change_seconds", METRIC_GAUGE,
               "When this process last wrote a set, in seconds since 1970; 0: never.", last_change);
    (void)metrics_write_value(out, "postern_rotate_reloads", METRIC_COUNTER,
                              "Times that the configuration was read again, by result.",
                              "result=\"ok\"", (double)r->reload.ok);
    (void)metrics_write_value(out, "postern_rotate_reloads", METRIC_COUNTER, NULL,
                              "result=\"failed\"", (double)r->reload.failed);
    return rotate_actions_metrics(r, out) && hardening_write_metrics(r->hardening, out) &&
           metrics_write_end(out);
}
