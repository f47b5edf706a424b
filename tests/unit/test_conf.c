/*
 * conf: what every kind of file has to be: bad YAML and bad heads first, each with the place and
 * the words that a person gets; bounds; then every example file, every prefix of each, and files
 * that name others. The kinds have tests of their own.
 */
#include "conf_cases.h"

#include <postern/conf_bounds.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct conf_case bad_yaml[] = {
    {PROXY, "",
     "1:1: the file is empty, expected a mapping that begins with 'kind:' and "
     "'level:'\n"},
    {PROXY, "# nothing\n",
     "1:1: the file is empty, expected a mapping that begins with 'kind:' and "
     "'level:'\n"},
    {PROXY, "hello",
     "1:1: not a configuration file, expected a mapping that begins with 'kind:' "
     "and 'level:'\n"},
    {PROXY, "- kind: Proxy",
     "1:1: not a configuration file, expected a mapping that begins with "
     "'kind:' and 'level:'\n"},
    {POLICY, "kind: Policy\nlevel: 1\nrules: [",
     "4:1: not valid YAML: while parsing a flow node did "
     "not find expected node content\n"},
    {POLICY, "kind: Policy\n\tlevel: 1\n",
     "2:1: not valid YAML: while scanning a plain scalar found a tab character that violates "
     "indentation; indent with blanks\n"},
    {POLICY, CONF_HEAD("Policy") "rules: @all\n",
     "3:8: not valid YAML: while scanning for the next token found character that cannot start any "
     "token; indent with blanks; a text that begins with a sign such as @ or % stands in quotes\n"},
    {POLICY, CONF_HEAD("Policy") "rules\xff\n",
     "3:6: not text: invalid leading UTF-8 octet, expected UTF-8 text\n"},
    {POLICY, CONF_HEAD("Policy") "rules: []\n\x1b[2J: 1\n",
     "4:1: not text: control characters are not allowed, expected UTF-8 text\n"},
    {POLICY, CONF_HEAD("Policy") "rules: &all []\n",
     "3:8: anchors are not taken; write the value out where it is used\n"},
    {POLICY, POLICY_HEAD "- {name: *n, action: ALLOW}\n",
     "4:10: aliases are not taken; write the value out; a text that begins with * stands in "
     "quotes\n"},
    {POLICY, CONF_HEAD("Policy") "rules: !!seq []\n",
     "3:8: tags are not taken; remove it: each key has its own type\n"},
    {POLICY, CONF_HEAD("Policy") "<<: {}\nrules: []\n",
     "3:1: merge keys are not taken; write the keys out\n"},
    {POLICY, CONF_HEAD("Policy") "rules: []\n---\nkind: Mesh\n",
     "4:1: a second document begins, expected one document in a file; put it into a file of its "
     "own\n"},
    {POLICY, "%YAML 1.1\n---\n" CONF_HEAD("Policy") "rules: []\n",
     "1:1: directives (%) are not taken; remove them\n"},
    {POLICY, CONF_HEAD("Policy") "[a]: b\nrules: []\n",
     "3:1: a key that is no text, expected text as the key\n"},
    {POLICY, POLICY_HEAD "- {name: \"a\\0b\", action: ALLOW}\n",
     "4:10: a NUL character in a text, expected text\n"},
    {POLICY, CONF_HEAD("Policy") "rules: []\nlevel: 1\n",
     "4:1: duplicate key 'level'; it stands at line 2, column 1 already; keep one\n"},
    {POLICY, CONF_HEAD("Policy") "rules: []\nzz: 1\nzz: 2\n",
     "4:1: unknown key 'zz', expected kind, level or rules\n"
     "5:1: duplicate key 'zz'; it stands at line 4, column 1 already; keep one\n"},
};

