/*
 * How long connections go on: until their certificates end, and until a change that concerns them;
 * and that nothing of them comes after. Real workers, real time of a few seconds.
 */
#include "conn_world.h"
#include "h2_end.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <postern/denials.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

enum { SOON_S = 3, LATE_S = 3600 };

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n"
                            "  - {name: client-may, action: ALLOW, from: [{principals: "
                            "['spiffe://a.b/client']}]}\n";
static const char DENY[] = "kind: Policy\nlevel: 1\nrules:\n"
                           "  - {name: client-may, action: ALLOW, from: [{principals: "
                           "['spiffe://a.b/client']}]}\n"
                           "  - {name: but-not, action: DENY, from: [{principals: "
                           "['spiffe://a.b/client']}]}\n";
static const char DENY_OTHER[] = "kind: Policy\nlevel: 1\nrules:\n"
                                 "  - {name: renamed, action: ALLOW, from: [{principals: "
                                 "['spiffe://a.b/client']}]}\n"
                                 "  - {name: but-not, action: DENY, from: [{principals: "
                                 "['spiffe://a.b/other']}]}\n";

/* --- certificates that end -------------------------------------------------------------------- */

/* With an intermediate that ends after inter_s, if that is not 0. */
static struct snapshot_identity *identity(struct world *w, const char *id, int64_t leaf_s,
                                          int64_t inter_s, char ret_serial[48])
{
    struct certs_pair inter = {NULL, NULL};
    if (inter_s != 0) {
        struct certs_spec ca = certs_ca("spiffe://a.b");
        ca.not_before_s = os_wall_s() - 60;
        ca.not_after_s = os_wall_s() + inter_s;
        inter = certs_make(&ca, &w->root);
    }
    struct certs_spec spec = certs_leaf(id);
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + leaf_s;
    struct certs_pair leaf = certs_make(&spec, inter_s != 0 ? &inter : &w->root);
    X509 *chain[2] = {leaf.cert, inter.cert};
    size_t len = 0;
    uint8_t *der = certs_der(chain, 2, &len);
    struct x509_svid *svid = NULL;
    struct snapshot_identity *i = NULL;
    struct err err = ERR_INIT;
    if (x509_svid_new((struct str){(char *)der, len}, leaf.key, &svid, &err) == -1 ||
        snapshot_identity_new(svid, w->trust, NULL, &i, &err) == -1) {
        fail_msg("%s", err.what);
    }
    if (ret_serial != NULL) {
        memcpy(ret_serial, svid->serial, 48);
    }
    x509_svid_free(svid);
    free(der);
    certs_free(&leaf);
    certs_free(&inter);
    return i;
}

static void use(struct side *s, struct snapshot_identity *i)
{
    snapshot_identity_unref(s->identity);
    s->identity = i;
    side_post(s);
}

/* The server's listener says `listener`; the client's end is not asked about. */
static struct world *make(const char *protocol, const char *policy)
{
    char conf[2000];
    struct world *w = world_new_explicit(protocol, policy, false);
    snprintf(conf, sizeof(conf),
             "kind: Proxy\nlevel: 1\nname: client\nidentity:\n  socket: unix:/nowhere\n"
             "  wait: 2s\nlisteners:\n  - name: out\n    direction: outbound\n"
             "    capture: explicit\n    address: 127.0.0.1:%u\n    to: 127.0.0.1:%u\n"
             "    identities: [\"spiffe://a.b/server\"]\n    on_expiry: warn\n",
             w->port, w->tls);
    side_write(&w->client, "proxy.yaml", conf);
    snapshot_files_unref(w->client.files);
    w->client.files = side_load(&w->client);
    return w;
}

static void open_one(struct world *w, int *c, int *s)
{
    *c = dial(w->port);
    *s = take(w);
    say(*c, "x");
    hear(*s, "x");
}

static void ends(int64_t client_s, int64_t client_inter_s, int64_t server_s, const char *whose)
{
    struct world *w = make("tcp\n    on_expiry: cut\n    expiry_spread: 0s", ALLOW);
    int c, s;
    use(&w->client, identity(w, "spiffe://a.b/client", client_s, client_inter_s, NULL));
    use(&w->server, identity(w, "spiffe://a.b/server", server_s, 0, NULL));
    int64_t began_s = os_wall_s();
    open_one(w, &c, &s);
    /* The process has renewed its own meanwhile. */
    use(&w->server, identity(w, "spiffe://a.b/server", LATE_S, 0, NULL));
    const char *l = log_line(&w->server, "\"connection\"", "certificate_expired");
    expect_in(l, whose);
    expect_in(l, "\"certificate_not_after\":\"");
    assert_true(os_wall_s() >= began_s + SOON_S - 1);
    hear_reset(c);
    hear_reset(s);
    world_free(w);
}

