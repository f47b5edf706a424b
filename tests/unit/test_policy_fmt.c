/* policy_tools: the canonical form. What it must not do is lose something. */
#include <postern/policy_tools.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "kind: Policy\nlevel: 1\n"

/* Owned by the caller. */
static char *format(const char *text)
{
    struct buf out = BUF_INIT(1 << 20);
    struct err err = ERR_INIT;
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    assert_int_equal(conf_parse_policy("p.yaml", text, strlen(text), diag, &conf), 0);
    if (policy_fmt("p.yaml", str_of(text), &out, &err) != 0) {
        fail_msg("%s: %s", err.where, err.what);
    }
    char *copy = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    buf_reset(&out);
    conf_policy_free(conf);
    conf_diag_free(diag);
    return copy;
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        /* nowhere to put it */
        HEAD "rules:\n  - name: a\n    action: ALLOW\n    target: {principals: | # why\n}\n",
        HEAD "rules: [\n",
        "",
        "- a\n",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct buf out = BUF_INIT(1 << 20);
        struct err err = ERR_INIT;
        assert_int_equal(policy_fmt("p.yaml", str_of(texts[i]), &out, &err), -1);
        assert_int_equal(buf_len(&out), 0);
        assert_string_not_equal(err.what, "");
        buf_reset(&out);
    }
}

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        /* keys in order, brackets opened, quotes where they are needed */
        {"level: 1\nkind: 'Policy'\nrules:\n- {action: 'ALLOW', name: \"a\", to: [{ports: [ 1,2 "
         "]}],\n"
         "   from: [{principals: ['*', 'spiffe://a.b/x']}]}\n",
         HEAD "\nrules:\n  - name: a\n    action: ALLOW\n    from:\n"
              "      - principals: [\"*\", spiffe://a.b/x]\n    to:\n      - ports: [1, 2]\n"},
        /* comments: of the file, above and behind, within lists, at the end */
        {"# file\n\n" HEAD "rules: # all\n  # one\n\n\n  # two\n  -  # dash\n    name: a # na\n"
         "    action: DENY\n    to:\n    - paths: [/a, # first\n        /b, /c] # last\n"
         "      ports: [1] # p\n\n  # more\n  - name: b\n    action: ALLOW\n  # end\n# of file\n",
         "# file\n\n" HEAD "\nrules: # all\n  # one\n\n  # two\n  # dash\n  - name: a # na\n"
         "    action: DENY\n    to:\n      - ports: [1] # p\n        paths: # last\n"
         "          - /a # first\n          - /b\n          - /c\n\n  # more\n  - name: b\n"
         "    action: ALLOW\n# end\n# of file\n"},
        /* what could be a number keeps its quotes; a # within a text is none */
        {HEAD "rules:\n  - name: a\n    action: ALLOW\n    to: [{methods: [GET], paths: ['/a#b', "
              "\"/1\"],\n"
              "      hosts: ['1', \"null\", a]}]\n",
         NULL},
        {HEAD "rules: []\n", HEAD "\nrules: []\n"},
        {HEAD "rules: [] # none\n", HEAD "\nrules: [] # none\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (cases[i].want == NULL) {
            continue;
        }
        char *got = format(cases[i].text);
        assert_string_equal(got, cases[i].want);
        char *again = format(got);
        assert_string_equal(again, got);
        free(got);
        free(again);
    }
}

static void test_quotes(void **state)
{
    (void)state;
    char *got = format(HEAD "rules:\n  - name: a\n    action: ALLOW\n    to:\n"
                            "      - hosts: ['1', \"null\", 'a', 10.0.0.1, b-c]\n"
                            "        paths: [/a%20b, '/b', \"/x:y\", '/c*', /d]\n");
    assert_non_null(strstr(got, "hosts: [\"1\", \"null\", a, 10.0.0.1, b-c]\n"));
    assert_non_null(strstr(got, "paths: [/a%20b, /b, /x:y, \"/c*\", /d]\n"));
    free(got);
}

/* Long lists become lines. */
static void test_width(void **state)
{
    (void)state;
    char *got = format(HEAD "rules:\n  - name: a\n    action: ALLOW\n    target: {principals: ["
                            "spiffe://a.example/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, "
                            "spiffe://a.example/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb]}\n");
    assert_non_null(strstr(got, "      principals:\n        - spiffe://a.example/aaaa"));
    free(got);
}

static void test_examples(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(os_read_file(EXAMPLES_DIR "/policy.yaml", 1 << 20, false, &text, &len, NULL),
                     0);
    char *got = format(text);
    for (const char *at = text; (at = strchr(at, '#')) != NULL; at++) {
        char comment[200];
        snprintf(comment, sizeof(comment), "%.*s", (int)strcspn(at, "\n"), at);
        assert_non_null(strstr(got, comment));
    }
    char *again = format(got);
    assert_string_equal(again, got);
    free(again);
    free(got);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_forms),
        cmocka_unit_test(test_quotes),   cmocka_unit_test(test_width),
        cmocka_unit_test(test_examples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
