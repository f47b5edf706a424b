/* A file through a loader: opened here, parsed there, and said back in messages that are forms and
 * texts to hand on; nothing here acts on what they say. */
#include "supervisor_priv.h"

#include <poll.h>
#include <postern/os.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOADER_MS = 20000 };

static int on_loaded(struct supervisor *s, const struct supervisor_job *job, struct err *err)
{
    if (s->in.loaded.n_diagnostics > 0) {
        return err_set(err, ERR_CONFIG, "%s has %u error%s", job->what, s->in.loaded.n_diagnostics,
                       s->in.loaded.n_diagnostics == 1 ? "" : "s");
    }
    return job->n_taken(s, job->arg) == s->in.loaded.n_entries
               ? 0
               : err_set(err, ERR_PROTOCOL, "the loader lost a part of %s", job->what);
}

/* Everything that the loader says, up to LOADED. */
static int hear(struct supervisor *s, const struct supervisor_job *job, int channel,
                struct err *err)
{
    struct pollfd p = {.fd = channel, .events = POLLIN};
    uint64_t until_ms = os_now_ms() + LOADER_MS;
    uint32_t n_doubts = 0;
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(channel, AGENT_WAY_LOADER_SUPERVISOR, &s->in, &fd)) {
        case IPC_OK:
            break;
        case IPC_AGAIN:
            if (os_now_ms() > until_ms) {
                return err_set(err, ERR_LIMIT, "reading %s takes too long", job->what);
            }
            (void)poll(&p, 1, 500);
            continue;
        case IPC_CLOSED:
            return err_set(err, ERR_CONFIG, "the loader ended before it was done");
        case IPC_BAD:
            return err_set(err, ERR_PROTOCOL, "the loader sent a bad message");
        }
        switch (s->in.head.type) {
        case AGENT_MSG_DIAGNOSTIC:
            log_failure(s->log, LOG_ERROR, job->refused, &s->in.failed.error);
            *job->last_error = s->in.failed.error;
            if (job->on_error != NULL) {
                job->on_error(job->arg, &s->in.failed.error);
            }
            break;
        case AGENT_MSG_DOUBT:
            log_failure(s->log, LOG_WARN, "policy_warning", &s->in.failed.error);
            n_doubts++;
            break;
        case AGENT_MSG_LOADED:
            if (job->n_doubts != NULL) {
                *job->n_doubts = n_doubts;
            }
            return on_loaded(s, job, err);
        case AGENT_MSG_REPORT:
            break;
        default:
            if (job->take(s, job->arg, err) == -1) {
                return -1;
            }
            break;
        }
    }
}

const char *supervisor_job_source(const struct supervisor_job *job)
{
    return job->source != NULL ? job->source : job->path;
}

int supervisor_load(struct supervisor *s, const struct supervisor_job *job, struct err *err)
{
    os_autofd int file = -1;
    siginfo_t info;
    pid_t pid;
    int pidfd, channel, r;

    if (supervisor_source_open(job->path, job->what, &file, err) == -1 ||
        supervisor_spawn_loader(s, job, file, &pid, &pidfd, &channel, err) == -1) {
        return -1;
    }
    r = hear(s, job, channel, err);
    if (r == -1) {
        err_where(err, "%s", supervisor_job_source(job));
    }
    close(channel);
    (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0); /* done, or stuck */
    (void)waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
    close(pidfd);
    if (r == -1 && info.si_code != CLD_EXITED && info.si_status != SIGKILL) {
        err_prefix(err, "signal %d", info.si_status);
    }
    return r;
}
