/*
 * Keys: ECDSA P-256 of our own; whatever PKCS#8 holds when an agent made the key.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>

MEM_DEFINE_CLEANUP(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
MEM_DEFINE_CLEANUP(PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free)

EVP_PKEY *x509_key_new(struct err *err)
{
    ERR_clear_error();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    if (key == NULL) {
        x509_err_crypto(err, "cannot make a P-256 key");
    }
    return key;
}

int x509_key_to_pkcs8(EVP_PKEY *key, uint8_t **ret, size_t *ret_len, struct err *err)
{
    ERR_clear_error();
    mem_auto(PKCS8_PRIV_KEY_INFO_free) PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    int len = info != NULL ? i2d_PKCS8_PRIV_KEY_INFO(info, NULL) : -1;
    if (len <= 0) {
        return x509_err_crypto(err, "key to PKCS#8");
    }
    uint8_t *der = mem_secret_alloc((size_t)len);
    if (der == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for a key");
    }
    unsigned char *p = der;
    if (i2d_PKCS8_PRIV_KEY_INFO(info, &p) != len) {
        mem_secret_free(der);
        return x509_err_crypto(err, "key to PKCS#8");
    }
    *ret = der;
    *ret_len = (size_t)len;
    return 0;
}

EVP_PKEY *x509_key_from_pkcs8(struct str der, struct err *err)
{
    const unsigned char *p = (const unsigned char *)der.p;
    if (der.n == 0 || der.n > 64 * 1024) {
        err_set(err, ERR_PROTOCOL, "a PKCS#8 key of %zu bytes", der.n);
        return NULL;
    }
    ERR_clear_error();
    mem_auto(PKCS8_PRIV_KEY_INFO_free) PKCS8_PRIV_KEY_INFO *info =
        d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, (long)der.n);
    if (info == NULL) {
        x509_err_crypto(err, "the key is not PKCS#8");
        return NULL;
    }
    if (p != (const unsigned char *)der.p + der.n) {
        err_set(err, ERR_PROTOCOL, "bytes left over after the PKCS#8 key");
        return NULL;
    }
    EVP_PKEY *key = EVP_PKCS82PKEY(info);
    if (key == NULL) {
        x509_err_crypto(err, "the PKCS#8 key cannot be used");
    }
    return key;
}

int x509_key_point(EVP_PKEY *key, uint8_t ret_point[65], struct err *err)
{
    char group[32] = "";
    unsigned char *point = NULL;
    ERR_clear_error();
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
        EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) != 1 ||
        strcmp(group, "prime256v1") != 0) {
        ERR_clear_error();
        err_set(err, ERR_PROTOCOL, "the key is not ECDSA P-256");
        return err_advise(err, "make a key on the curve P-256 (prime256v1)");
    }
    /* Always the uncompressed form, however the key was encoded when it came. */
    size_t len = EVP_PKEY_get1_encoded_public_key(key, &point);
    if (len != X509_POINT_LEN || point[0] != 0x04) {
        OPENSSL_free(point);
        return x509_err_crypto(err, "public key to a point");
    }
    memcpy(ret_point, point, X509_POINT_LEN);
    OPENSSL_free(point);
    return 0;
}

EVP_PKEY *x509_key_of_point(const uint8_t point[X509_POINT_LEN], struct err *err)
{
    EVP_PKEY *key = NULL;
    char group[] = "prime256v1";
    uint8_t copy[X509_POINT_LEN];
    memcpy(copy, point, sizeof(copy));
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group) - 1),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, copy, sizeof(copy)),
        OSSL_PARAM_construct_end(),
    };
    if (point[0] != 0x04) {
        err_set(err, ERR_PROTOCOL, "not an uncompressed point of P-256");
        return NULL;
    }
    ERR_clear_error();
    mem_auto(EVP_PKEY_CTX_free) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        x509_err_crypto(err, "not a point of P-256");
        return NULL;
    }
    return key;
}
