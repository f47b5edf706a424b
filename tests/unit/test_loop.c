/* loop: timers in order, deferred work once, mail from other threads in order, nothing lost. */
#include <postern/loop.h>
#include <postern/loop_job.h>
#include <postern/os.h>

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_TIMERS = 200 };

struct timers {
    struct loop *loop;
    struct loop_timer timer[N_TIMERS];
    uint64_t last_due_ms;
    int fired;
    int expected;
};

struct one_timer {
    struct timers *all;
    uint64_t due_ms;
};

static void on_one(void *arg)
{
    struct one_timer *one = arg;
    struct timers *all = one->all;
    assert_true(one->due_ms >= all->last_due_ms);
    assert_true(loop_now_ms(all->loop) >= one->due_ms);
    all->last_due_ms = one->due_ms;
    if (++all->fired == all->expected) {
        loop_stop(all->loop);
    }
}

static void test_timers_fire_in_order(void **state)
{
    (void)state;
    struct timers all = {.loop = loop_new(NULL)};
    struct one_timer one[N_TIMERS];
    for (int i = 0; i < N_TIMERS; i++) {
        one[i].all = &all;
        loop_timer_init(&all.timer[i], all.loop, on_one, &one[i]);
        loop_timer_arm(&all.timer[i], 1000000);
    }
    for (int i = 0; i < N_TIMERS; i++) {
        uint64_t delay = (uint64_t)(i * 37 % 53);
        loop_timer_arm(&all.timer[i], delay);
        one[i].due_ms = all.timer[i].due_ms;
    }
    for (int i = 0; i < N_TIMERS; i += 3) {
        loop_timer_disarm(&all.timer[i]);
        loop_timer_disarm(&all.timer[i]);
    }
    all.expected = N_TIMERS - (N_TIMERS + 2) / 3;
    loop_run(all.loop);
    assert_int_equal(all.fired, all.expected);
    loop_free(all.loop);
}

struct deferring {
    struct loop_deferred deferred; /* first: the callback casts back */
    struct loop *loop;
    int ran;
};

static void on_deferred(struct loop_deferred *d)
{
    struct deferring *x = (struct deferring *)(void *)d;
    x->ran++;
    loop_stop(x->loop);
}

static void test_deferred_runs_once(void **state)
{
    (void)state;
    struct deferring x = {.deferred = {.fn = on_deferred}, .loop = loop_new(NULL)};
    loop_defer(x.loop, &x.deferred);
    loop_defer(x.loop, &x.deferred);
    loop_run(x.loop);
    assert_int_equal(x.ran, 1);
    loop_free(x.loop);
}

/* Work that always asks for itself again must not keep a descriptor from being read. */
struct greedy {
    struct loop_deferred deferred;
    struct loop *loop;
    struct loop_io *io;
    int fds[2];
    int turns;
};

static void on_greedy(struct loop_deferred *d)
{
    struct greedy *x = (struct greedy *)(void *)d;
    assert_true(++x->turns < 1000);
    if (x->turns == 10) {
        assert_int_equal(write(x->fds[1], "x", 1), 1);
    }
    loop_defer(x->loop, d);
}

static void on_greedy_last(struct loop_deferred *d)
{
    ((struct greedy *)(void *)d)->turns++;
}

static void on_greedy_read(void *arg, unsigned ready)
{
    struct greedy *x = arg;
    (void)ready;
    loop_io_want(x->io, 0);
    loop_stop(x->loop);
    x->deferred.fn = on_greedy_last;
}

static void test_deferred_does_not_starve(void **state)
{
    (void)state;
    struct greedy x = {.deferred = {.fn = on_greedy}, .loop = loop_new(NULL)};
    assert_int_equal(pipe(x.fds), 0);
    x.io = loop_io_new(x.loop, x.fds[0], on_greedy_read, &x);
    loop_io_want(x.io, LOOP_READ);
    loop_defer(x.loop, &x.deferred);
    loop_run(x.loop);
    assert_true(x.turns >= 10);
    loop_io_free(x.io);
    loop_free(x.loop);
    close(x.fds[0]);
    close(x.fds[1]);
}

enum { SENDERS = 4, MAILS = 5000 };

struct inbox {
    struct loop *loop;
    int next[SENDERS];
    int got;
    int dropped;
};

struct mail {
    struct loop_mail mail;
    struct inbox *inbox;
    int sender;
    int number;
};

static void on_mail(struct loop_mail *m)
{
    struct mail *x = (struct mail *)(void *)m;
    assert_int_equal(x->number, x->inbox->next[x->sender]);
    x->inbox->next[x->sender]++;
    if (++x->inbox->got == SENDERS * MAILS) {
        loop_stop(x->inbox->loop);
    }
    free(x);
}

static void on_drop(struct loop_mail *m)
{
    struct mail *x = (struct mail *)(void *)m;
    x->inbox->dropped++;
    free(x);
}

struct sender {
    struct inbox *inbox;
    int id;
};

static void *send_mails(void *arg)
{
    struct sender *s = arg;
    for (int i = 0; i < MAILS; i++) {
        struct mail *x = calloc(1, sizeof(*x));
        *x = (struct mail){.mail = {.fn = on_mail, .drop = on_drop},
                           .inbox = s->inbox,
                           .sender = s->id,
                           .number = i};
        loop_post(s->inbox->loop, &x->mail);
    }
    return NULL;
}

