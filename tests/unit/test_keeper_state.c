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

/* --- files ------------------------------------------------------------------------------------ */
/* Of the layout that is there: the state alone, or root.key and root.crt of earlier releases. */
struct files {
    bool old;
    int key, cert; /* old: those two; else key is the state and cert -1 */
};

static void write_bytes(int fd, const void *bytes, size_t len)
{
    assert_int_equal(pwrite(fd, bytes, len, 0), len);
}

static void make_old(struct files *f, const char *id)
{
    EVP_PKEY *key = x509_key_new(NULL);
    uint8_t point[AGENT_POINT_SIZE], *der = NULL;
    int64_t now_s = os_wall_s();
    struct x509_issue what = {.spiffe_id = str_of(id),
                              .point = point,
                              .ca = true,
                              .path_len = 1,
                              .not_before_s = now_s - 10,
                              .not_after_s = now_s + 86400};
    X509 *cert = NULL;
    size_t len = 0;

    *f = (struct files){true, keeper_temp_file(), keeper_temp_file()};
    assert_int_equal(fchmod(f->cert, 0644), 0);
    assert_int_equal(x509_key_point(key, point, NULL), 0);
    assert_int_equal(x509_issue(&what, NULL, key, &cert, NULL), 0);
    assert_int_equal(x509_to_der(cert, &der, &len, NULL), 0);
    write_bytes(f->cert, der, len);
    free(der);
    assert_int_equal(x509_key_to_pkcs8(key, &der, &len, NULL), 0);
    write_bytes(f->key, der, len);
    mem_secret_free(der);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void end_well(struct keeper_process *k)
{
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_READY);
    shutdown(k->control, SHUT_RDWR);
    assert_int_equal(keeper_wait_end(k), 0);
}

static void make_state(struct files *f)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);

    *f = (struct files){false, keeper_temp_file(), -1};
    keeper_spawn(k);
    keeper_send_state(k, f->key, true);
    keeper_place_state(k);
    end_well(k);
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
static void break_longer(struct files *f)
{
    struct stat st;

    assert_int_equal(fstat(f->key, &st), 0);
    assert_int_equal(ftruncate(f->key, st.st_size + 1), 0);
}
static void break_byte(struct files *f)
{
    write_bytes(f->key, "X", 1);
}
static void break_last_byte(struct files *f)
{
    struct stat st;
    uint8_t byte;

    assert_int_equal(fstat(f->key, &st), 0);
    assert_int_equal(pread(f->key, &byte, 1, st.st_size - 1), 1);
    byte ^= 1;
    assert_int_equal(pwrite(f->key, &byte, 1, st.st_size - 1), 1);
}
static void break_torn_cert(struct files *f)
{
    assert_int_equal(ftruncate(f->cert, 100), 0);
}
static void break_long_cert(struct files *f)
{
    assert_int_equal(ftruncate(f->cert, 2000), 0);
}
static void break_domain(struct files *f)
{
    close(f->key);
    close(f->cert);
    make_old(f, "spiffe://other.org");
}
static void break_pair(struct files *f)
{
    struct files other;

    make_old(&other, "spiffe://example.org");
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

struct file_case {
    const char *what;
    void (*spoil)(struct files *f);
    bool ok;
    const char *expected; /* in the error */
};

static const struct file_case OLD_CASES[] = {
    {"readable by the group", break_mode, false, "mode 0640"},
    {"owned by another", break_owner, false, "root.key"},
    {"torn key", break_torn_key, false, "root.key"},
    {"empty key", break_empty_key, false, "root.key"},
    {"torn certificate", break_torn_cert, false, "root.crt"},
    {"bytes after the certificate", break_long_cert, false, "root.crt"},
    {"certificate of another key", break_pair, false, "not the certificate of root.key"},
    {"another trust domain's", break_domain, false, "root of spiffe://other.org"},
    {"a device", break_no_file, false, "root.key"},
    {"as it was", break_nothing, true, NULL},
};

static const struct file_case CASES[] = {
    {"readable by the group", break_mode, false, "mode 0640"},
    {"owned by another", break_owner, false, "state"},
    {"torn", break_torn_key, false, "cut"},
    {"empty", break_empty_key, false, "empty"},
    {"longer", break_longer, false, "longer"},
    {"not a state at all", break_byte, false, "no state file"},
    {"one bit is another", break_last_byte, false, "torn, or was changed"},
    {"a device", break_no_file, false, "state"},
    {"as it was", break_nothing, true, NULL},
};

static void try_files(const struct file_case *c, struct files *f)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int new_file = f->old ? keeper_temp_file() : -1;
    struct stat before, after;

    c->spoil(f);
    assert_int_equal(fstat(f->key, &before), 0);
    keeper_spawn(k);
    if (f->old) {
        keeper_send_old_state(k, f->key, f->cert, new_file);
    } else {
        keeper_send_state(k, f->key, false);
    }
    if (c->ok) {
        if (f->old) {
            keeper_place_state(k);
        }
        end_well(k);
    } else {
        keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
        if (strstr(keeper_in.failed.error.what, c->expected) == NULL ||
            keeper_in.failed.error.advice[0] == 0) {
            fail_msg("%s: \"%s\" (%s)", c->what, keeper_in.failed.error.what,
                     keeper_in.failed.error.advice);
        }
        assert_int_equal(keeper_wait_end(k), 1);
    }
    /* never written over */
    assert_int_equal(fstat(f->key, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    if (f->old && c->ok) { /* and the new file has all of it */
        struct files new = {false, new_file, -1};

        try_files(&CASES[sizeof(CASES) / sizeof(CASES[0]) - 1], &new);
        return;
    }
    close(f->key);
    if (f->old) {
        close(f->cert);
        close(new_file);
    }
}

static void test_state_files(void **state)
{
    struct files f;

    (void)state;
    for (size_t i = 0; i < sizeof(OLD_CASES) / sizeof(OLD_CASES[0]); i++) {
        make_old(&f, "spiffe://example.org");
        try_files(&OLD_CASES[i], &f);
    }
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        make_state(&f);
        try_files(&CASES[i], &f);
    }
}

static void test_full_disk(void **state)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);

    (void)state;
    assert_int_not_equal(full, -1);
    keeper_spawn(k);
    keeper_send_state(k, full, true);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
    assert_int_equal(keeper_in.failed.error.sys_errno, ENOSPC);
    assert_int_equal(keeper_wait_end(k), 1);
    close(full);
}

