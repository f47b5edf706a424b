/* child: the program of `postern rotate FILE -- CMD`. It is started once, gets the signals that the
 * daemon is told, and its end is told to the daemon, which then ends as well. */
#include "runner_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

enum { ENV_MAX = 4096 };

/* What was meant for the daemon alone. */
static bool is_ours(const char *variable)
{
    static const char *const prefixes[] = {
        "NOTIFY_SOCKET=", "WATCHDOG_USEC=",  "WATCHDOG_PID=",   "LISTEN_FDS=",
        "LISTEN_PID=",    "LISTEN_FDNAMES=", "POSTERN_LIBEXEC="};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

static void tell_ended(struct runner *r, int status, const char *text)
{
    struct actions_msg_child_ended m;
    size_t len = strlen(text);

    actions_wire_init(&m, ACTIONS_CHILD_ENDED);
    m.status = status;
    m.text_len = (uint32_t)(len < ACTIONS_TEXT_MAX ? len : ACTIONS_TEXT_MAX);
    memcpy(m.text, text, m.text_len);
    runner_tell(r, &m);
}

static void on_kill_time(void *arg)
{
    struct runner *r = arg;

    if (r->child.pid != 0) {
        (void)kill(-r->child.pid, SIGKILL);
        (void)kill(r->child.pid, SIGKILL);
    }
}

void runner_child_start(struct runner *r)
{
    mem_autofree const char **env = mem_must_calloc(ENV_MAX + 1, sizeof(*env));
    struct runner_spawn spec = {.argv = r->child_argv,
                                .env = env,
                                .search = true,
                                .in = -1,
                                .out = -1,
                                .channel = -1,
                                .keep_directory = true};
    struct actions_msg_child_started m;
    struct err err = ERR_INIT;
    char text[1200];
    size_t n = 0;

    if (r->child_argv == NULL || r->child.started || r->leaving) {
        return;
    }
    r->child.started = true;
    for (size_t i = 0; environ != NULL && environ[i] != NULL && n < ENV_MAX; i++) {
        if (!is_ours(environ[i])) {
            env[n++] = environ[i];
        }
    }
    env[n] = NULL;
    /* In the foreground, ours is the terminal: the child is to have it. */
    spec.take_terminal = isatty(STDIN_FILENO) == 1 && tcgetpgrp(STDIN_FILENO) == getpgrp();
    loop_timer_init(&r->child.kill, r->loop, on_kill_time, r);
    if (runner_spawn(&spec, &r->child.pid, &err) == -1) {
        r->child.pid = 0;
        tell_ended(r, -1, err_text(&err, text, sizeof(text)));
        return;
    }
    r->child.took_terminal = spec.take_terminal;
    actions_wire_init(&m, ACTIONS_CHILD_STARTED);
    m.pid = r->child.pid;
    runner_tell(r, &m);
}

enum actions_outcome runner_child_signal(struct runner *r, int signo,
                                         char ret_text[ACTIONS_TEXT_MAX])
{
    if (r->child.pid == 0) {
        (void)snprintf(ret_text, ACTIONS_TEXT_MAX,
                       r->child_argv == NULL ? "there is no child: postern rotate FILE -- CMD"
                       : r->child.started    ? "the child has ended"
                                             : "the child is not started yet");
        return r->child_argv == NULL ? ACTIONS_REFUSED : ACTIONS_NO_CHILD;
    }
    if (kill(r->child.pid, signo) == -1) {
        (void)snprintf(ret_text, ACTIONS_TEXT_MAX, "the signal was not sent: %s",
                       strerrordesc_np(errno));
        return ACTIONS_FAILED;
    }
    return ACTIONS_OK;
}

/* The terminal goes back to where it was. */
static void take_terminal_back(void)
{
    sigset_t ttou, old;

    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    (void)pthread_sigmask(SIG_BLOCK, &ttou, &old);
    (void)tcsetpgrp(STDIN_FILENO, getpgrp());
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

bool runner_child_reap(struct runner *r, pid_t pid, int wait_status)
{
    if (pid != r->child.pid || pid == 0) {
        return false;
    }
    r->child.pid = 0;
    loop_timer_disarm(&r->child.kill);
    if (r->child.took_terminal) {
        take_terminal_back();
    }
    tell_ended(r, runner_exit_status(wait_status), "");
    runner_check_end(r);
    return true;
}

void runner_child_leave(struct runner *r)
{
    if (r->child.pid != 0) {
        (void)kill(r->child.pid, SIGTERM);
        (void)kill(r->child.pid, SIGCONT);
        loop_timer_arm(&r->child.kill, ACTIONS_CHILD_MS);
    }
}
