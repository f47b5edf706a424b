/*
 * hbone: many streams over one byte transport, each opened by an HTTP/2 CONNECT, as Istio's ztunnel
 * speaks it. A session lives over any stream of net.h (in the product: TLS); each of its streams is
 * a stream of net.h in its turn. It knows nothing of connections, policy or configuration, watches
 * no descriptor and has no clock: its owner hands it time and readiness.
 *
 * Owner's part: when the transport is readable hbone_session_receive; after that, when it is
 * writable, and soon after ops->wake, hbone_session_turn, never from within a call of `ops`. Once
 * either says false, or the transport ended, hbone_session_stop and later (not within a call of
 * `ops`) hbone_session_free. HBONE_TICK_MS: hbone_session_tick.
 *
 * Flow control is end to end. A stream's window begins small and grows while its reader keeps up,
 * and all windows of a session together are bounded, and never exceed what HTTP/2 lets the session
 * take at once: a stream that nobody reads holds HBONE_WINDOW_FIRST bytes, or what it had grown to,
 * and never stops another stream; what all windows of a worker have grown by is bounded as well.
 * What is written is taken whole, as net.h has it; what the peer's
 * window does not take yet stays in the stream (`out`), which is then blocked.
 *
 * An end in order is END_STREAM, each direction on its own; everything else is RST_STREAM, and
 * reads as a reset (ECONNRESET). Thread: a session and its streams belong to one worker.
 */
#ifndef POSTERN_HBONE_H
#define POSTERN_HBONE_H

#include <postern/net.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HBONE_SERVER_STREAMS = 200, /* that a peer may have open with us at once */
    HBONE_CLIENT_STREAMS = 100, /* that we open with a peer, if it takes so many */
    HBONE_FRAME_MAX = 1024 * 1024,
    HBONE_WINDOW_FIRST = 64 * 1024,
    HBONE_WINDOW_MAX = 4 * 1024 * 1024,
    HBONE_WINDOW_SESSION = 24 * 1024 * 1024, /* of all its streams together */
    HBONE_WINDOW_GROWN = 64 * 1024 * 1024, /* of all sessions of a worker, beyond the first ones */
    HBONE_HEADER_BYTES = 16 * 1024,        /* of one message, as HTTP/2 counts them */
    HBONE_AUTHORITY_MAX = 255,
    HBONE_ERROR_REFUSED = 7, /* of a reset: nothing of the stream was looked at */
    HBONE_TICK_MS = 10000,   /* and a PING, if nothing was heard since the last one */
    HBONE_DEAD_MS = 20000,   /* without an answer to it */
    HBONE_READ_ROOM =
        16, /* read that much less than NET_SCRATCH_SIZE for a stream: one write then */
};

struct hbone_session;

/* Embedded by its owner, who must not move it. */
struct hbone_stream {
    struct stream base;            /* first: its operations get a struct stream */
    struct hbone_session *session; /* NULL: it is gone */
    struct hbone_stream *prev, *next;
    struct hbone_stream *next_ready;
    void *arg;          /* the owner's */
    int32_t id;         /* 0: nothing is left of it on the wire */
    uint32_t error;     /* HTTP/2's code of its reset */
    uint32_t window;    /* of ours */
    uint32_t taken;     /* since that grew */
    uint16_t status;    /* client: the peer's answer; 0: none yet */
    uint8_t wanted;     /* LOOP_* bits: 1 read, 2 write */
    bool queued, news;  /* for the ready list */
    bool asked;         /* client: its CONNECT is on its way, as far as is known */
    bool answered;      /* server: 200 was said */
    bool remote_ended;  /* END_STREAM came */
    bool end_sent;      /* ours went out */
    bool reset;         /* by the peer, or lost with its session */
    struct buf in;      /* what came and was not read */
    const uint8_t *src; /* during a write */
    size_t src_len;
};

enum hbone_abuse {
    HBONE_OK,
    HBONE_TOO_MANY_FRAMES, /* resets of unanswered streams, PINGs, SETTINGS, empty DATA ... */
    HBONE_HEADER_BOMB,
    HBONE_PROTOCOL, /* what HTTP/2 itself forbids, or no HTTP/2 at all */
    HBONE_NO_MEMORY,
    HBONE_SILENT, /* no answer to a PING */
    HBONE_LOST,   /* the transport ended or failed */
};
const char *hbone_abuse_name(enum hbone_abuse a);

