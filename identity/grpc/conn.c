/*
 * The HTTP/2 connection that both ends share: bytes in, when what is written (out.c writes it), and
 * when it ends.
 */
#include "grpc_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 16 * 1024,
    READS_PER_TURN = 4,
    MAX_UNSENT_ACKS = 100,
    MAX_UNSENT_FRAMES = 200, /* waiting behind a socket that takes nothing: then we don't read */
};

void grpc_limits_fill(struct grpc_limits *l, const struct grpc_limits *given)
{
    *l = given != NULL ? *given : (struct grpc_limits){0};
#define DEFAULT(field, value) l->field = l->field != 0 ? l->field : (value)
    DEFAULT(max_streams, 100);
    DEFAULT(max_header_bytes, 16U * 1024);
    DEFAULT(max_message_bytes, 4U * 1024 * 1024);
    DEFAULT(max_conn_in_bytes, 8U * 1024 * 1024);
    DEFAULT(max_call_out_bytes, 4U * 1024 * 1024);
    DEFAULT(max_conn_out_bytes, 16U * 1024 * 1024);
    DEFAULT(max_control_burst, 200);
    DEFAULT(max_control_per_s, 20);
    DEFAULT(handshake_timeout_ms, 10000);
    DEFAULT(idle_timeout_ms, 600000);
    DEFAULT(stall_timeout_ms, 60000);
#undef DEFAULT
}

void grpc_conn_fail(struct grpc_conn *c, enum err_code code, const char *fmt, ...)
{
    if (c->closing) {
        return;
    }
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (c->why.code == ERR_NONE) {
        (void)err_set(&c->why, code, "%s", text);
    }
    c->closing = true;
    if (c->io != NULL) {
        loop_io_want(c->io, 0);
    }
    loop_timer_disarm(&c->tick);
    if (!c->in_turn_end) {
        loop_defer(c->loop, &c->turn_end);
    }
}

/* --- whom it is charged to -------------------------------------------------------------------- */

bool grpc_conn_charge(struct grpc_conn *c, size_t n)
{
    struct grpc_account *a = c->account;
    if (a == NULL) {
        return true;
    }
    if (a->bytes > a->max_bytes || n > a->max_bytes - a->bytes) {
        return false;
    }
    a->bytes += n;
    return true;
}

void grpc_conn_discharge(struct grpc_conn *c, size_t n)
{
    if (c->account != NULL) {
        c->account->bytes -= n;
    }
}

/* --- floods ----------------------------------------------------------------------------------- */

/* Frames that cost us something and carry nothing are paid from a bucket. Frames that we send earn
 * it back, because clients probe the path with a PING for each piece of data that they get. */
static void earn_token(struct grpc_conn *c)
{
    uint64_t cap = (uint64_t)c->limits.max_control_burst * 1000;
    c->tokens_milli = c->tokens_milli + 1000 > cap ? cap : c->tokens_milli + 1000;
}

static bool pay_token(struct grpc_conn *c)
{
    uint64_t now_ms = loop_now_ms(c->loop);
    uint64_t cap = (uint64_t)c->limits.max_control_burst * 1000;
    if (now_ms > c->tokens_at_ms) {
        uint64_t passed_ms = now_ms - c->tokens_at_ms;
        uint64_t earned = passed_ms > 1000000 ? cap : passed_ms * c->limits.max_control_per_s;
        c->tokens_milli = c->tokens_milli + earned > cap ? cap : c->tokens_milli + earned;
        c->tokens_at_ms = now_ms;
    }
    if (c->tokens_milli < 1000) {
        return false;
    }
    c->tokens_milli -= 1000;
    return true;
}

static struct grpc_stream *stream_of(struct grpc_conn *c, int32_t id)
{
    return nghttp2_session_get_stream_user_data(c->session, id);
}

