/* A session: nghttp2's callbacks, and bytes in and out. */
#include "http2_priv.h"

#include <stdlib.h>

const char *http2_abuse_name(enum http2_abuse a)
{
    static const char *const names[] = {"none",      "too_many_frames", "header_bomb", "protocol",
                                        "no_memory", "silent",          "slow_head",   "left"};
    return names[a];
}

void http2_wake(struct http2_session *s)
{
    if (!s->woken) {
        s->woken = true;
        s->ops->wake(s->arg);
    }
}

/* By hand: nghttp2 may be past saying anything. */
static void last_word(struct http2_session *s, enum http2_code code)
{
    uint8_t frame[FRAME_HEADER + 8] = {0, 0, 8, NGHTTP2_GOAWAY};
    int32_t last = s->server ? nghttp2_session_get_last_proc_stream_id(s->ng) : 0;
    for (unsigned i = 0; i < 4; i++) {
        frame[FRAME_HEADER + i] = (uint8_t)((uint32_t)last >> (24 - 8 * i));
        frame[FRAME_HEADER + 4 + i] = (uint8_t)((uint32_t)code >> (24 - 8 * i));
    }
    (void)buf_append(&s->emit, frame, sizeof(frame));
}

void http2_fail(struct http2_session *s, enum http2_abuse why, enum http2_code code)
{
    if (s->why == HTTP2_OK) {
        s->why = why;
        last_word(s, code);
        http2_wake(s);
    }
}

bool http2_pay(struct http2_session *s)
{
    if (!http2_calm_pay(&s->calm, s->now_ms)) {
        http2_fail(s, HTTP2_TOO_MANY_FRAMES, HTTP2_ENHANCE_YOUR_CALM);
        return false;
    }
    return true;
}

struct http2_stream *http2_find(nghttp2_session *ng, int32_t id)
{
    return (struct http2_stream *)nghttp2_session_get_stream_user_data(ng, id);
}

