/*
 * Making certificates (X509-SVID.md sections 2 to 4). The issuer builds the whole statement from
 * checked fields; no byte of it comes from outside.
 *
 * The subject is "O=Postern" and says nothing of the holder: the URI name does. It is not empty,
 * since some TLS stacks refuse empty subjects; an authority's also carries a number made from its
 * key, so that no two have the same name.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <postern/os.h>

enum { KEY_ID_LEN = 20, SERIAL_LEN = 16, DNS_NAME_MAX = 253, DNS_NAMES_MAX = 64 };

MEM_DEFINE_CLEANUP(ASN1_BIT_STRING, ASN1_BIT_STRING_free)
MEM_DEFINE_CLEANUP(ASN1_OCTET_STRING, ASN1_OCTET_STRING_free)
MEM_DEFINE_CLEANUP(AUTHORITY_KEYID, AUTHORITY_KEYID_free)
MEM_DEFINE_CLEANUP(BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free)
MEM_DEFINE_CLEANUP(EXTENDED_KEY_USAGE, EXTENDED_KEY_USAGE_free)
MEM_DEFINE_CLEANUP(GENERAL_NAMES, GENERAL_NAMES_free)
MEM_DEFINE_CLEANUP(X509_NAME, X509_NAME_free)

static bool dns_name_ok(struct str name)
{
    size_t label = 0;
    if (name.n == 0 || name.n > DNS_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool edge = label == 0 || i + 1 == name.n || name.p[i + 1] == '.';
        if (c == '.') {
            if (label == 0 || i + 1 == name.n) {
                return false;
            }
            label = 0;
            continue;
        }
        if (!alnum && (c != '-' || edge)) {
            return false;
        }
        if (++label > 63) {
            return false;
        }
    }
    return true;
}

int x509_issue_check(const struct x509_issue *what, struct err *err)
{
    struct spiffe_id id;
    if (spiffe_id_parse(what->spiffe_id, &id, err) == -1) {
        return -1;
    }
    if (what->ca != (id.path.n == 0)) {
        return err_set(err, ERR_USAGE, "'%.*s': %s", STR_ARG(what->spiffe_id),
                       what->ca ? "an authority's ID has no path" : "a workload's ID has a path");
    }
    if (what->n_dns_names > DNS_NAMES_MAX || (what->ca && what->n_dns_names > 0)) {
        return err_set(err, ERR_LIMIT, "%zu DNS names", what->n_dns_names);
    }
    for (size_t i = 0; i < what->n_dns_names; i++) {
        if (!dns_name_ok(what->dns_names[i])) {
            return err_set(err, ERR_USAGE, "'%.*s' is not a DNS name", STR_ARG(what->dns_names[i]));
        }
    }
    return 0;
}

/* RFC 7093, method 1: the leftmost 160 bits of the key's SHA-256. */
static int key_id_of(const uint8_t point[X509_POINT_LEN], uint8_t ret[KEY_ID_LEN], struct err *err)
{
    uint8_t hash[EVP_MAX_MD_SIZE] = {0};
    if (EVP_Digest(point, X509_POINT_LEN, hash, NULL, EVP_sha256(), NULL) != 1) {
        return x509_err_crypto(err, "SHA-256");
    }
    memcpy(ret, hash, KEY_ID_LEN);
    return 0;
}

static bool set_subject(X509 *cert, bool ca, const uint8_t key_id[KEY_ID_LEN])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char number[16];
    for (size_t i = 0; i < sizeof(number); i += 2) {
        number[i] = (unsigned char)digits[key_id[i / 2] >> 4];
        number[i + 1] = (unsigned char)digits[key_id[i / 2] & 15];
    }
    mem_auto(X509_NAME_free) X509_NAME *name = X509_NAME_new();
    return name != NULL &&
           X509_NAME_add_entry_by_NID(name, NID_organizationName, MBSTRING_ASC,
                                      (const unsigned char *)"Postern", -1, -1, 0) == 1 &&
           (!ca || X509_NAME_add_entry_by_NID(name, NID_serialNumber, MBSTRING_ASC, number,
                                              sizeof(number), -1, 0) == 1) &&
           X509_set_subject_name(cert, name) == 1;
}

static bool set_serial(X509 *cert)
{
    uint8_t serial[SERIAL_LEN];
    os_random(serial, sizeof(serial));
    if (serial[0] == 0) {
        serial[0] = 1; /* DER has no leading zero bytes */
    }
    return ASN1_STRING_set(X509_get_serialNumber(cert), serial, sizeof(serial)) == 1;
}

static bool set_times(X509 *cert, int64_t not_before_s, int64_t not_after_s)
{
    return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)not_before_s) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)not_after_s) != NULL;
}

static bool add_constraints(X509 *cert, bool ca, int path_len)
{
    mem_auto(BASIC_CONSTRAINTS_free) BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
    if (bc == NULL) {
        return false;
    }
    bc->ca = ca ? 0xff : 0;
    if (ca && path_len >= 0) {
        bc->pathlen = ASN1_INTEGER_new();
        if (bc->pathlen == NULL || ASN1_INTEGER_set(bc->pathlen, path_len) != 1) {
            return false;
        }
    }
    return X509_add1_ext_i2d(cert, NID_basic_constraints, bc, 1, 0) == 1;
}

static bool add_key_usage(X509 *cert, bool ca)
{
    /* Bits are numbered from the left: 0 digitalSignature, 5 keyCertSign, 6 cRLSign. */
    mem_auto(ASN1_BIT_STRING_free) ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();
    bool ok = usage != NULL && (ca ? ASN1_BIT_STRING_set_bit(usage, 5, 1) == 1 &&
                                         ASN1_BIT_STRING_set_bit(usage, 6, 1) == 1
                                   : ASN1_BIT_STRING_set_bit(usage, 0, 1) == 1);
    return ok && X509_add1_ext_i2d(cert, NID_key_usage, usage, 1, 0) == 1;
}

