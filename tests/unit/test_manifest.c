/* manifest: YAML and JSON to trees, and back. Bad cases first. */
#include <postern/manifest.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct manifest *parse(const char *text)
{
    struct err err = ERR_INIT;
    struct manifest *m = manifest_parse("f.yaml", str_of(text), &err);
    if (m == NULL) {
        char said[1200];
        print_error("%s\n%s\n", err_text(&err, said, sizeof(said)), text);
    }
    assert_non_null(m);
    return m;
}

/* --- what is refused -------------------------------------------------------------------------- */
static const struct {
    const char *text, *where, *what;
} bad[] = {
    {"a: 1\na: 2\n", "f.yaml:2:1", "second time"},
    {"{\"a\": 1, \"a\": 2}", "f.yaml:1:10", "second time"},
    {"a: {b: 1, \"b\": 2}\n", "f.yaml:1:11", "second time"},
    {"yes: 1\ntrue: 2\n", "f.yaml:2:1", "second time"},
    {"0x10: 1\n16: 2\n", "f.yaml:2:1", "second time"},
    {"b: &b {x: 1}\na:\n  <<: *b\n", "f.yaml:3:3", "merge"},
    {"a: !!binary aGk=\n", "f.yaml:1:4", "tag"},
    {"a: !mine {}\n", "f.yaml:1:4", "tag"},
    {"%YAML 1.1\n---\na: 1\n", "f.yaml:1:1", "directives"},
    {"a: 1\n...\nb: 1\n", "f.yaml:3:1", "document"},
    {"a: .nan\n", "f.yaml:1:4", "no number"},
    {"a: -.inf\n", "f.yaml:1:4", "no number"},
    {"a: 99999999999999999999\n", "f.yaml:1:4", "no number"},
    {"a: 1e999\n", "f.yaml:1:4", "no number"},
    {"a: \"x\\0y\"\n", "f.yaml:1:4", "NUL"},
    {"\"a\\tb\": 1\n", "f.yaml:1:1", "control character"},
    {"? [a]\n: 1\n", "f.yaml:1:3", "no text"},
    {"1.5: x\n", "f.yaml:1:1", "no text"},
    {"~: x\n", "f.yaml:1:1", "no text"},
    {"&a b: x\n", "f.yaml:1:1", "anchor of a key"},
    {"a: &a 1\n*a : 2\n", "f.yaml:2:1", "alias as a key"},
    {"a: *b\n", "f.yaml:1:4", "without its anchor"},
    {"a: &a [*a]\n", "f.yaml:1:8", "inside of what it stands for"},
    /* anchors end with their document */
    {"a: &a 1\n---\nb: *a\n", "f.yaml:3:4", "without its anchor"},
    {"a: [\n", "f.yaml:2:1", "not valid YAML"},
    {"\ta: 1\n", "f.yaml:1:1", "not valid YAML"},
    {"a: \xff\n", "f.yaml", "not text"},
    {"{\"a\": 1} x", "f.yaml:1:10", "not valid YAML"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = ERR_INIT;
        struct manifest *m = manifest_parse("f.yaml", str_of(bad[i].text), &err);
        if (m != NULL || strcmp(err.where, bad[i].where) != 0 ||
            strstr(err.what, bad[i].what) == NULL) {
            fail_msg("%s\n-> %s: %s", bad[i].text, err.where, err.what);
        }
    }
}

/* Each level ten times the one before: a few hundred bytes that would be a thousand million values.
 */
static void test_laughs(void **state)
{
    struct buf text = BUF_INIT(1 << 16);
    struct err err = ERR_INIT;
    (void)state;
    assert_true(buf_printf(&text, "l0: &l0 [x,x,x,x,x,x,x,x,x,x]\n"));
    for (int i = 1; i < 10; i++) {
        assert_true(buf_printf(&text, "l%d: &l%d [", i, i));
        for (int k = 0; k < 10; k++) {
            assert_true(buf_printf(&text, "*l%d,", i - 1));
        }
        assert_true(buf_printf(&text, "]\n"));
    }
    assert_null(manifest_parse("f.yaml", buf_str(&text), &err));
    assert_int_equal(err.code, ERR_LIMIT);
    buf_reset(&text);
}

/* The same by bytes: few values, each of them long. */
static void test_long_aliases(void **state)
{
    struct buf text = BUF_INIT(1 << 22);
    struct err err = ERR_INIT;
    (void)state;
    assert_true(buf_printf(&text, "a: &a \""));
    for (int i = 0; i < 10000; i++) {
        assert_true(buf_printf(&text, "%0100d", i));
    }
    assert_true(buf_printf(&text, "\"\nb: ["));
    for (int i = 0; i < 100; i++) {
        assert_true(buf_printf(&text, "*a, "));
    }
    assert_true(buf_printf(&text, "]\n"));
    assert_null(manifest_parse("f.yaml", buf_str(&text), &err));
    assert_int_equal(err.code, ERR_LIMIT);
    buf_reset(&text);
}

