/*
 * http2: HTTP/2 sessions whose streams are requests (RFC 9113), both ends, over bytes. It knows
 * nothing of connections, policy or configuration, and has no descriptor and no clock: bytes that
 * came are fed, bytes to send are made into a buffer that the owner writes, time is handed in.
 *
 * One reading of every message, refused and never repaired: nghttp2 refuses what RFC 9113 8.1
 * to 8.3 calls malformed, and a head is then handed on as the HTTP/1.1 head that means the same
 * (http1.h, limits.composed), so that method, authority, path and fields are judged by the very
 * code that judges HTTP/1.1.
 *
 * Flow control is the owner's: what came for a stream counts against its window until
 * http2_stream_consumed says that somebody has taken it, and ops->taken says when what was sent is
 * taken. A stream's window begins small and grows while its reader keeps up; all windows of a
 * session together, and what those of a worker have grown by, are bounded, and the session's own
 * window is larger than all of them: a stream that nobody reads holds what its window was, and
 * stops no other. Nothing is allocated for a DATA frame that the peer's window takes at once.
 *
 * Owner's part: http2_session_feed with what came. After that, and soon after ops->wake:
 * http2_session_make, and write what is in http2_session_out, again until it makes nothing. Once
 * either says false: write what is left and close; http2_session_free (not within a call of `ops`).
 * HTTP2_TICK_MS: http2_session_tick. Thread: a session and its streams belong to one worker.
 */
#ifndef POSTERN_HTTP2_H
#define POSTERN_HTTP2_H

#include <postern/buf.h>
#include <postern/http2_calm.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP2_STREAMS = 100, /* that a peer may have open with us at once */
    HTTP2_WINDOW_FIRST = 64 * 1024,
    HTTP2_WINDOW_MAX = 1024 * 1024,
    HTTP2_WINDOW_SESSION = 16 * 1024 * 1024, /* of all its streams together */
    HTTP2_WINDOW_GROWN = 64 * 1024 * 1024, /* of all sessions of a worker, beyond the first ones */
    HTTP2_MAKE = 64 * 1024,                /* frames are gathered up to here for one write */
    HTTP2_FIELDS_MAX = 128,                /* of a message that we send; more is refused */
    HTTP2_TICK_MS = 10000, /* server: and a PING, if there are streams and nothing was heard since
                              the last one */
    HTTP2_DEAD_MS = 20000, /* without an answer to it */
    HTTP2_PREFACE_BYTES = 24,
};

/* RFC 9113 section 7. */
enum http2_code {
    HTTP2_NO_ERROR = 0,
    HTTP2_PROTOCOL_ERROR = 1,
    HTTP2_INTERNAL_ERROR = 2,
    HTTP2_FLOW_CONTROL_ERROR = 3,
    HTTP2_STREAM_CLOSED = 5,
    HTTP2_REFUSED_STREAM = 7, /* nothing of it was looked at: it may be sent again */
    HTTP2_CANCEL = 8,
    HTTP2_ENHANCE_YOUR_CALM = 11,
    HTTP2_HTTP_1_1_REQUIRED = 13,
};

struct http2_session;

/* Embedded by its owner, who must not move it. */
struct http2_stream {
    struct http2_session *session; /* NULL: it is not open, or gone */
    struct http2_stream *prev, *next;
    void *arg;          /* the owner's */
    int32_t id;         /* 0: nothing is left of it on the wire */
    uint32_t window;    /* of ours */
    uint32_t consumed;  /* since that grew */
    uint32_t unread;    /* bytes that came and were not consumed */
    struct buf out;     /* what the peer's window does not take yet; may keep its memory, empty */
    struct buf tail;    /* trailers that follow it */
    const uint8_t *src; /* during a send */
    size_t src_len;
    bool head_sent; /* server: a final head */
    bool head_came; /* client: likewise */
    bool end_wanted, end_sent, remote_ended;
    bool has_tail;
    bool head_out; /* server: that is on its way */
    bool unwanted; /* the owner's: what the peer still sends is for nobody; it is told so
                    * (NO_ERROR) once our end is on its way */
};

/* A message's head, or its trailers. Lent for the call. */
struct http2_head {
    /* Of a request "GET /path HTTP/1.1\r\nHost: authority\r\nname: value\r\n...\r\n", of a response
     * "HTTP/1.1 200 \r\n...", of trailers their lines with an empty one behind. Names are in lower
     * case, cookies are one line, the last; te is not among them (a request's is `trailers` or
     * none). */
    struct str text;
    uint64_t
        never_indexed[2]; /* bits by header line: that may not get into a table of the peer's */
    bool ends;            /* nothing follows */
    bool too_long;        /* text is not whole */
    bool te_trailers, https;
    bool host_mismatch; /* :authority and host that differ */
    bool bad_scheme;    /* neither http nor https */
};

struct http2_field {
    struct str name, value; /* the name in lower case; lent for the call */
    bool never_indexed;
};

enum http2_abuse {
    HTTP2_OK,
    HTTP2_TOO_MANY_FRAMES,
    HTTP2_HEADER_BOMB,
    HTTP2_PROTOCOL, /* what HTTP/2 itself forbids, or no HTTP/2 at all */
    HTTP2_NO_MEMORY,
    HTTP2_SILENT,    /* no answer to a PING */
    HTTP2_SLOW_HEAD, /* a head that was begun and not ended in time */
    HTTP2_LEFT,      /* in order, after GOAWAY: no stream is left */
};
const char *http2_abuse_name(enum http2_abuse a);

