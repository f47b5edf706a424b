/* A session: nghttp2's callbacks, and the transport on both its ends. */
#include "hbone_priv.h"

#include "hbone_look.h"

#include <errno.h>
#include <stdlib.h>

const char *hbone_abuse_name(enum hbone_abuse a)
{
    static const char *const names[] = {"none",      "too_many_frames", "header_bomb", "protocol",
                                        "no_memory", "silent",          "lost"};
    return names[a];
}

void hbone_wake(struct hbone_session *s)
{
    if (!s->woken && s->transport != NULL) {
        s->woken = true;
        s->ops->wake(s->arg);
    }
}

void hbone_fail(struct hbone_session *s, enum hbone_abuse why)
{
    if (s->why == HBONE_OK) {
        s->why = why;
        hbone_wake(s);
    }
}

/* --- what nghttp2 tells ----------------------------------------------------------------------- */

static int carry_on(const struct hbone_session *s)
{
    return s->why == HBONE_OK ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static struct hbone_stream *find(nghttp2_session *ng, int32_t id)
{
    return (struct hbone_stream *)nghttp2_session_get_stream_user_data(ng, id);
}

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
    struct hbone_session *s = (struct hbone_session *)arg;
    (void)ng;
    (void)hbone_calm_frame(s, hd);
    return carry_on(s);
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
    struct hbone_session *s = (struct hbone_session *)arg;
    (void)ng;
    (void)f;
    s->head = (struct hbone_head){.bytes = 0};
    return 0;
}

static bool is(const uint8_t *p, size_t n, const char *text)
{
    return str_eq((struct str){(const char *)p, n}, str_of(text));
}

static void take_field(struct hbone_head *h, const uint8_t *name, size_t name_len,
                       const uint8_t *value, size_t value_len)
{
    uint64_t status;
    if (is(name, name_len, ":method")) {
        h->connect = is(value, value_len, "CONNECT");
    } else if (is(name, name_len, ":authority")) {
        h->bad = value_len > sizeof(h->authority);
        h->authority_len = h->bad ? 0 : value_len;
        memcpy(h->authority, value, h->authority_len);
    } else if (is(name, name_len, ":status") &&
               str_to_u64((struct str){(const char *)value, value_len}, 999, &status)) {
        h->status = (uint16_t)status;
    }
}

