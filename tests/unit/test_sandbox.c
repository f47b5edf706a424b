/*
 * sandbox: each step is taken in a child of its own, and what it forbids is tried there. The
 * sanitizers need system calls of their own at exit, so children end by _exit and the lists here
 * allow for them.
 */
#include <postern/sandbox.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const few_calls[] = {
    "read",      "write",        "exit_group",     "exit",    "mmap",         "munmap",
    "mprotect",  "madvise",      "futex",          "getpid",  "rt_sigreturn", "sigaltstack",
    "prctl",     "capget",       "geteuid",        "getegid", "openat",       "close",
    "prlimit64", "rt_sigaction", "rt_sigprocmask", "tgkill",  "gettid",       NULL,
};

static const struct sandbox_filter few = {.name = "test", .calls = few_calls};

/* Runs fn in a child: its exit code, or 1000 + the signal that ended it. */
static int in_child(int (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(fn());
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int unlisted_call_fails(void)
{
    if (syscall(SYS_getppid) <= 0) {
        return 10; /* it worked before */
    }
    if (sandbox_seccomp(&few, false, NULL) != 0) {
        return 11;
    }
    errno = 0;
    return syscall(SYS_getppid) == -1 && errno == EPERM && syscall(SYS_getpid) > 0 ? 0 : 12;
}

static int deadly_call_kills(void)
{
    char *const argv[] = {(char[]){"true"}, NULL};
    if (sandbox_seccomp(&few, false, NULL) != 0) {
        return 11;
    }
    execve("/bin/true", argv, NULL);
    return 12;
}

static int kill_all_kills(void)
{
    if (sandbox_seccomp(&few, true, NULL) != 0) {
        return 11;
    }
    syscall(SYS_getppid);
    return 12;
}

static void test_seccomp(void **state)
{
    (void)state;
    assert_int_equal(in_child(unlisted_call_fails), 0);
    assert_int_equal(in_child(deadly_call_kills), 1000 + SIGSYS);
    assert_int_equal(in_child(kill_all_kills), 1000 + SIGSYS);
}

static int report_is_true(void)
{
    struct sandbox_report before;
    struct sandbox_report after;
    sandbox_get_report(-1, &before);
    if (before.seccomp || before.landlock_abi != 0) {
        return 10;
    }
    if (sandbox_limits(true, NULL) != 0 || sandbox_drop_caps(0, NULL) != 0 ||
        sandbox_seccomp(&few, false, NULL) != 0) {
        return 11;
    }
    sandbox_get_report(-1, &after);
    return after.seccomp && after.no_new_privs && !after.dumpable && after.caps == 0 ? 0 : 12;
}

static void test_report(void **state)
{
    (void)state;
    assert_int_equal(in_child(report_is_true), 0);
}

static int landlock_hides_files(void)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();
    sandbox_plan_path(plan, SANDBOX_READ, "/usr");
    sandbox_plan_path(plan, SANDBOX_READ, "/nonexistent-path");
    if (syscall(444, NULL, 0, 1) <= 0) {
        return 77; /* the kernel has none */
    }
    if (sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, NULL) != 0) {
        return 11;
    }
    int in = open("/usr", O_RDONLY | O_DIRECTORY);
    errno = 0;
    int out = open("/etc/passwd", O_RDONLY);
    int out_errno = errno;
    int made = open("/usr/postern-test-file", O_CREAT | O_WRONLY, 0600);
    struct sandbox_report r;
    sandbox_get_report(-1, &r);
    return in != -1 && out == -1 && out_errno == EACCES && made == -1 && r.landlock_abi > 0 ? 0
                                                                                            : 12;
}

static void test_landlock(void **state)
{
    (void)state;
    int rc = in_child(landlock_hides_files);
    if (rc == 77) {
        skip();
    }
    assert_int_equal(rc, 0);
}

static int user_is_gone(void)
{
    if (sandbox_drop_user(64610, 64610, 1ULL << CAP_SYS_PTRACE, NULL) != 0) {
        return 10;
    }
    struct sandbox_report r;
    sandbox_get_report(sandbox_status_open(), &r);
    if (r.uid != 64610 || r.gid != 64610 || r.caps != 1ULL << CAP_SYS_PTRACE ||
        r.caps_bounding != r.caps || !r.secure_bits) {
        return 11;
    }
    if (setuid(0) == 0 || sandbox_drop_caps(0, NULL) != 0) {
        return 12;
    }
    sandbox_get_report(-1, &r);
    return r.caps == 0 ? 0 : 13;
}

static void test_user(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(in_child(user_is_gone), 0);
}

static int fork_is_gone(void)
{
    if (geteuid() == 0 && sandbox_drop_user(64611, 64611, 0, NULL) != 0) {
        return 10;
    }
    if (sandbox_limits(false, NULL) != 0) {
        return 11;
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    return pid == -1 ? 0 : 12;
}

static void test_limits(void **state)
{
    (void)state;
    assert_int_equal(in_child(fork_is_gone), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seccomp),  cmocka_unit_test(test_report),
        cmocka_unit_test(test_landlock), cmocka_unit_test(test_user),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
