/*
 * Inbound ports that nobody declared, by whole connections: what must not come through where the
 * policy speaks of requests, what must, and what is found out on the way where it does not. The
 * kernel's word of where a client wanted to go is the test's.
 */
#include "conn_world.h"
#include "redirected.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <postern/denials.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                            "    action: ALLOW\n    from:\n"
                            "      - principals: [\"spiffe://a.b/client\"]\n";
/* The first rule would let connections in, if they were judged as such. */
static const char NO_SECRETS[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                                 "    action: ALLOW\n    from:\n"
                                 "      - principals: [\"spiffe://a.b/client\"]\n"
                                 "  - name: no-secrets\n    action: DENY\n    to:\n"
                                 "      - paths: [\"/secret*\"]\n";
static const char DETECT[] = "    capture: intercepted\nadmin:\n  socket: /nowhere/admin.sock";
static const char AS_TCP[] = "    capture: intercepted\n    undeclared: tcp";

static struct world *intercepted(const char *listener, const char *policy)
{
    struct world *w = world_new(listener, policy, true);
    redirected_port(w->backend);
    return w;
}

static uint64_t detected(const struct world *w, enum detect_protocol p, enum detect_how h)
{
    return atomic_load(&((struct conn_counters *)(uintptr_t)conn_worker_counters(w->server.worker))
                            ->detected[p][h]);
}

static void say_bytes(int fd, const char *p, size_t n)
{
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* --- request rules ---------------------------------------------------------------------------- */

#define BYTES(s) s, sizeof(s) - 1

/* The denial that this line of the log is about is kept, by its id. */
static void kept(const struct world *w, const char *reason, const char *log)
{
    static struct denial_copy copy;
    const struct denials *d = conn_worker_denials(w->server.worker);
    char id[80] = "";
    for (size_t i = 0; i < denials_count(d) && strstr(log, id[0] != '\0' ? id : "\n") == NULL;
         i++) {
        assert_true(denials_read(d, i, &copy));
        assert_true(str_eq(copy.denial.reason, str_of(reason)));
        assert_true(str_eq(copy.denial.peer_id, STR_LIT("spiffe://a.b/client")));
        (void)snprintf(id, sizeof(id), "\"decision\":\"%.*s\"", (int)copy.denial.decision.n,
                       copy.denial.decision.p);
    }
    expect_in(log, id[0] != '\0' ? id : "a denial");
}

static void test_denied(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *is;
    } cases[] = {
        {BYTES("\0\0\0\x08\x04\xd2\x16\x2f"), "\"protocol\":\"tcp\""},
        {BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "\"protocol\":\"tls\""},
        {BYTES("\x16GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"), "\"protocol\":\"tcp\""},
        {BYTES("\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n"), "\"protocol\":\"tcp\""},
        {BYTES("GET /secret\r\n"), "\"protocol\":\"tcp\""},
    };
    struct world *w = intercepted(DETECT, NO_SECRETS);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int c = dial(w->port);
        say_bytes(c, cases[i].bytes, cases[i].n);
        hear_reset(c);
        const char *l = log_line(&w->server, "\"reason\":\"not_http\"", cases[i].is);
        expect_in(l, "\"verdict\":\"deny\"");
        expect_in(l, "\"decision\":\"");
        expect_in(l, "\"protocol_by\":\"client\"");
        expect_in(l, "declare the port");
        kept(w, "not_http", l);
    }
    assert_true(nobody_came(w));
    assert_int_equal(detected(w, DETECT_TCP, DETECT_BY_CLIENT), 4);
    assert_int_equal(detected(w, DETECT_TLS, DETECT_BY_CLIENT), 1);
    /* Another port of the same workload: the rule names none, and so speaks of it too. */
    redirected_port(7);
    int c = dial(w->port);
    say(c, "opaque\n");
    hear_reset(c);
    assert_int_equal(detected(w, DETECT_TCP, DETECT_BY_CLIENT), 5);
    world_free(w);
}

