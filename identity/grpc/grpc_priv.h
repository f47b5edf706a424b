/*
 * What the two ends of gRPC share: the connection (session, socket, output, clocks, floods) and the
 * stream (queue out, splitter in). server.c and client.c embed struct grpc_stream in their calls
 * and hand the connection a table of what they do with its events.
 */
#ifndef POSTERN_GRPC_PRIV_H
#define POSTERN_GRPC_PRIV_H

#include <nghttp2/nghttp2.h>
#include <postern/grpc.h>

enum {
    GRPC_PREFIX_BYTES = 5,       /* of a message on the wire */
    GRPC_OUT_BYTES = 36 * 1024,  /* two full DATA frames with their heads fit */
    GRPC_STATUS_TEXT_MAX = 1024, /* of grpc-message, decoded */
    /* What a connection and a stream cost an account, with nghttp2's part: measured, rounded up. */
    GRPC_CONN_COST = 8 * 1024,
    GRPC_STREAM_COST = 2 * 1024,
};

struct grpc_stream;

/* --- the queue of outgoing messages (queue.c) ------------------------------------------------- */
struct grpc_chunk {
    struct grpc_chunk *next;
    size_t n, taken;
    uint8_t bytes[]; /* prefix and message; wiped when freed */
};
struct grpc_queue {
    struct grpc_chunk *head, *tail; /* owned */
    size_t unsent;                  /* bytes, prefixes included */
};
bool grpc_queue_push(struct grpc_queue *q, struct str message);
/* Moves exactly n bytes, of which there are so many, to out. */
void grpc_queue_take(struct grpc_queue *q, uint8_t *out, size_t n);
void grpc_queue_reset(struct grpc_queue *q);

/* --- streams ---------------------------------------------------------------------------------- */
struct grpc_stream {
    struct grpc_conn *conn;
    struct grpc_stream *prev, *next; /* of the connection */
    int32_t id;
    struct grpc_queue out;
    struct grpc_splitter in;
    size_t in_held;    /* what of `in` is counted in the connection's in_bytes */
    size_t head_bytes; /* of the header fields received so far */
    bool started;      /* a data provider is with nghttp2 */
    bool paused;       /* and it waits for nghttp2_session_resume_data */
    bool out_ended;    /* nothing will be queued any more */
    bool in_ended;     /* END_STREAM was received */
    bool drained;      /* the queue ran empty since the last look */
    bool charged;      /* to the connection's account */
    size_t held;       /* charged too: what is kept for it beside `out` and `in` */
};

/* --- connections (conn.c) ----------------------------------------------------------------------
 */
struct grpc_conn_ops {
    bool is_server;
    /* Frames and fields, from within nghttp2_session_mem_recv. */
    void (*on_begin_headers)(struct grpc_conn *c, const nghttp2_frame *f);
    void (*on_header)(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f,
                      struct str name, struct str value);
    void (*on_headers)(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f);
    void (*on_data)(struct grpc_conn *c, struct grpc_stream *s, const uint8_t *p, size_t n);
    /* END_STREAM came with DATA or HEADERS; after the callback for these. */
    void (*on_end)(struct grpc_conn *c, struct grpc_stream *s);
    void (*on_ready)(struct grpc_conn *c);
    void (*on_drained)(struct grpc_conn *c, struct grpc_stream *s);
    /* The data provider ran dry for good: client: END_STREAM; server: submit the trailers. */
    void (*submit_trailers)(struct grpc_conn *c, struct grpc_stream *s);
    /* The stream is over, for this HTTP/2 reason; it is freed by this (grpc_stream_deinit). */
    void (*stream_gone)(struct grpc_conn *c, struct grpc_stream *s, uint32_t error_code);
    /* All streams are gone, the connection is about to be. */
    void (*conn_gone)(struct grpc_conn *c, const struct err *why);
};

struct grpc_conn {
    struct loop *loop;
    const struct grpc_conn_ops *ops;
    void *owner;                   /* the server or the client; NULL once it has let go of us */
    void *context;                 /* the server's caller's */
    struct grpc_account *account;  /* what all of this is charged to; NULL: nobody */
    struct grpc_conn *prev, *next; /* of the owner */
    struct grpc_limits limits;     /* no zeros left but in keepalive_ms */
    nghttp2_session *session;
    int fd; /* owned; -1: no transport (fuzzing), output is thrown away */
    struct loop_io *io;
    struct loop_deferred turn_end;
    struct loop_timer tick;

