/*
 * file_watch: when to look at files again. After events about their directories (dir_watch.h), once
 * all has been quiet for a moment; and now and then without one, since not all is told. What has
 * changed is for the owner to find out (file_mark.h).
 *
 * Thread: one loop's. System calls that a filter must allow: those of dir_watch.h.
 */
#ifndef POSTERN_FILE_WATCH_H
#define POSTERN_FILE_WATCH_H

#include <postern/loop.h>
#include <stdbool.h>
#include <stdint.h>

struct file_watch;
/* fn: something happened in one of the directories, and all has been quiet for a moment; or it is
 * time for a slow look (by_event false), each five seconds. */
struct file_watch *file_watch_new(struct loop *loop, void (*fn)(void *arg, bool by_event),
                                  void *arg);
/* The same without events, for a process that may not ask for them any more. */
struct file_watch *file_watch_new_slow(struct loop *loop, void (*fn)(void *arg, bool by_event),
                                       void *arg);
struct file_watch *file_watch_free(struct file_watch *w);
/* The set is made anew: begin, add each path, end. */
void file_watch_begin(struct file_watch *w);
void file_watch_add(struct file_watch *w, const char *path);
void file_watch_end(struct file_watch *w);
/* Looks again after so long, as if there had been an event. */
void file_watch_soon(struct file_watch *w, uint32_t delay_ms);

#endif
