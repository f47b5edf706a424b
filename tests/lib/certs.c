#include "certs.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <postern/mem.h>

#include <postern/err.h>
#include <stdlib.h>

struct certs_spec certs_leaf(const char *uri)
{
    return (struct certs_spec){
        .uris = {str_of(uri)},
        .path_len = -1,
        .key_usage = KU_DIGITAL_SIGNATURE,
        .purposes = CERTS_SERVER_AUTH | CERTS_CLIENT_AUTH,
        .common_name = "leaf",
        .not_before_s = CERTS_NOW - 60,
        .not_after_s = CERTS_NOW + 3600,
    };
}

struct certs_spec certs_ca(const char *uri)
{
    return (struct certs_spec){
        .uris = {str_of(uri)},
        .path_len = -1,
        .ca = true,
        .key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN,
        .common_name = "authority",
        .not_before_s = CERTS_NOW - 600,
        .not_after_s = CERTS_NOW + 86400,
    };
}

EVP_PKEY *certs_key_new(enum certs_key kind)
{
    EVP_PKEY *key = NULL;
    switch (kind) {
    case CERTS_P256:
        key = EVP_EC_gen("P-256");
        break;
    case CERTS_P384:
        key = EVP_EC_gen("P-384");
        break;
    case CERTS_RSA2048:
        key = EVP_RSA_gen(2048);
        break;
    case CERTS_RSA1024:
        key = EVP_RSA_gen(1024);
        break;
    case CERTS_ED25519:
        key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        break;
    }
    POSTERN_ASSERT(key != NULL);
    return key;
}

static void add_extension(X509 *cert, int nid, void *value, bool critical)
{
    POSTERN_ASSERT(X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_APPEND) == 1);
}

static void push_name(GENERAL_NAMES *names, int type, struct str text)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *value = ASN1_IA5STRING_new();
    POSTERN_ASSERT(ASN1_STRING_set(value, text.p, (int)text.n) == 1);
    GENERAL_NAME_set0_value(name, type, value);
    POSTERN_ASSERT(sk_GENERAL_NAME_push(names, name) > 0);
}

static void add_names(X509 *cert, const struct certs_spec *spec)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    if (spec->dns.p != NULL) {
        push_name(names, GEN_DNS, spec->dns);
    }
    for (size_t i = 0; i < 3; i++) {
        if (spec->uris[i].p != NULL) {
            push_name(names, GEN_URI, spec->uris[i]);
        }
    }
    if (sk_GENERAL_NAME_num(names) > 0) {
        add_extension(cert, NID_subject_alt_name, names, false);
    }
    GENERAL_NAMES_free(names);
}

static void add_key_usage(X509 *cert, const struct certs_spec *spec)
{
    static const struct {
        unsigned flag;
        int bit;
    } bits[] = {{KU_DIGITAL_SIGNATURE, 0},
                {KU_KEY_ENCIPHERMENT, 2},
                {KU_KEY_AGREEMENT, 4},
                {KU_KEY_CERT_SIGN, 5},
                {KU_CRL_SIGN, 6}};
    ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        if ((spec->key_usage & bits[i].flag) != 0) {
            ASN1_BIT_STRING_set_bit(usage, bits[i].bit, 1);
        }
    }
    add_extension(cert, NID_key_usage, usage, !spec->key_usage_not_critical);
    ASN1_BIT_STRING_free(usage);
}

static void add_purposes(X509 *cert, unsigned purposes)
{
    static const struct {
        unsigned flag;
        int nid;
    } known[] = {{CERTS_SERVER_AUTH, NID_server_auth},
                 {CERTS_CLIENT_AUTH, NID_client_auth},
                 {CERTS_CODE_SIGNING, NID_code_sign}};
    EXTENDED_KEY_USAGE *list = EXTENDED_KEY_USAGE_new();
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if ((purposes & known[i].flag) != 0) {
            sk_ASN1_OBJECT_push(list, OBJ_nid2obj(known[i].nid));
        }
    }
    add_extension(cert, NID_ext_key_usage, list, false);
    EXTENDED_KEY_USAGE_free(list);
}

static void add_key_ids(X509 *cert, X509 *issuer)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509V3_set_ctx_nodb(&ctx);
    X509_EXTENSION *own = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
    POSTERN_ASSERT(own != NULL && X509_add_ext(cert, own, -1) == 1);
    X509_EXTENSION_free(own);
    X509_EXTENSION *above =
        X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid:always");
    POSTERN_ASSERT(above != NULL && X509_add_ext(cert, above, -1) == 1);
    X509_EXTENSION_free(above);
}

