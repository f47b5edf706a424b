/*
 * conn: what stands around requests of HTTP/1.1: rates, times, lengths, tunnels, paths with two
 * readings, what rules ask about beside them, and what is added on the way.
 */
#include "conn_world.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: pub\n    action: ALLOW\n"
                            "    to: [{paths: [\"/pub*\"]}]\n"
                            "  - name: secret\n    action: DENY\n"
                            "    to: [{paths: [\"/pub/secret*\"]}]\n";
static const char ALLOW_CONNECT[] = "kind: Policy\nlevel: 1\nrules:\n  - name: tunnels\n"
                                    "    action: ALLOW\n    to: [{methods: [CONNECT]}]\n";
static const char ALLOW_NOBODY[] = "kind: Policy\nlevel: 1\nrules:\n  - name: nobody\n"
                                   "    action: ALLOW\n"
                                   "    from: [{principals: [\"spiffe://a.b/nobody\"]}]\n";

#define TIMES(more) "\ntimeouts: {handshake: 5s, request_head: 5s" more "}\n"
#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static const char OK[] = "HTTP/1.1 204 No Content\r\n\r\n";

static struct world *http_world(const char *more, const char *policy)
{
    char text[1000];
    snprintf(text, sizeof(text), "http%s", more);
    return world_new_explicit(text, policy, true);
}

/* An answer of ours, to its last byte. */
static const char *ours(int c)
{
    return hear_until(c, "\n\0");
}

/* --- rates ------------------------------------------------------------------------------------ */

static void test_rate(void **state)
{
    (void)state;
    struct world *w = http_world("\n    rate_limits:\n"
                                 "      - {methods: [GET], paths: [\"/pub/*\"], rate: 1}\n",
                                 ALLOW);
    int c = dial(w->port);
    int s = -1;
    bool limited = false;
    for (int i = 0; i < 30 && !limited; i++) { /* one at least comes too soon */
        say(c, GET("/pub/secret"));            /* a denied one does not count */
        expect_in(ours(c), "HTTP/1.1 403 ");
        say(c, GET("/pub/a"));
        if (s == -1) {
            s = take(w);
        }
        struct pollfd fds[2] = {{.fd = c, .events = POLLIN}, {.fd = s, .events = POLLIN}};
        assert_true(poll(fds, 2, WAIT_MS) > 0);
        if ((fds[0].revents & POLLIN) != 0) {
            limited = true;
            break;
        }
        expect_in(hear_until(s, "\r\n\r\n"), "GET /pub/a ");
        say(s, OK);
        expect_in(hear_until(c, "\r\n\r\n"), "204");
    }
    assert_true(limited);
    const char *got = ours(c);
    expect_in(got, "HTTP/1.1 429 ");
    expect_in(got, "retry-after: 1\r\n");
    expect_in(got, "x-postern-reason: rate_limited");
    expect_in(got, "x-postern-decision: ");
    log_line(&w->server, "\"request\"", "rate_limited");
    /* The connection lives on, and what the limit is not about passes. */
    say(c, GET("/pub"));
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub ");
    say(s, OK);
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    close(c);
    close(s);
    world_free(w);
}

/* --- times ------------------------------------------------------------------------------------ */

static void test_response_timeout(void **state)
{
    (void)state;
    struct world *w = http_world(TIMES(", response_head: 30ms"), ALLOW);
    int c = dial(w->port);
    say(c, GET("/pub"));
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    const char *got = ours(c);
    expect_in(got, "HTTP/1.1 504 ");
    expect_in(got, "response_timeout");
    hear_reset(s);
    /* What comes for it later has nobody to be taken for. */
    say(c, GET("/pub/2"));
    s = take(w);
    expect_in(hear_until(s, "\r\n\r\n"), "/pub/2");
    say(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    expect_in(hear_until(c, "ok"), "HTTP/1.1 200");
    close(c);
    close(s);
    world_free(w);
}

static void test_body_slow(void **state)
{
    (void)state;
    struct world *w =
        http_world("\nlimits: {request_body_rate: 1000}" TIMES(", request_body: 50ms"), ALLOW);
    int c = dial(w->port);
    say(c, "POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx");
    int s = take(w);
    hear_until(s, "\r\n\r\nx");
    const char *got = ours(c);
    expect_in(got, "HTTP/1.1 408 ");
    expect_in(got, "body_slow");
    hear_reset(s);
    hear_end(c);
    close(c);
    world_free(w);
}

static void test_request_long(void **state)
{
    (void)state;
    struct world *w = http_world(TIMES(", request: 50ms"), ALLOW);
    int c = dial(w->port);
    say(c, GET("/pub"));
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx");
    expect_in(hear_until(c, "\r\n\r\nx"), "200");
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"request\"", "request_long");
    world_free(w);
}

