/* probes: callers, one question each. See probes.h. */
#include "probes_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CALLER_MS = 10000, REQUEST_MAX = 16 * 1024, ACCEPT_BATCH = 16 };

enum step {
    STEP_HEAD,    /* reading the caller's request */
    STEP_CONNECT, /* to the workload */
    STEP_SEND,    /* the question */
    STEP_STATUS,  /* waiting for its first line */
    STEP_HEALTH,  /* waiting for what gRPC's health service says */
    STEP_GONE,    /* freed at the end of the turn */
};

struct caller {
    struct caller *prev, *next;
    struct probes *owner; /* NULL: gone, while this waits for the end of the turn */
    enum step step;
    int fd, workload_fd;
    struct loop_io *io, *workload_io;
    struct probes_grpc *health;
    struct loop_timer timer;
    struct loop_deferred gone;
    const struct conf_probe *probe;
    struct buf request;
    char text[PROBES_HEAD_MAX]; /* the caller's head, then the workload's first bytes */
    size_t len;
};

struct probes {
    struct loop *loop;
    const struct conf_proxy *conf; /* lent */
    int fd;
    struct loop_io *io;
    struct caller *callers;
    size_t n_callers;
};

/* --- the end of a caller ---------------------------------------------------------------------- */
static void caller_free(struct caller *c)
{
    struct probes *p = c->owner;
    loop_timer_disarm(&c->timer);
    loop_io_free(c->io);
    loop_io_free(c->workload_io);
    probes_grpc_free(c->health);
    if (c->workload_fd != -1) {
        close(c->workload_fd);
    }
    close(c->fd);
    buf_reset(&c->request);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else if (p != NULL) {
        p->callers = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    if (p != NULL) {
        p->n_callers--;
    }
    free(c);
}

static void on_gone(struct loop_deferred *d)
{
    caller_free((struct caller *)((char *)d - offsetof(struct caller, gone)));
}

static void end(struct caller *c)
{
    if (c->step != STEP_GONE) {
        c->step = STEP_GONE;
        loop_defer(c->owner->loop, &c->gone);
    }
}

/* A kubelet looks at the status; what fails for its own reasons is a 503. */
static void answer(struct caller *c, unsigned status)
{
    char text[160];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 %u %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status,
                     status < 400 ? "OK" : "Failed");
    /* A new connection's buffer takes it; a caller that is gone does not matter. */
    if (c->step != STEP_GONE && n > 0) {
        (void)!send(c->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)shutdown(c->fd, SHUT_WR);
    }
    end(c);
}

static void on_deadline(void *arg)
{
    struct caller *c = arg;
    if (c->step == STEP_HEAD) {
        end(c);
    } else {
        answer(c, 503);
    }
}

/* --- the workload ----------------------------------------------------------------------------- */
static void read_status(struct caller *c)
{
    unsigned status = 0;
    ssize_t n = recv(c->workload_fd, c->text + c->len, PROBES_STATUS_MAX - c->len, 0);
    if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        answer(c, 503);
        return;
    }
    c->len += (size_t)n;
    switch (probes_read_status((struct str){c->text, c->len}, &status)) {
    case PROBES_MORE:
        return;
    case PROBES_BAD:
        answer(c, 503);
        return;
    case PROBES_DONE:
        answer(c, status < 400 ? 200 : status);
        return;
    }
}

static void send_request(struct caller *c)
{
    ssize_t n = send(c->workload_fd, buf_head(&c->request), buf_len(&c->request), MSG_NOSIGNAL);
    if (n == -1 && errno != EAGAIN && errno != EINTR) {
        answer(c, 503);
        return;
    }
    buf_consume(&c->request, n > 0 ? (size_t)n : 0);
    if (buf_len(&c->request) == 0) {
        c->step = STEP_STATUS;
        loop_io_want(c->workload_io, LOOP_READ);
    }
}

static void on_health(void *arg, bool serving)
{
    answer(arg, serving ? 200 : 503);
}

static void ask_health(struct caller *c)
{
    const char *service = c->probe->service;
    int fd = c->workload_fd;
    c->workload_io = loop_io_free(c->workload_io);
    c->workload_fd = -1; /* the call's from here on */
    c->step = STEP_HEALTH;
    c->health = probes_grpc_ask(c->owner->loop, fd, service != NULL ? service : "", CALLER_MS,
                                on_health, c);
    if (c->health == NULL) {
        answer(c, 503);
    }
}

static void on_workload(void *arg, unsigned ready)
{
    struct caller *c = arg;
    if (c->step == STEP_CONNECT && (ready & LOOP_WRITE) != 0) {
        if (net_dial_error(c->workload_fd) != 0) {
            answer(c, 503);
        } else if (c->probe->protocol == CONF_PROBE_TCP) {
            answer(c, 200);
        } else if (c->probe->protocol == CONF_PROBE_GRPC) {
            ask_health(c);
            return;
        } else {
            c->step = STEP_SEND;
        }
    }
    if (c->step == STEP_SEND && (ready & LOOP_WRITE) != 0) {
        send_request(c);
    }
    if (c->step == STEP_STATUS && (ready & LOOP_READ) != 0) {
        read_status(c);
    }
}

