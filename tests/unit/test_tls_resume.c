/* Sessions that are resumed: only where a full handshake would have let the same peer in, now. Each
 * case of docs/handshakes.md. */
#include "../../proxy/tls/tls_priv.h"

#include "tls_sides.h"
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
static const struct str SERVERS = {SERVER, sizeof(SERVER) - 1};
static const struct str HERE = {"10.0.0.1:443", 12};

/* The wall clock and the other one, both ahead by as much as a test says. */
static int64_t ahead_s;
int64_t __real_os_wall_s(void);
uint64_t __real_os_now_ms(void);
int64_t __wrap_os_wall_s(void);
uint64_t __wrap_os_now_ms(void);

int64_t __wrap_os_wall_s(void)
{
    return __real_os_wall_s() + ahead_s;
}

uint64_t __wrap_os_now_ms(void)
{
    return __real_os_now_ms() + (uint64_t)ahead_s * 1000;
}

struct world {
    struct certs_pair root, foreign, client_leaf, server_leaf;
    struct tls_party *client, *server;
    struct tls_tickets *tickets, *client_tickets;
    struct net_scratch scratch;
    struct tls_worker at_client, at_server;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    ahead_s = 0;
    w->root = sides_make("spiffe://a.b", NULL, 86400);
    w->foreign = sides_make("spiffe://a.b", NULL, 86400);
    w->client_leaf = sides_make(CLIENT, &w->root, 1000);
    w->server_leaf = sides_make(SERVER, &w->root, 2000);
    w->client = sides_party(&w->client_leaf, &w->root, false, TLS_MIN_1_3);
    w->server = sides_party(&w->server_leaf, &w->root, true, TLS_MIN_1_3);
    w->tickets = tls_tickets_new();
    w->client_tickets = tls_tickets_new();
    assert_int_equal(net_scratch_init(&w->scratch, NULL), 0);
    assert_int_equal(tls_worker_init(&w->at_client, &w->scratch, NULL), 0);
    assert_int_equal(tls_worker_init(&w->at_server, &w->scratch, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    tls_worker_deinit(&w->at_client);
    tls_worker_deinit(&w->at_server);
    net_scratch_deinit(&w->scratch);
    tls_tickets_unref(w->tickets);
    tls_tickets_unref(w->client_tickets);
    tls_party_unref(w->client);
    tls_party_unref(w->server);
    certs_free(&w->root);
    certs_free(&w->foreign);
    certs_free(&w->client_leaf);
    certs_free(&w->server_leaf);
    free(w);
    return 0;
}

/* --- a connection ----------------------------------------------------------------------------- */
struct link {
    struct tls_stream client, server;
    enum stream_outcome client_is, server_is;
};

/* What a test changes before the first step. */
struct with {
    const struct tls_party *client, *server;
    const struct tls_tickets *tickets;
    struct str expected, destination;
    const struct deny_set *client_deny, *server_deny;
    struct tls_worker *at_server;
};

static struct with usual(struct world *w)
{
    return (struct with){.client = w->client,
                         .server = w->server,
                         .tickets = w->tickets,
                         .expected = SERVERS,
                         .destination = HERE,
                         .at_server = &w->at_server};
}

static void open_link(struct world *w, struct link *l, const struct with *x)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(
        tls_stream_init_client(&l->client, &w->at_client, x->client, &x->expected, 1, fds[0]), 0);
    l->client.deny = x->client_deny;
    assert_true(tls_resume(&l->client, w->client_tickets, x->destination));
    assert_int_equal(tls_stream_init_server(&l->server, x->at_server, x->server, fds[1]), 0);
    l->server.deny = x->server_deny;
    assert_true(tls_resume(&l->server, x->tickets, STR_NONE));
    l->client_is = l->server_is = STREAM_AGAIN;
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

/* A byte each way; the client's read takes the tickets in that came before it. */
static void talk(struct link *l)
{
    uint8_t byte = 'x';
    size_t n = 0;
    assert_int_equal(stream_write(&l->server.base, &byte, 1), STREAM_OK);
    enum stream_outcome o = STREAM_AGAIN;
    for (int i = 0; i < 5 && o == STREAM_AGAIN; i++) {
        o = stream_read(&l->client.base, &byte, 1, &n);
    }
    assert_int_equal(o, STREAM_OK);
    assert_int_equal(stream_write(&l->client.base, &byte, 1), STREAM_OK);
    assert_int_equal(stream_read(&l->server.base, &byte, 1, &n), STREAM_OK);
}

static void close_link(struct link *l)
{
    (void)stream_shut(&l->client.base);
    (void)stream_shut(&l->server.base);
    stream_deinit(&l->client.base, false);
    stream_deinit(&l->server.base, false);
}

/* A whole connection that works. Returns whether it was resumed. */
static bool connects(struct world *w, const struct with *x)
{
    struct link l;
    open_link(w, &l, x);
    shake(&l);
    assert_int_equal(l.client_is, STREAM_OK);
    assert_int_equal(l.server_is, STREAM_OK);
    bool resumed = tls_resumed(&l.client);
    assert_int_equal(tls_resumed(&l.server), resumed);
    assert_string_equal(l.server.peer->id, CLIENT);
    assert_string_equal(l.client.peer->id, SERVER);
    talk(&l);
    close_link(&l);
    return resumed;
}

/* --- bad cases -------------------------------------------------------------------------------- */
static void test_keys_dropped(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    assert_false(connects(w, &x));
    assert_true(connects(w, &x));
    struct tls_tickets *others = tls_tickets_new();
    x.tickets = others;
    assert_false(connects(w, &x)); /* after a change, or a restart */
    assert_true(connects(w, &x));
    x.tickets = NULL;
    assert_false(connects(w, &x));                                  /* turned off */
    assert_int_equal(tls_sessions_count(w->at_client.sessions), 0); /* and none was given */
    x.tickets = others;
    assert_false(connects(w, &x));
    /* Keys that nobody has exchanged: no certificate's end matters here. */
    tls_party_unref(w->client);
    struct certs_pair longer = sides_make(CLIENT, &w->root, 80000);
    x.client = w->client = sides_party(&longer, &w->root, false, TLS_MIN_1_3);
    certs_free(&longer);
    assert_false(connects(w, &x));
    ahead_s = 1500;
    assert_true(connects(w, &x));
    tls_tickets_unref(others);
}

static void test_keys_too_old(void **state)
{
    struct world *w = *state;
    struct tls_tickets *t = tls_tickets_new();
    assert_false(tls_tickets_too_old(t, os_now_ms()));
    assert_true(tls_tickets_too_old(t, os_now_ms() + TLS_TICKETS_LIFE_S * 1000));
    tls_tickets_unref(t);
    struct certs_pair a = sides_make(CLIENT, &w->root, 80000),
                      b = sides_make(SERVER, &w->root, 80000);
    struct tls_party *client = sides_party(&a, &w->root, false, TLS_MIN_1_3);
    struct tls_party *server = sides_party(&b, &w->root, true, TLS_MIN_1_3);
    struct with x = usual(w);
    x.client = client;
    x.server = server;
    assert_false(connects(w, &x));
    ahead_s = TLS_TICKETS_LIFE_S;
    assert_false(connects(w, &x));
    tls_party_unref(client);
    tls_party_unref(server);
    certs_free(&a);
    certs_free(&b);
}

static void test_other_party(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    struct certs_pair other = sides_make(SERVER, &w->root, 2000);
    struct tls_party *same = sides_party(&w->server_leaf, &w->root, true, TLS_MIN_1_3);
    struct tls_party *renewed = sides_party(&other, &w->root, true, TLS_MIN_1_3);
    assert_false(connects(w, &x));
    x.server = same; /* another listener, or the same after a change of something */
    assert_false(connects(w, &x));
    x.server = renewed;
    assert_false(connects(w, &x));
    assert_true(connects(w, &x));
    tls_party_unref(same);
    tls_party_unref(renewed);
    certs_free(&other);
}

static void test_other_worker(void **state)
{
    struct world *w = *state;
    struct tls_worker second;
    struct with x = usual(w);
    assert_int_equal(tls_worker_init(&second, &w->scratch, NULL), 0);
    assert_false(connects(w, &x));
    x.at_server = &second;
    assert_false(connects(w, &x)); /* the keys are the same: it has not seen that chain */
    assert_true(connects(w, &x));
    x.at_server = &w->at_server;
    assert_true(connects(w, &x));
    tls_worker_deinit(&second);
}

/* Refused in a full handshake, by the side that says no. */
static void refused(struct world *w, const struct with *x, bool by_server, enum tls_step step,
                    enum x509_verdict verdict)
{
    struct link l;
    open_link(w, &l, x);
    shake(&l);
    struct tls_stream *no = by_server ? &l.server : &l.client;
    assert_int_equal(by_server ? l.server_is : l.client_is, STREAM_FAILED);
    assert_int_equal(no->failure->step, step);
    assert_int_equal(no->failure->verdict, verdict);
    assert_int_equal(SSL_session_reused(no->ssl), 0);
    close_link(&l);
}

static void test_quarantined(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    char serial[48];
    assert_false(connects(w, &x));
    struct link l;
    open_link(w, &l, &x);
    shake(&l);
    snprintf(serial, sizeof(serial), "%s", l.server.peer->serial);
    talk(&l);
    close_link(&l);
    const struct deny_item items[] = {{DENY_SPIFFE_ID, str_of(CLIENT)},
                                      {DENY_SERIAL, str_of(serial)},
                                      {DENY_SPIFFE_ID, str_of(SERVER)}};
    for (size_t i = 0; i < 3; i++) {
        struct deny_set *deny = deny_set_new(&items[i], 1);
        x = usual(w);
        assert_int_not_equal(tls_sessions_count(w->at_client.sessions), 0);
        *(i < 2 ? &x.server_deny : &x.client_deny) = deny;
        refused(w, &x, i < 2, TLS_STEP_QUARANTINED, X509_OK);
        x = usual(w);
        (void)connects(w, &x);
        deny_set_free(deny);
    }
}

static void test_expired(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    assert_false(connects(w, &x));
    ahead_s = 990; /* the client's ends at 1000 */
    assert_true(connects(w, &x));
    ahead_s = 1001;
    refused(w, &x, true, TLS_STEP_IDENTITY, X509_EXPIRED);
    /* And the server's, seen by a client that still holds a session of it. */
    ahead_s = 0;
    assert_false(connects(w, &x));
    ahead_s = 2001;
    refused(w, &x, false, TLS_STEP_IDENTITY, X509_EXPIRED);
}

static void test_change_meanwhile(void **state)
{
    struct world *w = *state;
    const struct deny_item client = {DENY_SPIFFE_ID, str_of(CLIENT)};
    const struct deny_item server = {DENY_SPIFFE_ID, str_of(SERVER)};
    struct deny_set *no_client = deny_set_new(&client, 1), *no_server = deny_set_new(&server, 1);
    struct tls_party *foreign = sides_party(&w->server_leaf, &w->foreign, true, TLS_MIN_1_3);
    for (int i = 0; i < 3; i++) {
        struct with x = usual(w);
        struct link l;
        (void)connects(w, &x);
        open_link(w, &l, &x);
        l.client_is = tls_handshake(&l.client);
        l.server_is = tls_handshake(&l.server); /* the ticket is accepted */
        assert_int_equal(l.server_is, STREAM_AGAIN);
        assert_int_equal(SSL_session_reused(l.server.ssl), 1);
        if (i == 0) {
            l.server.deny = no_client;
        } else if (i == 1) {
            assert_true(tls_stream_rebase(&l.server, foreign));
            tls_resume_rebase(&l.server, w->tickets);
        } else {
            l.client.deny = no_server;
        }
        shake(&l);
        struct tls_stream *no = i < 2 ? &l.server : &l.client;
        assert_int_equal(i < 2 ? l.server_is : l.client_is, STREAM_FAILED);
        assert_int_equal(no->failure->step, i == 1 ? TLS_STEP_IDENTITY : TLS_STEP_QUARANTINED);
        close_link(&l);
    }
    /* A change that takes nothing away: it goes on. */
    struct with x = usual(w);
    struct link l;
    struct tls_party *alike = sides_party(&w->server_leaf, &w->root, true, TLS_MIN_1_3);
    (void)connects(w, &x);
    open_link(w, &l, &x);
    l.client_is = tls_handshake(&l.client);
    l.server_is = tls_handshake(&l.server);
    assert_true(tls_stream_rebase(&l.server, alike));
    tls_resume_rebase(&l.server, NULL); /* and no new ticket */
    shake(&l);
    assert_int_equal(l.server_is, STREAM_OK);
    assert_true(tls_resumed(&l.server));
    talk(&l);
    close_link(&l);
    tls_party_unref(alike);
    tls_party_unref(foreign);
    deny_set_free(no_client);
    deny_set_free(no_server);
}

static void test_client_key(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    assert_false(connects(w, &x));
    x.destination = STR_LIT("10.0.0.1:444");
    assert_false(connects(w, &x));
    x = usual(w);
    struct str two[] = {SERVERS, STR_LIT("spiffe://a.b/other")};
    struct link l;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(tls_stream_init_client(&l.client, &w->at_client, w->client, two, 2, fds[0]),
                     0);
    assert_true(tls_resume(&l.client, w->client_tickets, HERE));
    assert_null(l.client.resume->peer); /* nothing was offered */
    stream_deinit(&l.client.base, false);
    close(fds[1]);
    struct tls_party *renewed = sides_party(&w->client_leaf, &w->root, false, TLS_MIN_1_3);
    x.client = renewed;
    assert_false(connects(w, &x));
    x = usual(w);
    assert_true(connects(w, &x)); /* the first one's own is there still */
    tls_tickets_unref(w->client_tickets);
    w->client_tickets = tls_tickets_new();
    assert_false(connects(w, &x));
    tls_worker_forget_sessions(&w->at_client);
    assert_int_equal(tls_sessions_count(w->at_client.sessions), 0);
    tls_party_unref(renewed);
}

/* The server shows, in a full handshake, that it is somebody else than the session's. */
static void test_another_server(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    struct certs_pair leaf = sides_make("spiffe://a.b/other", &w->root, 2000);
    struct tls_party *other = sides_party(&leaf, &w->root, true, TLS_MIN_1_3);
    assert_false(connects(w, &x));
    x.server = other;
    refused(w, &x, false, TLS_STEP_EXPECTED, X509_OK);
    tls_party_unref(other);
    certs_free(&leaf);
}

static void test_single_use(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    struct link a, b;
    assert_false(connects(w, &x));
    assert_int_equal(tls_sessions_count(w->at_client.sessions), 1);
    open_link(w, &a, &x);
    assert_int_equal(tls_sessions_count(w->at_client.sessions), 0);
    open_link(w, &b, &x);
    assert_non_null(a.client.resume->peer);
    assert_null(b.client.resume->peer);
    shake(&a);
    shake(&b);
    assert_true(tls_resumed(&a.client));
    assert_false(tls_resumed(&b.client));
    close_link(&a);
    close_link(&b);
}

static void test_bounds(void **state)
{
    struct tls_sessions *s = NULL;
    struct tls_peer *peer = tls_peer_new_unknown(), *got = NULL;
    uint8_t key[32] = {0};
    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_true(tls_sessions_keep(&s, key, SSL_SESSION_new(), peer));
    }
    assert_int_equal(tls_sessions_count(s), 8);
    for (int i = 0; i < 300; i++) {
        key[i % 2] = (uint8_t)(i / 2 + 1);
        assert_true(tls_sessions_keep(&s, key, SSL_SESSION_new(), peer));
    }
    assert_int_equal(tls_sessions_count(s), 128);
    memset(key, 0, sizeof(key));
    assert_null(tls_sessions_take(s, key, &got)); /* the oldest went first */
    tls_sessions_free(s);
    assert_int_equal(peer->refs, 1);
    tls_peer_unref(peer);
}

/* --- what a resumed connection is ------------------------------------------------------------- */
static void test_whole_peer(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    struct link l;
    struct tls_party *foreign = sides_party(&w->server_leaf, &w->foreign, true, TLS_MIN_1_3);
    assert_false(connects(w, &x));
    open_link(w, &l, &x);
    shake(&l);
    assert_true(tls_resumed(&l.server));
    assert_int_equal(l.server.peer->not_after_s, x509_not_after_s(w->client_leaf.cert));
    assert_int_equal(l.server.peer->n_issuers, 1);
    assert_int_equal(X509_cmp(tls_peer_certificate(&l.server), w->client_leaf.cert), 0);
    assert_int_equal(tls_peer_verdict(&l.server, w->server), X509_OK);
    assert_int_equal(tls_peer_verdict(&l.server, foreign), X509_BAD_CHAIN);
    assert_true(str_eq(tls_alpn(&l.server), tls_alpn_postern));
    talk(&l);
    close_link(&l);
    tls_party_unref(foreign);
}

/* Parties that do not ask who is there have nothing to resume by. */
static void test_anonymous_session(void **state)
{
    struct world *w = *state;
    struct with x = usual(w);
    struct tls_party *open = sides_party(&w->server_leaf, NULL, true, TLS_MIN_1_3);
    struct link l;
    x.server = open;
    open_link(w, &l, &x);
    assert_null(l.server.resume);
    shake(&l);
    assert_int_equal(l.server_is, STREAM_OK);
    talk(&l);
    assert_int_equal(tls_sessions_count(w->at_client.sessions), 0);
    close_link(&l);
    tls_party_unref(open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keys_too_old, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_party, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quarantined, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expired, setup, teardown),
        cmocka_unit_test_setup_teardown(test_change_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_server, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single_use, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whole_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_anonymous_session, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
