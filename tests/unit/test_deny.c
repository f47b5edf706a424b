/* deny: who is meant and, above all, who is not. */
#include <postern/deny.h>

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants these first */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static bool has(const struct deny_set *s, const char *id, const char *serial)
{
    return deny_set_has(s, str_of(id), str_of(serial));
}

static void test_who_is_not_meant(void **state)
{
    const struct deny_item items[] = {{DENY_SPIFFE_ID, STR_LIT("spiffe://t/b")},
                                      {DENY_SERIAL, STR_LIT("0a0b")},
                                      {DENY_SPIFFE_ID, STR_LIT("spiffe://t/bad")},
                                      {DENY_SERIAL, STR_LIT("")},
                                      {DENY_SPIFFE_ID, STR_LIT("")}};
    struct deny_set *s = deny_set_new(items, sizeof(items) / sizeof(items[0]));

    (void)state;
    assert_int_equal(deny_set_count(s), 3);
    assert_false(has(s, "", ""));
    assert_false(has(s, "spiffe://t/ba", ""));
    assert_false(has(s, "spiffe://t/badd", ""));
    assert_false(has(s, "spiffe://t/", ""));
    assert_false(has(s, "spiffe://T/b", ""));
    assert_false(has(s, "0a0b", ""));
    assert_false(has(s, "", "spiffe://t/b"));
    assert_false(has(s, "", "0a"));
    assert_false(has(s, "", "0a0b0c"));
    assert_false(deny_set_has(s, (struct str){"spiffe://t/b\0x", 14}, STR_NONE));
    assert_true(has(s, "spiffe://t/b", "ff"));
    assert_true(has(s, "spiffe://t/bad", ""));
    assert_true(has(s, "spiffe://t/x", "0a0b"));
    assert_true(
        deny_set_has(s, (struct str){"spiffe://t/bxyz", 12}, STR_NONE)); /* not terminated */
    deny_set_free(s);
}

static void test_empty(void **state)
{
    struct deny_set *s = deny_set_new(NULL, 0);

    (void)state;
    assert_false(has(s, "spiffe://t/a", "00"));
    assert_false(has(NULL, "spiffe://t/a", "00"));
    assert_int_equal(deny_set_count(NULL), 0);
    deny_set_free(s);
    deny_set_free(NULL);
}

static void test_many(void **state)
{
    enum { N = 4096 };
    static char texts[N][24];
    static struct deny_item items[N];

    (void)state;
    for (unsigned i = 0; i < N; i++) {
        unsigned n = i * 2654435761U % N; /* in no order */
        (void)snprintf(texts[i], sizeof(texts[i]), "spiffe://t/%u", 2 * n);
        items[i] = (struct deny_item){DENY_SPIFFE_ID, str_of(texts[i])};
    }
    struct deny_set *s = deny_set_new(items, N);
    for (unsigned i = 0; i < 2 * N; i++) {
        char text[24];
        (void)snprintf(text, sizeof(text), "spiffe://t/%u", i);
        assert_int_equal(has(s, text, ""), i % 2 == 0);
    }
    deny_set_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_not_meant),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
