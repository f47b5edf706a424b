/*
 * gRPC on a socket pair and one loop: a raw HTTP/2 client (nghttp2 without its checks) sends what
 * broken and unusual peers send; then our client against our server.
 */
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

static void on_guard(void *arg)
{
    struct fixture *f = arg;
    f->timed_out = true;
    loop_stop(f->loop);
}

static void run(struct fixture *f)
{
    loop_timer_arm(&f->guard, PATIENCE_MS);
    loop_run(f->loop);
    loop_timer_disarm(&f->guard);
    if (f->timed_out) {
        fail_msg("nothing came any more: %s", f->what != NULL ? f->what : "");
    }
}

static void on_later(void *arg)
{
    loop_stop(((struct fixture *)arg)->loop);
}

static void check_key(struct grpc_call *call, void *arg)
{
    struct fixture *f = arg;
    struct str value;
    f->n_open++;
    if (!grpc_call_metadata(call, STR_LIT("key"), 0, &value) || !str_eq(value, STR_LIT("true")) ||
        grpc_call_metadata(call, STR_LIT("key"), 1, &value)) {
        grpc_call_finish(call, GRPC_INVALID_ARGUMENT, "key: true is required");
    }
}

static void echo(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    assert_int_equal(grpc_call_send(call, message.p, message.n), GRPC_SENT);
    grpc_call_finish(call, GRPC_OK, NULL);
}

static void echo_stream(struct grpc_call *call, void *arg, struct str message)
{
    struct fixture *f = arg;
    assert_int_equal(grpc_call_send(call, message.p, message.n), GRPC_SENT);
    assert_int_equal(grpc_call_send(call, "", 0), GRPC_SENT);
    f->stream_call = call;
}

/* Any number of requests, each with its echo; the caller's end is ours. */
static void chat(struct grpc_call *call, void *arg, struct str message)
{
    struct fixture *f = arg;
    f->n_chat++;
    if (grpc_call_send(call, message.p, message.n) != GRPC_SENT) {
        grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too much is unsent");
    }
}

static void chat_end(struct grpc_call *call, void *arg)
{
    (void)arg;
    grpc_call_finish(call, GRPC_OK, NULL);
}

static void say_no(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    (void)message;
    grpc_call_finish(call, GRPC_PERMISSION_DENIED, "100% no: \xc3\xa9\n");
}

static void never(struct grpc_call *call, void *arg, struct str message)
{
    (void)call;
    (void)arg;
    (void)message;
}

static void cancelled(struct grpc_call *call, void *arg)
{
    struct fixture *f = arg;
    f->n_cancelled++;
    if (f->stream_call == call) {
        f->stream_call = NULL;
        loop_stop(f->loop);
    }
}

static void drained(struct grpc_call *call, void *arg)
{
    (void)call;
    struct fixture *f = arg;
    f->n_drained++;
}

static void conn_closed(void *arg, void *conn_context)
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

static void fixture_init(struct fixture *f, const struct grpc_limits *limits)
{
    *f = (struct fixture){.account = {.max_bytes = 64U << 20}};
    f->loop = loop_new(NULL);
    assert_non_null(f->loop);
    loop_timer_init(&f->guard, f->loop, on_guard, f);
    const struct grpc_server_events events = {conn_closed};
    f->server =
        grpc_server_new(f->loop, methods, sizeof(methods) / sizeof(methods[0]), limits, &events, f);
}

static int fixture_connect(struct fixture *f)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(grpc_server_add_connection(f->server, fds[0], f, &f->account, &f->conn, NULL),
                     0);
    return fds[1];
}

static void fixture_deinit(struct fixture *f)
{
    loop_timer_disarm(&f->guard);
    loop_timer_disarm(&f->later);
    grpc_server_free(f->server);
    loop_free(f->loop);
}

/* --- a raw client ------------------------------------------------------------------------------
 */

struct raw {
    struct fixture *f;
    int fd;
    struct loop_io *io;
    nghttp2_session *session;
    const uint8_t *body; /* one request's */
    size_t n_body, chunk;
    bool end;  /* END_STREAM after the body */
    bool mute; /* does not answer by itself */
    /* what came back */
    char http_status[8], grpc_status[8], message[200];
    uint8_t data[64];
    size_t n_data;
    bool got_end, closed, got_goaway;
    int reset; /* -1: none */
    uint32_t goaway_code;
    int n_ping_acks;
};

