/* One caller a connection, as the attestor hands them over; and what each uid has open. */
#include "service_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <unistd.h>

struct service_account {
    struct service_account *next;
    uint32_t uid;
    size_t n_conns, n_calls;
};

static struct service_account *account_get(struct service *s, uint32_t uid)
{
    struct service_account *a = s->accounts;
    while (a != NULL && a->uid != uid) {
        a = a->next;
    }
    if (a == NULL) {
        a = mem_must_new(struct service_account);
        a->uid = uid;
        a->next = s->accounts;
        s->accounts = a;
    }
    return a;
}

static void account_put(struct service *s, struct service_account *a)
{
    if (a->n_conns > 0) {
        return;
    }
    struct service_account **at = &s->accounts;
    while (*at != a) {
        at = &(*at)->next;
    }
    *at = a->next;
    free(a);
}

void service_accounts_deinit(struct service *s)
{
    while (s->accounts != NULL) {
        struct service_account *a = s->accounts;
        s->accounts = a->next;
        free(a);
    }
}

bool service_caller_charge(struct service_caller *c)
{
    if (c->account->n_calls >= SERVICE_UID_CALLS_MAX || c->s->n_calls >= SERVICE_CALLS_MAX) {
        return false;
    }
    c->account->n_calls++;
    c->s->n_calls++;
    return true;
}

void service_caller_discharge(struct service_caller *c)
{
    c->account->n_calls--;
    c->s->n_calls--;
}

static void release(struct service *s, uint64_t handle)
{
    struct agent_msg_handle msg;
    agent_ipc_init(&msg, AGENT_MSG_RELEASE, 0);
    msg.handle = handle;
    (void)service_channel_ask(&s->attestor, &msg, AGENT_MSG_NONE, NULL, NULL);
}

static void add(struct service *s, const struct agent_msg_connection *msg, int fd)
{
    struct err err = ERR_INIT;
    if (s->stopping) {
        (void)close(fd);
        release(s, msg->handle);
        return;
    }
    struct service_caller *c = mem_must_new(struct service_caller);
    c->s = s;
    c->handle = msg->handle;
    c->uid = msg->uid;
    c->gid = msg->gid;
    c->pid = msg->pid;
    if (grpc_server_add_connection(s->server, fd, c, &c->conn, &err) == -1) {
        service_count(s, SERVICE_METRIC_CONNECTIONS_REFUSED);
        log_failure(s->log, LOG_WARN, "connection_refused", &err);
        release(s, msg->handle);
        free(c);
        return;
    }
    service_count(s, SERVICE_METRIC_CONNECTIONS);
    c->account = account_get(s, c->uid);
    c->account->n_conns++;
    c->next = s->callers;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    s->callers = c;
    s->n_callers++;
}

void service_on_conn_closed(void *arg, void *conn_context)
{
    struct service *s = arg;
    struct service_caller *c = conn_context;
    release(s, c->handle); /* one that is gone already does not mind */
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        s->callers = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    s->n_callers--;
    c->account->n_conns--;
    account_put(s, c->account);
    free(c);
    if (s->stopping && s->n_callers == 0) {
        loop_stop(s->loop);
    }
}

void service_caller_gone(struct service_caller *c)
{
    if (!c->gone) {
        c->gone = true;
        service_watches_end(c->s, c, GRPC_PERMISSION_DENIED,
                            "the process that opened this connection has ended");
        grpc_conn_drain(c->conn);
    }
}

void service_on_attestor_push(struct service *s, const union agent_msg *msg, int fd)
{
    if (msg->head.type == AGENT_MSG_CONNECTION) {
        add(s, &msg->connection, fd);
        return;
    }
    struct service_caller *c = s->callers;
    while (c != NULL && c->handle != msg->handle.handle) {
        c = c->next;
    }
    if (c != NULL) {
        service_caller_gone(c);
    }
}
