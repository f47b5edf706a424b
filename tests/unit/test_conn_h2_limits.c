/*
 * Requests over HTTP/2 through whole connections: until when, how many, how much, and what a token
 * is worth whose key was withdrawn.
 */
#include "conn_world.h"
#include "h2_end.h"

#include <poll.h>
#include <sys/socket.h>

static const char ALLOW_PUB[] = "kind: Policy\nlevel: 1\nrules:\n  - name: pub\n    action: ALLOW\n"
                                "    to: [{paths: [\"/pub*\"]}]\n";

#define TIMES(more) "http\ntimeouts: {handshake: 5s, request_head: 5s, " more "}\n"

/* --- time ------------------------------------------------------------------------------------- */

/* A call of gRPC has a deadline of its own, and may be silent. */
static void test_no_answer(void **state)
{
    (void)state;
    struct world *w = world_new_explicit(TIMES("response_head: 200ms"), ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(GRPC("/pub.S/M")));
    ask(c, false, FIELDS(TO("/pub/more-to-come")));
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 5 ends");
    see(c, s, "response 5\nHTTP/1.1 504 ");
    expect(&c->side, "x-postern-reason: response_timeout\r\n");
    see(s, c, "closed 8\n");
    log_line(&w->server, "\"request\"", "response_timeout");
    expect_not(&c->side, "response 1");
    expect_not(&c->side, "response 3");
    answer(s, s->side.by_id[1], true, FIELDS(":status", "200", "grpc-status", "0"));
    see(c, s, "response 1 ends\nHTTP/1.1 200 ");
    http2_stream_end(&c->side.streams[1]);
    see(c, s, "response 3\nHTTP/1.1 504 ");
    end_free(s);
    end_free(c);
    world_free(w);
}

