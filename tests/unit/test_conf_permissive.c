/* What Proxy and Gateway files say of plaintext beside mTLS: bad cases first. */
#include <postern/conf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char PROXY[] = "kind: Proxy\nlevel: 1\nidentity: {socket: \"unix:/s\"}\n"
                            "listeners:\n  - name: in\n    address: 127.0.0.1:1\n";
static const char GATEWAY[] = "kind: Gateway\nlevel: 1\npolicy: p.yaml\n"
                              "identity: {socket: \"unix:/s\"}\n"
                              "listeners:\n  - name: in\n    address: 127.0.0.1:1\n";
#define IN "    direction: inbound\n    capture: intercepted\n"
#define TO "    direction: inbound\n    capture: explicit\n    to: 127.0.0.1:2\n"
#define PORT IN "    ports:\n      - port: 80\n"
#define OPEN "    mode: permissive\n"

static int parse(const char *head, const char *text, struct conf_proxy **ret, char *said,
                 size_t size)
{
    char all[8000];
    struct conf_diag *diag = conf_diag_new();
    snprintf(all, sizeof(all), "%s%s", head, text);
    int rc = head == GATEWAY ? conf_parse_gateway("/etc/f.yaml", all, strlen(all), diag, ret)
                             : conf_parse_proxy("/etc/f.yaml", all, strlen(all), diag, ret);
    said[0] = '\0';
    if (conf_diag_count(diag) > 0) {
        err_text(conf_diag_get(diag, 0), said, size);
    }
    conf_diag_free(diag);
    return rc;
}

static void test_bad(void **state)
{
    static const struct {
        const char *head, *text, *says;
    } cases[] = {
        {PROXY, IN OPEN, "under 'ports'"},
        {PROXY, IN "mode: permissive\n", "unknown key"},
        {PROXY, PORT "        mode: disable\n", "'disable'"},
        {PROXY, PORT "        plaintext_wait: 1s\n", "nobody is waited for"},
        {PROXY, PORT "        mode: strict\n        strict_after: 1h\n", "strict already"},
        {PROXY, PORT "        mode: permissive\n        plaintext_wait: 1ms\n", "plaintext_wait"},
        {PROXY, PORT "        mode: permissive\n        strict_after: 0s\n", "strict_after"},
        {PROXY,
         "    direction: inbound\n    capture: hbone\n    ports:\n      - port: 80\n"
         "        mode: permissive\n",
         "of an HBONE listener"},
        {PROXY, "    direction: inbound\n    capture: hbone\n" OPEN, "under 'ports'"},
        {PROXY, "    direction: outbound\n    capture: intercepted\n" OPEN, "mode"},
        {PROXY,
         "    direction: outbound\n    capture: explicit\n    to: 127.0.0.1:2\n"
         "    identities: [\"spiffe://a/b\"]\n" OPEN,
         "nobody is let in there"},
        {GATEWAY, "    type: client\n    to: a.b:1\n    identities: [\"spiffe://a/b\"]\n" OPEN,
         "its clients speak in the clear"},
        {GATEWAY, "    type: server\n    to: a.b:1\n    allow: {any: true}\n" OPEN,
         "say in the policy"},
        {GATEWAY,
         "    type: server\n    to: a.b:1\n    sni: [{names: [x.y], to: \"a.b:2\"}]\n" OPEN,
         "no server name"},
        {GATEWAY,
         "    type: relay\n    to: a.b:1\n    upstream: {identities: [\"spiffe://a/b\"]}\n" OPEN,
         "certificates only"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conf_proxy *conf = NULL;
        char said[1000];
        assert_int_equal(parse(cases[i].head, cases[i].text, &conf, said, sizeof(said)), -1);
        if (strstr(said, cases[i].says) == NULL) {
            fail_msg("case %zu: no '%s' in '%s'", i, cases[i].says, said);
        }
    }
}

static void test_too_many(void **state)
{
    (void)state;
    struct conf_proxy *conf = NULL;
    char text[8000], said[1000];
    int n = snprintf(text, sizeof(text), "%s    ports:\n", IN);
    for (int i = 1; i <= CONF_PERMISSIVE_PORTS_MAX + 1; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t)n, "      - {port: %d, mode: permissive}\n",
                      i);
    }
    assert_int_equal(parse(PROXY, text, &conf, said, sizeof(said)), -1);
    assert_non_null(strstr(said, "more than 64 permissive ports"));
}

static void test_good(void **state)
{
    (void)state;
    struct conf_proxy *conf = NULL;
    char said[1000];
    assert_int_equal(parse(PROXY, PORT "      - {port: 81, mode: permissive, strict_after: 168h}\n",
                           &conf, said, sizeof(said)),
                     0);
    const struct conf_port *ports = conf->listeners[0].ports;
    assert_int_equal(ports[0].permissive.mode, CONF_MODE_STRICT);
    assert_int_equal(ports[1].permissive.mode, CONF_MODE_PERMISSIVE);
    assert_int_equal(ports[1].permissive.wait_ms, 300);
    assert_int_equal(ports[1].permissive.strict_after_s, 7 * 24 * 3600);
    assert_int_equal(conf->listeners[0].permissive.mode, CONF_MODE_STRICT);
    conf_proxy_free(conf);
    assert_int_equal(parse(PROXY, TO OPEN "    plaintext_wait: 1s\n", &conf, said, sizeof(said)),
                     0);
    assert_int_equal(conf->listeners[0].permissive.mode, CONF_MODE_PERMISSIVE);
    assert_int_equal(conf->listeners[0].permissive.wait_ms, 1000);
    assert_int_equal(conf->listeners[0].permissive.strict_after_s, 0);
    conf_proxy_free(conf);
    assert_int_equal(
        parse(GATEWAY, "    type: server\n    to: a.b:1\n" OPEN, &conf, said, sizeof(said)), 0);
    assert_int_equal(conf->listeners[0].permissive.mode, CONF_MODE_PERMISSIVE);
    conf_proxy_free(conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