static int raw_on_header(nghttp2_session *s, const nghttp2_frame *fr, const uint8_t *name,
                         size_t n_name, const uint8_t *value, size_t n_value, uint8_t flags,
                         void *arg)
{
    (void)s;
    (void)fr;
    (void)flags;
    struct raw *r = arg;
    struct str n = {(const char *)name, n_name};
    if (str_eq(n, STR_LIT(":status"))) {
        (void)snprintf(r->http_status, sizeof(r->http_status), "%.*s", (int)n_value, value);
    } else if (str_eq(n, STR_LIT("grpc-status"))) {
        (void)snprintf(r->grpc_status, sizeof(r->grpc_status), "%.*s", (int)n_value, value);
    } else if (str_eq(n, STR_LIT("grpc-message"))) {
        (void)snprintf(r->message, sizeof(r->message), "%.*s", (int)n_value, value);
    }
    return 0;
}

static int raw_on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                       void *arg)
{
    (void)s;
    (void)flags;
    (void)id;
    struct raw *r = arg;
    if (n <= sizeof(r->data) - r->n_data) {
        memcpy(r->data + r->n_data, p, n);
    }
    r->n_data += n;
    return 0;
}

static int raw_on_frame(nghttp2_session *s, const nghttp2_frame *fr, void *arg)
{
    (void)s;
    struct raw *r = arg;
    if (fr->hd.type == NGHTTP2_RST_STREAM) {
        r->reset = (int)fr->rst_stream.error_code;
    } else if (fr->hd.type == NGHTTP2_GOAWAY) {
        r->got_goaway = true;
        r->goaway_code = fr->goaway.error_code;
    } else if (fr->hd.type == NGHTTP2_PING && (fr->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        r->n_ping_acks++;
    } else if ((fr->hd.type == NGHTTP2_HEADERS || fr->hd.type == NGHTTP2_DATA) &&
               (fr->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        r->got_end = true;
    }
    return 0;
}

static ssize_t raw_read(nghttp2_session *s, int32_t id, uint8_t *buf, size_t length,
                        uint32_t *data_flags, nghttp2_data_source *source, void *arg)
{
    (void)s;
    (void)id;
    (void)source;
    struct raw *r = arg;
    size_t n = r->n_body < length ? r->n_body : length;
    if (r->chunk != 0 && n > r->chunk) {
        n = r->chunk;
    }
    if (n > 0) {
        memcpy(buf, r->body, n);
    }
    r->body += n;
    r->n_body -= n;
    if (r->n_body == 0) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
        if (!r->end) {
            *data_flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        }
    }
    return (ssize_t)n;
}

static void raw_flush(struct raw *r)
{
    for (;;) {
        const uint8_t *p = NULL;
        ssize_t n = nghttp2_session_mem_send(r->session, &p);
        if (n <= 0) {
            return;
        }
        if (write(r->fd, p, (size_t)n) != n) {
            r->closed = true;
            return;
        }
    }
}

static void raw_on_io(void *arg, unsigned ready)
{
    (void)ready;
    struct raw *r = arg;
    uint8_t bytes[65536];
    ssize_t n = recv(r->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0) {
        if (nghttp2_session_mem_recv(r->session, bytes, (size_t)n) < 0) {
            r->closed = true;
        }
        if (!r->mute) {
            raw_flush(r);
        }
    } else {
        r->closed = true;
    }
    if (r->closed) {
        loop_io_want(r->io, 0);
    }
    if (r->got_end || r->closed || r->reset >= 0 || r->n_ping_acks > 0) {
        loop_stop(r->f->loop);
    }
}

static void raw_init(struct raw *r, struct fixture *f)
{
    *r = (struct raw){.f = f, .reset = -1, .end = true};
    r->fd = fixture_connect(f);
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *o = NULL;
    assert_int_equal(nghttp2_session_callbacks_new(&cb), 0);
    assert_int_equal(nghttp2_option_new(&o), 0);
    nghttp2_option_set_no_http_messaging(o, 1);
    nghttp2_option_set_max_send_header_block_length(o, 1U << 20);
    nghttp2_session_callbacks_set_on_header_callback(cb, raw_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, raw_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, raw_on_frame);
    assert_int_equal(nghttp2_session_client_new2(&r->session, cb, r, o), 0);
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    /* As grpc-core does: nothing may be opened towards us, and frames may be large. */
    const nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0},
                                         {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 4194304}};
    assert_int_equal(nghttp2_submit_settings(r->session, 0, iv, 2), 0);
    r->io = loop_io_new(f->loop, r->fd, raw_on_io, r);
    loop_io_want(r->io, LOOP_READ);
}

static void raw_deinit(struct raw *r)
{
    nghttp2_session_del(r->session);
    loop_io_free(r->io);
    (void)close(r->fd);
}