/* What else is said (forwarded, baggage, traceparent) is nobody's proof of anything: not kept. */
static int on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *arg)
{
    struct hbone_session *s = (struct hbone_session *)arg;
    (void)ng;
    (void)f;
    (void)flags;
    enum { OVERHEAD = 32 }; /* RFC 9113 section 10.5.1 */
    if (name_len + value_len + OVERHEAD > HBONE_HEADER_BYTES - s->head.bytes) {
        hbone_fail(s, HBONE_HEADER_BOMB);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    s->head.bytes += (uint32_t)(name_len + value_len + OVERHEAD);
    take_field(&s->head, name, name_len, value, value_len);
    return 0;
}

static void on_request(struct hbone_session *s, int32_t id)
{
    const struct hbone_head *h = &s->head;
    if (s->goaways > 1 && id > s->last_id) { /* our GOAWAY says so, and may not be out yet */
        (void)nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
        return;
    }
    if (!h->connect || h->bad || h->authority_len == 0) {
        hbone_refuse(s, id, 400);
        if (s->ops->bad_request != NULL && s->why == HBONE_OK) {
            s->ops->bad_request(s->arg);
        }
        return;
    }
    s->ops->request(s->arg, id, (struct str){h->authority, h->authority_len});
    if (find(s->ng, id) == NULL) {
        hbone_refuse(s, id, 503);
    }
}

static void on_headers(struct hbone_session *s, const nghttp2_frame *f)
{
    if (s->server && f->headers.cat == NGHTTP2_HCAT_REQUEST) {
        on_request(s, f->hd.stream_id);
        return;
    }
    struct hbone_stream *st = find(s->ng, f->hd.stream_id);
    if (st != NULL && !s->server && st->status == 0 && s->head.status >= 200) {
        st->status = s->head.status;
        st->answered = true;
        st->news = true;
        hbone_stream_queue(st);
    }
}

/* After the peer's GOAWAY nothing is asked of it. The library would let them wait, or call it an
 * error of its own. */
static void refuse_unasked(struct hbone_session *s)
{
    for (struct hbone_stream *st = s->server ? NULL : s->streams; st != NULL; st = st->next) {
        if (!st->asked) {
            st->error = HBONE_ERROR_REFUSED;
            st->reset = true;
            st->news = true;
            hbone_stream_queue(st);
        }
    }
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
    struct hbone_session *s = (struct hbone_session *)arg;
    struct hbone_stream *st = NULL;
    switch (f->hd.type) {
    case NGHTTP2_HEADERS:
        on_headers(s, f);
        break;
    case NGHTTP2_PING:
        s->ping_ms = (f->hd.flags & NGHTTP2_FLAG_ACK) != 0 ? 0 : s->ping_ms;
        break;
    case NGHTTP2_GOAWAY:
        s->peer_leaves = true;
        refuse_unasked(s);
        break;
    default:
        break;
    }
    bool ends = (f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS) &&
                (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (ends && (st = find(ng, f->hd.stream_id)) != NULL) {
        st->remote_ended = true;
        hbone_stream_queue(st);
    }
    return carry_on(s);
}

static int on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                         void *arg)
{
    struct hbone_session *s = (struct hbone_session *)arg;
    struct hbone_stream *st = find(ng, id);
    (void)flags;
    if (st != NULL) {
        hbone_stream_got(st, p, n);
    } else { /* nobody reads it any more */
        (void)nghttp2_session_consume_connection(ng, n);
        (void)nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
    }
    return carry_on(s);
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error, void *arg)
{
    struct hbone_stream *st = find(ng, id);
    (void)arg;
    if (st != NULL) {
        hbone_stream_gone(st, error);
    }
    return 0;
}

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *f, void *arg)
{
    (void)arg;
    if (f->hd.type != NGHTTP2_DATA && f->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    struct hbone_stream *st = find(ng, f->hd.stream_id);
    if (st != NULL) {
        st->asked = true;
    }
    if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        return 0;
    }
    if (st != NULL) {
        st->end_sent = true;
    } else if (nghttp2_session_get_stream_remote_close(ng, f->hd.stream_id) == 0) {
        /* Refused, or closed by its owner: what the peer still has to say is for nobody. */
        (void)nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
    }
    return 0;
}

/* It answers with RST_STREAM; whoever goes on like that is not listened to for ever. */
static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int error, void *arg)
{
    struct hbone_session *s = (struct hbone_session *)arg;
    (void)ng;
    (void)f;
    (void)error;
    (void)hbone_calm_pay(s);
    return carry_on(s);
}

static ssize_t frame_length(nghttp2_session *ng, uint8_t type, int32_t id, int32_t session_window,
                            int32_t stream_window, uint32_t max_frame, void *arg)
{
    (void)ng;
    (void)type;
    (void)id;
    (void)arg;
    int64_t n = NET_SCRATCH_SIZE - HBONE_READ_ROOM; /* what one write of a stream may bring */
    n = n < session_window ? n : session_window;
    n = n < stream_window ? n : stream_window;
    n = n < (int64_t)max_frame ? n : (int64_t)max_frame;
    return n > 0 ? (ssize_t)n : 1;
}

/* --- making one ------------------------------------------------------------------------------- */

static void set_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_send_data_callback(cb, hbone_stream_put);
    nghttp2_session_callbacks_set_data_source_read_length_callback(cb, frame_length);
}

static void set_options(nghttp2_option *o)
{
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_reserved_remote_streams(o, 0);
    http2_calm_option(o);
}

static bool library_new(struct hbone_session *s)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *o = NULL;
    if (nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&o) == 0) {
        set_callbacks(cb);
        set_options(o);
        int rc = s->server ? nghttp2_session_server_new2(&s->ng, cb, s, o)
                           : nghttp2_session_client_new2(&s->ng, cb, s, o);
        s->ng = rc == 0 ? s->ng : NULL;
    }
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    return s->ng != NULL;
}

static bool say_settings(struct hbone_session *s)
{
    const nghttp2_settings_entry server[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, HBONE_SERVER_STREAMS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HBONE_WINDOW_FIRST},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, HBONE_FRAME_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HBONE_HEADER_BYTES},
    };
    const nghttp2_settings_entry client[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HBONE_WINDOW_FIRST},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, HBONE_FRAME_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HBONE_HEADER_BYTES},
    };
    /* nghttp2 gives credit back once half of a window is used: the other half is for the streams.
     */
    return nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, s->server ? server : client, 4) == 0 &&
           nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0,
                                                 2 * HBONE_WINDOW_SESSION) == 0;
}

