/* A kubelet's gRPC probe, asked by the sidecar in its place: over TCP and one loop, workloads that
 * are well, unwell, silent about it, and no gRPC servers at all. */
#include <postern/grpc.h>
#include <postern/net.h>
#include <postern/probes.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 20000 };

struct world {
    struct loop *loop;
    struct loop_timer guard;
    struct grpc_server *server;
    struct loop_io *workload_io, *caller_io;
    int workload, caller;
    const char *garbage;     /* what is said instead of gRPC; NULL: nothing */
    struct str answer;       /* the health service's */
    enum grpc_status status; /* with GRPC_OK only is there an answer */
    char asked[100], heard[200];
    size_t n_asked, n_heard;
};

static void on_guard(void *arg)
{
    loop_stop(((struct world *)arg)->loop);
}

static void check(struct grpc_call *call, void *arg, struct str message)
{
    struct world *w = arg;
    assert_true(message.n < sizeof(w->asked));
    if (message.n > 0) {
        memcpy(w->asked, message.p, message.n);
    }
    w->n_asked = message.n;
    if (w->status == GRPC_OK) {
        assert_int_equal(grpc_call_send(call, w->answer.p, w->answer.n), GRPC_SENT);
    }
    grpc_call_finish(call, w->status, NULL);
}

static const struct grpc_method methods[] = {
    {.path = "/grpc.health.v1.Health/Check", .on_request = check}};

static void on_workload(void *arg, unsigned ready)
{
    struct world *w = arg;
    struct net_addr source;
    struct err err = ERR_INIT;
    int fd = net_accept(w->workload, &source);
    (void)ready;
    if (fd == -1) {
        return;
    }
    if (w->garbage == NULL) {
        assert_int_equal(grpc_server_add_connection(w->server, fd, NULL, NULL, NULL, &err), 0);
        return;
    }
    assert_int_equal(send(fd, w->garbage, strlen(w->garbage), MSG_NOSIGNAL), strlen(w->garbage));
    close(fd);
}

static void on_caller(void *arg, unsigned ready)
{
    struct world *w = arg;
    ssize_t n = recv(w->caller, w->heard + w->n_heard, sizeof(w->heard) - 1 - w->n_heard, 0);
    (void)ready;
    if (n <= 0) {
        loop_stop(w->loop);
        return;
    }
    w->n_heard += (size_t)n;
}

static int listener(uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

static int dial(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* Nobody else is given a port that was bound a moment ago, but for an unlucky one. */
static struct probes *start(struct world *w, uint16_t workload_port, const char *service,
                            struct conf_proxy **ret_conf, uint16_t *ret_port)
{
    struct probes *p = NULL;
    for (int i = 0; p == NULL && i < 20; i++) {
        struct conf_diag *diag = conf_diag_new();
        struct buf text = BUF_INIT(1 << 16);
        struct err err = ERR_INIT;
        close(listener(ret_port));
        assert_true(buf_printf(&text,
                               "kind: Proxy\nlevel: 1\nlisteners: [{name: a, direction: inbound, "
                               "capture: intercepted, address: '127.0.0.1:9'}]\nprobes:\n"
                               "  address: 127.0.0.1:%u\n"
                               "  list: [{name: a, port: %u, protocol: grpc%s}]\n",
                               *ret_port, workload_port, service));
        assert_int_equal(
            conf_parse_proxy("f", (const char *)buf_head(&text), buf_len(&text), diag, ret_conf),
            0);
        p = probes_new(w->loop, *ret_conf, &err);
        if (p == NULL) {
            conf_proxy_free(*ret_conf);
        }
        conf_diag_free(diag);
        buf_reset(&text);
    }
    assert_non_null(p);
    return p;
}

/* The status line's number. */
static int ask(struct world *w, const char *service)
{
    static const char request[] = "GET /probe/a HTTP/1.1\r\n\r\n";
    struct conf_proxy *conf = NULL;
    uint16_t port, workload_port;
    struct err err = ERR_INIT;
    w->loop = loop_new(&err);
    assert_non_null(w->loop);
    w->server = grpc_server_new(w->loop, methods, 1, NULL, NULL, w);
    w->workload = listener(&workload_port);
    w->workload_io = loop_io_new(w->loop, w->workload, on_workload, w);
    loop_io_want(w->workload_io, LOOP_READ);
    struct probes *p = start(w, workload_port, service, &conf, &port);
    w->caller = dial(port);
    assert_int_equal(send(w->caller, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    w->caller_io = loop_io_new(w->loop, w->caller, on_caller, w);
    loop_io_want(w->caller_io, LOOP_READ);
    loop_timer_init(&w->guard, w->loop, on_guard, w);
    loop_timer_arm(&w->guard, PATIENCE_MS);
    loop_run(w->loop);
    loop_timer_disarm(&w->guard);
    loop_io_free(w->caller_io);
    close(w->caller);
    probes_free(p);
    conf_proxy_free(conf);
    loop_io_free(w->workload_io);
    close(w->workload);
    grpc_server_free(w->server);
    loop_free(w->loop);
    w->heard[w->n_heard] = '\0';
    return strncmp(w->heard, "HTTP/1.1 ", 9) == 0 ? atoi(w->heard + 9) : -1;
}

static void test_unwell(void **state)
{
    static const struct world cases[] = {
        {.answer = {"\x08\x02", sizeof("\x08\x02") - 1}},
        {.answer = {"", sizeof("") - 1}},
        {.answer = {"\x08", sizeof("\x08") - 1}},
        {.status = GRPC_NOT_FOUND},
        {.status = GRPC_UNIMPLEMENTED},
        {.garbage = ""},
        {.garbage = "HTTP/1.1 200 OK\r\n\r\n"},
        {.garbage = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w = cases[i];
        int status = ask(&w, "");
        if (status != 503) {
            fail_msg("case %zu: %d", i, status);
        }
    }
}

static void test_well(void **state)
{
    struct world w = {.answer = STR_LIT("\x08\x01")};
    (void)state;
    assert_int_equal(ask(&w, ""), 200);
    assert_int_equal(w.n_asked, 0);
    struct world named = {.answer = STR_LIT("\x08\x01")};
    assert_int_equal(ask(&named, ", service: live.v1"), 200);
    assert_int_equal(named.n_asked, 9);
    assert_memory_equal(named.asked, "\x0a\x07live.v1", 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unwell),
        cmocka_unit_test(test_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
