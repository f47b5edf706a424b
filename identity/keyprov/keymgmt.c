/* Keys as OpenSSL wants to see them: a public half that the default provider knows all about, and
 * whom to ask for signatures. A private half is never given out: there is none here. */
#include "keyprov_priv.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct keyprov_key *keyprov_key_ref(struct keyprov_key *k)
{
    (void)atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void keyprov_key_unref(struct keyprov_key *k)
{
    if (k == NULL || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    EVP_PKEY_free(k->public_key);
    if (k->has_signer && k->signer.release != NULL) {
        k->signer.release(k->signer.arg);
    }
    free(k);
}

static void *new_key(bool rsa)
{
    struct keyprov_key *k = (struct keyprov_key *)calloc(1, sizeof(*k));
    if (k != NULL) {
        atomic_init(&k->refs, 1);
        k->rsa = rsa;
    }
    return k;
}

static void *new_ec(void *provctx)
{
    (void)provctx;
    return new_key(false);
}

static void *new_rsa(void *provctx)
{
    (void)provctx;
    return new_key(true);
}

static void free_key(void *key)
{
    keyprov_key_unref((struct keyprov_key *)key);
}

static int has(const void *key, int selection)
{
    const struct keyprov_key *k = (const struct keyprov_key *)key;
    bool ok = k != NULL && k->public_key != NULL;
    return ok && ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 || k->has_signer);
}

static int match(const void *a, const void *b, int selection)
{
    const struct keyprov_key *x = (const struct keyprov_key *)a;
    const struct keyprov_key *y = (const struct keyprov_key *)b;
    (void)selection;
    return x->public_key != NULL && y->public_key != NULL &&
           EVP_PKEY_eq(x->public_key, y->public_key) == 1;
}

/* Public halves of certificates, to compare with, and our own keys. */
static int import(void *key, int selection, const OSSL_PARAM params[])
{
    struct keyprov_key *k = (struct keyprov_key *)key;
    const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, KEYPROV_PARAM_SIGNER);
    struct keyprov_handle handle = {.signer = NULL};
    (void)selection;
    if (k->public_key != NULL) {
        return 0;
    }
    if (p != NULL) {
        if (p->data_type != OSSL_PARAM_OCTET_STRING || p->data_size != sizeof(handle)) {
            return 0;
        }
        memcpy(&handle, p->data, sizeof(handle));
    }
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, k->rsa ? "RSA" : "EC", NULL);
    bool ok = ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
              EVP_PKEY_fromdata(ctx, &k->public_key, EVP_PKEY_PUBLIC_KEY,
                                (OSSL_PARAM *)(uintptr_t)params) == 1;
    EVP_PKEY_CTX_free(ctx);
    if (ok && handle.signer != NULL) {
        k->signer = *handle.signer;
        k->has_signer = true;
    }
    return ok;
}

static int export(void *key, int selection, OSSL_CALLBACK *callback, void *arg)
{
    const struct keyprov_key *k = (const struct keyprov_key *)key;
    OSSL_PARAM *params = NULL;
    if (k->public_key == NULL || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 ||
        EVP_PKEY_todata(k->public_key, EVP_PKEY_PUBLIC_KEY, &params) != 1) {
        return 0;
    }
    int r = callback(params, arg);
    OSSL_PARAM_free(params);
    return r;
}

static const OSSL_PARAM *types(int selection)
{
    static const OSSL_PARAM PUBLIC[] = {OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
                                        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
                                        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
                                        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
                                        OSSL_PARAM_END};
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? PUBLIC : NULL;
}

static const OSSL_PARAM *gettable(void *provctx)
{
    static const OSSL_PARAM PARAMS[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_END};
    (void)provctx;
    return PARAMS;
}

static int get_params(void *key, OSSL_PARAM params[])
{
    const struct keyprov_key *k = (const struct keyprov_key *)key;
    return k->public_key != NULL && EVP_PKEY_get_params(k->public_key, params) == 1;
}

static const char *ec_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? KEYPROV_ECDSA : NULL;
}

static const char *rsa_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? KEYPROV_RSA : NULL;
}

typedef void (*any_fn)(void);
#define KEYMGMT(new_fn, operation_fn)                                                              \
    {                                                                                              \
        {OSSL_FUNC_KEYMGMT_NEW, (any_fn)(new_fn)}, {OSSL_FUNC_KEYMGMT_FREE, (any_fn)free_key},     \
            {OSSL_FUNC_KEYMGMT_HAS, (any_fn)has}, {OSSL_FUNC_KEYMGMT_MATCH, (any_fn)match},        \
            {OSSL_FUNC_KEYMGMT_IMPORT, (any_fn)import},                                            \
            {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, (any_fn)types},                                       \
            {OSSL_FUNC_KEYMGMT_EXPORT, (any_fn) export},                                           \
            {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, (any_fn)types},                                       \
            {OSSL_FUNC_KEYMGMT_GET_PARAMS, (any_fn)get_params},                                    \
            {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (any_fn)gettable},                                 \
            {OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, (any_fn)(operation_fn)},                      \
        {                                                                                          \
            0, NULL                                                                                \
        }                                                                                          \
    }

const OSSL_DISPATCH keyprov_ec_keymgmt[] = KEYMGMT(new_ec, ec_operation);
const OSSL_DISPATCH keyprov_rsa_keymgmt[] = KEYMGMT(new_rsa, rsa_operation);