/* --- lengths ---------------------------------------------------------------------------------- */

static void test_body_long(void **state)
{
    (void)state;
    struct world *w = http_world("\nlimits: {request_body_bytes: 10}", ALLOW);
    int c = dial(w->port);
    say(c, "POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n");
    expect_in(ours(c), "HTTP/1.1 413 ");
    hear_end(c);
    close(c);
    assert_true(nobody_came(w));
    c = dial(w->port);
    say(c, "POST /pub HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
    int s = take(w);
    hear_until(s, "hi\r\n");
    say(c, "5\r\nhello\r\n");
    expect_in(ours(c), "HTTP/1.1 413 ");
    hear_reset(s);
    hear_end(c);
    close(c);
    world_free(w);
}

/* --- CONNECT ---------------------------------------------------------------------------------- */

#define CONNECT(to) "CONNECT " to " HTTP/1.1\r\nHost: " to "\r\n\r\n"

static void test_connect(void **state)
{
    (void)state;
    struct world *w = http_world("\n    connect: [\"db.a:1\", \"*.c:2\"]\n", ALLOW_CONNECT);
    static const char *const refused[] = {CONNECT("db.a:2"), CONNECT("xdb.a:1"), CONNECT("c:2"),
                                          CONNECT("x.c:3")};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        int c = dial(w->port);
        say(c, refused[i]);
        const char *got = ours(c);
        expect_in(got, "HTTP/1.1 403 ");
        expect_in(got, "connect_target");
        hear_end(c);
        close(c);
    }
    int c = dial(w->port);
    say(c, GET("/pub")); /* which the policy does not allow */
    expect_in(ours(c), "HTTP/1.1 403 ");
    close(c);
    assert_true(nobody_came(w));
    /* Refused by the proxy behind: what came ahead was meant for a tunnel. */
    c = dial(w->port);
    say(c, CONNECT("DB.a:1") "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
    int s = take(w);
    expect_in(hear_until(s, "\r\n\r\n"), "CONNECT DB.a:1 HTTP/1.1\r\n");
    say(s, "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n");
    expect_in(hear_until(c, "\r\n\r\n"), "Connection: close");
    hear_end(c);
    close(c);
    close(s);
    /* A tunnel, with what came early on both sides. */
    c = dial(w->port);
    say(c, CONNECT("x.c:2") "early");
    s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, "HTTP/1.1 200 OK\r\n\r\nhello");
    const char *got = hear_until(c, "hello");
    expect_in(got, "HTTP/1.1 200 OK\r\n\r\nhello");
    hear_until(s, "early");
    say(c, "GET / HTTP/1.0\n\n");
    hear(s, "GET / HTTP/1.0\n\n");
    /* It is judged again as what it was. */
    side_policy(&w->server, ALLOW_NOBODY);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "policy_changed");
    world_free(w);
}

static void test_connect_is_not_taken(void **state)
{
    (void)state;
    struct world *w = http_world("", ALLOW_CONNECT);
    int c = dial(w->port);
    say(c, CONNECT("db.a:1"));
    const char *got = ours(c);
    expect_in(got, "HTTP/1.1 501 ");
    expect_in(got, "method_connect");
    close(c);
    assert_true(nobody_came(w));
    world_free(w);
}

/* --- what is judged --------------------------------------------------------------------------- */

