#include <postern/sandbox.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Landlock by system call: the headers of older systems do not know all of it. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
enum { LL_VERSION_FLAG = 1, LL_RULE_PATH_BENEATH = 1 };
struct ll_ruleset_attr {
    uint64_t handled_access_fs;
};
struct ll_path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));
#define LL_EXECUTE (1ULL << 0)
#define LL_WRITE_FILE (1ULL << 1)
#define LL_READ_FILE (1ULL << 2)
#define LL_READ_DIR (1ULL << 3)
#define LL_FS_ABI1 ((1ULL << 13) - 1) /* execute .. make_sym */
#define LL_REFER (1ULL << 13)         /* ABI 2 */
#define LL_TRUNCATE (1ULL << 14)      /* ABI 3 */
/* What makes sense for a plain file; the kernel refuses the others there. */
#define LL_FILE_ONLY (LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE)

/* --- user and capabilities -------------------------------------------------------------------- */
static int set_caps(uint64_t keep, struct err *err)
{
    cap_t caps = cap_init();
    int rc = caps != NULL ? 0 : -1;
    for (cap_value_t c = 0; rc == 0 && c <= CAP_LAST_CAP; c++) {
        if ((keep & (1ULL << c)) != 0) {
            rc = cap_set_flag(caps, CAP_PERMITTED, 1, &c, CAP_SET) |
                 cap_set_flag(caps, CAP_EFFECTIVE, 1, &c, CAP_SET);
        }
    }
    if (rc == 0) {
        rc = cap_set_proc(caps);
    }
    if (rc != 0) {
        err_sys(err, "cannot set capabilities");
    }
    if (caps != NULL) {
        cap_free(caps);
    }
    return rc == 0 ? 0 : -1;
}

int sandbox_drop_user(uid_t uid, gid_t gid, uint64_t keep, struct err *err)
{
    if (geteuid() != 0) {
        return 0;
    }
    /* Permitted capabilities survive the change of uid only if asked for; no_new_privs comes later.
     */
    if (keep != 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) {
        return err_sys(err, "cannot keep capabilities");
    }
    if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0) {
        return err_sys(err, "cannot become uid %u, gid %u", uid, gid);
    }
    if (uid != 0 && setresuid(0, 0, 0) == 0) {
        return err_set(err, ERR_SYSTEM, "uid 0 could be taken back after it was given up");
    }
    if (keep != 0) {
        prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
        return set_caps(keep, err);
    }
    return 0;
}

int sandbox_drop_caps(uint64_t keep, struct err *err)
{
    /* The bounding set needs CAP_SETPCAP, which a process that is not root does not have: nor can
     * it gain anything then, with no_new_privs. */
    for (int c = 0; c <= CAP_LAST_CAP; c++) {
        if ((keep & (1ULL << c)) == 0 && prctl(PR_CAPBSET_READ, c, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, c, 0, 0, 0) != 0 && errno != EPERM) {
            return err_sys(err, "cannot drop capability %d from the bounding set", c);
        }
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL) {
        return err_sys(err, "cannot clear ambient capabilities");
    }
    return set_caps(keep, err);
}

int sandbox_limits(bool allow_fork, struct err *err)
{
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return err_sys(err, "cannot switch core dumps off");
    }
    /* Counts all processes of the uid: only for processes that neither fork nor start threads. */
    if (!allow_fork && setrlimit(RLIMIT_NPROC, &none) != 0) {
        return err_sys(err, "cannot limit processes");
    }
    return 0;
}

/* --- Landlock --------------------------------------------------------------------------------- */
static int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LL_VERSION_FLAG);
    return abi > 0 ? (int)abi : 0;
}

static int landlock_allow(int ruleset, const char *path, uint64_t access, struct err *err)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd == -1) {
        if (errno == ENOENT) {
            return 0; /* what is not there needs no permission */
        }
        err_sys(err, "cannot open for Landlock");
        return err_where(err, "%s", path);
    }
    struct stat st;
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode)) {
        access &= LL_FILE_ONLY;
    }
    struct ll_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
    long rc = syscall(SYS_landlock_add_rule, ruleset, LL_RULE_PATH_BENEATH, &rule, 0);
    if (rc != 0) {
        err_sys(err, "cannot add a Landlock rule");
        err_where(err, "%s", path);
    }
    close(fd);
    return rc == 0 ? 0 : -1;
}

