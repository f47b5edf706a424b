#include <postern/loop.h>

#include <event2/event.h>
#include <event2/event_struct.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct loop_signal_watch {
    struct loop_signal_watch *next;
    struct loop *loop;
    struct event *event;
    loop_signal_fn fn;
    void *arg;
};

struct loop {
    struct event_base *base;
    uint64_t now_ms;
    bool now_fresh; /* now_ms was read in this turn, after the wait */
    _Atomic bool stop;

    struct loop_timer **heap; /* least due first */
    uint32_t n_timers;
    uint32_t cap_timers;
    struct event timer_event;
    uint64_t timer_set_ms; /* what timer_event is armed for; 0: not armed */

    struct loop_deferred *deferred;
    struct loop_deferred **deferred_tail;

    int mail_fd;
    struct event mail_event;
    _Atomic(struct loop_mail *) mail; /* newest first */

    struct loop_signal_watch *signals;
};

/* An event each way: one of them comes or goes with one epoll_ctl, while one event for both would
 * have to be deleted and added again. */
struct loop_io {
    struct loop *loop;
    struct event read_event;
    struct event write_event;
    loop_io_fn fn;
    void *arg;
    unsigned wanted;
};

static void run_timers(struct loop *loop);
static void arm_timer_event(struct loop *loop);

/* The first callback after the wait reads the clock, the others of the turn share it. */
static void begin_turn(struct loop *loop)
{
    if (!loop->now_fresh) {
        loop->now_ms = os_now_ms();
        loop->now_fresh = true;
    }
}

/* --- mail ------------------------------------------------------------------------------------- */
static struct loop_mail *take_mail(struct loop *loop)
{
    struct loop_mail *m = atomic_exchange_explicit(&loop->mail, NULL, memory_order_acquire);
    struct loop_mail *in_order = NULL;
    while (m != NULL) {
        struct loop_mail *next = m->next;
        m->next = in_order;
        in_order = m;
        m = next;
    }
    return in_order;
}

static void read_mail(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof(count));
    (void)ignored;
    (void)what;
    begin_turn(loop);
    struct loop_mail *m = take_mail(loop);
    while (m != NULL) {
        struct loop_mail *next = m->next;
        m->fn(m);
        m = next;
    }
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t ignored = write(loop->mail_fd, &one, sizeof(one)); /* full: it is awake anyway */
    (void)ignored;
}

void loop_post(struct loop *loop, struct loop_mail *m)
{
    struct loop_mail *head = atomic_load_explicit(&loop->mail, memory_order_relaxed);
    do {
        m->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&loop->mail, &head, m, memory_order_release,
                                                    memory_order_relaxed));
    if (head == NULL) {
        wake(loop);
    }
}

/* --- life ------------------------------------------------------------------------------------- */
static void on_timer_event(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    (void)fd;
    (void)what;
    loop->timer_set_ms = 0; /* run_timers runs at the end of every turn */
}

struct loop *loop_new(struct err *err)
{
    struct loop *loop = mem_must_new(struct loop);
    loop->mail_fd = -1;
    loop->deferred_tail = &loop->deferred;
    loop->now_ms = os_now_ms();
    struct event_config *cfg = event_config_new();
    if (cfg != NULL) {
        event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
        loop->base = event_base_new_with_config(cfg);
        event_config_free(cfg);
    }
    if (loop->base == NULL) {
        err_set(err, ERR_SYSTEM, "cannot make an event loop");
        return loop_free(loop);
    }
    loop->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->mail_fd == -1) {
        err_sys(err, "cannot make an eventfd");
        return loop_free(loop);
    }
    event_assign(&loop->mail_event, loop->base, loop->mail_fd, EV_READ | EV_PERSIST, read_mail,
                 loop);
    event_add(&loop->mail_event, NULL);
    event_assign(&loop->timer_event, loop->base, -1, 0, on_timer_event, loop);
    return loop;
}

/* What was asked for before: work that asks for itself again waits for the next turn, so that it
 * cannot keep the descriptors from being looked at. */
static void run_deferred(struct loop *loop)
{
    struct loop_deferred *d = loop->deferred;
    loop->deferred = NULL;
    loop->deferred_tail = &loop->deferred;
    while (d != NULL) {
        struct loop_deferred *next = d->next;
        d->queued = false;
        d->fn(d); /* may free d */
        d = next;
    }
}

