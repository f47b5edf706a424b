/*
 * conn: connections to the workload that are kept without a client: who gets them, and what ends
 * them. Bad cases first.
 */
#include "conn_world.h"

#include <poll.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: all\n    action: ALLOW\n"
                            "    to: [{paths: [\"/*\"]}]\n";

#define GET "GET /pub HTTP/1.1\r\nHost: a\r\n\r\n"
#define POOL(what) "\nhttp: {upstream_pool: " what "}"

static struct world *pool_world(const char *more)
{
    char text[600];
    snprintf(text, sizeof(text), "http%s", more);
    return world_new_explicit(text, ALLOW, true);
}

static const struct conn_counters *counters(struct world *w)
{
    return conn_worker_counters(w->server.worker);
}

/* Until the counter has come to that. */
static void counted(_Atomic uint64_t *counter, uint64_t n)
{
    uint64_t end = os_now_ms() + WAIT_MS;
    while (atomic_load(counter) < n && os_now_ms() < end) {
        poll(NULL, 0, 1);
    }
    assert_int_equal(atomic_load(counter), n);
}

#define COUNTED(w, name, n) counted((_Atomic uint64_t *)(uintptr_t)&counters(w)->name, n)

/* One request on a new client connection, which the workload answers on `s` (-1: on a new one). */
static int serve(struct world *w, int s, const char *answer)
{
    int c = dial(w->port);
    say(c, GET);
    s = s == -1 ? take(w) : s;
    hear_until(s, "\r\n\r\n");
    say(s, answer);
    hear_until(c, "\r\n\r\n");
    close(c);
    return s;
}

static const char OK[] = "HTTP/1.1 204 No Content\r\n\r\n";

static void test_bytes_that_answer_nothing(void **state)
{
    (void)state;
    struct world *w = pool_world(POOL("shared"));
    int s = serve(w, -1, OK);
    COUNTED(w, upstream_kept, 1);
    say(s, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    COUNTED(w, upstream_unclean, 1);
    hear_reset(s);
    s = serve(w, -1, OK); /* on another one */
    close(s);
    world_free(w);
}

static void test_authenticated_as_a_connection(void **state)
{
    (void)state;
    struct world *w = pool_world(POOL("shared"));
    int s = serve(w, -1, "HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n");
    hear_end(s);
    close(s);
    int c = dial(w->port);
    say(c, "GET /pub HTTP/1.1\r\nHost: a\r\nAuthorization: Negotiate abc\r\n\r\n");
    s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, OK);
    hear_until(c, "\r\n\r\n");
    close(c);
    hear_end(s);
    close(s);
    assert_int_equal(atomic_load(&counters(w)->upstream_kept), 0);
    world_free(w);
}

static void test_not_given_to_another_identity(void **state)
{
    (void)state;
    struct world *w = pool_world("");
    int s = serve(w, -1, OK);
    COUNTED(w, upstream_kept, 1);
    snapshot_identity_unref(w->client.identity);
    w->client.identity = make_identity(w, "spiffe://a.b/other");
    side_post(&w->client);
    side_settled(&w->client);
    int other = serve(w, -1, OK);
    assert_int_equal(atomic_load(&counters(w)->upstream_reused), 0);
    close(other);
    close(s);
    world_free(w);
}

static void test_what_ends_one(void **state)
{
    (void)state;
    static const char *const ways[] = {
        POOL("'off'"),
        "\nlimits: {upstream_idle: 0}",
        "\ntimeouts: {upstream_idle: 30ms}",
    };
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct world *w = pool_world(ways[i]);
        int s = serve(w, -1, OK);
        hear_end(s);
        close(s);
        world_free(w);
    }
    /* Its own word, an end, and a change of anything. */
    struct world *w = pool_world("");
    int s = serve(w, -1, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    hear_end(s);
    close(s);
    s = serve(w, -1, OK);
    COUNTED(w, upstream_kept, 1);
    close(s);
    s = serve(w, -1, OK);
    COUNTED(w, upstream_kept, 2);
    side_post(&w->server);
    hear_end(s);
    close(s);
    /* An answer before the request's end. */
    int c = dial(w->port);
    say(c, "POST /pub HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx");
    s = take(w);
    hear_until(s, "\r\n\r\nx");
    say(s, OK);
    hear_until(c, "\r\n\r\n");
    close(c);
    hear_reset(s);
    world_free(w);
}

static void test_reused(void **state)
{
    (void)state;
    struct world *w = pool_world("");
    int s = serve(w, -1, OK);
    for (unsigned i = 1; i < 4; i++) {
        COUNTED(w, upstream_kept, i);
        s = serve(w, s, OK);
        assert_int_equal(atomic_load(&counters(w)->upstream_reused), i);
    }
    assert_true(nobody_came(w));
    /* One that ends as it is taken is no failure of the request. */
    COUNTED(w, upstream_kept, 4);
    int c = dial(w->port);
    say(c, GET);
    hear_until(s, "\r\n\r\n");
    close(s);
    s = take(w);
    hear_until(s, "\r\n\r\n");
    say(s, OK);
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    /* A client that stays is idle after a while, and its connection is another's. */
    COUNTED(w, upstream_kept, 5);
    s = serve(w, s, OK);
    /* It goes on over whatever there is. */
    COUNTED(w, upstream_kept, 6);
    say(c, GET);
    hear_until(s, "\r\n\r\n");
    say(s, OK);
    expect_in(hear_until(c, "\r\n\r\n"), "204");
    close(c);
    close(s);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_that_answer_nothing),
        cmocka_unit_test(test_authenticated_as_a_connection),
        cmocka_unit_test(test_not_given_to_another_identity),
        cmocka_unit_test(test_what_ends_one),
        cmocka_unit_test(test_reused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
