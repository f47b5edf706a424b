/* Parties: which certificate is shown to whom, what is agreed on and what never is, and judging a
 * live connection again. Against streams of ours and against plain OpenSSL. */
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

enum { LEAVES_MAX = 4 };

struct world {
    struct certs_pair root, leaves[LEAVES_MAX], caller;
    struct x509_svid *own[LEAVES_MAX], *caller_own;
    struct x509_peers *peers;
    struct net_scratch scratch;
    struct tls_worker worker;
};

static struct certs_pair make(const struct certs_pair *ca, const char *dns, enum certs_key kind)
{
    struct certs_spec spec = ca != NULL ? certs_leaf(NULL) : certs_ca(NULL);
    spec.uris[0] = STR_NONE;
    spec.dns = dns != NULL ? str_of(dns) : STR_NONE;
    spec.key = kind;
    spec.common_name = ca != NULL ? dns : "root";
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + 3600;
    return certs_make(&spec, ca);
}

static struct x509_svid *own_of(const struct certs_pair *pair)
{
    struct x509_svid *own = NULL;
    STACK_OF(X509) *chain = certs_stack(&pair->cert, 1);
    assert_int_equal(x509_own_new(chain, pair->key, &own, NULL), 0);
    sk_X509_free(chain);
    return own;
}

static int setup(void **state)
{
    static const struct {
        const char *dns;
        enum certs_key kind;
    } leaves[LEAVES_MAX] = {{"default.example", CERTS_P256},
                            {"*.b.example", CERTS_P256},
                            {"a.b.example", CERTS_P256},
                            {"a.b.example", CERTS_RSA2048}};
    struct world *w = calloc(1, sizeof(*w));
    w->root = make(NULL, NULL, CERTS_P256);
    for (size_t i = 0; i < LEAVES_MAX; i++) {
        w->leaves[i] = make(&w->root, leaves[i].dns, leaves[i].kind);
        w->own[i] = own_of(&w->leaves[i]);
    }
    w->caller = make(&w->root, "caller.example", CERTS_P256);
    w->caller_own = own_of(&w->caller);
    STACK_OF(X509) *cas = certs_stack(&w->root.cert, 1);
    assert_int_equal(x509_peers_new_ordinary(cas, NULL, &w->peers, NULL), 0);
    sk_X509_free(cas);
    assert_int_equal(net_scratch_init(&w->scratch, NULL), 0);
    assert_int_equal(tls_worker_init(&w->worker, &w->scratch, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < LEAVES_MAX; i++) {
        x509_svid_free(w->own[i]);
        certs_free(&w->leaves[i]);
    }
    x509_svid_free(w->caller_own);
    certs_free(&w->caller);
    certs_free(&w->root);
    x509_peers_unref(w->peers);
    tls_worker_deinit(&w->worker);
    net_scratch_deinit(&w->scratch);
    free(w);
    return 0;
}

static struct tls_party *party(const struct tls_party_spec *spec)
{
    struct tls_party *p = NULL;
    struct err err = ERR_INIT;
    if (tls_party_new(spec, &p, &err) == -1) {
        fail_msg("%s", err.what);
    }
    return p;
}

static struct tls_party_spec server_spec(const struct world *w)
{
    return (struct tls_party_spec){.server = true,
                                   .own = (const struct x509_svid *const *)w->own,
                                   .n_own = LEAVES_MAX,
                                   .peers = w->peers};
}

/* A client of plain OpenSSL. */
struct foreign {
    SSL_CTX *ctx;
    SSL *ssl;
    struct tls_stream server;
    enum stream_outcome is;
};

static void foreign_shake(struct world *w, struct foreign *f, const struct tls_party *p,
                          const char *name)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_stream_init_server(&f->server, &w->worker, p, fds[1]), 0);
    f->ssl = SSL_new(f->ctx);
    SSL_set_fd(f->ssl, fds[0]);
    if (name != NULL) {
        SSL_set_tlsext_host_name(f->ssl, name);
    }
    f->is = STREAM_AGAIN;
    for (int i = 0; i < 20; i++) {
        (void)SSL_connect(f->ssl);
        if (f->is == STREAM_AGAIN) {
            f->is = tls_handshake(&f->server);
        }
    }
    ERR_clear_error();
}