static void test_silence(void **state)
{
    (void)state;
    struct world *w = intercepted(DETECT, NO_SECRETS);
    int quiet = dial(w->port);
    int half = dial(w->port);
    say(half, "GET /pub HT");
    int gone = dial(w->port);
    say(gone, "GET /pub HT");
    shutdown(gone, SHUT_WR);
    hear_reset(gone);
    hear_reset(quiet);
    hear_reset(half);
    const char *l = log_line(&w->server, "\"reason\":\"protocol_unknown\"", "\"timeout\"");
    expect_in(l, "\"protocol\":\"unknown\"");
    assert_int_equal(detected(w, DETECT_UNKNOWN, DETECT_BY_TIMEOUT), 2);
    /* One that wanted nothing is no denial. */
    int none = dial(w->port);
    shutdown(none, SHUT_WR);
    hear_end(none);
    close(none);
    assert_true(nobody_came(w));
    world_free(w);
}

static void test_http_in_pieces(void **state)
{
    (void)state;
    struct world *w = intercepted(DETECT, NO_SECRETS);
    static const char request[] = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
    int one = 1;
    int c = dial(w->port);
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        say_bytes(c, request + i, 1);
    }
    expect_in(hear_until(c, "\n\0"), "HTTP/1.1 403 ");
    const char *l = log_line(&w->server, "\"request\"", "\"status\":403");
    expect_in(l, "\"rule\":\"no-secrets\"");
    assert_true(nobody_came(w));
    /* The same connection goes on, as on a declared port. */
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
    int s = take(w);
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub ");
    say(s, "HTTP/1.1 204 No Content\r\n\r\n");
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    close(c);
    close(s);
    l = log_line(&w->server, "\"connection\"", "\"protocol\":\"http1\"");
    expect_in(l, "\"protocol_by\":\"client\"");
    /* What looks like a request and can be read in two ways is refused where it is read. */
    c = dial(w->port);
    say(c,
        "POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    expect_in(hear_until(c, "\n\0"), "HTTP/1.1 400 ");
    close(c);
    assert_true(nobody_came(w));
    world_free(w);
}

/* --- none ------------------------------------------------------------------------------------- */

static void test_race(void **state)
{
    (void)state;
    static const struct {
        const char *client, *server; /* the client speaks first if it has something to say */
        size_t n_server;
        enum detect_protocol is;
        enum detect_how by;
    } cases[] = {
        {NULL, BYTES("220 ready\r\n"), DETECT_TCP, DETECT_BY_SERVER},
        {NULL, BYTES("\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64"), DETECT_HTTP2, DETECT_BY_SERVER},
        {"GET / HTTP/1.1\r\n\r\n", BYTES("HTTP/1.1 200 OK\r\n\r\n"), DETECT_HTTP1,
         DETECT_BY_CLIENT},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BYTES("x"), DETECT_HTTP2, DETECT_BY_CLIENT},
        {"GET key\r\n", BYTES("$-1\r\n"), DETECT_TCP, DETECT_BY_CLIENT},
        {"\x16\x03\x01\x02\x20\x01\x10", BYTES("x"), DETECT_TLS, DETECT_BY_CLIENT},
        /* A request line that does not end, and a server that has heard enough of it. */
        {"GET / HT", BYTES("HTTP/1.1 400 Bad Request\r\n\r\n"), DETECT_HTTP1, DETECT_BY_SERVER},
        {"GE", BYTES("bye"), DETECT_TCP, DETECT_BY_SERVER},
        {NULL, "", 0, DETECT_UNKNOWN, DETECT_BY_NONE},
    };
    struct world *w = intercepted(DETECT, ALLOW);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = detected(w, cases[i].is, cases[i].by);
        int c = dial(w->port);
        int s = take(w); /* dialled though nobody has spoken */
        if (cases[i].client != NULL) {
            say(c, cases[i].client);
            hear(s, cases[i].client);
        }
        say_bytes(s, cases[i].server, cases[i].n_server);
        char got[64];
        size_t n = cases[i].n_server;
        assert_int_equal(n > 0 ? recv(c, got, n, MSG_WAITALL) : 0, (ssize_t)n);
        close(c);
        hear_end(s);
        close(s);
        char by[40];
        snprintf(by, sizeof(by), "\"protocol_by\":\"%s\"", detect_how_name(cases[i].by));
        char is[40];
        snprintf(is, sizeof(is), "\"protocol\":\"%s\"", detect_protocol_name(cases[i].is));
        log_line(&w->server, is, by);
        assert_int_equal(detected(w, cases[i].is, cases[i].by), before + 1);
    }
    world_free(w);
}

