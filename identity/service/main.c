/*
 * The start reads as a list: what the supervisor wants it to be, what it needs open, giving up
 * everything else, and only then the first caller.
 */
#include "service_priv.h"

#include <poll.h>
#include <postern/mem.h>
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
    struct agent_msg_report report;
    if (wait_start(s, err) == -1) {
        return -1;
    }
    log_set_level(s->log, (enum log_level)s->start.log_level);
    s->loop = loop_new(err);
    if (s->loop == NULL || warm_up(err) == -1 ||
        service_drop_privileges(&s->start, &report, err) == -1 || tell(&report, err) == -1) {
        return -1;
    }
    return service_open(s, AGENT_FD_CONTROL, AGENT_FD_SERVICE_ATTESTOR, AGENT_FD_SERVICE_KEEPER,
                        err);
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
    service_close(&s);
    (void)log_free(s.log);
    _exit(s.exit_status); /* no handlers: what they would do is not in the list of privs.c */
}
