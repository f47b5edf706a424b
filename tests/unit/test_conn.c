/*
 * Whole connections: a client-side and a server-side worker in this process, each with its own
 * thread, between a client and a workload that the test plays over loopback. Identities come from
 * the certificate factory; everything else is what the product runs.
 */
#include <postern/conn.h>

#include "conn_world.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                            "    action: ALLOW\n    from:\n"
                            "      - principals: [\"spiffe://a.b/client\"]\n";
static const char ALLOW_GET[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-reads\n"
                                "    action: ALLOW\n    from:\n"
                                "      - principals: [\"spiffe://a.b/client\"]\n    to:\n"
                                "      - methods: [GET, POST]\n        paths: [\"/pub*\"]\n";
static const char ALLOW_NOBODY[] = "kind: Policy\nlevel: 1\nrules:\n  - name: nobody\n"
                                   "    action: ALLOW\n    from:\n"
                                   "      - principals: [\"spiffe://a.b/nobody\"]\n";

/* --- TCP -------------------------------------------------------------------------------------- */

static void test_denied(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        const char *says;
    } cases[] = {{NULL, "policy"}, {ALLOW_NOBODY, "nobody"}, {ALLOW_GET, "client-reads"}};
    for (size_t i = 0; i < 3; i++) {
        struct world *w = world_new_explicit("tcp", cases[i].policy, true);
        int c = dial(w->port);
        hear_reset(c);
        const char *l = log_line(&w->server, "\"connection\"", "policy_denied");
        expect_in(l, "\"peer_id\":\"spiffe://a.b/client\"");
        expect_in(l, "\"own_id\":\"spiffe://a.b/server\"");
        expect_in(l, "\"decision\":\"");
        expect_in(l, cases[i].says);
        assert_true(nobody_came(w));
        world_free(w);
    }
}

