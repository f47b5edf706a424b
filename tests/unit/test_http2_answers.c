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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_left_to_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
