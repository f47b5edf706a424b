/*
 * Landlock by system call: the headers of older systems do not know all of it. A plan becomes one
 * ruleset; each version of the interface (ABI) adds something that can be forbidden, and what a
 * kernel lacks is named in the report.
 */
#include "sandbox_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
enum { LL_VERSION_FLAG = 1, LL_RULE_PATH_BENEATH = 1, LL_RULE_NET_PORT = 2 };
enum { LL_ABI_REFER = 2, LL_ABI_TRUNCATE = 3, LL_ABI_NET = 4, LL_ABI_IOCTL = 5, LL_ABI_SCOPE = 6 };
struct ll_ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net; /* ABI 4 */
    uint64_t scoped;             /* ABI 6 */
};
struct ll_path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));
struct ll_net_port_attr {
    uint64_t allowed_access;
    uint64_t port;
};
#define LL_EXECUTE (1ULL << 0)
#define LL_WRITE_FILE (1ULL << 1)
#define LL_READ_FILE (1ULL << 2)
#define LL_READ_DIR (1ULL << 3)
#define LL_REMOVE_DIR (1ULL << 4)
#define LL_REMOVE_FILE (1ULL << 5)
#define LL_MAKE_CHAR (1ULL << 6)
#define LL_MAKE_BLOCK (1ULL << 11)
#define LL_FS_ABI1 ((1ULL << 13) - 1) /* execute .. make_sym */
#define LL_REFER (1ULL << 13)
#define LL_TRUNCATE (1ULL << 14)
#define LL_IOCTL_DEV (1ULL << 15)
/* What makes sense for a plain file; the kernel refuses the others there. */
#define LL_FILE_ONLY (LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE)
#define LL_BIND_TCP (1ULL << 0)
#define LL_CONNECT_TCP (1ULL << 1)
#define LL_SCOPE_ABSTRACT (1ULL << 0)
#define LL_SCOPE_SIGNAL (1ULL << 1)

struct plan_path {
    enum sandbox_right right;
    bool absent; /* it was not there, so there is no rule */
    char *path;
};

struct plan_ports {
    uint16_t *items;
    size_t n;
    const char *any; /* why there is no restriction; NULL: there is */
};

struct sandbox_plan {
    struct plan_path *paths;
    size_t n_paths;
    struct plan_ports connect, bind;
    bool abstract, signals; /* outside is allowed */
};

/* --- the plan --------------------------------------------------------------------------------- */
struct sandbox_plan *sandbox_plan_new(void)
{
    return mem_must_new(struct sandbox_plan);
}

struct sandbox_plan *sandbox_plan_free(struct sandbox_plan *plan)
{
    if (plan != NULL) {
        for (size_t i = 0; i < plan->n_paths; i++) {
            free(plan->paths[i].path);
        }
        free(plan->paths);
        free(plan->connect.items);
        free(plan->bind.items);
        free(plan);
    }
    return NULL;
}

void sandbox_plan_path(struct sandbox_plan *plan, enum sandbox_right right, const char *path)
{
    if (path == NULL || path[0] == '\0') {
        return;
    }
    for (size_t i = 0; i < plan->n_paths; i++) {
        if (plan->paths[i].right == right && strcmp(plan->paths[i].path, path) == 0) {
            return;
        }
    }
    plan->paths = (struct plan_path *)mem_must_realloc(plan->paths,
                                                       (plan->n_paths + 1) * sizeof(*plan->paths));
    plan->paths[plan->n_paths++] =
        (struct plan_path){.right = right, .path = mem_must_strdup(path)};
}

static void add_directory(struct sandbox_plan *plan, enum sandbox_right right, const char *file)
{
    const char *slash = strrchr(file, '/');

    if (slash == NULL) {
        sandbox_plan_path(plan, right, ".");
    } else if (slash == file) {
        sandbox_plan_path(plan, right, file);
    } else {
        char *directory = mem_must_strndup(file, (size_t)(slash - file));

        sandbox_plan_path(plan, right, directory);
        free(directory);
    }
}

void sandbox_plan_directory_of(struct sandbox_plan *plan, enum sandbox_right right,
                               const char *file)
{
    char *really;

    if (file == NULL || file[0] == '\0') {
        return;
    }
    add_directory(plan, right, file);
    really = realpath(file, NULL);
    if (really != NULL) {
        add_directory(plan, right, really);
        free(really);
    }
}

static bool has_port(const struct plan_ports *ports, uint16_t port)
{
    for (size_t i = 0; i < ports->n; i++) {
        if (ports->items[i] == port) {
            return true;
        }
    }
    return false;
}

