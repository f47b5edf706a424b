/* Two TLS streams over a socket pair: who is refused, and what each side can tell about it. */
#include <postern/tls.h>

#include "certs.h"
#include <errno.h>
#include <openssl/err.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const char CLIENT[] = "spiffe://a.b/client";
static const char SERVER[] = "spiffe://a.b/server";

struct world {
    struct certs_pair root, foreign;
    struct x509_trust *trust;
    struct net_scratch scratch;
    struct tls_worker worker;
};

static struct certs_pair make(const char *uri, const struct certs_pair *issuer, int64_t from_s,
                              int64_t to_s)
{
    struct certs_spec spec = issuer != NULL ? certs_leaf(uri) : certs_ca(uri);
    spec.not_before_s = os_wall_s() + from_s;
    spec.not_after_s = os_wall_s() + to_s;
    return certs_make(&spec, issuer);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->root = make("spiffe://a.b", NULL, -3600, 86400);
    w->foreign = make("spiffe://a.b", NULL, -3600, 86400);
    w->trust = x509_trust_new();
    size_t len = 0;
    uint8_t *der = certs_der(&w->root.cert, 1, &len);
    assert_int_equal(x509_trust_add(w->trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL),
                     0);
    free(der);
    assert_int_equal(net_scratch_init(&w->scratch, NULL), 0);
    assert_int_equal(tls_worker_init(&w->worker, &w->scratch, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    certs_free(&w->root);
    certs_free(&w->foreign);
    x509_trust_unref(w->trust);
    tls_worker_deinit(&w->worker);
    net_scratch_deinit(&w->scratch);
    free(w);
    return 0;
}

/* Both sides of an own identity, without x509_svid_new's check, so that a bad one can be shown. */
struct own {
    struct tls_party *server, *client;
};

static struct own own_with(const struct world *w, const struct certs_pair *leaf,
                           enum tls_min_group group)
{
    char id[] = "spiffe://a.b/own"; /* that it has one counts */
    struct x509_svid svid = {
        .spiffe_id = id, .leaf = leaf->cert, .key = leaf->key, .intermediates = sk_X509_new_null()};
    const struct x509_svid *list[] = {&svid};
    struct x509_peers *peers = x509_peers_new_spiffe(w->trust);
    struct tls_party_spec spec = {.server = true,
                                  .own = list,
                                  .n_own = 1,
                                  .peers = peers,
                                  .min_group = group,
                                  .alpn = &tls_alpn_postern,
                                  .n_alpn = 1};
    struct own o;
    struct err err = ERR_INIT;
    if (tls_party_new(&spec, &o.server, &err) == -1) {
        fail_msg("%s", err.what);
    }
    spec.server = false;
    if (tls_party_new(&spec, &o.client, &err) == -1) {
        fail_msg("%s", err.what);
    }
    sk_X509_free(svid.intermediates);
    x509_peers_unref(peers);
    return o;
}

static struct own own(const struct world *w, const struct certs_pair *leaf)
{
    return own_with(w, leaf, TLS_MIN_X25519);
}

static void own_free(struct own *o)
{
    tls_party_unref(o->server);
    tls_party_unref(o->client);
}

struct link {
    struct tls_stream client, server;
    enum stream_outcome client_is, server_is;
};

static void open_link(struct world *w, struct link *l, const struct own *client,
                      const struct own *server, const struct str *expected, size_t n)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(
        tls_stream_init_client(&l->client, &w->worker, client->client, expected, n, fds[0]), 0);
    assert_int_equal(tls_stream_init_server(&l->server, &w->worker, server->server, fds[1]), 0);
    l->client_is = l->server_is = STREAM_AGAIN;
}

static void close_link(struct link *l)
{
    stream_deinit(&l->client.base, false);
    stream_deinit(&l->server.base, false);
}

static void shake(struct link *l)
{
    for (int i = 0; i < 20; i++) {
        if (l->client_is == STREAM_AGAIN) {
            l->client_is = tls_handshake(&l->client);
        }
        if (l->server_is == STREAM_AGAIN) {
            l->server_is = tls_handshake(&l->server);
        }
    }
}

struct refusal {
    const char *name;
    const char *client_id, *server_id;
    const char *expected;
    int64_t client_from, client_to;
    bool foreign_client, foreign_server;
    /* The side that says no, what it says, and what the other learns. */
    bool server_refuses;
    enum tls_step step;
    enum x509_verdict verdict;
    const char *alert;
};

static const struct refusal REFUSALS[] = {
    {"expired client", CLIENT, SERVER, SERVER, -7200, -60, false, false, true, TLS_STEP_IDENTITY,
     X509_EXPIRED, "certificate expired"},
    {"client of the future", CLIENT, SERVER, SERVER, 3600, 7200, false, false, true,
     TLS_STEP_IDENTITY, X509_EXPIRED, "certificate expired"},
    {"foreign client", CLIENT, SERVER, SERVER, -60, 3600, true, false, true, TLS_STEP_IDENTITY,
     X509_BAD_CHAIN, "unknown CA"},
    {"client of a domain without bundle", "spiffe://a.bc/client", SERVER, SERVER, -60, 3600, false,
     false, true, TLS_STEP_IDENTITY, X509_UNKNOWN_DOMAIN, "unknown CA"},
    {"client without path", "spiffe://a.b", SERVER, SERVER, -60, 3600, false, false, true,
     TLS_STEP_IDENTITY, X509_BAD_ID, "bad certificate"},
    {"foreign server", CLIENT, SERVER, SERVER, -60, 3600, false, true, false, TLS_STEP_IDENTITY,
     X509_BAD_CHAIN, "unknown CA"},
    {"another server", CLIENT, "spiffe://a.b/server2", SERVER, -60, 3600, false, false, false,
     TLS_STEP_EXPECTED, X509_OK, "bad certificate"},
};

static void test_refusals(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(REFUSALS) / sizeof(REFUSALS[0]); i++) {
        const struct refusal *c = &REFUSALS[i];
        struct certs_pair cc = make(c->client_id, c->foreign_client ? &w->foreign : &w->root,
                                    c->client_from, c->client_to);
        struct certs_pair sc =
            make(c->server_id, c->foreign_server ? &w->foreign : &w->root, -60, 3600);
        struct own client = own(w, &cc);
        struct own server = own(w, &sc);
        struct str expected = str_of(c->expected);
        struct link l;
        open_link(w, &l, &client, &server, &expected, 1);
        shake(&l);
        struct tls_stream *no = c->server_refuses ? &l.server : &l.client;
        struct tls_stream *other = c->server_refuses ? &l.client : &l.server;
        if ((c->server_refuses ? l.server_is : l.client_is) != STREAM_FAILED) {
            fail_msg("%s: client %d, server %d", c->name, (int)l.client_is, (int)l.server_is);
        }
        assert_non_null(no->failure);
        if (no->failure->step != c->step || no->failure->verdict != c->verdict) {
            fail_msg("%s: step %s, verdict %s: %s", c->name, tls_step_name(no->failure->step),
                     x509_verdict_name(no->failure->verdict), no->failure->err.what);
        }
        assert_string_equal(tls_alert_text(no->failure->alert_sent), c->alert);
        assert_string_equal(no->failure->shown_id, c->server_refuses ? c->client_id : c->server_id);
        assert_int_not_equal(no->failure->shown_not_after_s, 0);
        assert_null(no->peer);
        /* In TLS 1.3 a client has finished by then: it learns at its first read. */
        if (c->server_refuses) {
            assert_int_equal(l.client_is, STREAM_OK);
            uint8_t byte;
            size_t n = 0;
            assert_int_equal(stream_read(&other->base, &byte, 1, &n), STREAM_FAILED);
        }
        assert_non_null(other->failure);
        assert_int_equal(other->failure->step, TLS_STEP_REFUSED);
        assert_string_equal(tls_alert_text(other->failure->alert_received), c->alert);
        close_link(&l);
        own_free(&client);
        own_free(&server);
        certs_free(&cc);
        certs_free(&sc);
    }
}

