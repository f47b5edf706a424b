/*
 * Peers that say whom they speak for, by whole connections: a load balancer (the test) sends a
 * PROXY protocol header before the client's TLS. What is refused first; then whom the policy
 * judges, what is logged, and what the workload is told.
 */
#include "conn_world.h"
#include "redirected.h"

#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <postern/os.h>
#include <postern/proxy_protocol.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                            "    action: ALLOW\n    from:\n"
                            "      - principals: [\"spiffe://a.b/client\"]\n";
static const char ALLOW_NET[] = "kind: Policy\nlevel: 1\nrules:\n  - name: net-may\n"
                                "    action: ALLOW\n    from:\n"
                                "      - ip_blocks: [10.9.8.0/24]\n";
#define FROM "tcp\n    proxy_protocol_from: [127.0.0.1, 10.0.0.0/8]\n"

/* --- a TLS client behind a load balancer ------------------------------------------------------ */
struct client {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
};

static void send_all(int fd, const void *p, size_t n)
{
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void send_flight(struct client *k, const char *before, size_t n_before, bool in_pieces)
{
    uint8_t out[20000];
    memcpy(out, before, n_before);
    int n = BIO_read(SSL_get_wbio(k->ssl), out + n_before, (int)(sizeof(out) - n_before));
    size_t total = n_before + (n > 0 ? (size_t)n : 0);
    if (!in_pieces) {
        send_all(k->fd, out, total);
        return;
    }
    for (size_t i = 0; i < total; i++) {
        send_all(k->fd, out + i, 1);
    }
}

static bool shake_hands(struct client *k)
{
    uint8_t in[20000];
    while (SSL_do_handshake(k->ssl) != 1) {
        send_flight(k, "", 0, false);
        ssize_t n = recv(k->fd, in, sizeof(in), 0);
        if (n <= 0) {
            return false;
        }
        BIO_write(SSL_get_rbio(k->ssl), in, (int)n);
    }
    send_flight(k, "", 0, false);
    return true;
}

/* Header and ClientHello in one segment, or both byte by byte. False: no handshake. */
static bool client_start(struct client *k, struct world *w, const char *header, size_t n,
                         bool in_pieces)
{
    struct certs_spec spec = certs_leaf("spiffe://a.b/client");
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + 3600;
    struct certs_pair leaf = certs_make(&spec, &w->root);
    int one = 1;
    k->ctx = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_certificate(k->ctx, leaf.cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(k->ctx, leaf.key), 1);
    static const unsigned char alpn[] = "\x07postern";
    SSL_CTX_set_alpn_protos(k->ctx, alpn, sizeof(alpn) - 1);
    certs_free(&leaf);
    k->ssl = SSL_new(k->ctx);
    SSL_set_bio(k->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(k->ssl);
    k->fd = dial(w->tls);
    setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)SSL_do_handshake(k->ssl);
    send_flight(k, header, n, in_pieces);
    uint8_t in[20000];
    ssize_t got = recv(k->fd, in, sizeof(in), 0);
    if (got <= 0) {
        return false;
    }
    BIO_write(SSL_get_rbio(k->ssl), in, (int)got);
    return shake_hands(k);
}

static void client_say(struct client *k, const char *text)
{
    assert_int_equal(SSL_write(k->ssl, text, (int)strlen(text)), (int)strlen(text));
    send_flight(k, "", 0, false);
}

static void client_stop(struct client *k)
{
    SSL_free(k->ssl);
    SSL_CTX_free(k->ctx);
    close(k->fd);
}

#define BYTES(s) s, sizeof(s) - 1
#define V2 "\r\n\r\n\0\r\nQUIT\n"

/* --- what is refused -------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    (void)state;
    static char long_line[200];
    memset(long_line, 'x', sizeof(long_line));
    memcpy(long_line, "PROXY TCP4 ", 11);
    const struct {
        const char *bytes;
        size_t n;
        const char *step;
    } cases[] = {
        {BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "malformed"}, /* no header */
        {BYTES("GET / HTTP/1.1\r\n\r\n"), "malformed"},
        {BYTES("PROXY TCP4 10.9.8.7 10.0.0.1 70000 1\r\n"), "malformed"},
        {BYTES("PROXY TCP4 10.9.8.7 10.0.0.1 1 1\n"), "malformed"},
        {long_line, sizeof(long_line), "malformed"},
        {BYTES(V2 "\x31\x11\0\x0c"), "malformed"},
        {BYTES(V2 "\x21\x11\0\x04"
                  "abcd"),
         "malformed"},
        {BYTES("PROXY TCP4 10.9.8.7"), "timeout"},
        {BYTES(V2 "\x21\x11\xff\xff"), "timeout"},
        {"", 0, "timeout"},
    };
    enum { N = sizeof(cases) / sizeof(cases[0]) };
    struct world *w = world_new_explicit(FROM, ALLOW, true);
    int fds[N];
    for (size_t i = 0; i < N; i++) {
        fds[i] = dial(w->tls);
        send_all(fds[i], cases[i].bytes, cases[i].n);
    }
    for (size_t i = 0; i < N; i++) {
        hear_reset(fds[i]);
        log_line(&w->server, "\"proxy_header_refused\"", cases[i].step);
    }
    log_line(&w->server, "\"connection\"", "\"reason\":\"bad_proxy_header\"");
    assert_true(nobody_came(w));
    /* One that has something to say and goes. */
    int gone = dial(w->tls);
    send_all(gone, BYTES("PROXY "));
    close(gone);
    log_line(&w->server, "\"connection\"", "\"reason\":\"downstream_reset\"");
    world_free(w);
}