static void foreign_end(struct foreign *f)
{
    int fd = SSL_get_fd(f->ssl);
    SSL_free(f->ssl);
    close(fd);
    stream_deinit(&f->server.base, false);
}

static SSL_CTX *foreign_ctx(const struct certs_pair *shows, int version)
{
    SSL_CTX *c = SSL_CTX_new(TLS_client_method());
    if (shows != NULL) {
        assert_int_equal(SSL_CTX_use_cert_and_key(c, shows->cert, shows->key, NULL, 1), 1);
    }
    SSL_CTX_set_max_proto_version(c, version);
    return c;
}

/* --- own certificates ------------------------------------------------------------------------- */
static void test_choice_by_name(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *name;
        size_t shown;
    } cases[] = {{NULL, 0},          {"default.example", 0}, {"other.example", 0},
                 {"b.example", 0},   {"x.b.example", 1},     {"x.y.b.example", 0},
                 {"A.B.example", 2}, {"*.b.example", 1}};
    struct tls_party_spec spec = server_spec(w);
    struct tls_party *p = party(&spec);
    struct foreign f = {.ctx = foreign_ctx(&w->caller, TLS1_3_VERSION)};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        foreign_shake(w, &f, p, cases[i].name);
        assert_int_equal(f.is, STREAM_OK);
        X509 *shown = SSL_get0_peer_certificate(f.ssl);
        if (X509_cmp(shown, w->leaves[cases[i].shown].cert) != 0) {
            fail_msg("case %zu", i);
        }
        struct str said = tls_server_name(&f.server);
        assert_true(cases[i].name == NULL ? said.n == 0 : str_eq(said, str_of(cases[i].name)));
        assert_string_equal(f.server.peer->id, "dns:caller.example");
        foreign_end(&f);
    }
    SSL_CTX_free(f.ctx);
    tls_party_unref(p);
}

/* Two certificates of the same names: what the client can verify is shown to it. */
static void test_choice_by_kind(void **state)
{
    struct world *w = *state;
    struct tls_party_spec spec = server_spec(w);
    struct tls_party *p = party(&spec);
    static const struct {
        const char *sigalgs;
        size_t shown;
    } cases[] = {{"ECDSA+SHA256", 2}, {"rsa_pss_rsae_sha256", 3}};
    for (size_t i = 0; i < 2; i++) {
        /* Shows nothing of its own kind-dependent: no certificate is asked for. */
        struct tls_party_spec open = spec;
        open.peers = NULL;
        struct tls_party *q = party(&open);
        struct foreign f = {.ctx = foreign_ctx(NULL, TLS1_3_VERSION)};
        assert_int_equal(SSL_CTX_set1_sigalgs_list(f.ctx, cases[i].sigalgs), 1);
        foreign_shake(w, &f, q, "a.b.example");
        assert_int_equal(f.is, STREAM_OK);
        assert_int_equal(X509_cmp(SSL_get0_peer_certificate(f.ssl), w->leaves[cases[i].shown].cert),
                         0);
        foreign_end(&f);
        SSL_CTX_free(f.ctx);
        tls_party_unref(q);
    }
    tls_party_unref(p);
}

