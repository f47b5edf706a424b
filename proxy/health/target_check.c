/* Checking targets: a connection now and then, and what became of it. */
#include <postern/target_check.h>

#include <errno.h>
#include <postern/http1.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ANSWER_MAX = 16 * 1024,
    SPREAD_MS = 50, /* between the first checks of targets */
};

enum phase { PHASE_IDLE, PHASE_DIAL, PHASE_HANDSHAKE, PHASE_ANSWER };

struct check {
    struct target_checks *all;
    size_t listener; /* index in the files */
    long route;      /* of its `sni`; -1: its own target */
    long entry;      /* of its list of targets; -1: it has none */
    struct target_status status;
    enum phase phase;
    union {
        struct stream s;
        struct tls_stream tls; /* its base is s */
    };
    struct loop_io *io;
    struct loop_timer timer; /* the next one, or the end of this one */
    uint64_t began_ms;
    struct buf in;
};

struct target_checks {
    struct loop *loop;
    const struct target_events *events;
    void *arg;
    struct snapshot *snapshot;
    struct check **checks; /* owned; each allocated, because streams do not move */
    size_t n;
    bool has_scratch;
    struct net_scratch scratch;
    struct tls_worker tls;
    struct http1_response *response;
};

const char *target_state_name(enum target_state s)
{
    static const char *const names[] = {
        [TARGET_UNKNOWN] = "unknown", [TARGET_UP] = "up", [TARGET_DOWN] = "down"};
    return names[s];
}

/* --- what is checked -------------------------------------------------------------------------- */

static const struct conf_listener *conf_of(const struct check *k)
{
    return k->all->snapshot->files->listeners[k->listener].conf;
}

static const struct snapshot_target *target_of(const struct check *k)
{
    const struct snapshot_listener *l = &k->all->snapshot->files->listeners[k->listener];
    return k->entry >= 0 ? &l->targets[k->entry] : snapshot_listener_target(l, k->route);
}

static bool speaks_tls(const struct check *k)
{
    enum conf_listener_type type = conf_of(k)->type;
    return k->status.kind != CONF_CHECK_TCP &&
           (type == CONF_LISTENER_CLIENT || type == CONF_LISTENER_RELAY);
}

/* --- the end of one --------------------------------------------------------------------------- */

static void schedule(struct check *k)
{
    k->phase = PHASE_IDLE;
    loop_timer_arm(&k->timer, k->all->snapshot->files->conf->targets.interval_ms);
}

static void close_connection(struct check *k)
{
    k->io = loop_io_free(k->io);
    stream_deinit(&k->s, true);
    buf_reset(&k->in);
    loop_timer_disarm(&k->timer);
}

static void finish(struct check *k, const char *error)
{
    struct target_status *st = &k->status;
    enum target_state now = error == NULL ? TARGET_UP : TARGET_DOWN;
    bool changed = st->state != now;
    close_connection(k);
    st->checks++;
    st->failures += error != NULL ? 1 : 0;
    st->took_ms = (uint32_t)(os_now_ms() - k->began_ms);
    snprintf(st->error, sizeof(st->error), "%s", error != NULL ? error : "");
    if (changed) {
        st->state = now;
        st->since_ms = os_now_ms();
        k->all->events->on_change(k->all->arg, st);
    }
    schedule(k);
}

static void finish_errno(struct check *k, int sys_errno)
{
    char text[120];
    snprintf(text, sizeof(text), "cannot connect: %s", strerrordesc_np(sys_errno));
    finish(k, text);
}

/* --- one check -------------------------------------------------------------------------------- */

static void send_request(struct check *k)
{
    const struct conf_target_check *c = &conf_of(k)->check;
    struct buf out = BUF_INIT(4096);
    bool ok = buf_printf(&out,
                         "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: postern\r\n"
                         "Connection: close\r\n\r\n",
                         c->path != NULL ? c->path : "/", c->host != NULL ? c->host : "localhost");
    ok = ok && stream_write(&k->s, buf_head(&out), buf_len(&out)) != STREAM_FAILED;
    buf_reset(&out);
    if (!ok) {
        finish(k, "the request could not be sent");
        return;
    }
    k->phase = PHASE_ANSWER;
    k->in = (struct buf)BUF_INIT(ANSWER_MAX);
}

