/* Sessions between two ends that behave: flow control, ends in order, keep-alive, leaving. */
#include <postern/hbone.h>

#include "hbone_pair.h"

/* --- flow ------------------------------------------------------------------------------------- */

static void test_half_close(void **state)
{
    (void)state;
    for (unsigned by_server = 0; by_server < 2; by_server++) {
        struct world *w = world_new(3);
        struct user *far = NULL;
        struct user *near = tunnel(w, &far);
        struct user *first = by_server ? far : near;
        struct user *second = by_server ? near : far;
        first->hungry = second->hungry = true;
        assert_int_equal(stream_write(&first->st.base, (const uint8_t *)"last", 4), STREAM_OK);
        assert_int_equal(stream_shut(&first->st.base), STREAM_OK);
        settle(w);
        assert_true(second->eof && !second->failed);
        assert_int_equal(second->sum, 'l' + 'a' + 's' + 't');
        assert_int_equal(stream_write(&second->st.base, (const uint8_t *)"more", 4), STREAM_OK);
        settle(w);
        assert_false(first->eof);
        assert_int_equal(first->sum, 'm' + 'o' + 'r' + 'e');
        assert_int_equal(stream_shut(&second->st.base), STREAM_OK);
        settle(w);
        assert_true(first->eof && !first->failed && !second->failed);
        hbone_stream_close(&first->st, false);
        hbone_stream_close(&second->st, false);
        settle(w);
        assert_int_equal(hbone_session_streams(w->client.s), 0);
        assert_int_equal(hbone_session_held(w->client.s), 0);
        world_free(w);
    }
}

/* Closed in order by one side alone: the other sees an end, not a reset. */
static void test_closed_in_order(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    struct user *far = NULL;
    struct user *near = tunnel(w, &far);
    near->hungry = true;
    assert_int_equal(stream_write(&far->st.base, (const uint8_t *)"x", 1), STREAM_OK);
    hbone_stream_close(&far->st, false);
    settle(w);
    assert_int_equal(near->sum, 'x');
    assert_true(near->eof);
    world_free(w);
}

/* Writes as a pump does: no more while it is blocked. Returns what went in. */
static uint64_t write_until_blocked(struct user *u, uint64_t most)
{
    uint64_t n = 0;
    size_t part = NET_SCRATCH_SIZE - HBONE_READ_ROOM;
    while (n < most && !stream_blocked(&u->st.base)) {
        memset(u->end->scratch.plain, 7, part);
        assert_int_equal(stream_write(&u->st.base, u->end->scratch.plain, part), STREAM_OK);
        n += part;
    }
    return n;
}

static void test_slow_reader(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    struct user *far = NULL;
    struct user *near = tunnel(w, &far);
    uint64_t sent = 0, n;
    do {
        n = write_until_blocked(near, UINT64_MAX);
        settle(w);
        sent += n;
    } while (n > 0);
    /* One window there, one write here, and no more. */
    assert_int_equal(hbone_session_held(w->server.s), HBONE_WINDOW_FIRST);
    assert_true(hbone_session_held(w->client.s) <= NET_SCRATCH_SIZE);
    assert_true(sent <= HBONE_WINDOW_FIRST + NET_SCRATCH_SIZE);
    hbone_stream_want(&near->st, WRITE);
    near->ready = 0;
    settle(w);
    assert_int_equal(near->ready, 0);
    /* It wakes up: all of it comes, and the writer is told. */
    far->hungry = true;
    hbone_stream_want(&far->st, READ);
    settle(w);
    assert_int_equal(near->ready & WRITE, WRITE);
    assert_int_equal(far->sum, 7 * sent);
    assert_int_equal(hbone_session_held(w->server.s), 0);
    assert_int_equal(hbone_session_held(w->client.s), 0);
    world_free(w);
}

/* As many streams as there may be, all stuck: one more gets through. */
static void test_stuck_streams(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    struct user *far = NULL;
    for (size_t i = 0; i < HBONE_CLIENT_STREAMS - 1; i++) {
        struct user *near = tunnel(w, &far);
        if (i < 4) { /* these have grown before they got stuck */
            far->hungry = true;
            for (unsigned k = 0; k < 40; k++) {
                (void)write_until_blocked(near, UINT64_MAX);
                settle(w);
            }
            assert_true(far->st.window > HBONE_WINDOW_FIRST);
            far->hungry = false;
        }
        for (uint64_t n = 1; n > 0;) {
            n = write_until_blocked(near, UINT64_MAX);
            settle(w);
        }
    }
    assert_true(hbone_session_held(w->server.s) <= HBONE_WINDOW_SESSION);
    struct user *near = tunnel(w, &far);
    assert_int_equal(hbone_session_room(w->client.s), 0);
    far->hungry = true;
    uint64_t sent = 0;
    for (unsigned k = 0; k < 100; k++) {
        sent += write_until_blocked(near, UINT64_MAX);
        settle(w);
    }
    assert_int_equal(far->sum, 7 * sent);
    assert_true(sent >= 100 * (uint64_t)(NET_SCRATCH_SIZE - HBONE_READ_ROOM));
    world_free(w);
}

