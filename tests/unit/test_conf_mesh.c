/* conf: of a Mesh file, endpoints, unlisted destinations, limits: what is refused, what it means.
 */
#include <postern/conf.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants these first */
#include <cmocka.h>

#define HEAD "kind: Mesh\nlevel: 1\n"
#define SERVICE HEAD "services:\n- {name: s, addresses: [10.0.0.1], identities: ['spiffe://t/s'], "
#define ONE_PORT "ports: [{port: 80}], "
#define LIST HEAD "unlisted: list\nallow_unlisted:\n- "

static const struct {
    const char *text, *want; /* within the first error */
} refused[] = {
    /* endpoints */
    {SERVICE "endpoints: []}\n", "4:77: 'endpoints' is an empty list"},
    {SERVICE "endpoints: ['10.0.0.2:80']}\n", "an endpoint with a port, of a service with every"},
    {SERVICE "ports: [{port: 1}, {port: 2}], endpoints: ['h.x:1']}\n", "with several ports"},
    {SERVICE ONE_PORT "endpoints: ['h.x:0']}\n", "not a port at the end"},
    {SERVICE ONE_PORT "endpoints: ['h.x:65536']}\n", "not a port at the end"},
    {SERVICE ONE_PORT "endpoints: ['h.x:']}\n", "not a port at the end"},
    {SERVICE ONE_PORT "endpoints: ['a b']}\n", "not an address and not a host's name"},
    {SERVICE ONE_PORT "endpoints: ['unix:/run/x']}\n", "not a port at the end"},
    {SERVICE ONE_PORT "endpoints: ['']}\n", "not an address and not a host's name"},
    {SERVICE ONE_PORT "endpoints: ['10.0.0.0/24']}\n", "not an address and not a host's name"},
    {SERVICE ONE_PORT "endpoints: ['[fd00::1]']}\n", "not an address with a port"},
    {SERVICE ONE_PORT "endpoints: ['::ffff:10.0.0.1']}\n", "not an IP address"},
    {SERVICE ONE_PORT "endpoints: ['10.0.0.2', '10.0.0.2']}\n", "endpoint '10.0.0.2' twice"},
    {SERVICE ONE_PORT "endpoints: ['0.0.0.0']}\n", "an endpoint at any address"},
    {SERVICE "ejection: {after: 2}}\n", "'ejection' of a service without 'endpoints'"},
    {SERVICE "endpoints: [h], ejection: {time: 1m, max_time: 1s}}\n", "longest is shorter"},
    {SERVICE "endpoints: [h], ejection: {after: 0}}\n", "'after' is '0', too little"},
    {SERVICE "limits: {connections: 0}}\n", "'connections' is '0', too little"},
    {SERVICE "limits: {rate: 1}}\n", "unknown key 'rate'"},
    /* who is let through */
    {HEAD "unlisted: list\n", "3:11: 'unlisted: list' without a list"},
    {HEAD "unlisted: lst\n", "did you mean 'list'?"},
    {HEAD "allow_unlisted: [{name: a, addresses: [10.0.0.1]}]\n", "without 'unlisted: list'"},
    {HEAD "unlisted: deny\nallow_unlisted: [{name: a, addresses: [10.0.0.1]}]\n",
     "4:1: 'allow_unlisted' without 'unlisted: list'"},
    {LIST "{name: a}\n", "5:3: an entry that says nowhere"},
    {LIST "{name: a, ports: [1]}\n", "an entry that says nowhere"},
    {LIST "{addresses: [10.0.0.1]}\n", "missing key 'name'"},
    {LIST "{name: a, preset: dns}\n", "an entry that says nowhere"},
    {LIST "{name: a, preset: dns, hosts: [h.x]}\n", "resolvers that would have to be resolved"},
    {LIST "{name: a, preset: metadata, hosts: [h.x]}\n", "metadata by name"},
    {LIST "{name: a, preset: udp, addresses: [10.0.0.1]}\n", "'preset' is 'udp', no such value"},
    {LIST "{name: a, addresses: [10.0.0.1/8]}\n", "bits beyond its prefix"},
    {LIST "{name: a, hosts: ['*.x']}\n", "not a DNS name"},
    {LIST "{name: a, hosts: [10.0.0.1]}\n", "not a DNS name"},
    {LIST "{name: a, addresses: [10.0.0.1]}\n- {name: a, addresses: [10.0.0.2]}\n",
     "entry 'a' twice"},
};

static struct conf_mesh *parse(const char *text, char *ret_error, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_mesh *m = NULL;
    int r = conf_parse_mesh("m", text, strlen(text), diag, &m);
    assert_int_equal(r, m != NULL ? 0 : -1);
    ret_error[0] = '\0';
    if (r == -1) {
        char what[1000];
        snprintf(ret_error, size, "%s", err_text(conf_diag_get(diag, 0), what, sizeof(what)));
    }
    conf_diag_free(diag);
    return m;
}

static void test_refused(void **state)
{
    char error[1200];
    bool ok = true;
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (parse(refused[i].text, error, sizeof(error)) != NULL ||
            strstr(error, refused[i].want) == NULL) {
            print_error("case %zu: \"%s\" not in \"%s\"\n", i, refused[i].want, error);
            ok = false;
        }
    }
    assert_true(ok);
}

