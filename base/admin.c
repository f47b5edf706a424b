#include <postern/admin.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    ADMIN_CLIENTS_MAX = 32,
    ADMIN_HEAD_MAX = 4096,
    ADMIN_DOCUMENT_MAX = 16 << 20,
    ADMIN_DEADLINE_MS = 5000,
};

struct listener {
    struct admin *admin;
    struct loop_io *io;
    int fd;
    bool http;
};

struct client {
    struct loop_deferred deferred; /* first: the deferred free casts back */
    struct client *next;
    struct client *prev;
    struct admin *admin;
    struct loop_io *io;
    struct loop_timer deadline;
    int fd;
    bool http;
    bool answering;
    bool closed;
    struct buf in;
    struct buf out;
};

struct admin {
    struct loop *loop;
    struct admin_document *documents;
    size_t n_documents;
    uid_t *allow_uids;
    size_t n_allow_uids;
    void *arg;
    char *socket_path; /* ours to remove */
    struct listener listeners[2];
    size_t n_listeners;
    struct client *clients;
    size_t n_clients;
};

/* --- clients ---------------------------------------------------------------------------------- */
static void free_client(struct loop_deferred *d)
{
    struct client *c = (struct client *)(void *)d;
    buf_reset(&c->in);
    buf_reset(&c->out);
    free(c);
}

static void close_client(struct client *c)
{
    if (c->closed) {
        return;
    }
    c->closed = true;
    loop_timer_disarm(&c->deadline);
    c->io = loop_io_free(c->io);
    close(c->fd);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        c->admin->clients = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    c->admin->n_clients--;
    loop_defer(c->admin->loop, &c->deferred);
}

static void on_deadline(void *arg)
{
    close_client(arg);
}

static bool make_document(struct admin *a, struct str name, bool *ret_known, struct buf *out)
{
    *ret_known = false;
    for (size_t i = 0; i < a->n_documents; i++) {
        if (str_eq(name, str_of(a->documents[i].name))) {
            *ret_known = true;
            return a->documents[i].fn(a->arg, out);
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

static void answer_http(struct client *c, int status, struct str name)
{
    struct buf body = BUF_INIT(ADMIN_DOCUMENT_MAX);
    bool known = false;
    const char *type = "text/plain; charset=utf-8";
    if (status == 200 && (str_eq(name, STR_LIT("metrics")) || str_eq(name, STR_LIT("ready")))) {
        if (!make_document(c->admin, name, &known, &body)) {
            status = known ? 503 : 404;
        } else if (str_eq(name, STR_LIT("metrics"))) {
            type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        }
    } else if (status == 200) {
        status = 404;
    }
    if (status != 200) {
        buf_reset(&body);
        buf_printf(&body, "%s\n", http_reason(status));
    }
    buf_printf(
        &c->out,
        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n",
        status, http_reason(status), type, buf_len(&body), status == 405 ? "Allow: GET\r\n" : "");
    buf_append(&c->out, buf_head(&body), buf_len(&body));
    buf_reset(&body);
}

static void answer_line(struct client *c, struct str name)
{
    bool known = false;
    if (!make_document(c->admin, name, &known, &c->out)) {
        buf_reset(&c->out);
        buf_printf(&c->out, "{\"error\":\"%s\"}\n",
                   known ? "not available now" : "no such document");
    }
}

/* True once an answer stands in out. */
static bool parse_request(struct client *c)
{
    struct str name = STR_NONE;
    const char *data = (const char *)buf_head(&c->in);
    if (c->http) {
        int status = 400;
        enum admin_parse p = admin_parse_http(data, buf_len(&c->in), &name, &status);
        if (p == ADMIN_MORE) {
            return false;
        }
        answer_http(c, status, name);
        return true;
    }
    enum admin_parse p = admin_parse_line(data, buf_len(&c->in), &name);
    if (p == ADMIN_MORE) {
        return false;
    }
    if (p == ADMIN_OK) {
        answer_line(c, name);
    } else {
        buf_printf(&c->out, "{\"error\":\"expected GET NAME\"}\n");
    }
    return true;
}

static void write_answer(struct client *c)
{
    while (buf_len(&c->out) > 0) {
        ssize_t n = send(c->fd, buf_head(&c->out), buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == -1) {
            if (errno == EAGAIN) {
                loop_io_want(c->io, LOOP_WRITE);
                return;
            }
            break;
        }
        buf_consume(&c->out, (size_t)n);
    }
    /* What the client still sends is read and thrown away by the kernel only if we end cleanly. */
    shutdown(c->fd, SHUT_WR);
    close_client(c);
}

static void on_client(void *arg, unsigned ready)
{
    struct client *c = arg;
    (void)ready;
    if (c->closed) {
        return;
    }
    if (!c->answering) {
        uint8_t *to = buf_reserve(&c->in, ADMIN_HEAD_MAX - buf_len(&c->in));
        if (to == NULL || buf_len(&c->in) == ADMIN_HEAD_MAX) {
            close_client(c);
            return;
        }
        ssize_t n = recv(c->fd, to, ADMIN_HEAD_MAX - buf_len(&c->in), MSG_DONTWAIT);
        if (n == -1 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            close_client(c);
            return;
        }
        buf_commit(&c->in, (size_t)n);
        if (!parse_request(c)) {
            return;
        }
        c->answering = true;
    }
    write_answer(c);
}

static bool may_ask(const struct admin *a, int fd)
{
    struct ucred who;
    socklen_t len = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0) {
        return false;
    }
    for (size_t i = 0; i < a->n_allow_uids; i++) {
        if (a->allow_uids[i] == who.uid) {
            return true;
        }
    }
    return false;
}

static void on_accept(void *arg, unsigned ready)
{
    struct listener *l = arg;
    struct admin *a = l->admin;
    (void)ready;
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -1) {
        return;
    }
    if (a->n_clients >= ADMIN_CLIENTS_MAX) {
        close(fd);
        return;
    }
    if (!l->http && !may_ask(a, fd)) {
        static const char no[] = "{\"error\":\"this uid may not ask\"}\n";
        ssize_t ignored = send(fd, no, sizeof(no) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)ignored;
        close(fd);
        return;
    }
    struct client *c = mem_must_new(struct client);
    c->deferred.fn = free_client;
    c->admin = a;
    c->fd = fd;
    c->http = l->http;
    c->in.max = ADMIN_HEAD_MAX;
    c->out.max = ADMIN_DOCUMENT_MAX + ADMIN_HEAD_MAX;
    c->next = a->clients;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    a->clients = c;
    a->n_clients++;
    loop_timer_init(&c->deadline, a->loop, on_deadline, c);
    loop_timer_arm(&c->deadline, ADMIN_DEADLINE_MS);
    c->io = loop_io_new(a->loop, fd, on_client, c);
    if (c->io == NULL) {
        close_client(c);
        return;
    }
    loop_io_want(c->io, LOOP_READ);
}

/* --- listeners -------------------------------------------------------------------------------- */
static int unix_address(const char *path, struct sockaddr_un *ret, struct err *err)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (path[0] != '/' || strlen(path) >= sizeof(ret->sun_path)) {
        err_set(err, ERR_CONFIG, "not a usable socket path");
        err_where(err, "%s", path);
        return err_expected(err, "an absolute path of at most %zu bytes",
                            sizeof(ret->sun_path) - 1);
    }
    memcpy(ret->sun_path, path, strlen(path) + 1);
    return 0;
}

