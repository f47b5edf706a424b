/*
 * cgroup: how the proxy is known by its cgroup. A rule names a path and a level; the kernel looks
 * at the socket's ancestor at that level, so a level that does not fit the path matches nothing,
 * without an error. So the level is counted from the path, and then a process inside and one
 * outside show that it is right.
 */
#include "kernel_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <postern/os.h>
#include <postern/str.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define CGROUP_DIR "/sys/fs/cgroup"

/* cgroup2 alone, or beside version 1 under `unified`. nftables looks below CGROUP_DIR only. */
static const char *find_mount(void)
{
    static const char *const mounts[] = {CGROUP_DIR, CGROUP_DIR "/unified"};
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        struct statfs fs;
        if (statfs(mounts[i], &fs) == 0 && (unsigned long)fs.f_type == CGROUP2_SUPER_MAGIC) {
            return mounts[i];
        }
    }
    return NULL;
}

/* Copies the path without empty and trailing slashes; returns the number of its parts. */
static unsigned clean_path(const char *path, char *ret, size_t size)
{
    unsigned parts = 0;
    size_t o = 0;
    while (path != NULL && *path != '\0') {
        path += strspn(path, "/");
        size_t n = strcspn(path, "/");
        if (n > 0 && o + n + 2 < size) {
            if (parts++ > 0) {
                ret[o++] = '/';
            }
            memcpy(ret + o, path, n);
            o += n;
        }
        path += n;
    }
    ret[o] = '\0';
    return parts;
}

int cgroup_resolve(const char *path, struct intercept_cgroup *ret, struct err *err)
{
    struct intercept_cgroup c = {0};
    char inner[INTERCEPT_CGROUP_MAX];
    char full[INTERCEPT_CGROUP_MAX + 64];
    struct stat st;
    const char *mount = find_mount();
    if (mount == NULL) {
        err_set(err, ERR_UNSUPPORTED, "no cgroup v2 hierarchy below " CGROUP_DIR);
        return err_advise(err, "name the proxy by --proxy-uid; in 'ip netns exec' /sys is another: "
                               "enter a namespace by 'nsenter --net'");
    }
    const char *rest = path;
    if (str_has_prefix(str_of(path), STR_LIT(CGROUP_DIR "/"))) {
        size_t n = strlen(mount);
        if (strncmp(path, mount, n) != 0 || path[n] != '/') {
            err_set(err, ERR_USAGE, "--proxy-cgroup %s: a cgroup of version 1", path);
            return err_expected(err, "one below %s", mount);
        }
        rest = path + n;
    }
    c.level = clean_path(rest, inner, sizeof(inner));
    snprintf(full, sizeof(full), "%s/%s", mount, inner);
    if (c.level == 0) {
        return err_set(err, ERR_USAGE,
                       "--proxy-cgroup %s: the root cgroup, which every process is in", path);
    }
    if (stat(full, &st) != 0 || !S_ISDIR(st.st_mode)) {
        err_sys(err, "--proxy-cgroup %s: no cgroup %s", path, full);
        return err_advise(err, "start the proxy first, or make its cgroup; /proc/PID/cgroup says "
                               "where a process is");
    }
    int n = snprintf(c.path, sizeof(c.path), "%s%s",
                     strcmp(mount, CGROUP_DIR) == 0 ? "" : "unified/", inner);
    if (n < 0 || (size_t)n >= sizeof(c.path)) {
        return err_set(err, ERR_USAGE, "--proxy-cgroup: longer than %d bytes",
                       INTERCEPT_CGROUP_MAX);
    }
    *ret = c;
    return 0;
}

/* --- the proof -------------------------------------------------------------------------------- */
static int send_one(const struct sockaddr_in *to)
{
    os_autofd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd != -1 && sendto(fd, "?", 1, 0, (const struct sockaddr *)to, sizeof(*to)) == 1 ? 0
                                                                                            : -1;
}

/* A child enters the cgroup and sends one datagram; its exit status says how far it came. */
static int send_from_inside(const char *dir, const struct sockaddr_in *to, struct err *err)
{
    char procs[INTERCEPT_CGROUP_MAX + 160];
    snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
    pid_t pid = fork();
    if (pid == -1) {
        return err_sys(err, "cannot fork");
    }
    if (pid == 0) {
        int fd = open(procs, O_WRONLY | O_CLOEXEC);
        if (fd == -1 || write(fd, "0", 1) != 1) {
            _exit(2);
        }
        _exit(send_one(to) == 0 ? 0 : 3);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) == -1) {
        if (errno != EINTR) {
            return err_sys(err, "cannot wait for a child");
        }
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) == 2) {
        err_set(err, ERR_DENIED, "a process cannot be put into %s", dir);
        return err_advise(err, "run this outside of the container, or name the proxy by "
                               "--proxy-uid");
    }
    return WEXITSTATUS(status) == 0 ? 0 : err_set(err, ERR_SYSTEM, "no datagram over loopback");
}