static void test_slow_body(void **state)
{
    (void)state;
    struct world *w = world_new_explicit(TIMES("request_body: 200ms"), ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, false, FIELDS(GRPC("/pub.S/M")));
    ask(c, false, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 3\n");
    see(c, s, "response 3\nHTTP/1.1 408 ");
    expect(&c->side, "x-postern-reason: body_slow\r\n");
    see(s, c, "closed 8\n");
    /* Once there is an answer nobody waits for the rest. */
    ask(c, false, FIELDS(TO("/pub")));
    see(s, c, "request 5\n");
    answer(s, s->side.by_id[5], false, FIELDS(":status", "200"));
    see(c, s, "response 5\n");
    ask(c, false, FIELDS(TO("/pub")));
    see(c, s, "response 7\nHTTP/1.1 408 ");
    http2_stream_end(s->side.by_id[5]);
    see(c, s, "ended 5\n");
    answer(s, s->side.by_id[1], true, FIELDS(":status", "200", "grpc-status", "0"));
    see(c, s, "response 1 ends\nHTTP/1.1 200 ");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* What the workload does not take is not the client's fault. */
static void test_slow_workload(void **state)
{
    (void)state;
    static uint8_t bytes[2 * HTTP2_WINDOW_FIRST];
    struct world *w = world_new_explicit(TIMES("request_body: 200ms"), ALLOW_PUB, true);
    struct end *c = client_new(w);
    struct http2_stream *st = ask(c, false, FIELDS(TO("/pub/slow")));
    struct end *s = workload_new(w);
    s->side.lazy = true;
    see(s, c, "request 1\n");
    assert_true(http2_stream_send(st, bytes, sizeof(bytes)));
    ask(c, false, FIELDS(TO("/pub")));
    see(c, s, "response 3\nHTTP/1.1 408 "); /* that long it had */
    expect_not(&c->side, "response 1");
    end_free(s);
    end_free(c);
    world_free(w);
}

static void test_whole_time(void **state)
{
    (void)state;
    struct world *w = world_new_explicit(TIMES("request: 300ms"), ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, false, FIELDS(GRPC("/pub.S/M")));
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 3 ends");
    answer(s, s->side.by_id[3], false, FIELDS(":status", "200"));
    see(c, s, "grpc-status: 14\r\n");
    expect(&c->side, "x-postern-reason: request_long\r\n");
    see(c, s, "closed 8\n"); /* the answer had begun */
    see(s, c, "closed 8\nclosed 8\n");
    log_line(&w->server, "\"request\"", "\"stream\":3");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* --- how many, how much ----------------------------------------------------------------------- */

/* Streams that are begun and reset, of which the workload cannot be told, since it does not read.
 */
static void test_resets_pile_up(void **state)
{
    enum { LARGE = 30000 };
    (void)state;
    static char large[LARGE + 1];
    const int small = 4096;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    memset(large, '\\', LARGE); /* a byte that no code makes shorter */
    assert_int_equal(setsockopt(w->workload, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    unsigned n = 0;
    c->side.said[0] = '\0';
    for (; n < 500 && strstr(c->side.said, "closed 7\n") == NULL; n++) {
        c->side.n_streams = n % SIDE_STREAMS;
        struct http2_stream *st = ask(c, false, FIELDS(TO("/pub"), "a", large, "b", large));
        for (int i = 0; i < 20 && strstr(c->side.said, "closed 7\n") == NULL; i++) {
            end_run(c, i / 10);
        }
        http2_stream_drop(st);
        end_run(c, 0);
    }
    assert_true(n > 2 * HTTP2_STREAMS && n < 500);
    end_free(c);
    world_free(w);
}

static void test_many_fields(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    struct http2_field f[HTTP2_FIELDS_MAX + 1] = {{STR_LIT(":method"), STR_LIT("GET"), false},
                                                  {STR_LIT(":scheme"), STR_LIT("http"), false},
                                                  {STR_LIT(":authority"), STR_LIT("a"), false},
                                                  {STR_LIT(":path"), STR_LIT("/pub"), false}};
    for (size_t i = 4; i <= HTTP2_FIELDS_MAX; i++) {
        f[i] = (struct http2_field){STR_LIT("a"), STR_LIT("b"), false};
    }
    struct http2_stream *st = c->side.streams;
    assert_false(http2_stream_open(c->side.s, st, &c->side, f, HTTP2_FIELDS_MAX + 1, true));
    for (size_t n = HTTP2_FIELDS_MAX; n > HTTP2_FIELDS_MAX - 10; n--) {
        c->side.said[0] = '\0';
        assert_true(http2_stream_open(c->side.s, ++st, &c->side, f, n, true));
        see(c, NULL, "HTTP/1.1 431 ");
        expect(&c->side, "x-postern-reason: headers_many\r\n");
    }
    assert_true(nobody_came(w));
    end_free(c);
    world_free(w);
}

/* --- the workload's end ----------------------------------------------------------------------- */

static void leave(struct end *s)
{
    http2_session_goaway(s->side.s);
    http2_session_goaway(s->side.s);
    end_run(s, 0);
}

/* With streams in flight it is said to the client too; without, the next request goes elsewhere. */
static void test_workload_leaves(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1 ends");
    answer(s, s->side.by_id[1], true, FIELDS(":status", "204"));
    see(c, s, "response 1 ends\nHTTP/1.1 204 ");
    leave(s);
    see_gone(s);
    assert_false(http2_session_peer_leaves(c->side.s));
    s = end_free(s);
    ask(c, true, FIELDS(TO("/pub")));
    s = workload_new(w);
    see(s, c, "request 1 ends");
    leave(s);
    while (!http2_session_peer_leaves(c->side.s)) {
        end_run(c, 5);
        end_run(s, 5);
        assert_false(c->gone);
    }
    answer(s, s->side.by_id[1], true, FIELDS(":status", "200", "x-a", "late"));
    see(c, s, "response 3 ends\nHTTP/1.1 200 ");
    see_gone(c);
    log_line(&w->server, "\"connection\"", "session_spent");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* A client is told before a stream of its is refused: one that tries again on the same connection
 * is refused once more, and gives up. Seen: gRPC in Go failed calls at every GOAWAY of its server,
 * since ours followed by a timer. */
static void test_leaving_is_said_first(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1 ends");
    leave(s);
    while (!http2_session_peer_leaves(c->side.s)) {
        assert_null(strstr(c->side.said, "closed 7"));
        if (c->side.n_streams < SIDE_STREAMS) {
            ask(c, true, FIELDS(TO("/pub")));
        } else {
            end_run(c, 5);
        }
        assert_false(c->gone);
    }
    answer(s, s->side.by_id[1], true, FIELDS(":status", "204"));
    see(c, s, "response 1 ends\nHTTP/1.1 204 ");
    end_free(s);
    end_free(c);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_answer),       cmocka_unit_test(test_slow_body),
        cmocka_unit_test(test_slow_workload),   cmocka_unit_test(test_whole_time),
        cmocka_unit_test(test_resets_pile_up),  cmocka_unit_test(test_many_fields),
        cmocka_unit_test(test_workload_leaves), cmocka_unit_test(test_leaving_is_said_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