static void add_extensions(X509 *cert, const struct certs_spec *spec, X509 *issuer)
{
    if (!spec->no_constraints) {
        BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
        bc->ca = spec->ca ? 0xff : 0;
        if (spec->path_len >= 0) {
            bc->pathlen = ASN1_INTEGER_new();
            ASN1_INTEGER_set(bc->pathlen, spec->path_len);
        }
        add_extension(cert, NID_basic_constraints, bc, true);
        BASIC_CONSTRAINTS_free(bc);
    }
    if (!spec->no_key_usage) {
        add_key_usage(cert, spec);
    }
    if (spec->purposes != 0) {
        add_purposes(cert, spec->purposes);
    }
    add_key_ids(cert, issuer);
    add_names(cert, spec);
    if (spec->unknown_critical) {
        ASN1_OBJECT *oid = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
        ASN1_OCTET_STRING *data = ASN1_OCTET_STRING_new();
        ASN1_OCTET_STRING_set(data, (const unsigned char *)"\x05\x00", 2);
        X509_EXTENSION *ext = X509_EXTENSION_create_by_OBJ(NULL, oid, 1, data);
        POSTERN_ASSERT(X509_add_ext(cert, ext, -1) == 1);
        X509_EXTENSION_free(ext);
        ASN1_OCTET_STRING_free(data);
        ASN1_OBJECT_free(oid);
    }
}

static void sign(X509 *cert, const struct certs_spec *spec, EVP_PKEY *key)
{
    const EVP_MD *digest = spec->sha1 ? EVP_sha1() : EVP_sha256();
    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519) {
        digest = NULL;
    }
    POSTERN_ASSERT(X509_sign(cert, key, digest) != 0);
}

/* As it would come over the wire: decoded, nothing cached. */
static X509 *reread(X509 *cert, bool broken_signature)
{
    size_t len = 0;
    uint8_t *der = certs_der(&cert, 1, &len);
    if (broken_signature) {
        der[len - 1] ^= 1;
    }
    const unsigned char *p = der;
    X509 *read = d2i_X509(NULL, &p, (long)len);
    POSTERN_ASSERT(read != NULL);
    free(der);
    X509_free(cert);
    return read;
}

struct certs_pair certs_make(const struct certs_spec *spec, const struct certs_pair *issuer)
{
    static long serial = 1000;
    struct certs_pair pair = {X509_new(), certs_key_new(spec->key)};
    X509_NAME *name = X509_NAME_new();
    POSTERN_ASSERT(pair.cert != NULL && name != NULL);
    X509_set_version(pair.cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(pair.cert), serial++);
    if (spec->common_name != NULL) {
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                   (const unsigned char *)spec->common_name, -1, -1, 0);
    }
    X509_set_subject_name(pair.cert, name);
    X509_set_issuer_name(pair.cert, issuer != NULL ? X509_get_subject_name(issuer->cert) : name);
    X509_NAME_free(name);
    ASN1_TIME_set(X509_getm_notBefore(pair.cert), (time_t)spec->not_before_s);
    ASN1_TIME_set(X509_getm_notAfter(pair.cert), (time_t)spec->not_after_s);
    X509_set_pubkey(pair.cert, pair.key);
    add_extensions(pair.cert, spec, issuer != NULL ? issuer->cert : pair.cert);
    sign(pair.cert, spec, issuer != NULL ? issuer->key : pair.key);
    pair.cert = reread(pair.cert, spec->broken_signature);
    return pair;
}

void certs_free(struct certs_pair *pair)
{
    X509_free(pair->cert);
    EVP_PKEY_free(pair->key);
    *pair = (struct certs_pair){0};
}

uint8_t *certs_der(X509 *const *certs, size_t n, size_t *ret_len)
{
    uint8_t *der = mem_must_calloc(1, 1);
    size_t len = 0;
    for (size_t i = 0; i < n && certs[i] != NULL; i++) {
        int one = i2d_X509(certs[i], NULL);
        POSTERN_ASSERT(one > 0);
        der = mem_must_realloc(der, len + (size_t)one);
        unsigned char *p = der + len;
        i2d_X509(certs[i], &p);
        len += (size_t)one;
    }
    *ret_len = len;
    return der;
}

STACK_OF(X509) * certs_stack(X509 *const *certs, size_t n)
{
    STACK_OF(X509) *stack = sk_X509_new_null();
    for (size_t i = 0; i < n && certs[i] != NULL; i++) {
        sk_X509_push(stack, certs[i]);
    }
    return stack;
}