struct header {
    const char *name, *value;
};
static void raw_request(struct raw *r, const struct header *headers, const void *body, size_t n)
{
    nghttp2_nv nv[N_FIELDS_MAX];
    size_t n_nv = 0;
    for (; headers->name != NULL; headers++) {
        nv[n_nv++] =
            (nghttp2_nv){(uint8_t *)(uintptr_t)headers->name, (uint8_t *)(uintptr_t)headers->value,
                         strlen(headers->name), strlen(headers->value), 0};
    }
    r->body = body;
    r->n_body = n;
    nghttp2_data_provider provider = {.read_callback = raw_read};
    assert_true(nghttp2_submit_request(r->session, NULL, nv, n_nv, &provider, NULL) > 0);
    raw_flush(r);
}

/* --- requests, bad ones first ------------------------------------------------------------------
 */

#define M {":method", "POST"}
#define S {":scheme", "http"}
#define P {":path", "/T/Echo"}
#define CHAT {":path", "/T/Chat"}
#define A {":authority", "localhost"}
#define T {"te", "trailers"}
#define C {"content-type", "application/grpc"}
#define BODY "\0\0\0\0\2hi"

struct request_case {
    const char *what;
    struct header headers[12];
    const char *body;
    size_t n_body;
    const char *http_status, *grpc_status; /* NULL: none is seen */
    int reset;                             /* -1: none */
    bool no_end;
};
#define BODY_OF(lit) .body = (lit), .n_body = sizeof(lit) - 1

static const struct request_case request_cases[] = {
    {"two paths", {M, S, P, P, T, C}, BODY_OF(BODY), .reset = NGHTTP2_PROTOCOL_ERROR},
    {"no path", {M, S, A, T, C}, BODY_OF(BODY), .reset = NGHTTP2_PROTOCOL_ERROR},
    {"no scheme", {M, P, A, T, C}, BODY_OF(BODY), .reset = NGHTTP2_PROTOCOL_ERROR},
    {"no method", {S, P, A, T, C}, BODY_OF(BODY), .reset = NGHTTP2_PROTOCOL_ERROR},
    {"path without slash",
     {M, S, {":path", "T/Echo"}, T, C},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"pseudo-header after a field",
     {M, S, T, P, C},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"unknown pseudo-header",
     {M, S, P, {":protocol", "x"}, T, C},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"connection field",
     {M, S, P, A, {"connection", "close"}, C},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"te not trailers",
     {M, S, P, A, {"te", "gzip"}, C},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"space in a name",
     {M, S, P, A, T, C, {"ke y", "x"}},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"line feed in a value",
     {M, S, P, A, T, C, {"key", "a\nb"}},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"content-length too small",
     {M, S, P, A, T, C, {"content-length", "6"}},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"content-length too large",
     {M, S, P, A, T, C, {"content-length", "8"}},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"content-length garbage",
     {M, S, P, A, T, C, {"content-length", "-7"}},
     BODY_OF(BODY),
     .reset = NGHTTP2_PROTOCOL_ERROR},
    {"GET", {{":method", "GET"}, S, P, A, T, C}, BODY_OF(BODY), "405", NULL, -1},
    {"no content-type", {M, S, P, A, T}, BODY_OF(BODY), "415", NULL, -1},
    {"JSON", {M, S, P, A, T, {"content-type", "application/json"}}, BODY_OF(BODY), "415", NULL, -1},
    {"grpc-web",
     {M, S, P, A, T, {"content-type", "application/grpc-web"}},
     BODY_OF(BODY),
     "415",
     NULL,
     -1},
    {"unknown method", {M, S, {":path", "/T/Nope"}, A, T, C}, BODY_OF(BODY), "200", "12", -1},
    {"path with query", {M, S, {":path", "/T/Echo?x"}, A, T, C}, BODY_OF(BODY), "200", "12", -1},
    {"bad timeout", {M, S, P, A, T, C, {"grpc-timeout", "10x"}}, BODY_OF(BODY), "200", "13", -1},
    {"compressed", {M, S, P, A, T, C}, BODY_OF("\1\0\0\0\2hi"), "200", "12", -1},
    {"message too large", {M, S, P, A, T, C}, BODY_OF("\0\0\x40\0\1hi"), "200", "8", -1},
    {"two messages", {M, S, P, A, T, C}, BODY_OF(BODY "\0\0\0\0\0"), "200", "12", -1},
    {"half a message", {M, S, P, A, T, C}, BODY_OF("\0\0\0\0\3hi"), "200", "13", -1},
    {"half a message of many",
     {M, S, CHAT, A, T, C},
     BODY_OF(BODY "\0\0\0\0\3hi"),
     "200",
     "13",
     -1},
    {"none of many", {M, S, CHAT, A, T, C}, BODY_OF(""), "200", "0", -1},
    {"many messages", {M, S, CHAT, A, T, C}, BODY_OF(BODY BODY "\0\0\0\0\0"), "200", "0", -1},
    {"no message", {M, S, P, A, T, C}, BODY_OF(""), "200", "12", -1},
    {"key missing", {M, S, {":path", "/T/Checked"}, A, T, C}, BODY_OF(BODY), "200", "3", -1},
    {"key missing, request unfinished",
     {M, S, {":path", "/T/Checked"}, A, T, C},
     BODY_OF(BODY),
     "200",
     "3",
     NGHTTP2_NO_ERROR,
     .no_end = true},
    {"key twice",
     {M, S, {":path", "/T/Checked"}, T, C, {"key", "true"}, {"key", "true"}},
     BODY_OF(BODY),
     "200",
     "3",
     -1},
    {"key of other case",
     {M, S, {":path", "/T/Checked"}, T, C, {"key", "True"}},
     BODY_OF(BODY),
     "200",
     "3",
     -1},
    {"denied", {M, S, {":path", "/T/No"}, A, T, C}, BODY_OF(BODY), "200", "7", -1},
    {"deadline passes",
     {M, S, {":path", "/T/Never"}, A, T, C, {"grpc-timeout", "1m"}},
     BODY_OF(BODY),
     "200",
     "4",
     -1},
    {"deadline passed",
     {M, S, {":path", "/T/Never"}, A, T, C, {"grpc-timeout", "0n"}},
     BODY_OF(BODY),
     "200",
     "4",
     -1},

    {"good", {M, S, P, A, T, C}, BODY_OF(BODY), "200", "0", -1},
    {"good, empty message", {M, S, P, A, T, C}, BODY_OF("\0\0\0\0\0"), "200", "0", -1},
    {"good, exact length",
     {M, S, P, A, T, C, {"content-length", "7"}},
     BODY_OF(BODY),
     "200",
     "0",
     -1},
    {"good, key",
     {M, S, {":path", "/T/Checked"}, A, T, C, {"key", "true"}},
     BODY_OF(BODY),
     "200",
     "0",
     -1},
    {"authority as grpc-java sends it",
     {M, S, P, {":authority", "/tmp/a.sock"}, T, C},
     BODY_OF(BODY),
     "200",
     "0",
     -1},
    {"authority as grpc-core sends it",
     {M, S, P, {":authority", "tmp%2Fa.sock"}, T, C},
     BODY_OF(BODY),
     "200",
     "0",
     -1},
    {"no authority", {M, S, P, T, C}, BODY_OF(BODY), "200", "0", -1},
    {"no te", {M, S, P, A, C}, BODY_OF(BODY), "200", "0", -1},
    {"content-type with codec",
     {M, S, P, A, T, {"content-type", "application/grpc+proto"}},
     BODY_OF(BODY),
     "200",
     "0",
     -1},
    {"content-type with parameter",
     {M, S, P, A, T, {"content-type", "application/grpc;a=b"}},
     BODY_OF(BODY),
     "200",
     "0",
     -1},
    {"timeout in time",
     {M, S, P, A, T, C, {"grpc-timeout", "99999999H"}},
     BODY_OF(BODY),
     "200",
     "0",
     -1},
};

