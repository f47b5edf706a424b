/*
 * attestor: the real process, with the test in the place of supervisor, keeper, service and
 * workloads. docs/privilege-separation.md lists the attack cases marked A. Every case runs with the
 * kernel's own pidfd of the peer and again as on a kernel without it.
 */
#include "attestor_process.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- cases ------------------------------------------------------------------------------------ */
static void test_facts(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = workload_start(a);
    struct agent_msg_caller c;
    char self[4096];

    attestor_own_path(self, sizeof(self));
    workload_order(&w, 'c');
    (void)attestor_next_caller(a, &c);
    assert_int_equal(c.pid, w.pid);
    assert_int_equal(c.uid, geteuid());
    assert_int_equal(c.gid, getegid());
    assert_true(os_now_ms() - c.read_ms < ATTESTOR_WAIT_MS);
    attestor_assert_path(&c, self);
    workload_end(&w);
}

static void test_hostile_name(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = workload_start(a);
    struct agent_msg_caller c;

    workload_order(&w, 'c');
    (void)attestor_next_caller(a, &c);
    workload_order(&w, 'm');
    assert_int_equal(attestor_reattest(a, c.handle)->outcome, AGENT_ATTEST_OK);
    assert_false(attestor_in.reattested.changed);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(attestor_in.caller.uid, geteuid());
    assert_int_equal(attestor_in.caller.start_time, c.start_time);
    workload_end(&w);
}

static void test_ended(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = workload_start(a);
    struct agent_msg_caller c;
    uint64_t handle;

    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    workload_end(&w);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
    assert_int_equal(attestor_in.handle.handle, handle);
    attestor_expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_GONE);
    assert_int_equal(attestor_in.handle.handle, handle);
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_GONE);
    assert_true(attestor_silent(a->keeper));
}

/* Connected, and gone before anybody looked: no identity, whoever holds the socket now. */
static void test_handed_on_before(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = workload_start(a), other = workload_start(a);
    struct agent_msg_caller c;
    int fake = a->service;

    /* without a service nobody is accepted */
    shutdown(fake, SHUT_RDWR);
    close(fake);
    a->service = -1;
    workload_tell(&w, 'c');
    workload_heard(&w);
    workload_tell(&w, 'f'); /* the child holds the connection */
    assert_int_equal(waitpid(w.pid, NULL, 0), w.pid);
    attestor_new_service(a);
    workload_order(&other, 'c');
    (void)attestor_next_caller(a, &c);
    assert_int_equal(c.pid, other.pid); /* the first one never showed */
    assert_true(attestor_silent(a->service));
    assert_true(attestor_silent(a->keeper));
    close(w.order);
    close(w.answer);
    workload_end(&other);
}

/* Handed on afterwards: it counts as long as the one that connected lives. */
static void test_handed_on_after(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = workload_start(a);
    struct agent_msg_caller c;
    uint64_t handle;

    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    workload_tell(&w, 'f');
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
    assert_int_equal(attestor_in.handle.handle, handle);
    attestor_expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_GONE);
    waitpid(w.pid, NULL, 0);
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_GONE);
    close(w.order);
    close(w.answer);
}

static void test_exec(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = workload_start(a);
    struct agent_msg_caller c;
    uint64_t handle;
    char cat[4096];

    assert_non_null(realpath("/bin/cat", cat));
    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    assert_false(attestor_in.reattested.changed);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    workload_tell(&w, 'e');
    workload_order(&w, 'x'); /* it is cat by now: the letter comes back */
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    assert_true(attestor_in.reattested.changed);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(attestor_in.caller.handle, handle);
    attestor_assert_path(&attestor_in.caller, cat);
    workload_end(&w);
}

static void test_setuid(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    uint64_t handle;

    if (geteuid() != 0) {
        skip();
    }
    w = workload_start(a);
    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_int_equal(c.uid, 0);
    workload_order(&w, 'u');
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    assert_true(attestor_in.reattested.changed);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(attestor_in.caller.uid, ATTESTOR_OTHER_UID);
    assert_int_equal(attestor_in.caller.gid, ATTESTOR_OTHER_UID);
    workload_end(&w);
}

