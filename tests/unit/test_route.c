/* Routes: the most specific block decides alone, ports, identities. */
#include <postern/route.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
                           "      - {port: 7000, protocol: tcp, on_expiry: warn}\n"
                           "    identities: [\"spiffe://a.b/orders\", \"spiffe://a.b/orders-2\"]\n"
                           "    on_expiry: cut\n"
                           "    expiry_spread: 0s\n"
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
    assert_int_equal(route_unlisted(t), CONF_UNLISTED_DENY);
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

/* Port, service, listener: who is nearest counts. */
static void test_expiry(void **state)
{
    (void)state;
    const struct conf_expiry listener = {
        .on = CONF_EXPIRY_DRAIN, .grace_s = 60, .spread_s = 10, .on_said = true};
    struct route_table *t = load(MESH);
    struct net_addr a = addr("10.0.0.2", 7000);
    const struct route *r = route_lookup(t, &a);
    struct conf_expiry e = listener;
    route_expiry(r, 7000, &e);
    assert_int_equal(e.on, CONF_EXPIRY_WARN);
    e = listener;
    route_expiry(r, 8080, &e);
    assert_int_equal(e.on, CONF_EXPIRY_CUT);
    assert_int_equal(e.grace_s, 60);
    assert_int_equal(e.spread_s, 0);
    a = addr("10.0.0.2", 9000);
    e = listener;
    route_expiry(route_lookup(t, &a), 9000, &e);
    assert_int_equal(e.on, CONF_EXPIRY_DRAIN);
    assert_int_equal(e.spread_s, 10);
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

/* --- what is no service's --------------------------------------------------------------------- */
static struct resolve_host hosts[] = {{.host = NULL}, {.host = NULL}};

/* `a.x` and `evil.x`, with these addresses. */
static const struct resolve_state *resolved(struct net_addr *a, size_t n_a, struct net_addr *evil,
                                            size_t n_evil)
{
    static char name_a[] = "a.x";
    static char name_evil[] = "evil.x";
    static struct resolve_state s;
    hosts[0] = (struct resolve_host){.host = name_a, .addrs = a, .n_addrs = n_a};
    hosts[1] = (struct resolve_host){.host = name_evil, .addrs = evil, .n_addrs = n_evil};
    s.hosts = hosts;
    s.n_hosts = 2;
    return &s;
}

/* The name of what lets it through, "*" for everything, "-" for nothing. */
static const char *through(const struct route_table *t, const char *ip, uint16_t port,
                           const struct resolve_state *r)
{
    struct net_addr a = addr(ip, port);
    assert_null(route_lookup(t, &a));
    const struct route_pass *p = route_pass(t, &a, r, NULL);
    return p == NULL ? "-" : p->name == NULL ? "*" : p->name;
}

static const char *const METADATA[] = {"169.254.169.254", "169.254.170.2",         "169.254.170.23",
                                       "168.63.129.16",   "100.100.100.200",       "fd00:ec2::254",
                                       "fd20:ce::254",    "::ffff:169.254.169.254"};
enum { N_METADATA = sizeof(METADATA) / sizeof(METADATA[0]) };

static void test_metadata(void **state)
{
    static const char *const maps[] = {
        "kind: Mesh\nlevel: 1\nunlisted: passthrough\n",
        "kind: Mesh\nlevel: 1\nunlisted: passthrough\nservices:\n"
        "- {name: all, addresses: ['0.0.0.0/0', '::/0'], transport: disable}\n",
        "kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted:\n"
        "- {name: all, addresses: ['0.0.0.0/0', '::/0', 169.254.0.0/16]}\n",
        "kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted:\n"
        "- {name: link, addresses: [169.254.169.252/30]}\n",
        "kind: Mesh\nlevel: 1\n",
    };
    (void)state;
    for (size_t m = 0; m < sizeof(maps) / sizeof(maps[0]); m++) {
        struct route_table *t = load(maps[m]);
        for (size_t i = 0; i < N_METADATA; i++) {
            assert_string_equal(through(t, METADATA[i], 80, NULL), "-");
        }
        route_table_free(t);
    }
    /* By the preset all of them, on its port; by its very address this one. */
    struct route_table *t = load("kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted:\n"
                                 "- {name: meta, preset: metadata}\n");
    for (size_t i = 0; i < N_METADATA; i++) {
        assert_string_equal(through(t, METADATA[i], 80, NULL), "meta");
        assert_string_equal(through(t, METADATA[i], 81, NULL), "-");
    }
    route_table_free(t);
    t = load("kind: Mesh\nlevel: 1\nunlisted: passthrough\nallow_unlisted:\n"
             "- {name: aws, addresses: [169.254.169.254]}\nservices:\n"
             "- {name: azure, addresses: [168.63.129.16], transport: disable}\n");
    assert_string_equal(through(t, "169.254.169.254", 1, NULL), "aws");
    assert_string_equal(through(t, "100.100.100.200", 1, NULL), "-");
    assert_string_equal(through(t, "192.0.2.1", 1, NULL), "*");
    struct net_addr a = addr("168.63.129.16", 80);
    assert_non_null(route_lookup(t, &a));
    route_table_free(t);
}

static void test_list(void **state)
{
    static const struct {
        const char *ip;
        uint16_t port;
        const char *want;
    } cases[] = {
        {"10.96.0.10", 53, "dns"},   {"10.96.0.10", 54, "-"},     {"10.96.0.11", 53, "-"},
        {"192.0.2.0", 443, "block"}, {"192.0.2.7", 443, "block"}, {"192.0.2.8", 443, "-"},
        {"192.0.2.7", 80, "-"},      {"192.0.1.255", 443, "-"},   {"2001:db8::7f", 8443, "block"},
        {"2001:db8::80", 443, "-"},  {"203.0.113.1", 1, "any"},   {"203.0.113.2", 1, "-"},
    };
    struct route_table *t =
        load("kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted:\n"
             "- {name: dns, preset: dns, addresses: [10.96.0.10]}\n"
             "- {name: block, addresses: [192.0.2.0/29, '2001:db8::/121'], ports: [443, 8443]}\n"
             "- {name: any, addresses: [203.0.113.1]}\n");
    (void)state;
    assert_int_equal(route_unlisted(t), CONF_UNLISTED_LIST);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *got = through(t, cases[i].ip, cases[i].port, NULL);
        if (strcmp(got, cases[i].want) != 0) {
            fail_msg("%s:%u: %s, not %s", cases[i].ip, cases[i].port, got, cases[i].want);
        }
    }
    route_table_free(t);
}

