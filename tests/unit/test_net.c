/* Addresses as they come from the kernel, and plain streams. */
#include <postern/net.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *ip6; /* as a dual-stack socket tells it */
        const char *text;
        bool loopback;
    } cases[] = {
        {"::ffff:127.0.0.9", "127.0.0.9:80", true},
        {"::ffff:10.1.2.3", "10.1.2.3:80", false},
        {"::1", "[::1]:80", true},
        {"fd00::1", "[fd00::1]:80", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
        assert_int_equal(inet_pton(AF_INET6, cases[i].ip6, &in6.sin6_addr), 1);
        struct net_addr a;
        char text[NET_ADDR_TEXT_MAX];
        assert_true(net_addr_from((struct sockaddr *)&in6, sizeof(in6), &a));
        assert_string_equal(net_addr_text(&a, text), cases[i].text);
        assert_int_equal(net_addr_is_loopback(&a), cases[i].loopback);
        struct net_addr b = a;
        net_addr_set_port(&b, 81);
        assert_true(net_addr_same_host(&a, &b));
        assert_false(net_addr_equal(&a, &b));
        assert_int_equal(net_addr_port(&b), 81);
    }
    struct net_addr none = {.len = 0};
    struct sockaddr un = {.sa_family = AF_UNIX};
    assert_false(net_addr_from(&un, sizeof(un), &none));
    assert_false(net_addr_equal(&none, &none));
}

static void test_local(void **state)
{
    (void)state;
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct net_addr a;
    inet_pton(AF_INET, "127.3.2.1", &in4.sin_addr);
    assert_true(net_addr_from((struct sockaddr *)&in4, sizeof(in4), &a));
    assert_true(net_addr_is_local(&a));
}

struct pair {
    struct net_scratch scratch;
    struct stream s;
    int other;
};

static void open_pair(struct pair *p)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(net_scratch_init(&p->scratch, NULL), 0);
    stream_plain_init(&p->s, &p->scratch, fds[0]);
    p->other = fds[1];
}

static void open_tcp_pair(struct pair *p)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(listening, 1), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&a, &len), 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(net_scratch_init(&p->scratch, NULL), 0);
    stream_plain_init(&p->s, &p->scratch, fd);
    p->other = accept(listening, NULL, NULL);
    assert_int_not_equal(p->other, -1);
    close(listening);
}

static void close_pair(struct pair *p)
{
    stream_deinit(&p->s, false);
    stream_deinit(&p->s, false);
    if (p->other != -1) {
        close(p->other);
    }
    net_scratch_deinit(&p->scratch);
}

/* A reader that does not read: the rest is kept, the end comes after it, nothing is lost. */
static void test_back_pressure(void **state)
{
    (void)state;
    struct pair p;
    open_pair(&p);
    uint8_t *data = malloc(NET_SCRATCH_SIZE);
    size_t total = 0;
    while (!stream_blocked(&p.s)) {
        for (size_t i = 0; i < NET_SCRATCH_SIZE; i++) {
            data[i] = (uint8_t)((total + i) % 251);
        }
        assert_int_equal(stream_write(&p.s, data, NET_SCRATCH_SIZE), STREAM_OK);
        total += NET_SCRATCH_SIZE;
        assert_true(total < (64U << 20));
    }
    assert_true(p.s.out.len <= NET_SCRATCH_SIZE);
    assert_int_equal(stream_shut(&p.s), STREAM_OK);
    assert_false(p.s.shut_done);
    size_t seen = 0;
    for (;;) {
        ssize_t n = read(p.other, data, 60000);
        if (n == -1 && errno == EAGAIN) {
            enum stream_outcome o = stream_flush(&p.s);
            assert_true(o == STREAM_OK || o == STREAM_AGAIN);
            continue;
        }
        assert_int_not_equal(n, -1);
        if (n == 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(data[i], (uint8_t)((seen + (size_t)i) % 251));
        }
        seen += (size_t)n;
    }
    assert_int_equal(seen, total);
    assert_true(p.s.shut_done);
    assert_null(p.s.out.data); /* at rest it holds nothing */
    free(data);
    close_pair(&p);
}