/* Nobody is asked for a certificate: the peer has no name, and that is all there is to it. */
static void test_nobody_is_asked(void **state)
{
    struct world *w = *state;
    struct tls_party_spec spec = server_spec(w);
    spec.peers = NULL;
    struct tls_party *open = party(&spec);
    struct foreign f = {.ctx = foreign_ctx(NULL, TLS1_3_VERSION)};
    foreign_shake(w, &f, open, NULL);
    assert_int_equal(f.is, STREAM_OK);
    assert_int_equal(f.server.peer->id_len, 0);
    assert_null(tls_peer_certificate(&f.server));
    assert_int_equal(tls_peer_verdict(&f.server, open), X509_OK);
    spec.peers = w->peers; /* a reload asks from now on */
    struct tls_party *strict = party(&spec);
    assert_int_equal(tls_peer_verdict(&f.server, strict), X509_NO_CERTIFICATE);
    foreign_end(&f);
    foreign_shake(w, &f, strict, NULL);
    assert_int_equal(f.is, STREAM_FAILED);
    assert_int_equal(f.server.failure->step, TLS_STEP_CERTIFICATE);
    foreign_end(&f);
    SSL_CTX_free(f.ctx);
    tls_party_unref(open);
    tls_party_unref(strict);
}

/* --- versions --------------------------------------------------------------------------------- */
static void test_old_version(void **state)
{
    struct world *w = *state;
    struct tls_party_spec spec = server_spec(w);
    struct tls_party *strict = party(&spec);
    spec.min = TLS_MIN_1_2;
    struct tls_party *old = party(&spec);
    struct foreign f = {.ctx = foreign_ctx(&w->caller, TLS1_2_VERSION)};
    foreign_shake(w, &f, strict, NULL);
    assert_int_equal(f.is, STREAM_FAILED);
    assert_int_equal(f.server.failure->step, TLS_STEP_HELLO);
    foreign_end(&f);
    foreign_shake(w, &f, old, NULL);
    assert_int_equal(f.is, STREAM_OK);
    assert_string_equal(tls_version(&f.server), "TLSv1.2");
    assert_string_equal(f.server.peer->id, "dns:caller.example");
    assert_int_equal(SSL_session_reused(f.ssl), 0);
    SSL_SESSION *session = SSL_get0_session(f.ssl);
    assert_int_equal(SSL_SESSION_has_ticket(session), 0);
    foreign_end(&f);
    static const char *const bad[] = {"ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA",
                                      "AES128-GCM-SHA256", "AES128-SHA"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(SSL_CTX_set_cipher_list(f.ctx, bad[i]), 1);
        foreign_shake(w, &f, old, "a.b.example"); /* RSA would be there */
        assert_int_equal(f.is, STREAM_FAILED);
        foreign_end(&f);
    }
    SSL_CTX_free(f.ctx);
    f.ctx = foreign_ctx(&w->caller, TLS1_1_VERSION);
    SSL_CTX_set_min_proto_version(f.ctx, TLS1_VERSION);
    SSL_CTX_set_security_level(f.ctx, 0);
    foreign_shake(w, &f, old, NULL);
    assert_int_equal(f.is, STREAM_FAILED);
    foreign_end(&f);
    SSL_CTX_free(f.ctx);
    tls_party_unref(strict);
    tls_party_unref(old);
}

/* --- application protocols -------------------------------------------------------------------- */
static void test_alpn(void **state)
{
    struct world *w = *state;
    static const unsigned char h2_only[] = "\x02h2", both[] = "\x08http/1.1\x02h2";
    const struct str list[] = {STR_LIT("h2"), STR_LIT("http/1.1")};
    struct tls_party_spec spec = server_spec(w);
    spec.alpn = list + 1;
    spec.n_alpn = 1;
    struct tls_party *lenient = party(&spec);
    spec.alpn_required = true;
    struct tls_party *strict = party(&spec);
    spec.alpn = list;
    spec.n_alpn = 2;
    struct tls_party *two = party(&spec);
    struct foreign f = {.ctx = foreign_ctx(&w->caller, TLS1_3_VERSION)};
    SSL_CTX_set_alpn_protos(f.ctx, h2_only, sizeof(h2_only) - 1);
    foreign_shake(w, &f, strict, NULL);
    assert_int_equal(f.is, STREAM_FAILED);
    assert_int_equal(f.server.failure->step, TLS_STEP_HELLO);
    assert_string_equal(tls_alert_text(f.server.failure->alert_sent), "no application protocol");
    foreign_end(&f);
    foreign_shake(w, &f, lenient, NULL);
    assert_int_equal(f.is, STREAM_OK);
    assert_int_equal(tls_alpn(&f.server).n, 0);
    foreign_end(&f);
    SSL_CTX_set_alpn_protos(f.ctx, both, sizeof(both) - 1);
    foreign_shake(w, &f, two, NULL); /* ours is the order that counts */
    assert_true(str_eq(tls_alpn(&f.server), STR_LIT("h2")));
    foreign_end(&f);
    foreign_shake(w, &f, strict, NULL);
    assert_true(str_eq(tls_alpn(&f.server), STR_LIT("http/1.1")));
    foreign_end(&f);
    SSL_CTX_free(f.ctx);
    tls_party_unref(lenient);
    tls_party_unref(strict);
    tls_party_unref(two);
}

