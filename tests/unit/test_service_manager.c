/*
 * service_manager: the test is the manager. What it is told, what of the environment counts and is
 * gone afterwards, and which descriptors are taken.
 */
#include <postern/service_manager.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- the watchdog's variables ------------------------------------------------------------------
 */
static void test_watchdog(void **state)
{
    static const struct {
        const char *usec, *pid;
        uint64_t want;
    } rows[] = {
        {NULL, NULL, 0},
        {"", NULL, 0},
        {"x", NULL, 0},
        {"-1", NULL, 0},
        {"1000x", NULL, 0},
        {"30000000", "8", 0},
        {"30000000", "x", 0},
        {"30000000", "", 0},
        {"0", NULL, 0},
        {"1", NULL, 1},
        {"999", NULL, 1},
        {"1000", "7", 1},
        {"30000000", "7", 30000},
        {"30000000", NULL, 30000},
        {"18446744073709551615", NULL, 18446744073709551},
        {"18446744073709551616", NULL, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(service_watchdog_parse(rows[i].usec, rows[i].pid, 7), rows[i].want);
    }
}

/* --- telling -----------------------------------------------------------------------------------
 */
struct manager {
    int fd;
    char path[64];
};

static void manager_open(struct manager *m, bool abstract)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)snprintf(m->path, sizeof(m->path), "%cpostern-test-notify-%d", abstract ? '@' : '/',
                   (int)getpid());
    if (!abstract) {
        (void)snprintf(m->path, sizeof(m->path), "/tmp/postern-test-notify-%d", (int)getpid());
    }
    size_t len = strlen(m->path);
    memcpy(addr.sun_path, m->path, len);
    if (abstract) {
        addr.sun_path[0] = '\0';
    }
    m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_not_equal(m->fd, -1);
    assert_int_equal(bind(m->fd, (struct sockaddr *)&addr,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + !abstract)),
                     0);
}

static void manager_close(struct manager *m)
{
    close(m->fd);
    if (m->path[0] == '/') {
        unlink(m->path);
    }
}