static void test_rule_comes(void **state)
{
    (void)state;
    struct world *w = intercepted(DETECT, ALLOW);
    int c = dial(w->port);
    int s = take(w);
    say(c, "opaque");
    hear(s, "opaque");
    side_policy(&w->server, NO_SECRETS);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "policy_changed");
    /* And one that waits to be told what it is does so under the new policy. */
    c = dial(w->port);
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
    s = take(w);
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub ");
    side_policy(&w->server, ALLOW);
    say(s, "HTTP/1.1 204 No Content\r\n\r\n");
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    close(c);
    close(s);
    world_free(w);
}

/* --- declared --------------------------------------------------------------------------------- */

/* They go while somebody waits, who has said nothing or a part of something: it is judged as a
 * connection then, and a server that speaks first does. */
static void test_rules_go(void **state)
{
    (void)state;
    static const char NOBODY[] = "kind: Policy\nlevel: 1\nrules: []\n";
    for (unsigned i = 0; i < 3; i++) {
        struct world *w = intercepted(DETECT, NO_SECRETS);
        const struct conn_counters *n = conn_worker_counters(w->server.worker);
        uint64_t end = os_now_ms() + WAIT_MS;
        int c = dial(w->port);
        if (i == 1) {
            say(c, "GE");
        }
        while (n->states[CONF_INBOUND][CONN_DETECT] != 1) {
            assert_true(os_now_ms() < end);
            (void)poll(NULL, 0, 2);
        }
        side_policy(&w->server, i == 2 ? NOBODY : ALLOW);
        if (i == 2) {
            hear_reset(c);
            log_line(&w->server, "\"connection\"", "policy_denied");
            assert_true(nobody_came(w));
        } else {
            int s = take(w);
            say(s, "220 ready\r\n");
            hear(c, "220 ready\r\n");
            say(c, "T");
            hear(s, i == 1 ? "GET" : "T");
            close(c);
            hear_end(s);
            close(s);
            const char *l = log_line(&w->server, "\"connection\"", "\"reason\":\"done\"");
            expect_in(l, "\"rule\":\"client-may\"");
            expect_in(l, "\"protocol_by\":\"server\"");
        }
        world_free(w);
    }
}

static void test_declared(void **state)
{
    (void)state;
    struct world *w = intercepted(AS_TCP, NO_SECRETS);
    int c = dial(w->port);
    int s = take(w);
    say(c, "GET /secret HTTP/1.1\r\n\r\n");
    hear(s, "GET /secret HTTP/1.1\r\n\r\n");
    /* Declared so, a request rule that comes is not about it. */
    side_policy(&w->server, NO_SECRETS);
    say(c, "more");
    hear(s, "more");
    close(c);
    hear_end(s);
    close(s);
    const char *l = log_line(&w->server, "\"connection\"", "\"protocol_by\":\"declared\"");
    expect_in(l, "\"protocol\":\"tcp\"");
    assert_int_equal(detected(w, DETECT_TCP, DETECT_BY_DECLARED), 1);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_denied),         cmocka_unit_test(test_silence),
        cmocka_unit_test(test_http_in_pieces), cmocka_unit_test(test_race),
        cmocka_unit_test(test_rule_comes),     cmocka_unit_test(test_rules_go),
        cmocka_unit_test(test_declared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
