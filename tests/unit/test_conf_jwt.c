/* What Proxy and Gateway files say of tokens in requests: bad cases first. */
#include <postern/conf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LISTENER                                                                                   \
    "listeners:\n  - name: in\n    direction: inbound\n    capture: explicit\n"                    \
    "    address: 0.0.0.0:1\n    to: 127.0.0.1:2\n"
#define HEAD "kind: Proxy\nlevel: 1\nidentity: {socket: \"unix:/s\"}\n" LISTENER
#define GATEWAY                                                                                    \
    "kind: Gateway\nlevel: 1\ncredentials: [{name: c, cert: c.pem, key: k.pem}]\n"                 \
    "trust: [{name: t, ca: ca.pem}]\nlisteners:\n"                                                 \
    "  - {name: in, type: server, address: \"127.0.0.1:1\", to: \"127.0.0.1:2\",\n"                \
    "     credentials: [c], trust: t, allow: {dns: [a.b]}}\n"

static int parse(const char *text, bool gateway, struct conf_proxy **ret, char *said, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    int rc = gateway ? conf_parse_gateway("/etc/f.yaml", text, strlen(text), diag, ret)
                     : conf_parse_proxy("/etc/f.yaml", text, strlen(text), diag, ret);
    said[0] = '\0';
    if (conf_diag_count(diag) > 0) {
        err_text(conf_diag_get(diag, 0), said, size);
    }
    conf_diag_free(diag);
    return rc;
}

#define ENTRY(text) HEAD "jwt:\n  - {audiences: [a], " text "}\n"

static void test_bad(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {ENTRY("issuer: i"), "where the keys of these tokens come from is not said"},
        {ENTRY("issuer: i, bundle: false"), "where the keys of these tokens come from is not said"},
        {ENTRY("trust_domain: a.org"), "where the keys of these tokens come from is not said"},
        {ENTRY("trust_domain: a.org, bundle: true, jwks_file: k"), "is said twice"},
        {ENTRY("issuer: i, bundle: true"), "and of no issuer"},
        {ENTRY("bundle: true"), "whose tokens these are is not said"},
        {ENTRY("issuer: i, trust_domain: a.org, bundle: true"), "is said twice"},
        {ENTRY("trust_domain: a.org, bundle: yes"), "true or false"},
        {ENTRY("trust_domain: a.org, bundle: true}\n  - {audiences: [b], trust_domain: a.org, "
               "jwks_file: k"),
         "trust domain"},
        {HEAD "jwt: [{trust_domain: a.org, bundle: true}]\n", "missing key 'audiences'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conf_proxy *p = NULL;
        char said[1200];
        if (parse(cases[i].text, false, &p, said, sizeof(said)) != -1 ||
            strstr(said, cases[i].says) == NULL) {
            fail_msg("%s: \"%s\", not \"%s\"", cases[i].text, said, cases[i].says);
        }
    }
}

/* A gateway without an agent can be told nothing. */
static void test_no_agent(void **state)
{
    struct conf_proxy *p = NULL;
    char said[1200];
    (void)state;
    assert_int_equal(parse(GATEWAY "jwt: [{audiences: [a], trust_domain: a.org, bundle: true}]\n",
                           true, &p, said, sizeof(said)),
                     -1);
    if (strstr(said, "in a file that has no agent") == NULL) {
        fail_msg("%s", said);
    }
    if (parse(GATEWAY "jwt: [{audiences: [a], trust_domain: a.org, jwks_file: k}]\n", true, &p,
              said, sizeof(said)) != 0) {
        fail_msg("%s", said);
    }
    conf_proxy_free(p);
}

static void test_good(void **state)
{
    struct conf_proxy *p = NULL;
    char said[1200];
    (void)state;
    if (parse(ENTRY("trust_domain: a.org, bundle: true}\n  - {audiences: [b], issuer: i, "
                    "bundle: false, jwks_file: k"),
              false, &p, said, sizeof(said)) != 0) {
        fail_msg("%s", said);
    }
    assert_int_equal(p->jwt.n, 2);
    assert_true(p->jwt.items[0].bundle);
    assert_null(p->jwt.items[0].jwks_file);
    assert_false(p->jwt.items[1].bundle);
    assert_string_equal(p->jwt.items[1].jwks_file, "/etc/k");
    conf_proxy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_no_agent),
        cmocka_unit_test(test_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