/* "packets N" of the only counter of the table. */
static int read_counter(struct kernel *k, const char *table, uint64_t *ret, struct err *err)
{
    struct buf listing = BUF_INIT(16384);
    bool there = false;
    int rc = kernel_list(k, table, &listing, &there, err);
    if (rc == 0) {
        POSTERN_ASSERT(buf_append(&listing, "", 1));
        const char *p = strstr((const char *)buf_head(&listing), "counter packets ");
        struct str digits = STR_NONE;
        if (p != NULL) {
            p += strlen("counter packets ");
            digits = (struct str){p, strspn(p, "0123456789")};
        }
        if (!there || !str_to_u64(digits, UINT64_MAX, ret)) {
            rc = err_set(err, ERR_SYSTEM, "the probe's counter is not there");
        }
    }
    buf_reset(&listing);
    return rc;
}

/* Whether this process itself is inside: then "outside" cannot be shown from here. */
static bool inside_now(const char *inner)
{
    char *text = NULL;
    size_t len = 0;
    bool inside = false;
    if (os_read_file("/proc/self/cgroup", 65536, false, &text, &len, NULL) == 0) {
        const char *line = strstr(text, "0::/");
        size_t n = strlen(inner);
        inside = line != NULL && strncmp(line + 4, inner, n) == 0 &&
                 (line[4 + n] == '\n' || line[4 + n] == '/');
    }
    free(text);
    return inside;
}

static int probe(struct kernel *k, const struct intercept_cgroup *c, const char *inner,
                 const char *dir, struct err *err)
{
    char table[40];
    char batch[INTERCEPT_CGROUP_MAX + 512];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(to);
    os_autofd int sink = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sink == -1 || bind(sink, (struct sockaddr *)&to, len) != 0 ||
        getsockname(sink, (struct sockaddr *)&to, &len) != 0) {
        return err_sys(err, "cannot open a socket on loopback");
    }
    snprintf(table, sizeof(table), "postern_probe_%ld", (long)getpid());
    snprintf(batch, sizeof(batch),
             "table inet %s {\n\tflags owner;\n\tchain out {\n"
             "\t\ttype filter hook output priority 0; policy accept;\n"
             "\t\tsocket cgroupv2 level %u \"%s\" udp dport %u counter\n\t}\n}\n",
             table, c->level, c->path, ntohs(to.sin_port));
    uint64_t outside = 0;
    uint64_t all = 0;
    if (kernel_run(k, batch, err) != 0) {
        return -1;
    }
    if (send_one(&to) != 0) {
        err_sys(err, "nothing can be sent over loopback in this network namespace");
        return err_advise(err, "ip link set lo up");
    }
    if (read_counter(k, table, &outside, err) != 0 || send_from_inside(dir, &to, err) != 0 ||
        read_counter(k, table, &all, err) != 0) {
        return -1;
    }
    snprintf(batch, sizeof(batch), "delete table inet %s\n", table);
    if (kernel_run(k, batch, err) != 0) {
        return -1;
    }
    if (all - outside != 1) {
        err_set(err, ERR_UNSUPPORTED,
                "a rule for cgroup %s at level %u does not match a process inside it", c->path,
                c->level);
        return err_advise(err, "inside of a cgroup namespace older kernels count levels from "
                               "elsewhere: run this on the host, or name the proxy by "
                               "--proxy-uid");
    }
    if (outside != 0 && !inside_now(inner)) {
        return err_set(err, ERR_UNSUPPORTED,
                       "a rule for cgroup %s at level %u matches processes outside it", c->path,
                       c->level);
    }
    return 0;
}

int cgroup_prove(struct kernel *k, const struct intercept_cgroup *c, struct err *err)
{
    char dir[INTERCEPT_CGROUP_MAX + 128];
    const char *inner = c->path;
    if (str_has_prefix(str_of(inner), STR_LIT("unified/"))) {
        inner += strlen("unified/");
    }
    /* A cgroup of its own below: one with controllers handed down takes no processes itself. */
    snprintf(dir, sizeof(dir), CGROUP_DIR "/%s/postern-probe-%ld", c->path, (long)getpid());
    if (mkdir(dir, 0700) != 0) {
        err_sys(err, "cannot make a cgroup in " CGROUP_DIR "/%s to show that rules match there",
                c->path);
        return err_advise(err, "run this where the cgroups are writable, or name the proxy by "
                               "--proxy-uid");
    }
    int rc = probe(k, c, inner, dir, err);
    (void)rmdir(dir);
    return rc;
}
