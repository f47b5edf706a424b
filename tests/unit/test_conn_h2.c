/*
 * Requests over HTTP/2 through whole connections: the client speaks h2c through the client's side,
 * the test is the workload. What must not come through first.
 */
#include "conn_world.h"
#include "h2_end.h"
#include "redirected.h"

#include <poll.h>
#include <postern/os.h>
#include <sys/socket.h>
#include <unistd.h>

/* Only what is under "/pub", and nobody but the client. */
static const char ALLOW_PUB[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-reads\n"
                                "    action: ALLOW\n    from:\n"
                                "      - principals: [\"spiffe://a.b/client\"]\n    to:\n"
                                "      - methods: [GET, POST]\n        paths: [\"/pub*\"]\n";
static const char ALLOW_OTHER[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-reads\n"
                                  "    action: ALLOW\n    from:\n"
                                  "      - principals: [\"spiffe://a.b/client\"]\n    to:\n"
                                  "      - paths: [\"/pub/other*\"]\n";

/* --- what must not come through --------------------------------------------------------------- */

static void test_denied(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/secret")));
    see(c, NULL, "closed 0");
    expect(&c->side, "response 1\nHTTP/1.1 403 \r\ncontent-type: text/plain\r\n");
    expect(&c->side, "x-postern-reason: policy_denied\r\nx-postern-decision: ");
    const char *l = log_line(&w->server, "\"request\"", "\"status\":403");
    expect_in(l, "\"protocol\":\"http2\"");
    expect_in(l, "\"path\":\"/secret\"");
    expect_in(l, "\"verdict\":\"deny\"");
    expect_in(l, "\"decision\":\"");
    expect_in(l, "\"near_miss\":\"");
    /* In gRPC's way; what it still sends is for nobody. */
    struct http2_stream *st = ask(c, false, FIELDS(GRPC("/pkg.Service/Method")));
    assert_true(http2_stream_send(st, (const uint8_t *)"hello", 5));
    see(c, NULL, "closed 0\nresponse 3 ends\nHTTP/1.1 200 \r\n");
    see(c, NULL, "x-postern-decision");
    expect(&c->side, "grpc-status: 7\r\ngrpc-message: denied; decision ");
    log_line(&w->server, "\"request\"", "\"grpc_status\":7");
    assert_true(nobody_came(w));
    /* The others go on. */
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1 ends\nGET /pub HTTP/1.1\r\nHost: Svc:80\r\n");
    answer(s, s->side.by_id[1], true, FIELDS(":status", "204"));
    see(c, s, "response 5 ends\nHTTP/1.1 204 \r\n");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* A token that does not hold; a request without one is judged. */
static void test_token(void **state)
{
    char path[] = "/tmp/h2-keys-XXXXXX", protocol[200];
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"keys\":[]}", 11), 11);
    close(fd);
    snprintf(protocol, sizeof(protocol),
             "http\njwt:\n  - {issuer: 'https://idp', audiences: [me], jwks_file: %s}", path);
    struct world *w = world_new_explicit(protocol, ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/pub"), "authorization", "Bearer a.b.c"));
    see(c, NULL, "closed 0");
    expect(&c->side, "response 1\nHTTP/1.1 401 ");
    expect_in(log_line(&w->server, "\"request\"", "\"status\":401"), "token_refused");
    assert_true(nobody_came(w));
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1 ends");
    end_free(s);
    end_free(c);
    world_free(w);
    unlink(path);
}

static void test_refused(void **state)
{
    (void)state;
    const struct {
        const char *const *fields;
        const char *is, *reason;
        bool by_library; /* a newer nghttp2 resets such a stream before we see it */
    } cases[] = {
        {FIELDS(TO("/pub/../secret")), "400", "path_ambiguous"},
        {FIELDS(TO("/pub/%2e%2e/secret")), "400", "path_ambiguous"},
        {FIELDS(TO("/pub//secret")), "400", "path_ambiguous"},
        {FIELDS(TO("/pub%2fsecret")), "400", "path_ambiguous"},
        {FIELDS(TO("/pub;a")), "400", "path_ambiguous"},
        {FIELDS(TO("/pub#a")), "400", "target_byte"},
        {FIELDS(TO("/pub%zz")), "400", "target_percent"},
        {FIELDS(TO("/pub"), "host", "other"), "400", "host_mismatch"},
        {FIELDS(":method", "GET", ":scheme", "http", ":authority", "a@b", ":path", "/pub"), "400",
         "host_malformed", .by_library = true},
        {FIELDS(":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/pub"), "400",
         "scheme"},
        {FIELDS(":method", "BREW", ":scheme", "http", ":authority", "a", ":path", "/pub"), "501",
         "method_unknown"},
        {FIELDS(":method", "get", ":scheme", "http", ":authority", "a", ":path", "/pub"), "501",
         "method_unknown"},
        {FIELDS(":method", "CONNECT", ":authority", "a:80"), "501", "method_connect"},
        {FIELDS(TO("/pub"), "content_length", "1"), "400", "header_lookalike"},
        {FIELDS(TO("/pub"), "transfer_encoding", "chunked"), "400", "header_lookalike"},
        {FIELDS(TO("/pub"), "expect", "a-dance"), "417", "expect_unknown"},
    };
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64];
        c->side.said[0] = '\0';
        ask(c, true, cases[i].fields);
        see(c, NULL, "closed ");
        if (cases[i].by_library && strstr(c->side.said, "closed 1\n") != NULL) {
            continue;
        }
        expect(&c->side, "closed 0");
        snprintf(text, sizeof(text), "HTTP/1.1 %s \r\n", cases[i].is);
        expect(&c->side, text);
        snprintf(text, sizeof(text), "x-postern-reason: %s\r\n", cases[i].reason);
        expect(&c->side, text);
    }
    /* More than a head may have: 431, and the others go on. */
    static char large[40000];
    memset(large, 'a', sizeof(large) - 1);
    c->side.said[0] = '\0';
    ask(c, true, FIELDS(TO("/pub"), "large", large, "larger", large));
    see(c, NULL, "HTTP/1.1 431 ");
    assert_true(nobody_came(w));
    end_free(c);
    world_free(w);
}