static void run_all_deferred(struct loop *loop)
{
    while (loop->deferred != NULL) {
        run_deferred(loop);
    }
}

struct loop *loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return NULL;
    }
    run_all_deferred(loop);
    for (struct loop_mail *m = take_mail(loop); m != NULL;) {
        struct loop_mail *next = m->next;
        if (m->drop != NULL) {
            m->drop(m);
        }
        m = next;
    }
    run_all_deferred(loop);
    while (loop->signals != NULL) {
        struct loop_signal_watch *s = loop->signals;
        loop->signals = s->next;
        event_free(s->event);
        free(s);
    }
    if (loop->mail_fd != -1) {
        event_del(&loop->mail_event);
        event_del(&loop->timer_event);
        close(loop->mail_fd);
    }
    if (loop->base != NULL) {
        event_base_free(loop->base);
    }
    free(loop->heap);
    free(loop);
    return NULL;
}

void loop_run(struct loop *loop)
{
    loop->now_ms = os_now_ms();
    while (!atomic_load_explicit(&loop->stop, memory_order_acquire)) {
        arm_timer_event(loop);
        loop->now_fresh = false;
        if (event_base_loop(loop->base, EVLOOP_ONCE) == -1) {
            err_panic(__FILE__, __LINE__, "event_base_loop", "the event loop failed");
        }
        begin_turn(loop);
        run_timers(loop);
        run_deferred(loop);
    }
    atomic_store_explicit(&loop->stop, false, memory_order_relaxed);
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stop, true, memory_order_release);
    wake(loop);
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_ms;
}

/* --- descriptors ------------------------------------------------------------------------------ */
static void on_io(evutil_socket_t fd, short what, void *arg)
{
    struct loop_io *io = arg;
    (void)fd;
    begin_turn(io->loop);
    unsigned ready =
        ((what & EV_READ) != 0 ? LOOP_READ : 0U) | ((what & EV_WRITE) != 0 ? LOOP_WRITE : 0U);
    io->fn(io->arg, ready);
}

struct loop_io *loop_io_new(struct loop *loop, int fd, loop_io_fn fn, void *arg)
{
    struct loop_io *io = calloc(1, sizeof(*io));
    if (io != NULL) {
        io->loop = loop;
        io->fn = fn;
        io->arg = arg;
        event_assign(&io->read_event, loop->base, fd, EV_READ | EV_PERSIST, on_io, io);
        event_assign(&io->write_event, loop->base, fd, EV_WRITE | EV_PERSIST, on_io, io);
    }
    return io;
}

struct loop_io *loop_io_free(struct loop_io *io)
{
    if (io != NULL) {
        loop_io_want(io, 0);
        free(io);
    }
    return NULL;
}

void loop_io_want(struct loop_io *io, unsigned events)
{
    if (io->wanted == events) {
        return;
    }
    unsigned add = events & ~io->wanted;
    unsigned del = io->wanted & ~events;
    io->wanted = events;
    /* What is new first: a descriptor that stays watched is not taken out of the kernel's set. */
    if ((add & LOOP_READ) != 0) {
        event_add(&io->read_event, NULL);
    }
    if ((add & LOOP_WRITE) != 0) {
        event_add(&io->write_event, NULL);
    }
    if ((del & LOOP_READ) != 0) {
        event_del(&io->read_event);
    }
    if ((del & LOOP_WRITE) != 0) {
        event_del(&io->write_event);
    }
}

/* --- timers: a binary heap, so that arming costs no system call and no allocation ----------------
 */
static void heap_put(struct loop *loop, uint32_t at, struct loop_timer *t)
{
    loop->heap[at] = t;
    t->index = at;
}

static void heap_up(struct loop *loop, uint32_t at, struct loop_timer *t)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (loop->heap[parent]->due_ms <= t->due_ms) {
            break;
        }
        heap_put(loop, at, loop->heap[parent]);
        at = parent;
    }
    heap_put(loop, at, t);
}

static void heap_down(struct loop *loop, uint32_t at, struct loop_timer *t)
{
    for (;;) {
        uint32_t child = at * 2 + 1;
        if (child >= loop->n_timers) {
            break;
        }
        if (child + 1 < loop->n_timers &&
            loop->heap[child + 1]->due_ms < loop->heap[child]->due_ms) {
            child++;
        }
        if (t->due_ms <= loop->heap[child]->due_ms) {
            break;
        }
        heap_put(loop, at, loop->heap[child]);
        at = child;
    }
    heap_put(loop, at, t);
}

