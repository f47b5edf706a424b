/* Signing handshakes with keys in the token: of the configured label, and the public half that the
 * question names. */
#include "tls_priv.h"

#include <stdlib.h>
#include <string.h>

enum { FOUND_MAX = 64, ID_MAX = 64, POINT_MAX = 140 };

/* What a search compares with: the module does not write to it. */
static CK_ATTRIBUTE attribute(CK_ATTRIBUTE_TYPE type, const void *value, size_t len)
{
    CK_ATTRIBUTE a = {.type = type, .ulValueLen = len};

    memcpy(&a.pValue, &value, sizeof(a.pValue));
    return a;
}

static int find(const struct signer_token *t, CK_ATTRIBUTE *template, CK_ULONG n,
                CK_OBJECT_HANDLE *ret, CK_ULONG *ret_n, struct err *err)
{
    CK_RV rv = t->fn->C_FindObjectsInit(t->session, template, n);
    CK_RV end_rv;

    if (rv != CKR_OK) {
        return signer_token_failed(t, "looking for keys", rv, err);
    }
    *ret_n = 0;
    rv = t->fn->C_FindObjects(t->session, ret, FOUND_MAX, ret_n);
    end_rv = t->fn->C_FindObjectsFinal(t->session);
    rv = rv != CKR_OK ? rv : end_rv;
    return rv == CKR_OK ? 0 : signer_token_failed(t, "looking for keys", rv, err);
}

static bool get(const struct signer_token *t, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                void *ret, size_t size, size_t *ret_len)
{
    CK_ATTRIBUTE a = {.type = type, .pValue = ret, .ulValueLen = size};

    if (t->fn->C_GetAttributeValue(t->session, object, &a, 1) != CKR_OK || a.ulValueLen > size) {
        return false;
    }
    *ret_len = a.ulValueLen;
    return true;
}

/* The modulus, or the point without the OCTET STRING that most modules put around it. */
static bool is_public(const struct signer_token *t, CK_OBJECT_HANDLE object, bool rsa,
                      const struct token_question *q)
{
    uint8_t value[TOKEN_PUBLIC_MAX];
    const uint8_t *p = value;
    size_t n = 0;

    if (!get(t, object, rsa ? CKA_MODULUS : CKA_EC_POINT, value, sizeof(value), &n)) {
        return false;
    }
    if (!rsa && n > 2 && n <= POINT_MAX && value[0] == 0x04 && value[1] == n - 2) {
        p += 2;
        n -= 2;
    }
    for (; rsa && n > 0 && p[0] == 0; n--) {
        p++;
    }
    return n == q->public_len && memcmp(p, q->public_key, n) == 0;
}

/* Whether the public object beside a private EC key (which itself does not say) is the one. */
static bool has_public_half(const struct signer_token *t, CK_OBJECT_HANDLE key,
                            const struct token_question *q)
{
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_OBJECT_HANDLE found[FOUND_MAX];
    CK_ULONG n = 0;
    uint8_t id[ID_MAX];
    size_t id_len = 0;

    if (!get(t, key, CKA_ID, id, sizeof(id), &id_len)) {
        return false;
    }
    CK_ATTRIBUTE template[] = {attribute(CKA_CLASS, &class, sizeof(class)),
                               attribute(CKA_ID, id, id_len)};
    if (find(t, template, 2, found, &n, NULL) == -1) {
        return false;
    }
    for (CK_ULONG i = 0; i < n; i++) {
        if (is_public(t, found[i], false, q)) {
            return true;
        }
    }
    return false;
}

