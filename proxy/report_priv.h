/* What the status documents of the running roles say in the same words, and their last reload. */
#ifndef POSTERN_REPORT_PRIV_H
#define POSTERN_REPORT_PRIV_H

#include <jansson.h>
#include <postern/conf.h>
#include <postern/err.h>
#include <postern/hardening.h>
#include <postern/log.h>
#include <stdbool.h>
#include <stdint.h>

/* All return what the caller owns. */
json_t *report_text_or_null(const char *s); /* NULL and "" are null; "?" is what is not UTF-8 */
json_t *report_time_or_null(int64_t at_s);  /* 0: null */
json_t *report_hardening(const struct hardening *h); /* null if it cannot be told */

struct report_reload {
    uint64_t ok, failed;
    int64_t at_s; /* of the last one; 0: none yet */
    bool last_failed;
    char error[600]; /* of the last one */
};
/* Remembers and logs why the files were not taken: every error of diag, or err if there is none. */
void report_reload_failed(struct report_reload *r, struct log *log, const struct conf_diag *diag,
                          const struct err *err);
json_t *report_reload(const struct report_reload *r);

#endif
