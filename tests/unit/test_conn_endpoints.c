/*
 * An outbound service with two endpoints, each a proxy of its own on an address of its own, direct
 * and over HBONE: what is tried elsewhere, and what a dying one takes along. The bad cases first.
 */
#include "conn_world.h"
#include "held_port.h"

#include <arpa/inet.h>
#include <poll.h>
#include <postern/os.h>
#include <pthread.h>
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
static const char SERVER[] = "spiffe://a.b/server";
static const char OTHER[] = "spiffe://a.b/other"; /* not the service's */

/* The way is direct, with TLS on the endpoint's own port, or HBONE's beside it. */
struct service {
    bool hbone;
    struct world *w; /* for its authority */
    struct side client;
    struct side ends[2];   /* on 127.0.0.1 and 127.0.0.2 */
    uint16_t port;         /* where the client connects */
    uint16_t tls, backend; /* of both; the workload's */
    int held[4];
    int workload; /* listening, on both addresses */
};

static _Atomic uint16_t client_port;

/* What the kernel would have redirected comes to the client's listener alone. */
bool __wrap_net_original_dst(int fd, struct net_addr *ret);
bool __wrap_net_original_dst(int fd, struct net_addr *ret)
{
    struct net_addr at = {.len = 0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(80)};
    in.sin_addr.s_addr = htonl(0x0a630001);
    return net_local_addr(fd, &at) && net_addr_port(&at) == client_port &&
           net_addr_from((const struct sockaddr *)&in, sizeof(in), ret);
}

/* A port that nobody has on either address. */
static uint16_t free_port(int *ret_held)
{
    uint16_t port = 0;
    *ret_held = held_port(&port);
    assert_int_not_equal(*ret_held, -1);
    return port;
}

