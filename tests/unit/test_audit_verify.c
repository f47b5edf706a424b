/* Whether an audit log is whole: each way in which one is not. docs/audit.md. */
#include <postern/audit_verify.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "audit_priv.h"

enum { N = 8, LINE = 600 };

struct log_lines {
    char text[N][LINE];
    size_t len[N];
};

static char space[AUDIT_LINE_MAX];

static void make(struct log_lines *l, bool chain)
{
    struct audit_chain c;
    const struct audit_begin begin = {.why = "start", .name = "n", .role = "proxy"};
    const struct audit_decision d = {.decision = STR_LIT("x"), .reason = STR_LIT("no_rule")};
    const struct audit_lost lost = {.worker = 1, .count = 5, .first = 2};
    assert_int_equal(audit_chain_init(&c, chain, NULL), 0);
    for (size_t i = 0; i < N; i++) {
        size_t n = i == 0   ? audit_line_begin(&c, &begin, space)
                   : i == 5 ? audit_line_lost(&c, &lost, space)
                            : audit_line_decision(&c, &d, space);
        assert_true(n < LINE);
        memcpy(l->text[i], space, n - 1);
        l->len[i] = n - 1;
    }
    audit_chain_deinit(&c);
}

/* The number of the first line that does not fit, from 1; 0: all do. */
static size_t verify(struct audit_verify *v, const struct log_lines *l, const size_t *order,
                     size_t n)
{
    *v = (struct audit_verify)AUDIT_VERIFY_INIT;
    size_t bad = 0;
    for (size_t i = 0; bad == 0 && i < n; i++) {
        const struct str line = {l->text[order[i]], l->len[order[i]]};
        bad = audit_verify_line(v, line, true) != NULL ? i + 1 : 0;
    }
    audit_verify_deinit(v);
    return bad;
}

static void test_what_does_not_fit(void **state)
{
    static const size_t whole[N] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const struct {
        size_t order[N + 1], n, bad;
    } rows[] = {
        {{0, 1, 2, 4, 5, 6, 7}, 7, 4},       /* one left out */
        {{0, 1, 2, 4, 3, 5, 6, 7}, 8, 4},    /* another order */
        {{0, 1, 2, 2, 3, 4, 5, 6, 7}, 9, 4}, /* one twice */
        {{1, 2, 3}, 3, 1},                   /* no beginning */
        {{0, 7}, 2, 2},                      /* a file between is missing */
    };
    struct log_lines l;
    struct audit_verify v;
    (void)state;
    make(&l, true);
    assert_int_equal(verify(&v, &l, whole, N), 0);
    assert_int_equal(v.lines, N);
    assert_int_equal(v.decisions, 6);
    assert_int_equal(v.denied, 6);
    assert_int_equal(v.lost, 5);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(verify(&v, &l, rows[i].order, rows[i].n), rows[i].bad);
    }
    /* Any byte of any line but the last one: that line is none any more, or the next does not name
     * it. */
    for (size_t i = 0; i + 1 < N; i++) {
        for (size_t k = 0; k < l.len[i]; k++) {
            l.text[i][k] ^= 1;
            size_t bad = verify(&v, &l, whole, N);
            assert_true(bad == i + 1 || bad == i + 2);
            l.text[i][k] ^= 1;
        }
    }
    /* Without a chain holes show, changes do not. */
    make(&l, false);
    assert_int_equal(verify(&v, &l, whole, N), 0);
    assert_false(v.chained);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(verify(&v, &l, rows[i].order, rows[i].n), rows[i].bad);
    }
}

/* One who can write the file cuts its end off, and nothing in it tells. */
static void test_head(void **state)
{
    struct log_lines l;
    struct audit_verify v = AUDIT_VERIFY_INIT, w = AUDIT_VERIFY_INIT;
    (void)state;
    make(&l, true);
    for (size_t i = 0; i < N; i++) {
        assert_null(audit_verify_line(&v, (struct str){l.text[i], l.len[i]}, true));
    }
    w.want_seq = v.seq;
    memcpy(w.want, v.head, sizeof(w.want));
    for (size_t i = 0; i + 1 < N; i++) {
        assert_null(audit_verify_line(&w, (struct str){l.text[i], l.len[i]}, true));
    }
    assert_non_null(audit_verify_end(&w));
    assert_null(audit_verify_line(&w, (struct str){l.text[N - 1], l.len[N - 1]}, true));
    assert_null(audit_verify_end(&w));
    audit_verify_deinit(&v);
    audit_verify_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
