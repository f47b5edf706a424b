#include <postern/handover.h>

#include <errno.h>
#include <poll.h>
#include <postern/admin.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin_priv.h"

/* --- messages --------------------------------------------------------------------------------- */

void handover_msg_init(struct handover_msg *m, enum handover_type type)
{
    *m = (struct handover_msg){.magic = HANDOVER_MAGIC,
                               .version = HANDOVER_VERSION,
                               .type = type,
                               .pid = (uint32_t)getpid()};
}

void handover_msg_socket(struct handover_msg *m, const char *activated)
{
    handover_msg_init(m, HANDOVER_SOCKET);
    if (activated != NULL) {
        m->activated = 1;
        (void)snprintf(m->name, sizeof(m->name), "%s", activated);
    }
}

void handover_msg_build(struct handover_msg *m, const char *build)
{
    (void)snprintf(m->name, sizeof(m->name), "%s", build);
}

/* For logs; what is not text is nobody's version. */
static bool is_text(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x20 || s[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

bool handover_msg_ok(const void *data, size_t len, bool has_fd)
{
    struct handover_msg m;
    if (len != sizeof(m)) {
        return false;
    }
    memcpy(&m, data, sizeof(m));
    if (m.magic != HANDOVER_MAGIC || m.version != HANDOVER_VERSION || m.pid == 0 ||
        m.pid > INT32_MAX || m.activated > 1) {
        return false;
    }
    size_t name = strnlen(m.name, sizeof(m.name));
    if (name == sizeof(m.name)) {
        return false;
    }
    switch (m.type) {
    case HANDOVER_SOCKET:
        return has_fd && m.count == 0 && (m.activated == 1) == (name > 0);
    case HANDOVER_END:
        return !has_fd && m.activated == 0 && m.count <= HANDOVER_SOCKETS_MAX &&
               is_text(m.name, name);
    case HANDOVER_READY:
        return !has_fd && m.activated == 0 && m.count == 0 && is_text(m.name, name);
    case HANDOVER_GONE:
        return !has_fd && m.activated == 0 && m.count == 0 && name == 0;
    default:
        return false;
    }
}

enum ipc_outcome handover_send(int fd, const struct handover_msg *m, int fd_to_pass)
{
    return ipc_send(fd, m, sizeof(*m), fd_to_pass);
}

/* What a refusal says (`{"error":"TEXT"...`), as far as it is text. */
static void refusal_text(const char *data, size_t len, char *ret_text, size_t size)
{
    const size_t prefix = sizeof(ADMIN_ERROR_PREFIX) - 1;
    bool refusal = len > prefix && memcmp(data, ADMIN_ERROR_PREFIX, prefix) == 0;
    size_t n = 0;
    for (size_t i = prefix; refusal && i < len && n + 1 < size && data[i] != '"'; i++) {
        ret_text[n++] = data[i] >= 0x20 && data[i] < 0x7f ? data[i] : '?';
    }
    ret_text[n] = '\0';
}

enum ipc_outcome handover_recv(int fd, struct handover_msg *ret, int *ret_fd, char *ret_text,
                               size_t text_size)
{
    char data[sizeof(struct handover_msg)];
    size_t len = 0;
    int passed = -1;
    enum ipc_outcome r = ipc_recv(fd, data, sizeof(data), &len, &passed);
    if (r != IPC_OK) {
        return r;
    }
    if (!handover_msg_ok(data, len, passed != -1)) {
        if (passed != -1) {
            close(passed);
        }
        if (ret_text != NULL) {
            refusal_text(data, len, ret_text, text_size);
        }
        return IPC_BAD;
    }
    memcpy(ret, data, sizeof(*ret));
    *ret_fd = passed;
    return IPC_OK;
}

/* --- the asker -------------------------------------------------------------------------------- */

static int wait_readable(int fd, uint64_t due_ms, struct err *err)
{
    for (;;) {
        uint64_t now = os_now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int r = poll(&p, 1, due_ms > now ? (int)(due_ms - now) : 0);
        if (r == 1) {
            return 0;
        }
        if (r == 0) {
            return err_set(err, ERR_UNAVAILABLE, "the running process did not answer in time");
        }
        if (errno != EINTR) {
            return err_sys(err, "poll");
        }
    }
}

static int next_message(struct handover *h, uint64_t due_ms, struct handover_msg *ret, int *ret_fd,
                        struct err *err)
{
    char text[128] = "";
    for (;;) {
        if (wait_readable(h->fd, due_ms, err) == -1) {
            return -1;
        }
        switch (handover_recv(h->fd, ret, ret_fd, text, sizeof(text))) {
        case IPC_OK:
            return 0;
        case IPC_AGAIN:
            continue;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the running process ended the connection");
        case IPC_BAD:
            break;
        }
        return text[0] != '\0' ? err_set(err, ERR_DENIED, "the running process refused: %s", text)
                               : err_set(err, ERR_PROTOCOL,
                                         "the running process answered "
                                         "something else than a take-over");
    }
}

static int keep_socket(struct handover *h, const struct handover_msg *m, int fd, struct err *err)
{
    struct service_socket s;
    if (h->sockets.n == HANDOVER_SOCKETS_MAX) {
        return err_set(err, ERR_LIMIT, "more than %d sockets", HANDOVER_SOCKETS_MAX);
    }
    if (service_socket_check(fd, &s, err) == -1) {
        return -1;
    }
    memcpy(s.name, m->name, sizeof(s.name));
    s.activated = m->activated == 1;
    struct service_sockets one = {.items = mem_must_new(struct service_socket), .n = 1};
    one.items[0] = s;
    service_sockets_join(&h->sockets, &one);
    return 0;
}

static int receive_all(struct handover *h, uint64_t due_ms, struct err *err)
{
    for (;;) {
        struct handover_msg m;
        os_autofd int fd = -1;
        if (next_message(h, due_ms, &m, &fd, err) == -1) {
            return -1;
        }
        if (m.type == HANDOVER_SOCKET) {
            if (keep_socket(h, &m, fd, err) == -1) {
                return -1;
            }
            fd = -1;
        } else if (m.type == HANDOVER_END && m.count == h->sockets.n) {
            h->pid = (pid_t)m.pid;
            (void)snprintf(h->build, sizeof(h->build), "%.63s", m.name);
            return 0;
        } else {
            return err_set(err, ERR_PROTOCOL, "the running process said something out of turn");
        }
    }
}

static int check_listener(int fd, struct err *err)
{
    struct ucred who;
    socklen_t len = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0) {
        return err_sys(err, "cannot tell who listens");
    }
    if (who.uid != geteuid()) {
        err_set(err, ERR_DENIED, "the process that listens there has uid %u", who.uid);
        return err_expected(err, "our own, %u", geteuid());
    }
    return 0;
}

/* 1: nobody is there. */
static int reach(const char *path, unsigned timeout_ms, int *ret_fd, struct err *err)
{
    const struct timeval wait = {.tv_sec = timeout_ms / 1000,
                                 .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    struct sockaddr_un addr;
    if (admin_unix_address(path, &addr, err) != 0) {
        return -1;
    }
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) != 0) {
        return err_sys(err, "cannot make a socket");
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        return errno == ENOENT || errno == ECONNREFUSED
                   ? 1
                   : err_sys(err, "cannot reach the running process");
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int handover_ask(const char *path, unsigned timeout_ms, struct handover *ret, struct err *err)
{
    static const char question[] = "GET " HANDOVER_REQUEST "\n";
    struct handover h = {.fd = -1};
    uint64_t due_ms = os_now_ms() + timeout_ms;
    int rc = reach(path, timeout_ms, &h.fd, err);
    if (rc == 1) {
        *ret = h;
        return 1;
    }
    if (rc == 0) {
        rc = check_listener(h.fd, err);
    }
    /* EPIPE: refused already, and why can be read. */
    if (rc == 0 && send(h.fd, question, sizeof(question) - 1, MSG_NOSIGNAL) == -1 &&
        errno != EPIPE) {
        rc = err_sys(err, "cannot ask");
    }
    if (rc == 0) {
        rc = receive_all(&h, due_ms, err);
    }
    if (rc != 0) {
        handover_deinit(&h);
        return err_where(err, "%s", path);
    }
    *ret = h;
    return 0;
}

int handover_finish(struct handover *h, const char *build, unsigned timeout_ms, struct err *err)
{
    struct handover_msg m;
    int fd = -1;
    handover_msg_init(&m, HANDOVER_READY);
    handover_msg_build(&m, build);
    int rc = 0;
    if (handover_send(h->fd, &m, -1) != IPC_OK) {
        rc = err_set(err, ERR_UNAVAILABLE, "the process of before is gone");
    }
    if (rc == 0) {
        rc = next_message(h, os_now_ms() + timeout_ms, &m, &fd, err);
    }
    if (rc == 0 && m.type != HANDOVER_GONE) {
        rc = err_set(err, ERR_PROTOCOL, "the process of before said something out of turn");
    }
    if (fd != -1) {
        close(fd);
    }
    close(h->fd);
    h->fd = -1;
    return rc;
}

void handover_deinit(struct handover *h)
{
    if (h->fd != -1) {
        close(h->fd);
    }
    service_sockets_deinit(&h->sockets);
    *h = (struct handover){.fd = -1};
}
