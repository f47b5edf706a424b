/*
 * postern-kubelet: asks the node's kubelet which pods and containers there are, and tells the
 * keeper. docs/kubernetes.md says what for. Its start is a list: libssl while it may still open
 * files, what the supervisor wants of it, giving up everything else, and only then the first byte
 * from the network.
 *
 * Descriptors: AGENT_FD_CONTROL, AGENT_FD_KUBELET_KEEPER.
 */
#include "kubelet_priv.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first message, which is the supervisor's. */
static int wait_start(struct fetcher *f, struct err *err)
{
    struct pollfd p = {.fd = f->control, .events = POLLIN};
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(f->control, AGENT_WAY_SUPERVISOR_KUBELET, &f->in, &fd)) {
        case IPC_OK:
            if (f->in.head.type == AGENT_MSG_START_KUBELET) {
                f->start = f->in.start_kubelet;
                return 0;
            }
            return err_set(err, ERR_PROTOCOL, "the first message is not start_kubelet");
        case IPC_AGAIN:
            (void)poll(&p, 1, -1);
            break;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        case IPC_BAD:
            err_set(err, ERR_USAGE, "descriptor %d is not the supervisor's channel",
                    AGENT_FD_CONTROL);
            return err_advise(err, "postern-kubelet is started by `postern agent`");
        }
    }
}

/* What is said this early finds room. */
static int tell(int fd, const void *msg, struct err *err)
{
    return agent_ipc_send(fd, msg, -1) == IPC_OK
               ? 0
               : err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
}

static int start(struct fetcher *f, struct err *err)
{
    struct agent_msg_report report;
    struct agent_msg_plain ready;

    if (kubelet_prepare(err) == -1 || wait_start(f, err) == -1 ||
        fetcher_drop_privileges(&f->start, &report, err) == -1 ||
        tell(f->control, &report, err) == -1) {
        return -1;
    }
    memcpy(f->host, f->start.host, f->start.host_len);
    memcpy(f->server_name, f->start.server_name, f->start.server_name_len);
    memcpy(f->node_name, f->start.node_name, f->start.node_name_len);
    agent_ipc_init(&f->state, AGENT_MSG_KUBELET_STATE, 0);
    agent_ipc_init(&ready, AGENT_MSG_READY, 0);
    return tell(f->control, &ready, err);
}

int main(void)
{
    static struct fetcher f = {.control = AGENT_FD_CONTROL,
                               .keeper = AGENT_FD_KUBELET_KEEPER,
                               .files = {-1, -1, -1, -1},
                               .connection = -1};
    struct err err = ERR_INIT;
    struct agent_msg_failed failed;

    if (start(&f, &err) == 0 && fetcher_run(&f, &err) == 0) {
        return 0;
    }
    agent_ipc_init(&failed, AGENT_MSG_FAILED, 0);
    failed.error = err;
    if (agent_ipc_send(AGENT_FD_CONTROL, &failed, -1) != IPC_OK) {
        char text[1200];

        (void)dprintf(STDERR_FILENO, "postern-kubelet: %s\n", err_text(&err, text, sizeof(text)));
    }
    return 1;
}