/* From anybody else a header is no header. */
static void test_not_named(void **state)
{
    (void)state;
    struct world *w =
        world_new_explicit("tcp\n    proxy_protocol_from: [10.0.0.0/8, '::/0']\n", ALLOW_NET, true);
    struct client k;
    assert_false(client_start(&k, w, BYTES("PROXY TCP4 10.9.8.7 10.0.0.1 1 1\r\n"), false));
    client_stop(&k);
    log_line(&w->server, "\"connection\"", "\"reason\":\"handshake_failed\"");
    /* And without one it is judged by where it comes from. */
    assert_true(client_start(&k, w, "", 0, false));
    char c;
    assert_true(recv(k.fd, &c, 1, 0) <= 0 || SSL_read(k.ssl, &c, 1) <= 0);
    client_stop(&k);
    log_line(&w->server, "\"connection\"", "\"reason\":\"policy_denied\"");
    assert_true(nobody_came(w));
    world_free(w);
}

/* --- whom it is then -------------------------------------------------------------------------- */

static void test_source(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n;
        bool allowed;
        const char *source;
    } cases[] = {
        {BYTES("PROXY TCP4 10.9.9.7 10.0.0.1 1234 443\r\n"), false, "\"source\":\"10.9.9.7:1234\""},
        {BYTES("PROXY UNKNOWN\r\n"), false, "\"source\":\"127.0.0.1:"},
        {BYTES(V2 "\x20\x00\0\0"), false,
         "\"source\":\"127.0.0.1:"}, /* a health check of the balancer's */
        {BYTES(V2 "\x20\x11\0\x0c"
                  "\x0a\x09\x08\x07\x0a\0\0\1\x04\xd2\x01\xbb"),
         false, "\"source\":\"127.0.0.1:"}, /* whose addresses mean nothing */
        {BYTES(V2 "\x21\x00\0\0"), false, "\"source\":\"127.0.0.1:"},
        {BYTES("PROXY TCP4 10.9.8.7 10.0.0.1 1234 443\r\n"), true, "\"source\":\"10.9.8.7:1234\""},
        {BYTES("PROXY TCP6 ::ffff:10.9.8.7 ::1 1235 443\r\n"), true,
         "\"source\":\"10.9.8.7:1235\""},
        {BYTES(V2 "\x21\x11\0\x0c"
                  "\x0a\x09\x08\x07\x0a\0\0\1\x04\xd4\x01\xbb"),
         true, "\"source\":\"10.9.8.7:1236\""},
    };
    struct world *w = world_new_explicit(FROM, ALLOW_NET, true);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int pieces = 0; pieces < 2; pieces++) {
            struct client k;
            assert_true(client_start(&k, w, cases[i].header, cases[i].n, pieces == 1));
            if (cases[i].allowed) {
                int s = take(w);
                client_say(&k, "hello");
                hear(s, "hello");
                client_stop(&k);
                hear_reset(s);
            } else {
                char c;
                (void)recv(k.fd, &c, 1, 0);
                client_stop(&k);
            }
            const char *l = log_line(&w->server, "\"event\":\"connection\"", cases[i].source);
            expect_in(l, cases[i].allowed ? "\"verdict\":\"allow\"" : "policy_denied");
            bool told = strncmp(cases[i].source, "\"source\":\"127.", 14) != 0;
            assert_int_equal(strstr(l, "\"via\":\"127.0.0.1:") != NULL, told);
        }
    }
    assert_true(nobody_came(w));
    world_free(w);
}