static void test_tcp(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", ALLOW, true);
    /* The server speaks first; then each way; the client ends, the server goes on. */
    int c = dial(w->port);
    int s = take(w);
    say(s, "220 ready\r\n");
    hear(c, "220 ready\r\n");
    say(c, "one");
    hear(s, "one");
    shutdown(c, SHUT_WR);
    hear_end(s);
    say(s, "still");
    hear(c, "still");
    close(s);
    hear_end(c);
    close(c);
    const char *l = log_line(&w->server, "\"connection\"", "\"reason\":\"done\"");
    expect_in(l, "\"rule\":\"client-may\"");
    expect_in(l, "\"bytes_up\":3");
    expect_in(l, "\"bytes_down\":16");
    expect_in(l, "\"tls_version\":\"TLSv1.3\"");
    log_line(&w->client, "\"connection\"", "\"reason\":\"done\"");
    /* A reset travels, either way. */
    for (int way = 0; way < 2; way++) {
        c = dial(w->port);
        s = take(w);
        say(c, "x");
        hear(s, "x");
        struct linger hard = {.l_onoff = 1};
        setsockopt(way == 0 ? c : s, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        close(way == 0 ? c : s);
        hear_reset(way == 0 ? s : c);
    }
    /* The workload is away. */
    close(w->workload);
    c = dial(w->port);
    hear_reset(c);
    log_line(&w->server, "\"connection\"", "connect_refused");
    w->workload = dup(0);
    world_free(w);
}

/* A lot at once, with a reader that stops in between: what goes in comes out. */
static void test_tcp_bulk(void **state)
{
    (void)state;
    enum { TOTAL = 24 << 20 };
    struct world *w = world_new_explicit("tcp", ALLOW, true);
    int c = dial(w->port);
    int s = take(w);
    uint8_t *out = malloc(1 << 20);
    uint8_t *in = malloc(1 << 20);
    size_t sent = 0;
    size_t seen = 0;
    while (seen < TOTAL) {
        if (sent < TOTAL) {
            size_t n = TOTAL - sent < (1 << 20) ? TOTAL - sent : (1 << 20);
            for (size_t i = 0; i < n; i++) {
                out[i] = (uint8_t)((sent + i) * 7 % 251);
            }
            ssize_t r = send(c, out, n, MSG_DONTWAIT);
            sent += r > 0 ? (size_t)r : 0;
            if (r > 0 && sent < TOTAL / 2) {
                continue; /* the reader does not read yet */
            }
        } else {
            shutdown(c, SHUT_WR);
        }
        ssize_t r = recv(s, in, 1 << 20, 0);
        assert_true(r > 0);
        for (ssize_t i = 0; i < r; i++) {
            if (in[i] != (uint8_t)((seen + (size_t)i) * 7 % 251)) {
                fail_msg("byte %zu is wrong", seen + (size_t)i);
            }
        }
        seen += (size_t)r;
    }
    hear_end(s);
    close(s);
    hear_end(c);
    close(c);
    free(out);
    free(in);
    world_free(w);
}

static void test_wrong_peer(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", ALLOW, true);
    struct snapshot_identity *good = w->server.identity;
    w->server.identity = make_identity(w, "spiffe://a.b/other");
    side_post(&w->server);
    int c = dial(w->port);
    hear_reset(c);
    const char *l = log_line(&w->client, "handshake_failed", "\"step\":\"expected\"");
    expect_in(l, "\"peer_id\":\"spiffe://a.b/other\"");
    expect_in(l, "\"expected\":\"spiffe://a.b/server\"");
    l = log_line(&w->server, "handshake_failed", "\"step\":\"refused\"");
    expect_in(l, "bad certificate");
    snapshot_identity_unref(good);
    /* Not TLS at all, and nothing at all. */
    int plain = dial(w->tls);
    say(plain, "GET / HTTP/1.1\r\n\r\n");
    log_line(&w->server, "handshake_failed", "not TLS");
    close(plain);
    int silent = dial(w->tls);
    log_line(&w->server, "handshake_failed", "timeout");
    close(silent);
    assert_true(nobody_came(w));
    world_free(w);
}

static void test_held(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", ALLOW, false);
    int c = dial(w->port);
    say(c, "early");
    w->server.identity = make_identity(w, "spiffe://a.b/server");
    side_post(&w->server);
    w->client.identity = make_identity(w, "spiffe://a.b/client");
    side_post(&w->client);
    int s = take(w);
    hear(s, "early");
    close(s);
    close(c);
    world_free(w);
    w = world_new_explicit("tcp", ALLOW, false);
    c = dial(w->port);
    hear_reset(c); /* after identity.wait */
    log_line(&w->client, "\"connection\"", "no_identity");
    world_free(w);
}

static void test_rejudged(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", ALLOW, true);
    int c = dial(w->port);
    int s = take(w);
    say(c, "x");
    hear(s, "x");
    /* Rotation: nothing happens to it. */
    snapshot_identity_unref(w->server.identity);
    w->server.identity = make_identity(w, "spiffe://a.b/server");
    side_post(&w->server);
    say(c, "y");
    hear(s, "y");
    side_write(&w->server, "policy.yaml", ALLOW_NOBODY);
    struct snapshot_files *next = side_load(&w->server);
    assert_int_equal(snapshot_files_compatible(w->server.files, next, NULL), 0);
    snapshot_files_unref(w->server.files);
    w->server.files = next;
    side_post(&w->server);
    hear_reset(c);
    hear_reset(s);
    const char *l = log_line(&w->server, "\"connection\"", "policy_changed");
    expect_in(l, "\"peer_id\":\"spiffe://a.b/client\"");
    expect_in(l, "near_miss");
    world_free(w);
}

static void test_drain(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", ALLOW, true);
    int c = dial(w->port);
    int s = take(w);
    conn_worker_post_drain(w->server.worker, 1, 60000);
    conn_worker_post_drain(w->client.worker, 1, 300);
    say(c, "x");
    hear(s, "x");
    assert_false(conn_worker_drained(w->server.worker));
    hear_reset(c); /* the client side's time is over */
    hear_reset(s);
    uint64_t end = os_now_ms() + WAIT_MS;
    while (!conn_worker_drained(w->server.worker) && os_now_ms() < end) {
        poll(NULL, 0, 5);
    }
    assert_true(conn_worker_drained(w->server.worker));
    log_line(&w->client, "\"connection\"", "drained");
    world_free(w);
}

static void test_trust_withdrawn(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", ALLOW, true);
    int c = dial(w->port);
    int s = take(w);
    say(c, "x");
    hear(s, "x");
    /* Another root for the same trust domain: the client's certificate leads nowhere now. */
    struct certs_pair old = w->root;
    struct certs_spec spec = certs_ca("spiffe://a.b");
    spec.not_before_s = os_wall_s() - 3600;
    spec.not_after_s = os_wall_s() + 86400;
    w->root = certs_make(&spec, NULL);
    x509_trust_unref(w->trust);
    w->trust = x509_trust_new();
    size_t len = 0;
    uint8_t *der = certs_der(&w->root.cert, 1, &len);
    assert_int_equal(x509_trust_add(w->trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL),
                     0);
    free(der);
    snapshot_identity_unref(w->server.identity);
    w->server.identity = make_identity(w, "spiffe://a.b/server");
    side_post(&w->server);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "trust_changed");
    certs_free(&old);
    world_free(w);
}