static void add_port(struct plan_ports *ports, uint16_t port)
{
    if (!has_port(ports, port)) {
        ports->items =
            (uint16_t *)mem_must_realloc(ports->items, (ports->n + 1) * sizeof(*ports->items));
        ports->items[ports->n++] = port;
    }
}

void sandbox_plan_connect(struct sandbox_plan *plan, uint16_t port)
{
    if (port != 0) { /* nothing is said */
        add_port(&plan->connect, port);
    }
}

void sandbox_plan_connect_any(struct sandbox_plan *plan, const char *why)
{
    plan->connect.any = why;
}

void sandbox_plan_bind(struct sandbox_plan *plan, uint16_t port)
{
    add_port(&plan->bind, port);
}

void sandbox_plan_bind_any(struct sandbox_plan *plan, const char *why)
{
    plan->bind.any = why;
}

void sandbox_plan_allow_abstract(struct sandbox_plan *plan)
{
    plan->abstract = true;
}

void sandbox_plan_allow_signals(struct sandbox_plan *plan)
{
    plan->signals = true;
}

/* --- is one within another? ------------------------------------------------------------------- */
static bool is_below(const char *path, const char *directory)
{
    size_t n = strlen(directory);

    return strncmp(path, directory, n) == 0 &&
           (path[n] == '\0' || path[n] == '/' || (n > 0 && directory[n - 1] == '/'));
}

static bool right_includes(enum sandbox_right have, enum sandbox_right want)
{
    return have == want || (want == SANDBOX_READ && have != SANDBOX_REMOVE) ||
           (want == SANDBOX_REMOVE && have == SANDBOX_WRITE);
}

static bool is_there(const char *path)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd != -1) {
        close(fd);
    }
    return fd != -1;
}

static bool covers_path(const struct sandbox_plan *have, const struct plan_path *want,
                        struct err *err)
{
    bool absent = false;
    for (size_t i = 0; i < have->n_paths; i++) {
        if (right_includes(have->paths[i].right, want->right) &&
            is_below(want->path, have->paths[i].path)) {
            if (!have->paths[i].absent) {
                return true;
            }
            absent = true;
        }
    }
    /* What is still not there needs no permission. */
    if (absent && !is_there(want->path)) {
        return true;
    }
    err_set(err, ERR_CONFIG, "it would use %s%s", want->path,
            absent ? ", where nothing was when it started" : "");
    return false;
}

static bool covers_ports(const struct plan_ports *have, const struct plan_ports *want,
                         const char *what, struct err *err)
{
    if (have->any != NULL) {
        return true;
    }
    if (want->any != NULL) {
        err_set(err, ERR_CONFIG, "it would %s any port (%s)", what, want->any);
        return false;
    }
    for (size_t i = 0; i < want->n; i++) {
        if (!has_port(have, want->items[i])) {
            err_set(err, ERR_CONFIG, "it would %s port %u", what, want->items[i]);
            return false;
        }
    }
    return true;
}

bool sandbox_plan_covers(const struct sandbox_plan *have, const struct sandbox_plan *want,
                         struct err *err)
{
    for (size_t i = 0; i < want->n_paths; i++) {
        if (!covers_path(have, &want->paths[i], err)) {
            return false;
        }
    }
    return covers_ports(&have->connect, &want->connect, "connect to", err) &&
           covers_ports(&have->bind, &want->bind, "listen on", err);
}

/* --- enforcing -------------------------------------------------------------------------------- */
int sandbox_landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_VERSION_FLAG);
    return abi > 0 ? (int)abi : 0;
}

static uint64_t handled_files(int abi)
{
    return LL_FS_ABI1 | (abi >= LL_ABI_REFER ? LL_REFER : 0) |
           (abi >= LL_ABI_TRUNCATE ? LL_TRUNCATE : 0) | (abi >= LL_ABI_IOCTL ? LL_IOCTL_DEV : 0);
}

static uint64_t access_of(enum sandbox_right right, uint64_t handled)
{
    switch (right) {
    case SANDBOX_READ:
        return LL_READ_FILE | LL_READ_DIR;
    case SANDBOX_REMOVE:
        return LL_REMOVE_FILE;
    case SANDBOX_EXECUTE:
        return LL_READ_FILE | LL_READ_DIR | LL_EXECUTE;
    case SANDBOX_WRITE:
        break;
    }
    return handled & ~(LL_EXECUTE | LL_MAKE_CHAR | LL_MAKE_BLOCK | LL_IOCTL_DEV);
}

