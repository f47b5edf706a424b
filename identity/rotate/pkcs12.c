/* pkcs12: key stores and trust stores. PBES2 with AES-256-CBC and PBKDF2, and a MAC with SHA-256:
 * what OpenSSL 3 reads without its legacy provider, and Java from 8u301 on. */
#include "rotate_priv.h"

#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <postern/mem.h>
#include <stdint.h>
#include <string.h>

enum { ITERATIONS = 10000, SALT_LEN = 16 };

MEM_DEFINE_CLEANUP(PKCS12, PKCS12_free)

static int crypto_failed(struct err *err, const char *what)
{
    char reason[160];
    ERR_error_string_n(ERR_get_error(), reason, sizeof(reason));
    return err_set(err, ERR_CRYPTO, "%s: %s", what, reason);
}

static int append_der(struct rotate_bytes *b, PKCS12 *p12, struct err *err)
{
    int len = i2d_PKCS12(p12, NULL);
    if (len <= 0) {
        return crypto_failed(err, "cannot write PKCS#12");
    }
    mem_autofree uint8_t *der = mem_must_calloc(1, (size_t)len);
    uint8_t *end = der;
    if (i2d_PKCS12(p12, &end) != len) {
        return crypto_failed(err, "cannot write PKCS#12");
    }
    rotate_bytes_append(b, der, (size_t)len);
    return 0;
}

/* The store's name for the entry: what keytool lists. */
static const char *alias_of(const struct x509_svid *svid)
{
    return svid->spiffe_id;
}

int rotate_pkcs12_identity(struct rotate_bytes *b, const struct x509_svid *svid,
                           const char *passphrase, struct err *err)
{
    ERR_clear_error();
    /* Its own MAC is left out (-1): which digest it takes depends on the library's version. */
    mem_auto(PKCS12_free) PKCS12 *p12 =
        PKCS12_create(passphrase, alias_of(svid), svid->key, svid->leaf, svid->intermediates,
                      NID_aes_256_cbc, NID_aes_256_cbc, ITERATIONS, -1, 0);
    if (p12 == NULL ||
        PKCS12_set_mac(p12, passphrase, -1, NULL, SALT_LEN, ITERATIONS, EVP_sha256()) != 1) {
        return crypto_failed(err, "cannot make PKCS#12");
    }
    return append_der(b, p12, err);
}

/* Java takes a certificate without a key as trusted only with this attribute. */
static bool mark_trusted(PKCS12_SAFEBAG *bag)
{
    ASN1_OBJECT *type = OBJ_txt2obj("2.16.840.1.113894.746875.1.1", 1);
    ASN1_OBJECT *any_use = OBJ_txt2obj("2.5.29.37.0", 1);
    X509_ATTRIBUTE *attribute =
        type != NULL && any_use != NULL
            ? X509_ATTRIBUTE_create_by_OBJ(NULL, type, V_ASN1_OBJECT, any_use, -1)
            : NULL;
    /* The bag's own list: the entry's name is in it already, so it is there. 3.0 has no setter. */
    STACK_OF(X509_ATTRIBUTE) *list =
        (STACK_OF(X509_ATTRIBUTE) *)(uintptr_t)PKCS12_SAFEBAG_get0_attrs(bag);
    bool ok = attribute != NULL && list != NULL && X509at_add1_attr(&list, attribute) != NULL;
    X509_ATTRIBUTE_free(attribute);
    ASN1_OBJECT_free(type);
    ASN1_OBJECT_free(any_use);
    return ok;
}

static bool add_trusted(STACK_OF(PKCS12_SAFEBAG) * *bags, X509 *cert, int i)
{
    char name[32];
    int n = snprintf(name, sizeof(name), "authority-%d", i + 1);
    PKCS12_SAFEBAG *bag = PKCS12_add_cert(bags, cert);
    return bag != NULL && PKCS12_add_friendlyname_utf8(bag, name, n) == 1 && mark_trusted(bag);
}

int rotate_pkcs12_trust(struct rotate_bytes *b, STACK_OF(X509) * certs, const char *passphrase,
                        struct err *err)
{
    STACK_OF(PKCS12_SAFEBAG) *bags = NULL;
    STACK_OF(PKCS7) *safes = NULL;
    mem_auto(PKCS12_free) PKCS12 *p12 = NULL;
    bool ok = true;
    ERR_clear_error();
    for (int i = 0; ok && i < sk_X509_num(certs); i++) {
        ok = add_trusted(&bags, sk_X509_value(certs, i), i);
    }
    if (ok && bags != NULL) {
        ok = PKCS12_add_safe(&safes, bags, NID_aes_256_cbc, ITERATIONS, passphrase) == 1;
    } else if (ok) {
        safes = sk_PKCS7_new_null();
        ok = safes != NULL;
    }
    if (ok) {
        p12 = PKCS12_add_safes(safes, 0);
        ok = p12 != NULL &&
             PKCS12_set_mac(p12, passphrase, -1, NULL, SALT_LEN, ITERATIONS, EVP_sha256()) == 1;
    }
    sk_PKCS12_SAFEBAG_pop_free(bags, PKCS12_SAFEBAG_free);
    sk_PKCS7_pop_free(safes, PKCS7_free);
    return ok ? append_der(b, p12, err) : crypto_failed(err, "cannot make a PKCS#12 trust store");
}
