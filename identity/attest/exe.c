/* exe: the digest of what a process runs.
 *
 * The file is the one that the kernel executes (/proc/PID/exe opened, never its path), but its
 * bytes count only where nobody but root made them up: on a file system of FUSE a workload could
 * answer our reads with one program and the kernel's with another, or never answer at all and so
 * hold up every other caller. See attest_mount_is_plain. */
#include <postern/attest.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attest_priv.h"

bool attest_exe_same(const struct attest_exe_key *a, const struct attest_exe_key *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_s == b->mtime_s &&
           a->mtime_ns == b->mtime_ns && a->ctime_s == b->ctime_s && a->ctime_ns == b->ctime_ns;
}

bool attest_exe_stat(int dir_fd, const char *name, struct attest_exe_key *ret, uint64_t *ret_mount)
{
    struct statx st;
    int flags = AT_STATX_DONT_SYNC | (name[0] == 0 ? AT_EMPTY_PATH : 0);

    /* DONT_SYNC: a file system of the caller's own must not make us wait for it. */
    if (statx(dir_fd, name, flags, STATX_BASIC_STATS | STATX_MNT_ID, &st) == -1 ||
        (st.stx_mask & STATX_MNT_ID) == 0 || !S_ISREG(st.stx_mode)) {
        return false;
    }
    *ret = (struct attest_exe_key){.dev = (uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor,
                                   .ino = st.stx_ino,
                                   .size = st.stx_size,
                                   .mtime_s = st.stx_mtime.tv_sec,
                                   .ctime_s = st.stx_ctime.tv_sec,
                                   .mtime_ns = st.stx_mtime.tv_nsec,
                                   .ctime_ns = st.stx_ctime.tv_nsec};
    *ret_mount = st.stx_mnt_id;
    return true;
}

bool attest_exe_believable(const struct attest_process *p, const struct attest_facts *facts,
                           const char **ret_why)
{
    if (!facts->has_exe) {
        *ret_why = "its executable cannot be seen";
        return false;
    }
    /* In another user namespace mounts are made by others than root. */
    if (!facts->own_users || !attest_mount_is_plain(p->dir_fd, facts->exe_mount)) {
        *ret_why = "its executable is on a file system that others may have made up";
        return false;
    }
    return true;
}

int attest_exe_open(const struct attest_process *p, const struct attest_facts *facts,
                    uint64_t max_bytes, const char **ret_why)
{
    struct attest_exe_key key;
    uint64_t mount;
    int fd;

    if (facts->exe.size > max_bytes) {
        *ret_why = "its executable is too large";
        return -1;
    }
    if (!attest_exe_believable(p, facts, ret_why)) {
        return -1;
    }
    fd = openat(p->dir_fd, "exe", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd == -1) {
        *ret_why = "its executable cannot be opened";
        return -1;
    }
    if (!attest_exe_stat(fd, "", &key, &mount) || !attest_exe_same(&key, &facts->exe) ||
        mount != facts->exe_mount) {
        close(fd);
        *ret_why = "its executable is another by now";
        return -1;
    }
    return fd;
}

int attest_exe_hash(int fd, const struct attest_exe_key *key, struct attest_sha256 *s,
                    size_t budget, uint8_t ret[AGENT_SHA256_SIZE])
{
    uint8_t chunk[16384];
    struct attest_exe_key now;
    uint64_t mount;

    while (budget > 0) {
        ssize_t n = read(fd, chunk, budget < sizeof(chunk) ? budget : sizeof(chunk));

        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == -1 || s->n + (uint64_t)n > key->size) {
            return -1;
        }
        if (n == 0) {
            if (s->n != key->size || !attest_exe_stat(fd, "", &now, &mount) ||
                !attest_exe_same(&now, key)) {
                return -1;
            }
            attest_sha256_end(s, ret);
            return 0;
        }
        attest_sha256_add(s, chunk, (size_t)n);
        budget -= (size_t)n;
    }
    return 1;
}
