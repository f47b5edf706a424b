/* documents: what proxies are told, in parts: bad parts, bounds, who gets which rule, positions. */
#include <postern/agent_docs.h>

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants these first */
#include <cmocka.h>
#include <doc_parts.h>
#include <postern/mem.h>
#include <postern/policy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void part(struct agent_msg_doc_part *m, enum agent_doc_part_kind kind, unsigned line,
                 const char *text)
{
    agent_ipc_init(m, AGENT_MSG_DOC_PART, 0);
    m->kind = kind;
    m->line = line;
    assert_true(agent_ipc_put(m->text, AGENT_DOC_PART_MAX, &m->text_len, str_of(text)));
}

struct step {
    enum agent_doc_part_kind kind;
    unsigned line;
    const char *text;
};

static bool take(struct agent_doc *d, const struct step *steps, size_t n)
{
    struct agent_msg_doc_part m;
    bool ok = true;

    for (size_t i = 0; i < n; i++) {
        part(&m, steps[i].kind, steps[i].line, steps[i].text);
        ok = agent_doc_add(d, &m);
    }
    return ok;
}

/* Each is refused at its last step, and the document takes nothing any more. */
static void test_out_of_order(void **state)
{
    static const struct step cases[][4] = {
        {{AGENT_DOC_HEAD, 0, "x"}},
        {{AGENT_DOC_ITEM, 1, "x"}},
        {{AGENT_DOC_SOURCE, 0, "f"}, {AGENT_DOC_SOURCE, 0, "f"}},
        {{AGENT_DOC_SOURCE, 0, ""}},
        {{AGENT_DOC_SOURCE, 0, "f"}, {AGENT_DOC_ITEM, 1, "x"}},
        {{AGENT_DOC_SOURCE, 0, "f"}, {AGENT_DOC_HEAD, 0, "x"}, {AGENT_DOC_HEAD, 0, "x"}},
        {{AGENT_DOC_SOURCE, 0, "f"}, {AGENT_DOC_TEXT, 0, "x"}},
        {{AGENT_DOC_SOURCE, 0, "f"}, {AGENT_DOC_HEAD, 0, "x"}, {AGENT_DOC_TARGET, 0, "x"}},
        {{AGENT_DOC_SOURCE, 0, "f"}, {AGENT_DOC_HEAD, 0, "x"}, {AGENT_DOC_ITEM, 0, "x"}},
        {{AGENT_DOC_SOURCE, 0, "f"},
         {AGENT_DOC_HEAD, 0, "x"},
         {AGENT_DOC_ITEM, 2, "x"},
         {AGENT_DOC_ITEM, 1, "x"}},
        {{AGENT_DOC_SOURCE, 0, "f"},
         {AGENT_DOC_HEAD, 0, "x"},
         {AGENT_DOC_ITEM, 2, "x"},
         {AGENT_DOC_TARGET, 0, ""}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct agent_doc d;
        struct agent_msg_doc_part m;
        size_t n = 0;

        agent_doc_init(&d);
        while (n < 4 && cases[i][n].text != NULL) {
            n++;
        }
        assert_true(n == 1 || take(&d, cases[i], n - 1));
        assert_false(take(&d, &cases[i][n - 1], 1));
        part(&m, AGENT_DOC_SOURCE, 0, "f");
        assert_false(agent_doc_add(&d, &m));
        agent_doc_deinit(&d);
    }
}

static void test_bounds(void **state)
{
    static const struct step head[] = {{AGENT_DOC_SOURCE, 0, "f"}, {AGENT_DOC_HEAD, 0, "x"}};
    struct agent_msg_doc_part m;
    struct agent_doc d;
    size_t n = 0;

    (void)state;
    agent_doc_init(&d);
    assert_true(take(&d, head, 2));
    part(&m, AGENT_DOC_ITEM, 1, "x");
    while (agent_doc_add(&d, &m)) {
        n++;
    }
    assert_int_equal(n, AGENT_DOC_ITEMS_MAX);
    agent_doc_deinit(&d);

    assert_true(take(&d, head, 2));
    assert_true(agent_doc_add(&d, &m));
    memset(m.text, 'x', sizeof(m.text));
    m.kind = AGENT_DOC_TEXT;
    m.text_len = AGENT_DOC_PART_MAX;
    n = 1;
    while (agent_doc_add(&d, &m)) {
        n += m.text_len;
    }
    assert_true(n <= AGENT_DOC_BYTES_MAX && n + AGENT_DOC_PART_MAX > AGENT_DOC_BYTES_MAX);
    agent_doc_deinit(&d);

    assert_true(take(&d, head, 2)); /* text before the first item is of the head */
    for (n = 1; agent_doc_add(&d, &m); n += m.text_len) {
    }
    assert_true(n <= AGENT_DOC_HEAD_MAX && n + AGENT_DOC_PART_MAX > AGENT_DOC_HEAD_MAX);
    agent_doc_deinit(&d);
}

/* --- who gets which rule -----------------------------------------------------------------------
 */
static const char RULES[] =
    "kind: Policy\n"
    "level: 1\n"
    "# a comment\n"
    "rules:\n"
    "  - name: everyone\n"
    "    action: ALLOW\n"
    "\n"
    "  - name: exact\n"
    "    action: ALLOW\n"
    "    target: {principals: ['spiffe://t/a']}\n"
    "  - {name: prefix, action: DENY, target: {principals: ['spiffe://t/a*']}}\n"
    "  - {name: suffix, action: DENY, target: {principals: ['*/a', '*/z']}}\n"
    "  - {name: star, action: DENY, target: {principals: ['*']}}\n"
    "  - {name: other, action: DENY, target: {principals: ['spiffe://u/*']}}\n";

static struct conf_policy *told(const struct agent_doc *d, const char *id, const char *id2)
{
    const struct str ids[] = {str_of(id), str_of(id2)};
    struct buf out = BUF_INIT(AGENT_DOC_WRITTEN_MAX);
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *p = NULL;

    assert_true(agent_doc_write(d, AGENT_DOCUMENT_POLICY, ids, id2 != NULL ? 2 : 1, &out));
    assert_int_equal(conf_parse_policy("/p.yaml", buf_str(&out).p, buf_len(&out), diag, &p), 0);
    buf_reset(&out);
    conf_diag_free(diag);
    return p;
}

static void assert_names(struct conf_policy *p, const char *names)
{
    char got[200] = "";
    size_t n = 0;

    for (size_t i = 0; i < p->n_rules; i++) {
        n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%s:%u", i > 0 ? " " : "",
                              p->rules[i].name, p->rules[i].line);
    }
    assert_string_equal(got, names);
    conf_policy_free(p);
}

