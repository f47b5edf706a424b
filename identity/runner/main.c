/*
 * postern-rotate-run: does what is to be done after a change of files, for `postern rotate`, which
 * itself may start nothing.
 *
 * Arguments: the configuration's path, and with `--` the program to supervise. Descriptor
 * ACTIONS_FD_CHANNEL: the daemon. It reads the configuration by itself, says so, and then does what
 * numbers tell it. When the daemon goes, it ends what it has started, and then itself.
 */
#include "runner_priv.h"

#include <postern/mem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGES_MAX = 32, BUSY_QUEUE = 64 };

/* --- telling ---------------------------------------------------------------------------------- */
struct runner_queued {
    struct runner_queued *next;
    union actions_msg msg;
};

static void leave(struct runner *r, int status);

static void flush_queue(struct runner *r)
{
    while (r->queue != NULL) {
        struct runner_queued *q = r->queue;
        enum ipc_outcome outcome = actions_send(ACTIONS_FD_CHANNEL, &q->msg);

        if (outcome == IPC_AGAIN) {
            break;
        }
        r->queue = q->next;
        r->n_queued--;
        if (r->queue == NULL) {
            r->queue_end = &r->queue;
        }
        free(q);
    }
    if (r->channel != NULL) {
        loop_io_want(r->channel, (r->leaving ? 0 : LOOP_READ) |
                                     (r->queue != NULL && !r->leaving ? LOOP_WRITE : 0));
    }
}

void runner_tell(struct runner *r, const void *msg)
{
    struct runner_queued *q;
    struct actions_head head;

    if (r->leaving) {
        return; /* nobody listens */
    }
    memcpy(&head, msg, sizeof(head));
    q = mem_must_new(struct runner_queued);
    memcpy(&q->msg, msg, head.size);
    *r->queue_end = q;
    r->queue_end = &q->next;
    r->n_queued++;
    flush_queue(r);
}

bool runner_is_busy(const struct runner *r)
{
    return r->n_queued >= BUSY_QUEUE;
}

static void tell_loaded(struct runner *r, const struct err *failure)
{
    struct actions_msg_loaded m;

    actions_wire_init(&m, ACTIONS_LOADED);
    m.digest = r->conf != NULL ? actions_digest(r->conf) : 0;
    if (failure != NULL) {
        m.failed = 1;
        m.error = *failure;
    }
    runner_tell(r, &m);
}

/* --- the end ---------------------------------------------------------------------------------- */
void runner_check_end(struct runner *r)
{
    if (r->leaving && r->n_jobs == 0 && r->child.pid == 0) {
        loop_stop(r->loop);
    }
}

static void leave(struct runner *r, int status)
{
    if (r->leaving) {
        return;
    }
    r->leaving = true;
    r->status = status;
    loop_io_want(r->channel, 0);
    runner_jobs_leave(r);
    runner_child_leave(r);
    runner_check_end(r);
}

/* --- messages --------------------------------------------------------------------------------- */
static void on_reload(struct runner *r, const struct actions_msg_reload *m)
{
    struct conf_rotate *conf = NULL;
    struct err err = ERR_INIT;

    if (runner_load(r->config_path, &conf, &err) == -1) {
        tell_loaded(r, &err);
        return;
    }
    if (actions_digest(conf) != m->digest) {
        err_set(&err, ERR_CONFIG, "the file was changed between two looks at it");
        err_where(&err, "%s", r->config_path);
        err_advise(&err, "reload again");
        conf_rotate_free(conf);
        tell_loaded(r, &err);
        return;
    }
    conf_rotate_free(r->conf);
    r->conf = conf;
    tell_loaded(r, NULL);
}

static void on_message(struct runner *r, const union actions_msg *m)
{
    char ignored[ACTIONS_TEXT_MAX];

    switch (m->head.type) {
    case ACTIONS_RUN:
        runner_job_run(r, &m->run);
        break;
    case ACTIONS_VERIFY:
        runner_job_verify(r, &m->verify);
        break;
    case ACTIONS_CANCEL:
        runner_job_cancel(r, m->cancel.job);
        break;
    case ACTIONS_RELOAD:
        on_reload(r, &m->reload);
        break;
    case ACTIONS_CHILD_START:
        runner_child_start(r);
        break;
    case ACTIONS_CHILD_SIGNAL:
        (void)runner_child_signal(r, (int)m->child_signal.signo, ignored);
        break;
    default:
        POSTERN_ASSERT(false); /* actions_recv lets no other through */
    }
}

