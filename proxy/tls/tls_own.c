/* What a stream has shown of our own. */
#include <postern/tls.h>

int64_t tls_own_not_after_s(const struct tls_stream *s)
{
    X509 *leaf = s->ssl != NULL ? SSL_get_certificate(s->ssl) : NULL;
    STACK_OF(X509) *chain = NULL;
    if (leaf == NULL) {
        return 0;
    }
    int64_t end_s = x509_not_after_s(leaf);
    if (SSL_get0_chain_certs(s->ssl, &chain) == 1) {
        for (int i = 0; i < sk_X509_num(chain); i++) {
            int64_t one_s = x509_not_after_s(sk_X509_value(chain, i));
            end_s = one_s < end_s ? one_s : end_s;
        }
    }
    return end_s;
}

void tls_own_serial(const struct tls_stream *s, char ret[48])
{
    X509 *leaf = s->ssl != NULL ? SSL_get_certificate(s->ssl) : NULL;
    ret[0] = '\0';
    if (leaf != NULL) {
        x509_serial_text(leaf, ret);
    }
}
