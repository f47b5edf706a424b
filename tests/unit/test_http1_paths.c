/*
 * http1: what ports that opt out let through, and by which two readings it is judged; CONNECT;
 * traceparent.
 */
#include <postern/http1.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    SLASH = HTTP1_PATH_ENCODED_SLASH,
    BACK = HTTP1_PATH_ENCODED_BACKSLASH,
    SEMI = HTTP1_PATH_SEMICOLON,
    DOUBLE = HTTP1_PATH_DOUBLE_SLASH,
    DOTS = HTTP1_PATH_DOT_SEGMENTS,
    PLAIN = HTTP1_PATH_ENCODED_PLAIN,
    TWICE = HTTP1_PATH_DOUBLE_ENCODING,
    OVER = HTTP1_PATH_OVERLONG,
    ALL = HTTP1_PATH_ALL,
};

/* --- paths -------------------------------------------------------------------------------------*/

/* judged NULL: refused, by all but `allow`; other NULL: there is none. */
static const struct {
    const char *path;
    uint32_t allow;
    const char *judged, *other;
} paths[] = {
    /* What nothing lets through. */
    {"/a%00b", ALL, NULL, NULL},
    {"/a%1fb", ALL, NULL, NULL},
    {"/a%7f", ALL, NULL, NULL},
    {"/..", ALL, NULL, NULL},
    {"/../a", ALL, NULL, NULL},
    {"/a/../../b", ALL, NULL, NULL},
    {"/a%2f..%2f..%2fb", ALL, NULL, NULL},
    {"/a/%2e%2e/%2e%2e", ALL, NULL, NULL},
    {"/..;x/a", ALL, NULL, NULL},
    {"/a;/../../b", ALL, NULL, NULL},
    {"/%25252f", ALL, NULL, NULL},
    {"/a%250ab", ALL, NULL, NULL},
    {"/%c0%8a", ALL, NULL, NULL},
    {"/a\"b", ALL, NULL, NULL},
    {"/a{b}", ALL, NULL, NULL},
    {"/%5c..%5c..", ALL, NULL, NULL},
    /* What one lets through is not what another does. */
    {"/a%2fb", ALL & ~(uint32_t)SLASH, NULL, NULL},
    {"/a%5cb", ALL & ~(uint32_t)BACK, NULL, NULL},
    {"/a;b", ALL & ~(uint32_t)SEMI, NULL, NULL},
    {"/a%3bb", ALL & ~(uint32_t)SEMI, NULL, NULL},
    {"/a//b", ALL & ~(uint32_t)DOUBLE, NULL, NULL},
    {"/a/./b", ALL & ~(uint32_t)DOTS, NULL, NULL},
    {"/a/../b", ALL & ~(uint32_t)DOTS, NULL, NULL},
    {"/%61", ALL & ~(uint32_t)PLAIN, NULL, NULL},
    {"/a%252fb", ALL & ~(uint32_t)TWICE, NULL, NULL},
    {"/a%c0%afb", ALL & ~(uint32_t)OVER, NULL, NULL},
    /* Several in one need all of them. */
    {"/a%2f%2fb", SLASH, NULL, NULL},
    {"/a%2f/b", SLASH, NULL, NULL},
    {"/a%2f..%2fb", SLASH, NULL, NULL},
    {"/a/..;x/b", SEMI, NULL, NULL},
    {"/a/;x/b", SEMI, NULL, NULL},
    {"/a/%2e%2e/b", PLAIN, NULL, NULL},
    {"/a/%2e%2e/b", DOTS, NULL, NULL},
    {"/a%5c..%5cb", BACK, NULL, NULL},
    {"/a%252fb", TWICE, NULL, NULL},
    {"/a%252e%252e", TWICE | PLAIN, "/a%2e%2e", "/a.."},
    {"/a/%252e%252e/b", TWICE | PLAIN, NULL, NULL},
    {"/a%c0%ae./b", OVER, "/a\xc0\xae./b", "/a../b"},
    {"/a/%c0%ae./b", OVER, NULL, NULL},
    /* Nothing of it: one reading. */
    {"/", 0, "/", NULL},
    {"/a/b/", 0, "/a/b/", NULL},
    {"/a%20b", 0, "/a b", NULL},
    {"/%c3%a9", 0, "/\xc3\xa9", NULL},
    {"/a%25", 0, "/a%", NULL},
    {"/a%2520", 0, "/a%20", NULL},
    {"/a", ALL, "/a", NULL},
    /* Let through: judged as by who leaves it alone, and as by who does all that can be done. */
    {"/a%2fb", SLASH, "/a%2Fb", "/a/b"},
    {"/a%5cb", BACK, "/a%5Cb", "/a/b"},
    {"/a;x=1/b;y", SEMI, "/a;x=1/b;y", "/a/b"},
    {"/a%3Bx/b", SEMI, "/a;x/b", "/a/b"},
    {"/a//b///c", DOUBLE, "/a//b///c", "/a/b/c"},
    {"//", DOUBLE, "//", "/"},
    {"/a/./b/.", DOTS, "/a/./b/.", "/a/b/"},
    {"/a/b/../c", DOTS, "/a/b/../c", "/a/c"},
    {"/a/b/..", DOTS, "/a/b/..", "/a/"},
    {"/a/..", DOTS, "/a/..", "/"},
    {"/%61dmin", PLAIN, "/admin", NULL},
    {"/a%252fb", TWICE | SLASH, "/a%2fb", "/a/b"},
    {"/a%c0%afb", OVER,
     "/a\xc0\xaf"
     "b",
     "/a/b"},
    {"/a%e0%80%afb", OVER,
     "/a\xe0\x80\xaf"
     "b",
     "/a/b"},
    {"/a%f0%80%80%afb", OVER,
     "/a\xf0\x80\x80\xaf"
     "b",
     "/a/b"},
    {"/a%c1", OVER, "/a\xc1", NULL},
    {"/p/x%2f..%2f..%2fq", SLASH | DOTS, "/p/x%2F..%2F..%2Fq", "/q"},
    {"/p/..;v=1/q", SEMI | DOTS, "/p/..;v=1/q", "/q"},
};

