/* The audit log's thread: takes decisions out of the rings, makes lines, writes them. */
#include "audit_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/log.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    STACK_BYTES = 256 * 1024,
    OUT_BYTES = 256 * 1024, /* lines that were not taken yet */
    GATHER_MS = 20,         /* between two looks while decisions come */
    RETRY_MS = 250,         /* after a write that failed */
    ROTATE_RETRY_MS = 10000,
    STOP_MS = 2000, /* for what is left, at the end */
};

struct audit {
    struct audit_ring *rings; /* owned */
    unsigned n_rings, turn;
    struct audit_wake wake;
    struct audit_chain chain;
    struct audit_sink sink;
    struct log *log; /* owned; NULL: nowhere */
    char *name, *role;
    pthread_t thread;
    bool started;
    _Atomic bool stopping;

    /* The thread's alone. */
    struct buf out;
    size_t sent;     /* of `out`, whose first byte begins a line */
    uint8_t *record; /* owned */
    char *line;      /* owned */
    uint64_t rotate_after_ms, retry_ms;
    bool failing;

    struct audit_figures status;

    pthread_mutex_t lock; /* of `told`: between the thread and who asks; no worker comes here */
    struct audit_figures told;
};

/* --- making ----------------------------------------------------------------------------------- */

static void add_line(struct audit *a, size_t n)
{
    bool ok = buf_append(&a->out, a->line, n); /* there is room: it was looked at before */
    POSTERN_ASSERT(ok);
    a->status.lines++;
}

static void begin_with(struct audit *a, struct audit_begin *b)
{
    b->name = a->name;
    b->role = a->role;
    if (b->torn > 0) {
        (void)buf_append(&a->out, "\n", 1);
    }
    add_line(a, audit_line_begin(&a->chain, b, a->line));
}

int audit_new(const struct audit_options *o, unsigned n_rings, struct audit **ret, struct err *err)
{
    struct audit *a = mem_must_new(struct audit);
    struct audit_begin begin = {.why = "start"};
    size_t size = o->ring_bytes != 0 ? o->ring_bytes : (size_t)AUDIT_RING_BYTES;
    pthread_mutex_init(&a->lock, NULL);
    a->sink.fd = a->sink.dir_fd = -1;
    a->name = mem_must_strdup(o->name);
    a->role = mem_must_strdup(o->role);
    a->out = (struct buf)BUF_INIT(OUT_BYTES);
    a->record = (uint8_t *)mem_must_calloc(1, AUDIT_RECORD_MAX);
    a->line = (char *)mem_must_calloc(1, AUDIT_LINE_MAX);
    a->log = o->log_fd != -1 ? log_new_fd(o->log_fd, LOG_INFO, o->role) : NULL;
    a->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    a->rings = (struct audit_ring *)mem_must_calloc(n_rings, sizeof(*a->rings));
    for (; a->n_rings < n_rings; a->n_rings++) {
        audit_ring_init(&a->rings[a->n_rings], size, a->n_rings, &a->wake);
    }
    if (a->wake.fd == -1) {
        err_sys(err, "cannot make an eventfd");
        audit_free(a);
        return -1;
    }
    if (audit_chain_init(&a->chain, o->chain, err) == -1 ||
        audit_sink_open(&a->sink, o, err) == -1 ||
        (o->to == AUDIT_TO_FILE && audit_file_open(&a->sink, &a->chain, &begin, err) == -1)) {
        audit_free(a);
        return -1;
    }
    begin_with(a, &begin);
    *ret = a;
    return 0;
}

struct audit_ring *audit_ring(struct audit *a, unsigned i)
{
    POSTERN_ASSERT(i < a->n_rings);
    return &a->rings[i];
}

struct audit *audit_free(struct audit *a)
{
    if (a == NULL) {
        return NULL;
    }
    POSTERN_ASSERT(!a->started);
    for (unsigned i = 0; i < a->n_rings; i++) {
        audit_ring_deinit(&a->rings[i]);
    }
    free(a->rings);
    audit_chain_deinit(&a->chain);
    audit_sink_close(&a->sink);
    if (a->wake.fd != -1) {
        close(a->wake.fd);
    }
    log_free(a->log);
    buf_reset(&a->out);
    free(a->record);
    free(a->line);
    free(a->name);
    free(a->role);
    pthread_mutex_destroy(&a->lock);
    free(a);
    return NULL;
}

