/* Certificates, keys and lists out of the bytes of files: pure. */
#include <postern/credential.h>

#include "credential_priv.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum {
    CHAIN_MAX = 16,
    LISTS_MAX = 512,
};

MEM_DEFINE_CLEANUP(BIO, BIO_free)
MEM_DEFINE_CLEANUP(PKCS12, PKCS12_free)

void credential_certs_free(STACK_OF(X509) * certs)
{
    sk_X509_pop_free(certs, X509_free);
}

int credential_crypto_failed(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    err_set(err, ERR_CONFIG, "%s%s%s", what, reason != NULL ? ": " : "",
            reason != NULL ? reason : "");
    ERR_clear_error();
    return -1;
}

static BIO *bio_of(struct str text, struct err *err)
{
    BIO *bio = text.n <= INT32_MAX ? BIO_new_mem_buf(text.n > 0 ? text.p : "", (int)text.n) : NULL;
    if (bio == NULL) {
        err_set(err, ERR_LIMIT, "too large");
    }
    ERR_clear_error();
    return bio;
}

/* After a loop over PEM: no more of it, or something that begins like it and is broken? */
static bool ended_well(void)
{
    unsigned long code = ERR_peek_last_error();
    bool ok = code == 0 ||
              (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE);
    if (ok) {
        ERR_clear_error();
    }
    return ok;
}

static bool is_pem(struct str text)
{
    return text.n > 0 && memmem(text.p, text.n, "-----BEGIN ", 11) != NULL;
}

/* Passphrases are given or there are none: nobody is asked at a terminal. */
struct passphrase {
    struct str text;
    bool asked;
};

static int give_passphrase(char *buf, int size, int rwflag, void *arg)
{
    struct passphrase *p = arg;
    (void)rwflag;
    p->asked = true;
    if (p->text.n == 0 || p->text.n > (size_t)size) {
        return -1;
    }
    memcpy(buf, p->text.p, p->text.n);
    return (int)p->text.n;
}

/* --- certificates ----------------------------------------------------------------------------- */
static int push(STACK_OF(X509) * certs, X509 *cert, int max, struct err *err)
{
    if (sk_X509_num(certs) == max || sk_X509_push(certs, cert) == 0) {
        X509_free(cert);
        return err_set(err, ERR_LIMIT, "more than %d certificates", max);
    }
    return 0;
}

STACK_OF(X509) * credential_parse_certs(struct str text, int max, struct err *err)
{
    mem_auto(BIO_free) BIO *bio = bio_of(text, err);
    STACK_OF(X509) *certs = sk_X509_new_null();
    struct passphrase none = {.text = STR_NONE};
    X509 *cert;
    int r = bio != NULL && certs != NULL ? 0 : -1;
    if (r == 0 && !is_pem(text)) {
        cert = d2i_X509_bio(bio, NULL);
        r = cert != NULL && BIO_pending(bio) == 0
                ? push(certs, cert, max, err)
                : (X509_free(cert),
                   err_set(err, ERR_CONFIG, "neither PEM nor one DER certificate"));
        ERR_clear_error();
    } else {
        while (r == 0 && (cert = PEM_read_bio_X509(bio, NULL, give_passphrase, &none)) != NULL) {
            r = push(certs, cert, max, err);
        }
        if (r == 0 && !ended_well()) {
            char what[64];
            snprintf(what, sizeof(what), "certificate %d cannot be read", sk_X509_num(certs) + 1);
            r = credential_crypto_failed(err, what);
        }
        if (r == 0 && sk_X509_num(certs) == 0) {
            err_set(err, ERR_CONFIG, "there is no certificate in it");
            r = err_expected(err, "PEM with \"-----BEGIN CERTIFICATE-----\"");
        }
    }
    if (r == -1) {
        credential_certs_free(certs);
        return NULL;
    }
    return certs;
}

/* --- lists ------------------------------------------------------------------------------------ */
static int push_list(STACK_OF(X509_CRL) * lists, X509_CRL *list, struct err *err)
{
    if (sk_X509_CRL_num(lists) == LISTS_MAX || sk_X509_CRL_push(lists, list) == 0) {
        X509_CRL_free(list);
        return err_set(err, ERR_LIMIT, "more than %d lists", (int)LISTS_MAX);
    }
    return 0;
}

STACK_OF(X509_CRL) * credential_parse_crls(struct str text, struct err *err)
{
    mem_auto(BIO_free) BIO *bio = bio_of(text, err);
    STACK_OF(X509_CRL) *lists = sk_X509_CRL_new_null();
    X509_CRL *list;
    int r = bio != NULL && lists != NULL ? 0 : -1;
    if (r == 0 && !is_pem(text)) {
        list = d2i_X509_CRL_bio(bio, NULL);
        r = list != NULL && BIO_pending(bio) == 0
                ? push_list(lists, list, err)
                : (X509_CRL_free(list), err_set(err, ERR_CONFIG, "neither PEM nor one DER list"));
        ERR_clear_error();
    } else {
        while (r == 0 && (list = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) != NULL) {
            r = push_list(lists, list, err);
        }
        if (r == 0 && !ended_well()) {
            r = credential_crypto_failed(err, "a revocation list cannot be read");
        }
        if (r == 0 && sk_X509_CRL_num(lists) == 0) {
            err_set(err, ERR_CONFIG, "there is no revocation list in it");
            r = err_expected(err, "PEM with \"-----BEGIN X509 CRL-----\"");
        }
    }
    if (r == -1) {
        sk_X509_CRL_pop_free(lists, X509_CRL_free);
        return NULL;
    }
    return lists;
}

