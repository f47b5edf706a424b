/*
 * hardening: what a role with a loop says about its sandbox. A child enters it, is refused calls,
 * turns its loop, and the test reads its log, status and metrics.
 */
#include <postern/hardening.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const calls[] = {
    "read",
    "write",
    "exit_group",
    "close",
    "munmap",
    "madvise",
    "futex",
    "getpid",
    "gettid",
    "rt_sigreturn",
    "rt_sigaction",
    "epoll_wait",
    "epoll_ctl",
    "epoll_pwait",
    "clock_gettime",
    "pread64",
    "prlimit64",
    "capget",
    "geteuid",
    "getegid",
    "sched_yield",
    "brk",
    "mremap",
    "rt_sigprocmask",
    "landlock_create_ruleset",
    "epoll_pwait2",
    "getrandom",
    "gettimeofday",
    "timerfd_settime",
    "sigaltstack",
    "clock_nanosleep",
    "newfstatat",
    "fstat",
    NULL,
};
static const struct sandbox_filter filter = {
    .name = "test",
    .calls = calls,
    .some = SANDBOX_DATA_MEMORY | SANDBOX_OPEN_READ | SANDBOX_ASKING | SANDBOX_OWN_SIGNALS,
    .unlisted = SANDBOX_COUNT,
};

static char output[65536];

static void stop(void *arg)
{
    loop_stop((struct loop *)arg);
}

static void turn(struct loop *loop, uint64_t ms)
{
    struct loop_timer t;

    loop_timer_init(&t, loop, stop, loop);
    loop_timer_arm(&t, ms);
    loop_run(loop);
    loop_timer_disarm(&t);
}

/* What fn's process wrote: its log, and what it prints. */
static int run(int (*fn)(struct loop *loop, struct log *log, int out))
{
    int pipes[2];
    size_t n = 0;
    ssize_t got;
    int status = 0;

    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct loop *loop = loop_new(NULL);
        struct log *log = log_new_fd(pipes[1], LOG_INFO, "test");

        close(pipes[0]);
        _exit(loop != NULL && log != NULL ? fn(loop, log, pipes[1]) : 99);
    }
    close(pipes[1]);
    while (n < sizeof(output) - 1 &&
           (got = read(pipes[0], output + n, sizeof(output) - 1 - n)) > 0) {
        n += (size_t)got;
    }
    output[n] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static size_t count(const char *what)
{
    size_t n = 0;

    for (const char *p = output; (p = strstr(p, what)) != NULL; p++) {
        n++;
    }
    return n;
}

static int refused(struct loop *loop, struct log *log, int out)
{
    struct buf text = BUF_INIT(32768);
    struct hardening *h = hardening_new(loop, log, NULL);

    if (h == NULL || hardening_enter(h, sandbox_plan_new(), &filter, 0, NULL) == -1) {
        return 10;
    }
    (void)syscall(SYS_getppid);
    (void)syscall(SYS_getppid);
    (void)syscall(SYS_setuid, 0);
    turn(loop, 1);
    (void)syscall(SYS_getppid); /* within the quiet time: not told at once, but counted */
    turn(loop, 1);
    hardening_degraded(h, "something is weak", "mend it");
    if (!buf_printf(&text, "STATUS {") || !hardening_write_status(h, &text) ||
        !buf_printf(&text, "}\n") || !hardening_write_metrics(h, &text)) {
        return 11;
    }
    if (write(out, buf_head(&text), buf_len(&text)) != (ssize_t)buf_len(&text)) {
        return 12;
    }
    buf_reset(&text);
    return hardening_free(h) == NULL ? 0 : 13;
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(run(refused), 0);
    assert_int_equal(count("\"event\":\"system_call_refused\""), 2); /* a line a name */
    assert_int_equal(count("\"call\":\"getppid\",\"count\":2,\"total\":2"), 1);
    assert_int_equal(count("\"call\":\"setuid\",\"count\":1,\"total\":1"), 1);
    assert_int_equal(count("\"event\":\"confined\""), 1);
    assert_int_equal(count("\"getppid\":3"), 1);
    assert_int_equal(count("postern_seccomp_denied_total{syscall=\"getppid\"} 3\n"), 1);
    assert_int_equal(count("postern_seccomp_denied_total{syscall=\"setuid\"} 1\n"), 1);
    assert_int_equal(count("# TYPE postern_seccomp_denied counter"), 1);
    assert_int_equal(count("postern_hardening_degraded 1\n"), 1);
    assert_int_equal(count("\"weak\":[\"something is weak\"]"), 1);
    assert_int_equal(count("\"seccomp\":\"test\""), 2); /* in the log, in the status */
}

static int quiet(struct loop *loop, struct log *log, int out)
{
    struct buf text = BUF_INIT(32768);
    struct hardening *h = hardening_new(loop, log, NULL);

    if (h == NULL || hardening_enter(h, sandbox_plan_new(), &filter, 0, NULL) == -1) {
        return 10;
    }
    turn(loop, 1);
    if (!hardening_write_metrics(h, &text) ||
        write(out, buf_head(&text), buf_len(&text)) != (ssize_t)buf_len(&text)) {
        return 11;
    }
    buf_reset(&text);
    hardening_free(h);
    return 0;
}

static void test_quiet(void **state)
{
    (void)state;
    assert_int_equal(run(quiet), 0);
    assert_int_equal(count("system_call_refused"), 0);
    assert_int_equal(count("postern_seccomp_denied"), 0);
    if (syscall(444, NULL, 0, 1) >= 6) {
        assert_int_equal(count("hardening_degraded\""), 0);
        assert_int_equal(count("postern_hardening_degraded 0\n"), 1);
    }
}

static int covers(struct loop *loop, struct log *log, int out)
{
    struct err err = ERR_INIT;
    char text[2048];
    struct sandbox_plan *have = sandbox_plan_new(), *want = sandbox_plan_new();
    struct hardening *h = hardening_new(loop, log, NULL);

    sandbox_plan_connect(have, 5432);
    sandbox_plan_connect(want, 5433);
    if (h == NULL || hardening_enter(h, have, &filter, 0, NULL) == -1 ||
        hardening_covers(h, want, "/etc/x.yaml", &err) == 0) {
        return 10;
    }
    err_text(&err, text, sizeof(text));
    if (write(out, text, strlen(text)) == -1) {
        return 11;
    }
    want = sandbox_plan_new();
    sandbox_plan_connect(want, 5432);
    return hardening_covers(h, want, "/etc/x.yaml", &err);
}

static void test_covers(void **state)
{
    (void)state;
    assert_int_equal(run(covers), 0);
    assert_int_equal(count("5433"), 1);
    assert_int_equal(count("/etc/x.yaml"), 1);
    assert_int_equal(count("restart"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_covers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
