#include "attestor_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TAG_CONTROL = 1, TAG_KEEPER, TAG_SERVICE, TAG_LISTEN }; /* handles begin above */
enum { EVENTS_MAX = 64, ACCEPTS_MAX = 16, QUESTIONS_MAX = 32, REFUSAL_LOG_MS = 1000 };

/* --- telling ---------------------------------------------------------------------------------- */
/* To the keeper, which reads us before anybody else and never waits for us: waiting here ends. */
static int keeper_send(struct attestor *a, const void *msg, int fd, struct err *err)
{
    struct pollfd p = {.fd = a->keeper, .events = POLLOUT};

    for (;;) {
        switch (agent_ipc_send(a->keeper, msg, fd)) {
        case IPC_OK:
            return 0;
        case IPC_AGAIN:
            (void)poll(&p, 1, 1000);
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            return err_set(err, ERR_UNAVAILABLE, "the keeper is gone");
        }
    }
}

static int drop_service(struct attestor *a, const char *why, struct err *err);

/* To the service; fd is taken. What its queue has no room for waits in a->waiting_msg. */
static int service_send(struct attestor *a, const void *msg, size_t size, int fd, struct err *err)
{
    switch (agent_ipc_send(a->service, msg, fd)) {
    case IPC_OK:
        break;
    case IPC_AGAIN:
        POSTERN_ASSERT(!a->waiting);
        if (msg != &a->waiting_msg) {
            memcpy(&a->waiting_msg, msg, size);
        }
        a->waiting = true;
        a->waiting_fd = fd;
        return 0;
    case IPC_CLOSED:
    case IPC_BAD:
        if (fd != -1) {
            close(fd);
        }
        return drop_service(a, NULL, err);
    }
    if (fd != -1) {
        close(fd);
    }
    return 0;
}

static int waiting_flush(struct attestor *a, struct err *err)
{
    int fd = a->waiting_fd;

    a->waiting = false;
    a->waiting_fd = -1;
    return service_send(a, &a->waiting_msg, sizeof(a->waiting_msg), fd, err);
}

static const struct agent_msg_caller *caller_message(struct attestor *a, enum agent_msg_type type,
                                                     const struct attestor_caller *c,
                                                     uint64_t read_ms)
{
    struct agent_msg_caller *m = &a->caller_msg;

    agent_ipc_init(m, type, 0);
    m->handle = c->handle;
    m->read_ms = read_ms;
    m->start_time = c->start_time;
    m->pid = (int32_t)c->process.pid;
    m->uid = c->uid;
    m->gid = c->gid;
    m->own_view = c->own_view;
    POSTERN_ASSERT(agent_ipc_put(m->path, AGENT_PATH_MAX, &m->path_len, str_of(c->path)));
    return m;
}

/* Forgets a caller: the keeper hears of it first, then, if it is still there, the service. */
static int drop_caller(struct attestor *a, struct attestor_caller *c, bool tell_service,
                       struct err *err)
{
    struct agent_msg_handle gone;

    agent_ipc_init(&gone, AGENT_MSG_GONE, 0);
    gone.handle = c->handle;
    (void)epoll_ctl(a->epoll, EPOLL_CTL_DEL, c->process.pidfd, NULL);
    attestor_callers_remove(a->callers, c);
    if (keeper_send(a, &gone, -1, err) == -1) {
        return -1;
    }
    return tell_service ? service_send(a, &gone, sizeof(gone), -1, err) : 0;
}

static int listen_want(struct attestor *a, bool want, struct err *err)
{
    struct epoll_event ev = {.events = want ? EPOLLIN : 0, .data.u64 = TAG_LISTEN};

    return epoll_ctl(a->epoll, EPOLL_CTL_MOD, a->listen, &ev) == -1 ? err_sys(err, "epoll_ctl") : 0;
}

/* The service went, or broke its protocol: its callers go with it, until the next one comes. */
static int drop_service(struct attestor *a, const char *why, struct err *err)
{
    struct attestor_caller *c;

    if (a->service == -1) {
        return 0;
    }
    if (why != NULL) {
        log_msg(a->log, LOG_ERROR, "service_dropped",
                "the service broke its protocol (%s): its channel is closed", why);
    }
    (void)epoll_ctl(a->epoll, EPOLL_CTL_DEL, a->service, NULL);
    close(a->service);
    a->service = -1;
    if (a->waiting && a->waiting_fd != -1) {
        close(a->waiting_fd);
    }
    a->waiting = false;
    a->waiting_fd = -1;
    while ((c = attestor_callers_any(a->callers)) != NULL) {
        if (drop_caller(a, c, false, err) == -1) {
            return -1;
        }
    }
    return listen_want(a, false, err);
}