static void test_paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        char judged[256];
        char other[256];
        struct http1_path p = {STR_NONE, STR_NONE};
        const char *at = NULL;
        struct str path = str_of(paths[i].path);
        enum http1_reason r = http1_path_read(path, paths[i].allow, judged, other, &p, &at);
        if ((r == HTTP1_NONE) != (paths[i].judged != NULL)) {
            fail_msg("%s with %x: %s", paths[i].path, paths[i].allow, http1_reason_token(r));
        }
        if (r != HTTP1_NONE) {
            assert_true(at >= path.p && at < path.p + path.n);
            continue;
        }
        const char *second = paths[i].other != NULL ? paths[i].other : "";
        if (!str_eq(p.judged, str_of(paths[i].judged)) || !str_eq(p.other, str_of(second))) {
            fail_msg("%s: '%.*s' and '%.*s'", paths[i].path, STR_ARG(p.judged), STR_ARG(p.other));
        }
    }
}

/* --- heads -------------------------------------------------------------------------------------*/

static struct http1_request request;

static enum http1_reason read_with(const char *text, const struct http1_limits *limits)
{
    struct http1_scan scan = {0};
    struct http1_error e = {HTTP1_NONE, 0, 0};
    enum http1_result r =
        http1_request_read(&scan, (const uint8_t *)text, strlen(text), limits, &request, &e);
    assert_int_not_equal(r, HTTP1_MORE);
    return r == HTTP1_DONE ? HTTP1_NONE : e.reason;
}

