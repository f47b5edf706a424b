/* job: one try of an action, or a question, from its message to its answer. A job that starts a
 * process ends when that is reaped, and not before. */
#include "runner_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PROBE_SPARE_MS = 2000, /* beyond its own time, until it is ended */
    READS_MAX = 16,        /* of a pipe in one turn */
    QUIET_QUEUE = 64,      /* messages that wait: from then on lines of output are dropped */
    ARGV_SPACE = 72,
    ENV_SPACE = 8,
};

struct runner_job {
    struct runner_job *next;
    struct runner *runner;
    uint64_t id;
    pid_t pid;
    bool is_probe, is_verify;
    bool answered; /* the probe has said what it found */
    bool cancelled, timed_out, killed;
    struct loop_timer timer;
    int fd; /* the pipe of its output, or the channel to the probe; owned */
    struct loop_io *io;
    struct runner_lines *lines;      /* owned; programs only */
    struct probe_question *question; /* owned; until it is sent */
    struct conf_status_range expect[CONF_EXPECT_MAX];
    size_t n_expect;
    struct actions_msg_done done;
};

/* --- answers ---------------------------------------------------------------------------------- */
static void begin_answer(struct actions_msg_done *m, uint64_t job)
{
    actions_wire_init(m, ACTIONS_DONE);
    m->job = job;
    m->exit_status = -1;
    m->verdict = ACTIONS_UNREACHABLE;
}

static void set_text(struct actions_msg_done *m, const char *text)
{
    size_t len = strlen(text);

    m->text_len = (uint32_t)(len < ACTIONS_TEXT_MAX ? len : ACTIONS_TEXT_MAX);
    memcpy(m->text, text, m->text_len);
}

static void answer_at_once(struct runner *r, uint64_t job, enum actions_outcome outcome,
                           const char *text)
{
    struct actions_msg_done m;

    begin_answer(&m, job);
    m.outcome = outcome;
    set_text(&m, text);
    runner_tell(r, &m);
}

static void answer_failure(struct runner *r, uint64_t job, enum actions_outcome outcome,
                           const struct err *err)
{
    char text[1200];

    answer_at_once(r, job, outcome, err_text(err, text, sizeof(text)));
}

/* --- a job ------------------------------------------------------------------------------------ */
static void job_free(struct runner_job *j)
{
    loop_timer_disarm(&j->timer);
    if (j->io != NULL) {
        loop_io_free(j->io);
    }
    if (j->fd != -1) {
        close(j->fd);
    }
    free(j->lines);
    if (j->question != NULL) {
        mem_wipe(j->question, sizeof(*j->question)); /* a header may hold a password */
        free(j->question);
    }
    free(j);
}

static struct runner_job *job_new(struct runner *r, uint64_t id, uint32_t timeout_ms);

static void unlink_job(struct runner *r, struct runner_job *j)
{
    struct runner_job **at = &r->jobs;

    while (*at != j) {
        at = &(*at)->next;
    }
    *at = j->next;
    r->n_jobs--;
}

static void end_job(struct runner_job *j)
{
    struct runner *r = j->runner;

    runner_tell(r, &j->done);
    unlink_job(r, j);
    job_free(j);
    runner_check_end(r);
}

static void on_time(void *arg)
{
    struct runner_job *j = arg;

    j->timed_out = true;
    if (j->is_probe || j->killed) {
        (void)kill(-j->pid, SIGKILL);
        return;
    }
    j->killed = true;
    (void)kill(-j->pid, SIGTERM);
    (void)kill(-j->pid, SIGCONT); /* a stopped one could not take it */
    loop_timer_arm(&j->timer, ACTIONS_TERM_MS);
}

static struct runner_job *job_new(struct runner *r, uint64_t id, uint32_t timeout_ms)
{
    struct runner_job *j = mem_must_new(struct runner_job);

    j->runner = r;
    j->id = id;
    j->fd = -1;
    begin_answer(&j->done, id);
    loop_timer_init(&j->timer, r->loop, on_time, j);
    loop_timer_arm(&j->timer, timeout_ms);
    j->next = r->jobs;
    r->jobs = j;
    r->n_jobs++;
    return j;
}

