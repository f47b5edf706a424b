/*
 * Connections as streams of sessions, through a client's and a server's worker; and, for what no
 * Postern would ask, a session of the test's own. Bad cases first.
 */
#include <postern/conn.h>

#include "hbone_own.h"
#include "hbone_world.h"

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                            "    action: ALLOW\n    from:\n"
                            "      - principals: [\"spiffe://a.b/client\"]\n";
static const char ALLOW_GET[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-reads\n"
                                "    action: ALLOW\n    from:\n"
                                "      - principals: [\"spiffe://a.b/client\"]\n    to:\n"
                                "      - methods: [GET]\n        paths: [\"/pub*\"]\n";
static const char ALLOW_NOBODY[] = "kind: Policy\nlevel: 1\nrules:\n  - name: nobody\n"
                                   "    action: ALLOW\n    from:\n"
                                   "      - principals: [\"spiffe://a.b/nobody\"]\n";

static void test_refused(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    struct own o;
    char text[64];
    struct {
        const char *host;
        uint16_t port;
        unsigned status;
        const char *reason;
    } cases[] = {
        {"127.0.0.2", w->backend, 400, "bad_authority"},
        {"localhost", w->backend, 400, "bad_auth"},
        {"[::1]", w->backend, 400, "bad_authority"},
        {"127.0.0.1", 0, 400, "bad_authority"},
        {"127.0.0.1", w->hbone, 503, "\"loop\""},
        {"127.0.0.1", w->closed, 503, "refused"},
        {"[::ffff:127.0.0.2]", w->backend, 400, "bad_authority"},
        {"[::ffff:127.0.0.1]", w->hbone, 503, "\"loop\""},
        {"[::ffff:127.0.0.1]", w->backend, 200, "done"},
        {"127.0.0.1", w->backend, 200, "done"},
    };
    assert_true(own_open(w, &o, NULL));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), "%s:%u", cases[i].host, cases[i].port);
        if (own_ask(&o, text) != cases[i].status) {
            fail_msg("%s: %u", text, o.st.status);
        }
        if (cases[i].status != 200) {
            char *l = log_line(&w->server, "\"connection\"", cases[i].reason);
            expect_in(l, "\"transport\":\"hbone\"");
            expect_in(l, "\"peer_id\":\"spiffe://a.b/client\"");
        }
    }
    assert_int_equal(sessions(&w->server, CONF_INBOUND), 1); /* all of them in the same */
    own_close(&o);
    log_line(&w->server, "\"hbone_session\"", "\"streams\":10");
    world_free(w);
}

static void test_denied(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW_NOBODY);
    struct own o;
    char text[64];
    assert_true(own_open(w, &o, NULL));
    snprintf(text, sizeof(text), "127.0.0.1:%u", w->backend);
    assert_int_equal(own_ask(&o, text), 401);
    char *l = log_line(&w->server, "\"connection\"", "policy_denied");
    expect_in(l, "\"decision\":\"");
    expect_in(l, "\"near_miss\":\"");
    expect_in(l, "\"session\":\"0-0\"");
    own_close(&o);
    /* And through a client of ours: it is reset, and told why in the log. */
    hear_reset(dial(w->port));
    l = log_line(&w->client, "\"connection\"", "stream_refused");
    expect_in(l, "\"status\":401");
    struct pollfd p = {.fd = w->workload, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    world_free(w);
}

static void test_alpn(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    struct own o;
    char text[64];
    assert_false(own_open(w, &o, "http/1.1"));
    own_close(&o);
    assert_false(own_open(w, &o, "postern/1"));
    own_close(&o);
    log_line(&w->server, "\"handshake_failed\"", "\"alert_sent\"");
    snprintf(text, sizeof(text), "127.0.0.1:%u", w->backend);
    assert_true(own_open(w, &o, "")); /* none at all */
    assert_int_equal(own_ask(&o, text), 200);
    own_close(&o);
    world_free(w);
}

