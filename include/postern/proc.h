/*
 * proc: starting our own helper executables. Fresh exec, descriptors by number, nothing inherited,
 * an empty environment but for what is listed. Thread: the one that forks (main, before workers).
 */
#ifndef POSTERN_PROC_H
#define POSTERN_PROC_H

#include <postern/err.h>
#include <stddef.h>
#include <sys/types.h>

enum { PROC_FDS_MAX = 8 };

struct proc_spec {
    const char *path;        /* executable: see proc_helper_path */
    const char *const *argv; /* NULL-terminated, argv[0] included */
    const char *const *env;  /* NULL-terminated "K=V"; NULL for none */
    int fds[PROC_FDS_MAX];   /* becomes descriptor 3 + i in the child; 0, 1, 2 are kept */
    size_t n_fds;
    int parent_death_signal; /* sent to the child when the parent dies; 0 for none */
};

/* Starts it; *ret_pidfd (the caller's) polls readable when it has ended. Reaping is the caller's
 * (waitid P_PIDFD). Failure of exec itself is told here too, not by an exit code. */
int proc_spawn(const struct proc_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct err *err);

/* Where a helper lives: $POSTERN_LIBEXEC if set and this process is not setuid, else the libexec
 * directory beside the running executable's prefix, else its build directory. */
int proc_helper_path(const char *name, char *ret_path, size_t size, struct err *err);

/* Starts the helper of this name with `fd` as its only channel, and what tests and sanitizers say
 * in the environment. It is killed with its parent and ends with its channel; nobody waits for it.
 */
int proc_start_helper(const char *name, int fd, struct err *err);

#endif
