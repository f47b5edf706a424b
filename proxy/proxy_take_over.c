/* A running proxy's side of a take-over: who asks, the listening sockets, and stepping back. */
#include "proxy_priv.h"
#include "roles_priv.h"

#include <errno.h>
#include <postern/heir_check.h>
#include <postern/os.h>
#include <unistd.h>

enum { READY_MS = 120000 /* for the other one to be ready */ };

static void forget(struct proxy_heir *h)
{
    loop_timer_disarm(&h->timer);
    h->io = loop_io_free(h->io);
    if (h->fd != -1) {
        close(h->fd);
    }
    h->fd = -1;
}

/* This process goes on as if nothing had been. */
static void fail(struct proxy *p, const char *why)
{
    struct log_line l;
    log_begin(&l, p->log, LOG_WARN, "take_over_failed");
    log_int(&l, "pid", p->heir.pid);
    log_str(&l, "message", why);
    log_end(&l);
    forget(&p->heir);
}

static void on_timer(void *arg)
{
    fail((struct proxy *)arg, "the other process was not ready in time");
}

/* --- handing over ----------------------------------------------------------------------------- */

/* The next socket: the workers', then the admin socket's two. -1: that was all. */
static int next_socket(struct proxy *p, struct handover_msg *m)
{
    struct proxy_heir *h = &p->heir;
    for (; h->worker < p->n_workers; h->worker++, h->socket = 0) {
        struct conn_listening l;
        if (conn_worker_listening(p->workers[h->worker], h->socket, &l)) {
            handover_msg_socket(m, l.activated);
            return l.fd;
        }
    }
    for (; h->socket < 3; h->socket++) {
        bool activated = false;
        const struct admin *a = h->socket == 2 ? proxy_targets_health(p) : p->admin;
        int fd = a != NULL ? admin_listener(a, h->socket >= 1, &activated) : -1;
        if (fd != -1) {
            handover_msg_socket(m, activated ? "admin" : NULL);
            return fd;
        }
    }
    return -1;
}

/* As much as there is room for. */
static void send_some(struct proxy *p)
{
    struct proxy_heir *h = &p->heir;
    if (p->draining) {
        fail(p, "this process was told to end meanwhile"); /* workers close their sockets */
        return;
    }
    while (!h->all_sent) {
        struct handover_msg m;
        int fd = next_socket(p, &m);
        if (fd == -1) {
            handover_msg_init(&m, HANDOVER_END);
            m.count = h->n_sent;
            handover_msg_build(&m, version_text());
        }
        switch (handover_send(h->fd, &m, fd)) {
        case IPC_OK:
            break;
        case IPC_AGAIN:
            loop_io_want(h->io, LOOP_WRITE);
            return;
        case IPC_CLOSED:
        case IPC_BAD:
            fail(p, "the other process does not take the sockets");
            return;
        }
        h->all_sent = fd == -1;
        h->n_sent += fd != -1;
        h->socket += fd != -1;
    }
    loop_io_want(h->io, LOOP_READ);
}

/* --- stepping back ---------------------------------------------------------------------------- */

static void step_back(struct proxy *p, const char *build)
{
    struct handover_msg m;
    struct log_line l;
    log_begin(&l, p->log, LOG_INFO, "handed_over");
    log_int(&l, "pid", p->heir.pid);
    log_str(&l, "build", build[0] != '\0' ? build : NULL);
    log_uint(&l, "drain_ms", p->files->conf->timeouts.drain_ms);
    log_end(&l);
    service_manager_main_pid(&p->manager, p->heir.pid);
    admin_release(p->admin);
    if (proxy_targets_health(p) != NULL) {
        admin_release(proxy_targets_health(p));
    }
    proxy_drain_handed_over(p);
    handover_msg_init(&m, HANDOVER_GONE);
    (void)!handover_send(p->heir.fd, &m, -1); /* it goes on without, after a while */
    forget(&p->heir);
}

