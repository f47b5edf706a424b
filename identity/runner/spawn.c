#include "runner_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <postern/os.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { FIRST_FREE_FD = ACTIONS_FD_CHANNEL + 1, CLOEXEC_FLAG = 4 };

int runner_exit_status(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* --- in the child, between fork and exec: only system calls ----------------------------------- */
static bool set_descriptors(const struct runner_spawn *s, int *report)
{
    int base = FIRST_FREE_FD + 8;
    int in = s->in != -1 ? fcntl(s->in, F_DUPFD_CLOEXEC, base) : -1;
    int out = s->out != -1 ? fcntl(s->out, F_DUPFD_CLOEXEC, base) : -1;
    int channel = s->channel != -1 ? fcntl(s->channel, F_DUPFD_CLOEXEC, base) : -1;
    int moved = fcntl(*report, F_DUPFD_CLOEXEC, base);
    bool ok = moved != -1 && (s->in == -1 || (in != -1 && dup2(in, STDIN_FILENO) != -1)) &&
              (s->out == -1 ||
               (out != -1 && dup2(out, STDOUT_FILENO) != -1 && dup2(out, STDERR_FILENO) != -1)) &&
              (s->channel == -1 || (channel != -1 && dup2(channel, ACTIONS_FD_CHANNEL) != -1));

    *report = moved != -1 ? moved : *report;
    /* All others go with exec, whoever left them open. */
    return ok && syscall(SYS_close_range,
                         (unsigned)(s->channel == -1 ? ACTIONS_FD_CHANNEL : FIRST_FREE_FD), ~0U,
                         CLOEXEC_FLAG) == 0;
}

/* What is ignored stays so over exec: everything as if nobody had touched it. */
static void set_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int signo = 1; signo < NSIG; signo++) {
        (void)sigaction(signo, &dfl, NULL);
    }
    sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

static bool set_session(const struct runner_spawn *s)
{
    sigset_t ttou;

    if (s->new_session) {
        return setsid() != -1;
    }
    if (setpgid(0, 0) == -1) {
        return false;
    }
    if (s->take_terminal) {
        /* From the background, which this process is by now, that would stop it. */
        sigemptyset(&ttou);
        sigaddset(&ttou, SIGTTOU);
        (void)pthread_sigmask(SIG_BLOCK, &ttou, NULL);
        (void)tcsetpgrp(STDIN_FILENO, getpid());
    }
    return true;
}

static bool set_user(const struct runner_spawn *s)
{
    if (s->has_user && geteuid() == 0) {
        return setgroups(0, NULL) == 0 && setresgid(s->gid, s->gid, s->gid) == 0 &&
               setresuid(s->uid, s->uid, s->uid) == 0;
    }
    /* Somebody else than root: himself at most. */
    if (s->has_user && (s->uid != geteuid() || s->uid != getuid())) {
        errno = EPERM;
        return false;
    }
    return true;
}

__attribute__((noreturn)) static void run_child(const struct runner_spawn *s, pid_t parent,
                                                int report)
{
    bool ok = set_descriptors(s, &report) && set_session(s) && set_user(s) &&
              (s->keep_directory || chdir("/") == 0) &&
              (!s->no_new_privs || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) &&
              prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0;
    int saved;
    ssize_t ignored;

    if (ok && getppid() != parent) {
        _exit(127);
    }
    if (ok) {
        set_signals();
        if (s->search) {
            (void)execvpe(s->argv[0], (char *const *)(uintptr_t)s->argv,
                          (char *const *)(uintptr_t)s->env);
        } else {
            (void)execve(s->argv[0], (char *const *)(uintptr_t)s->argv,
                         (char *const *)(uintptr_t)s->env);
        }
    }
    saved = errno;
    ignored = write(report, &saved, sizeof(saved));
    (void)ignored;
    _exit(127);
}

int runner_spawn(const struct runner_spawn *spec, pid_t *ret_pid, struct err *err)
{
    int report[2];
    int child_errno = 0;
    pid_t parent = getpid();
    pid_t pid;
    ssize_t n;

    if (pipe2(report, O_CLOEXEC) == -1) {
        return err_sys(err, "cannot make a pipe");
    }
    os_autofd int report_read = report[0];
    pid = fork();
    if (pid == 0) {
        run_child(spec, parent, report[1]);
    }
    close(report[1]);
    if (pid == -1) {
        return err_sys(err, "cannot start %s", spec->argv[0]);
    }
    do {
        n = read(report_read, &child_errno, sizeof(child_errno));
    } while (n == -1 && errno == EINTR);
    if (n == (ssize_t)sizeof(child_errno)) {
        (void)waitpid(pid, NULL, 0);
        errno = child_errno;
        return err_sys(err, "cannot run %s", spec->argv[0]);
    }
    *ret_pid = pid;
    return 0;
}
