/* When to look at the files: after events about them (dir_watch.h), and now and then without. */
#include <postern/file_watch.h>

#include <postern/dir_watch.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum { LOOK_MS = 5000 /* between looks without an event */ };

struct file_watch {
    struct dir_watch dirs;
    struct loop_io *io;
    struct loop_timer timer;
    void (*fn)(void *arg, bool by_event);
    void *arg;
    bool by_event; /* the next look is because of events */
};

void file_watch_begin(struct file_watch *w)
{
    dir_watch_begin(&w->dirs);
}

void file_watch_add(struct file_watch *w, const char *path)
{
    dir_watch_add(&w->dirs, path);
}

void file_watch_end(struct file_watch *w)
{
    dir_watch_end(&w->dirs);
}

static void on_timer(void *arg)
{
    struct file_watch *w = arg;
    bool by_event = w->by_event;
    w->by_event = false;
    dir_watch_looked(&w->dirs);
    loop_timer_arm(&w->timer, LOOK_MS); /* fn may ask for an earlier one */
    w->fn(w->arg, by_event);
}

static void on_events(void *arg, unsigned ready)
{
    struct file_watch *w = arg;
    (void)ready;
    uint64_t due_ms = dir_watch_drain(&w->dirs);
    uint64_t now_ms = os_now_ms();
    w->by_event = true;
    loop_timer_arm(&w->timer, due_ms > now_ms ? due_ms - now_ms : 0);
}

void file_watch_soon(struct file_watch *w, uint32_t delay_ms)
{
    w->by_event = true;
    loop_timer_arm(&w->timer, delay_ms);
}

struct file_watch *file_watch_new_slow(struct loop *loop, void (*fn)(void *arg, bool by_event),
                                       void *arg)
{
    struct file_watch *w = mem_must_new(struct file_watch);
    w->fn = fn;
    w->arg = arg;
    w->dirs.fd = -1;
    loop_timer_init(&w->timer, loop, on_timer, w);
    loop_timer_arm(&w->timer, LOOK_MS);
    return w;
}

struct file_watch *file_watch_new(struct loop *loop, void (*fn)(void *arg, bool by_event),
                                  void *arg)
{
    struct file_watch *w = file_watch_new_slow(loop, fn, arg);
    w->io = dir_watch_open(&w->dirs, DIR_WATCH_MAX) ? loop_io_new(loop, w->dirs.fd, on_events, w)
                                                    : NULL;
    if (w->io != NULL) {
        loop_io_want(w->io, LOOP_READ);
    } else {
        dir_watch_close(&w->dirs);
    }
    return w;
}

struct file_watch *file_watch_free(struct file_watch *w)
{
    if (w != NULL) {
        loop_timer_disarm(&w->timer);
        loop_io_free(w->io);
        dir_watch_close(&w->dirs);
        free(w);
    }
    return NULL;
}
