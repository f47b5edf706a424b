/* Routes: the most specific block decides alone, ports, identities. */
#include <postern/route.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char MESH[] = "kind: Mesh\n"
                           "level: 1\n"
                           "services:\n"
                           "  - name: wide\n"
                           "    addresses: [10.0.0.0/8]\n"
                           "    transport: disable\n"
                           "  - name: orders\n"
                           "    addresses: [10.0.0.2, \"fd00::2\"]\n"
                           "    ports:\n"
                           "      - {port: 8080, protocol: http}\n"
                           "      - {port: 7000, protocol: tcp}\n"
                           "    identities: [\"spiffe://a.b/orders\", \"spiffe://a.b/orders-2\"]\n"
                           "  - name: orders-admin\n"
                           "    addresses: [10.0.0.2]\n"
                           "    ports:\n"
                           "      - {port: 9000, protocol: tcp}\n"
                           "    identities: [\"spiffe://a.b/admin\"]\n"
                           "  - name: net\n"
                           "    addresses: [10.0.0.0/24, \"fd00::/64\"]\n"
                           "    identities: [\"spiffe://a.b/net\"]\n"
                           "  - name: pooled\n"
                           "    addresses: [10.1.0.0/24]\n"
                           "    transport: auto\n"
                           "    identities: [\"spiffe://a.b/net\"]\n"
                           "  - name: declared\n"
                           "    addresses: [10.2.0.0/24]\n"
                           "    transport: auto\n"
                           "    hbone_port: 15008\n"
                           "    identities: [\"spiffe://a.b/net\"]\n";

static struct route_table *load(const char *text)
{
    char path[] = "/tmp/postern-test-mesh-XXXXXX";
    int fd = mkstemp(path);
    assert_int_not_equal(fd, -1);
    FILE *f = fdopen(fd, "w");
    fputs(text, f);
    fclose(f);
    struct conf_diag *diag = conf_diag_new();
    struct conf_mesh *mesh = NULL;
    if (conf_load_mesh(path, diag, &mesh) == -1) {
        fail_msg("%s", conf_diag_get(diag, 0)->what);
    }
    remove(path);
    conf_diag_free(diag);
    struct route_table *t = NULL;
    assert_int_equal(route_table_new(mesh, &t, NULL), 0);
    conf_mesh_free(mesh);
    return t;
}

static struct net_addr addr(const char *ip, uint16_t port)
{
    struct net_addr a = {.len = 0};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, ip, &in4.sin_addr) == 1) {
        assert_true(net_addr_from((struct sockaddr *)&in4, sizeof(in4), &a));
    } else {
        assert_int_equal(inet_pton(AF_INET6, ip, &in6.sin6_addr), 1);
        assert_true(net_addr_from((struct sockaddr *)&in6, sizeof(in6), &a));
    }
    return a;
}

static void test_lookup(void **state)
{
    (void)state;
    static const struct {
        const char *ip;
        uint16_t port;
        const char *service; /* NULL: unlisted */
    } cases[] = {
        {"11.0.0.1", 80, NULL},
        {"10.0.0.2", 1, NULL}, /* the wide, plaintext block does not speak for it */
        {"fd00::2", 9000, NULL},
        {"fd01::2", 7000, NULL},
        {"10.0.0.2", 8080, "orders"},
        {"10.0.0.2", 7000, "orders"},
        {"10.0.0.2", 9000, "orders-admin"},
        {"10.0.0.3", 8080, "net"},
        {"10.0.1.3", 8080, "wide"},
        {"fd00::2", 8080, "orders"},
        {"fd00::3", 8080, "net"},
        {"::ffff:10.0.0.2", 7000, "orders"}, /* however it came */
    };
    struct route_table *t = load(MESH);
    assert_non_null(t);
    assert_int_equal(route_count(t), 6);
    assert_false(route_passthrough(t));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct net_addr a = addr(cases[i].ip, cases[i].port);
        const struct route *r = route_lookup(t, &a);
        if (cases[i].service == NULL ? r != NULL
                                     : r == NULL || strcmp(r->service, cases[i].service) != 0) {
            fail_msg("%s:%u: %s", cases[i].ip, cases[i].port, r != NULL ? r->service : "unlisted");
        }
    }
    struct net_addr a = addr("10.0.0.2", 7000);
    const struct route *r = route_lookup(t, &a);
    assert_int_equal(r->n_identities, 2);
    assert_false(route_still_allows(r, CONF_TRANSPORT_DIRECT, STR_LIT("spiffe://a.b/other")));
    assert_false(route_still_allows(r, CONF_TRANSPORT_DISABLE, STR_NONE));
    assert_false(route_still_allows(NULL, CONF_TRANSPORT_DIRECT, STR_LIT("spiffe://a.b/orders")));
    assert_true(route_still_allows(r, CONF_TRANSPORT_DIRECT, STR_LIT("spiffe://a.b/orders-2")));
    route_table_free(t);
}

