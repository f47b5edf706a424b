/*
 * The input is a file that a credential or trust names. Every reader gets it: certificates, lists,
 * a key, PKCS#12, a bundle. Property: each takes it whole or tells why not; what was taken as
 * certificates is the same when it is written and read again.
 */
#include <postern/credential.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_certs(struct str text)
{
    struct err err = ERR_INIT;
    STACK_OF(X509) *certs = credential_parse_certs(text, 16, &err);
    CHECK((certs == NULL) == (err.code != ERR_NONE));
    for (int i = 0; certs != NULL && i < sk_X509_num(certs); i++) {
        uint8_t *der = NULL;
        size_t n = 0;
        CHECK(x509_to_der(sk_X509_value(certs, i), &der, &n, NULL) == 0);
        STACK_OF(X509) *again = credential_parse_certs((struct str){(char *)der, n}, 1, NULL);
        CHECK(again == NULL || X509_cmp(sk_X509_value(again, 0), sk_X509_value(certs, i)) == 0);
        sk_X509_pop_free(again, X509_free);
        free(der);
    }
    sk_X509_pop_free(certs, X509_free);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct err err = ERR_INIT;
    struct x509_svid *own = NULL;
    check_certs(text);
    STACK_OF(X509_CRL) *lists = credential_parse_crls(text, &err);
    CHECK((lists == NULL) == (err.code != ERR_NONE));
    sk_X509_CRL_pop_free(lists, X509_CRL_free);
    err = (struct err)ERR_INIT;
    EVP_PKEY *key = credential_parse_key(text, STR_LIT("x"), &err);
    CHECK((key == NULL) == (err.code != ERR_NONE));
    EVP_PKEY_free(key);
    err = (struct err)ERR_INIT;
    CHECK((credential_parse_pem(text, text, STR_NONE, &own, &err) == 0) == (own != NULL));
    CHECK((own == NULL) == (err.code != ERR_NONE));
    own = x509_svid_free(own);
    err = (struct err)ERR_INIT;
    CHECK((credential_parse_pkcs12(text, STR_NONE, &own, &err) == 0) == (own != NULL));
    CHECK((own == NULL) == (err.code != ERR_NONE));
    x509_svid_free(own);
    err = (struct err)ERR_INIT;
    struct x509_trust *trust = x509_trust_new();
    bool taken = credential_parse_bundle(text, STR_LIT("example.org"), trust, &err) == 0;
    CHECK(taken == (err.code == ERR_NONE) && x509_trust_count(trust) == (taken ? 1 : 0));
    x509_trust_unref(trust);
    return 0;
}
