/* What a call on either end is to its connection: a place in its list, a queue out, a splitter in,
 * and what both hold, counted. */
#include "grpc_priv.h"

enum { HEAD_BOMB_FACTOR = 8 }; /* a head so many times too large ends the connection */

void grpc_stream_init(struct grpc_stream *s, struct grpc_conn *c, int32_t id)
{
    *s = (struct grpc_stream){.conn = c, .id = id};
    s->in.max_bytes = c->limits.max_message_bytes;
    s->next = c->streams;
    if (s->next != NULL) {
        s->next->prev = s;
    }
    c->streams = s;
    c->n_streams++;
    s->charged = grpc_conn_charge(c, GRPC_STREAM_COST);
}

void grpc_stream_deinit(struct grpc_stream *s)
{
    struct grpc_conn *c = s->conn;
    grpc_stream_release(s);
    c->out_bytes -= s->out.unsent;
    grpc_conn_discharge(c, s->out.unsent + s->held + (s->charged ? GRPC_STREAM_COST : 0));
    c->n_drained -= s->drained;
    grpc_queue_reset(&s->out);
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        c->streams = s->next;
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    c->n_streams--;
    if (c->n_streams == 0) {
        c->idle_since_ms = loop_now_ms(c->loop);
        grpc_conn_kick(c);
    }
}

void grpc_stream_reset(struct grpc_stream *s, uint32_t error_code)
{
    (void)nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, error_code);
    grpc_conn_kick(s->conn);
}

bool grpc_stream_count_field(struct grpc_stream *s, struct str name, struct str value)
{
    struct grpc_conn *c = s->conn;
    s->head_bytes += name.n + value.n + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
    if (s->head_bytes / HEAD_BOMB_FACTOR > c->limits.max_header_bytes) {
        grpc_conn_fail(c, ERR_LIMIT, "header fields without end");
    }
    return s->head_bytes <= c->limits.max_header_bytes;
}

enum grpc_send grpc_stream_push(struct grpc_stream *s, struct str message)
{
    struct grpc_conn *c = s->conn;
    size_t call_max = c->limits.max_call_out_bytes;
    size_t conn_max = c->limits.max_conn_out_bytes;
    if (message.n > SIZE_MAX / 2 || s->out.unsent > call_max || c->out_bytes > conn_max) {
        return GRPC_FULL;
    }
    size_t n = message.n + GRPC_PREFIX_BYTES;
    if (n > call_max - s->out.unsent || n > conn_max - c->out_bytes || !grpc_conn_charge(c, n)) {
        return GRPC_FULL;
    }
    if (!grpc_queue_push(&s->out, message)) {
        grpc_conn_discharge(c, n);
        return GRPC_FULL;
    }
    c->out_bytes += n;
    c->n_drained -= s->drained;
    s->drained = false;
    return GRPC_SENT;
}

enum grpc_split grpc_stream_feed(struct grpc_stream *s, const uint8_t *p, size_t n,
                                 size_t *ret_taken, struct str *ret_message)
{
    struct grpc_conn *c = s->conn;
    enum grpc_split split = grpc_splitter_feed(&s->in, p, n, ret_taken, ret_message);
    size_t held = grpc_splitter_held(&s->in);
    bool paid = held <= s->in_held || grpc_conn_charge(c, held - s->in_held);
    if (!paid) {
        return GRPC_SPLIT_NO_MEMORY; /* what was held before is released with the call */
    }
    if (held < s->in_held) {
        grpc_conn_discharge(c, s->in_held - held);
    }
    c->in_bytes = c->in_bytes - s->in_held + held;
    s->in_held = held;
    return c->in_bytes > c->limits.max_conn_in_bytes ? GRPC_SPLIT_NO_MEMORY : split;
}

bool grpc_stream_hold(struct grpc_stream *s, size_t n)
{
    if (n > s->held && !grpc_conn_charge(s->conn, n - s->held)) {
        return false;
    }
    if (n < s->held) {
        grpc_conn_discharge(s->conn, s->held - n);
    }
    s->held = n;
    return true;
}

void grpc_stream_release(struct grpc_stream *s)
{
    s->conn->in_bytes -= s->in_held;
    grpc_conn_discharge(s->conn, s->in_held);
    s->in_held = 0;
    grpc_splitter_reset(&s->in);
}
