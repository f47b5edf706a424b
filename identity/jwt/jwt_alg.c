/* The algorithms of JWT-SVID.md section 2.1, by one table (RFC 7518 section 3.1). */
#include "jwt_priv.h"

#include <openssl/err.h>
#include <string.h>

static const struct jwt_alg_info ALGS[JWT_N_ALGS] = {
    [JWT_RS256] = {"RS256", JWT_KIND_RSA, "SHA256", NULL, NULL, 0},
    [JWT_RS384] = {"RS384", JWT_KIND_RSA, "SHA384", NULL, NULL, 0},
    [JWT_RS512] = {"RS512", JWT_KIND_RSA, "SHA512", NULL, NULL, 0},
    [JWT_ES256] = {"ES256", JWT_KIND_EC, "SHA256", "P-256", "prime256v1", 32},
    [JWT_ES384] = {"ES384", JWT_KIND_EC, "SHA384", "P-384", "secp384r1", 48},
    [JWT_ES512] = {"ES512", JWT_KIND_EC, "SHA512", "P-521", "secp521r1", 66},
    [JWT_PS256] = {"PS256", JWT_KIND_RSA_PSS, "SHA256", NULL, NULL, 0},
    [JWT_PS384] = {"PS384", JWT_KIND_RSA_PSS, "SHA384", NULL, NULL, 0},
    [JWT_PS512] = {"PS512", JWT_KIND_RSA_PSS, "SHA512", NULL, NULL, 0},
};

const struct jwt_alg_info *jwt_alg_info(enum jwt_alg alg)
{
    return &ALGS[alg];
}

const char *jwt_alg_name(enum jwt_alg alg)
{
    return alg < JWT_N_ALGS ? ALGS[alg].name : "none";
}

bool jwt_alg_find(struct str name, enum jwt_alg *ret)
{
    for (unsigned i = 0; i < JWT_N_ALGS; i++) {
        if (str_eq(name, str_of(ALGS[i].name))) {
            *ret = (enum jwt_alg)i;
            return true;
        }
    }
    return false;
}

bool jwt_group_of(EVP_PKEY *key, char *ret, size_t size)
{
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
           EVP_PKEY_get_group_name(key, ret, size, NULL) == 1;
}

int jwt_err_crypto(struct err *err, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());

    ERR_clear_error();
    return err_set(err, ERR_CRYPTO, "%s: %s", what, reason != NULL ? reason : "libcrypto refused");
}
