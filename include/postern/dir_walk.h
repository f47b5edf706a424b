/*
 * dir_walk: the names in a directory that is open already. Thread: one at a time for a directory.
 */
#ifndef POSTERN_DIR_WALK_H
#define POSTERN_DIR_WALK_H

/* Calls fn with each name but "." and "..", in no order, until it returns other than 0, and returns
 * that. -1 with errno, and no name told: the directory cannot be read. fn may remove names. */
int dir_walk(int dir_fd, int (*fn)(void *arg, const char *name), void *arg);

#endif