static const char *heard(struct manager *m)
{
    static char text[2048];
    ssize_t n = recv(m->fd, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void test_nobody(void **state)
{
    struct service_manager m;
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(service_manager_init(&m, NULL), 0);
    assert_false(service_manager_present(&m));
    service_manager_ready(&m, "x");
    service_manager_alive(&m);
    service_manager_stopping(&m, NULL);
    service_manager_deinit(&m);
}

static void test_bad_addresses(void **state)
{
    static const char *const rows[] = {
        "relative",
        "/",
        "@",
        "vsock:2:3",
        "/a-path-that-is-longer-than-any-socket-address-can-hold-a-path-that-is-longer-than-any-"
        "socket-address-can-hold",
        "/nonexistent/postern-notify"};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct service_manager m;
        struct err err = ERR_INIT;
        setenv("NOTIFY_SOCKET", rows[i], 1);
        assert_int_equal(service_manager_init(&m, &err), -1);
        assert_int_not_equal(err.code, ERR_NONE);
        assert_null(getenv("NOTIFY_SOCKET"));
        assert_int_equal(m.fd, -1);
    }
}

static void tell_all(bool abstract)
{
    struct manager manager;
    struct service_manager m;
    char text[64];
    manager_open(&manager, abstract);
    setenv("NOTIFY_SOCKET", manager.path, 1);
    (void)snprintf(text, sizeof(text), "%d", (int)getpid());
    setenv("WATCHDOG_PID", text, 1);
    setenv("WATCHDOG_USEC", "20000000", 1);
    assert_int_equal(service_manager_init(&m, NULL), 0);
    assert_true(service_manager_present(&m));
    assert_int_equal(m.watchdog_ms, 20000);
    assert_null(getenv("NOTIFY_SOCKET"));
    assert_null(getenv("WATCHDOG_USEC"));
    assert_null(getenv("WATCHDOG_PID"));
    assert_true((fcntl(m.fd, F_GETFD) & FD_CLOEXEC) != 0);

    service_manager_ready(&m, "All is well\nMAINPID=1");
    assert_string_equal(heard(&manager), "READY=1\nSTATUS=All is well\n");
    service_manager_ready(&m, NULL);
    assert_string_equal(heard(&manager), "READY=1\n");
    service_manager_reloading(&m);
    const char *said = heard(&manager);
    unsigned long long usec = 0;
    assert_int_equal(sscanf(said, "RELOADING=1\nMONOTONIC_USEC=%llu\n", &usec), 1);
    assert_true(usec > 0);
    service_manager_alive(&m);
    assert_string_equal(heard(&manager), "WATCHDOG=1\n");
    service_manager_status(&m, "busy");
    assert_string_equal(heard(&manager), "STATUS=busy\n");
    service_manager_extend(&m, 1500);
    assert_string_equal(heard(&manager), "EXTEND_TIMEOUT_USEC=1500000\n");
    service_manager_main_pid(&m, 4711);
    assert_string_equal(heard(&manager), "MAINPID=4711\n");
    service_manager_stopping(&m, "Draining");
    assert_string_equal(heard(&manager), "STOPPING=1\nSTATUS=Draining\n");

    /* A manager that is started again is found at the same address. */
    manager_close(&manager);
    service_manager_alive(&m);
    manager_open(&manager, abstract);
    service_manager_alive(&m);
    assert_string_equal(heard(&manager), "WATCHDOG=1\n");
    service_manager_deinit(&m);
    manager_close(&manager);
}

static void test_tells(void **state)
{
    (void)state;
    tell_all(false);
    tell_all(true);
}

static void test_manager_that_does_not_read(void **state)
{
    struct manager manager;
    struct service_manager m;
    (void)state;
    manager_open(&manager, true);
    setenv("NOTIFY_SOCKET", manager.path, 1);
    assert_int_equal(service_manager_init(&m, NULL), 0);
    for (int i = 0; i < 2000; i++) {
        service_manager_alive(&m); /* the queue is full long before: it never waits */
    }
    service_manager_ready(&m, NULL); /* waits, but not for ever */
    assert_string_equal(heard(&manager), "WATCHDOG=1\n");
    service_manager_deinit(&m);
    manager_close(&manager);
}

/* --- which sockets ------------------------------------------------------------------------------
 */
static void test_parse(void **state)
{
    static const struct {
        const char *pid, *fds, *names;
        int want;
        const char *first, *last;
    } rows[] = {
        {"x", "1", NULL, -1, NULL, NULL},
        {"7", "x", NULL, -1, NULL, NULL},
        {"7", "-1", NULL, -1, NULL, NULL},
        {"7", "65", NULL, -1, NULL, NULL},
        {"7", "2", "a", -1, NULL, NULL},
        {"7", "1", "a:b", -1, NULL, NULL},
        {"7", "2", "a:", -1, NULL, NULL},
        {"7", "2", ":b", -1, NULL, NULL},
        {"7", "1", "", -1, NULL, NULL},
        {"7", "1", "a b", -1, NULL, NULL},
        {"7", "1", "a\n", -1, NULL, NULL},
        {NULL, NULL, NULL, 0, NULL, NULL},
        {NULL, "1", "a", 0, NULL, NULL},
        {"7", NULL, "a", 0, NULL, NULL},
        {"8", "1", "a", 0, NULL, NULL},
        {"8", "x", "a", 0, NULL, NULL},
        {"7", "0", NULL, 0, NULL, NULL},
        {"7", "1", NULL, 1, "unknown", "unknown"},
        {"7", "64", NULL, 64, "unknown", "unknown"},
        {"7", "1", "web", 1, "web", "web"},
        {"7", "3", "web:db:web", 3, "web", "web"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct str names[SERVICE_SOCKETS_MAX];
        struct err err = ERR_INIT;
        int n = service_sockets_parse(rows[i].pid, rows[i].fds, rows[i].names, 7, names, &err);
        assert_int_equal(n, rows[i].want);
        assert_int_equal(err.code, n == -1 ? ERR_USAGE : ERR_NONE);
        if (n > 0) {
            assert_true(str_eq(names[0], str_of(rows[i].first)));
            assert_true(str_eq(names[n - 1], str_of(rows[i].last)));
        }
    }
}

static int listening(int family, struct sockaddr_storage *ret)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(*ret);
    int fd = socket(family, SOCK_STREAM, 0);
    assert_int_not_equal(fd, -1);
    if (family == AF_INET) {
        assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    } else {
        assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(sa_family_t)), 0); /* autobind */
    }
    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &len), 0);
    return fd;
}

