/* policy: more than a question holds, or a request may say, helps nobody. */
#include <postern/policy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_ref.h"
#include "policy_rows.h"

#define ALLOW .action = CONF_ALLOW
#define DENY .action = CONF_DENY

static struct policy *policy_of(const struct row *rows, size_t n)
{
    struct conf_policy *conf = policy_rows_conf(rows, n);
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    policy_rows_free(conf);
    return p;
}

/* --- more sets at once than a question has room for --------------------------------------------*/

enum { NESTED = 46 };

struct texts {
    char name[2 * NESTED][8];
    char target[NESTED][80], peer[NESTED][80], host[NESTED][64], path[NESTED][64];
};

static void fill(char *text, const char *begin, char c, size_t n)
{
    size_t len = strlen(begin);
    memcpy(text, begin, len);
    memset(text + len, c, n);
    memcpy(text + len + n, "*", 2);
}

static void fill_texts(struct texts *t)
{
    for (size_t i = 0; i < NESTED; i++) {
        fill(t->target[i], "spiffe://a.b/", 't', i + 1);
        fill(t->peer[i], "spiffe://a.b/", 'p', i + 1);
        fill(t->host[i], "", 'h', i + 1);
        fill(t->path[i], "/", 'x', i + 1);
    }
    for (size_t i = 0; i < 2 * (size_t)NESTED; i++) {
        snprintf(t->name[i], sizeof(t->name[i]), "r%zu", i);
    }
}

static void test_more_sets_than_room(void **state)
{
    (void)state;
    struct texts *t = policy_rows_must(calloc(1, sizeof(*t)));
    struct row *rows = policy_rows_must(calloc(2 * (size_t)NESTED, sizeof(*rows)));
    fill_texts(t);
    /* First those that exclude: whoever leaves one of their sets out finds one of these. */
    for (size_t i = 0; i < NESTED; i++) {
        rows[i] = (struct row){.name = t->name[i],
                               ALLOW,
                               .from = true,
                               .to = true,
                               .not_principals = {t->peer[i]},
                               .not_hosts = {t->host[i]},
                               .not_paths = {t->path[i]}};
        rows[NESTED + i] = (struct row){.name = t->name[NESTED + i],
                                        ALLOW,
                                        .from = true,
                                        .to = true,
                                        .target = {t->target[i]},
                                        .principals = {t->peer[i]},
                                        .hosts = {t->host[i]},
                                        .paths = {t->path[i]}};
    }
    struct conf_policy *conf = policy_rows_conf(rows, 2 * (size_t)NESTED);
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    for (size_t n = 1; n <= NESTED; n++) {
        struct question question = {.method = "GET",
                                    .target = t->target[n - 1],
                                    .peer = t->peer[NESTED - 1],
                                    .host = t->host[NESTED - 1],
                                    .path = t->path[NESTED - 1]};
        struct sockaddr_storage source;
        struct policy_query q = policy_rows_query(&question, &source);
        struct policy_verdict v = {0}, ref = {0};
        policy_decide(p, &q, &v);
        policy_ref_decide(conf, &q, &ref);
        policy_rows_same_verdict(&v, &ref);
        assert_string_equal(v.rule, "r46");
    }
    policy_free(p);
    policy_rows_free(conf);
    free(rows);
    free(t);
}

/* --- more than a request may say ---------------------------------------------------------------*/

static bool matches(const struct row *row, const struct policy_query *q)
{
    struct row rows[2] = {*row, {.name = "all", ALLOW}};
    struct policy *p = policy_of(rows, row->action == CONF_DENY ? 2 : 1);
    struct policy_verdict v = {0};
    policy_decide(p, q, &v);
    bool found = v.rule != NULL && strcmp(v.rule, "row") == 0;
    policy_free(p);
    return found;
}

#define HEADER_A .headers = {{.name = "a", .values = {"*"}}}
#define QUERY_A .query = {{.name = "a", .values = {"*"}}}

