/*
 * Two sessions over a socketpair, or one and the test's own bytes. Everything runs in the caller's
 * thread, turn by turn, with a clock of its own.
 */
#ifndef POSTERN_TEST_HBONE_PAIR_H
#define POSTERN_TEST_HBONE_PAIR_H

#include <hbone_look.h>
#include <postern/hbone.h>
#include <postern/http2_calm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { STREAMS = 120, READ = 1, WRITE = 2 };

struct end;

/* A stream and what its owner saw of it. */
struct user {
    struct hbone_stream st;
    struct end *end;
    unsigned ready; /* what was told last */
    unsigned n_ready;
    char authority[64];
    uint64_t sum; /* of bytes that were read */
    bool eof, failed, hungry;
};

struct end {
    struct hbone_session *s;
    struct stream transport;
    struct net_scratch scratch;
    struct user users[STREAMS];
    size_t n_users;
    unsigned wakes, bad_requests;
    bool take; /* bytes go by ops->data */
    bool over;
    uint64_t taken;
    bool refuse_memory;
};

struct world {
    struct end server, client;
    int raw; /* in place of one of them */
    uint64_t now;
};

static uint64_t sum_of(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += p[i];
    }
    return sum;
}

static void on_wake(void *arg)
{
    ((struct end *)arg)->wakes++;
}

static void on_request(void *arg, int32_t id, struct str authority)
{
    struct end *e = (struct end *)arg;
    if (e->refuse_memory) {
        return;
    }
    assert_true(e->n_users < STREAMS);
    struct user *u = &e->users[e->n_users++];
    u->end = e;
    snprintf(u->authority, sizeof(u->authority), "%.*s", STR_ARG(authority));
    hbone_stream_accept(e->s, id, &u->st, u);
    hbone_stream_want(&u->st, READ);
}

static void on_bad_request(void *arg)
{
    ((struct end *)arg)->bad_requests++;
}

static bool on_data(struct hbone_stream *st, const uint8_t *p, size_t n)
{
    struct user *u = (struct user *)st->arg;
    if (!u->end->take || !u->hungry) {
        return false;
    }
    u->sum += sum_of(p, n);
    u->end->taken += n;
    return true;
}

static void on_ready(struct hbone_stream *st, unsigned ready)
{
    struct user *u = (struct user *)st->arg;
    u->ready = ready;
    u->n_ready++;
    while (u->hungry) {
        size_t n = 0;
        enum stream_outcome o = stream_read(&st->base, u->end->scratch.plain, NET_SCRATCH_SIZE, &n);
        u->sum += o == STREAM_OK ? sum_of(u->end->scratch.plain, n) : 0;
        u->eof = u->eof || o == STREAM_EOF;
        u->failed = u->failed || o == STREAM_FAILED;
        if (o != STREAM_OK) {
            break;
        }
    }
}

static const struct hbone_ops OPS = {
    .wake = on_wake,
    .request = on_request,
    .bad_request = on_bad_request,
    .data = on_data,
    .ready = on_ready,
};

static void begin(struct world *w, struct end *e, bool server, int fd)
{
    struct err err = ERR_INIT;
    assert_int_equal(net_scratch_init(&e->scratch, &err), 0);
    stream_plain_init(&e->transport, &e->scratch, fd);
    const struct hbone_spec spec = {.server = server,
                                    .transport = &e->transport,
                                    .scratch = &e->scratch,
                                    .ops = &OPS,
                                    .arg = e,
                                    .now_ms = w->now};
    e->s = hbone_session_new(&spec);
    assert_non_null(e->s);
}

/* which: 1 the client, 2 the server, 3 both; what is missing is w->raw. */
static struct world *world_new(unsigned which)
{
    struct world *w = (struct world *)calloc(1, sizeof(*w));
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    w->now = 1000;
    w->raw = -1;
    if ((which & 1) != 0) {
        begin(w, &w->client, false, fds[0]);
    } else {
        w->raw = fds[0];
    }
    if ((which & 2) != 0) {
        begin(w, &w->server, true, fds[1]);
    } else {
        w->raw = fds[1];
    }
    return w;
}

static void end_free(struct end *e)
{
    if (e->s == NULL) {
        return;
    }
    for (size_t i = 0; i < e->n_users; i++) {
        hbone_stream_close(&e->users[i].st, true);
    }
    assert_int_equal(hbone_session_streams(e->s), 0);
    hbone_session_free(e->s);
    stream_deinit(&e->transport, false);
    net_scratch_deinit(&e->scratch);
}

static void world_free(struct world *w)
{
    end_free(&w->client);
    end_free(&w->server);
    if (w->raw != -1) {
        close(w->raw);
    }
    free(w);
}

/* One turn of an end. True: it did something. */
static bool turn(struct world *w, struct end *e)
{
    if (e->s == NULL || e->over) {
        return false;
    }
    size_t before = e->transport.bytes_read;
    unsigned wakes = e->wakes;
    e->wakes = 0;
    e->over = !hbone_session_receive(e->s, w->now) || !hbone_session_turn(e->s);
    return e->transport.bytes_read != before || wakes > 0 || stream_blocked(&e->transport);
}

static void settle(struct world *w)
{
    bool more = true;
    for (unsigned i = 0; more; i++) {
        assert_true(i < 100000);
        more = turn(w, &w->client);
        more = turn(w, &w->server) || more;
    }
}

/* Opens the client's next stream. */
static struct user *open_one(struct world *w, const char *authority)
{
    struct user *u = &w->client.users[w->client.n_users++];
    u->end = &w->client;
    assert_true(hbone_stream_open(w->client.s, str_of(authority), &u->st, u));
    hbone_stream_want(&u->st, READ);
    return u;
}

/* A tunnel that stands; *ret_far: the server's end. */
static inline struct user *tunnel(struct world *w, struct user **ret_far)
{
    struct user *near = open_one(w, "10.0.0.1:80");
    settle(w);
    struct user *far = &w->server.users[w->server.n_users - 1];
    hbone_stream_answer(&far->st);
    settle(w);
    assert_int_equal(near->st.status, 200);
    *ret_far = far;
    return near;
}

#endif
