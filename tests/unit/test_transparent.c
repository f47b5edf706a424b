/* Sockets with addresses of others: what is refused, and where a CAP_NET_RAW is there what they do.
 * What the kernel brings by TPROXY is shown by tests/integration/test_intercept_proxy.py. */
#include <postern/net.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct net_addr at(const char *host, uint16_t port)
{
    struct net_addr a = {.len = sizeof(struct sockaddr_in)};
    a.in4.sin_family = AF_INET;
    assert_int_equal(inet_pton(AF_INET, host, &a.in4.sin_addr), 1);
    net_addr_set_port(&a, port);
    return a;
}

static int listener(uint16_t *ret_port)
{
    struct err err = ERR_INIT;
    struct net_addr any = at("127.0.0.1", 0);
    struct net_addr local;
    int fd = -1;
    assert_int_equal(net_listen(&any, &fd, &err), 0);
    assert_true(net_local_addr(fd, &local));
    *ret_port = net_addr_port(&local);
    return fd;
}

static int accepted(int listen_fd, struct net_addr *ret_source)
{
    struct pollfd p = {.fd = listen_fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    int fd = net_accept(listen_fd, ret_source);
    assert_true(fd != -1);
    return fd;
}

/* Made to the listener itself is what has the listener's own port. */
static void test_own_port(void **state)
{
    (void)state;
    uint16_t port = 0;
    os_autofd int l = listener(&port);
    struct net_addr to = at("127.0.0.1", port);
    struct net_addr source;
    struct net_addr original = {.len = 0};
    bool done = false;
    os_autofd int client = net_dial(&to, &done);
    os_autofd int server = accepted(l, &source);
    assert_true(client != -1);
    assert_false(net_transparent_dst(server, port, &original));
    assert_int_equal(original.len, 0);
    assert_true(net_transparent_dst(server, (uint16_t)(port ^ 1), &original));
    assert_true(net_addr_equal(&original, &to));
}

static void test_families_apart(void **state)
{
    (void)state;
    struct net_addr to = {.len = sizeof(struct sockaddr_in6)};
    struct net_addr from = at("192.0.2.1", 1);
    struct net_addr none = {.len = 0};
    bool done = false;
    to.in6.sin6_family = AF_INET6;
    to.in6.sin6_addr = in6addr_loopback;
    assert_int_equal(net_dial_from(&from, &to, &done), -1);
    assert_int_equal(errno, EAFNOSUPPORT);
    assert_int_equal(net_dial_from(&none, &to, &done), -1);
    assert_int_equal(errno, EAFNOSUPPORT);
}

/* From the client's address, and never from its port; the same client's next connection gets
 * another one, also when the first that comes to mind is taken. */
static void test_ports(void **state)
{
    (void)state;
    uint16_t port = 0;
    os_autofd int l = listener(&port);
    struct err err = ERR_INIT;
    if (net_listen_transparent(l, &err) == -1) {
        assert_int_equal(err.sys_errno, EPERM);
        assert_non_null(strstr(err.advice, "CAP_NET_RAW"));
        skip();
    }
    enum { N = 12 }; /* more than it tries */
    const struct net_addr to = at("127.0.0.1", port);
    const struct net_addr from = at("127.0.0.77", 61000);
    int client[N];
    int server[N];
    uint16_t seen[N];
    for (int i = 0; i < N; i++) {
        bool done = false;
        struct net_addr source;
        client[i] = net_dial_from(&from, &to, &done);
        assert_true(client[i] != -1);
        server[i] = accepted(l, &source);
        assert_true(net_addr_same_host(&source, &from));
        seen[i] = net_addr_port(&source);
        assert_true(i >= 8 || seen[i] >= 61000);
        for (int k = 0; k < i; k++) {
            assert_int_not_equal(seen[k], seen[i]);
        }
    }
    for (int i = 0; i < N; i++) {
        net_reset(client[i]);
        net_reset(server[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_port),
        cmocka_unit_test(test_families_apart),
        cmocka_unit_test(test_ports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
