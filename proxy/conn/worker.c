/* The worker: its thread, what main tells it by mail, judging again, draining. */
#include "conn_priv.h"

#include <malloc.h>
#include <postern/mem.h>
#include <postern/mem_pages.h>
#include <postern/os.h>
#include <signal.h>
#include <stdlib.h>

#include "learned_priv.h"

enum {
    STACK_BYTES = 256 * 1024,    /* a handshake needs a quarter of it; the rest stays unbacked */
    LOG_RING_BYTES = 256 * 1024, /* likewise: pages are touched as lines come */
    EMIT_MAX = 2 * CONF_REQUEST_HEAD_MAX, /* a head, and what is set in it */
    QUIET_MS = 1000,
    QUIET_CONNS = 8, /* more are not looked at */
    AGE_MS = 500,    /* how late the end of a lifetime may be */
};

/* --- lifetimes -------------------------------------------------------------------------------- */

static void end_old(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    uint64_t now = loop_now_ms(w->loop);
    struct conn *next;
    w->ageing = false;
    for (struct conn *c = w->conns; c != NULL; c = next) {
        next = c->next;
        if (c->ends_ms == 0 || c->closing) {
            continue;
        }
        if (c->ends_ms <= now) {
            conn_close(c, CONN_CLOSE_LIFETIME);
        } else {
            worker_watch_age(w);
        }
    }
}

void worker_watch_age(struct conn_worker *w)
{
    if (!w->ageing) {
        w->ageing = true;
        loop_timer_arm(&w->age_timer, AGE_MS);
    }
}

/* --- mail ------------------------------------------------------------------------------------- */

struct snapshot_mail {
    struct loop_mail mail; /* first */
    struct conn_worker *worker;
    struct snapshot *snapshot; /* a reference */
};

static void drop_snapshot_mail(struct loop_mail *m)
{
    struct snapshot_mail *sm = (struct snapshot_mail *)m;
    snapshot_unref(sm->snapshot);
    free(sm);
}

static void use_snapshot(struct conn_worker *w, struct snapshot *s)
{
    struct worker_snapshot *old = w->current;
    w->current = mem_must_new(struct worker_snapshot);
    w->current->snapshot = snapshot_ref(s);
    w->current->uses = 1;
    if (old != NULL) {
        if (old->snapshot->tickets != s->tickets) {
            tls_worker_forget_sessions(&w->tls);
        }
        conn_release_snapshot(w, old);
    }
    log_set_level(w->log, s->files->conf->log_level);
    atomic_store_explicit(&w->counters.generation, s->generation, memory_order_relaxed);
}

static void on_snapshot(struct loop_mail *m)
{
    struct snapshot_mail *sm = (struct snapshot_mail *)m;
    struct conn_worker *w = sm->worker;
    uint64_t since = w->current->snapshot->generation;
    use_snapshot(w, sm->snapshot);
    http_pool_flush(w);
    drop_snapshot_mail(m);
    worker_concern(w, since); /* who has to go goes before who may come */
    conn_resume_held(w);
}

void conn_worker_post_snapshot(struct conn_worker *w, struct snapshot *snapshot)
{
    struct snapshot_mail *m = mem_must_new(struct snapshot_mail);
    m->mail.fn = on_snapshot;
    m->mail.drop = drop_snapshot_mail;
    m->worker = w;
    m->snapshot = snapshot_ref(snapshot);
    loop_post(w->loop, &m->mail);
}

/* --- draining --------------------------------------------------------------------------------- */

struct drain_mail {
    struct loop_mail mail; /* first */
    struct conn_worker *worker;
    uint32_t accept_ms, drain_ms;
};

static void drop_drain_mail(struct loop_mail *m)
{
    free(m);
}

static void close_all(struct conn_worker *w, enum conn_reason reason)
{
    struct conn *next;
    for (struct conn *c = w->conns; c != NULL; c = next) {
        next = c->next;
        conn_close(c, reason);
        if (c->state == CONN_LINGER) {
            conn_close(c, reason);
        }
    }
}

/* Nothing is open but sessions that carry nothing. */
static bool is_quiet(const struct conn_worker *w)
{
    bool quiet = w->n_conns <= QUIET_CONNS;
    for (const struct conn *c = w->conns; quiet && c != NULL; c = c->next) {
        quiet = c->state == CONN_SESSION && c->carrier->n_users == 0;
    }
    return quiet;
}

/* And nothing came for a while: what traffic has left behind goes back to the kernel. Nobody's
 * latency pays for it. */
static void on_quiet(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    if (is_quiet(w)) {
        net_scratch_trim(&w->scratch);
        buf_reset(&w->emit);
        mem_pages_clear(w->request, sizeof(*w->request));
        mem_pages_clear(w->response, sizeof(*w->response));
        if (atomic_load_explicit(&w->shared->open, memory_order_relaxed) == w->n_conns) {
            malloc_trim(0); /* other workers have nothing open */
        }
    }
}

