/*
 * postern-kubelet: the process that asks the node's kubelet which pods and containers there are.
 *
 * main.c    its start, as a list
 * privs.c   all that it may do
 * run.c     when it asks, and what it says then
 * tell.c    a list of pods as messages to the keeper
 * pods.c response.c exchange.c   the library below it (<postern/kubelet.h>)
 *
 * It opens no file and makes no socket: for each question the supervisor hands it the files, read
 * anew, and a connection to the one address that the configuration names. One thread.
 */
#ifndef POSTERN_KUBELET_PRIV_H
#define POSTERN_KUBELET_PRIV_H

#include <postern/agent_ipc.h>
#include <postern/kubelet.h>

struct fetcher {
    int control, keeper;
    struct agent_msg_start_kubelet start;
    char host[AGENT_HOST_MAX + 1];
    char server_name[AGENT_POD_NAME_MAX + 1];
    char node_name[AGENT_POD_NAME_MAX + 1];
    struct agent_msg_kubelet_state state;
    uint64_t asked_ms;                /* when the last question began; 0: none yet */
    unsigned n_failures;              /* in a row */
    bool wanted;                      /* the keeper cannot wait for the next poll */
    int files[AGENT_N_KUBELET_FILES]; /* for the question that is being asked; -1: none */
    int connection;
    union agent_msg in;
};

/* Until the supervisor closes the control channel: 0 then, -1 if it cannot go on. */
int fetcher_run(struct fetcher *f, struct err *err);
/* All pods to the keeper. Waits for room. -1: the keeper or the supervisor is gone. */
int fetcher_tell_pods(struct fetcher *f, const struct kubelet_pods *pods, struct err *err);

int fetcher_drop_privileges(const struct agent_msg_start_kubelet *start,
                            struct agent_msg_report *ret_report, struct err *err);

#endif
