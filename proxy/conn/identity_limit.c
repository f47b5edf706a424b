/* Limits that are not for everybody together: of one peer's identity, and what is told of them and
 * of a service's. */
#include "conn_priv.h"

enum { TELL_MS = 1000 };

/* Each refused connection is counted, and has its line among those of all; this one is for whoever
 * looks for warnings, and does not come for each. */
static void tell(struct conn *c, enum conn_reason reason)
{
    struct conn_worker *w = c->worker;
    uint64_t now = loop_now_ms(w->loop);
    if (w->limit_told_ms != 0 && now - w->limit_told_ms < TELL_MS) {
        w->n_limited++;
        return;
    }
    struct log_line l;
    log_begin(&l, w->log, LOG_WARN, "limit_reached");
    conn_record_common(&l, c);
    log_str(&l, "reason", conn_reason_token(reason));
    log_str(&l, "message", conn_reason_text(reason));
    log_uint(&l, "not_told", w->n_limited);
    log_end(&l);
    w->limit_told_ms = now;
    w->n_limited = 0;
}

void conn_limit_refuse(struct conn *c, enum conn_reason reason)
{
    tell(c, reason);
    conn_close(c, reason);
}

/* A session counts as one while none of its streams does; they count by themselves. */
static struct conn *counting_carrier(struct conn *c)
{
    return c->via.of != NULL && c->via.of->conn->limit_place != 0 ? c->via.of->conn : NULL;
}

static void entered(struct conn *c)
{
    struct conn *carrier = counting_carrier(c);
    if (carrier != NULL) {
        conn_identity_leave(carrier);
    }
    if (c->via.of != NULL) {
        c->via.of->n_counted++;
    }
}

void conn_identity_hand_back(struct conn *c)
{
    struct conn_carrier *k = c->via.of;
    if (k != NULL && c->limit_place != 0 && --k->n_counted == 0) {
        k->conn->limit_place = c->limit_place;
        c->limit_place = 0;
    }
}

bool conn_identity_enter(struct conn *c)
{
    const struct conf_listener *l = conn_listener(c)->conf;
    struct limit_table *t = c->worker->shared->identities;
    struct str id = conn_peer_id(c);
    if (t == NULL || id.n == 0 || c->limit_place != 0 ||
        (l->limits.per_identity_connections == 0 && l->limits.per_identity_rate == 0)) {
        return true;
    }
    /* In its session's place there is room for it. */
    uint32_t max = counting_carrier(c) == NULL ? l->limits.per_identity_connections : 0;
    switch (limit_take(t, (uint32_t)c->listener, id, max, l->limits.per_identity_rate,
                       loop_now_ms(c->worker->loop) * 1000, &c->limit_place)) {
    case LIMIT_OK:
        entered(c);
        return true;
    case LIMIT_RATE:
        conn_limit_refuse(c, CONN_CLOSE_IDENTITY_RATE);
        return false;
    case LIMIT_OPEN:
    case LIMIT_NO_ROOM:
        break;
    }
    conn_limit_refuse(c, CONN_CLOSE_IDENTITY_LIMIT);
    return false;
}

void conn_identity_leave(struct conn *c)
{
    if (c->limit_place != 0) {
        limit_give(c->worker->shared->identities, c->limit_place);
        c->limit_place = 0;
    }
}
