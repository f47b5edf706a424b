#include "actions_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { ANSWER_MS = 10000, END_MS = ACTIONS_CHILD_MS + 2000, MESSAGES_MAX = 64 };

static const char *const states[ACTIONS_N_STATES] = {"none",    "running", "waiting",
                                                     "done",    "failed",  "timed_out",
                                                     "refused", "skipped", "superseded"};

const char *actions_state_name(enum actions_state state)
{
    POSTERN_ASSERT(state < ACTIONS_N_STATES);
    return states[state];
}

bool actions_state_is_bad(enum actions_state state)
{
    return state == ACTIONS_STATE_FAILED || state == ACTIONS_STATE_TIMED_OUT ||
           state == ACTIONS_STATE_REFUSED;
}

bool actions_needed(const struct conf_rotate *conf)
{
    for (size_t i = 0; i < conf->n_outputs; i++) {
        if (conf->outputs[i].n_after > 0 || conf->outputs[i].verify.present) {
            return true;
        }
    }
    return false;
}

/* --- messages --------------------------------------------------------------------------------- */
static void runner_gone(struct actions *a)
{
    if (!a->gone) {
        a->gone = true;
        loop_io_want(a->io, 0);
        a->events->on_gone(a->arg);
    }
}

bool actions_tell(struct actions *a, const void *msg)
{
    return !a->gone && actions_send(a->channel, msg) == IPC_OK;
}

static struct sequence *find_job(struct actions *a, uint64_t job)
{
    for (size_t i = 0; i < a->n_sequences; i++) {
        if (a->sequences[i].job == job) {
            return &a->sequences[i];
        }
    }
    return NULL; /* of before a reload */
}

static void on_output(struct actions *a, const struct actions_msg_output *m)
{
    const struct sequence *s = find_job(a, m->job);

    if (s != NULL && s->phase == SEQUENCE_RUNNING) {
        a->events->on_output(a->arg, s->output, &s->output->after[s->action],
                             (struct str){m->text, m->len}, m->lost);
    }
}

static void on_child_ended(struct actions *a, const struct actions_msg_child_ended *m)
{
    char text[ACTIONS_TEXT_MAX + 1];

    memcpy(text, m->text, m->text_len);
    text[m->text_len] = '\0';
    a->events->on_child(a->arg, 0, m->status, text);
}

static void on_message(struct actions *a, const union actions_msg *m)
{
    struct sequence *s;

    switch (m->head.type) {
    case ACTIONS_LOADED:
        a->loaded = m->loaded;
        a->has_loaded = true;
        break;
    case ACTIONS_OUTPUT:
        on_output(a, &m->output);
        break;
    case ACTIONS_DONE:
        s = find_job(a, m->done.job);
        if (s != NULL) {
            sequence_done(s, &m->done);
        }
        break;
    case ACTIONS_CHILD_STARTED:
        a->events->on_child(a->arg, m->child_started.pid, 0, "");
        break;
    case ACTIONS_CHILD_ENDED:
        on_child_ended(a, &m->child_ended);
        break;
    default:
        break;
    }
}

static void on_channel(void *arg, unsigned ready)
{
    struct actions *a = arg;
    union actions_msg m;

    (void)ready;
    for (int i = 0; i < MESSAGES_MAX && !a->gone; i++) {
        switch (actions_recv(a->channel, ACTIONS_TO_DAEMON, &m)) {
        case IPC_OK:
            on_message(a, &m);
            break;
        case IPC_AGAIN:
            return;
        case IPC_CLOSED:
        case IPC_BAD:
            runner_gone(a);
            return;
        }
    }
}

/* The runner has read its file: whatever else comes before its word is worked on as usual. */
static int await_loaded(struct actions *a, uint64_t digest, struct err *err)
{
    uint64_t until_ms = os_now_ms() + (uint64_t)a->answer_ms;
    struct pollfd p = {.fd = a->channel, .events = POLLIN};

    a->loaded.failed = 0;
    while (!a->has_loaded) {
        uint64_t now_ms = os_now_ms();

        if (a->gone) {
            return err_set(err, ERR_UNAVAILABLE, "postern-rotate-run has ended");
        }
        if (now_ms >= until_ms) {
            return err_set(err, ERR_UNAVAILABLE, "postern-rotate-run does not answer");
        }
        if (poll(&p, 1, (int)(until_ms - now_ms)) == -1 && errno != EINTR) {
            return err_sys(err, "poll");
        }
        on_channel(a, LOOP_READ);
    }
    a->has_loaded = false;
    if (a->loaded.failed != 0) {
        *err = a->loaded.error;
        return err_prefix(err, "postern-rotate-run");
    }
    if (a->loaded.digest != digest) {
        err_set(err, ERR_CONFIG, "the file was changed between two looks at it");
        err_where(err, "%s", a->conf->path);
        return err_advise(err, "try again");
    }
    return 0;
}

