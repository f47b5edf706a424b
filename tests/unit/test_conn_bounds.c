/* What an HBONE peer gets of us beside streams: where they lead, how many it has, how long a
 * session may stand for nothing. */
#include "hbone_own.h"

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules: [{name: all, action: ALLOW}]\n";

static unsigned ask(struct own *o, const char *host, uint16_t port)
{
    char text[64];
    snprintf(text, sizeof(text), "%s:%u", host, port);
    return own_ask(o, text);
}

/* What listens on loopback is for this machine: nobody named it. */
static void test_loopback(void **state)
{
    (void)state;
    struct world *w = world_new_at("0.0.0.0", "", "", "tcp", ALLOW);
    struct own o;
    assert_true(own_open(w, &o, NULL));
    assert_int_equal(ask(&o, "127.0.0.1", w->backend), 400);
    (void)log_line(&w->server, "\"connection\"", "\"loopback\"");
    assert_int_equal(ask(&o, "[::ffff:127.0.0.1]", w->backend), 400);
    assert_int_equal(ask(&o, "[::1]", w->backend), 400);
    own_close(&o);
    struct pollfd p = {.fd = w->workload, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    world_free(w);
}

/* A session is a connection of its identity until a stream is. */
static void test_identity_limit(void **state)
{
    (void)state;
    struct world *w =
        world_new_at("127.0.0.1", "    limits: {per_identity_connections: 2}\n", "", "tcp", ALLOW);
    struct own a, b, c;
    w->server.shared.identities = limit_table_new(64);
    assert_true(own_open(w, &a, NULL));
    assert_true(own_open(w, &b, NULL));
    assert_true(own_open(w, &c, NULL)); /* its handshake; then it is refused */
    (void)log_line(&w->server, "\"connection\"", "identity_limit");
    assert_int_equal(ask(&c, "127.0.0.1", w->backend), 0);
    own_close(&c);
    /* In the place of its session there is one for a stream, and no second. */
    assert_int_equal(ask(&a, "127.0.0.1", w->backend), 200);
    int s = take(w);
    struct hbone_stream more = {.id = 0};
    char text[64];
    snprintf(text, sizeof(text), "127.0.0.1:%u", w->backend);
    assert_true(hbone_stream_open(a.s, str_of(text), &more, &a));
    while (hbone_session_turn(a.s) && more.status == 0) {
        own_wait(&a);
        assert_true(hbone_session_receive(a.s, 1));
    }
    assert_int_equal(more.status, 503);
    hbone_stream_close(&more, true);
    /* It ends, and the session counts again. */
    close(s);
    while (hbone_session_turn(a.s) && !a.st.remote_ended) {
        own_wait(&a);
        assert_true(hbone_session_receive(a.s, 1));
    }
    hbone_stream_close(&a.st, false);
    (void)hbone_session_turn(a.s);
    (void)log_line(&w->server, "\"connection\"", "\"reason\":\"done\"");
    assert_true(own_open(w, &c, NULL));
    assert_int_equal(ask(&c, "127.0.0.1", w->backend), 0);
    own_close(&c);
    /* When a session goes there is room. */
    own_close(&b);
    (void)log_line(&w->server, "\"hbone_session\"", "\"streams\":0");
    assert_true(own_open(w, &c, NULL));
    assert_int_equal(ask(&c, "127.0.0.1", w->backend), 200);
    own_close(&c);
    own_close(&a);
    struct limit_table *t = w->server.shared.identities;
    world_free(w);
    limit_table_free(t);
}

/* Nobody uses it: first GOAWAY, then the end. */
static void test_idle_session(void **state)
{
    (void)state;
    struct world *w = world_new_at("127.0.0.1", "", "timeouts: {idle_session: 1s}\n", "tcp", ALLOW);
    struct own o;
    assert_true(own_open(w, &o, NULL));
    assert_true(hbone_session_turn(o.s) && hbone_session_usable(o.s));
    (void)log_line(&w->server, "session_leaves", "\"by\":\"us\"");
    (void)log_line(&w->server, "\"connection\"", "\"reason\":\"idle\"");
    while (hbone_session_receive(o.s, 1) && hbone_session_turn(o.s)) {
        own_wait(&o);
    }
    assert_false(hbone_session_usable(o.s));
    own_close(&o);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loopback),
        cmocka_unit_test(test_identity_limit),
        cmocka_unit_test(test_idle_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