static void test_states(void **state)
{
    (void)state;
    for (int s = 0; s < CONN_STATE_COUNT; s++) {
        assert_false(conn_state_may_follow(CONN_CLOSED, (enum conn_state)s));
        assert_false(conn_state_may_follow((enum conn_state)s, CONN_NEW));
        assert_false(conn_state_may_follow((enum conn_state)s, (enum conn_state)s));
        assert_int_equal(conn_state_may_follow((enum conn_state)s, CONN_CLOSED), s != CONN_CLOSED);
    }
    /* Bytes flow only behind a dial, a handshake or a request, and a request only behind a
     * handshake. */
    assert_false(conn_state_may_follow(CONN_NEW, CONN_PUMP));
    assert_false(conn_state_may_follow(CONN_HELD, CONN_PUMP));
    assert_false(conn_state_may_follow(CONN_DIAL, CONN_HTTP));
    assert_false(conn_state_may_follow(CONN_NEW, CONN_HTTP));
    /* A relay dials whom nobody has been judged for by no way, and shakes hands behind that. */
    assert_false(conn_state_may_follow(CONN_NEW, CONN_UPSTREAM_HANDSHAKE));
    assert_false(conn_state_may_follow(CONN_HANDSHAKE, CONN_UPSTREAM_HANDSHAKE));
    assert_true(conn_state_may_follow(CONN_DIAL, CONN_UPSTREAM_HANDSHAKE));
    assert_false(conn_state_may_follow(CONN_UPSTREAM_HANDSHAKE, CONN_HTTP));
    for (int r = 0; r < CONN_REASON_COUNT; r++) {
        assert_non_null(conn_reason_token((enum conn_reason)r));
        assert_non_null(conn_reason_text((enum conn_reason)r));
    }
}

/* --- HTTP ------------------------------------------------------------------------------------- */

