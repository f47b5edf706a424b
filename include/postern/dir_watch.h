/*
 * dir_watch: that something has changed about files. Directories are watched and not files, those
 * of links on the way too, since a file is mostly exchanged and not written. An event only says
 * "look": what has changed is for the owner to find out, and to look now and then without one, for
 * what inotify does not tell (network file systems, a directory that is made later, a limit).
 *
 * No loop of its own: the owner waits for `fd` and calls dir_watch_drain. One thread. System calls
 * that a filter must allow: inotify_add_watch, inotify_rm_watch, read, readlink; and inotify_init1,
 * close for open and close. Units: *_ms of os_now_ms.
 */
#ifndef POSTERN_DIR_WATCH_H
#define POSTERN_DIR_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DIR_WATCH_MAX = 256 };

struct dir_watch {
    int fd;                                            /* owned; -1: none is to be had */
    size_t max_dirs;                                   /* DIR_WATCH_MAX at most */
    int dirs[DIR_WATCH_MAX], next_dirs[DIR_WATCH_MAX]; /* watch descriptors */
    size_t n_dirs, n_next_dirs;
    uint64_t burst_ms; /* when the first event of a burst came; 0: none */
};

/* False with errno: this kernel or its limits give none. It may be used all the same: there are no
 * events then. */
bool dir_watch_open(struct dir_watch *w, size_t max_dirs);
void dir_watch_close(struct dir_watch *w);

/* Links lead elsewhere now and then, so the set is made anew each time: begin, add each path
 * (absolute), end. What is not in it is let go. */
void dir_watch_begin(struct dir_watch *w);
void dir_watch_add(struct dir_watch *w, const char *path);
void dir_watch_end(struct dir_watch *w);

/* Takes the events away, when fd is readable. When to look: once the writer has been quiet for a
 * moment, and no later than a while after the first event of a burst. */
uint64_t dir_watch_drain(struct dir_watch *w);
/* The owner looks now: the next event begins a burst. */
void dir_watch_looked(struct dir_watch *w);

/* Every directory in which a link of this absolute path stands, and the one with the file itself.
 */
void dir_watch_path_dirs(const char *path, void (*fn)(void *arg, const char *dir), void *arg);

#endif