static bool same_text(const char *got, const char *want)
{
    return strcmp(got, want != NULL ? want : "") == 0;
}

static void try_case(const struct request_case *rc, size_t chunk)
{
    struct fixture f;
    struct raw r;
    const struct grpc_limits limits = {.max_message_bytes = 4U * 1024 * 1024};
    fixture_init(&f, &limits);
    raw_init(&r, &f);
    r.chunk = chunk;
    r.end = !rc->no_end;
    f.what = rc->what;
    raw_request(&r, rc->headers, rc->body, rc->n_body);
    do {
        run(&f);
    } while (rc->reset >= 0 && r.reset < 0 && !r.closed);
    if (!same_text(r.http_status, rc->http_status) || !same_text(r.grpc_status, rc->grpc_status) ||
        r.reset != rc->reset || r.closed) {
        fail_msg("%s: HTTP %s, gRPC %s (%s), reset %d%s", rc->what, r.http_status, r.grpc_status,
                 r.message, r.reset, r.closed ? ", closed" : "");
    }
    if (strcmp(r.grpc_status, "0") == 0) {
        assert_int_equal(r.n_data, rc->n_body);
        assert_memory_equal(r.data, rc->body, rc->n_body);
    }
    raw_deinit(&r);
    fixture_deinit(&f);
    assert_int_equal(f.n_conns_closed, 1);
}

static void test_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(request_cases) / sizeof(request_cases[0]); i++) {
        try_case(&request_cases[i], 0);
        try_case(&request_cases[i], 1); /* a byte a DATA frame */
    }
}

