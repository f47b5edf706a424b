#include "attest_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <postern/os.h>
#include <postern/str.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5; not in Debian 12's headers */
#endif

enum { TEXT_MAX = 4096, CGROUP_TEXT_MAX = 16384, READ_TRIES = 4 };

ssize_t attest_read_text(int dir_fd, const char *name, char *text, size_t size)
{
    os_autofd int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t len = 0;

    if (fd == -1) {
        return -1;
    }
    while (len < size) {
        ssize_t n = read(fd, text + len, size - len);

        if (n == -1) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    return (ssize_t)len;
}

static bool read_link(int dir_fd, const char *name, char *ret, size_t size)
{
    ssize_t n = readlinkat(dir_fd, name, ret, size);

    if (n <= 0 || (size_t)n >= size) {
        return false; /* as long as the space: it may have been cut */
    }
    ret[n] = 0;
    return true;
}

static bool same_namespace(int dir_fd, const char *name, const char *own)
{
    char theirs[64];

    return own[0] != 0 && read_link(dir_fd, name, theirs, sizeof(theirs)) &&
           strcmp(own, theirs) == 0;
}

/* --- the executable --------------------------------------------------------------------------- */
/* A path counts only if it means the same to us as to whoever wrote the entry: the process is in
 * our mount and user namespaces, the file lies on a mount of ours, and it is still there. */
static void read_path(struct attest_view *v, int dir_fd, struct attest_facts *facts)
{
    static const char deleted[] = " (deleted)";
    size_t len;

    if (!facts->own_view || !facts->has_exe ||
        !read_link(dir_fd, "exe", facts->path, sizeof(facts->path)) || facts->path[0] != '/') {
        return;
    }
    len = strlen(facts->path);
    if (!str_has_suffix((struct str){facts->path, len}, STR_LIT(deleted)) &&
        attest_mounts_has(&v->mounts, facts->exe_mount)) {
        facts->path_len = len;
    }
}

/* --- where it lives --------------------------------------------------------------------------- */
/* Its root directory is ours: a mount namespace of its own is then a copy of ours with changes
 * (PrivateTmp= of systemd, ip netns exec), and not a container's. */
static bool same_root(const struct attest_view *v, int dir_fd)
{
    struct statx st;

    return statx(dir_fd, "root", AT_STATX_DONT_SYNC, STATX_INO, &st) == 0 &&
           ((uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor) == v->root_dev &&
           st.stx_ino == v->root_ino;
}

static void read_namespaces(struct attest_view *v, int dir_fd, struct attest_facts *facts)
{
    char seen[64];
    bool own_mounts = same_namespace(dir_fd, "ns/mnt", v->own_mount_ns);

    facts->own_users = same_namespace(dir_fd, "ns/user", v->own_user_ns);
    facts->own_view = own_mounts && facts->own_users;
    /* An agent that root did not start sees no namespaces but of its own user's processes: then
     * control group and pid say what can be said. One that should see them assumes the worst. */
    if (!v->sees_all && !read_link(dir_fd, "ns/mnt", seen, sizeof(seen))) {
        return;
    }
    facts->contained |= !facts->own_users || !same_namespace(dir_fd, "ns/pid", v->own_pid_ns) ||
                        (!own_mounts && !same_root(v, dir_fd));
}

static bool read_cgroup(struct attest_view *v, int dir_fd, struct attest_facts *facts)
{
    char text[CGROUP_TEXT_MAX];
    ssize_t n = attest_read_text(dir_fd, "cgroup", text, sizeof(text));

    if (n == -1 || (size_t)n == sizeof(text) ||
        !attest_cgroup_parse(text, (size_t)n, str_of(v->own_prefix), &facts->cgroup)) {
        return false;
    }
    facts->contained |= facts->cgroup.contained;
    return true;
}

/* --- all at one time -------------------------------------------------------------------------- */
static bool same_groups(const struct attest_groups *a, const struct attest_groups *b)
{
    return a->n == b->n && a->truncated == b->truncated &&
           memcmp(a->gids, b->gids, a->n * sizeof(a->gids[0])) == 0;
}

/* Users and executable are read one after the other: an exec or setuid in between, by way of a
 * program that may change its user, would make one caller of two. So both are looked at again. */
static bool is_unchanged(int dir_fd, const struct attest_facts *facts)
{
    char text[TEXT_MAX];
    struct attest_groups groups;
    struct attest_exe_key exe;
    uint64_t mount = 0;
    uint32_t uid, gid;
    ssize_t n = attest_read_text(dir_fd, "status", text, sizeof(text));

    return n != -1 && attest_parse_status(text, (size_t)n, &uid, &gid, &groups) &&
           uid == facts->uid && gid == facts->gid && same_groups(&groups, &facts->groups) &&
           attest_exe_stat(dir_fd, "exe", &exe, &mount) == facts->has_exe &&
           (!facts->has_exe || (attest_exe_same(&exe, &facts->exe) && mount == facts->exe_mount));
}

/* --- a process -------------------------------------------------------------------------------- */
static bool alive(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}

/* One reading; *ret_moved: it was another process's at its end than at its beginning. */
static enum agent_attest read_once(struct attest_view *v, const struct attest_process *p,
                                   struct attest_facts *ret_facts, bool *ret_moved)
{
    char text[TEXT_MAX];
    ssize_t n;

    *ret_facts = (struct attest_facts){.read_ms = os_now_ms()};
    n = attest_read_text(p->dir_fd, "status", text, sizeof(text));
    if (n == -1 || !attest_parse_status(text, (size_t)n, &ret_facts->uid, &ret_facts->gid,
                                        &ret_facts->groups)) {
        return AGENT_ATTEST_FAILED;
    }
    ret_facts->contained = attest_parse_nested_pid(text, (size_t)n);
    n = attest_read_text(p->dir_fd, "stat", text, sizeof(text));
    if (n == -1 || !attest_parse_stat(text, (size_t)n, &ret_facts->start_time)) {
        return AGENT_ATTEST_FAILED;
    }
    read_namespaces(v, p->dir_fd, ret_facts);
    if (!read_cgroup(v, p->dir_fd, ret_facts)) {
        return AGENT_ATTEST_FAILED;
    }
    ret_facts->has_exe = attest_exe_stat(p->dir_fd, "exe", &ret_facts->exe, &ret_facts->exe_mount);
    read_path(v, p->dir_fd, ret_facts);
    *ret_moved = !is_unchanged(p->dir_fd, ret_facts);
    return *ret_moved ? AGENT_ATTEST_FAILED : AGENT_ATTEST_OK;
}

enum agent_attest attest_process_read(struct attest_view *v, const struct attest_process *p,
                                      struct attest_facts *ret_facts, const char **ret_why)
{
    enum agent_attest outcome = AGENT_ATTEST_FAILED;
    bool moved = true;

    /* An honest program may exec or give up its user in the midst of a reading: it is read anew,
     * from the beginning. One that holds still for none of a few readings is nobody. */
    for (int i = 0; i < READ_TRIES && moved && alive(p->pidfd); i++) {
        moved = false;
        outcome = read_once(v, p, ret_facts, &moved);
    }
    /* Only a process that still lives owns what we have read: its number was not free meanwhile. */
    if (!alive(p->pidfd)) {
        *ret_why = "its process has ended";
        return AGENT_ATTEST_GONE;
    }
    *ret_why =
        moved ? "it became another while it was looked at" : "its facts cannot be read from /proc";
    return outcome;
}

void attest_process_close(struct attest_process *p)
{
    if (p->pidfd != -1) {
        close(p->pidfd);
    }
    if (p->dir_fd != -1) {
        close(p->dir_fd);
    }
    p->pidfd = p->dir_fd = -1;
}

/* The kernel's own pidfd of the peer; 1: this kernel has none. */
static int peer_pidfd(struct attest_view *v, int sock, struct attest_process *p)
{
    char name[64], text[TEXT_MAX];
    socklen_t len = sizeof(p->pidfd);
    ssize_t n;

    if (v->force_fallback) {
        return 1;
    }
    if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &p->pidfd, &len) == -1) {
        p->pidfd = -1;
        return errno == ENOPROTOOPT ? 1 : -1;
    }
    (void)snprintf(name, sizeof(name), "self/fdinfo/%d", p->pidfd);
    n = attest_read_text(v->proc_fd, name, text, sizeof(text));
    return n != -1 && attest_parse_fdinfo(text, (size_t)n, &p->pid) ? 0 : -1;
}