static void test_filter_and_positions(void **state)
{
    struct agent_doc d;

    (void)state;
    agent_doc_init(&d);
    assert_true(doc_from_text(AGENT_DOCUMENT_POLICY, "/p.yaml", RULES, sizeof(RULES) - 1, &d));
    assert_names(told(&d, "spiffe://t/a", NULL), "everyone:5 exact:8 prefix:11 suffix:12 star:13");
    assert_names(told(&d, "spiffe://t/ab", NULL), "everyone:5 prefix:11 star:13");
    assert_names(told(&d, "spiffe://t/x", "spiffe://u/z"), "everyone:5 suffix:12 star:13 other:14");
    assert_names(told(&d, "spiffe://v/x", NULL), "everyone:5 star:13");
    agent_doc_deinit(&d);
}

/* The filter may say yes too often and never no: it is compared with the policy itself. */
static void test_filter_agrees_with_the_policy(void **state)
{
    static const char *const patterns[] = {"*",
                                           "spiffe://t/a",
                                           "spiffe://t/*",
                                           "spiffe://t/a*",
                                           "*/a",
                                           "*a",
                                           "*t/a",
                                           "spiffe://t/*/b",
                                           "spiffe://t/a/*/*",
                                           "spiffe://t/**",
                                           "spiffe://t/a/**",
                                           "spiffe://t/*/b/**",
                                           "spiffe://t/*/*/*/*",
                                           "spiffe://t/a/*/a",
                                           "spiffe://t/*/*"};
    static const char *const ids[] = {"spiffe://t/a",    "spiffe://t/aa",      "spiffe://tt/a",
                                      "spiffe://T/a",    "spiffe://t/b",       "spiffe://t/a/b/a",
                                      "spiffe://t/a/b",  "spiffe://t/a/b/c/d", "spiffe://t/a/a",
                                      "spiffe://t/ab/b", "spiffe://u/a/b"};
    (void)state;
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        mem_autofree char *text = mem_must_printf(
            "{kind: Policy, level: 2, rules: [{name: r, action: ALLOW, target: {principals: "
            "[\"%s\"]}}]}",
            patterns[i]);
        struct conf_diag *diag = conf_diag_new();
        struct conf_policy *conf = NULL;
        struct policy *p;
        struct err err = ERR_INIT;

        assert_int_equal(conf_parse_policy("/p.yaml", text, strlen(text), diag, &conf), 0);
        p = policy_new(conf, &err);
        assert_non_null(p);
        for (size_t k = 0; k < sizeof(ids) / sizeof(ids[0]); k++) {
            const struct policy_query q = {.target = str_of(ids[k]), .port = 1};
            struct policy_verdict v;

            policy_decide(p, &q, &v);
            if (v.allow != agent_doc_target_matches(str_of(patterns[i]), str_of(ids[k]))) {
                fail_msg("%s and %s", patterns[i], ids[k]);
            }
        }
        policy_free(p);
        conf_policy_free(conf);
        conf_diag_free(diag);
    }
}

