/*
 * P-256 keys by the thousand: a random number below the order, its point, and both as PKCS#8, whose
 * form never changes. The number is in the caller's memory, and in one BIGNUM that is wiped.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <stdlib.h>

enum { SCALAR_LEN = 32 };

struct x509_keygen {
    EC_GROUP *group;
    EC_POINT *point;
    BN_CTX *bn;
};

/* PrivateKeyInfo { 0, { id-ecPublicKey, prime256v1 }, OCTET STRING { ECPrivateKey { 1, the number,
 */
static const uint8_t HEAD[] = {0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06,
                               0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                               0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
                               0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20};
/* [1] BIT STRING: the point } } } */
static const uint8_t BEFORE_POINT[] = {0xa1, 0x44, 0x03, 0x42, 0x00};
_Static_assert(sizeof(HEAD) + SCALAR_LEN + sizeof(BEFORE_POINT) + X509_POINT_LEN == X509_PKCS8_LEN,
               "the form has another size");

struct x509_keygen *x509_keygen_new(struct err *err)
{
    struct x509_keygen *g = mem_must_new(struct x509_keygen);
    ERR_clear_error();
    g->group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    g->point = g->group != NULL ? EC_POINT_new(g->group) : NULL;
    g->bn = BN_CTX_new();
    if (g->point == NULL || g->bn == NULL) {
        x509_err_crypto(err, "the curve P-256");
        return x509_keygen_free(g);
    }
    return g;
}

struct x509_keygen *x509_keygen_free(struct x509_keygen *g)
{
    if (g != NULL) {
        EC_POINT_clear_free(g->point);
        EC_GROUP_free(g->group);
        BN_CTX_free(g->bn);
        free(g);
    }
    return NULL;
}

/* From 1 to the order less 1, each as likely. */
static bool choose(const struct x509_keygen *g, BIGNUM *ret)
{
    const BIGNUM *order = EC_GROUP_get0_order(g->group);
    BN_set_flags(ret, BN_FLG_CONSTTIME);
    do {
        if (BN_priv_rand_range(ret, order) != 1) {
            return false;
        }
    } while (BN_is_zero(ret));
    return true;
}

int x509_keygen_make(struct x509_keygen *g, uint8_t ret_pkcs8[X509_PKCS8_LEN],
                     uint8_t ret_point[X509_POINT_LEN], struct err *err)
{
    uint8_t *at = ret_pkcs8;
    ERR_clear_error();
    BIGNUM *number = BN_new();
    bool ok = number != NULL && choose(g, number) &&
              EC_POINT_mul(g->group, g->point, number, NULL, NULL, g->bn) == 1 &&
              EC_POINT_point2oct(g->group, g->point, POINT_CONVERSION_UNCOMPRESSED, ret_point,
                                 X509_POINT_LEN, g->bn) == X509_POINT_LEN;
    memcpy(at, HEAD, sizeof(HEAD));
    at += sizeof(HEAD);
    ok = ok && BN_bn2binpad(number, at, SCALAR_LEN) == SCALAR_LEN;
    BN_clear_free(number);
    if (!ok) {
        mem_wipe(ret_pkcs8, X509_PKCS8_LEN);
        return x509_err_crypto(err, "cannot make a P-256 key");
    }
    at += SCALAR_LEN;
    memcpy(at, BEFORE_POINT, sizeof(BEFORE_POINT));
    memcpy(at + sizeof(BEFORE_POINT), ret_point, X509_POINT_LEN);
    return 0;
}
