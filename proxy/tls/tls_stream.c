/* TLS as a stream: handshake, reading, writing, ending. */
#include <postern/tls.h>

#include "tls_priv.h"

#include <errno.h>
#include <openssl/err.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

static struct tls_stream *tls_of(struct stream *s)
{
    return (struct tls_stream *)s;
}

/* Sends what OpenSSL has sealed. */
static enum stream_outcome send_sealed(struct tls_stream *s)
{
    struct net_scratch *scratch = s->worker->scratch;
    size_t n = scratch->sealed_len;
    scratch->sealed_len = 0;
    return n > 0 ? stream_send(&s->base, scratch->sealed, n) : STREAM_OK;
}

/* Gives OpenSSL something to read: what was kept back, else one recv into the worker's scratch. */
static enum stream_outcome fill(struct tls_stream *s, size_t most)
{
    if (s->rest.len > 0) {
        s->in = buf_head(&s->rest);
        s->in_len = buf_len(&s->rest);
        return STREAM_OK;
    }
    size_t n = 0;
    enum stream_outcome o = stream_recv(&s->base, s->worker->scratch->raw, most, &n);
    if (o == STREAM_OK) {
        s->in = s->worker->scratch->raw;
        s->in_len = n;
    }
    return o;
}

/* Keeps what OpenSSL has not taken, for the next call: the scratch belongs to others meanwhile. */
static bool keep_rest(struct tls_stream *s)
{
    bool ok = true;
    if (s->rest.len > 0) {
        buf_consume(&s->rest, buf_len(&s->rest) - s->in_len);
    } else if (s->in_len > 0) {
        ok = buf_append(&s->rest, s->in, s->in_len);
    }
    if (s->rest.len == 0) {
        buf_reset(&s->rest);
    }
    s->in = NULL;
    s->in_len = 0;
    return ok;
}

static enum stream_outcome fail(struct tls_stream *s, bool peer_gone)
{
    tls_explain(s, peer_gone);
    s->base.failed = true;
    s->base.broken = false;
    return STREAM_FAILED;
}

enum stream_outcome tls_handshake(struct tls_stream *s)
{
    if (s->started || SSL_is_server(s->ssl) == 1) { /* a client's first flight needs no input */
        enum stream_outcome o = fill(s, NET_READ_MIN);
        if (o != STREAM_OK) {
            return o == STREAM_AGAIN ? o : fail(s, true);
        }
    }
    s->started = true;
    ERR_clear_error();
    int r = SSL_do_handshake(s->ssl);
    int why = r == 1 ? SSL_ERROR_NONE : SSL_get_error(s->ssl, r);
    if (r == 1) {
        s->established = true;
        if (s->peer == NULL && s->party->peers == NULL) {
            s->peer = tls_peer_new_unknown();
        }
        if (!tls_resume_finish(s) || s->peer == NULL) {
            s->worker->scratch->sealed_len = 0;
            r = -1; /* cannot be: the verify callback ran or the handshake failed */
            why = SSL_ERROR_SSL;
        }
    }
    bool kept = keep_rest(s);
    if (r != 1 && why != SSL_ERROR_WANT_READ) {
        tls_explain(s, false); /* before the queue is touched again */
    }
    enum stream_outcome sent = send_sealed(s);
    if (r != 1 && why != SSL_ERROR_WANT_READ) {
        return fail(s, false);
    }
    if (sent == STREAM_FAILED || !kept) {
        return fail(s, true);
    }
    return r == 1 ? STREAM_OK : STREAM_AGAIN;
}

/* Before a call whose failure is read from the queue. Mostly it is empty, which is a sixth of the
 * work to see: OpenSSL empties all its places whether something is there or not. */
static void forget_errors(void)
{
    if (ERR_peek_error() != 0) {
        ERR_clear_error();
    }
}

/* What SSL_read said when it gave no bytes. */
static enum stream_outcome read_outcome(struct tls_stream *s, int r)
{
    int why = SSL_get_error(s->ssl, r);
    if (why == SSL_ERROR_WANT_READ) {
        return STREAM_AGAIN;
    }
    if (why == SSL_ERROR_ZERO_RETURN) {
        return STREAM_EOF;
    }
    return fail(s, false);
}