static void test_peer_ends(void **state)
{
    (void)state;
    ends(SOON_S, 0, LATE_S, "\"expired\":\"peer\"");
}

static void test_own_ends(void **state)
{
    (void)state;
    ends(LATE_S, 0, SOON_S, "\"expired\":\"own\"");
}

static void test_intermediate_ends(void **state)
{
    (void)state;
    ends(LATE_S, SOON_S, LATE_S, "\"expired\":\"peer\"");
}

/* Told of, and it goes on. */
static void test_warns(void **state)
{
    (void)state;
    struct world *w = make("tcp\n    on_expiry: warn", ALLOW);
    int c, s;
    use(&w->client, identity(w, "spiffe://a.b/client", SOON_S, 0, NULL));
    use(&w->server, identity(w, "spiffe://a.b/server", LATE_S, 0, NULL));
    open_one(w, &c, &s);
    const char *l = log_line(&w->server, "\"certificate_expired\"", "\"expired\":\"peer\"");
    expect_in(l, "\"peer_id\":\"spiffe://a.b/client\"");
    log_line(&w->client, "\"certificate_expired\"", "\"expired\":\"own\"");
    say(c, "y");
    hear(s, "y");
    close(c);
    close(s);
    world_free(w);
}

static void wait_for(const _Atomic uint64_t *counter, uint64_t n)
{
    uint64_t end = os_now_ms() + WAIT_MS;
    while (atomic_load(counter) < n) {
        assert_true(os_now_ms() < end);
        poll(NULL, 0, 10);
    }
}