void loop_timer_init(struct loop_timer *t, struct loop *loop, loop_timer_fn fn, void *arg)
{
    *t = (struct loop_timer){.loop = loop, .fn = fn, .arg = arg};
}

void loop_timer_disarm(struct loop_timer *t)
{
    if (t->due_ms == 0) {
        return;
    }
    struct loop *loop = t->loop;
    t->due_ms = 0;
    struct loop_timer *last = loop->heap[--loop->n_timers];
    if (last == t) {
        return;
    }
    uint32_t at = t->index;
    if (at > 0 && loop->heap[(at - 1) / 2]->due_ms > last->due_ms) {
        heap_up(loop, at, last);
    } else {
        heap_down(loop, at, last);
    }
}

void loop_timer_arm(struct loop_timer *t, uint64_t delay_ms)
{
    struct loop *loop = t->loop;
    loop_timer_disarm(t);
    if (loop->n_timers == loop->cap_timers) {
        loop->cap_timers = loop->cap_timers > 0 ? loop->cap_timers * 2 : 64;
        loop->heap = mem_must_realloc(loop->heap, loop->cap_timers * sizeof(struct loop_timer *));
    }
    uint64_t now = loop->now_ms;
    t->due_ms = delay_ms > UINT64_MAX - now ? UINT64_MAX : now + delay_ms;
    if (t->due_ms == 0) {
        t->due_ms = 1;
    }
    heap_up(loop, loop->n_timers++, t);
}

static void run_timers(struct loop *loop)
{
    /* Only what was due when the turn began: a timer that arms itself for now does not spin. */
    uint64_t now = loop->now_ms;
    for (uint32_t budget = loop->n_timers; budget > 0 && loop->n_timers > 0; budget--) {
        struct loop_timer *t = loop->heap[0];
        if (t->due_ms > now) {
            break;
        }
        loop_timer_disarm(t);
        t->fn(t->arg);
    }
}

static void arm_timer_event(struct loop *loop)
{
    uint64_t due = loop->n_timers > 0 ? loop->heap[0]->due_ms : 0;
    if (loop->deferred != NULL) {
        due = loop->now_ms > 0 ? loop->now_ms : 1; /* asked for outside a turn */
    }
    if (due == loop->timer_set_ms) {
        return;
    }
    loop->timer_set_ms = due;
    if (due == 0) {
        event_del(&loop->timer_event);
        return;
    }
    uint64_t wait = due > loop->now_ms ? due - loop->now_ms : 0;
    enum { WAIT_MAX_MS = 3600000 };
    wait = wait < WAIT_MAX_MS ? wait : WAIT_MAX_MS;
    struct timeval tv = {.tv_sec = (time_t)(wait / 1000),
                         .tv_usec = (suseconds_t)(wait % 1000) * 1000};
    event_add(&loop->timer_event, &tv);
}

/* --- end of turn ------------------------------------------------------------------------------ */
void loop_defer(struct loop *loop, struct loop_deferred *d)
{
    if (d->queued) {
        return;
    }
    d->queued = true;
    d->next = NULL;
    *loop->deferred_tail = d;
    loop->deferred_tail = &d->next;
}

/* --- signals ---------------------------------------------------------------------------------- */
static void on_signal(evutil_socket_t signo, short what, void *arg)
{
    struct loop_signal_watch *s = arg;
    (void)what;
    begin_turn(s->loop);
    s->fn(s->arg, (int)signo);
}

int loop_signal(struct loop *loop, int signo, loop_signal_fn fn, void *arg, struct err *err)
{
    struct loop_signal_watch *s = mem_must_new(struct loop_signal_watch);
    s->loop = loop;
    s->fn = fn;
    s->arg = arg;
    s->event = evsignal_new(loop->base, signo, on_signal, s);
    if (s->event == NULL || event_add(s->event, NULL) != 0) {
        if (s->event != NULL) {
            event_free(s->event);
        }
        free(s);
        return err_set(err, ERR_SYSTEM, "cannot watch signal %d", signo);
    }
    s->next = loop->signals;
    loop->signals = s;
    return 0;
}