/* At the address of the pod that the kubelet asked, since a workload need not listen on another. */
static void ask(struct caller *c)
{
    struct net_addr to;
    char address[NET_ADDR_TEXT_MAX];
    bool done = false;
    if (!net_local_addr(c->fd, &to)) {
        answer(c, 503);
        return;
    }
    net_addr_set_port(&to, c->probe->port);
    net_addr_text(&to, address);
    if (!probes_write_request(c->probe, address, &c->request)) {
        answer(c, 503);
        return;
    }
    c->workload_fd = net_dial(&to, &done);
    if (c->workload_fd == -1) {
        answer(c, 503);
        return;
    }
    c->workload_io = loop_io_new(c->owner->loop, c->workload_fd, on_workload, c);
    if (c->workload_io == NULL) {
        answer(c, 503);
        return;
    }
    c->len = 0;
    c->step = STEP_CONNECT;
    loop_io_want(c->io, 0);
    loop_io_want(c->workload_io, LOOP_WRITE);
}

/* --- the caller ------------------------------------------------------------------------------- */
static const struct conf_probe *find(const struct conf_proxy *conf, struct str target)
{
    static const struct str prefix = {"/probe/", 7};
    if (!str_has_prefix(target, prefix)) {
        return NULL;
    }
    struct str name = {target.p + prefix.n, target.n - prefix.n};
    for (size_t i = 0; i < conf->probes.n; i++) {
        if (str_eq(name, str_of(conf->probes.items[i].name))) {
            return &conf->probes.items[i];
        }
    }
    return NULL;
}

static void on_caller(void *arg, unsigned ready)
{
    struct caller *c = arg;
    struct str target;
    if (c->step != STEP_HEAD || (ready & LOOP_READ) == 0) {
        return;
    }
    ssize_t n = recv(c->fd, c->text + c->len, sizeof(c->text) - c->len, 0);
    if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        end(c);
        return;
    }
    c->len += (size_t)n;
    switch (probes_read_head((struct str){c->text, c->len}, &target)) {
    case PROBES_MORE:
        return;
    case PROBES_BAD:
        answer(c, 400);
        return;
    case PROBES_DONE:
        c->probe = find(c->owner->conf, target);
        if (c->probe == NULL) {
            answer(c, 404);
        } else {
            ask(c);
        }
        return;
    }
}

static void add_caller(struct probes *p, int fd)
{
    struct caller *c = p->n_callers < PROBES_AT_ONCE ? calloc(1, sizeof(*c)) : NULL;
    if (c == NULL) {
        close(fd);
        return;
    }
    c->owner = p;
    c->fd = fd;
    c->workload_fd = -1;
    c->request.max = REQUEST_MAX;
    c->gone.fn = on_gone;
    loop_timer_init(&c->timer, p->loop, on_deadline, c);
    c->next = p->callers;
    if (p->callers != NULL) {
        p->callers->prev = c;
    }
    p->callers = c;
    p->n_callers++;
    c->io = loop_io_new(p->loop, fd, on_caller, c);
    if (c->io == NULL) {
        end(c);
        return;
    }
    loop_timer_arm(&c->timer, CALLER_MS);
    loop_io_want(c->io, LOOP_READ);
}

static void on_listener(void *arg, unsigned ready)
{
    struct probes *p = arg;
    (void)ready;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct net_addr source;
        int fd = net_accept(p->fd, &source);
        if (fd == -1) {
            return;
        }
        add_caller(p, fd);
    }
}

struct probes *probes_new(struct loop *loop, const struct conf_proxy *conf, struct err *err)
{
    struct probes *p = mem_must_new(struct probes);
    struct net_addr at;
    p->loop = loop;
    p->conf = conf;
    p->fd = -1;
    const struct conf_sockaddr *address = &conf->probes.address;
    if (!net_addr_from((const struct sockaddr *)&address->ss, address->len, &at)) {
        err_set(err, ERR_CONFIG, "not an address for probes");
        return probes_free(p);
    }
    if (net_listen(&at, &p->fd, err) == -1) {
        err_prefix(err, "probes");
        return probes_free(p);
    }
    p->io = loop_io_new(loop, p->fd, on_listener, p);
    if (p->io == NULL) {
        err_set(err, ERR_SYSTEM, "no memory");
        return probes_free(p);
    }
    loop_io_want(p->io, LOOP_READ);
    return p;
}

struct probes *probes_free(struct probes *p)
{
    if (p == NULL) {
        return NULL;
    }
    for (struct caller *c = p->callers, *next; c != NULL; c = next) {
        next = c->next;
        c->prev = c->next = NULL;
        c->owner = NULL;
        if (c->step != STEP_GONE) {
            caller_free(c);
        }
    }
    loop_io_free(p->io);
    if (p->fd != -1) {
        close(p->fd);
    }
    free(p);
    return NULL;
}
