/*
 * actions: what its files share.
 *
 *   actions.c   the start, the end, messages from the runner, reload, the child
 *   sequence.c  an output's way through its list
 */
#ifndef POSTERN_ACTIONS_PRIV_H
#define POSTERN_ACTIONS_PRIV_H

#include <postern/actions.h>
#include <sys/types.h>

enum sequence_phase {
    SEQUENCE_IDLE,
    SEQUENCE_RUNNING,   /* a try is out */
    SEQUENCE_WAITING,   /* for the time of the next try */
    SEQUENCE_VERIFYING, /* the question is out */
};

/* Of one output. */
struct sequence {
    struct actions *actions;
    const struct conf_rotate_output *output; /* lent */
    size_t index;
    enum sequence_phase phase;
    uint64_t job; /* that is out; 0: none */
    size_t action;
    uint32_t attempt;
    bool failed;  /* an action that stops the list has failed */
    bool pending; /* a newer generation waits for the end of a try */
    struct loop_timer timer;
    uint64_t generation, next_generation;
    uint64_t changed_ms, next_changed_ms;
    bool has_want, next_has_want, has_old;
    uint8_t want[ACTIONS_SHA256_SIZE], next_want[ACTIONS_SHA256_SIZE], old[ACTIONS_SHA256_SIZE];
    struct actions_result *results; /* owned; one for each action */
    struct actions_verified verified;
    uint64_t n_by_state[ACTIONS_N_STATES];
    uint64_t n_by_verdict[ACTIONS_N_VERDICTS];
};

struct actions {
    struct loop *loop;
    const struct conf_rotate *conf;      /* lent */
    uint64_t digest;                     /* of conf */
    const struct actions_events *events; /* lent */
    void *arg;
    int channel;                /* owned */
    struct loop_io *io;         /* owned */
    pid_t pid;                  /* of the runner; 0: a test plays it */
    int pidfd;                  /* owned; -1 likewise */
    bool gone;                  /* the runner is */
    uint64_t last_job;          /* never used twice */
    struct sequence *sequences; /* owned; one for each output */
    size_t n_sequences;
    bool child_wanted, child_started;
    struct actions_msg_loaded loaded;
    bool has_loaded;
    int answer_ms; /* how long its word is waited for */
};

/* false: the runner does not take it. */
bool actions_tell(struct actions *a, const void *msg);

/* --- sequence.c ------------------------------------------------------------------------------- */
void sequence_init(struct sequence *s, struct actions *a, size_t index);
void sequence_deinit(struct sequence *s);
void sequence_change(struct sequence *s, uint64_t generation, const uint8_t *leaf);
void sequence_done(struct sequence *s, const struct actions_msg_done *m);
/* Gives up what is out; for a reload. */
void sequence_stop(struct sequence *s);

#endif