static int carry_on(const struct http2_session *s)
{
    return s->why == HTTP2_OK ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* --- frames ----------------------------------------------------------------------------------- */

static bool has_brought(struct http2_session *s, const nghttp2_frame_hd *hd)
{
    if (!s->server) {
        return true;
    }
    if (hd->type == NGHTTP2_HEADERS) { /* behind our last GOAWAY it is decoded for nothing */
        return s->goaways < 2 || hd->stream_id <= s->last_id;
    }
    const struct http2_stream *st =
        hd->type == NGHTTP2_RST_STREAM ? http2_find(s->ng, hd->stream_id) : NULL;
    return st != NULL && st->head_out;
}

static bool ends_with_data(const nghttp2_frame_hd *hd)
{
    return hd->type == NGHTTP2_DATA && (hd->flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
           (hd->flags & NGHTTP2_FLAG_PADDED) == 0;
}

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    const struct http2_calm_frame f = {
        .type = hd->type, .flags = hd->flags, .length = hd->length, .brought = has_brought(s, hd)};
    (void)ng;
    if (hd->type == NGHTTP2_HEADERS) {
        s->head_began_ms = s->now_ms;
    }
    s->last_n = 0;
    s->ending_left = ends_with_data(hd) ? hd->length : 0;
    switch (http2_calm_frame(&s->calm, &f, s->now_ms)) {
    case HTTP2_CALM:
        break;
    case HTTP2_CALM_TOO_MANY:
        http2_fail(s, HTTP2_TOO_MANY_FRAMES, HTTP2_ENHANCE_YOUR_CALM);
        break;
    case HTTP2_CALM_BOMB:
        http2_fail(s, HTTP2_HEADER_BOMB, HTTP2_ENHANCE_YOUR_CALM);
        break;
    }
    return carry_on(s);
}

/* Behind a client's request only trailers come; behind a server's last head too. */
static enum compose_kind kind_of(const struct http2_session *s, const nghttp2_frame *f)
{
    if (s->server) {
        return f->headers.cat == NGHTTP2_HCAT_REQUEST ? COMPOSE_REQUEST : COMPOSE_TRAILERS;
    }
    const struct http2_stream *st = http2_find(s->ng, f->hd.stream_id);
    return st != NULL && st->head_came ? COMPOSE_TRAILERS : COMPOSE_RESPONSE;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    (void)ng;
    http2_compose_begin(&s->compose, kind_of(s, f), s->head_bytes + HTTP2_WINDOW_FIRST);
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    (void)ng;
    (void)f;
    bool ok = http2_compose_field(&s->compose, (struct str){(const char *)name, name_len},
                                  (struct str){(const char *)value, value_len},
                                  (flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0, s->head_bytes);
    if (s->compose.bytes / BOMB > s->head_bytes) {
        http2_fail(s, HTTP2_HEADER_BOMB, HTTP2_ENHANCE_YOUR_CALM);
    }
    return !ok ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : carry_on(s);
}

/* nghttp2 would leave such a field out and take the message. */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name,
                             size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                             void *arg)
{
    (void)ng;
    (void)f;
    (void)name;
    (void)name_len;
    (void)value;
    (void)value_len;
    (void)flags;
    (void)arg;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void on_request(struct http2_session *s, int32_t id, const struct http2_head *head)
{
    bool late = s->goaways > 1 && id > s->last_id; /* our GOAWAY says so, and may not be out yet */
    if (!late) {
        s->ops->request(s->arg, id, head);
    }
    if (http2_find(s->ng, id) == NULL) {
        (void)nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
        (void)http2_pay(s);
    }
}

static void on_headers(struct http2_session *s, const nghttp2_frame *f)
{
    const struct http2_head *head = http2_compose_end(&s->compose);
    struct http2_stream *st = http2_find(s->ng, f->hd.stream_id);
    s->head_began_ms = 0;
    if (head == NULL) {
        http2_fail(s, HTTP2_NO_MEMORY, HTTP2_INTERNAL_ERROR);
        return;
    }
    s->compose.head.ends = (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (st != NULL) {
        st->remote_ended = head->ends;
    }
    switch (s->compose.kind) {
    case COMPOSE_REQUEST:
        on_request(s, f->hd.stream_id, head);
        st = http2_find(s->ng, f->hd.stream_id); /* if it was accepted */
        if (st != NULL) {
            st->remote_ended = s->compose.head.ends;
        }
        break;
    case COMPOSE_RESPONSE:
        if (st != NULL) {
            /* "HTTP/1.1 200 ": of an interim one another head follows. */
            st->head_came = head->too_long || head->text.p[9] != '1';
            s->ops->response(st, head);
        }
        break;
    case COMPOSE_TRAILERS:
        if (st != NULL) {
            s->ops->trailers(st, head);
        }
        break;
    }
}

static void on_data_end(struct http2_session *s, int32_t id)
{
    struct http2_stream *st = http2_find(s->ng, id);
    size_t n = s->last_n;
    s->last_n = 0;
    if (st == NULL) {
        return;
    }
    st->remote_ended = true;
    if (n > 0) {
        s->ops->data_last(st, s->last, n);
    } else {
        s->ops->ended(st);
    }
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    (void)ng;
    switch (f->hd.type) {
    case NGHTTP2_HEADERS:
        on_headers(s, f);
        break;
    case NGHTTP2_DATA:
        if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
            on_data_end(s, f->hd.stream_id);
        }
        break;
    case NGHTTP2_SETTINGS:
        s->head_began_ms = s->stands ? s->head_began_ms : 0; /* the first were waited for */
        s->stands = true;
        break;
    case NGHTTP2_PING:
        s->ping_ms = (f->hd.flags & NGHTTP2_FLAG_ACK) != 0 ? 0 : s->ping_ms;
        break;
    case NGHTTP2_GOAWAY:
        s->peer_leaves = true;
        http2_wake(s);
        break;
    default:
        break;
    }
    return carry_on(s);
}

static int on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                         void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    struct http2_stream *st = http2_find(ng, id);
    (void)flags;
    bool last = n > 0 && n == s->ending_left;
    s->ending_left -= n < s->ending_left ? n : s->ending_left;
    if (st != NULL) {
        st->unread += (uint32_t)n;
        http2_calm_earn(&s->calm, n > 0 ? 1 : 0);
        if (last) { /* on_frame_recv follows at once, unless the message is not whole */
            s->last = p;
            s->last_n = n;
        } else {
            s->ops->data(st, p, n);
        }
    } else { /* nobody reads it any more */
        (void)nghttp2_session_consume_connection(ng, n);
    }
    return carry_on(s);
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
    struct http2_stream *st = http2_find(ng, id);
    (void)arg;
    if (st != NULL) {
        http2_stream_gone(st, code);
    }
    return 0;
}

static void on_message_sent(struct http2_session *s, const nghttp2_frame *f)
{
    struct http2_stream *st = http2_find(s->ng, f->hd.stream_id);
    if (st == NULL) {
        return;
    }
    st->head_out = st->head_out || (f->hd.type == NGHTTP2_HEADERS && st->head_sent);
    if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        st->end_sent = true;
        http2_calm_earn(&s->calm, st->unwanted ? 0 : EARNED_BY_REQUEST);
        if (st->unwanted && !st->remote_ended) {
            (void)nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_NO_ERROR);
        }
    }
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    (void)ng;
    if (f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS) {
        on_message_sent(s, f);
    } else if (f->hd.type == NGHTTP2_GOAWAY) {
        s->said_code = f->goaway.error_code;
    }
    return 0;
}

