#include <postern/proc.h>

#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { FIRST_FD = 3 };

/* In the child, between fork and exec: only system calls. Tells its errno through report_fd. */
__attribute__((noreturn)) static void run_child(const struct proc_spec *spec, pid_t parent,
                                                int report_fd)
{
    static const char *const no_env[] = {NULL};
    int moved[PROC_FDS_MAX];
    int base = FIRST_FD + PROC_FDS_MAX + 1;
    /* Out of the way first, so that no target overwrites a source that is still needed. */
    int report = fcntl(report_fd, F_DUPFD_CLOEXEC, base);
    bool ok = report != -1;
    for (size_t i = 0; ok && i < spec->n_fds; i++) {
        moved[i] = fcntl(spec->fds[i], F_DUPFD_CLOEXEC, base);
        ok = moved[i] != -1;
    }
    for (size_t i = 0; ok && i < spec->n_fds; i++) {
        ok = dup2(moved[i], FIRST_FD + (int)i) != -1;
    }
    if (ok) {
        /* What we opened is close-on-exec; what a library or our own parent left open may not be.
         */
        for (int fd = FIRST_FD + (int)spec->n_fds; fd < base; fd++) {
            if (fd != report) {
                close(fd);
            }
        }
        enum { CLOEXEC_FLAG = 4 };
        syscall(SYS_close_range, (unsigned)base, ~0U, CLOEXEC_FLAG);
        sigset_t none;
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        if (spec->parent_death_signal != 0) {
            prctl(PR_SET_PDEATHSIG, spec->parent_death_signal, 0, 0, 0);
            if (getppid() != parent) {
                _exit(127); /* it was gone before we asked */
            }
        }
        const char *const *env = spec->env != NULL ? spec->env : no_env;
        execve(spec->path, (char *const *)(uintptr_t)spec->argv, (char *const *)(uintptr_t)env);
    }
    int saved = errno;
    ssize_t ignored = write(report != -1 ? report : report_fd, &saved, sizeof(saved));
    (void)ignored;
    _exit(127);
}

int proc_spawn(const struct proc_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
    POSTERN_ASSERT(spec->n_fds <= PROC_FDS_MAX);
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) {
        return err_sys(err, "cannot make a pipe");
    }
    os_autofd int report_read = report[0];
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        run_child(spec, parent, report[1]);
    }
    close(report[1]);
    if (pid == -1) {
        return err_sys(err, "cannot start %s", spec->path);
    }
    int child_errno = 0;
    ssize_t n;
    do {
        n = read(report_read, &child_errno, sizeof(child_errno));
    } while (n == -1 && errno == EINTR);
    if (n == (ssize_t)sizeof(child_errno)) {
        waitpid(pid, NULL, 0);
        errno = child_errno;
        return err_sys(err, "cannot run %s", spec->path);
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd == -1) {
        err_sys(err, "cannot watch %s", spec->path);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return -1;
    }
    fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

int proc_helper_path(const char *name, char *ret_path, size_t size, struct err *err)
{
    char self[4096];
    char tried[1024] = "";
    const char *env = secure_getenv("POSTERN_LIBEXEC");
    if (os_self_dir(self, sizeof(self), err) != 0) {
        return -1;
    }
    char built[4096 + 32], moved[4096 + 32]; /* a build tree; an installation at another place */
    snprintf(built, sizeof(built), "%s/../libexec", self);
    snprintf(moved, sizeof(moved), "%s/../libexec/postern", self);
    const char *dirs[] = {env, built, moved, POSTERN_LIBEXECDIR};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        if (dirs[i] == NULL) {
            continue;
        }
        int n = snprintf(ret_path, size, "%s/%s", dirs[i], name);
        if (n > 0 && (size_t)n < size && access(ret_path, X_OK) == 0) {
            return 0;
        }
        size_t used = strlen(tried);
        snprintf(tried + used, sizeof(tried) - used, "%s%s", used > 0 ? ", " : "", dirs[i]);
    }
    err_set(err, ERR_SYSTEM, "cannot find the helper %s in %s", name, tried);
    return err_advise(err, "install it there, or name its directory in POSTERN_LIBEXEC");
}

int proc_start_helper(const char *name, int fd, struct err *err)
{
    static const char *const passed[] = {"POSTERN_SANDBOX_KILL", "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    enum { N_PASSED = sizeof(passed) / sizeof(passed[0]) };
    const char *const argv[] = {name, NULL};
    char *switches[N_PASSED] = {NULL};
    const char *env[N_PASSED + 1] = {NULL};
    char path[4096];
    pid_t pid;
    int pidfd = -1;
    size_t n = 0;
    for (size_t i = 0; i < N_PASSED; i++) {
        const char *value = secure_getenv(passed[i]);
        if (value != NULL) {
            switches[n] = mem_must_printf("%s=%s", passed[i], value);
            env[n] = switches[n];
            n++;
        }
    }
    const struct proc_spec what = {.path = path,
                                   .argv = argv,
                                   .env = env,
                                   .fds = {fd},
                                   .n_fds = 1,
                                   .parent_death_signal = SIGKILL};
    int r = proc_helper_path(name, path, sizeof(path), err);
    r = r == 0 ? proc_spawn(&what, &pid, &pidfd, err) : -1;
    if (pidfd != -1) {
        close(pidfd); /* it ends when the channel does; init reaps it after us */
    }
    for (size_t i = 0; i < n; i++) {
        free(switches[i]);
    }
    return r;
}