static void test_request_has_both_readings(void **state)
{
    (void)state;
    struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    const char *text = "GET /a%2Fb?c=%2F HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(read_with(text, &l), HTTP1_PATH_AMBIGUOUS);
    l.allow_paths = SLASH;
    assert_int_equal(read_with(text, &l), HTTP1_NONE);
    assert_true(str_eq(request.path, STR_LIT("/a%2Fb")));
    assert_true(str_eq(request.judged_path, STR_LIT("/a%2Fb")));
    assert_true(str_eq(request.other_path, STR_LIT("/a/b")));
    assert_int_equal(read_with("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &l), HTTP1_NONE);
    assert_int_equal(request.other_path.n, 0);
}

static void test_connect(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum http1_reason reason;
        const char *host;
    } cases[] = {
        {"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_HOST_MALFORMED, NULL},
        {"CONNECT http://a:1/ HTTP/1.1\r\nHost: a:1\r\n\r\n", HTTP1_HOST_MALFORMED, NULL},
        {"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_TARGET_FORM, NULL},
        {"CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_HOST_MALFORMED, NULL},
        {"CONNECT a:0 HTTP/1.1\r\nHost: a:0\r\n\r\n", HTTP1_HOST_MALFORMED, NULL},
        {"CONNECT a:65536 HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_HOST_MALFORMED, NULL},
        {"CONNECT u@a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", HTTP1_HOST_MALFORMED, NULL},
        {"CONNECT a:1?b HTTP/1.1\r\nHost: a:1\r\n\r\n", HTTP1_HOST_MALFORMED, NULL},
        {"CONNECT a:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", HTTP1_HOST_MISMATCH, NULL},
        {"CONNECT a:1 HTTP/1.1\r\nHost: a:2\r\n\r\n", HTTP1_HOST_MISMATCH, NULL},
        {"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", HTTP1_HOST_MISMATCH, NULL},
        {"CONNECT a:1 HTTP/1.1\r\n\r\n", HTTP1_HOST_MISSING, NULL},
        {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 0\r\n\r\n", HTTP1_BODY_FORBIDDEN,
         NULL},
        {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n",
         HTTP1_BODY_FORBIDDEN, NULL},
        {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", HTTP1_NONE, "a:1"},
        {"CONNECT A.b.:0443 HTTP/1.1\r\nHost: a.B:443\r\n\r\n", HTTP1_NONE, "a.b:443"},
        {"CONNECT [::1]:1 HTTP/1.1\r\nHost: [::1]:1\r\n\r\n", HTTP1_NONE, "[::1]:1"},
    };
    struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    assert_int_equal(read_with(cases[14].text, &l), HTTP1_METHOD_CONNECT);
    l.connect = true;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum http1_reason r = read_with(cases[i].text, &l);
        if (r != cases[i].reason) {
            fail_msg("%s: %s", cases[i].text, http1_reason_token(r));
        }
        if (r == HTTP1_NONE) {
            assert_true(str_eq(request.host, str_of(cases[i].host)));
            assert_int_equal(request.path.n, 0);
            assert_int_equal(request.judged_path.n, 0);
            assert_false(request.info.keep_alive);
        }
    }
}

static void test_connect_answers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum http1_reason reason;
        bool switching;
        const char *out;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HTTP1_BODY_FORBIDDEN, false, NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_BODY_FORBIDDEN, false,
         NULL},
        {"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", HTTP1_UPGRADE_UNASKED,
         false, NULL},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", HTTP1_NONE, true,
         "HTTP/1.1 200 OK\r\n\r\n"},
        {"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\n", HTTP1_NONE, false,
         "HTTP/1.1 407 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"},
    };
    static struct http1_response response;
    const struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    const struct http1_request_info info = {.method = HTTP1_CONNECT, .minor = 1};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http1_scan scan = {0};
        struct http1_error e = {HTTP1_NONE, 0, 0};
        const char *t = cases[i].text;
        (void)http1_response_read(&scan, (const uint8_t *)t, strlen(t), &l, &info, &response, &e);
        assert_int_equal(e.reason, cases[i].reason);
        if (cases[i].reason != HTTP1_NONE) {
            continue;
        }
        struct buf out = BUF_INIT(1024);
        assert_int_equal(response.info.switching, cases[i].switching);
        assert_true(http1_response_emit(&response, &info, false, STR_NONE, &out));
        assert_int_equal(buf_len(&out), strlen(cases[i].out));
        assert_memory_equal(buf_head(&out), cases[i].out, buf_len(&out));
        buf_reset(&out);
    }
}

/* --- traceparent -------------------------------------------------------------------------------*/

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"

