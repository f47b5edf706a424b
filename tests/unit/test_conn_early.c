/*
 * The application's first bytes go with the CONNECT. The test is the other proxy: it answers when
 * it likes. Bad cases first.
 */
#include <postern/conn.h>

#include "hbone_world.h"

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules: []\n";

struct other {
    struct net_scratch scratch;
    struct tls_worker tls;
    struct tls_stream transport;
    struct hbone_session *s;
    struct hbone_stream st;
    unsigned asked;
};

static void on_wake(void *arg)
{
    (void)arg;
}
static void on_ready(struct hbone_stream *st, unsigned ready)
{
    (void)st;
    (void)ready;
}
static void on_request(void *arg, int32_t id, struct str authority)
{
    struct other *o = (struct other *)arg;
    (void)authority;
    hbone_stream_close(&o->st, true);
    hbone_stream_accept(o->s, id, &o->st, o);
    o->asked++;
}
static const struct hbone_ops OPS = {.wake = on_wake, .ready = on_ready, .request = on_request};

static void wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
}

/* Takes the client's session at the port of HBONE, which the world's own server has left. */
static void other_open(struct world *w, struct other *o, int listener)
{
    struct err err = ERR_INIT;
    memset(o, 0, sizeof(*o));
    wait_readable(listener);
    int fd = accept(listener, NULL, NULL);
    set_timeouts(fd);
    assert_int_equal(net_scratch_init(&o->scratch, &err), 0);
    assert_int_equal(tls_worker_init(&o->tls, &o->scratch, &err), 0);
    assert_int_equal(tls_stream_init_server(&o->transport, &o->tls, w->server.identity->server, fd),
                     0);
    tls_require_alpn(&o->transport, &tls_alpn_h2);
    enum stream_outcome r;
    while ((r = tls_handshake(&o->transport)) == STREAM_AGAIN) {
        wait_readable(fd);
    }
    assert_int_equal(r, STREAM_OK);
    const struct hbone_spec spec = {.server = true,
                                    .transport = &o->transport.base,
                                    .scratch = &o->scratch,
                                    .ops = &OPS,
                                    .arg = o};
    o->s = hbone_session_new(&spec);
    assert_non_null(o->s);
}

static void other_close(struct other *o)
{
    hbone_stream_close(&o->st, true);
    hbone_session_free(o->s);
    stream_deinit(&o->transport.base, false);
    tls_worker_deinit(&o->tls);
    net_scratch_deinit(&o->scratch);
}

static void other_turn(struct other *o)
{
    assert_true(hbone_session_turn(o->s));
    wait_readable(o->transport.base.fd);
    assert_true(hbone_session_receive(o->s, 1));
}

/* Runs the session until the client's `text` is there, and whether its end follows it. */
static void other_hear(struct other *o, const char *text, bool end)
{
    char got[8192];
    size_t n = 0;
    while (n < strlen(text)) {
        size_t more = 0;
        enum stream_outcome r = STREAM_AGAIN;
        if (o->asked > 0) {
            r = stream_read(&o->st.base, (uint8_t *)got + n, strlen(text) - n, &more);
        }
        assert_true(r == STREAM_OK || r == STREAM_AGAIN);
        if (r == STREAM_AGAIN) {
            other_turn(o);
        }
        n += more;
    }
    got[n] = '\0';
    assert_string_equal(got, text);
    size_t none = 0;
    while (end && !o->st.base.eof) {
        enum stream_outcome r = stream_read(&o->st.base, (uint8_t *)got, 1, &none);
        assert_true(r == STREAM_EOF || r == STREAM_AGAIN);
        if (r == STREAM_AGAIN) {
            other_turn(o);
        }
    }
}

static void other_answer(struct other *o)
{
    hbone_stream_answer(&o->st);
    assert_true(hbone_session_turn(o->s));
}

/* The client's side alone, and a listener of the test's in the place of the server's. */
static struct world *client_world(int *ret_listener)
{
    struct world *w = world_new("tcp", ALLOW);
    *ret_listener = listen_any(&w->hbone);
    load(w, &w->client);
    post(&w->client);
    return w;
}

static void test_refused(void **state)
{
    (void)state;
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    int c = dial(w->port);
    say(c, "early");
    other_open(w, &o, listener);
    other_hear(&o, "early", false);
    hbone_stream_refuse(&o.st, 401);
    assert_true(hbone_session_turn(o.s));
    hear_reset(c);
    expect_in(log_line(&w->client, "\"connection\"", "stream_refused"), "\"status\":401");
    other_close(&o);
    close(listener);
    world_free(w);
}

/* Refused unseen: they are said again, and once only. */
static void test_again(void **state)
{
    (void)state;
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    int c = dial(w->port);
    say(c, "early");
    assert_int_equal(shutdown(c, SHUT_WR), 0);
    other_open(w, &o, listener);
    other_hear(&o, "early", false);
    int32_t id = o.st.id;
    assert_in_range(id, 1, 255);
    const uint8_t frame[] = {0, 0, 4, 3, 0, 0, 0, 0, (uint8_t)id, 0, 0, 0, HBONE_ERROR_REFUSED};
    assert_int_equal(stream_write(&o.transport.base, frame, sizeof(frame)), STREAM_OK);
    while (o.asked < 2) {
        other_turn(&o);
    }
    assert_int_not_equal(o.st.id, id);
    other_hear(&o, "early", false);
    other_answer(&o);
    other_hear(&o, "", true);
    assert_int_equal(stream_write(&o.st.base, (const uint8_t *)"late", 4), STREAM_OK);
    assert_int_equal(stream_shut(&o.st.base), STREAM_OK);
    assert_true(hbone_session_turn(o.s));
    hear(c, "late");
    hear_end(c);
    close(c);
    other_close(&o);
    close(listener);
    world_free(w);
}

