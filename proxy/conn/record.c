/* What a connection says in the log. Fields: docs/logs.md. */
#include "conn_priv.h"

#include <errno.h>
#include <postern/os.h>
#include <string.h>

static const char *verdict_text(const struct conn *c)
{
    if (c->judged) {
        return c->verdict.allow ? "allow" : "deny";
    }
    return NULL;
}

/* One without an address. */
static void record_target(struct log_line *l, const struct conf_target *t)
{
    if (t->kind == CONF_TARGET_HOST) {
        log_fmt(l, "destination", "%s:%u", t->host, t->port);
        log_uint(l, "port", t->port);
    } else if (t->kind == CONF_TARGET_UNIX) {
        log_fmt(l, "destination", "unix:%s", t->path);
    }
}

static void of_session(struct log_line *l, const char *key, const struct conn *of)
{
    log_fmt(l, key, "%u-%llu", of->worker->index, (unsigned long long)of->number);
}

/* How it belongs to a session. */
static void record_session(struct log_line *l, const struct conn *c)
{
    const struct conn *of = c->via.of != NULL ? c->via.of->conn : NULL;
    if (c->carrier != NULL) {
        log_uint(l, "streams", c->carrier->total);
    } else if (of != NULL) {
        of_session(l, "session", of);
    }
}

void conn_record_common(struct log_line *l, const struct conn *c)
{
    char text[NET_ADDR_TEXT_MAX];
    const struct snapshot_listener *on = conn_listener(c);
    log_fmt(l, "conn", "%u-%llu", c->worker->index, (unsigned long long)c->number);
    log_str(l, "direction", c->direction == CONF_INBOUND ? "inbound" : "outbound");
    log_str(l, "listener", on->conf->name);
    log_str(l, "source", net_addr_text(&c->source, text));
    if (c->told != NULL && c->told->via.len > 0) {
        log_str(l, "via", net_addr_text(&c->told->via, text));
    }
    if (c->original.len > 0) {
        log_str(l, "destination", net_addr_text(&c->original, text));
        log_uint(l, "port", net_addr_port(&c->original));
    } else if (c->target != NULL) {
        record_target(l, c->target->conf);
    }
    if (c->upstream.len > 0 && !net_addr_equal(&c->upstream, &c->original)) {
        log_str(l, "upstream", net_addr_text(&c->upstream, text));
    }
    if (c->route != NULL) {
        log_str(l, "service", c->route->service);
    }
    if (c->hello != NULL && c->hello->said.server_name_len > 0) {
        log_str(l, "server_name", c->hello->said.server_name);
    }
    record_session(l, c);
    log_strn(l, "own_id", c->passthrough ? STR_NONE : conn_own_id(c));
    log_strn(l, "peer_id", conn_peer_id(c));
    if (c->relay) {
        log_strn(l, "upstream_id", conn_upstream_id(c));
    }
    if (c->onward != NULL && c->onward->ride.of != NULL) {
        of_session(l, "upstream_session", c->onward->ride.of->conn);
    }
}

static bool wants_line(const struct conn *c, enum log_level level)
{
    if (level == LOG_INFO && conn_conf(c)->access_log == CONF_ACCESS_DENIED) {
        return false;
    }
    return log_enabled(c->worker->log, level);
}

static enum log_level reason_level(enum conn_reason r)
{
    static const enum log_level levels[CONN_REASON_COUNT] = {
#define REASON_LEVEL(name, token, end, level, text) [CONN_CLOSE_##name] = LOG_##level,
        CONN_REASONS(REASON_LEVEL)
#undef REASON_LEVEL
    };
    return levels[r];
}

static void record_handshake(struct log_line *l, const struct tls_stream *tls)
{
    if (tls->established) {
        log_str(l, "tls_group", tls_group_name(tls_group(tls)));
    }
    if (tls_resumed(tls)) {
        log_bool(l, "tls_resumed", true);
    }
}

