/* Which protocol first bytes are: what must not be taken for HTTP first, then every cut of what is,
 * then both sides of a connection. */
#include <postern/detect.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BYTES(s) s, sizeof(s) - 1

static const struct {
    enum detect_side side;
    enum detect_protocol is;
    const char *bytes;
    size_t n;
} cases[] = {
    /* Not HTTP, though somebody may wish so. */
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET /\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET key value\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET  / HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET /\tx HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET /\xc3\xa4 HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET / http/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET / HTTP/2.0\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("GET / HTTP/1.x\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES(" GET / HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\r\nGET / HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\0GET / HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("G\0T / HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("HTTP/1.1 200 OK\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJ / HTTP/1.1\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("*1\r\n$4\r\nPING\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\0\0\0\x08\x04\xd2\x16\x2f")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r!")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\0\0\x12\4\0\0\0\0\0")}, /* SETTINGS are a server's */
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\x16\x03\x01\x00\x00\x01")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\x16\x03\x01\x40\x01\x01")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\x16\x02\x01\x02\x00\x01")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\x16\x03\x01\x02\x00\x02")},
    {DETECT_SIDE_CLIENT, DETECT_TCP, BYTES("\x16GET / HTTP/1.1\r\n")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("220 mail ESMTP\r\n")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("SSH-2.0-OpenSSH_9.2p1\r\n")},
    {DETECT_SIDE_SERVER, DETECT_TCP,
     BYTES("\x4a\0\0\0\x0a"
           "8.0.36\0")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("HTTP/2 200\r\n")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("GET / HTTP/1.1\r\n")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("\0\0\0\4\1\0\0\0\0")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("\0\0\7\4\0\0\0\0\0")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("\0\0\6\4\0\0\0\0\1")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("\0\x60\0\4\0\0\0\0\0")},
    {DETECT_SIDE_SERVER, DETECT_TCP, BYTES("\0\0\6\0\0\0\0\0\1")},
    /* What is one. */
    {DETECT_SIDE_CLIENT, DETECT_HTTP1, BYTES("GET / HTTP/1.1")},
    {DETECT_SIDE_CLIENT, DETECT_HTTP1, BYTES("OPTIONS * HTTP/1.0")},
    {DETECT_SIDE_CLIENT, DETECT_HTTP1, BYTES("M-SEARCH http://a.b/c HTTP/1.1")},
    {DETECT_SIDE_CLIENT, DETECT_HTTP1, BYTES("PRI * HTTP/1.1")},
    {DETECT_SIDE_CLIENT, DETECT_HTTP2, BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")},
    {DETECT_SIDE_CLIENT, DETECT_TLS, BYTES("\x16\x03\x01\x02\x00\x01")},
    {DETECT_SIDE_CLIENT, DETECT_TLS, BYTES("\x16\x03\x03\x00\x01\x01")},
    {DETECT_SIDE_SERVER, DETECT_HTTP1, BYTES("HTTP/1.1")},
    {DETECT_SIDE_SERVER, DETECT_HTTP2, BYTES("\0\0\x12\4\0\0\0\0\0")},
    {DETECT_SIDE_SERVER, DETECT_HTTP2, BYTES("\0\0\0\4\0\0\0\0\0")},
    {DETECT_SIDE_SERVER, DETECT_TLS, BYTES("\x16\x03\x03\x00\x7a\x02")},
};
enum { N_CASES = sizeof(cases) / sizeof(cases[0]) };

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const uint8_t *p = (const uint8_t *)cases[i].bytes;
        for (size_t cut = 0; cut <= cases[i].n; cut++) {
            struct detect_scan s = {.n = 0};
            enum detect_protocol got = detect_feed(&s, cases[i].side, p, cut);
            if (got == DETECT_UNKNOWN) {
                got = detect_feed(&s, cases[i].side, p + cut, cases[i].n - cut);
            }
            if (got != cases[i].is) {
                fail_msg("case %zu, cut at %zu: %s instead of %s", i, cut,
                         detect_protocol_name(got), detect_protocol_name(cases[i].is));
            }
        }
    }
}

/* What is one is not told before its last byte. */
static void test_no_sooner(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        struct detect_scan s = {.n = 0};
        if (cases[i].is != DETECT_TCP) {
            assert_int_equal(
                detect_feed(&s, cases[i].side, (const uint8_t *)cases[i].bytes, cases[i].n - 1),
                DETECT_UNKNOWN);
        }
    }
}

static void test_bound(void **state)
{
    (void)state;
    static uint8_t line[2 * DETECT_BYTES_MAX];
    memset(line, 'a', sizeof(line));
    memcpy(line, "GET /", 5);
    struct detect_scan s = {.n = 0};
    assert_int_equal(detect_feed(&s, DETECT_SIDE_CLIENT, line, DETECT_BYTES_MAX - 1),
                     DETECT_UNKNOWN);
    assert_int_equal(detect_feed(&s, DETECT_SIDE_CLIENT, line, 1), DETECT_TCP);
    s = (struct detect_scan){.n = 0};
    assert_int_equal(detect_feed(&s, DETECT_SIDE_CLIENT, line, sizeof(line)), DETECT_TCP);
    /* The longest target that the reader takes. */
    memcpy(line + 4 + 8000, " HTTP/1.1\r\n", 11);
    s = (struct detect_scan){.n = 0};
    assert_int_equal(detect_feed(&s, DETECT_SIDE_CLIENT, line, 4 + 8000 + 11), DETECT_HTTP1);
}

static bool feed(struct detect_race *r, enum detect_side side, const char *text, size_t n)
{
    return detect_race_feed(r, side, (const uint8_t *)text, n);
}

static void test_race(void **state)
{
    (void)state;
    /* The first answer stays, whoever gave it. */
    struct detect_race r = {.how = DETECT_BY_NONE};
    assert_false(feed(&r, DETECT_SIDE_CLIENT, BYTES("GET / HT")));
    assert_true(feed(&r, DETECT_SIDE_SERVER, BYTES("220 ")));
    assert_true(feed(&r, DETECT_SIDE_CLIENT, BYTES("TP/1.1\r\n")));
    assert_int_equal(r.protocol, DETECT_TCP);
    assert_int_equal(r.how, DETECT_BY_SERVER);
    /* A server that sends its SETTINGS at once is no server that speaks first. */
    r = (struct detect_race){.how = DETECT_BY_NONE};
    assert_false(feed(&r, DETECT_SIDE_SERVER, BYTES("\0\0\6\4\0")));
    assert_true(feed(&r, DETECT_SIDE_SERVER, BYTES("\0\0\0\0\0\3\0\0\0\x64")));
    assert_int_equal(r.protocol, DETECT_HTTP2);
    assert_int_equal(r.how, DETECT_BY_SERVER);
    r = (struct detect_race){.how = DETECT_BY_NONE};
    assert_false(feed(&r, DETECT_SIDE_SERVER, BYTES("\0\0\6")));
    assert_true(feed(&r, DETECT_SIDE_CLIENT, BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")));
    assert_int_equal(r.protocol, DETECT_HTTP2);
    assert_int_equal(r.how, DETECT_BY_CLIENT);
    assert_string_equal(detect_how_name((enum detect_how)r.how), "client");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_no_sooner),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
