/*
 * Keys in the token. One of ours is a pair of P-256 keys of one CKA_ID whose label is the
 * configured one, or begins with it and a dash. It is known by its point, and cannot be taken out.
 * Other keys of the token are not used, whoever asks.
 */
#include "token_priv.h"

#include <openssl/evp.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>

enum {
    FOUND_MAX = 64,
    KEYS_MAX = 32, /* of ours: whoever asks for ever more does not fill the token */
    KEY_ID_MAX = 64,
    ID_BYTES = 8, /* CKA_ID of keys that are made: the authority's id */
    POINT_DER_HEAD = 2,
};

/* prime256v1 */
static const uint8_t CURVE[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};

struct found {
    CK_OBJECT_HANDLE items[FOUND_MAX];
    CK_ULONG n;
};

/* What a search compares with: the module does not write to it. */
static CK_ATTRIBUTE attribute(CK_ATTRIBUTE_TYPE type, const void *value, size_t len)
{
    CK_ATTRIBUTE a = {.type = type, .ulValueLen = len};

    memcpy(&a.pValue, &value, sizeof(a.pValue));
    return a;
}

static int find(const struct signer_token *t, CK_ATTRIBUTE *template, CK_ULONG n, struct found *ret,
                struct err *err)
{
    CK_RV rv = t->fn->C_FindObjectsInit(t->session, template, n);
    CK_RV end_rv;

    if (rv != CKR_OK) {
        return signer_token_failed(t, "looking for keys", rv, err);
    }
    ret->n = 0;
    rv = t->fn->C_FindObjects(t->session, ret->items, FOUND_MAX, &ret->n);
    end_rv = t->fn->C_FindObjectsFinal(t->session);
    rv = rv != CKR_OK ? rv : end_rv;
    return rv == CKR_OK ? 0 : signer_token_failed(t, "looking for keys", rv, err);
}

/* An attribute of at most `size` bytes; -1: the object has none such. */
static int get(const struct signer_token *t, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
               void *ret, size_t size, size_t *ret_len)
{
    CK_ATTRIBUTE a = {.type = type, .pValue = ret, .ulValueLen = size};

    if (t->fn->C_GetAttributeValue(t->session, object, &a, 1) != CKR_OK || a.ulValueLen > size) {
        return -1;
    }
    *ret_len = a.ulValueLen;
    return 0;
}

static bool is(const struct signer_token *t, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
    CK_BBOOL value = CK_FALSE;
    size_t len = 0;

    return get(t, object, type, &value, sizeof(value), &len) == 0 && len == sizeof(value) &&
           value == CK_TRUE;
}

/* As PKCS#11 has it: an OCTET STRING around the point; some modules give the point alone. */
static bool get_point(const struct signer_token *t, CK_OBJECT_HANDLE object,
                      uint8_t ret[AGENT_POINT_SIZE])
{
    uint8_t der[POINT_DER_HEAD + AGENT_POINT_SIZE];
    size_t len = 0;

    if (get(t, object, CKA_EC_POINT, der, sizeof(der), &len) == -1) {
        return false;
    }
    if (len == sizeof(der) && der[0] == 0x04 && der[1] == AGENT_POINT_SIZE) {
        memcpy(ret, der + POINT_DER_HEAD, AGENT_POINT_SIZE);
        return true;
    }
    memcpy(ret, der, AGENT_POINT_SIZE);
    return len == AGENT_POINT_SIZE && der[0] == 0x04;
}

static bool is_ours(const struct signer_token *t, CK_OBJECT_HANDLE object)
{
    size_t n = strlen(t->name.key), len = 0;
    char label[AGENT_TOKEN_KEY_MAX];

    return get(t, object, CKA_LABEL, label, sizeof(label), &len) == 0 && len >= n &&
           memcmp(label, t->name.key, n) == 0 && (len == n || label[n] == '-');
}

/* --- finding ---------------------------------------------------------------------------------- */
static int find_all(const struct signer_token *t, CK_OBJECT_CLASS class, const char *label,
                    struct found *ret, struct err *err)
{
    CK_KEY_TYPE type = CKK_EC;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE template[] = {attribute(CKA_CLASS, &class, sizeof(class)),
                               attribute(CKA_KEY_TYPE, &type, sizeof(type)),
                               attribute(CKA_TOKEN, &yes, sizeof(yes)),
                               attribute(CKA_LABEL, label, label != NULL ? strlen(label) : 0)};

    return find(t, template, label != NULL ? 4 : 3, ret, err);
}

