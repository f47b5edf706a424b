/* SPIFFE-ID.md: what is refused first, each case named after its clause. */
#include <postern/spiffe.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* A plain initializer: compound literals are no constants under -Wpedantic. */
#define TEXT(s) {(s), sizeof(s) - 1}

static const struct {
    const char *clause;
    struct str text;
    const char *says; /* a part of the error's text */
} bad[] = {
    {"empty", TEXT(""), "does not begin"},
    {"scheme alone", TEXT("spiffe:"), "does not begin"},
    {"another scheme", TEXT("https://example.org/a"), "does not begin"},
    {"2.1 scheme in upper case", TEXT("SPIFFE://example.org/a"), "does not begin"},
    {"leading blank", TEXT(" spiffe://example.org/a"), "does not begin"},
    {"2.1 empty trust domain", TEXT("spiffe://"), "trust domain is empty"},
    {"2.1 empty trust domain, path", TEXT("spiffe:///a"), "trust domain is empty"},
    {"2.1 upper case in the trust domain", TEXT("spiffe://Example.org/a"),
     "'E' in the trust domain"},
    {"2.1 userinfo", TEXT("spiffe://user@example.org/a"), "'@'"},
    {"2.1 port", TEXT("spiffe://example.org:8080/a"), "':'"},
    {"2.1 percent in the trust domain", TEXT("spiffe://ex%61mple.org/a"), "'%'"},
    {"IPv6 is impossible", TEXT("spiffe://[::1]/a"), "'['"},
    {"NUL in the trust domain", TEXT("spiffe://example.org\0.evil/a"), "0x00"},
    {"UTF-8 in the trust domain", TEXT("spiffe://ex\xc3\xa4mple.org/a"), "0xc3"},
    {"2.2 trailing slash", TEXT("spiffe://example.org/"), "trailing slash"},
    {"2.2 trailing slash after a path", TEXT("spiffe://example.org/a/"), "trailing slash"},
    {"2.2 empty segment", TEXT("spiffe://example.org//a"), "empty path segment"},
    {"2.2 empty segment inside", TEXT("spiffe://example.org/a//b"), "empty path segment"},
    {"2.2 dot segment", TEXT("spiffe://example.org/./a"), "'.'"},
    {"2.2 dot segment at the end", TEXT("spiffe://example.org/a/."), "'.'"},
    {"2.2 dot dot segment", TEXT("spiffe://example.org/a/../b"), "'..'"},
    {"2.2 percent in the path", TEXT("spiffe://example.org/a%2fb"), "percent-encoding"},
    {"query", TEXT("spiffe://example.org/a?b"), "'?'"},
    {"fragment", TEXT("spiffe://example.org/a#b"), "'#'"},
    {"query without path", TEXT("spiffe://example.org?b"), "'?'"},
    {"blank in the path", TEXT("spiffe://example.org/a b"), "0x20"},
    {"NUL in the path", TEXT("spiffe://example.org/a\0b"), "0x00"},
    {"NUL at the end", TEXT("spiffe://example.org/a\0"), "0x00"},
    {"line feed at the end", TEXT("spiffe://example.org/a\n"), "0x0a"},
    {"colon in the path", TEXT("spiffe://example.org/a:b"), "':'"},
    {"UTF-8 in the path", TEXT("spiffe://example.org/\xc3\xa4"), "0xc3"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[900];
        struct err err = ERR_INIT;
        struct spiffe_id id = {.path = STR_LIT("untouched")};
        if (spiffe_id_parse(bad[i].text, &id, &err) != -1) {
            fail_msg("%s: accepted", bad[i].clause);
        }
        assert_true(str_eq(id.path, STR_LIT("untouched")));
        assert_int_equal(err.code, ERR_PROTOCOL);
        err_text(&err, text, sizeof(text));
        if (strstr(text, bad[i].says) == NULL) {
            fail_msg("%s: '%s' does not say \"%s\"", bad[i].clause, text, bad[i].says);
        }
        assert_int_equal(spiffe_id_parse(bad[i].text, &id, NULL), -1);
    }
}

