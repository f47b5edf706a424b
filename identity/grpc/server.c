/*
 * The server's calls: a request head is judged (server_head.c), the request messages are collected,
 * and the handler answers. What a broken peer gets: RST_STREAM(PROTOCOL_ERROR) for a
 * malformed HTTP/2 message, an HTTP status for what is HTTP but not gRPC, trailers otherwise.
 */
#include "grpc_server_priv.h"

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>

/* --- ending a call ---------------------------------------------------------------------------- */

/* The handler's side of the end. */
static void let_go(struct grpc_call *call)
{
    call->open = false;
    loop_timer_disarm(&call->deadline);
    if (call->server != NULL) {
        call->server->n_calls--;
    }
}

static void cancel(struct grpc_call *call)
{
    if (call->open) {
        struct grpc_server *server = call->server;
        let_go(call);
        if (call->method->on_cancel != NULL && server != NULL) {
            call->method->on_cancel(call, server->arg);
        }
    }
}

void grpc_call_malformed(struct grpc_call *call)
{
    if (!call->malformed) {
        call->malformed = true;
        grpc_stream_reset(&call->stream, NGHTTP2_PROTOCOL_ERROR);
    }
}

void grpc_call_on_deadline(void *arg)
{
    struct grpc_call *call = arg;
    if (call->open) {
        cancel(call);
        grpc_call_answer(call, GRPC_DEADLINE_EXCEEDED, "the deadline of the call has passed");
    }
}

/* --- answering -------------------------------------------------------------------------------- */

static void set_end(struct grpc_call *call, enum grpc_status status, const char *text)
{
    call->status = status;
    call->stream.out_ended = true;
    if (text != NULL && text[0] != '\0') {
        char encoded[GRPC_STATUS_TEXT_MAX + 1];
        (void)grpc_message_encode(text, encoded, sizeof(encoded));
        call->message = strdup(encoded); /* none is better than no end */
    }
}

static size_t end_fields(const struct grpc_call *call, char digits[12], nghttp2_nv *nv)
{
    (void)snprintf(digits, 12, "%d", (int)call->status);
    nv[0] = grpc_nv("grpc-status", digits);
    if (call->message == NULL) {
        return 1;
    }
    nv[1] = grpc_nv("grpc-message", call->message);
    return 2;
}

static void submit_trailers(struct grpc_conn *c, struct grpc_stream *s)
{
    char digits[12];
    nghttp2_nv nv[2];
    size_t n = end_fields(grpc_call_of(s), digits, nv);
    (void)nghttp2_submit_trailer(c->session, s->id, nv, n);
}

void grpc_call_answer(struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct grpc_stream *s = &call->stream;
    if (s->out_ended || call->malformed) {
        return;
    }
    set_end(call, status, text);
    if (!s->started) {
        char digits[12];
        nghttp2_nv nv[5];
        size_t n = 0;
        nv[n++] = grpc_nv(":status", "200");
        nv[n++] = grpc_nv("content-type", "application/grpc");
        if (status == GRPC_UNIMPLEMENTED) {
            nv[n++] = grpc_nv("grpc-accept-encoding", "identity");
        }
        n += end_fields(call, digits, nv + n);
        (void)nghttp2_submit_response(s->conn->session, s->id, nv, n, NULL);
    } else if (s->paused) {
        s->paused = false;
        (void)nghttp2_session_resume_data(s->conn->session, s->id);
    }
    grpc_conn_kick(s->conn);
}

void grpc_call_answer_http(struct grpc_call *call, const char *http_status)
{
    nghttp2_nv nv[] = {grpc_nv(":status", http_status)};
    call->stream.out_ended = true;
    (void)nghttp2_submit_response(call->stream.conn->session, call->stream.id, nv, 1, NULL);
    grpc_conn_kick(call->stream.conn);
}

enum grpc_send grpc_call_send(struct grpc_call *call, const void *message, size_t n)
{
    struct grpc_stream *s = &call->stream;
    POSTERN_ASSERT(call->open);
    if (s->conn->closing) {
        return GRPC_SENT; /* on_cancel is on its way */
    }
    enum grpc_send sent = grpc_stream_push(s, (struct str){message, n});
    if (sent != GRPC_SENT) {
        return sent;
    }
    if (!s->started) {
        nghttp2_nv nv[] = {grpc_nv(":status", "200"), grpc_nv("content-type", "application/grpc")};
        nghttp2_data_provider provider = grpc_stream_provider(s);
        (void)nghttp2_submit_response(s->conn->session, s->id, nv, 2, &provider);
    } else if (s->paused) {
        s->paused = false;
        (void)nghttp2_session_resume_data(s->conn->session, s->id);
    }
    grpc_conn_kick(s->conn);
    return GRPC_SENT;
}