/* None of these may feed, make or free. */
struct http2_ops {
    /* There is something to make. */
    void (*wake)(void *arg);
    /* Server: a request that is well-formed as HTTP/2. Takes it by http2_stream_accept within the
     * call, else it is reset (REFUSED_STREAM). */
    void (*request)(void *arg, int32_t id, const struct http2_head *head);
    /* A message that is malformed; its stream is being reset (of one that was accepted `closed`
     * follows). May be NULL. */
    void (*malformed)(void *arg, int32_t id);
    /* Client: a head; several if interim. */
    void (*response)(struct http2_stream *st, const struct http2_head *head);
    void (*data)(struct http2_stream *st, const uint8_t *p, size_t n);
    /* The last of it, in place of `data` and `ended`: n is not 0, and it is as long as its head
     * said. */
    void (*data_last)(struct http2_stream *st, const uint8_t *p, size_t n);
    void (*trailers)(struct http2_stream *st, const struct http2_head *trailers);
    /* The peer's direction ended, without trailers, and not with its head. */
    void (*ended)(struct http2_stream *st);
    /* n bytes of what was sent are on their way. */
    void (*taken)(struct http2_stream *st, size_t n);
    /* Both directions ended (0), or it was reset, by whomever. st->id is 0. */
    void (*closed)(struct http2_stream *st, uint32_t code);
};

struct http2_spec {
    bool server;
    const struct http2_ops *ops;
    void *arg;
    uint32_t head_bytes; /* of one message, as HTTP/2 counts them: 431 beyond, the end far beyond */
    uint32_t head_ms;    /* for a whole head */
    uint64_t *grown;     /* lent: of all sessions of a worker, 0 at first; NULL: it counts alone */
    uint64_t now_ms;
};

/* NULL: no memory. */
struct http2_session *http2_session_new(const struct http2_spec *spec);
/* Its streams are lost: session NULL, told by nobody. Takes NULL. */
struct http2_session *http2_session_free(struct http2_session *s);
/* False: it is over (there may be a last word to make). */
bool http2_session_feed(struct http2_session *s, const uint8_t *p, size_t n, uint64_t now_ms);
/* Makes frames of what there is to send, until HTTP2_MAKE bytes wait. False: it is over. */
bool http2_session_make(struct http2_session *s);
/* What the owner has to write, and consumes. */
struct buf *http2_session_out(struct http2_session *s);
/* Every HTTP2_TICK_MS. False: the peer is silent, or slow. */
bool http2_session_tick(struct http2_session *s, uint64_t now_ms);
/* Server: says that it takes no further stream; twice: those that come are refused from now on
 * (the first gives the peer a round trip). Client: it opens none. */
void http2_session_goaway(struct http2_session *s);
/* The peer's fault, whatever it is: GOAWAY with that code, and the end. */
void http2_session_abort(struct http2_session *s, enum http2_code code);
/* The peer had us do something for nothing (http2_calm.h). */
void http2_session_charge(struct http2_session *s);
/* The peer said GOAWAY. */
bool http2_session_peer_leaves(const struct http2_session *s);
enum http2_abuse http2_session_why(const struct http2_session *s);
size_t http2_session_streams(const struct http2_session *s);
/* Whether anything was heard that is HTTP/2. */
bool http2_session_stands(const struct http2_session *s);
/* Bytes that it keeps: what its streams could not send yet, and frames that were made. */
size_t http2_session_held(const struct http2_session *s);

/* --- streams ---------------------------------------------------------------------------------- */
/* Server, in ops->request. st is zeroed, but for out and tail, whose memory is used again. */
void http2_stream_accept(struct http2_session *s, int32_t id, struct http2_stream *st, void *arg);
/* Client: fields begin with the pseudo ones. `ends`: nothing follows. False: no memory, too many
 * fields, or the peer leaves. */
bool http2_stream_open(struct http2_session *s, struct http2_stream *st, void *arg,
                       const struct http2_field *fields, size_t n, bool ends);
/* Server: a head; of an interim one others follow. False: no memory, or too many fields. */
bool http2_stream_head(struct http2_stream *st, const struct http2_field *fields, size_t n,
                       bool interim, bool ends);
/* Takes all of it. False: no memory. */
bool http2_stream_send(struct http2_stream *st, const uint8_t *p, size_t n);
/* The same, and nothing follows: the end is in the last frame of it, and no empty one comes. */
bool http2_stream_send_last(struct http2_stream *st, const uint8_t *p, size_t n);
/* After all that was sent. With trailers: lines as in struct http2_head; false: no memory, or too
 * many. */
void http2_stream_end(struct http2_stream *st);
bool http2_stream_end_with(struct http2_stream *st, const struct http2_field *fields, size_t n);
/* Drops what was sent and is not on its way. */
void http2_stream_forget(struct http2_stream *st);
/* Bytes of ops->data that somebody has taken. */
void http2_stream_consumed(struct http2_stream *st, size_t n);
void http2_stream_reset(struct http2_stream *st, enum http2_code code);
/* The owner is done with it: what is left of it is reset, without ops->closed. Takes one that is
 * closed. out and tail keep their memory: buf_reset is the owner's. */
void http2_stream_drop(struct http2_stream *st);
static inline bool http2_stream_is_live(const struct http2_stream *st)
{
    return st->session != NULL && st->id != 0;
}

/* --- heads (head.c): for the owner's use ------------------------------------------------------ */
/* grpc-status that stands for an HTTP status of ours. */
unsigned http2_grpc_status(unsigned http_status);
/* The code that one side's reset is to the other. */
enum http2_code http2_code_across(uint32_t code);

#endif
