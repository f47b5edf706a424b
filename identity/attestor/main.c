/*
 * postern-attestor: accepts the callers of an agent and says who they are.
 * docs/privilege-separation.md says what for whom. It starts as a list: what the supervisor wants
 * it to be, what it has to open, giving up everything else, and only then the first caller.
 */
#include "attestor_priv.h"

#include <postern/agent_child.h>
#include <unistd.h>

static const char EXECUTABLE[] = "postern-attestor";

static int start(struct attestor *a, struct err *err)
{
    struct agent_msg_start_attestor s;
    struct agent_msg_report report;
    struct agent_msg_plain ready;

    if (agent_child_wait_start(AGENT_WAY_SUPERVISOR_ATTESTOR, AGENT_MSG_START_ATTESTOR, EXECUTABLE,
                               &a->in, err) == -1) {
        return -1;
    }
    s = a->in.start_attestor;
    log_set_level(a->log, (enum log_level)s.log_level);
    if (attestor_drop_privileges(&s, &report, err) == -1 || agent_child_tell(&report, err) == -1 ||
        attest_view_init(&a->view, err) == -1) {
        return -1;
    }
    a->view.force_fallback = s.force_fallback;
    a->digests = attestor_digests_new();
    attestor_digests_limit(a->digests, s.hash_max_bytes);
    a->callers = attestor_callers_new(s.max_handles, s.max_uid_handles);
    agent_ipc_init(&ready, AGENT_MSG_READY, 0);
    return agent_child_tell(&ready, err);
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
        agent_child_tell_failure(EXECUTABLE, &err);
    }
    attestor_digests_free(a.digests);
    attestor_callers_free(a.callers);
    attest_view_deinit(&a.view);
    log_free(a.log);
    _exit(r == -1 ? 1 : 0); /* no handlers: what they would do is not in the list of privs.c */
}
