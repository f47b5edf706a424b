/* Directories that are watched, and which: include/postern/dir_watch.h. */
#include <postern/dir_watch.h>

#include <limits.h>
#include <postern/err.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum {
    LINKS_MAX = 32,     /* followed on the way to one file */
    QUIET_MS = 100,     /* without an event: the writer is done */
    BURST_MAX_MS = 400, /* and no longer after the first one */
    READS_MAX = 8,      /* of events in a turn */
};
static const uint32_t EVENTS = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
                               IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

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

void dir_watch_path_dirs(const char *path, void (*fn)(void *arg, const char *dir), void *arg)
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

/* --- the set ---------------------------------------------------------------------------------- */
bool dir_watch_open(struct dir_watch *w, size_t max_dirs)
{
    POSTERN_ASSERT(max_dirs <= DIR_WATCH_MAX);
    *w = (struct dir_watch){.max_dirs = max_dirs};
    w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    return w->fd != -1;
}

void dir_watch_close(struct dir_watch *w)
{
    if (w->fd != -1) {
        close(w->fd);
        w->fd = -1;
    }
}

static void add_dir(void *arg, const char *dir)
{
    struct dir_watch *w = arg;
    int wd = inotify_add_watch(w->fd, dir, EVENTS);
    if (wd == -1) {
        return; /* not there yet, or a limit: the slow looks find it */
    }
    for (size_t i = 0; i < w->n_next_dirs; i++) {
        if (w->next_dirs[i] == wd) {
            return;
        }
    }
    if (w->n_next_dirs < w->max_dirs) {
        w->next_dirs[w->n_next_dirs++] = wd;
    } else {
        (void)inotify_rm_watch(w->fd, wd);
    }
}

void dir_watch_begin(struct dir_watch *w)
{
    w->n_next_dirs = 0;
}

void dir_watch_add(struct dir_watch *w, const char *path)
{
    if (w->fd != -1) {
        dir_watch_path_dirs(path, add_dir, w);
    }
}

void dir_watch_end(struct dir_watch *w)
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
uint64_t dir_watch_drain(struct dir_watch *w)
{
    _Alignas(struct inotify_event) char events[4096];
    uint64_t now_ms = os_now_ms();
    for (int i = 0; i < READS_MAX && read(w->fd, events, sizeof(events)) > 0; i++) {
    }
    if (w->burst_ms == 0) {
        w->burst_ms = now_ms;
    }
    uint64_t latest_ms = w->burst_ms + BURST_MAX_MS;
    return now_ms + QUIET_MS < latest_ms ? now_ms + QUIET_MS : latest_ms;
}

void dir_watch_looked(struct dir_watch *w)
{
    w->burst_ms = 0;
}