static void test_garbage(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    struct own o;
    assert_true(own_open(w, &o, NULL));
    assert_int_equal(stream_write(&o.transport.base, (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18),
                     STREAM_OK);
    log_line(&w->server, "\"session_refused\"", "\"step\":\"protocol\"");
    log_line(&w->server, "\"connection\"", "session_abused");
    own_close(&o);
    world_free(w);
}

/* --- connections through both ----------------------------------------------------------------- */

static void test_tcp(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
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
    l = log_line(&w->client, "\"connection\"", "\"reason\":\"done\"");
    expect_in(l, "\"transport\":\"hbone\"");
    expect_in(l, "\"peer_id\":\"spiffe://a.b/server\"");
    /* A reset travels, either way. */
    for (int way = 0; way < 2; way++) {
        c = through(w, &s);
        reset(way == 0 ? c : s);
        hear_reset(way == 0 ? s : c);
    }
    assert_int_equal(sessions(&w->server, CONF_INBOUND), 1);
    /* The workload is away: only that connection hears of it. */
    c = through(w, &s);
    close(w->workload);
    hear_reset(dial(w->port));
    log_line(&w->server, "\"connection\"", "connect_refused");
    say(c, "on");
    hear(s, "on");
    close(c);
    hear_end(s);
    close(s);
    w->workload = dup(0);
    world_free(w);
}

/* Nobody is there who carries it, or not whom the route expects. */
static void test_no_session(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    snapshot_identity_unref(w->server.identity);
    w->server.identity = make_identity(w, "spiffe://a.b/other");
    post(&w->server);
    int c = dial(w->port);
    hear_reset(c);
    log_line(&w->client, "\"handshake_failed\"", "spiffe://a.b/other");
    log_line(&w->client, "\"connection\"", "\"transport_why\":\"declared\"");
    conn_worker_stop(w->server.worker);
    conn_worker_free(w->server.worker);
    w->server.worker = NULL;
    hear_reset(dial(w->port));
    log_line(&w->client, "\"connection\"", "connect_refused");
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 0);
    world_free(w);
}

/* One hundred on one connection, 64 MiB each way through them; the next ones get another. */
static void test_hundred(void **state)
{
    (void)state;
    enum { N = HBONE_CLIENT_STREAMS, EACH = 64 * 1024 * 1024 / N, PART = 32 * 1024 };
    struct world *w = world_new("tcp", ALLOW);
    static int c[N], s[N];
    static size_t sent[2 * N], got[2 * N];
    static uint8_t part[PART], in[PART];
    memset(sent, 0, sizeof(sent));
    memset(got, 0, sizeof(got));
    for (size_t i = 0; i < N; i++) {
        c[i] = through(w, &s[i]);
    }
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 1);
    for (size_t done = 0; done < (size_t)2 * N;) {
        struct pollfd p[2 * N];
        for (size_t i = 0; i < (size_t)2 * N; i++) {
            bool writes = sent[i] < EACH, reads = got[i] < EACH;
            p[i] =
                (struct pollfd){.fd = i < N ? c[i] : s[i - N],
                                .events = (short)((writes ? POLLOUT : 0) | (reads ? POLLIN : 0))};
        }
        assert_true(poll(p, (nfds_t)2 * N, WAIT_MS) > 0);
        for (size_t i = 0; i < (size_t)2 * N; i++) {
            if ((p[i].revents & POLLOUT) != 0 && sent[i] < EACH) {
                size_t n = EACH - sent[i] < PART ? EACH - sent[i] : PART;
                memset(part, (int)(i + 1), n);
                ssize_t r = send(p[i].fd, part, n, MSG_DONTWAIT | MSG_NOSIGNAL);
                sent[i] += r > 0 ? (size_t)r : 0;
            }
            if ((p[i].revents & POLLIN) != 0 && got[i] < EACH) {
                ssize_t r = recv(p[i].fd, in, PART, MSG_DONTWAIT);
                assert_true(r > 0);
                uint8_t from = (uint8_t)((i < N ? i + N : i - N) + 1);
                for (ssize_t k = 0; k < r; k++) {
                    assert_int_equal(in[k], from);
                }
                got[i] += (size_t)r;
                done += got[i] == EACH;
            }
        }
    }
    int s2;
    int c2 = through(w, &s2);
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 2);
    assert_int_equal(sessions(&w->server, CONF_INBOUND), 2);
    /* One that ends makes room in the first. */
    close(c[0]);
    hear_end(s[0]);
    close(s[0]);
    log_line(&w->client, "\"connection\"", "\"reason\":\"done\"");
    c[0] = through(w, &s[0]);
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 2);
    for (size_t i = 0; i < N; i++) {
        close(c[i]);
        close(s[i]);
    }
    close(c2);
    close(s2);
    world_free(w);
}

/* --- changes ---------------------------------------------------------------------------------- */

static void test_policy_change(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    int s;
    int c = through(w, &s);
    write_file(w->server.dir, "policy.yaml", ALLOW_NOBODY);
    load(w, &w->server);
    post(&w->server);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "policy_changed");
    write_file(w->server.dir, "policy.yaml", ALLOW);
    load(w, &w->server);
    post(&w->server);
    c = through(w, &s); /* by the session that stands */
    assert_int_equal(sessions(&w->server, CONF_INBOUND), 1);
    close(c);
    close(s);
    world_free(w);
}

