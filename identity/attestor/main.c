/*
 * postern-attestor: accepts the callers of an agent and says who they are.
 * docs/privilege-separation.md says what for whom. It starts as a list: what the supervisor wants
 * it to be, what it has to open, giving up everything else, and only then the first caller.
 */
#include "attestor_priv.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static int wait_start(struct attestor *a, struct err *err)
{
    struct pollfd p = {.fd = a->control, .events = POLLIN};
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(a->control, AGENT_WAY_SUPERVISOR_ATTESTOR, &a->in, &fd)) {
        case IPC_OK:
            if (a->in.head.type == AGENT_MSG_START_ATTESTOR) {
                return 0;
            }
            return err_set(err, ERR_PROTOCOL, "the first message is not start_attestor");
        case IPC_AGAIN:
            (void)poll(&p, 1, -1);
            break;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        case IPC_BAD:
            err_set(err, ERR_USAGE, "descriptor %d is not the supervisor's channel", a->control);
            return err_advise(err, "postern-attestor is started by `postern agent`");
        }
    }
}

/* To the supervisor, at the start: the queue is empty. */
static int tell(struct attestor *a, const void *msg, struct err *err)
{
    return agent_ipc_send(a->control, msg, -1) == IPC_OK
               ? 0
               : err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
}

static int start(struct attestor *a, struct err *err)
{
    struct agent_msg_start_attestor s;
    struct agent_msg_report report;
    struct agent_msg_plain ready;

    if (wait_start(a, err) == -1) {
        return -1;
    }
    s = a->in.start_attestor;
    log_set_level(a->log, (enum log_level)s.log_level);
    if (attestor_drop_privileges(&s, &report, err) == -1 || tell(a, &report, err) == -1 ||
        attest_view_init(&a->view, err) == -1) {
        return -1;
    }
    a->view.force_fallback = s.force_fallback;
    a->digests = attestor_digests_new();
    attestor_digests_limit(a->digests, s.hash_max_bytes);
    a->callers = attestor_callers_new(s.max_handles, s.max_uid_handles);
    agent_ipc_init(&ready, AGENT_MSG_READY, 0);
    return tell(a, &ready, err);
}

static void tell_failure(const struct err *err)
{
    struct agent_msg_failed msg;

    agent_ipc_init(&msg, AGENT_MSG_FAILED, 0);
    msg.error = *err;
    if (agent_ipc_send(AGENT_FD_CONTROL, &msg, -1) != IPC_OK) {
        char text[1200];

        (void)dprintf(STDERR_FILENO, "postern-attestor: %s\n", err_text(err, text, sizeof(text)));
    }
}

int main(void)
{
    static struct attestor a = {.control = AGENT_FD_CONTROL,
                                .keeper = AGENT_FD_ATTESTOR_KEEPER,
                                .listen = AGENT_FD_ATTESTOR_LISTEN,
                                .service = -1,
                                .epoll = -1,
                                .waiting_fd = -1,
                                .view = {.proc_fd = -1, .mounts = {.fd = -1}}};
    struct err err = ERR_INIT;
    int r;

    a.log = log_new_fd(STDERR_FILENO, LOG_INFO, "attestor");
    r = start(&a, &err);
    if (r == 0) {
        r = attestor_run(&a, &err);
    }
    if (r == -1) {
        tell_failure(&err);
    }
    attestor_digests_free(a.digests);
    attestor_callers_free(a.callers);
    attest_view_deinit(&a.view);
    log_free(a.log);
    _exit(r == -1 ? 1 : 0); /* no handlers: what they would do is not in the list of privs.c */
}
