/* Asking the policy about a connection, and again after a change. */
#include "conn_priv.h"

#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

/* Unique and not repeated after a restart; it has to be found in a log, not to be guessed at. */
void conn_decision_new(struct conn_worker *w, char ret_text[CONN_DECISION_TEXT])
{
    snprintf(ret_text, CONN_DECISION_TEXT, "%016llx%016llx", (unsigned long long)w->decision_prefix,
             (unsigned long long)++w->decision_count);
}

struct str conn_peer_id(const struct conn *c)
{
    if (c->peer.is_tls && c->peer.s.ops != NULL && c->peer.tls.peer != NULL) {
        return (struct str){c->peer.tls.peer->id, c->peer.tls.peer->id_len};
    }
    return STR_NONE;
}

struct str conn_own_id(const struct conn *c)
{
    const struct snapshot_identity *own = conn_snapshot(c)->identity;
    return own != NULL ? own->own : STR_NONE;
}

uint16_t conn_port(const struct conn *c)
{
    return net_addr_port(c->original.len > 0 ? &c->original : &c->upstream);
}

static void query(const struct conn *c, struct policy_query *ret)
{
    *ret = (struct policy_query){
        .target = conn_own_id(c),
        .peer = conn_peer_id(c),
        .source = c->source.len > 0 ? &c->source.sa : NULL,
        .port = conn_port(c),
    };
}

bool conn_quarantined(const struct conn *c)
{
    const struct snapshot *s = conn_snapshot(c);
    const struct tls_peer *peer = c->peer.is_tls ? c->peer.tls.peer : NULL;
    return s->own_quarantined ||
           (peer != NULL && snapshot_denies(s, (struct str){peer->id, peer->id_len}, peer->serial));
}

bool conn_judge(struct conn *c)
{
    const struct policy *policy = NULL;
    struct policy_query q;
    query(c, &q);
    snapshot_decide(conn_snapshot(c), &q, &c->verdict, &policy);
    c->judged = true;
    if (!c->verdict.allow) {
        if (c->denial == NULL) {
            c->denial = (struct conn_denial *)calloc(1, sizeof(*c->denial));
        }
        if (c->denial != NULL) {
            conn_decision_new(c->worker, c->denial->decision);
            policy_near_miss(policy, &q, c->denial->near_miss, sizeof(c->denial->near_miss));
        }
    }
    return c->verdict.allow;
}

/* An outbound connection stays if the route still leads to the peer that it has. `listed`: it had a
 * route before, and was not passed through. */
static bool route_holds(struct conn *c, bool listed)
{
    const struct snapshot_files *files = conn_snapshot(c)->files;
    const struct snapshot_listener *l = &files->listeners[c->listener];
    bool passthrough = false;
    c->route = l->explicit_route != NULL
                   ? l->explicit_route
                   : snapshot_route(conn_snapshot(c), &c->original, &passthrough);
    if (!listed) {
        return c->route == NULL ? passthrough : c->route->transport == CONF_TRANSPORT_DISABLE;
    }
    if (c->route == NULL || c->route->transport != c->transport) {
        return false;
    }
    if (c->peer.is_tls && c->state == CONN_HANDSHAKE) {
        c->peer.tls.expected = c->route->identities;
        c->peer.tls.n_expected = c->route->n_identities;
    }
    if (c->state != CONN_PUMP) {
        return true; /* the handshake will judge */
    }
    return route_still_allows(c->route, c->transport, conn_peer_id(c));
}

/* An explicit listener that now leads elsewhere takes its connections there anew. */
static bool same_target(const struct conn *c)
{
    const struct snapshot_listener *l = &conn_snapshot(c)->files->listeners[c->listener];
    return l->conf->capture != CONF_EXPLICIT || net_addr_equal(&l->to, &c->upstream);
}

/* The chain that the peer has shown, against today's bundles. */
static bool peer_holds(struct conn *c)
{
    const struct snapshot_identity *own = conn_snapshot(c)->identity;
    return !c->peer.is_tls || !c->peer.tls.established ||
           (own != NULL &&
            tls_peer_verdict(&c->peer.tls,
                             c->direction == CONF_INBOUND ? own->server : own->client) == X509_OK);
}

static enum conn_reason rejudge_inbound(struct conn *c)
{
    bool ok = c->http != NULL ? conn_http_rejudge(c) : !c->judged || conn_judge(c);
    return ok ? CONN_CLOSE_DONE : CONN_CLOSE_POLICY_CHANGED;
}

enum conn_reason conn_rejudge(struct conn *c, bool *ret_verified)
{
    bool listed = c->route != NULL;
    const struct snapshot_identity *own = c->worker->current->snapshot->identity;
    const struct snapshot_identity *before = conn_snapshot(c)->identity;
    bool trust_changed = own != NULL && (before == NULL || own->trust != before->trust);
    conn_use_current(c);
    /* What was lent by the old snapshot. */
    c->route = NULL;
    c->verdict.rule = NULL;
    if (c->peer.is_tls && c->state == CONN_HANDSHAKE) {
        if (own == NULL) {
            return CONN_CLOSE_TRUST_CHANGED; /* the identity was withdrawn */
        }
        c->peer.tls.party = c->direction == CONF_INBOUND ? own->server : own->client;
        c->peer.tls.deny = conn_deny(c);
    }
    if (c->state == CONN_NEW || c->state == CONN_HELD || c->state == CONN_LINGER) {
        return CONN_CLOSE_DONE; /* nothing was decided yet, or nothing is left to decide */
    }
    if (conn_quarantined(c)) {
        return CONN_CLOSE_QUARANTINED;
    }
    if (!same_target(c) || (c->direction == CONF_OUTBOUND && !route_holds(c, listed))) {
        return CONN_CLOSE_ROUTE_CHANGED;
    }
    if (trust_changed) {
        *ret_verified = true;
        if (!peer_holds(c)) {
            return CONN_CLOSE_TRUST_CHANGED;
        }
    }
    return c->direction == CONF_OUTBOUND ? CONN_CLOSE_DONE : rejudge_inbound(c);
}