static void test_too_many_headers(void **state)
{
    (void)state;
    enum { MANY = 65 };
    static const struct row allow = {.name = "row", ALLOW, .to = true, HEADER_A};
    static const struct row deny = {.name = "row", DENY, .to = true, HEADER_A};
    static const struct row allow_not = {
        .name = "row", ALLOW, .to = true, .not_headers = {{.name = "a", .values = {"x"}}}};
    struct policy_header items[MANY];
    for (size_t i = 0; i < MANY; i++) {
        items[i] = (struct policy_header){STR_LIT("a"), STR_LIT("1")};
    }
    struct policy_headers headers = {MANY - 1, items};
    struct policy_query q = {.http = true, .headers = &headers};
    assert_true(matches(&allow, &q));
    assert_true(matches(&allow_not, &q));
    assert_true(matches(&deny, &q));
    headers.n = MANY;
    assert_false(matches(&allow, &q));
    assert_false(matches(&allow_not, &q));
    assert_true(matches(&deny, &q));
    for (size_t i = 0; i < MANY; i++) {
        items[i].name = STR_LIT("b"); /* no rule speaks of these */
    }
    items[3].name = STR_LIT("a");
    assert_true(matches(&allow, &q));
}

static void test_long_query(void **state)
{
    (void)state;
    enum { LONG = 5000 };
    static const struct row allow = {.name = "row", ALLOW, .to = true, QUERY_A};
    static const struct row deny = {
        .name = "row", DENY, .to = true, .query = {{.name = "a", .values = {"x"}}}};
    char text[4 * LONG + 16] = "";
    memcpy(text, "a=", 2);
    memset(text + 2, '1', LONG);
    struct policy_query q = {.http = true, .query = str_of(text)};
    assert_false(matches(&allow, &q));
    assert_true(matches(&deny, &q));
    /* many parameters, each of them short */
    size_t n = 0;
    while (n < LONG) {
        memcpy(text + n, "b=12&", 5);
        n += 5;
    }
    memcpy(text + n, "a=1", 4);
    q.query = str_of(text);
    assert_true(matches(&allow, &q));
    assert_false(matches(&deny, &q));
}

/* --- more than a file may say ------------------------------------------------------------------*/

static void test_shapes(void **state)
{
    (void)state;
    enum { SHAPES = 64 };
    struct row *rows = policy_rows_must(calloc(SHAPES + 1, sizeof(*rows)));
    char(*paths)[200] = policy_rows_must(calloc(SHAPES + 1, sizeof(*paths)));
    char(*names)[8] = policy_rows_must(calloc(SHAPES + 1, sizeof(*names)));
    for (size_t i = 0; i <= SHAPES; i++) {
        for (size_t k = 0; k < 7; k++) {
            strcat(paths[i], (i >> k & 1U) != 0 ? "/{}" : "/a");
        }
        strcat(paths[i], "/{}");
        snprintf(names[i], sizeof(names[i]), "r%zu", i);
        rows[i] = (struct row){.name = names[i], ALLOW, .to = true, .paths = {paths[i]}};
    }
    for (size_t n = SHAPES; n <= SHAPES + 1; n++) {
        struct conf_policy *conf = policy_rows_conf(rows, n);
        struct err err = ERR_INIT;
        struct policy *p = policy_new(conf, &err);
        assert_int_equal(p != NULL, n == SHAPES);
        assert_true(p != NULL || err.code == ERR_LIMIT);
        policy_free(p);
        policy_rows_free(conf);
    }
    free(rows);
    free(paths);
    free(names);
}

static void test_bad_shapes(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {.name = "r", ALLOW, .to = true, .paths = {"/a/{**}/b/{}"}},
        {.name = "r", ALLOW, .to = true, .paths = {"/{**}/{**}"}},
        {.name = "r", ALLOW, .to = true, .paths = {"/{}/a%2Fb"}},
        {.name = "r", ALLOW, .to = true, .paths = {"/{}/a%4"}},
        {.name = "r", ALLOW, .to = true, .paths = {"/{}/x*"}},
        {.name = "r", ALLOW, .to = true, .paths = {"/{}/x{}"}},
        {.name = "r", ALLOW, .to = true, .paths = {"a/{}"}},
        {.name = "r", ALLOW, .from = true, .principals = {"spiffe://*/x/**"}},
        {.name = "r", ALLOW, .from = true, .principals = {"spiffe://a.b/**/x"}},
        {.name = "r", ALLOW, .from = true, .principals = {"spiffe://a.b/*/x*"}},
        {.name = "r", ALLOW, .from = true, .principals = {"dns:a/*/b"}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct conf_policy *conf = policy_rows_conf(&rows[i], 1);
        struct err err = ERR_INIT;
        if (policy_new(conf, &err) != NULL) {
            fail_msg("case %zu compiles", i);
        }
        assert_non_null(strstr(err.what, "no pattern"));
        policy_rows_free(conf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_sets_than_room), cmocka_unit_test(test_too_many_headers),
        cmocka_unit_test(test_long_query),          cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_bad_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