/* --- the start -------------------------------------------------------------------------------- */
static void make_sequences(struct actions *a)
{
    a->n_sequences = a->conf->n_outputs;
    a->sequences = mem_must_calloc(a->n_sequences, sizeof(*a->sequences));
    for (size_t i = 0; i < a->n_sequences; i++) {
        sequence_init(&a->sequences[i], a, i);
    }
}

static void free_sequences(struct actions *a)
{
    for (size_t i = 0; i < a->n_sequences; i++) {
        sequence_deinit(&a->sequences[i]);
    }
    free(a->sequences);
    a->sequences = NULL;
    a->n_sequences = 0;
}

static struct actions *make(struct loop *loop, int fd, const struct conf_rotate *conf,
                            const struct actions_events *events, void *arg)
{
    struct actions *a = mem_must_new(struct actions);

    *a = (struct actions){.loop = loop,
                          .conf = conf,
                          .digest = actions_digest(conf),
                          .events = events,
                          .arg = arg,
                          .channel = fd,
                          .pidfd = -1,
                          .answer_ms = ANSWER_MS};
    a->io = loop_io_new(loop, fd, on_channel, a);
    make_sequences(a);
    return a;
}

struct actions *actions_new_on(struct loop *loop, int fd, const struct conf_rotate *conf,
                               const struct actions_events *events, void *arg, struct err *err)
{
    struct actions *a = make(loop, fd, conf, events, arg);

    if (await_loaded(a, a->digest, err) == -1) {
        return actions_free(a);
    }
    loop_io_want(a->io, LOOP_READ);
    return a;
}

/* Its own helper is beside it. A child gets our whole environment; without one there is nothing but
 * switches of tests, and of sanitizers. */
static const char **make_env(const char *path, bool whole, char **store)
{
    static const char *const names[] = {"POSTERN_SANDBOX_KILL", "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    const char *slash = strrchr(path, '/');
    size_t n = 0, n_ours = 0;
    const char **env;

    while (environ != NULL && environ[n] != NULL) {
        n++;
    }
    env = mem_must_calloc(n + 2, sizeof(*env));
    *store = mem_must_printf("POSTERN_LIBEXEC=%.*s", (int)(slash - path), path);
    env[n_ours++] = *store;
    for (size_t i = 0; i < n; i++) {
        bool wanted = whole;

        for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
            size_t len = strlen(names[k]);

            wanted |= strncmp(environ[i], names[k], len) == 0 && environ[i][len] == '=';
        }
        if (wanted && strncmp(environ[i], "POSTERN_LIBEXEC=", 16) != 0) {
            env[n_ours++] = environ[i];
        }
    }
    return env;
}

static int spawn(const struct conf_rotate *conf, const char *const *child_argv, int channel,
                 pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
    char path[4096];
    mem_autofree char *store = NULL;
    mem_autofree const char **env = NULL;
    mem_autofree const char **argv = NULL;
    struct proc_spec spec = {.path = path, .n_fds = 1};
    size_t n = 0;

    if (proc_helper_path("postern-rotate-run", path, sizeof(path), err) == -1) {
        return -1;
    }
    while (child_argv != NULL && child_argv[n] != NULL) {
        n++;
    }
    argv = mem_must_calloc(n + 4, sizeof(*argv));
    argv[0] = "postern-rotate-run";
    argv[1] = conf->path;
    if (n > 0) {
        argv[2] = "--";
        memcpy(argv + 3, child_argv, n * sizeof(*argv));
    }
    env = make_env(path, n > 0, &store);
    spec.argv = argv;
    spec.env = env;
    spec.fds[0] = channel;
    return proc_spawn(&spec, ret_pid, ret_pidfd, err);
}

struct actions *actions_new(struct loop *loop, const struct conf_rotate *conf,
                            const char *const *child_argv, const struct actions_events *events,
                            void *arg, struct err *err)
{
    struct actions *a;
    int pair[2], pidfd = -1;
    pid_t pid = 0;
    int r;

    if (ipc_pair(pair, err) == -1) {
        return NULL;
    }
    r = spawn(conf, child_argv, pair[1], &pid, &pidfd, err);
    close(pair[1]);
    if (r == -1) {
        close(pair[0]);
        return NULL;
    }
    a = make(loop, pair[0], conf, events, arg);
    a->pid = pid;
    a->pidfd = pidfd;
    a->child_wanted = child_argv != NULL;
    if (await_loaded(a, a->digest, err) == -1) {
        /* Nothing runs yet that would have to be ended in order, and later the sandbox forbids it.
         */
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        return actions_free(a);
    }
    loop_io_want(a->io, LOOP_READ);
    return a;
}

/* --- the end ---------------------------------------------------------------------------------- */
struct actions *actions_free(struct actions *a)
{
    struct pollfd p;

