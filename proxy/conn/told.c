/* Whom a peer speaks for: a load balancer that is named in the configuration says it by a PROXY
 * protocol header before anything else. docs/proxy-protocol.md.
 *
 * No more is taken from the socket than the header is long, so that whoever reads next (the reader
 * of a ClientHello, TLS, the pump) finds its own bytes there and nothing has to be handed over. */
#include "conn_priv.h"

#include <errno.h>
#include <postern/proxy_protocol.h>
#include <stdlib.h>

bool conn_told_wanted(const struct conn *c)
{
    /* Decided once, when it comes: one that was held meanwhile has perhaps said other things. */
    return c->state == CONN_NEW && c->source.len > 0 &&
           conf_cidrs_hold(&conn_listener(c)->conf->proxy_protocol_from, &c->source.sa);
}

void conn_told_start(struct conn *c)
{
    struct conn_leg *leg = conn_downstream(c);
    c->told = (struct conn_told *)conn_first_begin(c, leg, CONN_PROXY_HEADER, sizeof(*c->told));
    if (c->told != NULL) {
        c->told->in = (struct buf)BUF_INIT(PROXY_PROTOCOL_V2_MAX);
        conn_told_step(c);
    }
}

static void refuse(struct conn *c, const char *step)
{
    struct log_line l;
    log_begin(&l, c->worker->log, LOG_WARN, "proxy_header_refused");
    conn_record_common(&l, c);
    log_str(&l, "step", step);
    log_uint(&l, "bytes", buf_len(&c->told->in));
    log_end(&l);
    conn_close(c, CONN_CLOSE_BAD_PROXY_HEADER);
}

void conn_told_timeout(struct conn *c)
{
    refuse(c, "timeout");
}

/* From here on the connection is the client's, as far as it is told of one. */
static bool take(struct conn *c, const struct proxy_protocol *h)
{
    struct conn_told *t = c->told;
    const struct conf_listener *l = conn_listener(c)->conf;
    struct buf tlvs = BUF_INIT(PROXY_PROTOCOL_V2_MAX);
    struct net_addr source; /* folded: IPv4 in IPv6 is IPv4 */
    struct net_addr destination;
    if (!h->local && h->family == PROXY_PROTOCOL_INET &&
        net_addr_from(&h->source.sa, h->source.len, &source) &&
        net_addr_from(&h->destination.sa, h->destination.len, &destination)) {
        t->via = c->source;
        c->source = source;
        t->destination = destination;
    }
    bool ok = proxy_protocol_pick(h->tlvs, l->proxy_protocol_pass, l->n_proxy_protocol_pass, &tlvs);
    buf_reset(&t->in);
    t->in = tlvs;
    return ok;
}

static void go_on(struct conn *c, const struct proxy_protocol *h)
{
    if (!take(c, h)) {
        conn_close(c, CONN_CLOSE_NO_MEMORY);
        return;
    }
    c->told->done = true;
    conn_first_done(c, conn_downstream(c));
    if (c->direction == CONF_INBOUND) {
        conn_inbound_start(c);
    } else {
        conn_outbound_start(c);
    }
}

/* Moves the header's bytes, and no others, from the socket into `in`. STREAM_OK: some came. */
static enum stream_outcome take_bytes(struct conn *c)
{
    struct buf *in = &c->told->in;
    uint8_t *raw = c->worker->scratch.raw;
    struct stream *s = &conn_downstream(c)->s;
    int fd = s->fd;
    size_t before = buf_len(in);
    ssize_t n = recv(fd, raw, in->max - before, MSG_PEEK);
    if (n <= 0) {
        bool later = n < 0 && (errno == EAGAIN || errno == EINTR);
        s->sys_errno = n < 0 && !later ? errno : 0;
        return later ? STREAM_AGAIN : n == 0 ? STREAM_EOF : STREAM_FAILED;
    }
    if (!buf_append(in, raw, (size_t)n)) {
        s->sys_errno = ENOMEM;
        return STREAM_FAILED;
    }
    in->len = proxy_protocol_bound(buf_head(in), buf_len(in));
    /* What was seen is there: nobody else reads this socket. */
    size_t own = in->len - before;
    return recv(fd, raw, own, 0) == (ssize_t)own ? STREAM_OK : STREAM_FAILED;
}

void conn_told_step(struct conn *c)
{
    struct conn_leg *leg = conn_downstream(c);
    struct buf *in = &c->told->in;
    struct proxy_protocol h = {.spiffe_id_tlv = 0}; /* an identity is never believed */
    size_t used = 0;
    if (!conn_first_wanted(leg) || !conn_first_got(c, leg, take_bytes(c))) {
        return;
    }
    switch (proxy_protocol_read(buf_head(in), buf_len(in), &h, &used)) {
    case PROXY_PROTOCOL_OK:
        go_on(c, &h);
        break;
    case PROXY_PROTOCOL_MORE:
        conn_leg_want(leg, LOOP_READ);
        break;
    case PROXY_PROTOCOL_BAD:
        refuse(c, "malformed");
        break;
    }
}

void conn_told_free(struct conn *c)
{
    if (c->told != NULL) {
        buf_reset(&c->told->in);
        free(c->told);
        c->told = NULL;
    }
}
