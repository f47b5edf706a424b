/*
 * Watching the files that the agent was told to read. The directories are watched and not the
 * files, since editors and ConfigMaps put another file, or another link, in the place of the old
 * one. An event only says "look": what decides is whether the file behind the name is another than
 * the one that was read last. Slow looks at every file go on beside it, for what inotify does not
 * tell (network file systems, a directory that is made later, a limit that was reached).
 */
#include "supervisor_priv.h"

#include <errno.h>
#include <limits.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum {
    SOURCES_MAX = 16,
    DIRS_MAX = 64,
    LINKS_MAX = 32,     /* followed on the way to one file */
    QUIET_MS = 100,     /* without an event: the writer is done */
    BURST_MAX_MS = 400, /* and no longer after the first one */
    LOOK_MS = 5000,     /* between looks without an event */
    READS_MAX = 8,      /* of events in a turn */
};
static const uint32_t EVENTS = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
                               IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

/* Which file stands behind a name, as far as stat tells. */
struct signature {
    dev_t dev;
    ino_t ino; /* 0: there is none */
    off_t size;
    struct timespec changed, modified;
};

struct source {
    const char *path; /* lent */
    bool *changed;    /* lent */
    struct signature read, seen;
};

struct supervisor_watch {
    int fd; /* -1: this kernel or its limits give none; looks go on */
    struct source sources[SOURCES_MAX];
    size_t n_sources;
    int dirs[DIRS_MAX], next_dirs[DIRS_MAX]; /* watch descriptors */
    size_t n_dirs, n_next_dirs;
    uint64_t burst_ms; /* when the first event of a burst came; 0: none */
    uint64_t due_ms;   /* the next look */
    bool by_event;     /* it is because of events */
};

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_file(const struct signature *a, const struct signature *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           same_time(&a->changed, &b->changed) && same_time(&a->modified, &b->modified);
}

static struct signature look(const char *path)
{
    struct stat st;

    if (stat(path, &st) == -1) {
        return (struct signature){.ino = 0};
    }
    return (struct signature){.dev = st.st_dev,
                              .ino = st.st_ino,
                              .size = st.st_size,
                              .changed = st.st_ctim,
                              .modified = st.st_mtim};
}

/* --- directories ------------------------------------------------------------------------------ */
static void watch_dir(struct supervisor_watch *w, const char *dir)
{
    int wd = inotify_add_watch(w->fd, dir[0] != '\0' ? dir : "/", EVENTS);

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

/* Every directory in which a link of this path stands, and the one with the file itself. */
static void watch_path(struct supervisor_watch *w, const char *path)
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
            watch_dir(w, at);
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

/* Links lead elsewhere now and then: the set is made anew, and what is not in it is let go. */
static void watch_all(struct supervisor_watch *w)
{
    if (w->fd == -1) {
        return;
    }
    w->n_next_dirs = 0;
    for (size_t i = 0; i < w->n_sources; i++) {
        watch_path(w, w->sources[i].path);
    }
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

/* --- looking ---------------------------------------------------------------------------------- */
static void look_at_all(struct supervisor_watch *w)
{
    watch_all(w); /* first: what changes after the look is then an event */
    for (size_t i = 0; i < w->n_sources; i++) {
        struct source *src = &w->sources[i];
        struct signature now = look(src->path);

        /* Without an event nobody says that the writer is done: it has to look the same twice. */
        if (!same_file(&now, &src->read) && (w->by_event || same_file(&now, &src->seen))) {
            *src->changed = true;
        }
        src->seen = now;
    }
    w->by_event = false;
    w->burst_ms = 0;
    w->due_ms = os_now_ms() + LOOK_MS;
}

static void drain_events(struct supervisor_watch *w)
{
    _Alignas(struct inotify_event) char events[4096];
    uint64_t now_ms = os_now_ms();
    uint64_t latest_ms;

    for (int i = 0; i < READS_MAX && read(w->fd, events, sizeof(events)) > 0; i++) {
    }
    if (w->burst_ms == 0) {
        w->burst_ms = now_ms;
    }
    latest_ms = w->burst_ms + BURST_MAX_MS;
    w->due_ms = now_ms + QUIET_MS < latest_ms ? now_ms + QUIET_MS : latest_ms;
    w->by_event = true;
}

/* --- for the others --------------------------------------------------------------------------- */
void supervisor_watch_open(struct supervisor *s)
{
    struct supervisor_watch *w = mem_must_new(struct supervisor_watch);
    struct err err = ERR_INIT;

    w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (w->fd == -1) {
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
    if (s->watch != NULL && s->watch->fd != -1) {
        close(s->watch->fd);
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
            src->read = src->seen = look(src->path);
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
    return s->watch != NULL ? s->watch->fd : -1;
}

int supervisor_watch_due_ms(const struct supervisor *s)
{
    uint64_t now_ms = os_now_ms();

    return s->watch->due_ms > now_ms ? (int)(s->watch->due_ms - now_ms) : 0;
}

void supervisor_watch_turn(struct supervisor *s, bool readable)
{
    if (readable) {
        drain_events(s->watch);
    }
    if (s->watch->n_sources > 0 && supervisor_watch_due_ms(s) == 0) {
        look_at_all(s->watch);
    } else if (supervisor_watch_due_ms(s) == 0) {
        s->watch->due_ms = os_now_ms() + LOOK_MS;
    }
}