static void test_ends(void **state)
{
    (void)state;
    struct pair p;
    open_pair(&p);
    uint8_t byte = 0;
    size_t n = 77;
    assert_int_equal(stream_read(&p.s, &byte, 1, &n), STREAM_AGAIN);
    assert_int_equal(n, 77); /* untouched */
    assert_int_equal(write(p.other, "x", 1), 1);
    shutdown(p.other, SHUT_WR);
    assert_int_equal(stream_read(&p.s, &byte, 1, &n), STREAM_OK);
    assert_int_equal(n, 1);
    assert_int_equal(stream_read(&p.s, &byte, 1, &n), STREAM_EOF);
    assert_true(p.s.eof);
    /* Half-closed: our direction goes on. */
    assert_int_equal(stream_write(&p.s, (const uint8_t *)"y", 1), STREAM_OK);
    assert_int_equal(read(p.other, &byte, 1), 1);
    close(p.other);
    p.other = -1;
    assert_int_equal(stream_write(&p.s, (const uint8_t *)"z", 1), STREAM_FAILED);
    assert_int_equal(p.s.sys_errno, EPIPE);
    close_pair(&p);
}

/* Writing says that the other end reset; what it had sent before that is read all the same, and
 * what follows is an end only if it had ended in order. */
static void test_last_word(void **state)
{
    (void)state;
    for (int ends = 0; ends < 2; ends++) {
        struct pair p;
        open_tcp_pair(&p);
        uint8_t got[8];
        size_t n = 0;
        assert_int_equal(write(p.s.fd, "unread", 6), 6);
        struct pollfd came = {.fd = p.other, .events = POLLIN};
        assert_int_equal(poll(&came, 1, 10000), 1);
        assert_int_equal(write(p.other, "word", 4), 4);
        if (ends == 1) {
            shutdown(p.other, SHUT_WR);
            struct pollfd end = {.fd = p.s.fd, .events = POLLRDHUP};
            assert_int_equal(poll(&end, 1, 10000), 1);
        }
        close(p.other);
        p.other = -1;
        struct pollfd gone = {.fd = p.s.fd, .events = 0};
        assert_int_equal(poll(&gone, 1, 10000), 1);
        assert_int_equal(stream_write(&p.s, (const uint8_t *)"x", 1), STREAM_FAILED);
        assert_int_equal(stream_write(&p.s, (const uint8_t *)"x", 1), STREAM_FAILED);
        assert_false(stream_blocked(&p.s));
        assert_true(p.s.broken);
        assert_int_equal(stream_read(&p.s, got, sizeof(got), &n), STREAM_OK);
        assert_int_equal(n, 4);
        assert_int_equal(stream_read(&p.s, got, sizeof(got), &n),
                         ends == 1 ? STREAM_EOF : STREAM_FAILED);
        assert_int_equal(p.s.eof, ends == 1);
        assert_int_equal(p.s.sys_errno, ends == 1 ? EPIPE : ECONNRESET);
        close_pair(&p);
    }
}

