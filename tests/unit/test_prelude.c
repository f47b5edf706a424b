/* What is said before the first byte of a connection: PROXY protocol headers, HTTP CONNECT; and the
 * token bucket that says whether there may be one more. */
#include <postern/http_connect.h>
#include <postern/proxy_protocol.h>
#include <postern/rate.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct net_addr v4(const char *ip, uint16_t port)
{
    struct net_addr a = {.len = sizeof(struct sockaddr_in)};
    a.in4.sin_family = AF_INET;
    a.in4.sin_port = htons(port);
    assert_int_equal(inet_pton(AF_INET, ip, &a.in4.sin_addr), 1);
    return a;
}
static struct net_addr v6(const char *ip, uint16_t port)
{
    struct net_addr a = {.len = sizeof(struct sockaddr_in6)};
    a.in6.sin6_family = AF_INET6;
    a.in6.sin6_port = htons(port);
    assert_int_equal(inet_pton(AF_INET6, ip, &a.in6.sin6_addr), 1);
    return a;
}

static enum proxy_protocol_result read_text(const char *text, size_t n)
{
    struct proxy_protocol h = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
    size_t used;
    return proxy_protocol_read((const uint8_t *)text, n, &h, &used);
}
#define READ(lit) read_text("" lit, sizeof(lit) - 1)
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static void test_bad_headers(void **state)
{
    (void)state;
    assert_int_equal(READ("GET / HTTP/1.1\r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY\r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP4 fd00::1 fd00::1 1 2\r\n"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n"), PROXY_PROTOCOL_BAD);
    char text[PROXY_PROTOCOL_V1_MAX + 1];
    memset(text, 'x', sizeof(text));
    memcpy(text, "PROXY UNKNOWN ", 14);
    assert_int_equal(read_text(text, PROXY_PROTOCOL_V1_MAX - 1), PROXY_PROTOCOL_MORE);
    assert_int_equal(read_text(text, PROXY_PROTOCOL_V1_MAX), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ(SIGNATURE "\x31"), PROXY_PROTOCOL_BAD);             /* version 3 */
    assert_int_equal(READ(SIGNATURE "\x22\x00\x00\x00"), PROXY_PROTOCOL_BAD); /* command 2 */
    assert_int_equal(READ(SIGNATURE "\x21\x12\x00\x0c"
                                    "abcdefghijkl"),
                     PROXY_PROTOCOL_BAD); /* datagrams */
    assert_int_equal(READ(SIGNATURE "\x21\x11\x00\x0b"
                                    "abcdefghijk"),
                     PROXY_PROTOCOL_BAD); /* too short for addresses */
    assert_int_equal(READ(SIGNATURE "\x21\x00\x00\x04\x01\x00\x02x"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ(SIGNATURE "\x21\x00\x00\x02\x01\x00"), PROXY_PROTOCOL_BAD);
    assert_int_equal(READ(SIGNATURE "\x21\x00\x00\x08\x01\x00\x01x\x01\x00\x01y"),
                     PROXY_PROTOCOL_BAD); /* told twice */
    assert_int_equal(READ(SIGNATURE "\x21\x00\x00\x07\x03\x00\x04\0\0\0\0"),
                     PROXY_PROTOCOL_BAD); /* a wrong checksum */
    assert_int_equal(READ(SIGNATURE "\x21\x00\x00\x07\x20\x00\x04\0\0\0\0"),
                     PROXY_PROTOCOL_BAD); /* half a TLS element */
}

static void test_crc(void **state)
{
    (void)state;
    assert_int_equal(proxy_protocol_crc32c(0, "123456789", 9), 0xe3069283); /* RFC 3720 B.4 */
    assert_int_equal(proxy_protocol_crc32c(proxy_protocol_crc32c(0, "1234", 4), "56789", 5),
                     0xe3069283);
}

static void test_v1(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(1000);
    struct proxy_protocol h = {.family = PROXY_PROTOCOL_INET,
                               .source = v4("10.0.0.1", 4000),
                               .destination = v4("255.255.255.255", 65535)};
    assert_true(proxy_protocol_write_v1(&h, &out));
    assert_int_equal(buf_len(&out), strlen("PROXY TCP4 10.0.0.1 255.255.255.255 4000 65535\r\n"));
    assert_memory_equal(buf_head(&out), "PROXY TCP4 10.0.0.1 255.255.255.255 4000 65535\r\n",
                        buf_len(&out));
    buf_consume(&out, buf_len(&out));
    h.source = v6("fd00::1", 1);
    assert_true(proxy_protocol_write_v1(&h, &out)); /* of two families: nothing can be said */
    assert_memory_equal(buf_head(&out), "PROXY UNKNOWN\r\n", 15);
    buf_consume(&out, buf_len(&out));
    h.destination = v6("fd00::2", 2);
    assert_true(proxy_protocol_write_v1(&h, &out));
    struct proxy_protocol got = {.spiffe_id_tlv = 0};
    size_t used = 0;
    assert_int_equal(proxy_protocol_read(buf_head(&out), buf_len(&out), &got, &used),
                     PROXY_PROTOCOL_OK);
    assert_int_equal(used, buf_len(&out));
    assert_true(net_addr_equal(&got.source, &h.source) &&
                net_addr_equal(&got.destination, &h.destination));
    buf_reset(&out);
}

static void test_v2(void **state)
{
    (void)state;
    static char big[0xffff];
    struct buf out = BUF_INIT(PROXY_PROTOCOL_V2_MAX);
    struct proxy_protocol h = {
        .family = PROXY_PROTOCOL_INET,
        .source = v4("10.0.0.1", 4000),
        .destination = v4("10.0.0.2", 8443),
        .alpn = STR_LIT("h2"),
        .authority = STR_LIT("db.example"),
        .spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV,
        .spiffe_id = STR_LIT("spiffe://a.b/client"),
        .has_tls = true,
        .tls = {.used = true, .cert_conn = true, .cert_sess = true, .version = STR_LIT("TLSv1.3")},
        .has_crc = true,
    };
    h.tls.cert = (struct str){big, sizeof(big)};
    assert_false(proxy_protocol_write_v2(&h, &out)); /* cannot be held */
    assert_int_equal(buf_len(&out), 0);
    h.tls.cert = STR_LIT("0\x82");
    assert_true(proxy_protocol_write_v2(&h, &out));
    for (size_t n = 0; n < buf_len(&out); n++) {
        struct proxy_protocol part = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
        size_t used;
        assert_int_equal(proxy_protocol_read(buf_head(&out), n, &part, &used), PROXY_PROTOCOL_MORE);
    }
    assert_true(buf_append_str(&out, STR_LIT("the client's own bytes")));
    struct proxy_protocol got = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
    size_t used = 0;
    assert_int_equal(proxy_protocol_read(buf_head(&out), buf_len(&out), &got, &used),
                     PROXY_PROTOCOL_OK);
    assert_int_equal(used, buf_len(&out) - 22);
    assert_true(str_eq(got.spiffe_id, h.spiffe_id) && str_eq(got.alpn, h.alpn) &&
                str_eq(got.authority, h.authority) && str_eq(got.tls.version, h.tls.version) &&
                str_eq(got.tls.cert, h.tls.cert) && got.tls.cert_conn && got.has_crc);
    /* Any byte of it changed is noticed. */
    for (size_t i = 16; i < used; i++) {
        out.data[out.start + i] ^= 4;
        struct proxy_protocol other = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
        enum proxy_protocol_result r =
            proxy_protocol_read(buf_head(&out), buf_len(&out), &other, &used);
        assert_true(r != PROXY_PROTOCOL_OK || !other.has_crc);
        out.data[out.start + i] ^= 4;
    }
    buf_reset(&out);
}

static void test_v2_unix(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(1000);
    struct proxy_protocol h = {.family = PROXY_PROTOCOL_UNIX,
                               .destination_path = STR_LIT("/run/a.sock")};
    assert_true(proxy_protocol_write_v2(&h, &out));
    assert_int_equal(buf_len(&out), 16 + 216);
    struct proxy_protocol got = {.spiffe_id_tlv = 0};
    size_t used = 0;
    assert_int_equal(proxy_protocol_read(buf_head(&out), buf_len(&out), &got, &used),
                     PROXY_PROTOCOL_OK);
    assert_int_equal(got.family, PROXY_PROTOCOL_UNIX);
    assert_int_equal(got.source_path.n, 0);
    assert_true(str_eq(got.destination_path, h.destination_path));
    buf_reset(&out);
}

/* --- HTTP CONNECT ----------------------------------------------------------------------------- */
static void test_connect_request(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(1000);
    assert_true(http_connect_request(STR_LIT("db.example:443"), STR_NONE, &out));
    assert_true(buf_append(&out, "", 1));
    assert_string_equal((const char *)buf_head(&out),
                        "CONNECT db.example:443 HTTP/1.1\r\nHost: db.example:443\r\n\r\n");
    buf_consume(&out, buf_len(&out));
    assert_true(http_connect_request(STR_LIT("a:1"), STR_LIT("Aladdin:open sesame"), &out));
    assert_true(buf_append(&out, "", 1));
    assert_non_null(strstr((const char *)buf_head(&out), /* RFC 7617 section 2 */
                           "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"));
    buf_reset(&out);
    struct buf small = BUF_INIT(20);
    assert_false(http_connect_request(STR_LIT("a:1"), STR_NONE, &small));
    buf_reset(&small);
}

static void test_connect_answer(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum http_connect_result result;
        unsigned status;
    } cases[] = {
        {"HTTP/2 200\r\n\r\n", HTTP_CONNECT_BAD, 0},
        {"HTTP/1.1 20 OK\r\n\r\n", HTTP_CONNECT_BAD, 0},
        {"HTTP/1.1 2000\r\n\r\n", HTTP_CONNECT_BAD, 0},
        {"HTTP/1.1 200 OK\n\n", HTTP_CONNECT_BAD, 0},
        {"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", HTTP_CONNECT_BAD, 0},
        {"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", HTTP_CONNECT_BAD, 0},
        {"HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", HTTP_CONNECT_BAD, 0},
        {"\x15\x03\x01", HTTP_CONNECT_BAD, 0},
        {"HTTP/1.1 200 OK\r\n", HTTP_CONNECT_MORE, 0},
        {"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n", HTTP_CONNECT_REFUSED, 407},
        {"HTTP/1.1 101 No\r\n\r\n", HTTP_CONNECT_REFUSED, 101},
        {"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", HTTP_CONNECT_OPEN, 200},
        {"HTTP/1.0 200\r\n\r\n", HTTP_CONNECT_OPEN, 200},
        {"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 204 x\r\n\r\n", HTTP_CONNECT_OPEN, 204},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned status = 0;
        size_t used = 0;
        size_t n = strlen(cases[i].text);
        assert_int_equal(http_connect_answer((const uint8_t *)cases[i].text, n, &status, &used),
                         cases[i].result);
        assert_int_equal(status, cases[i].status);
        assert_int_equal(used, status != 0 ? n : 0);
    }
}

/* --- the bucket ------------------------------------------------------------------------------- */
static void test_rate(void **state)
{
    (void)state;
    struct rate r = {.full_at_us = 0};
    uint64_t now = 5000000;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(rate_take(&r, now, 10, 3));
    }
    assert_false(rate_take(&r, now, 10, 3));
    assert_false(rate_take(&r, now + 99999, 10, 3)); /* not yet a tenth of a second */
    assert_true(rate_take(&r, now + 100000, 10, 3));
    assert_false(rate_take(&r, now + 100000, 10, 3));
    assert_true(rate_take(&r, now + 10000000, 10, 3)); /* no more than the burst was saved up */
    assert_true(rate_take(&r, now + 10000000, 10, 3));
    assert_true(rate_take(&r, now + 10000000, 10, 3));
    assert_false(rate_take(&r, now + 10000000, 10, 3));
    assert_true(rate_take(&r, now + 20000000, 4000000, 1)); /* faster than the clock counts */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_v1),
        cmocka_unit_test(test_v2),
        cmocka_unit_test(test_v2_unix),
        cmocka_unit_test(test_connect_request),
        cmocka_unit_test(test_connect_answer),
        cmocka_unit_test(test_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
