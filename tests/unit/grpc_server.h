/*
 * gRPC on a socket pair and one loop: a server with a method of each kind, and what it was asked.
 */
#ifndef POSTERN_TEST_GRPC_SERVER_H
#define POSTERN_TEST_GRPC_SERVER_H

#include <postern/grpc.h>

#include <nghttp2/nghttp2.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 10000, BIG = 3 * 1024 * 1024, N_FIELDS_MAX = 80 };

/* --- the server under test ---------------------------------------------------------------------
 */

struct fixture {
    struct loop *loop;
    struct grpc_server *server;
    struct loop_timer guard;
    struct loop_timer later;
    bool timed_out;
    const char *what; /* is being tried, for the message of a failure */
    int n_open, n_cancelled, n_drained, n_conns_closed, n_chat;
    struct grpc_account account;
    struct grpc_call *stream_call; /* the last open one of /T/Stream */
    struct grpc_conn *conn;
};

static inline void on_guard(void *arg)
{
    struct fixture *f = arg;
    f->timed_out = true;
    loop_stop(f->loop);
}

static inline void run(struct fixture *f)
{
    loop_timer_arm(&f->guard, PATIENCE_MS);
    loop_run(f->loop);
    loop_timer_disarm(&f->guard);
    if (f->timed_out) {
        fail_msg("nothing came any more: %s", f->what != NULL ? f->what : "");
    }
}

static inline void on_later(void *arg)
{
    loop_stop(((struct fixture *)arg)->loop);
}

static inline void check_key(struct grpc_call *call, void *arg)
{
    struct fixture *f = arg;
    struct str value;
    f->n_open++;
    if (!grpc_call_metadata(call, STR_LIT("key"), 0, &value) || !str_eq(value, STR_LIT("true")) ||
        grpc_call_metadata(call, STR_LIT("key"), 1, &value)) {
        grpc_call_finish(call, GRPC_INVALID_ARGUMENT, "key: true is required");
    }
}

static inline void echo(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    assert_int_equal(grpc_call_send(call, message.p, message.n), GRPC_SENT);
    grpc_call_finish(call, GRPC_OK, NULL);
}

static inline void echo_stream(struct grpc_call *call, void *arg, struct str message)
{
    struct fixture *f = arg;
    assert_int_equal(grpc_call_send(call, message.p, message.n), GRPC_SENT);
    assert_int_equal(grpc_call_send(call, "", 0), GRPC_SENT);
    f->stream_call = call;
}

/* Any number of requests, each with its echo; the caller's end is ours. */
static inline void chat(struct grpc_call *call, void *arg, struct str message)
{
    struct fixture *f = arg;
    f->n_chat++;
    if (grpc_call_send(call, message.p, message.n) != GRPC_SENT) {
        grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too much is unsent");
    }
}

static inline void chat_end(struct grpc_call *call, void *arg)
{
    (void)arg;
    grpc_call_finish(call, GRPC_OK, NULL);
}

static inline void say_no(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    (void)message;
    grpc_call_finish(call, GRPC_PERMISSION_DENIED, "100% no: \xc3\xa9\n");
}

static inline void never(struct grpc_call *call, void *arg, struct str message)
{
    (void)call;
    (void)arg;
    (void)message;
}

static inline void cancelled(struct grpc_call *call, void *arg)
{
    struct fixture *f = arg;
    f->n_cancelled++;
    if (f->stream_call == call) {
        f->stream_call = NULL;
        loop_stop(f->loop);
    }
}

static inline void drained(struct grpc_call *call, void *arg)
{
    (void)call;
    struct fixture *f = arg;
    f->n_drained++;
}

static inline void conn_closed(void *arg, void *conn_context)
{
    struct fixture *f = arg;
    assert_ptr_equal(conn_context, f);
    f->n_conns_closed++;
}

static const struct grpc_method methods[] = {
    {"/T/Echo", false, NULL, echo, NULL, cancelled},
    {"/T/Checked", false, check_key, echo, NULL, cancelled},
    {"/T/Stream", true, NULL, echo_stream, drained, cancelled},
    {"/T/No", false, NULL, say_no, NULL, cancelled},
    {"/T/Never", false, NULL, never, NULL, cancelled},
    {"/T/Chat", true, NULL, chat, NULL, cancelled, true, chat_end},
};

static inline void fixture_init(struct fixture *f, const struct grpc_limits *limits)
{
    *f = (struct fixture){.account = {.max_bytes = 64U << 20}};
    f->loop = loop_new(NULL);
    assert_non_null(f->loop);
    loop_timer_init(&f->guard, f->loop, on_guard, f);
    const struct grpc_server_events events = {conn_closed};
    f->server =
        grpc_server_new(f->loop, methods, sizeof(methods) / sizeof(methods[0]), limits, &events, f);
}

static inline int fixture_connect(struct fixture *f)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(grpc_server_add_connection(f->server, fds[0], f, &f->account, &f->conn, NULL),
                     0);
    return fds[1];
}

static inline void fixture_deinit(struct fixture *f)
{
    loop_timer_disarm(&f->guard);
    loop_timer_disarm(&f->later);
    grpc_server_free(f->server);
    loop_free(f->loop);
}

#endif
