/*
 * A relay between a client and the last hop: by a connection of its own, or by a session that many
 * share. Its client comes directly or as a stream. Bad cases first.
 */
#include "relay_world.h"

/* --- refused ---------------------------------------------------------------------------------- */

static void test_denied(void **state)
{
    (void)state;
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        struct way *y = way_new(TAKES);
        relay_hbone(y, "hbone", by_stream ? ", transport: hbone" : "", NOBODY);
        app(y, by_stream);
        int c = dial(y->w->plain);
        say(c, "secret", 6);
        hear_reset(c);
        log_line(&y->mid, "\"connection\"", "policy_denied");
        assert_int_equal(conn_worker_counters(y->mid.worker)->accepted[CONF_OUTBOUND], 0);
        assert_true(nobody_came(y->w->target[0]));
        way_free(y);
    }
}

static void test_wrong_identity(void **state)
{
    (void)state;
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        struct way *y = way_new(TAKES);
        snapshot_identity_unref(y->w->server.identity);
        x509_svid_free(y->w->server.svid);
        snapshot_parties_unref(y->w->server.parties);
        snapshot_files_unref(y->w->server.files);
        y->w->server.parties = NULL;
        y->w->server.files = NULL;
        make_identity(y->w, &y->w->server, "spiffe://a.b/somebody");
        char conf[500];
        snprintf(conf, sizeof(conf),
                 "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\npolicy: "
                 "policy.yaml\nlisteners:\n  - {name: in, type: server, address: "
                 "\"127.0.0.1:%u\", to: \"127.0.0.1:%u\", transport: hbone}\n",
                 y->w->port, y->w->target_port[0]);
        load(y->w, &y->w->server, conf);
        post(&y->w->server);
        settled(&y->w->server);
        relay_hbone(y, by_stream ? "auto" : "hbone", by_stream ? ", transport: hbone" : "", MAY);
        app(y, by_stream);
        int c = dial(y->w->plain);
        say(c, "secret", 6);
        hear_reset(c);
        log_line(&y->mid, "\"handshake_failed\"", "spiffe://a.b/somebody");
        const char *l = log_line(&y->mid, "\"connection\"", "\"upstream_handshake_failed\"");
        assert_non_null(strstr(l, "\"peer_id\":\"" APP "\""));
        assert_non_null(strstr(l, "\"bytes_up\":0"));
        assert_int_equal(conn_worker_counters(y->mid.worker)->handshakes[CONF_INBOUND], 1);
        assert_true(nobody_came(y->w->target[0]));
        way_free(y);
    }
}

/* The last hop takes the session and not the stream. */
static void test_refused(void **state)
{
    (void)state;
    for (unsigned by_stream = 0; by_stream < 2; by_stream++) {
        struct way *y = way_new(TAKES);
        deny_everybody(y->w, &y->w->server);
        settled(&y->w->server);
        relay_hbone(y, "auto", by_stream ? ", transport: hbone" : "", MAY);
        app(y, by_stream);
        hear_reset(dial(y->w->plain));
        const char *l = log_line(&y->mid, "\"connection\"", "\"stream_refused\"");
        assert_non_null(strstr(l, "\"status\":401"));
        assert_non_null(strstr(l, "\"upstream_session\":\""));
        if (by_stream) { /* what the other side's policy says is no word about this side */
            log_line(&y->w->client, "\"stream_refused\"", "\"status\":503");
        }
        assert_true(nobody_came(y->w->target[0]));
        way_free(y);
    }
}

static void test_loop(void **state)
{
    (void)state;
    struct way *y = way_new(TAKES);
    char to[60];
    char upstream[100];
    snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->target_port[0]);
    snprintf(upstream, sizeof(upstream), "transport: hbone, hbone_port: %u", y->port);
    relay(y, to, upstream, ", transport: hbone", MAY);
    app(y, true);
    hear_reset(dial(y->w->plain));
    log_line(&y->mid, "\"connection\"", "\"reason\":\"loop\"");
    assert_int_equal(sessions(&y->mid, CONF_OUTBOUND), 0);
    way_free(y);
}

/* --- going through ---------------------------------------------------------------------------- */

