/* Listening sockets, one of each address a worker, and accepting. */
#include "conn_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { SHORTAGE_PAUSE_MS = 50 };

bool listener_is_full(const struct conn_worker *w)
{
    return atomic_load_explicit(&w->shared->open, memory_order_relaxed) >=
           w->current->snapshot->files->conf->limits.connections;
}

/* The others go on. */
bool listener_has_all(const struct conn_worker *w, size_t listener)
{
    uint32_t max = w->current->snapshot->files->listeners[listener].conf->limits.connections;
    return max > 0 && w->shared->listeners != NULL &&
           atomic_load_explicit(&w->shared->listeners[listener].open, memory_order_relaxed) >= max;
}

/* Whether one more may come so soon. Who may not is refused, since waiting in the queue would only
 * make more of them. */
static bool within_rate(const struct worker_listener *l)
{
    const struct conn_worker *w = l->worker;
    const struct conf_listener *c = w->current->snapshot->files->listeners[l->index].conf;
    if (c->limits.connect_rate == 0 || w->shared->listeners == NULL) {
        return true;
    }
    struct conn_shared_listener *shared = &w->shared->listeners[l->index];
    uint32_t burst = c->limits.connect_burst > 0 ? c->limits.connect_burst : c->limits.connect_rate;
    if (rate_take(&shared->rate, loop_now_ms(w->loop) * 1000, c->limits.connect_rate, burst)) {
        return true;
    }
    atomic_fetch_add_explicit(&shared->over_rate, 1, memory_order_relaxed);
    return false;
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
        if (listener_is_full(w)) {
            pause_accepting(w);
            return;
        }
        if (listener_has_all(w, l->index)) {
            loop_io_want(l->io, 0);
            loop_timer_arm(&w->accept_timer, SHORTAGE_PAUSE_MS);
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
        if (!within_rate(l)) {
            net_reset(fd);
            continue;
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

/* --- opening ---------------------------------------------------------------------------------- */

static int add(struct conn_worker *w, size_t index, int fd, const struct service_socket *from,
               struct err *err)
{
    w->listeners = (struct worker_listener *)mem_must_realloc(
        w->listeners, (w->n_listeners + 1) * sizeof(*w->listeners));
    struct worker_listener *l = &w->listeners[w->n_listeners++];
    *l = (struct worker_listener){.worker = w, .index = index, .fd = fd};
    if (from != NULL && from->activated) {
        l->activated = mem_must_strdup(from->name);
    }
    if (fd == -1) {
        return err_sys(err, "cannot take a listening socket over");
    }
    return 0;
}

/* The next socket from `from` on that this listener is to accept from. */
static struct service_socket *find(const struct service_sockets *inherited,
                                   const struct snapshot_listener *l, size_t from, size_t *ret)
{
    const struct conf_bind *bind = &l->conf->bind;
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    switch (bind->kind) {
    case CONF_BIND_SYSTEMD:
        return service_sockets_find_name(
            inherited, from, bind->activation != NULL ? bind->activation : l->conf->name, ret);
    case CONF_BIND_UNIX:
        memcpy(path.sun_path, bind->path, strnlen(bind->path, sizeof(path.sun_path) - 1));
        return service_sockets_find(inherited, from, (const struct sockaddr *)&path, sizeof(path),
                                    ret);
    case CONF_BIND_ADDRESS:
        break;
    }
    return service_sockets_find(inherited, from, &l->address.sa, l->address.len, ret);
}

/* Sockets that are not opened here. */
static int missing(const struct snapshot_listener *l, struct err *err)
{
    const struct conf_bind *bind = &l->conf->bind;
    err_set(err, ERR_CONFIG, "the service manager opened no socket '%s'",
            bind->activation != NULL ? bind->activation : l->conf->name);
    return err_advise(err, "name it so by FileDescriptorName= in a .socket unit, or give the "
                           "listener an address");
}

/* What is refused of an address in the file is refused of one from elsewhere. */
static int check_reach(const struct snapshot_listener *l, const struct service_socket *s,
                       struct err *err)
{
    struct net_addr a;
    char text[NET_ADDR_TEXT_MAX];
    if (l->conf->type != CONF_LISTENER_CLIENT || l->conf->allow_remote_clients ||
        !net_addr_from((const struct sockaddr *)&s->address, s->address_len, &a) ||
        net_addr_is_loopback(&a)) {
        return 0;
    }
    err_set(err, ERR_CONFIG, "other machines can reach %s", net_addr_text(&a, text));
    err_expected(err, "a loopback address or a Unix socket");
    return err_advise(err, "whoever reaches it speaks with this gateway's certificate; "
                           "`allow_remote_clients: true` says that this is meant");
}

/* Sockets that there are already are dealt out in turn; where there are fewer than workers, some
 * workers share. *ret_n: how many there are of this listener. */
static int take_inherited(struct conn_worker *w, const struct service_sockets *inherited,
                          const struct snapshot_listener *l, size_t index, size_t *ret_n,
                          struct err *err)
{
    struct service_socket *s;
    size_t n = 0;
    for (size_t i = 0; (s = find(inherited, l, i, &i)) != NULL; i++, n++) {
        s->used = true;
        if (check_reach(l, s, err) == -1) {
            return -1;
        }
        if (n % w->n_workers == w->index) {
            if (add(w, index, fcntl(s->fd, F_DUPFD_CLOEXEC, 0), s, err) == -1) {
                return -1;
            }
        }
    }
    *ret_n = n;
    if (n == 0 || n > w->index) {
        return 0;
    }
    size_t at = 0;
    s = find(inherited, l, 0, &at);
    for (size_t k = w->index % n; k > 0; k--) {
        s = find(inherited, l, at + 1, &at);
    }
    return add(w, index, fcntl(s->fd, F_DUPFD_CLOEXEC, 0), s, err);
}

static int open_one(struct conn_worker *w, const struct service_sockets *inherited,
                    const struct snapshot_listener *l, size_t index, struct err *err)
{
    size_t n = 0;
    int fd = -1;
    if (take_inherited(w, inherited, l, index, &n, err) == -1) {
        return -1;
    }
    if (n > 0) {
        return 0;
    }
    if (l->conf->bind.kind == CONF_BIND_SYSTEMD) {
        return missing(l, err);
    }
    return net_listen(&l->address, &fd, err) == -1 ? -1 : add(w, index, fd, NULL, err);
}

int listener_open_all(struct conn_worker *w, const struct snapshot_files *files,
                      const struct service_sockets *inherited, struct err *err)
{
    for (size_t i = 0; i < files->n_listeners; i++) {
        if (open_one(w, inherited, &files->listeners[i], i, err) == -1) {
            return err_prefix(err, "listener %s", files->listeners[i].conf->name);
        }
    }
    /* Only now, since the array does not move any more. */
    for (size_t i = 0; i < w->n_listeners; i++) {
        struct worker_listener *l = &w->listeners[i];
        const struct conf_listener *conf = files->listeners[l->index].conf;
        if (conf->transparent && net_listen_transparent(l->fd, err) == -1) {
            return err_prefix(err, "listener %s", conf->name);
        }
        l->io = loop_io_new(w->loop, l->fd, on_readable, l);
        if (l->io == NULL) {
            return err_set(err, ERR_SYSTEM, "no memory for a listener");
        }
    }
    return 0;
}

bool conn_worker_listening(const struct conn_worker *w, size_t i, struct conn_listening *ret)
{
    if (i >= w->n_listeners) {
        return false;
    }
    *ret = (struct conn_listening){.listener = w->listeners[i].index,
                                   .fd = w->listeners[i].fd,
                                   .activated = w->listeners[i].activated};
    return true;
}

void listener_free_all(struct conn_worker *w)
{
    for (size_t i = 0; i < w->n_listeners; i++) {
        free(w->listeners[i].activated);
    }
    free(w->listeners);
}

/* --- accepting or not ------------------------------------------------------------------------- */

void listener_watch_all(struct conn_worker *w, bool on)
{
    w->accepting = on;
    for (size_t i = 0; i < w->n_listeners; i++) {
        if (w->listeners[i].io != NULL) {
            loop_io_want(w->listeners[i].io, on ? LOOP_READ : 0U);
        }
    }
}

void listener_close(struct conn_worker *w, enum listener_which which)
{
    for (size_t i = 0; i < w->n_listeners; i++) {
        struct worker_listener *l = &w->listeners[i];
        const struct snapshot_listener *s = &w->current->snapshot->files->listeners[l->index];
        if (l->fd == -1 || (which == LISTENERS_INBOUND && s->conf->direction != CONF_INBOUND) ||
            (which == LISTENERS_ACTIVATED && l->activated == NULL)) {
            continue;
        }
        l->io = loop_io_free(l->io);
        close(l->fd);
        l->fd = -1;
    }
}
