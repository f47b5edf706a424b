/* The end of the certificates that a connection was made under: draining it, then cutting it. */
#include "conn_priv.h"

#include <postern/balance.h>
#include <postern/os.h>

enum { SLICE_MS = 1, SLICE_PAUSE_MS = 1 };

static struct conn *conn_of(struct expiry *e)
{
    return (struct conn *)((char *)e - offsetof(struct conn, expiry));
}

/* Who is nearest to the connection counts. An outbound session is made for a stream. */
static struct conf_expiry said(const struct conn *c)
{
    if (c->carrier != NULL && c->direction == CONF_OUTBOUND && c->carrier->users != NULL) {
        c = c->carrier->users->conn;
    }
    struct conf_expiry e = conn_listener(c)->conf->expiry;
    uint16_t port = conn_port(c);
    const struct conf_port *p = conn_declared_port(conn_listener(c)->conf, port);
    if (c->direction == CONF_OUTBOUND && c->route != NULL) {
        route_expiry(c->route, port, &e);
    } else if (c->direction == CONF_INBOUND && p != NULL) {
        conf_expiry_narrow(&e, &p->expiry);
    }
    return e;
}

static void earlier(struct expiry *e, int64_t not_after_s, bool own)
{
    if (not_after_s != 0 && (e->not_after_s == 0 || not_after_s < e->not_after_s)) {
        e->not_after_s = not_after_s;
        e->own = own;
    }
}

static void add_leg(struct expiry *e, const struct conn_leg *leg)
{
    const struct tls_stream *tls = conn_leg_tls(leg);
    const struct tls_peer *peer = conn_leg_peer(leg);
    if (tls != NULL && tls->established) {
        earlier(e, tls_own_not_after_s(tls), true);
        earlier(e, peer != NULL ? peer->not_after_s : 0, false);
    }
}

static void tell(struct conn_worker *w)
{
    uint64_t next = w->expiry.n > 0 ? w->expiry.items[0].due_ms : 0;
    atomic_store_explicit(&w->counters.expiring, w->expiry.n, memory_order_relaxed);
    atomic_store_explicit(&w->counters.expiry_next_ms, next, memory_order_relaxed);
}

static void watch(struct conn_worker *w, uint64_t in_ms)
{
    tell(w);
    if (w->expiry.n > 0 && w->expiry_timer.due_ms == 0) {
        loop_timer_arm(&w->expiry_timer, in_ms);
    }
}

void conn_expiry_begin(struct conn *c)
{
    struct conn_worker *w = c->worker;
    struct expiry *e = &c->expiry;
    int64_t before_s = e->not_after_s;
    e->not_after_s = 0;
    add_leg(e, &c->peer);
    add_leg(e, &c->app);
    if (e->not_after_s == 0 || (e->not_after_s == before_s && e->at != 0)) {
        return;
    }
    uint64_t now = loop_now_ms(w->loop);
    if (w->expiry.n == 0) {
        w->expiry_clock.running = false; /* nobody's end was computed by what it knew */
        (void)expiry_clock_tick(&w->expiry_clock, now, os_wall_s());
    }
    int64_t left_s = e->not_after_s - os_wall_s();
    uint64_t left_ms = left_s > 0 ? (uint64_t)left_s * 1000 : 0;
    struct conf_expiry conf = said(c);
    struct expiry_plan p = expiry_plan(&conf, left_ms, (uint32_t)balance_random(&w->random));
    /* The spread is its streams', one by one: a session is there until the last moment of them. */
    e->ends_ms = now + (c->carrier != NULL ? left_ms : p.end_ms);
    expiry_heap_set(&w->expiry, e, now + p.drain_ms);
    watch(w, EXPIRY_TICK_MS);
}

void conn_expiry_end(struct conn *c)
{
    expiry_heap_remove(&c->worker->expiry, &c->expiry);
    tell(c->worker);
}

/* --- what is due ------------------------------------------------------------------------------ */

void conn_expiry_record(struct log_line *l, const struct conn *c)
{
    char text[32];
    os_time_text(c->expiry.not_after_s, text, sizeof(text));
    log_str(l, "expired", c->expiry.own ? "own" : "peer");
    log_str(l, "certificate_not_after", text);
}

static void warn(struct conn *c)
{
    struct log_line l;
    counter_add(&c->worker->counters.expiry_warned, 1);
    log_begin(&l, c->worker->log, LOG_WARN, "certificate_expired");
    conn_record_common(&l, c);
    conn_expiry_record(&l, c);
    log_str(&l, "message", "it goes on: `on_expiry` says so");
    log_end(&l);
}

static void drain(struct conn *c)
{
    c->expiry.draining = true;
    counter_add(&c->worker->counters.expiry_drained, 1);
}

static bool outlives(const struct conn_carrier *k)
{
    for (const struct conn_ride *r = k->users; r != NULL; r = r->next) {
        if (!r->conn->closing && said(r->conn).on == CONF_EXPIRY_WARN) {
            return true;
        }
    }
    return false;
}

/* Each of its streams ends, or goes on, by what is said of it. A session that is about to end takes
 * no new ones, and one whose certificates are over is there for those that go on. */
static void session_due(struct conn *c, uint64_t now)
{
    struct expiry *e = &c->expiry;
    if (e->ends_ms > now) {
        drain(c);
        conn_session_leave(c, 0);
        expiry_heap_set(&c->worker->expiry, e, e->ends_ms);
    } else if (outlives(c->carrier)) {
        conn_session_leave(c, 0);
    } else {
        conn_cut(c, CONN_CLOSE_CERTIFICATE_EXPIRED);
    }
}

static void due(struct conn *c, uint64_t now)
{
    struct expiry *e = &c->expiry;
    enum conf_on_expiry on = said(c).on; /* as it stands now */
    if (c->carrier != NULL) {
        session_due(c, now);
    } else if (e->ends_ms <= now && on == CONF_EXPIRY_WARN) {
        warn(c);
    } else if (e->ends_ms <= now) {
        conn_cut(c, CONN_CLOSE_CERTIFICATE_EXPIRED);
    } else if (on == CONF_EXPIRY_DRAIN && !e->draining) {
        drain(c);
        /* Whoever asks within half of what is left is told with its answer. */
        expiry_heap_set(&c->worker->expiry, e, now + (e->ends_ms - now) / 2);
    } else {
        expiry_heap_set(&c->worker->expiry, e, e->ends_ms);
        if (e->draining) {
            conn_http_drain(c);
        }
    }
}

void worker_expiry_tick(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    uint64_t now = loop_now_ms(w->loop);
    uint64_t began = os_now_ms();
    if (expiry_clock_tick(&w->expiry_clock, now, os_wall_s())) {
        expiry_heap_believe(&w->expiry, &w->expiry_clock);
    }
    struct expiry *e;
    while ((e = expiry_heap_take(&w->expiry, now)) != NULL) {
        due(conn_of(e), now);
        if (os_now_ms() - began >= SLICE_MS) {
            break;
        }
    }
    bool more = w->expiry.n > 0 && w->expiry.items[0].due_ms <= now;
    atomic_store_explicit(&w->counters.expiry_next_ms,
                          w->expiry.n > 0 ? w->expiry.items[0].due_ms : 0, memory_order_relaxed);
    watch(w, more ? SLICE_PAUSE_MS : EXPIRY_TICK_MS);
}