static void test_transports(void **state)
{
    (void)state;
    static const struct {
        const char *ip;
        enum conf_transport transport;
        bool declared;
    } cases[] = {
        {"10.3.0.1", CONF_TRANSPORT_DISABLE, false}, /* wide */
        {"10.0.0.3", CONF_TRANSPORT_DIRECT, false},
        {"10.1.0.1", CONF_TRANSPORT_AUTO, false},
        {"10.2.0.1", CONF_TRANSPORT_AUTO, true},
    };
    struct route_table *t = load(MESH);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct net_addr a = addr(cases[i].ip, 80);
        const struct route *r = route_lookup(t, &a);
        assert_int_equal(r->transport, cases[i].transport);
        assert_int_equal(r->hbone_declared, cases[i].declared);
        assert_int_equal(r->hbone_port, 15008);
        /* A live connection stays by another form of mTLS, for whoever is expected by both; one in
         * plaintext never becomes one, nor the other way round. */
        for (unsigned had = 0; had < CONF_TRANSPORT_AUTO; had++) {
            bool plain = had == CONF_TRANSPORT_DISABLE;
            bool stays = plain == (cases[i].transport == CONF_TRANSPORT_DISABLE);
            struct str peer = plain ? STR_NONE : STR_LIT("spiffe://a.b/net");
            assert_int_equal(route_still_allows(r, (enum conf_transport)had, peer), stays);
            assert_false(!plain && route_still_allows(r, (enum conf_transport)had, STR_NONE));
        }
    }
    route_table_free(t);
}

/* The configuration refuses this already; the table does not rely on it. */
static void test_two_claim_one_port(void **state)
{
    (void)state;
    struct conf_cidr block = {.family = AF_INET, .addr = {10, 0, 0, 1}, .prefix_len = 32};
    struct conf_port port = {.port = 80};
    char a[] = "a";
    char b[] = "b";
    struct conf_service services[] = {
        {.name = a, .addresses = {&block, 1}, .ports = &port, .n_ports = 1},
        {.name = b, .addresses = {&block, 1}, .ports = &port, .n_ports = 1},
    };
    struct conf_mesh mesh = {.services = services, .n_services = 2};
    struct err err = ERR_INIT;
    struct route_table *t = NULL;
    assert_int_equal(route_table_new(&mesh, &t, &err), -1);
    assert_non_null(strstr(err.what, "port 80"));
    services[1].n_ports = 0; /* every other port */
    assert_int_equal(route_table_new(&mesh, &t, &err), 0);
    struct net_addr at = addr("10.0.0.1", 81);
    assert_string_equal(route_lookup(t, &at)->service, "b");
    route_table_free(t);
}

static void test_empty(void **state)
{
    (void)state;
    struct route_table *t = NULL;
    assert_int_equal(route_table_new(NULL, &t, NULL), 0);
    struct net_addr a = addr("10.0.0.1", 1);
    assert_null(route_lookup(t, &a));
    route_table_free(t);
    assert_null(route_table_free(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_transports),
        cmocka_unit_test(test_two_claim_one_port),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
