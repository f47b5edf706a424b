/*
 * The start reads as a list: what the supervisor wants it to be, what it needs open, giving up
 * everything else, and only then the first caller.
 */
#include "service_priv.h"

#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int wait_start(struct service *s, struct err *err)
{
    struct pollfd p = {.fd = AGENT_FD_CONTROL, .events = POLLIN};
    for (;;) {
        int fd = -1;
        switch (agent_ipc_recv(AGENT_FD_CONTROL, AGENT_WAY_SUPERVISOR_SERVICE, &s->in, &fd)) {
        case IPC_OK:
            if (s->in.head.type == AGENT_MSG_START_SERVICE) {
                s->start = s->in.start_service;
                return 0;
            }
            return err_set(err, ERR_PROTOCOL, "the first message is not start_service");
        case IPC_AGAIN:
            (void)poll(&p, 1, -1);
            break;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        case IPC_BAD:
            (void)err_set(err, ERR_USAGE, "descriptor %d is not the supervisor's channel",
                          AGENT_FD_CONTROL);
            return err_advise(err, "postern-agent-service is started by `postern agent`");
        }
    }
}

/* OpenSSL reads its configuration and fetches algorithms at their first use: before the sandbox. */
static int warm_up(struct err *err)
{
    uint8_t point[AGENT_POINT_SIZE];
    uint8_t *csr = NULL;
    uint8_t *pkcs8 = NULL;
    size_t n_csr = 0;
    size_t n_pkcs8 = 0;
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = x509_key_new(err);
    if (key == NULL || x509_key_to_pkcs8(key, &pkcs8, &n_pkcs8, err) == -1) {
        return -1;
    }
    (void)mem_secret_free(pkcs8);
    int rc = x509_csr_new(key, &csr, &n_csr, err);
    if (rc == 0) {
        rc = x509_csr_check((struct str){(const char *)csr, n_csr}, point, err);
    }
    free(csr);
    return rc;
}

static int tell(const void *msg, struct err *err)
{
    return agent_ipc_send(AGENT_FD_CONTROL, msg, -1) == IPC_OK
               ? 0
               : err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
}

static int start(struct service *s, struct err *err)
{
    static const struct grpc_server_events events = {service_on_conn_closed};
    const struct grpc_limits limits = {.max_streams = SERVICE_CONN_CALLS_MAX,
                                       .max_message_bytes = SERVICE_REQUEST_MAX,
                                       .max_conn_in_bytes = 4U * SERVICE_REQUEST_MAX};
    struct agent_msg_report report;
    if (wait_start(s, err) == -1) {
        return -1;
    }
    log_set_level(s->log, (enum log_level)s->start.log_level);
    s->own_domain_id =
        mem_must_printf("spiffe://%.*s", (int)s->start.trust_domain_len, s->start.trust_domain);
    s->started_s = os_wall_s();
    s->loop = loop_new(err);
    if (s->loop == NULL || warm_up(err) == -1 ||
        service_drop_privileges(&s->start, &report, err) == -1 || tell(&report, err) == -1) {
        return -1;
    }
    s->metrics = metrics_block_new(SERVICE_N_METRICS);
    s->admin = service_admin_new(s, err);
    if (s->admin == NULL) {
        return -1;
    }
    s->server = grpc_server_new(s->loop, service_methods, service_n_methods, &limits, &events, s);
    service_channel_init(&s->control, s, AGENT_FD_CONTROL, AGENT_WAY_SUPERVISOR_SERVICE,
                         "supervisor", service_on_control_push);
    service_channel_init(&s->attestor, s, AGENT_FD_SERVICE_ATTESTOR, AGENT_WAY_ATTESTOR_SERVICE,
                         "attestor", service_on_attestor_push);
    service_channel_init(&s->keeper, s, AGENT_FD_SERVICE_KEEPER, AGENT_WAY_KEEPER_SERVICE, "keeper",
                         service_on_keeper_push);
    return 0;
}

static void tell_failure(const struct err *err)
{
    struct agent_msg_failed msg;
    agent_ipc_init(&msg, AGENT_MSG_FAILED, 0);
    msg.error = *err;
    if (agent_ipc_send(AGENT_FD_CONTROL, &msg, -1) != IPC_OK) {
        char text[1200];
        (void)dprintf(STDERR_FILENO, "postern-agent-service: %s\n",
                      err_text(err, text, sizeof(text)));
    }
}

static void deinit(struct service *s)
{
    s->server = grpc_server_free(s->server);
    s->admin = admin_free(s->admin);
    if (s->keeper.s != NULL) {
        service_channel_deinit(&s->keeper);
        service_channel_deinit(&s->attestor);
        service_channel_deinit(&s->control);
    }
    s->loop = loop_free(s->loop);
    service_accounts_deinit(s);
    s->metrics = metrics_block_free(s->metrics);
    s->log = log_free(s->log);
    free(s->own_domain_id);
}

int main(void)
{
    static struct service s; /* too large for a stack */
    struct err err = ERR_INIT;
    s.log = log_new_fd(STDERR_FILENO, LOG_INFO, "service");
    if (start(&s, &err) == -1) {
        tell_failure(&err);
        s.exit_status = 1;
    } else {
        loop_run(s.loop);
    }
    deinit(&s);
    _exit(s.exit_status); /* no handlers: what they would do is not in the list of privs.c */
}