    if (a == NULL) {
        return NULL;
    }
    free_sequences(a);
    loop_io_free(a->io);
    close(a->channel); /* the runner ends by that */
    if (a->pidfd != -1) {
        siginfo_t info;

        p = (struct pollfd){.fd = a->pidfd, .events = POLLIN};
        (void)poll(&p, 1, END_MS);
        (void)waitid(P_PIDFD, (id_t)a->pidfd, &info, WEXITED | WNOHANG);
        close(a->pidfd);
    }
    free(a);
    return NULL;
}

/* --- reload ----------------------------------------------------------------------------------- */
/* What is known of an output stays with its directory. */
static void carry_over(struct sequence *to, const struct sequence *from)
{
    to->has_want = from->has_want;
    to->has_old = from->has_old;
    memcpy(to->want, from->want, sizeof(to->want));
    memcpy(to->old, from->old, sizeof(to->old));
    memcpy(to->n_by_state, from->n_by_state, sizeof(to->n_by_state));
    memcpy(to->n_by_verdict, from->n_by_verdict, sizeof(to->n_by_verdict));
}

int actions_reload(struct actions *a, const struct conf_rotate *conf, struct err *err)
{
    struct sequence *old = a->sequences;
    size_t n_old = a->n_sequences;
    struct actions_msg_reload m;

    actions_wire_init(&m, ACTIONS_RELOAD);
    m.digest = actions_digest(conf);
    a->has_loaded = false;
    if (!actions_tell(a, &m)) {
        return err_set(err, ERR_UNAVAILABLE, "postern-rotate-run does not answer");
    }
    if (await_loaded(a, m.digest, err) == -1) {
        /* Only when it says no, both stay with the old file. Else it may read the new one at any
         * time, or has already. */
        if (a->loaded.failed == 0) {
            runner_gone(a);
        }
        return -1;
    }
    a->conf = conf;
    a->digest = m.digest;
    for (size_t i = 0; i < n_old; i++) {
        sequence_stop(&old[i]);
    }
    make_sequences(a);
    for (size_t i = 0; i < a->n_sequences; i++) {
        for (size_t k = 0; k < n_old; k++) {
            if (strcmp(conf->outputs[i].directory, old[k].output->directory) == 0) {
                carry_over(&a->sequences[i], &old[k]);
            }
        }
    }
    for (size_t i = 0; i < n_old; i++) {
        sequence_deinit(&old[i]);
    }
    free(old);
    return 0;
}

/* --- what is asked of it ---------------------------------------------------------------------- */
void actions_note_leaf(struct actions *a, size_t output, const uint8_t leaf[ACTIONS_SHA256_SIZE])
{
    struct sequence *s = &a->sequences[output];

    s->has_want = true;
    memcpy(s->want, leaf, ACTIONS_SHA256_SIZE);
}

void actions_run(struct actions *a, size_t output, uint64_t generation, const uint8_t *leaf)
{
    POSTERN_ASSERT(output < a->n_sequences);
    sequence_change(&a->sequences[output], generation, leaf);
}

bool actions_idle(const struct actions *a)
{
    for (size_t i = 0; i < a->n_sequences; i++) {
        if (a->sequences[i].phase != SEQUENCE_IDLE) {
            return false;
        }
    }
    return true;
}

bool actions_all_well(const struct actions *a)
{
    for (size_t i = 0; i < a->n_sequences; i++) {
        const struct sequence *s = &a->sequences[i];

        for (size_t k = 0; k < s->output->n_after; k++) {
            if (actions_state_is_bad(s->results[k].state)) {
                return false;
            }
        }
        if (s->verified.known && s->verified.verdict != ACTIONS_SERVED) {
            return false;
        }
    }
    return true;
}

void actions_get_status(const struct actions *a, size_t output, struct actions_status *ret)
{
    const struct sequence *s = &a->sequences[output];

    POSTERN_ASSERT(output < a->n_sequences);
    *ret = (struct actions_status){.actions = s->results,
                                   .n_actions = s->output->n_after,
                                   .verified = s->verified,
                                   .idle = s->phase == SEQUENCE_IDLE};
    memcpy(ret->n_by_state, s->n_by_state, sizeof(ret->n_by_state));
    memcpy(ret->n_by_verdict, s->n_by_verdict, sizeof(ret->n_by_verdict));
}

void actions_child_start(struct actions *a)
{
    struct actions_msg_child_start m;

    if (a->child_wanted && !a->child_started) {
        a->child_started = true;
        actions_wire_init(&m, ACTIONS_CHILD_START);
        if (!actions_tell(a, &m)) {
            runner_gone(a);
        }
    }
}

void actions_child_signal(struct actions *a, int signo)
{
    struct actions_msg_child_signal m;

    actions_wire_init(&m, ACTIONS_CHILD_SIGNAL);
    m.signo = (uint32_t)signo;
    if (a->child_wanted && !actions_tell(a, &m)) {
        runner_gone(a);
    }
}