static bool frame_costs(struct grpc_conn *c, const nghttp2_frame_hd *hd)
{
    const struct grpc_stream *s = NULL;
    switch (hd->type) {
    case NGHTTP2_DATA:
        return hd->length == 0 && (hd->flags & NGHTTP2_FLAG_END_STREAM) == 0;
    case NGHTTP2_HEADERS:
    case NGHTTP2_WINDOW_UPDATE: /* comes with every piece of our own data */
        return false;
    case NGHTTP2_RST_STREAM:
        /* Who leaves a stream that we have answered on waited for us before: a client may well
         * leave thousands of them at once. */
        s = stream_of(c, hd->stream_id);
        return s == NULL || !s->started;
    default:
        return true;
    }
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    struct grpc_conn *c = arg;
    if (!c->closing && frame_costs(c, hd) && !pay_token(c)) {
        (void)nghttp2_session_terminate_session(session, NGHTTP2_ENHANCE_YOUR_CALM);
        (void)err_set(&c->why, ERR_LIMIT, "too many control frames");
    }
    return c->closing ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* --- what nghttp2 tells ----------------------------------------------------------------------- */

static int carry_on(const struct grpc_conn *c)
{
    return c->closing ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    (void)session;
    struct grpc_conn *c = arg;
    c->ops->on_begin_headers(c, f);
    return carry_on(c);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *f, const uint8_t *name,
                     size_t n_name, const uint8_t *value, size_t n_value, uint8_t flags, void *arg)
{
    (void)session;
    (void)flags;
    struct grpc_conn *c = arg;
    struct grpc_stream *s = stream_of(c, f->hd.stream_id);
    if (s != NULL) {
        c->ops->on_header(c, s, f, (struct str){(const char *)name, n_name},
                          (struct str){(const char *)value, n_value});
    }
    return carry_on(c);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    (void)session;
    struct grpc_conn *c = arg;
    if (f->hd.type == NGHTTP2_SETTINGS && (f->hd.flags & NGHTTP2_FLAG_ACK) == 0 && !c->ready) {
        c->ready = true;
        c->ops->on_ready(c);
    }
    if (f->hd.type == NGHTTP2_GOAWAY) {
        c->going_away = true;
    }
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) {
        return carry_on(c);
    }
    struct grpc_stream *s = stream_of(c, f->hd.stream_id);
    if (s == NULL) {
        return carry_on(c);
    }
    if (f->hd.type == NGHTTP2_HEADERS) {
        c->ops->on_headers(c, s, f);
    }
    if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && !c->closing) {
        s->in_ended = true;
        c->ops->on_end(c, s);
    }
    return carry_on(c);
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p,
                         size_t n, void *arg)
{
    (void)session;
    (void)flags;
    struct grpc_conn *c = arg;
    struct grpc_stream *s = stream_of(c, id);
    if (s != NULL && !c->closing) {
        c->ops->on_data(c, s, p, n);
    }
    return carry_on(c);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *arg)
{
    struct grpc_conn *c = arg;
    struct grpc_stream *s = stream_of(c, id);
    if (s != NULL) {
        (void)nghttp2_session_set_stream_user_data(session, id, NULL);
        c->ops->stream_gone(c, s, error_code);
    }
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    struct grpc_conn *c = arg;
    if (f->hd.type == NGHTTP2_GOAWAY) {
        c->going_away = true;
    }
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) {
        return 0;
    }
    earn_token(c);
    struct grpc_stream *s = stream_of(c, f->hd.stream_id);
    if (c->ops->is_server && s != NULL && (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 &&
        !s->in_ended) {
        /* Answered before the request was whole: the rest is not wanted (RFC 9113 8.1). */
        (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, f->hd.stream_id,
                                        NGHTTP2_NO_ERROR);
    }
    return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void rearm(struct grpc_conn *c);

static void flush(struct grpc_conn *c)
{
    if (!grpc_out_waits(c)) {
        c->last_write_ms = loop_now_ms(c->loop); /* a stall begins with something to write */
    }
    bool blocked = grpc_out_write(c);
    if (!c->closing && c->drain && !c->going_away && !grpc_out_waits(c)) {
        /* After the ends of calls: some clients take nothing after a GOAWAY. */
        c->going_away = true;
        (void)nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE,
                                    nghttp2_session_get_last_proc_stream_id(c->session),
                                    NGHTTP2_NO_ERROR, NULL, 0);
        blocked = grpc_out_write(c);
    }
    if (c->closing) {
        return;
    }
    if (!grpc_out_waits(c)) {
        grpc_out_free(c);
        if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session)) {
            grpc_conn_fail(c, ERR_UNAVAILABLE, "the connection was ended (GOAWAY)");
            return;
        }
    }
    if (c->io != NULL) {
        /* Whoever makes us answer and takes no answers is not read from, until it does. */
        bool deaf = blocked &&
                    nghttp2_session_get_outbound_queue_size(c->session) > (size_t)MAX_UNSENT_FRAMES;
        unsigned read = deaf ? 0 : LOOP_READ;
        loop_io_want(c->io, blocked ? read | LOOP_WRITE : LOOP_READ);
    }
    rearm(c);
}