/* It is written, but cannot be put in place: nothing is signed with it. */
static void test_not_placed(void **state)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    struct agent_msg_state_placed m;
    int file = keeper_temp_file();

    (void)state;
    keeper_spawn(k);
    keeper_send_state(k, file, true);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_STATE_WRITTEN);
    agent_ipc_init(&m, AGENT_MSG_STATE_PLACED, 0);
    err_set(&m.error, ERR_SYSTEM, "no rename today");
    keeper_send(k->control, &m, -1);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
    assert_string_equal(keeper_in.failed.error.what, "no rename today");
    assert_int_equal(keeper_wait_end(k), 1);
    close(file);
}

/* --- sealed ------------------------------------------------------------------------------------
 */
struct seal_case {
    const char *what;
    const char *passphrase, *old; /* NULL: none is sent */
    unsigned mode;
    bool flip;            /* one bit of the file */
    const char *expected; /* in the error; NULL: it opens */
};

static void try_seal(const struct seal_case *c, const uint8_t *bytes, size_t len)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int file = keeper_temp_file();

    write_bytes(file, bytes, len);
    if (c->flip) {
        uint8_t other = bytes[len / 2] ^ 0x10;

        assert_int_equal(pwrite(file, &other, 1, (off_t)len / 2), 1);
    }
    keeper_spawn(k);
    if (c->passphrase != NULL) {
        keeper_send_passphrase(k, c->passphrase, false, c->mode);
    }
    if (c->old != NULL) {
        keeper_send_passphrase(k, c->old, true, c->mode);
    }
    keeper_send_state(k, file, false);
    if (c->expected == NULL) {
        end_well(k);
    } else {
        keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
        if (strstr(keeper_in.failed.error.what, c->expected) == NULL ||
            keeper_in.failed.error.code != ERR_CONFIG || keeper_in.failed.error.advice[0] == 0) {
            fail_msg("%s: \"%s\" (%s)", c->what, keeper_in.failed.error.what,
                     keeper_in.failed.error.advice);
        }
        assert_int_equal(keeper_wait_end(k), 1);
    }
    close(file);
}

