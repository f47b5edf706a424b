/*
 * What the files of hbone share: session.c (nghttp2's callbacks and the transport), stream.c (the
 * streams), calm.c (what a peer may cost), authority.c.
 */
#ifndef POSTERN_HBONE_PRIV_H
#define POSTERN_HBONE_PRIV_H

#include <nghttp2/nghttp2.h>
#include <postern/hbone.h>
#include <postern/http2_calm.h>

enum {
    EMIT_WRITE = 64 * 1024, /* frames are gathered up to here before they are written */
    DIRECT_MIN = 32 * 1024, /* a frame from here on is written without being copied */
    FRAME_HEADER = 9,
    READ = 1, /* LOOP_READ, LOOP_WRITE */
    WRITE = 2,
};

/* The head that is being read: HTTP/2 does not interleave them. */
struct hbone_head {
    uint32_t bytes;
    uint16_t status;
    bool connect, bad;
    size_t authority_len;
    char authority[HBONE_AUTHORITY_MAX];
};

struct hbone_session {
    nghttp2_session *ng; /* owned */
    const struct hbone_ops *ops;
    void *arg;
    struct stream *transport; /* lent; NULL: stopped */
    struct net_scratch *scratch;
    struct hbone_stream *streams;
    struct hbone_stream *ready, **ready_end;
    size_t n_streams, n_ready, held;
    struct buf emit;     /* frames to write */
    uint64_t grown;      /* of the session's window, lent to streams beyond their first */
    uint64_t *all_grown; /* the same of all sessions; lent, or own_grown */
    uint64_t own_grown;
    struct hbone_head head;
    struct http2_calm calm;
    uint64_t now_ms, heard_ms, ping_ms; /* 0: no PING is unanswered */
    enum hbone_abuse why;
    uint8_t goaways; /* that we said */
    int32_t last_id; /* the last stream that the second one leaves */
    bool server, in_library, woken, peer_leaves;
};

/* --- session.c --- */
void hbone_wake(struct hbone_session *s);
/* It is over; nothing more goes out. */
void hbone_fail(struct hbone_session *s, enum hbone_abuse why);
/* Lets nghttp2 make frames out of what there is; writes them if there are many. */
void hbone_pull(struct hbone_session *s);
/* As much as the transport takes; false: it failed. */
bool hbone_write_emit(struct hbone_session *s);

/* --- stream.c --- */
void hbone_stream_queue(struct hbone_stream *st);
/* READ, WRITE: what it could do now. */
unsigned hbone_stream_possible(const struct hbone_stream *st);
void hbone_stream_got(struct hbone_stream *st, const uint8_t *p, size_t n);
void hbone_stream_gone(struct hbone_stream *st, uint32_t error);
ssize_t hbone_stream_peek(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length,
                          uint32_t *flags, nghttp2_data_source *source, void *arg);
int hbone_stream_put(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t length,
                     nghttp2_data_source *source, void *arg);
void hbone_refuse(struct hbone_session *s, int32_t id, unsigned status);

/* --- calm.c: false: the session has failed --- */
bool hbone_calm_frame(struct hbone_session *s, const nghttp2_frame_hd *hd);
bool hbone_calm_pay(struct hbone_session *s);

#endif
