/*
 * runner: what the files of postern-rotate-run share.
 *
 *   main.c    the start, the channel, what each message means, the end
 *   load.c    the configuration: read by itself, from a file that nobody else may write to
 *   job.c     a try of an action or a question, from its message to its answer
 *   output.c  what a program writes, line by line
 *   signal.c  a signal to a process that is known for sure
 *   spawn.c   fork and exec
 *   child.c   the supervised child
 *
 * One thread, one loop. A program that was started is known by its pid until it is reaped, which
 * only runner_reap does, so that no pid here is ever somebody else's.
 */
#ifndef POSTERN_RUNNER_PRIV_H
#define POSTERN_RUNNER_PRIV_H

#include <postern/actions_wire.h>
#include <postern/attest.h>
#include <postern/loop.h>
#include <sys/types.h>

struct runner;

/* --- load.c ----------------------------------------------------------------------------------- */
/* Reads the file, which has to be root's or our own user's, with nobody else able to write to it.
 */
int runner_load(const char *path, struct conf_rotate **ret, struct err *err);

/* --- signal.c --------------------------------------------------------------------------------- */
struct runner_target {
    const char *pid_file;   /* NULL: pid */
    pid_t pid;              /* without pid_file */
    const char *executable; /* absolute */
    bool any_mounts;        /* as the process's own mount namespace has it will do */
    int signo;
    const pid_t *own; /* who never gets one: runner and daemon */
    size_t n_own;
};
/* ACTIONS_OK, ACTIONS_REFUSED or ACTIONS_FAILED, with the reason in ret_text. Blocks for nothing
 * but local files and /proc. */
enum actions_outcome runner_signal(struct attest_view *view, const struct runner_target *target,
                                   char ret_text[ACTIONS_TEXT_MAX]);
/* The same in two steps, for a test that puts something in between: looks, and on ACTIONS_OK gives
 * the pidfd that the signal goes to. */
enum actions_outcome runner_signal_look(struct attest_view *view,
                                        const struct runner_target *target, int *ret_pidfd,
                                        char ret_text[ACTIONS_TEXT_MAX]);
enum actions_outcome runner_signal_send(int pidfd, int signo, char ret_text[ACTIONS_TEXT_MAX]);

/* --- spawn.c ---------------------------------------------------------------------------------- */
struct runner_spawn {
    const char *const *argv; /* NULL-terminated; the first is the executable's path */
    const char *const *env;  /* NULL-terminated */
    bool search;             /* the first without a slash is looked for in PATH */
    bool has_user;
    uid_t uid;
    gid_t gid;
    int in, out;         /* standard input; output and errors; -1: ours */
    int channel;         /* becomes ACTIONS_FD_CHANNEL; -1: none */
    bool new_session;    /* else a process group of its own */
    bool take_terminal;  /* that becomes the terminal's foreground, if ours was */
    bool no_new_privs;   /* set-uid programs are none */
    bool keep_directory; /* else / */
};
/* Starts it, to be killed when we die. Failure of exec itself is told here too. */
int runner_spawn(const struct runner_spawn *spec, pid_t *ret_pid, struct err *err);
/* wait's status as a shell tells it: 128 and the signal's number. */
int runner_exit_status(int wait_status);

/* --- output.c --------------------------------------------------------------------------------- */
/* Lines out of pieces; bounded. */
struct runner_lines {
    size_t len;
    bool cut; /* the line is longer: the rest of it is dropped */
    uint32_t n_lines, n_lost;
    char line[ACTIONS_LINE_MAX];
};
typedef void (*runner_line_fn)(void *arg, const char *line, size_t len);
void runner_lines_feed(struct runner_lines *l, const char *bytes, size_t n, runner_line_fn fn,
                       void *arg);
/* What stands without a line's end. */
void runner_lines_end(struct runner_lines *l, runner_line_fn fn, void *arg);

/* --- the process ------------------------------------------------------------------------------ */
struct runner_job;
struct runner_queued;

struct runner_child {
    bool wanted;  /* the command line names one */
    bool started; /* once */
    pid_t pid;    /* 0: it does not run */
    bool took_terminal;
    struct loop_timer kill;
};

struct runner {
    struct loop *loop;
    struct loop_io *channel; /* on ACTIONS_FD_CHANNEL */
    const char *config_path;
    struct conf_rotate *conf;      /* owned */
    const char *const *child_argv; /* NULL: none */
    struct attest_view view;
    struct runner_job *jobs; /* owned list */
    size_t n_jobs;
    struct runner_queued *queue, **queue_end; /* what the channel did not take yet */
    size_t n_queued;
    struct runner_child child;
    bool leaving; /* the daemon is gone: no new work */
    int status;   /* of this process */
};

/* Sends, or keeps it until the channel takes it. */
void runner_tell(struct runner *r, const void *msg);
bool runner_is_busy(const struct runner *r); /* the daemon does not read */
/* Ends the loop if we are leaving and nothing runs any more. */
void runner_check_end(struct runner *r);

/* --- job.c ------------------------------------------------------------------------------------ */
void runner_job_run(struct runner *r, const struct actions_msg_run *m);
void runner_job_verify(struct runner *r, const struct actions_msg_verify *m);
void runner_job_cancel(struct runner *r, uint64_t job);
/* A program of ours has ended: whether it was a job's. */
bool runner_job_reap(struct runner *r, pid_t pid, int wait_status);
/* Whether it is a job's that was given up: then its group goes with it. */
bool runner_job_is_overdue(const struct runner *r, pid_t pid);
/* The daemon is gone. */
void runner_jobs_leave(struct runner *r);
void runner_jobs_free(struct runner *r);

/* --- child.c ---------------------------------------------------------------------------------- */
void runner_child_start(struct runner *r);
enum actions_outcome runner_child_signal(struct runner *r, int signo,
                                         char ret_text[ACTIONS_TEXT_MAX]);
bool runner_child_reap(struct runner *r, pid_t pid, int wait_status);
void runner_child_leave(struct runner *r);

#endif
