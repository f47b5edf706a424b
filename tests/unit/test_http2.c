/* Requests over HTTP/2 by bytes: what is refused first, then what may not cost us, then the rest.
 */
#include "http2_pair.h"

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define GET ":method", "GET", ":scheme", "https", ":path", "/a", ":authority", "h"

static struct raw *raw_new(struct h2_side *e)
{
    struct raw *r = (struct raw *)calloc(1, sizeof(*r));
    assert_non_null(r);
    memset(e, 0, sizeof(*e));
    side_new(e, true, 1000);
    raw_preface(r);
    raw_say(e, r, 1000);
    return r;
}

static void raw_free(struct h2_side *e, struct raw *r)
{
    side_free(e);
    free(r);
}

/* --- one reading ------------------------------------------------------------------------------ */

static void test_malformed(void **state)
{
    (void)state;
    const char *const *const cases[] = {
        FIELDS(GET, "X-Upper", "a"),
        FIELDS(GET, "", "a"),
        FIELDS(GET, "a b", "c"),
        FIELDS(GET, "a:b", "c"),
        FIELDS(GET, "a", "b\r\nhost: other"),
        FIELDS(GET, "a", "b\nc"),
        FIELDS(GET, "a", "b\rc"),
        FIELDS(GET, "a", " b"),
        FIELDS(GET, "a", "b "),
        FIELDS(GET, "a", "b\x7f"),
        FIELDS(GET, "connection", "close"),
        FIELDS(GET, "keep-alive", "1"),
        FIELDS(GET, "proxy-connection", "close"),
        FIELDS(GET, "transfer-encoding", "chunked"),
        FIELDS(GET, "upgrade", "websocket"),
        FIELDS(GET, "te", "gzip"),
        FIELDS(GET, "te", "trailers, gzip"),
        FIELDS(GET, ":method", "POST"),
        FIELDS(GET, ":path", "/b"),
        FIELDS(GET, ":authority", "h"),
        FIELDS(GET, ":other", "a"),
        FIELDS(GET, ":status", "200"),
        FIELDS(GET, ":protocol", "websocket"),
        FIELDS("a", "b", GET),
        FIELDS(":method", "GET", ":scheme", "https", "a", "b", ":path", "/"),
        FIELDS(":method", "GET", ":scheme", "https", ":authority", "h"),
        FIELDS(":method", "GET", ":path", "/", ":authority", "h"),
        FIELDS(":scheme", "https", ":path", "/", ":authority", "h"),
        FIELDS(":method", "GET", ":scheme", "https", ":path", "", ":authority", "h"),
        FIELDS(":method", "GET", ":scheme", "https", ":path", "a", ":authority", "h"),
        FIELDS(":method", "GET", ":scheme", "https", ":path", "*", ":authority", "h"),
        FIELDS(":method", "GET", ":scheme", "https", ":path", "/ HTTP/1.1\r\na: b", ":authority",
               "h"),
        FIELDS(":method", "G T", ":scheme", "https", ":path", "/", ":authority", "h"),
        FIELDS(":method", "GET", ":scheme", "https", ":path", "/", ":authority", "h\r\na: b"),
        FIELDS(GET, "content-length", "1", "content-length", "1"),
        FIELDS(GET, "content-length", "+1"),
        FIELDS(GET, "content-length", "1"), /* and it ends */
        FIELDS(GET, "host", "h", "host", "h"),
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct h2_side e;
        struct raw *r = raw_new(&e);
        raw_head(r, 1, END_STREAM | END_HEADERS, cases[i]);
        raw_say(&e, r, 1000);
        if (e.n_requests != 0) {
            fail_msg("case %zu: %s", i, e.said);
        }
        assert_int_equal(http2_session_why(e.s), HTTP2_OK); /* the others go on */
        raw_head(r, 3, END_STREAM | END_HEADERS, FIELDS(GET));
        raw_say(&e, r, 1000);
        assert_int_equal(e.n_requests, 1);
        raw_free(&e, r);
    }
}

