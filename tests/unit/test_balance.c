/* balance: who is chosen, who is left out and for how long; a clock of the test's and a fixed
 * sequence of random numbers. */
#include <postern/balance.h>

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants these first */
#include <cmocka.h>

struct world {
    struct route_table *table;
    struct balance *registry;
    struct balance_state *state;
    const struct balance_set *set; /* of the first service */
    uint64_t random;
};

static struct route_table *parse(const char *text)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_mesh *mesh = NULL;
    struct route_table *t = NULL;
    if (conf_parse_mesh("m", text, strlen(text), diag, &mesh) == -1) {
        fail_msg("%s", conf_diag_get(diag, 0)->what);
    }
    conf_diag_free(diag);
    assert_int_equal(route_table_new(mesh, &t, NULL), 0);
    conf_mesh_free(mesh);
    return t;
}

static struct route_table *map(const char *endpoints, const char *more)
{
    char text[8192];
    snprintf(text, sizeof(text),
             "kind: Mesh\nlevel: 1\nservices:\n- {name: s, addresses: [10.96.0.1], identities: "
             "['spiffe://t/s'], endpoints: [%s]%s}\n- {name: plain, addresses: [10.96.0.2], "
             "transport: disable}\n",
             endpoints, more);
    return parse(text);
}

static void build(struct world *w, const struct resolve_state *resolved, uint64_t now)
{
    const struct route_table *const tables[] = {w->table, NULL};
    struct balance_state *next = balance_build(
        w->registry,
        &(const struct balance_from){.tables = tables, .n_tables = 2, .resolved = resolved}, now);
    balance_state_unref(w->state);
    w->state = next;
    w->set = balance_find(w->state, route_at(w->table, 0));
    assert_non_null(w->set);
    assert_null(balance_find(w->state, route_at(w->table, 1)));
}

static struct world world_new(const char *endpoints, const char *more)
{
    struct world w = {.table = map(endpoints, more), .registry = balance_new(), .random = 42};
    build(&w, NULL, 0);
    return w;
}

/* The map of `w` is another from now on. */
static void world_change(struct world *w, const char *endpoints, const char *more, uint64_t now)
{
    struct route_table *old = w->table;
    w->table = map(endpoints, more);
    build(w, NULL, now);
    route_table_free(old);
}

static void world_end(struct world *w)
{
    balance_state_unref(w->state);
    balance_free(w->registry);
    route_table_free(w->table);
}

static struct balance_endpoint *at(const struct world *w, const char *ip)
{
    for (size_t i = 0; i < w->set->n; i++) {
        char text[INET6_ADDRSTRLEN];
        const struct net_addr *a = &w->set->endpoints[i]->address;
        bool v4 = a->sa.sa_family == AF_INET;
        inet_ntop(a->sa.sa_family,
                  v4 ? (const void *)&a->in4.sin_addr : (const void *)&a->in6.sin6_addr, text,
                  sizeof(text));
        if (strcmp(text, ip) == 0) {
            return w->set->endpoints[i];
        }
    }
    return NULL;
}

static struct balance_endpoint *choose(struct world *w, uint64_t now)
{
    return balance_choose(w->set, NULL, 0, now, &w->random);
}

static void fail_times(struct world *w, struct balance_endpoint *e, unsigned n, uint64_t now)
{
    for (unsigned i = 0; i < n; i++) {
        (void)balance_failed(w->set, e, now);
    }
}

/* --- leaving out ------------------------------------------------------------------------------ */

static void test_ejected(void **state)
{
    struct world w = world_new("10.0.0.1, 10.0.0.2, 10.0.0.3", "");
    struct balance_endpoint *e = at(&w, "10.0.0.1");
    (void)state;
    assert_false(balance_failed(w.set, e, 100));
    assert_false(balance_failed(w.set, e, 100));
    balance_succeeded(e, 100); /* not in a row */
    assert_false(balance_failed(w.set, e, 100));
    assert_false(balance_failed(w.set, e, 100));
    assert_false(balance_is_ejected(e, 100));
    assert_true(balance_failed(w.set, e, 100));
    assert_true(balance_is_ejected(e, 100));
    assert_true(balance_is_ejected(e, 10099));
    assert_false(balance_is_ejected(e, 10100));
    for (int i = 0; i < 200; i++) {
        assert_ptr_not_equal(choose(&w, 5000), e);
    }
    bool again = false;
    for (int i = 0; i < 200; i++) {
        again = again || choose(&w, 10100) == e;
    }
    assert_true(again);
    assert_int_equal(w.set->service->n_panics, 0);
    world_end(&w);
}

