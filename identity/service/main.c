/*
 * The start reads as a list: what the supervisor wants it to be, what it needs open, giving up
 * everything else, and only then the first caller.
 */
#include "service_priv.h"

#include <postern/agent_child.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <unistd.h>

static const char EXECUTABLE[] = "postern-agent-service";

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

static int start(struct service *s, struct err *err)
{
    struct agent_msg_report report;
    if (agent_child_wait_start(AGENT_WAY_SUPERVISOR_SERVICE, AGENT_MSG_START_SERVICE, EXECUTABLE,
                               &s->in, err) == -1) {
        return -1;
    }
    s->start = s->in.start_service;
    log_set_level(s->log, (enum log_level)s->start.log_level);
    s->loop = loop_new(err);
    s->hardening = s->loop != NULL ? hardening_new(s->loop, s->log, err) : NULL;
    if (s->hardening == NULL || warm_up(err) == -1 ||
        service_drop_privileges(&s->start, &report, err) == -1 ||
        agent_child_tell(&report, err) == -1) {
        return -1;
    }
    return service_open(s, AGENT_FD_CONTROL, AGENT_FD_SERVICE_ATTESTOR, AGENT_FD_SERVICE_KEEPER,
                        err);
}

int main(void)
{
    static struct service s; /* too large for a stack */
    struct err err = ERR_INIT;
    s.log = log_new_fd(STDERR_FILENO, LOG_INFO, "service");
    if (start(&s, &err) == -1) {
        agent_child_tell_failure(EXECUTABLE, &err);
        s.exit_status = 1;
    } else {
        loop_run(s.loop);
    }
    s.hardening = hardening_free(s.hardening);
    service_close(&s);
    (void)log_free(s.log);
    _exit(s.exit_status); /* no handlers: what they would do is not in the list of privs.c */
}