struct hbone_session *hbone_session_new(const struct hbone_spec *spec)
{
    struct hbone_session *s = (struct hbone_session *)calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->server = spec->server;
    s->transport = spec->transport;
    s->scratch = spec->scratch;
    s->ops = spec->ops;
    s->arg = spec->arg;
    s->all_grown = spec->grown != NULL ? spec->grown : &s->own_grown;
    s->now_ms = s->heard_ms = spec->now_ms;
    http2_calm_init(&s->calm, HBONE_HEADER_BYTES, spec->now_ms);
    s->emit = (struct buf)BUF_INIT(4 * NET_SCRATCH_SIZE);
    s->ready_end = &s->ready;
    if (!library_new(s) || !say_settings(s)) {
        return hbone_session_free(s);
    }
    hbone_wake(s);
    return s;
}

void hbone_session_stop(struct hbone_session *s)
{
    struct hbone_stream *next;
    s->transport = NULL;
    *s->all_grown -= s->grown;
    s->grown = 0;
    for (struct hbone_stream *st = s->streams; st != NULL; st = next) {
        next = st->next;
        st->session = NULL;
        st->id = 0;
        st->reset = true;
        st->queued = false;
        st->prev = st->next = NULL;
    }
    s->streams = s->ready = NULL;
    s->ready_end = &s->ready;
    s->n_streams = s->n_ready = s->held = 0;
    buf_reset(&s->emit);
}

struct hbone_session *hbone_session_free(struct hbone_session *s)
{
    if (s != NULL) {
        hbone_session_stop(s);
        nghttp2_session_del(s->ng);
        free(s);
    }
    return NULL;
}

/* --- receiving -------------------------------------------------------------------------------- */

bool hbone_session_feed(struct hbone_session *s, const uint8_t *p, size_t n, uint64_t now_ms)
{
    s->now_ms = s->heard_ms = now_ms;
    if (s->why != HBONE_OK || s->transport == NULL) {
        return false;
    }
    s->in_library = true;
    ssize_t r = nghttp2_session_mem_recv(s->ng, p, n);
    s->in_library = false;
    if (r < 0) {
        hbone_fail(s, r == NGHTTP2_ERR_NOMEM     ? HBONE_NO_MEMORY
                      : r == NGHTTP2_ERR_FLOODED ? HBONE_TOO_MANY_FRAMES
                                                 : HBONE_PROTOCOL);
    }
    hbone_wake(s); /* it may have something to answer */
    return s->why == HBONE_OK;
}

bool hbone_session_receive(struct hbone_session *s, uint64_t now_ms)
{
    size_t n = 0;
    if (s->transport == NULL) {
        return false;
    }
    switch (stream_read(s->transport, s->scratch->plain, NET_SCRATCH_SIZE, &n)) {
    case STREAM_OK:
        return hbone_session_feed(s, s->scratch->plain, n, now_ms);
    case STREAM_AGAIN:
        return s->why == HBONE_OK;
    case STREAM_EOF:
    case STREAM_FAILED:
        break;
    }
    hbone_fail(s, HBONE_LOST);
    return false;
}

/* --- sending ---------------------------------------------------------------------------------- */

bool hbone_write_emit(struct hbone_session *s)
{
    while (s->emit.len > 0 && s->why == HBONE_OK && !stream_blocked(s->transport)) {
        size_t n = s->emit.len < NET_SCRATCH_SIZE ? s->emit.len : NET_SCRATCH_SIZE;
        if (stream_write(s->transport, buf_head(&s->emit), n) == STREAM_FAILED) {
            hbone_fail(s, HBONE_LOST);
        }
        buf_consume(&s->emit, n);
    }
    return s->why == HBONE_OK;
}

