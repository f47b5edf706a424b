/*
 * The server's calls: a request head is judged field by field, the one request message is
 * collected, and the handler answers. What a broken peer gets: RST_STREAM(PROTOCOL_ERROR) for a
 * malformed HTTP/2 message, an HTTP status for what is HTTP but not gRPC, trailers otherwise.
 */
#include "grpc_priv.h"

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_FIELDS = 64 };

struct grpc_server {
    struct loop *loop;
    const struct grpc_method *methods;
    size_t n_methods;
    struct grpc_limits limits;
    struct grpc_server_events events;
    void *arg;
    struct grpc_conn *conns;
    size_t n_conns, n_calls;
    bool draining;
};

struct field {
    struct str name, value; /* both in the one allocation at name.p */
};

struct grpc_call {
    struct grpc_stream stream;  /* first: the connection knows calls by it */
    struct grpc_server *server; /* NULL once the server has let go */
    const struct grpc_method *method;
    void *data;
    struct field *fields; /* metadata; owned */
    size_t n_fields;
    struct loop_timer deadline;
    uint64_t timeout_ms, body_bytes, content_length;
    struct str request;      /* in the splitter */
    enum grpc_status status; /* once finished */
    char *message;           /* encoded, owned; NULL: none */

    /* what the request's head has shown */
    bool saw_method, saw_path, saw_scheme, saw_authority, saw_regular, saw_content_type;
    bool is_post, content_type_ok, has_timeout, timeout_ok, has_content_length;
    bool head_done; /* now in trailers */
    bool malformed; /* RST_STREAM was submitted */
    bool too_large; /* the head */
    bool open;      /* the handler knows of it and has not finished */
    bool has_request;
};

static struct grpc_call *call_of(struct grpc_stream *s)
{
    return (struct grpc_call *)s;
}

/* --- ending a call ---------------------------------------------------------------------------- */

static void answer(struct grpc_call *call, enum grpc_status status, const char *text);

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

static void malformed(struct grpc_call *call)
{
    if (!call->malformed) {
        call->malformed = true;
        grpc_stream_reset(&call->stream, NGHTTP2_PROTOCOL_ERROR);
    }
}

static void on_deadline(void *arg)
{
    struct grpc_call *call = arg;
    if (call->open) {
        cancel(call);
        answer(call, GRPC_DEADLINE_EXCEEDED, "the deadline of the call has passed");
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
    size_t n = end_fields(call_of(s), digits, nv);
    (void)nghttp2_submit_trailer(c->session, s->id, nv, n);
}

/* Ends a call that the handler does not know, or no longer. */
static void answer(struct grpc_call *call, enum grpc_status status, const char *text)
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

static void answer_http(struct grpc_call *call, const char *http_status)
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
        answer(call, status, message);
    }
}

/* --- the request's head ----------------------------------------------------------------------- */

static const struct grpc_method *find_method(const struct grpc_server *server, struct str path)
{
    for (size_t i = 0; i < server->n_methods; i++) {
        if (str_eq(path, str_of(server->methods[i].path))) {
            return &server->methods[i];
        }
    }
    return NULL;
}

static bool once(bool *seen)
{
    bool first = !*seen;
    *seen = true;
    return first;
}

/* RFC 9113 8.3: each once, before all others, and none but the known ones. */
static bool take_pseudo(struct grpc_call *call, struct str name, struct str value)
{
    if (call->saw_regular || call->head_done) {
        return false;
    }
    if (str_eq(name, STR_LIT(":method"))) {
        call->is_post = str_eq(value, STR_LIT("POST"));
        return once(&call->saw_method) && value.n > 0;
    }
    if (str_eq(name, STR_LIT(":path"))) {
        call->method = find_method(call->server, value);
        return once(&call->saw_path) && value.n > 0 && value.p[0] == '/';
    }
    if (str_eq(name, STR_LIT(":scheme"))) {
        return once(&call->saw_scheme) &&
               (str_eq(value, STR_LIT("http")) || str_eq(value, STR_LIT("https")));
    }
    /* A host, "localhost", or the socket's path raw or percent-encoded: whatever it is, it is not
     * looked at. */
    return str_eq(name, STR_LIT(":authority")) && once(&call->saw_authority);
}

static bool keep_field(struct grpc_call *call, struct str name, struct str value)
{
    if (call->n_fields == MAX_FIELDS) {
        return false;
    }
    if (call->fields == NULL) {
        call->fields = calloc(MAX_FIELDS, sizeof(*call->fields));
    }
    char *text = call->fields != NULL ? malloc(name.n + value.n + 1) : NULL;
    if (text == NULL) {
        return false;
    }
    memcpy(text, name.p, name.n);
    if (value.n > 0) {
        memcpy(text + name.n, value.p, value.n);
    }
    call->fields[call->n_fields++] =
        (struct field){.name = {text, name.n}, .value = {text + name.n, value.n}};
    return true;
}

static bool take_regular(struct grpc_call *call, struct str name, struct str value)
{
    call->saw_regular = true;
    if (grpc_field_is_connection_specific(name)) {
        return false;
    }
    if (str_eq(name, STR_LIT("te"))) {
        return str_eq(value, STR_LIT("trailers"));
    }
    if (call->head_done) {
        return true; /* trailers of a request mean nothing to gRPC */
    }
    if (str_eq(name, STR_LIT("content-type"))) {
        call->content_type_ok = grpc_content_type_ok(value);
        return once(&call->saw_content_type);
    }
    if (str_eq(name, STR_LIT("content-length"))) {
        return once(&call->has_content_length) &&
               str_to_u64(value, UINT64_MAX, &call->content_length);
    }
    if (str_eq(name, STR_LIT("grpc-timeout"))) {
        call->timeout_ok = once(&call->has_timeout) && grpc_timeout_parse(value, &call->timeout_ms);
        return true;
    }
    if (grpc_field_is_metadata(name) && !keep_field(call, name, value)) {
        call->too_large = true;
    }
    return true;
}

