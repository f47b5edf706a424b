/*
 * Whole connections of a gateway, as far as names are concerned: routes by server name, what the
 * target is told before the first byte, targets that are names, tunnels. One worker or two on
 * threads of their own; clients and targets are the test's. Bad cases first.
 */
#include <postern/conn.h>

#include "gateway_world.h"
#include <postern/proxy_protocol.h>

/* A ClientHello that says this name, in one record. */
static size_t hello(const char *name, uint8_t *ret)
{
    size_t n = strlen(name);
    uint8_t head[] = {0x16, 3, 1, 0, 0, 1, 0, 0, 0, 3, 3};
    size_t extensions = 9 + n;
    size_t body = 2 + 32 + 1 + 4 + 2 + 2 + extensions;
    head[4] = (uint8_t)(body + 4);
    head[8] = (uint8_t)body;
    memcpy(ret, head, sizeof(head));
    uint8_t *p = ret + sizeof(head);
    memset(p, 'r', 32);
    p += 32;
    const uint8_t rest[] = {0,
                            0,
                            2,
                            0x13,
                            1,
                            1,
                            0,
                            0,
                            (uint8_t)extensions,
                            0,
                            0,
                            0,
                            (uint8_t)(n + 5),
                            0,
                            (uint8_t)(n + 3),
                            0,
                            0,
                            (uint8_t)n};
    memcpy(p, rest, sizeof(rest));
    p += sizeof(rest);
    memcpy(p, name, n);
    return (size_t)(p + n - ret);
}

#define SNI_LISTENER                                                                               \
    "  - name: in\n    type: server\n    address: 127.0.0.1:%u\n    sni:\n"                        \
    "      - {names: [a.example, \"*.b.example\"], to: \"127.0.0.1:%u\"}\n"                        \
    "      - {names: [through.example], to: \"127.0.0.1:%u\", passthrough: true}\n"

/* --- server names ----------------------------------------------------------------------------- */
static void test_refused(void **state)
{
    (void)state;
    struct world *w = world_new(SNI_LISTENER);
    uint8_t h[300];
    /* No TLS. */
    int c = dial(w->port);
    say(c, "GET / HTTP/1.1\r\n\r\n", 18);
    hear_reset(c);
    log_line(&w->server, "hello_refused", "\"step\":\"not_tls\"");
    /* A name that nobody has; no name; one that is hidden in another. */
    static const char *const names[] = {"other.example", "b.example", "a.example.through.example"};
    for (size_t i = 0; i < 3; i++) {
        c = dial(w->port);
        say(c, h, hello(names[i], h));
        hear_reset(c);
        log_line(&w->server, "no_sni_route", names[i]);
    }
    /* Half of it, and then nothing. */
    c = dial(w->port);
    say(c, h, 60);
    hear_reset(c);
    log_line(&w->server, "\"connection\"", "handshake_timeout");
    /* It goes away. */
    c = dial(w->port);
    say(c, h, 60);
    close(c);
    log_line(&w->server, "\"connection\"", "downstream_reset");
    assert_true(nobody_came(w->target[0]) && nobody_came(w->target[1]));
    world_free(w);
}

static void test_passthrough(void **state)
{
    (void)state;
    struct world *w = world_new(SNI_LISTENER);
    uint8_t h[300];
    size_t n = hello("Through.Example", h);
    for (unsigned way = 0; way < 2; way++) {
        int c = dial(w->port);
        for (size_t i = 0; i < n; i += way == 0 ? n : 1) {
            say(c, h + i, way == 0 ? n : 1);
        }
        say(c, "and more", 8);
        int s = take(w->target[1]);
        hear(s, h, n);
        hear(s, "and more", 8);
        say(s, "answer", 6);
        hear(c, "answer", 6);
        close(c);
        close(s);
    }
    const char *l = log_line(&w->server, "\"connection\"", "\"transport\":\"passthrough\"");
    assert_non_null(strstr(l, "\"server_name\":\"through.example\""));
    assert_null(strstr(l, "own_id"));
    assert_null(strstr(l, "peer_id"));
    assert_true(nobody_came(w->target[0]));
    assert_int_equal(atomic_load(&conn_worker_counters(w->server.worker)->plaintext_sni), 2);
    world_free(w);
}

/* A route that terminates: TLS, policy, and only then the target. */
static void test_terminated(void **state)
{
    (void)state;
    struct world *w = world_new(SNI_LISTENER);
    add_client(w, w->port, ", server_name: x.b.example");
    int c = dial(w->plain);
    say(c, "one", 3);
    int s = take(w->target[0]);
    hear(s, "one", 3);
    say(s, "two", 3);
    hear(c, "two", 3);
    close(c);
    close(s);
    const char *l = log_line(&w->server, "\"connection\"", "\"verdict\":\"allow\"");
    assert_non_null(strstr(l, "\"server_name\":\"x.b.example\""));
    assert_non_null(strstr(l, "\"peer_id\":\"spiffe://a.b/client\""));
    assert_true(nobody_came(w->target[1]));
    world_free(w);
}