static enum stream_outcome tls_read(struct stream *base, uint8_t *dst, size_t cap, size_t *ret_n)
{
    struct tls_stream *s = tls_of(base);
    if (base->failed && !base->broken) {
        return STREAM_FAILED;
    }
    if (base->eof || (SSL_get_shutdown(s->ssl) & SSL_RECEIVED_SHUTDOWN) != 0) {
        base->eof = true; /* told once all bytes before it were handed out */
        return STREAM_EOF;
    }
    enum stream_outcome o = STREAM_OK;
    if (SSL_pending(s->ssl) == 0 || s->rest.len > 0) {
        /* No more than fits decrypted; for a small reader a whole record, the rest is kept. */
        size_t most = cap < NET_READ_MIN ? NET_READ_MIN : cap;
        o = fill(s, most < base->read_size ? most : base->read_size);
        if (o == STREAM_EOF) {
            /* No close_notify came before the FIN: someone may have cut the stream short. */
            base->truncated = true;
            o = STREAM_FAILED;
        }
        if (o == STREAM_FAILED) {
            base->failed = true;
            base->broken = false; /* nothing more can be read of it */
        }
        if (o != STREAM_OK) {
            return o;
        }
    }
    forget_errors();
    size_t n = 0;
    while (n < cap) {
        size_t got = 0;
        int r = SSL_read_ex(s->ssl, dst + n, cap - n, &got);
        if (r != 1) {
            o = read_outcome(s, r);
            break;
        }
        n += got;
        if (s->in_len == 0 && n < cap) {
            break; /* all that came is decrypted: asking again would only say "no more" */
        }
    }
    bool kept = keep_rest(s);
    (void)send_sealed(s); /* an answer of TLS that nobody takes: the bytes count all the same */
    if (!kept || (base->failed && !base->broken)) {
        base->failed = true;
        base->broken = false;
        return STREAM_FAILED;
    }
    if (n > 0) {
        base->bytes_read += n;
        *ret_n = n;
        return STREAM_OK; /* an end behind the bytes is told by the next call */
    }
    base->eof = o == STREAM_EOF;
    return o == STREAM_OK ? STREAM_AGAIN : o;
}

enum {
    SMALL_RECORD = 1300,     /* one segment, with its header and any tunnel's around it */
    SMALL_BYTES = 16 * 1024, /* about what a connection may send before it is answered */
    SMALL_AFTER_MS = 1000,   /* a flow that rested begins anew, as its congestion window does */
};

/* A record is of use to its reader when all of it is there. While a flow begins, and segments come
 * one by one, small ones let it begin to read; later, large ones cost less. */
static size_t record_size(struct tls_stream *s, size_t n)
{
    if (s->small_left == 0) {
        return n; /* OpenSSL makes 16 KiB of it */
    }
    size_t size = n < SMALL_RECORD ? n : SMALL_RECORD;
    s->small_left -= size < s->small_left ? (uint32_t)size : s->small_left;
    return size;
}

static enum stream_outcome tls_write(struct stream *base, const uint8_t *src, size_t n)
{
    struct tls_stream *s = tls_of(base);
    if (n == 0) {
        return STREAM_OK;
    }
    uint64_t now_ms = os_now_ms();
    if (now_ms - s->wrote_ms >= SMALL_AFTER_MS) {
        s->small_left = SMALL_BYTES;
    }
    s->wrote_ms = now_ms;
    forget_errors();
    for (size_t done = 0, taken = 0; done < n; done += taken) {
        size_t size = record_size(s, n - done);
        if (SSL_write_ex(s->ssl, src + done, size, &taken) != 1 || taken != size) {
            s->worker->scratch->sealed_len = 0;
            return fail(s, false);
        }
    }
    base->bytes_written += n;
    return send_sealed(s);
}

static enum stream_outcome tls_shut(struct stream *base)
{
    struct tls_stream *s = tls_of(base);
    base->shut_done = true;
    if (!s->established || base->failed) {
        return STREAM_OK;
    }
    ERR_clear_error();
    (void)SSL_shutdown(s->ssl); /* 0 or 1: sent; the peer's own end is what tls_read reports */
    return send_sealed(s);
}

