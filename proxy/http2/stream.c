/* What is sent on streams, windows, and the beginning and end of streams. */
#include "http2_priv.h"

static void let_go(struct buf *b)
{
    if (b->len == 0 && b->cap > KEPT_MAX) {
        buf_reset(b);
    }
}

/* --- windows ---------------------------------------------------------------------------------- */

/* The reader has taken a whole window and nothing waits: it keeps up. Half of what is left of the
 * session's own window at most, so that others can grow too. */
static void grow(struct http2_stream *st)
{
    struct http2_session *s = st->session;
    const uint64_t all = HTTP2_WINDOW_SESSION - (uint64_t)HTTP2_STREAMS * HTTP2_WINDOW_FIRST;
    uint32_t more = st->window <= HTTP2_WINDOW_MAX / 2 ? st->window : HTTP2_WINDOW_MAX - st->window;
    st->consumed = 0;
    if (more == 0 || s->grown >= all || more > (all - s->grown) / 2 ||
        *s->all_grown + more > HTTP2_WINDOW_GROWN) {
        return;
    }
    if (nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, st->id,
                                              (int32_t)(st->window + more)) == 0) {
        st->window += more;
        s->grown += more;
        *s->all_grown += more;
    }
}

void http2_stream_consumed(struct http2_stream *st, size_t n)
{
    struct http2_session *s = st->session;
    if (s == NULL || n == 0) {
        return;
    }
    st->unread -= (uint32_t)(n < st->unread ? n : st->unread);
    if (st->id == 0 || st->remote_ended) {
        (void)nghttp2_session_consume_connection(s->ng, n);
    } else {
        (void)nghttp2_session_consume(s->ng, st->id, n);
        st->consumed += (uint32_t)n;
        if (st->consumed >= st->window && st->unread == 0) {
            grow(st);
        }
    }
    http2_wake(s);
}

/* --- what nghttp2 sends ----------------------------------------------------------------------- */

static nghttp2_nv field_of(const struct http2_field *f)
{
    return (nghttp2_nv){
        .name = (uint8_t *)(uintptr_t)f->name.p,
        .namelen = f->name.n,
        .value = (uint8_t *)(uintptr_t)(f->value.n > 0 ? f->value.p : ""),
        .valuelen = f->value.n,
        .flags = f->never_indexed ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE,
    };
}

static void fields_of(const struct http2_field *fields, size_t n, nghttp2_nv ret[HTTP2_FIELDS_MAX])
{
    for (size_t i = 0; i < n; i++) {
        ret[i] = field_of(&fields[i]);
    }
}

/* The lines "name: value\r\n" that http2_stream_end_with wrote. */
static size_t lines_of(struct str text, nghttp2_nv ret[HTTP2_FIELDS_MAX])
{
    size_t n = 0;
    while (n < HTTP2_FIELDS_MAX && text.n > 0) {
        const char *end = (const char *)memchr(text.p, '\r', text.n);
        const char *colon = (const char *)memchr(text.p, ':', text.n);
        if (end == NULL || colon == NULL) {
            break;
        }
        struct http2_field f = {
            {text.p, (size_t)(colon - text.p)}, {colon + 2, (size_t)(end - colon) - 2}, false};
        ret[n++] = field_of(&f);
        size_t line = (size_t)(end - text.p) + 2;
        text = (struct str){text.p + line, text.n - line};
    }
    return n;
}

static void submit_tail(struct http2_session *s, struct http2_stream *st)
{
    nghttp2_nv nv[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    size_t n = lines_of(buf_str(&st->tail), nv);
    if (nghttp2_submit_trailer(s->ng, st->id, nv, n) != 0) {
        http2_fail(s, HTTP2_NO_MEMORY, HTTP2_INTERNAL_ERROR);
    }
}

/* How much there is, and whether that is the end. Nothing is copied here. */
ssize_t http2_stream_peek(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length,
                          uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct http2_stream *st = http2_find(ng, id);
    (void)buf;
    (void)source;
    if (st == NULL) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        return 0;
    }
    size_t there = st->out.len > 0 ? st->out.len : st->src_len;
    size_t n = there < length ? there : length;
    bool last = n == there && st->end_wanted;
    if (n == 0 && !last) {
        return NGHTTP2_ERR_DEFERRED;
    }
    if (last) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (st->has_tail) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_tail((struct http2_session *)arg, st);
        }
    }
    if (n > 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    return (ssize_t)n;
}

