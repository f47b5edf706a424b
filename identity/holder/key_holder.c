/* The owner's side: starting the holder, news of its life, keys. */
#include "asker_priv.h"

#include <poll.h>
#include <postern/ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROBE_MS = 1000, NEWS_MAX = 16, START_MS = 10000 };

struct key_holder {
    const struct key_holder_events *events; /* borrowed */
    void *arg;
    struct away_keys *keys;     /* owned */
    struct holder_asker *asker; /* owned */
    int control_fd;             /* owned; -1: the watcher is gone */
    struct loop_io *control_io, *wake_io;
    struct loop_timer probe_timer; /* armed while it is in doubt */
    unsigned n_unanswered;
    uint32_t holder; /* the how-manieth; 0: none yet */
    pid_t pid;       /* 0: there is none */
    bool lost;
};

static void tell(struct key_holder *h, enum key_holder_event event, const struct err *why)
{
    h->events->on_event(h->arg, event, why);
}

/* --- does it answer --------------------------------------------------------------------------- */
static int ask_report(struct key_holder *h, struct holder_report *ret, struct err *err)
{
    struct holder_question q = {.type = HOLDER_REPORT};
    if (h->pid == 0) {
        return err_set(err, ERR_UNAVAILABLE, "there is no key holder now");
    }
    return holder_asker_ask(h->asker, KEY_HOLDER_SIGN_MS, &q, ret, sizeof(*ret), err);
}

static void end_it(struct key_holder *h)
{
    const struct holder_order o = {.version = HOLDER_WIRE_VERSION, .type = HOLDER_RESTART};
    struct err why = ERR_INIT;
    err_set(&why, ERR_UNAVAILABLE, "it did not answer %d questions, a second apart",
            KEY_HOLDER_PROBES);
    err_advise(&why, "something stops it: a signal, a debugger, a machine without time");
    (void)!ipc_send(h->control_fd, &o, sizeof(o), -1); /* gone: its end is told by the channel */
    tell(h, KEY_HOLDER_STUCK, &why);
}

static void on_probe(void *arg)
{
    struct key_holder *h = (struct key_holder *)arg;
    struct holder_report r;
    if (h->pid == 0) {
        return; /* its end is known */
    }
    if (ask_report(h, &r, NULL) == 0) {
        h->n_unanswered = 0;
        return;
    }
    loop_timer_arm(&h->probe_timer, PROBE_MS);
    h->n_unanswered++;
    if (h->n_unanswered % KEY_HOLDER_PROBES == 0) {
        end_it(h);
    }
}

/* A thread has waited in vain. */
static void on_wake(void *arg, unsigned ready)
{
    struct key_holder *h = (struct key_holder *)arg;
    uint64_t n;
    (void)ready;
    if (read(h->asker->wake_fd, &n, sizeof(n)) != sizeof(n)) {
        return;
    }
    if (h->probe_timer.due_ms == 0) {
        tell(h, KEY_HOLDER_TIMEOUT, NULL);
        loop_timer_arm(&h->probe_timer, 0);
    }
}

/* --- news ------------------------------------------------------------------------------------- */
static void lost(struct key_holder *h)
{
    struct err why = ERR_INIT;
    h->control_io = loop_io_free(h->control_io);
    close(h->control_fd);
    h->control_fd = -1;
    h->pid = 0;
    h->lost = true;
    loop_timer_disarm(&h->probe_timer);
    err_set(&why, ERR_UNAVAILABLE, "the key holder's watcher has ended");
    err_advise(&why, "restart this process; the system's log says how the watcher ended");
    tell(h, KEY_HOLDER_LOST, &why);
}

static void took_end(struct key_holder *h, const struct holder_news *n)
{
    struct err why = ERR_INIT;
    h->pid = 0;
    h->n_unanswered = 0;
    loop_timer_disarm(&h->probe_timer);
    if (WIFSIGNALED(n->status)) {
        err_set(&why, ERR_UNAVAILABLE, "it was ended by signal %d; the next comes in %u ms",
                WTERMSIG(n->status), n->pause_ms);
    } else {
        err_set(&why, ERR_UNAVAILABLE, "it ended with status %d; the next comes in %u ms",
                WEXITSTATUS(n->status), n->pause_ms);
    }
    tell(h, KEY_HOLDER_ENDED, &why);
}