static size_t read_all(int fd, uint8_t *ret, size_t size)
{
    ssize_t n = pread(fd, ret, size, 0);

    assert_true(n > 0 && (size_t)n < size);
    return (size_t)n;
}

static void test_sealed(void **state)
{
    static const struct seal_case cases[] = {
        {"no passphrase", NULL, NULL, 0600, false, "names no passphrase"},
        {"another passphrase", "another", NULL, 0600, false, "passphrase is another one"},
        {"both wrong", "another", "and another", 0600, false, "passphrase is another one"},
        {"an empty one", "", NULL, 0600, false, "empty"},
        {"a line feed and nothing else", "\n", NULL, 0600, false, "0 bytes"},
        {"its file is open to others", "right", NULL, 0640, false, "mode 0640"},
        {"one bit is another", "right", NULL, 0600, true, "changed"},
        {"right", "right", NULL, 0600, false, NULL},
        {"right, with the line feed of an editor", "right\n", NULL, 0400, false, NULL},
        {"right, and an old one that is not needed", "right", "other", 0600, false, NULL},
    };
    static uint8_t bytes[65536], plain[65536];
    struct keeper_process *k = mem_must_new(struct keeper_process);
    struct files f;
    size_t len;

    (void)state;
    f.key = keeper_temp_file();
    keeper_spawn(k);
    keeper_send_passphrase(k, "right", false, 0600);
    keeper_send_state(k, f.key, true);
    keeper_place_state(k);
    end_well(k);
    len = read_all(f.key, bytes, sizeof(bytes));
    close(f.key);
    assert_null(memmem(bytes, len, "example.org", 11));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        try_seal(&cases[i], bytes, len);
    }
    /* the same state, plain, has it */
    make_state(&f);
    len = read_all(f.key, plain, sizeof(plain));
    assert_non_null(memmem(plain, len, "example.org", 11));
    close(f.key);
}

/* The next start writes it anew: sealed where it was plain, under the new passphrase where it was
 * another one. */
static void reseal(const uint8_t *bytes, size_t len, const char *passphrase, const char *old,
                   uint8_t *ret, size_t *ret_len)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int file = keeper_temp_file(), next = keeper_temp_file();

    write_bytes(file, bytes, len);
    keeper_spawn(k);
    keeper_send_passphrase(k, passphrase, false, 0600);
    if (old != NULL) {
        keeper_send_passphrase(k, old, true, 0600);
    }
    keeper_send_state(k, file, false);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_STATE_WANTED);
    keeper_send_state(k, next, true);
    keeper_place_state(k);
    end_well(k);
    *ret_len = read_all(next, ret, 65536);
    close(file);
    close(next);
}

static void test_reseal(void **state)
{
    static const struct seal_case first = {"first", "first", NULL, 0600, false, NULL},
                                  second = {"second", "second", NULL, 0600, false, NULL},
                                  gone = {"gone", "first", NULL, 0600, false, "another one"};
    static uint8_t bytes[65536], sealed[65536];
    struct files f;
    size_t len, sealed_len;

    (void)state;
    make_state(&f);
    len = read_all(f.key, bytes, sizeof(bytes));
    close(f.key);
    reseal(bytes, len, "first", NULL, sealed, &sealed_len);
    assert_null(memmem(sealed, sealed_len, "example.org", 11));
    try_seal(&first, sealed, sealed_len);
    memcpy(bytes, sealed, sealed_len);
    reseal(bytes, sealed_len, "second", "first", sealed, &sealed_len);
    try_seal(&second, sealed, sealed_len);
    try_seal(&gone, sealed, sealed_len);
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
        cmocka_unit_test(test_state_files), cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_not_placed),  cmocka_unit_test(test_sealed),
        cmocka_unit_test(test_reseal),      cmocka_unit_test(test_sandbox),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
