#include <postern/admin.h>

#include "admin_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ADMIN_RETRY_MS = 200, ADMIN_DISCARD_MAX = 65536 };

struct listener {
    struct admin *admin;
    struct loop_io *io;
    struct loop_timer retry; /* after accept() found no descriptor or memory */
    int fd;
    bool http;
    bool activated;    /* a service manager opened it */
    uid_t *allow_uids; /* owned */
    size_t n_allow_uids;
    size_t n_clients;
};

enum client_state { CLIENT_READS, CLIENT_WRITES, CLIENT_LINGERS, CLIENT_CLOSED };

struct client {
    struct loop_deferred deferred; /* first: the deferred free casts back */
    struct client *next;
    struct client *prev;
    struct listener *listener;
    struct loop_io *io;
    struct loop_timer deadline;
    int fd;
    enum client_state state;
    size_t discarded; /* bytes after the question */
    struct buf in;
    struct buf out;
};

struct admin {
    struct loop *loop;
    struct admin_document *documents;
    size_t n_documents;
    void *arg;
    char *socket_path;   /* ours to remove; NULL: not */
    bool paused;         /* nobody is served */
    bool path_is_others; /* of a process that still serves: not ours to remove yet */
    const char *channel_name;
    const char *(*channel)(void *arg, int fd);
    struct listener listeners[2]; /* the Unix socket, HTTP */
    struct client *clients;
};
enum { LISTENER_SOCKET, LISTENER_HTTP, N_LISTENERS };

/* --- clients ---------------------------------------------------------------------------------- */
static void free_client(struct loop_deferred *d)
{
    struct client *c = (struct client *)(void *)d;
    loop_io_free(c->io);
    close(c->fd);
    buf_reset(&c->in);
    buf_reset(&c->out);
    free(c);
}

static void accept_more(struct listener *l)
{
    bool full = l->n_clients >= ADMIN_CLIENTS_MAX;
    if (l->io != NULL) {
        loop_io_want(l->io, full || l->retry.due_ms != 0 || l->admin->paused ? 0 : LOOP_READ);
    }
}

/* May be called twice. The rest is freed at the end of the turn, when no callback of it runs. */
static void close_client(struct client *c)
{
    if (c->state == CLIENT_CLOSED) {
        return;
    }
    struct listener *l = c->listener;
    struct admin *a = l->admin;
    c->state = CLIENT_CLOSED;
    loop_timer_disarm(&c->deadline);
    if (c->io != NULL) {
        loop_io_want(c->io, 0);
    }
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        a->clients = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    l->n_clients--;
    accept_more(l); /* unless the listener was released meanwhile */
    loop_defer(a->loop, &c->deferred);
}

static void on_deadline(void *arg)
{
    close_client(arg);
}

static bool make_document(struct admin *a, struct str name, bool *ret_known, struct buf *out)
{
    *ret_known = false;
    for (size_t i = 0; i < a->n_documents; i++) {
        const struct admin_document *d = &a->documents[i];
        struct str own = str_of(d->name);
        if (d->named != NULL && str_has_prefix(name, own)) {
            *ret_known = true;
            return d->named(a->arg, (struct str){name.p + own.n, name.n - own.n}, out);
        }
        if (d->named == NULL && str_eq(name, own)) {
            *ret_known = true;
            return d->fn(a->arg, out);
        }
    }
    return false;
}

static bool is_health(const struct admin *a, struct str name)
{
    for (size_t i = 0; i < a->n_documents; i++) {
        if (a->documents[i].health && str_eq(name, str_of(a->documents[i].name))) {
            return true;
        }
    }
    return false;
}

static const char *http_reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 431:
        return "Request Header Fields Too Large";
    default:
        return "Service Unavailable";
    }
}

