/* The keys of a Gateway file that speak of its targets' health, of limits, and of a proxy to be
 * asked: bad cases first. */
#include <postern/conf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char HEAD[] = "kind: Gateway\nlevel: 1\npolicy: p.yaml\nidentity:\n"
                           "  socket: unix:/s\n";
static const char SERVER[] = "listeners:\n  - name: in\n    type: server\n"
                             "    address: 127.0.0.1:1\n    to: db.example:2\n";
static const char CLIENT[] = "listeners:\n  - name: out\n    type: client\n"
                             "    address: 127.0.0.1:1\n    to: db.example:2\n"
                             "    identities: [\"spiffe://a.b/c\"]\n";

static int parse(const char *top, const char *listener, const char *more, struct conf_proxy **ret,
                 char *said, size_t size)
{
    char text[4000];
    struct conf_diag *diag = conf_diag_new();
    snprintf(text, sizeof(text), "%s%s%s%s", HEAD, top, listener, more);
    int rc = conf_parse_gateway("/etc/f.yaml", text, strlen(text), diag, ret);
    said[0] = '\0';
    if (conf_diag_count(diag) > 0) {
        err_text(conf_diag_get(diag, 0), said, size);
        assert_int_equal(conf_diag_count(diag), 1);
    }
    conf_diag_free(diag);
    return rc;
}

static void test_bad(void **state)
{
    static const struct {
        const char *top, *listener, *more, *says;
    } cases[] = {
        {"", SERVER, "    check: tcp\n", "check"},
        {"", SERVER, "    check: {}\n", "missing key 'kind'"},
        {"", SERVER, "    check: {kind: ping}\n", "'ping'"},
        {"", SERVER, "    check: {kind: tls}\n", "speaks in the clear"},
        {"", SERVER, "    check: {kind: tcp, path: /x}\n", "has no 'path'"},
        {"", SERVER, "    check: {kind: http, path: x}\n", "not the path of a URL"},
        {"", SERVER, "    check: {kind: http, path: \"/a b\"}\n", "not the path of a URL"},
        {"", SERVER, "    check: {kind: http, status: 199}\n", "199"},
        {"targets: {interval: 1ms}\n", SERVER, "", "interval"},
        {"health: {}\n", SERVER, "", "missing key 'address'"},
        {"health: {address: 127.0.0.1:1}\n", SERVER, "", "the address of 'health' already"},
        {"", SERVER, "    limits: {connect_burst: 0}\n", "connect_burst"},
        {"", SERVER, "    proxy_protocol_id_tlv: 210\n", "keeps for itself"},
        {"", SERVER, "    proxy_protocol_id_tlv: 240\n", "240"},
        {"", CLIENT, "    connect_proxy: https://p:1\n", "no http:// URL"},
        {"", CLIENT, "    connect_proxy: http://p\n", "cannot be read"},
        {"", CLIENT, "    connect_proxy: http://p:0\n", "cannot be read"},
        {"", CLIENT, "    connect_proxy: http://p:1/x\n", "cannot be read"},
        {"", CLIENT, "    connect_proxy: http://user@p:1\n", "cannot be read"},
        {"", CLIENT, "    connect_proxy: https://me:hidden@p:1\n", "no http:// URL"},
        {"", CLIENT, "    connect_proxy: http://me:hidden@P:1\n", "cannot be read"},
        {"", CLIENT, "    connect_proxy: \"http://[::1:1\"\n", "cannot be read"},
        {"", CLIENT, "    connect_proxy: \"http://::1:1\"\n", "cannot be read"},
        {"", CLIENT, "    connect_proxy: http://P:1\n", "cannot be read"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conf_proxy *p = NULL;
        char said[1000];
        int rc = parse(cases[i].top, cases[i].listener, cases[i].more, &p, said, sizeof(said));
        if (rc != -1 || p != NULL || strstr(said, cases[i].says) == NULL ||
            strstr(said, "hidden") != NULL) {
            fail_msg("%s%s: %s", cases[i].top, cases[i].more, said);
        }
    }
}

/* It may hold a password, of which the beginning is one already. */
static void test_connect_proxy_too_long(void **state)
{
    char more[2000];
    char said[1000];
    struct conf_proxy *p = NULL;
    (void)state;
    snprintf(more, sizeof(more), "    connect_proxy: http://me:hidden%01100d@p:1\n", 0);
    assert_int_equal(parse("", CLIENT, more, &p, said, sizeof(said)), -1);
    assert_non_null(strstr(said, "'connect_proxy' is (not shown), longer than 1024 bytes"));
    assert_null(strstr(said, "hidden"));
}

static void test_checks(void **state)
{
    static const struct {
        const char *top, *listener, *more;
        enum conf_check kind;
    } cases[] = {
        {"", SERVER, "", CONF_CHECK_NONE},
        {"targets: {}\n", SERVER, "", CONF_CHECK_TCP},
        {"targets: {check: tls}\n", SERVER, "", CONF_CHECK_TCP},
        {"targets: {check: tls}\n", CLIENT, "", CONF_CHECK_TLS},
        {"targets: {check: http}\n", CLIENT, "", CONF_CHECK_HTTP},
        {"targets: {check: http}\n", CLIENT, "    check: {kind: none}\n", CONF_CHECK_NONE},
        {"", SERVER, "    check: {kind: http, path: /ok, status: 204}\n", CONF_CHECK_HTTP},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conf_proxy *p = NULL;
        char said[1000];
        if (parse(cases[i].top, cases[i].listener, cases[i].more, &p, said, sizeof(said)) == -1) {
            fail_msg("%s", said);
        }
        assert_int_equal(p->listeners[0].check.kind, cases[i].kind);
        assert_int_equal(p->targets.interval_ms, 5000);
        conf_proxy_free(p);
    }
}

static void test_connect_proxy(void **state)
{
    struct conf_connect_proxy c;
    (void)state;
    assert_true(conf_connect_proxy_parse(STR_LIT("http://u:p@x:y@proxy.example:3128/"), &c));
    assert_true(str_eq(c.host, STR_LIT("proxy.example")));
    assert_true(str_eq(c.credentials, STR_LIT("u:p@x:y")));
    assert_int_equal(c.port, 3128);
    assert_int_equal(c.family, AF_UNSPEC);
    assert_true(conf_connect_proxy_parse(STR_LIT("http://[fd00::1]:80"), &c));
    assert_int_equal(c.family, AF_INET6);
    assert_true(str_eq(c.host, STR_LIT("fd00::1")));
    assert_int_equal(c.credentials.n, 0);
    assert_true(conf_connect_proxy_parse(STR_LIT("http://10.0.0.1:80"), &c));
    assert_int_equal(c.family, AF_INET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_connect_proxy_too_long),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_connect_proxy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
