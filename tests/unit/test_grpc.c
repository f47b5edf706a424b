/*
 * A raw HTTP/2 client (nghttp2 without its checks) sends a gRPC server what broken and unusual
 * peers send.
 */
#include "grpc_server.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),       cmocka_unit_test(test_message_is_encoded),
        cmocka_unit_test(test_head_too_large), cmocka_unit_test(test_head_bomb),
        cmocka_unit_test(test_ping_flood),     cmocka_unit_test(test_rapid_reset),
        cmocka_unit_test(test_no_http2),       cmocka_unit_test(test_idle_goes_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
