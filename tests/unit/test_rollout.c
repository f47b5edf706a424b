/* rollout: which pushed policy holds for whom. docs/policy-rollout.md. */
#include <postern/rollout.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- stages ----------------------------------------------------------------------------------- */
static void test_no_stage(void **state)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "to=",
                                      "to=x",
                                      "to=spiffe://t/a ",
                                      " to=spiffe://t/a",
                                      "to=spiffe://t/a  percent=1",
                                      "to=spiffe://t/\ta",
                                      "to=spiffe://t/\x1b[2J",
                                      "label=a",
                                      "label==b",
                                      "label=a=",
                                      "label=a=b=c",
                                      "label=a=\"b\"",
                                      "percent=0",
                                      "percent=101",
                                      "percent=-1",
                                      "percent=1 percent=2",
                                      "all",
                                      "To=*"};
    struct rollout_stage *s = NULL;
    char many[400] = "to=*";

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(rollout_stage_parse(str_of(bad[i]), &s, NULL), -1);
    }
    assert_int_equal(rollout_stage_parse((struct str){"to=*\0a", 6}, &s, NULL), -1);
    for (size_t i = 0; i < ROLLOUT_TERMS_MAX; i++) {
        strcat(many, " to=*");
    }
    assert_int_equal(rollout_stage_parse(str_of(many), &s, NULL), -1);
    assert_null(s);
}

static void test_whom_a_stage_means(void **state)
{
    static const struct {
        const char *stage, *id, *label;
        bool means;
    } cases[] = {
        {"to=spiffe://t/a", "spiffe://t/ab", "ring=1", false},
        {"to=spiffe://t/a", "spiffe://t/a", "", true},
        {"to=spiffe://t/*", "spiffe://tt/a", "", false},
        {"to=spiffe://t/ns/*/sa/web", "spiffe://t/ns/x/sa/web", "", true},
        {"to=spiffe://t/ns/*/sa/web", "spiffe://t/ns/x/y/sa/web", "", false},
        {"to=spiffe://t/b to=*/a", "spiffe://t/a", "", true},
        {"label=ring=1", "spiffe://t/a", "ring=11", false},
        {"label=ring=1", "spiffe://t/a", "Ring=1", false},
        {"label=ring=1", "spiffe://t/a", "", false},
        {"label=ring=1", "spiffe://t/a", "ring=1", true},
        {"label=ring=1 label=zone=2", "spiffe://t/a", "ring=1", false},
        {"to=spiffe://t/b label=ring=1", "spiffe://t/a", "ring=1", false},
        {"to=spiffe://t/a label=ring=1", "spiffe://t/a", "ring=1", true},
        {"percent=100", "spiffe://t/a", "", true},
        {"to=spiffe://t/b percent=100", "spiffe://t/a", "", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rollout_stage *s = NULL;
        struct str id = str_of(cases[i].id), label = str_of(cases[i].label);
        const struct rollout_proxy p = {
            .ids = &id, .n_ids = 1, .labels = &label, .n_labels = label.n > 0};

        assert_int_equal(rollout_stage_parse(str_of(cases[i].stage), &s, NULL), 0);
        if (rollout_stage_means(s, &p) != cases[i].means) {
            fail_msg("%s and %s", cases[i].stage, cases[i].id);
        }
        rollout_stage_free(s);
    }
}

/* About that many of them, always the same, and all of these at more. */
static void test_percent(void **state)
{
    struct rollout_stage *few = NULL, *more = NULL;
    unsigned n_few = 0, n_more = 0;

    (void)state;
    assert_int_equal(rollout_stage_parse(STR_LIT("percent=10"), &few, NULL), 0);
    assert_int_equal(rollout_stage_parse(STR_LIT("percent=30"), &more, NULL), 0);
    for (unsigned i = 0; i < 10000; i++) {
        char name[16];
        struct str id = STR_LIT("spiffe://t/a");
        struct rollout_proxy p = {.ids = &id, .n_ids = 1};

        snprintf(name, sizeof(name), "p-%u", i);
        p.name = str_of(name);
        bool in_few = rollout_stage_means(few, &p), in_more = rollout_stage_means(more, &p);
        assert_true(!in_few || in_more);
        n_few += in_few;
        n_more += in_more;
    }
    assert_in_range(n_few, 850, 1150);
    assert_in_range(n_more, 2700, 3300);
    rollout_stage_free(few);
    rollout_stage_free(more);
}

/* --- the set ---------------------------------------------------------------------------------- */
static const struct rollout_item ITEM = {
    .pushed_s = 1700000000,
    .n_rules = 3,
    .sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    .source = "/etc/postern/p.yaml",
    .by = "root",
    .comment = "a \"quoted\" one"};

static uint64_t push(struct rollout *r)
{
    uint64_t gone;
    uint64_t n = rollout_add(r, &ITEM, &gone);

    rollout_put_in_force(r, n, false);
    return n;
}

static void expect_before(const struct rollout *r, uint64_t want)
{
    uint64_t got = 99;

    assert_int_equal(rollout_before(r, &got, NULL), 0);
    assert_int_equal(got, want);
}

static void test_rollback(void **state)
{
    struct rollout r = {.n = 0};
    uint64_t got, gone;

    (void)state;
    assert_int_equal(rollout_before(&r, &got, NULL), -1); /* nothing but the file */
    assert_int_equal(push(&r), 1);
    expect_before(&r, 0);
    assert_int_equal(push(&r), 2);
    expect_before(&r, 1);
    assert_int_equal(rollout_add(&r, &ITEM, &gone), 3);
    rollout_put_staged(&r, 3, "percent=10");
    expect_before(&r, 2); /* the stage ends, and nothing else happens */
    rollout_put_in_force(&r, 2, true);
    assert_int_equal(r.staged, 0);
    assert_int_equal(r.stage[0], 0);
    expect_before(&r, 1); /* and again: one further back */
    rollout_put_in_force(&r, 1, true);
    expect_before(&r, 0);
    rollout_put_in_force(&r, 0, true);
    assert_int_equal(rollout_before(&r, &got, NULL), -1);
    rollout_put_in_force(&r, 3, false); /* by number */
    expect_before(&r, 0);
    assert_int_equal(push(&r), 4); /* no number twice */
    expect_before(&r, 3);
}

/* What is in force, was before it, or is staged is never among those that go. */
static void test_bounded(void **state)
{
    struct rollout r = {.n = 0};
    uint64_t gone, first = push(&r), second = push(&r);

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        uint64_t n = rollout_add(&r, &ITEM, &gone);
        rollout_put_staged(&r, n, "percent=1");
        assert_true(r.n <= ROLLOUT_KEPT);
        assert_true(gone != first && gone != second && gone != n);
        assert_true(gone == 0 || rollout_find(&r, gone) == NULL);
        assert_true(rollout_find(&r, first) != NULL && rollout_find(&r, second) != NULL);
    }
    expect_before(&r, second);
}

