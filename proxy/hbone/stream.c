/* The streams of a session: what net.h asks of a stream, windows, and opening and ending them. */
#include "hbone_priv.h"

#include <errno.h>

static struct hbone_stream *of(struct stream *s)
{
    return (struct hbone_stream *)s;
}

/* Whether anything of it can still be said on the wire. */
static bool is_live(const struct hbone_stream *st)
{
    return st->session != NULL && st->session->transport != NULL && st->id != 0;
}

static struct hbone_stream *find(nghttp2_session *ng, int32_t id)
{
    return (struct hbone_stream *)nghttp2_session_get_stream_user_data(ng, id);
}

static enum stream_outcome broken(struct hbone_stream *st)
{
    st->base.sys_errno = ECONNRESET;
    st->base.failed = true;
    return STREAM_FAILED;
}

/* --- readiness -------------------------------------------------------------------------------- */

void hbone_stream_queue(struct hbone_stream *st)
{
    struct hbone_session *s = st->session;
    if (!st->queued && s != NULL) {
        st->queued = true;
        st->next_ready = NULL;
        *s->ready_end = st;
        s->ready_end = &st->next_ready;
        s->n_ready++;
    }
}

static void unqueue(struct hbone_stream *st)
{
    struct hbone_session *s = st->session;
    struct hbone_stream **at = &s->ready;
    while (st->queued && *at != NULL) {
        if (*at == st) {
            *at = st->next_ready;
            if (*at == NULL) {
                s->ready_end = at;
            }
            st->queued = false;
            s->n_ready--;
            return;
        }
        at = &(*at)->next_ready;
    }
}

unsigned hbone_stream_possible(const struct hbone_stream *st)
{
    bool readable =
        st->in.len > 0 || (st->remote_ended && !st->base.eof) || (st->reset && !st->base.failed);
    bool writable = st->base.out.len == 0 || st->reset;
    return (readable ? READ : 0U) | (writable ? WRITE : 0U);
}

void hbone_stream_want(struct hbone_stream *st, unsigned events)
{
    st->wanted = (uint8_t)events;
    if ((events & hbone_stream_possible(st)) != 0 && st->session != NULL) {
        hbone_stream_queue(st);
        hbone_wake(st->session);
    }
}

/* --- windows ---------------------------------------------------------------------------------- */

/* The reader has taken a whole window and nothing waits: it keeps up. Half of what is left of the
 * session's own window at most, so that others can grow too. */
static void grow(struct hbone_stream *st)
{
    struct hbone_session *s = st->session;
    const uint64_t all = HBONE_WINDOW_SESSION - (uint64_t)HBONE_SERVER_STREAMS * HBONE_WINDOW_FIRST;
    uint32_t more = st->window < HBONE_WINDOW_MAX / 2 ? st->window : HBONE_WINDOW_MAX - st->window;
    st->taken = 0;
    if (more == 0 || more > (all - s->grown) / 2 || more > HBONE_WINDOW_GROWN - *s->all_grown) {
        return;
    }
    if (nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, st->id,
                                              (int32_t)(st->window + more)) == 0) {
        st->window += more;
        s->grown += more;
        *s->all_grown += more;
    }
}

static void consumed(struct hbone_stream *st, size_t n)
{
    struct hbone_session *s = st->session;
    if (s == NULL || s->transport == NULL) {
        return;
    }
    if (st->id == 0 || st->remote_ended) {
        (void)nghttp2_session_consume_connection(s->ng, n);
        return;
    }
    (void)nghttp2_session_consume(s->ng, st->id, n);
    st->taken += (uint32_t)n;
    if (st->taken >= st->window && st->in.len == 0) {
        grow(st);
    }
}

/* --- what net.h asks -------------------------------------------------------------------------- */

