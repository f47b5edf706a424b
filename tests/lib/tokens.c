#include "tokens.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIG_MAX = 1024 };

static const struct {
    const char *curve, *crv, *digest;
    int width;
    bool pss;
} ALGS[JWT_N_ALGS] = {
    [JWT_RS256] = {NULL, NULL, "SHA256", 0, false},
    [JWT_RS384] = {NULL, NULL, "SHA384", 0, false},
    [JWT_RS512] = {NULL, NULL, "SHA512", 0, false},
    [JWT_ES256] = {"P-256", "P-256", "SHA256", 32, false},
    [JWT_ES384] = {"P-384", "P-384", "SHA384", 48, false},
    [JWT_ES512] = {"P-521", "P-521", "SHA512", 66, false},
    [JWT_PS256] = {NULL, NULL, "SHA256", 0, true},
    [JWT_PS384] = {NULL, NULL, "SHA384", 0, true},
    [JWT_PS512] = {NULL, NULL, "SHA512", 0, true},
};

EVP_PKEY *tokens_key(enum jwt_alg alg)
{
    EVP_PKEY *key = ALGS[alg].curve != NULL ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", ALGS[alg].curve)
                                            : EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);

    POSTERN_ASSERT(key != NULL);
    return key;
}

/* OpenSSL's own base64, turned into the other alphabet. */
char *tokens_base64(const void *p, size_t n)
{
    char *out = mem_must_calloc(n / 3 * 4 + 8, 1);
    int len = EVP_EncodeBlock((unsigned char *)out, p, (int)n);

    for (int i = 0; i < len; i++) {
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
        if (out[i] == '=') {
            out[i] = '\0';
        }
    }
    return out;
}

static size_t to_raw(const uint8_t *der, size_t n, int width, uint8_t *ret)
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);

    POSTERN_ASSERT(sig != NULL);
    POSTERN_ASSERT(BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret, width) == width);
    POSTERN_ASSERT(BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret + width, width) == width);
    ECDSA_SIG_free(sig);
    return (size_t)width * 2;
}

char *tokens_sign(const char *header, const char *claims, enum jwt_alg alg, EVP_PKEY *key)
{
    char *h = tokens_base64(header, strlen(header));
    char *c = tokens_base64(claims, strlen(claims));
    char *text = mem_must_printf("%s.%s", h, c);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL;
    uint8_t sig[SIG_MAX], raw[SIG_MAX];
    size_t n = sizeof(sig);

    POSTERN_ASSERT(EVP_DigestSignInit_ex(ctx, &pctx, ALGS[alg].digest, NULL, NULL, key, NULL) == 1);
    if (ALGS[alg].pss) {
        POSTERN_ASSERT(EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1);
        POSTERN_ASSERT(EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1);
    }
    POSTERN_ASSERT(EVP_DigestSign(ctx, sig, &n, (const uint8_t *)text, strlen(text)) == 1);
    if (ALGS[alg].width > 0) {
        n = to_raw(sig, n, ALGS[alg].width, raw);
    } else {
        memcpy(raw, sig, n);
    }
    EVP_MD_CTX_free(ctx);
    char *s = tokens_base64(raw, n);
    char *token = mem_must_printf("%s.%s", text, s);
    free(h);
    free(c);
    free(s);
    free(text);
    return token;
}

static char *number(EVP_PKEY *key, const char *param)
{
    BIGNUM *n = NULL;
    uint8_t bytes[SIG_MAX];

    POSTERN_ASSERT(EVP_PKEY_get_bn_param(key, param, &n) == 1);
    int len = BN_bn2bin(n, bytes);
    BN_free(n);
    return tokens_base64(bytes, (size_t)len);
}

static char *members(EVP_PKEY *key)
{
    uint8_t point[200];
    size_t n = 0;
    char *out = NULL;

    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA) {
        char *modulus = number(key, OSSL_PKEY_PARAM_RSA_N);
        char *exponent = number(key, OSSL_PKEY_PARAM_RSA_E);
        out = mem_must_printf("\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\"", modulus, exponent);
        free(modulus);
        free(exponent);
        return out;
    }
    POSTERN_ASSERT(EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point,
                                                   sizeof(point), &n) == 1);
    size_t width = (n - 1) / 2;
    char *x = tokens_base64(point + 1, width);
    char *y = tokens_base64(point + 1 + width, width);
    out = mem_must_printf("\"kty\":\"EC\",\"crv\":\"%s\",\"x\":\"%s\",\"y\":\"%s\"",
                          width == 32   ? "P-256"
                          : width == 48 ? "P-384"
                                        : "P-521",
                          x, y);
    free(x);
    free(y);
    return out;
}

char *tokens_set(EVP_PKEY *const *keys, size_t n, const char *use)
{
    struct buf out = BUF_INIT(1 << 20);

    POSTERN_ASSERT(buf_printf(&out, "{\"keys\":["));
    for (size_t i = 0; i < n; i++) {
        char *m = members(keys[i]);
        POSTERN_ASSERT(buf_printf(&out, "%s{\"kid\":\"k%zu\",%s%s%s%s}", i > 0 ? "," : "", i,
                                  use != NULL ? "\"use\":\"" : "", use != NULL ? use : "",
                                  use != NULL ? "\"," : "", m));
        free(m);
    }
    POSTERN_ASSERT(buf_append(&out, "]}", 2));
    char *text = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    buf_reset(&out);
    return text;
}
