/*
 * loop_job: a piece of work that takes too long for a loop's turn, on a thread of its own that
 * lives for it alone. Its result comes back to the loop as mail.
 *
 * The work has its input for itself, or input that nobody changes: it takes no lock. The thread
 * takes no signals. Where no thread can be made the work is done at once, by the caller's.
 */
#ifndef POSTERN_LOOP_JOB_H
#define POSTERN_LOOP_JOB_H

#include <postern/loop.h>

struct loop_job;
/* `work` runs on the new thread; then `done` on the loop's, in a later turn, never within this
 * call. Both get arg, which stays the caller's. The job is gone before `done` is called; until then
 * its owner drops it before it frees the loop. */
struct loop_job *loop_job_start(struct loop *loop, void (*work)(void *arg), void (*done)(void *arg),
                                void *arg);
/* Waits for the work's end; `done` is not called any more. Takes NULL; returns NULL. On the loop's
 * thread, before the loop is freed. */
struct loop_job *loop_job_drop(struct loop_job *job);

#endif
