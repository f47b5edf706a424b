/*
 * The client's calls: one request message out, answers and a status back. The connection reports
 * its end and nothing is tried again here.
 */
#include "grpc_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_METADATA = 16 };

struct grpc_client {
    struct grpc_client_events events;
    void *arg;
    struct grpc_conn *conn; /* NULL once it is gone */
};

struct grpc_client_call {
    struct grpc_stream stream; /* first: the connection knows calls by it */
    const struct grpc_client_handlers *handlers;
    void *arg;
    struct loop_timer deadline;
    bool streaming;
    bool open; /* on_end is still owed */
    bool head_done, saw_regular, content_type_ok, has_status;
    int http_status; /* 0: not seen */
    enum grpc_status status;
    char *text; /* decoded grpc-message, owned; NULL: none */
    size_t n_messages;
};

static struct grpc_client_call *call_of(struct grpc_stream *s)
{
    return (struct grpc_client_call *)s;
}

/* --- ending ----------------------------------------------------------------------------------- */

static void end_call(struct grpc_client_call *call, enum grpc_status status, const char *text)
{
    if (!call->open) {
        return;
    }
    call->open = false;
    loop_timer_disarm(&call->deadline);
    call->handlers->on_end(call->arg, status, text != NULL ? text : "");
}

/* Ends it for the owner and tells the server that we are no longer there. */
static void give_up(struct grpc_client_call *call, enum grpc_status status, const char *text)
{
    grpc_stream_reset(&call->stream, NGHTTP2_CANCEL);
    end_call(call, status, text);
}

static void on_deadline(void *arg)
{
    give_up(arg, GRPC_DEADLINE_EXCEEDED, "the deadline of the call has passed");
}

void grpc_client_cancel(struct grpc_client_call *call)
{
    if (call != NULL && call->open) {
        call->open = false;
        loop_timer_disarm(&call->deadline);
        if (!call->stream.conn->closing) {
            grpc_stream_reset(&call->stream, NGHTTP2_CANCEL);
        }
    }
}

/* --- the answer's head and trailers ------------------------------------------------------------
 */

static void take_status(struct grpc_client_call *call, struct str value)
{
    uint64_t status = 0;
    call->status = GRPC_UNKNOWN;
    if (str_to_u64(value, GRPC_UNAUTHENTICATED, &status)) {
        call->status = (enum grpc_status)status;
    }
    call->has_status = true;
}

static void take_text(struct grpc_client_call *call, struct str value)
{
    char text[GRPC_STATUS_TEXT_MAX + 1];
    (void)grpc_message_decode(value, text, sizeof(text));
    free(call->text);
    call->text = strdup(text); /* none is better than no status */
}

static void on_header(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f,
                      struct str name, struct str value)
{
    (void)c;
    (void)f;
    struct grpc_client_call *call = call_of(s);
    if (!grpc_stream_count_field(s, name, value)) {
        if (call->open) {
            give_up(call, GRPC_RESOURCE_EXHAUSTED, "the answer's metadata is too large");
        }
        return;
    }
    if (str_eq(name, STR_LIT(":status"))) {
        uint64_t status = 0;
        call->http_status = str_to_u64(value, 999, &status) ? (int)status : 999;
    } else if (str_eq(name, STR_LIT("content-type"))) {
        call->content_type_ok = grpc_content_type_ok(value);
    } else if (str_eq(name, STR_LIT("grpc-status"))) {
        take_status(call, value);
    } else if (str_eq(name, STR_LIT("grpc-message"))) {
        take_text(call, value);
    }
}

static void on_headers(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f)
{
    (void)c;
    struct grpc_client_call *call = call_of(s);
    if (!call->open || call->head_done) {
        return;
    }
    if (call->http_status >= 100 && call->http_status < 200) {
        call->http_status = 0; /* an interim answer: the head is still to come */
        return;
    }
    call->head_done = true;
    (void)f;
    if (call->http_status != 200) {
        char text[64];
        (void)snprintf(text, sizeof(text), "the server answered with HTTP status %d",
                       call->http_status);
        give_up(call, grpc_status_of_http(call->http_status), text);
    } else if (!call->content_type_ok) {
        give_up(call, GRPC_UNKNOWN, "the server's answer is not gRPC");
    }
}

/* --- answers ---------------------------------------------------------------------------------- */

