/* Peers that misbehave, refuse or go away. Their bytes are made here where no library would. */
#include <postern/hbone.h>

#include "hbone_pair.h"
#include <errno.h>

/* --- bad cases -------------------------------------------------------------------------------- */

static void test_authority(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        ":",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:080",
        "10.0.0.1:65536",
        "10.0.0.1:+80",
        "10.0.0.1:8 0",
        "10.0.0:80",
        "10.0.0.01:80",
        "[10.0.0.1]:80",
        "fd00::1:80",
        "[fd00::1]",
        "[fd00::1%eth0]:80",
        "[fd00::1:80",
        "web:80",
        "http://10.0.0.1:80",
        " 10.0.0.1:80",
        "10.0.0.1:80 ",
        "[]:80",
        "[fd00::1]80",
        "10.0.0.1:999999",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct net_addr a;
        if (hbone_authority_parse(str_of(bad[i]), &a)) {
            fail_msg("%s", bad[i]);
        }
    }
    static const char *const good[] = {"10.0.0.1:80", "[fd00::1]:65535", "0.0.0.0:1"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct net_addr a;
        char text[NET_ADDR_TEXT_MAX];
        assert_true(hbone_authority_parse(str_of(good[i]), &a));
        assert_string_equal(net_addr_text(&a, text), good[i]);
    }
    struct net_addr a;
    char text[NET_ADDR_TEXT_MAX];
    assert_true(hbone_authority_parse(STR_LIT("[::ffff:10.0.0.1]:80"), &a));
    assert_string_equal(net_addr_text(&a, text), "10.0.0.1:80");
    assert_false(hbone_authority_parse((struct str){"10.0.0.1\0:80", 12}, &a));
}