static void other_goaway(struct other *o, uint8_t last)
{
    const uint8_t frame[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0};
    assert_int_equal(stream_write(&o->transport.base, frame, sizeof(frame)), STREAM_OK);
}

static void until_asked(struct other *o)
{
    while (o->asked == 0) {
        other_turn(o);
    }
}

/* What a session that is lost had of the application may have been read: it is said to nobody else.
 */
static void test_lost(void **state)
{
    (void)state;
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    int c = dial(w->port);
    say(c, "early");
    other_open(w, &o, listener);
    other_hear(&o, "early", false);
    other_close(&o);
    hear_reset(c);
    log_line(&w->client, "\"connection\"", "session_lost");
    struct pollfd p = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    close(listener);
    world_free(w);
}

/* It had nothing, or did not look at it: another session is asked, and once only. */
static void again_elsewhere(const char *early, bool goaway)
{
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    struct other second;
    int c = dial(w->port);
    say(c, early);
    other_open(w, &o, listener);
    until_asked(&o);
    other_hear(&o, early, false);
    if (goaway) {
        other_goaway(&o, 0);
    } else {
        other_close(&o);
    }
    other_open(w, &second, listener);
    until_asked(&second);
    other_hear(&second, early, false);
    other_answer(&second);
    say(c, "more");
    other_hear(&second, "more", false);
    close(c);
    if (goaway) {
        other_close(&o);
    }
    other_close(&second);
    close(listener);
    world_free(w);
}

static void test_leaving(void **state)
{
    (void)state;
    again_elsewhere("early", true);
}

static void test_lost_unsaid(void **state)
{
    (void)state;
    again_elsewhere("", false);
}

static void test_lost_twice(void **state)
{
    (void)state;
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    int c = dial(w->port);
    for (int i = 0; i < 2; i++) {
        other_open(w, &o, listener);
        until_asked(&o);
        other_close(&o);
    }
    hear_reset(c);
    log_line(&w->client, "\"connection\"", "session_lost");
    close(listener);
    world_free(w);
}

static void test_gone(void **state)
{
    (void)state;
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    int c = dial(w->port);
    say(c, "early");
    other_open(w, &o, listener);
    other_hear(&o, "early", false);
    say(c, "more");
    reset(c);
    other_answer(&o);
    while (!o.st.reset) {
        other_turn(&o);
    }
    log_line(&w->client, "\"connection\"", "downstream_reset");
    other_close(&o);
    close(listener);
    world_free(w);
}

/* What comes later, and more than goes early, comes behind the answer, whole and in order. */
static void test_order(void **state)
{
    (void)state;
    static const char tail[] = "; and that was all";
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    char text[6001];
    memset(text, 'x', 6000);
    text[6000] = '\0';
    int c = dial(w->port);
    say(c, text);
    other_open(w, &o, listener);
    text[4096] = '\0';
    other_hear(&o, text, false);
    assert_int_equal(o.st.in.len, 0);
    say(c, tail);
    assert_int_equal(shutdown(c, SHUT_WR), 0);
    other_answer(&o);
    strcpy(text + 6000 - 4096, tail);
    other_hear(&o, text, true);
    close(c);
    other_close(&o);
    close(listener);
    world_free(w);
}

/* A server that speaks first: nothing is early. */
static void test_silent(void **state)
{
    (void)state;
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    int c = dial(w->port);
    other_open(w, &o, listener);
    while (o.asked == 0) {
        other_turn(&o);
    }
    other_answer(&o);
    assert_int_equal(stream_write(&o.st.base, (const uint8_t *)"hello", 5), STREAM_OK);
    assert_true(hbone_session_turn(o.s));
    hear(c, "hello");
    say(c, "you too");
    other_hear(&o, "you too", false);
    close(c);
    other_close(&o);
    close(listener);
    world_free(w);
}

/* A client that has nothing to say says so at once. */
static void test_ended(void **state)
{
    (void)state;
    int listener;
    struct world *w = client_world(&listener);
    struct other o;
    int c = dial(w->port);
    assert_int_equal(shutdown(c, SHUT_WR), 0);
    other_open(w, &o, listener);
    while (o.asked == 0) {
        other_turn(&o);
    }
    other_hear(&o, "", true);
    other_answer(&o);
    assert_int_equal(stream_write(&o.st.base, (const uint8_t *)"bye", 3), STREAM_OK);
    assert_int_equal(stream_shut(&o.st.base), STREAM_OK);
    assert_true(hbone_session_turn(o.s));
    hear(c, "bye");
    hear_end(c);
    close(c);
    other_close(&o);
    close(listener);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_lost),
        cmocka_unit_test(test_leaving),    cmocka_unit_test(test_lost_unsaid),
        cmocka_unit_test(test_lost_twice), cmocka_unit_test(test_again),
        cmocka_unit_test(test_gone),       cmocka_unit_test(test_order),
        cmocka_unit_test(test_silent),     cmocka_unit_test(test_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
