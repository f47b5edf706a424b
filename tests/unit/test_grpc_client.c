/* Our gRPC client against our server; and the pure parts of both. */
#include "grpc_server.h"

/* --- our client --------------------------------------------------------------------------------
 */

struct caller {
    struct fixture *f;
    struct grpc_client *client;
    struct grpc_client_call *call;
    int n_messages, n_ended, n_ready, n_closed;
    size_t n_bytes;
    uint8_t first, last;
    enum grpc_status status;
    char text[200];
    char why[200];
    bool free_in_message;
    int stop_at_messages;
};

static void caller_on_ready(void *arg)
{
    ((struct caller *)arg)->n_ready++;
}

static void caller_on_closed(void *arg, const struct err *why)
{
    struct caller *c = arg;
    c->n_closed++;
    (void)snprintf(c->why, sizeof(c->why), "%.*s", 199, why->what);
    loop_stop(c->f->loop);
}

static void caller_on_message(void *arg, struct str m)
{
    struct caller *c = arg;
    c->n_messages++;
    c->n_bytes = m.n;
    if (m.n > 0) {
        c->first = (uint8_t)m.p[0];
        c->last = (uint8_t)m.p[m.n - 1];
    }
    if (c->free_in_message) {
        c->client = grpc_client_free(c->client);
    }
    if (c->n_messages == c->stop_at_messages) {
        loop_stop(c->f->loop);
    }
}

static void caller_on_end(void *arg, enum grpc_status status, const char *text)
{
    struct caller *c = arg;
    c->n_ended++;
    c->status = status;
    (void)snprintf(c->text, sizeof(c->text), "%s", text);
    c->call = NULL;
    loop_stop(c->f->loop);
}

static const struct grpc_client_handlers caller_handlers = {caller_on_message, caller_on_end};

static void caller_init(struct caller *c, struct fixture *f, const struct grpc_limits *limits)
{
    *c = (struct caller){.f = f, .status = GRPC_UNKNOWN};
    const struct grpc_client_events events = {caller_on_ready, caller_on_closed};
    c->client = grpc_client_new_fd(f->loop, fixture_connect(f), limits, &events, c, NULL);
    assert_non_null(c->client);
}

static void caller_start(struct caller *c, const char *path, bool streaming, struct str message,
                         uint64_t deadline_ms)
{
    static const struct grpc_metadata metadata[] = {{"key", "true"}};
    const struct grpc_request request = {.path = path,
                                         .message = message,
                                         .metadata = metadata,
                                         .n_metadata = 1,
                                         .streaming = streaming,
                                         .deadline_ms = deadline_ms};
    c->call = grpc_client_start(c->client, &request, &caller_handlers, c, NULL);
    assert_non_null(c->call);
}

/* A stream of the server's, of which two messages have come. */
static void stream_open(struct caller *c, struct fixture *f)
{
    caller_init(c, f, NULL);
    caller_start(c, "/T/Stream", true, STR_NONE, 0);
    c->stop_at_messages = 2;
    run(f);
}

