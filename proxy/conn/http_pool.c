/*
 * Connections to workloads that are kept for later requests when their client is idle or gone:
 * docs/http.md. One comes here only between two exchanges, with nothing unread and nothing unsent,
 * and whatever arrives on it here ends it: it answers nothing.
 *
 * Only plain ones: the TLS of a relay says who its client's connection goes by and whom it found,
 * and stays with it. All go with a change of the snapshot, so that what one is kept by (listener,
 * target, address) means the same as long as it is kept.
 */
#include "http_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    GIVE_MS = 1000
}; /* that a client is idle before its connection to the workload is not its */

struct http_kept {
    struct conn_worker *worker;
    struct http_kept *newer, *older;
    struct loop_io *io;
    int fd;
    size_t listener;
    const struct snapshot_target *target; /* compared only */
    struct net_addr to;
    char *client; /* owned; who may have it; NULL: anybody */
    uint64_t since_ms;
};

/* --- the list --------------------------------------------------------------------------------- */

static void drop(struct http_pool *p, struct http_kept *k)
{
    if (p->newest == k) {
        p->newest = k->older;
    } else {
        k->newer->older = k->older;
    }
    if (p->oldest == k) {
        p->oldest = k->newer;
    } else {
        k->older->newer = k->newer;
    }
    p->n--;
    loop_io_free(k->io);
    if (k->fd != -1) {
        close(k->fd);
    }
    free(k->client);
    free(k);
}

void http_pool_flush(struct conn_worker *w)
{
    while (w->kept.newest != NULL) {
        drop(&w->kept, w->kept.newest);
    }
    loop_timer_disarm(&w->kept.timer);
}

static void expire(void *worker)
{
    struct conn_worker *w = (struct conn_worker *)worker;
    uint64_t limit = w->current->snapshot->files->conf->timeouts.upstream_idle_ms;
    uint64_t now = loop_now_ms(w->loop);
    while (w->kept.oldest != NULL && now - w->kept.oldest->since_ms >= limit) {
        drop(&w->kept, w->kept.oldest);
    }
    if (w->kept.oldest != NULL) {
        loop_timer_arm(&w->kept.timer, w->kept.oldest->since_ms + limit - now);
    }
}

void http_pool_init(struct conn_worker *w)
{
    loop_timer_init(&w->kept.timer, w->loop, expire, w);
}

/* Whether there is nothing to read, not even an end. Bytes that nobody asked for are counted. */
static bool is_quiet(struct conn_worker *w, int fd)
{
    uint8_t byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0) {
        counter_add(&w->counters.upstream_unclean, 1);
    }
    return n < 0 && errno == EAGAIN;
}

static void on_kept(void *arg, unsigned ready)
{
    struct http_kept *k = (struct http_kept *)arg;
    (void)ready;
    if (!is_quiet(k->worker, k->fd)) {
        drop(&k->worker->kept, k);
    }
}

/* --- giving ----------------------------------------------------------------------------------- */

static bool may_be_kept(const struct conn *c)
{
    const struct conf_proxy *p = conn_conf(c);
    const struct conf_listener *l = conn_listener(c)->conf;
    return p->http.upstream_pool != CONF_POOL_OFF && p->limits.upstream_idle > 0 && !c->relay &&
           !l->transparent && c->proxy_protocol == CONF_PROXY_PROTOCOL_NONE && !c->http->pinned &&
           (p->http.upstream_pool == CONF_POOL_SHARED || conn_peer_id(c).n > 0) &&
           !c->worker->draining && c->snap == c->worker->current;
}

static bool is_clean(struct conn *c)
{
    const struct conn_http *h = c->http;
    const struct conn_leg *up = conn_upstream(c);
    return h->up == UP_OPEN && h->up_used && !h->up_broken && h->res_phase == RES_NONE &&
           h->req_phase != REQ_BODY && h->rin.len == 0 && up->kind == CONN_LEG_PLAIN &&
           !up->s.eof && !up->s.failed && !stream_blocked(&up->s);
}

static void keep(struct conn *c, struct http_kept *k)
{
    struct conn_worker *w = c->worker;
    struct conn_leg *up = conn_upstream(c);
    k->worker = w;
    k->fd = up->s.fd;
    k->listener = c->listener;
    k->target = c->target;
    k->to = c->upstream;
    k->since_ms = loop_now_ms(w->loop);
    up->s.fd = -1; /* it is not this leg's any more */
    k->older = w->kept.newest;
    if (k->older != NULL) {
        k->older->newer = k;
    } else {
        w->kept.oldest = k;
        loop_timer_arm(&w->kept.timer, conn_conf(c)->timeouts.upstream_idle_ms);
    }
    w->kept.newest = k;
    w->kept.n++;
    loop_io_want(k->io, LOOP_READ);
    counter_add(&w->counters.upstream_kept, 1);
}