void worker_conn_gone(struct conn_worker *w)
{
    if (w->n_conns <= QUIET_CONNS) {
        loop_timer_arm(&w->quiet_timer, QUIET_MS);
    }
    if (w->draining && w->drain_last && w->n_conns == 0) {
        atomic_store_explicit(&w->drained, true, memory_order_release);
    }
}

/* First the end of accepting, then the end of everything. */
static void on_drain_timer(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    if (!w->drain_last) {
        w->drain_last = true;
        listener_close(w, LISTENERS_INBOUND);
        worker_sessions_drain(w, 0);
        struct conn *next;
        for (struct conn *c = w->conns; c != NULL; c = next) {
            next = c->next;
            conn_http_drain(c);
        }
        uint64_t now = loop_now_ms(w->loop);
        loop_timer_arm(&w->drain_timer, w->drain_end_ms > now ? w->drain_end_ms - now : 0);
    } else {
        for (struct conn *c = w->conns, *next; c != NULL; c = next) {
            next = c->next;
            conn_http_drain(c); /* who waits for a next request sees an end and no reset */
        }
        close_all(w, CONN_CLOSE_DRAINED);
    }
    worker_conn_gone(w);
}

/* --- handed over ------------------------------------------------------------------------------ */

/* What is open may go on for its time, answers say `Connection: close`; kept HTTP connections at
 * rest stay, since their clients' next requests are on the way perhaps. */
static void on_handed_over(struct loop_mail *m)
{
    struct drain_mail *dm = (struct drain_mail *)m;
    struct conn_worker *w = dm->worker;
    w->draining = w->drain_last = true;
    listener_close(w, LISTENERS_ALL);
    loop_timer_disarm(&w->accept_timer);
    worker_sessions_drain(w, dm->drain_ms / 4);
    loop_timer_arm(&w->drain_timer, dm->drain_ms);
    worker_conn_gone(w);
    free(dm);
}

void conn_worker_post_handed_over(struct conn_worker *w, uint32_t drain_ms)
{
    struct drain_mail *m = mem_must_new(struct drain_mail);
    m->mail.fn = on_handed_over;
    m->mail.drop = drop_drain_mail;
    m->worker = w;
    m->drain_ms = drain_ms;
    loop_post(w->loop, &m->mail);
}

/* --- signs of life ---------------------------------------------------------------------------- */

struct ask_mail {
    struct loop_mail mail; /* first */
    struct conn_worker *worker;
    uint64_t number;
};

static void on_ask(struct loop_mail *m)
{
    struct ask_mail *am = (struct ask_mail *)m;
    atomic_store_explicit(&am->worker->answered, am->number, memory_order_relaxed);
    free(am);
}

static void drop_ask_mail(struct loop_mail *m)
{
    free(m);
}

void conn_worker_post_ask(struct conn_worker *w)
{
    struct ask_mail *m = mem_must_new(struct ask_mail);
    m->mail.fn = on_ask;
    m->mail.drop = drop_ask_mail;
    m->worker = w;
    m->number = ++w->asked;
    loop_post(w->loop, &m->mail);
}

bool conn_worker_alive(const struct conn_worker *w)
{
    return atomic_load_explicit(&w->answered, memory_order_relaxed) == w->asked;
}

static void on_drain(struct loop_mail *m)
{
    struct drain_mail *dm = (struct drain_mail *)m;
    struct conn_worker *w = dm->worker;
    if (!w->draining) {
        w->draining = true;
        http_pool_flush(w);
        w->drain_end_ms = loop_now_ms(w->loop) + dm->drain_ms;
        /* Whoever comes to a socket that outlives us is served by the next process. */
        listener_close(w, LISTENERS_ACTIVATED);
        worker_sessions_drain(w, dm->accept_ms / 2);
        loop_timer_arm(&w->drain_timer, dm->accept_ms);
    }
    free(dm);
}

void conn_worker_post_drain(struct conn_worker *w, uint32_t accept_ms, uint32_t drain_ms)
{
    struct drain_mail *m = mem_must_new(struct drain_mail);
    m->mail.fn = on_drain;
    m->mail.drop = drop_drain_mail;
    m->worker = w;
    m->accept_ms = accept_ms;
    m->drain_ms = drain_ms;
    loop_post(w->loop, &m->mail);
}

bool conn_worker_drained(const struct conn_worker *w)
{
    return atomic_load_explicit(&w->drained, memory_order_acquire);
}

/* --- life ------------------------------------------------------------------------------------- */

static void accept_again(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    listener_watch_all(w, true);
}