static void test_client_unary(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    caller_start(&c, "/T/Checked", false, STR_LIT("hello"), 5000);
    run(&f);
    assert_int_equal(c.status, GRPC_OK);
    assert_int_equal(c.n_messages, 1);
    assert_int_equal(c.n_bytes, 5);
    assert_int_equal(c.n_ready, 1);
    caller_start(&c, "/T/No", false, STR_LIT("hello"), 0);
    run(&f);
    assert_int_equal(c.status, GRPC_PERMISSION_DENIED);
    assert_string_equal(c.text, "100% no: \xc3\xa9?");
    caller_start(&c, "/T/Nope", false, STR_NONE, 0);
    run(&f);
    assert_int_equal(c.status, GRPC_UNIMPLEMENTED);
    caller_start(&c, "/T/Never", false, STR_NONE, 20);
    run(&f);
    assert_int_equal(c.status, GRPC_DEADLINE_EXCEEDED);
    assert_int_equal(c.n_ended, 4);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

/* Larger than any window: goes out as the windows open. */
static void test_client_large(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    char *big = malloc(BIG);
    assert_non_null(big);
    memset(big, 'm', BIG);
    big[0] = 'f';
    big[BIG - 1] = 'l';
    caller_start(&c, "/T/Stream", true, (struct str){big, BIG}, 0);
    c.stop_at_messages = 2;
    run(&f);
    assert_int_equal(c.n_messages, 2);
    assert_int_equal(c.n_bytes, 0); /* the second one is empty */
    assert_int_equal(c.first, 'f');
    assert_int_equal(c.last, 'l');
    assert_true(f.n_drained >= 1);
    assert_int_equal(grpc_call_unsent(f.stream_call), 0);
    grpc_call_finish(f.stream_call, GRPC_OK, NULL);
    run(&f);
    assert_int_equal(c.status, GRPC_OK);
    free(big);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

static void test_bounds_out(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    const struct grpc_limits limits = {.max_call_out_bytes = 200000, .stall_timeout_ms = 50};
    fixture_init(&f, &limits);
    stream_open(&c, &f);
    char *part = calloc(1, 100000);
    assert_non_null(part);
    assert_int_equal(grpc_call_send(f.stream_call, part, 100000), GRPC_SENT);
    assert_int_equal(grpc_call_send(f.stream_call, part, 99990), GRPC_SENT);
    assert_int_equal(grpc_call_send(f.stream_call, part, 1), GRPC_FULL);
    free(part);
    grpc_client_cancel(c.call);
    run(&f); /* until on_cancel of the server's side */
    assert_null(f.stream_call);
    assert_int_equal(f.n_cancelled, 1);
    assert_int_equal(c.n_ended, 0);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

/* What an owner's connections hold is counted, bounded, and all of it given back. */
static void test_account(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    stream_open(&c, &f);
    f.account.max_bytes = f.account.bytes + 1000;
    char part[2000] = {0};
    assert_int_equal(grpc_call_send(f.stream_call, part, sizeof(part)), GRPC_FULL);
    assert_int_equal(grpc_call_send(f.stream_call, part, 900), GRPC_SENT);
    assert_int_equal(grpc_call_send(f.stream_call, part, 100), GRPC_FULL);
    size_t before = f.account.bytes;
    assert_false(grpc_call_hold(f.stream_call, 200));
    assert_true(grpc_call_hold(f.stream_call, 50));
    assert_int_equal(f.account.bytes, before + 50);
    assert_true(grpc_call_hold(f.stream_call, 20));
    assert_int_equal(f.account.bytes, before + 20); /* given back with the call */
    f.account.max_bytes = 64U << 20;
    c.stop_at_messages = 3;
    run(&f);
    grpc_client_free(c.client);
    loop_timer_init(&f.later, f.loop, on_later, &f);
    while (f.n_conns_closed == 0) {
        loop_timer_arm(&f.later, 1);
        run(&f);
    }
    assert_int_equal(f.account.bytes, 0);
    fixture_deinit(&f);
}

static void test_client_of_a_server_that_goes(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    stream_open(&c, &f);
    grpc_server_drain(f.server);
    grpc_call_finish(f.stream_call, GRPC_UNAVAILABLE, "restarting");
    while (c.n_closed == 0) {
        run(&f);
    }
    assert_int_equal(c.status, GRPC_UNAVAILABLE);
    assert_string_equal(c.text, "restarting");
    assert_int_equal(grpc_server_conn_count(f.server), 0);
    assert_null(grpc_client_start(c.client, &(struct grpc_request){.path = "/T/Echo"},
                                  &caller_handlers, &c, NULL));
    grpc_client_free(c.client);

    struct caller d;
    caller_init(&d, &f, NULL); /* a connection during the drain is turned away */
    while (d.n_closed == 0) {
        run(&f);
    }
    grpc_client_free(d.client);
    fixture_deinit(&f);
}

static void test_close_ends_calls(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    stream_open(&c, &f);
    grpc_conn_close(f.conn);
    while (c.n_closed == 0) {
        run(&f);
    }
    assert_int_equal(f.n_cancelled, 1);
    assert_int_equal(c.n_ended, 1);
    assert_int_equal(c.status, GRPC_UNAVAILABLE);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

static void test_free_in_callback(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    c.free_in_message = true;
    caller_start(&c, "/T/Stream", true, STR_LIT("x"), 0);
    run(&f); /* the server sees it go */
    assert_int_equal(c.n_messages, 1);
    assert_int_equal(c.n_ended, 0);
    fixture_deinit(&f);
}

static void test_keepalive(void **state)
{
    (void)state;
    struct fixture f;
    const struct grpc_limits limits = {.keepalive_ms = 20};
    fixture_init(&f, &limits);
    int fd = fixture_connect(&f);
    /* A peer that said hello once and never again. */
    const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    assert_int_equal(write(fd, hello, sizeof(hello) - 1), sizeof(hello) - 1);
    loop_timer_init(&f.later, f.loop, on_guard, &f);
    while (f.n_conns_closed == 0 && !f.timed_out) {
        loop_timer_arm(&f.later, PATIENCE_MS);
        struct loop_timer turn;
        loop_timer_init(&turn, f.loop, (loop_timer_fn)(void (*)(void))loop_stop, f.loop);
        loop_timer_arm(&turn, 5);
        loop_run(f.loop);
        loop_timer_disarm(&turn);
    }
    assert_int_equal(f.n_conns_closed, 1);
    (void)close(fd);
    fixture_deinit(&f);
}

/* --- pure parts --------------------------------------------------------------------------------
 */

static void test_timeout(void **state)
{
    (void)state;
    static const char *const bad[] = {"",    "S",   "1",   "1s",  "123456789S",
                                      "-1S", " 1S", "1 S", "0x1S"};
    uint64_t ms = 77;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(grpc_timeout_parse(str_of(bad[i]), &ms));
    }
    assert_int_equal(ms, 77);
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        {"0S", 0}, {"1H", 3600000}, {"2M", 120000}, {"10S", 10000},     {"7m", 7},
        {"1u", 1}, {"1000u", 1},    {"1001u", 2},   {"99999999n", 100}, {"99999999H", UINT32_MAX}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(grpc_timeout_parse(str_of(good[i].text), &ms));
        assert_int_equal(ms, good[i].ms);
    }
}

static void test_message_text(void **state)
{
    (void)state;
    char out[16];
    assert_int_equal(grpc_message_encode("a%b", out, sizeof(out)), 5);
    assert_string_equal(out, "a%25b");
    /* Never half a character: 'a' and two of three bytes would fit. */
    (void)grpc_message_encode("a\xe2\x82\xac", out, 8);
    assert_string_equal(out, "a");
    (void)grpc_message_decode(STR_LIT("%C3%A9%0A%zz%2"), out, sizeof(out));
    assert_string_equal(out, "\xc3\xa9?%zz%2");
    /* What a terminal would take for an order, written in either way. */
    (void)grpc_message_decode(STR_LIT("a%C2%9B1m\xc2\x85z"), out, sizeof(out));
    assert_string_equal(out, "a?1m?z");
    (void)grpc_message_decode(STR_LIT("12345"), out, 4);
    assert_string_equal(out, "123");
    assert_string_equal(grpc_status_name(GRPC_UNAVAILABLE), "Unavailable");
    assert_string_equal(grpc_status_name((enum grpc_status)99), "Unknown");
}

static void test_splitter(void **state)
{
    (void)state;
    struct grpc_splitter s = {.max_bytes = 10};
    size_t taken = 0;
    struct str m = STR_NONE;
    static const uint8_t large[] = {0, 0, 0, 0, 11};
    assert_int_equal(grpc_splitter_feed(&s, large, 5, &taken, &m), GRPC_SPLIT_TOO_LARGE);
    grpc_splitter_reset(&s);
    static const uint8_t flag[] = {2, 0, 0, 0, 1};
    assert_int_equal(grpc_splitter_feed(&s, flag, 5, &taken, &m), GRPC_SPLIT_COMPRESSED);
    grpc_splitter_reset(&s);
    static const uint8_t two[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 'h', 'i'};
    assert_int_equal(grpc_splitter_feed(&s, two, sizeof(two), &taken, &m), GRPC_SPLIT_MESSAGE);
    assert_int_equal(taken, 5);
    assert_int_equal(m.n, 0);
    assert_true(grpc_splitter_at_end(&s));
    assert_int_equal(grpc_splitter_feed(&s, two + 5, 6, &taken, &m), GRPC_SPLIT_MORE);
    assert_int_equal(taken, 6);
    assert_false(grpc_splitter_at_end(&s));
    assert_int_equal(grpc_splitter_feed(&s, two + 11, 1, &taken, &m), GRPC_SPLIT_MESSAGE);
    assert_true(str_eq(m, STR_LIT("hi")));
    grpc_splitter_reset(&s);
    assert_int_equal(grpc_splitter_held(&s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splitter),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_message_text),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_client_unary),
        cmocka_unit_test(test_client_large),
        cmocka_unit_test(test_bounds_out),
        cmocka_unit_test(test_account),
        cmocka_unit_test(test_client_of_a_server_that_goes),
        cmocka_unit_test(test_close_ends_calls),
        cmocka_unit_test(test_free_in_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