static int listen_at(const char *address, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)); /* held_port.h */
    assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
    assert_int_equal(bind(fd, (const struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static void start_end(struct service *s, int i, const char *id)
{
    char conf[500];
    char ports[80];
    snprintf(ports, sizeof(ports), "ports: [{port: %u, protocol: tcp}]", s->backend);
    char to[40];
    snprintf(to, sizeof(to), "to: '127.0.0.%d:%u'", i + 1, s->backend);
    snprintf(conf, sizeof(conf),
             "{kind: Proxy, level: 1, identity: {socket: 'unix:/nowhere'}, policy: policy.yaml, "
             "listeners: [{name: in, direction: inbound, capture: %s, address: '127.0.0.%d:%u', "
             "%s}]}\n",
             s->hbone ? "hbone" : "explicit", i + 1, s->tls, s->hbone ? ports : to);
    s->ends[i].identity = make_identity(s->w, id);
    side_start(&s->ends[i], conf, ALLOW);
}

/* ids: whom each endpoint shows; NULL: nobody is there. */
static struct service *begin(bool hbone, const char *first, const char *second)
{
    const char *ids[2] = {first, second};
    char conf[500];
    char mesh[600];
    struct service *s = calloc(1, sizeof(*s));
    s->hbone = hbone;
    s->w = world_new_explicit("tcp", ALLOW, true);
    s->port = free_port(&s->held[0]);
    s->tls = free_port(&s->held[1]);
    s->backend = free_port(&s->held[2]);
    s->workload = listen_at("0.0.0.0", s->backend);
    client_port = s->port;
    for (int i = 0; i < 2; i++) {
        if (ids[i] != NULL) {
            start_end(s, i, ids[i]);
        }
    }
    uint16_t at = hbone ? s->backend : s->tls;
    char transport[60] = "";
    if (hbone) {
        snprintf(transport, sizeof(transport), ", transport: hbone, hbone_port: %u", s->tls);
    }
    snprintf(mesh, sizeof(mesh),
             "kind: Mesh\nlevel: 1\nservices: [{name: s, addresses: [10.99.0.1], ports: [{port: "
             "80}], endpoints: ['127.0.0.1:%u', '127.0.0.2:%u'], identities: ['%s']%s, ejection: "
             "{after: 3, time: 1h, max_time: 1h}}]\n",
             at, at, SERVER, transport);
    snprintf(conf, sizeof(conf),
             "{kind: Proxy, level: 1, identity: {socket: 'unix:/nowhere', wait: 300ms}, mesh: "
             "mesh.yaml, timeouts: {connect: 2s, handshake: 2s}, listeners: [{name: out, "
             "direction: outbound, capture: intercepted, address: '127.0.0.1:%u'}]}\n",
             s->port);
    s->client.identity = make_identity(s->w, "spiffe://a.b/client");
    s->client.mesh = mesh;
    side_start(&s->client, conf, NULL);
    s->client.mesh = NULL;
    return s;
}

static void stop_end(struct service *s, int i)
{
    if (s->ends[i].worker != NULL) {
        side_stop(&s->ends[i]);
        s->ends[i].worker = NULL;
    }
}

static void end(struct service *s)
{
    side_stop(&s->client);
    stop_end(s, 0);
    stop_end(s, 1);
    close(s->workload);
    for (int i = 0; i < 3; i++) {
        close(s->held[i]);
    }
    world_free(s->w);
    free(s);
}

/* One that goes through, to whichever; what listens in an endpoint's place (-1: nothing) says
 * nothing, or resets. True: that was asked first. */
static bool works(struct service *s, int instead, bool resets)
{
    struct pollfd p[2] = {{.fd = s->workload, .events = POLLIN}, {.fd = instead, .events = POLLIN}};
    struct linger hard = {.l_onoff = 1};
    int c = dial(s->port);
    int silent = -1;
    bool asked = false;
    say(c, "ping");
    for (;;) {
        assert_true(poll(p, 2, WAIT_MS) > 0);
        if (p[0].revents != 0) {
            break;
        }
        silent = accept(instead, NULL, NULL);
        assert_int_not_equal(silent, -1);
        asked = true;
        if (resets) {
            setsockopt(silent, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
            close(silent);
            silent = -1;
        }
    }
    int a = accept(s->workload, NULL, NULL);
    hear(a, "ping");
    say(a, "pong");
    hear(c, "pong");
    close(a);
    hear_end(c);
    close(c);
    if (silent != -1) {
        close(silent);
    }
    return asked;
}

static const char *ejected(struct service *s)
{
    const char *line = log_line(&s->client, "endpoint_ejected", "\"service\":\"s\"");
    expect_in(line, "127.0.0.2:");
    return line;
}

/* --- what is tried elsewhere ------------------------------------------------------------------ */

static void test_nobody_is_right(void **state)
{
    (void)state;
    for (int hbone = 0; hbone < 2; hbone++) {
        struct service *s = begin(hbone, OTHER, OTHER);
        hear_reset(dial(s->port));
        (void)log_line(&s->client, "\"connection\"", "\"reason\":\"handshake_failed\"");
        char text[40];
        for (int i = 1; i <= 2; i++) { /* both were asked, once each */
            snprintf(text, sizeof(text), ":\"127.0.0.%d:", i);
            expect_in(log_line(&s->client, "\"event\":\"handshake_failed\"", text), OTHER);
        }
        struct pollfd p = {.fd = s->workload, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 0), 0);
        const struct conn_counters *n = conn_worker_counters(s->client.worker);
        uint64_t failed = 0;
        for (size_t i = 0; i < CONN_TLS_STEPS; i++) {
            failed += n->handshake_failures[CONF_OUTBOUND][i];
        }
        assert_int_equal(failed, 2);
        end(s);
    }
}

static void test_wrong_identity(void **state)
{
    (void)state;
    for (int hbone = 0; hbone < 2; hbone++) {
        struct service *s = begin(hbone, SERVER, OTHER);
        for (int i = 0; i < 30; i++) {
            works(s, -1, false);
        }
        expect_in(ejected(s), "\"step\":\"handshake\"");
        expect_in(log_line(&s->client, "\"event\":\"handshake_failed\"", OTHER), "127.0.0.2:");
        expect_in(log_line(&s->client, "\"connection\"", "\"reason\":\"done\""),
                  hbone ? "\"transport\":\"hbone\"" : "\"transport\":\"direct\"");
        end(s);
    }
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct service *s = begin(true, SERVER, NULL);
    for (int i = 0; i < 30; i++) {
        works(s, -1, false);
    }
    expect_in(ejected(s), "\"step\":\"connect\"");
    end(s);
}

/* It takes the connection, and then resets it: before our side has seen that it was taken, or when
 * it shakes hands. */
static void test_reset(void **state)
{
    (void)state;
    for (int hbone = 0; hbone < 2; hbone++) {
        struct service *s = begin(hbone, SERVER, NULL);
        int instead = listen_at("127.0.0.2", s->tls);
        for (int i = 0; i < 30; i++) {
            works(s, instead, true);
        }
        (void)ejected(s);
        close(instead);
        end(s);
    }
}

/* It takes the connection, and says nothing: the other has what is left of the time. */
static void test_silent(void **state)
{
    (void)state;
    for (int hbone = 0; hbone < 2; hbone++) {
        struct service *s = begin(hbone, SERVER, NULL);
        int instead = listen_at("127.0.0.2", s->tls);
        for (int i = 0; i < 60 && !works(s, instead, false); i++) {
        }
        expect_in(log_line(&s->client, "\"event\":\"handshake_failed\"", "\"timeout\""),
                  "127.0.0.2:");
        close(instead);
        end(s);
    }
}

/* --- what is counted where ----------------------------------------------------------------------
 */

struct counted {
    unsigned service, ends[2];
};

/* What the map says now, of the one service that it has. */
static struct counted counted(struct service *s)
{
    struct counted n = {.service = 0};
    struct balance_state *b =
        snapshot_balance(s->client.balance, s->client.files, NULL, NULL, os_now_ms());
    assert_int_equal(b->n_sets, 1);
    n.service = b->sets[0].service->open;
    for (size_t i = 0; i < b->sets[0].n; i++) {
        const struct balance_endpoint *e = b->sets[0].endpoints[i];
        n.ends[(ntohl(e->address.in4.sin_addr.s_addr) & 0xff) - 1] = e->open;
    }
    balance_state_unref(b);
    return n;
}

static void assert_counted(struct service *s, unsigned first, unsigned second)
{
    struct counted n = counted(s);
    assert_int_equal(n.service, 1);
    assert_int_equal(n.ends[0], first);
    assert_int_equal(n.ends[1], second);
}

static void remap(struct service *s, const char *name, const char *endpoints, const char *more)
{
    char mesh[600];
    snprintf(mesh, sizeof(mesh),
             "kind: Mesh\nlevel: 1\nservices: [{name: %s, addresses: [10.99.0.1], ports: [{port: "
             "80}], endpoints: [%s], identities: ['%s']%s}]\n",
             name, endpoints, SERVER, more);
    side_mesh(&s->client, mesh);
}

/* A connection stays while its route becomes another: it counts where that leads. */
static void test_recount(void **state)
{
    (void)state;
    for (int hbone = 0; hbone < 2; hbone++) {
        struct service *s = begin(hbone, SERVER, NULL);
        char both[80], other[40], more[60] = "";
        uint16_t at = hbone ? s->backend : s->tls;
        snprintf(both, sizeof(both), "'127.0.0.1:%u', '127.0.0.2:%u'", at, at);
        snprintf(other, sizeof(other), "'127.0.0.2:%u'", at);
        if (hbone) {
            snprintf(more, sizeof(more), ", transport: hbone, hbone_port: %u", s->tls);
        }
        int c = dial(s->port);
        say(c, "a");
        struct pollfd p = {.fd = s->workload, .events = POLLIN};
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        int a = accept(s->workload, NULL, NULL);
        hear(a, "a");
        say(a, "b");
        hear(c, "b");
        assert_counted(s, 1, 0);
        const struct {
            const char *name, *endpoints;
            unsigned first;
        } maps[] = {
            {"t", both, 1},  /* another name for it */
            {"t", other, 0}, /* its endpoint is not listed any more */
            {"t", both, 1},  {"u", other, 0}, {"v", other, 0}, {"s", both, 1},
        };
        for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
            remap(s, maps[i].name, maps[i].endpoints, more);
            say(c, "a"); /* it was looked at, then */
            hear(a, "a");
            assert_counted(s, maps[i].first, 0);
        }
        /* Beyond a limit that came later it stays, and is the one that counts. */
        char limited[120];
        snprintf(limited, sizeof(limited), "%s, limits: {connections: 1}", more);
        remap(s, "w", both, limited);
        hear_reset(dial(s->port));
        log_line(&s->client, "\"connection\"", "destination_limit");
        close(c);
        char byte;
        assert_int_equal(recv(a, &byte, 1, 0), 0);
        close(a);
        log_line(&s->client, "\"connection\"", "\"reason\":\"done\"");
        uint64_t until = os_now_ms() + WAIT_MS;
        struct counted n = counted(s);
        while ((n.service != 0 || n.ends[0] != 0) &&
               os_now_ms() < until) { /* soon after its line */
            (void)poll(NULL, 0, 2);
            n = counted(s);
        }
        assert_true(n.service == 0 && n.ends[0] == 0);
        end(s);
    }
}

/* --- one that dies under load ----------------------------------------------------------------- */

enum { CLIENTS = 4, MORE = 60 };

struct load {
    struct service *s;
    _Atomic bool stop, gone, over; /* gone: the endpoint is; over: all clients are */
    _Atomic unsigned done, came[2];
};
struct load_client {
    struct load *load;
    unsigned lost, lost_late; /* late: it began when the endpoint was gone */
};

/* Echoes on whatever comes, each of one message. */
static void *serve(void *arg)
{
    struct load *l = (struct load *)arg;
    while (!l->over) {
        struct pollfd p = {.fd = l->s->workload, .events = POLLIN};
        struct sockaddr_in at;
        socklen_t len = sizeof(at);
        char text[4];
        int fd = poll(&p, 1, 100) == 1 ? accept(l->s->workload, NULL, NULL) : -1;
        if (fd != -1) {
            (void)getsockname(fd, (struct sockaddr *)&at, &len);
            l->came[(ntohl(at.sin_addr.s_addr) & 0xff) - 1]++;
            if (recv(fd, text, sizeof(text), MSG_WAITALL) == sizeof(text)) {
                (void)send(fd, text, sizeof(text), MSG_NOSIGNAL);
            }
            close(fd);
        }
    }
    return NULL;
}

static bool ask(const struct service *s)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(s->port)};
    struct timeval t = {.tv_sec = WAIT_MS / 1000};
    char text[4];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
    bool ok = connect(fd, (const struct sockaddr *)&in, sizeof(in)) == 0 &&
              send(fd, "ping", 4, MSG_NOSIGNAL) == 4 && recv(fd, text, 4, MSG_WAITALL) == 4;
    close(fd);
    return ok;
}

