/* The kubelet in status and metrics: whether it answers, how old its last good list is, and what is
 * loose about asking it. Nothing where the configuration names none. */
#include "service_priv.h"

#include <postern/os.h>

static bool asked(const struct service *s)
{
    return s->kubelet_state.head.type == AGENT_MSG_KUBELET_STATE && s->kubelet_state.configured;
}

/* -1: there is no list yet. */
static int64_t age_s(const struct agent_msg_kubelet_state *k)
{
    int64_t now_s = os_wall_s();

    if (k->fetched_s == 0) {
        return -1;
    }
    return now_s > k->fetched_s ? now_s - k->fetched_s : 0;
}

static const char *json_bool(bool b)
{
    return b ? "true" : "false";
}

static bool put_error(struct buf *out, const char *key, const struct err *error)
{
    char text[1100], escaped[2048];
    size_t n;

    if (error->code == ERR_NONE) {
        return true;
    }
    n = log_json_escape(str_of(err_text(error, text, sizeof(text))), escaped, sizeof(escaped));
    return buf_printf(out, ",\"%s\":\"%.*s\"", key, (int)n, escaped);
}

bool service_kubernetes_status(const struct service *s, struct buf *out)
{
    const struct agent_msg_kubelet_state *k = &s->kubelet_state;
    char when[32] = "";

    if (!asked(s)) {
        return true;
    }
    if (k->fetched_s != 0) {
        os_time_text(k->fetched_s, when, sizeof(when));
    }
    return buf_printf(out,
                      ",\"kubernetes\":{\"pods\":%u,\"containers\":%u,\"left_out\":%u,"
                      "\"fetched\":%s%s%s,\"age_seconds\":%lld,\"asked\":%llu,\"failed\":%llu,"
                      "\"restarts\":%u,\"insecure\":%s,\"plaintext\":%s",
                      k->n_pods, k->n_containers, k->n_left_out, when[0] != '\0' ? "\"" : "null",
                      when, when[0] != '\0' ? "\"" : "", (long long)age_s(k),
                      (unsigned long long)k->n_asked, (unsigned long long)k->n_failed, k->restarts,
                      json_bool(k->insecure), json_bool(k->plaintext)) &&
           put_error(out, "last_error", &k->error) &&
           put_error(out, "first_left_out", &k->left_out) && buf_printf(out, "}");
}

bool service_kubernetes_metrics(const struct service *s, struct buf *out)
{
    const struct agent_msg_kubelet_state *k = &s->kubelet_state;

    if (!asked(s)) {
        return true;
    }
    return metrics_write_value(out, "postern_agent_pods", METRIC_GAUGE,
                               "Pods of this node, as its kubelet said last.", "",
                               (double)k->n_pods) &&
           metrics_write_value(out, "postern_agent_pods_left_out", METRIC_GAUGE,
                               "Pods that are not in Kubernetes' forms, or beyond a bound.", "",
                               (double)k->n_left_out) &&
           metrics_write_value(out, "postern_agent_pods_age_seconds", METRIC_GAUGE,
                               "Age of the last good list of pods; -1: there has been none.", "",
                               (double)age_s(k)) &&
           metrics_write_value(out, "postern_agent_kubelet_ok", METRIC_GAUGE,
                               "The kubelet's last answer was good.", "",
                               k->error.code == ERR_NONE && k->fetched_s != 0 ? 1 : 0) &&
           metrics_write_value(out, "postern_agent_kubelet_asked", METRIC_COUNTER,
                               "Questions to the kubelet.", "", (double)k->n_asked) &&
           metrics_write_value(out, "postern_agent_kubelet_failed", METRIC_COUNTER,
                               "Questions that had no good answer.", "", (double)k->n_failed);
}