/* A client of plain OpenSSL against our server: what it offers is the case. */
static struct tls_stream *strange_client(struct world *w, struct link *l, SSL_CTX *ctx,
                                         const struct own *server)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_stream_init_server(&l->server, &w->worker, server->server, fds[1]), 0);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fds[0]);
    enum stream_outcome o = STREAM_AGAIN;
    for (int i = 0; i < 20; i++) {
        (void)SSL_connect(ssl);
        if (o == STREAM_AGAIN) {
            o = tls_handshake(&l->server);
        }
    }
    ERR_clear_error();
    assert_int_equal(o, STREAM_FAILED);
    SSL_free(ssl);
    close(fds[0]);
    return &l->server;
}

static void test_strange_clients(void **state)
{
    struct world *w = *state;
    struct certs_pair sc = make(SERVER, &w->root, -60, 3600);
    struct own server = own(w, &sc);
    struct link l;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    struct tls_stream *s = strange_client(w, &l, ctx, &server);
    assert_int_equal(s->failure->step, TLS_STEP_CERTIFICATE);
    assert_int_equal(s->failure->verdict, X509_NO_CERTIFICATE);
    stream_deinit(&s->base, false);
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    s = strange_client(w, &l, ctx, &server);
    assert_int_equal(s->failure->step, TLS_STEP_HELLO);
    assert_string_equal(tls_alert_text(s->failure->alert_sent), "protocol version");
    stream_deinit(&s->base, false);
    SSL_CTX_free(ctx);

    static const char *const first[] = {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\xff\xff",
                                        "SSH-2.0-x\r\n"};
    for (size_t i = 0; i < 3; i++) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        assert_int_equal(tls_stream_init_server(&l.server, &w->worker, server.server, fds[1]), 0);
        assert_true(write(fds[0], first[i], strlen(first[i])) > 0);
        assert_int_equal(tls_handshake(&l.server), STREAM_FAILED);
        assert_true(l.server.failure->step == TLS_STEP_HELLO ||
                    l.server.failure->step == TLS_STEP_PROTOCOL);
        assert_true(l.server.failure->err.what[0] != '\0');
        stream_deinit(&l.server.base, false);
        close(fds[0]);
    }
    own_free(&server);
    certs_free(&sc);
}