/* A socket file on which nobody answers was left by a process that was killed. */
static int remove_stale(const struct sockaddr_un *addr, struct err *err)
{
    struct stat st;
    if (lstat(addr->sun_path, &st) != 0) {
        return 0;
    }
    if (!S_ISSOCK(st.st_mode)) {
        err_set(err, ERR_CONFIG, "there is something that is not a socket");
        return err_where(err, "%s", addr->sun_path);
    }
    os_autofd int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe != -1 && connect(probe, (const struct sockaddr *)addr, sizeof(*addr)) == 0) {
        err_set(err, ERR_UNAVAILABLE, "another process answers on this socket");
        err_where(err, "%s", addr->sun_path);
        return err_advise(err, "end it, or name another socket");
    }
    unlink(addr->sun_path);
    return 0;
}

static int add_listener(struct admin *a, int fd, bool http, struct err *err)
{
    struct listener *l = &a->listeners[a->n_listeners];
    l->admin = a;
    l->fd = fd;
    l->http = http;
    l->io = loop_io_new(a->loop, fd, on_accept, l);
    a->n_listeners++;
    if (l->io == NULL) {
        return err_set(err, ERR_SYSTEM, "no memory for a listener");
    }
    loop_io_want(l->io, LOOP_READ);
    return 0;
}

