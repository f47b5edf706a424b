/* What a ClientHello says, and which route a name has: bad cases first. The real clients' bytes are
 * the fuzzer's corpus. */
#include <postern/client_hello.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* --- making one ------------------------------------------------------------------------------- */
struct bytes {
    uint8_t b[40000];
    size_t n;
};

static void put(struct bytes *t, const void *p, size_t n)
{
    assert_true(t->n + n <= sizeof(t->b));
    memcpy(t->b + t->n, p, n);
    t->n += n;
}
static void put8(struct bytes *t, unsigned v)
{
    const uint8_t b = (uint8_t)v;
    put(t, &b, 1);
}
static void put16(struct bytes *t, size_t v)
{
    put8(t, (unsigned)(v >> 8) & 255U);
    put8(t, (unsigned)v & 255U);
}

/* The message with these extensions, in one record. */
static void make(struct bytes *t, const struct bytes *extensions)
{
    size_t body = 2 + 32 + 1 + 4 + 2 + 2 + extensions->n;
    t->n = 0;
    put(t, "\x16\x03\x01", 3);
    put16(t, body + 4);
    put(t, "\x01\x00", 2);
    put16(t, body);
    put(t, "\x03\x03RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR", 34);
    put8(t, 0);
    put(t, "\x00\x02\x13\x01\x01\x00", 6);
    put16(t, extensions->n);
    put(t, extensions->b, extensions->n);
}

static void add_name(struct bytes *t, const void *name, size_t n)
{
    put16(t, 0);
    put16(t, n + 5);
    put16(t, n + 3);
    put8(t, 0);
    put16(t, n);
    put(t, name, n);
}

static enum client_hello_result read_all(const struct bytes *t, struct client_hello *ret)
{
    struct client_hello_scan scan = {.at = 0};
    return client_hello_read(&scan, t->b, t->n, ret);
}

/* --- bad ones --------------------------------------------------------------------------------- */
static void test_not_tls(void **state)
{
    static const char *const starts[] = {"GET / HTTP/1.1\r\n\r\n", "\x80\x2e\x01\x03\x01", "SSH-2",
                                         "\x16\x02\x00\x00\x05", "\x15\x03\x01"};
    (void)state;
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        struct client_hello_scan scan = {.at = 0};
        struct client_hello hello;
        assert_int_equal(
            client_hello_read(&scan, (const uint8_t *)starts[i], strlen(starts[i]), &hello),
            CLIENT_HELLO_NOT_TLS);
    }
}

static void test_malformed(void **state)
{
    (void)state;
    struct bytes e = {.n = 0}, t;
    struct client_hello hello;
    char name[300];
    memset(name, 'a', sizeof(name));
    struct {
        const void *name;
        size_t n;
    } names[] = {{"", 0}, {"a\0b", 3}, {"a b", 3}, {"a\xc3\xa4", 3}, {"a/b", 3}, {name, 254}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        e.n = 0;
        add_name(&e, names[i].name, names[i].n);
        make(&t, &e);
        assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_MALFORMED);
    }
    e.n = 0; /* the extension twice */
    add_name(&e, "a", 1);
    add_name(&e, "a", 1);
    make(&t, &e);
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_MALFORMED);
    e.n = 0; /* a length that reaches behind its extension */
    put(&e,
        "\x00\x00\x00\x06\x00\x09\x00\x00\x06"
        "a",
        10);
    make(&t, &e);
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_MALFORMED);
    e.n = 0; /* bytes behind the list */
    add_name(&e, "a", 1);
    e.b[3]++;
    put8(&e, 0);
    make(&t, &e);
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_MALFORMED);
    e.n = 0;
    make(&t, &e);
    t.b[5] = 2; /* a ServerHello */
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_MALFORMED);
    make(&t, &e);
    t.b[3] = t.b[4] = 0; /* an empty record */
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_MALFORMED);
}