/* RFC 9110 section 6.6.1: a server with a clock sends the date. */
static void http_date(char *ret_text, size_t size)
{
    time_t now = (time_t)os_wall_s();
    struct tm tm;
    if (gmtime_r(&now, &tm) == NULL ||
        strftime(ret_text, size, "%a, %d %b %Y %H:%M:%S GMT", &tm) == 0) {
        snprintf(ret_text, size, "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}

/* The answers return false if there is no memory for them. */
static bool answer_http(struct client *c, int status, struct str name)
{
    struct admin *a = c->listener->admin;
    struct buf body = BUF_INIT(ADMIN_DOCUMENT_MAX);
    bool known = false;
    const char *type = "text/plain; charset=utf-8";
    bool health = status == 200 && is_health(a, name);
    if (health) {
        status = make_document(a, name, &known, &body) ? 200 : 503;
        type = "application/json";
    } else if (status == 200 &&
               (str_eq(name, STR_LIT("metrics")) || str_eq(name, STR_LIT("ready")))) {
        if (!make_document(a, name, &known, &body)) {
            status = known ? 503 : 404;
        } else if (str_eq(name, STR_LIT("metrics"))) {
            type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        }
    } else if (status == 200) {
        status = 404;
    }
    bool ok = true;
    if (status != 200 && !health) {
        buf_reset(&body);
        ok = buf_printf(&body, "%s\n", http_reason(status));
    }
    char date[40];
    http_date(date, sizeof(date));
    ok = ok &&
         buf_printf(&c->out,
                    "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                    "Cache-Control: no-store\r\nConnection: close\r\n%s\r\n",
                    status, http_reason(status), date, type, buf_len(&body),
                    status == 405 ? "Allow: GET\r\n" : "") &&
         buf_append_str(&c->out, buf_str(&body));
    buf_reset(&body);
    return ok;
}

/* Hands a copy of the descriptor on: the connection lives as long as that. What came behind the
 * question would be lost. */
static const char *hand_on(struct client *c)
{
    struct admin *a = c->listener->admin;
    struct str in = buf_str(&c->in);
    if (memchr(in.p, '\n', in.n) != in.p + in.n - 1) {
        return "something follows the question";
    }
    int fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
    const char *why = fd != -1 ? a->channel(a->arg, fd) : "no descriptor is left";
    if (why != NULL && fd != -1) {
        close(fd);
    }
    return why;
}

static bool answer_line(struct client *c, struct str name)
{
    struct admin *a = c->listener->admin;
    bool known = false;
    if (a->channel_name != NULL && str_eq(name, str_of(a->channel_name))) {
        const char *why = hand_on(c);
        return why != NULL && buf_printf(&c->out, ADMIN_ERROR_PREFIX "%s\"}\n", why);
    }
    if (make_document(a, name, &known, &c->out)) {
        return true;
    }
    buf_reset(&c->out);
    if (known) {
        return buf_printf(&c->out, ADMIN_ERROR_PREFIX "not available now\"}\n");
    }
    bool ok = buf_printf(&c->out, ADMIN_ERROR_PREFIX "no such document\",\"expected\":[");
    for (size_t i = 0; ok && i < a->n_documents; i++) {
        ok = buf_printf(&c->out, "%s\"%s\"", i > 0 ? "," : "", a->documents[i].name);
    }
    return ok && buf_printf(&c->out, "]}\n");
}

enum request { REQUEST_MORE, REQUEST_ANSWERED, REQUEST_FAILED };

static enum request parse_request(struct client *c)
{
    struct str in = buf_str(&c->in);
    struct str name = STR_NONE;
    bool ok;
    if (c->listener->http) {
        int status = 400;
        if (admin_parse_http(in.p, in.n, &name, &status) == ADMIN_MORE) {
            return REQUEST_MORE;
        }
        ok = answer_http(c, status, name);
    } else {
        enum admin_parse p = admin_parse_line(in.p, in.n, &name);
        if (p == ADMIN_MORE) {
            return REQUEST_MORE;
        }
        ok = p == ADMIN_OK ? answer_line(c, name)
                           : buf_printf(&c->out, ADMIN_ERROR_PREFIX "expected GET NAME\"}\n");
    }
    return ok ? REQUEST_ANSWERED : REQUEST_FAILED;
}

static void read_request(struct client *c)
{
    uint8_t *to = buf_reserve(&c->in, ADMIN_HEAD_MAX - buf_len(&c->in));
    ssize_t n = to != NULL ? recv(c->fd, to, ADMIN_HEAD_MAX - buf_len(&c->in), MSG_DONTWAIT) : 0;
    if (n == -1 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        close_client(c);
        return;
    }
    buf_commit(&c->in, (size_t)n);
    enum request r = parse_request(c);
    if (r == REQUEST_FAILED) {
        close_client(c);
    } else if (r == REQUEST_ANSWERED) {
        c->state = CLIENT_WRITES;
    }
}

static void write_answer(struct client *c)
{
    while (buf_len(&c->out) > 0) {
        ssize_t n = send(c->fd, buf_head(&c->out), buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == -1) {
            if (errno == EAGAIN) {
                loop_io_want(c->io, LOOP_WRITE);
            } else {
                close_client(c);
            }
            return;
        }
        buf_consume(&c->out, (size_t)n);
    }
    /* To close with bytes unread would send a reset that can overtake the answer: wait for the
     * client to end, within the deadline. */
    shutdown(c->fd, SHUT_WR);
    buf_reset(&c->out);
    c->state = CLIENT_LINGERS;
    loop_io_want(c->io, LOOP_READ);
}

static void discard(struct client *c)
{
    uint8_t piece[4096];
    ssize_t n = recv(c->fd, piece, sizeof(piece), MSG_DONTWAIT);
    if (n == -1 && errno == EAGAIN) {
        return;
    }
    c->discarded += n > 0 ? (size_t)n : 0;
    if (n <= 0 || c->discarded > ADMIN_DISCARD_MAX) {
        close_client(c);
    }
}

static void on_client(void *arg, unsigned ready)
{
    struct client *c = arg;
    (void)ready;
    if (c->state == CLIENT_READS) {
        read_request(c);
    } else if (c->state == CLIENT_LINGERS) {
        discard(c);
    }
    if (c->state == CLIENT_WRITES) {
        write_answer(c);
    }
}

/* --- accepting -------------------------------------------------------------------------------- */
static bool may_ask(const struct listener *l, int fd)
{
    struct ucred who;
    socklen_t len = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0) {
        return false;
    }
    for (size_t i = 0; i < l->n_allow_uids; i++) {
        if (l->allow_uids[i] == who.uid) {
            return true;
        }
    }
    return false;
}

/* Told at once, so that a stranger takes no place among the clients. */
static void refuse_stranger(int fd)
{
    static const char no[] = ADMIN_ERROR_PREFIX "this uid may not ask\"}\n";
    char question[256];
    ssize_t ignored = send(fd, no, sizeof(no) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    ignored = recv(fd, question, sizeof(question), MSG_DONTWAIT); /* unread, it would be a reset */
    (void)ignored;
    close(fd);
}

static void on_retry(void *arg)
{
    accept_more(arg);
}

static void on_accept(void *arg, unsigned ready)
{
    struct listener *l = arg;
    struct admin *a = l->admin;
    (void)ready;
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -1) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* The listener stays readable: without a pause the loop would spin. */
            loop_timer_arm(&l->retry, ADMIN_RETRY_MS);
            accept_more(l);
        }
        return;
    }
    if (!l->http && !may_ask(l, fd)) {
        refuse_stranger(fd);
        return;
    }
    struct client *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        close(fd);
        return;
    }
    c->deferred.fn = free_client;
    c->listener = l;
    c->fd = fd;
    c->in.max = ADMIN_HEAD_MAX;
    c->out.max = ADMIN_DOCUMENT_MAX + ADMIN_HEAD_MAX;
    c->next = a->clients;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    a->clients = c;
    l->n_clients++;
    loop_timer_init(&c->deadline, a->loop, on_deadline, c);
    loop_timer_arm(&c->deadline, ADMIN_DEADLINE_MS);
    c->io = loop_io_new(a->loop, fd, on_client, c);
    if (c->io == NULL) {
        close_client(c);
        return;
    }
    loop_io_want(c->io, LOOP_READ);
    accept_more(l);
}

