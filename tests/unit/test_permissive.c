/* permissive: what is TLS, what the record of plaintext holds when it is full, verdicts. */
#include <postern/permissive.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BYTES(s) (const uint8_t *)(s), sizeof(s) - 1

/* --- telling ---------------------------------------------------------------------------------- */

static void test_first(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum permissive_first is;
    } cases[] = {
        {"", 0, PERMISSIVE_MORE},
        {"\x16", 1, PERMISSIVE_MORE},
        {"\x16\x03", 2, PERMISSIVE_MORE},
        {"\x16\x03\x01", 3, PERMISSIVE_TLS},
        {"\x16\x03\x03\x01\x00\x01", 6, PERMISSIVE_TLS},
        {"\x16\x03\x00", 3, PERMISSIVE_TLS},
        {"\x15\x03\x03", 3, PERMISSIVE_TLS},
        {"\x14\x03\x03", 3, PERMISSIVE_TLS},
        {"\x17\x03\x03", 3, PERMISSIVE_TLS},
        {"\x16\x03\x05", 3, PERMISSIVE_PLAIN},
        {"\x16\x02", 2, PERMISSIVE_PLAIN},
        {"\x16GET / HTTP/1.1\r\n", 17, PERMISSIVE_PLAIN},
        {"\x13\x03\x01", 3, PERMISSIVE_PLAIN},
        {"\x18\x03\x01", 3, PERMISSIVE_PLAIN},
        {"\x80\x2e\x01\x03\x01", 5, PERMISSIVE_PLAIN},
        {"G", 1, PERMISSIVE_PLAIN},
        {"\0", 1, PERMISSIVE_PLAIN},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const uint8_t *p = (const uint8_t *)cases[i].bytes;
        assert_int_equal(permissive_first(p, cases[i].n), cases[i].is);
    }
    /* Whatever is known stays: no byte that follows makes TLS of plaintext, or the reverse. */
    for (unsigned v = 0; v < 1U << 24; v += 7) {
        const uint8_t p[3] = {(uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
        enum permissive_first all = permissive_first(p, 3);
        assert_int_not_equal(all, PERMISSIVE_MORE);
        for (size_t n = 1; n < 3; n++) {
            enum permissive_first part = permissive_first(p, n);
            assert_true(part == PERMISSIVE_MORE || part == all);
        }
    }
}

static void test_class(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *is;
    } cases[] = {
        {"", 0, "silence"},
        {"GET / HTTP/1.1\r\n", 16, "http1"},
        {"OPTIONS * HTTP/1.1\r\n", 20, "http1"},
        {"GET http://a/ HTTP/1.1", 22, "http1"},
        {"CONNECT a:1 HTTP/1.1", 20, "http1"},
        {"GET key\r\n", 9, "other"},
        {"GE", 2, "other"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, "http2"},
        {"SSH-2.0-x\r\n", 11, "ssh"},
        {"\0\0\0\x08\x04\xd2\x16\x2f", 8, "postgres"},
        {"\0\0\0\x29\0\3\0\0user", 12, "postgres"},
        {"\0\0\0\x08", 4, "other"},
        {"*1\r\n$4\r\nPING\r\n", 14, "redis"},
        {"*\r\n\r\n", 5, "other"},
        {"\x3a\0\0\0\1\0\0\0\0\0\0\0\xdd\x07\0\0", 16, "mongodb"},
        {"\x80\x2e\x01\x03\x01", 5, "old_tls"},
        {"PROXY TCP4 1.2.3.4 ", 19, "proxy_protocol"},
        {"\r\n\r\n\0\r\nQUIT\n\x21", 13, "proxy_protocol"},
        {"\x10\x0f\0\4MQTT", 8, "other"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum permissive_class c = permissive_class((const uint8_t *)cases[i].bytes, cases[i].n);
        assert_string_equal(permissive_class_name(c), cases[i].is);
    }
}

/* --- the book --------------------------------------------------------------------------------- */

static struct net_addr address(uint32_t host)
{
    struct net_addr a = {.in4 = {.sin_family = AF_INET, .sin_addr = {htonl(host)}},
                         .len = sizeof(struct sockaddr_in)};
    return a;
}

static void come(struct permissive_book *b, uint32_t host, bool allowed, uint64_t now_ms)
{
    struct permissive_visit v = {.row = NULL};
    struct net_addr a = address(host);
    permissive_book_decided(b, &v, 0, 80, &a, PERMISSIVE_HTTP1, allowed, now_ms);
    permissive_book_left(b, &v, 0, 80, &a, PERMISSIVE_HTTP1, now_ms + 1);
}

static void test_rows(void **state)
{
    (void)state;
    mem_auto(permissive_book_free) struct permissive_book *b = permissive_book_new(1);
    struct net_addr a = address(1);
    struct net_addr again = address(1);
    assert_int_equal(permissive_book_count(b), 0);
    assert_null(permissive_book_row(b, 0));
    struct permissive_visit v = {.row = NULL};
    permissive_book_decided(b, &v, 3, 80, &a, PERMISSIVE_HTTP1, true, 100);
    permissive_book_decided(b, &v, 3, 80, &a, PERMISSIVE_HTTP1, true, 110);
    permissive_book_decided(b, &v, 3, 80, &a, PERMISSIVE_HTTP1, false, 120);
    again.in4.sin_port = htons(9); /* another connection of the same host */
    struct permissive_visit w = {.row = NULL};
    permissive_book_decided(b, &w, 3, 80, &again, PERMISSIVE_HTTP1, true, 130);
    assert_int_equal(permissive_book_count(b), 1);
    const struct permissive_row *r = permissive_book_row(b, 0);
    assert_int_equal(r->key.listener, 3);
    assert_int_equal(r->key.port, 80);
    assert_int_equal(r->connections, 2);
    assert_int_equal(r->allowed, 3);
    assert_int_equal(r->denied, 1);
    assert_int_equal(r->open, 2);
    assert_int_equal(r->first_ms, 100);
    assert_int_equal(r->last_allowed_ms, 130);
    /* As long as it is open it is in use. */
    permissive_book_left(b, &v, 3, 80, &a, PERMISSIVE_HTTP1, 900);
    assert_int_equal(r->open, 1);
    assert_int_equal(r->last_allowed_ms, 900);
    permissive_book_left(b, &w, 3, 80, &again, PERMISSIVE_HTTP1, 950);
    assert_int_equal(r->open, 0);
    /* Another class, another port, no address, nothing decided, a certificate: rows of their own.
     */
    permissive_book_decided(b, &v, 3, 80, &a, PERMISSIVE_SILENCE, false, 1000);
    permissive_book_left(b, &v, 3, 80, &a, PERMISSIVE_SILENCE, 1000);
    permissive_book_left(b, &v, 3, 81, &a, PERMISSIVE_OTHER, 1000);
    permissive_book_decided(b, &v, 3, 80, NULL, PERMISSIVE_HTTP1, true, 1000);
    permissive_book_mtls(b, 3, 80, 1100);
    assert_int_equal(permissive_book_count(b), 5);
    assert_int_equal(permissive_book_row(b, 1)->last_allowed_ms, 0);
    assert_int_equal(permissive_book_row(b, 2)->connections, 1);
    assert_int_equal(permissive_book_row(b, 3)->key.who, PERMISSIVE_OTHERS);
    assert_int_equal(permissive_book_row(b, 4)->key.who, PERMISSIVE_MTLS);
}

static void test_full(void **state)
{
    (void)state;
    mem_auto(permissive_book_free) struct permissive_book *b = permissive_book_new(2);
    for (uint32_t i = 1; i <= 5000; i++) {
        come(b, i, false, i);
    }
    /* Half of it, and the others. */
    assert_int_equal(permissive_book_count(b), PERMISSIVE_ROWS_DENIED + 1);
    const struct permissive_row *others = permissive_book_row(b, PERMISSIVE_ROWS_DENIED);
    assert_int_equal(others->key.who, PERMISSIVE_OTHERS);
    assert_int_equal(others->denied, 5000 - PERMISSIVE_ROWS_DENIED);
    assert_int_equal(others->last_allowed_ms, 0);
    /* Whoever is served is named still, and after that there are the others. */
    come(b, 77777, true, 6000);
    assert_int_equal(permissive_book_row(b, PERMISSIVE_ROWS_DENIED + 1)->allowed, 1);
    for (uint32_t i = 100000; i < 103000; i++) {
        come(b, i, true, 7000);
    }
    assert_int_equal(permissive_book_count(b), PERMISSIVE_ROWS - PERMISSIVE_ROWS_LEFT);
    assert_true(others->allowed > 0);
    assert_int_equal(others->last_allowed_ms, 7001);
    assert_int_equal(permissive_book_lost_ms(b), 0);
    /* When not even others of a port have room, that somebody was allowed is known all the same. */
    struct net_addr a = address(9);
    struct permissive_visit v = {.row = NULL};
    for (uint16_t port = 1; port <= PERMISSIVE_ROWS_LEFT + 1; port++) {
        permissive_book_decided(b, &v, 9, port, &a, PERMISSIVE_OTHER, true, 8000 + port);
        permissive_book_left(b, &v, 9, port, &a, PERMISSIVE_OTHER, 8000 + port);
    }
    assert_int_equal(permissive_book_count(b), PERMISSIVE_ROWS);
    assert_int_equal(permissive_book_lost_ms(b), 8000 + PERMISSIVE_ROWS_LEFT + 1);
}

/* Two workers' books. */
static void test_tally(void **state)
{
    (void)state;
    struct permissive_book *books[2] = {permissive_book_new(3), permissive_book_new(4)};
    struct permissive_tally t;
    struct permissive_facts f;
    size_t n = 0;
    permissive_tally_init(&t, (const struct permissive_book *const *)books, 2);
    permissive_tally_facts(&t, 0, 80, 100, &f);
    assert_int_equal(t.n, 0);
    assert_int_equal(f.watched_since_s, 1);
    assert_int_equal(f.last_allowed_s, 0);
    permissive_tally_deinit(&t);
    come(books[0], 1, true, 5000);
    come(books[1], 1, true, 9000);
    come(books[1], 2, false, 20000);
    permissive_book_mtls(books[0], 0, 80, 30000);
    permissive_book_mtls(books[1], 0, 81, 40000);
    struct permissive_visit v = {.row = NULL};
    struct net_addr a = address(1);
    permissive_book_decided(books[0], &v, 1, 80, &a, PERMISSIVE_HTTP1, true, 50000);
    permissive_tally_init(&t, (const struct permissive_book *const *)books, 2);
    const struct permissive_seen *s = permissive_tally_port(&t, 0, 80, &n);
    assert_int_equal(n, 3);
    assert_int_equal(s[0].connections, 2);
    assert_int_equal(s[0].first_ms, 5000);
    assert_int_equal(s[0].last_allowed_ms, 9001);
    permissive_tally_facts(&t, 0, 80, 2000, &f);
    assert_int_equal(f.last_allowed_s, 9);
    assert_int_equal(f.last_mtls_s, 30);
    assert_int_equal(f.open, 0);
    permissive_tally_facts(&t, 1, 80, 2000, &f);
    assert_int_equal(f.open, 1);
    assert_int_equal(f.last_mtls_s, 0);
    (void)permissive_tally_port(&t, 2, 80, &n);
    assert_int_equal(n, 0);
    permissive_tally_deinit(&t);
    permissive_book_left(books[0], &v, 1, 80, &a, PERMISSIVE_HTTP1, 60000);
    permissive_book_free(books[0]);
    permissive_book_free(books[1]);
}

/* --- verdicts --------------------------------------------------------------------------------- */

static void test_verdicts(void **state)
{
    enum { NOW = 100000, WINDOW = 1000, LONG_AGO = 50000, JUST = 99500 };
    static const struct {
        struct permissive_facts facts;
        enum permissive_verdict is;
        bool arms;
    } cases[] = {
        /* watched since, last allowed, last mTLS, open */
        {{0, 0, 0, 0}, PERMISSIVE_UNKNOWN_YET, false},
        {{JUST, 0, JUST, 0}, PERMISSIVE_UNKNOWN_YET, false},
        {{LONG_AGO, JUST, JUST, 0}, PERMISSIVE_NOT_READY, false},
        {{JUST, JUST, JUST, 0}, PERMISSIVE_NOT_READY, false},
        {{LONG_AGO, LONG_AGO, JUST, 1}, PERMISSIVE_NOT_READY, false},
        /* A clock that was set back. */
        {{LONG_AGO, NOW + 5000, JUST, 0}, PERMISSIVE_NOT_READY, false},
        {{NOW + 5000, 0, JUST, 0}, PERMISSIVE_UNKNOWN_YET, false},
        {{LONG_AGO, 0, 0, 0}, PERMISSIVE_UNKNOWN_NOBODY, true},
        {{LONG_AGO, LONG_AGO, LONG_AGO, 0}, PERMISSIVE_UNKNOWN_NOBODY, true},
        {{LONG_AGO, LONG_AGO, JUST, 0}, PERMISSIVE_READY, true},
        {{LONG_AGO, 0, JUST, 0}, PERMISSIVE_READY, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(permissive_verdict(&cases[i].facts, NOW, WINDOW), cases[i].is);
        assert_int_equal(permissive_may_arm(&cases[i].facts, NOW, WINDOW), cases[i].arms);
        assert_false(permissive_may_arm(&cases[i].facts, NOW, 0));
    }
    assert_string_equal(permissive_verdict_name(PERMISSIVE_READY), "ready");
    assert_string_equal(permissive_verdict_name(PERMISSIVE_UNKNOWN_NOBODY), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first), cmocka_unit_test(test_class), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_full),  cmocka_unit_test(test_tally), cmocka_unit_test(test_verdicts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