static void on_channel(void *arg, unsigned ready)
{
    struct runner *r = arg;
    union actions_msg m;

    if ((ready & LOOP_WRITE) != 0) {
        flush_queue(r);
    }
    for (int i = 0; (ready & LOOP_READ) != 0 && i < MESSAGES_MAX && !r->leaving; i++) {
        switch (actions_recv(ACTIONS_FD_CHANNEL, ACTIONS_TO_RUNNER, &m)) {
        case IPC_OK:
            on_message(r, &m);
            break;
        case IPC_AGAIN:
            return;
        case IPC_CLOSED:
            leave(r, 0);
            return;
        case IPC_BAD:
            (void)dprintf(STDERR_FILENO, "postern-rotate-run: a message that is none: the end\n");
            leave(r, 1);
            return;
        }
    }
}

/* Also the orphans of what we started: they have become ours. */
static void on_child_signal(void *arg, int signo)
{
    struct runner *r = arg;

    (void)signo;
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        int wait_status = 0;

        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == -1 || info.si_pid == 0) {
            return;
        }
        /* As long as it is not reaped, the group's number is nobody else's. */
        if (runner_job_is_overdue(r, info.si_pid)) {
            (void)kill(-info.si_pid, SIGKILL);
        }
        if (waitpid(info.si_pid, &wait_status, WNOHANG) != info.si_pid) {
            return;
        }
        if (!runner_job_reap(r, info.si_pid, wait_status)) {
            (void)runner_child_reap(r, info.si_pid, wait_status);
        }
    }
}

/* --- the start -------------------------------------------------------------------------------- */
enum { LEAVE_S = ACTIONS_CHILD_MS / 1000 + 2 };

/* The daemon is gone. Whoever does not get to the end by himself from here is ended by the second
 * one: for it, there is no handler any more. */
static void on_parent_death(int signo)
{
    (void)signo;
    (void)alarm(LEAVE_S);
}

/* A terminal or a service manager may signal the whole group: what is to be done then, the daemon
 * says. */
static int set_signals(struct runner *r, struct err *err)
{
    const struct sigaction once = {.sa_handler = on_parent_death,
                                   .sa_flags = (int)SA_RESETHAND | SA_RESTART};

    static const int ignored[] = {SIGINT,  SIGQUIT, SIGTERM, SIGHUP,  SIGPIPE,
                                  SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    if (sigaction(SIGALRM, &once, NULL) == -1 || prctl(PR_SET_PDEATHSIG, SIGALRM, 0, 0, 0) == -1) {
        return err_sys(err, "the daemon's end would not be told");
    }
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++) {
        if (sigaction(ignored[i], &ignore, NULL) == -1) {
            return err_sys(err, "sigaction");
        }
    }
    return loop_signal(r->loop, SIGCHLD, on_child_signal, r, err);
}

static int start(struct runner *r, int argc, char **argv, struct err *err)
{
    if (argc < 2 || (argc > 2 && (strcmp(argv[2], "--") != 0 || argc == 3))) {
        err_set(err, ERR_USAGE, "usage: postern-rotate-run FILE [-- CMD ARGS]");
        return err_advise(err, "postern-rotate-run is started by `postern rotate`");
    }
    r->config_path = argv[1];
    r->child_argv = argc > 2 ? (const char *const *)(uintptr_t)(argv + 3) : NULL;
    r->loop = loop_new(err);
    if (r->loop == NULL || set_signals(r, err) == -1 || attest_view_init(&r->view, err) == -1) {
        return -1;
    }
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == -1) {
        return err_sys(err, "orphans would not come to us");
    }
    r->channel = loop_io_new(r->loop, ACTIONS_FD_CHANNEL, on_channel, r);
    return runner_load(r->config_path, &r->conf, err);
}

int main(int argc, char **argv)
{
    struct runner r = {.view = {.proc_fd = -1, .mounts = {.fd = -1}}};
    struct err err = ERR_INIT;
    char text[1200];

    r.queue_end = &r.queue;
    if (start(&r, argc, argv, &err) == -1) {
        if (r.channel != NULL) {
            tell_loaded(&r, &err);
        } else {
            (void)dprintf(STDERR_FILENO, "postern-rotate-run: %s\n",
                          err_text(&err, text, sizeof(text)));
        }
        r.status = 1;
    } else {
        tell_loaded(&r, NULL);
        loop_io_want(r.channel, LOOP_READ);
        loop_run(r.loop);
    }
    runner_jobs_free(&r);
    while (r.queue != NULL) {
        struct runner_queued *q = r.queue;

        r.queue = q->next;
        free(q);
    }
    conf_rotate_free(r.conf);
    attest_view_deinit(&r.view);
    if (r.channel != NULL) {
        loop_io_free(r.channel);
    }
    if (r.loop != NULL) {
        loop_free(r.loop);
    }
    return r.status;
}
