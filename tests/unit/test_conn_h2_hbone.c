/*
 * HTTP/2 inside HBONE: requests in streams of streams, judged as over a connection of their own.
 */
#include <postern/conn.h>

#include "hbone_world.h"

#include "h2_end.h"

static const char ALLOW_PUB[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-reads\n"
                                "    action: ALLOW\n    from:\n"
                                "      - principals: [\"spiffe://a.b/client\"]\n    to:\n"
                                "      - paths: [\"/pub*\"]\n";

static void test_requests(void **state)
{
    (void)state;
    static const struct http2_field tail[] = {{{"grpc-status", 11}, {"0", 1}, false}};
    struct world *w = world_new("http", ALLOW_PUB);
    struct end *c = client_new(w), *other = client_new(w);
    ask(c, true, FIELDS(TO("/secret")));
    see(c, NULL, "response 1\nHTTP/1.1 403 ");
    ask(c, false, FIELDS(GRPC("/secret.S/M")));
    see(c, NULL, "grpc-status: 7\r\n");
    struct http2_stream *st = ask(c, false, FIELDS(GRPC("/pub.S/M")));
    struct end *s = workload_new(w);
    see(s, c, "request 1 te\nPOST /pub.S/M HTTP/1.1\r\n");
    expect(&s->side, "x-forwarded-client-cert: By=spiffe://a.b/server;Hash=");
    expect(&s->side, ";URI=spiffe://a.b/client\r\n");
    assert_true(http2_stream_send(st, (const uint8_t *)"hello", 5));
    http2_stream_end(st);
    see(s, c, "data 1 hello\nended 1\n");
    answer(s, s->side.by_id[1], false, FIELDS(":status", "200"));
    assert_true(http2_stream_send(s->side.by_id[1], (const uint8_t *)"bye", 3));
    assert_true(http2_stream_end_with(s->side.by_id[1], tail, 1));
    see(c, s, "data 5 bye\ntrailers 5 ends\ngrpc-status: 0\r\n");
    const char *l = log_line(&w->server, "\"request\"", "\"grpc_status\":0");
    expect_in(l, "\"session\":");
    expect_in(l, "\"protocol\":\"http2\"");
    expect_in(l, "\"peer_id\":\"spiffe://a.b/client\"");
    /* Another connection of the application is another stream of the same session. */
    ask(other, true, FIELDS(TO("/pub")));
    struct end *s2 = workload_new(w);
    see(s2, other, "request 1 ends");
    assert_int_equal(sessions(&w->client, CONF_OUTBOUND), 1);
    s2 = end_free(s2); /* it breaks */
    see(other, NULL, "HTTP/1.1 502 ");
    end_free(s);
    end_free(c);
    end_free(other);
    world_free(w);
}

/* Whoever reads nothing stops the writer, through both sessions. */
static void test_back_pressure(void **state)
{
    (void)state;
    static uint8_t bytes[256 * 1024];
    struct world *w = world_new("http", ALLOW_PUB);
    struct end *c = client_new(w);
    struct http2_stream *st = ask(c, false, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    s->side.lazy = true;
    see(s, c, "request 1");
    assert_true(http2_stream_send(st, bytes, sizeof(bytes)));
    while (s->side.got < HTTP2_WINDOW_FIRST) {
        end_run(c, 2);
        end_run(s, 2);
    }
    for (unsigned i = 0; i < 20; i++) {
        end_run(c, 2);
        end_run(s, 2);
    }
    assert_int_equal(s->side.got, HTTP2_WINDOW_FIRST);
    assert_true(c->side.taken <= 3 * HTTP2_WINDOW_FIRST);
    s->side.lazy = false;
    http2_stream_consumed(s->side.by_id[1], s->side.got);
    http2_stream_end(st);
    see(s, c, "ended 1");
    assert_int_equal(s->side.got, sizeof(bytes));
    end_free(s);
    end_free(c);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_back_pressure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
