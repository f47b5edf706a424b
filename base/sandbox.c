#include "sandbox_priv.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { FIRST_FD = 3, CLOSE_RANGE_SETS_CLOEXEC = 4 };

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

uint64_t sandbox_permitted_caps(void)
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

/* Needs CAP_SETPCAP, which a process that is not root does not have: nor can it gain anything then,
 * with no_new_privs. */
static int drop_bounding(uint64_t keep, struct err *err)
{
    for (int c = 0; c <= CAP_LAST_CAP; c++) {
        if ((keep & (1ULL << c)) == 0 && prctl(PR_CAPBSET_READ, c, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, c, 0, 0, 0) != 0 && errno != EPERM) {
            return err_sys(err, "cannot drop capability %d from the bounding set", c);
        }
    }
    return 0;
}

void sandbox_secure_bits(void)
{
    (void)prctl(PR_SET_SECUREBITS, SANDBOX_SECURE_BITS, 0, 0, 0);
}

int sandbox_drop_user(uid_t uid, gid_t gid, uint64_t keep, struct err *err)
{
    const uint64_t setpcap = 1ULL << CAP_SETPCAP;
    bool may;
    if (geteuid() != 0) {
        return 0;
    }
    may = (sandbox_permitted_caps() & setpcap) != 0;
    /* Permitted capabilities survive the change of uid only if asked for; no_new_privs comes later.
     */
    if (drop_bounding(keep, err) == -1) {
        return -1;
    }
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) {
        return err_sys(err, "cannot keep capabilities");
    }
    if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0) {
        return err_sys(err, "cannot become uid %u, gid %u", uid, gid);
    }
    if (set_caps(keep | (may ? setpcap : 0), err) == -1) {
        return -1;
    }
    sandbox_secure_bits(); /* the last thing that takes CAP_SETPCAP */
    (void)prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    if (set_caps(keep, err) == -1) {
        return -1;
    }
    if (uid != 0 && setresuid(0, 0, 0) == 0) {
        return err_set(err, ERR_SYSTEM, "uid 0 could be taken back after it was given up");
    }
    return 0;
}

int sandbox_drop_caps(uint64_t keep, struct err *err)
{
    if (drop_bounding(keep, err) == -1) {
        return -1;
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
    (void)umask(077);
    /* What was handed over by number is not close-on-exec yet. Kernels before 5.11 have no such
     * call; nothing but the supervisor and the runner can exec, and they close by themselves. */
    (void)syscall(SYS_close_range, FIRST_FD, ~0U, CLOSE_RANGE_SETS_CLOEXEC);
    /* Counts all processes of the uid: only for processes that neither fork nor start threads. */
    if (!allow_fork && setrlimit(RLIMIT_NPROC, &none) != 0) {
        return err_sys(err, "cannot limit processes");
    }
    return 0;
}

/* --- all of it -------------------------------------------------------------------------------- */
bool sandbox_kill_all(void)
{
    return secure_getenv("POSTERN_SANDBOX_KILL") != NULL;
}

int sandbox_enter_keeping(struct sandbox_plan *plan, const struct sandbox_filter *filter,
                          uint64_t keep, struct sandbox_landlock *ret_landlock, struct err *err)
{
    sandbox_secure_bits();
    return sandbox_drop_caps(keep, err) == 0 && sandbox_limits(true, err) == 0 &&
                   sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, ret_landlock, err) == 0 &&
                   sandbox_seccomp(filter, sandbox_kill_all(), err) == 0
               ? 0
               : -1;
}

int sandbox_enter(struct sandbox_plan *plan, const struct sandbox_filter *filter,
                  struct sandbox_landlock *ret_landlock, struct err *err)
{
    return sandbox_enter_keeping(plan, filter, 0, ret_landlock, err);
}
