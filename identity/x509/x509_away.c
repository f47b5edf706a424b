/*
 * Certificates of an authority whose key is not here (a token's). The statement is made as any
 * other, under a stand-in's signature that nobody sees; then the signature of the real key takes
 * its place.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>

enum { HALF_LEN = 32, DER_HEAD_MAX = 4 };

MEM_DEFINE_CLEANUP(ECDSA_SIG, ECDSA_SIG_free)

/* ecdsa-with-SHA256, as AlgorithmIdentifier: without parameters (RFC 5758). */
static const uint8_t ALGORITHM[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                    0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};

/* --- the statement ---------------------------------------------------------------------------- */
/* What x509_issue wants of an issuer: its names. */
static int issuer_stub(const struct x509_issue *what, const uint8_t *point, EVP_PKEY *stand_in,
                       X509 **ret, struct err *err)
{
    struct x509_issue root = {.spiffe_id = what->spiffe_id,
                              .point = point,
                              .ca = true,
                              .path_len = -1,
                              .not_before_s = what->not_before_s,
                              .not_after_s = what->not_after_s};

    return x509_issue_with(&root, NULL, stand_in, ret, err);
}

static int statement(const struct x509_issue *what, const uint8_t *issuer_point,
                     unsigned char **ret, int *ret_len, struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *stand_in = x509_key_new(err);
    mem_auto(X509_free) X509 *issuer = NULL;
    mem_auto(X509_free) X509 *cert = NULL;
    bool self = memcmp(issuer_point, what->point, X509_POINT_LEN) == 0;

    if (stand_in == NULL ||
        (!self && issuer_stub(what, issuer_point, stand_in, &issuer, err) == -1) ||
        x509_issue_with(what, issuer, stand_in, &cert, err) == -1) {
        return -1;
    }
    *ret = NULL;
    *ret_len = i2d_re_X509_tbs(cert, ret);
    return *ret_len > 0 ? 0 : x509_err_crypto(err, "certificate to DER");
}

/* --- the signature ---------------------------------------------------------------------------- */
static int signature(const uint8_t rs[2 * HALF_LEN], unsigned char **ret, int *ret_len,
                     struct err *err)
{
    mem_auto(ECDSA_SIG_free) ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(rs, HALF_LEN, NULL), *s = BN_bin2bn(rs + HALF_LEN, HALF_LEN, NULL);

    if (sig == NULL || r == NULL || s == NULL || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        return x509_err_crypto(err, "signature to DER");
    }
    *ret = NULL;
    *ret_len = i2d_ECDSA_SIG(sig, ret);
    return *ret_len > 0 ? 0 : x509_err_crypto(err, "signature to DER");
}

/* --- putting together ------------------------------------------------------------------------- */
/* Tag and length, of at most 65535; returns how many bytes that took. */
static size_t put_head(uint8_t *p, uint8_t tag, size_t len)
{
    size_t n = 0;

    p[n++] = tag;
    if (len >= 256) {
        p[n++] = 0x82;
        p[n++] = (uint8_t)(len >> 8);
    } else if (len >= 128) {
        p[n++] = 0x81;
    }
    p[n++] = (uint8_t)len;
    return n;
}

/* Certificate { statement, algorithm, BIT STRING { no unused bits, signature } } */
static X509 *assemble(const uint8_t *tbs, size_t tbs_len, const uint8_t *sig, size_t sig_len,
                      struct err *err)
{
    uint8_t bits[DER_HEAD_MAX], head[DER_HEAD_MAX];
    size_t n_bits = put_head(bits, 0x03, sig_len + 1);
    size_t len = tbs_len + sizeof(ALGORITHM) + n_bits + 1 + sig_len;
    size_t n_head = put_head(head, 0x30, len);
    uint8_t *der = mem_must_calloc(1, n_head + len), *p = der;
    const unsigned char *in = der;
    X509 *cert;

    memcpy(p, head, n_head);
    p += n_head;
    memcpy(p, tbs, tbs_len);
    p += tbs_len;
    memcpy(p, ALGORITHM, sizeof(ALGORITHM));
    p += sizeof(ALGORITHM);
    memcpy(p, bits, n_bits);
    p += n_bits;
    *p++ = 0;
    memcpy(p, sig, sig_len);
    cert = d2i_X509(NULL, &in, (long)(n_head + len));
    free(der);
    if (cert == NULL) {
        x509_err_crypto(err, "cannot make a certificate");
    }
    return cert;
}

static int sign_statement(const struct x509_away *issuer, EVP_PKEY *key, const unsigned char *tbs,
                          int tbs_len, X509 **ret, struct err *err)
{
    uint8_t hash[EVP_MAX_MD_SIZE] = {0}, rs[2 * HALF_LEN] = {0};
    mem_auto(X509_free) X509 *cert = NULL;
    unsigned char *sig = NULL;
    int sig_len = 0;

    if (tbs_len > UINT16_MAX - 256) {
        return err_set(err, ERR_LIMIT, "a certificate of %d bytes", tbs_len);
    }
    if (EVP_Digest(tbs, (size_t)tbs_len, hash, NULL, EVP_sha256(), NULL) != 1) {
        return x509_err_crypto(err, "SHA-256");
    }
    if (issuer->sign(issuer->arg, hash, rs, err) == -1 ||
        signature(rs, &sig, &sig_len, err) == -1) {
        return -1;
    }
    cert = assemble(tbs, (size_t)tbs_len, sig, (size_t)sig_len, err);
    OPENSSL_free(sig);
    if (cert == NULL) {
        return -1;
    }
    if (X509_verify(cert, key) != 1) {
        return x509_err_crypto(err, "the signature is not that key's");
    }
    *ret = cert;
    cert = NULL;
    return 0;
}

bool x509_signed_by_point(X509 *cert, const uint8_t point[X509_POINT_LEN])
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = x509_key_of_point(point, NULL);
    bool ok = key != NULL && X509_verify(cert, key) == 1;

    ERR_clear_error();
    return ok;
}

int x509_issue_away(const struct x509_issue *what, const struct x509_away *issuer, X509 **ret,
                    struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    unsigned char *tbs = NULL;
    int tbs_len = 0, r;

    if (!what->ca) {
        return err_set(err, ERR_USAGE, "a key that is not here signs authorities alone");
    }
    key = x509_key_of_point(issuer->point, err);
    if (key == NULL || statement(what, issuer->point, &tbs, &tbs_len, err) == -1) {
        return -1;
    }
    r = sign_statement(issuer, key, tbs, tbs_len, ret, err);
    OPENSSL_free(tbs);
    return r;
}