    uint8_t *out; /* owned, GRPC_OUT_BYTES, only while there is output */
    size_t out_start, out_len;
    const uint8_t *rest; /* of what nghttp2 gave last, when out was full */
    size_t n_rest;

    struct grpc_stream *streams;
    size_t n_streams;
    size_t in_bytes, out_bytes; /* held for all streams */
    size_t n_drained;           /* streams that are so */

    uint64_t tokens_milli, tokens_at_ms; /* bucket for control frames, thousandths */
    uint64_t opened_ms, last_read_ms, last_write_ms, idle_since_ms, ping_ms;
    bool ready;      /* the peer's SETTINGS were here */
    bool drain;      /* a GOAWAY is wanted, as soon as nothing waits to be written */
    bool going_away; /* it was sent, or one was received */
    bool in_turn_end;
    bool closing; /* turn_end will free it */
    struct err why;
};

void grpc_limits_fill(struct grpc_limits *l, const struct grpc_limits *given);
/* Takes over fd, also on failure. */
struct grpc_conn *grpc_conn_new(struct loop *loop, int fd, const struct grpc_conn_ops *ops,
                                const struct grpc_limits *limits, void *owner,
                                struct grpc_account *account, struct err *err);
/* False, and nothing charged, if that would pass the bound. */
bool grpc_conn_charge(struct grpc_conn *c, size_t n);
void grpc_conn_discharge(struct grpc_conn *c, size_t n);
/* Bytes from the peer. */
void grpc_conn_feed(struct grpc_conn *c, const uint8_t *p, size_t n);
/* Something was submitted: written at the end of the turn. */
void grpc_conn_kick(struct grpc_conn *c);
/* Ends it at the end of the turn; the first reason counts. */
void grpc_conn_fail(struct grpc_conn *c, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void grpc_conn_go_away(struct grpc_conn *c);

/* --- what nghttp2 itself would count (nghttp2_limits.c, or _none.c) -----------------------------
 */
void grpc_option_resets(nghttp2_option *o);

/* --- output (out.c) --------------------------------------------------------------------------- */
/* Writes until nothing is left or the socket takes no more: then true. */
bool grpc_out_write(struct grpc_conn *c);
/* Bytes wait for the socket. */
bool grpc_out_waits(const struct grpc_conn *c);
void grpc_out_free(struct grpc_conn *c);
int grpc_out_send_data(nghttp2_session *session, nghttp2_frame *f, const uint8_t *head, size_t n,
                       nghttp2_data_source *source, void *arg);
nghttp2_data_provider grpc_stream_provider(struct grpc_stream *s);

/* --- streams (stream.c) ----------------------------------------------------------------------- */
void grpc_stream_init(struct grpc_stream *s, struct grpc_conn *c, int32_t id);
void grpc_stream_deinit(struct grpc_stream *s);
void grpc_stream_reset(struct grpc_stream *s, uint32_t error_code);
/* Counts a field; false if the head passes its bound. */
bool grpc_stream_count_field(struct grpc_stream *s, struct str name, struct str value);
enum grpc_send grpc_stream_push(struct grpc_stream *s, struct str message);
/* Hands bytes to the splitter under the connection's bound (then GRPC_SPLIT_NO_MEMORY). */
enum grpc_split grpc_stream_feed(struct grpc_stream *s, const uint8_t *p, size_t n,
                                 size_t *ret_taken, struct str *ret_message);
/* What is kept for it comes to n bytes; false, and nothing changed, if its account has no room. */
bool grpc_stream_hold(struct grpc_stream *s, size_t n);
/* The message just given has been dealt with. */
void grpc_stream_release(struct grpc_stream *s);

/* --- heads (head.c): pure ----------------------------------------------------------------------
 */
nghttp2_nv grpc_nv(const char *name, const char *value);
/* "application/grpc", alone or followed by '+' or ';'. */
bool grpc_content_type_ok(struct str s);
bool grpc_field_is_connection_specific(struct str name);
/* Not gRPC's or HTTP's own. */
bool grpc_field_is_metadata(struct str name);
void grpc_timeout_print(uint64_t ms, char ret[16]);
enum grpc_status grpc_status_of_http(int http_status);
enum grpc_status grpc_status_of_reset(uint32_t error_code);

/* --- server without a transport, for fuzzing ---------------------------------------------------
 */
struct grpc_conn *grpc_server_add_detached(struct grpc_server *server, void *conn_context);

#endif