static void check_deep(const char *open, int n, bool fits)
{
    struct buf text = BUF_INIT(1 << 20);
    struct err err = ERR_INIT;
    for (int i = 0; i < n; i++) {
        assert_true(buf_printf(&text, "%s", open));
    }
    assert_true(buf_printf(&text, "1"));
    for (int i = 0; i < n; i++) {
        assert_true(buf_printf(&text, "%s", open[0] == '[' ? "]" : "}"));
    }
    struct manifest *m = manifest_parse("f.yaml", buf_str(&text), &err);
    if (fits) {
        assert_non_null(m);
    } else {
        assert_null(m);
        assert_int_equal(err.code, ERR_LIMIT);
    }
    manifest_free(m);
    buf_reset(&text);
}

static void test_depth(void **state)
{
    (void)state;
    check_deep("[", 50, true);
    check_deep("{\"a\":", 50, true);
    check_deep("[", 101, false);
    check_deep("{\"a\":", 101, false);
    check_deep("{\"a\":", 5000, false);
}

/* --- what scalars mean ------------------------------------------------------------------------ */
/* NULL: a text. The value as JSON otherwise. */
static const struct {
    const char *text, *json;
} scalars[] = {
    {"yes", "true"},  {"y", "true"},
    {"On", "true"},   {"TRUE", "true"},
    {"no", "false"},  {"N", "false"},
    {"off", "false"}, {"yEs", NULL},
    {"~", "null"},    {"Null", "null"},
    {"nUll", NULL},   {"12", "12"},
    {"-0", "0"},      {"+7", "7"},
    {"0644", "420"},  {"0o17", "15"},
    {"0x1F", "31"},   {"-0x10", "-16"},
    {"0b101", "5"},   {"1_000", "1000"},
    {"08", "8"},      {"0.5", "0.5"},
    {".5", "0.5"},    {"1.", "1"},
    {"1e3", "1000"},  {"1.5e-3", "0.0015"},
    {"1.10", "1.1"},  {"0x", NULL},
    {"1.2.3", NULL},  {"10m", NULL},
    {"1e", NULL},     {"1e+", NULL},
    {"-", NULL},      {"+", NULL},
    {".", NULL},      {"2001-01-01", NULL},
    {"0xzz", NULL},   {"1:30", NULL},
    {"<<", NULL},     {"=", NULL},
    {"._5", NULL},    {".5_0", "0.5"},
    {"+_5", "5"},     {"-9223372036854775808", "-9223372036854775808"},
};

static void test_scalars(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++) {
        json_t *v = manifest_scalar(str_of(scalars[i].text));
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
        assert_non_null(text);
        if (scalars[i].json != NULL) {
            assert_string_equal(text, scalars[i].json);
        } else {
            assert_true(json_is_string(v));
            assert_string_equal(json_string_value(v), scalars[i].text);
        }
        free(text);
        json_decref(v);
    }
}

static const struct {
    const char *yaml, *json;
} trees[] = {
    {"a: &x {k: [1, yes]}\nb: *x\n", "{\"a\":{\"k\":[1,true]},\"b\":{\"k\":[1,true]}}"},
    {"a: 'yes'\nb: !!str 12\nc: ! 13\nd: |\n  on\n",
     "{\"a\":\"yes\",\"b\":\"12\",\"c\":\"13\",\"d\":\"on\\n\"}"},
    {"on: 1\n2: b\n\"no\": c\n", "{\"true\":1,\"2\":\"b\",\"no\":\"c\"}"},
    {"a:\nb: ''\n", "{\"a\":null,\"b\":\"\"}"},
    {"", "null"},
    {"# nothing\n", "null"},
    {"{\"a\": [1, {}]}", "{\"a\":[1,{}]}"},
    {"{a: 1, b: no}", "{\"a\":1,\"b\":false}"},
    {"\xef\xbb\xbf"
     "a: 1\n",
     "{\"a\":1}"},
};

static void test_trees(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++) {
        struct manifest *m = parse(trees[i].yaml);
        json_t *want = json_loads(trees[i].json, JSON_DECODE_ANY, NULL);
        assert_int_equal(m->n, 1);
        assert_true(json_equal(m->docs[0].tree, want));
        json_decref(want);
        manifest_free(m);
    }
}

/* --- which bytes are whose -------------------------------------------------------------------- */
static void test_documents(void **state)
{
    static const char text[] = "# top\n---\n# Source: a.yaml\na: 1 # why\n---\n---\n"
                               "# only this\n--- {c: 2}\n...\n--- \n\nd: |\n  ---\n  x\n";
    static const struct {
        const char *bytes;
        size_t header;
        unsigned line;
    } want[] = {
        {"# top\n---\n# Source: a.yaml\na: 1 # why\n", 27, 4},
        {"---\n", 4, 6},
        {"---\n# only this\n", 16, 8},
        {"--- {c: 2}\n...\n", 0, 8},
        {"--- \n\nd: |\n  ---\n  x\n", 6, 12},
    };
    (void)state;
    struct manifest *m = parse(text);
    assert_int_equal(m->n, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_true(str_eq(m->docs[i].bytes, str_of(want[i].bytes)));
        if (i != 1 && i != 2) {
            assert_int_equal(m->docs[i].header_len, want[i].header);
            assert_int_equal(m->docs[i].line, want[i].line);
        }
    }
    struct buf out = BUF_INIT(4096);
    assert_true(manifest_write(m, 0, m->docs[0].tree, &out));
    assert_true(manifest_write(m, 3, m->docs[3].tree, &out));
    assert_true(manifest_write(m, 4, m->docs[4].tree, &out));
    assert_true(str_eq(buf_str(&out), STR_LIT("# top\n---\n# Source: a.yaml\na: 1\n---\nc: 2\n"
                                              "--- \n\nd: |\n  ---\n  x\n")));
    buf_reset(&out);
    manifest_free(m);
}

