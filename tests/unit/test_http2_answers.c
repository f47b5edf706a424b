/* What goes out beside an answer over HTTP/2. */
#include "http2_pair.h"

/* Whether RST_STREAM is among the frames that it has to say, which go nowhere. */
static bool says_reset(struct h2_side *e)
{
    (void)http2_session_make(e->s);
    struct buf *out = http2_session_out(e->s);
    const uint8_t *p = buf_head(out);
    bool found = false;
    for (size_t at = 0, n = out->len; at + 9 <= n;) {
        found = found || p[at + 3] == 3;
        at += 9 + ((size_t)p[at] << 16 | (size_t)p[at + 1] << 8 | p[at + 2]);
    }
    buf_consume(out, out->len);
    return found;
}

/* It was said of every request without a body that its answer was whole before the workload's
 * stream had ended: that is what a RST_STREAM is for which stops a body. */
static void test_nothing_left_to_refuse(void **state)
{
    (void)state;
    static const struct http2_field get[] = {{{":method", 7}, {"GET", 3}, false},
                                             {{":scheme", 7}, {"http", 4}, false},
                                             {{":path", 5}, {"/", 1}, false},
                                             {{":authority", 10}, {"a", 1}, false}};
    static const struct http2_field ok[] = {{{":status", 7}, {"200", 3}, false}};
    for (unsigned body = 0; body < 2; body++) {
        struct pair *p = pair_new();
        struct http2_stream *st = &p->client.streams[p->client.n_streams++];
        assert_true(http2_stream_open(p->client.s, st, &p->client, get, 4, body == 0));
        pair_run(p);
        p->server.by_id[1]->unwanted = true;
        assert_true(http2_stream_head(p->server.by_id[1], ok, 1, false, true));
        assert_int_equal(says_reset(&p->server), body == 1);
        pair_free(p);
    }
}

/* How many DATA frames it has to say, and whether the last one ends its stream. */
static unsigned data_frames(struct h2_side *e, bool *ret_ends)
{
    unsigned n = 0;
    (void)http2_session_make(e->s);
    struct buf *out = http2_session_out(e->s);
    const uint8_t *p = buf_head(out);
    *ret_ends = false;
    for (size_t at = 0, len = out->len; at + 9 <= len;) {
        if (p[at + 3] == 0) {
            n++;
            *ret_ends = (p[at + 4] & 1) != 0;
        }
        at += 9 + ((size_t)p[at] << 16 | (size_t)p[at + 1] << 8 | p[at + 2]);
    }
    buf_consume(out, out->len);
    return n;
}

/* An answer of one piece was two frames, the second one empty. */
static void test_end_is_in_the_last_frame(void **state)
{
    (void)state;
    static const struct http2_field get[] = {{{":method", 7}, {"GET", 3}, false},
                                             {{":scheme", 7}, {"http", 4}, false},
                                             {{":path", 5}, {"/", 1}, false},
                                             {{":authority", 10}, {"a", 1}, false}};
    static const struct http2_field ok[] = {{{":status", 7}, {"403", 3}, false}};
    for (unsigned last = 0; last < 3; last++) {
        struct pair *p = pair_new();
        struct http2_stream *st = &p->client.streams[p->client.n_streams++];
        bool ends = false;
        assert_true(http2_stream_open(p->client.s, st, &p->client, get, 4, true));
        pair_run(p);
        struct http2_stream *answer = p->server.by_id[1];
        assert_true(http2_stream_head(answer, ok, 1, false, false));
        if (last == 0) { /* what it was before */
            assert_true(http2_stream_send(answer, (const uint8_t *)"denied", 6));
            http2_stream_end(answer);
        } else {
            assert_true(
                http2_stream_send_last(answer, (const uint8_t *)"denied", last == 1 ? 6 : 0));
        }
        assert_int_equal(data_frames(&p->server, &ends), last == 0 ? 2 : 1);
        assert_true(ends);
        pair_free(p);
    }
}

/* The last bytes of a body and its end are one thing, which is not said before the message is known
 * to be whole: else its end would be passed on, and the error came too late. */
static void test_last_of_a_body(void **state)
{
    (void)state;
    static const struct {
        const char *length, *first; /* first: in a frame before; NULL: none */
        uint8_t flags;              /* of the last frame */
        const char *last;
        size_t n;
        const char *saw;
        unsigned n_last;
    } cases[] = {
        {"3", NULL, END_STREAM, "ab", 2, "closed 1\n", 0},
        {"1", NULL, END_STREAM, "ab", 2, "closed 1\n", 0},
        {"5", "ab", END_STREAM, "cd", 2, "data 1 ab\nclosed 1\n", 0},
        {"3", NULL, END_STREAM | 8, "\1ab\0", 4, "data 1 ab\nclosed 1\n", 0}, /* padded */
        {"2", "ab", END_STREAM, "", 0, "data 1 ab\nended 1\nclosed 0\n", 0},
        {"2", NULL, END_STREAM | 8, "\1ab\0", 4, "data 1 ab\nended 1\nclosed 0\n", 0},
        {"2", NULL, END_STREAM, "ab", 2, "data 1 ab\nended 1\nclosed 0\n", 1},
        {"4", "ab", END_STREAM, "cd", 2, "data 1 ab\ndata 1 cd\nended 1\nclosed 0\n", 1},
    };
    static const struct http2_field get[] = {{{":method", 7}, {"GET", 3}, false},
                                             {{":scheme", 7}, {"http", 4}, false},
                                             {{":path", 5}, {"/", 1}, false},
                                             {{":authority", 10}, {"a", 1}, false}};
    struct raw *r = (struct raw *)calloc(1, sizeof(*r));
    assert_non_null(r);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair *p = pair_new();
        struct http2_stream *st = &p->client.streams[p->client.n_streams++];
        assert_true(http2_stream_open(p->client.s, st, &p->client, get, 4, true));
        (void)carry(&p->client, NULL, p->now);
        raw_head(r, 1, END_HEADERS,
                 (const char *const[]){":status", "200", "content-length", cases[i].length, NULL});
        if (cases[i].first != NULL) {
            raw_frame(r, 0, 0, 1, cases[i].first, strlen(cases[i].first));
        }
        raw_frame(r, 0, cases[i].flags, 1, cases[i].last, cases[i].n);
        raw_say(&p->client, r, p->now);
        (void)carry(&p->client, NULL, p->now);
        const char *said = strstr(p->client.said, "\r\n\r\n");
        assert_non_null(said);
        assert_string_equal(said + 4, cases[i].saw);
        assert_int_equal(p->client.n_last, cases[i].n_last);
        pair_free(p);
    }
    /* The last frame byte by byte: what comes before its last byte is passed on at once. */
    struct pair *p = pair_new();
    struct http2_stream *st = &p->client.streams[p->client.n_streams++];
    assert_true(http2_stream_open(p->client.s, st, &p->client, get, 4, true));
    (void)carry(&p->client, NULL, p->now);
    raw_head(r, 1, END_HEADERS, (const char *const[]){":status", "200", NULL});
    raw_frame(r, 0, END_STREAM, 1, "abc", 3);
    for (size_t i = 0; i < r->n; i++) {
        (void)http2_session_feed(p->client.s, r->bytes + i, 1, p->now);
    }
    expect(&p->client, "data 1 a\ndata 1 b\ndata 1 c\nended 1\nclosed 0\n");
    assert_int_equal(p->client.n_last, 1);
    pair_free(p);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_left_to_refuse),
        cmocka_unit_test(test_end_is_in_the_last_frame),
        cmocka_unit_test(test_last_of_a_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
