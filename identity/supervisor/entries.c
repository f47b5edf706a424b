#include "supervisor_priv.h"

#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOADER_MS = 20000 };

static void keep_entry(struct supervisor *s, size_t *cap)
{
    if (s->n_loaded == *cap) {
        *cap = *cap > 0 ? 2 * *cap : 16;
        s->loaded = mem_must_realloc(s->loaded, *cap * sizeof(*s->loaded));
    }
    s->loaded[s->n_loaded++] = s->in.entry;
}

/* Everything that the loader says, up to LOADED. What it says came out of a parser: it is forms and
 * texts to hand on, and nothing here acts on them. */
static int hear_loader(struct supervisor *s, int channel, struct err *err)
{
    struct pollfd p = {.fd = channel, .events = POLLIN};
    uint64_t until_ms = os_now_ms() + LOADER_MS;
    size_t cap = 0;
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(channel, AGENT_WAY_LOADER_SUPERVISOR, &s->in, &fd)) {
        case IPC_OK:
            break;
        case IPC_AGAIN:
            if (os_now_ms() > until_ms) {
                return err_set(err, ERR_LIMIT, "reading the entries takes too long");
            }
            (void)poll(&p, 1, 500);
            continue;
        case IPC_CLOSED:
            return err_set(err, ERR_CONFIG, "the loader ended before it was done");
        case IPC_BAD:
            return err_set(err, ERR_PROTOCOL, "the loader sent a bad message");
        }
        switch (s->in.head.type) {
        case AGENT_MSG_ENTRY:
            if (s->n_loaded >= AGENT_ENTRIES_MAX) {
                return err_set(err, ERR_LIMIT, "more than %d entries", AGENT_ENTRIES_MAX);
            }
            keep_entry(s, &cap);
            break;
        case AGENT_MSG_DIAGNOSTIC:
            log_failure(s->log, LOG_ERROR, "entries_refused", &s->in.failed.error);
            s->entries.error = s->in.failed.error;
            break;
        case AGENT_MSG_LOADED:
            if (s->in.loaded.n_diagnostics > 0) {
                return err_set(err, ERR_CONFIG, "the entry file has %u error%s",
                               s->in.loaded.n_diagnostics,
                               s->in.loaded.n_diagnostics == 1 ? "" : "s");
            }
            return s->in.loaded.n_entries == s->n_loaded
                       ? 0
                       : err_set(err, ERR_PROTOCOL, "the loader lost entries");
        default: /* its report */
            break;
        }
    }
}

int supervisor_load_entries(struct supervisor *s, struct err *err)
{
    os_autofd int file = -1;
    siginfo_t info;
    pid_t pid;
    int pidfd, channel, r;

    s->n_loaded = 0;
    supervisor_watch_taken(s, &s->reload);
    if (supervisor_source_open(s->conf->entries_path, "the entry file", &file, err) == -1) {
        return -1;
    }
    if (supervisor_spawn_loader(s, file, &pid, &pidfd, &channel, err) == -1) {
        return -1;
    }
    r = hear_loader(s, channel, err);
    if (r == -1) {
        err_where(err, "%s", s->conf->entries_path);
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

int supervisor_send_entries(struct supervisor *s, struct err *err)
{
    struct agent_msg_entries_begin frame;
    int r;

    s->generation++;
    s->applied = false;
    agent_ipc_init(&frame, AGENT_MSG_ENTRIES_BEGIN, 0);
    frame.generation = s->generation;
    frame.n_entries = (uint32_t)s->n_loaded;
    r = supervisor_tell(s, AGENT_ROLE_KEEPER, &frame, -1, err);
    for (size_t i = 0; r == 0 && i < s->n_loaded; i++) {
        r = supervisor_tell(s, AGENT_ROLE_KEEPER, &s->loaded[i], -1, err);
    }
    agent_ipc_init(&frame, AGENT_MSG_ENTRIES_COMMIT, 0);
    frame.generation = s->generation;
    frame.n_entries = (uint32_t)s->n_loaded;
    if (r == 0) {
        r = supervisor_tell(s, AGENT_ROLE_KEEPER, &frame, -1, err);
    }
    free(s->loaded);
    s->loaded = NULL;
    s->n_loaded = 0;
    return r;
}