static void test_body_and_trailers(void **state)
{
    (void)state;
    struct h2_side e;
    struct raw *r = raw_new(&e);
    /* Less and more than was said. */
    raw_head(r, 1, END_HEADERS, FIELDS(GET, "content-length", "3"));
    raw_frame(r, 0, END_STREAM, 1, "ab", 2);
    raw_head(r, 3, END_HEADERS, FIELDS(GET, "content-length", "1"));
    raw_frame(r, 0, END_STREAM, 3, "ab", 2);
    /* Trailers that do not end, have a pseudo field, have upper case. */
    raw_head(r, 5, END_HEADERS, FIELDS(GET));
    raw_head(r, 5, END_HEADERS, FIELDS("a", "b"));
    raw_head(r, 7, END_HEADERS, FIELDS(GET));
    raw_head(r, 7, END_STREAM | END_HEADERS, FIELDS(":path", "/b"));
    raw_head(r, 9, END_HEADERS, FIELDS(GET));
    raw_head(r, 9, END_STREAM | END_HEADERS, FIELDS("A", "b"));
    raw_say(&e, r, 1000);
    (void)carry(&e, NULL, 1000);
    assert_int_equal(e.n_requests, 5);
    expect_not(&e, "ended");
    expect_not(&e, "trailers");
    size_t closed = 0;
    for (const char *p = e.said; (p = strstr(p, "closed 1\n")) != NULL; p++) {
        closed++;
    }
    assert_int_equal(closed, 5);
    raw_free(&e, r);
}

