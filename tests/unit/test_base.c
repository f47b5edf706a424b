/* base: text, numbers, buffers, errors, files, logs, messages between processes. */
#include <postern/buf.h>
#include <postern/dir_walk.h>
#include <postern/ipc.h>
#include <postern/log.h>
#include <postern/mem.h>
#include <postern/mem_pages.h>
#include <postern/os.h>
#include <postern/proc.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_number_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t max;
        bool ok;
        uint64_t value;
    } cases[] = {
        {"", 10, false, 0},
        {"-1", 10, false, 0},
        {"+1", 10, false, 0},
        {" 1", 10, false, 0},
        {"1 ", 10, false, 0},
        {"0x1", 100, false, 0},
        {"11", 10, false, 0},
        {"7", 5, false, 0},
        {"18446744073709551616", UINT64_MAX, false, 0},
        {"99999999999999999999", UINT64_MAX, false, 0},
        {"0", 0, true, 0},
        {"10", 10, true, 10},
        {"007", 10, true, 7},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t v = 4711;
        bool ok = str_to_u64(str_of(cases[i].text), cases[i].max, &v);
        assert_int_equal(ok, cases[i].ok);
        assert_true(v == (ok ? cases[i].value : 4711));
    }
}

static void test_str_compare(void **state)
{
    (void)state;
    assert_true(str_eq_nocase(STR_LIT("Host"), STR_LIT("hOST")));
    assert_false(str_eq_nocase(STR_LIT("Host"), STR_LIT("Hos")));
    assert_false(str_eq_nocase(STR_LIT("["), STR_LIT("{")));
    assert_true(str_has_suffix(STR_LIT("abc"), STR_LIT("bc")));
    assert_false(str_has_suffix(STR_LIT("bc"), STR_LIT("abc")));
    assert_true(str_has_prefix(STR_NONE, STR_NONE));
}

/* What reaches a terminal of a text of others. */
static void test_str_control(void **state)
{
    static const struct {
        const char *text;
        size_t at, n;
    } cases[] = {
        {"\x1b[2J", 0, 1},    {"a\n", 1, 1},      {"\x7f", 0, 1},     {"\xc2\x80", 0, 2},
        {"a\xc2\x9b[", 1, 2}, {"\xc2\x9f", 0, 2}, {"\xc2\xa0", 0, 0}, {"\xc2", 0, 0},
        {"\xc3\x9b", 0, 0},   {"a", 0, 0},        {" ", 0, 0},        {"\xc2-", 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(str_control(str_of(cases[i].text), cases[i].at), cases[i].n);
    }
    assert_int_equal(str_control((struct str){"\xc2\x9b", 1}, 0), 0); /* not past its end */
}

static void test_buf_bounds(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(10);
    assert_null(buf_reserve(&b, 11));
    assert_false(buf_append(&b, "01234567890", 11));
    assert_int_equal(buf_len(&b), 0);
    assert_true(buf_append(&b, "0123456789", 10));
    assert_false(buf_append(&b, "x", 1));
    buf_consume(&b, 4);
    assert_true(buf_append(&b, "abcd", 4));
    assert_memory_equal(buf_head(&b), "456789abcd", 10);
    buf_reset(&b);
    assert_true(buf_printf(&b, "%s", "0123456789"));
    buf_reset(&b);
    assert_false(buf_printf(&b, "%s", "0123456789x"));
    assert_int_equal(buf_len(&b), 0);
    buf_reset(&b);
}

/* A queue through which a million bytes go in odd pieces gives the same bytes out. */
static void test_buf_queue(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(5000);
    uint8_t in = 0;
    uint8_t out = 0;
    size_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t n = (seed >> 33) % 97;
        uint8_t piece[97];
        for (size_t k = 0; k < n; k++) {
            piece[k] = (uint8_t)(in + k);
        }
        if (buf_append(&b, piece, n)) {
            in = (uint8_t)(in + n);
        }
        size_t take = (seed >> 17) % (buf_len(&b) + 1);
        for (size_t k = 0; k < take; k++) {
            assert_int_equal(buf_head(&b)[k], out);
            out++;
        }
        buf_consume(&b, take);
    }
    buf_reset_secret(&b);
}

