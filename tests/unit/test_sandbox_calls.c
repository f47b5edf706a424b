/*
 * sandbox: the system call filter. Each case runs in a child that confines itself and then tries
 * what it must not be able to do: bad cases first, then that what is listed still works.
 */
#include <postern/sandbox.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* What libc and the sanitizers need around the calls under test. */
static const char *const base_calls[] = {
    "read",
    "write",
    "exit_group",
    "exit",
    "munmap",
    "madvise",
    "futex",
    "getpid",
    "rt_sigreturn",
    "close",
    "rt_sigaction",
    "rt_sigprocmask",
    "gettid",
    "poll",
    "set_robust_list",
    "rseq",
    "sigaltstack",
    "sched_getaffinity",
    "clock_nanosleep",
    "prlimit64",
    "connect",
    NULL,
};

static const struct sandbox_filter strict = {
    .name = "test",
    .calls = base_calls,
    .some = SANDBOX_THREADS | SANDBOX_DATA_MEMORY | SANDBOX_OPEN_READ | SANDBOX_STREAM_SOCKETS |
            SANDBOX_OWN_SIGNALS | SANDBOX_ASKING,
    .unlisted = SANDBOX_COUNT,
};

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

static bool refused(long rc)
{
    return rc == -1 && errno == EPERM;
}

static int confine(void)
{
    return sandbox_seccomp(&strict, false, NULL);
}

/* --- what ends the process -------------------------------------------------------------------- */
static long deadly_number;

static int deadly(void)
{
    if (confine() != 0) {
        return 11;
    }
    (void)syscall((int)deadly_number, 0, 0, 0, 0, 0, 0);
    return 12;
}

static void test_deadly(void **state)
{
    static const long numbers[] = {
        SYS_execve,
        SYS_execveat,
        SYS_ptrace,
        SYS_process_vm_readv,
        SYS_bpf,
        SYS_mount,
        SYS_umount2,
        SYS_pivot_root,
        SYS_chroot,
        SYS_setns,
        SYS_unshare,
        SYS_init_module,
        SYS_perf_event_open,
        SYS_userfaultfd,
        SYS_keyctl,
        SYS_open_by_handle_at,
        SYS_personality,
        425 /* io_uring_setup */,
        438 /* pidfd_getfd */,
    };
    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        deadly_number = numbers[i];
        assert_int_equal(in_child(deadly), 1000 + SIGSYS);
    }
}

#if defined(__x86_64__)
/* The 32-bit entry has other numbers: 20 is getpid there. */
static int other_architecture(void)
{
    long rc = 20;
    if (confine() != 0) {
        return 11;
    }
    __asm__ volatile("int $0x80" : "+a"(rc) : : "memory", "r8", "r9", "r10", "r11");
    return 12;
}

static int x32(void)
{
    if (confine() != 0) {
        return 11;
    }
    (void)syscall(0x40000000 + SYS_getpid);
    return 12;
}

static void test_other_architecture(void **state)
{
    (void)state;
    assert_int_equal(in_child(other_architecture), 1000 + SIGSYS);
    assert_int_equal(in_child(x32), 1000 + SIGSYS);
}
#endif