static void took_start(struct key_holder *h, const struct holder_news *n)
{
    h->holder = n->holder;
    h->pid = n->pid;
    atomic_store_explicit(&h->asker->refused_until_ms, 0, memory_order_relaxed);
    tell(h, KEY_HOLDER_UP, NULL);
}

static void on_control(void *arg, unsigned ready)
{
    struct key_holder *h = (struct key_holder *)arg;
    (void)ready;
    for (int i = 0; i < NEWS_MAX; i++) {
        struct holder_news n;
        size_t len = 0;
        int passed = -1;
        enum ipc_outcome o = ipc_recv(h->control_fd, &n, sizeof(n), &len, &passed);
        if (passed != -1) {
            close(passed);
        }
        if (o == IPC_AGAIN) {
            return;
        }
        if (o != IPC_OK || passed != -1 || len != sizeof(n) || n.version != HOLDER_WIRE_VERSION) {
            lost(h);
            return;
        }
        if (n.type == HOLDER_STARTED && n.holder > h->holder && n.pid > 0) {
            took_start(h, &n);
        } else if (n.type == HOLDER_ENDED && n.holder == h->holder && h->pid != 0) {
            took_end(h, &n);
        } else {
            lost(h);
            return;
        }
    }
}

/* --- the start -------------------------------------------------------------------------------- */
struct key_holder *key_holder_new(struct loop *loop, int control_fd, struct holder_asker *asker,
                                  const struct key_holder_events *events, void *arg,
                                  struct err *err)
{
    struct key_holder *h = mem_must_new(struct key_holder);
    h->events = events;
    h->arg = arg;
    h->control_fd = control_fd;
    h->asker = asker;
    loop_timer_init(&h->probe_timer, loop, on_probe, h);
    h->keys = away_keys_new(err);
    h->control_io = loop_io_new(loop, control_fd, on_control, h);
    h->wake_io = loop_io_new(loop, asker->wake_fd, on_wake, h);
    if (h->keys == NULL || h->control_io == NULL || h->wake_io == NULL) {
        if (h->keys != NULL) {
            err_set(err, ERR_SYSTEM, "no memory");
        }
        return key_holder_free(h);
    }
    loop_io_want(h->control_io, LOOP_READ);
    loop_io_want(h->wake_io, LOOP_READ);
    return h;
}

/* The watcher reads nothing else yet: what does not fit waits for it. */
static int order(int control, const struct holder_order *o, int fd, struct err *err)
{
    struct pollfd p = {.fd = control, .events = POLLOUT};
    enum ipc_outcome r;
    while ((r = ipc_send(control, o, sizeof(*o), fd)) == IPC_AGAIN && poll(&p, 1, START_MS) == 1) {
    }
    return r == IPC_OK ? 0
                       : err_set(err, ERR_UNAVAILABLE, "the key holder ended while it was started");
}

static int hand_over(int control, const struct key_holder_options *options, size_t n, int *ret_fds,
                     struct err *err)
{
    const struct holder_order channel = {.version = HOLDER_WIRE_VERSION, .type = HOLDER_CHANNEL};
    const struct holder_order begin = {.version = HOLDER_WIRE_VERSION,
                                       .type = HOLDER_BEGIN,
                                       .count = (uint32_t)n,
                                       .roles = (options->server ? (uint32_t)HOLDER_SERVER : 0) |
                                                (options->client ? (uint32_t)HOLDER_CLIENT : 0)};
    for (size_t i = 0; i < n; i++) {
        int pair[2];
        if (ipc_pair(pair, err) == -1) {
            return -1;
        }
        ret_fds[i] = pair[0];
        int r = order(control, &channel, pair[1], err);
        close(pair[1]);
        if (r == -1) {
            return -1;
        }
    }
    return order(control, &begin, -1, err);
}