/* Whoever answers for a name can point it at what is not to be reached. */
static void test_hosts(void **state)
{
    struct net_addr good[] = {addr("192.0.2.1", 0), addr("2001:db8::1", 0)};
    struct net_addr bad[] = {addr("169.254.169.254", 0), addr("127.0.0.1", 0), addr("::1", 0),
                             addr("0.0.0.0", 0), addr("fd00:ec2::254", 0)};
    const struct resolve_state *r = resolved(good, 2, bad, 5);
    struct route_table *t = load("kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted:\n"
                                 "- {name: a, hosts: [a.x, none.x], ports: [443]}\n"
                                 "- {name: evil, hosts: [evil.x]}\n");
    (void)state;
    assert_string_equal(through(t, "192.0.2.1", 443, r), "a");
    assert_string_equal(through(t, "2001:db8::1", 443, r), "a");
    assert_string_equal(through(t, "192.0.2.1", 80, r), "-");
    assert_string_equal(through(t, "192.0.2.1", 443, NULL), "-"); /* not resolved yet */
    for (size_t i = 0; i < 5; i++) {
        char text[NET_ADDR_TEXT_MAX];
        net_addr_set_port(&bad[i], 443);
        assert_ptr_equal(route_pass(t, &bad[i], r, NULL), NULL);
        assert_non_null(net_addr_text(&bad[i], text));
    }
    /* What came by a name stays by it, while the entry is there: not by another's, and not what
     * came by a block. */
    struct net_addr a = addr("192.0.2.1", 443);
    const struct route_pass *before = route_pass(t, &a, r, NULL);
    assert_true(before->by_host);
    assert_string_equal(route_pass(t, &a, resolved(NULL, 0, NULL, 0), before)->name, "a");
    static const char *const later[] = {
        "kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted: [{name: b, hosts: [a.x]}]\n",
        "kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted: [{name: a, addresses: "
        "[10.0.0.1]}]\n",
        "kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted: [{name: a, hosts: [a.x], ports: "
        "[80]}]\n",
    };
    for (size_t i = 0; i < 3; i++) {
        struct route_table *next = load(later[i]);
        assert_null(route_pass(next, &a, resolved(NULL, 0, NULL, 0), before));
        route_table_free(next);
    }
    const struct route_pass block = {.name = "a"};
    assert_null(route_pass(t, &a, resolved(NULL, 0, NULL, 0), &block));
    route_table_free(t);
}

static void count_host(void *arg, const char *host)
{
    (void)host;
    ++*(size_t *)arg;
}

static void test_endpoints(void **state)
{
    struct route_table *t = load(
        "kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted: [{name: x, hosts: [x.x, y.y]}]\n"
        "services: [{name: s, addresses: [10.0.0.1], identities: ['spiffe://t/s'], ports: "
        "[{port: 80}], endpoints: ['10.0.0.2:81', 'fd00::1', h.x, 'h.y:82'], limits: "
        "{connections: 7}}]\n");
    size_t n = 0;
    (void)state;
    const struct route *r = route_at(t, 0);
    assert_int_equal(r->n_endpoints, 4);
    assert_int_equal(r->endpoints[0].port, 81);
    assert_int_equal(r->endpoints[1].port, 0);
    assert_int_equal(r->endpoints[1].address.sa.sa_family, AF_INET6);
    assert_string_equal(r->endpoints[2].host, "h.x");
    assert_int_equal(r->endpoints[3].port, 82);
    assert_int_equal(r->max_connections, 7);
    assert_int_equal(r->ejection.after, 3);
    route_hosts(t, count_host, &n);
    assert_int_equal(n, 4);
    route_table_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup),    cmocka_unit_test(test_transports),
        cmocka_unit_test(test_expiry),    cmocka_unit_test(test_two_claim_one_port),
        cmocka_unit_test(test_empty),     cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_list),      cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