static void test_err_text(void **state)
{
    (void)state;
    char text[1024];
    struct err err = ERR_INIT;
    assert_int_equal(err_set(NULL, ERR_USAGE, "x"), -1);
    err_set(&err, ERR_CONFIG, "unknown key '%s'", "metods");
    err_where(&err, "policy.yaml:7:9");
    err_expected(&err, "one of methods, paths");
    err_advise(&err, "did you mean 'methods'?");
    assert_string_equal(
        err_text(&err, text, sizeof(text)),
        "policy.yaml:7:9: unknown key 'metods', expected one of methods, paths; did "
        "you mean 'methods'?");
    errno = ENOENT;
    err_sys(&err, "cannot open %s", err.where);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.what, "policy.yaml:7:9: No such file"));
    err_prefix(&err, "reload");
    assert_true(strncmp(err.what, "reload: cannot open", 19) == 0);
    char tiny[8];
    assert_int_equal(strlen(err_text(&err, tiny, sizeof(tiny))), 7);
}

static void test_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/postern-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[256];
    char link_path[256];
    snprintf(path, sizeof(path), "%s/file", dir);
    snprintf(link_path, sizeof(link_path), "%s/link", dir);
    struct err err = ERR_INIT;
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(os_read_file(path, 100, false, &data, &len, &err), -1);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_int_equal(os_read_file(dir, 100, false, &data, &len, &err), -1);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes: must not wait for one */
    assert_int_equal(os_read_file(path, 100, false, &data, &len, &err), -1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(os_write_file_atomic(path, "hello", 5, 0600, &err), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(os_read_file(path, 4, false, &data, &len, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(os_read_file(path, 5, true, &data, &len, &err), 0);
    assert_int_equal(len, 5);
    assert_string_equal(data, "hello");
    free(data);
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(os_read_file(link_path, 5, true, &data, &len, &err), -1);
    assert_int_equal(unlink(link_path), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

struct walked {
    int dir_fd;
    unsigned n, stop_at;
};

static int on_name(void *arg, const char *name)
{
    struct walked *w = arg;
    assert_true(name[0] >= 'a' && name[0] <= 'c' && name[1] == '\0');
    assert_int_equal(unlinkat(w->dir_fd, name, 0), 0);
    return ++w->n == w->stop_at ? 7 : 0;
}

static void test_dir_walk(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_base_XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct walked w = {.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .stop_at = 2};
    assert_true(w.dir_fd >= 0);
    for (char name[] = "a"; name[0] <= 'c'; name[0]++) {
        int fd = openat(w.dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        if (name[0] == 'a') { /* no directory */
            assert_int_equal(dir_walk(fd, on_name, &w), -1);
            assert_int_equal(errno, ENOTDIR);
        }
        close(fd);
    }
    assert_int_equal(w.n, 0);
    assert_int_equal(dir_walk(w.dir_fd, on_name, &w), 7);
    assert_int_equal(w.n, 2);
    assert_int_equal(dir_walk(w.dir_fd, on_name, &w), 0);
    assert_int_equal(w.n, 3);
    assert_int_equal(rmdir(dir), 0);
    close(w.dir_fd);
}

/* Pages that nobody has written cost nothing, and cleared ones nothing again. */
static size_t resident(uint8_t *p, size_t pages, size_t page)
{
    unsigned char in[16];
    size_t n = 0;
    assert_true(pages <= sizeof(in));
    assert_int_equal(mincore(p, pages * page, in), 0);
    for (size_t i = 0; i < pages; i++) {
        n += in[i] & 1U;
    }
    return n;
}

static void test_mem_pages(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = 9 * page + 1;
    assert_null(mem_pages_free(NULL, size));
    uint8_t *p = mem_must_pages(size);
    assert_int_equal(resident(p, 10, page), 0);
    p[size - 1] = 1;
    p[0] = 1;
    assert_int_equal(resident(p, 10, page), 2);
    mem_pages_clear(p, size);
    assert_int_equal(resident(p, 10, page), 0);
    assert_int_equal(p[0] + p[size - 1], 0);
    mem_pages_free(p, size);
}

/* Far below, where a call that is over has written. */
static __attribute__((noinline)) void deep(uintptr_t *ret)
{
    volatile uint8_t a[100 * 1024];
    for (size_t i = 0; i < sizeof(a); i += 1024) {
        a[i] = 1;
    }
    *ret = (uintptr_t)a;
}

static void test_mem_stack_trim(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t left = 0;
    volatile uint8_t own[40 * 1024]; /* a caller's frame of many pages stays as it is */
    for (size_t i = 0; i < sizeof(own); i += 64) {
        own[i] = 7;
    }
    deep(&left);
    uint8_t *at = (uint8_t *)((left / page + 1) * page);
    assert_int_equal(resident(at, 10, page), 10);
    mem_stack_trim();
    assert_int_equal(resident(at, 10, page), 0);
    for (size_t i = 0; i < sizeof(own); i += 64) {
        assert_int_equal(own[i], 7);
    }
}

static void test_secret_memory(void **state)
{
    (void)state;
    assert_null(mem_secret_free(NULL));
    uint8_t *p = mem_secret_alloc(100000);
    assert_non_null(p);
    for (size_t i = 0; i < 100000; i++) {
        assert_int_equal(p[i], 0);
        p[i] = 0xa5;
    }
    assert_int_equal(mem_compare_secret(p, p + 1, 99999), 0);
    p[7] = 1;
    assert_int_not_equal(mem_compare_secret(p, p + 1, 50), 0);
    mem_secret_free(p);
}

static void test_escape(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        const char *out;
    } cases[] = {
        {"plain", "plain"},
        {"a\"b\\c", "a\\\"b\\\\c"},
        {"\n\x01\x7f", "\\u000a\\u0001\\u007f"},
        {"\xc3\xa9", "\xc3\xa9"},
        {"\xc0\xaf", "\\u00c0\\u00af"},            /* overlong */
        {"\xed\xa0\x80", "\\u00ed\\u00a0\\u0080"}, /* surrogate */
        {"\xc2\x9b", "\\u00c2\\u009b"},            /* a control character */
        {"\xc2\xa0", "\xc2\xa0"},
        {"\xe2\x82", "\\u00e2\\u0082"}, /* cut */
        {"\xff", "\\u00ff"},
    };
    char out[64];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = log_json_escape(str_of(cases[i].in), out, sizeof(out));
        assert_int_equal(n, strlen(cases[i].out));
        assert_memory_equal(out, cases[i].out, n);
    }
    /* Cut before an escape, never inside one. */
    assert_int_equal(log_json_escape(STR_LIT("ab\n"), out, 7), 2);
}

static void test_log_lines(void **state)
{
    (void)state;
    int p[2];
    assert_int_equal(pipe(p), 0);
    struct log *log = log_new_fd(p[1], LOG_INFO, "test");
    struct log_line l;
    log_begin(&l, log, LOG_DEBUG, "unseen");
    log_str(&l, "k", "v");
    log_end(&l);
    log_begin(&l, log, LOG_WARN, "seen");
    log_str(&l, "peer", "a\"b");
    log_int(&l, "n", -5);
    log_bool(&l, "ok", true);
    log_str(&l, "absent", NULL);
    log_end(&l);
    char text[LOG_LINE_MAX * 2];
    ssize_t n = read(p[0], text, sizeof(text));
    assert_true(n > 0);
    text[n] = '\0';
    assert_null(strstr(text, "unseen"));
    assert_non_null(strstr(text, "\"level\":\"warn\",\"role\":\"test\",\"event\":\"seen\",\"peer\":"
                                 "\"a\\\"b\",\"n\":-5,\"ok\":true}\n"));
    /* Fields that do not fit are left out whole, and the line says so. */
    char big[2000];
    memset(big, '\n', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    log_begin(&l, log, LOG_ERROR, "big");
    log_str(&l, "a", big);
    log_str(&l, "b", big);
    log_int(&l, "c", 1);
    log_end(&l);
    n = read(p[0], text, sizeof(text));
    assert_true(n > 0 && n <= LOG_LINE_MAX);
    text[n] = '\0';
    assert_non_null(strstr(text, "\"c\":1,\"truncated\":true}\n"));
    assert_null(strstr(text, "\"b\":"));
    log_free(log);
    close(p[0]);
    close(p[1]);
}

static void test_log_ring_counts_what_it_loses(void **state)
{
    (void)state;
    int wake = eventfd(0, EFD_NONBLOCK);
    struct log *log = log_new_ring(8192, wake, LOG_INFO, "w");
    enum { LINES = 1000 };
    for (int i = 0; i < LINES; i++) {
        log_msg(log, LOG_INFO, "line", "%d", i);
    }
    int p[2];
    assert_int_equal(pipe(p), 0);
    uint64_t lost = log_drain(log, p[1]);
    char text[16384];
    ssize_t n = read(p[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    uint64_t seen = 0;
    for (ssize_t i = 0; i < n; i++) {
        seen += text[i] == '\n';
    }
    assert_true(lost > 0);
    assert_true(seen + lost == LINES);
    assert_true(log_drain(log, p[1]) == 0);
    uint64_t count = 0;
    assert_int_equal(read(wake, &count, sizeof(count)), sizeof(count));
    log_free(log);
    close(wake);
    close(p[0]);
    close(p[1]);
}

static void test_ipc(void **state)
{
    (void)state;
    int s[2];
    struct err err = ERR_INIT;
    assert_int_equal(ipc_pair(s, &err), 0);
    char msg[16];
    size_t len;
    int passed;
    assert_int_equal(ipc_recv(s[1], msg, sizeof(msg), &len, &passed), IPC_AGAIN);
    assert_int_equal(ipc_send(s[0], "0123456789abcdefX", 17, -1), IPC_OK);
    assert_int_equal(ipc_recv(s[1], msg, sizeof(msg), &len, &passed), IPC_BAD);
    assert_int_equal(ipc_send(s[0], "with fd", 7, 0), IPC_OK);
    assert_int_equal(ipc_recv(s[1], msg, sizeof(msg), &len, &passed), IPC_OK);
    assert_int_equal(len, 7);
    assert_true(passed > 2);
    assert_int_equal(fcntl(passed, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(passed);
    /* Two descriptors in one message: refused, and none is left open. */
    int two[2] = {0, 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(two))];
    } control = {0};
    struct iovec iov = {.iov_base = msg, .iov_len = 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(two));
    memcpy(CMSG_DATA(c), two, sizeof(two));
    assert_int_equal(sendmsg(s[0], &m, 0), 1);
    int probe = dup(0);
    close(probe);
    assert_int_equal(ipc_recv(s[1], msg, sizeof(msg), &len, &passed), IPC_BAD);
    int again = dup(0);
    assert_int_equal(probe, again);
    close(again);
    close(s[0]);
    assert_int_equal(ipc_recv(s[1], msg, sizeof(msg), &len, &passed), IPC_CLOSED);
    assert_int_equal(ipc_send(s[1], "x", 1, -1), IPC_CLOSED);
    close(s[1]);
}

static int wait_status(pid_t pid)
{
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_spawn(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    pid_t pid;
    int pidfd;
    const char *const nothing[] = {"/nonexistent", NULL};
    struct proc_spec spec = {.path = "/nonexistent", .argv = nothing};
    assert_int_equal(proc_spawn(&spec, &pid, &pidfd, &err), -1);
    assert_int_equal(err.sys_errno, ENOENT);
    /* Descriptor 3 is the pipe, the environment is what was listed, and there is no descriptor 4.
     */
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    int leak = open("/dev/null", O_RDONLY);
    assert_true(leak > 2);
    const char *const argv[] = {"sh", "-c", "env >&3; [ ! -e /proc/self/fd/4 ] && [ \"$A\" = b ]",
                                NULL};
    const char *const env[] = {"A=b", NULL};
    spec =
        (struct proc_spec){.path = "/bin/sh", .argv = argv, .env = env, .fds = {p[1]}, .n_fds = 1};
    assert_int_equal(proc_spawn(&spec, &pid, &pidfd, &err), 0);
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    assert_int_equal(poll(&ended, 1, 20000), 1);
    assert_int_equal(wait_status(pid), 0);
    char text[512] = "";
    assert_true(read(p[0], text, sizeof(text) - 1) > 0);
    assert_non_null(strstr(text, "A=b"));
    assert_null(strstr(text, "HOME="));
    close(pidfd);
    close(p[0]);
    close(p[1]);
    close(leak);
}

static void test_machine(void **state)
{
    (void)state;
    assert_true(os_cpu_count() >= 1);
    uint64_t a = os_now_ms();
    assert_true(os_now_ms() >= a);
    char t[32];
    os_time_text(0, t, sizeof(t));
    assert_string_equal(t, "1970-01-01T00:00:00Z");
    os_wall_text(t, sizeof(t));
    assert_int_equal(strlen(t), 24);
    for (int i = 0; i < 1000; i++) {
        assert_true(os_random_below(7) < 7);
    }
    assert_true(os_random_below(0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_number_text),
        cmocka_unit_test(test_str_compare),
        cmocka_unit_test(test_str_control),
        cmocka_unit_test(test_buf_bounds),
        cmocka_unit_test(test_buf_queue),
        cmocka_unit_test(test_err_text),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_dir_walk),
        cmocka_unit_test(test_secret_memory),
        cmocka_unit_test(test_mem_pages),
        cmocka_unit_test(test_mem_stack_trim),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_log_ring_counts_what_it_loses),
        cmocka_unit_test(test_ipc),
        cmocka_unit_test(test_spawn),
        cmocka_unit_test(test_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