struct hbone_ops {
    /* Wants hbone_session_turn soon. */
    void (*wake)(void *arg);
    /* Server: a well-formed CONNECT. Takes it by hbone_stream_accept, within the call, else it is
     * refused with 503. authority is lent. */
    void (*request)(void *arg, int32_t id, struct str authority);
    /* Server: something that is none was refused with 400. */
    void (*bad_request)(void *arg);
    /* Bytes of a stream that has none waiting: true: they are taken, all of them, and done with.
     * Must neither read any stream nor call anything of this session. */
    bool (*data)(struct hbone_stream *st, const uint8_t *p, size_t n);
    /* What was wanted became possible; a stream was accepted, answered or reset. */
    void (*ready)(struct hbone_stream *st, unsigned ready);
};

struct hbone_spec {
    bool server;
    struct stream *transport;    /* lent */
    struct net_scratch *scratch; /* lent: the worker's */
    const struct hbone_ops *ops;
    void *arg;
    uint64_t *grown; /* lent: of all sessions together, 0 at first; NULL: this one counts alone */
    uint64_t now_ms;
};

/* NULL: no memory. */
struct hbone_session *hbone_session_new(const struct hbone_spec *spec);
/* Its streams are lost (reset, and told so by nobody), its transport is not touched any more. */
void hbone_session_stop(struct hbone_session *s);
/* Takes NULL. Not within ops. */
struct hbone_session *hbone_session_free(struct hbone_session *s);
/* One read of the transport. False: it is over. */
bool hbone_session_receive(struct hbone_session *s, uint64_t now_ms);
/* The same with bytes at hand: what receive does with what it reads. */
bool hbone_session_feed(struct hbone_session *s, const uint8_t *p, size_t n, uint64_t now_ms);
/* Tells streams what they can do, and sends. False: it is over. */
bool hbone_session_turn(struct hbone_session *s);
/* Every HBONE_TICK_MS. False: the peer is silent. */
bool hbone_session_tick(struct hbone_session *s, uint64_t now_ms);
/* Says that no further stream will be taken; those that are open go on. Twice: from now on they are
 * refused as well (the first gives the peer a round trip to hear of it). */
void hbone_session_goaway(struct hbone_session *s);
/* Why it is over. */
enum hbone_abuse hbone_session_why(const struct hbone_session *s);
/* Client: how many more it takes now; 0 also when the peer said that it goes away. */
size_t hbone_session_room(const struct hbone_session *s);
/* Client: whether there may be room again: neither side leaves. */
bool hbone_session_usable(const struct hbone_session *s);
void *hbone_session_arg(const struct hbone_session *s);

/* Server, in ops->request. Told to be ready once, whatever it wants. */
void hbone_stream_accept(struct hbone_session *s, int32_t id, struct hbone_stream *st, void *arg);
/* Server: 200, the tunnel stands. */
void hbone_stream_answer(struct hbone_stream *st);
/* Server: another status, in place of it. The stream is closed. */
void hbone_stream_refuse(struct hbone_stream *st, unsigned status);
/* Client: false: there is no room, or no memory. */
bool hbone_stream_open(struct hbone_session *s, struct str authority, struct hbone_stream *st,
                       void *arg);
/* What ops->ready shall tell of (LOOP_READ 1, LOOP_WRITE 2): level-triggered, as of a descriptor.
 */
void hbone_stream_want(struct hbone_stream *st, unsigned events);
/* Takes one that was never opened, and one that is closed. `reset`: the peer sees a reset. */
void hbone_stream_close(struct hbone_stream *st, bool reset);
static inline bool hbone_stream_is_open(const struct hbone_stream *st)
{
    return st->base.ops != NULL;
}

/* "10.0.0.1:80" or "[fd00::1]:80" in its shortest spelling of the port, nothing else: no names, no
 * zone, no port 0. (authority.c) */
bool hbone_authority_parse(struct str authority, struct net_addr *ret);

#endif