/* It is connected, and spoken with. */
static void ready_to_ask(struct check *k)
{
    if (k->status.kind == CONF_CHECK_HTTP) {
        send_request(k);
    } else {
        finish(k, NULL);
    }
}

static void read_head(struct check *k)
{
    const struct http1_request_info get = {.method = HTTP1_GET, .minor = 1};
    struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    struct http1_response *response = k->all->response;
    char text[120];
    for (;;) {
        struct http1_scan scan = {.pos = 0};
        struct http1_error e;
        switch (http1_response_read(&scan, buf_head(&k->in), buf_len(&k->in), &limits, &get,
                                    response, &e)) {
        case HTTP1_MORE:
            return;
        case HTTP1_ERROR:
            snprintf(text, sizeof(text), "not an HTTP answer: %s", http1_reason_text(e.reason));
            finish(k, text);
            return;
        case HTTP1_DONE:
            break;
        }
        if (response->info.status >= 200) {
            break;
        }
        buf_consume(&k->in, response->head_len); /* 1xx: the answer is still to come */
    }
    if (response->info.status == conf_of(k)->check.status) {
        finish(k, NULL);
        return;
    }
    snprintf(text, sizeof(text), "the answer's status is %u, not %u",
             (unsigned)response->info.status, (unsigned)conf_of(k)->check.status);
    finish(k, text);
}

static void read_answer(struct check *k)
{
    for (;;) {
        size_t n = 0;
        size_t most = ANSWER_MAX - buf_len(&k->in);
        if (most == 0) {
            finish(k, "the answer's head is too long");
            return;
        }
        switch (stream_read(&k->s, k->all->scratch.plain,
                            most < NET_SCRATCH_SIZE ? most : NET_SCRATCH_SIZE, &n)) {
        case STREAM_OK:
            break;
        case STREAM_AGAIN:
            return;
        case STREAM_EOF:
        case STREAM_FAILED:
            finish(k, "the connection ended before an answer");
            return;
        }
        if (!buf_append(&k->in, k->all->scratch.plain, n)) {
            finish(k, "no memory for the answer");
            return;
        }
        read_head(k);
        if (k->phase != PHASE_ANSWER || !stream_has_input(&k->s)) {
            return;
        }
    }
}