static void test_too_long(void **state)
{
    (void)state;
    struct bytes t = {.n = 0};
    struct client_hello hello;
    put(&t, "\x16\x03\x01\x00\x04\x01\x00\x40\x01", 9); /* 16,385 bytes are announced */
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_TOO_LONG);
    t.n = 0;
    put(&t, "\x16\x03\x01\x00\x04\x01\x00\x3f\xff", 9); /* within the bound, in tiny records */
    while (t.n < CLIENT_HELLO_WIRE_MAX - 6) {
        put(&t, "\x16\x03\x01\x00\x01x", 6);
    }
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_MORE);
    put(&t, "\x16\x03\x01\x00\x01x", 6);
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_TOO_LONG);
}

/* --- good ones -------------------------------------------------------------------------------- */
static void test_found(void **state)
{
    (void)state;
    struct bytes e = {.n = 0}, t;
    struct client_hello hello;
    put(&e, "\x0a\x0a\x00\x00", 4); /* GREASE */
    add_name(&e, "DB.Example", 10);
    put(&e, "\x00\x10\x00\x0e\x00\x0c\x02h2\x08http/1.1", 18);
    put(&e, "\xfe\x0d\x00\x01x", 5);
    make(&t, &e);
    for (size_t n = 0; n < t.n; n++) { /* every beginning of it is only that */
        struct client_hello_scan scan = {.at = 0};
        assert_int_equal(client_hello_read(&scan, t.b, n, &hello), CLIENT_HELLO_MORE);
    }
    put(&t, "what follows is not looked at", 29);
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_FOUND);
    assert_string_equal(hello.server_name, "db.example");
    assert_int_equal(hello.server_name_len, 10);
    assert_int_equal(hello.alpn_len, 12);
    assert_memory_equal(hello.alpn, "\x02h2\x08http/1.1", 12);
    assert_true(hello.encrypted);
    e.n = 0;
    make(&t, &e);
    assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_FOUND);
    assert_string_equal(hello.server_name, "");
    assert_false(hello.encrypted);
}

/* What real clients send. */
static void test_clients(void **state)
{
    static const struct {
        const char *file, *name;
        size_t alpn_len;
    } clients[] = {
        {"openssl", "db.example", 0},     {"openssl_alpn", "db.example", 12},
        {"openssl_nosni", "", 0},         {"openssl12", "old.example", 0},
        {"curl", "www.example", 12},      {"go", "go.example", 3},
        {"grease", "grease.example", 6},  {"one_byte_records", "db.example", 0},
        {"odd_records", "db.example", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
        static struct bytes t;
        struct client_hello hello;
        char path[400];
        snprintf(path, sizeof(path), "%s/%s", CORPUS_DIR, clients[i].file);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        t.n = fread(t.b, 1, sizeof(t.b), f);
        fclose(f);
        assert_int_equal(read_all(&t, &hello), CLIENT_HELLO_FOUND);
        assert_string_equal(hello.server_name, clients[i].name);
        assert_int_equal(hello.alpn_len, clients[i].alpn_len);
    }
}

static void test_routes(void **state)
{
    (void)state;
    const struct client_hello_pattern p[] = {
        {STR_LIT("*.example"), 0},   {STR_LIT("*.b.example"), 1}, {STR_LIT("a.b.example"), 2},
        {STR_LIT("a.b.example"), 3}, {STR_LIT("other"), 4},
    };
    size_t n = sizeof(p) / sizeof(p[0]);
    static const struct {
        const char *name;
        long route;
    } cases[] = {
        {"", CLIENT_HELLO_NO_ROUTE},
        {"example", CLIENT_HELLO_NO_ROUTE},
        {".example", CLIENT_HELLO_NO_ROUTE},
        {"bexample", CLIENT_HELLO_NO_ROUTE},
        {"a.example.", CLIENT_HELLO_NO_ROUTE},
        {"a.example", 0},
        {"b.example", 0},
        {"xb.example", 0},
        {"x.b.example", 1},
        {"x.a.b.example", 1},
        {"a.b.example", 2},
        {"other", 4},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(client_hello_route(p, n, str_of(cases[i].name)), cases[i].route);
    }
    assert_int_equal(client_hello_route(NULL, 0, STR_LIT("a")), CLIENT_HELLO_NO_ROUTE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_tls),  cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_too_long), cmocka_unit_test(test_found),
        cmocka_unit_test(test_clients),  cmocka_unit_test(test_routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
