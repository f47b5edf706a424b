/*
 * Gateways with several targets, and by HBONE: which of them is reached, what is refused, and that
 * a relay goes by the same. Bad cases first.
 */
#include "gateway_world.h"

#include <postern/balance.h>

/* Another server of the same or of another identity, on the client's list. */
static void add_server(struct world *w, struct side *s, const char *id, uint16_t port, uint16_t to)
{
    char conf[600];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\npolicy: policy.yaml\n"
             "listeners:\n  - {name: in, type: server, address: 127.0.0.1:%u, to: 127.0.0.1:%u}\n",
             port, to);
    make_identity(w, s, id);
    side_start(w, s, conf);
}

static const char SERVER[] = "  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                             "     to: \"127.0.0.1:%u\"}\n";
static const char HBONE[] = "  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                            "     to: \"127.0.0.1:%u\", transport: hbone}\n";

/* A client whose `to` is this text. */
static void client(struct world *w, const char *to, const char *more)
{
    char conf[1500];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere, wait: 300ms}\n"
             "timeouts: {connect: 2s, handshake: 1s}\nlisteners:\n"
             "  - {name: out, type: client, address: 127.0.0.1:%u, to: %s,\n"
             "     identities: [\"spiffe://a.b/server\"]%s}\n",
             w->plain, to, more);
    side_start(w, &w->client, conf);
}

/* One that goes through, to the first target. */
static void works(struct world *w, uint16_t port)
{
    int c = dial(port);
    say(c, "ping", 4);
    int s = take(w->target[0]);
    hear(s, "ping", 4);
    say(s, "pong", 4);
    hear(c, "pong", 4);
    close(c);
    close(s);
}

/* --- lists ------------------------------------------------------------------------------------ */

static void test_list_all_dead(void **state)
{
    (void)state;
    char to[100];
    uint16_t dead[2] = {0};
    int held[2] = {held_port(&dead[0]), held_port(&dead[1])};
    struct world *w = world_new(SERVER);
    snprintf(to, sizeof(to), "[\"127.0.0.1:%u\", \"127.0.0.1:%u\"]", dead[0], dead[1]);
    client(w, to, "");
    hear_reset(dial(w->plain));
    log_line(&w->client, "\"connection\"", "connect_refused");
    close(held[0]);
    close(held[1]);
    world_free(w);
}

/* Somebody else at one of them: no byte for him, and another one in his place. */
static void test_list_wrong_identity(void **state)
{
    (void)state;
    char to[100];
    uint16_t port = 0;
    int held = held_port(&port);
    struct side other = {.generation = 0};
    struct world *w = world_new(SERVER);
    add_server(w, &other, "spiffe://a.b/other", port, w->target_port[1]);
    snprintf(to, sizeof(to), "[\"127.0.0.1:%u\"]", port);
    client(w, to, "");
    int c = dial(w->plain);
    say(c, "secret", 6);
    hear_reset(c);
    log_line(&w->client, "handshake_failed", "spiffe://a.b/other");
    assert_true(nobody_came(w->target[1]));
    side_stop(&w->client);
    memset(&w->client, 0, sizeof(w->client));
    make_identity(w, &w->client, "spiffe://a.b/client");
    snprintf(to, sizeof(to), "[\"127.0.0.1:%u\", \"127.0.0.1:%u\"]", port, w->port);
    client(w, to, ", ejection: {after: 1, time: 1h, max_time: 1h}");
    for (unsigned i = 0; i < 20; i++) {
        works(w, w->plain);
    }
    log_line(&w->client, "endpoint_ejected", "\"step\":\"handshake\"");
    assert_true(nobody_came(w->target[1]));
    side_stop(&other);
    close(held);
    world_free(w);
}

