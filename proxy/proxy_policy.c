/* What is said of a policy that is Istio's or Kubernetes': its warnings, and for whom it was read.
 */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/policy_source.h>

void proxy_policy_warn(const struct proxy *p)
{
    const struct conf_diag *doubts = p->files->policy_doubts;
    for (size_t i = 0; doubts != NULL && i < conf_diag_count(doubts); i++) {
        log_failure(p->log, LOG_WARN, "policy_warning", conf_diag_get(doubts, i));
    }
}

json_t *proxy_policy_report(const struct proxy *p)
{
    const struct conf_diag *doubts = p->files->policy_doubts;
    json_t *list = json_array();
    char text[1200];
    for (size_t i = 0; doubts != NULL && i < conf_diag_count(doubts); i++) {
        json_array_append_new(
            list, report_text_or_null(err_text(conf_diag_get(doubts, i), text, sizeof(text))));
    }
    json_t *o = json_object();
    json_object_set_new(o, "file", report_text_or_null(p->files->conf->policy_path));
    json_object_set_new(o, "rules", json_integer((json_int_t)p->files->n_rules));
    json_object_set_new(o, "generation", json_integer((json_int_t)p->files->generation));
    json_object_set_new(o, "warnings", list);
    return o;
}

json_t *proxy_policy_for(const struct proxy *p)
{
    enum { TEXT_MAX = 1 << 20 };
    struct policy_source source;
    struct buf text = BUF_INIT(TEXT_MAX);
    json_t *j = NULL;
    policy_source_of_proxy(p->files->conf, &source);
    if (policy_source_write(&source, &text)) {
        j = json_stringn((const char *)buf_head(&text), buf_len(&text));
    }
    policy_source_deinit(&source);
    buf_reset(&text);
    return j != NULL ? j : json_null();
}
