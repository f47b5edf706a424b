/*
 * Output is pulled: nghttp2 is asked for frames only while the fixed output buffer has room, and
 * DATA payload goes from the calls' queues straight into that buffer. So a reader that is slow
 * costs its queue and 36 kB, whatever it does with its windows. Sent bytes are wiped. The buffer is
 * a mapping of its own: on the heap it would leave, for each connection, a hole of its size that
 * the connection's own parts then fill.
 */
#include "grpc_priv.h"

#include <errno.h>
#include <postern/mem.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* --- outgoing DATA ---------------------------------------------------------------------------- */

static size_t out_room(const struct grpc_conn *c)
{
    return GRPC_OUT_BYTES - c->out_start - c->out_len;
}

static ssize_t read_queue(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length,
                          uint32_t *data_flags, nghttp2_data_source *source, void *arg)
{
    (void)session;
    (void)id;
    (void)buf;
    struct grpc_conn *c = arg;
    struct grpc_stream *s = source->ptr;
    size_t n = s->out.unsent < length ? s->out.unsent : length;
    if (n == 0 && !s->out_ended) {
        s->paused = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (s->out_ended && n == s->out.unsent) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
        if (c->ops->submit_trailers != NULL) {
            *data_flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            c->ops->submit_trailers(c, s);
        }
    }
    if (n > 0) {
        *data_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    return (ssize_t)n;
}

int grpc_out_send_data(nghttp2_session *session, nghttp2_frame *f, const uint8_t *head, size_t n,
                       nghttp2_data_source *source, void *arg)
{
    (void)session;
    (void)f;
    struct grpc_conn *c = arg;
    struct grpc_stream *s = source->ptr;
    enum { FRAME_HEAD = 9 };
    if (out_room(c) < FRAME_HEAD + n) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    uint8_t *out = c->out + c->out_start + c->out_len;
    memcpy(out, head, FRAME_HEAD);
    grpc_queue_take(&s->out, out + FRAME_HEAD, n);
    c->out_len += FRAME_HEAD + n;
    c->out_bytes -= n;
    grpc_conn_discharge(c, n);
    if (s->out.unsent == 0 && !s->drained) {
        s->drained = true;
        c->n_drained++;
    }
    return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

bool grpc_out_waits(const struct grpc_conn *c)
{
    return c->out_len > 0 || c->n_rest > 0;
}

static void out_take_rest(struct grpc_conn *c)
{
    size_t n = c->n_rest < out_room(c) ? c->n_rest : out_room(c);
    if (n > 0) {
        memcpy(c->out + c->out_start + c->out_len, c->rest, n);
        c->out_len += n;
        c->rest += n;
        c->n_rest -= n;
    }
}

/* False: the session is beyond repair. */
static bool out_fill(struct grpc_conn *c)
{
    if (c->out_len == 0) {
        c->out_start = 0;
    }
    out_take_rest(c);
    while (c->n_rest == 0 && out_room(c) > 0) {
        size_t before = c->out_len;
        const uint8_t *p = NULL;
        ssize_t n = nghttp2_session_mem_send(c->session, &p);
        if (n < 0) {
            grpc_conn_fail(c, ERR_PROTOCOL, "HTTP/2: %s", nghttp2_strerror((int)n));
            return false;
        }
        c->rest = p;
        c->n_rest = (size_t)n;
        out_take_rest(c);
        if (n == 0 && c->out_len == before) {
            break;
        }
    }
    return true;
}

/* True: some was taken, or it may be tried again at once. */
static bool out_write(struct grpc_conn *c)
{
    uint8_t *p = c->out + c->out_start;
    ssize_t n = (ssize_t)c->out_len;
    if (c->fd != -1) {
        n = send(c->fd, p, c->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (n == -1) {
        if (errno != EAGAIN && errno != EINTR) {
            grpc_conn_fail(c, ERR_UNAVAILABLE, "the peer closed the connection");
        }
        return errno == EINTR;
    }
    mem_wipe(p, (size_t)n);
    c->out_start += (size_t)n;
    c->out_len -= (size_t)n;
    c->last_write_ms = loop_now_ms(c->loop);
    return n > 0;
}

void grpc_out_free(struct grpc_conn *c)
{
    if (c->out != NULL) {
        mem_wipe(c->out + c->out_start, c->out_len); /* what was sent is wiped already */
        (void)munmap(c->out, GRPC_OUT_BYTES);
        grpc_conn_discharge(c, GRPC_OUT_BYTES);
    }
    c->out = NULL;
    c->out_start = 0;
    c->out_len = 0;
}

static void tell_drained(struct grpc_conn *c)
{
    for (struct grpc_stream *s = c->streams; s != NULL && c->n_drained > 0 && !c->closing;
         s = s->next) {
        if (s->drained) {
            s->drained = false;
            c->n_drained--;
            c->ops->on_drained(c, s);
        }
    }
}

bool grpc_out_write(struct grpc_conn *c)
{
    bool blocked = false;
    while (!c->closing && !blocked) {
        if (c->out == NULL) {
            if (!nghttp2_session_want_write(c->session)) {
                break;
            }
            if (!grpc_conn_charge(c, GRPC_OUT_BYTES)) {
                grpc_conn_fail(c, ERR_LIMIT, "its user holds too much memory");
                break;
            }
            c->out = mmap(NULL, GRPC_OUT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
            if (c->out == MAP_FAILED) {
                c->out = NULL;
                grpc_conn_discharge(c, GRPC_OUT_BYTES);
                grpc_conn_fail(c, ERR_LIMIT, "out of memory");
                break;
            }
        }
        if (!out_fill(c)) {
            break;
        }
        if (c->out_len == 0) {
            tell_drained(c);
            if (!nghttp2_session_want_write(c->session) || c->closing) {
                break;
            }
            if (!out_fill(c) || c->out_len == 0) {
                break; /* waits for windows */
            }
        }
        blocked = !out_write(c);
    }
    return blocked;
}

nghttp2_data_provider grpc_stream_provider(struct grpc_stream *s)
{
    s->started = true;
    return (nghttp2_data_provider){.source.ptr = s, .read_callback = read_queue};
}
