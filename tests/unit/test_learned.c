/* What is learned of destinations: for how long, by whom it is replaced, and what is nobody's. */
#include "learned_priv.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct net_addr numbered(uint32_t ip, uint16_t port)
{
    struct net_addr a = {.len = 0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    in.sin_addr.s_addr = htonl(ip);
    assert_true(net_addr_from((struct sockaddr *)&in, sizeof(in), &a));
    return a;
}

static struct net_addr addr6(const char *ip, uint16_t port)
{
    struct net_addr a = {.len = 0};
    struct sockaddr_in6 in = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET6, ip, &in.sin6_addr), 1);
    assert_true(net_addr_from((struct sockaddr *)&in, sizeof(in), &a));
    return a;
}

static void test_nothing(void **state)
{
    (void)state;
    struct net_addr a = numbered(0x0a000001, 15008);
    struct net_addr none = {.len = 0};
    bool changed = true;
    assert_int_equal(learned_ask(NULL, &a, 0), LEARNED_NOTHING);
    assert_int_equal(learned_tell(NULL, &a, LEARNED_TOOK, 0, &changed), 0);
    assert_false(changed);
    assert_int_equal(learned_count(NULL, LEARNED_HBONE), 0);
    struct learned *t = learned_new();
    changed = true;
    assert_int_equal(learned_tell(t, &none, LEARNED_TOOK, 0, &changed), 0); /* a Unix socket's */
    assert_false(changed);
    assert_int_equal(learned_ask(t, &none, 0), LEARNED_NOTHING);
    assert_int_equal(learned_ask(t, &a, 0), LEARNED_NOTHING);
    assert_null(learned_free(t));
    assert_null(learned_free(NULL));
}

static void test_each_by_itself(void **state)
{
    (void)state;
    struct learned *t = learned_new();
    const struct net_addr known = numbered(0x0a000001, 15008);
    const struct net_addr others[] = {
        numbered(0x0a000001, 15009),
        numbered(0x0a000002, 15008),
        addr6("a00:1::", 15008), /* the same bytes */
        addr6("fd00::1", 15008),
    };
    bool changed;
    learned_tell(t, &known, LEARNED_TOOK, 0, &changed);
    assert_true(changed);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(learned_ask(t, &others[i], 1), LEARNED_NOTHING);
    }
    learned_tell(t, &others[3], LEARNED_NOT_HBONE, 0, &changed);
    assert_int_equal(learned_ask(t, &others[3], 1), LEARNED_DIRECT);
    assert_int_equal(learned_ask(t, &known, 1), LEARNED_HBONE);
    assert_int_equal(learned_count(t, LEARNED_HBONE), 1);
    assert_int_equal(learned_count(t, LEARNED_DIRECT), 1);
    learned_free(t);
}

static void test_times(void **state)
{
    (void)state;
    struct learned *t = learned_new();
    const struct net_addr a = numbered(0x0a000001, 15008);
    uint64_t now = 1000;
    bool changed;
    /* Each failure in a row counts twice as long, up to a bound; tried again after each. */
    for (unsigned i = 0; i < LEARNED_DOUBLED_MAX + 3; i++) {
        static const enum learned_try how[] = {LEARNED_REFUSED, LEARNED_SILENT, LEARNED_NOT_HBONE};
        unsigned doubled = i < LEARNED_DOUBLED_MAX ? i : LEARNED_DOUBLED_MAX;
        uint64_t for_ms = learned_tell(t, &a, how[i % 3], now, &changed);
        assert_int_equal(for_ms, (uint64_t)LEARNED_DIRECT_MS << doubled);
        assert_int_equal(changed, i == 0);
        now += for_ms - 1;
        assert_int_equal(learned_ask(t, &a, now), LEARNED_DIRECT);
        assert_int_equal(learned_ask(t, &a, ++now), LEARNED_NOTHING);
    }
    /* Once it was taken all that is forgotten, */
    assert_int_equal(learned_tell(t, &a, LEARNED_TOOK, now, &changed), LEARNED_HBONE_MS);
    assert_true(changed);
    assert_int_equal(learned_ask(t, &a, now + LEARNED_HBONE_MS - 1), LEARNED_HBONE);
    assert_int_equal(learned_ask(t, &a, now + LEARNED_HBONE_MS), LEARNED_NOTHING);
    /* and each further one counts anew. */
    learned_tell(t, &a, LEARNED_TOOK, now + 5, &changed);
    assert_false(changed);
    assert_int_equal(learned_ask(t, &a, now + LEARNED_HBONE_MS), LEARNED_HBONE);
    assert_int_equal(learned_tell(t, &a, LEARNED_REFUSED, now, &changed), LEARNED_DIRECT_MS);
    assert_true(changed);
    assert_int_equal(learned_count(t, LEARNED_HBONE), 0);
    assert_int_equal(learned_count(t, LEARNED_DIRECT), 1);
    learned_free(t);
}

/* Many more than it holds: it stays as big as it is, the newest are in it, and what is known for
 * long does not give way to what is not. */
static void test_full(void **state)
{
    (void)state;
    enum { MANY = 20 * LEARNED_SETS * LEARNED_WAYS };
    struct learned *t = learned_new();
    const struct net_addr kept = numbered(0x0a000001, 15008);
    bool changed;
    learned_tell(t, &kept, LEARNED_TOOK, 0, &changed);
    for (uint32_t i = 0; i < MANY; i++) {
        struct net_addr a = numbered(0x0b000000 + i, 15008);
        learned_tell(t, &a, LEARNED_REFUSED, i / 100, &changed);
        assert_true(changed);
        assert_int_equal(learned_ask(t, &a, i / 100), LEARNED_DIRECT);
    }
    assert_int_equal(learned_ask(t, &kept, MANY / 100), LEARNED_HBONE);
    assert_int_equal(learned_count(t, LEARNED_HBONE), 1);
    assert_int_equal(learned_count(t, LEARNED_DIRECT), LEARNED_SETS * LEARNED_WAYS - 1);
    learned_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_each_by_itself),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