/* --- both sides ours -------------------------------------------------------------------------- */
struct link {
    struct tls_stream client, server;
    enum stream_outcome client_is, server_is;
};

static void shake(struct world *w, struct link *l, const struct tls_party *client,
                  const struct tls_party *server, struct str offer)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_stream_init_client(&l->client, &w->worker, client, NULL, 0, fds[0]), 0);
    assert_int_equal(tls_stream_init_server(&l->server, &w->worker, server, fds[1]), 0);
    assert_true(offer.n == 0 || tls_offer_alpn(&l->client, offer));
    l->client_is = l->server_is = STREAM_AGAIN;
    for (int i = 0; i < 20; i++) {
        l->client_is = l->client_is == STREAM_AGAIN ? tls_handshake(&l->client) : l->client_is;
        l->server_is = l->server_is == STREAM_AGAIN ? tls_handshake(&l->server) : l->server_is;
    }
}

static void end(struct link *l)
{
    stream_deinit(&l->client.base, false);
    stream_deinit(&l->server.base, false);
}

static struct x509_names *names_of(enum x509_name_kind kind, const char *text)
{
    struct x509_names *n = x509_names_new(false);
    assert_int_equal(x509_names_add(n, kind, str_of(text), NULL), 0);
    return n;
}

static void test_client(void **state)
{
    struct world *w = *state;
    const struct str list[] = {STR_LIT("h2"), STR_LIT("http/1.1")};
    struct tls_party_spec s = server_spec(w);
    s.alpn = list;
    s.n_alpn = 2;
    struct tls_party *server = party(&s);
    struct x509_names *good = names_of(X509_NAME_DNS, "x.b.example"),
                      *bad = names_of(X509_NAME_DNS, "other.example");
    const struct x509_svid *own = w->caller_own;
    struct tls_party_spec c = {
        .own = &own, .n_own = 1, .peers = w->peers, .names = bad, .server_name = "x.b.example"};
    struct tls_party *wrong = party(&c);
    c.names = good;
    struct tls_party *right = party(&c);
    c.names = NULL; /* nobody said: nobody is right */
    struct tls_party *anybody = party(&c);
    struct link l;
    shake(w, &l, wrong, server, STR_NONE);
    assert_int_equal(l.client_is, STREAM_FAILED);
    assert_int_equal(l.client.failure->step, TLS_STEP_EXPECTED);
    assert_int_equal(l.client.failure->verdict, X509_NOT_ALLOWED);
    assert_string_equal(l.client.failure->shown_id, "dns:*.b.example, cn:*.b.example");
    assert_string_equal(l.client.failure->err.expected, "other.example");
    end(&l);
    shake(w, &l, anybody, server, STR_NONE);
    assert_int_equal(l.client_is, STREAM_FAILED);
    assert_int_equal(l.client.failure->step, TLS_STEP_EXPECTED);
    end(&l);
    shake(w, &l, right, server, STR_LIT("http/1.1"));
    assert_int_equal(l.client_is, STREAM_OK);
    assert_int_equal(l.server_is, STREAM_OK);
    assert_string_equal(l.client.peer->id, "dns:x.b.example");
    assert_true(str_eq(tls_alpn(&l.client), STR_LIT("http/1.1")));
    /* By the other names it would be refused today. */
    assert_int_equal(tls_peer_verdict(&l.client, right), X509_OK);
    assert_int_equal(tls_peer_verdict(&l.client, wrong), X509_NOT_ALLOWED);
    assert_false(tls_party_judges_alike(right, wrong));
    assert_true(tls_party_judges_alike(right, right));
    end(&l);
    /* A client without a certificate of its own. */
    c.own = NULL;
    c.n_own = 0;
    c.names = good;
    struct tls_party *bare = party(&c);
    shake(w, &l, bare, server, STR_NONE);
    assert_int_equal(l.server_is, STREAM_FAILED);
    assert_int_equal(l.server.failure->step, TLS_STEP_CERTIFICATE);
    end(&l);
    x509_names_unref(good);
    x509_names_unref(bad);
    tls_party_unref(server);
    tls_party_unref(wrong);
    tls_party_unref(right);
    tls_party_unref(anybody);
    tls_party_unref(bare);
}