static void send_all(int from, int to)
{
    enum { PART = 60000, PARTS = 80 };
    static uint8_t part[PART];
    static uint8_t got[PART];
    size_t sent = 0;
    size_t n = 0;
    for (size_t i = 0; i < PART; i++) {
        part[i] = (uint8_t)(i * 7);
    }
    while (n < (size_t)PART * PARTS) {
        struct pollfd p[2] = {
            {.fd = from, .events = (short)(sent < (size_t)PART * PARTS ? POLLOUT : 0)},
            {.fd = to, .events = POLLIN}};
        assert_true(poll(p, 2, WAIT_MS) > 0);
        if ((p[0].revents & POLLOUT) != 0) {
            size_t at = sent % PART;
            ssize_t r = send(from, part + at, PART - at, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += r > 0 ? (size_t)r : 0;
        }
        if ((p[1].revents & POLLIN) != 0) {
            ssize_t r = recv(to, got, PART - n % PART, MSG_DONTWAIT);
            assert_true(r > 0);
            assert_memory_equal(got, part + n % PART, (size_t)r);
            n += (size_t)r;
        }
    }
}

/* Either way in, either way on; both ends travel, and many share one session. */
static void test_through(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool by_stream = (i & 1) != 0;
        struct way *y = way_new(TAKES);
        relay_hbone(y, i < 2 ? "hbone" : "auto", by_stream ? ", transport: hbone" : "", MAY);
        app(y, by_stream);
        int s[6], c[6];
        for (unsigned k = 0; k < 6; k++) {
            c[k] = through(y, y->w->plain, &s[k]);
        }
        send_all(c[0], s[0]);
        send_all(s[1], c[1]);
        shutdown(c[2], SHUT_WR);
        char byte;
        assert_int_equal(recv(s[2], &byte, 1, 0), 0);
        say(s[2], "still", 5);
        hear(c[2], "still", 5);
        close(s[2]);
        assert_int_equal(recv(c[2], &byte, 1, 0), 0);
        close(c[2]);
        for (unsigned k = 3; k < 5; k++) { /* a reset, each way */
            int *from = k == 3 ? &c[k] : &s[k];
            struct linger at_once = {.l_onoff = 1};
            setsockopt(*from, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
            close(*from);
            hear_reset(k == 3 ? s[k] : c[k]);
        }
        const char *l = log_line(&y->mid, "\"connection\"", "\"reason\":\"done\"");
        assert_non_null(strstr(l, "\"upstream_transport\":\"hbone\""));
        assert_non_null(
            strstr(l, i < 2 ? "\"transport_why\":\"declared\"" : "\"transport_why\":\""));
        assert_non_null(strstr(l, "\"upstream_id\":\"spiffe://a.b/server\""));
        assert_non_null(strstr(l, "\"peer_id\":\"" APP "\""));
        assert_non_null(strstr(l, "\"rule\":\"app-may\""));
        l = log_line(&y->w->server, "\"connection\"", "\"reason\":\"done\"");
        assert_non_null(strstr(l, "\"transport\":\"hbone\""));
        assert_non_null(strstr(l, "\"peer_id\":\"spiffe://a.b/client\""));
        assert_int_equal(sessions(&y->mid, CONF_OUTBOUND), 1);
        assert_int_equal(sessions(&y->w->server, CONF_INBOUND), 1);
        const unsigned kept[] = {0, 1, 5};
        for (unsigned k = 0; k < 3; k++) {
            close(c[kept[k]]);
            close(s[kept[k]]);
        }
        way_free(y);
    }
}

/* Nobody takes HBONE there: directly, with the same peer; and what was learned is kept. */
static void test_falls_back(void **state)
{
    (void)state;
    uint16_t dead = 0;
    int held = held_port(&dead);
    struct way *y = way_new(DIRECT);
    char to[60];
    char upstream[100];
    int s;
    snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->port);
    snprintf(upstream, sizeof(upstream), "transport: auto, hbone_port: %u", dead);
    /* With `auto` a named port is declared to take it. */
    relay(y, to, upstream, "", MAY);
    app(y, false);
    hear_reset(dial(y->w->plain));
    log_line(&y->mid, "\"connection\"", "connect_refused");
    side_stop(&y->mid);
    memset(&y->mid, 0, sizeof(y->mid));
    relay(y, to, "transport: auto", "", MAY);
    for (unsigned i = 0; i < 2; i++) {
        close(through(y, y->w->plain, &s));
        close(s);
    }
    log_line(&y->mid, "\"upstream_transport\":\"direct\"", "\"transport_why\":\"refused\"");
    log_line(&y->mid, "\"upstream_transport\":\"direct\"", "\"transport_why\":\"learned\"");
    close(held);
    way_free(y);
}