static void test_http(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_GET, true);
    int c = dial(w->port);
    say(c, "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *got = hear_until(c, "\n\0");
    expect_in(got, "HTTP/1.1 403 ");
    expect_in(got, "x-postern-decision: ");
    const char *l = log_line(&w->server, "\"request\"", "\"status\":403");
    expect_in(l, "\"path\":\"/secret\"");
    expect_in(l, "client-reads");
    assert_true(nobody_came(w));
    /* The same connection goes on. */
    say(c, "GET /pub/1?q=1 HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=forged\r\n\r\n");
    int s = take(w);
    got = hear_until(s, "\r\n\r\n");
    expect_in(got, "GET /pub/1?q=1 HTTP/1.1\r\n");
    expect_in(got, "URI=spiffe://a.b/client");
    assert_null(strstr(got, "forged"));
    say(s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    hear_until(c, "he");
    say(s, "llo");
    hear(c, "llo");
    l = log_line(&w->server, "\"request\"", "\"status\":200");
    expect_in(l, "\"rule\":\"client-reads\"");
    /* A body behind a refusal is read away, pipelined requests are answered in order. */
    say(c, "POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbodyGET /pub/2 HTTP/1.1\r\n"
           "Host: a\r\n\r\nGET /pub/3 HTTP/1.1\r\nHost: a\r\n\r\n");
    expect_in(hear_until(c, "\n\0"), "403");
    got = hear_until(s, "\r\n\r\n");
    expect_in(got, "GET /pub/2 ");
    say(s, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
           "3\r\nabc\r\n0\r\n\r\n");
    got = hear_until(c, "0\r\n\r\n");
    expect_in(got, "100 Continue");
    expect_in(got, "3\r\nabc\r\n");
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub/3 ");
    say(s, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    close(s);
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    /* The workload's connection ended: the next request dials again. One that ends just as a
     * request comes is no failure of the request, if that may be repeated. */
    say(c, "GET /pub/5 HTTP/1.1\r\nHost: a\r\n\r\n");
    s = take(w);
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub/5 ");
    say(s, "HTTP/1.1 204 No Content\r\n\r\n");
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    say(c, "GET /pub/6 HTTP/1.1\r\nHost: a\r\n\r\n");
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub/6 ");
    close(s);
    s = take(w);
    expect_in(hear_until(s, "\r\n\r\n"), "GET /pub/6 ");
    say(s, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    close(s);
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    say(c, "POST /pub/4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
    s = take(w);
    expect_in(hear_until(s, "hi\r\n"), "POST /pub/4 ");
    say(c, "0\r\n\r\n");
    hear(s, "0\r\n\r\n");
    say(s, "HTTP/1.1 200 OK\r\n\r\nuntil the end");
    close(s);
    got = hear_until(c, "until the end");
    expect_in(got, "HTTP/1.1 200");
    hear_end(c);
    close(c);
    world_free(w);
}

static void test_http_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        const char *status;
    } cases[] = {
        {"GET /pub HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
        {"GET /pub\\x HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400"},
        {"POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "HTTP/1.1 400"},
        {"GET /pub HTTP/2.0\r\nHost: a\r\n\r\n", "HTTP/1.1 505"},
        {"GET /pub HT", "HTTP/1.1 408"}, /* and no more */
    };
    struct world *w = world_new_explicit("http", ALLOW_GET, true);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int c = dial(w->port);
        say(c, cases[i].request);
        const char *got = hear_until(c, "\n\0");
        expect_in(got, cases[i].status);
        hear_end(c);
        close(c);
    }
    assert_true(nobody_came(w));
    /* A client that ends between requests is answered by an end, on the wire too. */
    int idle = dial(w->port);
    say(idle, "GET /no HTTP/1.1\r\nHost: a\r\n\r\n");
    expect_in(hear_until(idle, "\n\0"), "403");
    shutdown(idle, SHUT_WR);
    hear_end(idle);
    close(idle);
    /* An answer of ours is the last one where the client says so (RFC 9112 9.3, 9.6). */
    static const char *const last[] = {
        "GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /no HTTP/1.0\r\nHost: a\r\n\r\n",
    };
    for (size_t i = 0; i < 2; i++) {
        int once = dial(w->port);
        say(once, last[i]);
        const char *got = hear_until(once, "\n\0");
        expect_in(got, "403");
        expect_in(got, "Connection: close");
        hear_end(once);
        close(once);
    }
    /* The workload is away: 503, and the connection goes on. */
    close(w->workload);
    int c = dial(w->port);
    for (int i = 0; i < 2; i++) {
        say(c, "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
        const char *got = hear_until(c, "\n\0");
        expect_in(got, "HTTP/1.1 503");
        expect_in(got, "connect_refused");
    }
    close(c);
    w->workload = dup(0);
    world_free(w);
}

static void test_http_bad_workload(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        const char *status; /* NULL: too late for one */
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 502"},
        {"garbage\r\n\r\n", "HTTP/1.1 502"},
        {"", "HTTP/1.1 502"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", NULL},
    };
    struct world *w = world_new_explicit("http", ALLOW_GET, true);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int c = dial(w->port);
        say(c, "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
        int s = take(w);
        hear_until(s, "\r\n\r\n");
        say(s, cases[i].answer);
        close(s);
        if (cases[i].status != NULL) {
            expect_in(hear_until(c, "\n\0"), cases[i].status);
            close(c);
        } else {
            hear_reset(c);
        }
    }
    world_free(w);
}

static void test_http_upgrade(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_GET, true);
    int c = dial(w->port);
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst");
    expect_in(hear_until(c, "first"), "HTTP/1.1 101");
    say(c, "raw");
    hear(s, "raw");
    /* What was allowed as a request is judged again as one. */
    side_write(&w->server, "policy.yaml", ALLOW_NOBODY);
    struct snapshot_files *next = side_load(&w->server);
    snapshot_files_unref(w->server.files);
    w->server.files = next;
    side_post(&w->server);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "policy_changed");
    world_free(w);
}

static void test_http_drain(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_GET, true);
    int c = dial(w->port);
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    conn_worker_post_drain(w->server.worker, 1, 60000);
    poll(NULL, 0, 50); /* past the end of accepting: the request in flight stays */
    say(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    expect_in(hear_until(c, "\r\n\r\nok"), "close");
    hear_end(c);
    close(c);
    close(s);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),        cmocka_unit_test(test_trust_withdrawn),
        cmocka_unit_test(test_denied),        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_tcp_bulk),      cmocka_unit_test(test_wrong_peer),
        cmocka_unit_test(test_held),          cmocka_unit_test(test_rejudged),
        cmocka_unit_test(test_drain),         cmocka_unit_test(test_http),
        cmocka_unit_test(test_http_refusals), cmocka_unit_test(test_http_bad_workload),
        cmocka_unit_test(test_http_upgrade),  cmocka_unit_test(test_http_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