/* A program of another user, not dumpable after setuid: CAP_SYS_PTRACE is there for this. */
static void test_path_of_other_user(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    char self[4096];

    if (geteuid() != 0) {
        skip();
    }
    attestor_own_path(self, sizeof(self));
    w = workload_start(a);
    workload_order(&w, 'u');
    workload_order(&w, 'c');
    (void)attestor_next_caller(a, &c);
    assert_int_equal(c.uid, ATTESTOR_OTHER_UID);
    attestor_assert_path(&c, self);
    workload_end(&w);
}

/* In a mount namespace of its own a path says nothing. */
static void test_own_namespace(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    uint64_t handle;

    if (geteuid() != 0) {
        skip();
    }
    w = workload_start(a);
    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_true(c.path_len > 0);
    workload_order(&w, 'n');
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(attestor_in.caller.path_len, 0);
    workload_end(&w);
}

/* The process is in our namespace, but the file it runs is not: /proc/PID/exe shows the path as it
 * is over there, and the name of a trusted program is easily made there. */
static void test_file_of_other_namespace(void **state)
{
    struct attestor_process *a = *state;
    struct workload maker, w;
    struct agent_msg_caller c;
    uint64_t handle;
    char path[256], link[256], shown[256], trusted[128];
    ssize_t n;

    if (geteuid() != 0) {
        skip();
    }
    maker = workload_start(a);
    workload_order(&maker, 'n');
    (void)snprintf(trusted, sizeof(trusted), "%s/cat", a->dir);
    (void)snprintf(path, sizeof(path), "/proc/%d/root%s", (int)maker.pid, trusted);
    w = workload_start_foreign(a, path);
    handle = attestor_next_caller(a, &c);
    workload_tell(&w, 'g');  /* its facts have been read: it may exec */
    workload_order(&w, 'x'); /* it runs that file by now */
    (void)snprintf(link, sizeof(link), "/proc/%d/exe", (int)w.pid);
    n = readlink(link, shown, sizeof(shown) - 1);
    assert_true(n > 0);
    shown[n] = 0;
    assert_string_equal(shown, trusted); /* the lie that must not be believed */
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(attestor_in.caller.path_len, 0);
    workload_end(&w);
    workload_end(&maker);
}

static void test_deleted_executable(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    uint64_t handle;
    char path[128], command[256];

    (void)snprintf(path, sizeof(path), "%s/cat", a->dir);
    (void)snprintf(command, sizeof(command), "/bin/cp /bin/cat %s", path);
    assert_int_equal(system(command), 0);
    w = workload_start_foreign(a, path);
    handle = attestor_next_caller(a, &c);
    workload_tell(&w, 'g'); /* its facts have been read: it may exec */
    workload_order(&w, 'x');
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    attestor_assert_path(&attestor_in.caller, path);
    unlink(path);
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(attestor_in.caller.path_len, 0);
    workload_end(&w);
}

static void test_uid_bound(void **state)
{
    struct attestor_process *a = *state;
    int fds[ATTESTOR_MAX_UID_HANDLES + 4];
    struct agent_msg_caller c;
    uint64_t handles[ATTESTOR_MAX_UID_HANDLES], last = 0;
    struct agent_msg_handle release;
    struct pollfd p;

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        fds[i] = attestor_connect(a);
    }
    for (size_t i = 0; i < ATTESTOR_MAX_UID_HANDLES; i++) {
        handles[i] = attestor_next_caller(a, &c);
        assert_true(handles[i] > last); /* never used twice */
        last = handles[i];
    }
    /* the ones too many are closed, and nobody hears of them */
    p = (struct pollfd){.fd = fds[ATTESTOR_MAX_UID_HANDLES], .events = POLLIN};
    assert_int_equal(poll(&p, 1, ATTESTOR_WAIT_MS), 1);
    assert_true(attestor_silent(a->service) && attestor_silent(a->keeper));
    /* one goes, one may come */
    agent_ipc_init(&release, AGENT_MSG_RELEASE, 0);
    release.handle = handles[3];
    attestor_send(a->service, &release, -1);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
    assert_int_equal(attestor_in.handle.handle, handles[3]);
    close(attestor_connect(a));
    assert_true(attestor_next_caller(a, &c) > last);
    /* what crosses on the way is no offence */
    attestor_send(a->service, &release, -1);
    assert_int_equal(attestor_reattest(a, handles[3])->outcome, AGENT_ATTEST_GONE);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        close(fds[i]);
    }
}