static void test_growing(void **state)
{
    struct world w =
        world_new("10.0.0.1, 10.0.0.2", ", ejection: {after: 2, time: 1s, max_time: 5s}");
    struct balance_endpoint *e = at(&w, "10.0.0.1");
    static const uint64_t want[] = {1000, 2000, 4000, 5000, 5000};
    uint64_t now = 1;
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        fail_times(&w, e, 2, now);
        assert_int_equal(e->ejected_until_ms, now + want[i]);
        now = e->ejected_until_ms;
        balance_succeeded(e, now); /* too short to be forgiven */
    }
    balance_succeeded(e, now + 4999);
    assert_int_equal(e->ejections, 5);
    balance_succeeded(e, now + 5000);
    assert_int_equal(e->ejections, 0);
    fail_times(&w, e, 2, now + 5000);
    assert_int_equal(e->ejected_until_ms, now + 6000);
    assert_int_equal(e->n_ejections, 6);
    world_end(&w);
    w = world_new("10.0.0.1, 10.0.0.2", ", ejection: {after: never}");
    fail_times(&w, at(&w, "10.0.0.1"), 1000, 1);
    assert_false(balance_is_ejected(at(&w, "10.0.0.1"), 1));
    world_end(&w);
}

static void test_at_most_half(void **state)
{
    static const struct {
        const char *endpoints;
        size_t n, most;
    } cases[] = {
        {"10.0.0.1", 1, 0},
        {"10.0.0.1, 10.0.0.2", 2, 1},
        {"10.0.0.1, 10.0.0.2, 10.0.0.3", 3, 1},
        {"10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5", 5, 2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w = world_new(cases[i].endpoints, "");
        size_t ejected = 0;
        for (size_t k = 0; k < cases[i].n; k++) {
            fail_times(&w, w.set->endpoints[k], 10, 1);
            ejected += balance_is_ejected(w.set->endpoints[k], 1);
        }
        assert_int_equal(ejected, cases[i].most);
        assert_non_null(choose(&w, 1));
        assert_int_equal(w.set->service->n_panics, 0);
        world_end(&w);
    }
}

/* The good ones are taken from the map: rather those that failed than nobody. */
static void test_panic(void **state)
{
    struct world w = world_new("10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4", "");
    (void)state;
    fail_times(&w, at(&w, "10.0.0.1"), 3, 1);
    fail_times(&w, at(&w, "10.0.0.2"), 3, 1);
    world_change(&w, "10.0.0.1, 10.0.0.2, 10.0.0.3", "", 2);
    assert_true(balance_is_ejected(at(&w, "10.0.0.1"), 2)); /* kept over the change */
    bool seen[2] = {false, false};
    for (int i = 0; i < 200; i++) {
        struct balance_endpoint *e = choose(&w, 2);
        assert_non_null(e);
        seen[0] = seen[0] || e == at(&w, "10.0.0.1");
        seen[1] = seen[1] || e == at(&w, "10.0.0.3");
    }
    assert_true(seen[0] && seen[1]);
    assert_int_equal(w.set->service->n_panics, 200);
    assert_null(at(&w, "10.0.0.4"));
    world_end(&w);
}

/* --- choosing --------------------------------------------------------------------------------- */

static void test_tried(void **state)
{
    struct world w = world_new("10.0.0.1, 10.0.0.2, 10.0.0.3", "");
    struct balance_endpoint *tried[3];
    (void)state;
    for (size_t n = 0; n < 3; n++) {
        tried[n] = balance_choose(w.set, tried, n, 1, &w.random);
        assert_non_null(tried[n]);
        for (size_t k = 0; k < n; k++) {
            assert_ptr_not_equal(tried[n], tried[k]);
        }
    }
    assert_null(balance_choose(w.set, tried, 3, 1, &w.random));
    world_end(&w);
}

/* Of two endpoints both are looked at, so the one with fewer always gets it. */
static void test_fewest(void **state)
{
    struct world w = world_new("10.0.0.1, 10.0.0.2", "");
    struct balance_endpoint *taken[100];
    (void)state;
    balance_take(at(&w, "10.0.0.1"));
    for (int i = 0; i < 50; i++) {
        assert_ptr_equal(choose(&w, 1), at(&w, "10.0.0.2"));
    }
    balance_give(at(&w, "10.0.0.1"));
    for (size_t i = 0; i < 100; i++) {
        taken[i] = choose(&w, 1);
        balance_take(taken[i]);
    }
    assert_int_equal(at(&w, "10.0.0.1")->open, 50);
    assert_int_equal(at(&w, "10.0.0.2")->open, 50);
    for (size_t i = 0; i < 100; i++) {
        balance_give(taken[i]);
    }
    world_end(&w);
}

/* Of many, two choices keep the fullest near the mean; one choice would not. */
static void test_spread(void **state)
{
    char endpoints[1024] = "10.0.0.1";
    struct balance_endpoint *taken[2000];
    (void)state;
    for (int i = 2; i <= 20; i++) {
        char one[32];
        snprintf(one, sizeof(one), ", 10.0.0.%d", i);
        strcat(endpoints, one);
    }
    struct world w = world_new(endpoints, "");
    assert_int_equal(w.set->n, 20);
    for (size_t i = 0; i < 2000; i++) {
        taken[i] = choose(&w, 1);
        balance_take(taken[i]);
    }
    for (size_t i = 0; i < 20; i++) {
        uint32_t open = w.set->endpoints[i]->open;
        assert_true(open >= 95 && open <= 105);
    }
    for (size_t i = 0; i < 2000; i++) {
        balance_give(taken[i]);
    }
    world_end(&w);
}

/* --- names ------------------------------------------------------------------------------------ */

static struct net_addr addr(const char *ip)
{
    struct net_addr a = {.len = 0};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, ip, &in4.sin_addr) == 1) {
        assert_true(net_addr_from((struct sockaddr *)&in4, sizeof(in4), &a));
    } else {
        assert_int_equal(inet_pton(AF_INET6, ip, &in6.sin6_addr), 1);
        assert_true(net_addr_from((struct sockaddr *)&in6, sizeof(in6), &a));
    }
    return a;
}