static const struct conf_case bad_head[] = {
    {POLICY, "level: 1\nrules: []\n",
     "1:1: missing key 'kind', expected Proxy, Gateway, Mesh, Policy, Agent, Entries, Modes, "
     "Rotate or PolicyTest; "
     "every file "
     "opens "
     "with "
     "'kind:' and 'level:'\n"},
    {POLICY, "kind: Polizy\nlevel: 1\n",
     "1:7: no such kind 'Polizy', expected Proxy, Gateway, Mesh, Policy, Agent, Entries, Modes, "
     "Rotate or PolicyTest; "
     "did you "
     "mean "
     "'Policy'?\n"},
    {POLICY, "kind: [Policy]\n",
     "1:7: 'kind' holds no text, expected Proxy, Gateway, Mesh, Policy, Agent, "
     "Entries, Modes, Rotate or PolicyTest\n"},
    {PROXY, "kind: Policy\nlevel: 1\nrules: []\n",
     "1:7: a file of kind Policy, expected Proxy; 'policy' in a Proxy or Gateway file names it\n"},
    {POLICY, "kind: Agent\nlevel: 1\n",
     "1:7: a file of kind Agent, expected Policy; 'postern agent FILE' runs it\n"},
    {POLICY, "kind: Policy\nrules: []\n",
     "1:1: missing key 'level', expected a number from 1 to 2\n"},
    {POLICY, "kind: Policy\nlevel: 3\nunknown: to us\n",
     "2:8: needs feature level 3, this binary understands 2; use a newer binary\n"},
    {POLICY, "kind: Policy\nlevel: 0\nrules: []\n",
     "2:8: 'level' is '0', too little, expected a number from 1 to 2\n"},
    {POLICY, "kind: Policy\nlevel: '1'\nrules: []\n",
     "2:8: 'level' is '1', not a number, expected a number from 1 to 2; remove the quotes\n"},
    {POLICY, "kind: Policy\nlevel: one\nrules: []\n",
     "2:8: 'level' is 'one', not a number, expected a number from 1 to 2\n"},
};

static void test_bad_yaml(void **state)
{
    (void)state;
    CONF_CASES(bad_yaml);
}

static void test_bad_head(void **state)
{
    (void)state;
    CONF_CASES(bad_head);
}

/* --- bounds ----------------------------------------------------------------------------------- */
static void expect_one_error(enum conf_case_kind kind, struct buf *text, const char *part)
{
    struct buf said = BUF_INIT(65536);
    assert_int_equal(conf_case_parse(kind, (const char *)buf_head(text), buf_len(text), &said), -1);
    assert_true(buf_append(&said, "", 1));
    if (strstr((const char *)buf_head(&said), part) == NULL) {
        print_message("said: %s\n", (const char *)buf_head(&said));
        fail();
    }
    buf_reset(&said);
    buf_reset(text);
}

static void test_bounds(void **state)
{
    (void)state;
    struct buf text = BUF_INIT(CONF_MESH_TEXT_MAX + 1);
    for (int i = 0; i < 1000; i++) {
        assert_true(buf_append(&text, "[", 1));
    }
    expect_one_error(POLICY, &text, "/etc/f.yaml:1:33: nested deeper than 32 levels\n");

    assert_true(buf_printf(&text, MESH_HEAD));
    for (int i = 0; i < 200001; i++) {
        assert_true(buf_append(&text, "- 1\n", 4));
    }
    expect_one_error(MESH, &text, ": more than 200000 values in one file\n");

    assert_true(buf_printf(&text, CONF_HEAD("Policy")));
    for (int i = 0; i < 150; i++) {
        assert_true(buf_printf(&text, "k%d: 1\n", i));
    }
    assert_true(buf_printf(&text, "rules: []\n"));
    expect_one_error(POLICY, &text,
                     "/etc/f.yaml:102:1: unknown key 'k99', expected kind, level or "
                     "rules\nand 50 more\n");

    char *comment = mem_must_calloc(1, CONF_MESH_TEXT_MAX + 1);
    memset(comment, '#', CONF_MESH_TEXT_MAX + 1);
    assert_true(buf_append(&text, comment, CONF_FILE_MAX + 1));
    expect_one_error(PROXY, &text, "/etc/f.yaml:1:1: larger than 4194304 bytes\n");
    assert_true(buf_append(&text, comment, CONF_MESH_TEXT_MAX + 1));
    expect_one_error(MESH, &text, "/etc/f.yaml:1:1: larger than 16777216 bytes\n");
    free(comment);

    assert_true(buf_printf(&text, MESH_HEAD "- name: a\n  transport: disable\n  addresses:\n"));
    for (int i = 0; i < 2048; i++) {
        assert_true(buf_printf(&text, "  - 10.0.%d.%d\n", i / 256, i % 256));
    }
    assert_true(buf_printf(&text, "  ports:\n"));
    for (int i = 1; i <= 200; i++) {
        assert_true(buf_printf(&text, "  - port: %d\n", i));
    }
    expect_one_error(MESH, &text, ": more than 262144 pairs of address and port; ");
}

