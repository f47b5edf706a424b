#include "supervisor_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Root's way to order things: docs/privilege-separation.md. A client is a place in an array with a
 * state, a ticket that is never used twice, and a deadline for each state, so that nobody holds a
 * place for ever and nothing here waits. */

enum {
    READ_MS = 5000,  /* for the request to come */
    WAIT_MS = 30000, /* for whoever was asked to answer */
    SEND_MS = 10000, /* for the client to take the answer */
};

enum client_state { CLIENT_FREE, CLIENT_READ, CLIENT_WAIT, CLIENT_SEND };

struct client {
    enum client_state state;
    int fd;
    uint64_t ticket, due_ms;
    uint32_t verb;
    struct err error;
    char *text; /* owned: the answer */
    size_t len, sent;
};

struct supervisor_control {
    struct supervisor_socket socket;
    char path[AGENT_CONTROL_PATH_MAX];
    char *shown; /* the path as people know it */
    int dir_fd;
    uint64_t last_ticket;
    struct client clients[SUPERVISOR_CONTROL_CLIENTS];
    struct agent_control_request request; /* being read */
    struct agent_control_answer part;     /* being sent */
    int file;                             /* that came with it, while it is run; -1: none */
};

static void client_close(struct client *c)
{
    if (c->state != CLIENT_FREE) {
        close(c->fd);
        free(c->text);
    }
    *c = (struct client){.state = CLIENT_FREE, .fd = -1};
}

/* --- opening ---------------------------------------------------------------------------------- */
int supervisor_control_open(struct supervisor *s, struct err *err)
{
    struct supervisor_control *c = mem_must_new(struct supervisor_control);

    c->socket.fd = c->dir_fd = c->file = -1;
    s->control = c;
    c->shown = s->conf->control_socket != NULL
                   ? mem_must_strdup(s->conf->control_socket)
                   : mem_must_printf("%s/%s", s->conf->state_dir, AGENT_CONTROL_NAME);
    if (agent_control_address(c->shown, c->path, &c->dir_fd, err) == -1 ||
        supervisor_socket_open_control(&c->socket, c->path, err) == -1) {
        if (err != NULL) {
            err_where(err, "%s", c->shown);
        }
        return err_prefix(err, "the control socket");
    }
    return 0;
}

void supervisor_control_close(struct supervisor *s)
{
    struct supervisor_control *c = s->control;

    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < SUPERVISOR_CONTROL_CLIENTS; i++) {
        client_close(&c->clients[i]);
    }
    supervisor_socket_close(&c->socket);
    if (c->dir_fd != -1) {
        close(c->dir_fd);
    }
    free(c->shown);
    free(c);
    s->control = NULL;
}

/* --- answering -------------------------------------------------------------------------------- */
static struct client *find(struct supervisor_control *c, uint64_t ticket)
{
    for (size_t i = 0; i < SUPERVISOR_CONTROL_CLIENTS; i++) {
        if (c->clients[i].state == CLIENT_WAIT && c->clients[i].ticket == ticket) {
            return &c->clients[i];
        }
    }
    return NULL;
}

/* As much as the client's queue takes. */
static void client_send(struct supervisor_control *all, struct client *c)
{
    struct agent_control_answer *part = &all->part;

    do {
        size_t n = c->len - c->sent;

        agent_control_init_answer(part);
        n = n > sizeof(part->text) ? sizeof(part->text) : n;
        part->error = c->error;
        part->len = (uint32_t)n;
        part->last = c->sent + n == c->len;
        if (n > 0) {
            memcpy(part->text, c->text + c->sent, n);
        }
        switch (ipc_send(c->fd, part, sizeof(*part), -1)) {
        case IPC_OK:
            c->sent += n;
            break;
        case IPC_AGAIN:
            return;
        case IPC_CLOSED:
        case IPC_BAD:
            client_close(c);
            return;
        }
    } while (part->last == 0);
    client_close(c);
}

static void answer(struct supervisor *s, uint64_t ticket, const struct err *error, struct str text)
{
    struct client *c = s->control != NULL ? find(s->control, ticket) : NULL;

    if (c == NULL) {
        return; /* it has gone */
    }
    if (error == NULL && text.n > AGENT_CONTROL_DOCUMENT_MAX) {
        err_set(&c->error, ERR_LIMIT, "the answer is larger than %d bytes",
                AGENT_CONTROL_DOCUMENT_MAX);
    } else if (error != NULL) {
        c->error = *error;
        if (c->error.code == ERR_NONE) {
            c->error.code = ERR_UNAVAILABLE;
        }
    } else if (text.n > 0) {
        c->text = mem_must_strndup(text.p, text.n);
        c->len = text.n;
    }
    c->state = CLIENT_SEND;
    c->due_ms = os_now_ms() + SEND_MS;
    client_send(s->control, c);
}

void supervisor_control_answer(struct supervisor *s, uint64_t ticket, struct str text)
{
    answer(s, ticket, NULL, text);
}

void supervisor_control_refuse(struct supervisor *s, uint64_t ticket, const struct err *why)
{
    answer(s, ticket, why, STR_NONE);
}

