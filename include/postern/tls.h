/*
 * tls: mutual TLS 1.3 between workloads, as streams (net.h).
 *
 * The peer is judged by x509_verify_svid and nothing else, inside the handshake, against the trust
 * bundles and the set of identities that the owner of the stream has set: a wrong peer fails the
 * handshake with a proper alert. No tickets, no session cache, no early data, no renegotiation:
 * every connection proves its identity anew.
 *
 * OpenSSL never sees the socket. A BIO of ours hands it what one recv brought into the worker's
 * scratch, and collects all records of a write for one send.
 *
 * tls_ctx: one generation of an own identity, immutable, owned by its snapshot; SSL objects keep
 * what they need of it alive. tls_worker: one a worker, outlives its streams. tls_stream: embedded
 * in its owner, which must not move it. Thread: tls_ctx any; the rest on its worker.
 */
#ifndef POSTERN_TLS_H
#define POSTERN_TLS_H

#include <openssl/ssl.h>
#include <postern/deny.h>
#include <postern/err.h>
#include <postern/net.h>
#include <postern/x509.h>
#include <stdbool.h>
#include <stdint.h>

/* --- own identity ----------------------------------------------------------------------------- */
struct tls_ctx;
/* The svid is not kept. */
int tls_ctx_new(const struct x509_svid *svid, struct tls_ctx **ret, struct err *err);
struct tls_ctx *tls_ctx_free(struct tls_ctx *ctx);

/* --- a worker's part -------------------------------------------------------------------------- */
struct tls_worker {
    struct net_scratch *scratch; /* lent */
    BIO_METHOD *method;          /* owned */
};
int tls_worker_init(struct tls_worker *w, struct net_scratch *scratch, struct err *err);
void tls_worker_deinit(struct tls_worker *w);

/* --- failures --------------------------------------------------------------------------------- */
/* The step of a handshake that said no. */
enum tls_step {
    TLS_STEP_NONE,
    TLS_STEP_HELLO,       /* no common version, suite or group; or not TLS at all */
    TLS_STEP_CERTIFICATE, /* the peer sent none */
    TLS_STEP_IDENTITY,    /* its certificate does not make a valid SVID: see verdict */
    TLS_STEP_QUARANTINED, /* a valid SVID, but its identity or certificate is quarantined */
    TLS_STEP_EXPECTED,    /* a valid SVID, but none of the expected identities */
    TLS_STEP_REFUSED,     /* the peer sent an alert: see alert_received */
    TLS_STEP_CLOSED,      /* the peer went away */
    TLS_STEP_PROTOCOL,    /* anything else that OpenSSL refused */
};
const char *tls_step_name(enum tls_step step);
/* An alert's number in words: "bad certificate". */
const char *tls_alert_text(uint8_t alert);

enum { TLS_NO_ALERT = 255 };

struct tls_failure {
    enum tls_step step;
    enum x509_verdict verdict;
    uint8_t alert_sent, alert_received; /* TLS_NO_ALERT: none */
    char shown_id[256];                 /* what the peer's certificate says, cut; may be empty */
    int64_t shown_not_before_s, shown_not_after_s; /* of the peer's leaf; 0: none seen */
    struct err err;                                /* for people */
};

/* --- streams ---------------------------------------------------------------------------------- */
/* Who the verified peer is. */
struct tls_peer {
    int64_t not_after_s; /* the earliest of its chain */
    char serial[48];
    uint8_t cert_sha256[32];
    size_t id_len;
    char id[]; /* NUL-terminated */
};

struct tls_stream {
    struct stream base; /* first: its operations get a struct stream */
    struct tls_worker *worker;
    SSL *ssl;                       /* owned */
    const struct x509_trust *trust; /* lent, while the handshake runs */
    const struct str *expected;     /* lent likewise; client only: any of these */
    size_t n_expected;
    const struct deny_set *deny; /* lent likewise; NULL: nobody is quarantined */
    struct tls_peer *peer;       /* owned; set when verified */
    struct tls_failure *failure; /* owned; set when something failed that has a story */
    const uint8_t *in;           /* ciphertext that OpenSSL has not taken yet */
    size_t in_len;
    struct buf rest; /* the same, kept between calls: what came behind the handshake */
    bool started, established;
    uint8_t alert_sent, alert_received;
};

/* Take fd in any case; -1: no memory (the fd is then closed by stream_deinit as usual). */
int tls_stream_init_server(struct tls_stream *s, struct tls_worker *w, const struct tls_ctx *ctx,
                           const struct x509_trust *trust, int fd);
int tls_stream_init_client(struct tls_stream *s, struct tls_worker *w, const struct tls_ctx *ctx,
                           const struct x509_trust *trust, const struct str *expected,
                           size_t n_expected, int fd);

/* Goes on with the handshake: STREAM_OK (done, peer is set), STREAM_AGAIN (wait for readable; and
 * for writable if stream_blocked), STREAM_FAILED (failure is set; an alert may still be in `out`
 * or on its way, so close in order). Not called again after OK or FAILED. */
enum stream_outcome tls_handshake(struct tls_stream *s);

/* Judges the peer of an established stream again, against `trust`: false if its chain leads to no
 * authority there any more. Expiry is not asked about: it was judged at the handshake. */
bool tls_peer_still_trusted(const struct tls_stream *s, const struct x509_trust *trust);

/* "TLSv1.3" and "TLS_AES_128_GCM_SHA256", once established; else NULL. */
const char *tls_version(const struct tls_stream *s);
const char *tls_suite(const struct tls_stream *s);

#endif
