#include "attestor_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/os.h>
#include <stddef.h>
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

static void put(char *text, size_t max, uint16_t *ret_len, const char *from)
{
    POSTERN_ASSERT(agent_ipc_put(text, max, ret_len, str_of(from)));
}

/* a->facts and what is known of the executable, as the keeper is told. */
static struct agent_msg_caller *caller_message(struct attestor *a, enum agent_msg_type type,
                                               const struct attestor_caller *c)
{
    const struct attest_facts *f = &a->facts;
    struct agent_msg_caller *m = &a->caller_msg;

    agent_ipc_init(m, type, 0);
    m->handle = c->handle;
    m->read_ms = f->read_ms;
    m->start_time = f->start_time;
    m->pid = (int32_t)c->process.pid;
    m->uid = f->uid;
    m->gid = f->gid;
    m->n_groups = f->groups.n;
    memcpy(m->groups, f->groups.gids, f->groups.n * sizeof(f->groups.gids[0]));
    m->groups_truncated = f->groups.truncated;
    m->own_view = f->own_view;
    m->contained = f->contained;
    m->runtime = f->cgroup.runtime;
    m->has_sha256 = c->exe.known && c->exe.has;
    if (m->has_sha256) {
        memcpy(m->sha256, c->exe.sha256, sizeof(m->sha256));
    }
    put(m->path, AGENT_PATH_MAX, &m->path_len, f->path_len > 0 ? f->path : "");
    put(m->container_id, AGENT_CONTAINER_ID_MAX, &m->container_id_len, f->cgroup.container_id);
    put(m->pod_uid, AGENT_POD_UID_MAX, &m->pod_uid_len, f->cgroup.pod_uid);
    put(m->unit, AGENT_UNIT_MAX, &m->unit_len, f->cgroup.unit);
    return m;
}

/* Of all that can differ between two messages about a caller, but for the time. */
static void facts_digest(const struct agent_msg_caller *m, uint8_t ret[AGENT_SHA256_SIZE])
{
    const size_t from = offsetof(struct agent_msg_caller, uid);
    struct attest_sha256 s;

    attest_sha256_init(&s);
    /* numbers and lengths; the struct was zeroed, padding too */
    attest_sha256_add(&s, (const uint8_t *)m + from,
                      offsetof(struct agent_msg_caller, path) - from);
    attest_sha256_add(&s, m->path, m->path_len);
    attest_sha256_add(&s, m->container_id, m->container_id_len);
    attest_sha256_add(&s, m->pod_uid, m->pod_uid_len);
    attest_sha256_add(&s, m->unit, m->unit_len);
    attest_sha256_end(&s, ret);
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
    attestor_digests_drop_parked(a->digests);
    while ((c = attestor_callers_any(a->callers)) != NULL) {
        if (drop_caller(a, c, false, err) == -1) {
            return -1;
        }
    }
    return listen_want(a, false, err);
}