/* --- what is refused by its arguments --------------------------------------------------------- */
static int arguments(void)
{
    int own = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct iovec byte = {.iov_base = (char[]){"x"}, .iov_len = 1};
    struct msghdr m = {
        .msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &byte, .msg_iovlen = 1};
    const struct {
        int number;
        long a[4];
    } cases[] = {
        {SYS_clone, {SIGCHLD}},                 /* a process */
        {SYS_clone, {CLONE_NEWUSER | SIGCHLD}}, /* a namespace */
        {SYS_fork, {0}},
        {SYS_mprotect, {(long)page, 4096, PROT_READ | PROT_EXEC}},
        {SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}},
        {SYS_openat, {AT_FDCWD, (long)"/tmp/postern-no", O_CREAT | O_WRONLY, 0600}},
        {SYS_openat, {AT_FDCWD, (long)"/dev/null", O_WRONLY}},
        {SYS_openat, {AT_FDCWD, (long)"/dev/null", O_RDWR}},
        {SYS_openat, {AT_FDCWD, (long)"/tmp", O_TMPFILE | O_RDWR, 0600}},
        {SYS_openat, {AT_FDCWD, (long)"/dev/null", O_RDONLY | O_TRUNC}},
        {SYS_openat, {AT_FDCWD, (long)"/tmp/postern-no", O_RDONLY | O_CREAT, 0600}},
        {SYS_open, {(long)"/dev/null", O_WRONLY}},
        {SYS_socket, {AF_INET, SOCK_DGRAM, 0}},
        {SYS_socket, {AF_INET, SOCK_RAW, IPPROTO_ICMP}},
        {SYS_socket, {AF_INET6, SOCK_DGRAM, 0}},
        {SYS_socket,
         {AF_INET, SOCK_STREAM, 132}}, /* SCTP: no TCP port, so Landlock would not see it */
        {SYS_socket, {AF_INET, SOCK_STREAM, 262}}, /* MPTCP, likewise */
        {SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
        {SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
        {SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
        {SYS_socket, {AF_ALG, SOCK_SEQPACKET, 0}},
        {SYS_sendto, {tcp, (long)byte.iov_base, 1, MSG_FASTOPEN}},
        {SYS_sendmsg, {tcp, (long)&m, MSG_FASTOPEN}},
        {SYS_tgkill, {getppid(), getppid(), 0}},
        {SYS_kill, {getppid(), 0}},
        {SYS_prctl, {PR_SET_DUMPABLE, 1}},
        {SYS_prctl, {PR_SET_PTRACER, -1}},
        {SYS_prctl, {PR_SET_NO_NEW_PRIVS, 0}},
        {SYS_prctl, {PR_SET_SECCOMP, 2}},
        {SYS_ioctl, {own, 0x5401, 0}},
        {SYS_getppid, {0}},
        {SYS_setuid, {0}},
        {SYS_capset, {0}},
        {SYS_bind, {tcp, (long)&to, sizeof(to)}},
        {SYS_listen, {tcp, 1}},
        {SYS_memfd_create, {(long)"x", 0}},
        {SYS_setrlimit, {4, 0}},
    };
    if (own == -1 || page == MAP_FAILED || tcp == -1 || confine() != 0) {
        return 100;
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const long *a = cases[i].a;
        uint64_t before = sandbox_refused_total();
        errno = 0;
        if (!refused(syscall(cases[i].number, a[0], a[1], a[2], a[3], -1, 0))) {
            return (int)i + 1;
        }
        if (sandbox_refused_total() != before + 1) {
            return 99;
        }
    }
    return 0;
}

static void test_arguments(void **state)
{
    (void)state;
    assert_int_equal(in_child(arguments), 0); /* else the case's number */
}

/* --- what still works ------------------------------------------------------------------------- */
static void *in_thread(void *arg)
{
    *(int *)arg = refused(syscall(SYS_getppid)) ? 1 : 2; /* counted from a thread too */
    return NULL;
}

static int allowed(void)
{
    pthread_t thread;
    int said = 0;
    if (confine() != 0 || sandbox_refused_total() != 0) {
        return 10;
    }
    if (pthread_create(&thread, NULL, in_thread, &said) != 0 || pthread_join(thread, NULL) != 0 ||
        said != 1 || sandbox_refused_total() != 1) {
        return 11;
    }
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int six = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    int local = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || tcp == -1 || six == -1 || local == -1) {
        return 12;
    }
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || mprotect(page, 4096, PROT_READ) != 0) {
        return 13;
    }
    return syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0) == 0 &&
                   prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
               ? 0
               : 14;
}

static void test_allowed(void **state)
{
    (void)state;
    assert_int_equal(in_child(allowed), 0);
}

/* --- counting --------------------------------------------------------------------------------- */
static int counted(void)
{
    char name[32];
    uint64_t n = 0;
    int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct pollfd p = {.fd = wake, .events = POLLIN};
    int kept_errno;

    sandbox_refused_wake(wake);
    if (confine() != 0 || poll(&p, 1, 0) != 0 || sandbox_refused_next(0, &n) != -1) {
        return 10;
    }
    for (int i = 0; i < 3; i++) {
        (void)syscall(SYS_getppid);
    }
    (void)syscall(SYS_bind, -1, NULL, 0);
    errno = 0;
    kept_errno = (int)syscall(100000); /* no such call anywhere */
    if (kept_errno != -1 || errno != EPERM || poll(&p, 1, 0) != 1) {
        return 11;
    }
    int first = sandbox_refused_next(0, &n);
    if (sandbox_refused_total() != 5 ||
        first != (SYS_bind < SYS_getppid ? SYS_bind : SYS_getppid)) {
        return 12;
    }
    if (sandbox_refused_next(SYS_getppid, &n) != SYS_getppid || n != 3) {
        return 13;
    }
    sandbox_call_name(SYS_getppid, name, sizeof(name));
    if (strcmp(name, "getppid") != 0) {
        return 14;
    }
    if (sandbox_refused_next(SANDBOX_CALLS_MAX - 1, &n) != SANDBOX_CALLS_MAX - 1 || n != 1) {
        return 15;
    }
    sandbox_call_name(SANDBOX_CALLS_MAX - 1, name, sizeof(name));
    return name[0] == '#' ? 0 : 16;
}

static void test_counted(void **state)
{
    (void)state;
    assert_int_equal(in_child(counted), 0);
}

/* With `kill_all` the same calls end the process, those with unlisted arguments too. */
static int killed_by_argument(void)
{
    if (sandbox_seccomp(&strict, true, NULL) != 0) {
        return 11;
    }
    (void)socket(AF_INET, SOCK_DGRAM, 0);
    return 12;
}

static void test_kill_all(void **state)
{
    (void)state;
    assert_int_equal(in_child(killed_by_argument), 1000 + SIGSYS);
}

static int listed_twice(void)
{
    static const char *const calls[] = {"mmap", "exit_group", "write", NULL};
    const struct sandbox_filter f = {.name = "twice", .calls = calls, .some = SANDBOX_DATA_MEMORY};
    struct err err = ERR_INIT;

    return sandbox_seccomp(&f, false, &err) == -1 && strstr(err.what, "mmap") != NULL ? 0 : 1;
}

static void test_listed_twice(void **state)
{
    (void)state;
    assert_int_equal(in_child(listed_twice), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadly),
#if defined(__x86_64__)
        cmocka_unit_test(test_other_architecture),
#endif
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_counted),
        cmocka_unit_test(test_kill_all),
        cmocka_unit_test(test_listed_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
