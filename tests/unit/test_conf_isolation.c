/* key_isolation: what it cannot go with is said by name, and what it can is taken. */
#include <postern/conf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SERVER "{name: a, type: server, address: 127.0.0.1:1, to: 127.0.0.1:2"
#define CLIENT                                                                                     \
    "{name: b, type: client, address: 127.0.0.1:3, to: 127.0.0.1:4, identities: ["                 \
    "spiffe://td/x]"
#define GATEWAY                                                                                    \
    "kind: Gateway\nlevel: 1\nidentity: {socket: 'unix:/s', key_isolation: process}\n"             \
    "policy: p.yaml\n"                                                                             \
    "credentials: [{name: c, cert: c.pem}]\nlisteners:\n- "
#define PROXY                                                                                      \
    "kind: Proxy\nlevel: 1\nlisteners: [{name: a, direction: outbound, capture: intercepted, "     \
    "address: 127.0.0.1:1}]\nidentity: {socket: 'unix:/s', "

static const struct {
    bool gateway;
    const char *text;
    const char *said; /* NULL: taken */
} cases[] = {
    {false, PROXY "key_isolation: yes}\n", "expected none or process"},
    {false, PROXY "key: agent, key_isolation: process}\n", "that key comes from outside"},
    {true, GATEWAY SERVER ", tls: {min: '1.2'}}\n", "TLS 1.2"},
    {true, GATEWAY CLIENT ", tls: {min: '1.2'}}\n", "TLS 1.2"},
    {true, GATEWAY SERVER "}\n- " CLIENT ", tls: {min: '1.2'}}\n", "listener 'b'"},
    {false, PROXY "key: agent, key_isolation: none}\n", NULL},
    {false, PROXY "key: auto, key_isolation: process}\n", NULL},
    {false, PROXY "key: csr, key_isolation: process}\n", NULL},
    {true, GATEWAY SERVER "}\n- " CLIENT "}\n", NULL},
    {true, GATEWAY SERVER ", tls: {min: '1.2'}, credentials: [c]}\n", NULL},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conf_diag *diag = conf_diag_new();
        struct conf_proxy *p = NULL;
        const char *text = cases[i].text;
        int r = (cases[i].gateway ? conf_parse_gateway : conf_parse_proxy)("f.yaml", text,
                                                                           strlen(text), diag, &p);
        char said[1200] = "";
        if (conf_diag_count(diag) > 0) {
            err_text(conf_diag_get(diag, 0), said, sizeof(said));
        }
        if ((r == 0) != (cases[i].said == NULL) ||
            (cases[i].said != NULL &&
             (strstr(said, cases[i].said) == NULL || conf_diag_count(diag) != 1))) {
            fail_msg("case %zu: %s", i, said);
        }
        conf_proxy_free(p);
        conf_diag_free(diag);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
