/* What a probe reads before and behind TLS: greetings of databases, heads of HTTP answers. Each
 * whole and byte by byte. */
#include <postern/actions_wire.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "probe_priv.h"

static void test_postgres(void **state)
{
    static const uint8_t ask[] = {0, 0, 0, 8, 4, 210, 22, 47};
    uint8_t said[GREETING_POSTGRES_SIZE];

    (void)state;
    greeting_postgres_ask(said);
    assert_memory_equal(said, ask, sizeof(ask));
    assert_int_equal(greeting_postgres((const uint8_t *)"", 0), GREETING_MORE);
    assert_int_equal(greeting_postgres((const uint8_t *)"S", 1), GREETING_TLS);
    assert_int_equal(greeting_postgres((const uint8_t *)"N", 1), GREETING_NO_TLS);
    assert_int_equal(greeting_postgres((const uint8_t *)"E", 1), GREETING_BAD);
    assert_int_equal(greeting_postgres((const uint8_t *)"H", 1), GREETING_BAD);
    assert_int_equal(greeting_postgres((const uint8_t *)"SX", 2), GREETING_BAD);
}

/* A packet of the server's: its body, with the head before it. */
static size_t packet(const char *body, size_t len, unsigned seq, uint8_t *ret)
{
    ret[0] = (uint8_t)len;
    ret[1] = (uint8_t)(len >> 8);
    ret[2] = (uint8_t)(len >> 16);
    ret[3] = (uint8_t)seq;
    memcpy(ret + 4, body, len);
    return len + 4;
}

#define REST "\1\0\0\0abcdefgh\0"
static const struct {
    const char *body;
    size_t len;
    unsigned seq;
    enum greeting verdict;
} packets[] = {
#define P(text) (text), sizeof(text) - 1
    {P("\n10.11\0" REST "\xff\xff\x21\2\0\xff\xff"), 0, GREETING_TLS},
    {P("\n8.0\0" REST "\0\x08"), 0, GREETING_TLS},
    {P("\n8.0\0" REST "\xff\xf7\x21"), 0, GREETING_NO_TLS},
    {P("\n8.0\0" REST "\xff"), 0, GREETING_BAD},
    {P("\n8.0" REST), 0, GREETING_BAD},
    {P("\n"), 0, GREETING_BAD},
    {P("\t8.0\0" REST "\0\x08"), 0, GREETING_BAD},
    {P("\xff\x69\4Host is blocked"), 0, GREETING_BAD},
    {P("\n8.0\0" REST "\0\x08"), 1, GREETING_BAD},
};

static void test_mysql(void **state)
{
    uint8_t bytes[256], ask[GREETING_MYSQL_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        size_t n = packet(packets[i].body, packets[i].len, packets[i].seq, bytes);

        for (size_t k = 0; k < n && packets[i].seq == 0; k++) {
            assert_int_equal(greeting_mysql(bytes, k), GREETING_MORE);
        }
        assert_int_equal(greeting_mysql(bytes, n), packets[i].verdict);
        bytes[n] = 'x';
        assert_int_equal(greeting_mysql(bytes, n + 1), GREETING_BAD); /* bytes behind it */
    }
    memcpy(bytes, "\0\0\0\0", 4);
    assert_int_equal(greeting_mysql(bytes, 4), GREETING_BAD);
    memcpy(bytes, "\xff\xff\xff\0", 4);
    assert_int_equal(greeting_mysql(bytes, 4), GREETING_BAD);
    memcpy(bytes, "HTTP", 4);
    assert_int_equal(greeting_mysql(bytes, 4), GREETING_BAD);
    greeting_mysql_ask(ask);
    assert_memory_equal(ask, "\x20\0\0\1", 4);
    assert_true((ask[5] & 8) != 0); /* TLS is what is asked for */
}

