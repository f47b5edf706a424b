/*
 * That something has changed about files. Directories are watched and not files, those of links on
 * the way too, since a file is mostly exchanged and not written. An event only says "look", and not
 * before all has been quiet for a moment. Slow looks find what inotify does not tell.
 */
#include "credential_priv.h"

#include <limits.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum {
    DIRS_MAX = 256,
    LINKS_MAX = 32,     /* followed on the way to one file */
    QUIET_MS = 100,     /* without an event: the writer is done */
    BURST_MAX_MS = 400, /* and no longer after the first one */
    LOOK_MS = 5000,     /* between looks without an event */
    READS_MAX = 8,      /* of events in a turn */
};
static const uint32_t EVENTS = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
                               IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

struct credential_watch {
    int fd; /* -1: this kernel or its limits give none; looks go on */
    struct loop_io *io;
    struct loop_timer timer;
    void (*fn)(void *arg, bool by_event);
    void *arg;
    int dirs[DIRS_MAX], next_dirs[DIRS_MAX]; /* watch descriptors */
    size_t n_dirs, n_next_dirs;
    uint64_t burst_ms; /* when the first event of a burst came; 0: none */
    bool by_event;     /* the next look is because of events */
};

/* --- paths ------------------------------------------------------------------------------------ */
/* Takes the first name off *rest; false: there is none. */
static bool next_name(char **rest, char **ret_name)
{
    char *name = *rest + strspn(*rest, "/");
    size_t n = strcspn(name, "/");
    if (n == 0) {
        return false;
    }
    *rest = name + n + (name[n] == '/' ? 1 : 0);
    name[n] = '\0';
    *ret_name = name;
    return true;
}

void credential_path_dirs(const char *path, void (*fn)(void *arg, const char *dir), void *arg)
{
    mem_autofree char *text = mem_must_strdup(path);
    char *rest = text, *name;
    char at[PATH_MAX] = "", next[PATH_MAX], target[PATH_MAX];
    unsigned links = 0;
    while (next_name(&rest, &name)) {
        if (strcmp(name, ".") == 0) {
            continue;
        }
        if (strcmp(name, "..") == 0) {
            char *slash = strrchr(at, '/');
            at[slash != NULL ? slash - at : 0] = '\0';
            continue;
        }
        if (snprintf(next, sizeof(next), "%s/%s", at, name) >= (int)sizeof(next)) {
            return;
        }
        ssize_t n = readlink(next, target, sizeof(target) - 1);
        bool last = rest[strspn(rest, "/")] == '\0';
        if (n > 0 || last) {
            fn(arg, at[0] != '\0' ? at : "/");
        }
        if (n <= 0) {
            memcpy(at, next, sizeof(at));
            continue;
        }
        if (++links > LINKS_MAX) {
            return;
        }
        target[n] = '\0';
        if (target[0] == '/') {
            at[0] = '\0';
        }
        char *joined = mem_must_printf("%s/%s", target, rest);
        free(text);
        text = rest = joined;
    }
}

static void add_dir(void *arg, const char *dir)
{
    struct credential_watch *w = arg;
    int wd = inotify_add_watch(w->fd, dir, EVENTS);
    if (wd == -1) {
        return; /* not there yet, or a limit: the slow looks find it */
    }
    for (size_t i = 0; i < w->n_next_dirs; i++) {
        if (w->next_dirs[i] == wd) {
            return;
        }
    }
    if (w->n_next_dirs < DIRS_MAX) {
        w->next_dirs[w->n_next_dirs++] = wd;
    } else {
        (void)inotify_rm_watch(w->fd, wd);
    }
}

void credential_watch_begin(struct credential_watch *w)
{
    w->n_next_dirs = 0;
}

void credential_watch_add(struct credential_watch *w, const char *path)
{
    if (w->fd != -1) {
        credential_path_dirs(path, add_dir, w);
    }
}

void credential_watch_end(struct credential_watch *w)
{
    for (size_t i = 0; i < w->n_dirs; i++) {
        bool kept = false;
        for (size_t k = 0; k < w->n_next_dirs; k++) {
            kept = kept || w->next_dirs[k] == w->dirs[i];
        }
        if (!kept) {
            (void)inotify_rm_watch(w->fd, w->dirs[i]); /* one whose directory is gone is gone */
        }
    }
    memcpy(w->dirs, w->next_dirs, w->n_next_dirs * sizeof(w->dirs[0]));
    w->n_dirs = w->n_next_dirs;
}

/* --- events ----------------------------------------------------------------------------------- */
static void on_timer(void *arg)
{
    struct credential_watch *w = arg;
    bool by_event = w->by_event;
    w->by_event = false;
    w->burst_ms = 0;
    loop_timer_arm(&w->timer, LOOK_MS); /* fn may ask for an earlier one */
    w->fn(w->arg, by_event);
}

static void on_events(void *arg, unsigned ready)
{
    struct credential_watch *w = arg;
    _Alignas(struct inotify_event) char events[4096];
    uint64_t now_ms = os_now_ms();
    (void)ready;
    for (int i = 0; i < READS_MAX && read(w->fd, events, sizeof(events)) > 0; i++) {
    }
    if (w->burst_ms == 0) {
        w->burst_ms = now_ms;
    }
    uint64_t latest_ms = w->burst_ms + BURST_MAX_MS;
    uint64_t due_ms = now_ms + QUIET_MS < latest_ms ? now_ms + QUIET_MS : latest_ms;
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
    w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    w->io = w->fd != -1 ? loop_io_new(loop, w->fd, on_events, w) : NULL;
    if (w->io != NULL) {
        loop_io_want(w->io, LOOP_READ);
    } else if (w->fd != -1) {
        close(w->fd);
        w->fd = -1;
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
        if (w->fd != -1) {
            close(w->fd);
        }
        free(w);
    }
    return NULL;
}
