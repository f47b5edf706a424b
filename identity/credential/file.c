/* A file's bytes, and which file it was. */
#include "credential_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <string.h>
#include <unistd.h>

/* Whoever owns it may have put it there; nobody else may have changed it. */
static int check(const struct stat *st, size_t max, struct err *err)
{
    if (!S_ISREG(st->st_mode)) {
        return err_set(err, ERR_CONFIG, "it is not a regular file");
    }
    if ((st->st_mode & 0022) != 0) {
        err_set(err, ERR_CONFIG, "others than its owner may write it (mode %04o)",
                (unsigned)(st->st_mode & 07777));
        return err_advise(err, "chmod go-w, if nobody else has written to it");
    }
    if (st->st_size <= 0 || (uint64_t)st->st_size > max) {
        err_set(err, ERR_CONFIG, "it has %lld bytes", (long long)st->st_size);
        return err_expected(err, "1 to %zu", max);
    }
    return 0;
}

static int read_whole(int fd, struct file_bytes *b, size_t size, struct err *err)
{
    b->p = mem_secret_alloc(size);
    if (b->p == NULL) {
        return err_set(err, ERR_LIMIT, "no memory");
    }
    while (b->n < size) {
        ssize_t n = read(fd, b->p + b->n, size - b->n);
        if (n == -1 && errno != EINTR) {
            return err_sys(err, "it cannot be read");
        }
        if (n == 0) {
            break; /* it became shorter: the mark tells */
        }
        b->n += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int file_read(const char *path, size_t max, struct file_bytes *ret, struct err *err)
{
    struct stat st = {.st_size = 0};
    struct file_bytes b = {.n = 0};
    /* Not to be held up by what is no file. */
    os_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int r = fd != -1 && fstat(fd, &st) == 0 ? check(&st, max, err)
                                            : err_sys(err, "it cannot be opened");
    if (r == 0) {
        b.mark = file_mark_of(&st);
        b.mode = st.st_mode;
        r = read_whole(fd, &b, (size_t)st.st_size, err);
    }
    if (r == -1) {
        file_bytes_deinit(&b);
        return err_where(err, "%s", path);
    }
    *ret = b;
    return 0;
}

void file_bytes_deinit(struct file_bytes *b)
{
    mem_secret_free(b->p);
    *b = (struct file_bytes){.n = 0};
}