static void test_names(void **state)
{
    static char name[] = "h.x";
    struct net_addr list[] = {addr("10.0.0.7"), addr("169.254.169.254"), addr("127.0.0.1"),
                              addr("0.0.0.0"),  addr("10.0.0.1"),        addr("fd00::7")};
    struct resolve_host h = {.host = name, .addrs = list, .n_addrs = 6, .n_preferred = 5};
    struct resolve_state resolved = {.hosts = &h, .n_hosts = 1};
    struct world w = world_new("10.0.0.1, h.x", "");
    (void)state;
    assert_int_equal(w.set->n, 1); /* nothing is known of the name */
    assert_true(w.set->named);
    build(&w, &resolved, 1);
    assert_int_equal(w.set->n, 2); /* and no address twice */
    assert_non_null(at(&w, "10.0.0.7"));
    assert_null(at(&w, "169.254.169.254"));
    assert_null(at(&w, "127.0.0.1"));
    /* Who is connected, or left out, is known still when the address comes back. */
    struct balance_endpoint *e = at(&w, "10.0.0.7");
    balance_take(e);
    fail_times(&w, e, 3, 1);
    h.n_addrs = h.n_preferred = 0;
    build(&w, &resolved, 2);
    assert_int_equal(w.set->n, 1);
    balance_give(e);
    h.n_addrs = h.n_preferred = 1;
    build(&w, &resolved, 3);
    assert_true(balance_is_ejected(at(&w, "10.0.0.7"), 3));
    world_end(&w);
    w = world_new("h.x", "");
    assert_int_equal(w.set->n, 0);
    assert_null(choose(&w, 1));
    world_end(&w);
}

/* --- services --------------------------------------------------------------------------------- */

static void test_service_limit(void **state)
{
    struct world w = world_new("10.0.0.1", ", limits: {connections: 2}");
    struct balance_service *s = w.set->service;
    uint32_t max = w.set->route->max_connections;
    (void)state;
    assert_int_equal(max, 2);
    assert_true(balance_service_take(s, max));
    assert_true(balance_service_take(s, max));
    assert_false(balance_service_take(s, max));
    assert_int_equal(s->n_refused, 1);
    world_change(&w, "10.0.0.1", ", limits: {connections: 3}", 1); /* those that are open count */
    assert_ptr_equal(w.set->service, s);
    assert_true(balance_service_take(s, 3));
    assert_false(balance_service_take(s, 3));
    for (int i = 0; i < 3; i++) {
        balance_service_give(s);
    }
    assert_true(balance_service_take(s, 1));
    balance_service_give(s);
    world_end(&w);
}

/* Any course of events: never all left out, never more than half by failures alone, what is open
 * adds up, and somebody is always found. */
static void test_random_worlds(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        char endpoints[512] = "10.0.0.1";
        uint64_t r = seed;
        size_t n = 1 + balance_random(&r) % 8;
        for (size_t i = 2; i <= n; i++) {
            char one[32];
            snprintf(one, sizeof(one), ", 10.0.0.%zu", i);
            strcat(endpoints, one);
        }
        struct world w = world_new(endpoints, ", ejection: {after: 2, time: 1s, max_time: 8s}");
        w.random = seed;
        uint64_t now = 1;
        struct balance_endpoint *open[16];
        size_t n_open = 0;
        for (int step = 0; step < 300; step++) {
            now += balance_random(&r) % 700;
            struct balance_endpoint *e = choose(&w, now);
            assert_non_null(e);
            size_t ejected = 0;
            for (size_t i = 0; i < w.set->n; i++) {
                ejected += balance_is_ejected(w.set->endpoints[i], now);
            }
            assert_true(ejected * 2 <= w.set->n);
            assert_false(balance_is_ejected(e, now));
            switch (balance_random(&r) % 3) {
            case 0:
                (void)balance_failed(w.set, e, now);
                break;
            case 1:
                balance_succeeded(e, now);
                break;
            default:
                if (n_open == 16) {
                    balance_give(open[--n_open]);
                }
                balance_take(e);
                open[n_open++] = e;
            }
        }
        size_t sum = 0;
        for (size_t i = 0; i < w.set->n; i++) {
            sum += w.set->endpoints[i]->open;
        }
        assert_int_equal(sum, n_open);
        while (n_open > 0) {
            balance_give(open[--n_open]);
        }
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_most_half),  cmocka_unit_test(test_panic),
        cmocka_unit_test(test_ejected),       cmocka_unit_test(test_growing),
        cmocka_unit_test(test_names),         cmocka_unit_test(test_tried),
        cmocka_unit_test(test_fewest),        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_service_limit), cmocka_unit_test(test_random_worlds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