/* --- reading ---------------------------------------------------------------------------------- */

void grpc_conn_feed(struct grpc_conn *c, const uint8_t *p, size_t n)
{
    if (c->closing) {
        return;
    }
    c->last_read_ms = loop_now_ms(c->loop);
    ssize_t rc = nghttp2_session_mem_recv(c->session, p, n);
    if (rc < 0) {
        grpc_conn_fail(c, ERR_PROTOCOL, "HTTP/2: %s", nghttp2_strerror((int)rc));
    }
}

static void read_some(struct grpc_conn *c)
{
    uint8_t bytes[READ_BYTES];
    size_t dirty = 0;
    for (int i = 0; i < READS_PER_TURN && !c->closing; i++) {
        ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n == -1) {
            if (errno != EAGAIN && errno != EINTR) {
                grpc_conn_fail(c, ERR_UNAVAILABLE, "the peer closed the connection");
            }
            break;
        }
        if (n == 0) {
            grpc_conn_fail(c, ERR_UNAVAILABLE, "the peer closed the connection");
            break;
        }
        dirty = (size_t)n > dirty ? (size_t)n : dirty;
        grpc_conn_feed(c, bytes, (size_t)n);
        if ((size_t)n < sizeof(bytes)) {
            break;
        }
    }
    mem_wipe(bytes, dirty);
}

static void on_io(void *arg, unsigned ready)
{
    struct grpc_conn *c = arg;
    if (c->closing) {
        return;
    }
    if ((ready & LOOP_READ) != 0) {
        read_some(c);
    }
    if (!c->closing) {
        flush(c);
    }
}

/* --- clocks ----------------------------------------------------------------------------------- */

/* The next moment at which check_clocks could find something; 0: none. */
static uint64_t next_due(const struct grpc_conn *c)
{
    uint64_t due = 0;
#define EARLIER(when)                                                                              \
    do {                                                                                           \
        uint64_t when_ms = (when);                                                                 \
        due = due == 0 || when_ms < due ? when_ms : due;                                           \
    } while (0)
    if (!c->ready) {
        EARLIER(c->opened_ms + c->limits.handshake_timeout_ms);
    }
    if (grpc_out_waits(c)) {
        EARLIER(c->last_write_ms + c->limits.stall_timeout_ms);
    }
    if (c->ops->is_server && c->n_streams == 0) {
        EARLIER(c->idle_since_ms + c->limits.idle_timeout_ms);
    }
    if (c->limits.keepalive_ms != 0) {
        uint64_t since_ms = c->ping_ms > c->last_read_ms ? c->ping_ms : c->last_read_ms;
        EARLIER(since_ms + c->limits.keepalive_ms);
    }
#undef EARLIER
    return due;
}

static void rearm(struct grpc_conn *c)
{
    uint64_t due_ms = next_due(c);
    uint64_t now_ms = loop_now_ms(c->loop);
    if (due_ms == 0) {
        loop_timer_disarm(&c->tick);
    } else {
        loop_timer_arm(&c->tick, due_ms > now_ms ? due_ms - now_ms : 1);
    }
}

static void on_tick(void *arg)
{
    struct grpc_conn *c = arg;
    uint64_t now_ms = loop_now_ms(c->loop);
    const struct grpc_limits *l = &c->limits;
    if (!c->ready && now_ms >= c->opened_ms + l->handshake_timeout_ms) {
        grpc_conn_fail(c, ERR_UNAVAILABLE, "the peer did not speak HTTP/2 in time");
    } else if (grpc_out_waits(c) && now_ms >= c->last_write_ms + l->stall_timeout_ms) {
        grpc_conn_fail(c, ERR_UNAVAILABLE, "the peer does not read");
    } else if (c->ops->is_server && c->n_streams == 0 &&
               now_ms >= c->idle_since_ms + l->idle_timeout_ms) {
        c->idle_since_ms = now_ms; /* another such time for the peer to take the GOAWAY */
        (void)nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR);
        grpc_conn_kick(c);
    } else if (l->keepalive_ms != 0 && now_ms >= c->last_read_ms + l->keepalive_ms) {
        if (c->ping_ms > c->last_read_ms) {
            grpc_conn_fail(c, ERR_UNAVAILABLE, "the peer does not answer");
        } else {
            c->ping_ms = now_ms;
            (void)nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
            grpc_conn_kick(c);
        }
    }
    if (!c->closing) {
        rearm(c);
    }
}

/* --- life ------------------------------------------------------------------------------------- */

