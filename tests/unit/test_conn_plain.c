/*
 * Ports that take plaintext beside mTLS, by whole connections: what stays out, what a peer without
 * an identity may, and what ends when the port turns strict. The server's listener is an explicit
 * one; the world's client is a proxy that speaks mTLS to it.
 */
#include "conn_world.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define PERMISSIVE "\n    mode: permissive\n    plaintext_wait: 100ms"
static const char CLIENT_ONLY[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                                  "    action: ALLOW\n    from:\n"
                                  "      - principals: [\"spiffe://a.b/client\"]\n";
/* Whoever has no identity has nobody's, so nobody's is not his. */
static const char NOT_FORMS[] = "kind: Policy\nlevel: 1\nrules:\n  - name: not-him\n"
                                "    action: ALLOW\n    from:\n"
                                "      - not_principals: [\"spiffe://a.b/him\"]\n";
static const char DENY_NOT[] = "kind: Policy\nlevel: 1\nrules:\n  - name: all\n    action: ALLOW\n"
                               "  - name: only-client\n    action: DENY\n    from:\n"
                               "      - not_principals: [\"spiffe://a.b/client\"]\n";
static const char BY_ADDRESS[] = "kind: Policy\nlevel: 1\nrules:\n  - name: near\n"
                                 "    action: ALLOW\n    from:\n"
                                 "      - ip_blocks: [127.0.0.0/8]\n";
static const char PATHS[] = "kind: Policy\nlevel: 1\nrules:\n  - name: public\n"
                            "    action: ALLOW\n    to:\n      - paths: [\"/pub*\"]\n";

static const struct permissive_row *row(struct world *w, size_t i)
{
    return permissive_book_row(conn_worker_book(w->server.worker), i);
}

/* A connection in the clear that is denied: reset, and the workload never sees it. */
static void denied(struct world *w, const char *text)
{
    int c = dial(w->tls);
    say(c, text);
    hear_reset(c);
    const char *l = log_line(&w->server, "policy_denied", "\"transport\":\"plaintext\"");
    expect_in(l, "\"verdict\":\"deny\"");
    assert_null(strstr(l, "peer_id"));
    assert_true(nobody_came(w));
}

/* One that is let through, and its mTLS neighbour. */
static void carried(struct world *w, uint16_t port)
{
    int c = dial(port);
    say(c, "ping\n");
    int s = take(w);
    hear(s, "ping\n");
    say(s, "pong\n");
    hear(c, "pong\n");
    close(c);
    hear_end(s);
    close(s);
}

static void test_strict(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", BY_ADDRESS, true);
    int c = dial(w->tls);
    say(c, "GET / HTTP/1.1\r\n\r\n");
    (void)hear_until(c, "\n\n"); /* an alert */
    close(c);
    log_line(&w->server, "\"connection\"", "handshake_failed");
    assert_true(nobody_came(w));
    assert_int_equal(permissive_book_count(conn_worker_book(w->server.worker)), 0);
    carried(w, w->port);
    world_free(w);
}

static void test_identity_clauses(void **state)
{
    static const char *const refuse[] = {CLIENT_ONLY, NOT_FORMS, DENY_NOT};
    (void)state;
    struct world *w = world_new_explicit("tcp" PERMISSIVE, NULL, true);
    denied(w, "ping\n"); /* no policy */
    world_free(w);
    for (size_t i = 0; i < sizeof(refuse) / sizeof(refuse[0]); i++) {
        w = world_new_explicit("tcp" PERMISSIVE, refuse[i], true);
        denied(w, "ping\n");
        assert_int_equal(row(w, 0)->denied, 1);
        assert_int_equal(row(w, 0)->allowed, 0);
        carried(w, w->port); /* mTLS goes on as ever */
        world_free(w);
    }
    w = world_new_explicit("tcp" PERMISSIVE, BY_ADDRESS, true);
    carried(w, w->tls);
    carried(w, w->port);
    const char *l = log_line(&w->server, "\"connection\"", "\"transport\":\"plaintext\"");
    expect_in(l, "\"rule\":\"near\"");
    assert_int_equal(row(w, 0)->allowed, 1);
    assert_int_equal(row(w, 0)->key.port, 0);
    assert_int_equal(row(w, 1)->key.who, PERMISSIVE_MTLS);
    world_free(w);
}

/* What it was held before there was an identity is not taken from its handshake: that had a
 * millisecond, once the wait was longer than the handshake may take. */
static void test_held(void **state)
{
    (void)state;
    struct world *w =
        world_new_explicit("tcp" PERMISSIVE "\ntimeouts:\n  handshake: 1s", BY_ADDRESS, false);
    const struct conn_counters *n = conn_worker_counters(w->server.worker);
    int c = dial(w->tls);
    assert_int_equal(send(c, "\x16\x03\x01\x01\x00\x01\x00\x00\xfc", 9, MSG_NOSIGNAL), 9);
    uint64_t end = os_now_ms() + WAIT_MS;
    while (atomic_load(&n->states[CONF_INBOUND][CONN_HELD]) == 0) {
        assert_true(os_now_ms() < end);
        (void)poll(NULL, 0, 1);
    }
    (void)poll(NULL, 0, 1300);
    w->server.identity = make_identity(w, "spiffe://a.b/server");
    side_post(&w->server);
    const char *l = log_line(&w->server, "\"connection\"", "handshake_timeout");
    const char *took = strstr(l, "\"duration_ms\":");
    assert_non_null(took);
    assert_true(strtol(took + strlen("\"duration_ms\":"), NULL, 10) > 1300 + 700);
    close(c);
    world_free(w);
}

/* --- what is TLS ------------------------------------------------------------------------------ */

static void test_no_way_back(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp" PERMISSIVE, BY_ADDRESS, true);
    static const char broken[] = "\x16\x03\x01\x00\x04\x01\x00\x00\x00GET / HTTP/1.1\r\n\r\n";
    int c = dial(w->tls);
    assert_int_equal(send(c, broken, sizeof(broken) - 1, MSG_NOSIGNAL), sizeof(broken) - 1);
    (void)hear_until(c, "\n\n");
    close(c);
    log_line(&w->server, "\"connection\"", "handshake_failed");
    assert_true(nobody_came(w));
    assert_int_equal(permissive_book_count(conn_worker_book(w->server.worker)), 0);
    world_free(w);
}

static void test_in_pieces(void **state)
{
    static const char head[] = "\x16\x03\x01";
    int one = 1;
    (void)state;
    struct world *w = world_new_explicit("tcp" PERMISSIVE, BY_ADDRESS, true);
    for (size_t n = 1; n <= 2; n++) { /* and then nothing more */
        int c = dial(w->tls);
        setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(send(c, head + i, 1, MSG_NOSIGNAL), 1);
        }
        hear_reset(c);
        log_line(&w->server, "\"connection\"", "handshake_timeout");
    }
    /* What turns out to be none after all. */
    int c = dial(w->tls);
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    say(c, "\x16");
    say(c, "\x03");
    say(c, "\x7f rest");
    int s = take(w);
    hear(s, "\x16\x03\x7f rest");
    close(c);
    hear_end(s);
    close(s);
    world_free(w);
}

