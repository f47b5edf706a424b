/* What was decided, for the audit log: docs/audit.md. */
#include "conn_priv.h"

#include <string.h>

const char *conn_verdict_word(const struct policy_verdict *v)
{
    static const char *const words[] = {[POLICY_ALLOWED] = "allowed",
                                        [POLICY_DENIED_BY_RULE] = "denied_by_rule",
                                        [POLICY_NO_RULE] = "no_rule",
                                        [POLICY_NONE_LOADED] = "no_policy"};
    return words[v->reason];
}

/* Whether it stands in the log; *ret_sampled: for how many. */
static bool is_recorded(const struct conn *c, const struct policy_verdict *v, uint32_t *ret_sampled)
{
    struct conn_worker *w = c->worker;
    uint32_t sample = conn_conf(c)->audit.sample;
    *ret_sampled = 1;
    if (v == NULL || !v->allow || v->audit != NULL || v->shadow != POLICY_SHADOW_SAME ||
        sample == 1) {
        return true;
    }
    /* xorshift64: nobody outside can tell which one comes next from what comes back. */
    w->audit_random ^= w->audit_random << 13;
    w->audit_random ^= w->audit_random >> 7;
    w->audit_random ^= w->audit_random << 17;
    if (sample == 0 || (uint32_t)(w->audit_random >> 32) % sample != 0) {
        audit_skip(w->audit);
        return false;
    }
    *ret_sampled = sample;
    return true;
}

static void fill(const struct conn *c, struct audit_decision *d)
{
    const struct snapshot *s = conn_snapshot(c);
    const struct tls_stream *tls = conn_leg_tls(&c->peer);
    d->outbound = c->direction == CONF_OUTBOUND;
    d->hbone = conn_is_stream(c) || c->carrier != NULL;
    d->resumed = tls != NULL && tls_resumed(tls);
    d->port = conn_port(c);
    d->conn = c->number;
    d->generation = s->generation;
    d->state_generation = s->state != NULL ? s->state->generation : 0;
    d->source = c->source;
    if (c->told != NULL) {
        d->via = c->told->via;
    }
    d->listener = str_of(conn_listener(c)->conf->name);
    d->own_id = conn_own_id(c);
    d->peer_id = conn_peer_id(c);
}

static const char *const shadows[] = {
    [POLICY_SHADOW_SAME] = NULL, [POLICY_SHADOW_ALLOW] = "allow", [POLICY_SHADOW_DENY] = "deny"};

static void record(struct conn *c, const struct conn_audit *a, enum audit_kind kind)
{
    const struct policy_verdict *asked = kind != AUDIT_ENDED ? a->verdict : NULL;
    struct audit_decision d = {.kind = kind, .allow = asked != NULL && asked->allow && !a->refused};
    char text[CONN_DECISION_TEXT] = "";
    char *decision = a->decision != NULL ? a->decision : text;
    if (c->worker->audit == NULL || !is_recorded(c, a->refused ? NULL : asked, &d.sampled)) {
        return;
    }
    if (decision[0] == '\0') {
        conn_decision_new(c->worker, decision);
    }
    fill(c, &d);
    d.decision = str_of(decision);
    d.protocol = str_of(a->protocol);
    d.method = a->method;
    d.host = a->host;
    d.path = a->path;
    d.near_miss = str_of(a->near_miss);
    d.reason = str_of(a->reason);
    if (a->verdict != NULL) {
        d.reason = a->reason != NULL ? d.reason : str_of(conn_verdict_word(a->verdict));
        d.rule = str_of(a->verdict->rule);
        d.rule_reason = str_of(a->verdict->rule_reason);
        d.audit_rule = str_of(a->verdict->audit);
    }
    if (a->verdict != NULL && !a->refused) {
        d.shadow = str_of(shadows[a->verdict->shadow]);
        d.shadow_rule = str_of(a->verdict->shadow_rule);
    }
    audit_put(c->worker->audit, &d);
}

void conn_audit_connection(struct conn *c, const char *reason)
{
    conn_plain_decided(c, reason == NULL && c->judged && c->verdict.allow);
    record(c,
           &(const struct conn_audit){.verdict = c->judged ? &c->verdict : NULL,
                                      .protocol = "tcp",
                                      .decision = c->denial != NULL ? c->denial->decision : NULL,
                                      .near_miss = c->denial != NULL ? c->denial->near_miss : NULL,
                                      .reason = reason},
           AUDIT_CONNECTION);
}

void conn_audit_request(struct conn *c, const struct conn_audit *a)
{
    if (!a->ended) {
        conn_plain_decided(c, a->verdict != NULL && a->verdict->allow && !a->refused);
    }
    record(c, a, a->ended ? AUDIT_ENDED : AUDIT_REQUEST);
}

void conn_audit_ended(struct conn *c, enum conn_reason reason)
{
    record(c, &(const struct conn_audit){.reason = conn_reason_token(reason)}, AUDIT_ENDED);
}
