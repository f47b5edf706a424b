/* The head of a request: judged field by field, then refused or handed to its handler. */
#include "grpc_server_priv.h"

#include <stdlib.h>

enum { MAX_FIELDS = 64, FIRST_FIELDS = 4 /* of metadata; few clients send more */ };

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
    enum { ALLOCATION = 16 };
    size_t held = call->fields_held + name.n + value.n + sizeof(*call->fields) + ALLOCATION;
    if (call->n_fields == MAX_FIELDS) {
        return false;
    }
    if (!call->stream.charged || !grpc_stream_hold(&call->stream, held)) {
        call->no_room = true;
        return true;
    }
    call->fields_held = held;
    if (call->n_fields == call->fields_cap) {
        size_t cap = call->fields_cap > 0 ? call->fields_cap * 2 : FIRST_FIELDS;
        struct grpc_field *fields = realloc(call->fields, cap * sizeof(*fields));
        if (fields == NULL) {
            return false;
        }
        call->fields = fields;
        call->fields_cap = cap;
    }
    char *text = malloc(name.n + value.n + 1);
    if (text == NULL) {
        return false;
    }
    memcpy(text, name.p, name.n);
    if (value.n > 0) {
        memcpy(text + name.n, value.p, value.n);
    }
    call->fields[call->n_fields++] =
        (struct grpc_field){.name = {text, name.n}, .value = {text + name.n, value.n}};
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

void grpc_server_on_header(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f,
                           struct str name, struct str value)
{
    (void)c;
    (void)f;
    struct grpc_call *call = grpc_call_of(s);
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
        grpc_call_malformed(call);
    }
}

void grpc_server_on_begin_headers(struct grpc_conn *c, const nghttp2_frame *f)
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
    loop_timer_init(&call->deadline, c->loop, grpc_call_on_deadline, call);
}

/* The head is whole: refuse the call or hand it to its handler. */
static void open_call(struct grpc_call *call)
{
    struct grpc_server *server = call->server;
    if (!call->saw_method || !call->saw_path || !call->saw_scheme) {
        grpc_call_malformed(call);
    } else if (call->too_large) {
        grpc_call_answer(call, GRPC_RESOURCE_EXHAUSTED, "the request's metadata is too large");
    } else if (!call->is_post) {
        grpc_call_answer_http(call, "405");
    } else if (!call->content_type_ok) {
        grpc_call_answer_http(call, "415");
    } else if (call->has_timeout && !call->timeout_ok) {
        grpc_call_answer(call, GRPC_INTERNAL, "malformed grpc-timeout");
    } else if (call->method == NULL) {
        grpc_call_answer(call, GRPC_UNIMPLEMENTED, "unknown service or method");
    } else if (server->draining) {
        grpc_call_answer(call, GRPC_UNAVAILABLE, "shutting down");
    } else if (!call->stream.charged || call->no_room) {
        grpc_call_answer(call, GRPC_UNAVAILABLE,
                         "this user holds too much memory: close some calls");
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

void grpc_server_on_headers(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f)
{
    (void)c;
    struct grpc_call *call = grpc_call_of(s);
    if (call->malformed || call->server == NULL) {
        return;
    }
    if (!call->head_done) {
        call->head_done = true;
        open_call(call);
    } else if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        grpc_call_malformed(call); /* trailers end the stream */
    }
}