void conn_record_close(struct conn *c)
{
    enum log_level level = reason_level(c->reason);
    if (!wants_line(c, level)) {
        return;
    }
    struct log_line l;
    log_begin(&l, c->worker->log, level, "connection");
    conn_record_common(&l, c);
    log_str(&l, "transport", conn_transport_text(c));
    if (c->transport_why != CONN_WHY_NONE) {
        log_str(&l, "transport_why", conn_why_token((enum conn_why)c->transport_why));
    }
    log_str(&l, "upstream_transport", conn_transport_onward_text(c));
    if (c->pass != NULL) {
        log_str(&l, "unlisted", c->pass->name);
        log_str(&l, "class", conf_unlisted_class_name(c->pass->preset));
    }
    if (c->peer_status != 0) {
        log_uint(&l, "status", c->peer_status);
    }
    log_str(&l, "reason", conn_reason_token(c->reason));
    log_str(&l, "message", conn_reason_text(c->reason));
    if (c->race.how != DETECT_BY_NONE || c->detecting) {
        log_str(&l, "protocol", detect_protocol_name((enum detect_protocol)c->race.protocol));
        log_str(&l, "protocol_by", detect_how_name((enum detect_how)c->race.how));
    }
    log_str(&l, "verdict", verdict_text(c));
    if (c->judged) {
        log_str(&l, "rule", c->verdict.rule);
    }
    if (c->denial != NULL) {
        log_str(&l, "decision", c->denial->decision);
        log_str(&l, "near_miss", c->denial->near_miss[0] != '\0' ? c->denial->near_miss : NULL);
    }
    if (c->reason == CONN_CLOSE_CERTIFICATE_EXPIRED) {
        conn_expiry_record(&l, c);
    }
    if (c->sys_errno != 0) {
        log_str(&l, "error", strerrordesc_np(c->sys_errno));
    }
    log_uint(&l, "bytes_up", c->up_bytes);
    log_uint(&l, "bytes_down", c->down_bytes);
    log_uint(&l, "duration_ms", loop_now_ms(c->worker->loop) - c->opened_ms);
    const struct tls_stream *tls = conn_leg_tls(&c->peer);
    if (tls != NULL) {
        log_str(&l, "tls_version", tls_version(tls));
        log_str(&l, "tls_suite", tls_suite(tls));
        record_handshake(&l, tls);
    }
    log_end(&l);
}

static void record_shown(struct log_line *l, const struct tls_failure *f)
{
    char text[32];
    if (f->shown_id[0] != '\0') {
        log_str(l, "peer_id", f->shown_id);
    }
    if (f->shown_not_after_s != 0) {
        os_time_text(f->shown_not_before_s, text, sizeof(text));
        log_str(l, "peer_not_before", text);
        os_time_text(f->shown_not_after_s, text, sizeof(text));
        log_str(l, "peer_not_after", text);
    }
    if (f->alert_received != TLS_NO_ALERT) {
        log_str(l, "alert_received", tls_alert_text(f->alert_received));
    }
    if (f->alert_sent != TLS_NO_ALERT) {
        log_str(l, "alert_sent", tls_alert_text(f->alert_sent));
    }
    log_errinfo(l, &f->err);
}

void conn_record_handshake(struct conn *c, const struct conn_leg *leg, const char *step,
                           const struct err *err)
{
    const struct tls_failure *f = leg->kind == CONN_LEG_TLS ? leg->tls.failure : NULL;
    enum tls_step at = f != NULL ? f->step : TLS_STEP_CLOSED;
    bool upstream = leg == conn_upstream(c);
    enum conf_direction side = upstream ? CONF_OUTBOUND : CONF_INBOUND;
    counter_add(&c->worker->counters.handshake_failures[side][at], 1);
    struct log_line l;
    log_begin(&l, c->worker->log, LOG_WARN, "handshake_failed");
    conn_record_common(&l, c);
    if (step == NULL) {
        bool judged = at == TLS_STEP_IDENTITY || at == TLS_STEP_CERTIFICATE;
        step = judged ? x509_verdict_name(f->verdict) : tls_step_name(at);
    }
    log_str(&l, "step", step);
    if (c->relay) {
        log_str(&l, "side", upstream ? "upstream" : "downstream");
    }
    const struct snapshot_identity *own = conn_snapshot(c)->identity;
    if (own != NULL) {
        char text[32];
        os_time_text(own->not_after_s, text, sizeof(text));
        log_str(&l, "own_not_after", text);
    }
    if (f != NULL) {
        record_shown(&l, f);
    }
    if (err != NULL) {
        log_errinfo(&l, err);
    }
    log_end(&l);
}

void conn_record_handshake_timeout(struct conn *c, const struct conn_leg *leg)
{
    struct err err = ERR_INIT;
    err_set(&err, ERR_UNAVAILABLE, "the handshake was not finished in time");
    conn_record_handshake(c, leg, "timeout", &err);
}

void conn_record_session(struct conn *c, const char *step)
{
    struct log_line l;
    log_begin(&l, c->worker->log, LOG_WARN, "session_refused");
    conn_record_common(&l, c);
    log_str(&l, "step", step);
    log_end(&l);
}

void conn_record_leave(struct conn *c, const char *by)
{
    struct log_line l;
    if (wants_line(c, LOG_INFO)) {
        log_begin(&l, c->worker->log, LOG_INFO, "session_leaves");
        conn_record_common(&l, c);
        log_str(&l, "by", by);
        log_end(&l);
    }
}
