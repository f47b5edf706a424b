#include "attest_priv.h"

#include <fcntl.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Mount ids are unique in the whole machine, so an id that stands in our own mountinfo is a mount
 * of ours and of nobody else's. That matters because the path of an executable is text: a process
 * in our namespace can run a file out of another one (through /proc/PID/root, or a descriptor), and
 * the kernel then shows a path as it looks over there. */

int attest_mounts_init(struct attest_mounts *m, int proc_fd, const char *whose, struct err *err)
{
    char name[32];

    (void)snprintf(name, sizeof(name), "%s/mountinfo", whose);
    *m = (struct attest_mounts){.fd = openat(proc_fd, name, O_RDONLY | O_CLOEXEC)};
    return m->fd == -1 ? err_sys(err, "/proc/%s", name) : 0;
}

void attest_mounts_deinit(struct attest_mounts *m)
{
    if (m->fd != -1) {
        close(m->fd);
    }
    free(m->ids);
    *m = (struct attest_mounts){.fd = -1};
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void add_id(struct attest_mounts *m, uint64_t id)
{
    MEM_GROW(m->ids, m->n, m->cap, 256);
    m->ids[m->n++] = id;
}

/* Each line begins with the id; the rest of it is not looked at. */
static bool read_ids(struct attest_mounts *m)
{
    char chunk[4096];
    uint64_t id = 0;
    bool in_id = true;
    ssize_t n;

    m->n = 0;
    if (lseek(m->fd, 0, SEEK_SET) == -1) {
        return false;
    }
    while ((n = read(m->fd, chunk, sizeof(chunk))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (chunk[i] == '\n') {
                in_id = true;
                id = 0;
            } else if (in_id && chunk[i] >= '0' && chunk[i] <= '9') {
                id = id * 10 + (uint64_t)(chunk[i] - '0');
            } else if (in_id) {
                in_id = false;
                add_id(m, id);
            }
        }
    }
    if (n == 0 && m->n > 0) {
        qsort(m->ids, m->n, sizeof(*m->ids), compare_ids);
    }
    return n == 0;
}

bool attest_mounts_has(struct attest_mounts *m, uint64_t id)
{
    /* The kernel marks the file when a mount of the namespace came or went (proc(5)). Asked after
     * the id was read: an id that had been given back and used again shows as a change here. */
    struct pollfd p = {.fd = m->fd, .events = POLLPRI};

    if (poll(&p, 1, 0) != 0) {
        m->valid = false;
    }
    if (!m->valid) {
        m->valid = read_ids(m);
    }
    return m->valid && m->n > 0 && bsearch(&id, m->ids, m->n, sizeof(*m->ids), compare_ids) != NULL;
}

/* What the machine's own disks and memory hold. Not here: FUSE in all its forms, network file
 * systems, and whatever else somebody may answer for. */
static const char *const PLAIN[] = {"ext2",  "ext3",   "ext4",     "xfs",     "btrfs",
                                    "f2fs",  "zfs",    "bcachefs", "overlay", "tmpfs",
                                    "ramfs", "rootfs", "squashfs", "erofs",   "iso9660"};
enum { MOUNTINFO_MAX = 1 << 20 };

/* The process is in our user namespace, so whatever is mounted in its mount namespace was mounted
 * by somebody with power over ours. A file of another namespace (run through /proc/PID/root) has a
 * mount id that does not stand there. */
bool attest_mount_is_plain(int proc_dir_fd, uint64_t id)
{
    mem_autofree char *text = mem_must_calloc(1, MOUNTINFO_MAX);
    ssize_t n = attest_read_text(proc_dir_fd, "mountinfo", text, MOUNTINFO_MAX);
    struct str type;

    if (n <= 0) {
        return false;
    }
    type = attest_parse_mount_type(text, (size_t)n, id);
    for (size_t i = 0; i < sizeof(PLAIN) / sizeof(PLAIN[0]); i++) {
        if (str_eq(type, str_of(PLAIN[i]))) {
            return true;
        }
    }
    return false;
}
