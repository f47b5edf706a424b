/*
 * actions: what is done after a change of files, from the daemon's side: when, how often, and what
 * came of it. Doing it is postern-rotate-run's, which is started here before the daemon gives up
 * its privileges. docs/rotation-actions.md.
 *
 * Each output goes through its list by itself: an action, its further tries, the next one, at last
 * the question whether the new certificate is served. A newer generation begins anew.
 *
 * Thread: one loop's. Nothing blocks, but the start and a reload, which wait for the runner's word.
 */
#ifndef POSTERN_ACTIONS_H
#define POSTERN_ACTIONS_H

#include <postern/actions_wire.h>
#include <postern/conf_rotate.h>
#include <postern/err.h>
#include <postern/loop.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- what became of an action ----------------------------------------------------------------- */
enum actions_state {
    ACTIONS_STATE_NONE,    /* nothing has changed yet */
    ACTIONS_STATE_RUNNING, /* a try is under way, or the action's turn has not come */
    ACTIONS_STATE_WAITING, /* for its next try */
    ACTIONS_STATE_DONE,
    ACTIONS_STATE_FAILED,
    ACTIONS_STATE_TIMED_OUT,
    ACTIONS_STATE_REFUSED,
    ACTIONS_STATE_SKIPPED,    /* one before it failed, or the child is not there yet */
    ACTIONS_STATE_SUPERSEDED, /* a newer generation came first */
    ACTIONS_N_STATES,
};
const char *actions_state_name(enum actions_state state);
/* failed, timed out or refused */
bool actions_state_is_bad(enum actions_state state);

struct actions_result {
    enum actions_state state;
    uint64_t generation;
    int64_t at_s; /* when it became that; 0: never */
    uint32_t tries;
    char text[ACTIONS_TEXT_MAX + 1]; /* why not, or empty; may hold a stranger's bytes */
};
struct actions_verified {
    bool known;   /* what follows was found out for `generation` */
    bool running; /* a question is out */
    enum actions_verdict verdict;
    uint64_t generation;
    int64_t at_s;
    uint64_t took_ms; /* from the change on */
    uint32_t tries;
    bool has_seen;
    uint8_t seen[ACTIONS_SHA256_SIZE];
    char text[ACTIONS_TEXT_MAX + 1];
};
struct actions_status {
    const struct actions_result *actions; /* as many as the output's `after`; lent */
    size_t n_actions;
    struct actions_verified verified;
    bool idle;
    uint64_t n_by_state[ACTIONS_N_STATES];     /* ended actions, since the start */
    uint64_t n_by_verdict[ACTIONS_N_VERDICTS]; /* likewise */
};

/* --- events, for the owner's log ----------------------------------------------------------------
 */
struct actions_try {
    const struct conf_rotate_output *output;
    const struct conf_after *action;
    size_t index; /* of the action */
    uint64_t generation;
    uint32_t attempt;         /* from 1 */
    enum actions_state state; /* WAITING: it will be tried again */
    uint64_t again_ms;        /* after so long */
    int exit_status;          /* -1: no program ran */
    unsigned http_status;     /* 0: none */
    const char *text;
};
struct actions_events {
    /* A try has ended, or an action was skipped or superseded. */
    void (*on_try)(void *arg, const struct actions_try *t);
    /* A line that a command wrote; lost: so many were left out, and there is no line. */
    void (*on_output)(void *arg, const struct conf_rotate_output *output,
                      const struct conf_after *action, struct str line, uint32_t lost);
    void (*on_verified)(void *arg, const struct conf_rotate_output *output,
                        const struct actions_verified *v);
    /* Nothing more is to be done for this generation. */
    void (*on_idle)(void *arg);
    /* The child: pid after its start (status is 0), 0 after its end. status -1: it was not started,
     * text says why. */
    void (*on_child)(void *arg, int pid, int status, const char *text);
    /* The runner has ended: nothing will be done any more. Told once. */
    void (*on_gone)(void *arg);
};

/* --- the daemon's side --------------------------------------------------------------------------
 */
struct actions;
/* Whether there is anything to do for this configuration. */
bool actions_needed(const struct conf_rotate *conf);
/* Starts the runner and waits until it has read the same file; before the sandbox. conf is lent
 * until the next actions_reload. child_argv: the program to supervise, NULL-terminated; NULL: none.
 */
struct actions *actions_new(struct loop *loop, const struct conf_rotate *conf,
                            const char *const *child_argv, const struct actions_events *events,
                            void *arg, struct err *err);
/* With a runner that somebody else plays at the other end of fd (taken): for tests. */
struct actions *actions_new_on(struct loop *loop, int fd, const struct conf_rotate *conf,
                               const struct actions_events *events, void *arg, struct err *err);
/* Ends the runner and what it runs, and waits for that (seconds at most). Takes NULL. */
struct actions *actions_free(struct actions *a);
/* The runner reads its file again; 0: both go by conf from now on. On failure all stays, and if
 * the runner does not answer in time, it counts as gone: nobody knows then which file it goes by.
 */
int actions_reload(struct actions *a, const struct conf_rotate *conf, struct err *err);

/* What the output's leaf was before, as far as that is known at the start. */
void actions_note_leaf(struct actions *a, size_t output, const uint8_t leaf[ACTIONS_SHA256_SIZE]);
/* The output's files have changed. leaf: the digest of what has to be served; NULL: no certificate
 * is among them, and nothing is verified. */
void actions_run(struct actions *a, size_t output, uint64_t generation, const uint8_t *leaf);
bool actions_idle(const struct actions *a);
/* Whether the last list of every output went well, its verification included. */
bool actions_all_well(const struct actions *a);
void actions_get_status(const struct actions *a, size_t output, struct actions_status *ret);

/* Once; later calls do nothing. */
void actions_child_start(struct actions *a);
/* One of actions_forwarded; without a child nothing happens. */
void actions_child_signal(struct actions *a, int signo);

#endif