static void test_mail_from_threads(void **state)
{
    (void)state;
    struct inbox inbox = {.loop = loop_new(NULL)};
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){&inbox, i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_mails, &senders[i]), 0);
    }
    loop_run(inbox.loop);
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(inbox.got, SENDERS * MAILS);
    struct sender late = {&inbox, 0};
    send_mails(&late);
    loop_free(inbox.loop);
    assert_int_equal(inbox.dropped, MAILS);
}

struct piped {
    struct loop *loop;
    struct loop_io *io;
    int fd;
    unsigned seen;
};

static void on_ready(void *arg, unsigned ready)
{
    struct piped *x = arg;
    x->seen |= ready;
    if ((ready & LOOP_READ) != 0) {
        char c;
        assert_int_equal(read(x->fd, &c, 1), 1);
        loop_stop(x->loop);
        loop_io_want(x->io, 0);
    } else {
        loop_io_want(x->io, LOOP_READ);
    }
}

static void test_io(void **state)
{
    (void)state;
    int s[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    struct piped x = {.loop = loop_new(NULL), .fd = s[0]};
    x.io = loop_io_new(x.loop, s[0], on_ready, &x);
    loop_io_want(x.io, LOOP_WRITE);
    assert_int_equal(write(s[1], "a", 1), 1);
    loop_run(x.loop);
    assert_int_equal(x.seen, LOOP_READ | LOOP_WRITE);
    loop_io_free(x.io);
    loop_free(x.loop);
    close(s[0]);
    close(s[1]);
}

/* Each step of what is wanted is what the next turn reports, in every order of steps. */
struct wants {
    struct loop *loop;
    struct loop_timer end;
    unsigned seen;
};

static void on_want(void *arg, unsigned ready)
{
    ((struct wants *)arg)->seen |= ready;
}

static void on_end(void *arg)
{
    loop_stop(((struct wants *)arg)->loop);
}

static void test_wants(void **state)
{
    (void)state;
    int s[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    assert_int_equal(write(s[1], "a", 1), 1); /* never read: both ways stay ready */
    struct wants x = {.loop = loop_new(NULL)};
    loop_timer_init(&x.end, x.loop, on_end, &x);
    struct loop_io *io = loop_io_new(x.loop, s[0], on_want, &x);
    static const unsigned steps[] = {1, 3, 2, 3, 1, 2, 1, 0, 3, 0, 2, 0, 1};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        x.seen = 0;
        loop_io_want(io, steps[i]);
        loop_timer_arm(&x.end, 1);
        loop_run(x.loop);
        assert_int_equal(x.seen, steps[i]);
    }
    loop_io_free(io);
    loop_free(x.loop);
    close(s[0]);
    close(s[1]);
}

static void on_usr1(void *arg, int signo)
{
    assert_int_equal(signo, SIGUSR1);
    loop_stop(arg);
}

static void test_signal(void **state)
{
    (void)state;
    struct loop *loop = loop_new(NULL);
    struct err err = ERR_INIT;
    assert_int_equal(loop_signal(loop, SIGUSR1, on_usr1, loop, &err), 0);
    raise(SIGUSR1);
    loop_run(loop);
    loop_free(loop);
}

/* --- jobs ------------------------------------------------------------------------------------- */

struct work {
    struct loop *loop;
    pthread_t by;
    unsigned steps;
    bool done, stop;
};

static void do_work(void *arg)
{
    struct work *w = arg;
    sigset_t blocked;
    w->by = pthread_self();
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &blocked), 0);
    assert_int_equal(sigismember(&blocked, SIGTERM), 1);
    for (unsigned i = 0; i < 1000; i++) {
        w->steps++;
    }
}

static void on_work(void *arg)
{
    struct work *w = arg;
    w->done = true;
    if (w->stop) {
        loop_stop(w->loop);
    }
}

/* The loop sees all that the work has written, without a lock. */
static void test_job(void **state)
{
    (void)state;
    struct work w = {.loop = loop_new(NULL), .stop = true};
    assert_non_null(loop_job_start(w.loop, do_work, on_work, &w));
    assert_false(w.done);
    loop_run(w.loop);
    assert_true(w.done);
    assert_int_equal(w.steps, 1000);
    assert_false(pthread_equal(w.by, pthread_self()));
    loop_free(w.loop);
}

/* Nobody hears of it any more: neither where the loop runs on nor where it is freed. */
static void test_job_dropped(void **state)
{
    (void)state;
    struct work first = {.loop = loop_new(NULL)};
    struct work next = {.loop = first.loop, .stop = true};
    struct work last = {.loop = first.loop};
    struct loop_job *j = loop_job_start(first.loop, do_work, on_work, &first);
    assert_null(loop_job_drop(j));
    assert_int_equal(first.steps, 1000);
    loop_job_start(first.loop, do_work, on_work, &next);
    loop_run(first.loop);
    assert_true(next.done);
    assert_false(first.done);
    j = loop_job_start(first.loop, do_work, on_work, &last);
    assert_null(loop_job_drop(j));
    loop_free(first.loop); /* with its mail */
    assert_int_equal(last.steps, 1000);
    assert_false(last.done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_fire_in_order),
        cmocka_unit_test(test_deferred_runs_once),
        cmocka_unit_test(test_deferred_does_not_starve),
        cmocka_unit_test(test_mail_from_threads),
        cmocka_unit_test(test_io),
        cmocka_unit_test(test_wants),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_job),
        cmocka_unit_test(test_job_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