/* 64 MiB each way at once, on many streams, read by either way of reading. */
static void test_bulk(void **state)
{
    (void)state;
    enum { N = 16 };
    const uint64_t each = (uint64_t)64 * 1024 * 1024 / N;
    for (unsigned taken = 0; taken < 2; taken++) {
        struct world *w = world_new(3);
        struct user *near[N], *far[N];
        uint64_t sent[N][2] = {{0}};
        w->server.take = w->client.take = taken;
        for (size_t i = 0; i < N; i++) {
            near[i] = tunnel(w, &far[i]);
            near[i]->hungry = far[i]->hungry = true;
        }
        bool more = true;
        while (more) {
            more = false;
            for (size_t i = 0; i < N; i++) {
                sent[i][0] += write_until_blocked(near[i], each - sent[i][0]);
                sent[i][1] += write_until_blocked(far[i], each - sent[i][1]);
                more = more || sent[i][0] < each || sent[i][1] < each;
            }
            settle(w);
        }
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(far[i]->sum, 7 * sent[i][0]);
            assert_int_equal(near[i]->sum, 7 * sent[i][1]);
            assert_false(near[i]->failed || far[i]->failed);
        }
        assert_int_equal(w->server.taken > 0, taken);
        assert_int_equal(hbone_session_held(w->server.s), 0);
        world_free(w);
    }
}

/* Sessions share what their windows may grow by: one gets what another gave back. */
static void test_grown_of_all(void **state)
{
    (void)state;
    uint64_t grown = HBONE_WINDOW_GROWN - HBONE_WINDOW_FIRST;
    struct world *w = world_new(2);
    hbone_session_free(w->server.s);
    const struct hbone_spec spec = {.server = true,
                                    .transport = &w->server.transport,
                                    .scratch = &w->server.scratch,
                                    .ops = &OPS,
                                    .arg = &w->server,
                                    .grown = &grown,
                                    .now_ms = w->now};
    w->server.s = hbone_session_new(&spec);
    begin(w, &w->client, false, w->raw);
    w->raw = -1;
    struct user *far = NULL;
    for (unsigned i = 0; i < 3; i++) {
        struct user *near = tunnel(w, &far);
        far->hungry = true;
        for (unsigned k = 0; k < 10; k++) {
            (void)write_until_blocked(near, UINT64_MAX);
            settle(w);
        }
        assert_int_equal(far->st.window, i == 0 ? 2 * HBONE_WINDOW_FIRST : HBONE_WINDOW_FIRST);
        assert_int_equal(grown, HBONE_WINDOW_GROWN);
    }
    hbone_session_stop(w->server.s);
    assert_int_equal(grown, HBONE_WINDOW_GROWN - HBONE_WINDOW_FIRST);
    world_free(w);
}

/* A stream that ended gives its part of the session's window back. */
static void test_windows_come_back(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    uint32_t first = 0;
    for (unsigned i = 0; i < 8; i++) {
        struct user *far = NULL;
        struct user *near = tunnel(w, &far);
        far->hungry = true;
        for (unsigned k = 0; k < 100; k++) {
            (void)write_until_blocked(near, UINT64_MAX);
            settle(w);
        }
        first = i == 0 ? far->st.window : first;
        assert_int_equal(far->st.window, first);
        hbone_stream_close(&near->st, true);
        hbone_stream_close(&far->st, true);
        settle(w);
        w->client.n_users = w->server.n_users = 0;
        memset(w->client.users, 0, sizeof(w->client.users));
        memset(w->server.users, 0, sizeof(w->server.users));
    }
    assert_int_equal(first, HBONE_WINDOW_MAX);
    world_free(w);
}

/* --- sessions --------------------------------------------------------------------------------- */

