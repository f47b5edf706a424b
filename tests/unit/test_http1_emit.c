/*
 * http1: heads as they go on, answers of our own, and that the second reading can refuse.
 */
#include <postern/http1.h>

#include "../../proxy/http1/http1_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct http1_limits defaults = HTTP1_LIMITS_DEFAULT;

static const struct http1_forward verified = {
    .own_id = NAME_OF("spiffe://example.org/server"),
    .peer_hash = NAME_OF("00aaff"),
    .peer_id = NAME_OF("spiffe://example.org/client"),
    .source = NAME_OF("10.0.0.7"),
    .proto = NAME_OF("https"),
};
#define IDENTITY                                                                                   \
    "x-forwarded-for: 10.0.0.7\r\n"                                                                \
    "x-forwarded-proto: https\r\n"                                                                 \
    "x-forwarded-client-cert: By=spiffe://example.org/server;Hash=00aaff;"                         \
    "URI=spiffe://example.org/client\r\n"

static void read_request(const char *text, struct http1_request *ret)
{
    struct http1_scan scan = {0};
    struct http1_error e = {HTTP1_NONE, 0, 0};
    enum http1_result result =
        http1_request_read(&scan, (const uint8_t *)text, strlen(text), &defaults, ret, &e);
    if (result != HTTP1_DONE) {
        fail_msg("%s: %s", text, http1_reason_token(e.reason));
    }
}

static void assert_buf(struct buf *b, const char *expected)
{
    char text[4096];
    assert_true(buf_len(b) < sizeof(text));
    if (buf_len(b) > 0) {
        memcpy(text, buf_head(b), buf_len(b));
    }
    text[buf_len(b)] = '\0';
    assert_string_equal(text, expected);
    buf_reset(b);
}

static void test_requests(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
        bool close;
    } cases[] = {
        /* As it came: order, case, blanks. */
        {"GET /a%20b?c=d HTTP/1.1\r\nHOST:  A:80\r\nzz:\t1 \r\nAccept: */*\r\nzz:2\r\n\r\n",
         "GET /a%20b?c=d HTTP/1.1\r\nHOST:  A:80\r\nzz:\t1 \r\nAccept: */*\r\nzz:2\r\n" IDENTITY
         "\r\n",
         false},
        /* Forged identity, under every spelling that a server might take for it. */
        {"GET / HTTP/1.1\r\nX-Forwarded-Client-Cert: By=x;URI=spiffe://example.org/admin\r\n"
         "x-forwarded-client-cert: a\r\nX_Forwarded_Client_Cert: b\r\nX-Forwarded_Client.Cert: "
         "c\r\n"
         "Host: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-FORWARDED-PROTO: x\r\n"
         "X-Forwarded: y\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nClient-Cert: :x:\r\n"
         "Client-Cert-Chain: :x:\r\nl5d-client-id: z\r\nX-Postern-Decision: 1\r\nX-Kept: 1\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n" IDENTITY "\r\n", false},
        /* Names that only begin alike stay. */
        {"GET / HTTP/1.1\r\nHost: a\r\nForwarded-To: x\r\nX-Real-IP-Not: y\r\nTest: z\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nForwarded-To: x\r\nX-Real-IP-Not: y\r\nTest: z\r\n" IDENTITY
         "\r\n",
         false},
        /* RFC 9110 7.6.1: what goes one hop only, and what Connection names. */
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-HOP: 1\r\nKeep-Alive: "
         "5\r\n"
         "Proxy-Connection: x\r\nProxy-Authorization: Basic eA==\r\nProxy-Authenticate: x\r\n"
         "TE: gzip\r\nUpgrade: websocket\r\nconnection: x-other\r\nX-Other: 2\r\nX-Hop2: 3\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nX-Hop2: 3\r\n" IDENTITY "\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=0.5, Trailers\r\nConnection: TE\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n" IDENTITY "\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, TE\r\nTE: trailers\r\n" IDENTITY "\r\n",
         true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" IDENTITY "\r\n", true},
        /* Upgrades. */
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Version: 13\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
         "Connection: upgrade\r\n" IDENTITY "\r\n",
         true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
         "HTTP2-Settings: AAMAAABk\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\n" IDENTITY "\r\n", false},
        /* Framing stays as it came, and single. */
        {"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\nTrailer: X\r\n"
         "Expect: 100-continue\r\n\r\n",
         "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\nTrailer: X\r\n"
         "Expect: 100-continue\r\n" IDENTITY "\r\n",
         false},
        {"POST / HTTP/1.1\r\nContent-length:5\r\nHost: a\r\n\r\n",
         "POST / HTTP/1.1\r\nContent-length:5\r\nHost: a\r\n" IDENTITY "\r\n", false},
        /* RFC 9112 3.2.1: an origin server gets origin form; RFC 9112 3.2.4: '*'. */
        {"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
         "GET /x?y HTTP/1.1\r\nHost: a\r\n" IDENTITY "\r\n", false},
        {"GET http://a? HTTP/1.1\r\nHost: a\r\n\r\n",
         "GET /? HTTP/1.1\r\nHost: a\r\n" IDENTITY "\r\n", false},
        {"OPTIONS http://a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
         "OPTIONS * HTTP/1.1\r\nHost: a\r\n" IDENTITY "\r\n", false},
        /* HTTP/1.0 keeps its version, or it would be answered in chunks. */
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\n",
         "GET / HTTP/1.0\r\n" IDENTITY "\r\n", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct http1_request r;
        struct buf out = BUF_INIT(8192);
        struct http1_forward fwd = verified;
        fwd.close = cases[i].close;
        read_request(cases[i].in, &r);
        assert_true(http1_request_emit(&r, &fwd, &out));
        assert_buf(&out, cases[i].out);
    }
}

