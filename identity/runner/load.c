#include "runner_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 4 << 20 };

/* Whoever may write it may have programs run as us. */
static int check_owner(int fd, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) == -1) {
        return err_sys(err, "fstat");
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(err, ERR_CONFIG, "it is no regular file");
    }
    if (st.st_uid != 0 && st.st_uid != geteuid()) {
        err_set(err, ERR_DENIED, "it belongs to uid %u", (unsigned)st.st_uid);
        return err_expected(err, "root, or uid %u, as its owner", (unsigned)geteuid());
    }
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        err_set(err, ERR_DENIED, "others may write to it (mode %04o)",
                (unsigned)st.st_mode & 07777);
        return err_advise(err, "chmod go-w: it says which programs are run");
    }
    return 0;
}

static int read_all(int fd, char **ret, size_t *ret_len, struct err *err)
{
    mem_autofree char *text = mem_must_calloc(FILE_MAX + 2, 1);
    size_t len = 0;

    while (len <= FILE_MAX) {
        ssize_t n = read(fd, text + len, FILE_MAX + 1 - len);

        if (n == -1 && errno != EINTR) {
            return err_sys(err, "it cannot be read");
        }
        if (n == 0) {
            *ret = text;
            *ret_len = len;
            text = NULL;
            return 0;
        }
        len += n > 0 ? (size_t)n : 0;
    }
    return err_set(err, ERR_LIMIT, "it is larger than %d MiB", FILE_MAX >> 20);
}

int runner_load(const char *path, struct conf_rotate **ret, struct err *err)
{
    os_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct conf_diag *diag;
    int r;

    if (fd == -1) {
        err_sys(err, "it cannot be opened");
        return err_where(err, "%s", path);
    }
    if (check_owner(fd, err) == -1 || read_all(fd, &text, &len, err) == -1) {
        return err_where(err, "%s", path);
    }
    diag = conf_diag_new();
    r = conf_parse_rotate(path, text, len, diag, ret);
    if (r == -1) {
        *err = *conf_diag_get(diag, 0);
    }
    conf_diag_free(diag);
    return r;
}