static void on_heir(void *arg, unsigned ready)
{
    struct proxy *p = (struct proxy *)arg;
    struct proxy_heir *h = &p->heir;
    struct handover_msg m;
    int fd = -1;
    (void)ready;
    if (!h->all_sent) {
        send_some(p);
        return;
    }
    switch (handover_recv(h->fd, &m, &fd, NULL, 0)) {
    case IPC_AGAIN:
        return;
    case IPC_CLOSED:
        fail(p, "the other process ended before it was ready");
        return;
    case IPC_BAD:
        fail(p, "the other process broke the protocol");
        return;
    case IPC_OK:
        break;
    }
    if (fd != -1) {
        close(fd);
    }
    if (m.type == HANDOVER_READY) {
        step_back(p, m.name);
    } else {
        fail(p, "the other process said something out of turn");
    }
}

/* --- the question ----------------------------------------------------------------------------- */

static void tell(const struct proxy *p, bool taken, const struct ucred *who, const char *executable,
                 const char *same)
{
    struct log_line l;
    log_begin(&l, p->log, taken ? LOG_INFO : LOG_WARN,
              taken ? "take_over_asked" : "take_over_refused");
    log_int(&l, "pid", who->pid);
    log_uint(&l, "uid", who->uid);
    log_str(&l, "executable", executable[0] != '\0' ? executable : NULL);
    log_str(&l, "same", same);
    log_str(&l, "build", version_text());
    log_end(&l);
}

/* NULL: it may, as far as this goes. */
static const char *judge(const struct proxy *p, int fd, const struct ucred *who)
{
    char executable[HEIR_PATH_MAX] = "";
    if (p->heir_check == NULL) {
        tell(p, true, who, executable, NULL);
        return NULL;
    }
    enum heir_verdict v = heir_check_ask(p->heir_check, fd, executable);
    bool ok = v == HEIR_SAME_FILE || v == HEIR_SAME_PLACE;
    tell(p, ok, who, executable, heir_verdict_name(v));
    return ok                  ? NULL
           : v == HEIR_UNKNOWN ? "it cannot be seen which executable asks"
                               : "only the same executable may take over";
}

const char *proxy_take_over_asked(void *arg, int fd)
{
    struct proxy *p = (struct proxy *)arg;
    struct proxy_heir *h = &p->heir;
    struct ucred who;
    socklen_t len = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0 || who.uid != geteuid()) {
        return "only a process of the same uid may take over";
    }
    if (p->files->conf->admin.take_over == CONF_TAKE_OVER_NOBODY) {
        return "this process is not taken over: `take_over` under `admin:`";
    }
    if (p->draining || !p->serving) {
        return "this process is not serving";
    }
    if (h->fd != -1) {
        return "another process is taking over";
    }
    const char *why = judge(p, fd, &who);
    if (why != NULL) {
        return why;
    }
    h->io = loop_io_new(p->loop, fd, on_heir, p);
    if (h->io == NULL) {
        return "no memory";
    }
    h->fd = fd;
    h->pid = who.pid;
    h->worker = h->n_sent = 0;
    h->socket = 0;
    h->all_sent = false;
    loop_timer_arm(&h->timer, READY_MS);
    loop_io_want(h->io, LOOP_WRITE);
    return NULL;
}

int proxy_take_over_start(struct proxy *p, struct err *err)
{
    const struct conf_admin *a = &p->files->conf->admin;
    if (a->socket == NULL || a->take_over != CONF_TAKE_OVER_EXECUTABLE) {
        return 0;
    }
    p->heir_check = heir_check_start(err);
    return p->heir_check != NULL ? 0 : -1;
}

void proxy_take_over_init(struct proxy *p)
{
    loop_timer_init(&p->heir.timer, p->loop, on_timer, p);
}

void proxy_take_over_deinit(struct proxy *p)
{
    forget(&p->heir);
}