static struct proxy_protocol read_header(int s, uint8_t *got, size_t max)
{
    struct proxy_protocol h = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
    size_t n = 0;
    size_t used = 0;
    while (proxy_protocol_read(got, n, &h, &used) == PROXY_PROTOCOL_MORE) {
        ssize_t r = recv(s, got + n, 1, 0);
        assert_true(r == 1 && n < max);
        n++;
    }
    assert_int_equal(used, n);
    return h;
}

/* What goes on to the workload: who it was and what was asked for, and no identity that somebody
 * else has written. */
static void test_passed_on(void **state)
{
    (void)state;
    static const uint16_t pass = 0xea;
    static const char header[] = V2 "\x21\x11\0\x38"
                                    "\x0a\x09\x08\x07\x0a\0\0\1\x04\xd2\x01\xbb"
                                    "\xd0\0\x11spiffe://a.b/evil"
                                    "\xea\0\5vpce1"
                                    "\xee\0\5other"
                                    "\x20\0\5\x07\0\0\0\0";
    struct world *w = world_new_explicit(
        FROM "    proxy_protocol: v2\n    proxy_protocol_pass: [234]\n", ALLOW, true);
    struct client k;
    uint8_t got[1000];
    assert_true(client_start(&k, w, header, sizeof(header) - 1, false));
    int s = take(w);
    struct proxy_protocol h = read_header(s, got, sizeof(got));
    char text[NET_ADDR_TEXT_MAX];
    assert_string_equal(net_addr_text(&h.source, text), "10.9.8.7:1234");
    assert_string_equal(net_addr_text(&h.destination, text), "10.0.0.1:443");
    assert_true(str_eq(h.spiffe_id, STR_LIT("spiffe://a.b/client")));
    assert_false(h.has_tls);
    assert_true(h.has_crc);
    struct buf picked = BUF_INIT(1000);
    static const uint16_t other = 0xee;
    assert_true(proxy_protocol_pick(h.tlvs, &pass, 1, &picked));
    assert_true(str_eq(buf_str(&picked), STR_LIT("\xea\0\5vpce1")));
    buf_consume(&picked, picked.len);
    assert_true(proxy_protocol_pick(h.tlvs, &other, 1, &picked));
    assert_int_equal(picked.len, 0);
    buf_reset(&picked);
    client_say(&k, "and then");
    hear(s, "and then");
    client_stop(&k);
    close(s);
    world_free(w);
}

/* A sidecar's port: who it was, whom it wanted, and as whom. */
static void test_sidecar_out(void **state)
{
    (void)state;
    char listener[200];
    uint16_t port = 0;
    int probe = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);
    assert_int_equal(bind(probe, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(probe, 4), 0);
    getsockname(probe, (struct sockaddr *)&a, &len);
    port = ntohs(a.sin_port);
    snprintf(listener, sizeof(listener),
             "    capture: intercepted\n    ports:\n      - {port: %u, proxy_protocol: v2}", port);
    struct world *w = world_new(listener, ALLOW, true);
    close(w->workload);
    w->workload = probe;
    redirected_port(port);
    int c = dial(w->port);
    int s = take(w);
    uint8_t got[1000];
    struct proxy_protocol h = read_header(s, got, sizeof(got));
    assert_int_equal(net_addr_port(&h.destination), port);
    assert_true(net_addr_is_loopback(&h.source));
    assert_true(str_eq(h.spiffe_id, STR_LIT("spiffe://a.b/client")));
    say(c, "and then");
    hear(s, "and then");
    close(c);
    close(s);
    world_free(w);
}