static void test_list(void **state)
{
    (void)state;
    struct way *y = way_new(TAKES);
    char to[100];
    char upstream[100];
    int s;
    snprintf(to, sizeof(to), "\"127.0.0.9:%u\", \"127.0.0.1:%u\"", y->w->target_port[0],
             y->w->target_port[0]);
    snprintf(upstream, sizeof(upstream), "transport: hbone, hbone_port: %u", y->w->port);
    relay(y, to, upstream, ", ejection: {after: 2}", MAY);
    app(y, false);
    for (unsigned i = 0; i < 16; i++) {
        close(through(y, y->w->plain, &s));
        close(s);
    }
    log_line(&y->mid, "endpoint_ejected", "\"service\":\"mid\"");
    way_free(y);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void deny(struct side *s, const char *policy, const char *denied)
{
    told(s, policy, denied);
    post(s);
}

/* One of two clients is quarantined at the relay: both sides of its connection are cut, by a
 * session as directly, and the other's goes on. Nobody says a word meanwhile. */
static void test_revoked(void **state)
{
    (void)state;
    static const char BOTH[] = "kind: Policy\nlevel: 1\nrules: [{name: both, action: ALLOW}]\n";
    for (unsigned i = 0; i < 3; i++) {
        bool by_stream = i == 2;
        struct way *y = way_new(i == 0 ? DIRECT : TAKES);
        char to[60];
        int s[2], c[2];
        snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->port);
        if (i == 0) {
            relay(y, to, "transport: direct", "", BOTH);
        } else {
            relay_hbone(y, "hbone", by_stream ? ", transport: hbone" : "", BOTH);
        }
        app(y, by_stream);
        client(y, &y->other, "spiffe://a.b/second", y->plain, by_stream);
        c[0] = through(y, y->w->plain, &s[0]);
        c[1] = through(y, y->plain, &s[1]);
        deny(&y->mid, BOTH, APP);
        hear_reset(c[0]);
        hear_reset(s[0]);
        const char *l = log_line(&y->mid, "\"connection\"", "\"quarantined\"");
        assert_non_null(strstr(l, "\"peer_id\":\"" APP "\""));
        say(c[1], "on", 2);
        hear(s[1], "on", 2);
        close(c[1]);
        close(s[1]);
        way_free(y);
    }
}

static void test_next_hop_revoked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct way *y = way_new(i == 0 ? DIRECT : TAKES);
        char to[60];
        int s;
        snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->port);
        if (i == 0) {
            relay(y, to, "transport: direct", "", MAY);
        } else {
            relay_hbone(y, "hbone", "", MAY);
        }
        app(y, false);
        int c = through(y, y->w->plain, &s);
        deny(&y->mid, MAY, "spiffe://a.b/server");
        hear_reset(c);
        hear_reset(s);
        log_line(&y->mid, "\"connection\"", "\"quarantined\"");
        way_free(y);
    }
}

/* The next hop goes: so does all that it carried on, and the session. */
static void test_next_hop_leaves(void **state)
{
    (void)state;
    struct way *y = way_new(TAKES);
    int s[2];
    relay_hbone(y, "hbone", "", MAY);
    app(y, false);
    int c = through(y, y->w->plain, &s[0]);
    conn_worker_post_drain(y->w->server.worker, 0, 0);
    hear_reset(c);
    log_line(&y->mid, "\"connection\"", "\"upstream_reset\"");
    hear_reset(dial(y->w->plain));
    log_line(&y->mid, "\"connection\"", "\"connect_refused\"");
    close(s[0]);
    way_free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_denied),
        cmocka_unit_test(test_wrong_identity),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_through),
        cmocka_unit_test(test_falls_back),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_revoked),
        cmocka_unit_test(test_next_hop_revoked),
        cmocka_unit_test(test_next_hop_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
