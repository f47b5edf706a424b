/*
 * A relay that judges requests and goes on by a session that many share: what becomes of its way on
 * is an answer, and the client's connection stays. Bad cases first.
 */
#include "relay_world.h"

#define H2_END_ALONE
#include "h2_end.h"

static const char HTTP[] = ", protocol: http";
static const char HTTP_BY_STREAM[] = ", protocol: http, transport: hbone";
static const char OPEN_ONLY[] =
    "kind: Policy\nlevel: 1\nrules: [{name: app-open, action: ALLOW, "
    "from: [{principals: [\"" APP "\"]}], to: [{paths: [\"/open*\"]}]}]\n";

static const char *more_of(bool by_stream)
{
    return by_stream ? HTTP_BY_STREAM : HTTP;
}

/* Reads until the text has come; what follows it is dropped. */
static void until(int fd, const char *text)
{
    char got[16384] = "";
    size_t n = 0;
    while (strstr(got, text) == NULL) {
        ssize_t r = recv(fd, got + n, sizeof(got) - 1 - n, 0);
        if (r <= 0) {
            fail_msg("expected %s, have: %s", text, got);
        }
        n += (size_t)r;
        got[n] = '\0';
    }
}

static void tell(int fd, const char *text)
{
    say(fd, text, strlen(text));
}

static void get(int fd, const char *path)
{
    char text[200];
    int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    say(fd, text, (size_t)n);
}

/* --- no way on -------------------------------------------------------------------------------- */

static void test_denied(void **state)
{
    (void)state;
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        struct way *y = way_new(TAKES);
        relay_hbone(y, "hbone", more_of(by_stream), OPEN_ONLY);
        app(y, by_stream);
        int c = dial(y->w->plain);
        get(c, "/shut");
        until(c, "HTTP/1.1 403 ");
        assert_int_equal(conn_worker_counters(y->mid.worker)->accepted[CONF_OUTBOUND], 0);
        assert_true(nobody_came(y->w->target[0]));
        close(c);
        way_free(y);
    }
}

/* Each request is answered, also those that came behind the first one. */
static void test_nobody_there(void **state)
{
    (void)state;
    uint16_t dead = 0;
    int held = held_port(&dead);
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        static const char two[] = "GET /open/1 HTTP/1.1\r\nHost: a\r\n\r\n"
                                  "GET /open/2 HTTP/1.1\r\nHost: a\r\n\r\n";
        struct way *y = way_new(TAKES);
        char to[60];
        char upstream[100];
        snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->target_port[0]);
        snprintf(upstream, sizeof(upstream), "transport: hbone, hbone_port: %u", dead);
        relay(y, to, upstream, more_of(by_stream), OPEN_ONLY);
        app(y, by_stream);
        int c = dial(y->w->plain);
        say(c, two, sizeof(two) - 1);
        log_line(&y->mid, "\"request\"", "/open/1");
        log_line(&y->mid, "\"path\":\"/open/2\"", "\"reason\":\"connect_refused\"");
        until(c, "x-postern-reason: connect_refused");
        get(c, "/open/3");
        log_line(&y->mid, "\"path\":\"/open/3\"", "\"status\":503");
        close(c);
        way_free(y);
    }
    close(held);
}

static void another_server(struct way *y)
{
    char conf[500];
    snapshot_identity_unref(y->w->server.identity);
    x509_svid_free(y->w->server.svid);
    snapshot_parties_unref(y->w->server.parties);
    snapshot_files_unref(y->w->server.files);
    y->w->server.parties = NULL;
    y->w->server.files = NULL;
    make_identity(y->w, &y->w->server, "spiffe://a.b/somebody");
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\npolicy: "
             "policy.yaml\nlisteners:\n  - {name: in, type: server, address: "
             "\"127.0.0.1:%u\", to: \"127.0.0.1:%u\", transport: hbone}\n",
             y->w->port, y->w->target_port[0]);
    load(y->w, &y->w->server, conf);
    post(&y->w->server);
    settled(&y->w->server);
}