int sandbox_landlock(const char *const *read_paths, const char *const *write_paths, struct err *err)
{
    int abi = landlock_abi();
    if (abi == 0) {
        return 0;
    }
    uint64_t all = LL_FS_ABI1 | (abi >= 2 ? LL_REFER : 0) | (abi >= 3 ? LL_TRUNCATE : 0);
    struct ll_ruleset_attr attr = {.handled_access_fs = all};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (ruleset == -1) {
        return err_sys(err, "cannot make a Landlock ruleset");
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && read_paths != NULL && read_paths[i] != NULL; i++) {
        rc = landlock_allow(ruleset, read_paths[i], LL_READ_FILE | LL_READ_DIR, err);
    }
    for (size_t i = 0; rc == 0 && write_paths != NULL && write_paths[i] != NULL; i++) {
        rc = landlock_allow(ruleset, write_paths[i], all & ~LL_EXECUTE, err);
    }
    if (rc == 0 && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
                    syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)) {
        rc = err_sys(err, "cannot enforce Landlock");
    }
    close(ruleset);
    return rc;
}

/* --- seccomp ---------------------------------------------------------------------------------- */
/* Whoever asks for one of these is not us any more. */
static const char *const deadly[] = {
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "bpf",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "reboot",
    "swapon",
    "swapoff",
    "open_by_handle_at",
    "move_mount",
    "open_tree",
    "fsopen",
    "personality",
    NULL,
};

static bool listed(const char *const *names, const char *name)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static int add_rules(scmp_filter_ctx ctx, uint32_t action, const char *const *names,
                     const char *const *except, struct err *err)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        int nr = seccomp_syscall_resolve_name(names[i]);
        if (nr == __NR_SCMP_ERROR || nr < 0 || (except != NULL && listed(except, names[i]))) {
            continue; /* not on this architecture */
        }
        int rc = seccomp_rule_add(ctx, action, nr, 0);
        if (rc != 0) {
            errno = -rc;
            return err_sys(err, "cannot add %s to the system call filter", names[i]);
        }
    }
    return 0;
}

int sandbox_seccomp(const char *name, const char *const *syscalls, bool kill_all, struct err *err)
{
    uint32_t other = kill_all ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM);
    scmp_filter_ctx ctx = seccomp_init(other);
    if (ctx == NULL) {
        return err_set(err, ERR_SYSTEM, "cannot make a system call filter");
    }
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 1);
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE,
                     2); /* a tree: the cost does not grow with the list */
    int rc = add_rules(ctx, SCMP_ACT_ALLOW, syscalls, NULL, err);
    if (rc == 0 && !kill_all) {
        rc = add_rules(ctx, SCMP_ACT_KILL_PROCESS, deadly, syscalls, err);
    }
    if (rc == 0) {
        int loaded = seccomp_load(ctx);
        if (loaded != 0) {
            errno = -loaded;
            rc = err_sys(err, "cannot load the system call filter '%s'", name);
        }
    }
    seccomp_release(ctx);
    return rc;
}

/* --- what is in force ------------------------------------------------------------------------- */
static uint64_t permitted_caps(void)
{
    uint64_t mask = 0;
    cap_t caps = cap_get_proc();
    if (caps == NULL) {
        return 0;
    }
    for (cap_value_t c = 0; c <= CAP_LAST_CAP; c++) {
        cap_flag_value_t v = CAP_CLEAR;
        if (cap_get_flag(caps, c, CAP_PERMITTED, &v) == 0 && v == CAP_SET) {
            mask |= 1ULL << c;
        }
    }
    cap_free(caps);
    return mask;
}

/* The kernel does not tell whether Landlock is in force: a file that no role needs does, by how its
 * opening fails. */
static int landlock_in_force(void)
{
    int fd = open("/proc/version", O_RDONLY | O_CLOEXEC);
    if (fd != -1) {
        close(fd);
        return 0;
    }
    if (errno != EACCES) {
        return 0;
    }
    int abi = landlock_abi();
    return abi > 0 ? abi : 1;
}

void sandbox_get_report(struct sandbox_report *ret)
{
    *ret = (struct sandbox_report){
        .uid = geteuid(),
        .gid = getegid(),
        .no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        .dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1,
        .seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2,
        .landlock_abi = landlock_in_force(),
        .caps = permitted_caps(),
    };
}