/* --- from the rings to lines ------------------------------------------------------------------ */

static bool has_room(const struct audit *a)
{
    return buf_len(&a->out) + 2 * (size_t)AUDIT_LINE_MAX <= OUT_BYTES;
}

static void tell_lost(struct audit *a, unsigned worker, uint64_t count, uint64_t first)
{
    const struct audit_lost lost = {.worker = worker, .count = count, .first = first};
    add_line(a, audit_line_lost(&a->chain, &lost, a->line));
    a->status.lost += count;
}

/* One decision, and what is missing before it. False: this ring has none. */
static bool take_one(struct audit *a, struct audit_ring *r)
{
    struct audit_decision d;
    uint64_t before = r->seen, lost = 0;
    bool is_one = audit_ring_take(r, a->record, &d, &lost);
    if (lost > 0) {
        tell_lost(a, r->worker, lost, before + 1);
    }
    if (is_one) {
        add_line(a, audit_line_decision(&a->chain, &d, a->line));
        a->status.decisions++;
    }
    return is_one;
}

/* In turn, so that no worker waits for another's flood. A file that is full is written to its end
 * first. */
static void make_lines(struct audit *a)
{
    unsigned quiet = 0;
    bool file = a->sink.to == AUDIT_TO_FILE;
    while (quiet < a->n_rings && has_room(a) &&
           !(file && a->sink.size + buf_len(&a->out) >= a->sink.max_size &&
             os_now_ms() >= a->rotate_after_ms)) {
        struct audit_ring *r = &a->rings[a->turn++ % a->n_rings];
        quiet = take_one(a, r) ? 0 : quiet + 1;
    }
}

static bool rings_are_empty(const struct audit *a)
{
    for (unsigned i = 0; i < a->n_rings; i++) {
        if (!audit_ring_empty(&a->rings[i])) {
            return false;
        }
    }
    return true;
}

/* --- from lines to where they go -------------------------------------------------------------- */

static void tell_failure(struct audit *a, const char *event, const struct err *err)
{
    a->status.failures++;
    (void)snprintf(a->status.error, sizeof(a->status.error), "%s", err->what);
    if (a->log != NULL) {
        log_failure(a->log, LOG_ERROR, event, err);
    }
}

static void failed(struct audit *a, int sys_errno)
{
    a->retry_ms = os_now_ms() + RETRY_MS;
    a->status.writing = false;
    if (a->failing) {
        return; /* told already */
    }
    struct err err = ERR_INIT;
    a->failing = true;
    errno = sys_errno;
    err_sys(&err, "the audit log cannot be written");
    err_where(&err, "%s", a->sink.path != NULL ? a->sink.path : "standard output");
    tell_failure(a, "audit_failed", &err);
}

static void succeeded(struct audit *a)
{
    a->status.writing = true;
    a->retry_ms = 0;
    if (a->failing) {
        a->failing = false;
        a->status.error[0] = '\0';
        if (a->log != NULL) {
            struct log_line l;
            log_begin(&l, a->log, LOG_INFO, "audit_recovered");
            log_uint(&l, "lost", a->status.lost);
            log_end(&l);
        }
    }
}

/* Lines that are out to their ends go. */
static void drop_sent(struct audit *a)
{
    const uint8_t *p = buf_head(&a->out);
    const uint8_t *last = a->sent > 0 ? memrchr(p, '\n', a->sent) : NULL;
    size_t whole = last != NULL ? (size_t)(last - p) + 1 : 0;
    buf_consume(&a->out, whole);
    a->sent -= whole;
}

/* True: it has to be waited for, until it is writable or for a moment. */
static bool write_out(struct audit *a)
{
    bool stream = a->sink.to == AUDIT_TO_UNIX;
    while (a->sent < buf_len(&a->out)) {
        ssize_t took =
            audit_sink_write(&a->sink, buf_head(&a->out) + a->sent, buf_len(&a->out) - a->sent);
        if (took < 0) {
            int e = errno;
            if (e == EINTR) {
                continue;
            }
            if (e != EAGAIN) {
                drop_sent(a);
                a->sent = stream ? 0 : a->sent; /* another reader begins with a whole line */
                failed(a, e);
            }
            return true;
        }
        a->sent += (size_t)took;
        succeeded(a);
        drop_sent(a);
    }
    return false;
}

