#include "attestor_priv.h"

#include <errno.h>
#include <fcntl.h>
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

enum { TEXT_MAX = 4096 };

/* --- kernel text ------------------------------------------------------------------------------ */
/* The value of a line "KEY:\tVALUE". Names of processes are escaped there, so no line is theirs. */
static struct str line_value(const char *text, size_t len, struct str key)
{
    struct str rest = {text, len};

    while (rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;

        if (str_has_prefix((struct str){rest.p, n}, key)) {
            return (struct str){rest.p + key.n, n - key.n};
        }
        if (end == NULL) {
            break;
        }
        rest = (struct str){rest.p + n + 1, rest.n - n - 1};
    }
    return STR_NONE;
}

/* The i-th word between blanks, empty if there are fewer. */
static struct str word(struct str s, size_t i)
{
    for (;;) {
        size_t n = 0;

        while (s.n > 0 && (*s.p == ' ' || *s.p == '\t')) {
            s = (struct str){s.p + 1, s.n - 1};
        }
        while (n < s.n && s.p[n] != ' ' && s.p[n] != '\t' && s.p[n] != '\n') {
            n++;
        }
        if (n == 0) {
            return STR_NONE;
        }
        if (i-- == 0) {
            return (struct str){s.p, n};
        }
        s = (struct str){s.p + n, s.n - n};
    }
}

/* Columns of Uid: and Gid: are real, effective, saved, file system. */
bool attestor_parse_status(const char *text, size_t len, uint32_t *ret_uid, uint32_t *ret_gid)
{
    uint64_t uid, gid;

    if (!str_to_u64(word(line_value(text, len, STR_LIT("Uid:")), 1), UINT32_MAX, &uid) ||
        !str_to_u64(word(line_value(text, len, STR_LIT("Gid:")), 1), UINT32_MAX, &gid)) {
        return false;
    }
    *ret_uid = (uint32_t)uid;
    *ret_gid = (uint32_t)gid;
    return true;
}

/* Field 22, counted after the last ')': the name in field 2 may hold anything. */
bool attestor_parse_stat(const char *text, size_t len, uint64_t *ret_start_time)
{
    const char *end = memrchr(text, ')', len);
    struct str rest;

    if (end == NULL) {
        return false;
    }
    rest = (struct str){end + 1, len - (size_t)(end + 1 - text)};
    return str_to_u64(word(rest, 22 - 3), UINT64_MAX, ret_start_time);
}

bool attestor_parse_fdinfo(const char *text, size_t len, pid_t *ret_pid)
{
    uint64_t pid;

    /* "-1": reaped; "0": in a pid namespace that we don't see into */
    if (!str_to_u64(word(line_value(text, len, STR_LIT("Pid:")), 0), INT32_MAX, &pid) || pid == 0) {
        return false;
    }
    *ret_pid = (pid_t)pid;
    return true;
}

static ssize_t read_text(int dir_fd, const char *name, char *text, size_t size)
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

/* --- the executable --------------------------------------------------------------------------- */
static bool same_namespace(int dir_fd, const char *name, const char *own)
{
    char theirs[64];

    return own[0] != 0 && read_link(dir_fd, name, theirs, sizeof(theirs)) &&
           strcmp(own, theirs) == 0;
}

/* A path counts only if it means the same to us as to whoever wrote the entry: the process is in
 * our mount and user namespaces, the file lies on a mount of ours, and it is still there. */
static void read_path(struct attestor_view *v, int dir_fd, struct attestor_facts *facts)
{
    static const char deleted[] = " (deleted)";
    struct statx st;
    size_t len;

    facts->path_len = 0;
    facts->own_view = same_namespace(dir_fd, "ns/mnt", v->own_mount_ns) &&
                      same_namespace(dir_fd, "ns/user", v->own_user_ns);
    if (!facts->own_view || !read_link(dir_fd, "exe", facts->path, sizeof(facts->path)) ||
        facts->path[0] != '/') {
        return;
    }
    len = strlen(facts->path);
    if (str_has_suffix((struct str){facts->path, len}, STR_LIT(deleted))) {
        return;
    }
    /* DONT_SYNC: a file system of the caller's own must not make us wait for it. */
    if (statx(dir_fd, "exe", AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) == -1 ||
        (st.stx_mask & STATX_MNT_ID) == 0 || !attestor_mounts_has(&v->mounts, st.stx_mnt_id)) {
        return;
    }
    facts->path_len = len;
}