/* What nghttp2 takes and the reader of heads has to see. */
static void test_head_text(void **state)
{
    (void)state;
    struct h2_side e;
    struct raw *r = raw_new(&e);
    raw_head(r, 1, END_STREAM | END_HEADERS,
             FIELDS(":method", "GET", ":scheme", "https", ":authority", "Up.a", ":path", "/p?q=%41",
                    "cookie", "a=1", "x-a", "b c", "te", "trailers", "cookie", "b=2", "empty", ""));
    raw_head(r, 3, END_STREAM | END_HEADERS,
             FIELDS(":method", "GET", ":scheme", "http", ":path", "/", "host", "only"));
    raw_head(r, 5, END_STREAM | END_HEADERS, FIELDS(GET, "host", "H"));
    raw_head(r, 7, END_STREAM | END_HEADERS, FIELDS(GET, "host", "other"));
    raw_head(r, 9, END_STREAM | END_HEADERS,
             FIELDS(":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "h"));
    raw_say(&e, r, 1000);
    expect(&e, "request 1 ends te\nGET /p?q=%41 HTTP/1.1\r\nHost: Up.a\r\nx-a: b c\r\nempty: \r\n"
               "cookie: a=1; b=2\r\n\r\n");
    expect(&e, "request 3 ends\nGET / HTTP/1.1\r\nhost: only\r\n\r\n");
    expect(&e, "request 5 ends\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    expect(&e, "request 7 ends mismatch\n");
    expect(&e, "request 9 ends scheme\n");
    raw_free(&e, r);
}

static void test_no_http2(void **state)
{
    (void)state;
    static const char *const cases[] = {"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                                        "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct h2_side e = {0};
        side_new(&e, true, 1000);
        assert_false(http2_session_feed(e.s, (const uint8_t *)cases[i], strlen(cases[i]), 1000));
        assert_int_equal(http2_session_why(e.s), HTTP2_PROTOCOL);
        assert_true(http2_session_out(e.s)->len >= 17); /* with a last word */
        side_free(&e);
    }
}

/* --- what may not cost us --------------------------------------------------------------------- */

typedef void (*flood_fn)(struct raw *r, uint32_t n);

static void flood_reset(struct raw *r, uint32_t n)
{
    static const uint8_t cancel[4] = {0, 0, 0, 8};
    raw_head(r, 2 * n + 1, END_HEADERS, FIELDS(GET));
    raw_frame(r, 3, 0, 2 * n + 1, cancel, 4);
}

static void flood_ping(struct raw *r, uint32_t n)
{
    (void)n;
    raw_frame(r, 6, 0, 0, "12345678", 8);
}

static void flood_settings(struct raw *r, uint32_t n)
{
    (void)n;
    raw_frame(r, 4, 0, 0, NULL, 0);
}

static void flood_priority(struct raw *r, uint32_t n)
{
    (void)n;
    raw_frame(r, 2, 0, 9, "\0\0\0\0\1", 5);
}

static void flood_update(struct raw *r, uint32_t n)
{
    (void)n;
    raw_frame(r, 8, 0, 0, "\0\0\0\1", 4);
}

static void flood_empty(struct raw *r, uint32_t n)
{
    if (n == 0) {
        raw_head(r, 1, END_HEADERS, FIELDS(GET));
    }
    raw_frame(r, 0, 0, 1, NULL, 0);
}

static void flood_padding(struct raw *r, uint32_t n)
{
    if (n == 0) {
        raw_head(r, 1, END_HEADERS, FIELDS(GET));
    }
    raw_frame(r, 0, 8, 1, "\3\0\0\0", 4);
}

static void flood_malformed(struct raw *r, uint32_t n)
{
    raw_head(r, 2 * n + 1, END_STREAM | END_HEADERS, FIELDS(GET, "connection", "close"));
}

static void flood_continuation(struct raw *r, uint32_t n)
{
    if (n == 0) {
        raw_head(r, 1, 0, FIELDS(GET));
    }
    raw_frame(r, 9, 0, 1, NULL, 0);
}

static void test_floods(void **state)
{
    (void)state;
    static const struct {
        flood_fn fn;
        bool slow; /* at the rate that is honest it goes on */
    } cases[] = {
        {flood_reset, true},    {flood_ping, true},      {flood_settings, true},
        {flood_priority, true}, {flood_update, true},    {flood_empty, true},
        {flood_padding, true},  {flood_malformed, true}, {flood_continuation, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct h2_side e;
        struct raw *r = raw_new(&e);
        uint32_t n = 0;
        for (; n < 3 * HTTP2_CALM_BURST && http2_session_why(e.s) == HTTP2_OK; n++) {
            cases[i].fn(r, n);
            raw_say(&e, r, 1000);
            (void)carry(&e, NULL, 1000);
        }
        assert_true(n <= HTTP2_CALM_BURST + 1);
        assert_true(http2_session_why(e.s) != HTTP2_OK);
        raw_free(&e, r);
        r = raw_new(&e);
        for (n = 0; cases[i].slow && n < 2 * HTTP2_CALM_BURST; n++) {
            cases[i].fn(r, n);
            raw_say(&e, r, 1000 + (n + 1) * (1000 / HTTP2_CALM_RATE));
            (void)carry(&e, NULL, 1000);
            assert_int_equal(http2_session_why(e.s), HTTP2_OK);
        }
        raw_free(&e, r);
    }
}

/* What gRPC does around small calls. */
static void test_honest(void **state)
{
    (void)state;
    static const struct http2_field ok[] = {{{":status", 7}, {"200", 3}, false}};
    struct h2_side e;
    struct raw *r = raw_new(&e);
    for (uint32_t n = 0; n < 3 * HTTP2_CALM_BURST; n++) {
        e.said[0] = '\0';
        raw_head(r, 2 * n + 1, END_HEADERS, FIELDS(GET));
        raw_frame(r, 0, END_STREAM, 2 * n + 1, "hello", 5);
        flood_update(r, n);
        flood_ping(r, n);
        flood_update(r, n);
        raw_say(&e, r, 1000);
        assert_true(
            http2_stream_head(e.by_id[(2 * n + 1) % (2 * SIDE_STREAMS)], ok, 1, false, true));
        (void)carry(&e, NULL, 1000);
        assert_int_equal(http2_session_why(e.s), HTTP2_OK);
    }
    raw_free(&e, r);
}

/* Answers that nobody reads. */
static void test_answers_pile_up(void **state)
{
    (void)state;
    struct h2_side e;
    struct raw *r = raw_new(&e);
    for (unsigned n = 0; n < 2 * HTTP2_CALM_BURST && http2_session_why(e.s) == HTTP2_OK; n++) {
        flood_ping(r, n);
        raw_say(&e, r, 1000 + n * 1000);
    }
    assert_int_equal(http2_session_why(e.s), HTTP2_TOO_MANY_FRAMES);
    raw_free(&e, r);
}

/* A peer that minds no windows and reads nothing: what would give it more is not said twice, and
 * what it sends beyond its window is not taken. */
static void test_updates_pile_up(void **state)
{
    (void)state;
    static const uint8_t bytes[16384];
    struct h2_side e;
    struct raw *r = raw_new(&e);
    raw_head(r, 1, END_HEADERS, FIELDS(GET));
    raw_say(&e, r, 1000);
    (void)carry(&e, NULL, 1000);
    for (unsigned n = 0; n < 4000; n++) {
        raw_frame(r, 0, 0, 1, bytes, sizeof(bytes));
        raw_say(&e, r, 1000);
    }
    assert_true(e.got <= 3 * HTTP2_WINDOW_SESSION);
    assert_true(carry(&e, NULL, 1000) < 1000);
    assert_int_equal(http2_session_why(e.s), HTTP2_PROTOCOL);
    raw_free(&e, r);
}

static void test_head_bomb(void **state)
{
    (void)state;
    struct h2_side e;
    struct raw *r = raw_new(&e);
    uint8_t block[8192];
    size_t n = 0;
    char value[101];
    memset(value, 'v', 100);
    value[100] = '\0';
    const char *const *get = FIELDS(GET);
    for (size_t i = 0; get[i] != NULL; i += 2) {
        n += raw_field(block + n, get[i], get[i + 1]);
    }
    /* Indexed once, then a byte for each of them. */
    size_t at = n;
    n += raw_field(block + n, "bomb", value);
    block[at] = 0x40;
    memset(block + n, 0x80 | 62, 60);
    raw_frame(r, 1, END_STREAM | END_HEADERS, 1, block, n + 60);
    raw_say(&e, r, 1000);
    expect(&e, "request 1 ends long\n"); /* 431, by its owner */
    assert_int_equal(http2_session_why(e.s), HTTP2_OK);
    memset(block, 0x80 | 62, 400);
    raw_frame(r, 1, END_STREAM | END_HEADERS, 3, block, 400);
    raw_say(&e, r, 1000);
    assert_int_equal(http2_session_why(e.s), HTTP2_HEADER_BOMB);
    raw_free(&e, r);
    /* A block that never ends, though not empty. */
    r = raw_new(&e);
    raw_head(r, 1, 0, FIELDS(GET));
    for (unsigned i = 0; i < 100 && http2_session_why(e.s) == HTTP2_OK; i++) {
        n = raw_field(block, "a", "b");
        raw_frame(r, 9, 0, 1, block, n);
        raw_say(&e, r, 1000);
        (void)carry(&e, NULL, 1000);
    }
    assert_true(http2_session_why(e.s) != HTTP2_OK);
    raw_free(&e, r);
}

static void test_slow_head(void **state)
{
    (void)state;
    struct h2_side e = {0};
    side_new(&e, true, 1000); /* that says nothing */
    assert_true(http2_session_tick(e.s, 1000 + HEAD_MS - 1));
    assert_false(http2_session_tick(e.s, 1000 + HEAD_MS));
    assert_int_equal(http2_session_why(e.s), HTTP2_SLOW_HEAD);
    side_free(&e);
    struct raw *r = raw_new(&e);
    assert_true(http2_session_tick(e.s, 5000)); /* nothing was begun */
    raw_head(r, 1, 0, FIELDS(GET));
    raw_say(&e, r, 5000);
    assert_true(http2_session_tick(e.s, 5000 + HEAD_MS - 1));
    assert_false(http2_session_tick(e.s, 5000 + HEAD_MS));
    raw_free(&e, r);
}

static void test_too_many_streams(void **state)
{
    (void)state;
    struct h2_side e;
    struct raw *r = raw_new(&e);
    (void)carry(&e, NULL, 1000);
    raw_frame(r, 4, 1, 0, NULL, 0); /* our settings are known to it */
    for (uint32_t i = 0; i <= HTTP2_STREAMS; i++) {
        raw_head(r, 2 * i + 1, END_HEADERS, FIELDS(GET));
    }
    raw_say(&e, r, 1000);
    (void)carry(&e, NULL, 1000);
    assert_int_equal(e.n_requests, HTTP2_STREAMS);
    assert_int_equal(http2_session_why(e.s), HTTP2_PROTOCOL);
    raw_free(&e, r);
}

/* --- messages --------------------------------------------------------------------------------- */

static const struct http2_field REQUEST[] = {{{":method", 7}, {"POST", 4}, false},
                                             {{":scheme", 7}, {"http", 4}, false},
                                             {{":authority", 10}, {"h", 1}, false},
                                             {{":path", 5}, {"/a", 2}, false},
                                             {{"secret", 6}, {"s", 1}, true}};
static const struct http2_field OK[] = {{{":status", 7}, {"200", 3}, false}};
static const struct http2_field HINTS[] = {{{":status", 7}, {"103", 3}, false},
                                           {{"link", 4}, {"a", 1}, false}};
static const struct http2_field TAIL[] = {{{"grpc-status", 11}, {"0", 1}, false},
                                          {{"empty", 5}, {"", 0}, false}};

static struct http2_stream *ask(struct pair *p)
{
    struct http2_stream *st = &p->client.streams[p->client.n_streams++];
    assert_true(http2_stream_open(p->client.s, st, &p->client, REQUEST, 5, false));
    pair_run(p);
    return st;
}

static void test_exchange(void **state)
{
    (void)state;
    struct pair *p = pair_new();
    struct http2_stream *c = ask(p), *s = p->server.by_id[1];
    expect(&p->server, "request 1\nPOST /a HTTP/1.1\r\nHost: h\r\nsecret: s\r\n\r\n");
    assert_true(http2_stream_send(c, (const uint8_t *)"hello", 5));
    http2_stream_end(c);
    pair_run(p);
    expect(&p->server, "data 1 hello\nended 1\n");
    assert_int_equal(p->client.taken, 5);
    assert_true(http2_stream_head(s, HINTS, 2, true, false));
    assert_true(http2_stream_head(s, OK, 1, false, false));
    assert_true(http2_stream_send(s, (const uint8_t *)"bye", 3));
    assert_true(http2_stream_end_with(s, TAIL, 2));
    pair_run(p);
    expect(&p->client,
           "response 1\nHTTP/1.1 103 \r\nlink: a\r\n\r\nresponse 1\nHTTP/1.1 200 \r\n\r\n"
           "data 1 bye\ntrailers 1 ends\ngrpc-status: 0\r\nempty: \r\n\r\nclosed 0\n");
    expect(&p->server, "closed 0\n");
    assert_int_equal(http2_session_held(p->server.s), 0);
    pair_free(p);
}

/* More than there is room for is refused, and not cut. */
static void test_many_fields(void **state)
{
    (void)state;
    static struct http2_field f[HTTP2_FIELDS_MAX + 1];
    struct pair *p = pair_new();
    http2_stream_end(ask(p));
    f[0] = OK[0];
    for (size_t i = 1; i <= HTTP2_FIELDS_MAX; i++) {
        f[i] = (struct http2_field){STR_LIT("a"), STR_LIT("b"), false};
    }
    pair_run(p);
    struct http2_stream *s = p->server.by_id[1];
    assert_false(http2_stream_head(s, f, HTTP2_FIELDS_MAX + 1, false, false));
    assert_false(http2_stream_end_with(s, f, HTTP2_FIELDS_MAX + 1));
    assert_true(http2_stream_head(s, f, HTTP2_FIELDS_MAX, false, false));
    assert_true(http2_stream_end_with(s, f + 1, HTTP2_FIELDS_MAX));
    pair_run(p);
    expect(&p->client, "closed 0\n");
    pair_free(p);
}

static void test_resets(void **state)
{
    (void)state;
    struct pair *p = pair_new();
    struct http2_stream *c = ask(p);
    http2_stream_reset(p->server.by_id[1], HTTP2_ENHANCE_YOUR_CALM);
    pair_run(p);
    expect(&p->client, "closed 11\n");
    c = ask(p);
    http2_stream_drop(c);
    pair_run(p);
    expect(&p->server, "closed 8\n");
    p->server.deaf = true;
    ask(p);
    expect(&p->client, "closed 7\n");
    pair_free(p);
}

/* Neither more than a window is taken, nor does one stream stop another. */
static void test_back_pressure(void **state)
{
    (void)state;
    static uint8_t bytes[HTTP2_WINDOW_FIRST];
    struct pair *p = pair_new();
    struct http2_stream *c = ask(p);
    p->server.lazy = true;
    for (unsigned i = 0; i < 4; i++) {
        assert_true(http2_stream_send(c, bytes, sizeof(bytes)));
        pair_run(p);
    }
    assert_int_equal(p->server.got, HTTP2_WINDOW_FIRST);
    assert_int_equal(p->client.taken, HTTP2_WINDOW_FIRST);
    assert_int_equal(http2_session_held(p->client.s), 3 * HTTP2_WINDOW_FIRST);
    struct http2_stream *other = ask(p);
    assert_true(http2_stream_send(other, (const uint8_t *)"other", 5));
    pair_run(p);
    expect(&p->server, "data 3 other\n");
    /* Its reader takes some: as much comes after. */
    http2_stream_consumed(p->server.by_id[1], HTTP2_WINDOW_FIRST / 2);
    pair_run(p);
    assert_int_equal(p->server.got, HTTP2_WINDOW_FIRST + HTTP2_WINDOW_FIRST / 2 + 5);
    p->server.lazy = false;
    http2_stream_consumed(p->server.by_id[1], HTTP2_WINDOW_FIRST);
    pair_run(p);
    assert_int_equal(p->server.got, 4 * HTTP2_WINDOW_FIRST + 5);
    assert_int_equal(http2_session_held(p->client.s), 0);
    pair_free(p);
}

static void test_windows_grow(void **state)
{
    (void)state;
    static uint8_t bytes[HTTP2_WINDOW_FIRST];
    struct pair *p = pair_new();
    struct http2_stream *c = ask(p), *s = p->server.by_id[1];
    for (unsigned i = 0; i < 200; i++) {
        assert_true(http2_stream_send(c, bytes, sizeof(bytes)));
        pair_run(p);
    }
    assert_int_equal(p->server.got, 200 * sizeof(bytes));
    assert_int_equal(s->window, HTTP2_WINDOW_MAX);
    http2_stream_drop(s);
    http2_stream_drop(c);
    pair_run(p);
    assert_int_equal(http2_session_held(p->client.s), 0);
    pair_free(p);
}

static void test_goaway(void **state)
{
    (void)state;
    struct pair *p = pair_new();
    struct http2_stream *c = ask(p);
    http2_session_goaway(p->server.s);
    pair_run(p);
    assert_true(http2_session_peer_leaves(p->client.s));
    assert_false(
        http2_stream_open(p->client.s, &p->client.streams[9], &p->client, REQUEST, 5, false));
    http2_session_goaway(p->server.s);
    pair_run(p);
    assert_true(http2_session_make(p->server.s)); /* a stream is left */
    http2_stream_end(c);
    assert_true(http2_stream_head(p->server.by_id[1], OK, 1, false, true));
    pair_run(p);
    expect(&p->client, "closed 0\n");
    assert_false(http2_session_make(p->server.s));
    assert_int_equal(http2_session_why(p->server.s), HTTP2_LEFT);
    pair_free(p);
}

static void test_silence(void **state)
{
    (void)state;
    struct pair *p = pair_new();
    assert_true(http2_session_tick(p->server.s, 1000 + HTTP2_DEAD_MS)); /* nobody waits for it */
    assert_true(http2_session_tick(p->server.s, 1000 + 2 * HTTP2_DEAD_MS));
    ask(p);
    assert_true(http2_session_tick(p->server.s, 1000 + HTTP2_TICK_MS));
    p->now = 1000 + HTTP2_TICK_MS;
    pair_run(p); /* it answers */
    assert_true(http2_session_tick(p->server.s, p->now + HTTP2_DEAD_MS));
    (void)carry(&p->server, NULL, p->now);
    assert_false(http2_session_tick(p->server.s, p->now + 2 * HTTP2_DEAD_MS));
    assert_int_equal(http2_session_why(p->server.s), HTTP2_SILENT);
    pair_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),        cmocka_unit_test(test_body_and_trailers),
        cmocka_unit_test(test_head_text),        cmocka_unit_test(test_no_http2),
        cmocka_unit_test(test_floods),           cmocka_unit_test(test_answers_pile_up),
        cmocka_unit_test(test_updates_pile_up),  cmocka_unit_test(test_honest),
        cmocka_unit_test(test_head_bomb),        cmocka_unit_test(test_slow_head),
        cmocka_unit_test(test_too_many_streams), cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_resets),           cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_windows_grow),     cmocka_unit_test(test_goaway),
        cmocka_unit_test(test_many_fields),      cmocka_unit_test(test_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
