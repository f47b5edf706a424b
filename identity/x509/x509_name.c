/*
 * What a certificate says of its holder: the SPIFFE ID, and whether it is a leaf or an authority.
 * Sections are those of X509-SVID.md.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/err.h>
#include <stdio.h>

MEM_DEFINE_CLEANUP(GENERAL_NAMES, GENERAL_NAMES_free)

static struct str uri_of(const GENERAL_NAME *name)
{
    const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
    return (struct str){(const char *)ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri)};
}

/* Counts the URIs and returns the first. */
static int uris_count(const GENERAL_NAMES *names, struct str *ret_first)
{
    int count = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_URI && count++ == 0) {
            *ret_first = uri_of(name);
        }
    }
    return count;
}

/* NULL with found -1 if there is no such extension, -2 if there are several. */
static GENERAL_NAMES *names_of(X509 *cert, int *ret_found)
{
    ERR_clear_error();
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, ret_found, NULL);
    ERR_clear_error();
    return names;
}

int x509_uri_find(X509 *cert, GENERAL_NAMES **ret_names, struct str *ret_uri, struct err *err)
{
    int found = 0;
    struct str uri = STR_NONE;
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *names = names_of(cert, &found);
    if (names == NULL) {
        return err_set(err, ERR_PROTOCOL,
                       found == -1   ? "the certificate has no URI name: it is no SVID"
                       : found == -2 ? "the certificate has several lists of names"
                                     : "the certificate's names cannot be read");
    }
    int count = uris_count(names, &uri);
    if (count != 1) {
        return err_set(err, ERR_PROTOCOL,
                       "the certificate has %d URI names; an SVID has exactly one", count);
    }
    *ret_names = names;
    names = NULL;
    *ret_uri = uri;
    return 0;
}

size_t x509_text_copy(struct str text, char *ret, size_t size)
{
    size_t n = text.n < size - 1 ? text.n : size - 1;
    for (size_t i = 0; i < n; i++) {
        ret[i] = text.p[i];
        if (ret[i] < 0x20 || ret[i] > 0x7e) {
            ret[i] = '?';
        }
    }
    ret[n] = '\0';
    return n;
}

size_t x509_uri_show(X509 *cert, char *ret, size_t size)
{
    int found = 0;
    struct str uri = STR_NONE;
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *names = names_of(cert, &found);
    if (names != NULL) {
        (void)uris_count(names, &uri);
    }
    return x509_text_copy(uri, ret, size);
}

int x509_get_spiffe_id(X509 *cert, char ret[SPIFFE_ID_MAX + 1], struct err *err)
{
    struct str uri;
    struct spiffe_id id;
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *names = NULL;
    if (x509_uri_find(cert, &names, &uri, err) == -1 || spiffe_id_parse(uri, &id, err) == -1) {
        return -1;
    }
    memcpy(ret, uri.p, uri.n);
    ret[uri.n] = '\0';
    return 0;
}

void x509_serial_text(X509 *cert, char ret[48])
{
    static const char digits[] = "0123456789abcdef";
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    const unsigned char *bytes = ASN1_STRING_get0_data(serial);
    size_t n = (size_t)ASN1_STRING_length(serial);
    n = n < 23 ? n : 23;
    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[2 * n] = '\0';
}

int x509_leaf_check(X509 *leaf, struct err *err)
{
    uint32_t flags = X509_get_extension_flags(leaf);
    uint32_t usage = X509_get_key_usage(leaf);
    if ((flags & EXFLAG_INVALID) != 0) {
        return err_set(err, ERR_PROTOCOL, "the certificate has an extension that cannot be read");
    }
    if ((flags & EXFLAG_CA) != 0) {
        return err_set(err, ERR_PROTOCOL,
                       "the certificate is a CA's: signing certificates never authenticate");
    }
    if ((flags & EXFLAG_KUSAGE) == 0) {
        return err_set(err, ERR_PROTOCOL, "the certificate has no key usage");
    }
    if ((usage & KU_KEY_CERT_SIGN) != 0) {
        return err_set(err, ERR_PROTOCOL,
                       "the certificate's key may sign certificates "
                       "(keyCertSign): it must not authenticate");
    }
    if ((usage & KU_CRL_SIGN) != 0) {
        return err_set(err, ERR_PROTOCOL,
                       "the certificate's key may sign revocation lists "
                       "(cRLSign): it must not authenticate");
    }
    if ((usage & KU_DIGITAL_SIGNATURE) == 0) {
        return err_set(err, ERR_PROTOCOL,
                       "the certificate's key is not for signatures (digitalSignature)");
    }
    return 0;
}

int x509_ca_check(X509 *cert, bool anchor, struct err *err)
{
    uint32_t flags = X509_get_extension_flags(cert);
    bool usage_known = (flags & EXFLAG_KUSAGE) != 0;
    if ((flags & EXFLAG_INVALID) != 0) {
        return err_set(err, ERR_PROTOCOL, "an extension cannot be read");
    }
    if ((flags & EXFLAG_CA) == 0) {
        return err_set(err, ERR_PROTOCOL, "it is not a CA certificate");
    }
    if (usage_known ? (X509_get_key_usage(cert) & KU_KEY_CERT_SIGN) == 0 : !anchor) {
        return err_set(err, ERR_PROTOCOL, "its key may not sign certificates (no keyCertSign)");
    }
    return 0;
}

int x509_ca_domain_check(X509 *cert, struct str trust_domain, struct err *err)
{
    int found = 0;
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *names = names_of(cert, &found);
    if (names == NULL) {
        return found == -1 ? 0 : err_set(err, ERR_PROTOCOL, "its names cannot be read");
    }
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        struct spiffe_id id;
        if (name->type != GEN_URI) {
            continue;
        }
        struct str uri = uri_of(name);
        struct str scheme = {uri.p, uri.n < 7 ? uri.n : 7};
        if (!str_eq_nocase(scheme, STR_LIT("spiffe:"))) {
            continue;
        }
        if (spiffe_id_parse(uri, &id, NULL) == -1 || id.path.n != 0 ||
            !spiffe_id_member_of(&id, trust_domain)) {
            char shown[120];
            x509_text_copy(uri, shown, sizeof(shown));
            err_set(err, ERR_PROTOCOL, "it is the authority '%s', not that of '%.*s'", shown,
                    (int)(trust_domain.n < 100 ? trust_domain.n : 100), trust_domain.p);
            return -1;
        }
    }
    return 0;
}