static void drop_connection(int sock, const struct attest_process *p)
{
    struct attest_process taken = *p;

    attest_process_close(&taken);
    close(sock);
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

/* A connection whose facts are all there, in a->facts; sock and process are taken. */
static int admit_known(struct attestor *a, int sock, const struct attest_process *p,
                       const struct attestor_digest *exe, struct err *err)
{
    const struct agent_msg_caller *caller;
    struct attestor_caller *c;
    struct agent_msg_connection msg;
    struct epoll_event ev = {.events = EPOLLIN};
    const char *why = "";

    if (!attestor_callers_may_add(a->callers, attestor_account(&a->facts), &why)) {
        log_refused(a, why, sock);
        drop_connection(sock, p);
        return 0;
    }
    c = attestor_callers_add(a->callers, p, &a->facts);
    c->exe = *exe;
    ev.data.u64 = c->handle;
    if (epoll_ctl(a->epoll, EPOLL_CTL_ADD, c->process.pidfd, &ev) == -1) {
        close(sock);
        return err_sys(err, "epoll_ctl");
    }
    a->n_accepted++;
    caller = caller_message(a, AGENT_MSG_ATTESTED, c);
    facts_digest(caller, c->facts_digest);
    /* In this order: see <postern/agent_ipc.h>. */
    if (keeper_send(a, caller, c->process.pidfd, err) == -1) {
        close(sock);
        return -1;
    }
    agent_ipc_init(&msg, AGENT_MSG_CONNECTION, 0);
    msg.handle = c->handle;
    msg.pid = (int32_t)c->process.pid;
    msg.account = c->account;
    msg.uid = a->facts.uid;
    msg.gid = a->facts.gid;
    return service_send(a, &msg, sizeof(msg), sock, err);
}

/* A new connection; sock is taken. */
static int admit(struct attestor *a, int sock, struct err *err)
{
    struct attestor_digest exe = {.known = false};
    struct attest_process p;
    const char *why = "";

    if (attest_process_open(&a->view, sock, &p, &a->facts, &why) != AGENT_ATTEST_OK) {
        log_refused(a, why, sock);
        close(sock);
        return 0;
    }
    if (attestor_digests_wanted(a->digests)) {
        enum attestor_digest_outcome o = attestor_digests_get(a->digests, &p, &a->facts, &exe);

        if (o == ATTESTOR_DIGEST_PENDING &&
            attestor_digests_park(a->digests, sock, &p, &a->facts)) {
            return 0;
        }
        if (o != ATTESTOR_DIGEST_KNOWN) {
            log_refused(a, "too many executables are being read", sock);
            drop_connection(sock, &p);
            return 0;
        }
    }
    return admit_known(a, sock, &p, &exe, err);
}

/* Those whose executable has been read by now. Their facts are read again: time has passed. */
static int admit_parked(struct attestor *a, struct err *err)
{
    struct attestor_parked parked;

    while (!a->waiting && a->service != -1 && attestor_digests_unpark(a->digests, &parked)) {
        struct attestor_digest exe = {.known = false};
        const char *why = "";

        if (attest_process_read(&a->view, &parked.process, &a->facts, &why) != AGENT_ATTEST_OK) {
            log_refused(a, why, parked.sock);
            drop_connection(parked.sock, &parked.process);
            continue;
        }
        /* Another executable by now has no digest yet: the next RPC asks for it. */
        (void)attestor_digests_get(a->digests, &parked.process, &a->facts, &exe);
        if (admit_known(a, parked.sock, &parked.process, &exe, err) == -1) {
            return -1;
        }
    }
    return 0;
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
/* The digest of what the caller runs now. false: it is not there yet. */
static bool update_exe(struct attestor *a, struct attestor_caller *c)
{
    if (!attestor_digests_wanted(a->digests)) {
        c->exe = (struct attestor_digest){.known = false};
        return true;
    }
    if (c->exe.known && a->facts.has_exe && attest_exe_same(&c->exe.key, &a->facts.exe)) {
        return true;
    }
    c->exe = (struct attestor_digest){.known = false};
    return attestor_digests_get(a->digests, &c->process, &a->facts, &c->exe) ==
           ATTESTOR_DIGEST_KNOWN;
}

static int on_reattest(struct attestor *a, const struct agent_msg_ask *ask, struct err *err)
{
    struct attestor_caller *c = attestor_callers_find(a->callers, ask->handle);
    struct agent_msg_reattested answer;
    const char *why = "";

    agent_ipc_init(&answer, AGENT_MSG_REATTESTED, ask->head.request_id);
    answer.handle = ask->handle;
    answer.outcome = AGENT_ATTEST_GONE;
    if (c != NULL) {
        answer.outcome = attest_process_read(&a->view, &c->process, &a->facts, &why);
        if (answer.outcome == AGENT_ATTEST_OK && a->facts.start_time != c->start_time) {
            answer.outcome = AGENT_ATTEST_GONE; /* another process under the same number */
        }
        if (answer.outcome == AGENT_ATTEST_OK && !update_exe(a, c)) {
            answer.outcome = AGENT_ATTEST_FAILED; /* not now: others' questions don't wait for it */
        }
    }
    if (answer.outcome == AGENT_ATTEST_OK) {
        const struct agent_msg_caller *m = caller_message(a, AGENT_MSG_UPDATED, c);
        uint8_t digest[AGENT_SHA256_SIZE];

        facts_digest(m, digest);
        answer.changed = memcmp(digest, c->facts_digest, sizeof(digest)) != 0;
        memcpy(c->facts_digest, digest, sizeof(digest));
        if (keeper_send(a, m, -1, err) == -1) {
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
            if (a->in.head.type == AGENT_MSG_ATTEST_OPTIONS) {
                attestor_digests_limit(a->digests, a->in.attest_options.hash_max_bytes);
                break;
            }
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
        n = epoll_wait(a->epoll, events, EVENTS_MAX, attestor_digests_busy(a->digests) ? 0 : -1);
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
        /* One piece of a file in a turn: nobody waits for a whole one. */
        if (attestor_digests_step(a->digests) && admit_parked(a, err) == -1) {
            return -1;
        }
    }
}