static void test_json_stream(void **state)
{
    static const char text[] = " {\"a\": \"\\u00e9\"}\n\n{\"b\": [1.5, 2]} \n";
    (void)state;
    struct manifest *m = parse(text);
    assert_int_equal(m->form, MANIFEST_JSON);
    assert_int_equal(m->n, 2);
    assert_true(str_eq(m->docs[0].bytes, STR_LIT(" {\"a\": \"\\u00e9\"}")));
    assert_true(str_eq(m->docs[1].bytes, STR_LIT("\n\n{\"b\": [1.5, 2]} \n")));
    assert_int_equal(m->docs[1].line, 3);
    struct buf out = BUF_INIT(4096);
    assert_true(manifest_write(m, 1, m->docs[1].tree, &out));
    assert_true(
        str_eq(buf_str(&out), STR_LIT("\n\n{\n    \"b\": [\n        1.5,\n        2\n    ]\n}\n")));
    buf_reset(&out);
    manifest_free(m);
}

/* --- back ------------------------------------------------------------------------------------- */
static const struct {
    const char *json, *yaml;
} written[] = {
    {"\"abc\"", "abc\n"},
    {"\"a b: c\"", "\"a b: c\"\n"},
    {"\"a:b\"", "a:b\n"},
    {"\"a:\"", "\"a:\"\n"},
    {"\"a #b\"", "\"a #b\"\n"},
    {"\"yes\"", "\"yes\"\n"},
    {"\"n\"", "\"n\"\n"},
    {"\"null\"", "\"null\"\n"},
    {"\"\"", "\"\"\n"},
    {"\"12\"", "\"12\"\n"},
    {"\"0x1f\"", "\"0x1f\"\n"},
    {"\"1e3\"", "\"1e3\"\n"},
    {"\"1:30\"", "\"1:30\"\n"},
    {"\"2001-01-01\"", "\"2001-01-01\"\n"},
    {"\".inf\"", "\".inf\"\n"},
    {"\"- a\"", "\"- a\"\n"},
    {"\"*a\"", "\"*a\"\n"},
    {"\"{a}\"", "\"{a}\"\n"},
    {"\" a\"", "\" a\"\n"},
    {"\"a\\\"\\\\\"", "\"a\\\"\\\\\"\n"},
    {"\"\\u001b\\u0085\\u2028\\ufeff\"", "\"\\x1b\\x85\\u2028\\ufeff\"\n"},
    {"\"\xc3\xa9 \xf0\x9f\x98\x80\"", "\"\xc3\xa9 \xf0\x9f\x98\x80\"\n"},
    {"{\"a\": \"x\\ny\\n\"}", "a: |\n  x\n  y\n"},
    {"{\"a\": \"x\\n  y\"}", "a: |-\n  x\n    y\n"},
    {"{\"a\": \"x\\n\\n\"}", "a: |+\n  x\n\n"},
    {"{\"a\": \" x\\ny\"}", "a: \" x\\ny\"\n"},
    {"{\"a\": \"x \\ny\"}", "a: \"x \\ny\"\n"},
    {"{\"a\": \"x\\n\\ty\"}", "a: \"x\\n\\ty\"\n"},
    {"{\"on\": {\"a b\": [], \"c\": {}}}", "\"on\":\n  a b: []\n  c: {}\n"},
    {"{\"a\": [{\"b\": 1, \"c\": [[1, [2]], {}]}]}",
     "a:\n- b: 1\n  c:\n  - - 1\n    - - 2\n  - {}\n"},
    {"[1.0, -0.0, 0.1, 1e300, -2.5e-7]", "- 1\n- 0\n- 0.1\n- 1e+300\n- -2.5e-07\n"},
    {"{\"a\": null, \"b\": true, \"c\": -1}", "a: null\nb: true\nc: -1\n"},
};

static void test_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++) {
        struct buf out = BUF_INIT(4096);
        json_t *tree = json_loads(written[i].json, JSON_DECODE_ANY, NULL);
        assert_non_null(tree);
        assert_true(manifest_write_yaml(tree, &out));
        if (!str_eq(buf_str(&out), str_of(written[i].yaml))) {
            fail_msg("%s\n-> %.*s", written[i].json, STR_ARG(buf_str(&out)));
        }
        json_decref(tree);
        buf_reset(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_laughs),
        cmocka_unit_test(test_long_aliases), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_scalars),      cmocka_unit_test(test_trees),
        cmocka_unit_test(test_documents),    cmocka_unit_test(test_json_stream),
        cmocka_unit_test(test_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