static enum stream_outcome hbone_read(struct stream *base, uint8_t *dst, size_t cap, size_t *ret_n)
{
    struct hbone_stream *st = of(base);
    size_t n = st->in.len < cap ? st->in.len : cap;
    if (n == 0) {
        if (st->remote_ended) {
            base->eof = true;
            return STREAM_EOF;
        }
        return st->reset ? broken(st) : STREAM_AGAIN;
    }
    memcpy(dst, buf_head(&st->in), n);
    buf_consume(&st->in, n);
    if (st->in.len == 0) {
        buf_reset(&st->in);
    }
    base->bytes_read += n;
    if (st->session != NULL) {
        st->session->held -= n;
        consumed(st, n);
        hbone_wake(st->session);
    }
    *ret_n = n;
    return STREAM_OK;
}

static enum stream_outcome keep(struct hbone_stream *st, const uint8_t *src, size_t n)
{
    if (!buf_append(&st->base.out, src, n)) {
        st->base.sys_errno = ENOBUFS;
        st->base.failed = true;
        return STREAM_FAILED;
    }
    st->session->held += n;
    return STREAM_OK;
}

static enum stream_outcome hbone_write(struct stream *base, const uint8_t *src, size_t n)
{
    struct hbone_stream *st = of(base);
    if (n == 0) {
        return STREAM_OK;
    }
    if (st->reset || !is_live(st)) {
        return broken(st);
    }
    struct hbone_session *s = st->session;
    base->bytes_written += n;
    hbone_wake(s);
    if (base->out.len > 0 || s->in_library || stream_blocked(s->transport)) {
        (void)nghttp2_session_resume_data(s->ng, st->id);
        return keep(st, src, n);
    }
    st->src = src;
    st->src_len = n;
    (void)nghttp2_session_resume_data(s->ng, st->id);
    hbone_pull(s);
    src = st->src;
    n = st->src_len;
    st->src = NULL;
    st->src_len = 0;
    if (st->reset) {
        return broken(st);
    }
    return n > 0 ? keep(st, src, n) : STREAM_OK;
}

static enum stream_outcome hbone_shut(struct stream *base)
{
    struct hbone_stream *st = of(base);
    base->shut_done = true;
    if (is_live(st)) {
        (void)nghttp2_session_resume_data(st->session->ng, st->id);
        hbone_wake(st->session);
    }
    return STREAM_OK;
}

static enum stream_outcome hbone_flush(struct stream *base)
{
    struct hbone_stream *st = of(base);
    if (base->out.len > 0) {
        return st->reset || !is_live(st) ? broken(st) : STREAM_AGAIN;
    }
    return base->shut_wanted && !base->shut_done ? hbone_shut(base) : STREAM_OK;
}

static bool hbone_has_input(const struct stream *base)
{
    const struct hbone_stream *st = (const struct hbone_stream *)base;
    return !base->eof && !base->failed && (hbone_stream_possible(st) & READ) != 0;
}

static void hbone_deinit(struct stream *base)
{
    hbone_stream_close(of(base), true);
}

static const struct stream_ops OPS = {
    .name = "hbone",
    .read = hbone_read,
    .write = hbone_write,
    .shut = hbone_shut,
    .flush = hbone_flush,
    .has_input = hbone_has_input,
    .deinit = hbone_deinit,
};

/* --- what nghttp2 sends ----------------------------------------------------------------------- */

