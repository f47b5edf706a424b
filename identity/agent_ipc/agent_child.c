/* agent_child: the first words between a child of the agent and its supervisor. */
#include <postern/agent_child.h>

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

int agent_child_wait_start(enum agent_way way, enum agent_msg_type type, const char *executable,
                           union agent_msg *ret, struct err *err)
{
    struct pollfd p = {.fd = AGENT_FD_CONTROL, .events = POLLIN};
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(AGENT_FD_CONTROL, way, ret, &fd)) {
        case IPC_OK:
            if (ret->head.type == type) {
                return 0;
            }
            return err_set(err, ERR_PROTOCOL, "the first message is not %s", agent_msg_name(type));
        case IPC_AGAIN:
            (void)poll(&p, 1, -1);
            break;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        case IPC_BAD:
            err_set(err, ERR_USAGE, "descriptor %d is not the supervisor's channel",
                    AGENT_FD_CONTROL);
            return err_advise(err, "%s is started by `postern agent`", executable);
        }
    }
}

int agent_child_tell(const void *msg, struct err *err)
{
    return agent_ipc_send(AGENT_FD_CONTROL, msg, -1) == IPC_OK
               ? 0
               : err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
}

void agent_child_tell_failure(const char *executable, const struct err *err)
{
    struct agent_msg_failed msg;

    agent_ipc_init(&msg, AGENT_MSG_FAILED, 0);
    msg.error = *err;
    if (agent_ipc_send(AGENT_FD_CONTROL, &msg, -1) != IPC_OK) {
        char text[1200];

        (void)dprintf(STDERR_FILENO, "%s: %s\n", executable, err_text(err, text, sizeof(text)));
    }
}