/* A new certificate of ours: the session goes on for those that it has, others get a new one. */
static void test_rotation(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    int s, s2;
    int c = through(w, &s);
    snapshot_identity_unref(w->client.identity);
    w->client.identity = make_identity(w, "spiffe://a.b/client");
    post(&w->client);
    int c2 = through(w, &s2);
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 2);
    say(c, "on");
    hear(s, "on");
    close(c);
    hear_end(s);
    close(s);
    log_line(&w->client, "\"hbone_session\"", "session_spent");
    say(c2, "on");
    hear(s2, "on");
    close(c2);
    close(s2);
    world_free(w);
}

/* Their authority is no longer trusted: session and streams end, without a word from them. */
static void test_trust_change(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 2; which++) {
        struct world *w = world_new("tcp", ALLOW);
        int s;
        int c = through(w, &s);
        struct side *side = which == 0 ? &w->server : &w->client;
        new_root(w);
        snapshot_identity_unref(side->identity);
        side->identity =
            make_identity(w, which == 0 ? "spiffe://a.b/server" : "spiffe://a.b/client");
        post(side);
        hear_reset(c);
        hear_reset(s);
        expect_in(log_line(side, "\"hbone\"", "trust_changed"), "\"session\":");
        expect_in(log_line(side, "\"hbone_session\"", "trust_changed"), "\"streams\":1");
        world_free(w);
    }
}

static void test_http(void **state)
{
    (void)state;
    struct world *w = world_new("http", ALLOW_GET);
    char got[4096];
    int c = dial(w->port);
    say(c, "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    ssize_t n = recv(c, got, sizeof(got) - 1, 0);
    got[n > 0 ? n : 0] = '\0';
    expect_in(got, "HTTP/1.1 403 ");
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
    int s = take(w);
    n = recv(s, got, sizeof(got) - 1, 0);
    got[n > 0 ? n : 0] = '\0';
    expect_in(got, "URI=spiffe://a.b/client");
    say(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    n = recv(c, got, sizeof(got) - 1, 0);
    got[n > 0 ? n : 0] = '\0';
    expect_in(got, "200 OK");
    close(c);
    close(s);
    /* An answer of ours that ends the connection is read whole, and then the end. */
    c = dial(w->port);
    say(c, "nonsense\r\n\r\n");
    n = recv(c, got, sizeof(got) - 1, MSG_WAITALL);
    got[n > 0 ? n : 0] = '\0';
    expect_in(got, "HTTP/1.1 400 ");
    close(c);
    world_free(w);
}

/* As many connections as there may be: the others are refused, and it is said. */
static void test_full(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    int s;
    int c = through(w, &s);
    char text[2000], path[160];
    snprintf(path, sizeof(path), "%s/proxy.yaml", w->server.dir);
    FILE *f = fopen(path, "r+");
    size_t n = fread(text, 1, sizeof(text) - 100, f);
    fclose(f);
    snprintf(text + n, 100, "limits: {connections: 2}\n"); /* the session is one as well */
    write_file(w->server.dir, "proxy.yaml", text);
    load(w, &w->server);
    post(&w->server);
    hear_reset(dial(w->port));
    expect_in(log_line(&w->client, "\"connection\"", "stream_refused"), "\"status\":503");
    log_line(&w->server, "\"stream_refused\"", "limits.connections");
    say(c, "on");
    hear(s, "on");
    close(c);
    hear_end(s);
    close(s);
    log_line(&w->server, "\"connection\"", "\"reason\":\"done\"");
    c = through(w, &s);
    close(c);
    close(s);
    world_free(w);
}

/* Draining: what is open goes on, the session says that it leaves, and is gone with the last. */
static void test_drain(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", ALLOW);
    int s;
    int c = through(w, &s);
    conn_worker_post_drain(w->server.worker, 1000, 60000);
    log_line(&w->client, "\"session_leaves\"", "\"by\":\"peer\"");
    say(c, "on");
    hear(s, "on");
    close(c);
    hear_end(s);
    close(s);
    log_line(&w->server, "\"hbone_session\"", "\"connection\"");
    uint64_t end = os_now_ms() + WAIT_MS;
    while (!conn_worker_drained(w->server.worker) && os_now_ms() < end) {
        struct pollfd p = {.fd = w->server.log_wake, .events = POLLIN};
        poll(&p, 1, 20);
    }
    assert_true(conn_worker_drained(w->server.worker));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_denied),
        cmocka_unit_test(test_alpn),     cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_tcp),      cmocka_unit_test(test_no_session),
        cmocka_unit_test(test_hundred),  cmocka_unit_test(test_policy_change),
        cmocka_unit_test(test_rotation), cmocka_unit_test(test_trust_change),
        cmocka_unit_test(test_http),     cmocka_unit_test(test_full),
        cmocka_unit_test(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