static void test_list(void **state)
{
    (void)state;
    char to[100];
    uint16_t dead = 0;
    int held = held_port(&dead);
    struct world *w = world_new(SERVER);
    snprintf(to, sizeof(to), "[\"127.0.0.1:%u\", \"127.0.0.1:%u\"]", dead, w->port);
    client(w, to, "");
    for (unsigned i = 0; i < 20; i++) {
        works(w, w->plain); /* whichever was tried first */
    }
    const char *l = log_line(&w->client, "endpoint_ejected", "\"service\":\"out\"");
    assert_non_null(strstr(l, "\"step\":\"connect\""));
    log_line(&w->client, "\"connection\"", "\"upstream\":\"127.0.0.1:");
    close(held);
    world_free(w);
}

/* A name in a list never means this machine. */
static void test_list_name(void **state)
{
    (void)state;
    static const char *const ips[] = {"127.0.0.1"};
    char to[100];
    struct world *w = world_new(SERVER);
    snprintf(to, sizeof(to), "[\"db.example:%u\", \"db.example:%u\"]", w->port, w->plain);
    client(w, to, "");
    w->client.resolved = resolved("db.example", ips, 1);
    post(&w->client);
    hear_reset(dial(w->plain));
    log_line(&w->client, "\"connection\"", "no_address");
    assert_true(nobody_came(w->target[0]));
    world_free(w);
}

/* Open connections stay when the list changes, as long as whoever is there is expected. */
static void test_list_reload(void **state)
{
    (void)state;
    char to[100];
    char conf[600];
    struct world *w = world_new(SERVER);
    snprintf(to, sizeof(to), "[\"127.0.0.1:%u\", \"127.0.0.1:%u\"]", w->port, w->port);
    snprintf(to, sizeof(to), "[\"127.0.0.1:%u\", \"127.0.0.2:%u\"]", w->port, w->port);
    client(w, to, "");
    int c = dial(w->plain);
    say(c, "a", 1);
    int s = take(w->target[0]);
    hear(s, "a", 1);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(conf, sizeof(conf),
                 "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere, wait: 300ms}\n"
                 "listeners:\n  - {name: out, type: client, address: 127.0.0.1:%u, to: "
                 "[\"127.0.0.3:%u\", \"127.0.0.4:%u\"], identities: [\"spiffe://a.b/%s\"]}\n",
                 w->plain, w->port, w->port, i == 0 ? "server" : "another");
        load(w, &w->client, conf);
        post(&w->client);
        if (i == 0) {
            say(c, "b", 1);
            hear(s, "b", 1);
        }
    }
    hear_reset(c);
    log_line(&w->client, "\"connection\"", "route_changed");
    close(s);
    world_free(w);
}

/* --- relays ----------------------------------------------------------------------------------- */

/* The world's server is the last hop; a relay stands between it and the client. */
static void relay(struct world *w, struct side *s, uint16_t port, const char *to, const char *more)
{
    char conf[1200];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere, wait: 300ms}\n"
             "policy: policy.yaml\ntimeouts: {connect: 2s, handshake: 1s}\nlisteners:\n"
             "  - {name: mid, type: relay, address: 127.0.0.1:%u, to: %s,\n"
             "     upstream: {identities: [\"spiffe://a.b/server\"]}%s}\n",
             port, to, more);
    make_identity(w, s, "spiffe://a.b/client"); /* whom the last hop lets in */
    side_start(w, s, conf);
}

static void client_of_relay(struct world *w, uint16_t port, const char *more)
{
    char conf[600];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\nlisteners:\n"
             "  - {name: out, type: client, address: 127.0.0.1:%u, to: 127.0.0.1:%u,\n"
             "     identities: [\"spiffe://a.b/client\"]%s}\n",
             w->plain, port, more);
    side_start(w, &w->client, conf);
}

static void test_relay_list(void **state)
{
    (void)state;
    char to[100];
    uint16_t port = 0;
    int held = held_port(&port);
    struct side mid = {.generation = 0};
    struct world *w = world_new(SERVER);
    snprintf(to, sizeof(to), "[\"127.0.0.9:%u\", \"127.0.0.1:%u\"]", w->port, w->port);
    relay(w, &mid, port, to, ", ejection: {after: 2}");
    client_of_relay(w, port, "");
    for (unsigned i = 0; i < 20; i++) {
        works(w, w->plain);
    }
    log_line(&mid, "endpoint_ejected", "\"service\":\"mid\"");
    side_stop(&mid);
    close(held);
    world_free(w);
}