/* It is answered with RST_STREAM; whoever goes on like that is not listened to for ever. */
static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int error, void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    (void)ng;
    (void)error;
    s->head_began_ms = 0;
    if (http2_pay(s) && s->ops->malformed != NULL && f->hd.type == NGHTTP2_HEADERS) {
        s->ops->malformed(s->arg, f->hd.stream_id);
    }
    return carry_on(s);
}

/* --- making one ------------------------------------------------------------------------------- */

static void set_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_send_data_callback(cb, http2_stream_put);
}

static bool library_new(struct http2_session *s)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *o = NULL;
    if (nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&o) == 0) {
        set_callbacks(cb);
        nghttp2_option_set_no_auto_window_update(o, 1);
        nghttp2_option_set_max_reserved_remote_streams(o, 0);
        nghttp2_option_set_peer_max_concurrent_streams(o, HTTP2_STREAMS);
        nghttp2_option_set_max_send_header_block_length(o, 2 * (size_t)s->head_bytes +
                                                               HTTP2_WINDOW_FIRST);
        http2_calm_option(o);
        int rc = s->server ? nghttp2_session_server_new2(&s->ng, cb, s, o)
                           : nghttp2_session_client_new2(&s->ng, cb, s, o);
        s->ng = rc == 0 ? s->ng : NULL;
    }
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    return s->ng != NULL;
}

static bool say_settings(struct http2_session *s)
{
    const nghttp2_settings_entry all[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_WINDOW_FIRST},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, s->head_bytes},
        {s->server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         s->server ? HTTP2_STREAMS : 0},
    };
    /* nghttp2 gives credit back once half of a window is used: the other half is for the streams.
     */
    return nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, all, 3) == 0 &&
           nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0,
                                                 2 * HTTP2_WINDOW_SESSION) == 0;
}

struct http2_session *http2_session_new(const struct http2_spec *spec)
{
    struct http2_session *s = (struct http2_session *)calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->server = spec->server;
    s->ops = spec->ops;
    s->arg = spec->arg;
    s->head_bytes = spec->head_bytes;
    s->head_ms = spec->head_ms;
    s->all_grown = spec->grown != NULL ? spec->grown : &s->own_grown;
    s->now_ms = s->heard_ms = s->head_began_ms = spec->now_ms;
    http2_calm_init(&s->calm, 2 * spec->head_bytes, spec->now_ms);
    s->emit = (struct buf)BUF_INIT(HTTP2_WINDOW_SESSION);
    if (!library_new(s) || !say_settings(s)) {
        return http2_session_free(s);
    }
    http2_wake(s);
    return s;
}