static void test_bad_file_gives_nothing(void **state)
{
    static const char bad[] = "kind: Policy\nlevel: 1\nrules:\n  - name: x\n";
    static const char foreign[] = "kind: Mesh\nlevel: 1\n";
    struct agent_doc d;

    (void)state;
    agent_doc_init(&d);
    assert_false(doc_from_text(AGENT_DOCUMENT_POLICY, "/p.yaml", bad, sizeof(bad) - 1, &d));
    assert_false(d.present);
    assert_false(doc_from_text(AGENT_DOCUMENT_POLICY, "/p.yaml", foreign, sizeof(foreign) - 1, &d));
    agent_doc_deinit(&d);
}

/* A file that is mostly comments: positions are the file's. */
static void test_far_apart(void **state)
{
    enum { LINES = 700000 };
    struct buf text = BUF_INIT(4 << 20);
    struct agent_doc d;
    struct conf_policy *p;

    (void)state;
    assert_true(buf_printf(&text, "kind: Policy\nlevel: 1\nrules:\n"));
    for (int i = 0; i < LINES; i++) {
        assert_true(buf_append(&text, "\n", 1));
    }
    assert_true(buf_printf(&text, "- {name: r, action: ALLOW}\n- {name: s, action: ALLOW}\n"));
    agent_doc_init(&d);
    assert_true(
        doc_from_text(AGENT_DOCUMENT_POLICY, "/p.yaml", buf_str(&text).p, buf_len(&text), &d));
    p = told(&d, "spiffe://t/a", NULL);
    assert_int_equal(p->n_rules, 2);
    assert_int_equal(p->rules[0].line, LINES + 4);
    assert_int_equal(p->rules[1].line, LINES + 5);
    conf_policy_free(p);
    agent_doc_deinit(&d);
    buf_reset(&text);
}

/* --- a document that is as large as it may be ---------------------------------------------------
 */
/* n bytes, in pieces of a message. */
static bool add_bytes(struct agent_doc *d, enum agent_document which, enum agent_doc_part_kind kind,
                      uint32_t line, size_t n)
{
    static struct agent_msg_doc_part m;
    bool ok = true;

    agent_ipc_init(&m, AGENT_MSG_DOC_PART, 0);
    memset(m.text, 'x', sizeof(m.text));
    m.document = which;
    do {
        m.kind = kind;
        m.line = line;
        m.text_len = (uint16_t)(n < AGENT_DOC_PART_MAX ? n : AGENT_DOC_PART_MAX);
        ok = agent_doc_add(d, &m);
        n -= m.text_len;
        kind = AGENT_DOC_TEXT;
        line = 0;
    } while (ok && n > 0);
    return ok;
}

/* Head, elements, bytes and lines at their bounds at once. */
static void fill_up(struct agent_doc *d, enum agent_document which)
{
    const size_t each = agent_doc_bytes_max(which) / AGENT_DOC_ITEMS_MAX;
    const size_t rest = agent_doc_bytes_max(which) - each * AGENT_DOC_ITEMS_MAX;

    assert_true(add_bytes(d, which, AGENT_DOC_SOURCE, 0, AGENT_DOC_SOURCE_MAX));
    assert_true(add_bytes(d, which, AGENT_DOC_HEAD, 0, AGENT_DOC_HEAD_MAX));
    for (size_t i = 1; agent_doc_bytes_max(which) > 0 && i <= AGENT_DOC_ITEMS_MAX; i++) {
        bool last = i == AGENT_DOC_ITEMS_MAX;
        assert_true(add_bytes(d, which, AGENT_DOC_ITEM, last ? AGENT_DOC_LINES_MAX : 1,
                              last ? each + rest : each));
    }
}