/* One of the next hops is somebody else: the client does not notice. */
static void test_relay_wrong_identity(void **state)
{
    (void)state;
    char to[100];
    uint16_t port[2] = {0};
    int held[2] = {held_port(&port[0]), held_port(&port[1])};
    struct side mid = {.generation = 0};
    struct side other = {.generation = 0};
    struct world *w = world_new(SERVER);
    char conf[600];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\npolicy: policy.yaml\n"
             "listeners:\n  - {name: in, type: server, address: 127.0.0.9:%u, to: 127.0.0.1:%u}\n",
             w->port, w->target_port[1]);
    make_identity(w, &other, "spiffe://a.b/other");
    side_start(w, &other, conf);
    snprintf(to, sizeof(to), "[\"127.0.0.9:%u\", \"127.0.0.1:%u\"]", w->port, w->port);
    relay(w, &mid, port[1], to, ", ejection: {after: 2}");
    client_of_relay(w, port[1], "");
    for (unsigned i = 0; i < 20; i++) {
        works(w, w->plain);
    }
    const char *l = log_line(&mid, "endpoint_ejected", "\"service\":\"mid\"");
    assert_non_null(strstr(l, "\"step\":\"handshake\""));
    assert_true(nobody_came(w->target[1]));
    side_stop(&mid);
    side_stop(&other);
    close(held[0]);
    close(held[1]);
    world_free(w);
}