int conn_worker_new(const struct conn_worker_spec *spec, struct conn_worker **ret, struct err *err)
{
    struct conn_worker *w = mem_must_new(struct conn_worker);
    w->index = spec->index;
    w->n_workers = spec->n_workers;
    w->shared = spec->shared;
    w->emit = (struct buf)BUF_INIT(EMIT_MAX);
    os_random(&w->random, sizeof(w->random));
    os_random(&w->decision_prefix, sizeof(w->decision_prefix));
    os_random(&w->audit_random, sizeof(w->audit_random));
    w->audit_random |= 1;
    uint64_t seed;
    os_random(&seed, sizeof(seed));
    w->book = permissive_book_new(seed);
    w->audit = spec->audit;
    const struct conf_admin *admin = &spec->first->files->conf->admin;
    /* Nobody could ask for them but by the socket. */
    w->denials = denials_new(admin->socket != NULL ? admin->denials : 0);
    w->log = log_new_ring(LOG_RING_BYTES, spec->log_wake_fd, LOG_INFO, spec->role);
    w->live = live_index_new();
    w->request = (struct http1_request *)mem_must_pages(sizeof(*w->request));
    w->claims = claims_cache_new();
    w->response = (struct http1_response *)mem_must_pages(sizeof(*w->response));
    use_snapshot(w, spec->first);
    w->loop = loop_new(err);
    if (w->loop == NULL || net_scratch_init(&w->scratch, err) == -1 ||
        tls_worker_init(&w->tls, &w->scratch, err) == -1) {
        conn_worker_free(w);
        return -1;
    }
    http_pool_init(w);
    loop_timer_init(&w->accept_timer, w->loop, accept_again, w);
    loop_timer_init(&w->rejudge_timer, w->loop, worker_rejudge, w);
    loop_timer_init(&w->resume_timer, w->loop, worker_resume_some, w);
    loop_timer_init(&w->expiry_timer, w->loop, worker_expiry_tick, w);
    loop_timer_init(&w->drain_timer, w->loop, on_drain_timer, w);
    loop_timer_init(&w->quiet_timer, w->loop, on_quiet, w);
    loop_timer_init(&w->age_timer, w->loop, end_old, w);
    if (listener_open_all(w, spec->first->files, spec->inherited, err) == -1) {
        conn_worker_free(w);
        return -1;
    }
    *ret = w;
    return 0;
}

static void *run(void *arg)
{
    struct conn_worker *w = (struct conn_worker *)arg;
    listener_watch_all(w, true);
    loop_run(w->loop);
    listener_close(w, LISTENERS_ALL);
    close_all(w, CONN_CLOSE_STOPPED);
    http_pool_flush(w);
    return NULL;
}

int conn_worker_start(struct conn_worker *w, struct err *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    /* Signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* a refused system call is counted where it was made */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&w->thread, &attr, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (e != 0) {
        return err_set(err, ERR_SYSTEM, "cannot start worker %u: %s", w->index, strerrordesc_np(e));
    }
    w->started = true;
    return 0;
}

void conn_worker_stop(struct conn_worker *w)
{
    if (w->started) {
        loop_stop(w->loop);
        pthread_join(w->thread, NULL);
        w->started = false;
    }
}

struct conn_worker *conn_worker_free(struct conn_worker *w)
{
    if (w == NULL) {
        return NULL;
    }
    POSTERN_ASSERT(!w->started);
    if (w->loop != NULL) {
        listener_close(w, LISTENERS_ALL);
        close_all(w, CONN_CLOSE_STOPPED);
        loop_timer_disarm(&w->accept_timer);
        loop_timer_disarm(&w->rejudge_timer);
        loop_timer_disarm(&w->resume_timer);
        loop_timer_disarm(&w->expiry_timer);
        loop_timer_disarm(&w->drain_timer);
        loop_timer_disarm(&w->quiet_timer);
        loop_timer_disarm(&w->age_timer);
        loop_free(w->loop);
    }
    listener_free_all(w);
    tls_worker_deinit(&w->tls);
    net_scratch_deinit(&w->scratch);
    conn_release_snapshot(w, w->current);
    live_index_free(w->live);
    expiry_heap_deinit(&w->expiry);
    mem_pages_free(w->request, sizeof(*w->request));
    claims_cache_free(w->claims);
    mem_pages_free(w->response, sizeof(*w->response));
    buf_reset(&w->emit);
    learned_free(w->learned);
    permissive_book_free(w->book);
    denials_free(w->denials);
    log_free(w->log);
    free(w);
    return NULL;
}

const struct conn_counters *conn_worker_counters(const struct conn_worker *w)
{
    return &w->counters;
}

const struct permissive_book *conn_worker_book(const struct conn_worker *w)
{
    return w->book;
}

const struct denials *conn_worker_denials(const struct conn_worker *w)
{
    return w->denials;
}

struct log *conn_worker_log(struct conn_worker *w)
{
    return w->log;
}