/* --- life ------------------------------------------------------------------------------------- */
int admin_add_listener(struct admin *a, int fd, bool http, const uid_t *allow_uids,
                       size_t n_allow_uids, struct err *err)
{
    struct listener *l = &a->listeners[http ? LISTENER_HTTP : LISTENER_SOCKET];
    os_autofd int taken = fd;
    if (l->io != NULL) {
        return err_set(err, ERR_LIMIT, "there is such an admin listener already");
    }
    if (os_set_nonblock(fd) != 0) {
        return err_sys(err, "cannot use an admin listener");
    }
    l->io = loop_io_new(a->loop, fd, on_accept, l);
    if (l->io == NULL) {
        return err_set(err, ERR_SYSTEM, "no memory for a listener");
    }
    l->fd = taken;
    taken = -1;
    if (!http) {
        l->n_allow_uids = n_allow_uids;
        l->allow_uids = mem_must_calloc(n_allow_uids, sizeof(*l->allow_uids));
        for (size_t i = 0; i < n_allow_uids; i++) {
            l->allow_uids[i] = allow_uids[i];
        }
    }
    accept_more(l);
    return 0;
}

/* A copy of one that there is already; NULL: there is none. */
static struct service_socket *find_inherited(const struct admin_options *o,
                                             const struct sockaddr *addr, socklen_t len)
{
    size_t i;
    return service_sockets_find(o->inherited, 0, addr, len, &i);
}