static int allow_path(int ruleset, struct plan_path *p, uint64_t handled, struct err *err)
{
    uint64_t access = access_of(p->right, handled);
    int fd = open(p->path, O_PATH | O_CLOEXEC);
    if (fd == -1) {
        if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) {
            p->absent = true;
            return 0; /* what is not there, or not for us, needs no permission */
        }
        err_sys(err, "cannot open for Landlock");
        return err_where(err, "%s", p->path);
    }
    struct stat st;
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode)) {
        access &= LL_FILE_ONLY;
    }
    struct ll_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
    long rc =
        access == 0 ? 0 : syscall(SYS_landlock_add_rule, ruleset, LL_RULE_PATH_BENEATH, &rule, 0);
    if (rc != 0) {
        err_sys(err, "cannot add a Landlock rule");
        err_where(err, "%s", p->path);
    }
    close(fd);
    return rc == 0 ? 0 : -1;
}

static int allow_ports(int ruleset, const struct plan_ports *ports, uint64_t access,
                       struct err *err)
{
    for (size_t i = 0; i < ports->n; i++) {
        struct ll_net_port_attr rule = {.allowed_access = access, .port = ports->items[i]};
        if (syscall(SYS_landlock_add_rule, ruleset, LL_RULE_NET_PORT, &rule, 0) != 0) {
            return err_sys(err, "cannot add a Landlock rule for port %u", ports->items[i]);
        }
    }
    return 0;
}

static void add_missing(struct sandbox_landlock *l, const char *what)
{
    size_t n = strlen(l->missing);
    (void)snprintf(l->missing + n, sizeof(l->missing) - n, "%s%s", n > 0 ? ", " : "", what);
}

/* What this version can do of what the plan wants; the rest is named. */
static struct ll_ruleset_attr choose(const struct sandbox_plan *plan, struct sandbox_landlock *l)
{
    struct ll_ruleset_attr attr = {0};
    bool net = l->abi >= LL_ABI_NET;
    bool scope = l->abi >= LL_ABI_SCOPE;

    l->files = l->abi > 0;
    l->connect = net && plan->connect.any == NULL;
    l->bind = net && plan->bind.any == NULL;
    l->abstract = scope && !plan->abstract;
    l->signals = scope && !plan->signals;
    l->n_connect_ports = l->connect ? (uint32_t)plan->connect.n : 0;
    l->n_bind_ports = l->bind ? (uint32_t)plan->bind.n : 0;
    (void)snprintf(l->connect_why, sizeof(l->connect_why), "%s",
                   plan->connect.any != NULL ? plan->connect.any : "");
    attr.handled_access_fs = l->files ? handled_files(l->abi) : 0;
    attr.handled_access_net = (l->connect ? LL_CONNECT_TCP : 0) | (l->bind ? LL_BIND_TCP : 0);
    attr.scoped = (l->abstract ? LL_SCOPE_ABSTRACT : 0) | (l->signals ? LL_SCOPE_SIGNAL : 0);
    if (l->abi == 0) {
        add_missing(l, "files");
    } else if (l->abi < LL_ABI_TRUNCATE) {
        add_missing(l, "truncating files");
    }
    if (!net && (plan->connect.any == NULL || plan->bind.any == NULL)) {
        add_missing(l, "TCP ports");
    }
    if (!scope && !plan->abstract) {
        add_missing(l, "abstract Unix sockets");
    }
    if (!scope && !plan->signals) {
        add_missing(l, "signals");
    }
    return attr;
}

static size_t attr_size(int abi)
{
    if (abi >= LL_ABI_SCOPE) {
        return sizeof(struct ll_ruleset_attr);
    }
    return abi >= LL_ABI_NET ? offsetof(struct ll_ruleset_attr, scoped)
                             : offsetof(struct ll_ruleset_attr, handled_access_net);
}

int sandbox_landlock(struct sandbox_plan *plan, int max_abi, struct sandbox_landlock *ret,
                     struct err *err)
{
    struct sandbox_landlock l = {.abi = sandbox_landlock_abi()};
    l.abi = l.abi > max_abi ? max_abi : l.abi;
    const struct ll_ruleset_attr attr = choose(plan, &l);
    if (l.abi == 0) {
        *ret = l;
        return 0;
    }
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, attr_size(l.abi), 0);
    if (ruleset == -1) {
        return err_sys(err, "cannot make a Landlock ruleset");
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < plan->n_paths; i++) {
        rc = allow_path(ruleset, &plan->paths[i], attr.handled_access_fs, err);
    }
    if (rc == 0 && l.connect) {
        rc = allow_ports(ruleset, &plan->connect, LL_CONNECT_TCP, err);
    }
    if (rc == 0 && l.bind) {
        rc = allow_ports(ruleset, &plan->bind, LL_BIND_TCP, err);
    }
    if (rc == 0 && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
                    syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)) {
        rc = err_sys(err, "cannot enforce Landlock");
    }
    close(ruleset);
    if (rc == 0) {
        *ret = l;
    }
    return rc;
}
