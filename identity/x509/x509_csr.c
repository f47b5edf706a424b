/*
 * Certificate requests. A request of ours states nothing but its key, and of a stranger's request
 * nothing but its key is believed: the names come from the entries.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/err.h>
#include <stdlib.h>

enum { CSR_MAX = 4096 };

MEM_DEFINE_CLEANUP(X509_REQ, X509_REQ_free)

/* A P-256 key is put into its place as the point that it is. X509_REQ_set_pubkey() would have
 * libcrypto make a method of every encoder that it knows, which a process keeps for good. */
static bool set_key(X509_REQ *req, EVP_PKEY *key)
{
    uint8_t point[X509_POINT_LEN];
    if (x509_key_point(key, point, NULL) == -1) {
        return X509_REQ_set_pubkey(req, key) == 1;
    }
    unsigned char *copy = OPENSSL_memdup(point, sizeof(point));
    if (copy == NULL ||
        X509_PUBKEY_set0_param(X509_REQ_get_X509_PUBKEY(req), OBJ_nid2obj(NID_X9_62_id_ecPublicKey),
                               V_ASN1_OBJECT, OBJ_nid2obj(NID_X9_62_prime256v1), copy,
                               sizeof(point)) != 1) {
        OPENSSL_free(copy);
        return false;
    }
    return true;
}

int x509_csr_new(EVP_PKEY *key, uint8_t **ret, size_t *ret_len, struct err *err)
{
    ERR_clear_error();
    mem_auto(X509_REQ_free) X509_REQ *req = X509_REQ_new();
    if (req == NULL || X509_REQ_set_version(req, X509_REQ_VERSION_1) != 1 || !set_key(req, key) ||
        X509_REQ_sign(req, key, EVP_sha256()) == 0) {
        return x509_err_crypto(err, "cannot make a certificate request");
    }
    int len = i2d_X509_REQ(req, NULL);
    if (len <= 0) {
        return x509_err_crypto(err, "certificate request to DER");
    }
    uint8_t *der = mem_must_calloc(1, (size_t)len);
    unsigned char *p = der;
    if (i2d_X509_REQ(req, &p) != len) {
        free(der);
        return x509_err_crypto(err, "certificate request to DER");
    }
    *ret = der;
    *ret_len = (size_t)len;
    return 0;
}

int x509_csr_check(struct str der, uint8_t ret_point[65], struct err *err)
{
    uint8_t point[X509_POINT_LEN];
    const unsigned char *p = (const unsigned char *)der.p;
    if (der.n == 0 || der.n > CSR_MAX) {
        return err_set(err, ERR_LIMIT, "a certificate request of %zu bytes; 1 to %d are read",
                       der.n, (int)CSR_MAX);
    }
    ERR_clear_error();
    mem_auto(X509_REQ_free) X509_REQ *req = d2i_X509_REQ(NULL, &p, (long)der.n);
    if (req == NULL) {
        return x509_err_crypto(err, "the certificate request is not PKCS#10");
    }
    if (p != (const unsigned char *)der.p + der.n) {
        return err_set(err, ERR_PROTOCOL, "bytes left over after the certificate request");
    }
    EVP_PKEY *key = X509_REQ_get0_pubkey(req);
    if (key == NULL) {
        return x509_err_crypto(err, "the certificate request's key cannot be used");
    }
    if (x509_key_point(key, point, err) == -1) {
        return err_prefix(err, "certificate request");
    }
    if (X509_REQ_verify(req, key) != 1) {
        x509_err_crypto(err, "the certificate request is not signed by its own key");
        return -1;
    }
    memcpy(ret_point, point, sizeof(point));
    return 0;
}
