/* HTTP/2: answers of ours, to plain requests and to those of gRPC, and what the log says. */
#include "h2_priv.h"

#include <stdio.h>
#include <string.h>

/* --- the log ---------------------------------------------------------------------------------- */

static bool wants_line(const struct h2_exchange *x, bool refused)
{
    const struct conn *c = x->conn;
    if (conn_conf(c)->access_log == CONF_ACCESS_DENIED && !refused) {
        return false;
    }
    return log_enabled(c->worker->log, refused ? LOG_WARN : LOG_INFO);
}

static void put_facts(struct log_line *l, const struct h2_exchange *x)
{
    const char *head = (const char *)buf_head(&x->head);
    if (!x->judged) {
        return;
    }
    log_strn(l, "method", (struct str){head, x->method_len});
    log_strn(l, "host", (struct str){head + x->head_len, x->host_len});
    log_strn(l, "path", (struct str){head + x->head_len + x->host_len, x->path_len});
    log_str(l, "verdict", x->verdict.allow ? "allow" : "deny");
    log_str(l, "rule", x->verdict.rule);
}

void h2_record(struct h2_exchange *x, const char *near_miss)
{
    struct conn *c = x->conn;
    if (x->recorded) {
        return;
    }
    x->recorded = true;
    x->in_flight = false;
    unsigned class = x->status / 100;
    bool refused = (x->status >= 400 || x->grpc_status > 0) && x->reason != NULL;
    counter_add(&c->worker->counters.requests[class < CONN_STATUS_CLASSES ? class : 0], 1);
    if (!wants_line(x, refused)) {
        return;
    }
    struct log_line l;
    log_begin(&l, c->worker->log, refused ? LOG_WARN : LOG_INFO, "request");
    conn_record_common(&l, c);
    log_str(&l, "protocol", "http2");
    log_uint(&l, "stream", (uint64_t)x->id);
    put_facts(&l, x);
    log_uint(&l, "status", x->status);
    if (x->grpc_status != H2_STATUS_UNSAID) {
        log_uint(&l, "grpc_status", (uint64_t)x->grpc_status);
    }
    log_str(&l, "reason", x->reason);
    log_str(&l, "decision", x->decision[0] != '\0' ? x->decision : NULL);
    log_str(&l, "near_miss", near_miss != NULL && near_miss[0] != '\0' ? near_miss : NULL);
    if (c->sys_errno != 0 && x->reason != NULL) {
        log_str(&l, "error", strerrordesc_np(c->sys_errno));
    }
    log_uint(&l, "bytes_up", x->bytes_up);
    log_uint(&l, "bytes_down", x->bytes_down);
    log_uint(&l, "duration_ms", loop_now_ms(c->worker->loop) - x->began_ms);
    log_end(&l);
}

/* --- answers ---------------------------------------------------------------------------------- */

static struct http2_field field(struct str name, const char *value)
{
    return (struct http2_field){name, str_of(value), false};
}

/* Trailers-only: one head that ends the stream. */
static bool answer_grpc(struct h2_exchange *x, unsigned status, const char *reason,
                        const char *text)
{
    char number[8], message[192];
    x->grpc_status = (int)http2_grpc_status(status);
    snprintf(number, sizeof(number), "%d", x->grpc_status);
    snprintf(message, sizeof(message), "%s (reason %s, decision %s)",
             text != NULL ? text : http1_status_text(status), reason, x->decision);
    const struct http2_field fields[] = {
        field(STR_LIT(":status"), "200"),
        field(STR_LIT("content-type"), "application/grpc"),
        field(STR_LIT("grpc-status"), number),
        field(STR_LIT("grpc-message"), message),
        field(STR_LIT("x-postern-reason"), reason),
        field(STR_LIT("x-postern-decision"), x->decision),
    };
    x->status = 200;
    return http2_stream_head(&x->down, fields, 6, false, true);
}