static void on_data(struct grpc_conn *c, struct grpc_stream *s, const uint8_t *p, size_t n)
{
    struct grpc_client_call *call = call_of(s);
    if (call->open && !call->head_done) {
        give_up(call, GRPC_INTERNAL, "the answer has no head");
    }
    while (n > 0 && call->open && !c->closing) {
        size_t taken = 0;
        struct str message = STR_NONE;
        switch (grpc_stream_feed(s, p, n, &taken, &message)) {
        case GRPC_SPLIT_MORE:
            return;
        case GRPC_SPLIT_MESSAGE:
            call->n_messages++;
            if (!call->streaming && call->n_messages > 1) {
                give_up(call, GRPC_INTERNAL, "more than one answer to a unary call");
                return;
            }
            call->handlers->on_message(call->arg, message);
            grpc_stream_release(s);
            break;
        case GRPC_SPLIT_COMPRESSED:
            give_up(call, GRPC_INTERNAL, "the answer is compressed, which was not offered");
            return;
        case GRPC_SPLIT_TOO_LARGE:
            give_up(call, GRPC_RESOURCE_EXHAUSTED, "the answer is too large");
            return;
        case GRPC_SPLIT_NO_MEMORY:
            give_up(call, GRPC_RESOURCE_EXHAUSTED, "too many answers are under way");
            return;
        }
        p += taken;
        n -= taken;
    }
}

static void on_end(struct grpc_conn *c, struct grpc_stream *s)
{
    (void)c;
    struct grpc_client_call *call = call_of(s);
    if (!call->open) {
        return;
    }
    if (!s->out_ended || s->out.unsent > 0) {
        grpc_stream_reset(s, NGHTTP2_NO_ERROR);
    }
    if (!call->has_status) {
        end_call(call, GRPC_UNKNOWN, "the answer ended without a status");
    } else if (call->status == GRPC_OK && !grpc_splitter_at_end(&s->in)) {
        end_call(call, GRPC_INTERNAL, "the answer ends within a message");
    } else if (call->status == GRPC_OK && !call->streaming && call->n_messages == 0) {
        end_call(call, GRPC_INTERNAL, "no answer to a unary call");
    } else {
        end_call(call, call->status, call->text);
    }
}

static void stream_gone(struct grpc_conn *c, struct grpc_stream *s, uint32_t error_code)
{
    struct grpc_client_call *call = call_of(s);
    if (c->closing) {
        end_call(call, GRPC_UNAVAILABLE, c->why.what);
    } else {
        char text[64];
        (void)snprintf(text, sizeof(text), "the server reset the stream (%s)",
                       nghttp2_http2_strerror(error_code));
        end_call(call, grpc_status_of_reset(error_code), text);
    }
    loop_timer_disarm(&call->deadline);
    free(call->text);
    grpc_stream_deinit(s);
    free(call);
}

/* --- the connection --------------------------------------------------------------------------- */

static void on_begin_headers(struct grpc_conn *c, const nghttp2_frame *f)
{
    (void)c;
    (void)f;
}

static void on_ready(struct grpc_conn *c)
{
    struct grpc_client *client = c->owner;
    if (client != NULL && client->events.on_ready != NULL) {
        client->events.on_ready(client->arg);
    }
}

static void on_drained(struct grpc_conn *c, struct grpc_stream *s)
{
    (void)c;
    (void)s;
}

static void conn_gone(struct grpc_conn *c, const struct err *why)
{
    struct grpc_client *client = c->owner;
    if (client != NULL) {
        client->conn = NULL;
        if (client->events.on_closed != NULL) {
            client->events.on_closed(client->arg, why);
        }
    }
}

static const struct grpc_conn_ops client_ops = {
    .is_server = false,
    .on_begin_headers = on_begin_headers,
    .on_header = on_header,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_end = on_end,
    .on_ready = on_ready,
    .on_drained = on_drained,
    .stream_gone = stream_gone,
    .conn_gone = conn_gone,
};

struct grpc_client *grpc_client_new_fd(struct loop *loop, int fd, const struct grpc_limits *limits,
                                       const struct grpc_client_events *events, void *arg,
                                       struct err *err)
{
    struct grpc_limits filled;
    grpc_limits_fill(&filled, limits);
    struct grpc_client *client = mem_must_new(struct grpc_client);
    client->conn = grpc_conn_new(loop, fd, &client_ops, &filled, client, NULL, err);
    if (client->conn == NULL) {
        free(client);
        return NULL;
    }
    if (events != NULL) {
        client->events = *events;
    }
    client->arg = arg;
    return client;
}