/* In a child, whose descriptors from 3 on are ours to arrange. */
static void in_child(void (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        fn();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}
#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%d: %s\n", __LINE__, #cond);                                          \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void hand_over(const int *fds, int n, const char *names)
{
    char text[32];
    int high[8];
    for (int i = 0; i < n; i++) {
        high[i] = fcntl(fds[i], F_DUPFD, 100);
    }
    for (int i = 0; i < n; i++) {
        dup2(high[i], SERVICE_FD_FIRST + i);
    }
    (void)snprintf(text, sizeof(text), "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    (void)snprintf(text, sizeof(text), "%d", n);
    setenv("LISTEN_FDS", text, 1);
    setenv("LISTEN_FDNAMES", names, 1);
}

static void environment_is_empty(void)
{
    REQUIRE(getenv("LISTEN_PID") == NULL && getenv("LISTEN_FDS") == NULL &&
            getenv("LISTEN_FDNAMES") == NULL);
}

static void takes_two(void)
{
    struct sockaddr_storage tcp, un;
    struct service_sockets s;
    int fds[2] = {listening(AF_INET, &tcp), listening(AF_UNIX, &un)};
    hand_over(fds, 2, "web:local");
    REQUIRE(service_sockets_take(&s, NULL) == 0);
    environment_is_empty();
    REQUIRE(s.n == 2 && strcmp(s.items[0].name, "web") == 0 &&
            strcmp(s.items[1].name, "local") == 0);
    REQUIRE(s.items[0].address_len == sizeof(struct sockaddr_in) &&
            memcmp(&s.items[0].address, &tcp, sizeof(struct sockaddr_in)) == 0);
    REQUIRE(s.items[1].address.ss_family == AF_UNIX);
    for (int i = 0; i < 2; i++) {
        REQUIRE(s.items[i].fd == SERVICE_FD_FIRST + i);
        REQUIRE((fcntl(s.items[i].fd, F_GETFD) & FD_CLOEXEC) != 0);
        REQUIRE((fcntl(s.items[i].fd, F_GETFL) & O_NONBLOCK) != 0);
    }
    service_sockets_deinit(&s);
    REQUIRE(fcntl(SERVICE_FD_FIRST, F_GETFD) == -1 && errno == EBADF);
    REQUIRE(service_sockets_take(&s, NULL) == 0 && s.n == 0);
    service_sockets_deinit(&s);
}

static void refuses_what_is_no_listener(void)
{
    struct sockaddr_storage ss;
    int good = listening(AF_INET, &ss);
    const int bad[] = {open("/dev/null", O_RDONLY), socket(AF_INET, SOCK_STREAM, 0),
                       socket(AF_INET, SOCK_DGRAM, 0), socket(AF_NETLINK, SOCK_RAW, 0)};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct service_sockets s = {.n = 0};
        struct err err = ERR_INIT;
        REQUIRE(bad[i] != -1);
        hand_over((const int[]){good, bad[i]}, 2, "good:bad");
        REQUIRE(service_sockets_take(&s, &err) == -1);
        REQUIRE(strstr(err.what, "'bad'") != NULL && err.expected[0] != '\0');
        REQUIRE(s.n == 0);
        environment_is_empty();
    }
}

static void fewer_than_said(void)
{
    struct service_sockets s = {.n = 0};
    hand_over(NULL, 0, "a:b");
    setenv("LISTEN_FDS", "2", 1);
    close(SERVICE_FD_FIRST);
    REQUIRE(service_sockets_take(&s, NULL) == -1);
}

static void test_sockets(void **state)
{
    (void)state;
    in_child(takes_two);
    in_child(refuses_what_is_no_listener);
    in_child(fewer_than_said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watchdog),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_tells),
        cmocka_unit_test(test_manager_that_does_not_read),
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