static void test_bad_service(void **state)
{
    struct attestor_process *a = *state;
    static const struct {
        const char *what;
        enum agent_msg_type type;
        size_t size, len;
        bool with_fd;
    } cases[] = {
        {"short", AGENT_MSG_REATTEST, sizeof(struct agent_msg_ask), 8, false},
        {"long", AGENT_MSG_REATTEST, sizeof(struct agent_msg_ask), 4000, false},
        {"with a descriptor", AGENT_MSG_REATTEST, sizeof(struct agent_msg_ask),
         sizeof(struct agent_msg_ask), true},
        {"the keeper's", AGENT_MSG_ISSUE, sizeof(struct agent_msg_issue),
         sizeof(struct agent_msg_issue), false},
        {"its own", AGENT_MSG_GONE, sizeof(struct agent_msg_handle),
         sizeof(struct agent_msg_handle), false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static uint8_t bytes[sizeof(union agent_msg)];
        struct agent_msg_head head = {.type = cases[i].type, .size = (uint32_t)cases[i].size};
        struct agent_msg_caller c;
        int fd = attestor_connect(a);
        uint64_t handle = attestor_next_caller(a, &c);

        memset(bytes, 0, sizeof(bytes));
        memcpy(bytes, &head, sizeof(head));
        assert_int_equal(ipc_send(a->service, bytes, cases[i].len, cases[i].with_fd ? 0 : -1),
                         IPC_OK);
        if (attestor_recv(a->service, AGENT_WAY_ATTESTOR_SERVICE) != IPC_CLOSED) {
            fail_msg("%s: the channel stays open", cases[i].what);
        }
        /* its callers go with it */
        attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
        assert_int_equal(attestor_in.handle.handle, handle);
        close(fd);
        attestor_new_service(a);
    }
    close(attestor_connect(a));
}

/* A service that never reads stops new callers, and nothing is lost when it reads again. */
static void test_deaf_service(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_ask ask;
    struct agent_msg_caller c;
    int fd = attestor_connect(a);
    uint64_t handle = attestor_next_caller(a, &c), sent = 0, answered = 0, told = 0;

    agent_ipc_init(&ask, AGENT_MSG_REATTEST, 0);
    ask.handle = handle;
    for (;;) {
        struct pollfd p = {.fd = a->service, .events = POLLOUT};
        enum ipc_outcome o;

        ask.head.request_id = sent + 1;
        o = agent_ipc_send(a->service, &ask, -1);
        while (!attestor_silent(a->keeper)) { /* the keeper always reads */
            attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
            told++;
        }
        if (o == IPC_AGAIN && poll(&p, 1, 300) == 0) {
            break;
        }
        sent += o == IPC_OK;
        assert_in_range(sent, 0, 100000);
    }
    while (answered < sent) {
        while (!attestor_silent(a->keeper)) {
            attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
            told++;
        }
        attestor_expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_REATTESTED);
        assert_int_equal(attestor_in.head.request_id, ++answered);
    }
    while (told < sent) {
        attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
        told++;
    }
    close(fd);
}

#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, attestor_setup, attestor_teardown),                      \
        cmocka_unit_test_setup_teardown(test, attestor_setup_fallback, attestor_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_hostile_name),
        BOTH(test_ended),
        BOTH(test_handed_on_before),
        BOTH(test_handed_on_after),
        BOTH(test_exec),
        BOTH(test_setuid),
        BOTH(test_own_namespace),
        BOTH(test_file_of_other_namespace),
        BOTH(test_deleted_executable),
        BOTH(test_uid_bound),
        BOTH(test_bad_service),
        BOTH(test_deaf_service),
        BOTH(test_facts),
        BOTH(test_path_of_other_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