static int ask(uint16_t port, struct world *w)
{
    int c = dial(port);
    say(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n", 28);
    int s = take(w->target[0]);
    char got[2000];
    ssize_t n = 0;
    size_t have = 0;
    while (have < sizeof(got) - 1 && (n = recv(s, got + have, sizeof(got) - 1 - have, 0)) > 0) {
        have += (size_t)n;
        got[have] = '\0';
        if (strstr(got, "\r\n\r\n") != NULL) {
            break;
        }
    }
    assert_non_null(strstr(got, "GET /a HTTP/1.1\r\n"));
    /* The end of it ends the relay's connection too: the next request makes another. */
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    say(s, answer, sizeof(answer) - 1);
    close(s);
    return c;
}

static void test_relay_list_http(void **state)
{
    (void)state;
    char to[100];
    uint16_t port = 0;
    int held = held_port(&port);
    struct side mid = {.generation = 0};
    struct world *w = world_new("  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                                "     to: \"127.0.0.1:%u\", protocol: http}\n");
    snprintf(to, sizeof(to), "[\"127.0.0.9:%u\", \"127.0.0.1:%u\"]", w->port, w->port);
    relay(w, &mid, port, to, ", protocol: http, ejection: {after: 3}");
    client_of_relay(w, port, "");
    for (unsigned i = 0; i < 16; i++) {
        int c = ask(w->plain, w);
        hear(c, "HTTP/1.1 200 OK\r\n", 17);
        close(c);
    }
    log_line(&mid, "endpoint_ejected", "\"service\":\"mid\"");
    side_stop(&mid);
    close(held);
    world_free(w);
}

/* --- HBONE ------------------------------------------------------------------------------------ */

/* What a stream asks for is the port that the policy is asked about, or it is refused. */
static void test_hbone_other_port(void **state)
{
    (void)state;
    char more[100];
    char to[60];
    struct world *w = world_new(HBONE);
    snprintf(more, sizeof(more), ", transport: hbone, hbone_port: %u", w->port);
    snprintf(to, sizeof(to), "127.0.0.1:%u", w->target_port[1]);
    client(w, to, more);
    hear_reset(dial(w->plain));
    log_line(&w->client, "\"connection\"", "\"status\":400");
    log_line(&w->server, "\"connection\"", "bad_authority");
    assert_true(nobody_came(w->target[0]) && nobody_came(w->target[1]));
    world_free(w);
}

static void test_hbone_only(void **state)
{
    (void)state;
    struct world *w = world_new(HBONE);
    add_client(w, w->port, ""); /* directly: it is no HBONE */
    int c = dial(w->plain);
    say(c, "x", 1);
    char byte;
    while (recv(c, &byte, 1, 0) > 0) { /* its SETTINGS, to whom they say nothing */
    }
    close(c);
    log_line(&w->server, "\"session_refused\"", "\"step\":\"protocol\"");
    assert_true(nobody_came(w->target[0]));
    world_free(w);
}

static void test_hbone(void **state)
{
    (void)state;
    static const char *const transports[] = {"hbone", "auto"};
    for (unsigned t = 0; t < 2; t++) {
        char more[100];
        char to[60];
        struct world *w = world_new(HBONE);
        snprintf(more, sizeof(more), ", transport: %s, hbone_port: %u", transports[t], w->port);
        snprintf(to, sizeof(to), "127.0.0.1:%u", w->target_port[0]);
        client(w, to, more);
        for (unsigned i = 0; i < 5; i++) {
            works(w, w->plain);
        }
        const char *l = log_line(&w->server, "\"connection\"", "\"reason\":\"done\"");
        assert_non_null(strstr(l, "\"transport\":\"hbone\""));
        assert_non_null(strstr(l, "\"rule\":\"client-may\""));
        log_line(&w->client, "\"connection\"", "\"transport\":\"hbone\"");
        assert_int_equal(conn_worker_counters(w->server.worker)->sessions[CONF_INBOUND], 1);
        world_free(w);
    }
}

/* One of the list takes HBONE, another is not there. */
static void test_hbone_list(void **state)
{
    (void)state;
    char more[100];
    char to[100];
    struct world *w = world_new(HBONE);
    snprintf(more, sizeof(more), ", transport: hbone, hbone_port: %u", w->port);
    snprintf(to, sizeof(to), "[\"127.0.0.9:%u\", \"127.0.0.1:%u\"]", w->target_port[0],
             w->target_port[0]);
    client(w, to, more);
    for (unsigned i = 0; i < 10; i++) {
        works(w, w->plain);
    }
    world_free(w);
}

/* In by a stream, on by a connection of its own. */
static void test_hbone_relay(void **state)
{
    (void)state;
    char to[60];
    char more[100];
    uint16_t port = 0;
    int held = held_port(&port);
    struct side mid = {.generation = 0};
    struct world *w = world_new(SERVER);
    snprintf(to, sizeof(to), "127.0.0.1:%u", w->port);
    relay(w, &mid, port, to, ", transport: hbone");
    snprintf(more, sizeof(more), ", transport: hbone, hbone_port: %u", port);
    client_of_relay(w, w->port, more);
    for (unsigned i = 0; i < 3; i++) {
        works(w, w->plain);
    }
    side_stop(&mid);
    close(held);
    world_free(w);
}

/* Taken away from them: a byte that is said afterwards comes to nobody. */
static void test_hbone_withdrawn(void **state)
{
    (void)state;
    char more[100];
    char to[60];
    struct world *w = world_new(HBONE);
    snprintf(more, sizeof(more), ", transport: hbone, hbone_port: %u", w->port);
    snprintf(to, sizeof(to), "127.0.0.1:%u", w->target_port[0]);
    client(w, to, more);
    int c = dial(w->plain);
    say(c, "a", 1);
    int s = take(w->target[0]);
    hear(s, "a", 1);
    deny_everybody(w, &w->server);
    hear_reset(s);
    hear_reset(c);
    log_line(&w->server, "\"connection\"", "policy_changed");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_all_dead),
        cmocka_unit_test(test_list_wrong_identity),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_name),
        cmocka_unit_test(test_list_reload),
        cmocka_unit_test(test_relay_list),
        cmocka_unit_test(test_relay_wrong_identity),
        cmocka_unit_test(test_relay_list_http),
        cmocka_unit_test(test_hbone_other_port),
        cmocka_unit_test(test_hbone_only),
        cmocka_unit_test(test_hbone),
        cmocka_unit_test(test_hbone_list),
        cmocka_unit_test(test_hbone_relay),
        cmocka_unit_test(test_hbone_withdrawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
