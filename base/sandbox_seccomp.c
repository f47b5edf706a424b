/* The system call filter: a list of names, a few calls whose arguments are looked at, the rest. */
#include "sandbox_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* Whoever asks for one of these is not us any more. */
static const char *const deadly[] = {
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "pidfd_getfd",
    "kcmp",
    "bpf",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
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
    "mount_setattr",
    "open_tree",
    "fsopen",
    "fspick",
    "fsconfig",
    "fsmount",
    "personality",
    "modify_ldt",
    "iopl",
    "ioperm",
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

/* --- calls with certain arguments only -------------------------------------------------------- */
/* All arguments below are ints: the upper half of the register says nothing. */
#define INT_MASK 0xffffffffULL
#define ARG_IS(arg, value) {arg, SCMP_CMP_MASKED_EQ, INT_MASK, (scmp_datum_t)(value)}
#define ARG_HAS(arg, mask, value) {arg, SCMP_CMP_MASKED_EQ, (mask), (value)}
#define OPEN_CHANGES (O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))
#define SOCK_TYPE 0xfULL

struct some_row {
    unsigned some; /* enum sandbox_some */
    const char *name;
    unsigned n;
    struct scmp_arg_cmp args[3];
};

static const struct some_row some_rows[] = {
    {SANDBOX_THREADS, "clone", 1, {ARG_HAS(0, CLONE_THREAD, CLONE_THREAD)}},
    {SANDBOX_DATA_MEMORY, "mmap", 1, {ARG_HAS(2, PROT_EXEC, 0)}},
    {SANDBOX_DATA_MEMORY, "mprotect", 1, {ARG_HAS(2, PROT_EXEC, 0)}},
    {SANDBOX_OPEN_READ, "open", 1, {ARG_HAS(1, OPEN_CHANGES, O_RDONLY)}},
    {SANDBOX_OPEN_READ, "openat", 1, {ARG_HAS(2, OPEN_CHANGES, O_RDONLY)}},
    {SANDBOX_OPEN_APPEND,
     "openat",
     1,
     {ARG_HAS(2, OPEN_CHANGES | O_APPEND, O_WRONLY | O_CREAT | O_APPEND)}},
    {SANDBOX_STREAM_SOCKETS, "socket", 1, {ARG_IS(0, AF_UNIX)}},
    {SANDBOX_STREAM_SOCKETS,
     "socket",
     3,
     {ARG_IS(0, AF_INET), ARG_HAS(1, SOCK_TYPE, SOCK_STREAM), ARG_IS(2, 0)}},
    {SANDBOX_STREAM_SOCKETS,
     "socket",
     3,
     {ARG_IS(0, AF_INET), ARG_HAS(1, SOCK_TYPE, SOCK_STREAM), ARG_IS(2, IPPROTO_TCP)}},
    {SANDBOX_STREAM_SOCKETS,
     "socket",
     3,
     {ARG_IS(0, AF_INET6), ARG_HAS(1, SOCK_TYPE, SOCK_STREAM), ARG_IS(2, 0)}},
    {SANDBOX_STREAM_SOCKETS,
     "socket",
     3,
     {ARG_IS(0, AF_INET6), ARG_HAS(1, SOCK_TYPE, SOCK_STREAM), ARG_IS(2, IPPROTO_TCP)}},
    {SANDBOX_STREAM_SOCKETS, "sendto", 1, {ARG_HAS(3, MSG_FASTOPEN, 0)}},
    {SANDBOX_STREAM_SOCKETS, "sendmsg", 1, {ARG_HAS(2, MSG_FASTOPEN, 0)}},
    {SANDBOX_NETLINK_SOCKETS, "socket", 2, {ARG_IS(0, AF_NETLINK), ARG_IS(2, NETLINK_NETFILTER)}},
    {SANDBOX_NETLINK_SOCKETS, "socket", 2, {ARG_IS(0, AF_NETLINK), ARG_IS(2, NETLINK_ROUTE)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_GET_NO_NEW_PRIVS)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_GET_DUMPABLE)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_GET_SECCOMP)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_GET_SECUREBITS)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_CAPBSET_READ)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_GET_NAME)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_SET_NAME)}},
    {SANDBOX_ASKING, "prctl", 1, {ARG_IS(0, PR_SET_VMA)}}, /* libc names its memory */
};

static int add_some(scmp_filter_ctx ctx, const struct sandbox_filter *f, struct err *err)
{
    const struct scmp_arg_cmp self = ARG_IS(0, getpid());
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(some_rows) / sizeof(some_rows[0]); i++) {
        const struct some_row *row = &some_rows[i];
        int nr = seccomp_syscall_resolve_name(row->name);

        if ((f->some & row->some) == 0 || nr < 0) {
            continue;
        }
        if (listed(f->calls, row->name)) {
            return err_set(err, ERR_SYSTEM, "%s is in the list and in a set of the filter '%s'",
                           row->name, f->name);
        }
        rc = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, row->n, row->args);
    }
    if (rc == 0 && (f->some & SANDBOX_OWN_SIGNALS) != 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, self);
    }
    if (rc == 0 && (f->some & SANDBOX_THREADS) != 0) {
        /* Its flags are behind a pointer. libc takes the old call where there is no new one. */
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    }
    if (rc != 0) {
        errno = -rc;
        return err_sys(err, "cannot make the system call filter '%s'", f->name);
    }
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */
static uint32_t action_of(const struct sandbox_filter *f, bool kill_all)
{
    if (kill_all) {
        return SCMP_ACT_KILL_PROCESS;
    }
    return f->unlisted == SANDBOX_COUNT ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(EPERM);
}

int sandbox_seccomp(const struct sandbox_filter *filter, bool kill_all, struct err *err)
{
    if (filter->unlisted == SANDBOX_COUNT && sandbox_refused_catch(err) == -1) {
        return -1;
    }
    scmp_filter_ctx ctx = seccomp_init(action_of(filter, kill_all));
    if (ctx == NULL) {
        return err_set(err, ERR_SYSTEM, "cannot make a system call filter");
    }
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 1);
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_LOG, 1); /* refused calls into the audit log, if any */
    seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    /* A tree: the cost does not grow with the list. */
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    int rc = add_rules(ctx, SCMP_ACT_ALLOW, filter->calls, NULL, err);
    if (rc == 0) {
        rc = add_some(ctx, filter, err);
    }
    if (rc == 0 && !kill_all) {
        rc = add_rules(ctx, SCMP_ACT_KILL_PROCESS, deadly, filter->calls, err);
    }
    if (rc == 0) {
        int loaded = seccomp_load(ctx);
        if (loaded != 0) {
            errno = -loaded;
            rc = err_sys(err, "cannot load the system call filter '%s'", filter->name);
        }
    }
    seccomp_release(ctx);
    return rc;
}