static void test_silence(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp" PERMISSIVE, BY_ADDRESS, true);
    int c = dial(w->tls);
    int s = take(w);
    say(s, "220 ready\n");
    hear(c, "220 ready\n");
    say(c, "HELO\n");
    hear(s, "HELO\n");
    close(c);
    hear_end(s);
    close(s);
    assert_int_equal(row(w, 0)->key.class, PERMISSIVE_SILENCE);
    /* Who wants nothing is nobody. */
    c = dial(w->tls);
    shutdown(c, SHUT_WR);
    hear_end(c);
    close(c);
    assert_true(nobody_came(w));
    world_free(w);
    w = world_new_explicit("tcp" PERMISSIVE, CLIENT_ONLY, true);
    c = dial(w->tls);
    hear_reset(c);
    assert_true(nobody_came(w));
    world_free(w);
}

static void test_too_late(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp" PERMISSIVE, BY_ADDRESS, true);
    int c = dial(w->tls);
    int s = take(w);
    say(c, "\x16\x03\x01\x02");
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "tls_too_late");
    world_free(w);
}

/* --- requests --------------------------------------------------------------------------------- */

static void test_http(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http" PERMISSIVE, PATHS, true);
    int one = 1;
    int c = dial(w->tls);
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    for (const char *p = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"; *p != '\0'; p++) {
        assert_int_equal(send(c, p, 1, MSG_NOSIGNAL), 1);
    }
    expect_in(hear_until(c, "\n\0"), "HTTP/1.1 403 ");
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=x;URI=spiffe://a.b/him"
           "\r\nX-Forwarded-Proto: https\r\n\r\n");
    int s = take(w);
    const char *got = hear_until(s, "\r\n\r\n");
    expect_in(got, "GET /pub ");
    expect_in(got, "x-forwarded-proto: http\r\n");
    assert_null(strcasestr(got, "client-cert"));
    assert_null(strstr(got, "spiffe"));
    say(s, "HTTP/1.1 204 No Content\r\n\r\n");
    expect_in(hear_until(c, "\r\n\r\n"), " 204 ");
    assert_int_equal(row(w, 0)->denied, 1);
    assert_int_equal(row(w, 0)->allowed, 1);
    assert_int_equal(row(w, 0)->connections, 1);
    close(c);
    close(s);
    /* Two readings are none here either. */
    c = dial(w->tls);
    say(c, "POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
           "\r\n");
    expect_in(hear_until(c, "\n\0"), "HTTP/1.1 400 ");
    close(c);
    assert_true(nobody_came(w));
    world_free(w);
}