/* --- accepting -------------------------------------------------------------------------------- */
static void log_refused(struct attestor *a, const char *why, int sock)
{
    struct ucred cred = {.pid = 0};
    socklen_t len = sizeof(cred);
    struct log_line l;
    uint64_t now_ms = os_now_ms();

    a->n_refused++;
    if (a->refused_ms != 0 && now_ms - a->refused_ms < REFUSAL_LOG_MS) {
        return;
    }
    a->refused_ms = now_ms;
    log_begin(&l, a->log, LOG_WARN, "caller_refused");
    log_str(&l, "reason", why);
    if (sock != -1 && getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
        log_uint(&l, "uid", cred.uid);
        log_int(&l, "pid", cred.pid);
    }
    log_uint(&l, "refused", a->n_refused - a->n_refused_logged);
    log_end(&l);
    a->n_refused_logged = a->n_refused;
}

/* A new connection; sock is taken. */
static int admit(struct attestor *a, int sock, struct err *err)
{
    struct attestor_process p;
    struct attestor_caller *c;
    struct agent_msg_connection msg;
    struct epoll_event ev = {.events = EPOLLIN};
    const char *why = "";

    if (attestor_process_open(&a->view, sock, &p, &a->facts, &why) != AGENT_ATTEST_OK) {
        log_refused(a, why, sock);
        close(sock);
        return 0;
    }
    if (!attestor_callers_may_add(a->callers, a->facts.uid, &why)) {
        log_refused(a, why, sock);
        attestor_process_close(&p);
        close(sock);
        return 0;
    }
    c = attestor_callers_add(a->callers, &p, &a->facts);
    ev.data.u64 = c->handle;
    if (epoll_ctl(a->epoll, EPOLL_CTL_ADD, c->process.pidfd, &ev) == -1) {
        close(sock);
        return err_sys(err, "epoll_ctl");
    }
    a->n_accepted++;
    /* In this order: see <postern/agent_ipc.h>. */
    if (keeper_send(a, caller_message(a, AGENT_MSG_ATTESTED, c, a->facts.read_ms), c->process.pidfd,
                    err) == -1) {
        close(sock);
        return -1;
    }
    agent_ipc_init(&msg, AGENT_MSG_CONNECTION, 0);
    msg.handle = c->handle;
    msg.pid = (int32_t)c->process.pid;
    msg.uid = c->uid;
    msg.gid = c->gid;
    return service_send(a, &msg, sizeof(msg), sock, err);
}

static int accept_turn(struct attestor *a, struct err *err)
{
    for (int i = 0; i < ACCEPTS_MAX && !a->waiting && a->service != -1; i++) {
        int sock = accept4(a->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (sock == -1) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) {
                return 0;
            }
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                log_refused(a, "no descriptors or memory left", -1);
                (void)poll(NULL, 0, 10); /* the connection stays queued: do not spin on it */
                return 0;
            }
            return err_sys(err, "accept");
        }
        if (admit(a, sock, err) == -1) {
            return -1;
        }
    }
    return 0;
}

/* --- questions of the service ----------------------------------------------------------------- */
static int on_reattest(struct attestor *a, const struct agent_msg_ask *ask, struct err *err)
{
    struct attestor_caller *c = attestor_callers_find(a->callers, ask->handle);
    struct agent_msg_reattested answer;
    const char *why = "";

    agent_ipc_init(&answer, AGENT_MSG_REATTESTED, ask->head.request_id);
    answer.handle = ask->handle;
    answer.outcome = AGENT_ATTEST_GONE;
    if (c != NULL) {
        answer.outcome = attestor_process_read(&a->view, &c->process, &a->facts, &why);
        if (answer.outcome == AGENT_ATTEST_OK && a->facts.start_time != c->start_time) {
            answer.outcome = AGENT_ATTEST_GONE; /* another process under the same number */
        }
    }
    if (answer.outcome == AGENT_ATTEST_OK) {
        struct str path = {a->facts.path, a->facts.path_len};

        answer.changed = a->facts.uid != c->uid || a->facts.gid != c->gid ||
                         a->facts.own_view != c->own_view || !str_eq(path, str_of(c->path));
        if (answer.changed) {
            c->uid = a->facts.uid;
            c->gid = a->facts.gid;
            c->own_view = a->facts.own_view;
            free(c->path);
            c->path = mem_must_strndup(path.p, path.n);
        }
        if (keeper_send(a, caller_message(a, AGENT_MSG_UPDATED, c, a->facts.read_ms), -1, err) ==
            -1) {
            return -1;
        }
    }
    return service_send(a, &answer, sizeof(answer), -1, err);
}

static int on_release(struct attestor *a, uint64_t handle, struct err *err)
{
    struct attestor_caller *c = attestor_callers_find(a->callers, handle);

    /* Unknown is no offence: GONE and RELEASE may cross. */
    return c != NULL ? drop_caller(a, c, false, err) : 0;
}

