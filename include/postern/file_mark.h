/*
 * file_mark: which file stands behind a name, as far as stat tells. Another mark is another file or
 * another content; the same mark is the same file, but for what is written within one tick of the
 * file system's clock. Any thread.
 */
#ifndef POSTERN_FILE_MARK_H
#define POSTERN_FILE_MARK_H

#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

struct file_mark {
    dev_t dev;
    ino_t ino; /* 0: there is none */
    off_t size;
    struct timespec changed, modified;
};
struct file_mark file_mark_of(const struct stat *st);
/* Follows links. */
struct file_mark file_mark_now(const char *path);
bool file_mark_same(const struct file_mark *a, const struct file_mark *b);

#endif