/* --- programs --------------------------------------------------------------------------------- */
static void on_line(void *arg, const char *line, size_t len)
{
    struct runner_job *j = arg;
    struct actions_msg_output m;

    if (runner_is_busy(j->runner)) {
        j->lines->n_lost++;
        return;
    }
    actions_wire_init(&m, ACTIONS_OUTPUT);
    m.job = j->id;
    m.len = (uint32_t)len;
    memcpy(m.text, line, len);
    runner_tell(j->runner, &m);
}

/* false: nothing more is there now, or ever. */
static bool read_output(struct runner_job *j)
{
    char bytes[4096];
    ssize_t n = read(j->fd, bytes, sizeof(bytes));

    if (n > 0) {
        runner_lines_feed(j->lines, bytes, (size_t)n, on_line, j);
    }
    if (n == 0) {
        loop_io_want(j->io, 0);
    }
    return n > 0;
}

static void on_output(void *arg, unsigned ready)
{
    struct runner_job *j = arg;

    (void)ready;
    for (int i = 0; i < READS_MAX && read_output(j); i++) {
    }
}

static void end_output(struct runner_job *j)
{
    struct actions_msg_output m;

    for (int i = 0; i < READS_MAX && read_output(j); i++) {
    }
    runner_lines_end(j->lines, on_line, j);
    if (j->lines->n_lost > 0) {
        actions_wire_init(&m, ACTIONS_OUTPUT);
        m.job = j->id;
        m.lost = j->lines->n_lost;
        runner_tell(j->runner, &m);
    }
}

static void own_home(char *ret, size_t size)
{
    char space[4096];
    struct passwd pw;
    struct passwd *found = NULL;

    (void)getpwuid_r(geteuid(), &pw, space, sizeof(space), &found);
    (void)snprintf(ret, size, "%s", found != NULL ? found->pw_dir : "/");
}

static int start_program(struct runner_job *j, struct runner_spawn *spec,
                         const struct conf_rotate_output *o, const char *home, uint64_t generation,
                         struct err *err)
{
    char own[256];
    mem_autofree char *home_is = NULL;
    mem_autofree char *output_is = mem_must_printf("POSTERN_OUTPUT=%s", o->name);
    mem_autofree char *directory_is = mem_must_printf("POSTERN_DIRECTORY=%s", o->directory);
    mem_autofree char *generation_is =
        mem_must_printf("POSTERN_GENERATION=%llu", (unsigned long long)generation);
    os_autofd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int pipe_fds[2];
    int r;

    own_home(own, sizeof(own));
    home_is = mem_must_printf("HOME=%s", home != NULL ? home : own);
    const char *env[ENV_SPACE] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        home_is,
        output_is,
        directory_is,
        generation_is,
        NULL};
    if (null == -1 || pipe2(pipe_fds, O_CLOEXEC) == -1) {
        return err_sys(err, "no pipe for the program's output");
    }
    os_autofd int write_end = pipe_fds[1];
    j->fd = pipe_fds[0];
    spec->env = env;
    spec->in = null;
    spec->out = write_end;
    spec->channel = -1;
    spec->new_session = true;
    spec->no_new_privs = true;
    r = os_set_nonblock(j->fd) == -1 ? err_sys(err, "no pipe for the program's output")
                                     : runner_spawn(spec, &j->pid, err);
    if (r == 0) {
        j->lines = mem_must_new(struct runner_lines);
        j->io = loop_io_new(j->runner->loop, j->fd, on_output, j);
        loop_io_want(j->io, LOOP_READ);
    }
    return r;
}