/* What was read off the socket before (by a look at the hello) is fed in. */
static void test_feed(void **state)
{
    struct world *w = *state;
    struct tls_party_spec s = server_spec(w);
    struct tls_party *server = party(&s);
    struct x509_names *names = names_of(X509_NAME_DNS, "default.example");
    const struct x509_svid *own = w->caller_own;
    const struct tls_party_spec c = {.own = &own, .n_own = 1, .peers = w->peers, .names = names};
    struct tls_party *client = party(&c);
    struct link l;
    int fds[2];
    uint8_t first[8192];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_stream_init_client(&l.client, &w->worker, client, NULL, 0, fds[0]), 0);
    assert_int_equal(tls_handshake(&l.client), STREAM_AGAIN);
    ssize_t n = read(fds[1], first, sizeof(first));
    assert_true(n > 0);
    assert_int_equal(tls_stream_init_server(&l.server, &w->worker, server, fds[1]), 0);
    assert_true(tls_feed(&l.server, first, (size_t)n));
    enum stream_outcome client_is = STREAM_AGAIN, server_is = STREAM_AGAIN;
    for (int i = 0; i < 20; i++) {
        server_is = server_is == STREAM_AGAIN ? tls_handshake(&l.server) : server_is;
        client_is = client_is == STREAM_AGAIN ? tls_handshake(&l.client) : client_is;
    }
    assert_int_equal(client_is, STREAM_OK);
    assert_int_equal(server_is, STREAM_OK);
    end(&l);
    x509_names_unref(names);
    tls_party_unref(client);
    tls_party_unref(server);
}

/* A party may go while a handshake by it runs: what OpenSSL keeps points at nothing of it. */
static void test_exchange_in_handshake(void **state)
{
    struct world *w = *state;
    struct tls_party_spec s = server_spec(w);
    struct tls_party *before = party(&s), *after = party(&s);
    struct foreign f = {.ctx = foreign_ctx(&w->caller, TLS1_3_VERSION)};
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_stream_init_server(&f.server, &w->worker, before, fds[1]), 0);
    f.ssl = SSL_new(f.ctx);
    SSL_set_fd(f.ssl, fds[0]);
    SSL_set_tlsext_host_name(f.ssl, "x.b.example");
    assert_int_equal(tls_handshake(&f.server), STREAM_AGAIN);
    f.server.party = after;
    tls_party_unref(before);
    f.is = STREAM_AGAIN;
    for (int i = 0; i < 20; i++) {
        (void)SSL_connect(f.ssl);
        f.is = f.is == STREAM_AGAIN ? tls_handshake(&f.server) : f.is;
    }
    assert_int_equal(f.is, STREAM_OK);
    assert_int_equal(X509_cmp(SSL_get0_peer_certificate(f.ssl), w->leaves[1].cert), 0);
    foreign_end(&f);
    SSL_CTX_free(f.ctx);
    tls_party_unref(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_choice_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_choice_by_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_is_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alpn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exchange_in_handshake, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