/* --- the other direction ---------------------------------------------------------------------- */

static void test_outbound(void **state)
{
    (void)state;
    struct world *w = world_new_both("tcp", "    proxy_protocol_from: [127.0.0.0/8]\n", ALLOW);
    int c = dial(w->port);
    say(c, "PROXY TCP4 10.9.8.7 10.0.0.1 1234 443\r\nhello");
    int s = take(w);
    hear(s, "hello");
    say(s, "bye");
    hear(c, "bye");
    close(c);
    hear_end(s);
    close(s);
    const char *l =
        log_line(&w->client, "\"event\":\"connection\"", "\"source\":\"10.9.8.7:1234\"");
    expect_in(l, "\"via\":\"127.0.0.1:");
    c = dial(w->port);
    say(c, "hello");
    hear_reset(c);
    log_line(&w->client, "\"event\":\"connection\"", "bad_proxy_header");
    assert_true(nobody_came(w));
    world_free(w);
}

/* Also where streams of sessions are tried: nobody takes HBONE here, so it goes directly. */
static void test_outbound_hbone(void **state)
{
    (void)state;
    struct world *w = world_new_both(
        "tcp", "    transport: auto\n    proxy_protocol_from: [127.0.0.0/8]\n", ALLOW);
    int c = dial(w->port);
    say(c, "PROXY TCP4 10.9.8.7 10.0.0.1 1234 443\r\nhello");
    int s = take(w);
    hear(s, "hello");
    close(c);
    close(s);
    log_line(&w->client, "\"event\":\"connection\"", "\"source\":\"10.9.8.7:1234\"");
    world_free(w);
}

/* --- a reload meanwhile ----------------------------------------------------------------------- */

static void wait_held(struct side *s)
{
    const struct conn_counters *n = conn_worker_counters(s->worker);
    uint64_t end = os_now_ms() + WAIT_MS;
    while (atomic_load(&n->states[CONF_INBOUND][CONN_HELD]) == 0) {
        assert_true(os_now_ms() < end);
        poll(NULL, 0, 5);
    }
}

/* Who came before its address was named is who it is: what was held is not asked anew. */
static void test_named_while_held(void **state)
{
    (void)state;
    char conf[600];
    struct world *w = world_new_explicit("tcp", ALLOW, false);
    int c = dial(w->tls);
    wait_held(&w->server);
    snprintf(conf, sizeof(conf),
             "kind: Proxy\nlevel: 1\nname: server\nidentity:\n  socket: unix:/nowhere\n"
             "policy: policy.yaml\nlisteners:\n  - name: in\n    direction: inbound\n"
             "    address: 127.0.0.1:%u\n    capture: explicit\n    to: 127.0.0.1:%u\n"
             "    protocol: " FROM,
             w->tls, w->backend);
    side_write(&w->server, "proxy.yaml", conf);
    w->server.identity = make_identity(w, "spiffe://a.b/server");
    side_policy(&w->server, ALLOW);
    say(c, "PROXY TCP4 10.9.8.7 10.0.0.1 1234 443\r\n");
    log_line(&w->server, "\"event\":\"connection\"", "\"reason\":\"handshake_failed\"");
    close(c);
    c = dial(w->tls);
    say(c, "GET / HTTP/1.1\r\n\r\n");
    hear_reset(c);
    log_line(&w->server, "\"proxy_header_refused\"", "malformed");
    assert_true(nobody_came(w));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_not_named),
        cmocka_unit_test(test_source),         cmocka_unit_test(test_passed_on),
        cmocka_unit_test(test_sidecar_out),    cmocka_unit_test(test_outbound),
        cmocka_unit_test(test_outbound_hbone), cmocka_unit_test(test_named_while_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
