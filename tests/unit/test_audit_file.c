/* The audit log's file: what may stand in its place, another one after it, the disk that is full,
 * a process that takes over. docs/audit.md has the cases. */
#include <postern/audit.h>

#include <fcntl.h>
#include <poll.h>
#include <postern/audit_verify.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char dir[64], path[80];
};

static int set_up(void **state)
{
    struct place *p = mem_must_new(struct place);
    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/postern-audit-XXXXXX");
    if (mkdtemp(p->dir) == NULL) {
        return -1;
    }
    (void)snprintf(p->path, sizeof(p->path), "%s/log", p->dir);
    *state = p;
    return 0;
}

static const char *numbered(const struct place *p, unsigned n)
{
    static char name[8][120];
    static unsigned turn;
    char *at = name[turn++ % 8];
    (void)snprintf(at, sizeof(name[0]), "%s.%08u", p->path, n);
    return at;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    (void)unlink(p->path);
    for (unsigned i = 1; i < 60; i++) {
        (void)unlink(numbered(p, i));
    }
    int r = rmdir(p->dir);
    free(p);
    return r;
}

static int try_open(const struct place *p, uint64_t max_size, uint32_t keep, struct audit **ret,
                    struct err *err)
{
    const struct audit_options o = {.to = AUDIT_TO_FILE,
                                    .path = p->path,
                                    .max_size = max_size,
                                    .keep = keep,
                                    .chain = true,
                                    .name = "test",
                                    .role = "proxy",
                                    .log_fd = -1};
    return audit_new(&o, 1, ret, err);
}

static struct audit *opened(const struct place *p, uint64_t max_size, uint32_t keep)
{
    struct audit *a = NULL;
    struct err err = ERR_INIT;
    int r = try_open(p, max_size, keep, &a, &err);
    assert_string_equal(err.what, "");
    assert_int_equal(r, 0);
    assert_int_equal(audit_start(a, &err), 0);
    return a;
}

static void put(struct audit *a, unsigned n)
{
    const struct audit_decision d = {.kind = AUDIT_REQUEST,
                                     .decision = STR_LIT("d"),
                                     .listener = STR_LIT("in"),
                                     .path = STR_LIT("/a/path/of/some/length"),
                                     .reason = STR_LIT("no_rule")};
    struct audit_figures st, before;
    audit_get_figures(a, &before);
    for (unsigned i = 0; i < n; i++) {
        audit_put(audit_ring(a, 0), &d);
    }
    do {
        audit_get_figures(a, &st);
        (void)poll(NULL, 0, 1);
    } while (st.decisions + st.lost < before.decisions + before.lost + n);
}

static void ended(struct audit *a)
{
    audit_stop(a);
    audit_free(a);
}

/* NULL: it fits. */
static const char *verify_file(struct audit_verify *v, const char *path)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    const char *wrong = NULL;
    ssize_t n;
    assert_non_null(f);
    audit_verify_file(v);
    while (wrong == NULL && (n = getline(&line, &size, f)) > 0) {
        bool whole = line[n - 1] == '\n';
        wrong = audit_verify_line(v, (struct str){line, (size_t)n - (whole ? 1 : 0)}, whole);
    }
    free(line);
    fclose(f);
    return wrong;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static void test_what_is_refused(void **state)
{
    const struct place *p = *state;
    struct audit *a = NULL;
    struct err err = ERR_INIT;
    char other[100];
    (void)snprintf(other, sizeof(other), "%s/other", p->dir);
    assert_int_equal(symlink(other, p->path), 0); /* a link */
    assert_int_equal(try_open(p, 1 << 20, 3, &a, &err), -1);
    assert_false(is_there(other));
    assert_int_equal(unlink(p->path), 0);
    assert_int_equal(mkfifo(p->path, 0600), 0); /* what nobody reads: opening it would hang */
    assert_int_equal(try_open(p, 1 << 20, 3, &a, &err), -1);
    assert_int_equal(unlink(p->path), 0);
    close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* a second name */
    assert_int_equal(link(other, p->path), 0);
    assert_int_equal(try_open(p, 1 << 20, 3, &a, &err), -1);
    assert_non_null(strstr(err.what, "not its file"));
    assert_int_equal(unlink(p->path), 0);
    if (geteuid() == 0) { /* somebody else's */
        assert_int_equal(chown(other, 12345, 12345), 0);
        assert_int_equal(rename(other, p->path), 0);
        assert_int_equal(try_open(p, 1 << 20, 3, &a, &err), -1);
        assert_int_equal(unlink(p->path), 0);
    }
    (void)unlink(other);
    assert_int_equal(chmod(p->dir, 0770), 0); /* a directory that others may write to */
    assert_int_equal(try_open(p, 1 << 20, 3, &a, &err), -1);
    assert_non_null(strstr(err.what, "others may write"));
    assert_int_equal(chmod(p->dir, 0700), 0);
    assert_false(is_there(p->path));
}