static void test_wrong_identity(void **state)
{
    (void)state;
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        struct way *y = way_new(TAKES);
        another_server(y);
        relay_hbone(y, by_stream ? "auto" : "hbone", more_of(by_stream), OPEN_ONLY);
        app(y, by_stream);
        int c = dial(y->w->plain);
        get(c, "/open/1");
        until(c, "x-postern-reason: upstream_handshake_failed");
        log_line(&y->mid, "\"handshake_failed\"", "spiffe://a.b/somebody");
        assert_true(nobody_came(y->w->target[0]));
        close(c);
        way_free(y);
    }
}

/* The last hop takes the session and not the stream. */
static void test_refused(void **state)
{
    (void)state;
    struct way *y = way_new(TAKES);
    deny_everybody(y->w, &y->w->server);
    settled(&y->w->server);
    relay_hbone(y, "auto", HTTP, OPEN_ONLY);
    app(y, false);
    int c = dial(y->w->plain);
    get(c, "/open/1");
    until(c, "x-postern-reason: stream_refused");
    get(c, "/open/2");
    until(c, "x-postern-reason: stream_refused");
    assert_true(nobody_came(y->w->target[0]));
    assert_int_equal(sessions(&y->mid, CONF_OUTBOUND), 1);
    close(c);
    way_free(y);
}

/* --- a way on --------------------------------------------------------------------------------- */

static void exchange(int c, int s, const char *path)
{
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
    char line[100];
    snprintf(line, sizeof(line), "GET %s HTTP/1.1\r\n", path);
    get(c, path);
    until(s, "\r\n\r\n");
    say(s, ok, sizeof(ok) - 1);
    until(c, "body");
}

static void test_requests(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool by_stream = (i & 1) != 0;
        struct way *y = way_new(TAKES);
        relay_hbone(y, i < 2 ? "hbone" : "auto", more_of(by_stream), OPEN_ONLY);
        app(y, by_stream);
        int c[3], s[3];
        for (unsigned k = 0; k < 3; k++) {
            c[k] = dial(y->w->plain);
            get(c[k], "/open/first");
            s[k] = take(y->w->target[0]);
            until(s[k], ";URI=" APP "\r\n");
            tell(s[k], "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
            until(c[k], "first");
            exchange(c[k], s[k], "/open/again"); /* by the same stream */
        }
        get(c[0], "/shut");
        until(c[0], "HTTP/1.1 403 ");
        exchange(c[0], s[0], "/open/still");
        assert_int_equal(sessions(&y->mid, CONF_OUTBOUND), 1);
        assert_int_equal(conn_worker_counters(y->mid.worker)->streams[CONF_OUTBOUND], 3);
        assert_true(nobody_came(y->w->target[0]));
        /* The hop's workload ends an idle one: the next request asks for another stream. */
        close(s[1]);
        get(c[1], "/open/anew");
        s[1] = take(y->w->target[0]);
        until(s[1], "GET /open/anew HTTP/1.1\r\n");
        for (unsigned k = 0; k < 3; k++) {
            close(c[k]);
            close(s[k]);
        }
        const char *l = log_line(&y->mid, "\"request\"", "\"path\":\"/open/still\"");
        assert_non_null(strstr(l, "\"peer_id\":\"" APP "\""));
        assert_non_null(strstr(l, "\"upstream_session\":\""));
        way_free(y);
    }
}