static void *load_client(void *arg)
{
    struct load_client *c = (struct load_client *)arg;
    struct load *l = c->load;
    while (!l->stop) {
        bool late = l->gone;
        if (ask(l->s)) {
            l->done++;
        } else {
            c->lost++;
            c->lost_late += late;
        }
    }
    return NULL;
}

static void until(const _Atomic unsigned *n, unsigned at_least)
{
    uint64_t end = os_now_ms() + 3 * (uint64_t)WAIT_MS;
    while (*n < at_least) {
        assert_true(os_now_ms() < end);
        poll(NULL, 0, 5);
    }
}

static void test_one_dies_under_load(void **state)
{
    (void)state;
    for (int hbone = 0; hbone < 2; hbone++) {
        struct service *s = begin(hbone, SERVER, SERVER);
        struct load l = {.s = s};
        struct load_client clients[CLIENTS];
        pthread_t threads[CLIENTS + 1];
        assert_int_equal(pthread_create(&threads[CLIENTS], NULL, serve, &l), 0);
        for (int i = 0; i < CLIENTS; i++) {
            clients[i] = (struct load_client){.load = &l};
            assert_int_equal(pthread_create(&threads[i], NULL, load_client, &clients[i]), 0);
        }
        until(&l.came[0], 5);
        until(&l.came[1], 5);
        stop_end(s, 1);
        if (hbone) { /* its session is not taken any more */
            (void)log_line(&s->client, "\"hbone_session\"", ":\"127.0.0.2:");
        }
        l.gone = true;
        until(&l.done, l.done + MORE);
        l.stop = true;
        for (int i = 0; i < CLIENTS; i++) {
            pthread_join(threads[i], NULL);
        }
        l.over = true;
        pthread_join(threads[CLIENTS], NULL);
        for (int i = 0; i < CLIENTS; i++) { /* what was in flight there, and nothing after it */
            assert_true(clients[i].lost <= 1);
            assert_int_equal(clients[i].lost_late, 0);
        }
        end(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_is_right),
        cmocka_unit_test(test_wrong_identity),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_silent),
        cmocka_unit_test(test_recount),
        cmocka_unit_test(test_one_dies_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
