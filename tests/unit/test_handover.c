/*
 * handover: the test is the running process, on an admin socket of its own, and says what a broken
 * or hostile one could. Then the finding of sockets by address and name.
 */
#include <postern/handover.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { TIMEOUT_MS = 20000, SHORT_MS = 300 };

struct old {
    char dir[64], path[96];
    int listener;
    pthread_t thread;
    void (*act)(int fd);
};

static int open_tcp(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_not_equal(fd, -1);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 5), 0);
    return fd;
}

static void *run_old(void *arg)
{
    struct old *o = arg;
    char question[64];
    int fd = accept4(o->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd != -1) {
        (void)!recv(fd, question, sizeof(question), 0);
        o->act(fd);
        close(fd);
    }
    return NULL;
}

static void old_start(struct old *o, void (*act)(int fd))
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)snprintf(o->dir, sizeof(o->dir), "/tmp/postern-test-handover-XXXXXX");
    assert_non_null(mkdtemp(o->dir));
    (void)snprintf(o->path, sizeof(o->path), "%s/s", o->dir);
    memcpy(addr.sun_path, o->path, strlen(o->path));
    o->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(o->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(o->listener, 5), 0);
    o->act = act;
    assert_int_equal(pthread_create(&o->thread, NULL, run_old, o), 0);
}

static void old_end(struct old *o)
{
    shutdown(o->listener, SHUT_RDWR);
    pthread_join(o->thread, NULL);
    close(o->listener);
    unlink(o->path);
    rmdir(o->dir);
}

/* --- what the other side may say ---------------------------------------------------------------
 */
static void say(int fd, enum handover_type type, uint32_t count, int passed)
{
    struct handover_msg m;
    handover_msg_init(&m, type);
    m.count = count;
    (void)!handover_send(fd, &m, passed);
}

static void say_socket(int fd, const char *name)
{
    struct handover_msg m;
    int tcp = open_tcp();
    handover_msg_socket(&m, name);
    (void)!handover_send(fd, &m, tcp);
    close(tcp);
}

static void says_nothing(int fd)
{
    (void)fd;
}
static void says_refusal(int fd)
{
    static const char text[] = "{\"error\":\"not\x01now\"}\n";
    (void)!send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
}
static void says_garbage(int fd)
{
    static const char text[600] = "HTTP/1.1 400 Bad Request\r\n";
    (void)!send(fd, text, sizeof(text), MSG_NOSIGNAL);
}
static void says_wrong_count(int fd)
{
    say_socket(fd, NULL);
    say(fd, HANDOVER_END, 2, -1);
}
static void says_out_of_turn(int fd)
{
    say(fd, HANDOVER_GONE, 0, -1);
}
static void says_socket_without_descriptor(int fd)
{
    say(fd, HANDOVER_SOCKET, 0, -1);
}
static void says_end_with_descriptor(int fd)
{
    int tcp = open_tcp();
    say(fd, HANDOVER_END, 0, tcp);
    close(tcp);
}
static void hands_over_a_file(int fd)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    say(fd, HANDOVER_SOCKET, 0, null);
    say(fd, HANDOVER_END, 1, -1);
    close(null);
}
static void hands_over_a_client(int fd)
{
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    say(fd, HANDOVER_SOCKET, 0, s);
    say(fd, HANDOVER_END, 1, -1);
    close(s);
}
static void waits(int fd)
{
    char byte;
    say_socket(fd, NULL);
    (void)!recv(fd, &byte, 1, 0); /* until the asker has had enough */
}

static size_t n_descriptors(void)
{
    size_t n = 0;
    for (int fd = 0; fd < 256; fd++) {
        n += fcntl(fd, F_GETFD) != -1;
    }
    return n;
}