static void test_traceparent(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "00-" TRACE "-" PARENT,
        "00-" TRACE "-" PARENT "-1",
        "00-" TRACE "-" PARENT "-011",
        "00-" TRACE "-" PARENT "-01-x",
        "00-" TRACE "-" PARENT "-0g",
        "00-" TRACE "-" PARENT "-0A",
        "ff-" TRACE "-" PARENT "-01",
        "0-" TRACE "-" PARENT "-001",
        "00_" TRACE "-" PARENT "-01",
        "00-" TRACE "_" PARENT "-01",
        "00-" TRACE "-" PARENT "_01",
        "00-0AF7651916cd43dd8448eb211c80319c-" PARENT "-01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01",
        "01-" TRACE "-" PARENT "-01x",
        "01-" TRACE "-" PARENT "-01-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    };
    static const char *const good[] = {
        "00-" TRACE "-" PARENT "-01",
        "00-" TRACE "-" PARENT "-ff",
        "01-" TRACE "-" PARENT "-01",
        "cc-" TRACE "-" PARENT "-01-what-comes",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (http1_traceparent_valid(str_of(bad[i]))) {
            fail_msg("%s", bad[i]);
        }
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (!http1_traceparent_valid(str_of(good[i]))) {
            fail_msg("%s", good[i]);
        }
    }
    char text[HTTP1_TRACEPARENT_LEN + 1] = "";
    const uint64_t random[3] = {1, 0, UINT64_MAX};
    http1_traceparent_begin(random, text);
    assert_string_equal(text, "00-00000000000000010000000000000000-ffffffffffffffff-01");
    assert_true(http1_traceparent_valid(str_of(text)));
}

/* What goes on of it: a valid one as it came; else ours, and no tracestate. */
static void test_traces_forwarded(void **state)
{
    (void)state;
    static const struct {
        const char *headers, *out;
    } cases[] = {
        {"", "traceparent: ours\r\n"},
        {"traceparent: x\r\n", "traceparent: ours\r\n"},
        {"tracestate: a=b\r\n", "traceparent: ours\r\n"},
        {"tracestate: a=b\r\nTraceparent: 00\r\n", "traceparent: ours\r\n"},
        {"traceparent: 00-" TRACE "-" PARENT "-01\r\ntraceparent: 00-" TRACE "-" PARENT "-01\r\n",
         "traceparent: ours\r\n"},
        {"traceparent: 00-" TRACE "-" PARENT "-01\r\ntraceparent: x\r\n", "traceparent: ours\r\n"},
        {"Traceparent: 00-" TRACE "-" PARENT "-01\r\nTracestate: a=b\r\n",
         "Traceparent: 00-" TRACE "-" PARENT "-01\r\nTracestate: a=b\r\n"},
    };
    const struct http1_limits l = HTTP1_LIMITS_DEFAULT;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char in[512];
        char out[512];
        struct buf b = BUF_INIT(4096);
        snprintf(in, sizeof(in), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", cases[i].headers);
        assert_int_equal(read_with(in, &l), HTTP1_NONE);
        const struct http1_forward f = {.traceparent = STR_LIT("ours")};
        assert_true(http1_request_emit(&request, &f, &b));
        snprintf(out, sizeof(out), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", cases[i].out);
        assert_int_equal(buf_len(&b), strlen(out));
        assert_memory_equal(buf_head(&b), out, strlen(out));
        buf_reset(&b);
        /* Where none is begun, nothing is left but a valid one. */
        const struct http1_forward none = {.via = STR_LIT("1.1 p")};
        assert_true(http1_request_emit(&request, &none, &b));
        bool kept = strstr(cases[i].out, "ours") == NULL;
        snprintf(out, sizeof(out), "GET / HTTP/1.1\r\nHost: a\r\n%sVia: 1.1 p\r\n\r\n",
                 kept ? cases[i].out : "");
        assert_int_equal(buf_len(&b), strlen(out));
        assert_memory_equal(buf_head(&b), out, strlen(out));
        buf_reset(&b);
    }
    const char *named = "GET / HTTP/1.1\r\nHost: a\r\nConnection: traceparent\r\n\r\n";
    assert_int_equal(read_with(named, &l), HTTP1_CONNECTION_LISTS);
}

static void test_retry_after(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(4096);
    const struct http1_answer a = {.status = 429, .reason = "rate_limited", .retry_after_s = 7};
    assert_true(http1_answer_emit(&a, &b));
    assert_non_null(memmem(buf_head(&b), buf_len(&b), "\r\nretry-after: 7\r\n", 18));
    buf_reset(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),       cmocka_unit_test(test_request_has_both_readings),
        cmocka_unit_test(test_connect),     cmocka_unit_test(test_connect_answers),
        cmocka_unit_test(test_traceparent), cmocka_unit_test(test_traces_forwarded),
        cmocka_unit_test(test_retry_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