static int service_turn(struct attestor *a, struct err *err)
{
    int fd = -1;

    for (int i = 0; i < QUESTIONS_MAX && a->service != -1 && !a->waiting; i++) {
        int r;

        switch (agent_ipc_recv(a->service, AGENT_WAY_SERVICE_ATTESTOR, &a->in, &fd)) {
        case IPC_OK:
            break;
        case IPC_AGAIN:
            return 0;
        case IPC_CLOSED:
            return drop_service(a, NULL, err);
        case IPC_BAD:
            return drop_service(a, "a bad message", err);
        }
        r = a->in.head.type == AGENT_MSG_REATTEST ? on_reattest(a, &a->in.ask, err)
                                                  : on_release(a, a->in.handle.handle, err);
        if (r == -1) {
            return -1;
        }
    }
    return 0;
}

/* --- the supervisor --------------------------------------------------------------------------- */
static int take_service(struct attestor *a, int fd, struct err *err)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = TAG_SERVICE};

    if (drop_service(a, NULL, err) == -1) {
        close(fd);
        return -1;
    }
    a->service = fd;
    if (epoll_ctl(a->epoll, EPOLL_CTL_ADD, fd, &ev) == -1) {
        return err_sys(err, "epoll_ctl");
    }
    return listen_want(a, true, err);
}

/* 1: the supervisor closed the channel. */
static int control_turn(struct attestor *a, struct err *err)
{
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(a->control, AGENT_WAY_SUPERVISOR_ATTESTOR, &a->in, &fd)) {
        case IPC_OK:
            if (a->in.head.type != AGENT_MSG_SERVICE) {
                return err_set(err, ERR_PROTOCOL, "the supervisor's %s is out of order",
                               agent_msg_name(a->in.head.type));
            }
            if (take_service(a, fd, err) == -1) {
                return -1;
            }
            break;
        case IPC_AGAIN:
            return 0;
        case IPC_CLOSED:
            return 1;
        case IPC_BAD:
            return err_set(err, ERR_PROTOCOL, "the supervisor sent a bad message");
        }
    }
}

/* --- the loop --------------------------------------------------------------------------------- */
static int on_ended(struct attestor *a, uint64_t handle, struct err *err)
{
    struct attestor_caller *c = attestor_callers_find(a->callers, handle);

    return c != NULL ? drop_caller(a, c, true, err) : 0;
}

static int on_event(struct attestor *a, uint64_t tag, struct err *err)
{
    switch (tag) {
    case TAG_CONTROL:
        return control_turn(a, err);
    case TAG_KEEPER: /* it never speaks: this is its end */
        return err_set(err, ERR_UNAVAILABLE, "the keeper is gone");
    case TAG_SERVICE:
        return service_turn(a, err);
    case TAG_LISTEN:
        return accept_turn(a, err);
    default:
        return on_ended(a, tag, err);
    }
}

/* While a message waits for the service, only its queue and the supervisor are looked at. */
static int wait_for_service(struct attestor *a, struct err *err)
{
    struct pollfd fds[3] = {{.fd = a->control, .events = POLLIN},
                            {.fd = a->service, .events = POLLOUT},
                            {.fd = a->keeper, .events = POLLIN}};

    if (poll(fds, 3, -1) == -1 && errno != EINTR) {
        return err_sys(err, "poll");
    }
    if (fds[2].revents != 0) {
        return on_event(a, TAG_KEEPER, err);
    }
    if (fds[0].revents != 0) {
        return control_turn(a, err);
    }
    return fds[1].revents != 0 ? waiting_flush(a, err) : 0;
}

static int start(struct attestor *a, struct err *err)
{
    const struct {
        int fd;
        uint64_t tag;
        uint32_t events;
    } watched[] = {{a->control, TAG_CONTROL, EPOLLIN},
                   {a->keeper, TAG_KEEPER, EPOLLIN},
                   {a->listen, TAG_LISTEN, 0}};

    a->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (a->epoll == -1) {
        return err_sys(err, "epoll");
    }
    for (size_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++) {
        struct epoll_event ev = {.events = watched[i].events, .data.u64 = watched[i].tag};

        if (epoll_ctl(a->epoll, EPOLL_CTL_ADD, watched[i].fd, &ev) == -1) {
            return err_sys(err, "epoll_ctl");
        }
    }
    return 0;
}

int attestor_run(struct attestor *a, struct err *err)
{
    struct epoll_event events[EVENTS_MAX];

    if (start(a, err) == -1) {
        return -1;
    }
    for (;;) {
        int n, r = 0;

        if (a->waiting) {
            r = wait_for_service(a, err);
            if (r != 0) {
                return r == 1 ? 0 : -1;
            }
            continue;
        }
        n = epoll_wait(a->epoll, events, EVENTS_MAX, -1);
        if (n == -1 && errno != EINTR) {
            return err_sys(err, "epoll_wait");
        }
        /* Readiness is level-triggered: what is left when a message has to wait comes again. */
        for (int i = 0; i < n && !a->waiting; i++) {
            r = on_event(a, events[i].data.u64, err);
            if (r != 0) {
                return r == 1 ? 0 : -1;
            }
        }
    }
}