static void test_refused(void **state)
{
    static const struct {
        void (*act)(int fd);
        enum err_code code;
        const char *what;
    } rows[] = {
        {says_nothing, ERR_UNAVAILABLE, "ended the connection"},
        {says_refusal, ERR_DENIED, "refused: not?now"},
        {says_garbage, ERR_PROTOCOL, "something else"},
        {says_wrong_count, ERR_PROTOCOL, "out of turn"},
        {says_out_of_turn, ERR_PROTOCOL, "out of turn"},
        {says_socket_without_descriptor, ERR_PROTOCOL, "something else"},
        {says_end_with_descriptor, ERR_PROTOCOL, "something else"},
        {hands_over_a_file, ERR_SYSTEM, "not a socket"},
        {hands_over_a_client, ERR_USAGE, "cannot be accepted from"},
        {waits, ERR_UNAVAILABLE, "in time"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct old o;
        struct handover h = {.fd = -1};
        struct err err = ERR_INIT;
        size_t before = n_descriptors();
        old_start(&o, rows[i].act);
        unsigned timeout = rows[i].act == waits ? SHORT_MS : TIMEOUT_MS;
        assert_int_equal(handover_ask(o.path, timeout, &h, &err), -1);
        assert_int_equal(err.code, rows[i].code);
        if (strstr(err.what, rows[i].what) == NULL) {
            fail_msg("row %zu: %s", i, err.what);
        }
        assert_int_equal(h.fd, -1);
        old_end(&o);
        assert_int_equal(n_descriptors(), before); /* nothing of what came is left open */
    }
}

static void test_nobody(void **state)
{
    struct handover h;
    struct old o;
    (void)state;
    assert_int_equal(handover_ask("/nonexistent/s", TIMEOUT_MS, &h, NULL), 1);
    assert_int_equal(h.fd, -1);
    old_start(&o, says_nothing);
    shutdown(o.listener, SHUT_RDWR);
    pthread_join(o.thread, NULL);
    close(o.listener);
    assert_int_equal(handover_ask(o.path, TIMEOUT_MS, &h, NULL), 1); /* left over */
    unlink(o.path);
    rmdir(o.dir);
    assert_int_equal(handover_ask("relative", TIMEOUT_MS, &h, NULL), -1);
}

static void hands_over(int fd)
{
    struct handover_msg m;
    int passed = -1;
    say_socket(fd, NULL);
    say_socket(fd, "web");
    say(fd, HANDOVER_END, 2, -1);
    (void)!recv(fd, &m, 1, MSG_PEEK);
    if (handover_recv(fd, &m, &passed, NULL, 0) == IPC_OK && m.type == HANDOVER_READY) {
        say(fd, HANDOVER_GONE, 0, -1);
    }
}

static void test_whole(void **state)
{
    struct old o;
    struct handover h;
    size_t at = 0;
    (void)state;
    old_start(&o, hands_over);
    assert_int_equal(handover_ask(o.path, TIMEOUT_MS, &h, NULL), 0);
    assert_int_equal(h.pid, getpid());
    assert_int_equal(h.sockets.n, 2);
    struct service_socket *s = &h.sockets.items[0];
    assert_false(s->activated);
    assert_ptr_equal(
        service_sockets_find(&h.sockets, 0, (struct sockaddr *)&s->address, s->address_len, &at),
        s);
    assert_null(
        service_sockets_find(&h.sockets, 1, (struct sockaddr *)&s->address, s->address_len, &at));
    assert_ptr_equal(service_sockets_find_name(&h.sockets, 0, "web", &at), &h.sockets.items[1]);
    assert_int_equal(at, 1);
    assert_null(service_sockets_find_name(&h.sockets, 0, "", &at));
    assert_null(service_sockets_find_name(&h.sockets, 0, "other", &at));
    assert_null(service_sockets_find_name(NULL, 0, "web", &at));
    assert_string_equal(service_sockets_unused(&h.sockets)->name, "web");
    h.sockets.items[1].used = true;
    assert_null(service_sockets_unused(&h.sockets));
    assert_int_equal(handover_finish(&h, "1.0 (abc)", TIMEOUT_MS, NULL), 0);
    handover_deinit(&h);
    old_end(&o);
}

static void hands_over_and_ends(int fd)
{
    say_socket(fd, NULL);
    say(fd, HANDOVER_END, 1, -1);
}

static void test_the_other_one_is_gone(void **state)
{
    struct old o;
    struct handover h;
    struct err err = ERR_INIT;
    (void)state;
    old_start(&o, hands_over_and_ends);
    assert_int_equal(handover_ask(o.path, TIMEOUT_MS, &h, NULL), 0);
    pthread_join(o.thread, NULL);
    assert_int_equal(handover_finish(&h, "1.0 (abc)", TIMEOUT_MS, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(h.sockets.n, 1); /* but the sockets are ours */
    handover_deinit(&h);
    close(o.listener);
    unlink(o.path);
    rmdir(o.dir);
}

static void test_unix_addresses(void **state)
{
    struct service_socket items[2] = {{.fd = 5}, {.fd = 6}};
    struct service_sockets s = {.items = items, .n = 2};
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/run/a"};
    struct sockaddr_un b = {.sun_family = AF_UNIX, .sun_path = "/run/ab"};
    struct sockaddr_un none = {.sun_family = AF_UNIX};
    size_t at = 0;
    (void)state;
    memcpy(&items[0].address, &none, sizeof(none)); /* unnamed: nobody's address */
    items[0].address_len = sizeof(sa_family_t);
    memcpy(&items[1].address, &a, sizeof(a));
    items[1].address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 7);
    assert_ptr_equal(service_sockets_find(&s, 0, (struct sockaddr *)&a, sizeof(a), &at), &items[1]);
    assert_null(service_sockets_find(&s, 0, (struct sockaddr *)&b, sizeof(b), &at));
    assert_null(service_sockets_find(&s, 0, (struct sockaddr *)&none, sizeof(none), &at));
    items[1].fd = -1;
    assert_null(service_sockets_find(&s, 0, (struct sockaddr *)&a, sizeof(a), &at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_whole),          cmocka_unit_test(test_the_other_one_is_gone),
        cmocka_unit_test(test_unix_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
