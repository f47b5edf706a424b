/* jsonl: what is no line, and that what is written is read back. */
#include <postern/jsonl.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_bad_lines(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "}",
        "{}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1",
        "{\"a\":1}}",
        "{\"a\":1} ",
        " {\"a\":1}",
        "{ \"a\":1}",
        "{\"a\": 1}",
        "{\"a\":1,}",
        "{,\"a\":1}",
        "{\"A\":1}",
        "{\"\":1}",
        "{\"a\":1,\"a\":1}",
        "{\"a\":01}",
        "{\"a\":1.5}",
        "{\"a\":1e3}",
        "{\"a\":--1}",
        "{\"a\":-}",
        "{\"a\":null}",
        "{\"a\":[1]}",
        "{\"a\":{\"b\":1}}",
        "{\"a\":\"x}",
        "{\"a\":\"\\n\"}",
        "{\"a\":\"\\u0100\"}",
        "{\"a\":\"\\u00\"}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"x\"y}",
        "{\"a\":123456789012345678901}",
    };
    struct jsonl l;
    char many[JSONL_FIELDS_MAX * 16 + 64];
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (jsonl_parse(str_of(bad[i]), &l)) {
            fail_msg("read: %s", bad[i]);
        }
    }
    for (int i = 0; i < JSONL_FIELDS_MAX + 1; i++) {
        n += (size_t)snprintf(many + n, sizeof(many) - n, "%c\"k%d\":%d", i == 0 ? '{' : ',', i, i);
    }
    many[n++] = '}';
    assert_false(jsonl_parse((struct str){many, n}, &l));
}

static void test_written_and_read(void **state)
{
    static const uint8_t bytes[] = {0x00, 0xff, 0x10, 0x80, 0x7f};
    static const char odd[] = "q\" b\\ c\x01 \xff \xc3\xa4";
    char space[1024], text[64];
    struct jsonl_writer w;
    struct jsonl l;
    uint8_t got[8];
    uint64_t u;
    int64_t i;
    size_t n;

    (void)state;
    jsonl_begin(&w, space, sizeof(space));
    jsonl_put_text(&w, "odd", str_of(odd), 100);
    jsonl_put_text(&w, "cut", STR_LIT("abcdef"), 4);
    jsonl_put_text(&w, "empty", STR_NONE, 4);
    jsonl_put_hex(&w, "hex", bytes, sizeof(bytes));
    for (size_t k = 0; k < 4; k++) {
        const char key[] = {'b', (char)('0' + k), '\0'};

        jsonl_put_base64(&w, key, bytes, k);
    }
    jsonl_put_uint(&w, "max", UINT64_MAX);
    jsonl_put_int(&w, "minus", -7);
    assert_true(jsonl_end(&w));
    assert_true(jsonl_parse((struct str){w.text, w.len}, &l));
    assert_true(jsonl_get_text(&l, "odd", text, sizeof(text)));
    assert_string_equal(text, odd);
    assert_false(jsonl_get_text(&l, "odd", text, strlen(odd)));
    assert_true(jsonl_is(&l, "cut", "abcd..."));
    assert_true(jsonl_is(&l, "empty", ""));
    assert_true(jsonl_get_hex(&l, "hex", got, sizeof(bytes)));
    assert_memory_equal(got, bytes, sizeof(bytes));
    assert_false(jsonl_get_hex(&l, "hex", got, sizeof(bytes) - 1));
    for (size_t k = 0; k < 4; k++) {
        const char key[] = {'b', (char)('0' + k), '\0'};

        assert_true(jsonl_get_base64(&l, key, got, sizeof(got), &n));
        assert_int_equal(n, k);
        assert_memory_equal(got, bytes, k);
    }
    assert_true(jsonl_get_uint(&l, "max", &u));
    assert_true(u == UINT64_MAX);
    assert_true(jsonl_get_int(&l, "minus", &i));
    assert_int_equal(i, -7);
    assert_false(jsonl_get_uint(&l, "minus", &u));
    assert_null(jsonl_find(&l, "none"));
    jsonl_begin(&w, space, 10);
    jsonl_put_text(&w, "odd", str_of(odd), 100);
    assert_false(jsonl_end(&w));
}

/* Wherever in the text a character stands, it is told as one. */
static void test_characters_stay_whole(void **state)
{
    char space[512], text[160];
    struct jsonl_writer w;

    (void)state;
    for (size_t before = 0; before < 130; before++) {
        memset(text, 'a', before);
        (void)snprintf(text + before, sizeof(text) - before, "\xc3\xa9\xe2\x82\xac");
        jsonl_begin(&w, space, sizeof(space));
        jsonl_put_text(&w, "t", str_of(text), sizeof(text));
        assert_true(jsonl_end(&w));
        assert_non_null(memmem(w.text, w.len, "\xc3\xa9\xe2\x82\xac\"}", 7));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_written_and_read),
        cmocka_unit_test(test_characters_stay_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
