/*
 * keeper: its state files and its confinement, with the real process.
 */
#include "keeper_process.h"

#include <postern/agent_ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <postern/x509.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- state files ------------------------------------------------------------------------------ */
struct files {
    int key, cert;
};

static void make_root(struct files *f)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);

    f->key = keeper_temp_file();
    f->cert = keeper_temp_file();
    keeper_spawn(k);
    keeper_send_state(k, f->key, f->cert, true);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_STATE_WRITTEN);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_READY);
    shutdown(k->control, SHUT_RDWR);
    assert_int_equal(keeper_wait_end(k), 0);
}

static void break_nothing(struct files *f)
{
    (void)f;
}
static void break_mode(struct files *f)
{
    assert_int_equal(fchmod(f->key, 0640), 0);
}
static void break_torn_key(struct files *f)
{
    assert_int_equal(ftruncate(f->key, 60), 0);
}
static void break_empty_key(struct files *f)
{
    assert_int_equal(ftruncate(f->key, 0), 0);
}
static void break_torn_cert(struct files *f)
{
    assert_int_equal(ftruncate(f->cert, 100), 0);
}
static void break_long_cert(struct files *f)
{
    assert_int_equal(ftruncate(f->cert, 2000), 0);
}
static void break_pair(struct files *f)
{
    struct files other;

    make_root(&other);
    close(f->cert);
    close(other.key);
    f->cert = other.cert;
}
static void break_owner(struct files *f)
{
    if (geteuid() == 0) {
        assert_int_equal(fchown(f->key, 12345, 12345), 0);
    } else {
        break_mode(f);
    }
}
static void break_no_file(struct files *f)
{
    close(f->key);
    f->key = open("/dev/null", O_RDWR | O_CLOEXEC);
}

static void test_state_files(void **state)
{
    static const struct {
        const char *what;
        void (*spoil)(struct files *f);
        bool ok;
        const char *expected; /* in the error */
    } cases[] = {
        {"readable by the group", break_mode, false, "mode 0640"},
        {"owned by another", break_owner, false, "root.key"},
        {"torn key", break_torn_key, false, "root.key"},
        {"empty key", break_empty_key, false, "root.key"},
        {"torn certificate", break_torn_cert, false, "root.crt"},
        {"bytes after the certificate", break_long_cert, false, "root.crt"},
        {"certificate of another key", break_pair, false, "not the certificate of root.key"},
        {"a device", break_no_file, false, "root.key"},
        {"as it was", break_nothing, true, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct keeper_process *k = mem_must_new(struct keeper_process);
        struct files f;
        struct stat before, after;

        make_root(&f);
        cases[i].spoil(&f);
        assert_int_equal(fstat(f.key, &before), 0);
        keeper_spawn(k);
        keeper_send_state(k, f.key, f.cert, false);
        if (cases[i].ok) {
            keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_READY);
            shutdown(k->control, SHUT_RDWR);
        } else {
            keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
            if (strstr(keeper_in.failed.error.what, cases[i].expected) == NULL ||
                keeper_in.failed.error.advice[0] == 0) {
                fail_msg("%s: \"%s\" (%s)", cases[i].what, keeper_in.failed.error.what,
                         keeper_in.failed.error.advice);
            }
        }
        assert_int_equal(keeper_wait_end(k), cases[i].ok ? 0 : 1);
        /* never written over */
        assert_int_equal(fstat(f.key, &after), 0);
        assert_int_equal(before.st_size, after.st_size);
        assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
        close(f.key);
        close(f.cert);
    }
}

static void test_full_disk(void **state)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int full = open("/dev/full", O_RDWR | O_CLOEXEC), cert = keeper_temp_file();

    (void)state;
    assert_int_not_equal(full, -1);
    keeper_spawn(k);
    keeper_send_state(k, full, cert, true);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
    assert_int_equal(keeper_in.failed.error.sys_errno, ENOSPC);
    assert_int_equal(keeper_wait_end(k), 1);
    close(full);
    close(cert);
}

/* What the report says is what the kernel says. */
static void test_sandbox(void **state)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    char path[64], *text = NULL;
    size_t len;

    (void)state;
    keeper_spawn(k);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_REPORT);
    assert_int_equal(keeper_in.report.role, AGENT_ROLE_KEEPER);
    assert_true(keeper_in.report.report.seccomp && keeper_in.report.report.no_new_privs);
    assert_false(keeper_in.report.report.dumpable);
    assert_int_equal(keeper_in.report.report.caps, 0);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)k->pid);
    assert_int_equal(os_read_file(path, 65536, false, &text, &len, NULL), 0);
    assert_non_null(strstr(text, "Seccomp:\t2"));
    assert_non_null(strstr(text, "NoNewPrivs:\t1"));
    assert_non_null(strstr(text, "CapEff:\t0000000000000000"));
    if (geteuid() == 0) {
        assert_non_null(strstr(text, "Uid:\t64601\t64601\t64601\t64601"));
        assert_int_equal(keeper_in.report.report.uid, KEEPER_UID);
    }
    free(text);
    shutdown(k->control, SHUT_RDWR);
    assert_int_equal(keeper_wait_end(k), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state_files),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_sandbox),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