/* --- keys ------------------------------------------------------------------------------------- */
EVP_PKEY *credential_parse_key(struct str text, struct str passphrase, struct err *err)
{
    mem_auto(BIO_free) BIO *bio = bio_of(text, err);
    struct passphrase p = {.text = passphrase};
    if (bio == NULL) {
        return NULL;
    }
    if (text.n == 0 || memmem(text.p, text.n, "PRIVATE KEY-----", 16) == NULL) {
        err_set(err, ERR_CONFIG, "there is no private key in it");
        err_expected(err, "PEM with \"-----BEGIN PRIVATE KEY-----\" or the like");
        return NULL;
    }
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, give_passphrase, &p);
    if (key != NULL) {
        ERR_clear_error();
        return key;
    }
    if (p.asked && passphrase.n == 0) {
        err_set(err, ERR_CONFIG, "the key is encrypted");
        err_advise(err, "name its passphrase_file");
        ERR_clear_error();
    } else if (p.asked) {
        ERR_clear_error();
        err_set(err, ERR_CONFIG, "the passphrase does not open the key");
    } else {
        credential_crypto_failed(err, "the private key cannot be read");
    }
    return NULL;
}

int credential_own(STACK_OF(X509) * chain, EVP_PKEY *key, struct x509_svid **ret, struct err *err)
{
    if (x509_own_new(chain, key, ret, err) == 0) {
        return 0;
    }
    for (int i = 1; i < sk_X509_num(chain); i++) {
        if (X509_check_private_key(sk_X509_value(chain, i), key) == 1) {
            err_advise(err, "the key is that of certificate %d: the own certificate comes first",
                       i + 1);
        }
    }
    ERR_clear_error();
    return -1;
}

int credential_parse_pem(struct str cert, struct str key, struct str passphrase,
                         struct x509_svid **ret, struct err *err)
{
    STACK_OF(X509) *chain = credential_parse_certs(cert, CHAIN_MAX, err);
    EVP_PKEY *k = chain != NULL ? credential_parse_key(key, passphrase, err) : NULL;
    int r = k != NULL ? credential_own(chain, k, ret, err) : -1;
    EVP_PKEY_free(k);
    credential_certs_free(chain);
    return r;
}

/* --- PKCS#12 ---------------------------------------------------------------------------------- */
/* The certificates besides the key's own come in no order: by issuer, from the leaf up. */
static void put_in_order(STACK_OF(X509) * chain, STACK_OF(X509) * others)
{
    X509 *last = sk_X509_value(chain, 0);
    for (int left = sk_X509_num(others); left > 0; left--) {
        int found = -1;
        for (int i = 0; i < sk_X509_num(others) && found == -1; i++) {
            found = X509_check_issued(sk_X509_value(others, i), last) == X509_V_OK ? i : -1;
        }
        if (found == -1 || X509_check_issued(last, last) == X509_V_OK) {
            return;
        }
        last = sk_X509_delete(others, found);
        if (sk_X509_push(chain, last) == 0) {
            X509_free(last);
            return;
        }
    }
}

static int take_pkcs12(X509 *leaf, EVP_PKEY *key, STACK_OF(X509) * others, struct x509_svid **ret,
                       struct err *err)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    int r = -1;
    if (chain == NULL || X509_up_ref(leaf) != 1) {
        err_set(err, ERR_LIMIT, "no memory");
    } else if (sk_X509_push(chain, leaf) == 0) {
        X509_free(leaf);
    } else {
        put_in_order(chain, others);
        r = credential_own(chain, key, ret, err);
    }
    credential_certs_free(chain);
    return r;
}

int credential_parse_pkcs12(struct str der, struct str passphrase, struct x509_svid **ret,
                            struct err *err)
{
    mem_auto(BIO_free) BIO *bio = bio_of(der, err);
    mem_auto(PKCS12_free) PKCS12 *p12 = bio != NULL ? d2i_PKCS12_bio(bio, NULL) : NULL;
    char *text = mem_secret_alloc(passphrase.n + 1); /* with a terminator */
    EVP_PKEY *key = NULL;
    X509 *leaf = NULL;
    STACK_OF(X509) *others = NULL;
    int r = -1;
    if (p12 == NULL || text == NULL) {
        (void)credential_crypto_failed(err, "it is not PKCS#12");
        mem_secret_free(text);
        return -1;
    }
    memcpy(text, passphrase.n > 0 ? passphrase.p : "", passphrase.n);
    /* None and an empty one are two things to its makers. */
    const char *given = text;
    if (passphrase.n == 0 && PKCS12_verify_mac(p12, "", 0) != 1) {
        given = NULL;
    }
    ERR_clear_error();
    if (PKCS12_mac_present(p12) == 1 && PKCS12_verify_mac(p12, given, (int)passphrase.n) != 1) {
        ERR_clear_error();
        err_set(err, ERR_CONFIG,
                passphrase.n > 0 ? "the passphrase does not open it"
                                 : "it is encrypted, and there is no passphrase");
        err_advise(err, "name its passphrase_file");
    } else if (PKCS12_parse(p12, given, &key, &leaf, &others) != 1) {
        (void)credential_crypto_failed(err, "it cannot be opened");
        err_advise(err, "if it is encrypted as in old times (RC2, single DES), make it anew: "
                        "openssl pkcs12 -legacy -in OLD -nodes | openssl pkcs12 -export");
    } else if (key == NULL || leaf == NULL) {
        err_set(err, ERR_CONFIG, "there is no %s in it",
                key == NULL ? "private key" : "certificate");
    } else {
        r = take_pkcs12(leaf, key, others, ret, err);
    }
    mem_secret_free(text);
    EVP_PKEY_free(key);
    X509_free(leaf);
    credential_certs_free(others);
    return r;
}