static bool answer_plain(struct h2_exchange *x, unsigned status, const char *reason,
                         const char *text)
{
    struct http1_answer a = {.status = status,
                             .reason = reason,
                             .decision_id = str_of(x->decision),
                             .text = text,
                             .head = x->req.method == HTTP1_HEAD};
    struct http2_field fields[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    struct buf out = BUF_INIT(4096);
    x->status = status;
    bool ok = http1_answer_emit(&a, &out);
    if (ok) {
        uint8_t *head = out.data + out.start;
        const uint8_t *body = (const uint8_t *)memmem(head, out.len, "\r\n\r\n", 4);
        size_t head_len = (size_t)(body - head) + 4;
        fields[0] = h2_status_field(head);
        size_t n = h2_fields_add(head, head_len, false, NULL, fields, 1);
        bool ends = out.len == head_len;
        ok = http2_stream_head(&x->down, fields, n, false, ends) &&
             http2_stream_send_last(&x->down, head + head_len, out.len - head_len);
        x->bytes_down += out.len - head_len;
    }
    buf_reset(&out);
    return ok;
}

void h2_answer(struct h2_exchange *x, unsigned status, const char *reason, const char *text,
               const char *near_miss)
{
    if (x->head_passed || !http2_stream_is_live(&x->down)) {
        x->reason = x->reason != NULL ? x->reason : reason;
        h2_record(x, near_miss);
        http2_stream_reset(&x->down, HTTP2_INTERNAL_ERROR); /* too late for an answer of ours */
        return;
    }
    if (x->decision[0] == '\0') {
        conn_decision_new(x->conn->worker, x->decision);
    }
    x->busy++;
    x->head_passed = x->res_ended = true;
    x->reason = reason;
    x->down.unwanted = true;
    bool ok =
        x->grpc ? answer_grpc(x, status, reason, text) : answer_plain(x, status, reason, text);
    if (!ok) {
        http2_stream_reset(&x->down, HTTP2_INTERNAL_ERROR);
    }
    h2_record(x, near_miss);
    http2_stream_reset(&x->up, HTTP2_CANCEL);
    x->busy--;
    h2_exchange_finish(x);
}

/* gRPC's way to end a response that has begun. */
static bool end_grpc(struct h2_exchange *x, unsigned grpc_status, const char *text)
{
    char number[8], message[192];
    snprintf(number, sizeof(number), "%u", grpc_status);
    snprintf(message, sizeof(message), "%s (reason %s, decision %s)", text, x->reason, x->decision);
    const struct http2_field fields[] = {field(STR_LIT("grpc-status"), number),
                                         field(STR_LIT("grpc-message"), message)};
    x->grpc_status = (int)grpc_status;
    x->down.unwanted = true;
    return http2_stream_end_with(&x->down, fields, 2);
}

/* What has begun is over; of gRPC with that status, if the response has not ended. */
static void end_begun(struct h2_exchange *x, unsigned grpc_status, const char *text,
                      enum http2_code code, const char *near_miss)
{
    bool grpc = x->grpc && !x->res_ended && http2_stream_is_live(&x->down);
    x->busy++;
    if (!grpc || !end_grpc(x, grpc_status, text)) {
        http2_stream_reset(&x->down, code);
    }
    x->res_ended = true;
    h2_record(x, near_miss);
    http2_stream_reset(&x->up, HTTP2_CANCEL);
    x->busy--;
    h2_exchange_finish(x);
}

void h2_cut(struct h2_exchange *x, const char *reason, const char *near_miss)
{
    if (x->decision[0] == '\0') {
        conn_decision_new(x->conn->worker, x->decision);
    }
    x->reason = reason;
    http2_stream_forget(&x->down);
    end_begun(x, 7, "no longer allowed", HTTP2_CANCEL, near_miss);
}

void h2_break(struct h2_exchange *x, unsigned status, const char *reason)
{
    if (x->decision[0] == '\0') {
        conn_decision_new(x->conn->worker, x->decision);
    }
    x->reason = x->reason != NULL ? x->reason : reason; /* the client may have left before */
    end_begun(x, http2_grpc_status(status), http1_status_text(status), HTTP2_INTERNAL_ERROR, NULL);
}