static int copy_inherited(struct admin *a, struct service_socket *s, bool http, int *ret_fd,
                          struct err *err)
{
    int fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
    if (fd == -1) {
        return err_sys(err, "cannot use an admin listener");
    }
    s->used = true;
    a->listeners[http ? LISTENER_HTTP : LISTENER_SOCKET].activated = s->activated;
    *ret_fd = fd;
    return 0;
}

static int open_socket(struct admin *a, const struct admin_options *o, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr;
    if (admin_unix_address(o->socket_path, &addr, err) != 0) {
        return -1;
    }
    struct service_socket *s = find_inherited(o, (const struct sockaddr *)&addr, sizeof(addr));
    if (s != NULL
            ? copy_inherited(a, s, false, ret_fd, err) != 0
            : admin_open_socket(o->socket_path, o->allow_uids, o->n_allow_uids, ret_fd, err) != 0) {
        return -1;
    }
    if (s == NULL || !s->activated) {
        a->socket_path = mem_must_strdup(o->socket_path);
        a->path_is_others = s != NULL && o->paused;
    }
    return 0;
}

static int open_http(struct admin *a, const struct admin_options *o, int *ret_fd, struct err *err)
{
    struct service_socket *s = find_inherited(o, o->http, o->http_len);
    return s != NULL ? copy_inherited(a, s, true, ret_fd, err)
                     : admin_open_http(o->http, o->http_len, ret_fd, err);
}

static int open_all(struct admin *a, const struct admin_options *o, struct err *err)
{
    int fd = -1;
    if (o->socket_path != NULL &&
        (open_socket(a, o, &fd, err) != 0 ||
         admin_add_listener(a, fd, false, o->allow_uids, o->n_allow_uids, err) != 0)) {
        return -1;
    }
    if (o->http != NULL) {
        return open_http(a, o, &fd, err) != 0 ? -1 : admin_add_listener(a, fd, true, NULL, 0, err);
    }
    return 0;
}

struct admin *admin_new(struct loop *loop, const struct admin_options *options, struct err *err)
{
    struct admin *a = mem_must_new(struct admin);
    a->loop = loop;
    a->arg = options->arg;
    a->paused = options->paused;
    a->channel_name = options->channel_name;
    a->channel = options->channel;
    a->n_documents = options->n_documents;
    a->documents = mem_must_calloc(a->n_documents, sizeof(*a->documents));
    for (size_t i = 0; i < a->n_documents; i++) {
        a->documents[i] = options->documents[i];
    }
    for (size_t i = 0; i < N_LISTENERS; i++) {
        a->listeners[i] = (struct listener){.admin = a, .fd = -1, .http = i == LISTENER_HTTP};
        loop_timer_init(&a->listeners[i].retry, loop, on_retry, &a->listeners[i]);
    }
    return open_all(a, options, err) == 0 ? a : admin_free(a);
}

void admin_start(struct admin *a)
{
    a->paused = false;
    a->path_is_others = false;
    for (size_t i = 0; i < N_LISTENERS; i++) {
        accept_more(&a->listeners[i]);
    }
}

void admin_release(struct admin *a)
{
    for (size_t i = 0; i < N_LISTENERS; i++) {
        struct listener *l = &a->listeners[i];
        loop_timer_disarm(&l->retry);
        l->io = loop_io_free(l->io);
        if (l->fd != -1) {
            close(l->fd);
            l->fd = -1;
        }
    }
    free(a->socket_path);
    a->socket_path = NULL;
}

int admin_listener(const struct admin *a, bool http, bool *ret_activated)
{
    const struct listener *l = &a->listeners[http ? LISTENER_HTTP : LISTENER_SOCKET];
    *ret_activated = l->activated;
    return l->fd;
}

struct admin *admin_free(struct admin *a)
{
    if (a == NULL) {
        return NULL;
    }
    while (a->clients != NULL) {
        close_client(a->clients);
    }
    for (size_t i = 0; i < N_LISTENERS; i++) {
        struct listener *l = &a->listeners[i];
        loop_timer_disarm(&l->retry);
        loop_io_free(l->io);
        if (l->fd != -1) {
            close(l->fd);
        }
        free(l->allow_uids);
    }
    if (a->socket_path != NULL && !a->path_is_others) {
        unlink(a->socket_path);
    }
    free(a->socket_path);
    free(a->documents);
    free(a);
    return NULL;
}
