/*
 * What the keeper may ask of the signer. Property: whatever is asked for, what comes out is a
 * certificate of an authority of the signer's own trust domain, of that purpose, which the key
 * signed that was asked for, and which lives no longer than it may.
 */
#include "signer_priv.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW_S = 1700000000, ROOT_TTL_S = 864000, NODE_TTL_S = 86400, SLACK_S = 3700 };

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* Stands for the token: one key, made once. */
static int sign(void *arg, const uint8_t sha256[32], uint8_t ret_rs[64], struct err *err)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(arg, NULL);
    uint8_t der[80];
    const uint8_t *p = der;
    size_t len = sizeof(der);
    ECDSA_SIG *sig;

    (void)err;
    require(ctx != NULL && EVP_PKEY_sign_init(ctx) == 1 &&
            EVP_PKEY_sign(ctx, der, &len, sha256, 32) == 1);
    EVP_PKEY_CTX_free(ctx);
    sig = d2i_ECDSA_SIG(NULL, &p, (long)len);
    require(sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret_rs, 32) == 32 &&
            BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret_rs + 32, 32) == 32);
    ECDSA_SIG_free(sig);
    return 0;
}

static void check(X509 *cert, const struct agent_msg_signer_sign *ask)
{
    bool root = ask->purpose == AGENT_SIGNER_ROOT;
    int64_t begin_s = x509_not_before_s(cert), end_s = x509_not_after_s(cert);
    char id[SPIFFE_ID_MAX + 1];
    uint8_t point[AGENT_POINT_SIZE];

    require(x509_get_spiffe_id(cert, id, NULL) == 0 && strcmp(id, "spiffe://own.example") == 0);
    require((X509_get_extension_flags(cert) & EXFLAG_CA) != 0);
    require(X509_get_key_usage(cert) == (KU_KEY_CERT_SIGN | KU_CRL_SIGN));
    require(X509_get_pathlen(cert) == (root ? 1 : 0));
    require(x509_signed_by_point(cert, ask->key));
    require(x509_key_point(X509_get0_pubkey(cert), point, NULL) == 0 &&
            memcmp(point, ask->point, sizeof(point)) == 0);
    require(begin_s < end_s && begin_s >= NOW_S - SLACK_S && begin_s <= NOW_S + SLACK_S);
    require(end_s <= NOW_S + (root ? ROOT_TTL_S : NODE_TTL_S) + SLACK_S);
    require((memcmp(ask->key, ask->point, sizeof(point)) == 0) == root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct signer_rules rules = {.trust_domain_id = "spiffe://own.example",
                                              .root_ttl_s = ROOT_TTL_S,
                                              .node_ttl_s = NODE_TTL_S};
    static EVP_PKEY *key;
    struct agent_msg_signer_sign ask;
    struct x509_away away = {.sign = sign};
    X509 *cert = NULL;
    size_t body = sizeof(ask) - offsetof(struct agent_msg_signer_sign, purpose);
    uint8_t own[AGENT_POINT_SIZE];

    if (size < 1 || size > body + 1) {
        return 0;
    }
    if (key == NULL) {
        key = x509_key_new(NULL);
    }
    require(key != NULL && x509_key_point(key, own, NULL) == 0);
    away.arg = key;
    agent_ipc_init(&ask, AGENT_MSG_SIGNER_SIGN, 1);
    memcpy(&ask.purpose, data + 1, size - 1);
    /* The first byte: which of the two keys is ours, since no input can know it; times near now. */
    if ((data[0] & 1) != 0) {
        memcpy(ask.key, own, sizeof(own));
    }
    if ((data[0] & 2) != 0) {
        memcpy(ask.point, own, sizeof(own));
    }
    if ((data[0] & 4) != 0) {
        ask.not_before_s = NOW_S + ask.not_before_s % 10000;
        ask.not_after_s = NOW_S + ask.not_after_s % (2 * ROOT_TTL_S);
    }
    if (signer_certify(&rules, &ask, NOW_S, &away, &cert, NULL) == 0) {
        check(cert, &ask);
        X509_free(cert);
    }
    ERR_clear_error();
    return 0;
}