static const struct {
    struct str text;
    struct str trust_domain;
    struct str path;
} good[] = {
    {TEXT("spiffe://example.org"), TEXT("example.org"), TEXT("")},
    {TEXT("spiffe://example.org/a"), TEXT("example.org"), TEXT("/a")},
    {TEXT("spiffe://example.org/ns/Default/sa/A_b-c.9"), TEXT("example.org"),
     TEXT("/ns/Default/sa/A_b-c.9")},
    {TEXT("spiffe://example.org/..."), TEXT("example.org"), TEXT("/...")},
    {TEXT("spiffe://example.org/.a/..b"), TEXT("example.org"), TEXT("/.a/..b")},
    {TEXT("spiffe://1.2.3.4/a"), TEXT("1.2.3.4"), TEXT("/a")},
    {TEXT("spiffe://a..b/c"), TEXT("a..b"), TEXT("/c")},
    {TEXT("spiffe://-/c"), TEXT("-"), TEXT("/c")},
    {TEXT("spiffe://./c"), TEXT("."), TEXT("/c")},
    {TEXT("spiffe://under_score"), TEXT("under_score"), TEXT("")},
};

static void test_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct err err = ERR_INIT;
        struct spiffe_id id;
        if (spiffe_id_parse(good[i].text, &id, &err) != 0) {
            fail_msg("%.*s: %s", STR_ARG(good[i].text), err.what);
        }
        assert_int_equal(err.code, ERR_NONE);
        assert_true(str_eq(id.text, good[i].text));
        assert_true(str_eq(id.trust_domain, good[i].trust_domain));
        assert_true(str_eq(id.path, good[i].path));
    }
}

/* 2.3: 2048 bytes in total must be handled; longer is refused. 2.1: 255 bytes of trust domain. */
static void test_limits(void **state)
{
    (void)state;
    char text[SPIFFE_ID_MAX + 2];
    struct spiffe_id id;
    memset(text, 'a', sizeof(text));
    memcpy(text, "spiffe://td/", 12);
    assert_int_equal(spiffe_id_parse((struct str){text, SPIFFE_ID_MAX}, &id, NULL), 0);
    assert_int_equal(id.path.n, SPIFFE_ID_MAX - 11);
    assert_int_equal(spiffe_id_parse((struct str){text, SPIFFE_ID_MAX + 1}, &id, NULL), -1);

    memset(text, 'a', sizeof(text));
    memcpy(text, "spiffe://", 9);
    text[9 + 255] = '/';
    assert_int_equal(spiffe_id_parse((struct str){text, 9 + 255 + 2}, &id, NULL), 0);
    assert_int_equal(id.trust_domain.n, 255);
    text[9 + 255] = 'a';
    text[9 + 256] = '/';
    assert_int_equal(spiffe_id_parse((struct str){text, 9 + 256 + 2}, &id, NULL), -1);
    assert_true(spiffe_trust_domain_ok((struct str){text + 9, 255}));
    assert_false(spiffe_trust_domain_ok((struct str){text + 9, 256}));
}

/* spiffe://a.b is a prefix of spiffe://a.bc/x and no member of it, nor the other way round. */
static void test_member_of(void **state)
{
    (void)state;
    struct spiffe_id id;
    assert_int_equal(spiffe_id_parse(STR_LIT("spiffe://a.bc/x"), &id, NULL), 0);
    assert_false(spiffe_id_member_of(&id, STR_LIT("a.b")));
    assert_false(spiffe_id_member_of(&id, STR_LIT("a.bcd")));
    assert_false(spiffe_id_member_of(&id, STR_LIT("")));
    assert_false(spiffe_id_member_of(&id, STR_LIT("A.BC")));
    assert_true(spiffe_id_member_of(&id, STR_LIT("a.bc")));
}

static void test_trust_domain(void **state)
{
    (void)state;
    assert_false(spiffe_trust_domain_ok(STR_NONE));
    assert_false(spiffe_trust_domain_ok(STR_LIT("Example.org")));
    assert_false(spiffe_trust_domain_ok(STR_LIT("spiffe://example.org")));
    assert_false(spiffe_trust_domain_ok(STR_LIT("example.org/")));
    assert_false(spiffe_trust_domain_ok(STR_LIT("example.org\0")));
    assert_true(spiffe_trust_domain_ok(STR_LIT("example.org")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_member_of),
        cmocka_unit_test(test_trust_domain),
    };
    return cmocka_run_group_tests_name("spiffe", tests, NULL, NULL);
}