static void test_identity_values(void **state)
{
    (void)state;
    static struct http1_request r;
    struct buf out = BUF_INIT(8192);
    read_request("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: x\r\n\r\n", &r);

    /* No verified peer: nothing is set, and the forged one is gone all the same. */
    struct http1_forward fwd = {0};
    assert_true(http1_request_emit(&r, &fwd, &out));
    assert_buf(&out, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");

    /* A peer without a URI, and we without one. */
    fwd.peer_hash = str_of("ab");
    assert_true(http1_request_emit(&r, &fwd, &out));
    assert_buf(&out, "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-client-cert: Hash=ab\r\n\r\n");

    /* Bytes with a meaning in the header are quoted, quotes escaped. */
    fwd.peer_id = str_of("spiffe://a/b;URI=\"c\",d");
    assert_true(http1_request_emit(&r, &fwd, &out));
    assert_buf(&out,
               "GET / HTTP/1.1\r\nHost: a\r\n"
               "x-forwarded-client-cert: Hash=ab;URI=\"spiffe://a/b;URI=\\\"c\\\",d\"\r\n\r\n");

    /* A value must not begin a line of its own. */
    fwd.peer_id = str_of("spiffe://a/b\r\nX: y");
    assert_false(http1_request_emit(&r, &fwd, &out));
    fwd.peer_id = STR_NONE;
    fwd.peer_dns = str_of("a.b\r\nX: y");
    assert_false(http1_request_emit(&r, &fwd, &out));

    /* Who has a DNS name and no SPIFFE ID. */
    fwd.peer_dns = str_of("db.example");
    assert_true(http1_request_emit(&r, &fwd, &out));
    assert_buf(&out, "GET / HTTP/1.1\r\nHost: a\r\n"
                     "x-forwarded-client-cert: Hash=ab;DNS=db.example\r\n\r\n");
    fwd.source = str_of("10.0.0.1\n");
    assert_false(http1_request_emit(&r, &fwd, &out));

    /* Whole or not at all. */
    struct buf small = BUF_INIT(20);
    assert_true(buf_append(&small, "x", 1));
    assert_false(http1_request_emit(&r, &verified, &small));
    assert_buf(&small, "x");
    buf_reset(&out);
}

/* --- responses ---------------------------------------------------------------------------------*/

static const struct http1_request_info get_11 = {
    .method = HTTP1_GET, .minor = 1, .keep_alive = true};
static const struct http1_request_info get_11_close = {.method = HTTP1_GET, .minor = 1};
static const struct http1_request_info get_10 = {.method = HTTP1_GET, .minor = 0};
static const struct http1_request_info websocket = {
    .method = HTTP1_GET, .minor = 1, .keep_alive = true, .upgrade = "websocket"};

static void test_responses(void **state)
{
    (void)state;
    static const struct {
        const struct http1_request_info *request;
        const char *in, *out;
        bool close;
        bool upstream_keeps, downstream_keeps;
    } cases[] = {
        {&get_11, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nServer:  x \r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nServer:  x \r\n\r\n", false, true, true},
        {&get_11, "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n",
         "HTTP/1.1 200\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", true, true, true},
        /* RFC 9110 7.6.1. */
        {&get_11,
         "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
         "Proxy-Authenticate: x\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\n"
         "X-Postern-Decision: forged\r\nTrailer: X\r\nX-Forwarded-For: stays\r\n\r\n",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n"
         "X-Forwarded-For: stays\r\n\r\n",
         false, false, true},
        /* RFC 9112 9.3: a 1.0 server persists only if it says so; the client need not notice. */
        {&get_11, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", false, false, true},
        {&get_11, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", false, true, true},
        /* Until close: for the client too. */
        {&get_11, "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", false,
         false, false},
        {&get_11_close, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", false, true, false},
        {&get_10, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", false, true, false},
        /* RFC 9110 15.2: interim responses, and none for 1.0. */
        {&get_11, "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", true, true,
         true},
        {&get_11_close, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
         "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", false, true, false},
        {&get_10, "HTTP/1.1 100 Continue\r\n\r\n", "", false, true, false},
        /* Upgrades. */
        {&websocket,
         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
         false, false, false},
        {&get_11,
         "HTTP/1.1 426 Upgrade Required\r\nUpgrade: a/1, b\r\nConnection: upgrade\r\n"
         "Content-Length: 0\r\n\r\n",
         "HTTP/1.1 426 Upgrade Required\r\nUpgrade: a/1, b\r\nContent-Length: 0\r\n"
         "Connection: upgrade\r\n\r\n",
         false, true, true},
        {&get_11, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: b\r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 426 Upgrade Required\r\nUpgrade: b\r\nContent-Length: 0\r\n"
         "Connection: close, upgrade\r\n\r\n",
         true, true, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct http1_response r;
        struct http1_scan scan = {0};
        struct http1_error e = {HTTP1_NONE, 0, 0};
        struct buf out = BUF_INIT(8192);
        if (http1_response_read(&scan, (const uint8_t *)cases[i].in, strlen(cases[i].in), &defaults,
                                cases[i].request, &r, &e) != HTTP1_DONE) {
            fail_msg("%s: %s", cases[i].in, http1_reason_token(e.reason));
        }
        assert_true(http1_response_emit(&r, cases[i].request, cases[i].close, STR_NONE, &out));
        assert_buf(&out, cases[i].out);
        assert_int_equal(r.info.keep_alive, cases[i].upstream_keeps);
        assert_int_equal(http1_keeps_alive(cases[i].request, &r.info), cases[i].downstream_keeps);
    }
}

/* --- answers of our own ------------------------------------------------------------------------*/

static void test_answers(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(2048);
    struct http1_answer a = {.status = 403,
                             .reason = "no_rule",
                             .decision_id = NAME_OF("01J8-7"),
                             .text = "no rule allows this"};
    assert_true(http1_answer_emit(&a, &out));
    assert_buf(&out, "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 69\r\n"
                     "x-postern-reason: no_rule\r\nx-postern-decision: 01J8-7\r\n\r\n"
                     "403 Forbidden: no rule allows this (reason no_rule, decision 01J8-7)\n");
    a = (struct http1_answer){.status = 503, .reason = "no_identity", .head = true, .close = true};
    assert_true(http1_answer_emit(&a, &out));
    assert_buf(&out, "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\n"
                     "content-length: 45\r\nx-postern-reason: no_identity\r\n"
                     "Connection: close\r\n\r\n");

    static const struct http1_answer wrong[] = {
        {.status = 200, .reason = "x"},
        {.status = 403, .reason = "two words"},
        {.status = 403, .reason = ""},
        {.status = 403, .reason = NULL},
        {.status = 403, .reason = "x", .decision_id = NAME_OF("a\r\nSet-Cookie: b")},
        {.status = 403, .reason = "x", .text = "a\r\nb"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(http1_answer_emit(&wrong[i], &out));
        assert_int_equal(buf_len(&out), 0);
    }
    buf_reset(&out);
}

/* Each answer reads as a response whose body is as long as it says. */
static void test_answers_parse(void **state)
{
    (void)state;
    for (unsigned reason = HTTP1_NONE + 1; reason < HTTP1_REASON_COUNT; reason++) {
        static struct http1_response r;
        struct http1_scan scan = {0};
        struct http1_error e;
        struct buf out = BUF_INIT(2048);
        enum http1_reason it = (enum http1_reason)reason;
        struct http1_answer a = {.status = http1_reason_status(it),
                                 .reason = http1_reason_token(it),
                                 .decision_id = NAME_OF("d1"),
                                 .text = http1_reason_text(it),
                                 .close = true};
        assert_true(http1_answer_emit(&a, &out));
        assert_int_equal(
            http1_response_read(&scan, buf_head(&out), buf_len(&out), &defaults, &get_11, &r, &e),
            HTTP1_DONE);
        assert_int_equal(r.head_len + r.info.length, buf_len(&out));
        assert_false(r.info.keep_alive);
        buf_reset(&out);
    }
}

/* --- the second reading ------------------------------------------------------------------------*/

/* A reading of ours that is wrong in one point must not pass: this is what llhttp is for. */
static void test_second_reading_refuses(void **state)
{
    (void)state;
    static const char text[] = "POST /a HTTP/1.1\r\nHost: a\r\nX: yes\r\nContent-Length: 3\r\n\r\n";
    const uint8_t *data = (const uint8_t *)text;
    static struct http1_request right;
    static struct http1_request r;
    read_request(text, &right);
    assert_true(http1_second_request(&right, data));

    r = right;
    r.n_headers = 2;
    assert_false(http1_second_request(&r, data));
    r = right;
    r.headers[1].value.n--;
    assert_false(http1_second_request(&r, data));
    r = right;
    r.headers[1].name.n = 0;
    assert_false(http1_second_request(&r, data));
    r = right;
    r.info.length = 4;
    assert_false(http1_second_request(&r, data));
    r = right;
    r.info.framing = HTTP1_BODY_NONE;
    assert_false(http1_second_request(&r, data));
    r = right;
    r.info.framing = HTTP1_BODY_CHUNKED;
    assert_false(http1_second_request(&r, data));
    r = right;
    r.info.minor = 0;
    assert_false(http1_second_request(&r, data));
    r = right;
    r.method = str_of("GET");
    assert_false(http1_second_request(&r, data));
    r = right;
    r.head_len--;
    assert_false(http1_second_request(&r, data));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),      cmocka_unit_test(test_identity_values),
        cmocka_unit_test(test_responses),     cmocka_unit_test(test_answers),
        cmocka_unit_test(test_answers_parse), cmocka_unit_test(test_second_reading_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