static void conn_destroy(struct grpc_conn *c)
{
    while (c->streams != NULL) {
        c->ops->stream_gone(c, c->streams, NGHTTP2_REFUSED_STREAM);
    }
    grpc_out_free(c);
    grpc_conn_discharge(c, GRPC_CONN_COST);
    c->account = NULL; /* it may go with us */
    c->ops->conn_gone(c, &c->why);
    nghttp2_session_del(c->session);
    (void)loop_io_free(c->io);
    loop_timer_disarm(&c->tick);
    if (c->fd != -1) {
        (void)close(c->fd);
    }
    free(c);
}

static void on_turn_end(struct loop_deferred *d)
{
    struct grpc_conn *c = (struct grpc_conn *)((char *)d - offsetof(struct grpc_conn, turn_end));
    c->in_turn_end = true; /* flush sees what is submitted meanwhile: no further turn is needed */
    if (!c->closing) {
        flush(c);
    }
    c->in_turn_end = false;
    if (c->closing) {
        conn_destroy(c);
    }
}

void grpc_conn_kick(struct grpc_conn *c)
{
    if (!c->closing && !c->in_turn_end) {
        loop_defer(c->loop, &c->turn_end);
    }
}

void grpc_conn_go_away(struct grpc_conn *c)
{
    c->drain = true;
    grpc_conn_kick(c);
}

static nghttp2_session *session_new(struct grpc_conn *c)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *o = NULL;
    nghttp2_session *session = NULL;
    if (nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&o) == 0) {
        nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
        nghttp2_session_callbacks_set_send_data_callback(cb, grpc_out_send_data);
        nghttp2_option_set_no_http_messaging(o, 1);
        nghttp2_option_set_no_closed_streams(o, 1);
        nghttp2_option_set_max_outbound_ack(o, MAX_UNSENT_ACKS);
        nghttp2_option_set_max_reserved_remote_streams(o, 0);
        grpc_option_resets(o);
        int rc = c->ops->is_server ? nghttp2_session_server_new2(&session, cb, c, o)
                                   : nghttp2_session_client_new2(&session, cb, c, o);
        if (rc != 0) {
            session = NULL;
        }
    }
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    return session;
}

static bool submit_settings(struct grpc_conn *c)
{
    uint32_t head =
        c->limits.max_header_bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)c->limits.max_header_bytes;
    const nghttp2_settings_entry server[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->limits.max_streams},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, head},
    };
    const nghttp2_settings_entry client[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, head},
    };
    return nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE,
                                   c->ops->is_server ? server : client, 2) == 0;
}

struct grpc_conn *grpc_conn_new(struct loop *loop, int fd, const struct grpc_conn_ops *ops,
                                const struct grpc_limits *limits, void *owner,
                                struct grpc_account *account, struct err *err)
{
    struct grpc_conn *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        goto fail;
    }
    c->account = account;
    if (!grpc_conn_charge(c, GRPC_CONN_COST)) {
        (void)err_set(err, ERR_LIMIT, "cannot set up a gRPC connection: its user holds too much");
        free(c);
        if (fd != -1) {
            (void)close(fd);
        }
        return NULL;
    }
    c->loop = loop;
    c->ops = ops;
    c->owner = owner;
    c->limits = *limits;
    c->fd = -1;
    c->turn_end.fn = on_turn_end;
    c->opened_ms = loop_now_ms(loop);
    c->last_read_ms = c->last_write_ms = c->idle_since_ms = c->opened_ms;
    c->tokens_milli = (uint64_t)limits->max_control_burst * 1000;
    c->tokens_at_ms = c->opened_ms;
    loop_timer_init(&c->tick, loop, on_tick, c);
    c->session = session_new(c);
    if (c->session == NULL || !submit_settings(c)) {
        goto fail;
    }
    if (fd != -1) {
        if (os_set_nonblock(fd) == -1) {
            goto fail;
        }
        c->io = loop_io_new(loop, fd, on_io, c);
        if (c->io == NULL) {
            goto fail;
        }
        c->fd = fd;
        loop_io_want(c->io, LOOP_READ);
    }
    grpc_conn_kick(c);
    rearm(c);
    return c;
fail:
    (void)err_set(err, ERR_LIMIT, "cannot set up a gRPC connection: out of memory");
    if (c != NULL) {
        grpc_conn_discharge(c, GRPC_CONN_COST);
        nghttp2_session_del(c->session);
        free(c);
    }
    if (fd != -1) {
        (void)close(fd);
    }
    return NULL;
}