/* The one object of that class with the CKA_ID of the other half. */
static int find_half(const struct signer_token *t, CK_OBJECT_HANDLE other, CK_OBJECT_CLASS class,
                     CK_OBJECT_HANDLE *ret, struct err *err)
{
    uint8_t id[KEY_ID_MAX];
    size_t len = 0;
    struct found found = {.n = 0};
    CK_KEY_TYPE type = CKK_EC;

    if (get(t, other, CKA_ID, id, sizeof(id), &len) == -1 || len == 0) {
        return err_set(err, ERR_CONFIG, "a key in the token has no CKA_ID");
    }
    CK_ATTRIBUTE template[] = {attribute(CKA_CLASS, &class, sizeof(class)),
                               attribute(CKA_KEY_TYPE, &type, sizeof(type)),
                               attribute(CKA_ID, id, len)};
    if (find(t, template, 3, &found, err) == -1) {
        return -1;
    }
    if (found.n != 1) {
        return err_set(err, ERR_CONFIG, "%lu keys in the token have the CKA_ID of one key",
                       (unsigned long)found.n);
    }
    *ret = found.items[0];
    return 0;
}

static int check_private(const struct signer_token *t, CK_OBJECT_HANDLE key, struct err *err)
{
    if (!is(t, key, CKA_SENSITIVE) || is(t, key, CKA_EXTRACTABLE)) {
        err_set(err, ERR_CONFIG, "the key '%s' can be taken out of the token", t->name.key);
        err_expected(err, "a sensitive key that is not extractable");
        return err_advise(err, "name another label as ca.key_at_rest.pkcs11.key: a key is made");
    }
    return 0;
}

static int find_by_point(const struct signer_token *t, const uint8_t point[AGENT_POINT_SIZE],
                         CK_OBJECT_HANDLE *ret, struct err *err)
{
    struct found found = {.n = 0};

    if (find_all(t, CKO_PUBLIC_KEY, NULL, &found, err) == -1) {
        return -1;
    }
    for (CK_ULONG i = 0; i < found.n; i++) {
        uint8_t own[AGENT_POINT_SIZE] = {0};

        if (!get_point(t, found.items[i], own) || memcmp(own, point, sizeof(own)) != 0) {
            continue;
        }
        if (find_half(t, found.items[i], CKO_PRIVATE_KEY, ret, err) == -1) {
            return -1;
        }
        if (!is_ours(t, *ret)) {
            return err_set(err, ERR_DENIED, "that key is none of the agent's");
        }
        return check_private(t, *ret, err);
    }
    err_set(err, ERR_UNAVAILABLE, "the root's key is not in the token");
    err_where(err, "token %s", t->name.label);
    return err_advise(err, "is it the token that the state belongs to?");
}

/* --- making ----------------------------------------------------------------------------------- */
static int check_room(const struct signer_token *t, struct err *err)
{
    struct found found = {.n = 0};
    size_t n = 0;

    if (find_all(t, CKO_PRIVATE_KEY, NULL, &found, err) == -1) {
        return -1;
    }
    for (CK_ULONG i = 0; i < found.n; i++) {
        n += is_ours(t, found.items[i]) ? 1 : 0;
    }
    if (n < KEYS_MAX && found.n < FOUND_MAX) {
        return 0;
    }
    err_set(err, ERR_LIMIT, "the token holds %zu keys of the agent's, and %lu in all", n,
            (unsigned long)found.n);
    return err_advise(err, "remove those of roots that were retired (pkcs11-tool --delete-object)");
}

/* CKA_ID is the authority's id; a key of a later root has it in its label as well. */
static CK_RV set_names(const struct signer_token *t, CK_OBJECT_HANDLE public,
                       CK_OBJECT_HANDLE private, const uint8_t *point, bool another)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    char label[AGENT_TOKEN_KEY_MAX];
    int n = snprintf(label, sizeof(label), "%s-", t->name.key);
    CK_ATTRIBUTE names[2];
    CK_RV rv;

    if (EVP_Digest(point, AGENT_POINT_SIZE, hash, NULL, EVP_sha256(), NULL) != 1 || n < 0 ||
        (size_t)n + 2 * ID_BYTES >= sizeof(label)) {
        return CKR_GENERAL_ERROR;
    }
    for (size_t i = 0; i < ID_BYTES; i++) {
        (void)snprintf(label + n + 2 * i, 3, "%02x", hash[i]);
    }
    names[0] = attribute(CKA_ID, hash, ID_BYTES);
    names[1] = attribute(CKA_LABEL, label, strlen(label));
    rv = t->fn->C_SetAttributeValue(t->session, public, names, another ? 2 : 1);
    return rv == CKR_OK ? t->fn->C_SetAttributeValue(t->session, private, names, another ? 2 : 1)
                        : rv;
}