static void test_dial_refused(void **state)
{
    (void)state;
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct net_addr a;
    int fd = -1;
    struct net_addr want;
    assert_true(net_addr_from((struct sockaddr *)&in4, sizeof(in4), &want));
    assert_int_equal(net_listen(&want, &fd, NULL), 0);
    assert_true(net_local_addr(fd, &a));
    bool done = false;
    int dialled = net_dial(&a, &done);
    assert_int_not_equal(dialled, -1);
    assert_true(done); /* on this host it is decided at once */
    struct net_addr source;
    struct net_addr original;
    int accepted = net_accept(fd, &source);
    assert_int_not_equal(accepted, -1);
    assert_false(net_original_dst(accepted, &original)); /* it was made to us */
    assert_int_equal(net_reset(accepted), -1);
    char c;
    assert_int_equal(recv(dialled, &c, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(dialled);
    close(fd);
    assert_int_equal(net_dial(&a, &done), -1);
    assert_int_equal(errno, ECONNREFUSED);
}

/* --- Unix sockets ----------------------------------------------------------------------------- */
static char unix_dir[64];

static int set_up_dir(void **state)
{
    (void)state;
    snprintf(unix_dir, sizeof(unix_dir), "/tmp/test_net_XXXXXX");
    return mkdtemp(unix_dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(unix_dir); /* which says so if anything was left in it */
}

static int listen_at(const char *path, mode_t mode, const char *owner, int *ret_fd,
                     struct net_unix_file *ret, struct err *err)
{
    const struct net_unix_spec spec = {.path = path, .mode = mode, .owner = owner};
    return net_listen_unix(&spec, ret_fd, ret, err);
}

static void test_unix_refused(void **state)
{
    (void)state;
    char path[128];
    char longest[200];
    struct net_unix_file f = {.path = NULL};
    struct err err = ERR_INIT;
    int fd = -1;
    snprintf(path, sizeof(path), "%s/s", unix_dir);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    longest[0] = '/';
    assert_int_equal(listen_at(longest, 0600, NULL, &fd, &f, &err), -1);
    assert_non_null(strstr(err.what, "too long"));
    assert_int_equal(listen_at(path, 0600, "no-such-user", &fd, &f, &err), -1);
    assert_int_equal(access(path, F_OK), -1);

    /* What is no socket is not touched. */
    int other = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(other, "mine", 4), 4);
    close(other);
    err = (struct err)ERR_INIT;
    assert_int_equal(listen_at(path, 0600, NULL, &fd, &f, &err), -1);
    assert_non_null(strstr(err.what, "is no socket"));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 4);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/nonexistent", path), 0);
    assert_int_equal(listen_at(path, 0600, NULL, &fd, &f, &err), -1);
    assert_int_equal(unlink(path), 0);

    /* One that somebody listens on is not taken away. */
    int second = -1;
    struct net_unix_file g = {.path = NULL};
    assert_int_equal(listen_at(path, 0600, NULL, &fd, &f, &err), 0);
    err = (struct err)ERR_INIT;
    assert_int_equal(listen_at(path, 0600, NULL, &second, &g, &err), -1);
    assert_non_null(strstr(err.advice, "another process"));
    assert_null(g.path);
    close(fd);
    net_unix_file_deinit(&f, true);
    assert_null(f.path);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_unix_stale_and_not_ours(void **state)
{
    (void)state;
    char path[128];
    char moved[140];
    struct net_unix_file f = {.path = NULL};
    struct net_unix_file g = {.path = NULL};
    struct err err = ERR_INIT;
    struct stat st;
    int fd = -1;
    snprintf(path, sizeof(path), "%s/s", unix_dir);
    snprintf(moved, sizeof(moved), "%s.old", path);
    assert_int_equal(listen_at(path, 0660, NULL, &fd, &f, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    close(fd); /* as after kill -9: the file is there and nobody listens */
    assert_int_equal(listen_at(path, 0600, NULL, &fd, &g, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    net_unix_file_deinit(&f, true); /* the first one's file is gone: this is another's */
    assert_int_equal(access(path, F_OK), 0);
    close(fd);
    net_unix_file_deinit(&g, false);
    assert_int_equal(unlink(path), 0);
}

static void test_unix_dial(void **state)
{
    (void)state;
    char path[128];
    char text[NET_ADDR_TEXT_MAX];
    char want[NET_ADDR_TEXT_MAX];
    struct net_unix_file f = {.path = NULL};
    struct err err = ERR_INIT;
    struct net_addr peer;
    bool done = false;
    int fd = -1;
    snprintf(path, sizeof(path), "%s/s", unix_dir);
    assert_int_equal(net_dial_unix(path, &done), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(listen_at(path, 0600, NULL, &fd, &f, &err), 0);
    int client = net_dial_unix(path, &done);
    assert_true(client != -1 && done);
    int server = net_accept(fd, &peer);
    assert_true(server != -1);
    assert_true(net_addr_is_unix(&peer));
    assert_int_equal(net_addr_port(&peer), 0);
    assert_false(net_addr_same_host(&peer, &peer));
    assert_false(net_addr_is_loopback(&peer) || net_addr_is_any(&peer));
    snprintf(want, sizeof(want), "unix:uid=%u,gid=%u,pid=%d", (unsigned)geteuid(),
             (unsigned)getegid(), (int)getpid());
    assert_string_equal(net_addr_text(&peer, text), want);
    close(client);
    close(server);
    close(fd);
    assert_int_equal(net_dial_unix(path, &done), -1);
    assert_int_equal(errno, ECONNREFUSED);
    net_unix_file_deinit(&f, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_local),
        cmocka_unit_test_setup_teardown(test_unix_refused, set_up_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_unix_stale_and_not_ours, set_up_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_unix_dial, set_up_dir, remove_dir),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_last_word),
        cmocka_unit_test(test_dial_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