static bool add_purposes(X509 *cert)
{
    mem_auto(EXTENDED_KEY_USAGE_free) EXTENDED_KEY_USAGE *list = EXTENDED_KEY_USAGE_new();
    return list != NULL && sk_ASN1_OBJECT_push(list, OBJ_nid2obj(NID_server_auth)) > 0 &&
           sk_ASN1_OBJECT_push(list, OBJ_nid2obj(NID_client_auth)) > 0 &&
           X509_add1_ext_i2d(cert, NID_ext_key_usage, list, 0, 0) == 1;
}

static bool add_key_ids(X509 *cert, const uint8_t key_id[KEY_ID_LEN],
                        const ASN1_OCTET_STRING *issuer_id)
{
    mem_auto(ASN1_OCTET_STRING_free) ASN1_OCTET_STRING *own = ASN1_OCTET_STRING_new();
    mem_auto(AUTHORITY_KEYID_free) AUTHORITY_KEYID *above = AUTHORITY_KEYID_new();
    if (own == NULL || above == NULL || ASN1_OCTET_STRING_set(own, key_id, KEY_ID_LEN) != 1 ||
        X509_add1_ext_i2d(cert, NID_subject_key_identifier, own, 0, 0) != 1) {
        return false;
    }
    above->keyid = ASN1_OCTET_STRING_dup(issuer_id != NULL ? issuer_id : own);
    return above->keyid != NULL &&
           X509_add1_ext_i2d(cert, NID_authority_key_identifier, above, 0, 0) == 1;
}

static bool push_name(GENERAL_NAMES *names, int type, struct str text)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *value = ASN1_IA5STRING_new();
    if (name == NULL || value == NULL || ASN1_STRING_set(value, text.p, (int)text.n) != 1) {
        GENERAL_NAME_free(name);
        ASN1_IA5STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    if (sk_GENERAL_NAME_push(names, name) == 0) {
        GENERAL_NAME_free(name);
        return false;
    }
    return true;
}

static bool add_names(X509 *cert, const struct x509_issue *what)
{
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *names = GENERAL_NAMES_new();
    if (names == NULL || !push_name(names, GEN_URI, what->spiffe_id)) {
        return false;
    }
    for (size_t i = 0; i < what->n_dns_names; i++) {
        if (!push_name(names, GEN_DNS, what->dns_names[i])) {
            return false;
        }
    }
    return X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) == 1;
}

static const EVP_MD *digest_for(EVP_PKEY *key)
{
    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519) {
        return NULL; /* has its own */
    }
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_bits(key) > 256 ? EVP_sha384()
                                                                                    : EVP_sha256();
}

static int check_issuer(X509 *issuer, EVP_PKEY *issuer_key, struct err *err)
{
    if (x509_ca_check(issuer, true, err) == -1) {
        return err_prefix(err, "issuer");
    }
    if (X509_check_private_key(issuer, issuer_key) != 1) {
        return x509_err_crypto(err, "the issuer's key does not fit its certificate");
    }
    return 0;
}

int x509_issue_with(const struct x509_issue *what, X509 *issuer, EVP_PKEY *key_to_sign, X509 **ret,
                    struct err *err)
{
    uint8_t key_id[KEY_ID_LEN] = {0};
    int64_t not_after_s = what->not_after_s;
    ERR_clear_error();
    if (x509_issue_check(what, err) == -1) {
        return -1;
    }
    if (issuer != NULL && x509_not_after_s(issuer) < not_after_s) {
        not_after_s = x509_not_after_s(issuer);
    }
    if (what->not_before_s >= not_after_s) {
        return err_set(err, ERR_UNAVAILABLE, "the certificate would end before it begins: %s",
                       not_after_s < what->not_after_s ? "the issuer's own has expired"
                                                       : "its times are wrong");
    }
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = x509_key_of_point(what->point, err);
    mem_auto(X509_free) X509 *cert = X509_new();
    if (key == NULL || key_id_of(what->point, key_id, err) == -1) {
        return -1;
    }
    const ASN1_OCTET_STRING *issuer_id = issuer != NULL ? X509_get0_subject_key_id(issuer) : NULL;
    bool ok =
        cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
        set_subject(cert, what->ca, key_id) &&
        X509_set_issuer_name(cert, X509_get_subject_name(issuer != NULL ? issuer : cert)) == 1 &&
        set_times(cert, what->not_before_s, not_after_s) && X509_set_pubkey(cert, key) == 1 &&
        add_constraints(cert, what->ca, what->path_len) && add_key_usage(cert, what->ca) &&
        (what->ca || add_purposes(cert)) &&
        (issuer != NULL && issuer_id == NULL ? true : add_key_ids(cert, key_id, issuer_id)) &&
        add_names(cert, what) && X509_sign(cert, key_to_sign, digest_for(key_to_sign)) != 0;
    if (!ok) {
        return x509_err_crypto(err, "cannot make a certificate");
    }
    *ret = cert;
    cert = NULL;
    return 0;
}

int x509_issue(const struct x509_issue *what, X509 *issuer, EVP_PKEY *issuer_key, X509 **ret,
               struct err *err)
{
    ERR_clear_error();
    if (issuer != NULL && check_issuer(issuer, issuer_key, err) == -1) {
        return -1;
    }
    return x509_issue_with(what, issuer, issuer_key, ret, err);
}