static int find_key(const struct signer_token *t, const struct token_question *q,
                    CK_OBJECT_HANDLE *ret, struct err *err)
{
    bool rsa = q->scheme != AWAY_ECDSA;
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_KEY_TYPE type = rsa ? CKK_RSA : CKK_EC;
    CK_OBJECT_HANDLE found[FOUND_MAX];
    CK_ULONG n = 0;
    CK_ATTRIBUTE template[] = {attribute(CKA_CLASS, &class, sizeof(class)),
                               attribute(CKA_KEY_TYPE, &type, sizeof(type)),
                               attribute(CKA_LABEL, t->name.key, strlen(t->name.key))};

    if (find(t, template, 3, found, &n, err) == -1) {
        return -1;
    }
    for (CK_ULONG i = 0; i < n; i++) {
        if (rsa ? is_public(t, found[i], true, q) : has_public_half(t, found[i], q)) {
            *ret = found[i];
            return 0;
        }
    }
    if (n == 1) { /* a token without public objects: the asker proves what it gets */
        *ret = found[0];
        return 0;
    }
    err_set(err, ERR_CONFIG, "%lu %s keys '%s' in the token, none of them the certificate's",
            (unsigned long)n, rsa ? "RSA" : "EC", t->name.key);
    return err_where(err, "token %s", t->name.label);
}

/* --- signing ---------------------------------------------------------------------------------- */
/* RFC 8017, 9.2, notes: what stands before the hash. */
static const uint8_t *digest_info(uint32_t hash, size_t *ret_len)
{
    static const uint8_t heads[][19] = {
        [AWAY_SHA256] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                         0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
        [AWAY_SHA384] = {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                         0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
        [AWAY_SHA512] = {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                         0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40}};
    *ret_len = sizeof(heads[0]);
    return heads[hash];
}

static CK_RSA_PKCS_PSS_PARAMS pss_params(const struct token_question *q)
{
    static const CK_MECHANISM_TYPE hashes[] = {CKM_SHA256, CKM_SHA384, CKM_SHA512};
    static const CK_RSA_PKCS_MGF_TYPE masks[] = {CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512};
    return (CK_RSA_PKCS_PSS_PARAMS){
        .hashAlg = hashes[q->hash], .mgf = masks[q->hash], .sLen = q->salt_len};
}

int token_sign(struct token_process *p, const struct token_question *q, struct token_answer *ret,
               struct err *err)
{
    const struct signer_token *t = p->token;
    CK_RSA_PKCS_PSS_PARAMS pss = pss_params(q);
    CK_MECHANISM mechanism = {.mechanism = q->scheme == AWAY_ECDSA       ? CKM_ECDSA
                                           : q->scheme == AWAY_RSA_PKCS1 ? CKM_RSA_PKCS
                                                                         : CKM_RSA_PKCS_PSS};
    CK_BYTE in[19 + AWAY_HASH_MAX];
    CK_ULONG in_len = 0, len = sizeof(ret->signature);
    CK_RV rv;

    /* The same key as last time, as a rule. */
    if (!p->has_key || p->last_len != q->public_len ||
        memcmp(p->last, q->public_key, q->public_len) != 0) {
        p->has_key = false;
        if (find_key(t, q, &p->key, err) == -1) {
            return -1;
        }
        p->has_key = true;
        p->last_len = q->public_len;
        memcpy(p->last, q->public_key, q->public_len);
    }
    if (q->scheme == AWAY_RSA_PSS) {
        mechanism.pParameter = &pss;
        mechanism.ulParameterLen = sizeof(pss);
    }
    if (q->scheme == AWAY_RSA_PKCS1) {
        size_t n = 0;
        const uint8_t *head = digest_info(q->hash, &n);
        memcpy(in, head, n);
        in_len = n;
    }
    memcpy(in + in_len, q->digest, q->digest_len);
    in_len += q->digest_len;
    rv = t->fn->C_SignInit(t->session, &mechanism, p->key);
    if (rv == CKR_OK) {
        rv = t->fn->C_Sign(t->session, in, in_len, ret->signature, &len);
    }
    if (rv != CKR_OK) {
        return signer_token_failed(t, "signing with the token", rv, err);
    }
    ret->len = (uint32_t)len;
    return 0;
}
