/* One caller a connection, as the attestor hands them over; and what each account has open. */
#include "service_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <unistd.h>

/* --- what an account has -------------------------------------------------------------------------
 */

static struct service_account *account_get(struct service *s, uint64_t id)
{
    struct service_account **bucket = &s->accounts[id % SERVICE_ACCOUNT_BUCKETS];
    struct service_account *a = *bucket;
    while (a != NULL && a->id != id) {
        a = a->next;
    }
    if (a == NULL) {
        a = mem_must_new(struct service_account);
        a->id = id;
        a->memory.max_bytes = s->start.max_uid_bytes;
        a->next = *bucket;
        *bucket = a;
    }
    return a;
}

static void account_put(struct service *s, struct service_account *a)
{
    if (a->n_conns > 0) {
        return;
    }
    struct service_account **at = &s->accounts[a->id % SERVICE_ACCOUNT_BUCKETS];
    while (*at != a) {
        at = &(*at)->next;
    }
    *at = a->next;
    free(a);
}

void service_accounts_deinit(struct service *s)
{
    for (size_t i = 0; i < SERVICE_ACCOUNT_BUCKETS; i++) {
        while (s->accounts[i] != NULL) {
            struct service_account *a = s->accounts[i];
            s->accounts[i] = a->next;
            free(a);
        }
    }
}

bool service_caller_charge(struct service_caller *c)
{
    if (c->account->n_calls >= c->s->start.max_uid_calls ||
        c->s->n_calls >= c->s->start.max_calls) {
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

/* --- callers ---------------------------------------------------------------------------------- */

static struct service_caller **bucket_of(struct service *s, uint64_t handle)
{
    return &s->callers[handle % SERVICE_CALLER_BUCKETS];
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
    c->account = account_get(s, msg->account);
    c->account->n_conns++;
    if (grpc_server_add_connection(s->server, fd, c, &c->account->memory, &c->conn, &err) == -1) {
        service_count(s, SERVICE_METRIC_CONNECTIONS_REFUSED);
        log_failure(s->log, LOG_WARN, "connection_refused", &err);
        release(s, msg->handle);
        c->account->n_conns--;
        account_put(s, c->account);
        free(c);
        return;
    }
    service_count(s, SERVICE_METRIC_CONNECTIONS);
    c->next = *bucket_of(s, c->handle);
    *bucket_of(s, c->handle) = c;
    s->n_callers++;
}

void service_on_conn_closed(void *arg, void *conn_context)
{
    struct service *s = arg;
    struct service_caller *c = conn_context;
    struct service_caller **at = bucket_of(s, c->handle);
    release(s, c->handle); /* one that is gone already does not mind */
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    s->n_callers--;
    service_trim_later(s);
    c->account->n_conns--;
    account_put(s, c->account);
    free(c);
    if (s->stopping && s->n_callers == 0) {
        loop_stop(s->loop);
    }
}

/* The process that connected has ended: nothing more for this connection. */
static void caller_gone(struct service_caller *c)
{
    if (!c->gone) {
        c->gone = true;
        service_streams_end(c->s, c, GRPC_PERMISSION_DENIED,
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
    struct service_caller *c = *bucket_of(s, msg->handle.handle);
    while (c != NULL && c->handle != msg->handle.handle) {
        c = c->next;
    }
    if (c != NULL) {
        caller_gone(c);
    }
}
