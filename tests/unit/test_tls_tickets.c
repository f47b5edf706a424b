/* Tickets in the hands of a client of plain OpenSSL that does with them what ours never would. */
#include "../../proxy/tls/tls_priv.h"

#include "tls_sides.h"
#include <openssl/err.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char CLIENT[] = "spiffe://a.b/client";

struct world {
    struct certs_pair root, client, victim, server;
    struct tls_party *party;
    struct tls_tickets *tickets;
    struct net_scratch scratch;
    struct tls_worker worker;
    SSL_CTX *ctx;
};

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION **at = (SSL_SESSION **)SSL_get_app_data(ssl);
    SSL_SESSION_free(*at);
    *at = session;
    return 1;
}

static SSL_CTX *context(const struct certs_pair *own)
{
    SSL_CTX *c = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_certificate(c, own->cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(c, own->key), 1);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c, keep_session);
    return c;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->root = sides_make("spiffe://a.b", NULL, 86400);
    w->client = sides_make(CLIENT, &w->root, 1000);
    w->victim = sides_make("spiffe://a.b/victim", &w->root, 1000);
    w->server = sides_make("spiffe://a.b/server", &w->root, 2000);
    w->party = sides_party(&w->server, &w->root, true, TLS_MIN_1_3);
    w->tickets = tls_tickets_new();
    assert_int_equal(net_scratch_init(&w->scratch, NULL), 0);
    assert_int_equal(tls_worker_init(&w->worker, &w->scratch, NULL), 0);
    w->ctx = context(&w->client);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    SSL_CTX_free(w->ctx);
    tls_worker_deinit(&w->worker);
    net_scratch_deinit(&w->scratch);
    tls_tickets_unref(w->tickets);
    tls_party_unref(w->party);
    certs_free(&w->root);
    certs_free(&w->client);
    certs_free(&w->victim);
    certs_free(&w->server);
    free(w);
    return 0;
}

/* --- a connection ----------------------------------------------------------------------------- */
struct link {
    SSL *client;
    SSL_SESSION *got; /* owned: what the server gave last */
    struct tls_stream server;
    enum stream_outcome server_is;
};

/* offered: lent; NULL: none. */
static void open_link(struct world *w, struct link *l, SSL_CTX *ctx, SSL_SESSION *offered)
{
    int fds[2];
    *l = (struct link){.server_is = STREAM_AGAIN};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    l->client = SSL_new(ctx);
    BIO *bio = BIO_new_socket(fds[0], BIO_CLOSE);
    SSL_set_bio(l->client, bio, bio);
    SSL_set_app_data(l->client, &l->got);
    if (offered != NULL) {
        assert_int_equal(SSL_set_session(l->client, offered), 1);
    }
    SSL_set_connect_state(l->client);
    assert_int_equal(tls_stream_init_server(&l->server, &w->worker, w->party, fds[1]), 0);
    assert_true(tls_resume(&l->server, w->tickets, STR_NONE));
}

static bool finish(struct link *l)
{
    bool done = false;
    for (int i = 0; i < 10; i++) {
        ERR_clear_error();
        done = done || SSL_do_handshake(l->client) == 1;
        if (l->server_is == STREAM_AGAIN) {
            l->server_is = tls_handshake(&l->server);
        }
    }
    return done && l->server_is == STREAM_OK;
}

/* The server's byte, and with it the tickets before it. */
static void hear(struct link *l)
{
    char byte = 'x';
    assert_int_equal(stream_write(&l->server.base, (const uint8_t *)&byte, 1), STREAM_OK);
    assert_int_equal(SSL_read(l->client, &byte, 1), 1);
}

static void close_link(struct link *l)
{
    SSL_shutdown(l->client); /* else its session counts as spoilt */
    SSL_free(l->client);
    SSL_SESSION_free(l->got);
    stream_deinit(&l->server.base, false);
    ERR_clear_error();
}

/* A session of a full handshake; the caller's. */
static SSL_SESSION *session_of(struct world *w, SSL_CTX *ctx)
{
    struct link l;
    open_link(w, &l, ctx, NULL);
    assert_true(finish(&l));
    hear(&l);
    SSL_SESSION *s = l.got;
    l.got = NULL;
    close_link(&l);
    return s;
}

/* Connects with what is offered; whether it was resumed. It works in either case. */
static bool resumes(struct world *w, SSL_SESSION *offered)
{
    struct link l;
    open_link(w, &l, w->ctx, offered);
    assert_true(finish(&l));
    bool r = SSL_session_reused(l.client) == 1;
    assert_int_equal(tls_resumed(&l.server), r);
    assert_string_equal(l.server.peer->id, CLIENT);
    hear(&l);
    close_link(&l);
    return r;
}