/* Random sizes both ways over sockets that take little: what went in comes out. */
static void pour(struct stream *from, struct stream *to, size_t total, unsigned seed)
{
    uint8_t *data = malloc(NET_SCRATCH_SIZE);
    uint8_t *got = malloc(NET_SCRATCH_SIZE);
    size_t sent = 0;
    size_t seen = 0;
    bool eof = false;
    while (!eof) {
        if (!stream_blocked(from) && sent < total) {
            size_t n = 1 + (size_t)(rand_r(&seed) % NET_SCRATCH_SIZE);
            n = rand_r(&seed) % 3 == 0 ? 1 + n % 100 : n;
            n = n > total - sent ? total - sent : n;
            for (size_t i = 0; i < n; i++) {
                data[i] = (uint8_t)((sent + i) * 31 % 253);
            }
            assert_int_equal(stream_write(from, data, n), STREAM_OK);
            sent += n;
        } else {
            assert_int_not_equal(stream_flush(from), STREAM_FAILED);
        }
        if (sent == total) {
            assert_int_equal(stream_shut(from), STREAM_OK);
        }
        size_t n = 0;
        size_t cap = 1 + (size_t)(rand_r(&seed) % NET_SCRATCH_SIZE);
        switch (stream_read(to, got, cap, &n)) {
        case STREAM_OK:
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(got[i], (uint8_t)((seen + i) * 31 % 253));
            }
            seen += n;
            break;
        case STREAM_EOF:
            eof = true;
            break;
        case STREAM_AGAIN:
            break;
        case STREAM_FAILED:
            fail_msg("errno %d after %zu of %zu", to->sys_errno, seen, total);
        }
    }
    assert_int_equal(seen, total);
    assert_null(from->out.data);
    free(data);
    free(got);
}