static const struct {
    const char *text;
    enum http_head verdict;
    unsigned status;
} heads[] = {
    {"HTTP/1.1 200 OK\r\n\r\n", HTTP_HEAD_OK, 200},
    {"HTTP/1.0 204\r\nA: b\r\n\r\nbody", HTTP_HEAD_OK, 204},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 no\r\n\r\n", HTTP_HEAD_OK, 503},
    {"HTTP/1.1 101 Switching\r\n\r\n", HTTP_HEAD_OK, 101},
    {"HTTP/1.1 302 Found\r\nLocation: http://b/\r\n\r\n", HTTP_HEAD_OK, 302},
    {"", HTTP_HEAD_MORE, 0},
    {"HTTP/1.1 200 OK\r\nA: b\r\n", HTTP_HEAD_MORE, 0},
    {"HTTP/1.1 200 OK\n\n", HTTP_HEAD_BAD, 0},
    {"HTTP/1.1 200 OK\r\nA: b\nB: c\r\n\r\n", HTTP_HEAD_BAD, 0},
    {"HTTP/1.1 20 OK\r\n\r\n", HTTP_HEAD_BAD, 0},
    {"HTTP/1.1 2000 OK\r\n\r\n", HTTP_HEAD_BAD, 0},
    {"HTTP/1.1 099 OK\r\n\r\n", HTTP_HEAD_BAD, 0},
    {"HTTP/1.1 600 OK\r\n\r\n", HTTP_HEAD_BAD, 0},
    {"HTTP/2 200 OK\r\n\r\n", HTTP_HEAD_BAD, 0},
    {"HTTP/1.2 200 OK\r\n\r\n", HTTP_HEAD_BAD, 0},
    {"SSH-2.0-x", HTTP_HEAD_BAD, 0},
    {"HTTP/1.1 200 OK\r\nA: \1\r\n\r\n", HTTP_HEAD_BAD, 0},
};

static void test_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        size_t n = strlen(heads[i].text);
        unsigned status = 0;
        enum http_head got = http_head_parse(heads[i].text, n, &status);

        if (got != heads[i].verdict || status != heads[i].status) {
            fail_msg("'%s': %d, status %u", heads[i].text, got, status);
        }
        /* A verdict once given does not change by more bytes. */
        for (size_t k = 0; k <= n; k++) {
            unsigned early = 0;
            enum http_head then = http_head_parse(heads[i].text, k, &early);

            assert_true(then == HTTP_HEAD_MORE || (then == got && early == status));
        }
    }
}

static void test_endless_head(void **state)
{
    static char text[HTTP_HEAD_MAX + 1];
    unsigned status = 0;
    size_t n = 0;

    (void)state;
    n = (size_t)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n");
    memset(text + n, 'a', HTTP_HEAD_MAX - n);
    assert_int_equal(http_head_parse(text, HTTP_HEAD_MAX - 1, &status), HTTP_HEAD_MORE);
    assert_int_equal(http_head_parse(text, HTTP_HEAD_MAX, &status), HTTP_HEAD_BAD);
    n = 0;
    for (int i = 0; i <= HTTP_INTERIM_MAX; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "HTTP/1.1 100 C\r\n\r\n");
    }
    assert_int_equal(http_head_parse(text, n, &status), HTTP_HEAD_BAD);
}

static void test_request(void **state)
{
    struct probe_question q = {.kind = PROBE_HTTP,
                               .url = {.scheme = CONF_URL_HTTP, .host = "::1", .port = 8080},
                               .method = "POST",
                               .headers = "X-A: b\r\n",
                               .headers_len = 8,
                               .body = "{}",
                               .body_len = 2};
    struct buf out = BUF_INIT(65536);

    (void)state;
    memcpy(q.url.path, "/r?x", 5);
    assert_true(http_request_write(&q, &out));
    assert_true(
        str_eq(buf_str(&out), STR_LIT("POST /r?x HTTP/1.1\r\nHost: [::1]:8080\r\nUser-Agent: "
                                      "postern-rotate\r\nAccept: */*\r\nConnection: close\r\nX-A: "
                                      "b\r\nContent-Length: 2\r\n\r\n{}")));
    buf_reset(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_postgres), cmocka_unit_test(test_mysql),
        cmocka_unit_test(test_heads),    cmocka_unit_test(test_endless_head),
        cmocka_unit_test(test_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