/* Told to end, before it is cut: whoever waits sees an end, whoever is answered is told. */
static void test_http_drains(void **state)
{
    (void)state;
    struct world *w = make("http\n    expiry_grace: 3s\n    expiry_spread: 0s", ALLOW);
    static const char get[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    use(&w->client, identity(w, "spiffe://a.b/client", 2 * SOON_S, 0, NULL));
    use(&w->server, identity(w, "spiffe://a.b/server", LATE_S, 0, NULL));
    int idle = dial(w->port);
    say(idle, get);
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, "HTTP/1.1 204 No Content\r\n\r\n");
    expect_in(hear_until(idle, "\r\n\r\n"), "204");
    int busy = dial(w->port);
    say(busy, get);
    int s2 = take(w);
    hear_until(s2, "\r\n\r\n");
    int stuck = dial(w->port);
    say(stuck, get);
    int s3 = take(w);
    hear_until(s3, "\r\n\r\n");
    struct end *c4 = client_new(w);
    ask(c4, true, FIELDS(TO("/")));
    struct end *s4 = workload_new(w);
    see(s4, c4, "request 1 ends");
    wait_for(&conn_worker_counters(w->server.worker)->expiry_drained, 4);
    hear_end(idle);
    say(s2, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    expect_in(hear_until(busy, "\r\n\r\nok"), "close");
    hear_end(busy);
    while (!http2_session_peer_leaves(c4->side.s)) { /* of HTTP/2 the session says so */
        end_run(c4, 5);
        assert_false(c4->gone);
    }
    answer(s4, s4->side.by_id[1], true, FIELDS(":status", "204"));
    see(c4, s4, "response 1 ends\nHTTP/1.1 204 ");
    see_gone(c4);
    hear_reset(stuck); /* it has not come to an end by itself */
    log_line(&w->server, "\"connection\"", "certificate_expired");
    close(idle);
    close(busy);
    close(s);
    close(s2);
    close(s3);
    end_free(c4);
    end_free(s4);
    world_free(w);
}

/* --- changes ---------------------------------------------------------------------------------- */

/* What the agent says to the server, the next snapshot knowing the one before. */
struct told {
    struct world *w;
    struct snapshot *last;
    struct snapshot_state *state;
};

static void post(struct told *t)
{
    struct side *s = &t->w->server;
    struct snapshot *next = snapshot_new(
        ++s->generation,
        &(const struct snapshot_parts){
            .files = s->files, .identity = s->identity, .state = t->state, .before = t->last});
    conn_worker_post_snapshot(s->worker, next);
    snapshot_unref(t->last);
    t->last = next;
}

static void tell(struct told *t, const char *policy, enum deny_kind kind, const char *denied)
{
    struct conf_diag *diag = conf_diag_new();
    struct deny_item item = {kind, str_of(denied)};
    struct snapshot_told told = {.generation = 1,
                                 .policy = {"policy", str_of(policy)},
                                 .deny = &item,
                                 .n_deny = denied != NULL ? 1 : 0};
    struct err err = ERR_INIT;
    snapshot_state_unref(t->state);
    t->state = NULL;
    assert_int_equal(snapshot_state_new(&told, diag, &t->state, &err), 0);
    conf_diag_free(diag);
    post(t);
}

static struct world *make_told(struct told *t)
{
    struct world *w =
        make("tcp\nstate:\n  from: agent\nadmin:\n  socket: /nowhere/admin.sock", NULL);
    *t = (struct told){.w = w};
    use(&w->client, identity(w, "spiffe://a.b/client", LATE_S, 0, NULL));
    w->server.identity = identity(w, "spiffe://a.b/server", LATE_S, 0, NULL);
    tell(t, ALLOW, DENY_SPIFFE_ID, NULL);
    return w;
}

static void end_told(struct told *t)
{
    snapshot_unref(t->last);
    snapshot_state_unref(t->state);
    world_free(t->w);
}

static uint64_t judged(const struct world *w)
{
    return atomic_load(&conn_worker_counters(w->server.worker)->rejudged);
}

static void wait_generation(const struct told *t)
{
    wait_for(&conn_worker_counters(t->w->server.worker)->generation, t->last->generation);
}

static void test_only_the_concerned(void **state)
{
    (void)state;
    struct told t;
    struct world *w = make_told(&t);
    int c, s, c2, s2;
    open_one(w, &c, &s);
    uint64_t before = judged(w);
    tell(&t, DENY_OTHER, DENY_SPIFFE_ID, "spiffe://a.b/other"); /* and the rule is renamed */
    wait_generation(&t);
    say(c, "y");
    hear(s, "y");
    assert_int_equal(judged(w), before);
    /* A renewal of the own certificate concerns nobody. */
    snapshot_identity_unref(w->server.identity);
    w->server.identity = identity(w, "spiffe://a.b/server", LATE_S, 0, NULL);
    post(&t);
    wait_generation(&t);
    assert_int_equal(judged(w), before);
    tell(&t, DENY, DENY_SPIFFE_ID, NULL);
    hear_reset(c);
    hear_reset(s);
    const char *l = log_line(&w->server, "\"connection\"", "policy_changed");
    expect_in(l, "\"peer_id\":\"spiffe://a.b/client\"");
    assert_int_equal(judged(w), before + 1);
    tell(&t, ALLOW, DENY_SPIFFE_ID, NULL);
    wait_generation(&t);
    open_one(w, &c2, &s2);
    tell(&t, ALLOW, DENY_SPIFFE_ID, "spiffe://a.b/client");
    hear_reset(c2);
    hear_reset(s2);
    l = log_line(&w->server, "\"connection\"", "quarantined");
    /* And is kept for whoever asks, by the id that the log has. */
    static struct denial_copy kept;
    char id[80];
    assert_true(denials_read(conn_worker_denials(w->server.worker), 0, &kept));
    assert_true(str_eq(kept.denial.reason, STR_LIT("quarantined")));
    assert_true(str_eq(kept.denial.peer_id, STR_LIT("spiffe://a.b/client")));
    (void)snprintf(id, sizeof(id), "\"decision\":\"%.*s\"", (int)kept.denial.decision.n,
                   kept.denial.decision.p);
    expect_in(l, id);
    end_told(&t);
}

/* The serial is that of our own certificate, from before a renewal. */
static void test_own_serial(void **state)
{
    (void)state;
    struct told t;
    struct world *w = make_told(&t);
    char serial[48];
    int c, s, c2, s2;
    snapshot_identity_unref(w->server.identity);
    w->server.identity = identity(w, "spiffe://a.b/server", LATE_S, 0, serial);
    post(&t);
    wait_generation(&t);
    open_one(w, &c, &s);
    snapshot_identity_unref(w->server.identity);
    w->server.identity = identity(w, "spiffe://a.b/server", LATE_S, 0, NULL);
    post(&t);
    wait_generation(&t);
    open_one(w, &c2, &s2);
    tell(&t, ALLOW, DENY_SERIAL, serial);
    hear_reset(c);
    hear_reset(s);
    say(c2, "y");
    hear(s2, "y");
    log_line(&w->server, "\"connection\"", "quarantined");
    close(c2);
    close(s2);
    end_told(&t);
}

/* What our kernel still holds for the workload is thrown away with the connection. */
static void test_nothing_after_the_cut(void **state)
{
    (void)state;
    enum { FLOOD = 32 << 20 };
    struct told t;
    struct world *w = make_told(&t);
    static uint8_t bytes[65536];
    int c, s, there = 0;
    open_one(w, &c, &s);
    size_t sent = 0;
    struct pollfd p = {.fd = c, .events = POLLOUT};
    while (sent < FLOOD && poll(&p, 1, 300) == 1) { /* until nobody takes any more */
        ssize_t n = send(c, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
    }
    tell(&t, ALLOW, DENY_SPIFFE_ID, "spiffe://a.b/client");
    log_line(&w->server, "\"connection\"", "quarantined");
    uint64_t end = os_now_ms() + WAIT_MS;
    while (atomic_load(&w->server.shared.open) > 0) { /* it is told of, and then cut */
        assert_true(os_now_ms() < end);
        poll(NULL, 0, 1);
    }
    assert_int_equal(ioctl(s, FIONREAD, &there), 0);
    size_t got = 0;
    ssize_t n;
    while ((n = recv(s, bytes, sizeof(bytes), 0)) > 0) {
        got += (size_t)n;
    }
    assert_true(n == -1 && errno == ECONNRESET);
    assert_int_equal(got, there); /* what its own kernel had, and nothing more */
    assert_true(got < sent);
    close(s);
    hear_reset(c);
    end_told(&t);
}

/* The next request of a kept connection, which nothing else concerned. */
static void test_request_after_a_change(void **state)
{
    (void)state;
    struct world *w = make("http", ALLOW);
    use(&w->client, identity(w, "spiffe://a.b/client", LATE_S, 0, NULL));
    use(&w->server, identity(w, "spiffe://a.b/server", LATE_S, 0, NULL));
    static const char get[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    int c = dial(w->port);
    say(c, get);
    int s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, "HTTP/1.1 204 No Content\r\n\r\n");
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    side_policy(&w->server, DENY);
    say(c, get);
    expect_in(hear_until(c, "\n\0"), "HTTP/1.1 403");
    close(c);
    close(s);
    world_free(w);
}

/* --- in the middle of a handshake ------------------------------------------------------------- */

static SSL *half_open(struct world *w, const char *id, int *ret_fd)
{
    struct certs_spec spec = certs_leaf(id);
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + LATE_S;
    struct certs_pair leaf = certs_make(&spec, &w->root);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_certificate(ctx, leaf.cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, leaf.key), 1);
    SSL *ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    certs_free(&leaf);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    *ret_fd = dial(w->tls);
    assert_int_equal(SSL_connect(ssl), -1);
    return ssl;
}

static void flush(SSL *ssl, int fd)
{
    char *p = NULL;
    long n = BIO_get_mem_data(SSL_get_wbio(ssl), &p);
    assert_true(n > 0 && send(fd, p, (size_t)n, MSG_NOSIGNAL) == n);
    (void)BIO_reset(SSL_get_wbio(ssl));
}

static void test_revoked_in_handshake(void **state)
{
    (void)state;
    struct told t;
    struct world *w = make_told(&t);
    uint8_t bytes[16384];
    int fd;
    wait_generation(&t);
    SSL *ssl = half_open(w, "spiffe://a.b/client", &fd);
    flush(ssl, fd);
    int r = -1;
    while (r != 1) { /* the server's whole flight; what we answer stays here */
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        assert_true(n > 0);
        BIO_write(SSL_get_rbio(ssl), bytes, (int)n);
        r = SSL_connect(ssl);
    }
    tell(&t, ALLOW, DENY_SPIFFE_ID, "spiffe://a.b/client");
    wait_generation(&t);
    assert_int_equal(SSL_write(ssl, "hello", 5), 5);
    flush(ssl, fd);
    log_line(&w->server, "\"handshake_failed\"", "quarantined");
    assert_true(nobody_came(w));
    SSL_free(ssl);
    close(fd);
    end_told(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer_ends),
        cmocka_unit_test(test_own_ends),
        cmocka_unit_test(test_intermediate_ends),
        cmocka_unit_test(test_warns),
        cmocka_unit_test(test_http_drains),
        cmocka_unit_test(test_only_the_concerned),
        cmocka_unit_test(test_own_serial),
        cmocka_unit_test(test_nothing_after_the_cut),
        cmocka_unit_test(test_request_after_a_change),
        cmocka_unit_test(test_revoked_in_handshake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