static void test_too_many(void **state)
{
    static char text[64 * 1024];
    char error[1200];
    (void)state;
    int n = snprintf(text, sizeof(text), SERVICE "endpoints: [");
    for (int i = 0; i <= CONF_ENDPOINTS_MAX; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t)n, "h%d, ", i);
    }
    snprintf(text + n, sizeof(text) - (size_t)n, "last]}\n");
    assert_null(parse(text, error, sizeof(error)));
    assert_non_null(strstr(error, "more than 256 endpoints"));
    n = snprintf(text, sizeof(text), LIST "{name: a, hosts: [");
    for (int i = 0; i <= 256; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t)n, "h%d, ", i);
    }
    snprintf(text + n, sizeof(text) - (size_t)n, "last]}\n");
    assert_null(parse(text, error, sizeof(error)));
    assert_non_null(strstr(error, "more than 256 hosts in all"));
}

static void test_endpoints(void **state)
{
    char error[1200];
    (void)state;
    struct conf_mesh *m =
        parse(SERVICE ONE_PORT "endpoints: [10.0.0.2, '10.0.0.3:81', 'fd00::1', '[fd00::2]:82', "
                               "Orders.Internal, 'b:83'], ejection: {after: never, time: 1s}, "
                               "limits: {connections: 5}}\n"
                               "- {name: d, addresses: [10.0.0.9], transport: disable}\n",
              error, sizeof(error));
    assert_string_equal(error, "");
    const struct conf_service *s = &m->services[0];
    assert_int_equal(s->n_endpoints, 6);
    static const struct {
        int family; /* 0: a name */
        uint16_t port;
    } want[] = {{AF_INET, 0}, {AF_INET, 81}, {AF_INET6, 0}, {AF_INET6, 82}, {0, 0}, {0, 83}};
    for (size_t i = 0; i < 6; i++) {
        const struct conf_target *t = &s->endpoints[i];
        assert_int_equal(t->kind, want[i].family == 0 ? CONF_TARGET_HOST : CONF_TARGET_ADDRESS);
        assert_int_equal(t->address.ss.ss_family, want[i].family);
        uint16_t port = t->port;
        if (want[i].family == AF_INET) {
            port = ntohs(((const struct sockaddr_in *)(const void *)&t->address.ss)->sin_port);
        } else if (want[i].family == AF_INET6) {
            port = ntohs(((const struct sockaddr_in6 *)(const void *)&t->address.ss)->sin6_port);
        }
        assert_int_equal(port, want[i].port);
    }
    assert_string_equal(s->endpoints[4].host, "orders.internal");
    assert_int_equal(s->ejection.after, 0);
    assert_int_equal(s->limits.connections, 5);
    assert_int_equal(m->services[1].ejection.after, 3);
    assert_int_equal(m->services[1].ejection.time_ms, 10000);
    assert_int_equal(m->services[1].ejection.max_time_ms, 300000);
    assert_int_equal(m->services[1].limits.connections, 0);
    conf_mesh_free(m);
}

static void test_presets(void **state)
{
    char error[1200];
    (void)state;
    struct conf_mesh *m = parse(LIST "{name: r, preset: dns, addresses: [10.96.0.10]}\n"
                                     "- {name: api, preset: api-server}\n"
                                     "- {name: own, preset: api-server, addresses: [10.0.0.1], "
                                     "ports: [16443]}\n"
                                     "- {name: meta, preset: metadata}\n"
                                     "- {name: aws, preset: metadata, addresses: "
                                     "[169.254.169.254], ports: [80, 443]}\n"
                                     "- {name: rest, hosts: [a.b]}\n",
                                error, sizeof(error));
    assert_string_equal(error, "");
    const struct conf_unlisted_entry *e = m->allow_unlisted;
    assert_int_equal(m->unlisted, CONF_UNLISTED_LIST);
    assert_int_equal(m->n_allow_unlisted, 6);
    assert_int_equal(e[0].n_ports, 1);
    assert_int_equal(e[0].ports[0], 53);
    assert_int_equal(e[1].hosts.n, 1);
    assert_string_equal(e[1].hosts.items[0], "kubernetes.default.svc");
    assert_int_equal(e[1].n_ports, 2);
    assert_int_equal(e[2].hosts.n, 0);
    assert_int_equal(e[2].n_ports, 1);
    assert_true(e[3].addresses.n > 8);
    assert_int_equal(e[3].ports[0], 80);
    for (size_t i = 0; i < e[3].addresses.n; i++) {
        assert_true(conf_is_metadata(e[3].addresses.items[i].family, e[3].addresses.items[i].addr));
    }
    assert_int_equal(e[4].addresses.n, 1);
    assert_int_equal(e[5].preset, CONF_UNLISTED_OTHER);
    assert_int_equal(e[5].n_ports, 0);
    conf_mesh_free(m);
    m = parse(HEAD "unlisted: pass\n", error, sizeof(error));
    assert_int_equal(m->unlisted, CONF_UNLISTED_PASS);
    conf_mesh_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_presets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
