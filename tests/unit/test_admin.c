/*
 * admin: the parsers, then a server on a thread of its own, asked by well-behaved and by bad
 * clients.
 */
#include <postern/admin.h>
#include <postern/os.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* --- parsers ---------------------------------------------------------------------------------- */
static void test_parse_line(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        enum admin_parse want;
        const char *name;
    } cases[] = {
        {"", ADMIN_MORE, NULL},
        {"GET status", ADMIN_MORE, NULL},
        {"\n", ADMIN_BAD, NULL},
        {"GET\n", ADMIN_BAD, NULL},
        {"GET \n", ADMIN_BAD, NULL},
        {"get status\n", ADMIN_BAD, NULL},
        {" GET status\n", ADMIN_BAD, NULL},
        {"GET  status\n", ADMIN_BAD, NULL},
        {"GET status \n", ADMIN_BAD, NULL},
        {"GET status\r\n", ADMIN_BAD, NULL},
        {"GET a\"b\n", ADMIN_BAD, NULL},
        {"GET \xc3\xa9\n", ADMIN_BAD, NULL},
        {"SET status\n", ADMIN_BAD, NULL},
        {"GET status\n", ADMIN_OK, "status"},
        {"GET a\nGET b\n", ADMIN_OK, "a"},
        {"GET log-level/debug\n", ADMIN_OK, "log-level/debug"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str name = STR_LIT("untouched");
        assert_int_equal(admin_parse_line(cases[i].in, strlen(cases[i].in), &name), cases[i].want);
        assert_true(str_eq(name, str_of(cases[i].name != NULL ? cases[i].name : "untouched")));
    }
    struct str name;
    char big[5000];
    memset(big, 'a', sizeof(big));
    assert_int_equal(admin_parse_line(big, 4095, &name), ADMIN_MORE);
    assert_int_equal(admin_parse_line(big, 4096, &name), ADMIN_BAD);
    memcpy(big, "GET ", 4);
    big[4 + 129] = '\n';
    assert_int_equal(admin_parse_line(big, sizeof(big), &name), ADMIN_BAD);
    big[4 + 128] = '\n';
    assert_int_equal(admin_parse_line(big, sizeof(big), &name), ADMIN_OK);
    assert_int_equal(admin_parse_line("GET \0\n", 6, &name), ADMIN_BAD);
    assert_int_equal(admin_parse_line(NULL, 0, &name), ADMIN_MORE);
}

static void test_parse_http(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        enum admin_parse want;
        int status;
        const char *name;
    } cases[] = {
        {"", ADMIN_MORE, 0, NULL},
        {"GET /metrics HTTP/1.1\r\nHost: a\r\n", ADMIN_MORE, 0, NULL},
        {"GET /metrics HTTP/1.1\n\n", ADMIN_MORE, 0, NULL},
        {"\r\n\r\n", ADMIN_BAD, 400, NULL},
        {"GET\r\n\r\n", ADMIN_BAD, 400, NULL},
        {"GET /metrics\r\n\r\n", ADMIN_BAD, 400, NULL},
        {"GET /metrics HTTP/2.0\r\n\r\n", ADMIN_BAD, 400, NULL},
        {"GET /metrics HTTP/1.10\r\n\r\n", ADMIN_BAD, 400, NULL},
        {"GET  HTTP/1.1\r\n\r\n", ADMIN_BAD, 404, NULL},
        {"GET HTTP/1.1\r\n\r\n", ADMIN_BAD, 400, NULL},
        {"GET / HTTP/1.1\r\n\r\n", ADMIN_BAD, 404, NULL},
        {"GET metrics HTTP/1.1\r\n\r\n", ADMIN_BAD, 404, NULL},
        {"GET /metrics x HTTP/1.1\r\n\r\n", ADMIN_BAD, 404, NULL},
        {"GET /metr%69cs HTTP/1.1\r\n\r\n", ADMIN_BAD, 404, NULL},
        {"GET http://a/metrics HTTP/1.1\r\n\r\n", ADMIN_BAD, 404, NULL},
        {"POST /metrics HTTP/1.1\r\n\r\n", ADMIN_BAD, 405, NULL},
        {"get /metrics HTTP/1.1\r\n\r\n", ADMIN_BAD, 405, NULL},
        {"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", ADMIN_OK, 200, "metrics"},
        {"GET /ready HTTP/1.0\r\n\r\nmore", ADMIN_OK, 200, "ready"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str name = STR_NONE;
        int status = 0;
        assert_int_equal(admin_parse_http(cases[i].in, strlen(cases[i].in), &name, &status),
                         cases[i].want);
        assert_int_equal(status, cases[i].status);
        assert_true(str_eq(name, str_of(cases[i].name)));
    }
    char big[4096];
    memset(big, 'a', sizeof(big));
    struct str name;
    int status = 0;
    assert_int_equal(admin_parse_http(big, 4095, &name, &status), ADMIN_MORE);
    assert_int_equal(admin_parse_http(big, 4096, &name, &status), ADMIN_BAD);
    assert_int_equal(status, 431);
}

