#include <postern/file_mark.h>

struct file_mark file_mark_of(const struct stat *st)
{
    return (struct file_mark){.dev = st->st_dev,
                              .ino = st->st_ino,
                              .size = st->st_size,
                              .changed = st->st_ctim,
                              .modified = st->st_mtim};
}

struct file_mark file_mark_now(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? file_mark_of(&st) : (struct file_mark){.ino = 0};
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool file_mark_same(const struct file_mark *a, const struct file_mark *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           same_time(&a->changed, &b->changed) && same_time(&a->modified, &b->modified);
}
