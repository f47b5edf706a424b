/*
 * Outbound connections to services with endpoints, to what is no service's, and limits: an
 * intercepted listener whose original destinations this test makes up, in front of two servers.
 */
#include "conn_world.h"
#include "held_port.h"

#include <arpa/inet.h>
#include <poll.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka wants these first */
#include <cmocka.h>

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules: [{name: all, action: ALLOW}]\n";

/* What the kernel would have redirected: 10.99.0.1 and more, by the low byte. */
static _Atomic uint32_t destination;
static _Atomic uint16_t destination_port;

bool __wrap_net_original_dst(int fd, struct net_addr *ret);
bool __wrap_net_original_dst(int fd, struct net_addr *ret)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(destination_port)};
    in.sin_addr.s_addr = htonl(destination);
    (void)fd;
    return net_addr_from((const struct sockaddr *)&in, sizeof(in), ret);
}

/* A client side beside those of the world, which is there for its server and workload. */
struct outbound {
    struct world *w;
    struct side side;
    struct side other; /* another server, of another identity; maybe */
    uint16_t port, dead, other_tls;
    int held[8];
    size_t n_held;
};

/* One that stays free until the end. */
static uint16_t free_port(struct outbound *o)
{
    uint16_t port = 0;
    assert_true(o->n_held < sizeof(o->held) / sizeof(o->held[0]));
    o->held[o->n_held] = held_port(&port);
    assert_int_not_equal(o->held[o->n_held++], -1);
    return port;
}

static struct outbound *begin(void)
{
    struct outbound *o = calloc(1, sizeof(*o));
    o->w = world_new_explicit("tcp", ALLOW, true);
    o->port = free_port(o);
    o->dead = free_port(o);
    destination = 0x0a630001;
    destination_port = 80;
    return o;
}

static void start(struct outbound *o, const char *mesh)
{
    char conf[600];
    snprintf(conf, sizeof(conf),
             "{kind: Proxy, level: 1, identity: {socket: 'unix:/nowhere', wait: 300ms}, mesh: "
             "mesh.yaml, timeouts: {connect: 2s, handshake: 2s}, listeners: [{name: out, "
             "direction: outbound, capture: intercepted, address: '127.0.0.1:%u'}]}\n",
             o->port);
    o->side.identity = make_identity(o->w, "spiffe://a.b/client");
    o->side.mesh = mesh;
    side_start(&o->side, conf, NULL);
}

static void end(struct outbound *o)
{
    side_stop(&o->side);
    if (o->other.worker != NULL) {
        side_stop(&o->other);
    }
    while (o->n_held > 0) {
        close(o->held[--o->n_held]);
    }
    world_free(o->w);
    free(o);
}

static const char *service(char text[600], const char *endpoints, const char *more)
{
    snprintf(text, 600,
             "kind: Mesh\nlevel: 1\nservices: [{name: s, addresses: [10.99.0.1], ports: [{port: "
             "80}], endpoints: [%s]%s}]\n",
             endpoints, more);
    return text;
}

static const char *two(char text[100], uint16_t a, uint16_t b)
{
    snprintf(text, 100, "'127.0.0.1:%u', '127.0.0.1:%u'", a, b);
    return text;
}

/* One that goes through to the workload. */
static void works(struct outbound *o)
{
    int c = dial(o->port);
    say(c, "ping");
    int s = take(o->w);
    hear(s, "ping");
    say(s, "pong");
    hear(c, "pong");
    close(s);
    hear_end(c);
    close(c);
}

#define IDS ", identities: ['spiffe://a.b/server']"

static void test_another_endpoint(void **state)
{
    char text[600];
    char ends[100];
    struct outbound *o = begin();
    (void)state;
    start(o, service(text, two(ends, o->dead, o->w->tls), IDS));
    for (int i = 0; i < 30; i++) {
        works(o); /* whichever was tried first */
    }
    expect_in(log_line(&o->side, "endpoint_ejected", "\"service\":\"s\""), "\"step\":\"connect\"");
    expect_in(log_line(&o->side, "\"connection\"", "\"reason\":\"done\""), "\"upstream\"");
    end(o);
}