void grpc_call_finish(struct grpc_call *call, enum grpc_status status, const char *message)
{
    POSTERN_ASSERT(call->open);
    let_go(call);
    if (!call->stream.conn->closing) {
        grpc_call_answer(call, status, message);
    }
}

/* --- the request's message -------------------------------------------------------------------- */

static void refuse(struct grpc_call *call, enum grpc_status status, const char *text)
{
    cancel(call);
    grpc_call_answer(call, status, text);
    grpc_stream_release(&call->stream);
}

/* One of many is handed on at once; the only one waits for the end of the request. */
static void take_message(struct grpc_call *call)
{
    if (call->method->many_requests) {
        call->method->on_request(call, call->server->arg, call->request);
        grpc_stream_release(&call->stream);
    }
}

static void on_data(struct grpc_conn *c, struct grpc_stream *s, const uint8_t *p, size_t n)
{
    struct grpc_call *call = grpc_call_of(s);
    call->body_bytes += n;
    if (call->has_content_length && call->body_bytes > call->content_length) {
        cancel(call);
        grpc_call_malformed(call);
    }
    while (n > 0 && call->open && !c->closing) {
        if (call->has_request && !call->method->many_requests) {
            refuse(call, GRPC_UNIMPLEMENTED, "the method takes one request message");
            return;
        }
        size_t taken = 0;
        switch (grpc_stream_feed(s, p, n, &taken, &call->request)) {
        case GRPC_SPLIT_MORE:
            return;
        case GRPC_SPLIT_MESSAGE:
            call->has_request = true;
            take_message(call);
            break;
        case GRPC_SPLIT_COMPRESSED:
            refuse(call, GRPC_UNIMPLEMENTED, "compressed messages are not supported");
            return;
        case GRPC_SPLIT_TOO_LARGE:
            refuse(call, GRPC_RESOURCE_EXHAUSTED, "the request message is too large");
            return;
        case GRPC_SPLIT_NO_MEMORY:
            refuse(call, GRPC_RESOURCE_EXHAUSTED, "too many requests are under way");
            return;
        }
        p += taken;
        n -= taken;
    }
}

static void on_end(struct grpc_conn *c, struct grpc_stream *s)
{
    (void)c;
    struct grpc_call *call = grpc_call_of(s);
    if (call->has_content_length && call->body_bytes != call->content_length) {
        cancel(call);
        grpc_call_malformed(call);
    }
    if (!call->open) {
        return;
    }
    if (!grpc_splitter_at_end(&s->in)) {
        refuse(call, GRPC_INTERNAL, "the request ends within a message");
    } else if (call->method->many_requests) {
        call->method->on_request_end(call, call->server->arg);
    } else if (!call->has_request) {
        refuse(call, GRPC_UNIMPLEMENTED, "the method takes one request message");
    } else {
        call->method->on_request(call, call->server->arg, call->request);
        grpc_stream_release(s);
    }
}

/* --- ends ------------------------------------------------------------------------------------- */

static void on_ready(struct grpc_conn *c)
{
    (void)c;
}

static void on_drained(struct grpc_conn *c, struct grpc_stream *s)
{
    (void)c;
    struct grpc_call *call = grpc_call_of(s);
    if (call->open && call->method->on_drained != NULL) {
        call->method->on_drained(call, call->server->arg);
    }
}

static void stream_gone(struct grpc_conn *c, struct grpc_stream *s, uint32_t error_code)
{
    (void)c;
    (void)error_code;
    struct grpc_call *call = grpc_call_of(s);
    cancel(call);
    loop_timer_disarm(&call->deadline);
    for (size_t i = 0; i < call->n_fields; i++) {
        free((char *)(uintptr_t)call->fields[i].name.p);
    }
    free(call->fields);
    free(call->message);
    grpc_stream_deinit(s);
    free(call);
}

static void conn_unlink(struct grpc_server *server, struct grpc_conn *c)
{
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        server->conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    server->n_conns--;
    c->owner = NULL;
    c->account = NULL;
    if (server->events.on_conn_closed != NULL) {
        server->events.on_conn_closed(server->arg, c->context);
    }
}

static void conn_gone(struct grpc_conn *c, const struct err *why)
{
    (void)why;
    if (c->owner != NULL) {
        conn_unlink(c->owner, c);
    }
}

