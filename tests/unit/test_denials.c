/*
 * denials: a worker's last denials, read while it goes on: what is too long, what is gone, what is
 * just being written. Under the thread sanitizer too.
 */
#include <postern/denials.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char long_text[4096];

static struct denial some(const char *id)
{
    return (struct denial){.ts_ms = 1,
                           .port = 8080,
                           .request = true,
                           .query_known = true,
                           .headers_known = true,
                           .decision = str_of(id),
                           .peer_id = STR_LIT("spiffe://a.b/x"),
                           .method = STR_LIT("GET"),
                           .path = STR_LIT("/p"),
                           .query = STR_LIT("a=1")};
}

static void assert_str(struct str s, const char *text)
{
    assert_true(str_eq(s, str_of(text)));
}

static void test_none(void **state)
{
    (void)state;
    struct denial_copy copy;
    struct denial x = some("1");
    mem_auto(denials_free) struct denials *none = denials_new(0);
    assert_false(denials_wanted(none));
    assert_false(denials_wanted(NULL));
    denials_put(none, &x);
    assert_int_equal(denials_count(none), 0);
    assert_false(denials_read(none, 0, &copy));
    mem_auto(denials_free) struct denials *d = denials_new(4);
    assert_true(denials_wanted(d));
    assert_false(denials_read(d, 0, &copy));
    denials_put(d, &x);
    assert_false(denials_read(d, 1, &copy));
    assert_true(denials_read(d, 0, &copy));
}

/* What does not fit is cut where that can be said, and left out where it would be something else.
 */
static void test_too_long(void **state)
{
    (void)state;
    struct denial_copy copy;
    mem_auto(denials_free) struct denials *d = denials_new(4);
    const struct denial_field fields[] = {
        {.name = STR_LIT("x-small"), .value = STR_LIT("v")},
        {.name = STR_LIT("x-long"), .value = {long_text, sizeof(long_text)}},
        {.name = STR_LIT("x-last"), .value = STR_LIT("w")}};
    struct denial x = some("1");
    x.fields = fields;
    x.n_fields = 3;
    denials_put(d, &x);
    assert_true(denials_read(d, 0, &copy));
    assert_true(copy.denial.fields_cut);
    assert_false(copy.denial.path_cut);
    assert_int_equal(copy.denial.n_fields, 1);
    assert_str(copy.denial.fields[0].name, "x-small");
    assert_str(copy.denial.fields[0].value, "v");
    x.path = (struct str){long_text, sizeof(long_text)};
    denials_put(d, &x);
    assert_true(denials_read(d, 0, &copy));
    assert_true(copy.denial.path_cut);
    assert_true(copy.denial.path.n > 500 && copy.denial.path.n < DENIALS_SLOT);
    assert_false(copy.denial.query_known);
    assert_int_equal(copy.denial.query.n, 0);
    x.path = STR_LIT("/p");
    x.query = (struct str){long_text, sizeof(long_text)};
    denials_put(d, &x);
    assert_true(denials_read(d, 0, &copy));
    assert_str(copy.denial.path, "/p");
    assert_false(copy.denial.query_known);
    struct denial_field many[DENIALS_FIELDS_MAX + 1];
    for (size_t i = 0; i < DENIALS_FIELDS_MAX + 1; i++) {
        many[i] = (struct denial_field){.name = STR_LIT("n"), .value = STR_LIT("v")};
    }
    x = some("2");
    x.fields = many;
    x.n_fields = DENIALS_FIELDS_MAX + 1;
    denials_put(d, &x);
    assert_true(denials_read(d, 0, &copy));
    assert_true(copy.denial.fields_cut);
    assert_int_equal(copy.denial.n_fields, DENIALS_FIELDS_MAX);
}

static void test_last_ones(void **state)
{
    (void)state;
    struct denial_copy copy;
    mem_auto(denials_free) struct denials *d = denials_new(3);
    for (unsigned i = 0; i < 8; i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "%u", i);
        const struct denial_field field = {.kind = DENIAL_CLAIM,
                                           .name = STR_LIT("sub"),
                                           .value = str_of(id),
                                           .withheld = i % 2 == 1};
        struct denial x = some(id);
        x.fields = &field;
        x.n_fields = 1;
        denials_put(d, &x);
    }
    assert_int_equal(denials_count(d), 3);
    for (unsigned back = 0; back < 3; back++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "%u", 7 - back);
        assert_true(denials_read(d, back, &copy));
        assert_str(copy.denial.decision, id);
        assert_str(copy.denial.peer_id, "spiffe://a.b/x");
        assert_str(copy.denial.query, "a=1");
        assert_int_equal(copy.denial.n_fields, 1);
        assert_int_equal(copy.fields[0].kind, DENIAL_CLAIM);
        assert_int_equal(copy.fields[0].withheld, (7 - back) % 2);
        assert_str(copy.fields[0].value, (7 - back) % 2 == 1 ? "" : id);
    }
    assert_false(denials_read(d, 3, &copy));
}

/* --- while it is written ---------------------------------------------------------------------- */

struct writing {
    struct denials *d;
    _Atomic bool stop;
};

/* Each is of one byte all through. */
static void *write_on(void *arg)
{
    struct writing *w = (struct writing *)arg;
    static char text[600];
    for (unsigned i = 0; !atomic_load(&w->stop); i++) {
        size_t n = 50 + i * 37 % 500;
        memset(text, 'a' + (int)(i % 26), sizeof(text));
        struct denial x = some("1");
        x.path = (struct str){text, n};
        x.host = (struct str){text, n / 3};
        x.port = (uint16_t)n;
        denials_put(w->d, &x);
    }
    return NULL;
}

static void test_read_while_written(void **state)
{
    (void)state;
    mem_auto(denials_free) struct denials *d = denials_new(2);
    struct writing w = {.d = d};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
    struct denial_copy copy;
    for (unsigned seen = 0, tries = 0; seen < 200 && tries < 10000000; tries++) {
        if (!denials_read(d, tries % 2, &copy)) {
            continue;
        }
        struct str p = copy.denial.path;
        assert_int_equal(p.n, copy.denial.port);
        assert_int_equal(copy.denial.host.n, p.n / 3);
        for (size_t i = 0; i < p.n; i++) {
            assert_int_equal(p.p[i], p.p[0]);
        }
        assert_int_equal(copy.denial.host.p[0], p.p[0]);
        seen++;
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
}

int main(void)
{
    memset(long_text, 'l', sizeof(long_text));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_last_ones),
        cmocka_unit_test(test_read_while_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
