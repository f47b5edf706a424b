#include <postern/dir_walk.h>

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int dir_walk(int dir_fd, int (*fn)(void *arg, const char *name), void *arg)
{
    int again = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = again != -1 ? fdopendir(again) : NULL;
    const struct dirent *e;
    int rc = 0;

    if (d == NULL) {
        if (again != -1) {
            close(again);
        }
        return -1;
    }
    /* The stream is ours alone. */
    while (rc == 0 && (e = readdir(d)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            rc = fn(arg, e->d_name);
        }
    }
    closedir(d);
    return rc;
}
