#include "report_priv.h"

#include <postern/buf.h>
#include <postern/os.h>

enum { HARDENING_MAX = 65536 };

json_t *report_text_or_null(const char *s)
{
    json_t *j = s != NULL && s[0] != '\0' ? json_string(s) : json_null();
    return j != NULL ? j : json_string("?");
}

json_t *report_time_or_null(int64_t at_s)
{
    char text[32];
    if (at_s == 0) {
        return json_null();
    }
    os_time_text(at_s, text, sizeof(text));
    return json_string(text);
}

json_t *report_hardening(const struct hardening *h)
{
    struct buf text = BUF_INIT(HARDENING_MAX);
    json_t *o = NULL;
    if (buf_printf(&text, "{") && hardening_write_status(h, &text) && buf_printf(&text, "}")) {
        o = json_loadb((const char *)buf_head(&text), buf_len(&text), 0, NULL);
    }
    buf_reset(&text);
    return o != NULL ? o : json_null();
}

void report_reload_failed(struct report_reload *r, struct log *log, const struct conf_diag *diag,
                          const struct err *err)
{
    size_t n = conf_diag_count(diag);
    r->failed++;
    r->last_failed = true;
    err_text(n > 0 ? conf_diag_get(diag, 0) : err, r->error, sizeof(r->error));
    for (size_t i = 0; i < n; i++) {
        log_failure(log, LOG_ERROR, "reload_failed", conf_diag_get(diag, i));
    }
    if (n == 0) {
        log_failure(log, LOG_ERROR, "reload_failed", err);
    }
}

json_t *report_reload(const struct report_reload *r)
{
    json_t *o = json_object();
    json_object_set_new(o, "at", report_time_or_null(r->at_s));
    json_object_set_new(o, "ok", json_boolean(!r->last_failed));
    json_object_set_new(o, "error", report_text_or_null(r->error));
    return o;
}
