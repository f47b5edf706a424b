/* Who may take over: which executables are the same, and looking at processes that are not. */
#include "heir_priv.h"

#include <postern/os.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The end of a process that this one has. */
static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* One that runs this executable, or another; it is there when this returns. */
static pid_t run(bool other)
{
    int report[2];
    char byte;
    assert_int_equal(pipe(report), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(report[0]);
        if (!other) {
            close(report[1]);
            for (;;) {
                pause();
            }
        }
        /* The pipe's end closes with the exec. */
        (void)syscall(SYS_close_range, report[1], ~0U, 4);
        execl("/bin/sleep", "sleep", "1000", NULL);
        _exit(1);
    }
    close(report[1]);
    assert_int_equal(read(report[0], &byte, 1), 0);
    close(report[0]);
    return pid;
}

static struct heir_own own_of(const char *path)
{
    struct heir_own own = {.version = HEIR_VERSION, .uid = geteuid()};
    assert_true(heir_exe(getpid(), &own.file, NULL));
    (void)snprintf(own.path, sizeof(own.path), "%s", path);
    return own;
}

static void test_judge(void **state)
{
    (void)state;
    const struct heir_file a = {1, 2}, other_ino = {1, 3}, other_dev = {2, 2};
    assert_int_equal(heir_judge(&a, NULL, &a), HEIR_SAME_FILE);
    assert_int_equal(heir_judge(&a, &other_ino, &a), HEIR_SAME_FILE); /* replaced since */
    assert_int_equal(heir_judge(&a, &other_ino, &other_ino), HEIR_SAME_PLACE);
    assert_int_equal(heir_judge(&a, &a, &other_ino), HEIR_OTHER);
    assert_int_equal(heir_judge(&a, &a, &other_dev), HEIR_OTHER); /* a number of another disk */
    assert_int_equal(heir_judge(&a, NULL, &other_ino), HEIR_OTHER);
}

static void test_paths(void **state)
{
    (void)state;
    assert_true(heir_path_has_name("/usr/bin/postern"));
    assert_false(heir_path_has_name("/usr/bin/postern (deleted)"));
    assert_false(heir_path_has_name("/memfd:postern (deleted)"));
    assert_false(heir_path_has_name(""));
    assert_false(heir_path_has_name("(unreachable)/usr/bin/postern"));
}

static void test_messages(void **state)
{
    (void)state;
    struct heir_own own = {.version = HEIR_VERSION, .path = "/a"};
    assert_true(heir_own_ok(&own, sizeof(own)));
    assert_false(heir_own_ok(&own, sizeof(own) - 1));
    own.path[0] = 'a';
    assert_false(heir_own_ok(&own, sizeof(own)));
    memset(own.path, '/', sizeof(own.path));
    assert_false(heir_own_ok(&own, sizeof(own)));
    own = (struct heir_own){.version = HEIR_VERSION + 1};
    assert_false(heir_own_ok(&own, sizeof(own)));
    struct heir_question q = {.version = HEIR_VERSION, .pid = 1, .id = 1};
    assert_true(heir_question_ok(&q, sizeof(q)));
    assert_false(heir_question_ok(&q, sizeof(q) + 1));
    q.pid = -1;
    assert_false(heir_question_ok(&q, sizeof(q)));
    q = (struct heir_question){.version = HEIR_VERSION, .pid = 1};
    assert_false(heir_question_ok(&q, sizeof(q)));
}

static void test_look(void **state)
{
    (void)state;
    char path[HEIR_PATH_MAX];
    pid_t mine = run(false), other = run(true);
    struct heir_own own = own_of("/nonexistent/postern");
    assert_int_equal(heir_look(&own, mine, -1, path), HEIR_SAME_FILE);
    assert_non_null(strstr(path, "test_heir"));
    assert_int_equal(heir_look(&own, other, -1, path), HEIR_OTHER);
    assert_int_equal(path[0], '/');
    /* What stands where we were started from: an upgrade. */
    own = own_of("/bin/sleep");
    assert_int_equal(heir_look(&own, other, -1, path), HEIR_SAME_PLACE);
    own.path[0] = '\0'; /* we have no name any more */
    assert_int_equal(heir_look(&own, other, -1, path), HEIR_OTHER);
    /* It is another user's by now. */
    own = own_of("/bin/sleep");
    own.uid = geteuid() + 1;
    assert_int_equal(heir_look(&own, other, -1, path),
                     geteuid() == 0 ? HEIR_SAME_PLACE : HEIR_UNKNOWN);
    end(mine);
    end(other);
}

/* A number whose process has ended, or is another's: the pidfd says so. */
static void test_gone(void **state)
{
    (void)state;
    char path[HEIR_PATH_MAX];
    struct heir_own own = own_of("/nonexistent/postern");
    pid_t was = run(false);
    int pidfd = (int)syscall(SYS_pidfd_open, was, 0);
    assert_int_not_equal(pidfd, -1);
    end(was);
    assert_int_equal(heir_look(&own, was, -1, path), HEIR_GONE);
    /* As if the number had gone to a process of ours. */
    assert_int_equal(heir_look(&own, getpid(), pidfd, path), HEIR_GONE);
    assert_int_equal(path[0], '\0');
    close(pidfd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge), cmocka_unit_test(test_paths), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_look),  cmocka_unit_test(test_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