/* --- a process -------------------------------------------------------------------------------- */
static bool alive(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}

enum agent_attest attestor_process_read(struct attestor_view *v, const struct attestor_process *p,
                                        struct attestor_facts *ret_facts, const char **ret_why)
{
    char text[TEXT_MAX];
    ssize_t n;

    if (!alive(p->pidfd)) {
        *ret_why = "its process has ended";
        return AGENT_ATTEST_GONE;
    }
    ret_facts->read_ms = os_now_ms();
    *ret_why = "its facts cannot be read from /proc";
    n = read_text(p->dir_fd, "status", text, sizeof(text));
    if (n == -1 || !attestor_parse_status(text, (size_t)n, &ret_facts->uid, &ret_facts->gid)) {
        return alive(p->pidfd) ? AGENT_ATTEST_FAILED : AGENT_ATTEST_GONE;
    }
    n = read_text(p->dir_fd, "stat", text, sizeof(text));
    if (n == -1 || !attestor_parse_stat(text, (size_t)n, &ret_facts->start_time)) {
        return alive(p->pidfd) ? AGENT_ATTEST_FAILED : AGENT_ATTEST_GONE;
    }
    read_path(v, p->dir_fd, ret_facts);
    /* Only a process that still lives owns what we have read: its number was not free meanwhile. */
    if (!alive(p->pidfd)) {
        *ret_why = "its process has ended";
        return AGENT_ATTEST_GONE;
    }
    return AGENT_ATTEST_OK;
}

void attestor_process_close(struct attestor_process *p)
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
static int peer_pidfd(struct attestor_view *v, int sock, struct attestor_process *p)
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
    n = read_text(v->proc_fd, name, text, sizeof(text));
    return n != -1 && attestor_parse_fdinfo(text, (size_t)n, &p->pid) ? 0 : -1;
}

static int open_dir(struct attestor_view *v, struct attestor_process *p)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "%d", (int)p->pid);
    p->dir_fd = openat(v->proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return p->dir_fd == -1 ? -1 : 0;
}

enum agent_attest attestor_process_open(struct attestor_view *v, int sock,
                                        struct attestor_process *ret,
                                        struct attestor_facts *ret_facts, const char **ret_why)
{
    struct attestor_process p = {.pidfd = -1, .dir_fd = -1};
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
        attestor_process_close(&p);
        return AGENT_ATTEST_GONE;
    }
    outcome = attestor_process_read(v, &p, ret_facts, ret_why);
    /* Without the kernel's pidfd the number may be somebody else's by now: then at least the same
     * user, which the kernel noted when the peer connected. */
    if (outcome == AGENT_ATTEST_OK && r == 1 &&
        (ret_facts->uid != cred.uid || ret_facts->gid != cred.gid)) {
        *ret_why = "its user is not the one that connected";
        outcome = AGENT_ATTEST_FAILED;
    }
    if (outcome != AGENT_ATTEST_OK) {
        attestor_process_close(&p);
        return outcome;
    }
    *ret = p;
    return AGENT_ATTEST_OK;
}

bool attestor_facts_same(const struct attestor_facts *a, const struct attestor_facts *b)
{
    return a->uid == b->uid && a->gid == b->gid && a->path_len == b->path_len &&
           memcmp(a->path, b->path, a->path_len) == 0;
}

/* --- the view --------------------------------------------------------------------------------- */
int attestor_view_init(struct attestor_view *v, struct err *err)
{
    *v = (struct attestor_view){.mounts = {.fd = -1}};
    v->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (v->proc_fd == -1) {
        err_sys(err, "/proc");
        return err_advise(err, "the agent needs a /proc of its own pid namespace");
    }
    if (!read_link(v->proc_fd, "self/ns/mnt", v->own_mount_ns, sizeof(v->own_mount_ns)) ||
        !read_link(v->proc_fd, "self/ns/user", v->own_user_ns, sizeof(v->own_user_ns))) {
        return err_sys(err, "/proc/self/ns");
    }
    return attestor_mounts_init(&v->mounts, v->proc_fd, err);
}

void attestor_view_deinit(struct attestor_view *v)
{
    attestor_mounts_deinit(&v->mounts);
    if (v->proc_fd != -1) {
        close(v->proc_fd);
        v->proc_fd = -1;
    }
}