static void test_not_http2(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    int c = dial(w->port);
    say(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /pub HTTP/1.1\r\nHost: a\r\n\r\n");
    char got[256];
    while (recv(c, got, sizeof(got), 0) > 0) { /* SETTINGS and GOAWAY, and the end */
    }
    close(c);
    /* Nor is it HTTP/1: no answer would be understood. What is, gets one. */
    c = dial(w->port);
    say(c, "INVALID CONNECTION PREFACE\r\n\r\n");
    assert_int_equal(recv(c, got, sizeof(got), 0), 0);
    close(c);
    log_line(&w->server, "\"request\"", "method_unknown");
    c = dial(w->port);
    say(c, "GET /pub http/1.1\r\nHost: a\r\n\r\n");
    expect_in(hear_until(c, "\n\0"), "HTTP/1.1 400 ");
    close(c);
    log_line(&w->server, "session_refused", "\"step\":\"protocol\"");
    log_line(&w->server, "\"connection\"", "bad_http2");
    assert_true(nobody_came(w));
    world_free(w);
}

/* Rules are asked about what the workload gets, and two content-types are none of gRPC's. */
static void test_unseen(void **state)
{
    (void)state;
    static const char unseen[] =
        "kind: Policy\nlevel: 2\nrules:\n"
        "  - {name: h, action: ALLOW, to: [{headers: [{name: traceparent, values: [x]}]}]}\n"
        "  - {name: grpc, action: ALLOW, to: [{grpc: [pkg.S/M]}]}\n";
    struct world *w = world_new_explicit("http", unseen, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/pub"), "traceparent", "x"));
    see(c, NULL, "response 1\nHTTP/1.1 403 ");
    ask(c, true, FIELDS(GRPC("/pkg.S/M"), "content-type", "text/plain"));
    see(c, NULL, "response 3\nHTTP/1.1 403 ");
    assert_true(nobody_came(w));
    end_free(c);
    world_free(w);
}

/* --- what is said of the peer ----------------------------------------------------------------- */

static void test_headers(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    struct http2_stream *st =
        ask(c, false,
            FIELDS(GRPC("/pub.S/M?q=1"), "x-forwarded-client-cert", "By=me", "x_forwarded_for",
                   "1.1.1.1", "forwarded", "for=me", "x-postern-decision", "mine", "x-a", "1",
                   "cookie", "a=1", "x-a", "2", "cookie", "b=2"));
    struct end *s = workload_new(w);
    see(s, c, "\r\n\r\n");
    expect(&s->side, "request 1 te\nPOST /pub.S/M?q=1 HTTP/1.1\r\nHost: svc\r\n"
                     "content-type: application/grpc+proto\r\nx-a: 1\r\nx-a: 2\r\n"
                     "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n"
                     "x-forwarded-client-cert: By=spiffe://a.b/server;Hash=");
    expect(&s->side, ";URI=spiffe://a.b/client\r\n");
    expect(&s->side, "cookie: a=1; b=2\r\n");
    expect_not(&s->side, "mine");
    expect_not(&s->side, "1.1.1.1");
    expect_not(&s->side, "for=me");
    /* Trailers may say nothing of the kind either. */
    static const struct http2_field forged[] = {
        {{"x-forwarded-client-cert", 23}, {"By=me", 5}, false}};
    assert_true(http2_stream_end_with(st, forged, 1));
    see(c, s, "closed 1");
    see(s, c, "closed 8");
    log_line(&w->server, "\"request\"", "trailer_forbidden");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* --- exchanges -------------------------------------------------------------------------------- */

static void test_exchange(void **state)
{
    (void)state;
    static const struct http2_field up_tail[] = {{{"x-sum", 5}, {"1", 1}, false}};
    static const struct http2_field down_tail[] = {{{"grpc-status", 11}, {"5", 1}, false}};
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    struct http2_stream *st = ask(c, false, FIELDS(GRPC("/pub.S/M")));
    struct end *s = workload_new(w);
    see(s, c, "request 1");
    assert_true(http2_stream_send(st, (const uint8_t *)"hello", 5));
    see(s, c, "data 1 hello\n");
    assert_true(http2_stream_end_with(st, up_tail, 1));
    see(s, c, "trailers 1 ends\nx-sum: 1\r\n");
    answer(s, s->side.by_id[1], false, FIELDS(":status", "103", "link", "a"));
    answer(s, s->side.by_id[1], false,
           FIELDS(":status", "200", "content-type", "application/grpc", "x-postern-reason", "no"));
    assert_true(http2_stream_send(s->side.by_id[1], (const uint8_t *)"bye", 3));
    assert_true(http2_stream_end_with(s->side.by_id[1], down_tail, 1));
    see(c, s, "closed 0\n");
    expect(&c->side, "response 1\nHTTP/1.1 103 \r\nlink: a\r\n\r\nresponse 1\nHTTP/1.1 200 \r\n"
                     "content-type: application/grpc\r\n\r\ndata 1 bye\n"
                     "trailers 1 ends\ngrpc-status: 5\r\n\r\n");
    const char *l = log_line(&w->server, "\"request\"", "\"grpc_status\":5");
    expect_in(l, "\"status\":200");
    expect_in(l, "\"method\":\"POST\"");
    expect_in(l, "\"host\":\"svc\"");
    expect_in(l, "\"path\":\"/pub.S/M\"");
    expect_in(l, "\"verdict\":\"allow\"");
    expect_in(l, "\"rule\":\"client-reads\"");
    expect_in(l, "\"bytes_up\":5");
    expect_in(l, "\"bytes_down\":3");
    /* Many at once, on one connection to the workload. */
    for (unsigned i = 0; i < 50; i++) {
        ask(c, true, FIELDS(TO("/pub/many")));
    }
    see(s, c, "request 101 ends");
    for (int32_t id = 3; id <= 101; id += 2) {
        answer(s, s->side.by_id[id], true, FIELDS(":status", "204"));
    }
    see(c, s, "response 101 ends");
    assert_true(nobody_came(w));
    end_free(s);
    end_free(c);
    world_free(w);
}

/* An answer's end goes with its last bytes, and not before they are all that were said. What is new
 * in each message has no place in the workload's tables (host, user-agent, traceparent, x-...). */
static void test_last_bytes(void **state)
{
    (void)state;
    static const char parent[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1");
    answer(s, s->side.by_id[1], false, FIELDS(":status", "200", "content-length", "3"));
    assert_true(http2_stream_send_last(s->side.by_id[1], (const uint8_t *)"ab", 2));
    see(c, s, "closed 2\n");
    expect_not(&c->side, "ended");
    assert_int_equal(c->side.n_last, 0);
    struct http2_stream *st =
        ask(c, false,
            FIELDS(TO("/pub"), "user-agent", "a", "traceparent", parent, "content-length", "5"));
    assert_true(http2_stream_send_last(st, (const uint8_t *)"hello", 5));
    see(s, c, "data 3 hello\nended 3\n");
    assert_int_equal(s->side.n_last, 1);
    assert_int_equal(s->side.never, 1U << 2);
    answer(s, s->side.by_id[3], false, FIELDS(":status", "200", "content-length", "3"));
    assert_true(http2_stream_send_last(s->side.by_id[3], (const uint8_t *)"abc", 3));
    see(c, s, "data 3 abc\nended 3\nclosed 0\n");
    assert_int_equal(c->side.n_last, 1);
    end_free(s);
    end_free(c);
    world_free(w);
}

static void test_resets(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    struct http2_stream *st = ask(c, false, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1");
    http2_stream_drop(st);
    see(s, c, "closed 8");
    ask(c, false, FIELDS(TO("/pub")));
    see(s, c, "request 3");
    http2_stream_reset(s->side.by_id[3], HTTP2_REFUSED_STREAM);
    see(c, s, "closed 7");
    ask(c, true, FIELDS(TO("/pub")));
    see(s, c, "request 5");
    http2_stream_reset(s->side.by_id[5], HTTP2_PROTOCOL_ERROR);
    see(c, s, "HTTP/1.1 502 ");
    /* An answer that wants no more of the request. */
    st = ask(c, false, FIELDS(TO("/pub")));
    see(s, c, "request 7");
    c->side.said[0] = '\0';
    s->side.by_id[7]->unwanted = true;
    answer(s, s->side.by_id[7], true, FIELDS(":status", "413"));
    see(c, s, "response 7 ends\nHTTP/1.1 413 \r\n\r\nclosed 0\n");
    /* The workload's connection breaks: an answer where there was none, else a reset. */
    ask(c, true, FIELDS(TO("/pub")));
    ask(c, true, FIELDS(GRPC("/pub.S/M")));
    ask(c, true, FIELDS(TO("/pub")));
    ask(c, false, FIELDS(GRPC("/pub.S/Both")));
    see(s, c, "request 15");
    answer(s, s->side.by_id[9], false, FIELDS(":status", "200"));
    answer(s, s->side.by_id[15], false, FIELDS(":status", "200"));
    assert_true(http2_stream_send(s->side.by_id[15], (const uint8_t *)"some", 4));
    see(c, s, "response 9\n");
    see(c, s, "data 15 some\n");
    s = end_free(s);
    see(c, NULL, "closed 2\n");
    see(c, NULL, "trailers 15 ends\ngrpc-status: 14\r\n"); /* of gRPC that is said */
    see(c, NULL, "response 11 ends\nHTTP/1.1 200 \r\n");
    expect(&c->side, "grpc-status: 14\r\n");
    see(c, NULL, "x-postern-reason: upstream_closed\r\n");
    see(c, NULL, "response 13\nHTTP/1.1 502 ");
    /* The next one makes another connection. */
    ask(c, true, FIELDS(TO("/pub")));
    s = workload_new(w);
    see(s, c, "request 1 ends");
    answer(s, s->side.by_id[1], true, FIELDS(":status", "204"));
    see(c, s, "response 17 ends");
    end_free(s);
    end_free(c);
    world_free(w);
}

static void test_workload_speaks_something_else(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/pub")));
    end_run(c, 10);
    int s = take(w);
    say(s, "HTTP/1.1 400 Bad Request\r\n\r\n");
    see(c, NULL, "HTTP/1.1 502 ");
    expect(&c->side, "x-postern-reason: upstream_not_http2\r\n");
    close(s);
    /* And nobody at all. */
    close(w->workload);
    w->workload = -1;
    ask(c, true, FIELDS(TO("/pub")));
    ask(c, true, FIELDS(GRPC("/pub.S/M")));
    see(c, NULL, "HTTP/1.1 503 ");
    see(c, NULL, "grpc-status: 14\r\n");
    expect(&c->side, "x-postern-reason: connect_refused\r\n");
    end_free(c);
    world_free(w);
}

static void test_slow_workload(void **state)
{
    (void)state;
    static uint8_t bytes[256 * 1024];
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    struct http2_stream *st = ask(c, false, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    s->side.lazy = true;
    see(s, c, "request 1");
    assert_true(http2_stream_send(st, bytes, sizeof(bytes)));
    for (unsigned i = 0; i < 40; i++) {
        end_run(c, 2);
        end_run(s, 2);
    }
    /* Its window, and ours, which has grown when that was taken. */
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

static void test_bounds(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http\nlimits: {request_body_bytes: 10}", ALLOW_PUB, true);
    struct end *c = client_new(w);
    struct http2_stream *st = ask(c, false, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1");
    assert_true(http2_stream_send(st, (const uint8_t *)"0123456789a", 11));
    see(c, s, "response 1\nHTTP/1.1 413 ");
    see(s, c, "closed 8");
    expect_not(&s->side, "data");
    ask(c, true, FIELDS(TO("/pub")));
    see(s, c, "request 3");
    for (unsigned i = 0; i < 33; i++) {
        answer(s, s->side.by_id[3], false, FIELDS(":status", "103"));
    }
    see(c, s, "x-postern-reason: interim_many\r\n");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* --- changes ---------------------------------------------------------------------------------- */

static void test_policy_changes(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, false, FIELDS(TO("/pub/waits")));
    struct end *s = workload_new(w);
    ask(c, false, FIELDS(GRPC("/pub/streams")));
    ask(c, false, FIELDS(TO("/pub/other")));
    see(s, c, "request 5");
    answer(s, s->side.by_id[3], false, FIELDS(":status", "200"));
    see(c, s, "response 3\n");
    side_policy(&w->server, ALLOW_OTHER);
    see(c, s, "response 1\nHTTP/1.1 403 ");
    see(c, s, "trailers 3 ends\ngrpc-status: 7\r\n");
    see(s, c, "closed 8\nclosed 8\n");
    log_line(&w->server, "\"request\"", "policy_changed");
    answer(s, s->side.by_id[5], true, FIELDS(":status", "204"));
    see(c, s, "response 5 ends\nHTTP/1.1 204 ");
    ask(c, true, FIELDS(TO("/pub/waits")));
    see(c, s, "response 7\nHTTP/1.1 403 ");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* A head that may no longer be read: denied, by no rule. */
static void test_limits_change(void **state)
{
    char path[300];
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_OTHER, true);
    struct end *c = client_new(w);
    ask(c, false,
        FIELDS(TO("/pub/other"), "a", "", "b", "", "c", "", "d", "", "e", "", "f", "", "g", "", "h",
               ""));
    struct end *s = workload_new(w);
    see(s, c, "request 1");
    snprintf(path, sizeof(path), "%s/proxy.yaml", w->server.dir);
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    fputs("\nlimits: {request_headers: 8}\n", f);
    assert_int_equal(fclose(f), 0);
    side_policy(&w->server, ALLOW_PUB);
    see(c, s, "response 1\nHTTP/1.1 403 ");
    const char *l = log_line(&w->server, "\"request\"", "policy_changed");
    expect_in(l, "\"verdict\":\"deny\"");
    expect_in(l, "\"path\":\"/pub/other\"");
    end_free(s);
    end_free(c);
    world_free(w);
}

static void test_drain(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("http", ALLOW_PUB, true);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1");
    conn_worker_post_drain(w->server.worker, 1, 60000);
    while (!http2_session_peer_leaves(c->side.s)) {
        end_run(c, 5);
    }
    answer(s, s->side.by_id[1], true, FIELDS(":status", "204"));
    see(c, s, "response 1 ends\nHTTP/1.1 204 ");
    see_gone(c);
    log_line(&w->server, "\"connection\"", "session_spent");
    end_free(s);
    end_free(c);
    world_free(w);
}

/* --- detection -------------------------------------------------------------------------------- */

static void test_detected(void **state)
{
    (void)state;
    struct world *w = world_new("    capture: intercepted", ALLOW_PUB, true);
    redirected_port(w->backend);
    struct end *c = client_new(w);
    ask(c, true, FIELDS(TO("/secret")));
    see(c, NULL, "HTTP/1.1 403 ");
    ask(c, true, FIELDS(TO("/pub")));
    struct end *s = workload_new(w);
    see(s, c, "request 1 ends\nGET /pub ");
    answer(s, s->side.by_id[1], true, FIELDS(":status", "204"));
    see(c, s, "response 3 ends");
    end_free(s);
    end_free(c);
    const char *l = log_line(&w->server, "\"connection\"", "\"protocol\":\"http2\"");
    expect_in(l, "\"protocol_by\":\"client\"");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_denied),        cmocka_unit_test(test_token),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_not_http2),
        cmocka_unit_test(test_headers),       cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_resets),        cmocka_unit_test(test_workload_speaks_something_else),
        cmocka_unit_test(test_slow_workload), cmocka_unit_test(test_policy_changes),
        cmocka_unit_test(test_drain),         cmocka_unit_test(test_detected),
        cmocka_unit_test(test_unseen),        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_limits_change), cmocka_unit_test(test_last_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