static void rotate(struct audit *a)
{
    struct err err = ERR_INIT;
    struct audit_begin begin = {.why = "rotated"};
    if (!audit_file_is_full(&a->sink) || buf_len(&a->out) > 0 || os_now_ms() < a->rotate_after_ms) {
        return;
    }
    if (audit_file_rotate(&a->sink, &err) == -1) {
        a->rotate_after_ms = os_now_ms() + ROTATE_RETRY_MS;
        tell_failure(a, "audit_rotate_failed", &err);
        return;
    }
    a->status.rotations++;
    begin.file = a->sink.number;
    begin_with(a, &begin);
}

/* --- the thread ------------------------------------------------------------------------------- */

static void publish(struct audit *a)
{
    if (buf_len(&a->out) == 0) { /* a head is of a line that is there to be found */
        a->status.seq = a->chain.seq;
        memcpy(a->status.head, a->chain.head, sizeof(a->status.head));
    }
    pthread_mutex_lock(&a->lock);
    a->told = a->status;
    pthread_mutex_unlock(&a->lock);
}

static void wait_for(struct audit *a, int fd, short events, int timeout_ms)
{
    struct pollfd f[2] = {{.fd = a->wake.fd, .events = POLLIN}, {.fd = fd, .events = events}};
    uint64_t n;
    if (poll(f, fd != -1 ? 2 : 1, timeout_ms) > 0 && f[0].revents != 0) {
        ssize_t ignored = read(a->wake.fd, &n, sizeof(n));
        (void)ignored;
    }
}

/* Until something can be done; `blocked`: there are lines that were not taken. */
static void rest(struct audit *a, bool blocked, bool *busy)
{
    if (blocked) {
        uint64_t now = os_now_ms();
        if (a->retry_ms > now) {
            wait_for(a, -1, 0, (int)(a->retry_ms - now));
        } else {
            wait_for(a, a->sink.fd, POLLOUT, RETRY_MS);
        }
        return;
    }
    if (!rings_are_empty(a)) {
        *busy = true;
        return; /* no room before, now there is */
    }
    if (*busy) {
        *busy = false; /* they come in flocks: one look for many */
        wait_for(a, -1, 0, GATHER_MS);
        return;
    }
    atomic_store_explicit(&a->wake.idle, true, memory_order_seq_cst);
    if (rings_are_empty(a) && !atomic_load(&a->stopping)) {
        wait_for(a, -1, 0, -1);
        *busy = true;
    }
    atomic_store_explicit(&a->wake.idle, false, memory_order_seq_cst);
}

static void *run(void *arg)
{
    struct audit *a = (struct audit *)arg;
    uint64_t end_ms = 0;
    bool busy = false;
    for (;;) {
        make_lines(a);
        bool blocked = write_out(a);
        rotate(a);
        publish(a);
        if (!blocked && buf_len(&a->out) > 0) {
            continue; /* a new file's first line */
        }
        if (atomic_load(&a->stopping)) {
            end_ms = end_ms == 0 ? os_now_ms() + STOP_MS : end_ms;
            bool done = buf_len(&a->out) == 0 && rings_are_empty(a);
            if (done || os_now_ms() >= end_ms) {
                return NULL;
            }
            if (!blocked) {
                continue;
            }
        }
        rest(a, blocked, &busy);
    }
}

int audit_start(struct audit *a, struct err *err)
{
    pthread_attr_t attr;
    sigset_t all, before;
    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    /* Signals are the main thread's. */
    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* a refused system call is counted where it was made */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&a->thread, &attr, run, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (e != 0) {
        return err_set(err, ERR_SYSTEM, "cannot start the audit log: %s", strerrordesc_np(e));
    }
    a->started = true;
    return 0;
}

void audit_stop(struct audit *a)
{
    if (a == NULL || !a->started) {
        return;
    }
    const uint64_t one = 1;
    atomic_store(&a->stopping, true);
    ssize_t ignored = write(a->wake.fd, &one, sizeof(one));
    (void)ignored;
    pthread_join(a->thread, NULL);
    a->started = false;
}

void audit_get_figures(struct audit *a, struct audit_figures *ret)
{
    pthread_mutex_lock(&a->lock);
    *ret = a->told;
    pthread_mutex_unlock(&a->lock);
    for (unsigned i = 0; i < a->n_rings; i++) {
        ret->skipped += atomic_load_explicit(&a->rings[i].skipped, memory_order_relaxed);
    }
}
