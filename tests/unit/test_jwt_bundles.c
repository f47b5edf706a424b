/* The stream of key sets against a fake agent on the same loop: what goes wrong first. */
#include <postern/jwt_bundles.h>

#include "fake_agent.h"
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TICK_MS = 2, PATIENCE_MS = 15000 };

#define NO_KEYS "{\"keys\":[]}"
#define OTHER_KEYS "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\"}]}" /* of no use, and no error */

struct test {
    struct loop *loop;
    struct fake_agent *agent;
    struct jwt_bundles *client;
    struct loop_timer tick;
    uint64_t deadline_ms;
    bool (*until)(const struct test *t);
    bool timed_out;

    /* What the client told. */
    char told[200]; /* the last: "td=json " of each */
    unsigned n_told, n_troubles, n_well;
    struct err trouble; /* the last */
};

static void on_sets(void *arg, const struct jwt_key_sets *sets)
{
    struct test *t = arg;
    size_t n = 0;
    assert_ptr_equal(sets, jwt_bundles_get(t->client));
    t->told[0] = '\0';
    for (size_t i = 0; i < sets->n; i++) {
        n += (size_t)snprintf(t->told + n, sizeof(t->told) - n, "%.*s=%.*s ",
                              STR_ARG(sets->items[i].trust_domain), STR_ARG(sets->items[i].json));
    }
    t->n_told++;
}

static void on_trouble(void *arg, const struct err *why)
{
    struct test *t = arg;
    t->n_troubles += why != NULL;
    t->n_well += why == NULL;
    if (why != NULL) {
        t->trouble = *why;
    }
}

static void on_tick(void *arg)
{
    struct test *t = arg;
    t->timed_out = os_now_ms() > t->deadline_ms;
    if (t->timed_out || t->until(t)) {
        loop_stop(t->loop);
    } else {
        loop_timer_arm(&t->tick, TICK_MS);
    }
}

static void run(struct test *t, bool (*until)(const struct test *t), const char *what)
{
    t->until = until;
    t->deadline_ms = os_now_ms() + PATIENCE_MS;
    loop_timer_arm(&t->tick, TICK_MS);
    loop_run(t->loop);
    if (t->timed_out) {
        fail_msg("%s did not happen; last trouble: %s", what, t->trouble.what);
    }
}
#define RUN_UNTIL(t, condition) run(t, condition, #condition)

static int setup(void **state)
{
    struct test *t = mem_must_new(struct test);
    t->loop = loop_new(NULL);
    t->agent = fake_agent_new(t->loop);
    t->agent->jwt[0].name = "spiffe://example.org";
    t->agent->jwt[0].set = NO_KEYS;
    loop_timer_init(&t->tick, t->loop, on_tick, t);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    unsigned without_header = t->agent->n_without_header;
    loop_timer_disarm(&t->tick);
    jwt_bundles_free(t->client);
    fake_agent_free(t->agent);
    loop_free(t->loop);
    free(t);
    return without_header == 0 ? 0 : -1;
}

static void start(struct test *t)
{
    static const struct jwt_bundles_events events = {on_sets, on_trouble};
    const struct jwt_bundles_options o = {.socket = t->agent->path, .check_agent = true};
    struct err err = ERR_INIT;
    t->client = jwt_bundles_new(t->loop, &o, &events, t, &err);
    if (t->client == NULL) {
        fail_msg("%s", err.what);
    }
}

static bool told_once(const struct test *t)
{
    return t->n_told == 1;
}

static bool told_twice(const struct test *t)
{
    return t->n_told == 2;
}

static bool in_trouble(const struct test *t)
{
    return t->n_troubles > 0;
}

static bool well_again(const struct test *t)
{
    return t->n_well > 0;
}

static bool asked_thrice(const struct test *t)
{
    return t->agent->n_jwt >= 3;
}

/* --- what goes wrong -------------------------------------------------------------------------- */
static void test_bad_options(void **state)
{
    static const struct jwt_bundles_events events = {on_sets, on_trouble};
    const struct jwt_bundles_options o = {.socket = "tcp://127.0.0.1:1"};
    struct test *t = *state;
    struct err err = ERR_INIT;
    assert_null(jwt_bundles_new(t->loop, &o, &events, t, &err));
    assert_int_not_equal(err.code, ERR_NONE);
}

static void test_nobody_there(void **state)
{
    struct test *t = *state;
    fake_agent_down(t->agent);
    start(t);
    RUN_UNTIL(t, in_trouble);
    assert_int_equal(t->n_told, 0);
    assert_int_equal(jwt_bundles_get(t->client)->n, 0);
    assert_false(jwt_bundles_answered(t->client));
    fake_agent_up(t->agent);
    RUN_UNTIL(t, told_once);
    assert_int_equal(t->n_troubles, 1); /* said once, however often it was tried */
    assert_int_equal(t->n_well, 1);
    assert_string_equal(t->told, "example.org=" NO_KEYS " ");
}