static int open_dir(struct attest_view *v, struct attest_process *p)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "%d", (int)p->pid);
    p->dir_fd = openat(v->proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return p->dir_fd == -1 ? -1 : 0;
}

enum agent_attest attest_process_open(struct attest_view *v, int sock, struct attest_process *ret,
                                      struct attest_facts *ret_facts, const char **ret_why)
{
    struct attest_process p = {.pidfd = -1, .dir_fd = -1};
    struct ucred cred;
    socklen_t len = sizeof(cred);
    enum agent_attest outcome;
    int r;

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1 || cred.pid <= 0) {
        *ret_why = "it is in a pid namespace that this agent does not see";
        return AGENT_ATTEST_FAILED;
    }
    r = peer_pidfd(v, sock, &p);
    if (r == 1) {
        p.pid = cred.pid;
        p.pidfd = (int)syscall(SYS_pidfd_open, p.pid, 0);
        r = p.pidfd == -1 ? -1 : 1;
    }
    if (r == -1 || !alive(p.pidfd) || open_dir(v, &p) == -1) {
        *ret_why = "its process has ended";
        attest_process_close(&p);
        return AGENT_ATTEST_GONE;
    }
    outcome = attest_process_read(v, &p, ret_facts, ret_why);
    /* Without the kernel's pidfd the number may be somebody else's by now: then at least the same
     * user, which the kernel noted when the peer connected. */
    if (outcome == AGENT_ATTEST_OK && r == 1 &&
        (ret_facts->uid != cred.uid || ret_facts->gid != cred.gid)) {
        *ret_why = "its user is not the one that connected";
        outcome = AGENT_ATTEST_FAILED;
    }
    if (outcome != AGENT_ATTEST_OK) {
        attest_process_close(&p);
        return outcome;
    }
    *ret = p;
    return AGENT_ATTEST_OK;
}