static int listen_unix(struct admin *a, const char *path, struct err *err)
{
    struct sockaddr_un addr;
    if (unix_address(path, &addr, err) != 0 || remove_stale(&addr, err) != 0) {
        return -1;
    }
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        return err_sys(err, "cannot make a socket");
    }
    /* Created for its owner alone, then opened to whom the list allows by uid: 0666 when others
     * than the owner are allowed, since connect() needs write permission. */
    mode_t old = umask(0177);
    int rc = bind(fd, (const struct sockaddr *)&addr, sizeof(addr));
    umask(old);
    if (rc != 0) {
        err_sys(err, "cannot bind the admin socket");
        err_where(err, "%s", path);
        return err_advise(err, "make its directory, writable for uid %u", geteuid());
    }
    a->socket_path = mem_must_strdup(path);
    for (size_t i = 0; i < a->n_allow_uids; i++) {
        if (a->allow_uids[i] != geteuid() && a->allow_uids[i] != 0 && chmod(path, 0666) != 0) {
            return err_sys(err, "cannot set the mode of %s", path);
        }
    }
    if (listen(fd, ADMIN_CLIENTS_MAX) != 0) {
        return err_sys(err, "cannot listen on %s", path);
    }
    rc = add_listener(a, fd, false, err);
    fd = -1;
    return rc;
}

static int listen_http(struct admin *a, const struct sockaddr *addr, socklen_t len, struct err *err)
{
    os_autofd int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, addr, len) != 0 || listen(fd, ADMIN_CLIENTS_MAX) != 0) {
        return err_sys(err, "cannot listen for metrics");
    }
    int rc = add_listener(a, fd, true, err);
    fd = -1;
    return rc;
}

struct admin *admin_new(struct loop *loop, const struct admin_options *options, struct err *err)
{
    struct admin *a = mem_must_new(struct admin);
    a->loop = loop;
    a->arg = options->arg;
    a->n_documents = options->n_documents;
    a->documents = mem_must_calloc(a->n_documents, sizeof(*a->documents));
    for (size_t i = 0; i < a->n_documents; i++) {
        a->documents[i] = options->documents[i];
    }
    a->n_allow_uids = options->n_allow_uids;
    a->allow_uids = mem_must_calloc(a->n_allow_uids, sizeof(*a->allow_uids));
    for (size_t i = 0; i < a->n_allow_uids; i++) {
        a->allow_uids[i] = options->allow_uids[i];
    }
    if ((options->socket_path != NULL && listen_unix(a, options->socket_path, err) != 0) ||
        (options->http != NULL && listen_http(a, options->http, options->http_len, err) != 0)) {
        return admin_free(a);
    }
    return a;
}

int admin_add_listener(struct admin *a, int fd, bool http, const uid_t *allow_uids,
                       size_t n_allow_uids, struct err *err)
{
    if (a->n_listeners == sizeof(a->listeners) / sizeof(a->listeners[0])) {
        close(fd);
        return err_set(err, ERR_LIMIT, "there are two admin listeners already");
    }
    if (!http) {
        a->allow_uids = mem_must_realloc(a->allow_uids, (n_allow_uids + 1) * sizeof(uid_t));
        a->n_allow_uids = n_allow_uids;
        for (size_t i = 0; i < n_allow_uids; i++) {
            a->allow_uids[i] = allow_uids[i];
        }
    }
    if (os_set_nonblock(fd) != 0) {
        (void)err_sys(err, "cannot use an admin listener");
        close(fd);
        return -1;
    }
    return add_listener(a, fd, http, err);
}

struct admin *admin_free(struct admin *a)
{
    if (a == NULL) {
        return NULL;
    }
    while (a->clients != NULL) {
        close_client(a->clients);
    }
    for (size_t i = 0; i < a->n_listeners; i++) {
        loop_io_free(a->listeners[i].io);
        close(a->listeners[i].fd);
    }
    if (a->socket_path != NULL) {
        unlink(a->socket_path);
        free(a->socket_path);
    }
    free(a->documents);
    free(a->allow_uids);
    free(a);
    return NULL;
}

/* --- the asker's side ------------------------------------------------------------------------- */
int admin_ask(const char *socket_path, const char *name, unsigned timeout_ms, struct buf *out,
              struct err *err)
{
    struct sockaddr_un addr;
    if (unix_address(socket_path, &addr, err) != 0) {
        return -1;
    }
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) != 0) {
        return err_sys(err, "cannot make a socket");
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        err_sys(err, "cannot reach the process");
        err_where(err, "%s", socket_path);
        return err_advise(err, "is it running, and may this uid ask it (admin.allow_uids)?");
    }
    char line[256];
    int n = snprintf(line, sizeof(line), "GET %s\n", name);
    if (n < 0 || (size_t)n >= sizeof(line) || os_write_all(fd, line, (size_t)n) != 0) {
        return err_sys(err, "cannot ask");
    }
    for (;;) {
        uint8_t piece[16384];
        ssize_t got = read(fd, piece, sizeof(piece));
        if (got == 0) {
            return 0;
        }
        if (got == -1 && errno == EINTR) {
            continue;
        }
        if (got == -1) {
            return err_sys(err, "no whole answer");
        }
        if (!buf_append(out, piece, (size_t)got)) {
            return err_set(err, ERR_LIMIT, "the answer is larger than %zu bytes", out->max);
        }
    }
}
