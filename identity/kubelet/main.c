/*
 * postern-kubelet: asks the node's kubelet which pods and containers there are, and tells the
 * keeper. docs/kubernetes.md says what for. Its start is a list: libssl while it may still open
 * files, what the supervisor wants of it, giving up everything else, and only then the first byte
 * from the network.
 *
 * Descriptors: AGENT_FD_CONTROL, AGENT_FD_KUBELET_KEEPER.
 */
#include "kubelet_priv.h"

#include <postern/agent_child.h>
#include <string.h>

static const char EXECUTABLE[] = "postern-kubelet";

static int start(struct fetcher *f, struct err *err)
{
    struct agent_msg_report report;
    struct agent_msg_plain ready;

    if (kubelet_prepare(err) == -1 ||
        agent_child_wait_start(AGENT_WAY_SUPERVISOR_KUBELET, AGENT_MSG_START_KUBELET, EXECUTABLE,
                               &f->in, err) == -1) {
        return -1;
    }
    f->start = f->in.start_kubelet;
    if (fetcher_drop_privileges(&f->start, &report, err) == -1 ||
        agent_child_tell(&report, err) == -1) {
        return -1;
    }
    memcpy(f->host, f->start.host, f->start.host_len);
    memcpy(f->server_name, f->start.server_name, f->start.server_name_len);
    memcpy(f->node_name, f->start.node_name, f->start.node_name_len);
    agent_ipc_init(&f->state, AGENT_MSG_KUBELET_STATE, 0);
    agent_ipc_init(&ready, AGENT_MSG_READY, 0);
    return agent_child_tell(&ready, err);
}

int main(void)
{
    static struct fetcher f = {.control = AGENT_FD_CONTROL,
                               .keeper = AGENT_FD_KUBELET_KEEPER,
                               .files = {-1, -1, -1, -1},
                               .connection = -1};
    struct err err = ERR_INIT;

    if (start(&f, &err) == 0 && fetcher_run(&f, &err) == 0) {
        return 0;
    }
    agent_child_tell_failure(EXECUTABLE, &err);
    return 1;
}
