/* What a verified path says besides yes: its time, and the keys that vouch for the leaf. */
#include <postern/x509.h>

#include "x509_priv.h"

static bool key_id(X509 *cert, struct x509_key_id *ret)
{
    unsigned char *der = NULL;
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    bool ok = n > 0 && EVP_Digest(der, (size_t)n, ret->sha256, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return ok;
}

bool x509_path_read(STACK_OF(X509) * path, struct x509_peer *ret)
{
    ret->not_before_s = INT64_MIN;
    ret->not_after_s = INT64_MAX;
    ret->n_issuers = 0;
    for (int i = 0; i < sk_X509_num(path); i++) {
        X509 *cert = sk_X509_value(path, i);
        int64_t begin_s = x509_not_before_s(cert), end_s = x509_not_after_s(cert);
        ret->not_before_s = begin_s > ret->not_before_s ? begin_s : ret->not_before_s;
        ret->not_after_s = end_s < ret->not_after_s ? end_s : ret->not_after_s;
        if (i > 0 &&
            (ret->n_issuers == X509_ISSUERS_MAX || !key_id(cert, &ret->issuers[ret->n_issuers]))) {
            return false;
        }
        ret->n_issuers += i > 0 ? 1 : 0;
    }
    return true;
}