/* --- its file --------------------------------------------------------------------------------- */
static void print(const struct rollout *r, struct buf *out)
{
    *out = (struct buf)BUF_INIT(ROLLOUT_FILE_MAX);
    assert_true(rollout_print(r, out));
}

static void test_file(void **state)
{
    struct rollout r = {.n = 0}, again;
    struct buf one, two;
    uint64_t gone;

    (void)state;
    (void)push(&r);
    (void)rollout_add(&r, &ITEM, &gone);
    rollout_put_staged(&r, 2, "to=spiffe://t/a percent=10");
    print(&r, &one);
    assert_int_equal(rollout_parse(buf_str(&one), &again, NULL), 0);
    print(&again, &two);
    assert_true(str_eq(buf_str(&one), buf_str(&two)));
    assert_int_equal(again.staged, 2);
    assert_string_equal(again.items[0].comment, ITEM.comment);
    for (size_t n = 0; n < buf_len(&one); n++) { /* cut anywhere it is none */
        assert_int_equal(rollout_parse((struct str){buf_str(&one).p, n}, &again, NULL), -1);
    }
    buf_reset(&one);
    buf_reset(&two);
}

static void test_damaged_files(void **state)
{
    static const char ITEM_TEXT[] =
        "{\"generation\":1,\"replaced\":0,\"pushed\":1,\"rules\":1,\"sha256\":"
        "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\","
        "\"source\":\"/f\",\"by\":\"x\",\"comment\":\"\"}\n";
    static const struct {
        const char *head, *end;
        int n, want;
    } cases[] = {
        {"{\"rollout\":1,\"last\":1,\"in_force\":1,\"staged\":0,\"stage\":\"\"}", "1", 1, 0},
        {"{\"rollout\":2,\"last\":1,\"in_force\":1,\"staged\":0,\"stage\":\"\"}", "1", 1, -1},
        {"{\"rollout\":1,\"last\":0,\"in_force\":1,\"staged\":0,\"stage\":\"\"}", "1", 1, -1},
        {"{\"rollout\":1,\"last\":2,\"in_force\":2,\"staged\":0,\"stage\":\"\"}", "1", 1, -1},
        {"{\"rollout\":1,\"last\":1,\"in_force\":1,\"staged\":1,\"stage\":\"to=*\"}", "1", 1, -1},
        {"{\"rollout\":1,\"last\":1,\"in_force\":0,\"staged\":1,\"stage\":\"to=*\"}", "1", 1, 0},
        {"{\"rollout\":1,\"last\":1,\"in_force\":0,\"staged\":1,\"stage\":\"\"}", "1", 1, -1},
        {"{\"rollout\":1,\"last\":1,\"in_force\":0,\"staged\":1,\"stage\":\"all\"}", "1", 1, -1},
        {"{\"rollout\":1,\"last\":1,\"in_force\":1,\"staged\":0,\"stage\":\"\"}", "2", 1, -1},
        {"{\"rollout\":1,\"last\":1,\"in_force\":1,\"staged\":0,\"stage\":\"\"}", "2", 2, -1},
        {"{\"rollout\":1,\"last\":1,\"in_force\":0,\"staged\":0,\"stage\":\"\"}", "0", 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf text = BUF_INIT(65536);
        struct rollout r;

        assert_true(buf_printf(&text, "%s\n", cases[i].head));
        for (int k = 0; k < cases[i].n; k++) {
            assert_true(buf_printf(&text, "%s", ITEM_TEXT));
        }
        assert_true(buf_printf(&text, "{\"end\":%s}\n", cases[i].end));
        if (rollout_parse(buf_str(&text), &r, NULL) != cases[i].want) {
            fail_msg("case %zu", i);
        }
        assert_true(buf_append(&text, "x", 1));
        assert_int_equal(rollout_parse(buf_str(&text), &r, NULL), -1);
        buf_reset(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_stage),      cmocka_unit_test(test_whom_a_stage_means),
        cmocka_unit_test(test_percent),       cmocka_unit_test(test_rollback),
        cmocka_unit_test(test_bounded),       cmocka_unit_test(test_file),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
