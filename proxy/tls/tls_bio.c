/*
 * The BIO between OpenSSL and our buffers. Reading takes from what the stream has received; an
 * empty input is "retry". Writing appends to the worker's `sealed` buffer, which the stream sends
 * in one go and empties before it returns: no other stream ever finds anything in it.
 */
#include <postern/tls.h>

#include "tls_priv.h"

#include <string.h>

static int bio_read(BIO *bio, char *out, size_t n, size_t *ret_n)
{
    struct tls_stream *s = (struct tls_stream *)BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (s->in_len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t take = s->in_len < n ? s->in_len : n;
    memcpy(out, s->in, take);
    s->in += take;
    s->in_len -= take;
    *ret_n = take;
    return 1;
}

static int bio_write(BIO *bio, const char *src, size_t n, size_t *ret_n)
{
    struct tls_stream *s = (struct tls_stream *)BIO_get_data(bio);
    struct net_scratch *scratch = s->worker->scratch;
    BIO_clear_retry_flags(bio);
    if (n > NET_SEALED_SIZE - scratch->sealed_len) {
        return 0; /* more than one write's worth: the stream fails */
    }
    memcpy(scratch->sealed + scratch->sealed_len, src, n);
    scratch->sealed_len += n;
    *ret_n = n;
    return 1;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    (void)bio;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

int tls_worker_init(struct tls_worker *w, struct net_scratch *scratch, struct err *err)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "postern scratch");
    if (m == NULL || BIO_meth_set_read_ex(m, bio_read) != 1 ||
        BIO_meth_set_write_ex(m, bio_write) != 1 || BIO_meth_set_ctrl(m, bio_ctrl) != 1) {
        BIO_meth_free(m);
        return err_set(err, ERR_CRYPTO, "no memory for TLS");
    }
    struct tls_chains *chains = tls_chains_new();
    if (chains == NULL) {
        BIO_meth_free(m);
        return err_set(err, ERR_SYSTEM, "no memory for TLS");
    }
    *w = (struct tls_worker){.scratch = scratch, .method = m, .chains = chains};
    return 0;
}

void tls_worker_deinit(struct tls_worker *w)
{
    BIO_meth_free(w->method);
    w->method = NULL;
    tls_worker_forget_sessions(w);
    w->chains = tls_chains_free(w->chains);
}

BIO *tls_bio_new(struct tls_worker *w, struct tls_stream *s)
{
    BIO *bio = BIO_new(w->method);
    if (bio != NULL) {
        BIO_set_data(bio, s);
        BIO_set_init(bio, 1);
    }
    return bio;
}