/* What is known of the whole path: its time, and whose key vouches for it. */
static void check_path(const struct world *w, const struct tls_peer *p,
                       const struct certs_pair *leaf)
{
    uint8_t sha256[32];
    unsigned char *der = NULL;
    int n = i2d_PUBKEY(w->root.key, &der);
    assert_true(n > 0 && EVP_Digest(der, (size_t)n, sha256, NULL, EVP_sha256(), NULL) == 1);
    assert_int_equal(p->n_issuers, 1);
    assert_memory_equal(p->issuers[0].sha256, sha256, sizeof(sha256));
    OPENSSL_free(der);
    assert_int_equal(p->not_after_s, x509_not_after_s(leaf->cert)); /* the root's are wider */
    assert_int_equal(p->not_before_s, x509_not_before_s(leaf->cert));
    assert_memory_equal(p->chain_sha256, p->cert_sha256, 32); /* of one certificate */
}

static void test_good(void **state)
{
    struct world *w = *state;
    struct certs_pair cc = make(CLIENT, &w->root, -60, 3600);
    struct certs_pair sc = make(SERVER, &w->root, -60, 3600);
    struct own client = own(w, &cc);
    struct own server = own(w, &sc);
    struct str expected[2] = {STR_LIT("spiffe://a.b/other"), str_of(SERVER)};
    struct link l;
    open_link(w, &l, &client, &server, expected, 2);
    shake(&l);
    assert_int_equal(l.client_is, STREAM_OK);
    assert_int_equal(l.server_is, STREAM_OK);
    assert_string_equal(l.server.peer->id, CLIENT);
    assert_string_equal(l.client.peer->id, SERVER);
    check_path(w, l.server.peer, &cc);
    assert_string_equal(tls_version(&l.client), "TLSv1.3");
    assert_string_equal(tls_suite(&l.server), "TLS_AES_128_GCM_SHA256");
    assert_int_equal(SSL_session_reused(l.client.ssl), 0);
    pour(&l.client.base, &l.server.base, 3 << 20, 1);
    pour(&l.server.base, &l.client.base, 3 << 20, 2); /* the other direction is still open */
    close_link(&l);
    own_free(&client);
    own_free(&server);
    certs_free(&cc);
    certs_free(&sc);
}

/* The weakest group that is taken; whether there is a hybrid one is the library's affair. */
static void test_groups(void **state)
{
    struct world *w = *state;
    struct certs_pair cc = make(CLIENT, &w->root, -60, 3600),
                      sc = make(SERVER, &w->root, -60, 3600);
    bool hybrid = tls_min_group_check(TLS_MIN_X25519MLKEM768, NULL) == 0;
    assert_int_equal(hybrid, OPENSSL_version_major() > 3 || OPENSSL_version_minor() >= 5);
    static const enum tls_group agreed[2][3][3] = {
        {{TLS_GROUP_X25519, TLS_GROUP_OTHER, 0}, {TLS_GROUP_OTHER, TLS_GROUP_P384, 0}, {0}},
        {{TLS_GROUP_X25519MLKEM768, TLS_GROUP_X25519MLKEM768, TLS_GROUP_X25519MLKEM768},
         {TLS_GROUP_X25519MLKEM768, TLS_GROUP_X25519MLKEM768, TLS_GROUP_X25519MLKEM768},
         {TLS_GROUP_X25519MLKEM768, TLS_GROUP_X25519MLKEM768, TLS_GROUP_X25519MLKEM768}},
    };
    for (int c = TLS_MIN_X25519; c <= (hybrid ? TLS_MIN_X25519MLKEM768 : TLS_MIN_P384); c++) {
        for (int s = TLS_MIN_X25519; s <= (hybrid ? TLS_MIN_X25519MLKEM768 : TLS_MIN_P384); s++) {
            struct own client = own_with(w, &cc, (enum tls_min_group)c);
            struct own server = own_with(w, &sc, (enum tls_min_group)s);
            struct str expected = str_of(SERVER);
            struct link l;
            open_link(w, &l, &client, &server, &expected, 1);
            shake(&l);
            enum tls_group want = agreed[hybrid][c][s];
            if (want == TLS_GROUP_OTHER) {
                assert_int_equal(l.server_is, STREAM_FAILED); /* none in common */
                assert_int_equal(l.server.failure->step, TLS_STEP_HELLO);
            } else {
                assert_int_equal(l.server_is, STREAM_OK);
                assert_int_equal(tls_group(&l.server), want);
                assert_int_equal(tls_group(&l.client), want);
            }
            close_link(&l);
            own_free(&client);
            own_free(&server);
        }
    }
    struct err err = ERR_INIT;
    if (!hybrid) {
        assert_int_equal(tls_min_group_check(TLS_MIN_X25519MLKEM768, &err), -1);
        assert_non_null(strstr(err.what, "x25519mlkem768"));
        assert_non_null(strstr(err.what, OpenSSL_version(OPENSSL_VERSION)));
    }
    certs_free(&cc);
    certs_free(&sc);
}