enum agent_attest attest_process_open_pid(struct attest_view *v, pid_t pid,
                                          struct attest_process *ret,
                                          struct attest_facts *ret_facts, const char **ret_why)
{
    struct attest_process p = {.pid = pid, .dir_fd = -1};
    enum agent_attest outcome = AGENT_ATTEST_GONE;

    p.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    *ret_why = "there is no such process";
    if (p.pidfd != -1 && open_dir(v, &p) == 0) {
        outcome = attest_process_read(v, &p, ret_facts, ret_why);
    }
    if (outcome != AGENT_ATTEST_OK) {
        attest_process_close(&p);
        return outcome;
    }
    *ret = p;
    return AGENT_ATTEST_OK;
}

static bool same_cgroup(const struct attest_cgroup *a, const struct attest_cgroup *b)
{
    return a->runtime == b->runtime && strcmp(a->container_id, b->container_id) == 0 &&
           strcmp(a->pod_uid, b->pod_uid) == 0 && strcmp(a->unit, b->unit) == 0;
}

bool attest_facts_same(const struct attest_facts *a, const struct attest_facts *b)
{
    return a->uid == b->uid && a->gid == b->gid && a->own_view == b->own_view &&
           a->contained == b->contained && same_groups(&a->groups, &b->groups) &&
           same_cgroup(&a->cgroup, &b->cgroup) && a->path_len == b->path_len &&
           memcmp(a->path, b->path, a->path_len) == 0;
}

/* --- the view --------------------------------------------------------------------------------- */
static int read_root(struct attest_view *v)
{
    struct statx st;

    if (statx(v->proc_fd, "self/root", 0, STATX_INO, &st) == -1) {
        return -1;
    }
    v->root_dev = (uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor;
    v->root_ino = st.stx_ino;
    return 0;
}

/* A service manager that hardens us gives us a copy of its own mount namespace, in which some of it
 * is read-only or hidden. Paths mean then what they mean to it, and to everybody else on the
 * machine: its namespace is the one that counts. Only if it has our users, pids and root directory;
 * whoever has no look at it goes by its own. */
static bool is_copy_of_init(const struct attest_view *v)
{
    os_autofd int init = openat(v->proc_fd, "1", O_PATH | O_DIRECTORY | O_CLOEXEC);

    return init != -1 && same_namespace(init, "ns/user", v->own_user_ns) &&
           same_namespace(init, "ns/pid", v->own_pid_ns) && same_root(v, init);
}

int attest_view_init(struct attest_view *v, struct err *err)
{
    char text[CGROUP_TEXT_MAX];
    uint64_t caps = 0;
    ssize_t n;

    *v = (struct attest_view){.proc_fd = -1, .mounts = {.fd = -1}};
    v->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (v->proc_fd == -1) {
        err_sys(err, "/proc");
        return err_advise(err, "the agent needs a /proc of its own pid namespace");
    }
    if (!read_link(v->proc_fd, "self/ns/mnt", v->own_mount_ns, sizeof(v->own_mount_ns)) ||
        !read_link(v->proc_fd, "self/ns/user", v->own_user_ns, sizeof(v->own_user_ns))) {
        return err_sys(err, "/proc/self/ns");
    }
    if (!read_link(v->proc_fd, "self/ns/pid", v->own_pid_ns, sizeof(v->own_pid_ns)) ||
        read_root(v) == -1) {
        return err_sys(err, "/proc/self");
    }
    n = attest_read_text(v->proc_fd, "self/status", text, sizeof(text));
    if (n == -1 || !attest_parse_caps(text, (size_t)n, &caps)) {
        return err_sys(err, "/proc/self/status");
    }
    v->sees_all = (caps >> CAP_SYS_PTRACE & 1) != 0;
    n = attest_read_text(v->proc_fd, "self/cgroup", text, sizeof(text));
    if (n == -1) {
        return err_sys(err, "/proc/self/cgroup");
    }
    attest_cgroup_own_prefix(text, (size_t)n, v->own_prefix);
    const char *whose = "self";
    if (is_copy_of_init(v) &&
        read_link(v->proc_fd, "1/ns/mnt", v->own_mount_ns, sizeof(v->own_mount_ns))) {
        whose = "1";
    }
    return attest_mounts_init(&v->mounts, v->proc_fd, whose, err);
}

void attest_view_deinit(struct attest_view *v)
{
    attest_mounts_deinit(&v->mounts);
    if (v->proc_fd != -1) {
        close(v->proc_fd);
        v->proc_fd = -1;
    }
}
