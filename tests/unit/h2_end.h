/* An end that speaks HTTP/2 over a socket: a client of a world, or its workload. The world
 * (conn_world.h, hbone_world.h) is included before. */
#ifndef POSTERN_TEST_H2_END_H
#define POSTERN_TEST_H2_END_H

#include "http2_pair.h"

#include <poll.h>
#include <postern/os.h>
#include <sys/socket.h>
#include <unistd.h>

enum { END_WAIT_MS = 10000 };

struct end {
    struct h2_side side;
    int fd;
    bool gone;
};

static inline void end_write(struct end *e)
{
    size_t n;
    do {
        (void)http2_session_make(e->side.s);
        struct buf *out = http2_session_out(e->side.s);
        n = out->len;
        if (n > 0) {
            e->gone = e->gone || send(e->fd, buf_head(out), n, MSG_NOSIGNAL) != (ssize_t)n;
            buf_consume(out, n);
        }
    } while (n > 0 && !e->gone);
}

static inline void end_run(struct end *e, int wait_ms)
{
    static uint8_t bytes[65536];
    struct pollfd p = {.fd = e->fd, .events = POLLIN};
    end_write(e);
    if (!e->gone && poll(&p, 1, wait_ms) == 1) {
        ssize_t n = recv(e->fd, bytes, sizeof(bytes), 0);
        if (n <= 0) {
            e->gone = true;
        } else {
            (void)http2_session_feed(e->side.s, bytes, (size_t)n, os_now_ms());
        }
        end_write(e);
    }
}

/* Until it saw that, with the other side running too. */
static inline void see(struct end *e, struct end *other, const char *text)
{
    uint64_t end_ms = os_now_ms() + END_WAIT_MS;
    while (strstr(e->side.said, text) == NULL) {
        end_run(e, 5);
        if (other != NULL) {
            end_run(other, 5);
        }
        if (os_now_ms() > end_ms) {
            fail_msg("expected: %s\nsaw: %s\nthe other: %s", text, e->side.said,
                     other != NULL ? other->side.said : "");
        }
    }
}

static inline void see_gone(struct end *e)
{
    uint64_t end_ms = os_now_ms() + END_WAIT_MS;
    while (!e->gone) {
        end_run(e, 5);
        assert_true(os_now_ms() < end_ms);
    }
}

static inline struct end *end_new(int fd, bool server)
{
    struct end *e = (struct end *)calloc(1, sizeof(*e));
    assert_non_null(e);
    e->fd = fd;
    side_new(&e->side, server, os_now_ms());
    return e;
}

#ifndef H2_END_ALONE /* its world names its ends itself */
static inline struct end *client_new(const struct world *w)
{
    return end_new(dial(w->port), false);
}

static inline struct end *workload_new(struct world *w)
{
    return end_new(take(w), true);
}
#endif

static inline struct end *end_free(struct end *e)
{
    if (e != NULL) {
        side_free(&e->side);
        close(e->fd);
        free(e);
    }
    return NULL;
}

/* fields: names and values in turn. */
static inline struct http2_stream *ask(struct end *e, bool ends, const char *const *fields)
{
    struct http2_field f[32];
    size_t n = 0;
    for (; fields[2 * n] != NULL; n++) {
        f[n] = (struct http2_field){str_of(fields[2 * n]), str_of(fields[2 * n + 1]), false};
    }
    struct http2_stream *st = &e->side.streams[e->side.n_streams++];
    assert_true(http2_stream_open(e->side.s, st, &e->side, f, n, ends));
    end_run(e, 0);
    return st;
}

static inline void answer(struct end *e, struct http2_stream *st, bool ends,
                          const char *const *fields)
{
    struct http2_field f[32];
    size_t n = 0;
    for (; fields[2 * n] != NULL; n++) {
        f[n] = (struct http2_field){str_of(fields[2 * n]), str_of(fields[2 * n + 1]), false};
    }
    assert_true(http2_stream_head(st, f, n, fields[1][0] == '1', ends));
    end_run(e, 0);
}

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL, NULL})
#define TO(path) ":method", "GET", ":scheme", "http", ":authority", "Svc:80", ":path", path
#define GRPC(path)                                                                                 \
    ":method", "POST", ":scheme", "http", ":authority", "svc", ":path", path, "content-type",      \
        "application/grpc+proto", "te", "trailers"

#endif