static void test_message_is_encoded(void **state)
{
    (void)state;
    struct fixture f;
    struct raw r;
    fixture_init(&f, NULL);
    raw_init(&r, &f);
    raw_request(&r, (struct header[]){M, S, {":path", "/T/No"}, A, T, C, {NULL, NULL}}, BODY, 7);
    run(&f);
    assert_string_equal(r.message, "100%25 no: %C3%A9%0A");
    raw_deinit(&r);
    fixture_deinit(&f);
}

static void test_head_too_large(void **state)
{
    (void)state;
    struct fixture f;
    struct raw r;
    fixture_init(&f, NULL);
    raw_init(&r, &f);
    static char long_value[9001];
    memset(long_value, 'v', sizeof(long_value) - 1);
    raw_request(
        &r, (struct header[]){M, S, P, T, C, {"a", long_value}, {"b", long_value}, {NULL, NULL}},
        BODY, 7);
    run(&f);
    assert_string_equal(r.grpc_status, "8");
    raw_deinit(&r);
    fixture_deinit(&f);
}

/* One field from the compression table, again and again: small on the wire, large in memory. */
static void test_head_bomb(void **state)
{
    (void)state;
    struct fixture f;
    struct raw r;
    fixture_init(&f, NULL);
    raw_init(&r, &f);
    static char long_value[3001];
    memset(long_value, 'v', sizeof(long_value) - 1);
    struct header headers[N_FIELDS_MAX] = {M, S, P, T, C};
    for (size_t i = 5; i < 75; i++) {
        headers[i] = (struct header){"bomb", long_value};
    }
    raw_request(&r, headers, BODY, 7);
    run(&f);
    assert_true(r.closed);
    assert_int_equal(grpc_server_conn_count(f.server), 0);
    raw_deinit(&r);
    fixture_deinit(&f);
}

