/*
 * Sessions and the end of the certificates that they were made under: each stream ends, or goes on,
 * by what is said of it, and the session for as long as one does. Real workers, real time of a few
 * seconds.
 */
#include <postern/conn.h>

#include "hbone_own.h"
#include "hbone_world.h"

enum { SOON_S = 3, LATER_S = 6, LATE_S = 3600 };

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                            "    action: ALLOW\n    from:\n"
                            "      - principals: [\"spiffe://a.b/client\"]\n";
static const char CUT[] = "    on_expiry: cut\n    expiry_spread: 0s\n";

static void use(struct world *w, struct side *s, const char *id, int64_t for_s)
{
    snapshot_identity_unref(s->identity);
    s->identity = make_identity_for(w, id, for_s);
    post(s);
}

/* The client's side ends nothing by itself. */
static struct world *make(const char *listener, const char *port, int64_t client_s,
                          int64_t server_s)
{
    char conf[600];
    struct world *w = world_new_at("127.0.0.1", listener, "", port, ALLOW);
    snprintf(conf, sizeof(conf),
             "kind: Proxy\nlevel: 1\nname: client\nidentity:\n  socket: unix:/nowhere\n"
             "listeners:\n  - name: out\n    direction: outbound\n"
             "    capture: explicit\n    address: 127.0.0.1:%u\n    to: 127.0.0.1:%u\n"
             "    identities: [\"spiffe://a.b/server\"]\n    on_expiry: warn\n",
             w->port, w->backend);
    write_file(w->client.dir, "proxy.yaml", conf);
    load(w, &w->client);
    use(w, &w->client, "spiffe://a.b/client", client_s);
    use(w, &w->server, "spiffe://a.b/server", server_s);
    return w;
}

/* What is said nowhere else: the session goes with all that it carries. */
static void test_cut(void **state)
{
    (void)state;
    struct world *w = make(CUT, "tcp", SOON_S, LATE_S);
    int s;
    int64_t began_s = os_wall_s();
    int c = through(w, &s);
    hear_reset(c);
    hear_reset(s);
    assert_true(os_wall_s() >= began_s + SOON_S - 1);
    const char *l = log_line(&w->server, "\"connection\"", "certificate_expired");
    expect_in(l, "\"expired\":\"peer\"");
    expect_in(l, "\"transport\":\"hbone\"");
    log_line(&w->server, "\"hbone_session\"", "\"certificate_expired\"");
    world_free(w);
}

/* The listener says cut, one of its ports warn: that one's stream goes on, the other's does not. */
static void test_each_by_its_own(void **state)
{
    (void)state;
    struct world *w = make(CUT, "tcp, on_expiry: warn", SOON_S, LATE_S);
    struct own o;
    struct hbone_stream second = {.status = 0};
    char text[64];
    char byte = 0;
    uint16_t port;
    int other = listen_any(&port);
    assert_true(own_open(w, &o, NULL));
    snprintf(text, sizeof(text), "127.0.0.1:%u", w->backend);
    assert_int_equal(own_ask(&o, text), 200);
    int s = take(w);
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    assert_true(hbone_stream_open(o.s, str_of(text), &second, &o));
    while (!second.reset) {
        assert_true(hbone_session_turn(o.s));
        own_wait(&o);
        assert_true(hbone_session_receive(o.s, 1));
    }
    assert_int_equal(second.status, 200);
    const char *l = log_line(&w->server, "\"connection\"", "certificate_expired");
    snprintf(text, sizeof(text), "\"port\":%u,", port);
    expect_in(l, text);
    log_line(&w->server, "\"certificate_expired\"", "it goes on");
    while (hbone_session_usable(o.s)) { /* and nothing new comes to it */
        own_wait(&o);
        assert_true(hbone_session_receive(o.s, 1));
    }
    assert_false(o.st.reset);
    say(s, "still");
    assert_int_equal(recv(s, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(atomic_load(&w->server.shared.open), 2); /* the session, and that one */
    hbone_stream_close(&second, true);
    own_close(&o);
    close(s);
    close(other);
    world_free(w);
}

/* One that goes on does so alone: whoever comes after the end gets a session of the new ones. */
static void test_warns(void **state)
{
    (void)state;
    struct world *w = make("    on_expiry: warn\n", "tcp", LATE_S, SOON_S);
    int s, s2;
    int c = through(w, &s);
    use(w, &w->server, "spiffe://a.b/server", LATE_S);
    const char *l = log_line(&w->server, "\"certificate_expired\"", "\"expired\":\"own\"");
    expect_in(l, "\"peer_id\":\"spiffe://a.b/client\"");
    log_line(&w->client, "\"certificate_expired\"", "\"expired\":\"peer\"");
    log_line(&w->client, "\"session_leaves\"", "\"by\":\"us\"");
    int c2 = through(w, &s2);
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 2);
    say(c, "y");
    hear(s, "y");
    close(c);
    hear_end(s);
    close(s);
    log_line(&w->client, "\"hbone_session\"", "\"connection\""); /* by whichever side is first */
    say(c2, "z");
    hear(s2, "z");
    close(c2);
    close(s2);
    world_free(w);
}

/* Before the end its streams go on, and new ones go elsewhere; at the end it is cut, and the new
 * session is not. */
static void test_drains(void **state)
{
    (void)state;
    struct world *w = make("    expiry_grace: 2s\n    expiry_spread: 0s\n", "tcp", LATE_S, LATER_S);
    int s, s2;
    int c = through(w, &s);
    use(w, &w->server, "spiffe://a.b/server", LATE_S);
    log_line(&w->client, "\"session_leaves\"", "\"by\":\"peer\"");
    int c2 = through(w, &s2);
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 2);
    say(c, "y");
    hear(s, "y");
    hear_reset(c);
    hear_reset(s);
    expect_in(log_line(&w->server, "\"connection\"", "certificate_expired"), "\"expired\":\"own\"");
    say(c2, "z");
    hear(s2, "z");
    close(c2);
    close(s2);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_each_by_its_own),
        cmocka_unit_test(test_warns),
        cmocka_unit_test(test_drains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