void hbone_pull(struct hbone_session *s)
{
    while (s->why == HBONE_OK && !s->in_library && !stream_blocked(s->transport)) {
        const uint8_t *p = NULL;
        s->in_library = true;
        ssize_t n = nghttp2_session_mem_send(s->ng, &p);
        s->in_library = false;
        if (n < 0) {
            hbone_fail(s, n == NGHTTP2_ERR_NOMEM ? HBONE_NO_MEMORY : HBONE_PROTOCOL);
        }
        if (n <= 0) {
            return;
        }
        if (!buf_append(&s->emit, p, (size_t)n)) {
            hbone_fail(s, HBONE_NO_MEMORY);
        } else if (s->emit.len >= EMIT_WRITE) {
            (void)hbone_write_emit(s);
        }
    }
}

static void tell(struct hbone_stream *st)
{
    unsigned ready = st->wanted & hbone_stream_possible(st);
    if (st->news) {
        ready |= READ;
        st->news = false;
    }
    if (ready != 0) {
        st->session->ops->ready(st, ready);
    }
}

/* Those that are in the list now, and not whoever comes meanwhile. */
static void tell_ready(struct hbone_session *s)
{
    for (size_t n = s->n_ready; n > 0 && s->ready != NULL; n--) {
        struct hbone_stream *st = s->ready;
        s->ready = st->next_ready;
        if (s->ready == NULL) {
            s->ready_end = &s->ready;
        }
        s->n_ready--;
        st->queued = false;
        tell(st);
    }
}

/* After an error of HTTP/2's nghttp2 says GOAWAY and is finished. */
static bool is_finished(const struct hbone_session *s)
{
    return !nghttp2_session_want_read(s->ng) && !nghttp2_session_want_write(s->ng);
}

bool hbone_session_turn(struct hbone_session *s)
{
    if (s->transport == NULL) {
        return false;
    }
    s->woken = true; /* by whatever happens in here: it is done at its end */
    if (stream_blocked(s->transport) && stream_flush(s->transport) == STREAM_FAILED) {
        hbone_fail(s, HBONE_LOST);
    }
    if (s->why == HBONE_OK) {
        tell_ready(s);
    }
    if (s->transport == NULL) {
        return false;
    }
    hbone_pull(s);
    if (s->why == HBONE_OK && hbone_write_emit(s) && s->emit.len == 0) {
        buf_reset(&s->emit);
    }
    s->woken = false;
    if (s->ready != NULL) {
        hbone_wake(s);
    }
    if (s->why == HBONE_OK && is_finished(s) && !stream_blocked(s->transport)) {
        s->why = s->goaways > 0 || s->peer_leaves ? HBONE_LOST : HBONE_PROTOCOL;
    }
    return s->why == HBONE_OK;
}

/* --- the rest --------------------------------------------------------------------------------- */

bool hbone_session_tick(struct hbone_session *s, uint64_t now_ms)
{
    s->now_ms = now_ms;
    if (s->ping_ms != 0) {
        if (now_ms - s->ping_ms >= HBONE_DEAD_MS) {
            hbone_fail(s, HBONE_SILENT);
        }
    } else if (now_ms - s->heard_ms >= HBONE_TICK_MS) {
        s->ping_ms = now_ms;
        (void)nghttp2_submit_ping(s->ng, NGHTTP2_FLAG_NONE, NULL);
        hbone_wake(s);
    }
    return s->why == HBONE_OK;
}

void hbone_session_goaway(struct hbone_session *s)
{
    if (s->transport == NULL || s->goaways > 1) {
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
    hbone_wake(s);
}

enum hbone_abuse hbone_session_why(const struct hbone_session *s)
{
    return s->why;
}

size_t hbone_session_streams(const struct hbone_session *s)
{
    return s->n_streams;
}

bool hbone_session_usable(const struct hbone_session *s)
{
    return s->transport != NULL && s->why == HBONE_OK && !s->peer_leaves && s->goaways == 0 &&
           nghttp2_session_check_request_allowed(s->ng) != 0;
}

size_t hbone_session_room(const struct hbone_session *s)
{
    if (!hbone_session_usable(s)) {
        return 0;
    }
    size_t max =
        nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    max = max < HBONE_CLIENT_STREAMS ? max : HBONE_CLIENT_STREAMS;
    return s->n_streams < max ? max - s->n_streams : 0;
}

size_t hbone_session_held(const struct hbone_session *s)
{
    return s->held + s->emit.len;
}

void *hbone_session_arg(const struct hbone_session *s)
{
    return s->arg;
}