/* --- good files ------------------------------------------------------------------------------- */
static char *example(const char *name)
{
    return mem_must_printf("%s/%s", EXAMPLES_DIR, name);
}

static const struct {
    const char *file;
    const char *kind;
    enum conf_case_kind as;
} examples[] = {
    {"proxy.yaml", "Proxy", PROXY},
    {"mesh.yaml", "Mesh", MESH},
    {"policy.yaml", "Policy", POLICY},
    {"agent.yaml", "Agent", AGENT},
    {"entries.yaml", "Entries", ENTRIES},
    {"entries-kubernetes.yaml", "Entries", ENTRIES},
    {"modes.yaml", "Modes", MODES},
    {"rotate.yaml", "Rotate", ROTATE},
    {"gateway.yaml", "Gateway", GATEWAY},
    {"policy-test.yaml", "PolicyTest", POLICY_TEST},
    {"policy-requests.yaml", "Policy", POLICY},
};

static void test_examples_load(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        mem_autofree char *path = example(examples[i].file);
        struct conf_diag *diag = conf_diag_new();
        const char *kind = NULL;
        int rc = conf_check(path, diag, &kind);
        conf_case_no_errors(diag);
        assert_int_equal(rc, 0);
        assert_string_equal(kind, examples[i].kind);
    }
}

/* Cut anywhere, a file loads or is refused, and nothing is leaked or read beyond its end. */
static void test_examples_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        mem_autofree char *path = example(examples[i].file);
        mem_autofree char *text = NULL;
        size_t len;
        struct err err = ERR_INIT;
        assert_int_equal(os_read_file(path, 1 << 20, false, &text, &len, &err), 0);
        for (size_t n = 0; n <= len; n++) {
            struct buf said = BUF_INIT(65536);
            char *cut = malloc(n > 0 ? n : 1);
            assert_non_null(cut);
            memcpy(cut, text, n);
            int rc = conf_case_parse(examples[i].as, cut, n, &said);
            assert_true(n < len || rc == 0);
            free(cut);
            buf_reset(&said);
        }
    }
}

/* --- several files ---------------------------------------------------------------------------- */
static void write_file(const char *dir, const char *name, const char *text)
{
    mem_autofree char *path = mem_must_printf("%s/%s", dir, name);
    struct err err = ERR_INIT;
    assert_int_equal(os_write_file_atomic(path, text, strlen(text), 0600, &err), 0);
}

static void test_check_follows_names(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_conf_XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_file(dir, "agent.yaml", AGENT_HEAD);
    write_file(dir, "e.yaml",
               ENTRY "selectors: ['unix:uid:0']}\n"
                     "- {id: f, spiffe_id: 'spiffe://other/f', selectors: "
                     "['unix:uid:1']}\n");
    write_file(dir, "proxy.yaml", PROXY_HEAD LISTENER "mesh: none.yaml\npolicy: agent.yaml\n");
    struct {
        const char *file, *want;
    } cases[] = {
        {"agent.yaml", "/e.yaml:5:1: entry 'f' is of another trust domain, expected an identity in "
                       "the agent's trust domain 'td'"},
        {"proxy.yaml", "/none.yaml"},
        {"proxy.yaml", "/agent.yaml:1:7: a file of kind Agent, expected Policy"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mem_autofree char *path = mem_must_printf("%s/%s", dir, cases[i].file);
        struct conf_diag *diag = conf_diag_new();
        struct buf said = BUF_INIT(65536);
        assert_int_equal(conf_check(path, diag, NULL), -1);
        assert_true(conf_diag_print(diag, &said) && buf_append(&said, "", 1));
        if (strstr((const char *)buf_head(&said), cases[i].want) == NULL) {
            print_message("said: %s\n", (const char *)buf_head(&said));
            fail();
        }
        buf_reset(&said);
        conf_diag_free(diag);
    }
    static const char *const files[] = {"agent.yaml", "e.yaml", "proxy.yaml"};
    for (size_t i = 0; i < 3; i++) {
        mem_autofree char *path = mem_must_printf("%s/%s", dir, files[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(remove(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_yaml),     cmocka_unit_test(test_bad_head),
        cmocka_unit_test(test_bounds),       cmocka_unit_test(test_examples_load),
        cmocka_unit_test(test_examples_cut), cmocka_unit_test(test_check_follows_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
