/* TLS on either side of a connection: beginning it, its handshake, and what it goes by after a
 * change. Inbound connections accept it from their peer, and relays begin it upstream as well;
 * outbound ones begin it with their peer. */
#include "conn_priv.h"

#include <stdio.h>

static bool is_upstream(const struct conn *c, const struct conn_leg *leg)
{
    return leg == (c->direction == CONF_INBOUND ? &c->app : &c->peer);
}

/* The same name may be another route's in a later snapshot. */
const struct tls_party *conn_party(const struct conn *c, const struct snapshot *s, bool upstream)
{
    if (upstream) {
        return snapshot_upstream(s, c->listener);
    }
    long route = conn_place_in(c, &s->files->listeners[c->listener]).route;
    return snapshot_downstream(s, c->listener, route);
}

static const struct tls_party *party(const struct conn *c, const struct conn_leg *leg)
{
    return conn_party(c, conn_snapshot(c), is_upstream(c, leg));
}

/* Who has to be at the other end of the leg that dials. */
static const struct route *wanted(const struct conn *c)
{
    return c->relay ? conn_listener(c)->explicit_route : c->route;
}

/* What was read to choose by the server name, or to tell it from plaintext. */
static bool hand_over(struct conn *c, struct conn_leg *leg)
{
    struct buf *in = c->hello != NULL ? &c->hello->in : NULL;
    struct str first = conn_plain_take(c);
    bool ok = in == NULL || tls_feed(&leg->tls, buf_head(in), buf_len(in));
    ok = ok && (first.n == 0 || tls_feed(&leg->tls, (const uint8_t *)first.p, first.n));
    if (in != NULL) {
        buf_reset(in);
    }
    return ok;
}

bool conn_tls_accept(struct conn *c, struct conn_leg *leg)
{
    int fd = leg->s.fd;
    leg->kind = CONN_LEG_TLS;
    if (tls_stream_init_server(&leg->tls, &c->worker->tls, party(c, leg), fd) == -1 ||
        !conn_leg_watch(c, leg) || !hand_over(c, leg)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    leg->tls.deny = conn_deny(c);
    if (c->carrier != NULL) {
        tls_require_alpn(&leg->tls, &tls_alpn_h2);
    } else if (c->protocol == CONF_PROTOCOL_HTTP || conn_detect_wanted(c)) {
        tls_take_http(&leg->tls);
    }
    if (!tls_resume(&leg->tls, conn_snapshot(c)->tickets, STR_NONE)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    return true;
}

/* What was agreed on with the client is asked for upstream: what it then says is of that protocol.
 */
static bool pass_alpn_on(struct conn *c, struct conn_leg *leg)
{
    const struct tls_stream *client = c->relay ? conn_leg_tls(&c->peer) : NULL;
    struct str chosen = client != NULL ? tls_alpn(client) : STR_NONE;
    if (c->carrier != NULL || c->h2 != NULL) {
        return tls_offer_alpn(&leg->tls, tls_alpn_h2);
    }
    return chosen.n == 0 || str_eq(chosen, tls_alpn_postern) || tls_offer_alpn(&leg->tls, chosen);
}

/* A session is good for the place that it was made with: what is dialled, and behind a proxy what
 * that is asked for. */
static bool resume(const struct conn *c, struct conn_leg *leg)
{
    const struct tls_tickets *tickets = conn_snapshot(c)->tickets;
    char text[512];
    if (tickets == NULL) {
        return true;
    }
    char address[NET_ADDR_TEXT_MAX], target[384] = "";
    if (c->target != NULL) {
        snapshot_target_text(c->target, target, sizeof(target));
    }
    snprintf(text, sizeof(text), "%s %s", net_addr_text(&c->upstream, address), target);
    return tls_resume(&leg->tls, tickets, str_of(text));
}

bool conn_tls_connect(struct conn *c, struct conn_leg *leg)
{
    const struct route *r = wanted(c);
    const struct tls_party *by = party(c, leg);
    int fd = leg->s.fd;
    if (by == NULL) { /* withdrawn since the connection began */
        conn_close(c, CONN_CLOSE_NO_IDENTITY);
        return false;
    }
    leg->kind = CONN_LEG_TLS;
    if (tls_stream_init_client(&leg->tls, &c->worker->tls, by, r->identities, r->n_identities,
                               fd) == -1 ||
        !pass_alpn_on(c, leg)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    leg->tls.deny = conn_deny(c);
    if (!resume(c, leg)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return false;
    }
    return true;
}

bool conn_tls_rebase(struct conn *c, struct conn_leg *leg)
{
    const struct tls_party *now = party(c, leg);
    if (now == NULL || !tls_stream_rebase(&leg->tls, now)) {
        return false;
    }
    leg->tls.deny = conn_deny(c);
    tls_resume_rebase(&leg->tls, conn_snapshot(c)->tickets);
    if (is_upstream(c, leg)) {
        const struct route *r = wanted(c);
        if (r == NULL ||
            r->n_identities > 0) { /* else whom the party expects, as in the beginning */
            leg->tls.expected = r != NULL ? r->identities : NULL;
            leg->tls.n_expected = r != NULL ? r->n_identities : 0;
        }
    }
    return true;
}

enum stream_outcome conn_tls_step(struct conn *c, struct conn_leg *leg)
{
    leg->ready = 0;
    if (stream_blocked(&leg->s) && stream_flush(&leg->s) == STREAM_FAILED) {
        leg->s.failed = true;
    }
    enum stream_outcome o = tls_handshake(&leg->tls);
    if (o == STREAM_AGAIN) {
        conn_leg_want(leg, LOOP_READ | (stream_blocked(&leg->s) ? LOOP_WRITE : 0U));
    } else if (o == STREAM_OK) {
        enum conf_direction d = is_upstream(c, leg) ? CONF_OUTBOUND : CONF_INBOUND;
        counter_add(&c->worker->counters.handshakes[d], 1);
        counter_add(&c->worker->counters.handshake_groups[d][tls_group(&leg->tls)], 1);
        if (tls_resumed(&leg->tls)) {
            counter_add(&c->worker->counters.handshakes_resumed[d], 1);
        }
        leg->tls.party = NULL;
        leg->tls.deny = NULL;
        leg->tls.tickets = NULL;
        leg->tls.expected = NULL;
        leg->tls.n_expected = 0;
        conn_live_known(c);
    }
    return o;
}

bool conn_tls_holds(struct conn *c, const struct conn_leg *leg)
{
    if (leg->kind == CONN_LEG_STREAM) {
        return true; /* its carrier is asked, and takes it along */
    }
    const struct tls_party *now = party(c, leg);
    /* A peer is judged in the middle of its handshake, and may take its time for the rest. */
    const struct tls_stream *tls = conn_leg_tls(leg);
    return tls == NULL || tls->peer == NULL ||
           (now != NULL && tls_peer_verdict(tls, now) == X509_OK);
}
