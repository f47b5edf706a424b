/*
 * Watching the files that the agent was told to read (dir_watch.h). An event only says "look": what
 * decides is whether the file behind the name is another than the one that was read last. Slow
 * looks at every file go on beside it, for what inotify does not tell.
 */
#include "supervisor_priv.h"

#include <postern/dir_watch.h>
#include <postern/file_mark.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum {
    SOURCES_MAX = 16,
    DIRS_MAX = 64,
    LOOK_MS = 5000, /* between looks without an event */
};

struct source {
    const char *path; /* lent */
    bool *changed;    /* lent */
    struct file_mark read, seen;
};

struct supervisor_watch {
    struct dir_watch dirs;
    struct source sources[SOURCES_MAX];
    size_t n_sources;
    uint64_t due_ms; /* the next look */
    bool by_event;   /* it is because of events */
};

/* --- looking ---------------------------------------------------------------------------------- */
static void watch_all(struct supervisor_watch *w)
{
    dir_watch_begin(&w->dirs);
    for (size_t i = 0; i < w->n_sources; i++) {
        dir_watch_add(&w->dirs, w->sources[i].path);
    }
    dir_watch_end(&w->dirs);
}

static void look_at_all(struct supervisor_watch *w)
{
    watch_all(w); /* first: what changes after the look is then an event */
    for (size_t i = 0; i < w->n_sources; i++) {
        struct source *src = &w->sources[i];
        struct file_mark now = file_mark_now(src->path);

        /* Without an event nobody says that the writer is done: it has to look the same twice. */
        if (!file_mark_same(&now, &src->read) &&
            (w->by_event || file_mark_same(&now, &src->seen))) {
            *src->changed = true;
        }
        src->seen = now;
    }
    w->by_event = false;
    dir_watch_looked(&w->dirs);
    w->due_ms = os_now_ms() + LOOK_MS;
}

/* --- for the others --------------------------------------------------------------------------- */
void supervisor_watch_open(struct supervisor *s)
{
    struct supervisor_watch *w = mem_must_new(struct supervisor_watch);
    struct err err = ERR_INIT;

    if (!dir_watch_open(&w->dirs, DIRS_MAX)) {
        err_sys(&err, "files cannot be watched");
        err_advise(&err,
                   "changes are found within %d s instead of at once; see "
                   "fs.inotify.max_user_instances",
                   2 * LOOK_MS / 1000);
        log_failure(s->log, LOG_WARN, "not_watching", &err);
    }
    w->due_ms = os_now_ms() + LOOK_MS;
    s->watch = w;
}

void supervisor_watch_close(struct supervisor *s)
{
    if (s->watch != NULL) {
        dir_watch_close(&s->watch->dirs);
    }
    free(s->watch);
    s->watch = NULL;
}

void supervisor_watch_add(struct supervisor *s, const char *path, bool *changed)
{
    struct supervisor_watch *w = s->watch;

    POSTERN_ASSERT(w->n_sources < SOURCES_MAX && path[0] == '/');
    w->sources[w->n_sources++] = (struct source){.path = path, .changed = changed};
    watch_all(w);
    supervisor_watch_taken(s, changed);
}

void supervisor_watch_taken(struct supervisor *s, const bool *changed)
{
    for (size_t i = 0; i < s->watch->n_sources; i++) {
        struct source *src = &s->watch->sources[i];

        if (src->changed == changed) {
            src->read = src->seen = file_mark_now(src->path);
        }
    }
}

void supervisor_watch_all_changed(struct supervisor *s)
{
    for (size_t i = 0; i < s->watch->n_sources; i++) {
        *s->watch->sources[i].changed = true;
    }
}

int supervisor_watch_fd(const struct supervisor *s)
{
    return s->watch != NULL ? s->watch->dirs.fd : -1;
}

int supervisor_watch_due_ms(const struct supervisor *s)
{
    uint64_t now_ms = os_now_ms();

    return s->watch->due_ms > now_ms ? (int)(s->watch->due_ms - now_ms) : 0;
}

void supervisor_watch_turn(struct supervisor *s, bool readable)
{
    if (readable) {
        s->watch->due_ms = dir_watch_drain(&s->watch->dirs);
        s->watch->by_event = true;
    }
    if (s->watch->n_sources > 0 && supervisor_watch_due_ms(s) == 0) {
        look_at_all(s->watch);
    } else if (supervisor_watch_due_ms(s) == 0) {
        s->watch->due_ms = os_now_ms() + LOOK_MS;
    }
}