/* After a reload a name that leads elsewhere, or is not passed through any more, ends. */
static void test_reload(void **state)
{
    (void)state;
    struct world *w = world_new(SNI_LISTENER);
    uint8_t h[300];
    size_t n = hello("through.example", h);
    int c = dial(w->port);
    say(c, h, n);
    int s = take(w->target[1]);
    hear(s, h, n);
    post(&w->server); /* nothing has changed */
    say(c, "x", 1);
    hear(s, "x", 1);
    char conf[1000];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\npolicy: policy.yaml\n"
             "listeners:\n  - name: in\n    type: server\n    address: 127.0.0.1:%u\n    sni:\n"
             "      - {names: [through.example], to: \"127.0.0.1:%u\"}\n",
             w->port, w->target_port[1]);
    load(w, &w->server, conf);
    post(&w->server);
    hear_reset(c);
    hear_reset(s);
    log_line(&w->server, "\"connection\"", "route_changed");
    world_free(w);
}

/* --- before the first byte -------------------------------------------------------------------- */
static size_t read_header(int fd, uint8_t *bytes, size_t size, struct proxy_protocol *ret)
{
    size_t n = 0;
    size_t used = 0;
    enum proxy_protocol_result r = PROXY_PROTOCOL_MORE;
    *ret = (struct proxy_protocol){.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
    while (r == PROXY_PROTOCOL_MORE) {
        ssize_t got = recv(fd, bytes + n, size - n, 0);
        assert_true(got > 0);
        n += (size_t)got;
        r = proxy_protocol_read(bytes, n, ret, &used);
    }
    assert_int_equal(r, PROXY_PROTOCOL_OK);
    return n - used;
}

static void test_header(void **state)
{
    (void)state;
    static const char *const modes[] = {"v1", "v2", "v2-tls", "v2-tls-full"};
    for (unsigned mode = 0; mode < 4; mode++) {
        char listener[300];
        snprintf(listener, sizeof(listener),
                 "  - {name: in, type: server, address: \"127.0.0.1:%%u\",\n"
                 "     to: \"127.0.0.1:%%u\", proxy_protocol: %s}\n",
                 modes[mode]);
        struct world *w = world_new(listener);
        add_client(w, w->port, ", server_name: db.example");
        int c = dial(w->plain);
        int s = take(w->target[0]); /* the client has said nothing yet */
        uint8_t bytes[4096];
        struct proxy_protocol h;
        assert_int_equal(read_header(s, bytes, sizeof(bytes), &h), 0);
        assert_int_equal(net_addr_port(&h.destination), w->port);
        assert_true(net_addr_is_loopback(&h.source));
        assert_true(str_eq(h.spiffe_id, mode >= 1 ? STR_LIT("spiffe://a.b/client") : STR_NONE));
        assert_int_equal(h.has_crc, mode >= 1);
        assert_int_equal(h.has_tls, mode >= 2);
        assert_true(str_eq(h.authority, mode >= 2 ? STR_LIT("db.example") : STR_NONE));
        assert_true(str_eq(h.tls.version, mode >= 2 ? STR_LIT("TLSv1.3") : STR_NONE));
        assert_int_equal(h.tls.cert_conn, mode >= 3);
        assert_true(str_eq(h.tls.cn, mode >= 3 ? STR_LIT("some name") : STR_NONE));
        assert_int_equal(h.tls.cert.n > 300, mode >= 3);
        say(c, "first", 5);
        hear(s, "first", 5);
        close(c);
        close(s);
        world_free(w);
    }
}

static void test_header_passthrough(void **state)
{
    (void)state;
    struct world *w = world_new("  - name: in\n    type: server\n    address: \"127.0.0.1:%u\"\n"
                                "    proxy_protocol: v2-tls\n    sni:\n"
                                "      - {names: [a.example], to: \"127.0.0.1:%u\", "
                                "passthrough: true}\n");
    uint8_t sent[300], bytes[4096];
    struct proxy_protocol h;
    size_t n = hello("a.example", sent);
    int c = dial(w->port);
    say(c, sent, n);
    int s = take(w->target[0]);
    size_t behind = read_header(s, bytes, sizeof(bytes), &h);
    assert_true(str_eq(h.authority, STR_LIT("a.example")));
    assert_false(h.has_tls);
    assert_int_equal(h.spiffe_id.n, 0);
    hear(s, sent + behind, n - behind);
    close(c);
    close(s);
    world_free(w);
}

/* --- names as targets ------------------------------------------------------------------------- */
static void test_name(void **state)
{
    (void)state;
    struct world *w = world_new("  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                                "     to: \"db.example:%u\"}\n");
    add_client(w, w->port, "");
    /* Not resolved: held for its time. */
    int c = dial(w->plain);
    hear_reset(c);
    log_line(&w->server, "\"connection\"", "no_address");
    /* One of two addresses is dead: whichever comes first, the other is there. */
    static const char *const ips[] = {"127.0.0.2", "127.0.0.1"};
    w->server.resolved = resolved("db.example", ips, 2);
    post(&w->server);
    for (unsigned i = 0; i < 3; i++) {
        c = dial(w->plain);
        int s = take(w->target[0]);
        say(c, "x", 1);
        hear(s, "x", 1);
        close(c);
        close(s);
    }
    const char *l = log_line(&w->server, "\"connection\"", "\"upstream\":\"127.0.0.1:");
    assert_non_null(strstr(l, "\"destination\":\"db.example:"));
    /* Both dead. */
    resolve_state_unref(w->server.resolved);
    static const char *const dead[] = {"127.0.0.2", "127.0.0.3"};
    w->server.resolved = resolved("db.example", dead, 2);
    post(&w->server);
    c = dial(w->plain);
    hear_reset(c);
    log_line(&w->server, "\"connection\"", "connect_refused");
    world_free(w);
}

/* Takes connections that nobody accepts until it is full: the next one hears nothing. */
static void fill(int *ret, const char *ip, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    ret[0] = listen_on(ip, &port);
    assert_int_equal(listen(ret[0], 0), 0);
    for (unsigned i = 1; i < 4; i++) {
        ret[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(ret[i], (struct sockaddr *)&a, sizeof(a));
    }
}

/* An address that says nothing: requests went no further when its time was over. Another address
 * was dialled and nobody looked what came of it, and what stood behind in the client's bytes
 * waited for more of them. */
static void test_name_silent(void **state)
{
    (void)state;
    static const char *const ips[] = {"127.0.0.2", "127.0.0.1"};
    static const char two[] = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: "
                              "a\r\n\r\n";
    struct world *w = world_new("  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                                "     to: \"db.example:%u\", protocol: http}\n");
    int full[4];
    fill(full, ips[0], w->target_port[0]);
    add_client(w, w->port, "");
    w->server.resolved = resolved("db.example", ips, 2);
    post(&w->server);
    for (unsigned i = 0; i < 2; i++) { /* whichever comes first */
        int c = dial(w->plain);
        say(c, "GET /0 HTTP/1.1\r\nHost: a\r\n\r\n", 28);
        int s = take(w->target[0]);
        hear(s, "GET /0 ", 7);
        say(s, "HTTP/1.1 204 No Content\r\n\r\n", 27);
        hear(c, "HTTP/1.1 204 ", 13);
        close(c);
        close(s);
    }
    resolve_state_unref(w->server.resolved);
    w->server.resolved = resolved("db.example", ips, 1);
    post(&w->server);
    int c = dial(w->plain);
    say(c, two, sizeof(two) - 1);
    log_line(&w->server, "\"path\":\"/1\"", "\"connect_timeout\"");
    log_line(&w->server, "\"path\":\"/2\"", "\"connect_timeout\"");
    close(c);
    for (unsigned i = 0; i < 4; i++) {
        close(full[i]);
    }
    world_free(w);
}

/* A name that comes to mean the listener itself would go round until nothing is left. */
static void test_name_loop(void **state)
{
    (void)state;
    struct world *w = world_new("  - {name: in, type: server, address: \"127.0.0.1:%1$u\",\n"
                                "     sni: [{names: [a.example], to: \"me.example:%1$u\", "
                                "passthrough: true}]}\n");
    static const char *const ips[] = {"127.0.0.1"};
    uint8_t h[300];
    w->server.resolved = resolved("me.example", ips, 1);
    post(&w->server);
    int c = dial(w->port);
    say(c, h, hello("a.example", h));
    hear_reset(c);
    log_line(&w->server, "\"connection\"", "\"reason\":\"loop\"");
    assert_int_equal(atomic_load(&conn_worker_counters(w->server.worker)->accepted[CONF_INBOUND]),
                     1);
    world_free(w);
}

/* What came before the first answer goes on with it. */
static void test_name_held(void **state)
{
    (void)state;
    struct world *w = world_new("  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                                "     to: \"db.example:%u\", sni: [{names: [a.example], "
                                "passthrough: true}]}\n");
    uint8_t h[300];
    size_t n = hello("a.example", h);
    int c = dial(w->port);
    say(c, h, n);
    const struct conn_counters *k = conn_worker_counters(w->server.worker);
    uint64_t end = os_now_ms() + WAIT_MS;
    while (atomic_load(&k->states[CONF_INBOUND][CONN_HELD]) == 0) {
        assert_true(os_now_ms() < end);
        poll(NULL, 0, 1);
    }
    static const char *const ips[] = {"127.0.0.1"};
    w->server.resolved = resolved("db.example", ips, 1);
    post(&w->server);
    int s = take(w->target[0]);
    hear(s, h, n);
    close(c);
    close(s);
    world_free(w);
}

/* --- tunnels ---------------------------------------------------------------------------------- */
/* Reads a head, up to its empty line. */
static void read_head(int fd, char *text, size_t size)
{
    size_t n = 0;
    do {
        assert_true(n + 1 < size && recv(fd, text + n, 1, 0) == 1);
        text[++n] = '\0';
    } while (n < 4 || strcmp(text + n - 4, "\r\n\r\n") != 0);
}

static void test_tunnel(void **state)
{
    (void)state;
    struct world *w = world_new("  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                                "     to: \"127.0.0.1:%u\"}\n");
    char more[200], text[1000];
    snprintf(more, sizeof(more), ", connect_proxy: \"http://me:secret@127.0.0.1:%u\"",
             w->target_port[1]); /* the second target plays the proxy */
    add_client(w, w->port, more);
    static const struct {
        const char *answer, *says;
    } bad[] = {
        {"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\n\r\n", "\"status\":407"},
        {"HTTP/1.1 200 OK\r\n\r\nand more", "spoke_first"},
        {"SSH-2.0\r\n", "malformed"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int c = dial(w->plain);
        int p = take(w->target[1]);
        read_head(p, text, sizeof(text));
        say(p, bad[i].answer, strlen(bad[i].answer));
        hear_reset(c);
        log_line(&w->client, "tunnel_refused", bad[i].says);
        close(p);
    }
    int c = dial(w->plain);
    int p = take(w->target[1]);
    read_head(p, text, sizeof(text));
    char want[100];
    snprintf(want, sizeof(want), "CONNECT 127.0.0.1:%u HTTP/1.1\r\n", w->port);
    assert_int_equal(strncmp(text, want, strlen(want)), 0);
    assert_non_null(strstr(text, "\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n"));
    assert_true(nobody_came(w->target[0]));
    int far = dial(w->port); /* the proxy connects, and passes on what it hears */
    say(p, "HTTP/1.1 200 Connection established\r\n\r\n", 39);
    say(c, "through", 7);
    int s = -1;
    struct pollfd fds[3] = {{.fd = p, .events = POLLIN},
                            {.fd = far, .events = POLLIN},
                            {.fd = w->target[0], .events = POLLIN}};
    do { /* until the target has something to read */
        uint8_t bytes[16384];
        assert_true(poll(fds, 3, WAIT_MS) > 0);
        for (unsigned i = 0; i < 2; i++) {
            if ((fds[i].revents & POLLIN) != 0) {
                ssize_t n = recv(fds[i].fd, bytes, sizeof(bytes), 0);
                assert_true(n > 0);
                say(fds[1 - i].fd, bytes, (size_t)n);
            }
        }
        if (s == -1 && (fds[2].revents & POLLIN) != 0) {
            s = take(w->target[0]);
            fds[2] = (struct pollfd){.fd = s, .events = POLLIN};
        }
    } while (s == -1 || (fds[2].revents & POLLIN) == 0);
    hear(s, "through", 7);
    close(c);
    close(p);
    close(far);
    close(s);
    /* Nothing of the password is in the log. */
    char path[160];
    snprintf(path, sizeof(path), "%s/log", w->client.dir);
    log_drain(conn_worker_log(w->client.worker), w->client.log_fd);
    static char log[1 << 18];
    ssize_t len = pread(w->client.log_fd, log, sizeof(log) - 1, 0);
    log[len > 0 ? len : 0] = '\0';
    assert_null(strstr(log, "secret"));
    assert_null(strstr(log, "bWU6c2VjcmV0"));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_passthrough),
        cmocka_unit_test(test_terminated), cmocka_unit_test(test_reload),
        cmocka_unit_test(test_header),     cmocka_unit_test(test_header_passthrough),
        cmocka_unit_test(test_name),       cmocka_unit_test(test_name_silent),
        cmocka_unit_test(test_name_loop),  cmocka_unit_test(test_name_held),
        cmocka_unit_test(test_tunnel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