struct http2_session *http2_session_free(struct http2_session *s)
{
    if (s == NULL) {
        return NULL;
    }
    while (s->streams != NULL) {
        http2_stream_unlink(s->streams);
    }
    nghttp2_session_del(s->ng);
    http2_compose_deinit(&s->compose);
    buf_reset(&s->emit);
    free(s);
    return NULL;
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void broke(struct http2_session *s, ssize_t error)
{
    if (error == NGHTTP2_ERR_NOMEM) {
        http2_fail(s, HTTP2_NO_MEMORY, HTTP2_INTERNAL_ERROR);
    } else if (error == NGHTTP2_ERR_FLOODED) {
        http2_fail(s, HTTP2_TOO_MANY_FRAMES, HTTP2_ENHANCE_YOUR_CALM);
    } else {
        http2_fail(s, HTTP2_PROTOCOL, HTTP2_PROTOCOL_ERROR);
    }
}

bool http2_session_feed(struct http2_session *s, const uint8_t *p, size_t n, uint64_t now_ms)
{
    s->now_ms = s->heard_ms = now_ms;
    if (s->why != HTTP2_OK) {
        return false;
    }
    s->in_library = true;
    ssize_t r = nghttp2_session_mem_recv(s->ng, p, n);
    s->in_library = false;
    if (r < 0) {
        broke(s, r);
    }
    http2_wake(s); /* it may have something to answer */
    return s->why == HTTP2_OK;
}

void http2_pull(struct http2_session *s)
{
    while (s->why == HTTP2_OK && !s->in_library && s->emit.len < HTTP2_MAKE) {
        const uint8_t *p = NULL;
        s->in_library = true;
        ssize_t n = nghttp2_session_mem_send(s->ng, &p);
        s->in_library = false;
        if (n < 0) {
            broke(s, n);
        }
        if (n <= 0) {
            return;
        }
        if (!buf_append(&s->emit, p, (size_t)n)) {
            http2_fail(s, HTTP2_NO_MEMORY, HTTP2_INTERNAL_ERROR);
        }
    }
}

bool http2_session_make(struct http2_session *s)
{
    s->woken = true; /* by whatever happens in here: it is done at its end */
    http2_pull(s);
    s->woken = false;
    if (s->why != HTTP2_OK) {
        return false;
    }
    if (nghttp2_session_want_read(s->ng) || nghttp2_session_want_write(s->ng)) {
        return true;
    }
    if (s->said_code != NGHTTP2_NO_ERROR) { /* nghttp2 has said why */
        s->why = s->said_code == NGHTTP2_ENHANCE_YOUR_CALM ? HTTP2_TOO_MANY_FRAMES : HTTP2_PROTOCOL;
    } else if (s->goaways != 1 || s->peer_leaves) {
        s->why = HTTP2_LEFT;
    }
    return s->why == HTTP2_OK;
}

struct buf *http2_session_out(struct http2_session *s)
{
    return &s->emit;
}

/* --- the rest --------------------------------------------------------------------------------- */

static void give_memory_back(struct http2_session *s)
{
    if (s->n_streams == 0 && s->head_began_ms == 0) {
        http2_compose_deinit(&s->compose);
    }
    if (s->emit.len == 0) {
        buf_reset(&s->emit);
    }
}

bool http2_session_tick(struct http2_session *s, uint64_t now_ms)
{
    s->now_ms = now_ms;
    if (s->head_began_ms != 0 && s->head_ms > 0 && now_ms - s->head_began_ms >= s->head_ms) {
        http2_fail(s, HTTP2_SLOW_HEAD, HTTP2_ENHANCE_YOUR_CALM);
    } else if (s->ping_ms != 0) {
        if (now_ms - s->ping_ms >= HTTP2_DEAD_MS) {
            http2_fail(s, HTTP2_SILENT, HTTP2_NO_ERROR);
        }
    } else if (s->server && s->n_streams > 0 && now_ms - s->heard_ms >= HTTP2_TICK_MS) {
        s->ping_ms = now_ms;
        (void)nghttp2_submit_ping(s->ng, NGHTTP2_FLAG_NONE, NULL);
        http2_wake(s);
    }
    give_memory_back(s);
    return s->why == HTTP2_OK;
}

void http2_session_goaway(struct http2_session *s)
{
    if (s->goaways > 1) {
        return;
    }
    if (s->server && s->goaways == 0) {
        (void)nghttp2_submit_shutdown_notice(s->ng);
        s->goaways = 1;
    } else {
        s->last_id = nghttp2_session_get_last_proc_stream_id(s->ng);
        (void)nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE, s->last_id, NGHTTP2_NO_ERROR, NULL,
                                    0);
        s->goaways = 2;
    }
    http2_wake(s);
}

void http2_session_abort(struct http2_session *s, enum http2_code code)
{
    http2_fail(s, HTTP2_PROTOCOL, code);
}

void http2_session_charge(struct http2_session *s)
{
    (void)http2_pay(s);
}

bool http2_session_peer_leaves(const struct http2_session *s)
{
    return s->peer_leaves;
}

enum http2_abuse http2_session_why(const struct http2_session *s)
{
    return s->why;
}

size_t http2_session_streams(const struct http2_session *s)
{
    return s->n_streams;
}

bool http2_session_stands(const struct http2_session *s)
{
    return s->stands;
}

size_t http2_session_held(const struct http2_session *s)
{
    return s->held + s->emit.len;
}
