/* policy: a file of 100,000 rules, from its text to decisions; and what is too large. */
#include <postern/conf.h>
#include <postern/policy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RULES = 100000, TEXT_MAX = 24 << 20 };

/* Every tenth denies what the one before it allows to others. */
static char *make_text(size_t *ret_len)
{
    char *text = test_malloc(TEXT_MAX);
    size_t n = (size_t)snprintf(text, TEXT_MAX, "kind: Policy\nlevel: 1\nrules:\n");

    for (unsigned i = 0; i < RULES; i++) {
        n += (size_t)snprintf(
            text + n, TEXT_MAX - n,
            "- {name: r%u, action: %s, target: {principals: ['spiffe://a.b/to-%u']}, "
            "from: [{principals: ['spiffe://a.b/from-%u']}], "
            "to: [{ports: [%u], methods: [GET], paths: ['/%u/*']}]}\n",
            i, i % 10 == 9 ? "DENY" : "ALLOW", i % 5000, i, 1 + i % 100, i % 7);
    }
    assert_true(n < TEXT_MAX);
    *ret_len = n;
    return text;
}

static struct policy *load(void)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    size_t len;
    char *text = make_text(&len);

    assert_int_equal(conf_parse_policy("large.yaml", text, len, diag, &conf), 0);
    assert_int_equal(conf->n_rules, RULES);
    assert_int_equal(conf->rules[RULES - 1].line, RULES + 3);
    struct policy *p = policy_new(conf, NULL);
    assert_non_null(p);
    conf_policy_free(conf);
    conf_diag_free(diag);
    test_free(text);
    return p;
}

static void ask(const struct policy *p, unsigned i, unsigned caller, const char *path,
                struct policy_verdict *ret)
{
    char target[40], peer[40];
    struct policy_query q = {.port = (uint16_t)(1 + i % 100), .http = true};

    snprintf(target, sizeof(target), "spiffe://a.b/to-%u", i % 5000);
    snprintf(peer, sizeof(peer), "spiffe://a.b/from-%u", caller);
    q.target = str_of(target);
    q.peer = str_of(peer);
    q.method = STR_LIT("GET");
    q.path = str_of(path);
    policy_decide(p, &q, ret);
}

static void test_decides(void **state)
{
    (void)state;
    struct policy *p = load();
    struct policy_verdict v;
    char name[16], path[16];

    for (unsigned i = 0; i < RULES; i += 997) {
        snprintf(name, sizeof(name), "r%u", i);
        snprintf(path, sizeof(path), "/%u/x", i % 7);
        ask(p, i, i, path, &v);
        assert_int_equal(v.allow, i % 10 != 9);
        assert_string_equal(v.rule, name);
        ask(p, i, i, "/8/x", &v);
        assert_false(v.allow);
        ask(p, i, i + 1, path, &v);
        assert_false(v.allow);
    }
    policy_free(p);
}

/* --- too large -------------------------------------------------------------------------------- */
static void refuse(char *text, size_t len, const char *part)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;

    assert_int_equal(conf_parse_policy("large.yaml", text, len, diag, &conf), -1);
    assert_null(conf);
    assert_non_null(strstr(conf_diag_get(diag, 0)->what, part));
    conf_diag_free(diag);
}

static void test_bounds(void **state)
{
    enum { VALUES = 4100000 };
    static const char head[] = "kind: Policy\nlevel: 1\nrules: [";
    size_t n = CONF_POLICY_FILE_MAX + 1;
    char *text = calloc(1, n + 1);

    (void)state;
    assert_non_null(text);
    memset(text, '\n', n);
    refuse(text, n, "larger than");
    memcpy(text, head, sizeof(head) - 1);
    for (size_t i = 0; i < VALUES; i++) {
        memcpy(text + sizeof(head) - 1 + 2 * i, "1,", 2);
    }
    refuse(text, sizeof(head) - 1 + 2 * VALUES, "more than 4000000 values");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