void http_pool_give(struct conn *c)
{
    struct conn_leg *up = conn_upstream(c);
    struct conn_worker *w = c->worker;
    if (!is_clean(c) || !may_be_kept(c) || !is_quiet(w, up->s.fd)) {
        return;
    }
    struct http_kept *k = (struct http_kept *)calloc(1, sizeof(*k));
    if (k == NULL) {
        return;
    }
    if (conn_conf(c)->http.upstream_pool == CONF_POOL_PER_CLIENT) {
        struct str id = conn_peer_id(c);
        k->client = strndup(id.p, id.n);
    }
    up->io = loop_io_free(up->io);
    k->io = loop_io_new(w->loop, up->s.fd, on_kept, k);
    bool ok = k->io != NULL &&
              (k->client != NULL || conn_conf(c)->http.upstream_pool == CONF_POOL_SHARED);
    if (ok) {
        while (w->kept.oldest != NULL && w->kept.n >= conn_conf(c)->limits.upstream_idle) {
            drop(&w->kept, w->kept.oldest);
        }
        keep(c, k);
    } else {
        loop_io_free(k->io);
        free(k->client);
        free(k);
    }
    http_close_upstream(c, false);
}

uint64_t http_pool_idle_ms(struct conn *c)
{
    uint64_t idle = conn_conf(c)->timeouts.idle_http_ms;
    c->http->idle_end_ms = loop_now_ms(c->worker->loop) + idle;
    return idle > GIVE_MS && c->http->up == UP_OPEN && may_be_kept(c) ? GIVE_MS : idle;
}

void conn_http_leave(struct conn *c)
{
    if (c->http != NULL && c->state == CONN_HTTP && c->direction == CONF_INBOUND &&
        (c->reason == CONN_CLOSE_DONE || c->reason == CONN_CLOSE_ANSWERED ||
         c->reason == CONN_CLOSE_DOWNSTREAM_RESET)) {
        http_pool_give(c);
    }
}

/* RFC 4559, MS-NTHT: who is authenticated is the connection. */
static bool is_of_connection(struct str value)
{
    static const char *const schemes[] = {"negotiate", "ntlm"};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (str_has_prefix_nocase(value, str_of(schemes[i]))) {
            return true;
        }
    }
    return false;
}

bool http_pool_pins(const struct http1_header *headers, unsigned n, const char *name)
{
    for (unsigned i = 0; i < n; i++) {
        if (str_eq_nocase(headers[i].name, str_of(name)) && is_of_connection(headers[i].value)) {
            return true;
        }
    }
    return false;
}

/* --- taking ----------------------------------------------------------------------------------- */

static bool fits(const struct conn *c, const struct http_kept *k)
{
    struct str id = conn_peer_id(c);
    return k->listener == c->listener && k->target == c->target &&
           (c->target != NULL || net_addr_equal(&k->to, &c->upstream)) &&
           (k->client == NULL || str_eq(str_of(k->client), id));
}

bool http_pool_take(struct conn *c)
{
    struct conn_worker *w = c->worker;
    struct conn_leg *up = conn_upstream(c);
    struct http_kept *next;
    if (w->kept.newest == NULL || !may_be_kept(c)) {
        return false;
    }
    for (struct http_kept *k = w->kept.newest; k != NULL; k = next) {
        next = k->older;
        if (!fits(c, k)) {
            continue;
        }
        int fd = is_quiet(w, k->fd) ? k->fd : -1;
        struct net_addr to = k->to;
        k->io = loop_io_free(k->io);
        k->fd = fd == -1 ? k->fd : -1;
        drop(&w->kept, k);
        if (fd == -1) {
            continue;
        }
        c->upstream = to;
        stream_plain_init(&up->s, &w->scratch, fd);
        if (!conn_leg_watch(c, up)) {
            conn_close(c, CONN_CLOSE_NO_MEMORY);
            return false;
        }
        c->http->up = UP_OPEN;
        c->http->up_used = true;
        counter_add(&w->counters.upstream_reused, 1);
        return true;
    }
    return false;
}