static void test_both_readings(void **state)
{
    (void)state;
    struct world *w = http_world("\n    paths: {allow: [encoded_slash, semicolon]}\n", ALLOW);
    static const struct {
        const char *request, *status;
    } refused[] = {
        {GET("/pub%2Fsecret"), "HTTP/1.1 403"}, /* by who decodes */
        {GET("/pub;x/secret"), "HTTP/1.1 403"}, /* by who cuts parameters off */
        {GET("/other;/pub"), "HTTP/1.1 403"},   /* allowed by neither */
        {GET("/pub%2F..%2Fother"), "HTTP/1.1 400"},
        {GET("/pub//secret"), "HTTP/1.1 400"}, /* not let through */
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        int c = dial(w->port);
        say(c, refused[i].request);
        expect_in(ours(c), refused[i].status);
        close(c);
    }
    assert_true(nobody_came(w));
    int c = dial(w->port);
    say(c, GET("/pub%2fa;x?y"));
    int s = take(w);
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub%2fa;x?y HTTP/1.1\r\n");
    close(c);
    close(s);
    world_free(w);
}

static void test_headers_and_query(void **state)
{
    (void)state;
    static const char policy[] =
        "kind: Policy\nlevel: 2\nrules:\n  - name: a\n    action: ALLOW\n    to:\n"
        "      - headers: [{name: x-role, values: [admin]}]\n"
        "        query: [{name: page, values: [\"1\"]}]\n";
    struct world *w = http_world("", policy);
    static const char *const denied[] = {
        GET("/a?page=1"),
        "GET /a?page=2 HTTP/1.1\r\nHost: a\r\nX-Role: admin\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nX-Role: admin\r\n\r\n",
        "GET /a?page=1 HTTP/1.1\r\nHost: a\r\nX-Role: admin\r\nx-role: guest\r\n\r\n",
    };
    int c = dial(w->port);
    for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
        say(c, denied[i]);
        expect_in(ours(c), "HTTP/1.1 403 ");
    }
    assert_true(nobody_came(w));
    say(c, "GET /a?page=1 HTTP/1.1\r\nHost: a\r\nX-Role: admin\r\n\r\n");
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    /* In flight, it is judged again with its headers. */
    side_policy(&w->server, ALLOW_NOBODY);
    hear_reset(s);
    hear_reset(c);
    world_free(w);
}

/* --- what is added ---------------------------------------------------------------------------- */

static void test_via_and_traces(void **state)
{
    (void)state;
    struct world *w = http_world("", ALLOW);
    int c = dial(w->port);
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\nVia: 1.0 before\r\nTraceparent: wrong\r\n\r\n");
    int s = take(w);
    const char *got = hear_until(s, "\r\n\r\n");
    expect_in(got, "Via: 1.0 before\r\n");
    expect_in(got, "\r\nVia: 1.1 postern\r\n");
    expect_in(got, "\r\ntraceparent: 00-");
    assert_null(strstr(got, "wrong")); /* no hex digits: the new one is random */
    say(s, OK);
    assert_null(strstr(hear_until(c, "\r\n\r\n"), "Via"));
    close(c);
    close(s);
    world_free(w);
    w = http_world("\nhttp: {via: both, traces: keep}", ALLOW);
    c = dial(w->port);
    say(c, GET("/pub"));
    s = take(w);
    assert_null(strstr(hear_until(s, "\r\n\r\n"), "traceparent"));
    say(s, OK);
    expect_in(hear_until(c, "\r\n\r\n"), "\r\nVia: 1.1 postern\r\n");
    close(c);
    close(s);
    world_free(w);
}

/* --- a second time ---------------------------------------------------------------------------- */

static void test_no_retry_beyond_the_budget(void **state)
{
    (void)state;
    struct world *w = http_world("\nhttp: {retry_budget: 0}", ALLOW);
    int c = dial(w->port);
    say(c, GET("/pub/1"));
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, OK);
    hear_until(c, "\r\n\r\n");
    say(c, GET("/pub/2"));
    hear_until(s, "\r\n\r\n");
    close(s);
    const char *got = ours(c);
    expect_in(got, "HTTP/1.1 502 ");
    expect_in(got, "upstream_closed");
    assert_true(nobody_came(w));
    close(c);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_response_timeout),
        cmocka_unit_test(test_body_slow),
        cmocka_unit_test(test_request_long),
        cmocka_unit_test(test_body_long),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_connect_is_not_taken),
        cmocka_unit_test(test_both_readings),
        cmocka_unit_test(test_headers_and_query),
        cmocka_unit_test(test_via_and_traces),
        cmocka_unit_test(test_no_retry_beyond_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
