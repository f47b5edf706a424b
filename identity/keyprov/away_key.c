/* The provider itself, in a library context of its own, and making a key with it. */
#include <postern/away_key.h>

#include "keyprov_priv.h"
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/provider.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

struct away_keys {
    OSSL_LIB_CTX *ctx;   /* owned */
    OSSL_PROVIDER *prov; /* owned */
};

static const OSSL_ALGORITHM KEYMGMTS[] = {
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", KEYPROV_PROPERTY, keyprov_ec_keymgmt, "EC keys away"},
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", KEYPROV_PROPERTY, keyprov_rsa_keymgmt,
     "RSA keys away"},
    {NULL, NULL, NULL, NULL}};

static const OSSL_ALGORITHM SIGNATURES[] = {
    {KEYPROV_ECDSA, KEYPROV_PROPERTY, keyprov_signature, "ECDSA by a key away"},
    {KEYPROV_RSA, KEYPROV_PROPERTY, keyprov_signature, "RSA by a key away"},
    {NULL, NULL, NULL, NULL}};

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
    (void)provctx;
    *no_cache = 0;
    return operation == OSSL_OP_KEYMGMT     ? KEYMGMTS
           : operation == OSSL_OP_SIGNATURE ? SIGNATURES
                                            : NULL;
}

static void teardown(void *provctx)
{
    (void)provctx;
}

typedef void (*any_fn)(void);
static const OSSL_DISPATCH PROVIDER[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (any_fn)query},
                                         {OSSL_FUNC_PROVIDER_TEARDOWN, (any_fn)teardown},
                                         {0, NULL}};

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                         const OSSL_DISPATCH **out, void **provctx)
{
    (void)in;
    *out = PROVIDER;
    *provctx = (void *)(uintptr_t)handle; /* there is no state; NULL would count as failure */
    return 1;
}

static int failed(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    err_set(err, ERR_CRYPTO, "%s: %s", what, reason != NULL ? reason : "unknown reason");
    ERR_clear_error();
    return -1;
}

struct away_keys *away_keys_new(struct err *err)
{
    struct away_keys *k = mem_must_new(struct away_keys);
    ERR_clear_error();
    k->ctx = OSSL_LIB_CTX_new();
    if (k->ctx == NULL || OSSL_PROVIDER_add_builtin(k->ctx, "postern", provider_init) != 1 ||
        (k->prov = OSSL_PROVIDER_load(k->ctx, "postern")) == NULL) {
        failed(err, "keys that are elsewhere cannot be made known to OpenSSL");
        return away_keys_free(k);
    }
    return k;
}

struct away_keys *away_keys_free(struct away_keys *k)
{
    if (k != NULL) {
        if (k->prov != NULL) {
            (void)OSSL_PROVIDER_unload(k->prov);
        }
        OSSL_LIB_CTX_free(k->ctx);
        free(k);
    }
    return NULL;
}

/* What a token or another process can sign with, and a handshake can use. */
static const char *type_of(EVP_PKEY *key)
{
    char group[32] = "";
    if (EVP_PKEY_is_a(key, "RSA") == 1) {
        return EVP_PKEY_get_bits(key) >= 2048 && EVP_PKEY_get_size(key) <= AWAY_SIGNATURE_MAX
                   ? "RSA"
                   : NULL;
    }
    if (EVP_PKEY_is_a(key, "EC") != 1 ||
        EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) != 1) {
        return NULL;
    }
    return strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0 ||
                   strcmp(group, "secp384r1") == 0 || strcmp(group, "P-384") == 0
               ? "EC"
               : NULL;
}

/* The public half's own parameters, and who signs. */
static EVP_PKEY *make(struct away_keys *k, const char *type, const OSSL_PARAM *public_params,
                      const struct away_signer *signer)
{
    struct keyprov_handle handle = {.signer = signer};
    OSSL_PARAM mine[2] = {
        OSSL_PARAM_construct_octet_string(KEYPROV_PARAM_SIGNER, &handle, sizeof(handle)),
        OSSL_PARAM_construct_end()};
    OSSL_PARAM *all = OSSL_PARAM_merge(public_params, mine);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(k->ctx, type, KEYPROV_PROPERTY);
    EVP_PKEY *key = NULL;
    if (all == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, all) != 1) {
        key = NULL;
    }
    OSSL_PARAM_free(all);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

EVP_PKEY *away_key_new(struct away_keys *k, EVP_PKEY *public_key, const struct away_signer *signer,
                       struct err *err)
{
    const char *type = type_of(public_key);
    OSSL_PARAM *params = NULL;
    if (type == NULL) {
        err_set(err, ERR_UNSUPPORTED, "a key of a kind that cannot be elsewhere");
        err_expected(err, "EC P-256 or P-384, or RSA of 2048 to 8192 bits");
        return NULL;
    }
    ERR_clear_error();
    EVP_PKEY *key = EVP_PKEY_todata(public_key, EVP_PKEY_PUBLIC_KEY, &params) == 1
                        ? make(k, type, params, signer)
                        : NULL;
    OSSL_PARAM_free(params);
    if (key == NULL) {
        failed(err, "a key that is elsewhere cannot be made");
    }
    return key;
}
