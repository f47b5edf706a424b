/*
 * Connections that ask whether they are captured: the proxy's own, among strangers that dial the
 * same, and those of who asks from outside. A worker whose original destination the test makes up.
 */
#include "conn_priv.h"
#include "conn_world.h"
#include "held_port.h"

#include <arpa/inet.h>
#include <poll.h>
#include <postern/intercept.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka wants these first */
#include <cmocka.h>

static const char NOBODY[] = "kind: Policy\nlevel: 1\nrules: []\n";

static _Atomic uint32_t destination; /* with the inbound canary's port */

bool __wrap_net_original_dst(int fd, struct net_addr *ret);
bool __wrap_net_original_dst(int fd, struct net_addr *ret)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons(INTERCEPT_INBOUND_CANARY_PORT)};
    in.sin_addr.s_addr = htonl(destination);
    (void)fd;
    return net_addr_from((const struct sockaddr *)&in, sizeof(in), ret);
}

struct pod {
    struct side side;
    struct conn_canary canary;
    uint16_t port;
    int held;
};

static struct pod *begin(uint32_t to)
{
    char conf[400];
    struct pod *p = calloc(1, sizeof(*p));
    destination = to;
    p->held = held_port(&p->port);
    snprintf(conf, sizeof(conf),
             "{kind: Proxy, level: 1, identity: {socket: 'unix:/nowhere'}, policy: policy.yaml, "
             "listeners: [{name: in, direction: inbound, capture: intercepted, address: "
             "'127.0.0.1:%u'}]}\n",
             p->port);
    p->side.shared.canary = &p->canary;
    side_start(&p->side, conf, NOBODY);
    return p;
}

static void end(struct pod *p)
{
    side_stop(&p->side);
    close(p->held);
    free(p);
}

/* One of the proxy's: its port is known first. */
static int bound(uint16_t *ret_port)
{
    int fd = net_bound_socket(AF_INET, ret_port);
    assert_int_not_equal(fd, -1);
    return fd;
}

static void dial_on(const struct pod *p, int fd)
{
    struct net_addr to = {.len = 0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(p->port)};
    bool done = false;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(net_addr_from((const struct sockaddr *)&in, sizeof(in), &to));
    assert_int_equal(net_dial_on(fd, &to, &done), 0);
}

static void strangers(const struct pod *p)
{
    for (int i = 0; i < 50; i++) {
        int fd = dial(p->port);
        hear_end(fd);
        close(fd);
    }
}

/* However often somebody else dials it, before and after: the one that counts is found, and nothing
 * else is taken for it. */
static void test_strangers(void **state)
{
    (void)state;
    struct pod *p = begin(INADDR_LOOPBACK);
    uint16_t port = 0;
    int fd = bound(&port);
    assert_false(conn_canary_seen(&p->canary, CONF_INBOUND, AF_INET));
    conn_canary_expect(&p->canary, CONF_INBOUND, AF_INET, port);
    strangers(p);
    assert_false(conn_canary_seen(&p->canary, CONF_INBOUND, AF_INET));
    dial_on(p, fd);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
    assert_true(conn_canary_seen(&p->canary, CONF_INBOUND, AF_INET));
    strangers(p);
    assert_true(conn_canary_seen(&p->canary, CONF_INBOUND, AF_INET));
    assert_false(conn_canary_seen(&p->canary, CONF_OUTBOUND, AF_INET));
    assert_false(conn_canary_seen(&p->canary, CONF_INBOUND, AF_INET6));
    close(fd);
    /* The next one is another, until it has come. */
    fd = bound(&port);
    conn_canary_expect(&p->canary, CONF_INBOUND, AF_INET, port);
    assert_false(conn_canary_seen(&p->canary, CONF_INBOUND, AF_INET));
    close(fd);
    assert_int_equal(p->canary.from_outside, 0);
    end(p);
}

static int told(const struct pod *p, const char *question, const char *line)
{
    int fd = dial(p->port);
    say(fd, question);
    expect_in(hear_until(fd, "ready\n"), line);
    hear_end(fd);
    close(fd);
    return 1;
}

static void test_from_outside(void **state)
{
    (void)state;
    static const char get[] = "GET /ready HTTP/1.1\r\nHost: 192.0.2.7:15010\r\n\r\n";
    struct pod *p = begin(0xc0000207);
    unsigned n = 0;
    uint16_t port = 0;
    /* What is too long, what ends, and what is no question has no answer. */
    static char junk[20000];
    memset(junk, 'x', sizeof(junk) - 1);
    int fd = dial(p->port);
    (void)send(fd, junk, sizeof(junk) - 1, MSG_NOSIGNAL);
    char c;
    assert_true(recv(fd, &c, 1, 0) <= 0);
    close(fd);
    fd = dial(p->port);
    say(fd, "GET / HTTP/1.1\r\n");
    shutdown(fd, SHUT_WR);
    hear_end(fd);
    close(fd);
    n += 2;
    n += (unsigned)told(p, get, "HTTP/1.1 503 ");
    p->canary.ready = true;
    n += (unsigned)told(p, get, "HTTP/1.1 200 OK\r\n");
    fd = dial(p->port); /* in pieces */
    say(fd, "GET /ready HTTP/1.1\r\n");
    say(fd, "\r");
    say(fd, "\n");
    expect_in(hear_until(fd, "ready\n"), "200 OK");
    close(fd);
    fd = dial(p->port); /* nothing said: it is let go after a while */
    hear_end(fd);
    close(fd);
    assert_int_equal(p->canary.from_outside, n + 2);
    /* And it is none of the proxy's own. */
    fd = bound(&port);
    conn_canary_expect(&p->canary, CONF_INBOUND, AF_INET, port);
    dial_on(p, fd);
    close(fd);
    told(p, get, "200 OK");
    assert_false(conn_canary_seen(&p->canary, CONF_INBOUND, AF_INET));
    end(p);
}

/* The end of a head, wherever it is cut. */
static void test_whole(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t ends; /* after so many bytes; 0: not */
    } cases[] = {
        {"\r\n\r\n", 4},       {"a\r\n\r\nb", 5}, {"\r\r\n\r\n", 5}, {"\r\n\r\r\n\r\n", 7},
        {"\r\n\n\r\n\r\n", 7}, {"\n\n", 0},       {"\r\n\r", 0},     {"\r\n \r\n", 0},
        {"x\r\n\rx\r\n\n", 0}, {"", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const uint8_t *text = (const uint8_t *)cases[i].text;
        size_t n = strlen(cases[i].text);
        for (size_t cut = 0; cut <= n; cut++) {
            uint8_t at = 0;
            bool first = conn_asked_whole(&at, text, cut);
            assert_int_equal(first, cases[i].ends != 0 && cut >= cases[i].ends);
            if (!first) {
                assert_int_equal(conn_asked_whole(&at, text + cut, n - cut), cases[i].ends != 0);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_from_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