static void on_header(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f,
                      struct str name, struct str value)
{
    (void)c;
    (void)f;
    struct grpc_call *call = call_of(s);
    if (!grpc_stream_count_field(s, name, value)) {
        call->too_large = true;
        return;
    }
    if (call->malformed || call->server == NULL) {
        return;
    }
    bool ok = nghttp2_check_header_name((const uint8_t *)name.p, name.n) != 0 &&
              nghttp2_check_header_value((const uint8_t *)value.p, value.n) != 0 &&
              (name.p[0] == ':' ? take_pseudo(call, name, value) : take_regular(call, name, value));
    if (!ok) {
        malformed(call);
    }
}

static void on_begin_headers(struct grpc_conn *c, const nghttp2_frame *f)
{
    if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST ||
        c->owner == NULL) {
        return;
    }
    struct grpc_call *call = calloc(1, sizeof(*call));
    if (call == NULL || nghttp2_session_set_stream_user_data(c->session, f->hd.stream_id, call)) {
        free(call);
        grpc_conn_fail(c, ERR_LIMIT, "out of memory");
        return;
    }
    grpc_stream_init(&call->stream, c, f->hd.stream_id);
    call->server = c->owner;
    loop_timer_init(&call->deadline, c->loop, on_deadline, call);
}

/* The head is whole: refuse the call or hand it to its handler. */
static void open_call(struct grpc_call *call)
{
    struct grpc_server *server = call->server;
    if (!call->saw_method || !call->saw_path || !call->saw_scheme) {
        malformed(call);
    } else if (call->too_large) {
        answer(call, GRPC_RESOURCE_EXHAUSTED, "the request's metadata is too large");
    } else if (!call->is_post) {
        answer_http(call, "405");
    } else if (!call->content_type_ok) {
        answer_http(call, "415");
    } else if (call->has_timeout && !call->timeout_ok) {
        answer(call, GRPC_INTERNAL, "malformed grpc-timeout");
    } else if (call->method == NULL) {
        answer(call, GRPC_UNIMPLEMENTED, "unknown service or method");
    } else if (server->draining) {
        answer(call, GRPC_UNAVAILABLE, "shutting down");
    } else {
        call->open = true;
        server->n_calls++;
        if (call->has_timeout) {
            loop_timer_arm(&call->deadline, call->timeout_ms);
        }
        if (call->method->on_open != NULL) {
            call->method->on_open(call, server->arg);
        }
    }
}

static void on_headers(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f)
{
    (void)c;
    struct grpc_call *call = call_of(s);
    if (call->malformed || call->server == NULL) {
        return;
    }
    if (!call->head_done) {
        call->head_done = true;
        open_call(call);
    } else if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        malformed(call); /* trailers end the stream */
    }
}

/* --- the request's message -------------------------------------------------------------------- */

static void refuse(struct grpc_call *call, enum grpc_status status, const char *text)
{
    cancel(call);
    answer(call, status, text);
    grpc_stream_release(&call->stream);
}

static void on_data(struct grpc_conn *c, struct grpc_stream *s, const uint8_t *p, size_t n)
{
    struct grpc_call *call = call_of(s);
    call->body_bytes += n;
    if (call->has_content_length && call->body_bytes > call->content_length) {
        cancel(call);
        malformed(call);
    }
    while (n > 0 && call->open && !c->closing) {
        if (call->has_request) {
            refuse(call, GRPC_UNIMPLEMENTED, "the method takes one request message");
            return;
        }
        size_t taken = 0;
        switch (grpc_stream_feed(s, p, n, &taken, &call->request)) {
        case GRPC_SPLIT_MORE:
            return;
        case GRPC_SPLIT_MESSAGE:
            call->has_request = true;
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
    struct grpc_call *call = call_of(s);
    if (call->has_content_length && call->body_bytes != call->content_length) {
        cancel(call);
        malformed(call);
    }
    if (!call->open) {
        return;
    }
    if (!grpc_splitter_at_end(&s->in)) {
        refuse(call, GRPC_INTERNAL, "the request ends within a message");
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
    struct grpc_call *call = call_of(s);
    if (call->open && call->method->on_drained != NULL) {
        call->method->on_drained(call, call->server->arg);
    }
}

static void stream_gone(struct grpc_conn *c, struct grpc_stream *s, uint32_t error_code)
{
    (void)c;
    (void)error_code;
    struct grpc_call *call = call_of(s);
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
    .on_begin_headers = on_begin_headers,
    .on_header = on_header,
    .on_headers = on_headers,
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
            cancel(call_of(s));
            call_of(s)->server = NULL;
        }
        grpc_conn_fail(c, ERR_UNAVAILABLE, "the server has ended");
        conn_unlink(server, c);
    }
    free(server);
    return NULL;
}

static struct grpc_conn *add(struct grpc_server *server, int fd, void *conn_context,
                             struct err *err)
{
    struct grpc_conn *c =
        grpc_conn_new(server->loop, fd, &server_ops, &server->limits, server, err);
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
                               struct grpc_conn **ret_conn, struct err *err)
{
    struct grpc_conn *c = add(server, fd, conn_context, err);
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
    return add(server, -1, conn_context, NULL);
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