static void expect_calm(struct raw *r)
{
    raw_flush(r);
    while (!r->closed) {
        r->n_ping_acks = 0;
        run(r->f);
    }
    assert_true(r->got_goaway);
    assert_int_equal(r->goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void test_ping_flood(void **state)
{
    (void)state;
    struct fixture f;
    struct raw r;
    const struct grpc_limits limits = {.max_control_burst = 20, .max_control_per_s = 1};
    fixture_init(&f, &limits);
    raw_init(&r, &f);
    assert_int_equal(nghttp2_submit_ping(r.session, 0, NULL), 0);
    raw_flush(&r);
    run(&f);
    assert_int_equal(r.n_ping_acks, 1);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(nghttp2_submit_ping(r.session, 0, NULL), 0);
    }
    expect_calm(&r);
    raw_deinit(&r);
    fixture_deinit(&f);
}

static void test_rapid_reset(void **state)
{
    (void)state;
    struct fixture f;
    struct raw r;
    const struct grpc_limits limits = {.max_control_burst = 20, .max_control_per_s = 1};
    fixture_init(&f, &limits);
    raw_init(&r, &f);
    r.end = false;
    for (int i = 0; i < 40; i++) {
        raw_request(&r, (struct header[]){M, S, P, A, T, C, {NULL, NULL}}, "", 0);
        assert_int_equal(nghttp2_submit_rst_stream(r.session, 0, 2 * i + 1, NGHTTP2_CANCEL), 0);
        raw_flush(&r);
    }
    expect_calm(&r);
    assert_int_equal(f.n_cancelled > 0, 1);
    raw_deinit(&r);
    fixture_deinit(&f);
    assert_int_equal(grpc_splitter_at_end(&(struct grpc_splitter){0}), 1);
}

static void test_no_http2(void **state)
{
    (void)state;
    struct fixture f;
    const struct grpc_limits limits = {.handshake_timeout_ms = 20};
    fixture_init(&f, &limits);
    struct raw silent;
    raw_init(&silent, &f);
    silent.mute = true;
    run(&f); /* closed after the time limit */
    assert_true(silent.closed);
    struct raw garbage;
    raw_init(&garbage, &f);
    garbage.mute = true;
    assert_int_equal(write(garbage.fd, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", 27), 27);
    run(&f);
    assert_true(garbage.closed);
    raw_deinit(&silent);
    raw_deinit(&garbage);
    fixture_deinit(&f);
}

static void test_idle_goes_away(void **state)
{
    (void)state;
    struct fixture f;
    const struct grpc_limits limits = {.idle_timeout_ms = 20};
    fixture_init(&f, &limits);
    struct raw r;
    raw_init(&r, &f);
    raw_flush(&r);
    run(&f);
    assert_true(r.closed);
    assert_true(r.got_goaway);
    assert_int_equal(r.goaway_code, NGHTTP2_NO_ERROR);
    raw_deinit(&r);
    fixture_deinit(&f);
}

/* --- our client --------------------------------------------------------------------------------
 */

struct caller {
    struct fixture *f;
    struct grpc_client *client;
    struct grpc_client_call *call;
    int n_messages, n_ended, n_ready, n_closed;
    size_t n_bytes;
    uint8_t first, last;
    enum grpc_status status;
    char text[200];
    char why[200];
    bool free_in_message;
    int stop_at_messages;
};

static void caller_on_ready(void *arg)
{
    ((struct caller *)arg)->n_ready++;
}

static void caller_on_closed(void *arg, const struct err *why)
{
    struct caller *c = arg;
    c->n_closed++;
    (void)snprintf(c->why, sizeof(c->why), "%.*s", 199, why->what);
    loop_stop(c->f->loop);
}

static void caller_on_message(void *arg, struct str m)
{
    struct caller *c = arg;
    c->n_messages++;
    c->n_bytes = m.n;
    if (m.n > 0) {
        c->first = (uint8_t)m.p[0];
        c->last = (uint8_t)m.p[m.n - 1];
    }
    if (c->free_in_message) {
        c->client = grpc_client_free(c->client);
    }
    if (c->n_messages == c->stop_at_messages) {
        loop_stop(c->f->loop);
    }
}

static void caller_on_end(void *arg, enum grpc_status status, const char *text)
{
    struct caller *c = arg;
    c->n_ended++;
    c->status = status;
    (void)snprintf(c->text, sizeof(c->text), "%s", text);
    c->call = NULL;
    loop_stop(c->f->loop);
}

static const struct grpc_client_handlers caller_handlers = {caller_on_message, caller_on_end};

static void caller_init(struct caller *c, struct fixture *f, const struct grpc_limits *limits)
{
    *c = (struct caller){.f = f, .status = GRPC_UNKNOWN};
    const struct grpc_client_events events = {caller_on_ready, caller_on_closed};
    c->client = grpc_client_new_fd(f->loop, fixture_connect(f), limits, &events, c, NULL);
    assert_non_null(c->client);
}

static void caller_start(struct caller *c, const char *path, bool streaming, struct str message,
                         uint64_t deadline_ms)
{
    static const struct grpc_metadata metadata[] = {{"key", "true"}};
    const struct grpc_request request = {.path = path,
                                         .message = message,
                                         .metadata = metadata,
                                         .n_metadata = 1,
                                         .streaming = streaming,
                                         .deadline_ms = deadline_ms};
    c->call = grpc_client_start(c->client, &request, &caller_handlers, c, NULL);
    assert_non_null(c->call);
}

static void test_client_unary(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    caller_start(&c, "/T/Checked", false, STR_LIT("hello"), 5000);
    run(&f);
    assert_int_equal(c.status, GRPC_OK);
    assert_int_equal(c.n_messages, 1);
    assert_int_equal(c.n_bytes, 5);
    assert_int_equal(c.n_ready, 1);
    caller_start(&c, "/T/No", false, STR_LIT("hello"), 0);
    run(&f);
    assert_int_equal(c.status, GRPC_PERMISSION_DENIED);
    assert_string_equal(c.text, "100% no: \xc3\xa9?");
    caller_start(&c, "/T/Nope", false, STR_NONE, 0);
    run(&f);
    assert_int_equal(c.status, GRPC_UNIMPLEMENTED);
    caller_start(&c, "/T/Never", false, STR_NONE, 20);
    run(&f);
    assert_int_equal(c.status, GRPC_DEADLINE_EXCEEDED);
    assert_int_equal(c.n_ended, 4);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

/* Larger than any window: goes out as the windows open. */
static void test_client_large(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    char *big = malloc(BIG);
    assert_non_null(big);
    memset(big, 'm', BIG);
    big[0] = 'f';
    big[BIG - 1] = 'l';
    caller_start(&c, "/T/Stream", true, (struct str){big, BIG}, 0);
    c.stop_at_messages = 2;
    run(&f);
    assert_int_equal(c.n_messages, 2);
    assert_int_equal(c.n_bytes, 0); /* the second one is empty */
    assert_int_equal(c.first, 'f');
    assert_int_equal(c.last, 'l');
    assert_true(f.n_drained >= 1);
    assert_int_equal(grpc_call_unsent(f.stream_call), 0);
    grpc_call_finish(f.stream_call, GRPC_OK, NULL);
    run(&f);
    assert_int_equal(c.status, GRPC_OK);
    free(big);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

static void test_bounds_out(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    const struct grpc_limits limits = {.max_call_out_bytes = 200000, .stall_timeout_ms = 50};
    fixture_init(&f, &limits);
    caller_init(&c, &f, NULL);
    caller_start(&c, "/T/Stream", true, STR_NONE, 0);
    c.stop_at_messages = 2;
    run(&f);
    char *part = calloc(1, 100000);
    assert_non_null(part);
    assert_int_equal(grpc_call_send(f.stream_call, part, 100000), GRPC_SENT);
    assert_int_equal(grpc_call_send(f.stream_call, part, 99990), GRPC_SENT);
    assert_int_equal(grpc_call_send(f.stream_call, part, 1), GRPC_FULL);
    free(part);
    grpc_client_cancel(c.call);
    run(&f); /* until on_cancel of the server's side */
    assert_null(f.stream_call);
    assert_int_equal(f.n_cancelled, 1);
    assert_int_equal(c.n_ended, 0);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

/* What an owner's connections hold is counted, bounded, and all of it given back. */
static void test_account(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    caller_start(&c, "/T/Stream", true, STR_NONE, 0);
    c.stop_at_messages = 2;
    run(&f);
    f.account.max_bytes = f.account.bytes + 1000;
    char part[2000] = {0};
    assert_int_equal(grpc_call_send(f.stream_call, part, sizeof(part)), GRPC_FULL);
    assert_int_equal(grpc_call_send(f.stream_call, part, 900), GRPC_SENT);
    assert_int_equal(grpc_call_send(f.stream_call, part, 100), GRPC_FULL);
    size_t before = f.account.bytes;
    assert_false(grpc_call_hold(f.stream_call, 200));
    assert_true(grpc_call_hold(f.stream_call, 50));
    assert_int_equal(f.account.bytes, before + 50);
    assert_true(grpc_call_hold(f.stream_call, 20));
    assert_int_equal(f.account.bytes, before + 20); /* given back with the call */
    f.account.max_bytes = 64U << 20;
    c.stop_at_messages = 3;
    run(&f);
    grpc_client_free(c.client);
    loop_timer_init(&f.later, f.loop, on_later, &f);
    while (f.n_conns_closed == 0) {
        loop_timer_arm(&f.later, 1);
        run(&f);
    }
    assert_int_equal(f.account.bytes, 0);
    fixture_deinit(&f);
}

static void test_client_of_a_server_that_goes(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    caller_start(&c, "/T/Stream", true, STR_NONE, 0);
    c.stop_at_messages = 2;
    run(&f);
    grpc_server_drain(f.server);
    grpc_call_finish(f.stream_call, GRPC_UNAVAILABLE, "restarting");
    while (c.n_closed == 0) {
        run(&f);
    }
    assert_int_equal(c.status, GRPC_UNAVAILABLE);
    assert_string_equal(c.text, "restarting");
    assert_int_equal(grpc_server_conn_count(f.server), 0);
    assert_null(grpc_client_start(c.client, &(struct grpc_request){.path = "/T/Echo"},
                                  &caller_handlers, &c, NULL));
    grpc_client_free(c.client);

    struct caller d;
    caller_init(&d, &f, NULL); /* a connection during the drain is turned away */
    while (d.n_closed == 0) {
        run(&f);
    }
    grpc_client_free(d.client);
    fixture_deinit(&f);
}

static void test_close_ends_calls(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    caller_start(&c, "/T/Stream", true, STR_NONE, 0);
    c.stop_at_messages = 2;
    run(&f);
    grpc_conn_close(f.conn);
    while (c.n_closed == 0) {
        run(&f);
    }
    assert_int_equal(f.n_cancelled, 1);
    assert_int_equal(c.n_ended, 1);
    assert_int_equal(c.status, GRPC_UNAVAILABLE);
    grpc_client_free(c.client);
    fixture_deinit(&f);
}

static void test_free_in_callback(void **state)
{
    (void)state;
    struct fixture f;
    struct caller c;
    fixture_init(&f, NULL);
    caller_init(&c, &f, NULL);
    c.free_in_message = true;
    caller_start(&c, "/T/Stream", true, STR_LIT("x"), 0);
    run(&f); /* the server sees it go */
    assert_int_equal(c.n_messages, 1);
    assert_int_equal(c.n_ended, 0);
    fixture_deinit(&f);
}

static void test_keepalive(void **state)
{
    (void)state;
    struct fixture f;
    const struct grpc_limits limits = {.keepalive_ms = 20};
    fixture_init(&f, &limits);
    int fd = fixture_connect(&f);
    /* A peer that said hello once and never again. */
    const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    assert_int_equal(write(fd, hello, sizeof(hello) - 1), sizeof(hello) - 1);
    loop_timer_init(&f.later, f.loop, on_guard, &f);
    while (f.n_conns_closed == 0 && !f.timed_out) {
        loop_timer_arm(&f.later, PATIENCE_MS);
        struct loop_timer turn;
        loop_timer_init(&turn, f.loop, (loop_timer_fn)(void (*)(void))loop_stop, f.loop);
        loop_timer_arm(&turn, 5);
        loop_run(f.loop);
        loop_timer_disarm(&turn);
    }
    assert_int_equal(f.n_conns_closed, 1);
    (void)close(fd);
    fixture_deinit(&f);
}

/* --- pure parts --------------------------------------------------------------------------------
 */

static void test_timeout(void **state)
{
    (void)state;
    static const char *const bad[] = {"",    "S",   "1",   "1s",  "123456789S",
                                      "-1S", " 1S", "1 S", "0x1S"};
    uint64_t ms = 77;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(grpc_timeout_parse(str_of(bad[i]), &ms));
    }
    assert_int_equal(ms, 77);
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        {"0S", 0}, {"1H", 3600000}, {"2M", 120000}, {"10S", 10000},     {"7m", 7},
        {"1u", 1}, {"1000u", 1},    {"1001u", 2},   {"99999999n", 100}, {"99999999H", UINT32_MAX}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(grpc_timeout_parse(str_of(good[i].text), &ms));
        assert_int_equal(ms, good[i].ms);
    }
}

static void test_message_text(void **state)
{
    (void)state;
    char out[16];
    assert_int_equal(grpc_message_encode("a%b", out, sizeof(out)), 5);
    assert_string_equal(out, "a%25b");
    /* Never half a character: 'a' and two of three bytes would fit. */
    (void)grpc_message_encode("a\xe2\x82\xac", out, 8);
    assert_string_equal(out, "a");
    (void)grpc_message_decode(STR_LIT("%C3%A9%0A%zz%2"), out, sizeof(out));
    assert_string_equal(out, "\xc3\xa9?%zz%2");
    /* What a terminal would take for an order, written in either way. */
    (void)grpc_message_decode(STR_LIT("a%C2%9B1m\xc2\x85z"), out, sizeof(out));
    assert_string_equal(out, "a?1m?z");
    (void)grpc_message_decode(STR_LIT("12345"), out, 4);
    assert_string_equal(out, "123");
    assert_string_equal(grpc_status_name(GRPC_UNAVAILABLE), "Unavailable");
    assert_string_equal(grpc_status_name((enum grpc_status)99), "Unknown");
}

static void test_splitter(void **state)
{
    (void)state;
    struct grpc_splitter s = {.max_bytes = 10};
    size_t taken = 0;
    struct str m = STR_NONE;
    static const uint8_t large[] = {0, 0, 0, 0, 11};
    assert_int_equal(grpc_splitter_feed(&s, large, 5, &taken, &m), GRPC_SPLIT_TOO_LARGE);
    grpc_splitter_reset(&s);
    static const uint8_t flag[] = {2, 0, 0, 0, 1};
    assert_int_equal(grpc_splitter_feed(&s, flag, 5, &taken, &m), GRPC_SPLIT_COMPRESSED);
    grpc_splitter_reset(&s);
    static const uint8_t two[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 'h', 'i'};
    assert_int_equal(grpc_splitter_feed(&s, two, sizeof(two), &taken, &m), GRPC_SPLIT_MESSAGE);
    assert_int_equal(taken, 5);
    assert_int_equal(m.n, 0);
    assert_true(grpc_splitter_at_end(&s));
    assert_int_equal(grpc_splitter_feed(&s, two + 5, 6, &taken, &m), GRPC_SPLIT_MORE);
    assert_int_equal(taken, 6);
    assert_false(grpc_splitter_at_end(&s));
    assert_int_equal(grpc_splitter_feed(&s, two + 11, 1, &taken, &m), GRPC_SPLIT_MESSAGE);
    assert_true(str_eq(m, STR_LIT("hi")));
    grpc_splitter_reset(&s);
    assert_int_equal(grpc_splitter_held(&s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splitter),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_message_text),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_message_is_encoded),
        cmocka_unit_test(test_head_too_large),
        cmocka_unit_test(test_head_bomb),
        cmocka_unit_test(test_ping_flood),
        cmocka_unit_test(test_rapid_reset),
        cmocka_unit_test(test_no_http2),
        cmocka_unit_test(test_idle_goes_away),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_client_unary),
        cmocka_unit_test(test_client_large),
        cmocka_unit_test(test_bounds_out),
        cmocka_unit_test(test_account),
        cmocka_unit_test(test_client_of_a_server_that_goes),
        cmocka_unit_test(test_close_ends_calls),
        cmocka_unit_test(test_free_in_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