static void test_http2(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http" PERMISSIVE, PATHS, true);
    /* Preface, SETTINGS, and HEADERS of GET http://a/secret: literals without indexing. */
    static const char bytes[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                "\0\0\0\4\0\0\0\0\0"
                                "\0\0\x0e\1\5\0\0\0\1"
                                "\x82\x86\x04\x07/secret\x01\x01"
                                "a";
    int c = dial(w->tls);
    assert_int_equal(send(c, bytes, sizeof(bytes) - 1, MSG_NOSIGNAL), sizeof(bytes) - 1);
    const char *l = log_line(&w->server, "\"request\"", "\"path\":\"/secret\"");
    expect_in(l, "\"status\":403");
    expect_in(l, "\"verdict\":\"deny\"");
    assert_true(nobody_came(w));
    assert_int_equal(row(w, 0)->key.class, PERMISSIVE_HTTP2);
    assert_int_equal(row(w, 0)->denied, 1);
    close(c);
    world_free(w);
}

/* --- the end of it ---------------------------------------------------------------------------- */

static void test_turns_strict(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp" PERMISSIVE, BY_ADDRESS, true);
    static const struct snapshot_strict strict = {.items = {{0, 0}}, .n = 1};
    int c = dial(w->tls);
    say(c, "ping\n");
    int s = take(w);
    hear(s, "ping\n");
    assert_int_equal(row(w, 0)->open, 1);
    w->server.strict = &strict;
    side_post(&w->server);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "policy_changed");
    c = dial(w->tls);
    say(c, "ping\n");
    (void)hear_until(c, "\n\n");
    close(c);
    log_line(&w->server, "\"connection\"", "handshake_failed");
    assert_true(nobody_came(w));
    assert_int_equal(row(w, 0)->open, 0);
    assert_int_equal(row(w, 0)->connections, 1);
    carried(w, w->port);
    world_free(w);
}

static void test_policy_changes(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp" PERMISSIVE, BY_ADDRESS, true);
    int c = dial(w->tls);
    say(c, "ping\n");
    int s = take(w);
    hear(s, "ping\n");
    side_policy(&w->server, CLIENT_ONLY);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "policy_changed");
    denied(w, "again\n");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strict),         cmocka_unit_test(test_identity_clauses),
        cmocka_unit_test(test_held),           cmocka_unit_test(test_no_way_back),
        cmocka_unit_test(test_in_pieces),      cmocka_unit_test(test_silence),
        cmocka_unit_test(test_too_late),       cmocka_unit_test(test_http),
        cmocka_unit_test(test_http2),          cmocka_unit_test(test_turns_strict),
        cmocka_unit_test(test_policy_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