/* --- a server to ask -------------------------------------------------------------------------- */
struct server {
    char dir[64];
    char path[100];
    struct loop *loop;
    struct admin *admin;
    pthread_t thread;
    struct sockaddr_in http;
    _Atomic bool ready;
};

static bool write_status(void *arg, struct buf *out)
{
    (void)arg;
    return buf_printf(out, "{\"name\":\"test\"}\n");
}
static bool write_metrics(void *arg, struct buf *out)
{
    (void)arg;
    return buf_printf(out, "# EOF\n");
}
static bool write_ready(void *arg, struct buf *out)
{
    struct server *s = arg;
    return atomic_load(&s->ready) && buf_printf(out, "ready\n");
}
static bool write_big(void *arg, struct buf *out)
{
    (void)arg;
    for (size_t i = 0; i < 20000; i++) {
        if (!buf_printf(out, "%0100zu\n", i)) {
            return false;
        }
    }
    return true;
}
static bool write_too_big(void *arg, struct buf *out)
{
    while (write_big(arg, out)) {
    }
    return false;
}

static bool write_health(void *arg, struct buf *out)
{
    const struct server *s = arg;
    return buf_printf(out, "{\"ready\": %s}\n", atomic_load(&s->ready) ? "true" : "false") &&
           atomic_load(&s->ready);
}

static const struct admin_document documents[] = {
    {"status", write_status}, {"metrics", write_metrics}, {"ready", write_ready},
    {"big", write_big},       {"too-big", write_too_big}, {"readyz", write_health, .health = true},
};
enum { N_DOCUMENTS = sizeof(documents) / sizeof(documents[0]) };

static void make_dir(struct server *s)
{
    snprintf(s->dir, sizeof(s->dir), "/tmp/postern-test-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->path, sizeof(s->path), "%s/admin.sock", s->dir);
}

static void *run_loop(void *arg)
{
    loop_run(((struct server *)arg)->loop);
    return NULL;
}

/* uid: who may ask. The HTTP listener is opened apart and handed over, as an agent does it. */
static void start(struct server *s, uid_t uid)
{
    struct err err = ERR_INIT;
    make_dir(s);
    s->loop = loop_new(&err);
    assert_non_null(s->loop);
    const struct admin_options o = {.socket_path = s->path,
                                    .allow_uids = &uid,
                                    .n_allow_uids = 1,
                                    .documents = documents,
                                    .n_documents = N_DOCUMENTS,
                                    .arg = s};
    s->admin = admin_new(s->loop, &o, &err);
    assert_non_null(s->admin);
    s->http =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = -1;
    socklen_t len = sizeof(s->http);
    assert_int_equal(admin_open_http((struct sockaddr *)&s->http, len, &fd, &err), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&s->http, &len), 0);
    int second = dup(fd);
    assert_int_equal(admin_add_listener(s->admin, fd, true, NULL, 0, &err), 0);
    assert_int_equal(admin_add_listener(s->admin, second, true, NULL, 0, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(fcntl(second, F_GETFD), -1); /* taken, also on failure */
    assert_int_equal(pthread_create(&s->thread, NULL, run_loop, s), 0);
}

static void stop(struct server *s)
{
    loop_stop(s->loop);
    pthread_join(s->thread, NULL);
    admin_free(s->admin);
    loop_free(s->loop);
    assert_int_equal(access(s->path, F_OK), -1); /* removed */
    assert_int_equal(rmdir(s->dir), 0);
}

static int dial_http(const struct server *s)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd != -1);
    assert_int_equal(connect(fd, (const struct sockaddr *)&s->http, sizeof(s->http)), 0);
    return fd;
}