static void test_all_dead(void **state)
{
    char text[600];
    char ends[100];
    struct outbound *o = begin();
    (void)state;
    start(o, service(text, two(ends, o->dead, free_port(o)), IDS));
    for (int i = 0; i < 10; i++) {
        hear_reset(dial(o->port));
    }
    (void)log_line(&o->side, "\"connection\"", "connect_refused");
    /* One of the two is still tried: as soon as it is there it is found. */
    side_mesh(&o->side, service(text, two(ends, o->dead, o->w->tls), IDS));
    works(o);
    end(o);
}

/* The other one has its connections, and it has none after a while. */
static void test_wrong_identity_is_ejected(void **state)
{
    char text[600];
    char ends[100];
    char conf[400];
    struct outbound *o = begin();
    (void)state;
    o->other_tls = free_port(o);
    o->other.identity = make_identity(o->w, "spiffe://a.b/server-2"); /* not of the set */
    snprintf(conf, sizeof(conf),
             "{kind: Proxy, level: 1, identity: {socket: 'unix:/nowhere'}, policy: policy.yaml, "
             "listeners: [{name: in, direction: inbound, capture: explicit, address: "
             "'127.0.0.1:%u', to: '127.0.0.1:%u'}]}\n",
             o->other_tls, o->w->backend);
    side_start(&o->other, conf, ALLOW);
    start(o, service(text, two(ends, o->other_tls, o->w->tls),
                     IDS ", ejection: {after: 2, time: 1h, max_time: 1h}"));
    for (int i = 0; i < 30; i++) {
        works(o);
    }
    expect_in(log_line(&o->side, "endpoint_ejected", "\"service\":\"s\""),
              "\"step\":\"handshake\"");
    end(o);
}