/* Nobody takes HBONE there: directly, with the same peer. */
static void test_falls_back(void **state)
{
    (void)state;
    struct way *y = way_new(DIRECT);
    char to[60];
    snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->port);
    relay(y, to, "transport: auto", HTTP, OPEN_ONLY);
    app(y, false);
    for (unsigned i = 0; i < 2; i++) {
        int c = dial(y->w->plain);
        get(c, "/open");
        int s = take(y->w->target[0]);
        until(s, "GET /open HTTP/1.1\r\n");
        tell(s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
        until(c, "first");
        close(c);
        close(s);
    }
    log_line(&y->mid, "\"upstream_transport\":\"direct\"", "\"transport_why\":\"refused\"");
    log_line(&y->mid, "\"upstream_transport\":\"direct\"", "\"transport_why\":\"learned\"");
    way_free(y);
}

/* The session is lost with the last hop: whoever waits for an answer gets one, whoever is idle
 * notices nothing, and both may ask again. */
static void test_session_lost(void **state)
{
    (void)state;
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        struct way *y = way_new(TAKES);
        relay_hbone(y, "hbone", more_of(by_stream), OPEN_ONLY);
        app(y, by_stream);
        int c[2], s[2];
        for (unsigned k = 0; k < 2; k++) {
            c[k] = dial(y->w->plain);
            get(c[k], "/open/1");
            s[k] = take(y->w->target[0]);
            tell(s[k], "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
            until(c[k], "first");
        }
        tell(c[1], "POST /open/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy");
        until(s[1], "xy");
        conn_worker_stop(y->w->server.worker);
        until(c[1], "HTTP/1.1 502 ");
        for (unsigned k = 0; k < 2; k++) {
            get(c[k], "/open/3");
            until(c[k], "HTTP/1.1 503 ");
            close(c[k]);
            close(s[k]);
        }
        way_free(y);
    }
}

static void test_upgrade(void **state)
{
    (void)state;
    static const char ask_up[] = "GET /open HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
                                 "Upgrade: websocket\r\nSec-WebSocket-Key: "
                                 "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    static const char up[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                             "Upgrade: websocket\r\n\r\nhello";
    struct way *y = way_new(TAKES);
    relay_hbone(y, "hbone", HTTP_BY_STREAM, OPEN_ONLY);
    app(y, true);
    int c = dial(y->w->plain);
    say(c, ask_up, sizeof(ask_up) - 1);
    int s = take(y->w->target[0]);
    until(s, "\r\n\r\n");
    say(s, up, sizeof(up) - 1);
    until(c, "hello");
    say(c, "ping", 4);
    hear(s, "ping", 4);
    say(s, "pong", 4);
    hear(c, "pong", 4);
    deny_everybody(y->w, &y->w->server); /* the last hop takes it away */
    hear_reset(c);
    close(s);
    way_free(y);
}

/* Who may no more is cut off in the middle, and the hop hears of it. */
static void test_withdrawn(void **state)
{
    (void)state;
    struct way *y = way_new(TAKES);
    relay_hbone(y, "hbone", HTTP, OPEN_ONLY);
    app(y, false);
    int c = dial(y->w->plain);
    tell(c, "POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nxy");
    int s = take(y->w->target[0]);
    until(s, "xy");
    told(&y->mid, NOBODY, NULL);
    post(&y->mid);
    hear_reset(s);
    hear_reset(c);
    log_line(&y->mid, "\"connection\"", "policy_changed");
    way_free(y);
}

/* --- HTTP/2 ----------------------------------------------------------------------------------- */

static void test_h2(void **state)
{
    (void)state;
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        struct way *y = way_new(TAKES);
        relay_hbone(y, "hbone", more_of(by_stream), OPEN_ONLY);
        app(y, by_stream);
        struct end *c = end_new(dial(y->w->plain), false);
        ask(c, true, FIELDS(TO("/shut")));
        see(c, NULL, "response 1\nHTTP/1.1 403 ");
        assert_true(nobody_came(y->w->target[0]));
        ask(c, true, FIELDS(TO("/open/1")));
        ask(c, true, FIELDS(TO("/open/2")));
        struct end *s = end_new(take(y->w->target[0]), true);
        see(s, c, "GET /open/1 HTTP/1.1\r\n");
        see(s, c, "GET /open/2 HTTP/1.1\r\n");
        answer(s, s->side.by_id[3], true, FIELDS(":status", "204"));
        see(c, s, "response 5 ends\nHTTP/1.1 204 ");
        conn_worker_stop(y->w->server.worker); /* the session is lost */
        see(c, NULL, "response 3\nHTTP/1.1 502 ");
        ask(c, true, FIELDS(TO("/open/3")));
        see(c, NULL, "response 7\nHTTP/1.1 503 ");
        end_free(c);
        end_free(s);
        way_free(y);
    }
}

