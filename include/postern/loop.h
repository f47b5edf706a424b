/*
 * loop: one event base, its timers, deferred work and a mailbox. One loop a thread; everything
 * here is called on the loop's own thread except loop_post and loop_stop.
 *
 * Descriptors: level-triggered readiness through loop_io. Timers: milliseconds of os_now_ms. All
 * callbacks of a loop run one after another, so an object that lives on one loop needs no lock.
 * An object is never freed inside one of its own callbacks: hand it to loop_defer, which runs at
 * the end of the turn.
 */
#ifndef POSTERN_LOOP_H
#define POSTERN_LOOP_H

#include <postern/err.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;

struct loop *loop_new(struct err *err);
/* Runs deferred work, drops unread mail (calling its drop function), frees. Takes NULL. */
struct loop *loop_free(struct loop *loop);
/* Runs until loop_stop. */
void loop_run(struct loop *loop);
/* Any thread, and a signal handler of loop_signal: loop_run returns after this turn. */
void loop_stop(struct loop *loop);
/* Time at the start of this turn, ms of os_now_ms: cheap. */
uint64_t loop_now_ms(const struct loop *loop);

/* --- descriptors ------------------------------------------------------------------------------ */
enum { LOOP_READ = 1, LOOP_WRITE = 2 };
typedef void (*loop_io_fn)(void *arg, unsigned ready);
struct loop_io; /* embed by pointer: owned by the caller, freed with loop_io_free */
/* Watches nothing until loop_io_want. The descriptor stays the caller's and must outlive this. */
struct loop_io *loop_io_new(struct loop *loop, int fd, loop_io_fn fn, void *arg);
struct loop_io *loop_io_free(struct loop_io *io);
/* Sets the wanted events (LOOP_READ | LOOP_WRITE, 0 for none). Asking for what is already watched
 * costs nothing. A turn in which both are ready may call fn twice, once for each. */
void loop_io_want(struct loop_io *io, unsigned events);

/* --- timers ----------------------------------------------------------------------------------- */
typedef void (*loop_timer_fn)(void *arg);
struct loop_timer {
    struct loop *loop;
    loop_timer_fn fn;
    void *arg;
    uint64_t due_ms; /* 0: not armed */
    uint32_t index;  /* place in the loop's heap */
};
/* Embedded: init once, arm and disarm at will (arming again moves it), deinit before it goes away.
 * Deinit is the same as disarm. No allocation per arming once the heap has grown. */
void loop_timer_init(struct loop_timer *t, struct loop *loop, loop_timer_fn fn, void *arg);
void loop_timer_arm(struct loop_timer *t, uint64_t delay_ms);
void loop_timer_disarm(struct loop_timer *t);

/* --- end of turn ------------------------------------------------------------------------------ */
struct loop_deferred {
    struct loop_deferred *next;
    void (*fn)(struct loop_deferred *d);
    bool queued;
};
/* Runs fn at the end of this turn, once, however often it is asked for; fn may free what embeds d.
 * Asked for by deferred work itself, it runs at the end of the next turn, which comes at once. */
void loop_defer(struct loop *loop, struct loop_deferred *d);

/* --- mail from other threads ------------------------------------------------------------------ */
struct loop_mail {
    struct loop_mail *next;
    void (*fn)(struct loop_mail *m);   /* on the loop's thread */
    void (*drop)(struct loop_mail *m); /* when the loop is freed unread; NULL: nothing to do */
};
/* Any thread; lock-free; in order per sender. The mail belongs to the loop until fn or drop has it.
 */
void loop_post(struct loop *loop, struct loop_mail *m);

/* --- signals (one loop a process may take them) ------------------------------------------------
 */
typedef void (*loop_signal_fn)(void *arg, int signo);
int loop_signal(struct loop *loop, int signo, loop_signal_fn fn, void *arg, struct err *err);

#endif