int http2_stream_put(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t length,
                     nghttp2_data_source *source, void *arg)
{
    struct http2_session *s = (struct http2_session *)arg;
    struct http2_stream *st = http2_find(ng, frame->hd.stream_id);
    (void)source;
    if (st == NULL) { /* dropped since it was asked */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    bool kept = st->out.len > 0;
    const uint8_t *p = kept ? buf_head(&st->out) : st->src;
    uint8_t *at = buf_reserve(&s->emit, FRAME_HEADER + length);
    if (at == NULL) {
        http2_fail(s, HTTP2_NO_MEMORY, HTTP2_INTERNAL_ERROR);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    memcpy(at, head, FRAME_HEADER);
    memcpy(at + FRAME_HEADER, p, length);
    buf_commit(&s->emit, FRAME_HEADER + length);
    http2_calm_sent(&s->calm, length);
    if (kept) {
        buf_consume(&st->out, length);
        s->held -= length;
        let_go(&st->out);
    } else {
        st->src += length;
        st->src_len -= length;
    }
    s->ops->taken(st, length);
    return 0;
}

/* --- sending ---------------------------------------------------------------------------------- */

static bool send_some(struct http2_stream *st, const uint8_t *p, size_t n)
{
    struct http2_session *s = st->session;
    http2_wake(s);
    if (st->out.len == 0 && !s->in_library && s->emit.len < HTTP2_MAKE) {
        st->src = p;
        st->src_len = n;
        (void)nghttp2_session_resume_data(s->ng, st->id);
        http2_pull(s);
        p = st->src;
        n = st->src_len;
        st->src = NULL;
        st->src_len = 0;
        if (n == 0 || !http2_stream_is_live(st)) {
            return true;
        }
    }
    st->out.max = HTTP2_WINDOW_MAX * 2;
    if (!buf_append(&st->out, p, n)) {
        return false;
    }
    s->held += n;
    (void)nghttp2_session_resume_data(s->ng, st->id);
    return true;
}

bool http2_stream_send(struct http2_stream *st, const uint8_t *p, size_t n)
{
    bool nothing = n == 0 || !http2_stream_is_live(st) || st->end_wanted;
    return nothing || send_some(st, p, n);
}

bool http2_stream_send_last(struct http2_stream *st, const uint8_t *p, size_t n)
{
    if (!http2_stream_is_live(st) || st->end_wanted) {
        return true;
    }
    if (n == 0) {
        http2_stream_end(st);
        return true;
    }
    st->end_wanted = true; /* before frames are made of it */
    return send_some(st, p, n);
}

void http2_stream_forget(struct http2_stream *st)
{
    if (st->session != NULL) {
        st->session->held -= st->out.len;
        buf_consume(&st->out, st->out.len);
    }
}

void http2_stream_end(struct http2_stream *st)
{
    if (http2_stream_is_live(st) && !st->end_wanted) {
        st->end_wanted = true;
        (void)nghttp2_session_resume_data(st->session->ng, st->id);
        http2_wake(st->session);
    }
}

bool http2_stream_end_with(struct http2_stream *st, const struct http2_field *fields, size_t n)
{
    if (n > HTTP2_FIELDS_MAX) {
        return false;
    }
    st->tail.max = HTTP2_WINDOW_FIRST;
    buf_consume(&st->tail, st->tail.len);
    for (size_t i = 0; i < n; i++) {
        if (!buf_append_str(&st->tail, fields[i].name) || !buf_append(&st->tail, ": ", 2) ||
            !buf_append_str(&st->tail, fields[i].value) || !buf_append(&st->tail, "\r\n", 2)) {
            return false;
        }
    }
    st->has_tail = n > 0;
    http2_stream_end(st);
    return true;
}

bool http2_stream_head(struct http2_stream *st, const struct http2_field *fields, size_t n,
                       bool interim, bool ends)
{
    nghttp2_nv nv[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    nghttp2_data_provider from = {.read_callback = http2_stream_peek};
    struct http2_session *s = st->session;
    if (!http2_stream_is_live(st) || st->head_sent) {
        return true;
    }
    if (n > HTTP2_FIELDS_MAX) {
        return false;
    }
    fields_of(fields, n, nv);
    http2_wake(s);
    if (interim) {
        return nghttp2_submit_headers(s->ng, NGHTTP2_FLAG_NONE, st->id, NULL, nv, n, NULL) == 0;
    }
    st->head_sent = true;
    st->end_wanted = ends;
    return nghttp2_submit_response(s->ng, st->id, nv, n, ends ? NULL : &from) == 0;
}

/* --- beginning and ending --------------------------------------------------------------------- */

static void begin(struct http2_session *s, struct http2_stream *st, void *arg)
{
    struct buf out = st->out, tail = st->tail;
    buf_consume(&out, out.len);
    buf_consume(&tail, tail.len);
    *st = (struct http2_stream){.session = s,
                                .next = s->streams,
                                .arg = arg,
                                .window = HTTP2_WINDOW_FIRST,
                                .out = out,
                                .tail = tail};
    if (s->streams != NULL) {
        s->streams->prev = st;
    }
    s->streams = st;
    s->n_streams++;
}

void http2_stream_unlink(struct http2_stream *st)
{
    struct http2_session *s = st->session;
    uint32_t more = st->window - HTTP2_WINDOW_FIRST;
    s->grown -= more;
    *s->all_grown -= more;
    s->held -= st->out.len;
    *(st->prev != NULL ? &st->prev->next : &s->streams) = st->next;
    if (st->next != NULL) {
        st->next->prev = st->prev;
    }
    st->prev = st->next = NULL;
    st->session = NULL;
    st->id = 0;
    s->n_streams--;
    buf_consume(&st->out, st->out.len);
    let_go(&st->out);
}

void http2_stream_accept(struct http2_session *s, int32_t id, struct http2_stream *st, void *arg)
{
    begin(s, st, arg);
    st->id = id;
    (void)nghttp2_session_set_stream_user_data(s->ng, id, st);
}

bool http2_stream_open(struct http2_session *s, struct http2_stream *st, void *arg,
                       const struct http2_field *fields, size_t n, bool ends)
{
    nghttp2_nv nv[HTTP2_FIELDS_MAX] __attribute__((uninitialized));
    nghttp2_data_provider from = {.read_callback = http2_stream_peek};
    if (n > HTTP2_FIELDS_MAX || s->why != HTTP2_OK || s->peer_leaves || s->goaways > 0) {
        return false;
    }
    fields_of(fields, n, nv);
    begin(s, st, arg);
    st->end_wanted = ends;
    int32_t id = nghttp2_submit_request(s->ng, NULL, nv, n, ends ? NULL : &from, st);
    if (id <= 0) {
        http2_stream_unlink(st);
        return false;
    }
    st->id = id;
    http2_wake(s);
    return true;
}

void http2_stream_gone(struct http2_stream *st, uint32_t code)
{
    struct http2_session *s = st->session;
    st->id = 0;
    s->held -= st->out.len;
    buf_consume(&st->out, st->out.len);
    s->ops->closed(st, code);
}

void http2_stream_reset(struct http2_stream *st, enum http2_code code)
{
    if (http2_stream_is_live(st)) {
        (void)nghttp2_submit_rst_stream(st->session->ng, NGHTTP2_FLAG_NONE, st->id, code);
        http2_wake(st->session);
    }
}

void http2_stream_drop(struct http2_stream *st)
{
    struct http2_session *s = st->session;
    if (s == NULL) {
        return;
    }
    if (st->id != 0) {
        (void)nghttp2_session_set_stream_user_data(s->ng, st->id, NULL);
        (void)nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
        http2_wake(s);
    }
    if (st->unread > 0) {
        (void)nghttp2_session_consume_connection(s->ng, st->unread);
    }
    http2_stream_unlink(st);
}