static void test_keep_alive(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    settle(w);
    for (unsigned i = 0; i < 10; i++) {
        w->now += HBONE_TICK_MS;
        assert_true(hbone_session_tick(w->server.s, w->now));
        settle(w);
    }
    w->now += HBONE_TICK_MS;
    assert_true(hbone_session_tick(w->server.s, w->now));
    w->now += HBONE_TICK_MS;
    assert_true(hbone_session_tick(w->server.s, w->now));
    w->now += HBONE_TICK_MS;
    assert_false(hbone_session_tick(w->server.s, w->now));
    assert_int_equal(hbone_session_why(w->server.s), HBONE_SILENT);
    world_free(w);
}

static void test_goaway(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    struct user *far = NULL;
    struct user *near = tunnel(w, &far);
    near->hungry = far->hungry = true;
    assert_int_equal(hbone_session_room(w->client.s), HBONE_CLIENT_STREAMS - 1);
    hbone_session_goaway(w->server.s);
    struct user *late = open_one(w, "10.0.0.1:81"); /* before it has heard of it */
    settle(w);
    assert_int_equal(w->server.n_users, 2);
    assert_int_equal(hbone_session_room(w->client.s), 0);
    hbone_session_goaway(w->server.s);
    settle(w);
    assert_int_equal(stream_write(&near->st.base, (const uint8_t *)"x", 1), STREAM_OK);
    settle(w);
    assert_int_equal(far->sum, 'x'); /* what is open goes on */
    hbone_stream_close(&near->st, true);
    hbone_stream_close(&late->st, true);
    settle(w);
    assert_true(w->server.over || w->client.over);
    world_free(w);
}

/* One that comes when we leave is refused unseen, so that it can go elsewhere. */
static void test_too_late(void **state)
{
    (void)state;
    for (unsigned on_its_way = 0; on_its_way < 2; on_its_way++) {
        struct world *w = world_new(3);
        struct user *far = NULL;
        struct user *near = tunnel(w, &far);
        hbone_session_goaway(w->server.s);
        hbone_session_goaway(w->server.s);
        if (!on_its_way) { /* GOAWAY is out when the request is read, else it is not */
            assert_true(hbone_session_turn(w->server.s));
        }
        struct user *late = open_one(w, "10.0.0.1:81");
        settle(w);
        assert_int_equal(w->server.n_users, 1);
        assert_true(late->st.reset);
        assert_int_equal(late->st.error, HBONE_ERROR_REFUSED);
        assert_int_equal(near->st.status, 200);
        assert_false(near->st.reset);
        world_free(w);
    }
}

/* One that waits for its turn when the peer says that it leaves has none any more. */
static void test_never_sent(void **state)
{
    (void)state;
    static const uint8_t one_at_once[] = {0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1};
    static const uint8_t goaway[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0};
    struct world *w = world_new(1);
    struct user *first = open_one(w, "10.0.0.1:80");
    struct user *waits = open_one(w, "10.0.0.1:81");
    assert_int_equal(write(w->raw, one_at_once, sizeof(one_at_once)), sizeof(one_at_once));
    (void)turn(w, &w->client);
    assert_true(first->st.asked);
    assert_false(waits->st.asked || waits->st.reset);
    assert_int_equal(write(w->raw, goaway, sizeof(goaway)), sizeof(goaway));
    (void)turn(w, &w->client);
    assert_true(waits->st.reset);
    assert_int_equal(waits->st.error, HBONE_ERROR_REFUSED);
    assert_false(waits->st.asked || first->st.reset);
    hbone_stream_close(&waits->st, true);
    (void)turn(w, &w->client);
    assert_false(w->client.over);
    world_free(w);
}

static void test_hundred(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    for (size_t i = 0; i < HBONE_CLIENT_STREAMS; i++) {
        struct user *far = NULL;
        struct user *near = tunnel(w, &far);
        near->hungry = far->hungry = true;
    }
    assert_int_equal(hbone_session_room(w->client.s), 0);
    for (size_t i = 0; i < HBONE_CLIENT_STREAMS; i++) {
        uint8_t b = (uint8_t)(i + 1);
        assert_int_equal(stream_write(&w->client.users[i].st.base, &b, 1), STREAM_OK);
    }
    size_t before = w->client.transport.bytes_written;
    settle(w);
    assert_true(w->client.transport.bytes_written > before); /* in one go, at the turn's end */
    for (size_t i = 0; i < HBONE_CLIENT_STREAMS; i++) {
        assert_int_equal(w->server.users[i].sum, i + 1);
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_closed_in_order),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_stuck_streams),
        cmocka_unit_test(test_bulk),
        cmocka_unit_test(test_grown_of_all),
        cmocka_unit_test(test_windows_come_back),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_goaway),
        cmocka_unit_test(test_too_late),
        cmocka_unit_test(test_never_sent),
        cmocka_unit_test(test_hundred),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
