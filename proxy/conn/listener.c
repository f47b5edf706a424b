/* Listening sockets, one of each address a worker, and accepting. */
#include "conn_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <unistd.h>

enum { SHORTAGE_PAUSE_MS = 50 };

static bool full(const struct conn_worker *w)
{
    return atomic_load_explicit(&w->shared->open, memory_order_relaxed) >=
           w->current->snapshot->files->conf->limits.connections;
}

/* No descriptors, no memory, or as many connections as are allowed: let the backlog fill, and look
 * again soon. */
static void pause_accepting(struct conn_worker *w)
{
    listener_watch_all(w, false);
    w->accepting = true; /* wanted, but resting */
    loop_timer_arm(&w->accept_timer, SHORTAGE_PAUSE_MS);
}

static void on_readable(void *arg, unsigned ready)
{
    struct worker_listener *l = (struct worker_listener *)arg;
    struct conn_worker *w = l->worker;
    (void)ready;
    for (unsigned i = 0; i < CONN_ACCEPT_BATCH; i++) {
        if (full(w)) {
            pause_accepting(w);
            return;
        }
        struct net_addr source;
        int fd = net_accept(l->fd, &source);
        if (fd == -1) {
            if (errno != EAGAIN) {
                counter_add(&w->counters.accept_errors, 1);
                log_msg(w->log, LOG_ERROR, "accept_failed", "cannot accept: %s",
                        strerrordesc_np(errno));
                pause_accepting(w);
            }
            return;
        }
        struct conn *c = conn_new(w, l->index, fd, &source);
        if (c == NULL) {
            counter_add(&w->counters.accept_errors, 1);
            pause_accepting(w);
            return;
        }
        if (c->direction == CONF_INBOUND) {
            conn_inbound_start(c);
        } else {
            conn_outbound_start(c);
        }
    }
}

int listener_open_all(struct conn_worker *w, const struct snapshot_files *files, struct err *err)
{
    w->listeners =
        (struct worker_listener *)mem_must_calloc(files->n_listeners + 1, sizeof(*w->listeners));
    w->n_listeners = files->n_listeners;
    for (size_t i = 0; i < w->n_listeners; i++) {
        w->listeners[i] = (struct worker_listener){.worker = w, .index = i, .fd = -1};
    }
    for (size_t i = 0; i < w->n_listeners; i++) {
        struct worker_listener *l = &w->listeners[i];
        if (net_listen(&files->listeners[i].address, &l->fd, err) == -1) {
            return err_prefix(err, "listener %s", files->listeners[i].conf->name);
        }
        l->io = loop_io_new(w->loop, l->fd, on_readable, l);
        if (l->io == NULL) {
            return err_set(err, ERR_SYSTEM, "no memory for a listener");
        }
    }
    return 0;
}

void listener_watch_all(struct conn_worker *w, bool on)
{
    w->accepting = on;
    for (size_t i = 0; i < w->n_listeners; i++) {
        if (w->listeners[i].io != NULL) {
            loop_io_want(w->listeners[i].io, on ? LOOP_READ : 0U);
        }
    }
}

void listener_close(struct conn_worker *w, bool inbound_only)
{
    for (size_t i = 0; i < w->n_listeners; i++) {
        struct worker_listener *l = &w->listeners[i];
        const struct snapshot_listener *s = &w->current->snapshot->files->listeners[l->index];
        if (l->fd == -1 || (inbound_only && s->conf->direction != CONF_INBOUND)) {
            continue;
        }
        l->io = loop_io_free(l->io);
        close(l->fd);
        l->fd = -1;
    }
}