static int dial_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd != -1);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

/* Everything until the end, and the descriptor stays open. */
static void read_to_end(int fd, char *text, size_t size)
{
    size_t n = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 20000), 1);
        ssize_t got = recv(fd, text + n, size - 1 - n, 0);
        assert_true(got >= 0);
        if (got == 0) {
            break;
        }
        n += (size_t)got;
    }
    text[n] = '\0';
}

static void read_all(int fd, char *text, size_t size)
{
    read_to_end(fd, text, size);
    close(fd);
}

static void ask_http(const struct server *s, const char *request, size_t size, char *text)
{
    int fd = dial_http(s);
    assert_int_equal(send(fd, request, size, MSG_NOSIGNAL), size);
    read_all(fd, text, 1024);
}

static void test_http(void **state)
{
    (void)state;
    static struct server s;
    start(&s, geteuid());
    char text[1024];
    static const struct {
        const char *request;
        const char *first;
    } bad[] = {
        {"GET /status HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
        {"GET /big HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
        {"GET /nothing HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
        {"rubbish\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
        {"GET /ready HTTP/1.1\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ask_http(&s, bad[i].request, strlen(bad[i].request), text);
        assert_int_equal(strncmp(text, bad[i].first, strlen(bad[i].first)), 0);
    }
    /* A body behind the head must not cost the client its answer. */
    char post[20000];
    memset(post, 'x', sizeof(post));
    static const char head[] = "POST /metrics HTTP/1.1\r\nContent-Length: 19952\r\n\r\n";
    memcpy(post, head, sizeof(head) - 1);
    int posting = dial_http(&s);
    assert_int_equal(send(posting, post, sizeof(post), MSG_NOSIGNAL), sizeof(post));
    read_to_end(posting, text, sizeof(text));
    assert_int_equal(send(posting, "x", 1, MSG_NOSIGNAL),
                     1); /* not reset: the server still reads */
    close(posting);
    assert_int_equal(strncmp(text, "HTTP/1.1 405 ", 13), 0);
    assert_non_null(strstr(text, "\r\nAllow: GET\r\n"));
    memset(post, 'x', sizeof(post));
    ask_http(&s, post, 4096, text);
    assert_int_equal(strncmp(text, "HTTP/1.1 431 ", 13), 0);

    /* A health document says why not. */
    ask_http(&s, "GET /readyz HTTP/1.1\r\n\r\n", 24, text);
    assert_int_equal(strncmp(text, "HTTP/1.1 503 Service Unavailable\r\n", 34), 0);
    assert_non_null(strstr(text, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n{\"ready\": false}\n"));

    atomic_store(&s.ready, true);
    ask_http(&s, "GET /readyz HTTP/1.1\r\n\r\n", 24, text);
    assert_int_equal(strncmp(text, "HTTP/1.1 200 OK\r\n", 17), 0);
    assert_non_null(strstr(text, "\r\n\r\n{\"ready\": true}\n"));
    ask_http(&s, "GET /ready HTTP/1.0\r\n\r\n", 23, text);
    assert_int_equal(strncmp(text, "HTTP/1.1 200 OK\r\n", 17), 0);
    assert_non_null(strstr(text, "\r\n\r\nready\n"));
    /* A byte at a time. */
    static const char whole[] = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = dial_http(&s);
    for (size_t i = 0; i < sizeof(whole) - 1; i++) {
        assert_int_equal(send(fd, whole + i, 1, MSG_NOSIGNAL), 1);
    }
    read_all(fd, text, sizeof(text));
    assert_non_null(strstr(text, "openmetrics-text; version=1.0.0"));
    assert_non_null(strstr(text, "\r\nContent-Length: 6\r\n"));
    assert_non_null(strstr(text, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n# EOF\n"));
    stop(&s);
}

static void test_socket(void **state)
{
    (void)state;
    static struct server s;
    start(&s, geteuid());
    struct err err = ERR_INIT;
    struct buf out = BUF_INIT(4 << 20);
    assert_int_equal(admin_ask(s.path, "nothing", 20000, &out, &err), -1);
    assert_non_null(strstr(err.what, "no such document"));
    assert_int_equal(admin_ask(s.path, "no way", 20000, &out, &err), -1);
    assert_non_null(strstr(err.what, "expected GET NAME"));
    assert_int_equal(admin_ask(s.path, "ready", 20000, &out, &err), -1);
    assert_non_null(strstr(err.what, "not available now"));
    assert_int_equal(admin_ask(s.path, "too-big", 20000, &out, &err), -1);
    assert_int_equal(admin_ask("/nonexistent/socket", "status", 20000, &out, &err), -1);
    assert_int_equal(err.sys_errno, ENOENT);
    struct buf tiny = BUF_INIT(5);
    assert_int_equal(admin_ask(s.path, "status", 20000, &tiny, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(buf_len(&out) + buf_len(&tiny), 0);

    assert_int_equal(admin_ask(s.path, "status", 20000, &out, &err), 0);
    assert_true(str_eq(buf_str(&out), STR_LIT("{\"name\":\"test\"}\n")));
    buf_reset(&out);
    assert_int_equal(admin_ask(s.path, "big", 20000, &out, &err), 0);
    assert_int_equal(buf_len(&out), 20000 * 101);
    buf_reset(&out);
    buf_reset(&tiny);
    stop(&s);
}

/* Whoever is not in the list is told so, whether it asks early, late or not at all. */
static void test_strangers(void **state)
{
    (void)state;
    static struct server s;
    start(&s, geteuid() + 1);
    struct stat st;
    assert_int_equal(stat(s.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666); /* another uid has to get through */
    struct err err = ERR_INIT;
    struct buf out = BUF_INIT(4096);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(admin_ask(s.path, "status", 20000, &out, &err), -1);
        assert_non_null(strstr(err.what, "this uid may not ask"));
    }
    assert_int_equal(buf_len(&out), 0);
    char text[256];
    read_all(dial_unix(s.path), text, sizeof(text));
    assert_string_equal(text, "{\"error\":\"this uid may not ask\"}\n");
    stop(&s);
}

/* Silent clients of one listener fill neither the other one nor the process, and are ended. */
static void test_crowd(void **state)
{
    (void)state;
    static struct server s;
    start(&s, geteuid());
    enum { CROWD = 48 };
    int crowd[CROWD];
    uint64_t began = os_now_ms();
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = dial_http(&s);
        assert_int_equal(send(crowd[i], "GET /met", 8, MSG_NOSIGNAL), 8);
    }
    struct err err = ERR_INIT;
    struct buf out = BUF_INIT(4096);
    assert_int_equal(admin_ask(s.path, "status", 4000, &out, &err), 0);
    buf_reset(&out);
    /* Those who wait in the queue get their turn when the first ones are over their time. */
    char text[1024];
    ask_http(&s, "GET /metrics HTTP/1.1\r\n\r\n", 25, text);
    assert_int_equal(strncmp(text, "HTTP/1.1 200 OK\r\n", 17), 0);
    assert_true(os_now_ms() - began >= 4000);
    for (int i = 0; i < CROWD; i++) {
        close(crowd[i]);
    }
    stop(&s);
}

/* Out of descriptors, the listener rests instead of spinning, and goes on when there are some. */
static void test_no_descriptors(void **state)
{
    (void)state;
    static struct server s;
    start(&s, geteuid());
    char text[1024];
    int fd = dial_http(&s); /* accepted, answered and ended: nothing is on its way any more */
    assert_int_equal(send(fd, "x\r\n\r\n", 5, MSG_NOSIGNAL), 5);
    read_all(fd, text, sizeof(text));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&s.http, sizeof(s.http)), 0);
    assert_int_equal(send(fd, "x\r\n\r\n", 5, MSG_NOSIGNAL), 5);
    struct timespec from;
    struct timespec to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 700), 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    long used_ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
    assert_true(used_ms < 350);
    read_all(fd, text, sizeof(text));
    assert_int_equal(strncmp(text, "HTTP/1.1 400 ", 13), 0);
    stop(&s);
}

/* --- opening the socket ----------------------------------------------------------------------- */
static int open_at(const char *path, struct err *err)
{
    uid_t uid = geteuid();
    int fd = -1;
    *err = (struct err)ERR_INIT;
    return admin_open_socket(path, &uid, 1, &fd, err) == 0 ? fd : -1;
}

static void test_open_refuses(void **state)
{
    (void)state;
    struct server s;
    struct err err;
    char text[1200];
    make_dir(&s);
    memset(text, 'a', sizeof(text));
    text[0] = '/';
    text[108] = '\0';
    static const char *const paths[] = {"", "relative", "@abstract"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        assert_int_equal(open_at(paths[i], &err), -1);
        assert_int_equal(err.code, ERR_CONFIG);
    }
    assert_int_equal(open_at(text, &err), -1);
    assert_int_equal(open_at("/nonexistent/admin.sock", &err), -1);
    assert_int_equal(err.sys_errno, ENOENT);
    /* A file that is not a socket stays. */
    assert_int_equal(os_write_file_atomic(s.path, "x", 1, 0600, &err), 0);
    assert_int_equal(open_at(s.path, &err), -1);
    assert_non_null(strstr(err_text(&err, text, sizeof(text)), "not a socket"));
    assert_int_equal(unlink(s.path), 0);
    /* So does a directory in which others could put another one. */
    static const mode_t modes[] = {0770, 0777, 0702};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        assert_int_equal(chmod(s.dir, modes[i]), 0);
        assert_int_equal(open_at(s.path, &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
    }
    assert_int_equal(chmod(s.dir, 0755), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(s.dir, 64612, 64612), 0);
        assert_int_equal(open_at(s.path, &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
    }
    assert_int_equal(rmdir(s.dir), 0);
}

static void test_open_replaces_only_what_is_dead(void **state)
{
    (void)state;
    struct server s;
    struct err err;
    make_dir(&s);
    mode_t mask = umask(0);
    int live = open_at(s.path, &err);
    umask(mask);
    assert_true(live != -1);
    struct stat st;
    assert_int_equal(stat(s.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(open_at(s.path, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    /* A process that is alive but takes nobody, with a full queue, is alive. */
    assert_int_equal(listen(live, 0), 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, s.path, strlen(s.path) + 1);
    int waiting[8];
    bool full = false;
    size_t n = 0;
    while (!full && n < 8) {
        waiting[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        full = connect(waiting[n], (struct sockaddr *)&addr, sizeof(addr)) != 0;
        assert_true(!full || errno == EAGAIN);
        n++;
    }
    assert_true(full);
    assert_int_equal(open_at(s.path, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(access(s.path, F_OK), 0);
    /* The asker does not wait for it for ever either. */
    struct buf out = BUF_INIT(100);
    uint64_t began = os_now_ms();
    assert_int_equal(admin_ask(s.path, "status", 100, &out, &err), -1);
    assert_true(os_now_ms() - began < 10000);
    while (n > 0) {
        close(waiting[--n]);
    }
    close(live);
    live = open_at(s.path, &err);
    assert_true(live != -1);
    close(live);
    assert_int_equal(unlink(s.path), 0);
    assert_int_equal(rmdir(s.dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_line),   cmocka_unit_test(test_parse_http),
        cmocka_unit_test(test_open_refuses), cmocka_unit_test(test_open_replaces_only_what_is_dead),
        cmocka_unit_test(test_strangers),    cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_crowd),        cmocka_unit_test(test_http),
        cmocka_unit_test(test_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
