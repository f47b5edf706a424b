/* When to look at the files: after events about them (dir_watch.h), and now and then without. */
#include "credential_priv.h"

#include <postern/dir_watch.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum { LOOK_MS = 5000 /* between looks without an event */ };

struct credential_watch {
    struct dir_watch dirs;
    struct loop_io *io;
    struct loop_timer timer;
    void (*fn)(void *arg, bool by_event);
    void *arg;
    bool by_event; /* the next look is because of events */
};

void credential_watch_begin(struct credential_watch *w)
{
    dir_watch_begin(&w->dirs);
}

void credential_watch_add(struct credential_watch *w, const char *path)
{
    dir_watch_add(&w->dirs, path);
}

void credential_watch_end(struct credential_watch *w)
{
    dir_watch_end(&w->dirs);
}

static void on_timer(void *arg)
{
    struct credential_watch *w = arg;
    bool by_event = w->by_event;
    w->by_event = false;
    dir_watch_looked(&w->dirs);
    loop_timer_arm(&w->timer, LOOK_MS); /* fn may ask for an earlier one */
    w->fn(w->arg, by_event);
}

static void on_events(void *arg, unsigned ready)
{
    struct credential_watch *w = arg;
    (void)ready;
    uint64_t due_ms = dir_watch_drain(&w->dirs);
    uint64_t now_ms = os_now_ms();
    w->by_event = true;
    loop_timer_arm(&w->timer, due_ms > now_ms ? due_ms - now_ms : 0);
}

void credential_watch_soon(struct credential_watch *w, uint32_t delay_ms)
{
    w->by_event = true;
    loop_timer_arm(&w->timer, delay_ms);
}

struct credential_watch *credential_watch_new(struct loop *loop,
                                              void (*fn)(void *arg, bool by_event), void *arg)
{
    struct credential_watch *w = mem_must_new(struct credential_watch);
    w->fn = fn;
    w->arg = arg;
    w->io = dir_watch_open(&w->dirs, DIR_WATCH_MAX) ? loop_io_new(loop, w->dirs.fd, on_events, w)
                                                    : NULL;
    if (w->io != NULL) {
        loop_io_want(w->io, LOOP_READ);
    } else {
        dir_watch_close(&w->dirs);
    }
    loop_timer_init(&w->timer, loop, on_timer, w);
    loop_timer_arm(&w->timer, LOOK_MS);
    return w;
}

struct credential_watch *credential_watch_free(struct credential_watch *w)
{
    if (w != NULL) {
        loop_timer_disarm(&w->timer);
        loop_io_free(w->io);
        dir_watch_close(&w->dirs);
        free(w);
    }
    return NULL;
}