/* The lengths of the records that wait at a socket. */
static size_t records_at(int fd, size_t *ret, size_t max)
{
    static uint8_t raw[80000];
    ssize_t len = recv(fd, raw, sizeof(raw), MSG_PEEK);
    size_t n = 0;
    for (size_t at = 0; len > 0 && at + 5 <= (size_t)len && n < max; n++) {
        ret[n] = (size_t)raw[at + 3] << 8 | raw[at + 4];
        at += 5 + ret[n];
    }
    return n;
}

/* Small at the beginning and after a rest, so that the first bytes need not wait for later ones. */
static void test_record_sizes(void **state)
{
    struct world *w = *state;
    struct certs_pair cc = make(CLIENT, &w->root, -60, 3600),
                      sc = make(SERVER, &w->root, -60, 3600);
    struct own client = own(w, &cc), server = own(w, &sc);
    struct str expected = str_of(SERVER);
    static uint8_t bytes[50000], got[NET_SCRATCH_SIZE];
    size_t sizes[64], n = 0;
    struct link l;
    open_link(w, &l, &client, &server, &expected, 1);
    shake(&l);
    for (int i = 0; i < 3; i++) {
        if (i == 2) {
            l.client.wrote_ms -= 2000; /* it has rested */
        }
        assert_int_equal(stream_write(&l.client.base, bytes, sizeof(bytes)), STREAM_OK);
        size_t records = records_at(l.server.base.fd, sizes, 64);
        size_t small = 0;
        while (small < records && sizes[small] < 1400) {
            small++;
        }
        assert_int_equal(small, i == 1 ? 0 : 13);
        assert_true(sizes[small] > 16384); /* and all at once: it was one send */
        for (size_t read = 0; read < sizeof(bytes); read += n) {
            assert_int_equal(stream_read(&l.server.base, got, sizeof(got), &n), STREAM_OK);
        }
    }
    close_link(&l);
    own_free(&client);
    own_free(&server);
    certs_free(&cc);
    certs_free(&sc);
}

/* The end of TCP is not the end of TLS. */
static void test_truncation(void **state)
{
    struct world *w = *state;
    struct certs_pair cc = make(CLIENT, &w->root, -60, 3600);
    struct certs_pair sc = make(SERVER, &w->root, -60, 3600);
    struct own client = own(w, &cc);
    struct own server = own(w, &sc);
    struct str expected = str_of(SERVER);
    struct link l;
    open_link(w, &l, &client, &server, &expected, 1);
    shake(&l);
    assert_int_equal(stream_write(&l.client.base, (const uint8_t *)"half", 4), STREAM_OK);
    shutdown(l.client.base.fd, SHUT_WR);
    uint8_t data[64];
    size_t n = 0;
    assert_int_equal(stream_read(&l.server.base, data, sizeof(data), &n), STREAM_OK);
    assert_int_equal(n, 4);
    assert_int_equal(stream_read(&l.server.base, data, sizeof(data), &n), STREAM_FAILED);
    assert_true(l.server.base.truncated);
    assert_false(l.server.base.eof);
    close_link(&l);
    own_free(&client);
    own_free(&server);
    certs_free(&cc);
    certs_free(&sc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strange_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_groups, setup, teardown),
        cmocka_unit_test_setup_teardown(test_record_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