static void test_h2_refused(void **state)
{
    (void)state;
    struct way *y = way_new(TAKES);
    deny_everybody(y->w, &y->w->server);
    settled(&y->w->server);
    relay_hbone(y, "hbone", HTTP, OPEN_ONLY);
    app(y, false);
    struct end *c = end_new(dial(y->w->plain), false);
    ask(c, true, FIELDS(TO("/open/1")));
    see(c, NULL, "x-postern-reason: stream_refused");
    ask(c, true, FIELDS(TO("/open/2")));
    see(c, NULL, "response 3\nHTTP/1.1 503 ");
    assert_true(nobody_came(y->w->target[0]));
    end_free(c);
    way_free(y);
}

static void test_h2_falls_back(void **state)
{
    (void)state;
    struct way *y = way_new(DIRECT);
    char to[60];
    snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->port);
    relay(y, to, "transport: auto", HTTP, OPEN_ONLY);
    app(y, false);
    struct end *c = end_new(dial(y->w->plain), false);
    ask(c, true, FIELDS(TO("/open/1")));
    struct end *s = end_new(take(y->w->target[0]), true);
    see(s, c, "GET /open/1 HTTP/1.1\r\n");
    answer(s, s->side.by_id[1], true, FIELDS(":status", "204"));
    see(c, s, "response 1 ends\nHTTP/1.1 204 ");
    end_free(c);
    end_free(s);
    way_free(y);
}

/* By the name that the client asks for. */
static void test_sni(void **state)
{
    (void)state;
    struct way *y = way_new(TAKES);
    char to[60];
    char upstream[100];
    char more[200];
    char conf[600];
    snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->target_port[1]); /* nobody takes that */
    snprintf(upstream, sizeof(upstream), "transport: hbone, hbone_port: %u", y->w->port);
    snprintf(more, sizeof(more), ", protocol: http, sni: [{names: [a.x], to: \"127.0.0.1:%u\"}]",
             y->w->target_port[0]);
    relay(y, to, upstream, more, OPEN_ONLY);
    snapshot_identity_unref(y->w->client.identity);
    x509_svid_free(y->w->client.svid);
    y->w->client.identity = NULL;
    y->w->client.svid = NULL;
    make_identity(y->w, &y->w->client, APP);
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\nlisteners:\n"
             "  - {name: a, type: client, address: 127.0.0.1:%u, to: 127.0.0.1:%u, server_name: "
             "a.x, identities: [\"spiffe://a.b/client\"]}\n",
             y->w->plain, y->port);
    side_start(y->w, &y->w->client, conf);
    int c = dial(y->w->plain);
    get(c, "/open");
    int s = take(y->w->target[0]);
    until(s, "GET /open HTTP/1.1\r\n");
    tell(s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst");
    until(c, "first");
    exchange(c, s, "/open/again");
    close(c);
    close(s);
    way_free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_denied),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_wrong_identity),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_falls_back),
        cmocka_unit_test(test_session_lost),
        cmocka_unit_test(test_upgrade),
        cmocka_unit_test(test_withdrawn),
        cmocka_unit_test(test_h2),
        cmocka_unit_test(test_h2_refused),
        cmocka_unit_test(test_h2_falls_back),
        cmocka_unit_test(test_sni),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
