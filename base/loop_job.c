#include <postern/loop_job.h>

#include <postern/mem.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct loop_job {
    struct loop_mail mail;
    struct loop *loop;
    void (*work)(void *arg);
    void (*done)(void *arg); /* NULL: nobody wants to know */
    void *arg;
    pthread_t thread;
    bool has_thread; /* that was not joined */
};

static void join(struct loop_job *j)
{
    if (j->has_thread) {
        pthread_join(j->thread, NULL);
        j->has_thread = false;
    }
}

static void on_mail(struct loop_mail *m)
{
    struct loop_job *j = (struct loop_job *)m;
    void (*done)(void *arg) = j->done;
    void *arg = j->arg;
    join(j);
    free(j);
    if (done != NULL) {
        done(arg);
    }
}

static void on_drop(struct loop_mail *m)
{
    struct loop_job *j = (struct loop_job *)m;
    join(j);
    free(j);
}

static void *run(void *arg)
{
    struct loop_job *j = arg;
    j->work(j->arg);
    loop_post(j->loop, &j->mail); /* its last use of anything: whoever reads it joins first */
    return NULL;
}

struct loop_job *loop_job_start(struct loop *loop, void (*work)(void *arg), void (*done)(void *arg),
                                void *arg)
{
    struct loop_job *j = mem_must_new(struct loop_job);
    sigset_t all, before;
    j->mail = (struct loop_mail){.fn = on_mail, .drop = on_drop};
    j->loop = loop;
    j->work = work;
    j->done = done;
    j->arg = arg;
    j->has_thread = true; /* before there is one that could be read of */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&j->thread, NULL, run, j);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e != 0) {
        j->has_thread = false;
        (void)run(j);
    }
    return j;
}

struct loop_job *loop_job_drop(struct loop_job *job)
{
    if (job != NULL) {
        job->done = NULL;
        join(job); /* its mail is there now, and frees it */
    }
    return NULL;
}