/* The same session with other bytes in the place of some. */
static SSL_SESSION *changed(SSL_SESSION *s, const void *old, const void *new, size_t n)
{
    unsigned char *der = NULL;
    int len = i2d_SSL_SESSION(s, &der);
    assert_true(len > 0);
    unsigned char *at = memmem(der, (size_t)len, old, n);
    assert_non_null(at);
    memcpy(at, new, n);
    const unsigned char *p = der;
    SSL_SESSION *r = d2i_SSL_SESSION(NULL, &p, len);
    assert_non_null(r);
    OPENSSL_free(der);
    return r;
}

/* --- cases ------------------------------------------------------------------------------------ */
static void test_broken_tickets(void **state)
{
    struct world *w = *state;
    SSL_SESSION *s = session_of(w, w->ctx);
    const unsigned char *ticket;
    size_t n;
    SSL_SESSION_get0_ticket(s, &ticket, &n);
    uint8_t *copy = malloc(n);
    /* Its key's name, the vector, the sealed part, the end. */
    const size_t places[] = {0, 15, 16, 31, 32, n / 2, n - 33, n - 32, n - 1};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        memcpy(copy, ticket, n);
        copy[places[i]] ^= 1;
        SSL_SESSION *broken = changed(s, ticket, copy, n);
        assert_false(resumes(w, broken));
        SSL_SESSION_free(broken);
    }
    os_random(copy, n);
    SSL_SESSION *noise = changed(s, ticket, copy, n);
    assert_false(resumes(w, noise));
    SSL_SESSION_free(noise);
    assert_true(resumes(w, s)); /* and as it was given */
    free(copy);
    SSL_SESSION_free(s);
}

/* The ticket of another, who alone knows the secret that goes with it. */
static void test_stolen_ticket(void **state)
{
    struct world *w = *state;
    uint8_t secret[64], other[64];
    SSL_CTX *ctx = context(&w->victim);
    SSL_SESSION *s = session_of(w, ctx);
    size_t n = SSL_SESSION_get_master_key(s, secret, sizeof(secret));
    os_random(other, sizeof(other));
    SSL_SESSION *stolen = changed(s, secret, other, n);
    struct link l;
    open_link(w, &l, w->ctx, stolen);
    assert_false(finish(&l));
    assert_int_equal(l.server_is, STREAM_FAILED);
    assert_int_equal(l.server.failure->step, TLS_STEP_PROTOCOL);
    assert_int_not_equal(l.server.alert_sent, TLS_NO_ALERT);
    close_link(&l);
    SSL_SESSION_free(stolen);
    SSL_SESSION_free(s);
    SSL_CTX_free(ctx);
}

/* Sealed with the right keys, but what it says is not so. By stopping the server in the middle of
 * its handshake, whom it took the client for is exchanged before it writes the ticket. */
static SSL_SESSION *forged(struct world *w, struct tls_peer *as)
{
    struct link l;
    uint8_t flight[8192];
    int through[2];
    size_t got = 0;
    open_link(w, &l, w->ctx, NULL);
    (void)SSL_do_handshake(l.client);
    assert_int_equal(tls_handshake(&l.server), STREAM_AGAIN);
    /* The client's last flight, by a way of ours: all but one byte, and then that. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, through), 0);
    SSL_set0_wbio(l.client, BIO_new_socket(through[0], BIO_CLOSE));
    assert_int_equal(SSL_do_handshake(l.client), 1);
    for (ssize_t n; (n = read(through[1], flight + got, sizeof(flight) - got)) > 0;) {
        got += (size_t)n;
    }
    int to_server = (int)BIO_get_fd(SSL_get_rbio(l.client), NULL);
    assert_int_equal(write(to_server, flight, got - 1), (ssize_t)got - 1);
    assert_int_equal(tls_handshake(&l.server), STREAM_AGAIN);
    assert_non_null(l.server.peer);
    tls_peer_unref(l.server.peer);
    l.server.peer = tls_peer_ref(as);
    assert_int_equal(write(to_server, flight + got - 1, 1), 1);
    assert_int_equal(tls_handshake(&l.server), STREAM_OK);
    hear(&l);
    SSL_SESSION *s = l.got;
    l.got = NULL;
    close_link(&l);
    close(through[1]);
    assert_non_null(s);
    return s;
}

static void test_forged_ticket(void **state)
{
    struct world *w = *state;
    SSL_CTX *ctx = context(&w->victim);
    struct link l;
    open_link(w, &l, ctx, NULL);
    assert_true(finish(&l)); /* the victim is known to this worker */
    struct tls_peer *victim = tls_peer_ref(l.server.peer), *nobody = tls_peer_new_unknown();
    hear(&l);
    close_link(&l);
    SSL_SESSION *s = forged(w, victim);
    assert_false(resumes(w, s)); /* the leaf is another's */
    SSL_SESSION_free(s);
    s = forged(w, nobody);
    assert_false(resumes(w, s)); /* it names no chain */
    SSL_SESSION_free(s);
    tls_peer_unref(victim);
    tls_peer_unref(nobody);
    SSL_CTX_free(ctx);
}