static void test_no_address(void **state)
{
    static char name[] = "orders.x";
    char text[600];
    struct outbound *o = begin();
    struct resolve_host h = {.host = name};
    struct resolve_state resolved = {.hosts = &h, .n_hosts = 1};
    (void)state;
    start(o, service(text, "orders.x", ", transport: disable"));
    hear_reset(dial(o->port));
    (void)log_line(&o->side, "\"connection\"", "no_address");
    /* To a name that has come to mean this host itself nothing goes. */
    struct net_addr self = {.len = 0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    assert_true(net_addr_from((const struct sockaddr *)&in, sizeof(in), &self));
    h.addrs = &self;
    h.n_addrs = h.n_preferred = 1;
    o->side.resolved = &resolved;
    side_post(&o->side);
    side_settled(&o->side);
    hear_reset(dial(o->port));
    assert_true(nobody_came(o->w));
    end(o);
}

/* Without TLS nothing but the map says that somebody is right. */
static void test_plain_endpoint_goes(void **state)
{
    char text[600];
    char ends[100];
    struct outbound *o = begin();
    (void)state;
    start(o, service(text, two(ends, o->w->backend, o->w->backend + 1), ", transport: disable"));
    int c = dial(o->port);
    int s = take(o->w);
    say(c, "ping");
    hear(s, "ping");
    side_mesh(&o->side, service(text, two(ends, o->w->backend, o->dead), ", transport: disable"));
    say(s, "pong");
    hear(c, "pong");
    snprintf(ends, sizeof(ends), "'127.0.0.1:%u'", o->dead);
    side_mesh(&o->side, service(text, ends, ", transport: disable"));
    hear_reset(c);
    close(s);
    (void)log_line(&o->side, "\"connection\"", "route_changed");
    end(o);
}

static void test_destination_limit(void **state)
{
    char text[600];
    char ends[100];
    struct outbound *o = begin();
    (void)state;
    start(o, service(text, two(ends, o->w->tls, o->dead), IDS ", limits: {connections: 2}"));
    int a = dial(o->port);
    int sa = take(o->w);
    int b = dial(o->port);
    int sb = take(o->w);
    for (int i = 0; i < 3; i++) {
        hear_reset(dial(o->port));
    }
    (void)log_line(&o->side, "\"connection\"", "destination_limit");
    expect_in(log_line(&o->side, "limit_reached", "destination_limit"), "\"service\":\"s\"");
    close(sa);
    hear_end(a);
    close(a);
    (void)log_line(&o->side, "\"connection\"", "\"reason\":\"done\"");
    works(o);
    close(sb);
    hear_end(b);
    close(b);
    end(o);
}

/* --- inbound: one identity -------------------------------------------------------------------- */

static void test_identity_limit(void **state)
{
    char text[600];
    char conf[500];
    char ends[100];
    struct outbound *o = begin();
    (void)state;
    o->other_tls = free_port(o);
    o->other.identity = make_identity(o->w, "spiffe://a.b/server");
    o->other.shared.identities = limit_table_new(64);
    snprintf(conf, sizeof(conf),
             "{kind: Proxy, level: 1, identity: {socket: 'unix:/nowhere'}, policy: policy.yaml, "
             "listeners: [{name: in, direction: inbound, capture: explicit, address: "
             "'127.0.0.1:%u', to: '127.0.0.1:%u', limits: {per_identity_connections: 1}}]}\n",
             o->other_tls, o->w->backend);
    side_start(&o->other, conf, ALLOW);
    snprintf(ends, sizeof(ends), "'127.0.0.1:%u'", o->other_tls);
    start(o, service(text, ends, IDS));
    int a = dial(o->port);
    int s = take(o->w);
    hear_reset(dial(o->port));
    (void)log_line(&o->other, "\"connection\"", "identity_limit");
    expect_in(log_line(&o->other, "limit_reached", "identity_limit"), "spiffe://a.b/client");
    /* Another identity comes in. */
    struct snapshot_identity *before = o->side.identity;
    o->side.identity = make_identity(o->w, "spiffe://a.b/client-2");
    snapshot_identity_unref(before);
    side_post(&o->side);
    side_settled(&o->side);
    works(o);
    close(s);
    hear_end(a);
    close(a);
    struct limit_table *t = o->other.shared.identities;
    end(o);
    limit_table_free(t);
}

/* --- what is no service's --------------------------------------------------------------------- */

static void test_unlisted(void **state)
{
    char text[600];
    struct outbound *o = begin();
    (void)state;
    destination = INADDR_LOOPBACK;
    destination_port = o->w->backend;
    snprintf(text, sizeof(text),
             "kind: Mesh\nlevel: 1\nunlisted: list\nallow_unlisted: [{name: here, addresses: "
             "[127.0.0.1], ports: [%u]}]\n",
             o->w->backend);
    start(o, text);
    int c = dial(o->port);
    int s = take(o->w);
    say(c, "ping");
    hear(s, "ping");
    close(s);
    hear_end(c);
    close(c);
    const char *line = log_line(&o->side, "\"connection\"", "\"reason\":\"done\"");
    expect_in(line, "\"transport\":\"passthrough\"");
    expect_in(line, "\"unlisted\":\"here\"");
    expect_in(line, "\"class\":\"other\"");
    const struct conn_counters *n = conn_worker_counters(o->side.worker);
    assert_int_equal(n->unlisted[1][CONF_UNLISTED_OTHER], 1);
    destination_port = o->dead;
    hear_reset(dial(o->port));
    destination = 0xa9fea9fe; /* 169.254.169.254 */
    destination_port = 80;
    hear_reset(dial(o->port));
    (void)log_line(&o->side, "169.254.169.254", "\"reason\":\"unlisted\"");
    assert_int_equal(n->unlisted[0][CONF_UNLISTED_OTHER], 1);
    assert_int_equal(n->unlisted[0][CONF_UNLISTED_METADATA], 1);
    /* A live one ends with its entry. */
    destination = INADDR_LOOPBACK;
    destination_port = o->w->backend;
    c = dial(o->port);
    s = take(o->w);
    side_mesh(&o->side, "kind: Mesh\nlevel: 1\n");
    hear_reset(c);
    close(s);
    end(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_dead),
        cmocka_unit_test(test_another_endpoint),
        cmocka_unit_test(test_wrong_identity_is_ejected),
        cmocka_unit_test(test_no_address),
        cmocka_unit_test(test_plain_endpoint_goes),
        cmocka_unit_test(test_destination_limit),
        cmocka_unit_test(test_identity_limit),
        cmocka_unit_test(test_unlisted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