/* How much there is, and whether that is the end. Nothing is copied here. */
ssize_t hbone_stream_peek(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length,
                          uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    const struct hbone_stream *st = find(ng, id);
    (void)buf;
    (void)source;
    (void)arg;
    if (st == NULL) { /* closed in order */
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        return 0;
    }
    size_t there = st->base.out.len > 0 ? st->base.out.len : st->src_len;
    size_t n = there < length ? there : length;
    bool last = n == there && st->base.shut_wanted;
    if (n == 0 && !last) {
        return NGHTTP2_ERR_DEFERRED;
    }
    if (last) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    if (n > 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    return (ssize_t)n;
}

/* A large frame that lies in the worker's buffer is written from there, its header before it. */
static int put_direct(struct hbone_session *s, const uint8_t *head, const uint8_t *p, size_t n)
{
    if (!hbone_write_emit(s)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (s->emit.len > 0 || stream_blocked(s->transport)) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    uint8_t *whole = s->scratch->plain + (p - s->scratch->plain) - FRAME_HEADER;
    memcpy(whole, head, FRAME_HEADER);
    return stream_write(s->transport, whole, FRAME_HEADER + n) == STREAM_FAILED
               ? NGHTTP2_ERR_CALLBACK_FAILURE
               : 0;
}

static int put_copied(struct hbone_session *s, const uint8_t *head, const uint8_t *p, size_t n)
{
    bool ok = buf_append(&s->emit, head, FRAME_HEADER) && buf_append(&s->emit, p, n) &&
              (s->emit.len < EMIT_WRITE || hbone_write_emit(s));
    return ok ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static bool is_scratch(const struct hbone_session *s, const uint8_t *p, size_t n)
{
    const uint8_t *from = s->scratch->plain;
    return p >= from && n <= NET_SCRATCH_SIZE - FRAME_HEADER &&
           (size_t)(p - from) <= NET_SCRATCH_SIZE - n;
}

int hbone_stream_put(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t length,
                     nghttp2_data_source *source, void *arg)
{
    struct hbone_session *s = (struct hbone_session *)arg;
    struct hbone_stream *st = find(ng, frame->hd.stream_id);
    (void)source;
    if (st == NULL) { /* closed since it was asked */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (stream_blocked(s->transport)) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    bool kept = st->base.out.len > 0;
    const uint8_t *p = kept ? buf_head(&st->base.out) : st->src;
    bool direct = !kept && length >= DIRECT_MIN && is_scratch(s, p, length);
    int r = direct ? put_direct(s, head, p, length) : put_copied(s, head, p, length);
    if (r != 0) {
        if (r != NGHTTP2_ERR_WOULDBLOCK) {
            hbone_fail(s, HBONE_LOST);
        }
        return r;
    }
    http2_calm_sent(&s->calm, length);
    if (kept) {
        buf_consume(&st->base.out, length);
        s->held -= length;
        if (st->base.out.len == 0) {
            buf_reset(&st->base.out);
            hbone_stream_queue(st);
            hbone_wake(s);
        }
    } else {
        st->src += length;
        st->src_len -= length;
    }
    return 0;
}

/* --- what came -------------------------------------------------------------------------------- */

void hbone_stream_got(struct hbone_stream *st, const uint8_t *p, size_t n)
{
    struct hbone_session *s = st->session;
    st->news = true;
    hbone_stream_queue(st);
    if (st->in.len == 0 && s->ops->data != NULL && s->ops->data(st, p, n)) {
        st->base.bytes_read += n;
        consumed(st, n);
    } else if (buf_append(&st->in, p, n)) {
        s->held += n;
    } else { /* the window bounds it: no memory */
        (void)nghttp2_session_consume_connection(s->ng, n);
        (void)nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_INTERNAL_ERROR);
    }
}

void hbone_stream_gone(struct hbone_stream *st, uint32_t error)
{
    bool whole = st->remote_ended && st->base.shut_done && st->base.out.len == 0;
    if (!st->asked && !st->session->server) {
        error = HBONE_ERROR_REFUSED; /* nobody has seen it */
    }
    st->id = 0;
    st->error = error;
    st->reset = error != NGHTTP2_NO_ERROR || !whole;
    if (st->reset) {
        st->news = true;
    }
    hbone_stream_queue(st);
}

/* --- beginning and ending --------------------------------------------------------------------- */

static void begin(struct hbone_session *s, struct hbone_stream *st, void *arg)
{
    *st = (struct hbone_stream){
        .base = {.ops = &OPS,
                 .scratch = s->scratch,
                 .fd = -1,
                 .read_size = NET_READ_MIN,
                 .out = BUF_INIT(NET_SEALED_SIZE)},
        .session = s,
        .next = s->streams,
        .arg = arg,
        .window = HBONE_WINDOW_FIRST,
        .in = BUF_INIT(HBONE_WINDOW_MAX),
    };
    if (s->streams != NULL) {
        s->streams->prev = st;
    }
    s->streams = st;
    s->n_streams++;
}

void hbone_stream_accept(struct hbone_session *s, int32_t id, struct hbone_stream *st, void *arg)
{
    begin(s, st, arg);
    st->id = id;
    st->news = true;
    (void)nghttp2_session_set_stream_user_data(s->ng, id, st);
    hbone_stream_queue(st);
    hbone_wake(s);
}

static nghttp2_nv field(const char *name, struct str value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .namelen = strlen(name),
                        .value = (uint8_t *)(uintptr_t)value.p,
                        .valuelen = value.n,
                        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

void hbone_stream_answer(struct hbone_stream *st)
{
    st->answered = true;
    if (is_live(st)) {
        nghttp2_nv status = field(":status", STR_LIT("200"));
        nghttp2_data_provider from = {.read_callback = hbone_stream_peek};
        if (nghttp2_submit_response(st->session->ng, st->id, &status, 1, &from) != 0) {
            hbone_fail(st->session, HBONE_NO_MEMORY);
        }
        hbone_wake(st->session);
    }
}

void hbone_refuse(struct hbone_session *s, int32_t id, unsigned status)
{
    char text[4] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10),
                    (char)('0' + status % 10), '\0'};
    nghttp2_nv nv = field(":status", (struct str){text, 3});
    if (nghttp2_submit_response(s->ng, id, &nv, 1, NULL) != 0) {
        hbone_fail(s, HBONE_NO_MEMORY);
    }
    (void)hbone_calm_pay(s);
    hbone_wake(s);
}

void hbone_stream_refuse(struct hbone_stream *st, unsigned status)
{
    if (is_live(st) && !st->answered) {
        struct hbone_session *s = st->session;
        (void)nghttp2_session_set_stream_user_data(s->ng, st->id, NULL);
        hbone_refuse(s, st->id, status);
        st->id = 0;
    }
    hbone_stream_close(st, true);
}

bool hbone_stream_open(struct hbone_session *s, struct str authority, struct hbone_stream *st,
                       void *arg)
{
    if (s->server || hbone_session_room(s) == 0) {
        return false;
    }
    nghttp2_nv nv[] = {field(":method", STR_LIT("CONNECT")), field(":authority", authority)};
    nghttp2_data_provider from = {.read_callback = hbone_stream_peek};
    begin(s, st, arg);
    int32_t id = nghttp2_submit_request(s->ng, NULL, nv, 2, &from, st);
    if (id <= 0) {
        hbone_stream_close(st, true);
        return false;
    }
    st->id = id;
    hbone_wake(s);
    return true;
}

static void say_end(struct hbone_stream *st, bool reset)
{
    struct hbone_session *s = st->session;
    (void)nghttp2_session_set_stream_user_data(s->ng, st->id, NULL);
    if (s->server && !st->answered) {
        hbone_refuse(s, st->id, 503);
    } else if (reset || st->base.out.len > 0) {
        (void)nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
    } else if (!st->end_sent) {
        (void)nghttp2_session_resume_data(s->ng, st->id); /* what follows it: on_frame_send */
    } else if (!st->remote_ended) {
        (void)nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_NO_ERROR);
    }
    hbone_wake(s);
}

void hbone_stream_close(struct hbone_stream *st, bool reset)
{
    struct hbone_session *s = st->session;
    if (s != NULL) {
        if (is_live(st)) {
            say_end(st, reset);
        }
        if (s->transport != NULL && st->in.len > 0) {
            (void)nghttp2_session_consume_connection(s->ng, st->in.len);
        }
        s->held -= st->in.len + st->base.out.len;
        s->grown -= st->window - HBONE_WINDOW_FIRST;
        *s->all_grown -= st->window - HBONE_WINDOW_FIRST;
        unqueue(st);
        *(st->prev != NULL ? &st->prev->next : &s->streams) = st->next;
        if (st->next != NULL) {
            st->next->prev = st->prev;
        }
        s->n_streams--;
    }
    st->session = NULL;
    st->id = 0;
    st->reset = true;
    st->base.ops = NULL;
    buf_reset(&st->in);
    buf_reset(&st->base.out);
}