static int make(const struct signer_token *t, bool another, uint8_t ret_point[AGENT_POINT_SIZE],
                struct err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_EC_KEY_PAIR_GEN};
    CK_OBJECT_HANDLE public = 0, private = 0;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    uint8_t id[ID_BYTES];
    char label[AGENT_TOKEN_KEY_MAX + sizeof("-new")];
    CK_RV rv;

    if (check_room(t, err) == -1) {
        return -1;
    }
    os_random(id, sizeof(id)); /* until the point is known */
    (void)snprintf(label, sizeof(label), "%s%s", t->name.key, another ? "-new" : "");
    CK_ATTRIBUTE public_part[] = {
        attribute(CKA_TOKEN, &yes, sizeof(yes)), attribute(CKA_VERIFY, &yes, sizeof(yes)),
        attribute(CKA_EC_PARAMS, CURVE, sizeof(CURVE)), attribute(CKA_ID, id, sizeof(id)),
        attribute(CKA_LABEL, label, strlen(label))};
    CK_ATTRIBUTE private_part[] = {
        attribute(CKA_TOKEN, &yes, sizeof(yes)),     attribute(CKA_PRIVATE, &yes, sizeof(yes)),
        attribute(CKA_SENSITIVE, &yes, sizeof(yes)), attribute(CKA_EXTRACTABLE, &no, sizeof(no)),
        attribute(CKA_SIGN, &yes, sizeof(yes)),      attribute(CKA_ID, id, sizeof(id)),
        attribute(CKA_LABEL, label, strlen(label))};
    rv = t->fn->C_GenerateKeyPair(
        t->session, &mechanism, public_part, sizeof(public_part) / sizeof(public_part[0]),
        private_part, sizeof(private_part) / sizeof(private_part[0]), &public, &private);
    if (rv != CKR_OK) {
        return signer_token_failed(t, "making a key in the token", rv, err);
    }
    rv = get_point(t, public, ret_point) ? set_names(t, public, private, ret_point, another)
                                         : CKR_GENERAL_ERROR;
    if (rv != CKR_OK) { /* nobody would find it again */
        (void)t->fn->C_DestroyObject(t->session, private);
        (void)t->fn->C_DestroyObject(t->session, public);
        return signer_token_failed(t, "naming a key in the token", rv, err);
    }
    return 0;
}

int signer_token_key(struct signer_token *t, bool another, uint8_t ret_point[AGENT_POINT_SIZE],
                     bool *ret_made, struct err *err)
{
    CK_OBJECT_HANDLE public = 0;
    struct found found = {.n = 0};

    if (!another && find_all(t, CKO_PRIVATE_KEY, t->name.key, &found, err) == -1) {
        return -1;
    }
    *ret_made = found.n == 0;
    if (found.n == 0) {
        return make(t, another, ret_point, err);
    }
    if (found.n > 1) {
        err_set(err, ERR_CONFIG, "the token has %lu keys '%s'", (unsigned long)found.n,
                t->name.key);
        return err_advise(err, "name another label as ca.key_at_rest.pkcs11.key");
    }
    if (find_half(t, found.items[0], CKO_PUBLIC_KEY, &public, err) == -1 ||
        check_private(t, found.items[0], err) == -1) {
        return -1;
    }
    return get_point(t, public, ret_point)
               ? 0
               : err_set(err, ERR_CONFIG, "the key '%s' is not of P-256", t->name.key);
}

/* --- signing ---------------------------------------------------------------------------------- */
int signer_key_sign(void *key, const uint8_t sha256[32], uint8_t ret_rs[64], struct err *err)
{
    const struct signer_key *k = key;
    const struct signer_token *t = k->token;
    CK_MECHANISM mechanism = {.mechanism = CKM_ECDSA};
    CK_OBJECT_HANDLE private = 0;
    CK_BYTE hash[32], rs[64];
    CK_ULONG len = sizeof(rs);
    CK_RV rv;

    if (find_by_point(t, k->point, &private, err) == -1) {
        return -1;
    }
    memcpy(hash, sha256, sizeof(hash));
    rv = t->fn->C_SignInit(t->session, &mechanism, private);
    if (rv == CKR_OK) {
        rv = t->fn->C_Sign(t->session, hash, sizeof(hash), rs, &len);
    }
    if (rv != CKR_OK || len != sizeof(rs)) {
        return signer_token_failed(t, "signing with the token", rv, err);
    }
    memcpy(ret_rs, rs, sizeof(rs));
    return 0;
}