static const struct grpc_conn_ops server_ops = {
    .is_server = true,
    .on_begin_headers = grpc_server_on_begin_headers,
    .on_header = grpc_server_on_header,
    .on_headers = grpc_server_on_headers,
    .on_data = on_data,
    .on_end = on_end,
    .on_ready = on_ready,
    .on_drained = on_drained,
    .submit_trailers = submit_trailers,
    .stream_gone = stream_gone,
    .conn_gone = conn_gone,
};

/* --- the server ------------------------------------------------------------------------------- */

struct grpc_server *grpc_server_new(struct loop *loop, const struct grpc_method *methods, size_t n,
                                    const struct grpc_limits *limits,
                                    const struct grpc_server_events *events, void *arg)
{
    struct grpc_server *server = mem_must_new(struct grpc_server);
    server->loop = loop;
    server->methods = methods;
    server->n_methods = n;
    grpc_limits_fill(&server->limits, limits);
    if (events != NULL) {
        server->events = *events;
    }
    server->arg = arg;
    return server;
}

struct grpc_server *grpc_server_free(struct grpc_server *server)
{
    if (server == NULL) {
        return NULL;
    }
    while (server->conns != NULL) {
        struct grpc_conn *c = server->conns;
        for (struct grpc_stream *s = c->streams; s != NULL; s = s->next) {
            cancel(grpc_call_of(s));
            grpc_call_of(s)->server = NULL;
        }
        grpc_conn_fail(c, ERR_UNAVAILABLE, "the server has ended");
        conn_unlink(server, c);
    }
    free(server);
    return NULL;
}

static struct grpc_conn *add(struct grpc_server *server, int fd, void *conn_context,
                             struct grpc_account *account, struct err *err)
{
    struct grpc_conn *c =
        grpc_conn_new(server->loop, fd, &server_ops, &server->limits, server, account, err);
    if (c == NULL) {
        return NULL;
    }
    c->context = conn_context;
    c->next = server->conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    server->conns = c;
    server->n_conns++;
    if (server->draining) {
        grpc_conn_go_away(c);
    }
    return c;
}

int grpc_server_add_connection(struct grpc_server *server, int fd, void *conn_context,
                               struct grpc_account *account, struct grpc_conn **ret_conn,
                               struct err *err)
{
    struct grpc_conn *c = add(server, fd, conn_context, account, err);
    if (c == NULL) {
        return -1;
    }
    if (ret_conn != NULL) {
        *ret_conn = c;
    }
    return 0;
}

struct grpc_conn *grpc_server_add_detached(struct grpc_server *server, void *conn_context)
{
    return add(server, -1, conn_context, NULL, NULL);
}

void grpc_server_drain(struct grpc_server *server)
{
    server->draining = true;
    for (struct grpc_conn *c = server->conns; c != NULL; c = c->next) {
        grpc_conn_go_away(c);
    }
}

size_t grpc_server_conn_count(const struct grpc_server *server)
{
    return server->n_conns;
}

size_t grpc_server_call_count(const struct grpc_server *server)
{
    return server->n_calls;
}

void grpc_conn_close(struct grpc_conn *conn)
{
    grpc_conn_fail(conn, ERR_UNAVAILABLE, "closed by us");
}

void grpc_conn_drain(struct grpc_conn *conn)
{
    grpc_conn_go_away(conn);
}

size_t grpc_conn_call_count(const struct grpc_conn *conn)
{
    return conn->n_streams;
}

/* --- what a handler may ask --------------------------------------------------------------------
 */

void grpc_call_set_data(struct grpc_call *call, void *data)
{
    call->data = data;
}

void *grpc_call_data(const struct grpc_call *call)
{
    return call->data;
}

void *grpc_call_conn_context(const struct grpc_call *call)
{
    return call->stream.conn->context;
}

struct grpc_conn *grpc_call_conn(const struct grpc_call *call)
{
    return call->stream.conn;
}

const struct grpc_method *grpc_call_method(const struct grpc_call *call)
{
    return call->method;
}

bool grpc_call_hold(struct grpc_call *call, size_t n)
{
    return grpc_stream_hold(&call->stream, call->fields_held + n);
}

size_t grpc_call_unsent(const struct grpc_call *call)
{
    return call->stream.out.unsent;
}

bool grpc_call_metadata(const struct grpc_call *call, struct str key, size_t n, struct str *ret)
{
    for (size_t i = 0; i < call->n_fields; i++) {
        if (str_eq(call->fields[i].name, key) && n-- == 0) {
            *ret = call->fields[i].value;
            return true;
        }
    }
    return false;
}
