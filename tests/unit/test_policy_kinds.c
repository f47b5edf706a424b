/* policy: so many rules of so many kinds that parts have to share a bit; against a second
 * evaluator. */
#include <postern/conf.h>
#include <postern/policy.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_ref.h"

enum { KINDS = 36, A_KIND = 516, RULES = KINDS * A_KIND, TEXT_MAX = 8 << 20 };

/* A bit a fact. Each fourth kind excludes one caller from all of its rules, each ninth denies. */
static size_t write_rule(char *text, size_t size, unsigned i)
{
    unsigned kind = 1 + i % KINDS;
    int n = snprintf(text, size, "- {name: r%u, action: %s, from: [{trust_domains: [a.b]", i,
                     kind % 9 == 0 ? "DENY" : "ALLOW");
    struct {
        unsigned bit;
        const char *text;
    } from[] = {{1, ", namespaces: [n%u]"}, {2, ", service_accounts: [s%u]"}},
      to[] = {{4, ", paths: [/p%u/*]"}, {8, ", methods: [M%u]"}, {16, ", hosts: [h%u]"}};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    for (size_t k = 0; k < sizeof(from) / sizeof(from[0]); k++) {
        n += (kind & from[k].bit) != 0
                 ? snprintf(text + n, size - (size_t)n, from[k].text, i % (97 + kind))
                 : 0;
    }
    n += kind % 4 == 0
             ? snprintf(text + n, size - (size_t)n, ", not_principals: ['spiffe://a.b/ns/out/*']")
             : 0;
    n += snprintf(text + n, size - (size_t)n, "}], to: [{ports: [%u]", 1 + kind % 32);
    for (size_t k = 0; k < sizeof(to) / sizeof(to[0]); k++) {
        n += (kind & to[k].bit) != 0
                 ? snprintf(text + n, size - (size_t)n, to[k].text, i % (97 + kind))
                 : 0;
    }
#pragma GCC diagnostic pop
    n += snprintf(text + n, size - (size_t)n, "%s}]}\n", kind > 31 ? ", not_paths: [/never]" : "");
    return (size_t)n;
}

static struct conf_policy *load(void)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    char *text = test_malloc(TEXT_MAX);
    size_t n = (size_t)snprintf(text, TEXT_MAX, "kind: Policy\nlevel: 2\nrules:\n");

    for (unsigned i = 0; i < RULES; i++) {
        n += write_rule(text + n, TEXT_MAX - n, i);
    }
    assert_true(n < TEXT_MAX);
    if (conf_parse_policy("kinds.yaml", text, n, diag, &conf) != 0) {
        fail_msg("%s", conf_diag_get(diag, 0)->what);
    }
    conf_diag_free(diag);
    test_free(text);
    return conf;
}

struct facts {
    char peer[60], path[40], method[10], host[10];
};

/* What lets this rule hold; `wrong` says which fact does not. */
static struct policy_query question(struct facts *f, unsigned i, unsigned wrong)
{
    unsigned kind = 1 + i % KINDS, own = i % (97 + kind);
    bool out = wrong == 6;

    snprintf(f->peer, sizeof(f->peer), "spiffe://a.b/ns/%s%u/sa/s%u", out ? "out/" : "n",
             own + (wrong == 1), own + (wrong == 2));
    snprintf(f->path, sizeof(f->path), "/p%u/x", own + (wrong == 3));
    snprintf(f->method, sizeof(f->method), "M%u", own + (wrong == 4));
    snprintf(f->host, sizeof(f->host), "h%u", own + (wrong == 5));
    return (struct policy_query){.target = STR_LIT("spiffe://a.b/t"),
                                 .peer = str_of(f->peer),
                                 .port = (uint16_t)(1 + kind % 32),
                                 .http = wrong != 7,
                                 .method = str_of(f->method),
                                 .host = str_of(f->host),
                                 .path = str_of(f->path),
                                 .now_s = 1};
}

static void test_each_kind(void **state)
{
    struct conf_policy *conf = load();
    struct policy *p = policy_new(conf, NULL);
    unsigned outcomes[4] = {0};

    (void)state;
    assert_non_null(p);
    for (unsigned i = 0; i < RULES; i += 97) {
        struct facts f;
        struct policy_query q = question(&f, i, i / 97 % 9);
        struct policy_verdict v = {0}, ref = {0};

        policy_decide(p, &q, &v);
        policy_ref_decide(conf, &q, &ref);
        if (v.allow != ref.allow || v.rule_line != ref.rule_line) {
            fail_msg("question %u: line %u, reference %u", i, v.rule_line, ref.rule_line);
        }
        outcomes[v.reason]++;
    }
    assert_true(outcomes[POLICY_ALLOWED] > 20 && outcomes[POLICY_DENIED_BY_RULE] > 5 &&
                outcomes[POLICY_NO_RULE] > 20);
    policy_free(p);
    conf_policy_free(conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