static void test_written_at_its_bound(void **state)
{
    (void)state;
    for (unsigned i = 0; i < AGENT_N_DOCUMENTS; i++) {
        enum agent_document which = (enum agent_document)i;
        struct buf out = BUF_INIT(agent_doc_written_max(i));
        struct agent_doc d;

        agent_doc_init(&d);
        fill_up(&d, which);
        assert_true(agent_doc_write(&d, which, NULL, 0, &out));
        assert_in_range(buf_len(&out), agent_doc_written_max(i) - AGENT_DOC_FRAME_MAX,
                        agent_doc_written_max(i));
        assert_false(add_bytes(&d, which, AGENT_DOC_TEXT, 0, 1));
        buf_reset(&out);
        agent_doc_deinit(&d);
    }
}

static void test_line_beyond_its_bound(void **state)
{
    struct agent_doc d;

    (void)state;
    agent_doc_init(&d);
    assert_true(add_bytes(&d, AGENT_DOCUMENT_MESH, AGENT_DOC_SOURCE, 0, 1));
    assert_true(add_bytes(&d, AGENT_DOCUMENT_MESH, AGENT_DOC_HEAD, 0, 1));
    assert_false(add_bytes(&d, AGENT_DOCUMENT_MESH, AGENT_DOC_ITEM, AGENT_DOC_LINES_MAX + 1, 1));
    agent_doc_deinit(&d);
}

/* Each bound, and one above it: what whoever makes a document is told. */
static void test_sizes(void **state)
{
    char target[1024];
    const char *targets[AGENT_DOC_TARGETS_MAX / sizeof(target) + 1];
    const struct {
        struct agent_doc_size before;
        size_t bytes, n_targets;
        uint32_t line;
        const char *expected;
    } cases[] = {
        {{.n_items = AGENT_DOC_ITEMS_MAX - 1}, 1, 0, 7, NULL},
        {{.n_items = AGENT_DOC_ITEMS_MAX}, 1, 0, 7, "at most 131072 elements"},
        {{.n_bytes = AGENT_DOC_BYTES_MAX - 9}, 9, 0, 7, NULL},
        {{.n_bytes = AGENT_DOC_BYTES_MAX - 9}, 10, 0, 7, "at most 40 MiB as JSON"},
        {{.which = AGENT_DOCUMENT_MESH, .n_bytes = AGENT_DOC_MESH_MAX - 9}, 9, 0, 7, NULL},
        {{.which = AGENT_DOCUMENT_MESH, .n_bytes = AGENT_DOC_MESH_MAX - 9},
         10,
         0,
         7,
         "at most 8 MiB as JSON"},
        {{.n_items = 1}, 1, 0, AGENT_DOC_LINES_MAX, NULL},
        {{.n_items = 1}, 1, 0, AGENT_DOC_LINES_MAX + 1, "elements that begin on the first 4194304"},
        {{.n_items = 1}, 1, AGENT_DOC_TARGETS_MAX / sizeof(target), 7, NULL},
        {{.n_items = 1},
         1,
         AGENT_DOC_TARGETS_MAX / sizeof(target) + 1,
         7,
         "at most 16 MiB of target principals"},
    };

    (void)state;
    memset(target, 'x', sizeof(target) - 1);
    target[sizeof(target) - 1] = '\0';
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        targets[i] = target;
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct agent_doc_size s = cases[i].before;
        struct err err = ERR_INIT;
        int r = agent_doc_size_item(&s, "/p.yaml", cases[i].line, (struct str){"", cases[i].bytes},
                                    targets, cases[i].n_targets, &err);

        assert_int_equal(r, cases[i].expected != NULL ? -1 : 0);
        if (cases[i].expected != NULL) {
            char where[32];
            (void)snprintf(where, sizeof(where), "/p.yaml:%u", cases[i].line);
            assert_string_equal(err.what, "too large to be told to proxies");
            assert_string_equal(err.where, where);
            assert_non_null(strstr(err.expected, cases[i].expected));
        }
    }
    struct err err = ERR_INIT;
    assert_int_equal(agent_doc_size_head((struct str){"", AGENT_DOC_HEAD_MAX}, &err), 0);
    assert_int_equal(agent_doc_size_head((struct str){"", AGENT_DOC_HEAD_MAX + 1}, &err), -1);
    assert_non_null(strstr(err.expected, "1 MiB as JSON outside of its list"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_bad_file_gives_nothing),
        cmocka_unit_test(test_filter_and_positions),
        cmocka_unit_test(test_filter_agrees_with_the_policy),
        cmocka_unit_test(test_far_apart),
        cmocka_unit_test(test_written_at_its_bound),
        cmocka_unit_test(test_line_beyond_its_bound),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