static void shake_hands(struct check *k)
{
    switch (tls_handshake(&k->tls)) {
    case STREAM_OK:
        k->tls.party = NULL;
        ready_to_ask(k);
        return;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    char text[300] = "the handshake failed";
    if (k->tls.failure != NULL) {
        err_text(&k->tls.failure->err, text, sizeof(text));
    }
    finish(k, text);
}

static void connected(struct check *k)
{
    if (!speaks_tls(k)) {
        ready_to_ask(k);
        return;
    }
    const struct tls_party *by = snapshot_upstream(k->all->snapshot, k->listener);
    int fd = k->s.fd;
    if (by == NULL) {
        finish(k, "there is no certificate yet to show, or nobody to trust");
        return;
    }
    if (tls_stream_init_client(&k->tls, &k->all->tls, by, NULL, 0, fd) == -1) {
        finish(k, "no memory for a handshake");
        return;
    }
    k->phase = PHASE_HANDSHAKE;
    shake_hands(k);
}

static void step(struct check *k, unsigned ready)
{
    if (k->phase == PHASE_DIAL) {
        int e = net_dial_error(k->s.fd);
        if (e != 0) {
            finish_errno(k, e);
            return;
        }
        connected(k);
    } else if (stream_blocked(&k->s) && stream_flush(&k->s) == STREAM_FAILED) {
        finish(k, "the connection broke");
    } else if (k->phase == PHASE_HANDSHAKE) {
        shake_hands(k);
    }
    if (k->phase == PHASE_ANSWER && ((ready & LOOP_READ) != 0 || stream_has_input(&k->s))) {
        read_answer(k);
    }
}

static void want(struct check *k)
{
    if (k->phase != PHASE_IDLE) {
        bool write = k->phase == PHASE_DIAL || stream_blocked(&k->s);
        loop_io_want(k->io, (k->phase == PHASE_DIAL ? 0U : LOOP_READ) | (write ? LOOP_WRITE : 0U));
    }
}

static void on_ready(void *arg, unsigned ready)
{
    struct check *k = (struct check *)arg;
    if (k->phase != PHASE_IDLE) {
        step(k, ready);
        want(k);
    }
}

static int dial(struct check *k, bool *ret_done)
{
    const struct snapshot_target *t = target_of(k);
    const struct snapshot_connect_proxy *proxy =
        k->all->snapshot->files->listeners[k->listener].connect_proxy;
    struct net_addr first;
    size_t preferred;
    if (proxy != NULL) {
        t = &proxy->target;
    }
    if (t->conf->kind == CONF_TARGET_UNIX) {
        return net_dial_unix(t->conf->path, ret_done);
    }
    if (snapshot_addresses(k->all->snapshot, t, &first, 1, &preferred) == 0) {
        errno = EHOSTUNREACH;
        return -1;
    }
    if (conf_of(k)->transport == CONF_TRANSPORT_HBONE) {
        net_addr_set_port(&first,
                          conf_of(k)->hbone_port != 0 ? conf_of(k)->hbone_port : CONF_HBONE_PORT);
    }
    return net_dial(&first, ret_done);
}

static void begin(struct check *k)
{
    bool done = false;
    k->began_ms = os_now_ms();
    int fd = dial(k, &done);
    if (fd == -1) {
        finish_errno(k, errno);
        return;
    }
    stream_plain_init(&k->s, &k->all->scratch, fd);
    k->io = loop_io_new(k->all->loop, fd, on_ready, k);
    if (k->io == NULL) {
        finish(k, "no memory");
        return;
    }
    k->phase = PHASE_DIAL;
    loop_timer_arm(&k->timer, k->all->snapshot->files->conf->targets.timeout_ms);
    if (done) {
        connected(k);
    }
    want(k);
}

static void on_timer(void *arg)
{
    struct check *k = (struct check *)arg;
    if (k->phase == PHASE_IDLE) {
        begin(k);
    } else {
        finish(k, k->phase == PHASE_DIAL        ? "no connection in time"
                  : k->phase == PHASE_HANDSHAKE ? "no handshake in time"
                                                : "no answer in time");
    }
}

/* --- all of them ------------------------------------------------------------------------------ */

struct target_checks *target_checks_new(struct loop *loop, const struct target_events *events,
                                        void *arg)
{
    struct target_checks *t = mem_must_new(struct target_checks);
    t->loop = loop;
    t->events = events;
    t->arg = arg;
    return t;
}

static void check_free(struct check *k)
{
    close_connection(k);
    free(k);
}

/* The buffers are mapped with the first target that is checked: most gateways check none. */
static int need_scratch(struct target_checks *t, struct err *err)
{
    if (t->has_scratch) {
        return 0;
    }
    if (net_scratch_init(&t->scratch, err) == -1) {
        return -1;
    }
    if (tls_worker_init(&t->tls, &t->scratch, err) == -1) {
        net_scratch_deinit(&t->scratch);
        return -1;
    }
    t->response = mem_must_new(struct http1_response);
    t->has_scratch = true;
    return 0;
}

/* Takes the one that was there before out of the old list. */
static struct check *take_old(struct target_checks *t, const char *listener, const char *target,
                              enum conf_check kind)
{
    for (size_t i = 0; i < t->n; i++) {
        struct check *k = t->checks[i];
        if (k != NULL && k->status.kind == kind && strcmp(k->status.target, target) == 0 &&
            strcmp(k->status.listener, listener) == 0) {
            t->checks[i] = NULL;
            return k;
        }
    }
    return NULL;
}

/* entry: of a list; -1: it is none. */
static void add_one(struct target_checks *t, struct check **next, size_t *n, struct snapshot *s,
                    size_t listener, long route, long entry)
{
    const struct conf_listener *c = s->files->listeners[listener].conf;
    const struct snapshot_target *target =
        entry >= 0 ? &s->files->listeners[listener].targets[entry]
                   : snapshot_listener_target(&s->files->listeners[listener], route);
    char text[sizeof(((struct target_status *)NULL)->target)];
    enum conf_check kind = c->check.kind;
    if (kind == CONF_CHECK_NONE || target->conf->kind == CONF_TARGET_NONE) {
        return;
    }
    bool passthrough = route != -1 && c->sni[route].passthrough;
    if (passthrough || s->files->listeners[listener].connect_proxy != NULL ||
        c->transport == CONF_TRANSPORT_HBONE) {
        kind = CONF_CHECK_TCP; /* of a proxy: what is behind it is asked of it by clients only */
    }
    snapshot_target_text(target, text, sizeof(text));
    struct check *k = take_old(t, c->name, text, kind);
    if (k == NULL) {
        k = mem_must_new(struct check);
        k->all = t;
        k->s.fd = -1;
        k->status.kind = kind;
        memcpy(k->status.target, text, sizeof(text));
        k->status.since_ms = os_now_ms();
        loop_timer_init(&k->timer, t->loop, on_timer, k);
        loop_timer_arm(&k->timer, *n * SPREAD_MS);
    }
    k->status.listener = c->name;
    k->listener = listener;
    k->route = route;
    k->entry = entry;
    next[(*n)++] = k;
}

static void add(struct target_checks *t, struct check **next, size_t *n, struct snapshot *s,
                size_t listener, long route)
{
    const struct snapshot_listener *l = &s->files->listeners[listener];
    bool list = snapshot_listener_target(l, route)->conf->kind == CONF_TARGET_LIST;
    if (!list) {
        add_one(t, next, n, s, listener, route, -1);
        return;
    }
    for (size_t i = 0; i < l->n_targets; i++) {
        add_one(t, next, n, s, listener, route, (long)i);
    }
}

int target_checks_use(struct target_checks *t, struct snapshot *snapshot, struct err *err)
{
    const struct snapshot_files *f = snapshot->files;
    size_t most = 0;
    bool any = false;
    for (size_t i = 0; i < f->n_listeners; i++) {
        most += 1 + f->listeners[i].conf->n_sni + f->listeners[i].n_targets;
        any = any || f->listeners[i].conf->check.kind != CONF_CHECK_NONE;
    }
    if (any && need_scratch(t, err) == -1) {
        return -1;
    }
    struct check **next = (struct check **)mem_must_calloc(most + 1, sizeof(struct check *));
    size_t n = 0;
    for (size_t i = 0; i < f->n_listeners; i++) {
        add(t, next, &n, snapshot, i, -1);
        for (size_t r = 0; r < f->listeners[i].conf->n_sni; r++) {
            if (f->listeners[i].conf->sni[r].to.kind != CONF_TARGET_NONE) {
                add(t, next, &n, snapshot, i, (long)r);
            }
        }
    }
    for (size_t i = 0; i < t->n; i++) {
        if (t->checks[i] != NULL) {
            check_free(t->checks[i]);
        }
    }
    free(t->checks);
    t->checks = next;
    t->n = n;
    /* What is under way goes on; what it goes by must live as long. */
    for (size_t i = 0; i < n; i++) {
        if (next[i]->phase == PHASE_HANDSHAKE) {
            const struct tls_party *by = snapshot_upstream(snapshot, next[i]->listener);
            if (by == NULL || !tls_stream_rebase(&next[i]->tls, by)) {
                close_connection(next[i]);
                schedule(next[i]);
            }
        }
    }
    struct snapshot *old = t->snapshot;
    t->snapshot = snapshot_ref(snapshot);
    snapshot_unref(old);
    return 0;
}

size_t target_checks_count(const struct target_checks *t)
{
    return t->n;
}

void target_checks_get(const struct target_checks *t, size_t i, struct target_status *ret)
{
    *ret = t->checks[i]->status;
}

/* One of a list is enough: that is what the others are there for. */
static bool another_is_up(const struct target_checks *t, size_t i)
{
    for (size_t k = 0; k < t->n; k++) {
        const struct check *other = t->checks[k];
        if (other->entry >= 0 && other->listener == t->checks[i]->listener &&
            other->status.state == TARGET_UP) {
            return true;
        }
    }
    return false;
}

bool target_checks_all_up(const struct target_checks *t)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct check *k = t->checks[i];
        if (k->status.state != TARGET_UP && (k->entry < 0 || !another_is_up(t, i))) {
            return false;
        }
    }
    return true;
}

struct target_checks *target_checks_free(struct target_checks *t)
{
    if (t == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < t->n; i++) {
        check_free(t->checks[i]);
    }
    free(t->checks);
    if (t->has_scratch) {
        tls_worker_deinit(&t->tls);
        net_scratch_deinit(&t->scratch);
        free(t->response);
    }
    snapshot_unref(t->snapshot);
    free(t);
    return NULL;
}
