/* Looking at a process: by its number, which counts only if the process that is meant lives before
 * and after. */
#include "heir_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool file_at(const char *path, struct heir_file *ret)
{
    struct stat st;
    if (stat(path, &st) == -1) {
        return false;
    }
    *ret = (struct heir_file){.dev = st.st_dev, .ino = st.st_ino};
    return true;
}

bool heir_exe(pid_t pid, struct heir_file *ret, char *ret_path)
{
    char link[64];
    (void)snprintf(link, sizeof(link), "/proc/%d/exe", pid);
    if (ret_path != NULL) {
        ssize_t n = readlink(link, ret_path, HEIR_PATH_MAX - 1);
        ret_path[n > 0 ? n : 0] = '\0';
    }
    return file_at(link, ret);
}

static bool lives(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

/* Of whom the number is: a process of another user is not the one that connected. */
static bool is_of(pid_t pid, uint32_t uid)
{
    char path[64];
    struct stat st;
    (void)snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    return lstat(path, &st) == 0 && (st.st_uid == uid || st.st_uid == 0);
}

enum heir_verdict heir_look(const struct heir_own *own, pid_t pid, int pidfd,
                            char ret_path[HEIR_PATH_MAX])
{
    struct heir_file asker, place;
    int mine = pidfd == -1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    int fd = pidfd != -1 ? pidfd : mine;
    bool placed = own->path[0] != '\0' && file_at(own->path, &place);
    bool shown = fd != -1 && is_of(pid, own->uid) && heir_exe(pid, &asker, ret_path);
    enum heir_verdict v = fd == -1 || !lives(fd) ? HEIR_GONE
                          : !shown               ? HEIR_UNKNOWN
                                   : heir_judge(&own->file, placed ? &place : NULL, &asker);
    if (mine != -1) {
        close(mine);
    }
    if (v == HEIR_GONE || v == HEIR_UNKNOWN) {
        ret_path[0] = '\0';
    }
    return v;
}