static struct holder_asker *start(const struct key_holder_options *options, int control,
                                  struct err *err)
{
    size_t n = options->n_threads < HOLDER_CHANNELS_MAX ? options->n_threads : HOLDER_CHANNELS_MAX;
    int *fds = (int *)mem_must_calloc(n, sizeof(*fds));
    for (size_t i = 0; i < n; i++) {
        fds[i] = -1;
    }
    struct holder_asker *a = NULL;
    if (hand_over(control, options, n, fds, err) == 0) {
        a = holder_asker_new(fds, n, err);
    } else {
        for (size_t i = 0; i < n; i++) {
            if (fds[i] != -1) {
                close(fds[i]);
            }
        }
    }
    free(fds);
    return a;
}

struct key_holder *key_holder_start(struct loop *loop, const struct key_holder_options *options,
                                    const struct key_holder_events *events, void *arg,
                                    struct err *err)
{
    int pair[2];
    if (ipc_pair(pair, err) == -1) {
        return NULL;
    }
    int r = proc_start_helper("postern-key-holder", pair[1], err);
    close(pair[1]);
    struct holder_asker *a = r == 0 ? start(options, pair[0], err) : NULL;
    if (a == NULL) {
        close(pair[0]);
        return NULL;
    }
    return key_holder_new(loop, pair[0], a, events, arg, err);
}

void key_holder_leave_loop(struct key_holder *h)
{
    loop_timer_disarm(&h->probe_timer);
    h->control_io = loop_io_free(h->control_io);
    h->wake_io = loop_io_free(h->wake_io);
}

struct key_holder *key_holder_free(struct key_holder *h)
{
    if (h != NULL) {
        key_holder_leave_loop(h);
        if (h->control_fd != -1) {
            close(h->control_fd);
        }
        away_keys_free(h->keys);
        holder_asker_free(h->asker);
        free(h);
    }
    return NULL;
}

/* --- asking ----------------------------------------------------------------------------------- */
int key_holder_make(struct key_holder *h, EVP_PKEY **ret_key, uint8_t **ret_request,
                    size_t *ret_len, struct err *err)
{
    struct holder_question q = {.type = HOLDER_MAKE};
    struct holder_made made;
    if (h->pid == 0) {
        return err_set(err, ERR_UNAVAILABLE, "there is no key holder now");
    }
    if (holder_asker_ask(h->asker, KEY_HOLDER_MAKE_MS, &q, &made, sizeof(made), err) == -1) {
        return -1;
    }
    if (made.head.result != HOLDER_DONE || made.request_len == 0 ||
        made.request_len > sizeof(made.request)) {
        return err_set(err, ERR_CRYPTO, "the key holder has made no key");
    }
    EVP_PKEY *key = holder_asker_key(h->asker, h->keys, &made, err);
    if (key == NULL) {
        return -1;
    }
    *ret_request = (uint8_t *)mem_must_calloc(1, made.request_len);
    memcpy(*ret_request, made.request, made.request_len);
    *ret_len = made.request_len;
    *ret_key = key;
    return 0;
}

void key_holder_get_status(const struct key_holder *h, struct key_holder_status *ret)
{
    struct holder_asker *a = h->asker;
    *ret = (struct key_holder_status){
        .up = h->pid != 0,
        .answers = h->pid != 0 && h->n_unanswered == 0,
        .lost = h->lost,
        .pid = h->pid,
        .n_started = h->holder,
        .signatures = atomic_load_explicit(&a->signatures, memory_order_relaxed),
        .refused = atomic_load_explicit(&a->refused, memory_order_relaxed),
        .timeouts = atomic_load_explicit(&a->timeouts, memory_order_relaxed)};
}

int key_holder_get_report(struct key_holder *h, struct key_holder_report *ret, struct err *err)
{
    struct holder_report r = {0};
    if (ask_report(h, &r, err) == -1) {
        return -1;
    }
    r.sandbox.seccomp_name[sizeof(r.sandbox.seccomp_name) - 1] = '\0';
    r.landlock.connect_why[sizeof(r.landlock.connect_why) - 1] = '\0';
    r.landlock.missing[sizeof(r.landlock.missing) - 1] = '\0';
    *ret = (struct key_holder_report){.sandbox = r.sandbox,
                                      .landlock = r.landlock,
                                      .signatures = r.signatures,
                                      .refused = r.refused,
                                      .n_keys = r.n_keys,
                                      .all_locked = r.all_locked != 0,
                                      .keys_locked = r.keys_locked != 0};
    return 0;
}