static void run_program(struct runner *r, const struct actions_msg_run *m,
                        const struct conf_rotate_output *o, const struct conf_after *a)
{
    const char *argv[ARGV_SPACE] = {NULL};
    struct runner_spawn spec = {.argv = argv};
    struct runner_job *j = job_new(r, m->job, a->timeout_ms);
    struct err err = ERR_INIT;

    if (a->kind == CONF_AFTER_COMMAND) {
        POSTERN_ASSERT(a->command.argv.n < ARGV_SPACE);
        for (size_t i = 0; i < a->command.argv.n; i++) {
            argv[i] = a->command.argv.items[i];
        }
        spec.has_user = a->command.has_user;
        spec.uid = a->command.uid;
        spec.gid = a->command.gid;
    } else {
        argv[0] = a->systemd.systemctl;
        argv[1] = "--no-ask-password";
        argv[2] = conf_systemd_verb_name(a->systemd.verb);
        argv[3] = "--";
        argv[4] = a->systemd.units[a->systemd.verb];
    }
    if (start_program(j, &spec, o, spec.has_user ? a->command.home : NULL, m->generation, &err) ==
        -1) {
        unlink_job(r, j);
        job_free(j);
        answer_failure(r, m->job, ACTIONS_FAILED, &err);
    }
}

/* --- signals ---------------------------------------------------------------------------------- */
static void run_signal(struct runner *r, const struct actions_msg_run *m,
                       const struct conf_after *a)
{
    const pid_t own[] = {getpid(), getppid()};
    const struct runner_target target = {.pid_file = a->signal.pid_file,
                                         .pid = (pid_t)a->signal.pid,
                                         .executable = a->signal.executable,
                                         .any_mounts = a->signal.any_mounts != 0,
                                         .signo = a->signal.signo,
                                         .own = own,
                                         .n_own = sizeof(own) / sizeof(own[0])};
    char text[ACTIONS_TEXT_MAX] = "";
    enum actions_outcome outcome = a->signal.child ? runner_child_signal(r, a->signal.signo, text)
                                                   : runner_signal(&r->view, &target, text);

    answer_at_once(r, m->job, outcome, text);
}

/* --- questions -------------------------------------------------------------------------------- */
static void on_probe(void *arg, unsigned ready)
{
    struct runner_job *j = arg;
    struct probe_answer a;
    size_t len = 0;
    int passed = -1;
    enum ipc_outcome outcome;

    (void)ready;
    outcome = ipc_recv(j->fd, &a, sizeof(a), &len, &passed);
    if (outcome == IPC_AGAIN) {
        return;
    }
    loop_io_want(j->io, 0);
    if (passed != -1) {
        close(passed);
    }
    /* It has read a stranger's bytes: it is believed what it may say, and no more. */
    if (outcome != IPC_OK || passed != -1 || !probe_answer_check(&a, len)) {
        return;
    }
    j->answered = true;
    j->done.outcome = a.outcome;
    j->done.verdict = a.verdict;
    j->done.http_status = a.http_status;
    j->done.tries = a.tries;
    j->done.has_seen = a.has_seen;
    memcpy(j->done.seen, a.seen, sizeof(a.seen));
    j->done.text_len = a.text_len;
    memcpy(j->done.text, a.text, a.text_len);
}

