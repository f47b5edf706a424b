#include <postern/os.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct timespec read_clock(clockid_t id)
{
    struct timespec ts;
    POSTERN_ASSERT(clock_gettime(id, &ts) == 0);
    return ts;
}

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec ts = read_clock(clock);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t os_now_ms(void)
{
    return clock_ms(CLOCK_BOOTTIME);
}

uint64_t os_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

int64_t os_wall_s(void)
{
    return (int64_t)read_clock(CLOCK_REALTIME).tv_sec;
}

void os_time_text(int64_t wall_s, char *ret_text, size_t size)
{
    time_t t = (time_t)wall_s;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(ret_text, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        snprintf(ret_text, size, "invalid");
    }
}

void os_wall_text(char *ret_text, size_t size)
{
    struct timespec ts = read_clock(CLOCK_REALTIME);
    char whole[32];
    os_time_text((int64_t)ts.tv_sec, whole, sizeof(whole));
    whole[strlen(whole) - 1] = '\0'; /* the Z comes after the milliseconds */
    snprintf(ret_text, size, "%s.%03ldZ", whole, ts.tv_nsec / 1000000);
}

void os_random(void *p, size_t n)
{
    uint8_t *at = p;
    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);
        if (got == -1) {
            POSTERN_ASSERT(errno == EINTR);
            continue;
        }
        at += got;
        n -= (size_t)got;
    }
}

uint64_t os_random_below(uint64_t bound)
{
    if (bound == 0) {
        return 0;
    }
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
    uint64_t v;
    do {
        os_random(&v, sizeof(v));
    } while (v >= limit);
    return v % bound;
}

void os_fd_cleanup(int *fd)
{
    if (*fd != -1) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
}

int os_set_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags == -1 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int os_write_all(int fd, const void *p, size_t n)
{
    const uint8_t *at = p;
    while (n > 0) {
        ssize_t put = write(fd, at, n);
        if (put == -1) {
            if (errno == EINTR) {
                continue;
            }
            return -1;
        }
        at += put;
        n -= (size_t)put;
    }
    return 0;
}

int os_read_file(const char *path, size_t max, bool nofollow, char **ret_data, size_t *ret_len,
                 struct err *err)
{
    /* O_NONBLOCK: to open a FIFO would wait for a writer; for a regular file it changes nothing. */
    int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (nofollow ? O_NOFOLLOW : 0);
    os_autofd int fd = open(path, flags);
    if (fd == -1) {
        err_sys(err, "cannot open the file");
        return err_where(err, "%s", path);
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        err_sys(err, "cannot look at the file");
        return err_where(err, "%s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(err, ERR_CONFIG, "not a regular file");
        return err_where(err, "%s", path);
    }
    /* Read to the end and not to st_size, which may be stale; one byte more tells "too large". */
    size_t first = st.st_size > 0 ? (size_t)st.st_size + 1 : 4096;
    size_t cap = first < max ? first : max;
    size_t len = 0;
    mem_autofree char *data = mem_must_calloc(cap + 2, 1);
    for (;;) {
        if (len > max) {
            err_set(err, ERR_LIMIT, "the file is larger than %zu bytes", max);
            return err_where(err, "%s", path);
        }
        if (len > cap) {
            cap = cap * 2 > max ? max : cap * 2;
            data = mem_must_realloc(data, cap + 2);
        }
        ssize_t got = read(fd, data + len, cap + 1 - len);
        if (got == -1) {
            if (errno == EINTR) {
                continue;
            }
            err_sys(err, "cannot read the file");
            return err_where(err, "%s", path);
        }
        if (got == 0) {
            break;
        }
        len += (size_t)got;
    }
    data[len] = '\0';
    *ret_data = data;
    *ret_len = len;
    data = NULL;
    return 0;
}

bool os_parent_dir(const char *path, char *ret_dir, size_t size)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL || slash == path ? 1 : (size_t)(slash - path);
    if (len >= size) {
        return false;
    }
    memcpy(ret_dir, slash == NULL ? "." : path, len);
    ret_dir[len] = '\0';
    return true;
}

static int sync_dir_of(const char *path, struct err *err)
{
    char name[PATH_MAX];
    if (!os_parent_dir(path, name, sizeof(name))) {
        return err_set(err, ERR_LIMIT, "the path is too long");
    }
    os_autofd int dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir == -1 || fsync(dir) != 0) {
        err_sys(err, "cannot flush the directory");
        return err_where(err, "%s", path);
    }
    return 0;
}

int os_write_file_atomic(const char *path, const void *data, size_t len, mode_t mode,
                         struct err *err)
{
    mem_autofree char *tmp = mem_must_printf("%s.XXXXXX", path);
    os_autofd int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd == -1) {
        err_sys(err, "cannot create a file there");
        return err_where(err, "%s", path);
    }
    if (fchmod(fd, mode) != 0 || os_write_all(fd, data, len) != 0 || fsync(fd) != 0 ||
        rename(tmp, path) != 0) {
        err_sys(err, "cannot write the file");
        unlink(tmp);
        return err_where(err, "%s", path);
    }
    return sync_dir_of(path, err);
}

int os_self_dir(char *ret_path, size_t size, struct err *err)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (n == -1) {
        return err_sys(err, "cannot read /proc/self/exe");
    }
    path[n] = '\0';
    if (!os_parent_dir(path, ret_path, size)) {
        return err_set(err, ERR_LIMIT, "the path of this executable is too long");
    }
    return 0;
}