static bool tls_has_input(const struct stream *base)
{
    const struct tls_stream *s = (const struct tls_stream *)base;
    if (base->eof || !s->established) {
        return false;
    }
    return (base->failed && !base->broken) || s->rest.len > 0 || SSL_pending(s->ssl) > 0 ||
           (SSL_get_shutdown(s->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
}

static void tls_deinit(struct stream *base)
{
    struct tls_stream *s = tls_of(base);
    SSL_free(s->ssl);
    s->ssl = NULL;
    buf_reset(&s->rest);
    s->peer = tls_peer_unref(s->peer);
    s->resume = tls_resume_free(s->resume);
    free(s->failure);
    s->failure = NULL;
}

static const struct stream_ops TLS_OPS = {
    .name = "tls",
    .read = tls_read,
    .write = tls_write,
    .shut = tls_shut,
    .has_input = tls_has_input,
    .deinit = tls_deinit,
};

static int init(struct tls_stream *s, struct tls_worker *w, SSL_CTX *ctx, int fd)
{
    *s = (struct tls_stream){.worker = w,
                             .rest = BUF_INIT(NET_SCRATCH_SIZE),
                             .alert_sent = TLS_NO_ALERT,
                             .alert_received = TLS_NO_ALERT};
    stream_plain_init(&s->base, w->scratch, fd);
    s->base.ops = &TLS_OPS;
    s->ssl = SSL_new(ctx);
    BIO *bio = s->ssl != NULL ? tls_bio_new(w, s) : NULL;
    if (bio == NULL) {
        return -1;
    }
    SSL_set_bio(s->ssl, bio, bio);
    SSL_set_app_data(s->ssl, s);
    return 0;
}

int tls_stream_init_server(struct tls_stream *s, struct tls_worker *w,
                           const struct tls_party *party, int fd)
{
    POSTERN_ASSERT(party->server);
    if (init(s, w, party->ctx[0], fd) == -1) {
        return -1;
    }
    s->party = party;
    SSL_set_accept_state(s->ssl);
    return 0;
}

int tls_stream_init_client(struct tls_stream *s, struct tls_worker *w,
                           const struct tls_party *party, const struct str *expected,
                           size_t n_expected, int fd)
{
    POSTERN_ASSERT(!party->server);
    if (init(s, w, party->ctx[0], fd) == -1) {
        return -1;
    }
    s->party = party;
    s->expected = n_expected > 0 ? expected : party->expected;
    s->n_expected = n_expected > 0 ? n_expected : party->n_expected;
    SSL_set_connect_state(s->ssl);
    return party->server_name == NULL || SSL_set_tlsext_host_name(s->ssl, party->server_name) == 1
               ? 0
               : -1;
}

bool tls_stream_rebase(struct tls_stream *s, const struct tls_party *party)
{
    bool asks = SSL_get_verify_mode(s->ssl) != SSL_VERIFY_NONE; /* as it began */
    if (asks != (party->peers != NULL)) {
        return false;
    }
    s->party = party;
    s->expected = party->expected;
    s->n_expected = party->n_expected;
    return true;
}

bool tls_offer_alpn(struct tls_stream *s, struct str protocol)
{
    uint8_t wire[1 + 255];
    if (protocol.n == 0 || protocol.n > 255) {
        return false;
    }
    wire[0] = (uint8_t)protocol.n;
    memcpy(wire + 1, protocol.p, protocol.n);
    return SSL_set_alpn_protos(s->ssl, wire, (unsigned)protocol.n + 1) == 0;
}

void tls_take_http(struct tls_stream *s)
{
    s->alpn_http = true;
}

void tls_require_alpn(struct tls_stream *s, const struct str *protocol)
{
    POSTERN_ASSERT(protocol->n > 0 && protocol->n <= 255);
    s->alpn_only = protocol;
}

bool tls_feed(struct tls_stream *s, const uint8_t *bytes, size_t n)
{
    return buf_append(&s->rest, bytes, n);
}

const char *tls_version(const struct tls_stream *s)
{
    return s->established ? SSL_get_version(s->ssl) : NULL;
}

const char *tls_suite(const struct tls_stream *s)
{
    return s->established ? SSL_CIPHER_get_name(SSL_get_current_cipher(s->ssl)) : NULL;
}

struct str tls_alpn(const struct tls_stream *s)
{
    const unsigned char *p = NULL;
    unsigned n = 0;
    if (s->ssl != NULL) {
        SSL_get0_alpn_selected(s->ssl, &p, &n);
    }
    return (struct str){(const char *)p, n};
}

struct str tls_server_name(const struct tls_stream *s)
{
    return s->ssl != NULL ? str_of(SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name))
                          : STR_NONE;
}

X509 *tls_peer_certificate(const struct tls_stream *s)
{
    return s->ssl != NULL ? SSL_get0_peer_certificate(s->ssl) : NULL;
}