/* Switches of tests, and of sanitizers. */
static int start_probe(struct runner_job *j, const struct probe_question *q, struct err *err)
{
    static const char *const names[] = {"POSTERN_SANDBOX_KILL", "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    char path[4096];
    char *store[3] = {NULL};
    const char *env[4] = {NULL};
    const char *argv[] = {path, NULL};
    os_autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int pair[2];
    struct runner_spawn spec = {
        .argv = argv, .env = env, .in = null, .out = -1, .new_session = true, .no_new_privs = true};
    size_t n = 0;
    int r;

    if (null == -1) {
        return err_sys(err, "/dev/null");
    }
    if (proc_helper_path("postern-rotate-probe", path, sizeof(path), err) == -1 ||
        ipc_pair(pair, err) == -1) {
        return -1;
    }
    os_autofd int theirs = pair[1];
    j->fd = pair[0];
    spec.channel = theirs;
    for (size_t i = 0; i < 3; i++) {
        const char *value = secure_getenv(names[i]);

        if (value != NULL) {
            store[n] = mem_must_printf("%s=%s", names[i], value);
            env[n] = store[n];
            n++;
        }
    }
    r = runner_spawn(&spec, &j->pid, err);
    for (size_t i = 0; i < n; i++) {
        free(store[i]);
    }
    if (r == 0 && ipc_send(j->fd, q, sizeof(*q), -1) != IPC_OK) {
        r = err_set(err, ERR_SYSTEM, "the probe does not take its question");
        (void)kill(j->pid, SIGKILL); /* reaped with the others; no job knows it then */
    }
    if (r == 0) {
        j->is_probe = true;
        j->io = loop_io_new(j->runner->loop, j->fd, on_probe, j);
        loop_io_want(j->io, LOOP_READ);
    }
    return r;
}

static void ask(struct runner *r, uint64_t id, const struct probe_question *q,
                const struct conf_after *http)
{
    struct runner_job *j = job_new(r, id, q->timeout_ms + PROBE_SPARE_MS);
    struct err err = ERR_INIT;

    j->is_verify = http == NULL;
    if (http != NULL) {
        memcpy(j->expect, http->http.expect, sizeof(j->expect));
        j->n_expect = http->http.n_expect;
    }
    if (start_probe(j, q, &err) == -1) {
        unlink_job(r, j);
        job_free(j);
        answer_failure(r, id, ACTIONS_FAILED, &err);
    }
}

static void run_http(struct runner *r, const struct actions_msg_run *m, const struct conf_after *a)
{
    struct probe_question *q = mem_must_new(struct probe_question);
    size_t n = 0;

    q->kind = PROBE_HTTP;
    q->timeout_ms = a->timeout_ms;
    q->url = a->http.url;
    (void)snprintf(q->method, sizeof(q->method), "%s", conf_http_method_name(a->http.method));
    (void)snprintf(q->ca_file, sizeof(q->ca_file), "%s",
                   a->http.ca_file != NULL ? a->http.ca_file : "");
    for (size_t i = 0; i < a->http.headers.n; i++) {
        int k =
            snprintf(q->headers + n, sizeof(q->headers) - n, "%s\r\n", a->http.headers.items[i]);

        POSTERN_ASSERT(k > 0 && (size_t)k < sizeof(q->headers) - n);
        n += (size_t)k;
    }
    q->headers_len = (uint32_t)n;
    if (a->http.body != NULL) {
        q->body_len = (uint32_t)strlen(a->http.body);
        POSTERN_ASSERT(q->body_len <= sizeof(q->body));
        memcpy(q->body, a->http.body, q->body_len);
    }
    ask(r, m->job, q, a);
    mem_wipe(q, sizeof(*q));
    free(q);
}

/* --- messages --------------------------------------------------------------------------------- */
static bool has_room(struct runner *r, uint64_t job)
{
    if (r->leaving || r->n_jobs >= ACTIONS_JOBS_MAX) {
        answer_at_once(r, job, ACTIONS_REFUSED,
                       r->leaving ? "the end has come" : "too much runs already");
        return false;
    }
    return true;
}

/* A number means something in one file only. */
static bool is_of_our_file(struct runner *r, uint64_t job, uint64_t digest)
{
    if (digest == actions_digest(r->conf)) {
        return true;
    }
    answer_at_once(r, job, ACTIONS_REFUSED, "it was asked for by another configuration");
    return false;
}

void runner_job_run(struct runner *r, const struct actions_msg_run *m)
{
    const struct conf_rotate_output *o =
        m->output < r->conf->n_outputs ? &r->conf->outputs[m->output] : NULL;
    const struct conf_after *a = o != NULL && m->action < o->n_after ? &o->after[m->action] : NULL;

    if (!is_of_our_file(r, m->job, m->digest)) {
        return;
    }
    if (a == NULL) {
        answer_at_once(r, m->job, ACTIONS_REFUSED, "the configuration has no such action");
        return;
    }
    if (!has_room(r, m->job)) {
        return;
    }
    switch (a->kind) {
    case CONF_AFTER_SIGNAL:
        run_signal(r, m, a);
        break;
    case CONF_AFTER_COMMAND:
    case CONF_AFTER_SYSTEMD:
        run_program(r, m, o, a);
        break;
    case CONF_AFTER_HTTP:
        run_http(r, m, a);
        break;
    }
}

void runner_job_verify(struct runner *r, const struct actions_msg_verify *m)
{
    const struct conf_rotate_output *o =
        m->output < r->conf->n_outputs ? &r->conf->outputs[m->output] : NULL;
    struct probe_question q;

    if (!is_of_our_file(r, m->job, m->digest)) {
        return;
    }
    if (o == NULL || !o->verify.present) {
        answer_at_once(r, m->job, ACTIONS_REFUSED, "the configuration names no place to verify");
        return;
    }
    if (!has_room(r, m->job)) {
        return;
    }
    memset(&q, 0, sizeof(q));
    q.kind = PROBE_VERIFY;
    q.timeout_ms = o->verify.timeout_ms;
    q.url = o->verify.url;
    (void)snprintf(q.server_name, sizeof(q.server_name), "%s",
                   o->verify.server_name != NULL ? o->verify.server_name : "");
    memcpy(q.want, m->want, sizeof(q.want));
    memcpy(q.old, m->old, sizeof(q.old));
    q.has_old = m->has_old;
    ask(r, m->job, &q, NULL);
}

void runner_job_cancel(struct runner *r, uint64_t job)
{
    for (struct runner_job *j = r->jobs; j != NULL; j = j->next) {
        if (j->id == job && j->is_probe && !j->answered) {
            j->cancelled = true;
            (void)kill(-j->pid, SIGKILL);
        }
    }
}

/* --- the end of a process --------------------------------------------------------------------- */
static bool is_expected(const struct runner_job *j)
{
    for (size_t i = 0; i < j->n_expect; i++) {
        if (j->done.http_status >= j->expect[i].first && j->done.http_status <= j->expect[i].last) {
            return true;
        }
    }
    return false;
}

static void judge_probe(struct runner_job *j)
{
    char text[80];

    if (j->cancelled) {
        j->done.outcome = ACTIONS_CANCELLED;
        set_text(&j->done, "");
    } else if (!j->answered) {
        j->done.outcome = j->timed_out ? ACTIONS_TIMED_OUT : ACTIONS_FAILED;
        set_text(&j->done, j->timed_out ? "" : "the probe ended without an answer");
    } else if (!j->is_verify && j->done.outcome == ACTIONS_OK && !is_expected(j)) {
        j->done.outcome = ACTIONS_FAILED;
        (void)snprintf(text, sizeof(text), "the answer's status is %u",
                       (unsigned)j->done.http_status);
        set_text(&j->done, text);
    }
}

static void judge_program(struct runner_job *j, int wait_status)
{
    char text[80];

    end_output(j);
    j->done.exit_status = runner_exit_status(wait_status);
    if (j->timed_out) {
        j->done.outcome = ACTIONS_TIMED_OUT;
        set_text(&j->done, "it did not end in time, and was ended");
    } else if (j->done.exit_status != 0) {
        j->done.outcome = ACTIONS_FAILED;
        (void)snprintf(text, sizeof(text), "exit status %d", j->done.exit_status);
        set_text(&j->done, text);
    } else {
        j->done.outcome = ACTIONS_OK;
    }
}

bool runner_job_reap(struct runner *r, pid_t pid, int wait_status)
{
    struct runner_job *j = r->jobs;

    while (j != NULL && j->pid != pid) {
        j = j->next;
    }
    if (j == NULL) {
        return false;
    }
    if (j->is_probe) {
        /* Its last word may still be in the channel. */
        if (!j->answered) {
            on_probe(j, LOOP_READ);
        }
        judge_probe(j);
    } else {
        judge_program(j, wait_status);
    }
    end_job(j);
    return true;
}

bool runner_job_is_overdue(const struct runner *r, pid_t pid)
{
    for (const struct runner_job *j = r->jobs; j != NULL; j = j->next) {
        if (j->pid == pid) {
            return j->timed_out;
        }
    }
    return false;
}

void runner_jobs_leave(struct runner *r)
{
    for (struct runner_job *j = r->jobs; j != NULL; j = j->next) {
        if (j->is_probe) {
            (void)kill(-j->pid, SIGKILL);
        } else if (!j->killed) {
            on_time(j);
        }
    }
}

void runner_jobs_free(struct runner *r)
{
    while (r->jobs != NULL) {
        struct runner_job *j = r->jobs;

        r->jobs = j->next;
        job_free(j);
    }
    r->n_jobs = 0;
}
