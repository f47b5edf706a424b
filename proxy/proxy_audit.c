/* The audit log of a data plane: made, started, told of. */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/audit.h>
#include <postern/metrics.h>
#include <stdio.h>
#include <unistd.h>

int proxy_audit_open(struct proxy *p, unsigned n_workers, struct err *err)
{
    static const enum audit_to to[] = {[CONF_AUDIT_STDOUT] = AUDIT_TO_STDOUT,
                                       [CONF_AUDIT_FILE] = AUDIT_TO_FILE,
                                       [CONF_AUDIT_UNIX] = AUDIT_TO_UNIX};
    const struct conf_audit *conf = &p->files->conf->audit;
    if (!conf->configured) {
        return 0;
    }
    return audit_new(&(const struct audit_options){.to = to[conf->to],
                                                   .stdout_fd = STDOUT_FILENO,
                                                   .path = conf->path,
                                                   .max_size = conf->max_size,
                                                   .keep = conf->keep,
                                                   .chain = conf->chain == CONF_AUDIT_CHAIN_ON,
                                                   .name = p->files->conf->name,
                                                   .role = p->role->name,
                                                   .log_fd = STDERR_FILENO},
                     n_workers, &p->audit, err);
}

int proxy_audit_start(struct proxy *p, struct err *err)
{
    return p->audit != NULL ? audit_start(p->audit, err) : 0;
}

void proxy_audit_stop(struct proxy *p)
{
    audit_stop(p->audit);
    p->audit = audit_free(p->audit);
}

json_t *proxy_audit_status(const struct proxy *p)
{
    const struct conf_audit *conf = &p->files->conf->audit;
    struct audit_figures st;
    char head[2 * AUDIT_HASH_SIZE + 32];
    if (p->audit == NULL) {
        return json_null();
    }
    audit_get_figures(p->audit, &st);
    int n = snprintf(head, sizeof(head), "%llu:", (unsigned long long)st.seq);
    for (size_t i = 0; i < AUDIT_HASH_SIZE && n > 0; i++) {
        n += snprintf(head + n, sizeof(head) - (size_t)n, "%02x", st.head[i]);
    }
    json_t *o = json_object();
    json_object_set_new(o, "path", conf->path != NULL ? json_string(conf->path) : json_null());
    json_object_set_new(o, "allows", json_string(conf->allows != NULL ? conf->allows : "all"));
    json_object_set_new(o, "writing", json_boolean(st.writing));
    json_object_set_new(o, "error", st.error[0] != '\0' ? json_string(st.error) : json_null());
    json_object_set_new(o, "decisions", json_integer((json_int_t)st.decisions));
    json_object_set_new(o, "skipped", json_integer((json_int_t)st.skipped));
    json_object_set_new(o, "lost", json_integer((json_int_t)st.lost));
    json_object_set_new(o, "rotations", json_integer((json_int_t)st.rotations));
    json_object_set_new(o, "head", json_string(head));
    return o;
}

void proxy_audit_metrics(const struct proxy *p, struct buf *out)
{
    struct audit_figures st;
    if (p->audit == NULL) {
        return;
    }
    audit_get_figures(p->audit, &st);
    (void)metrics_write_value(out, "postern_audit_decisions", METRIC_COUNTER,
                              "Decisions that became a line of the audit log.", "",
                              (double)st.decisions);
    (void)metrics_write_value(out, "postern_audit_skipped", METRIC_COUNTER,
                              "Allows that `audit.allows` leaves out.", "", (double)st.skipped);
    (void)metrics_write_value(out, "postern_audit_lost", METRIC_COUNTER,
                              "Decisions that the audit log had no room for.", "", (double)st.lost);
    (void)metrics_write_value(out, "postern_audit_failures", METRIC_COUNTER,
                              "Times that the audit log could not be written, or changed.", "",
                              (double)st.failures);
    (void)metrics_write_value(out, "postern_audit_writing", METRIC_GAUGE,
                              "1 while the audit log is written.", "", st.writing ? 1 : 0);
}
