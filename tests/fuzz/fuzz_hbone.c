/*
 * hbone: whatever a peer says, to a server and to a client, whole or in pieces. Streams are
 * answered or refused, read, written and closed as they come. What is held stays within the
 * windows, a session that is over stays over, and the same bytes in pieces end the same way. An
 * authority that is taken is the one that its address is written as.
 */
#include <hbone_look.h>
#include <postern/hbone.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAMS = HBONE_SERVER_STREAMS + 1, READ = 1, WRITE = 2 };

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* --- a transport that takes everything -------------------------------------------------------- */

static enum stream_outcome sink_write(struct stream *s, const uint8_t *src, size_t n)
{
    (void)src;
    s->bytes_written += n;
    return STREAM_OK;
}
static const struct stream_ops SINK = {.name = "sink", .write = sink_write};

struct world {
    struct hbone_session *s;
    struct hbone_stream streams[STREAMS];
    struct net_scratch scratch;
    uint64_t read;
    unsigned n;
};

static void on_wake(void *arg)
{
    (void)arg;
}

static void on_request(void *arg, int32_t id, struct str authority)
{
    struct world *w = (struct world *)arg;
    struct net_addr a;
    char text[NET_ADDR_TEXT_MAX];
    if (hbone_authority_parse(authority, &a)) {
        struct net_addr again;
        net_addr_text(&a, text);
        MUST(hbone_authority_parse(str_of(text), &again) && net_addr_equal(&a, &again));
        MUST(net_addr_port(&a) != 0);
    }
    for (size_t i = 0; i < STREAMS; i++) {
        if (!hbone_stream_is_open(&w->streams[i])) {
            hbone_stream_accept(w->s, id, &w->streams[i], w);
            return;
        }
    }
    MUST(false); /* more than it may have */
}

static bool on_data(struct hbone_stream *st, const uint8_t *p, size_t n)
{
    (void)p;
    (void)n;
    return st->id % 4 == 1;
}

static void on_ready(struct hbone_stream *st, unsigned ready)
{
    struct world *w = (struct world *)st->arg;
    uint8_t part[100] = "abc";
    size_t n = 0;
    switch (w->n++ % 8) {
    case 0:
        if (!st->answered && st->id % 3 == 0) {
            hbone_stream_refuse(st, 401);
            return;
        }
        break;
    case 5:
        (void)stream_shut(&st->base);
        break;
    case 6:
        hbone_stream_close(st, st->id % 2 == 1);
        return;
    default:
        break;
    }
    if (!st->answered && st->status == 0) {
        hbone_stream_answer(st);
    }
    if ((ready & READ) != 0 && stream_read(&st->base, part, sizeof(part), &n) == STREAM_OK) {
        w->read += n;
    }
    if (!stream_blocked(&st->base) && !st->base.shut_wanted) {
        (void)stream_write(&st->base, part, sizeof(part));
    }
    hbone_stream_want(st, READ | (stream_blocked(&st->base) ? WRITE : 0U));
}

static const struct hbone_ops OPS = {
    .wake = on_wake, .request = on_request, .data = on_data, .ready = on_ready};

/* Returns why it ended. */
static enum hbone_abuse run(bool server, const uint8_t *p, size_t size, size_t step)
{
    static struct world w;
    struct stream sink = {.ops = &SINK, .fd = -1};
    struct err err = ERR_INIT;
    memset(w.streams, 0, sizeof(w.streams));
    w.n = 0;
    MUST(w.scratch.plain != NULL || net_scratch_init(&w.scratch, &err) == 0);
    const struct hbone_spec spec = {.server = server,
                                    .transport = &sink,
                                    .scratch = &w.scratch,
                                    .ops = &OPS,
                                    .arg = &w,
                                    .now_ms = 1};
    w.s = hbone_session_new(&spec);
    MUST(w.s != NULL);
    for (size_t i = 0; !server && i < 4; i++) {
        MUST(hbone_stream_open(w.s, STR_LIT("10.0.0.1:80"), &w.streams[i], &w));
        hbone_stream_want(&w.streams[i], READ);
    }
    bool on = hbone_session_turn(w.s);
    for (size_t at = 0; at < size && on;) {
        size_t n = size - at < step ? size - at : step;
        on = hbone_session_feed(w.s, p + at, n, 1);
        at += n;
        for (unsigned k = 0; on && k < 3; k++) {
            on = hbone_session_turn(w.s);
        }
        MUST(hbone_session_held(w.s) <= HBONE_WINDOW_SESSION + STREAMS * sizeof(w.streams[0]));
        MUST(hbone_session_streams(w.s) <= STREAMS);
    }
    MUST(on == (hbone_session_why(w.s) == HBONE_OK));
    MUST(on || !hbone_session_feed(w.s, p, size, 1));
    enum hbone_abuse why = hbone_session_why(w.s);
    if (size % 2 == 0) {
        hbone_session_stop(w.s);
    }
    for (size_t i = 0; i < STREAMS; i++) {
        hbone_stream_close(&w.streams[i], i % 2 == 0);
    }
    MUST(hbone_session_streams(w.s) == 0 && hbone_session_held(w.s) < NET_SCRATCH_SIZE);
    hbone_session_free(w.s);
    return why;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    bool server = data[0] % 2 == 0;
    size_t step = 1 + data[0] / 2;
    enum hbone_abuse whole = run(server, data + 1, size - 1, SIZE_MAX);
    enum hbone_abuse parts = run(server, data + 1, size - 1, step);
    /* Streams are driven between the pieces, so that limits may be met sooner or later. */
    MUST((whole == HBONE_HEADER_BOMB) == (parts == HBONE_HEADER_BOMB));
    struct net_addr a;
    (void)hbone_authority_parse((struct str){(const char *)data, size}, &a);
    return 0;
}