struct grpc_client *grpc_client_connect(struct loop *loop, const char *path,
                                        const struct grpc_limits *limits,
                                        const struct grpc_client_events *events, void *arg,
                                        struct err *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (path[0] != '/' || n >= sizeof(sun.sun_path)) {
        (void)err_set(err, ERR_CONFIG, "not a socket path: \"%s\"", path);
        (void)err_expected(err, "an absolute path of at most %zu bytes", sizeof(sun.sun_path) - 1);
        return NULL;
    }
    memcpy(sun.sun_path, path, n + 1);
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        (void)err_sys(err, "cannot make a socket");
        return NULL;
    }
    if (connect(fd, (const struct sockaddr *)&sun, sizeof(sun)) == -1) {
        int saved = errno;
        (void)err_sys(err, "cannot connect to %s", path);
        if (err != NULL && (saved == EAGAIN || saved == ECONNREFUSED || saved == ENOENT)) {
            err->code = ERR_UNAVAILABLE;
        }
        return NULL;
    }
    int taken = fd;
    fd = -1;
    return grpc_client_new_fd(loop, taken, limits, events, arg, err);
}

struct grpc_client *grpc_client_free(struct grpc_client *client)
{
    if (client == NULL) {
        return NULL;
    }
    if (client->conn != NULL) {
        for (struct grpc_stream *s = client->conn->streams; s != NULL; s = s->next) {
            grpc_client_cancel(call_of(s));
        }
        client->conn->owner = NULL;
        grpc_conn_fail(client->conn, ERR_UNAVAILABLE, "closed by us");
    }
    free(client);
    return NULL;
}

/* --- starting a call -------------------------------------------------------------------------- */

static int submit(struct grpc_client_call *call, const struct grpc_request *request)
{
    char timeout[16];
    nghttp2_nv nv[8 + MAX_METADATA];
    size_t n = 0;
    nv[n++] = grpc_nv(":method", "POST");
    nv[n++] = grpc_nv(":scheme", "http");
    nv[n++] = grpc_nv(":path", request->path);
    nv[n++] = grpc_nv(":authority", "localhost");
    nv[n++] = grpc_nv("te", "trailers");
    nv[n++] = grpc_nv("content-type", "application/grpc");
    nv[n++] = grpc_nv("user-agent", "grpc-c-postern");
    if (request->deadline_ms != 0) {
        grpc_timeout_print(request->deadline_ms, timeout);
        nv[n++] = grpc_nv("grpc-timeout", timeout);
    }
    for (size_t i = 0; i < request->n_metadata; i++) {
        nv[n++] = grpc_nv(request->metadata[i].key, request->metadata[i].value);
    }
    nghttp2_data_provider provider = grpc_stream_provider(&call->stream);
    return nghttp2_submit_request(call->stream.conn->session, NULL, nv, n, &provider, call);
}

struct grpc_client_call *grpc_client_start(struct grpc_client *client,
                                           const struct grpc_request *request,
                                           const struct grpc_client_handlers *handlers, void *arg,
                                           struct err *err)
{
    struct grpc_conn *c = client->conn;
    POSTERN_ASSERT(request->n_metadata <= MAX_METADATA);
    if (c == NULL || c->closing || c->going_away) {
        (void)err_set(err, ERR_UNAVAILABLE, "the connection takes no more calls");
        return NULL;
    }
    struct grpc_client_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        (void)err_set(err, ERR_LIMIT, "out of memory");
        return NULL;
    }
    grpc_stream_init(&call->stream, c, -1);
    call->handlers = handlers;
    call->arg = arg;
    call->streaming = request->streaming;
    loop_timer_init(&call->deadline, c->loop, on_deadline, call);
    int id = -1;
    if (grpc_stream_push(&call->stream, request->message) == GRPC_SENT) {
        call->stream.out_ended = !request->many_requests;
        id = submit(call, request);
    }
    if (id < 0) {
        (void)err_set(err, ERR_LIMIT, "cannot start a call: the connection is at its bounds");
        grpc_stream_deinit(&call->stream);
        free(call);
        return NULL;
    }
    call->stream.id = id;
    call->open = true;
    if (request->deadline_ms != 0) {
        loop_timer_arm(&call->deadline, request->deadline_ms);
    }
    grpc_conn_kick(c);
    return call;
}

enum grpc_send grpc_client_send(struct grpc_client_call *call, struct str message)
{
    struct grpc_stream *s = &call->stream;
    POSTERN_ASSERT(call->open && !s->out_ended);
    if (s->conn->closing) {
        return GRPC_SENT; /* on_end is on its way */
    }
    enum grpc_send sent = grpc_stream_push(s, message);
    if (sent == GRPC_SENT && s->paused) {
        s->paused = false;
        (void)nghttp2_session_resume_data(s->conn->session, s->id);
    }
    if (sent == GRPC_SENT) {
        grpc_conn_kick(s->conn);
    }
    return sent;
}