static const char MAGIC[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void say(struct world *w, const void *p, size_t n)
{
    assert_int_equal(write(w->raw, p, n), n);
}

/* A frame of up to 255 bytes. */
static void frame(struct world *w, uint8_t type, uint8_t flags, uint32_t id, const void *p,
                  size_t n)
{
    uint8_t head[9] = {0,          (uint8_t)(n >> 8),   (uint8_t)n,          type,
                       flags,      (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8),
                       (uint8_t)id};
    say(w, head, sizeof(head));
    say(w, p, n);
}

static void greet(struct world *w)
{
    say(w, MAGIC, sizeof(MAGIC) - 1);
    frame(w, 4, 0, 0, "", 0);
}

/* Reads what came away, so that no end is blocked. */
static size_t drain(struct world *w, uint8_t *p, size_t cap)
{
    size_t all = 0;
    ssize_t n;
    uint8_t part[4096];
    while ((n = read(w->raw, part, sizeof(part))) > 0) {
        size_t take = cap - all < (size_t)n ? cap - all : (size_t)n;
        memcpy(p + all, part, take);
        all += take;
    }
    return all;
}

/* Whether a frame of this type for this stream is among the bytes; ret_code: of a reset. */
static bool has_frame(const uint8_t *p, size_t n, uint8_t type, uint32_t id, uint32_t *ret_code)
{
    for (size_t at = 0; n - at >= 9;) {
        size_t len = (size_t)p[at] << 16 | (size_t)p[at + 1] << 8 | p[at + 2];
        uint32_t of = (uint32_t)p[at + 5] << 24 | (uint32_t)p[at + 6] << 16 |
                      (uint32_t)p[at + 7] << 8 | p[at + 8];
        if (p[at + 3] == type && of == id) {
            *ret_code = len >= 4 ? (uint32_t)p[at + 11] << 8 | p[at + 12] : 0;
            return true;
        }
        at += 9 + (len < n - at - 9 ? len : n - at - 9);
    }
    return false;
}

/* HPACK without indexing or Huffman: a literal field. */
static size_t put_field(uint8_t *p, const char *name, const char *value)
{
    size_t n = strlen(name), v = strlen(value);
    p[0] = 0;
    p[1] = (uint8_t)n;
    memcpy(p + 2, name, n);
    p[2 + n] = (uint8_t)v;
    memcpy(p + 3 + n, value, v);
    return 3 + n + v;
}

static void request(struct world *w, uint32_t id, const char *const *fields)
{
    uint8_t block[255];
    size_t n = 0;
    for (; fields[0] != NULL; fields += 2) {
        n += put_field(block + n, fields[0], fields[1]);
    }
    frame(w, 1, 4, id, block, n);
}

static const char *const CONNECT[] = {":method", "CONNECT", ":authority", "10.0.0.1:80", NULL};

static void test_not_a_connect(void **state)
{
    (void)state;
    static const char *const cases[][9] = {
        {":method", "GET", ":scheme", "https", ":path", "/", ":authority", "10.0.0.1:80", NULL},
        {":method", "CONNECT", NULL},
        {":method", "CONNECT", ":authority", "", NULL},
        {":method", "CONNECT", ":authority", "10.0.0.1:80", ":path", "/", NULL},
        {":method", "CONNECT", ":authority", "10.0.0.1:80", ":scheme", "https", NULL},
        {":method", "CONNECT", ":authority", "10.0.0.1:80", ":protocol", "websocket", NULL},
        {":authority", "10.0.0.1:80", NULL},
        {":method", "CONNECT", ":authority", "10.0.0.1:80", "Upper", "x", NULL},
        {":method", "CONNECT", ":authority", "10.0.0.1:80", ":authority", "10.0.0.1:81", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *w = world_new(2);
        uint8_t answer[4096];
        uint32_t code = 0;
        greet(w);
        request(w, 1, cases[i]);
        settle(w);
        assert_int_equal(w->server.n_users, 0);
        assert_false(w->server.over);
        size_t n = drain(w, answer, sizeof(answer));
        assert_true(has_frame(answer, n, 3, 1, &code)); /* RST_STREAM, perhaps after a 400 */
        assert_int_equal(w->server.bad_requests > 0, has_frame(answer, n, 1, 1, &code));
        request(w, 3, CONNECT); /* others are not harmed */
        settle(w);
        assert_int_equal(w->server.n_users, 1);
        assert_string_equal(w->server.users[0].authority, "10.0.0.1:80");
        world_free(w);
    }
}

static void test_no_http2(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    say(w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    settle(w);
    assert_true(w->server.over);
    assert_int_equal(hbone_session_why(w->server.s), HBONE_PROTOCOL);
    world_free(w);
}

/* Each of these is repeated until the server has had enough. */
enum flood {
    RESETS,
    PINGS,
    SETTINGS,
    EMPTY_DATA,
    UPDATES,
    BAD_REQUESTS,
    PRIORITIES,
    REFUSED,
    LEFT,
    PIECES, /* of a bad request: two that bring nothing */
    N_FLOODS
};

/* A request whose head ends in a frame of its own, with nothing in it. */
static void request_in_pieces(struct world *w, uint32_t id, const char *const *fields)
{
    uint8_t block[255];
    size_t n = 0;
    for (; fields[0] != NULL; fields += 2) {
        n += put_field(block + n, fields[0], fields[1]);
    }
    frame(w, 1, 0, id, block, n);
    frame(w, 9, 4, id, "", 0);
}

static void flood_once(struct world *w, enum flood which, uint32_t id)
{
    static const char *const get[] = {":method", "GET",        ":scheme",     "https", ":path",
                                      "/",       ":authority", "10.0.0.1:80", NULL};
    switch (which) {
    case RESETS:
        request(w, id, CONNECT);
        frame(w, 3, 0, id, "\0\0\0\10", 4);
        break;
    case PINGS:
        frame(w, 6, 0, 0, "12345678", 8);
        break;
    case SETTINGS:
        frame(w, 4, 0, 0, "", 0);
        break;
    case EMPTY_DATA:
        frame(w, 0, 0, 1, "", 0);
        break;
    case UPDATES:
        frame(w, 8, 0, 0, "\0\0\0\1", 4);
        break;
    case BAD_REQUESTS:
        request(w, id, get);
        break;
    case PRIORITIES:
        frame(w, 2, 0, id, "\0\0\0\0\20", 5);
        break;
    case REFUSED: /* by who takes streams, who has no memory for it */
    case LEFT:    /* after we said that we take no more */
        request(w, id, CONNECT);
        break;
    case PIECES:
        request_in_pieces(w, id, get);
        break;
    case N_FLOODS:
        break;
    }
}

static void test_floods(void **state)
{
    (void)state;
    for (unsigned which = 0; which < N_FLOODS; which++) {
        struct world *w = world_new(2);
        uint8_t drop[64];
        greet(w);
        request(w, 1, CONNECT);
        settle(w);
        w->server.refuse_memory = which == REFUSED;
        if (which == LEFT) {
            hbone_session_goaway(w->server.s);
            hbone_session_goaway(w->server.s);
        }
        unsigned n = 0;
        for (; !w->server.over && n < 3 * HTTP2_CALM_BURST; n++) {
            flood_once(w, which, 3 + 2 * n);
            settle(w);
            (void)drain(w, drop, sizeof(drop));
            for (; w->server.n_users > 1; w->server.n_users--) {
                hbone_stream_close(&w->server.users[w->server.n_users - 1].st, true);
            }
        }
        assert_true(w->server.over);
        unsigned burst = which == PIECES ? HTTP2_CALM_BURST / 2U : HTTP2_CALM_BURST;
        assert_true(n >= burst - 3 && n <= burst + 3);
        assert_int_equal(hbone_session_why(w->server.s), HBONE_TOO_MANY_FRAMES);
        world_free(w);
    }
}

/* The same in no hurry is fine. */
static void test_no_flood(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint8_t drop[64];
    greet(w);
    for (unsigned n = 0; n < 3 * HTTP2_CALM_BURST; n++) {
        flood_once(w, PINGS, 0);
        w->now += 1000 / HTTP2_CALM_RATE;
        settle(w);
        (void)drain(w, drop, sizeof(drop));
    }
    assert_false(w->server.over);
    world_free(w);
}

static void test_header_bombs(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint8_t block[250];
    greet(w);
    memset(block, 0x90, sizeof(block)); /* an indexed field, 60 bytes as they are counted */
    frame(w, 1, 0, 1, block, sizeof(block));
    for (unsigned i = 0; i < 3 && !w->server.over; i++) {
        frame(w, 9, 0, 1, block, sizeof(block));
        settle(w);
    }
    assert_true(w->server.over);
    world_free(w);

    /* One long block, in a frame that is announced as such. */
    w = world_new(2);
    greet(w);
    frame(w, 4, 1, 0, "", 0); /* our settings are in force */
    settle(w);
    say(w, "\0\100\1\1\4\0\0\0\1", 9);
    settle(w);
    assert_true(w->server.over);
    assert_int_equal(hbone_session_why(w->server.s), HBONE_HEADER_BOMB);
    world_free(w);

    /* Without end: nothing in them, but many. */
    w = world_new(2);
    greet(w);
    frame(w, 1, 0, 1, "", 0);
    for (unsigned i = 0; i < 100 && !w->server.over; i++) {
        frame(w, 9, 0, 1, "", 0);
        settle(w);
    }
    assert_true(w->server.over);
    world_free(w);
}

static void test_no_memory_for_one(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    w->server.refuse_memory = true;
    struct user *u = open_one(w, "10.0.0.1:80");
    settle(w);
    assert_int_equal(u->st.status, 503);
    assert_false(w->server.over);
    world_free(w);
}

static void test_refused(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    struct user *u = open_one(w, "10.0.0.1:80");
    settle(w);
    assert_int_equal(u->st.status, 0);
    assert_string_equal(w->server.users[0].authority, "10.0.0.1:80");
    hbone_stream_refuse(&w->server.users[0].st, 401);
    u->hungry = true;
    settle(w);
    assert_int_equal(u->st.status, 401);
    assert_true(u->eof);
    assert_int_equal(hbone_session_streams(w->server.s), 0);
    world_free(w);
}

static void test_reset(void **state)
{
    (void)state;
    for (unsigned by_server = 0; by_server < 2; by_server++) {
        struct world *w = world_new(3);
        struct user *far = NULL;
        struct user *near = tunnel(w, &far);
        struct user *other = by_server ? near : far;
        other->hungry = true;
        hbone_stream_close(by_server ? &far->st : &near->st, true);
        settle(w);
        assert_true(other->failed);
        assert_int_equal(other->st.base.sys_errno, ECONNRESET);
        assert_int_equal(stream_write(&other->st.base, (const uint8_t *)"x", 1), STREAM_FAILED);
        world_free(w);
    }
}

static void test_transport_lost(void **state)
{
    (void)state;
    struct world *w = world_new(3);
    struct user *far = NULL;
    struct user *near = tunnel(w, &far);
    (void)shutdown(w->client.transport.fd, SHUT_RDWR);
    settle(w);
    assert_true(w->server.over);
    assert_int_equal(hbone_session_why(w->server.s), HBONE_LOST);
    hbone_session_stop(w->server.s);
    size_t n = 0;
    assert_int_equal(stream_read(&far->st.base, w->server.scratch.plain, 10, &n), STREAM_FAILED);
    assert_int_equal(stream_write(&far->st.base, (const uint8_t *)"x", 1), STREAM_FAILED);
    (void)near;
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_authority),
        cmocka_unit_test(test_not_a_connect),
        cmocka_unit_test(test_no_http2),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_no_flood),
        cmocka_unit_test(test_header_bombs),
        cmocka_unit_test(test_no_memory_for_one),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_transport_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