static void test_other_name(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {NULL, "a.test", "b.test"};
    for (int given = 0; given < 3; given++) {
        for (int said = 0; said < 3; said++) {
            struct link l;
            open_link(w, &l, w->ctx, NULL);
            assert_int_equal(SSL_set_tlsext_host_name(l.client, names[given]), 1);
            assert_true(finish(&l));
            hear(&l);
            SSL_SESSION *s = l.got;
            l.got = NULL;
            close_link(&l);
            open_link(w, &l, w->ctx, s);
            assert_int_equal(SSL_set_tlsext_host_name(l.client, names[said]), 1);
            assert_true(finish(&l));
            assert_int_equal(SSL_session_reused(l.client), said == given);
            hear(&l);
            close_link(&l);
            SSL_SESSION_free(s);
        }
    }
}

/* A client that sends early data though no ticket of ours allows it. */
static void test_no_early_data(void **state)
{
    struct world *w = *state;
    SSL_SESSION *s = session_of(w, w->ctx);
    assert_int_equal(SSL_SESSION_get_max_early_data(s), 0);
    struct link l;
    size_t n = 0;
    uint8_t byte;
    SSL_SESSION_set_max_early_data(s, 1000);
    open_link(w, &l, w->ctx, s);
    assert_int_equal(SSL_write_early_data(l.client, "replayed", 8, &n), 1);
    assert_true(finish(&l));
    assert_int_equal(SSL_get_early_data_status(l.client), SSL_EARLY_DATA_REJECTED);
    assert_int_equal(stream_read(&l.server.base, &byte, 1, &n), STREAM_AGAIN);
    hear(&l);
    close_link(&l);
    SSL_SESSION_free(s);
}

static void test_no_tls12(void **state)
{
    struct world *w = *state;
    tls_party_unref(w->party);
    w->party = sides_party(&w->server, &w->root, true, TLS_MIN_1_2);
    SSL_CTX_set_max_proto_version(w->ctx, TLS1_2_VERSION);
    struct link l;
    open_link(w, &l, w->ctx, NULL);
    assert_true(finish(&l));
    SSL_SESSION *s = SSL_get1_session(l.client);
    assert_int_equal(SSL_SESSION_has_ticket(s), 0);
    hear(&l);
    close_link(&l);
    assert_false(resumes(w, s));
    /* Nor does it give tickets to those that could do better. */
    SSL_CTX_set_max_proto_version(w->ctx, TLS1_3_VERSION);
    assert_null(session_of(w, w->ctx));
    SSL_SESSION_free(s);
}

/* TLS 1.2 is where it could be had. */
static void test_no_renegotiation(void **state)
{
    struct world *w = *state;
    tls_party_unref(w->party);
    w->party = sides_party(&w->server, &w->root, true, TLS_MIN_1_2);
    SSL_CTX_set_max_proto_version(w->ctx, TLS1_2_VERSION);
    struct link l;
    uint8_t byte;
    size_t n;
    open_link(w, &l, w->ctx, NULL);
    assert_true(finish(&l));
    assert_int_equal(SSL_renegotiate(l.client), 1);
    (void)SSL_do_handshake(l.client); /* its hello is on the way */
    (void)stream_read(&l.server.base, &byte, 1, &n);
    for (int i = 0; i < 5; i++) {
        assert_int_not_equal(SSL_do_handshake(l.client), 1);
        (void)stream_read(&l.server.base, &byte, 1, &n);
    }
    SSL_free(l.client);
    SSL_SESSION_free(l.got);
    stream_deinit(&l.server.base, false);
    ERR_clear_error();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_broken_tickets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stolen_ticket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forged_ticket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_early_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_tls12, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_renegotiation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