static void test_denied(void **state)
{
    struct test *t = *state;
    start(t);
    RUN_UNTIL(t, told_once);
    t->agent->jwt_status = GRPC_PERMISSION_DENIED;
    fake_agent_end(t->agent, GRPC_PERMISSION_DENIED);
    RUN_UNTIL(t, told_twice); /* withdrawn */
    assert_string_equal(t->told, "");
    RUN_UNTIL(t, asked_thrice);
    assert_int_equal(t->n_told, 2);
    assert_int_equal(t->n_troubles, 1);
    assert_int_equal(t->trouble.code, ERR_DENIED);
    t->agent->jwt_status = GRPC_OK;
    RUN_UNTIL(t, well_again);
    assert_string_equal(t->told, "example.org=" NO_KEYS " ");
}

static void test_unserved(void **state)
{
    struct test *t = *state;
    t->agent->jwt_status = GRPC_UNIMPLEMENTED;
    start(t);
    RUN_UNTIL(t, asked_thrice);
    assert_int_equal(t->n_told, 1); /* that there are none is an answer, once */
    assert_string_equal(t->told, "");
    assert_true(jwt_bundles_answered(t->client));
    assert_int_equal(t->n_troubles, 1);
    assert_non_null(strstr(t->trouble.advice, "jwks_file"));
}

/* Denied from the start, and none at all, are answers as well; junk is not. */
static void test_first_answer(void **state)
{
    struct test *t = *state;
    t->agent->corrupt = true;
    start(t);
    RUN_UNTIL(t, in_trouble);
    assert_false(jwt_bundles_answered(t->client));
    t->agent->corrupt = false;
    t->agent->jwt[0].name = NULL;
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, told_once);
    assert_string_equal(t->told, "");
    assert_true(jwt_bundles_answered(t->client));
    fake_agent_push(t->agent, false); /* the same again is no news */
    t->agent->jwt[0].name = "spiffe://example.org";
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, told_twice);
    assert_string_equal(t->told, "example.org=" NO_KEYS " ");
}

static void test_denied_first(void **state)
{
    struct test *t = *state;
    t->agent->jwt_status = GRPC_PERMISSION_DENIED;
    start(t);
    RUN_UNTIL(t, told_once);
    assert_true(jwt_bundles_answered(t->client));
    RUN_UNTIL(t, asked_thrice);
    assert_int_equal(t->n_told, 1);
}

/* Junk leaves what there was; a set that cannot be read is none. */
static void test_bad_messages(void **state)
{
    struct test *t = *state;
    start(t);
    RUN_UNTIL(t, told_once);
    t->agent->corrupt = true;
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, in_trouble);
    assert_int_equal(t->n_told, 1);
    assert_int_equal(jwt_bundles_get(t->client)->n, 1);
    t->agent->corrupt = false;
    t->agent->jwt[0].set = "{\"keys\":7}";
    t->agent->jwt[1].name = "spiffe://b.org";
    t->agent->jwt[1].set = NO_KEYS;
    t->agent->jwt[2].name = "spiffe://example.org/ours";
    t->agent->jwt[2].set = NO_KEYS;
    t->agent->jwt[3].name = "spiffe://b.org";
    t->agent->jwt[3].set = OTHER_KEYS;
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, told_twice);
    assert_string_equal(t->told, "b.org=" NO_KEYS " "); /* the first of one name */
    assert_int_equal(t->n_troubles, 2);
}

/* --- what changes ----------------------------------------------------------------------------- */
static void test_changes(void **state)
{
    struct test *t = *state;
    start(t);
    RUN_UNTIL(t, told_once);
    fake_agent_push(t->agent, false); /* the same again is no news */
    t->agent->jwt[0].set = OTHER_KEYS;
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, told_twice);
    assert_string_equal(t->told, "example.org=" OTHER_KEYS " ");
    t->n_told = 1;
    t->agent->jwt[0].name = NULL; /* each message is the whole */
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, told_twice);
    assert_string_equal(t->told, "");
    assert_int_equal(t->n_troubles, 0);
}

/* The agent is away: what there was stays; and it is asked again by itself. */
static void test_away(void **state)
{
    struct test *t = *state;
    start(t);
    RUN_UNTIL(t, told_once);
    fake_agent_down(t->agent);
    RUN_UNTIL(t, in_trouble);
    assert_int_equal(jwt_bundles_get(t->client)->n, 1);
    fake_agent_up(t->agent);
    jwt_bundles_renew(t->client);
    RUN_UNTIL(t, well_again);
    assert_int_equal(t->n_told, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_bad_options),  TEST(test_nobody_there), TEST(test_denied),
        TEST(test_unserved),     TEST(test_first_answer), TEST(test_denied_first),
        TEST(test_bad_messages), TEST(test_changes),      TEST(test_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