static void test_goes_on_and_rotates(void **state)
{
    const struct place *p = *state;
    struct audit_verify v = AUDIT_VERIFY_INIT;
    struct audit_figures st;
    struct stat info;
    struct audit *a = opened(p, 8192, 100);
    put(a, 10);
    assert_int_equal(stat(p->path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0640);
    ended(a);
    a = opened(p, 8192, 100); /* another process, the same file */
    for (int i = 0; i < 15; i++) {
        put(a, 15);
    }
    audit_get_figures(a, &st);
    ended(a);
    assert_true(st.rotations > 2);
    unsigned n = 1;
    for (; is_there(numbered(p, n)); n++) {
        assert_null(verify_file(&v, numbered(p, n)));
    }
    assert_int_equal(n - 1, st.rotations);
    assert_null(verify_file(&v, p->path));
    assert_null(audit_verify_end(&v));
    assert_int_equal(v.lost, st.lost);
    assert_int_equal(v.begins, 2 + st.rotations);
    assert_int_equal(v.decisions, 10 + st.decisions);
    assert_true(v.seq == v.lines && v.first_seq == 1);
    audit_verify_deinit(&v);
}

static void test_keeps_so_many(void **state)
{
    const struct place *p = *state;
    struct audit_figures st;
    struct audit *a = opened(p, 4096, 3);
    for (unsigned i = 0; i < 15; i++) {
        put(a, 10);
    }
    audit_get_figures(a, &st);
    ended(a);
    unsigned last = (unsigned)st.rotations;
    assert_true(last > 4);
    assert_true(is_there(numbered(p, last)) && is_there(numbered(p, last - 1)));
    assert_false(is_there(numbered(p, last - 2)));
}

static void test_rotation_overwrites_nothing(void **state)
{
    const struct place *p = *state;
    struct audit *a = opened(p, 4096, 50);
    int fd = open(numbered(p, 1), O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd != -1 && write(fd, "mine", 4) == 4);
    close(fd);
    struct audit_figures st;
    do {
        put(a, 1);
        audit_get_figures(a, &st);
    } while (st.rotations == 0);
    ended(a);
    struct stat info;
    assert_int_equal(stat(numbered(p, 1), &info), 0);
    assert_int_equal(info.st_size, 4);
    assert_true(is_there(numbered(p, 2)));
}

static void test_a_torn_line_is_accounted_for(void **state)
{
    const struct place *p = *state;
    struct audit_verify v = AUDIT_VERIFY_INIT;
    struct audit *a = opened(p, 1 << 20, 3);
    put(a, 5);
    ended(a);
    int fd = open(p->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, "{\"seq\":7,\"pre", 13), 13); /* it was killed here */
    close(fd);
    assert_null(verify_file(&v, p->path));
    assert_non_null(audit_verify_end(&v));
    audit_verify_deinit(&v);
    v = (struct audit_verify)AUDIT_VERIFY_INIT;
    a = opened(p, 1 << 20, 3);
    put(a, 5);
    ended(a);
    assert_null(verify_file(&v, p->path));
    assert_null(audit_verify_end(&v));
    assert_int_equal(v.torn, 1);
    assert_int_equal(v.decisions, 10);
    audit_verify_deinit(&v);
    /* What nobody can read is put aside, and is a fault to who verifies. */
    fd = open(p->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, "garbage\n", 8), 8);
    close(fd);
    a = opened(p, 1 << 20, 3);
    put(a, 1);
    ended(a);
    assert_true(is_there(numbered(p, 1)));
    v = (struct audit_verify)AUDIT_VERIFY_INIT;
    assert_null(verify_file(&v, numbered(p, 1)));
    assert_non_null(verify_file(&v, p->path));
    audit_verify_deinit(&v);
}

static void test_take_over(void **state)
{
    const struct place *p = *state;
    struct audit_verify v = AUDIT_VERIFY_INIT;
    struct audit *before = opened(p, 4096, 10);
    put(before, 3);
    struct audit *next = opened(p, 1 << 20, 10); /* while the other one has it */
    assert_true(is_there(numbered(p, 1)));
    put(next, 4);
    put(before, 40); /* it goes on, and rotates nothing any more */
    ended(before);
    put(next, 6);
    ended(next);
    assert_false(is_there(numbered(p, 2)));
    assert_null(verify_file(&v, numbered(p, 1)));
    assert_null(verify_file(&v, p->path));
    assert_null(audit_verify_end(&v));
    assert_true(v.fork);
    assert_int_equal(v.begins, 2);
    audit_verify_deinit(&v);
}

/* A limit on the size of files does what a full disk does: a write takes a part, or nothing. */
static void test_disk_is_full(void **state)
{
    const struct place *p = *state;
    struct audit_verify v = AUDIT_VERIFY_INIT;
    struct audit_figures st;
    struct rlimit before, low;
    (void)signal(SIGXFSZ, SIG_IGN);
    struct audit *a = opened(p, 1 << 30, 3);
    put(a, 5);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = (struct rlimit){.rlim_cur = 5000, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    const struct audit_decision d = {.kind = AUDIT_ENDED, .reason = STR_LIT("policy_changed")};
    for (unsigned i = 0; i < 5000; i++) {
        audit_put(audit_ring(a, 0), &d); /* returns, always */
    }
    do {
        audit_get_figures(a, &st);
        (void)poll(NULL, 0, 1);
    } while (st.failures == 0);
    assert_false(st.writing);
    assert_string_not_equal(st.error, "");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    do {
        audit_get_figures(a, &st);
        (void)poll(NULL, 0, 1);
    } while (st.decisions + st.lost < 5005);
    ended(a);
    assert_int_equal(st.failures, 1); /* told once */
    assert_null(verify_file(&v, p->path));
    assert_null(audit_verify_end(&v));
    assert_int_equal(v.decisions + v.lost, 5005);
    assert_true(v.lost > 0);
    audit_verify_deinit(&v);
}

int main(void)
{
#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_PLACE(test_what_is_refused),
        WITH_PLACE(test_goes_on_and_rotates),
        WITH_PLACE(test_keeps_so_many),
        WITH_PLACE(test_rotation_overwrites_nothing),
        WITH_PLACE(test_a_torn_line_is_accounted_for),
        WITH_PLACE(test_take_over),
        WITH_PLACE(test_disk_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