/* --- clients ---------------------------------------------------------------------------------- */
/* The mode of the socket keeps others out; this holds if somebody opened it to them. */
static bool may_order(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static void take_client(struct supervisor *s)
{
    struct supervisor_control *c = s->control;
    int fd = accept4(c->socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd == -1) {
        return;
    }
    if (!may_order(fd)) {
        log_msg(s->log, LOG_WARN, "control_refused",
                "somebody who is not root came to the control socket");
        close(fd);
        return;
    }
    for (size_t i = 0; i < SUPERVISOR_CONTROL_CLIENTS; i++) {
        if (c->clients[i].state == CLIENT_FREE) {
            c->clients[i] = (struct client){.state = CLIENT_READ,
                                            .fd = fd,
                                            .ticket = ++c->last_ticket,
                                            .due_ms = os_now_ms() + READ_MS};
            return;
        }
    }
    close(fd); /* nobody is watched for while there is no place */
}

static void client_read(struct supervisor *s, struct client *c)
{
    struct agent_control_request *request = &s->control->request;
    size_t len = 0;
    int passed = -1;
    enum ipc_outcome outcome = ipc_recv(c->fd, request, sizeof(*request), &len, &passed);

    if (outcome == IPC_AGAIN) {
        return;
    }
    if (outcome == IPC_OK && agent_control_check_request(request, len) &&
        agent_control_takes_file(request->verb) != (passed != -1)) {
        outcome = IPC_BAD;
    }
    if (outcome == IPC_CLOSED) {
        client_close(c);
        return; /* nothing came, so no descriptor either */
    }
    c->state = CLIENT_WAIT;
    c->due_ms = os_now_ms() + WAIT_MS;
    if (outcome != IPC_OK || !agent_control_check_request(request, len)) {
        struct err why = ERR_INIT;

        err_set(&why, ERR_PROTOCOL, "this is no request of this version's commands");
        supervisor_control_refuse(s, c->ticket, &why);
    } else {
        c->verb = request->verb;
        s->control->file = passed;
        supervisor_control_run(s, c->ticket, request);
        s->control->file = -1;
    }
    if (passed != -1) {
        close(passed);
    }
}

int supervisor_control_file(const struct supervisor *s)
{
    return s->control->file;
}

static void client_expire(struct supervisor *s, struct client *c)
{
    struct err why = ERR_INIT;

    if (c->state != CLIENT_WAIT) {
        client_close(c);
        return;
    }
    err_set(&why, ERR_UNAVAILABLE, "%s was not done within %d s", agent_control_name(c->verb),
            WAIT_MS / 1000);
    supervisor_control_refuse(s, c->ticket, &why);
}

/* --- the loop --------------------------------------------------------------------------------- */
void supervisor_control_watch(struct supervisor *s, struct pollfd ret[SUPERVISOR_CONTROL_FDS])
{
    struct supervisor_control *c = s->control;
    bool room = false;

    for (size_t i = 0; i < SUPERVISOR_CONTROL_CLIENTS; i++) {
        struct pollfd *p = &ret[1 + i];

        *p = (struct pollfd){.fd = -1};
        if (c == NULL || c->clients[i].state == CLIENT_FREE) {
            room = true;
            continue;
        }
        /* One that waits is watched for its end alone, which poll() always tells. */
        p->fd = c->clients[i].fd;
        p->events = c->clients[i].state == CLIENT_READ   ? POLLIN
                    : c->clients[i].state == CLIENT_SEND ? POLLOUT
                                                         : 0;
    }
    ret[0] = (struct pollfd){.fd = c != NULL && s->running && room ? c->socket.fd : -1,
                             .events = POLLIN};
}

int supervisor_control_due_ms(const struct supervisor *s)
{
    uint64_t now_ms = os_now_ms(), due_ms = UINT64_MAX;

    for (size_t i = 0; s->control != NULL && i < SUPERVISOR_CONTROL_CLIENTS; i++) {
        const struct client *c = &s->control->clients[i];

        if (c->state != CLIENT_FREE && c->due_ms < due_ms) {
            due_ms = c->due_ms;
        }
    }
    if (due_ms == UINT64_MAX) {
        return -1;
    }
    return due_ms > now_ms ? (int)(due_ms - now_ms) + 1 : 0;
}

void supervisor_control_turn(struct supervisor *s, const struct pollfd fds[SUPERVISOR_CONTROL_FDS])
{
    struct supervisor_control *c = s->control;
    uint64_t now_ms = os_now_ms();

    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < SUPERVISOR_CONTROL_CLIENTS; i++) {
        struct client *one = &c->clients[i];

        if (one->state == CLIENT_FREE || fds[1 + i].fd != one->fd) {
            continue;
        }
        if (fds[1 + i].revents != 0) {
            switch (one->state) {
            case CLIENT_READ:
                client_read(s, one);
                break;
            case CLIENT_SEND:
                client_send(c, one);
                break;
            case CLIENT_WAIT: /* it has gone */
                client_close(one);
                break;
            case CLIENT_FREE:
                break;
            }
        }
        if (one->state != CLIENT_FREE && now_ms >= one->due_ms) {
            client_expire(s, one);
        }
    }
    if (fds[0].revents != 0) {
        take_client(s);
    }
}
